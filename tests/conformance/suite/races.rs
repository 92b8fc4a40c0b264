//! Races: of many that want the same, one gets it, and nothing of the others is to be seen.

use std::sync::Arc;

use crisis_relay::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream, verify_chain};
use crisis_relay::ports::{AlertCommit, Committed, RosterCommit, Store};
use serde::Serialize;

use super::audit::{chains, walked};
use super::{Place, at_once, commit, laden, only_winner};
use crate::builders::{College, answer, at, data_key, idempotency_key, person, provider_id, reference, subject};

const RIVALS: u32 = 16;

async fn all_commit(store: &Arc<dyn Store>, commits: Vec<AlertCommit>) -> Vec<(usize, Committed)> {
    at_once(commits.into_iter().map(|commit| {
        let store = Arc::clone(store);
        async move { store.commit_alert(commit).await.unwrap() }
    }))
    .await
}

pub(crate) async fn one_of_many_changes_wins_each_version<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut alert = commit(&store, college.open(1, at(0))).await;
    let stream = AuditStream::Alert(alert.id);
    let mut events = 0;

    for round in 1..=5_u32 {
        let number = |rival: usize| round * 100 + u32::try_from(rival).unwrap();
        let rivals: Vec<AlertCommit> = (0..RIVALS as usize)
            .map(|rival| laden(&college, college.join(&alert, number(rival), 0.9, at(i64::from(round))), number(rival)))
            .collect();
        let results = all_commit(&store, rivals.clone()).await;

        let winner = only_winner(&results, &Committed::Committed, &Committed::VersionConflict);
        alert = rivals[winner].alert.clone();
        events += 1;
        assert_eq!(store.alert(alert.id).await.unwrap(), Some(alert.clone()));
        let entries = store.audit_entries(&stream, 0, 1000).await.unwrap();
        assert_eq!(verify_chain(&entries, Some(alert.audit_head)), Ok(alert.audit_head));
        let details = store.event_details(alert.id).await.unwrap();
        assert_eq!(details.len(), events);
        assert_eq!(details.last(), rivals[winner].event.as_ref());
        for rival in 0..RIVALS as usize {
            let (number, won) = (number(rival), rival == winner);
            let key = store.data_key(&college.organisation, person(number)).await.unwrap();
            assert_eq!(key.is_some(), won);
            assert_eq!(store.answer(idempotency_key(number)).await.unwrap().is_some(), won);
            assert_eq!(store.alert_of_message(&provider_id(number)).await.unwrap().is_some(), won);
        }
    }
}

pub(crate) async fn many_inserts_at_once_open_one_alert<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let rivals: Vec<AlertCommit> =
        (1..=50).map(|number| laden(&college, college.open_for(number, subject(1), at(0)), number)).collect();

    let results = all_commit(&store, rivals.clone()).await;

    let winner = only_winner(&results, &Committed::Committed, &Committed::SubjectHasOpenAlert);
    let listed = store.list_alerts(&college.organisation, None, None, 100).await.unwrap();
    assert_eq!(listed, [rivals[winner].alert.clone()]);
    let streams = chains(&walked(&store, 100).await);
    assert_eq!(streams, [AuditStream::Alert(rivals[winner].alert.id)]);
    for number in 1..=50 {
        let known = store.answer(idempotency_key(number)).await.unwrap();
        assert_eq!(known.is_some(), number as usize == winner + 1);
    }
}

/// Whether it won; what did not win must have lost for this reason.
fn won(committed: Committed, lost: Committed) -> bool {
    assert!(committed == Committed::Committed || committed == lost, "neither won nor lost: {committed:?}");
    committed == Committed::Committed
}

pub(crate) async fn an_idempotency_key_is_used_once_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let with_answer = |number: u32| {
        let mut given = answer(number, at(i64::from(number)));
        given.key = idempotency_key(0);
        given
    };
    let rivals: Vec<AlertCommit> = (0..RIVALS)
        .map(|number| AlertCommit { idempotency: Some(with_answer(number)), ..college.open(number, at(0)) })
        .collect();

    // Half of them open an alert, half only keep an answer.
    let results = at_once(rivals.iter().cloned().enumerate().map(|(number, commit)| {
        let store = Arc::clone(&store);
        async move {
            match commit.idempotency {
                Some(record) if number % 2 == 0 => store.keep_answer(record).await.unwrap(),
                _ => won(store.commit_alert(commit).await.unwrap(), Committed::IdempotencyKeyUsed),
            }
        }
    }))
    .await;

    let winner = only_winner(&results, &true, &false);
    assert_eq!(store.answer(idempotency_key(0)).await.unwrap(), rivals[winner].idempotency);
    let listed = store.list_alerts(&college.organisation, None, None, 100).await.unwrap();
    assert_eq!(listed.len(), winner % 2, "an alert is there only if an alert won");
}

pub(crate) async fn a_person_gets_one_data_key_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let key = |edition| data_key(&college.organisation, person(1), edition);

    let results = at_once((0..RIVALS).map(|number| {
        let store = Arc::clone(&store);
        let opening = AlertCommit { data_key: Some(key(number)), ..college.open(number, at(0)) };
        async move {
            match opening.data_key {
                Some(key) if number % 2 == 0 => store.insert_data_key(key).await.unwrap(),
                _ => won(store.commit_alert(opening).await.unwrap(), Committed::DataKeyExists),
            }
        }
    }))
    .await;

    let winner = u32::try_from(only_winner(&results, &true, &false)).unwrap();
    assert_eq!(store.data_key(&college.organisation, person(1)).await.unwrap(), Some(key(winner)));
    let listed = store.list_alerts(&college.organisation, None, None, 100).await.unwrap();
    assert_eq!(listed.len(), (winner % 2) as usize);
}

