//! What is kept of people: consent, keys, and the answers that their requests were given.

use crisis_relay::domain::audit::{AuditStream, verify_chain};
use crisis_relay::ports::{ConsentCommit, IdempotencyRecord, RosterCommit};

use super::{Place, commit};
use crate::builders::{College, answer, at, data_key, idempotency_key, person, subject};

pub(crate) async fn consent_is_changed_only_from_the_version_before<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    assert_eq!(store.consent(&north.organisation, subject(1)).await.unwrap(), None);
    let first = north.consent(subject(1), None, at(0));
    let second = north.consent(subject(1), Some(&first.record), at(1));
    let third = north.consent(subject(1), Some(&second.record), at(2));

    assert!(!store.commit_consent(second.clone()).await.unwrap(), "there is no first one yet");
    assert!(store.commit_consent(first.clone()).await.unwrap());
    let before = place.dump().await;
    for refused in [first.clone(), third.clone(), with_version(&first, 0), with_version(&second, 1)] {
        assert!(!store.commit_consent(refused).await.unwrap());
        assert_eq!(place.dump().await, before);
    }
    assert!(store.commit_consent(second.clone()).await.unwrap());
    assert!(store.commit_consent(third.clone()).await.unwrap());

    assert_eq!(store.consent(&north.organisation, subject(1)).await.unwrap(), Some(third.record.clone()));
    assert_eq!(store.consent(&south.organisation, subject(1)).await.unwrap(), None);
    assert_eq!(store.consent(&north.organisation, subject(2)).await.unwrap(), None);
    let entries = store.audit_entries(&AuditStream::Consent(subject(1)), 0, 100).await.unwrap();
    assert_eq!(entries, [first.audit, second.audit, third.audit].concat());
    assert_eq!(verify_chain(&entries, Some(third.record.audit_head)), Ok(third.record.audit_head));
}

fn with_version(commit: &ConsentCommit, version: u64) -> ConsentCommit {
    let mut changed = commit.clone();
    changed.record.version = version;
    changed
}

pub(crate) async fn a_roster_is_changed_only_from_the_version_before<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    // One's id begins with the other's, and the dash stands in the names of entries, too.
    let (north, south) = (College::new("north"), College::new("north-0"));
    assert_eq!(store.roster(&north.organisation).await.unwrap(), None);
    let first = north.roster(None, 1, at(0));
    let second = north.roster(Some(&first.roster), 2, at(1));
    let third = north.roster(Some(&second.roster), 3, at(2));

    assert!(!store.commit_roster(second.clone()).await.unwrap(), "there is no first one yet");
    assert!(store.commit_roster(first.clone()).await.unwrap());
    assert!(store.commit_roster(south.roster(None, 4, at(0))).await.unwrap(), "each college has its own");
    let before = place.dump().await;
    let with_version = |commit: &RosterCommit, version| {
        let mut changed = commit.clone();
        changed.roster.version = version;
        changed
    };
    for refused in [first.clone(), third.clone(), with_version(&first, 0), with_version(&second, 1)] {
        assert!(!store.commit_roster(refused).await.unwrap());
        assert_eq!(place.dump().await, before);
    }
    assert!(store.commit_roster(second.clone()).await.unwrap());
    drop(store);
    let store = place.open().await;
    assert!(store.commit_roster(third.clone()).await.unwrap());

    assert_eq!(store.roster(&north.organisation).await.unwrap(), Some(third.roster.clone()));
    let stream = AuditStream::Settings(north.organisation.clone());
    let entries = store.audit_entries(&stream, 0, 100).await.unwrap();
    assert_eq!(entries, [first.audit, second.audit, third.audit].concat());
    assert_eq!(verify_chain(&entries, Some(third.roster.audit_head)), Ok(third.roster.audit_head));
    assert_eq!(store.audit_head(&stream).await.unwrap(), third.roster.audit_head);
}

