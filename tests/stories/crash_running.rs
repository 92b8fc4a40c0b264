//! The worker as it runs in production, by itself: woken by signals, guaranteed by its poll, and ended in good order.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::{ms, s};
use crate::common::{COUNSELLOR, Setting, World};

/// Long enough for a machine with much to do.
const SOON: Duration = Duration::from_secs(5);

/// Waits until the phone has a message of this case.
async fn arrives(world: &World, reference: &str) {
    world.sim().await_message(COUNSELLOR, SOON, |message| message.body.contains(reference)).await.unwrap();
}

#[tokio::test]
async fn an_event_wakes_the_worker_without_the_clock_moving() {
    let mut world = World::new().await;
    let worker = world.run_worker(s(1));
    for student in 0..5 {
        let reference = world.told(&format!("student-{student}"), 0.93).await;
        arrives(&world, &reference).await;
    }
    assert_eq!(world.now(), crate::common::START.parse().unwrap());
    worker.stopped().await;
    world.sim().assert_no_unexpected();
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_will_be_due_before_the_next_poll_is_done_in_time() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__WORKER__POLL", "10s")
        .start_with(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(2) }))
        .await;
    let worker = world.run_worker(s(1));
    world.worker_asleep().await;
    let reference = world.told("student-1", 0.93).await;
    world.until("Twilio has refused", async |world| world.calls() == 1).await;
    world.until("that is booked", async |world| world.last_delivery(&reference).await["state"] == "due").await;
    world.worker_asleep().await;
    world.clock.advance(s(2));
    arrives(&world, &reference).await;
    worker.stopped().await;
}

#[tokio::test]
async fn of_two_things_due_before_the_next_poll_the_later_one_is_not_forgotten() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__WORKER__POLL", "10s")
        .start_with(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(2) }))
        .await;
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) }));
    let worker = world.run_worker(s(1));
    world.worker_asleep().await;
    let mut references = Vec::new();
    for student in 0..2 {
        let reference = world.told(&format!("student-{student}"), 0.93).await;
        world.until("it is put off", async |world| world.last_delivery(&reference).await["state"] == "due").await;
        references.push(reference);
    }
    world.worker_asleep().await;
    world.clock.advance(s(2));
    arrives(&world, &references[0]).await;
    world.worker_asleep().await;
    world.clock.advance(s(3));
    arrives(&world, &references[1]).await;
    worker.stopped().await;
}

#[tokio::test]
async fn work_for_which_there_is_no_place_is_found_by_the_poll() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__WORKER__QUEUE_MAX", "1")
        .with("CRISIS_RELAY__WORKER__DUE_BATCH", "1")
        .start()
        .await;
    let mut references = Vec::new();
    for student in 0..6 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    let worker = world.run_worker(s(1));
    // One place: a look takes up one alert, if the one before has been seen to by then.
    for _ in 0..10 * references.len() {
        world.worker_asleep().await;
        world.clock.advance(ms(500));
        tokio::task::yield_now().await;
    }
    for reference in &references {
        arrives(&world, reference).await;
    }
    worker.stopped().await;
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn places_are_given_back_whatever_comes_of_the_work() {
    // Three places, and four times each kind of trouble: any that kept its place would stop the worker for good.
    let gate = Gate::new();
    let mut world = Setting::default()
        .with_gate(&gate)
        .with("CRISIS_RELAY__WORKER__QUEUE_MAX", "3")
        .with("CRISIS_RELAY__WORKER__DUE_BATCH", "3")
        .with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "1000")
        .start()
        .await;
    let worker = world.run_worker(s(1));
    for (kind, fault) in [
        Fault::TooManyRequests { retry_after_s: Some(60) },
        Fault::DropBeforeAccepting,
        Fault::Refused { code: 21211, http_status: 400 },
        Fault::EmptyAnswer,
        Fault::HtmlBadGateway { accepted: false },
    ]
    .into_iter()
    .enumerate()
    {
        for time in 0..4 {
            world.goes_wrong(FaultRule::once(fault.clone()));
            let reference = world.told(&format!("student-{kind}-{time}"), 0.93).await;
            let booked = async |world: &World| world.last_delivery(&reference).await["state"] != "sending";
            world.until(&format!("{fault:?} is booked"), booked).await;
        }
    }
    for time in 0..4 {
        // The commit of the event passes, the booking of what came of the call panics.
        let mut commits = 0;
        world.consents(&format!("student-panic-{time}")).await;
        gate.set(move |call| {
            commits += usize::from(call.name == "commit_alert");
            if commits == 2 && call.name == "commit_alert" { Fate::Panic } else { Fate::Pass }
        });
        world.told(&format!("student-panic-{time}"), 0.93).await;
        world.until("the booking panicked", async |_| gate.count("commit_alert") == 2).await;
    }
    gate.open();
    let last = world.told("student-last", 0.93).await;
    arrives(&world, &last).await;
    worker.stopped().await;
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_does_not_end_the_worker() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let reference = world.told("student-1", 0.93).await;
    gate.strike_named("commit_alert", Fate::Fail(StoreFault::Unavailable));
    let worker = world.run_worker(s(1));
    // It goes out: the claim was booked with the event. What came of it cannot be booked for a while.
    arrives(&world, &reference).await;
    for _ in 0..20 {
        world.clock.advance(s(1));
        tokio::task::yield_now().await;
    }
    gate.open();
    for _ in 0..20 {
        world.clock.advance(s(1));
        tokio::task::yield_now().await;
    }
    world
        .until("it is booked", async |world| world.stored(&reference).await.deliveries[0].state.name() == "accepted")
        .await;
    worker.stopped().await;
    world.sim().assert_no_unexpected();
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn a_panic_in_one_round_is_not_the_end_of_the_others() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    gate.strike_first("due_alerts", Fate::Panic);
    let worker = world.run_worker(s(1));
    world.worker_asleep().await;
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }));
    let reference = world.told("student-1", 0.93).await;
    world.until("it is put off", async |world| world.last_delivery(&reference).await["state"] == "due").await;
    world.worker_asleep().await;
    world.clock.advance(s(1));
    arrives(&world, &reference).await;
    worker.stopped().await;
}

