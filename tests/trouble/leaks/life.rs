//! A life with everything going wrong that can, and something personal said at every turn.

use std::time::Duration;

use crisis_relay::clock::SystemClock;
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::ports::Clock as _;
use crisis_relay::simulator::{Inbound, Quote, SimulatorHandle};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::canaries as say;
use super::canaries::{Exhibit, Surface};
use crate::middleman::{Middleman, Wire};
use crate::relay::{ADMIN, Answer, COUNSELLOR_KEY, Relay, Setting, until};

/// Everything that was heard, and the life that it is heard of.
pub(crate) struct Life<'a> {
    pub(crate) sim: &'a SimulatorHandle,
    pub(crate) wire: &'a Middleman,
    pub(crate) exhibits: Vec<Exhibit>,
    /// Bodies and keys as they were sent, of which there may be no digests.
    pub(crate) sent: Vec<String>,
}

/// A person's token, good for so long.
pub(crate) fn token(role: &str, seconds: i64) -> String {
    let now = SystemClock.now().as_second();
    let claims = json!({
        "iss": "crisis-relay", "aud": "crisis-relay", "sub": say::in_full(say::person()),
        "role": role, "iat": now, "exp": now + seconds, "name": say::claim(), (say::claim()): say::claim(),
    });
    let key = jsonwebtoken::EncodingKey::from_secret(say::in_full(say::jwt_secret()).as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &key).unwrap()
}

/// The most talkative service that there can be, with secrets of its own.
pub(crate) async fn setting(twilio: &str) -> Setting {
    Setting::new(twilio)
        .with_front()
        .await
        .with("RUST_LOG", "trace")
        .with("TWILIO_AUTH_TOKEN", &say::in_full(say::auth_token()))
        .with("JWT_SECRET", &say::in_full(say::jwt_secret()))
        .with("OPS_SLACK_URL", &say::in_full(say::ops_hook()))
        .with("OPS_WHATSAPP_TO", &say::in_full(say::ops_phone()))
        .with("OPS_HEARTBEAT_URL", &say::in_full(say::ops_heartbeat()))
        .with("CRISIS_RELAY__OPS__HEARTBEAT_EVERY", "10s")
        .with("OPS_PAGERDUTY_KEY", &say::in_full(say::ops_key()))
        .with("CRISIS_RELAY__OPS__PAGERDUTY_URL", "http://127.0.0.1:9/enqueue")
        .with("MASTER_KEY", &data_encoding::BASE64.encode(say::in_full(say::master_key()).as_bytes()))
        .with("COUNSELLOR_WHATSAPP_TO", &say::in_full(say::counsellor()))
        .with("TWILIO_SMS_FROM", "+14155550143")
        .with("COUNSELLOR_SMS_TO", &say::in_full(say::texts()))
        .with("COUNSELLOR_VOICE_TO", &say::in_full(say::calls()))
        .with("TWILIO_VOICE_FROM", "+14155238886")
        .with("CRISIS_RELAY__TWILIO__SMS_PER_SECOND", "100")
        .with("CRISIS_RELAY__TWILIO__CALLS_PER_SECOND", "100")
        .with("CRISIS_RELAY_CONFIG", &ladder())
        .with("API_KEY_SERVICE_SHA256", &ApiKeyHash::of(&say::in_full(say::service_key())).to_string())
        .with("API_KEY_AUDITOR_SHA256", &ApiKeyHash::of(&say::in_full(say::auditor_key())).to_string())
        .with("CARE_DESK_PHONE", "+911123456789")
        .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "1s")
        .with("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "500ms")
        .with("CRISIS_RELAY__DELIVERY__LOOK_UP_FIRST", "100ms")
        .with("CRISIS_RELAY__DELIVERY__LOOK_UP_THEN", "100ms")
        .with("CRISIS_RELAY__POLICY__RETRY_WHEN_ALL_FAILED", "1s")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "10s")
        .with("CRISIS_RELAY__POLICY__ROUNDS", "100")
        .with("CRISIS_RELAY__RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "10000")
}

