//! An `Idempotency-Key`: one effect and one answer, however often a request is sent.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{ADMIN, COUNSELLOR_KEY, SERVICE, Setting, World, answer};

fn event(user_id: &str, score: f64) -> Value {
    json!({ "user_id": user_id, "crisis_score": score, "source": "voice", "message": "…" })
}

#[tokio::test]
async fn the_same_key_and_body_get_the_first_answer_byte_for_byte_and_no_second_effect() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let first = world.event_with_key(&event("student-1", 0.9), "key-1").await.expect(202);
    assert_eq!(first.text_at("/decision"), "escalated");
    world.work().await;
    world.expect_told(&first.text_at("/reference"));
    let before = world.kept().await;
    for _ in 0..3 {
        let again = world.event_with_key(&event("student-1", 0.9), "key-1").await.expect(202);
        assert_eq!(again.text, first.text);
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.headers["content-type"], first.headers["content-type"]);
    }
    world.work().await;
    assert_eq!(world.kept().await, before);
    world.sim().assert_no_unexpected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_requests_of_one_key_at_one_instant_have_one_effect_and_one_answer() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let body = event("student-1", 0.9);
    let answers = join_all((0..20).map(|_| world.event_with_key(&body, "key-1"))).await;
    let first = answers[0].clone().expect(202);
    let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotent-replayed")).count();
    assert_eq!(replayed, 19);
    for answer in answers {
        assert_eq!(answer.expect(202).text, first.text);
    }
    world.work().await;
    world.expect_told(&first.text_at("/reference"));
    assert_eq!(world.alert(&first.text_at("/alert_id")).await["events"], 1);
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_changes_nothing() {
    let world = World::new().await;
    world.consents("student-1").await;
    world.event_with_key(&event("student-1", 0.5), "key-1").await.expect(202);
    let before = world.kept().await;
    let refused = world.event_with_key(&event("student-1", 0.95), "key-1").await.expect(422);
    assert_eq!(refused.text_at("/code"), "idempotency_key_reused");
    assert_eq!(refused.text_at("/errors/0/field"), "Idempotency-Key");
    assert_eq!(world.kept().await, before);
}

#[tokio::test]
async fn the_keys_of_two_callers_do_not_meet() {
    let world = World::new().await;
    world.consents("student-1").await;
    let path = world.base().join("/api/v1/crisis/escalate").unwrap();
    let body = json!({ "user_id": "student-1", "message": "Please look" });
    let mut events = Vec::new();
    for caller in [COUNSELLOR_KEY, ADMIN] {
        let request = world.client().post(path.clone()).bearer_auth(caller).header("Idempotency-Key", "key-1");
        let answered = answer(request.json(&body)).await.expect(202);
        assert_eq!(answered.headers.get("idempotent-replayed"), None);
        events.push(answered.text_at("/event_id"));
    }
    assert_ne!(events[0], events[1]);
    let event = world.event_with_key(&event("student-1", 0.9), "key-1").await.expect(202);
    assert_eq!(event.headers.get("idempotent-replayed"), None);
}

#[tokio::test]
async fn an_answer_is_kept_for_the_configured_time_and_then_forgotten() {
    let mut world = Setting::default().with("CRISIS_RELAY__IDEMPOTENCY__KEEP", "2h").start().await;
    let first = world.event_with_key(&event("student-1", 0.1), "key-1").await.expect(202);
    world.pass(Duration::from_secs(2 * 3600 - 1)).await;
    let kept = world.event_with_key(&event("student-1", 0.1), "key-1").await.expect(202);
    assert_eq!(kept.text, first.text);
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.query("SELECT count(*) FROM answers"), 0);
    let anew = world.event_with_key(&event("student-1", 0.2), "key-1").await.expect(202);
    assert_ne!(anew.text, first.text);
    assert_eq!(anew.headers.get("idempotent-replayed"), None);
}

#[tokio::test]
async fn a_crash_does_not_forget_an_answer() {
    let world = World::new().await;
    world.consents("student-1").await;
    let first = world.event_with_key(&event("student-1", 0.9), "key-1").await.expect(202);
    let mut world = world.crash().await;
    let again = world.event_with_key(&event("student-1", 0.9), "key-1").await.expect(202);
    assert_eq!(again.text, first.text);
    world.work().await;
    world.pass_in_steps(Duration::from_secs(60), Duration::from_secs(1)).await;
    world.expect_told(&first.text_at("/reference"));
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused_by_name_and_changes_nothing() {
    let world = World::new().await;
    let before = world.kept().await;
    let url = world.base().join("/api/v1/crisis/events").unwrap();
    let long = "k".repeat(256);
    let cases: [&[&[u8]]; 6] =
        [&[b""], &[long.as_bytes()], &["schlüssel".as_bytes()], &[b"two words"], &[b"once", b"twice"], &[b"k\tk"]];
    for keys in cases {
        let mut request = world.client().post(url.clone()).bearer_auth(SERVICE).json(&event("student-1", 0.9));
        for key in keys {
            request = request.header("Idempotency-Key", *key);
        }
        let refused = answer(request).await.expect(422);
        assert_eq!(refused.text_at("/code"), "invalid_field", "{keys:?}");
        assert_eq!(refused.text_at("/errors/0/field"), "Idempotency-Key", "{keys:?}");
    }
    assert_eq!(world.kept().await, before);
    world.event_with_key(&event("student-1", 0.9), &"k".repeat(255)).await.expect(202);
}
