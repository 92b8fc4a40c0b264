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
        let input = Input::Received { delivery, attempt, receipt };
        self.merge(alert, input, (delivery, attempt), status).await
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
        let input = Input::Found { delivery, attempt, receipt };
        self.merge(alert, input, (delivery, attempt), status).await
    }

    async fn merge(
        &self,
        alert: Alert,
        input: Input,
        (delivery, attempt): (DeliveryNo, AttemptNo),
        status: MessageStatus,
    ) -> Result<Option<Transition>, ServiceError> {
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            self.metrics.receipt(status.word());
            self.observe(transition, delivery, attempt, status);
        }
        Ok(changed)
    }

    /// Times from the event to the provider and to the phone.
    pub(crate) fn observe(
        &self,
        transition: &Transition,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        status: MessageStatus,
    ) {
        let alert = &transition.alert;
        let since = alert.updated_at.duration_since(alert.trigger.received_at).as_secs_f64().max(0.0);
        let first = alert.delivery(delivery).is_some_and(|found| found.no.0 == 1) && attempt.0 == 1;
        if first && !transition.provider_ids.is_empty() {
            self.metrics.reached_provider(since);
        }
        if first && status.has_arrived() {
            self.metrics.reached_phone(since);
        }
    }
}

fn attempt_with(alert: &Alert, receipt: &Receipt) -> Option<(DeliveryNo, AttemptNo)> {
    alert.deliveries.iter().find_map(|delivery| {
        let attempt =
            delivery.attempts.iter().find(|attempt| attempt.provider_id.as_ref() == Some(&receipt.provider_id))?;
        Some((delivery.no, attempt.no))
    })
}
