//! The audit is proved from both ends: by its chains, and by the alerts that must have one.

use std::sync::Arc;

use crisis_relay::domain::audit::{Actor, AuditStream, ChainFault};
use crisis_relay::service::verification::{Verification, verify_all};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::stage::{event, ms};
use crate::common::{COUNSELLOR_KEY, Setting, World};

async fn verified(world: &World) -> Verification {
    verify_all(world.store().as_ref(), &["default".parse().unwrap()]).await.unwrap()
}

async fn two_cases() -> World {
    let mut world = World::new().await;
    for student in ["student-1", "student-2"] {
        let reference = world.told(student, 0.93).await;
        world.work().await;
        world.expect_told(&reference);
    }
    world
}

#[tokio::test]
async fn every_alert_is_proved() {
    let world = two_cases().await;
    let found = verified(&world).await;
    assert_eq!((found.alerts, found.faults.len()), (2, 0));
    assert_eq!(found.chains, 4, "each alert's and each consent's");
}

#[tokio::test]
async fn a_chain_that_was_removed_as_a_whole_is_found_out() {
    let one = "DELETE FROM audit WHERE stream = (SELECT min(stream) FROM audit WHERE stream LIKE 'alert/%')";
    let all = "DELETE FROM audit WHERE stream LIKE 'alert/%'";
    let cut = "DELETE FROM audit WHERE stream LIKE 'alert/%' AND seq = 2";
    for (tampering, faults) in [(one, 1), (all, 2), (cut, 2)] {
        let world = two_cases().await;
        let changed = rusqlite::Connection::open(world.database()).unwrap().execute(tampering, []).unwrap();
        assert!(changed > 0, "{tampering}");
        let found = verified(&world).await;
        assert_eq!(found.faults.len(), faults, "{tampering}: each once: {:?}", found.faults);
        assert_eq!(found.alerts, 2 - faults as u64, "{tampering}");
    }
}

#[tokio::test]
async fn a_consents_chain_that_was_removed_while_its_record_stayed_is_found_out() {
    let one = "DELETE FROM audit WHERE stream = (SELECT min(stream) FROM audit WHERE stream LIKE 'consent/%')";
    for (tampering, faults) in [(one, 1), ("DELETE FROM audit WHERE stream LIKE 'consent/%'", 2)] {
        let world = two_cases().await;
        // A further case of the same student: it is told of once, however many cases rest on it.
        let first = world.told("student-1", 0.93).await;
        let resolve = format!("/api/v1/crisis/alerts/{first}/resolve");
        world.post(&resolve, COUNSELLOR_KEY, &json!({ "outcome": "safe_in_person" })).await.expect(200);
        assert_ne!(world.told("student-1", 0.93).await, first);
        // And one who has said nothing, and so has neither chain nor record.
        world.event(&event("student-3", 0.93)).await.expect(202);
        assert!(remove_past_the_store(&world, tampering) > 0, "{tampering}");

        let found = verified(&world).await;

        assert_eq!(found.faults.len(), faults, "{tampering}: {:?}", found.faults);
        for (stream, fault) in &found.faults {
            assert!(matches!(stream, AuditStream::Consent(_)), "{stream}");
            assert!(matches!(fault, ChainFault::WrongHead { expected: 1.., found: 0 }), "{fault}");
        }
    }
}

#[tokio::test]
async fn an_alert_that_was_removed_while_its_chain_stayed_is_found_out() {
    let world = two_cases().await;
    let alerts = world.store().list_alerts(&"default".parse().unwrap(), None, None, 10).await.unwrap();
    let removed = remove_past_the_store(&world, "DELETE FROM alerts WHERE id = (SELECT min(id) FROM alerts)");
    assert_eq!(removed, 1);
    let mut gone = Vec::new();
    for alert in &alerts {
        gone.extend(world.store().alert(alert.id).await.unwrap().is_none().then_some(alert.id));
    }

    let found = verified(&world).await;

    assert_eq!(found.faults, [(AuditStream::Alert(gone[0]), ChainFault::NoOwner)]);
    assert_eq!(found.alerts, 1);
}

#[tokio::test]
async fn a_consent_record_that_was_removed_while_its_chain_stayed_is_found_out() {
    let world = two_cases().await;
    let removed =
        remove_past_the_store(&world, "DELETE FROM consents WHERE subject = (SELECT min(subject) FROM consents)");
    assert_eq!(removed, 1);

    let found = verified(&world).await;

    let [(AuditStream::Consent(_), ChainFault::NoOwner)] = found.faults.as_slice() else {
        panic!("{:?}", found.faults)
    };
    assert_eq!(found.alerts, 2, "the alerts are as they were");
}

/// Foreign keys aside: whoever tampers takes no notice of them.
fn remove_past_the_store(world: &World, statement: &str) -> usize {
    let file = rusqlite::Connection::open(world.database()).unwrap();
    file.pragma_update(None, "foreign_keys", false).unwrap();
    file.execute(statement, []).unwrap()
}

#[tokio::test]
async fn an_entry_that_was_added_behind_its_alerts_back_is_found_out() {
    let world = two_cases().await;
    let alerts = world.store().list_alerts(&"default".parse().unwrap(), None, None, 10).await.unwrap();
    let (stream, mut head) = (AuditStream::Alert(alerts[0].id), alerts[0].audit_head);
    let forged = head.append(stream.clone(), world.now(), &Actor::Service, &json!({ "what": "nothing" }));
    assert!(world.store().append_audit(forged).await.unwrap(), "it fits the chain");

    let found = verified(&world).await;

    assert_eq!(found.faults.len(), 1, "{:?}", found.faults);
    assert_eq!(found.faults[0].0, stream);
    assert_eq!(found.alerts, 1);
}

#[tokio::test]
async fn what_changes_while_it_is_proved_is_proved_and_no_fault() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let reference = world.told("student-1", 0.93).await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("list_alerts", Fate::Wait(Arc::clone(&permits)));
    let (store, organisations) = (world.store(), ["default".parse().unwrap()]);
    // Every chain was walked along, and no alert was looked at yet.
    let changing = async {
        while gate.count("list_alerts") == 0 {
            tokio::time::sleep(ms(2)).await;
        }
        world.work().await;
        world.taken_by_reply(&reference).await;
        world.told("student-2", 0.93).await;
        permits.add_permits(1);
    };

    let (found, ()) = tokio::join!(verify_all(store.as_ref(), &organisations), changing);

    let found = found.unwrap();
    assert_eq!((found.alerts, found.faults.len()), (2, 0), "{:?}", found.faults);
    world.expect_told(&reference);
}
