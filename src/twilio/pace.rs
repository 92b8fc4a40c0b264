//! How fast to send: a rate with a burst, as a pure reservation book (GCRA, the leaky bucket as a meter).
//!
//! [`Pace::reserve`] always grants, and says how long to wait first: a message of this service is never turned away
//! for being too fast, it only waits its turn. Source of the algorithm: ITU-T I.371, annex A.
//!
//! Typical rates: a long code sends about 1 segment a second, a WhatsApp sender 80 messages, the sandbox one every 3 s.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const NANOS_PER_SECOND: f64 = 1e9;
/// One message in 1000 seconds.
const SLOWEST: f64 = 0.001;
/// A million a second: as good as no limit.
const FASTEST: f64 = 1e6;

/// A rate with a burst, and what has been reserved of it.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Time from one message to the next at the sustained rate.
    interval: SignedDuration,
    /// How far ahead of the sustained rate a burst may run.
    tolerance: SignedDuration,
    /// When the bucket is empty again, and the time of the last call. `None` before the first.
    book: Option<Book>,
}

#[derive(Debug, Clone, Copy)]
struct Book {
    theoretical_arrival: Timestamp,
    last_call: Timestamp,
}

impl Pace {
    /// `per_second` messages sustained (held to 0.001..=1 000 000; not-a-number counts as the slowest), of which
    /// `burst` may go at once (at least 1).
    pub fn new(per_second: f64, burst: u32) -> Self {
        let per_second = if per_second.is_nan() { SLOWEST } else { per_second.clamp(SLOWEST, FASTEST) };
        // Between 1 µs and 1000 s, so the conversion is exact enough and cannot overflow.
        let interval = SignedDuration::from_nanos((NANOS_PER_SECOND / per_second).ceil() as i64);
        let ahead = i32::try_from(burst.max(1) - 1).unwrap_or(i32::MAX);
        Self { interval, tolerance: interval.saturating_mul(ahead), book: None }
    }

    /// Reserves the next place and says how long to wait before using it. The place is taken even if it is not used.
    ///
    /// A clock that is set back shifts the book with it; otherwise a corrected clock would hold every message.
    pub fn reserve(&mut self, now: Timestamp) -> Duration {
        let (booked, wait) = self.next_place(now);
        self.book = Some(Book { theoretical_arrival: shift(booked, self.interval), last_call: now });
        wait
    }

    /// Reserves the next place if it comes within `patience`.
    ///
    /// # Errors
    /// How long the wait would be. Nothing is taken then: if those who cannot wait took places all the same, the book
    /// would run ahead of the sender for good, and nobody could wait any more.
    pub fn reserve_within(&mut self, now: Timestamp, patience: Duration) -> Result<Duration, Duration> {
        let (_, wait) = self.next_place(now);
        if wait > patience { Err(wait) } else { Ok(self.reserve(now)) }
    }

