use std::io::Write;
use std::sync::Mutex;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::clock::{ManualClock, SeededEntropy};
use crate::http::json::{StrictJson, Validate};
use crate::http::problem::FieldError;

/// Sent in paths, headers and panics; must appear in no answer and no log.
const CANARY: &str = "canary-52c1";

/// An id as a caller's UUID.
const UUID: &str = "0197c4de-7a00-7cc3-98c4-dc0c0c07398f";

#[derive(serde::Deserialize)]
struct Anything {}
impl Validate for Anything {}

fn clock() -> ManualClock {
    ManualClock::new(jiff::Timestamp::UNIX_EPOCH)
}

fn application() -> Router {
    let failing =
        || async { Problem::of_field(ProblemCode::Conflict, FieldError::new("state", "must be open")).into_response() };
    Router::new()
        .route("/people/{user_id}", get(|| async { "hello" }).post(|| async { "posted" }))
        .route("/numbers/{number}", get(|Path(number): Path<u8>| async move { number.to_string() }))
        .route("/id", get(|Extension(id): Extension<RequestId>| async move { id.as_str().to_owned() }))
        .route("/ip", get(|Extension(ip): Extension<ClientIp>| async move { ip.0.to_string() }))
        .route("/failing", get(failing))
        .route("/panic/{what}", get(panicking))
        .route("/never", get(std::future::pending::<()>))
        .route("/page", get(|| async { ([(header::CONTENT_SECURITY_POLICY, "default-src 'self'")], "page") }))
        .route("/own", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false}))) }))
        .route("/bare", get(|| async { (StatusCode::IM_A_TEAPOT, CANARY) }))
        .route("/body", post(|_: StrictJson<Anything>| async { "read" }))
        .route("/raw", post(|body: axum::body::Bytes| async move { body.len().to_string() }))
}

async fn panicking(Path(what): Path<String>) -> &'static str {
    // Without the hook's noise on the terminal, and with the input in the payload.
    std::panic::resume_unwind(Box::new(format!("could not handle {what}")))
}

fn settings() -> MannersSettings {
    MannersSettings { request_timeout: Duration::from_millis(30), body_length_max: 1_000, ..MannersSettings::default() }
}

