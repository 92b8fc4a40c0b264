//! The board: what is wrong just now, and when the operator is told of it. Pure: time is an argument.
//!
//! ```text
//!   (not there) --seen--> Begun ......... told: it began
//!        ^                  |  ^
//!        |                  |  '-- goes on: told again after `repeat_every`
//!        |                  |
//!        |   over, and away for `settle_for`;  or not seen for as long as its kind says
//!        '------------------'............ told: it is over
//! ```
//!
//! A condition is an alarm and what it is about. It is told once when it begins, again and again while it goes on, and once
//! when it is over. What comes and goes within `settle_for` is one condition, so that a fault that flaps does not ring at each
//! turn. Memory is bounded: where too many conditions are open, further ones of a kind share one, but for those that are
//! looked for again and again: they are few, and each is over by its own name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::kind::{Kind, Lasting};
use crate::domain::contact::Channel;
use crate::domain::ids::{AlertId, ContactId, Reference};

/// What an alarm is about. Two alarms of one kind about the same thing are one condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// The service as a whole.
    Service,
    /// One case.
    Case(AlertId, Reference),
    /// One person on the ladder. Notices do not name them; the log does.
    Contact(ContactId),
    /// One channel.
    Channel(Channel),
    /// Refusals with one of the provider's codes.
    Code(Option<u32>),
    /// Something that the configuration names by an id. Notices do not show it; the log does.
    Named(Arc<str>),
    /// Many things: more conditions are open than are kept apart.
    Many,
}

/// A condition's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What is wrong.
    pub kind: Kind,
    /// With what.
    pub about: About,
}

/// How the board behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long after it was told a condition that goes on is told again.
    pub repeat_every: Duration,
    /// How long a condition that comes and goes must stay away to count as over.
    pub settle_for: Duration,
    /// How many conditions are kept apart at the most.
    pub conditions_max: usize,
}

/// How a condition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is known to be over.
    Over,
    /// It was not seen for so long that it counts as over.
    NotSeen,
}

/// What is told of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It began.
    Began,
    /// It goes on.
    GoesOn,
    /// It is over.
    Ended(Ending),
}

/// One thing to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Of which condition.
    pub key: Key,
    /// What.
    pub news: News,
    /// When this was found.
    pub at: Timestamp,
    /// When the condition began.
    pub began_at: Timestamp,
    /// How often it was seen so far.
    pub times: u64,
}

#[derive(Debug, Clone)]
struct Condition {
    began_at: Timestamp,
    seen_at: Timestamp,
    told_at: Timestamp,
    /// Since when it is said to be over, and has not been seen again.
    over_at: Option<Timestamp>,
    times: u64,
    /// It was seen since it was told.
    seen_since: bool,
}

impl Condition {
    fn notice(&self, key: Key, news: News, at: Timestamp) -> Notice {
        Notice { key, news, at, began_at: self.began_at, times: self.times }
    }

    /// The clock is followed: where it was set back, nothing lies in the future.
    fn pull_in(&mut self, now: Timestamp) {
        for at in [&mut self.began_at, &mut self.seen_at, &mut self.told_at].into_iter().chain(&mut self.over_at) {
            *at = (*at).min(now);
        }
    }

    fn is_due_again(&self, lasting: Lasting, now: Timestamp, rules: &Rules) -> bool {
        let goes_on = match lasting {
            Lasting::UntilOver => self.over_at.is_none(),
            Lasting::UntilSettled(_) | Lasting::WhileSeen(_) => self.seen_since,
        };
        goes_on && has_passed(self.told_at, rules.repeat_every, now)
    }

    fn ending(&self, lasting: Lasting, now: Timestamp, rules: &Rules) -> Option<Ending> {
        let over = self.over_at.is_some_and(|at| has_passed(at, settle_for(lasting, rules), now));
        let not_seen = match lasting {
            Lasting::UntilOver => false,
            Lasting::UntilSettled(after) | Lasting::WhileSeen(after) => has_passed(self.seen_at, after, now),
        };
        match (over, not_seen) {
            (true, _) => Some(Ending::Over),
            (false, true) => Some(Ending::NotSeen),
            (false, false) => None,
        }
    }
}

