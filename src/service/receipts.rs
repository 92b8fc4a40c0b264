//! Receipts: what Twilio tells of a message, by callback, look-up or poll.

use super::{Service, ServiceError};
use crate::alarm::provider::Sign;
use crate::domain::alert::{Alert, Input, Kind as AlertKind, Transition};
use crate::domain::audit::Actor;
use crate::domain::contact::Channel;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::ids::{AttemptNo, AttemptRef, DeliveryNo};
use crate::domain::message::Purpose;
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
        match self.receive(alert, delivery, attempt, receipt.clone()).await {
            Ok(Some(_)) => {
                if let Some(channel) = unheard {
                    self.alarms.see_provider(channel, Sign::Told);
                }
                Ok(Recorded::New)
            }
            Ok(None) => Ok(Recorded::Known),
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
        let status = receipt.status;
        self.merge(alert, delivery, Input::Received { delivery, attempt, receipt }, status).await
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
        let status = receipt.status;
        self.merge(alert, delivery, Input::Found { delivery, attempt, receipt }, status).await
    }

    async fn merge(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        input: Input,
        status: MessageStatus,
    ) -> Result<Option<Transition>, ServiceError> {
        let before = Reach::of(&alert);
        let channel = alert.delivery(delivery).map(|delivery| delivery.channel);
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            // That a phone is engaged or not picked up says nothing of the provider.
            let is_its = status.is_failure() && !status.is_unreached();
            if let Some(channel) = channel.filter(|_| is_its) {
                self.alarms.see_provider(channel, Sign::FailedLater);
            }
            self.metrics.receipt(status.word());
            self.observe(&transition.alert, before);
            self.note_opt_outs(transition).await;
        }
        Ok(changed)
    }

    /// Times from the event to the provider and to the phone: of a case's first message that got there, however many
    /// attempts that took. Leaving out the slow ones would make the figures look best when they are worst.
    pub(crate) fn observe(&self, alert: &Alert, before: Reach) {
        if matches!(alert.kind, AlertKind::Drill) {
            return;
        }
        let (since, now) = (seconds_since_told(alert), Reach::of(alert));
        let to_team = || alert.deliveries.iter().filter(is_to_team);
        let first = |is_it: fn(&Delivery) -> bool| to_team().find(|delivery| is_it(delivery));
        if now.provider
            && !before.provider
            && let Some(Delivery { channel, stage, .. }) = first(has_reached_provider)
        {
            self.metrics.reached_provider(*channel, *stage, since);
        }
        if now.phone
            && !before.phone
            && let Some(Delivery { channel, stage, .. }) = first(Delivery::has_arrived)
        {
            self.metrics.reached_phone(*channel, *stage, since);
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

/// How far a case's messages have got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    provider: bool,
    phone: bool,
}

impl Reach {
    pub(crate) fn of(alert: &Alert) -> Self {
        let deliveries = &alert.deliveries;
        Self {
            provider: deliveries.iter().filter(is_to_team).any(has_reached_provider),
            phone: deliveries.iter().filter(is_to_team).any(Delivery::has_arrived),
        }
    }
}

/// How fast people are told is a figure of the team: whom the student has named is told in addition, and later.
fn is_to_team(delivery: &&Delivery) -> bool {
    delivery.purpose != Purpose::EmergencyContact
}

fn has_reached_provider(delivery: &Delivery) -> bool {
    delivery.attempts.iter().any(|attempt| attempt.provider_id.is_some())
}

/// Seconds from the commit that first planned a message to the latest change: the time since the event was accepted, or
/// since somebody overrode that it was withheld.
pub(crate) fn seconds_since_told(alert: &Alert) -> f64 {
    let begun = alert.deliveries.iter().find(is_to_team).map_or(alert.opened_at, |delivery| delivery.planned_at);
    alert.updated_at.duration_since(begun).as_secs_f64().max(0.0)
}

fn attempt_with(alert: &Alert, receipt: &Receipt) -> Option<(DeliveryNo, AttemptNo)> {
    alert.deliveries.iter().find_map(|delivery| {
        let attempt =
            delivery.attempts.iter().find(|attempt| attempt.provider_id.as_ref() == Some(&receipt.provider_id))?;
        Some((delivery.no, attempt.no))
    })
}
