//! What time makes due: stages, leases that ran out, look-ups, polls, and claims.

use std::time::Duration;

use super::Changing;
use crate::domain::alert::{Action, Alarm, AlertState, Deed, DeliveryDeed};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Delivery, DeliveryState, Disclosed, FailureReason, Lease, Settled, later, nearer};
use crate::domain::ids::AttemptNo;
use crate::domain::message::{Composed, Purpose};
use crate::domain::policy::Stage;
use crate::domain::provider::UnknownCause;

impl Changing<'_, '_> {
    pub(super) fn wake(&mut self, sole_owner_restarted: bool) {
        self.pull_in();
        self.expire_leases(sole_owner_restarted);
        if sole_owner_restarted {
            self.hasten_look_ups();
        }
        match self.alert.state {
            AlertState::Escalating { stage, next_step_at, .. } if next_step_at <= self.cx.now => {
                let next = stage.next(&self.alert.policy);
                // A live case is told without end, a drill is not.
                match next {
                    Stage::LastResponder { times: 2.. } if self.alert.is_exercise() => self.end_drill(),
                    Stage::Step { .. } | Stage::LastResponder { .. } => self.enter(next),
                }
            }
            AlertState::Acknowledged { action_due_at, .. } if action_due_at <= self.cx.now => {
                if !self.remind() {
                    self.reopen();
                }
            }
            AlertState::Resolved { follow_up: Some(ref follow_up), .. }
                if follow_up.next_at().is_some_and(|at| at <= self.cx.now) =>
            {
                self.remind_of_follow_up();
            }
            AlertState::Escalating { .. }
            | AlertState::Acknowledged { .. }
            | AlertState::Withheld { .. }
            | AlertState::Resolved { .. } => {}
        }
        self.fall_over(true);
        self.tell_by_policy();
        self.follow_disclosures(true);
        self.ask_provider();
    }

    /// Nobody said in time what became of it.
    fn reopen(&mut self) {
        self.record(&Deed::Reopened);
        self.out.alarms.push(Alarm::Reopened);
        // Without a ground nobody may be told again: people who may decide otherwise see it as withheld.
        if self.alert.ground.is_some() { self.enter(Stage::FIRST) } else { self.withhold() }
    }

