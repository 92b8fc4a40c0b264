//! What the worker books: claims, settled attempts, look-ups.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::consent::Judged;
use super::receipts::Reach;
use super::{Along, Changed, Service, ServiceError, TRIES};
use crate::alarm::provider::Sign;
use crate::domain::alert::{Alert, Input, StateName, Transition};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Attempt, AttemptResult, Delivery};
use crate::domain::ids::{AlertId, AttemptNo, DeliveryNo, ProviderId};
use crate::domain::method::SentCode;
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

/// How many waiting cases of one phone are looked at.
const WAITING_LOOKED_AT: usize = 1000;
/// How many of each kind that do not wait any more.
const OTHERS_LOOKED_AT: usize = 200;

impl Service {
    /// Does what time has made due for an alert, and hands over what follows. Where something follows and no place is
    /// free for it, nothing is changed.
    pub async fn wake(&self, id: AlertId, sole_owner_restarted: bool) -> Result<Woken, ServiceError> {
        if self.dispatch.is_full() {
            return Ok(Woken::NoPlace);
        }
        for _ in 0..TRIES {
            let Judged { alert, consent_version } = self.judge(self.load(id).await?).await?;
            let mut along = Along { consent_version, ..Along::default() };
            if alert.asks_for_emergency_contacts(self.clock.now()) {
                match self.disclosures(&alert).await {
                    // The student has spoken between the two looks.
                    Ok(known) if along.consent_version.is_some_and(|judged| judged != known.version) => continue,
                    Ok(known) => {
                        (along.consent_version, along.emergency) = (Some(known.version), Some(Arc::new(known)))
                    }
                    // The ladder does not wait for whom it does not need.
                    Err(error) => {
                        tracing::error!(alert = %id, %error, "the student's emergency contacts cannot be read");
                    }
                }
            }
            match self.change_along(alert, Input::Wake { sole_owner_restarted }, &Actor::Service, &along).await? {
                Changed::Made(_) => return Ok(Woken::Worked),
                Changed::Nothing => return Ok(Woken::Nothing),
                Changed::NoPlace => return Ok(Woken::NoPlace),
                // The student has spoken since: nothing was claimed, and the ground is looked at again.
                Changed::ConsentOutdated | Changed::AnsweredBefore => {}
            }
        }
        Err(ServiceError::Busy)
    }

    /// Whether a call that had to wait since it was claimed is still to be made. Where the store cannot say, it is: it
    /// was claimed on a ground that is recorded, and somebody waits for it.
    pub async fn still_wants(&self, id: AlertId, delivery: DeliveryNo, attempt: AttemptNo) -> bool {
        match self.store.alert(id).await {
            Ok(alert) => alert.is_some_and(|alert| alert.still_wants(delivery, attempt)),
            Err(_) => true,
        }
    }

    /// Whether a message would still go to a number of its recipient's that may be used, as far as this process knows.
    pub fn still_reaches(&self, alert: &Alert, delivery: &Delivery) -> bool {
        let known = self.live(&alert.organisation);
        known.is_ok_and(|live| live.directory.reaches(&delivery.contact, delivery.channel, delivery.address_key))
    }

    /// Whether a case knows this message or call as its own.
    pub async fn is_known_to_a_case(&self, id: &ProviderId) -> Result<bool, ServiceError> {
        Ok(self.store.alert_of_message(id).await?.is_some())
    }

    /// Whether something else has called the phone of a delivery since, or may have, so that a call to it may be that: another case, or
    /// a code by which the number was to be proven. Looked at are the cases that are open to it, and the newest of the others.
    pub async fn others_may_have_called(
        &self,
        alert: &Alert,
        delivery: &Delivery,
        since: Timestamp,
    ) -> Result<bool, ServiceError> {
        let (store, organisation) = (&self.store, &alert.organisation);
        let mut cases = store.cases_of(organisation, delivery.address_key, WAITING_LOOKED_AT).await?;
        // Where there are more cases than can be looked at, nobody knows.
        let too_many = cases.len() >= WAITING_LOOKED_AT;
        for state in [StateName::Resolved, StateName::Withheld] {
            cases.extend(store.list_alerts(organisation, Some(state), None, OTHERS_LOOKED_AT).await?);
        }
        let may_have = |other: &Delivery| {
            let same_phone = other.channel == delivery.channel && other.address_key == delivery.address_key;
            same_phone && other.attempts.iter().any(|attempt| may_have_called(attempt, since))
        };
        let by_a_case = cases.iter().any(|case| case.id != alert.id && case.deliveries.iter().any(may_have));
        Ok(too_many || by_a_case || self.code_may_have_called(alert, delivery, since).await?)
    }

    async fn code_may_have_called(
        &self,
        alert: &Alert,
        delivery: &Delivery,
        since: Timestamp,
    ) -> Result<bool, ServiceError> {
        let called = |codes: &[SentCode]| {
            let same_phone = |code: &SentCode| (code.channel, code.address) == (delivery.channel, delivery.address_key);
            codes.iter().any(|code| same_phone(code) && code.at >= since)
        };
        if called(&self.live(&alert.organisation)?.roster.codes_sent) {
            return Ok(true);
        }
        self.may_have_been_sent_a_code(&alert.organisation, delivery.address_key, since).await
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
        if let (Some(sign), Some(delivery)) = (sign_of(&outcome), alert.delivery(delivery)) {
            self.alarms.see_provider(delivery.channel, sign);
        }
        let before = Reach::of(&alert, delivery);
        let code = match &outcome {
            SendOutcome::Refused(fault) => fault.code,
            SendOutcome::Accepted { .. }
            | SendOutcome::NotExecuted { .. }
            | SendOutcome::NotBegun { .. }
            | SendOutcome::Unknown { .. } => None,
        };
        let input = Input::Settled { delivery, attempt, outcome };
        let changed = self.change(alert, input, &Actor::Provider).await?;
        if let Some(transition) = &changed {
            self.observe(&transition.alert, delivery, before);
            self.note_opt_outs(transition).await;
            self.note_fault(&transition.alert, delivery, code).await;
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

/// What a call's outcome says of the provider; `None` where it says more of the phone.
fn sign_of(outcome: &SendOutcome) -> Option<Sign> {
    match outcome {
        SendOutcome::Accepted { .. } => Some(Sign::Took),
        SendOutcome::NotExecuted { .. } | SendOutcome::Unknown { .. } => Some(Sign::Failed),
        SendOutcome::NotBegun { .. } => None,
        SendOutcome::Refused(fault) => match fault.class {
            ErrorClass::Retry | ErrorClass::Ambiguous | ErrorClass::Template | ErrorClass::Config => Some(Sign::Failed),
            ErrorClass::Delay | ErrorClass::Switch | ErrorClass::OptOut => None,
        },
    }
}

/// Whether nobody knows which call an attempt made, if any.
fn may_have_called(attempt: &Attempt, since: Timestamp) -> bool {
    let in_doubt = match attempt.result {
        AttemptResult::Pending | AttemptResult::Unknown(_) | AttemptResult::NotFound | AttemptResult::Unresolved => {
            true
        }
        AttemptResult::Accepted | AttemptResult::NotExecuted | AttemptResult::NotBegun | AttemptResult::Refused => {
            false
        }
    };
    in_doubt && attempt.begun_at >= since
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
