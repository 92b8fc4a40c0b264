//! A life with everything going wrong that can, and something personal said at every turn.

use std::process::{Command, Stdio};
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
}

pub(crate) fn service_key() -> String {
    format!("{}-and-more", say::SERVICE_KEY)
}

pub(crate) fn auditor_key() -> String {
    format!("{}-and-more", say::AUDITOR_KEY)
}

pub(crate) fn counsellor() -> String {
    format!("+91{}", say::COUNSELLOR)
}

pub(crate) fn auth_token() -> String {
    format!("{}0123456789abcdef", say::AUTH_TOKEN)
}

fn jwt_secret() -> String {
    format!("{}, in all more than 32 bytes", say::JWT_SECRET)
}

/// A person's token, good for so long.
fn token(role: &str, seconds: i64) -> String {
    let now = SystemClock.now().as_second();
    let claims = json!({
        "iss": "crisis-relay", "aud": "crisis-relay", "sub": format!("{}@college.example", say::PERSON),
        "role": role, "iat": now, "exp": now + seconds, "name": say::CLAIM, say::CLAIM: say::CLAIM,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(jwt_secret().as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, &key).unwrap()
}

/// The most talkative service that there can be, with secrets of its own.
pub(crate) fn setting(twilio: &str) -> Setting {
    let master = format!("{:-<32}", say::MASTER_KEY);
    Setting::new(twilio)
        .with("RUST_LOG", "trace")
        .with("TWILIO_AUTH_TOKEN", &auth_token())
        .with("JWT_SECRET", &jwt_secret())
        .with("MASTER_KEY", &data_encoding::BASE64.encode(master.as_bytes()))
        .with("COUNSELLOR_WHATSAPP_TO", &counsellor())
        .with("API_KEY_SERVICE_SHA256", &ApiKeyHash::of(&service_key()).to_string())
        .with("API_KEY_AUDITOR_SHA256", &ApiKeyHash::of(&auditor_key()).to_string())
        .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "1s")
        .with("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "500ms")
        .with("CRISIS_RELAY__DELIVERY__LOOK_UP_FIRST", "100ms")
        .with("CRISIS_RELAY__DELIVERY__LOOK_UP_THEN", "100ms")
        .with("CRISIS_RELAY__POLICY__RETRY_WHEN_ALL_FAILED", "1s")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "10s")
        .with("CRISIS_RELAY__POLICY__ROUNDS", "100")
        .with("CRISIS_RELAY__RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "10000")
}

fn event() -> Value {
    json!({
        "user_id": say::STUDENT, "crisis_score": 0.93, "source": "chat", "model_version": say::MODEL,
        "message": format!("\u{1f622} \"{}\"\n", say::MESSAGE),
        "metadata": { "session": say::METADATA, say::METADATA_FIELD: { say::METADATA_FIELD: [say::METADATA] } },
    })
}

fn stated() -> Value {
    json!({ "by": format!("Dr. {}", say::OVERRIDE_BY), "reason": format!("{} <&>", say::OVERRIDE_REASON) })
}

impl Life<'_> {
    /// Keeps an answer to look through it later.
    pub(crate) fn hear(&mut self, surface: Surface, what: &str, answer: &Answer) {
        let said = format!("{} {:?}\n{}", answer.status, answer.headers, answer.text);
        self.exhibits.push(Exhibit::new(surface, format!("{what} ({})", answer.status), said.as_bytes()));
    }

    async fn ask(&mut self, relay: &Relay, method: Method, path: &str, key: &str, body: Option<&Value>) -> Answer {
        let mut request = relay.request(method.clone(), path, key);
        for name in ["x-request-id", "cookie", "user-agent", "referer", "traceparent", "x-forwarded-for", "from"] {
            let mark = if name == "x-request-id" { say::REQUEST_ID } else { say::HEADER };
            request = request.header(name, mark);
        }
        if let Some(body) = body {
            request = request.json(body).header("Idempotency-Key", say::IDEMPOTENCY);
        }
        let answer = relay.send(request).await;
        self.hear(Surface::Answers, &format!("{method} {path}"), &answer);
        answer
    }

    /// A case that is withheld, released by a person, and refused by a Twilio that quotes everything. Gives its reference.
    pub(crate) async fn beginning(&mut self, relay: &Relay) -> String {
        let person = token("counsellor", 3600);
        let withheld = self.ask(relay, Method::POST, "/api/v1/crisis/events", &service_key(), Some(&event())).await;
        let reference = withheld.expect(202).reference();
        let again = self.ask(relay, Method::POST, "/api/v1/crisis/events", &service_key(), Some(&event())).await;
        assert_eq!(again.expect(202).reference(), reference, "the key's answer again");
        let alert = format!("/api/v1/crisis/alerts/{reference}");

        // Refused for good, refused for now, broken, and never whole: each quotes what it was sent.
        self.wire.set(Wire::Echoes(400));
        let stated = json!({ "emergency_override": stated() });
        // Another body under the same key.
        self.ask(relay, Method::POST, "/api/v1/crisis/escalate", &person, Some(&stated)).await;
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
            "user_id": say::STUDENT, "message": say::RAISED, "emergency_override": stated["emergency_override"],
        });
        let request = relay.request(Method::POST, "/api/v1/crisis/escalate", &person).json(&raised);
        self.hear(Surface::Answers, "raised", &relay.send(request).await.expect(202));
        reference
    }

    /// Consent, in the clear where it has to be.
    pub(crate) async fn consent(&mut self, relay: &Relay) {
        let path = format!("/api/v1/messaging/preferences/{}", say::STUDENT);
        let said = json!({ "whatsapp": true, "source": say::CONSENT_SOURCE, "notice_version": say::NOTICE });
        let put = relay.request(Method::PUT, &path, &service_key()).json(&said);
        self.hear(Surface::Records, "consent", &relay.send(put).await.expect(200));
        self.hear(Surface::Records, "consent", &relay.get(&path, &service_key()).await.expect(200));
    }

    /// Every kind of mistake that a caller can make.
    pub(crate) async fn mistakes(&mut self, relay: &Relay, reference: &str) {
        let key = service_key();
        let events = "/api/v1/crisis/events";
        let resolve = format!("/api/v1/crisis/alerts/{reference}/resolve");
        let preferences = format!("/api/v1/messaging/preferences/{}", say::BROKEN);
        let (person, expired) = (token("counsellor", 3600), token("admin", -3600));
        let broken = say::BROKEN;
        let mut wrong = vec![
            json!({ "user_id": broken, "crisis_score": broken, "source": broken }),
            json!({ "user_id": [broken], "crisis_score": { broken: broken }, "source": "chat", "message": { broken: 1 } }),
            json!({ "user_id": format!(" {broken}"), "crisis_score": 0.9, "source": "chat", "message": format!("{broken}\u{0}") }),
            json!({ "user_id": broken.repeat(20), "crisis_score": 0.9, "source": "chat", "message": broken.repeat(900) }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "metadata": { broken: broken.repeat(900) } }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "model_version": format!("{broken} {broken}") }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "occurred_at": broken }),
            json!({ "user_id": broken, "crisis_score": 0.9, "source": "chat", "emergency_override": { "by": "", "reason": broken.repeat(200), say::FIELD: broken } }),
            json!(broken),
            json!([broken]),
        ];
        // An unknown field, a field that differs in its case only, and one that is there twice below.
        let mut further = event();
        further[say::FIELD] = json!(broken);
        wrong.push(further);
        for body in &wrong {
            let answer = self.ask(relay, Method::POST, events, &key, Some(body)).await;
            assert!((400..500).contains(&answer.status), "{body}: {answer:?}");
        }
        for (method, path, with, status) in [
            (Method::GET, format!("/api/v1/crisis/alerts/{}", say::PATH), ADMIN, 422),
            (Method::GET, format!("/{0}/{0}?{1}={1}", say::PATH, say::QUERY), ADMIN, 404),
            (
                Method::GET,
                format!("/api/v1/crisis/alerts?cursor={0}&state={0}&{1}={0}", say::QUERY, say::FIELD),
                ADMIN,
                422,
            ),
            (Method::GET, format!("/readyz?{1}={0}&exclude={0}", say::QUERY, say::FIELD), "", 422),
            (Method::GET, format!("{preferences}%00%FF"), key.as_str(), 400),
            (Method::DELETE, format!("/api/v1/crisis/events/{}", say::PATH), ADMIN, 404),
            (Method::GET, format!("{events}?{}", say::QUERY), say::WRONG_KEY, 405),
            (Method::GET, "/api/v1/crisis/alerts".to_owned(), say::WRONG_KEY, 401),
            (Method::GET, "/api/v1/crisis/alerts".to_owned(), expired.as_str(), 401),
        ] {
            let answer = self.ask(relay, method, &path, with, None).await;
            assert!((400..500).contains(&answer.status), "{path}, meant to be {status}: {answer:?}");
        }
        for (path, with, body) in [
            (events, person.as_str(), event()),
            (events, say::WRONG_KEY, event()),
            (resolve.as_str(), COUNSELLOR_KEY, json!({ "outcome": say::NOTE, "note": say::NOTE.repeat(500) })),
            (resolve.as_str(), key.as_str(), json!({ "outcome": "safe_in_person", "note": say::NOTE })),
        ] {
            let answer = self.ask(relay, Method::POST, path, with, Some(&body)).await;
            assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        }
        self.raw_mistakes(relay).await;
    }

    /// Bodies that are no JSON, and webhooks that are not Twilio's.
    async fn raw_mistakes(&mut self, relay: &Relay) {
        let broken = say::BROKEN;
        let twice = format!(r#"{{"user_id":"{broken}","user_id":"{broken}","crisis_score":0.9,"source":"chat"}}"#);
        for body in [
            format!(r#"{{"user_id": "{broken}", "crisis_score": {broken}}}"#),
            format!(r#"{{"user_id": "{broken}"#),
            format!("{broken}={broken}"),
            twice,
            format!("\u{feff}[\"{broken}\"]"),
        ] {
            for kind in ["application/json", "text/plain", broken] {
                let request = relay.request(Method::POST, "/api/v1/crisis/events", &service_key());
                let answer = relay.send(request.header("content-type", kind).body(body.clone())).await;
                assert!((400..500).contains(&answer.status), "{kind}: {answer:?}");
                self.hear(Surface::Answers, "a body that is none", &answer);
            }
        }
        // Refused before it is read, so that the answer may be lost with the connection.
        let long = relay.request(Method::POST, "/api/v1/crisis/events", &service_key());
        let long = long.header("content-type", "application/json").body(broken.repeat(10_000));
        if let Ok(answer) = relay.try_send(long).await {
            self.hear(Surface::Answers, "a body that is too long", &answer.expect(413));
        }
        let form = format!("Body={0}&From=whatsapp%3A%2B91{1}&{0}={0}", say::FORGED, say::STRANGER);
        for path in ["/webhooks/twilio/incoming", "/webhooks/twilio/status"] {
            for kind in ["application/x-www-form-urlencoded", "application/json", say::FORGED] {
                let request = relay.request(Method::POST, &format!("{path}?{}={}", say::QUERY, say::QUERY), "");
                let request = request.header("content-type", kind).header("X-Twilio-Signature", say::FORGED);
                let answer = relay.send(request.body(form.clone())).await;
                assert!((400..500).contains(&answer.status), "{path} {kind}: {answer:?}");
                self.hear(Surface::Answers, path, &answer);
            }
        }
    }

    /// An event that meets a locked database.
    pub(crate) async fn locked_out(&mut self, relay: &Relay) {
        let other = Connection::open(relay.setting.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let request = relay.request(Method::POST, "/api/v1/crisis/events", &service_key()).json(&event());
        let answer = relay.send(request).await;
        answer.come_back();
        self.hear(Surface::Answers, "an event that could not be taken", &answer);
        drop(other);
    }

    /// What people write back.
    pub(crate) async fn replies(&mut self) {
        let stranger = format!("+91{}", say::STRANGER);
        let words = format!("{} STOP?", say::REPLY);
        for (from, text) in [(counsellor(), words.as_str()), (stranger, words.as_str()), (counsellor(), "1")] {
            let mut inbound = Inbound::new(&from, text).quoting(Quote::Nothing);
            inbound.profile_name = say::PROFILE.to_owned();
            let reply = self.sim.receive(&inbound).await.unwrap();
            let said = reply.answers.join("\n");
            self.exhibits.push(Exhibit::new(Surface::Answers, "a phone's answer", said.as_bytes()));
        }
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
        let outcome = json!({ "outcome": "safe_in_person", "note": say::NOTE });
        let resolved = relay.post(&format!("{alert}/resolve"), &person, &outcome).await.expect(200);
        self.hear(Surface::Answers, "resolve", &resolved);
        let audit = relay.get(&format!("{alert}/audit?limit=200"), &auditor_key()).await.expect(200);
        self.hear(Surface::Records, "audit", &audit);
        for path in ["/metrics", "/readyz", "/openapi.json"] {
            self.hear(Surface::Operations, path, &relay.get(path, "").await);
        }
        let report = relay.setting.command(&["audit", "report", reference]).output().unwrap();
        assert!(report.status.success(), "{report:?}");
        self.exhibits.push(Exhibit::new(Surface::Report, "audit report", &report.stdout));
    }

    /// A body that is on its way when the end is asked for.
    pub(crate) async fn hang_up_at_the_end(&mut self, relay: &Relay) -> tokio::net::TcpStream {
        let address = relay.base.socket_addrs(|| None).unwrap()[0];
        let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/crisis/events?{} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 500\r\n\r\n{{\"user_id\":\"{}\",",
            say::QUERY,
            say::HEADER,
            service_key(),
            say::STUDENT
        );
        half.write_all(head.as_bytes()).await.unwrap();
        half
    }

    /// Settings that cannot be read, and what is said of those that can.
    pub(crate) fn settings(&mut self, setting: &Setting) {
        let mut tell = |what: &str, command: &mut Command| {
            let output = command.stdin(Stdio::null()).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(!said.is_empty(), "{what} says nothing");
            self.exhibits.push(Exhibit::new(Surface::Commands, what, &said));
            output.status
        };
        tell("check", &mut setting.command(&["check"]));
        for name in [
            "TWILIO_AUTH_TOKEN",
            "TWILIO_ACCOUNT_SID",
            "MASTER_KEY",
            "FORMER_MASTER_KEYS",
            "JWT_SECRET",
            "COUNSELLOR_WHATSAPP_TO",
            "TWILIO_WHATSAPP_FROM",
            "API_KEY_SERVICE_SHA256",
        ] {
            // Too long, with a space and a line break: fit for none of them.
            let wrong = setting.clone().with(name, &format!(" \n{} ", say::WRONG_SETTING));
            for word in ["check", "serve"] {
                // A setting that has no rule to break is a start like any other, and is not waited for.
                if name != "TWILIO_AUTH_TOKEN" {
                    tell(&format!("{word} with a wrong {name}"), &mut wrong.command(&[word]));
                }
            }
        }
    }
}

/// Long enough for a line to be written, should one be about to be.
pub(crate) const AFTERMATH: Duration = Duration::from_millis(200);
