//! What happens around every request, whatever it is about.
//!
//! [`with_manners`] gives a request an id, the address it came from and a span; bounds its time and its body; catches a
//! panic; and sees that every error answer is a problem document with the request's id. Answers that the framework makes
//! by itself (no such path, wrong method, a built-in extractor's refusal, which may quote the input) are
//! replaced by problems of the same status. At last come the security headers.
//!
//! Neither span nor log line holds the path that was asked for, which may carry a user id: they hold the route's template.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use futures::FutureExt as _;
use tracing::{Instrument as _, Span, field};

use super::problem::{PROBLEM_JSON, Problem, ProblemCode};
use crate::ports::{self, Clock, Entropy};
use crate::service::caller::Deadline;

/// The header that carries a request's id, in both directions.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Digits of an id that is taken over from a caller.
const REQUEST_ID_DIGITS: usize = 32;

/// Where a UUID has its hyphens.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// Nothing may be loaded, run or framed: answers are data. Pages set their own policy.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// When to come back after a time-out.
const RETRY_AFTER_TIME_OUT: Duration = Duration::from_secs(1);

/// Bounds for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MannersSettings {
    /// From the end of the request's head to the beginning of the answer. A stream may then go on.
    pub request_timeout: Duration,
    /// Longest body that extractors read, in bytes. A route may have its own `DefaultBodyLimit`.
    pub body_length_max: usize,
    /// How many proxies of our own stand before the service and append to `X-Forwarded-For`. None: the header, which
    /// anybody can write, is not read.
    pub trusted_proxies: usize,
}

impl Default for MannersSettings {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(10), body_length_max: 64 * 1024, trusted_proxies: 0 }
    }
}

/// The id of a request: the caller's own, or a fresh one. In the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text: a UUID with hyphens, or 32 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(headers: &HeaderMap, entropy: &dyn Entropy) -> Self {
        let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
        match given.filter(|text| is_sane(text)) {
            Some(text) => Self(text.into()),
            None => Self(HEXLOWER.encode(&ports::random::<16>(entropy)).into()),
        }
    }
}

/// An id goes into the log, so it has no room for a name, nor for a phone or roll number by itself: a UUID with hyphens
/// or 32 hexadecimal digits, as of a trace, and not decimal digits only.
fn is_sane(id: &str) -> bool {
    let is_uuid = id.len() == REQUEST_ID_DIGITS + UUID_HYPHENS.len();
    let fits = |(place, byte): (usize, u8)| {
        if is_uuid && UUID_HYPHENS.contains(&place) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    (is_uuid || id.len() == REQUEST_ID_DIGITS)
        && id.bytes().enumerate().all(fits)
        && id.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Where a request came from, as far as that can be trusted. In the request's extensions when known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl ClientIp {
    /// The peer, or what the outermost of `trusted_proxies` saw: counted from the right, for callers write on the left.
    fn of(request: &Request, trusted_proxies: usize) -> Option<Self> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        if trusted_proxies == 0 {
            return peer.map(Self);
        }
        let forwarded = request.headers().get_all("x-forwarded-for").into_iter();
        let hops: Vec<&str> = forwarded.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).collect();
        let seen = hops.iter().rev().nth(trusted_proxies - 1).and_then(|text| text.trim().parse().ok());
        seen.or(peer).map(Self)
    }
}

/// What the middleware needs.
struct Manners {
    settings: MannersSettings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Wraps `router` in the manners. To be called last, on the whole application.
pub fn with_manners(
    router: Router,
    settings: &MannersSettings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Router {
    let manners = Arc::new(Manners { settings: *settings, clock, entropy });
    router.layer(DefaultBodyLimit::max(settings.body_length_max)).layer(from_fn_with_state(manners, attend))
}

async fn attend(State(manners): State<Arc<Manners>>, mut request: Request, next: Next) -> Response {
    let begun = manners.clock.now();
    let id = RequestId::of(request.headers(), manners.entropy.as_ref());
    let span = span_of(&request, &id);
    if let Some(client) = ClientIp::of(&request, manners.settings.trusted_proxies) {
        request.extensions_mut().insert(client);
    }
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(Deadline::new(begun, manners.settings.request_timeout));

    let answered = answer(request, next, manners.settings.request_timeout).instrument(span.clone()).await;
    let (mut response, code) = as_problem(answered, &id);
    dress(response.headers_mut(), &id);

    let latency = Duration::try_from(manners.clock.now().duration_since(begun)).unwrap_or_default();
    span.record("status", response.status().as_u16());
    span.record("latency_us", u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    if let Some(code) = code {
        span.record("problem", code.word());
    }
    span.in_scope(|| tracing::info!("answered"));
    response
}

fn span_of(request: &Request, id: &RequestId) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    tracing::info_span!(
        "request",
        method = method_word(request.method()),
        route,
        request_id = id.as_str(),
        status = field::Empty,
        latency_us = field::Empty,
        problem = field::Empty,
    )
}

/// A method is any word the caller likes; only the known ones are fit for a log.
fn method_word(method: &Method) -> &str {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    if known.contains(method) { method.as_str() } else { "other" }
}

/// The handler's answer, or the problem that stands for it. On time-out the handler's future is dropped where it
/// stands: what it had committed stays committed.
async fn answer(request: Request, next: Next, patience: Duration) -> Response {
    let handled = AssertUnwindSafe(tokio::time::timeout(patience, next.run(request))).catch_unwind().await;
    match handled {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => Problem::new(ProblemCode::TimeOut)
            .with_detail(
                "whether the request was carried out is not known; it may be repeated with its idempotency key",
            )
            .with_retry_after(RETRY_AFTER_TIME_OUT)
            .into_response(),
        Err(_payload) => {
            // The payload may quote anything; the panic hook has told where it happened.
            tracing::error!("a handler panicked");
            Problem::new(ProblemCode::Internal).into_response()
        }
    }
}

/// Sees that an error answer is a problem document with the request's id, and says which problem.
fn as_problem(mut response: Response, id: &RequestId) -> (Response, Option<ProblemCode>) {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let code = problem.code();
        return (written_over(response, problem, id), Some(code));
    }
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if is_error && is_bare(response.headers()) {
        let code = ProblemCode::for_status(response.status());
        return (written_over(response, Problem::new(code), id), Some(code));
    }
    (response, None)
}

/// Whether an answer is without a document of its own: empty, or plain text, as the framework's refusals are.
fn is_bare(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(header::CONTENT_TYPE) else { return true };
    media_type.as_bytes().starts_with(b"text/plain")
}

/// Replaces status and body by the problem's; other headers (`Allow`, for one) stay.
fn written_over(response: Response, problem: Problem, id: &RequestId) -> Response {
    let (mut before, _) = response.into_parts();
    before.headers.remove(header::CONTENT_LENGTH);
    let (after, body): (_, Body) = problem.respond(Some(id.as_str())).into_parts();
    debug_assert_eq!(after.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes), Some(PROBLEM_JSON.as_bytes()));
    before.status = after.status;
    before.headers.extend(after.headers);
    Response::from_parts(before, body)
}

/// The headers that every answer has. A handler's own policy for caching and content is left alone.
fn dress(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID_HEADER, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(CONTENT_SECURITY_POLICY));
}

#[cfg(test)]
mod tests;
