//! The promises as stories, told at the HTTP edge: a backend, a counsellor, Twilio, and a clock that the story moves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a story that cannot go on shall say where")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../common/memory.rs"]
#[expect(dead_code, reason = "the simulation uses more of it")]
mod memory;
#[path = "../conformance/firestore/proxy.rs"]
#[expect(dead_code, reason = "subtler cuts are the store's own tests'")]
mod proxy;

mod alarms;
mod bad_input;
mod buttons;
mod clock;
mod consent;
mod consent_races;
mod contacts;
mod contacts_called;
mod crash_running;
mod crash_steps;
mod decisions;
mod drills;
mod emergency_contacts;
mod fall_over;
mod firestore;
mod humans;
mod idempotency;
mod interleavings;
mod ladder;
mod late_commits;
mod lost_keys;
mod main_job;
mod manual;
mod marked_codes;
mod metrics_health;
mod notices;
mod notices_over;
mod openapi;
mod pass_on;
mod phone_pace;
mod privacy;
mod provider_outage;
mod provider_receipts;
mod provider_sync;
mod provider_unknown;
mod reading;
mod replies;
mod roles;
mod rota;
mod run_due;
mod several_cases;
mod store_faults;
mod store_two_instances;
mod tokens;
mod too_late;
mod usual_ladder;
mod verification;
mod voice;
mod watchman;
mod webhook_trust;
mod written;
