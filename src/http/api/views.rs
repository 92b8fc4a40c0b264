//! How alerts are shown. Whatever is sealed is left out here; see `reveal`.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::alert::{AckVia, Alert, AlertState, Kind, Outcome, StateName, WithheldReason};
use crate::domain::audit::{Actor, AuditEntry};
use crate::domain::consent::DisclosureGround;
use crate::domain::contact::{Channel, ContactRole};
use crate::domain::delivery::{Attempt, AttemptResult, Delivery, DeliveryState, FailureReason};
use crate::domain::event::{Score, Source};
use crate::domain::ids::{AlertId, ContactId, ProviderId, Reference};
use crate::domain::message::Purpose;
use crate::domain::policy::Stage;
use crate::domain::provider::ProviderFault;
use crate::twilio::error_codes;

/// An alert in a list.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct AlertSummary {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: AlertId,
    /// The code that people read out.
    #[schema(value_type = String, example = "K7Q4TX3M")]
    reference: Reference,
    /// Live or drill.
    kind: Kind,
    /// Where it stands.
    state: StateName,
    /// The gravest score so far; a case that a person raised counts as 1.
    #[schema(value_type = f64)]
    severity: Score,
    /// Where the newest event comes from.
    source: Source,
    /// How many events it unites.
    events: u32,
    /// How many replies are kept beside it that asked for nothing; `reveal` opens them.
    replies: u32,
    /// When it was opened.
    #[schema(value_type = String, format = "date-time")]
    opened_at: Timestamp,
    /// When it changed last.
    #[schema(value_type = String, format = "date-time")]
    updated_at: Timestamp,
    /// When the service acts on it next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    next_action_at: Option<Timestamp>,
}

/// An alert with everything that happened, but nothing that is sealed.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct AlertView {
    #[serde(flatten)]
    summary: AlertSummary,
    /// On what ground people may be told: `consent`, `emergency_override`, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<&'static str>,
    /// What the state carries.
    detail: StateView,
    /// The messages, oldest first.
    deliveries: Vec<DeliveryView>,
    /// What happened, oldest first: the newest 200 entries of the audit, in short.
    timeline: Vec<TimelineEntry>,
}

/// What a state carries.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
enum StateView {
    /// Nobody was told.
    Withheld {
        /// Since when.
        #[schema(value_type = String, format = "date-time")]
        since: Timestamp,
        /// What a person can do.
        remedy: &'static str,
    },
    /// Somebody is being told.
    Escalating {
        /// The round of the ladder, from 1; none at the last responder.
        #[serde(skip_serializing_if = "Option::is_none")]
        round: Option<u32>,
        /// The step of the round, from 1; none at the last responder.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<u32>,
        /// Every round was in vain: the last responder is told again and again.
        last_responder: bool,
        /// When the next step begins.
        #[schema(value_type = String, format = "date-time")]
        next_step_at: Timestamp,
    },
    /// A human has taken it.
    Acknowledged {
        /// Who: a kind, and a contact's or key's id where there is one.
        by: ActorView,
        /// How.
        via: AckVia,
        /// When.
        #[schema(value_type = String, format = "date-time")]
        at: Timestamp,
        /// When whoever has it is reminded, or, where they were, when it is escalated again, unless an outcome or a
        /// check-in follows.
        #[schema(value_type = String, format = "date-time")]
        action_due_at: Timestamp,
        /// When they were reminded.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = "date-time")]
        reminded_at: Option<Timestamp>,
    },
    /// A human has closed it.
    Resolved {
        /// Who.
        by: ActorView,
        /// How it ended.
        outcome: Outcome,
        /// When.
        #[schema(value_type = String, format = "date-time")]
        at: Timestamp,
        /// When somebody is to look after the student again.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>, format = "date-time")]
        follow_up_at: Option<Timestamp>,
    },
}

