//! Create calls of which nobody knows what became: looked up, adopted, or sent again; two messages rather than none, and
//! never more than two.

use crisis_relay::simulator::{Fault, FaultRule, Inbound, Quote, Scope, SimStatus};
use crisis_relay::twilio::error_codes::explain;

use crate::common::stage::{event, ms, s};
use crate::common::{COUNSELLOR, COUNSELLOR_KEY, Setting, World};

async fn world_with(fault: Fault) -> World {
    Setting::default().start_with(FaultRule::once(fault)).await
}

/// So long that every look-up and every further attempt is over, and short of the next step of the ladder.
async fn long_enough(world: &mut World) {
    world.pass_in_steps(s(60), ms(500)).await;
    world.pass_in_steps(s(200), s(10)).await;
}

#[tokio::test]
async fn a_message_that_was_accepted_before_the_time_out_is_found_and_not_sent_again() {
    let mut world = world_with(Fault::AcceptThenTimeOut).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    world.pass(s(2)).await;
    world.expect_state(&reference, "accepted").await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_that_lists_do_not_show_is_sent_a_second_time_and_never_a_third() {
    let mut world = world_with(Fault::AcceptThenTimeOutHidden).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 2);
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"][0]["result"], "not_found", "{delivery}");
    assert_eq!(delivery["attempts"][1]["result"], "accepted", "{delivery}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_time_out_without_acceptance_is_sent_again() {
    let mut world = world_with(Fault::TimeOutWithoutAccepting).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_connection_that_breaks_before_acceptance_is_sent_again() {
    let mut world = world_with(Fault::DropBeforeAccepting).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_connection_that_breaks_after_acceptance_is_found_and_not_sent_again() {
    let mut world = world_with(Fault::DropAfterAccepting).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
}

/// The answer to a reply names the cases that are open, in the look-up's list like any message to the phone.
#[tokio::test]
async fn the_words_that_are_said_back_to_a_reply_are_not_taken_for_an_alerts_message() {
    let mut world = World::new().await;
    let first = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_on_the_phone(&first);
    world.sim().push_fault(FaultRule::once(Fault::TimeOutWithoutAccepting));
    let second = world.told("student-2", 0.93).await;
    world.work().await;
    let written = Inbound::new(COUNSELLOR, "1").quoting(Quote::Nothing);
    let said = world.sim().receive(&written).await.unwrap().answers.concat();
    assert!(said.contains(&first) && said.contains(&second), "{said}");
    world.pass_in_steps(s(120), s(5)).await;
    world.expect_on_the_phone(&second);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_look_ups_fail_too_a_second_message_is_better_than_none() {
    let mut world = world_with(Fault::DropAfterAccepting).await;
    let away = Fault::ServerError { http_status: 503, retry_after_s: None };
    world.goes_wrong(FaultRule::always(away).on(Scope::Lookups));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    assert_eq!(world.last_delivery(&reference).await["attempts"][0]["result"], "unresolved");
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_look_up_that_fails_once_is_made_again_and_finds_the_message() {
    let mut world = world_with(Fault::DropAfterAccepting).await;
    let away = Fault::ServerError { http_status: 500, retry_after_s: None };
    world.goes_wrong(FaultRule::next(2, away).on(Scope::Lookups));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(60), ms(500)).await;
    assert_eq!((world.calls(), world.sim().stats().lookups), (1, 3));
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn look_ups_that_are_refused_do_not_silence_the_case() {
    let mut world = world_with(Fault::DropBeforeAccepting).await;
    world.goes_wrong(FaultRule::always(Fault::Refused { code: 20003, http_status: 401 }).on(Scope::Lookups));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 1);
    assert!(!explain(20003).remedy.is_empty());
}

#[tokio::test]
async fn a_callback_before_the_answer_settles_the_call_without_a_look_up() {
    let mut world = world_with(Fault::AcceptThenTimeOut).await;
    world.goes_wrong(FaultRule::once(Fault::CallbackEarly));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "sent").await;
    world.pass_in_steps(s(50), s(1)).await;
    assert_eq!((world.calls(), world.sim().stats().lookups), (1, 0), "neither sent nor looked up again");
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn an_early_callback_and_its_answer_agree() {
    let mut world = world_with(Fault::CallbackEarly).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "sent").await;
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "delivered").await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_callback_instead_of_the_answer_settles_the_attempt_without_a_look_up() {
    let mut world = world_with(Fault::AcceptThenTimeOutHidden).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.expect_state(&reference, "unknown").await;
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "sent").await;
    world.pass_in_steps(s(50), s(1)).await;
    assert_eq!((world.calls(), world.sim().stats().lookups), (1, 0));
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_callback_between_two_look_ups_spares_the_second_message() {
    let mut world = world_with(Fault::AcceptThenTimeOutHidden).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(8), s(1)).await;
    assert_eq!(world.sim().stats().lookups, 2);
    assert_eq!(world.receipts().await, [204]);
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn a_late_callback_after_a_second_message_changes_no_count_and_brings_no_third() {
    let mut world = world_with(Fault::AcceptThenTimeOutHidden).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(13), ms(500)).await;
    let [first, second] = world.on_the_phone(&reference).try_into().expect("two messages");
    // The first is delivered, and told of only now.
    assert_eq!(world.sim().step(&first.sid).await.unwrap(), [204]);
    assert_eq!(world.sim().step(&first.sid).await.unwrap(), [204]);
    world.expect_state(&reference, "delivered").await;
    // What the second one comes to does not take that back.
    let failed = world.sim().send_callback(&second.sid, SimStatus::Undelivered, Some(63024)).await.unwrap();
    assert_eq!(failed, Some(204));
    world.expect_state(&reference, "delivered").await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_late_callback_while_the_second_message_waits_spares_it() {
    let mut world = world_with(Fault::AcceptThenTimeOutHidden).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    // The second message is refused for half a minute; meanwhile the first is told of.
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(30) }));
    world.pass_in_steps(s(13), ms(500)).await;
    world.expect_state(&reference, "due").await;
    assert_eq!(world.receipts().await, [204]);
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "delivered").await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2, "the refused call was the last");
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn an_unknown_message_of_a_case_that_was_taken_is_not_sent_again() {
    let mut world = world_with(Fault::DropBeforeAccepting).await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.post(&format!("/api/v1/crisis/alerts/{reference}/acknowledge"), COUNSELLOR_KEY, &event("", 0.0)).await;
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_state(&reference, "cancelled").await;
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 0);
    world.holds_its_promises().await;
}

