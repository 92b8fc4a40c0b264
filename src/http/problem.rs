//! Error answers: problem documents after RFC 9457, `application/problem+json`.
//!
//! A problem says what is wrong in words fit for strangers. By construction it carries nothing that the caller sent
//! but the names of fields (cut to 64 characters, odd characters replaced), and no text of an inner error: details and
//! rules are the program's own texts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

/// The media type of a problem document (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The most faults one problem names; a body that breaks more rules than that is mended in rounds.
const ERRORS_MAX: usize = 32;

/// Longest field name in a problem, in characters.
const FIELD_LENGTH_MAX: usize = 64;

/// What went wrong, as a stable word that programs may switch on. Words are added, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The body is not JSON in UTF-8, or is nested too deep.
    MalformedJson,
    /// The request cannot be read: its path, query, a header or the body's transfer.
    MalformedRequest,
    /// A field that the API does not know.
    UnknownField,
    /// A field that must be there is not.
    MissingField,
    /// A field breaks a rule.
    InvalidField,
    /// A field is given twice.
    DuplicateField,
    /// The body is longer than the service reads.
    BodyTooLarge,
    /// The body's media type or encoding is not one that is read here.
    UnsupportedMediaType,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// No credentials, or none that are right.
    Unauthenticated,
    /// The credentials were right and have run out.
    TokenExpired,
    /// The caller is known and may not do this.
    Forbidden,
    /// Too many requests.
    RateLimited,
    /// The idempotency key was used before, with another body.
    IdempotencyKeyReused,
    /// The thing is in a state, or at a version, that does not allow this.
    Conflict,
    /// The phone takes nothing from us until it says START.
    OptedOut,
    /// The student has named no such emergency contact.
    EmergencyContactUnknown,
    /// The emergency contact has no number that is verified.
    EmergencyContactUnverified,
    /// No desk is set up that an emergency contact could be asked to call.
    DeskMissing,
    /// A drill reaches nobody outside the team.
    DrillStaysInside,
    /// The service did not finish in time; whether it did its work is not known.
    TimeOut,
    /// The service, or something it needs, is not available just now.
    Unavailable,
    /// The service is at fault.
    Internal,
    /// A callback without the signature it must have.
    BadSignature,
}

/// All that a code settles.
struct Spec {
    word: &'static str,
    status: StatusCode,
    title: &'static str,
}

