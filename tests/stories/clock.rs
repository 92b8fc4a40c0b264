//! A clock that is set, as clocks are.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::service::sending::Woken;
use crisis_relay::simulator::{Fault, FaultRule};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::event;
use crate::common::{COUNSELLOR_KEY, SERVICE, Setting, World, answer};

/// A message that Twilio was too busy for waits for its next try; then somebody sets the clock.
async fn waiting(world: &mut World) -> String {
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    assert_eq!(world.sim().messages().len(), 0, "the first call is refused");
    reference
}

#[tokio::test]
async fn a_clock_set_back_by_an_hour_while_the_service_runs_delays_nothing_for_that_hour() {
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().start_with(busy).await;
    let reference = waiting(&mut world).await;
    let back = world.now() - jiff::SignedDuration::from_hours(1);
    world.clock.set(back);
    world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
    let message = world.sim().expect_message(crate::common::COUNSELLOR, |message| message.body.contains(&reference));
    let message = message.expect("the message waits for the clock to catch up");
    // Its time is pulled in to the longest pause that there is: five minutes, in which a delivery may be tried at all.
    assert!(message.created_at.duration_since(back) <= jiff::SignedDuration::from_secs(310), "{}", message.created_at);
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn a_case_that_could_not_be_read_when_the_clock_was_set_back_is_looked_at_again() {
    let gate = Gate::new();
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().with_gate(&gate).start_with(busy).await;
    let reference = waiting(&mut world).await;
    world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
    gate.strike_first("alert", Fate::Fail(StoreFault::Unavailable));
    world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
    world.expect_told(&reference);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_clock_set_back_while_nobody_ran_delays_nothing_either() {
    // On a store of one's own the recovery looks at everything; on a shared one there is none.
    for gate in [Gate::new(), Gate::shared()] {
        let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
        let mut world = Setting::default().with_gate(&gate).start_with(busy).await;
        let reference = waiting(&mut world).await;
        world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
        let mut world = world.crash().await;
        world.pass_in_steps(Duration::from_secs(400), Duration::from_secs(1)).await;
        world.expect_told(&reference);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_case_whose_event_was_under_way_when_the_clock_was_set_back_goes_on() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    world.consents("student-1").await;
    world.work().await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let url = world.base().join("/api/v1/crisis/events").unwrap();
    let post = world.client().post(url).bearer_auth(SERVICE).json(&event("student-1", 0.93));
    let under_way = tokio::spawn(answer(post));
    world.until("the event is to be committed", async |_| gate.count("commit_alert") == 1).await;
    world.clock.set(world.now() - jiff::SignedDuration::from_hours(1));
    world.work().await;
    permits.add_permits(1);
    let reference = under_way.await.unwrap().expect(202).text_at("/reference");
    world.work().await;
    // It is read, so that nothing is due before the next round.
    while !world.receipts().await.is_empty() {}
    world.pass_in_steps(Duration::from_secs(700), Duration::from_secs(5)).await;
    assert!(world.on_the_phone(&reference).len() >= 2, "nobody answers, and nobody is told again");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_clock_set_forward_by_an_hour_loses_nothing() {
    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(5) });
    let mut world = Setting::default().start_with(busy).await;
    let reference = waiting(&mut world).await;
    world.clock.advance(Duration::from_secs(3600));
    world.pass_in_steps(Duration::from_secs(60), Duration::from_secs(1)).await;
    world
        .sim()
        .expect_message(crate::common::COUNSELLOR, |message| message.body.contains(&reference))
        .expect("the message arrives");
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}

/// What a case can be waiting for when somebody sets the clock.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Its next try: Twilio was too busy.
    NextTry,
    /// To be looked up: the call's outcome is unknown.
    LookUp,
    /// Its receipt, which has to be asked for: callbacks are lost.
    Receipt,
    /// The circuit breaker, which holds calls back.
    Breaker,
    /// Its turn: there is more to send than the sender's pace allows.
    Turn,
    /// A lease to run out: a process that died has it in hand.
    Lease,
}

const MOMENTS: [Moment; 6] =
    [Moment::NextTry, Moment::LookUp, Moment::Receipt, Moment::Breaker, Moment::Turn, Moment::Lease];

/// Hours that the clock is set by, one after the other.
const SETTINGS: [&[i64]; 5] = [&[1], &[-1], &[1, -1], &[-1, 1], &[1, -1, -1, 1, 1, -1]];

/// The most messages of one case: those of the rounds that an hour skips count, too.
const MESSAGES_MAX: usize = 5;

impl Moment {
    /// Cases in this moment. Gives their references.
    async fn reached(self) -> (World, Vec<String>) {
        let setting = Setting::default()
            .with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "2")
            .with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", if let Self::Turn = self { "1" } else { "80" });
        let setting = if let Self::Lease = self { setting.without_recovery() } else { setting };
        let mut world = setting.start().await;
        match self {
            Self::NextTry => {
                world.goes_wrong(FaultRule::next(2, Fault::TooManyRequests { retry_after_s: Some(5) }));
            }
            Self::LookUp => world.goes_wrong(FaultRule::once(Fault::DropAfterAccepting)),
            Self::Receipt => world.goes_wrong(FaultRule::always(Fault::CallbacksLost)),
            Self::Breaker => world.goes_wrong(FaultRule::always(Fault::DropBeforeAccepting)),
            Self::Turn | Self::Lease => {}
        }
        let mut references = Vec::new();
        for student in 1..=3 {
            references.push(world.told(&format!("student-{student}"), 0.93).await);
        }
        match self {
            // In hand, and not worked on.
            Self::Turn => {}
            Self::Lease => {
                world = world.crash().await;
                world.work().await;
            }
            Self::NextTry | Self::LookUp | Self::Receipt | Self::Breaker => world.work().await,
        }
        world.sim().step_all().await;
        if let Self::Breaker = self {
            assert_eq!(world.readiness().await.1["twilio"], "failing");
            world.sim().clear_faults();
        }
        (world, references)
    }
}

