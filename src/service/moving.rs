//! Moving an installation from one store into another: everything, once, and proven.
//!
//! ```text
//! tally the source ─> destination begun from this very tally? or empty, and every audit chain of the source holds?
//!    ─> mark it `copying` ─> pages
//!    ─> tally the destination: the same? ─> answers the same? ─> every audit chain holds? ─> and the source still the same?
//!    ─> mark the source `moved_to` ─> unmark the destination
//! ```
//!
//! Cut off anywhere, the destination is marked and no service starts on it, while the source is as it was; the same call
//! again writes everything over and goes on. Begun from another state of the source it is refused: what was deleted or closed
//! there meanwhile would stand here for ever. Nothing is sent, and nobody's key is needed.
//!
//! Answers to idempotency keys go by themselves: each has its time, and once that is over the worker or Firestore deletes
//! it, in the midst of a copy, too. So those past their time are left out, both sides are counted anew by one rule at the
//! end, and the state that a copy was begun from is told without them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::verification::{Verification, verify_all};
use crate::domain::ids::OrganisationId;
use crate::ports::transfer::{COPYING, Kind, MOVED_TO, Piece, Transfer};
use crate::ports::{Clock, Store, StoreError};

/// Answers with less time left than this are copied and not counted: they may be deleted on one side while the other is
/// counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// How an installation is moved.
#[derive(Debug, Clone)]
pub struct Move {
    /// What the destination is called; the source keeps it.
    pub destination: String,
    /// Leaves the source as it is, so that it can be served on: then there are two.
    pub keep_source: bool,
    /// Pieces in hand at one time.
    pub page: usize,
    /// How long answers to idempotency keys are kept; what is older stays behind.
    pub answers_kept: Duration,
}

impl Move {
    /// The time from which on answers are kept, at `now`.
    fn answers_since(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(self.answers_kept).unwrap_or(Timestamp::MIN)
    }
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
    /// There is nothing left to do.
    #[error(
        "it was finished before: the source was moved to this destination, which is not empty. Serve the destination"
    )]
    AlreadyMoved,
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
    /// Somebody works on it.
    #[error("the source was changed while it was copied: end whatever works on it, and take an empty destination")]
    SourceChanged,
    /// The audit does not hold at the source, so that nothing was copied.
    #[error("{} of the source's own audit chains do not hold", .0.faults.len())]
    SourceAudit(Verification),
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

/// How many there are, and the exclusive-or of their hashes: the same in whatever order they are read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count(u64, [u8; 32]);

impl Count {
    fn add(&mut self, piece: &Piece) {
        let Self(count, all) = self;
        *count += 1;
        all.iter_mut().zip(piece.digest()).for_each(|(all, one)| *all ^= one);
    }

    /// The same on both sides?
    fn require(self, kind: Kind, found: Self) -> Result<(), MoveError> {
        if self == found { Ok(()) } else { Err(MoveError::Differs { kind, expected: self.0, found: found.0 }) }
    }
}

/// All of a store, but for the answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally(BTreeMap<Kind, Count>);

impl Tally {
    fn kinds() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| *kind != Kind::Answer)
    }

    fn of(&self, kind: Kind) -> Count {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    /// Names this state of a store.
    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for kind in Self::kinds() {
            let Count(count, all) = self.of(kind);
            hash.update(count.to_be_bytes());
            hash.update(all);
        }
        data_encoding::HEXLOWER.encode(&hash.finalize())
    }
}

/// Everything of one kind, page by page.
struct Pages<'a> {
    store: &'a dyn Transfer,
    kind: Kind,
    limit: usize,
    /// `None`: there are no more.
    next: Option<Option<String>>,
}

impl<'a> Pages<'a> {
    fn of(store: &'a dyn Transfer, kind: Kind, limit: usize) -> Self {
        Self { store, kind, limit, next: Some(None) }
    }

    async fn next(&mut self) -> Result<Option<Vec<Piece>>, StoreError> {
        let Some(place) = self.next.take() else { return Ok(None) };
        let page = self.store.export(self.kind, place, self.limit).await?;
        self.next = page.next.map(Some);
        Ok(Some(page.pieces))
    }
}

/// Moves everything from one store into another. Neither may be in use.
///
/// # Errors
/// It was refused, broke off, or something differs afterwards; the destination then stays marked, if it was begun.
pub async fn move_all(
    from: &dyn Transfer,
    to: &dyn Transfer,
    how: &Move,
    clock: &dyn Clock,
) -> Result<Moved, MoveError> {
    let moved_here = refuse_source(from, how).await?;
    let (there, organisations) = tally(from, how.page).await?;
    let fingerprint = there.fingerprint();
    match to.read_mark(COPYING).await? {
        Some(begun) if begun == fingerprint => {}
        Some(_) => return Err(MoveError::OtherCopy),
        None => {
            refuse_filled(to, moved_here).await?;
            // An old fault would else be found at the destination, after everything was copied.
            prove_audit(from, &organisations, MoveError::SourceAudit).await?;
            to.mark(COPYING, Some(fingerprint)).await?;
        }
    }
    let answers = copy_pages(from, to, how, how.answers_since(clock.now())).await?;
    prove_tally(&there, to, how.page).await?;
    prove_answers(from, to, how, clock.now()).await?;
    let audit = prove_audit(to, &organisations, MoveError::Audit).await?;
    // What was written to a page after it was read stands on neither side of these proofs. It is looked for last of all:
    // what comes after this look, before the mark, is lost.
    if tally(from, how.page).await?.0 != there {
        return Err(MoveError::SourceChanged);
    }
    if !how.keep_source {
        from.mark(MOVED_TO, Some(how.destination.clone())).await?;
    }
    to.mark(COPYING, None).await?;
    let count = |kind| if kind == Kind::Answer { answers } else { there.of(kind).0 };
    Ok(Moved { counts: Kind::ALL.map(|kind| (kind, count(kind))).to_vec(), audit })
}

