//! Alert: the case the service works on, as one aggregate with its deliveries and the head of its audit chain.
//!
//! ```text
//! Withheld{why}                      no permission; nobody told; a person may escalate it with an override
//! Escalating{stage, next_step_at}
//!     -- ack -->            Acknowledged{by, via, at, action_due_at}
//!     -- step due -->       Escalating{next stage}; after the last step the next round; after the last round: the
//!                           last responder every few minutes and an operational alarm, until a human answers
//! Acknowledged -- no action in time --> whoever has it is reminded; then Escalating (from the bottom of the ladder)
//! any open    -- resolve -->         Resolved{by, outcome, at}
//! Escalating  -- consent withdrawn --> Withheld (what is due is cancelled; an override stands)
//! ```
//!
//! | state | who moves it out | what a crash in it does |
//! |---|---|---|
//! | `Withheld` | a person, with an override or an outcome; an event that comes with a ground | nothing: nothing is due |
//! | `Escalating` | the worker, when `next_step_at` has come; a human's acknowledgement or outcome | nothing: the next poll finds it |
//! | `Acknowledged` | a human's outcome; the worker, when `action_due_at` has come | nothing: the next poll finds it |
//! | `Resolved` | nobody; the worker reminds of a follow-up when its time has come | nothing: the next poll finds it |
//!
//! Every change is [`Alert::on`]: a pure function of the alert, an [`Input`] and the [`Situation`], which gives a
//! [`Transition`]: the changed alert, its audit entries, and what the worker has to do. The store commits all of it at
//! once, guarded by the version.
//!
//! The invariant that everything hangs on: an alert that is `Escalating` or `Acknowledged` has a
//! [`Alert::next_action_at`].

mod deed;
mod transition;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use deed::{AgainDeed, CancelReason, Deed, DeliveryDeed};
pub use transition::{Input, NewAlert, Rejection, ToldAgain};

use super::audit::{Actor, AuditEntry, AuditHead};
use super::consent::{DisclosureGround, EmergencyContact, Ground};
use super::contact::{Channel, ContactRole, Directory, Language};
use super::crowd::PhonePace;
use super::delivery::{Delivery, DeliveryRules, DeliveryState, Lease, Settled, later};
use super::event::{Score, Trigger};
use super::ids::{
    AddressKey, AlertId, AttemptNo, ContactId, DeliveryNo, OrganisationId, ProviderId, Reference, SubjectKey,
};
use super::message::{Composed, Purpose, Speech};
use super::policy::{Ladders, Policy, Stage};
use super::provider::ErrorClass;
use super::sealed::Sealed;

/// Whether an alert is about a real person. Neither kind can turn into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A real case.
    Live,
    /// An exercise, marked as such everywhere.
    Drill,
}

impl Kind {
    /// The kind's name, as in the API, in the store and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Drill => "drill",
        }
    }
}

/// How a human took the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AckVia {
    /// An authenticated call of the API.
    Api,
    /// A reply from the phone that was told.
    Reply,
    /// The key 1, pressed in a call to the phone that was called.
    Keypress,
}

/// How a case ended, in a human's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Spoken to in person, and safe.
    SafeInPerson,
    /// Spoken to by phone, and safe.
    SafeByPhone,
    /// A safety plan was made.
    SafetyPlan,
    /// A hospital or a helpline has taken over, and said so.
    HandedOver,
    /// The family was informed.
    FamilyInformed,
    /// Could not be reached; only an administrator may close a case so.
    UnableToReach,
    /// There was no crisis.
    FalseAlarm,
    /// The same case as another alert.
    Duplicate,
    /// An exercise.
    Drill,
    /// The student died.
    Deceased,
}

