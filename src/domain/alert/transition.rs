//! The alert's changes. Each takes the alert by value and gives back what it has become, with what to commit and do.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    AckVia, Action, Alarm, Alert, AlertState, Decision, Deed, DeliveryDeed, Facts, Kind, Outcome, Situation,
    Transition, WithheldReason,
};
use crate::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream};
use crate::domain::consent::Ground;
use crate::domain::delivery::{
    Attempt, Change, Delivery, DeliveryState, Disclosed, FailureReason, Settled, later, nearer,
};
use crate::domain::event::{Score, Trigger};
use crate::domain::ids::{
    AlertId, AttemptNo, AttemptRef, DeliveryNo, OrganisationId, ProviderId, Reference, SubjectKey,
};
use crate::domain::message::Composed;
use crate::domain::policy::{Policy, Stage, Target};
use crate::domain::provider::{ErrorClass, Receipt, SendOutcome, UnknownCause};
use crate::domain::sealed::Sealed;

/// How many deliveries an alert carries at the most; the oldest settled ones make room (the audit keeps all).
const DELIVERIES_KEPT: usize = 32;

/// A new case.
#[derive(Debug, Clone)]
pub struct NewAlert {
    /// Its id.
    pub id: AlertId,
    /// Its code.
    pub reference: Reference,
    /// The college.
    pub organisation: OrganisationId,
    /// The student.
    pub subject: SubjectKey,
    /// Live or drill.
    pub kind: Kind,
    /// The student's user id, sealed.
    pub identity: Sealed,
    /// The event that opens it.
    pub trigger: Trigger,
    /// Why sending is allowed, if it is.
    pub ground: Option<Ground>,
    /// The ladder.
    pub policy: Arc<Policy>,
}

/// What happens to an alert.
#[derive(Debug, Clone)]
pub enum Input {
    /// A further event of the same student.
    Joined {
        /// The event.
        trigger: Trigger,
        /// The ground that holds now, if there is one.
        ground: Option<Ground>,
    },
    /// The student's word was read again, and allows this now.
    ConsentJudged {
        /// The ground that consent alone gives now.
        ground: Option<Ground>,
    },
    /// A person overrides a withheld alert.
    Overridden {
        /// Their decision.
        ground: Ground,
    },
    /// Time has passed. With a lease in the situation, due deliveries are claimed.
    Wake {
        /// Leases of other owners count as expired: the store belongs to this instance alone, and it has just started.
        sole_owner_restarted: bool,
    },
    /// The provider answered a call, or did not.
    Settled {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// What came of it.
        outcome: SendOutcome,
    },
    /// Twilio was asked for an unknown attempt, and has no such message (or could not be asked).
    NotFound {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// Whether it answered.
        answered: bool,
    },
    /// A look-up found a message that may be an unknown attempt's. Unlike a callback, which names its attempt, a look-up
    /// can only guess: a message that has turned out to be another attempt's meanwhile is not taken for this one's.
    Found {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// What Twilio says of the message.
        receipt: Receipt,
    },
    /// Twilio told how far a message got: by callback, look-up or poll.
    Received {
        /// The delivery.
        delivery: DeliveryNo,
        /// The attempt.
        attempt: AttemptNo,
        /// What it told.
        receipt: Receipt,
    },
    /// A human takes the case.
    Acknowledge {
        /// How.
        via: AckVia,
    },
    /// A human closes the case.
    Resolve {
        /// How it ended.
        outcome: Outcome,
        /// What they noted, sealed.
        note: Option<Sealed>,
    },
}

/// Why an input does not fit an alert's state. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is closed.
    #[error("the alert is resolved")]
    AlreadyResolved,
    /// Somebody has taken it already.
    #[error("the alert is already acknowledged")]
    AlreadyAcknowledged,
    /// Nobody was told yet, so there is nothing to take.
    #[error("the alert is withheld: escalate it with an override, or resolve it")]
    IsWithheld,
    /// Only a withheld alert can be overridden.
    #[error("the alert is not withheld")]
    NotWithheld,
    /// There is no such delivery or attempt.
    #[error("the alert has no such delivery")]
    NoSuchDelivery,
    /// A live alert cannot end as a drill, nor a drill as anything else.
    #[error("a drill ends as a drill, and nothing else does")]
    WrongOutcome,
}

