//! Receipts: what Twilio tells of a message, by callback, look-up or poll.

use jiff::Timestamp;

use super::{Service, ServiceError};
use crate::alarm::provider::Sign;
use crate::domain::alert::{Alert, Input, Kind as AlertKind, Reached, Transition};
use crate::domain::audit::Actor;
use crate::domain::contact::Channel;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::ids::{AttemptNo, AttemptRef, DeliveryNo};
use crate::domain::provider::{MessageStatus, Receipt};

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It told something new.
    New,
    /// Late, repeated or out of order: it changed nothing.
    Known,
    /// Of no attempt that is known here.
    Unmatched,
}

impl Service {
    /// Books a callback. It finds its attempt by the ids in its URL, else by Twilio's own id.
    pub async fn record_receipt(
        &self,
        attempt: Option<AttemptRef>,
        receipt: &Receipt,
    ) -> Result<Recorded, ServiceError> {
        let alert = match attempt {
            Some(attempt) => self.store.alert(attempt.alert).await?,
            None => self.store.alert_of_message(&receipt.provider_id).await?,
        };
        let Some(alert) = alert else { return Ok(Recorded::Unmatched) };
        let found = match attempt {
            Some(attempt) => Some((attempt.delivery, attempt.attempt)),
            None => attempt_with(&alert, receipt),
        };
        let Some((delivery, attempt)) = found else { return Ok(Recorded::Unmatched) };
        let unheard = channel_unheard_of(&alert, delivery, attempt);
        let channel = alert.delivery(delivery).map(|delivery| delivery.channel);
        match self.receive(alert, delivery, attempt, receipt.clone()).await {
            Ok(changed) => {
                let sign = if changed.is_some() && unheard.is_some() { Sign::Told } else { Sign::ToldMore };
                if let Some(channel) = channel {
                    self.alarms.see_provider(channel, sign);
                }
                Ok(if changed.is_some() { Recorded::New } else { Recorded::Known })
            }
            Err(ServiceError::Rejected(_)) => Ok(Recorded::Unmatched),
            Err(error) => Err(error),
        }
    }

    /// Merges a receipt into its delivery, whatever way it came.
    pub(crate) async fn receive(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        receipt: Receipt,
    ) -> Result<Option<Transition>, ServiceError> {
        let told = Told::of(&receipt);
        self.merge(alert, delivery, Input::Received { delivery, attempt, receipt }, told).await
    }

    /// Books that a look-up found an unknown attempt's message.
    pub(crate) async fn found(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        receipt: Receipt,
    ) -> Result<Option<Transition>, ServiceError> {
        let receipt = receipt.unless_told();
        let told = Told::of(&receipt);
        self.merge(alert, delivery, Input::Found { delivery, attempt, receipt }, told).await
    }

    async fn merge(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        input: Input,
        Told { status, code }: Told,
    ) -> Result<Option<Transition>, ServiceError> {
        let before = Reach::of(&alert, delivery);
        let channel = alert.delivery(delivery).map(|delivery| delivery.channel);
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            // That a phone is engaged or not picked up says nothing of the provider.
            let is_its = status.is_failure() && !status.is_unreached();
            if let Some(channel) = channel.filter(|_| is_its) {
                self.alarms.see_provider(channel, Sign::FailedLater);
            }
            self.metrics.receipt(status.word());
            self.observe(&transition.alert, delivery, before);
            self.note_opt_outs(transition).await;
            self.note_fault(&transition.alert, delivery, code).await;
            if !before.phone {
                self.note_arrival(&transition.alert, delivery).await;
            }
        }
        Ok(changed)
    }

    /// Times until Twilio and the phone had a message, and until they had the first of its case, however many attempts that
    /// took. Leaving out the slow ones would make the figures look best when they are worst.
    pub(crate) fn observe(&self, alert: &Alert, no: DeliveryNo, before: Reach) {
        if matches!(alert.kind, AlertKind::Drill) {
            return;
        }
        let Some(delivery) = alert.delivery(no).filter(|delivery| delivery.purpose.is_alert()) else { return };
        let (way, now) = ((delivery.channel, delivery.stage), Reach::of(alert, no));
        let planned = |at: Timestamp| seconds(delivery.planned_at, at);
        if now.provider && !before.provider {
            self.metrics.reached_provider(way, planned(alert.updated_at));
        }
        if let Some(at) = delivery.arrived_at().filter(|_| !before.phone) {
            self.metrics.reached_phone(way, planned(at));
        }
        let Some(Reached { since, provider_at, phone_at }) = alert.reached else { return };
        if let Some(at) = provider_at.filter(|_| !before.case_provider) {
            self.metrics.case_reached_provider(way, seconds(since, at));
        }
        if let Some(at) = phone_at.filter(|_| !before.case_phone) {
            self.metrics.case_reached_phone(way, seconds(since, at));
        }
    }
}

