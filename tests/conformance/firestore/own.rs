//! What is Firestore's own: how many calls a thing takes, what is held without being changed, what is refused first, and
//! what becomes of a commit whose answer is lost.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::domain::audit::{AuditStream, verify_chain};
use crisis_relay::domain::sealed::Sealed;
use crisis_relay::ports::transfer::{Kind, Transfer as _};
use crisis_relay::ports::{AlertCommit, Committed, Operations, Store, StoreError};
use crisis_relay::store::firestore::{FirestoreSettings, FirestoreStore, OpenError};
use serde_json::json;

use super::FirestorePlace;
use super::proxy::{Proxy, Way};
use crate::builders::{College, answer, at, data_key, idempotency_key, subject};
use crate::suite::{at_once, laden};

fn since(store: &FirestoreStore, before: Operations) -> Operations {
    let now = store.operations();
    Operations {
        calls: now.calls - before.calls,
        commits: now.commits - before.commits,
        reads: now.reads - before.reads,
        writes: now.writes - before.writes,
        deletes: now.deletes - before.deletes,
    }
}

/// What a new event of a student costs, from the question what is known of them to the commit.
async fn intake(store: &FirestoreStore, college: &College, number: u32, consent_version: u64) -> Operations {
    let before = store.operations();
    let key = Some(idempotency_key(number));
    let known = store.intake_context(&college.organisation, subject(number), key).await.unwrap();
    assert_eq!(known.consent.map_or(0, |record| record.version), consent_version);
    let opening = laden(college, college.open(number, at(0)), number);
    let opening = AlertCommit { provider_ids: Vec::new(), consent_version: Some(consent_version), ..opening };
    assert_eq!(store.commit_alert(opening).await.unwrap(), Committed::Committed);
    since(store, before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_takes_one_read_call_and_one_commit() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let store = place.store().await;
    let college = College::new("north");

    let stranger = intake(&store, &college, 1, 0).await;
    assert_eq!((stranger.calls, stranger.commits), (2, 1), "{stranger:?}");
    assert_eq!(stranger.reads, 4, "answer, guard, consent, data key: {stranger:?}");

    assert!(store.commit_consent(college.consent(subject(2), None, at(0))).await.unwrap());
    let known = intake(&store, &college, 2, 1).await;
    assert_eq!((known.calls, known.commits, known.reads), (2, 1, 4), "with a word of theirs: {known:?}");
    assert_eq!(known.writes, stranger.writes + 1, "their word is held, which counts as a write: {known:?}");

    // A further change of what this process has read or written needs no read at all.
    let opened = store.alert(college.open(2, at(0)).alert.id).await.unwrap().unwrap();
    let before = store.operations();
    assert_eq!(store.commit_alert(college.acknowledge(&opened, at(1))).await.unwrap(), Committed::Committed);
    let change = since(&store, before);
    assert_eq!((change.calls, change.commits, change.reads), (1, 1, 0), "{change:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_student_said_is_held_without_being_changed() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let store = place.store().await;
    let college = College::new("north");
    let resting = |on, number| AlertCommit { consent_version: Some(on), ..college.open(number, at(1)) };

    assert_eq!(store.commit_alert(resting(0, 1)).await.unwrap(), Committed::Committed);
    assert_eq!(place.all_of("messaging_consent").await.len(), 0, "to hold that there is nothing left something behind");

    assert!(store.commit_consent(college.consent(subject(2), None, at(0))).await.unwrap());
    let before = place.all_of("messaging_consent").await;
    assert_eq!(store.commit_alert(resting(1, 2)).await.unwrap(), Committed::Committed);
    let after = place.all_of("messaging_consent").await;
    assert_eq!(after, before, "its fields or its update time have changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_taken_back_at_another_instance_counts_here() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let (here, elsewhere) = (place.store().await, place.store().await);
    let college = College::new("north");
    let first = college.consent(subject(1), None, at(0));
    assert!(elsewhere.commit_consent(first.clone()).await.unwrap());
    // What is remembered here is the first word; only the condition of the commit can tell that it is no longer the last.
    let known = here.intake_context(&college.organisation, subject(1), None).await.unwrap();
    assert_eq!(known.consent.as_ref(), Some(&first.record));
    assert!(elsewhere.commit_consent(college.consent(subject(1), Some(&first.record), at(1))).await.unwrap());
    assert!(elsewhere.commit_consent(college.consent(subject(2), None, at(1))).await.unwrap());

    for (number, read) in [(1, 1), (2, 0)] {
        let resting = AlertCommit { consent_version: Some(read), ..college.open(number, at(2)) };
        assert_eq!(here.commit_alert(resting.clone()).await.unwrap(), Committed::ConsentChanged, "student {number}");
        assert_eq!(here.alert(resting.alert.id).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_refusals_the_first_in_the_ports_order_is_told() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let store = place.store().await;
    let college = College::new("north");
    let first = laden(&college, college.open(1, at(0)), 1);
    assert_eq!(store.commit_alert(first.clone()).await.unwrap(), Committed::Committed);

    // Everything stands against it; one after the other is taken away.
    let mut next = AlertCommit { consent_version: Some(7), ..first.clone() };
    let mut told = Vec::new();
    for step in 0..6 {
        match step {
            1 => next.idempotency = Some(answer(2, at(1))),
            2 => next.data_key = Some(data_key(&college.organisation, subject(2).into(), 2)),
            3 => next.consent_version = Some(0),
            4 => {
                let other = college.open_for(2, subject(1), at(1));
                next = AlertCommit { alert: other.alert, audit: other.audit, event: None, ..next };
                next.alert.reference = first.alert.reference;
            }
            5 => {
                let other = college.open(3, at(1));
                next = AlertCommit { alert: other.alert, audit: other.audit, ..next };
                next.alert.reference = first.alert.reference;
            }
            _ => {}
        }
        told.push(store.commit_alert(next.clone()).await.unwrap());
    }
    assert_eq!(
        told,
        [
            Committed::IdempotencyKeyUsed,
            Committed::DataKeyExists,
            Committed::ConsentChanged,
            Committed::VersionConflict,
            Committed::SubjectHasOpenAlert,
            Committed::ReferenceTaken,
        ]
    );
    next.alert.reference = college.open(3, at(1)).alert.reference;
    assert_eq!(store.commit_alert(next).await.unwrap(), Committed::Committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_workers_on_one_alert_lose_nothing_and_make_up_nothing() {
    const WORKERS: u32 = 16;
    const CHANGES: u32 = 6;
    let Some(place) = FirestorePlace::fresh() else { return };
    let (here, elsewhere) = (place.store().await, place.store().await);
    let opened = College::new("north").open(0, at(0));
    assert_eq!(here.commit_alert(opened.clone()).await.unwrap(), Committed::Committed);
    let id = opened.alert.id;

    let results = at_once((0..WORKERS).map(|worker| {
        // Half of them are another instance's.
        let store = Arc::clone(if worker % 2 == 0 { &here } else { &elsewhere });
        async move {
            let college = College::new("north");
            let mut collisions = 0;
            for change in 1..=CHANGES {
                loop {
                    let alert = store.alert(id).await.unwrap().unwrap();
                    let joined = college.join(&alert, worker * 1000 + change, 0.9, at(1));
                    let came_to = store.commit_alert(joined).await.unwrap();
                    if came_to == Committed::Committed {
                        break;
                    }
                    assert_eq!(came_to, Committed::VersionConflict);
                    collisions += 1;
                }
            }
            collisions
        }
    }))
    .await;

    let collisions: u32 = results.iter().map(|(_, collisions)| collisions).sum();
    let stored = here.alert(id).await.unwrap().unwrap();
    assert_eq!(stored.version, opened.alert.version + u64::from(WORKERS * CHANGES), "after {collisions} collisions");
    let entries = here.audit_entries(&AuditStream::Alert(id), 0, 10_000).await.unwrap();
    assert_eq!(verify_chain(&entries, Some(stored.audit_head)), Ok(stored.audit_head));
}

/// A store behind a proxy, and one that sees the database directly.
async fn behind_a_proxy(place: &FirestorePlace, commit_timeout: Duration) -> (Proxy, Arc<FirestoreStore>) {
    let proxy = Proxy::before(place.host).await;
    let settings =
        FirestoreSettings { commit_timeout, read_timeout: commit_timeout, ..place.settings_by(&proxy.host()) };
    let store = Arc::new(FirestoreStore::open(&settings, Arc::new(SystemEntropy)).await.unwrap());
    (proxy, store)
}

/// Waits until the database has the alert, past every proxy.
async fn arrived(direct: &FirestoreStore, commit: &AlertCommit) {
    for _ in 0..2_000 {
        match direct.alert(commit.alert.id).await.unwrap() {
            Some(stored) if stored.version == commit.alert.version => return,
            Some(_) | None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the commit did not arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_and_made_once() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let direct = place.store().await;
    let (proxy, store) = behind_a_proxy(&place, Duration::from_secs(30)).await;
    let college = College::new("north");
    let opening = laden(&college, college.open(1, at(0)), 1);
    let change = college.acknowledge(&opening.alert, at(5));

    for commit in [opening.clone(), change.clone()] {
        proxy.set(Way::AnswersLost);
        let making = tokio::spawn({
            let (store, commit) = (Arc::clone(&store), commit.clone());
            async move { store.commit_alert(commit).await }
        });
        arrived(&direct, &commit).await;
        assert!(!making.is_finished(), "it was answered, though the answer was lost");
        proxy.set(Way::Open);
        proxy.cut();

        assert_eq!(making.await.unwrap().unwrap(), Committed::Committed);
    }

    assert_eq!(direct.alert(opening.alert.id).await.unwrap(), Some(change.alert.clone()));
    let entries = direct.audit_entries(&AuditStream::Alert(opening.alert.id), 0, 100).await.unwrap();
    assert_eq!(verify_chain(&entries, Some(change.alert.audit_head)), Ok(change.alert.audit_head));
    // And what was remembered of it is true: the next change goes through without trouble.
    assert_eq!(store.commit_alert(college.resolve(&change.alert, at(9))).await.unwrap(), Committed::Committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_lost_on_its_way_is_sent_again() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let direct = place.store().await;
    let (proxy, store) = behind_a_proxy(&place, Duration::from_secs(30)).await;
    let college = College::new("north");
    let opening = college.open(1, at(0));

    proxy.set(Way::Silent);
    let before = store.operations().commits;
    let making = tokio::spawn({
        let (store, opening) = (Arc::clone(&store), opening.clone());
        async move { store.commit_alert(opening).await }
    });
    while store.operations().commits == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(direct.alert(opening.alert.id).await.unwrap(), None);
    proxy.set(Way::Open);
    proxy.cut();

    assert_eq!(making.await.unwrap().unwrap(), Committed::Committed);
    assert_eq!(direct.alert(opening.alert.id).await.unwrap(), Some(opening.alert));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_stuck_is_made_anew() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let (proxy, store) = behind_a_proxy(&place, Duration::from_secs(8)).await;
    let college = College::new("north");

    proxy.set(Way::FirstStuck);
    let opening = college.open(1, at(0));

    assert_eq!(store.commit_alert(opening.clone()).await.unwrap(), Committed::Committed);
    assert_eq!(store.alert(opening.alert.id).await.unwrap(), Some(opening.alert));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_can_tell_of_is_unknown_and_an_outage_is_not() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let direct = place.store().await;
    let (proxy, store) = behind_a_proxy(&place, Duration::from_secs(2)).await;
    let college = College::new("north");
    let opening = college.open(1, at(0));

    // It arrives, and nothing comes back any more.
    proxy.set(Way::AnswersLost);
    let error = store.commit_alert(opening.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    arrived(&direct, &opening).await;

    // Nothing to connect to: then it surely was not made.
    proxy.end();
    let error = store.alert(opening.alert.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let other = college.open(2, at(0));
    let error = store.commit_alert(other.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(direct.alert(other.alert.id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_a_database_ends_with_a_reason() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connect_timeout = Duration::from_millis(500);
    let settings = FirestoreSettings { connect_timeout, ..place.settings_by(&nobody.to_string()) };

    let opened = FirestoreStore::open(&settings, Arc::new(SystemEntropy)).await;

    let Err(OpenError::Connect { within, why }) = opened else { panic!("it connected to nobody") };
    assert_eq!(within, connect_timeout);
    assert!(!why.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_a_document_is_refused_and_changes_nothing() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let store = place.store().await;
    let college = College::new("north");
    let mut opening = laden(&college, college.open(1, at(0)), 1);
    if let Some(event) = &mut opening.event {
        event.message = Some(Sealed("x".repeat(1024 * 1024)));
    }

    let error = store.commit_alert(opening.clone()).await.unwrap_err();

    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(store.alert(opening.alert.id).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_entry_under_another_name_than_its_number_makes_is_no_entry() {
    let Some(place) = FirestorePlace::fresh() else { return };
    let store = place.store().await;
    let opening = College::new("north").open(1, at(0));
    assert_eq!(store.commit_alert(opening.clone()).await.unwrap(), Committed::Committed);
    let found = place.all_of("crisis_logs").await;
    let last = found.last().unwrap();
    let name = last["name"].as_str().unwrap();
    let (chain, _) = name.rsplit_once('-').unwrap();
    // In the same order, and with the same text: the chain itself would hold.
    for other in [format!("{name}0"), format!("{chain}-x")] {
        place.rename(last, &other).await;

        let walked = store.audit_walk(None, 100).await.err();
        let chain = store.audit_entries(&AuditStream::Alert(opening.alert.id), 0, 100).await.err();
        let copied = store.export(Kind::Audit, None, 100).await.err();

        for (what, error) in [("the proof", walked), ("the chain", chain), ("a copy", copied)] {
            assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{what} of {other}: {error:?}");
        }
        let moved = json!({"name": other, "fields": last["fields"]});
        place.rename(&moved, name).await;
    }
    assert!(store.audit_walk(None, 100).await.is_ok(), "under its own name it is one");
}
