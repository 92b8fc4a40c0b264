//! One HTTP request and its answer, bounded in time, size and number. Knows nothing of messages.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, redirect, retry};
use tokio::sync::Semaphore;
use url::Url;
use zeroize::Zeroizing;

use super::config::{Credentials, RestConfig};
use crate::ports::Clock;
use crate::secret::Secret;

/// Why there is no answer. Carries no text: the HTTP library's own names the URL, which may hold a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// No connection, or no free place in time: nothing was written.
    NotSent,
    /// The request itself could not be built.
    Unbuildable,
    /// No answer in time.
    TimeOut,
    /// The connection broke after the request may have been written.
    ConnectionLost,
}

/// Why an answer's body cannot be had, though its status can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    TimeOut,
    ConnectionLost,
    TooLong,
}

/// An answer. The body is zeroed when dropped: it may hold a number, a text or (the account's page) the auth token.
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Retry-After`, unclamped.
    pub(super) retry_after: Option<Duration>,
    /// `Twilio-Request-Id`: the only text of an answer that may be logged.
    pub(super) request_id: Option<String>,
    pub(super) body: Result<Zeroizing<Vec<u8>>, BodyFault>,
}

impl Answer {
    pub(super) const fn is_success(&self) -> bool {
        matches!(self.status, 200..300)
    }

    /// The body where it could be read, or nothing.
    pub(super) fn bytes(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |bytes| bytes.as_slice())
    }
}

/// The HTTP client with its credentials and its bounded numbers of places. Questions have places of their own: a message
/// that has been looked at for the last time must not wait behind them.
pub(super) struct Http {
    client: Client,
    user: String,
    password: Secret,
    messages: Semaphore,
    questions: Semaphore,
    place_patience: Duration,
    clock: Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(config: &RestConfig, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let (user, password) = match &config.credentials {
            Credentials::AuthToken(token) => (config.account_sid.clone(), token.clone()),
            Credentials::ApiKey { sid, secret } => (sid.clone(), secret.clone()),
        };
        let mut client = Client::builder()
            .user_agent(concat!("crisis-relay/", env!("CARGO_PKG_VERSION")))
            // A message must never be created twice behind the caller's back, nor anywhere but where it was sent.
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .https_only(config.https_only())
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .pool_idle_timeout(config.pool_idle_timeout)
            .pool_max_idle_per_host(config.pool_max_idle)
            .tcp_keepalive(Duration::from_secs(30));
        if config.is_local() {
            client = client.no_proxy();
        }
        let places = || Semaphore::new(config.max_concurrency.min(Semaphore::MAX_PERMITS));
        Ok(Self {
            client: client.build()?,
            user,
            password,
            messages: places(),
            questions: places(),
            place_patience: config.request_timeout,
            clock,
        })
    }

    pub(super) async fn get(&self, url: Url, body_max: usize) -> Result<Answer, Transport> {
        self.call(&self.questions, self.client.get(url), body_max).await
    }

    pub(super) async fn post_form(&self, url: Url, form: String, body_max: usize) -> Result<Answer, Transport> {
        let request = self.client.post(url).header("Content-Type", "application/x-www-form-urlencoded").body(form);
        self.call(&self.messages, request, body_max).await
    }

    async fn call(&self, places: &Semaphore, request: RequestBuilder, body_max: usize) -> Result<Answer, Transport> {
        let place = tokio::time::timeout(self.place_patience, places.acquire()).await;
        // The semaphore is never closed, so the inner error cannot come; both mean that nothing was written.
        let Ok(Ok(_place)) = place else { return Err(Transport::NotSent) };
        let request = request
            .basic_auth(&self.user, Some(self.password.expose()))
            .header("Accept", "application/json")
            .build()
            .map_err(|_| Transport::Unbuildable)?;
        let response = self.client.execute(request).await.map_err(|error| transport(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let retry_after = retry_after(headers, self.clock.now());
        let request_id = request_id(headers);
        let body = read(response, body_max).await;
        Ok(Answer { status, retry_after, request_id, body })
    }
}

/// Whether the request can have reached Twilio. A failed connection comes first: it may have failed by a time-out too.
fn transport(error: &reqwest::Error) -> Transport {
    if error.is_connect() {
        Transport::NotSent
    } else if error.is_builder() {
        Transport::Unbuildable
    } else if error.is_timeout() {
        Transport::TimeOut
    } else {
        Transport::ConnectionLost
    }
}

async fn read(mut response: Response, max: usize) -> Result<Zeroizing<Vec<u8>>, BodyFault> {
    // In one piece where the length is told: a buffer that grows leaves copies behind that are not zeroed.
    let told = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(4096);
    let mut body = Zeroizing::new(Vec::with_capacity(told.min(max)));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > max => return Err(BodyFault::TooLong),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err(BodyFault::TimeOut),
            Err(_) => return Err(BodyFault::ConnectionLost),
        }
    }
}

/// Twilio's own name for the call: `RQ` and hexadecimal digits. Anything longer or stranger is left out.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("Twilio-Request-Id")?.to_str().ok()?;
    let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    fits.then(|| id.to_owned())
}

fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// Seconds, or an HTTP date (RFC 9110, 10.2.3); a date that is past means at once. Anything else counts as absent.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    // Ten digits are three centuries: more is garbage, and could not be reckoned with.
    if (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_garbage_counts_as_absent() {
        let now: Timestamp = "2026-11-20T10:00:00Z".parse().unwrap();
        let read = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(read("0"), Some(0));
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("Fri, 20 Nov 2026 10:01:30 GMT"), Some(90));
        assert_eq!(read("Fri, 20 Nov 2026 09:00:00 GMT"), Some(0));
        for garbage in ["", "soon", "-5", "1.5", "99999999999", "Fri, 99 Nov 2026 10:01:30 GMT"] {
            assert_eq!(read(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn only_a_plain_request_id_may_reach_the_log() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("Twilio-Request-Id", value.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(id("RQ0123abcd").as_deref(), Some("RQ0123abcd"));
        for strange in ["", "RQ +4915112345678", &"R".repeat(65)] {
            assert_eq!(id(strange), None, "{strange}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "\\PC{0,40}", now in -1_000_000_000i64..10_000_000_000) {
            let _ = parse_retry_after(&text, at(now));
        }

        #[test]
        fn seconds_come_back_as_they_are(seconds in 0u64..9_999_999_999) {
            prop_assert_eq!(parse_retry_after(&seconds.to_string(), at(0)), Some(Duration::from_secs(seconds)));
        }
    }
}
