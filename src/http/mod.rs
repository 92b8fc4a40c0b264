//! The HTTP edge: what every request and every answer has in common, whatever it is about.
//!
//! | module | holds |
//! |---|---|
//! | [`problem`] | RFC 9457 problem documents: the one shape of every error answer |
//! | [`json`] | strict extractors for bodies, queries and paths |
//! | [`auth`] | who is asking: API keys and JWTs |
//! | [`rate_limit`] | how often they may |
//! | [`manners`] | request ids, spans, time-outs, caught panics, security headers, fallbacks |
//! | [`serve`](mod@serve) | the listening socket: bounded connections, slow clients, graceful end |
//! | [`docs`] | the API's documentation page |
//!
//! Nothing in these modules knows what an alert is.

pub mod auth;
pub mod docs;
pub mod json;
pub mod manners;
pub mod problem;
pub mod rate_limit;
pub mod serve;

pub use serve::{ServeSettings, serve};
