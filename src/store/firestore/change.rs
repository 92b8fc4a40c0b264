//! A change: several writes that are made together, each under a condition, in one call.
//!
//! ```text
//! commit ── made ────────────────────────────────> done
//!    ^  └── refused, or no answer ──> look at every guarded document, in one read
//!    │                                   ├── ours is there ───────────> done: the answer was lost, not the change
//!    │                                   ├── something stands against it > told by name, in the port's order
//!    └── nothing stands against it ──────┘   (a stale update time, a collision, a commit that never arrived)
//! ```
//!
//! Firestore says that a condition failed, and not which. And where no answer came, the commit may have been made, may
//! still be made, or not: it is sent again *with the same conditions*, so that it is made once at the most, until one
//! answer is certain. Documents bear the number of the commit that wrote them; that tells one's own from everybody
//! else's. Only if the time is over is the outcome [`StoreError::Unknown`].
//!
//! One case is left open and bounded: a commit whose answer was lost, and that was then seen to be refused by a guard
//! which can be lifted again (another open alert of the student, which a person closes), could still arrive after that.
//! Firestore is told each call's deadline, after which it does not begin it.

use std::collections::HashMap;
use std::time::Duration;

use firestore::gcloud_sdk::google::firestore::v1::precondition::ConditionType;
use firestore::gcloud_sdk::google::firestore::v1::write::Operation;
use firestore::gcloud_sdk::google::firestore::v1::{Document, DocumentMask, Precondition, Write, WriteResult};
use firestore::gcloud_sdk::prost_types::Timestamp;
use firestore::gcloud_sdk::tonic::Code;
use tokio::time::Instant;

use super::client::{Client, CommitFault, unavailable};
use super::documents::{Fields, Read, corrupt, field, text};
use super::queries;
use super::stamps::Stamp;
use crate::ports::{StoreError, random};

/// How often one change is sent at the most, in a crowd; there is a time limit as well.
const ATTEMPTS_MAX: u32 = 64;

/// One call's share of the time that a change has.
const CALL_SHARE: u32 = 2;

/// How many answers are forgotten in one commit.
const FORGOTTEN_AT_ONCE: usize = 100;

/// What guards see of a document.
const GUARD_FIELDS: &[&str] = &[field::VERSION, field::OPEN, field::COMMIT];

/// The number of one commit: drawn anew for each, and kept when it is sent again.
#[derive(Debug, Clone)]
pub(super) struct CommitNumber(String);

impl CommitNumber {
    pub(super) fn draw(client: &Client) -> Self {
        Self(data_encoding::HEXLOWER.encode(&random::<12>(client.entropy.as_ref())))
    }
}

/// A document that must not be there yet.
pub(super) fn create(name: String, mut fields: Fields, number: &CommitNumber) -> Write {
    fields.insert(field::COMMIT.to_owned(), text(number.0.clone()));
    Write { current_document: Some(exists(false)), ..update(name, fields) }
}

/// Writes these fields of a document that was last changed at `update_time`, and takes away those of `cleared`.
pub(super) fn replace(
    name: String,
    mut fields: Fields,
    cleared: &[&str],
    update_time: Timestamp,
    number: &CommitNumber,
) -> Write {
    fields.insert(field::COMMIT.to_owned(), text(number.0.clone()));
    let mut field_paths: Vec<String> = fields.keys().cloned().collect();
    field_paths.extend(cleared.iter().map(|&field| field.to_owned()).filter(|field| !fields.contains_key(field)));
    Write {
        update_mask: Some(DocumentMask { field_paths }),
        current_document: Some(unchanged_since(update_time)),
        ..update(name, fields)
    }
}

/// Holds a document to be as it was at `update_time`, and changes nothing: a write of no field keeps the update time
/// (documented at `WriteResult.update_time`, and checked on the emulator).
pub(super) fn hold(name: String, update_time: Timestamp) -> Write {
    Write {
        update_mask: Some(DocumentMask::default()),
        current_document: Some(unchanged_since(update_time)),
        ..update(name, Fields::new())
    }
}

/// Holds a document not to be there: a delete of nothing, under the condition that there is nothing. Checked on the
/// emulator; that production does the same follows from its description of preconditions, and was not tried.
pub(super) fn hold_absent(name: String) -> Write {
    Write { current_document: Some(exists(false)), ..delete(name) }
}

