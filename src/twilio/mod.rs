//! Everything that speaks Twilio's protocol on our side, and nothing that decides about an alert.
//!
//! ```text
//!   worker --MessageRequest--> rest ------HTTP------> Twilio
//!          <--SendOutcome-----   |                       |
//!                          error_codes                   |  callbacks (form POST, signed)
//!                                |                       v
//!   service <--Receipt----- callback <---Form--- signature <--- webhooks
//! ```
//!
//! - [`rest`] makes one HTTP request per call and says what became of it; when to call again is the caller's matter.
//! - [`error_codes`] is the one table that says what a Twilio error code asks for; answers and callbacks share it.
//! - [`signature`] proves that a webhook comes from Twilio. It must be asked before anything in the form is believed.
//! - [`callback`] reads status callbacks, incoming messages and keys pressed in calls, and builds the callback URLs that it
//!   reads.
//! - [`twiml`] writes what Twilio is to say.
//! - [`pace`] and [`breaker`] are pure: how fast to send, and whether to send at all just now.
//!
//! What must be absent from this module: retries, a store, the global clock, and personal data in a log or in a `Debug`.

pub mod breaker;
pub mod callback;
pub mod error_codes;
pub mod pace;
pub mod rest;
mod sid;
pub mod signature;
pub mod twiml;
