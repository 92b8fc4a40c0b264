//! Numbers that are no longer a person's: nothing is sent there, and the person is told over what they have now.

use std::sync::Arc;

use super::Changing;
use crate::domain::alert::{CancelReason, Deed, DeliveryDeed};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Delivery, Settled, Turn};
use crate::domain::message::Purpose;

impl Changing<'_, '_> {
    /// Whether a message would go to a number that its recipient does not have any more, or that may not be used any more.
    pub(super) fn is_gone(&self, delivery: &Delivery) -> bool {
        !self.cx.directory.reaches(&delivery.contact, delivery.channel, delivery.address_key)
    }

    /// Cancels a message that waits for its turn, and plans another to the same person; where they are no longer set up, to
    /// somebody who is. If that comes to nothing, the next rung does not wait for its time.
    pub(super) fn plan_instead(&mut self, place: usize) {
        let delivery = &mut self.alert.deliveries[place];
        let (no, stage, contact, purpose) = (delivery.no, delivery.stage, delivery.contact.clone(), delivery.purpose);
        let (in_turn, follows) = (delivery.in_turn.clone(), delivery.follows);
        // Else its end would be taken for a failure, and be followed by the channel after its own.
        delivery.fall_over_at = None;
        delivery.cancel(self.cx.now);
        self.out.settled.push((no, Settled::Cancelled));
        let what = DeliveryDeed::Cancelled { attempt: None, reason: Some(CancelReason::NumberGone) };
        self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
        let next = match self.cx.directory.contact(&contact) {
            // What was to be said to this person alone is said to nobody else.
            _ if !purpose.is_alert() => self.plan_notice_after(purpose, &contact, &in_turn, follows),
            Some(contact) => {
                let policy = Arc::clone(&self.alert.policy);
                let channels = if in_turn.is_empty() { stage.targets(&policy).1 } else { &in_turn };
                self.plan_over(contact, &Turn { stage, channels, in_turn: &in_turn, follows })
            }
            None => self.plan_for_anybody(stage),
        };
        match next {
            Some(next) => self.record_fall_over(no, next),
            None if purpose == Purpose::FollowUpReminder => self.pass_follow_up_on(),
            None => self.something_failed |= purpose.is_alert(),
        }
    }
}
