//! The emergency contacts of a student: listed, added, changed, removed; and the codes that prove their numbers. Who may
//! record what the student says of the channels may record these, too.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::contacts::{
    CodeSent, ConfirmRequest, MethodRequest, MethodView, NAME_CHARS_MAX, Shown, channel_of, check_methods, contact_id,
    hand_over_code, methods_of, wrong_code,
};
use super::preferences::{READERS, RECORDERS, check_path_user_id};
use super::{check_text, to_its_end};
use crate::domain::consent::{ChannelConsent, Word};
use crate::domain::contact::Language;
use crate::domain::event::Label;
use crate::domain::ids::ContactId;
use crate::http::auth::Authenticated;
use crate::http::etag::{IfMatch, tag};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{
    BodyProblems, CommonProblems, FieldError, PhoneProblems, Problem, ProblemCode, StateProblems, VersionProblems,
};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::service::codes::Confirmed;
use crate::service::contacts::PersonName;
use crate::service::emergency::{EmergencyInput, OpenedEmergencyContact};

/// The student's latest word on an emergency contact.
#[derive(Serialize, utoipa::ToSchema)]
struct EmergencyConsentView {
    /// Whether they may be told.
    granted: bool,
    /// When that was said.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Where.
    #[schema(value_type = String)]
    source: Label,
    /// Which notice the student had read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    notice_version: Option<Label>,
}

impl From<ChannelConsent> for EmergencyConsentView {
    fn from(word: ChannelConsent) -> Self {
        Self { granted: word.granted, at: word.at, source: word.source, notice_version: word.notice_version }
    }
}

/// Somebody whom a student has named.
#[derive(Serialize, utoipa::ToSchema)]
struct EmergencyContactView {
    /// The id, as alerts and the audit name them.
    #[schema(value_type = String, example = "e-k7q4tx3m")]
    id: ContactId,
    /// Counts the changes: what `If-Match` names.
    version: u64,
    /// What they are called. Not there for auditors, nor where the student's key is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The language they are told in.
    #[schema(value_type = String)]
    language: Language,
    /// Their numbers, by the last two digits, in the order in which they are tried.
    methods: Vec<MethodView>,
    /// The student's word on whether they may be told; not there: none was ever said, which is not a yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    consent: Option<EmergencyConsentView>,
    /// Whether they can be told now: with a number that is verified.
    reachable: bool,
}

impl EmergencyContactView {
    fn of(opened: OpenedEmergencyContact, shown: Shown) -> Self {
        let OpenedEmergencyContact { contact, name, numbers } = opened;
        let methods = contact.methods.iter().zip(numbers);
        let reachable = contact.usable().next().is_some();
        Self {
            version: contact.version,
            name: name.filter(|_| shown != Shown::Pseudonym).map(|PersonName(name)| name),
            methods: methods.map(|(method, number)| MethodView::of(method, shown.number(number))).collect(),
            reachable,
            id: contact.id,
            language: contact.language,
            consent: contact.consent.map(EmergencyConsentView::from),
        }
    }
}

/// Everybody whom a student has named.
#[derive(Serialize, utoipa::ToSchema)]
struct EmergencyContacts {
    /// In the order in which they were added; 3 at the most.
    emergency_contacts: Vec<EmergencyContactView>,
}

/// What the student says of an emergency contact.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EmergencyConsentRequest {
    /// Whether they may be told.
    granted: bool,
    /// Where it was said: 1 to 64 of `A-Z a-z 0-9 . _ : / + -`.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._:/+-]{1,64}$", example = "app_settings")]
    source: Label,
    /// Which notice the student had read.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._:/+-]{1,64}$", example = "notice-2026-01")]
    notice_version: Option<Label>,
}

