//! Backends that post until they are answered, each time at the next instance, and always under the same key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::relay::{Answer, PATIENCE, Relay, SERVICE};

/// Requests that backends make at once.
const LINES: usize = 24;
/// Before a request that was not answered is made at another instance.
const AGAIN_AFTER: Duration = Duration::from_millis(40);

/// What backends were told.
#[derive(Default)]
pub(crate) struct Book {
    references: Mutex<BTreeMap<usize, String>>,
    repeated: AtomicUsize,
    replayed: AtomicUsize,
}

impl Book {
    /// How many events were answered.
    pub(crate) fn answered(&self) -> usize {
        self.references.lock().len()
    }

    /// How many events had to be posted again, and how many of these had been taken the first time.
    pub(crate) fn repetitions(&self) -> (usize, usize) {
        (self.repeated.load(Ordering::Relaxed), self.replayed.load(Ordering::Relaxed))
    }

    /// The case of each student.
    pub(crate) fn references(&self) -> Vec<String> {
        self.references.lock().values().cloned().collect()
    }
}

pub(crate) fn student(number: usize) -> String {
    format!("student-{number}")
}

/// Events of `count` students, spread over all instances; each goes to the next one if it is not answered.
pub(crate) async fn burst(instances: &[Relay], count: usize, book: &Book) {
    let events = (0..count).map(|number| one(instances, number, book));
    futures::stream::iter(events).buffer_unordered(LINES).collect::<()>().await;
}

async fn one(instances: &[Relay], number: usize, book: &Book) {
    let user = student(number);
    let path = format!("/api/v1/messaging/preferences/{user}");
    let consent = json!({ "whatsapp": true, "source": "instances" });
    insist(instances, number, 200, |relay| relay.request(Method::PUT, &path, SERVICE).json(&consent)).await;
    let event = json!({ "user_id": user, "crisis_score": 0.93, "source": "chat" });
    let (answer, tries) = insist(instances, number, 202, |relay| {
        let request = relay.request(Method::POST, "/api/v1/crisis/events", SERVICE).json(&event);
        request.header("Idempotency-Key", format!("key-{user}"))
    })
    .await;
    book.repeated.fetch_add(usize::from(tries > 1), Ordering::Relaxed);
    book.replayed.fetch_add(usize::from(answer.headers.contains_key("idempotent-replayed")), Ordering::Relaxed);
    assert_eq!(answer.json()["decision"], Value::from("escalated"), "{answer:?}");
    book.references.lock().insert(number, answer.reference());
}

/// Asks one instance after the other. What is refused for good is a fault of the test or of the service.
async fn insist(
    instances: &[Relay],
    first: usize,
    status: u16,
    request: impl Fn(&Relay) -> RequestBuilder,
) -> (Answer, usize) {
    let insisting = async {
        for tries in 0.. {
            let relay = &instances[(first + tries) % instances.len()];
            match relay.try_send(request(relay)).await {
                Ok(answer) if answer.status == status => return (answer, tries + 1),
                Ok(answer) => assert!(answer.status >= 500, "refused: {answer:?}"),
                // Nobody is there any more, or has died over it.
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        unreachable!("it asks without end")
    };
    tokio::time::timeout(PATIENCE, insisting).await.unwrap_or_else(|_| panic!("no instance answers request {first}"))
}
