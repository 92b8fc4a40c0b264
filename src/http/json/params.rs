//! The same strictness for queries and paths.

use std::borrow::Cow;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Track};

use super::fault::Fault;
use super::node::Params;
use super::{Validate, accept};
use crate::http::problem::{FieldError, Problem, ProblemCode};

/// The most parameters a query may have.
const QUERY_PARAMS_MAX: usize = 32;

/// What percent-decoding puts where the bytes are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The query string, read strictly: no unknown parameter (by `deny_unknown_fields`), none twice, UTF-8, at most 32, and
/// all rules of [`Validate`]. Numbers and truth values are read where `T` has them.
#[derive(Debug)]
pub struct StrictQuery<T>(pub T);

impl<S, T> FromRequestParts<S> for StrictQuery<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = query_pairs(parts.uri.query().unwrap_or_default())?;
        let value = fit(&pairs).map_err(|(fault, path)| fault.at(&path))?;
        accept(value).map(Self)
    }
}

fn query_pairs(query: &str) -> Result<Pairs<'_>, Problem> {
    let pairs: Pairs<'_> = form_urlencoded::parse(query.as_bytes()).take(QUERY_PARAMS_MAX + 1).collect();
    let malformed = |detail: &'static str| Err(Problem::new(ProblemCode::MalformedRequest).with_detail(detail));
    if pairs.len() > QUERY_PARAMS_MAX {
        return malformed("the query has too many parameters");
    }
    if pairs.iter().any(|(name, value)| name.contains(REPLACEMENT) || value.contains(REPLACEMENT)) {
        return malformed("the query must be UTF-8");
    }
    // At most 32: walking the list is cheap.
    for (at, (name, _)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(Problem::of_field(ProblemCode::DuplicateField, FieldError::new(name, "must be given once")));
        }
    }
    Ok(pairs)
}

/// The path's parameters, read strictly: one value, a tuple in the order of the route, or a struct by name.
#[derive(Debug)]
pub struct StrictPath<T>(pub T);

impl<S, T> FromRequestParts<S> for StrictPath<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(unreadable)?;
        let pairs: Pairs<'_> = params.iter().map(|(name, value)| (name.into(), value.into())).collect();
        fit(&pairs).map(Self).map_err(|(fault, path)| named(&pairs, fault, &path))
    }
}

fn unreadable(rejection: RawPathParamsRejection) -> Problem {
    match rejection {
        RawPathParamsRejection::InvalidUtf8InPathParam(_) => {
            Problem::new(ProblemCode::MalformedRequest).with_detail("the path must be UTF-8")
        }
        // A route without parameters asks for some: the program is at fault, not the caller.
        RawPathParamsRejection::MissingPathParams(_) | _ => Problem::new(ProblemCode::Internal),
    }
}

/// Names the parameter at fault where the type is a lone value or a tuple, which have no names of their own.
fn named(pairs: &Pairs<'_>, fault: Fault, path: &Path) -> Problem {
    use serde_path_to_error::Segment;
    let name = match path.iter().next() {
        Some(Segment::Seq { index }) => pairs.get(*index),
        None if pairs.len() == 1 => pairs.first(),
        Some(_) | None => None,
    };
    match (name, fault) {
        (Some((name, _)), Fault::Invalid(rule)) => {
            Problem::of_field(ProblemCode::InvalidField, FieldError::new(name, rule))
        }
        (_, fault) => fault.at(path),
    }
}

fn fit<T: DeserializeOwned>(pairs: &Pairs<'_>) -> Result<T, (Fault, Path)> {
    let mut track = Track::new();
    T::deserialize(serde_path_to_error::Deserializer::new(Params(pairs), &mut track))
        .map_err(|fault| (fault, track.path()))
}
