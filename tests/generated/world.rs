//! The service that is asked, with cases in every state, and what must hold of each of its answers.

use std::cell::RefCell;
use std::collections::BTreeMap;

use axum::body::Body;
use crisis_relay::simulator::SimulatorConfig;
use crisis_relay::twilio::callback::Form;
use crisis_relay::twilio::signature::{SIGNATURE_HEADER, sign};
use proptest::test_runner::TestCaseError;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::CANARY;
use crate::common::{ADMIN, Answer, JWT_SECRET, Setting, World, described};
use crate::request::Request;
use crate::schema::LABELS;

/// How many cases there are in each state: requests move them on.
const EACH: usize = 12;

pub(crate) struct Asked {
    runtime: Runtime,
    world: World,
    /// Ids and references of the cases that there are.
    pub(crate) names: Vec<String>,
    statuses: RefCell<BTreeMap<u16, u32>>,
}

impl Asked {
    pub(crate) fn begin() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (world, names) = runtime.block_on(begin());
        Self { runtime, world, names, statuses: RefCell::default() }
    }

    /// How often each status was answered.
    pub(crate) fn statuses(self) -> BTreeMap<u16, u32> {
        self.runtime.block_on(async {
            self.world.assert_audit_verifies().await;
            self.world.assert_nothing_is_silent().await;
        });
        self.statuses.into_inner()
    }

    /// Sends a request. What HTTP itself does not carry is passed over.
    pub(crate) fn ask(&self, request: &Request) -> Result<(), TestCaseError> {
        let Some(sent) = self.http(request) else { return Ok(()) };
        let router = self.world.router();
        let path = sent.uri().path().to_owned();
        let answer = self.runtime.block_on(async {
            let (head, body) = router.oneshot(sent).await.unwrap_or_else(|never| match never {}).into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                text: String::from_utf8(body.into()).unwrap(),
            }
        });
        *self.statuses.borrow_mut().entry(answer.status).or_default() += 1;
        if answer.status >= 500 {
            return Err(TestCaseError::fail(format!("the service is at fault: {answer:?}")));
        }
        described::verdict(&request.method, &path, &answer)
            .map_err(|fault| TestCaseError::fail(format!("{fault}: {answer:?}")))?;
        repeats_nothing(request, &path, &answer)
    }

    fn http(&self, request: &Request) -> Option<axum::http::Request<Body>> {
        let mut builder = axum::http::Request::builder().method(request.method.as_str()).uri(&request.target);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value.as_slice());
        }
        let mut sent = builder.body(Body::from(request.body.clone())).ok()?;
        if request.signed && request.target.starts_with("/webhooks/") {
            let token = SimulatorConfig::default().auth_token;
            let url = self.world.base().join(&request.target).ok()?;
            // As it stands in the request line: a URL parser would write it in another way.
            let url = format!("{}{}", url.origin().ascii_serialization(), sent.uri());
            let form = Form::parse(&request.body).ok();
            let signature = sign(&token, &url, form.as_ref().map_or(&[][..], Form::pairs));
            sent.headers_mut().insert(SIGNATURE_HEADER, signature.parse().ok()?);
        }
        Some(sent)
    }
}

/// An answer repeats no value that was sent: an error not at all but for the names of fields, anything else but where
/// somebody who may see it asked for just that.
fn repeats_nothing(request: &Request, path: &str, answer: &Answer) -> Result<(), TestCaseError> {
    if answer.status < 400 && path.ends_with("/reveal") {
        return Ok(());
    }
    let body = match serde_json::from_str::<Value>(&answer.text) {
        Ok(mut json) => {
            // Labels are technical by their type, and shown again to whoever may see what a student has said.
            let channels =
                json.get_mut("channels").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
            for channel in channels.filter_map(Value::as_object_mut) {
                channel.retain(|name, _| !LABELS.contains(&name.as_str()));
            }
            forget_names(&mut json);
            for error in json.get_mut("errors").and_then(Value::as_array_mut).into_iter().flatten() {
                error["field"].take();
            }
            json.to_string()
        }
        Err(_) => answer.text.clone(),
    };
    let said = format!("{body}{:?}", answer.headers);
    if said.contains(CANARY) {
        return Err(TestCaseError::fail(format!("{} {path}: the answer repeats a value: {said}", request.method)));
    }
    Ok(())
}

