//! Alerts: look, list, take, close, override, and read the audit.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::events::{OVERRIDE_BY_CHARS_MAX, OverrideRequest, idempotency_key};
use super::fields::Rfc3339;
use super::views::{AlertSummary, AlertView};
use super::{check_text, to_its_end};
use crate::domain::alert::{Alert, Outcome, StateName};
use crate::domain::audit::{AuditEntry, AuditStream};
use crate::domain::contact::Channel;
use crate::domain::ids::{AlertId, ContactId, Reference};
use crate::http::auth::{Authenticated, Role};
use crate::http::json::{StrictJson, StrictPath, StrictQuery, Validate};
use crate::http::problem::{
    BodyProblems, CommonProblems, DisclosureProblems, FieldError, IdempotencyProblems, Problem, ProblemCode,
    QueryProblems,
};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::ports::ListCursor;
use crate::service::intake::{IdempotencyInput, Statement};
use crate::service::reading::{AlertName, Revealed};

/// Who works on cases.
const COUNSELLING: &[Role] = &[Role::Counsellor, Role::Admin];
/// Who may read the audit.
pub(super) const AUDITING: &[Role] = &[Role::Auditor, Role::Admin];

const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 200;
const TIMELINE_MAX: usize = 200;
const NOTE_CHARS_MAX: usize = 4000;
/// How far ahead a follow-up may be: 90 days.
const FOLLOW_UP_MAX: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The digits of a cursor's time, in microseconds: enough until the year 5138.
const MICROS_DIGITS_MAX: usize = 17;

/// An alert by id or reference, out of the path.
pub(super) fn alert_name(text: &str) -> Result<AlertName, Problem> {
    text.parse().map_err(|error: crate::domain::ids::InvalidId| {
        Problem::of_field(ProblemCode::InvalidField, FieldError::new("id", error.rule))
    })
}

/// Which page of alerts.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only alerts in this state.
    state: Option<StateName>,
    /// Where the page before ended: its `next_cursor`.
    #[param(pattern = r"^[0-9]{1,17}\.[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
    cursor: Option<String>,
    /// How many at the most: 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

impl Validate for ListQuery {
    fn validate(&self) -> Vec<FieldError> {
        check_limit(self.limit)
    }
}

fn check_limit(limit: Option<usize>) -> Vec<FieldError> {
    match limit {
        Some(limit) if !(1..=PAGE_MAX).contains(&limit) => vec![FieldError::new("limit", "must be from 1 to 200")],
        Some(_) | None => Vec::new(),
    }
}

/// A page of alerts, newest first.
#[derive(Serialize, utoipa::ToSchema)]
struct AlertPage {
    /// The alerts.
    alerts: Vec<AlertSummary>,
    /// Where the next page begins; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

fn write_cursor(alert: &Alert) -> String {
    format!("{}.{}", alert.opened_at.as_microsecond(), alert.id)
}

fn read_cursor(text: &str) -> Result<ListCursor, Problem> {
    let parsed = text.split_once('.').and_then(|(micros, id)| {
        // Numbers may be written in other ways, too, but not here.
        let plain = micros.len() <= MICROS_DIGITS_MAX && micros.bytes().all(|byte| byte.is_ascii_digit());
        let micros = Some(micros).filter(|_| plain)?;
        let opened_at = Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
        Some(ListCursor { opened_at, id: id.parse::<AlertId>().ok()? })
    });
    parsed.ok_or_else(|| {
        Problem::of_field(ProblemCode::InvalidField, FieldError::new("cursor", "must be a next_cursor of this list"))
    })
}

/// Lists alerts, newest first.
#[utoipa::path(get, path = "/api/v1/crisis/alerts", tag = "alerts", params(ListQuery),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "a page", body = AlertPage), CommonProblems, QueryProblems))]
async fn list_alerts(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<AlertPage>, Problem> {
    let caller = caller(principal, COUNSELLING)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    // One more than asked for tells whether there is a next page.
    let mut alerts = state.service.list(&caller, query.state, after, limit + 1).await?;
    let more = alerts.len() > limit;
    alerts.truncate(limit);
    let next_cursor = alerts.last().filter(|_| more).map(write_cursor);
    Ok(Json(AlertPage { alerts: alerts.iter().map(AlertSummary::from).collect(), next_cursor }))
}

/// Shows an alert: its state, its messages with what Twilio said of them, and what happened. The look is recorded.
#[utoipa::path(get, path = "/api/v1/crisis/alerts/{id}", tag = "alerts",
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the alert", body = AlertView), CommonProblems))]
async fn get_alert(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<String>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?;
    let alert = state.service.read_alert(&caller, alert_name(&id)?).await?;
    show(&state, &alert).await
}

async fn show(state: &AppState, alert: &Alert) -> Result<Json<AlertView>, Problem> {
    let after = alert.audit_head.seq.saturating_sub(TIMELINE_MAX as u64);
    let timeline = state.service.timeline(alert, after, TIMELINE_MAX).await?;
    Ok(Json(AlertView::of(alert, &timeline)))
}

/// Takes the case: nobody else is told any more, and an outcome is expected in time.
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/acknowledge", tag = "alerts",
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "taken", body = AlertView),
        (status = 409, description = "conflict", body = super::super::problem::ProblemDocument, content_type = "application/problem+json"),
        CommonProblems))]
