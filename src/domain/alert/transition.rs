//! The alert's changes. Each takes the alert by value and gives back what it has become, with what to commit and do.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::{
    AckVia, Action, Alarm, Alert, AlertState, Asked, Decision, Deed, DeliveryDeed, Kind, Outcome, Reached, Situation,
    Transition, WithheldReason,
};
use crate::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream};
use crate::domain::consent::{DisclosureGround, Ground};
use crate::domain::contact::{Contact, ContactMethod, Directory};
use crate::domain::delivery::{Delivery, DeliveryState, Disclosed, Settled, Turn, later};
use crate::domain::event::{Score, Trigger};
use crate::domain::ids::{
    AlertId, AttemptNo, AttemptRef, ContactId, DeliveryNo, OrganisationId, ProviderId, Reference, SubjectKey,
};
use crate::domain::message::Purpose;
use crate::domain::policy::{Called, Policy, Stage};
use crate::domain::provider::{Receipt, SendOutcome};
use crate::domain::sealed::Sealed;

mod emergency;
mod fall_over;
mod gone;
mod humans;
mod notices;
mod outcomes;
mod pass_on;
mod time;

/// How many deliveries an alert carries at the most; the oldest settled ones make room (the audit keeps all), but for the
/// newest to each phone.
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

/// What an emergency contact is to hear again in answer to a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldAgain {
    /// The message that told them.
    pub delivery: DeliveryNo,
    /// What they hear: enough to prove it.
    pub disclosed: Disclosed,
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
    /// A person who was told, or has taken it, hands it on: the next rung that names somebody else begins at once.
    PassOn,
    /// Whoever has taken the case says that they are on it; by the API any of the team may.
    CheckIn,
    /// Somebody who was told has written words that ask for nothing. They are kept beside the alert, sealed.
    Replied {
        /// How.
        channel: super::Channel,
        /// What an emergency contact hears again in answer; `None`: nobody outside the team hears anything.
        told_again: Option<ToldAgain>,
    },
    /// A human decides that an emergency contact of the student is told.
    Inform {
        /// Who.
        contact: ContactId,
        /// Their decision.
        ground: DisclosureGround,
    },
    /// A human closes the case.
    Resolve {
        /// How it ended.
        outcome: Outcome,
        /// What they noted, sealed.
        note: Option<Sealed>,
        /// When somebody is to look after the student again.
        follow_up_at: Option<Timestamp>,
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
    /// Nobody has taken it.
    #[error("the alert is not acknowledged")]
    NotAcknowledged,
    /// More was written about it than is kept.
    #[error("no more replies are kept for this alert")]
    RepliesFull,
    /// There is no such delivery or attempt.
    #[error("the alert has no such delivery")]
    NoSuchDelivery,
    /// The ladder names nobody but whoever hands it on.
    #[error("there is nobody else to hand it on to")]
    NobodyElse,
    /// A drill reaches nobody outside the team.
    #[error("nobody outside the team is told in a drill")]
    DrillStaysInside,
    /// The student has named no such person.
    #[error("the student has no such emergency contact")]
    NoSuchEmergencyContact,
    /// No number of theirs is proven.
    #[error("the emergency contact has no verified number")]
    EmergencyContactUnverified,
    /// Whoever was told as an emergency contact does not work on the case.
    #[error("an emergency contact does not work on the case")]
    OutsideTheTeam,
    /// A live alert cannot end as a drill, nor a drill as anything else.
    #[error("a drill ends as a drill, and nothing else does")]
    WrongOutcome,
}