impl ProblemCode {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 25] = [
        Self::MalformedJson,
        Self::MalformedRequest,
        Self::UnknownField,
        Self::MissingField,
        Self::InvalidField,
        Self::DuplicateField,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::Forbidden,
        Self::RateLimited,
        Self::IdempotencyKeyReused,
        Self::Conflict,
        Self::OptedOut,
        Self::EmergencyContactUnknown,
        Self::EmergencyContactUnverified,
        Self::DeskMissing,
        Self::DrillStaysInside,
        Self::TimeOut,
        Self::Unavailable,
        Self::Internal,
        Self::BadSignature,
    ];

    fn spec(self) -> Spec {
        let (word, status, title) = match self {
            Self::MalformedJson => ("malformed_json", 400, "The body is not readable JSON"),
            Self::MalformedRequest => ("malformed_request", 400, "The request is not readable"),
            Self::UnknownField => ("unknown_field", 422, "The request has a field that is not known here"),
            Self::MissingField => ("missing_field", 422, "The request lacks a field"),
            Self::InvalidField => ("invalid_field", 422, "A field breaks a rule"),
            Self::DuplicateField => ("duplicate_field", 400, "A field is given twice"),
            Self::BodyTooLarge => ("body_too_large", 413, "The body is too large"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "The body's media type is not read here"),
            Self::NotFound => ("not_found", 404, "There is no such thing"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "The method is not allowed here"),
            Self::Unauthenticated => ("unauthenticated", 401, "Valid credentials are needed"),
            Self::TokenExpired => ("token_expired", 401, "The credentials have run out"),
            Self::Forbidden => ("forbidden", 403, "This is not allowed"),
            Self::RateLimited => ("rate_limited", 429, "Too many requests"),
            Self::IdempotencyKeyReused => {
                ("idempotency_key_reused", 422, "The idempotency key was used with another body")
            }
            Self::Conflict => ("conflict", 409, "The state of the thing does not allow this"),
            Self::OptedOut => ("opted_out", 409, "The phone takes nothing from us"),
            Self::EmergencyContactUnknown => {
                ("emergency_contact_unknown", 409, "The student has no such emergency contact")
            }
            Self::EmergencyContactUnverified => {
                ("emergency_contact_unverified", 409, "The emergency contact has no verified number")
            }
            Self::DeskMissing => ("desk_missing", 409, "No desk is set up that could be called"),
            Self::DrillStaysInside => ("drill_stays_inside", 409, "A drill reaches nobody outside the team"),
            Self::TimeOut => ("time_out", 503, "The service did not finish in time"),
            Self::Unavailable => ("unavailable", 503, "The service is not available just now"),
            Self::Internal => ("internal", 500, "The service is at fault"),
            Self::BadSignature => ("bad_signature", 403, "The signature is missing or wrong"),
        };
        // Every number above is a valid status; a wrong one would be found by the test that walks `ALL`.
        Spec { word, status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), title }
    }

    /// The stable word.
    pub fn word(self) -> &'static str {
        self.spec().word
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        self.spec().status
    }

    /// The code that says most about a bare status.
    pub fn for_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthenticated,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 | 504 => Self::TimeOut,
            409 => Self::Conflict,
            413 => Self::BodyTooLarge,
            415 => Self::UnsupportedMediaType,
            422 => Self::InvalidField,
            429 => Self::RateLimited,
            502 | 503 => Self::Unavailable,
            400..=499 => Self::MalformedRequest,
            _ => Self::Internal,
        }
    }
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where: a path such as `emergency_override.by` or `steps[2].after`.
    #[schema(example = "emergency_override.by")]
    field: String,
    /// The rule that is broken, such as `must be a number`. Never the value.
    #[schema(value_type = String, example = "must be a number in 0..=1")]
    rule: Cow<'static, str>,
}

impl FieldError {
    /// A fault of `field`. `rule` is the program's own text: it says what must hold and never repeats the value.
    pub fn new(field: impl AsRef<str>, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { field: presentable(field.as_ref()), rule: rule.into() }
    }

    /// Where the fault is.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The rule that is broken.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// Cuts a field name to size and replaces what no field name of ours has: the caller chose it.
fn presentable(field: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_-.[]".contains(c) { c } else { '?' };
    field.chars().take(FIELD_LENGTH_MAX).map(clean).collect()
}

/// An error answer in the making. [`IntoResponse`] turns it into a [`ProblemDocument`] with its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: ProblemCode,
    detail: Option<Cow<'static, str>>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with nothing but its code.
    pub fn new(code: ProblemCode) -> Self {
        Self { code, detail: None, errors: Vec::new(), retry_after: None, headers: Vec::new() }
    }

    /// A problem of one field.
    pub fn of_field(code: ProblemCode, error: FieldError) -> Self {
        Self::new(code).with_errors(vec![error])
    }

    /// Says more. `detail` is the program's own text, fit for strangers; it never repeats what the caller sent.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Names the fields at fault (the first 32 of them).
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self.errors.truncate(ERRORS_MAX);
        self
    }

    /// Says when to come back: `Retry-After` in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The code.
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// The status that the answer will have.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The fields at fault.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The document as it goes over the wire.
    pub fn document(&self, request_id: Option<&str>) -> ProblemDocument {
        let spec = self.code.spec();
        ProblemDocument {
            kind: format!("urn:crisis-relay:problem:{}", spec.word),
            title: spec.title,
            status: spec.status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            request_id: request_id.map(str::to_owned),
        }
    }

    /// The answer, with the id of the request it is for.
    pub fn respond(mut self, request_id: Option<&str>) -> Response {
        let document = self.document(request_id);
        // Plain strings and numbers: serialising cannot fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut headers: HeaderMap = std::mem::take(&mut self.headers).into_iter().collect();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, self.challenge());
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        (self.status(), headers, body).into_response()
    }

    /// `WWW-Authenticate` after RFC 6750, section 3.
    fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(if self.code == ProblemCode::TokenExpired {
            r#"Bearer realm="crisis-relay", error="invalid_token""#
        } else {
            r#"Bearer realm="crisis-relay""#
        })
    }
}

