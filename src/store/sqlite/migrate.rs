//! The schema's versions. `PRAGMA user_version` says which one a file has; each step is one transaction.

use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;

/// The steps in order; step `n` leads to version `n + 1`. Steps that were released are never changed.
const STEPS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../../migrations/sqlite/0002_facts.sql"),
    include_str!("../../../migrations/sqlite/0003_unfinished.sql"),
    include_str!("../../../migrations/sqlite/0004_rosters.sql"),
    include_str!("../../../migrations/sqlite/0005_replies.sql"),
];

/// The version that this build writes.
pub const LATEST: usize = STEPS.len();

/// "CRLY": tells our files from other SQLite databases.
const APPLICATION_ID: i64 = 0x4352_4C59;

/// The version of a file: 0 where it is empty. Refuses what is not ours, or newer than this build; changes nothing.
pub(super) fn version(connection: &Connection) -> Result<usize, OpenError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(not_ours);
    let application = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_master")?;
    match (application, usize::try_from(version)) {
        (0, Ok(0)) if tables == 0 => Ok(0),
        (APPLICATION_ID, Ok(found)) if found > LATEST => Err(OpenError::TooNew { found, known: LATEST }),
        (APPLICATION_ID, Ok(found)) if found > 0 => Ok(found),
        _ => Err(OpenError::ForeignFile),
    }
}

fn not_ours(error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => OpenError::ForeignFile,
        Some(_) | None => OpenError::Sqlite(error),
    }
}

/// Brings a file up to `target`. Killed in the middle, it is at the version of the last finished step.
pub(super) fn migrate(connection: &mut Connection, target: usize) -> Result<usize, OpenError> {
    let from = version(connection)?;
    for (step, sql) in STEPS.iter().enumerate().take(target).skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(from)
}
