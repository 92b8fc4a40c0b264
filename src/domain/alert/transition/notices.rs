//! Notices: what is said beside the ladder. That somebody else has the case, to those who were told; that an outcome is
//! missing, to whoever has it; that a follow-up is due.
//!
//! A notice asks nobody to take a case, so the ladder does not wait for it, nor for its receipt. But whoever does not hear that
//! a case is taken rings all night, and a follow-up that nobody hears of is not made: one that fails is said over the same
//! person's next channel that it can be written for, as long as it is true. It stands on the same ground, and is recorded alike.

use std::time::Duration;

use jiff::Timestamp;

use super::Changing;
use crate::domain::alert::{Alarm, AlertState, Deed, TakenBy};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, Contact, ContactMethod};
use crate::domain::delivery::{Delivery, DeliveryState, later};
use crate::domain::ids::{ContactId, DeliveryNo};
use crate::domain::message::Purpose;
use crate::domain::policy::Stage;

/// After how long people are reminded of a follow-up again, where nobody could be.
const FOLLOW_UP_AGAIN: Duration = Duration::from_secs(3600);
/// How often that is tried: for a day.
const FOLLOW_UP_TRIES: u32 = 24;

impl Changing<'_, '_> {
    /// Everybody else who was told hears that the case is in somebody's hands.
    pub(super) fn tell_others_that_it_is_taken(&mut self) {
        let mut told: Vec<ContactId> = Vec::new();
        for delivery in self.alert.deliveries.iter().filter(|delivery| is_told(delivery)) {
            if !told.contains(&delivery.contact) {
                told.push(delivery.contact.clone());
            }
        }
        for contact in told {
            self.tell_that_it_is_taken(&contact);
        }
    }

    /// One whose message was in hand or unknown when the case was taken hears it once Twilio has that message.
    pub(super) fn tell_if_taken_meanwhile(&mut self, no: DeliveryNo) {
        let Some(delivery) = self.alert.delivery(no).filter(|delivery| is_told(delivery)) else { return };
        let contact = delivery.contact.clone();
        self.tell_that_it_is_taken(&contact);
    }

    fn tell_that_it_is_taken(&mut self, contact: &ContactId) {
        let Some(since) = self.in_hands_since() else { return };
        let is_notice = |delivery: &&Delivery| {
            delivery.purpose == Purpose::TakenNotice && delivery.contact == *contact && delivery.planned_at >= since
        };
        if self.has_had_it(contact) || self.alert.deliveries.iter().any(|delivery| is_notice(&delivery)) {
            return;
        }
        self.plan_notice(Purpose::TakenNotice, contact);
    }

    /// Whether this is a phone of whoever this is.
    fn is_phone_of(&self, taker: &Actor, method: &ContactMethod) -> bool {
        let Actor::Contact { contact: taker } = taker else { return false };
        let taker = self.cx.directory.contact(taker);
        taker.is_some_and(|taker| taker.methods.iter().any(|theirs| theirs.address_key == method.address_key))
    }

    /// Who has the case, or has closed it.
    fn taken_or_closed_by(&self) -> Option<&Actor> {
        match &self.alert.state {
            AlertState::Acknowledged { by, .. } | AlertState::Resolved { by, .. } => Some(by),
            AlertState::Escalating { .. } | AlertState::Withheld { .. } => None,
        }
    }

    /// Since when the case is not open any more. Whoever closes it later changes nothing of that.
    fn in_hands_since(&self) -> Option<Timestamp> {
        match &self.alert.state {
            AlertState::Acknowledged { at, .. } => Some(*at),
            AlertState::Resolved { at, taken, .. } => Some(taken.as_ref().map_or(*at, |taken| taken.at)),
            AlertState::Escalating { .. } | AlertState::Withheld { .. } => None,
        }
    }

    /// Whether this person has the case, or had it until it was closed, or has closed it; or would be told so on a phone of
    /// whoever it is.
    fn has_had_it(&self, contact: &ContactId) -> bool {
        let known = self.cx.directory.contact(contact);
        let method = known.and_then(|known| self.methods_for_notice(Purpose::TakenNotice, known).first().copied());
        let is_theirs = |actor: &Actor| matches!(actor, Actor::Contact { contact: hand } if hand == contact);
        self.hands().any(|hand| is_theirs(hand) || method.is_some_and(|method| self.is_phone_of(hand, method)))
    }

    /// Who has the case or has closed it, and who had it until then.
    fn hands(&self) -> impl Iterator<Item = &Actor> {
        let before = match &self.alert.state {
            AlertState::Resolved { taken: Some(taken), .. } => Some(&taken.by),
            AlertState::Acknowledged { .. }
            | AlertState::Resolved { taken: None, .. }
            | AlertState::Escalating { .. }
            | AlertState::Withheld { .. } => None,
        };
        self.taken_or_closed_by().into_iter().chain(before)
    }

