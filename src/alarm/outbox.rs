//! What waits to be told to one target, and when it may be tried. Pure: time and jitter are arguments.
//!
//! A target that is away costs a bounded queue and nothing else. What waits is told in order; of one condition that goes
//! on, only the newest is kept. Beyond the bound the oldest repetition makes room, else the oldest notice.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::board::{News, Notice};

/// How many notices wait at the most.
const WAITING_MAX: usize = 256;
/// The first pause after a failure; it doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest time for which a target is left alone by our own settings.
const REST_MAX: Duration = Duration::from_secs(3_600);
/// The longest pause, also where the target asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What waits for one target.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Notice>,
    failures: u32,
    not_before: Option<Timestamp>,
    lost: u64,
}

impl Outbox {
    /// A notice is to be told.
    pub fn push(&mut self, notice: Notice) {
        if notice.news == News::GoesOn {
            // The target has not even heard of the last one: that one tells it, with the count of now.
            let newest = self.waiting.iter_mut().rev().find(|waiting| waiting.key == notice.key);
            if let Some(waiting) = newest.filter(|waiting| !matches!(waiting.news, News::Ended(_))) {
                waiting.times = notice.times;
                return;
            }
        }
        self.waiting.push_back(notice);
        if self.waiting.len() > WAITING_MAX {
            let repetition = self.waiting.iter().position(|waiting| waiting.news == News::GoesOn);
            self.waiting.remove(repetition.unwrap_or(0));
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Takes up to `count` notices out, if any may be told now.
    pub fn take(&mut self, now: Timestamp, count: usize) -> Vec<Notice> {
        if self.due_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let count = count.min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }

    /// What was taken was told; or the target refused it, and would refuse it again. Then it is left alone for `rest`.
    pub fn told(&mut self, now: Timestamp, rest: Duration) {
        self.failures = 0;
        self.not_before = (!rest.is_zero()).then(|| later(now, rest));
    }

    /// What was taken had no turn yet: it is put back until it has.
    pub fn held_back(&mut self, notices: Vec<Notice>, now: Timestamp, wait: Duration) {
        self.restore(notices);
        self.not_before = Some(later(now, wait.min(PAUSE_MAX)));
    }

    /// What was taken was not told: it is put back, and tried again after a pause.
    pub fn put_back(&mut self, notices: Vec<Notice>, now: Timestamp, asked: Option<Duration>, jitter: f64) {
        self.restore(notices);
        let longest = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        // Half of it is certain, so that a target that is down is not asked at once.
        let pause = longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)).max(asked.unwrap_or_default()).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(later(now, pause));
    }

    fn restore(&mut self, notices: Vec<Notice>) {
        for notice in notices.into_iter().rev() {
            self.waiting.push_front(notice);
        }
        while self.waiting.len() > WAITING_MAX {
            self.waiting.pop_back();
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// When something may be told next; `None` if nothing waits. A clock that was set back is followed.
    pub fn due_at(&self) -> Option<Timestamp> {
        let at = self.not_before.unwrap_or(Timestamp::MIN);
        (!self.waiting.is_empty()).then_some(at)
    }

    /// Where the clock was set back, nothing waits until it has caught up.
    pub fn pull_in(&mut self, now: Timestamp) {
        let latest = later(now, REST_MAX);
        self.not_before = self.not_before.map(|at| at.min(latest));
    }

    /// How many notices were lost since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Whether the last try failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::board::{About, Ending, Key};
    use super::super::kind::Kind;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn notice(code: u32, news: News, times: u64) -> Notice {
        let key = Key { kind: Kind::ProviderRefused, about: About::Code(Some(code)) };
        Notice { key, news, at: at(0), began_at: at(0), times }
    }

    #[test]
    fn a_repetition_of_what_still_waits_is_not_told_twice() {
        let mut outbox = Outbox::default();
        outbox.push(notice(1, News::Began, 1));
        outbox.push(notice(2, News::Began, 1));
        outbox.push(notice(1, News::GoesOn, 9));
        outbox.push(notice(1, News::Ended(Ending::Over), 9));
        outbox.push(notice(1, News::Began, 1));
        let told: Vec<_> = outbox.take(at(0), 10).into_iter().map(|told| (told.news, told.times)).collect();
        let ended = News::Ended(Ending::Over);
        assert_eq!(told, [(News::Began, 9), (News::Began, 1), (ended, 9), (News::Began, 1)]);
    }

    #[test]
    fn a_target_that_is_away_is_asked_less_and_less_often_and_never_given_up() {
        let mut outbox = Outbox::default();
        outbox.push(notice(1, News::Began, 1));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..12 {
            let taken = outbox.take(now, 1);
            assert_eq!(taken.len(), 1);
            outbox.put_back(taken, now, None, 1.0);
            assert!(outbox.take(now, 1).is_empty());
            let next = outbox.due_at().unwrap();
            pauses.push(next.duration_since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        outbox.told(now, Duration::ZERO);
        assert!(!outbox.is_failing());
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bound_and_loses_nothing_before_and_never_the_newest_beginning_or_end(
            pushes in prop::collection::vec((0u32..400, 0u8..3), 1..600),
        ) {
            let mut outbox = Outbox::default();
            let count = pushes.len();
            for (code, news) in pushes {
                let news = match news { 0 => News::Began, 1 => News::GoesOn, _ => News::Ended(Ending::Over) };
                outbox.push(notice(code, news, 1));
                prop_assert!(outbox.waiting.len() <= WAITING_MAX);
                let is_it = |waiting: &Notice| waiting.key == notice(code, news, 1).key;
                prop_assert!(news == News::GoesOn || outbox.waiting.back().is_some_and(is_it));
            }
            let (waiting, lost) = (outbox.waiting.len(), outbox.take_lost());
            prop_assert!(lost == 0 || waiting == WAITING_MAX);
            prop_assert!(waiting as u64 + lost <= count as u64);
            let taken = (0..).map(|_| outbox.take(at(0), 7).len()).take_while(|taken| *taken > 0).sum::<usize>();
            prop_assert_eq!(taken, waiting);
        }
    }
}
