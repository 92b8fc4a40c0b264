//! The fault simulation: the real service and the real worker, one instance or two, under a seeded simulator of time, of
//! the provider's faults, of the store's, and of death. Thousands of schedules a minute, in process, without real time.
//!
//! - `schedule`: one seed's storm and calm. `hub`: its time, and who may go on. `people`: what they do. `weather`: what
//!   goes wrong. `twilio`, `disk`, `instance`: the provider, the store as one process reaches it, one process's life.
//! - `watch`: what must hold, after every commit, call and answer.
//! - `plant`, `planted`: bugs put in by adapters; the simulation must find each.
//!
//! The same seed gives the same trace, to the byte. A failure names its seed:
//!
//! ```text
//! SIMULATION_SEED=4711 cargo test --test simulation promises -- --nocapture     one schedule, with its whole trace
//! SIMULATION_SEEDS=20000 cargo test --test simulation promises -- --nocapture   more schedules
//! SIMULATION_FIRST=500000 …                                                     other ones
//! ```
#![expect(clippy::expect_used, reason = "a test that cannot be set up must fail")]

mod chance;
mod college;
#[macro_use]
#[path = "../common/delegated.rs"]
mod delegated;
mod disk;
mod hub;
mod instance;
#[path = "../common/memory.rs"]
#[expect(dead_code, reason = "the conformance suite looks further into it")]
mod memory;
mod people;
mod plant;
mod planted;
mod schedule;
mod twilio;
mod watch;
mod weather;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::plant::Plant;
use crate::schedule::{Report, run};

/// How many schedules `cargo test` runs: worth some twenty seconds.
const SEEDS: u64 = 1_200;

/// From how many schedules on each of these must have been seen: what never happens is not tried.
const ENOUGH: u64 = 500;
const MUST_BE_SEEN: [&str; 45] = [
    "a further message",
    "a lease ran out",
    "alert acknowledged",
    "alert resolved",
    "alert withheld",
    "call AnswerLost",
    "call Busy",
    "call ConnectionRefused",
    "call Refused",
    "call ServerError { made: false }",
    "call ServerError { made: true }",
    "call Slow",
    "call TimeOut { made: false, late: false }",
    "call TimeOut { made: true, late: false }",
    "call TimeOut { made: true, late: true }",
    "call Unreadable",
    "clock set back",
    "clock set forth",
    "commit ConsentChanged",
    "commit DataKeyExists",
    "commit SubjectHasOpenAlert",
    "commit VersionConflict",
    "death between calls",
    "delivery cancelled",
    "delivery failed",
    "delivery unknown",
    "event the store fails",
    "provider away",
    "receipt Known",
    "receipt Unmatched",
    "receipt lost",
    "reply Closed",
    "reply Taken",
    "reply TakenBefore",
    "reply WhichOf",
    "status canceled",
    "status read",
    "status undelivered",
    "stopped in order",
    "store away",
    "store read DieBefore",
    "store write DieAfter",
    "store write DieBefore",
    "store write Lost",
    "store write PassUnknown",
];

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn told(report: &Report) -> Option<String> {
    let violation = report.violation.as_ref()?;
    let (seed, step) = (report.seed, violation.step);
    Some(format!(
        "seed {seed}, step {step}: VIOLATED: {}\n{}\n\nthe last steps:\n{}\n\nto repeat it:\n  \
         SIMULATION_SEED={seed} cargo test --test simulation promises -- --nocapture\n",
        violation.rule, violation.detail, report.tail
    ))
}

/// Runs these seeds on all cores; the first violation, in the order of seeds, ends it.
fn run_all(first: u64, count: u64) -> (BTreeMap<String, usize>, Option<Report>, u64) {
    let next = AtomicU64::new(first);
    let end = AtomicU64::new(first + count);
    let found: Mutex<(BTreeMap<String, usize>, Option<Report>, u64)> = Mutex::default();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = run(seed, Plant::Nothing);
                    let mut found = found.lock();
                    found.2 += 1;
                    report.seen.iter().for_each(|(what, times)| *found.0.entry(what.clone()).or_default() += times);
                    if report.violation.is_some() && found.1.as_ref().is_none_or(|known| seed < known.seed) {
                        end.fetch_min(seed, Ordering::Relaxed);
                        found.1 = Some(report);
                    }
                }
            });
        }
    });
    found.into_inner()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how fast the machine is, is read off its clock")]
fn the_promises_hold_in_every_schedule() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        let report = run(seed, Plant::Nothing);
        println!("{}", report.trace);
        if let Some(told) = told(&report) {
            panic!("{told}");
        }
        return;
    }
    let (first, count) = (variable("SIMULATION_FIRST").unwrap_or(0), variable("SIMULATION_SEEDS").unwrap_or(SEEDS));
    let begun = Instant::now();
    let (seen, failed, ran) = run_all(first, count);
    let seconds = begun.elapsed().as_secs_f64();
    for (what, times) in &seen {
        println!("{times:>9}  {what}");
    }
    println!("{ran} schedules in {seconds:.1} s: {:.0} a minute", ran as f64 * 60.0 / seconds);
    if let Some(told) = failed.as_ref().and_then(told) {
        panic!("{told}");
    }
    let missing: Vec<&str> = MUST_BE_SEEN.into_iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(ran < ENOUGH || missing.is_empty(), "in {ran} schedules these never happened: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_to_the_byte() {
    // The other thread has worlds of its own, and has run another schedule before.
    let elsewhere = std::thread::spawn(|| {
        run(999, Plant::Nothing);
        (0..40).map(|seed| run(seed, Plant::Nothing).trace).collect::<Vec<_>>()
    });
    let here: Vec<String> = (0..40).map(|seed| run(seed, Plant::Nothing).trace).collect();
    let elsewhere = elsewhere.join().expect("the schedules run");
    for (seed, (here, elsewhere)) in here.iter().zip(&elsewhere).enumerate() {
        let differs = here.lines().zip(elsewhere.lines()).position(|(here, elsewhere)| here != elsewhere);
        let at = differs.map(|line| (here.lines().nth(line), elsewhere.lines().nth(line)));
        assert!(here == elsewhere, "seed {seed} gives two traces, from line {differs:?} on: {at:?}");
        assert!(here.lines().count() > 30, "seed {seed}: nothing happens: {here}");
    }
    assert_ne!(here[0], here[1], "the seed makes a difference");
}
