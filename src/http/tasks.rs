//! Work by call: for platforms that give a process no time between requests, where a scheduler calls instead.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Authenticated, Role};
use super::problem::{CommonProblems, Problem, ProblemCode};
use super::state::AppState;
use crate::worker::Ran;

/// Who may have due work done: a scheduler has an API key as a backend has. The call shows and changes nothing that time
/// would not.
const SCHEDULERS: &[Role] = &[Role::Service, Role::Admin];

/// How long such a call takes at the most. Enough for a call to Twilio; well below what requests may take.
const WORK_FOR_MAX: Duration = Duration::from_secs(8);

/// How long the look that follows may take, and telling the operator what it found.
const LOOK_FOR_MAX: Duration = Duration::from_secs(5);

/// What a call came to.
#[derive(Serialize, utoipa::ToSchema)]
struct DueWork {
    /// Whether everything that was due is done. `false`: the time was over first; call again.
    caught_up: bool,
    /// Messages, look-ups and polls that this instance still has in hand.
    in_hand: usize,
}

/// Does what is due, and answers once it is done or some seconds are over. Any number of instances may be called at the
/// same time: each thing is done by one of them.
#[utoipa::path(post, path = "/api/v1/tasks/run-due", tag = "operations",
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "looked; what was due is done, or in hand", body = DueWork), CommonProblems))]
async fn run_due(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<DueWork>, Problem> {
    principal.require(SCHEDULERS)?;
    let (worker, watchman, alarms) =
        (Arc::clone(&state.worker), Arc::clone(&state.watchman), Arc::clone(&state.alarms));
    // In a task of its own: who hangs up stops no round half-way.
    let ran = tokio::spawn(tracing::Instrument::instrument(
        async move {
            let ran = worker.run_due(WORK_FOR_MAX).await;
            // Between requests there may be no time for it.
            let look = async {
                watchman.look().await;
                alarms.flush().await;
            };
            if tokio::time::timeout(LOOK_FOR_MAX, look).await.is_err() {
                tracing::warn!("the operator's targets were not done in time");
            }
            ran
        },
        tracing::Span::current(),
    ));
    match ran.await.map_err(|_| Problem::new(ProblemCode::Internal))? {
        Ran::CaughtUp => Ok(Json(DueWork { caught_up: true, in_hand: 0 })),
        Ran::OutOfTime { in_hand } => Ok(Json(DueWork { caught_up: false, in_hand })),
        Ran::StoreFailed => Err(Problem::new(ProblemCode::Unavailable)
            .with_detail("the store is not available; due work could not be read")
            .with_retry_after(Duration::from_secs(1))),
    }
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(run_due))
}
