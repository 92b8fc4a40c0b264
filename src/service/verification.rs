//! Proving the audit: every chain, against its entries and against the head that its owner remembers.

use crate::domain::audit::{AuditHead, AuditStream, ChainFault, verify_next};
use crate::domain::ids::OrganisationId;
use crate::ports::{Store, StoreError};

/// How many entries are read at once.
const PAGE: usize = 500;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Chains that were read.
    pub chains: u64,
    /// Entries that were proven.
    pub entries: u64,
    /// What does not hold, chain by chain.
    pub faults: Vec<(AuditStream, ChainFault)>,
}

/// Proves every chain of the store.
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
            None => return Ok(found),
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
