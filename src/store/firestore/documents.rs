//! Documents: their names, and how values stand in their fields.
//!
//! **Names look random.** Firestore keeps documents in the order of their names and splits that order between machines;
//! names that grow with the time would all go to one of them. So an id that begins with the time (UUID version 7) is
//! turned: its random half comes first. Everything else is named by a keyed hash, by chance, or by Twilio.
//!
//! **Fields.** `body` holds a value's JSON, as SQLite keeps it too, and is in no index. Beside it stand the few fields
//! that a query or a guard needs. Times are microseconds since 1970-01-01T00:00:00Z.

use std::collections::HashMap;

use firestore::gcloud_sdk::google::firestore::v1::value::ValueType;
use firestore::gcloud_sdk::google::firestore::v1::{ArrayValue, Document, Value};
use firestore::gcloud_sdk::prost_types;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::audit::AuditStream;
use crate::domain::ids::{
    AddressKey, AlertId, EventId, IdempotencyKey, OrganisationId, PersonKey, ProviderId, Reference, SubjectKey,
};
use crate::ports::StoreError;

/// The collections, by the field's own words.
pub(super) mod collection {
    pub(crate) const ALERTS: &str = "crisis_alerts";
    pub(crate) const EVENTS: &str = "crisis_events";
    pub(crate) const ALERT_AUDIT: &str = "crisis_logs";
    pub(crate) const ACCESS_AUDIT: &str = "access_logs";
    pub(crate) const CONSENT_AUDIT: &str = "consent_audit_trail";
    pub(crate) const SETTINGS_AUDIT: &str = "settings_logs";
    pub(crate) const ROSTERS: &str = "rosters";
    pub(crate) const CONSENTS: &str = "messaging_consent";
    pub(crate) const OPEN_ALERTS: &str = "open_alerts";
    pub(crate) const REFERENCES: &str = "references";
    pub(crate) const MESSAGES: &str = "provider_messages";
    pub(crate) const LAST_CASES: &str = "last_cases";
    pub(crate) const ANSWERS: &str = "idempotency_keys";
    pub(crate) const DATA_KEYS: &str = "data_keys";
    pub(crate) const FACTS: &str = "facts";
    pub(crate) const HEALTH: &str = "health";
}

/// The fields, each in one place, since an index is told of them by name.
pub(super) mod field {
    pub(crate) const ALERT: &str = "alert";
    pub(crate) const ALERT_ID: &str = "alert_id";
    pub(crate) const ANSWER: &str = "answer";
    pub(crate) const AT: &str = "at";
    pub(crate) const BODY: &str = "body";
    pub(crate) const CHAIN: &str = "chain";
    /// Which commit wrote a document last: tells one's own from everybody else's.
    pub(crate) const COMMIT: &str = "commit";
    pub(crate) const CREATED_AT: &str = "created_at";
    pub(crate) const ENTRY: &str = "entry";
    pub(crate) const EXPIRES_AT: &str = "expires_at";
    pub(crate) const HASH: &str = "hash";
    pub(crate) const KEY_ID: &str = "key_id";
    pub(crate) const NEXT_ACTION_AT: &str = "next_action_at";
    pub(crate) const OPEN: &str = "open";
    pub(crate) const OPENED_AT: &str = "opened_at";
    pub(crate) const ORGANISATION: &str = "organisation";
    pub(crate) const SEQ: &str = "seq";
    pub(crate) const SHARD: &str = "shard";
    pub(crate) const STATE: &str = "state";
    pub(crate) const STATUS: &str = "status";
    pub(crate) const STREAM: &str = "stream";
    pub(crate) const TOLD: &str = "told";
    pub(crate) const UNFINISHED: &str = "unfinished";
    pub(crate) const VALUE: &str = "value";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const WRAPPED: &str = "wrapped";
}

/// Into how many parts an index is split whose values grow with the time. One part takes about 500 writes a second.
pub(super) const SHARDS: i64 = 8;

/// The longest body. Firestore refuses a document above 1 MiB; this leaves room for the other fields and their names.
pub(super) const BODY_BYTES_MAX: usize = 900 * 1024;

/// Where the documents of one database are.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `projects/…/databases/…`
    pub(super) database: String,
    /// The same with `/documents` behind it.
    pub(super) documents: String,
}

impl Names {
    pub(super) fn new(project_id: &str, database_id: &str) -> Self {
        let database = format!("projects/{project_id}/databases/{database_id}");
        Self { documents: format!("{database}/documents"), database }
    }

    /// The full name of a document.
    pub(super) fn of(&self, collection: &str, id: &str) -> String {
        format!("{}/{collection}/{id}", self.documents)
    }

    pub(super) fn alert(&self, id: AlertId) -> String {
        self.of(collection::ALERTS, &turned(id.0))
    }

