//! What is remembered of documents, so that a change need not read them again.
//!
//! A change is guarded by the document's update time, but callers know only versions. So each read and each commit
//! leaves the pair here. It is a short cut: whatever is not here is read, and what is stale only makes the commit fail
//! and be tried again with what is read then.

use std::collections::HashMap;

use firestore::gcloud_sdk::prost_types::Timestamp;
use parking_lot::Mutex;

/// What is known of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The version that stands in it.
    pub(super) version: u64,
    /// When it was last changed, by Firestore's count.
    pub(super) update_time: Timestamp,
    /// Whether the alert is open; `true` for what is no alert.
    pub(super) open: bool,
}

/// How many documents each generation holds: some hundred bytes for each.
const GENERATION: usize = 8192;

/// Two generations: what is used moves to the younger, and when that is full the elder is dropped.
#[derive(Debug, Default)]
pub(super) struct Stamps(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Stamp>,
    old: HashMap<String, Stamp>,
}

impl Stamps {
    /// Remembers a document, unless something newer is known of it.
    pub(super) fn keep(&self, name: &str, stamp: Stamp) {
        let mut generations = self.0.lock();
        let Generations { young, old } = &mut *generations;
        if let Some(known) = young.get_mut(name) {
            if newer(&stamp, known) {
                *known = stamp;
            }
            return;
        }
        let stamp = old.remove(name).filter(|known| !newer(&stamp, known)).unwrap_or(stamp);
        if young.len() >= GENERATION {
            *old = std::mem::take(young);
        }
        young.insert(name.to_owned(), stamp);
    }

    /// What is known of a document at this very version.
    pub(super) fn at(&self, name: &str, version: u64) -> Option<Stamp> {
        let generations = self.0.lock();
        let found = generations.young.get(name).or_else(|| generations.old.get(name));
        found.copied().filter(|stamp| stamp.version == version)
    }
}

fn newer(one: &Stamp, than: &Stamp) -> bool {
    (one.update_time.seconds, one.update_time.nanos) > (than.update_time.seconds, than.update_time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64) -> Stamp {
        let seconds = i64::try_from(version).unwrap();
        Stamp { version, update_time: Timestamp { seconds, nanos: 0 }, open: true }
    }

    #[test]
    fn a_late_read_does_not_replace_what_is_newer() {
        let stamps = Stamps::default();
        stamps.keep("a", stamp(2));
        stamps.keep("a", stamp(1));
        assert_eq!((stamps.at("a", 1), stamps.at("a", 2)), (None, Some(stamp(2))));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let stamps = Stamps::default();
        for number in 0..5 * GENERATION {
            stamps.keep(&number.to_string(), stamp(1));
            stamps.keep("used", stamp(1));
        }
        let held = { let held = stamps.0.lock(); held.young.len() + held.old.len() };
        assert!(held <= 2 * GENERATION, "{held} are held");
        assert_eq!(stamps.at("used", 1), Some(stamp(1)));
        assert_eq!(stamps.at("0", 1), None, "the first is still held");
    }
}
