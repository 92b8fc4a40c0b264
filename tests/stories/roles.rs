//! Who may do what: every route, every caller.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{ADMIN, AUDITOR, COUNSELLOR_KEY, SERVICE, Setting, World, answer, described, key_entry, token};

const EXPIRED: &str = "story-expired-key-00001";

/// A route, a body that it takes, and the status for: no key, a wrong one, an expired one, service, counsellor, admin,
/// auditor. `{id}` is a fresh case each time: withheld for the override, else escalating.
struct Row(&'static str, &'static str, fn(usize) -> Option<Value>, [u16; 7]);

const VERIFICATION: &str = "/api/v1/contacts/{id}/methods/{channel}/verification";
const CONFIRMATION: &str = "/api/v1/contacts/{id}/methods/{channel}/verification/confirm";
const EMERGENCY: &str = "/api/v1/messaging/preferences/{user_id}/emergency-contacts";
const EMERGENCY_ONE: &str = "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}";
const EMERGENCY_VERIFICATION: &str =
    "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification";
const EMERGENCY_CONFIRMATION: &str =
    "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification/confirm";
const INFORM: &str = "/api/v1/crisis/alerts/{id}/inform-emergency-contact";

fn nothing(_: usize) -> Option<Value> {
    None
}

const TABLE: [Row; 53] = [
    // First, for it answers once nothing is in hand any more.
    Row("POST", "/api/v1/tasks/run-due", nothing, [401, 401, 401, 200, 403, 200, 403]),
    Row("POST", "/api/v1/crisis/events", event, [401, 401, 401, 202, 403, 403, 403]),
    Row("POST", "/api/v1/crisis/escalate", raised, [401, 401, 401, 403, 202, 202, 403]),
    Row("GET", "/api/v1/crisis/alerts", nothing, [401, 401, 401, 403, 200, 200, 403]),
    Row("GET", "/api/v1/crisis/alerts/{id}", nothing, [401, 401, 401, 403, 200, 200, 403]),
    Row("POST", "/api/v1/crisis/alerts/{id}/acknowledge", nothing, [401, 401, 401, 403, 200, 200, 403]),
    Row("POST", "/api/v1/crisis/drills", nothing_said, [401, 401, 401, 403, 403, 201, 403]),
    Row("GET", "/api/v1/crisis/drills", nothing, [401, 401, 401, 403, 200, 200, 200]),
    // A live case is no drill.
    Row("GET", "/api/v1/crisis/drills/{id}", nothing, [401, 401, 401, 403, 404, 404, 404]),
    Row("POST", "/api/v1/crisis/alerts/{id}/check-in", nothing, [401, 401, 401, 403, 409, 409, 403]),
    Row("POST", "/api/v1/crisis/alerts/{id}/resolve", outcome, [401, 401, 401, 403, 200, 200, 403]),
    Row("POST", "/api/v1/crisis/alerts/{id}/escalate", stated, [401, 401, 401, 403, 200, 200, 403]),
    Row("POST", "/api/v1/crisis/alerts/{id}/reveal", nothing, [401, 401, 401, 403, 200, 200, 403]),
    Row("GET", "/api/v1/crisis/alerts/{id}/audit", nothing, [401, 401, 401, 403, 403, 200, 200]),
    Row("GET", "/api/v1/contacts", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("POST", "/api/v1/contacts", person, [401, 401, 401, 403, 403, 201, 403]),
    Row("GET", "/api/v1/contacts/{id}", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("PUT", "/api/v1/contacts/{id}", person, [401, 401, 401, 403, 403, 200, 403]),
    Row("DELETE", "/api/v1/contacts/{id}", nothing, [401, 401, 401, 403, 403, 204, 403]),
    Row("POST", "/api/v1/contacts/{id}/reveal", nothing, [401, 401, 401, 403, 403, 200, 403]),
    Row("POST", VERIFICATION, nothing, [401, 401, 401, 403, 403, 202, 403]),
    // Nobody has asked for a code.
    Row("POST", CONFIRMATION, code, [401, 401, 401, 403, 403, 409, 403]),
    Row("GET", "/api/v1/messaging/preferences/{user_id}", nothing, [401, 401, 401, 200, 200, 200, 200]),
    Row("PUT", "/api/v1/messaging/preferences/{user_id}", preferences, [401, 401, 401, 200, 403, 200, 403]),
    Row("GET", EMERGENCY, nothing, [401, 401, 401, 200, 200, 200, 200]),
    Row("POST", EMERGENCY, relative, [401, 401, 401, 201, 403, 201, 403]),
    Row("GET", EMERGENCY_ONE, nothing, [401, 401, 401, 200, 200, 200, 200]),
    Row("PUT", EMERGENCY_ONE, relative, [401, 401, 401, 200, 403, 200, 403]),
    Row("DELETE", EMERGENCY_ONE, nothing, [401, 401, 401, 204, 403, 204, 403]),
    Row("POST", EMERGENCY_VERIFICATION, nothing, [401, 401, 401, 202, 403, 202, 403]),
    // Nobody has asked for a code.
    Row("POST", EMERGENCY_CONFIRMATION, code, [401, 401, 401, 409, 403, 409, 403]),
    // The student has named nobody.
    Row("POST", INFORM, decided, [401, 401, 401, 403, 409, 409, 403]),
    Row("GET", "/api/v1/escalation-policies", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("POST", "/api/v1/escalation-policies", policy, [401, 401, 401, 403, 403, 201, 403]),
    Row("GET", "/api/v1/escalation-policies/{id}", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("PUT", "/api/v1/escalation-policies/{id}", policy_anew, [401, 401, 401, 403, 403, 200, 403]),
    Row("POST", "/api/v1/escalation-policies/{id}/explain", explained, [401, 401, 401, 403, 403, 200, 403]),
    Row("DELETE", "/api/v1/escalation-policies/{id}", nothing, [401, 401, 401, 403, 403, 204, 403]),
    Row("GET", "/api/v1/schedules", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("POST", "/api/v1/schedules", schedule, [401, 401, 401, 403, 403, 201, 403]),
    Row("GET", "/api/v1/schedules/{id}", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("PUT", "/api/v1/schedules/{id}", schedule_anew, [401, 401, 401, 403, 403, 200, 403]),
    Row("DELETE", "/api/v1/schedules/{id}", nothing, [401, 401, 401, 403, 403, 204, 403]),
    Row("GET", "/api/v1/readiness", nothing, [401, 401, 401, 403, 200, 200, 200]),
    Row("GET", "/api/v1/settings/audit", nothing, [401, 401, 401, 403, 403, 200, 200]),
    Row("GET", "/livez", nothing, [200; 7]),
    Row("GET", "/metrics", nothing, [200; 7]),
    Row("POST", "/webhooks/twilio/incoming", nothing, [403; 7]),
    Row("POST", "/webhooks/twilio/status", nothing, [403; 7]),
    Row("POST", "/webhooks/twilio/voice/answer", nothing, [403; 7]),
    Row("POST", "/webhooks/twilio/voice/key", nothing, [403; 7]),
    Row("POST", "/webhooks/twilio/voice/code", nothing, [403; 7]),
    Row("POST", "/webhooks/twilio/voice/status", nothing, [403; 7]),
];

/// As [`TABLE`]'s row, but it is ready only after the worker's first round.
const READYZ: Row = Row("GET", "/readyz", nothing, [200; 7]);

fn nothing_said(_: usize) -> Option<Value> {
    Some(json!({}))
}

fn event(n: usize) -> Option<Value> {
    Some(json!({ "user_id": format!("event-{n}"), "crisis_score": 0.9, "source": "chat" }))
}
fn raised(n: usize) -> Option<Value> {
    Some(json!({ "user_id": format!("raised-{n}"), "message": "Please look" }))
}
fn person(n: usize) -> Option<Value> {
    let methods = json!([{ "channel": "sms", "number": format!("+9198{:08}", 20_000_000 + n) }]);
    Some(
        json!({ "name": "Asha", "role": "lead", "language": "en", "time_zone": "UTC", "active": false, "methods": methods }),
    )
}
fn relative(n: usize) -> Option<Value> {
    let methods = json!([{ "channel": "sms", "number": format!("+9198{:08}", 30_000_000 + n) }]);
    Some(json!({ "name": "Amma", "language": "en", "methods": methods }))
}
fn decided(_: usize) -> Option<Value> {
    Some(json!({ "by": "N. Iyer", "reason": "Nobody else knows where they are" }))
}
fn code(_: usize) -> Option<Value> {
    Some(json!({ "code": "012345" }))
}
fn outcome(_: usize) -> Option<Value> {
    Some(json!({ "outcome": "safe_in_person" }))
}
fn stated(_: usize) -> Option<Value> {
    Some(json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } }))
}
fn preferences(_: usize) -> Option<Value> {
    Some(json!({ "whatsapp": true, "source": "app" }))
}
fn policy(n: usize) -> Option<Value> {
    let mut policy = policy_anew(n)?;
    policy["id"] = json!(format!("policy-{n}"));
    Some(policy)
}
fn policy_anew(_: usize) -> Option<Value> {
    let counsellor = json!({ "contact": "counsellor" });
    let step = json!({ "targets": [counsellor], "channels": ["whatsapp"] });
    Some(json!({ "steps": [step], "last_responder": counsellor, "last_responder_channels": ["whatsapp"] }))
}
fn schedule(n: usize) -> Option<Value> {
    let mut schedule = schedule_anew(n)?;
    schedule["id"] = json!(format!("schedule-{n}"));
    Some(schedule)
}
fn schedule_anew(_: usize) -> Option<Value> {
    let week = json!({ "from": "monday 00:00", "until": "monday 00:00", "people": ["counsellor"] });
    Some(json!({ "time_zone": "Asia/Kolkata", "shifts": [week] }))
}
fn explained(n: usize) -> Option<Value> {
    Some(json!({ "user_id": format!("explained-{n}") }))
}

/// What is kept in versions is made for each caller, and gone again before there are too many.
async fn ask_versioned(world: &World, row: &Row, n: usize, key: Option<&str>) -> u16 {
    let Row(method, template, body, _) = row;
    let collection = template.split("/{id}").next().unwrap();
    let make = if collection.ends_with("schedules") { schedule } else { policy };
    let made = world.post(collection, ADMIN, &make(n).unwrap()).await.expect(201);
    let (id, tag) = (made.text_at("/id"), made.headers["etag"].clone());
    let url = world.base().join(&template.replace("{id}", &id)).unwrap();
    let mut request = world.client().request(method.parse().unwrap(), url).header("If-Match", &tag);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body(n) {
        request = request.json(&body);
    }
    let status = crate::common::answer(request).await.status;
    remove(world, &format!("{collection}/{id}")).await;
    status
}

/// Takes away what is there still.
async fn remove(world: &World, path: &str) {
    let there = world.get(path, ADMIN).await;
    if there.status == 200 {
        let url = world.base().join(path).unwrap();
        let request = world.client().delete(url).bearer_auth(ADMIN).header("If-Match", &there.headers["etag"]);
        crate::common::answer(request).await.expect(204);
    }
}

fn is_versioned(path: &str) -> bool {
    path.starts_with("/api/v1/escalation-policies/{id}") || path.starts_with("/api/v1/schedules/{id}")
}

async fn ask(world: &World, row: &Row, n: usize, key: Option<&str>) -> u16 {
    let Row(method, template, body, _) = row;
    if is_versioned(template) {
        return ask_versioned(world, row, n, key).await;
    }
    let mut path = template.replace("{user_id}", &format!("student-{n}"));
    if path.starts_with("/api/v1/contacts/{id}") {
        // Codes are sent to those who are active only, of whom there may be few.
        let mut set_up = person(n).unwrap();
        set_up["active"] = json!(path.contains("verification"));
        let added = world.post("/api/v1/contacts", ADMIN, &set_up).await.expect(201);
        path = path.replace("{id}", &added.text_at("/id")).replace("{channel}", "sms");
    } else if path.contains("/emergency-contacts/{id}") {
        let collection = EMERGENCY.replace("{user_id}", &format!("student-{n}"));
        let added = world.post(&collection, ADMIN, &relative(n).unwrap()).await.expect(201);
        path = path.replace("{id}", &added.text_at("/id")).replace("{channel}", "sms");
    } else if path.contains("{id}") {
        let student = format!("{}-{n}", path.rsplit('/').next().unwrap().replace(['{', '}'], ""));
        if !path.ends_with("/escalate") {
            world.consents(&student).await;
        }
        let event = json!({ "user_id": student, "crisis_score": 0.9, "source": "chat" });
        let reference = world.event(&event).await.expect(202).text_at("/reference");
        path = path.replace("{id}", &reference);
    }
    let method: Method = method.parse().unwrap();
    let mut request = world.client().request(method, world.base().join(&path).unwrap()).header("If-Match", "\"1\"");
    request = key.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    request = body(n).into_iter().fold(request, |request, body| request.json(&body));
    let answered = answer(request).await;
    if path == "/api/v1/crisis/drills" && answered.status == 201 {
        // Another can be started when this one is over.
        let resolve = format!("/api/v1/crisis/alerts/{}/resolve", answered.text_at("/reference"));
        world.post(&resolve, ADMIN, &json!({ "outcome": "drill" })).await.expect(200);
    }
    answered.status
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let file = key_entry("expired", "admin", EXPIRED, "expires_at = 2026-11-20T08:34:59Z");
    let setting = Setting::default()
        .with("CRISIS_RELAY__TWILIO__SMS_PER_SECOND", "1000")
        .with("CARE_DESK_PHONE", "+911123456789")
        .with("CRISIS_RELAY__RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "10000");
    let mut world = setting.with_file(&file).with_people().start().await;
    world.work().await;
    let tokens =
        ["service", "counsellor", "admin", "auditor"].map(|role| token(&format!("{role}@college.example"), role));
    let mut n = 0;
    for row in TABLE.iter().chain([&READYZ]) {
        let Row(method, path, _, expected) = row;
        let keys =
            [None, Some("a wrong key"), Some(EXPIRED), Some(SERVICE), Some(COUNSELLOR_KEY), Some(ADMIN), Some(AUDITOR)];
        for (key, expected) in keys.into_iter().zip(expected) {
            n += 1;
            assert_eq!(ask(&world, row, n, key).await, *expected, "{method} {path} with {key:?}");
        }
        for (at, token) in tokens.iter().enumerate() {
            n += 1;
            // A token makes nobody a service: where credentials are asked for, that role of a person is none.
            let expected = if at == 0 && expected[0] == 401 { 403 } else { expected[3 + at] };
            assert_eq!(ask(&world, row, n, Some(token)).await, expected, "{method} {path} with a token");
        }
    }
}

#[test]
fn no_route_is_left_out_of_the_table() {
    let tabled: BTreeSet<(String, String)> =
        TABLE.iter().chain([&READYZ]).map(|Row(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    let described: BTreeSet<(String, String)> =
        described::operations().into_iter().map(|(method, path, _)| (method, path)).collect();
    assert_eq!(tabled, described);
}

#[test]
fn every_route_that_asks_for_credentials_says_so_in_the_description() {
    for Row(method, path, _, expected) in &TABLE {
        let (.., operation) =
            described::operations().into_iter().find(|(known, at, _)| known == method && at == path).unwrap();
        assert_eq!(operation.get("security").is_some(), expected[0] == 401, "{method} {path}");
    }
}

#[tokio::test]
async fn a_case_is_not_to_be_found_by_anybody_of_another_organisation() {
    let roles = ["service", "counsellor", "admin", "auditor"];
    let key = |role: &str| format!("another-colleges-{role}-key");
    let file: String =
        roles.map(|role| key_entry(&format!("x-{role}"), role, &key(role), "organisation = \"elsewhere\"")).concat();
    let mut world = Setting::default().with_file(&file).start().await;
    let opened = world.escalated("student-1").await;
    world.work().await;
    let names = [opened.text_at("/reference"), opened.text_at("/alert_id")];
    let before = world.kept().await;
    for row in TABLE.iter().filter(|row| row.1.contains("/alerts/{id}")) {
        let Row(method, path, body, expected) = row;
        for (role, expected) in roles.iter().zip(&expected[3..]).filter(|(_, expected)| **expected == 200) {
            for name in &names {
                let path = path.replace("{id}", name);
                let answer = world.request(method.parse().unwrap(), &path, Some(&key(role)), body(0).as_ref()).await;
                assert_eq!(
                    (answer.status, answer.text_at("/code").as_str()),
                    (404, "not_found"),
                    "{method} {path} {expected}"
                );
            }
        }
    }
    let listed = world.get("/api/v1/crisis/alerts", &key("admin")).await.expect(200);
    assert_eq!(listed.json(), json!({ "alerts": [] }));
    assert_eq!(world.kept().await, before, "not even a look is recorded");
}
