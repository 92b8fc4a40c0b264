//! A platform that lets processes die and gives them no time between requests: what is due is done when a scheduler calls.

use std::time::Duration;

use crisis_relay::clock::SystemClock;
use crisis_relay::ports::Clock as _;
use crisis_relay::simulator::{Fault, FaultRule};
use reqwest::Method;

use crate::college::{College, is_settled, prompt_receipts, say};
use crate::relay::{SERVICE, on_the_phone, timer, until};
use crate::verdict::all_is_well;

/// Between two looks of the worker, as far apart as they may be.
const POLL: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_whose_only_process_died_is_told_by_one_call_of_the_scheduler() {
    let Some(college) = College::fresh(prompt_receipts()).await else { return };
    let sim = college.twilio();
    // A message that waits for its next try, in nobody's hand, when its process dies.
    sim.push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(6) }));
    let slow = college.setting().with("CRISIS_RELAY__DELIVERY__LEASE", "11s");
    let slow = slow.with("CRISIS_RELAY__WORKER__POLL", &format!("{}s", POLL.as_secs()));
    let mut only = college.start(college.setting()).await;
    let reference = only.escalated("student-1").await;
    until("its call was refused", async || sim.stats().create_calls == 1).await;
    // Its worker has looked when this one starts, and will not look again before the call.
    let fresh = college.start(slow).await;
    let started = timer();
    fresh.until_ready().await;
    only.kill();
    college.callbacks_go_to(&fresh);
    until("its next try is due", async || {
        let alerts = college.alerts().await;
        alerts.iter().all(|alert| alert.next_action_at().is_some_and(|at| at < SystemClock.now()))
    })
    .await;
    assert_eq!(on_the_phone(&sim, &reference).len(), 0, "nobody has called, and it was told");

    let call = fresh.request(Method::POST, "/api/v1/tasks/run-due", SERVICE);
    let took = timer();
    let ran = fresh.send(call).await.expect(200).json();
    let (took, age) = (took(), started());
    assert_eq!(ran["caught_up"], true, "{ran}");
    assert_eq!(on_the_phone(&sim, &reference).len(), 1, "the call was answered, and nobody was told: {ran}");
    assert!(age < POLL, "the worker may have looked by itself: {age:?}");
    until("it is booked", async || college.alerts().await.iter().all(is_settled)).await;
    let twice = all_is_well(&college, &fresh, &[reference]).await;
    assert!(twice.is_empty(), "{twice:?}");
    say(&format!("zero: the scheduler's call took {took:.1?}, and the message was on the phone when it was answered"));
}