/// Two events of one student, both of unknown outcome: an older score and a graver one.
async fn two_of_one_alert(first: Fault, second: Fault) -> (World, String) {
    let mut world = world_with(first).await;
    world.goes_wrong(FaultRule::once(second));
    let reference = world.told("student-1", 0.85).await;
    world.work().await;
    world.event(&event("student-1", 0.97)).await.expect(202);
    world.work().await;
    assert_eq!(world.calls(), 2, "graver news go out beside the message of which nobody knows");
    (world, reference)
}

#[tokio::test]
async fn two_unknown_messages_of_one_alert_are_told_apart() {
    let (mut world, reference) = two_of_one_alert(Fault::DropAfterAccepting, Fault::DropAfterAccepting).await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 2);
    world.expect_only(&reference, 2);
    let stored = world.stored(&reference).await;
    let [first, second] = stored.deliveries.as_slice() else { panic!("two deliveries: {stored:?}") };
    let id = |delivery: &crisis_relay::domain::delivery::Delivery| delivery.attempts[0].provider_id.clone().unwrap();
    let shown = |score: &str| {
        let fits = |message: &&crisis_relay::simulator::SimMessage| message.body.contains(score);
        world.on_the_phone(&reference).iter().find(fits).expect("both scores are on the phone").sid.clone()
    };
    assert_eq!(id(first).as_str(), shown("0.85"), "the older message is the first delivery's");
    assert_eq!(id(second).as_str(), shown("0.97"), "the newer one is the second's");
}

#[tokio::test]
async fn graver_news_of_unknown_outcome_are_not_taken_for_the_older_message() {
    let (mut world, reference) = two_of_one_alert(Fault::DropAfterAccepting, Fault::DropBeforeAccepting).await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 3, "the second was sent again");
    let graver = world.on_the_phone(&reference).iter().filter(|message| message.body.contains("0.97")).count();
    assert_eq!(graver, 1, "the graver score is on the phone");
    world.expect_only(&reference, 2);
}

#[tokio::test]
async fn the_older_message_of_unknown_outcome_is_not_taken_for_the_graver_one() {
    let (mut world, reference) = two_of_one_alert(Fault::DropBeforeAccepting, Fault::DropAfterAccepting).await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 3);
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn unknown_messages_of_two_alerts_to_one_phone_are_told_apart() {
    let mut world = world_with(Fault::DropAfterAccepting).await;
    let first = world.told("student-1", 0.93).await;
    world.work().await;
    world.goes_wrong(FaultRule::once(Fault::DropBeforeAccepting));
    let second = world.told("student-2", 0.93).await;
    world.work().await;
    long_enough(&mut world).await;
    assert_eq!(world.calls(), 3, "the second was sent again, the first was not");
    assert_eq!(world.on_the_phone(&first).len(), 1);
    world.expect_on_the_phone(&first);
    world.expect_only(&second, 1);
}

#[tokio::test]
async fn twenty_time_outs_at_once_are_all_resolved() {
    let mut world = World::new().await;
    let mut references = Vec::new();
    for student in 0..20 {
        let fault = if student % 2 == 0 { Fault::DropAfterAccepting } else { Fault::DropBeforeAccepting };
        world.goes_wrong(FaultRule::once(fault));
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    world.pass_in_steps(s(120), s(1)).await;
    for reference in &references {
        assert_eq!(world.on_the_phone(reference).len(), 1, "{reference}");
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
    world.holds_its_promises().await;
}
