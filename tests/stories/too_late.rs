//! What hangs until nobody waits for it any more is not done late: somebody may have spoken or acted since.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::stage::{event, s};
use crate::common::{ADMIN, Answer, COUNSELLOR_KEY, SERVICE, Setting, World};

const STUDENT: &str = "student-1";
const PREFERENCES: &str = "/api/v1/messaging/preferences/student-1";

async fn gated() -> (Arc<Gate>, World) {
    let gate = Gate::new();
    let setting = Setting::default()
        .with_gate(&gate)
        .with("CRISIS_RELAY__HTTP__HEADER_TIMEOUT", "1s")
        .with("CRISIS_RELAY__HTTP__REQUEST_TIMEOUT", "1s");
    (gate, setting.start().await)
}

async fn says(world: &World, whatsapp: bool) -> Answer {
    let body = json!({ "whatsapp": whatsapp, "source": "app" });
    world.request(Method::PUT, PREFERENCES, Some(SERVICE), Some(&body)).await
}

/// A request that reads in vain until it is answered that nobody knows. What it reads is held until told to go on.
async fn hangs(gate: &Gate, read: &'static str, request: impl Future<Output = Answer>) -> Arc<Semaphore> {
    let held = Arc::new(Semaphore::new(0));
    gate.strike_first(read, Fate::Wait(Arc::clone(&held)));
    let answer = request.await.expect(503);
    assert_eq!(answer.text_at("/code"), "time_out");
    assert_eq!(Arc::strong_count(&held), 2, "it still reads");
    held
}

/// The read comes back. Once it has, all that follows without a further read has been done, too.
async fn comes_back(world: &World, held: &Arc<Semaphore>) {
    held.add_permits(1);
    world.until("the read has come back", async |_| Arc::strong_count(held) == 1).await;
}

async fn state(world: &World, reference: &str) -> Value {
    world.alert(reference).await["state"].clone()
}

#[tokio::test]
async fn a_yes_that_hung_does_not_come_after_a_no_that_was_confirmed() {
    let (gate, mut world) = gated().await;
    let held = hangs(&gate, "consent", says(&world, true)).await;
    world.clock.advance(s(60));
    says(&world, false).await.expect(200);
    comes_back(&world, &held).await;

    assert_eq!(gate.count("commit_consent"), 1, "the no alone");
    let stands = world.get(PREFERENCES, SERVICE).await.expect(200).json();
    assert_eq!((&stands["version"], &stands["channels"]["whatsapp"]["granted"]), (&json!(1), &json!(false)));
    let answer = world.event(&event(STUDENT, 0.93)).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "withheld_no_consent");
    world.work().await;
    assert_eq!(world.calls(), 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_yes_that_hung_stays_late_on_a_clock_that_was_set_back() {
    let (gate, world) = gated().await;
    let held = hangs(&gate, "consent", says(&world, true)).await;
    world.clock.set(world.now() - s(3600));
    says(&world, false).await.expect(200);
    comes_back(&world, &held).await;
    assert_eq!(gate.count("commit_consent"), 1, "the no alone");
}

#[tokio::test]
async fn an_outcome_that_hung_does_not_close_a_case_that_has_got_graver() {
    let (gate, mut world) = gated().await;
    let id = world.escalated(STUDENT).await.text_at("/alert_id");
    world.work().await;
    let path = format!("/api/v1/crisis/alerts/{id}/resolve");
    let outcome = json!({ "outcome": "safe_by_phone" });
    let held = hangs(&gate, "alert", world.post(&path, COUNSELLOR_KEY, &outcome)).await;
    world.clock.advance(s(3600));
    world.event(&event(STUDENT, 0.99)).await.expect(202);
    comes_back(&world, &held).await;
    assert_eq!(state(&world, &id).await, "escalating");
    world.post(&path, COUNSELLOR_KEY, &outcome).await.expect(200);
    assert_eq!(state(&world, &id).await, "resolved", "who asks anew is heard");
}

#[tokio::test]
async fn an_override_that_hung_tells_nobody_later() {
    let (gate, mut world) = gated().await;
    let id = world.event(&event(STUDENT, 0.93)).await.expect(202).text_at("/alert_id");
    let path = format!("/api/v1/crisis/alerts/{id}/escalate");
    let stated = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    let held = hangs(&gate, "alert", world.post(&path, ADMIN, &stated)).await;
    world.clock.advance(s(60));
    comes_back(&world, &held).await;
    world.work().await;
    assert_eq!(state(&world, &id).await, "withheld");
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn an_event_that_hung_is_taken_late_rather_than_never() {
    let (gate, mut world) = gated().await;
    says(&world, true).await.expect(200);
    let held = hangs(&gate, "intake_context", world.event(&event(STUDENT, 0.93))).await;
    world.clock.advance(s(60));
    held.add_permits(1);
    let listed = async |world: &World| world.get("/api/v1/crisis/alerts", COUNSELLOR_KEY).await.json();
    world.until("it is taken", async |world| listed(world).await["alerts"] != json!([])).await;
    world.pass_in_steps(s(120), s(5)).await;
    assert_eq!(world.calls(), 1);
}
