//! How many messages each phone got of late: so that no phone is flooded by what can wait, and so that it can be told when one
//! was flooded by what cannot. Pure: time is an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::ids::AddressKey;

/// The time that is looked back.
const WINDOW: Duration = Duration::from_secs(60);
/// How many phones are kept apart at the most; those that were told longest ago make room.
const PHONES_MAX: usize = 4_096;

/// Whether phones get too many messages.
pub trait PhonePace: Sync {
    /// How long it takes until this phone may get one more of what can wait; zero if it may now.
    fn wait(&self, phone: AddressKey, now: Timestamp) -> Duration;
}

/// Nobody counts.
impl PhonePace for () {
    fn wait(&self, _: AddressKey, _: Timestamp) -> Duration {
        Duration::ZERO
    }
}

/// The messages of the last minute, by phone.
#[derive(Debug)]
pub struct Crowd {
    per_minute: usize,
    phones: BTreeMap<AddressKey, VecDeque<Timestamp>>,
}

impl Crowd {
    /// So many messages a minute are enough for a phone.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: (per_minute as usize).max(1), phones: BTreeMap::new() }
    }

    /// How long it takes until the phone may get one more; zero if it may now. What lies ahead of a clock that was set back
    /// does not count.
    pub fn wait(&self, phone: AddressKey, now: Timestamp) -> Duration {
        let Some(told) = self.phones.get(&phone) else { return Duration::ZERO };
        let recent = || told.iter().filter_map(|at| age(*at, now)).filter(|age| *age < WINDOW);
        if recent().count() < self.per_minute {
            return Duration::ZERO;
        }
        recent().max().map_or(Duration::ZERO, |oldest| WINDOW.saturating_sub(oldest))
    }

    /// The phone gets a message.
    pub fn told(&mut self, phone: AddressKey, now: Timestamp) {
        let told = self.phones.entry(phone).or_default();
        told.push_back(now);
        if told.len() > self.per_minute {
            told.pop_front();
        }
        if self.phones.len() > PHONES_MAX {
            self.forget(now);
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let is_recent =
            |told: &VecDeque<Timestamp>| told.back().and_then(|at| age(*at, now)).is_some_and(|age| age < WINDOW);
        self.phones.retain(|_, told| is_recent(told));
        if self.phones.len() > PHONES_MAX {
            let longest_ago = self.phones.iter().min_by_key(|(_, told)| told.back().copied()).map(|(phone, _)| *phone);
            longest_ago.map(|phone| self.phones.remove(&phone));
        }
    }
}

/// `None`: it lies ahead.
fn age(at: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(at)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn phone(number: u32) -> AddressKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        AddressKey::from_bytes(key)
    }

    #[test]
    fn a_phone_is_full_for_as_long_as_its_minute_lasts_and_no_other_is() {
        let mut crowd = Crowd::new(3);
        for second in [0, 10, 20] {
            assert_eq!(crowd.wait(phone(1), at(second)), Duration::ZERO);
            crowd.told(phone(1), at(second));
        }
        assert_eq!(crowd.wait(phone(1), at(20)), Duration::from_secs(40));
        assert_eq!(crowd.wait(phone(2), at(20)), Duration::ZERO);
        assert_eq!(crowd.wait(phone(1), at(60)), Duration::ZERO);
        assert_eq!(crowd.wait(phone(1), at(0)), Duration::ZERO, "the clock was set back");
    }

    #[test]
    fn memory_is_bounded() {
        let mut crowd = Crowd::new(1);
        for number in 0..2 * PHONES_MAX as u32 {
            crowd.told(phone(number), at(0));
        }
        assert!(crowd.phones.len() <= PHONES_MAX);
    }

    proptest! {
        #[test]
        fn who_waits_as_told_never_gets_more_than_enough_in_a_minute(
            per_minute in 1u32..6,
            pauses in prop::collection::vec(0u64..40, 1..60),
        ) {
            let mut crowd = Crowd::new(per_minute);
            let (mut now, mut told) = (at(0), Vec::new());
            for pause in pauses {
                now += Duration::from_secs(pause);
                now += crowd.wait(phone(1), now);
                prop_assert_eq!(crowd.wait(phone(1), now), Duration::ZERO);
                crowd.told(phone(1), now);
                told.push(now);
            }
            for window in told.windows(per_minute as usize + 1) {
                prop_assert!(window[window.len() - 1].duration_since(window[0]).as_secs() >= 60);
            }
        }
    }
}
