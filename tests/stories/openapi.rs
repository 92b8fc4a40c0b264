//! The description of the API: valid, complete, served, and committed. That every answer is one that it allows is checked
//! wherever a story asks something; see `common::described`.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{World, described};

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
