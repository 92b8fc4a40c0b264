//! The real binary in trouble: what it needs runs out, is taken away, or becomes slow. It says so clearly, calls itself
//! not ready, goes on by itself when the trouble is over, and has lost nothing.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

mod descriptors;
mod disk;
mod flood;
#[path = "../crash/front.rs"]
#[expect(dead_code, reason = "no process is without a front here")]
mod front;
mod hang;
mod leaks;
mod locked;
mod middleman;
mod relay;
#[path = "../common/search.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's programs use it from outside")]
mod search;
mod slow;
