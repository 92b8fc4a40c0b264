//! Versions as HTTP knows them: `ETag` on what is shown, `If-Match` on what is changed.
//!
//! Whoever changes something says which version they looked at, so that nobody overwrites what they have not seen.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};

use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::problem::{FieldError, Problem, ProblemCode};

/// The form of a tag: a version in quotes.
const TAG_PATTERN: &str = "^\"[0-9]{1,10}\"$";
const RULE: &str = "must be the ETag of the version that was read, such as \"3\"";
const DIGITS_MAX: usize = 10;

/// The version that a change was made from.
#[derive(Debug, Clone, Copy)]
pub struct IfMatch(pub u64);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let refuse = |code, rule| Problem::of_field(code, FieldError::new("If-Match", rule));
        let mut tags = parts.headers.get_all(header::IF_MATCH).iter();
        let (tag, None) = (tags.next(), tags.next()) else {
            return Err(refuse(ProblemCode::InvalidField, "must be given once"));
        };
        let tag = tag.ok_or_else(|| refuse(ProblemCode::MissingField, RULE))?;
        let version = tag.to_str().ok().and_then(read);
        version.map(Self).ok_or_else(|| refuse(ProblemCode::InvalidField, RULE))
    }
}

impl utoipa::IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let form = ObjectBuilder::new().schema_type(Type::String).pattern(Some(TAG_PATTERN));
        let parameter = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some("the ETag of the version that was read"))
            .schema(Some(form));
        vec![parameter.build()]
    }
}

fn read(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let fits = (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if fits { digits.parse().ok() } else { None }
}

/// The header that tells a version.
pub fn tag(version: u64) -> [(HeaderName, HeaderValue); 1] {
    // Digits in quotes always make a header.
    let value = HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
    [(header::ETAG, value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_is_written_and_in_no_other_form() {
        let [(_, written)] = tag(17);
        assert_eq!(read(written.to_str().unwrap()), Some(17));
        for other in ["17", "\"17", "\"\"", "W/\"17\"", "*", "\"-1\"", "\"+1\"", "\"99999999999\"", "\"1\", \"2\""] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
