//! The store as one process reaches it: every call waits for its turn, and may fail, be left in doubt, or be the last
//! thing the process does. What is changed is shown to the watch.

use std::sync::Arc;

use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::ids::{AlertId, IdempotencyKey, OrganisationId, ProviderId, SubjectKey};
use crisis_relay::ports::{AlertCommit, Committed, IntakeContext, Store as _, StoreError};
use jiff::Timestamp;

use crate::hub::{Fate, Hub, Process};
use crate::memory::{Memory, MemoryStore};
use crate::plant::Plant;
use crate::watch::{Watch, rule};

/// See the module's doc.
pub(crate) struct Disk {
    pub(crate) hub: Arc<Hub>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) memory: Memory,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) process: Process,
    pub(crate) plant: Plant,
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { what: "the schedule wants it".to_owned() }
}

fn unknown() -> StoreError {
    StoreError::Unknown { what: "the schedule wants it".to_owned() }
}

/// Whether a call of this name may change something.
fn writes(name: &str) -> bool {
    ["commit", "keep", "forget", "insert", "append", "probe"].iter().any(|word| name.starts_with(word))
}

impl Disk {
    async fn pass<T, F>(&self, name: &'static str, call: impl FnOnce(Arc<MemoryStore>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.turn(name, call(Arc::clone(&self.store))).await
    }

    async fn turn<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.hub.turn(self.process, name, writes(name)).await {
            Fate::Pass => self.plain(call.await),
            Fate::Fail => Err(unavailable()),
            Fate::Lost => Err(unknown()),
            Fate::PassUnknown => {
                self.plain(call.await)?;
                Err(unknown())
            }
            Fate::DieBefore => {
                self.hub.die(self.process);
                std::future::pending().await
            }
            Fate::DieAfter => {
                let _ = self.plain(call.await);
                self.hub.die(self.process);
                std::future::pending().await
            }
        }
    }

    /// The store below does not fail by itself: if it does, it was asked for what cannot be.
    fn plain<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &answer {
            self.hub.violated(rule::NO_CONTRADICTION, error);
        }
        answer
    }

    fn loaded(&self, alert: Option<Alert>) -> Option<Alert> {
        alert.map(|alert| self.plant.loaded(alert))
    }

    async fn commit(&self, mut commit: AlertCommit) -> Result<Committed, StoreError> {
        let before = self.memory.alert(commit.alert.id);
        commit.alert = self.plant.stored(commit.alert, before.as_ref());
        if self.plant == Plant::AnsweredBeforeStored && before.is_none() && self.hub.chance.happens(0.2) {
            return Ok(Committed::Committed);
        }
        if self.plant == Plant::WordNotLookedAtAgain {
            commit.consent_version = None;
        }
        let (after, audit) = (commit.alert.clone(), commit.audit.clone());
        let answer = self.store.commit_alert(commit).await?;
        if answer == Committed::Committed {
            let name = &after.id.to_string()[30..];
            self.hub.note(format_args!("  {name} v{} {}", after.version, summary(&after)));
            self.watch.committed(self.process, before.as_ref(), &after, &audit);
            if self.plant.forgets_when_due(&after) {
                self.memory.forget_when_due(after.id);
            }
        } else {
            self.hub.note(format_args!("  refused: {answer:?}"));
            self.hub.see(format!("commit {answer:?}"));
        }
        Ok(answer)
    }
}

/// Where an alert and its messages stand, in a line.
fn summary(alert: &Alert) -> String {
    let deliveries = alert.deliveries.iter().rev().take(4).rev();
    let states: Vec<String> = deliveries.map(|delivery| format!("{}:{}", delivery.no, delivery.state.name())).collect();
    format!("{} {}", alert.state.name().as_str(), states.join(" "))
}

delegate_store! {
    for Disk {
        async fn intake_context(
            &self,
            organisation: &OrganisationId,
            subject: SubjectKey,
            key: Option<IdempotencyKey>,
        ) -> Result<IntakeContext, StoreError> {
            let context = self.turn("intake_context", self.store.intake_context(organisation, subject, key)).await?;
            Ok(IntakeContext {
                open_alert: self.loaded(context.open_alert),
                consent: context.consent.map(|record| self.plant.said(record)),
                ..context
            })
        }

        async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
            Ok(self.loaded(self.turn("alert", self.store.alert(id)).await?))
        }

        async fn alert_of_message(&self, id: &ProviderId) -> Result<Option<Alert>, StoreError> {
            Ok(self.loaded(self.turn("alert_of_message", self.store.alert_of_message(id)).await?))
        }

        async fn due_alerts(&self, until: Timestamp, limit: usize) -> Result<Vec<AlertId>, StoreError> {
            if [Plant::LeaseIgnored, Plant::SentAgainUnasked].contains(&self.plant) {
                return self.turn("due_alerts", self.store.unfinished_alerts(None, limit)).await;
            }
            self.turn("due_alerts", self.store.due_alerts(until, limit)).await
        }

        async fn consent(
            &self,
            organisation: &OrganisationId,
            subject: SubjectKey,
        ) -> Result<Option<ConsentRecord>, StoreError> {
            let record = self.turn("consent", self.store.consent(organisation, subject)).await?;
            Ok(record.map(|record| self.plant.said(record)))
        }

        async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
            match self.turn("commit_alert", self.commit(commit)).await {
                Err(StoreError::Unknown { .. }) if self.plant == Plant::UnknownTakenForDone => {
                    Ok(Committed::Committed)
                }
                answer => answer,
            }
        }

        fn is_exclusive(&self) -> bool {
            self.store.is_exclusive()
        }

        async fn close(&self) {
            self.store.close().await;
        }
    }
    and
}
