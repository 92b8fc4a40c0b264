//! Emergency contacts of the student: told by a human's decision, or where the policy says so and nobody has answered.
//!
//! Such a message is a disclosure, with a ground of its own. It is tried as any message, over the person's proven numbers one
//! after the other, and nothing of the ladder depends on it: it does not count there, and stops nothing. Who may be told, and
//! where, is the student's word, so that only what is committed with the version of it that was read plans or claims one:
//! whatever else changes an alert leaves these messages to the next wake, which is due at once.

use super::{Changing, Rejection};
use crate::domain::alert::{Alarm, Alert, AlertState, CancelReason, Deed, DeliveryDeed, EmergencyClock, Kind};
use crate::domain::audit::Actor;
use crate::domain::consent::{DisclosureGround, EmergencyContact};
use crate::domain::contact::Channel;
use crate::domain::delivery::{Delivery, DeliveryState, Settled, later};
use crate::domain::ids::{ContactId, DeliveryNo};
use crate::domain::message::Purpose;
use crate::domain::method::Method;
use crate::domain::policy::Stage;

impl Changing<'_, '_> {
    /// A human decides that this person is told.
    pub(super) fn inform(&mut self, contact: &ContactId, ground: &DisclosureGround) -> Result<(), Rejection> {
        if !self.alert.is_open() {
            return Err(Rejection::AlreadyResolved);
        }
        if matches!(self.alert.kind, Kind::Drill) {
            return Err(Rejection::DrillStaysInside);
        }
        let known = self.cx.emergency.and_then(|known| known.contact(contact));
        let known = known.ok_or(Rejection::NoSuchEmergencyContact)?.clone();
        if known.usable().next().is_none() {
            return Err(Rejection::EmergencyContactUnverified);
        }
        let is_theirs = |delivery: &Delivery| delivery.contact == *contact && is_under_way(delivery);
        let under_way: Vec<usize> = (0..self.alert.deliveries.len())
            .filter(|place| {
                let delivery = &self.alert.deliveries[*place];
                is_theirs(delivery) && self.alert.wants(delivery)
            })
            .collect();
        let is_decided = |place: &usize| {
            self.alert.deliveries[*place].disclosure.as_ref().is_some_and(DisclosureGround::is_decision)
        };
        if under_way.iter().any(is_decided) {
            // Asked for twice: it is on its way.
            return Ok(());
        }
        self.record(&Deed::EmergencyContactDecided { contact, ground });
        if under_way.is_empty() {
            self.plan_disclosure(&known, ground, None);
        }
        for place in under_way {
            // What the policy has set going goes on as the human's decision, whatever becomes of the consent.
            self.alert.deliveries[place].disclosure = Some(ground.clone());
        }
        Ok(())
    }

    /// Nobody has answered for as long as the policy waits: those are told whom the student has agreed to.
    pub(super) fn tell_by_policy(&mut self) {
        let (now, Some(known)) = (self.cx.now, self.cx.emergency) else { return };
        if self.alert.emergency_contacts_due_at().is_none_or(|at| at > now) {
            return;
        }
        self.alert.emergency = Some(EmergencyClock::Told { at: now });
        let granted: Vec<EmergencyContact> =
            known.contacts.iter().filter(|contact| contact.is_granted()).cloned().collect();
        let mut untold = Vec::new();
        let planned_before = self.alert.deliveries_planned;
        for contact in &granted {
            let Some(ground) = contact.ground(known.version) else { continue };
            let is_told = self.alert.deliveries.iter().any(|delivery| {
                delivery.purpose == Purpose::EmergencyContact
                    && delivery.contact == contact.id
                    && (is_under_way(delivery) || delivery.has_arrived())
            });
            if is_told {
                // A human was faster.
                continue;
            }
            if !known.has_desk || self.plan_disclosure(contact, &ground, None).is_none() {
                untold.push(contact.id.clone());
            }
        }
        let deliveries = self.alert.deliveries_planned - planned_before;
        let granted = u32::try_from(granted.len()).unwrap_or(u32::MAX);
        self.record(&Deed::EmergencyContactsDue { granted, deliveries });
        for contact in untold {
            self.leave_untold(&contact);
        }
    }

