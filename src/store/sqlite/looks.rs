//! Looks: which reads may be done on the async threads themselves, so that no disk can take all of these threads.
//!
//! On a healthy disk a look is over in microseconds. A disk that hangs keeps the thread that looks, and cannot be seen
//! beforehand. So one thread of the runtime, at the least, never looks while the others do; and as soon as a look is slow,
//! or does not come back, all others step aside: they are read on threads that may wait.
//!
//! That one thread is left is not enough: it may be asleep, while the one that was caught had been the one that waits for
//! sockets and timers. Tokio wakes another only for more work than one task. A thread beside the runtime sees to that.
//!
//! No decision of the service hears of the times that are measured here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

/// A look of such length was not answered from memory.
const SLOW: Duration = Duration::from_millis(20);
/// For how long, after the last slow one, looks step aside.
const ASIDE_FOR: Duration = Duration::from_secs(10);
/// How long a look waits for its turn: those before it take microseconds.
const TURN_WITHIN: Duration = Duration::from_micros(200);
/// How often the watch looks for one that was caught, and from when on the log is told.
const WATCH_EVERY: Duration = Duration::from_millis(50);
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// Gives looks their turns.
pub(super) struct Looks {
    times: Arc<Times>,
    /// Dropped, it ends the watch.
    watched: Option<Sender<()>>,
}

/// Times are in microseconds since `epoch`, and never 0.
struct Times {
    epoch: Instant,
    /// When each look under way began, as far as there are turns; 0: this turn is free.
    begun: Box<[AtomicU64]>,
    aside_until: AtomicU64,
}

/// What a look may do.
enum Turn<'a> {
    /// Look, here and now.
    Take(Look<'a>),
    /// Ask again in a moment: others have their turn.
    Wait,
    /// Be read elsewhere.
    StepAside,
}

/// A look under way; dropped when it is over, even by a panic.
pub(super) struct Look<'a> {
    times: &'a Times,
    turn: &'a AtomicU64,
    begun: u64,
}

/// A read that has stepped aside: on a thread of its own it may take its time, but not unseen.
pub(super) struct Timed {
    times: Arc<Times>,
    begun: u64,
}

impl Looks {
    /// For looks on the runtime that this is called on, where at most `readers` connections are there to look with.
    pub(super) fn new(readers: usize) -> Self {
        let runtime = Handle::try_current().ok().filter(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
        let threads = runtime.as_ref().map_or(1, |it| it.metrics().num_workers());
        let looks = Self::with_turns(threads.saturating_sub(1).clamp(1, readers.max(1)));
        match runtime {
            Some(runtime) => looks.watched(runtime),
            None => looks,
        }
    }

    fn with_turns(turns: usize) -> Self {
        let begun = (0..turns).map(|_| AtomicU64::new(0)).collect();
        Self { times: Arc::new(Times { epoch: instant(), begun, aside_until: AtomicU64::new(0) }), watched: None }
    }

    /// Without a thread for the watch, looks go on: what it is for is rare.
    fn watched(mut self, runtime: Handle) -> Self {
        let (watched, end) = channel();
        let times = Arc::clone(&self.times);
        let watch = move || watch(&times, &runtime, &end);
        let thread = std::thread::Builder::new().name("sqlite-watch".to_owned()).spawn(watch);
        self.watched = thread.is_ok().then_some(watched);
        self
    }

    /// Waits for a turn, which is a matter of microseconds; or `None`: step aside, and be read elsewhere.
    ///
    /// The thread itself waits. A task that gave way to others would stand in a queue that belongs to this thread alone, and
    /// would be caught there by the next look that hangs.
    pub(super) fn turn(&self) -> Option<Look<'_>> {
        let since = self.times.now();
        let mut now = since;
        loop {
            match self.times.turn(now) {
                Turn::Take(look) => return Some(look),
                Turn::Wait if now - since < micros(TURN_WITHIN) => std::thread::yield_now(),
                Turn::Wait | Turn::StepAside => return None,
            }
            now = self.times.now();
        }
    }

    /// To be held during a look that has stepped aside.
    pub(super) fn timed(&self) -> impl FnOnce() -> Timed + Send + 'static {
        let times = Arc::clone(&self.times);
        move || Timed { begun: times.now(), times }
    }
}

/// To be called by a task that another thread has woken: it may look next.
///
/// Tokio lets such a task overtake the one that the thread has in hand, which no other thread can take over: a look that
/// hangs would keep that one, too, be it a request's time-out or the socket that listens. To give way lets it go first.
pub(super) async fn give_way() {
    tokio::task::yield_now().await;
}

impl Times {
    fn now(&self) -> u64 {
        micros(instant().duration_since(self.epoch)) + 1
    }

