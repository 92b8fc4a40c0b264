//! Turns: who was once too late with a change waits for the others who were, instead of running against them.
//!
//! The store's compare-and-swap is what keeps changes apart. But of fifty events of one student at one instant it lets
//! one through at a time and sends the others back, and the unlucky would run out of tries. In turn, each needs one or
//! two more. Whoever meets nobody takes no turn, so changes of different students share commits as before.

use tokio::sync::{Mutex, MutexGuard};

use crate::domain::ids::SubjectKey;

/// How many students can be told apart. Two of one queue only wait a little longer.
const QUEUES: usize = 1024;

/// The queues, by student.
pub(crate) struct Turns {
    queues: Box<[Mutex<()>]>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { queues: (0..QUEUES).map(|_| Mutex::default()).collect() }
    }
}

impl Turns {
    /// Waits for this student's turn, first come, first served. It ends when the guard is dropped.
    pub(crate) async fn take(&self, subject: SubjectKey) -> MutexGuard<'_, ()> {
        let [first, second, ..] = subject.as_bytes();
        let queue = usize::from(u16::from_be_bytes([*first, *second])) % QUEUES;
        self.queues[queue].lock().await
    }
}