/// Where an alert stands. See the module's diagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum AlertState {
    /// No permission: nobody was told. People who may decide otherwise can see it.
    Withheld {
        /// Why.
        why: WithheldReason,
        /// Since when.
        since: Timestamp,
    },
    /// Somebody is being told.
    Escalating {
        /// Where on the ladder.
        stage: Stage,
        /// When the next stage begins.
        next_step_at: Timestamp,
        /// Who is told on it. Empty where nobody could be, and in cases that are older than this list.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        asked: Vec<Asked>,
        /// Rungs that came to nobody when their turn came, and have not begun since; they count from 0.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        vacant: Vec<u32>,
    },
    /// A human has taken it.
    Acknowledged {
        /// Who.
        by: Actor,
        /// How.
        via: AckVia,
        /// When.
        at: Timestamp,
        /// When whoever has it is reminded, or, where they were, when it is escalated again, unless an outcome or a
        /// check-in follows.
        action_due_at: Timestamp,
        /// When they were reminded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reminded_at: Option<Timestamp>,
    },
    /// A human has closed it.
    Resolved {
        /// Who.
        by: Actor,
        /// How it ended.
        outcome: Outcome,
        /// When.
        at: Timestamp,
        /// What is still to follow.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        follow_up: Option<FollowUp>,
        /// Who had taken it before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken: Option<Taken>,
    },
}

/// Somebody who is told on a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Who.
    pub contact: ContactId,
    /// They have passed it on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
}

/// Who had taken a case when it was closed, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Who.
    pub by: Actor,
    /// How.
    pub via: AckVia,
    /// Since when.
    pub at: Timestamp,
}

/// Somebody looks after the student again, after the case was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUp {
    /// When it is due.
    pub due_at: Timestamp,
    /// Whether somebody is being reminded, or was; or whether it was tried for long enough.
    pub is_told: bool,
    /// Whom it was tried to remind, since that was begun anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<ContactId>,
    /// When it is tried again, after nobody could be reminded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_at: Option<Timestamp>,
    /// How often nobody could be.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub in_vain: u32,
}

impl FollowUp {
    /// One that is still to come.
    pub const fn due(due_at: Timestamp) -> Self {
        Self { due_at, is_told: false, tried: Vec::new(), again_at: None, in_vain: 0 }
    }

    /// When somebody must be reminded.
    pub fn next_at(&self) -> Option<Timestamp> {
        (!self.is_told).then(|| self.again_at.unwrap_or(self.due_at))
    }
}

/// Why nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithheldReason {
    /// Neither consent nor an emergency override.
    NoConsent,
    /// There was consent, and the student withdrew it.
    ConsentWithdrawn,
}

impl AlertState {
    /// The state's name, as in the API and in metric labels.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Withheld { .. } => StateName::Withheld,
            Self::Escalating { .. } => StateName::Escalating,
            Self::Acknowledged { .. } => StateName::Acknowledged,
            Self::Resolved { .. } => StateName::Resolved,
        }
    }

    /// Whether the phones that were told can still say something that changes it: somebody is wanted for it, or has it.
    pub const fn hears_phones(&self) -> bool {
        match self {
            Self::Escalating { .. } | Self::Acknowledged { .. } => true,
            Self::Withheld { .. } | Self::Resolved { .. } => false,
        }
    }
}

/// The name of an alert's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Nobody was told.
    Withheld,
    /// Somebody is being told.
    Escalating,
    /// A human has taken it.
    Acknowledged,
    /// A human has closed it.
    Resolved,
}

