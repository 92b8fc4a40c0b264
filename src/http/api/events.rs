//! Intake: scores from backends, and cases that people raise.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::Rfc3339;
use super::{check_text, check_user_id, to_its_end};
use crate::domain::event::{Label, Score, Source};

use crate::http::auth::{Authenticated, Role};

use crate::http::json::{StrictJson, Validate};
use crate::http::problem::{BodyProblems, CommonProblems, FieldError, IdempotencyProblems, Problem, ProblemCode};
use crate::http::state::{AppState, RequestLimits, caller};
use crate::service::intake::{Answered, EventAnswer, IdempotencyInput, NewEvent, Statement};

/// Who may post scores.
const SERVICE: &[Role] = &[Role::Service];
/// Who may raise a case.
const COUNSELLING: &[Role] = &[Role::Counsellor, Role::Admin];

/// Longest name and longest reason of an override, in characters.
pub(super) const OVERRIDE_BY_CHARS_MAX: usize = 200;
const OVERRIDE_REASON_CHARS_MAX: usize = 1000;

/// Longest `Idempotency-Key`, in characters.
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where a score comes from.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum EventSource {
    /// A text conversation.
    Chat,
    /// A voice call.
    Voice,
    /// A mood diary.
    Mood,
}

/// Somebody's decision that life is at stake and people must be told without consent. Sealed; shown only in reports.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OverrideRequest {
    /// Who decided: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, example = "Dr. A. Rao, on call")]
    by: String,
    /// Why: 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000, example = "Told the duty doctor that life is at risk")]
    reason: String,
}

impl OverrideRequest {
    pub(super) fn check(&self, errors: &mut Vec<FieldError>) {
        check_text(errors, "emergency_override.by", &self.by, OVERRIDE_BY_CHARS_MAX);
        check_text(errors, "emergency_override.reason", &self.reason, OVERRIDE_REASON_CHARS_MAX);
    }

    pub(super) fn into_domain(self) -> Statement {
        Statement { by: self.by, reason: self.reason }
    }
}

/// One score.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EventRequest {
    /// The student, as the backend names them: 1 to 128 characters. Sealed at rest.
    #[schema(min_length = 1, max_length = 128, example = "student-1001")]
    user_id: String,
    /// How grave it is: a finite number from 0 to 1.
    #[schema(value_type = f64, minimum = 0, maximum = 1, example = 0.93)]
    crisis_score: Score,
    /// Where the score comes from.
    source: EventSource,
    /// What the student wrote or said. Sealed at rest; never sent on.
    #[schema(min_length = 1, max_length = 4000)]
    message: Option<String>,
    /// When it happened; if not given, now.
    #[schema(value_type = Option<String>, format = "date-time")]
    occurred_at: Option<Rfc3339>,
    /// Which model gave the score: 1 to 64 of `A-Z a-z 0-9 . _ : / + -`. Stands in the audit.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._:/+-]{1,64}$", example = "risk-2026.11")]
    model_version: Option<Label>,
    /// The decision to tell people without consent.
    emergency_override: Option<OverrideRequest>,
    /// Further data, sealed at rest: at most 32 fields and 4096 bytes of JSON by default.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Validate for EventRequest {}

/// A case that a person raises.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EscalateRequest {
    /// The student, as the backend names them: 1 to 128 characters. Sealed at rest.
    #[schema(min_length = 1, max_length = 128, example = "student-1001")]
    user_id: String,
    /// Why, in the person's words. Sealed at rest; never sent on.
    #[schema(min_length = 1, max_length = 4000)]
    message: String,
    /// The decision to tell people without consent.
    emergency_override: Option<OverrideRequest>,
}

impl Validate for EscalateRequest {}

/// Takes a crisis score.
///
/// Answered 202 once everything that follows is durable: the alert with a next action due, its audit, and this answer
/// for the `Idempotency-Key`. The decision says what follows.
#[utoipa::path(post, path = "/api/v1/crisis/events", tag = "crisis", request_body = EventRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters; the same key and body get the first answer again", pattern = "^[!-~]{1,255}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 202, description = "accepted and durable", body = EventAnswer), CommonProblems, BodyProblems, IdempotencyProblems))]
async fn post_event(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    StrictJson { value, raw }: StrictJson<EventRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SERVICE)?;
    let key = idempotency_key(&headers)?;
    let event = value.into_event(&state.limits, state.service.now())?;
    answer(state, caller, event, key, raw).await
}

/// Raises a case by hand.
///
/// It ranks as the gravest, and tells people even where an open alert would otherwise only be joined.
#[utoipa::path(post, path = "/api/v1/crisis/escalate", tag = "crisis", request_body = EscalateRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "as for events", pattern = "^[!-~]{1,255}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 202, description = "accepted and durable", body = EventAnswer), CommonProblems, BodyProblems, IdempotencyProblems))]
async fn escalate(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    StrictJson { value, raw }: StrictJson<EscalateRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, COUNSELLING)?;
    let key = idempotency_key(&headers)?;
    let event = value.into_event(&state.limits)?;
    answer(state, caller, event, key, raw).await
}

