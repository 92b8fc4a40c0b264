//! Nothing leaks: what identifies a student, what anybody wrote, who acted, and the counsellor's number, through a whole
//! life of a case with everything going wrong on the way.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, Inbound, Quote};
use reqwest::Method;
use serde_json::json;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::common::gate::{Fate, Gate};
use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, signed, token};

/// One for each place in which something personal is said.
const STUDENT: &str = "zq-student-5081";
const MESSAGE: &str = "zq-message-5082";
const METADATA: &str = "zq-metadata-5083";
const OVERRIDE_BY: &str = "zq-override-by-5084";
const OVERRIDE_REASON: &str = "zq-override-reason-5085";
const NOTE: &str = "zq-note-5086";
const PERSON: &str = "zq-person-5087@college.example";
const REPLY: &str = "zq-reply-5088";
const RAISED: &str = "zq-raised-5089";
const WRONG_KEY: &str = "zq-wrong-key-5090";
const PATH: &str = "zq-path-5091";
const QUERY: &str = "zq-query-5092";
const BROKEN: &str = "zq-broken-body-5093";
/// Begins all of them.
const CANARY: &str = "zq-";
/// The counsellor's number without its beginning, so that every way of writing it is found.
const NUMBER: &str = "9800000017";

thread_local! {
    /// Every log line of ours, at the finest level, told on this thread; `None` while nobody listens.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writes to the thread's own lines.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.get_or_insert_default().extend_from_slice(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Listens to this thread's log from here on: a story's tasks all run on the story's own thread. One subscriber serves the
/// whole program, for one of a single thread does not hear what another thread was the first to pass by.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        let of_ours = dynamic_filter_fn(|metadata, _| {
            metadata.target().starts_with("crisis_relay") && LINES.with_borrow(Option::is_some)
        });
        let format =
            tracing_subscriber::fmt::layer().with_ansi(false).with_span_events(FmtSpan::FULL).with_writer(|| Lines);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(format.with_filter(of_ours)))
            .unwrap();
    });
    LINES.set(Some(Vec::new()));
}

/// What was heard since.
pub(crate) fn heard() -> String {
    String::from_utf8(LINES.take().unwrap_or_default()).unwrap()
}