impl Alert {
    /// Opens a case: escalating if there is a ground, else withheld.
    pub fn open(new: NewAlert, cx: &Situation<'_>) -> Transition {
        // No live case stands on the ground of a drill.
        let fits = |ground: &Ground| matches!(new.kind, super::Kind::Drill) || !matches!(ground, Ground::Drill { .. });
        let ground = new.ground.filter(fits);
        let severity = new.trigger.severity();
        let decision = if ground.is_some() { Decision::Escalated } else { Decision::WithheldNoConsent };
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
            reached: None,
            emergency: None,
            replies: 0,
            outside_replies: 0,
            climb_from: 0,
            audit_head: AuditHead::EMPTY,
        };
        let mut change = Changing::begin(alert, None, cx);
        change.record_opened(decision);
        change.out.decision = Some(decision);
        match ground {
            Some(ground) => {
                change.set_ground(ground);
                change.enter(Stage::FIRST);
            }
            None => change.record(&Deed::Withheld { why }),
        }
        change.claim_and_follow();
        change.go_on_at_once();
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
            Input::PassOn => change.pass_on()?,
            Input::CheckIn => change.check_in()?,
            Input::Replied { channel, told_again } => change.keep_reply(channel, told_again.as_ref())?,
            Input::Inform { contact, ground } => change.inform(&contact, &ground)?,
            Input::Resolve { outcome, note, follow_up_at } => change.resolve(outcome, note.as_ref(), follow_up_at)?,
        }
        change.claim_and_follow();
        change.go_on_at_once();
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
    in_human_hands: bool,
    left_ladder: bool,
    reopened: bool,
    past_phone_pace: u32,
    put_off: u32,
}

/// An alert in the middle of a change.
struct Changing<'a, 'b> {
    alert: Alert,
    from_version: Option<u64>,
    out: Output,
    changed: bool,
    /// A delivery failed in this change: look whether the whole stage has.
    something_failed: bool,
    /// Who hands the case on in this change: they are not told again.
    hands_on: Vec<ContactId>,
    cx: &'a Situation<'b>,
}

impl<'a, 'b> Changing<'a, 'b> {
    fn begin(alert: Alert, from_version: Option<u64>, cx: &'a Situation<'b>) -> Self {
        let changed = from_version.is_none();
        Self { alert, from_version, out: Output::default(), changed, something_failed: false, hands_on: Vec::new(), cx }
    }

    fn finish(mut self) -> Transition {
        if self.something_failed {
            self.hurry_if_all_failed();
        }
        if self.alert.is_exercise() {
            // That nobody answers a drill is told by one alarm, which says that it is one.
            self.out
                .alarms
                .retain(|alarm| !matches!(alarm, Alarm::LadderExhausted | Alarm::NobodyToTell | Alarm::NobodyOnCall));
        }
        if self.changed {
            self.note_reached();
        }
        self.drop_oldest();
        if self.changed {
            self.alert.version += 1;
            self.alert.updated_at = self.cx.now;
        }
        let Output {
            audit,
            actions,
            alarms,
            provider_ids,
            settled,
            decision,
            paged,
            in_human_hands,
            left_ladder,
            reopened,
            past_phone_pace,
            put_off,
        } = self.out;
        Transition {
            alert: self.alert,
            from_version: self.from_version,
            audit,
            actions,
            alarms,
            provider_ids,
            settled,
            decision,
            paged,
            in_human_hands,
            left_ladder,
            reopened,
            past_phone_pace,
            put_off,
        }
    }

    fn record(&mut self, deed: &Deed<'_>) {
        self.record_as(self.cx.actor, deed);
    }

    fn record_as(&mut self, actor: &Actor, deed: &Deed<'_>) {
        self.out.reopened |= matches!(deed, Deed::Reopened);
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
            policy_sha256: &policy.sha256(),
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
        self.alert.wants_somebody()
    }

    // -- events --------------------------------------------------------------------------------------------------

    fn join(&mut self, trigger: Trigger, ground: Option<Ground>) -> Result<(), Rejection> {
        if !self.alert.is_open() {
            return Err(Rejection::AlreadyResolved);
        }
        self.judge(ground.as_ref());
        let severity = trigger.severity();
        let by_hand = trigger.score.is_none();
        let policy = self.alert.policy_after(severity, self.cx.ladders);
        let changes_policy = policy.id != self.alert.policy.id;
        let permitted = self.alert.ground.is_some() || ground.is_some();
        let was_withheld = matches!(self.alert.state, AlertState::Withheld { .. });
        let released = was_withheld && ground.is_some();
        let graver = by_hand || changes_policy || self.rises(severity);
        let page = released || (!was_withheld && permitted && graver);
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
        if changes_policy {
            self.take_policy(policy);
        }
        if let Some(ground) = ground
            && self.widens(&ground)
        {
            self.set_ground(ground);
        }
        if page {
            self.page_again(was_withheld || changes_policy);
        }
        Ok(())
    }

