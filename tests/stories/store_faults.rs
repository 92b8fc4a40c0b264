//! A store that fails, now and then or for a while, in every way that a store can: nothing that was accepted is lost,
//! nothing is accepted twice, and nobody has to lend a hand.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::ports::random;
use crisis_relay::simulator::{Fault as Trouble, FaultRule};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault, Gate};
use crate::common::stage::{event, ms, s};
use crate::common::{Answer, COUNSELLOR_KEY, SERVICE, Setting, World};

async fn gated() -> (Arc<Gate>, World) {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    (gate, world)
}

/// A refusal that tells the caller to come back.
#[track_caller]
fn come_back(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    let code = answer.text_at("/code");
    assert!(["unavailable", "time_out"].contains(&code.as_str()), "{answer:?}");
    assert!(!answer.text.contains("the story wants it"), "internal text reached the caller: {answer:?}");
}

/// Asks again with the same key until it is taken, as a backend does.
async fn until_taken(world: &World, student: &str) -> Answer {
    let path = format!("/api/v1/messaging/preferences/{student}");
    let agreed = json!({ "whatsapp": true, "source": "story" });
    let mut consented = false;
    for _ in 0..50 {
        let put = world.request(reqwest::Method::PUT, &path, Some(SERVICE), Some(&agreed)).await;
        consented = put.status == 200;
        if consented {
            break;
        }
        come_back(&put);
    }
    assert!(consented, "never taken");
    for _ in 0..50 {
        let answer = world.event_with_key(&event(student, 0.93), &format!("key-of-{student}")).await;
        if answer.status == 202 {
            return answer;
        }
        come_back(&answer);
    }
    panic!("never taken");
}

