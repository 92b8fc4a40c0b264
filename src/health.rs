//! Whether the service can do its work: its store, its worker, its provider.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::ports::{Clock, Store, StoreError};
use crate::twilio::breaker::BreakerState;
use crate::worker::Worker;

/// How long a probe of the store counts: asking for readiness must not become a way to load the disk.
const PROBE_COUNTS_FOR: Duration = Duration::from_secs(1);

/// How long a probe is waited for. A store that takes longer does not work, whatever it will say.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// Which parts work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The store answers a write and a read.
    pub store: bool,
    /// The worker makes its rounds.
    pub worker: bool,
    /// The circuit breaker lets calls go.
    pub twilio: bool,
}

/// Looks whether the parts of the service work.
pub struct Health {
    store: Arc<dyn Store>,
    worker: Arc<Worker>,
    clock: Arc<dyn Clock>,
    /// Older than this, and the worker's last round means that it is stuck.
    round_age_max: Duration,
    probed: Mutex<Probed>,
}

/// What is known of the store.
#[derive(Default)]
struct Probed {
    last: Option<(Timestamp, bool)>,
    /// A probe that has not come back: another one would only wait behind it.
    under_way: Option<Probe>,
}

/// A probe that was sent.
struct Probe {
    begun: Timestamp,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Probe {
    /// Whether it has come back while nobody waited for it, and what it says is of long ago.
    fn is_outdated(&self, now: Timestamp) -> bool {
        self.task.is_finished() && now.duration_since(self.begun).unsigned_abs() >= PROBE_COUNTS_FOR
    }
}

impl Health {
    /// Watches these parts.
    pub fn new(store: Arc<dyn Store>, worker: Arc<Worker>, clock: Arc<dyn Clock>, poll: Duration) -> Self {
        let round_age_max = poll.saturating_mul(20).max(Duration::from_secs(10));
        Self { store, worker, clock, round_age_max, probed: Mutex::default() }
    }

    /// Looks at every part.
    pub async fn parts(&self) -> Parts {
        let store = self.store_works().await;
        let twilio = !matches!(self.worker.breaker(), BreakerState::Open { .. });
        Parts { store, worker: self.worker_works(), twilio }
    }

    fn worker_works(&self) -> bool {
        self.worker.health().last_round().is_some_and(|at| {
            // A round in the future is no fresh one: the clock was set back.
            self.clock.now().duration_since(at).unsigned_abs() <= self.round_age_max
        })
    }

    async fn store_works(&self) -> bool {
        let mut probed = self.probed.lock().await;
        let now = self.clock.now();
        if let Some((at, works)) = probed.last
            && now.duration_since(at).unsigned_abs() < PROBE_COUNTS_FOR
        {
            return works;
        }
        let works = self.probe(now, &mut probed.under_way).await;
        probed.last = Some((self.clock.now(), works));
        works
    }

    /// A task of its own: whoever asked may go away, and a store that hangs must not be probed anew by all who ask.
    async fn probe(&self, now: Timestamp, under_way: &mut Option<Probe>) -> bool {
        if under_way.as_ref().is_some_and(|probe| probe.is_outdated(now)) {
            *under_way = None;
        }
        let probe = under_way.get_or_insert_with(|| {
            let store = Arc::clone(&self.store);
            Probe { begun: now, task: tokio::spawn(async move { store.probe(now).await }) }
        });
        let Ok(ended) = tokio::time::timeout(PROBE_WITHIN, &mut probe.task).await else {
            tracing::error!(
                waited_s = PROBE_WITHIN.as_secs(),
                "the store does not come back from a probe: the disk hangs, or is far too slow"
            );
            return false;
        };
        *under_way = None;
        match ended {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the store does not answer a probe");
                false
            }
            Err(_) => {
                tracing::error!("a probe of the store ended by a panic");
                false
            }
        }
    }
}
