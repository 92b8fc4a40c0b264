//! The simulator as its callers see it: over HTTP, with a receiver for its webhooks.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, SeededEntropy, SystemClock};
use crate::secret::Secret;

const AC: &str = "AC00000000000000000000000000000000";
const WA: &str = "whatsapp:+14155238886";
const SMS: &str = "+14155238886";
const ADA: &str = "whatsapp:+4915112345678";

/// One webhook as it was received.
#[derive(Debug, Clone)]
struct Hook {
    path: String,
    headers: HeaderMap,
    fields: Vec<(String, String)>,
}

impl Hook {
    fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

#[derive(Default)]
struct Inbox {
    hooks: Mutex<Vec<Hook>>,
    /// What the next hooks are answered; 204 once there is nothing left.
    answers: Mutex<Vec<(u16, &'static str)>>,
}

async fn hook(
    State(inbox): State<Arc<Inbox>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let fields = form_urlencoded::parse(&body).into_owned().collect();
    inbox.hooks.lock().push(Hook { path: uri.to_string(), headers, fields });
    let (status, text) = inbox.answers.lock().pop().unwrap_or((204, ""));
    (StatusCode::from_u16(status).expect("a status"), text)
}

/// A simulator, a receiver, and a client.
struct Scene {
    simulator: Simulator,
    sim: SimulatorHandle,
    client: Client,
    inbox: Arc<Inbox>,
    receiver: String,
    clock: ManualClock,
}

async fn scene_with(change: impl FnOnce(&mut SimulatorConfig)) -> Scene {
    let inbox = Arc::new(Inbox::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let receiver = format!("http://{}", listener.local_addr().expect("an address"));
    let app = Router::new().fallback(post(hook)).with_state(Arc::clone(&inbox));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let clock = ManualClock::new("2026-03-01T10:00:00Z".parse().expect("a time"));
    let mut config = SimulatorConfig {
        auth_token: Secret::from("token"),
        callbacks: CallbackMode::Manual,
        inbound_url: Some(format!("{receiver}/incoming")),
        ..SimulatorConfig::default()
    };
    change(&mut config);
    let entropy = Arc::new(SeededEntropy::new(1));
    let simulator = Simulator::start(config, Arc::new(clock.clone()), entropy).await.expect("a simulator");
    Scene { sim: simulator.handle(), simulator, client: Client::new(), inbox, receiver, clock }
}

async fn scene() -> Scene {
    scene_with(|_| {}).await
}

impl Scene {
    fn api(&self, path: &str) -> String {
        format!("{}/2010-04-01/Accounts/{AC}{path}", self.simulator.url())
    }

    fn callback(&self, fragment: &str) -> String {
        format!("{}/status?attempt=7{fragment}", self.receiver)
    }

    fn post(&self, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        self.client.post(self.api("/Messages.json")).basic_auth(AC, Some("token")).form(fields)
    }

    async fn send(&self, fields: &[(&str, &str)]) -> (u16, Value) {
        read(self.post(fields).send().await.expect("an answer")).await
    }

    /// Sends a text to Ada over WhatsApp, with a status callback, and gives its SID.
    async fn text(&self, body: &str) -> String {
        let callback = self.callback("");
        let (status, message) =
            self.send(&[("To", ADA), ("From", WA), ("Body", body), ("StatusCallback", &callback)]).await;
        assert_eq!(status, 201, "{message}");
        message["sid"].as_str().expect("a SID").to_owned()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(self.api(path)).basic_auth(AC, Some("token"));
        read(request.send().await.expect("an answer")).await
    }

    async fn control(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}/_simulator{path}", self.simulator.url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.expect("an answer")).await
    }

    fn statuses(&self) -> Vec<String> {
        self.inbox.hooks.lock().iter().map(|hook| hook.get("MessageStatus").to_owned()).collect()
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_created_message_is_answered_as_twilio_answers_it() {
    let scene = scene().await;
    let response = scene.post(&[("To", ADA), ("From", WA), ("Body", "Alert K7Q2")]).send().await.expect("an answer");
    for name in ["twilio-request-id", "twilio-concurrent-requests", "twilio-request-duration"] {
        assert!(response.headers().contains_key(name), "{name}");
    }
    let (status, mut message) = read(response).await;
    assert_eq!(status, 201);
    let sid = message["sid"].as_str().expect("a SID").to_owned();
    assert!(sid.starts_with("SM") && sid.len() == 34, "{sid}");
    message["sid"] = json!("SM");
    let uri = format!("/2010-04-01/Accounts/{AC}/Messages/{sid}");
    assert_eq!(
        message,
        json!({
            "account_sid": AC, "api_version": "2010-04-01", "body": "Alert K7Q2",
            "date_created": "Sun, 01 Mar 2026 10:00:00 +0000", "date_sent": null,
            "date_updated": "Sun, 01 Mar 2026 10:00:00 +0000", "direction": "outbound-api", "error_code": null,
            "error_message": null, "from": WA, "messaging_service_sid": null, "num_media": "0", "num_segments": "1",
            "price": null, "price_unit": null, "sid": "SM", "status": "queued",
            "subresource_uris": {"media": format!("{uri}/Media.json")}, "to": ADA, "uri": format!("{uri}.json"),
        })
    );
    assert_eq!(scene.get(&format!("/Messages/{sid}.json")).await.1["body"], "Alert K7Q2");
}

#[tokio::test]
async fn wrong_parameters_are_refused_with_twilios_codes_and_make_nothing() {
    let scene = scene().await;
    let long = "a".repeat(1601);
    let hx = "HX00000000000000000000000000000009";
    let cases: &[(&[(&str, &str)], u32)] = &[
        (&[("From", WA), ("Body", "x")], 21604),
        (&[("To", "whatsapp:12"), ("From", WA), ("Body", "x")], 21211),
        (&[("To", ADA), ("Body", "x")], 21603),
        (&[("To", "+4915112345678"), ("From", "+14150000000"), ("Body", "x")], 21606),
        (&[("To", ADA), ("From", "whatsapp:+14150000000"), ("Body", "x")], 63007),
        (&[("To", ADA), ("From", SMS), ("Body", "x")], 21910),
        (&[("To", SMS), ("From", SMS), ("Body", "x")], 21266),
        (&[("To", ADA), ("From", WA), ("Body", &long)], 21617),
        (&[("To", ADA), ("From", WA)], 21619),
        (&[("To", ADA), ("From", WA), ("Body", "")], 21619),
        (&[("To", ADA), ("From", WA), ("Body", "x"), ("ContentVariables", "{}")], 21654),
        (&[("To", ADA), ("From", WA), ("ContentSid", hx)], 21655),
        (&[("To", ADA), ("From", WA), ("ContentSid", hx), ("ContentVariables", "{\"1\":\"\"}")], 21656),
        (&[("To", ADA), ("From", WA), ("ContentSid", hx), ("ContentVariables", "nonsense")], 21656),
        (&[("To", ADA), ("From", WA), ("Body", "x"), ("StatusCallback", "http://my_host/x")], 21609),
        (&[("To", ADA), ("MessagingServiceSid", "MG0"), ("Body", "x")], 21705),
    ];
    for (fields, code) in cases {
        let (status, error) = scene.send(fields).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{fields:?}");
        assert_eq!(error["status"], 400);
        assert_eq!(error["more_info"], format!("https://www.twilio.com/docs/errors/{code}"));
        assert!(error["message"].is_string());
    }
    assert!(scene.sim.messages().is_empty());
    assert_eq!(scene.sim.requests().len(), cases.len());
}

#[tokio::test]
async fn only_the_account_and_its_keys_come_in() {
    let key = ApiKey { sid: "SK1".to_owned(), secret: Secret::from("key secret") };
    let scene = scene_with(|config| config.api_keys = vec![key]).await;
    let ask = |path: &str, user: &'static str, password: &'static str| {
        let request = scene.client.get(scene.api(path)).basic_auth(user, Some(password));
        async move { read(request.send().await.expect("an answer")).await }
    };
    assert_eq!(ask("/Balance.json", AC, "token").await.0, 200);
    assert_eq!(ask("/Balance.json", "SK1", "key secret").await.0, 200);
    for (user, password) in [(AC, "tokem"), (AC, ""), ("SK1", "token"), ("SK2", "key secret")] {
        let (status, error) = ask("/Balance.json", user, password).await;
        assert_eq!((status, &error["code"]), (401, &json!(20003)), "{user}");
    }
    assert_eq!(ask(".json", AC, "token").await.1["status"], "active");
    assert_eq!(ask(".json", "SK1", "key secret").await.1["code"], 20003);
    let other = scene.api("/Messages.json").replace(AC, "AC99999999999999999999999999999999");
    let request = scene.client.get(other).basic_auth(AC, Some("token"));
    assert_eq!(read(request.send().await.expect("an answer")).await.1["code"], 20404);
    assert_eq!(scene.get("/Unheard.json").await.1["code"], 20404);
    let put = scene.client.put(scene.api("/Messages.json")).basic_auth(AC, Some("token"));
    assert_eq!(
        read(put.send().await.expect("an answer")).await,
        (
            405,
            json!({
                "code": 20004, "message": "Method not allowed", "more_info": "https://www.twilio.com/docs/errors/20004",
                "status": 405,
            })
        )
    );
}

#[tokio::test]
async fn the_senders_can_be_looked_up() {
    let scene = scene().await;
    let (_, numbers) = scene.get("/IncomingPhoneNumbers.json?PhoneNumber=%2B14155238886&PageSize=1").await;
    assert_eq!(numbers["incoming_phone_numbers"][0]["phone_number"], SMS);
    assert_eq!(numbers["incoming_phone_numbers"][0]["capabilities"]["sms"], true);
    let (_, none) = scene.get("/IncomingPhoneNumbers.json?PhoneNumber=%2B1999").await;
    assert_eq!(none["incoming_phone_numbers"], json!([]));
}

#[tokio::test]
async fn lists_are_newest_first_in_pages_that_later_messages_do_not_shift() {
    let scene = scene().await;
    for body in ["one", "two", "three"] {
        scene.text(body).await;
    }
    scene.send(&[("To", "+4915199999999"), ("From", SMS), ("Body", "other")]).await;
    let bodies = |page: &Value| -> Vec<String> {
        let messages = page["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["body"].as_str().expect("a body").to_owned()).collect()
    };
    let (_, first) = scene.get("/Messages.json?To=whatsapp%3A%2B4915112345678&PageSize=2").await;
    assert_eq!(bodies(&first), ["three", "two"]);
    scene.text("four").await;
    let next = first["next_page_uri"].as_str().expect("a next page");
    let second = scene.client.get(format!("{}{next}", scene.simulator.url())).basic_auth(AC, Some("token"));
    let (_, second) = read(second.send().await.expect("an answer")).await;
    assert_eq!(bodies(&second), ["one"]);
    assert_eq!(second["next_page_uri"], Value::Null);
    assert_eq!(second["page"], 1);

    let (_, all) = scene.get("/Messages.json").await;
    assert_eq!(bodies(&all), ["four", "other", "three", "two", "one"]);
    let (_, by_sender) = scene.get("/Messages.json?From=%2B14155238886").await;
    assert_eq!(bodies(&by_sender), ["other"]);
    let (_, unsent) = scene.get("/Messages.json?DateSent%3E=2026-03-01").await;
    assert_eq!(bodies(&unsent), Vec::<String>::new(), "what is not sent yet has no date");
    scene.sim.step_all().await;
    assert_eq!(bodies(&scene.get("/Messages.json?DateSent%3E=2026-03-01").await.1).len(), 5);
    assert_eq!(bodies(&scene.get("/Messages.json?DateSent=2026-03-02").await.1).len(), 0);
}

#[tokio::test]
async fn a_message_can_be_redacted_and_deleted_once_it_is_complete() {
    let scene = scene().await;
    let sid = scene.text("secret").await;
    let path = scene.api(&format!("/Messages/{sid}.json"));
    let update = |field: (&'static str, &'static str)| {
        let request = scene.client.post(&path).basic_auth(AC, Some("token")).form(&[field]);
        async move { read(request.send().await.expect("an answer")).await }
    };
    let delete = || async {
        read(scene.client.delete(&path).basic_auth(AC, Some("token")).send().await.expect("an answer")).await
    };
    assert_eq!(update(("Body", "")).await.1["code"], 20009);
    assert_eq!(delete().await.1["code"], 20009);
    assert_eq!(update(("Status", "canceled")).await.1["code"], 30409);
    scene.sim.step_all().await;
    scene.sim.step_all().await;
    assert_eq!(update(("Body", "")).await.1["body"], "");
    assert_eq!(update(("Body", "new")).await.0, 400);
    assert_eq!(delete().await, (204, Value::Null));
    assert_eq!(scene.get(&format!("/Messages/{sid}.json")).await.1["code"], 20404);
}

#[tokio::test]
async fn a_scheduled_message_can_be_withdrawn() {
    let service = "MG00000000000000000000000000000000";
    let scene = scene_with(|config| config.messaging_services = vec![service.to_owned()]).await;
    let mut fields = vec![("To", ADA), ("MessagingServiceSid", service), ("Body", "x"), ("ScheduleType", "fixed")];
    fields.push(("SendAt", "2026-03-01T10:04:00Z"));
    assert_eq!(scene.send(&fields).await.1["code"], 35115);
    fields.pop();
    fields.push(("SendAt", "2026-03-01T10:06:00Z"));
    let (status, message) = scene.send(&fields).await;
    assert_eq!((status, &message["status"], &message["from"]), (201, &json!("scheduled"), &Value::Null));
    let path = scene.api(&format!("/Messages/{}.json", message["sid"].as_str().expect("a SID")));
    let cancel = scene.client.post(path).basic_auth(AC, Some("token")).form(&[("Status", "canceled")]);
    assert_eq!(read(cancel.send().await.expect("an answer")).await.1["status"], "canceled");
    assert_eq!(scene.sim.step_all().await, Vec::<u16>::new());
}

#[tokio::test]
async fn a_template_is_rendered_on_the_phone() {
    let scene = scene().await;
    let content = format!("{}/v1/Content", scene.simulator.url());
    let template = json!({
        "friendly_name": "crisis_alert", "language": "en", "variables": {"1": "AAAA1111", "2": "SAMPLE"},
        "types": {
            "twilio/quick-reply": {"body": "Alert {{1}}: reply", "actions": [{"title": "I take it", "id": "ack.{{2}}"}]},
            "twilio/text": {"body": "Alert {{1}}"},
        },
    });
    let create = scene.client.post(&content).basic_auth(AC, Some("token")).json(&template);
    let (status, made) = read(create.send().await.expect("an answer")).await;
    assert_eq!(status, 201);
    let hx = made["sid"].as_str().expect("a SID");
    let approval = scene.client.get(format!("{content}/{hx}/ApprovalRequests")).basic_auth(AC, Some("token"));
    assert_eq!(read(approval.send().await.expect("an answer")).await.1["whatsapp"]["status"], "approved");
    let (status, message) =
        scene.send(&[("To", ADA), ("From", WA), ("ContentSid", hx), ("ContentVariables", "{\"1\":\"K7Q2\"}")]).await;
    assert_eq!((status, &message["body"]), (201, &json!("Alert K7Q2: reply")));
    assert_eq!(scene.sim.messages_to(ADA)[0].buttons[0].title, "I take it");

    scene.inbox.answers.lock().push((200, "<Response><Message>Taken.</Message></Response>"));
    let reply = scene.sim.tap("+4915112345678", "I take it").await.expect("a tap");
    assert_eq!(reply.answers, ["Taken."]);
    let hook = scene.inbox.hooks.lock()[0].clone();
    assert_eq!(
        (hook.get("ButtonPayload"), hook.get("Body")),
        ("ack.SAMPLE", "I take it"),
        "what is not given is a sample"
    );
    assert_eq!((hook.get("ButtonText"), hook.get("MessageType")), ("I take it", "button"));

    // Under the second message the id is its own, and a tap can be on either.
    let given = [("To", ADA), ("From", WA), ("ContentSid", hx), ("ContentVariables", "{\"1\":\"K7Q2\",\"2\":\"X9\"}")];
    scene.send(&given).await;
    let messages = scene.sim.messages_to(ADA);
    for (message, payload) in messages.iter().zip(["ack.SAMPLE", "ack.X9"]) {
        scene.sim.tap_under("+4915112345678", "I take it", &message.sid).await.expect("a tap");
        let hook = scene.inbox.hooks.lock().last().expect("a webhook").clone();
        assert_eq!((hook.get("ButtonPayload"), hook.get("OriginalRepliedMessageSid")), (payload, message.sid.as_str()));
    }
    for (title, sid) in [("Another", messages[0].sid.as_str()), ("I take it", "SM00000000000000000000000000000009")] {
        assert!(scene.sim.tap_under("+4915112345678", title, sid).await.is_err(), "{title} {sid}");
    }
    assert!(scene.sim.tap_under("+4915112345679", "I take it", &messages[0].sid).await.is_err(), "another phone");
}

#[tokio::test]
async fn a_value_that_a_template_has_no_place_for_fails_on_the_way() {
    let scene = scene().await;
    let content = format!("{}/v1/Content", scene.simulator.url());
    let template =
        json!({"language": "en", "variables": {"1": "A"}, "types": {"twilio/text": {"body": "Alert {{1}} now"}}});
    let create = scene.client.post(&content).basic_auth(AC, Some("token")).json(&template);
    let made = read(create.send().await.expect("an answer")).await.1;
    let hx = made["sid"].as_str().expect("a SID");
    for (values, code) in [("{\"1\":\"B\"}", None), ("{\"1\":\"B\",\"2\":\"C\"}", Some(63028))] {
        let (status, message) =
            scene.send(&[("To", ADA), ("From", WA), ("ContentSid", hx), ("ContentVariables", values)]).await;
        assert_eq!(status, 201, "{message}");
        for _ in 0..4 {
            scene.sim.step_all().await;
        }
        assert_eq!(scene.sim.messages_to(ADA).last().expect("a message").error_code, code, "{values}");
    }
}

#[tokio::test]
async fn buttons_that_twilio_would_not_take_make_no_template() {
    let scene = scene().await;
    let content = format!("{}/v1/Content", scene.simulator.url());
    let button = |title: &str, id: &str| json!({"title": title, "id": id});
    for actions in [
        json!([]),
        json!(vec![button("a", "1"); 11]),
        json!([button(&"a".repeat(26), "1")]),
        json!([button("a", &"1".repeat(129))]),
        json!([button("", "1")]),
        json!([{"title": "a"}]),
    ] {
        let template = json!({"language": "en", "types": {"twilio/quick-reply": {"body": "x", "actions": actions}}});
        let create = scene.client.post(&content).basic_auth(AC, Some("token")).json(&template);
        assert_eq!(read(create.send().await.expect("an answer")).await.0, 400, "{template}");
    }
}

#[tokio::test]
async fn callbacks_go_out_signed_in_order_and_never_for_the_first_status() {
    let scene = scene().await;
    let callback = scene.callback("#rc=2&rp=all");
    scene.send(&[("To", ADA), ("From", WA), ("Body", "x"), ("StatusCallback", &callback)]).await;
    assert!(scene.statuses().is_empty());
    assert_eq!(scene.sim.step_all().await, [204]);
    assert_eq!(scene.sim.step_all().await, [204]);
    assert_eq!(scene.sim.step_all().await, [204]);
    assert!(scene.sim.step_all().await.is_empty());
    assert_eq!(scene.statuses(), ["sent", "delivered", "read"]);
    let hooks = scene.inbox.hooks.lock().clone();
    for hook in &hooks {
        assert_eq!(hook.path, "/status?attempt=7", "the fragment stays at home");
        let url = format!("{}{}", scene.receiver, hook.path);
        assert_eq!(hook.headers["x-twilio-signature"], sign::signature("token", &url, &hook.fields));
        assert!(hook.headers.contains_key("i-twilio-idempotency-token"));
        assert_eq!(hook.get("ChannelToAddress"), "+491511234XXXX");
        assert_eq!((hook.get("ChannelPrefix"), hook.get("AccountSid")), ("whatsapp", AC));
    }
    assert_eq!(hooks[1].get("EventType"), "DELIVERED");
}

#[tokio::test]
async fn an_sms_tells_when_the_carrier_was_done() {
    let scene = scene().await;
    let callback = scene.callback("");
    scene.send(&[("To", "+4915112345678"), ("From", SMS), ("Body", "x"), ("StatusCallback", &callback)]).await;
    while !scene.sim.step_all().await.is_empty() {}
    assert_eq!(scene.statuses(), ["sent", "delivered"]);
    let hook = scene.inbox.hooks.lock()[1].clone();
    assert_eq!((hook.get("RawDlrDoneDate"), hook.get("ChannelPrefix")), ("2603011000", ""));
}

#[tokio::test]
async fn a_callback_is_repeated_only_as_the_url_asks() {
    let scene = scene().await;
    scene.inbox.answers.lock().push((500, ""));
    scene.text("by default a 5xx is not repeated").await;
    assert_eq!(scene.sim.step_all().await, [500]);
    assert_eq!(scene.statuses(), ["sent"]);

    scene.sim.reset();
    scene.inbox.hooks.lock().clear();
    *scene.inbox.answers.lock() = vec![(503, ""), (500, "")];
    let callback = scene.callback("#rc=3&rp=5xx");
    scene.send(&[("To", ADA), ("From", WA), ("Body", "x"), ("StatusCallback", &callback)]).await;
    assert_eq!(scene.sim.step_all().await, [204]);
    let hooks = scene.inbox.hooks.lock().clone();
    assert_eq!(hooks.len(), 3);
    let token = |hook: &Hook| hook.headers["i-twilio-idempotency-token"].clone();
    assert!(hooks.iter().all(|hook| token(hook) == token(&hooks[0])));
}

#[tokio::test]
async fn a_receiver_that_is_away_is_told_apart_from_one_that_refuses() {
    let scene = scene().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let callback = format!("http://{}/status", gone.local_addr().expect("an address"));
    drop(gone);
    scene.send(&[("To", ADA), ("From", WA), ("Body", "x"), ("StatusCallback", &callback)]).await;
    assert_eq!(scene.sim.step_all().await, [0]);
    assert_eq!(scene.sim.stats().callbacks_failed, 1);
}

#[tokio::test]
async fn messages_move_on_by_the_clock_in_automatic_mode() {
    let (sent_after, delivered_after) = (Duration::from_secs(1), Duration::from_secs(5));
    let automatic = CallbackMode::Automatic { sent_after, delivered_after, read_after: None };
    let scene = scene_with(|config| config.callbacks = automatic).await;
    let sid = scene.text("x").await;
    let status = |wanted: SimStatus| {
        let scene = &scene;
        async move {
            let mut changes = scene.sim.changes();
            let reached = changes.wait_for(|_| scene.sim.messages()[0].status == wanted);
            let in_time = tokio::time::timeout(Duration::from_secs(10), reached).await.is_ok();
            assert!(in_time, "never {wanted:?}");
        }
    };
    assert_eq!(scene.sim.messages()[0].status, SimStatus::Queued);
    scene.clock.advance(sent_after);
    status(SimStatus::Sent).await;
    // The way on from `sent` is planned once its callback has been answered.
    while scene.statuses().is_empty() || scene.sim.stats().callbacks_sent == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.sim.messages()[0].status, SimStatus::Sent);
    scene.clock.advance(delivered_after);
    status(SimStatus::Delivered).await;
    assert_eq!(scene.get(&format!("/Messages/{sid}.json")).await.1["price"], "-0.00750");
}

#[tokio::test]
async fn a_reply_carries_what_whatsapp_sends_and_brings_the_answer_to_the_phone() {
    let scene = scene().await;
    let sid = scene.text("Alert K7Q2").await;
    scene.inbox.answers.lock().push((200, "<Response><Message>Thank you, it is yours.</Message></Response>"));
    let reply = scene.sim.reply("+4915112345678", "ACK").await.expect("a reply");
    assert_eq!((reply.http_status, reply.answers.as_slice()), (200, &["Thank you, it is yours.".to_owned()][..]));
    let hook = scene.inbox.hooks.lock()[0].clone();
    assert_eq!(hook.path, "/incoming");
    for (name, value) in [
        ("Body", "ACK"),
        ("From", ADA),
        ("To", WA),
        ("WaId", "4915112345678"),
        ("NumMedia", "0"),
        ("SmsStatus", "received"),
        ("OriginalRepliedMessageSid", &sid),
        ("MessageSid", &reply.sid),
        ("AccountSid", AC),
    ] {
        assert_eq!(hook.get(name), value, "{name}");
    }
    let url = format!("{}/incoming", scene.receiver);
    assert_eq!(hook.headers["x-twilio-signature"], sign::signature("token", &url, &hook.fields));
    let directions: Vec<_> = scene.sim.conversation(ADA).iter().map(|message| message.direction).collect();
    assert_eq!(directions, [Direction::OutboundApi, Direction::Inbound, Direction::OutboundReply]);
    assert_eq!(scene.sim.messages_to(ADA).len(), 1, "only what the API made counts");

    let again = Inbound::new("+4915112345678", "ACK").with_sid(&reply.sid).quoting(Quote::Nothing);
    assert_eq!(scene.sim.receive(&again).await.expect("a reply").sid, reply.sid);
    assert_eq!(scene.inbox.hooks.lock()[1].get("OriginalRepliedMessageSid"), "");
    assert_eq!(scene.sim.conversation(ADA).len(), 3, "the same message twice is one message");
}

#[tokio::test]
async fn an_sms_is_answered_by_sms() {
    let scene = scene().await;
    scene.send(&[("To", "+4915112345678"), ("From", SMS), ("Body", "x")]).await;
    scene.sim.reply("+4915112345678", "ACK").await.expect("a reply");
    let hook = scene.inbox.hooks.lock()[0].clone();
    assert_eq!((hook.get("From"), hook.get("To"), hook.get("WaId")), ("+4915112345678", SMS, ""));
}

#[tokio::test]
async fn a_stop_by_text_message_is_answered_passed_on_and_kept_and_start_lifts_it() {
    let scene = scene().await;
    let phone = "+4915112345678";
    let sent = [("To", phone), ("From", SMS), ("Body", "Please look")];
    scene.send(&sent).await;
    scene.sim.reply(phone, "Stop ").await.expect("posted");
    let shown = scene.sim.conversation(phone);
    assert!(shown.last().expect("an answer").body.contains("no more messages"), "{shown:?}");
    let forwarded = scene.inbox.hooks.lock().last().expect("a webhook").get("Body").to_owned();
    assert_eq!(forwarded, "Stop ");
    let (status, refused) = scene.send(&sent).await;
    assert_eq!((status, refused["code"].as_u64()), (400, Some(21610)));
    scene.sim.reply(phone, "start").await.expect("posted");
    assert_eq!(scene.send(&sent).await.0, 201);
    scene.sim.reply(phone, "STOP").await.expect("posted");
    let (status, _) = scene.send(&[("To", ADA), ("From", WA), ("Body", "Please look")]).await;
    assert_eq!(status, 201, "over WhatsApp nobody has said it");
}

#[tokio::test]
async fn free_text_outside_the_window_fails_where_the_window_is_kept() {
    let scene = scene_with(|config| config.whatsapp_window = true).await;
    scene.text("too early").await;
    scene.sim.step_all().await;
    scene.sim.step_all().await;
    assert_eq!(scene.sim.messages()[0].error_code, Some(63016));
    scene.sim.reply(ADA, "hello").await.expect("a reply");
    scene.text("now").await;
    scene.sim.step_all().await;
    scene.sim.step_all().await;
    assert_eq!(scene.sim.messages()[1].status, SimStatus::Delivered);
}

#[tokio::test]
async fn tests_can_say_what_they_expect() {
    let scene = scene().await;
    scene.text("one").await;
    scene.text("two").await;
    assert_eq!(scene.sim.expect_message(ADA, |message| message.body == "two").expect("two").body, "two");
    let missing = scene.sim.expect_message(ADA, |message| message.body == "two").expect_err("no second one");
    assert!(missing.contains("\"one\"") && missing.contains("not expected"), "{missing}");
    assert_eq!(scene.sim.unexpected().len(), 1);
    let sim = scene.sim.clone();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.assert_no_unexpected()));
    let text = *panic.expect_err("must fail").downcast::<String>().expect("a text");
    assert!(text.contains("\"one\"") && text.contains(ADA), "{text}");
    let awaited = scene.sim.await_message(ADA, Duration::from_secs(5), |message| message.body == "one");
    assert_eq!(awaited.await.expect("one").body, "one");
    scene.sim.assert_no_unexpected();
}

#[tokio::test]
async fn memory_stays_flat() {
    let scene = scene_with(|config| config.keep_messages = 3).await;
    for body in ["1", "2", "3", "4", "5"] {
        scene.text(body).await;
    }
    let kept: Vec<_> = scene.sim.messages_to(ADA).into_iter().map(|message| message.body).collect();
    assert_eq!(kept, ["3", "4", "5"]);
    assert_eq!((scene.sim.requests().len(), scene.sim.stats().created), (3, 5));
}

#[tokio::test]
async fn stopping_lets_go_of_what_is_held() {
    let scene = scene().await;
    scene.sim.push_fault(FaultRule::once(Fault::TimeOutWithoutAccepting));
    let held = tokio::spawn(scene.post(&[("To", ADA), ("From", WA), ("Body", "x")]).send());
    let mut changes = scene.sim.changes();
    changes.wait_for(|_| scene.sim.stats().create_calls == 1).await.expect("a call");
    scene.simulator.shutdown().await.expect("an orderly end");
    assert!(held.await.expect("a task").is_err());
}
mod control_tests;
mod fault_tests;
