//! The people that a college sets up: listed, added, changed, removed; and the codes that prove their numbers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::staff_role;
use super::policies::WarningView;
use super::{check_text, to_its_end};
use crate::domain::contact::{Channel, ContactRole, Language, PhoneNumber};
use crate::domain::ids::ContactId;
use crate::domain::provider::{ProviderFault, SendOutcome};
use crate::domain::roster::{Method, Rejection, Standing};
use crate::domain::schedule::Zone;
use crate::http::auth::{Authenticated, Role};
use crate::http::etag::{IfMatch, tag};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{
    BodyProblems, CommonProblems, FieldError, PhoneProblems, Problem, ProblemCode, StateProblems, VersionProblems,
};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::service::ServiceError;
use crate::service::caller::Caller;
use crate::service::codes::{CodeToSend, Confirmed};
use crate::service::contacts::{ConfiguredPerson, ContactInput, ContactWarning, OpenedContact, PersonName, Removal};

/// Who may set people up, and see their numbers.
const SETTERS: &[Role] = &[Role::Admin];
/// Who may see who there is.
const READERS: &[Role] = &[Role::Counsellor, Role::Admin, Role::Auditor];

pub(super) const NAME_CHARS_MAX: usize = 100;
const METHODS_MAX: usize = 3;
const CODE_DIGITS: usize = 6;

// -- what is shown ----------------------------------------------------------------------------------------------------

/// Where a person is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum SetUpIn {
    /// In the configuration: the operator's own, which nobody changes here, and which needs no proof.
    Configuration,
    /// In the roster.
    Roster,
}

/// How a number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum MethodStanding {
    /// The operator's own word.
    Configured,
    /// Nobody has proved that it reaches the person: it is not used for alerts.
    Unverified,
    /// A code that was sent there came back.
    Verified,
    /// The phone takes nothing from us: it is not used for alerts.
    OptedOut,
}

/// One number of a person.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct MethodView {
    /// The channel.
    channel: Channel,
    /// The number's last two digits, or all of it where it was revealed. Not there for auditors, nor where its key is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<String>,
    /// How it stands.
    standing: MethodStanding,
    /// When it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    verified_at: Option<Timestamp>,
    /// Since when the phone takes nothing from us.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    opted_out_at: Option<Timestamp>,
    /// Until when a code that was sent counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    code_until: Option<Timestamp>,
}

/// A person.
#[derive(Serialize, utoipa::ToSchema)]
struct ContactView {
    /// The id, as ladders, schedules and the audit name them.
    #[schema(value_type = String)]
    id: ContactId,
    /// Where they are set up.
    set_up_in: SetUpIn,
    /// Counts the changes: what `If-Match` names. Not there for people of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// What they are called. Not there for auditors, for people of the configuration, and where its key is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Why they are told.
    role: ContactRole,
    /// The language they are told in.
    #[schema(value_type = String)]
    language: Language,
    /// Where they live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    time_zone: Option<Zone>,
    /// Their numbers, in the order in which they are tried.
    methods: Vec<MethodView>,
    /// Whether they are told anything.
    active: bool,
    /// Whether they can be told now: active, and with a number that may be used.
    reachable: bool,
    /// What somebody should look at.
    warnings: Vec<WarningView>,
}

fn warning(warning: ContactWarning) -> WarningView {
    WarningView::new(
        "language",
        match warning {
            ContactWarning::NoText => "has no texts: they are told in English",
            ContactWarning::NoTemplate => {
                "has no approved WhatsApp template: nothing arrives there but within 24 hours of the person's own message"
            }
        },
    )
}

/// How much of a person is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Neither name nor numbers.
    Pseudonym,
    /// The name, and the ends of numbers.
    Masked,
    /// All.
    All,
}

impl Shown {
    pub(super) fn to(caller: &Caller) -> Self {
        if caller.role == Role::Auditor.word() { Self::Pseudonym } else { Self::Masked }
    }

    pub(super) fn number(self, number: Option<PhoneNumber>) -> Option<String> {
        match self {
            Self::Pseudonym => None,
            Self::Masked => number.map(|number| number.to_string()),
            Self::All => number.map(|number| number.expose().to_owned()),
        }
    }
}

