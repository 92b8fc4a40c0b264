//! What `crisis-relay copy` needs of a store besides [`Store`]: everything that is kept, piece by piece, out
//! of one store and into another.
//!
//! Pieces are what a store keeps, not what it means: bodies and audit entries are handed on as the text that is stored, so
//! that no hash changes. Nothing in here decides, and nothing is sent.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::domain::alert::Alert;
use crate::domain::audit::AuditEntry;
use crate::domain::consent::ConsentRecord;
use crate::domain::event::EventDetails;
use crate::domain::ids::{AddressKey, AlertId, OrganisationId, ProviderId};
use crate::domain::roster::Roster;
use crate::domain::sealed::Sealed;
use crate::ports::{IdempotencyRecord, Store, StoreError, WrappedDataKey};

/// A destination holds it from the first piece to the proof: a hash of all that the source holds, but for answers, whose
/// time may pass between two tries. The service refuses to start on it.
pub const COPYING: &str = "copying";
/// A source holds it once its copy is proven: where to. The service refuses to start on it.
pub const MOVED_TO: &str = "moved_to";

/// The kinds of what is kept, in the order in which they are copied: alerts last, so that none is there without its audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Facts of the set-up: index key, organisation.
    Fact,
    /// Wrapped data keys.
    DataKey,
    /// What students have said.
    Consent,
    /// What colleges have set up.
    Roster,
    /// Entries of every chain: alerts, consents, accesses, settings.
    Audit,
    /// What was written along with events.
    Event,
    /// Which alert a message of Twilio's belongs to.
    Message,
    /// Which case a phone was told of last.
    LastCase,
    /// Answers to idempotency keys.
    Answer,
    /// Alerts, open and closed, with their references and guards.
    Alert,
}

impl Kind {
    /// All of them, in the order of copying.
    pub const ALL: [Self; 10] = [
        Self::Fact,
        Self::DataKey,
        Self::Consent,
        Self::Roster,
        Self::Audit,
        Self::Event,
        Self::Message,
        Self::LastCase,
        Self::Answer,
        Self::Alert,
    ];

    /// For a person.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fact => "facts",
            Self::DataKey => "data keys",
            Self::Consent => "consent records",
            Self::Roster => "rosters",
            Self::Audit => "audit entries",
            Self::Event => "event details",
            Self::Message => "provider messages",
            Self::LastCase => "last cases",
            Self::Answer => "idempotency answers",
            Self::Alert => "alerts",
        }
    }
}

/// One thing that is kept. Has no `Debug`: bodies are nobody's business.
#[derive(Clone)]
pub enum Piece {
    /// A fact's name and value.
    Fact(String, String),
    /// A data key.
    DataKey(WrappedDataKey),
    /// A consent record, read and as stored.
    Consent(Box<ConsentRecord>, String),
    /// A roster, read and as stored.
    Roster(Box<Roster>, String),
    /// An audit entry.
    Audit(AuditEntry),
    /// Details of one of an alert's events.
    Event(AlertId, EventDetails),
    /// A message's id, and its alert.
    Message(ProviderId, AlertId),
    /// A number, and the alert that is its last case.
    LastCase(OrganisationId, AddressKey, AlertId),
    /// An answer.
    Answer(IdempotencyRecord),
    /// An alert, read and as stored, and the numbers it has told, as long as it escalates.
    Alert(Box<Alert>, String, BTreeSet<AddressKey>),
}

impl Piece {
    /// A hash of everything that must be the same on the other side. Fields are separated by NUL, which none holds.
    pub fn digest(&self) -> [u8; 32] {
        let sealed = |text: &Option<Sealed>| text.as_ref().map_or_else(String::new, |sealed| format!("={}", sealed.0));
        let parts: Vec<String> = match self {
            Self::Fact(name, value) => vec![name.clone(), value.clone()],
            Self::DataKey(key) => vec![
                key.organisation.to_string(),
                key.person.to_string(),
                key.key_id.clone(),
                key.wrapped.clone(),
                key.created_at.as_microsecond().to_string(),
            ],
            Self::Consent(_, body) | Self::Roster(_, body) => vec![body.clone()],
            Self::Audit(entry) => vec![
                entry.stream.to_string(),
                entry.seq.to_string(),
                entry.at.as_microsecond().to_string(),
                entry.canonical.clone(),
                data_encoding::HEXLOWER.encode(entry.hash.as_bytes()),
            ],
            Self::Event(alert, details) => vec![
                alert.to_string(),
                details.event.to_string(),
                // Stores keep it to the microsecond at least.
                details.received_at.as_microsecond().to_string(),
                sealed(&details.message),
                sealed(&details.metadata),
                details.reply.as_ref().map_or_else(String::new, |by| format!("{} {}", by.contact, by.channel.as_str())),
            ],
            Self::Message(id, alert) => vec![id.to_string(), alert.to_string()],
            Self::LastCase(organisation, address, alert) => {
                vec![organisation.to_string(), address.to_string(), alert.to_string()]
            }
            Self::Answer(record) => vec![
                record.key.to_string(),
                data_encoding::HEXLOWER.encode(&record.body),
                record.status.to_string(),
                record.answer.clone(),
                record.created_at.as_microsecond().to_string(),
            ],
            Self::Alert(_, body, told) => {
                std::iter::once(body.clone()).chain(told.iter().map(ToString::to_string)).collect()
            }
        };
        Sha256::digest(parts.join("\0")).into()
    }
}

/// Some pieces, and where the next ones begin; no place: there are no more.
pub struct Page {
    /// The pieces.
    pub pieces: Vec<Piece>,
    /// To be handed in for the next page; means something to this store only.
    pub next: Option<String>,
}

/// A store that can be copied from and to.
#[async_trait]
pub trait Transfer: Store {
    /// Everything of one kind, page by page, at most `limit` pieces each. The facts of copying itself are no pieces.
    async fn export(&self, kind: Kind, from: Option<String>, limit: usize) -> Result<Page, StoreError>;
    /// Writes pieces, over what is there: the same page a second time changes nothing.
    async fn import(&self, pieces: Vec<Piece>) -> Result<(), StoreError>;
    /// What a fact says.
    async fn read_mark(&self, name: &'static str) -> Result<Option<String>, StoreError>;
    /// Sets a fact of copying, or takes it away.
    async fn mark(&self, name: &'static str, value: Option<String>) -> Result<(), StoreError>;
}
