//! A case on Firestore, from the event to the outcome: the same story as on SQLite, and what each step asks of Firestore.
//! `docs/firestore.md` shows these figures.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::ports::{Operations, Store};
use crisis_relay::store::firestore::{FirestoreSettings, FirestoreStore};
use serde_json::json;

use crate::common::{COUNSELLOR, COUNSELLOR_KEY, Setting};
use crate::emulator::{emulator, project};

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
    let patience = Duration::from_secs(30);
    let settings = FirestoreSettings {
        project_id: project(),
        database_id: "(default)".to_owned(),
        emulator_host: Some(host.to_owned()),
        connect_timeout: patience,
        read_timeout: patience,
        commit_timeout: patience,
        answers_kept: Duration::from_secs(48 * 3600),
    };
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
    assert_eq!(reply, [4, 1, 3, 3, 0], "a reply that takes the case");
    assert_eq!(outcome, [4, 1, 10, 2, 1], "the outcome, with the case shown in the answer");
    world.holds_its_promises().await;
}
