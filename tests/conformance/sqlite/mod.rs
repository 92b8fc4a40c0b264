//! The embedded store: the suite, and what is the file's own.

mod child;
mod files;
mod migrations;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::ids::AlertId;
use crisis_relay::ports::Store;
use crisis_relay::store::sqlite::{SqliteSettings, SqliteStore};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use crate::suite::{Place, conformance};

conformance!(SqlitePlace);

/// How a test uses a file: few readers, small groups, short patience.
pub(crate) fn settings(path: impl Into<PathBuf>) -> SqliteSettings {
    SqliteSettings {
        path: path.into(),
        readers: 3,
        group_commit_max: 8,
        write_queue_max: 100,
        busy_timeout: Duration::from_millis(50),
    }
}

/// A folder with one file.
pub(crate) struct SqlitePlace {
    folder: TempDir,
}

impl SqlitePlace {
    pub(crate) fn fresh() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("relay.db")
    }

    pub(crate) fn store(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(&settings(self.file())).unwrap())
    }

    /// A connection behind the store's back.
    pub(crate) fn raw(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }
}

impl Place for SqlitePlace {
    async fn new() -> Self {
        Self::fresh()
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.store()
    }

    async fn dump(&self) -> String {
        dump(&self.raw())
    }

    async fn spoil_alert(&self, id: AlertId) {
        let sql = "UPDATE alerts SET body = '{\"identity\":\"spoilt' WHERE id = ?1";
        assert_eq!(self.raw().execute(sql, [id.0.as_bytes()]).unwrap(), 1);
    }
}

/// Every row of every table, in order.
pub(crate) fn dump(connection: &Connection) -> String {
    let mut text = String::new();
    for table in names(connection, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
        let mut rows: Vec<String> = Vec::new();
        let mut select = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let mut found = select.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values: Vec<Value> = (0..columns).map(|column| row.get(column).unwrap()).collect();
            rows.push(format!("{table} {values:?}\n"));
        }
        rows.sort();
        text.extend(rows);
    }
    text
}

/// The schema, as SQLite tells it.
pub(crate) fn schema(connection: &Connection) -> Vec<String> {
    names(connection, "SELECT type || ' ' || name || ': ' || coalesce(sql, '') FROM sqlite_master ORDER BY 1")
}

fn names(connection: &Connection, sql: &str) -> Vec<String> {
    connection.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}
