//! crisis-relay.
pub mod clock;
pub mod config;
pub mod domain;
pub mod ports;
pub mod secret;
