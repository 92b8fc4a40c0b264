//! Holds a copy up at a given row: a trigger in the file computes for ever when that row comes, within the transaction
//! that writes it.

use std::path::Path;
use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::ports::random;
use rusqlite::{Connection, ErrorCode};

use crate::installation::{MARKS, TABLES, counts, open};

/// Where a copy is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before anything is written.
    BeforeTheMark,
    /// Before the row with this number comes into this one of [`TABLES`].
    Row { table: usize, row: u64 },
    /// All is there and proven, and the source is about to be given up.
    BeforeTheSourceIsMarked,
    /// The source is given up, and the destination is still marked.
    BeforeTheMarkIsTakenAway,
}

impl Moment {
    /// So many rows, drawn from what is there to be copied: `all` rows of each table.
    pub(crate) fn drawn(seed: u64, count: u64, all: &[u64]) -> Vec<Self> {
        let number = |draw: u64| u64::from_be_bytes(random::<8>(&SeededEntropy::new(seed ^ (draw << 32))));
        let moment = |draw: u64| {
            // Each kind of rows as often as there are rows of it: from nothing copied to nearly everything.
            let mut left = number(draw) % all.iter().sum::<u64>();
            let table = all.iter().position(|rows| {
                let is_here = left < *rows;
                left -= if is_here { 0 } else { *rows };
                is_here
            });
            Self::Row { table: table.unwrap(), row: left + 1 }
        };
        (0..count).map(moment).collect()
    }

    /// What is done, to which table, under which condition.
    fn trigger(self) -> String {
        let (action, table, condition) = match self {
            Self::BeforeTheMark => ("INSERT", "facts", "NEW.name = 'copying'".to_owned()),
            Self::Row { table: 0, row } => {
                let there = format!("SELECT count(*) FROM facts WHERE name NOT IN {MARKS}");
                ("INSERT", "facts", format!("NEW.name NOT IN {MARKS} AND ({there}) >= {row} - 1"))
            }
            Self::Row { table, row } => {
                let table = TABLES[table];
                ("INSERT", table, format!("(SELECT count(*) FROM {table}) >= {row} - 1"))
            }
            Self::BeforeTheSourceIsMarked => ("INSERT", "facts", "NEW.name = 'moved_to'".to_owned()),
            Self::BeforeTheMarkIsTakenAway => ("DELETE", "facts", "OLD.name = 'copying'".to_owned()),
        };
        format!(
            "CREATE TRIGGER held BEFORE {action} ON {table} WHEN {condition} BEGIN SELECT count(*) FROM endless; END;"
        )
    }

    pub(crate) fn hold(self, file: &Path) {
        const ENDLESS: &str = "CREATE VIEW endless AS WITH RECURSIVE turns (number) AS \
                               (SELECT 1 UNION ALL SELECT number + 1 FROM turns) SELECT number FROM turns;";
        open(file).execute_batch(&format!("{ENDLESS}{}", self.trigger())).unwrap();
    }

    pub(crate) fn let_go(file: &Path) {
        open(file).execute_batch("DROP TRIGGER held; DROP VIEW endless;").unwrap();
    }

    /// Whether what the destination holds is what it must hold while the copy is held up here: never more than this.
    pub(crate) fn is_reached(self, holds: &[u64], all: &[u64]) -> bool {
        match self {
            Self::BeforeTheMark => holds.iter().all(|rows| *rows == 0),
            Self::Row { table, row } => {
                let before = holds[..table] == all[..table];
                before && holds[table] < row && holds[table + 1..].iter().all(|rows| *rows == 0)
            }
            Self::BeforeTheSourceIsMarked | Self::BeforeTheMarkIsTakenAway => holds == all,
        }
    }
}

/// Whether somebody holds the file for a change that does not come to its end, with the destination at this moment.
pub(crate) fn is_held(moment: Moment, held: &Path, destination: &Path, all: &[u64]) -> bool {
    let before = counts(destination);
    moment.is_reached(&before, all) && is_locked(&open(held)) && counts(destination) == before
}

fn is_locked(connection: &Connection) -> bool {
    connection.busy_timeout(Duration::from_millis(100)).unwrap();
    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK;") {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy), "{error}");
            true
        }
    }
}
