//! The one writer: a thread that owns the writing connection and commits in groups, so that a burst shares its fsyncs.
//!
//! A group is one transaction. Jobs check before they write and fail without writing, so one job's refusal does not
//! disturb its neighbours; if SQLite itself reports an error in one of them, or one panics, the group is rolled back and
//! its jobs run one by one.
//!
//! A change that nobody waits for is held back a moment for one that somebody does, so that both share a flush.
//!
//! Where the file is no longer at its path, nothing is committed: it would be lost with the file.
//!
//! The thread also holds the lock on the file: it is let go when the last write is over and not before, whichever way
//! the store ends.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::checkpoints::Checkpoints;
use super::place::Place;
use super::{OpenError, SqliteSettings};
use crate::ports::StoreError;

/// Something to be written. It may run twice: once in a group that is rolled back, once alone.
trait Job: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Pending<T, F> {
    run: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.run)(connection)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (committed, self.result.take()) {
            (Ok(()), Some(result)) => Ok(result),
            (Ok(()), None) => Err(StoreError::Unavailable { what: "a job was not run".to_owned() }),
            (Err(error), _) => Err(error),
        };
        // Whoever asked may have gone away; the commit stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// Whether somebody waits for a change, or it may be held back for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurry {
    AtOnce,
    MayWait,
}

enum Order {
    /// The permit is the job's place in the queue.
    Write(Box<dyn Job>, Hurry, OwnedSemaphorePermit),
    Stop,
}

/// Hands jobs to the writer's thread.
pub(super) struct Writer {
    orders: Sender<Order>,
    places: Arc<Semaphore>,
    commits: Arc<AtomicU64>,
    thread: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Most jobs that a queue can be asked to hold.
const QUEUE_MAX: usize = 1_000_000;

/// How long a change waits for a place in the queue. The queue is full for so long only if the disk hangs, and then whoever
/// waits must not become a crowd without bounds.
const PLACE_WITHIN: Duration = Duration::from_secs(10);

/// How long changes that may wait are held back at the most.
const HELD_BACK: Duration = Duration::from_millis(4);

/// After a group of so many, further changes are on their way: the next group is held back for so long. Changes of one
/// group share the pages that they write as well as the flush, so that a crowd gets through sooner if each waits a little.
const CROWD: usize = 12;
const HELD_BACK_IN_A_CROWD: Duration = Duration::from_micros(1_500);

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable { what: "the store is closed".to_owned() }
}

impl Writer {
    /// Starts the thread. `lock` makes the file this process's own; without it, nothing is tidied at the end.
    pub(super) fn start(
        mut connection: Connection,
        place: Place,
        settings: &SqliteSettings,
        lock: Option<File>,
    ) -> Result<Self, OpenError> {
        let (orders, receiver) = channel();
        let queue_max = settings.write_queue_max.clamp(1, QUEUE_MAX);
        let places = Arc::new(Semaphore::new(queue_max));
        let group_max = settings.group_commit_max.max(1);
        // A file that is only read is none of ours to tidy.
        let checkpoints = match &lock {
            Some(_) => Some(Checkpoints::take_over(&mut connection, &settings.path, settings.busy_timeout)?),
            None => None,
        };
        let queue = Arc::clone(&places);
        let commits = Arc::new(AtomicU64::new(0));
        let committed = Arc::clone(&commits);
        let thread = std::thread::Builder::new().name("sqlite-writer".to_owned()).spawn(move || {
            work(&connection, &place, &receiver, group_max, &committed, checkpoints);
            refuse_late(&queue, queue_max, &receiver);
            if let Some(lock) = lock {
                // Best effort: a start after a clean stop finds no write-ahead log. In a file that is another
                // process's, this would keep that process from writing.
                let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                drop(connection);
                // Not by closing it alone: a process that is being started just now may hold a copy for a moment.
                let _ = lock.unlock();
            }
        })?;
        Ok(Self { orders, places, commits, thread: parking_lot::Mutex::new(Some(thread)) })
    }

