//! Twilio away for long, slow, or back with everything at once: nothing is lost, nothing runs away, and it shows.

use crisis_relay::domain::delivery::Delivery;
use crisis_relay::simulator::{Fault, FaultRule, Scope};

use crate::common::stage::{ms, s};
use crate::common::{COUNSELLOR_KEY, SERVICE, Setting};

/// The most calls that one alert may cost in an hour in which Twilio answers none. A message gets up to six attempts
/// within a minute or so, the next message comes half a minute later, and the breaker holds back most of the calls.
const CALLS_PER_HOUR_MAX: usize = 240;

#[tokio::test]
async fn after_an_hours_outage_the_message_arrives_within_a_minute_of_twilios_return() {
    let mut world = Setting::default().start_with(FaultRule::always(Fault::Outage)).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(3600), s(12)).await;
    world.expect_only(&reference, 0);
    let stored = world.stored(&reference).await;
    assert!(stored.next_action_at().unwrap() <= world.now() + s(60), "a next try is never far: {stored:?}");
    assert!(world.alarms("delivery_exhausted").await >= 1.0, "the operator has long heard of it");
    assert!(world.alarms("ladder_exhausted").await >= 1.0);

    world.sim().clear_faults();
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_calls_of_an_hours_outage_are_bounded() {
    let away = Fault::ServerError { http_status: 500, retry_after_s: None };
    let mut world = Setting::default().start_with(FaultRule::always(away).on(Scope::Everything)).await;
    world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(3600), s(12)).await;
    let stats = world.sim().stats();
    assert!(stats.create_calls >= 20, "it did not give up: {stats:?}");
    assert!(world.calls() <= CALLS_PER_HOUR_MAX, "{} calls", world.calls());
    assert!(stats.lookups <= 3 * stats.create_calls, "at most three look-ups of each: {stats:?}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_breaker_opens_shows_and_closes_again() {
    let mut world = Setting::default().start_with(FaultRule::always(Fault::Outage)).await;
    let mut references = Vec::new();
    for student in 0..8 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    assert!(world.readiness().await.1["twilio"] == "ok");
    world.work().await;
    let (ready, checks) = world.readiness().await;
    assert!(!ready && checks["twilio"] == "failing", "{checks}");
    assert_eq!(checks["store"], "ok", "events are still taken: {checks}");
    let without = world.request(reqwest::Method::GET, "/readyz?exclude=twilio", None, None).await;
    without.expect(200);
    let late = world.told("student-late", 0.93).await;
    references.push(late);

    world.sim().clear_faults();
    world.pass_in_steps(s(60), ms(500)).await;
    assert!(world.readiness().await.0, "{}", world.readiness().await.1);
    assert_eq!(world.counted("crisis_relay_provider_breaker_open").await, 0.0);
    for reference in &references {
        assert_eq!(world.on_the_phone(reference).len(), 1, "{reference}");
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn while_the_breaker_holds_calls_back_no_attempt_goes_out() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "1")
        .with("CRISIS_RELAY__TWILIO__BREAKER_OPEN_FIRST", "10s")
        .start_with(FaultRule::once(Fault::DropBeforeAccepting))
        .await;
    world.told("student-1", 0.93).await;
    world.work().await;
    let second = world.told("student-2", 0.93).await;
    world.work().await;
    assert_eq!(world.calls(), 1, "held back");
    world.expect_state(&second, "due").await;
    let wait = world.next_action_after(&second).await;
    assert!((s(10)..=s(11)).contains(&wait), "until a probe may go, spread by a second at the most: {wait:?}");
    world.pass_in_steps(s(40), s(1)).await;
    assert_eq!(world.on_the_phone(&second).len(), 1);
}

#[tokio::test]
async fn a_breaker_that_nobody_probes_does_not_keep_the_service_unready_for_ever() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "1")
        .start_with(FaultRule::once(Fault::DropBeforeAccepting))
        .await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    assert_eq!(world.readiness().await.1["twilio"], "failing");
    // The only case is taken by other ways: nothing is sent any more that could close the breaker.
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    let outcome = serde_json::json!({ "outcome": "safe_by_phone" });
    world.post(&path, COUNSELLOR_KEY, &outcome).await.expect(200);
    world.pass_in_steps(s(120), s(1)).await;
    assert_eq!(world.calls(), 1);
    let (ready, checks) = world.readiness().await;
    assert!(ready, "no call would be held back: {checks}");
    assert_eq!(world.counted("crisis_relay_provider_breaker_open").await, 0.0);
}

