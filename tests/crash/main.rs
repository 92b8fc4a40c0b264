//! The real binary, killed again and again: no accepted alert is lost, and nothing is said twice without need.
//!
//! A world is one database, one Twilio (the simulator, in this process, which outlives every kill) and 2,000 students whose
//! backends post while the service is killed, at moments that a seed draws: while it starts, in the midst of the burst, of
//! calls, look-ups, receipts, replies, while it ends. Twilio has a bad day all the while.
//!
//! After each kill, before the next start, a copy of the database is read past the store: it is whole, every audit chain
//! verifies, every case that waits for somebody has a next action, and everything that was promised to anybody is there. At
//! the end every case was told or taken, no case is there twice, nothing was sent without right, and each second message
//! has its reason (see `verdict`).
//!
//! ```text
//! plan      what a seed says            process   the binary        front     its address, whichever process it is
//! load      backends and a counsellor   ledger    what they were promised
//! world     lives and kills             snapshot  what a kill left  verdict   what came of it all
//! migration kills in the midst of one
//! calls     phones that ring, and keys that are pressed, while the service is killed
//! ```
//!
//! `CRASH_ROUNDS=500 cargo test --test crash` kills five hundred times, with seeds of its own after the fixed ones;
//! `CRASH_SEED=7` repeats one world. Each world prints its seed.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on shall say where; the runner shows what led there"
)]

mod calls;
mod front;
mod ledger;
mod load;
mod migration;
mod plan;
mod process;
mod snapshot;
mod verdict;
mod world;

use std::io::Write as _;

use plan::{Dice, Plan};
use world::World;

/// The seeds of every run.
const SEEDS: [u64; 2] = [1, 12];
/// Kills in one world.
const KILLS: u64 = 40;
/// Students in one world.
const STUDENTS: u64 = 2_000;

/// Kills of processes that take over old files, and how many of them one file goes through.
const MIGRATION_KILLS: u64 = 60;
const MIGRATION_KILLS_A_FILE: u64 = 4;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number, not {text:?}")))
}

/// The seeds of this run: one that is asked for, else the fixed ones and, where more kills are asked for, others.
fn seeds() -> Vec<u64> {
    let mut seeds = number("CRASH_SEED").map_or_else(|| SEEDS.to_vec(), |seed| vec![seed]);
    let worlds = number("CRASH_ROUNDS").map_or(seeds.len() as u64, |rounds| rounds.div_ceil(KILLS));
    let mut dice = Dice::new(*seeds.last().unwrap());
    seeds.truncate(usize::try_from(worlds).unwrap());
    while (seeds.len() as u64) < worlds {
        seeds.push(dice.next() % 1_000_000);
    }
    seeds
}

/// Says something whether the test fails or not: the runner keeps only what the print macros say.
fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "crash: {words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_it_is_killed_no_accepted_alert_is_lost_and_none_is_told_twice_without_need() {
    for seed in seeds() {
        let repeat = format!("CRASH_SEED={seed} cargo test --test crash however_often");
        say(&format!("seed {seed}; again: {repeat}"));
        println!("to repeat it: {repeat}");
        let plan = Plan::of(seed, STUDENTS, KILLS);
        println!("{:?}\n{:?}", plan.settings, plan.faults);
        let evidence = World::new(plan).await.run().await;
        say(&evidence.to_string());
        evidence.judge();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_heard_in_a_call_that_the_case_is_theirs_has_it_however_often_it_is_killed() {
    let seed = number("CRASH_SEED").unwrap_or(SEEDS[0]);
    println!("to repeat it: CRASH_SEED={seed} cargo test --test crash whoever_heard");
    say(&format!("seed {seed}: {}", calls::live_through(seed).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_midst_of_a_migration_it_takes_the_old_file_over_at_the_next_start() {
    let seed = number("CRASH_SEED").unwrap_or(SEEDS[0]);
    println!("to repeat it: CRASH_SEED={seed} cargo test --test crash migration");
    let kills = number("CRASH_ROUNDS").unwrap_or(MIGRATION_KILLS);
    let mut dice = Dice::new(seed);
    let mut struck = migration::Struck::default();
    for _ in 0..kills.div_ceil(MIGRATION_KILLS_A_FILE) {
        let one = migration::take_over(dice.next() % 1_000_000, MIGRATION_KILLS_A_FILE).await;
        struck.before += one.before;
        struck.after += one.after;
    }
    say(&format!(
        "seed {seed}: of {kills} kills {} struck before the migration's commit, {} after",
        struck.before, struck.after
    ));
    if number("CRASH_ROUNDS").is_none() {
        assert!(struck.before > 0 && struck.after > 0, "seed {seed}: every kill struck on one side of the commit");
    }
}
