//! A store in memory, for the simulation: it keeps every promise of the trait (the conformance suite holds it to them)
//! except to outlive its process, and answers at the first poll. It walks through all it has; a test's world is small.
//!
//! Every binary takes what it needs of this; what one leaves unused, another uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use parking_lot::{Mutex, MutexGuard};

/// What is kept of one alert.
#[derive(Debug, Clone)]
struct Row {
    alert: Alert,
    /// Kept beside the alert, as an index would.
    next_action_at: Option<Timestamp>,
    /// The numbers it has told, until it is closed.
    told: BTreeSet<AddressKey>,
    spoilt: bool,
}

impl Row {
    fn read(&self) -> Result<Alert, StoreError> {
        if self.spoilt {
            return Err(StoreError::Corrupt { what: "an alert is not in the expected form".to_owned() });
        }
        Ok(self.alert.clone())
    }
}

/// All that is stored.
#[derive(Debug, Default)]
struct Data {
    alerts: BTreeMap<AlertId, Row>,
    messages: BTreeMap<ProviderId, AlertId>,
    details: BTreeMap<AlertId, Vec<EventDetails>>,
    last_cases: BTreeMap<(OrganisationId, AddressKey), AlertId>,
    chains: BTreeMap<String, (AuditStream, BTreeMap<u64, AuditEntry>)>,
    consents: BTreeMap<(OrganisationId, SubjectKey), ConsentRecord>,
    rosters: BTreeMap<OrganisationId, Roster>,
    keys: BTreeMap<(OrganisationId, PersonKey), WrappedDataKey>,
    answers: BTreeMap<IdempotencyKey, IdempotencyRecord>,
    facts: BTreeMap<String, String>,
    probed_at: Option<Timestamp>,
}

/// What stores share that were opened in one place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Data>>);

impl Memory {
    /// Opens it; `exclusive` as [`Store::is_exclusive`] shall say.
    pub(crate) fn open(&self, exclusive: bool) -> MemoryStore {
        MemoryStore { memory: self.clone(), exclusive, closed: AtomicBool::new(false) }
    }

    /// All that is stored, in a fixed order.
    pub(crate) fn dump(&self) -> String {
        format!("{:#?}", self.0.lock())
    }

    /// Makes an alert unreadable.
    pub(crate) fn spoil_alert(&self, id: AlertId) {
        self.0.lock().alerts.get_mut(&id).expect("the alert is stored").spoilt = true;
    }

    /// An alert, past every store.
    pub(crate) fn alert(&self, id: AlertId) -> Option<Alert> {
        self.0.lock().alerts.get(&id).map(|row| row.alert.clone())
    }

    /// Every alert, past every store, with what the index of due work says of it.
    pub(crate) fn alerts(&self) -> Vec<(Alert, Option<Timestamp>)> {
        self.0.lock().alerts.values().map(|row| (row.alert.clone(), row.next_action_at)).collect()
    }

    /// What a student has said, past every store.
    pub(crate) fn consent_of(&self, organisation: &OrganisationId, subject: SubjectKey) -> Option<ConsentRecord> {
        self.0.lock().consents.get(&(organisation.clone(), subject)).cloned()
    }

    /// A chain, past every store.
    pub(crate) fn chain(&self, stream: &AuditStream) -> Vec<AuditEntry> {
        let data = self.0.lock();
        data.chains.get(&stream.to_string()).map(|(_, chain)| chain.values().cloned().collect()).unwrap_or_default()
    }

    /// Damage: the index no longer says when this alert is due.
    pub(crate) fn forget_when_due(&self, id: AlertId) {
        if let Some(row) = self.0.lock().alerts.get_mut(&id) {
            row.next_action_at = None;
        }
    }
}

