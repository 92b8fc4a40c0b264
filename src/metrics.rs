//! Metrics in Prometheus' text form. Labels come from closed lists: never an id, a name or a number.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::contact::Channel;
use crate::domain::policy::Stage;
use crate::ports::Operations;

/// One label with a value from a closed list.
macro_rules! label {
    ($name:ident, $field:ident) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $field: &'static str,
        }
    };
}
label!(ByDecision, decision);
label!(ByClass, class);
label!(ByStatus, status);
label!(ByState, state);
label!(ByKind, kind);
label!(ByHook, hook);
label!(ByLane, lane);
label!(ByOutcome, outcome);

/// How somebody was told, or answered: over which channel, and on which rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWay {
    channel: &'static str,
    step: &'static str,
}

impl ByWay {
    fn of((channel, stage): (Channel, Stage)) -> Self {
        Self::new(channel.as_str(), stage)
    }

    /// Rungs beyond the eighth share a label: the list of labels is closed.
    fn new(channel: &'static str, stage: Stage) -> Self {
        const STEPS: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
        let step = match stage {
            Stage::Step { step, .. } => STEPS.get(step as usize).copied().unwrap_or("more"),
            Stage::LastResponder { .. } => "last",
        };
        Self { channel, step }
    }
}

/// Notices to the operator, by whom they go to and what came of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTarget {
    target: &'static str,
    outcome: &'static str,
}

type Counters<L> = Family<L, Counter>;
type Histograms<L> = Family<L, Histogram>;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    events: Counters<ByDecision>,
    attempts: Counters<ByClass>,
    receipts: Counters<ByStatus>,
    held_back: Counters<ByLane>,
    past_phone_pace: Counter,
    alarms: Counters<ByKind>,
    alarms_open: Family<ByKind, Gauge>,
    notices: Counters<ByTarget>,
    heartbeats: Counters<ByOutcome>,
    webhooks: Histograms<ByHook>,
    webhooks_refused: Counters<ByKind>,
    time_to_provider: Histograms<ByWay>,
    time_to_delivered: Histograms<ByWay>,
    case_time_to_provider: Histograms<ByWay>,
    case_time_to_delivered: Histograms<ByWay>,
    time_to_acknowledged: Histograms<ByWay>,
    steps_until_acknowledged: Histogram,
    reopened: Counter,
    open_alerts: Family<ByState, Gauge>,
    oldest_due: Gauge<f64, AtomicU64>,
    in_hand: Gauge<i64, AtomicI64>,
    breaker_open: Gauge,
    next_gap: Gauge<f64, AtomicU64>,
    obstacles: Family<ByKind, Gauge>,
    worker_runs: Counter,
    store_commits: Counter,
    store_operations: Counters<ByKind>,
}

/// 0.5 ms to about 65 s.
fn fine() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
}