/// Everybody is told over everything, one right after the other. The file lies where nobody looks for leaks.
fn ladder() -> String {
    let (texts, calls) = (say::in_full(say::further_texts()), say::in_full(say::further_calls()));
    let rung = |contact: &str, channel: &str| {
        format!("[[policy.steps]]\nafter = \"1s\"\ncontacts = [\"{contact}\"]\nchannels = [\"{channel}\"]\n")
    };
    let rungs = [
        ("counsellor", "whatsapp"),
        ("colleague", "voice"),
        ("counsellor", "voice"),
        ("colleague", "sms"),
        ("counsellor", "sms"),
    ];
    let person =
        format!("[[contacts]]\nid = \"colleague\"\nrole = \"lead\"\nsms_to = \"{texts}\"\nvoice_to = \"{calls}\"\n");
    let text = person + &rungs.map(|(contact, channel)| rung(contact, channel)).concat();
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ladder-of-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Where backends post.
pub(crate) const EVENTS: &str = "/api/v1/crisis/events";

pub(crate) fn event() -> Value {
    json!({
        "user_id": say::student(), "crisis_score": 0.93, "source": "chat", "model_version": say::model(),
        "message": say::in_full(say::message()),
        "metadata": { "session": say::metadata(), (say::metadata_field()): { (say::metadata_field()): [say::metadata()] } },
    })
}

pub(crate) fn stated() -> Value {
    json!({ "by": say::in_full(say::override_by()), "reason": say::in_full(say::override_reason()) })
}

/// The keyed hashes of all students, as they stand in the file.
fn subjects(setting: &Setting) -> Vec<Vec<u8>> {
    let connection = Connection::open(setting.database()).unwrap();
    let mut query = connection.prepare("SELECT subject FROM alerts UNION SELECT subject FROM consents").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

impl Life<'_> {
    /// Fails if anything leaked. At the end of all: it opens the file.
    #[track_caller]
    pub(crate) fn leaks_nothing(&self, setting: &Setting) {
        let subjects = subjects(setting);
        say::nothing_leaks(&self.exhibits, &say::Secrets { sent: &self.sent, subjects: &subjects });
    }

    /// The same, and fails unless everything is where it belongs.
    #[track_caller]
    pub(crate) fn leaks_nothing_and_keeps_all(&self, setting: &Setting) {
        let subjects = subjects(setting);
        say::look_through(&self.exhibits, &say::Secrets { sent: &self.sent, subjects: &subjects });
    }

    /// Keeps an answer to look through it later.
    pub(crate) fn hear(&mut self, surface: Surface, what: &str, answer: &Answer) {
        let said = format!("{} {:?}\n{}", answer.status, answer.headers, answer.text);
        self.exhibits.push(Exhibit::new(surface, format!("{what} ({})", answer.status), said.as_bytes()));
    }

    /// Asks under an idempotency key that nobody has used, so that no answer is one that was kept.
    pub(crate) async fn ask(
        &mut self,
        relay: &Relay,
        method: Method,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Answer {
        self.ask_on(Surface::Answers, relay, method, path, key, body).await
    }

    /// The same, of an answer that may show what that `surface` may.
    pub(crate) async fn ask_on(
        &mut self,
        surface: Surface,
        relay: &Relay,
        method: Method,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Answer {
        let fresh = format!("{}-{}", say::idempotency(), self.sent.len());
        let answer = self.send_under(&fresh, relay, method.clone(), path, key, body).await;
        self.hear(surface, &format!("{method} {path}"), &answer);
        answer
    }

    async fn ask_under(&mut self, idempotency: &str, relay: &Relay, key: &str, body: &Value) -> Answer {
        let answer = self.send_under(idempotency, relay, Method::POST, EVENTS, key, Some(body)).await;
        self.hear(Surface::Answers, "an event", &answer);
        answer
    }

    async fn send_under(
        &mut self,
        idempotency: &str,
        relay: &Relay,
        method: Method,
        path: &str,
        key: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = relay.request(method, path, key);
        // Now words, now a number, both of which must be replaced.
        let id = if self.exhibits.len().is_multiple_of(2) { say::request_id() } else { say::request_number() };
        request = request.header("x-request-id", say::in_full(id));
        for name in ["cookie", "user-agent", "referer", "traceparent", "x-forwarded-for", "from"] {
            request = request.header(name, say::header());
        }
        if let Some(body) = body {
            request = request.json(body).header("Idempotency-Key", idempotency);
            self.sent.extend([body.to_string(), idempotency.to_owned()]);
        }
        relay.send(request).await
    }

    /// A case that is withheld, released by a person, and refused by a Twilio that quotes everything. Gives its reference.
    pub(crate) async fn beginning(&mut self, relay: &Relay) -> String {
        let person = token("counsellor", 3600);
        let (key, body) = (say::in_full(say::service_key()), event());
        let withheld = self.ask_under(say::idempotency(), relay, &key, &body).await;
        let reference = withheld.expect(202).reference();
        let again = self.ask_under(say::idempotency(), relay, &key, &body).await;
        assert_eq!(again.expect(202).reference(), reference, "the key's answer again");
        let other = self.ask_under(say::idempotency(), relay, &key, &stated()).await;
        assert!((400..500).contains(&other.status), "another body under the same key: {other:?}");
        let alert = format!("/api/v1/crisis/alerts/{reference}");

        // Refused for good, refused for now, broken, and never whole: each quotes what it was sent.
        self.wire.set(Wire::Echoes(400));
        let stated = json!({ "emergency_override": stated() });
        let nobody = self.ask(relay, Method::POST, "/api/v1/crisis/escalate", &person, Some(&stated)).await;
        assert_eq!(nobody.status, 422, "an override for nobody: {nobody:?}");
        let path = format!("{alert}/escalate");
        let released = relay.send(relay.request(Method::POST, &path, &person).json(&stated)).await.expect(200);
        self.hear(Surface::Answers, &path, &released);
        for (wire, outcome) in [
            (Wire::Echoes(400), r#""outcome":"refused""#),
            (Wire::Echoes(500), r#""outcome":"unknown""#),
            (Wire::AllDrips, r#""outcome":"unknown""#),
            (Wire::Echoes(429), r#""outcome":"not executed""#),
        ] {
            let before = relay.logged(outcome);
            self.wire.set(wire);
            until(&format!("a call came to {outcome}"), async || relay.logged(outcome) > before).await;
        }
        let raised = json!({
            "user_id": say::student(), "message": say::raised(), "emergency_override": stated["emergency_override"],
        });
        let request = relay.request(Method::POST, "/api/v1/crisis/escalate", &person).json(&raised);
        self.hear(Surface::Answers, "raised", &relay.send(request).await.expect(202));
        reference
    }

    /// Consent, in the clear where it has to be.
    pub(crate) async fn consent(&mut self, relay: &Relay) {
        let path = format!("/api/v1/messaging/preferences/{}", say::student());
        let said = json!({ "whatsapp": true, "source": say::consent_source(), "notice_version": say::notice() });
        let put = relay.request(Method::PUT, &path, &say::in_full(say::service_key())).json(&said);
        self.hear(Surface::Records, "consent", &relay.send(put).await.expect(200));
        self.hear(Surface::Records, "consent", &relay.get(&path, &say::in_full(say::service_key())).await.expect(200));
    }

    /// Somebody is set up, sent a code, and looked at.
    pub(crate) async fn people(&mut self, relay: &Relay) {
        const CONTACTS: &str = "/api/v1/contacts";
        let methods = json!([{ "channel": "sms", "number": say::in_full(say::contact_number()) }]);
        let person = json!({
            "name": say::in_full(say::contact_name()), "role": "lead", "language": "en", "time_zone": "Asia/Kolkata",
            "active": true, "methods": methods,
        });
        let added = relay.send(relay.request(Method::POST, CONTACTS, ADMIN).json(&person)).await.expect(201);
        self.hear(Surface::Revealed, "a contact", &added);
        let path = format!("{CONTACTS}/{}", added.json()["id"].as_str().unwrap());
        let twice = relay.send(relay.request(Method::POST, CONTACTS, ADMIN).json(&person)).await.expect(422);
        self.hear(Surface::Answers, "the same number again", &twice);
        self.wire.set(Wire::Echoes(400));
        let verification = format!("{path}/methods/sms/verification");
        let refused = relay.send(relay.request(Method::POST, &verification, ADMIN)).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        self.hear(Surface::Answers, "a code that was refused", &refused);
        self.wire.set(Wire::Echoes(429));
        let wrong = relay.request(Method::POST, &format!("{verification}/confirm"), ADMIN);
        self.hear(Surface::Answers, "no code", &relay.send(wrong.json(&json!({ "code": "012345" }))).await.expect(409));
        let revealed = relay.send(relay.request(Method::POST, &format!("{path}/reveal"), ADMIN)).await.expect(200);
        self.hear(Surface::Revealed, "a contact revealed", &revealed);
        let auditor = say::in_full(say::auditor_key());
        self.hear(Surface::Answers, "contacts", &relay.get(CONTACTS, &auditor).await.expect(200));
    }

    /// An emergency contact is set up, proven, and told by a person's decision.
    pub(crate) async fn relatives(&mut self, relay: &Relay, reference: &str) {
        let (key, number) = (say::in_full(say::service_key()), say::in_full(say::relative_number()));
        let collection = format!("/api/v1/messaging/preferences/{}/emergency-contacts", say::student());
        let relative = json!({
            "name": say::in_full(say::relative_name()), "language": "en",
            "methods": [{ "channel": "sms", "number": number }], "consent": { "granted": true, "source": "app" },
        });
        let added = relay.send(relay.request(Method::POST, &collection, &key).json(&relative)).await.expect(201);
        self.hear(Surface::Revealed, "a relative", &added);
        let path = format!("{collection}/{}", added.json()["id"].as_str().unwrap());
        let verification = format!("{path}/methods/sms/verification");
        let sent = relay.send(relay.request(Method::POST, &verification, &key)).await.expect(202);
        self.hear(Surface::Answers, "a code to a relative", &sent);
        let newest = || self.sim.messages_to(&number).last().map(|message| message.body.clone()).unwrap_or_default();
        let code = newest().split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6).unwrap().to_owned();
        let confirm = relay.request(Method::POST, &format!("{verification}/confirm"), &key);
        relay.send(confirm.json(&json!({ "code": code }))).await.expect(200);
        let inform = format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact");
        let decision = json!({ "by": say::in_full(say::informed_by()), "reason": say::in_full(say::informed_why()) });
        let request = relay.request(Method::POST, &inform, &token("counsellor", 3600)).json(&decision);
        let told = relay.send(request).await.expect(200);
        self.hear(Surface::Answers, "a relative is told", &told);
        until("the relative is asked to call", async || newest().contains("please call")).await;
        let auditor = say::in_full(say::auditor_key());
        self.hear(Surface::Answers, "relatives", &relay.get(&collection, &auditor).await.expect(200));
    }

    /// Every kind of mistake that a caller can make.
    pub(crate) async fn mistakes(&mut self, relay: &Relay, reference: &str) {
        let key = say::in_full(say::service_key());
        let events = EVENTS;
        let resolve = format!("/api/v1/crisis/alerts/{reference}/resolve");
        let preferences = format!("/api/v1/messaging/preferences/{}", say::broken());
        let (person, expired) = (token("counsellor", 3600), token("admin", -3600));
        let broken = say::broken();
        let mut wrong = vec![
            json!({ "user_id": broken, "crisis_score": broken, "source": broken }),
            json!({ "user_id": [broken], "crisis_score": { broken: broken }, "source": "chat", "message": { broken: 1 } }),
            json!({ "user_id": format!(" {broken}"), "crisis_score": 0.9, "source": "chat", "message": format!("{broken}\u{0}") }),
            json!({ "user_id": broken.repeat(20), "crisis_score": 0.9, "source": "chat", "message": broken.repeat(900) }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "metadata": { broken: broken.repeat(900) } }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "model_version": format!("{broken} {broken}") }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "occurred_at": broken }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "emergency_override": { "by": "", "reason": broken.repeat(200), (say::field()): broken } }),
            json!(broken),
            json!([broken]),
        ];
        // An unknown field, a field that differs in its case only, and one that is there twice below.
        let mut further = event();
        further[say::field()] = json!(broken);
        wrong.push(further);
        for body in &wrong {
            let answer = self.ask(relay, Method::POST, events, &key, Some(body)).await;
            assert_eq!(answer.status, 422, "{body}: {answer:?}");
        }
        for (method, path, with, status) in [
            (Method::GET, format!("/api/v1/crisis/alerts/{}", say::path()), ADMIN, 422),
            (Method::GET, format!("/{0}/{0}?{1}={1}", say::path(), say::query()), ADMIN, 404),
            (
                Method::GET,
                format!("/api/v1/crisis/alerts?cursor={0}&state={0}&{1}={0}", say::query(), say::field()),
                ADMIN,
                422,
            ),
            (Method::GET, format!("/readyz?{1}={0}&exclude={0}", say::query(), say::field()), "", 422),
            (Method::GET, format!("{preferences}%00%FF"), key.as_str(), 400),
            (Method::DELETE, format!("/api/v1/crisis/events/{}", say::path()), ADMIN, 404),
            (Method::GET, format!("{events}?{}", say::query()), say::wrong_key(), 405),
            (Method::GET, "/api/v1/crisis/alerts".to_owned(), say::wrong_key(), 401),
            (Method::GET, "/api/v1/crisis/alerts".to_owned(), expired.as_str(), 401),
        ] {
            let answer = self.ask(relay, method, &path, with, None).await;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        }
        for (path, with, body, status) in [
            (events, person.as_str(), event(), 403),
            (events, say::wrong_key(), event(), 401),
            (resolve.as_str(), COUNSELLOR_KEY, json!({ "outcome": say::note(), "note": say::note().repeat(500) }), 422),
            (resolve.as_str(), key.as_str(), json!({ "outcome": "safe_in_person", "note": say::note() }), 403),
        ] {
            let answer = self.ask(relay, Method::POST, path, with, Some(&body)).await;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
        }
        self.raw_mistakes(relay).await;
    }

    /// Bodies that are no JSON, and webhooks that are not Twilio's.
    async fn raw_mistakes(&mut self, relay: &Relay) {
        let broken = say::broken();
        let twice = format!(r#"{{"user_id":"{broken}","user_id":"{broken}","crisis_score":0.9,"source":"chat"}}"#);
        for body in [
            format!(r#"{{"user_id": "{broken}", "crisis_score": {broken}}}"#),
            format!(r#"{{"user_id": "{broken}"#),
            format!("{broken}={broken}"),
            twice,
            format!("\u{feff}[\"{broken}\"]"),
        ] {
            for (kind, status) in [("application/json", 400), ("text/plain", 415), (broken, 415)] {
                let request = relay.request(Method::POST, EVENTS, &say::in_full(say::service_key()));
                let answer = relay.send(request.header("content-type", kind).body(body.clone())).await;
                assert_eq!(answer.status, status, "{kind}, {body}: {answer:?}");
                self.hear(Surface::Answers, "a body that is none", &answer);
            }
        }
        // Refused before it is read, so that the answer may be lost with the connection.
        let long = relay.request(Method::POST, EVENTS, &say::in_full(say::service_key()));
        let long = long.header("content-type", "application/json").body(broken.repeat(10_000));
        if let Ok(answer) = relay.try_send(long).await {
            self.hear(Surface::Answers, "a body that is too long", &answer.expect(413));
        }
        let form = format!("Body={0}&From=whatsapp%3A%2B91{1}&{0}={0}", say::forged(), say::stranger());
        for hook in ["incoming", "status", "voice/answer", "voice/key", "voice/code", "voice/status"] {
            let path = &format!("/webhooks/twilio/{hook}");
            for (kind, status) in
                [("application/x-www-form-urlencoded", 403), ("application/json", 403), (say::forged(), 403)]
            {
                let request = relay.request(Method::POST, &format!("{path}?{}={}", say::query(), say::query()), "");
                let request = request.header("content-type", kind).header("X-Twilio-Signature", say::forged());
                let answer = relay.send(request.body(form.clone())).await;
                assert_eq!(answer.status, status, "{path} {kind}: {answer:?}");
                self.hear(Surface::Answers, path, &answer);
            }
        }
    }

    /// An event that meets a locked database.
    pub(crate) async fn locked_out(&mut self, relay: &Relay) {
        let other = Connection::open(relay.setting.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let request = relay.request(Method::POST, EVENTS, &say::in_full(say::service_key())).json(&event());
        let answer = relay.send(request).await;
        answer.come_back();
        self.hear(Surface::Answers, "an event that could not be taken", &answer);
        self.operations(relay).await;
        drop(other);
    }

    /// What is there for whoever runs the service, and asks for no key.
    pub(crate) async fn operations(&mut self, relay: &Relay) {
        let page = relay.get("/metrics", "").await.expect(200);
        assert!(page.text.contains("crisis_relay_"), "{page:?}");
        self.hear(Surface::Operations, "metrics", &page);
        for path in ["/livez", "/readyz", "/readyz?exclude=twilio", "/openapi.json", "/docs", "/docs/"] {
            self.hear(Surface::Operations, path, &relay.get(path, "").await);
        }
    }

    /// What people write back, strangers among them who quote what was not sent to them, and who opts out.
    pub(crate) async fn replies(&mut self, relay: &Relay) {
        let (counsellor, stranger) = (say::in_full(say::counsellor()), say::in_full(say::stranger()));
        let words = say::in_full(say::reply());
        let ours = self.sim.messages_to(&counsellor)[0].sid.clone();
        for (from, text, quote) in [
            (&counsellor, words.as_str(), Quote::Nothing),
            (&stranger, words.as_str(), Quote::Nothing),
            (&stranger, words.as_str(), Quote::Sid(ours.clone())),
            (&stranger, "1", Quote::Sid(ours.clone())),
            (&stranger, "STOP", Quote::Sid(ours.clone())),
            (&counsellor, "STOP", Quote::Sid(ours)),
            (&counsellor, "1", Quote::Nothing),
        ] {
            let mut inbound = Inbound::new(from, text).quoting(quote);
            inbound.profile_name = say::profile().to_owned();
            let reply = self.sim.receive(&inbound).await.unwrap();
            assert_eq!(reply.http_status, 200, "{text}: {reply:?}");
            assert!(*from == counsellor || reply.answers.is_empty(), "a stranger is told nothing: {reply:?}");
            let said = reply.answers.join("\n");
            self.exhibits.push(Exhibit::new(Surface::Answers, "a phone's answer", said.as_bytes()));
        }
        until("the log tells that they opted out", async || relay.logged("contact_opted_out") == 1).await;
    }

    /// From a new start to the outcome.
    pub(crate) async fn end(&mut self, relay: &Relay, reference: &str) {
        let person = token("admin", 3600);
        let alert = format!("/api/v1/crisis/alerts/{reference}");
        for (path, with) in [(alert.clone(), person.as_str()), ("/api/v1/crisis/alerts".into(), ADMIN)] {
            self.hear(Surface::Records, &path, &relay.get(&path, with).await.expect(200));
        }
        let revealed = relay.post(&format!("{alert}/reveal"), &person, &json!({})).await.expect(200);
        self.hear(Surface::Revealed, "reveal", &revealed);
        let taken = relay.post(&format!("{alert}/acknowledge"), &person, &json!({})).await;
        self.hear(Surface::Answers, "acknowledge", &taken);
        let outcome = json!({ "outcome": "safe_in_person", "note": say::note() });
        let resolved = relay.post(&format!("{alert}/resolve"), &person, &outcome).await.expect(200);
        self.hear(Surface::Answers, "resolve", &resolved);
        let again = relay.post(&format!("{alert}/resolve"), &person, &outcome).await.expect(409);
        self.hear(Surface::Answers, "resolve again", &again);
        let audit = relay.get(&format!("{alert}/audit?limit=200"), &say::in_full(say::auditor_key())).await.expect(200);
        self.hear(Surface::Audit, "audit", &audit);
        self.operations(relay).await;
    }

    /// A body that is on its way when the end is asked for.
    pub(crate) async fn hang_up_at_the_end(&mut self, relay: &Relay) -> tokio::net::TcpStream {
        let address = relay.base.socket_addrs(|| None).unwrap()[0];
        let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/crisis/events?{} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 500\r\n\r\n{{\"user_id\":\"{}\",",
            say::query(),
            say::header(),
            say::in_full(say::service_key()),
            say::student()
        );
        half.write_all(head.as_bytes()).await.unwrap();
        half
    }
}

/// Long enough for a line to be written, should one be about to be.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(200);
