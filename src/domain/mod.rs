//! The rules. Pure: no I/O, no async, no clock, no randomness; time and jitter are arguments.

pub mod contact;
pub mod ids;
pub mod message;
pub mod provider;
pub mod sealed;
