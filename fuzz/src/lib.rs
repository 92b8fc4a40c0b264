//! What no input may do, one module for each parser of outside bytes.
//!
//! Each target is a function over bytes that asserts properties, not only that nothing panics. They are used twice: the
//! programs in `fuzz_targets/` let a fuzzer search for an input that breaks one, and `tests/corpus` runs the committed
//! inputs through them with every `cargo test`.
//!
//! Inputs with parts are text with a line for each part, so that a file of the corpus can be read and written by hand.

use std::sync::LazyLock;

use search::{Mark, Search, Wanted};

pub mod blank;
pub mod config;
pub mod edge;
pub mod event;
pub mod json;
pub mod jwks;
pub mod loopback;
pub mod master_keys;
pub mod request;
pub mod sealed;
#[path = "../../tests/common/search.rs"]
pub mod search;
pub mod signature;
pub mod stored;
pub mod template;
pub mod token;
pub mod twilio_answer;
pub mod webhook;
pub mod words;

/// Stands in the values of committed inputs, and must come back nowhere: not in an error, not in a log line.
pub const CANARY: &str = "canary7791";

/// The counsellor's number, which is nobody's business either: the country's digits, and its own.
pub const NUMBER: (&str, &str) = ("91", "9481063527");

/// Whether a text repeats the canary or the counsellor's number, in any way of writing them, or a part; or shows a digest of
/// a secret.
pub fn repeats(text: &str) -> bool {
    static SEARCH: LazyLock<Search> = LazyLock::new(|| {
        let number = Mark::Number { country: NUMBER.0, national: NUMBER.1 };
        let secrets = edge::SECRETS.map(str::to_owned).into();
        Search::of(&[
            Wanted { mark: Mark::Words(CANARY), values: Vec::new() },
            Wanted { mark: number, values: Vec::new() },
            Wanted { mark: Mark::Digests { keyed: None }, values: secrets },
        ])
    });
    !SEARCH.find(text.as_bytes()).is_empty()
}

/// The counsellor's number in full.
pub fn counsellor() -> String {
    format!("+{}{}", NUMBER.0, NUMBER.1)
}

/// Lets one input through everything that a target asserts of it.
pub type Target = fn(&[u8]);

/// Every target by its name, which is the name of its program and of its folder in `corpus/`, too.
pub const TARGETS: [(&str, Target); 14] = [
    ("config", config::run),
    ("event", event::run),
    ("json", json::run),
    ("jwks", jwks::run),
    ("master_keys", master_keys::run),
    ("request", request::run),
    ("sealed", sealed::run),
    ("signature", signature::run),
    ("stored", stored::run),
    ("template", template::run),
    ("token", token::run),
    ("twilio_answer", twilio_answer::run),
    ("webhook", webhook::run),
    ("words", words::run),
];

/// The longest input that a target looks at, in bytes: as long as the longest body that the service reads.
pub const INPUT_MAX: usize = 64 * 1024;

/// The part before the first line that is `mark`, and the part after it; without such a line all is the first part.
pub fn parted<'a>(data: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let mut begin = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if line.strip_suffix(b"\n").unwrap_or(line) == mark {
            return (&data[..begin], &data[begin + line.len()..]);
        }
        begin += line.len();
    }
    (data, &[])
}

/// The first line, and what follows it.
pub fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