    /// How whoever has the case is called before others.
    pub(super) fn taken_by(&self) -> TakenBy {
        let Some(Actor::Contact { contact }) = self.taken_or_closed_by() else { return TakenBy::Dashboard };
        let deliveries = self.alert.deliveries.iter().rev();
        let told = deliveries.filter(|delivery| delivery.contact == *contact).map(|delivery| delivery.role).next();
        let role = told.or_else(|| self.cx.directory.contact(contact).map(|contact| contact.role));
        role.map_or(TakenBy::Dashboard, TakenBy::Contact)
    }

    /// Plans a notice over what the person was reached by, else over what they have; nothing is said by a call.
    pub(super) fn plan_notice(&mut self, purpose: Purpose, contact: &ContactId) -> Option<DeliveryNo> {
        self.plan_notice_after(purpose, contact, &[], None)
    }

    /// The same, over a channel that is none of those it was `tried` over in vain; `follows` is the last of these messages.
    pub(super) fn plan_notice_after(
        &mut self,
        purpose: Purpose,
        contact: &ContactId,
        tried: &[Channel],
        follows: Option<DeliveryNo>,
    ) -> Option<DeliveryNo> {
        let contact = self.cx.directory.contact(contact)?;
        // That a case is taken is not told to a phone of whoever has it, though that be somebody else's second one.
        let is_spared = |method: &ContactMethod| {
            purpose == Purpose::TakenNotice && self.hands().any(|hand| self.is_phone_of(hand, method))
        };
        let methods = self.methods_for_notice(purpose, contact).into_iter();
        let method = methods.filter(|method| !tried.contains(&method.channel)).find(|method| !is_spared(method))?;
        // Two people may have one phone: it hears a thing once.
        let since = self.in_hands_since().filter(|_| purpose == Purpose::TakenNotice);
        let hears = |delivery: &&mut Delivery| {
            let same = (delivery.address_key, delivery.channel) == (method.address_key, method.channel);
            same && delivery.purpose == purpose
                && match delivery.state {
                    DeliveryState::Due { .. } => true,
                    DeliveryState::Sending { .. } | DeliveryState::Unknown { .. } | DeliveryState::Accepted { .. } => {
                        since.is_some_and(|since| delivery.planned_at >= since)
                    }
                    DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. } => false,
                }
        };
        if let Some(known) = self.alert.deliveries.iter_mut().find(hears) {
            // It is for somebody else as well: that the message before it arrives after all does not take it back.
            known.follows = known.follows.and(follows.filter(|_| known.contact == contact.id));
            return Some(known.no);
        }
        let stage = self.alert.deliveries.last().map_or(Stage::FIRST, |delivery| delivery.stage);
        let no = self.plan_message(stage, purpose, contact, method);
        if let Some(planned) = self.alert.deliveries.last_mut() {
            (planned.in_turn, planned.follows) = (tried.to_vec(), follows);
        }
        Some(no)
    }

    /// A notice has come to nothing: as long as it is true, the same person hears it over their next channel at once. Where there
    /// is none, a follow-up is somebody else's: the student who was to be looked after again must not be forgotten because one
    /// phone is out of order. Nothing depends on the others.
    pub(super) fn follow_notice(&mut self, no: DeliveryNo) {
        let Some(failed) = self.alert.delivery(no).filter(|delivery| delivery.purpose.is_notice()) else { return };
        let (purpose, contact) = (failed.purpose, failed.contact.clone());
        if self.is_still_true(failed) {
            let tried: Vec<Channel> = failed.in_turn.iter().copied().chain([failed.channel]).collect();
            if let Some(next) = self.plan_notice_after(purpose, &contact, &tried, Some(no)) {
                return self.record_fall_over(no, next);
            }
        }
        if purpose == Purpose::FollowUpReminder {
            self.pass_follow_up_on();
        }
    }

    /// Whether what a notice says is still to be said to this person: the case may have been in other hands since, or in theirs.
    fn is_still_true(&self, notice: &Delivery) -> bool {
        let is_since = |at: Timestamp| notice.planned_at >= at;
        match notice.purpose {
            Purpose::TakenNotice => self.in_hands_since().is_some_and(is_since) && !self.has_had_it(&notice.contact),
            Purpose::OutcomeReminder => match &self.alert.state {
                AlertState::Acknowledged { by: Actor::Contact { contact }, reminded_at, .. } => {
                    *contact == notice.contact && reminded_at.is_some_and(is_since)
                }
                AlertState::Acknowledged { .. }
                | AlertState::Escalating { .. }
                | AlertState::Withheld { .. }
                | AlertState::Resolved { .. } => false,
            },
            Purpose::FollowUpReminder => self.alert.wants(notice),
            Purpose::CounsellorAlert | Purpose::EmergencyContact => false,
        }
    }

    /// What somebody can be told by in writing, the best first: what has reached them, and of equal ones the first of their
    /// own. WhatsApp comes last where it would take the text only for a while after their own message.
    fn methods_for_notice<'c>(&self, purpose: Purpose, contact: &'c Contact) -> Vec<&'c ContactMethod> {
        // What the ladder does not use may have no sender; a stand-in was told over all that they have.
        let of_ladder = self.alert.policy.channels_that_reach(self.cx.directory);
        let is_used = |method: &ContactMethod| {
            let mut told = self.alert.deliveries.iter().filter(|told| told.purpose.is_alert());
            of_ladder.contains(&method.channel)
                || told.any(|told| told.channel == method.channel && told.contact == contact.id)
        };
        let allowed = |method: &&ContactMethod| {
            let ground = self.alert.ground.as_ref();
            let is_written = method.channel != Channel::Voice && is_used(method);
            is_written && ground.is_some_and(|ground| ground.allows(method.channel))
        };
        // 2: the phone has something of ours; 1: it will; 0: nobody has tried.
        let reach = |method: &ContactMethod| {
            let same =
                |delivery: &&Delivery| (delivery.address_key, delivery.channel) == (method.address_key, method.channel);
            let deliveries = || self.alert.deliveries.iter().filter(same);
            if deliveries().any(Delivery::has_arrived) { 2 } else { u8::from(deliveries().any(Delivery::is_out)) }
        };
        let is_taken_at_any_time = |method: &ContactMethod| {
            method.channel != Channel::Whatsapp || self.cx.composer.is_approved(&contact.language, purpose)
        };
        let mut methods: Vec<&ContactMethod> = contact.methods.iter().filter(allowed).collect();
        methods.sort_by_key(|method| std::cmp::Reverse((is_taken_at_any_time(method), reach(method))));
        methods
    }

    /// An outcome is overdue: whoever has the case is reminded once. Says whether they could be.
    pub(super) fn remind(&mut self) -> bool {
        let AlertState::Acknowledged { by: Actor::Contact { contact }, reminded_at: None, .. } = &self.alert.state
        else {
            return false;
        };
        let contact = contact.clone();
        if self.plan_notice(Purpose::OutcomeReminder, &contact).is_none() {
            return false;
        }
        let (now, next) = (self.cx.now, later(self.cx.now, self.alert.policy.check_in_within));
        if let AlertState::Acknowledged { reminded_at, action_due_at, .. } = &mut self.alert.state {
            (*reminded_at, *action_due_at) = (Some(now), next);
        }
        self.record(&Deed::Reminded { action_due_at: next });
        true
    }

    /// A follow-up is due: who closed the case is reminded, or whoever was told of it, or whoever can be.
    pub(super) fn remind_of_follow_up(&mut self) {
        let AlertState::Resolved { follow_up: Some(follow_up), .. } = &mut self.alert.state else { return };
        (follow_up.tried, follow_up.again_at) = (Vec::new(), None);
        self.pass_follow_up_on();
    }

    /// Who was reminded of a follow-up cannot be reached: the next one is reminded. Where there is none, the operator hears
    /// of it, and all are tried again later.
    pub(super) fn pass_follow_up_on(&mut self) {
        let AlertState::Resolved { follow_up: Some(follow_up), by, .. } = &self.alert.state else { return };
        let mut follow_up = follow_up.clone();
        let closer = match by {
            Actor::Contact { contact } => Some(contact.clone()),
            Actor::Person { .. } | Actor::Machine { .. } | Actor::Provider | Actor::Service => None,
        };
        let told = self.alert.deliveries.iter().filter(|delivery| is_told(delivery)).rev();
        let candidates: Vec<ContactId> = closer
            .into_iter()
            .chain(told.map(|delivery| delivery.contact.clone()))
            .chain(self.cx.directory.people().map(|contact| contact.id.clone()))
            .filter(|contact| !follow_up.tried.contains(contact))
            .collect();
        let reminded =
            candidates.into_iter().find(|contact| self.plan_notice(Purpose::FollowUpReminder, contact).is_some());
        let told = reminded.is_some();
        follow_up.tried.extend(reminded);
        follow_up.in_vain += u32::from(!told);
        follow_up.is_told = told || follow_up.in_vain >= FOLLOW_UP_TRIES;
        follow_up.again_at = (!follow_up.is_told).then(|| later(self.cx.now, FOLLOW_UP_AGAIN));
        let due_at = follow_up.due_at;
        if let AlertState::Resolved { follow_up: known, .. } = &mut self.alert.state {
            *known = Some(follow_up);
        }
        self.record(&Deed::FollowUpDue { due_at, told });
        if !told {
            self.out.alarms.push(Alarm::FollowUpUntold);
        }
    }

    /// The case is open again: nothing that said otherwise goes out any more.
    pub(super) fn cancel_notices(&mut self) {
        self.cancel_those(|purpose| purpose.is_notice());
    }

    pub(super) fn cancel_reminders(&mut self) {
        self.cancel_those(|purpose| purpose == Purpose::OutcomeReminder);
    }

    fn cancel_those(&mut self, those: impl Fn(Purpose) -> bool) {
        let deliveries = self.alert.deliveries.iter().filter(|delivery| those(delivery.purpose));
        let numbers: Vec<DeliveryNo> = deliveries.map(|delivery| delivery.no).collect();
        self.cancel_due(&numbers);
    }
}

fn is_told(delivery: &Delivery) -> bool {
    delivery.purpose.is_alert() && delivery.is_out()
}
