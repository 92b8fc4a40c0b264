//! What Twilio posts to us: status callbacks and incoming messages, and the URL that Twilio posts the former to.
//!
//! A webhook reads its raw body once into a [`Form`], has [`super::signature::verify`] check [`Form::pairs`], and only
//! then asks [`StatusCallback::read`] or [`IncomingMessage::read`] what it says. Twilio adds and drops fields without
//! notice, so unknown ones are ignored; everything that is read is bounded.
//!
//! Source: "Track the message status of outbound messages", "Webhooks connection overrides" and the WhatsApp pages of
//! Twilio's documentation, read in November 2026.

mod call;
mod incoming;

use std::fmt;

use url::Url;

use super::error_codes::classify_async;
use super::sid::{is_message_sid, is_sid};
use crate::domain::ids::{AttemptNo, AttemptRef, DeliveryNo, ProviderId};
use crate::domain::provider::{MessageStatus, Receipt};

pub use call::{CallEvent, CallHook, call_url, code_url, spoken_code_of};
pub use incoming::{HiddenUserId, IncomingMessage, Party};

/// Where status callbacks arrive, below the public base URL.
pub const STATUS_PATH: &str = "/webhooks/twilio/status";

/// The header that is the same on every repetition of one callback.
pub const RETRY_TOKEN_HEADER: &str = "I-Twilio-Idempotency-Token";

/// How Twilio is to repeat a callback that we did not answer: 5 times, whatever went wrong; 2 s to connect, 5 s for an
/// answer, 15 s in all (the most that Twilio grants). It is a URL's fragment, and no part of what is signed.
pub const CONNECTION_OVERRIDES: &str = "rc=5&rp=all&ct=2000&rt=5000&tt=15000";

/// The longest body that is read, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// The most fields that are read: an incoming message with ten media has about sixty.
pub const FIELDS_MAX: usize = 200;
/// The longest repetition token, in bytes.
const RETRY_TOKEN_MAX: usize = 128;

/// Why a callback cannot be read. Names the field, never its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallbackError {
    /// More than [`BODY_MAX`] bytes.
    #[error("the body is too long")]
    TooLong,
    /// More than [`FIELDS_MAX`] fields.
    #[error("the form has too many fields")]
    TooManyFields,
    /// JSON, but no object.
    #[error("the body is no JSON object")]
    NotAnObject,
    /// A field without which it means nothing.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field that is not in its form.
    #[error("the field {0} is malformed")]
    Malformed(&'static str),
}

