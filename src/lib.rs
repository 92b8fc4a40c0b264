//! crisis-relay: a student's crisis score becomes a message on a counsellor's phone, and nothing is lost on the way.
//!
//! The map. `use` runs one way, from top to bottom; adapters know the ports and the domain, and nobody but [`app`] knows
//! the adapters.
//!
//! ```text
//!   cli ─▶ app                                    puts everything together, and runs it
//!            │
//!   http ────┴──── worker                         the edge; what time has made due
//!      └──▶ service ◀──┘                          the use cases: one load, one pure transition, one commit
//!              │
//!              ▼
//!           domain                                the rules: pure
//!              ▲
//!            ports ◀── store · twilio · keyring · clock      what the world does for us
//! ```
//!
//! | room | what is in it |
//! |---|---|
//! | [`domain`] | alerts, deliveries, policies, consent, messages, audit: no I/O, no clock, no randomness |
//! | [`ports`] | what the service needs from the world, as traits |
//! | [`service`] | accept, acknowledge, resolve, override, receipts, replies, reports |
//! | [`worker`] | sends, looks up, polls |
//! | [`health`], [`watchman`] | whether the parts work; who looks again and again, and lets the heartbeat out |
//! | [`alarm`] | what the operator must hear of: when, and over what |
//! | [`store`] | SQLite |
//! | [`twilio`] | Twilio's REST API, error codes, callbacks and signatures |
//! | [`keyring`], [`secret`] | seals, keyed hashes, master keys; texts that are never printed |
//! | [`http`] | API, webhooks, health |
//! | [`config`] | settings: three layers, one typed result, or every fault at once |
//! | [`clock`], [`metrics`] | time and randomness; what is counted |
//! | [`simulator`] | a Twilio that is none, for tests, demonstrations and working by hand |
//! | [`app`], [`cli`] | the composition root; the command line |
//!
//! The three promises that every room keeps: no accepted alert is lost, nothing is sent without a recorded ground, and
//! nothing personal leaks. `ARCHITECTURE.md` tells how, `README.md` how to run it.

pub mod alarm;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod health;
pub mod http;
pub mod keyring;
pub mod metrics;
pub mod ports;
pub mod secret;
pub mod service;
pub mod simulator;
pub mod store;
pub mod twilio;
pub mod watchman;
pub mod worker;
