//! Properties of the pure domain: what holds for every alert, whatever happens to it, in whatever order.
//!
//! - `world`: people, ladders, rules and grounds at random. `steps`: what can happen. `driver`: lets it happen, and
//!   holds every change to the `invariants`.
//! - `ladder`: random walks. `liveness`: whatever the provider does, somebody is told again. `receipts`: the order in
//!   which they come makes no difference. `chain`: tampering is found. `stored_form`: what is stored can be read again.
//!   `rendering`: nothing personal is in a text. `schedules`: who is on call, by the clock on the wall. `on_call`: whom
//!   roles and schedules come to, and which ladder a case takes. `explain`: what is said of a ladder beforehand is what
//!   comes. `words`: the small types. `found`: what once went wrong.
//!
//! A failure prints the smallest case that shows it, and keeps its seed in `tests/properties/seeds.txt`: the next run
//! begins with it. `PROPERTIES_TIMES=50 cargo test --test properties` tries fifty times as many cases.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod chain;
mod driver;
mod emergency;
mod explain;
mod found;
mod invariants;
mod ladder;
mod liveness;
mod on_call;
mod people_change;
mod receipts;
mod rendering;
mod roster;
mod schedules;
mod steps;
mod stored_form;
mod words;
mod world;

use proptest::test_runner::{Config, FileFailurePersistence};

/// `cases` cases, times `PROPERTIES_TIMES` where that is set.
fn cases(cases: u32) -> Config {
    let times = std::env::var("PROPERTIES_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    Config {
        cases: cases.saturating_mul(times),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/properties/seeds.txt"))),
        ..Config::default()
    }
}
