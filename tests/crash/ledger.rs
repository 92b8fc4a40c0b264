//! What the service has promised, by its answers: kept by those who were answered, outside the service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crisis_relay::clock::SystemClock;
use crisis_relay::domain::alert::{Alert, AlertState};
use crisis_relay::domain::ids::AlertId;
use crisis_relay::ports::Clock as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use crate::plan::Student;
use crate::snapshot::Snapshot;

/// A case, as its student's backend was told of it.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) alert: AlertId,
    pub(crate) reference: String,
    /// Whether somebody is to be told.
    pub(crate) tells: bool,
    /// When the first answer came.
    pub(crate) at: Timestamp,
}

/// What a human was told of a case that they have dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Taken,
    Closed,
}

#[derive(Default)]
struct Book {
    promises: BTreeMap<u64, Promise>,
    deeds: BTreeMap<AlertId, Deed>,
    /// What an answer contradicts.
    contradictions: Vec<String>,
}

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    book: Mutex<Book>,
    answered: AtomicU64,
    replayed: AtomicU64,
}

impl Ledger {
    /// An event was answered 2xx, for the first time or again.
    pub(crate) fn answered(&self, student: &Student, answer: &Value, replayed: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.replayed.fetch_add(u64::from(replayed), Ordering::Relaxed);
        let mut book = self.book.lock();
        if student.below_threshold {
            if answer["decision"] != "below_threshold" || !answer["alert_id"].is_null() {
                book.contradictions.push(format!("{student:?} is below the threshold, and was answered: {answer}"));
            }
            return;
        }
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let (Some(alert), Some(reference)) = (text("alert_id").and_then(|id| id.parse().ok()), text("reference"))
        else {
            book.contradictions.push(format!("{student:?} has no case: {answer}"));
            return;
        };
        // An event whose answer was lost and that came again without a key has joined the case.
        let tells = match answer["decision"].as_str() {
            Some("escalated" | "merged") => true,
            Some("withheld_no_consent") => false,
            _ => {
                book.contradictions.push(format!("{student:?}: {answer}"));
                return;
            }
        };
        let promise = Promise { alert, reference, tells, at: SystemClock.now() };
        let first = book.promises.entry(student.number).or_insert_with(|| promise.clone()).clone();
        if (first.alert, &first.reference, first.tells) != (promise.alert, &promise.reference, promise.tells) {
            book.contradictions.push(format!("{student:?} was first answered {first:?}, and then {answer}"));
        }
    }

    /// A human has heard that they have taken a case, or closed it.
    pub(crate) fn dealt_with(&self, alert: AlertId, deed: Deed) {
        self.book.lock().deeds.insert(alert, deed);
    }

    /// How many events were answered.
    pub(crate) fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many of the answers had been given before.
    pub(crate) fn replays(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// What a student's backend was told first; `None` if there is no case.
    pub(crate) fn promise(&self, student: &Student) -> Option<Promise> {
        self.book.lock().promises.get(&student.number).cloned()
    }

    /// Every case that was promised.
    pub(crate) fn promises(&self) -> Vec<Promise> {
        self.book.lock().promises.values().cloned().collect()
    }

    /// Whether a human has dealt with a case.
    pub(crate) fn is_dealt_with(&self, alert: AlertId) -> bool {
        self.book.lock().deeds.contains_key(&alert)
    }

    /// A copy, as things stand now.
    pub(crate) fn page(&self) -> Page {
        let book = self.book.lock();
        Page {
            promises: book.promises.values().cloned().collect(),
            deeds: book.deeds.clone(),
            contradictions: book.contradictions.clone(),
        }
    }
}

/// What had been promised by some moment.
pub(crate) struct Page {
    promises: Vec<Promise>,
    deeds: BTreeMap<AlertId, Deed>,
    contradictions: Vec<String>,
}

impl Page {
    /// What of it is not on the disk.
    pub(crate) fn broken_promises(&self, disk: &Snapshot) -> Vec<String> {
        let mut broken = self.contradictions.clone();
        for promise in &self.promises {
            match disk.alerts.get(&promise.alert) {
                None => broken.push(format!("an accepted alert is lost: {promise:?}")),
                Some(alert) if is_withheld(alert) == promise.tells => {
                    broken.push(format!("{promise:?}, but it is {:?}", alert.state));
                }
                Some(alert) if alert.reference.as_str() != promise.reference => {
                    broken.push(format!("{promise:?}, but its reference is {}", alert.reference));
                }
                Some(_) => {}
            }
        }
        for (id, deed) in &self.deeds {
            let state = disk.alerts.get(id).map(|alert| &alert.state);
            let kept = match (state, deed) {
                (Some(AlertState::Resolved { .. }), _) => true,
                (Some(AlertState::Acknowledged { .. }), Deed::Taken) => true,
                (Some(AlertState::Acknowledged { .. }), Deed::Closed) => false,
                (Some(AlertState::Withheld { .. } | AlertState::Escalating { .. }) | None, _) => false,
            };
            if !kept {
                broken.push(format!("a human was told that alert {id} is {deed:?}, but it is {state:?}"));
            }
        }
        broken
    }
}

fn is_withheld(alert: &Alert) -> bool {
    matches!(alert.state, AlertState::Withheld { .. })
}
