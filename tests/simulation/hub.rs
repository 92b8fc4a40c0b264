//! The hub of a schedule: its time, who waits for a turn, who sleeps, who is dead, and what happened.
//!
//! Every call that a process makes of the world (store, provider, clock) ends here and waits. Nothing goes on until the
//! schedule says which goes on, and how; so the order of things is the seed's choice and nobody else's.
//!
//! There are two times. One only passes: sleepers and the provider go by it. The other is what processes read off their
//! clock, which may be set forth and back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use crisis_relay::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::chance::Chance;

/// When every schedule begins.
const START: i64 = 1_795_000_000;
/// How many lines of the trace a failure shows.
const TAIL: usize = 60;
/// A machine's timers are no finer.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// One life of one instance of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process(pub(crate) u32);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process-{}", self.0)
    }
}

/// What becomes of a call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Pass,
    /// It fails, and took no effect.
    Fail,
    /// It took no effect, and nobody knows.
    Lost,
    /// It takes effect, and nobody knows.
    PassUnknown,
    /// The process dies before it takes effect.
    DieBefore,
    /// The process dies once it has taken effect.
    DieAfter,
}

/// A call of the store that waits for its turn.
pub(crate) struct Waiting {
    pub(crate) process: Process,
    pub(crate) name: &'static str,
    pub(crate) writes: bool,
    grant: oneshot::Sender<Fate>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) step: usize,
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

struct Sleeper {
    process: Process,
    wake: oneshot::Sender<()>,
}

#[derive(Default)]
struct State {
    elapsed: Duration,
    offset: SignedDuration,
    /// How often the clock was set.
    jumps: usize,
    step: usize,
    numbered: u64,
    waiting: Vec<Waiting>,
    sleepers: BTreeMap<(Duration, u64), Sleeper>,
    dead: BTreeSet<Process>,
    trace: Vec<String>,
    seen: BTreeMap<String, usize>,
    violation: Option<Violation>,
}

/// See the module's doc.
pub(crate) struct Hub {
    state: Mutex<State>,
    idle: Arc<Idle>,
    pub(crate) chance: Chance,
}

