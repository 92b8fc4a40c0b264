//! The distributed store: Google Cloud Firestore, shared by any number of instances. No coordinator, no leader: whoever
//! commits first has it.
//!
//! | room | what |
//! |---|---|
//! | `documents` | names, fields, what stands where |
//! | `change` | how a change is made in one call, and what is done when it was not, or nobody knows |
//! | `alerts`, `records` | what an alert's change consists of; everything else that is kept |
//! | `queries`, `indexes` | what is searched for, and the indexes that this needs |
//! | `client`, `connect` | calls, time-outs, repetitions, counting |
//! | `admin` | indexes, TTL policies and rules: what is there, and making what is missing |
//! | `stamps` | what is remembered of documents, so that a change need not read first |
//! | `transfer` | everything, out and in: `crisis-relay copy` |
//! | `work` | the threads that changes run on |
//!
//! **One call for one change.** A change is one `Commit` whose writes have preconditions: created documents must not be
//! there, changed ones must not have been changed since they were read, and what a decision rests on is held by a write that
//! changes nothing. No read-write transaction is used: it takes locks and four calls, and crowds on one document wait
//! for its time-outs.
//!
//! **What this is not.** It does not make the emulator Firestore: the emulator walks through everything where production
//! wants an index, keeps nothing on disk, deletes nothing by TTL, knows no quota and no hot spot. `docs/firestore.md`
//! says what that leaves unproven.
//!
//! **One document takes about one write a second for long**, and bursts above that. An alert's document is written with
//! each receipt; receipts that come together collide, and the loser is told `VersionConflict` and tries again from what is
//! there then, as on any store.

