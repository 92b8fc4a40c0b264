//! Proving the audit: every chain, against its entries and against the head that its owner remembers.
//!
//! Everything is read once and in large pages, first the entries and then their owners:
//!
//! ```text
//! entries   walked from the first to the last, chain by chain: each number, each hash
//! consents  asked for as their chains end, a few at a time: they cannot be listed
//! alerts    listed: each must have a chain that ends where the alert says
//! consents  of the alerts' students whose chain was not met: whoever has a record must have a chain
//! rosters   of each college: what it has set up must have a chain that ends where the roster says
//! ```
//!
//! Whoever is asked later may know more: where an owner is ahead of its chain as it was read, the chain is read on from there.
//! So it is proved beside a service that works. No chain is held in memory; of each alert's its end is, some 60 bytes,
//! and of each student their key.

use std::collections::{BTreeMap, HashSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::domain::audit::{AuditEntry, AuditHead, AuditStream, ChainFault, verify_next};
use crate::domain::ids::{AlertId, OrganisationId, SubjectKey};
use crate::ports::{ListCursor, Store, StoreError};

/// How many entries or alerts are read at once.
const PAGE: usize = 500;

/// How many owners are asked for at one time, where they cannot be listed.
const OWNERS_AT_ONCE: usize = 16;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Chains that were read.
    pub chains: u64,
    /// Alerts whose chain is there and reaches the head that the alert remembers.
    pub alerts: u64,
    /// Entries that were proven.
    pub entries: u64,
    /// What does not hold, chain by chain.
    pub faults: Vec<(AuditStream, ChainFault)>,
}

/// Proves every chain of the store; that every alert and every roster has one, so that a chain that was removed as a whole is
/// found out as well; and that every chain of an alert, a consent or a roster has its owner. Consents cannot be listed: of one whose chain and
/// record are both gone nothing is known, nor of one whose chain is gone and whose student has no alert. All organisations
/// of the store must be given: a consent is looked for in these.
///
/// # Errors
/// The store cannot be read.
pub async fn verify_all(store: &dyn Store, organisations: &[OrganisationId]) -> Result<Verification, StoreError> {
    let mut proof = Proof { store, organisations, found: Verification::default(), walk: Walk::default() };
    proof.walk_entries().await?;
    for organisation in organisations {
        proof.alerts_of(organisation).await?;
    }
    proof.alerts_that_were_not_listed().await?;
    proof.rosters().await?;
    Ok(proof.found)
}

/// What is remembered of the entries that were walked along.
#[derive(Default)]
struct Walk {
    /// The chain that was come to, and its end so far; `None`: it does not hold, and this was told.
    current: Option<(AuditStream, Option<AuditHead>)>,
    /// Where each alert's chain ended; `None` as above.
    alerts: BTreeMap<AlertId, Option<AuditHead>>,
    /// The same of consents that were not asked for yet.
    consents: Vec<(SubjectKey, AuditHead)>,
    /// Whose consent's chain was met, or looked for in vain.
    students: HashSet<SubjectKey>,
    /// Where each college's settings ended; `None` as above.
    settings: BTreeMap<OrganisationId, Option<AuditHead>>,
}

impl Walk {
    fn take(&mut self, entry: &AuditEntry, found: &mut Verification) {
        if self.current.as_ref().is_none_or(|(stream, _)| *stream != entry.stream) {
            self.end_chain();
            self.current = Some((entry.stream.clone(), Some(AuditHead::EMPTY)));
            found.chains += 1;
        }
        let Some((stream, head)) = &mut self.current else { return };
        let Some(before) = *head else { return };
        match verify_next(before, entry) {
            Ok(next) => {
                *head = Some(next);
                found.entries += 1;
            }
            Err(fault) => {
                *head = None;
                found.faults.push((stream.clone(), fault));
            }
        }
    }

    fn end_chain(&mut self) {
        match self.current.take() {
            Some((AuditStream::Alert(alert), end)) => {
                self.alerts.insert(alert, end);
            }
            Some((AuditStream::Consent(subject), end)) => {
                self.students.insert(subject);
                self.consents.extend(end.map(|end| (subject, end)));
            }
            Some((AuditStream::Settings(organisation), end)) => {
                self.settings.insert(organisation, end);
            }
            // Accesses have no owner that remembers their end.
            Some((AuditStream::Access(_), _)) | None => {}
        }
    }

    /// A student of an alert. If their consent's chain was not met, it is asked for as one without entries.
    fn meet(&mut self, subject: SubjectKey) {
        if self.students.insert(subject) {
            self.consents.push((subject, AuditHead::EMPTY));
        }
    }
}

struct Proof<'a> {
    store: &'a dyn Store,
    organisations: &'a [OrganisationId],
    found: Verification,
    walk: Walk,
}

