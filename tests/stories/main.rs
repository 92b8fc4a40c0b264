//! The promises as stories, told at the HTTP edge: a backend, a counsellor, Twilio, and a clock that the story moves.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod consent;
mod decisions;
mod humans;
mod idempotency;
mod ladder;
mod main_job;
mod manual;
mod openapi;
mod provider_sync;
mod provider_unknown;
mod reading;
mod roles;
mod tokens;
