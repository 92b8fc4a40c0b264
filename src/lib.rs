//! crisis-relay.
pub mod clock;
pub mod domain;
pub mod keyring;
pub mod ports;
