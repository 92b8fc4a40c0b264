//! Everything that the database holds, out and in: collection by collection, in the order of names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, Write};
use uuid::Uuid;

use super::client::Client;
use super::documents::{self, Read, array, collection, corrupt, field, fields, text, turned};
use super::{FirestoreStore, alerts, change, queries, records};
use crate::domain::alert::Alert;
use crate::domain::audit::AuditStream;
use crate::domain::ids::{AddressKey, AlertId, OrganisationId, PersonKey};
use crate::ports::StoreError;
use crate::ports::transfer::{COPYING, Kind, MOVED_TO, Page, Piece, Transfer};
use crate::store::json;

/// What one commit holds at the most, in bytes of bodies; Firestore takes 10 MiB.
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// And in pieces; each is three writes at the most.
const COMMIT_PIECES_MAX: usize = 100;

const fn collections(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Fact => &[collection::FACTS],
        Kind::DataKey => &[collection::DATA_KEYS],
        Kind::Consent => &[collection::CONSENTS],
        Kind::Roster => &[collection::ROSTERS],
        Kind::Audit => &documents::AUDIT,
        Kind::Event => &[collection::EVENTS],
        Kind::Message => &[collection::MESSAGES],
        Kind::LastCase => &[collection::LAST_CASES],
        Kind::Answer => &[collection::ANSWERS],
        Kind::Alert => &[collection::ALERTS],
    }
}

fn id_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

fn turned_back(id: &str) -> Result<AlertId, StoreError> {
    let there: Uuid = id.parse().map_err(|_| corrupt("a document's name holds no id"))?;
    turned(there).parse().map(AlertId).map_err(|_| corrupt("a document's name holds no id"))
}

fn part<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| corrupt("a document's name is not in the expected form"))
}

fn split(id: &str) -> Result<(&str, &str), StoreError> {
    id.split_once('-').ok_or_else(|| corrupt("a document's name is not in the expected form"))
}

/// `None`: a fact of copying itself.
fn piece(kind: Kind, document: &Document) -> Result<Option<Piece>, StoreError> {
    let id = id_of(&document.name);
    Ok(Some(match kind {
        Kind::Fact if [COPYING, MOVED_TO].contains(&id) => return Ok(None),
        Kind::Fact => Piece::Fact(id.to_owned(), document.text(field::VALUE)?.to_owned()),
        Kind::DataKey => {
            let (person, organisation) = split(id)?;
            let (person, organisation) = (part::<PersonKey>(person)?, part::<OrganisationId>(organisation)?);
            Piece::DataKey(records::data_key(&organisation, person, document)?)
        }
        Kind::Consent => {
            let body = document.text(field::BODY)?;
            Piece::Consent(Box::new(json::read(body)?), body.to_owned())
        }
        Kind::Roster => {
            let body = document.text(field::BODY)?;
            Piece::Roster(Box::new(json::read(body)?), body.to_owned())
        }
        Kind::Audit => {
            let stream: AuditStream = document.parsed(field::STREAM)?;
            Piece::Audit(records::audit_entry(&stream, document)?)
        }
        Kind::Event => Piece::Event(turned_back(split(id)?.0)?, json::read(document.text(field::BODY)?)?),
        Kind::Message => Piece::Message(part(id)?, turned_back(id_of(&records::pointed_to(document)?))?),
        Kind::LastCase => {
            let (address, organisation) = split(id)?;
            let alert = turned_back(id_of(&records::pointed_to(document)?))?;
            Piece::LastCase(part(organisation)?, part(address)?, alert)
        }
        Kind::Answer => Piece::Answer(records::answer(part(id)?, document)?),
        Kind::Alert => {
            let body = document.text(field::BODY)?;
            Piece::Alert(Box::new(json::read(body)?), body.to_owned(), told(document)?)
        }
    }))
}

fn told(document: &Document) -> Result<BTreeSet<AddressKey>, StoreError> {
    let Some(ValueType::ArrayValue(told)) = document.value(field::TOLD) else { return Ok(BTreeSet::new()) };
    let read = |value: &firestore::gcloud_sdk::google::firestore::v1::Value| match &value.value_type {
        Some(ValueType::StringValue(text)) => part(text),
        _ => Err(corrupt("a number told is not in the expected form")),
    };
    told.values.iter().map(read).collect()
}

