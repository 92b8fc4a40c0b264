//! What seldom happens: a score that is no crisis, consent that is taken back, a list of several pages, callers who ask too
//! often, keys that do not open.

use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::canaries::{self as say, Surface};
use super::life::{self, Life};
use super::{calls, files, log_of, talkative_twilio};
use crate::middleman::Middleman;
use crate::relay::{ADMIN, Answer, Relay, Setting, until};

/// More requests than any limit of these tests lets through.
const TOO_MANY: usize = 50;

/// A wrapped key that no master key opens.
const UNOPENABLE: &str = "v1.00000000.AAAA";

/// Another student's id, by which they are known as well as by the first one's.
fn student(which: &str) -> String {
    format!("{}-{which}", say::student())
}

fn event_of(student: &str, score: f64) -> Value {
    let mut event = life::event();
    event["user_id"] = json!(student);
    event["crisis_score"] = json!(score);
    event
}

impl Life<'_> {
    async fn says(&mut self, relay: &Relay, student: &str, granted: bool) {
        let path = format!("/api/v1/messaging/preferences/{student}");
        let said = json!({ "whatsapp": granted, "source": say::consent_source(), "notice_version": say::notice() });
        let key = say::in_full(say::service_key());
        self.ask_on(Surface::Records, relay, Method::PUT, &path, &key, Some(&said)).await.expect(200);
    }

    async fn posts(&mut self, relay: &Relay, student: &str, score: f64, decision: &str) -> Answer {
        let (key, event) = (say::in_full(say::service_key()), event_of(student, score));
        let answer = self.ask(relay, Method::POST, life::EVENTS, &key, Some(&event)).await.expect(202);
        assert_eq!(answer.json()["decision"], decision, "{answer:?}");
        answer
    }

    /// An event of which nothing is stored.
    pub(crate) async fn below_the_threshold(&mut self, relay: &Relay) {
        self.posts(relay, &student("calm"), 0.05, "below_threshold").await;
    }

    /// Consent that is taken back, with and without a case that rests on it; and a case of somebody who had said no.
    pub(crate) async fn withdrawals(&mut self, relay: &Relay) {
        let (quiet, told) = (student("quiet"), student("told"));
        self.says(relay, &quiet, true).await;
        self.says(relay, &quiet, false).await;
        self.posts(relay, &quiet, 0.93, "withheld_no_consent").await;
        self.says(relay, &told, true).await;
        let reference = self.posts(relay, &told, 0.93, "escalated").await.reference();
        self.says(relay, &told, false).await;
        let path = format!("/api/v1/crisis/alerts/{reference}");
        let case = self.ask(relay, Method::GET, &path, ADMIN, None).await.expect(200);
        assert_eq!(case.json()["state"], "withheld", "{case:?}");
        // Lines are written in gatherings, a moment later.
        until("the log tells of what was withheld", async || relay.logged("consent_withdrawn") == 1).await;
    }

    /// Every page of the list, one case on each.
    pub(crate) async fn pages(&mut self, relay: &Relay) {
        let (mut path, mut pages) = ("/api/v1/crisis/alerts?limit=1".to_owned(), 0);
        loop {
            let page = self.ask(relay, Method::GET, &path, ADMIN, None).await.expect(200).json();
            pages += 1;
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/crisis/alerts?limit=1&cursor={cursor}");
        }
        assert!(pages >= 3, "a list of {pages} pages");
    }

    /// Asks until it is turned away.
    async fn insists(&mut self, relay: &Relay, method: Method, path: &str, key: &str, body: Option<&Value>) {
        for _ in 0..TOO_MANY {
            let answer = self.ask(relay, method.clone(), path, key, body).await;
            if answer.status == 429 {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                return;
            }
        }
        panic!("nobody was turned away from {path}");
    }

    /// All that a service has said and kept, which has ended.
    fn gather(&mut self, relay: &Relay, setting: &Setting, when: &str) {
        self.exhibits.extend(log_of(relay, when));
        self.exhibits.extend(files(setting, when));
        self.exhibits.extend(calls(self.wire));
    }
}