#[tokio::test]
async fn a_clock_set_forth_and_back_by_an_hour_loses_nothing_wherever_a_case_is() {
    for moment in MOMENTS {
        for hours in SETTINGS {
            survives(moment, hours).await;
        }
    }
}

async fn survives(moment: Moment, hours: &[i64]) {
    let which = format!("{moment:?}, clock set by {hours:?} hours");
    let (mut world, references) = moment.reached().await;
    let key = format!("key of {moment:?}").replace(' ', "-");
    world.consents("student-key").await;
    let body = crate::common::stage::event("student-key", 0.93);
    let first = world.event_with_key(&body, &key).await.expect(202).text_at("/reference");
    for hour in hours {
        world.clock.set(world.now() + jiff::SignedDuration::from_hours(*hour));
        world.pass_in_steps(Duration::from_secs(3), Duration::from_secs(1)).await;
    }
    world.pass_in_steps(Duration::from_secs(10), Duration::from_secs(1)).await;
    // Nothing waits longer than the five minutes in which a delivery may be tried at all.
    world.pass_in_steps(Duration::from_secs(320), Duration::from_secs(10)).await;

    for reference in references.iter().chain([&first]) {
        let count = world.on_the_phone(reference).len();
        assert!((1..=MESSAGES_MAX).contains(&count), "{which}: {count} messages of one case");
    }
    if let Moment::Receipt = moment {
        for reference in &references {
            let alert = world.alert(reference).await;
            let known =
                |delivery: &serde_json::Value| delivery["status"] != "queued" && delivery["status"] != "accepted";
            assert!(
                alert["deliveries"].as_array().unwrap().iter().any(known),
                "{which}: no receipt was asked for: {alert}"
            );
        }
    }
    let again = world.event_with_key(&body, &key).await.expect(202);
    assert_eq!(
        (again.text_at("/reference"), &again.headers["idempotent-replayed"]),
        (first, &"true".parse().unwrap()),
        "{which}"
    );
    assert!(world.readiness().await.0, "{which}: {:?}", world.readiness().await.1);
    world.taken_by_reply(&references[0]).await;
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_clock_set_while_the_service_is_down_delays_nothing_of_what_was_in_hand() {
    for hours in [-1, 1] {
        let world = World::new().await;
        let mut references = Vec::new();
        for student in 1..=3 {
            references.push(world.told(&format!("student-{student}"), 0.93).await);
        }
        world.clock.set(world.now() + jiff::SignedDuration::from_hours(hours));
        let mut world = world.crash().await;
        // Set forth, a message's own time is over; the next round comes half a minute later.
        world.pass_in_steps(Duration::from_secs(60), Duration::from_secs(1)).await;
        for reference in &references {
            assert!(!world.on_the_phone(reference).is_empty(), "{hours} hours: {reference} waits");
        }
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_clock_set_forth_by_a_minute_while_calls_wait_for_their_turn_sends_each_once() {
    // Some turns are over a lease's time away, and some calls are made before the clock is set.
    for made in 0..3 {
        let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "1").start().await;
        let mut references = Vec::new();
        for student in 1..=8 {
            references.push(world.told(&format!("student-{student}"), 0.93).await);
        }
        let worker = world.run_worker(Duration::from_secs(1));
        world.until("the first is sent", async |world| world.calls() == 1).await;
        for sent in 1..=made {
            world.worker_asleep().await;
            world.clock.advance(Duration::from_secs(1));
            world.until("the next is sent", async |world| world.calls() == 1 + sent).await;
        }
        world.worker_asleep().await;
        world.clock.advance(Duration::from_secs(60));
        let all_sent = async |world: &World| {
            world.clock.advance(Duration::from_millis(100));
            references.iter().all(|reference| !world.on_the_phone(reference).is_empty())
        };
        world.until(&format!("all are sent; {made} more were before"), all_sent).await;
        // Whatever waits for a turn or a look-up still.
        for _ in 0..40 {
            world.worker_asleep().await;
            world.clock.advance(Duration::from_secs(1));
        }
        world.worker_asleep().await;
        worker.stopped().await;
        for reference in &references {
            let count = world.on_the_phone(reference).len();
            assert_eq!(count, 1, "{made} more were sent before the clock was set: messages of {reference}");
        }
        assert_eq!(world.calls(), references.len(), "{made} more were sent before: calls");
        world.holds_its_promises().await;
    }
}

/// Cases whose next step is far off, and one page of the store for every two of them.
async fn pages_of_cases(gate: &Arc<Gate>, cases: usize, places: &str) -> (World, Vec<String>) {
    let mut world = Setting::default()
        .with_gate(gate)
        .with("CRISIS_RELAY__WORKER__QUEUE_MAX", places)
        .with("CRISIS_RELAY__WORKER__DUE_BATCH", "2")
        .start()
        .await;
    let mut references = Vec::new();
    for student in 0..cases {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
        world.work().await;
        while !world.receipts().await.is_empty() {}
    }
    (world, references)
}

#[tokio::test]
async fn when_all_cases_are_looked_at_due_work_goes_between() {
    let gate = Gate::new();
    let (mut world, _) = pages_of_cases(&gate, 22, "100").await;
    world.clock.set(world.now() - jiff::SignedDuration::from_mins(1));
    gate.open();
    while world.worker().round().await {}
    let mut pages_in_a_row = 0;
    for call in gate.calls() {
        match call.name {
            "unfinished_alerts" => pages_in_a_row += 1,
            "due_alerts" => pages_in_a_row = 0,
            _ => {}
        }
        assert!(pages_in_a_row <= 4, "due work waits for one page after the other: {:?}", gate.calls());
    }
    assert_eq!(gate.count("unfinished_alerts"), 12, "eleven pages and their end, each once");
    // The second look, a minute later, does not go over all of them at once either.
    world.clock.advance(Duration::from_secs(60));
    gate.open();
    assert!(world.worker().round().await, "there is more to look at");
    assert_eq!(gate.count("unfinished_alerts"), 4, "one round of the second look");
    world.work().await;
    assert_eq!(gate.count("unfinished_alerts"), 12, "the second look");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_places_run_out_the_look_at_all_cases_goes_on_from_there() {
    let gate = Gate::shared();
    let (world, references) = pages_of_cases(&gate, 12, "2").await;
    // Long after: every case has its next message due. Nobody has looked, and nobody gives a place back.
    world.clock.advance(Duration::from_secs(310));
    let mut world = world.crash().await;
    gate.open();
    for _ in 0..5 {
        world.worker().round().await;
    }
    assert_eq!(gate.count("unfinished_alerts"), 2, "the page that took the places, and the one that found none");
    // The longest due are not looked at by the walk again and again: it goes on, and comes to its end.
    for _ in 0..20 {
        world.pass(Duration::from_millis(500)).await;
    }
    let pages = gate.count("unfinished_alerts");
    assert!(pages <= 8, "six pages, their end, and not one of them twice: {pages}");
    for reference in &references {
        assert_eq!(world.on_the_phone(reference).len(), 2, "{reference}: the first round, and the second");
    }
    gate.open();
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(gate.count("unfinished_alerts"), 0, "the walk is over");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn nothing_that_found_no_place_passes_for_looked_at() {
    let gate = Gate::shared();
    let (world, references) = pages_of_cases(&gate, 6, "2").await;
    world.clock.advance(Duration::from_secs(310));
    let world = world.crash().await;
    let now = world.now();
    let due = world.store().due_alerts(now, 100).await.unwrap();
    assert_eq!(due.len(), references.len());
    // All at once, and each of them sees free places at first.
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_named("alert", Fate::Wait(Arc::clone(&permits)));
    let (service, mut worked) = (world.service(), 0);
    let all_read = async {
        world.until("all are being read", async |_| gate.count("alert") == due.len()).await;
        permits.add_permits(2 * due.len());
    };
    let (woken, ()) = tokio::join!(futures::future::join_all(due.iter().map(|id| service.wake(*id, false))), all_read);
    for (id, woken) in due.iter().zip(woken) {
        match woken.unwrap() {
            Woken::Worked => worked += 1,
            Woken::NoPlace => {
                let alert = world.store().alert(*id).await.unwrap().unwrap();
                assert!(alert.next_action_at().is_some_and(|at| at <= now), "its work is left as it was: {alert:?}");
            }
            Woken::Nothing => panic!("{id} has something due, and passes for looked at"),
        }
    }
    assert_eq!(worked, 2, "one for each place");
}

#[tokio::test]
async fn a_clock_set_back_while_the_worker_rests_does_not_lengthen_the_rest() {
    let mut world = Setting::default().start().await;
    let taken = world.told("student-0", 0.93).await;
    let worker = world.run_worker(Duration::from_secs(1));
    world.until("the first is told", async |world| world.on_the_phone(&taken).len() == 1).await;
    world.worker_asleep().await;
    let rounds = world.counted("crisis_relay_worker_runs_total").await;

    let back = world.now() - jiff::SignedDuration::from_hours(1);
    world.clock.set(back);
    // What is hinted at is far off: the time by which somebody has to act.
    let path = format!("/api/v1/crisis/alerts/{taken}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &serde_json::json!({})).await.expect(200);
    world
        .until("the next round comes", async |world| {
            world.clock.advance(Duration::from_millis(100));
            world.counted("crisis_relay_worker_runs_total").await > rounds
        })
        .await;

    worker.stop();
    let rested = world.now().duration_since(back);
    assert!(
        rested < jiff::SignedDuration::from_mins(1),
        "it rested for {rested}, and not for the poll's half a second"
    );
}
