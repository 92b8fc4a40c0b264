//! The audit: append-only entries, each stream a hash chain, `hash = SHA-256(previous hash, canonical entry)`.
//!
//! An entry is made in the same pure transition, and written in the same commit, as the change that it tells of.
//! Entries are pseudonymous: a student is a keyed hash, words are sealed. Destroying a person's data key erases the
//! person, and every chain still verifies.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ids::{AlertId, ContactId, InvalidId, OrganisationId, PrincipalKey, SubjectKey};
use super::sealed::Sealed;

/// The hash of one entry, and of all before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    /// What the first entry of a stream follows.
    pub const GENESIS: Self = Self([0; 32]);

    /// A hash read from the store.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn after(self, canonical: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(canonical.as_bytes());
        Self(hasher.finalize().into())
    }
}
impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
impl fmt::Debug for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditHash({self})")
    }
}
impl FromStr for AuditHash {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be 64 hexadecimal digits" };
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| RULE)?;
        bytes.try_into().map(Self).map_err(|_| RULE)
    }
}
impl TryFrom<String> for AuditHash {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<AuditHash> for String {
    fn from(hash: AuditHash) -> String {
        hash.to_string()
    }
}

/// Where a stream ends: the number and the hash of its last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// How many entries the stream has.
    pub seq: u64,
    /// The hash of the last one.
    pub hash: AuditHash,
}

impl AuditHead {
    /// The head of an empty stream.
    pub const EMPTY: Self = Self { seq: 0, hash: AuditHash::GENESIS };
}

/// Names a chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuditStream {
    /// What happened to an alert.
    Alert(AlertId),
    /// What a student said about being helped.
    Consent(SubjectKey),
    /// Who looked at an alert.
    Access(AlertId),
    /// What a college has set up, and who looked at people's numbers.
    Settings(OrganisationId),
}

impl fmt::Display for AuditStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "alert/{alert}"),
            Self::Consent(subject) => write!(f, "consent/{subject}"),
            Self::Access(alert) => write!(f, "access/{alert}"),
            Self::Settings(organisation) => write!(f, "settings/{organisation}"),
        }
    }
}

impl FromStr for AuditStream {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('/') {
            Some(("alert", id)) => id.parse().map(Self::Alert),
            Some(("consent", id)) => id.parse().map(Self::Consent),
            Some(("access", id)) => id.parse().map(Self::Access),
            Some(("settings", id)) => id.parse().map(Self::Settings),
            _ => Err(InvalidId { rule: "must be alert/…, consent/…, access/… or settings/…" }),
        }
    }
}

/// Who or what acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// The service itself: a timer, a retry, a recovery.
    Service,
    /// Twilio, by a signed callback or an answer.
    Provider,
    /// A machine, by its API key's id.
    Machine {
        /// The API key's id; not a secret.
        key: String,
    },
    /// A person, by token or a key of their own.
    Person {
        /// A keyed hash of who it is.
        principal: PrincipalKey,
        /// The role they acted in.
        role: String,
        /// Their name as the token gave it, sealed under the student's data key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Sealed>,
    },
    /// A contact, by a reply from their phone.
    Contact {
        /// The contact.
        contact: ContactId,
    },
}

/// One entry, as it is hashed and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its chain.
    pub stream: AuditStream,
    /// Its number within the chain, from 1.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The canonical text: JSON with the fields in a fixed order. It is stored as it was hashed.
    pub canonical: String,
    /// The hash of this entry and all before it.
    pub hash: AuditHash,
}

#[derive(Serialize)]
struct Canonical<'a, D> {
    stream: String,
    seq: u64,
    at: Timestamp,
    actor: &'a Actor,
    #[serde(flatten)]
    deed: &'a D,
}

impl AuditHead {
    /// Appends an entry: moves this head on, and returns what is to be stored.
    ///
    /// `deed` is a serialisable value with a fixed order of fields; see the alert's and the consent's own enums.
    pub fn append<D: Serialize>(&mut self, stream: AuditStream, at: Timestamp, actor: &Actor, deed: &D) -> AuditEntry {
        let seq = self.seq + 1;
        let entry = Canonical { stream: stream.to_string(), seq, at, actor, deed };
        #[expect(clippy::expect_used, reason = "plain structs with string keys always serialise")]
        let canonical = serde_json::to_string(&entry).expect("an audit entry serialises");
        let hash = self.hash.after(&canonical);
        *self = Self { seq, hash };
        AuditEntry { stream, seq, at, canonical, hash }
    }
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// An entry is missing, or one was put in.
    #[error("entry {expected} is missing: the next one stored is {found}")]
    Gap {
        /// The number that should come next.
        expected: u64,
        /// The number that does.
        found: u64,
    },
    /// An entry, or one before it, was altered.
    #[error("entry {seq} was altered: its hash does not fit its text")]
    Altered {
        /// Its number.
        seq: u64,
    },
    /// The chain was cut short, or entries were added behind the alert's back.
    #[error("the chain ends at entry {found}, but its owner says {expected}")]
    WrongHead {
        /// The owner's number.
        expected: u64,
        /// The chain's.
        found: u64,
    },
    /// Whom the chain belongs to was removed, and the chain was not.
    #[error("the chain is there, but the alert, consent record or roster that it belongs to is not")]
    NoOwner,
}

/// Proves a chain: every number, every hash, and the head that its owner remembers (if it remembers one).
pub fn verify_chain<'a>(
    entries: impl IntoIterator<Item = &'a AuditEntry>,
    head: Option<AuditHead>,
) -> Result<AuditHead, ChainFault> {
    let mut end = AuditHead::EMPTY;
    for entry in entries {
        end = verify_next(end, entry)?;
    }
    match head {
        Some(head) if head != end => Err(ChainFault::WrongHead { expected: head.seq, found: end.seq }),
        Some(_) | None => Ok(end),
    }
}

/// Proves one entry against the chain before it.
pub fn verify_next(head: AuditHead, entry: &AuditEntry) -> Result<AuditHead, ChainFault> {
    if entry.seq != head.seq + 1 {
        return Err(ChainFault::Gap { expected: head.seq + 1, found: entry.seq });
    }
    let hash = head.hash.after(&entry.canonical);
    let says = CanonicalHeader::read(&entry.canonical);
    let fits = says.is_some_and(|says| says.describes(entry));
    if hash != entry.hash || !fits {
        return Err(ChainFault::Altered { seq: entry.seq });
    }
    Ok(AuditHead { seq: entry.seq, hash })
}

/// The part of a canonical text that must agree with the columns beside it.
#[derive(Deserialize)]
struct CanonicalHeader {
    stream: String,
    seq: u64,
    at: Timestamp,
}

impl CanonicalHeader {
    /// Stores keep times to the microsecond; the text has them as they were.
    fn describes(&self, entry: &AuditEntry) -> bool {
        self.seq == entry.seq
            && self.stream == entry.stream.to_string()
            && self.at.as_microsecond() == entry.at.as_microsecond()
    }

    fn read(canonical: &str) -> Option<Self> {
        serde_json::from_str(canonical).ok()
    }
}
