//! Receipts: lost, repeated, reordered, early, strange, never; and what comes of a message that fails on its way.

use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, Scope, SimStatus};
use crisis_relay::twilio::signature;
use serde_json::Value;

use crate::common::stage::s;
use crate::common::{Setting, World};

const ACCOUNT: &str = "AC00000000000000000000000000000000";

async fn world_with(fault: Fault) -> World {
    Setting::default().start_with(FaultRule::once(fault)).await
}

/// A message that Twilio has, and its SID.
async fn accepted(world: &mut World) -> (String, String) {
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    let sid = world.expect_on_the_phone(&reference).sid;
    (reference, sid)
}

#[tokio::test]
async fn receipts_that_are_lost_are_asked_for() {
    let mut world = world_with(Fault::CallbacksLost).await;
    let (reference, _) = accepted(&mut world).await;
    assert!(world.receipts().await.is_empty());
    assert!(world.receipts().await.is_empty());
    world.expect_state(&reference, "accepted").await;
    world.pass_in_steps(s(59), s(1)).await;
    assert_eq!(world.sim().stats().lookups, 0, "receipts have a minute to come by themselves");
    world.pass(s(1)).await;
    world.expect_state(&reference, "delivered").await;
    world.pass_in_steps(s(230), s(10)).await;
    assert_eq!(world.sim().stats().lookups, 1, "what has arrived is not asked for again");
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_failure_whose_receipt_was_lost_is_found_and_the_next_message_goes_soon() {
    let mut world = world_with(Fault::FailsLater { code: 63024, failed: false }).await;
    world.goes_wrong(FaultRule::once(Fault::CallbacksLost));
    let (reference, _) = accepted(&mut world).await;
    world.receipts().await;
    world.receipts().await;
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_state(&reference, "failed").await;
    world.pass_in_steps(s(30), s(1)).await;
    world.expect_only(&reference, 2);
}

#[tokio::test]
async fn receipts_that_are_repeated_are_answered_alike_and_booked_once() {
    let mut world = world_with(Fault::CallbacksRepeated { times: 3 }).await;
    let (reference, _) = accepted(&mut world).await;
    assert_eq!(world.receipts().await, [204; 4]);
    assert_eq!(world.receipts().await, [204; 4]);
    world.expect_state(&reference, "delivered").await;
    let alert = world.alert(&reference).await;
    let receipts = timeline(&alert).iter().filter(|entry| entry.starts_with("receipt")).count();
    assert_eq!(receipts, 2, "{alert}");
    assert_eq!(world.counted("crisis_relay_receipts_total{status=\"delivered\"}").await, 1.0);
    world.holds_its_promises().await;
}

/// What happened, each as the audit's word and, for receipts, the status.
fn timeline(alert: &Value) -> Vec<String> {
    let entries = alert["timeline"].as_array().expect("a timeline").iter();
    entries
        .map(|entry| {
            let what = entry["what"].as_str().unwrap().to_owned();
            let status = entry["status"].as_str().filter(|_| what.contains("receipt"));
            status.map_or(what.clone(), |status| format!("receipt {status}"))
        })
        .collect()
}

#[tokio::test]
async fn receipts_out_of_order_move_a_message_forward_only() {
    let mut world = world_with(Fault::CallbacksReordered).await;
    let (reference, _) = accepted(&mut world).await;
    assert!(world.receipts().await.is_empty(), "held back");
    assert_eq!(world.receipts().await, [204, 204], "delivered, then sent");
    world.expect_state(&reference, "delivered").await;
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "read").await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn fields_that_no_page_names_are_no_obstacle() {
    let mut world = world_with(Fault::CallbackExtraFields).await;
    let (reference, _) = accepted(&mut world).await;
    assert_eq!(world.receipts().await, [204]);
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "delivered").await;
}