/// The writes of a piece, whatever was there.
fn writes(client: &Client, answers_kept: Duration, piece: &Piece) -> Result<Vec<Write>, StoreError> {
    let names = &client.names;
    Ok(vec![match piece {
        Piece::Fact(name, value) => change::update(names.fact(name), fields([(field::VALUE, text(value.clone()))])),
        Piece::DataKey(key) => {
            change::update(names.data_key(&key.organisation, key.person), records::data_key_fields(key))
        }
        Piece::Consent(record, body) => {
            let fields = fields([
                (field::BODY, documents::body(body.clone())?),
                (field::VERSION, documents::count(record.version)?),
            ]);
            change::update(names.consent(&record.organisation, record.subject), fields)
        }
        Piece::Roster(roster, body) => {
            let fields = fields([
                (field::BODY, documents::body(body.clone())?),
                (field::VERSION, documents::count(roster.version)?),
            ]);
            change::update(names.roster(&roster.organisation), fields)
        }
        Piece::Audit(entry) => {
            change::update(names.audit_entry(&entry.stream, entry.seq), records::audit_fields(entry)?)
        }
        Piece::Event(alert, details) => {
            let body = documents::body(json::write(details)?)?;
            change::update(names.event(*alert, details.event), fields([(field::BODY, body)]))
        }
        Piece::Message(id, alert) => change::update(names.message(id), alerts::points_to(names, *alert)),
        Piece::LastCase(organisation, address, alert) => {
            change::update(names.last_case(organisation, *address), alerts::points_to(names, *alert))
        }
        Piece::Answer(record) => change::update(names.answer(record.key), records::answer_fields(record, answers_kept)),
        Piece::Alert(alert, body, told) => return alert_writes(client, alert, body, told),
    }])
}

fn alert_writes(
    client: &Client,
    alert: &Alert,
    body: &str,
    told: &BTreeSet<AddressKey>,
) -> Result<Vec<Write>, StoreError> {
    let names = &client.names;
    let mut fields = alerts::alert_fields(alert, documents::body(body.to_owned())?)?;
    if alert.state.hears_phones() {
        let told = told.iter().map(|address| text(address.to_string())).collect();
        fields.insert(field::TOLD.to_owned(), array(told));
    }
    let pointer = || alerts::points_to(names, alert.id);
    let mut writes = vec![
        change::update(names.alert(alert.id), fields),
        change::update(names.reference(&alert.organisation, alert.reference), pointer()),
    ];
    if alert.is_open() {
        writes.push(change::update(names.open_alert(&alert.organisation, alert.subject), pointer()));
    }
    Ok(writes)
}

const fn weight(piece: &Piece) -> usize {
    match piece {
        Piece::Fact(..) | Piece::DataKey(_) | Piece::Message(..) | Piece::LastCase(..) => 0,
        Piece::Consent(_, body) | Piece::Roster(_, body) | Piece::Alert(_, body, _) => body.len(),
        Piece::Audit(entry) => entry.canonical.len(),
        // Sealed texts of bounded length: 20,000 characters of message and 64 KiB of metadata at the most.
        Piece::Event(..) => 256 * 1024,
        Piece::Answer(record) => record.answer.len(),
    }
}

#[async_trait]
impl Transfer for FirestoreStore {
    async fn export(&self, kind: Kind, from: Option<String>, limit: usize) -> Result<Page, StoreError> {
        let all = collections(kind);
        // A collection's number, and the last name of the page before.
        let (at, after) = match from.as_deref().and_then(|from| from.split_once(' ')) {
            Some((at, after)) => (at.parse().unwrap_or(0), (!after.is_empty()).then(|| after.to_owned())),
            None => (0_usize, None),
        };
        let Some(collection) = all.get(at) else { return Ok(Page { pieces: Vec::new(), next: None }) };
        let found = self.find(queries::every(collection, after, limit), limit).await?;
        let pieces = found.iter().filter_map(|document| piece(kind, document).transpose()).collect::<Result<_, _>>()?;
        let next = match found.last() {
            Some(last) if found.len() == limit => Some(format!("{at} {}", last.name)),
            _ if at + 1 < all.len() => Some(format!("{} ", at + 1)),
            _ => None,
        };
        Ok(Page { pieces, next })
    }

    async fn import(&self, pieces: Vec<Piece>) -> Result<(), StoreError> {
        let (mut together, mut bytes, mut number) = (Vec::new(), 0, 0);
        for piece in &pieces {
            if number == COMMIT_PIECES_MAX || (number > 0 && bytes + weight(piece) > COMMIT_BYTES_MAX) {
                self.write_over(std::mem::take(&mut together)).await?;
                (bytes, number) = (0, 0);
            }
            together.extend(writes(&self.client, self.settings.answers_kept, piece)?);
            bytes += weight(piece);
            number += 1;
        }
        if together.is_empty() { Ok(()) } else { self.write_over(together).await }
    }

    async fn read_mark(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.fact(name).await
    }

    async fn mark(&self, name: &'static str, value: Option<String>) -> Result<(), StoreError> {
        let document = self.client.names.fact(name);
        let write = match value {
            Some(value) => change::update(document, fields([(field::VALUE, text(value))])),
            None => change::delete(document),
        };
        self.write_over(vec![write]).await
    }
}

impl FirestoreStore {
    async fn write_over(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let client = Arc::clone(&self.client);
        self.work.change(client.limits, async move { change::write_over(&client, writes).await }).await
    }
}
