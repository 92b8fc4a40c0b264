//! Automatic mode: who moves on when.
//!
//! One task waits for the earliest message that is due; the steps themselves run beside each other, no more at once than
//! webhooks may be under way. What is due while none is free waits, so a slow receiver slows the callbacks down and
//! not the API.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::config::CallbackMode;
use super::message::{Message, SimStatus};
use super::world::{World, count};

/// The most messages that wait for their next status.
const WAITING_MAX: usize = 500_000;

/// How often a waiting task looks at the clock again: a clock that is moved by hand may be moved between the reading
/// of it and the sleep.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A message and when it is due; ordered by that, then by age.
struct Due {
    at: Timestamp,
    message: Arc<Message>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.message.seq) == (other.at, other.message.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.message.seq).cmp(&(other.at, other.message.seq))
    }
}

/// The messages that wait.
#[derive(Default)]
pub(super) struct Timeline {
    waiting: Mutex<BinaryHeap<Reverse<Due>>>,
    added: Notify,
}

impl Timeline {
    /// Lets a message wait; `false` if too many do.
    fn add(&self, at: Timestamp, message: Arc<Message>) -> bool {
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                return false;
            }
            let first = waiting.peek().is_none_or(|Reverse(earliest)| at < earliest.at);
            waiting.push(Reverse(Due { at, message }));
            first
        };
        if first {
            self.added.notify_one();
        }
        true
    }

    pub(super) fn clear(&self) {
        self.waiting.lock().clear();
    }

    /// The earliest message if it is due by now, else when it will be.
    fn take(&self, now: Timestamp) -> Result<Arc<Message>, Option<Timestamp>> {
        let mut waiting = self.waiting.lock();
        match waiting.peek() {
            None => Err(None),
            Some(Reverse(earliest)) if earliest.at > now => Err(Some(earliest.at)),
            Some(_) => waiting.pop().map(|Reverse(due)| due.message).ok_or(None),
        }
    }
}

impl World {
    /// Puts a fresh message, or one that has just moved on, on the timeline. Does nothing in manual mode.
    pub(super) fn schedule(&self, message: &Arc<Message>, status: SimStatus) {
        let CallbackMode::Automatic { sent_after, delivered_after, read_after } = self.config.callbacks else {
            return;
        };
        let after = match status {
            SimStatus::Scheduled | SimStatus::Accepted | SimStatus::Queued | SimStatus::Sending => sent_after,
            SimStatus::Sent => delivered_after,
            SimStatus::Delivered => match read_after {
                Some(read_after) => read_after,
                None => return,
            },
            SimStatus::Read
            | SimStatus::Undelivered
            | SimStatus::Failed
            | SimStatus::Canceled
            | SimStatus::Received => return,
        };
        let now = self.clock.now();
        let start = match status {
            SimStatus::Scheduled => message.send_at.unwrap_or(now),
            SimStatus::Accepted
            | SimStatus::Queued
            | SimStatus::Sending
            | SimStatus::Sent
            | SimStatus::Delivered
            | SimStatus::Read
            | SimStatus::Undelivered
            | SimStatus::Failed
            | SimStatus::Canceled
            | SimStatus::Received => now,
        };
        let at = start.saturating_add(after).unwrap_or(Timestamp::MAX);
        if !self.timeline.add(at, Arc::clone(message)) {
            count(&self.counters.timeline_dropped);
        }
    }
}

/// Moves messages on until the world stops.
pub(super) async fn run(world: Arc<World>) {
    let slots = Arc::new(Semaphore::new(world.config.callback_concurrency.max(1)));
    while !world.stop.is_cancelled() {
        match world.timeline.take(world.clock.now()) {
            Ok(message) => {
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let world = Arc::clone(&world);
                tokio::spawn(async move {
                    let step = async {
                        if let Some((status, _)) = world.step(&message).await {
                            world.schedule(&message, status);
                        }
                    };
                    world.stop.run_until_cancelled(step).await;
                    drop(slot);
                });
            }
            Err(next) => wait(&world, next).await,
        }
    }
}

async fn wait(world: &World, next: Option<Timestamp>) {
    let due = async {
        match next {
            Some(at) => {
                let left = Duration::try_from(at.duration_since(world.clock.now())).unwrap_or_default();
                tokio::select! {
                    () = world.clock.sleep(left) => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = world.stop.cancelled() => {}
        () = world.timeline.added.notified() => {}
        () = due => {}
    }
}