    /// From now on somebody has to answer, or the policy's time for emergency contacts runs.
    pub(super) fn restart_emergency_clock(&mut self) {
        let is_told = matches!(self.alert.emergency, Some(EmergencyClock::Told { .. }));
        if self.alert.version > 0 && self.alert.policy.emergency_contact_after.is_some() && !is_told {
            self.alert.emergency = Some(EmergencyClock::Waiting { since: self.cx.now });
        }
    }

    /// Where the clock was set back, nobody waits until it has caught up.
    pub(super) fn pull_in_emergency_clock(&mut self) {
        if self.alert.emergency_contacts_due_at().is_none() {
            return;
        }
        let (since, now) = (self.alert.waits_since(), self.cx.now);
        if since > now {
            self.alert.emergency = Some(EmergencyClock::Waiting { since: now });
            self.changed = true;
        }
    }

    /// Tells those over their next number whose message has failed, or, where it is `timed`, has not arrived in its time.
    pub(super) fn follow_disclosures(&mut self, timed: bool) {
        if self.cx.emergency.is_none() {
            return;
        }
        let now = self.cx.now;
        for place in 0..self.alert.deliveries.len() {
            let delivery = &self.alert.deliveries[place];
            let due = delivery.fall_over_at.is_some_and(|at| has_ended(delivery) || (timed && at <= now));
            if delivery.purpose != Purpose::EmergencyContact || !due {
                continue;
            }
            self.changed = true;
            let (is_wanted, is_untried) = (self.alert.wants(delivery), delivery.is_untried());
            let delivery = &mut self.alert.deliveries[place];
            if is_wanted && is_untried {
                // It waits for its turn at our own pace, or for Twilio: over another channel it would wait as well.
                delivery.fall_over_at = Some(later(now, self.alert.policy.fall_over_after));
                continue;
            }
            delivery.fall_over_at = None;
            if is_wanted && !delivery.has_arrived() {
                self.disclose_over_next(place);
            }
        }
    }

    /// Cancels a message that must not go out any more, and plans another where the person may still be told.
    pub(super) fn drop_disclosure(&mut self, place: usize, reason: CancelReason) {
        let delivery = &mut self.alert.deliveries[place];
        let no = delivery.no;
        delivery.fall_over_at = None;
        delivery.cancel(self.cx.now);
        self.out.settled.push((no, Settled::Cancelled));
        let what = DeliveryDeed::Cancelled { attempt: None, reason: Some(reason) };
        self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
        self.disclose_over_next(place);
    }

    /// The person's next number; where there is none and nothing else of it is on its way, a human hears of it.
    fn disclose_over_next(&mut self, place: usize) {
        let Some(known) = self.cx.emergency else { return };
        let delivery = self.alert.deliveries[place].clone();
        let Some(ground) = &delivery.disclosure else { return };
        let contact = known.contact(&delivery.contact);
        let may_be_told = contact.filter(|contact| ground.is_decision() || contact.is_granted()).cloned();
        let is_still_meant = may_be_told.is_some() || ground.is_decision();
        let next = may_be_told.and_then(|contact| self.plan_disclosure(&contact, ground, Some(&delivery)));
        if let Some(next) = next {
            let over = self.alert.delivery(next).map_or(delivery.channel, |next| next.channel);
            let what = DeliveryDeed::FellOver { channel: over, next };
            return self.record_as(&Actor::Service, &Deed::Delivery { delivery: delivery.no, what });
        }
        let of_same = |other: &&Delivery| other.contact == delivery.contact && other.disclosure == delivery.disclosure;
        let is_hopeless = self.alert.deliveries.iter().filter(of_same).all(has_ended);
        if is_still_meant && is_hopeless {
            self.leave_untold(&delivery.contact);
        }
    }

    fn leave_untold(&mut self, contact: &ContactId) {
        self.record_as(&Actor::Service, &Deed::EmergencyContactUntold { contact });
        if !self.out.alarms.contains(&Alarm::EmergencyContactUntold) {
            self.out.alarms.push(Alarm::EmergencyContactUntold);
        }
    }

