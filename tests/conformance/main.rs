//! What every store must keep, whatever it is made of; and what the embedded one must keep besides. The store in memory
//! that the simulation runs on is held to the same.
//!
//! Firestore is tested on Google's emulator: `emulator.rs` finds or starts it, and says so where there is none.
//!
//! `suite` knows a store by its trait only. A further store is held to it by one line: `conformance!(ItsPlace);`.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

#[path = "../common/builders.rs"]
mod builders;
#[macro_use]
#[path = "../common/delegated.rs"]
mod delegated;
#[path = "../common/emulator.rs"]
mod emulator;
mod firestore;
#[path = "../common/memory.rs"]
#[expect(dead_code, clippy::expect_used, reason = "the simulation looks further into it")]
mod memory;
mod memory_place;
mod moving;
mod on_the_way;
mod sqlite;
mod suite;
