//! The ports: what the service needs from the world, as traits. Adapters implement them; only `app.rs` names adapters.

pub mod transfer;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::alert::{Alert, StateName};
use crate::domain::audit::{AuditEntry, AuditHead, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::event::EventDetails;
use crate::domain::ids::{
    AddressKey, AlertId, AttemptRef, IdempotencyKey, OrganisationId, PersonKey, ProviderId, Reference, SubjectKey,
};
use crate::domain::method::SpokenCode;
use crate::domain::provider::{Receipt, SendOutcome};
use crate::domain::roster::Roster;
use crate::domain::sealed::Sealed;

/// Time. Nothing else in the project reads a clock.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
    /// Returns once this clock has moved on by `duration`.
    async fn sleep(&self, duration: Duration);
}

/// Randomness, fit for keys in production.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}

/// Random bytes of a fixed number.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// A number in `0.0..1.0`, evenly spread: the jitter that pure transitions take as an argument.
pub fn jitter(entropy: &dyn Entropy) -> f64 {
    let bits = u64::from_le_bytes(random::<8>(entropy)) >> 11;
    // 53 bits fit an f64 exactly.
    bits as f64 / (1u64 << 53) as f64
}

// ---------------------------------------------------------------------------------------------------------------------
// Keyring

/// What a keyed hash is for. Each purpose has its own key, so that hashes of one kind say nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashPurpose {
    /// The student, by organisation and user id.
    Subject,
    /// A contact as the owner of a data key.
    Contact,
    /// A phone number.
    Address,
    /// An idempotency key, and the request body it came with.
    Idempotency,
    /// A person or machine that acts.
    Principal,
    /// A one-time code that was sent to a phone.
    Code,
    /// The seed of a one-time code: the hash makes its digits.
    CodeSeed,
    /// The key under which whatever an alarm is about is named towards others.
    Alarm,
    /// What a button under a message names it by.
    Ticket,
}

/// A person's data key as it is stored: wrapped by a master key. Destroying the row erases the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// The college.
    pub organisation: OrganisationId,
    /// Whose key it is.
    pub person: PersonKey,
    /// The data key's own id, as sealed texts name it (16 hexadecimal digits, random).
    pub key_id: String,
    /// `v1.<master key id>.<base64url(nonce, ciphertext, tag)>`.
    pub wrapped: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why something sealed stays closed. Carries no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The stored form is not one that this version reads.
    #[error("the sealed form is not readable by this version")]
    Malformed,
    /// Sealed under a key that is not at hand.
    #[error("sealed under a key that is not at hand")]
    UnknownKey,
    /// The wrong key or purpose, or the text was altered.
    #[error("the seal does not open: altered, or another key")]
    Broken,
}

/// What a sealed text is, bound into the seal: a sealed message cannot be passed off as a sealed number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealedField {
    /// The student's user id.
    UserId,
    /// What the backend or the counsellor wrote.
    Message,
    /// The backend's metadata, as JSON text.
    Metadata,
    /// A phone number.
    Address,
    /// Who allowed an emergency override, and why.
    Override,
    /// Who acted, by name.
    Principal,
    /// A closing note.
    Note,
    /// What a contact is called.
    ContactName,
    /// Why somebody decided that an emergency contact is told.
    Disclosure,
}

/// One person's data key, open. Zeroed when dropped; never printed.
pub trait DataKey: Send + Sync {
    /// Encrypts `text`, bound to this person and `field`.
    fn seal(&self, field: SealedField, text: &str) -> Sealed;
    /// Decrypts what [`DataKey::seal`] made.
    fn open(&self, field: SealedField, sealed: &Sealed) -> Result<String, KeyringError>;
}