/// What a contact is called is shown again to whoever may see it.
fn forget_names(json: &mut Value) {
    for list in ["contacts", "emergency_contacts"] {
        let all = json.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        all.for_each(forget_name);
    }
    if json.get("set_up_in").is_some() || json.get("id").and_then(Value::as_str).is_some_and(|id| id.starts_with("e-"))
    {
        forget_name(json);
    }
}

/// The name, and the labels of a student's word.
fn forget_name(contact: &mut Value) {
    let Some(contact) = contact.as_object_mut() else { return };
    contact.remove("name");
    if let Some(word) = contact.get_mut("consent").and_then(Value::as_object_mut) {
        word.retain(|name, _| !LABELS.contains(&name.as_str()));
    }
}

/// A world with students who have agreed and some who have not, and cases in every state.
async fn begin() -> (World, Vec<String>) {
    let mut setting = Setting::default().with("JWT_SECRET", JWT_SECRET);
    for (key, value) in [
        ("RATE_LIMITS__SERVICE_PER_SECOND", "1000000"),
        ("RATE_LIMITS__PERSON_PER_SECOND", "10000"),
        ("RATE_LIMITS__WEBHOOK_PER_SECOND", "1000000"),
        // The clock stands still: whatever has a pace would wait for ever.
        ("TWILIO__SMS_PER_SECOND", "10000"),
        ("RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "10000"),
        // A machine that stands still for a while says nothing about a request.
        ("HTTP__REQUEST_TIMEOUT", "5m"),
    ] {
        setting = setting.with(&format!("CRISIS_RELAY__{key}"), value);
    }
    let mut world = setting.start().await;
    let mut names = Vec::new();
    for number in 0..EACH {
        let told = world.escalated(&format!("told-{number}")).await;
        let event = json!({ "user_id": format!("withheld-{number}"), "crisis_score": 0.9, "source": "chat", "message": CANARY });
        let withheld = world.event(&event).await.expect(202);
        let [told, withheld] = [told, withheld].map(|answer| answer.text_at("/reference"));
        if number % 3 == 1 {
            let taken = format!("/api/v1/crisis/alerts/{told}/acknowledge");
            world.post(&taken, ADMIN, &json!({})).await.expect(200);
        }
        if number % 3 == 2 {
            let closed = format!("/api/v1/crisis/alerts/{told}/resolve");
            world.post(&closed, ADMIN, &json!({ "outcome": "duplicate", "note": CANARY })).await.expect(200);
        }
        names.push(world.alert(&withheld).await["id"].as_str().unwrap().to_owned());
        names.extend([told, withheld]);
    }
    for number in 0..EACH {
        let methods = json!([{ "channel": "sms", "number": format!("+9198765{number:05}") }]);
        let person = json!({
            "name": CANARY, "role": "lead", "language": "en", "time_zone": "UTC", "active": true, "methods": methods,
        });
        let added = world.post("/api/v1/contacts", ADMIN, &person).await.expect(201);
        // Often enough that most requests about a contact are about one that there is.
        names.extend(std::iter::repeat_n(added.text_at("/id"), 2));
    }
    // One student has named everybody whom there may be: else few requests would name a student and a contact of theirs.
    for number in 0..3 {
        let methods = json!([{ "channel": "sms", "number": format!("+9198764{number:05}") }]);
        let relative = json!({ "name": CANARY, "language": "en", "methods": methods });
        let path = "/api/v1/messaging/preferences/told-0/emergency-contacts";
        let added = world.post(path, ADMIN, &relative).await.expect(201);
        names.push(format!("told-0/{}", added.text_at("/id")));
    }
    world.work().await;
    let week = json!({ "from": "monday 00:00", "until": "monday 00:00", "people": ["counsellor"] });
    let nights = json!({ "id": "nights", "time_zone": "UTC", "shifts": [week] });
    world.post("/api/v1/schedules", ADMIN, &nights).await.expect(201);
    for id in ["night", "day"] {
        let counsellor = json!({ "contact": "counsellor" });
        let policy = json!({ "id": id, "steps": [{ "targets": [counsellor], "channels": ["whatsapp"] }],
            "last_responder": counsellor, "last_responder_channels": ["whatsapp"] });
        world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    }
    (world, names)
}