impl Proof<'_> {
    async fn walk_entries(&mut self) -> Result<(), StoreError> {
        let mut from = None;
        loop {
            let stretch = self.store.audit_walk(from.as_deref(), PAGE).await?;
            for entry in &stretch.entries {
                self.walk.take(entry, &mut self.found);
            }
            if stretch.next.is_none() {
                self.walk.end_chain();
            }
            self.consents().await?;
            match stretch.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Holds the consents' chains that have ended against their records.
    async fn consents(&mut self) -> Result<(), StoreError> {
        let ended = std::mem::take(&mut self.walk.consents);
        let (store, organisations) = (self.store, self.organisations);
        let asking: Vec<_> = ended.iter().map(|(subject, _)| consent_head(store, organisations, *subject)).collect();
        let owners: Vec<Option<AuditHead>> = stream::iter(asking).buffered(OWNERS_AT_ONCE).try_collect().await?;
        for ((subject, end), owner) in ended.into_iter().zip(owners) {
            let stream = AuditStream::Consent(subject);
            match owner {
                Some(owner) => {
                    self.ends_at(stream, end, owner).await?;
                }
                // Of a student who has said nothing there is neither.
                None if end == AuditHead::EMPTY => {}
                None => self.found.faults.push((stream, ChainFault::NoOwner)),
            }
        }
        Ok(())
    }

    /// Goes by the alerts instead of by the chains: each must have its own, up to the head that it remembers.
    async fn alerts_of(&mut self, organisation: &OrganisationId) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.list_alerts(organisation, None, after, PAGE).await?;
            for alert in &page {
                // One that was opened since the walk has its whole chain before it.
                let Some(end) = self.walk.alerts.remove(&alert.id).unwrap_or(Some(AuditHead::EMPTY)) else { continue };
                let holds = self.ends_at(AuditStream::Alert(alert.id), end, alert.audit_head).await?;
                self.found.alerts += u64::from(holds);
            }
            page.iter().for_each(|alert| self.walk.meet(alert.subject));
            self.consents().await?;
            match page.last() {
                Some(last) => after = Some(ListCursor { opened_at: last.opened_at, id: last.id }),
                None => return Ok(()),
            }
        }
    }

    /// Chains of alerts that no list had: opened during the walk, another organisation's, or removed. An alert is written
    /// together with its chain's first entry and never deleted, so one that is not there now was taken away.
    async fn alerts_that_were_not_listed(&mut self) -> Result<(), StoreError> {
        for (id, end) in std::mem::take(&mut self.walk.alerts) {
            let Some(end) = end else { continue };
            let stream = AuditStream::Alert(id);
            match self.store.alert(id).await? {
                Some(alert) => {
                    self.ends_at(stream, end, alert.audit_head).await?;
                }
                None => self.found.faults.push((stream, ChainFault::NoOwner)),
            }
        }
        Ok(())
    }

    /// Holds what colleges have set up against their chains. A college is known by its chain, or by being asked for.
    async fn rosters(&mut self) -> Result<(), StoreError> {
        let mut ends = std::mem::take(&mut self.walk.settings);
        for organisation in self.organisations {
            ends.entry(organisation.clone()).or_insert(Some(AuditHead::EMPTY));
        }
        for (organisation, end) in ends {
            let Some(end) = end else { continue };
            let owner = self.store.roster(&organisation).await?.map(|roster| roster.audit_head);
            let stream = AuditStream::Settings(organisation);
            match owner {
                Some(owner) => {
                    self.ends_at(stream, end, owner).await?;
                }
                None if end == AuditHead::EMPTY => {}
                None => self.found.faults.push((stream, ChainFault::NoOwner)),
            }
        }
        Ok(())
    }

    /// Whether a chain that was proven up to `end` ends where its owner, who was asked later, says. What was appended
    /// in between is proven, too.
    async fn ends_at(&mut self, stream: AuditStream, end: AuditHead, owner: AuditHead) -> Result<bool, StoreError> {
        let mut end = end;
        while end.seq < owner.seq {
            let left = usize::try_from(owner.seq - end.seq).unwrap_or(usize::MAX);
            let entries = self.store.audit_entries(&stream, end.seq, left.min(PAGE)).await?;
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                match verify_next(end, entry) {
                    Ok(next) => end = next,
                    Err(fault) => {
                        self.found.faults.push((stream, fault));
                        return Ok(false);
                    }
                }
                self.found.entries += 1;
            }
        }
        if end != owner {
            self.found.faults.push((stream, ChainFault::WrongHead { expected: owner.seq, found: end.seq }));
        }
        Ok(end == owner)
    }
}

/// What a student's record remembers of its chain.
async fn consent_head(
    store: &dyn Store,
    organisations: &[OrganisationId],
    subject: SubjectKey,
) -> Result<Option<AuditHead>, StoreError> {
    for organisation in organisations {
        if let Some(record) = store.consent(organisation, subject).await? {
            return Ok(Some(record.audit_head));
        }
    }
    Ok(None)
}
