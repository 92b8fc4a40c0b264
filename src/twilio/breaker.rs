//! Whether to call Twilio just now: a pure circuit breaker.
//!
//! ```text
//!   Closed --N failures in a row--> Open{until} --until is past, one caller--> HalfOpen{probe}
//!     ^                               ^                                          |      |
//!     |                               +---- probe fails: twice as long, clamped -+      |
//!     +------------------------------------- any success -------------------------------+
//! ```
//!
//! It counts failures of the transport and 5xx only; a refusal (4xx) shows that Twilio is there, and is a success here.
//! It holds calls back for a bounded time and never for good: the longest it says is [`BreakerLimits::open_max`].
//! A probe whose caller died is given up after [`BreakerLimits::probe_patience`], so a crash cannot keep it open.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When a [`Breaker`] opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// How many failures in a row open it (at least 1).
    pub failures_to_open: u32,
    /// How long it stays open the first time.
    pub open_min: Duration,
    /// The clamp of the doubling.
    pub open_max: Duration,
    /// How long to wait for a probe's result before another may go: longer than a request can take.
    pub probe_patience: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            failures_to_open: 5,
            open_min: Duration::from_secs(1),
            open_max: Duration::from_secs(30),
            probe_patience: Duration::from_secs(30),
        }
    }
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Call.
    Go,
    /// Call: this one decides for all others, so report how it went.
    Probe,
    /// Do not call before this time; then ask again.
    Wait(Timestamp),
}

/// What the breaker looks like from outside: for readiness and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go.
    Closed,
    /// Calls wait until then.
    Open {
        /// When a probe may go.
        until: Timestamp,
    },
    /// One call is out to see.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp, span: Duration },
    HalfOpen { give_up_at: Timestamp, span: Duration },
}

/// A circuit breaker. See the module's diagram.
#[derive(Debug, Clone)]
pub struct Breaker {
    limits: BreakerLimits,
    state: State,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(limits: BreakerLimits) -> Self {
        Self { limits, state: State::Closed { failures: 0 } }
    }

    /// Asks for one call. After [`Admission::Go`] or [`Admission::Probe`] report [`Self::on_success`] or
    /// [`Self::on_failure`].
    pub fn allow(&mut self, now: Timestamp) -> Admission {
        if let Some(until) = self.waits(now) {
            return Admission::Wait(until);
        }
        match self.state {
            State::Closed { failures: _ } => Admission::Go,
            State::Open { until: _, span } | State::HalfOpen { give_up_at: _, span } => {
                self.state = State::HalfOpen { give_up_at: later(now, self.limits.probe_patience), span };
                Admission::Probe
            }
        }
    }

    /// Until when no call may go, as it looks now; if the clock was set back since that was reckoned, it is brought nearer.
    /// Unlike [`Self::allow`] it grants nothing, so that who asks need not call.
    pub fn waits(&mut self, now: Timestamp) -> Option<Timestamp> {
        let (until, longest) = match &mut self.state {
            State::Closed { failures: _ } => return None,
            State::Open { until, span } => (until, *span),
            State::HalfOpen { give_up_at, span: _ } => (give_up_at, self.limits.probe_patience),
        };
        *until = (*until).min(later(now, longest));
        (*until > now).then_some(*until)
    }