/// The fields of a form post, decoded, in the order in which they came. `Debug` shows the names only.
#[derive(Clone, PartialEq, Eq)]
pub struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Decodes `application/x-www-form-urlencoded`.
    pub fn parse(body: &[u8]) -> Result<Self, CallbackError> {
        if body.len() > BODY_MAX {
            return Err(CallbackError::TooLong);
        }
        let pairs: Vec<_> =
            form_urlencoded::parse(body).take(FIELDS_MAX + 1).map(|(n, v)| (n.into(), v.into())).collect();
        if pairs.len() > FIELDS_MAX { Err(CallbackError::TooManyFields) } else { Ok(Self { pairs }) }
    }

    /// Reads a flat JSON object of the same fields; what is neither text nor number is left out.
    ///
    /// # Errors
    /// [`CallbackError::TooLong`], [`CallbackError::TooManyFields`], and [`CallbackError::NotAnObject`].
    pub fn parse_json(body: &[u8]) -> Result<Self, CallbackError> {
        if body.len() > BODY_MAX {
            return Err(CallbackError::TooLong);
        }
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|_| CallbackError::NotAnObject)?;
        if object.len() > FIELDS_MAX {
            return Err(CallbackError::TooManyFields);
        }
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        };
        Ok(Self { pairs: object.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect() })
    }

    /// Every field: what the signature is reckoned over.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The first field of this name, if it is not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    fn need(&self, name: &'static str) -> Result<&str, CallbackError> {
        self.get(name).ok_or(CallbackError::Missing(name))
    }

    /// `AccountSid`: every callback has one, and it must be compared with our own.
    fn account_sid(&self) -> Result<String, CallbackError> {
        let sid = self.need("AccountSid")?;
        if is_sid("AC", sid) { Ok(sid.to_owned()) } else { Err(CallbackError::Malformed("AccountSid")) }
    }

    /// `MessageSid`, or the older name that Twilio still sends beside it.
    fn message_sid(&self) -> Result<ProviderId, CallbackError> {
        let sid = self.get("MessageSid").or_else(|| self.get("SmsSid")).ok_or(CallbackError::Missing("MessageSid"))?;
        message_sid(sid).ok_or(CallbackError::Malformed("MessageSid"))
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

/// A message's SID, checked.
pub(super) fn message_sid(text: &str) -> Option<ProviderId> {
    is_message_sid(text).then(|| text.parse().ok()).flatten()
}

fn retry_token(header: Option<&str>) -> Option<String> {
    header.filter(|token| (1..=RETRY_TOKEN_MAX).contains(&token.len())).map(str::to_owned)
}

/// The URL that Twilio is asked to post an attempt's receipts to, below `base` (the service's public base URL).
///
/// It carries the attempt, so that a receipt finds it even if the answer to the create call was lost; nothing personal.
pub fn status_callback_url(base: &Url, attempt: &AttemptRef) -> String {
    let mut url = base.clone();
    url.set_path(&format!("{}{STATUS_PATH}", base.path().trim_end_matches('/')));
    url.set_query(Some(&attempt_query(attempt)));
    url.set_fragment(Some(CONNECTION_OVERRIDES));
    url.into()
}

fn attempt_query(attempt: &AttemptRef) -> String {
    format!("alert={}&delivery={}&attempt={}", attempt.alert, attempt.delivery, attempt.attempt)
}

/// The first value of this name in a raw query.
fn queried(raw_query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(raw_query.as_bytes()).find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
}

/// The attempt that a callback's raw query names; `None` where it names none.
pub fn attempt_of(raw_query: &str) -> Option<AttemptRef> {
    let value = |name| queried(raw_query, name);
    Some(AttemptRef {
        alert: value("alert")?.parse().ok()?,
        delivery: DeliveryNo(value("delivery")?.parse().ok()?),
        attempt: AttemptNo(value("attempt")?.parse().ok()?),
    })
}

/// A receipt as Twilio posted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusCallback {
    /// The attempt, from the URL's query; `None` for a message that was made without it.
    pub attempt: Option<AttemptRef>,
    /// What Twilio says.
    pub receipt: Receipt,
    /// Whose message it is: to be compared with the configured account.
    pub account_sid: String,
    /// The same on every repetition of one callback, as [`RETRY_TOKEN_HEADER`] says it.
    pub retry_token: Option<String>,
}

/// What a status callback comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusEvent {
    /// A receipt.
    Receipt(StatusCallback),
    /// A status word that changes nothing here (inbound, or new at Twilio): to be answered as received.
    Ignored,
}

impl StatusCallback {
    /// Reads a status callback whose signature holds. `raw_query` is the URL's, `token` the header
    /// [`RETRY_TOKEN_HEADER`].
    ///
    /// The fault goes with failures only: Twilio sometimes names a code beside a status that is none.
    pub fn read(form: &Form, raw_query: &str, token: Option<&str>) -> Result<StatusEvent, CallbackError> {
        let provider_id = form.message_sid()?;
        let account_sid = form.account_sid()?;
        let word = form.get("MessageStatus").or_else(|| form.get("SmsStatus"));
        let word = word.ok_or(CallbackError::Missing("MessageStatus"))?;
        let Some(status) = MessageStatus::parse(word) else { return Ok(StatusEvent::Ignored) };
        let code = form.get("ErrorCode").and_then(|code| code.parse().ok());
        let receipt = receipt(provider_id, status, code);
        let attempt = attempt_of(raw_query);
        Ok(StatusEvent::Receipt(Self { attempt, receipt, account_sid, retry_token: retry_token(token) }))
    }
}

