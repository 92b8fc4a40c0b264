//! The operator hears what they must: once, again while it goes on, and when it is over; and whatever becomes of their
//! webhooks, no alert is the worse for it.

use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::common::stage::s;
use crate::common::{COUNSELLOR_KEY, SERVICE, Setting, World, contact_entry};

const OPS_PHONE: &str = "+919800000099";
const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// A webhook of the operator's.
pub(crate) struct Sink {
    server: MockServer,
    answer: Mutex<ResponseTemplate>,
}

impl Sink {
    pub(crate) async fn answering(status: u16) -> Self {
        let answer = ResponseTemplate::new(status);
        let sink = Self { server: MockServer::start().await, answer: Mutex::new(answer.clone()) };
        sink.answers(answer).await;
        sink
    }

    /// From now on it answers so.
    pub(crate) async fn answers(&self, answer: ResponseTemplate) {
        self.server.reset().await;
        *self.answer.lock() = answer.clone();
        Mock::given(any()).respond_with(answer).mount(&self.server).await;
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/hook/of-the-operator", self.server.uri())
    }

    /// How often it was asked since it was asked last.
    pub(crate) async fn beats(&self) -> usize {
        let beats = self.server.received_requests().await.unwrap().len();
        let answer = self.answer.lock().clone();
        self.answers(answer).await;
        beats
    }

    /// What it was sent since it was asked last.
    pub(crate) async fn heard(&self) -> Vec<Value> {
        let requests = self.server.received_requests().await.unwrap();
        let answer = self.answer.lock().clone();
        self.answers(answer).await;
        requests.iter().map(|request| request.body_json().unwrap()).collect()
    }

    /// The lines of the texts that it was sent.
    pub(crate) async fn lines(&self) -> Vec<String> {
        let texts = self.heard().await;
        let lines = texts.iter().flat_map(|body| body["text"].as_str().unwrap().lines());
        lines.filter_map(|line| line.strip_prefix("• ")).map(str::to_owned).collect()
    }
}

/// One round of half a minute, then the last responder every half a minute.
fn short_ladder(slack: &Sink) -> Setting {
    Setting::default()
        .with("CRISIS_RELAY__POLICY__ROUNDS", "1")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "30s")
        .with("CRISIS_RELAY__POLICY__LAST_RESPONDER_EVERY", "30s")
        .with("CRISIS_RELAY__OPS__TIMEOUT", "3s")
        .with("CRISIS_RELAY__OPS__REPEAT_EVERY", "10m")
        // No receipts come in these stories: that is for others to tell.
        .with("CRISIS_RELAY__OPS__SHARE_OF_AT_LEAST", "100000")
        .with("CRISIS_RELAY__OPS__SILENT_IN_A_ROW", "1000")
        .with("OPS_SLACK_URL", &slack.url())
}

impl World {
    /// Time passes as in life, and the operator's notices go out on the way.
    async fn pass_and_tell(&mut self, by: Duration) {
        for _ in 0..by.as_secs() / 10 {
            self.pass(s(10)).await;
            self.tell_operator().await;
        }
    }
}