impl ContactView {
    fn of(opened: OpenedContact, shown: Shown) -> Self {
        let OpenedContact { contact, name, numbers, warnings } = opened;
        let usable = contact.methods.iter().any(|method| method.standing.is_usable());
        let methods = contact.methods.iter().zip(numbers);
        Self {
            set_up_in: SetUpIn::Roster,
            version: Some(contact.version),
            name: name.filter(|_| shown != Shown::Pseudonym).map(|PersonName(name)| name),
            role: contact.role,
            reachable: contact.active && usable,
            methods: methods.map(|(method, number)| MethodView::of(method, shown.number(number))).collect(),
            id: contact.id,
            language: contact.language,
            time_zone: Some(contact.time_zone),
            active: contact.active,
            warnings: warnings.into_iter().map(warning).collect(),
        }
    }

    fn of_configured(person: ConfiguredPerson, shown: Shown) -> Self {
        let ConfiguredPerson { contact, numbers, warnings } = person;
        let methods = contact.methods.iter().zip(numbers).map(|(method, number)| MethodView {
            channel: method.channel,
            number: shown.number(number),
            standing: MethodStanding::Configured,
            verified_at: None,
            opted_out_at: None,
            code_until: None,
        });
        Self {
            set_up_in: SetUpIn::Configuration,
            version: None,
            name: None,
            role: contact.role,
            reachable: !contact.methods.is_empty(),
            methods: methods.collect(),
            id: contact.id,
            language: contact.language,
            time_zone: None,
            active: true,
            warnings: warnings.into_iter().map(warning).collect(),
        }
    }
}

impl MethodView {
    pub(super) fn of(method: &Method, number: Option<String>) -> Self {
        let (standing, verified_at, opted_out_at) = match &method.standing {
            Standing::Unverified => (MethodStanding::Unverified, None, None),
            Standing::Verified { at } => (MethodStanding::Verified, Some(*at), None),
            Standing::OptedOut { since, verified_at } => (MethodStanding::OptedOut, *verified_at, Some(*since)),
        };
        let code_until = method.code.as_ref().map(|code| code.until());
        Self { channel: method.channel, number, standing, verified_at, opted_out_at, code_until }
    }
}

/// What stands in the place of a version for people of the configuration, as for its policy: they are not changed here.
const CONFIGURED_VERSION: u64 = 1;

/// A person, with the version that `If-Match` names.
fn answer(status: StatusCode, view: ContactView) -> Response {
    (status, tag(view.version.unwrap_or(CONFIGURED_VERSION)), Json(view)).into_response()
}

// -- what is asked ----------------------------------------------------------------------------------------------------

/// One number.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MethodRequest {
    /// The channel; each once.
    channel: Channel,
    /// The number in E.164 form. Left out in a change: the one that is there, which stays as proven as it is.
    #[schema(pattern = r"^\+[1-9][0-9]{1,14}$", example = "+919876543210")]
    number: Option<String>,
}

/// All about a person.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ContactRequest {
    /// What they are called: 1 to 100 characters. Sealed at rest, and in no message. Left out in a change: as before.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Why they are told: `counsellor`, `lead` or `duty_manager`.
    #[serde(deserialize_with = "staff_role")]
    role: ContactRole,
    /// The language they are told in, such as `en`.
    #[schema(value_type = String, pattern = "^[a-z]{2,3}$", example = "en")]
    language: Language,
    /// Where they live: a time zone of the IANA database. Kept and shown; nothing goes by it yet.
    #[schema(value_type = String, example = "Asia/Kolkata")]
    time_zone: Zone,
    /// Their numbers, in the order in which they are tried; at most one a channel.
    #[schema(max_items = 3)]
    methods: Vec<MethodRequest>,
    /// Whether they are told anything.
    active: bool,
}

impl Validate for ContactRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(name) = &self.name {
            check_text(&mut errors, "name", name, NAME_CHARS_MAX);
        }
        check_methods(&mut errors, &self.methods);
        errors
    }
}

pub(super) fn check_methods(errors: &mut Vec<FieldError>, methods: &[MethodRequest]) {
    if methods.len() > METHODS_MAX {
        errors.push(FieldError::new("methods", "must be at most 3, one a channel"));
    }
    for (index, method) in methods.iter().enumerate().take(METHODS_MAX) {
        if method.number.as_ref().is_some_and(|number| read_number(number).is_none()) {
            let rule = "must be a phone number in E.164 form, such as +919876543210";
            errors.push(FieldError::new(format!("methods[{index}].number"), rule));
        }
    }
}

/// The methods as the service takes them.
pub(super) fn methods_of(methods: Vec<MethodRequest>) -> Vec<(Channel, Option<PhoneNumber>)> {
    let methods = methods.into_iter();
    methods.map(|method| (method.channel, method.number.as_deref().and_then(read_number))).collect()
}

