//! Why a value does not fit its type: a serde error that cannot carry the value.
//!
//! Serde's own messages quote what they were given (`invalid type: string "…", expected u32`). This error keeps the
//! expectation and drops the rest, so nothing has to be cut out of a text afterwards.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Expected, Unexpected};
use serde_path_to_error::{Path, Segment};

use crate::http::problem::{FieldError, Problem, ProblemCode};

/// Longest rule that is passed on, in bytes.
const RULE_LENGTH_MAX: usize = 200;

/// What is said where the program has no better text.
const SOME_OTHER_FORM: &str = "must have the documented form";

/// One fault, without the value at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The caller's name for a field that does not exist.
    Unknown(String),
    /// Our name of a field that must be there.
    Missing(&'static str),
    /// Our name of a field that came twice, under two of its names.
    Duplicate(&'static str),
    /// The rule that is broken.
    Invalid(Cow<'static, str>),
}

impl Fault {
    /// The problem document for this fault at `path`.
    pub(super) fn at(self, path: &Path) -> Problem {
        let place = spell(path);
        match self {
            Self::Unknown(name) => {
                // The tracker usually names the unknown field itself as the last step.
                let known = path.iter().next_back().is_some_and(|s| matches!(s, Segment::Map { key } if *key == name));
                let field = if known { place } else { join(&place, &name) };
                Problem::of_field(ProblemCode::UnknownField, FieldError::new(field, "is not known here"))
            }
            Self::Missing(name) => {
                Problem::of_field(ProblemCode::MissingField, FieldError::new(join(&place, name), "must be given"))
            }
            Self::Duplicate(name) => Problem::of_field(
                ProblemCode::DuplicateField,
                FieldError::new(join(&place, name), "must be given once"),
            ),
            Self::Invalid(rule) => Problem::of_field(ProblemCode::InvalidField, FieldError::new(place, rule)),
        }
    }
}

fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// `a.b[2].c`; the document itself is the empty path.
fn spell(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => text = join(&text, key),
            // Which variant was tried says nothing about where in the body the fault is.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown(_) => "unknown field",
            Self::Missing(_) => "missing field",
            Self::Duplicate(_) => "duplicate field",
            Self::Invalid(_) => "invalid field",
        })
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// Types that parse themselves report here. A text that starts with "must " is taken for a rule of ours (as
    /// `InvalidId` has it); any other may quote the value, and is not passed on.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        let is_rule = text.starts_with("must ") && text.len() <= RULE_LENGTH_MAX && !text.contains(char::is_control);
        Self::Invalid(if is_rule { Cow::Owned(text) } else { Cow::Borrowed(SOME_OTHER_FORM) })
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Invalid(rule_for(&expected.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Invalid(rule_for(&expected.to_string()))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::Invalid(rule_for(&expected.to_string()))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Invalid(Cow::Owned(format!("must be one of: {}", expected.join(", "))))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown(field.to_owned())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::Duplicate(field)
    }
}

/// Turns what serde expected into a rule for people. Names of Rust types stay inside.
fn rule_for(expected: &str) -> Cow<'static, str> {
    let rule = match expected {
        "u8" => "must be a whole number in 0..=255",
        "u16" => "must be a whole number in 0..=65535",
        "u32" => "must be a whole number in 0..=4294967295",
        "u64" | "u128" | "usize" => "must be a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "must be a whole number",
        "f32" | "f64" => "must be a number",
        "a boolean" => "must be true or false",
        "a map" => "must be an object",
        "a sequence" => "must be an array",
        "unit" => "must be null",
        other => return rule_for_type(other),
    };
    Cow::Borrowed(rule)
}

fn rule_for_type(expected: &str) -> Cow<'static, str> {
    let starts = |words: &[&str]| words.iter().any(|word| expected.starts_with(word));
    if starts(&["struct ", "internally tagged enum ", "adjacently tagged enum "]) {
        Cow::Borrowed("must be an object")
    } else if starts(&["tuple ", "a tuple ", "an array "]) {
        Cow::Borrowed("must be an array")
    } else if starts(&["enum ", "variant ", "unit variant", "string or map"]) {
        Cow::Borrowed("must be one of the documented words")
    } else if starts(&["a ", "an "]) && expected.len() <= RULE_LENGTH_MAX {
        Cow::Owned(format!("must be {expected}"))
    } else {
        Cow::Borrowed(SOME_OTHER_FORM)
    }
}