/// One call in `k` fails so, drawn from a seed (every k-th would meet the same step of each repetition); then the store
/// is well again. Each student has one case and one message.
async fn one_call_in(k: u64, fate: Fate, only_writes: bool) {
    let (gate, mut world) = gated().await;
    let shown = format!("{fate:?}, one in {k}");
    let dice = SeededEntropy::new(k);
    gate.set(move |call| {
        let struck = u64::from_le_bytes(random(&dice)).is_multiple_of(k) && (call.writes() || !only_writes);
        if struck { fate.clone() } else { Fate::Pass }
    });
    let mut references = Vec::new();
    for student in 0..5 {
        references.push(until_taken(&world, &format!("student-{student}")).await.text_at("/reference"));
        world.work().await;
    }
    world.pass_in_steps(s(20), s(1)).await;
    gate.open();
    world.pass_in_steps(s(90), s(1)).await;
    for reference in &references {
        assert_eq!(world.on_the_phone(reference).len(), 1, "{shown}: {reference}");
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
    let listed = world.get("/api/v1/crisis/alerts", COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(listed["alerts"].as_array().map(Vec::len), Some(5), "{shown}: one case each");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_store_that_is_often_unavailable_loses_and_doubles_nothing() {
    for k in [2, 3, 5] {
        one_call_in(k, Fate::Fail(Fault::Unavailable), false).await;
    }
}

#[tokio::test]
async fn a_store_that_often_cannot_tell_and_did_nothing_loses_and_doubles_nothing() {
    for k in [2, 3, 5] {
        one_call_in(k, Fate::Fail(Fault::Unknown), true).await;
    }
}

#[tokio::test]
async fn a_store_that_often_cannot_tell_and_did_it_loses_and_doubles_nothing() {
    for k in [2, 3, 5] {
        one_call_in(k, Fate::PassAndFail(Fault::Unknown), true).await;
    }
}

#[tokio::test]
async fn a_store_that_often_reads_badly_loses_and_doubles_nothing() {
    for k in [3, 5] {
        one_call_in(k, Fate::Fail(Fault::Corrupt), false).await;
    }
}

// -- intake -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_event_whose_commit_took_effect_unsaid_is_taken_once_and_sent_at_once() {
    let (gate, mut world) = gated().await;
    world.consents("student-1").await;
    gate.strike_first("commit_alert", Fate::PassAndFail(Fault::Unknown));
    let answer = world.event_with_key(&event("student-1", 0.93), "key-1").await.expect(202);
    world.work().await;
    world.expect_only(&answer.text_at("/reference"), 1);
    let again = world.event_with_key(&event("student-1", 0.93), "key-1").await.expect(202);
    assert_eq!(again.text, answer.text);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn an_event_whose_commit_was_lost_unsaid_is_refused_and_its_repetition_is_taken_once() {
    let (gate, mut world) = gated().await;
    world.consents("student-1").await;
    gate.strike_first("commit_alert", Fate::Fail(Fault::Unknown));
    come_back(&world.event_with_key(&event("student-1", 0.93), "key-1").await);
    world.work().await;
    assert_eq!(world.calls(), 0);
    let answer = world.event_with_key(&event("student-1", 0.93), "key-1").await.expect(202);
    assert_eq!(answer.text_at("/decision"), "escalated");
    world.work().await;
    world.expect_only(&answer.text_at("/reference"), 1);
}

#[tokio::test]
async fn an_event_of_which_the_store_could_never_tell_is_answered_by_its_repetition_and_sent_once() {
    let (gate, mut world) = gated().await;
    world.consents("student-1").await;
    gate.set(|call| match call.name {
        "commit_alert" => Fate::PassAndFail(Fault::Unknown),
        "audit_entries" => Fate::Fail(Fault::Unavailable),
        _ => Fate::Pass,
    });
    come_back(&world.event_with_key(&event("student-1", 0.93), "key-1").await);
    gate.open();
    let answer = world.event_with_key(&event("student-1", 0.93), "key-1").await.expect(202);
    assert_eq!(answer.headers["idempotent-replayed"], "true", "it had taken effect");
    // Nobody had it in hand: it is found when its lease is over.
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_only(&answer.text_at("/reference"), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_repeated_event_without_a_key_joins_the_case_and_does_not_double_the_message() {
    let (gate, mut world) = gated().await;
    world.consents("student-1").await;
    gate.set(|call| match call.name {
        "commit_alert" => Fate::PassAndFail(Fault::Unknown),
        "audit_entries" => Fate::Fail(Fault::Unavailable),
        _ => Fate::Pass,
    });
    come_back(&world.event(&event("student-1", 0.93)).await);
    gate.open();
    let answer = world.event(&event("student-1", 0.93)).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "merged");
    world.pass_in_steps(s(60), s(1)).await;
    world.expect_only(&answer.text_at("/reference"), 1);
}

#[tokio::test]
async fn a_graver_event_whose_commit_is_unknown_is_booked_once() {
    for fate in [Fate::Fail(Fault::Unknown), Fate::PassAndFail(Fault::Unknown)] {
        let (gate, mut world) = gated().await;
        let reference = world.told("student-1", 0.82).await;
        world.work().await;
        gate.strike_first("commit_alert", fate.clone());
        world.event(&event("student-1", 0.97)).await.expect(202);
        gate.open();
        world.work().await;
        world.expect_only(&reference, 2);
        assert_eq!(world.alert(&reference).await["events"], 2, "{fate:?}");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_score_below_the_threshold_is_refused_while_its_answer_cannot_be_kept() {
    let (gate, world) = gated().await;
    gate.strike_named("keep_answer", Fate::Fail(Fault::Unavailable));
    come_back(&world.event_with_key(&event("student-1", 0.3), "key-1").await);
    gate.open();
    let answer = world.event_with_key(&event("student-1", 0.3), "key-1").await.expect(202);
    assert_eq!(answer.text_at("/decision"), "below_threshold");
    assert!(!answer.headers.contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn a_person_who_hangs_up_in_the_middle_of_an_override_does_not_delay_the_message() {
    let (gate, mut world) = gated().await;
    let withheld = world.event(&event("student-1", 0.93)).await.expect(202);
    let reference = withheld.text_at("/reference");
    let path = format!("/api/v1/crisis/alerts/{reference}/escalate");
    let body = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::PassAndWait(Arc::clone(&permits)));
    tokio::select! {
        answer = world.post(&path, COUNSELLOR_KEY, &body) => panic!("answered before it was durable: {answer:?}"),
        () = world.until("it is on its way", async |_| gate.count("commit_alert") == 1) => {}
    }
    // The service notices that nobody waits for the answer any more.
    world.get("/api/v1/crisis/alerts", COUNSELLOR_KEY).await.expect(200);
    permits.add_permits(1);
    let mut tries = 0;
    while world.on_the_phone(&reference).is_empty() && tries < 100 {
        world.work().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        tries += 1;
    }
    world.expect_only(&reference, 1);
}

// -- the worker -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_store_that_fails_for_a_moment_delays_a_message_by_a_moment() {
    for (name, fault) in [
        ("alert", Fault::Unavailable),
        ("commit_alert", Fault::Unavailable),
        ("commit_alert", Fault::Unknown),
        ("due_alerts", Fault::Unavailable),
        ("due_alerts", Fault::Corrupt),
    ] {
        let (gate, mut world) = gated().await;
        world.goes_wrong(FaultRule::once(Trouble::TooManyRequests { retry_after_s: Some(1) }));
        let reference = world.told("student-1", 0.93).await;
        world.work().await;
        gate.strike_first(name, Fate::Fail(fault));
        world.pass_in_steps(s(3), ms(500)).await;
        assert_eq!(world.on_the_phone(&reference).len(), 1, "{name} {fault:?}: after two seconds");
    }
}

#[tokio::test]
async fn a_claim_that_took_effect_unsaid_is_sent_and_not_waited_for() {
    let (gate, mut world) = gated().await;
    world.goes_wrong(FaultRule::once(Trouble::TooManyRequests { retry_after_s: Some(1) }));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    gate.strike_first("commit_alert", Fate::PassAndFail(Fault::Unknown));
    world.pass(s(1)).await;
    world.expect_only(&reference, 1);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_booked_while_the_lease_lasts_is_found_out_again() {
    let (gate, mut world) = gated().await;
    let reference = world.told("student-1", 0.93).await;
    gate.strike_named("commit_alert", Fate::Fail(Fault::Unavailable));
    world.work().await;
    assert!(world.now() > crate::common::START.parse::<jiff::Timestamp>().unwrap() + s(30), "it tried for a lease");
    gate.open();
    world.pass_in_steps(s(30), s(1)).await;
    assert_eq!(world.calls(), 1, "looked up, not sent again");
    world.expect_state(&reference, "accepted").await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn nothing_is_sent_that_could_not_be_booked_before() {
    // As on a full disk: everything can be read, nothing can be written.
    let (gate, mut world) = gated().await;
    let fault = Trouble::TooManyRequests { retry_after_s: Some(1) };
    world.goes_wrong(FaultRule::once(fault));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    gate.set(|call| if call.writes() { Fate::Fail(Fault::Unavailable) } else { Fate::Pass });
    let calls = world.calls();
    world.pass_in_steps(s(20), s(1)).await;
    assert_eq!(world.calls(), calls, "no claim, no call");
    let (ready, checks) = world.readiness().await;
    assert!(!ready && checks["store"] == "failing", "{checks}");
    come_back(&world.event_with_key(&event("student-2", 0.93), "key-2").await);
    gate.open();
    world.pass_in_steps(s(2), s(1)).await;
    assert!(world.readiness().await.0, "without a hand");
    world.expect_only(&reference, 1);
    world.told("student-2", 0.93).await;
}

#[tokio::test]
async fn an_alert_that_cannot_be_read_does_not_hold_up_the_others_and_goes_on_when_mended() {
    let (gate, mut world) = gated().await;
    world.goes_wrong(FaultRule::next(6, Trouble::TooManyRequests { retry_after_s: Some(1) }));
    let mut references = Vec::new();
    for student in 0..6 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    for fate in [Fate::Fail(Fault::Corrupt), Fate::Panic] {
        let damaged = world.stored(&references[0]).await.id;
        let struck = fate.clone();
        gate.set(move |call| if call.alert == Some(damaged) { struck.clone() } else { Fate::Pass });
        world.pass_in_steps(s(5), ms(500)).await;
        for reference in &references[1..] {
            assert_eq!(world.on_the_phone(reference).len(), 1, "{fate:?}");
        }
        assert_eq!(world.on_the_phone(&references[0]).len(), 0);
        assert!(gate.count("alert") < 10, "it is left alone for a while, not asked for without end");
    }
    gate.open();
    world.pass_in_steps(s(35), s(1)).await;
    assert_eq!(world.on_the_phone(&references[0]).len(), 1, "mended");
}

#[tokio::test]
async fn an_alert_that_makes_a_round_panic_does_not_hold_up_the_others() {
    let (gate, mut world) = gated().await;
    world.goes_wrong(FaultRule::next(6, Trouble::TooManyRequests { retry_after_s: Some(1) }));
    let mut references = Vec::new();
    for student in 0..6 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    let damaged = world.stored(&references[0]).await.id;
    gate.set(move |call| if call.alert == Some(damaged) { Fate::Panic } else { Fate::Pass });
    let worker = world.run_worker(s(1));
    for _ in 0..10 {
        world.worker_asleep().await;
        world.clock.advance(ms(500));
    }
    for reference in &references[1..] {
        let fits = |message: &crisis_relay::simulator::SimMessage| message.body.contains(reference);
        world.sim().await_message(crate::common::COUNSELLOR, s(5), fits).await.unwrap();
    }
    worker.stopped().await;
}

#[tokio::test]
async fn a_recovery_that_meets_a_failing_store_for_a_moment_still_takes_up_what_was_in_hand() {
    for name in ["unfinished_alerts", "alert", "commit_alert"] {
        let gate = Gate::new();
        let world = Setting::default().with_gate(&gate).without_recovery().start().await;
        let reference = world.told("student-1", 0.93).await;
        let mut world = world.crash().await;
        gate.strike_first(name, Fate::Fail(Fault::Unavailable));
        let worker = world.run_worker(s(1));
        let arrived = async {
            let fits = |message: &crisis_relay::simulator::SimMessage| message.body.contains(&reference);
            let message = world.sim().await_message(crate::common::COUNSELLOR, s(5), fits).await;
            message.unwrap_or_else(|told| panic!("{name}: {told}"));
        };
        // Looked up twice, in vain, and sent again; far below the lease that it was in hand under.
        let time = async {
            for _ in 0..30 {
                world.worker_asleep().await;
                world.clock.advance(ms(500));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = arrived => {}
            () = time => {}
        }
        worker.stopped().await;
    }
}

// -- real SQLite ------------------------------------------------------------------------------------------------------

/// Another process that holds the write lock.
fn lock(world: &World) -> Connection {
    let other = Connection::open(world.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test]
async fn a_database_that_another_process_locks_is_told_and_got_over() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__STORE__BUSY_TIMEOUT", "100ms")
        .start_with(FaultRule::once(Trouble::TooManyRequests { retry_after_s: Some(1) }))
        .await;
    let reference = world.told("student-1", 0.93).await;
    world.consents("student-2").await;
    world.work().await;
    let other = lock(&world);
    come_back(&world.event_with_key(&event("student-2", 0.93), "key-2").await);
    let (ready, checks) = world.readiness().await;
    assert!(!ready && checks["store"] == "failing", "{checks}");
    world.get("/api/v1/crisis/alerts", COUNSELLOR_KEY).await;
    world.pass(s(2)).await;
    assert_eq!(world.calls(), 1, "a claim that cannot be booked is not made");

    other.execute_batch("ROLLBACK").unwrap();
    world.pass_in_steps(s(2), ms(500)).await;
    assert!(world.readiness().await.0);
    assert_eq!(world.on_the_phone(&reference).len(), 1, "at once, without a hand");
    let answer = world.event_with_key(&event("student-2", 0.93), "key-2").await.expect(202);
    world.work().await;
    world.expect_on_the_phone(&reference);
    world.expect_only(&answer.text_at("/reference"), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn twenty_events_against_a_locked_database_are_all_told_to_come_back_and_then_taken_once() {
    let mut world = Setting::default().with("CRISIS_RELAY__STORE__BUSY_TIMEOUT", "100ms").start().await;
    for student in 0..20 {
        world.consents(&format!("student-{student}")).await;
    }
    let other = lock(&world);
    let bodies: Vec<Value> = (0..20).map(|student| event(&format!("student-{student}"), 0.93)).collect();
    let keys: Vec<String> = (0..20).map(|student| format!("key-{student}")).collect();
    let all = async || {
        let posts = bodies.iter().zip(&keys).map(|(body, key)| world.event_with_key(body, key));
        futures::future::join_all(posts).await
    };
    for answer in all().await {
        come_back(&answer);
    }
    other.execute_batch("ROLLBACK").unwrap();
    let answers = all().await;
    let references: Vec<String> = answers.into_iter().map(|answer| answer.expect(202).text_at("/reference")).collect();
    world.work().await;
    for reference in &references {
        world.expect_on_the_phone(reference);
    }
    world.sim().assert_no_unexpected();
    world.holds_its_promises().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_made_read_only_does_not_stop_a_service_that_has_it_open() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::new().await;
    for suffix in ["", "-wal", "-shm"] {
        let mut path = world.database().into_os_string();
        path.push(suffix);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    assert!(world.readiness().await.0);
    world.expect_only(&reference, 1);
    // And it starts again on it: the file is its own, and it gives itself the right back.
    let mut world = world.crash().await;
    let second = world.told("student-2", 0.93).await;
    world.work().await;
    world.expect_only(&second, 1);
}

#[tokio::test]
async fn a_consent_whose_commit_took_effect_unsaid_is_recorded_once() {
    let (gate, mut world) = gated().await;
    gate.strike_first("commit_consent", Fate::PassAndFail(Fault::Unknown));
    world.consents("student-1").await;
    gate.strike_first("commit_consent", Fate::Fail(Fault::Unknown));
    world.consents("student-2").await;
    let records = world.chains().await;
    for stream in records.iter().filter(|stream| stream.to_string().starts_with("consent/")) {
        assert_eq!(world.store().audit_head(stream).await.unwrap().seq, 1, "{stream}");
    }
    let reference = world.told("student-2", 0.93).await;
    world.work().await;
    world.expect_only(&reference, 1);
    world.holds_its_promises().await;
}
