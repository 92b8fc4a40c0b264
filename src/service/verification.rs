//! Proving the audit: every chain, against its entries and against the head that its owner remembers.

use std::collections::HashSet;

use crate::domain::audit::{AuditHead, AuditStream, ChainFault, verify_next};
use crate::domain::ids::OrganisationId;
use crate::ports::{ListCursor, Store, StoreError};

/// How many entries are read at once.
const PAGE: usize = 500;

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

/// Proves every chain of the store; and that every alert has one, so that a chain that was removed as a whole is found
/// out as well. Consents cannot be listed: of one whose chain and record are both gone nothing is known.
///
/// # Errors
/// The store cannot be read.
pub async fn verify_all(store: &dyn Store, organisations: &[OrganisationId]) -> Result<Verification, StoreError> {
    let mut found = Verification::default();
    let mut after: Option<String> = None;
    loop {
        let streams = store.audit_streams(after.as_deref(), PAGE).await?;
        for stream in &streams {
            verify_one(store, organisations, stream, &mut found).await?;
        }
        match streams.last() {
            Some(last) => after = Some(last.to_string()),
            None => break,
        }
    }
    for organisation in organisations {
        verify_alerts(store, organisation, &mut found).await?;
    }
    Ok(found)
}

/// Goes by the alerts instead of by the chains: each must have its own, up to the head that it remembers.
async fn verify_alerts(
    store: &dyn Store,
    organisation: &OrganisationId,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let faulty: HashSet<String> = found.faults.iter().map(|(stream, _)| stream.to_string()).collect();
    let mut after = None;
    loop {
        let page = store.list_alerts(organisation, None, after, PAGE).await?;
        for alert in &page {
            let stream = AuditStream::Alert(alert.id);
            // What was read before this look may have been appended to meanwhile, and so may the alert; but the entry
            // that this alert's head stands for is durable.
            let before = alert.audit_head.seq.saturating_sub(1);
            let entry = store.audit_entries(&stream, before, 1).await?;
            let reaches = entry
                .first()
                .is_some_and(|entry| entry.seq == alert.audit_head.seq && entry.hash == alert.audit_head.hash);
            let known = faulty.contains(&stream.to_string());
            match (reaches, known) {
                (true, false) => found.alerts += 1,
                (true | false, true) => {}
                (false, false) => {
                    let last = store.audit_head(&stream).await?;
                    let fault = ChainFault::WrongHead { expected: alert.audit_head.seq, found: last.seq };
                    found.faults.push((stream, fault));
                }
            }
        }
        match page.last() {
            Some(last) => after = Some(ListCursor { opened_at: last.opened_at, id: last.id }),
            None => return Ok(()),
        }
    }
}

/// Proves one chain.
async fn verify_one(
    store: &dyn Store,
    organisations: &[OrganisationId],
    stream: &AuditStream,
    found: &mut Verification,
) -> Result<(), StoreError> {
    found.chains += 1;
    // The owner first: what is appended meanwhile is then beyond the head that it remembers, and not a fault.
    let owner = owner_head(store, organisations, stream).await?;
    let mut head = AuditHead::EMPTY;
    let mut at_owner = owner.is_none_or(|owner| owner == head);
    loop {
        let entries = store.audit_entries(stream, head.seq, PAGE).await?;
        for entry in &entries {
            match verify_next(head, entry) {
                Ok(next) => head = next,
                Err(fault) => {
                    found.faults.push((stream.clone(), fault));
                    return Ok(());
                }
            }
            found.entries += 1;
            at_owner |= owner == Some(head);
        }
        if entries.len() < PAGE {
            break;
        }
    }
    if let (Some(owner), false) = (owner, at_owner) {
        found.faults.push((stream.clone(), ChainFault::WrongHead { expected: owner.seq, found: head.seq }));
    }
    Ok(())
}

/// What the chain's owner remembers of its end; accesses have no owner.
async fn owner_head(
    store: &dyn Store,
    organisations: &[OrganisationId],
    stream: &AuditStream,
) -> Result<Option<AuditHead>, StoreError> {
    match stream {
        AuditStream::Alert(id) => Ok(store.alert(*id).await?.map(|alert| alert.audit_head)),
        AuditStream::Consent(subject) => {
            for organisation in organisations {
                if let Some(record) = store.consent(organisation, *subject).await? {
                    return Ok(Some(record.audit_head));
                }
            }
            Ok(None)
        }
        AuditStream::Access(_) => Ok(None),
    }
}
