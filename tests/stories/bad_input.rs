//! What is malformed, hostile or merely wrong: refused by field and rule, with nothing changed and nothing repeated.

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::common::{ADMIN, Answer, Kept, SERVICE, World, answer};

/// Stands in every value that is sent; no answer may repeat it.
const CANARY: &str = "canary7791";

/// A route with a JSON body, who may call it, and a body that it would take.
struct Route {
    method: Method,
    path: String,
    key: &'static str,
    body: Value,
}

impl Route {
    fn request(&self, world: &World) -> RequestBuilder {
        let url = world.base().join(&self.path).unwrap();
        world.client().request(self.method.clone(), url).bearer_auth(self.key)
    }

    async fn send(&self, world: &World, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.request(world).header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// The body with something else at a JSON pointer.
    fn with(&self, pointer: &str, value: &Value) -> Value {
        let mut body = self.body.clone();
        *body.pointer_mut(pointer).unwrap() = value.clone();
        body
    }
}

/// A world with an escalating and a withheld case, and every route that takes JSON.
async fn routes() -> (World, Vec<Route>) {
    let mut world = World::new().await;
    let escalating = world.escalated("student-1").await.text_at("/reference");
    let event = json!({ "user_id": "student-2", "crisis_score": 0.9, "source": "chat" });
    let withheld = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    let stated = json!({ "by": CANARY, "reason": CANARY });
    let route = |method: Method, path: &str, key, body| Route { method, path: path.to_owned(), key, body };
    let routes = vec![
        route(
            Method::POST,
            "/api/v1/crisis/events",
            SERVICE,
            json!({
                "user_id": CANARY, "crisis_score": 0.9, "source": "chat", "message": CANARY,
                "occurred_at": "2026-11-20T08:30:00Z", "model_version": CANARY, "emergency_override": stated,
                "metadata": { "k": CANARY, "nested": { "list": [CANARY] } },
            }),
        ),
        route(
            Method::POST,
            "/api/v1/crisis/escalate",
            ADMIN,
            json!({ "user_id": CANARY, "message": CANARY, "emergency_override": stated }),
        ),
        route(
            Method::POST,
            &format!("/api/v1/crisis/alerts/{escalating}/resolve"),
            ADMIN,
            json!({ "outcome": "duplicate", "note": CANARY }),
        ),
        route(
            Method::POST,
            &format!("/api/v1/crisis/alerts/{withheld}/escalate"),
            ADMIN,
            json!({ "emergency_override": stated }),
        ),
        route(
            Method::PUT,
            &format!("/api/v1/messaging/preferences/{CANARY}"),
            SERVICE,
            json!({ "whatsapp": true, "sms": true, "voice": true, "source": CANARY, "notice_version": CANARY }),
        ),
    ];
    (world, routes)
}

/// A refusal as it must be: a problem document with a request id that repeats nothing, and nothing changed.
#[track_caller]
fn assert_refused(refused: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(refused.status, status, "{what}: {refused:?}");
    let id = refused.headers["x-request-id"].to_str().unwrap();
    let problem = refused.json();
    assert_eq!(refused.headers["content-type"], "application/problem+json", "{what}");
    assert_eq!(
        (&problem["code"], &problem["status"], &problem["request_id"]),
        (&json!(code), &json!(status), &json!(id)),
        "{what}"
    );
    let said = format!("{}{:?}", refused.text, refused.headers);
    assert!(!said.contains(CANARY), "{what}: the answer repeats what was sent: {said}");
}

async fn assert_nothing_changed(world: &World, before: &Kept) {
    assert_eq!(&world.kept().await, before);
}

/// The field that a refusal names.
fn field(refused: &Answer) -> String {
    let problem = refused.json();
    assert!(problem.pointer("/errors/0/rule").and_then(Value::as_str).is_some_and(|rule| rule.len() > 4), "{problem}");
    refused.text_at("/errors/0/field")
}

/// Every field of a body, as JSON pointers, objects inside included.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let pointer = format!("{at}/{name}");
        if pointer != "/metadata" {
            pointers(inner, &pointer, found);
        }
        found.push(pointer);
    }
}

fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

