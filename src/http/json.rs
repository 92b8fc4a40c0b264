//! Strict extractors: [`StrictJson`], [`StrictQuery`] and [`StrictPath`].
//!
//! What they let through has been read completely, once, and fits its type; what they refuse is answered with a
//! [`Problem`] that names the field and the rule and never the value.
//!
//! A body that fits costs two passes: one over the bytes that looks for duplicate keys and depth, one into the type.
//! Only a body that does not fit is read a third time, to find out where and why.

mod fault;
mod node;
mod params;
mod scan;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde_path_to_error::Track;

use self::node::Node;
use self::scan::ScanFault;
use super::problem::{FieldError, Problem, ProblemCode};

pub use self::params::{StrictPath, StrictQuery};

/// Rules that a type alone cannot state: lengths, ranges, fields that need each other.
pub trait Validate {
    /// Every rule that is broken, so that a caller can mend all at once. Empty when all is well.
    fn validate(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

/// A JSON body, read strictly.
///
/// Refuses, in this order: another media type than `application/json`, or a content encoding (415); a body above
/// axum's `DefaultBodyLimit`, which [`manners`](super::manners) sets (413); what is not UTF-8 or not JSON, or is nested
/// deeper than 32 (400 `malformed_json`); a key that comes twice in an object, at any depth (400 `duplicate_field`); what
/// is no object or does not fit `T` (422 `unknown_field`, `missing_field`, `invalid_field`); what breaks a rule of [`Validate`] (422
/// `invalid_field`, all at once). Types refuse unknown fields by `#[serde(deny_unknown_fields)]`.
#[derive(Debug)]
pub struct StrictJson<T> {
    /// The body, parsed and valid.
    pub value: T,
    /// The body as it came, for a digest.
    pub raw: Bytes,
}

impl<S, T> FromRequest<S> for StrictJson<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let raw = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(ProblemCode::BodyTooLarge)
            } else {
                Problem::new(ProblemCode::MalformedRequest).with_detail("the body could not be read to its end")
            }
        })?;
        let value = parse(&raw)?;
        Ok(Self { value, raw })
    }
}

/// Reads `raw` as [`StrictJson`] does.
///
/// # Errors
/// The problem to answer with.
pub fn parse<T: DeserializeOwned + Validate>(raw: &[u8]) -> Result<T, Problem> {
    let malformed = |detail: String| Problem::new(ProblemCode::MalformedJson).with_detail(detail);
    let text = std::str::from_utf8(raw).map_err(|_| malformed("the body must be UTF-8".to_owned()))?;
    scan::scan(text).map_err(|fault| match fault {
        ScanFault::Syntax { line, column } => malformed(format!("not JSON at line {line}, column {column}")),
        ScanFault::TooDeep => malformed(format!("must not be nested deeper than {}", scan::DEPTH_MAX)),
        ScanFault::Duplicate(path) => {
            Problem::of_field(ProblemCode::DuplicateField, FieldError::new(path, "must be given once"))
        }
        ScanFault::Reserved => {
            Problem::of_field(ProblemCode::UnknownField, FieldError::new(scan::RESERVED, "is not known here"))
        }
    })?;
    if !text.trim_start().starts_with('{') {
        // Serde would read an array into a struct by position.
        return Err(Problem::of_field(ProblemCode::InvalidField, FieldError::new("", "must be an object")));
    }
    let value = serde_json::from_str(text).map_err(|_| explain::<T>(text))?;
    accept(value)
}

/// Lets a value through that breaks no rule.
fn accept<T: Validate>(value: T) -> Result<T, Problem> {
    let errors = value.validate();
    if errors.is_empty() { Ok(value) } else { Err(Problem::new(ProblemCode::InvalidField).with_errors(errors)) }
}

/// Finds out where and why `text`, which is JSON, does not fit `T`.
fn explain<T: DeserializeOwned>(text: &str) -> Problem {
    let unexplained =
        || Problem::new(ProblemCode::InvalidField).with_detail("the body does not have the documented form");
    let Ok(tree) = serde_json::from_str::<serde_json::Value>(text) else { return unexplained() };
    let mut track = Track::new();
    match T::deserialize(serde_path_to_error::Deserializer::new(Node(&tree), &mut track)) {
        Err(fault) => fault.at(&track.path()),
        // The two readers disagree about a corner of `T`; the strict one has the last word.
        Ok(_) => unexplained(),
    }
}

/// The body is JSON in UTF-8, and not compressed (a small body could grow beyond any limit).
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &'static str| Err(Problem::new(ProblemCode::UnsupportedMediaType).with_detail(detail));
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else {
        return refuse("Content-Type must be application/json");
    };
    if !media_type.to_str().is_ok_and(is_json) {
        return refuse("Content-Type must be application/json, in UTF-8");
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|encoding| encoding != "identity") {
        return refuse("the body must not be compressed");
    }
    Ok(())
}

fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, charset)) => {
                name.trim().eq_ignore_ascii_case("charset")
                    && charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            None => parameter.is_empty(),
        })
}

#[cfg(test)]
mod tests;
