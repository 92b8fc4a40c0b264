//! What the provider tells: outcomes of calls, look-ups, receipts.

use super::{Changing, Rejection};
use crate::domain::alert::{Alarm, Deed, DeliveryDeed};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Attempt, Change, Delivery, FailureReason, Settled};
use crate::domain::ids::{AttemptNo, DeliveryNo};
use crate::domain::provider::{ErrorClass, Receipt, SendOutcome};

impl<'a> Changing<'a, '_> {
    pub(super) fn delivery_change(&self, delivery: &Delivery) -> Change<'a> {
        Change {
            now: self.cx.now,
            jitter: self.cx.jitter,
            rules: &self.cx.rules.delivery,
            still_wanted: self.alert.wants(delivery),
        }
    }

    fn delivery_mut(&mut self, no: DeliveryNo) -> Result<(&mut Delivery, Change<'a>), Rejection> {
        let place = self.alert.deliveries.iter().position(|delivery| delivery.no == no);
        let place = place.ok_or(Rejection::NoSuchDelivery)?;
        let change = self.delivery_change(&self.alert.deliveries[place]);
        Ok((&mut self.alert.deliveries[place], change))
    }

    pub(super) fn settle(
        &mut self,
        no: DeliveryNo,
        attempt: AttemptNo,
        outcome: &SendOutcome,
    ) -> Result<(), Rejection> {
        self.changing_attempt(no, attempt, |delivery, change| delivery.settle(attempt, outcome, change))
    }

    pub(super) fn not_found(&mut self, no: DeliveryNo, attempt: AttemptNo, answered: bool) -> Result<(), Rejection> {
        self.changing_attempt(no, attempt, |delivery, change| delivery.look_up_failed(attempt, answered, change))
    }

    pub(super) fn find(&mut self, no: DeliveryNo, attempt: AttemptNo, receipt: &Receipt) -> Result<(), Rejection> {
        let id = Some(&receipt.provider_id);
        let anothers = self.alert.deliveries.iter().any(|delivery| {
            let others = |other: &&Attempt| (delivery.no, other.no) != (no, attempt);
            delivery.attempts.iter().filter(others).any(|other| other.provider_id.as_ref() == id)
        });
        // The next look-up is booked already, and knows whose the message is.
        if anothers { Ok(()) } else { self.receive(no, attempt, receipt) }
    }

    pub(super) fn receive(&mut self, no: DeliveryNo, attempt: AttemptNo, receipt: &Receipt) -> Result<(), Rejection> {
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
        let was_out = delivery.is_out();
        let settled = change(delivery, &cx);
        if delivery.has_arrived() {
            delivery.fall_over_at = None;
        }
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
        self.spare_next_channel(no);
        // How far it got since is no news of who has the case.
        if !was_out {
            self.tell_if_taken_meanwhile(no);
        }
        Ok(())
    }

    /// Books where a delivery went; `attempt` is 0 where none was in hand.
    pub(super) fn note(&mut self, no: DeliveryNo, attempt: AttemptNo, settled: Settled) {
        self.changed = true;
        self.out.settled.push((no, settled));
        let delivery = self.alert.deliveries.iter().find(|delivery| delivery.no == no);
        let fault = delivery.and_then(|delivery| delivery.attempt(attempt)).and_then(|attempt| attempt.fault);
        let purpose = delivery.map(|delivery| delivery.purpose);
        let is_alert = purpose.is_some_and(|purpose| purpose.is_alert());
        let is_of_team = purpose.is_some_and(|purpose| purpose.is_for_team());
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
                // Nothing of the ladder depends on what is no alert.
                self.something_failed |= is_alert;
                self.hasten_disclosure(no);
                let mut refused = |class| {
                    let code = fault.and_then(|fault| fault.code);
                    self.out.alarms.push(Alarm::ProviderRefused { class, code });
                };
                match (reason, class) {
                    (FailureReason::Exhausted, _) if is_alert => self.out.alarms.push(Alarm::DeliveryExhausted),
                    // What only an operator can mend is theirs to hear of, whatever was to be said: the next one fails alike.
                    (FailureReason::Refused, Some(class @ (ErrorClass::Config | ErrorClass::Template))) => {
                        refused(class)
                    }
                    // Somebody of the team takes nothing from us any more. To whom relatives listen is their own affair.
                    (FailureReason::Refused, Some(class @ ErrorClass::OptOut)) if is_of_team => refused(class),
                    (
                        FailureReason::Exhausted
                        | FailureReason::Refused
                        | FailureReason::NotComposable
                        | FailureReason::NotReached,
                        _,
                    ) => {}
                }
                self.follow_notice(no);
            }
            Settled::Cancelled => {
                // Whoever told what came of the attempt, it is the service that gives up.
                let what =
                    DeliveryDeed::Cancelled { attempt: (attempt != AttemptNo(0)).then_some(attempt), reason: None };
                self.record_as(&Actor::Service, &Deed::Delivery { delivery: no, what });
            }
            Settled::Accepted | Settled::Progressed | Settled::Unchanged => {}
        }
    }
}