    /// Goes over to the ladder of a graver band.
    fn take_policy(&mut self, policy: Arc<Policy>) {
        self.record(&Deed::PolicyChanged {
            policy: &policy.id,
            policy_version: policy.version,
            policy_sha256: &policy.sha256(),
        });
        self.alert.policy = policy;
        self.restart_emergency_clock();
        if let AlertState::Escalating { vacant, .. } = &mut self.alert.state {
            vacant.clear();
        }
        for delivery in self.alert.deliveries.iter_mut().filter(|delivery| delivery.purpose.is_alert()) {
            // The next channel would be looked for on a rung of the ladder that was left.
            delivery.fall_over_at = None;
        }
    }

    /// Holds a ground of consent against what the student says now. A word that was taken back is no ground for
    /// anything further; an override does not rest on it.
    fn judge(&mut self, now: Option<&Ground>) {
        let Some(Ground::Consent { channels, .. }) = &self.alert.ground else { return };
        if !self.alert.is_open() && self.alert.next_action_at().is_none() {
            return;
        }
        let same = |ground: &Ground| {
            let now: BTreeSet<_> = ground.consented().iter().collect();
            now == channels.iter().collect()
        };
        match now {
            Some(ground @ Ground::Consent { .. }) if same(ground) => {}
            // What is planned and no longer covered is cancelled when its time comes to be claimed; a channel by which people
            // can be reached only now is covered from now on.
            Some(other) => self.set_ground(other.clone()),
            None => {
                self.record(&Deed::ConsentWithdrawn);
                self.alert.ground = None;
                if self.alert.is_open() {
                    self.out.alarms.push(Alarm::ConsentWithdrawn);
                }
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
                let channels = self.alert.policy.channels_that_reach(self.cx.directory);
                channels.iter().any(|channel| ground.allows(*channel) && !standing.allows(*channel))
            }
        }
    }