#[tokio::test]
async fn what_is_not_json_is_refused_on_every_route() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    let deep = format!(r#"{{"metadata": {}"{CANARY}"{}}}"#, r#"{"a": "#.repeat(40), "}".repeat(40));
    for route in &routes {
        let whole = route.body.to_string();
        let bodies: Vec<Vec<u8>> = vec![
            Vec::new(),
            b" ".to_vec(),
            b"null,".to_vec(),
            whole.as_bytes()[..whole.len() - 1].to_vec(),
            format!("{whole}{whole}").into_bytes(),
            format!("{whole},").into_bytes(),
            whole.replace('"', "'").into_bytes(),
            [b"\xEF\xBB\xBF", whole.as_bytes()].concat(),
            whole.replace(CANARY, "canary\u{0}7791").into_bytes(),
            [&whole.as_bytes()[..whole.len() - 1], b", \"x\": \"\xFF\xFE\"}"].concat(),
            whole.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            deep.clone().into_bytes(),
            "[".repeat(100_000).into_bytes()[..60_000].to_vec(),
            br#"{"user_id": "\ud800"}"#.to_vec(),
        ];
        for body in bodies {
            let what = format!("{} {}", route.path, String::from_utf8_lossy(&body[..body.len().min(60)]));
            let refused = route.send(&world, body).await;
            assert_refused(&refused, 400, "malformed_json", &what);
            assert!(refused.json()["detail"].is_string(), "{what}: says where or why");
        }
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn what_is_no_object_is_refused_on_every_route() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    for route in &routes {
        for body in [format!("[{}]", route.body), format!("\"{CANARY}\""), "7791".into(), "true".into(), "null".into()]
        {
            let refused = route.send(&world, body.clone()).await;
            assert_refused(&refused, 422, "invalid_field", &body);
            assert_eq!(refused.text_at("/errors/0/rule"), "must be an object");
        }
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn a_key_that_comes_twice_is_refused_at_any_depth() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    for route in &routes {
        let mut found = Vec::new();
        pointers(&route.body, "", &mut found);
        for pointer in found.iter().filter(|pointer| pointer.matches('/').count() == 1) {
            let value = &route.body.pointer(pointer).unwrap();
            let whole = route.body.to_string();
            let body = format!("{}, {}: {value}}}", &whole[..whole.len() - 1], json!(dotted(pointer)));
            let refused = route.send(&world, body).await;
            assert_refused(&refused, 400, "duplicate_field", pointer);
            assert_eq!(field(&refused), dotted(pointer));
        }
    }
    let nested = [
        (r#"{"a": 1, "a": 2}"#, "metadata.a"),
        (r#"{"a": [{"b": 1}, {"b": {"c": 1, "\u0063": 2}}]}"#, "metadata.a[1].b.c"),
    ];
    for (metadata, at) in nested {
        let body =
            format!(r#"{{"user_id": "{CANARY}", "crisis_score": 0.9, "source": "chat", "metadata": {metadata}}}"#);
        let refused = routes[0].send(&world, body).await;
        assert_refused(&refused, 400, "duplicate_field", metadata);
        assert_eq!(field(&refused), at);
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn an_unknown_field_a_missing_one_and_a_wrong_type_are_named_on_every_route() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    for route in &routes {
        let mut found = Vec::new();
        pointers(&route.body, "", &mut found);
        for pointer in found {
            let name = dotted(&pointer);
            for wrong in [json!([CANARY]), json!({ "x": CANARY }), json!(7791), json!("")] {
                let body = route.with(&pointer, &wrong);
                if pointer == "/metadata" && wrong.is_object() {
                    continue;
                }
                // A number that is out of range is a score, and no score is another's.
                let refused = route.send(&world, body.to_string()).await;
                let what = format!("{} {pointer} {wrong}", route.path);
                let unknown = wrong.is_object() && pointer == "/emergency_override";
                assert_refused(
                    &refused,
                    422,
                    if unknown { "unknown_field" } else { "invalid_field" },
                    &what.replace(CANARY, "…"),
                );
                assert!(field(&refused).starts_with(&name), "{what}: {refused:?}");
            }
        }
        let mut unknown = route.body.clone();
        unknown["phone"] = json!(CANARY);
        let refused = route.send(&world, unknown.to_string()).await;
        assert_refused(&refused, 422, "unknown_field", &route.path);
        assert_eq!(field(&refused), "phone");
    }
    let missing = [
        (0, "user_id"),
        (0, "crisis_score"),
        (0, "source"),
        (0, "emergency_override.by"),
        (0, "emergency_override.reason"),
        (1, "user_id"),
        (1, "message"),
        (2, "outcome"),
        (3, "emergency_override"),
        (3, "emergency_override.by"),
        (3, "emergency_override.reason"),
        (4, "source"),
    ];
    for (route, name) in missing {
        let mut body = routes[route].body.clone();
        let (parent, leaf) = name.split_once('.').map_or(("", name), |(parent, leaf)| (parent, leaf));
        let object = if parent.is_empty() { &mut body } else { &mut body[parent] };
        object.as_object_mut().unwrap().remove(leaf);
        let refused = routes[route].send(&world, body.to_string()).await;
        assert_refused(&refused, 422, "missing_field", name);
        assert_eq!(field(&refused), name);
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn a_score_is_a_finite_number_from_0_to_1_and_nothing_else() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    let template = format!(r#"{{"user_id": "{CANARY}", "source": "chat", "crisis_score": SCORE}}"#);
    for score in ["NaN", "Infinity", "-Infinity", "1e999", "0x1", ".9", "+0.9", "09", "1.", "1_0", "nan"] {
        let refused = routes[0].send(&world, template.replace("SCORE", score)).await;
        assert_refused(&refused, 400, "malformed_json", score);
    }
    for score in ["-0.1", "1.1", "1.0000001", "-1e-300", "1e308", "100", "-1", "\"0.9\"", "null", "true", "[0.9]", "{}"]
    {
        let refused = routes[0].send(&world, template.replace("SCORE", score)).await;
        assert_refused(&refused, 422, "invalid_field", score);
        assert_eq!(field(&refused), "crisis_score", "{score}");
    }
    assert_nothing_changed(&world, &before).await;
    for score in ["0", "-0.0", "1e-400", "0.0"] {
        let taken = routes[0].send(&world, template.replace("SCORE", score)).await.expect(202);
        assert_eq!(taken.text_at("/decision"), "below_threshold", "{score}");
    }
}

#[tokio::test]
async fn texts_are_bounded_in_length_and_free_of_control_characters() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    // Route, field, longest.
    let texts = [
        (0, "/user_id", 128),
        (0, "/message", 4000),
        (0, "/model_version", 64),
        (0, "/emergency_override/by", 200),
        (0, "/emergency_override/reason", 1000),
        (1, "/user_id", 128),
        (1, "/message", 4000),
        (1, "/emergency_override/by", 200),
        (2, "/note", 4000),
        (3, "/emergency_override/reason", 1000),
        (4, "/source", 64),
        (4, "/notice_version", 64),
    ];
    for (route, pointer, longest) in texts {
        let route = &routes[route];
        let long = "x".repeat(longest + 1);
        let many = "ज़".repeat(longest);
        for wrong in [long.as_str(), many.as_str(), "a\u{0}b", "a\u{1b}[31mb", "a\u{7f}b", "a\u{85}b", "", "   ", "\n"]
        {
            let refused = route.send(&world, route.with(pointer, &json!(wrong)).to_string()).await;
            assert_refused(&refused, 422, "invalid_field", &format!("{pointer} {wrong:.20}"));
            assert_eq!(field(&refused), dotted(pointer));
        }
    }
    for wrong in [" a", "a ", "a\nb", "a\tb"] {
        for route in &routes[..2] {
            let refused = route.send(&world, route.with("/user_id", &json!(wrong)).to_string()).await;
            assert_refused(&refused, 422, "invalid_field", wrong);
            assert_eq!(field(&refused), "user_id");
        }
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn times_and_metadata_are_bounded() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    let times = [
        "2026-11-20T08:40:01Z",
        "2026-11-19T08:34:59Z",
        "yesterday",
        "2026-11-20",
        "2026-11-20T08:30:00",
        "2026-13-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "",
        "1763627700",
    ];
    for at in times {
        let refused = routes[0].send(&world, routes[0].with("/occurred_at", &json!(at)).to_string()).await;
        assert_refused(&refused, 422, "invalid_field", at);
        assert_eq!(field(&refused), "occurred_at", "{at}");
    }
    let many: Value = (0..33).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>().into();
    for metadata in [many, json!({ "k": "x".repeat(4097) })] {
        let refused = routes[0].send(&world, routes[0].with("/metadata", &metadata).to_string()).await;
        assert_refused(&refused, 422, "invalid_field", "metadata");
        assert_eq!(field(&refused), "metadata");
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn every_fault_of_a_body_that_fits_its_form_is_told_at_once() {
    let (world, routes) = routes().await;
    let mut body = routes[0].body.clone();
    body["user_id"] = json!(" ");
    body["message"] = json!("\u{0}");
    body["emergency_override"]["by"] = json!("");
    body["occurred_at"] = json!("2020-01-01T00:00:00Z");
    let problem = routes[0].send(&world, body.to_string()).await.expect(422).json();
    let fields: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    for field in ["user_id", "message", "emergency_override.by", "occurred_at"] {
        assert!(fields.contains(&field), "{field}: {fields:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_is_sent() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    let large = format!(r#"{{"user_id": "{}"}}"#, CANARY.repeat(7000));
    assert!(large.len() > 65_536);
    for route in &routes {
        assert_refused(&route.send(&world, large.clone()).await, 413, "body_too_large", &route.path);
        let refused = in_chunks(&world, route, &large).await;
        assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("body_too_large"), "{refused}");
        assert!(!refused.contains(CANARY), "{refused}");
    }
    assert_nothing_changed(&world, &before).await;
}

/// Sends a body without telling its length, and gives the raw answer.
async fn in_chunks(world: &World, route: &Route, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = world.base().socket_addrs(|| None).unwrap()[0];
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (method, path, key) = (&route.method, &route.path, route.key);
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for chunk in body.as_bytes().chunks(1000) {
        request.push_str(&format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()));
    }
    request.push_str("0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let (world, routes) = routes().await;
    let before = world.kept().await;
    for route in &routes {
        let body = route.body.to_string();
        let types = [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/jsonx",
            "text/json",
            "application/problem+json",
            "multipart/form-data; boundary=x",
            "",
        ];
        for kind in types {
            let refused = answer(route.request(&world).header(CONTENT_TYPE, kind).body(body.clone())).await;
            assert_refused(&refused, 415, "unsupported_media_type", kind);
        }
        assert_refused(
            &answer(route.request(&world).body(body.clone())).await,
            415,
            "unsupported_media_type",
            "none given",
        );
        for encoding in ["gzip", "br", "deflate", "identity, gzip"] {
            let request =
                route.request(&world).header(CONTENT_TYPE, "application/json").header(CONTENT_ENCODING, encoding);
            assert_refused(&answer(request.body(body.clone())).await, 415, "unsupported_media_type", encoding);
        }
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn nonsense_in_a_path_is_refused_and_not_repeated() {
    let (world, _) = routes().await;
    let before = world.kept().await;
    let ids = [
        (CANARY, 422),
        ("K7Q4TX3", 422),
        ("K7Q4TX3MM", 422),
        ("UUUUUUUU", 422),
        ("%00", 422),
        ("%0A", 422),
        ("..%2F..%2Fetc", 422),
        ("%FF%FE", 400),
        ("%C0%80", 400),
        ("canary7791%FF", 400),
        ("%", 422),
        ("%zz", 422),
        ("'%20OR%201=1--", 422),
        ("%F0%9F%92%A9", 422),
        ("01a1f818-3b20-7ce7-84b4", 422),
        ("-", 422),
    ];
    for (id, status) in ids {
        for (method, verb) in
            [(Method::GET, ""), (Method::POST, "/acknowledge"), (Method::POST, "/reveal"), (Method::GET, "/audit")]
        {
            let path = format!("/api/v1/crisis/alerts/{id}{verb}");
            let refused = world.request(method, &path, Some(ADMIN), None).await;
            let code = if status == 400 { "malformed_request" } else { "invalid_field" };
            assert_refused(&refused, status, code, &path.replace(CANARY, "…"));
        }
    }
    let long = format!("{CANARY}{}", "x".repeat(120));
    for (user_id, status) in
        [("%00", 422), ("%FF", 400), ("%20", 422), ("%20a", 422), ("a%0Ab", 422), (long.as_str(), 422)]
    {
        let refused = world.get(&format!("/api/v1/messaging/preferences/{user_id}"), SERVICE).await;
        let code = if status == 400 { "malformed_request" } else { "invalid_field" };
        assert_refused(&refused, status, code, &user_id.replace(CANARY, "…"));
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn nonsense_in_a_query_is_refused_and_not_repeated() {
    let (world, _) = routes().await;
    let before = world.kept().await;
    let many = (0..40).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join("&");
    let queries = [
        ("state=canary7791", 422, "invalid_field", "state"),
        ("state=Withheld", 422, "invalid_field", "state"),
        ("state=", 422, "invalid_field", "state"),
        ("limit=canary7791", 422, "invalid_field", "limit"),
        ("cursor=canary7791", 422, "invalid_field", "cursor"),
        ("cursor=1.canary7791", 422, "invalid_field", "cursor"),
        ("cursor=99999999999999999999.01a1f818-3b20-7ce7-84b4-c755331d78d9", 422, "invalid_field", "cursor"),
        ("cursor=9223372036854775807.01a1f818-3b20-7ce7-84b4-c755331d78d9", 422, "invalid_field", "cursor"),
        ("limit=1&limit=2", 400, "duplicate_field", "limit"),
        ("page=canary7791", 422, "unknown_field", "page"),
        ("limit=%FF", 400, "malformed_request", ""),
        (many.as_str(), 400, "malformed_request", ""),
    ];
    for (query, status, code, name) in queries {
        let refused = world.get(&format!("/api/v1/crisis/alerts?{query}"), ADMIN).await;
        assert_refused(&refused, status, code, query);
        if !name.is_empty() {
            assert_eq!(field(&refused), name);
        }
    }
    for query in
        ["exclude=store", "exclude=canary7791", "verbose=canary7791", "exclude=twilio&exclude=twilio", "exclude=%FF"]
    {
        let refused = world.request(Method::GET, &format!("/readyz?{query}"), None, None).await;
        assert!(matches!(refused.status, 400 | 422) && !refused.text.contains(CANARY), "{query}: {refused:?}");
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problem_documents() {
    let (world, _) = routes().await;
    let before = world.kept().await;
    for path in [
        "/",
        "/canary7791",
        "/api/v1/crisis/canary7791",
        "/api/v2/crisis/events",
        "/api/v1/crisis/events/",
        "/API/v1/crisis/events",
        "/api/v1/crisis/alerts/",
        "/api/v1/messaging/preferences/",
        "/webhooks/twilio/voice",
    ] {
        assert_refused(&world.request(Method::POST, path, Some(ADMIN), None).await, 404, "not_found", "a path");
    }
    let wrong = [
        (Method::GET, "/api/v1/crisis/events", "POST"),
        (Method::DELETE, "/api/v1/crisis/alerts/K7Q4TX3M", "GET,HEAD"),
        (Method::POST, "/api/v1/messaging/preferences/a", "GET,HEAD,PUT"),
        (Method::PUT, "/webhooks/twilio/status", "POST"),
        (Method::POST, "/readyz", "GET,HEAD"),
        (Method::OPTIONS, "/api/v1/crisis/alerts", "GET,HEAD"),
        (Method::from_bytes(b"CANARY7791").unwrap(), "/livez", "GET,HEAD"),
    ];
    for (method, path, allowed) in wrong {
        let refused = world.request(method, path, Some(ADMIN), None).await;
        assert_refused(&refused, 405, "method_not_allowed", path);
        let mut allow: Vec<&str> = refused.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{path}");
    }
    assert_nothing_changed(&world, &before).await;
}

#[tokio::test]
async fn a_strange_request_id_is_replaced_and_a_sane_one_is_kept() {
    let (world, routes) = routes().await;
    for (given, kept) in [
        ("0193abCD-7a00-7cc3-98c4-dc0c0c07398f", true),
        ("4bf92f3577b34da6a3ce929d0e0e4736", true),
        ("0193-abCD", false),
        ("919481063527", false),
        ("20260000-0000-4000-8000-919481063527", false),
        ("jane.doe", false),
        ("two words", false),
        ("<script>", false),
        (&"f".repeat(65), false),
        ("", false),
    ] {
        let refused = answer(routes[0].request(&world).header("X-Request-Id", given)).await;
        let id = refused.headers["x-request-id"].to_str().unwrap();
        assert_eq!(id == given, kept, "{given}");
        assert_eq!(refused.text_at("/request_id"), id);
    }
}

/// A parameter that nobody reads would pass for one that is obeyed. Held over every route there is.
#[tokio::test]
async fn a_query_is_refused_wherever_none_is_read() {
    let world = World::new().await;
    let described: Value = serde_json::to_value(crisis_relay::http::openapi()).unwrap();
    let mut without = 0;
    for (path, operations) in described["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array();
            let has_query = parameters.is_some_and(|all| all.iter().any(|parameter| parameter["in"] == "query"));
            if !path.starts_with("/api/") || has_query {
                continue;
            }
            let (path, _) = (path.replace(['{', '}'], ""), without += 1);
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let asked = format!("{path}?limit=1");
            let refused = world.request(method.clone(), &asked, Some(ADMIN), None).await;
            assert_eq!(refused.status, 422, "{method} {asked}: {refused:?}");
            let told = (refused.text_at("/code"), refused.text_at("/errors/0/field"));
            assert_eq!(told, ("unknown_field".into(), "limit".into()), "{method} {asked}");
        }
    }
    assert!(without > 25, "{without}");
}
