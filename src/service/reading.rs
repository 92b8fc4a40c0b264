//! Reading: alerts, their audit, and what is sealed. Whoever looks at a case leaves a trace.

use jiff::Timestamp;
use serde::Serialize;

use super::caller::Caller;
use super::{Service, ServiceError, TRIES};
use crate::domain::alert::{Alert, AlertState, StateName};
use crate::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream, ChainFault, verify_next};
use crate::domain::event::ReplyOrigin;
use crate::domain::ids::{AlertId, OrganisationId, Reference};
use crate::ports::{ListCursor, SealedField, StoreError};

/// How many entries of a chain are read, and proven, at once: a millisecond's work.
const CHAIN_PAGE: usize = 500;
/// How many withheld cases are looked at, at once and at the most.
const WITHHELD_PAGE: usize = 50;
const WITHHELD_MAX: usize = 500;
/// How many events' words are opened at once.
const OPENED_AT_ONCE: usize = 64;

/// What somebody looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Access {
    /// The case, without what is sealed.
    AlertRead,
    /// Its audit.
    AuditRead,
    /// Who the student is, and what was written.
    IdentityRevealed,
    /// Nobody looked, and nobody can: an event's or an override's words were lost, since the student's data key does
    /// not open.
    WordsLost,
}

/// An alert, named by id or by reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertName {
    /// By id.
    Id(AlertId),
    /// By the code that people read out.
    Reference(Reference),
}

impl std::str::FromStr for AlertName {
    type Err = crate::domain::ids::InvalidId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let rule = "must be an alert's id (UUID) or reference (8 characters)";
        text.parse().map(Self::Reference).map_err(|_| crate::domain::ids::InvalidId { rule })
    }
}

/// What was sealed, opened for somebody who may help.
pub struct Revealed {
    /// The student, as the backend names them.
    pub user_id: String,
    /// The events' words, oldest first.
    pub events: Vec<RevealedEvent>,
}

/// The words of one event.
pub struct RevealedEvent {
    /// The event.
    pub event: crate::domain::ids::EventId,
    /// When it was accepted.
    pub received_at: jiff::Timestamp,
    /// Whose reply it is, if it is one.
    pub reply: Option<ReplyOrigin>,
    /// What was written.
    pub message: Option<String>,
    /// Further data, as JSON text.
    pub metadata: Option<String>,
}

/// Whose chain is proven.
enum Owner {
    Alert(AlertId),
    Settings(OrganisationId),
}

impl Owner {
    fn stream(&self) -> AuditStream {
        match self {
            Self::Alert(id) => AuditStream::Alert(*id),
            Self::Settings(id) => AuditStream::Settings(id.clone()),
        }
    }
}

impl Service {
    /// An alert of the caller's organisation. One of another organisation is not found, as if there were none.
    pub async fn find(&self, caller: &Caller, name: AlertName) -> Result<Alert, ServiceError> {
        let found = match name {
            AlertName::Id(id) => self.store.alert(id).await?,
            AlertName::Reference(reference) => self.store.alert_by_reference(&caller.organisation, reference).await?,
        };
        found.filter(|alert| alert.organisation == caller.organisation).ok_or(ServiceError::NotFound)
    }

    /// An alert to be shown: the look is recorded first.
    pub async fn read_alert(&self, caller: &Caller, name: AlertName) -> Result<Alert, ServiceError> {
        let alert = self.find(caller, name).await?;
        self.record_access(caller, &alert, Access::AlertRead).await?;
        Ok(alert)
    }

    /// A page of an alert's chain: the look is recorded first.
    pub async fn read_audit(
        &self,
        caller: &Caller,
        name: AlertName,
        after: u64,
        limit: usize,
    ) -> Result<(Alert, Vec<AuditEntry>), ServiceError> {
        let alert = self.find(caller, name).await?;
        self.record_access(caller, &alert, Access::AuditRead).await?;
        let entries = self.store.audit_entries(&AuditStream::Alert(alert.id), after, limit).await?;
        Ok((alert, entries))
    }

    /// Entries of an alert's chain, to be shown beside it.
    pub async fn timeline(&self, alert: &Alert, after: u64, limit: usize) -> Result<Vec<AuditEntry>, ServiceError> {
        Ok(self.store.audit_entries(&AuditStream::Alert(alert.id), after, limit).await?)
    }

    /// Proves an alert's chain, from its first entry to the head that the alert remembers. Of a chain that is appended to
    /// meanwhile, what is new is proven as well. However long it is, a page of it is in memory at a time, and others get
    /// their turn after each.
    pub async fn prove(&self, id: AlertId) -> Result<Result<AuditHead, ChainFault>, ServiceError> {
        self.prove_up_to(&Owner::Alert(id)).await
    }

    /// The same, of the chain of what the caller's college has set up.
    pub async fn prove_settings(&self, caller: &Caller) -> Result<Result<AuditHead, ChainFault>, ServiceError> {
        let id = self.organisation(&caller.organisation)?.id.clone();
        self.prove_up_to(&Owner::Settings(id)).await
    }