async fn answer(
    state: AppState,
    caller: crate::service::caller::Caller,
    event: NewEvent,
    key: Option<String>,
    raw: axum::body::Bytes,
) -> Result<Response, Problem> {
    let service = Arc::clone(&state.service);
    let accepting = async move {
        let idempotency = key.as_deref().map(|key| IdempotencyInput { key, body: &raw });
        service.accept(&caller, &event, idempotency).await
    };
    Ok(respond(to_its_end(accepting).await?))
}

fn respond(answered: Answered) -> Response {
    let status = StatusCode::from_u16(answered.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], answered.json).into_response();
    if answered.replayed {
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const RULE: &str = "must be given once, as 1 to 255 visible ASCII characters";
    let refuse = || Problem::of_field(ProblemCode::InvalidField, FieldError::new("Idempotency-Key", RULE));
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(refuse());
    }
    let text = value.to_str().map_err(|_| refuse())?;
    let fits = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(Some(text.to_owned())) } else { Err(refuse()) }
}

impl EventRequest {
    fn into_event(self, limits: &RequestLimits, now: Timestamp) -> Result<NewEvent, Problem> {
        let mut errors = Vec::new();
        check_user_id(&mut errors, &self.user_id);
        if let Some(message) = &self.message {
            check_text(&mut errors, "message", message, limits.message_chars_max);
        }
        if let Some(stated) = &self.emergency_override {
            stated.check(&mut errors);
        }
        check_occurred_at(&mut errors, self.occurred_at.as_ref(), limits, now);
        let metadata = self.metadata.map(|metadata| check_metadata(&mut errors, &metadata, limits));
        refuse_if_any(errors)?;
        let source = match self.source {
            EventSource::Chat => Source::Chat,
            EventSource::Voice => Source::Voice,
            EventSource::Mood => Source::Mood,
        };
        Ok(NewEvent {
            user_id: self.user_id,
            source,
            score: Some(self.crisis_score),
            message: self.message,
            occurred_at: self.occurred_at.map(|at| at.0),
            model_version: self.model_version,
            emergency_override: self.emergency_override.map(OverrideRequest::into_domain),
            metadata,
        })
    }
}

impl EscalateRequest {
    fn into_event(self, limits: &RequestLimits) -> Result<NewEvent, Problem> {
        let mut errors = Vec::new();
        check_user_id(&mut errors, &self.user_id);
        check_text(&mut errors, "message", &self.message, limits.message_chars_max);
        if let Some(stated) = &self.emergency_override {
            stated.check(&mut errors);
        }
        refuse_if_any(errors)?;
        Ok(NewEvent {
            user_id: self.user_id,
            source: Source::Manual,
            score: None,
            message: Some(self.message),
            occurred_at: None,
            model_version: None,
            emergency_override: self.emergency_override.map(OverrideRequest::into_domain),
            metadata: None,
        })
    }
}

fn check_occurred_at(
    errors: &mut Vec<FieldError>,
    occurred_at: Option<&Rfc3339>,
    limits: &RequestLimits,
    now: Timestamp,
) {
    let Some(Rfc3339(at)) = occurred_at else { return };
    let latest = now.saturating_add(limits.occurred_at_future_max).unwrap_or(Timestamp::MAX);
    let earliest = now.saturating_sub(limits.occurred_at_past_max).unwrap_or(Timestamp::MIN);
    if *at > latest {
        let seconds = limits.occurred_at_future_max.as_secs();
        errors.push(FieldError::new("occurred_at", format!("must not lie more than {seconds} s in the future")));
    }
    if *at < earliest {
        let seconds = limits.occurred_at_past_max.as_secs();
        errors.push(FieldError::new("occurred_at", format!("must not lie more than {seconds} s in the past")));
    }
}

fn check_metadata(
    errors: &mut Vec<FieldError>,
    metadata: &serde_json::Map<String, serde_json::Value>,
    limits: &RequestLimits,
) -> String {
    if metadata.len() > limits.metadata_keys_max {
        let rule = format!("must have at most {} fields", limits.metadata_keys_max);
        errors.push(FieldError::new("metadata", rule));
    }
    // A map with text keys always serialises.
    let text = serde_json::to_string(metadata).unwrap_or_default();
    if text.len() > limits.metadata_bytes_max {
        let rule = format!("must have at most {} bytes of JSON", limits.metadata_bytes_max);
        errors.push(FieldError::new("metadata", rule));
    }
    text
}

pub(super) fn refuse_if_any(errors: Vec<FieldError>) -> Result<(), Problem> {
    if errors.is_empty() { Ok(()) } else { Err(Problem::new(ProblemCode::InvalidField).with_errors(errors)) }
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(post_event)).routes(routes!(escalate))
}
