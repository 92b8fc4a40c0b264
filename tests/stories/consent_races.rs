//! Consent that changes while something is being decided on it: what was confirmed to the student holds, whoever was
//! faster, and whatever crashes in between.

use std::sync::Arc;

use crisis_relay::service::report::report;
use crisis_relay::simulator::{Fault, FaultRule};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::{event, s};
use crate::common::{Answer, COUNSELLOR_KEY, SERVICE, Setting, World};

const STUDENT: &str = "student-1";

async fn gated() -> (Arc<Gate>, World) {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    gate.open();
    (gate, world)
}

async fn says(world: &World, whatsapp: bool) -> Answer {
    let path = format!("/api/v1/messaging/preferences/{STUDENT}");
    let body = json!({ "whatsapp": whatsapp, "source": "app" });
    world.request(reqwest::Method::PUT, &path, Some(SERVICE), Some(&body)).await
}

/// An event about which everything has been read, and while it is being decided on the student says this, and is
/// answered.
async fn overtaken(gate: &Gate, world: &World, body: &Value, whatsapp: bool) -> Answer {
    let decides = Arc::new(Semaphore::new(0));
    gate.strike_first("intake_context", Fate::PassAndWait(Arc::clone(&decides)));
    let speaks = async {
        world.until("the event has read what it needs", async |_| gate.count("intake_context") == 1).await;
        says(world, whatsapp).await.expect(200);
        decides.add_permits(1);
    };
    let (answer, ()) = tokio::join!(world.event(body), speaks);
    answer.expect(202)
}

#[tokio::test]
async fn a_withdrawal_that_is_confirmed_while_an_event_opens_a_case_withholds_it() {
    let (gate, mut world) = gated().await;
    says(&world, true).await.expect(200);
    let answer = overtaken(&gate, &world, &event(STUDENT, 0.93), false).await;
    assert_eq!(answer.text_at("/decision"), "withheld_no_consent", "nobody may be told any more");
    world.pass_in_steps(s(900), s(60)).await;
    world.expect_only(&answer.text_at("/reference"), 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_withdrawal_that_is_confirmed_while_an_event_would_release_a_case_leaves_it_withheld() {
    let (gate, mut world) = gated().await;
    let open = world.event(&event(STUDENT, 0.93)).await.expect(202).text_at("/reference");
    says(&world, true).await.expect(200);
    let answer = overtaken(&gate, &world, &event(STUDENT, 0.95), false).await;
    assert_eq!(answer.text_at("/decision"), "withheld_no_consent", "nobody may be told any more");
    assert_eq!(answer.text_at("/reference"), open);
    world.pass_in_steps(s(900), s(60)).await;
    world.expect_only(&open, 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_yes_that_is_confirmed_while_an_event_is_decided_on_counts_as_well() {
    let (gate, mut world) = gated().await;
    let answer = overtaken(&gate, &world, &event(STUDENT, 0.93), true).await;
    assert_eq!(answer.text_at("/decision"), "escalated");
    world.work().await;
    world.expect_only(&answer.text_at("/reference"), 1);
}

#[tokio::test]
async fn an_override_does_not_wait_for_what_the_student_says() {
    let (gate, mut world) = gated().await;
    let mut body = event(STUDENT, 0.93);
    body["emergency_override"] = json!({ "by": "Dr. Rao", "reason": "life at risk" });
    let answer = overtaken(&gate, &world, &body, false).await;
    assert_eq!(answer.text_at("/decision"), "escalated");
    assert_eq!(gate.count("commit_alert"), 1, "it was committed at the first go");
    world.work().await;
    world.expect_only(&answer.text_at("/reference"), 1);
}

/// A case whose first message Twilio had no time for: it is to be sent again in a minute.
async fn to_be_sent_again(world: &mut World) -> String {
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(60) }));
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.expect_only(&reference, 0);
    reference
}

/// How the case stands, and its last message.
async fn stands(world: &World, reference: &str) -> (Value, Value) {
    let alert = world.alert(reference).await;
    (alert["state"].clone(), world.last_delivery(reference).await["state"].clone())
}

#[tokio::test]
async fn a_withdrawal_is_confirmed_only_once_nothing_rests_on_it_any_more() {
    let (gate, mut world) = gated().await;
    let reference = to_be_sent_again(&mut world).await;
    let withholds = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&withholds)));
    {
        let world = &world;
        let withdrawal = says(world, false);
        tokio::pin!(withdrawal);
        tokio::select! {
            answer = &mut withdrawal => panic!("answered {} before the case was withheld", answer.status),
            () = world.until("the case is about to be withheld", async |_| gate.count("commit_alert") == 1) => {}
        }
        assert_eq!(gate.count("commit_consent"), 1, "the word itself is durable");
        withholds.add_permits(1);
        withdrawal.await.expect(200);
    }
    assert_eq!(stands(&world, &reference).await, ("withheld".into(), "cancelled".into()));
    world.pass_in_steps(s(900), s(60)).await;
    world.expect_only(&reference, 0);
}