impl StateName {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Withheld, Self::Escalating, Self::Acknowledged, Self::Resolved];

    /// The name as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Escalating => "escalating",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// The case. Everything personal in it is a keyed hash or sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Its id.
    pub id: AlertId,
    /// The code that people read out.
    pub reference: Reference,
    /// The college.
    pub organisation: OrganisationId,
    /// The student.
    pub subject: SubjectKey,
    /// Live or drill.
    pub kind: Kind,
    /// Counts the changes, from 1; the store saves a change only onto the version it was made from.
    pub version: u64,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// The student's user id, sealed under their data key.
    pub identity: Sealed,
    /// The gravest event so far.
    pub severity: Score,
    /// The gravest that somebody was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paged_severity: Option<Score>,
    /// The newest event.
    pub trigger: Trigger,
    /// How many events it unites.
    pub events: u32,
    /// Why sending is allowed; `None` while nothing may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<Ground>,
    /// The ladder it runs on.
    pub policy: Arc<Policy>,
    /// Where it stands.
    pub state: AlertState,
    /// The messages, oldest first. Settled ones are dropped from the front when they grow many; the audit keeps all.
    pub deliveries: Vec<Delivery>,
    /// How many deliveries were ever planned.
    pub deliveries_planned: u32,
    /// How fast people were told; `None`: nobody was yet, or not since this is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// How many deliveries had been planned when the ladder was begun the last time from its first rung, or after somebody had
    /// taken the case: those told nobody in this climb.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub climb_from: u32,
    /// Where it stands with the student's emergency contacts, as far as the policy goes; `None`: their time runs since it was
    /// opened, if the policy knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<EmergencyClock>,
    /// How many replies are kept beside it that asked for nothing.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub replies: u32,
    /// How many of the student's emergency contacts are kept. They are counted apart: a machine outside must not fill the
    /// team's place.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub outside_replies: u32,
    /// The head of the chain `alert/<id>`.
    pub audit_head: AuditHead,
}

/// How fast the people of the ladder were told of a case. Kept beside the messages, of which the oldest are dropped: a case
/// that is told of for hours would look like one that began a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// When they began to be told: when the first message was planned.
    pub since: Timestamp,
    /// When Twilio had one of the messages first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_at: Option<Timestamp>,
    /// When a phone had one first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone_at: Option<Timestamp>,
}

/// Where a case stands with the student's emergency contacts, as far as the policy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum EmergencyClock {
    /// Their time runs since then: people were told again after it was withheld, or taken.
    Waiting {
        /// Since when.
        since: Timestamp,
    },
    /// Their time has come, once for all.
    Told {
        /// When.
        at: Timestamp,
    },
}

/// The emergency contacts of a case's student, as they were read, and what else a disclosure to one of them needs.
#[derive(Debug, Clone, Default)]
pub struct Disclosures {
    /// Whom the student has named.
    pub contacts: Vec<EmergencyContact>,
    /// The version of the record that was read.
    pub version: u64,
    /// Whether there is a desk that they can be asked to call.
    pub has_desk: bool,
}

impl Disclosures {
    /// The contact with this id.
    pub fn contact(&self, id: &ContactId) -> Option<&EmergencyContact> {
        self.contacts.iter().find(|contact| contact.id == *id)
    }

    /// The ground's kind, where a message to one of them may go out now.
    ///
    /// # Errors
    /// Why it must not.
    pub fn may_disclose(&self, delivery: &Delivery) -> Result<&'static str, CancelReason> {
        let ground = delivery.disclosure.as_ref().ok_or(CancelReason::ConsentGone)?;
        let contact = self.contact(&delivery.contact).ok_or(CancelReason::ContactGone)?;
        if !ground.is_decision() && !contact.is_granted() {
            return Err(CancelReason::ConsentGone);
        }
        let reaches = contact.is_reached_at(delivery.channel, delivery.address_key);
        if reaches { Ok(ground.kind()) } else { Err(CancelReason::NumberGone) }
    }
}

/// serde asks by reference.
fn is_none_yet(count: &u32) -> bool {
    *count == 0
}

impl Alert {
    /// When this alert must be looked at next. Always `Some` while it is escalating or acknowledged.
    pub fn next_action_at(&self) -> Option<Timestamp> {
        let own = match &self.state {
            AlertState::Escalating { next_step_at, .. } => Some(*next_step_at),
            AlertState::Acknowledged { action_due_at, .. } => Some(*action_due_at),
            AlertState::Resolved { follow_up, .. } => follow_up.as_ref().and_then(FollowUp::next_at),
            AlertState::Withheld { .. } => None,
        };
        let deliveries = self.deliveries.iter().filter_map(Delivery::next_action_at);
        deliveries.chain(own).chain(self.emergency_contacts_due_at()).min()
    }

