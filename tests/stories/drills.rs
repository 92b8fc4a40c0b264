//! Drills: the whole path, about nobody, and never to be taken for a live case.

use serde_json::{Value, json};

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::s;
use crate::common::{ADMIN, AUDITOR, COUNSELLOR, COUNSELLOR_KEY, Setting, World, contact_entry};

const LEAD: &str = "+919800000037";

fn ladder() -> Setting {
    let people = contact_entry("lead", "lead", "whatsapp_to", LEAD);
    let policy = r#"
        [policy]
        rounds = 1
        repeat_every = "2m"
        last_responder = "lead"
        last_responder_every = "2m"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "2m"
        contacts = ["lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(people + policy))
}

async fn started(world: &mut World) -> String {
    let answer = world.post("/api/v1/crisis/drills", ADMIN, &json!({ "score": 0.93 })).await.expect(201);
    world.work().await;
    answer.text_at("/reference")
}

async fn result(world: &World, reference: &str) -> Value {
    world.get(&format!("/api/v1/crisis/drills/{reference}"), COUNSELLOR_KEY).await.expect(200).json()
}

fn texts(world: &World, phone: &str) -> Vec<String> {
    world.sim().messages_to(phone).into_iter().map(|message| message.body).collect()
}

#[tokio::test]
async fn a_drill_says_so_in_text_type_ground_and_storage() {
    let mut world = ladder().start().await;
    let reference = started(&mut world).await;
    let text = texts(&world, COUNSELLOR).pop().unwrap();
    assert!(text.contains("DRILL, NOT REAL") && text.contains(&reference), "{text}");
    assert!(!text.contains("URGENT"), "{text}");
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["kind"], &alert["ground"]), (&json!("drill"), &json!("drill")), "{alert}");
    assert_eq!(world.query("SELECT count(*) FROM alerts WHERE kind = 'drill'"), 1);
    assert_eq!(world.query("SELECT count(*) FROM alerts WHERE kind = 'live'"), 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_that_is_taken_is_over_and_shows_how_fast_over_what() {
    let mut world = ladder().start().await;
    let reference = started(&mut world).await;
    world.receipts().await;
    world.receipts().await;
    assert_eq!(result(&world, &reference).await["result"], "running");
    world.pass_in_steps(s(130), s(10)).await;
    let said = world.sim().reply(LEAD, "1").await.unwrap();
    assert!(said.answers.concat().starts_with("DRILL: your answer"), "{said:?}");
    world.work().await;
    let shown = result(&world, &reference).await;
    assert_eq!((&shown["result"], &shown["answered_by"]), (&json!("answered"), &json!("lead")), "{shown}");
    let seconds = shown["seconds_to_answer"].as_f64().unwrap();
    assert!((120.0..=140.0).contains(&seconds), "{shown}");
    let messages = shown["messages"].as_array().unwrap();
    let first = (&messages[0]["contact"], &messages[0]["channel"], &messages[0]["arrived"]);
    assert_eq!(first, (&json!("counsellor"), &json!("whatsapp"), &json!(true)), "{shown}");
    assert_eq!(world.alert(&reference).await["state"], "resolved", "there is nobody to be looked after");
    // Nothing follows, and live figures know nothing of it.
    world.pass_in_steps(s(3600), s(60)).await;
    let asks = texts(&world, LEAD).iter().filter(|text| text.contains("a case needs you")).count();
    assert_eq!(asks, 1);
    assert_eq!(world.metric("crisis_relay_time_to_acknowledged_seconds_count").await.unwrap_or(0.0), 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn how_fast_a_drill_was_delivered_stays_known_once_it_was_read() {
    let mut world = ladder().start().await;
    let reference = started(&mut world).await;
    world.pass(s(3)).await;
    for _ in 0..2 {
        world.receipts().await;
    }
    world.pass(s(10)).await;
    world.receipts().await;
    let shown = result(&world, &reference).await;
    let message = &shown["messages"][0];
    assert_eq!(
        (&message["state"], &message["seconds_to_delivered"], &message["seconds_to_last_status"]),
        (&json!("read"), &json!(3.0), &json!(13.0)),
        "{shown}"
    );
    // Two minutes later the lead is told as well, and their phone has it a second later.
    world.pass(s(107)).await;
    world.pass(s(1)).await;
    for _ in 0..2 {
        world.receipts().await;
    }
    let channels = result(&world, &reference).await["channels"].clone();
    let wanted = json!([{ "channel": "whatsapp", "messages": 2, "arrived": 2,
        "seconds_to_delivered_least": 1.0, "seconds_to_delivered_most": 3.0 }]);
    assert_eq!(channels, wanted);
}

#[tokio::test]
async fn a_drill_that_nobody_answers_ends_with_an_alarm_after_the_whole_ladder() {
    let mut world = ladder().start().await;
    let reference = started(&mut world).await;
    world.pass_in_steps(s(20 * 60), s(10)).await;
    let shown = result(&world, &reference).await;
    assert_eq!(shown["result"], "unanswered", "{shown}");
    assert_eq!(
        (texts(&world, COUNSELLOR).len(), texts(&world, LEAD).len()),
        (1, 2),
        "every rung, and the last responder"
    );
    assert_eq!(world.alarms("drill_unanswered").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_and_a_live_case_go_side_by_side_and_a_reply_must_say_which() {
    let mut world = ladder().start().await;
    let drill = started(&mut world).await;
    let live = world.told("student-1", 0.93).await;
    world.work().await;
    assert_ne!(drill, live);
    let said = world.sim().reply(COUNSELLOR, &format!("1 {live}")).await.unwrap();
    assert!(said.answers.concat().contains(&format!("{live} is yours")), "{said:?}");
    assert_eq!(result(&world, &drill).await["result"], "running");
    assert_eq!(world.alert(&live).await["kind"], "live");
    // A live case cannot end as a drill.
    let path = format!("/api/v1/crisis/alerts/{live}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "drill" })).await.expect(422);
    world.get(&format!("/api/v1/crisis/drills/{live}"), ADMIN).await.expect(404);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn one_drill_runs_at_a_time_and_asking_again_starts_no_second() {
    let mut world = ladder().start().await;
    let first = started(&mut world).await;
    let refused = world.post("/api/v1/crisis/drills", ADMIN, &json!({})).await.expect(409);
    assert_eq!(refused.text_at("/code"), "conflict");
    assert!(refused.text.contains(&first), "{refused:?}");
    assert_eq!(world.query("SELECT count(*) FROM alerts"), 1);
    let path = format!("/api/v1/crisis/alerts/{first}/resolve");
    world.post(&path, ADMIN, &json!({ "outcome": "drill" })).await.expect(200);
    assert_eq!(result(&world, &first).await["result"], "closed");
    let second = started(&mut world).await;
    assert_ne!(second, first);
    assert_eq!(world.query("SELECT count(*) FROM data_keys WHERE person IN (SELECT subject FROM alerts)"), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_daily_drill_waits_for_one_that_was_started_by_hand() {
    // The stories begin at 08:35 UTC, 14:05 in Kolkata.
    let mut world = ladder().with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:10").start().await;
    world.pass(s(4 * 60)).await;
    let first = started(&mut world).await;
    world.pass_in_steps(s(3 * 60), s(60)).await;
    assert_eq!(world.query("SELECT count(*) FROM alerts WHERE kind = 'drill'"), 1, "one at a time");
    let path = format!("/api/v1/crisis/alerts/{first}/resolve");
    world.post(&path, ADMIN, &json!({ "outcome": "drill" })).await.expect(200);
    world.pass_in_steps(s(3 * 60), s(60)).await;
    assert_eq!(world.query("SELECT count(*) FROM alerts WHERE kind = 'drill'"), 2, "its turn has come");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_that_is_taken_at_the_dashboard_is_answered() {
    let mut world = ladder().start().await;
    let reference = started(&mut world).await;
    world.pass(s(30)).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    let shown = result(&world, &reference).await;
    let told = (&shown["result"], &shown["answered_via"], &shown["answered_by"]);
    assert_eq!(told, (&json!("answered"), &json!("api"), &Value::Null), "{shown}");
    assert!(shown["seconds_to_answer"].as_f64().unwrap() >= 30.0, "{shown}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn drills_are_listed_newest_first_and_live_cases_are_not_among_them() {
    let mut world = ladder().start().await;
    let first = started(&mut world).await;
    assert!(world.sim().reply(COUNSELLOR, "1").await.unwrap().answers.concat().starts_with("DRILL"));
    world.told("student-1", 0.93).await;
    world.pass(s(60)).await;
    let second = started(&mut world).await;
    let listed = world.get("/api/v1/crisis/drills", AUDITOR).await.expect(200).json();
    let references: Vec<&str> =
        listed["drills"].as_array().unwrap().iter().map(|one| one["reference"].as_str().unwrap()).collect();
    assert_eq!(references, [second, first]);
}

#[tokio::test]
async fn the_daily_drill_starts_once_at_its_hour_whatever_restarts_and_others_do() {
    // The stories begin at 08:35 UTC, 14:05 in Kolkata.
    let mut world = ladder().with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:30").start().await;
    let drills = async |world: &World| {
        world.get("/api/v1/crisis/drills", ADMIN).await.expect(200).json()["drills"].as_array().unwrap().len()
    };
    world.pass_in_steps(s(24 * 60), s(60)).await;
    assert_eq!(drills(&world).await, 0);
    world.pass_in_steps(s(3 * 60), s(60)).await;
    assert_eq!(drills(&world).await, 1);
    let mut world = world.crash().await;
    world.pass_in_steps(s(30 * 60), s(60)).await;
    assert_eq!(drills(&world).await, 1, "a restart starts it again");
    world.pass_in_steps(s(24 * 3600), s(600)).await;
    assert_eq!(drills(&world).await, 2, "and the next day another");
}

/// Closes the drill that runs.
async fn close(world: &World) {
    let drills = world.get("/api/v1/crisis/drills", ADMIN).await.expect(200);
    let path = format!("/api/v1/crisis/alerts/{}/resolve", drills.text_at("/drills/0/reference"));
    world.post(&path, ADMIN, &json!({ "outcome": "drill" })).await.expect(200);
}

#[tokio::test]
async fn drills_by_the_clock_try_every_ladder_at_every_time_of_the_day_within_three_days() {
    let mut world = ladder().with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:10, 02:10").start().await;
    for band in ["elevated", "high", "critical"] {
        let step = json!({ "after_seconds": 0, "targets": [{ "contact": "counsellor" }], "channels": ["whatsapp"] });
        let policy = json!({ "id": band, "steps": [step], "bands": [band], "rounds": 2,
            "last_responder": { "contact": "lead" }, "last_responder_channels": ["whatsapp"] });
        world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    }
    let mut tried = Vec::new();
    for _ in 0..6 {
        world.pass_in_steps(s(10 * 60), s(60)).await;
        let drills = world.get("/api/v1/crisis/drills", ADMIN).await.expect(200);
        let drill = world.stored(&drills.text_at("/drills/0/reference")).await;
        tried.push((drill.policy.id.to_string(), drill.trigger.score.map(|score| score.value())));
        close(&world).await;
        world.pass_in_steps(s(12 * 3_600 - 10 * 60), s(600)).await;
    }
    let high = ("high".to_owned(), Some(0.9));
    let critical = ("critical".to_owned(), None);
    let elevated = ("elevated".to_owned(), Some(0.8));
    // In the afternoon of the first day, in the night, in the next afternoon …
    let wanted = [&elevated, &elevated, &high, &high, &critical, &critical];
    assert_eq!(tried.iter().collect::<Vec<_>>(), wanted);
    assert_eq!(world.alarms("drill_not_started").await, 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_that_another_kept_from_starting_for_an_hour_is_told_to_the_operator() {
    let mut world = ladder().with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:10").start().await;
    // Somebody starts one by hand, with a rung that waits for long, and forgets it.
    let step = |after: u32| json!({ "after_seconds": after, "targets": [{ "contact": "counsellor" }], "channels": ["whatsapp"] });
    let policy = json!({ "id": "slow", "steps": [step(0), step(3_600), step(3_600)], "bands": ["elevated", "high", "critical"],
        "rounds": 1, "last_responder": { "contact": "lead" }, "last_responder_channels": ["whatsapp"] });
    world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    started(&mut world).await;
    world.pass_in_steps(s(64 * 60), s(60)).await;
    assert_eq!(world.alarms("drill_not_started").await, 0.0, "its hour is not over");
    world.pass_in_steps(s(10 * 60), s(60)).await;
    assert_eq!(world.alarms("drill_not_started").await, 1.0);
    assert_eq!(world.query("SELECT count(*) FROM alerts"), 1, "nobody expects it at another hour");
    close(&world).await;
    world.pass_in_steps(s(24 * 3_600), s(600)).await;
    assert_eq!(world.query("SELECT count(*) FROM alerts"), 2, "the next day's starts");
    assert_eq!(world.alarms("drill_not_started").await, 1.0);
}

#[tokio::test]
async fn a_drill_that_fails_to_start_for_an_hour_is_told_to_the_operator() {
    let gate = Gate::new();
    let mut world = ladder().with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:10").with_gate(&gate).start().await;
    gate.strike_named("commit_alert", Fate::Fail(StoreFault::Unavailable));
    world.pass_in_steps(s(64 * 60), s(60)).await;
    assert_eq!(world.alarms("drill_not_started").await, 0.0);
    world.pass_in_steps(s(10 * 60), s(60)).await;
    assert_eq!(world.alarms("drill_not_started").await, 1.0);
    gate.open();
    world.pass_in_steps(s(24 * 3_600), s(600)).await;
    assert_eq!(world.query("SELECT count(*) FROM alerts"), 1, "the next day's starts");
}