/// All about an emergency contact.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EmergencyContactRequest {
    /// What they are called: 1 to 100 characters. Sealed at rest, and in no message. Left out in a change: as before.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// The language they are told in, such as `en`.
    #[schema(value_type = String, pattern = "^[a-z]{2,3}$", example = "en")]
    language: Language,
    /// Their numbers, in the order in which they are tried; at most one a channel.
    #[schema(max_items = 3)]
    methods: Vec<MethodRequest>,
    /// The student's word on whether they may be told. It is apart from what they say of the channels, which is about
    /// counsellors. Left out in a change: as before.
    consent: Option<EmergencyConsentRequest>,
}

impl Validate for EmergencyContactRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(name) = &self.name {
            check_text(&mut errors, "name", name, NAME_CHARS_MAX);
        }
        check_methods(&mut errors, &self.methods);
        errors
    }
}

impl EmergencyContactRequest {
    fn into_domain(self) -> EmergencyInput {
        let word = |said: EmergencyConsentRequest| Word {
            granted: said.granted,
            source: said.source,
            notice_version: said.notice_version,
        };
        EmergencyInput {
            name: self.name.map(PersonName),
            language: self.language,
            methods: methods_of(self.methods),
            consent: self.consent.map(word),
        }
    }
}

fn answer(status: StatusCode, view: EmergencyContactView) -> Response {
    (status, tag(view.version), Json(view)).into_response()
}

/// Lists the emergency contacts of a student. Auditors see neither names nor numbers; others see the ends of numbers.
#[utoipa::path(get, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts", tag = "consent",
    params(("user_id" = String, Path, description = "the student, as the backend names them")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "everybody whom the student has named", body = EmergencyContacts), CommonProblems))]
async fn list_emergency_contacts(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(user_id): StrictPath<String>,
) -> Result<Json<EmergencyContacts>, Problem> {
    let caller = caller(principal, READERS)?;
    check_path_user_id(&user_id)?;
    let shown = Shown::to(&caller);
    let all = state.service.emergency_contacts(&caller, &user_id).await?;
    let emergency_contacts = all.into_iter().map(|opened| EmergencyContactView::of(opened, shown)).collect();
    Ok(Json(EmergencyContacts { emergency_contacts }))
}

/// Adds an emergency contact. They are told only on the student's consent to it or a human's decision, and over numbers that
/// are verified.
#[utoipa::path(post, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts", tag = "consent",
    request_body = EmergencyContactRequest,
    params(("user_id" = String, Path, description = "the student, as the backend names them")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 201, description = "added", body = EmergencyContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, StateProblems, BodyProblems))]
async fn add_emergency_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(user_id): StrictPath<String>,
    StrictJson { value, .. }: StrictJson<EmergencyContactRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let (service, input) = (Arc::clone(&state.service), value.into_domain());
    if input.name.is_none() {
        return Err(Problem::of_field(ProblemCode::MissingField, FieldError::new("name", "must be given")));
    }
    let adding = async move { service.add_emergency_contact(&caller, &user_id, input).await };
    Ok(answer(StatusCode::CREATED, EmergencyContactView::of(to_its_end(adding).await?, Shown::Masked)))
}

/// Shows an emergency contact.
#[utoipa::path(get, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}", tag = "consent",
    params(("user_id" = String, Path, description = "the student, as the backend names them"),
        ("id" = String, Path, description = "the emergency contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the person", body = EmergencyContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems))]
async fn get_emergency_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath((user_id, id)): StrictPath<(String, String)>,
) -> Result<Response, Problem> {
    let caller = caller(principal, READERS)?;
    check_path_user_id(&user_id)?;
    let opened = state.service.emergency_contact(&caller, &user_id, &contact_id(&id)?).await?;
    Ok(answer(StatusCode::OK, EmergencyContactView::of(opened, Shown::to(&caller))))
}

