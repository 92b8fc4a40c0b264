//! The roster as decisions see it, and how it is changed.
//!
//! Each process keeps every college's roster in memory, together with the directory that follows from it, and swaps both as
//! one. On a store of its own its own commits keep them fresh, and where nobody knows what came of one the roster is read
//! again. Where others work on the store, too, they are read again
//! every few seconds: by the worker's rounds, and by whoever needs them after a process stood still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::caller::Deadline;
use super::{Organisation, Service, ServiceError, TRIES};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, Directory};
use crate::domain::ids::{AddressKey, ContactId, OrganisationId};
use crate::domain::policy::Ladders;
use crate::domain::roster::{Change, Rejection, Roster, Situation, Transition};
use crate::ports::{RosterCommit, StoreError};

/// How old a view may be that others may have changed.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// A roster, and what follows from it.
#[derive(Debug)]
pub struct Live {
    /// What the college has set up.
    pub roster: Roster,
    /// Everybody who can be told, the people of the configuration first.
    pub directory: Directory,
    /// Which policy a case takes.
    pub ladders: Ladders,
}

impl Live {
    fn of(roster: Roster, organisation: &Organisation) -> Self {
        let directory = roster.directory(&organisation.directory);
        let ladders = organisation.ladders_of(&roster);
        Self { roster, directory, ladders }
    }

    /// Who has this number on this channel, even if they do not want to be told there; nobody who is set aside.
    pub(crate) fn owner_of(&self, channel: Channel, address: AddressKey) -> Option<ContactId> {
        let configured = self.directory.contact_at(channel, address).map(|contact| contact.id.clone());
        let of_the_roster = || self.roster.contact_at(channel, address).filter(|contact| contact.active);
        configured.or_else(|| of_the_roster().map(|contact| contact.id.clone()))
    }
}

/// One college's view.
pub(crate) struct View {
    live: ArcSwap<Live>,
    /// When it was read last, in microseconds.
    read_at: AtomicI64,
    /// A commit of ours may have taken effect, and nobody knows yet.
    in_doubt: AtomicBool,
    /// Held by whoever reads: one is enough.
    reading: Mutex<()>,
}

impl View {
    /// Before anything was read: the people of the configuration.
    pub(crate) fn of(organisation: &Organisation) -> Self {
        let live = Live::of(Roster::empty(organisation.id.clone()), organisation);
        Self {
            live: ArcSwap::from_pointee(live),
            read_at: AtomicI64::new(i64::MIN),
            in_doubt: AtomicBool::new(false),
            reading: Mutex::default(),
        }
    }
}

impl Service {
    /// A college's roster as this process knows it.
    ///
    /// # Errors
    /// The organisation is not set up here.
    pub fn live(&self, id: &OrganisationId) -> Result<Arc<Live>, ServiceError> {
        let place = self.organisations.iter().position(|known| known.id == *id);
        let view = place.and_then(|place| self.views.get(place)).ok_or(ServiceError::UnknownOrganisation)?;
        Ok(view.live.load_full())
    }

