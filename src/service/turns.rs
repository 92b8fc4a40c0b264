//! Turns: changes of one student's case go one after the other within this process.
//!
//! The store's compare-and-swap alone keeps changes apart, between processes too. Turns only spare the losers their
//! way round: fifty events of one student would otherwise try again fifty times.

use tokio::sync::{Mutex, MutexGuard};

use crate::domain::ids::SubjectKey;

/// Students share a turn where their hashes share these low bits: 1024 turns are enough for no one to wait in practice.
const TURNS: usize = 1024;

pub(crate) struct Turns {
    turns: Vec<Mutex<()>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turns: (0..TURNS).map(|_| Mutex::new(())).collect() }
    }
}

impl Turns {
    /// Waits for the student's turn, which lasts until the guard is dropped.
    pub(crate) async fn take(&self, subject: SubjectKey) -> MutexGuard<'_, ()> {
        let bytes = subject.as_bytes();
        let place = usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % TURNS;
        self.turns[place].lock().await
    }
}
