//! The whole application in process, over a store that keeps nothing: what every answer must be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Once};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use crisis_relay::app::{self, Adapters, App};
use crisis_relay::clock::{ManualClock, SeededEntropy};
use crisis_relay::config::{Config, Sources};
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::service::dispatch::Jobs;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use tracing_subscriber::EnvFilter;

use super::blank::Blank;
use super::repeats;

/// The clock stands here.
pub const NOW: &str = "2026-11-20T08:35:00Z";
/// API keys by role, as inputs name them.
pub const SERVICE: &str = "fuzz-service-key-0001";
/// For people who take cases.
pub const COUNSELLOR: &str = "fuzz-counsellor-key-1";
/// For people who keep the set-up.
pub const ADMIN: &str = "fuzz-admin-key-000001";
/// For people who read the audit.
pub const AUDITOR: &str = "fuzz-auditor-key-0001";
/// What people's tokens are signed with.
pub const JWT_SECRET: &str = "a secret for fuzzing, of 32 bytes and more";
/// All of these.
pub const SECRETS: [&str; 5] = [SERVICE, COUNSELLOR, ADMIN, AUDITOR, JWT_SECRET];
/// The address that webhooks are signed for.
pub const PUBLIC_BASE: &str = "https://relay.example.org/base";

/// From this score on, somebody is told.
pub const THRESHOLD: f64 = 0.8;

/// The longest problem document that makes sense, in bytes: 32 faults with their fields and rules.
const PROBLEM_MAX: usize = 16 * 1024;

/// What was answered, and what was logged meanwhile.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; all of ours are UTF-8.
    pub body: String,
    /// The log's lines.
    pub log: String,
}

/// The application, its runtime, and the work that it hands to a worker that is not there.
struct Edge {
    runtime: Runtime,
    router: Router,
    jobs: RefCell<Jobs>,
}

thread_local! {
    // One for each thread: what a thread asks runs on it, and its log lines are its own.
    static EDGE: Edge = Edge::new();
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes log lines into the thread's own buffer.
struct Kept;

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what the service and all that it is built from log, down to the last detail, for [`logged`].
pub fn keep_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::new("trace");
        let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Kept);
        logging.try_init().expect("nobody else keeps the log");
    });
}

/// What this thread has logged since it was last asked.
pub fn logged() -> String {
    let lines = LOG.with_borrow_mut(std::mem::take);
    String::from_utf8(lines).expect("log lines are UTF-8")
}

fn environment() -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = [
        ("CRISIS_RELAY_MODE", "development"),
        ("COUNSELLOR_WHATSAPP_TO", &super::counsellor()),
        ("MASTER_KEY", "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs="),
        ("JWT_SECRET", JWT_SECRET),
        ("CRISIS_THRESHOLD", "0.8"),
        ("TWILIO_WEBHOOK_BASE_URL", PUBLIC_BASE),
        // A machine that stands still for a while says nothing about an input.
        ("CRISIS_RELAY__HTTP__REQUEST_TIMEOUT", "5m"),
        // A fuzzer asks more often than anybody honest; that limits hold is tested elsewhere.
        ("CRISIS_RELAY__RATE_LIMITS__SERVICE_PER_SECOND", "1000000"),
        ("CRISIS_RELAY__RATE_LIMITS__PERSON_PER_SECOND", "10000"),
        ("CRISIS_RELAY__RATE_LIMITS__WEBHOOK_PER_SECOND", "1000000"),
        ("CRISIS_RELAY__RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "10000"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (role, key) in [("SERVICE", SERVICE), ("COUNSELLOR", COUNSELLOR), ("ADMIN", ADMIN), ("AUDITOR", AUDITOR)] {
        all.insert(format!("API_KEY_{role}_SHA256"), ApiKeyHash::of(key).to_string());
    }
    all
}