/// A number as it is written here, and in no other form that is understood elsewhere.
fn read_number(text: &str) -> Option<PhoneNumber> {
    text.starts_with('+').then(|| text.parse().ok()).flatten().filter(|number: &PhoneNumber| number.expose() == text)
}

impl ContactRequest {
    fn into_domain(self) -> ContactInput {
        ContactInput {
            name: self.name.map(PersonName),
            role: self.role,
            language: self.language,
            time_zone: self.time_zone,
            methods: methods_of(self.methods),
            active: self.active,
        }
    }
}

pub(super) fn contact_id(text: &str) -> Result<ContactId, Problem> {
    let invalid = |error: crate::domain::ids::InvalidId| {
        Problem::of_field(ProblemCode::InvalidField, FieldError::new("id", error.rule))
    };
    text.parse().map_err(invalid)
}

pub(super) fn channel_of(text: &str) -> Result<Channel, Problem> {
    Channel::from_word(text).ok_or_else(|| {
        Problem::of_field(ProblemCode::InvalidField, FieldError::new("channel", "must be whatsapp, sms or voice"))
    })
}

// -- routes -----------------------------------------------------------------------------------------------------------

/// Everybody who is set up.
#[derive(Serialize, utoipa::ToSchema)]
struct Contacts {
    /// The people of the configuration, then those of the roster in the order in which they were added; 200 of these at the
    /// most.
    contacts: Vec<ContactView>,
}

/// Lists everybody who is set up. Auditors see neither names nor numbers; others see the ends of numbers.
#[utoipa::path(get, path = "/api/v1/contacts", tag = "contacts",
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "everybody", body = Contacts), CommonProblems))]
async fn list_contacts(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<Contacts>, Problem> {
    let caller = caller(principal, READERS)?;
    let shown = Shown::to(&caller);
    let (configured, own) = state.service.contacts(&caller).await?;
    let configured = configured.into_iter().map(|person| ContactView::of_configured(person, shown));
    let own = own.into_iter().map(|opened| ContactView::of(opened, shown));
    Ok(Json(Contacts { contacts: configured.chain(own).collect() }))
}

/// Adds a person. Their numbers are used for alerts once they are verified.
#[utoipa::path(post, path = "/api/v1/contacts", tag = "contacts", request_body = ContactRequest,
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 201, description = "added", body = ContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, StateProblems, BodyProblems))]
async fn add_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictJson { value, .. }: StrictJson<ContactRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let (service, input) = (Arc::clone(&state.service), value.into_domain());
    if input.name.is_none() {
        return Err(Problem::of_field(ProblemCode::MissingField, FieldError::new("name", "must be given")));
    }
    let opened = to_its_end(async move { service.add_contact(&caller, input).await }).await?;
    Ok(answer(StatusCode::CREATED, ContactView::of(opened, Shown::Masked)))
}

/// Shows a person.
#[utoipa::path(get, path = "/api/v1/contacts/{id}", tag = "contacts",
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the person", body = ContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems))]
async fn get_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<String>,
) -> Result<Response, Problem> {
    let caller = caller(principal, READERS)?;
    let (id, shown) = (contact_id(&id)?, Shown::to(&caller));
    if let Some(person) = state.service.configured_contact(&caller, &id).await? {
        return Ok(answer(StatusCode::OK, ContactView::of_configured(person, shown)));
    }
    let opened = state.service.contact(&caller, &id).await?;
    Ok(answer(StatusCode::OK, ContactView::of(opened, shown)))
}

fn refuse_configured(state: &AppState, caller: &Caller, id: &ContactId) -> Result<(), Problem> {
    if state.service.is_configured(caller, id)? {
        let why = "people of the configuration are changed there, and need no proof of their numbers";
        return Err(Problem::new(ProblemCode::Conflict).with_detail(why));
    }
    Ok(())
}

/// Sets all about a person anew, if they are still at the version that `If-Match` names. Another number is unverified.
#[utoipa::path(put, path = "/api/v1/contacts/{id}", tag = "contacts", request_body = ContactRequest,
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "changed", body = ContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, BodyProblems, VersionProblems))]
async fn put_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
    IfMatch(version): IfMatch,
    StrictJson { value, .. }: StrictJson<ContactRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let id = contact_id(&id)?;
    refuse_configured(&state, &caller, &id)?;
    let (service, input) = (Arc::clone(&state.service), value.into_domain());
    let opened = to_its_end(async move { service.replace_contact(&caller, &id, version, input).await }).await?;
    Ok(answer(StatusCode::OK, ContactView::of(opened, Shown::Masked)))
}