// -- the end ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_call_that_is_under_way_is_finished_and_booked_before_the_end() {
    let mut world = Setting::default().start_with(FaultRule::once(Fault::Slow { ms: 100 })).await;
    let worker = world.run_worker(s(5));
    let reference = world.told("student-1", 0.93).await;
    arrives(&world, &reference).await;
    worker.stop();
    world.clock.advance(ms(100));
    worker.stopped().await;
    world.expect_state(&reference, "accepted").await;
}

#[tokio::test]
async fn what_was_handed_over_and_not_begun_is_done_before_the_end() {
    let mut world = World::new().await;
    let mut references = Vec::new();
    for student in 0..5 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    let worker = world.run_worker(s(5));
    worker.stop();
    worker.stopped().await;
    for reference in &references {
        world.expect_on_the_phone(reference);
        world.expect_state(reference, "accepted").await;
    }
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn what_the_last_round_takes_in_hand_is_done_before_the_end() {
    let gate = Gate::new();
    let mut world = Setting::default()
        .with_gate(&gate)
        .start_with(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }))
        .await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::PassAndWait(Arc::clone(&permits)));
    world.clock.advance(s(1));
    let worker = world.run_worker(s(5));
    world.until("the round has claimed it", async |_| gate.count("commit_alert") == 1).await;
    // The end is asked for between the claim and the hand-over.
    worker.stop();
    tokio::task::yield_now().await;
    permits.add_permits(1);
    worker.stopped().await;
    world.expect_on_the_phone(&reference);
    world.expect_state(&reference, "accepted").await;
}

#[tokio::test]
async fn a_store_that_hangs_does_not_hold_up_the_end_beyond_its_grace() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let reference = world.told("student-1", 0.93).await;
    let permits = Arc::new(Semaphore::new(0));
    gate.set(move |_| Fate::Wait(Arc::clone(&permits)));
    let worker = world.run_worker(ms(100));
    world.until("a round hangs", async |_| gate.count("unfinished_alerts") == 1).await;
    worker.stopped().await;
    // What the commit of the event had handed over was done, but for its booking.
    assert_eq!(world.on_the_phone(&reference).len(), 0, "its number could not be read");
}

#[tokio::test]
async fn a_round_that_hangs_does_not_hold_up_the_end_beyond_its_grace() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_named("due_alerts", Fate::Wait(permits));
    let worker = world.run_worker(ms(100));
    world.until("a round hangs", async |_| gate.count("due_alerts") == 1).await;
    worker.stopped().await;
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_found_again() {
    let mut world = Setting::default().start_with(FaultRule::once(Fault::AcceptThenTimeOut)).await;
    let worker = world.run_worker(Duration::ZERO);
    let reference = world.told("student-1", 0.93).await;
    arrives(&world, &reference).await;
    worker.stopped().await;
    let mut world = world.crash().await;
    world.pass_in_steps(s(60), s(1)).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
}
