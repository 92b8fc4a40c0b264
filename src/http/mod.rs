//! The HTTP edge: what every request and every answer has in common, whatever it is about.
//!
//! Nothing in these modules knows what an alert is.

pub mod json;
pub mod problem;
