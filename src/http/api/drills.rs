//! Drills: start one, and see how it went.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::alerts::alert_name;
use super::to_its_end;
use crate::domain::alert::{AckVia, Alert, AlertState, Kind};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, ContactRole};
use crate::domain::delivery::Delivery;
use crate::domain::event::Score;
use crate::domain::ids::{AlertId, ContactId, Reference};
use crate::http::auth::{Authenticated, Role};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{BodyProblems, CommonProblems, FieldError, Problem, ProblemCode, StateProblems};
use crate::http::state::{AppState, WaitedFor, caller};

/// Who starts drills.
const STARTING: &[Role] = &[Role::Admin];
/// Who sees how they went.
const SEEING: &[Role] = &[Role::Counsellor, Role::Admin, Role::Auditor];
/// How many are listed.
const LISTED: usize = 50;

/// What kind of drill.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct DrillRequest {
    /// As grave as a case of this score; as one that a person raised, if not given.
    #[schema(minimum = 0.0, maximum = 1.0)]
    score: Option<f64>,
}

impl Validate for DrillRequest {
    fn validate(&self) -> Vec<FieldError> {
        let fits = self.score.is_none_or(|score| Score::new(score).is_some());
        if fits { Vec::new() } else { vec![FieldError::new("score", "must be a number from 0 to 1")] }
    }
}

/// A drill that was started.
#[derive(Serialize, utoipa::ToSchema)]
struct DrillStartedView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: AlertId,
    /// Its code, as the messages show it.
    #[schema(value_type = String, example = "K7Q4TX3M")]
    reference: Reference,
    /// Where its result is shown.
    result_url: String,
}

/// How a drill went.
#[derive(Serialize, utoipa::ToSchema)]
struct DrillView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: AlertId,
    /// Its code.
    #[schema(value_type = String, example = "K7Q4TX3M")]
    reference: Reference,
    /// `running`, `answered`, `unanswered`, or `closed` at the dashboard before anybody had taken it.
    result: &'static str,
    /// When it was started.
    #[schema(value_type = String, format = "date-time")]
    started_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    ended_at: Option<Timestamp>,
    /// How it was answered: `reply`, `keypress` or `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_via: Option<AckVia>,
    /// Who answered, if it was from a phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    answered_by: Option<ContactId>,
    /// How many seconds after the start somebody answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_answer: Option<f64>,
    /// What was sent, oldest first; the newest 32 at the most.
    messages: Vec<DrillMessageView>,
    /// The same, by channel.
    channels: Vec<DrillChannelView>,
}

/// How drills went.
#[derive(Serialize, utoipa::ToSchema)]
struct DrillsView {
    /// The newest first.
    drills: Vec<DrillView>,
}

/// One message of a drill.
#[derive(Serialize, utoipa::ToSchema)]
struct DrillMessageView {
    /// The recipient.
    #[schema(value_type = String)]
    contact: ContactId,
    /// Why they are told.
    role: ContactRole,
    /// The channel.
    channel: Channel,
    /// How far it got: `due`, `sending`, `unknown`, `accepted`, `sent`, `delivered`, `read`, `failed` or `cancelled`.
    state: &'static str,
    /// Whether the phone has it.
    arrived: bool,
    /// How many seconds after it was planned the phone had it, or a human picked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_delivered: Option<f64>,
    /// How many seconds after it was planned Twilio told of its last status, which may be that it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_last_status: Option<f64>,
}

/// The messages of a drill over one channel.
#[derive(Serialize, utoipa::ToSchema)]
struct DrillChannelView {
    /// The channel.
    channel: Channel,
    /// How many there were.
    messages: usize,
    /// How many of them arrived.
    arrived: usize,
    /// After how many seconds the fastest did.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_delivered_least: Option<f64>,
    /// After how many seconds the slowest did.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_to_delivered_most: Option<f64>,
}

impl DrillChannelView {
    fn of(channel: Channel, messages: &[DrillMessageView]) -> Option<Self> {
        let of_it: Vec<_> = messages.iter().filter(|message| message.channel == channel).collect();
        let seconds = || of_it.iter().filter_map(|message| message.seconds_to_delivered);
        (!of_it.is_empty()).then(|| Self {
            channel,
            messages: of_it.len(),
            arrived: of_it.iter().filter(|message| message.arrived).count(),
            seconds_to_delivered_least: seconds().reduce(f64::min),
            seconds_to_delivered_most: seconds().reduce(f64::max),
        })
    }
}