/// Removes a person, if they are still at the version that `If-Match` names. Who may have been told something, or is named by
/// a schedule or a policy (drafts included), is kept: not active and without numbers, for the audit names them.
#[utoipa::path(delete, path = "/api/v1/contacts/{id}", tag = "contacts",
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "kept without numbers, and not active", body = ContactView, headers(("ETag" = String, description = "the version"))),
        (status = 204, description = "gone"), CommonProblems, VersionProblems))]
async fn delete_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
    IfMatch(version): IfMatch,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let (id, service) = (contact_id(&id)?, Arc::clone(&state.service));
    refuse_configured(&state, &caller, &id)?;
    match to_its_end(async move { service.remove_contact(&caller, &id, version).await }).await? {
        Removal::Gone => Ok(StatusCode::NO_CONTENT.into_response()),
        Removal::Kept(opened) => Ok(answer(StatusCode::OK, ContactView::of(*opened, Shown::Masked))),
    }
}

/// Shows a person of the roster with their whole numbers. The look is recorded first.
#[utoipa::path(post, path = "/api/v1/contacts/{id}/reveal", tag = "contacts",
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the person", body = ContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems))]
async fn reveal_contact(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<String>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let (id, service) = (contact_id(&id)?, Arc::clone(&state.service));
    let opened = to_its_end(async move { service.reveal_contact(&caller, &id).await }).await?;
    Ok(answer(StatusCode::OK, ContactView::of(opened, Shown::All)))
}

/// What came of sending a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum CodeSending {
    /// Twilio has it.
    Accepted,
    /// Twilio did not answer: it may come, or not.
    Unknown,
}

/// A code was sent.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct CodeSent {
    /// What came of it.
    sending: CodeSending,
    /// Until when the code counts.
    #[schema(value_type = String, format = "date-time")]
    until: Timestamp,
}

/// Sends a code of six digits to a number, to be confirmed within ten minutes. A further one takes its place. Over `voice` the phone
/// is called, and the code said once whoever answers has pressed `1`.
#[utoipa::path(post, path = "/api/v1/contacts/{id}/methods/{channel}/verification", tag = "contacts",
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("channel" = String, Path, description = "whatsapp, sms or voice")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 202, description = "sent, or maybe sent", body = CodeSent), CommonProblems, PhoneProblems))]
async fn send_code(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((id, channel)): StrictPath<(String, String)>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let (id, channel) = (contact_id(&id)?, channel_of(&channel)?);
    refuse_configured(&state, &caller, &id)?;
    let service = Arc::clone(&state.service);
    let begun = {
        let caller = caller.clone();
        async move { service.begin_verification(&caller, &id, channel).await }
    };
    hand_over_code(&state, caller, begun).await
}

/// Sends a code that is drawn and kept by `begun`.
pub(super) async fn hand_over_code(
    state: &AppState,
    caller: Caller,
    begun: impl Future<Output = Result<CodeToSend, ServiceError>> + Send + 'static,
) -> Result<Response, Problem> {
    let (service, worker) = (Arc::clone(&state.service), Arc::clone(&state.worker));
    // To its end: a code that is durable is sent, whoever hangs up.
    let (outcome, until) = to_its_end(async move {
        let sent = begun.await?;
        let outcome = worker.send_code(&sent.request).await;
        match &outcome {
            SendOutcome::Accepted { provider_id, .. } => {
                service.code_was_taken(&caller, &sent, Some(provider_id)).await;
            }
            SendOutcome::Unknown { .. } => service.code_was_taken(&caller, &sent, None).await,
            SendOutcome::Refused(fault) => service.code_was_refused(&caller, &sent, Some(fault)).await?,
            SendOutcome::NotExecuted { .. } | SendOutcome::NotBegun { .. } => {
                service.code_was_refused(&caller, &sent, None).await?;
            }
        }
        Ok((outcome, sent.until))
    })
    .await?;
    let sent = |sending| (StatusCode::ACCEPTED, Json(CodeSent { sending, until })).into_response();
    match outcome {
        SendOutcome::Accepted { .. } => Ok(sent(CodeSending::Accepted)),
        SendOutcome::Unknown { .. } => Ok(sent(CodeSending::Unknown)),
        SendOutcome::Refused(fault) => Err(Problem::new(ProblemCode::Conflict).with_detail(refused(&fault))),
        SendOutcome::NotExecuted { .. } | SendOutcome::NotBegun { .. } => Err(Problem::new(ProblemCode::Unavailable)
            .with_detail("Twilio cannot be reached just now; no code was sent")
            .with_retry_after(std::time::Duration::from_secs(60))),
    }
}

