//! Work by call: where a process gets no time between requests, a scheduler's call does what is due.

use crisis_relay::simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::common::gate::{Fate, Fault as Unread, Gate};
use crate::common::stage::{ms, s};
use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR_KEY, SERVICE, Setting, World, answer};

const PATH: &str = "/api/v1/tasks/run-due";

/// A call that is under way.
fn calling(world: &World) -> JoinHandle<Answer> {
    let request = world.client().post(world.base().join(PATH).unwrap()).bearer_auth(SERVICE);
    tokio::spawn(answer(request))
}

#[tokio::test]
async fn a_call_takes_up_what_is_due_and_answers_once_it_is_done() {
    let busy = FaultRule::next(1, Fault::TooManyRequests { retry_after_s: None });
    let mut world = Setting::default().start_with(busy).await;
    let reference = world.told("ada", 0.93).await;
    world.work().await;
    world.expect_only(&reference, 0);

    // From here on nobody polls.
    world.clock.advance(s(10));
    let calling = calling(&world);
    world
        .until("the call has claimed it", async |world| world.last_delivery(&reference).await["state"] == "sending")
        .await;
    world.expect_only(&reference, 0);
    world.work().await;
    world.expect_only(&reference, 1);
    world.clock.advance(ms(50));
    let said = calling.await.unwrap().expect(200).json();
    assert_eq!(said, json!({ "caught_up": true, "in_hand": 0 }));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_answers_in_time_even_if_what_is_in_hand_takes_longer() {
    let world = World::new().await;
    world.told("ada", 0.93).await;
    // What the event gave to do stays in hand: nobody takes it.
    let calling = calling(&world);
    world.worker_asleep().await;
    world.clock.advance(s(8));
    let said = calling.await.unwrap().expect(200).json();
    assert_eq!(said, json!({ "caught_up": false, "in_hand": 1 }));
}

#[tokio::test]
async fn with_nothing_due_a_call_says_so_and_changes_nothing() {
    let mut world = World::new().await;
    world.told("ada", 0.93).await;
    world.work().await;
    let before = world.kept().await;
    for key in [SERVICE, ADMIN] {
        let said = world.request(Method::POST, PATH, Some(key), None).await.expect(200).json();
        assert_eq!(said, json!({ "caught_up": true, "in_hand": 0 }));
    }
    assert_eq!(world.kept().await, before);
}

#[tokio::test]
async fn only_a_scheduler_has_work_done_by_call() {
    let world = World::new().await;
    world.request(Method::POST, PATH, None, None).await.expect(401);
    for key in [COUNSELLOR_KEY, AUDITOR] {
        world.request(Method::POST, PATH, Some(key), None).await.expect(403);
    }
}

#[tokio::test]
async fn a_call_never_says_that_all_is_done_where_due_work_cannot_be_read() {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    gate.set(|call| if call.name == "due_alerts" { Fate::Fail(Unread::Unavailable) } else { Fate::Pass });
    world.request(Method::POST, PATH, Some(SERVICE), None).await.expect(503);
    gate.open();
    world.request(Method::POST, PATH, Some(SERVICE), None).await.expect(200);
}
