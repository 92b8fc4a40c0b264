//! The rules. Pure: no I/O, no async, no clock, no randomness; time and jitter are arguments.

pub mod alert;
pub mod audit;
pub mod consent;
pub mod contact;
pub mod crowd;
pub mod delivery;
pub mod event;
pub mod ids;
pub mod message;
pub mod method;
pub mod phone;
pub mod policy;
pub mod provider;
pub mod readiness;
pub mod reply;
pub mod roster;
pub mod schedule;
pub mod sealed;
pub mod tap;