impl Alert {
    /// Opens a case: escalating if there is a ground, else withheld.
    pub fn open(new: NewAlert, cx: &Situation<'_>) -> Transition {
        let severity = new.trigger.severity();
        let decision = if new.ground.is_some() { Decision::Escalated } else { Decision::WithheldNoConsent };
        let why = WithheldReason::NoConsent;
        let alert = Self {
            id: new.id,
            reference: new.reference,
            organisation: new.organisation,
            subject: new.subject,
            kind: new.kind,
            version: 0,
            opened_at: cx.now,
            updated_at: cx.now,
            identity: new.identity,
            severity,
            paged_severity: None,
            trigger: new.trigger,
            events: 1,
            ground: None,
            policy: new.policy,
            state: AlertState::Withheld { why, since: cx.now },
            deliveries: Vec::new(),
            deliveries_planned: 0,
            audit_head: AuditHead::EMPTY,
        };
        let mut change = Changing::begin(alert, None, cx);
        change.record_opened(decision);
        change.out.decision = Some(decision);
        match new.ground {
            Some(ground) => {
                change.set_ground(ground);
                change.enter(Stage::FIRST);
            }
            None => change.record(&Deed::Withheld { why }),
        }
        change.claim_due();
        change.finish()
    }

    /// Changes a case. A pure function: the same alert, input and situation give the same transition.
    pub fn on(self, input: Input, cx: &Situation<'_>) -> Result<Transition, Rejection> {
        let version = self.version;
        let mut change = Changing::begin(self, Some(version), cx);
        match input {
            Input::Joined { trigger, ground } => change.join(trigger, ground)?,
            Input::ConsentJudged { ground } => change.judge(ground.as_ref()),
            Input::Overridden { ground } => change.override_with(ground)?,
            Input::Wake { sole_owner_restarted } => change.wake(sole_owner_restarted),
            Input::Settled { delivery, attempt, outcome } => change.settle(delivery, attempt, &outcome)?,
            Input::NotFound { delivery, attempt, answered } => change.not_found(delivery, attempt, answered)?,
            Input::Found { delivery, attempt, receipt } => change.find(delivery, attempt, &receipt)?,
            Input::Received { delivery, attempt, receipt } => change.receive(delivery, attempt, &receipt)?,
            Input::Acknowledge { via } => change.acknowledge(via)?,
            Input::Resolve { outcome, note } => change.resolve(outcome, note.as_ref())?,
        }
        change.claim_due();
        Ok(change.finish())
    }

    /// The names that a callback URL of this attempt carries.
    pub fn attempt_ref(&self, delivery: DeliveryNo, attempt: AttemptNo) -> AttemptRef {
        AttemptRef { alert: self.id, delivery, attempt }
    }
}

/// What a change gives besides the alert; see [`Transition`].
#[derive(Default)]
struct Output {
    audit: Vec<AuditEntry>,
    actions: Vec<Action>,
    alarms: Vec<Alarm>,
    provider_ids: Vec<ProviderId>,
    settled: Vec<(DeliveryNo, Settled)>,
    decision: Option<Decision>,
    paged: bool,
}

/// An alert in the middle of a change.
struct Changing<'a, 'b> {
    alert: Alert,
    from_version: Option<u64>,
    out: Output,
    changed: bool,
    /// A delivery failed in this change: look whether the whole stage has.
    something_failed: bool,
    cx: &'a Situation<'b>,
}

impl<'a, 'b> Changing<'a, 'b> {
    fn begin(alert: Alert, from_version: Option<u64>, cx: &'a Situation<'b>) -> Self {
        let changed = from_version.is_none();
        Self { alert, from_version, out: Output::default(), changed, something_failed: false, cx }
    }

    fn finish(mut self) -> Transition {
        if self.something_failed {
            self.hurry_if_all_failed();
        }
        self.drop_oldest();
        if self.changed {
            self.alert.version += 1;
            self.alert.updated_at = self.cx.now;
        }
        let Output { audit, actions, alarms, provider_ids, settled, decision, paged } = self.out;
        let (alert, from_version) = (self.alert, self.from_version);
        Transition { alert, from_version, audit, actions, alarms, provider_ids, settled, decision, paged }
    }

