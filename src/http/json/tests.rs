use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::domain::ids::{AlertId, OrganisationId};

/// Sent wherever a value can be sent; must never come back.
const CANARY: &str = "canary-7f3a";

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Note {
    score: f64,
    count: u32,
    kind: Kind,
    college: OrganisationId,
    #[serde(default)]
    by: Option<Person>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    at: Option<uuid::Uuid>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Chat,
    VoiceCall,
}

impl Validate for Note {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !(0.0..=1.0).contains(&self.score) {
            errors.push(FieldError::new("score", "must be in 0..=1"));
        }
        if self.tags.len() > 2 {
            errors.push(FieldError::new("tags", "must be at most 2"));
        }
        errors
    }
}

fn good() -> Value {
    json!({"score": 0.5, "count": 3, "kind": "voice_call", "college": "north"})
}

fn with(field: &str, value: Value) -> String {
    let mut body = good();
    body[field] = value;
    body.to_string()
}

/// Status, code, and the `(field, rule)` pairs of an answer.
type Answer = (u16, String, Vec<(String, String)>);

fn body_router() -> Router {
    let handler = |note: StrictJson<Note>| async move { format!("{} {}", note.raw.len(), note.value.count) };
    Router::new().route("/", post(handler)).layer(DefaultBodyLimit::max(4096))
}

async fn send(router: Router, request: axum::http::request::Builder, body: impl Into<Body>) -> Answer {
    let response = router.oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 64 * 1024).await.unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    if status == 200 {
        return (status, text.to_owned(), Vec::new());
    }
    assert!(!text.contains("canary"), "the answer repeats a value: {text}");
    assert!(!text.contains("Note") && !text.contains("Person"), "the answer names a Rust type: {text}");
    let problem: Value = serde_json::from_str(text).unwrap();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    (status, word(&problem["code"]), errors.iter().map(|e| (word(&e["field"]), word(&e["rule"]))).collect())
}

fn request(content_type: &str) -> axum::http::request::Builder {
    Request::post("/").header(header::CONTENT_TYPE, content_type)
}

async fn post_json(body: impl Into<Body>) -> Answer {
    send(body_router(), request("application/json"), body).await
}

fn fault(status: u16, code: &str, errors: &[(&str, &str)]) -> Answer {
    (status, code.to_owned(), errors.iter().map(|(field, rule)| ((*field).to_owned(), (*rule).to_owned())).collect())
}

#[tokio::test]
async fn a_good_body_arrives_parsed_and_with_its_bytes() {
    let body = good().to_string();
    assert_eq!(post_json(body.clone()).await, (200, format!("{} 3", body.len()), vec![]));
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    let deep = with("tags", json!(null)).replace("null", &("[".repeat(40) + &"]".repeat(40)));
    let nan = with("score", json!(null)).replace("null", "NaN");
    for body in [
        &b"{"[..],
        b"",
        b"{\"score\": 1} x",
        nan.as_bytes(),
        deep.as_bytes(),
        b"{\"a\":\"\xff\xfe\"}",
        CANARY.as_bytes(),
    ] {
        let (status, code, _) = post_json(body.to_vec()).await;
        assert_eq!((status, code.as_str()), (400, "malformed_json"));
    }
}