pub mod admin;
mod alerts;
mod change;
mod client;
mod connect;
mod documents;
pub mod indexes;
mod queries;
mod records;
mod stamps;
mod transfer;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::Document;
use futures::future::try_join;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::alerts::AlertChange;
use self::client::{Client, Limits};
use self::documents::{Names, Read, collection, field, fields, micros, text, time};
use self::records::RecordChange;
use self::work::Work;
use crate::domain::alert::{Alert, StateName};
use crate::domain::audit::{AuditEntry, AuditHash, AuditHead, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::event::EventDetails;
use crate::domain::ids::{
    AddressKey, AlertId, IdempotencyKey, OrganisationId, PersonKey, ProviderId, Reference, SubjectKey,
};
use crate::domain::roster::Roster;
use crate::ports::{
    AlertCommit, AuditStretch, Committed, ConsentCommit, Entropy, IdempotencyRecord, IntakeContext, ListCursor,
    Operations, RosterCommit, Store, StoreError, StoreStats, WrappedDataKey, random,
};
use crate::store::json;

/// Which database is used, and how.
#[derive(Debug, Clone)]
pub struct FirestoreSettings {
    /// The Google Cloud project.
    pub project_id: String,
    /// The database within it; a project's first one is called `(default)`.
    pub database_id: String,
    /// Host and port of an emulator; `None`: Google's service, with the credentials of the environment.
    pub emulator_host: Option<String>,
    /// How long a start tries to connect.
    pub connect_timeout: Duration,
    /// How long a read may take, its repetitions included.
    pub read_timeout: Duration,
    /// How long a change may take, with all that is looked at and tried again.
    pub commit_timeout: Duration,
    /// How long answers to idempotency keys are kept: they bear the time at which Firestore may delete them by itself.
    pub answers_kept: Duration,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error("no connection to Firestore within {within:?}: {why}")]
    Connect {
        /// How long it was tried.
        within: Duration,
        /// What came of the last attempt.
        why: String,
    },
    /// The store's own threads failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The machine gives no threads.
    #[error("the store's threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

/// How long a written probe stands for a further one: one document is to be written once a second at the most.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How long the document stays that a probe of an instance wrote which is no longer there.
const PROBE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A store in one Firestore database.
pub struct FirestoreStore {
    client: Arc<Client>,
    work: Work,
    settings: FirestoreSettings,
    /// The document that this instance's probes write.
    health: String,
    probed: Mutex<Option<Instant>>,
}

impl FirestoreStore {
    /// Connects to the database.
    ///
    /// # Errors
    /// There is no connection within the settings' time.
    pub async fn open(settings: &FirestoreSettings, entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        let work = Work::start()?;
        // Made on the store's own threads, where the connection then lives.
        let connecting = settings.clone();
        let db = work.run(async move { connect::connect(&connecting).await }).await??;
        let names = Names::new(&settings.project_id, &settings.database_id);
        let health = names.of(collection::HEALTH, &data_encoding::HEXLOWER.encode(&random::<8>(entropy.as_ref())));
        let limits = Limits { read: settings.read_timeout, commit: settings.commit_timeout };
        let connection = connect::Connection::new(db, settings.clone(), work.handle()?.clone());
        let client = Arc::new(Client::new(connection, names, limits, entropy));
        Ok(Self { client, work, settings: settings.clone(), health, probed: Mutex::new(None) })
    }

    /// What is kept under `name` by [`Store::keep_fact`], if anything is. Writes nothing.
    ///
    /// # Errors
    /// As every read of the store.
    pub async fn fact(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.get(self.client.names.fact(name), |_, found| Ok(found.text(field::VALUE)?.to_owned())).await
    }

    /// Reads with the client, unless the store is closed.
    async fn ask<T, F>(&self, ask: impl FnOnce(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.work.refuse_if_closed()?;
        ask(Arc::clone(&self.client)).await
    }

    /// Reads one document, if it is there.
    async fn get<T>(
        &self,
        name: String,
        read: impl FnOnce(&Client, &Document) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let found = self.ask(async |client| client.get_one(name).await).await?;
        found.map(|found| read(&self.client, &found)).transpose()
    }

    /// The alert that a document points to.
    async fn alert_by(&self, pointer: String) -> Result<Option<Alert>, StoreError> {
        match self.get(pointer, |_, found| records::pointed_to(found)).await? {
            Some(name) => self.get(name, records::alert).await,
            None => Ok(None),
        }
    }

    /// Makes one document; `false`: it is there already.
    async fn create(&self, name: String, fields: documents::Fields) -> Result<bool, StoreError> {
        let client = Arc::clone(&self.client);
        self.work.change(client.limits, async move { change::create_once(&client, name, fields).await }).await
    }
}

/// Where a stretch of the audit begins: the collection's number, and the name behind which it goes on.
fn walk_place(from: &str) -> Option<(usize, Option<String>)> {
    let (at, after) = from.split_once(' ')?;
    Some((at.parse().ok()?, (!after.is_empty()).then(|| after.to_owned())))
}

fn alert_ids(found: &[Document]) -> Result<Vec<AlertId>, StoreError> {
    found.iter().map(|document| document.parsed(field::ALERT_ID)).collect()
}

#[async_trait]
impl Store for FirestoreStore {
    async fn intake_context(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<IntakeContext, StoreError> {
        let names = &self.client.names;
        let mut wanted = vec![
            names.open_alert(organisation, subject),
            names.consent(organisation, subject),
            names.data_key(organisation, subject.into()),
        ];
        wanted.extend(idempotency.map(|key| names.answer(key)));
        let mut found = self.ask(async |client| client.get(&wanted, &[]).await).await?.into_iter();
        let mut next = || found.next().flatten();
        let (guard, consent, data_key, answer) = (next(), next(), next(), next());
        let open_alert = match guard.as_ref().map(records::pointed_to).transpose()? {
            // It may have been closed since its guard was read: then it is none to join.
            Some(alert) => self.get(alert, records::alert).await?.filter(Alert::is_open),
            None => None,
        };
        Ok(IntakeContext {
            idempotency: match (idempotency, answer) {
                (Some(key), Some(found)) => Some(records::answer(key, &found)?),
                (Some(_) | None, _) => None,
            },
            open_alert,
            consent: consent.map(|found| records::consent(&self.client, &found)).transpose()?,
            data_key: data_key.map(|found| records::data_key(organisation, subject.into(), &found)).transpose()?,
        })
    }

    async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError> {
        let client = Arc::clone(&self.client);
        let change = AlertChange::new(&client, commit, self.settings.answers_kept)?;
        self.work.change(client.limits, async move { change::make(&client, &change.number(), change).await }).await
    }

    async fn keep_answer(&self, record: IdempotencyRecord) -> Result<bool, StoreError> {
        let fields = records::answer_fields(&record, self.settings.answers_kept);
        self.create(self.client.names.answer(record.key), fields).await
    }

    async fn answer(&self, key: IdempotencyKey) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.get(self.client.names.answer(key), |_, found| records::answer(key, found)).await
    }

    async fn forget_answers(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let client = Arc::clone(&self.client);
        self.work.change(client.limits, async move { change::forget(&client, before, limit).await }).await
    }

    async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        self.get(self.client.names.alert(id), records::alert).await
    }

    async fn alert_by_reference(
        &self,
        organisation: &OrganisationId,
        reference: Reference,
    ) -> Result<Option<Alert>, StoreError> {
        self.alert_by(self.client.names.reference(organisation, reference)).await
    }

    async fn alert_of_message(&self, id: &ProviderId) -> Result<Option<Alert>, StoreError> {
        self.alert_by(self.client.names.message(id)).await
    }

    async fn last_case_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
    ) -> Result<Option<Alert>, StoreError> {
        self.alert_by(self.client.names.last_case(organisation, address)).await
    }

    async fn cases_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let query = queries::cases_of(organisation, address, limit);
        let found = self.find(query, limit).await?;
        found.iter().map(|found| records::alert(&self.client, found)).collect()
    }

    async fn due_alerts(&self, until: Timestamp, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        alert_ids(&self.find(queries::due(until, limit), limit).await?)
    }

    async fn unfinished_alerts(&self, after: Option<AlertId>, limit: usize) -> Result<Vec<AlertId>, StoreError> {
        alert_ids(&self.find(queries::unfinished(after, limit), limit).await?)
    }

    async fn list_alerts(
        &self,
        organisation: &OrganisationId,
        state: Option<StateName>,
        after: Option<ListCursor>,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError> {
        let found = self.find(queries::list(organisation, state, after, limit), limit).await?;
        found.iter().map(|found| records::alert(&self.client, found)).collect()
    }

    async fn event_details(&self, alert: AlertId) -> Result<Vec<EventDetails>, StoreError> {
        let prefix = self.client.names.events_of(alert);
        let found = self.find(queries::named(collection::EVENTS, &prefix, None, usize::MAX), usize::MAX).await?;
        let read = |found: &Document| json::read(found.text(field::BODY)?);
        let mut details: Vec<EventDetails> = found.iter().map(read).collect::<Result<_, _>>()?;
        details.sort_by_key(|details| (details.received_at.as_microsecond(), details.event));
        Ok(details)
    }

    async fn consent(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
    ) -> Result<Option<ConsentRecord>, StoreError> {
        self.get(self.client.names.consent(organisation, subject), records::consent).await
    }

    async fn commit_consent(&self, commit: ConsentCommit) -> Result<bool, StoreError> {
        let client = Arc::clone(&self.client);
        let change = RecordChange::of_consent(&client, &commit)?;
        self.work.change(client.limits, async move { change::make(&client, &change.number(), change).await }).await
    }

    async fn roster(&self, organisation: &OrganisationId) -> Result<Option<Roster>, StoreError> {
        self.get(self.client.names.roster(organisation), records::roster).await
    }

    async fn commit_roster(&self, commit: RosterCommit) -> Result<bool, StoreError> {
        let client = Arc::clone(&self.client);
        let change = RecordChange::of_roster(&client, &commit)?;
        self.work.change(client.limits, async move { change::make(&client, &change.number(), change).await }).await
    }

    async fn data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let name = self.client.names.data_key(organisation, person);
        self.get(name, |_, found| records::data_key(organisation, person, found)).await
    }

    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<bool, StoreError> {
        let name = self.client.names.data_key(&key.organisation, key.person);
        self.create(name, records::data_key_fields(&key)).await
    }

    async fn append_audit(&self, entry: AuditEntry) -> Result<bool, StoreError> {
        // No entry is ever deleted: one that was there when this was read is there when the next is written.
        if self.audit_head(&entry.stream).await?.seq + 1 != entry.seq {
            return Ok(false);
        }
        self.create(self.client.names.audit_entry(&entry.stream, entry.seq), records::audit_fields(&entry)?).await
    }

    async fn audit_head(&self, stream: &AuditStream) -> Result<AuditHead, StoreError> {
        let query = queries::audit_head(documents::audit_collection(stream), &documents::chain(stream));
        let found = self.find(query, 1).await?;
        let head = |last: &Document| {
            Ok(AuditHead { seq: last.count(field::SEQ)?, hash: AuditHash::from_bytes(last.bytes_32(field::HASH)?) })
        };
        found.first().map_or(Ok(AuditHead::EMPTY), head)
    }

    async fn audit_entries(
        &self,
        stream: &AuditStream,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let names = &self.client.names;
        let prefix = names.of(documents::audit_collection(stream), &format!("{}-", documents::chain(stream)));
        let after = Some(names.audit_entry(stream, after));
        let query = queries::named(documents::audit_collection(stream), &prefix, after, limit);
        let found = self.find(query, limit).await?;
        found.iter().map(|found| records::audit_entry(stream, found)).collect()
    }

    /// In the order of the entries' names, which begin with their chain's and end with their number: Firestore keeps all
    /// documents in that order, without any index.
    async fn audit_walk(&self, from: Option<&str>, limit: usize) -> Result<AuditStretch, StoreError> {
        let (at, after) = match from {
            Some(from) => walk_place(from).ok_or_else(|| documents::corrupt("this is no place in the audit"))?,
            None => (0, None),
        };
        let Some(&collection) = documents::AUDIT.get(at) else {
            return Ok(AuditStretch { entries: Vec::new(), next: None });
        };
        let found = self.find(queries::every(collection, after, limit), limit).await?;
        let next = match found.last() {
            Some(last) if found.len() == limit => Some(format!("{at} {}", last.name)),
            Some(_) | None => (at + 1 < documents::AUDIT.len()).then(|| format!("{} ", at + 1)),
        };
        let read = |found: &Document| records::audit_entry_by_name(&self.client.names, collection, found);
        Ok(AuditStretch { entries: found.iter().map(read).collect::<Result<_, _>>()?, next })
    }

    async fn keep_fact(&self, name: &'static str, value: &str) -> Result<String, StoreError> {
        // Almost always it is there already: to read first spares a write at every start.
        if let Some(kept) = self.fact(name).await? {
            return Ok(kept);
        }
        self.create(self.client.names.fact(name), fields([(field::VALUE, text(value))])).await?;
        self.fact(name).await?.ok_or_else(|| documents::corrupt("a fact that was kept is not there"))
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let states = [StateName::Withheld, StateName::Escalating, StateName::Acknowledged];
        self.ask(async |client| {
            let count = async |state| client.count(queries::count_of(state)).await.map(|count| (state, count));
            let counted = futures::future::try_join_all(states.map(count));
            let (counted, next) = try_join(counted, client.query(queries::next_due())).await?;
            let next_due_at = next.first().map(|next| next.at(field::NEXT_ACTION_AT)).transpose()?;
            Ok(StoreStats { open: counted.into_iter().filter(|(_, count)| *count > 0).collect(), next_due_at })
        })
        .await
    }

    /// Writes and reads a document of this instance's own. Where a write went through less than a second ago, that is
    /// proof enough, and it only reads: one document is not to be written more often.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        let fresh = self.probed.lock().is_some_and(|at| at.elapsed() < PROBE_EVERY);
        if !fresh {
            let (client, name) = (Arc::clone(&self.client), self.health.clone());
            let expires_at = now.saturating_add(PROBE_KEPT).unwrap_or(Timestamp::MAX);
            let fields = fields([(field::AT, micros(now)), (field::EXPIRES_AT, time(expires_at))]);
            let limits = client.limits;
            self.work.change(limits, async move { change::overwrite(&client, name, fields).await }).await?;
            *self.probed.lock() = Some(Instant::now());
        }
        let there = self.get(self.health.clone(), |_, found| found.at(field::AT)).await?;
        there
            .map(|_| ())
            .ok_or_else(|| StoreError::Unavailable { what: "a probe that was written is not there".to_owned() })
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn operations(&self) -> Operations {
        self.client.counters.told()
    }

    async fn close(&self) {
        self.work.close().await;
    }
}

impl FirestoreStore {
    async fn find(
        &self,
        query: firestore::gcloud_sdk::google::firestore::v1::StructuredQuery,
        limit: usize,
    ) -> Result<Vec<Document>, StoreError> {
        self.work.refuse_if_closed()?;
        // Firestore takes no limit of none.
        if limit == 0 { Ok(Vec::new()) } else { self.client.query(query).await }
    }
}