async fn send_with(settings: &MannersSettings, request: Request) -> (Response, String) {
    let entropy = Arc::new(SeededEntropy::new(1));
    let router = with_manners(application(), settings, Arc::new(clock()), entropy);
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (Response::from_parts(parts, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
}

async fn send(request: axum::http::request::Builder) -> (Response, String) {
    send_with(&settings(), request.body(Body::empty()).unwrap()).await
}

/// The answer as a problem; its id matches the header's and it repeats no input.
async fn problem(request: axum::http::request::Builder) -> (StatusCode, Value, HeaderMap) {
    let (response, body) = send(request).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON, "{body}");
    assert!(!body.contains("canary"), "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["request_id"], response.headers()[REQUEST_ID_HEADER].to_str().unwrap());
    assert_eq!(problem["status"], response.status().as_u16());
    (response.status(), problem, response.headers().clone())
}

#[tokio::test]
async fn an_unknown_path_is_a_404_problem() {
    let (status, problem, _) = problem(Request::get(format!("/{CANARY}"))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn a_wrong_method_is_a_405_problem_that_names_the_right_ones() {
    let (status, problem, headers) = problem(Request::delete("/people/7")).await;
    assert_eq!((status.as_u16(), &problem["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(headers[header::ALLOW], "GET,HEAD,POST");
}

#[tokio::test]
async fn what_the_framework_refuses_by_itself_becomes_a_problem_without_the_input() {
    let (status, problem_, _) = problem(Request::get(format!("/numbers/{CANARY}"))).await;
    assert_eq!((status.as_u16(), &problem_["code"]), (400, &json!("malformed_request")));
    let (status, _, _) = problem(Request::get("/bare")).await;
    assert_eq!(status.as_u16(), 400);
    let (status, problem, _) = problem(Request::get("/ip")).await;
    assert_eq!((status.as_u16(), &problem["code"]), (500, &json!("internal")), "a missing extension is our own fault");
}

#[tokio::test]
async fn a_handlers_problem_keeps_its_fields_and_gets_the_id() {
    let (status, problem, _) = problem(Request::get("/failing").header(REQUEST_ID_HEADER, UUID)).await;
    assert_eq!(status.as_u16(), 409);
    assert_eq!(problem["errors"], json!([{"field": "state", "rule": "must be open"}]));
    assert_eq!(problem["request_id"], UUID);
}

#[tokio::test]
async fn a_handlers_own_document_is_left_alone() {
    let (response, body) = send(Request::get("/own")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, r#"{"ready":false}"#);
}

#[tokio::test]
async fn a_panic_is_a_500_problem_that_tells_nothing() {
    let (status, problem, _) = problem(Request::get(format!("/panic/{CANARY}"))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (500, &json!("internal")));
}

#[tokio::test]
async fn what_takes_too_long_is_a_503_problem_with_retry_after() {
    let (status, problem, headers) = problem(Request::get("/never")).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("time_out")));
    assert_eq!(headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn a_body_that_never_ends_is_a_time_out() {
    let endless = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
    let request = Request::post("/body").header(header::CONTENT_TYPE, "application/json").body(endless).unwrap();
    let (response, body) = send_with(&settings(), request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn bodies_are_bounded_for_every_extractor() {
    for path in ["/body", "/raw"] {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let (response, body) = send_with(&settings(), request.body(Body::from("x".repeat(1_001))).unwrap()).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(body.contains("body_too_large"), "{body}");
    }
    let fitting = Request::post("/raw").body(Body::from("x".repeat(1_000))).unwrap();
    assert_eq!(send_with(&settings(), fitting).await.1, "1000");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_others_are_replaced() {
    for sane in [
        UUID,
        "0197C4DE-7A00-7CC3-98C4-DC0C0C07398F",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "0000000000000000000000000000000a",
        "0000000a-0000-0000-0000-000000000000",
    ] {
        let (response, body) = send(Request::get("/id").header(REQUEST_ID_HEADER, sane)).await;
        assert_eq!((body.as_str(), response.headers()[REQUEST_ID_HEADER].to_str().unwrap()), (sane, sane));
    }
    let too_long = "f".repeat(33);
    for odd in [
        "",
        "a b",
        "a\"b",
        "<script>",
        "jane.doe",
        "student-1",
        too_long.as_str(),
        // Phone and roll numbers, as they are and filled up.
        "919481063527",
        "91-9481063527",
        "21BCE1042",
        "20260000-0000-4000-8000-919481063527",
        "00000000000000000000919481063527",
        // No UUIDs, for all their digits.
        "0197c4de7a00-7cc3-98c4-dc0c-0c07398f",
        "0197c4de-7a007cc398c4dc0c0c07398f",
        "0197c4de-7a00-7cc3-98c4-dc0c0c07398",
        "0197c4de-7a00-7cc3-98c4-dc0c0c07398ff",
        "0197c4de-7a00-7cc3-98c4-dc0c0c07398g",
        "{0197c4de-7a00-7cc3-98c4-dc0c0c07398f}",
        "------------------------------------",
    ] {
        let (response, body) = send(Request::get("/id").header(REQUEST_ID_HEADER, odd)).await;
        assert_ne!(body, odd);
        assert_eq!(body.len(), 32, "{odd}");
        assert!(body.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(response.headers()[REQUEST_ID_HEADER].to_str().unwrap(), body);
    }
}

#[tokio::test]
async fn fresh_request_ids_differ() {
    let entropy = SeededEntropy::new(1);
    let ids: std::collections::HashSet<_> =
        (0..100).map(|_| RequestId::of(&HeaderMap::new(), &entropy).as_str().to_owned()).collect();
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    for path in ["/people/7", "/nowhere", "/failing", "/never", "/panic/x"] {
        let (response, _) = send(Request::get(path)).await;
        let headers = response.headers();
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"), "{path}");
    }
    let (response, _) = send(Request::get("/page")).await;
    assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], "default-src 'self'", "a page keeps its own");
}

fn from_peer(forwarded: &[&str]) -> Request {
    let mut request = Request::get("/ip").body(Body::empty()).unwrap();
    for value in forwarded {
        request.headers_mut().append("x-forwarded-for", value.parse().unwrap());
    }
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 9))));
    request
}

#[tokio::test]
async fn the_clients_address_is_what_our_own_proxies_saw() {
    let forged = ["1.1.1.1", "2.2.2.2, 3.3.3.3"];
    for (proxies, seen) in [(0, "10.0.0.1"), (1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1"), (4, "10.0.0.1")] {
        let settings = MannersSettings { trusted_proxies: proxies, ..settings() };
        assert_eq!(send_with(&settings, from_peer(&forged)).await.1, seen, "{proxies} proxies");
    }
    let settings = MannersSettings { trusted_proxies: 1, ..settings() };
    assert_eq!(send_with(&settings, from_peer(&["nonsense"])).await.1, "10.0.0.1");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Log {
    type Writer = Self;
    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_request_is_logged_once_with_its_route_and_never_with_its_path() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    send(Request::get(format!("/people/{CANARY}?q={CANARY}")).header(REQUEST_ID_HEADER, UUID)).await;
    send(Request::get(format!("/{CANARY}"))).await;
    send(Request::get(format!("/panic/{CANARY}"))).await;
    send(Request::builder().method(CANARY).uri("/id")).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered: Vec<&Value> = lines.iter().filter(|line| line["fields"]["message"] == "answered").collect();
    let spans: Vec<_> = answered
        .iter()
        .map(|line| {
            (&line["span"]["method"], &line["span"]["route"], &line["span"]["status"], &line["span"]["problem"])
        })
        .collect();
    assert_eq!(
        json!(spans),
        json!([
            ["GET", "/people/{user_id}", 200, null],
            ["GET", "unmatched", 404, "not_found"],
            ["GET", "/panic/{what}", 500, "internal"],
            ["other", "/id", 405, "method_not_allowed"],
        ])
    );
    assert_eq!(answered[0]["span"]["request_id"], UUID);
    assert!(answered.iter().all(|line| line["span"]["latency_us"].is_u64()));
}