impl Data {
    /// What stands against a commit: everything is looked at before anything is written.
    fn refusal(&self, commit: &AlertCommit) -> Option<Committed> {
        let alert = &commit.alert;
        if commit.idempotency.as_ref().is_some_and(|record| self.answers.contains_key(&record.key)) {
            return Some(Committed::IdempotencyKeyUsed);
        }
        let has_key = |key: &WrappedDataKey| self.keys.contains_key(&(key.organisation.clone(), key.person));
        if commit.data_key.as_ref().is_some_and(has_key) {
            return Some(Committed::DataKeyExists);
        }
        let said = self.consents.get(&(alert.organisation.clone(), alert.subject)).map_or(0, |record| record.version);
        if commit.consent_version.is_some_and(|version| version != said) {
            return Some(Committed::ConsentChanged);
        }
        let stored = self.alerts.get(&alert.id);
        let Some(version) = commit.from_version else {
            let others = || self.alerts.values().filter(|row| row.alert.organisation == alert.organisation);
            return if stored.is_some() {
                Some(Committed::VersionConflict)
            } else if others().any(|row| row.alert.subject == alert.subject && row.alert.is_open()) {
                Some(Committed::SubjectHasOpenAlert)
            } else if others().any(|row| row.alert.reference == alert.reference) {
                Some(Committed::ReferenceTaken)
            } else {
                None
            };
        };
        (stored.map(|row| row.alert.version) != Some(version)).then_some(Committed::VersionConflict)
    }

    /// What would have two values in one place.
    fn contradicts(&self, commit: &AlertCommit) -> bool {
        let mut places = BTreeSet::new();
        let is_taken = |entry: &AuditEntry| {
            let chain = self.chains.get(&entry.stream.to_string());
            chain.is_some_and(|(_, chain)| chain.contains_key(&entry.seq))
        };
        let known = |details: &EventDetails| {
            let there = self.details.get(&commit.alert.id);
            there.is_some_and(|there| there.iter().any(|one| one.event == details.event))
        };
        commit.audit.iter().any(|entry| is_taken(entry) || !places.insert((entry.stream.to_string(), entry.seq)))
            || commit.event.as_ref().is_some_and(known)
    }

    fn append(&mut self, entries: Vec<AuditEntry>) {
        for entry in entries {
            let chain = self.chains.entry(entry.stream.to_string());
            chain.or_insert_with(|| (entry.stream.clone(), BTreeMap::new())).1.insert(entry.seq, entry);
        }
    }

    fn commit(&mut self, commit: AlertCommit) -> Result<Committed, StoreError> {
        if let Some(refusal) = self.refusal(&commit) {
            return Ok(refusal);
        }
        if self.contradicts(&commit) {
            return Err(StoreError::Corrupt { what: "a place is taken".to_owned() });
        }
        let AlertCommit { alert, audit, provider_ids, last_case_of, event, idempotency, data_key, .. } = commit;
        let id = alert.id;
        let numbers = last_case_of.into_iter().map(|address| ((alert.organisation.clone(), address), id));
        self.last_cases.extend(numbers);
        let mut told = self.alerts.remove(&id).map(|row| row.told).unwrap_or_default();
        if alert.state.hears_phones() {
            told.extend(alert.deliveries.iter().map(|delivery| delivery.address_key));
        } else {
            told.clear();
        }
        let next_action_at = alert.next_action_at();
        self.alerts.insert(id, Row { alert, next_action_at, told, spoilt: false });
        self.append(audit);
        for provider_id in provider_ids {
            self.messages.entry(provider_id).or_insert(id);
        }
        self.details.entry(id).or_default().extend(event);
        self.answers.extend(idempotency.map(|record| (record.key, record)));
        self.keys.extend(data_key.map(|key| ((key.organisation.clone(), key.person), key)));
        Ok(Committed::Committed)
    }

    fn head(&self, stream: &AuditStream) -> AuditHead {
        let last = self.chains.get(&stream.to_string()).and_then(|(_, chain)| chain.values().next_back());
        last.map_or(AuditHead::EMPTY, |last| AuditHead { seq: last.seq, hash: last.hash })
    }

