//! Consent: what a student says of each channel, kept with time and source, and counting from the next alert on.

use std::time::Duration;

use crisis_relay::domain::audit::{AuditStream, verify_chain};
use serde_json::{Value, json};

use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR_KEY, SERVICE, World};

const PATH: &str = "/api/v1/messaging/preferences/student-1";

async fn put(world: &World, key: &str, body: &Value) -> Answer {
    world.request(reqwest::Method::PUT, PATH, Some(key), Some(body)).await
}

#[tokio::test]
async fn a_student_who_never_said_anything_is_shown_as_version_0_and_not_as_a_yes() {
    let world = World::new().await;
    assert_eq!(world.get(PATH, SERVICE).await.expect(200).json(), json!({ "version": 0, "channels": {} }));
}

#[tokio::test]
async fn each_channel_keeps_its_own_word_with_time_source_and_notice() {
    let mut world = World::new().await;
    put(&world, SERVICE, &json!({ "whatsapp": true, "source": "onboarding", "notice_version": "n-1" }))
        .await
        .expect(200);
    world.pass(Duration::from_secs(3600)).await;
    let said = put(&world, ADMIN, &json!({ "sms": false, "voice": true, "source": "app/settings" })).await.expect(200);
    let expected = json!({ "version": 2, "channels": {
        "whatsapp": { "granted": true, "at": "2026-11-20T08:35:00Z", "source": "onboarding", "notice_version": "n-1" },
        "sms": { "granted": false, "at": "2026-11-20T09:35:00Z", "source": "app/settings" },
        "voice": { "granted": true, "at": "2026-11-20T09:35:00Z", "source": "app/settings" },
    }});
    assert_eq!(said.json(), expected);
    assert_eq!(world.get(PATH, AUDITOR).await.expect(200).json(), expected);
}

