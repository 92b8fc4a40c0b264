//! What connects the service with the worker: jobs handed over, places for them, and hints when to look again.
//!
//! All of it is a short cut. The store alone says what has to be done; the worker's poll is the guarantee.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::domain::alert::{Action, Alert};

/// One thing to do for an alert, as the commit said.
pub struct Job {
    /// The alert as it was committed.
    pub alert: Alert,
    /// What to do.
    pub action: Action,
    /// Its place among those in hand; given back when the job is done or dropped.
    pub place: Arc<OwnedSemaphorePermit>,
}

/// The service's end: places, hand-over, hints.
#[derive(Clone)]
pub struct Dispatch {
    places: Arc<Semaphore>,
    places_max: usize,
    jobs: mpsc::UnboundedSender<Job>,
    hint: Arc<Hint>,
}

/// The worker's end: the jobs.
pub struct Jobs {
    jobs: mpsc::UnboundedReceiver<Job>,
}

/// When the worker looks next, and when something will be due.
#[derive(Default)]
struct Hint {
    plan: Mutex<Plan>,
    earlier: Notify,
}

#[derive(Default)]
struct Plan {
    next_look: Option<Timestamp>,
    due: BTreeSet<Timestamp>,
}

/// How many moments are remembered; of more, the latest are left to the poll.
const DUE_MAX: usize = 4096;

impl Dispatch {
    /// A pair with room for `places` jobs in hand. The channel between needs no bound of its own: every job has a place.
    pub fn new(places: usize) -> (Self, Jobs) {
        let places_max = places.clamp(1, Semaphore::MAX_PERMITS);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(places_max));
        (Self { places, places_max, jobs, hint: Arc::default() }, Jobs { jobs: receiver })
    }

    /// A place for what one commit will give to do. `None`: enough is in hand, leave the work to the poll.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whether every place is taken.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// How many places are taken.
    pub fn in_hand(&self) -> usize {
        self.places_max - self.places.available_permits().min(self.places_max)
    }

    /// Hands over what a commit gave to do. If the worker is gone, the leases run out and the work is found again.
    pub fn hand_over(&self, alert: &Alert, actions: Vec<Action>, place: OwnedSemaphorePermit) {
        let place = Arc::new(place);
        for action in actions {
            let _ = self.jobs.send(Job { alert: alert.clone(), action, place: Arc::clone(&place) });
        }
    }

    /// Something will be due at `at`: the worker looks then, if it did not mean to look sooner.
    pub fn hint(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return };
        let mut plan = self.hint.plan.lock();
        plan.due.insert(at);
        if plan.due.len() > DUE_MAX {
            plan.due.pop_last();
        }
        if plan.next_look.is_some_and(|next| at < next) {
            self.hint.earlier.notify_one();
        }
    }

    /// The worker looks at what is due by `now`: no hint is needed for that any more.
    pub fn look(&self, now: Timestamp) {
        let mut plan = self.hint.plan.lock();
        while plan.due.first().is_some_and(|at| *at <= now) {
            plan.due.pop_first();
        }
    }

    /// Plans the worker's next look: at the earliest hint, but at `latest` all the same.
    pub fn plan_look(&self, latest: Timestamp) -> Timestamp {
        let mut plan = self.hint.plan.lock();
        let next = plan.due.first().map_or(latest, |at| latest.min(*at));
        plan.next_look = Some(next);
        next
    }

    /// Returns when something is due before the look that was planned: plan it anew.
    pub async fn hinted(&self) {
        self.hint.earlier.notified().await;
    }
}

impl Jobs {
    /// The next job; `None` once nobody can hand over any more.
    pub async fn next(&mut self) -> Option<Job> {
        self.jobs.recv().await
    }

    /// A job, if one is there.
    pub fn try_next(&mut self) -> Option<Job> {
        self.jobs.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn dispatch() -> Dispatch {
        Dispatch::new(1).0
    }

    #[test]
    fn no_hint_is_lost_to_an_earlier_one() {
        let dispatch = dispatch();
        for hint in [7, 3, 5, 3] {
            dispatch.hint(Some(at(hint)));
        }
        for (now, next) in [(0, 3), (3, 5), (4, 5), (6, 7), (7, 10)] {
            dispatch.look(at(now));
            assert_eq!(dispatch.plan_look(at(10)), at(next), "after the look at {now}");
        }
    }

    #[test]
    fn only_what_is_due_before_the_planned_look_wakes_the_worker() {
        let dispatch = dispatch();
        dispatch.plan_look(at(10));
        dispatch.hint(Some(at(12)));
        dispatch.hint(Some(at(10)));
        assert!(dispatch.hinted().now_or_never().is_none());
        dispatch.hint(Some(at(9)));
        assert!(dispatch.hinted().now_or_never().is_some());
    }

    #[test]
    fn what_became_due_during_a_look_is_looked_at_next() {
        let dispatch = dispatch();
        dispatch.look(at(5));
        dispatch.hint(Some(at(4)));
        assert_eq!(dispatch.plan_look(at(15)), at(4));
    }

    #[test]
    fn hints_are_bounded_and_the_earliest_are_kept() {
        let dispatch = dispatch();
        for hint in (0..2 * DUE_MAX as u64).rev() {
            dispatch.hint(Some(at(hint)));
        }
        assert_eq!(dispatch.hint.plan.lock().due.len(), DUE_MAX);
        assert_eq!(dispatch.plan_look(at(u64::from(u32::MAX))), at(0));
    }

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let dispatch = dispatch();
        let place = dispatch.place();
        assert!(place.is_some() && dispatch.is_full() && dispatch.place().is_none());
        drop(place);
        assert_eq!((dispatch.in_hand(), dispatch.is_full()), (0, false));
    }
}
