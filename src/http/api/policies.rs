//! Escalation policies: who is told when, kept in versions, and explained before they are needed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fields::{Rfc3339, staff_role_if_given, whole, whole_if_given};
use super::{check_user_id, to_its_end};
use crate::domain::contact::{Channel, ContactRole};
use crate::domain::event::Score;
use crate::domain::ids::{ContactId, PolicyId, ScheduleId};
use crate::domain::message::UrgencyBand;
use crate::domain::policy::check::Finding;
use crate::domain::policy::explain::{NotTold, StageShown, Told, WhyMissing, WhyNot};
use crate::domain::policy::{Policy, Stage, Step, Target};
use crate::domain::roster::{CONFIGURED, RosterPolicy};
use crate::http::auth::{Authenticated, Role};
use crate::http::etag::{IfMatch, tag};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{BodyProblems, CommonProblems, FieldError, Problem, ProblemCode, VersionProblems};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::service::rota::{Course, Explanation, Outside, Question, Rota};

/// Who may see how people are told.
pub(super) const READERS: &[Role] = &[Role::Counsellor, Role::Admin, Role::Auditor];
/// Who sets it up.
pub(super) const KEEPERS: &[Role] = &[Role::Admin];

/// Who a step tells: one of the three.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TargetView {
    /// One person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "counsellor")]
    contact: Option<ContactId>,
    /// Everybody of a role: `counsellor`, `lead` or `duty_manager`.
    #[serde(default, deserialize_with = "staff_role_if_given", skip_serializing_if = "Option::is_none")]
    role: Option<ContactRole>,
    /// Whoever is on call when the step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "nights")]
    schedule: Option<ScheduleId>,
}

impl TargetView {
    fn target(&self) -> Option<Target> {
        match (&self.contact, self.role, &self.schedule) {
            (Some(contact), None, None) => Some(Target::Contact(contact.clone())),
            (None, Some(role), None) => Some(Target::Role(role)),
            (None, None, Some(schedule)) => Some(Target::Schedule(schedule.clone())),
            _ => None,
        }
    }

    fn of(target: &Target) -> Self {
        let (mut contact, mut role, mut schedule) = (None, None, None);
        match target {
            Target::Contact(id) => contact = Some(id.clone()),
            Target::Role(of) => role = Some(*of),
            Target::Schedule(id) => schedule = Some(id.clone()),
        }
        Self { contact, role, schedule }
    }
}

/// One rung of the ladder.
#[derive(Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct StepView {
    /// How long after the step before it; the first begins at once.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 3600, example = 180)]
    after_seconds: u32,
    /// Who is told.
    targets: Vec<TargetView>,
    /// Over which channels, in this order.
    channels: Vec<Channel>,
}

/// A policy as it is set.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    /// Its id, for good: 1 to 64 of `A-Z a-z 0-9 _ -`. A new one must have it; of one that is replaced it stands in the path.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_-]{1,64}$", example = "nights")]
    id: Option<PolicyId>,
    /// The rungs, 1 to 16.
    steps: Vec<StepView>,
    /// How often the whole ladder is climbed, 1 to 100. What of the counts and times below is not given is as in the
    /// configuration's policy.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 1, maximum = 100)]
    rounds: Option<u32>,
    /// From the last step of a round to the first of the next, in seconds.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 10, maximum = 3600)]
    repeat_every_seconds: Option<u32>,
    /// Who is told when every round was in vain, and when nobody is on call: a contact or a role.
    last_responder: TargetView,
    /// Over which channels, in this order.
    last_responder_channels: Vec<Channel>,
    /// How often the last responder is told again, in seconds.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 10, maximum = 3600)]
    last_responder_every_seconds: Option<u32>,
    /// After how many seconds without a receipt the same person is told over the next channel.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 5, maximum = 600)]
    fall_over_after_seconds: Option<u32>,
    /// How many seconds after an acknowledgement an outcome or a check-in must follow.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 60, maximum = 86400)]
    act_within_seconds: Option<u32>,
    /// How many seconds after the reminder that one is missing the case is escalated again.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 60, maximum = 3600)]
    check_in_within_seconds: Option<u32>,
    /// Whether a reply such as `done safe` may close a case.
    resolve_by_reply: Option<bool>,
    /// After how many seconds the student's emergency contacts are told, too, if nobody has taken the case: those whom the
    /// student has agreed to. Not given: never by itself.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 60, maximum = 86400)]
    emergency_contact_after_seconds: Option<u32>,
    /// The time in which the message asks for an answer, in seconds.
    #[serde(default, deserialize_with = "whole_if_given")]
    #[schema(minimum = 60, maximum = 3600)]
    respond_within_seconds: Option<u32>,
    /// The bands whose cases take it; none: it is a draft. A band is taken from the policy that had it.
    #[serde(default)]
    bands: Vec<UrgencyBand>,
}

