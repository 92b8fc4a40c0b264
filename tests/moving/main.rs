//! `crisis-relay copy` as a real process: killed in its midst and finished by the same call, refused where it must be; and
//! a service that goes on with what was copied.
//!
//! ```text
//! installation   what is moved: an installation with cases, and the places it goes to
//! hold           holds a copy up at a given row of a file, by a trigger in that file
//! gate           holds a copy up after so many bytes on its way to Firestore
//! kills          killed where it was held up, then finished
//! refusals       what is not served, and what is not copied
//! story          sends what was due, joins, and takes cases, on the finished copy
//! ```
//!
//! Nothing here rests on speed: a copy that is held up does not get on, so it is killed in its midst however slow or fast
//! the machine is. `MOVING_SEED=7` draws other moments. Firestore is Google's emulator: see `emulator.rs`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../crash/front.rs"]
#[expect(dead_code, reason = "no process is without a front here")]
mod front;
mod gate;
mod hold;
mod installation;
mod kills;
mod refusals;
#[path = "../trouble/relay.rs"]
#[expect(dead_code, reason = "troubles of one process are another binary's")]
mod relay;
mod story;
