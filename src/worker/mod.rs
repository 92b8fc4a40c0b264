//! The worker: takes over what commits gave to do, and finds what time has made due.
//!
//! Two loops. One takes the jobs that the service hands over, and performs each in a task of its own: send, look up, or
//! poll, with no transaction open, then book what came of it. The other polls the store: it is woken early by hints,
//! but needs none of them. Whatever is lost between a commit and its job (a crash, a full queue) is found by the poll
//! once its lease has run out.
//!
//! A lease bounds how long one attempt may take, no more: it does not make sending exactly-once. An attempt whose lease
//! ran out may have been executed, so Twilio is asked before anything is sent again.

mod calls;
mod courier;
mod listings;
mod sweep;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::courier::{Courier, Lane, Paces};
use self::listings::Listings;
use self::sweep::Sweep;
use crate::alarm::board::About;
use crate::alarm::kind::Kind as AlarmKind;
use crate::domain::alert::StateName;
use crate::domain::ids::AlertId;
use crate::domain::provider::SendOutcome;
use crate::ports::{Clock, MessageRequest, StoreError, StoreStats, TwilioClient};
use crate::service::dispatch::{Dispatch, Job, Jobs};
use crate::service::drills::{DailyDrills, Planned};
use crate::service::sending::Woken;
use crate::service::{Service, ServiceError};
use crate::twilio::breaker::BreakerState;

/// How the worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How often the store is polled at least.
    pub poll: Duration,
    /// How many due alerts are taken up in one round.
    pub due_batch: usize,
    /// How long a call to Twilio takes at the most: an attempt whose lease ends sooner is not begun.
    pub call_timeout: Duration,
    /// How long answers to idempotency keys are kept.
    pub keep_answers: Duration,
    /// How long a withheld case may wait for somebody's decision.
    pub withheld_after: Duration,
}

/// How many due alerts are woken at once: enough to share commits, few enough to leave intake its turn.
const WAKE_AT_ONCE: usize = 64;
/// How often it is looked ahead whether somebody would be there.
const LOOK_AHEAD_EVERY: Duration = Duration::from_secs(60);
/// How often the gauges are read from the store.
const STATS_EVERY: Duration = Duration::from_secs(5);
/// How long an alert that cannot be worked on is left alone.
const LEAVE_ALONE: Duration = Duration::from_secs(30);
/// How long a change may be under way, from reading the clock to its commit.
const IN_FLIGHT: Duration = Duration::from_secs(60);
/// How many of those are remembered at the most.
const LEFT_ALONE_MAX: usize = 4096;
/// How often a recovery tries the same alerts while the store fails; after that, their leases run out.
const RECOVERY_TRIES: u32 = 20;

/// How often a call for due work looks whether it is done.
const CAUGHT_UP_LOOK: Duration = Duration::from_millis(50);

/// What came of waking alerts.
#[derive(Debug, Default)]
struct WokenAlerts {
    /// Some were worked on.
    worked: bool,
    /// These were not, because the store failed just then.
    left: Vec<AlertId>,
    /// For these there was no place.
    no_place: Vec<AlertId>,
}

/// Whether an error is the moment's, and not the alert's.
fn passes(error: &ServiceError) -> bool {
    match error {
        ServiceError::Busy | ServiceError::Store(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) => true,
        ServiceError::Store(StoreError::Corrupt { .. })
        | ServiceError::NotFound
        | ServiceError::TooLate
        | ServiceError::Rejected(_)
        | ServiceError::Roster(_)
        | ServiceError::CannotVerify(_)
        | ServiceError::DrillRuns(_)
        | ServiceError::NoDesk
        | ServiceError::WhichEmergencyContact
        | ServiceError::IdempotencyKeyReused
        | ServiceError::Forbidden(_)
        | ServiceError::UnknownOrganisation
        | ServiceError::Sealed(_)
        | ServiceError::CannotSeal(_) => false,
    }
}

fn count_of(stats: &StoreStats, state: StateName) -> u64 {
    stats.open.iter().find(|(open, _)| *open == state).map_or(0, |(_, count)| *count)
}

/// What others may know of the worker.
#[derive(Default)]
pub struct WorkerHealth {
    last_round: AtomicI64,
    figures: Mutex<Option<Figures>>,
}

/// What the store said of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// When.
    pub at: Timestamp,
    /// How late the oldest due work was.
    pub late: Duration,
    /// Whether a case was withheld for longer than one may wait for a decision.
    pub withheld_waits: bool,
}