    /// Reads every roster: to be done once before anything is decided.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load_rosters(&self) -> Result<(), ServiceError> {
        for (organisation, view) in self.organisations.iter().zip(&self.views) {
            self.read_view(organisation, view).await?;
        }
        Ok(())
    }

    /// Reads again what others may have changed, if that was not done lately, and what a commit of our own may have. Where it
    /// cannot be read, what is known stands: a crisis does not wait for it.
    pub(crate) async fn refresh_rosters(&self) {
        let is_exclusive = self.store.is_exclusive();
        for (organisation, view) in self.organisations.iter().zip(&self.views) {
            let age = self.clock.now().as_microsecond().saturating_sub(view.read_at.load(Ordering::Relaxed));
            let is_fresh = is_exclusive || Duration::from_micros(age.unsigned_abs()) < FRESH_FOR;
            if is_fresh && !view.in_doubt.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(_reading) = view.reading.try_lock() else { continue };
            if let Err(error) = self.read_view(organisation, view).await {
                tracing::warn!(organisation = %organisation.id, %error, "the roster cannot be read; the one that is known stands");
            }
        }
    }

    /// Reads one again, however lately that was done.
    pub(crate) async fn read_roster_again(&self, id: &OrganisationId) -> Result<(), ServiceError> {
        let place = self.organisations.iter().position(|known| known.id == *id);
        let view = place.and_then(|place| self.views.get(place)).ok_or(ServiceError::UnknownOrganisation)?;
        self.read_view(self.organisation(id)?, view).await
    }

    async fn read_view(&self, organisation: &Organisation, view: &View) -> Result<(), ServiceError> {
        // A commit that is in doubt from now on is read off by the next look.
        let was_in_doubt = view.in_doubt.swap(false, Ordering::Relaxed);
        match self.store.roster(&organisation.id).await {
            Ok(Some(roster)) => adopt(organisation, view, roster),
            Ok(None) => {}
            Err(error) => {
                view.in_doubt.fetch_or(was_in_doubt, Ordering::Relaxed);
                return Err(error.into());
            }
        }
        view.read_at.store(self.clock.now().as_microsecond(), Ordering::Relaxed);
        Ok(())
    }

    /// The roster as it is stored: for whoever is shown it, or is about to change it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn stored_roster(&self, id: &OrganisationId) -> Result<Roster, ServiceError> {
        Ok(self.store.roster(id).await?.unwrap_or_else(|| Roster::empty(id.clone())))
    }

    /// Loads a roster, changes it and commits, until nobody was faster. `make` says what is to change in the one that was
    /// loaded.
    ///
    /// An unknown outcome is read off the audit chain. What is not stored yet may still come: it was made from the same
    /// version as the next try, so that one of the two is refused; and where that is the try, the entry is looked for again
    /// before anything is decided anew.
    ///
    /// # Errors
    /// The change does not fit, it came too late, or the store failed.
    pub async fn change_roster(
        &self,
        id: &OrganisationId,
        actor: &Actor,
        deadline: Option<Deadline>,
        make: impl Fn(&Roster) -> Result<Change, Rejection>,
    ) -> Result<Transition, ServiceError> {
        let organisation = self.organisation(id)?;
        let mut in_doubt: Option<Transition> = None;
        for _ in 0..TRIES {
            let roster = self.stored_roster(id).await?;
            if let Some(transition) = in_doubt.take()
                && self.is_in_the_chain(&transition).await?
            {
                return Ok(self.changed(organisation, transition));
            }
            let situation = self.roster_situation(organisation, actor);
            let change = make(&roster).map_err(ServiceError::Roster)?;
            let transition = roster.on(change, &situation).map_err(ServiceError::Roster)?;
            if transition.audit.is_empty() {
                return Ok(transition);
            }
            self.in_time(deadline)?;
            let commit = RosterCommit { roster: transition.roster.clone(), audit: transition.audit.clone() };
            match self.store.commit_roster(commit).await {
                Ok(true) => return Ok(self.changed(organisation, transition)),
                Ok(false) => {}
                Err(StoreError::Unknown { .. }) => {
                    // Whatever becomes of this call, what is decided meanwhile is not to rest on an old roster for long.
                    self.view(organisation).iter().for_each(|view| view.in_doubt.store(true, Ordering::Relaxed));
                    in_doubt = Some(transition);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ServiceError::Busy)
    }

    pub(crate) fn roster_situation<'a>(&self, organisation: &'a Organisation, actor: &'a Actor) -> Situation<'a> {
        Situation { now: self.clock.now(), actor, configured: &organisation.directory, senders: &organisation.senders }
    }

    fn view(&self, organisation: &Organisation) -> Option<&View> {
        let place = self.organisations.iter().position(|known| known.id == organisation.id);
        place.and_then(|place| self.views.get(place))
    }

    async fn is_in_the_chain(&self, transition: &Transition) -> Result<bool, StoreError> {
        match transition.audit.last() {
            Some(entry) => self.is_stored(entry).await,
            None => Ok(false),
        }
    }

    fn changed(&self, organisation: &Organisation, transition: Transition) -> Transition {
        if let Some(view) = self.view(organisation) {
            adopt(organisation, view, transition.roster.clone());
        }
        transition
    }
}

/// Takes a roster up, unless a newer one is known.
fn adopt(organisation: &Organisation, view: &View, roster: Roster) {
    if roster.version <= view.live.load().roster.version {
        return;
    }
    let live = Arc::new(Live::of(roster, organisation));
    view.live
        .rcu(|known| if known.roster.version < live.roster.version { Arc::clone(&live) } else { Arc::clone(known) });
}