    fn page_again(&mut self, from_first: bool) {
        match &self.alert.state {
            AlertState::Escalating { stage, .. } if !from_first => self.enter(*stage),
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

    /// Begins a stage, or, where that is for whoever is on call and nobody is, the next one at once. Once each rung of the
    /// ladder is found to be so, the last responder's turn has come. Which rungs were vacant is kept: whoever they come to
    /// later is told with the last responder.
    fn enter(&mut self, stage: Stage) {
        self.enter_past(&[], stage);
    }

    /// The same, past stages that were left out because they name nobody else: where that is so because nobody is on call,
    /// it is recorded as if they had been entered.
    fn enter_past(&mut self, left_out: &[Stage], stage: Stage) {
        let policy = Arc::clone(&self.alert.policy);
        let mut vacant = match &self.alert.state {
            AlertState::Escalating { vacant, .. } => BTreeSet::from_iter(vacant.iter().copied()),
            AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => {
                BTreeSet::new()
            }
        };
        for stage in left_out.iter().copied().filter(|stage| self.is_vacant(*stage)).collect::<Vec<_>>() {
            self.pass_over(stage, &mut vacant);
        }
        let mut stage = stage;
        let mut passed_over = 0;
        while self.is_vacant(stage) {
            self.pass_over(stage, &mut vacant);
            passed_over += 1;
            stage = match stage {
                Stage::Step { .. } if passed_over < policy.steps.len() => stage.next(&policy),
                Stage::Step { .. } => Stage::LastResponder { times: 1 },
                Stage::LastResponder { .. } => break,
            };
        }
        vacant.retain(|rung| stage.rung() != Some(*rung));
        self.begin_stage(stage, vacant.into_iter().collect());
    }

    /// A rung is for whoever is on call, and nobody is.
    fn pass_over(&mut self, stage: Stage, vacant: &mut BTreeSet<u32>) {
        self.record(&Deed::NobodyOnCall { stage });
        if !self.out.alarms.contains(&Alarm::NobodyOnCall) {
            self.out.alarms.push(Alarm::NobodyOnCall);
        }
        vacant.extend(stage.rung());
    }

    fn is_vacant(&self, stage: Stage) -> bool {
        Called::new(stage.targets(&self.alert.policy).0, self.cx.directory, self.cx.now).is_vacant()
    }

    /// Begins a stage: plans a message to everybody it names.
    fn begin_stage(&mut self, stage: Stage, vacant: Vec<u32>) {
        let policy = Arc::clone(&self.alert.policy);
        let now = self.cx.now;
        let mut next_step_at = later(now, stage.patience(&policy));
        if let AlertState::Escalating { stage: standing, next_step_at: planned, .. } = self.alert.state
            && standing == stage
        {
            // Told again because of a graver event. However often that happens, the next stage is not put off.
            next_step_at = next_step_at.min(planned);
        }
        if !self.still_wanted() {
            self.cancel_notices();
            self.restart_emergency_clock();
        }
        if stage == Stage::FIRST || !matches!(self.alert.state, AlertState::Escalating { .. }) {
            self.alert.climb_from = self.alert.deliveries_planned;
        }
        self.alert.state = AlertState::Escalating { stage, next_step_at, asked: Vec::new(), vacant };
        let told = self.plan_stage(stage);
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

    /// Plans a message to everybody who is told on a stage; says to how many.
    fn plan_stage(&mut self, stage: Stage) -> usize {
        let policy = Arc::clone(&self.alert.policy);
        let (targets, channels) = stage.targets(&policy);
        let Called { mut people, mut missing, .. } = Called::new(targets, self.cx.directory, self.cx.now);
        people.retain(|contact| !self.hands_on.contains(&contact.id));
        missing.retain(|id| !self.hands_on.contains(id));
        let turn = Turn { stage, channels, in_turn: &[], follows: None };
        let mut told = people.into_iter().filter(|contact| self.plan_over(contact, &turn).is_some()).count();
        // An alert keeps its ladder. If a person on it is no longer set up, somebody who is shall be told instead.
        told += missing.iter().filter(|_| self.plan_for_anybody(stage).is_some()).count();
        for (contact, rung) in self.late_comers(stage) {
            if self.hands_on.contains(&contact.id) || self.is_asked(&contact.id) {
                continue;
            }
            let channels = &policy.steps[rung].channels;
            let turn = Turn { stage, channels, in_turn: channels, follows: None };
            told += usize::from(self.plan_over(contact, &turn).is_some());
        }
        if told == 0 && matches!(stage, Stage::LastResponder { .. }) {
            // Whom the ground or a missing number keeps from being told must not be the end of it.
            told = usize::from(self.plan_for_anybody(stage).is_some());
        }
        told
    }

    /// Whom the rungs that were vacant come to now, and the one whose turn it is again, each with the rung: they are told
    /// with the last responder.
    fn late_comers(&self, stage: Stage) -> Vec<(&'a Contact, usize)> {
        let vacant: &[u32] = match (stage, &self.alert.state) {
            (Stage::Step { .. }, _) => return Vec::new(),
            (Stage::LastResponder { .. }, AlertState::Escalating { vacant, .. }) => vacant,
            (
                Stage::LastResponder { .. },
                AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. },
            ) => &[],
        };
        let (directory, now): (&'a Directory, _) = (self.cx.directory, self.cx.now);
        let again = stage.told_again(&self.alert.policy).filter(|rung| !vacant.contains(rung));
        let rungs = vacant.iter().copied().chain(again).map(|rung| rung as usize);
        let known = rungs.filter_map(|rung| Some((rung, self.alert.policy.steps.get(rung)?)));
        known
            .flat_map(|(rung, step)| {
                let people = Called::new(&step.targets, directory, now).people;
                people.into_iter().map(move |contact| (contact, rung))
            })
            .collect()
    }

    fn is_asked(&self, contact: &ContactId) -> bool {
        match &self.alert.state {
            AlertState::Escalating { asked, .. } => asked.iter().any(|asked| asked.contact == *contact),
            AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => false,
        }
    }

    fn anybody_pending(&self) -> bool {
        self.alert.deliveries.iter().any(Delivery::is_pending_alert)
    }

    /// Plans a message to somebody who can be told over anything; says which carries the news, if anybody can. Whoever
    /// could not be reached in this case comes last, and at the end of the ladder all others take turns.
    fn plan_for_anybody(&mut self, stage: Stage) -> Option<DeliveryNo> {
        let allowed = |channel| self.alert.ground.as_ref().is_some_and(|ground| ground.allows(channel));
        let can_be_told = |contact: &&Contact| {
            let reached = contact.methods.iter().any(|method| allowed(method.channel));
            reached && !self.hands_on.contains(&contact.id)
        };
        let people = self.cx.directory.people().filter(can_be_told);
        let (dead, mut people): (Vec<&Contact>, Vec<&Contact>) = people.partition(|contact| self.is_dead(&contact.id));
        if people.is_empty() {
            people = dead;
        }
        let turns = match stage {
            Stage::Step { .. } => 0,
            Stage::LastResponder { times } => times.saturating_sub(1) as usize,
        };
        let contact = people.get(turns.checked_rem(people.len())?).copied()?;
        let channels: Vec<_> = contact.methods.iter().map(|method| method.channel).collect();
        self.plan_over(contact, &Turn { stage, channels: &channels, in_turn: &channels, follows: None })
    }

    /// Whether messages to this person failed, and none arrived.
    fn is_dead(&self, contact: &ContactId) -> bool {
        let theirs = || {
            let deliveries = self.alert.deliveries.iter().filter(|delivery| delivery.purpose.is_alert());
            deliveries.filter(|delivery| delivery.contact == *contact)
        };
        let failed = theirs().any(|delivery| matches!(delivery.state, DeliveryState::Failed { .. }));
        failed && !theirs().any(Delivery::has_arrived)
    }

    /// Plans one message over the first of the turn's channels that reaches the person and is allowed, unless one to the
    /// same number is still on its way out: that one takes the newer score.
    fn plan_over(&mut self, contact: &Contact, turn: &Turn<'_>) -> Option<DeliveryNo> {
        let planned = self.plan_or_join(contact, turn)?;
        let is_asked = self.is_asked(&contact.id);
        if let AlertState::Escalating { stage, asked, .. } = &mut self.alert.state
            && *stage == turn.stage
            && !is_asked
        {
            asked.push(Asked { contact: contact.id.clone(), passed: false });
        }
        Some(planned)
    }

    fn plan_or_join(&mut self, contact: &Contact, turn: &Turn<'_>) -> Option<DeliveryNo> {
        let allowed = |channel| self.alert.ground.as_ref().is_some_and(|ground| ground.allows(channel));
        let mut usable = turn
            .channels
            .iter()
            .filter(|channel| allowed(**channel))
            .filter_map(|channel| contact.methods.iter().find(|method| method.channel == *channel));
        let method = usable.next()?;
        let fall_over_at = usable.next().map(|_| later(self.cx.now, self.alert.policy.fall_over_after));
        let score = self.alert.trigger.score.map(|_| self.alert.severity);
        let standing = match &self.alert.state {
            AlertState::Escalating { stage, .. } => Some(*stage),
            AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => None,
        };
        let to_same_phone = |delivery: &Delivery| {
            let same = (delivery.address_key, delivery.channel) == (method.address_key, method.channel);
            same && delivery.is_pending_alert()
        };
        let mut waiting = self.alert.deliveries.iter_mut().filter(|delivery| to_same_phone(delivery));
        if let Some(waiting) = waiting.find(|delivery| matches!(delivery.state, DeliveryState::Due { .. })) {
            waiting.score = score;
            waiting.join_stage(turn, standing, fall_over_at);
            return Some(waiting.no);
        }
        // In hand or unknown: that message shows the older score. A new one is planned only for news.
        let gravity = |score: Option<Score>| score.unwrap_or(Score::HIGHEST);
        let mut in_hand = self.alert.deliveries.iter_mut().filter(|delivery| to_same_phone(delivery));
        if let Some(in_hand) = in_hand.find(|delivery| gravity(delivery.score) >= gravity(score)) {
            in_hand.join_stage(turn, standing, fall_over_at);
            return Some(in_hand.no);
        }
        let no = self.plan_message(turn.stage, Purpose::CounsellorAlert, contact, method);
        if let Some(planned) = self.alert.deliveries.last_mut() {
            (planned.score, planned.fall_over_at) = (score, fall_over_at);
            (planned.follows, planned.in_turn) = (turn.follows, turn.in_turn.to_vec());
        }
        Some(no)
    }

    fn plan_message(
        &mut self,
        stage: Stage,
        purpose: Purpose,
        contact: &Contact,
        method: &ContactMethod,
    ) -> DeliveryNo {
        self.alert.deliveries_planned += 1;
        let no = DeliveryNo(self.alert.deliveries_planned);
        self.alert.deliveries.push(Delivery {
            no,
            stage,
            purpose,
            contact: contact.id.clone(),
            person: contact.person,
            role: contact.role,
            language: contact.language.clone(),
            channel: method.channel,
            address: method.address.clone(),
            address_key: method.address_key,
            disclosure: None,
            score: None,
            planned_at: self.cx.now,
            fall_over_at: None,
            follows: None,
            in_turn: Vec::new(),
            paused_once: false,
            attempts: Vec::new(),
            state: DeliveryState::Due { at: self.cx.now },
        });
        self.changed = true;
        no
    }

    /// Where nothing of a rung is to be hoped for any more, the next one begins at once if somebody on it has a channel that was
    /// not tried for them in this round: a refused message is followed by the phone call though that is a rung of its own.
    /// Once the last responder was tried, too, the whole round was in vain, and a pause comes.
    fn go_on_at_once(&mut self) {
        while self.something_failed && self.is_hopeless() {
            let AlertState::Escalating { stage, .. } = self.alert.state else { return };
            if !self.leads_to_untried(stage) {
                return;
            }
            self.enter(stage.next(&self.alert.policy));
            self.claim_and_follow();
        }
    }

    /// Whether the stage that comes next, those that nobody is on left aside, is of the same round or the last responder's
    /// first, and names somebody who was not tried over everything that it has for them.
    fn leads_to_untried(&self, stage: Stage) -> bool {
        let (policy, Some(ground)) = (&self.alert.policy, &self.alert.ground) else { return false };
        let is_of_round = |next: &Stage| next.is_in_round_of(&stage);
        let mut following = std::iter::successors(Some(stage.next(policy)), |next| Some(next.next(policy)));
        let next = following.by_ref().take_while(is_of_round).find(|next| !self.is_vacant(*next));
        let Some(next) = next else { return false };
        let (targets, channels) = next.targets(policy);
        let tried = |contact: &Contact, channel| {
            // A climb of before somebody had the case has tried nothing for this one.
            let is_of_climb = |told: &&Delivery| told.purpose.is_alert() && told.no.0 > self.alert.climb_from;
            let alerts = self.alert.deliveries.iter().filter(is_of_climb);
            let mut of_round = alerts.filter(|delivery| delivery.stage.is_in_round_of(&stage));
            of_round.any(|told| told.contact == contact.id && told.channel == channel)
        };
        let people = Called::new(targets, self.cx.directory, self.cx.now).people;
        people.into_iter().filter(|contact| !self.hands_on.contains(&contact.id)).any(|contact| {
            let usable = contact.methods.iter().map(|method| method.channel);
            usable
                .filter(|channel| channels.contains(channel) && ground.allows(*channel))
                .any(|channel| !tried(contact, channel))
        })
    }

    /// Whether nothing of the ladder is under way, and nothing of this stage with Twilio.
    fn is_hopeless(&self) -> bool {
        let AlertState::Escalating { stage, asked, .. } = &self.alert.state else { return false };
        let (stage, deliveries) = (*stage, &self.alert.deliveries);
        // The bottom of the ladder may have been climbed before: what somebody was told last counts.
        let is_last = |delivery: &Delivery| {
            let after = |later: &&Delivery| later.no > delivery.no && later.stage == stage && later.purpose.is_alert();
            let same = |later: &Delivery| later.contact == delivery.contact && later.channel == delivery.channel;
            !deliveries.iter().filter(after).any(same)
        };
        let alerts = deliveries.iter().filter(|delivery| delivery.purpose.is_alert());
        // Of whoever has passed it on nothing more is to be hoped.
        let passed = |delivery: &Delivery| asked.iter().any(|asked| asked.passed && asked.contact == delivery.contact);
        let counts = |delivery: &&Delivery| {
            delivery.is_pending() || (delivery.stage == stage && is_last(delivery) && !passed(delivery))
        };
        let mut counting = alerts.filter(counts);
        counting
            .all(|delivery| matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. }))
    }

    /// Where nothing of a stage is to be hoped for, waiting for its time to pass helps nobody.
    fn hurry_if_all_failed(&mut self) {
        let soon = later(self.cx.now, self.cx.rules.retry_when_all_failed);
        let is_hopeless = self.is_hopeless();
        if let AlertState::Escalating { next_step_at, .. } = &mut self.alert.state
            && is_hopeless
            && soon < *next_step_at
        {
            *next_step_at = soon;
            self.changed = true;
        }
    }

    /// Before messages are dropped, how far they got is noted.
    fn note_reached(&mut self) {
        let alert = &self.alert;
        let alerts = || alert.deliveries.iter().filter(|delivery| delivery.purpose.is_alert());
        let Some(first) = alerts().next() else { return };
        // Of a case that is older than this note, and has dropped its first messages, more is not known.
        let is_whole = alert.deliveries.len() == alert.deliveries_planned as usize;
        let since = if is_whole { first.planned_at } else { alert.opened_at };
        let mut reached = alert.reached.unwrap_or(Reached { since, provider_at: None, phone_at: None });
        let is_with_provider = alerts().any(Delivery::has_reached_provider);
        reached.provider_at = reached.provider_at.or(is_with_provider.then_some(self.cx.now));
        reached.phone_at = reached.phone_at.or_else(|| alerts().filter_map(Delivery::arrived_at).min());
        self.alert.reached = Some(reached);
    }

    fn drop_oldest(&mut self) {
        while self.alert.deliveries.len() > DELIVERIES_KEPT {
            let deliveries = &self.alert.deliveries;
            // By the newest to their phone people take the case, and emergency contacts are known.
            let is_newest = |delivery: &Delivery| {
                let same = |later: &Delivery| {
                    later.no > delivery.no
                        && later.purpose == delivery.purpose
                        && (later.address_key, later.channel) == (delivery.address_key, delivery.channel)
                };
                !delivery.purpose.is_notice() && !deliveries.iter().any(same)
            };
            let settled = |delivery: &Delivery| delivery.next_action_at().is_none() && !is_newest(delivery);
            // Where there is none, one of which only a receipt is missing.
            let receipt =
                |delivery: &Delivery| !delivery.is_pending() && delivery.fall_over_at.is_none() && !is_newest(delivery);
            // And where there is none, one whose next channel has not had its turn: a newer message to that phone has its own.
            let next_channel = |delivery: &Delivery| !delivery.is_pending() && !is_newest(delivery);
            let position = |fits: &dyn Fn(&Delivery) -> bool| deliveries.iter().position(fits);
            let oldest = position(&settled).or_else(|| position(&receipt)).or_else(|| position(&next_channel));
            let Some(oldest) = oldest else { break };
            let dropped = self.alert.deliveries.remove(oldest).no;
            self.out.actions.retain(|action| action.delivery() != dropped);
            self.changed = true;
        }
    }
}