/// Whole seconds to wait, rounded up and at least 1: who comes back too early is only refused again.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let rounded_up = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    rounded_up.max(1)
}

impl IntoResponse for Problem {
    /// The answer without a request id; the problem rides along in the extensions, so that
    /// [`manners`](crate::http::manners) can write the id into it.
    fn into_response(self) -> Response {
        let mut response = self.clone().respond(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// `urn:crisis-relay:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:crisis-relay:problem:invalid_field")]
    kind: String,
    /// What the code means, for people.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What went wrong, for programs.
    code: ProblemCode,
    /// What went wrong this time, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    detail: Option<Cow<'static, str>>,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The id of the request, as in the answer's `X-Request-Id`: quote it when asking for help.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl utoipa::IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        documented(&ProblemCode::ALL)
    }
}

/// What any authenticated operation may answer: for `responses(…, CommonProblems)` in an operation's documentation.
#[derive(Debug)]
pub struct CommonProblems;

impl utoipa::IntoResponses for CommonProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[
            Code::MalformedRequest,
            Code::Unauthenticated,
            Code::TokenExpired,
            Code::Forbidden,
            Code::NotFound,
            Code::UnknownField,
            Code::InvalidField,
            Code::RateLimited,
            Code::Internal,
            Code::TimeOut,
            Code::Unavailable,
        ])
    }
}

/// What an operation with a query may answer besides [`CommonProblems`]; named after them, for each status is described
/// by whoever is named last.
#[derive(Debug)]
pub struct QueryProblems;

impl utoipa::IntoResponses for QueryProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[Code::MalformedRequest, Code::DuplicateField, Code::UnknownField, Code::InvalidField])
    }
}

/// What an operation on something that is kept in versions may answer besides [`BodyProblems`]; named after them.
#[derive(Debug)]
pub struct VersionProblems;

impl utoipa::IntoResponses for VersionProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[Code::UnknownField, Code::MissingField, Code::InvalidField, Code::Conflict])
    }
}

/// What an operation that takes an `Idempotency-Key` may answer besides [`BodyProblems`]; named after them.
#[derive(Debug)]
pub struct IdempotencyProblems;

impl utoipa::IntoResponses for IdempotencyProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[Code::UnknownField, Code::MissingField, Code::InvalidField, Code::IdempotencyKeyReused])
    }
}

/// What telling an emergency contact may answer besides [`IdempotencyProblems`]; named after them.
#[derive(Debug)]
pub struct DisclosureProblems;

impl utoipa::IntoResponses for DisclosureProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[
            Code::Conflict,
            Code::EmergencyContactUnknown,
            Code::EmergencyContactUnverified,
            Code::DeskMissing,
            Code::DrillStaysInside,
        ])
    }
}

/// What an operation may answer besides [`CommonProblems`] that the state of things may not allow.
#[derive(Debug)]
pub struct StateProblems;

impl utoipa::IntoResponses for StateProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        documented(&[ProblemCode::Conflict])
    }
}

/// What an operation that writes to a phone by itself may answer besides [`CommonProblems`]; named after them.
#[derive(Debug)]
pub struct PhoneProblems;

impl utoipa::IntoResponses for PhoneProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        documented(&[ProblemCode::Conflict, ProblemCode::OptedOut])
    }
}

/// What an operation with a JSON body may answer besides [`CommonProblems`]; named after them.
#[derive(Debug)]
pub struct BodyProblems;

impl utoipa::IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        use ProblemCode as Code;
        documented(&[
            Code::MalformedJson,
            Code::MalformedRequest,
            Code::DuplicateField,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::UnknownField,
            Code::MissingField,
            Code::InvalidField,
        ])
    }
}