    fn turn(&self, now: u64) -> Turn<'_> {
        if now < self.aside_until.load(Ordering::Relaxed) {
            return Turn::StepAside;
        }
        let (mut mine, mut oldest) = (None, now);
        for turn in &self.begun {
            match turn.load(Ordering::Relaxed) {
                0 if mine.is_none() && turn.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() => {
                    mine = Some(Look { times: self, turn, begun: now });
                }
                0 => {}
                begun => oldest = oldest.min(begun),
            }
        }
        let longest = now - oldest;
        match mine {
            // One that does not come back: the next would not, either.
            _ if longest > micros(SLOW) => Turn::StepAside,
            Some(look) => Turn::Take(look),
            None => Turn::Wait,
        }
    }

    /// How long the look has lasted that began first.
    fn longest(&self, now: u64) -> u64 {
        let begun = self.begun.iter().map(|turn| turn.load(Ordering::Relaxed)).filter(|begun| *begun != 0);
        begun.min().map_or(0, |begun| now.saturating_sub(begun))
    }

    fn ended(&self, begun: u64, now: u64) {
        let took = now.saturating_sub(begun);
        if took <= micros(SLOW) {
            return;
        }
        let before = self.aside_until.fetch_max(now + micros(ASIDE_FOR), Ordering::Relaxed);
        if before < now {
            tracing::warn!(
                took_ms = took / 1000,
                "the disk is slow: for a while, reads are done on threads that may wait"
            );
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.times.ended(self.begun, self.times.now());
        self.turn.store(0, Ordering::Relaxed);
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.times.ended(self.begun, self.times.now());
    }
}

/// As long as a look does not come back, some other thread of the runtime is kept awake: whoever has nothing to do then
/// waits for sockets and timers.
fn watch(times: &Times, runtime: &Handle, end: &Receiver<()>) {
    let mut told = false;
    while end.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Timeout) {
        let longest = times.longest(times.now());
        if longest > micros(SLOW) {
            runtime.spawn(async {});
        }
        let hangs = longest > micros(HANGS_AFTER);
        if hangs && !told {
            tracing::error!("the disk hangs: a read has not come back for more than a second");
        }
        told = hangs;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "how long the disk takes is the machine's time; no decision hears of it")]
fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(turn: Turn<'_>) -> &'static str {
        match turn {
            Turn::Take(_) => "taken",
            Turn::Wait => "wait",
            Turn::StepAside => "aside",
        }
    }

    /// A moment, `millis` after a look that begins at 1.
    fn after(millis: u64) -> u64 {
        1 + millis * 1000
    }

    #[test]
    fn looks_wait_for_a_turn_for_a_moment_only_and_then_step_aside() {
        let looks = Looks::with_turns(1);
        looks.times.begun[0].store(1, Ordering::Relaxed);
        assert_eq!(took(looks.times.turn(after(0))), "wait");
        assert!(looks.turn().is_none());
        looks.times.begun[0].store(0, Ordering::Relaxed);
        assert_eq!(took(looks.times.turn(after(3))), "taken", "one that waited does not keep others from looking");
    }

    #[test]
    fn while_one_does_not_come_back_the_others_step_aside_though_there_are_turns() {
        let looks = Looks::with_turns(3);
        looks.times.begun[2].store(1, Ordering::Relaxed);
        assert_eq!(took(looks.times.turn(after(20))), "taken");
        assert_eq!(took(looks.times.turn(after(21))), "aside");
        let free = |turn: &AtomicU64| turn.load(Ordering::Relaxed) == 0;
        assert_eq!(
            looks.times.begun.iter().filter(|turn| free(turn)).count(),
            2,
            "no turn is kept by who stepped aside"
        );
        assert_eq!(looks.times.longest(after(21)), 21_000);
    }

    #[test]
    fn after_a_slow_one_looks_step_aside_for_a_while_wherever_it_was_read() {
        let looks = Looks::with_turns(1);
        looks.times.ended(1, after(20));
        assert_eq!(took(looks.times.turn(after(20))), "taken", "that was quick enough");
        looks.times.ended(1, after(21));
        assert_eq!(took(looks.times.turn(after(22))), "aside");
        assert_eq!(took(looks.times.turn(after(10_020))), "aside");
        assert_eq!(took(looks.times.turn(after(10_021))), "taken");
    }

    #[test]
    fn a_turn_is_given_back_even_by_a_panic() {
        let looks = Looks::with_turns(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _look = looks.turn().unwrap();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(looks.times.longest(looks.times.now()), 0);
    }

    #[test]
    fn one_thread_of_a_runtime_never_looks_while_the_others_do() {
        for (threads, readers, turns) in [(1, 4, 1), (2, 4, 1), (4, 4, 3), (8, 4, 4)] {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).build().unwrap();
            let looks = runtime.block_on(async { Looks::new(readers) });
            assert_eq!(looks.times.begun.len(), turns, "{threads} threads, {readers} readers");
        }
    }

    #[test]
    fn a_runtime_whose_only_wakeful_thread_was_caught_still_hears_sockets_and_timers() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (let_go, caught) = channel::<()>();
        let (tell, told) = channel();
        let looks = runtime.block_on(async { Arc::new(Looks::new(4)) });
        runtime.spawn(async move {
            // Woken by a timer, and so by the very thread that was waiting for all of them.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let look = looks.turn();
            let _ = caught.recv();
            drop(look);
        });
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = tell.send(());
        });
        // Waited for without the runtime, whose timers may be dead.
        let heard = told.recv_timeout(Duration::from_secs(30));
        drop(let_go);
        assert!(heard.is_ok(), "the timer was never heard of");
    }
}
