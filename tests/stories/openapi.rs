//! The description of the API: valid, complete, served, and committed. That every answer is one that it allows is checked
//! wherever a story asks something; see `common::described`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::stage::event;
use crate::common::{ADMIN, SERVICE, Setting, World, answer, described};

fn generated() -> String {
    let mut text = crisis_relay::http::openapi().to_pretty_json().unwrap();
    text.push('\n');
    text
}

/// Every object of a document, with its place.
fn objects<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a serde_json::Map<String, Value>)>) {
    match value {
        Value::Object(object) => {
            found.push((at.to_owned(), object));
            for (name, inner) in object {
                objects(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| objects(item, at, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_committed_description_is_the_one_that_the_code_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated(),
        "docs/openapi.json is out of date: UPDATE_DOCS=1 cargo test --test stories openapi"
    );
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let world = World::new().await;
    let served = world.request(Method::GET, "/openapi.json", None, None).await.expect(200);
    assert_eq!(served.json(), serde_json::from_str::<Value>(&generated()).unwrap());
    let page = world.request(Method::GET, "/docs/", None, None).await.expect(200);
    assert!(page.text.contains("swagger-ui"), "{}", page.text);
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(!page.headers["content-security-policy"].to_str().unwrap().contains("script-src *"));
    // Without the stroke at its end, one is led to the page.
    assert!(world.request(Method::GET, "/docs", None, None).await.expect(200).text.contains("swagger-ui"));
}

#[test]
fn the_description_is_openapi_3_1_and_hangs_together() {
    let document = described::description();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut found = Vec::new();
    objects(document, "", &mut found);
    for (at, object) in found {
        if let Some(name) = object.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{at}: dangling {name}");
        }
        if let (Some(required), Some(known)) =
            (object.get("required").and_then(Value::as_array), object.get("properties"))
        {
            for name in required {
                assert!(known.get(name.as_str().unwrap()).is_some(), "{at}: {name} is required and not described");
            }
        }
    }
}

#[test]
fn every_operation_is_told_apart_and_describes_its_path_its_tag_and_its_answers() {
    let document = described::description();
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in described::operations() {
        let place = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{place}: its id is another's");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}: no summary");
        for tag in operation["tags"].as_array().unwrap() {
            assert!(tags.contains(tag.as_str().unwrap()), "{place}: {tag}");
        }
        let parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .inspect(|parameter| assert_eq!(parameter["required"], true, "{place}"))
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, described, "{place}");
        for (status, answer) in operation["responses"].as_object().unwrap() {
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{place} {status}");
        }
        for name in operation.get("security").and_then(Value::as_array).into_iter().flatten() {
            let name = name.as_object().unwrap().keys().next().unwrap();
            assert!(document["components"]["securitySchemes"].get(name).is_some(), "{place}: {name}");
        }
    }
}

#[test]
fn the_checker_of_answers_finds_what_is_not_described() {
    let schema = json!({ "$ref": "#/components/schemas/EventAnswer" });
    let good = json!({ "event_id": "x", "decision": "merged", "paged_again": true });
    assert_eq!(described::faults(&schema, &good), Vec::<String>::new());
    let view = json!({ "$ref": "#/components/schemas/AlertView" });
    for (schema, wrong) in [
        (&schema, json!({ "decision": "merged" })),
        (&schema, json!({ "event_id": "x", "decision": "perhaps" })),
        (&schema, json!({ "event_id": "x", "decision": "merged", "paged_again": "yes" })),
        (&schema, json!({ "event_id": "x", "decision": "merged", "phone": "+91" })),
        (&view, json!({ "id": "x" })),
    ] {
        assert_ne!(described::faults(schema, &wrong), Vec::<String>::new(), "{wrong}");
    }
}

/// A place where the description says by a pattern what may stand there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Patterned {
    method: String,
    path: String,
    /// `path`, `query`, `header` or `body`.
    within: String,
    name: String,
    pattern: String,
}

/// Every place with a pattern, of parameters and of bodies.
fn patterned() -> Vec<Patterned> {
    let mut found = Vec::new();
    for (method, path, operation) in described::operations() {
        let mut add = |within: &str, name: &str, schema: &Value| {
            let Some(pattern) = schema["pattern"].as_str() else { return };
            let [method, path, within, name, pattern] =
                [&method, &path, within, name, pattern].map(|text: &str| text.to_owned());
            found.push(Patterned { method, path, within, name, pattern });
        };
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            add(parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap(), &parameter["schema"]);
        }
        let body = operation.pointer("/requestBody/content/application~1json/schema/$ref").and_then(Value::as_str);
        let body = body.and_then(|name| described::description().pointer(name.trim_start_matches('#')));
        for (name, schema) in body.and_then(|body| body["properties"].as_object()).into_iter().flatten() {
            add("body", name, schema);
        }
    }
    found
}