impl Validate for PolicyRequest {
    fn validate(&self) -> Vec<FieldError> {
        const RULE: &str = "must have one of contact, role and schedule";
        let steps = self.steps.iter().enumerate();
        let named = steps.flat_map(|(step, rung)| {
            rung.targets.iter().enumerate().map(move |(at, target)| (format!("steps[{step}].targets[{at}]"), target))
        });
        let all = named.chain([("last_responder".to_owned(), &self.last_responder)]);
        all.filter(|(_, target)| target.target().is_none()).map(|(field, _)| FieldError::new(field, RULE)).collect()
    }
}

impl PolicyRequest {
    /// The policy, and the bands; what is left out is as in the configuration's. `None` where [`Validate`] has been passed over.
    fn policy(&self, id: PolicyId, configured: &Policy) -> Option<RosterPolicy> {
        let seconds = |given: Option<u32>, otherwise: Duration| {
            given.map_or(otherwise, |seconds| Duration::from_secs(seconds.into()))
        };
        let step = |step: &StepView| {
            let targets: Option<Vec<Target>> = step.targets.iter().map(TargetView::target).collect();
            let after = Duration::from_secs(step.after_seconds.into());
            Some(Step { after, targets: targets?, channels: step.channels.clone() })
        };
        let policy = Policy {
            id,
            version: 1,
            steps: self.steps.iter().map(step).collect::<Option<_>>()?,
            rounds: self.rounds.unwrap_or(configured.rounds),
            repeat_every: seconds(self.repeat_every_seconds, configured.repeat_every),
            last_responder: self.last_responder.target()?,
            last_responder_channels: self.last_responder_channels.clone(),
            last_responder_every: seconds(self.last_responder_every_seconds, configured.last_responder_every),
            further_rounds_with_last: false,
            fall_over_after: seconds(self.fall_over_after_seconds, configured.fall_over_after),
            act_within: seconds(self.act_within_seconds, configured.act_within),
            check_in_within: seconds(self.check_in_within_seconds, configured.check_in_within),
            resolve_by_reply: self.resolve_by_reply.unwrap_or(configured.resolve_by_reply),
            // Whom the service tells outside the team is said by each policy for itself.
            emergency_contact_after: self
                .emergency_contact_after_seconds
                .map(|given| Duration::from_secs(given.into())),
            respond_within: seconds(self.respond_within_seconds, configured.respond_within),
        };
        Some(RosterPolicy { policy: Arc::new(policy), bands: self.bands.clone() })
    }
}

/// What somebody should look at.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct WarningView {
    /// Where.
    field: String,
    /// What is the matter.
    rule: &'static str,
}

impl WarningView {
    pub(super) fn new(field: impl Into<String>, rule: &'static str) -> Self {
        Self { field: field.into(), rule }
    }
}

impl From<Finding> for WarningView {
    fn from(finding: Finding) -> Self {
        Self::new(finding.field, finding.what.rule())
    }
}

/// Where a policy is kept.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum PolicySource {
    /// In the database; it can be changed here.
    Roster,
    /// In the configuration: it is for the bands that no other policy has, and cannot be changed here.
    Configuration,
}

