//! Several real processes on one Firestore and one Twilio: one of them is killed, cut off, stopped or has another clock, and
//! every event that any of them has taken reaches the phone all the same, twice only where it had to.
//!
//! ```text
//! college   what the instances share        burst    one is killed in the midst of a burst
//! load      backends that insist            cut      one no longer reaches the store
//! verdict   what must hold at the end       stopped  one stands still for longer than its lease
//!                                           skew     their clocks differ
//!                                           zero     nobody runs, until a scheduler calls
//! ```
//!
//! `INSTANCES_EVENTS=200` makes the bursts as small as that; `INSTANCES_SEED=7` draws the same victim and moment again.
//! What was measured is said on stderr. Firestore is Google's emulator: see `emulator.rs` for where it is found, and
//! what is done where there is none.
//!
//! Leases here are a few seconds, so that nobody waits long. By default a lease is 30 s: what an instance that died had in
//! hand is taken over 30 s after it was claimed, and the look-ups at Twilio come after that.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

mod burst;
mod college;
mod cut;
#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../crash/front.rs"]
#[expect(dead_code, reason = "here somebody is always behind it")]
mod front;
mod load;
#[path = "../conformance/firestore/proxy.rs"]
#[expect(dead_code, reason = "subtler cuts are the store's own tests'")]
mod proxy;
#[path = "../trouble/relay.rs"]
#[expect(dead_code, reason = "troubles of one process are another binary's")]
mod relay;
mod skew;
mod stopped;
mod verdict;
mod zero;
