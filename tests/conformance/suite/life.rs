//! A store's life: what outlives it, and what it says when it is over.

use std::sync::Arc;

use crisis_relay::domain::audit::AuditStream;
use crisis_relay::ports::{Committed, Store, StoreError};
use futures::FutureExt;

use super::{Place, at_once, commit, laden};
use crate::builders::{
    College, address, answer, at, data_key, idempotency_key, person, provider_id, reference, subject,
};

/// Commits a little of everything.
async fn fill(store: &Arc<dyn Store>, college: &College) {
    let opened = commit(store, laden(college, college.open(1, at(0)), 1)).await;
    commit(store, college.accept_first_message(&opened, provider_id(100), at(1))).await;
    commit(store, college.withhold(2, at(2))).await;
    assert!(store.commit_consent(college.consent(subject(1), None, at(0))).await.unwrap());
    assert!(store.keep_answer(answer(50, at(3))).await.unwrap());
    assert!(store.insert_data_key(data_key(&college.organisation, person(50), 1)).await.unwrap());
}

pub(crate) async fn what_was_committed_survives_a_drop_without_close<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let mut stored = None;
    // Dropped with hands full, again and again: whatever was answered is there afterwards.
    for round in 0..5_u32 {
        let store = place.open().await;
        if let Some(before) = stored {
            assert_eq!(place.dump().await, before);
        } else {
            fill(&store, &college).await;
        }
        let results = at_once((0..20).map(|number| {
            let (store, opening) = (Arc::clone(&store), college.open(1000 + round * 100 + number, at(0)));
            async move { (opening.alert.id, store.commit_alert(opening).await.unwrap()) }
        }))
        .await;
        for (_, (id, result)) in &results {
            assert_eq!(*result, Committed::Committed);
            assert!(store.alert(*id).await.unwrap().is_some());
        }
        stored = Some(place.dump().await);
        drop(store);
    }
    let store = place.open().await;
    assert_eq!(store.list_alerts(&college.organisation, None, None, 1000).await.unwrap().len(), 102);
}

pub(crate) async fn nobody_writes_any_more_after_a_drop<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let store = place.open().await;
    for number in 0..300 {
        let _ = store.commit_alert(college.open(number, at(0))).now_or_never();
    }
    drop(store);
    let after_the_drop = place.dump().await;

    let _again = place.open().await;
    assert_eq!(place.dump().await, after_the_drop);
}

pub(crate) async fn what_was_committed_survives_a_close<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let store = place.open().await;
    fill(&store, &college).await;
    let before = place.dump().await;

    store.close().await;
    // The old handle is still there: it must not be in the way.
    let again = place.open().await;

    assert_eq!(place.dump().await, before);
    commit(&again, college.open(9, at(9))).await;
    assert_eq!(again.answer(idempotency_key(50)).await.unwrap(), Some(answer(50, at(3))));
}

pub(crate) async fn a_closed_store_answers_unavailable<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let store = place.open().await;
    let opened = commit(&store, college.open(1, at(0))).await;
    store.close().await;
    store.close().await;

    let (org, stream) = (&college.organisation, AuditStream::Alert(opened.id));
    let entry = college.acknowledge(&opened, at(1)).audit[0].clone();
    let answers = [
        ("intake_context", store.intake_context(org, subject(1), None).await.err()),
        ("commit_alert", store.commit_alert(college.open(2, at(0))).await.err()),
        ("keep_answer", store.keep_answer(answer(1, at(0))).await.err()),
        ("answer", store.answer(idempotency_key(1)).await.err()),
        ("forget_answers", store.forget_answers(at(0), 1).await.err()),
        ("alert", store.alert(opened.id).await.err()),
        ("alert_by_reference", store.alert_by_reference(org, reference(1)).await.err()),
        ("alert_of_message", store.alert_of_message(&provider_id(1)).await.err()),
        ("cases_of", store.cases_of(org, address(1), 1).await.err()),
        ("due_alerts", store.due_alerts(at(0), 1).await.err()),
        ("unfinished_alerts", store.unfinished_alerts(None, 1).await.err()),
        ("list_alerts", store.list_alerts(org, None, None, 1).await.err()),
        ("event_details", store.event_details(opened.id).await.err()),
        ("consent", store.consent(org, subject(1)).await.err()),
        ("commit_consent", store.commit_consent(college.consent(subject(1), None, at(0))).await.err()),
        ("data_key", store.data_key(org, person(1)).await.err()),
        ("insert_data_key", store.insert_data_key(data_key(org, person(1), 1)).await.err()),
        ("append_audit", store.append_audit(entry).await.err()),
        ("audit_head", store.audit_head(&stream).await.err()),
        ("audit_entries", store.audit_entries(&stream, 0, 1).await.err()),
        ("audit_walk", store.audit_walk(None, 1).await.err()),
        ("stats", store.stats().await.err()),
        ("probe", store.probe(at(0)).await.err()),
    ];
    for (method, error) in answers {
        assert!(matches!(error, Some(StoreError::Unavailable { .. })), "{method}: {error:?}");
    }
}

pub(crate) async fn work_around_a_close_is_done_or_refused_but_never_in_doubt<P: Place>() {
    for round in 0..5_u32 {
        let place = P::new().await;
        let college = College::new("north");
        let store = place.open().await;
        let results = at_once((0..60).map(|number| {
            let (store, opening) = (Arc::clone(&store), college.open(round * 100 + number, at(0)));
            async move {
                if number == 20 {
                    store.close().await;
                }
                (opening.alert.id, store.commit_alert(opening).await)
            }
        }))
        .await;
        let store = place.open().await;

        for (number, (id, result)) in results {
            let stored = store.alert(id).await.unwrap().is_some();
            match result {
                Ok(Committed::Committed) => assert!(stored, "{number} was promised"),
                Err(StoreError::Unavailable { .. }) => assert!(!stored, "{number} was refused"),
                other => panic!("{number} is in doubt: {other:?}"),
            }
        }
    }
}

pub(crate) async fn a_caller_that_goes_away_harms_nobody<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let store = place.open().await;
    // Asked once and given up: more often than there are places for readers.
    for number in 0..100 {
        let _ = store.due_alerts(at(0), 10).now_or_never();
        let _ = store.commit_alert(college.open(number, at(0))).now_or_never();
    }

    let opened = commit(&store, college.open(500, at(0))).await;
    assert_eq!(store.alert(opened.id).await.unwrap(), Some(opened));
    // What was given up was done wholly or not at all.
    let listed = store.list_alerts(&college.organisation, None, None, 1000).await.unwrap();
    for alert in listed {
        let entries = store.audit_entries(&AuditStream::Alert(alert.id), 0, 100).await.unwrap();
        assert_eq!(entries.len() as u64, alert.audit_head.seq);
    }
}

pub(crate) async fn a_probe_reads_and_writes<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    for seconds in [5, 3, 5] {
        store.probe(at(seconds)).await.unwrap();
    }
}