#[tokio::test]
async fn every_word_ever_said_stays_in_a_chain_that_verifies() {
    let world = World::new().await;
    for granted in [true, false, true] {
        put(&world, SERVICE, &json!({ "whatsapp": granted, "sms": granted, "source": "app" })).await.expect(200);
    }
    let store = world.store();
    let streams = world.chains().await;
    let stream = streams.iter().find(|stream| matches!(stream, AuditStream::Consent(_))).unwrap();
    let chain = store.audit_entries(stream, 0, 100).await.unwrap();
    let said: Vec<Value> = chain.iter().map(|entry| serde_json::from_str(&entry.canonical).unwrap()).collect();
    let words: Vec<(&str, bool)> =
        said.iter().map(|entry| (entry["channel"].as_str().unwrap(), entry["granted"].as_bool().unwrap())).collect();
    assert_eq!(
        words,
        [("whatsapp", true), ("sms", true), ("whatsapp", false), ("sms", false), ("whatsapp", true), ("sms", true)]
    );
    assert!(said.iter().all(|entry| entry["actor"] == json!({ "kind": "machine", "key": "service-1" })), "{said:?}");
    verify_chain(&chain, None).unwrap();
    world.assert_audit_verifies().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn words_said_at_one_instant_are_all_kept() {
    let world = World::new().await;
    let body = json!({ "whatsapp": true, "source": "app" });
    for answer in futures::future::join_all((0..20).map(|_| put(&world, SERVICE, &body))).await {
        answer.expect(200);
    }
    assert_eq!(world.get(PATH, SERVICE).await.expect(200).json()["version"], 20);
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn the_app_and_admins_record_and_everybody_who_works_here_may_look() {
    let world = World::new().await;
    let body = json!({ "whatsapp": true, "source": "app" });
    for key in [COUNSELLOR_KEY, AUDITOR] {
        put(&world, key, &body).await.expect(403);
    }
    assert_eq!(world.get(PATH, SERVICE).await.expect(200).json()["version"], 0, "a refusal records nothing");
    for key in [SERVICE, ADMIN] {
        put(&world, key, &body).await.expect(200);
    }
    for key in [SERVICE, COUNSELLOR_KEY, ADMIN, AUDITOR] {
        assert_eq!(world.get(PATH, key).await.expect(200).json()["version"], 2);
    }
}

#[tokio::test]
async fn what_says_nothing_or_cannot_be_read_is_refused_by_field() {
    let world = World::new().await;
    let cases = [
        (json!({ "source": "app" }), "invalid_field", "whatsapp"),
        (json!({ "whatsapp": null, "source": "app" }), "invalid_field", "whatsapp"),
        (json!({ "whatsapp": true }), "missing_field", "source"),
        (json!({ "whatsapp": "yes", "source": "app" }), "invalid_field", "whatsapp"),
        (json!({ "whatsapp": 1, "source": "app" }), "invalid_field", "whatsapp"),
        (json!({ "whatsapp": true, "source": "said it on the phone" }), "invalid_field", "source"),
        (json!({ "whatsapp": true, "source": "" }), "invalid_field", "source"),
        (json!({ "whatsapp": true, "source": "a".repeat(65) }), "invalid_field", "source"),
        (json!({ "whatsapp": true, "source": "app", "notice_version": "v 1" }), "invalid_field", "notice_version"),
        (json!({ "whatsapp": true, "source": "app", "telegram": true }), "unknown_field", "telegram"),
    ];
    for (body, code, field) in cases {
        let refused = put(&world, SERVICE, &body).await.expect(422);
        assert_eq!(
            (refused.text_at("/code"), refused.text_at("/errors/0/field")),
            (code.into(), field.into()),
            "{body}"
        );
    }
    assert_eq!(world.get(PATH, SERVICE).await.expect(200).json()["version"], 0);
}

#[tokio::test]
async fn a_withdrawal_counts_at_once_and_nothing_more_is_sent_on_what_was_taken_back() {
    let mut world = World::new().await;
    let open = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.expect_told(&open);
    put(&world, SERVICE, &json!({ "whatsapp": false, "source": "app" })).await.expect(200);
    let alert = world.alert(&open).await;
    assert_eq!(alert["state"], "withheld", "{alert}");
    assert_eq!(world.metric("crisis_relay_alarms_total{kind=\"consent_withdrawn\"}").await, Some(1.0));

    let event = json!({ "user_id": "student-1", "crisis_score": 1.0, "source": "chat" });
    let next = world.event(&event).await.expect(202);
    assert_eq!(next.text_at("/decision"), "withheld_no_consent");
    assert_eq!(next.text_at("/reference"), open, "the same case, which people can see");
    world.pass_in_steps(Duration::from_secs(3600), Duration::from_secs(60)).await;
    world.sim().assert_no_unexpected();

    let body = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    world.post(&format!("/api/v1/crisis/alerts/{open}/escalate"), ADMIN, &body).await.expect(200);
    world.work().await;
    world.expect_told(&open);
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_withdrawal_leaves_an_override_standing() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    put(&world, SERVICE, &json!({ "whatsapp": false, "source": "app" })).await.expect(200);
    let stated = json!({ "by": "Dr. Rao", "reason": "life at risk" });
    let event = json!({ "user_id": "student-1", "crisis_score": 0.97, "source": "chat", "emergency_override": stated });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    put(&world, SERVICE, &json!({ "whatsapp": false, "source": "app" })).await.expect(200);
    world.pass_in_steps(Duration::from_secs(300), Duration::from_secs(60)).await;
    world.expect_told(&reference);
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn one_students_word_is_not_anothers_however_alike_their_ids_are() {
    let world = World::new().await;
    world.consents("student-1").await;
    for other in ["student-2", "STUDENT-1", "student-1%20x", "student-10", "student%2D1x", "student-1%C2%A0x"] {
        let path = format!("/api/v1/messaging/preferences/{other}");
        assert_eq!(world.get(&path, SERVICE).await.expect(200).json()["version"], 0, "{other}");
    }
    let same = world.get("/api/v1/messaging/preferences/student%2D1", SERVICE).await.expect(200);
    assert_eq!(same.json()["version"], 1, "another spelling of the same id");
}
