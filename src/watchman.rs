//! The watchman: looks every few seconds whether work is really being done, raises an alarm where it is not, and lets a
//! heartbeat out only while it is.
//!
//! It stands beside the worker and not in it, so that it sees a worker that is stuck and a store that hangs. It looks again
//! and again, so whatever lasts is found after a restart, too. Where a process has no time between requests, a scheduler's
//! call for due work makes a look.
//!
//! The heartbeat is for a watchdog elsewhere, which calls somebody when it stays away: a dead service raises no alarm. It is
//! sent only if the store answers a write and a read, the worker makes its rounds, what is due is taken up in time, and
//! Twilio was not away for minutes: then the service is alive, and nobody is told of anything.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarms;
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::alarm::outside::{Answer, Outside};
use crate::health::{Health, Parts};
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::secret::Secret;
use crate::twilio::breaker::BreakerState;
use crate::worker::{Figures, Worker};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many looks in a row must find the store failing, or the worker stuck: one may come just when a process that stood
/// still goes on.
const LOOKS_IN_A_ROW: u32 = 2;
/// How old figures of the store may be that say something of now.
const FIGURES_GOOD_FOR: Duration = Duration::from_secs(30);
/// How long a worker may take to its first round: after a start it first takes up what another had in hand.
const FIRST_ROUND_WITHIN: Duration = Duration::from_secs(60);
/// How long Twilio may be away before the heartbeat stays away, too: what passes by itself needs nobody.
const AWAY_FOR: Duration = Duration::from_secs(180);
/// How long an open breaker that nobody has reason to try counts as open.
const BREAKER_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// When something is wrong.
#[derive(Debug, Clone, Copy)]
pub struct WatchRules {
    /// Due work that is later than this is late.
    pub late_after: Duration,
}

/// Where a heartbeat goes.
pub struct Heartbeat {
    outside: Outside,
    every: Duration,
    last: Mutex<Option<Timestamp>>,
}

impl Heartbeat {
    /// A heartbeat to this address; it may take so long.
    ///
    /// # Errors
    /// The HTTP library cannot start.
    pub fn new(url: Secret, timeout: Duration, every: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self { outside: Outside::new(url, timeout)?, every, last: Mutex::new(None) })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.last.lock().is_none_or(|last| now.duration_since(last).unsigned_abs() >= self.every)
    }
}

/// What it saw when it looked last.
#[derive(Debug, Default)]
struct Seen {
    store_failed: u32,
    worker_stuck: u32,
    /// Since when nothing can be sent, as far as it is known.
    away_since: Option<Timestamp>,
    breaker_open_at: Option<Timestamp>,
}

/// The watchman.
pub struct Watchman {
    alarms: Arc<Alarms>,
    worker: Arc<Worker>,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    rules: WatchRules,
    heartbeat: Option<Heartbeat>,
    begun: Timestamp,
    seen: Mutex<Seen>,
}

impl Watchman {
    /// Watches these parts.
    pub fn new(
        alarms: Arc<Alarms>,
        worker: Arc<Worker>,
        health: Arc<Health>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        rules: WatchRules,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        let begun = clock.now();
        Self { alarms, worker, health, clock, metrics, rules, heartbeat, begun, seen: Mutex::default() }
    }

    /// Looks until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(self.clock.sleep(LOOK_EVERY)).await.is_some() {
            self.look().await;
        }
    }

    /// Looks once.
    pub async fn look(&self) {
        let parts = self.health.parts().await;
        let (now, figures) = (self.clock.now(), self.worker.health().figures());
        self.look_at_parts(parts, now);
        if let Some(figures) = figures.filter(|figures| is_fresh(figures, now)) {
            self.look_at_figures(figures);
        }
        let breaker_open = self.look_at_breaker(now);
        self.alarms.tick();
        let is_away = self.is_provider_away(breaker_open, now);
        if !is_away && self.is_working(parts, figures, now) {
            self.beat(now).await;
        }
    }

    fn is_working(&self, parts: Parts, figures: Option<Figures>, now: Timestamp) -> bool {
        let in_time = |figures: &Figures| is_fresh(figures, now) && figures.late <= self.rules.late_after;
        parts.store && parts.worker && figures.as_ref().is_some_and(in_time)
    }

    fn look_at_parts(&self, parts: Parts, now: Timestamp) {
        let first = now.duration_since(self.begun).unsigned_abs() < FIRST_ROUND_WITHIN;
        let has_just_begun = first && self.worker.health().last_round().is_none();
        let stuck = !parts.worker && !has_just_begun;
        let (store_failing, worker_stuck) = {
            let mut seen = self.seen.lock();
            seen.store_failed = if parts.store { 0 } else { seen.store_failed.saturating_add(1) };
            seen.worker_stuck = if stuck { seen.worker_stuck.saturating_add(1) } else { 0 };
            (seen.store_failed >= LOOKS_IN_A_ROW, seen.worker_stuck >= LOOKS_IN_A_ROW)
        };
        self.alarms.set(Kind::StoreFailing, About::Service, store_failing);
        self.alarms.set(Kind::WorkerStuck, About::Service, worker_stuck);
    }

    fn look_at_figures(&self, figures: Figures) {
        self.alarms.set(Kind::WorkLate, About::Service, figures.late > self.rules.late_after);
        self.alarms.set(Kind::WithheldWaits, About::Service, figures.withheld_waits);
    }

    /// Whether nothing could be sent for a while: each delivery that is held back comes again a little later, so nothing of
    /// it is late, and yet nobody is told of anything.
    fn is_provider_away(&self, breaker_open: bool, now: Timestamp) -> bool {
        let is_away = breaker_open || self.alarms.provider_fails();
        let mut seen = self.seen.lock();
        let since = is_away.then(|| seen.away_since.map_or(now, |since| since.min(now)));
        seen.away_since = since;
        since.is_some_and(|since| now.duration_since(since).unsigned_abs() >= AWAY_FOR)
    }

    fn look_at_breaker(&self, now: Timestamp) -> bool {
        let open = match self.worker.breaker() {
            BreakerState::Open { .. } => {
                self.seen.lock().breaker_open_at = Some(now);
                true
            }
            BreakerState::Closed => false,
            // Nobody knows yet; after a while without anybody who would want to know it is over.
            BreakerState::HalfOpen => {
                let open_at = self.seen.lock().breaker_open_at;
                open_at.is_some_and(|at| now.duration_since(at).unsigned_abs() < BREAKER_FORGOTTEN_AFTER)
            }
        };
        self.alarms.set(Kind::BreakerOpen, About::Service, open);
        open
    }

    async fn beat(&self, now: Timestamp) {
        let Some(heartbeat) = self.heartbeat.as_ref().filter(|heartbeat| heartbeat.is_due(now)) else { return };
        let (outcome, why) = match heartbeat.outside.ping().await {
            Answer::Taken => {
                *heartbeat.last.lock() = Some(now);
                ("taken", None)
            }
            Answer::NotNow { why, asked: _ } => ("not_taken", Some(why)),
            Answer::Refused { code: _ } | Answer::HeldBack(_) => ("not_taken", Some("refused")),
        };
        self.metrics.heartbeat(outcome);
        if let Some(why) = why {
            // The next look tries again.
            tracing::warn!(why, "the heartbeat was not taken");
        }
    }
}

fn is_fresh(figures: &Figures, now: Timestamp) -> bool {
    now.duration_since(figures.at).unsigned_abs() <= FIGURES_GOOD_FOR
}
