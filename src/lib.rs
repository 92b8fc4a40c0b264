//! crisis-relay.
pub mod clock;
pub mod domain;
pub mod metrics;
pub mod ports;
pub mod secret;
pub mod service;
pub mod store;
pub mod twilio;
pub mod worker;
