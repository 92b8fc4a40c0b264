//! Every decision on an event: what it opens, whom it tells, and what it leaves alone.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, key_entry};

const OVERRIDE: &str = r#"{"by": "Dr. Rao", "reason": "life at risk"}"#;

fn event(user_id: &str, score: f64) -> Value {
    json!({ "user_id": user_id, "crisis_score": score, "source": "chat" })
}

fn overridden(mut event: Value) -> Value {
    event["emergency_override"] = serde_json::from_str(OVERRIDE).unwrap();
    event
}

async fn says(world: &World, user_id: &str, preferences: Value) {
    let path = format!("/api/v1/messaging/preferences/{user_id}");
    world.request(reqwest::Method::PUT, &path, Some(SERVICE), Some(&preferences)).await.expect(200);
}

/// The story ends well: nothing unexpected on a phone, a true audit, no silence.
async fn ends_well(world: &World) {
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn below_the_threshold_nothing_is_opened_and_nobody_is_told() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    for score in [0.0, 0.5, 0.799_999_9] {
        let answer = world.event(&event("student-1", score)).await.expect(202);
        assert_eq!(answer.text_at("/decision"), "below_threshold");
        assert_eq!(answer.json().get("alert_id"), None, "{answer:?}");
    }
    world.work().await;
    assert_eq!(world.kept().await.alerts, []);
    ends_well(&world).await;
}

#[tokio::test]
async fn below_the_threshold_an_answer_is_replayed_for_its_key() {
    let world = World::new().await;
    let first = world.event_with_key(&event("student-1", 0.3), "key-1").await.expect(202);
    let again = world.event_with_key(&event("student-1", 0.3), "key-1").await.expect(202);
    assert_eq!(first.text, again.text);
    assert_eq!(first.headers.get("idempotent-replayed"), None);
    assert_eq!(again.headers["idempotent-replayed"], "true");
}

#[tokio::test]
async fn at_exactly_the_threshold_somebody_is_told() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let answer = world.event(&event("student-1", 0.8)).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "escalated");
    world.work().await;
    assert!(world.expect_told(&answer.text_at("/reference")).body.contains("0.80"));
    ends_well(&world).await;
}

#[tokio::test]
async fn an_override_tells_somebody_without_consent_and_is_recorded_as_the_ground() {
    let mut world = World::new().await;
    let answer = world.event(&overridden(event("student-1", 0.9))).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "escalated");
    world.work().await;
    let reference = answer.text_at("/reference");
    world.expect_told(&reference);
    assert_eq!(world.alert(&reference).await["ground"], "emergency_override");
    ends_well(&world).await;
}

#[tokio::test]
async fn consent_is_preferred_to_an_override_because_it_is_the_students_own_word() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let answer = world.event(&overridden(event("student-1", 0.9))).await.expect(202);
    world.work().await;
    let reference = answer.text_at("/reference");
    world.expect_told(&reference);
    assert_eq!(world.alert(&reference).await["ground"], "consent");
    ends_well(&world).await;
}

#[tokio::test]
async fn without_a_yes_for_the_channel_nobody_is_told_for_hours() {
    let never_said = None;
    let refused = Some(json!({ "whatsapp": false, "source": "app" }));
    let for_another_channel = Some(json!({ "sms": true, "voice": true, "source": "app" }));
    let taken_back = Some(json!({ "whatsapp": false, "sms": true, "source": "app" }));
    for said in [never_said, refused, for_another_channel, taken_back] {
        let mut world = World::new().await;
        if let Some(said) = &said {
            says(&world, "student-1", said.clone()).await;
        }
        let answer = world.event(&event("student-1", 0.99)).await.expect(202);
        assert_eq!(answer.text_at("/decision"), "withheld_no_consent", "{said:?}");
        world.work().await;
        world.pass_in_steps(Duration::from_secs(3 * 3600), Duration::from_secs(900)).await;
        let alert = world.alert(&answer.text_at("/reference")).await;
        assert_eq!(alert["state"], "withheld", "{said:?}: {alert}");
        assert_eq!(alert.get("ground"), None, "{said:?}: {alert}");
        assert_eq!(world.sim().requests().len(), 0, "{said:?}");
        ends_well(&world).await;
    }
}

