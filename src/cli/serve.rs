//! `serve`: the service, until it is asked to end.

use std::process::ExitCode;

use super::end::asked_to_end_within;
use super::{block_on, logging, say_error};
use crate::app;
use crate::config::Config;

pub(super) fn serve(config: &Config) -> ExitCode {
    let last_lines = logging::init(config);
    block_on(async {
        match app::start(config).await {
            Ok(running) => {
                asked_to_end_within(config.http.shutdown_grace, last_lines.clone()).await;
                tracing::info!("stopping: finishing what is in hand");
                running.stop().await;
                ExitCode::SUCCESS
            }
            Err(error) => {
                say_error(&format!("crisis-relay cannot start:\n{error}"));
                ExitCode::from(2)
            }
        }
    })
}