/// A policy.
#[derive(Serialize, utoipa::ToSchema)]
struct PolicyView {
    /// Its id.
    #[schema(value_type = String)]
    id: PolicyId,
    /// Counts its changes, from 1.
    version: u32,
    /// Where it is kept.
    source: PolicySource,
    /// The bands whose cases take it; none: it is a draft.
    bands: Vec<UrgencyBand>,
    /// The rungs.
    steps: Vec<StepView>,
    /// How often the whole ladder is climbed.
    rounds: u32,
    /// From the last step of a round to the first of the next.
    repeat_every_seconds: u64,
    /// Who is told when every round was in vain.
    last_responder: TargetView,
    /// Over which channels.
    last_responder_channels: Vec<Channel>,
    /// How often the last responder is told again.
    last_responder_every_seconds: u64,
    /// The last responder's turn comes after the first round; the rungs of the further ones are told with them, one at each turn.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    further_rounds_with_last_responder: bool,
    /// After how long without a receipt the next channel is used.
    fall_over_after_seconds: u64,
    /// How long after an acknowledgement an outcome or a check-in must follow.
    act_within_seconds: u64,
    /// How long after the reminder that one is missing the case is escalated again.
    check_in_within_seconds: u64,
    /// Whether a reply may close a case.
    resolve_by_reply: bool,
    /// After how long emergency contacts are told, too; not there: never by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    emergency_contact_after_seconds: Option<u64>,
    /// The time in which the message asks for an answer.
    respond_within_seconds: u64,
    /// What somebody should look at.
    warnings: Vec<WarningView>,
}

impl PolicyView {
    fn of(policy: &Policy, rota: &Rota<'_>) -> Self {
        let step = |step: &Step| StepView {
            // At most an hour.
            after_seconds: u32::try_from(step.after.as_secs()).unwrap_or(u32::MAX),
            targets: step.targets.iter().map(TargetView::of).collect(),
            channels: step.channels.clone(),
        };
        let is_configured = policy.id.as_str() == CONFIGURED;
        let found = rota.findings(policy);
        Self {
            id: policy.id.clone(),
            version: policy.version,
            source: if is_configured { PolicySource::Configuration } else { PolicySource::Roster },
            bands: rota.bands_of(policy),
            steps: policy.steps.iter().map(step).collect(),
            rounds: policy.rounds,
            repeat_every_seconds: policy.repeat_every.as_secs(),
            last_responder: TargetView::of(&policy.last_responder),
            last_responder_channels: policy.last_responder_channels.clone(),
            last_responder_every_seconds: policy.last_responder_every.as_secs(),
            further_rounds_with_last_responder: policy.further_rounds_with_last,
            fall_over_after_seconds: policy.fall_over_after.as_secs(),
            act_within_seconds: policy.act_within.as_secs(),
            check_in_within_seconds: policy.check_in_within.as_secs(),
            resolve_by_reply: policy.resolve_by_reply,
            emergency_contact_after_seconds: policy.emergency_contact_after.map(|after| after.as_secs()),
            respond_within_seconds: policy.respond_within.as_secs(),
            // What was in order when it was saved may not be any more.
            warnings: found.faults.into_iter().chain(found.warnings).map(WarningView::from).collect(),
        }
    }
}

/// Every policy; there are 17 at the most.
#[derive(Serialize, utoipa::ToSchema)]
struct PolicyList {
    /// The policies, the configuration's last.
    policies: Vec<PolicyView>,
}

fn shown(status: StatusCode, id: &PolicyId, rota: &Rota<'_>) -> Result<Response, Problem> {
    let policy = rota.policy(id).ok_or_else(|| Problem::new(ProblemCode::NotFound))?;
    let view = PolicyView::of(policy, rota);
    Ok((status, tag(view.version.into()), Json(view)).into_response())
}

/// Lists the policies.
#[utoipa::path(get, path = "/api/v1/escalation-policies", tag = "policies",
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "every policy", body = PolicyList), CommonProblems))]
async fn list_policies(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<Json<PolicyList>, Problem> {
    let caller = caller(principal, READERS)?;
    let rota = state.service.rota(&caller).await?;
    let own = rota.roster.policies.iter().map(|policy| policy.policy.as_ref());
    let policies = own.chain([rota.configured()]).map(|policy| PolicyView::of(policy, &rota)).collect();
    Ok(Json(PolicyList { policies }))
}

/// Shows a policy.
#[utoipa::path(get, path = "/api/v1/escalation-policies/{id}", tag = "policies",
    params(("id" = String, Path, description = "the policy's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "the policy; its version is the ETag", body = PolicyView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems))]
async fn get_policy(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<PolicyId>,
) -> Result<Response, Problem> {
    let caller = caller(principal, READERS)?;
    let rota = state.service.rota(&caller).await?;
    shown(StatusCode::OK, &id, &rota)
}

/// Adds a policy. It is looked at as a whole: every field at fault is named.
#[utoipa::path(post, path = "/api/v1/escalation-policies", tag = "policies", request_body = PolicyRequest,
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 201, description = "kept", body = PolicyView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems, BodyProblems, VersionProblems))]
async fn post_policy(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictJson { value, .. }: StrictJson<PolicyRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    let id = new_id(value.id.as_ref())?;
    save(state, caller, id, None, value).await
}