    fn record(&mut self, deed: &Deed<'_>) {
        self.record_as(self.cx.actor, deed);
    }

    fn record_as(&mut self, actor: &Actor, deed: &Deed<'_>) {
        let stream = AuditStream::Alert(self.alert.id);
        self.out.audit.push(self.alert.audit_head.append(stream, self.cx.now, actor, deed));
        self.changed = true;
    }

    fn record_opened(&mut self, decision: Decision) {
        let policy = Arc::clone(&self.alert.policy);
        let trigger = self.alert.trigger.clone();
        self.record(&Deed::Opened {
            reference: self.alert.reference,
            subject: self.alert.subject,
            kind: self.alert.kind,
            trigger: &trigger,
            decision,
            policy: &policy.id,
            policy_version: policy.version,
        });
    }

    fn record_delivery(&mut self, delivery: DeliveryNo, what: DeliveryDeed<'_>) {
        self.record_as(&self.cx.actor.clone(), &Deed::Delivery { delivery, what });
    }

    fn set_ground(&mut self, ground: Ground) {
        self.record(&Deed::GroundRecorded { ground: &ground });
        self.alert.ground = Some(ground);
    }

    fn still_wanted(&self) -> bool {
        matches!(self.alert.state, AlertState::Escalating { .. })
    }

    // -- events --------------------------------------------------------------------------------------------------

    fn join(&mut self, trigger: Trigger, ground: Option<Ground>) -> Result<(), Rejection> {
        if !self.alert.is_open() {
            return Err(Rejection::AlreadyResolved);
        }
        self.judge(ground.as_ref());
        let severity = trigger.severity();
        let by_hand = trigger.score.is_none();
        let permitted = self.alert.ground.is_some() || ground.is_some();
        let was_withheld = matches!(self.alert.state, AlertState::Withheld { .. });
        let released = was_withheld && ground.is_some();
        let page = released || (!was_withheld && permitted && (by_hand || self.rises(severity)));
        let decision = match (was_withheld, released) {
            (true, true) => Decision::Escalated,
            (true, false) => Decision::WithheldNoConsent,
            (false, _) => Decision::Merged,
        };
        self.alert.severity = self.alert.severity.max(severity);
        self.alert.events = self.alert.events.saturating_add(1);
        self.record(&Deed::EventJoined { trigger: &trigger, severity: self.alert.severity, decision, paged: page });
        self.alert.trigger = trigger;
        self.out.decision = Some(decision);
        self.out.paged = page;
        if let Some(ground) = ground
            && self.widens(&ground)
        {
            self.set_ground(ground);
        }
        if page {
            self.page_again(was_withheld);
        }
        Ok(())
    }

    /// Holds a ground of consent against what the student says now. A word that was taken back is no ground for
    /// anything further; an override does not rest on it.
    fn judge(&mut self, now: Option<&Ground>) {
        let Some(Ground::Consent { channels, .. }) = &self.alert.ground else { return };
        if !self.alert.is_open() {
            return;
        }
        let still = |channel: &super::Channel| now.is_some_and(|ground| ground.allows(*channel));
        match now {
            Some(Ground::Consent { .. }) if channels.iter().all(still) => {}
            // What is planned and no longer covered is cancelled when its time comes to be claimed.
            Some(other) => self.set_ground(other.clone()),
            None => {
                self.record(&Deed::ConsentWithdrawn);
                self.alert.ground = None;
                self.out.alarms.push(Alarm::ConsentWithdrawn);
                if matches!(self.alert.state, AlertState::Escalating { .. }) {
                    self.withhold();
                }
            }
        }
    }

    fn withhold(&mut self) {
        let why = WithheldReason::ConsentWithdrawn;
        self.record(&Deed::Withheld { why });
        self.alert.state = AlertState::Withheld { why, since: self.cx.now };
        self.cancel_outstanding();
    }

    /// Whether `severity` is enough above what people were told of.
    fn rises(&self, severity: Score) -> bool {
        // The small addend keeps 0.8 + 0.1 from being more than 0.9.
        self.alert.paged_severity.is_none_or(|told| severity.value() - told.value() + 1e-9 >= self.cx.rules.repage_rise)
    }

