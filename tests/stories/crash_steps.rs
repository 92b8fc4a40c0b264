//! The service dies between any two steps, and starts again: what was answered 2xx is on the phone, once, or twice where
//! nobody could know; and nothing ends in silence.
//!
//! Every step that lasts is a call of the store. So the calls of a whole run are counted, and then the world is stopped
//! before and after each of them: no step can be forgotten.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, Scope};

use crate::common::gate::{Fate, Gate};
use crate::common::stage::{event, s};
use crate::common::{COUNSELLOR, Setting, World};

/// What people have been told so far: whoever was not answered tries again after the crash.
#[derive(Default)]
struct Told {
    consented: bool,
    reference: Option<String>,
    taken: bool,
}

const STUDENT: &str = "student-1";

/// A whole case, from consent to acknowledgement; what is done already is not done again.
async fn case(world: &mut World, told: &mut Told) {
    if !told.consented {
        world.consents(STUDENT).await;
        told.consented = true;
    }
    if told.reference.is_none() {
        let answer = world.event_with_key(&event(STUDENT, 0.93), "key-1").await.expect(202);
        told.reference = Some(answer.text_at("/reference"));
    }
    let reference = told.reference.clone().unwrap();
    // Long enough for whatever is unknown to be looked up and sent again.
    world.work().await;
    for seconds in [2, 3, 5, 5, 1] {
        world.pass(s(seconds)).await;
    }
    while !world.receipts().await.is_empty() {}
    if !told.taken {
        world.taken_by_reply(&reference).await;
        told.taken = true;
    }
    world.work().await;
}

/// The case goes on to its end, and the world is as it should be.
async fn ends_well(world: &mut World, told: &mut Told, messages: &RangeInclusive<usize>, step: &str) {
    case(world, told).await;
    // Receipts that the dead service missed are asked for.
    world.pass(s(60)).await;
    world.pass(s(60)).await;
    let reference = told.reference.clone().unwrap();
    let count = world.on_the_phone(&reference).len();
    assert!(messages.contains(&count), "{step}: {count} messages are on the phone");
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), count, "{step}: messages of another case");
    let alert = world.alert(&reference).await;
    assert_eq!(alert["state"], "acknowledged", "{step}: {alert}");
    let states: Vec<_> = alert["deliveries"].as_array().unwrap().iter().map(|d| d["state"].clone()).collect();
    let arrived = ["delivered", "read"].iter().any(|state| states.contains(&(*state).into()));
    assert!(arrived, "{step}: the phone has it, and that is known: {states:?}");
    world.holds_its_promises().await;
}