/// Replaces a policy, if it is still at the version that `If-Match` names. Cases that run on it keep the version they have.
#[utoipa::path(put, path = "/api/v1/escalation-policies/{id}", tag = "policies", request_body = PolicyRequest,
    params(("id" = String, Path, description = "the policy's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "kept", body = PolicyView,
        headers(("ETag" = String, description = "the version, for If-Match"))), CommonProblems, BodyProblems, VersionProblems))]
async fn put_policy(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<PolicyId>,
    IfMatch(version): IfMatch,
    StrictJson { value, .. }: StrictJson<PolicyRequest>,
) -> Result<Response, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    refuse_other_id(value.id.as_ref(), &id)?;
    save(state, caller, id, Some(small(version)), value).await
}

async fn save(
    state: AppState,
    caller: crate::service::caller::Caller,
    id: PolicyId,
    from_version: Option<u32>,
    request: PolicyRequest,
) -> Result<Response, Problem> {
    refuse_configured(&id, from_version)?;
    let policy = request
        .policy(id.clone(), state.service.configured_figures(&caller)?)
        .ok_or_else(|| Problem::new(ProblemCode::InvalidField))?;
    let (service, who) = (Arc::clone(&state.service), caller.clone());
    to_its_end(async move { service.save_policy(&who, from_version, policy).await }).await?;
    let rota = state.service.rota(&caller).await?;
    shown(if from_version.is_some() { StatusCode::OK } else { StatusCode::CREATED }, &id, &rota)
}

/// The id of something new.
pub(super) fn new_id<T: Clone>(given: Option<&T>) -> Result<T, Problem> {
    let missing = || Problem::of_field(ProblemCode::MissingField, FieldError::new("id", "must be given"));
    given.cloned().ok_or_else(missing)
}

/// Of something that is replaced, the id stands in the path.
pub(super) fn refuse_other_id<T: PartialEq>(given: Option<&T>, id: &T) -> Result<(), Problem> {
    if given.is_none_or(|given| given == id) {
        return Ok(());
    }
    let rule = "must be that of the path, or left out";
    Err(Problem::of_field(ProblemCode::InvalidField, FieldError::new("id", rule)))
}

/// Versions of policies and schedules are small; one that is not is none.
pub(super) fn small(version: u64) -> u32 {
    u32::try_from(version).unwrap_or(u32::MAX)
}

fn refuse_configured(id: &PolicyId, from_version: Option<u32>) -> Result<(), Problem> {
    if from_version.is_some() && id.as_str() == CONFIGURED {
        let why = "the configuration's ladder is changed there; a policy that is active for a band takes its place";
        return Err(Problem::new(ProblemCode::Conflict).with_detail(why));
    }
    Ok(())
}

/// Takes a policy away. Its bands go to the configuration's ladder; cases that run on it keep it.
#[utoipa::path(delete, path = "/api/v1/escalation-policies/{id}", tag = "policies",
    params(("id" = String, Path, description = "the policy's id", pattern = "^[A-Za-z0-9_-]{1,64}$"),
        IfMatch),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 204, description = "gone; its versions stay in the audit"), CommonProblems, VersionProblems))]