#[tokio::test]
async fn a_ladder_in_vain_is_told_once_again_while_it_lasts_and_as_over_when_somebody_takes_the_case() {
    let (slack, pagerduty) = (Sink::answering(200).await, Sink::answering(202).await);
    let setting = short_ladder(&slack)
        .with("OPS_PAGERDUTY_KEY", ROUTING_KEY)
        .with("CRISIS_RELAY__OPS__PAGERDUTY_URL", &pagerduty.url());
    let mut world = setting.start().await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.tell_operator().await;
    assert!(slack.heard().await.is_empty(), "nothing is wrong");

    world.pass_and_tell(s(300)).await;
    let alarm = format!("ALARM ladder_exhausted (case {reference}): ");
    let lines = slack.lines().await;
    assert!(lines.len() == 1 && lines[0].starts_with(&alarm), "once, though it was found nine times: {lines:?}");
    let triggers = pagerduty.heard().await;
    assert_eq!(triggers.len(), 1);
    assert_eq!((&triggers[0]["event_action"], &triggers[0]["routing_key"]), (&json!("trigger"), &json!(ROUTING_KEY)));
    assert_eq!(triggers[0]["payload"]["severity"], "critical");
    assert_eq!(triggers[0]["payload"]["class"], "ladder_exhausted");
    assert!(world.alarms("ladder_exhausted").await >= 8.0, "each was counted");

    world.pass_and_tell(s(600)).await;
    let lines = slack.lines().await;
    assert!(lines.len() == 1 && lines[0].starts_with("STILL ladder_exhausted"), "{lines:?}");
    pagerduty.heard().await;

    world.post(&format!("/api/v1/crisis/alerts/{reference}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.tell_operator().await;
    let lines = slack.lines().await;
    assert!(
        lines.len() == 1 && lines[0].starts_with(&format!("OVER ladder_exhausted (case {reference})")),
        "{lines:?}"
    );
    let resolves = pagerduty.heard().await;
    assert_eq!((resolves.len(), &resolves[0]["event_action"]), (1, &json!("resolve")));
    assert_eq!(resolves[0]["dedup_key"], triggers[0]["dedup_key"]);
    assert_eq!(world.metric("crisis_relay_alarms_open{kind=\"ladder_exhausted\"}").await, Some(0.0));
}

#[tokio::test]
async fn a_webhook_that_is_dead_or_slow_harms_no_alert_and_hears_everything_when_it_is_back() {
    let (slack, pagerduty) = (Sink::answering(200).await, Sink::answering(202).await);
    let setting = short_ladder(&slack)
        .with("OPS_PAGERDUTY_KEY", ROUTING_KEY)
        .with("CRISIS_RELAY__OPS__PAGERDUTY_URL", &pagerduty.url());
    slack.answers(ResponseTemplate::new(200).set_delay(s(60))).await;
    let mut world = setting.start().await;
    world.goes_wrong(FaultRule::always(Fault::Refused { http_status: 400, code: 21212 }));
    let first = world.told("student-1", 0.93).await;
    world.work().await;
    world.sim().clear_faults();

    // While the operator's webhook hangs, another case comes, and is sent.
    let alarms = world.alarms_of();
    let telling = tokio::spawn(async move { alarms.flush().await });
    let second = world.told("student-2", 0.93).await;
    tokio::time::timeout(s(5), world.work()).await.expect("it does not wait for the operator's webhook");
    world.expect_on_the_phone(&second);
    telling.await.unwrap();
    assert_eq!(pagerduty.heard().await.len(), 1, "nor does the other target");

    // Again and again, less and less often, however long it takes.
    slack.answers(ResponseTemplate::new(503)).await;
    world.pass_and_tell(s(1_200)).await;
    let tries = slack.heard().await.len();
    assert!((5..40).contains(&tries), "{tries} tries");

    slack.answers(ResponseTemplate::new(200)).await;
    world.pass_and_tell(s(300)).await;
    let lines = slack.lines().await;
    assert!(lines[0].starts_with("ALARM provider_refused (code 21212): "), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with(&format!("ALARM ladder_exhausted (case {first})"))), "{lines:?}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_webhook_that_refuses_is_not_asked_again_for_the_same() {
    let slack = Sink::answering(404).await;
    let mut world = short_ladder(&slack).start().await;
    world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_and_tell(s(60)).await;
    assert_eq!(slack.heard().await.len(), 1);
    world.pass_and_tell(s(300)).await;
    assert_eq!(slack.heard().await.len(), 0);
    assert_eq!(world.metric("crisis_relay_notices_total{target=\"slack\",outcome=\"refused\"}").await, Some(1.0));
}

#[tokio::test]
async fn after_a_restart_what_goes_on_is_found_and_told_again() {
    let slack = Sink::answering(200).await;
    let mut world = short_ladder(&slack).start().await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_and_tell(s(60)).await;
    assert_eq!(slack.lines().await.len(), 1);
    let mut world = world.crash().await;
    world.pass_and_tell(s(60)).await;
    let lines = slack.lines().await;
    let alarm = format!("ALARM ladder_exhausted (case {reference}): ");
    assert!(lines.len() == 1 && lines[0].starts_with(&alarm), "{lines:?}");
}

#[tokio::test]
async fn two_hundred_cases_at_once_are_told_in_a_few_texts() {
    let slack = Sink::answering(200).await;
    let mut world = short_ladder(&slack).start().await;
    for student in 0..200 {
        world.told(&format!("student-{student}"), 0.93).await;
    }
    world.work().await;
    for _ in 0..4 {
        world.pass(s(10)).await;
    }
    world.tell_operator().await;
    let texts = slack.heard().await;
    let lines: usize = texts.iter().map(|body| body["text"].as_str().unwrap().lines().count() - 1).sum();
    assert_eq!((texts.len(), lines), (10, 200));
}

#[tokio::test]
async fn phones_of_the_operator_are_told_and_what_comes_within_two_minutes_goes_in_one_text() {
    let slack = Sink::answering(200).await;
    let mut world = short_ladder(&slack).with("OPS_SMS_TO", OPS_PHONE).start().await;
    let first = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_and_tell(s(30)).await;
    let text = world.sim().expect_message(OPS_PHONE, |message| message.body.contains("ladder_exhausted")).unwrap().body;
    assert!(text.starts_with("Ops notice of default: ") && text.contains(&first), "{text}");

    // Two more cases, and an end: one text, and not before its time.
    let second = world.told("student-2", 0.93).await;
    let third = world.told("student-3", 0.93).await;
    world.work().await;
    world.pass_and_tell(s(60)).await;
    world.post(&format!("/api/v1/crisis/alerts/{first}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.tell_operator().await;
    assert_eq!(world.sim().messages_to(OPS_PHONE).len(), 1);
    world.pass_and_tell(s(60)).await;
    let text = world.sim().expect_message(OPS_PHONE, |message| message.body.contains(&second)).unwrap().body;
    for part in [&format!("ladder_exhausted {third}"), &format!("over: ladder_exhausted {first}")] {
        assert!(text.contains(part.as_str()), "{part} in {text}");
    }
    assert_eq!(world.sim().messages_to(OPS_PHONE).len(), 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_phone_of_the_operator_that_twilio_refuses_or_cannot_take_harms_no_alert() {
    let slack = Sink::answering(200).await;
    let mut world = short_ladder(&slack).with("OPS_SMS_TO", OPS_PHONE).start().await;
    world.goes_wrong(FaultRule::always(Fault::Outage));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_and_tell(s(900)).await;
    assert_eq!(world.sim().messages_to(OPS_PHONE).len(), 0);
    world.sim().clear_faults();
    world.pass_and_tell(s(120)).await;
    assert!(!world.on_the_phone(&reference).is_empty());
    world.pass_and_tell(s(300)).await;
    assert!(!world.sim().messages_to(OPS_PHONE).is_empty(), "and what waited is told afterwards");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_rung_with_nobody_whom_the_ground_allows_to_be_told_is_told_to_the_operator_until_the_case_is_closed() {
    let slack = Sink::answering(200).await;
    let file = contact_entry("lead", "lead", "sms_to", "+919800000027")
        + "[[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp']\n\
           [[policy.steps]]\nafter = '5m'\ncontacts = ['lead']\nchannels = ['sms']\n";
    let mut world = short_ladder(&slack).with_file(&file).start().await;
    // They agreed to text messages; on the first rung there is WhatsApp only.
    let agreed = json!({ "whatsapp": false, "sms": true, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&agreed)).await.expect(200);
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    world.tell_operator().await;
    let lines = slack.lines().await;
    let alarm = format!("ALARM nobody_to_tell (case {reference}): ");
    assert!(lines.len() == 1 && lines[0].starts_with(&alarm), "{lines:?}");
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    world.tell_operator().await;
    let lines = slack.lines().await;
    let over = format!("OVER nobody_to_tell (case {reference})");
    assert!(lines.len() == 1 && lines[0].starts_with(&over), "{lines:?}");
    world.holds_its_promises().await;
}
