//! Whether the provider does its part: calls that fail in a row, calls that fail too often, messages of which nothing is
//! heard. Pure: time is an argument. Counts only, in a window that slides; each channel by itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::kind::Kind;
use crate::domain::contact::Channel;

/// When it is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProviderRules {
    /// So many calls that fail in a row.
    pub failures_in_a_row: u32,
    /// How far back shares are reckoned.
    pub window: Duration,
    /// This share of the calls in the window, or more. Messages that fail on the way count as well.
    pub failure_share: f64,
    /// This share of the messages in the window without a receipt by the time that it is asked for, or more.
    pub receipts_missing_share: f64,
    /// So many messages one after the other of which nothing is heard, however few there are and however far apart.
    pub silent_in_a_row: u32,
    /// Of fewer than so many no share is reckoned.
    pub share_of_at_least: u32,
}

/// What was seen of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It took a message.
    Took,
    /// It did not: refused, busy, away, or nobody knows.
    Failed,
    /// A message that it took failed on the way.
    FailedLater,
    /// It told by itself how far a message got, for the first time.
    Told,
    /// It told by itself more of a message of which something was known, or the same again: its callbacks arrive.
    ToldMore,
    /// It had told nothing of a message by the time that it was asked.
    Silent,
}

/// Within which time a refusal comes again.
const AGAIN_WITHIN: Duration = Duration::from_secs(24 * 3_600);

/// How many parts the window slides in.
const SLICES: i64 = 10;

/// Good and bad in a window that slides.
#[derive(Debug, Default)]
struct Window {
    /// Number of the slice, good, bad; oldest first.
    slices: VecDeque<(i64, u32, u32)>,
}

impl Window {
    fn count(&mut self, slice: i64, is_good: bool) {
        self.forget(slice);
        if self.slices.back().is_none_or(|(last, ..)| *last != slice) {
            self.slices.push_back((slice, 0, 0));
        }
        if let Some((_, good, bad)) = self.slices.back_mut() {
            let of_it = if is_good { good } else { bad };
            *of_it = of_it.saturating_add(1);
        }
    }

    /// What is too old, and what lies ahead since the clock was set back.
    fn forget(&mut self, slice: i64) {
        self.slices.retain(|(of, ..)| (slice - SLICES + 1..=slice).contains(of));
    }

    fn sums(&mut self, slice: i64) -> (u32, u32) {
        self.forget(slice);
        let sum = |of: fn(&(i64, u32, u32)) -> u32| self.slices.iter().map(of).fold(0u32, u32::saturating_add);
        (sum(|(_, good, _)| *good), sum(|(.., bad)| *bad))
    }
}

#[derive(Debug, Default)]
struct Seen {
    in_a_row: u32,
    silent_in_a_row: u32,
    calls: Window,
    failed_later: Window,
    receipts: Window,
}

/// Watches the provider.
#[derive(Debug)]
pub struct ProviderWatch {
    rules: ProviderRules,
    channels: BTreeMap<Channel, Seen>,
    /// When a code came last, of those that may be chance once: a few of a table.
    refused: BTreeMap<u32, Timestamp>,
}

