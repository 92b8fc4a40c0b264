//! Delivery: one message to one contact method within an alert, with its attempts.
//!
//! ```text
//! Due{at} -- claim --> Sending{attempt, lease} -- accepted --> Accepted{status: queued .. sent .. delivered .. read}
//! Sending -- not executed (429, refused connection) --> Due{later, full jitter}
//! Sending -- not begun (pace, circuit breaker) --> Due{later}; uses up no attempt
//! Sending -- refused for good --> Failed
//! Sending -- unknown (time-out, 5xx; crash: lease expired) --> Unknown -- look-up, or a callback --> Accepted | Due
//! Accepted -- no receipt in time --> polled
//! Accepted -- undelivered, failed --> Failed, or once more Due where the code says that a pause helps
//! Due -- acknowledged, resolved --> Cancelled
//! ```
//!
//! | state | who moves it out | what a crash in it does |
//! |---|---|---|
//! | `Due` | the worker that claims it, when `at` has come | nothing: the next poll finds it |
//! | `Sending` | the worker that holds the lease | the lease runs out, and it becomes `Unknown` |
//! | `Unknown` | a look-up, or a callback that bears the attempt's number | a look-up under way is made again |
//! | `Accepted` | receipts, by callback or by poll; nothing needs to | nothing: the next poll is due |
//! | `Failed`, `Cancelled` | nobody, but a late receipt may tell that a message arrived after all | nothing |
//!
//! Once a message has arrived, the delivery rests on it: if a later attempt comes to nothing, no other is made.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::consent::DisclosureGround;
use super::contact::{Channel, ContactRole, Language};
use super::event::Score;
use super::ids::{AddressKey, AttemptNo, ContactId, DeliveryNo, PersonKey, ProviderId};
use super::message::{Composed, Purpose};
use super::policy::Stage;
use super::provider::{ErrorClass, MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use super::sealed::Sealed;

/// How deliveries are retried, looked up and polled: from the configuration, the same for every alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRules {
    /// How many attempts a delivery gets.
    pub attempts_max: u32,
    /// How long after it was planned a delivery may still be tried again.
    pub give_up_after: Duration,
    /// The first retry waits for a random time up to this; each further one up to twice as long.
    pub backoff_base: Duration,
    /// The longest of those limits.
    pub backoff_max: Duration,
    /// The longest `Retry-After` that is honoured: a crisis does not wait for longer.
    pub retry_after_max: Duration,
    /// How long after a send of unknown outcome Twilio is asked first.
    pub look_up_first: Duration,
    /// How long between further look-ups.
    pub look_up_then: Duration,
    /// How many look-ups, answered or not, before the message is sent again.
    pub look_ups_max: u32,
    /// Where whoever made the call died with it: how long between the first look-up and the second, which is the last.
    pub look_up_lost: Duration,
    /// How long after acceptance Twilio is asked for a receipt that did not come.
    pub receipt_poll_first: Duration,
    /// Polls grow apart up to this.
    pub receipt_poll_max: Duration,
    /// How many such polls.
    pub receipt_polls_max: u32,
}

impl DeliveryRules {
    /// The longest pause before a further attempt.
    fn pause_longest(&self) -> Duration {
        self.backoff_max.max(self.retry_after_max).max(self.give_up_after)
    }

    /// The longest pause before a look-up.
    fn question_longest(&self) -> Duration {
        self.look_up_first.max(self.look_up_then).max(self.look_up_lost).max(self.retry_after_max)
    }
}

/// Look-ups of an attempt whose process died, as long as Twilio answers them. No request of a dead process is still on its
/// way, so Twilio need not be asked as long as after a time-out: once at once, and once more in case its list lags behind.
/// Most of those attempts were claimed and never begun, and each of them is somebody who has not been told yet. Whoever
/// let a lease run out may be alive, and is not trusted so far.
const LOST_LOOK_UPS_MAX: u32 = 2;

/// The right to send: who has it, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The instance of the service.
    pub owner: String,
    /// When the right ends.
    pub until: Timestamp,
}