/// A case that a human has taken is taken; only what comes and goes by itself has to stay away.
fn settle_for(lasting: Lasting, rules: &Rules) -> Duration {
    match lasting {
        Lasting::UntilOver => rules.settle_for,
        Lasting::UntilSettled(_) | Lasting::WhileSeen(_) => Duration::ZERO,
    }
}

fn has_passed(since: Timestamp, span: Duration, now: Timestamp) -> bool {
    SignedDuration::try_from(span).is_ok_and(|span| now.duration_since(since) >= span)
}

/// What is wrong just now.
#[derive(Debug)]
pub struct Board {
    rules: Rules,
    conditions: BTreeMap<Key, Condition>,
}

impl Board {
    /// A board on which nothing stands.
    pub fn new(rules: Rules) -> Self {
        Self { rules, conditions: BTreeMap::new() }
    }

    /// A condition is seen. Returns what is to be told of it now.
    pub fn seen(&mut self, key: Key, now: Timestamp) -> Option<Notice> {
        let key = self.kept_apart(key);
        let rules = self.rules;
        let Some(condition) = self.conditions.get_mut(&key) else {
            let condition =
                Condition { began_at: now, seen_at: now, told_at: now, over_at: None, times: 1, seen_since: false };
            let notice = condition.notice(key.clone(), News::Began, now);
            self.conditions.insert(key, condition);
            return Some(notice);
        };
        condition.pull_in(now);
        condition.seen_at = now;
        condition.over_at = None;
        condition.times = condition.times.saturating_add(1);
        condition.seen_since = true;
        if !condition.is_due_again(key.kind.lasting(), now, &rules) {
            return None;
        }
        Some(tell_again(condition, key, now))
    }

    /// A condition is over; it may not have been there. Returns what is to be told now: what comes and goes is told by a
    /// later [`Board::tick`], if it stays away.
    pub fn over(&mut self, key: &Key, now: Timestamp) -> Option<Notice> {
        let rules = self.rules;
        let condition = self.conditions.get_mut(key)?;
        condition.pull_in(now);
        condition.over_at.get_or_insert(now);
        let ending = condition.ending(key.kind.lasting(), now, &rules)?;
        self.end(key, ending, now)
    }

    /// A human has taken or closed a case: whatever was wrong with it is over.
    pub fn settled(&mut self, case: AlertId, now: Timestamp) -> Vec<Notice> {
        let of_it = |key: &&Key| key.kind.is_of_a_case() && matches!(key.about, About::Case(id, _) if id == case);
        let keys: Vec<Key> = self.conditions.keys().filter(of_it).cloned().collect();
        keys.iter().filter_map(|key| self.over(key, now)).collect()
    }

    /// Time has passed: what goes on is told again, and what is over is told and forgotten.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Notice> {
        let rules = self.rules;
        let (mut notices, mut ended) = (Vec::new(), Vec::new());
        for (key, condition) in &mut self.conditions {
            condition.pull_in(now);
            let lasting = key.kind.lasting();
            if let Some(ending) = condition.ending(lasting, now, &rules) {
                ended.push((key.clone(), ending));
            } else if condition.is_due_again(lasting, now, &rules) {
                notices.push(tell_again(condition, key.clone(), now));
            }
        }
        notices.extend(ended.into_iter().filter_map(|(key, ending)| self.end(&key, ending, now)));
        notices
    }

    /// How many conditions of a kind are open.
    pub fn open(&self, kind: Kind) -> usize {
        self.conditions.keys().filter(|key| key.kind == kind).count()
    }

    /// Whether nothing is wrong with any case: then nobody needs to look for what is over with one.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    fn end(&mut self, key: &Key, ending: Ending, now: Timestamp) -> Option<Notice> {
        let condition = self.conditions.remove(key)?;
        Some(condition.notice(key.clone(), News::Ended(ending), now))
    }

    /// The key, or where too many are open the one that further conditions of its kind share.
    fn kept_apart(&self, key: Key) -> Key {
        // What lasts until it is said to be over is said so by its own name, and what is looked for again and again is no
        // more than the service and its configuration have parts.
        let is_looked_for = key.kind.lasting() == Lasting::UntilOver;
        if is_looked_for || self.conditions.contains_key(&key) || self.conditions.len() < self.rules.conditions_max {
            return key;
        }
        Key { kind: key.kind, about: About::Many }
    }
}