fn refused(fault: &ProviderFault) -> String {
    match fault.code {
        Some(code) => format!("Twilio refuses to send there (error {code}); no code was sent"),
        None => "Twilio refuses to send there; no code was sent".to_owned(),
    }
}

/// A code that came.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConfirmRequest {
    /// The six digits.
    #[schema(pattern = "^[0-9]{6}$", example = "012345")]
    pub(super) code: String,
}

impl Validate for ConfirmRequest {
    fn validate(&self) -> Vec<FieldError> {
        let fits = self.code.len() == CODE_DIGITS && self.code.bytes().all(|byte| byte.is_ascii_digit());
        if fits { Vec::new() } else { vec![FieldError::new("code", "must be six digits")] }
    }
}

/// Says which code came. The right one verifies the number; three wrong ones, and another must be sent.
#[utoipa::path(post, path = "/api/v1/contacts/{id}/methods/{channel}/verification/confirm", tag = "contacts",
    request_body = ConfirmRequest,
    params(("id" = String, Path, description = "the contact's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        ("channel" = String, Path, description = "whatsapp, sms or voice")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "verified", body = ContactView, headers(("ETag" = String, description = "the version"))),
        CommonProblems, StateProblems, BodyProblems))]
async fn confirm_code(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath((id, channel)): StrictPath<(String, String)>,
    StrictJson { value, .. }: StrictJson<ConfirmRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, SETTERS)?.until(deadline);
    let (id, channel, service) = (contact_id(&id)?, channel_of(&channel)?, Arc::clone(&state.service));
    let confirming = async move { service.confirm_verification(&caller, &id, channel, &value.code).await };
    match to_its_end(confirming).await? {
        Confirmed::Right(opened) => Ok(answer(StatusCode::OK, ContactView::of(*opened, Shown::Masked))),
        Confirmed::Wrong { tries_left } => Err(wrong_code(tries_left)),
    }
}

pub(super) fn wrong_code(tries_left: u32) -> Problem {
    let rule = match tries_left {
        0 => "must be the code that was sent; it counts no more: send another".to_owned(),
        1 => "must be the code that was sent; it may be tried once more".to_owned(),
        left => format!("must be the code that was sent; it may be tried {left} more times"),
    };
    Problem::of_field(ProblemCode::InvalidField, FieldError::new("code", rule))
}

/// Why a change of the roster does not fit, as an answer.
pub(super) fn rejected(rejection: Rejection) -> Problem {
    let detail = match rejection {
        Rejection::NoSuchContact | Rejection::NoSuchMethod | Rejection::NoSuchPolicy | Rejection::NoSuchSchedule => {
            return Problem::new(ProblemCode::NotFound);
        }
        Rejection::Invalid(faults) => {
            let errors = faults.into_iter().map(|fault| FieldError::new(fault.field, fault.rule)).collect();
            return Problem::new(ProblemCode::InvalidField).with_errors(errors);
        }
        Rejection::TooSoon(wait) => {
            return Problem::new(ProblemCode::RateLimited)
                .with_detail("too many codes were sent; nothing was sent now")
                .with_retry_after(wait);
        }
        Rejection::OptedOut => {
            let why = "the phone takes nothing from us: no code is sent before it says START";
            return Problem::new(ProblemCode::OptedOut).with_detail(why);
        }
        Rejection::Outdated => "it was changed since it was read: read it again",
        Rejection::IdTaken => "the id is taken",
        Rejection::TooMany(why) | Rejection::StillNeeded(why) => why,
        Rejection::AlreadyVerified => "the method is verified",
        Rejection::Inactive => "the contact is not active: nothing is sent to them",
        Rejection::NoCode => "no code waits to be confirmed: it has run out, was tried too often, or none was sent",
    };
    Problem::new(ProblemCode::Conflict).with_detail(detail)
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_contacts, add_contact))
        .routes(routes!(get_contact, put_contact, delete_contact))
        .routes(routes!(reveal_contact))
        .routes(routes!(send_code))
        .routes(routes!(confirm_code))
}