    /// Entries of that chain.
    pub async fn settings_audit(
        &self,
        caller: &Caller,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ServiceError> {
        let stream = AuditStream::Settings(self.organisation(&caller.organisation)?.id.clone());
        Ok(self.store.audit_entries(&stream, after, limit).await?)
    }

    /// The version of a chain's owner, and the head that it remembers.
    async fn head_of(&self, owner: &Owner) -> Result<(u64, AuditHead), ServiceError> {
        match owner {
            Owner::Alert(id) => self.load(*id).await.map(|alert| (alert.version, alert.audit_head)),
            Owner::Settings(id) => self.stored_roster(id).await.map(|roster| (roster.version, roster.audit_head)),
        }
    }

    /// Proves a chain to the head that its owner remembers.
    async fn prove_up_to(&self, owner: &Owner) -> Result<Result<AuditHead, ChainFault>, ServiceError> {
        let stream = &owner.stream();
        let mut known = self.head_of(owner).await?;
        let mut end = AuditHead::EMPTY;
        for _ in 0..TRIES {
            end = match self.prove_on(stream, end).await? {
                Ok(end) => end,
                Err(fault) => return Ok(Err(fault)),
            };
            let (version, head) = known;
            if end == head {
                return Ok(Ok(end));
            }
            // Somebody may have changed it between the two reads: then its head has moved on, too.
            known = self.head_of(owner).await?;
            if known.0 == version {
                return Ok(Err(ChainFault::WrongHead { expected: head.seq, found: end.seq }));
            }
        }
        Err(ServiceError::Busy)
    }

    /// Proves what follows `head`, to the end of the chain.
    async fn prove_on(
        &self,
        stream: &AuditStream,
        head: AuditHead,
    ) -> Result<Result<AuditHead, ChainFault>, ServiceError> {
        let mut head = head;
        loop {
            let page = self.store.audit_entries(stream, head.seq, CHAIN_PAGE).await?;
            for entry in &page {
                head = match verify_next(head, entry) {
                    Ok(head) => head,
                    Err(fault) => return Ok(Err(fault)),
                };
            }
            if page.len() < CHAIN_PAGE {
                return Ok(Ok(head));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Opens what is sealed: the look is recorded first.
    pub async fn reveal(&self, caller: &Caller, name: AlertName) -> Result<(Alert, Revealed), ServiceError> {
        let alert = self.find(caller, name).await?;
        self.record_access(caller, &alert, Access::IdentityRevealed).await?;
        let key = self.person_data_key(&alert.organisation, alert.subject.into()).await?;
        let mut events = Vec::new();
        for (number, details) in self.store.event_details(alert.id).await?.into_iter().enumerate() {
            if number % OPENED_AT_ONCE == OPENED_AT_ONCE - 1 {
                // A case may have thousands of events: others get their turn.
                tokio::task::yield_now().await;
            }
            let open = |field, sealed: Option<_>| sealed.map(|sealed| key.open(field, &sealed)).transpose();
            events.push(RevealedEvent {
                event: details.event,
                received_at: details.received_at,
                reply: details.reply,
                message: open(SealedField::Message, details.message)?,
                metadata: open(SealedField::Metadata, details.metadata)?,
            });
        }
        let user_id = key.open(SealedField::UserId, &alert.identity)?;
        Ok((alert, Revealed { user_id, events }))
    }

    /// Whether a case is withheld that was so at this time, without a break. Whose consent was taken back may have been
    /// opened long before: of those not all are looked at where they are very many.
    pub(crate) async fn is_withheld_since(&self, since: Timestamp) -> Result<bool, StoreError> {
        let waits = |alert: &Alert| matches!(alert.state, AlertState::Withheld { since: begun, .. } if begun <= since);
        for organisation in &self.organisations {
            // Nothing that was opened later can have been.
            let mut after = Some(ListCursor { opened_at: since, id: AlertId::new(since, [u8::MAX; 10]) });
            for _ in 0..WITHHELD_MAX / WITHHELD_PAGE {
                let state = Some(StateName::Withheld);
                let page = self.store.list_alerts(&organisation.id, state, after, WITHHELD_PAGE).await?;
                if page.iter().any(waits) {
                    return Ok(true);
                }
                let Some(last) = page.last().filter(|_| page.len() == WITHHELD_PAGE) else { break };
                after = Some(ListCursor { opened_at: last.opened_at, id: last.id });
            }
        }
        Ok(false)
    }

    /// A page of alerts, newest first.
    pub async fn list(
        &self,
        caller: &Caller,
        state: Option<StateName>,
        after: Option<ListCursor>,
        limit: usize,
    ) -> Result<Vec<Alert>, ServiceError> {
        Ok(self.store.list_alerts(&caller.organisation, state, after, limit).await?)
    }

    /// Appends to the chain `access/<alert>`.
    async fn record_access(&self, caller: &Caller, alert: &Alert, access: Access) -> Result<(), ServiceError> {
        let actor = self.actor_for(caller, alert).await?;
        self.append_access(alert.id, &actor, access).await
    }

    /// Tells the operator and the audit that words could not be sealed. What they came with is durable already, and
    /// must not fail on account of this: an entry that cannot be written is logged.
    pub(crate) async fn words_were_lost(&self, alert: AlertId) {
        self.alarm_unreadable(alert);
        if let Err(error) = self.append_access(alert, &Actor::Service, Access::WordsLost).await {
            tracing::error!(%alert, %error, "the audit does not tell that words were lost");
        }
    }

    async fn append_access(&self, alert: AlertId, actor: &Actor, access: Access) -> Result<(), ServiceError> {
        let stream = AuditStream::Access(alert);
        for _ in 0..TRIES {
            let mut head = self.store.audit_head(&stream).await?;
            let entry = head.append(stream.clone(), self.clock.now(), actor, &access);
            if self.store.append_audit(entry).await? {
                return Ok(());
            }
        }
        Err(ServiceError::Busy)
    }
}
