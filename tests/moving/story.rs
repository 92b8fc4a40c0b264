//! A service goes on with what was copied, as if nothing had been.

use crisis_relay::simulator::{Fault, FaultRule, Inbound, Quote};
use serde_json::json;

use crate::emulator::{emulator, project};
use crate::installation::{by_emulator, copies, further_event, is_not_served, on_file, on_firestore, place};
use crate::relay::{COUNSELLOR, COUNSELLOR_KEY, Setting, on_the_phone, twilio, until};

/// `moved` names a place, and gives the service that is started there.
async fn a_college_moves(moved: impl Fn(&Setting) -> (Setting, String, Setting)) {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let mut relay = Setting::new(&simulator.url()).start(&sim).await;
    let (ada, ben) = (relay.escalated("ada").await, relay.escalated("ben").await);
    relay.all_told(&sim, &[ada.clone(), ben.clone()]).await;
    // Twilio takes nothing more: what comes now waits, and is due when the service ends.
    sim.push_fault(FaultRule::always(Fault::TooManyRequests { retry_after_s: Some(1) }));
    let cleo = relay.escalated("cleo").await;
    until("cleo's message was refused", async || sim.stats().create_calls > 2).await;
    let of_ben = relay.event("ben").await.expect(202).text;
    relay.stop();
    assert!(on_the_phone(&sim, &cleo).is_empty(), "cleo's message was to wait");
    sim.clear_faults();

    let before = relay.setting.clone();
    let (copier, to, after) = moved(&before);
    copies(&copier, "after its end", &place(&before.database()), &to, &[]);
    is_not_served(&before, "after the move", &format!("was moved to {to}"));
    let mut relay = after.start(&sim).await;

    // What was due is sent, and what was sent is not sent again.
    let told = relay.all_told(&sim, &[ada.clone(), ben.clone(), cleo.clone()]).await;
    assert_eq!(told, [1, 1, 1], "messages of ada's, ben's and cleo's cases");
    // An event that was answered before gets the same answer, and a new one joins the open case.
    assert_eq!(relay.event("ben").await.expect(202).text, of_ben, "the answer to a key of before");
    let joined = further_event(&relay, "ben", "after-the-move").await;
    assert_eq!((&joined["decision"], &joined["reference"]), (&json!("merged"), &json!(ben)), "{joined}");
    // A reply to a message of before takes the case.
    let message = on_the_phone(&sim, &ada).remove(0).sid;
    let reply = sim.receive(&Inbound::new(COUNSELLOR, "1").quoting(Quote::Sid(message))).await.unwrap();
    assert!(
        reply.http_status == 200 && reply.answers.iter().any(|answer| answer.contains(&ada)),
        "{:?}",
        reply.answers
    );
    for (reference, state) in [(&ada, "acknowledged"), (&ben, "escalating"), (&cleo, "escalating")] {
        let alert = relay.get(&format!("/api/v1/crisis/alerts/{reference}"), COUNSELLOR_KEY).await.expect(200);
        assert_eq!(alert.json()["state"], state, "{reference}");
    }
    relay.audit_verifies();
    relay.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_goes_on_with_what_was_copied_to_another_file() {
    a_college_moves(|setting| {
        let file = setting.folder().join("data/moved.db");
        (setting.clone(), place(&file), on_file(setting, &file))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_goes_on_with_what_was_copied_to_firestore() {
    let Some(host) = emulator() else { return };
    let project = project();
    a_college_moves(|setting| {
        let to = format!("firestore:{project}/(default)");
        (by_emulator(setting, host), to, on_firestore(setting, host, &project))
    })
    .await;
}
