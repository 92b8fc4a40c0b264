//! What Twilio can answer to a create call, and what comes of it.

use std::time::Duration;

use crisis_relay::domain::provider::ErrorClass;
use crisis_relay::simulator::{Fault, FaultRule};
use crisis_relay::twilio::error_codes::{ErrorCode, Phase, TABLE};

use crate::common::stage::{event, ms, s};
use crate::common::{Setting, World};

fn busy(retry_after_s: Option<u32>) -> Fault {
    Fault::TooManyRequests { retry_after_s }
}

fn refused(code: u32) -> Fault {
    Fault::Refused { code, http_status: http_status(code) }
}

/// The HTTP status that Twilio gives a code with.
fn http_status(code: u32) -> u16 {
    match code {
        10001 | 20005 | 20403 => 403,
        20003 => 401,
        20404 => 404,
        20429 => 429,
        20500 => 500,
        20503 => 503,
        _ => 400,
    }
}

// -- not executed -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_429_is_tried_again_within_its_jitter_and_the_phone_gets_one_message() {
    let mut world = Setting::default().start_with(FaultRule::once(busy(None))).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "due").await;
    assert!(world.next_action_after(&reference).await <= ms(500), "full jitter below the first limit");
    assert_eq!(world.calls(), 1, "not before its time");

    world.pass(ms(500)).await;
    assert_eq!(world.calls(), 2);
    world.expect_state(&reference, "accepted").await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_limit_of_the_jitter_doubles_with_every_429() {
    let mut world = Setting::default().start_with(FaultRule::next(5, busy(None))).await;
    let reference = world.told("student-1", 0.93).await;
    let mut latest = Duration::ZERO;
    for limit in [500, 1000, 2000, 4000, 8000].map(ms) {
        world.work().await;
        let at = world.next_action_after(&reference).await;
        assert!((latest..=latest + limit).contains(&at), "{at:?} is not within {limit:?} of {latest:?}");
        world.clock.advance(at - latest);
        latest = at;
    }
    world.work().await;
    assert_eq!(world.calls(), 6);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn jitter_spreads_many_alerts_that_met_a_429_together() {
    let mut world = Setting::default().start_with(FaultRule::next(20, busy(None))).await;
    let mut references = Vec::new();
    for student in 0..20 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    let mut times = Vec::new();
    for reference in &references {
        times.push(world.next_action_after(reference).await);
    }
    times.sort_unstable();
    times.dedup();
    assert!(times.len() >= 15, "spread: {times:?}");
    assert!(times[times.len() - 1] - times[0] > ms(150), "over the whole span: {times:?}");
    world.pass(ms(500)).await;
    for reference in &references {
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn nothing_is_sent_before_retry_after() {
    let mut world = Setting::default().start_with(FaultRule::once(busy(Some(7)))).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(ms(6_900), ms(100)).await;
    assert_eq!(world.calls(), 1);
    world.pass(ms(100)).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_retry_after_of_an_hour_is_held_to_a_minute() {
    let mut world = Setting::default().start_with(FaultRule::once(busy(Some(3600)))).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(59), s(1)).await;
    assert_eq!(world.calls(), 1);
    world.pass(s(1)).await;
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn attempts_are_bounded_by_number_and_then_the_ladder_goes_on() {
    let mut world = Setting::default().start_with(FaultRule::always(busy(None))).await;
    let reference = world.told("student-1", 0.93).await;
    world.pass_in_steps(s(16), ms(250)).await;
    assert_eq!(world.calls(), 6, "attempts_max");
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["state"], "failed", "{delivery}");
    assert_eq!(delivery["failure"]["reason"], "exhausted", "{delivery}");
    assert_eq!(world.alarms("delivery_exhausted").await, 1.0, "the operator hears of it");

    // Nobody is left without a next try: after half a minute a new message is planned, with attempts of its own.
    world.sim().clear_faults();
    world.pass_in_steps(s(30), s(1)).await;
    assert_eq!(world.calls(), 7);
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn attempts_are_bounded_by_time_and_then_the_ladder_goes_on() {
    let setting = Setting::default()
        .with("CRISIS_RELAY__DELIVERY__ATTEMPTS_MAX", "50")
        .with("CRISIS_RELAY__DELIVERY__GIVE_UP_AFTER", "35s");
    let mut world = setting.start_with(FaultRule::always(busy(Some(10)))).await;
    let reference = world.told("student-1", 0.93).await;
    world.pass_in_steps(s(41), ms(500)).await;
    // At 0, 10, 20, 30, and at 40 the time is over.
    assert_eq!(world.calls(), 5);
    assert_eq!(world.last_delivery(&reference).await["failure"]["reason"], "exhausted");
    world.sim().clear_faults();
    world.pass_in_steps(s(31), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn refused_connections_are_surely_not_executed_and_nothing_is_looked_up() {
    let mut world = World::new().await;
    let reference = world.told("student-1", 0.93).await;
    world.twilio_goes_away().await;
    world.work().await;
    world.expect_state(&reference, "due").await;
    world.pass_in_steps(s(10), ms(500)).await;
    world.twilio_comes_back().await;
    world.pass_in_steps(s(60), ms(500)).await;
    world.expect_only(&reference, 1);
    assert_eq!(world.sim().stats().lookups, 0, "there was nothing to look up");
    world.holds_its_promises().await;
}

// -- refused ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_delay_pauses_once_for_as_long_as_the_code_says_but_no_longer_than_a_crisis_can_wait() {
    // 21611: from 300 s to an hour; give_up_after is five minutes.
    let mut world = Setting::default().start_with(FaultRule::once(refused(21611))).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    assert_eq!(world.next_action_after(&reference).await, s(300));
    world.pass_in_steps(s(299), s(13)).await;
    assert_eq!(world.calls(), 1);
    world.pass(s(1)).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_second_delay_fails_the_message_and_the_next_one_goes_soon() {
    let mut world = Setting::default().start_with(FaultRule::next(2, refused(21611))).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass(s(300)).await;
    assert_eq!(world.calls(), 2);
    world.expect_state(&reference, "failed").await;
    world.pass_in_steps(s(30), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

/// A code that fails the message at once: told again after half a minute, and once what is wrong is mended it arrives.
async fn fails_at_once(fault: Fault, alarmed: bool) {
    let shown = format!("{fault:?}");
    let mut world = Setting::default().start_with(FaultRule::always(fault)).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "failed").await;
    assert_eq!(world.calls(), 1, "{shown}: not tried again as it is");
    assert_eq!(world.alarms("provider_refused").await, f64::from(u8::from(alarmed)), "{shown}");

    world.pass_in_steps(s(61), s(1)).await;
    assert_eq!(world.calls(), 3, "{shown}: told again by the ladder, half a minute apart");
    world.sim().clear_faults();
    world.pass_in_steps(s(30), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_number_that_cannot_be_reached_fails_at_once() {
    fails_at_once(refused(21211), false).await;
}

#[tokio::test]
async fn an_opt_out_fails_at_once_and_the_operator_is_told() {
    fails_at_once(refused(21610), true).await;
}

#[tokio::test]
async fn a_missing_template_fails_at_once_and_the_operator_is_told() {
    fails_at_once(refused(63016), true).await;
}

#[tokio::test]
async fn wrong_credentials_fail_at_once_and_it_works_when_the_operator_has_mended_them() {
    fails_at_once(refused(20003), true).await;
}

#[tokio::test]
async fn an_unknown_code_fails_at_once_and_the_operator_is_told() {
    fails_at_once(refused(99_999), true).await;
}

#[tokio::test]
async fn refusals_show_that_twilio_is_there_and_open_no_breaker() {
    let mut world = Setting::default().start_with(FaultRule::next(12, refused(21211))).await;
    for student in 0..12 {
        world.escalated(&format!("student-{student}")).await;
    }
    world.work().await;
    assert_eq!(world.calls(), 12);
    assert_eq!(world.readiness().await.1["twilio"], "ok");
}

// -- nobody knows -----------------------------------------------------------------------------------------------------

/// Unknown at first; looked up, not found, sent again: one message.
async fn looked_up_and_sent_again(fault: Fault) {
    let mut world = Setting::default().start_with(FaultRule::once(fault)).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    world.pass_in_steps(ms(11_900), ms(100)).await;
    assert_eq!(world.calls(), 1, "not before it was looked up as often as it should");
    assert_eq!(world.sim().stats().lookups, 2);
    world.pass(ms(100)).await;
    assert_eq!((world.calls(), world.sim().stats().lookups), (2, 3));
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_500_is_looked_up_and_then_sent_again() {
    looked_up_and_sent_again(Fault::ServerError { http_status: 500, retry_after_s: None }).await;
}

#[tokio::test]
async fn a_502_in_html_is_looked_up_and_then_sent_again() {
    looked_up_and_sent_again(Fault::HtmlBadGateway { accepted: false }).await;
}

#[tokio::test]
async fn a_503_is_not_looked_up_before_its_retry_after() {
    let fault = Fault::ServerError { http_status: 503, retry_after_s: Some(20) };
    let mut world = Setting::default().start_with(FaultRule::once(fault)).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(ms(19_900), ms(100)).await;
    assert_eq!(world.sim().stats().lookups, 0);
    world.pass_in_steps(ms(10_100), ms(100)).await;
    assert_eq!(world.sim().stats().lookups, 3);
    world.expect_only(&reference, 1);
}

/// Accepted, though the answer does not say so: found, adopted, and not sent again.
async fn looked_up_and_adopted(fault: Fault) {
    let mut world = Setting::default().start_with(FaultRule::once(fault)).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    world.pass(s(2)).await;
    world.expect_state(&reference, "accepted").await;
    assert_eq!(world.receipts().await, [204]);
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "delivered").await;
    world.pass_in_steps(s(290), s(10)).await;
    assert_eq!((world.calls(), world.sim().stats().lookups), (1, 1));
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_502_behind_which_the_message_was_made_is_found() {
    looked_up_and_adopted(Fault::HtmlBadGateway { accepted: true }).await;
}

#[tokio::test]
async fn a_201_without_a_body_is_found() {
    looked_up_and_adopted(Fault::EmptyAnswer).await;
}

// -- the whole table --------------------------------------------------------------------------------------------------

fn rows(phase: Phase) -> impl Iterator<Item = &'static ErrorCode> {
    TABLE.iter().filter(move |row| row.phase == phase || row.phase == Phase::Both)
}

/// The state in which a delivery is once a code of this class has struck it.
fn state_after(class: ErrorClass, phase: Phase) -> &'static str {
    match (class, phase) {
        (ErrorClass::Retry | ErrorClass::Delay, _) => "due",
        (ErrorClass::Ambiguous, Phase::Sync) => "unknown",
        (ErrorClass::Ambiguous, Phase::Async | Phase::Both)
        | (ErrorClass::Switch | ErrorClass::OptOut | ErrorClass::Template | ErrorClass::Config, _) => "failed",
    }
}

#[tokio::test]
async fn after_every_code_of_the_create_call_there_is_a_next_try_and_it_arrives() {
    let mut world = World::new().await;
    let mut cases = Vec::new();
    for row in rows(Phase::Sync) {
        world.goes_wrong(FaultRule::once(refused(row.code)));
        let reference = world.told(&format!("student-{}", row.code), 0.93).await;
        world.work().await;
        let delivery = world.last_delivery(&reference).await;
        assert_eq!(delivery["state"], state_after(row.class, Phase::Sync), "{}: {delivery}", row.code);
        let next = world.stored(&reference).await.next_action_at().expect("something is due");
        assert!(next <= world.now() + s(300), "{}: nothing is due before {next}", row.code);
        cases.push((row, reference));
    }
    assert!(cases.len() > 50, "the table was walked");
    world.pass_in_steps(s(60), s(1)).await;
    for (row, reference) in &cases {
        let arrived = usize::from(row.class != ErrorClass::Delay);
        assert_eq!(world.on_the_phone(reference).len(), arrived, "{}", row.code);
    }
    world.holds_its_promises().await;
}

#[tokio::test]
async fn after_every_code_of_a_receipt_there_is_a_next_try_and_it_arrives() {
    let mut world = World::new().await;
    let mut cases = Vec::new();
    for row in rows(Phase::Async) {
        // Twilio gives up by itself, or the carrier does.
        let failed = row.code % 2 == 0;
        world.goes_wrong(FaultRule::once(Fault::FailsLater { code: row.code, failed }));
        let reference = world.told(&format!("student-{}", row.code), 0.93).await;
        world.work().await;
        let sid = world.expect_on_the_phone(&reference).sid;
        while !world.sim().step(&sid).await.unwrap().is_empty() {}
        let delivery = world.last_delivery(&reference).await;
        assert_eq!(delivery["state"], state_after(row.class, Phase::Async), "{}: {delivery}", row.code);
        let next = world.stored(&reference).await.next_action_at().expect("something is due");
        assert!(next <= world.now() + s(300), "{}: nothing is due before {next}", row.code);
        cases.push((row, reference));
    }
    assert!(cases.len() > 50, "the table was walked");
    world.pass_in_steps(s(60), s(1)).await;
    for (row, reference) in &cases {
        let sent = world.on_the_phone(reference).len();
        // The pause of a delay is drawn from the code's own bounds.
        let least = if row.class == ErrorClass::Delay { 1 } else { 2 };
        assert!((least..=2).contains(&sent), "{}: {sent}", row.code);
    }
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_later_event_does_not_lose_the_next_try_of_an_earlier_one() {
    let mut world = Setting::default().start_with(FaultRule::once(busy(Some(30)))).await;
    let reference = world.told("student-1", 0.85).await;
    world.work().await;
    // Graver news, while the first message waits: that message takes the newer score, and there is still only one.
    world.event(&event("student-1", 1.0)).await.expect(202);
    world.pass_in_steps(s(31), s(1)).await;
    world.expect_only(&reference, 1);
    assert!(world.on_the_phone(&reference)[0].body.contains("1.00"), "{}", world.on_the_phone(&reference)[0].body);
}