    /// Whether further events of the student join this alert: every state but `Resolved`.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, AlertState::Resolved { .. })
    }

    /// Whether a claimed attempt is still to be called: it is in hand, nobody has taken the case meanwhile, and the ground
    /// covers its channel. What else keeps an emergency contact from being told is [`Disclosures::may_disclose`].
    pub fn still_wants(&self, delivery: DeliveryNo, attempt: AttemptNo) -> bool {
        let in_hand = |delivery: &&Delivery| {
            let is_covered = delivery.purpose == Purpose::EmergencyContact
                || self.ground.as_ref().is_some_and(|ground| ground.allows(delivery.channel));
            is_covered && matches!(delivery.state, DeliveryState::Sending { attempt: held, .. } if held == attempt)
        };
        self.delivery(delivery).filter(in_hand).is_some_and(|delivery| self.wants(delivery))
    }

    /// Whether it is a drill that was started as one: it ends when somebody has taken it, or every round was in vain.
    pub fn is_exercise(&self) -> bool {
        matches!((self.kind, &self.ground), (Kind::Drill, Some(Ground::Drill { .. })))
    }

    /// Whether a message of it goes ahead of everything else, and is held back for no phone's sake.
    pub fn is_urgent(&self, delivery: &Delivery) -> bool {
        matches!(self.kind, Kind::Live) && delivery.purpose.is_urgent()
    }

    /// Whether people are still to be asked to take it.
    pub fn wants_somebody(&self) -> bool {
        matches!(self.state, AlertState::Escalating { .. })
    }

    /// Whether this message is still to be sent.
    pub fn wants(&self, delivery: &Delivery) -> bool {
        match delivery.purpose {
            Purpose::CounsellorAlert => self.wants_somebody(),
            // A human's decision stands until the case is closed; the policy's only until somebody has it.
            Purpose::EmergencyContact => match &delivery.disclosure {
                Some(DisclosureGround::Decision { .. }) => self.is_open(),
                Some(DisclosureGround::ContactConsent { .. }) => self.wants_somebody(),
                None => false,
            },
            Purpose::OutcomeReminder => matches!(self.state, AlertState::Acknowledged { .. }),
            Purpose::TakenNotice => {
                matches!(self.state, AlertState::Acknowledged { .. } | AlertState::Resolved { .. })
            }
            Purpose::FollowUpReminder => matches!(self.state, AlertState::Resolved { .. }),
        }
    }

    /// The ladder that it goes on with once an event of this severity has joined it.
    pub fn policy_after(&self, severity: Score, ladders: &Ladders) -> Arc<Policy> {
        ladders.after_rise(&self.policy, self.severity, self.severity.max(severity))
    }

    /// What the recipient of a delivery is told of.
    pub fn facts<'a>(&self, delivery: &'a Delivery, taken_by: TakenBy) -> Facts<'a> {
        Facts {
            reference: self.reference,
            score: delivery.score,
            severity: delivery.score.unwrap_or(Score::HIGHEST),
            at: self.trigger.received_at,
            respond_by: later(delivery.planned_at, self.policy.respond_within),
            drill: matches!(self.kind, Kind::Drill),
            channel: delivery.channel,
            language: &delivery.language,
            purpose: delivery.purpose,
            taken_by,
        }
    }

    /// The delivery with this number.
    pub fn delivery(&self, no: DeliveryNo) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.no == no)
    }
}

/// What a recipient may be told of: there is no more to it than this.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts<'a> {
    /// The code.
    pub reference: Reference,
    /// The score; `None` where a person raised the case.
    pub score: Option<Score>,
    /// How grave it is.
    pub severity: Score,
    /// When the newest event was accepted.
    pub at: Timestamp,
    /// When an answer is expected by.
    pub respond_by: Timestamp,
    /// An exercise.
    pub drill: bool,
    /// The channel.
    pub channel: Channel,
    /// The recipient's language.
    pub language: &'a Language,
    /// What the message is for.
    pub purpose: Purpose,
    /// Who has the case.
    pub taken_by: TakenBy,
}

