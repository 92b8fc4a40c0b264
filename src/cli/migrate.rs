//! `migrate`: brings a store to what this build needs. On SQLite these are steps of the schema; on Firestore indexes, TTL
//! policies and rules, which Google builds in its own time.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::{block_on, say, say_error};
use crate::app;
use crate::clock::SystemClock;
use crate::config::{Config, StoreKind};
use crate::ports::Fault;
use crate::store::firestore::admin::{Admin, AdminError, Endpoints, GoogleCredentials, Standing, Survey};
use crate::store::sqlite::SqliteStore;

/// It is all asked for, and Google has not finished within the time.
const STILL_BUILDING: u8 = 3;

/// How it is migrated.
#[derive(clap::Args)]
pub(super) struct MigrateArgs {
    /// On Firestore: how long Google is waited for.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    wait: u64,
}

/// A database on Firestore.
pub(super) struct FirestoreTarget {
    pub(super) project: String,
    pub(super) database: String,
    /// The emulator's address, if it is one.
    pub(super) emulator: Option<String>,
}

impl FirestoreTarget {
    /// The one that is configured.
    pub(super) fn of(config: &Config) -> Self {
        let settings = &config.store.firestore;
        Self {
            // Always there where Firestore is chosen.
            project: settings.project_id.clone().unwrap_or_default(),
            database: settings.database_id.clone(),
            emulator: settings.emulator_host.clone(),
        }
    }

    /// Who looks after its set-up, with Google's standard credentials.
    pub(super) async fn admin(&self) -> Result<Admin, AdminError> {
        let credentials = Arc::new(GoogleCredentials::find().await?);
        Admin::new(&self.project, &self.database, Endpoints::google(), credentials, Arc::new(SystemClock))
    }
}

pub(super) fn migrate(config: &Config, args: &MigrateArgs) -> ExitCode {
    match config.store.kind {
        StoreKind::Sqlite => sqlite(config),
        StoreKind::Firestore => firestore(&FirestoreTarget::of(config), Duration::from_secs(args.wait)),
    }
}

fn sqlite(config: &Config) -> ExitCode {
    let path = config.store.path.display();
    match SqliteStore::migrate(&app::sqlite_settings(config)) {
        Ok(moved) if moved.from == moved.to => say(&format!("{path} has schema version {}: nothing to do.", moved.to)),
        Ok(moved) => say(&format!("{path} went from schema version {} to {}.", moved.from, moved.to)),
        Err(error) => {
            say_error(&format!("{path}: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn firestore(target: &FirestoreTarget, wait: Duration) -> ExitCode {
    let FirestoreTarget { project, database, emulator } = target;
    if let Some(address) = emulator {
        say(&format!("{address} is an emulator: it needs no indexes, TTL policies or rules, and enforces none."));
        return ExitCode::SUCCESS;
    }
    say(&format!("Firestore, project {project}, database {database}"));
    block_on(async {
        let migrated = async { run(&target.admin().await?, wait).await };
        match migrated.await {
            Ok(survey) => conclude(&survey),
            Err(error) => {
                say_error(&format!("{error}\n    {}", error.remedy()));
                ExitCode::FAILURE
            }
        }
    })
}

/// Asks what is there, makes what is missing, and waits for it.
async fn run(admin: &Admin, wait: Duration) -> Result<Survey, AdminError> {
    let survey = admin.survey().await?;
    // Who migrates must be able to see and set the rules, else the run is not whole.
    if let Some(error) = survey.rules_unseen {
        return Err(error);
    }
    for piece in survey.of(Standing::Missing) {
        say(&format!("  to make   {piece}"));
    }
    admin.apply(&survey).await?;
    if survey.is_complete() {
        return Ok(survey);
    }
    say("Google builds in its own time: minutes, and longer where there are documents already.");
    admin.wait(wait).await
}

fn conclude(survey: &Survey) -> ExitCode {
    for name in &survey.unwanted {
        say(&format!("  note      {name} is not listed in migrations/firestore; it costs writes. Left alone"));
    }
    if survey.is_complete() {
        say(&format!("All {} indexes, field settings and rules are in place.", survey.pieces.len()));
        return ExitCode::SUCCESS;
    }
    for (piece, standing) in &survey.pieces {
        match standing {
            Standing::Ready => {}
            Standing::Building => say(&format!("  building  {piece}")),
            Standing::Missing => say_error(&format!("  missing   {piece}")),
            Standing::Failed => {
                say_error(&format!("  failed    {piece}: delete it in the console, and run this again"))
            }
        }
    }
    if survey.pieces.iter().any(|(_, standing)| matches!(standing, Standing::Missing | Standing::Failed)) {
        return ExitCode::FAILURE;
    }
    say("All is asked for and not all is built. Run this again, or `crisis-relay check`, before the service starts.");
    ExitCode::from(STILL_BUILDING)
}

/// What `check` says of it: what does not serve is a fault, for the queries that need it fail.
pub(super) fn setup_faults(survey: &Survey) -> Vec<Fault> {
    let told = survey.pieces.iter().filter_map(|(piece, standing)| {
        let (problem, remedy) = match standing {
            Standing::Ready => return None,
            Standing::Building => ("is still building", "Wait; queries that need it fail until then."),
            Standing::Missing => ("is missing", "Run crisis-relay migrate."),
            Standing::Failed => {
                ("could not be built by Google", "Delete it in the console, and run crisis-relay migrate.")
            }
        };
        Some(Fault { subject: piece.to_string(), problem: problem.to_owned(), remedy: remedy.to_owned() })
    });
    told.collect()
}
