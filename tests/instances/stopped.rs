//! An instance that stands still (a pause of the machine, a debugger, a full disk below it) for longer than its leases.

use std::fmt::Debug;

use crisis_relay::domain::alert::Alert;
use crisis_relay::simulator::{CallbackMode, Fault, FaultRule};
use reqwest::Method;

use crate::college::{College, LEASE, accepted_by, is_in_hand_of, is_settled, say, students};
use crate::relay::{SERVICE, timer, until};
use crate::verdict::all_is_well;

/// Calls that the stopped instance makes at one time: the others wait in it for their turn.
const CALLS: u32 = 3;
/// Messages in its hand.
const MESSAGES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stood_still_past_its_leases_undoes_nothing_of_what_the_other_did_meanwhile() {
    // Nothing comes from Twilio by itself: whatever changes a case is the instances' doing.
    let Some(college) = College::fresh(CallbackMode::Manual).await else { return };
    let sim = college.twilio();
    let narrow = college.setting().with("CRISIS_RELAY__TWILIO__MAX_CONCURRENCY", &CALLS.to_string());
    let (stopped, other) = (college.start(narrow).await, college.start(college.setting()).await);
    college.callbacks_go_to(&other);
    let (name, first) = college.name_of(&stopped, "first").await;

    // Two calls whose answers come while it stands still, and one that Twilio never carries out.
    sim.push_fault(FaultRule::next(CALLS - 1, Fault::Slow { ms: 1_500 }));
    sim.push_fault(FaultRule::next(1, Fault::TimeOutWithoutAccepting));
    let references = accepted_by(&stopped, &students("held", MESSAGES)).await;
    until("its calls are under way", async || sim.stats().create_calls > u64::from(CALLS)).await;
    stopped.signal("-STOP");
    let since = timer();
    let alerts = college.alerts().await;
    let in_hand = alerts.iter().filter(|alert| is_in_hand_of(alert, &name)).count();
    assert!(in_hand > usize::try_from(CALLS).unwrap(), "only {in_hand} are in its hand: none waits for its turn");

    until("the other has taken all over", async || college.alerts().await.iter().all(is_settled)).await;
    let taken_over = since();
    let before = college.alerts().await;
    let told = sim.messages().len();

    stopped.signal("-CONT");
    stopped.until_ready().await;
    let nothing_in_hand = async || {
        let ran = stopped.send(stopped.request(Method::POST, "/api/v1/tasks/run-due", SERVICE)).await;
        ran.status == 200 && ran.json()["caught_up"] == true
    };
    until("it has nothing in its hand any more", nothing_in_hand).await;
    for (before, now) in before.iter().zip(&college.alerts().await) {
        assert_eq!(standing(now), standing(before), "it changed what it no longer held");
    }
    assert_eq!(sim.messages().len(), told, "it sent what it no longer held");

    // It works as ever.
    let after = stopped.escalated("afterwards").await;
    let all = [vec![first, after], references].concat();
    let twice = all_is_well(&college, &other, &all).await;
    say(&format!(
        "stopped: {in_hand} messages in its hand, all told and booked by the other {taken_over:.1?} after it stopped, under \
         a lease of {LEASE:?}; {} told twice",
        twice.len()
    ));
    assert!(twice.len() <= usize::try_from(CALLS).unwrap(), "told twice without a call under way: {twice:?}");
}

/// Where a case stands. What came of a call may still be noted in that attempt's own record, however late it is known; it
/// moves nothing.
fn standing(alert: &Alert) -> impl PartialEq + Debug + use<> {
    let deliveries = alert.deliveries.iter();
    let deliveries: Vec<_> = deliveries.map(|delivery| (delivery.attempts.len(), delivery.state.clone())).collect();
    (alert.id, alert.state.clone(), alert.audit_head, deliveries)
}
