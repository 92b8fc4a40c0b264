//! Connections for reading, beside the writer: WAL lets them see the last commit without waiting for the next.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;

use super::SqliteSettings;
use super::looks::Looks;
use crate::ports::StoreError;

pub(super) struct Readers {
    looks: Looks,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
    count: u32,
    busy_timeout: Duration,
}

/// More than enough for one machine.
const READERS_MAX: u32 = 64;

/// How long a read waits for a connection. They are all in use for so long only if the disk hangs, and then whoever waits
/// must not become a crowd.
const CONNECTION_WITHIN: Duration = Duration::from_secs(5);

impl Readers {
    pub(super) fn open(settings: &SqliteSettings) -> rusqlite::Result<Self> {
        let count = u32::try_from(settings.readers).unwrap_or(READERS_MAX).clamp(1, READERS_MAX);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |_| {
            let connection = Connection::open_with_flags(&settings.path, flags)?;
            connection.busy_timeout(settings.busy_timeout)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update(None, "cache_size", -super::READER_CACHE_KIB)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let idle = (0..count).map(open).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self {
            looks: Looks::new(idle.len()),
            idle: Arc::new(Mutex::new(idle)),
            places: Arc::new(Semaphore::new(count as usize)),
            count,
            busy_timeout: settings.busy_timeout,
        })
    }

    /// Runs a query that a few index look-ups answer, right here: to hand it to another thread and to wait for that would
    /// cost several times what the query does. Where it would have to wait, for a connection, for a lock or for a slow disk,
    /// it is run as any other read.
    pub(super) async fn look<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        if let Some(answer) = self.look_at_once(&query) {
            return answer.map_err(|error| super::store_error(&error));
        }
        let timed = self.looks.timed();
        self.read(move |connection| {
            let _timed = timed();
            query(connection)
        })
        .await
    }

    fn look_at_once<T>(&self, query: &impl Fn(&Connection) -> rusqlite::Result<T>) -> Option<rusqlite::Result<T>> {
        let _look = self.looks.turn()?;
        let _place = self.places.try_acquire().ok()?;
        let connection = self.idle.lock().pop()?;
        let lent = Lent { connection: Some(connection), idle: Arc::clone(&self.idle) };
        let answer = lent.read_without_waiting(self.busy_timeout, query);
        match &answer {
            Err(error) if is_busy(error) => None,
            Ok(_) | Err(_) => Some(answer),
        }
    }

    /// Runs `query` on a connection of its own, off the async threads, as one consistent view.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let place = super::place_among(&self.places, CONNECTION_WITHIN).await?;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            // Declared first, dropped last: the connection is back before its place is free.
            let _place = place;
            let connection = idle.lock().pop();
            let Some(connection) = connection else {
                return Err(StoreError::Unavailable { what: "no connection is idle".to_owned() });
            };
            let lent = Lent { connection: Some(connection), idle };
            lent.read(query).map_err(|error| super::store_error(&error))
        };
        let read = tokio::task::spawn_blocking(work).await;
        super::looks::give_way().await;
        read.map_err(|_| StoreError::Unavailable { what: "a read was broken off".to_owned() })?
    }

    /// Waits for the reads under way and closes the connections; later reads are refused.
    pub(super) async fn close(&self) {
        let Ok(_all) = self.places.acquire_many(self.count).await else { return };
        self.places.close();
        let connections = std::mem::take(&mut *self.idle.lock());
        let _ = tokio::task::spawn_blocking(move || drop(connections)).await;
    }
}

/// A connection on loan: it goes back even if its reader panics.
struct Lent {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Lent {
    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let connection = self.connection.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        in_one_view(connection, query)
    }

    fn read_without_waiting<T>(
        &self,
        busy_timeout: Duration,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let connection = self.connection.as_ref().ok_or(rusqlite::Error::InvalidQuery)?;
        connection.busy_timeout(Duration::ZERO)?;
        let _patience_again = Patience(connection, busy_timeout);
        in_one_view(connection, query)
    }
}

/// Gives a connection its patience back, even if its reader panics.
struct Patience<'a>(&'a Connection, Duration);

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        let _ = self.0.busy_timeout(self.1);
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.idle.lock().extend(self.connection.take());
    }
}

fn in_one_view<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let view = View(connection);
    let result = query(connection)?;
    view.end()?;
    Ok(result)
}

/// A transaction that reads; rolled back where its reader fails or panics.
struct View<'a>(&'a Connection);

impl View<'_> {
    fn end(&self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
    }
}
