//! The audit is proved from both ends: by its chains, and by the alerts that must have one.

use crisis_relay::service::verification::{Verification, verify_all};

use crate::common::World;

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
    let cut = "DELETE FROM audit WHERE stream LIKE 'alert/%' AND seq = 2";
    for (tampering, faults) in [(one, 1), ("DELETE FROM audit", 2), (cut, 2)] {
        let world = two_cases().await;
        let changed = rusqlite::Connection::open(world.database()).unwrap().execute(tampering, []).unwrap();
        assert!(changed > 0, "{tampering}");
        let found = verified(&world).await;
        assert_eq!(found.faults.len(), faults, "{tampering}: each once: {:?}", found.faults);
        assert_eq!(found.alerts, 2 - faults as u64, "{tampering}");
    }
}