/// Who has a case, as others are told: by role, never by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenBy {
    /// A person on the ladder.
    Contact(ContactRole),
    /// Somebody at the dashboard.
    Dashboard,
}

/// Makes a message text of facts: pure, from the organisation's templates.
pub trait Compose: Send + Sync {
    /// The text, or `None` if the templates cannot make one (which the check at start rules out).
    fn compose(&self, facts: &Facts<'_>) -> Option<Composed>;

    /// Everything that a call about these facts may say; `None` as for [`Compose::compose`].
    fn speech(&self, facts: &Facts<'_>) -> Option<Speech>;

    /// Whether there is a desk that emergency contacts can be asked to call.
    fn has_desk(&self) -> bool;

    /// Whether WhatsApp takes this text at any time, and not only for a while after the recipient's own message.
    fn is_approved(&self, wanted: &Language, purpose: Purpose) -> bool;
}

/// How alerts behave: from the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// By how much the score must rise above what was told, for people to be told again.
    pub repage_rise: f64,
    /// When every delivery of a stage has failed, the next stage begins after this, if not sooner.
    pub retry_when_all_failed: std::time::Duration,
    /// How deliveries are tried.
    pub delivery: DeliveryRules,
}

/// What a change depends on besides the alert and the input.
pub struct Situation<'a> {
    /// The time.
    pub now: Timestamp,
    /// In `0.0..1.0`.
    pub jitter: f64,
    /// Who or what acts.
    pub actor: &'a Actor,
    /// How alerts behave.
    pub rules: &'a Rules,
    /// The people, and who of them is on call.
    pub directory: &'a Directory,
    /// Which policy a case takes, by how grave it is.
    pub ladders: &'a Ladders,
    /// The templates.
    pub composer: &'a dyn Compose,
    /// The student's emergency contacts. `None`: they were not read, so none of them is told anything by this change.
    pub emergency: Option<&'a Disclosures>,
    /// Whether phones get too many messages.
    pub phones: &'a dyn PhonePace,
    /// If given, deliveries that are due are claimed under this lease, and the transition says what to send.
    pub lease: Option<&'a Lease>,
}

/// What the worker has to do after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this, under the lease that the commit took.
    Send {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// The text.
        message: Composed,
    },
    /// Ask Twilio whether it has this attempt's message.
    LookUp {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
    },
    /// Ask Twilio how far this message got.
    Poll {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// Twilio's id of it.
        provider_id: ProviderId,
    },
}

impl Action {
    /// Which delivery it is about.
    pub const fn delivery(&self) -> DeliveryNo {
        match self {
            Self::Send { delivery, .. } | Self::LookUp { delivery, .. } | Self::Poll { delivery, .. } => *delivery,
        }
    }
}

/// Something that the operator must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// Every round was in vain; the last responder is told again and again.
    LadderExhausted,
    /// A stage had nobody to tell.
    NobodyToTell,
    /// A stage is for whoever is on call, and nobody is: the next one began at once.
    NobodyOnCall,
    /// Twilio refused for a reason that only an operator can mend.
    ProviderRefused {
        /// The fault's class.
        class: ErrorClass,
        /// Twilio's error code.
        code: Option<u32>,
    },
    /// Attempts or time for a delivery were used up.
    DeliveryExhausted,
    /// No text could be made.
    NotComposable,
    /// Acknowledged, but no outcome in time.
    Reopened,
    /// A drill ended, and nobody had answered.
    DrillUnanswered,
    /// A follow-up is due, and nobody could be reminded of it.
    FollowUpUntold,
    /// An emergency contact was to be told, and none of their numbers works.
    EmergencyContactUntold,
    /// The student withdrew consent while people were being told: nobody is told any more, unless a person overrides.
    ConsentWithdrawn,
}