async fn acknowledge(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?.until(deadline);
    let alert = state.service.find(&caller, alert_name(&id)?).await?;
    let service = Arc::clone(&state.service);
    let transition = to_its_end(async move { service.acknowledge(&caller, alert).await }).await?;
    show(&state, &transition.alert).await
}

/// How a case ended.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ResolveRequest {
    /// The outcome; `unable_to_reach` needs an admin.
    outcome: Outcome,
    /// What is to be remembered: 1 to 4000 characters. Sealed at rest.
    #[schema(min_length = 1, max_length = 4000)]
    note: Option<String>,
    /// When somebody is to look after the student again: they are reminded then. In the future, at most 90 days on.
    #[schema(value_type = Option<String>, format = "date-time")]
    follow_up_at: Option<Rfc3339>,
}

impl Validate for ResolveRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(note) = &self.note {
            check_text(&mut errors, "note", note, NOTE_CHARS_MAX);
        }
        errors
    }
}

/// Closes the case with an outcome.
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/resolve", tag = "alerts", request_body = ResolveRequest,
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "closed", body = AlertView),
        (status = 409, description = "conflict", body = super::super::problem::ProblemDocument, content_type = "application/problem+json"),
        CommonProblems, BodyProblems))]
async fn resolve(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
    StrictJson { value, .. }: StrictJson<ResolveRequest>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?.until(deadline);
    let (service, name) = (Arc::clone(&state.service), alert_name(&id)?);
    let ResolveRequest { outcome, note, follow_up_at } = value;
    let follow_up_at = follow_up_at.map(|Rfc3339(at)| at);
    check_follow_up(follow_up_at, service.now())?;
    let resolving = async move {
        let alert = service.find(&caller, name).await?;
        service.resolve(&caller, alert, outcome, note.as_deref(), follow_up_at).await
    };
    let transition = to_its_end(resolving).await?;
    show(&state, &transition.alert).await
}

/// The time is the service's own to judge, so that this is no part of reading the request.
fn check_follow_up(at: Option<Timestamp>, now: Timestamp) -> Result<(), Problem> {
    let fits = at.is_none_or(|at| at > now && at.duration_since(now) <= FOLLOW_UP_MAX);
    let rule = "must lie in the future, at most 90 days on";
    if fits { Ok(()) } else { Err(Problem::of_field(ProblemCode::InvalidField, FieldError::new("follow_up_at", rule))) }
}

/// Says that the case is being worked on: whoever has it is reminded that much later, and it stays theirs.
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/check-in", tag = "alerts",
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "noted", body = AlertView),
        (status = 409, description = "conflict", body = super::super::problem::ProblemDocument, content_type = "application/problem+json"),
        CommonProblems))]
async fn check_in(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?.until(deadline);
    let alert = state.service.find(&caller, alert_name(&id)?).await?;
    let service = Arc::clone(&state.service);
    let transition = to_its_end(async move { service.check_in(&caller, alert).await }).await?;
    show(&state, &transition.alert).await
}

/// A decision to tell people of a withheld case.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EscalateAlertRequest {
    /// Who decided, and why.
    emergency_override: OverrideRequest,
}

