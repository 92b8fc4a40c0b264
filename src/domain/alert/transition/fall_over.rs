//! The next channel: a person who is not reached over one is told over another.

use std::sync::Arc;

use super::Changing;
use crate::domain::alert::{Deed, DeliveryDeed};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Delivery, DeliveryState, Settled, Turn, later};
use crate::domain::ids::{AttemptNo, DeliveryNo};

impl Changing<'_, '_> {
    /// Tells those over their next channel whose message has failed, or, where it is `timed`, has not arrived in its time.
    /// What is still under way over the first channel goes on: two messages are better than none.
    pub(super) fn fall_over(&mut self, timed: bool) {
        if !self.still_wanted() {
            return;
        }
        let now = self.cx.now;
        let in_vain = |delivery: &Delivery| {
            let failed = matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
            let is_due = delivery.fall_over_at.is_some_and(|at| failed || (timed && at <= now));
            is_due && delivery.purpose.is_alert()
        };
        // Those that are planned meanwhile begin with a time of their own.
        for place in 0..self.alert.deliveries.len() {
            let delivery = &mut self.alert.deliveries[place];
            if !in_vain(delivery) {
                continue;
            }
            self.changed = true;
            if delivery.is_untried() {
                // It waits for its turn at our own pace, or for Twilio: over another channel it would wait as well.
                delivery.fall_over_at = Some(later(now, self.alert.policy.fall_over_after));
                continue;
            }
            delivery.fall_over_at = None;
            if !delivery.has_arrived() {
                self.take_next_channel(place);
            }
        }
    }

    fn take_next_channel(&mut self, place: usize) {
        let delivery = &self.alert.deliveries[place];
        let (no, stage, channel) = (delivery.no, delivery.stage, delivery.channel);
        let (policy, in_turn) = (Arc::clone(&self.alert.policy), delivery.in_turn.clone());
        let channels = if in_turn.is_empty() { stage.targets(&policy).1 } else { &in_turn };
        // The last place of the name, so that what is left gets less each time.
        let rest = channels.iter().rposition(|listed| *listed == channel).map_or(&[][..], |at| &channels[at + 1..]);
        let next = match self.cx.directory.contact(&delivery.contact) {
            Some(contact) => {
                let turn = Turn { stage, channels: rest, in_turn: &in_turn, follows: Some(no) };
                self.plan_over(contact, &turn)
            }
            None => self.plan_for_anybody(stage),
        };
        if let Some(next) = next {
            self.record_fall_over(no, next);
        }
    }

    /// Books which message follows this one over another channel.
    pub(super) fn record_fall_over(&mut self, no: DeliveryNo, next: DeliveryNo) {
        let Some(channel) = self.alert.delivery(next).map(|next| next.channel) else { return };
        let what = DeliveryDeed::FellOver { channel, next };
        self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
    }

    /// A message has arrived: what follows it over a further channel, and was never tried, is not needed any more. What was
    /// planned for another reason is, however alike it looks: another round's, or a notice.
    pub(super) fn spare_next_channel(&mut self, arrived: DeliveryNo) {
        if !self.alert.delivery(arrived).is_some_and(Delivery::has_arrived) {
            return;
        }
        let now = self.cx.now;
        // What follows comes after: one look finds all.
        let mut line = vec![arrived];
        for delivery in &self.alert.deliveries {
            if delivery.follows.is_some_and(|before| line.contains(&before)) {
                line.push(delivery.no);
            }
        }
        let follows = |other: &Delivery| other.no != arrived && line.contains(&other.no);
        let spared: Vec<DeliveryNo> = self
            .alert
            .deliveries
            .iter_mut()
            .filter(|other| follows(other) && other.is_untried())
            .filter_map(|other| {
                // Else its end would be taken for a failure, and be followed by a third channel.
                other.fall_over_at = None;
                other.cancel(now).then_some(other.no)
            })
            .collect();
        for no in spared {
            self.note(no, AttemptNo(0), Settled::Cancelled);
        }
    }
}
