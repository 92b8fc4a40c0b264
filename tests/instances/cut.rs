//! An instance that no longer reaches the store, while it still reaches Twilio and its callers reach it.

use std::time::Duration;

use crisis_relay::simulator::{CallbackMode, Fault, FaultRule};

use crate::college::{College, LEASE, accepted_by, is_in_hand_of, is_settled, say, students};
use crate::proxy::{Proxy, Way};
use crate::relay::{timer, until};
use crate::verdict::all_is_well;

/// Messages whose calls are under way when the cut comes.
const UNDER_WAY: u32 = 4;
/// Messages that wait for their next try then.
const WAITING: u32 = 4;
/// What nobody could answer is told within this time.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cut_off_from_the_store_says_so_and_the_other_takes_over_what_it_held() {
    // No callback tells what the one that is cut off cannot book.
    let Some(college) = College::fresh(CallbackMode::Manual).await else { return };
    let sim = college.twilio();
    let proxy = Proxy::before(college.host()).await;
    let behind_it = college
        .setting()
        .with("FIRESTORE_EMULATOR_HOST", &proxy.host())
        .with("CRISIS_RELAY__STORE__FIRESTORE__READ_TIMEOUT", "1s")
        .with("CRISIS_RELAY__STORE__FIRESTORE__COMMIT_TIMEOUT", "2s");
    let (cut_off, other) = (college.start(behind_it).await, college.start(college.setting()).await);
    college.callbacks_go_to(&other);
    let (name, first) = college.name_of(&cut_off, "first").await;
    cut_off.consents("refused").await;

    let waiting = FaultRule::next(WAITING, Fault::TooManyRequests { retry_after_s: Some(4) });
    sim.push_fault(waiting);
    let mut references = accepted_by(&cut_off, &students("waits", usize::try_from(WAITING).unwrap())).await;
    let created =
        async |calls: u32| until("calls are made", async || sim.stats().create_calls > u64::from(calls)).await;
    created(WAITING).await;
    sim.push_fault(FaultRule::next(UNDER_WAY, Fault::Slow { ms: 1_500 }));
    references.extend(accepted_by(&cut_off, &students("called", usize::try_from(UNDER_WAY).unwrap())).await);
    created(WAITING + UNDER_WAY).await;
    proxy.set(Way::Silent);
    let since = timer();
    let alerts = college.alerts().await;
    let in_hand = alerts.iter().filter(|alert| is_in_hand_of(alert, &name)).count();
    assert!(in_hand > 0, "it was cut off with nothing in its hand");

    until("it calls itself not ready", async || !cut_off.readiness().await.0).await;
    let not_ready = since();
    let refused = timer();
    cut_off.event("refused").await.expect(503);
    assert!(refused() < REFUSED_WITHIN, "the refusal took {:?}", refused());
    // Its caller turns to the other one, with the same key.
    references.push(other.event("refused").await.expect(202).reference());
    until("the other has taken all over", async || college.alerts().await.iter().all(is_settled)).await;
    let taken_over = since();
    assert!(!cut_off.readiness().await.0, "it is still cut off");

    proxy.set(Way::Open);
    // What was lost on the way has made these connections useless.
    proxy.cut();
    let healed = timer();
    cut_off.until_ready().await;
    let ready_again = healed();
    let replayed = cut_off.event("refused").await.expect(202).reference();
    assert_eq!(Some(&replayed), references.last(), "the same event, by its key");
    references.extend([first, cut_off.escalated("afterwards").await]);
    let twice = all_is_well(&college, &other, &references).await;
    say(&format!(
        "cut: {in_hand} messages in its hand; not ready {not_ready:.1?} after the cut, all told and booked by the other \
         after {taken_over:.1?}, under a lease of {LEASE:?}; ready {ready_again:.1?} after it healed; {} told twice",
        twice.len()
    ));
    assert!(twice.len() <= in_hand, "more told twice than were in its hand: {twice:?}");
    cut_off.audit_verifies();
}
