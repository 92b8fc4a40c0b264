//! What every store must keep, whatever it is made of; and what the embedded one must keep besides.
//!
//! `suite` knows a store by its trait only. A further store is held to it by one line: `conformance!(ItsPlace);`.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

#[path = "../common/builders.rs"]
mod builders;
mod sqlite;
mod suite;
