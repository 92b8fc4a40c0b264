//! A change of an alert, with everything that is committed along with it.

use std::collections::BTreeSet;

use firestore::gcloud_sdk::google::firestore::v1::document_transform::FieldTransform;
use firestore::gcloud_sdk::google::firestore::v1::document_transform::field_transform::TransformType;
use firestore::gcloud_sdk::google::firestore::v1::{ArrayValue, Value, Write, WriteResult};

use super::change::{Change, CommitNumber, Seen, contradiction, create, delete, hold, hold_absent, replace, update};
use super::client::Client;
use super::documents::{self, Fields, Names, array, boolean, count, field, fields, int, micros, name, shard, text};
use super::records;
use super::stamps::Stamp;
use crate::domain::alert::Alert;
use crate::domain::ids::AlertId;
use crate::ports::{AlertCommit, Committed, StoreError};
use crate::store::json;

/// Fields of an alert that are not there in every state.
const SOMETIMES: &[&str] = &[field::NEXT_ACTION_AT, field::UNFINISHED, field::TOLD];

/// The names of all documents that a commit touches.
struct Touched {
    alert: String,
    open_alert: String,
    reference: String,
    consent: String,
    answer: Option<String>,
    data_key: Option<String>,
    event: Option<String>,
    audit: Vec<String>,
    messages: Vec<String>,
}

pub(super) struct AlertChange {
    commit: AlertCommit,
    body: String,
    answer_fields: Option<Fields>,
    touched: Touched,
    number: CommitNumber,
}

impl AlertChange {
    pub(super) fn new(client: &Client, commit: AlertCommit, expiry: std::time::Duration) -> Result<Self, StoreError> {
        let names = &client.names;
        let alert = &commit.alert;
        let touched = Touched {
            alert: names.alert(alert.id),
            open_alert: names.open_alert(&alert.organisation, alert.subject),
            reference: names.reference(&alert.organisation, alert.reference),
            consent: names.consent(&alert.organisation, alert.subject),
            answer: commit.idempotency.as_ref().map(|record| names.answer(record.key)),
            data_key: commit.data_key.as_ref().map(|key| names.data_key(&key.organisation, key.person)),
            event: commit.event.as_ref().map(|details| names.event(alert.id, details.event)),
            audit: commit.audit.iter().map(|entry| names.audit_entry(&entry.stream, entry.seq)).collect(),
            messages: commit
                .provider_ids
                .iter()
                .map(|id| names.message(id))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        };
        if touched.audit.iter().collect::<BTreeSet<_>>().len() < touched.audit.len() {
            return Err(contradiction());
        }
        let body = json::write(alert)?;
        let answer_fields = commit.idempotency.as_ref().map(|record| records::answer_fields(record, expiry));
        Ok(Self { body, answer_fields, touched, number: CommitNumber::draw(client), commit })
    }

    pub(super) fn number(&self) -> CommitNumber {
        self.number.clone()
    }

    /// The alert's own document.
    fn alert_write(&self, before: Option<&Stamp>) -> Result<Write, StoreError> {
        let alert = &self.commit.alert;
        let name = self.touched.alert.clone();
        let mut fields = alert_fields(alert, documents::body(self.body.clone())?)?;
        let told = alert.state.hears_phones().then(|| told(alert));
        let Some(before) = before else {
            fields.extend(told.map(|told| (field::TOLD.to_owned(), array(told))));
            return Ok(create(name, fields, &self.number));
        };
        // Whom it has told stays until it is closed, even where the delivery is no longer kept: so it is added to.
        let cleared: Vec<&str> =
            SOMETIMES.iter().copied().filter(|&field| field != field::TOLD || told.is_none()).collect();
        let mut write = replace(name, fields, &cleared, before.update_time, &self.number);
        write.update_transforms.extend(told.filter(|told| !told.is_empty()).map(|values| FieldTransform {
            field_path: field::TOLD.to_owned(),
            transform_type: Some(TransformType::AppendMissingElements(ArrayValue { values })),
        }));
        Ok(write)
    }

    /// What is written beside the alert's own document and the guards.
    fn companions(&self, names: &Names) -> Result<Vec<Write>, StoreError> {
        let number = &self.number;
        let alert = &self.commit.alert;
        let mut writes = Vec::with_capacity(self.commit.audit.len() + 4);
        for (name, entry) in self.touched.audit.iter().zip(&self.commit.audit) {
            writes.push(create(name.clone(), records::audit_fields(entry)?, number));
        }
        if let (Some(name), Some(details)) = (&self.touched.event, &self.commit.event) {
            let body = documents::body(json::write(details)?)?;
            writes.push(create(name.clone(), fields([(field::BODY, body)]), number));
        }
        if let (Some(name), Some(fields)) = (&self.touched.answer, &self.answer_fields) {
            writes.push(create(name.clone(), fields.clone(), number));
        }
        if let (Some(name), Some(key)) = (&self.touched.data_key, &self.commit.data_key) {
            writes.push(create(name.clone(), records::data_key_fields(key), number));
        }
        for address in &self.commit.last_case_of {
            // Whatever was there: the newest stands.
            writes.push(update(names.last_case(&alert.organisation, *address), points_to(names, alert.id)));
        }
        for message in &self.touched.messages {
            writes.push(create(message.clone(), points_to(names, alert.id), number));
        }
        Ok(writes)
    }

