//! A Twilio that answers one byte a second.

use std::time::Duration;

use crisis_relay::simulator::CallbackMode;

use super::middleman::{Middleman, Wire};
use super::relay::{Setting, on_the_phone, twilio_with, until};

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_drip_end_by_the_time_of_the_whole_call_and_nothing_is_lost_or_sent_twice() {
    // No callback tells what came of a call: the service must find out.
    let simulator = twilio_with(CallbackMode::Manual).await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let setting = Setting::new(&wire.url())
        .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s")
        .with("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "1s")
        .with("CRISIS_RELAY__TWILIO__MAX_CONCURRENCY", "8")
        .with("CRISIS_RELAY__TWILIO__BREAKER_OPEN_MAX", "4s");
    let mut relay = setting.start(&sim).await;

    wire.set(Wire::CreatesDrip);
    let mut references = Vec::new();
    for number in 0..24 {
        // Taking events has nothing to wait for.
        let student = format!("student-{number}");
        let taken = tokio::time::timeout(Duration::from_secs(10), relay.escalated(&student)).await;
        references.push(taken.expect("a slow Twilio does not slow down intake"));
    }
    until("calls end by their time", async || relay.logged(r#""outcome":"unknown""#) >= 8).await;
    until("the breaker opens", async || relay.readiness().await.1["twilio"] == "failing").await;
    assert_eq!(relay.get("/readyz?exclude=twilio", "").await.status, 200, "events are still taken");
    // The wire sees that a call was given up when it writes the next byte: by then the one after it may have begun.
    assert!(wire.dripping_max() <= 16, "{} calls at one time", wire.dripping_max());
    until("unknown calls are looked up and found", async || relay.logged("was found at the provider") >= 8).await;

    wire.set(Wire::AllDrips);
    references.push(relay.escalated("student-all-drips").await);
    until("look-ups end by their time", async || relay.logged(r#""answered":false"#) >= 1).await;

    wire.set(Wire::Open);
    relay.all_told(&sim, &references).await;
    relay.until_ready().await;
    until("nothing is in hand", async || {
        relay.get("/metrics", "").await.text.lines().any(|line| line == "crisis_relay_in_hand 0")
    })
    .await;
    // Whose look-ups were answered was sent nothing twice; of the others a second is better than none.
    for reference in &references {
        let count = on_the_phone(&sim, reference).len();
        assert!(count <= 2, "{count} messages of one case");
    }
    relay.audit_verifies();
    relay.stop();
}