    fn due(&self, until: Timestamp, limit: usize) -> Vec<AlertId> {
        let at = |row: &Row| row.next_action_at.map(Timestamp::as_microsecond);
        let is_due = |row: &&Row| at(row).is_some_and(|at| at <= until.as_microsecond());
        let mut due: Vec<_> = self.alerts.values().filter(is_due).map(|row| (at(row), row.alert.id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).take(limit).collect()
    }

    fn list(&self, wanted: impl Fn(&Alert) -> bool, after: Option<ListCursor>, limit: usize) -> Vec<&Row> {
        let place = |alert: &Alert| (alert.opened_at.as_microsecond(), alert.id);
        let after = after.map(|cursor| (cursor.opened_at.as_microsecond(), cursor.id));
        let fits = |row: &&Row| wanted(&row.alert) && after.is_none_or(|after| place(&row.alert) < after);
        let mut found: Vec<&Row> = self.alerts.values().filter(fits).collect();
        found.sort_by_key(|row| std::cmp::Reverse(place(&row.alert)));
        found.truncate(limit);
        found
    }

    fn commit_consent(&mut self, commit: ConsentCommit) -> bool {
        let place = (commit.record.organisation.clone(), commit.record.subject);
        let before = self.consents.get(&place).map_or(0, |record| record.version);
        let follows = commit.record.version == before + 1;
        if follows {
            self.append(commit.audit);
            self.consents.insert(place, commit.record);
        }
        follows
    }

    fn commit_roster(&mut self, commit: RosterCommit) -> bool {
        let organisation = commit.roster.organisation.clone();
        let before = self.rosters.get(&organisation).map_or(0, |roster| roster.version);
        let follows = commit.roster.version == before + 1;
        if follows {
            self.append(commit.audit);
            self.rosters.insert(organisation, commit.roster);
        }
        follows
    }

    fn stats(&self) -> StoreStats {
        let count = |state| {
            let of_it = |row: &&Row| row.alert.is_open() && row.alert.state.name() == state;
            (state, self.alerts.values().filter(of_it).count() as u64)
        };
        let open = StateName::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect();
        StoreStats { open, next_due_at: self.alerts.values().filter_map(|row| row.next_action_at).min() }
    }
}

/// A store that was opened. Dropping it loses nothing.
pub(crate) struct MemoryStore {
    memory: Memory,
    exclusive: bool,
    closed: AtomicBool,
}

impl MemoryStore {
    fn data(&self) -> Result<MutexGuard<'_, Data>, StoreError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { what: "the store is closed".to_owned() });
        }
        Ok(self.memory.0.lock())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn intake_context(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<IntakeContext, StoreError> {
        let data = self.data()?;
        let is_it =
            |row: &&Row| row.alert.organisation == *organisation && row.alert.subject == subject && row.alert.is_open();
        Ok(IntakeContext {
            idempotency: idempotency.and_then(|key| data.answers.get(&key).cloned()),
            open_alert: data.alerts.values().find(is_it).map(Row::read).transpose()?,
            consent: data.consents.get(&(organisation.clone(), subject)).cloned(),
            data_key: data.keys.get(&(organisation.clone(), subject.into())).cloned(),
        })
    }

    async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
        self.data()?.commit(commit)
    }

    async fn keep_answer(&self, record: IdempotencyRecord) -> Result<bool, StoreError> {
        let mut data = self.data()?;
        let is_new = !data.answers.contains_key(&record.key);
        if is_new {
            data.answers.insert(record.key, record);
        }
        Ok(is_new)
    }

    async fn answer(&self, key: IdempotencyKey) -> Result<Option<IdempotencyRecord>, StoreError> {
        Ok(self.data()?.answers.get(&key).cloned())
    }

    async fn forget_answers(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut data = self.data()?;
        let old = data.answers.values().filter(|record| record.created_at < before).map(|record| record.key);
        let old: Vec<IdempotencyKey> = old.take(limit).collect();
        old.iter().for_each(|key| drop(data.answers.remove(key)));
        Ok(old.len())
    }

