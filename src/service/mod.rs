//! The use cases: accept, escalate, acknowledge, resolve, record receipts, replies and keys pressed in calls, settle.
//!
//! Each is one load, one pure transition, one commit. If the commit finds that somebody was faster, it loads again.
//! The network is never touched between load and commit.

pub mod caller;
pub mod calls;
pub mod codes;
pub mod consent;
pub mod contacts;
pub mod dispatch;
pub mod drills;
pub mod emergency;
pub mod humans;
pub mod intake;
pub mod moving;
pub mod people;
pub mod reading;
pub mod receipts;
pub mod replies;
pub mod report;
pub mod roster;
pub mod rota;
pub mod sending;
mod taps;
mod turns;
pub mod verification;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use self::dispatch::Dispatch;
use crate::alarm::Alarms;
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::alert::{
    Action, Alarm, Alert, Compose, Disclosures, Input, Kind as AlertKind, Rejection, Rules, Situation, Transition,
};
use crate::domain::audit::{Actor, AuditEntry, AuditStream};
use crate::domain::contact::{Channel, Directory};
use crate::domain::crowd::{Crowd, PhonePace};
use crate::domain::delivery::Lease;
use crate::domain::event::{EventDetails, Score};
use crate::domain::ids::{AddressKey, AlertId, OrganisationId, Reference};
use crate::domain::message::{BandThresholds, Texts};
use crate::domain::policy::{DefaultLadder, Ladders};
use crate::domain::provider::FaultMark;
use crate::domain::roster::Roster;
use crate::metrics::Metrics;
use crate::ports::{
    AlertCommit, Clock, Committed, Entropy, IdempotencyRecord, Keyring, Store, StoreError, WrappedDataKey, jitter,
};

/// How often a use case starts again because somebody was faster, before it gives up as busy.
const TRIES: u32 = 32;

/// A college, as far as decisions need it.
pub struct Organisation {
    /// Its id.
    pub id: OrganisationId,
    /// Its people of the configuration. Those of its roster come besides.
    pub directory: Directory,
    /// The numbers that it sends from, on each channel.
    pub senders: Vec<(Channel, AddressKey)>,
    /// How it sends codes.
    pub codes: codes::CodeTexts,
    /// Its ladder of the configuration. Those of its roster go before.
    pub ladder: DefaultLadder,
    /// From which score on a case is how urgent.
    pub bands: BandThresholds,
    /// From which score on somebody is told.
    pub threshold: Score,
    /// Its texts, and the approved templates that go with them.
    pub texts: Arc<Texts>,
    /// Writes its messages.
    pub composer: Arc<dyn Compose>,
}

impl Organisation {
    /// Which policy a case takes, with this roster.
    pub(crate) fn ladders_of(&self, roster: &Roster) -> Ladders {
        roster.ladders(&self.ladder, &self.directory, self.bands)
    }
}

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This process, as leases name it.
    pub instance: String,
    /// How long a claim lasts.
    pub lease: Duration,
    /// How alerts behave.
    pub rules: Rules,
    /// So many messages a minute are enough for a phone.
    pub phone_per_minute: u32,
    /// What the provider's codes say beside what their classes ask for.
    pub marks: fn(u32) -> Option<FaultMark>,
}

/// Why a use case did not succeed. One enum: each variant has one answer at the edge.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No such alert in the caller's organisation.
    #[error("no such alert")]
    NotFound,
    /// It does not fit the alert's state.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It does not fit what the college has set up.
    #[error(transparent)]
    Roster(crate::domain::roster::Rejection),
    /// There is no way to send a code.
    #[error("{0}")]
    CannotVerify(&'static str),
    /// A drill of this reference is running: one at a time.
    #[error("the drill {0} is running; a college has one at a time")]
    DrillRuns(Reference),
    /// There is no desk that an emergency contact could be asked to call.
    #[error("no desk is set up that an emergency contact could be asked to call")]
    NoDesk,
    /// The student has named several emergency contacts.
    #[error("it must be said which emergency contact")]
    WhichEmergencyContact,
    /// The idempotency key was used for another body.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The caller's role does not allow this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The caller's organisation is not set up here.
    #[error("the organisation is not set up")]
    UnknownOrganisation,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were faster again and again.
    #[error("too many changes at once")]
    Busy,
    /// Nobody waits for it any more: nothing was changed.
    #[error("it could not be done while it was waited for")]
    TooLate,
    /// This field would have to be sealed, and the student's data key is gone or does not open.
    #[error("{0} cannot be sealed: the data key does not open")]
    CannotSeal(&'static str),
    /// A sealed text does not open, or a key is missing.
    #[error("sealed data cannot be opened: {0}")]
    Sealed(#[from] crate::ports::KeyringError),
}

/// The use cases, with everything they need.
pub struct Service {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Arc<dyn Keyring>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) organisations: Vec<Organisation>,
    /// Their rosters, in the same order.
    pub(crate) views: Vec<roster::View>,
    pub(crate) settings: Settings,
    pub(crate) dispatch: Dispatch,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) data_keys: people::DataKeys,
    pub(crate) crowd: Crowded,
    pub(crate) turns: turns::Turns,
}