    /// A call was answered, whatever it said short of a 5xx: Twilio is there.
    pub fn on_success(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A call failed in transport or with a 5xx.
    pub fn on_failure(&mut self, now: Timestamp) {
        self.state = match self.state {
            State::Closed { failures } if failures.saturating_add(1) < self.limits.failures_to_open => {
                State::Closed { failures: failures.saturating_add(1) }
            }
            State::Closed { failures: _ } => self.opened(now, self.limits.open_min),
            State::HalfOpen { give_up_at: _, span } => self.opened(now, span.saturating_mul(2)),
            // A call that had gone before it opened tells nothing new.
            open @ State::Open { until: _, span: _ } => open,
        };
    }

    fn opened(&self, now: Timestamp, span: Duration) -> State {
        let span = span.min(self.limits.open_max);
        State::Open { until: later(now, span), span }
    }

    /// What it looks like from outside.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { failures: _ } => BreakerState::Closed,
            State::Open { until, span: _ } => BreakerState::Open { until },
            State::HalfOpen { give_up_at: _, span: _ } => BreakerState::HalfOpen,
        }
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;
    const LIMITS: BreakerLimits = BreakerLimits {
        failures_to_open: 3,
        open_min: Duration::from_secs(1),
        open_max: Duration::from_secs(8),
        probe_patience: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> Timestamp {
        later(START, Duration::from_secs(seconds))
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(breaker.allow(START), Admission::Go);
            breaker.on_failure(START);
        }
        breaker
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..5 {
            breaker.on_failure(START);
            breaker.on_failure(START);
            breaker.on_success();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        let mut breaker = opened();
        assert_eq!(breaker.state(), BreakerState::Open { until: at(1) });
        assert_eq!(breaker.allow(START), Admission::Wait(at(1)));
    }

    #[test]
    fn exactly_one_probe_goes_and_its_success_closes() {
        let mut breaker = opened();
        assert_eq!(breaker.allow(at(1)), Admission::Probe);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.allow(at(2)), Admission::Wait(at(11)));
        breaker.on_success();
        assert_eq!(breaker.allow(at(2)), Admission::Go);
    }

    #[test]
    fn failing_probes_double_the_pause_up_to_the_clamp() {
        let mut breaker = opened();
        let mut now = at(1);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            assert_eq!(breaker.allow(now), Admission::Probe);
            breaker.on_failure(now);
            let Admission::Wait(until) = breaker.allow(now) else { panic!("open") };
            pauses.push(until.duration_since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [2, 4, 8, 8, 8]);
    }

    #[test]
    fn a_probe_that_never_reports_is_given_up() {
        let mut breaker = opened();
        assert_eq!(breaker.allow(at(1)), Admission::Probe);
        assert_eq!(breaker.allow(at(11)), Admission::Probe);
    }

    #[test]
    fn a_late_failure_does_not_prolong_the_pause() {
        let mut breaker = opened();
        breaker.on_failure(at(1));
        assert_eq!(breaker.allow(at(1)), Admission::Probe);
    }

    #[test]
    fn a_clock_set_back_prolongs_the_pause_by_no_more_than_its_span() {
        let mut breaker = Breaker::new(LIMITS);
        (0..3).for_each(|_| breaker.on_failure(at(7200)));
        assert_eq!(breaker.allow(START), Admission::Wait(at(1)));
        assert_eq!(breaker.allow(at(1)), Admission::Probe);
    }

    proptest! {
        #[test]
        fn whatever_happens_it_never_holds_a_call_for_longer_than_its_limits(
            steps in prop::collection::vec((0u64..20, 0u8..4), 1..100),
        ) {
            let mut breaker = Breaker::new(LIMITS);
            let mut now = START;
            for (seconds, what) in steps {
                now = later(now, Duration::from_secs(seconds));
                match what {
                    0 => breaker.on_success(),
                    1 => breaker.on_failure(now),
                    2 => {
                        let state = breaker.state();
                        let waits = breaker.waits(now);
                        prop_assert_eq!(breaker.state(), state, "asking alone changes nothing");
                        prop_assert_eq!(waits.is_some(), matches!(breaker.allow(now), Admission::Wait(_)));
                    }
                    _ => match breaker.allow(now) {
                        Admission::Go => prop_assert_eq!(breaker.state(), BreakerState::Closed),
                        Admission::Probe => prop_assert_eq!(breaker.state(), BreakerState::HalfOpen),
                        Admission::Wait(until) => {
                            prop_assert!(until > now);
                            prop_assert!(until <= later(now, LIMITS.probe_patience.max(LIMITS.open_max)));
                        }
                    },
                }
            }
            breaker.on_success();
            prop_assert_eq!(breaker.allow(now), Admission::Go);
        }

        #[test]
        fn a_probe_always_comes_once_the_pause_is_over(failures in 3u32..50) {
            let mut breaker = Breaker::new(LIMITS);
            let mut now = START;
            for _ in 0..failures {
                if let Admission::Wait(until) = breaker.allow(now) {
                    now = until;
                    prop_assert_eq!(breaker.allow(now), Admission::Probe);
                }
                breaker.on_failure(now);
            }
        }
    }
}
