//! What is kept beside alerts, field by field.

use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, Write, WriteResult};

use super::change::{Change, CommitNumber, Seen, contradiction, create, replace, stamp_of};
use super::client::Client;
use super::documents::{
    self, Fields, Names, Read, bytes, chain, corrupt, count, field, fields, int, micros, shard, text, time,
};
use super::stamps::Stamp;
use crate::domain::alert::Alert;
use crate::domain::audit::{AuditEntry, AuditHash, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::ids::{IdempotencyKey, OrganisationId, PersonKey};
use crate::domain::roster::Roster;
use crate::ports::{ConsentCommit, IdempotencyRecord, RosterCommit, StoreError, WrappedDataKey};
use crate::store::json;

/// Reads an alert, and remembers its version.
pub(super) fn alert(client: &Client, document: &Document) -> Result<Alert, StoreError> {
    remember(client, document);
    json::read(document.text(field::BODY)?)
}

pub(super) fn consent(client: &Client, document: &Document) -> Result<ConsentRecord, StoreError> {
    remember(client, document);
    json::read(document.text(field::BODY)?)
}

pub(super) fn roster(client: &Client, document: &Document) -> Result<Roster, StoreError> {
    remember(client, document);
    json::read(document.text(field::BODY)?)
}

fn remember(client: &Client, document: &Document) {
    if let Some(stamp) = stamp_of(document) {
        client.stamps.keep(&document.name, stamp);
    }
}

/// The name of the alert that a document points to.
pub(super) fn pointed_to(document: &Document) -> Result<String, StoreError> {
    match document.value(field::ALERT) {
        Some(ValueType::ReferenceValue(name)) => Ok(name.clone()),
        _ => Err(corrupt("a document names no alert")),
    }
}

pub(super) fn answer_fields(record: &IdempotencyRecord, kept: Duration) -> Fields {
    let expires_at = record.created_at.saturating_add(kept).unwrap_or(jiff::Timestamp::MAX);
    fields([
        (field::BODY, bytes(record.body)),
        (field::STATUS, int(i64::from(record.status))),
        (field::ANSWER, text(record.answer.clone())),
        (field::CREATED_AT, micros(record.created_at)),
        (field::EXPIRES_AT, time(expires_at)),
        (field::SHARD, int(shard(&record.key.to_string()))),
    ])
}

pub(super) fn answer(key: IdempotencyKey, document: &Document) -> Result<IdempotencyRecord, StoreError> {
    let status = u16::try_from(document.int(field::STATUS)?).map_err(|_| corrupt("a status is out of range"))?;
    Ok(IdempotencyRecord {
        key,
        body: document.bytes_32(field::BODY)?,
        status,
        answer: document.text(field::ANSWER)?.to_owned(),
        created_at: document.at(field::CREATED_AT)?,
    })
}

pub(super) fn data_key_fields(key: &WrappedDataKey) -> Fields {
    fields([
        (field::KEY_ID, text(key.key_id.clone())),
        (field::WRAPPED, text(key.wrapped.clone())),
        (field::CREATED_AT, micros(key.created_at)),
    ])
}

pub(super) fn data_key(
    organisation: &OrganisationId,
    person: PersonKey,
    document: &Document,
) -> Result<WrappedDataKey, StoreError> {
    Ok(WrappedDataKey {
        organisation: organisation.clone(),
        person,
        key_id: document.text(field::KEY_ID)?.to_owned(),
        wrapped: document.text(field::WRAPPED)?.to_owned(),
        created_at: document.at(field::CREATED_AT)?,
    })
}

pub(super) fn audit_fields(entry: &AuditEntry) -> Result<Fields, StoreError> {
    Ok(fields([
        (field::CHAIN, text(chain(&entry.stream))),
        (field::STREAM, text(entry.stream.to_string())),
        (field::SEQ, count(entry.seq)?),
        (field::AT, micros(entry.at)),
        (field::ENTRY, documents::body(entry.canonical.clone())?),
        (field::HASH, bytes(*entry.hash.as_bytes())),
    ]))
}

/// Reads an entry whose document has the one name that its chain and number make. Under any other name it may stand beside
/// itself, and the entry that is written next would not find its number taken.
pub(super) fn audit_entry(stream: &AuditStream, document: &Document) -> Result<AuditEntry, StoreError> {
    let seq = document.count(field::SEQ)?;
    let place = format!("/{}/{}", documents::audit_collection(stream), documents::audit_id(stream, seq));
    if !document.name.ends_with(&place) {
        return Err(corrupt("an audit entry has another number or chain than its document's name"));
    }
    Ok(AuditEntry {
        stream: stream.clone(),
        seq,
        at: document.at(field::AT)?,
        canonical: document.text(field::ENTRY)?.to_owned(),
        hash: AuditHash::from_bytes(document.bytes_32(field::HASH)?),
    })
}

/// An entry of whatever chain its name says: by the name it is kept from being written twice.
pub(super) fn audit_entry_by_name(
    names: &Names,
    collection: &str,
    document: &Document,
) -> Result<AuditEntry, StoreError> {
    let id = document.name.strip_prefix(&names.of(collection, ""));
    let stream = id.and_then(|id| documents::chain_of(collection, id));
    let stream = stream.ok_or_else(|| corrupt("an audit entry's name is not in the expected form"))?;
    if document.text(field::STREAM)? != stream.to_string() {
        return Err(corrupt("an audit entry names another chain than its document does"));
    }
    audit_entry(&stream, document)
}

/// A change of a record that is written as a whole, from one version to the next, with its audit: what a student has said,
/// or a college has set up.
pub(super) struct RecordChange {
    version: u64,
    name: String,
    fields: Fields,
    audit: Vec<(String, Fields)>,
    number: CommitNumber,
}

impl RecordChange {
    pub(super) fn of_consent(client: &Client, commit: &ConsentCommit) -> Result<Self, StoreError> {
        let record = &commit.record;
        let name = client.names.consent(&record.organisation, record.subject);
        Self::new(client, name, record.version, json::write(record)?, &commit.audit)
    }

    pub(super) fn of_roster(client: &Client, commit: &RosterCommit) -> Result<Self, StoreError> {
        let roster = &commit.roster;
        let name = client.names.roster(&roster.organisation);
        Self::new(client, name, roster.version, json::write(roster)?, &commit.audit)
    }

    fn new(
        client: &Client,
        name: String,
        version: u64,
        body: String,
        audit: &[AuditEntry],
    ) -> Result<Self, StoreError> {
        let body = documents::body(body)?;
        let entry = |entry: &AuditEntry| Ok((client.names.audit_entry(&entry.stream, entry.seq), audit_fields(entry)?));
        Ok(Self {
            version,
            name,
            fields: fields([(field::BODY, body), (field::VERSION, count(version)?)]),
            audit: audit.iter().map(entry).collect::<Result<_, StoreError>>()?,
            number: CommitNumber::draw(client),
        })
    }

    pub(super) fn number(&self) -> CommitNumber {
        self.number.clone()
    }
}

impl Change for RecordChange {
    /// Whether it was made; `false`: it was changed in the meantime.
    type Outcome = bool;

    fn guarded(&self) -> Vec<String> {
        self.marks()
    }

    fn marks(&self) -> Vec<String> {
        std::iter::once(&self.name).chain(self.audit.iter().map(|(name, _)| name)).cloned().collect()
    }

    fn writes(&self, client: &Client) -> Result<Option<Vec<Write>>, StoreError> {
        let mut writes = Vec::with_capacity(1 + self.audit.len());
        if self.version == 1 {
            writes.push(create(self.name.clone(), self.fields.clone(), &self.number));
        } else {
            let before = self.version.checked_sub(1).and_then(|before| client.stamps.at(&self.name, before));
            let Some(before) = before else { return Ok(None) };
            writes.push(replace(self.name.clone(), self.fields.clone(), &[], before.update_time, &self.number));
        }
        writes.extend(self.audit.iter().map(|(name, fields)| create(name.clone(), fields.clone(), &self.number)));
        Ok(Some(writes))
    }

    fn refusal(&mut self, seen: &Seen) -> Result<Option<bool>, StoreError> {
        // A version 0 follows nothing; and where nothing is kept, only a first version follows.
        let follows = self.version.checked_sub(1) == Some(seen.version(&self.name)?)
            && seen.has(&self.name) == (self.version > 1);
        if !follows {
            return Ok(Some(false));
        }
        if self.audit.iter().any(|(name, _)| seen.has(name)) {
            return Err(contradiction());
        }
        Ok(None)
    }

    fn made(&self, client: &Client, results: Option<&[WriteResult]>) -> bool {
        if let Some(update_time) = results.and_then(|results| results.first()).and_then(|result| result.update_time) {
            client.stamps.keep(&self.name, Stamp { version: self.version, update_time, open: true });
        }
        true
    }
}
