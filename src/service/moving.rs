//! Moving an installation from one store into another: everything, once, and proven.
//!
//! ```text
//! tally the source ─> destination empty, or begun from this very tally? ─> mark it `copying` ─> pages
//!    ─> tally the destination: the same? ─> every audit chain holds? ─> mark the source `moved_to` ─> unmark the destination
//! ```
//!
//! Cut off anywhere, the destination is marked and no service starts on it, while the source is as it was; the same call
//! again writes everything over and goes on. Begun from another state of the source it is refused: what was deleted or closed
//! there meanwhile would stand here for ever. Nothing is sent, and nobody's key is needed.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::verification::{Verification, verify_all};
use crate::domain::ids::OrganisationId;
use crate::ports::transfer::{COPYING, Kind, MOVED_TO, Piece, Transfer};
use crate::ports::{Store, StoreError};

/// How an installation is moved.
#[derive(Debug, Clone)]
pub struct Move {
    /// What the destination is called; the source keeps it.
    pub destination: String,
    /// Leaves the source as it is, so that it can be served on: then there are two.
    pub keep_source: bool,
    /// Pieces in hand at one time.
    pub page: usize,
}

/// Why nothing was moved, or not all.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A half-finished copy is no source.
    #[error("the source is itself a copy that was not finished")]
    SourceUnfinished,
    /// It would be a second one.
    #[error("the source was moved before, to {0}")]
    MovedBefore(String),
    /// Something is there.
    #[error("the destination is not empty ({})", .0.name())]
    NotEmpty(Kind),
    /// It was begun from something else, or the source has changed since.
    #[error(
        "the destination holds an unfinished copy of another source, or of this one before it changed: take an empty one"
    )]
    OtherCopy,
    /// The destination was served before.
    #[error("the destination was itself moved, to {0}")]
    DestinationMoved(String),
    /// What is there is not what was copied.
    #[error("the destination holds {found} {}, and the source {expected}, or they differ", .kind.name())]
    Differs {
        /// Of what.
        kind: Kind,
        /// At the source.
        expected: u64,
        /// At the destination.
        found: u64,
    },
    /// The audit does not hold at the destination.
    #[error("{} of the destination's audit chains do not hold", .0.faults.len())]
    Audit(Verification),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was moved.
#[derive(Debug)]
pub struct Moved {
    /// How many of each kind.
    pub counts: Vec<(Kind, u64)>,
    /// What the proof of the audit found.
    pub audit: Verification,
}

/// How many there are of each kind, and the exclusive-or of their hashes: the same in whatever order they are read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally(BTreeMap<Kind, (u64, [u8; 32])>);

impl Tally {
    fn of(&self, kind: Kind) -> (u64, [u8; 32]) {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, piece: &Piece) {
        let (count, all) = self.0.entry(kind).or_default();
        *count += 1;
        all.iter_mut().zip(piece.digest()).for_each(|(all, one)| *all ^= one);
    }

    /// Names this state of a store.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for kind in Kind::ALL {
            let (count, all) = self.of(kind);
            hash.update(count.to_be_bytes());
            hash.update(all);
        }
        data_encoding::HEXLOWER.encode(&hash.finalize())
    }
}

/// Moves everything from one store into another. Neither may be in use.
///
/// # Errors
/// It was refused, broke off, or something differs afterwards; the destination then stays marked, if it was begun.
pub async fn move_all(from: &dyn Transfer, to: &dyn Transfer, how: &Move) -> Result<Moved, MoveError> {
    refuse_source(from, how).await?;
    let (there, organisations) = tally(from, how.page).await?;
    let fingerprint = there.fingerprint();
    match to.read_mark(COPYING).await? {
        Some(begun) if begun == fingerprint => {}
        Some(_) => return Err(MoveError::OtherCopy),
        None => {
            refuse_filled(to).await?;
            to.mark(COPYING, Some(fingerprint)).await?;
        }
    }
    for kind in Kind::ALL {
        let mut place = None;
        loop {
            let page = from.export(kind, place, how.page).await?;
            to.import(page.pieces).await?;
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    let audit = prove(&there, &organisations, to, how.page).await?;
    if !how.keep_source {
        from.mark(MOVED_TO, Some(how.destination.clone())).await?;
    }
    to.mark(COPYING, None).await?;
    Ok(Moved { counts: Kind::ALL.map(|kind| (kind, there.of(kind).0)).to_vec(), audit })
}

async fn refuse_source(from: &dyn Transfer, how: &Move) -> Result<(), MoveError> {
    if from.read_mark(COPYING).await?.is_some() {
        return Err(MoveError::SourceUnfinished);
    }
    match from.read_mark(MOVED_TO).await? {
        Some(before) if before != how.destination => Err(MoveError::MovedBefore(before)),
        Some(_) | None => Ok(()),
    }
}

async fn refuse_filled(to: &dyn Transfer) -> Result<(), MoveError> {
    if let Some(elsewhere) = to.read_mark(MOVED_TO).await? {
        return Err(MoveError::DestinationMoved(elsewhere));
    }
    for kind in Kind::ALL {
        let mut place = None;
        loop {
            let page = to.export(kind, place, 1).await?;
            if !page.pieces.is_empty() {
                return Err(MoveError::NotEmpty(kind));
            }
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Everything of a store, counted; and the organisations that its alerts and consents belong to.
async fn tally(store: &dyn Transfer, limit: usize) -> Result<(Tally, Vec<OrganisationId>), StoreError> {
    let mut tally = Tally::default();
    let mut organisations = std::collections::BTreeSet::new();
    for kind in Kind::ALL {
        let mut place = None;
        loop {
            let page = store.export(kind, place, limit).await?;
            for piece in &page.pieces {
                tally.add(kind, piece);
                match piece {
                    Piece::Alert(alert, ..) => organisations.insert(alert.organisation.clone()),
                    Piece::Consent(record, _) => organisations.insert(record.organisation.clone()),
                    Piece::Fact(..)
                    | Piece::DataKey(_)
                    | Piece::Audit(_)
                    | Piece::Event(..)
                    | Piece::Message(..)
                    | Piece::Answer(_) => false,
                };
            }
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    Ok((tally, organisations.into_iter().collect()))
}

/// What was copied is there, nothing else is, and every chain holds.
async fn prove(
    expected: &Tally,
    organisations: &[OrganisationId],
    to: &dyn Transfer,
    limit: usize,
) -> Result<Verification, MoveError> {
    let (found, _) = tally(to, limit).await?;
    for kind in Kind::ALL {
        if expected.of(kind) != found.of(kind) {
            return Err(MoveError::Differs { kind, expected: expected.of(kind).0, found: found.of(kind).0 });
        }
    }
    let store: &dyn Store = to;
    let audit = verify_all(store, organisations).await?;
    if audit.faults.is_empty() { Ok(audit) } else { Err(MoveError::Audit(audit)) }
}