async fn delete_policy(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(id): StrictPath<PolicyId>,
    IfMatch(version): IfMatch,
) -> Result<StatusCode, Problem> {
    let caller = caller(principal, KEEPERS)?.until(deadline);
    refuse_configured(&id, Some(small(version)))?;
    let service = Arc::clone(&state.service);
    to_its_end(async move { service.remove_policy(&caller, &id, small(version)).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which case a policy is to be explained for.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    /// The student, as the backend names them: what they have consented to counts.
    #[schema(min_length = 1, max_length = 128)]
    user_id: String,
    /// The score; not given: a case that a person raises.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 1)]
    crisis_score: Option<Score>,
    /// When it would be opened; not given: now.
    #[schema(value_type = Option<String>, format = "date-time")]
    at: Option<Rfc3339>,
    /// As if somebody had decided that life is at stake.
    #[serde(default)]
    emergency_override: bool,
}

impl Validate for ExplainRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check_user_id(&mut errors, &self.user_id);
        errors
    }
}

/// What a case would come to.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum WouldBe {
    /// The score is below the threshold: nothing would be opened.
    BelowThreshold,
    /// Neither consent nor an override: nobody would be told.
    WithheldNoConsent,
    /// Somebody would be told.
    Escalated,
}

/// Over which channel, and when.
#[derive(Serialize, utoipa::ToSchema)]
struct OverView {
    channel: Channel,
    /// When; each but the first only if nothing has told that the one before it arrived, and sooner if that fails.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
}

/// Why a channel would not be used.
#[derive(Serialize, utoipa::ToSchema)]
struct NotOverView {
    channel: Channel,
    /// `no_number`: none that is verified; `not_covered`: the student's consent does not cover it.
    why: &'static str,
}

/// Somebody who would be told.
#[derive(Serialize, utoipa::ToSchema)]
struct ToldView {
    #[schema(value_type = String)]
    contact: ContactId,
    role: ContactRole,
    /// They are not named: they stand in for somebody who cannot be told.
    stands_in: bool,
    over: Vec<OverView>,
    not_over: Vec<NotOverView>,
}

/// Somebody who is named and would not be told.
#[derive(Serialize, utoipa::ToSchema)]
struct NotToldView {
    #[serde(flatten)]
    who: TargetView,
    /// `not_set_up` (nobody has this id), `inactive`, `no_number`, `unverified`, `opted_out`, `unreachable` (over these channels),
    /// `nobody_of_role` or `nobody_on_call`.
    why: &'static str,
    not_over: Vec<NotOverView>,
}

/// One stage of the ladder.
#[derive(Serialize, utoipa::ToSchema)]
struct StageView {
    /// From 1; not there for the last responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    /// From 1; not there for the last responder.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    last_responder: bool,
    /// When it begins, if nobody has answered by then.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// The next one begins at once.
    nobody_on_call: bool,
    told: Vec<ToldView>,
    not_told: Vec<NotToldView>,
}

/// Who would be told, when, over what, and why.
#[derive(Serialize, utoipa::ToSchema)]
struct ExplanationView {
    /// The policy.
    #[schema(value_type = String)]
    policy: PolicyId,
    /// Its version.
    policy_version: u32,
    /// When the case would be opened.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// The band of its score.
    band: UrgencyBand,
    /// Whether a case would be opened, and take this policy.
    taken: bool,
    decision: WouldBe,
    /// Why somebody might be told: `consent` or `emergency_override`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<&'static str>,
    /// As if every message were taken, none told that it arrived, and nobody answered.
    stages: Vec<StageView>,
    /// Which emergency contacts would be told besides, and when; not there where the policy tells none by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    emergency_contacts: Option<OutsideView>,
}

/// Which emergency contacts would be told.
#[derive(Serialize, utoipa::ToSchema)]
struct OutsideView {
    /// When, if nobody has taken the case by then.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Those whom the student has agreed to and who have a proven number, with the channels in their order.
    told: Vec<OutsiderView>,
    /// Those whom the student has not agreed to, or who have no proven number.
    #[schema(value_type = Vec<String>)]
    not_told: Vec<ContactId>,
}

/// An emergency contact who would be told.
#[derive(Serialize, utoipa::ToSchema)]
struct OutsiderView {
    #[schema(value_type = String)]
    contact: ContactId,
    channels: Vec<Channel>,
}

impl From<Outside> for OutsideView {
    fn from(outside: Outside) -> Self {
        let told = outside.told.into_iter().map(|(contact, channels)| OutsiderView { contact, channels });
        Self { at: outside.at, told: told.collect(), not_told: outside.not_told }
    }
}