/// Says whether it was moved before, to this very destination.
async fn refuse_source(from: &dyn Transfer, how: &Move) -> Result<bool, MoveError> {
    if from.read_mark(COPYING).await?.is_some() {
        return Err(MoveError::SourceUnfinished);
    }
    match from.read_mark(MOVED_TO).await? {
        Some(before) if before != how.destination => Err(MoveError::MovedBefore(before)),
        before => Ok(before.is_some()),
    }
}

/// `moved_here`: the source was moved to this destination before. If it is not empty, only the last answer was not heard; if
/// it is, what was there is gone, and is copied anew.
async fn refuse_filled(to: &dyn Transfer, moved_here: bool) -> Result<(), MoveError> {
    if let Some(elsewhere) = to.read_mark(MOVED_TO).await? {
        return Err(MoveError::DestinationMoved(elsewhere));
    }
    for kind in Kind::ALL {
        let mut pages = Pages::of(to, kind, 1);
        while let Some(pieces) = pages.next().await? {
            if !pieces.is_empty() {
                return Err(if moved_here { MoveError::AlreadyMoved } else { MoveError::NotEmpty(kind) });
            }
        }
    }
    Ok(())
}

/// Writes everything that is still kept; says how many answers there were among it.
async fn copy_pages(
    from: &dyn Transfer,
    to: &dyn Transfer,
    how: &Move,
    answers_since: Timestamp,
) -> Result<u64, StoreError> {
    let mut answers = 0;
    for kind in Kind::ALL {
        let mut pages = Pages::of(from, kind, how.page);
        while let Some(mut pieces) = pages.next().await? {
            pieces.retain(|piece| is_kept(piece, answers_since));
            if kind == Kind::Answer {
                answers += pieces.len() as u64;
            }
            if !pieces.is_empty() {
                to.import(pieces).await?;
            }
        }
    }
    Ok(answers)
}

/// The one rule: an answer is kept from this time on, and everything else is for ever.
fn is_kept(piece: &Piece, answers_since: Timestamp) -> bool {
    match piece {
        Piece::Answer(record) => record.created_at >= answers_since,
        Piece::Fact(..)
        | Piece::DataKey(_)
        | Piece::Consent(..)
        | Piece::Roster(..)
        | Piece::Audit(_)
        | Piece::Event(..)
        | Piece::Message(..)
        | Piece::LastCase(..)
        | Piece::Alert(..) => true,
    }
}

/// Everything of a store but the answers, counted; and the organisations that its alerts, consents and rosters belong to.
async fn tally(store: &dyn Transfer, limit: usize) -> Result<(Tally, Vec<OrganisationId>), StoreError> {
    let mut tally = Tally::default();
    let mut organisations = std::collections::BTreeSet::new();
    for kind in Tally::kinds() {
        let mut pages = Pages::of(store, kind, limit);
        while let Some(pieces) = pages.next().await? {
            for piece in &pieces {
                tally.0.entry(kind).or_default().add(piece);
                match piece {
                    Piece::Alert(alert, ..) => organisations.insert(alert.organisation.clone()),
                    Piece::Consent(record, _) => organisations.insert(record.organisation.clone()),
                    Piece::Roster(roster, _) => organisations.insert(roster.organisation.clone()),
                    Piece::LastCase(organisation, ..) => organisations.insert(organisation.clone()),
                    Piece::Fact(..)
                    | Piece::DataKey(_)
                    | Piece::Audit(_)
                    | Piece::Event(..)
                    | Piece::Message(..)
                    | Piece::Answer(_) => false,
                };
            }
        }
    }
    Ok((tally, organisations.into_iter().collect()))
}

/// What was copied is there, and nothing else is.
async fn prove_tally(expected: &Tally, to: &dyn Transfer, limit: usize) -> Result<(), MoveError> {
    let (found, _) = tally(to, limit).await?;
    Tally::kinds().try_for_each(|kind| expected.of(kind).require(kind, found.of(kind)))
}

/// The same of the answers, by what both sides hold now: see [`COUNTED_WITHIN`].
async fn prove_answers(from: &dyn Transfer, to: &dyn Transfer, how: &Move, now: Timestamp) -> Result<(), MoveError> {
    let since = how.answers_since(now.saturating_add(COUNTED_WITHIN).unwrap_or(Timestamp::MAX));
    let expected = count_answers(from, since, how.page).await?;
    expected.require(Kind::Answer, count_answers(to, since, how.page).await?)
}

async fn count_answers(store: &dyn Transfer, since: Timestamp, limit: usize) -> Result<Count, StoreError> {
    let mut count = Count::default();
    let mut pages = Pages::of(store, Kind::Answer, limit);
    while let Some(pieces) = pages.next().await? {
        pieces.iter().filter(|piece| is_kept(piece, since)).for_each(|piece| count.add(piece));
    }
    Ok(count)
}

/// Every chain holds.
async fn prove_audit(
    side: &dyn Transfer,
    organisations: &[OrganisationId],
    fault: fn(Verification) -> MoveError,
) -> Result<Verification, MoveError> {
    let store: &dyn Store = side;
    let audit = verify_all(store, organisations).await?;
    if audit.faults.is_empty() { Ok(audit) } else { Err(fault(audit)) }
}
