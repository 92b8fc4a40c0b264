//! Cases that people raise: who may, on what ground, and what the phone shows of it.

use serde_json::{Value, json};

use crate::common::{ADMIN, AUDITOR, COUNSELLOR_KEY, SERVICE, World};

const PATH: &str = "/api/v1/crisis/escalate";
const WORDS: &str = "Came to the office in tears and spoke of the bridge";

fn case(user_id: &str) -> Value {
    json!({ "user_id": user_id, "message": WORDS })
}

#[tokio::test]
async fn counsellors_and_admins_may_raise_a_case_and_nobody_else() {
    let world = World::new().await;
    world.post(PATH, COUNSELLOR_KEY, &case("student-1")).await.expect(202);
    world.post(PATH, ADMIN, &case("student-2")).await.expect(202);
    let before = world.kept().await;
    for key in [SERVICE, AUDITOR] {
        let refused = world.post(PATH, key, &case("student-3")).await.expect(403);
        assert!(refused.text_at("/detail").contains("counsellor, admin"), "{refused:?}");
    }
    assert_eq!(world.kept().await, before);
}

#[tokio::test]
async fn a_raised_case_needs_a_ground_as_a_score_does() {
    let mut world = World::new().await;
    let withheld = world.post(PATH, COUNSELLOR_KEY, &case("student-1")).await.expect(202);
    assert_eq!(withheld.text_at("/decision"), "withheld_no_consent");
    world.work().await;
    world.sim().assert_no_unexpected();

    let mut overridden = case("student-1");
    overridden["emergency_override"] = json!({ "by": "Dr. Rao", "reason": "life at risk" });
    let told = world.post(PATH, COUNSELLOR_KEY, &overridden).await.expect(202);
    assert_eq!(told.text_at("/decision"), "escalated");
    assert_eq!(told.text_at("/alert_id"), withheld.text_at("/alert_id"));
    world.work().await;
    world.expect_told(&told.text_at("/reference"));
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_raised_case_is_recorded_as_manual_and_its_message_shows_no_score() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let raised = world.post(PATH, COUNSELLOR_KEY, &case("student-1")).await.expect(202);
    world.work().await;
    let reference = raised.text_at("/reference");
    let body = world.expect_told(&reference).body;
    let number = body.as_bytes().windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit());
    assert!(!number && !body.contains('%'), "a score that nobody gave: {body}");
    assert!(body.contains("a person"), "{body}");
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["source"], &alert["severity"]), (&json!("manual"), &json!(1.0)));
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn what_was_written_is_sealed_and_opens_only_when_it_is_revealed() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let raised = world.post(PATH, COUNSELLOR_KEY, &case("student-1")).await.expect(202);
    world.work().await;
    let reference = raised.text_at("/reference");
    let body = world.expect_told(&reference).body;
    let shown = world.alert(&reference).await.to_string();
    for text in [&body, &shown, &raised.text] {
        assert!(!text.contains("bridge") && !text.contains("student-1"), "{text}");
    }
    let path = format!("/api/v1/crisis/alerts/{reference}/reveal");
    let revealed = world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    assert_eq!(revealed.text_at("/events/0/message"), WORDS);
    assert_eq!(revealed.text_at("/user_id"), "student-1");
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_raised_case_has_no_score_of_its_own_to_give() {
    let world = World::new().await;
    let before = world.kept().await;
    for field in ["crisis_score", "source", "metadata", "occurred_at"] {
        let mut body = case("student-1");
        body[field] = json!(1);
        let refused = world.post(PATH, COUNSELLOR_KEY, &body).await.expect(422);
        assert_eq!(
            (refused.text_at("/code"), refused.text_at("/errors/0/field")),
            ("unknown_field".into(), field.into())
        );
    }
    assert_eq!(world.kept().await, before);
}
