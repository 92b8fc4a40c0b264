//! What an alert's audit entries say.

use jiff::Timestamp;
use serde::Serialize;

use super::{AckVia, Decision, Kind, Outcome, WithheldReason};
use crate::domain::consent::{DisclosureGround, Ground};
use crate::domain::contact::{Channel, ContactRole};
use crate::domain::delivery::{Disclosed, FailureReason};
use crate::domain::event::{Score, Trigger};
use crate::domain::ids::{AddressKey, AttemptNo, ContactId, DeliveryNo, PolicyId, ProviderId, Reference, SubjectKey};
use crate::domain::policy::Stage;
use crate::domain::provider::{MessageStatus, ProviderFault};
use crate::domain::sealed::Sealed;

/// One thing that happened to an alert. The order of the fields is part of the canonical text.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed<'a> {
    /// An event opened it.
    Opened {
        /// The code.
        reference: Reference,
        /// The student.
        subject: SubjectKey,
        /// Live or drill.
        kind: Kind,
        /// What set it going.
        trigger: &'a Trigger,
        /// What was decided.
        decision: Decision,
        /// The ladder.
        policy: &'a PolicyId,
        /// Its version.
        policy_version: u32,
        /// What it says, as a hash: a ladder of the configuration can change and keep its name and version.
        policy_sha256: &'a str,
    },
    /// A further event joined it.
    EventJoined {
        /// The event.
        trigger: &'a Trigger,
        /// The gravest so far.
        severity: Score,
        /// What was decided.
        decision: Decision,
        /// Whether people are told again; if not, this entry records the suppression.
        paged: bool,
    },
    /// Sending is allowed from here on.
    GroundRecorded {
        /// Why.
        ground: &'a Ground,
    },
    /// Nobody may be told.
    Withheld {
        /// Why.
        why: WithheldReason,
    },
    /// The student withdrew their consent: nothing more is sent on it.
    ConsentWithdrawn,
    /// A stage of the ladder began.
    StageBegun {
        /// Which.
        stage: Stage,
        /// When the next one begins.
        next_step_at: Timestamp,
        /// How many messages it planned.
        deliveries: u32,
    },
    /// A stage of the ladder is for whoever is on call, and nobody is: the next one begins at once.
    NobodyOnCall {
        /// Which.
        stage: Stage,
    },
    /// The case has become graver, and goes on by another ladder, from its first rung on.
    PolicyChanged {
        /// The ladder.
        policy: &'a PolicyId,
        /// Its version.
        policy_version: u32,
        /// What it says, as a hash.
        policy_sha256: &'a str,
    },
    /// Something about one delivery.
    Delivery {
        /// Which.
        delivery: DeliveryNo,
        /// What.
        #[serde(flatten)]
        what: DeliveryDeed<'a>,
    },
    /// A human has taken it.
    Acknowledged {
        /// How.
        via: AckVia,
        /// When whoever has it is reminded, unless an outcome or a check-in follows.
        action_due_at: Timestamp,
    },
    /// Whoever has it was reminded that an outcome is missing.
    Reminded {
        /// When it is escalated again unless an outcome or a check-in follows.
        action_due_at: Timestamp,
    },
    /// Whoever has it said that they are on it.
    CheckedIn {
        /// When they are reminded, unless an outcome or a further check-in follows.
        action_due_at: Timestamp,
    },
    /// Somebody wrote words that ask for nothing. They are kept beside the alert, sealed.
    ReplyKept {
        /// Over which channel.
        channel: Channel,
        /// Its number, from 1; those of emergency contacts are counted apart.
        number: u32,
        /// What an emergency contact hears again in answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        told_again: Option<AgainDeed<'a>>,
    },
    /// Whoever was told, or had taken it, has handed it on.
    PassedOn,
    /// No outcome in time, or a graver event: it is escalated again.
    Reopened,
    /// A human has closed it.
    Resolved {
        /// How it ended.
        outcome: Outcome,
        /// What they noted, sealed under the student's data key.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a Sealed>,
        /// When somebody is to look after the student again.
        #[serde(skip_serializing_if = "Option::is_none")]
        follow_up_at: Option<Timestamp>,
    },
    /// A human has decided that an emergency contact of the student is told.
    EmergencyContactDecided {
        /// Who.
        contact: &'a ContactId,
        /// The decision.
        ground: &'a DisclosureGround,
    },
    /// Nobody has answered for as long as the policy waits before it tells emergency contacts.
    EmergencyContactsDue {
        /// How many the student has agreed to.
        granted: u32,
        /// How many messages are planned.
        deliveries: u32,
    },
    /// An emergency contact was to be told, and cannot be.
    EmergencyContactUntold {
        /// Who.
        contact: &'a ContactId,
    },
    /// A follow-up is due.
    FollowUpDue {
        /// When it became due.
        due_at: Timestamp,
        /// Whether somebody is reminded of it.
        told: bool,
    },
}