/// One documented response per status, whose description lists the codes that share it.
pub(crate) fn documented(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut words = BTreeMap::<String, Vec<&'static str>>::new();
    for code in codes {
        words.entry(code.status().as_str().to_owned()).or_default().push(code.word());
    }
    let respond = |words: Vec<&'static str>| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(words.join(", ")).content(PROBLEM_JSON, content)
    };
    let with_header = |response: ResponseBuilder, status: &str| match status {
        "401" => response.header("WWW-Authenticate", text_header("what to show")),
        "429" | "503" => response.header("Retry-After", text_header("when to come back, in seconds")),
        _ => response,
    };
    words
        .into_iter()
        .map(|(status, words)| (status.clone(), RefOr::T(with_header(respond(words), &status).build())))
        .collect()
}

/// A header that is always there.
fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    async fn read(response: Response) -> Value {
        let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn every_code_has_one_word_an_error_status_and_its_urn() {
        let mut seen = std::collections::HashSet::new();
        for code in ProblemCode::ALL {
            assert!(seen.insert(code.word()), "{code:?} shares its word");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert_eq!(serde_json::to_value(code).unwrap(), json!(code.word()));
            if code.status() == StatusCode::INTERNAL_SERVER_ERROR {
                assert_eq!(code, ProblemCode::Internal, "only one code means our own fault");
            }
            let document = read(Problem::new(code).into_response()).await;
            assert_eq!(document["type"], format!("urn:crisis-relay:problem:{}", code.word()));
            assert_eq!(document["status"], code.status().as_u16());
        }
    }

    #[tokio::test]
    async fn a_problem_has_the_shape_of_rfc_9457() {
        let problem = Problem::of_field(ProblemCode::InvalidField, FieldError::new("score", "must be a number"))
            .with_detail("mend it");
        let response = problem.respond(Some("req-1"));
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(
            read(response).await,
            json!({
                "type": "urn:crisis-relay:problem:invalid_field",
                "title": "A field breaks a rule",
                "status": 422,
                "code": "invalid_field",
                "detail": "mend it",
                "errors": [{"field": "score", "rule": "must be a number"}],
                "request_id": "req-1",
            })
        );
    }

    #[test]
    fn a_401_says_how_to_authenticate() {
        for code in [ProblemCode::Unauthenticated, ProblemCode::TokenExpired] {
            let response = Problem::new(code).into_response();
            let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with("Bearer realm="), "{challenge}");
        }
        assert!(!Problem::new(ProblemCode::Forbidden).into_response().headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait, header_value) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (90_000, "90")] {
            let problem = Problem::new(ProblemCode::RateLimited).with_retry_after(Duration::from_millis(wait));
            assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], header_value);
        }
    }

    #[test]
    fn a_field_name_is_bounded_and_cleaned() {
        let error = FieldError::new("a\"<b>\n\u{202e}é".to_owned() + &"x".repeat(500), "must go");
        assert_eq!(error.field().chars().count(), FIELD_LENGTH_MAX);
        assert!(error.field().starts_with("a??b????xx"), "{}", error.field());
    }

    #[test]
    fn the_number_of_named_faults_is_bounded() {
        let many = (0..500).map(|n| FieldError::new(format!("f{n}"), "must go")).collect();
        assert_eq!(Problem::new(ProblemCode::InvalidField).with_errors(many).errors().len(), ERRORS_MAX);
    }

    #[test]
    fn responses_with_one_status_are_documented_together() {
        let responses = <BodyProblems as utoipa::IntoResponses>::responses();
        let RefOr::T(unprocessable) = &responses["422"] else { panic!("a response, not a reference") };
        assert_eq!(unprocessable.description, "unknown_field, missing_field, invalid_field");
        assert!(unprocessable.content.contains_key(PROBLEM_JSON));
    }

    #[test]
    fn a_bare_status_gets_a_code_of_the_same_class() {
        for status in (400..600).filter_map(|n| StatusCode::from_u16(n).ok()) {
            let code = ProblemCode::for_status(status);
            assert_eq!(
                code.status().is_server_error(),
                status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT
            );
        }
    }
}