#[tokio::test]
async fn an_equal_score_joins_the_open_alert_and_nobody_is_told_twice() {
    let mut world = World::new().await;
    let opened = world.escalated("student-1").await;
    world.work().await;
    let merged = world.event(&event("student-1", 0.93)).await.expect(202);
    assert_eq!(merged.text_at("/decision"), "merged");
    assert_eq!(merged.json()["paged_again"], false);
    assert_eq!(merged.text_at("/alert_id"), opened.text_at("/alert_id"));
    assert_ne!(merged.text_at("/event_id"), opened.text_at("/event_id"));
    world.work().await;
    world.expect_told(&opened.text_at("/reference"));
    assert_eq!(world.alert(&opened.text_at("/reference")).await["events"], 2);
    ends_well(&world).await;
}

#[tokio::test]
async fn only_a_rise_of_at_least_the_configured_step_tells_again_and_shows_the_newer_score() {
    // 0.8 told; 0.89 is not enough; 0.9 is, exactly; then 0.99 is not, 1.0 is.
    let steps = [(0.89, false), (0.9, true), (0.99, false), (0.3, false), (1.0, true)];
    let mut world = World::new().await;
    world.consents("student-1").await;
    let reference = world.event(&event("student-1", 0.8)).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    for (score, told) in steps {
        let merged = world.event(&event("student-1", score)).await.expect(202);
        if score < 0.8 {
            assert_eq!(merged.text_at("/decision"), "below_threshold");
            continue;
        }
        assert_eq!((merged.text_at("/decision").as_str(), &merged.json()["paged_again"]), ("merged", &json!(told)));
        world.work().await;
        if told {
            let message = world.expect_told(&reference);
            assert!(message.body.contains(&format!("{score:.2}")), "{}", message.body);
        }
        world.sim().assert_no_unexpected();
    }
    ends_well(&world).await;
}

#[tokio::test]
async fn a_rise_while_the_first_message_is_not_yet_sent_reaches_the_phone_as_the_newer_score() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    // Nothing has been worked on: the first message is in hand.
    let merged = world.event(&event("student-1", 1.0)).await.expect(202);
    assert_eq!(merged.text_at("/decision"), "merged");
    world.work().await;
    world.pass(Duration::from_secs(1)).await;
    let told: Vec<String> = world.sim().messages_to(COUNSELLOR).into_iter().map(|message| message.body).collect();
    assert_eq!(merged.json()["paged_again"], false, "0.93 was told; 1.0 rises by less than 0.1");
    assert_eq!(told.len(), 1, "{told:?}");
    world.expect_told(&reference);
    ends_well(&world).await;
}

#[tokio::test]
async fn a_rise_after_acknowledgement_reopens_the_case_and_tells_again() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let reference = world.event(&event("student-1", 0.8)).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    // Not enough of a rise: it stays with the one who took it.
    let merged = world.event(&event("student-1", 0.85)).await.expect(202);
    assert_eq!(merged.json()["paged_again"], false);
    assert_eq!(world.alert(&reference).await["state"], "acknowledged");

    let merged = world.event(&event("student-1", 0.95)).await.expect(202);
    assert_eq!((merged.text_at("/decision").as_str(), &merged.json()["paged_again"]), ("merged", &json!(true)));
    world.work().await;
    assert!(world.expect_told(&reference).body.contains("0.95"));
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    ends_well(&world).await;
}

#[tokio::test]
async fn a_case_raised_by_hand_tells_again_whatever_the_score_was() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let reference = world.event(&event("student-1", 1.0)).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    let body = json!({ "user_id": "student-1", "message": "Came to the office in tears" });
    let raised = world.post("/api/v1/crisis/escalate", COUNSELLOR_KEY, &body).await.expect(202);
    assert_eq!((raised.text_at("/decision").as_str(), &raised.json()["paged_again"]), ("merged", &json!(true)));
    world.work().await;
    world.expect_told(&reference);
    ends_well(&world).await;
}