impl WorkerHealth {
    /// When the last round ended that could read the store; `None` before the first.
    pub fn last_round(&self) -> Option<Timestamp> {
        match self.last_round.load(Ordering::Relaxed) {
            0 => None,
            micros => Timestamp::from_microsecond(micros).ok(),
        }
    }

    /// What the store said last; `None` before it said anything.
    pub fn figures(&self) -> Option<Figures> {
        *self.figures.lock()
    }

    fn round_ended(&self, now: Timestamp) {
        self.last_round.store(now.as_microsecond().max(1), Ordering::Relaxed);
    }
}

/// What is known of the drills that start by themselves.
#[derive(Debug, Default)]
struct DrillWatch {
    /// The last one that is known to be started.
    started: Option<Planned>,
    /// The one whose hour it is, and which is not.
    awaited: Option<Planned>,
}

/// The worker, with what it works with.
pub struct Worker {
    service: Arc<Service>,
    twilio: Arc<dyn TwilioClient>,
    clock: Arc<dyn Clock>,
    dispatch: Dispatch,
    settings: WorkerSettings,
    courier: Arc<Courier>,
    health: Arc<WorkerHealth>,
    left_alone: Mutex<HashMap<AlertId, Timestamp>>,
    listings: Listings,
    last_stats: AtomicI64,
    last_look_ahead: AtomicI64,
    told_of_withheld: AtomicBool,
    /// Looks at every waiting alert after the start, and after the clock was set back: one may wait for a time that is
    /// far off now.
    daily_drills: Option<DailyDrills>,
    drill: Mutex<DrillWatch>,
    sweep: Sweep,
    /// When all of them are looked at once more, in microseconds; 0: never. Who read the clock just before it was set back
    /// commits just after.
    again_at: AtomicI64,
    /// One round at a time: a call may ask for one while the poll makes another.
    turn: tokio::sync::Mutex<()>,
}

/// What a call for due work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// Nothing is due any more, and nothing is in hand.
    CaughtUp,
    /// The time was over first.
    OutOfTime {
        /// Jobs still in hand.
        in_hand: usize,
    },
    /// What is due could not be read.
    StoreFailed,
}

impl Worker {
    /// A worker over these parts.
    pub fn new(
        service: Arc<Service>,
        twilio: Arc<dyn TwilioClient>,
        clock: Arc<dyn Clock>,
        dispatch: Dispatch,
        settings: WorkerSettings,
        courier: Arc<Courier>,
    ) -> Self {
        Self {
            service,
            twilio,
            clock,
            dispatch,
            settings,
            courier,
            health: Arc::default(),
            left_alone: Mutex::default(),
            listings: Listings::default(),
            last_stats: AtomicI64::new(0),
            last_look_ahead: AtomicI64::new(0),
            told_of_withheld: AtomicBool::new(false),
            daily_drills: None,
            drill: Mutex::default(),
            sweep: Sweep::default(),
            again_at: AtomicI64::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The same, and it starts drills every day.
    #[must_use]
    pub fn with_daily_drills(self, daily_drills: DailyDrills) -> Self {
        Self { daily_drills: Some(daily_drills), ..self }
    }

    /// What others may know of this worker.
    pub fn health(&self) -> Arc<WorkerHealth> {
        Arc::clone(&self.health)
    }

    /// The circuit breaker's state, as [`Courier::breaker`] tells it.
    pub fn breaker(&self) -> BreakerState {
        self.courier.breaker()
    }

    /// Works until `shutdown`, then finishes what is in hand, for as long as `grace`. What is not finished by then is
    /// found again by its lease.
    pub async fn run(self: Arc<Self>, mut jobs: Jobs, shutdown: CancellationToken, grace: Duration) {
        let tasks = TaskTracker::new();
        let mut poller = tokio::spawn(Arc::clone(&self).poll_until(shutdown.clone()));
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                job = jobs.next() => match job {
                    Some(job) => { tasks.spawn(Arc::clone(&self).perform(job)); }
                    None => break,
                },
            }
        }
        let finish = async {
            // What was handed over and not begun keeps its lease, which says that nobody knows: better to finish it. The
            // last round may hand over more.
            let _ = (&mut poller).await;
            while let Some(job) = jobs.try_next() {
                tasks.spawn(Arc::clone(&self).perform(job));
            }
            tasks.close();
            tasks.wait().await;
        };
        if tokio::time::timeout(grace, finish).await.is_err() {
            poller.abort();
            tracing::warn!(
                in_hand = self.dispatch.in_hand(),
                "shutting down with work in hand: it is found again by its lease"
            );
        }
    }

