//! Policies and schedules over the API: kept in versions, looked at as a whole, explained, and lived by.

use std::time::Duration;

use crisis_relay::app;
use crisis_relay::config::{Config, ConfigFile, Sources};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR, COUNSELLOR_KEY, Setting, World, answer, contact_entry};

const MINUTE: Duration = Duration::from_secs(60);
/// Further people of the configuration.
const BELA: &str = "+919800000037";
const LEAD: &str = "+919800000047";

/// The counsellor, Bela, and a lead, all over WhatsApp.
async fn college() -> World {
    let people =
        [contact_entry("bela", "counsellor", "whatsapp_to", BELA), contact_entry("lead", "lead", "whatsapp_to", LEAD)];
    Setting::default().with_file(&people.concat()).start().await
}

async fn change(world: &World, method: Method, path: &str, version: u32, body: Option<&Value>) -> Answer {
    let url = world.base().join(path).unwrap();
    let mut request =
        world.client().request(method, url).bearer_auth(ADMIN).header("If-Match", format!("\"{version}\""));
    if let Some(body) = body {
        request = request.json(body);
    }
    answer(request).await
}

fn shift(from: &str, until: &str, person: &str) -> Value {
    json!({ "from": from, "until": until, "people": [person] })
}

fn schedule(id: &str, time_zone: &str, shifts: &[Value]) -> Value {
    json!({ "id": id, "time_zone": time_zone, "shifts": shifts })
}

fn step(after_seconds: u32, target: Value) -> Value {
    json!({ "after_seconds": after_seconds, "targets": [target], "channels": ["whatsapp"] })
}

fn policy(id: &str, steps: &[Value], bands: &[&str]) -> Value {
    json!({ "id": id, "steps": steps, "bands": bands, "rounds": 2, "last_responder": { "contact": "lead" },
        "last_responder_channels": ["whatsapp"] })
}

const ALL: [&str; 3] = ["elevated", "high", "critical"];

/// Whom a case was told to, in order: their phones.
fn told(world: &World) -> Vec<String> {
    let mut all: Vec<_> = [COUNSELLOR, BELA, LEAD].iter().flat_map(|phone| world.sim().messages_to(phone)).collect();
    all.sort_by_key(|message| message.created_at);
    all.into_iter().map(|message| message.to.trim_start_matches("whatsapp:").to_owned()).collect()
}

#[tokio::test]
async fn a_case_goes_to_whoever_is_on_call_and_after_the_hand_over_to_whoever_is_then() {
    let mut world = college().await;
    // The story begins on a Friday at 14:05 in India.
    let shifts = [shift("friday 08:00", "friday 14:12", "counsellor"), shift("friday 14:12", "friday 22:00", "bela")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &shifts)).await.expect(201);
    let on_call = json!({ "schedule": "desk" });
    let steps = [step(0, on_call.clone()), step(300, json!({ "role": "lead" })), step(300, on_call)];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201);
    world.escalated("student-1").await;
    world.work().await;
    world.pass_in_steps(11 * MINUTE, MINUTE).await;
    assert_eq!(told(&world), [COUNSELLOR, LEAD, BELA]);
    world.assert_audit_verifies().await;
}

