//! The embedded store: one SQLite file, WAL, `synchronous=FULL`, one writer with group commit, reads beside it.
//!
//! A file belongs to one process at a time: a lock file beside it says so. That is why leases of others are void when
//! the store is opened, and why recovery after a crash need not wait for them.

mod checkpoints;
mod looks;
mod migrate;
mod place;
mod readers;
mod rows;
mod sql;
#[cfg(test)]
mod tests;
mod transfer;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use migrate::LATEST as LATEST_SCHEMA;

use self::place::Place;
use self::readers::Readers;
use self::writer::{Hurry, Writer};
use crate::domain::alert::{Alert, StateName};
use crate::domain::audit::{AuditEntry, AuditHead, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::event::EventDetails;
use crate::domain::ids::{
    AddressKey, AlertId, IdempotencyKey, OrganisationId, PersonKey, ProviderId, Reference, SubjectKey,
};
use crate::domain::roster::Roster;
use crate::ports::{
    AlertCommit, AuditStretch, Committed, ConsentCommit, IdempotencyRecord, IntakeContext, ListCursor, Operations,
    RosterCommit, Store, StoreError, StoreStats, WrappedDataKey,
};
use crate::store::json;

/// How the file is used.
#[derive(Debug, Clone)]
pub struct SqliteSettings {
    /// The file; made if it is not there.
    pub path: PathBuf,
    /// Connections for reading.
    pub readers: usize,
    /// How many changes share one commit at the most.
    pub group_commit_max: usize,
    /// How many changes may wait for the writer; further ones wait for a place.
    pub write_queue_max: usize,
    /// How long a lock held by another process is waited for.
    pub busy_timeout: Duration,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process is using this database (it holds the lock file beside it)")]
    InUse,
    /// The folder or the lock file cannot be made.
    #[error("the database's folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    /// It holds something else.
    #[error("the file is not a database of crisis-relay")]
    ForeignFile,
    /// A newer build wrote it.
    #[error("the database has schema version {found}, but this build knows only {known}: start the newer build")]
    TooNew {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// There is none, or it has not been migrated.
    #[error("the database has schema version {found}, and {known} is needed: start the service once to migrate it")]
    NotMigrated {
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// The file, or the file system it lies on, can only be read.
    #[error("the database cannot be written: the file or its file system is read-only for this user")]
    ReadOnly,
    /// The file system cannot share memory between connections; most network file systems cannot.
    #[error("the database cannot use a write-ahead log here: put it on a local disk")]
    NoWriteAheadLog,
    /// SQLite says no.
    #[error("SQLite refuses the file: {}", describe(.0))]
    Sqlite(#[from] rusqlite::Error),
}

/// The schema's versions before and after a migration; 0 is a file that was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// Before.
    pub from: usize,
    /// After: the version that this build writes.
    pub to: usize,
}

/// A store in one SQLite file.
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    exclusive: bool,
}

impl SqliteStore {
    /// Opens the file for this process alone, makes it if need be, and brings its schema up to date.
    pub fn open(settings: &SqliteSettings) -> Result<Self, OpenError> {
        let (connection, lock, _) = Self::open_migrated(settings)?;
        Self::with(connection, settings, Some(lock))
    }

    /// Brings the file's schema up to date, as [`SqliteStore::open`] does, and lets go of it.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn migrate(settings: &SqliteSettings) -> Result<Migrated, OpenError> {
        let (_, _, moved) = Self::open_migrated(settings)?;
        Ok(moved)
    }

    fn open_migrated(settings: &SqliteSettings) -> Result<(Connection, File, Migrated), OpenError> {
        if let Some(folder) = settings.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let lock = lock(&settings.path)?;
        let mut connection = Connection::open(&settings.path)?;
        connection.busy_timeout(settings.busy_timeout)?;
        // Whose file it is comes first: what is not ours is left as it was found.
        migrate::version(&connection)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(OpenError::ReadOnly);
        }
        restrict(&settings.path)?;
        prepare(&connection)?;
        let from = migrate::migrate(&mut connection, migrate::LATEST)?;
        Ok((connection, lock, Migrated { from, to: migrate::LATEST }))
    }

    /// Opens a file that another process may be using, to read it: for the audit's commands.
    pub fn open_to_read(settings: &SqliteSettings) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&settings.path, flags)?;
        connection.busy_timeout(settings.busy_timeout)?;
        let found = migrate::version(&connection)?;
        if found < migrate::LATEST {
            return Err(OpenError::NotMigrated { found, known: migrate::LATEST });
        }
        connection.pragma_update(None, "query_only", true)?;
        Self::with(connection, settings, None)
    }

    /// What is kept under `name` by [`Store::keep_fact`], if anything is. Writes nothing.
    ///
    /// # Errors
    /// As every read of the store.
    pub async fn fact(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.readers.read(move |connection| rows::fact(connection, name)).await
    }

    fn with(connection: Connection, settings: &SqliteSettings, lock: Option<File>) -> Result<Self, OpenError> {
        let exclusive = lock.is_some();
        let place = Place::of(&settings.path);
        let readers = Readers::open(settings)?;
        let writer = Writer::start(connection, place, settings, lock)?;
        Ok(Self { writer, readers, exclusive })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = File::options().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(std::fs::TryLockError::Error(error)) => Err(OpenError::Folder(error)),
    }
}

