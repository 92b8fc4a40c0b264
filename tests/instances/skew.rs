//! Instances whose clocks differ. A lease ends by the clock of whoever looks at it: where that clock is ahead, it ends so
//! much earlier. So leases must be longer than two calls and the skew together, as the default's 30 s are.

use std::process::Command;

use crisis_relay::simulator::{Fault, FaultRule};
use jiff::Timestamp;

use crate::burst::events;
use crate::college::{College, prompt_receipts, say};
use crate::load::{Book, burst};
use crate::relay::{Setting, on_the_phone, timer};
use crate::verdict::all_is_well;

/// How far each clock is ahead of the machine's.
const AHEAD_MS: [i64; 3] = [0, 2_500, 5_000];
/// Longer than twice the two seconds of a call, and five of skew.
const LEASE: &str = "10s";
/// Events, unless `INSTANCES_EVENTS` says otherwise.
const EVENTS: usize = 90;
/// How exactly the skew must be there.
const TOLERANCE_MS: i64 = 500;

/// The same setting, with a clock that is so much ahead.
fn ahead(setting: Setting, ms: i64) -> Setting {
    let (source, library) = (setting.folder().join("clock.c"), setting.folder().join("clock.so"));
    std::fs::write(&source, include_str!("clock.c")).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let built = built.unwrap_or_else(|error| panic!("cc is needed, as it is to build the service: {error}"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    setting.with("LD_PRELOAD", library.to_str().unwrap()).with("CLOCK_OFFSET_MS", &ms.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_clocks_five_seconds_apart_and_a_twilio_that_fails_every_event_arrives_once() {
    let Some(college) = College::fresh(prompt_receipts()).await else { return };
    let sim = college.twilio();
    let mut instances = Vec::new();
    let mut references = Vec::new();
    for (number, ms) in AHEAD_MS.into_iter().enumerate() {
        let relay = college.start(ahead(college.setting().with("CRISIS_RELAY__DELIVERY__LEASE", LEASE), ms)).await;
        college.callbacks_go_to(&relay);
        let (_, reference) = college.name_of(&relay, &format!("first-of-{number}")).await;
        differs_by(&college, &reference, ms).await;
        references.push(reference);
        instances.push(relay);
    }
    for (seed, fault) in (1..).zip([
        Fault::DropAfterAccepting,
        Fault::TooManyRequests { retry_after_s: Some(1) },
        Fault::ServerError { http_status: 503, retry_after_s: None },
        Fault::CallbacksLost,
    ]) {
        assert!(sim.push_fault(FaultRule::with_probability(0.08, seed, fault)), "the simulator takes a rule");
    }

    let book = Book::default();
    let since = timer();
    burst(&instances, events(EVENTS), &book).await;
    let answered_within = since();
    references.extend(book.references());
    let twice = all_is_well(&college, &instances[0], &references).await;
    let stats = sim.stats();
    say(&format!(
        "skew: clocks ahead by {AHEAD_MS:?} ms, leases of {LEASE}: {} events answered in {answered_within:.1?}, {} calls \
         for {} messages, {} look-ups and polls; {} told twice",
        book.answered(),
        stats.create_calls,
        stats.created,
        stats.lookups,
        twice.len()
    ));
    assert!(stats.create_calls > stats.created, "no call failed: that proves nothing");
    assert!(twice.is_empty(), "told twice, though Twilio could be asked each time: {twice:?}");
}

/// Fails unless the instance that took this case just now has the clock that it was given.
async fn differs_by(college: &College, reference: &str, ms: i64) {
    let alerts = college.alerts().await;
    let alert = alerts.iter().find(|alert| alert.reference.as_str() == reference).unwrap();
    let told: Timestamp = on_the_phone(&college.twilio(), reference)[0].created_at;
    let ahead = alert.opened_at.as_millisecond() - told.as_millisecond();
    assert!((ahead - ms).abs() < TOLERANCE_MS, "its clock is {ahead} ms ahead, not {ms}");
}
