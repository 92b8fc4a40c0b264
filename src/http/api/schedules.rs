//! Schedules: who is on call when; and whether somebody would be there.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::policies::{KEEPERS, READERS, new_id, refuse_other_id, small};
use super::to_its_end;
use crate::domain::contact::{Channel, Language};
use crate::domain::ids::{ContactId, PolicyId, ScheduleId};
use crate::domain::message::Purpose;
use crate::domain::readiness::{Obstacle, Outlook};
use crate::domain::schedule::{Absence, LocalTime, OnCall, Override, Schedule, Shift, WeekTime, Zone};
use crate::http::auth::Authenticated;
use crate::http::etag::{IfMatch, tag};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{BodyProblems, CommonProblems, Problem, ProblemCode, VersionProblems};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::service::caller::Caller;
use crate::service::rota::Rota;

/// Who is on call in one part of every week.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ShiftView {
    /// When it begins: a day and a local time.
    #[schema(value_type = String, pattern = "^(mon|tues|wednes|thurs|fri|satur|sun)day [0-2][0-9]:[0-5][0-9]$", example = "monday 22:00")]
    from: WeekTime,
    /// When it ends; the same as `from`: a week later.
    #[schema(value_type = String, pattern = "^(mon|tues|wednes|thurs|fri|satur|sun)day [0-2][0-9]:[0-5][0-9]$", example = "tuesday 06:00")]
    until: WeekTime,
    /// Everybody who is on call in it: 1 to 8 contacts.
    #[schema(value_type = Vec<String>)]
    people: Vec<ContactId>,
}

/// Who is on call in one span, instead of whoever the shifts name.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct OverrideView {
    /// When it begins, by the schedule's clock.
    #[schema(value_type = String, pattern = "^2[01][0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]$", example = "2026-12-24T18:00")]
    from: LocalTime,
    /// When it ends.
    #[schema(value_type = String, pattern = "^2[01][0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]$", example = "2026-12-27T08:00")]
    until: LocalTime,
    /// Everybody who is on call in it: 1 to 8 contacts.
    #[schema(value_type = Vec<String>)]
    people: Vec<ContactId>,
}

/// A span in which somebody is not on call, whoever put them there.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct AbsenceView {
    /// Who.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9_-]{1,64}$")]
    person: ContactId,
    /// When it begins, by the schedule's clock.
    #[schema(value_type = String, pattern = "^2[01][0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]$", example = "2026-12-24T18:00")]
    from: LocalTime,
    /// When it ends.
    #[schema(value_type = String, pattern = "^2[01][0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]$", example = "2026-12-27T08:00")]
    until: LocalTime,
}

/// A schedule as it is set.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ScheduleRequest {
    /// Its id, for good: 1 to 64 of `A-Z a-z 0-9 _ -`. A new one must have it; of one that is replaced it stands in the path.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "nights")]
    id: Option<ScheduleId>,
    /// Whose clock its times are read off: the name of an IANA time zone.
    #[schema(value_type = String, example = "Asia/Kolkata")]
    time_zone: Zone,
    /// What comes again every week: at most 64. Where two overlap, the people of both are on call.
    shifts: Vec<ShiftView>,
    /// What replaces it: at most 64.
    #[serde(default)]
    overrides: Vec<OverrideView>,
    /// Who is away: at most 64.
    #[serde(default)]
    absences: Vec<AbsenceView>,
}

impl Validate for ScheduleRequest {}

impl ScheduleRequest {
    fn schedule(self, id: ScheduleId) -> Schedule {
        let shift = |ShiftView { from, until, people }| Shift { from, until, people };
        let instead = |OverrideView { from, until, people }| Override { from, until, people };
        let away = |AbsenceView { person, from, until }| Absence { person, from, until };
        Schedule {
            id,
            version: 1,
            time_zone: self.time_zone,
            shifts: self.shifts.into_iter().map(shift).collect(),
            overrides: self.overrides.into_iter().map(instead).collect(),
            absences: self.absences.into_iter().map(away).collect(),
        }
    }
}

/// A span over which the same people are on call.
#[derive(Serialize, utoipa::ToSchema)]
struct OnCallView {
    #[schema(value_type = String, format = "date-time")]
    from: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    until: Timestamp,
    /// Nobody: a gap.
    #[schema(value_type = Vec<String>)]
    people: Vec<ContactId>,
}

impl From<OnCall> for OnCallView {
    fn from(OnCall { from, until, people }: OnCall) -> Self {
        Self { from, until, people }
    }
}