    /// Runs `job` inside a transaction and returns its result once the transaction is durable.
    pub(super) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.write_in(Hurry::AtOnce, job).await
    }

    /// The same, in a hurry or not.
    pub(super) async fn write_in<T, F>(&self, hurry: Hurry, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let pending = Box::new(Pending { run: job, result: None, reply });
        let place = super::place_among(&self.places, PLACE_WITHIN).await?;
        self.orders.send(Order::Write(pending, hurry, place)).map_err(|_| closed())?;
        // The job was handed over: if the writer dies with it, nobody knows whether it was committed.
        let answer = answer.await;
        super::looks::give_way().await;
        answer.map_err(|_| StoreError::Unknown { what: "the writer stopped".to_owned() })?
    }

    /// How many groups were committed, or tried to.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Stops after the jobs that were handed over.
    pub(super) async fn close(&self) {
        let _ = self.orders.send(Order::Stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Writer {
    /// Waits for the jobs that were handed over: whoever opens the file next must find nobody writing.
    fn drop(&mut self) {
        let (nobody, _) = channel();
        drop(std::mem::replace(&mut self.orders, nobody));
        if let Some(thread) = self.thread.get_mut().take() {
            let _ = thread.join();
        }
    }
}

fn work(
    connection: &Connection,
    place: &Place,
    orders: &Receiver<Order>,
    group_max: usize,
    committed: &AtomicU64,
    mut checkpoints: Option<Checkpoints>,
) {
    let mut in_place = true;
    let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(group_max);
    let (mut stopping, mut crowded) = (false, false);
    while !stopping {
        stopping = gather(orders, &mut group, group_max, crowded);
        crowded = group.len() >= CROWD;
        if place.holds() != in_place {
            in_place = !in_place;
            tell(in_place);
        }
        if in_place {
            commit_group(connection, &mut group);
            committed.fetch_add(1, Ordering::Relaxed);
        } else {
            group.drain(..).for_each(|job| job.answer(Err(out_of_place())));
        }
        if let Some(checkpoints) = &mut checkpoints {
            checkpoints.after_commit(connection);
        }
    }
}

/// Waits for jobs and takes all that are there, up to `max`; a moment longer, as long as none of them is in a hurry or where
/// there is a crowd. Returns whether these are the last.
fn gather(orders: &Receiver<Order>, group: &mut Vec<Box<dyn Job>>, max: usize, crowded: bool) -> bool {
    let mut hurry = Hurry::AtOnce;
    let mut patience = if crowded { HELD_BACK_IN_A_CROWD } else { HELD_BACK };
    while group.len() < max {
        let next = match orders.try_recv() {
            Ok(order) => order,
            Err(_) if group.is_empty() => match orders.recv() {
                Ok(order) => order,
                Err(_) => return true,
            },
            Err(_) if hurry == Hurry::AtOnce && !crowded => return false,
            Err(_) => match wait(orders, &mut patience) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => return true,
            },
        };
        match next {
            Order::Write(job, its_hurry, _place) => {
                hurry = if group.is_empty() || its_hurry == Hurry::AtOnce { its_hurry } else { hurry };
                group.push(job);
            }
            Order::Stop => return true,
        }
    }
    false
}

/// Waits for the next order, and takes the time off `patience`.
#[expect(clippy::disallowed_methods, reason = "a thread's own pause, of which no decision hears")]
fn wait(orders: &Receiver<Order>, patience: &mut Duration) -> Result<Order, RecvTimeoutError> {
    let begun = std::time::Instant::now();
    let order = orders.recv_timeout(*patience);
    *patience = patience.saturating_sub(begun.elapsed());
    order
}

fn tell(in_place: bool) {
    if in_place {
        tracing::warn!("the database file is back at its path: changes are taken again");
    } else {
        tracing::error!("the database file was deleted, moved or replaced: no change is taken until it is back");
    }
}

fn out_of_place() -> StoreError {
    StoreError::Unavailable { what: "the database file is no longer at its path".to_owned() }
}

/// Jobs that came after the order to stop were surely not run: their callers are told so, and need not wonder. Whoever
/// has a place already, of the `count` that there are, is about to hand over.
fn refuse_late(places: &Semaphore, count: usize, orders: &Receiver<Order>) {
    places.close();
    while places.available_permits() < count {
        match orders.recv_timeout(HELD_BACK) {
            Ok(Order::Write(job, _, _)) => job.answer(Err(closed())),
            Ok(Order::Stop) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn commit_group(connection: &Connection, group: &mut Vec<Box<dyn Job>>) {
    match transact(connection, group) {
        // One of them is at fault: each alone, so that the others are not harmed.
        Err(Failure::Run(_) | Failure::Panic) if group.len() > 1 => commit_each(connection, group),
        committed => answer_all(group.drain(..), &committed),
    }
}

fn commit_each(connection: &Connection, group: &mut Vec<Box<dyn Job>>) {
    let mut jobs = group.drain(..);
    while let Some(job) = jobs.next() {
        let mut alone = [job];
        let committed = transact(connection, &mut alone);
        answer_all(alone, &committed);
        if matches!(committed, Err(Failure::Begin(_))) {
            // Nobody can write just now: the rest would only wait for the same lock, one after the other.
            return answer_all(jobs, &committed);
        }
    }
}

fn answer_all(jobs: impl IntoIterator<Item = Box<dyn Job>>, committed: &Result<(), Failure>) {
    for job in jobs {
        job.answer(committed.as_ref().copied().map_err(Failure::to_store_error));
    }
}

enum Failure {
    /// No job was run.
    Begin(rusqlite::Error),
    /// A job failed, and nothing was committed.
    Run(rusqlite::Error),
    /// A job ended by a panic, which is a fault of ours; nothing was committed.
    Panic,
    /// The commit itself failed.
    Commit(rusqlite::Error),
}

impl Failure {
    fn to_store_error(&self) -> StoreError {
        match self {
            Self::Begin(error) | Self::Run(error) => super::store_error(error),
            Self::Panic => StoreError::Unavailable { what: "a job ended by a panic".to_owned() },
            Self::Commit(error) => commit_error(error),
        }
    }
}

fn transact(connection: &Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
    // Nothing is open here, unless an earlier roll-back failed.
    roll_back(connection);
    let mut begin = connection.prepare_cached("BEGIN IMMEDIATE").map_err(Failure::Begin)?;
    let mut commit = connection.prepare_cached("COMMIT").map_err(Failure::Begin)?;
    begin.execute([]).map_err(Failure::Begin)?;
    for job in jobs {
        // Whatever the job left half done is rolled back, so nobody sees what a panic broke.
        let failure = match catch_unwind(AssertUnwindSafe(|| job.run(connection))) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => Failure::Run(error),
            Err(_) => Failure::Panic,
        };
        roll_back(connection);
        return Err(failure);
    }
    commit.execute([]).map(|_| ()).map_err(|error| {
        roll_back(connection);
        Failure::Commit(error)
    })
}

fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %super::describe(&error), "a transaction could not be rolled back");
    }
}

/// A commit that failed for want of space or of a lock took no effect. After an I/O error the write-ahead log may or
/// may not hold it.
fn commit_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::SystemIoFailure) => StoreError::Unknown { what: super::describe(error) },
        Some(_) | None => super::store_error(error),
    }
}
