//! Receipts: what Twilio tells of a message, by callback, look-up or poll.

use super::{Service, ServiceError};
use crate::domain::alert::{Alert, Input, Transition};
use crate::domain::audit::Actor;
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
        match self.receive(alert, delivery, attempt, receipt.clone()).await {
            Ok(Some(_)) => Ok(Recorded::New),
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
        self.merge(alert, Input::Received { delivery, attempt, receipt }, status).await
    }

    /// Books that a look-up found an unknown attempt's message.
    pub(crate) async fn found(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        receipt: Receipt,
    ) -> Result<Option<Transition>, ServiceError> {
        let status = receipt.status;
        self.merge(alert, Input::Found { delivery, attempt, receipt }, status).await
    }

    async fn merge(
        &self,
        alert: Alert,
        input: Input,
        status: MessageStatus,
    ) -> Result<Option<Transition>, ServiceError> {
        let before = Reach::of(&alert);
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            self.metrics.receipt(status.word());
            self.observe(&transition.alert, before);
        }
        Ok(changed)
    }

    /// Times from the event to the provider and to the phone: of a case's first message that got there, however many
    /// attempts that took. Leaving out the slow ones would make the figures look best when they are worst.
    pub(crate) fn observe(&self, alert: &Alert, before: Reach) {
        let (since, now) = (seconds_since_told(alert), Reach::of(alert));
        if now.provider && !before.provider {
            self.metrics.reached_provider(since);
        }
        if now.phone && !before.phone {
            self.metrics.reached_phone(since);
        }
    }
}

/// How far a case's messages have got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    provider: bool,
    phone: bool,
}

impl Reach {
    pub(crate) fn of(alert: &Alert) -> Self {
        let mut attempts = alert.deliveries.iter().flat_map(|delivery| &delivery.attempts);
        Self {
            provider: attempts.clone().any(|attempt| attempt.provider_id.is_some()),
            phone: attempts.any(|attempt| attempt.status.is_some_and(|status| status.has_arrived())),
        }
    }
}

/// Seconds from the commit that first planned a message to the latest change: the time since the event was accepted, or
/// since somebody overrode that it was withheld.
pub(crate) fn seconds_since_told(alert: &Alert) -> f64 {
    let begun = alert.deliveries.first().map_or(alert.opened_at, |delivery| delivery.planned_at);
    alert.updated_at.duration_since(begun).as_secs_f64().max(0.0)
}

fn attempt_with(alert: &Alert, receipt: &Receipt) -> Option<(DeliveryNo, AttemptNo)> {
    alert.deliveries.iter().find_map(|delivery| {
        let attempt =
            delivery.attempts.iter().find(|attempt| attempt.provider_id.as_ref() == Some(&receipt.provider_id))?;
        Some((delivery.no, attempt.no))
    })
}
