//! Whether the service is alive, and whether it can do its work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json::{StrictQuery, Validate};
use super::problem::FieldError;
use super::state::AppState;
use crate::ports::{Clock, Store, StoreError};
use crate::twilio::breaker::BreakerState;
use crate::worker::Worker;

/// How long a probe of the store counts: asking for readiness must not become a way to load the disk.
const PROBE_COUNTS_FOR: Duration = Duration::from_secs(1);

/// How long a probe is waited for. A store that takes longer does not work, whatever it will say.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// The parts whose state makes up readiness.
pub struct Health {
    store: Arc<dyn Store>,
    worker: Arc<Worker>,
    clock: Arc<dyn Clock>,
    /// Older than this, and the worker's last round means that it is stuck.
    round_age_max: Duration,
    probed: Mutex<Probed>,
}

/// What is known of the store.
#[derive(Default)]
struct Probed {
    last: Option<(Timestamp, bool)>,
    /// A probe that has not come back: another one would only wait behind it.
    under_way: Option<Probe>,
}

/// A probe that was sent.
struct Probe {
    begun: Timestamp,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Probe {
    /// Whether it has come back while nobody waited for it, and what it says is of long ago.
    fn is_outdated(&self, now: Timestamp) -> bool {
        self.task.is_finished() && now.duration_since(self.begun).unsigned_abs() >= PROBE_COUNTS_FOR
    }
}

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

impl Health {
    /// Watches these parts.
    pub fn new(store: Arc<dyn Store>, worker: Arc<Worker>, clock: Arc<dyn Clock>, poll: Duration) -> Self {
        let round_age_max = poll.saturating_mul(20).max(Duration::from_secs(10));
        Self { store, worker, clock, round_age_max, probed: Mutex::default() }
    }

    async fn checks(&self) -> BTreeMap<&'static str, Check> {
        let check = |fine| if fine { Check::Ok } else { Check::Failing };
        let store = self.store_works().await;
        let breaker_open = matches!(self.worker.breaker(), BreakerState::Open { .. });
        BTreeMap::from([
            ("store", check(store)),
            ("worker", check(self.worker_works())),
            ("twilio", check(!breaker_open)),
        ])
    }

    fn worker_works(&self) -> bool {
        self.worker.health().last_round().is_some_and(|at| {
            // A round in the future is no fresh one: the clock was set back.
            self.clock.now().duration_since(at).unsigned_abs() <= self.round_age_max
        })
    }

    async fn store_works(&self) -> bool {
        let mut probed = self.probed.lock().await;
        let now = self.clock.now();
        if let Some((at, works)) = probed.last
            && now.duration_since(at).unsigned_abs() < PROBE_COUNTS_FOR
        {
            return works;
        }
        let works = self.probe(now, &mut probed.under_way).await;
        probed.last = Some((self.clock.now(), works));
        works
    }

    /// A task of its own: whoever asked may go away, and a store that hangs must not be probed anew by all who ask.
    async fn probe(&self, now: Timestamp, under_way: &mut Option<Probe>) -> bool {
        if under_way.as_ref().is_some_and(|probe| probe.is_outdated(now)) {
            *under_way = None;
        }
        let probe = under_way.get_or_insert_with(|| {
            let store = Arc::clone(&self.store);
            Probe { begun: now, task: tokio::spawn(async move { store.probe(now).await }) }
        });
        let Ok(ended) = tokio::time::timeout(PROBE_WITHIN, &mut probe.task).await else {
            tracing::error!(
                waited_s = PROBE_WITHIN.as_secs(),
                "the store does not come back from a probe: the disk hangs, or is far too slow"
            );
            return false;
        };
        *under_way = None;
        match ended {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store does not answer a probe");
                false
            }
            Err(_) => {
                tracing::error!("a probe of the store ended by a panic");
                false
            }
        }
    }
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
    let checks = state.health.checks().await;
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