/// A case from its first event to its outcome, with errors at every turn. Gives every answer but the one that opens what
/// is sealed.
async fn life(mut world: World) -> (World, Vec<Answer>) {
    let mut answers = Vec::new();
    let ada = token(PERSON, "counsellor");
    let preferences = format!("/api/v1/messaging/preferences/{STUDENT}");
    answers.push(world.get(&preferences, SERVICE).await.expect(200));
    let event = json!({
        "user_id": STUDENT, "crisis_score": 0.93, "source": "chat", "message": MESSAGE,
        "metadata": { "session": METADATA, METADATA: 1 },
    });
    let withheld = world.event_with_key(&event, "key-1").await.expect(202);
    let reference = withheld.text_at("/reference");
    answers.push(withheld);
    answers.push(world.event_with_key(&json!({ "user_id": STUDENT }), "key-1").await);

    // Refused, then no answer, then it fails on the way; callbacks early and repeated.
    world.sim().push_fault(FaultRule::once(Fault::Refused { code: 21211, http_status: 400 }));
    world.sim().push_fault(FaultRule::once(Fault::TimeOutWithoutAccepting));
    world.sim().push_fault(FaultRule::once(Fault::FailsLater { code: 63016, failed: false }));
    let alert = format!("/api/v1/crisis/alerts/{reference}");
    let stated = json!({ "emergency_override": { "by": OVERRIDE_BY, "reason": OVERRIDE_REASON } });
    answers.push(world.post(&format!("{alert}/escalate"), &ada, &stated).await.expect(200));
    world.work().await;
    world.pass_in_steps(Duration::from_secs(120), Duration::from_secs(1)).await;
    world.receipts().await;
    world.receipts().await;
    let raised = json!({ "user_id": STUDENT, "message": RAISED, "emergency_override": stated["emergency_override"] });
    answers.push(world.post("/api/v1/crisis/escalate", &ada, &raised).await.expect(202));
    world.work().await;
    world.pass_in_steps(Duration::from_secs(60), Duration::from_secs(1)).await;

    answers.extend(mistakes(&world, &reference).await);
    for (from, text) in [(COUNSELLOR, REPLY), ("+919811111111", REPLY), ("whatsapp:IN.5094", REPLY), (COUNSELLOR, "1")]
    {
        world.sim().receive(&Inbound::new(from, text).quoting(Quote::Nothing)).await.unwrap();
    }
    let mut world = world.crash().await;
    world.work().await;
    for (path, key) in [
        (alert.clone(), ada.as_str()),
        (format!("{alert}/audit?limit=200"), AUDITOR),
        ("/api/v1/crisis/alerts".into(), ADMIN),
    ] {
        answers.push(world.get(&path, key).await.expect(200));
    }
    let opened = world.post(&format!("{alert}/reveal"), &ada, &json!({})).await.expect(200);
    for word in [STUDENT, MESSAGE, METADATA, RAISED] {
        assert!(opened.text.contains(word), "the story did say {word}");
    }
    let outcome = json!({ "outcome": "safe_in_person", "note": NOTE });
    answers.push(world.post(&format!("{alert}/resolve"), &ada, &outcome).await.expect(200));
    world.receipts().await;
    answers.push(world.request(Method::GET, "/readyz", None, None).await);
    answers.push(world.request(Method::GET, "/metrics", None, None).await.expect(200));
    (world, answers)
}