fn not_over(given: Vec<(Channel, WhyNot)>) -> Vec<NotOverView> {
    let word = |why| match why {
        WhyNot::NoNumber => "no_number",
        WhyNot::NotCovered => "not_covered",
    };
    given.into_iter().map(|(channel, why)| NotOverView { channel, why: word(why) }).collect()
}

impl From<Told> for ToldView {
    fn from(told: Told) -> Self {
        Self {
            contact: told.contact,
            role: told.role,
            stands_in: told.stands_in,
            over: told.over.into_iter().map(|(channel, at)| OverView { channel, at }).collect(),
            not_over: not_over(told.not_over),
        }
    }
}

const fn why_missing(why: WhyMissing) -> &'static str {
    match why {
        WhyMissing::NotSetUp => "not_set_up",
        WhyMissing::Inactive => "inactive",
        WhyMissing::NoNumber => "no_number",
        WhyMissing::Unverified => "unverified",
        WhyMissing::OptedOut => "opted_out",
    }
}

impl From<NotTold> for NotToldView {
    fn from(not: NotTold) -> Self {
        let view = |target, why, over| Self { who: TargetView::of(&target), why, not_over: not_over(over) };
        match not {
            NotTold::Missing(id, why) => view(Target::Contact(id), why_missing(why), Vec::new()),
            NotTold::Unreachable(id, over) => view(Target::Contact(id), "unreachable", over),
            NotTold::NobodyOf(role) => view(Target::Role(role), "nobody_of_role", Vec::new()),
            NotTold::NobodyOnCall(id) => view(Target::Schedule(id), "nobody_on_call", Vec::new()),
        }
    }
}

impl From<StageShown> for StageView {
    fn from(shown: StageShown) -> Self {
        let (round, step) = match shown.stage {
            Stage::Step { round, step } => (Some(round + 1), Some(step + 1)),
            Stage::LastResponder { .. } => (None, None),
        };
        Self {
            round,
            step,
            last_responder: step.is_none(),
            at: shown.at,
            nobody_on_call: shown.is_vacant,
            told: shown.told.into_iter().map(ToldView::from).collect(),
            not_told: shown.not_told.into_iter().map(NotToldView::from).collect(),
        }
    }
}

impl From<Explanation> for ExplanationView {
    fn from(explained: Explanation) -> Self {
        let (decision, ground, stages) = match explained.course {
            Course::BelowThreshold => (WouldBe::BelowThreshold, None, Vec::new()),
            Course::Withheld => (WouldBe::WithheldNoConsent, None, Vec::new()),
            Course::Told(ground, stages) => (WouldBe::Escalated, Some(ground.kind()), stages),
        };
        Self {
            policy: explained.policy.id,
            policy_version: explained.policy.version,
            at: explained.at,
            band: explained.band,
            taken: explained.is_taken,
            decision,
            ground,
            stages: stages.into_iter().map(StageView::from).collect(),
            emergency_contacts: explained.outside.map(OutsideView::from),
        }
    }
}

/// Says who would be told of a case, when, over what, and why, and who would not. Nothing is sent, and nothing changes.
#[utoipa::path(post, path = "/api/v1/escalation-policies/{id}/explain", tag = "policies", request_body = ExplainRequest,
    params(("id" = String, Path, description = "the policy's id", pattern = "^[A-Za-z0-9_-]{1,64}$")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "what would come", body = ExplanationView), CommonProblems, BodyProblems))]
async fn explain_policy(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(id): StrictPath<PolicyId>,
    StrictJson { value, .. }: StrictJson<ExplainRequest>,
) -> Result<Json<ExplanationView>, Problem> {
    let caller = caller(principal, KEEPERS)?;
    let service = Arc::clone(&state.service);
    let explaining = async move {
        let ExplainRequest { user_id, crisis_score: score, at, emergency_override: overridden } = &value;
        let question = Question { user_id, score: *score, at: at.map(|Rfc3339(at)| at), overridden: *overridden };
        service.explain(&caller, &id, &question).await
    };
    Ok(Json(to_its_end(explaining).await?.into()))
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_policies, post_policy))
        .routes(routes!(get_policy, put_policy, delete_policy))
        .routes(routes!(explain_policy))
}
