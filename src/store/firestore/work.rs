//! Where the store's work is done: threads of its own, on which changes go to their end whoever gives up waiting.
//!
//! A change that was begun is not left half-way because its caller hung up: it would still be made, or not, and nobody
//! would learn which. And whoever drops or closes the store must find nobody writing any more; a drop cannot wait on the
//! threads that it might itself hold up.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::Limits;
use crate::ports::StoreError;

/// How many changes are under way at one time; further ones wait for a place. One connection carries a hundred calls.
const CHANGES_MAX: usize = 256;

/// Two: one for the connection, and one for what comes of it.
const THREADS: usize = 2;

#[derive(Debug, Default)]
struct State {
    closed: bool,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Count {
    state: Mutex<State>,
    idle: Condvar,
}

impl Count {
    fn wait_until_idle(&self) {
        let mut state = self.state.lock();
        while state.under_way > 0 {
            self.idle.wait(&mut state);
        }
    }
}

/// One change that was begun; dropped when it has come to its end.
struct Begun {
    count: Arc<Count>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut state = self.count.state.lock();
        state.under_way -= 1;
        if state.under_way == 0 {
            self.count.idle.notify_all();
        }
    }
}

/// The store's own threads, and what is under way on them.
pub(super) struct Work {
    runtime: Option<Runtime>,
    count: Arc<Count>,
    places: Arc<Semaphore>,
}

impl Work {
    pub(super) fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("firestore").enable_all().build()?;
        Ok(Self {
            runtime: Some(runtime),
            count: Arc::default(),
            places: Arc::new(Semaphore::new(CHANGES_MAX)),
        })
    }

    fn handle(&self) -> Result<&Handle, StoreError> {
        self.runtime.as_ref().map(Runtime::handle).ok_or_else(closed)
    }

    /// Runs something here that is no change, and waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.handle()?.spawn(work).await;
        done.map_err(|_| StoreError::Unavailable { what: "it ended by a panic".to_owned() })
    }

    /// Runs a change to its end, whether or not anybody still waits for it.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        limits: Limits,
        change: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.refuse_if_closed()?;
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(limits.commit, Arc::clone(&self.places).acquire_owned())
                .await
                .map_err(|_elapsed| StoreError::Unavailable { what: "Firestore is far too slow".to_owned() })?
                .map_err(|_| closed())?,
        };
        let begun = self.begin(place)?;
        let done = self.handle()?.spawn(async move {
            let done = change.await;
            drop(begun);
            done
        });
        done.await.map_err(|_| StoreError::Unknown { what: "a change ended by a panic".to_owned() })?
    }

    fn begin(&self, place: OwnedSemaphorePermit) -> Result<Begun, StoreError> {
        let mut state = self.count.state.lock();
        if state.closed {
            return Err(closed());
        }
        state.under_way += 1;
        Ok(Begun { count: Arc::clone(&self.count), _place: place })
    }

    pub(super) fn refuse_if_closed(&self) -> Result<(), StoreError> {
        if self.count.state.lock().closed { Err(closed()) } else { Ok(()) }
    }

    /// Takes no more changes, and waits for those under way. Each has a time-out, so this ends.
    pub(super) async fn close(&self) {
        self.count.state.lock().closed = true;
        let count = Arc::clone(&self.count);
        let _ = tokio::task::spawn_blocking(move || count.wait_until_idle()).await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.count.state.lock().closed = true;
        self.count.wait_until_idle();
        if let Some(runtime) = self.runtime.take() {
            // Nothing that matters runs on it any more; to wait for threads is not allowed within another runtime.
            runtime.shutdown_background();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { what: "the store is closed".to_owned() }
}
