//! The end that was asked for comes, whatever holds the process up.
//!
//! Signals are heard on a thread of their own, with a small runtime of its own: where a disk hangs, the service's own
//! threads may be caught in it, and then they hear nothing. If the end in good order does not come within its grace and a
//! little more, the thread ends the process. Nothing is lost by that: what was accepted is on disk, and whatever was in hand
//! is taken up by the next start.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::logging::LastLines;
use super::{LEFT_OVERS_WITHIN, asked_to_end};

/// Exit status of a process that did not end by itself.
const CUT_OFF: i32 = 1;

/// What an end in good order may take beyond its grace: for what hangs, and for the last log lines.
const BEYOND_GRACE: Duration = LEFT_OVERS_WITHIN.saturating_add(Duration::from_secs(2));

/// Returns when the process is asked to end; from then on it has `grace`, and a little more.
pub(super) async fn asked_to_end_within(grace: Duration, last_lines: LastLines) {
    let asked = CancellationToken::new();
    let told = asked.clone();
    let Ok(small) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return asked_to_end().await;
    };
    let watch = async move {
        asked_to_end().await;
        told.cancel();
        tokio::time::sleep(grace.saturating_add(BEYOND_GRACE)).await;
        tracing::error!(
            exit_status = CUT_OFF,
            "the end does not come by itself: something hangs, most likely the disk. The process is cut off; the next \
             start takes up what was in hand"
        );
        // Waits a moment for the line to be written.
        drop(last_lines);
        std::process::exit(CUT_OFF)
    };
    match std::thread::Builder::new().name("end".to_owned()).spawn(move || small.block_on(watch)) {
        Ok(_) => asked.cancelled().await,
        Err(_) => asked_to_end().await,
    }
}
