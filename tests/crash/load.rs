//! Those who use the service while it is killed: backends that post until they are answered, a counsellor who takes
//! cases by reply and over the API. None of them knows of the kills.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::ids::AlertId;
use crisis_relay::simulator::{Inbound, Quote, SimulatorHandle};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use url::Url;

use crate::ledger::{Deed, Ledger, Promise};
use crate::plan::{Allowed, Course, Student};

/// The counsellor's phone.
pub(crate) const PHONE: &str = "+919800000017";
/// Keys of the API.
pub(crate) const BACKEND_KEY: &str = "crash-backend-key-0001";
pub(crate) const COUNSELLOR_KEY: &str = "crash-counsellor-key-1";

/// Before a request that was not answered is made again.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// How long one try waits for an answer.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// How often the counsellor looks at the phone.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Said in the place of the number of kills: there will be no more.
pub(crate) const NO_MORE: u64 = u64::MAX;

/// The messages on the phone: the first one of each case.
pub(crate) type Phone = BTreeMap<AlertId, String>;

/// What the users share.
pub(crate) struct Load {
    pub(crate) url: Url,
    pub(crate) client: reqwest::Client,
    pub(crate) twilio: SimulatorHandle,
    pub(crate) ledger: Arc<Ledger>,
    /// Lets students in.
    pub(crate) gate: Semaphore,
    /// How many requests backends make at once.
    pub(crate) lines: Semaphore,
    /// How often the service was killed; at the end [`NO_MORE`].
    pub(crate) kills: watch::Receiver<u64>,
    pub(crate) phone: watch::Sender<Phone>,
}

impl Load {
    /// One student's story, to its end.
    pub(crate) async fn attend(self: Arc<Self>, student: Student) {
        self.gate.acquire().await.unwrap().forget();
        if student.allowed == Allowed::ByConsent {
            let body = json!({ "whatsapp": true, "source": "crash" });
            let path = format!("/api/v1/messaging/preferences/{}", user_id(&student));
            let _line = self.lines.acquire().await.unwrap();
            self.insist(&[200], || self.request(Method::PUT, &path, BACKEND_KEY).json(&body)).await;
        }
        let kills = *self.kills.borrow();
        let promise = self.post_event(&student).await;
        if let Some(promise) = promise {
            self.deal_with(&student, &promise).await;
        }
        if student.again {
            let killed_since = |now: &u64| *now > kills || *now == NO_MORE;
            self.kills.clone().wait_for(killed_since).await.unwrap();
            self.post_event(&student).await;
        }
    }

    /// Posts an event until it is answered, always the same.
    async fn post_event(&self, student: &Student) -> Option<Promise> {
        let mut body = json!({
            "user_id": user_id(student),
            "crisis_score": if student.below_threshold { 0.3 } else { 0.93 },
            "source": "chat",
            "message": "what was written",
        });
        if student.allowed == Allowed::ByOverride {
            body["emergency_override"] = json!({ "by": "Dr. A. Rao", "reason": "life is at risk" });
        }
        let key = student.keyed.then(|| format!("event-{}", student.number));
        let _line = self.lines.acquire().await.unwrap();
        let (answer, replayed) = self
            .insist(&[202], || {
                let request = self.request(Method::POST, "/api/v1/crisis/events", BACKEND_KEY).json(&body);
                match &key {
                    Some(key) => request.header("Idempotency-Key", key),
                    None => request,
                }
            })
            .await;
        self.ledger.answered(student, &answer, replayed);
        self.ledger.promise(student)
    }

    async fn deal_with(&self, student: &Student, promise: &Promise) {
        // From "at once" to "long after the message".
        tokio::time::sleep(Duration::from_millis(37 * (student.number % 11))).await;
        let path = |deed: &str| format!("/api/v1/crisis/alerts/{}/{deed}", promise.alert);
        // 409: a try that was not answered did it.
        match student.course {
            Course::LeftAlone => {}
            Course::TakenByReply => {
                self.reply(student, promise).await;
                self.ledger.dealt_with(promise.alert, Deed::Taken);
            }
            Course::TakenByApi => {
                let path = path("acknowledge");
                self.insist(&[200, 409], || self.request(Method::POST, &path, COUNSELLOR_KEY)).await;
                self.ledger.dealt_with(promise.alert, Deed::Taken);
            }
            Course::Resolved => {
                let (path, body) = (path("resolve"), json!({ "outcome": "safe_by_phone" }));
                self.insist(&[200, 409], || self.request(Method::POST, &path, COUNSELLOR_KEY).json(&body)).await;
                self.ledger.dealt_with(promise.alert, Deed::Closed);
            }
        }
    }

    /// Replies to a case's message until the reply is confirmed: first as one taps, and where it is asked which case is
    /// meant, with its reference. A reply that was not answered is posted again as it was.
    async fn reply(&self, student: &Student, promise: &Promise) {
        let mut phone = self.phone.subscribe();
        let message = phone.wait_for(|phone| phone.contains_key(&promise.alert)).await.unwrap()[&promise.alert].clone();
        let tap = Inbound::new(PHONE, "1").quoting(Quote::Sid(message)).with_sid(&reply_sid(student, 1));
        let typed = format!("1 {}", promise.reference);
        let typed = Inbound::new(PHONE, &typed).quoting(Quote::Nothing).with_sid(&reply_sid(student, 2));
        for inbound in [&tap, &typed] {
            let answers = loop {
                match self.twilio.receive(inbound).await.unwrap() {
                    answered if answered.http_status == 200 => break answered.answers,
                    _ => tokio::time::sleep(AGAIN_AFTER).await,
                }
            };
            // Where several are open, they are named, too, and none is taken.
            let is_about_it = |answer: &String| answer.contains(&promise.reference) && !answer.contains("open for you");
            if answers.iter().any(is_about_it) {
                return;
            }
        }
        panic!("a reply with the reference {} did not take the case", promise.reference);
    }

    fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.client.request(method, self.url.join(path).unwrap()).bearer_auth(key).timeout(TRY_WITHIN)
    }

    /// Makes a request again and again until it is answered with one of `statuses`. What is refused for good (4xx) is a
    /// fault of the test or of the service. Gives the answer, and whether it was given before.
    async fn insist(&self, statuses: &[u16], request: impl Fn() -> RequestBuilder) -> (Value, bool) {
        loop {
            if let Ok(response) = request().send().await {
                let status = response.status().as_u16();
                let replayed = response.headers().contains_key("idempotent-replayed");
                if statuses.contains(&status) {
                    // An answer that breaks off is none.
                    if let Ok(answer) = response.json().await {
                        return (answer, replayed);
                    }
                } else if (400..500).contains(&status) && status != 429 {
                    panic!("refused with {status}: {}", response.text().await.unwrap_or_default());
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Keeps the phone up to date.
    pub(crate) async fn watch_phone(self: Arc<Self>) {
        let mut changes = self.twilio.changes();
        while changes.changed().await.is_ok() {
            let messages = self.twilio.messages_to(PHONE);
            self.phone.send_modify(|phone| {
                for message in messages {
                    if let Some(attempt) = crate::verdict::attempt_of(message.status_callback.as_deref()) {
                        phone.entry(attempt.alert).or_insert(message.sid);
                    }
                }
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn user_id(student: &Student) -> String {
    format!("student-{}", student.number)
}

fn reply_sid(student: &Student, no: u8) -> String {
    format!("SM{:024x}{no:08x}", student.number)
}
