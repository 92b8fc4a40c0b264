//! Whether the service is alive, and whether it can do its work.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::{StrictQuery, Validate};
use super::problem::FieldError;
use super::state::AppState;
use crate::health::Parts;

/// What one part says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It works.
    Ok,
    /// It does not.
    Failing,
}

/// Whether the service can do its work.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Readiness {
    /// Whether every part that was asked for works.
    ready: bool,
    /// Each part: `store`, `worker`, `twilio`.
    checks: BTreeMap<&'static str, Check>,
}

/// What readiness leaves out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReadyQuery {
    /// A part that shall not make the answer red: `twilio`. For load balancers: while Twilio is away, events are still
    /// accepted and kept, and turning them away would be the worse fault.
    #[param(pattern = "^twilio$")]
    exclude: Option<String>,
}

impl Validate for ReadyQuery {
    fn validate(&self) -> Vec<FieldError> {
        match self.exclude.as_deref() {
            None | Some("twilio") => Vec::new(),
            Some(_) => vec![FieldError::new("exclude", "must be twilio")],
        }
    }
}

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "alive")))]
async fn livez() -> &'static str {
    "alive\n"
}

/// Every part does its work: the store can be read and written, the worker makes its rounds, Twilio is not held back
/// by the circuit breaker.
#[utoipa::path(get, path = "/readyz", tag = "operations", params(ReadyQuery), responses(
    (status = 200, description = "ready", body = Readiness),
    (status = 503, description = "not ready; the parts that fail are named", body = Readiness),
    super::problem::QueryProblems,
))]
async fn readyz(State(state): State<AppState>, StrictQuery(query): StrictQuery<ReadyQuery>) -> Response {
    let Parts { store, worker, twilio } = state.health.parts().await;
    let check = |works| if works { Check::Ok } else { Check::Failing };
    let checks = BTreeMap::from([("store", check(store)), ("worker", check(worker)), ("twilio", check(twilio))]);
    let counts = |name: &str| query.exclude.as_deref() != Some(name);
    let ready = checks.iter().all(|(name, check)| *check == Check::Ok || !counts(name));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks })).into_response()
}

/// Counters and times, for Prometheus. Nothing in here is personal.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text"),
))]
async fn metrics(State(state): State<AppState>) -> Response {
    state.service.metrics().set_store_operations(state.service.store().operations());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.service.metrics().encode()).into_response()
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(metrics))
}
