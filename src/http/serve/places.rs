//! The places that connections hold, and who gives up theirs when all are taken.
//!
//! A connection either waits for its client (for a whole request, head and body), or the client waits for us. When a new
//! connection finds no place, the one that has waited longest for its client is closed: so clients that hold connections
//! and ask nothing, however many, cost an honest one no more than the time in which they connect. What is being worked on
//! or answered is never closed for somebody new.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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

    /// Takes a place, and has the connection closed for it that has waited longest for its client. If none waits for its
    /// client, waits until one does or ends.
    pub(super) async fn take_from_the_idlest(self: &Arc<Self>) -> Place {
        let mut one_ends = false;
        let free = Arc::clone(&self.free).acquire_owned();
        tokio::pin!(free);
        loop {
            one_ends = one_ends || self.end_the_idlest();
            let permit = tokio::select! {
                permit = &mut free => permit,
                () = self.idled.notified(), if !one_ends => continue,
            };
            if let Ok(permit) = permit {
                return self.hand_out(permit);
            }
            // The semaphore is never closed.
            std::future::pending::<()>().await;
        }
    }

    fn hand_out(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let turn = Arc::new(Turn {
            client_since: AtomicU64::new(0),
            ended: CancellationToken::new(),
            idled: Arc::clone(&self.idled),
            began: self.began,
        });
        turn.is_the_clients();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.taken.lock().insert(number, Arc::clone(&turn));
        Place { places: Arc::clone(self), number, turn, _permit: permit }
    }

    fn end_the_idlest(&self) -> bool {
        let mut taken = self.taken.lock();
        let since = |turn: &Turn| turn.client_since.load(Ordering::Relaxed);
        let waiting = taken.iter().map(|(number, turn)| (since(turn), *number)).filter(|(since, _)| *since != OURS);
        let Some(turn) = waiting.min().and_then(|(_, number)| taken.remove(&number)) else { return false };
        turn.ended.cancel();
        true
    }
}

impl Place {
    /// Runs a connection until it ends, or until its place is needed more.
    pub(super) async fn hold<T>(&self, connection: impl Future<Output = T>) -> Option<T> {
        self.turn.ended.run_until_cancelled(connection).await
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
        places.take().expect("a place is free")
    }

    async fn ends(place: &Place) -> bool {
        place.hold(tokio::task::yield_now()).await.is_none()
    }

    #[tokio::test]
    async fn whoever_has_waited_longest_for_its_client_gives_up_its_place() {
        let places = Places::new(3);
        let (first, second, third) = (take(&places), take(&places), take(&places));
        // The first is at work, so that the second is the one that waits longest.
        first.watch().0.is_ours();
        assert!(places.take().is_none());
        let new = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take_from_the_idlest().await }
        });
        tokio::task::yield_now().await;
        assert!(ends(&second).await && !ends(&first).await && !ends(&third).await);
        assert!(!new.is_finished(), "the second holds its place until it has ended");
        drop(second);
        new.await.expect("the new one has a place");
    }

    #[tokio::test]
    async fn what_is_worked_on_is_left_alone_until_it_waits_again() {
        let places = Places::new(1);
        let only = take(&places);
        let answer = only.watch().answer(Body::from("answer"));
        let new = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take_from_the_idlest().await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert!(!ends(&only).await, "closed while its client waits for the answer");
        }
        drop(answer);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(ends(&only).await, "idle again, and left its place to nobody");
        drop(only);
        new.await.expect("the new one has a place");
    }
}