/// A receipt, with its fault if the status is a failure. A code of 0 means none.
pub(super) fn receipt(provider_id: ProviderId, status: MessageStatus, code: Option<u32>) -> Receipt {
    let code = code.filter(|code| *code != 0);
    let is_fault = status.is_failure() && !(status.is_unreached() && code.is_none());
    let fault = is_fault.then(|| classify_async(code));
    Receipt { provider_id, status, fault }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{AlertId, CodeSeed};
    use crate::domain::method::SpokenCode;
    use crate::domain::provider::{ErrorClass, ProviderFault};

    const SM: &str = "SM0123456789abcdef0123456789abcdef";
    const AC: &str = "AC00000000000000000000000000000000";
    const QUERY: &str = "alert=0197c4de-7a00-7000-8000-0123456789ab&delivery=2&attempt=3";

    fn attempt() -> AttemptRef {
        let alert = AlertId(Uuid::from_u128(0x0197_c4de_7a00_7000_8000_0123_4567_89ab));
        AttemptRef { alert, delivery: DeliveryNo(2), attempt: AttemptNo(3) }
    }

    fn read(body: &str) -> Result<StatusEvent, CallbackError> {
        StatusCallback::read(&Form::parse(body.as_bytes()).unwrap(), QUERY, Some("tok-1"))
    }

    #[track_caller]
    fn receipt_of(body: &str) -> StatusCallback {
        match read(body).unwrap() {
            StatusEvent::Receipt(callback) => callback,
            StatusEvent::Ignored => panic!("ignored"),
        }
    }

    #[test]
    fn the_callback_url_carries_the_attempt_and_asks_for_retries() {
        let wanted = |base: &str| format!("{base}/webhooks/twilio/status?{QUERY}#rc=5&rp=all&ct=2000&rt=5000&tt=15000");
        for (base, shown) in [
            ("https://relay.example.org", "https://relay.example.org"),
            ("https://relay.example.org/", "https://relay.example.org"),
            ("https://relay.example.org:8443/mitra/", "https://relay.example.org:8443/mitra"),
        ] {
            assert_eq!(status_callback_url(&base.parse().unwrap(), &attempt()), wanted(shown));
        }
    }

    #[test]
    fn a_failed_whatsapp_message_brings_its_attempt_and_fault() {
        let callback = receipt_of(&format!(
            "SmsSid={SM}&SmsStatus=undelivered&MessageStatus=undelivered&ChannelToAddress=%2B4915112XXXX\
             &To=whatsapp%3A%2B4915112345678&MessageSid={SM}&AccountSid={AC}&ErrorCode=63016&ChannelStatusMessage="
        ));
        let fault = ProviderFault { code: Some(63016), class: ErrorClass::Template, delay_s: None };
        assert_eq!(callback.attempt, Some(attempt()));
        assert_eq!(callback.receipt.provider_id.as_str(), SM);
        assert_eq!(callback.receipt.status, MessageStatus::Undelivered);
        assert_eq!(callback.receipt.fault, Some(fault));
        assert_eq!(callback.account_sid, AC);
        assert_eq!(callback.retry_token.as_deref(), Some("tok-1"));
    }

    #[test]
    fn a_failure_without_a_code_still_asks_for_the_next_channel_and_a_success_has_no_fault() {
        let failed = receipt_of(&format!("MessageSid={SM}&AccountSid={AC}&MessageStatus=failed&ErrorCode=0"));
        assert_eq!(failed.receipt.fault.map(|fault| (fault.code, fault.class)), Some((None, ErrorClass::Switch)));
        let sent = receipt_of(&format!("SmsSid={SM}&AccountSid={AC}&SmsStatus=delivered&ErrorCode=30003"));
        assert_eq!((sent.receipt.status, sent.receipt.fault), (MessageStatus::Delivered, None));
    }

    #[test]
    fn words_that_change_nothing_are_ignored() {
        for word in ["received", "receiving", "teleported"] {
            let body = format!("MessageSid={SM}&AccountSid={AC}&MessageStatus={word}");
            assert_eq!(read(&body), Ok(StatusEvent::Ignored), "{word}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let sid = CallbackError::Missing("MessageSid");
        assert_eq!(read(""), Err(sid));
        assert_eq!(read(&format!("MessageSid=&AccountSid={AC}")), Err(sid));
        assert_eq!(read(&format!("MessageSid=SM1&AccountSid={AC}")), Err(CallbackError::Malformed("MessageSid")));
        assert_eq!(read(&format!("MessageSid={SM}")), Err(CallbackError::Missing("AccountSid")));
        assert_eq!(read(&format!("MessageSid={SM}&AccountSid=AC1")), Err(CallbackError::Malformed("AccountSid")));
        assert_eq!(read(&format!("MessageSid={SM}&AccountSid={AC}")), Err(CallbackError::Missing("MessageStatus")));
    }

    #[test]
    fn a_query_that_names_no_attempt_leaves_the_receipt_readable() {
        for query in
            ["", "alert=x&delivery=1&attempt=1", "alert=0197c4de-7a00-7000-8000-0123456789ab&delivery=-1&attempt=1"]
        {
            assert_eq!(attempt_of(query), None, "{query}");
        }
        assert_eq!(attempt_of(&format!("bodySHA256=0&{QUERY}&more=1")), Some(attempt()));
    }

    #[test]
    fn a_form_is_bounded_in_length_and_fields() {
        assert_eq!(Form::parse(&vec![b'a'; BODY_MAX + 1]), Err(CallbackError::TooLong));
        assert_eq!(Form::parse("a=1&".repeat(FIELDS_MAX).as_bytes()).unwrap().pairs().len(), FIELDS_MAX);
        assert_eq!(Form::parse("a=1&".repeat(FIELDS_MAX + 1).as_bytes()), Err(CallbackError::TooManyFields));
        let body = format!("MessageSid={SM}&AccountSid={AC}&MessageStatus=sent");
        let form = Form::parse(body.as_bytes()).unwrap();
        let long = "t".repeat(RETRY_TOKEN_MAX + 1);
        for token in [Some(long.as_str()), Some(""), None] {
            let Ok(StatusEvent::Receipt(read)) = StatusCallback::read(&form, "", token) else { panic!("a receipt") };
            assert_eq!(read.retry_token, None);
        }
    }

    #[test]
    fn debug_of_a_form_shows_no_value() {
        let shown = format!("{:?}", Form::parse(b"From=%2B4915112345678&Body=help").unwrap());
        assert_eq!(shown, r#"["From", "Body"]"#);
    }

    #[test]
    fn the_url_of_a_call_that_brings_a_code_names_its_seed_and_no_code() {
        let (organisation, language) = ("north-1".parse().unwrap(), "hi".parse().unwrap());
        let code = SpokenCode { organisation, language, seed: CodeSeed::from_bytes([0xa5; 16]) };
        let url = code_url(&"https://relay.example.org/mitra/".parse().unwrap(), &code);
        let wanted = format!("organisation=north-1&language=hi&seed={}", "a5".repeat(16));
        assert_eq!(
            url,
            format!("https://relay.example.org/mitra/webhooks/twilio/voice/code?{wanted}#{CONNECTION_OVERRIDES}")
        );
        assert_eq!(spoken_code_of(&wanted), Some(code));
        for other in [
            "",
            QUERY,
            "organisation=north-1&language=hi&seed=a5",
            &wanted.replace("hi", "HI"),
            &wanted.replace("a5", "A5"),
        ] {
            assert_eq!(spoken_code_of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_url_that_is_sent_names_the_attempt_when_it_comes_back(
            alert in any::<u128>(), delivery in any::<u32>(), attempt in any::<u32>(),
        ) {
            let sent = AttemptRef {
                alert: AlertId(Uuid::from_u128(alert)),
                delivery: DeliveryNo(delivery),
                attempt: AttemptNo(attempt),
            };
            let url: Url = status_callback_url(&"https://h/x".parse().unwrap(), &sent).parse().unwrap();
            prop_assert_eq!(attempt_of(url.query().unwrap()), Some(sent));
        }

        #[test]
        fn no_body_and_no_query_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), query in "\\PC{0,80}") {
            let form = Form::parse(&body).unwrap();
            prop_assert!(StatusCallback::read(&form, &query, Some(&query)).is_err());
        }
    }
}