/// What the recipient was to read: enough to prove it, nothing to repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disclosed {
    /// The template's name.
    pub template: String,
    /// Its version.
    pub template_version: u32,
    /// The language that was used.
    pub language: Language,
    /// SHA-256 of the exact rendered text, in hexadecimal.
    pub text_sha256: String,
}

impl Disclosed {
    /// What is recorded of this message.
    pub fn of(message: &Composed) -> Self {
        Self {
            template: message.template.clone(),
            template_version: message.version,
            language: message.language.clone(),
            text_sha256: message.text_sha256.clone(),
        }
    }
}

/// One call to the provider. Attempts are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub no: AttemptNo,
    /// When it was claimed: the call came after this.
    pub begun_at: Timestamp,
    /// What the recipient was to read.
    pub disclosed: Disclosed,
    /// What came of the call.
    pub result: AttemptResult,
    /// Twilio's id of the message, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<ProviderId>,
    /// The furthest status that Twilio told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<MessageStatus>,
    /// When it told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_at: Option<Timestamp>,
    /// When it told first that the phone has it, or that a human picked up: that it was read too comes later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_at: Option<Timestamp>,
    /// The fault it named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ProviderFault>,
}

/// What came of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// Not known yet.
    Pending,
    /// Twilio has it.
    Accepted,
    /// Surely not executed.
    NotExecuted,
    /// Held back by our own pace or circuit breaker: there was no call.
    NotBegun,
    /// Refused.
    Refused,
    /// Nobody knows.
    Unknown(UnknownCause),
    /// Twilio was asked, and has no such message.
    NotFound,
    /// Nobody knows, and Twilio could not be asked either.
    Unresolved,
}

/// Why a delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// Twilio or a carrier refused it.
    Refused,
    /// Attempts or time used up.
    Exhausted,
    /// No text could be made for it.
    NotComposable,
    /// A call reached no human: engaged, not answered, or answered by a machine.
    NotReached,
}

/// Where a delivery stands. See the module's diagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be sent from `at` on.
    Due {
        /// When.
        at: Timestamp,
    },
    /// A worker is at it.
    Sending {
        /// The attempt.
        attempt: AttemptNo,
        /// Its right to send.
        lease: Lease,
    },
    /// The attempt may or may not have been executed.
    Unknown {
        /// The attempt.
        attempt: AttemptNo,
        /// Since when nobody knows.
        since: Timestamp,
        /// How often Twilio was asked.
        look_ups: u32,
        /// When it is asked next.
        next_look_up_at: Timestamp,
    },
    /// Twilio has it.
    Accepted {
        /// The attempt.
        attempt: AttemptNo,
        /// How far it got.
        status: MessageStatus,
        /// How often Twilio was polled for a receipt.
        polls: u32,
        /// When it is polled next; `None` once it arrived, or polls are used up.
        poll_at: Option<Timestamp>,
    },
    /// It will not arrive.
    Failed {
        /// Why.
        reason: FailureReason,
        /// What Twilio named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<ProviderFault>,
        /// Since when.
        at: Timestamp,
    },
    /// No longer wanted.
    Cancelled {
        /// Since when.
        at: Timestamp,
    },
}

