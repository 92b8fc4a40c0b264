//! Alerts: what a commit keeps, and what it refuses.

use crisis_relay::clock::SeededEntropy;
use crisis_relay::domain::alert::{Alert, Input, StateName};
use crisis_relay::domain::audit::{AuditStream, verify_chain};
use crisis_relay::domain::event::Score;
use crisis_relay::ports::{AlertCommit, Committed, StoreError, jitter, random};
use jiff::Timestamp;

use super::{Place, at_once, commit, laden};
use crate::builders::{
    College, address, answer, at, at_micros, data_key, details, idempotency_key, person, provider_id, reference,
    subject,
};

pub(crate) async fn a_committed_alert_is_read_back_as_it_was<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let opening = laden(&college, college.open(1, at(0)), 1);

    let opened = commit(&store, opening.clone()).await;

    assert_eq!(store.alert(opened.id).await.unwrap(), Some(opened.clone()));
    let by_reference = store.alert_by_reference(&college.organisation, opened.reference).await.unwrap();
    assert_eq!(by_reference, Some(opened.clone()));
    let known = store.intake_context(&college.organisation, subject(1), Some(idempotency_key(1))).await.unwrap();
    assert_eq!(known.open_alert, Some(opened.clone()));
    assert_eq!(known.idempotency, opening.idempotency);
    assert_eq!(store.event_details(opened.id).await.unwrap(), Vec::from_iter(opening.event));
    assert_eq!(store.data_key(&college.organisation, person(1)).await.unwrap(), opening.data_key);
    assert_eq!(store.alert_of_message(&provider_id(1)).await.unwrap(), Some(opened.clone()));

    let changed = commit(&store, college.acknowledge(&opened, at(5))).await;
    assert_eq!(store.alert(opened.id).await.unwrap(), Some(changed.clone()));
    let entries = store.audit_entries(&AuditStream::Alert(opened.id), 0, 100).await.unwrap();
    assert_eq!(entries[..opening.audit.len()], opening.audit[..]);
    assert_eq!(verify_chain(&entries, Some(changed.audit_head)), Ok(changed.audit_head));
}

pub(crate) async fn every_number_and_time_of_an_alert_keeps_every_bit<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let chance = SeededEntropy::new(7);
    let commits = (0..200).map(|number| {
        let nanos = i128::from(u32::from_le_bytes(random(&chance)));
        let now = Timestamp::from_nanosecond(at(0).as_nanosecond() + nanos).unwrap();
        let mut opening = college.open(number, now);
        opening.alert.severity = Score::new(jitter(&chance)).unwrap();
        opening.alert.trigger.score = Some(opening.alert.severity);
        opening
    });

    for opening in commits {
        let opened = commit(&store, opening).await;

        let read = store.alert(opened.id).await.unwrap().unwrap();
        assert_eq!(read.severity.value().to_bits(), opened.severity.value().to_bits());
        assert_eq!(read, opened);
    }
}

pub(crate) async fn a_change_needs_the_version_it_was_made_from<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let first = commit(&store, college.open(1, at(0))).await;
    let second = commit(&store, college.join(&first, 2, 0.9, at(1))).await;
    let before = place.dump().await;

    let stale = laden(&college, college.join(&first, 3, 0.95, at(2)), 3);
    assert_eq!(store.commit_alert(stale.clone()).await.unwrap(), Committed::VersionConflict);
    for made_up in [0, second.version + 1, u64::MAX] {
        let early = AlertCommit { from_version: Some(made_up), ..stale.clone() };
        assert_eq!(store.commit_alert(early).await.unwrap(), Committed::VersionConflict, "from {made_up}");
    }
    let unknown = college.open(9, at(0)).alert;
    for made_up in [0, 1, u64::MAX] {
        let change = AlertCommit { from_version: Some(made_up), ..college.join(&unknown, 4, 0.9, at(2)) };
        assert_eq!(store.commit_alert(change).await.unwrap(), Committed::VersionConflict, "from {made_up}");
    }

    assert_eq!(place.dump().await, before);
}

pub(crate) async fn an_id_is_inserted_once<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let first = commit(&store, college.open(1, at(0))).await;
    let before = place.dump().await;

    let mut twin = laden(&college, college.open(2, at(0)), 2);
    twin.alert.id = first.id;
    assert_eq!(store.commit_alert(twin).await.unwrap(), Committed::VersionConflict);

    assert_eq!(place.dump().await, before);
}