/// Who acted, without a name.
#[derive(Serialize, utoipa::ToSchema)]
struct ActorView {
    /// `service`, `provider`, `machine`, `person` or `contact`.
    kind: &'static str,
    /// A machine's key id, a contact's id, or the keyed hash of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// One message to one phone.
#[derive(Serialize, utoipa::ToSchema)]
struct DeliveryView {
    /// Its number within the alert.
    number: u32,
    /// The recipient.
    #[schema(value_type = String)]
    contact: ContactId,
    /// Why they are told.
    role: ContactRole,
    /// What the message is for.
    purpose: Purpose,
    /// Of a message to an emergency contact, why they are told: `contact_consent` or `decision`. The alert's own ground does
    /// not cover it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<&'static str>,
    /// The channel.
    channel: Channel,
    /// `due`, `sending`, `unknown`, `accepted`, `sent`, `delivered`, `read`, of a call `ringing` or `answered`, `failed` or
    /// `cancelled`.
    state: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureView>,
    /// When it was planned.
    #[schema(value_type = String, format = "date-time")]
    planned_at: Timestamp,
    /// When the service acts on it next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    next_action_at: Option<Timestamp>,
    /// The calls to Twilio.
    attempts: Vec<AttemptView>,
}

/// Why a message will not arrive.
#[derive(Serialize, utoipa::ToSchema)]
struct FailureView {
    /// `refused`, `exhausted`, `not_composable`, or of a call `not_reached`: busy, no answer, or a machine.
    reason: &'static str,
    /// What Twilio named.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

/// One call to Twilio.
#[derive(Serialize, utoipa::ToSchema)]
struct AttemptView {
    /// Its number within the delivery.
    number: u32,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    begun_at: Timestamp,
    /// `pending`, `accepted`, `not_executed`, `held_back`, `refused`, `unknown`, `not_found` or `unresolved`.
    result: &'static str,
    /// Twilio's id of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    provider_id: Option<ProviderId>,
    /// The furthest status that Twilio told.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// When it told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    status_at: Option<Timestamp>,
    /// The fault it named, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    /// The template, its version and language.
    template: String,
    /// SHA-256 of the exact text.
    text_sha256: String,
}

/// A fault that Twilio named, explained.
#[derive(Serialize, utoipa::ToSchema)]
struct ErrorView {
    /// Twilio's code, where it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    /// What it means.
    meaning: String,
    /// What to do.
    remedy: String,
}

/// One thing that happened.
#[derive(Serialize, utoipa::ToSchema)]
struct TimelineEntry {
    /// Its number in the audit.
    seq: u64,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// What: the audit's word for it.
    what: String,
    /// The delivery it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<u64>,
    /// Twilio's status, with a receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// Where somebody is told, or it is decided: whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<String>,
    /// In which role.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// On what ground.
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<String>,
    /// Who acted: a kind.
    actor: String,
}

impl From<&Alert> for AlertSummary {
    fn from(alert: &Alert) -> Self {
        Self {
            id: alert.id,
            reference: alert.reference,
            kind: alert.kind,
            state: alert.state.name(),
            severity: alert.severity,
            source: alert.trigger.source,
            events: alert.events,
            replies: alert.replies + alert.outside_replies,
            opened_at: alert.opened_at,
            updated_at: alert.updated_at,
            next_action_at: alert.next_action_at(),
        }
    }
}

impl AlertView {
    pub(super) fn of(alert: &Alert, audit: &[AuditEntry]) -> Self {
        Self {
            summary: alert.into(),
            ground: alert.ground.as_ref().map(|ground| ground.kind()),
            detail: (&alert.state).into(),
            deliveries: alert.deliveries.iter().map(DeliveryView::from).collect(),
            timeline: audit.iter().map(TimelineEntry::from).collect(),
        }
    }
}

impl From<&AlertState> for StateView {
    fn from(state: &AlertState) -> Self {
        match state {
            AlertState::Withheld { since, why } => Self::Withheld {
                since: *since,
                remedy: match why {
                    WithheldReason::NoConsent => {
                        "no consent: nobody was told; a counsellor or admin may escalate it with an emergency override"
                    }
                    WithheldReason::ConsentWithdrawn => {
                        "consent was withdrawn: nobody is told any more; a counsellor or admin may escalate it with an \
                         emergency override"
                    }
                },
            },
            AlertState::Escalating { stage, next_step_at, .. } => {
                let (round, step) = match stage {
                    Stage::Step { round, step } => (Some(round + 1), Some(step + 1)),
                    Stage::LastResponder { .. } => (None, None),
                };
                Self::Escalating { round, step, last_responder: round.is_none(), next_step_at: *next_step_at }
            }
            AlertState::Acknowledged { by, via, at, action_due_at, reminded_at } => Self::Acknowledged {
                by: by.into(),
                via: *via,
                at: *at,
                action_due_at: *action_due_at,
                reminded_at: *reminded_at,
            },
            AlertState::Resolved { by, outcome, at, follow_up, .. } => Self::Resolved {
                by: by.into(),
                outcome: *outcome,
                at: *at,
                follow_up_at: follow_up.as_ref().map(|follow_up| follow_up.due_at),
            },
        }
    }
}

impl From<&Actor> for ActorView {
    fn from(actor: &Actor) -> Self {
        match actor {
            Actor::Service => Self { kind: "service", id: None },
            Actor::Provider => Self { kind: "provider", id: None },
            Actor::Machine { key } => Self { kind: "machine", id: Some(key.clone()) },
            Actor::Person { principal, .. } => Self { kind: "person", id: Some(principal.to_string()) },
            Actor::Contact { contact } => Self { kind: "contact", id: Some(contact.to_string()) },
        }
    }
}

impl From<&Delivery> for DeliveryView {
    fn from(delivery: &Delivery) -> Self {
        let failure = if let DeliveryState::Failed { reason, fault, .. } = &delivery.state {
            let reason = match reason {
                FailureReason::Refused => "refused",
                FailureReason::Exhausted => "exhausted",
                FailureReason::NotComposable => "not_composable",
                FailureReason::NotReached => "not_reached",
            };
            Some(FailureView { reason, error: fault.as_ref().map(ErrorView::from) })
        } else {
            None
        };
        Self {
            number: delivery.no.0,
            contact: delivery.contact.clone(),
            role: delivery.role,
            purpose: delivery.purpose,
            ground: delivery.disclosure.as_ref().map(DisclosureGround::kind),
            channel: delivery.channel,
            state: delivery.state.name(),
            failure,
            planned_at: delivery.planned_at,
            next_action_at: delivery.next_action_at(),
            attempts: delivery.attempts.iter().map(AttemptView::from).collect(),
        }
    }
}

impl From<&Attempt> for AttemptView {
    fn from(attempt: &Attempt) -> Self {
        let disclosed = &attempt.disclosed;
        Self {
            number: attempt.no.0,
            begun_at: attempt.begun_at,
            result: result_word(attempt.result),
            provider_id: attempt.provider_id.clone(),
            status: attempt.status.map(|status| status.word()),
            status_at: attempt.status_at,
            error: attempt.fault.as_ref().map(ErrorView::from),
            template: format!("{} v{} {}", disclosed.template, disclosed.template_version, disclosed.language),
            text_sha256: disclosed.text_sha256.clone(),
        }
    }
}

/// The result's name, as in the API and in reports.
pub(crate) fn result_word(result: AttemptResult) -> &'static str {
    match result {
        AttemptResult::Pending => "pending",
        AttemptResult::Accepted => "accepted",
        AttemptResult::NotExecuted => "not_executed",
        AttemptResult::NotBegun => "held_back",
        AttemptResult::Refused => "refused",
        AttemptResult::Unknown(_) => "unknown",
        AttemptResult::NotFound => "not_found",
        AttemptResult::Unresolved => "unresolved",
    }
}

impl From<&ProviderFault> for ErrorView {
    fn from(fault: &ProviderFault) -> Self {
        match fault.code {
            Some(code) => {
                let explanation = error_codes::explain(code);
                Self {
                    code: Some(code),
                    meaning: explanation.meaning.to_string(),
                    remedy: explanation.remedy.to_string(),
                }
            }
            None => Self {
                code: None,
                meaning: "The message was refused, and no error code was given.".to_owned(),
                remedy: "Run the configuration check, and look into Twilio's own log of errors.".to_owned(),
            },
        }
    }
}

impl From<&AuditEntry> for TimelineEntry {
    fn from(entry: &AuditEntry) -> Self {
        let said: serde_json::Value = serde_json::from_str(&entry.canonical).unwrap_or_default();
        let word = |name: &str| said.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        let deed = word("deed").unwrap_or_default();
        let what = match word("what") {
            Some(what) => format!("{deed}.{what}"),
            None => deed,
        };
        let actor = said.pointer("/actor/kind").and_then(serde_json::Value::as_str).unwrap_or_default();
        Self {
            seq: entry.seq,
            at: entry.at,
            what,
            delivery: said.get("delivery").and_then(serde_json::Value::as_u64),
            status: word("status"),
            contact: word("contact"),
            role: word("role"),
            ground: word("ground").or_else(|| said.pointer("/ground/kind")?.as_str().map(str::to_owned)),
            actor: actor.to_owned(),
        }
    }
}
