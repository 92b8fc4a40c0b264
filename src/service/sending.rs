//! What the worker books: claims, settled attempts, look-ups.

use std::time::Duration;

use jiff::Timestamp;

use super::receipts::Reach;
use super::{Along, Changed, Service, ServiceError};
use crate::domain::alert::{Alert, Input, Transition};
use crate::domain::audit::Actor;
use crate::domain::ids::{AlertId, AttemptNo, DeliveryNo};
use crate::domain::provider::{ErrorClass, SendOutcome};
use crate::ports::Store;

/// What came of waking an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Something was due, and is in hand now.
    Worked,
    /// Nothing was due any more.
    Nothing,
    /// Enough is in hand: try again later. It may not even have been looked at.
    NoPlace,
}

impl Service {
    /// Does what time has made due for an alert, and hands over what follows. Where something follows and no place is
    /// free for it, nothing is changed.
    pub async fn wake(&self, id: AlertId, sole_owner_restarted: bool) -> Result<Woken, ServiceError> {
        if self.dispatch.is_full() {
            return Ok(Woken::NoPlace);
        }
        let alert = self.judge(self.load(id).await?).await?;
        let input = Input::Wake { sole_owner_restarted };
        match self.change_along(alert, input, &Actor::Service, &Along::default()).await? {
            Changed::Nothing => Ok(Woken::Nothing),
            Changed::Made(_) => Ok(Woken::Worked),
            Changed::NoPlace => Ok(Woken::NoPlace),
            // Without a key there is none that could have been used.
            Changed::AnsweredBefore => Err(ServiceError::Busy),
        }
    }

    /// Books what came of a call.
    pub async fn settle(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        outcome: SendOutcome,
    ) -> Result<Option<Transition>, ServiceError> {
        self.metrics.attempt(outcome_class(&outcome));
        let before = Reach::of(&alert);
        let input = Input::Settled { delivery, attempt, outcome };
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            self.observe(&transition.alert, before);
        }
        Ok(changed)
    }

    /// Books that Twilio has no message of an unknown attempt, or could not be asked.
    pub async fn not_found(
        &self,
        alert: Alert,
        delivery: DeliveryNo,
        attempt: AttemptNo,
        answered: bool,
    ) -> Result<(), ServiceError> {
        let input = Input::NotFound { delivery, attempt, answered };
        self.change(alert, input, &Actor::Service).await.map(|_| ())
    }

    /// The alerts that have something due, the longest due first.
    pub async fn due(&self, limit: usize) -> Result<Vec<AlertId>, ServiceError> {
        Ok(self.store.due_alerts(self.clock.now(), limit).await?)
    }

    /// Alerts with any next action, by id: for the recovery at start.
    pub async fn unfinished(&self, after: Option<AlertId>, limit: usize) -> Result<Vec<AlertId>, ServiceError> {
        Ok(self.store.unfinished_alerts(after, limit).await?)
    }

    /// Whether leases that others hold are void when this process starts.
    pub fn is_sole_owner(&self) -> bool {
        self.store.is_exclusive()
    }

    /// Forgets answers to idempotency keys that are older than `keep`.
    pub async fn forget_answers(&self, keep: Duration, limit: usize) -> Result<usize, ServiceError> {
        let before = self.clock.now().saturating_sub(keep).unwrap_or(Timestamp::MIN);
        Ok(self.store.forget_answers(before, limit).await?)
    }

    /// The store, for those who check it.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }
}

/// The outcome's name, as in metric labels.
fn outcome_class(outcome: &SendOutcome) -> &'static str {
    match outcome {
        SendOutcome::Accepted { .. } => "accepted",
        SendOutcome::NotExecuted { .. } => "not_executed",
        SendOutcome::NotBegun { .. } => "held_back",
        SendOutcome::Unknown { .. } => "unknown",
        SendOutcome::Refused(fault) => match fault.class {
            ErrorClass::Retry => "retry",
            ErrorClass::Ambiguous => "ambiguous",
            ErrorClass::Delay => "delay",
            ErrorClass::Switch => "switch",
            ErrorClass::OptOut => "opt_out",
            ErrorClass::Template => "template",
            ErrorClass::Config => "config",
        },
    }
}