impl DeliveryState {
    /// The state's name, as in the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Due { .. } => "due",
            Self::Sending { .. } => "sending",
            Self::Unknown { .. } => "unknown",
            Self::Accepted { status, .. } => match status {
                MessageStatus::Sent => "sent",
                MessageStatus::Delivered => "delivered",
                MessageStatus::Read => "read",
                MessageStatus::Ringing => "ringing",
                MessageStatus::Answered => "answered",
                MessageStatus::Scheduled
                | MessageStatus::Accepted
                | MessageStatus::Queued
                | MessageStatus::Sending
                | MessageStatus::Undelivered
                | MessageStatus::Failed
                | MessageStatus::Canceled
                | MessageStatus::Initiated
                | MessageStatus::InProgress
                | MessageStatus::Busy
                | MessageStatus::NoAnswer
                | MessageStatus::Completed
                | MessageStatus::Machine => "accepted",
            },
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

/// One message to one contact method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number within the alert, from 1.
    pub no: DeliveryNo,
    /// The stage of the ladder that planned it; of a notice, the one that the case stood on last.
    pub stage: Stage,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Purpose::is_alert")]
    pub purpose: Purpose,
    /// The recipient.
    pub contact: ContactId,
    /// The recipient as the owner of a data key.
    pub person: PersonKey,
    /// Why they are told.
    pub role: ContactRole,
    /// Their language.
    pub language: Language,
    /// The channel.
    pub channel: Channel,
    /// The number, sealed under the recipient's data key.
    pub address: Sealed,
    /// The number's keyed hash.
    pub address_key: AddressKey,
    /// Why an emergency contact may be told: nobody else's message has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disclosure: Option<DisclosureGround>,
    /// The score that its text shows; `None` where a person raised the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// When the same person is told over the next channel, unless this message has arrived by then; `None` where there
    /// is no next channel, or it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall_over_at: Option<Timestamp>,
    /// The message whose next channel this one is, if it is nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<DeliveryNo>,
    /// Over which channels this person is told in turn, where these are not the stage's: they stand in for somebody, or
    /// are told on account of a rung that was vacant. Of a notice: over which it was tried in vain before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_turn: Vec<Channel>,
    /// Whether the pause that an error code asked for was already granted: it is granted once.
    #[serde(default)]
    pub paused_once: bool,
    /// The calls to the provider.
    pub attempts: Vec<Attempt>,
    /// Where it stands.
    pub state: DeliveryState,
}

/// What a change of a delivery came to: one word for the audit and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Twilio has it now.
    Accepted,
    /// It will be tried again at this time.
    Retry {
        /// When.
        at: Timestamp,
    },
    /// It was held back, and will be tried at this time.
    Deferred {
        /// When.
        at: Timestamp,
    },
    /// Nobody knows; Twilio will be asked at this time.
    Unknown {
        /// When.
        look_up_at: Timestamp,
    },
    /// It will not arrive.
    Failed {
        /// Why.
        reason: FailureReason,
        /// The class of the fault, where there was one.
        class: Option<ErrorClass>,
    },
    /// It is no longer wanted.
    Cancelled,
    /// It got further along its way.
    Progressed,
    /// Nothing that was not known.
    Unchanged,
}

impl Delivery {
    /// When this delivery must be looked at next, if ever.
    pub fn next_action_at(&self) -> Option<Timestamp> {
        self.state_due_at().into_iter().chain(self.fall_over_at).min()
    }