#[tokio::test]
async fn a_message_that_stays_sent_is_asked_for_a_bounded_number_of_times_and_the_ladder_goes_on() {
    let mut world = world_with(Fault::NoReceipt).await;
    let (reference, sid) = accepted(&mut world).await;
    assert_eq!(world.receipts().await, [204]);
    world.pass_in_steps(s(299), s(13)).await;
    world.expect_state(&reference, "sent").await;
    assert_eq!(world.on_the_phone(&reference).len(), 1);
    world.pass(s(1)).await;
    assert_eq!(world.on_the_phone(&reference).len(), 2, "nobody has answered: the next round");
    let seen = world.expect_on_the_phone(&reference);
    assert_ne!(seen.sid, sid);

    // The polls of the first message end, while the ladder climbs on.
    world.pass_in_steps(s(2 * 3600), s(20)).await;
    let stored = world.stored(&reference).await;
    assert!(stored.next_action_at().is_some());
    let of_the_first = world.sim().stats().lookups;
    assert!(of_the_first >= 8, "{of_the_first}");
    let delivered = stored.deliveries[0].next_action_at();
    assert_eq!(delivered, None, "eight polls, and no more: {:?}", stored.deliveries[0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn unanswered_polls_are_bounded_too() {
    let mut world = Setting::default().with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "1h").start().await;
    let (reference, _) = accepted(&mut world).await;
    let away = Fault::ServerError { http_status: 503, retry_after_s: Some(1) };
    world.goes_wrong(FaultRule::always(away).on(Scope::Lookups));
    world.pass_in_steps(s(3599), s(61)).await;
    assert!((4..=8).contains(&world.sim().stats().lookups), "{:?}", world.sim().stats());
    world.sim().clear_faults();
    assert_eq!(world.receipts().await, [204]);
    world.expect_state(&reference, "sent").await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn read_after_delivered_is_booked_and_is_no_acknowledgement() {
    let mut world = World::new().await;
    let (reference, _) = accepted(&mut world).await;
    for state in ["sent", "delivered", "read"] {
        assert_eq!(world.receipts().await, [204]);
        world.expect_state(&reference, state).await;
    }
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    world.pass_in_steps(s(300), s(30)).await;
    world.expect_on_the_phone(&reference);
    world.expect_only(&reference, 2);
}

#[tokio::test]
async fn delivered_after_failed_shows_that_the_phone_has_it() {
    let mut world = World::new().await;
    let (reference, sid) = accepted(&mut world).await;
    let post = |status, code| {
        let (sim, sid) = (world.sim(), sid.clone());
        async move { sim.send_callback(&sid, status, code).await.unwrap() }
    };
    assert_eq!(post(SimStatus::Failed, Some(63024)).await, Some(204));
    world.expect_state(&reference, "failed").await;
    assert_eq!(post(SimStatus::Delivered, None).await, Some(204));
    world.expect_state(&reference, "delivered").await;
    assert_eq!(post(SimStatus::Undelivered, Some(63024)).await, Some(204));
    world.expect_state(&reference, "delivered").await;
    world.holds_its_promises().await;
}

/// A message that fails on its way with `code`: after `within` another is on the phone, and `alarmed` tells whether the
/// operator heard of it.
async fn fails_on_its_way(code: u32, failed: bool, within: Duration, alarmed: bool) {
    let mut world = world_with(Fault::FailsLater { code, failed }).await;
    let (reference, sid) = accepted(&mut world).await;
    while !world.sim().step(&sid).await.unwrap().is_empty() {}
    world.work().await;
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"][0]["error"]["code"], code, "{delivery}");
    assert_eq!(world.alarms("provider_refused").await, f64::from(u8::from(alarmed)), "{code}");
    world.pass_in_steps(within, Duration::from_millis(500)).await;
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_that_was_held_back_by_a_rate_is_sent_again_soon() {
    fails_on_its_way(63017, true, s(1), false).await;
}

#[tokio::test]
async fn a_message_that_met_a_switched_off_phone_is_sent_again_within_five_minutes() {
    // 30003: from two to ten minutes, and no more than the five that a crisis can wait; then the next round is due, too.
    let mut world = world_with(Fault::FailsLater { code: 30003, failed: false }).await;
    let (reference, _) = accepted(&mut world).await;
    while !world.receipts().await.is_empty() {}
    let due = world.next_action_after(&reference).await;
    assert!((s(120)..=s(300)).contains(&due), "{due:?}");
    world.pass(due - s(1)).await;
    assert_eq!(world.on_the_phone(&reference).len(), 1);
    world.pass(s(1)).await;
    world.expect_only(&reference, 2);
}

#[tokio::test]
async fn a_message_of_unknown_fate_at_the_carrier_is_followed_by_another() {
    fails_on_its_way(30410, false, s(30), false).await;
}

#[tokio::test]
async fn a_message_that_the_recipient_cannot_get_is_followed_by_another() {
    fails_on_its_way(63024, false, s(30), false).await;
}

#[tokio::test]
async fn a_message_to_somebody_who_opted_out_is_followed_by_another_and_alarms() {
    fails_on_its_way(63014, false, s(30), true).await;
}

#[tokio::test]
async fn free_text_outside_the_window_is_followed_by_another_and_alarms() {
    fails_on_its_way(63016, true, s(30), true).await;
}

#[tokio::test]
async fn a_paused_template_is_followed_by_another_and_alarms() {
    fails_on_its_way(63041, false, s(30), true).await;
}

#[tokio::test]
async fn an_unknown_code_on_the_way_is_followed_by_another() {
    fails_on_its_way(99_999, false, s(30), false).await;
}

#[tokio::test]
async fn a_failed_message_of_a_case_that_was_taken_is_not_sent_again() {
    let mut world = world_with(Fault::FailsLater { code: 63017, failed: true }).await;
    let (reference, sid) = accepted(&mut world).await;
    world.taken_by_reply(&reference).await;
    assert_eq!(world.sim().step(&sid).await.unwrap(), [204]);
    world.pass_in_steps(s(600), s(10)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

// -- receipts of nothing that is known here ---------------------------------------------------------------------------

/// Posts a receipt, rightly signed.
async fn post_receipt(world: &World, query: &str, account: &str, sid: &str, status: &str) -> u16 {
    let url = format!("{}webhooks/twilio/status{query}", world.base());
    let pairs = [("AccountSid", account), ("MessageSid", sid), ("MessageStatus", status)];
    let signature = signature::sign(&"simulator-auth-token".into(), &url, &pairs);
    let request = world.client().post(&url).form(&pairs).header(signature::SIGNATURE_HEADER, signature);
    crate::common::answer(request).await.status
}

#[tokio::test]
async fn receipts_of_messages_that_are_not_ours_are_answered_and_change_nothing() {
    let mut world = World::new().await;
    let (reference, sid) = accepted(&mut world).await;
    let before = world.stored(&reference).await;
    let stranger = "SM0123456789abcdef0123456789abcdef";
    let id = before.id;
    let nowhere = "0197c4de-7a00-7000-8000-0123456789ab";
    for (query, sid) in [
        ("", stranger),
        ("?alert=nonsense&delivery=1&attempt=1", stranger),
        (&format!("?alert={nowhere}&delivery=1&attempt=1"), stranger),
        (&format!("?alert={id}&delivery=2&attempt=1"), stranger),
        (&format!("?alert={id}&delivery=1&attempt=2"), stranger),
        (&format!("?alert={id}&delivery=1&attempt=4294967295"), stranger),
        // The attempt is ours, the message is not: one attempt made one message.
        (&format!("?alert={id}&delivery=1&attempt=1"), stranger),
        // Of a status that is none of ours.
        (&format!("?alert={id}&delivery=1&attempt=1"), &sid),
    ] {
        let status = if sid == stranger { "delivered" } else { "receiving" };
        assert_eq!(post_receipt(&world, query, ACCOUNT, sid, status).await, 204, "{query}");
    }
    assert_eq!(world.stored(&reference).await, before);
    assert!(world.counted("crisis_relay_webhooks_refused_total{kind=\"unmatched\"}").await >= 5.0);
}

#[tokio::test]
async fn a_receipt_without_its_query_is_found_by_the_message() {
    let mut world = World::new().await;
    let (reference, sid) = accepted(&mut world).await;
    assert_eq!(post_receipt(&world, "", ACCOUNT, &sid, "delivered").await, 204);
    world.expect_state(&reference, "delivered").await;
}

#[tokio::test]
async fn receipts_of_another_account_are_refused_and_change_nothing() {
    let mut world = World::new().await;
    let (reference, sid) = accepted(&mut world).await;
    let before = world.stored(&reference).await;
    let query = format!("?alert={}&delivery=1&attempt=1", before.id);
    let another = "AC11111111111111111111111111111111";
    assert_eq!(post_receipt(&world, &query, another, &sid, "delivered").await, 403);
    assert_eq!(world.stored(&reference).await, before);
}
