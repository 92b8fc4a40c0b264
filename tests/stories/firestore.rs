//! A case on Firestore, from the event to the outcome: the same story as on SQLite, and what each step asks of Firestore.
//! `docs/firestore.md` shows these figures.

use std::sync::Arc;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::ports::{Operations, Store};
use crisis_relay::store::firestore::{FirestoreSettings, FirestoreStore};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::stage::{event, s};
use crate::common::{COUNSELLOR, COUNSELLOR_KEY, Setting};
use crate::emulator::{emulator, project, settings};
use crate::proxy::{Proxy, Way};

/// Calls, commits, documents read, written, deleted.
type Asked = [u64; 5];

fn asked(store: &dyn Store, before: &mut Operations) -> Asked {
    let now = store.operations();
    let Operations { calls, commits, reads, writes, deletes } = std::mem::replace(before, now);
    [now.calls - calls, now.commits - commits, now.reads - reads, now.writes - writes, now.deletes - deletes]
}

fn less(asked: Asked, idle: Asked) -> Asked {
    std::array::from_fn(|at| asked[at] - idle[at])
}

/// A database of its own in the emulator; `None` where there is no emulator.
pub(crate) async fn on_emulator() -> Option<Arc<dyn Store>> {
    let host = emulator()?;
    let settings = settings(host, &project());
    Some(Arc::new(FirestoreStore::open(&settings, Arc::new(SystemEntropy)).await.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_on_firestore_asks_no_more_than_the_documents_say() {
    let Some(store) = on_emulator().await else { return };
    let on_firestore = Arc::clone(&store);
    let mut world = Setting::default().with_store(move |_| Arc::clone(&on_firestore)).start().await;
    // The first round reads figures and walks over all that waits; what an idle one reads is not the case's.
    world.work().await;
    let mut before = store.operations();
    world.work().await;
    let idle = asked(store.as_ref(), &mut before);

    let event = json!({ "user_id": "ada", "crisis_score": 0.93, "source": "chat", "message": "words",
        "emergency_override": { "by": "Duty doctor", "reason": "life at risk" } });
    let reference = world.event_with_key(&event, "first-of-ada").await.expect(202).text_at("/reference");
    let taken_in = asked(store.as_ref(), &mut before);
    world.work().await;
    let sent = less(asked(store.as_ref(), &mut before), idle);
    world.expect_told(&reference);
    let statuses = world.sim().step_all().await;
    assert_eq!(statuses, [204]);
    let receipt = asked(store.as_ref(), &mut before);
    world.sim().reply(COUNSELLOR, &format!("1 {reference}")).await.unwrap();
    let reply = asked(store.as_ref(), &mut before);
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    let outcome = asked(store.as_ref(), &mut before);

    // Calls, commits, documents read, written, deleted.
    assert_eq!(taken_in, [2, 1, 4, 10, 0], "from the event to the 202: one read, one commit");
    assert_eq!(sent, [2, 1, 1, 3, 0], "booking the message; and a further round's look for what is due");
    assert_eq!(receipt, [2, 1, 1, 2, 0], "a receipt");
    assert_eq!(reply, [4, 1, 3, 4, 0], "a reply that takes the case");
    assert_eq!(outcome, [4, 1, 10, 2, 1], "the outcome, with the case shown in the answer");
    world.holds_its_promises().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_key_that_firestore_took_and_could_not_say_so_is_found_and_told_once() {
    let Some(host) = emulator() else { return };
    let (project, proxy) = (project(), Proxy::before(host).await);
    let direct = FirestoreStore::open(&settings(host, &project), Arc::new(SystemEntropy)).await.unwrap();
    let (read_timeout, commit_timeout) = (s(3), s(4));
    let hasty = FirestoreSettings { read_timeout, commit_timeout, ..settings(&proxy.host(), &project) };
    let store: Arc<dyn Store> = Arc::new(FirestoreStore::open(&hasty, Arc::new(SystemEntropy)).await.unwrap());
    let gate = Gate::shared();
    let gated = gate.before(store);
    let mut world = Setting::default().with_store(move |_| Arc::clone(&gated)).start().await;
    world.consents("ada").await;

    // The decision is made; from the commit on, no answer comes back any more.
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let cutting = async {
        world.until("it wants to commit", async |_| gate.count("commit_alert") == 1).await;
        proxy.set(Way::AnswersLost);
        permits.add_permits(1);
    };
    let ada = event("ada", 0.93);
    let (given_up, ()) = tokio::join!(world.event(&ada), cutting);
    assert_eq!(given_up.status, 503, "{given_up:?}");
    assert_eq!(gate.count("audit_entries"), 1, "it was not looked for");
    let cases = async || direct.list_alerts(&"default".parse().unwrap(), None, None, 10).await.unwrap();
    world.until("the commit has arrived", async |_| cases().await.len() == 1).await;

    proxy.set(Way::Open);
    proxy.cut();
    world.until("the store answers again", async |world| world.readiness().await.1["store"] == "ok").await;
    let repeated = world.event(&ada).await.expect(202);

    assert_eq!(repeated.text_at("/decision"), "merged");
    let reference = repeated.text_at("/reference");
    let stored = cases().await;
    assert_eq!((stored.len(), stored[0].reference.as_str(), stored[0].events), (1, reference.as_str(), 2));
    world.pass_in_steps(s(45), s(5)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}