/// Holds the master keys: wraps data keys, and makes keyed hashes.
pub trait Keyring: Send + Sync {
    /// Names the key that the keyed hashes are made with, and says nothing about it. With another key no student and no
    /// contact would be found.
    fn index_id(&self) -> &str;
    /// A keyed hash (HMAC-SHA-256 under the purpose's own key) of the parts; parts are length-prefixed, so that
    /// `["ab","c"]` and `["a","bc"]` differ.
    fn hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32];
    /// Makes and wraps a fresh data key for a person.
    fn new_data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
        now: Timestamp,
    ) -> (WrappedDataKey, std::sync::Arc<dyn DataKey>);
    /// Opens a stored data key.
    fn open_data_key(&self, wrapped: &WrappedDataKey) -> Result<std::sync::Arc<dyn DataKey>, KeyringError>;
}

// ---------------------------------------------------------------------------------------------------------------------
// Twilio

/// What a message or a call says, and in which of Twilio's forms. `Debug` shows the form, never the words.
#[derive(Clone, PartialEq, Eq)]
pub enum MessageContent {
    /// Free text: SMS, and WhatsApp inside the 24-hour window or in the sandbox.
    Body(String),
    /// An approved WhatsApp template.
    Template {
        /// `HX` and 32 hexadecimal digits.
        content_sid: String,
        /// The values of `{{1}}`, `{{2}}` … in that order.
        variables: Vec<String>,
    },
    /// A call that is about the attempt: what it says is asked for once somebody answers, so no request carries it.
    Call,
    /// A call that brings a one-time code, which is likewise asked for: no request carries it.
    CodeCall(SpokenCode),
}

impl fmt::Debug for MessageContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(_) => f.write_str("Body(…)"),
            Self::Template { content_sid, variables: _ } => {
                f.debug_struct("Template").field("content_sid", content_sid).finish_non_exhaustive()
            }
            Self::Call => f.write_str("Call"),
            Self::CodeCall(_) => f.write_str("CodeCall"),
        }
    }
}

/// One message to be created at Twilio.
#[derive(Debug, Clone)]
pub struct MessageRequest {
    /// The attempt this call is for; goes into the status callback's URL and into no other field. `None`: the message belongs
    /// to no alert, and nobody is called back about it.
    pub attempt: Option<AttemptRef>,
    /// Over which channel; a call over `Voice`.
    pub channel: Channel,
    /// The phone.
    pub to: PhoneNumber,
    /// The text.
    pub content: MessageContent,
}

/// A message or a call as Twilio lists it: enough to tell whether it is ours, and how far it got. `Debug` leaves the text
/// out.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedMessage {
    /// What Twilio says of it.
    pub receipt: Receipt,
    /// When Twilio made it (to the second).
    pub created_at: Timestamp,
    /// Its text, to be searched for the reference; a call has none. Never logged.
    pub body: String,
}

impl fmt::Debug for ListedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListedMessage")
            .field("receipt", &self.receipt)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

/// Why Twilio could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookUpError {
    /// Not reachable, slow, busy or broken: ask again later.
    #[error("the provider cannot be asked just now")]
    Unavailable {
        /// `Retry-After`, unclamped.
        retry_after: Option<Duration>,
    },
    /// It answered, and refused the question: our account or credentials are at fault.
    #[error("the provider refuses the question (code {code:?})")]
    Refused {
        /// Twilio's error code, where it named one.
        code: Option<u32>,
    },
    /// There is no such message.
    #[error("the provider knows no such message")]
    NotFound,
}

