//! crisis-relay.
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod keyring;
pub mod metrics;
pub mod ports;
pub mod secret;
pub mod service;
pub mod simulator;
pub mod store;
pub mod twilio;
pub mod worker;
