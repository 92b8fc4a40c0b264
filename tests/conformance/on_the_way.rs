//! A store that is copied from or to, with somebody standing before it who sees each call of the copy, and may fail it.

use std::sync::Arc;

use async_trait::async_trait;
use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::ids::{AlertId, IdempotencyKey, OrganisationId, ProviderId, SubjectKey};
use crisis_relay::ports::transfer::{Kind, Page, Piece, Transfer};
use crisis_relay::ports::{AlertCommit, Committed, IntakeContext, StoreError};
use futures::future::BoxFuture;
use jiff::Timestamp;

/// What a copy asks of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A page is read.
    Read,
    /// A page is written, of anything but alerts.
    Pieces,
    /// A page of alerts is written.
    Alerts,
    /// A mark is written, or taken away.
    Mark,
    /// A stretch of the audit is read, to be proved.
    Proof,
}

/// Called before each step; an error keeps the step from coming about.
pub(crate) type Watch =
    Arc<dyn Fn(Step, Arc<dyn Transfer>) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

/// The store with somebody before it.
pub(crate) struct OnTheWay {
    store: Arc<dyn Transfer>,
    watch: Watch,
}

impl OnTheWay {
    pub(crate) fn new(store: Arc<dyn Transfer>, watch: &Watch) -> Self {
        Self { store, watch: Arc::clone(watch) }
    }

    async fn step(&self, step: Step) -> Result<&dyn Transfer, StoreError> {
        (self.watch)(step, Arc::clone(&self.store)).await?;
        Ok(self.store.as_ref())
    }

    async fn pass<T, F>(&self, name: &'static str, call: impl FnOnce(Arc<dyn Transfer>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if name == "audit_walk" {
            self.step(Step::Proof).await?;
        }
        call(Arc::clone(&self.store)).await
    }
}

#[async_trait]
impl Transfer for OnTheWay {
    async fn export(&self, kind: Kind, from: Option<String>, limit: usize) -> Result<Page, StoreError> {
        self.step(Step::Read).await?.export(kind, from, limit).await
    }

    async fn import(&self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        let alerts = matches!(pieces.first(), Some(Piece::Alert(..)));
        self.step(if alerts { Step::Alerts } else { Step::Pieces }).await?.import(pieces).await
    }

    async fn read_mark(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.store.read_mark(name).await
    }

    async fn mark(&self, name: &'static str, value: Option<String>) -> Result<(), StoreError> {
        self.step(Step::Mark).await?.mark(name, value).await
    }
}

delegate_store! {
    for OnTheWay {
        fn is_exclusive(&self) -> bool {
            self.store.is_exclusive()
        }

        async fn close(&self) {
            self.store.close().await;
        }
    }
    and
    alert(id: AlertId) -> Option<Alert>;
    commit_alert(commit: AlertCommit) -> Committed;
    intake_context(organisation: &OrganisationId, subject: SubjectKey, key: Option<IdempotencyKey>) -> IntakeContext;
    alert_of_message(id: &ProviderId) -> Option<Alert>;
    due_alerts(until: Timestamp, limit: usize) -> Vec<AlertId>;
    consent(organisation: &OrganisationId, subject: SubjectKey) -> Option<ConsentRecord>;
}