/// A body that an operation takes.
fn body_of(path: &str, number: usize) -> Option<Value> {
    match path.rsplit('/').next().unwrap() {
        "events" => Some(event("student-pattern", 0.1)),
        "explain" => Some(json!({ "user_id": "student-pattern" })),
        _ if path.starts_with("/api/v1/escalation-policies") => {
            let counsellor = json!({ "contact": "counsellor" });
            let step = json!({ "targets": [counsellor], "channels": ["whatsapp"] });
            Some(json!({ "steps": [step], "last_responder": counsellor, "last_responder_channels": ["whatsapp"] }))
        }
        _ if path.starts_with("/api/v1/schedules") => Some(json!({ "time_zone": "UTC", "shifts": [] })),
        "escalate" if path.ends_with("{id}/escalate") => {
            Some(json!({ "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" } }))
        }
        "escalate" => Some(json!({ "user_id": format!("student-pattern-{number}"), "message": "please" })),
        "contacts" | "{id}" if path.contains("/contacts") => Some(json!({
            "name": "Asha", "role": "lead", "language": "en", "time_zone": "UTC", "active": false, "methods": [],
        })),
        "emergency-contacts" | "{id}" if path.contains("/emergency-contacts") => {
            Some(json!({ "name": "Amma", "language": "en", "methods": [] }))
        }
        "inform-emergency-contact" => Some(json!({ "by": "N. Iyer", "reason": "nobody else knows" })),
        "confirm" => Some(json!({ "code": "012345" })),
        "resolve" => Some(json!({ "outcome": "safe_by_phone" })),
        "{user_id}" => Some(json!({ "whatsapp": true, "source": "story" })),
        _ => None,
    }
}

/// Whether the service takes a text in that place. `None`: it cannot be sent there at all.
async fn takes(world: &World, place: &Patterned, text: &str, number: usize) -> Option<bool> {
    let mut url = world.base().clone();
    {
        let mut segments = url.path_segments_mut().unwrap();
        for part in place.path.split('/').skip(1) {
            match part {
                "{id}" if place.within == "path" => segments.push(text),
                "{id}" if place.path.contains("contacts/") => segments.push("c-nobody"),
                "{id}" if place.path.contains("/alerts/") => segments.push("ZZZZZZZZ"),
                "{channel}" => segments.push("sms"),
                "{id}" => segments.push("nothing-such"),
                "{user_id}" => segments.push("student-pattern"),
                part => segments.push(part),
            };
        }
    }
    if place.within == "query" {
        url.query_pairs_mut().append_pair(&place.name, text);
    }
    let cannot_be_sent = match place.within.as_str() {
        // What is no segment of its own leads elsewhere; and line ends are left out of an address.
        "path" => matches!(text, "" | "." | "..") || text.contains('\n'),
        // Blanks around a header's value are none of it.
        "header" => text.trim() != text,
        _ => false,
    };
    if cannot_be_sent {
        return None;
    }
    let key = if place.path.starts_with("/api/v1/messaging") { SERVICE } else { ADMIN };
    let key = if place.path.ends_with("/crisis/events") { SERVICE } else { key };
    let mut request = world.client().request(place.method.parse().unwrap(), url).bearer_auth(key);
    if place.path.contains("contacts/") && place.within != "header" {
        request = request.header("If-Match", "\"1\"");
    }
    if place.within == "header" {
        request = request.header(&place.name, reqwest::header::HeaderValue::from_str(text).ok()?);
    }
    let is_versioned = place.path.contains("/escalation-policies/") || place.path.contains("/schedules/");
    if is_versioned && place.within != "header" {
        request = request.header("If-Match", "\"1\"");
    }
    let is_read = matches!(place.method.as_str(), "GET" | "DELETE");
    let mut body = body_of(&place.path, number).filter(|_| !is_read);
    if place.within == "body" {
        body.as_mut().unwrap()[&place.name] = text.into();
    }
    if let Some(body) = &body {
        request = request.json(body);
    }
    let answered = answer(request).await;
    match answered.status {
        // There is no such thing, or it is in another state: but the name was understood.
        200 | 201 | 202 | 204 | 404 | 409 => Some(true),
        422 if answered.text.contains("must be that of the path") => Some(true),
        400 | 422 => Some(false),
        _ => panic!("{place:?}: {text:?} was answered {answered:?}"),
    }
}