/// A schedule.
#[derive(Serialize, utoipa::ToSchema)]
struct ScheduleView {
    #[schema(value_type = String)]
    id: ScheduleId,
    /// Counts its changes, from 1.
    version: u32,
    #[schema(value_type = String)]
    time_zone: Zone,
    shifts: Vec<ShiftView>,
    overrides: Vec<OverrideView>,
    absences: Vec<AbsenceView>,
    /// Who is on call now.
    #[schema(value_type = Vec<String>)]
    on_call: Vec<ContactId>,
    /// When others are, if that is within two months.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    next_change_at: Option<Timestamp>,
}

impl ScheduleView {
    fn of(schedule: &Schedule, now: Timestamp) -> Self {
        let (on_call, next_change_at) = (schedule.on_call(now), schedule.next_change_after(now));
        let Schedule { id, version, time_zone, shifts, overrides, absences } = schedule.clone();
        let shift = |Shift { from, until, people }| ShiftView { from, until, people };
        let instead = |Override { from, until, people }| OverrideView { from, until, people };
        let away = |Absence { person, from, until }| AbsenceView { person, from, until };
        Self {
            id,
            version,
            time_zone,
            shifts: shifts.into_iter().map(shift).collect(),
            overrides: overrides.into_iter().map(instead).collect(),
            absences: absences.into_iter().map(away).collect(),
            on_call,
            next_change_at,
        }
    }
}

/// Every schedule; there are 16 at the most.
#[derive(Serialize, utoipa::ToSchema)]
struct ScheduleList {
    /// The schedules.
    schedules: Vec<ScheduleView>,
}

fn shown(status: StatusCode, id: &ScheduleId, rota: &Rota<'_>) -> Result<Response, Problem> {
    let schedule = rota.roster.schedule(id).ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    Ok((status, tag(schedule.version.into()), Json(ScheduleView::of(schedule, rota.now()))).into_response())
}

/// Lists the schedules.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules",
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "every schedule", body = ScheduleList), CommonProblems))]
async fn list_schedules(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<ScheduleList>, Problem> {
    let caller = caller(principal, READERS)?;
    let rota = state.service.rota(&caller).await?;
    let schedules = rota.roster.schedules.iter().map(|schedule| ScheduleView::of(schedule, rota.now())).collect();
    Ok(Json(ScheduleList { schedules }))
}

/// Shows a schedule, and who is on call by it now.
#[utoipa::path(get, path = "/api/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "the schedule's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the schedule; its version is the ETag", body = ScheduleView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems))]
async fn get_schedule(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<ScheduleId>,
) -> Result<Response, Problem> {
    let caller = caller(principal, READERS)?;
    let rota = state.service.rota(&caller).await?;
    shown(StatusCode::OK, &id, &rota)
}

/// Adds a schedule.
#[utoipa::path(post, path = "/api/v1/schedules", tag = "schedules", request_body = ScheduleRequest,
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 201, description = "kept", body = ScheduleView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems, BodyProblems, VersionProblems))]
async fn post_schedule(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictJson { value, .. }: StrictJson<ScheduleRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    let id = new_id(value.id.as_ref())?;
    save(state, caller, id, None, value).await
}