    /// Plans a message over the person's first number that may be used, of those after this message's.
    fn plan_disclosure(
        &mut self,
        contact: &EmergencyContact,
        ground: &DisclosureGround,
        after: Option<&Delivery>,
    ) -> Option<DeliveryNo> {
        let is_it = |method: &Method| after.is_some_and(|after| after.channel == method.channel);
        let place = contact.methods.iter().position(is_it);
        let tried = |channel: Channel| {
            let same = |delivery: &Delivery| {
                delivery.contact == contact.id
                    && delivery.channel == channel
                    && delivery.disclosure.as_ref() == Some(ground)
            };
            self.alert.deliveries.iter().any(same)
        };
        let rest = contact.methods.iter().skip(place.map_or(0, |place| place + 1));
        let mut usable = rest.filter(|method| !tried(method.channel)).filter_map(|method| method.usable());
        let method = usable.next()?;
        let has_next = usable.next().is_some();
        drop(usable);
        let person = contact.as_contact(&self.alert.organisation, self.alert.subject);
        let stage = self.alert.deliveries.last().map_or(Stage::FIRST, |delivery| delivery.stage);
        let no = self.plan_message(stage, Purpose::EmergencyContact, &person, &method);
        let fall_over_at = has_next.then(|| later(self.cx.now, self.alert.policy.fall_over_after));
        if let Some(planned) = self.alert.deliveries.last_mut() {
            (planned.disclosure, planned.fall_over_at) = (Some(ground.clone()), fall_over_at);
            planned.follows = after.map(|after| after.no);
        }
        Some(no)
    }

    /// A message to an emergency contact has failed: the next wake, which knows the student's word, follows it up at once.
    pub(super) fn hasten_disclosure(&mut self, no: DeliveryNo) {
        let now = self.cx.now;
        let is_it = |delivery: &&mut Delivery| delivery.no == no && delivery.purpose == Purpose::EmergencyContact;
        if let Some(delivery) = self.alert.deliveries.iter_mut().find(is_it) {
            delivery.fall_over_at = Some(now);
        }
    }

    /// Nobody outside the team takes a case, hands it on or closes it.
    pub(super) fn refuse_outsider(&self) -> Result<(), Rejection> {
        if self.is_outsider() { Err(Rejection::OutsideTheTeam) } else { Ok(()) }
    }

    /// Whether whoever acts was told of this case as an emergency contact of the student, and never otherwise.
    pub(super) fn is_outsider(&self) -> bool {
        let Actor::Contact { contact } = self.cx.actor else { return false };
        let mut told = self.alert.deliveries.iter().filter(|delivery| delivery.contact == *contact).peekable();
        told.peek().is_some() && told.all(|delivery| delivery.purpose == Purpose::EmergencyContact)
    }
}

impl Alert {
    /// When the policy has the student's emergency contacts told, unless somebody takes the case before; `None`: it does
    /// not, or has.
    pub fn emergency_contacts_due_at(&self) -> Option<jiff::Timestamp> {
        let after = self.policy.emergency_contact_after?;
        let waits = matches!((self.kind, &self.state), (Kind::Live, AlertState::Escalating { .. }));
        let is_told = matches!(self.emergency, Some(EmergencyClock::Told { .. }));
        (waits && !is_told).then(|| later(self.waits_since(), after))
    }

    fn waits_since(&self) -> jiff::Timestamp {
        match self.emergency {
            Some(EmergencyClock::Waiting { since }) => since,
            Some(EmergencyClock::Told { .. }) | None => self.opened_at,
        }
    }

    /// Whether a wake at `now` has to know the student's emergency contacts.
    pub fn asks_for_emergency_contacts(&self, now: jiff::Timestamp) -> bool {
        let is_due = self.emergency_contacts_due_at().is_some_and(|at| at <= now);
        is_due || self.deliveries.iter().any(is_under_way)
    }
}

/// Whether something is still to come of a message to an emergency contact that has not arrived.
fn is_under_way(delivery: &Delivery) -> bool {
    delivery.purpose == Purpose::EmergencyContact && delivery.next_action_at().is_some() && !delivery.has_arrived()
}

fn has_ended(delivery: &Delivery) -> bool {
    matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. })
}