    /// A ground replaces the one that stands only if it allows a channel that the other does not.
    fn widens(&self, ground: &Ground) -> bool {
        match &self.alert.ground {
            None => true,
            Some(standing) => {
                self.alert.policy.channels().iter().any(|channel| ground.allows(*channel) && !standing.allows(*channel))
            }
        }
    }

    fn page_again(&mut self, from_withheld: bool) {
        match &self.alert.state {
            AlertState::Escalating { stage, .. } if !from_withheld => self.enter(*stage),
            AlertState::Acknowledged { .. } => {
                self.record(&Deed::Reopened);
                self.enter(Stage::FIRST);
            }
            AlertState::Escalating { .. } | AlertState::Withheld { .. } | AlertState::Resolved { .. } => {
                self.enter(Stage::FIRST);
            }
        }
    }

    fn override_with(&mut self, ground: Ground) -> Result<(), Rejection> {
        match self.alert.state {
            AlertState::Withheld { .. } => {}
            AlertState::Resolved { .. } => return Err(Rejection::AlreadyResolved),
            AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => return Err(Rejection::NotWithheld),
        }
        self.set_ground(ground);
        self.enter(Stage::FIRST);
        self.out.decision = Some(Decision::Escalated);
        Ok(())
    }

    // -- the ladder ----------------------------------------------------------------------------------------------

    /// Begins a stage: plans a message to everybody it names.
    fn enter(&mut self, stage: Stage) {
        let policy = Arc::clone(&self.alert.policy);
        let now = self.cx.now;
        let mut next_step_at = later(now, stage.patience(&policy));
        if let AlertState::Escalating { stage: standing, next_step_at: planned } = self.alert.state
            && standing == stage
        {
            // Told again because of a graver event. However often that happens, the next stage is not put off.
            next_step_at = next_step_at.min(planned);
        }
        self.alert.state = AlertState::Escalating { stage, next_step_at };
        let (targets, channels) = stage.targets(&policy);
        let told = targets.iter().filter(|target| self.plan(stage, target, channels)).count();
        self.alert.paged_severity = self.alert.paged_severity.max(Some(self.alert.severity));
        let deliveries = u32::try_from(told).unwrap_or(u32::MAX);
        self.record(&Deed::StageBegun { stage, next_step_at, deliveries });
        if told == 0 && !self.anybody_pending() {
            self.out.alarms.push(Alarm::NobodyToTell);
            self.something_failed = true;
        }
        if matches!(stage, Stage::LastResponder { .. }) {
            self.out.alarms.push(Alarm::LadderExhausted);
        }
    }

    fn anybody_pending(&self) -> bool {
        self.alert.deliveries.iter().any(Delivery::is_pending)
    }

    /// Plans one message, unless one to the same number is still on its way out: that one takes the newer score.
    fn plan(&mut self, stage: Stage, target: &Target, channels: &[super::Channel]) -> bool {
        let Target::Contact(id) = target;
        // An alert keeps its ladder. If a person on it is no longer set up, somebody who is shall be told instead.
        let Some(contact) = self.cx.directory.contact(id).or(self.cx.directory.anybody()) else { return false };
        let allowed = |channel| self.alert.ground.as_ref().is_some_and(|ground| ground.allows(channel));
        let Some(method) = channels
            .iter()
            .filter(|channel| allowed(**channel))
            .find_map(|channel| contact.methods.iter().find(|method| method.channel == *channel))
        else {
            return false;
        };
        let score = self.alert.trigger.score.map(|_| self.alert.severity);
        let to_same_phone = |delivery: &Delivery| {
            delivery.address_key == method.address_key && delivery.channel == method.channel && delivery.is_pending()
        };
        let mut waiting = self.alert.deliveries.iter_mut().filter(|delivery| to_same_phone(delivery));
        if let Some(waiting) = waiting.find(|delivery| matches!(delivery.state, DeliveryState::Due { .. })) {
            waiting.score = score;
            return true;
        }
        // In hand or unknown: that message shows the older score. A new one is planned only for news.
        let gravity = |score: Option<Score>| score.unwrap_or(Score::HIGHEST);
        let mut in_hand = self.alert.deliveries.iter().filter(|delivery| to_same_phone(delivery));
        if in_hand.any(|delivery| gravity(delivery.score) >= gravity(score)) {
            return true;
        }
        self.alert.deliveries_planned += 1;
        self.alert.deliveries.push(Delivery {
            no: DeliveryNo(self.alert.deliveries_planned),
            stage,
            contact: contact.id.clone(),
            person: contact.person,
            role: contact.role,
            language: contact.language.clone(),
            channel: method.channel,
            address: method.address.clone(),
            address_key: method.address_key,
            score,
            planned_at: self.cx.now,
            paused_once: false,
            attempts: Vec::new(),
            state: DeliveryState::Due { at: self.cx.now },
        });
        true
    }

