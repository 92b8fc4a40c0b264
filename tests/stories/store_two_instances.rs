//! Two instances of the service on one store: they share the work by leases, and neither undoes what the other did.

use std::sync::Arc;

use crisis_relay::simulator::{Fault, FaultRule, SimMessage};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::{ms, s};
use crate::common::{COUNSELLOR, Setting, World};

/// A world whose store others may share.
async fn shared() -> (Arc<Gate>, World) {
    let gate = Gate::shared();
    let world = Setting::default().with_gate(&gate).start().await;
    (gate, world)
}

/// Alerts that wait for their second attempt, all due a second from now: in nobody's hand.
async fn waiting(world: &mut World, count: u32) -> Vec<String> {
    world.goes_wrong(FaultRule::next(count, Fault::TooManyRequests { retry_after_s: Some(1) }));
    let mut references = Vec::new();
    for student in 0..count {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    references
}

#[tokio::test]
async fn two_workers_that_wake_the_same_alert_send_once() {
    let (_, mut world) = shared().await;
    let mut other = world.further_instance().await;
    let references = waiting(&mut world, 1).await;
    world.clock.advance(s(1));
    tokio::join!(world.work(), other.work());
    assert_eq!(world.calls(), 2);
    world.expect_only(&references[0], 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn three_workers_share_forty_alerts_and_none_is_sent_twice() {
    let (_, mut world) = shared().await;
    let (mut second, mut third) = (world.further_instance().await, world.further_instance().await);
    let references = waiting(&mut world, 40).await;
    for _ in 0..8 {
        world.clock.advance(ms(500));
        tokio::join!(world.work(), second.work(), third.work());
    }
    for reference in &references {
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
    assert_eq!(world.calls(), 80);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn two_workers_look_an_unknown_message_up_once_between_them() {
    let (_, mut world) = shared().await;
    let mut other = world.further_instance().await;
    world.goes_wrong(FaultRule::once(Fault::DropAfterAccepting));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.clock.advance(s(2));
    tokio::join!(world.work(), other.work());
    assert_eq!((world.calls(), world.sim().stats().lookups), (1, 1));
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn what_an_instance_had_in_hand_when_it_died_is_taken_over_when_its_lease_is_over_and_not_before() {
    let (_, world) = shared().await;
    let mut other = world.further_instance().await;
    let reference = world.told("student-1", 0.93).await;
    // The first instance has it in hand, and does nothing any more.
    for _ in 0..29 {
        world.clock.advance(s(1));
        other.work().await;
    }
    assert_eq!(world.calls() + usize::try_from(world.sim().stats().lookups).unwrap(), 0, "its lease still lasts");
    for _ in 0..15 {
        world.clock.advance(s(1));
        other.work().await;
    }
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn an_instance_that_starts_leaves_the_leases_of_the_others_alone() {
    let (_, mut world) = shared().await;
    let reference = world.told("student-1", 0.93).await;
    let mut other = world.further_instance().await;
    other.worker.recover().await;
    other.work().await;
    assert_eq!(world.sim().stats().lookups, 0, "it is in the first one's hand");
    world.work().await;
    world.expect_only(&reference, 1);
}

/// The first instance's call has come to `fault`; it books that only after the second has taken the message over and
/// sent it again. Gives the world as it is then.
async fn booked_too_late(fault: Fault) -> (World, String) {
    let (gate, mut world) = shared().await;
    let mut other = world.further_instance().await;
    world.goes_wrong(FaultRule::once(fault));
    let reference = world.told("student-1", 0.93).await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let (clock, sim) = (world.clock.clone(), world.sim());
    let overtaking = async {
        // The first one has called, and wants to book.
        while gate.count("commit_alert") == 0 {
            tokio::time::sleep(ms(2)).await;
        }
        clock.advance(s(31));
        for _ in 0..12 {
            other.work().await;
            clock.advance(s(1));
        }
        let settled = |message: &SimMessage| message.phone == COUNSELLOR;
        sim.await_message(COUNSELLOR, s(5), settled).await.unwrap();
        permits.add_permits(1);
    };
    tokio::join!(world.work(), overtaking);
    (world, reference)
}

#[tokio::test]
async fn a_slow_worker_cannot_fail_what_another_has_sent_since() {
    for fault in [
        Fault::Refused { code: 21211, http_status: 400 },
        Fault::TooManyRequests { retry_after_s: None },
        Fault::DropBeforeAccepting,
    ] {
        let (mut world, reference) = booked_too_late(fault.clone()).await;
        world.expect_state(&reference, "accepted").await;
        let delivery = world.last_delivery(&reference).await;
        assert_eq!(delivery["attempts"].as_array().map(Vec::len), Some(2), "{fault:?}: {delivery}");
        world.pass_in_steps(s(60), s(5)).await;
        assert_eq!(world.calls(), 2, "{fault:?}");
        assert_eq!(world.on_the_phone(&reference).len(), 1, "{fault:?}");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_slow_worker_that_knows_nothing_does_not_unsay_what_another_has_found_out() {
    let (world, reference) = booked_too_late(Fault::DropBeforeAccepting).await;
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"][0]["result"], "not_found", "the other one looked for it: {delivery}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_slow_worker_whose_message_was_found_by_another_changes_nothing() {
    let (gate, mut world) = shared().await;
    let mut other = world.further_instance().await;
    let reference = world.told("student-1", 0.93).await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let clock = world.clock.clone();
    let overtaking = async {
        while gate.count("commit_alert") == 0 {
            tokio::time::sleep(ms(2)).await;
        }
        clock.advance(s(31));
        other.work().await;
        permits.add_permits(1);
    };
    tokio::join!(world.work(), overtaking);
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"].as_array().map(Vec::len), Some(1), "found, not sent again: {delivery}");
    assert_eq!(world.calls(), 1);
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn receipts_at_one_instance_are_known_to_the_other() {
    let (_, mut world) = shared().await;
    let mut other = world.further_instance().await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    // Both look when the receipts come in: the other instance has nothing left to ask Twilio for.
    world.receipts().await;
    world.receipts().await;
    world.clock.advance(s(60));
    tokio::join!(world.work(), other.work());
    assert_eq!(world.sim().stats().lookups, 0);
    world.expect_only(&reference, 1);
    world.taken_by_reply(&reference).await;
    world.clock.advance(s(300));
    tokio::join!(world.work(), other.work());
    assert_eq!(world.calls(), 1, "taken at one, taken at both");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_claim_in_doubt_is_not_taken_for_the_same_claim_that_another_made_at_the_same_instant() {
    let (gate, mut world) = shared().await;
    let mut other = world.further_instance().await;
    let references = waiting(&mut world, 1).await;
    world.clock.advance(s(1));
    let permits = Arc::new(Semaphore::new(0));
    let (held, mut is_first) = (Arc::clone(&permits), true);
    gate.set(move |call| match call.name {
        "commit_alert" if std::mem::take(&mut is_first) => Fate::Fail(StoreFault::Unknown),
        "audit_entries" => Fate::Wait(Arc::clone(&held)),
        _ => Fate::Pass,
    });
    // Whoever does not know what came of its claim looks only when the other one has made its own, and has called.
    let looked_at_late = async {
        while gate.count("commit_alert") < 3 {
            tokio::time::sleep(ms(2)).await;
        }
        permits.add_permits(100);
    };
    tokio::join!(world.work(), other.work(), looked_at_late);
    assert_eq!(world.calls(), 2, "one in vain, and one that is accepted");
    world.expect_only(&references[0], 1);
    world.holds_its_promises().await;
}
