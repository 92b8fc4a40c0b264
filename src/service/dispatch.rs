//! What connects the service with the worker: jobs handed over, places for them, and hints when to look again.
//!
//! All of it is a short cut. The store alone says what has to be done; the worker's poll is the guarantee.

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

/// When the worker looks next, and the earliest hint beyond that.
#[derive(Default)]
struct Hint {
    plan: Mutex<Plan>,
    earlier: Notify,
}

#[derive(Default)]
struct Plan {
    next_look: Option<Timestamp>,
    beyond: Option<Timestamp>,
}

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
        if plan.next_look.is_some_and(|next| at < next) {
            plan.next_look = Some(at);
            self.hint.earlier.notify_one();
        } else if plan.beyond.is_none_or(|beyond| at < beyond) {
            plan.beyond = Some(at);
        }
    }

    /// Plans the worker's next look: at the earliest hint, but at `latest` all the same. Of hints beyond the next look
    /// only the earliest is remembered; the others are found by the looks in between.
    pub fn plan_look(&self, latest: Timestamp) -> Timestamp {
        let mut plan = self.hint.plan.lock();
        let next = plan.beyond.take_if(|beyond| *beyond <= latest).unwrap_or(latest);
        plan.next_look = Some(next);
        next
    }

    /// Returns when an earlier hint was given.
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