impl Validate for EscalateAlertRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.emergency_override.check(&mut errors);
        errors
    }
}

/// Tells people of a withheld case, on a person's decision.
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/escalate", tag = "alerts", request_body = EscalateAlertRequest,
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "people are being told", body = AlertView),
        (status = 409, description = "conflict", body = super::super::problem::ProblemDocument, content_type = "application/problem+json"),
        CommonProblems, BodyProblems))]
async fn escalate_alert(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
    StrictJson { value, .. }: StrictJson<EscalateAlertRequest>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?.until(deadline);
    let (service, name) = (Arc::clone(&state.service), alert_name(&id)?);
    let stated = value.emergency_override.into_domain();
    let overriding = async move {
        let alert = service.find(&caller, name).await?;
        service.override_withheld(&caller, alert, &stated).await
    };
    let transition = to_its_end(overriding).await?;
    show(&state, &transition.alert).await
}

/// A decision to tell an emergency contact of the student.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct InformRequest {
    /// Which; may be left out where the student has named one only.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "e-k7q4tx3m")]
    contact: Option<ContactId>,
    /// Who decides, by name: 1 to 200 characters. Sealed at rest, and in no message.
    #[schema(min_length = 1, max_length = 200, example = "N. Iyer, counsellor")]
    by: String,
    /// Why: 1 to 4000 characters. Sealed at rest, and in no message.
    #[schema(min_length = 1, max_length = 4000)]
    reason: String,
}

impl Validate for InformRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_text(&mut errors, "by", &self.by, OVERRIDE_BY_CHARS_MAX);
        check_text(&mut errors, "reason", &self.reason, NOTE_CHARS_MAX);
        errors
    }
}

/// Has an emergency contact of the student told, on a named person's decision: they are asked to call the desk, and told
/// nothing else. It is recorded as a disclosure with this ground. While such a message is on its way, asking again sends none.
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/inform-emergency-contact", tag = "alerts", request_body = InformRequest,
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$"),
        ("Idempotency-Key" = Option<String>, Header, description = "as for events", pattern = "^[!-~]{1,255}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "they are being told, or have been", body = AlertView),
        CommonProblems, BodyProblems, IdempotencyProblems, DisclosureProblems))]
async fn inform_emergency_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
    headers: HeaderMap,
    StrictJson { value, raw }: StrictJson<InformRequest>,
) -> Result<Json<AlertView>, Problem> {
    let caller = caller(principal, COUNSELLING)?.until(deadline);
    let (service, name, key) = (Arc::clone(&state.service), alert_name(&id)?, idempotency_key(&headers)?);
    let InformRequest { contact, by, reason } = value;
    let stated = Statement { by, reason };
    let informing = async move {
        let idempotency = key.as_deref().map(|key| IdempotencyInput { key, body: &raw });
        service.inform_emergency_contact(&caller, name, contact.as_ref(), &stated, idempotency).await
    };
    let alert = to_its_end(informing).await?;
    show(&state, &alert).await
}

/// Who the student is, and what was written: opened for somebody who may help.
#[derive(Serialize, utoipa::ToSchema)]
struct RevealedView {
    /// The code of the case.
    #[schema(value_type = String)]
    reference: Reference,
    /// The student, as the backend names them.
    user_id: String,
    /// What came with each event, and what people replied, oldest first.
    events: Vec<RevealedEventView>,
}

impl RevealedView {
    fn of(alert: &Alert, revealed: Revealed) -> Self {
        let events = revealed.events.into_iter().map(|event| RevealedEventView {
            received_at: event.received_at,
            reply: event.reply.map(|by| ReplyView { contact: by.contact, channel: by.channel }),
            message: event.message,
            metadata: event.metadata.and_then(|text| serde_json::from_str(&text).ok()),
        });
        Self { reference: alert.reference, user_id: revealed.user_id, events: events.collect() }
    }
}

/// Who replied.
#[derive(Serialize, utoipa::ToSchema)]
struct ReplyView {
    /// Who.
    #[schema(value_type = String)]
    contact: ContactId,
    /// Over which channel.
    channel: Channel,
}