#[tokio::test]
async fn where_the_case_cannot_be_withheld_the_withdrawal_is_not_confirmed_and_holds_all_the_same() {
    let (gate, mut world) = gated().await;
    let reference = to_be_sent_again(&mut world).await;
    gate.strike_first("commit_alert", Fate::Fail(StoreFault::Unavailable));
    assert_eq!(says(&world, false).await.status, 503);
    gate.open();
    assert_eq!(stands(&world, &reference).await, ("escalating".into(), "due".into()));
    // The retry is due: whoever takes it up asks what the student says now.
    world.pass_in_steps(s(900), s(60)).await;
    assert_eq!(stands(&world, &reference).await, ("withheld".into(), "cancelled".into()));
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_crash_between_a_withdrawal_and_what_it_ends_is_made_good_at_the_next_start() {
    let (gate, mut world) = gated().await;
    let reference = to_be_sent_again(&mut world).await;
    gate.strike_first("commit_consent", Fate::StopAfter);
    assert!(gate.unless_stopped(says(&world, false)).await.is_none(), "it died before it could answer");
    gate.open();
    let mut world = world.crash().await;
    assert_eq!(stands(&world, &reference).await, ("withheld".into(), "cancelled".into()));
    assert_eq!(world.alarms("consent_withdrawn").await, 1.0);
    world.pass_in_steps(s(900), s(60)).await;
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_case_that_is_woken_while_the_student_takes_their_word_back_is_not_told() {
    let (gate, mut world) = gated().await;
    let reference = to_be_sent_again(&mut world).await;
    world.clock.advance(s(61));
    // The worker has read the word, and has not claimed the message yet; the process that takes the withdrawal down
    // dies before it comes to the case.
    let claims = Arc::new(Semaphore::new(0));
    gate.strike_first("consent", Fate::PassAndWait(Arc::clone(&claims)));
    let worker = world.worker();
    let withdrawal = async {
        world.until("the worker has read the word", async |_| gate.count("consent") == 1).await;
        gate.strike_named("intake_context", Fate::Fail(StoreFault::Unavailable));
        assert_eq!(says(&world, false).await.status, 503);
        claims.add_permits(1);
    };
    tokio::join!(worker.round(), withdrawal);
    gate.open();
    assert_eq!(stands(&world, &reference).await, ("withheld".into(), "cancelled".into()));
    world.work().await;
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
}

/// Two cases, of which the second has been claimed and waits for its turn at the sender's pace, while `meanwhile`.
async fn waiting_for_its_turn(meanwhile: impl AsyncFn(&World, &str)) -> (World, String) {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "1").start().await;
    let worker = world.run_worker(s(30));
    let first = world.told("student-0", 0.93).await;
    world.until("the first was told", async |world| world.on_the_phone(&first).len() == 1).await;
    world.expect_only(&first, 1);
    let second = world.told(STUDENT, 0.93).await;
    assert_eq!(stands(&world, &second).await, ("escalating".into(), "sending".into()));
    meanwhile(&world, &second).await;
    for _ in 0..20 {
        world.worker_asleep().await;
        world.clock.advance(s(1));
    }
    worker.stop();
    worker.stopped().await;
    (world, second)
}

#[tokio::test]
async fn a_message_that_waits_for_its_turn_is_not_sent_once_the_withdrawal_is_confirmed() {
    let withdraws = async |world: &World, _: &str| {
        says(world, false).await.expect(200);
    };
    let (world, reference) = waiting_for_its_turn(withdraws).await;
    assert_eq!(stands(&world, &reference).await, ("withheld".into(), "cancelled".into()));
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
    let organisation = "default".parse().unwrap();
    let told = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    let attempt = told.find("message 1 attempt 1").expect("it was claimed, and stands in the report");
    assert!(told[attempt..].contains("not sent"), "what was never sent must not read as disclosed: {told}");
}

#[tokio::test]
async fn a_message_that_waits_for_its_turn_is_not_sent_once_the_case_is_taken() {
    let takes = async |world: &World, reference: &str| {
        let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
        world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    };
    let (world, reference) = waiting_for_its_turn(takes).await;
    assert_eq!(stands(&world, &reference).await, ("acknowledged".into(), "cancelled".into()));
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_that_waits_for_its_turn_and_is_wanted_still_is_sent() {
    let (world, reference) = waiting_for_its_turn(async |_, _| {}).await;
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_withdrawal_that_is_confirmed_while_a_message_waits_for_a_place_among_the_calls_keeps_it_back() {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__MAX_CONCURRENCY", "1").start().await;
    says(&world, true).await.expect(200);
    world.goes_wrong(FaultRule::once(Fault::Slow { ms: 1000 }));
    let worker = world.run_worker(s(30));
    let first = world.told("student-0", 0.93).await;
    world.until("the first call holds the only place", async |world| world.on_the_phone(&first).len() == 1).await;
    let second = world.event(&event(STUDENT, 0.93)).await.expect(202).text_at("/reference");

    says(&world, false).await.expect(200);
    assert!(world.on_the_phone(&second).is_empty(), "it waits for the place yet");
    world
        .until("the second message is given up", async |world| {
            world.last_delivery(&second).await["state"] == "cancelled"
        })
        .await;

    worker.stop();
    world.expect_only(&first, 1);
}
