//! The wire: what the REST client sends to Twilio byte by byte, and what it makes of every answer.
//!
//! A fake Twilio over real HTTP stands in; time-outs are short, so that no test sleeps.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod call;
mod check;
mod create;
mod faults;
mod look_up;
mod support;
