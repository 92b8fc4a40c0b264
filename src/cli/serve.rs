//! `serve`: the service, until it is asked to end.

use std::pin::pin;
use std::process::ExitCode;

use tokio_util::task::AbortOnDropHandle;

use super::end::{asked_to_end_within, longest_end};
use super::{block_on, logging, say_error};
use crate::app::{self, Running, StartError};
use crate::config::Config;

pub(super) fn serve(config: &Config) -> ExitCode {
    let last_lines = logging::init(config);
    block_on(async {
        // Signals are heard before anything is begun: a process that is the first of its container has no other ear for them.
        let mut asked = pin!(asked_to_end_within(longest_end(config), last_lines.clone()));
        let started = tokio::select! {
            biased;
            () = &mut asked => {
                tracing::info!("asked to end while starting");
                return ExitCode::SUCCESS;
            }
            started = start(config.clone()) => started,
        };
        match started {
            Ok(running) => {
                asked.await;
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

/// Starts in a task of its own: what blocks on the way, such as a disk that hangs, does not keep the end from coming.
async fn start(config: Config) -> Result<Running, StartError> {
    let starting = tokio::spawn(async move { app::start(&config).await });
    match AbortOnDropHandle::new(starting).await {
        Ok(started) => started,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only whoever drops this handle cancels the task.
            Err(_) => std::future::pending().await,
        },
    }
}