/// Replaces a schedule with its overrides and absences, if it is still at the version that `If-Match` names. It counts from
/// the next step of any case on.
#[utoipa::path(put, path = "/api/v1/schedules/{id}", tag = "schedules", request_body = ScheduleRequest,
    params(("id" = String, Path, description = "the schedule's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "kept", body = ScheduleView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems, BodyProblems, VersionProblems))]
async fn put_schedule(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<ScheduleId>,
    IfMatch(version): IfMatch,
    StrictJson { value, .. }: StrictJson<ScheduleRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    refuse_other_id(value.id.as_ref(), &id)?;
    save(state, caller, id, Some(small(version)), value).await
}

async fn save(
    state: AppState,
    caller: Caller,
    id: ScheduleId,
    from_version: Option<u32>,
    request: ScheduleRequest,
) -> Result<Response, Problem> {
    let schedule = request.schedule(id.clone());
    let (service, who) = (Arc::clone(&state.service), caller.clone());
    to_its_end(async move { service.save_schedule(&who, from_version, schedule).await }).await?;
    let rota = state.service.rota(&caller).await?;
    shown(if from_version.is_some() { StatusCode::OK } else { StatusCode::CREATED }, &id, &rota)
}

/// Takes a schedule away that no policy names.
#[utoipa::path(delete, path = "/api/v1/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "the schedule's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 204, description = "gone; its versions stay in the audit"), CommonProblems, VersionProblems))]
async fn delete_schedule(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<ScheduleId>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    let service = Arc::clone(&state.service);
    to_its_end(async move { service.remove_schedule(&caller, &id, small(version)).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One schedule over the next two weeks.
#[derive(Serialize, utoipa::ToSchema)]
struct OutlookView {
    #[schema(value_type = String)]
    schedule: ScheduleId,
    /// Whether a policy in use names it.
    in_use: bool,
    /// Who is on call, from now on: without hole or overlap, gaps among them.
    spans: Vec<OnCallView>,
}

impl From<Outlook> for OutlookView {
    fn from(Outlook { schedule, in_use, spans }: Outlook) -> Self {
        Self { schedule, in_use, spans: spans.into_iter().map(OnCallView::from).collect() }
    }
}

/// What stands against it that somebody would be there.
#[derive(Default, Serialize, utoipa::ToSchema)]
struct ObstacleView {
    /// `gap`, `on_call_unreachable`, `step_unreachable`, `last_responder_unreachable`, `contact_on_no_ladder`,
    /// `method_unverified`, `method_opted_out`, `method_refused` (Twilio calls the number bad; it is tried all the same) or `template_missing`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    schedule: Option<ScheduleId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    policy: Option<PolicyId>,
    /// The rung, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    contact: Option<ContactId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Channel>,
    /// What an approved template is missing for. Of `counsellor_alert` each person whom it concerns is named; whatever else is said
    /// concerns all who are told in that language.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    /// Twilio's error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    /// The language that is used, and whose approved template is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    language: Option<Language>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    until: Option<Timestamp>,
}

impl From<Obstacle> for ObstacleView {
    fn from(obstacle: Obstacle) -> Self {
        let mut view = Self { kind: obstacle.kind(), ..Self::default() };
        match obstacle {
            Obstacle::Gap { schedule, from, until } => {
                (view.schedule, view.from, view.until) = (Some(schedule), Some(from), Some(until));
            }
            Obstacle::OnCallUnreachable { schedule, contact, from } => {
                (view.schedule, view.contact, view.from) = (Some(schedule), Some(contact), Some(from));
            }
            Obstacle::StepUnreachable { policy, step } => (view.policy, view.step) = (Some(policy), Some(step + 1)),
            Obstacle::LastResponderUnreachable { policy } => view.policy = Some(policy),
            Obstacle::ContactOnNoLadder { contact } => view.contact = Some(contact),
            Obstacle::MethodUnverified { contact, channel } | Obstacle::MethodOptedOut { contact, channel } => {
                (view.contact, view.channel) = (Some(contact), Some(channel));
            }
            Obstacle::MethodRefused { contact, channel, code } => {
                (view.contact, view.channel, view.code) = (Some(contact), Some(channel), Some(code));
            }
            Obstacle::TemplateMissing { contact, purpose, language } => {
                (view.contact, view.channel) = (contact, Some(Channel::Whatsapp));
                (view.purpose, view.language) = (Some(purpose), Some(language));
            }
        }
        view
    }
}

/// Whether somebody would be there.
#[derive(Serialize, utoipa::ToSchema)]
struct ReadinessView {
    /// As of when.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// When the next gap begins, in the next two weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    next_gap_at: Option<Timestamp>,
    /// Who is on call.
    schedules: Vec<OutlookView>,
    /// What stands against it.
    obstacles: Vec<ObstacleView>,
}

/// Whether somebody would be there: who is on call now and in the next two weeks, gaps, rungs that reach nobody, and numbers
/// that may not be used.
#[utoipa::path(get, path = "/api/v1/readiness", tag = "schedules",
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the outlook", body = ReadinessView), CommonProblems))]
async fn get_readiness(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<ReadinessView>, Problem> {
    let caller = caller(principal, READERS)?;
    let (at, readiness) = state.service.readiness(&caller).await?;
    let next_gap_at = readiness.next_gap();
    let schedules = readiness.outlooks.into_iter().map(OutlookView::from).collect();
    let obstacles = readiness.obstacles.into_iter().map(ObstacleView::from).collect();
    Ok(Json(ReadinessView { at, next_gap_at, schedules, obstacles }))
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_schedules, post_schedule))
        .routes(routes!(get_schedule, put_schedule, delete_schedule))
        .routes(routes!(get_readiness))
}
