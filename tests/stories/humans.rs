//! People: they take a case by reply or by API, close it with an outcome, and override what was withheld.

use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, Inbound, Quote, SimReply, SimStatus};
use serde_json::{Value, json};

use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, World};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A world with one case, whose message is on the phone.
async fn told() -> (World, String) {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    (world, reference)
}

/// A reply that quotes nothing.
async fn writes(world: &World, from: &str, text: &str) -> SimReply {
    world.sim().receive(&Inbound::new(from, text).quoting(Quote::Nothing)).await.unwrap()
}

async fn state(world: &World, reference: &str) -> String {
    world.alert(reference).await["state"].as_str().unwrap().to_owned()
}

async fn acts(world: &World, reference: &str, verb: &str, key: &str, body: &Value) -> Answer {
    world.post(&format!("/api/v1/crisis/alerts/{reference}/{verb}"), key, body).await
}

async fn resolves(world: &World, reference: &str, key: &str, outcome: &str) -> Answer {
    acts(world, reference, "resolve", key, &json!({ "outcome": outcome })).await
}

#[tokio::test]
async fn whoever_is_authenticated_takes_a_case_and_others_are_told_that_it_is_taken() {
    let (world, reference) = told().await;
    let taken = acts(&world, &reference, "acknowledge", COUNSELLOR_KEY, &json!({})).await.expect(200).json();
    assert_eq!((&taken["state"], &taken["detail"]["via"]), (&json!("acknowledged"), &json!("api")), "{taken}");
    let again = acts(&world, &reference, "acknowledge", ADMIN, &json!({})).await.expect(409);
    assert_eq!(again.text_at("/code"), "conflict");
    let reply = writes(&world, COUNSELLOR, &format!("1 {reference}")).await;
    assert!(reply.answers.concat().contains("taken already"), "{reply:?}");
    let quoting = world.sim().reply(COUNSELLOR, "1").await.unwrap();
    assert!(quoting.answers.concat().contains("taken already"), "{quoting:?}");
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_reply_takes_the_case_however_it_is_typed() {
    for text in ["1", " 1. ", "ack", "ACK", "yes", "Yes!", "1 {}", "ack {}", "yes {lower}", "1 {dashed}"] {
        let (world, reference) = told().await;
        let dashed = format!("{}-{}", &reference[..4], &reference[4..]);
        let lower = reference.to_lowercase();
        let text = text.replace("{}", &reference).replace("{lower}", &lower).replace("{dashed}", &dashed);
        let reply = writes(&world, COUNSELLOR, &text).await;
        assert_eq!(reply.answers.len(), 1, "{text}: {reply:?}");
        assert!(reply.answers[0].contains(&format!("{reference} is yours")), "{text}: {reply:?}");
        let alert = world.alert(&reference).await;
        assert_eq!((&alert["state"], &alert["detail"]["via"]), (&json!("acknowledged"), &json!("reply")), "{text}");
        assert_eq!(alert["detail"]["by"], json!({ "kind": "contact", "id": "counsellor" }), "{text}");
        world.assert_audit_verifies().await;
    }
}

#[tokio::test]
async fn a_reply_that_twilio_posts_twice_is_confirmed_twice_and_counts_once() {
    let (world, reference) = told().await;
    let reply = Inbound::new(COUNSELLOR, "1").with_sid("SM0123456789abcdef0123456789abcdef");
    let first = world.sim().receive(&reply).await.unwrap();
    let kept = world.kept().await;
    let again = world.sim().receive(&reply).await.unwrap();
    assert!(first.answers[0].contains(&format!("{reference} is yours")), "{first:?}");
    assert_eq!(again.answers, first.answers, "it is theirs still: nobody else took it");
    assert_eq!(world.kept().await, kept);
}

#[tokio::test]
async fn where_several_cases_wait_the_phone_is_asked_which_one() {
    let (mut world, first) = told().await;
    world.pass(Duration::from_secs(1)).await;
    let second = world.escalated("student-2").await.text_at("/reference");
    world.work().await;
    world.expect_told(&second);
    let reply = writes(&world, COUNSELLOR, "1").await;
    assert!(reply.answers[0].contains(&format!("Refs {second} and {first} are open for you")), "{reply:?}");
    assert_eq!((state(&world, &first).await, state(&world, &second).await), ("escalating".into(), "escalating".into()));

    let reply = writes(&world, COUNSELLOR, &format!("1 {first}")).await;
    assert!(reply.answers[0].contains(&format!("{first} is yours")), "{reply:?}");
    assert_eq!(
        (state(&world, &first).await, state(&world, &second).await),
        ("acknowledged".into(), "escalating".into())
    );
    // Only one is left: it needs no reference.
    let reply = writes(&world, COUNSELLOR, "1").await;
    assert!(reply.answers[0].contains(&format!("{second} is yours")), "{reply:?}");
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_reply_that_quotes_our_message_takes_the_case_of_that_message() {
    let (mut world, first) = told().await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let second = world.escalated("student-2").await.text_at("/reference");
    world.work().await;
    world.expect_told(&second);
    let reply = Inbound::new(COUNSELLOR, "yes").quoting(Quote::Sid(quoted));
    let reply = world.sim().receive(&reply).await.unwrap();
    assert!(reply.answers[0].contains(&format!("{first} is yours")), "{reply:?}");
    assert_eq!(
        (state(&world, &first).await, state(&world, &second).await),
        ("acknowledged".into(), "escalating".into())
    );
}

#[tokio::test]
async fn a_reply_that_quotes_one_case_and_names_another_takes_the_one_that_was_typed() {
    let (mut world, first) = told().await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let second = world.escalated("student-2").await.text_at("/reference");
    world.work().await;
    world.expect_told(&second);
    let reply = Inbound::new(COUNSELLOR, &format!("1 {second}")).quoting(Quote::Sid(quoted));
    let reply = world.sim().receive(&reply).await.unwrap();
    assert_eq!(state(&world, &first).await, "escalating", "the words named another case: {reply:?}");
    assert!(reply.answers[0].contains(&format!("{second} is yours")), "what was typed is what was meant: {reply:?}");
}

#[tokio::test]
async fn a_hidden_number_takes_the_case_by_quoting_our_message_only() {
    let (world, reference) = told().await;
    let hidden = "whatsapp:IN.1234567890";
    let reply = writes(&world, hidden, "1").await;
    assert!(reply.answers.concat().starts_with("Nothing was done"), "nobody knows who it is: {reply:?}");
    assert_eq!(state(&world, &reference).await, "escalating");
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let reply = world.sim().receive(&Inbound::new(hidden, "1").quoting(Quote::Sid(quoted))).await.unwrap();
    assert!(reply.answers[0].contains(&format!("{reference} is yours")), "{reply:?}");
    assert_eq!(world.alert(&reference).await["detail"]["by"]["id"], "counsellor");
}

#[tokio::test]
async fn other_words_are_answered_with_help_and_take_nothing() {
    let (world, reference) = told().await;
    for text in ["who is this?", "10", "3", "1 please call me", "no", "👍", "1 K7Q4TX3"] {
        let reply = writes(&world, COUNSELLOR, text).await;
        assert!(reply.answers[0].contains("Reply 1 to take the case"), "{text}: {reply:?}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn words_about_a_case_that_no_longer_waits_are_kept_and_take_nothing() {
    let (world, reference) = told().await;
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    for (outcome, answer) in [(None, "noted for the team"), (Some("safe_in_person"), "is closed. Your words are noted")]
    {
        if let Some(outcome) = outcome {
            resolves(&world, &reference, COUNSELLOR_KEY, outcome).await.expect(200);
        }
        let reply = world.sim().reply(COUNSELLOR, "thanks, on my way").await.unwrap();
        assert!(reply.answers.concat().contains(answer), "{reply:?}");
        assert_ne!(state(&world, &reference).await, "escalating");
    }
}

#[tokio::test]
async fn nothing_is_said_to_the_providers_own_words_nor_to_strangers() {
    let (world, reference) = told().await;
    for text in ["STOP", "stop.", "HELP", "START", "unsubscribe"] {
        let reply = writes(&world, COUNSELLOR, text).await;
        assert_eq!((reply.http_status, reply.answers.len()), (200, 0), "{text}: {reply:?}");
    }
    for text in ["1", "yes", "hello", &format!("1 {reference}")] {
        let reply = writes(&world, "+919811111111", text).await;
        assert_eq!((reply.http_status, reply.answers.len()), (200, 0), "{text}: {reply:?}");
    }
    let reply = writes(&world, COUNSELLOR, "1 ZZZZZZZZ").await;
    assert_eq!(reply.answers, ["No case waits for you. Nothing is needed from you."], "of that reference");
    assert_eq!(state(&world, &reference).await, "escalating");
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_late_reply_to_a_closed_case_hears_that_it_is_closed() {
    let (world, reference) = told().await;
    resolves(&world, &reference, COUNSELLOR_KEY, "false_alarm").await.expect(200);
    let reply = world.sim().reply(COUNSELLOR, "1").await.unwrap();
    assert!(reply.answers[0].contains(&format!("{reference} is closed")), "{reply:?}");
    assert_eq!(state(&world, &reference).await, "resolved");
    acts(&world, &reference, "acknowledge", COUNSELLOR_KEY, &json!({})).await.expect(409);
}

#[tokio::test]
async fn an_acknowledgement_stops_the_ladder_until_an_outcome_is_overdue() {
    let (mut world, reference) = told().await;
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    world.pass_in_steps(14 * MINUTE, 30 * Duration::from_secs(1)).await;
    world.sim().assert_no_unexpected();
    world.assert_nothing_is_silent().await;
    assert_eq!(state(&world, &reference).await, "acknowledged");

    world.pass_in_steps(MINUTE, Duration::from_secs(10)).await;
    assert!(world.expect_told(&reference).body.contains("no outcome is noted yet"), "they are reminded first");
    assert_eq!(state(&world, &reference).await, "acknowledged");
    world.pass_in_steps(5 * MINUTE, Duration::from_secs(10)).await;
    world.expect_told(&reference);
    assert_eq!(state(&world, &reference).await, "escalating", "no outcome in time: it goes on");
    assert_eq!(world.metric("crisis_relay_alarms_total{kind=\"reopened\"}").await, Some(1.0));
    let timeline = world.alert(&reference).await["timeline"].to_string();
    assert!(timeline.contains("reopened"), "{timeline}");
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn with_an_outcome_nothing_is_sent_for_hours() {
    let (mut world, reference) = told().await;
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    resolves(&world, &reference, COUNSELLOR_KEY, "safe_by_phone").await.expect(200);
    world.pass_in_steps(6 * HOUR, 10 * MINUTE).await;
    world.sim().assert_no_unexpected();
    assert_eq!(state(&world, &reference).await, "resolved");
}

#[tokio::test]
async fn a_message_that_waits_for_its_retry_is_cancelled_by_whoever_takes_or_closes_the_case() {
    for (verb, body) in [("acknowledge", json!({})), ("resolve", json!({ "outcome": "safe_by_phone" }))] {
        let mut world = World::new().await;
        world.sim().push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(20) }));
        let reference = world.escalated("student-1").await.text_at("/reference");
        world.work().await;
        assert_eq!(world.alert(&reference).await["deliveries"][0]["state"], "due");
        let after = acts(&world, &reference, verb, COUNSELLOR_KEY, &body).await.expect(200).json();
        assert_eq!(after["deliveries"][0]["state"], "cancelled", "{verb}: {after}");
        world.pass_in_steps(5 * MINUTE, Duration::from_secs(10)).await;
        assert_eq!(world.sim().requests().len(), 1, "{verb}: only the call that was refused");
        world.assert_audit_verifies().await;
    }
}

#[tokio::test]
async fn a_case_is_closed_with_each_outcome_and_only_once() {
    let outcomes = [
        "safe_in_person",
        "safe_by_phone",
        "safety_plan",
        "handed_over",
        "family_informed",
        "false_alarm",
        "duplicate",
        "deceased",
    ];
    for outcome in outcomes {
        let (world, reference) = told().await;
        let body = json!({ "outcome": outcome, "note": "Spoke with her" });
        let closed = acts(&world, &reference, "resolve", COUNSELLOR_KEY, &body).await.expect(200).json();
        assert_eq!((&closed["state"], &closed["detail"]["outcome"]), (&json!("resolved"), &json!(outcome)));
        acts(&world, &reference, "resolve", COUNSELLOR_KEY, &body).await.expect(409);
        world.assert_audit_verifies().await;
    }
}

#[tokio::test]
async fn that_somebody_could_not_be_reached_is_an_admins_decision() {
    let (world, reference) = told().await;
    let before = world.kept().await;
    let refused = resolves(&world, &reference, COUNSELLOR_KEY, "unable_to_reach").await.expect(403);
    assert!(refused.text_at("/detail").contains("admin"), "{refused:?}");
    assert_eq!(world.kept().await, before);
    resolves(&world, &reference, ADMIN, "unable_to_reach").await.expect(200);
}

#[tokio::test]
async fn a_live_case_cannot_end_as_a_drill() {
    let (world, reference) = told().await;
    let before = world.kept().await;
    let refused = resolves(&world, &reference, ADMIN, "drill").await.expect(422);
    assert_eq!(refused.text_at("/errors/0/field"), "outcome");
    assert_eq!(world.kept().await, before);
}

#[tokio::test]
async fn a_case_is_closed_from_every_open_state() {
    let (mut world, escalating) = told().await;
    let acknowledged = world.escalated("student-2").await.text_at("/reference");
    acts(&world, &acknowledged, "acknowledge", COUNSELLOR_KEY, &json!({})).await.expect(200);
    let event = json!({ "user_id": "student-3", "crisis_score": 0.9, "source": "mood" });
    let withheld = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_told(&acknowledged);
    let told = [escalating.clone(), acknowledged.clone()];
    for (reference, before) in [(escalating, "escalating"), (acknowledged, "acknowledged"), (withheld, "withheld")] {
        assert_eq!(state(&world, &reference).await, before);
        resolves(&world, &reference, COUNSELLOR_KEY, "safe_in_person").await.expect(200);
        assert_eq!(state(&world, &reference).await, "resolved");
    }
    world.pass_in_steps(HOUR, 5 * MINUTE).await;
    for closed in told {
        let notice = world.expect_told(&closed).body;
        assert!(notice.contains("in the hands of a colleague"), "whoever was told hears so: {notice}");
    }
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn what_twilio_tells_after_the_outcome_opens_nothing_and_sends_nothing() {
    let (mut world, reference) = told().await;
    resolves(&world, &reference, COUNSELLOR_KEY, "safe_in_person").await.expect(200);
    let before = world.alert(&reference).await;
    let sid = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let told = [
        (SimStatus::Sent, None),
        (SimStatus::Undelivered, Some(63016)),
        (SimStatus::Delivered, None),
        (SimStatus::Read, None),
    ];
    for (status, code) in told {
        assert_eq!(world.sim().send_callback(&sid, status, code).await.unwrap(), Some(204));
        world.work().await;
        let after = world.alert(&reference).await;
        assert_eq!((&after["state"], &after["detail"]), (&before["state"], &before["detail"]), "{status:?}");
    }
    world.pass_in_steps(2 * HOUR, 5 * MINUTE).await;
    // They hear that it is over.
    world.expect_told(&reference);
    world.sim().assert_no_unexpected();
    let after = world.alert(&reference).await;
    assert_eq!(after.get("next_action_at"), None, "{after}");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn the_answer_to_a_withheld_case_is_a_person_of_the_right_role() {
    let mut world = World::new().await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.97, "source": "voice" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    let stated = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    for key in [SERVICE, AUDITOR] {
        acts(&world, &reference, "escalate", key, &stated).await.expect(403);
    }
    acts(&world, &reference, "acknowledge", COUNSELLOR_KEY, &json!({})).await.expect(409);
    world.work().await;
    world.sim().assert_no_unexpected();

    let told = acts(&world, &reference, "escalate", ADMIN, &stated).await.expect(200).json();
    assert_eq!((&told["state"], &told["ground"]), (&json!("escalating"), &json!("emergency_override")));
    world.work().await;
    world.expect_told(&reference);
    acts(&world, &reference, "escalate", ADMIN, &stated).await.expect(409);
    resolves(&world, &reference, ADMIN, "handed_over").await.expect(200);
    acts(&world, &reference, "escalate", ADMIN, &stated).await.expect(409);
    world.work().await;
    assert!(world.expect_told(&reference).body.contains("in the hands of a colleague"));
    world.sim().assert_no_unexpected();
}