    /// When its state must be looked at next, whatever becomes of the next channel.
    pub fn state_due_at(&self) -> Option<Timestamp> {
        match &self.state {
            DeliveryState::Due { at } => Some(*at),
            DeliveryState::Sending { lease, .. } => Some(lease.until),
            DeliveryState::Unknown { next_look_up_at, .. } => Some(*next_look_up_at),
            DeliveryState::Accepted { poll_at, .. } => *poll_at,
            DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. } => None,
        }
    }

    /// Whether a send is still to come, or nobody knows whether it was.
    pub fn is_pending(&self) -> bool {
        match self.state {
            DeliveryState::Due { .. } | DeliveryState::Sending { .. } | DeliveryState::Unknown { .. } => true,
            DeliveryState::Accepted { .. } | DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. } => false,
        }
    }

    /// Whether it asks somebody to take the case, and a send of it is still to come or may have been.
    pub(super) fn is_pending_alert(&self) -> bool {
        self.purpose.is_alert() && self.is_pending()
    }

    /// Whether the recipient has the message, or will: Twilio has it, and has not said that it failed.
    pub fn is_out(&self) -> bool {
        self.has_reached_provider() && !matches!(self.state, DeliveryState::Failed { .. })
    }

    /// Whether the phone has it.
    pub fn has_arrived(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.status.is_some_and(MessageStatus::has_arrived))
    }

    /// When the phone had it first.
    pub fn arrived_at(&self) -> Option<Timestamp> {
        let arrived = self.attempts.iter().filter(|attempt| attempt.status.is_some_and(MessageStatus::has_arrived));
        // Older records know only when the last status came.
        arrived.filter_map(|attempt| attempt.arrived_at.or(attempt.status_at)).min()
    }

    /// Whether Twilio has it, or had it.
    pub fn has_reached_provider(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.provider_id.is_some())
    }

    /// Whether it waits for its turn, and Twilio was never asked for it.
    pub(super) fn is_untried(&self) -> bool {
        matches!(self.state, DeliveryState::Due { .. }) && self.calls() == 0
    }

    /// The attempt with this number.
    pub fn attempt(&self, no: AttemptNo) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.no == no)
    }

    fn attempt_mut(&mut self, no: AttemptNo) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.no == no)
    }

    /// A further stage wants the same phone told: this message is its as well, and the next channel has a turn again. What
    /// the `standing` stage has planned stays that stage's, whatever an earlier one still wants.
    pub(super) fn join_stage(&mut self, turn: &Turn<'_>, standing: Option<Stage>, fall_over_at: Option<Timestamp>) {
        if self.stage != turn.stage && Some(self.stage) != standing {
            (self.stage, self.in_turn) = (turn.stage, turn.in_turn.to_vec());
        }
        self.fall_over_at = self.fall_over_at.or(fall_over_at);
        // What a stage wants for itself is no mere next channel any more.
        self.follows = self.follows.and(turn.follows);
    }

    /// Takes the delivery in hand: a new attempt begins under `lease`.
    pub(super) fn claim(&mut self, now: Timestamp, lease: Lease, disclosed: Disclosed) -> AttemptNo {
        let no = AttemptNo(self.attempts.last().map_or(1, |last| last.no.0 + 1));
        self.attempts.push(Attempt {
            no,
            begun_at: now,
            disclosed,
            result: AttemptResult::Pending,
            provider_id: None,
            status: None,
            status_at: None,
            arrived_at: None,
            fault: None,
        });
        self.state = DeliveryState::Sending { attempt: no, lease };
        no
    }

    /// Books what came of an attempt's call. An attempt that is no longer in hand changes only its own record,
    /// unless it turns out that Twilio has the message after all.
    pub(super) fn settle(&mut self, no: AttemptNo, outcome: &SendOutcome, cx: &Change<'_>) -> Settled {
        if let SendOutcome::Accepted { provider_id, status } = outcome {
            let receipt = Receipt { provider_id: provider_id.clone(), status: *status, fault: None };
            return self.receive(no, &receipt, cx);
        }
        let Some(attempt) = self.attempt(no) else { return Settled::Unchanged };
        if attempt.provider_id.is_some() {
            // A callback was faster than the answer: the message exists, whatever the call says.
            return Settled::Unchanged;
        }
        if matches!(outcome, SendOutcome::NotBegun { .. }) && self.attempts.last().is_some_and(|last| last.no != no) {
            // Somebody has gone on from it: what was booked since stands, and no number is given twice.
            return Settled::Unchanged;
        }
        if matches!(outcome, SendOutcome::Unknown { .. }) && !self.holds(no) {
            // Somebody has found out meanwhile what came of it.
            return Settled::Unchanged;
        }
        let Some(attempt) = self.attempt_mut(no) else { return Settled::Unchanged };
        let fault = match outcome {
            SendOutcome::NotExecuted { fault, .. } => *fault,
            SendOutcome::Refused(fault) => Some(*fault),
            SendOutcome::Accepted { .. } | SendOutcome::NotBegun { .. } | SendOutcome::Unknown { .. } => None,
        };
        attempt.fault = fault.or(attempt.fault);
        attempt.result = match outcome {
            SendOutcome::NotExecuted { .. } => AttemptResult::NotExecuted,
            SendOutcome::NotBegun { .. } => AttemptResult::NotBegun,
            SendOutcome::Refused(_) => AttemptResult::Refused,
            SendOutcome::Unknown { cause, .. } => AttemptResult::Unknown(*cause),
            SendOutcome::Accepted { .. } => AttemptResult::Accepted,
        };
        // The audit keeps every attempt; of those that came to no call, the record needs only the last.
        if matches!(outcome, SendOutcome::NotBegun { .. }) {
            self.attempts.retain(|attempt| attempt.no == no || attempt.result != AttemptResult::NotBegun);
        }
        if !self.holds(no) {
            return Settled::Unchanged;
        }
        match outcome {
            SendOutcome::NotExecuted { retry_after, .. } => self.retry(cx, *retry_after, fault),
            SendOutcome::NotBegun { wait } => self.defer(cx, *wait),
            SendOutcome::Refused(fault) => self.refuse(*fault, cx),
            SendOutcome::Unknown { retry_after, .. } => {
                let pause = cx.rules.look_up_first.max(clamp(*retry_after, cx.rules));
                self.lose(no, cx.now, pause)
            }
            SendOutcome::Accepted { .. } => Settled::Unchanged,
        }
    }

    /// The lease ran out before the attempt was settled: nobody knows.
    pub(super) fn lose_lease(&mut self, now: Timestamp, cause: UnknownCause) -> Settled {
        let DeliveryState::Sending { attempt, .. } = self.state else { return Settled::Unchanged };
        if let Some(record) = self.attempt_mut(attempt) {
            record.result = AttemptResult::Unknown(cause);
        }
        // The call, if there was one, is a lease's time ago: Twilio can be asked at once.
        self.lose(attempt, now, Duration::ZERO)
    }

    fn lose(&mut self, attempt: AttemptNo, now: Timestamp, pause: Duration) -> Settled {
        let look_up_at = later(now, pause);
        self.state = DeliveryState::Unknown { attempt, since: now, look_ups: 0, next_look_up_at: look_up_at };
        Settled::Unknown { look_up_at }
    }

    /// Books that Twilio was asked for an unknown attempt in vain: it has no such message (`answered`), or could not be
    /// asked. After the last look-up the message is sent again: a second message is better than none. Look-ups are
    /// counted where they begin, so that one whose maker dies counts too.
    pub(super) fn look_up_failed(&mut self, no: AttemptNo, answered: bool, cx: &Change<'_>) -> Settled {
        let soon = answered && self.is_lost(no);
        let most = if soon { cx.rules.look_ups_max.min(LOST_LOOK_UPS_MAX) } else { cx.rules.look_ups_max };
        let pause = if soon { cx.rules.look_up_lost } else { cx.rules.look_up_then };
        let DeliveryState::Unknown { attempt, look_ups, next_look_up_at, .. } = &mut self.state else {
            return Settled::Unchanged;
        };
        if *attempt != no {
            return Settled::Unchanged;
        }
        if *look_ups < most {
            *next_look_up_at = later(cx.now, pause);
            return Settled::Unknown { look_up_at: *next_look_up_at };
        }
        if let Some(record) = self.attempt_mut(no) {
            record.result = if answered { AttemptResult::NotFound } else { AttemptResult::Unresolved };
        }
        self.again(cx.now, cx, None)
    }

    fn is_lost(&self, no: AttemptNo) -> bool {
        let result = self.attempt(no).map(|attempt| &attempt.result);
        matches!(result, Some(AttemptResult::Unknown(UnknownCause::OwnerDied)))
    }

    /// Merges what Twilio says of an attempt's message: by rank, forward only. Late, repeated and reordered
    /// receipts change nothing; one that comes before the call was answered settles the call.
    pub(super) fn receive(&mut self, no: AttemptNo, receipt: &Receipt, cx: &Change<'_>) -> Settled {
        let Some(attempt) = self.attempt_mut(no) else { return Settled::Unchanged };
        if attempt.provider_id.as_ref().is_some_and(|known| *known != receipt.provider_id) {
            // One attempt made one message. A second id is not of our making.
            return Settled::Unchanged;
        }
        if attempt.status.is_some_and(|known| known.rank() >= receipt.status.rank()) {
            return Settled::Unchanged;
        }
        let first = attempt.provider_id.is_none();
        attempt.provider_id = Some(receipt.provider_id.clone());
        attempt.status = Some(receipt.status);
        attempt.status_at = Some(cx.now);
        if receipt.status.has_arrived() {
            attempt.arrived_at = attempt.arrived_at.or(Some(cx.now));
        }
        attempt.fault = receipt.fault.or(attempt.fault);
        attempt.result = AttemptResult::Accepted;
        self.follow(no, receipt, first, cx)
    }

    /// Moves the delivery after a receipt that told something new.
    fn follow(&mut self, no: AttemptNo, receipt: &Receipt, first: bool, cx: &Change<'_>) -> Settled {
        let last = self.attempts.last().is_some_and(|attempt| attempt.no == no);
        let concerns = match &self.state {
            DeliveryState::Sending { attempt, .. }
            | DeliveryState::Unknown { attempt, .. }
            | DeliveryState::Accepted { attempt, .. } => *attempt == no || receipt.status.has_arrived(),
            DeliveryState::Due { .. } => last || !receipt.status.is_failure(),
            DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. } => receipt.status.has_arrived(),
        };
        if !concerns {
            return Settled::Progressed;
        }
        if receipt.status.is_failure() {
            return match receipt.fault {
                Some(fault) => self.refuse(fault, cx),
                None if !receipt.status.is_unreached() => {
                    self.refuse(ProviderFault { code: None, class: ErrorClass::Switch, delay_s: None }, cx)
                }
                None if self.rests_on_arrived() => Settled::Progressed,
                None => self.fail(FailureReason::NotReached, None, cx.now),
            };
        }
        if let DeliveryState::Sending { attempt, .. } = &self.state
            && *attempt != no
        {
            // An earlier message arrived while a later attempt is in hand: that one settles by itself.
            return Settled::Progressed;
        }
        if let DeliveryState::Accepted { attempt, status, .. } = &self.state
            && *attempt != no
            && status.rank() >= receipt.status.rank()
        {
            // Two messages are out, and the other one got further.
            return Settled::Progressed;
        }
        let (polls, poll_at) = match &self.state {
            DeliveryState::Accepted { polls, poll_at, .. } => (*polls, *poll_at),
            DeliveryState::Due { .. }
            | DeliveryState::Sending { .. }
            | DeliveryState::Unknown { .. }
            | DeliveryState::Failed { .. }
            | DeliveryState::Cancelled { .. } => (0, Some(later(cx.now, cx.rules.receipt_poll_first))),
        };
        let poll_at = poll_at.filter(|_| !receipt.status.has_arrived());
        self.state = DeliveryState::Accepted { attempt: no, status: receipt.status, polls, poll_at };
        if first { Settled::Accepted } else { Settled::Progressed }
    }

    /// A poll for a receipt is under way: the next one is due later, and later each time.
    pub(super) fn polled(&mut self, now: Timestamp, rules: &DeliveryRules) {
        if let DeliveryState::Accepted { polls, poll_at, .. } = &mut self.state {
            *polls += 1;
            let pause = rules.receipt_poll_first.saturating_mul(1 << (*polls).min(16)).min(rules.receipt_poll_max);
            *poll_at = (*polls < rules.receipt_polls_max).then(|| later(now, pause));
        }
    }

    /// A look-up is under way: if whoever makes it dies, the next one is due then.
    pub(super) fn looking_up(&mut self, again_at: Timestamp) {
        if let DeliveryState::Unknown { look_ups, next_look_up_at, .. } = &mut self.state {
            *look_ups = look_ups.saturating_add(1);
            *next_look_up_at = again_at;
        }
    }

    /// What is due waits until then: nothing is known to stand against it but its time.
    pub(super) fn put_off(&mut self, until: Timestamp) {
        if let DeliveryState::Due { at } = &mut self.state {
            *at = until;
        }
    }

    /// Twilio is to be asked at `latest`, if it is to be asked at all. Says whether that is sooner than planned.
    pub(super) fn look_up_by(&mut self, latest: Timestamp) -> bool {
        match &mut self.state {
            DeliveryState::Unknown { next_look_up_at, .. } if *next_look_up_at > latest => {
                *next_look_up_at = latest;
                true
            }
            DeliveryState::Due { .. }
            | DeliveryState::Sending { .. }
            | DeliveryState::Unknown { .. }
            | DeliveryState::Accepted { .. }
            | DeliveryState::Failed { .. }
            | DeliveryState::Cancelled { .. } => false,
        }
    }

    /// If the clock was set back, a time may lie further ahead than the rules put any, and the delivery would wait for
    /// the clock to catch up. Such a time becomes the latest that could be set now. Returns whether there was one.
    pub(super) fn pull_in(&mut self, now: Timestamp, lease: &Lease, rules: &DeliveryRules) -> bool {
        let term = Duration::try_from(lease.until.duration_since(now)).unwrap_or(Duration::ZERO);
        let (at, longest) = match &mut self.state {
            DeliveryState::Due { at } => (at, rules.pause_longest()),
            // Twice the term: the clocks of two instances may differ a little.
            DeliveryState::Sending { lease, .. } => (&mut lease.until, term.saturating_mul(2)),
            DeliveryState::Unknown { next_look_up_at, .. } => (next_look_up_at, rules.question_longest().max(term)),
            DeliveryState::Accepted { poll_at: Some(at), .. } => {
                (at, rules.receipt_poll_first.max(rules.receipt_poll_max))
            }
            DeliveryState::Accepted { poll_at: None, .. }
            | DeliveryState::Failed { .. }
            | DeliveryState::Cancelled { .. } => return false,
        };
        nearer(at, later(now, longest))
    }

    /// No longer wanted. What is already in hand or with Twilio cannot be called back.
    pub(super) fn cancel(&mut self, now: Timestamp) -> bool {
        let due = matches!(self.state, DeliveryState::Due { .. });
        if due {
            self.state = DeliveryState::Cancelled { at: now };
        }
        due
    }

    pub(super) fn fail(&mut self, reason: FailureReason, fault: Option<ProviderFault>, now: Timestamp) -> Settled {
        self.state = DeliveryState::Failed { reason, fault, at: now };
        Settled::Failed { reason, class: fault.map(|fault| fault.class) }
    }

    fn holds(&self, no: AttemptNo) -> bool {
        match &self.state {
            DeliveryState::Sending { attempt, .. } | DeliveryState::Unknown { attempt, .. } => *attempt == no,
            DeliveryState::Due { .. }
            | DeliveryState::Accepted { .. }
            | DeliveryState::Failed { .. }
            | DeliveryState::Cancelled { .. } => false,
        }
    }

    /// An earlier attempt's message may have arrived while a later one was in hand. Then the phone has it.
    fn rests_on_arrived(&mut self) -> bool {
        let arrived = self.attempts.iter().find_map(|attempt| {
            let status = attempt.status.filter(|status| status.has_arrived())?;
            Some(DeliveryState::Accepted { attempt: attempt.no, status, polls: 0, poll_at: None })
        });
        let rests = arrived.is_some();
        self.state = arrived.unwrap_or_else(|| self.state.clone());
        rests
    }

    /// Does what the fault's class asks for. The one place that decides it.
    fn refuse(&mut self, fault: ProviderFault, cx: &Change<'_>) -> Settled {
        if self.rests_on_arrived() {
            return Settled::Progressed;
        }
        match fault.class {
            ErrorClass::Retry => self.retry(cx, None, Some(fault)),
            ErrorClass::Delay if !self.paused_once => {
                self.paused_once = true;
                let (shortest, longest) = fault.delay_s.unwrap_or((30, 300));
                let pause = f64::from(shortest) + f64::from(longest.saturating_sub(shortest)) * cx.jitter;
                // A crisis does not wait for hours, whatever the carrier would like.
                let pause = Duration::from_secs_f64(pause).min(cx.rules.give_up_after);
                self.again(later(cx.now, pause), cx, Some(fault))
            }
            ErrorClass::Delay
            | ErrorClass::Ambiguous
            | ErrorClass::Switch
            | ErrorClass::OptOut
            | ErrorClass::Template
            | ErrorClass::Config => self.fail(FailureReason::Refused, Some(fault), cx.now),
        }
    }

    /// Tries again after full jitter, or after what Twilio asked for, within bounds.
    fn retry(&mut self, cx: &Change<'_>, retry_after: Option<Duration>, fault: Option<ProviderFault>) -> Settled {
        let made = u32::try_from(self.calls()).unwrap_or(u32::MAX);
        let limit = cx.rules.backoff_base.saturating_mul(1 << made.saturating_sub(1).min(16)).min(cx.rules.backoff_max);
        let pause = limit.mul_f64(cx.jitter).max(clamp(retry_after, cx.rules));
        self.again(later(cx.now, pause), cx, fault)
    }

    /// Back to `Due` without a call: neither attempts nor time are used up, for the provider was never asked. Waiting
    /// deliveries are spread a little, so that they do not all come back at one instant.
    fn defer(&mut self, cx: &Change<'_>, wait: Duration) -> Settled {
        if self.rests_on_arrived() {
            return Settled::Progressed;
        }
        if !cx.still_wanted {
            self.state = DeliveryState::Cancelled { at: cx.now };
            return Settled::Cancelled;
        }
        let spread = (wait / 4).min(Duration::from_secs(1)).mul_f64(cx.jitter);
        let at = later(cx.now, wait.saturating_add(spread).min(cx.rules.backoff_max));
        self.state = DeliveryState::Due { at };
        Settled::Deferred { at }
    }

    /// How many calls were made, or may have been.
    fn calls(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.result != AttemptResult::NotBegun).count()
    }

    /// Back to `Due`, if attempts and time are left and it is still wanted.
    fn again(&mut self, at: Timestamp, cx: &Change<'_>, fault: Option<ProviderFault>) -> Settled {
        if self.rests_on_arrived() {
            return Settled::Progressed;
        }
        if !cx.still_wanted {
            self.state = DeliveryState::Cancelled { at: cx.now };
            return Settled::Cancelled;
        }
        let attempts_used = self.calls() >= cx.rules.attempts_max as usize;
        let time_used = cx.now > later(self.planned_at, cx.rules.give_up_after);
        if attempts_used || time_used {
            return self.fail(FailureReason::Exhausted, fault, cx.now);
        }
        self.state = DeliveryState::Due { at };
        Settled::Retry { at }
    }
}

/// Why a person is told, and over what.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    /// The stage that wants it.
    pub(super) stage: Stage,
    /// Over the first of these that reaches them.
    pub(super) channels: &'a [Channel],
    /// See [`Delivery::in_turn`].
    pub(super) in_turn: &'a [Channel],
    /// See [`Delivery::follows`].
    pub(super) follows: Option<DeliveryNo>,
}

/// What a change of a delivery depends on besides the delivery.
pub(super) struct Change<'a> {
    pub(super) now: Timestamp,
    /// In `0.0..1.0`.
    pub(super) jitter: f64,
    pub(super) rules: &'a DeliveryRules,
    /// Whether the alert still wants somebody to be told.
    pub(super) still_wanted: bool,
}

/// `at` plus `by`, bounded by the end of time.
pub(in crate::domain) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Brings `at` forward to `latest`, if it is later. Returns whether it was.
pub(super) fn nearer(at: &mut Timestamp, latest: Timestamp) -> bool {
    let too_far = *at > latest;
    if too_far {
        *at = latest;
    }
    too_far
}

fn clamp(retry_after: Option<Duration>, rules: &DeliveryRules) -> Duration {
    retry_after.unwrap_or(Duration::ZERO).min(rules.retry_after_max)
}
