//! The promises as stories, told at the HTTP edge: a backend, a counsellor, Twilio, and a clock that the story moves.

#[path = "../common/mod.rs"]
mod common;

mod crash_steps;
mod main_job;
mod provider_outage;
mod provider_receipts;
mod provider_sync;
mod provider_unknown;
mod webhook_trust;