/// Twilio's REST API, as far as the service uses it. One implementation for production: `twilio::rest`.
#[async_trait]
pub trait TwilioClient: Send + Sync {
    /// Creates a message, or a call. Calls the network once; never retries by itself.
    async fn create_message(&self, request: &MessageRequest) -> SendOutcome;
    /// How far one message or call got.
    async fn fetch_message(&self, id: &ProviderId) -> Result<Receipt, LookUpError>;
    /// The messages sent (or calls made) to `to` over `channel` at or after `since`, newest first, bounded by `limit` (pages are
    /// followed up to it).
    async fn list_messages(
        &self,
        channel: Channel,
        to: &PhoneNumber,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ListedMessage>, LookUpError>;
    /// Asks Twilio whether credentials and senders are usable; says everything that is wrong, with how to mend it.
    async fn check(&self) -> Vec<Fault>;
}

/// One thing that is wrong with the set-up, for a person who can mend it. Never carries a secret or a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is at fault: a configuration key or a part's name.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

// ---------------------------------------------------------------------------------------------------------------------
// Store

/// Why the store did not do what was asked. None of these says whether a commit took effect: see [`StoreError::Unknown`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or cannot write (locked, disk full, read-only, overloaded): nothing was changed.
    #[error("the store is unavailable: {what}")]
    Unavailable {
        /// What failed, for the log: never a value from a row.
        what: String,
    },
    /// The commit was sent and no answer came: it may or may not have taken effect.
    #[error("the outcome of a commit is unknown: {what}")]
    Unknown {
        /// What failed, for the log.
        what: String,
    },
    /// What is stored cannot be read: damaged, or written by a newer version.
    #[error("stored data cannot be read: {what}")]
    Corrupt {
        /// What cannot be read, for the log: never a value from a row.
        what: String,
    },
}

/// An answer that was given to a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The key, hashed with organisation and caller.
    pub key: IdempotencyKey,
    /// A keyed hash of the request's body.
    pub body: [u8; 32],
    /// The answer's HTTP status.
    pub status: u16,
    /// The answer's JSON; nothing personal stands in it.
    pub answer: String,
    /// When it was given.
    pub created_at: Timestamp,
}

/// What the decision on an event needs to know.
#[derive(Debug, Clone, Default)]
pub struct IntakeContext {
    /// The answer that was given before, if the key was used before.
    pub idempotency: Option<IdempotencyRecord>,
    /// The student's open alert.
    pub open_alert: Option<Alert>,
    /// What the student has said.
    pub consent: Option<ConsentRecord>,
    /// The student's data key.
    pub data_key: Option<WrappedDataKey>,
}

/// A change of one alert, committed as a whole or not at all.
#[derive(Debug, Clone)]
pub struct AlertCommit {
    /// The alert as it shall be.
    pub alert: Alert,
    /// The version it was made from; `None` inserts.
    pub from_version: Option<u64>,
    /// Its audit entries.
    pub audit: Vec<AuditEntry>,
    /// Ids by which Twilio knows its messages, newly known.
    pub provider_ids: Vec<ProviderId>,
    /// The numbers for which this is the last case that somebody took or closed: what a later reply of theirs is about,
    /// if no case waits for it.
    pub last_case_of: Vec<AddressKey>,
    /// What was written along with an event, or replied.
    pub event: Option<EventDetails>,
    /// The answer to be kept for its idempotency key.
    pub idempotency: Option<IdempotencyRecord>,
    /// The student's data key, if this event made it.
    pub data_key: Option<WrappedDataKey>,
    /// The version of the student's consent record that this change rests on, 0 where there was none. If it is another
    /// by now, the commit is refused: what was decided on a word that has been taken back meanwhile must not become
    /// durable. `None`: it rests on nothing that the student said.
    pub consent_version: Option<u64>,
    /// Nobody waits for this change: a store may hold it back for a few milliseconds, to make it together with others.
    /// `Committed` means durable all the same.
    pub may_wait: bool,
}

/// What a commit came to. Only `Committed` changed anything. Where several refusals apply, an idempotency key that was
/// used is told first: a repeated request breaks the other rules, too, and its answer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Committed,
    /// The alert is no longer at that version, or is there already where it was to be inserted: load it again.
    VersionConflict,
    /// The student has an open alert already: join it.
    SubjectHasOpenAlert,
    /// Another alert has this reference: draw another.
    ReferenceTaken,
    /// The idempotency key was used in the meantime: look at the answer given then.
    IdempotencyKeyUsed,
    /// The student was given a data key in the meantime: use that one.
    DataKeyExists,
    /// The student has said something in the meantime: read it, and decide again.
    ConsentChanged,
}