/// 0.1 s to about 55 min.
fn coarse() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("crisis_relay"),
            events: Family::default(),
            attempts: Family::default(),
            receipts: Family::default(),
            held_back: Family::default(),
            past_phone_pace: Counter::default(),
            alarms: Family::default(),
            alarms_open: Family::default(),
            notices: Family::default(),
            heartbeats: Family::default(),
            webhooks: Family::new_with_constructor(fine),
            webhooks_refused: Family::default(),
            time_to_provider: Family::new_with_constructor(fine),
            time_to_delivered: Family::new_with_constructor(coarse),
            case_time_to_provider: Family::new_with_constructor(coarse),
            case_time_to_delivered: Family::new_with_constructor(coarse),
            time_to_acknowledged: Family::new_with_constructor(coarse),
            steps_until_acknowledged: Histogram::new([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 48.0]),
            reopened: Counter::default(),
            open_alerts: Family::default(),
            oldest_due: Gauge::default(),
            in_hand: Gauge::default(),
            breaker_open: Gauge::default(),
            next_gap: Gauge::default(),
            obstacles: Family::default(),
            worker_runs: Counter::default(),
            store_commits: Counter::default(),
            store_operations: Counters::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("events", "Crisis events by decision", self.events.clone());
        r.register("attempts", "Calls to the provider by what they came to", self.attempts.clone());
        r.register("receipts", "Receipts that told something new, by status", self.receipts.clone());
        let help = "Times that a message had to come again because its sender had no turn for its lane";
        r.register("held_back", help, self.held_back.clone());
        let help = "Messages of live alerts to a phone that had had enough for a minute: sent all the same";
        r.register("past_phone_pace", help, self.past_phone_pace.clone());
        r.register("alarms", "Things the operator must hear of, by kind", self.alarms.clone());
        r.register("alarms_open", "Things that are wrong just now, by kind", self.alarms_open.clone());
        let help = "Notices to the operator, by target and by what came of them";
        r.register("notices", help, self.notices.clone());
        let help = "Heartbeats to the watchdog, by what came of them; none while work is not being done";
        r.register("heartbeats", help, self.heartbeats.clone());
        let help = "Time to answer a webhook";
        r.register_with_unit("webhook_duration", help, Unit::Seconds, self.webhooks.clone());
        r.register("webhooks_refused", "Webhooks refused, by reason", self.webhooks_refused.clone());
        let help = "From planning a message to the provider's having it";
        r.register_with_unit("time_to_provider", help, Unit::Seconds, self.time_to_provider.clone());
        let help = "From planning a message to the phone's having it";
        r.register_with_unit("time_to_delivered", help, Unit::Seconds, self.time_to_delivered.clone());
        let help = "From when people began to be told of a case to the provider's having the first message of it";
        r.register_with_unit("case_time_to_provider", help, Unit::Seconds, self.case_time_to_provider.clone());
        let help = "From when people began to be told of a case to a phone's having the first message of it";
        r.register_with_unit("case_time_to_delivered", help, Unit::Seconds, self.case_time_to_delivered.clone());
        let help = "From when people began to be told of a case to a human's acknowledgement";
        r.register_with_unit("time_to_acknowledged", help, Unit::Seconds, self.time_to_acknowledged.clone());
        let help = "Rungs of the ladder that were used until a human took the case";
        r.register("steps_until_acknowledged", help, self.steps_until_acknowledged.clone());
        let help = "Cases that were told again after somebody had taken them";
        r.register("reopened", help, self.reopened.clone());
        r.register("open_alerts", "Open alerts by state", self.open_alerts.clone());
        let help = "How late the oldest due work is; 0 if nothing is late";
        r.register_with_unit("oldest_due", help, Unit::Seconds, self.oldest_due.clone());
        r.register("in_hand", "Deliveries taken in hand and not settled", self.in_hand.clone());
        r.register("provider_breaker_open", "1 while the circuit breaker holds calls back", self.breaker_open.clone());
        let help = "Until nobody is on call; 0 while nobody is, two weeks where that is further off";
        r.register_with_unit("next_on_call_gap", help, Unit::Seconds, self.next_gap.clone());
        let help = "What stands against it that somebody would be there in the next two weeks, by kind";
        r.register("readiness_obstacles", help, self.obstacles.clone());
        r.register("worker_runs", "Rounds the worker has made", self.worker_runs.clone());
        let help =
            "Commits of the store; in an embedded one each is flushed to the disk, and changes of one moment share one";
        r.register("store_commits", help, self.store_commits.clone());
        let help = "What a store over the network was asked, by kind: calls, and documents read, written, deleted";
        r.register("store_operations", help, self.store_operations.clone());
    }

    /// An event was decided on.
    pub fn event(&self, decision: &'static str) {
        self.events.get_or_create(&ByDecision { decision }).inc();
    }

    /// A call to the provider came to something.
    pub fn attempt(&self, class: &'static str) {
        self.attempts.get_or_create(&ByClass { class }).inc();
    }

    /// A message found no turn at its sender, or no place among the calls, and comes again.
    pub fn held_back(&self, lane: &'static str) {
        self.held_back.get_or_create(&ByLane { lane }).inc();
    }

    /// So many messages of live alerts went to phones that had had enough for a minute.
    pub fn past_phone_pace(&self, count: u32) {
        self.past_phone_pace.inc_by(count.into());
    }

    /// A receipt told something new.
    pub fn receipt(&self, status: &'static str) {
        self.receipts.get_or_create(&ByStatus { status }).inc();
    }

    /// The operator must hear of something.
    pub fn alarm(&self, kind: &'static str) {
        self.alarms.get_or_create(&ByKind { kind }).inc();
    }

    /// Nobody is on call after so many seconds.
    pub fn set_next_gap(&self, seconds: f64) {
        self.next_gap.set(seconds);
    }

    /// So many things of a kind stand against it that somebody would be there.
    pub fn set_obstacles(&self, kind: &'static str, count: usize) {
        self.obstacles.get_or_create(&ByKind { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many things of a kind are wrong just now.
    pub fn set_alarms_open(&self, kind: &'static str, count: usize) {
        self.alarms_open.get_or_create(&ByKind { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many notices to a target of the operator's came to this.
    pub fn notices(&self, target: &'static str, outcome: &'static str, count: u64) {
        self.notices.get_or_create(&ByTarget { target, outcome }).inc_by(count);
    }

    /// A heartbeat came to this.
    pub fn heartbeat(&self, outcome: &'static str) {
        self.heartbeats.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// A webhook was answered after so many seconds.
    pub fn webhook(&self, hook: &'static str, seconds: f64) {
        self.webhooks.get_or_create(&ByHook { hook }).observe(seconds);
    }

    /// A webhook was refused.
    pub fn webhook_refused(&self, kind: &'static str) {
        self.webhooks_refused.get_or_create(&ByKind { kind }).inc();
    }

    /// The provider has a message of this channel and rung, so many seconds after it was planned.
    pub fn reached_provider(&self, way: (Channel, Stage), seconds: f64) {
        self.time_to_provider.get_or_create(&ByWay::of(way)).observe(seconds);
    }

    /// A phone has it.
    pub fn reached_phone(&self, way: (Channel, Stage), seconds: f64) {
        self.time_to_delivered.get_or_create(&ByWay::of(way)).observe(seconds);
    }

    /// The provider has the first message of a case, so many seconds after people began to be told of it.
    pub fn case_reached_provider(&self, way: (Channel, Stage), seconds: f64) {
        self.case_time_to_provider.get_or_create(&ByWay::of(way)).observe(seconds);
    }

    /// A phone has the first that arrived.
    pub fn case_reached_phone(&self, way: (Channel, Stage), seconds: f64) {
        self.case_time_to_delivered.get_or_create(&ByWay::of(way)).observe(seconds);
    }

    /// A human has taken a case, so many seconds after people began to be told of it, when so many rungs were used. `None`: they
    /// said so over the API.
    pub fn reached_human(&self, channel: Option<Channel>, stage: Stage, rungs: u64, seconds: f64) {
        let channel = channel.map_or("api", Channel::as_str);
        self.time_to_acknowledged.get_or_create(&ByWay::new(channel, stage)).observe(seconds);
        // A few hundred at the most: exact.
        self.steps_until_acknowledged.observe(rungs as f64);
    }

    /// A case that somebody had taken is told again.
    pub fn reopened(&self) {
        self.reopened.inc();
    }

    /// How many alerts are open in a state.
    pub fn set_open_alerts(&self, state: &'static str, count: u64) {
        self.open_alerts.get_or_create(&ByState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How late the oldest due work is.
    pub fn set_oldest_due(&self, seconds: f64) {
        self.oldest_due.set(seconds);
    }

    /// What was asked of the store's engine so far.
    pub fn set_store_operations(&self, asked: Operations) {
        let Operations { calls, commits, reads, writes, deletes } = asked;
        self.store_commits.inner().store(commits, Ordering::Relaxed);
        for (kind, count) in [("call", calls), ("read", reads), ("write", writes), ("delete", deletes)] {
            self.store_operations.get_or_create(&ByKind { kind }).inner().store(count, Ordering::Relaxed);
        }
    }

    /// How many deliveries are in hand.
    pub fn set_in_hand(&self, count: usize) {
        self.in_hand.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the breaker holds calls back.
    pub fn set_breaker_open(&self, open: bool) {
        self.breaker_open.set(i64::from(open));
    }

    /// The worker made a round.
    pub fn worker_ran(&self) {
        self.worker_runs.inc();
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