pub(super) fn delete(name: String) -> Write {
    Write { operation: Some(Operation::Delete(name)), ..Write::default() }
}

/// Deletes a document only if nobody has changed it since.
pub(super) fn delete_unchanged(name: String, update_time: Timestamp) -> Write {
    Write { current_document: Some(unchanged_since(update_time)), ..delete(name) }
}

/// Writes a document whatever was there.
pub(super) fn update(name: String, fields: Fields) -> Write {
    let document = Document { name, fields, ..Document::default() };
    Write { operation: Some(Operation::Update(document)), ..Write::default() }
}

const fn exists(there: bool) -> Precondition {
    Precondition { condition_type: Some(ConditionType::Exists(there)) }
}

const fn unchanged_since(update_time: Timestamp) -> Precondition {
    Precondition { condition_type: Some(ConditionType::UpdateTime(update_time)) }
}

/// What the guarded documents are like.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<String, Document>);

impl Seen {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The version that stands in a document; 0 where there is none.
    pub(super) fn version(&self, name: &str) -> Result<u64, StoreError> {
        self.0.get(name).map_or(Ok(0), |document| document.count(field::VERSION))
    }

    fn is_of(&self, name: &str, number: &CommitNumber) -> bool {
        self.0.get(name).and_then(|document| document.text_if_any(field::COMMIT)) == Some(number.0.as_str())
    }
}

/// What a change needs to know of a document with versions.
pub(super) fn stamp_of(document: &Document) -> Option<Stamp> {
    Some(Stamp {
        version: document.count(field::VERSION).ok()?,
        update_time: document.update_time?,
        open: document.is_true(field::OPEN),
    })
}

/// A change as it is sent, maybe more than once.
pub(super) trait Change {
    /// What it comes to.
    type Outcome;
    /// Every document that stands against it, or shows that it was made.
    fn guarded(&self) -> Vec<String>;
    /// The documents that show that it was made: written by it under a condition.
    fn marks(&self) -> Vec<String>;
    /// What is written, or `None` where a document must be looked at first.
    fn writes(&self, client: &Client) -> Result<Option<Vec<Write>>, StoreError>;
    /// What stands against it. May leave out writes that are not needed any more.
    fn refusal(&mut self, seen: &Seen) -> Result<Option<Self::Outcome>, StoreError>;
    /// It was made; `results` are Firestore's, where its answer came.
    fn made(&self, client: &Client, results: Option<&[WriteResult]>) -> Self::Outcome;
}

/// Makes a change, or finds out what stands against it.
pub(super) async fn make<C: Change>(
    client: &Client,
    number: &CommitNumber,
    mut change: C,
) -> Result<C::Outcome, StoreError> {
    let deadline = Instant::now() + client.limits.commit;
    // The code of a commit that may have been made, or may still be.
    let mut in_doubt: Option<Code> = None;
    let mut last = unavailable(Code::Aborted);
    for attempt in 0..ATTEMPTS_MAX {
        let Some(within) = time_left(deadline) else { break };
        if let Some(writes) = change.writes(client)? {
            match client.commit(writes, within.min(client.limits.commit / CALL_SHARE)).await {
                Ok(results) => return Ok(change.made(client, Some(&results))),
                Err(CommitFault::Never(error)) => return Err(doubt(in_doubt).unwrap_or(error)),
                Err(CommitFault::Refused) => {}
                Err(CommitFault::NotMade(code)) => {
                    last = unavailable(code);
                    client.pause(attempt).await;
                    continue;
                }
                Err(CommitFault::Unknown(code)) => {
                    in_doubt = Some(code);
                }
            }
        }
        if attempt > 0 {
            client.pause(attempt - 1).await;
        }
        let seen = match look(client, &change).await {
            Ok(seen) => seen,
            // As long as there is time, the commit itself is the better question.
            Err(error @ StoreError::Unavailable { .. }) if time_left(deadline).is_some() => {
                last = error;
                continue;
            }
            Err(error) => return Err(doubt(in_doubt).unwrap_or(error)),
        };
        if change.marks().iter().any(|name| seen.is_of(name, number)) {
            return Ok(change.made(client, None));
        }
        if let Some(refused) = change.refusal(&seen)? {
            return Ok(refused);
        }
    }
    Err(doubt(in_doubt).unwrap_or(last))
}

fn time_left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn doubt(in_doubt: Option<Code>) -> Option<StoreError> {
    in_doubt.map(|code| StoreError::Unknown { what: format!("Firestore answers a commit with {code:?}") })
}