impl ProviderWatch {
    /// Has seen nothing yet.
    pub fn new(rules: ProviderRules) -> Self {
        Self { rules, channels: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Something was seen.
    pub fn see(&mut self, channel: Channel, sign: Sign, now: Timestamp) {
        let slice = self.slice(now);
        let seen = self.channels.entry(channel).or_default();
        match sign {
            Sign::Took => {
                seen.in_a_row = 0;
                seen.calls.count(slice, true);
            }
            Sign::Failed => {
                seen.in_a_row = seen.in_a_row.saturating_add(1);
                seen.calls.count(slice, false);
            }
            Sign::FailedLater => seen.failed_later.count(slice, false),
            Sign::Told => {
                seen.silent_in_a_row = 0;
                seen.receipts.count(slice, true);
            }
            // A message counts once in the share, but what comes late comes all the same.
            Sign::ToldMore => seen.silent_in_a_row = 0,
            Sign::Silent => {
                seen.silent_in_a_row = seen.silent_in_a_row.saturating_add(1);
                seen.receipts.count(slice, false);
            }
        }
    }

    /// A refusal with this code; says whether it is not the first within a day.
    pub fn comes_again(&mut self, code: u32, now: Timestamp) -> bool {
        let last = self.refused.insert(code, now);
        last.is_some_and(|last| now.duration_since(last).unsigned_abs() <= AGAIN_WITHIN)
    }

    /// What holds now, for each channel that anything was seen of.
    pub fn findings(&mut self, now: Timestamp) -> Vec<(Kind, Channel, bool)> {
        let (slice, rules) = (self.slice(now), self.rules);
        let mut findings = Vec::new();
        for (channel, seen) in &mut self.channels {
            let (took, failed) = seen.calls.sums(slice);
            let (_, failed_later) = seen.failed_later.sums(slice);
            let (told, silent) = seen.receipts.sums(slice);
            let calls = took.saturating_add(failed);
            // No more can have failed than were made.
            let in_vain = failed.saturating_add(failed_later).min(calls);
            let share_silent = rules.is_too_much(silent, told.saturating_add(silent), rules.receipts_missing_share);
            // A college with a message a day would never have enough of them for a share.
            let in_a_row = seen.silent_in_a_row >= rules.silent_in_a_row;
            findings.extend([
                (Kind::ProviderFailing, *channel, seen.in_a_row >= rules.failures_in_a_row),
                (Kind::FailureShare, *channel, rules.is_too_much(in_vain, calls, rules.failure_share)),
                (Kind::ReceiptsMissing, *channel, share_silent || in_a_row),
            ]);
        }
        findings
    }

    fn slice(&self, now: Timestamp) -> i64 {
        let length = i64::try_from(self.rules.window.as_millis()).unwrap_or(i64::MAX) / SLICES;
        now.as_millisecond().div_euclid(length.max(1))
    }
}

impl ProviderRules {
    fn is_too_much(&self, bad: u32, all: u32, share: f64) -> bool {
        all >= self.share_of_at_least.max(1) && f64::from(bad) >= share * f64::from(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: ProviderRules = ProviderRules {
        failures_in_a_row: 3,
        window: Duration::from_secs(600),
        failure_share: 0.5,
        receipts_missing_share: 0.5,
        silent_in_a_row: 5,
        share_of_at_least: 4,
    };
    const CHANNEL: Channel = Channel::Sms;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(6_000_000 + seconds).unwrap()
    }

    fn holding(watch: &mut ProviderWatch, seconds: i64) -> Vec<Kind> {
        let findings = watch.findings(at(seconds));
        findings.into_iter().filter_map(|(kind, _, holds)| holds.then_some(kind)).collect()
    }

    #[test]
    fn failures_in_a_row_count_until_one_call_is_taken() {
        let mut watch = ProviderWatch::new(ProviderRules { share_of_at_least: 100, ..RULES });
        for second in 0..2 {
            watch.see(CHANNEL, Sign::Failed, at(second));
        }
        assert_eq!(holding(&mut watch, 2), []);
        watch.see(CHANNEL, Sign::Failed, at(2));
        assert_eq!(holding(&mut watch, 9_999), [Kind::ProviderFailing], "however long ago: nobody has tried since");
        watch.see(Channel::Whatsapp, Sign::Took, at(10_000));
        assert_eq!(holding(&mut watch, 10_000), [Kind::ProviderFailing], "another channel says nothing of this one");
        watch.see(CHANNEL, Sign::Took, at(10_001));
        assert_eq!(holding(&mut watch, 10_001), []);
    }

    #[test]
    fn what_is_taken_and_fails_on_the_way_is_in_vain_as_well() {
        let mut watch = ProviderWatch::new(RULES);
        for second in 0..4 {
            watch.see(CHANNEL, Sign::Took, at(second));
        }
        watch.see(CHANNEL, Sign::FailedLater, at(10));
        assert_eq!(holding(&mut watch, 10), []);
        watch.see(CHANNEL, Sign::FailedLater, at(11));
        assert_eq!(holding(&mut watch, 11), [Kind::FailureShare]);
        assert_eq!(holding(&mut watch, 700), [], "the window has slid on");
    }

    #[test]
    fn of_a_few_messages_no_share_is_reckoned() {
        let mut watch = ProviderWatch::new(RULES);
        for second in 0..3 {
            watch.see(CHANNEL, Sign::Silent, at(second));
        }
        assert_eq!(holding(&mut watch, 3), []);
        watch.see(CHANNEL, Sign::Told, at(4));
        assert_eq!(holding(&mut watch, 4), [Kind::ReceiptsMissing]);
    }

    #[test]
    fn silence_in_a_row_counts_however_far_apart_until_something_is_heard() {
        const DAY: i64 = 86_400;
        let mut watch = ProviderWatch::new(ProviderRules { silent_in_a_row: 3, share_of_at_least: 100, ..RULES });
        for day in 0..2 {
            watch.see(CHANNEL, Sign::Silent, at(day * DAY));
        }
        assert_eq!(holding(&mut watch, DAY), []);
        watch.see(CHANNEL, Sign::Silent, at(2 * DAY));
        assert_eq!(holding(&mut watch, 3 * DAY), [Kind::ReceiptsMissing]);
        watch.see(Channel::Whatsapp, Sign::Told, at(3 * DAY));
        assert_eq!(
            holding(&mut watch, 3 * DAY),
            [Kind::ReceiptsMissing],
            "another channel's say nothing of this one's"
        );
        watch.see(CHANNEL, Sign::ToldMore, at(3 * DAY));
        assert_eq!(holding(&mut watch, 3 * DAY), [], "what comes after it was asked for comes");
        for day in 3..5 {
            watch.see(CHANNEL, Sign::Silent, at(day * DAY));
        }
        watch.see(CHANNEL, Sign::Told, at(5 * DAY));
        watch.see(CHANNEL, Sign::Silent, at(6 * DAY));
        assert_eq!(holding(&mut watch, 6 * DAY), []);
    }

    #[test]
    fn a_refusal_comes_again_within_a_day() {
        let mut watch = ProviderWatch::new(RULES);
        let seen = [(30007, 0), (30008, 1), (30007, 86_400), (30007, 200_000), (30007, 200_001)];
        let again = seen.map(|(code, seconds)| watch.comes_again(code, at(seconds)));
        assert_eq!(again, [false, false, true, false, true]);
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_what_lies_outside_the_window_never_counts(
            signs in prop::collection::vec((-700i64..900, 0u8..6), 1..300),
        ) {
            let mut watch = ProviderWatch::new(RULES);
            let mut now = 0;
            for (pause, sign) in signs {
                now += pause;
                const SIGNS: [Sign; 6] =
                    [Sign::Took, Sign::Failed, Sign::FailedLater, Sign::Told, Sign::ToldMore, Sign::Silent];
                let sign = SIGNS[usize::from(sign)];
                watch.see(CHANNEL, sign, at(now));
                watch.findings(at(now));
                let seen = &watch.channels[&CHANNEL];
                for window in [&seen.calls, &seen.failed_later, &seen.receipts] {
                    prop_assert!(window.slices.len() <= SLICES as usize);
                }
            }
            // What counts in a row has no window.
            let (silent, later) = (watch.channels[&CHANNEL].silent_in_a_row, watch.findings(at(now + 601)));
            let silence = silent >= RULES.silent_in_a_row;
            let lasts = |kind| kind == Kind::ProviderFailing || (kind == Kind::ReceiptsMissing && silence);
            prop_assert!(later.iter().all(|(kind, _, holds)| lasts(*kind) || !holds));
        }
    }
}
