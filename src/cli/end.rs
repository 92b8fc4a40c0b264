//! The end that was asked for comes, whatever holds the process up.
//!
//! Signals are heard on a thread of their own, with a small runtime of its own: where a disk hangs, the service's own
//! threads may be caught in it, and then they hear nothing. If the end in good order does not come within its time and a
//! little more, the thread ends the process. Nothing is lost by that: what was accepted is on disk, and whatever was in hand
//! is taken up by the next start.

use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::logging::LastLines;
use super::{LEFT_OVERS_WITHIN, asked_to_end};
use crate::config::Config;
use crate::simulator::SHUTDOWN_PATIENCE;

/// Exit status of a process that did not end by itself.
const CUT_OFF: i32 = 1;

/// What is granted beyond the longest end in good order: for what hangs, and for the last log lines.
const BEYOND_GRACE: Duration = LEFT_OVERS_WITHIN.saturating_add(Duration::from_secs(2));

/// What a service with this configuration may take to end in good order. The simulator, where it stands in for Twilio, is
/// stopped after all else, and waits for those who talk to it.
pub(super) fn longest_end(config: &Config) -> Duration {
    let simulator = if config.twilio.credentials.is_none() { SHUTDOWN_PATIENCE } else { Duration::ZERO };
    config.http.shutdown_grace.saturating_add(simulator)
}

/// Returns when the process is asked to end; from then on it has `within`, and a little more. Signals are heard from the
/// first poll on.
pub(super) async fn asked_to_end_within(within: Duration, last_lines: LastLines) {
    let asked = CancellationToken::new();
    let told = asked.clone();
    let Ok(small) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return asked_to_end().await;
    };
    let (tell, listening) = std::sync::mpsc::sync_channel(1);
    let watch = async move {
        let mut asked = pin!(asked_to_end());
        let already = futures::poll!(&mut asked).is_ready();
        // There is room for the one word.
        let _ = tell.send(());
        if !already {
            asked.await;
        }
        told.cancel();
        tokio::time::sleep(within.saturating_add(BEYOND_GRACE)).await;
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
        Ok(_) => {
            // A moment: nothing is to be begun that could not be ended.
            let _ = listening.recv();
            asked.cancelled().await;
        }
        Err(_) => asked_to_end().await,
    }
}