pub(crate) async fn a_student_has_one_open_alert<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let mut first = commit(&store, north.open_for(1, subject(1), at(0))).await;

    let second = north.open_for(2, subject(1), at(1));
    for state in [StateName::Escalating, StateName::Acknowledged] {
        assert_eq!(first.state.name(), state);
        assert_eq!(store.commit_alert(second.clone()).await.unwrap(), Committed::SubjectHasOpenAlert);
        if state == StateName::Escalating {
            first = commit(&store, north.acknowledge(&first, at(2))).await;
        }
    }
    // The same hash at another college is another student.
    let elsewhere = commit(&store, south.open_for(3, subject(1), at(1))).await;
    let resolved = commit(&store, north.resolve(&first, at(3))).await;
    let second = commit(&store, second).await;

    assert_eq!(store.alert(first.id).await.unwrap(), Some(resolved));
    let known = store.intake_context(&north.organisation, subject(1), None).await.unwrap();
    assert_eq!(known.open_alert, Some(second));
    let known = store.intake_context(&south.organisation, subject(1), None).await.unwrap();
    assert_eq!(known.open_alert, Some(elsewhere));
    let withheld = commit(&store, north.withhold(5, at(4))).await;
    let again = north.open_for(6, withheld.subject, at(5));
    assert_eq!(store.commit_alert(again).await.unwrap(), Committed::SubjectHasOpenAlert);
}

pub(crate) async fn a_late_change_of_a_closed_alert_leaves_the_next_one_alone<P: Place>() {
    let place = P::new().await;
    let college = College::new("north");
    let mut store = place.open().await;
    let first = commit(&store, college.open_for(1, subject(1), at(0))).await;
    let mut closed = commit(&store, college.resolve(&first, at(1))).await;
    let second = commit(&store, college.open_for(2, subject(1), at(2))).await;

    // Once by whoever closed it, and once by somebody who has not seen it before.
    for number in [3, 4] {
        let mut late = college.join(&first, number, 0.9, at(3));
        late.from_version = Some(closed.version);
        late.alert = Alert { version: closed.version + 1, ..closed };
        late.audit.clear();
        closed = commit(&store, late).await;

        let known = store.intake_context(&college.organisation, subject(1), None).await.unwrap();
        assert_eq!(known.open_alert.as_ref(), Some(&second), "the open alert is not the student's any more");
        let third = college.open_for(number, subject(1), at(4));
        assert_eq!(store.commit_alert(third).await.unwrap(), Committed::SubjectHasOpenAlert);
        store.close().await;
        drop(store);
        store = place.open().await;
    }
}

pub(crate) async fn a_reference_is_taken_within_its_organisation_only<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let first = commit(&store, north.open(1, at(0))).await;

    let mut second = north.open(2, at(1));
    second.alert.reference = first.reference;
    assert_eq!(store.commit_alert(second.clone()).await.unwrap(), Committed::ReferenceTaken);
    // People still read out the code of a closed case.
    let resolved = commit(&store, north.resolve(&first, at(2))).await;
    assert_eq!(store.commit_alert(second).await.unwrap(), Committed::ReferenceTaken);
    let mut elsewhere = south.open(3, at(3));
    elsewhere.alert.reference = first.reference;
    let elsewhere = commit(&store, elsewhere).await;

    let found = store.alert_by_reference(&north.organisation, first.reference).await.unwrap();
    assert_eq!(found, Some(resolved));
    let found = store.alert_by_reference(&south.organisation, first.reference).await.unwrap();
    assert_eq!(found, Some(elsewhere));
    assert_eq!(store.alert_by_reference(&north.organisation, reference(99)).await.unwrap(), None);
    assert_eq!(store.alert(college_stranger()).await.unwrap(), None);
}

fn college_stranger() -> crisis_relay::domain::ids::AlertId {
    College::new("nowhere").open(77, at(0)).alert.id
}

pub(crate) async fn a_used_idempotency_key_is_told_before_anything_else<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let request = laden(&college, college.open(1, at(0)), 1);
    let opened = commit(&store, request.clone()).await;

    // The very same commit breaks every other rule, too.
    assert_eq!(store.commit_alert(request).await.unwrap(), Committed::IdempotencyKeyUsed);
    let change = AlertCommit { idempotency: Some(answer(1, at(9))), ..college.join(&opened, 2, 0.9, at(9)) };
    assert_eq!(store.commit_alert(change).await.unwrap(), Committed::IdempotencyKeyUsed);

    assert_eq!(store.answer(idempotency_key(1)).await.unwrap(), Some(answer(1, at(0))));
    assert_eq!(store.alert(opened.id).await.unwrap(), Some(opened));
}

pub(crate) async fn a_data_key_is_given_once<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let with_key = |college: &College, number, owner, edition| AlertCommit {
        data_key: Some(data_key(&college.organisation, person(owner), edition)),
        ..college.open(number, at(0))
    };
    commit(&store, with_key(&north, 1, 1, 1)).await;

    let late = with_key(&north, 2, 1, 2);
    assert_eq!(store.commit_alert(late.clone()).await.unwrap(), Committed::DataKeyExists);
    assert_eq!(store.alert(late.alert.id).await.unwrap(), None);
    commit(&store, with_key(&north, 2, 2, 3)).await;
    commit(&store, with_key(&south, 3, 1, 4)).await;

    let key = store.data_key(&north.organisation, person(1)).await.unwrap();
    assert_eq!(key, Some(data_key(&north.organisation, person(1), 1)));
}