/// The messages of the last minute, by phone.
pub(crate) struct Crowded(Mutex<Crowd>);

impl PhonePace for Crowded {
    fn wait(&self, phone: AddressKey, now: Timestamp) -> Duration {
        self.0.lock().wait(phone, now)
    }
}

/// What goes into a commit beside the transition.
#[derive(Clone, Default)]
pub(crate) struct Along {
    event: Option<EventDetails>,
    idempotency: Option<IdempotencyRecord>,
    data_key: Option<WrappedDataKey>,
    consent_version: Option<u64>,
    /// The student's emergency contacts, of the version above.
    emergency: Option<Arc<Disclosures>>,
    may_wait: bool,
    deadline: Option<caller::Deadline>,
}

/// What a change came to that carries an answer for an idempotency key.
pub(crate) enum Changed {
    /// Nothing had to change.
    Nothing,
    /// It is durable, and the answer with it.
    Made(Box<Transition>),
    /// Nothing was changed: the key was used before, and its answer is kept.
    AnsweredBefore,
    /// Nothing was changed: the student's word that it rests on is another by now, or was not read.
    ConsentOutdated,
    /// Nothing was changed: a wake made something due at once, and enough is in hand.
    NoPlace,
}

impl Service {
    /// The use cases over these adapters.
    #[expect(clippy::too_many_arguments, reason = "the composition root names every part once")]
    pub fn new(
        store: Arc<dyn Store>,
        keyring: Arc<dyn Keyring>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        organisations: Vec<Organisation>,
        settings: Settings,
        dispatch: Dispatch,
        metrics: Arc<Metrics>,
        alarms: Arc<Alarms>,
    ) -> Self {
        let (data_keys, turns) = (people::DataKeys::default(), turns::Turns::default());
        let crowd = Crowded(Mutex::new(Crowd::new(settings.phone_per_minute)));
        let views = organisations.iter().map(roster::View::of).collect();
        Self {
            store,
            keyring,
            clock,
            entropy,
            organisations,
            views,
            settings,
            dispatch,
            metrics,
            alarms,
            data_keys,
            crowd,
            turns,
        }
    }