/// The file holds pseudonymous and sealed data only, but it is nobody else's business either. New logs beside it take
/// its permissions over; those that a crash left behind, or that looking at the file has made, are seen to here.
#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::set_permissions(beside(path, suffix), std::fs::Permissions::from_mode(0o600)) {
            Err(error) if suffix.is_empty() || error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
#[cfg(not(unix))]
fn restrict(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// How much the writer and each reader remember of the file, in KiB. With many stored alerts all of it is taken, for what is
/// looked up and written is spread over all of the file; the system remembers the file as well.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 1024;

fn prepare(connection: &Connection) -> Result<(), OpenError> {
    let journal: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !journal.eq_ignore_ascii_case("wal") {
        return Err(OpenError::NoWriteAheadLog);
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // On macOS a plain fsync leaves data in the drive's cache; elsewhere these two change nothing.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // A write-ahead log that once grew large does not stay so.
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A group of more than a hundred changes fits in: a page that had to be written out in the middle is read in again.
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// SQLite's own words, which name tables and files but never a value.
fn describe(error: &rusqlite::Error) -> String {
    if let rusqlite::Error::SqliteFailure(code, _) = error {
        return format!("{code} (SQLite code {})", code.extended_code);
    }
    match error.sqlite_error_code() {
        Some(code) => format!("{code:?}"),
        None => "a row cannot be read".to_owned(),
    }
}

/// A place among those that are bounded, if one comes free in time: surely nothing was done without one.
async fn place_among(places: &Arc<Semaphore>, within: Duration) -> Result<OwnedSemaphorePermit, StoreError> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Ok(place);
    }
    match tokio::time::timeout(within, Arc::clone(places).acquire_owned()).await {
        Ok(place) => place.map_err(|_| writer::closed()),
        Err(_elapsed) => {
            let what = "what came before does not come back: the disk hangs, or is far too slow".to_owned();
            Err(StoreError::Unavailable { what })
        }
    }
}

fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode;
    let what = describe(error);
    match error.sqlite_error_code() {
        // A broken constraint says that stored rows contradict what is to be written: to try again would not help.
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation) => {
            StoreError::Corrupt { what }
        }
        Some(_) => StoreError::Unavailable { what },
        None => StoreError::Corrupt { what },
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn intake_context(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<IntakeContext, StoreError> {
        let organisation = organisation.clone();
        self.readers
            .look(move |connection| {
                Ok(IntakeContext {
                    idempotency: match idempotency {
                        Some(key) => rows::answer(connection, key)?,
                        None => None,
                    },
                    open_alert: rows::open_alert(connection, &organisation, subject)?,
                    consent: rows::consent(connection, &organisation, subject)?,
                    data_key: rows::data_key(connection, &organisation, subject.into())?,
                })
            })
            .await
    }

    async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
        let body = json::write(&commit.alert)?;
        let hurry = if commit.may_wait { Hurry::MayWait } else { Hurry::AtOnce };
        self.writer.write_in(hurry, move |connection| rows::commit_alert(connection, &commit, &body)).await
    }

    async fn keep_answer(&self, record: IdempotencyRecord) -> Result<bool, StoreError> {
        self.writer.write(move |connection| rows::insert_answer(connection, &record)).await
    }

    async fn answer(&self, key: IdempotencyKey) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.readers.look(move |connection| rows::answer(connection, key)).await
    }

    async fn forget_answers(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.writer
            .write(move |connection| {
                connection
                    .prepare_cached(sql::FORGET_ANSWERS)?
                    .execute(params![before.as_microsecond(), rows::bound(limit)])
            })
            .await
    }

    async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        self.readers.look(move |connection| rows::alert(connection, id)).await
    }

    async fn alert_by_reference(
        &self,
        organisation: &OrganisationId,
        reference: Reference,
    ) -> Result<Option<Alert>, StoreError> {
        let organisation = organisation.clone();
        self.readers
            .look(move |connection| {
                connection
                    .prepare_cached(sql::ALERT_BY_REFERENCE)?
                    .query_row(params![organisation.as_str(), reference.as_str()], rows::json_column)
                    .optional()
            })
            .await
    }

    async fn alert_of_message(&self, id: &ProviderId) -> Result<Option<Alert>, StoreError> {
        let id = id.clone();
        self.readers
            .look(move |connection| {
                connection.prepare_cached(sql::ALERT_OF_MESSAGE)?.query_row([id.as_str()], rows::json_column).optional()
            })
            .await
    }

    async fn last_case_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
    ) -> Result<Option<Alert>, StoreError> {
        let organisation = organisation.clone();
        self.readers
            .look(move |connection| {
                let values = params![organisation.as_str(), address.as_bytes()];
                connection.prepare_cached(sql::LAST_CASE)?.query_row(values, rows::json_column).optional()
            })
            .await
    }

    async fn cases_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let organisation = organisation.clone();
        self.readers
            .read(move |connection| {
                let values = params![organisation.as_str(), address.as_bytes(), rows::bound(limit)];
                rows::all(connection, sql::CASES_OF, values, rows::json_column)
            })
            .await
    }

    async fn due_alerts(&self, until: Timestamp, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        self.readers
            .read(move |connection| {
                let values = params![until.as_microsecond(), rows::bound(limit)];
                rows::all(connection, sql::DUE_ALERTS, values, rows::alert_id)
            })
            .await
    }

    async fn unfinished_alerts(&self, after: Option<AlertId>, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        let after = after.map_or([0xff; 16], |id| *id.0.as_bytes());
        self.readers
            .read(move |connection| {
                rows::all(connection, sql::UNFINISHED_ALERTS, params![after, rows::bound(limit)], rows::alert_id)
            })
            .await
    }

    async fn list_alerts(
        &self,
        organisation: &OrganisationId,
        state: Option<StateName>,
        after: Option<ListCursor>,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let organisation = organisation.clone();
        self.readers.read(move |connection| rows::list(connection, &organisation, state, after, limit)).await
    }

    async fn event_details(&self, alert: AlertId) -> Result<Vec<EventDetails>, StoreError> {
        self.readers.read(move |connection| rows::event_details(connection, alert)).await
    }

    async fn consent(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
    ) -> Result<Option<ConsentRecord>, StoreError> {
        let organisation = organisation.clone();
        self.readers.look(move |connection| rows::consent(connection, &organisation, subject)).await
    }

    async fn commit_consent(&self, commit: ConsentCommit) -> Result<bool, StoreError> {
        let body = json::write(&commit.record)?;
        self.writer.write(move |connection| rows::commit_consent(connection, &commit, &body)).await
    }

    async fn roster(&self, organisation: &OrganisationId) -> Result<Option<Roster>, StoreError> {
        let organisation = organisation.clone();
        self.readers.look(move |connection| rows::roster(connection, &organisation)).await
    }

    async fn commit_roster(&self, commit: RosterCommit) -> Result<bool, StoreError> {
        let body = json::write(&commit.roster)?;
        self.writer.write(move |connection| rows::commit_roster(connection, &commit, &body)).await
    }

    async fn data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let organisation = organisation.clone();
        self.readers.look(move |connection| rows::data_key(connection, &organisation, person)).await
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<bool, StoreError> {
        self.writer.write(move |connection| rows::insert_data_key(connection, &key)).await
    }

    async fn append_audit(&self, entry: AuditEntry) -> Result<bool, StoreError> {
        self.writer
            .write(move |connection| {
                let stream = entry.stream.to_string();
                let head = rows::audit_head(connection, &stream)?;
                let follows = head.seq + 1 == entry.seq;
                if follows {
                    rows::insert_audit(connection, std::slice::from_ref(&entry))?;
                }
                Ok(follows)
            })
            .await
    }

    async fn audit_head(&self, stream: &AuditStream) -> Result<AuditHead, StoreError> {
        let stream = stream.to_string();
        self.readers.look(move |connection| rows::audit_head(connection, &stream)).await
    }

    async fn audit_entries(
        &self,
        stream: &AuditStream,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let stream = stream.clone();
        self.readers.read(move |connection| rows::audit_entries(connection, &stream, after, limit)).await
    }

    async fn audit_walk(&self, from: Option<&str>, limit: usize) -> Result<AuditStretch, StoreError> {
        let from = match from {
            Some(from) => rows::walk_place(from)
                .ok_or_else(|| StoreError::Corrupt { what: "this is no place in the audit".to_owned() })?,
            // Before every name, and every number, there is.
            None => (String::new(), i64::MIN),
        };
        self.readers.read(move |connection| rows::audit_walk(connection, &from, limit)).await
    }

    async fn keep_fact(&self, name: &'static str, value: &str) -> Result<String, StoreError> {
        let value = value.to_owned();
        self.writer.write(move |connection| rows::keep_fact(connection, name, &value)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.readers.read(rows::stats).await
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        let sql = "INSERT INTO probe (id, at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = excluded.at";
        self.writer
            .write(move |connection| connection.prepare_cached(sql)?.execute([now.as_microsecond()]).map(|_| ()))
            .await?;
        self.readers
            .read(|connection| {
                connection.query_row("SELECT at FROM probe WHERE id = 1", [], |row| row.get::<_, i64>(0))
            })
            .await
            .map(|_| ())
    }

    fn operations(&self) -> Operations {
        Operations { commits: self.writer.commits(), ..Operations::default() }
    }

    fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    async fn close(&self) {
        // The writer last: it finds no reader in the way of its last checkpoint, and then lets the file go.
        self.readers.close().await;
        self.writer.close().await;
    }
}