pub(crate) async fn what_rests_on_consent_needs_the_version_that_was_read<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let resting = |on, commit| AlertCommit { consent_version: Some(on), ..commit };
    // Where nothing was ever said, that is what a change can rest on.
    let withheld = commit(&store, resting(0, north.withhold(2, at(0)))).await;
    let first = north.consent(subject(1), None, at(0));
    let second = north.consent(subject(1), Some(&first.record), at(1));
    for said in [first, second, north.consent(subject(2), None, at(1))] {
        assert!(store.commit_consent(said).await.unwrap());
    }
    let before = place.dump().await;

    let joined = north.join(&withheld, 20, 0.95, at(2));
    for (refused, read) in [
        (north.open(1, at(2)), [0, 1, 3, u64::MAX]),
        (joined.clone(), [0, 2, 3, u64::MAX]),
        // The same student's word at another college, and another student's word.
        (south.open_for(4, subject(1), at(2)), [1, 2, 3, u64::MAX]),
        (north.open(3, at(2)), [1, 2, 3, u64::MAX]),
    ] {
        for read in read {
            let refused = laden(&north, resting(read, refused.clone()), 9);
            assert_eq!(store.commit_alert(refused).await.unwrap(), Committed::ConsentChanged, "resting on {read}");
        }
    }
    assert_eq!(place.dump().await, before, "what was refused changed something");

    commit(&store, resting(2, north.open(1, at(2)))).await;
    let joined = commit(&store, resting(1, joined)).await;
    commit(&store, resting(0, south.open_for(4, subject(1), at(2)))).await;
    commit(&store, north.resolve(&joined, at(3))).await;
}

pub(crate) async fn every_refusal_leaves_everything_as_it_was<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let opened = commit(&store, laden(&college, college.open(1, at(0)), 1)).await;
    commit(&store, college.acknowledge(&opened, at(1))).await;
    let before = place.dump().await;
    // Everything in them is new, but for the one thing that they are refused for.
    let stale = laden(&college, college.join(&opened, 2, 1.0, at(2)), 2);
    let same_student = laden(&college, college.open_for(3, subject(1), at(2)), 3);
    let mut same_reference = laden(&college, college.open(4, at(2)), 4);
    same_reference.alert.reference = opened.reference;
    let mut same_key = laden(&college, college.open(5, at(2)), 5);
    same_key.idempotency = Some(answer(1, at(2)));
    let mut same_person = laden(&college, college.open(6, at(2)), 6);
    same_person.data_key = Some(data_key(&college.organisation, person(1), 6));
    let mut other_word = laden(&college, college.open(7, at(2)), 7);
    other_word.consent_version = Some(1);

    for (refused, why) in [
        (stale, Committed::VersionConflict),
        (same_student, Committed::SubjectHasOpenAlert),
        (same_reference, Committed::ReferenceTaken),
        (same_key, Committed::IdempotencyKeyUsed),
        (same_person, Committed::DataKeyExists),
        (other_word, Committed::ConsentChanged),
    ] {
        assert_eq!(store.commit_alert(refused).await.unwrap(), why);
        assert_eq!(place.dump().await, before, "after {why:?}");
    }
}

pub(crate) async fn a_commit_that_contradicts_the_audit_changes_nothing<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let entries = store.audit_entries(&AuditStream::Alert(opened.id), 0, 100).await.unwrap();
    let mut contradiction = laden(&college, college.open(2, at(0)), 2);
    // Its last entry claims a place that is taken, when all the rest has been written.
    contradiction.audit.push(entries[0].clone());
    let commits: Vec<AlertCommit> =
        (10..20).map(|number| college.open(number, at(1))).chain([contradiction.clone()]).collect();
    let neighbours: Vec<_> = commits[..10].iter().map(|commit| commit.alert.clone()).collect();

    let results = at_once(commits.into_iter().map(|commit| {
        let store = store.clone();
        async move { store.commit_alert(commit).await }
    }))
    .await;

    for (number, result) in results {
        match result {
            Ok(done) => assert_eq!((done, number < 10), (Committed::Committed, true)),
            Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }) && number == 10, "{number}: {error}"),
        }
    }
    for neighbour in neighbours {
        assert_eq!(store.alert(neighbour.id).await.unwrap(), Some(neighbour));
    }
    assert_eq!(store.alert(contradiction.alert.id).await.unwrap(), None);
    assert_eq!(store.answer(idempotency_key(2)).await.unwrap(), None);
    assert_eq!(store.alert_of_message(&provider_id(2)).await.unwrap(), None);
    assert_eq!(store.event_details(contradiction.alert.id).await.unwrap(), []);
    assert_eq!(store.audit_entries(&AuditStream::Alert(contradiction.alert.id), 0, 9).await.unwrap(), []);
    assert_eq!(store.audit_entries(&AuditStream::Alert(opened.id), 0, 100).await.unwrap(), entries);
}

