//! A store that keeps nothing and finds nothing, so that one input cannot change what the next one meets.

use async_trait::async_trait;
use crisis_relay::domain::alert::{Alert, StateName};
use crisis_relay::domain::audit::{AuditEntry, AuditHead, AuditStream};
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::event::EventDetails;
use crisis_relay::domain::ids::{
    AddressKey, AlertId, IdempotencyKey, OrganisationId, PersonKey, ProviderId, Reference, SubjectKey,
};
use crisis_relay::domain::roster::Roster;
use crisis_relay::ports::{
    AlertCommit, AuditStretch, Committed, ConsentCommit, IdempotencyRecord, IntakeContext, ListCursor, RosterCommit,
    Store, StoreError, StoreStats, WrappedDataKey,
};
use jiff::Timestamp;

/// The store.
#[derive(Debug, Clone, Copy)]
pub struct Blank;

#[async_trait]
impl Store for Blank {
    async fn intake_context(
        &self,
        _: &OrganisationId,
        _: SubjectKey,
        _: Option<IdempotencyKey>,
    ) -> Result<IntakeContext, StoreError> {
        Ok(IntakeContext::default())
    }
    async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
        // What a real store does with it, as far as it can fail: what is written must be readable again.
        let body = serde_json::to_string(&commit.alert).expect("an alert can be written");
        let read: Alert = serde_json::from_str(&body).expect("an alert that was written can be read");
        assert_eq!(read, commit.alert, "an alert comes back as another");
        Ok(Committed::Committed)
    }
    async fn keep_answer(&self, _: IdempotencyRecord) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn answer(&self, _: IdempotencyKey) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(None)
    }
    async fn forget_answers(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
    async fn alert(&self, _: AlertId) -> Result<Option<Alert>, StoreError> {
        Ok(None)
    }
    async fn alert_by_reference(&self, _: &OrganisationId, _: Reference) -> Result<Option<Alert>, StoreError> {
        Ok(None)
    }
    async fn alert_of_message(&self, _: &ProviderId) -> Result<Option<Alert>, StoreError> {
        Ok(None)
    }
    async fn last_case_of(&self, _: &OrganisationId, _: AddressKey) -> Result<Option<Alert>, StoreError> {
        Ok(None)
    }
    async fn cases_of(&self, _: &OrganisationId, _: AddressKey, _: usize) -> Result<Vec<Alert>, StoreError> {
        Ok(Vec::new())
    }
    async fn due_alerts(&self, _: Timestamp, _: usize) -> Result<Vec<AlertId>, StoreError> {
        Ok(Vec::new())
    }
    async fn unfinished_alerts(&self, _: Option<AlertId>, _: usize) -> Result<Vec<AlertId>, StoreError> {
        Ok(Vec::new())
    }
    async fn list_alerts(
        &self,
        _: &OrganisationId,
        _: Option<StateName>,
        _: Option<ListCursor>,
        _: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        Ok(Vec::new())
    }
    async fn event_details(&self, _: AlertId) -> Result<Vec<EventDetails>, StoreError> {
        Ok(Vec::new())
    }
    async fn consent(&self, _: &OrganisationId, _: SubjectKey) -> Result<Option<ConsentRecord>, StoreError> {
        Ok(None)
    }
    async fn commit_consent(&self, _: ConsentCommit) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn roster(&self, _: &OrganisationId) -> Result<Option<Roster>, StoreError> {
        Ok(None)
    }
    async fn commit_roster(&self, _: RosterCommit) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn data_key(&self, _: &OrganisationId, _: PersonKey) -> Result<Option<WrappedDataKey>, StoreError> {
        Ok(None)
    }
    async fn insert_data_key(&self, _: WrappedDataKey) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn append_audit(&self, _: AuditEntry) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn audit_head(&self, _: &AuditStream) -> Result<AuditHead, StoreError> {
        Ok(AuditHead::EMPTY)
    }
    async fn audit_entries(&self, _: &AuditStream, _: u64, _: usize) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(Vec::new())
    }
    async fn audit_walk(&self, _: Option<&str>, _: usize) -> Result<AuditStretch, StoreError> {
        Ok(AuditStretch { entries: Vec::new(), next: None })
    }
    async fn keep_fact(&self, _: &'static str, value: &str) -> Result<String, StoreError> {
        Ok(value.to_owned())
    }
    async fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(StoreStats::default())
    }
    async fn probe(&self, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
    fn is_exclusive(&self) -> bool {
        true
    }
    async fn close(&self) {}
}
