//! `audit`: verify every chain, or report one disclosure.

use std::process::ExitCode;
use std::sync::Arc;

use super::{block_on, say, say_error};
use crate::app;
use crate::clock::SystemEntropy;
use crate::config::Config;
use crate::domain::ids::Reference;
use crate::ports::{Keyring, Store};
use crate::service::report::report;
use crate::service::verification::verify_all;

/// What is done with the audit.
#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Prove every chain: no entry altered, removed or added, none cut off at the end, and none missing for an alert.
    ///
    /// Exit status 1: one does not hold; 2: the audit cannot be read, or is another organisation's. Needs
    /// no keys. May run beside the service.
    Verify,
    /// Print one page for a compliance officer: why was this disclosed, to whom, on what ground?
    ///
    /// Proves the chain first. Opens what is sealed if the master key is at hand, else says that it is sealed: guard the
    /// page accordingly. May run beside the service.
    Report {
        /// The alert's reference, such as K7Q4TX3M.
        reference: Reference,
    },
}

pub(super) fn run(config: &Config, command: &AuditCommand) -> ExitCode {
    block_on(async {
        let store = match app::open_store_to_read(config, Arc::new(SystemEntropy)).await {
            Ok(store) => store,
            Err(error) => {
                say_error(&format!("{}: {error}", app::store_name(config)));
                return ExitCode::from(2);
            }
        };
        let status = match command {
            AuditCommand::Verify => verify(config, store.as_ref()).await,
            AuditCommand::Report { reference } => print_report(config, store.as_ref(), *reference).await,
        };
        store.close().await;
        status
    })
}

async fn verify(config: &Config, store: &dyn Store) -> ExitCode {
    match verify_all(store, std::slice::from_ref(&config.organisation.id)).await {
        Ok(found) if found.faults.is_empty() => {
            say(&format!(
                "{} chains with {} entries, of {} alerts: every one verifies.",
                found.chains, found.entries, found.alerts
            ));
            ExitCode::SUCCESS
        }
        Ok(found) => {
            for (stream, fault) in &found.faults {
                say_error(&format!("{stream}: {fault}"));
            }
            let (faults, chains) = (found.faults.len(), found.chains);
            say_error(&format!(
                "{faults} chains do NOT verify; {chains} were found, and {} alerts proven.",
                found.alerts
            ));
            ExitCode::from(1)
        }
        Err(error) => {
            say_error(&format!("The audit cannot be read: {error}"));
            ExitCode::from(2)
        }
    }
}

async fn print_report(config: &Config, store: &dyn Store, reference: Reference) -> ExitCode {
    // Without the keys the report is as true, but what is sealed stays so. A report must not make a key file.
    let has_key = config.keyring.master_key.is_some() || config.keyring.development_key_path.exists();
    let keyring = if has_key { app::open_keyring(config, Arc::new(SystemEntropy)).ok() } else { None };
    let keyring = keyring.as_ref().map(|keyring| keyring as &dyn Keyring);
    match report(store, keyring, &config.organisation.id, reference).await {
        Ok(page) => {
            say(&page);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say_error(&error.to_string());
            ExitCode::from(1)
        }
    }
}