/// Why a message is no longer wanted while somebody is still to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The recipient has this number no longer: changed, removed, opted out, or they are not active any more.
    NumberGone,
    /// The student does not name this emergency contact any more.
    ContactGone,
    /// The student does not agree any more that this emergency contact is told.
    ConsentGone,
}

/// What an emergency contact hears again in answer to a reply: a disclosure of its own, with its whole ground.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AgainDeed<'a> {
    /// The message that told them.
    pub delivery: DeliveryNo,
    /// Why they may be told.
    pub disclosure: &'a DisclosureGround,
    /// What they hear.
    pub disclosed: &'a Disclosed,
}

/// One thing that happened to a delivery.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum DeliveryDeed<'a> {
    /// An attempt is about to be made. Written before the call: whatever reaches the recipient stands here.
    AttemptBegun {
        /// Which.
        attempt: AttemptNo,
        /// The recipient.
        contact: &'a ContactId,
        /// Why they are told.
        role: ContactRole,
        /// The channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// The ground's kind.
        ground: &'static str,
        /// The whole ground, where the recipient is an emergency contact: the alert's own does not cover them.
        #[serde(skip_serializing_if = "Option::is_none")]
        disclosure: Option<&'a DisclosureGround>,
        /// The instance that has it in hand: of two that claim at one instant, it tells whose claim was stored.
        holder: &'a str,
        /// What they are to read.
        disclosed: &'a Disclosed,
        /// The phone had had enough messages for a minute: what is no live alert would have had to wait.
        #[serde(skip_serializing_if = "is_not")]
        past_phone_pace: bool,
    },
    /// Twilio has it.
    Accepted {
        /// Which attempt.
        attempt: AttemptNo,
        /// Twilio's id.
        provider_id: &'a ProviderId,
        /// Its first status.
        status: MessageStatus,
    },
    /// It will be tried again.
    RetryPlanned {
        /// The attempt that was in vain.
        attempt: AttemptNo,
        /// When the next one is due.
        due_at: Timestamp,
        /// What Twilio named.
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<ProviderFault>,
    },
    /// The call was held back by our own pace or circuit breaker: nothing was sent.
    Deferred {
        /// The attempt that was not begun.
        attempt: AttemptNo,
        /// When the next one is due.
        due_at: Timestamp,
    },
    /// Nobody knows what became of an attempt.
    OutcomeUnknown {
        /// Which.
        attempt: AttemptNo,
        /// When Twilio is asked.
        look_up_at: Timestamp,
    },
    /// Twilio told how far it got.
    Receipt {
        /// Which attempt.
        attempt: AttemptNo,
        /// Twilio's id.
        provider_id: &'a ProviderId,
        /// How far.
        status: MessageStatus,
        /// What Twilio named.
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<ProviderFault>,
    },
    /// It will not arrive.
    Failed {
        /// Why.
        reason: FailureReason,
        /// What Twilio named.
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<ProviderFault>,
    },
    /// It failed, or nothing told in time that it arrived: the same person is told over the next channel.
    FellOver {
        /// Over which.
        channel: Channel,
        /// The message that is to do it.
        next: DeliveryNo,
    },
    /// It is no longer wanted.
    Cancelled {
        /// The attempt that was in hand: nothing of it was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<AttemptNo>,
        /// Why, where that is not what happened to the case.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<CancelReason>,
    },
}

/// serde asks by reference.
fn is_not(said: &bool) -> bool {
    !*said
}