    async fn poll_until(self: Arc<Self>, shutdown: CancellationToken) {
        self.recover_until(&shutdown).await;
        while !shutdown.is_cancelled() {
            // A panic in a round is a fault, but no reason to leave all other alerts alone.
            let more = AssertUnwindSafe(self.round()).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!("a round of the worker ended by a panic");
                false
            });
            if !more {
                shutdown.run_until_cancelled(self.rest()).await;
            }
        }
    }

    /// Rests until something is due, as far as hints tell, but never longer than the poll's interval.
    async fn rest(&self) {
        let latest = self.clock.now().saturating_add(self.settings.poll).unwrap_or(Timestamp::MAX);
        loop {
            let next = self.dispatch.plan_look(latest);
            let pause = Duration::try_from(next.duration_since(self.clock.now())).unwrap_or(Duration::ZERO);
            // The clock may have been set back since: a rest is never longer than a poll's interval by the clock of now.
            let pause = pause.min(self.settings.poll);
            tokio::select! {
                () = self.clock.sleep(pause) => return,
                () = self.dispatch.hinted() => {}
            }
        }
    }

    /// After a start: where the store belongs to this process alone, whatever an earlier one had in hand is taken up
    /// at once, instead of when its lease runs out.
    pub async fn recover(&self) {
        self.recover_until(&CancellationToken::new()).await;
    }

    /// The end is looked for between batches only: what a commit has taken in hand must also be handed over.
    async fn recover_until(&self, shutdown: &CancellationToken) {
        if !self.service.is_sole_owner() {
            return;
        }
        let (mut after, mut all, mut failed) = (None, true, 0);
        while !shutdown.is_cancelled() {
            match self.service.unfinished(after, self.settings.due_batch).await {
                Ok(ids) => {
                    let Some(last) = ids.last().copied() else {
                        if all {
                            self.sweep.is_done();
                        }
                        return;
                    };
                    let mut woken = self.wake_all(ids, true).await;
                    all &= woken.no_place.is_empty();
                    for _ in 1..RECOVERY_TRIES {
                        if woken.left.is_empty() || shutdown.is_cancelled() {
                            break;
                        }
                        shutdown.run_until_cancelled(self.clock.sleep(self.settings.poll)).await;
                        woken = self.wake_all(woken.left, true).await;
                        all &= woken.no_place.is_empty();
                    }
                    all &= woken.left.is_empty();
                    after = Some(last);
                }
                Err(error) => {
                    failed += 1;
                    if failed == RECOVERY_TRIES {
                        // Rounds may find what is due by another way, and the walk over all goes on in them.
                        tracing::error!(%error, "recovery cannot read the store; leases run out instead");
                        return;
                    }
                    tracing::error!(%error, "recovery cannot read the store; trying again");
                    shutdown.run_until_cancelled(self.clock.sleep(self.settings.poll)).await;
                }
            }
        }
    }

    /// Sends a code, behind every live alert. Nobody books it: what came of it is told to the caller alone.
    pub async fn send_code(&self, request: &MessageRequest) -> SendOutcome {
        self.courier.send(Lane::Code, request).await
    }

    /// Takes up what is due. Returns whether there may be more.
    pub async fn round(&self) -> bool {
        self.try_round().await.unwrap_or(false)
    }

    /// The same; `None` where what is due could not be read.
    async fn try_round(&self) -> Option<bool> {
        let _turn = self.turn.lock().await;
        let now = self.clock.now();
        self.dispatch.look(now);
        self.service.metrics().worker_ran();
        self.service.metrics().set_in_hand(self.dispatch.in_hand());
        self.notice_clock(now);
        self.service.refresh_rosters().await;
        let walks_on = self.sweep().await;
        let more = match self.take_up_due(now).await {
            Ok(more) => {
                self.health.round_ended(now);
                Some(more || walks_on)
            }
            Err(error) => {
                tracing::error!(%error, "due work cannot be read; trying again");
                None
            }
        };
        self.keep_house(now).await;
        self.start_drills(now).await;
        self.look_ahead(now);
        more
    }

    /// Does what is due, and waits until it is done, but for no longer than `patience`: for whoever has no time between
    /// requests. The jobs are performed where [`Worker::run`] takes them.
    pub async fn run_due(&self, patience: Duration) -> Ran {
        let until = self.clock.now().saturating_add(patience).unwrap_or(Timestamp::MAX);
        loop {
            let Some(more) = self.try_round().await else { return Ran::StoreFailed };
            let in_hand = self.dispatch.in_hand();
            if !more && in_hand == 0 {
                return Ran::CaughtUp;
            }
            let now = self.clock.now();
            if now >= until {
                return Ran::OutOfTime { in_hand };
            }
            if !more {
                let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                self.clock.sleep(CAUGHT_UP_LOOK.min(left)).await;
            }
        }
    }

    /// Starts a drill whose time has come, once: the store knows whether another instance has. The operator hears of one
    /// whose hour has passed in vain: nobody would miss it else.
    async fn start_drills(&self, now: Timestamp) {
        let Some(daily) = &self.daily_drills else { return };
        let due = daily.due_at(now);
        // Where the clock was set back, its hour comes again.
        let missed = self.drill.lock().awaited.take_if(|awaited| Some(*awaited) != due && daily.is_over(*awaited, now));
        if let Some(missed) = missed
            && !matches!(self.service.are_drills_started(missed).await, Ok(true))
        {
            self.service.alarms().raise(AlarmKind::DrillNotStarted, About::Service);
        }
        let Some(due) = due.filter(|due| self.drill.lock().started != Some(*due)) else { return };
        self.drill.lock().awaited = Some(due);
        match self.service.start_planned_drills(due).await {
            Ok(true) => *self.drill.lock() = DrillWatch { started: Some(due), awaited: None },
            Ok(false) => tracing::debug!("the daily drill waits for another to end"),
            Err(error) => tracing::error!(%error, "the daily drill cannot be started; trying again"),
        }
    }

    /// Notices that the clock was set back, as far as rounds can tell: before the first one it may have been.
    fn notice_clock(&self, now: Timestamp) {
        let last = self.health.last_round();
        let again_at = self.again_at.load(Ordering::Relaxed);
        if last.is_none_or(|last| now < last) {
            let again_at = now.saturating_add(IN_FLIGHT).unwrap_or(Timestamp::MAX);
            self.again_at.store(again_at.as_microsecond(), Ordering::Relaxed);
        } else if again_at != 0 && again_at <= now.as_microsecond() {
            self.again_at.store(0, Ordering::Relaxed);
            self.look_at_all();
        }
        if last.is_some_and(|last| now < last) {
            tracing::warn!("the clock was set back: every waiting alert is looked at");
            self.look_at_all();
        }
    }

    /// The clock was set back, or may have been before the start: nothing would be due until it has caught up. Every
    /// waiting alert is looked at, and pulls its times in.
    fn look_at_all(&self) {
        self.left_alone.lock().clear();
        self.sweep.begin();
    }

    async fn take_up_due(&self, now: Timestamp) -> Result<bool, ServiceError> {
        let left_alone = self.left_alone(now);
        let limit = self.settings.due_batch + left_alone.len();
        let found = self.service.due(limit).await?;
        let full = found.len() == limit;
        let due: Vec<AlertId> = found.into_iter().filter(|id| !left_alone.contains_key(id)).collect();
        let woken = self.wake_all(due, false).await;
        // Without progress, asking again at once would find the same.
        Ok(full && woken.worked && !self.dispatch.is_full())
    }

    /// Wakes alerts, several at once so that they share commits.
    async fn wake_all(&self, ids: Vec<AlertId>, sole_owner_restarted: bool) -> WokenAlerts {
        let mut woken = futures::stream::iter(ids)
            .map(|id| async move {
                // An alert that makes us panic is a fault of ours, but no reason to leave the others alone.
                let woken = AssertUnwindSafe(self.service.wake(id, sole_owner_restarted)).catch_unwind();
                (id, woken.await)
            })
            .buffer_unordered(WAKE_AT_ONCE);
        let mut all = WokenAlerts::default();
        while let Some((id, woken)) = woken.next().await {
            match woken {
                Ok(Ok(Woken::Worked)) => all.worked = true,
                Ok(Ok(Woken::Nothing)) => {}
                Ok(Ok(Woken::NoPlace)) => all.no_place.push(id),
                Ok(Err(error)) if passes(&error) => {
                    tracing::warn!(alert = %id, %error, "an alert cannot be worked on just now; trying again");
                    all.left.push(id);
                }
                Ok(Err(error)) => {
                    tracing::error!(alert = %id, %error, "an alert cannot be worked on; trying again later");
                    self.leave_alone(id);
                }
                Err(_payload) => {
                    tracing::error!(alert = %id, "working on an alert ended by a panic; trying again later");
                    self.leave_alone(id);
                }
            }
        }
        all
    }

    fn leave_alone(&self, id: AlertId) {
        let until = self.clock.now().saturating_add(LEAVE_ALONE).unwrap_or(Timestamp::MAX);
        let mut left_alone = self.left_alone.lock();
        if left_alone.len() < LEFT_ALONE_MAX {
            left_alone.insert(id, until);
        }
    }

    fn left_alone(&self, now: Timestamp) -> HashMap<AlertId, Timestamp> {
        let mut left_alone = self.left_alone.lock();
        left_alone.retain(|_, until| *until > now);
        left_alone.clone()
    }

    /// Once a minute, whether somebody would be there.
    fn look_ahead(&self, now: Timestamp) {
        let since = now.as_microsecond().saturating_sub(self.last_look_ahead.load(Ordering::Relaxed));
        if since.unsigned_abs() >= u64::try_from(LOOK_AHEAD_EVERY.as_micros()).unwrap_or(u64::MAX) {
            self.last_look_ahead.store(now.as_microsecond(), Ordering::Relaxed);
            self.service.look_ahead();
        }
    }

    /// Gauges, and answers that need not be kept any longer.
    async fn keep_house(&self, now: Timestamp) {
        let since = now.as_microsecond().saturating_sub(self.last_stats.load(Ordering::Relaxed));
        if since.unsigned_abs() < u64::try_from(STATS_EVERY.as_micros()).unwrap_or(u64::MAX) {
            return;
        }
        self.last_stats.store(now.as_microsecond(), Ordering::Relaxed);
        let metrics = self.service.metrics();
        metrics.set_breaker_open(matches!(self.breaker(), BreakerState::Open { .. }));
        match self.read_figures(now).await {
            Ok((stats, withheld_waits)) => {
                let late = stats.next_due_at.map(|at| now.duration_since(at));
                let late = late.and_then(|late| Duration::try_from(late).ok()).unwrap_or_default();
                let withheld = count_of(&stats, StateName::Withheld);
                *self.health.figures.lock() = Some(Figures { at: now, late, withheld_waits });
                self.tell_of_withheld(withheld);
                for state in StateName::ALL {
                    metrics.set_open_alerts(state.as_str(), count_of(&stats, state));
                }
                metrics.set_oldest_due(late.as_secs_f64());
            }
            Err(error) => tracing::warn!(%error, "the store's figures cannot be read"),
        }
        if let Err(error) = self.service.forget_answers(self.settings.keep_answers, 1000).await {
            tracing::warn!(%error, "old answers cannot be forgotten");
        }
    }

    async fn read_figures(&self, now: Timestamp) -> Result<(StoreStats, bool), StoreError> {
        let stats = self.service.store().stats().await?;
        let waits = count_of(&stats, StateName::Withheld) > 0
            && match now.checked_sub(self.settings.withheld_after) {
                Ok(since) => self.service.is_withheld_since(since).await?,
                Err(_) => false,
            };
        Ok((stats, waits))
    }

    /// A crash may have come between a case's being withheld and its alarm. So each start tells of those that are there.
    fn tell_of_withheld(&self, withheld: u64) {
        if !self.told_of_withheld.swap(true, Ordering::Relaxed) && withheld > 0 {
            tracing::warn!(withheld, "cases are withheld: nobody is told of them until a person decides");
        }
    }

    /// Does all that is there to do now, and returns when nothing is left: for tests and simulations, which own the
    /// clock. Returns how many jobs it performed.
    pub async fn drain(self: &Arc<Self>, jobs: &mut Jobs) -> usize {
        let mut performed = 0;
        loop {
            let mut batch: Vec<Job> = Vec::new();
            while let Some(job) = jobs.try_next() {
                batch.push(job);
            }
            if batch.is_empty() {
                let more = self.round().await;
                match jobs.try_next() {
                    Some(job) => batch.push(job),
                    None if more => continue,
                    None => return performed,
                }
            }
            performed += batch.len();
            futures::future::join_all(batch.into_iter().map(|job| Arc::clone(self).perform(job))).await;
        }
    }
}