    async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        self.data()?.alerts.get(&id).map(Row::read).transpose()
    }

    async fn alert_by_reference(
        &self,
        organisation: &OrganisationId,
        reference: Reference,
    ) -> Result<Option<Alert>, StoreError> {
        let data = self.data()?;
        let is_it = |row: &&Row| row.alert.organisation == *organisation && row.alert.reference == reference;
        data.alerts.values().find(is_it).map(Row::read).transpose()
    }

    async fn alert_of_message(&self, id: &ProviderId) -> Result<Option<Alert>, StoreError> {
        let data = self.data()?;
        data.messages.get(id).and_then(|alert| data.alerts.get(alert)).map(Row::read).transpose()
    }

    async fn last_case_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
    ) -> Result<Option<Alert>, StoreError> {
        let data = self.data()?;
        let alert = data.last_cases.get(&(organisation.clone(), address));
        alert.and_then(|alert| data.alerts.get(alert)).map(Row::read).transpose()
    }

    async fn cases_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let data = self.data()?;
        let is_one = |row: &&Row| row.alert.organisation == *organisation && row.told.contains(&address);
        data.alerts.values().rev().filter(is_one).take(limit).map(Row::read).collect()
    }

    async fn due_alerts(&self, until: Timestamp, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        Ok(self.data()?.due(until, limit))
    }

    async fn unfinished_alerts(&self, after: Option<AlertId>, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        let data = self.data()?;
        let is_one = |row: &&Row| row.next_action_at.is_some() && after.is_none_or(|after| row.alert.id < after);
        Ok(data.alerts.values().rev().filter(is_one).map(|row| row.alert.id).take(limit).collect())
    }

    async fn list_alerts(
        &self,
        organisation: &OrganisationId,
        state: Option<StateName>,
        after: Option<ListCursor>,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let wanted = |alert: &Alert| {
            alert.organisation == *organisation && state.is_none_or(|state| alert.state.name() == state)
        };
        self.data()?.list(wanted, after, limit).into_iter().map(Row::read).collect()
    }

    async fn event_details(&self, alert: AlertId) -> Result<Vec<EventDetails>, StoreError> {
        let mut details = self.data()?.details.get(&alert).cloned().unwrap_or_default();
        details.sort_by_key(|details| (details.received_at.as_microsecond(), details.event));
        Ok(details)
    }

    async fn consent(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
    ) -> Result<Option<ConsentRecord>, StoreError> {
        Ok(self.data()?.consents.get(&(organisation.clone(), subject)).cloned())
    }

    async fn commit_consent(&self, commit: ConsentCommit) -> Result<bool, StoreError> {
        Ok(self.data()?.commit_consent(commit))
    }

    async fn roster(&self, organisation: &OrganisationId) -> Result<Option<Roster>, StoreError> {
        Ok(self.data()?.rosters.get(organisation).cloned())
    }

    async fn commit_roster(&self, commit: RosterCommit) -> Result<bool, StoreError> {
        Ok(self.data()?.commit_roster(commit))
    }

    async fn data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        Ok(self.data()?.keys.get(&(organisation.clone(), person)).cloned())
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<bool, StoreError> {
        let mut data = self.data()?;
        let place = (key.organisation.clone(), key.person);
        let is_new = !data.keys.contains_key(&place);
        if is_new {
            data.keys.insert(place, key);
        }
        Ok(is_new)
    }

    async fn append_audit(&self, entry: AuditEntry) -> Result<bool, StoreError> {
        let mut data = self.data()?;
        let follows = data.head(&entry.stream).seq + 1 == entry.seq;
        if follows {
            data.append(vec![entry]);
        }
        Ok(follows)
    }

    async fn audit_head(&self, stream: &AuditStream) -> Result<AuditHead, StoreError> {
        Ok(self.data()?.head(stream))
    }

    async fn audit_entries(
        &self,
        stream: &AuditStream,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let data = self.data()?;
        let Some((_, chain)) = data.chains.get(&stream.to_string()) else { return Ok(Vec::new()) };
        Ok(chain.values().filter(|entry| entry.seq > after).take(limit).cloned().collect())
    }

    async fn audit_walk(&self, from: Option<&str>, limit: usize) -> Result<AuditStretch, StoreError> {
        let data = self.data()?;
        let passed = from.and_then(|from| from.split_once(' '));
        let passed = passed.map(|(seq, name)| (name, seq.parse::<u64>().expect("a place that was named here")));
        let all = data
            .chains
            .iter()
            .flat_map(|(name, (_, chain))| chain.iter().map(move |(seq, entry)| ((name, *seq), entry)));
        let left = all.filter(|((name, seq), _)| passed.is_none_or(|passed| (name.as_str(), *seq) > passed));
        let entries: Vec<AuditEntry> = left.map(|(_, entry)| entry.clone()).take(limit).collect();
        let last = entries.last().filter(|_| entries.len() == limit);
        let next = last.map(|last| format!("{} {}", last.seq, last.stream));
        Ok(AuditStretch { entries, next })
    }

    async fn keep_fact(&self, name: &'static str, value: &str) -> Result<String, StoreError> {
        Ok(self.data()?.facts.entry(name.to_owned()).or_insert_with(|| value.to_owned()).clone())
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        Ok(self.data()?.stats())
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.data()?.probed_at = Some(now);
        Ok(())
    }

    fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}