    /// All details of an alert's events lie between this and the same name with [`END`] behind it.
    pub(super) fn events_of(&self, alert: AlertId) -> String {
        self.of(collection::EVENTS, &format!("{}-", turned(alert.0)))
    }

    pub(super) fn event(&self, alert: AlertId, event: EventId) -> String {
        format!("{}{}", self.events_of(alert), event.0.simple())
    }

    pub(super) fn audit_entry(&self, stream: &AuditStream, seq: u64) -> String {
        self.of(audit_collection(stream), &audit_id(stream, seq))
    }

    pub(super) fn consent(&self, organisation: &OrganisationId, subject: SubjectKey) -> String {
        self.of(collection::CONSENTS, &format!("{subject}-{organisation}"))
    }

    pub(super) fn roster(&self, organisation: &OrganisationId) -> String {
        self.of(collection::ROSTERS, organisation.as_str())
    }

    pub(super) fn open_alert(&self, organisation: &OrganisationId, subject: SubjectKey) -> String {
        self.of(collection::OPEN_ALERTS, &format!("{subject}-{organisation}"))
    }

    pub(super) fn reference(&self, organisation: &OrganisationId, reference: Reference) -> String {
        self.of(collection::REFERENCES, &format!("{reference}-{organisation}"))
    }

    pub(super) fn message(&self, id: &ProviderId) -> String {
        self.of(collection::MESSAGES, id.as_str())
    }

    pub(super) fn last_case(&self, organisation: &OrganisationId, address: AddressKey) -> String {
        self.of(collection::LAST_CASES, &format!("{address}-{organisation}"))
    }

    pub(super) fn answer(&self, key: IdempotencyKey) -> String {
        self.of(collection::ANSWERS, &key.to_string())
    }

    pub(super) fn data_key(&self, organisation: &OrganisationId, person: PersonKey) -> String {
        self.of(collection::DATA_KEYS, &format!("{person}-{organisation}"))
    }

    pub(super) fn fact(&self, name: &str) -> String {
        self.of(collection::FACTS, name)
    }
}

/// Comes after every character that stands in a document's id here.
pub(super) const END: char = '~';

/// The id with its random half first. Turning it again gives the id back.
pub(super) fn turned(id: Uuid) -> String {
    let digits = id.simple().to_string();
    let (timely, random) = digits.split_at(digits.len() / 2);
    format!("{random}{timely}")
}

/// A chain's name in the ids of its entries.
pub(super) fn chain(stream: &AuditStream) -> String {
    match stream {
        AuditStream::Alert(alert) | AuditStream::Access(alert) => turned(alert.0),
        AuditStream::Consent(subject) => subject.to_string(),
        // In hexadecimal: an id may hold the dash that stands between a chain's name and a number.
        AuditStream::Settings(organisation) => data_encoding::HEXLOWER.encode(organisation.as_str().as_bytes()),
    }
}

/// The id of an entry's document. Twenty digits hold any number, so that the order of names is that of numbers.
pub(super) fn audit_id(stream: &AuditStream, seq: u64) -> String {
    format!("{}-{seq:020}", chain(stream))
}

/// The chain that an entry in this collection belongs to, by the document's id.
pub(super) fn chain_of(collection: &str, id: &str) -> Option<AuditStream> {
    let (chain, _seq) = id.rsplit_once('-')?;
    let alert = || turned(chain.parse().ok()?).parse().ok().map(AlertId);
    match collection {
        collection::ALERT_AUDIT => alert().map(AuditStream::Alert),
        collection::ACCESS_AUDIT => alert().map(AuditStream::Access),
        collection::CONSENT_AUDIT => chain.parse().ok().map(AuditStream::Consent),
        collection::SETTINGS_AUDIT => {
            let name = String::from_utf8(data_encoding::HEXLOWER.decode(chain.as_bytes()).ok()?).ok()?;
            name.parse().ok().map(AuditStream::Settings)
        }
        _ => None,
    }
}

/// Every collection of entries.
pub(super) const AUDIT: [&str; 4] =
    [collection::ALERT_AUDIT, collection::ACCESS_AUDIT, collection::CONSENT_AUDIT, collection::SETTINGS_AUDIT];

/// Where a chain's entries are.
pub(super) const fn audit_collection(stream: &AuditStream) -> &'static str {
    match stream {
        AuditStream::Alert(_) => collection::ALERT_AUDIT,
        AuditStream::Access(_) => collection::ACCESS_AUDIT,
        AuditStream::Consent(_) => collection::CONSENT_AUDIT,
        AuditStream::Settings(_) => collection::SETTINGS_AUDIT,
    }
}

/// The part of an index that a thing is in, by what it is called.
pub(super) fn shard(name: &str) -> i64 {
    let hash = Sha256::digest(name.as_bytes());
    i64::from(hash[0]) % SHARDS
}

/// The fields of a document.
pub(super) type Fields = HashMap<String, Value>;

