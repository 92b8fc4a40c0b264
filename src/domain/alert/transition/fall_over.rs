//! The next channel: a person who is not reached over one is told over another.

use std::sync::Arc;

use super::Changing;
use crate::domain::alert::DeliveryDeed;
use crate::domain::delivery::{Delivery, DeliveryState};

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
            delivery.fall_over_at.is_some_and(|at| failed || (timed && at <= now))
        };
        // Those that are planned meanwhile begin with a time of their own.
        for place in 0..self.alert.deliveries.len() {
            if in_vain(&self.alert.deliveries[place]) {
                self.alert.deliveries[place].fall_over_at = None;
                self.changed = true;
                self.take_next_channel(place);
            }
        }
    }

    fn take_next_channel(&mut self, place: usize) {
        let delivery = &self.alert.deliveries[place];
        let (no, stage, channel) = (delivery.no, delivery.stage, delivery.channel);
        let Some(contact) = self.cx.directory.contact(&delivery.contact) else { return };
        let policy = Arc::clone(&self.alert.policy);
        let (_, channels) = stage.targets(&policy);
        let Some(at) = channels.iter().position(|listed| *listed == channel) else { return };
        let Some(next) = self.plan_over(stage, contact, &channels[at + 1..]) else { return };
        let over = self.alert.delivery(next).map_or(channel, |next| next.channel);
        self.record_delivery(no, DeliveryDeed::FellOver { channel: over, next });
    }
}
