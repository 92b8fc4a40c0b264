//! The ports: what the service needs from the world, as traits. Adapters implement them; only `app.rs` names adapters.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::ids::{AttemptRef, OrganisationId, PersonKey, ProviderId};
use crate::domain::provider::{Receipt, SendOutcome};
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

/// What a message says, and in which of Twilio's two forms. `Debug` shows the form, never the words.
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
}

impl fmt::Debug for MessageContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(_) => f.write_str("Body(…)"),
            Self::Template { content_sid, variables: _ } => {
                f.debug_struct("Template").field("content_sid", content_sid).finish_non_exhaustive()
            }
        }
    }
}

/// One message to be created at Twilio.
#[derive(Debug, Clone)]
pub struct MessageRequest {
    /// The attempt this call is for; goes into the status callback's URL and into no other field.
    pub attempt: AttemptRef,
    /// `Whatsapp` or `Sms`.
    pub channel: Channel,
    /// The phone.
    pub to: PhoneNumber,
    /// The text.
    pub content: MessageContent,
}

/// A message as Twilio lists it: enough to tell whether it is ours, and how far it got. `Debug` leaves the text out.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedMessage {
    /// What Twilio says of it.
    pub receipt: Receipt,
    /// When Twilio made it (to the second).
    pub created_at: Timestamp,
    /// Its text, to be searched for the reference. Never logged.
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
    /// Creates a message. Calls the network once; never retries by itself.
    async fn create_message(&self, request: &MessageRequest) -> SendOutcome;
    /// How far one message got.
    async fn fetch_message(&self, id: &ProviderId) -> Result<Receipt, LookUpError>;
    /// The messages sent to `to` over `channel` at or after `since`, newest first, bounded by `limit` (pages are
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