/// Every kind of mistake that a caller can make with something personal in hand.
async fn mistakes(world: &World, reference: &str) -> Vec<Answer> {
    let broken = format!(r#"{{"user_id": "{BROKEN}", "crisis_score": {BROKEN}}}"#);
    let raw = world.client().post(world.base().join("/api/v1/crisis/events").unwrap()).bearer_auth(SERVICE);
    let events = "/api/v1/crisis/events";
    let expired =
        signed(&json!({ "iss": "crisis-relay", "aud": "crisis-relay", "sub": PERSON, "role": "admin", "exp": 1 }));
    vec![
        crate::common::answer(raw.header("content-type", "application/json").body(broken)).await,
        world.post(events, SERVICE, &json!({ "user_id": BROKEN, "crisis_score": BROKEN, "source": BROKEN })).await.expect(422),
        world.post(events, SERVICE, &json!({ "user_id": format!(" {BROKEN}"), "crisis_score": 0.9, "source": "chat", "message": format!("{BROKEN}\u{0}") })).await.expect(422),
        world.post(events, WRONG_KEY, &json!({})).await.expect(401),
        world.post(events, &expired, &json!({})).await.expect(401),
        world.post(events, &token(PERSON, "counsellor"), &json!({ "user_id": STUDENT, "crisis_score": 0.9, "source": "chat" })).await.expect(403),
        world.get(&format!("/api/v1/crisis/alerts/{PATH}"), ADMIN).await.expect(422),
        world.get(&format!("/{PATH}?{QUERY}={QUERY}"), ADMIN).await.expect(404),
        world.get(&format!("/api/v1/crisis/alerts?cursor={QUERY}&state={QUERY}"), ADMIN).await.expect(422),
        world.post(&format!("/api/v1/crisis/alerts/{reference}/resolve"), COUNSELLOR_KEY, &json!({ "outcome": NOTE })).await.expect(422),
        world.post(&format!("/webhooks/twilio/incoming?{QUERY}"), WRONG_KEY, &json!({ "Body": REPLY })).await.expect(403),
    ]
}

#[tokio::test]
async fn through_a_whole_life_of_a_case_nothing_personal_gets_out() {
    listen();
    let (world, answers) = life(Setting::default().with_people().start().await).await;

    for answer in &answers {
        let said = format!("{} {:?}", answer.text, answer.headers);
        assert!(!said.contains(CANARY) && !said.contains(NUMBER), "{said}");
    }
    let log = heard();
    for told in ["event accepted", "attempt made", "operator alarm", "alert resolved", "answered"] {
        assert!(log.contains(told), "the log is being listened to: {told}");
    }
    for line in log.lines() {
        assert!(!line.contains(CANARY) && !line.contains(NUMBER), "{line}");
    }
    let requests = world.sim().requests();
    assert!(requests.len() >= 4, "the story did send: {}", requests.len());
    for request in requests {
        for (name, value) in &request.fields {
            assert!(!value.contains(CANARY), "{name}: {value}");
            assert!(name == "To" || !value.contains(NUMBER), "{name}: {value}");
        }
    }
    let mut bytes = 0;
    for file in std::fs::read_dir(world.folder.path()).unwrap() {
        let path = file.unwrap().path();
        let kept = std::fs::read(&path).unwrap();
        bytes += kept.len();
        for word in [CANARY, NUMBER, "college.example"] {
            let found = kept.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} stands in {}", path.display());
        }
    }
    assert!(bytes > 50_000, "the database was read: {bytes} bytes");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn the_words_of_a_panic_stay_inside_and_the_message_goes_out_all_the_same() {
    listen();
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    world.consents("student-1").await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let mut answers = Vec::new();
    for name in ["intake_context", "commit_alert"] {
        gate.strike_first(name, Fate::PanicSaying(BROKEN));
        answers.push(world.event_with_key(&event, "key-1").await.expect(500));
    }
    gate.strike_named("list_alerts", Fate::PanicSaying(BROKEN));
    answers.push(world.get("/api/v1/crisis/alerts", ADMIN).await.expect(500));
    gate.open();
    // The first call is put off, so that the worker has to come back to the case; and then it panics.
    world.sim().push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }));
    let reference = world.event_with_key(&event, "key-1").await.expect(202).text_at("/reference");
    world.work().await;
    gate.strike_first("alert", Fate::PanicSaying(BROKEN));
    world.pass_in_steps(Duration::from_secs(40), Duration::from_secs(1)).await;

    world.expect_only(&reference, 1);
    for answer in &answers {
        assert!(!answer.text.contains(CANARY), "{answer:?}");
    }
    let log = heard();
    assert!(log.contains("a handler panicked") && log.contains("ended by a panic"), "{log}");
    assert!(!log.contains(CANARY), "{log}");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_message_says_nothing_about_the_student_but_what_the_template_lists() {
    let mut world = World::new().await;
    world.consents(STUDENT).await;
    let event = json!({
        "user_id": STUDENT, "crisis_score": 0.93, "source": "voice", "message": MESSAGE, "metadata": { "name": METADATA },
        "model_version": "zq-model", "occurred_at": "2026-11-20T03:00:00Z",
    });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    let body = world.expect_told(&reference).body;
    for word in [CANARY, "voice", "chat", "mood", "08:30", "student"] {
        assert!(!body.to_lowercase().contains(word), "{word}: {body}");
    }
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_label_that_stands_in_the_clear_has_no_room_for_free_text() {
    let world = World::new().await;
    let sentence = "Told me on the phone that she is Anu";
    let event = json!({ "user_id": STUDENT, "crisis_score": 0.9, "source": "chat", "model_version": sentence });
    world.event(&event).await.expect(422);
    let preferences = format!("/api/v1/messaging/preferences/{STUDENT}");
    for field in ["source", "notice_version"] {
        let mut said = json!({ "whatsapp": true, "source": "app" });
        said[field] = json!(sentence);
        world.request(Method::PUT, &preferences, Some(SERVICE), Some(&said)).await.expect(422);
    }
}