pub(crate) async fn data_keys_are_kept_by_person_and_organisation<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let key = |college: &College, owner, edition| data_key(&college.organisation, person(owner), edition);

    assert!(store.insert_data_key(key(&north, 1, 1)).await.unwrap());
    assert!(!store.insert_data_key(key(&north, 1, 2)).await.unwrap(), "one key a person");
    assert!(store.insert_data_key(key(&north, 2, 3)).await.unwrap());
    assert!(store.insert_data_key(key(&south, 1, 4)).await.unwrap());

    for (college, owner, edition) in [(&north, 1, 1), (&north, 2, 3), (&south, 1, 4)] {
        let found = store.data_key(&college.organisation, person(owner)).await.unwrap();
        assert_eq!(found, Some(key(college, owner, edition)));
    }
    assert_eq!(store.data_key(&south.organisation, person(2)).await.unwrap(), None);
}

pub(crate) async fn the_first_answer_to_a_key_stands<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let first = IdempotencyRecord { status: u16::MAX, ..answer(1, at(1)) };

    assert_eq!(store.answer(idempotency_key(1)).await.unwrap(), None);
    assert!(store.keep_answer(first.clone()).await.unwrap());
    let other = IdempotencyRecord { status: 200, answer: "{}".to_owned(), ..answer(1, at(2)) };
    assert!(!store.keep_answer(other).await.unwrap());

    assert_eq!(store.answer(idempotency_key(1)).await.unwrap(), Some(first));
    assert_eq!(store.answer(idempotency_key(2)).await.unwrap(), None);
}

pub(crate) async fn answers_are_forgotten_by_age_and_in_portions<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    for number in 0..10 {
        assert!(store.keep_answer(answer(number, at(i64::from(number)))).await.unwrap());
    }

    assert_eq!(store.forget_answers(at(0), 100).await.unwrap(), 0, "what is not older stays");
    assert_eq!(store.forget_answers(at(7), 0).await.unwrap(), 0);
    assert_eq!(store.forget_answers(at(7), 4).await.unwrap(), 4);
    assert_eq!(store.forget_answers(at(7), 4).await.unwrap(), 3);
    assert_eq!(store.forget_answers(at(7), 4).await.unwrap(), 0);

    for number in 0..10 {
        let known = store.answer(idempotency_key(number)).await.unwrap();
        assert_eq!(known.is_some(), number >= 7, "{number}");
    }
    assert!(store.keep_answer(answer(0, at(20))).await.unwrap(), "a forgotten key is free again");
}

pub(crate) async fn a_decision_is_told_all_about_its_student_and_nothing_of_others<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let student = subject(1);
    let consent = north.consent(student, None, at(0));
    let key = data_key(&north.organisation, student.into(), 1);
    let opened = commit(&store, north.open(1, at(1))).await;
    assert!(store.commit_consent(consent.clone()).await.unwrap());
    assert!(store.insert_data_key(key.clone()).await.unwrap());
    assert!(store.keep_answer(answer(1, at(2))).await.unwrap());

    let known = store.intake_context(&north.organisation, student, Some(idempotency_key(1))).await.unwrap();
    assert_eq!(known.idempotency, Some(answer(1, at(2))));
    assert_eq!((known.open_alert, known.consent, known.data_key), (Some(opened), Some(consent.record), Some(key)));

    let no_key = store.intake_context(&north.organisation, student, None).await.unwrap();
    assert_eq!(no_key.idempotency, None);
    let other_key = store.intake_context(&north.organisation, student, Some(idempotency_key(2))).await.unwrap();
    assert_eq!(other_key.idempotency, None);
    for (organisation, student) in [(&south.organisation, student), (&north.organisation, subject(2))] {
        let known = store.intake_context(organisation, student, None).await.unwrap();
        assert!(known.open_alert.is_none() && known.consent.is_none() && known.data_key.is_none());
    }
}

pub(crate) async fn a_fact_stays_as_it_was_first_kept<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    assert_eq!(store.keep_fact("index_key_id", "first").await.unwrap(), "first");
    assert_eq!(store.keep_fact("index_key_id", "second").await.unwrap(), "first", "a later value replaced the first");
    assert_eq!(store.keep_fact("another", "second").await.unwrap(), "second", "facts are told apart by name");
    drop(store);
    let store = place.open().await;
    assert_eq!(store.keep_fact("index_key_id", "third").await.unwrap(), "first", "a fact was forgotten");
}