/// A change of a consent record, committed as a whole or not at all.
#[derive(Debug, Clone)]
pub struct ConsentCommit {
    /// The record as it shall be; its version is one above the one it was made from.
    pub record: ConsentRecord,
    /// Its audit entries.
    pub audit: Vec<AuditEntry>,
}

/// A change of a college's roster, committed as a whole or not at all.
#[derive(Debug, Clone)]
pub struct RosterCommit {
    /// The roster as it shall be; its version is one above the one it was made from.
    pub roster: Roster,
    /// Its audit entries.
    pub audit: Vec<AuditEntry>,
}

/// Where a listing goes on: opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListCursor {
    /// When the last alert of the page before was opened.
    pub opened_at: Timestamp,
    /// Its id.
    pub id: AlertId,
}

/// How much is stored and waiting: for metrics and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Open alerts by state, over all organisations; a state without any is left out.
    pub open: Vec<(StateName, u64)>,
    /// When the oldest due work was due, if any is due or planned.
    pub next_due_at: Option<Timestamp>,
}

/// What was asked of the engine behind a store: what it costs. 0 where an engine has no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations {
    /// Calls over the network, repeated ones included.
    pub calls: u64,
    /// Commits. In an embedded store changes of one moment share one.
    pub commits: u64,
    /// Documents read; a query that finds nothing counts as one, and so does a document that is not there.
    pub reads: u64,
    /// Documents written in commits that succeeded, guards that change nothing included.
    pub writes: u64,
    /// Documents deleted in commits that succeeded, guards that delete nothing included.
    pub deletes: u64,
}

/// A stretch of a walk along the whole audit; see [`Store::audit_walk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStretch {
    /// The entries; there may be none in a stretch that is not the last.
    pub entries: Vec<AuditEntry>,
    /// Where the next stretch begins, in words of the store's own; `None`: there is no more.
    pub next: Option<String>,
}

