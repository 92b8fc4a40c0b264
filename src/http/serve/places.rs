//! The places that connections hold, and who gives up theirs when all are taken.
//!
//! A connection either waits for its client (for a whole request, head and body), or the client waits for us. When a new
//! connection finds no place, those that have waited longest for their clients are closed: so clients that hold connections
//! and ask nothing, however many, keep an honest one out for seconds and not for their time-outs. Nobody is closed within
//! the first second of waiting for them, and what is being worked on or answered is never closed for somebody new.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// To find who has waited longest, all are looked at. So that a crowd of new ones does not cost that look each, this share
/// of the places is made free at once: one in so many.
const ENDED_AT_ONCE_SHARE: usize = 64;

/// How long a client may take for its request, however great the crowd: one that has just connected, or was just
/// answered, is about to send it.
const SPARED_FOR: Duration = Duration::from_secs(1);

/// All places.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Those that are taken and were not told to end, by number.
    taken: Mutex<HashMap<u64, Arc<Turn>>>,
    numbers: AtomicU64,
    /// Some connection has begun to wait for its client.
    idled: Arc<Notify>,
    /// Times are counted from here.
    began: Instant,
}

/// A place that is held; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    turn: Arc<Turn>,
    _permit: OwnedSemaphorePermit,
}

/// Whose turn it is on one connection.
struct Turn {
    /// Since when the client is waited for, in nanoseconds; [`OURS`] while the client waits for us.
    client_since: AtomicU64,
    ended: CancellationToken,
    idled: Arc<Notify>,
    began: Instant,
}

/// No time: it is our turn.
const OURS: u64 = u64::MAX;

/// What looking for those that have waited longest for their clients came to.
enum Idlest {
    /// They were told to end.
    Ended,
    /// All were waited for shortly only; the first of them may be told to end after this.
    NotBefore(Duration),
    /// None waits for its client.
    Nobody,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most)),
            taken: Mutex::default(),
            numbers: AtomicU64::new(0),
            idled: Arc::default(),
            began: Instant::now(),
        })
    }

    /// Takes a place, if one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.hand_out(permit))
    }

    /// Takes a place, and has the connection closed for it that has waited longest for its client (of many, some more). If none waits for its client, waits until one does or ends.
    pub(super) async fn take_from_the_idlest(self: &Arc<Self>) -> Place {
        let free = Arc::clone(&self.free).acquire_owned();
        tokio::pin!(free);
        loop {
            let again = async {
                match self.end_the_idlest() {
                    Idlest::Ended => std::future::pending().await,
                    Idlest::NotBefore(pause) => tokio::time::sleep(pause).await,
                    Idlest::Nobody => self.idled.notified().await,
                }
            };
            let permit = tokio::select! {
                biased;
                permit = &mut free => permit,
                () = again => continue,
            };
            match permit {
                Ok(permit) => return self.hand_out(permit),
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        }
    }

    fn hand_out(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let turn = Arc::new(Turn {
            // What the client has sent by now has not been looked at yet.
            client_since: AtomicU64::new(OURS),
            ended: CancellationToken::new(),
            idled: Arc::clone(&self.idled),
            began: self.began,
        });
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.taken.lock().insert(number, Arc::clone(&turn));
        Place { places: Arc::clone(self), number, turn, _permit: permit }
    }

    fn end_the_idlest(&self) -> Idlest {
        let mut taken = self.taken.lock();
        let since = |turn: &Turn| turn.client_since.load(Ordering::Relaxed);
        let waiting = taken.iter().map(|(number, turn)| (since(turn), *number)).filter(|(since, _)| *since != OURS);
        let mut waiting: Vec<(u64, u64)> = waiting.collect();
        let count = (taken.len() / ENDED_AT_ONCE_SHARE).max(1);
        if waiting.len() > count {
            waiting.select_nth_unstable(count);
            waiting.truncate(count);
        }
        let Some((first, _)) = waiting.iter().min().copied() else { return Idlest::Nobody };
        let waited = |since: u64| self.began.elapsed().saturating_sub(Duration::from_nanos(since));
        let pause = SPARED_FOR.saturating_sub(waited(first));
        if !pause.is_zero() {
            return Idlest::NotBefore(pause);
        }
        waiting.retain(|(since, _)| waited(*since) >= SPARED_FOR);
        for turn in waiting.iter().filter_map(|(_, number)| taken.remove(number)) {
            turn.ended.cancel();
        }
        Idlest::Ended
    }
}

impl Place {
    /// The connection is about to be read: from now on its client is waited for.
    pub(super) fn begin(&self) {
        self.turn.is_the_clients();
    }