#[tokio::test]
async fn two_hundred_alerts_of_an_outage_all_arrive_afterwards() {
    let mut world = Setting::default().start_with(FaultRule::always(Fault::Outage)).await;
    let mut references = Vec::new();
    for student in 0..200 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    world.pass_in_steps(s(300), s(15)).await;
    assert_eq!(world.sim().messages().len(), 0);
    world.sim().clear_faults();
    world.pass_in_steps(s(90), s(1)).await;
    for reference in &references {
        // The ladder may have reached its next round meanwhile: then that is a message of its own.
        let made =
            |delivery: &Delivery| delivery.attempts.iter().filter(|attempt| attempt.provider_id.is_some()).count();
        let messages: Vec<usize> = world.stored(reference).await.deliveries.iter().map(made).collect();
        assert!(messages.contains(&1), "{reference}: {messages:?}");
        assert!(messages.iter().all(|count| *count <= 1), "{reference}: none twice: {messages:?}");
        assert_eq!(world.on_the_phone(reference).len(), messages.iter().sum::<usize>(), "{reference}");
    }
    // Only those whose calls were really made, as probes, can have used them up: held back is no attempt.
    let exhausted = world.alarms("delivery_exhausted").await;
    assert!(exhausted <= 20.0, "{exhausted} of 200 gave up");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn two_hundred_alerts_at_once_keep_the_senders_pace_and_cost_one_call_each() {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "20").start().await;
    let mut references = Vec::new();
    for student in 0..200 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    world.pass_in_steps(s(15), ms(500)).await;
    for reference in &references {
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
    assert_eq!(world.calls(), 200);
    let times: Vec<_> = world.sim().requests().iter().map(|request| request.at).collect();
    for window in times.windows(30) {
        assert!(window[29].duration_since(window[0]) >= jiff::SignedDuration::from_secs(1), "faster than the pace");
    }
}

#[tokio::test]
async fn a_burst_that_does_not_fit_into_a_lease_is_sent_all_the_same_and_soon() {
    // A lease that leaves one second for waiting: of six hundred messages only a hundred can wait their turn in hand.
    let mut world = Setting::default()
        .with("CRISIS_RELAY__DELIVERY__LEASE", "21s")
        .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "10s")
        .with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "80")
        .start()
        .await;
    let mut references = Vec::new();
    for student in 0..600 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    // 600 messages at 80 a second are seven and a half seconds' work.
    world.pass_in_steps(s(30), ms(500)).await;
    let arrived = references.iter().filter(|reference| !world.on_the_phone(reference).is_empty()).count();
    assert_eq!(arrived, 600);
    assert_eq!(world.calls(), 600);
    assert_eq!(world.alarms("delivery_exhausted").await, 0.0);
}

#[tokio::test]
async fn an_answer_after_the_lease_has_ended_is_still_taken() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__DELIVERY__LEASE", "5s")
        .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s")
        .start_with(FaultRule::once(Fault::Slow { ms: 6_000 }))
        .await;
    let reference = world.told("student-1", 0.93).await;
    let (sim, clock) = (world.sim(), world.clock.clone());
    let later = async {
        let made = sim.await_message(crate::common::COUNSELLOR, s(5), |_| true).await;
        clock.advance(s(6));
        made.unwrap()
    };
    let (sid, ()) = tokio::join!(async { later.await.sid }, world.work());
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"][0]["provider_id"], sid, "{delivery}");
    world.pass_in_steps(s(60), s(1)).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_provider_that_is_slow_for_everybody_loses_nothing() {
    let mut world = Setting::default().start_with(FaultRule::always(Fault::AcceptThenTimeOut)).await;
    let mut references = Vec::new();
    for student in 0..20 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    world.pass_in_steps(s(10), s(1)).await;
    world.sim().clear_faults();
    world.pass_in_steps(s(120), s(1)).await;
    for reference in &references {
        assert_eq!(world.on_the_phone(reference).len(), 1, "{reference}: looked up, not sent again");
    }
}

#[tokio::test]
async fn events_are_taken_and_readiness_tells_of_the_store_while_twilio_is_away() {
    let mut world = Setting::default().start_with(FaultRule::always(Fault::Outage)).await;
    world.work().await;
    for student in 0..10 {
        world.told(&format!("student-{student}"), 0.93).await;
        world.work().await;
    }
    let answer = world.event_with_key(&crate::common::stage::event("student-1", 0.99), "key-1").await.expect(202);
    let again = world.event_with_key(&crate::common::stage::event("student-1", 0.99), "key-1").await.expect(202);
    assert_eq!(answer.text, again.text);
    world.get("/api/v1/crisis/alerts", SERVICE).await.expect(403);
    world.holds_its_promises().await;
}