pub(super) fn text(value: impl Into<String>) -> Value {
    Value { value_type: Some(ValueType::StringValue(value.into())) }
}

pub(super) fn bytes(value: impl Into<Vec<u8>>) -> Value {
    Value { value_type: Some(ValueType::BytesValue(value.into())) }
}

pub(super) const fn int(value: i64) -> Value {
    Value { value_type: Some(ValueType::IntegerValue(value)) }
}

pub(super) const fn boolean(value: bool) -> Value {
    Value { value_type: Some(ValueType::BooleanValue(value)) }
}

pub(super) fn micros(at: Timestamp) -> Value {
    int(at.as_microsecond())
}

pub(super) fn time(at: Timestamp) -> Value {
    let seconds = at.as_second();
    let nanos = at.subsec_nanosecond();
    // Before 1970 the fraction is negative here and must not be there.
    let (seconds, nanos) = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
    Value { value_type: Some(ValueType::TimestampValue(prost_types::Timestamp { seconds, nanos })) }
}

pub(super) fn array(values: Vec<Value>) -> Value {
    Value { value_type: Some(ValueType::ArrayValue(ArrayValue { values })) }
}

pub(super) const fn name(value: String) -> Value {
    Value { value_type: Some(ValueType::ReferenceValue(value)) }
}

/// A number as Firestore keeps it. One that does not fit is refused: a number that was bent would pass for another.
pub(super) fn count(number: u64) -> Result<Value, StoreError> {
    i64::try_from(number).map(int).map_err(|_| corrupt("a number is too large"))
}

/// A body, unless it is too long for a document.
pub(super) fn body(text_of_it: String) -> Result<Value, StoreError> {
    if text_of_it.len() > BODY_BYTES_MAX {
        return Err(corrupt("a value is too large for a document (more than 900 KiB)"));
    }
    Ok(text(text_of_it))
}

pub(super) fn fields<const N: usize>(of: [(&str, Value); N]) -> Fields {
    of.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt { what: what.to_owned() }
}

/// Reads the fields of a document. Errors name the field, never its value.
pub(super) trait Read {
    fn value(&self, field: &'static str) -> Option<&ValueType>;

    fn text(&self, field: &'static str) -> Result<&str, StoreError> {
        match self.value(field) {
            Some(ValueType::StringValue(text)) => Ok(text),
            _ => Err(unreadable(field)),
        }
    }

    fn text_if_any(&self, field: &'static str) -> Option<&str> {
        self.text(field).ok()
    }

    fn int(&self, field: &'static str) -> Result<i64, StoreError> {
        match self.value(field) {
            Some(ValueType::IntegerValue(number)) => Ok(*number),
            _ => Err(unreadable(field)),
        }
    }

    fn count(&self, field: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.int(field)?).map_err(|_| unreadable(field))
    }

    fn at(&self, field: &'static str) -> Result<Timestamp, StoreError> {
        Timestamp::from_microsecond(self.int(field)?).map_err(|_| unreadable(field))
    }

    fn bytes_32(&self, field: &'static str) -> Result<[u8; 32], StoreError> {
        match self.value(field) {
            Some(ValueType::BytesValue(bytes)) => bytes.as_slice().try_into().map_err(|_| unreadable(field)),
            _ => Err(unreadable(field)),
        }
    }

    fn is_true(&self, field: &'static str) -> bool {
        matches!(self.value(field), Some(ValueType::BooleanValue(true)))
    }

    fn parsed<T: std::str::FromStr>(&self, field: &'static str) -> Result<T, StoreError> {
        self.text(field)?.parse().map_err(|_| unreadable(field))
    }
}

impl Read for Document {
    fn value(&self, field: &'static str) -> Option<&ValueType> {
        self.fields.get(field)?.value_type.as_ref()
    }
}

fn unreadable(field: &'static str) -> StoreError {
    StoreError::Corrupt { what: format!("a document's field {field} is not in the expected form") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_moment_are_spread_over_all_names_and_are_read_back() {
        let ids: Vec<AlertId> =
            (0..64_u8).map(|n| AlertId::new(Timestamp::UNIX_EPOCH, [n.wrapping_mul(151); 10])).collect();
        let firsts: std::collections::BTreeSet<String> = ids.iter().map(|id| turned(id.0)[..4].to_owned()).collect();
        assert!(firsts.len() > 48, "the names begin alike: {firsts:?}");
        for id in ids {
            let there: Uuid = turned(id.0).parse().unwrap();
            assert_eq!(turned(there), id.0.simple().to_string(), "turned twice it is another id");
        }
    }

    #[test]
    fn a_time_before_1970_has_a_positive_fraction() {
        let value = time(Timestamp::from_microsecond(-1).unwrap());
        let Some(ValueType::TimestampValue(stamp)) = value.value_type else { panic!("no time: {value:?}") };
        assert_eq!((stamp.seconds, stamp.nanos), (-1, 999_999_000));
    }
}
