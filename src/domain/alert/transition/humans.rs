//! What humans decide: take it, say that they are on it, close it; and what they write besides.

use jiff::Timestamp;

use super::{Changing, Rejection, ToldAgain};
use crate::domain::alert::{
    AckVia, AgainDeed, Alarm, AlertState, Channel, Deed, DeliveryDeed, FollowUp, Kind, Outcome, Taken,
};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Settled, later};
use crate::domain::ids::DeliveryNo;
use crate::domain::sealed::Sealed;

/// How many replies of the student's emergency contacts are kept for one alert.
const OUTSIDE_REPLIES_MAX: u32 = 20;
/// How many replies that ask for nothing are kept for one alert.
const REPLIES_MAX: u32 = 100;

impl Changing<'_, '_> {
    pub(super) fn acknowledge(&mut self, via: AckVia) -> Result<(), Rejection> {
        self.refuse_outsider()?;
        match self.alert.state {
            AlertState::Escalating { .. } => {}
            AlertState::Acknowledged { .. } => return Err(Rejection::AlreadyAcknowledged),
            AlertState::Withheld { .. } => return Err(Rejection::IsWithheld),
            AlertState::Resolved { .. } => return Err(Rejection::AlreadyResolved),
        }
        let at = self.cx.now;
        let action_due_at = later(at, self.alert.policy.act_within);
        self.record(&Deed::Acknowledged { via, action_due_at });
        let by = self.cx.actor.clone();
        self.alert.state = AlertState::Acknowledged { by, via, at, action_due_at, reminded_at: None };
        (self.out.in_human_hands, self.out.left_ladder) = (true, true);
        self.cancel_outstanding();
        self.tell_others_that_it_is_taken();
        // There is nobody to be looked after.
        if self.alert.is_exercise() { self.resolve(Outcome::Drill, None, None) } else { Ok(()) }
    }

    /// Every round of a drill was in vain.
    pub(super) fn end_drill(&mut self) {
        self.record(&Deed::Resolved { outcome: Outcome::Drill, note: None, follow_up_at: None });
        let by = self.cx.actor.clone();
        self.alert.state =
            AlertState::Resolved { by, outcome: Outcome::Drill, at: self.cx.now, follow_up: None, taken: None };
        self.cancel_outstanding();
        self.out.in_human_hands = true;
        self.out.alarms.push(Alarm::DrillUnanswered);
    }

    /// Whoever has it goes on: the second clock begins anew.
    pub(super) fn check_in(&mut self) -> Result<(), Rejection> {
        self.refuse_outsider()?;
        let AlertState::Acknowledged { by, action_due_at, reminded_at, .. } = &mut self.alert.state else {
            return Err(match self.alert.state {
                AlertState::Resolved { .. } => Rejection::AlreadyResolved,
                AlertState::Escalating { .. } | AlertState::Withheld { .. } | AlertState::Acknowledged { .. } => {
                    Rejection::NotAcknowledged
                }
            });
        };
        if matches!(self.cx.actor, Actor::Contact { .. }) && by != self.cx.actor {
            return Err(Rejection::AlreadyAcknowledged);
        }
        *action_due_at = later(self.cx.now, self.alert.policy.act_within);
        *reminded_at = None;
        let action_due_at = *action_due_at;
        self.record(&Deed::CheckedIn { action_due_at });
        self.cancel_reminders();
        Ok(())
    }

    /// Words that ask for nothing are kept, whatever has become of the case: who writes them may be in distress, too.
    ///
    /// An emergency contact may hear once more whom to call: that is a disclosure as their message was, on the same ground.
    pub(super) fn keep_reply(&mut self, channel: Channel, again: Option<&ToldAgain>) -> Result<(), Rejection> {
        let is_outside = self.is_outsider();
        let (kept, most) = match is_outside {
            true => (&mut self.alert.outside_replies, OUTSIDE_REPLIES_MAX),
            false => (&mut self.alert.replies, REPLIES_MAX),
        };
        if *kept >= most {
            return Err(Rejection::RepliesFull);
        }
        *kept += 1;
        let number = *kept;
        let Some(ToldAgain { delivery, disclosed }) = again else {
            self.record(&Deed::ReplyKept { channel, number, told_again: None });
            return Ok(());
        };
        let told = self.alert.delivery(*delivery).filter(|told| is_outside && self.alert.wants(told));
        let disclosure = told.and_then(|told| told.disclosure.clone()).ok_or(Rejection::NoSuchEmergencyContact)?;
        let told_again = Some(AgainDeed { delivery: *delivery, disclosure: &disclosure, disclosed });
        self.record(&Deed::ReplyKept { channel, number, told_again });
        Ok(())
    }

    pub(super) fn resolve(
        &mut self,
        outcome: Outcome,
        note: Option<&Sealed>,
        follow_up_at: Option<Timestamp>,
    ) -> Result<(), Rejection> {
        if !self.alert.is_open() {
            return Err(Rejection::AlreadyResolved);
        }
        self.refuse_outsider()?;
        if matches!(outcome, Outcome::Drill) != matches!(self.alert.kind, Kind::Drill) {
            return Err(Rejection::WrongOutcome);
        }
        self.record(&Deed::Resolved { outcome, note, follow_up_at });
        let taken = match &self.alert.state {
            AlertState::Acknowledged { by, via, at, .. } => Some(Taken { by: by.clone(), via: *via, at: *at }),
            AlertState::Escalating { .. } | AlertState::Withheld { .. } | AlertState::Resolved { .. } => None,
        };
        let was_taken = taken.is_some();
        let follow_up = follow_up_at.map(FollowUp::due);
        let by = self.cx.actor.clone();
        self.alert.state = AlertState::Resolved { by, outcome, at: self.cx.now, follow_up, taken };
        self.out.in_human_hands = true;
        self.cancel_outstanding();
        if !was_taken {
            self.out.left_ladder = true;
            self.tell_others_that_it_is_taken();
        }
        Ok(())
    }

    /// Whatever the alert does not want any more.
    pub(super) fn cancel_outstanding(&mut self) {
        let deliveries = self.alert.deliveries.iter();
        let unwanted: Vec<DeliveryNo> =
            deliveries.filter(|delivery| !self.alert.wants(delivery)).map(|delivery| delivery.no).collect();
        for delivery in self.alert.deliveries.iter_mut().filter(|delivery| unwanted.contains(&delivery.no)) {
            delivery.fall_over_at = None;
        }
        self.cancel_due(&unwanted);
    }

    pub(super) fn cancel_due(&mut self, numbers: &[DeliveryNo]) {
        let now = self.cx.now;
        let among = self.alert.deliveries.iter_mut().filter(|delivery| numbers.contains(&delivery.no));
        let cancelled: Vec<DeliveryNo> =
            among.filter_map(|delivery| delivery.cancel(now).then_some(delivery.no)).collect();
        for no in cancelled {
            self.out.settled.push((no, Settled::Cancelled));
            self.record_delivery(no, DeliveryDeed::Cancelled { attempt: None, reason: None });
        }
    }
}