#[tokio::test]
async fn a_duplicate_key_is_refused_even_where_it_would_be_ignored() {
    let body = with("by", json!({"name": CANARY})).replace("\"name\"", "\"name\":\"x\",\"name\"");
    assert_eq!(post_json(body).await, fault(400, "duplicate_field", &[("by.name", "must be given once")]));
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() {
    let body = with("extra", json!(CANARY));
    assert_eq!(post_json(body).await, fault(422, "unknown_field", &[("extra", "is not known here")]));
    let body = with("by", json!({"name": "x", "phone": CANARY}));
    assert_eq!(post_json(body).await, fault(422, "unknown_field", &[("by.phone", "is not known here")]));
}

#[tokio::test]
async fn a_missing_field_is_named_with_its_path() {
    assert_eq!(post_json("{}").await, fault(422, "missing_field", &[("score", "must be given")]));
    let body = with("by", json!({}));
    assert_eq!(post_json(body).await, fault(422, "missing_field", &[("by.name", "must be given")]));
}

#[tokio::test]
async fn a_wrong_type_is_told_as_a_rule_without_the_value() {
    let sly = format!("{CANARY}, expected {CANARY}");
    let cases = [
        ("score", json!(CANARY), "score", "must be a number"),
        ("count", json!(sly), "count", "must be a whole number in 0..=4294967295"),
        ("count", json!(-1), "count", "must be a whole number in 0..=4294967295"),
        ("count", json!(1.5), "count", "must be a whole number in 0..=4294967295"),
        ("count", json!(5_000_000_000_u64), "count", "must be a whole number in 0..=4294967295"),
        ("kind", json!(CANARY), "kind", "must be one of: chat, voice_call"),
        ("kind", json!([CANARY]), "kind", "must be one of the documented words"),
        ("by", json!(CANARY), "by", "must be an object"),
        ("by", json!({"name": 7}), "by.name", "must be a string"),
        ("tags", json!(CANARY), "tags", "must be an array"),
        ("tags", json!(["a", {"b": CANARY}]), "tags[1]", "must be a string"),
        ("college", json!("not a slug"), "college", "must be 1 to 64 letters, digits, '-' or '_'"),
        ("at", json!(CANARY), "at", "must have the documented form"),
    ];
    for (field, value, path, rule) in cases {
        assert_eq!(post_json(with(field, value)).await, fault(422, "invalid_field", &[(path, rule)]));
    }
    for body in ["7", "[]", r#" [0.5, 3, "chat", "north"]"#, "null"] {
        assert_eq!(post_json(body).await, fault(422, "invalid_field", &[("", "must be an object")]), "{body}");
    }
}

#[tokio::test]
async fn broken_rules_are_told_all_at_once() {
    let mut body = good();
    body["score"] = json!(1.5);
    body["tags"] = json!([CANARY, CANARY, CANARY]);
    let expected = [("score", "must be in 0..=1"), ("tags", "must be at most 2")];
    assert_eq!(post_json(body.to_string()).await, fault(422, "invalid_field", &expected));
}

#[tokio::test]
async fn only_json_in_utf8_is_read() {
    for media_type in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""] {
        assert_eq!(send(body_router(), request(media_type), good().to_string()).await.0, 200, "{media_type}");
    }
    let others = [
        "text/plain",
        "application/json; charset=latin1",
        "application/jsonp",
        "text/json",
        "application/json; a=b",
        "",
    ];
    for media_type in others {
        let (status, code, _) = send(body_router(), request(media_type), good().to_string()).await;
        assert_eq!((status, code.as_str()), (415, "unsupported_media_type"), "{media_type}");
    }
    let bare = send(body_router(), Request::post("/"), good().to_string()).await;
    assert_eq!((bare.0, bare.1.as_str()), (415, "unsupported_media_type"));
    let compressed = request("application/json").header(header::CONTENT_ENCODING, "gzip");
    assert_eq!(send(body_router(), compressed, good().to_string()).await.0, 415);
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    let body = with("by", json!({"name": CANARY.repeat(1000)}));
    assert_eq!(post_json(body.clone()).await, fault(413, "body_too_large", &[]));
    let chunks = body.into_bytes().chunks(100).map(<[u8]>::to_vec).map(Ok::<_, std::io::Error>).collect::<Vec<_>>();
    let streamed = Body::from_stream(futures::stream::iter(chunks));
    assert_eq!(post_json(streamed).await, fault(413, "body_too_large", &[]), "without a Content-Length too");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_callers_fault() {
    let broken = futures::stream::iter([Ok("{".to_owned()), Err(std::io::Error::other(CANARY))]);
    assert_eq!(post_json(Body::from_stream(broken)).await, fault(400, "malformed_request", &[]));
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    limit: Option<u16>,
    live: Option<bool>,
    kind: Option<Kind>,
    since: Option<String>,
}

impl Validate for Filter {
    fn validate(&self) -> Vec<FieldError> {
        match self.limit {
            Some(0) => vec![FieldError::new("limit", "must be at least 1")],
            Some(_) | None => vec![],
        }
    }
}

async fn ask(path_and_query: &str) -> Answer {
    let router = Router::new()
        .route(
            "/q",
            get(|StrictQuery(f): StrictQuery<Filter>| async move {
                format!("{:?} {:?} {:?} {:?}", f.limit, f.live, f.kind, f.since)
            }),
        )
        .route("/alerts/{id}", get(|StrictPath(id): StrictPath<AlertId>| async move { id.to_string() }))
        .route("/words/{word}", get(|StrictPath(word): StrictPath<String>| async move { word }))
        .route("/pair/{a}/{b}", get(|StrictPath((a, b)): StrictPath<(String, u8)>| async move { format!("{a}{b}") }))
        .route("/people/{name}", get(|StrictPath(p): StrictPath<Person>| async move { p.name }));
    send(router, Request::get(path_and_query), Body::empty()).await
}

#[tokio::test]
async fn a_query_is_read_into_its_types() {
    let (status, text, _) = ask("/q?limit=20&live=true&kind=voice_call&since=a%20b").await;
    assert_eq!(status, 200);
    assert_eq!(text, r#"Some(20) Some(true) Some(VoiceCall) Some("a b")"#);
    assert_eq!(ask("/q").await.0, 200);
}

#[tokio::test]
async fn a_query_is_read_as_strictly_as_a_body() {
    let cases = [
        ("/q?limit=canary-1", fault(422, "invalid_field", &[("limit", "must be a whole number in 0..=65535")])),
        ("/q?limit=0", fault(422, "invalid_field", &[("limit", "must be at least 1")])),
        ("/q?live=canary", fault(422, "invalid_field", &[("live", "must be true or false")])),
        ("/q?kind=canary", fault(422, "invalid_field", &[("kind", "must be one of: chat, voice_call")])),
        ("/q?other=canary", fault(422, "unknown_field", &[("other", "is not known here")])),
        ("/q?limit=1&limit=2", fault(400, "duplicate_field", &[("limit", "must be given once")])),
        ("/q?since=%FF", fault(400, "malformed_request", &[])),
    ];
    for (path, answer) in cases {
        assert_eq!(ask(path).await, answer, "{path}");
    }
    let many = (0..40).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
    assert_eq!(ask(&format!("/q?{many}")).await, fault(400, "malformed_request", &[]));
}

#[tokio::test]
async fn a_path_is_read_alone_as_a_tuple_or_by_name() {
    assert_eq!(ask("/words/a%2Fb").await.1, "a/b");
    assert_eq!(ask("/pair/x/7").await.1, "x7");
    assert_eq!(ask("/people/ada").await.1, "ada");
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(ask(&format!("/alerts/{id}")).await.1, id);
}

#[tokio::test]
async fn a_path_that_does_not_fit_names_its_parameter_and_not_its_value() {
    let (status, code, errors) = ask("/alerts/canary-1").await;
    assert_eq!((status, code.as_str(), errors[0].0.as_str()), (422, "invalid_field", "id"));
    let expected = fault(422, "invalid_field", &[("b", "must be a whole number in 0..=255")]);
    assert_eq!(ask("/pair/canary/canary").await, expected);
    assert_eq!(ask("/words/%FF").await, fault(400, "malformed_request", &[]));
}

/// The JSON library reads the text under this key in the object's place: past the look for duplicates and depth.
#[test]
fn a_key_by_which_the_reader_would_take_a_text_for_json_is_refused() {
    #[derive(Debug, Deserialize)]
    struct Open {
        #[expect(dead_code, reason = "never read: the bodies are refused")]
        any: serde_json::Map<String, Value>,
    }
    impl Validate for Open {}
    let twice = r#"{\"a\":1,\"a\":2}"#;
    for key in ["$serde_json::private::RawValue", r"\u0024serde_json::private::RawValue"] {
        for body in [format!(r#"{{"any":{{"k":{{"{key}":"{twice}"}}}}}}"#), format!(r#"{{"{key}":"{twice}"}}"#)] {
            let problem = parse::<Open>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), ProblemCode::UnknownField, "{body}");
            assert_eq!(problem.errors()[0].field(), "?serde_json??private??RawValue", "{body}");
        }
    }
}

/// The fast reader refuses what a pair has too many of; the explaining one must not be content with the first two.
#[test]
fn a_list_that_is_too_long_for_its_type_is_refused_by_name() {
    #[derive(Debug, Deserialize)]
    struct Pairs {
        #[expect(dead_code, reason = "never read: the bodies are refused")]
        pair: (u8, u8),
    }
    impl Validate for Pairs {}
    for body in [r#"{"pair":[1,2,3]}"#, r#"{"pair":[1]}"#] {
        let problem = parse::<Pairs>(body.as_bytes()).unwrap_err();
        assert_eq!((problem.code(), problem.errors()[0].field()), (ProblemCode::InvalidField, "pair"), "{body}");
    }
}

proptest! {
    /// The explaining reader and the strict one agree: what one refuses the other explains with a field.
    #[test]
    fn whatever_is_refused_is_explained(
        field in prop_oneof![Just("score"), Just("count"), Just("kind"), Just("college"), Just("by"), Just("tags")],
        value in prop_oneof![
            Just(json!(null)), any::<i64>().prop_map(|n| json!(n)), any::<bool>().prop_map(|b| json!(b)),
            Just(json!({})), Just(json!([1])), Just(json!({"name": 1})), "[a-z]{0,6}".prop_map(|s| json!(s)),
        ],
    ) {
        let body = with(field, value);
        if let Err(problem) = parse::<Note>(body.as_bytes()) {
            prop_assert_eq!(problem.errors().len(), 1);
            prop_assert!(problem.errors()[0].field().starts_with(field), "{:?}", problem);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::<Note>(&bytes);
    }
}
