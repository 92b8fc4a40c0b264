//! Checkpoints: what the write-ahead log holds is brought into the database file beside the writer, not by it.
//!
//! SQLite would do it within a commit, and everybody in that group would wait for thousands of pages and a flush. A
//! thread with a connection of its own does it instead; the writer appends meanwhile. The log begins anew at a commit
//! that finds everything checkpointed and nobody reading the log. Under a load that never pauses such a commit would
//! never come: the log would grow without end, and every read with it. So above a limit the writer does the rest itself,
//! which is what was added since the thread's last go, and waits a moment for readers to be through.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

/// After how many further pages the log is checkpointed by the thread (a page has 4 KiB). A page that was changed many
/// times since the last checkpoint is written once, which speaks for more; but while the file is flushed, the disk lets
/// commits wait, which speaks for less: with eight times as many, the slowest hundredth of events took three times as long.
const GROWN_PAGES: i32 = 500;
/// From how many pages on the writer makes the log begin anew, and after how many more it tries again.
const LONG_PAGES: i32 = 16_000;
const TRY_EVERY_PAGES: i32 = 2_000;
/// How long the writer waits for those who read the log. They take microseconds; a list may take longer.
const READERS_PATIENCE: Duration = Duration::from_millis(20);

/// Keeps the log short. Owned by the writer's thread; dropped with it, it waits for the checkpoint under way.
pub(super) struct Checkpoints {
    busy_timeout: Duration,
    /// Held during a checkpoint: SQLite would refuse a second one.
    turn: Arc<Mutex<()>>,
    pages: Arc<AtomicI32>,
    last: i32,
    next_wake: i32,
    next_try: i32,
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Takes checkpoints off `writer`, which belongs to the file at `path`, and starts the thread.
    pub(super) fn take_over(writer: &mut Connection, path: &Path, busy_timeout: Duration) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let counted = Arc::clone(&pages);
        // This hook takes the place of SQLite's own, which would checkpoint within the commit.
        writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        let (wake, woken) = sync_channel(1);
        let turn = Arc::new(Mutex::new(()));
        let its_turn = Arc::clone(&turn);
        let work = move || work(&connection, &woken, &its_turn);
        let thread = std::thread::Builder::new().name("sqlite-log".to_owned()).spawn(work);
        // Without a thread the writer does all of it, in its larger steps.
        Ok(Self {
            busy_timeout,
            turn,
            pages,
            last: 0,
            next_wake: GROWN_PAGES,
            next_try: LONG_PAGES,
            wake: Some(wake),
            thread: thread.ok(),
        })
    }

    /// To be called by the writer between its commits.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.last {
            // The log began anew.
            (self.next_wake, self.next_try) = (GROWN_PAGES, LONG_PAGES);
        }
        self.last = pages;
        if pages >= self.next_wake
            && let Some(wake) = &self.wake
        {
            self.next_wake = pages.saturating_add(GROWN_PAGES);
            // Full means that it is woken already.
            let _ = wake.try_send(());
        }
        if pages >= self.next_try {
            self.next_try = pages.saturating_add(TRY_EVERY_PAGES);
            let _turn = self.turn.lock();
            let patience = writer.busy_timeout(READERS_PATIENCE);
            tell(patience.and_then(|()| checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)")));
            tell(writer.busy_timeout(self.busy_timeout));
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(connection: &Connection, woken: &Receiver<()>, turn: &Mutex<()>) {
    while woken.recv().is_ok() {
        let _turn = turn.lock();
        // Waits for nobody: what readers still need is left to the next one.
        tell(checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)"));
    }
}

fn checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
    // The answer tells whether all was done. If not, the next one goes on.
    connection.query_row(pragma, [], |_| Ok(()))
}

/// An error here loses nothing, for the log keeps what it holds; where the disk fails, the writer's own commits tell.
fn tell(done: rusqlite::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(error = %super::describe(&error), "the write-ahead log cannot be checkpointed; it grows");
    }
}