/// Sets all about an emergency contact anew, if they are still at the version that `If-Match` names. Another number is
/// unverified; a word that is taken back counts at once.
#[utoipa::path(put, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}", tag = "consent",
    request_body = EmergencyContactRequest,
    params(("user_id" = String, Path, description = "the student, as the backend names them"),
        ("id" = String, Path, description = "the emergency contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("If-Match" = String, Header, description = "the ETag of the version that was read", pattern = "^\"[0-9]{1,10}\"$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "changed", body = EmergencyContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, BodyProblems, VersionProblems))]
async fn put_emergency_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((user_id, id)): StrictPath<(String, String)>,
    IfMatch(version): IfMatch,
    StrictJson { value, .. }: StrictJson<EmergencyContactRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let id = contact_id(&id)?;
    let (service, input) = (Arc::clone(&state.service), value.into_domain());
    let changing = async move { service.replace_emergency_contact(&caller, &user_id, &id, version, input).await };
    Ok(answer(StatusCode::OK, EmergencyContactView::of(to_its_end(changing).await?, Shown::Masked)))
}

/// Removes an emergency contact with name and numbers, if they are still at the version that `If-Match` names.
#[utoipa::path(delete, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}", tag = "consent",
    params(("user_id" = String, Path, description = "the student, as the backend names them"),
        ("id" = String, Path, description = "the emergency contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("If-Match" = String, Header, description = "the ETag of the version that was read", pattern = "^\"[0-9]{1,10}\"$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 204, description = "gone"), CommonProblems, VersionProblems))]
async fn delete_emergency_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((user_id, id)): StrictPath<(String, String)>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let (id, service) = (contact_id(&id)?, Arc::clone(&state.service));
    to_its_end(async move { service.remove_emergency_contact(&caller, &user_id, &id, version).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a code of six digits to a number of an emergency contact, to be confirmed within ten minutes. Over `voice` the phone is called,
/// and the code said once whoever answers has pressed `1`.
#[utoipa::path(post, path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification",
    tag = "consent",
    params(("user_id" = String, Path, description = "the student, as the backend names them"),
        ("id" = String, Path, description = "the emergency contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("channel" = String, Path, description = "whatsapp, sms or voice")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 202, description = "sent, or maybe sent", body = CodeSent), CommonProblems, PhoneProblems))]
async fn send_emergency_code(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((user_id, id, channel)): StrictPath<(String, String, String)>,
) -> Result<Response, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let (id, channel) = (contact_id(&id)?, channel_of(&channel)?);
    let (service, asks) = (Arc::clone(&state.service), caller.clone());
    let begun = async move { service.begin_emergency_verification(&asks, &user_id, &id, channel).await };
    hand_over_code(&state, caller, begun).await
}

/// Says which code came. The right one verifies the number; three wrong ones, and another must be sent.
#[utoipa::path(post,
    path = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification/confirm",
    tag = "consent", request_body = ConfirmRequest,
    params(("user_id" = String, Path, description = "the student, as the backend names them"),
        ("id" = String, Path, description = "the emergency contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("channel" = String, Path, description = "whatsapp, sms or voice")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "verified", body = EmergencyContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, StateProblems, BodyProblems))]
async fn confirm_emergency_code(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((user_id, id, channel)): StrictPath<(String, String, String)>,
    StrictJson { value, .. }: StrictJson<ConfirmRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let (id, channel, service) = (contact_id(&id)?, channel_of(&channel)?, Arc::clone(&state.service));
    let confirming =
        async move { service.confirm_emergency_verification(&caller, &user_id, &id, channel, &value.code).await };
    match to_its_end(confirming).await? {
        Confirmed::Right(opened) => Ok(answer(StatusCode::OK, EmergencyContactView::of(*opened, Shown::Masked))),
        Confirmed::Wrong { tries_left } => Err(wrong_code(tries_left)),
    }
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_emergency_contacts, add_emergency_contact))
        .routes(routes!(get_emergency_contact, put_emergency_contact, delete_emergency_contact))
        .routes(routes!(send_emergency_code))
        .routes(routes!(confirm_emergency_code))
}