/// In the night from Saturday to Sunday the clock in Berlin is set back: from two to three there are two hours.
#[tokio::test]
async fn in_the_night_of_a_change_of_the_clock_nobodys_hour_is_lost() {
    let mut world = college().await;
    let shifts = [shift("saturday 20:00", "sunday 02:30", "counsellor"), shift("sunday 02:30", "sunday 08:00", "bela")];
    world.post("/api/v1/schedules", ADMIN, &schedule("nights", "Europe/Berlin", &shifts)).await.expect(201);
    let steps = [step(0, json!({ "schedule": "nights" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201);
    let mut told_at = async |at: &str, student: &str| {
        world.clock.set(at.parse().unwrap());
        world.work().await;
        let before = told(&world).len();
        let opened = world.escalated(student).await.text_at("/reference");
        world.work().await;
        let taken = format!("/api/v1/crisis/alerts/{opened}/resolve");
        world.post(&taken, COUNSELLOR_KEY, &json!({ "outcome": "duplicate" })).await.expect(200);
        told(&world)[before..].to_vec()
    };
    assert_eq!(told_at("2027-10-31T00:29:59Z", "first-half-past-two-is-near").await, [COUNSELLOR]);
    assert_eq!(told_at("2027-10-31T00:30:00Z", "handed-over").await, [BELA]);
    assert_eq!(told_at("2027-10-31T01:15:00Z", "a-quarter-past-two-again").await, [BELA]);
    assert_eq!(told_at("2027-10-31T06:59:59Z", "before-eight").await, [BELA]);
    // Nobody any more: the last responder, at once.
    assert_eq!(told_at("2027-10-31T07:00:00Z", "eight").await, [LEAD]);
    assert_eq!(world.metric("crisis_relay_alarms_total{kind=\"nobody_on_call\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_case_that_is_passed_on_past_a_rung_with_nobody_on_call_says_so_and_whoever_comes_on_call_is_told() {
    let mut world = college().await;
    // Nobody is on call before 14:20; the story begins at 14:05.
    let shifts = [shift("friday 14:20", "friday 22:00", "bela")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &shifts)).await.expect(201);
    let steps = [step(0, json!({ "contact": "counsellor" })), step(300, json!({ "schedule": "desk" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201);
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.sim().reply(COUNSELLOR, "2").await.unwrap();
    world.work().await;
    assert_eq!(told(&world), [COUNSELLOR, LEAD], "nobody else is there: the last responder, at once");
    assert_eq!(world.metric("crisis_relay_alarms_total{kind=\"nobody_on_call\"}").await, Some(1.0));
    let what: Vec<String> = world.alert(&reference).await["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["what"].as_str().unwrap().to_owned())
        .collect();
    assert!(what.iter().any(|what| what == "nobody_on_call"), "{what:?}");
    world.pass_in_steps(20 * MINUTE, MINUTE).await;
    assert!(told(&world).contains(&BELA.to_owned()), "who has come on call since is told with the last responder");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn an_override_and_an_absence_count_from_the_next_rung_on_without_a_restart() {
    let mut world = college().await;
    let all_week = [shift("monday 00:00", "monday 00:00", "counsellor")];
    let mut desk = schedule("desk", "Asia/Kolkata", &all_week);
    world.post("/api/v1/schedules", ADMIN, &desk).await.expect(201);
    let steps = [step(0, json!({ "schedule": "desk" })), step(300, json!({ "schedule": "desk" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201);
    world.escalated("student-1").await;
    world.work().await;
    desk["overrides"] = json!([{ "from": "2026-11-20T14:00", "until": "2026-11-20T18:00", "people": ["bela"] }]);
    let kept = change(&world, Method::PUT, "/api/v1/schedules/desk", 1, Some(&desk)).await.expect(200);
    assert_eq!((kept.headers["etag"].to_str().unwrap(), kept.json()["on_call"].clone()), ("\"2\"", json!(["bela"])));
    world.pass(5 * MINUTE).await;
    assert_eq!(told(&world), [COUNSELLOR, BELA]);
    desk["absences"] = json!([{ "person": "bela", "from": "2026-11-20T14:10", "until": "2026-11-20T15:00" }]);
    change(&world, Method::PUT, "/api/v1/schedules/desk", 2, Some(&desk)).await.expect(200);
    // The second round: the override is for Bela, and Bela is away.
    world.pass(5 * MINUTE).await;
    assert_eq!(told(&world), [COUNSELLOR, BELA, LEAD]);
}

#[tokio::test]
async fn a_case_keeps_the_version_that_it_runs_on_and_every_version_stands_in_the_audit() {
    let mut world = college().await;
    let first =
        policy("night", &[step(0, json!({ "contact": "counsellor" })), step(300, json!({ "contact": "bela" }))], &ALL);
    let made = world.post("/api/v1/escalation-policies", ADMIN, &first).await.expect(201);
    assert_eq!((made.headers["etag"].to_str().unwrap(), made.json()["source"].clone()), ("\"1\"", json!("roster")));
    world.escalated("student-1").await;
    world.work().await;
    let path = "/api/v1/escalation-policies/night";
    let second =
        policy("night", &[step(0, json!({ "contact": "counsellor" })), step(300, json!({ "contact": "lead" }))], &ALL);
    change(&world, Method::PUT, path, 1, Some(&second)).await.expect(200);
    change(&world, Method::PUT, path, 1, Some(&first)).await.expect(409);
    change(&world, Method::PUT, path, 2, Some(&second)).await.expect(200);
    assert_eq!(world.get(path, AUDITOR).await.expect(200).json()["version"], 2, "the same again is no change");
    world.pass(5 * MINUTE).await;
    assert_eq!(told(&world), [COUNSELLOR, BELA]);
    world.escalated("student-2").await;
    world.work().await;
    world.pass(5 * MINUTE).await;
    assert!(told(&world).contains(&LEAD.to_owned()));
    change(&world, Method::DELETE, path, 2, None).await.expect(204);
    world.get(path, ADMIN).await.expect(404);
    let first = world.get("/api/v1/settings/audit?limit=2", AUDITOR).await.expect(200).json();
    assert_eq!(
        (&first["stream"], &first["verified"], &first["next_after"]),
        (&json!("settings/default"), &json!(true), &json!(2))
    );
    let second = world.get("/api/v1/settings/audit?after=2", ADMIN).await.expect(200).json();
    let entries = [first, second].into_iter().flat_map(|page| page["entries"].as_array().unwrap().clone());
    let said: Vec<Value> =
        entries.map(|entry| serde_json::from_str(entry["canonical"].as_str().unwrap()).unwrap()).collect();
    let deeds: Vec<&str> = said.iter().map(|said| said["deed"].as_str().unwrap()).collect();
    assert_eq!(deeds, ["policy_saved", "policy_saved", "policy_removed"]);
    assert_eq!(said[0]["policy"]["steps"][1]["targets"][0]["contact"], "bela");
    assert_eq!(said[1]["policy"]["steps"][1]["targets"][0]["contact"], "lead");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_graver_case_takes_the_ladder_of_its_band_and_one_that_becomes_so_goes_over_to_it() {
    let mut world = college().await;
    let grave = policy("grave", &[step(0, json!({ "contact": "bela" }))], &["critical"]);
    world.post("/api/v1/escalation-policies", ADMIN, &grave).await.expect(201);
    let list = world.get("/api/v1/escalation-policies", COUNSELLOR_KEY).await.expect(200).json();
    let bands: Vec<(&Value, &Value)> =
        list["policies"].as_array().unwrap().iter().map(|policy| (&policy["id"], &policy["bands"])).collect();
    assert_eq!(bands, [(&json!("grave"), &json!(["critical"])), (&json!("default"), &json!(["elevated", "high"]))]);
    world.told("student-1", 0.97).await;
    world.work().await;
    assert_eq!(told(&world), [BELA]);
    world.pass(MINUTE).await;
    world.told("student-2", 0.94).await;
    world.work().await;
    assert_eq!(told(&world), [BELA, COUNSELLOR]);
    world.pass(MINUTE).await;
    world.told("student-2", 0.96).await;
    world.work().await;
    assert_eq!(told(&world), [BELA, COUNSELLOR, BELA]);
}

#[tokio::test]
async fn what_is_wrong_with_a_policy_is_told_field_by_field_and_nothing_is_kept() {
    let world = college().await;
    let mut wrong =
        policy("night", &[step(0, json!({ "contact": "nobody" })), step(4000, json!({ "schedule": "gone" }))], &ALL);
    wrong["steps"][1]["channels"] = json!([]);
    wrong["last_responder_channels"] = json!(["sms"]);
    wrong["rounds"] = json!(0);
    let before = world.kept().await;
    let refused = world.post("/api/v1/escalation-policies", ADMIN, &wrong).await.expect(422).json();
    let fields: Vec<&str> =
        refused["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    let expected = [
        "steps[0].targets[0]",
        "steps[1].channels",
        "steps[1].targets[0]",
        "steps[1].after_seconds",
        "last_responder",
        "rounds",
    ];
    assert_eq!(fields, expected);
    let target = json!({ "contact": "lead", "role": "lead" });
    let two =
        world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &[step(0, target)], &[])).await.expect(422);
    assert_eq!(two.text_at("/errors/0/rule"), "must have one of contact, role and schedule");
    let without_id = json!({ "time_zone": "UTC", "shifts": [] });
    assert_eq!(world.post("/api/v1/schedules", ADMIN, &without_id).await.expect(422).text_at("/code"), "missing_field");
    assert_eq!(world.kept().await, before);
}

#[tokio::test]
async fn the_configurations_ladder_is_shown_and_cannot_be_changed() {
    let world = college().await;
    let path = "/api/v1/escalation-policies/default";
    let shown = world.get(path, AUDITOR).await.expect(200).json();
    assert_eq!((&shown["source"], &shown["bands"]), (&json!("configuration"), &json!(ALL)));
    let body = policy("default", &[step(0, json!({ "contact": "lead" }))], &[]);
    change(&world, Method::PUT, path, 1, Some(&body)).await.expect(409);
    change(&world, Method::DELETE, path, 1, None).await.expect(409);
    world.post("/api/v1/escalation-policies", ADMIN, &body).await.expect(409);
    let without_tag = world.request(Method::PUT, path, Some(ADMIN), Some(&body)).await.expect(422);
    assert_eq!(
        (without_tag.text_at("/code"), without_tag.text_at("/errors/0/field")),
        ("missing_field".into(), "If-Match".into())
    );
}

#[tokio::test]
async fn a_policy_is_explained_for_a_student_and_a_time_and_nothing_is_sent_or_changed() {
    let mut world = college().await;
    let shifts = [shift("friday 08:00", "friday 22:00", "counsellor")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &shifts)).await.expect(201);
    let mut steps = [step(0, json!({ "schedule": "desk" })), step(180, json!({ "contact": "bela" }))];
    steps[0]["channels"] = json!(["sms", "whatsapp"]);
    let mut night = policy("night", &steps, &["critical"]);
    night["rounds"] = json!(1);
    world.post("/api/v1/escalation-policies", ADMIN, &night).await.expect(201);
    world.consents("student-1").await;
    world.work().await;
    let before = world.kept().await;
    let path = "/api/v1/escalation-policies/night/explain";
    let explained = world.post(path, ADMIN, &json!({ "user_id": "student-1" })).await.expect(200).json();
    assert_eq!(
        (&explained["decision"], &explained["ground"], &explained["taken"]),
        (&json!("escalated"), &json!("consent"), &json!(true))
    );
    let stages = explained["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 3);
    let first = &stages[0]["told"][0];
    assert_eq!((&first["contact"], &first["over"][0]["channel"]), (&json!("counsellor"), &json!("whatsapp")));
    assert_eq!(first["not_over"], json!([{ "channel": "sms", "why": "no_number" }]));
    assert_eq!((&stages[1]["at"], &stages[1]["told"][0]["contact"]), (&json!("2026-11-20T08:38:00Z"), &json!("bela")));
    assert_eq!((&stages[2]["last_responder"], &stages[2]["told"][0]["contact"]), (&json!(true), &json!("lead")));
    // On Saturday nobody is on call.
    let saturday = json!({ "user_id": "student-1", "at": "2026-11-21T08:35:00Z", "crisis_score": 0.85 });
    let explained = world.post(path, ADMIN, &saturday).await.expect(200).json();
    assert_eq!((&explained["band"], &explained["taken"]), (&json!("elevated"), &json!(false)));
    assert_eq!(explained["stages"][0]["nobody_on_call"], true);
    assert_eq!(explained["stages"][0]["not_told"][0]["schedule"], "desk");
    assert_eq!(explained["stages"][1]["at"], "2026-11-21T08:35:00Z", "at once");
    for (body, decision) in [
        (json!({ "user_id": "student-2" }), "withheld_no_consent"),
        (json!({ "user_id": "student-2", "emergency_override": true }), "escalated"),
        (json!({ "user_id": "student-1", "crisis_score": 0.1 }), "below_threshold"),
    ] {
        let explained = world.post(path, ADMIN, &body).await.expect(200);
        assert_eq!(explained.text_at("/decision"), decision);
        let would_be_opened = decision != "below_threshold";
        assert_eq!(explained.json()["taken"], would_be_opened, "{decision}: band {}", explained.text_at("/band"));
    }
    assert_eq!(world.kept().await, before);
    world.post("/api/v1/escalation-policies/gone/explain", ADMIN, &json!({ "user_id": "student-1" })).await.expect(404);
}

#[tokio::test]
async fn gaps_are_found_two_weeks_ahead() {
    let world = college().await;
    let shifts = [shift("monday 00:00", "sunday 12:00", "counsellor"), shift("sunday 18:00", "monday 00:00", "bela")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &shifts)).await.expect(201);
    let shown = world.get("/api/v1/readiness", COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!((&shown["schedules"][0]["in_use"], &shown["obstacles"]), (&json!(false), &json!([])));
    let steps = [step(0, json!({ "schedule": "desk" }))];
    let made =
        world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201).json();
    let gap = json!([{ "field": "steps[0].targets[0]", "rule": "has a gap in the next 14 days: the next step begins at once then" }]);
    assert_eq!(made["warnings"], gap);
    let shown = world.get("/api/v1/readiness", COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(shown["next_gap_at"], "2026-11-22T06:30:00Z");
    let gaps: Vec<&Value> = shown["obstacles"].as_array().unwrap().iter().map(|obstacle| &obstacle["from"]).collect();
    assert_eq!(gaps, [&json!("2026-11-22T06:30:00Z"), &json!("2026-11-29T06:30:00Z")]);
    assert_eq!(shown["schedules"][0]["spans"].as_array().unwrap().len(), 7);
}

/// People of the configuration may go while policies name them: `check` finds that, and so does the look ahead.
#[tokio::test]
async fn a_check_finds_policies_in_use_that_do_not_reach_whom_they_name_any_more() {
    let world = college().await;
    let shifts = [shift("monday 00:00", "sunday 12:00", "bela")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &shifts)).await.expect(201);
    let steps = [step(0, json!({ "contact": "bela" })), step(60, json!({ "schedule": "desk" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &["high"])).await.expect(201);
    let roster = world.store().roster(&"default".parse().unwrap()).await.unwrap().unwrap();
    let found = |file: &str| {
        let file = Some(ConfigFile { name: "check.toml".to_owned(), text: file.to_owned() });
        let environment =
            std::collections::BTreeMap::from([("COUNSELLOR_WHATSAPP_TO".to_owned(), COUNSELLOR.to_owned())]);
        let sources = Sources { file, environment, read_file: &|path| std::fs::read_to_string(path) };
        let config = Config::load(&sources).unwrap();
        let found = app::rota_findings(&config, &app::provider(&config, None), &roster, world.now()).unwrap();
        let subjects: Vec<String> = found.faults.into_iter().map(|fault| fault.subject).collect();
        (subjects, found.notes)
    };
    let people =
        [contact_entry("bela", "counsellor", "whatsapp_to", BELA), contact_entry("lead", "lead", "whatsapp_to", LEAD)];
    let (faults, notes) = found(&people.concat());
    assert_eq!(faults, Vec::<String>::new());
    assert!(notes.iter().all(|note| note.starts_with("schedule desk: nobody is on call from 2026-11-")), "{notes:?}");
    let (faults, notes) = found(&people[1]);
    let expected = ["steps[0].targets[0]", "steps[1].targets[0]", "steps[0]", "steps[1]"];
    assert_eq!(faults, expected.map(|field| format!("policy night, {field}")));
    assert!(
        notes.iter().any(|note| note.contains("bela is on call from 2026-11-20T08:35:00Z and cannot be told")),
        "{notes:?}"
    );
}

#[tokio::test]
async fn the_operator_hears_of_a_gap_a_day_ahead_once_and_when_it_is_closed() {
    let mut world = college().await;
    let shifts = [shift("monday 00:00", "sunday 12:00", "counsellor"), shift("sunday 18:00", "monday 00:00", "bela")];
    let mut desk = schedule("desk", "Asia/Kolkata", &shifts);
    world.post("/api/v1/schedules", ADMIN, &desk).await.expect(201);
    let steps = [step(0, json!({ "schedule": "desk" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &ALL)).await.expect(201);
    let alarms = async |world: &World| {
        (
            world.metric("crisis_relay_alarms_total{kind=\"on_call_gap\"}").await.unwrap_or_default(),
            world.metric("crisis_relay_alarms_open{kind=\"on_call_gap\"}").await.unwrap_or_default(),
        )
    };
    world.work().await;
    assert_eq!(alarms(&world).await, (0.0, 0.0));
    let until_gap = world.metric("crisis_relay_next_on_call_gap_seconds").await;
    assert_eq!(until_gap, Some(45.0 * 3600.0 + 55.0 * 60.0));
    assert_eq!(world.metric("crisis_relay_readiness_obstacles{kind=\"gap\"}").await, Some(2.0));
    world.clock.set("2026-11-21T06:30:00Z".parse().unwrap());
    world.work().await;
    assert_eq!(alarms(&world).await, (1.0, 1.0));
    world.pass_in_steps(10 * MINUTE, MINUTE).await;
    assert_eq!(alarms(&world).await, (1.0, 1.0), "once");
    desk["overrides"] = json!([{ "from": "2026-11-22T12:00", "until": "2026-11-22T18:00", "people": ["bela"] }]);
    change(&world, Method::PUT, "/api/v1/schedules/desk", 1, Some(&desk)).await.expect(200);
    world.pass_in_steps(10 * MINUTE, MINUTE).await;
    world.service().alarms().tick();
    world.pass_in_steps(30 * MINUTE, MINUTE).await;
    world.service().alarms().tick();
    assert_eq!(alarms(&world).await, (1.0, 0.0), "it is over");
}

/// A number that nobody has proven keeps a draft from being used; and whom a ladder in use needs cannot be let go.
#[tokio::test]
async fn people_of_the_roster_are_on_call_once_their_number_is_proven() {
    const PHONE: &str = "+919811223344";
    let mut world = college().await;
    let methods = json!([{ "channel": "sms", "number": PHONE }]);
    let person = json!({ "name": "On call", "role": "counsellor", "language": "en", "time_zone": "Asia/Kolkata",
        "active": true, "methods": methods });
    let id = world.post("/api/v1/contacts", ADMIN, &person).await.expect(201).text_at("/id");
    let all_week = [shift("monday 00:00", "monday 00:00", &id)];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &all_week)).await.expect(201);
    let on_call = json!({ "targets": [{ "schedule": "desk" }], "channels": ["sms"] });
    world
        .post("/api/v1/escalation-policies", ADMIN, &policy("night", std::slice::from_ref(&on_call), &[]))
        .await
        .expect(201);
    let in_use = policy("night", &[on_call], &ALL);
    let path = "/api/v1/escalation-policies/night";
    let refused = change(&world, Method::PUT, path, 1, Some(&in_use)).await.expect(422);
    assert_eq!(refused.text_at("/errors/0/field"), "steps[0].targets[0]");
    let shown = world.get("/api/v1/readiness", ADMIN).await.expect(200).json();
    assert_eq!(shown["obstacles"], json!([{ "kind": "method_unverified", "contact": id, "channel": "sms" }]));
    let proof = format!("/api/v1/contacts/{id}/methods/sms/verification");
    world.request(Method::POST, &proof, Some(ADMIN), None).await.expect(202);
    let text = world.sim().messages_to(PHONE).last().unwrap().body.clone();
    let code = text.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6).unwrap();
    world.post(&format!("{proof}/confirm"), ADMIN, &json!({ "code": code })).await.expect(200);
    change(&world, Method::PUT, path, 1, Some(&in_use)).await.expect(200);
    let event = json!({ "user_id": "student-1", "crisis_score": 0.9, "source": "chat",
        "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    assert!(world.sim().messages_to(PHONE).last().unwrap().body.contains(&reference));
    change(&world, Method::DELETE, &format!("/api/v1/contacts/{id}"), 1, None).await.expect(409);
}

#[tokio::test]
async fn a_schedule_that_a_policy_names_cannot_be_taken_away() {
    let world = college().await;
    let all_week = [shift("monday 00:00", "monday 00:00", "counsellor")];
    world.post("/api/v1/schedules", ADMIN, &schedule("desk", "Asia/Kolkata", &all_week)).await.expect(201);
    let steps = [step(0, json!({ "schedule": "desk" }))];
    world.post("/api/v1/escalation-policies", ADMIN, &policy("night", &steps, &[])).await.expect(201);
    change(&world, Method::DELETE, "/api/v1/schedules/desk", 1, None).await.expect(409);
    change(&world, Method::DELETE, "/api/v1/escalation-policies/night", 1, None).await.expect(204);
    change(&world, Method::DELETE, "/api/v1/schedules/desk", 1, None).await.expect(204);
    assert_eq!(world.get("/api/v1/schedules", AUDITOR).await.expect(200).json(), json!({ "schedules": [] }));
}

#[tokio::test]
async fn a_tag_of_something_that_was_removed_does_not_fit_what_has_its_id_now() {
    let world = college().await;
    let all_week = [shift("monday 00:00", "monday 00:00", "counsellor")];
    let steps = [step(0, json!({ "contact": "bela" }))];
    for (list, id, body) in [
        ("/api/v1/schedules", "desk", schedule("desk", "Asia/Kolkata", &all_week)),
        ("/api/v1/escalation-policies", "night", policy("night", &steps, &[])),
    ] {
        let one = format!("{list}/{id}");
        let version = |answer: &Answer| u32::try_from(answer.json()["version"].as_u64().unwrap()).unwrap();
        let read = version(&world.post(list, ADMIN, &body).await.expect(201));
        change(&world, Method::DELETE, &one, read, None).await.expect(204);
        let again = world.post(list, ADMIN, &body).await.expect(201);
        change(&world, Method::PUT, &one, read, Some(&body)).await.expect(409);
        change(&world, Method::DELETE, &one, read, None).await.expect(409);
        change(&world, Method::DELETE, &one, version(&again), None).await.expect(204);
    }
}

#[tokio::test]
async fn an_explanation_says_what_is_the_matter_with_whoever_is_named_and_cannot_be_told() {
    let world = college().await;
    let mut ids = Vec::new();
    for (number, active) in [("+919811223301", true), ("+919811223302", false)] {
        let person = json!({ "name": "A", "role": "lead", "language": "en", "time_zone": "Asia/Kolkata", "active": active,
            "methods": [{ "channel": "whatsapp", "number": number }] });
        ids.push(world.post("/api/v1/contacts", ADMIN, &person).await.expect(201).text_at("/id"));
    }
    let steps: Vec<Value> = ids.iter().map(|id| step(0, json!({ "contact": id }))).collect();
    world.post("/api/v1/escalation-policies", ADMIN, &policy("draft", &steps, &[])).await.expect(201);
    let question = json!({ "user_id": "student-1", "emergency_override": true });
    let explained = world.post("/api/v1/escalation-policies/draft/explain", ADMIN, &question).await.expect(200).json();
    let why = |stage: usize| explained["stages"][stage]["not_told"][0].clone();
    for (stage, reason) in [(0, "unverified"), (1, "inactive")] {
        assert_eq!((&why(stage)["contact"], &why(stage)["why"]), (&json!(ids[stage]), &json!(reason)));
    }
}

#[tokio::test]
async fn what_a_policy_leaves_out_is_as_in_the_configuration() {
    let times = "[policy]\nrounds = 5\nrepeat_every = '7m'\nlast_responder_every = '4m'\nfall_over_after = '45s'\n\
        acknowledged_action_within = '20m'\ncheck_in_within = '6m'\nresolve_by_reply = true\nrespond_within = '8m'";
    let world = Setting::default().with_file(times).start().await;
    let body = json!({ "id": "night", "steps": [step(0, json!({ "contact": "counsellor" }))], "bands": ALL,
        "last_responder": { "contact": "counsellor" }, "last_responder_channels": ["whatsapp"] });
    let kept = world.post("/api/v1/escalation-policies", ADMIN, &body).await.expect(201).json();
    let configured = world.get("/api/v1/escalation-policies/default", ADMIN).await.expect(200).json();
    for field in [
        "rounds",
        "repeat_every_seconds",
        "last_responder_every_seconds",
        "fall_over_after_seconds",
        "act_within_seconds",
        "check_in_within_seconds",
        "resolve_by_reply",
        "respond_within_seconds",
    ] {
        assert_eq!(kept[field], configured[field], "{field}");
    }
    assert_eq!((&kept["fall_over_after_seconds"], &kept["resolve_by_reply"]), (&json!(45), &json!(true)));
}

#[tokio::test]
async fn a_field_at_fault_is_told_with_the_rule_that_holds() {
    let world = college().await;
    let good = policy("another", &[step(0, json!({ "contact": "bela" }))], &[]);
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    const POLICIES: &str = "/api/v1/escalation-policies";
    world.post(POLICIES, ADMIN, &policy("night", &[step(0, json!({ "contact": "bela" }))], &[])).await.expect(201);
    let explain = format!("{POLICIES}/night/explain");
    let person =
        json!({ "name": "A", "role": "boss", "language": "en", "time_zone": "UTC", "active": true, "methods": [] });
    for (path, body, field, rule) in [
        (POLICIES, with("/steps/0/after_seconds", json!(-3)), "steps[0].after_seconds", "from 0 seconds to an hour"),
        (POLICIES, with("/rounds", json!(5_000_000_000_u64)), "rounds", "1 to 100"),
        (
            POLICIES,
            with("/steps/0/targets/0", json!({ "role": "boss" })),
            "steps[0].targets[0].role",
            "lead or duty_manager",
        ),
        (explain.as_str(), json!({ "user_id": "student-1", "at": "tomorrow" }), "at", "RFC 3339 form, such as"),
        ("/api/v1/contacts", person, "role", "must be counsellor, lead or duty_manager"),
    ] {
        let refused = world.post(path, ADMIN, &body).await.expect(422);
        assert_eq!(refused.text_at("/errors/0/field"), field, "{refused:?}");
        assert!(refused.text_at("/errors/0/rule").contains(rule), "{refused:?}");
    }
    let other = change(&world, Method::PUT, &format!("{POLICIES}/night"), 1, Some(&with("/id", json!("day")))).await;
    assert_eq!(other.expect(422).text_at("/errors/0/field"), "id");
}

#[tokio::test]
async fn people_of_the_configuration_are_shown_and_whoever_would_change_them_is_told_where() {
    let world = college().await;
    let path = "/api/v1/contacts/bela";
    let shown = world.get(path, COUNSELLOR_KEY).await.expect(200);
    assert_eq!((shown.text_at("/id"), shown.text_at("/set_up_in")), ("bela".into(), "configuration".into()));
    assert!(!shown.text.contains(&BELA[3..]) && shown.json()["version"].is_null(), "{shown:?}");
    let person =
        json!({ "name": "A", "role": "lead", "language": "en", "time_zone": "UTC", "active": true, "methods": [] });
    let put = change(&world, Method::PUT, path, 1, Some(&person)).await.expect(409);
    let delete = change(&world, Method::DELETE, path, 1, None).await.expect(409);
    let send = world.request(Method::POST, &format!("{path}/methods/whatsapp/verification"), Some(ADMIN), None).await;
    for answer in [put, delete, send.expect(409)] {
        assert!(answer.text_at("/detail").contains("configuration"), "{answer:?}");
    }
}