/// What came with one event, or one reply.
#[derive(Serialize, utoipa::ToSchema)]
struct RevealedEventView {
    /// When it was accepted.
    #[schema(value_type = String, format = "date-time")]
    received_at: Timestamp,
    /// Whose reply it is; none: it came with an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<ReplyView>,
    /// What was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Further data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
}

/// Opens what is sealed, of all events in one answer. The look is recorded first. A conflict: it cannot be opened (erased, or
/// a key is missing).
#[utoipa::path(post, path = "/api/v1/crisis/alerts/{id}/reveal", tag = "alerts",
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "opened", body = RevealedView),
        (status = 409, description = "conflict", body = super::super::problem::ProblemDocument, content_type = "application/problem+json"),
        CommonProblems))]
async fn reveal(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<String>,
) -> Result<Response, Problem> {
    let caller = caller(principal, COUNSELLING)?;
    let (alert, revealed) = state.service.reveal(&caller, alert_name(&id)?).await?;
    // A case may have thousands of events: what takes long must not keep others waiting.
    let written = move || Json(RevealedView::of(&alert, revealed)).into_response();
    tokio::task::spawn_blocking(written).await.map_err(|_| Problem::new(ProblemCode::Internal))
}

/// Which page of an audit.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// The number of the entry after which the page begins.
    after: Option<u64>,
    /// How many at the most: 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

impl AuditQuery {
    /// After which entry the page begins, and how many it has at the most.
    pub(super) fn page(&self) -> (u64, usize) {
        (self.after.unwrap_or(0), self.limit.unwrap_or(PAGE_DEFAULT))
    }
}

impl Validate for AuditQuery {
    fn validate(&self) -> Vec<FieldError> {
        check_limit(self.limit)
    }
}

/// A page of an audit chain.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct AuditPage {
    /// The chain's name.
    #[schema(example = "alert/0193…")]
    stream: String,
    /// Whether the whole chain, from its first entry to the head that its owner remembers, proves to be unaltered.
    verified: bool,
    /// The entries.
    entries: Vec<AuditEntryView>,
    /// The `after` of the next page; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<u64>,
}

impl AuditPage {
    /// A page of `entries`, of which there is one more than `limit` where there is a further page.
    pub(super) fn of(stream: &AuditStream, verified: bool, mut entries: Vec<AuditEntry>, limit: usize) -> Self {
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_after = entries.last().filter(|_| more).map(|entry| entry.seq);
        let view = |entry: AuditEntry| AuditEntryView {
            seq: entry.seq,
            canonical: entry.canonical,
            hash: entry.hash.to_string(),
        };
        Self { stream: stream.to_string(), verified, entries: entries.into_iter().map(view).collect(), next_after }
    }
}

/// One entry.
#[derive(Serialize, utoipa::ToSchema)]
struct AuditEntryView {
    /// Its number.
    seq: u64,
    /// The canonical text, as it was hashed; parsed, it says who did what when.
    canonical: String,
    /// `SHA-256(previous hash, canonical)`, in hexadecimal.
    hash: String,
}

/// Reads the audit chain of an alert. The look is recorded. With each page the whole chain is proven, which takes the longer
/// the longer it is: read large pages.
#[utoipa::path(get, path = "/api/v1/crisis/alerts/{id}/audit", tag = "alerts",
    params(("id" = String, Path, description = "the alert's id or reference", pattern = r"^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-TV-Za-tv-z-]{8,16})$"), AuditQuery),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "a page of the chain", body = AuditPage), CommonProblems, QueryProblems))]
async fn get_audit(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<String>,
    StrictQuery(query): StrictQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let caller = caller(principal, AUDITING)?;
    let (after, limit) = query.page();
    let (alert, entries) = state.service.read_audit(&caller, alert_name(&id)?, after, limit + 1).await?;
    let verified = state.service.prove(alert.id).await?.is_ok();
    Ok(Json(AuditPage::of(&AuditStream::Alert(alert.id), verified, entries, limit)))
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_alerts))
        .routes(routes!(get_alert))
        .routes(routes!(acknowledge))
        .routes(routes!(check_in))
        .routes(routes!(resolve))
        .routes(routes!(escalate_alert))
        .routes(routes!(inform_emergency_contact))
        .routes(routes!(reveal))
        .routes(routes!(get_audit))
}