/// Where everything is kept. One method, one intention, one transaction. No rule lives in here: it compares and swaps,
/// and says what it found. One conformance suite runs against every implementation.
///
/// Values come back as they were given, to the last bit; but times that stand beside a value, to find or to order it,
/// may be kept to the microsecond only, rounded down. A commit that contradicts what is stored in a way that its answer
/// cannot name (an audit number that is taken) is [`StoreError::Corrupt`], and changes nothing.
///
/// Whoever gives up waiting for a method's answer breaks nothing: a change is made wholly or not at all. A method that
/// surely cannot begin soon gives up by itself, as unavailable: the worker has no time-out of its own around it. A version
/// of a consent record never comes a second time.
#[async_trait]
pub trait Store: Send + Sync {
    /// All that the decision on an event needs, in one trip.
    async fn intake_context(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<IntakeContext, StoreError>;
    /// Commits a change of an alert. Durable once it returns `Committed`.
    async fn commit_alert(&self, commit: AlertCommit) -> Result<Committed, StoreError>;
    /// Keeps an answer that changed nothing else. `false`: the key was used in the meantime.
    async fn keep_answer(&self, record: IdempotencyRecord) -> Result<bool, StoreError>;
    /// The answer that was given for a key.
    async fn answer(&self, key: IdempotencyKey) -> Result<Option<IdempotencyRecord>, StoreError>;
    /// Forgets answers given before `before`, at most `limit` of them; says how many.
    async fn forget_answers(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
    /// One alert.
    async fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError>;
    /// One alert by its code.
    async fn alert_by_reference(
        &self,
        organisation: &OrganisationId,
        reference: Reference,
    ) -> Result<Option<Alert>, StoreError>;
    /// The alert that a message of Twilio's belongs to.
    async fn alert_of_message(&self, id: &ProviderId) -> Result<Option<Alert>, StoreError>;
    /// Alerts that have told this number and still hear it
    /// ([`hears_phones`](crate::domain::alert::AlertState::hears_phones)), newest first, at most `limit`.
    async fn cases_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError>;
    /// The alert that was committed last with this number in [`AlertCommit::last_case_of`].
    async fn last_case_of(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
    ) -> Result<Option<Alert>, StoreError>;
    /// Alerts with something to do at or before `until`, the longest due first, at most `limit`. Ids only: one alert
    /// that cannot be read must not hide the others.
    async fn due_alerts(&self, until: Timestamp, limit: usize) -> Result<Vec<AlertId>, StoreError>;
    /// Alerts that have any next action, the latest id first (ids compared as bytes), only those less than
    /// `after`, at most `limit`: for the
    /// recovery at start, and for a clock that was set back. What a process had in hand is mostly among the latest.
    async fn unfinished_alerts(&self, after: Option<AlertId>, limit: usize) -> Result<Vec<AlertId>, StoreError>;
    /// Alerts newest first, at most `limit`, of one state or of all.
    async fn list_alerts(
        &self,
        organisation: &OrganisationId,
        state: Option<StateName>,
        after: Option<ListCursor>,
        limit: usize,
    ) -> Result<Vec<Alert>, StoreError>;
    /// What was written along with an alert's events, or replied, oldest first.
    async fn event_details(&self, alert: AlertId) -> Result<Vec<EventDetails>, StoreError>;
    /// What a student has said.
    async fn consent(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
    ) -> Result<Option<ConsentRecord>, StoreError>;
    /// Commits a change of consent. `false`: it was changed in the meantime; load it again.
    async fn commit_consent(&self, commit: ConsentCommit) -> Result<bool, StoreError>;
    /// What a college has set up beside its configuration; `None` if nothing ever was.
    async fn roster(&self, organisation: &OrganisationId) -> Result<Option<Roster>, StoreError>;
    /// Commits a change of a roster. `false`: it was changed in the meantime; load it again.
    async fn commit_roster(&self, commit: RosterCommit) -> Result<bool, StoreError>;
    /// A person's data key.
    async fn data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<WrappedDataKey>, StoreError>;
    /// Keeps a new data key. `false`: the person has one already; use that one.
    async fn insert_data_key(&self, key: WrappedDataKey) -> Result<bool, StoreError>;
    /// Appends to a chain that has no owner to remember its head. `false`: somebody was faster; read the head again.
    async fn append_audit(&self, entry: AuditEntry) -> Result<bool, StoreError>;
    /// The end of a chain, as stored.
    async fn audit_head(&self, stream: &AuditStream) -> Result<AuditHead, StoreError>;
    /// The entries of a chain after number `after`, in order, at most `limit`. Fewer mean that there are no more.
    async fn audit_entries(
        &self,
        stream: &AuditStream,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError>;
    /// The next stretch of a walk along every entry of every chain, at most `limit` of them, `from` where the stretch before
    /// it ended (`None`: from the beginning). Chain after chain, in an order of the store's own that stays; each chain's
    /// entries together and in order, also where its beginning is missing. What is appended meanwhile may be met or not.
    async fn audit_walk(&self, from: Option<&str>, limit: usize) -> Result<AuditStretch, StoreError>;
    /// Keeps `value` under `name` if nothing is kept there yet, and returns what is kept: for facts that must stay as
    /// they were when the store was begun.
    async fn keep_fact(&self, name: &'static str, value: &str) -> Result<String, StoreError>;
    /// How much is stored and waiting.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
    /// Proves that the store can be read and written, by doing both.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;
    /// Whether this process alone works on the store: then leases of others are void when it starts.
    fn is_exclusive(&self) -> bool;
    /// What this process has asked of the engine behind the store since it was opened, as far as that is counted.
    fn operations(&self) -> Operations {
        Operations::default()
    }
    /// Waits for what is under way and closes. Later calls fail as unavailable. A store that is dropped without it
    /// loses nothing that was answered, and writes nothing any more once the drop has returned.
    async fn close(&self);
}