pub(crate) async fn a_message_is_found_by_its_provider_id<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let first = commit(&store, college.open(1, at(0))).await;
    commit(&store, college.open(2, at(0))).await;

    let told = commit(&store, college.accept_first_message(&first, provider_id(1), at(1))).await;

    assert_eq!(store.alert_of_message(&provider_id(1)).await.unwrap(), Some(told.clone()));
    assert_eq!(store.alert_of_message(&provider_id(2)).await.unwrap(), None);
    // A receipt that repeats the id changes nothing about whose message it is.
    let mut again = college.acknowledge(&told, at(2));
    again.provider_ids.push(provider_id(1));
    let acknowledged = commit(&store, again).await;
    assert_eq!(store.alert_of_message(&provider_id(1)).await.unwrap(), Some(acknowledged));
}

pub(crate) async fn details_of_events_are_read_oldest_first<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut alert = commit(&store, college.open(1, at(0))).await;
    let mut written = Vec::new();
    // All within one millisecond, and numbered backwards: only the time tells their order.
    for number in (1..=8_u32).rev() {
        let now = at_micros(i64::from(9 - number) * 100);
        let with = AlertCommit { event: Some(details(number, now)), ..college.join(&alert, number, 0.9, now) };
        written.extend(with.event.clone());
        alert = commit(&store, with).await;
    }

    assert_eq!(store.event_details(alert.id).await.unwrap(), written);
}

pub(crate) async fn the_alerts_that_told_a_number_follow_their_state<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let telling = async |college: &College, number, limit| -> Vec<u32> {
        let found = store.cases_of(&college.organisation, address(number), limit).await.unwrap();
        let of = |subject_key| (0..20).find(|number| subject(*number) == subject_key).unwrap();
        found.into_iter().map(|alert| of(alert.subject)).collect()
    };
    let mut first = commit(&store, north.open(1, at(1))).await;
    let second = commit(&store, north.open(2, at(2))).await;
    commit(&store, north.open(3, at(3))).await;
    commit(&store, north.withhold(4, at(4))).await;
    commit(&store, south.open(5, at(5))).await;

    assert_eq!(telling(&north, 1, 10).await, [3, 2, 1], "newest first; not the withheld one");
    assert_eq!(telling(&north, 1, 2).await, [3, 2]);
    assert_eq!(telling(&south, 1, 10).await, [5]);
    assert_eq!(telling(&north, 2, 10).await, [0_u32; 0], "nobody has told the second counsellor");

    first = commit(&store, north.acknowledge(&first, at(6))).await;
    commit(&store, north.resolve(&second, at(6))).await;
    assert_eq!(telling(&north, 1, 10).await, [3, 1], "whoever has it may say something; not of the closed one");
    // No outcome in time: it is escalated again, and after that from step to step.
    let reopened = north.change(&first, Input::Wake { sole_owner_restarted: false }, at(6 + 3600));
    first = commit(&store, reopened).await;
    assert_eq!(telling(&north, 1, 10).await, [3, 1]);
    let next_step = north.change(&first, Input::Wake { sole_owner_restarted: false }, at(6 + 3600 + 300));
    first = commit(&store, next_step).await;
    assert_eq!(telling(&north, 2, 10).await, [1]);
    commit(&store, north.resolve(&first, at(8000))).await;
    assert_eq!((telling(&north, 1, 10).await, telling(&north, 2, 10).await), (vec![3], vec![]));
}

pub(crate) async fn an_unreadable_alert_does_not_hide_the_others<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let first = commit(&store, college.open(1, at(0))).await;
    let second = commit(&store, college.open(2, at(1))).await;

    place.spoil_alert(first.id).await;

    let error = store.alert(first.id).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!error.to_string().contains("spoilt"), "no value from a row: {error}");
    assert_eq!(store.alert(second.id).await.unwrap(), Some(second.clone()));
    let due = store.due_alerts(at(1_000_000), 10).await.unwrap();
    assert_eq!(due, [first.id, second.id]);
    assert_eq!(store.unfinished_alerts(None, 10).await.unwrap(), [second.id, first.id]);
    // It can still be replaced by whoever knows what it was.
    let mended = commit(&store, college.acknowledge(&first, at(2))).await;
    assert_eq!(store.alert(first.id).await.unwrap(), Some(mended));
}