impl DrillView {
    fn of(alert: &Alert) -> Self {
        let (result, ended_at, answered_via) = match &alert.state {
            AlertState::Resolved { at, taken: Some(taken), .. } => ("answered", Some(*at), Some(taken.via)),
            AlertState::Resolved { by: Actor::Service, at, .. } => ("unanswered", Some(*at), None),
            AlertState::Resolved { at, .. } => ("closed", Some(*at), None),
            AlertState::Withheld { .. } | AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => {
                ("running", None, None)
            }
        };
        let answered_by = match &alert.state {
            AlertState::Resolved { by: Actor::Contact { contact }, .. } if answered_via.is_some() => {
                Some(contact.clone())
            }
            AlertState::Withheld { .. }
            | AlertState::Escalating { .. }
            | AlertState::Acknowledged { .. }
            | AlertState::Resolved { .. } => None,
        };
        let seconds = |at: Timestamp| at.duration_since(alert.opened_at).as_secs_f64().max(0.0);
        let alerts = alert.deliveries.iter().filter(|delivery| delivery.purpose.is_alert());
        let messages: Vec<_> = alerts.map(DrillMessageView::of).collect();
        Self {
            id: alert.id,
            reference: alert.reference,
            result,
            started_at: alert.opened_at,
            ended_at,
            seconds_to_answer: ended_at.filter(|_| answered_via.is_some()).map(seconds),
            answered_by,
            answered_via,
            channels: Channel::ALL.into_iter().filter_map(|channel| DrillChannelView::of(channel, &messages)).collect(),
            messages,
        }
    }
}

impl DrillMessageView {
    fn of(delivery: &Delivery) -> Self {
        let last = delivery.attempts.iter().filter_map(|attempt| attempt.status_at).max();
        let seconds = |at: Timestamp| at.duration_since(delivery.planned_at).as_secs_f64().max(0.0);
        Self {
            contact: delivery.contact.clone(),
            role: delivery.role,
            channel: delivery.channel,
            state: delivery.state.name(),
            arrived: delivery.has_arrived(),
            seconds_to_delivered: delivery.arrived_at().map(seconds),
            seconds_to_last_status: last.map(seconds),
        }
    }
}

/// Starts a drill: the whole path, marked as a drill everywhere, on the ladder of that urgency. It ends when somebody takes
/// it, or when every round was in vain; until then no other can be started.
#[utoipa::path(post, path = "/api/v1/crisis/drills", tag = "drills", request_body = DrillRequest,
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 201, description = "started", body = DrillStartedView),
        CommonProblems, StateProblems, BodyProblems))]
async fn start_drill(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictJson { value, .. }: StrictJson<DrillRequest>,
) -> Result<(StatusCode, Json<DrillStartedView>), Problem> {
    let caller = caller(principal, STARTING)?.until(deadline);
    let service = Arc::clone(&state.service);
    let score = value.score.and_then(Score::new);
    let started = to_its_end(async move { service.start_drill(&caller, score).await }).await?;
    let result_url = format!("/api/v1/crisis/drills/{}", started.id);
    Ok((StatusCode::CREATED, Json(DrillStartedView { id: started.id, reference: started.reference, result_url })))
}

/// Lists the drills among the newest thousand alerts, newest first, at most 50.
#[utoipa::path(get, path = "/api/v1/crisis/drills", tag = "drills", security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "how they went", body = DrillsView), CommonProblems))]
async fn list_drills(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<DrillsView>, Problem> {
    let caller = caller(principal, SEEING)?;
    let drills = state.service.drills(&caller.organisation, LISTED).await?;
    Ok(Json(DrillsView { drills: drills.iter().map(DrillView::of).collect() }))
}

/// Shows how one drill went.
#[utoipa::path(get, path = "/api/v1/crisis/drills/{id}", tag = "drills",
    params(("id" = String, Path, description = "the drill's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "how it went", body = DrillView), CommonProblems))]
async fn get_drill(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<String>,
) -> Result<Json<DrillView>, Problem> {
    let caller = caller(principal, SEEING)?;
    let alert = state.service.find(&caller, alert_name(&id)?).await?;
    // A live case is looked at where its look is recorded.
    if !matches!(alert.kind, Kind::Drill) {
        return Err(Problem::new(ProblemCode::NotFound));
    }
    Ok(Json(DrillView::of(&alert)))
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(start_drill)).routes(routes!(list_drills)).routes(routes!(get_drill))
}