/// Texts that a pattern accepts, and others that are near: with a character more, less, or another; and what is accepted
/// elsewhere. The same in each run.
fn texts_about(pattern: &str, further: &[String]) -> BTreeSet<String> {
    let bare =
        pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).expect("a pattern is of the whole text");
    let strategy = proptest::string::string_regex(bare).unwrap();
    let mut runner = TestRunner::deterministic();
    let mut texts: BTreeSet<String> = further.iter().cloned().collect();
    for turn in 0..8 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        let characters: Vec<char> = text.chars().collect();
        let at = (turn * 7) % characters.len();
        for other in ["", "-", "+", " ", "U", "u", "g", "{", ".", "0", "é", "١"] {
            let (before, after): (String, String) =
                (characters[..at].iter().collect(), characters[at + 1..].iter().collect());
            texts.insert(format!("{before}{other}{after}"));
            texts.insert(format!("{before}{}{other}{after}", characters[at]));
        }
        texts.extend([text.to_uppercase(), text.to_lowercase(), text.repeat(2), format!("{text}\n"), text]);
    }
    texts
}

#[tokio::test]
async fn what_a_pattern_refuses_the_service_refuses_and_what_the_service_makes_every_pattern_accepts() {
    let many = "10000";
    let mut world = Setting::default().with("CRISIS_RELAY__RATE_LIMITS__PERSON_PER_SECOND", many).start().await;
    for student in 0..2 {
        world.escalated(&format!("student-{student}")).await;
    }
    world.work().await;
    let page = world.get("/api/v1/crisis/alerts?limit=1", ADMIN).await.expect(200);
    let (id, reference) = (page.text_at("/alerts/0/id"), page.text_at("/alerts/0/reference"));
    let cursor = page.text_at("/next_cursor");
    let made: BTreeMap<&str, Vec<&String>> = BTreeMap::from([("id", vec![&id, &reference]), ("cursor", vec![&cursor])]);
    // The same in the other spellings that there are.
    let simple = id.replace('-', "");
    let mut spelled = vec![id.to_uppercase(), reference.to_lowercase(), simple.clone()];
    spelled.extend([format!("{{{id}}}"), format!("urn:uuid:{id}"), format!("{}{reference}", "-".repeat(9))]);
    spelled.extend(["+1", "-1", "0", "000000000000000001"].map(|micros| format!("{micros}.{id}")));
    spelled.extend([format!("1.{simple}"), format!("1.{{{id}}}"), "A".repeat(64), "A".repeat(65), "~".repeat(256)]);
    let further: Vec<String> = spelled.into_iter().chain([id.clone(), reference.clone(), cursor.clone()]).collect();

    let places = patterned();
    assert!(places.len() >= 13, "the description has fewer patterns than it had: {places:#?}");
    for place in &places {
        let pattern = Regex::new(&place.pattern).unwrap();
        for text in made.get(place.name.as_str()).into_iter().flatten() {
            assert!(pattern.is_match(text), "{place:?}: refuses {text}, which the service has made");
            assert_eq!(takes(&world, place, text, 0).await, Some(true), "{place:?}: {text}");
        }
        let mut taken = 0;
        for (number, text) in texts_about(&place.pattern, &further).iter().enumerate() {
            let Some(is_taken) = takes(&world, place, text, number).await else { continue };
            taken += usize::from(is_taken);
            assert!(pattern.is_match(text) || !is_taken, "{place:?}: refuses {text:?}, and the service takes it");
            // Of a reference the pattern cannot say how many of its characters are dashes.
            let exact = place.name != "id" || text.len() == 36;
            assert!(
                is_taken || !exact || !pattern.is_match(text),
                "{place:?}: accepts {text:?}, and the service refuses it"
            );
        }
        assert!(taken > 0, "{place:?}: the service takes nothing of all that");
    }
}
