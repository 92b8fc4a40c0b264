//! crisis-relay.
pub mod clock;
pub mod domain;
pub mod http;
pub mod ports;
