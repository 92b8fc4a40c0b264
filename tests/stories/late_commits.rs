//! A distributed store's commit that arrives after its answer was given up, and after it was looked for in vain: what
//! `Service::look_up_commit` says is safe. The caller was told to come back; whether they do or not, and before or after
//! it arrives, the student's case is there once, and people are told of it once.

use std::sync::Arc;

use crisis_relay::ports::Committed;
use reqwest::Method;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::stage::{event, ms, s};
use crate::common::{Answer, SERVICE, Setting, World};

const STUDENT: &str = "student-1";

/// Longer than the lease of whoever claimed the message, and the look-ups after it.
const LEASE_AND_LOOK_UPS: u64 = 45;

async fn world() -> (Arc<Gate>, World) {
    let gate = Gate::shared();
    let world = Setting::default().with_gate(&gate).start().await;
    world.consents(STUDENT).await;
    (gate, world)
}

/// A caller without a key was told to come back, and their event's commit is still on its way.
async fn given_up() -> (Arc<Gate>, World) {
    let (gate, world) = world().await;
    gate.strike_first("commit_alert", Fate::Late);
    come_back(&world.event(&event(STUDENT, 0.93)).await);
    assert_eq!(gate.count("audit_entries"), 1, "it was not looked for");
    assert_eq!(cases(&world).await, [""; 0], "it has not arrived");
    (gate, world)
}

fn come_back(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}

/// The references of all cases that are stored.
async fn cases(world: &World) -> Vec<String> {
    let alerts = world.store().list_alerts(&"default".parse().unwrap(), None, None, 100).await.unwrap();
    alerts.iter().map(|alert| alert.reference.as_str().to_owned()).collect()
}

/// How many events the case has.
async fn events_of(world: &World, reference: &str) -> u64 {
    u64::from(world.stored(reference).await.events)
}

