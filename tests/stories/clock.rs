//! A clock that is set, as clocks are.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::event;
use crate::common::{SERVICE, Setting, World, answer};

/// A message that Twilio was too busy for waits for its next try; then somebody sets the clock.
async fn waiting(world: &mut World) -> String {
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    assert_eq!(world.sim().messages().len(), 0, "the first call is refused");
    reference
}

#[tokio::test]
async fn a_clock_set_back_by_an_hour_while_the_service_runs_delays_nothing_for_that_hour() {
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().start_with(busy).await;
    let reference = waiting(&mut world).await;
    let back = world.now() - jiff::SignedDuration::from_hours(1);
    world.clock.set(back);
    world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
    let message = world.sim().expect_message(crate::common::COUNSELLOR, |message| message.body.contains(&reference));
    let message = message.expect("the message waits for the clock to catch up");
    // Its time is pulled in to the longest pause that there is: five minutes, in which a delivery may be tried at all.
    assert!(message.created_at.duration_since(back) <= jiff::SignedDuration::from_secs(310), "{}", message.created_at);
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn a_case_that_could_not_be_read_when_the_clock_was_set_back_is_looked_at_again() {
    let gate = Gate::new();
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().with_gate(&gate).start_with(busy).await;
    let reference = waiting(&mut world).await;
    world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
    gate.strike_first("alert", Fate::Fail(StoreFault::Unavailable));
    world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
    world.expect_told(&reference);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_clock_set_back_while_nobody_ran_delays_nothing_either() {
    // On a store of one's own the recovery looks at everything; on a shared one there is none.
    for gate in [Gate::new(), Gate::shared()] {
        let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
        let mut world = Setting::default().with_gate(&gate).start_with(busy).await;
        let reference = waiting(&mut world).await;
        world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
        let mut world = world.crash().await;
        world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
        world.expect_told(&reference);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_case_whose_event_was_under_way_when_the_clock_was_set_back_goes_on() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    world.consents("student-1").await;
    world.work().await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let url = world.base().join("/api/v1/crisis/events").unwrap();
    let post = world.client().post(url).bearer_auth(SERVICE).json(&event("student-1", 0.93));
    let under_way = tokio::spawn(answer(post));
    world.until("the event is to be committed", async |_| gate.count("commit_alert") == 1).await;
    world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
    world.work().await;
    permits.add_permits(1);
    let reference = under_way.await.unwrap().expect(202).text_at("/reference");
    world.work().await;
    // It is read, so that nothing is due before the next round.
    while !world.receipts().await.is_empty() {}
    world.pass_in_steps(Duration::from_secs(700), Duration::from_secs(5)).await;
    assert!(world.on_the_phone(&reference).len() >= 2, "nobody answers, and nobody is told again");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_clock_set_forward_by_an_hour_loses_nothing() {
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().start_with(busy).await;
    let reference = waiting(&mut world).await;
    world.clock.advance(Duration::from_secs(3600));
    world.pass_in_steps(Duration::from_secs(60), Duration::from_secs(1)).await;
    world
        .sim()
        .expect_message(crate::common::COUNSELLOR, |message| message.body.contains(&reference))
        .expect("the message arrives");
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}