    /// Takes the place that is free just now, if another one is left behind it (or if there never are two): for messages
    /// that must not hold up others.
    ///
    /// # Errors
    /// How long it takes until there is such a place, if nobody else takes it. Nothing is taken.
    pub fn take_spare(&mut self, now: Timestamp) -> Result<(), Duration> {
        let (booked, _) = self.next_place(now);
        let behind = shift(booked, self.interval.min(self.tolerance));
        let wait = behind.duration_since(now).saturating_sub(self.tolerance);
        match Duration::try_from(wait.max(SignedDuration::ZERO)).unwrap_or_default() {
            Duration::ZERO => {
                self.reserve(now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// When the next place is, and how long to wait for it.
    fn next_place(&self, now: Timestamp) -> (Timestamp, Duration) {
        let booked = match self.book {
            None => now,
            Some(Book { theoretical_arrival, last_call }) => {
                let set_back = last_call.duration_since(now).max(SignedDuration::ZERO);
                shift(theoretical_arrival, -set_back).max(now)
            }
        };
        let wait = booked.duration_since(now).saturating_sub(self.tolerance);
        (booked, Duration::try_from(wait.max(SignedDuration::ZERO)).unwrap_or_default())
    }
}

/// `at + by`, held within what a timestamp can say.
fn shift(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(millis: i64) -> Timestamp {
        shift(START, SignedDuration::from_millis(millis))
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let mut pace = Pace::new(2.0, 3);
        let waits: Vec<_> = (0..6).map(|_| pace.reserve(START).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500, 1000, 1500]);
    }

    #[test]
    fn who_cannot_wait_takes_no_place() {
        let mut pace = Pace::new(2.0, 1);
        assert_eq!(pace.reserve_within(START, Duration::ZERO), Ok(Duration::ZERO));
        for _ in 0..100 {
            assert_eq!(pace.reserve_within(START, Duration::from_millis(499)), Err(Duration::from_millis(500)));
        }
        assert_eq!(pace.reserve_within(START, Duration::from_millis(500)), Ok(Duration::from_millis(500)));
        assert_eq!(pace.reserve(START), Duration::from_secs(1));
    }

    #[test]
    fn what_takes_only_spare_places_leaves_one_and_never_waits_in_the_book() {
        let mut pace = Pace::new(2.0, 3);
        assert_eq!((pace.take_spare(START), pace.take_spare(START)), (Ok(()), Ok(())));
        for _ in 0..100 {
            assert_eq!(pace.take_spare(START), Err(Duration::from_millis(500)));
        }
        assert_eq!(pace.reserve(START), Duration::ZERO);
        // Where one place is all there is, it is taken when it is free.
        let mut single = Pace::new(1.0, 1);
        assert_eq!(single.take_spare(START), Ok(()));
        assert_eq!(single.take_spare(at(400)), Err(Duration::from_millis(600)));
        assert_eq!(single.take_spare(at(1_000)), Ok(()));
    }

    #[test]
    fn an_idle_time_earns_no_more_than_one_burst() {
        let mut pace = Pace::new(1.0, 2);
        pace.reserve(START);
        let later = at(3_600_000);
        let waits: Vec<_> = (0..4).map(|_| pace.reserve(later).as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2]);
    }

    #[test]
    fn a_clock_set_back_does_not_hold_messages() {
        let mut pace = Pace::new(1.0, 1);
        pace.reserve(at(7_200_000));
        assert_eq!(pace.reserve(at(0)), Duration::from_secs(1));
        assert_eq!(pace.reserve(at(0)), Duration::from_secs(2));
    }

    #[test]
    fn senseless_rates_still_let_messages_through() {
        for rate in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0] {
            let mut pace = Pace::new(rate, 0);
            assert_eq!(pace.reserve(START), Duration::ZERO);
            assert_eq!(pace.reserve(START), Duration::from_secs(1000), "{rate}");
        }
        assert!(Pace::new(f64::INFINITY, u32::MAX).reserve(START).is_zero());
        let mut slow = Pace::new(0.0, u32::MAX);
        assert!(slow.reserve(Timestamp::MAX).is_zero() && slow.reserve(Timestamp::MIN) < Duration::MAX);
    }

    proptest! {
        #[test]
        fn no_window_ever_sees_more_than_its_burst_and_rate(
            per_second in 0.5f64..50.0,
            burst in 1u32..10,
            gaps in prop::collection::vec(0u64..2_000, 1..60),
        ) {
            let mut pace = Pace::new(per_second, burst);
            let mut now = START;
            let mut sent = Vec::new();
            for gap in gaps {
                now = shift(now, SignedDuration::from_millis(gap as i64));
                sent.push(shift(now, SignedDuration::try_from(pace.reserve(now)).unwrap()));
            }
            prop_assert!(sent.is_sorted(), "reservations keep their order");
            for (first, from) in sent.iter().enumerate() {
                for (last, to) in sent.iter().enumerate().skip(first) {
                    let allowed = to.duration_since(*from).as_secs_f64() * per_second + f64::from(burst);
                    prop_assert!((last - first + 1) as f64 <= allowed + 1e-6);
                }
            }
        }

        #[test]
        fn whatever_is_taken_of_spare_places_who_comes_first_waits_as_if_it_were_idle(
            per_second in 0.5f64..50.0,
            burst in 2u32..10,
            gaps in prop::collection::vec(0u64..2_000, 1..60),
        ) {
            let mut pace = Pace::new(per_second, burst);
            let mut now = START;
            for gap in gaps {
                now = shift(now, SignedDuration::from_millis(gap as i64));
                while pace.take_spare(now).is_ok() {}
                prop_assert_eq!(pace.clone().reserve(now), Duration::ZERO);
            }
        }

        #[test]
        fn whoever_keeps_to_the_rate_never_waits(per_second in 0.5f64..50.0, steps in 1usize..50) {
            let mut pace = Pace::new(per_second, 1);
            let step = SignedDuration::from_nanos((1e9 / per_second).ceil() as i64);
            let mut now = START;
            for _ in 0..steps {
                prop_assert!(pace.reserve(now).is_zero());
                now = shift(now, step);
            }
        }
    }
}