pub(crate) async fn a_reference_is_given_once_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let rivals: Vec<AlertCommit> = (0..RIVALS)
        .map(|number| {
            let mut opening = college.open(number, at(0));
            opening.alert.reference = reference(0);
            opening
        })
        .collect();

    let results = all_commit(&store, rivals.clone()).await;

    let winner = only_winner(&results, &Committed::Committed, &Committed::ReferenceTaken);
    let found = store.alert_by_reference(&college.organisation, reference(0)).await.unwrap();
    assert_eq!(found, Some(rivals[winner].alert.clone()));
}

pub(crate) async fn consent_is_changed_once_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut stored = None;

    for round in 0..3 {
        let rivals: Vec<_> = (0..RIVALS)
            .map(|rival| college.consent(subject(1), stored.as_ref(), at(round * 100 + i64::from(rival))))
            .collect();
        let results = at_once(rivals.iter().cloned().map(|commit| {
            let store = Arc::clone(&store);
            async move { store.commit_consent(commit).await.unwrap() }
        }))
        .await;

        let record = rivals[only_winner(&results, &true, &false)].record.clone();
        assert_eq!(store.consent(&college.organisation, subject(1)).await.unwrap(), Some(record.clone()));
        let entries = store.audit_entries(&AuditStream::Consent(subject(1)), 0, 100).await.unwrap();
        assert_eq!(verify_chain(&entries, Some(record.audit_head)), Ok(record.audit_head));
        stored = Some(record);
    }
}

pub(crate) async fn a_change_of_consent_and_what_rests_on_it_come_one_after_the_other<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut first = Vec::new();
    for student in 0..RIVALS {
        let said = college.consent(subject(student), None, at(0));
        assert!(store.commit_consent(said.clone()).await.unwrap());
        first.push(said.record);
    }

    // Each student takes their word back while an alert is opened on it.
    let results = at_once((0..2 * RIVALS).map(|number| {
        let (store, student) = (Arc::clone(&store), number / 2);
        let withdrawal = college.consent(subject(student), Some(&first[student as usize]), at(1));
        let opening = laden(&college, college.open(student, at(1)), student);
        async move {
            if number % 2 == 0 {
                let confirmed = store.commit_consent(withdrawal).await.unwrap();
                let opened_before = store.alert(opening.alert.id).await.unwrap().is_some();
                return (confirmed, Some(opened_before));
            }
            let opening = AlertCommit { consent_version: Some(1), ..opening };
            (won(store.commit_alert(opening).await.unwrap(), Committed::ConsentChanged), None)
        }
    }))
    .await;

    for (number, (won, opened_before)) in results {
        let student = u32::try_from(number).unwrap() / 2;
        let opening = college.open(student, at(1)).alert;
        let stored = store.alert(opening.id).await.unwrap();
        assert!(won || number % 2 == 1, "student {student}: nothing stands against what they say");
        if opened_before == Some(false) {
            assert_eq!(
                stored, None,
                "student {student}: it was opened on a word after that was taken back for certain"
            );
        }
        if number % 2 == 1 {
            assert_eq!(stored.is_some(), won, "student {student}");
            assert_eq!(store.answer(idempotency_key(student)).await.unwrap().is_some(), won, "student {student}");
        }
        // Of the others it is certain: they come too late.
        if stored.is_none() {
            let late = AlertCommit { consent_version: Some(1), ..college.open(student, at(2)) };
            assert_eq!(store.commit_alert(late).await.unwrap(), Committed::ConsentChanged);
        }
    }
}

pub(crate) async fn a_roster_is_changed_once_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut roster = None;
    for round in 0..3 {
        let rivals: Vec<RosterCommit> = (1..=RIVALS)
            .map(|rival| college.roster(roster.as_ref(), round * 100 + rival, at(i64::from(round))))
            .collect();
        let results = at_once(rivals.iter().cloned().map(|commit| {
            let store = Arc::clone(&store);
            async move { store.commit_roster(commit).await.unwrap() }
        }))
        .await;
        roster = Some(rivals[only_winner(&results, &true, &false)].roster.clone());
        assert_eq!(store.roster(&college.organisation).await.unwrap(), roster);
    }
    let head = roster.unwrap().audit_head;
    let entries = store.audit_entries(&AuditStream::Settings(college.organisation), 0, 100).await.unwrap();
    assert_eq!(verify_chain(&entries, Some(head)), Ok(head), "nothing of those who lost is in the chain");
}

#[derive(Serialize)]
struct Looked {
    at_what: u32,
}

pub(crate) async fn an_audit_number_is_given_once_among_many<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let stream = AuditStream::Access(College::new("north").open(1, at(0)).alert.id);
    let mut head = AuditHead::EMPTY;

    for round in 0..3 {
        let rivals: Vec<AuditEntry> = (0..RIVALS)
            .map(|rival| head.clone().append(stream.clone(), at(round), &Actor::Service, &Looked { at_what: rival }))
            .collect();
        let results = at_once(rivals.iter().cloned().map(|entry| {
            let store = Arc::clone(&store);
            async move { store.append_audit(entry).await.unwrap() }
        }))
        .await;

        let entry = &rivals[only_winner(&results, &true, &false)];
        head = store.audit_head(&stream).await.unwrap();
        assert_eq!((head.seq, head.hash), (entry.seq, entry.hash));
    }
    let entries = store.audit_entries(&stream, 0, 100).await.unwrap();
    assert_eq!(verify_chain(&entries, Some(head)), Ok(head));
}
