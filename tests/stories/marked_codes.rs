//! What some of Twilio's codes say beside what is done with the message: the operator hears of it, or a number is bad.

use crisis_relay::simulator::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::alarms::Sink;
use crate::common::stage::s;
use crate::common::{ADMIN, AUDITOR, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World};

const TEXTS: &str = "+919800000027";

fn two_channels() -> Setting {
    Setting::default()
        .with("COUNSELLOR_SMS_TO", TEXTS)
        .with("CRISIS_RELAY__TWILIO__SMS_PER_SECOND", "100")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "1h")
}

/// A case of a student who has agreed to both channels; its first message fails so.
async fn failing(world: &mut World, student: &str, fault: Fault) -> String {
    world.goes_wrong(FaultRule::once(fault));
    let path = format!("/api/v1/messaging/preferences/{student}");
    let agreed = json!({ "whatsapp": true, "sms": true, "source": "story" });
    world.request(reqwest::Method::PUT, &path, Some(SERVICE), Some(&agreed)).await.expect(200);
    let event = json!({ "user_id": student, "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    // It is sent, and then it fails, if it was taken.
    for _ in 0..2 {
        world.receipts().await;
    }
    reference
}

/// What stands against a number in the readiness.
async fn refused(world: &World) -> Vec<Value> {
    let readiness = world.get("/api/v1/readiness", COUNSELLOR_KEY).await.expect(200).json();
    let obstacles = readiness["obstacles"].as_array().unwrap().iter();
    obstacles.filter(|obstacle| obstacle["kind"] == "method_refused").cloned().collect()
}

#[tokio::test]
async fn refusals_with_something_of_ours_behind_them_are_told_though_the_next_channel_goes() {
    for (code, fault) in [
        (21216, Fault::Refused { code: 21216, http_status: 400 }),
        (14107, Fault::FailsLater { code: 14107, failed: false }),
        (63049, Fault::FailsLater { code: 63049, failed: false }),
    ] {
        let slack = Sink::answering(200).await;
        let mut world = two_channels().with("OPS_SLACK_URL", &slack.url()).start().await;
        failing(&mut world, "student-1", fault).await;
        world.tell_operator().await;
        let lines = slack.lines().await;
        assert!(
            lines.len() == 1 && lines[0].starts_with(&format!("ALARM provider_refused (code {code}): ")),
            "{code}: {lines:?}"
        );
        assert_eq!(world.alarms("provider_refused").await, 1.0, "{code}");
    }
}

#[tokio::test]
async fn a_text_that_is_filtered_once_may_be_chance_and_twice_within_a_day_is_told() {
    let mut world = two_channels().start().await;
    failing(&mut world, "student-1", Fault::FailsLater { code: 30007, failed: false }).await;
    assert_eq!(world.alarms("provider_refused").await, 0.0);
    world.pass(s(600)).await;
    failing(&mut world, "student-2", Fault::FailsLater { code: 30007, failed: false }).await;
    assert_eq!(world.alarms("provider_refused").await, 1.0);
}

#[tokio::test]
async fn a_number_that_twilio_calls_bad_is_named_in_the_readiness_until_a_message_arrives_there() {
    let mut world = two_channels().start().await;
    let reference = failing(&mut world, "student-1", Fault::FailsLater { code: 63003, failed: false }).await;
    let named = json!({ "kind": "method_refused", "contact": "counsellor", "channel": "whatsapp", "code": 63003 });
    assert_eq!(refused(&world).await, [named]);
    assert_eq!(world.sim().messages_to(TEXTS).len(), 1, "they are told over the next channel");
    world.pass(s(60)).await;
    assert_eq!(world.metric("crisis_relay_readiness_obstacles{kind=\"method_refused\"}").await, Some(1.0));
    let mut world = world.crash().await;
    assert_eq!(refused(&world).await.len(), 1, "it is kept");

    // It is tried all the same: they have WhatsApp now.
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "false_alarm" })).await.expect(200);
    world.told("student-2", 0.93).await;
    world.work().await;
    assert_eq!(refused(&world).await.len(), 1, "that Twilio takes it says nothing");
    for _ in 0..2 {
        world.receipts().await;
    }
    assert!(world.sim().messages_to(COUNSELLOR).len() >= 2);
    assert_eq!(refused(&world).await, [] as [Value; 0]);
    let stream = crisis_relay::domain::audit::AuditStream::Settings("default".parse().unwrap());
    let entries = world.store().audit_entries(&stream, 0, 100).await.unwrap();
    let deeds: Vec<String> = entries
        .iter()
        .map(|entry| serde_json::from_str::<Value>(&entry.canonical).unwrap()["deed"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(deeds, ["number_refused", "number_reached"]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_number_that_is_changed_is_bad_no_more() {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__SMS_PER_SECOND", "100").start().await;
    let person = |number: &str| {
        json!({ "name": "Asha", "role": "lead", "language": "en", "time_zone": "Asia/Kolkata", "active": true,
            "methods": [{ "channel": "sms", "number": number }] })
    };
    let (bad, good) = ("+919811223344", "+919811223355");
    let added = world.post("/api/v1/contacts", ADMIN, &person(bad)).await.expect(201);
    let path = format!("/api/v1/contacts/{}", added.text_at("/id"));
    let prove = async |world: &World, phone: &str| {
        let verification = format!("{path}/methods/sms/verification");
        world.request(reqwest::Method::POST, &verification, Some(ADMIN), None).await.expect(202);
        let body = world.sim().messages_to(phone).pop().unwrap().body;
        let code = body.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6).unwrap().to_owned();
        world.post(&format!("{verification}/confirm"), ADMIN, &json!({ "code": code })).await.expect(200);
    };
    prove(&world, bad).await;
    let policy = json!({ "id": "asha", "bands": ["elevated", "high", "critical"], "rounds": 2,
        "steps": [{ "after_seconds": 0, "targets": [{ "contact": added.text_at("/id") }], "channels": ["sms"] }],
        "last_responder": { "contact": "counsellor" }, "last_responder_channels": ["whatsapp"] });
    world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    failing(&mut world, "student-1", Fault::FailsLater { code: 30006, failed: false }).await;
    let named = refused(&world).await;
    assert_eq!(named.len(), 1);
    assert_eq!((&named[0]["channel"], &named[0]["code"]), (&json!("sms"), &json!(30006)));

    let contact = world.get(&path, AUDITOR).await.expect(200);
    let etag = contact.headers["etag"].to_str().unwrap().to_owned();
    let change = world.client().put(world.base().join(&path).unwrap()).bearer_auth(ADMIN).header("If-Match", etag);
    crate::common::answer(change.json(&person(good))).await.expect(200);
    prove(&world, good).await;
    assert_eq!(refused(&world).await, [] as [Value; 0]);
    // Nor is it known as bad where somebody has it again.
    assert_eq!(world.query("SELECT count(*) FROM rosters WHERE body LIKE '%\"refused\"%'"), 0);
}
