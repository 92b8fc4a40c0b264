//! Connections for reading, beside the writer: WAL lets them see the last commit without waiting for the next.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::SqliteSettings;
use crate::ports::StoreError;

pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(settings: &SqliteSettings) -> rusqlite::Result<Self> {
        let count = settings.readers.max(1);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = |_| {
            let connection = Connection::open_with_flags(&settings.path, flags)?;
            connection.busy_timeout(settings.busy_timeout)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let idle = (0..count).map(open).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), places: Arc::new(Semaphore::new(count)) })
    }

    /// Runs `query` on a connection of its own, off the async threads, as one consistent view.
    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let closed = || StoreError::Unavailable { what: "the store is closed".to_owned() };
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let idle = Arc::clone(&self.idle);
        let work = move || {
            let connection = idle.lock().pop();
            let Some(connection) = connection else {
                return Err(StoreError::Unavailable { what: "no connection is idle".to_owned() });
            };
            let result = in_one_view(&connection, query);
            idle.lock().push(connection);
            drop(place);
            result.map_err(|error| super::store_error(&error))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| StoreError::Unavailable { what: "a read was broken off".to_owned() })?
    }
}

fn in_one_view<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.unchecked_transaction()?;
    let result = query(&transaction)?;
    transaction.commit()?;
    Ok(result)
}