    /// The time, by the service's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The service's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the operator must hear of.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    pub(crate) fn organisation(&self, id: &OrganisationId) -> Result<&Organisation, ServiceError> {
        self.organisations.iter().find(|known| known.id == *id).ok_or(ServiceError::UnknownOrganisation)
    }

    pub(crate) fn lease(&self, now: Timestamp) -> Lease {
        let until = now.saturating_add(self.settings.lease).unwrap_or(Timestamp::MAX);
        Lease { owner: self.settings.instance.clone(), until }
    }

    pub(crate) fn situation<'a>(
        &'a self,
        organisation: &'a Organisation,
        live: &'a roster::Live,
        now: Timestamp,
        actor: &'a Actor,
        lease: Option<&'a Lease>,
    ) -> Situation<'a> {
        // Who has not read the student's word tells nobody whom they have named.
        Situation {
            now,
            jitter: jitter(self.entropy.as_ref()),
            actor,
            rules: &self.settings.rules,
            directory: &live.directory,
            ladders: &live.ladders,
            composer: organisation.composer.as_ref(),
            emergency: None,
            phones: &self.crowd,
            lease,
        }
    }

    /// Commits a transition. An unknown outcome is resolved by reading, never assumed.
    pub(crate) async fn commit(&self, transition: &Transition, along: Along) -> Result<Committed, StoreError> {
        let commit = AlertCommit {
            alert: transition.alert.clone(),
            from_version: transition.from_version,
            audit: transition.audit.clone(),
            provider_ids: transition.provider_ids.clone(),
            last_case_of: transition.last_case_of(),
            event: along.event,
            idempotency: along.idempotency,
            data_key: along.data_key,
            consent_version: along.consent_version,
            may_wait: along.may_wait,
        };
        match self.store.commit_alert(commit).await {
            Err(StoreError::Unknown { what }) => self.look_up_commit(transition, what).await,
            answered => answered,
        }
    }

    /// Whether a commit took effect is read off the audit chain: the entry's hash tells it from every other. Two instances
    /// may do the same at the same instant, but what only one of them may do (send) is entered with its name.
    pub(crate) async fn is_stored(&self, entry: &AuditEntry) -> Result<bool, StoreError> {
        let stored = self.store.audit_entries(&entry.stream, entry.seq - 1, 1).await?;
        Ok(stored.first().is_some_and(|stored| stored.hash == entry.hash))
    }

    /// What is not stored yet may still be made: a distributed store's commit can arrive after its answer was given up, and
    /// after this look. That is safe, because it keeps its conditions:
    ///
    /// - A change of an alert at version `n` and the next try, which is made from `n` again, exclude each other. If the late
    ///   one comes first, the try is refused, loads what is there and decides anew; else the late one is refused.
    /// - A new alert is told as unavailable, and the caller posts again. If the late one comes, that repetition finds its
    ///   idempotency key used, or joins the open alert; and nobody has its message in hand, so its lease runs out and the
    ///   message is looked up and sent. An event too many is the worst, never one too few. And if the student has taken their
    ///   word back since, the late one is refused.
    ///
    /// Each of these is a story in `tests/stories/late_commits.rs`.
    async fn look_up_commit(&self, transition: &Transition, what: String) -> Result<Committed, StoreError> {
        let Some(entry) = transition.audit.last() else { return Err(StoreError::Unknown { what }) };
        if self.is_stored(entry).await? {
            return Ok(Committed::Committed);
        }
        match transition.from_version {
            Some(_) => Ok(Committed::VersionConflict),
            None => Err(StoreError::Unavailable { what }),
        }
    }

    /// Loads an alert, changes it and commits, until nobody was faster. Returns `None` where nothing had to change.
    pub(crate) async fn change(
        &self,
        alert: Alert,
        input: Input,
        actor: &Actor,
    ) -> Result<Option<Transition>, ServiceError> {
        // What came of a call is booked by the worker, and nobody waits for that.
        let may_wait = matches!(input, Input::Settled { .. });
        match self.change_along(alert, input, actor, &Along { may_wait, ..Along::default() }).await? {
            Changed::Nothing => Ok(None),
            Changed::Made(transition) => Ok(Some(*transition)),
            // Without a key there is none that could have been used, and it rests on no word that could change.
            Changed::AnsweredBefore | Changed::ConsentOutdated | Changed::NoPlace => Err(ServiceError::Busy),
        }
    }

    /// The same, and commits what goes along with it: an answer that is kept for an idempotency key is kept if and only
    /// if this call made the change.
    pub(crate) async fn change_along(
        &self,
        alert: Alert,
        input: Input,
        actor: &Actor,
        along: &Along,
    ) -> Result<Changed, ServiceError> {
        let mut alert = alert;
        let mut turn = None;
        // A wake is the poll's own: it takes a place once it knows that it needs one, and without one it comes again.
        let wakes = matches!(input, Input::Wake { .. });
        for _ in 0..TRIES {
            let (id, subject) = (alert.id, alert.subject);
            let organisation = self.organisation(&alert.organisation)?;
            self.refresh_rosters().await;
            let now = self.clock.now();
            // A place is needed only where something may become due at once. What somebody asks for is committed without
            // one, too, and what it makes due is left to the poll.
            let mut place = if may_send(&input) { self.dispatch.place() } else { None };
            let lease = (wakes || place.is_some()).then(|| self.lease(now));
            let live = self.live(&organisation.id)?;
            let situation = Situation {
                emergency: along.emergency.as_deref(),
                ..self.situation(organisation, &live, now, actor, lease.as_ref())
            };
            let transition = alert.on(input.clone(), &situation)?;
            if transition.is_empty() {
                return Ok(Changed::Nothing);
            }
            if transition.sends_on_consent() && along.consent_version.is_none() {
                // Somebody else has put it on this ground since it was loaded.
                return Ok(Changed::ConsentOutdated);
            }
            if wakes && !transition.actions.is_empty() {
                place = self.dispatch.place();
                if place.is_none() {
                    return Ok(Changed::NoPlace);
                }
            }
            self.in_time(along.deadline)?;
            match self.commit(&transition, along.clone()).await? {
                Committed::Committed => return Ok(Changed::Made(Box::new(self.committed(transition, place)))),
                Committed::IdempotencyKeyUsed => return Ok(Changed::AnsweredBefore),
                Committed::ConsentChanged => return Ok(Changed::ConsentOutdated),
                Committed::VersionConflict
                | Committed::SubjectHasOpenAlert
                | Committed::ReferenceTaken
                | Committed::DataKeyExists => {
                    if along.consent_version.is_some() {
                        // What it has become was never held against that word: it is judged again first.
                        return Ok(Changed::ConsentOutdated);
                    }
                    if turn.is_none() {
                        turn = Some(self.turns.take(subject).await);
                    }
                    alert = self.load(id).await?;
                }
            }
        }
        Err(ServiceError::Busy)
    }

    /// To be asked right before a commit: what was loaded before may have taken however long.
    pub(crate) fn in_time(&self, deadline: Option<caller::Deadline>) -> Result<(), ServiceError> {
        let passed = deadline.is_some_and(|deadline| deadline.has_passed(self.clock.now()));
        if passed { Err(ServiceError::TooLate) } else { Ok(()) }
    }

    pub(crate) async fn load(&self, id: AlertId) -> Result<Alert, ServiceError> {
        self.store.alert(id).await?.ok_or(ServiceError::NotFound)
    }

    /// What follows a commit: counters, alarms, and work handed over.
    pub(crate) fn committed(
        &self,
        mut transition: Transition,
        place: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Transition {
        self.count_phones(&transition);
        if transition.reopened {
            self.metrics.reopened();
        }
        if transition.in_human_hands {
            self.alarms.case_settled(transition.alert.id);
        }
        for alarm in &transition.alarms {
            self.raise(&transition.alert, alarm);
        }
        let actions = std::mem::take(&mut transition.actions);
        if let Some(place) = place
            && !actions.is_empty()
        {
            self.dispatch.hand_over(&transition.alert, actions, place);
        }
        self.dispatch.hint(transition.alert.next_action_at());
        transition
    }

    /// Who is told of a live alert counts at once: many may be claimed before the first is sent. What can wait counts when it
    /// is sent ([`Self::phone_turn`]): counted here as well it would keep its own phone full, and wait for ever.
    fn count_phones(&self, transition: &Transition) {
        self.metrics.past_phone_pace(transition.past_phone_pace);
        let Transition { alert, actions, .. } = transition;
        let lane = match alert.kind {
            AlertKind::Live => "notice",
            AlertKind::Drill => "drill",
        };
        (0..transition.put_off).for_each(|_| self.metrics.held_back(lane));
        let sends = actions.iter().filter(|action| matches!(action, Action::Send { .. }));
        let told = sends.filter_map(|action| alert.delivery(action.delivery()));
        for delivery in told.filter(|delivery| alert.is_urgent(delivery)) {
            self.crowd.0.lock().told(delivery.address_key, self.clock.now());
        }
    }

    /// A turn at a phone for what can wait, right before it is sent.
    ///
    /// # Errors
    /// How long the phone is to be left alone before that.
    pub fn phone_turn(&self, phone: AddressKey) -> Result<(), Duration> {
        let (mut crowd, now) = (self.crowd.0.lock(), self.clock.now());
        match crowd.wait(phone, now) {
            Duration::ZERO => {
                crowd.told(phone, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// An alarm for the operator, of one case.
    fn raise(&self, alert: &Alert, alarm: &Alarm) {
        let kind = match alarm {
            Alarm::ProviderRefused { class, code } => {
                let kind = Kind::ProviderRefused;
                tracing::error!(alert = %alert.id, alarm = kind.name(), ?class, code, "operator alarm");
                return self.alarms.raise_unlogged(kind, About::Code(*code));
            }
            Alarm::LadderExhausted => Kind::LadderExhausted,
            Alarm::NobodyToTell => Kind::NobodyToTell,
            Alarm::NobodyOnCall => Kind::NobodyOnCall,
            Alarm::DeliveryExhausted => Kind::DeliveryExhausted,
            Alarm::NotComposable => Kind::NotComposable,
            Alarm::Reopened => Kind::Reopened,
            Alarm::FollowUpUntold => Kind::FollowUpUntold,
            Alarm::EmergencyContactUntold => Kind::EmergencyContactUntold,
            Alarm::DrillUnanswered => Kind::DrillUnanswered,
            Alarm::ConsentWithdrawn => Kind::ConsentWithdrawn,
        };
        self.alarms.raise(kind, About::Case(alert.id, alert.reference));
    }

    /// The alert's audit chain, by name.
    pub fn stream_of(alert: &Alert) -> AuditStream {
        AuditStream::Alert(alert.id)
    }
}

/// Whether what somebody asks for may make a message due at once.
fn may_send(input: &Input) -> bool {
    match input {
        Input::Joined { .. } | Input::Overridden { .. } | Input::PassOn | Input::Inform { .. } => true,
        Input::Wake { .. }
        | Input::ConsentJudged { .. }
        | Input::Settled { .. }
        | Input::NotFound { .. }
        | Input::Found { .. }
        | Input::Received { .. }
        | Input::Acknowledge { .. }
        | Input::CheckIn
        | Input::Replied { .. }
        | Input::Resolve { .. } => false,
    }
}