#[tokio::test]
async fn what_arrives_late_and_is_not_repeated_is_told_when_its_lease_is_over() {
    let (gate, mut world) = given_up().await;
    let mut other = world.further_instance().await;
    assert_eq!(gate.arrive().await, [Committed::Committed]);
    let references = cases(&world).await;
    tokio::join!(world.work(), other.work());
    assert_eq!(world.calls(), 0, "its lease lasts, and whoever claimed it might have it in hand");

    for _ in 0..LEASE_AND_LOOK_UPS {
        world.clock.advance(s(1));
        tokio::join!(world.work(), other.work());
    }

    assert_eq!(references.len(), 1);
    world.expect_only(&references[0], 1);
    assert_eq!(world.calls(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_arrives_after_its_repetition_was_taken_is_refused() {
    let (gate, mut world) = given_up().await;
    let repeated = world.event(&event(STUDENT, 0.93)).await.expect(202);
    assert_eq!(repeated.text_at("/decision"), "escalated");
    let reference = repeated.text_at("/reference");
    world.work().await;
    world.expect_only(&reference, 1);
    let before = world.kept().await;

    let came_to = gate.arrive().await;

    assert!(matches!(came_to[..], [Committed::SubjectHasOpenAlert | Committed::DataKeyExists]), "{came_to:?}");
    assert_eq!(world.kept().await, before, "what was refused changed something");
    world.pass_in_steps(s(LEASE_AND_LOOK_UPS), s(5)).await;
    world.expect_only(&reference, 1);
    assert_eq!(cases(&world).await, [reference]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_repetition_of_what_has_arrived_joins_it_and_it_is_told_once() {
    let (gate, mut world) = given_up().await;
    assert_eq!(gate.arrive().await, [Committed::Committed]);

    let repeated = world.event(&event(STUDENT, 0.93)).await.expect(202);

    assert_eq!(repeated.text_at("/decision"), "merged");
    let reference = repeated.text_at("/reference");
    assert_eq!(cases(&world).await, std::slice::from_ref(&reference));
    assert_eq!(events_of(&world, &reference).await, 2, "an event too many is the worst");
    world.pass_in_steps(s(LEASE_AND_LOOK_UPS), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn with_a_key_the_repetition_of_what_has_arrived_gets_the_answer_that_was_never_given() {
    let (gate, mut world) = world().await;
    gate.strike_first("commit_alert", Fate::Late);
    come_back(&world.event_with_key(&event(STUDENT, 0.93), "key-1").await);
    assert_eq!(gate.arrive().await, [Committed::Committed]);

    let repeated = world.event_with_key(&event(STUDENT, 0.93), "key-1").await.expect(202);

    assert!(repeated.headers.contains_key("idempotent-replayed"), "{repeated:?}");
    let reference = repeated.text_at("/reference");
    assert_eq!(events_of(&world, &reference).await, 1, "its key tells that it is the same");
    world.pass_in_steps(s(LEASE_AND_LOOK_UPS), s(1)).await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_arrives_after_the_student_took_their_word_back_is_refused_and_tells_nobody() {
    let (gate, mut world) = given_up().await;
    let path = format!("/api/v1/messaging/preferences/{STUDENT}");
    let no = json!({ "whatsapp": false, "source": "story" });
    world.request(Method::PUT, &path, Some(SERVICE), Some(&no)).await.expect(200);

    assert_eq!(gate.arrive().await, [Committed::ConsentChanged]);

    world.pass_in_steps(s(LEASE_AND_LOOK_UPS), s(5)).await;
    assert_eq!(world.calls(), 0, "somebody was told on a word that was taken back");
    // Their caller comes back: the case is there for people, and waits for one of them.
    let repeated = world.event(&event(STUDENT, 0.93)).await.expect(202);
    assert_eq!(repeated.text_at("/decision"), "withheld_no_consent");
    world.holds_its_promises().await;
}

/// A case that was told, and a graver event of the same student, whose commit is late. `arrives_first`: before the next try
/// is made, else after it.
async fn a_graver_event_comes_late(arrives_first: bool) -> (World, String, Vec<Committed>) {
    let (gate, mut world) = world().await;
    let reference = world.event(&event(STUDENT, 0.83)).await.expect(202).text_at("/reference");
    world.work().await;
    world.expect_only(&reference, 1);
    let permits = Arc::new(Semaphore::new(0));
    let (held, mut tries) = (Arc::clone(&permits), 0);
    gate.set(move |call| {
        tries += usize::from(call.name == "commit_alert");
        match (call.name, tries) {
            ("commit_alert", 1) => Fate::Late,
            ("commit_alert", 2) => Fate::Wait(Arc::clone(&held)),
            _ => Fate::Pass,
        }
    });
    let arriving = async {
        while gate.count("commit_alert") < 2 {
            tokio::time::sleep(ms(2)).await;
        }
        let early = if arrives_first { gate.arrive().await } else { Vec::new() };
        permits.add_permits(1);
        early
    };
    let graver = event(STUDENT, 0.97);
    let (answer, early) = tokio::join!(world.event(&graver), arriving);
    assert_eq!(answer.expect(202).text_at("/decision"), "merged");
    let came_to = [early, gate.arrive().await].concat();
    world.pass_in_steps(s(LEASE_AND_LOOK_UPS), s(1)).await;
    (world, reference, came_to)
}

#[tokio::test]
async fn a_late_change_that_arrives_before_the_next_try_stands_and_people_are_told_once_more_not_twice() {
    let (world, reference, came_to) = a_graver_event_comes_late(true).await;
    assert_eq!(came_to, [Committed::Committed]);
    assert_eq!(events_of(&world, &reference).await, 3, "the try joined once more: an event too many is the worst");
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_late_change_that_arrives_after_the_next_try_is_refused() {
    let (world, reference, came_to) = a_graver_event_comes_late(false).await;
    assert_eq!(came_to, [Committed::VersionConflict]);
    assert_eq!(events_of(&world, &reference).await, 2);
    world.expect_only(&reference, 2);
    world.holds_its_promises().await;
}