    fn refused(&self, seen: &Seen) -> Result<Option<Committed>, StoreError> {
        let touched = &self.touched;
        let there = |name: &Option<String>| name.as_ref().is_some_and(|name| seen.has(name));
        if there(&touched.answer) {
            return Ok(Some(Committed::IdempotencyKeyUsed));
        }
        if there(&touched.data_key) {
            return Ok(Some(Committed::DataKeyExists));
        }
        if let Some(version) = self.commit.consent_version
            && seen.version(&touched.consent)? != version
        {
            return Ok(Some(Committed::ConsentChanged));
        }
        let refused = match self.commit.from_version {
            Some(version) => {
                let unchanged = seen.has(&touched.alert) && seen.version(&touched.alert)? == version;
                (!unchanged).then_some(Committed::VersionConflict)
            }
            None if seen.has(&touched.alert) => Some(Committed::VersionConflict),
            None if self.commit.alert.is_open() && seen.has(&touched.open_alert) => {
                Some(Committed::SubjectHasOpenAlert)
            }
            None if seen.has(&touched.reference) => Some(Committed::ReferenceTaken),
            None => None,
        };
        Ok(refused)
    }
}

impl Change for AlertChange {
    type Outcome = Committed;

    fn guarded(&self) -> Vec<String> {
        let touched = &self.touched;
        let mut names = vec![touched.alert.clone()];
        names.extend(touched.answer.iter().chain(&touched.data_key).chain(&touched.event).cloned());
        names.extend(touched.audit.iter().chain(&touched.messages).cloned());
        if self.commit.consent_version.is_some() {
            names.push(touched.consent.clone());
        }
        if self.commit.from_version.is_none() {
            names.extend([touched.open_alert.clone(), touched.reference.clone()]);
        }
        names
    }

    fn marks(&self) -> Vec<String> {
        // What was created stays as it is; the alert's document bears the mark until the next change of it.
        let touched = &self.touched;
        let created = touched.audit.iter().chain(&touched.answer).chain(&touched.data_key).chain(&touched.event);
        std::iter::once(&touched.alert).chain(created).cloned().collect()
    }

    fn writes(&self, client: &Client) -> Result<Option<Vec<Write>>, StoreError> {
        let touched = &self.touched;
        let alert = &self.commit.alert;
        let mut writes = Vec::new();
        match self.commit.from_version {
            None => {
                writes.push(self.alert_write(None)?);
                writes.push(create(touched.reference.clone(), points_to(&client.names, alert.id), &self.number));
                if alert.is_open() {
                    writes.push(create(touched.open_alert.clone(), points_to(&client.names, alert.id), &self.number));
                }
            }
            Some(version) => {
                let Some(before) = client.stamps.at(&touched.alert, version) else { return Ok(None) };
                writes.push(self.alert_write(Some(&before))?);
                // Only who closes it: after that the student may have another one, whose guard it is.
                if before.open && !alert.is_open() {
                    writes.push(delete(touched.open_alert.clone()));
                }
            }
        }
        match self.commit.consent_version {
            None => {}
            Some(0) => writes.push(hold_absent(touched.consent.clone())),
            Some(version) => {
                let Some(said) = client.stamps.at(&touched.consent, version) else { return Ok(None) };
                writes.push(hold(touched.consent.clone(), said.update_time));
            }
        }
        writes.extend(self.companions(&client.names)?);
        Ok(Some(writes))
    }

    fn refusal(&mut self, seen: &Seen) -> Result<Option<Committed>, StoreError> {
        if let Some(refused) = self.refused(seen)? {
            return Ok(Some(refused));
        }
        if self.touched.audit.iter().chain(&self.touched.event).any(|name| seen.has(name)) {
            return Err(contradiction());
        }
        // Whose message it is was settled when its id was first known.
        self.touched.messages.retain(|name| !seen.has(name));
        Ok(None)
    }

    fn made(&self, client: &Client, results: Option<&[WriteResult]>) -> Committed {
        // The alert's own document is the first that is written.
        if let Some(update_time) = results.and_then(|results| results.first()).and_then(|result| result.update_time) {
            let (version, open) = (self.commit.alert.version, self.commit.alert.is_open());
            client.stamps.keep(&self.touched.alert, Stamp { version, update_time, open });
        }
        Committed::Committed
    }
}

pub(super) fn alert_fields(alert: &Alert, body: Value) -> Result<Fields, StoreError> {
    let id = alert.id.to_string();
    let mut all = fields([
        (field::BODY, body),
        (field::VERSION, count(alert.version)?),
        (field::OPEN, boolean(alert.is_open())),
        (field::STATE, text(alert.state.name().as_str())),
        (field::ORGANISATION, text(alert.organisation.as_str())),
        (field::SHARD, int(shard(&id))),
        (field::OPENED_AT, micros(alert.opened_at)),
        (field::ALERT_ID, text(id.clone())),
    ]);
    if let Some(at) = alert.next_action_at() {
        all.extend(fields([(field::NEXT_ACTION_AT, micros(at)), (field::UNFINISHED, text(id))]));
    }
    Ok(all)
}

/// The numbers that an alert tells, each once.
fn told(alert: &Alert) -> Vec<Value> {
    let keys: BTreeSet<_> = alert.deliveries.iter().map(|delivery| delivery.address_key).collect();
    keys.into_iter().map(|key| text(key.to_string())).collect()
}

pub(super) fn points_to(names: &Names, alert: AlertId) -> Fields {
    fields([(field::ALERT, name(names.alert(alert)))])
}