/// Counts the calls of a run without a crash; then crashes before and after each of them, from `first` on.
async fn crashes_everywhere(fault: Option<Fault>, from: &str, messages: RangeInclusive<usize>) {
    let start = async |gate: &Arc<Gate>| {
        let world = Setting::default().with_gate(gate).start().await;
        if let Some(fault) = &fault {
            world.goes_wrong(FaultRule::once(fault.clone()));
        }
        gate.open();
        world
    };
    let gate = Gate::new();
    let mut world = start(&gate).await;
    case(&mut world, &mut Told::default()).await;
    let calls = gate.calls();
    let first = calls.iter().position(|call| call.name == from).expect("the run has such a call");
    assert!(calls.len() - first > 10, "the run has many steps: {calls:?}");
    drop(world);

    for call in &calls[first..] {
        // To die after a call that only reads is to die before the next one.
        let fates = [Fate::StopBefore, Fate::StopAfter].into_iter().take(if call.writes() { 2 } else { 1 });
        for fate in fates {
            let step = format!("{fate:?} {call:?}");
            let gate = Gate::new();
            let mut world = start(&gate).await;
            let mut told = Told::default();
            gate.strike(call.no, fate);
            let finished = gate.unless_stopped(case(&mut world, &mut told)).await;
            assert!(finished.is_none(), "{step}: the run did not get there");
            let mut world = world.crash().await;
            ends_well(&mut world, &mut told, &messages, &step).await;
        }
    }
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_case_loses_nothing_and_sends_nothing_twice() {
    crashes_everywhere(None, "consent", 1..=1).await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_finding_a_lost_answer_sends_nothing_twice() {
    crashes_everywhere(Some(Fault::DropAfterAccepting), "due_alerts", 1..=1).await;
}

#[tokio::test]
async fn a_crash_at_any_step_of_sending_again_sends_one_message() {
    crashes_everywhere(Some(Fault::DropBeforeAccepting), "due_alerts", 1..=1).await;
}

#[tokio::test]
async fn a_crash_at_any_step_after_a_429_sends_one_message() {
    let busy = Fault::TooManyRequests { retry_after_s: Some(2) };
    crashes_everywhere(Some(busy), "due_alerts", 1..=1).await;
}

#[tokio::test]
async fn a_crash_where_twilio_does_not_list_its_message_sends_one_more_and_no_third() {
    let world = Setting::default().start_with(FaultRule::once(Fault::AcceptThenTimeOutHidden)).await;
    let mut world = world;
    let reference = world.told(STUDENT, 0.93).await;
    let sim = world.sim();
    tokio::select! {
        _ = sim.await_message(COUNSELLOR, s(5), |_| true) => {}
        () = world.work() => panic!("the answer never comes"),
    }
    let mut world = world.crash().await;
    world.pass_in_steps(s(120), s(1)).await;
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_crash_while_twilio_is_slow_to_answer_finds_the_message_again() {
    let mut world = Setting::default().start_with(FaultRule::once(Fault::AcceptThenTimeOut)).await;
    let reference = world.told(STUDENT, 0.93).await;
    let sim = world.sim();
    tokio::select! {
        made = sim.await_message(COUNSELLOR, s(5), |_| true) => { made.unwrap(); }
        () = world.work() => panic!("the answer never comes"),
    }
    let mut world = world.crash().await;
    world.work().await;
    world.expect_state(&reference, "accepted").await;
    world.pass_in_steps(s(120), s(5)).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
}

/// Dies with a message in hand, before the call or in the midst of it; then Twilio is too busy to answer the first two
/// look-ups.
async fn crash_and_two_look_ups_in_vain(called: bool) {
    let mut world = Setting::default().start_with(FaultRule::once(Fault::AcceptThenTimeOut)).await;
    let reference = world.told(STUDENT, 0.93).await;
    if called {
        let sim = world.sim();
        tokio::select! {
            made = sim.await_message(COUNSELLOR, s(5), |_| true) => { made.unwrap(); }
            () = world.work() => panic!("the answer never comes"),
        }
    } else {
        world.sim().clear_faults();
    }
    let away = Fault::ServerError { http_status: 503, retry_after_s: None };
    world.goes_wrong(FaultRule::next(2, away).on(Scope::Lookups));
    let mut world = world.crash().await;
    let mut waited = 0;
    while world.sim().stats().lookups < 2 {
        assert!(waited < 60, "Twilio is not asked again");
        let stored = world.stored(&reference).await;
        assert!(stored.next_action_at().is_some(), "called: {called}, after {waited} s: nothing is due any more");
        world.pass(s(1)).await;
        waited += 1;
    }
    let calls = usize::from(called);
    assert_eq!(world.calls(), calls, "called: {called}: two refusals to answer say nothing of the message");
    // Long enough for everything else, and short of the next round.
    world.pass_in_steps(s(120), s(1)).await;
    assert_eq!(world.calls(), 1, "called: {called}");
    world.expect_only(&reference, 1);
    world.expect_state(&reference, "accepted").await;
    while !world.receipts().await.is_empty() {}
    world.taken_by_reply(&reference).await;
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_crash_in_the_call_and_two_look_ups_in_vain_bring_one_message() {
    crash_and_two_look_ups_in_vain(true).await;
}

#[tokio::test]
async fn a_crash_before_the_call_and_two_look_ups_in_vain_bring_one_message() {
    crash_and_two_look_ups_in_vain(false).await;
}

#[tokio::test]
async fn a_crash_after_the_commit_and_before_the_answer_is_made_good_by_the_same_key() {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    world.consents(STUDENT).await;
    gate.strike_named("commit_alert", Fate::StopAfter);
    let posted = gate.unless_stopped(world.event_with_key(&event(STUDENT, 0.93), "key-1")).await;
    assert!(posted.is_none(), "nobody was answered");
    gate.open();
    let mut world = world.crash().await;
    world.pass_in_steps(s(30), s(1)).await;
    // The backend was not answered. It asks again, and learns of the one alert that there is.
    let answer = world.event_with_key(&event(STUDENT, 0.93), "key-1").await.expect(202);
    assert_eq!(answer.headers["idempotent-replayed"], "true");
    assert_eq!(answer.text_at("/decision"), "escalated");
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_only(&answer.text_at("/reference"), 1);
    assert_eq!(
        world.get("/api/v1/crisis/alerts", crate::common::ADMIN).await.json()["alerts"][1],
        serde_json::Value::Null
    );
    world.holds_its_promises().await;
}

/// Dies with work in hand (before the call to Twilio, or after it), and dies again at every step of the recovery.
async fn crashes_in_recovery(called: bool) {
    let start = async |gate: &Arc<Gate>| {
        let mut world = Setting::default().with_gate(gate).without_recovery().start().await;
        let first = world.told(STUDENT, 0.93).await;
        world.work().await;
        let second = world.told("student-2", 0.93).await;
        if called {
            gate.strike_first("commit_alert", Fate::StopBefore);
            assert!(gate.unless_stopped(world.work()).await.is_none(), "it died before it could settle");
            gate.open();
        }
        (world.crash().await, first, second)
    };
    let gate = Gate::new();
    let (world, ..) = start(&gate).await;
    gate.open();
    world.worker().recover().await;
    let calls = gate.calls();
    assert!(calls.len() >= 4, "the recovery has steps: {calls:?}");
    drop(world);
    for call in calls {
        for fate in [Fate::StopBefore, Fate::StopAfter] {
            let step = format!("{fate:?} {call:?} of the recovery");
            let gate = Gate::new();
            let (world, first, second) = start(&gate).await;
            gate.strike(call.no, fate);
            let recovered = gate.unless_stopped(world.worker().recover()).await;
            assert!(recovered.is_none(), "{step}: it did not get there");
            let mut world = world.crash().await;
            world.worker().recover().await;
            world.work().await;
            world.pass_in_steps(s(60), s(5)).await;
            assert_eq!(world.on_the_phone(&first).len(), 1, "{step}");
            assert_eq!(world.on_the_phone(&second).len(), 1, "{step}");
            world.holds_its_promises().await;
        }
    }
}

#[tokio::test]
async fn a_crash_in_the_recovery_from_a_crash_before_the_call_loses_nothing() {
    crashes_in_recovery(false).await;
}

#[tokio::test]
async fn a_crash_in_the_recovery_from_a_crash_after_the_call_loses_nothing() {
    crashes_in_recovery(true).await;
}

#[tokio::test]
async fn a_service_that_dies_again_and_again_gets_through_in_the_end() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let mut told = Told::default();
    let mut lives = 0;
    loop {
        // It never lives for longer than a few steps.
        gate.strike(20, Fate::StopAfter);
        if gate.unless_stopped(case(&mut world, &mut told)).await.is_some() {
            break;
        }
        lives += 1;
        assert!(lives < 40, "it does not get on");
        gate.open();
        world = world.crash().await;
        world.clock.advance(Duration::from_secs(1));
    }
    gate.open();
    assert!(lives >= 2, "{lives}");
    let reference = told.reference.clone().unwrap();
    let count = world.on_the_phone(&reference).len();
    assert_eq!(count, 1, "looked up each time, never sent again");
    world.holds_its_promises().await;
}