impl Edge {
    fn new() -> Self {
        keep_logs();
        let read_file = |_: &str| Err(io::ErrorKind::NotFound.into());
        let sources = Sources { file: None, environment: environment(), read_file: &read_file };
        let config = Config::load(&sources).unwrap_or_else(|faults| panic!("{faults}"));
        let provider = app::provider(&config, None);
        let clock = Arc::new(ManualClock::new(NOW.parse().expect("a constant")));
        let entropy = Arc::new(SeededEntropy::new(7));
        let adapters = Adapters {
            store: Arc::new(Blank),
            keyring: Arc::new(app::open_keyring(&config, entropy.clone()).expect("the key is good")),
            twilio: Arc::new(app::rest_client(&provider, clock.clone()).expect("the client can be made")),
            clock,
            entropy,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let assembled = runtime.block_on(app::assemble(&config, &provider, adapters));
        let App { router, jobs, .. } = assembled.unwrap_or_else(|error| panic!("{error}"));
        Self { runtime, router, jobs: RefCell::new(jobs) }
    }

    fn ask(&self, request: Request<Body>) -> Answer {
        logged();
        let router = self.router.clone();
        let answered = self.runtime.block_on(async {
            let (head, body) = router.oneshot(request).await.unwrap_or_else(|never| match never {}).into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("the answer is whole");
            (head, body)
        });
        // Nobody takes the work, so that its places are free again for the next input.
        while self.jobs.borrow_mut().try_next().is_some() {}
        let (head, body) = answered;
        let body = String::from_utf8(body.into()).expect("answers are UTF-8");
        Answer { status: head.status.as_u16(), headers: head.headers, body, log: logged() }
    }
}

/// Asks the application, and checks what every answer must be.
pub fn ask(request: Request<Body>) -> Answer {
    let path = request.uri().path().to_owned();
    let answer = EDGE.with(|edge| edge.ask(request));
    check(&path, &answer);
    answer
}

fn check(path: &str, answer: &Answer) {
    let Answer { status, headers, body, log } = answer;
    // Without a worker that makes its rounds the service is not ready, and says so.
    let expected = *status < 500 || (path == "/readyz" && *status == 503);
    assert!(expected, "an input makes the service fail: {status} {body}\n{log}");
    assert!(!repeats(log), "a log line repeats a value: {log}");
    for secret in SECRETS {
        assert!(!log.contains(secret), "a log line tells a secret: {log}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers.contains_key("x-request-id") && headers.contains_key("content-security-policy"), "{headers:?}");
    let problem = headers.get("content-type").is_some_and(|kind| kind == "application/problem+json");
    assert!(problem || *status < 400 || path == "/readyz", "an error that is no problem document: {status} {body}");
    if problem && !body.is_empty() {
        check_problem(answer);
    }
}

/// A problem says which field breaks which rule, and repeats nothing but the field's name, made presentable.
fn check_problem(answer: &Answer) {
    assert!(answer.body.len() <= PROBLEM_MAX, "a problem of {} bytes", answer.body.len());
    let mut problem: Value = serde_json::from_str(&answer.body).expect("a problem is JSON");
    let code = problem["code"].as_str().expect("a problem has a code").to_owned();
    assert_eq!(problem["status"], answer.status);
    assert_eq!(problem["request_id"].as_str(), answer.headers["x-request-id"].to_str().ok());
    let mut named = 0;
    for error in problem["errors"].as_array_mut().into_iter().flatten() {
        let error = error.as_object_mut().expect("a fault of a field is an object");
        let field = error.remove("field").expect("a fault names its field");
        let field = field.as_str().expect("a field's name is a text");
        assert!(field.chars().count() <= 64, "a field's name of {} characters", field.chars().count());
        let fits = |symbol: char| symbol.is_ascii_alphanumeric() || "_-.[]?".contains(symbol);
        assert!(field.chars().all(fits), "a field's name is not presentable: {field:?}");
        assert!(error["rule"].as_str().is_some_and(|rule| rule.starts_with("must ") || rule.starts_with("is not ")));
        named += 1;
    }
    let of_a_field = matches!(code.as_str(), "missing_field" | "unknown_field" | "duplicate_field");
    assert!(!of_a_field || named > 0, "no field is named: {}", answer.body);
    let rest = format!("{problem}{:?}", answer.headers);
    assert!(!repeats(&rest), "a problem repeats a value: {rest}");
}