/// Puts another key in the place of those that are wrapped for these people, and gives those that were there.
fn swap(setting: &Setting, whose: &str, wrapped: &str) -> Vec<(Vec<u8>, String)> {
    let connection = Connection::open(setting.database()).unwrap();
    let mut query = connection.prepare(&format!("SELECT person, wrapped FROM data_keys WHERE {whose}")).unwrap();
    let before: Vec<(Vec<u8>, String)> =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    assert!(!before.is_empty(), "{whose}");
    put(setting, &before.iter().map(|(person, _)| (person.clone(), wrapped.to_owned())).collect::<Vec<_>>());
    before
}

/// Wraps these keys so.
fn put(setting: &Setting, keys: &[(Vec<u8>, String)]) {
    let connection = Connection::open(setting.database()).unwrap();
    for (person, wrapped) in keys {
        let sql = "UPDATE data_keys SET wrapped = ?1 WHERE person = ?2";
        assert_eq!(connection.execute(sql, (wrapped, person)).unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_said_or_owns_gets_out_where_callers_are_turned_away() {
    let simulator = talkative_twilio().await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let setting = life::setting(&wire.url())
        .await
        .with("CRISIS_RELAY__RATE_LIMITS__SERVICE_PER_SECOND", "1")
        .with("CRISIS_RELAY__RATE_LIMITS__PERSON_PER_SECOND", "1")
        .with("CRISIS_RELAY__RATE_LIMITS__FAILED_AUTH_PER_MINUTE", "1");
    let mut life = Life { sim: &sim, wire: &wire, exhibits: Vec::new(), sent: Vec::new() };
    let mut relay = setting.clone().start(&sim).await;
    let (key, event) = (say::in_full(say::service_key()), life::event());
    let preferences = format!("/api/v1/messaging/preferences/{}", say::student());
    let person = life::token("counsellor", 3600);
    let raised = json!({ "user_id": say::student(), "message": say::raised(), "emergency_override": life::stated() });
    life.insists(&relay, Method::POST, life::EVENTS, &key, Some(&event)).await;
    life.insists(&relay, Method::GET, &preferences, &key, None).await;
    life.insists(&relay, Method::POST, "/api/v1/crisis/escalate", &person, Some(&raised)).await;
    life.insists(&relay, Method::POST, life::EVENTS, say::wrong_key(), Some(&event)).await;
    relay.stop();
    life.gather(&relay, &setting, "where callers were turned away");
    life.leaks_nothing(&setting);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_said_or_owns_gets_out_where_keys_do_not_open() {
    let simulator = talkative_twilio().await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let setting = life::setting(&wire.url()).await;
    let mut life = Life { sim: &sim, wire: &wire, exhibits: Vec::new(), sent: Vec::new() };
    let mut relay = setting.clone().start(&sim).await;
    let reference = life.posts(&relay, say::student(), 0.93, "withheld_no_consent").await.reference();
    let alert = format!("/api/v1/crisis/alerts/{reference}");
    let admin = life::token("admin", 3600);

    // The student's: their words are lost, and what was sealed is not read.
    let of_students = "person IN (SELECT subject FROM alerts)";
    swap(&setting, of_students, UNOPENABLE);
    life.posts(&relay, say::student(), 0.94, "withheld_no_consent").await;
    let reveal = format!("{alert}/reveal");
    life.ask(&relay, Method::POST, &reveal, &admin, Some(&json!({}))).await.expect(409);

    // Those of whom is told: nobody can be reached, which nobody may tell by the number.
    let of_contacts = "person NOT IN (SELECT subject FROM alerts)";
    let keys = swap(&setting, of_contacts, UNOPENABLE);
    let stated = json!({ "emergency_override": life::stated() });
    let escalate = format!("{alert}/escalate");
    life.ask(&relay, Method::POST, &escalate, &admin, Some(&stated)).await.expect(200);
    until("the number was not read", async || relay.logged("a recipient's number cannot be read") > 0).await;
    put(&setting, &keys);
    let phone = say::in_full(say::counsellor());
    until("the phone has been told", async || !sim.messages_to(&phone).is_empty()).await;

    let taken = life.ask(&relay, Method::POST, &format!("{alert}/acknowledge"), &admin, Some(&json!({}))).await;
    taken.expect(200);
    let outcome = json!({ "outcome": "safe_in_person", "note": say::note() });
    life.ask(&relay, Method::POST, &format!("{alert}/resolve"), &admin, Some(&outcome)).await.expect(409);
    until("the log tells of both", async || relay.logged("sealed_data_unreadable") == 2).await;
    relay.stop();
    life.gather(&relay, &setting, "where keys did not open");
    life.leaks_nothing(&setting);
}