#[tokio::test]
async fn after_the_outcome_the_next_event_opens_a_new_alert_and_tells() {
    let mut world = World::new().await;
    let first = world.escalated("student-1").await;
    world.work().await;
    world.expect_told(&first.text_at("/reference"));
    let path = format!("/api/v1/crisis/alerts/{}/resolve", first.text_at("/reference"));
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_in_person" })).await.expect(200);
    world.work().await;
    assert!(world.expect_told(&first.text_at("/reference")).body.contains("in the hands of a colleague"));

    let second = world.event(&event("student-1", 0.81)).await.expect(202);
    assert_eq!(second.text_at("/decision"), "escalated");
    assert_ne!(first.text_at("/alert_id"), second.text_at("/alert_id"));
    world.work().await;
    world.expect_told(&second.text_at("/reference"));
    ends_well(&world).await;
}

#[tokio::test]
async fn a_withheld_case_that_later_gets_a_ground_escalates_as_the_same_alert() {
    for by_consent in [false, true] {
        let mut world = World::new().await;
        let withheld = world.event(&event("student-1", 0.9)).await.expect(202);
        let still = world.event(&event("student-1", 0.99)).await.expect(202);
        assert_eq!(still.text_at("/decision"), "withheld_no_consent");
        let second = if by_consent {
            world.consents("student-1").await;
            world.work().await;
            world.sim().assert_no_unexpected();
            world.event(&event("student-1", 0.85)).await.expect(202)
        } else {
            world.event(&overridden(event("student-1", 0.85))).await.expect(202)
        };
        assert_eq!(second.text_at("/decision"), "escalated");
        assert_eq!(second.text_at("/alert_id"), withheld.text_at("/alert_id"));
        world.work().await;
        assert!(world.expect_told(&withheld.text_at("/reference")).body.contains("0.99"), "the gravest score counts");
        assert_eq!(world.alert(&withheld.text_at("/reference")).await["events"], 3);
        ends_well(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_events_of_one_student_at_one_instant_make_one_alert_and_one_message() {
    let mut world = World::new().await;
    world.consents("student-1").await;
    let body = event("student-1", 0.93);
    let answers = join_all((0..50).map(|_| world.event(&body))).await;
    let mut decisions = std::collections::BTreeMap::new();
    let mut alerts = std::collections::BTreeSet::new();
    for answer in answers {
        let answer = answer.expect(202);
        *decisions.entry(answer.text_at("/decision")).or_insert(0) += 1;
        alerts.insert(answer.text_at("/alert_id"));
    }
    assert_eq!(alerts.len(), 1);
    assert_eq!(decisions, [("escalated".to_owned(), 1), ("merged".to_owned(), 49)].into());
    world.work().await;
    let alert = world.alert(alerts.first().unwrap()).await;
    assert_eq!(alert["events"], 50);
    world.expect_told(alert["reference"].as_str().unwrap());
    ends_well(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_students_at_once_each_get_their_own_alert_and_message() {
    let mut world = World::new().await;
    let students: Vec<String> = (0..60).map(|n| format!("student-{n}")).collect();
    join_all(students.iter().map(|student| world.consents(student))).await;
    let bodies: Vec<Value> = students.iter().map(|student| event(student, 0.9)).collect();
    let answers = join_all(bodies.iter().map(|body| world.event(body))).await;
    world.work().await;
    for answer in answers {
        let answer = answer.expect(202);
        assert_eq!(answer.text_at("/decision"), "escalated");
        world.expect_told(&answer.text_at("/reference"));
    }
    ends_well(&world).await;
}

/// One organisation is set up; keys of another are known, and reach nothing of it.
#[tokio::test]
async fn another_organisations_key_neither_opens_nor_sees_anything_here() {
    let other = "other-service-key-00001";
    let file = key_entry("other", "service", other, "organisation = \"elsewhere\"");
    let mut world = Setting::default().with_file(&file).start().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    let before = world.kept().await;
    world.post("/api/v1/crisis/events", other, &event("student-1", 1.0)).await.expect(403);
    world.get("/api/v1/messaging/preferences/student-1", other).await.expect(403);
    assert_eq!(world.kept().await, before);
    world.get(&format!("/api/v1/crisis/alerts/{reference}"), ADMIN).await.expect(200);
    ends_well(&world).await;
}
