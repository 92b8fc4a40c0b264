//! crisis-relay.
pub mod clock;
pub mod domain;
pub mod metrics;
pub mod ports;
pub mod service;
pub mod store;