    /// Returns once the place is needed more by somebody new.
    pub(super) async fn given_up(&self) {
        self.turn.ended.cancelled().await;
    }

    /// Whether the client waits for us.
    pub(super) fn is_at_work(&self) -> bool {
        self.turn.client_since.load(Ordering::Relaxed) == OURS
    }

    /// For the connection's requests.
    pub(super) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.turn))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().remove(&self.number);
    }
}

impl Turn {
    fn is_the_clients(&self) {
        let nanos = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(OURS - 1);
        self.client_since.store(nanos.min(OURS - 1), Ordering::Relaxed);
        self.idled.notify_one();
    }

    fn is_ours(&self) {
        self.client_since.store(OURS, Ordering::Relaxed);
    }
}

/// Sees whose turn it is from a connection's requests and answers.
#[derive(Clone)]
pub(super) struct Watch(Arc<Turn>);

impl Watch {
    /// A request's body; at its end the request is whole.
    pub(super) fn request(&self, body: hyper::body::Incoming) -> Body {
        if body.is_end_stream() {
            self.0.is_ours();
            return Body::empty();
        }
        Body::new(Receiving { body, turn: Arc::clone(&self.0) })
    }

    /// An answer's body; once it is written, or given up, the next request is waited for.
    pub(super) fn answer(&self, body: Body) -> Answering {
        self.0.is_ours();
        Answering { body, turn: Arc::clone(&self.0) }
    }
}

struct Receiving {
    body: hyper::body::Incoming,
    turn: Arc<Turn>,
}

impl HttpBody for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.body.is_end_stream()) {
            self.turn.is_ours();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer that is being written.
pub(super) struct Answering {
    body: Body,
    turn: Arc<Turn>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.turn.is_the_clients();
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>) -> Place {
        let place = places.take().expect("a place is free");
        place.begin();
        place
    }

    /// The client has been waited for since `millis` after the beginning.
    fn waits_since(place: &Place, millis: u64) {
        place.turn.client_since.store(millis * 1_000_000, Ordering::Relaxed);
    }

    /// Places that were begun long ago.
    fn places(most: usize) -> Arc<Places> {
        let mut places = Places::new(most);
        Arc::get_mut(&mut places).expect("nobody else has it yet").began -= Duration::from_secs(3_600);
        places
    }

    fn someone_new(places: &Arc<Places>) -> tokio::task::JoinHandle<Place> {
        let places = Arc::clone(places);
        tokio::spawn(async move { places.take_from_the_idlest().await })
    }

    fn ends(place: &Place) -> bool {
        place.turn.ended.is_cancelled()
    }

    #[tokio::test]
    async fn whoever_has_waited_longest_for_its_client_gives_up_its_place() {
        let places = places(3);
        let (first, second, third) = (take(&places), take(&places), take(&places));
        // The first is at work, so that the second is the one that waits longest.
        first.watch().0.is_ours();
        waits_since(&second, 1);
        waits_since(&third, 2);
        assert!(places.take().is_none());
        let new = someone_new(&places);
        tokio::task::yield_now().await;
        assert!(ends(&second) && !ends(&first) && !ends(&third));
        assert!(!new.is_finished(), "the second holds its place until it has ended");
        drop(second);
        new.await.expect("the new one has a place");
    }

    #[tokio::test]
    async fn what_is_worked_on_is_left_alone_until_it_waits_again() {
        let places = places(1);
        let only = take(&places);
        let answer = only.watch().answer(Body::from("answer"));
        let new = someone_new(&places);
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert!(!ends(&only), "closed while its client waits for the answer");
        }
        drop(answer);
        waits_since(&only, 1);
        only.turn.idled.notify_one();
        while !ends(&only) {
            tokio::task::yield_now().await;
        }
        drop(only);
        new.await.expect("the new one has a place");
    }

    #[tokio::test]
    async fn what_nobody_has_looked_at_is_not_waited_for() {
        let places = places(1);
        let only = places.take().expect("a place is free");
        assert!(matches!(places.end_the_idlest(), Idlest::Nobody), "its request may lie there in whole");
        only.begin();
        assert!(matches!(places.end_the_idlest(), Idlest::NotBefore(_)));
    }

    #[tokio::test]
    async fn a_client_has_a_moment_for_its_request_however_great_the_crowd() {
        let places = places(1);
        let only = take(&places);
        assert!(matches!(places.end_the_idlest(), Idlest::NotBefore(pause) if pause <= SPARED_FOR));
        assert!(!ends(&only));
        waits_since(&only, 1);
        assert!(matches!(places.end_the_idlest(), Idlest::Ended));
        assert!(ends(&only));
    }
}
