//! A burst over several instances, one of which is killed in its midst.

use std::collections::BTreeSet;
use std::time::Duration;

use crisis_relay::clock::{SeededEntropy, SystemClock, SystemEntropy};
use crisis_relay::ports::{Clock as _, random};
use crisis_relay::simulator::{CallbackMode, Fault, FaultRule};
use jiff::Timestamp;

use crate::college::{College, LEASE, is_in_hand_of, say};
use crate::load::{Book, burst};
use crate::relay::{COUNSELLOR, PATIENCE, Relay, timer};
use crate::verdict::{all_is_well, all_told};

/// Events, unless `INSTANCES_EVENTS` says otherwise.
const EVENTS: usize = 2_000;
/// Events where there are two instances: these are asked for as a part of the others.
const PART: usize = 4;
/// How long Twilio takes for a call: long enough that whoever dies has calls under way.
const CALL: Duration = Duration::from_millis(700);

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number, not {text:?}")))
}

/// How long a burst of so many may take until it has come somewhere, on a machine that does other things besides.
pub(crate) fn within(events: usize) -> Duration {
    PATIENCE + Duration::from_millis(100) * u32::try_from(events).unwrap()
}

/// How many events a burst has.
pub(crate) fn events(default: usize) -> usize {
    number("INSTANCES_EVENTS").map_or(default, |events| usize::try_from(events).unwrap())
}

/// Receipts that come only after the leases are over: a callback would settle what the dead one had in hand before.
fn late_receipts() -> CallbackMode {
    CallbackMode::Automatic { sent_after: LEASE + CALL, delivered_after: Duration::from_millis(20), read_after: None }
}

/// Who is killed, and after how many answers.
struct Kill {
    victim: usize,
    after: usize,
}

impl Kill {
    fn drawn(seed: u64, instances: usize, events: usize) -> Self {
        let [who, when, ..] = random::<8>(&SeededEntropy::new(seed));
        // Somewhere in the middle half.
        Self { victim: usize::from(who) % instances, after: events / 4 + events * usize::from(when) / 512 }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_is_killed_in_a_burst_and_every_accepted_event_arrives() {
    one_is_killed_in_a_burst(3, events(EVENTS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_is_killed_in_a_burst_and_the_other_does_all_that_is_left() {
    one_is_killed_in_a_burst(2, events(EVENTS).div_ceil(PART)).await;
}

async fn one_is_killed_in_a_burst(number_of_instances: usize, events: usize) {
    let Some(college) = College::fresh(late_receipts()).await else { return };
    let seed = number("INSTANCES_SEED").unwrap_or_else(|| u64::from(u16::from_le_bytes(random::<2>(&SystemEntropy))));
    let kill = Kill::drawn(seed, number_of_instances, events);
    say(&format!(
        "burst over {number_of_instances}: seed {seed}: of {events} events, {} are answered when instance {} dies; again: \
         INSTANCES_SEED={seed}",
        kill.after, kill.victim
    ));

    let mut instances = Vec::new();
    let (mut names, mut references) = (Vec::new(), Vec::new());
    for number in 0..number_of_instances {
        let relay = college.start(college.setting()).await;
        college.callbacks_go_to(&relay);
        let (name, reference) = college.name_of(&relay, &format!("first-of-{number}")).await;
        names.push(name);
        references.push(reference);
        instances.push(relay);
    }
    let survivor = &instances[(kill.victim + 1) % number_of_instances];
    college.callbacks_go_to(survivor);

    let slow = Fault::Slow { ms: u64::try_from(CALL.as_millis()).unwrap() };
    assert!(college.twilio().push_fault(FaultRule::always(slow)), "the simulator takes a rule");
    let book = Book::default();
    let since = timer();
    let ((), (killed, in_hand)) =
        tokio::join!(burst(&instances, events, &book), strike(&college, &instances, &kill, &names[kill.victim], &book));
    let answered_within = since();
    references.extend(book.references());
    let told = timer();
    all_told(&college, &references, within(events)).await;
    let told_within = told();
    let proved = timer();
    let twice = all_is_well(&college, survivor, &references).await;
    let proved_within = proved();

    let (repeated, replayed) = book.repetitions();
    let taken_over = taken_over_within(&college, killed, &in_hand);
    say(&format!(
        "burst over {number_of_instances}: {events} events answered in {answered_within:.1?}, {repeated} of them at a second \
         instance ({replayed} had been taken by the first); {} in the dead one's hand, the last of them on the phone \
         {taken_over:.1?} after its death, under a lease of {LEASE:?}; {} told twice; all on the phone {told_within:.1?} after \
         the last answer, and all booked and proved {proved_within:.1?} after that",
        in_hand.len(),
        twice.len()
    ));
    assert!(repeated > 0, "nobody noticed the kill");
    assert!(!in_hand.is_empty(), "it died with nothing in its hand: that proves nothing");
    let without_reason: Vec<&String> = twice.iter().filter(|reference| !in_hand.contains(*reference)).collect();
    assert!(without_reason.is_empty(), "told twice, and not in the hand of the one that died: {without_reason:?}");
    assert!(twice.len() <= in_hand.len(), "a message was sent a third time: {twice:?}");
}

/// Kills the victim when its moment has come. Gives the time, and what it had in hand.
async fn strike(
    college: &College,
    instances: &[Relay],
    kill: &Kill,
    name: &str,
    book: &Book,
) -> (Timestamp, BTreeSet<String>) {
    let moment = async {
        while book.answered() < kill.after {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(within(kill.after), moment).await.expect("the burst comes to its midst");
    instances[kill.victim].signal("-KILL");
    let killed = SystemClock.now();
    // A commit that it has sent may still be under way; its leases last for longer than this.
    tokio::time::sleep(LEASE / 10).await;
    let alerts = college.alerts().await;
    let in_hand = alerts.iter().filter(|alert| is_in_hand_of(alert, name));
    (killed, in_hand.map(|alert| alert.reference.as_str().to_owned()).collect())
}

/// From the death until the phone had all that the dead one had in hand.
fn taken_over_within(college: &College, killed: Timestamp, in_hand: &BTreeSet<String>) -> Duration {
    let messages = college.twilio().messages_to(COUNSELLOR);
    let first = |reference: &String| {
        let of_it = messages.iter().filter(|message| message.body.contains(reference));
        of_it.map(|message| message.created_at).min()
    };
    let last = in_hand.iter().filter_map(first).max().unwrap_or(killed);
    Duration::try_from(last.duration_since(killed)).unwrap_or_default()
}