/// Reads every guarded document in one call, and remembers their versions.
async fn look<C: Change>(client: &Client, change: &C) -> Result<Seen, StoreError> {
    let names = change.guarded();
    let found = client.get(&names, GUARD_FIELDS).await?;
    let mut seen = Seen::default();
    for document in found.into_iter().flatten() {
        if let Some(stamp) = stamp_of(&document) {
            client.stamps.keep(&document.name, stamp);
        }
        seen.0.insert(document.name.clone(), document);
    }
    Ok(seen)
}

/// A document that is made once, and maybe with others: an answer, a data key, an audit entry, a fact.
pub(super) struct Creation {
    pub(super) name: String,
    pub(super) fields: Fields,
    pub(super) number: CommitNumber,
}

impl Change for Creation {
    /// Whether it was made; `false`: there was one already.
    type Outcome = bool;

    fn guarded(&self) -> Vec<String> {
        vec![self.name.clone()]
    }

    fn marks(&self) -> Vec<String> {
        self.guarded()
    }

    fn writes(&self, _: &Client) -> Result<Option<Vec<Write>>, StoreError> {
        Ok(Some(vec![create(self.name.clone(), self.fields.clone(), &self.number)]))
    }

    fn refusal(&mut self, seen: &Seen) -> Result<Option<bool>, StoreError> {
        Ok(seen.has(&self.name).then_some(false))
    }

    fn made(&self, _: &Client, _: Option<&[WriteResult]>) -> bool {
        true
    }
}

/// Makes one document, unless it is there.
pub(super) async fn create_once(client: &Client, name: String, fields: Fields) -> Result<bool, StoreError> {
    let number = CommitNumber::draw(client);
    make(client, &number.clone(), Creation { name, fields, number }).await
}

/// Writes a document whatever was there, and again if need be: the same thing twice is the same thing.
pub(super) async fn overwrite(client: &Client, name: String, fields: Fields) -> Result<(), StoreError> {
    write_over(client, vec![update(name, fields)]).await
}

/// The same of several documents, in one commit.
pub(super) async fn write_over(client: &Client, writes: Vec<Write>) -> Result<(), StoreError> {
    let deadline = Instant::now() + client.limits.commit;
    let mut last = Code::DeadlineExceeded;
    for attempt in 0..ATTEMPTS_MAX {
        let Some(within) = time_left(deadline) else { break };
        match client.commit(writes.clone(), within.min(client.limits.commit / CALL_SHARE)).await {
            Ok(_) => return Ok(()),
            Err(CommitFault::Never(error)) => return Err(error),
            Err(CommitFault::Refused) => last = Code::Aborted,
            Err(CommitFault::NotMade(code) | CommitFault::Unknown(code)) => last = code,
        }
        client.pause(attempt).await;
    }
    Err(unavailable(last))
}

/// Forgets answers given before `before`. Each is deleted only as it was found: a key that was forgotten and used anew
/// meanwhile is another answer. Where somebody else forgets the same ones, it is looked again.
pub(super) async fn forget(client: &Client, before: jiff::Timestamp, limit: usize) -> Result<usize, StoreError> {
    let mut forgotten = 0;
    for attempt in 0..ATTEMPTS_MAX {
        let at_once = (limit - forgotten).min(FORGOTTEN_AT_ONCE);
        if at_once == 0 {
            break;
        }
        let found = client.query(queries::answers_before(before, at_once)).await?;
        let deletes: Vec<Write> = found
            .into_iter()
            .filter_map(|document| Some(delete_unchanged(document.name, document.update_time?)))
            .collect();
        if deletes.is_empty() {
            break;
        }
        let number = deletes.len();
        match client.commit(deletes, client.limits.commit / CALL_SHARE).await {
            Ok(_) => forgotten += number,
            // Whether they are gone shows when it is looked again; they are not counted then, which harms nobody.
            Err(CommitFault::Refused | CommitFault::NotMade(_) | CommitFault::Unknown(_)) => {
                client.pause(attempt).await
            }
            Err(CommitFault::Never(error)) => return Err(error),
        }
    }
    Ok(forgotten)
}

/// A place in a chain or among details that is taken: the commit contradicts what is stored.
pub(super) fn contradiction() -> StoreError {
    corrupt("a place in the audit or among the details is taken")
}
