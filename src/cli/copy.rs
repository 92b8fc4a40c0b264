//! `copy`: moves an installation from one store into another.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use super::{block_on, say, say_error};
use crate::app;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config, Rule};
use crate::ports::transfer::Transfer;
use crate::service::moving::{Move, MoveError, move_all};
use crate::store::firestore::{FirestoreSettings, FirestoreStore};
use crate::store::sqlite::{SqliteSettings, SqliteStore};

/// Pieces in hand at one time.
const PAGE: usize = 100;

/// It could not be begun: a store cannot be opened.
const NOT_OPENED: u8 = 2;

/// From where, and to where.
#[derive(clap::Args)]
pub(super) struct CopyArgs {
    /// sqlite:PATH or firestore:PROJECT[/DATABASE].
    #[arg(long, value_name = "STORE")]
    from: Place,
    /// Likewise; must be empty, or hold a half-finished copy of the same source as it is now.
    #[arg(long, value_name = "STORE")]
    to: Place,
    /// Leave the source as it is. Else the service refuses to start on it afterwards: two that send would tell everybody
    /// twice.
    #[arg(long)]
    keep_source: bool,
}

/// A store, as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Sqlite(PathBuf),
    Firestore { project: String, database: String },
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("firestore", name)) => {
                let (project, database) = name.split_once('/').unwrap_or((name, config::DEFAULT_DATABASE));
                let unfit = |what, Rule { rule, remedy }| format!("the {what} {rule}; {remedy}");
                Ok(Self::Firestore {
                    project: config::project_id(project).ok_or_else(|| unfit("project id", config::PROJECT_ID))?,
                    database: config::database_id(database).ok_or_else(|| unfit("database id", config::DATABASE_ID))?,
                })
            }
            Some(_) | None => Err("must be sqlite:PATH, firestore:PROJECT or firestore:PROJECT/DATABASE".to_owned()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Firestore { project, database } => write!(f, "firestore:{project}/{database}"),
        }
    }
}

impl Place {
    /// Opens it for this process; a source must be there already.
    async fn open(&self, config: &Config, is_source: bool) -> Result<Box<dyn Transfer>, String> {
        match self {
            Self::Sqlite(path) => {
                if is_source && !path.exists() {
                    return Err("there is no such file".to_owned());
                }
                let settings = SqliteSettings { path: path.clone(), ..app::sqlite_settings(config) };
                let store = SqliteStore::open(&settings).map_err(|error| error.to_string())?;
                Ok(Box::new(store))
            }
            Self::Firestore { project, database } => {
                let settings = FirestoreSettings {
                    project_id: project.clone(),
                    database_id: database.clone(),
                    // Nobody's alert waits for a copy, and one page that is slow to come would break it off.
                    ..app::firestore_settings_to_read(config)
                };
                let store = FirestoreStore::open(&settings, Arc::new(SystemEntropy)).await;
                Ok(Box::new(store.map_err(|error| error.to_string())?))
            }
        }
    }
}

pub(super) fn copy(config: &Config, args: &CopyArgs) -> ExitCode {
    if args.from == args.to {
        say_error("Source and destination are the same.");
        return ExitCode::FAILURE;
    }
    block_on(async {
        let mut stores = Vec::new();
        for (place, is_source) in [(&args.from, true), (&args.to, false)] {
            match place.open(config, is_source).await {
                Ok(store) => stores.push(store),
                Err(error) => {
                    say_error(&format!("{place}: {error}"));
                    return ExitCode::from(NOT_OPENED);
                }
            }
        }
        let how = Move {
            destination: args.to.to_string(),
            keep_source: args.keep_source,
            page: PAGE,
            answers_kept: config.idempotency.keep,
        };
        say(&format!("Copying {} to {}", args.from, args.to));
        let [from, to] = stores.as_slice() else { return ExitCode::FAILURE };
        let status = run(from.as_ref(), to.as_ref(), &how).await;
        from.close().await;
        to.close().await;
        status
    })
}

async fn run(from: &dyn Transfer, to: &dyn Transfer, how: &Move) -> ExitCode {
    match move_all(from, to, how, &SystemClock).await {
        Ok(moved) => {
            for (kind, count) in &moved.counts {
                say(&format!("  {count:>10} {}", kind.name()));
            }
            say(&format!("All is there. {} audit chains hold, {} entries.", moved.audit.chains, moved.audit.entries));
            say(if how.keep_source {
                "The source is left as it was: see to it that only one of the two is served."
            } else {
                "The service does not start on the source any more."
            });
            ExitCode::SUCCESS
        }
        Err(error) => {
            say_error(&format!("Not copied: {error}"));
            if let MoveError::Audit(audit) | MoveError::SourceAudit(audit) = &error {
                for (stream, fault) in &audit.faults {
                    say_error(&format!("  {stream}: {fault}"));
                }
            }
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["sqlite:data/relay.db", "firestore:north-1/relay", "firestore:north-1/(default)"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("firestore:north-1".parse::<Place>().unwrap().to_string(), "firestore:north-1/(default)");
        for text in ["", "sqlite:", "data/relay.db", "Firestore:north-1"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_project_or_database_that_the_settings_would_refuse_is_refused_by_its_name() {
        for text in ["", "/north", "north", "North-College", "1-north", "north_college", "123456789012"] {
            let told = format!("firestore:{text}").parse::<Place>().unwrap_err();
            assert!(
                told.starts_with("the project id must be") && told.contains("Google Cloud console"),
                "{text}: {told}"
            );
        }
        for text in ["north-1/", "north-1/a/b", "north-1/one", "north-1/Relay", "north-1/default)"] {
            let told = format!("firestore:{text}").parse::<Place>().unwrap_err();
            assert!(told.starts_with("the database id must be (default), or"), "{text}: {told}");
        }
    }
}