    /// Where the clock was set back, nothing waits until it has caught up: see [`Delivery::pull_in`].
    fn pull_in(&mut self) {
        let (now, policy) = (self.cx.now, std::sync::Arc::clone(&self.alert.policy));
        self.changed |= match &mut self.alert.state {
            AlertState::Escalating { stage, next_step_at, .. } => {
                nearer(next_step_at, later(now, stage.patience(&policy)))
            }
            AlertState::Acknowledged { at, action_due_at, reminded_at, .. } => {
                let longest = if reminded_at.is_some() { policy.check_in_within } else { policy.act_within };
                // What is planned from now on came after that.
                let was_ahead = nearer(at, now) | reminded_at.as_mut().is_some_and(|at| nearer(at, now));
                nearer(action_due_at, later(now, longest)) | was_ahead
            }
            // A follow-up is due on a day, not after a time.
            AlertState::Withheld { .. } | AlertState::Resolved { .. } => false,
        };
        self.pull_in_emergency_clock();
        let Some(lease) = self.cx.lease else { return };
        for delivery in &mut self.alert.deliveries {
            self.changed |= delivery.pull_in(now, lease, &self.cx.rules.delivery);
            if let Some(at) = &mut delivery.fall_over_at {
                self.changed |= nearer(at, later(now, policy.fall_over_after));
            }
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
        for place in 0..self.alert.deliveries.len() {
            let change = self.delivery_change(&self.alert.deliveries[place]);
            let delivery = &mut self.alert.deliveries[place];
            if delivery.state_due_at().is_none_or(|at| at > now) {
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

    /// Takes what is due in hand, and follows up with the next channel whatever has failed, until nothing further is planned.
    pub(super) fn claim_and_follow(&mut self) {
        loop {
            self.fall_over(false);
            self.follow_disclosures(false);
            let planned = self.alert.deliveries_planned;
            self.claim_due();
            self.fall_over(false);
            self.follow_disclosures(false);
            if self.alert.deliveries_planned == planned {
                return;
            }
        }
    }

    /// Takes what is due in hand, under the situation's lease.
    fn claim_due(&mut self) {
        let Some(lease) = self.cx.lease else { return };
        for place in 0..self.alert.deliveries.len() {
            let delivery = &self.alert.deliveries[place];
            let DeliveryState::Due { at } = delivery.state else { continue };
            if at > self.cx.now || !self.alert.wants(delivery) {
                continue;
            }
            if !self.alert.is_urgent(delivery) {
                let wait = self.cx.phones.wait(delivery.address_key, self.cx.now);
                if !wait.is_zero() {
                    self.put_off(place, wait);
                    continue;
                }
            }
            if delivery.purpose == Purpose::EmergencyContact {
                // Where the student's word was not read, the next wake has it.
                match self.cx.emergency.map(|known| known.may_disclose(delivery)) {
                    None => {}
                    Some(Ok(ground)) => self.claim_with_text(place, lease, ground),
                    Some(Err(reason)) => self.drop_disclosure(place, reason),
                }
                continue;
            }
            if self.is_gone(delivery) {
                self.plan_instead(place);
                continue;
            }
            let Some(ground) = self.alert.ground.as_ref().filter(|ground| ground.allows(delivery.channel)) else {
                // Planned on a ground that another has replaced since. It must not be sent, nor wait for ever.
                let no = delivery.no;
                self.alert.deliveries[place].cancel(self.cx.now);
                self.something_failed = true;
                self.note(no, AttemptNo(0), Settled::Cancelled);
                self.follow_notice(no);
                continue;
            };
            let ground = ground.kind();
            self.claim_with_text(place, lease, ground);
        }
    }

    /// What can wait is not even claimed while its phone has had enough for a minute: each claim would be an entry of the audit.
    fn put_off(&mut self, place: usize, wait: Duration) {
        self.alert.deliveries[place].put_off(later(self.cx.now, wait));
        self.out.put_off += 1;
        self.changed = true;
    }

    fn claim_with_text(&mut self, place: usize, lease: &Lease, ground: &'static str) {
        let delivery = &self.alert.deliveries[place];
        match self.cx.composer.compose(&self.alert.facts(delivery, self.taken_by())) {
            Some(message) => self.claim(place, lease.clone(), ground, message),
            None => {
                let no = delivery.no;
                let settled = self.alert.deliveries[place].fail(FailureReason::NotComposable, None, self.cx.now);
                self.out.alarms.push(Alarm::NotComposable);
                self.note(no, AttemptNo(0), settled);
            }
        }
    }

    fn claim(&mut self, place: usize, lease: Lease, ground: &'static str, message: Composed) {
        let disclosed = Disclosed::of(&message);
        let delivery = &mut self.alert.deliveries[place];
        let holder = lease.owner.clone();
        let attempt = delivery.claim(self.cx.now, lease, disclosed.clone());
        let (no, contact) = (delivery.no, delivery.contact.clone());
        let (role, channel, address) = (delivery.role, delivery.channel, delivery.address_key);
        let disclosure = delivery.disclosure.clone();
        // A live alert is never held back on that account; that it was due to be is recorded.
        let is_urgent = self.alert.is_urgent(&self.alert.deliveries[place]);
        let past_phone_pace = is_urgent && !self.cx.phones.wait(address, self.cx.now).is_zero();
        self.out.past_phone_pace += u32::from(past_phone_pace);
        let what = DeliveryDeed::AttemptBegun {
            attempt,
            contact: &contact,
            role,
            channel,
            address,
            ground,
            disclosure: disclosure.as_ref(),
            holder: &holder,
            disclosed: &disclosed,
            past_phone_pace,
        };
        // Whoever set the alert going, it is the service that sends.
        self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
        self.out.actions.push(Action::Send { delivery: no, attempt, message });
    }
}

fn current_attempt(delivery: &Delivery) -> AttemptNo {
    delivery.attempts.last().map_or(AttemptNo(0), |attempt| attempt.no)
}
