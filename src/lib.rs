//! crisis-relay.
pub mod clock;
pub mod domain;
pub mod ports;
pub mod simulator;