impl Service {
    /// Twilio is about to be asked for the first time of a message of which it has told nothing.
    pub(crate) fn note_silence(&self, alert: &Alert, delivery: DeliveryNo, attempt: AttemptNo) {
        let is_first = |delivery: &Delivery| matches!(delivery.state, DeliveryState::Accepted { polls: 1, .. });
        if alert.delivery(delivery).is_some_and(is_first)
            && let Some(channel) = channel_unheard_of(alert, delivery, attempt)
        {
            self.alarms.see_provider(channel, Sign::Silent);
        }
    }
}

/// The channel of a message, if Twilio has told nothing of it since it took it.
fn channel_unheard_of(alert: &Alert, delivery: DeliveryNo, attempt: AttemptNo) -> Option<Channel> {
    let delivery = alert.delivery(delivery)?;
    let status = delivery.attempt(attempt)?.status;
    let is_on_its_way = |status: MessageStatus| status.rank() >= MessageStatus::Sent.rank();
    (!status.is_some_and(is_on_its_way)).then_some(delivery.channel)
}

/// What a receipt says, where the receipt itself is handed on.
#[derive(Debug, Clone, Copy)]
struct Told {
    status: MessageStatus,
    code: Option<u32>,
}

impl Told {
    fn of(receipt: &Receipt) -> Self {
        Self { status: receipt.status, code: receipt.fault.and_then(|fault| fault.code) }
    }
}

/// How far a message has got, and its case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    provider: bool,
    phone: bool,
    case_provider: bool,
    case_phone: bool,
}

impl Reach {
    pub(crate) fn of(alert: &Alert, no: DeliveryNo) -> Self {
        let delivery = alert.delivery(no);
        // What was stored before this was noted shows it by its messages only.
        let any = |is_it: fn(&Delivery) -> bool| {
            alert.deliveries.iter().any(|delivery| delivery.purpose.is_alert() && is_it(delivery))
        };
        let noted = |at: fn(Reached) -> Option<Timestamp>| alert.reached.and_then(at).is_some();
        Self {
            provider: delivery.is_some_and(Delivery::has_reached_provider),
            phone: delivery.is_some_and(Delivery::has_arrived),
            case_provider: noted(|reached| reached.provider_at) || any(Delivery::has_reached_provider),
            case_phone: noted(|reached| reached.phone_at) || any(Delivery::has_arrived),
        }
    }
}

/// Seconds since people began to be told of a case until it changed last.
pub(crate) fn seconds_since_told(alert: &Alert) -> f64 {
    seconds(alert.reached.map_or(alert.opened_at, |reached| reached.since), alert.updated_at)
}

/// A clock that was set back makes no time negative.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

fn attempt_with(alert: &Alert, receipt: &Receipt) -> Option<(DeliveryNo, AttemptNo)> {
    alert.deliveries.iter().find_map(|delivery| {
        let attempt =
            delivery.attempts.iter().find(|attempt| attempt.provider_id.as_ref() == Some(&receipt.provider_id))?;
        Some((delivery.no, attempt.no))
    })
}
