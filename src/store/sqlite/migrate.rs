//! The schema's versions. `PRAGMA user_version` says which one a file has; each step is one transaction.

use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;

/// The steps in order; step `n` leads to version `n + 1`. Steps that were released are never changed.
const STEPS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_initial.sql")];

/// The version that this build writes.
pub const LATEST: usize = STEPS.len();

/// "CRLY": tells our files from other SQLite databases.
const APPLICATION_ID: i64 = 0x4352_4C59;

/// The version of a file: 0 where it is empty.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map(|v| usize::try_from(v).unwrap_or(0))
}

/// Brings a file up to `target`. Killed in the middle, it is at the version of the last finished step.
pub(super) fn migrate(connection: &mut Connection, target: usize) -> Result<usize, OpenError> {
    let from = version(connection)?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::ForeignFile);
    }
    if from > LATEST {
        return Err(OpenError::TooNew { found: from, known: LATEST });
    }
    for (step, sql) in STEPS.iter().enumerate().take(target).skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(from)
}