impl Alarm {
    /// The alarm's name, as in metric labels.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LadderExhausted => "ladder_exhausted",
            Self::NobodyToTell => "nobody_to_tell",
            Self::NobodyOnCall => "nobody_on_call",
            Self::ProviderRefused { .. } => "provider_refused",
            Self::DeliveryExhausted => "delivery_exhausted",
            Self::NotComposable => "not_composable",
            Self::Reopened => "reopened",
            Self::DrillUnanswered => "drill_unanswered",
            Self::FollowUpUntold => "follow_up_untold",
            Self::EmergencyContactUntold => "emergency_contact_untold",
            Self::ConsentWithdrawn => "consent_withdrawn",
        }
    }
}

/// What an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The score is below the threshold: nothing was opened.
    BelowThreshold,
    /// It joined the student's open alert.
    Merged,
    /// Neither consent nor an override: nobody is told.
    WithheldNoConsent,
    /// Somebody is being told.
    Escalated,
}

impl Decision {
    /// The decision's name, as in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BelowThreshold => "below_threshold",
            Self::Merged => "merged",
            Self::WithheldNoConsent => "withheld_no_consent",
            Self::Escalated => "escalated",
        }
    }
}

/// A change, ready to be committed.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The alert after the change.
    pub alert: Alert,
    /// The version it was made from; `None` for a new alert.
    pub from_version: Option<u64>,
    /// The audit entries that tell of it.
    pub audit: Vec<AuditEntry>,
    /// What to do after the commit.
    pub actions: Vec<Action>,
    /// What the operator must hear of.
    pub alarms: Vec<Alarm>,
    /// Ids that Twilio gave, newly known.
    pub provider_ids: Vec<ProviderId>,
    /// What happened to deliveries, for the metrics.
    pub settled: Vec<(DeliveryNo, Settled)>,
    /// What an event came to, if the input was one.
    pub decision: Option<Decision>,
    /// Whether somebody is told again because of it.
    pub paged: bool,
    /// Whether a human took the case, or closed it, by it; or a drill came to its end: alarms about it are over.
    pub in_human_hands: bool,
    /// Whether the case left the ladder in it: somebody took it, or closed it.
    pub left_ladder: bool,
    /// Whether people are told again of a case that somebody had taken.
    pub reopened: bool,
    /// To how many phones it sends although they have had enough for a minute.
    pub past_phone_pace: u32,
    /// How many messages that can wait were put off, for their phone has had enough for a minute.
    pub put_off: u32,
}

impl Transition {
    /// Whether there is anything to commit.
    pub fn is_empty(&self) -> bool {
        self.from_version == Some(self.alert.version)
    }

    /// The numbers whose last case this is from now on: those that were told, where somebody took the case or closed it; and
    /// an emergency contact's as soon as they are told.
    pub fn last_case_of(&self) -> Vec<AddressKey> {
        // What is said after a drill is about no student.
        let left_ladder = self.left_ladder && !self.alert.is_exercise();
        let alerts = self.alert.deliveries.iter().filter(|delivery| left_ladder && delivery.purpose.is_alert());
        let outside = self.sends().filter(|delivery| delivery.purpose == Purpose::EmergencyContact);
        let numbers: BTreeSet<AddressKey> = alerts.chain(outside).map(|delivery| delivery.address_key).collect();
        numbers.into_iter().collect()
    }

    /// Whether a message is to be sent on the student's word: on their consent, or to somebody whom they have named.
    pub fn sends_on_consent(&self) -> bool {
        let on_consent = matches!(self.alert.ground, Some(Ground::Consent { .. }));
        self.sends().any(|delivery| on_consent || delivery.purpose == Purpose::EmergencyContact)
    }

    /// The messages that are to be sent after the commit.
    fn sends(&self) -> impl Iterator<Item = &Delivery> {
        let sends = self.actions.iter().filter(|action| matches!(action, Action::Send { .. }));
        sends.filter_map(|action| self.alert.delivery(action.delivery()))
    }
}