    /// If nothing of the ladder is under way or with Twilio any more, waiting for the next stage helps nobody.
    fn hurry_if_all_failed(&mut self) {
        let AlertState::Escalating { stage, next_step_at } = self.alert.state else { return };
        let deliveries = &self.alert.deliveries;
        // The bottom of the ladder may have been climbed before: what somebody was told last counts.
        let is_last = |delivery: &Delivery| {
            let after = |later: &&Delivery| later.no > delivery.no && later.stage == stage;
            !deliveries.iter().filter(after).any(|later| later.contact == delivery.contact)
        };
        let mut counting = deliveries
            .iter()
            .filter(|delivery| delivery.is_pending() || (delivery.stage == stage && is_last(delivery)));
        let hopeless = counting
            .all(|delivery| matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. }));
        let soon = later(self.cx.now, self.cx.rules.retry_when_all_failed);
        if hopeless && soon < next_step_at {
            self.alert.state = AlertState::Escalating { stage, next_step_at: soon };
            self.changed = true;
        }
    }

    fn drop_oldest(&mut self) {
        while self.alert.deliveries.len() > DELIVERIES_KEPT {
            let deliveries = &self.alert.deliveries;
            let settled = deliveries.iter().position(|delivery| delivery.next_action_at().is_none());
            // Where there is none, one of which only a receipt is missing.
            let oldest = settled.or_else(|| deliveries.iter().position(|delivery| !delivery.is_pending()));
            let Some(oldest) = oldest else { break };
            self.alert.deliveries.remove(oldest);
            self.changed = true;
        }
    }

    // -- time ----------------------------------------------------------------------------------------------------

    fn wake(&mut self, sole_owner_restarted: bool) {
        self.pull_in();
        self.expire_leases(sole_owner_restarted);
        if sole_owner_restarted {
            self.hasten_look_ups();
        }
        match self.alert.state {
            AlertState::Escalating { stage, next_step_at } if next_step_at <= self.cx.now => {
                let next = stage.next(&self.alert.policy);
                self.enter(next);
            }
            AlertState::Acknowledged { action_due_at, .. } if action_due_at <= self.cx.now => {
                self.record(&Deed::Reopened);
                self.out.alarms.push(Alarm::Reopened);
                // Without a ground nobody may be told again: people who may decide otherwise see it as withheld.
                if self.alert.ground.is_some() { self.enter(Stage::FIRST) } else { self.withhold() }
            }
            AlertState::Escalating { .. }
            | AlertState::Acknowledged { .. }
            | AlertState::Withheld { .. }
            | AlertState::Resolved { .. } => {}
        }
        self.ask_provider();
    }

    /// Where the clock was set back, nothing waits until it has caught up: see [`Delivery::pull_in`].
    fn pull_in(&mut self) {
        let (now, policy) = (self.cx.now, &self.alert.policy);
        self.changed |= match &mut self.alert.state {
            AlertState::Escalating { stage, next_step_at } => nearer(next_step_at, later(now, stage.patience(policy))),
            AlertState::Acknowledged { action_due_at, .. } => nearer(action_due_at, later(now, policy.act_within)),
            AlertState::Withheld { .. } | AlertState::Resolved { .. } => false,
        };
        let Some(lease) = self.cx.lease else { return };
        for delivery in &mut self.alert.deliveries {
            self.changed |= delivery.pull_in(now, lease, &self.cx.rules.delivery);
        }
    }

    fn expire_leases(&mut self, sole_owner_restarted: bool) {
        let now = self.cx.now;
        let ours = self.cx.lease.map(|lease| lease.owner.as_str());
        let expired: Vec<usize> = self
            .alert
            .deliveries
            .iter()
            .enumerate()
            .filter(|(_, delivery)| match &delivery.state {
                DeliveryState::Sending { lease, .. } => {
                    lease.until <= now || (sole_owner_restarted && ours.is_some_and(|ours| ours != lease.owner))
                }
                DeliveryState::Due { .. }
                | DeliveryState::Unknown { .. }
                | DeliveryState::Accepted { .. }
                | DeliveryState::Failed { .. }
                | DeliveryState::Cancelled { .. } => false,
            })
            .map(|(place, _)| place)
            .collect();
        for place in expired {
            let delivery = &mut self.alert.deliveries[place];
            let (no, attempt) = (delivery.no, current_attempt(delivery));
            let DeliveryState::Sending { lease, .. } = &delivery.state else { continue };
            let died = sole_owner_restarted && ours.is_some_and(|ours| ours != lease.owner);
            let cause = if died { UnknownCause::OwnerDied } else { UnknownCause::LeaseExpired };
            let settled = delivery.lose_lease(now, cause);
            self.note(no, attempt, settled);
        }
    }

    /// A look-up that the process before had in hand died with it: it is made again soon, not only when it would have
    /// been given up.
    fn hasten_look_ups(&mut self) {
        let latest = later(self.cx.now, self.cx.rules.delivery.look_up_first);
        for delivery in &mut self.alert.deliveries {
            self.changed |= delivery.look_up_by(latest);
        }
    }

    /// Look-ups and polls that are due. Each is booked before it is made, so that two instances do not make it twice,
    /// and so that it is made again if this instance dies on the way.
    fn ask_provider(&mut self) {
        let Some(lease) = self.cx.lease else { return };
        let now = self.cx.now;
        let rules = &self.cx.rules.delivery;
        let change = self.delivery_change();
        for place in 0..self.alert.deliveries.len() {
            let delivery = &mut self.alert.deliveries[place];
            if delivery.next_action_at().is_none_or(|at| at > now) {
                continue;
            }
            match delivery.state {
                DeliveryState::Unknown { attempt, look_ups, .. } if look_ups >= rules.look_ups_max => {
                    // Whoever asked last never told what came of it.
                    let (no, settled) = (delivery.no, delivery.look_up_failed(attempt, false, &change));
                    self.note(no, attempt, settled);
                }
                DeliveryState::Unknown { attempt, .. } => {
                    delivery.looking_up(lease.until);
                    self.out.actions.push(Action::LookUp { delivery: delivery.no, attempt });
                    self.changed = true;
                }
                DeliveryState::Accepted { attempt, .. } => {
                    delivery.polled(now, rules);
                    if let Some(provider_id) = delivery.attempt(attempt).and_then(|attempt| attempt.provider_id.clone())
                    {
                        self.out.actions.push(Action::Poll { delivery: delivery.no, attempt, provider_id });
                    }
                    self.changed = true;
                }
                DeliveryState::Due { .. }
                | DeliveryState::Sending { .. }
                | DeliveryState::Failed { .. }
                | DeliveryState::Cancelled { .. } => {}
            }
        }
    }

    /// Takes what is due in hand, under the situation's lease.
    fn claim_due(&mut self) {
        let Some(lease) = self.cx.lease else { return };
        if !self.still_wanted() {
            return;
        }
        for place in 0..self.alert.deliveries.len() {
            let delivery = &self.alert.deliveries[place];
            let DeliveryState::Due { at } = delivery.state else { continue };
            if at > self.cx.now {
                continue;
            }
            let Some(ground) = self.alert.ground.as_ref().filter(|ground| ground.allows(delivery.channel)) else {
                // Planned on a ground that another has replaced since. It must not be sent, nor wait for ever.
                let (no, attempt) = (delivery.no, current_attempt(delivery));
                self.alert.deliveries[place].cancel(self.cx.now);
                self.something_failed = true;
                self.note(no, attempt, Settled::Cancelled);
                continue;
            };
            let ground = ground.kind();
            match self.cx.composer.compose(&self.facts(delivery)) {
                Some(message) => self.claim(place, lease.clone(), ground, message),
                None => {
                    let no = delivery.no;
                    let settled = self.alert.deliveries[place].fail(FailureReason::NotComposable, None, self.cx.now);
                    self.out.alarms.push(Alarm::NotComposable);
                    self.note(no, AttemptNo(0), settled);
                }
            }
        }
    }

    fn facts<'d>(&self, delivery: &'d Delivery) -> Facts<'d> {
        Facts {
            reference: self.alert.reference,
            score: delivery.score,
            severity: delivery.score.unwrap_or(Score::HIGHEST),
            at: self.alert.trigger.received_at,
            respond_by: later(delivery.planned_at, self.alert.policy.respond_within),
            drill: matches!(self.alert.kind, Kind::Drill),
            channel: delivery.channel,
            language: &delivery.language,
        }
    }

    fn claim(&mut self, place: usize, lease: crate::domain::delivery::Lease, ground: &'static str, message: Composed) {
        let disclosed = Disclosed {
            template: message.template.clone(),
            template_version: message.version,
            language: message.language.clone(),
            text_sha256: message.text_sha256.clone(),
        };
        let delivery = &mut self.alert.deliveries[place];
        let holder = lease.owner.clone();
        let attempt = delivery.claim(self.cx.now, lease, disclosed.clone());
        let (no, contact) = (delivery.no, delivery.contact.clone());
        let (role, channel, address) = (delivery.role, delivery.channel, delivery.address_key);
        let what = DeliveryDeed::AttemptBegun {
            attempt,
            contact: &contact,
            role,
            channel,
            address,
            ground,
            holder: &holder,
            disclosed: &disclosed,
        };
        // Whoever set the alert going, it is the service that sends.
        self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
        self.out.actions.push(Action::Send { delivery: no, attempt, message });
    }

    // -- the provider --------------------------------------------------------------------------------------------

    fn delivery_change(&self) -> Change<'a> {
        Change {
            now: self.cx.now,
            jitter: self.cx.jitter,
            rules: &self.cx.rules.delivery,
            still_wanted: self.still_wanted(),
        }
    }

    fn delivery_mut(&mut self, no: DeliveryNo) -> Result<(&mut Delivery, Change<'a>), Rejection> {
        let change = self.delivery_change();
        let delivery = self.alert.deliveries.iter_mut().find(|delivery| delivery.no == no);
        delivery.map(|delivery| (delivery, change)).ok_or(Rejection::NoSuchDelivery)
    }

    fn settle(&mut self, no: DeliveryNo, attempt: AttemptNo, outcome: &SendOutcome) -> Result<(), Rejection> {
        self.changing_attempt(no, attempt, |delivery, change| delivery.settle(attempt, outcome, change))
    }

    fn not_found(&mut self, no: DeliveryNo, attempt: AttemptNo, answered: bool) -> Result<(), Rejection> {
        self.changing_attempt(no, attempt, |delivery, change| delivery.look_up_failed(attempt, answered, change))
    }

    fn find(&mut self, no: DeliveryNo, attempt: AttemptNo, receipt: &Receipt) -> Result<(), Rejection> {
        let id = Some(&receipt.provider_id);
        let anothers = self.alert.deliveries.iter().any(|delivery| {
            let others = |other: &&Attempt| (delivery.no, other.no) != (no, attempt);
            delivery.attempts.iter().filter(others).any(|other| other.provider_id.as_ref() == id)
        });
        // The next look-up is booked already, and knows whose the message is.
        if anothers { Ok(()) } else { self.receive(no, attempt, receipt) }
    }

    fn receive(&mut self, no: DeliveryNo, attempt: AttemptNo, receipt: &Receipt) -> Result<(), Rejection> {
        self.changing_attempt(no, attempt, |delivery, change| delivery.receive(attempt, receipt, change))
    }

    /// Changes one delivery, and books what is new: a message's id, a receipt, and where the delivery went.
    fn changing_attempt(
        &mut self,
        no: DeliveryNo,
        attempt: AttemptNo,
        change: impl FnOnce(&mut Delivery, &Change<'_>) -> Settled,
    ) -> Result<(), Rejection> {
        let (delivery, cx) = self.delivery_mut(no)?;
        let before = delivery.attempt(attempt).ok_or(Rejection::NoSuchDelivery)?.clone();
        let settled = change(delivery, &cx);
        let after = delivery.attempt(attempt).ok_or(Rejection::NoSuchDelivery)?.clone();
        if before == after && settled == Settled::Unchanged {
            return Ok(());
        }
        self.changed = true;
        if let (Some(provider_id), Some(status)) = (&after.provider_id, after.status) {
            if before.provider_id.is_none() {
                self.out.provider_ids.push(provider_id.clone());
                self.record_delivery(no, DeliveryDeed::Accepted { attempt, provider_id, status });
            } else if before.status != after.status {
                self.record_delivery(no, DeliveryDeed::Receipt { attempt, provider_id, status, fault: after.fault });
            }
        }
        self.note(no, attempt, settled);
        Ok(())
    }

    /// Books where a delivery went.
    fn note(&mut self, no: DeliveryNo, attempt: AttemptNo, settled: Settled) {
        self.changed = true;
        self.out.settled.push((no, settled));
        let delivery = self.alert.deliveries.iter().find(|delivery| delivery.no == no);
        let fault = delivery.and_then(|delivery| delivery.attempt(attempt)).and_then(|attempt| attempt.fault);
        match settled {
            Settled::Retry { at } => {
                self.record_delivery(no, DeliveryDeed::RetryPlanned { attempt, due_at: at, fault })
            }
            Settled::Deferred { at } => self.record_delivery(no, DeliveryDeed::Deferred { attempt, due_at: at }),
            Settled::Unknown { look_up_at } => {
                self.record_delivery(no, DeliveryDeed::OutcomeUnknown { attempt, look_up_at });
            }
            Settled::Failed { reason, class } => {
                self.record_delivery(no, DeliveryDeed::Failed { reason, fault });
                self.something_failed = true;
                match (reason, class) {
                    (FailureReason::Exhausted, _) => self.out.alarms.push(Alarm::DeliveryExhausted),
                    (_, Some(class @ (ErrorClass::Config | ErrorClass::Template | ErrorClass::OptOut))) => {
                        let code = fault.and_then(|fault| fault.code);
                        self.out.alarms.push(Alarm::ProviderRefused { class, code });
                    }
                    (FailureReason::Refused | FailureReason::NotComposable, _) => {}
                }
            }
            Settled::Cancelled => self.record_delivery(no, DeliveryDeed::Cancelled),
            Settled::Accepted | Settled::Progressed | Settled::Unchanged => {}
        }
    }

    // -- humans --------------------------------------------------------------------------------------------------

    fn acknowledge(&mut self, via: AckVia) -> Result<(), Rejection> {
        match self.alert.state {
            AlertState::Escalating { .. } => {}
            AlertState::Acknowledged { .. } => return Err(Rejection::AlreadyAcknowledged),
            AlertState::Withheld { .. } => return Err(Rejection::IsWithheld),
            AlertState::Resolved { .. } => return Err(Rejection::AlreadyResolved),
        }
        let at = self.cx.now;
        let action_due_at = later(at, self.alert.policy.act_within);
        self.record(&Deed::Acknowledged { via, action_due_at });
        self.alert.state = AlertState::Acknowledged { by: self.cx.actor.clone(), via, at, action_due_at };
        self.cancel_outstanding();
        Ok(())
    }

    fn resolve(&mut self, outcome: Outcome, note: Option<&Sealed>) -> Result<(), Rejection> {
        if !self.alert.is_open() {
            return Err(Rejection::AlreadyResolved);
        }
        if matches!(outcome, Outcome::Drill) != matches!(self.alert.kind, Kind::Drill) {
            return Err(Rejection::WrongOutcome);
        }
        self.record(&Deed::Resolved { outcome, note });
        self.alert.state = AlertState::Resolved { by: self.cx.actor.clone(), outcome, at: self.cx.now };
        self.cancel_outstanding();
        Ok(())
    }

    fn cancel_outstanding(&mut self) {
        let now: Timestamp = self.cx.now;
        let cancelled: Vec<DeliveryNo> = self
            .alert
            .deliveries
            .iter_mut()
            .filter_map(|delivery| delivery.cancel(now).then_some(delivery.no))
            .collect();
        for no in cancelled {
            self.out.settled.push((no, Settled::Cancelled));
            self.record_delivery(no, DeliveryDeed::Cancelled);
        }
    }
}

fn current_attempt(delivery: &Delivery) -> AttemptNo {
    delivery.attempts.last().map_or(AttemptNo(0), |attempt| attempt.no)
}