fn tell_again(condition: &mut Condition, key: Key, now: Timestamp) -> Notice {
    condition.told_at = now;
    condition.seen_since = false;
    condition.notice(key, News::GoesOn, now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules =
        Rules { repeat_every: Duration::from_secs(600), settle_for: Duration::from_secs(60), conditions_max: 6 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn case(number: u8) -> Key {
        let id = AlertId::new(Timestamp::UNIX_EPOCH, [number; 10]);
        Key { kind: Kind::LadderExhausted, about: About::Case(id, Reference::new([number; 5])) }
    }

    fn refusal() -> Key {
        Key { kind: Kind::ProviderRefused, about: About::Code(Some(63016)) }
    }

    #[test]
    fn what_goes_on_is_told_once_and_again_only_after_its_time() {
        let mut board = Board::new(RULES);
        assert_eq!(board.seen(refusal(), at(0)).unwrap().news, News::Began);
        for second in [1, 100, 599] {
            assert_eq!(board.seen(refusal(), at(second)), None);
        }
        let again = board.tick(at(600));
        assert_eq!((again[0].news, again[0].times, again[0].began_at), (News::GoesOn, 4, at(0)));
        // Not seen since: nothing says that it goes on.
        assert_eq!(board.tick(at(1_200)), []);
        assert_eq!(board.seen(refusal(), at(1_300)).unwrap().news, News::GoesOn);
    }

    #[test]
    fn what_is_not_seen_any_more_is_over_by_itself() {
        let mut board = Board::new(RULES);
        board.seen(refusal(), at(0));
        assert_eq!(board.tick(at(3_599)), []);
        let over = board.tick(at(3_600));
        assert_eq!((over.len(), over[0].news), (1, News::Ended(Ending::NotSeen)));
        assert!(board.is_empty());
    }

    #[test]
    fn a_case_that_is_taken_ends_all_that_is_wrong_with_it_and_nothing_else() {
        let mut board = Board::new(RULES);
        let About::Case(id, reference) = case(1).about else { panic!("a case") };
        let other = Key { kind: Kind::NobodyToTell, about: About::Case(id, reference) };
        for key in [case(1), other, case(2), refusal()] {
            board.seen(key, at(0));
        }
        let over: Vec<_> = board.settled(id, at(5)).into_iter().map(|notice| notice.key.kind).collect();
        assert_eq!(over, [Kind::LadderExhausted, Kind::NobodyToTell]);
        assert_eq!((board.open(Kind::LadderExhausted), board.open(Kind::ProviderRefused)), (1, 1));
    }

    #[test]
    fn conditions_beyond_the_bound_share_one_of_their_kind() {
        let mut board = Board::new(RULES);
        for number in 0..6 {
            assert!(board.seen(case(number), at(0)).is_some());
        }
        let shared = board.seen(case(6), at(0)).unwrap();
        assert_eq!((shared.news, shared.key.about), (News::Began, About::Many));
        assert_eq!(board.seen(case(7), at(0)), None);
        assert_eq!(board.seen(refusal(), at(0)).unwrap().key.about, About::Many);
    }

    #[test]
    fn what_is_looked_for_again_and_again_is_over_also_where_it_began_while_too_much_was_open() {
        let mut board = Board::new(RULES);
        for number in 0..6 {
            board.seen(case(number), at(0));
        }
        let late = Key { kind: Kind::WorkLate, about: About::Service };
        assert_eq!(board.seen(late.clone(), at(0)).unwrap().key, late);
        assert_eq!(board.over(&late, at(10)), None);
        let over: Vec<_> = board.tick(at(70)).into_iter().map(|notice| (notice.key, notice.news)).collect();
        assert_eq!(over, [(late, News::Ended(Ending::Over))]);
        assert_eq!(board.open(Kind::WorkLate), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Seen(usize),
        Over(usize),
        Settled(u8),
        Tick,
    }

    fn keys() -> Vec<Key> {
        let service = |kind| Key { kind, about: About::Service };
        let mut keys: Vec<Key> = (0..6).map(case).collect();
        keys.extend([refusal(), service(Kind::SealedDataUnreadable), service(Kind::Test)]);
        keys.extend(Kind::ALL.iter().copied().filter(|kind| kind.lasting() == Lasting::UntilOver).map(service));
        keys
    }

    fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
        let count = keys().len();
        let step = prop_oneof![
            4 => (0..count).prop_map(Step::Seen),
            2 => (0..count).prop_map(Step::Over),
            1 => (0u8..6).prop_map(Step::Settled),
            3 => Just(Step::Tick),
        ];
        // Mostly small pauses, sometimes long ones, sometimes a clock that is set back.
        let pause = prop_oneof![6 => 0i64..120, 2 => 0i64..5_000, 1 => -5_000i64..0];
        prop::collection::vec((pause, step), 1..200)
    }

    proptest! {
        #[test]
        fn whatever_comes_each_condition_is_told_in_order_not_too_often_and_to_its_end(steps in steps()) {
            let (mut board, keys, mut now) = (Board::new(RULES), keys(), 0i64);
            let mut told: BTreeMap<Key, (i64, u64)> = BTreeMap::new();
            for (pause, step) in steps {
                now += pause;
                // By a clock that was set back, what was told is at the latest now.
                told.values_mut().for_each(|(at, _)| *at = (*at).min(now));
                let notices: Vec<Notice> = match &step {
                    Step::Seen(which) => board.seen(keys[*which].clone(), at(now)).into_iter().collect(),
                    Step::Over(which) => board.over(&keys[*which], at(now)).into_iter().collect(),
                    Step::Settled(number) => {
                        let About::Case(id, _) = case(*number).about else { unreachable!("a case") };
                        board.settled(id, at(now))
                    }
                    Step::Tick => board.tick(at(now)),
                };
                for notice in notices {
                    prop_assert!(notice.began_at <= notice.at && notice.times >= 1);
                    let before = told.get(&notice.key).copied();
                    match (notice.news, before) {
                        (News::Began, None) => { told.insert(notice.key, (now, notice.times)); }
                        (News::GoesOn, Some((last, times))) => {
                            prop_assert!(now - last >= 600, "told again after {} s", now - last);
                            prop_assert!(notice.times >= times);
                            told.insert(notice.key, (now, notice.times));
                        }
                        (News::Ended(_), Some(_)) => { told.remove(&notice.key); }
                        (news, before) => prop_assert!(false, "{news:?} after {before:?}"),
                    }
                }
                prop_assert!(board.conditions.len() <= RULES.conditions_max + Kind::ALL.len(), "bounded");
                prop_assert_eq!(told.keys().collect::<Vec<_>>(), board.conditions.keys().collect::<Vec<_>>());
                if let Step::Seen(which) = step {
                    let many = Key { kind: keys[which].kind, about: About::Many };
                    prop_assert!(told.contains_key(&keys[which]) || told.contains_key(&many), "nothing is swallowed");
                }
                if let Step::Tick = step {
                    for (key, condition) in &board.conditions {
                        let silent = at(now).duration_since(condition.told_at).as_secs();
                        let goes_on = condition.over_at.is_none()
                            && (condition.seen_since || key.kind.lasting() == Lasting::UntilOver);
                        prop_assert!(!goes_on || silent < 600, "silent for {silent} s");
                    }
                }
            }
            // Everything is over, and stays away: everything is told as over.
            for key in board.conditions.keys().cloned().collect::<Vec<_>>() {
                if let Some(ended) = board.over(&key, at(now)) {
                    told.remove(&ended.key);
                }
            }
            for ended in board.tick(at(now + 4 * 3_600)) {
                prop_assert!(matches!(ended.news, News::Ended(_)));
                told.remove(&ended.key);
            }
            prop_assert!(told.is_empty() && board.is_empty());
        }
    }
}