impl Hub {
    pub(crate) fn new(seed: u64, idle: Arc<Idle>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), idle, chance: Chance::new(seed, 1) })
    }

    // -- time --------------------------------------------------------------------------------------------------------

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.state.lock().elapsed
    }

    /// What the clocks of the processes show.
    pub(crate) fn wall(&self) -> Timestamp {
        let offset = self.state.lock().offset;
        self.true_time().saturating_add(offset).unwrap_or(Timestamp::MAX)
    }

    /// The right time, as the provider has it.
    pub(crate) fn true_time(&self) -> Timestamp {
        let start = Timestamp::new(START, 0).expect("a time of this century");
        start.saturating_add(self.elapsed()).expect("a time of this century")
    }

    /// How often the clock was set.
    pub(crate) fn jumps(&self) -> usize {
        self.state.lock().jumps
    }

    /// Sets the clocks of all processes.
    pub(crate) fn set_clock(&self, by: SignedDuration) {
        let mut state = self.state.lock();
        state.offset += by;
        state.jumps += 1;
    }

    /// When the next sleeper wakes.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        self.state.lock().sleepers.keys().next().map(|(at, _)| *at)
    }

    /// Lets time pass until `to`, and wakes whoever slept until then.
    pub(crate) fn pass(&self, to: Duration) {
        let mut state = self.state.lock();
        state.elapsed = state.elapsed.max(to);
        while let Some(first) = state.sleepers.first_entry().filter(|first| first.key().0 <= to) {
            // Whoever slept may be gone.
            let _ = first.remove().wake.send(());
        }
    }

    /// Sleeps, as a process.
    pub(crate) async fn sleep(&self, process: Process, duration: Duration) {
        let woken = {
            let mut state = self.state.lock();
            state.numbered += 1;
            let place = (state.elapsed + duration.max(SHORTEST_SLEEP), state.numbered);
            let (wake, woken) = oneshot::channel();
            state.sleepers.insert(place, Sleeper { process, wake });
            woken
        };
        if self.is_dead(process) || woken.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    // -- turns -------------------------------------------------------------------------------------------------------

    /// Waits until the schedule lets this call go on. For the dead, time stands still.
    pub(crate) async fn turn(&self, process: Process, name: &'static str, writes: bool) -> Fate {
        if self.is_dead(process) {
            return std::future::pending().await;
        }
        let (grant, granted) = oneshot::channel();
        self.state.lock().waiting.push(Waiting { process, name, writes, grant });
        match granted.await {
            Ok(fate) => fate,
            Err(_) => std::future::pending().await,
        }
    }

    /// How many calls wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Lets one of them go on; `fate` says how.
    pub(crate) fn grant(&self, place: usize, fate: impl FnOnce(&Waiting) -> Fate) {
        let waiting = self.state.lock().waiting.remove(place);
        let fate = fate(&waiting);
        self.note(format_args!("{} {} {fate:?}", waiting.process, waiting.name));
        if fate != Fate::Pass {
            let kind = if waiting.writes { "write" } else { "read" };
            self.see(format!("store {kind} {fate:?}"));
        }
        // Whoever waited may have given up.
        let _ = waiting.grant.send(fate);
    }

    /// Returns once nobody can go on by themselves.
    pub(crate) async fn idle(&self) {
        self.idle.parked().await;
    }

    // -- life and death ----------------------------------------------------------------------------------------------

    /// A process dies where it stands.
    pub(crate) fn die(&self, process: Process) {
        self.note(format_args!("{process} dies"));
        let mut state = self.state.lock();
        state.dead.insert(process);
        state.waiting.retain(|waiting| waiting.process != process);
        state.sleepers.retain(|_, sleeper| sleeper.process != process);
    }

    pub(crate) fn is_dead(&self, process: Process) -> bool {
        self.state.lock().dead.contains(&process)
    }

    // -- what happened -----------------------------------------------------------------------------------------------

    pub(crate) fn step(&self) -> usize {
        self.state.lock().step
    }

    pub(crate) fn next_step(&self) {
        self.state.lock().step += 1;
    }

    /// Writes a line into the trace.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let mut state = self.state.lock();
        let line = format!("{:>5} {:>9.3}s  {what}", state.step, state.elapsed.as_secs_f64());
        state.trace.push(line);
    }

    /// Counts that something was seen: a simulation in which it never happens proves nothing about it.
    pub(crate) fn see(&self, what: impl Into<String>) {
        *self.state.lock().seen.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn seen(&self) -> BTreeMap<String, usize> {
        self.state.lock().seen.clone()
    }

    /// An invariant does not hold. The first one counts.
    pub(crate) fn violated(&self, rule: &'static str, detail: impl fmt::Display) {
        self.note(format_args!("VIOLATED: {rule}: {detail}"));
        let mut state = self.state.lock();
        let step = state.step;
        state.violation.get_or_insert(Violation { step, rule, detail: detail.to_string() });
    }

    /// Says so unless it holds.
    pub(crate) fn require(&self, holds: bool, rule: &'static str, detail: impl FnOnce() -> String) {
        if !holds {
            self.violated(rule, detail());
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state.lock().violation.clone()
    }

    pub(crate) fn trace(&self) -> String {
        self.state.lock().trace.join("\n")
    }

    pub(crate) fn tail(&self) -> String {
        let state = self.state.lock();
        state.trace[state.trace.len().saturating_sub(TAIL)..].join("\n")
    }
}

/// The clock of a process.
pub(crate) struct ProcessClock {
    pub(crate) hub: Arc<Hub>,
    pub(crate) process: Process,
}

#[async_trait]
impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        self.hub.wall()
    }

    async fn sleep(&self, duration: Duration) {
        self.hub.sleep(self.process, duration).await;
    }
}

/// Knows when the runtime has nothing left to do: it parks its thread then, and says so first.
#[derive(Default)]
pub(crate) struct Idle(Mutex<(bool, Option<Waker>)>);

impl Idle {
    /// The runtime is about to park.
    pub(crate) fn parks(&self) {
        let waker = {
            let mut idle = self.0.lock();
            idle.0 = true;
            idle.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn parked(&self) -> Parked<'_> {
        self.0.lock().0 = false;
        Parked(self)
    }
}

struct Parked<'a>(&'a Idle);

impl Future for Parked<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut idle = self.0.0.lock();
        if idle.0 {
            return Poll::Ready(());
        }
        idle.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}
