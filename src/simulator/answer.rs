//! The shapes of Twilio's answers: errors, messages, pages.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::message::{Direction, Message, SimStatus};
use super::segments::segments;

/// A refusal, with Twilio's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub http_status: u16,
    pub code: u32,
    pub message: String,
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    pub(super) fn new(http_status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { http_status, code, message: message.into(), retry_after_s: None }
    }

    pub(super) fn not_found(path: &str) -> Self {
        let resource = path.strip_suffix(".json").unwrap_or(path);
        Self::new(404, 20404, format!("The requested resource {resource}.json was not found"))
    }

    /// The answer with a code that a fault asked for.
    pub(super) fn of_code(http_status: u16, code: u32) -> Self {
        let message = match code {
            20003 => "Authenticate",
            20429 => "Too Many Requests",
            20500 => "An internal server error has occurred",
            20503 => "Service Unavailable",
            21408 => "Permission to send an SMS has not been enabled for the region indicated by the 'To' number",
            21610 => "Attempt to send to unsubscribed recipient",
            21611 => "This 'From' number has exceeded the maximum number of queued messages",
            21614 => "'To' number is not a valid mobile number",
            63007 => "Twilio could not find a Channel with the specified From address",
            _ => "The request was refused",
        };
        Self::new(http_status, code, message)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.http_status,
        });
        let mut response = json_response(self.http_status, &body);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.http_status == 401 {
            let realm = HeaderValue::from_static("Basic realm=\"Twilio API\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}

/// A JSON answer.
pub(super) fn json_response(status: u16, body: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(body).unwrap_or_default();
    text_response(status, "application/json", text)
}

/// An answer of any kind.
pub(super) fn text_response(status: u16, content_type: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Sets a header whose value the simulator made.
pub(super) fn set_header(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// A time as the 2010 API writes it: `Thu, 24 Aug 2023 05:01:45 +0000`.
pub(super) fn rfc_2822(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[derive(Serialize)]
struct MessageResource<'a> {
    account_sid: &'a str,
    api_version: &'static str,
    body: &'a str,
    date_created: String,
    date_sent: Option<String>,
    date_updated: String,
    direction: &'static str,
    error_code: Option<u32>,
    error_message: Option<&'static str>,
    from: Option<&'a str>,
    messaging_service_sid: Option<&'a str>,
    num_media: &'static str,
    num_segments: String,
    price: Option<&'static str>,
    price_unit: Option<&'static str>,
    sid: &'a str,
    status: &'static str,
    subresource_uris: SubresourceUris,
    to: &'a str,
    uri: String,
}

#[derive(Serialize)]
struct SubresourceUris {
    media: String,
}

/// The message resource, as a create, a fetch and a list give it.
///
/// Source: Twilio's OpenAPI description, `api.v2010.account.message`.
pub(super) fn message_resource(account_sid: &str, message: &Message) -> Box<serde_json::value::RawValue> {
    let course = message.course.lock();
    let base = format!("/2010-04-01/Accounts/{account_sid}/Messages/{}", message.sid);
    // A service has not chosen a sender yet: it does not know the number of parts either.
    let parts = if course.from.is_none() { 0 } else { segments(&course.body) };
    let priced = course.sent_at.is_some() && message.direction != Direction::Inbound && course.status.is_complete();
    let resource = MessageResource {
        account_sid,
        api_version: "2010-04-01",
        body: &course.body,
        date_created: rfc_2822(message.created_at),
        date_sent: course.sent_at.map(rfc_2822),
        date_updated: rfc_2822(course.updated_at),
        direction: message.direction.word(),
        error_code: course.error_code,
        error_message: course.error_code.map(|_| "The message could not be delivered"),
        from: course.from.as_deref(),
        messaging_service_sid: message.messaging_service_sid.as_deref(),
        num_media: "0",
        num_segments: parts.to_string(),
        price: (priced && course.status != SimStatus::Failed).then_some("-0.00750"),
        price_unit: priced.then_some("USD"),
        sid: &message.sid,
        status: course.status.word(),
        subresource_uris: SubresourceUris { media: format!("{base}/Media.json") },
        to: &message.to,
        uri: format!("{base}.json"),
    };
    // Text, numbers and nulls: this cannot fail to serialise.
    serde_json::value::to_raw_value(&resource).unwrap_or_default()
}
