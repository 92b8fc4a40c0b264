//! Another process that holds the database's locks.

use crisis_relay::simulator::{Fault, FaultRule};
use rusqlite::Connection;

use super::relay::{PATIENCE, Setting, text, timer, twilio, until, waiting};

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_process_is_told_to_callers_and_got_over_without_a_hand() {
    for lock in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let simulator = twilio().await;
        let sim = simulator.handle();
        let mut relay = Setting::new(&simulator.url()).start(&sim).await;
        // One waits for its next try while the lock is held, one is to be settled, and one comes meanwhile.
        sim.push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }));
        sim.push_fault(FaultRule::once(Fault::Slow { ms: 1_000 }));
        let mut references = vec![relay.escalated("student-1").await];
        until("the first call was refused", async || sim.stats().create_calls == 1).await;
        references.push(relay.escalated("student-2").await);
        until("the second call is under way", async || sim.stats().create_calls == 2).await;
        relay.consents("student-3").await;

        let other = Connection::open(relay.setting.database()).unwrap();
        other.execute_batch(lock).unwrap();
        relay.event("student-3").await.come_back();
        let (ready, checks) = relay.readiness().await;
        assert!(!ready && checks["store"] == "failing", "{lock}: {checks}");
        until("the worker has met the lock", async || relay.logged("cannot be worked on just now") >= 3).await;
        until("the call's outcome has met the lock", async || relay.logged("booking again") >= 1).await;
        assert!(relay.logged("locked") >= 1, "the log names what is wrong: {}", relay.log());
        assert_eq!(sim.stats().create_calls, 2, "nothing is sent that could not be booked before");
        drop(other);

        relay.until_ready().await;
        references.push(relay.event("student-3").await.expect(202).reference());
        let told = relay.all_told(&sim, &references).await;
        assert_eq!(told, [1, 1, 1], "{lock}: each once");
        relay.audit_verifies();
        relay.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_process_holds_at_the_start_is_refused_with_its_reason_and_taken_when_free() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (mut relay, reference) = waiting(&simulator, 2).await;
    relay.kill();

    let other = Connection::open(relay.setting.database()).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let begun = timer();
    let output = relay.setting.fails_to_start();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("crisis-relay cannot start") && said.contains("locked"), "{said}");
    assert!(begun() < PATIENCE, "it waits for the lock, but not for long");
    drop(other);

    let mut relay = relay.setting.clone().start(&sim).await;
    assert_eq!(relay.all_told(&sim, &[reference]).await, [1]);
    relay.audit_verifies();
    relay.stop();
}
