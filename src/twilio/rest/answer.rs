//! What an answer means. Every judgement about "was it sent?" stands in [`outcome`].

use serde::Deserialize;
use serde_json::Value;

use super::super::callback::message_sid;
use super::super::error_codes::classify_sync;
use super::super::sid::call_sid;
use super::http::{Answer, BodyFault, Transport};
use crate::domain::contact::Channel;
use crate::domain::ids::ProviderId;
use crate::domain::provider::{ErrorClass, MessageStatus, SendOutcome, UnknownCause};
use crate::ports::LookUpError;

/// Which of Twilio's resources is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// `Messages`
    Message,
    /// `Calls`
    Call,
}

impl Resource {
    /// Its name in paths.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Message => "Messages",
            Self::Call => "Calls",
        }
    }

    pub(super) const fn of(channel: Channel) -> Self {
        match channel {
            Channel::Whatsapp | Channel::Sms => Self::Message,
            Channel::Voice => Self::Call,
        }
    }
}

/// A message or a call in Twilio's JSON, as far as it is read. Every field may be missing or of another type.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct MessageJson {
    pub(super) sid: Value,
    pub(super) status: Value,
    pub(super) error_code: Value,
    pub(super) date_created: Value,
    pub(super) body: Value,
    /// Of a call: `human` or `machine`.
    pub(super) answered_by: Value,
    /// Of a call; only `outbound-api` is one of ours.
    pub(super) direction: Value,
}

impl MessageJson {
    pub(super) fn provider_id(&self, resource: Resource) -> Option<ProviderId> {
        match resource {
            Resource::Message => message_sid(self.sid.as_str()?),
            Resource::Call => call_sid(self.sid.as_str()?),
        }
    }

    pub(super) fn message_status(&self, resource: Resource) -> Option<MessageStatus> {
        let word = self.status.as_str()?;
        match resource {
            Resource::Message => MessageStatus::parse(word),
            Resource::Call => MessageStatus::of_call(word, self.answered_by.as_str()),
        }
    }
}

/// A code as a number or, as some of Twilio's products write it, as text. 0 means none.
pub(super) fn code_of(value: &Value) -> Option<u32> {
    let code = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u32::try_from(code).ok().filter(|code| *code != 0)
}

/// The `code` of an error body; `None` if it is empty, HTML or otherwise unreadable.
pub(super) fn error_code(body: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct ErrorJson {
        #[serde(default)]
        code: Value,
    }
    serde_json::from_slice::<ErrorJson>(body).ok().and_then(|error| code_of(&error.code))
}

/// What became of a create call.
///
/// It is `NotExecuted` only where that is certain, `Unknown` wherever it is not: a message too many is better than one
/// too few, and one that was looked up first is better than either.
pub(super) fn outcome(resource: Resource, answer: &Result<Answer, Transport>) -> SendOutcome {
    match answer {
        Err(Transport::NotSent) => SendOutcome::NotExecuted { retry_after: None, fault: None },
        Err(Transport::Unbuildable) => SendOutcome::Refused(classify_sync(400, None)),
        Err(Transport::TimeOut) => unknown(UnknownCause::TimeOut, None),
        Err(Transport::ConnectionLost) => unknown(UnknownCause::ConnectionLost, None),
        Ok(answer) if answer.is_success() => match created(resource, answer) {
            Ok((provider_id, status)) => SendOutcome::Accepted { provider_id, status },
            Err(cause) => unknown(cause, Some(answer)),
        },
        Ok(answer) => {
            let fault = classify_sync(answer.status, error_code(answer.bytes()));
            match (fault.class, answer.status) {
                (ErrorClass::Retry, _) => {
                    SendOutcome::NotExecuted { retry_after: answer.retry_after, fault: Some(fault) }
                }
                (ErrorClass::Ambiguous, 408) => unknown(UnknownCause::TimeOut, Some(answer)),
                (ErrorClass::Ambiguous, _) => unknown(UnknownCause::ServerError, Some(answer)),
                (
                    ErrorClass::Delay
                    | ErrorClass::Switch
                    | ErrorClass::OptOut
                    | ErrorClass::Template
                    | ErrorClass::Config,
                    _,
                ) => SendOutcome::Refused(fault),
            }
        }
    }
}

fn unknown(cause: UnknownCause, answer: Option<&Answer>) -> SendOutcome {
    SendOutcome::Unknown { cause, retry_after: answer.and_then(|answer| answer.retry_after) }
}

/// The message that was made. A status word that is new at Twilio does not make it less made: it counts as the lowest
/// that follows a create call.
fn created(resource: Resource, answer: &Answer) -> Result<(ProviderId, MessageStatus), UnknownCause> {
    let body = answer.body.as_ref().map_err(|fault| match fault {
        BodyFault::TimeOut => UnknownCause::TimeOut,
        BodyFault::ConnectionLost => UnknownCause::ConnectionLost,
        BodyFault::TooLong => UnknownCause::UnreadableAnswer,
    })?;
    let message: MessageJson = serde_json::from_slice(body).map_err(|_| UnknownCause::UnreadableAnswer)?;
    let id = message.provider_id(resource).ok_or(UnknownCause::UnreadableAnswer)?;
    Ok((id, message.message_status(resource).unwrap_or(MessageStatus::Accepted)))
}

/// The answer to a question, if it was answered. A 404 becomes [`LookUpError::NotFound`].
pub(super) fn looked_up(answer: Result<Answer, Transport>) -> Result<Answer, LookUpError> {
    // Whatever broke on the way, asking again does no harm.
    let answer = answer.map_err(|_| LookUpError::Unavailable { retry_after: None })?;
    match (answer.status, &answer.body) {
        (200..300, Ok(_)) => Ok(answer),
        (200..300, Err(_)) | (408 | 429 | 500.., _) => {
            Err(LookUpError::Unavailable { retry_after: answer.retry_after })
        }
        (404, _) => Err(LookUpError::NotFound),
        (_, _) => Err(LookUpError::Refused { code: error_code(answer.bytes()) }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, Transport> {
        let body = Ok(Zeroizing::new(body.as_bytes().to_vec()));
        Ok(Answer { status, retry_after: Some(Duration::from_secs(7)), request_id: None, body })
    }

    #[test]
    fn a_message_was_made_if_its_sid_can_be_read_whatever_its_status_word() {
        let body = |status: &str| {
            format!(r#"{{"sid":"SM0123456789abcdef0123456789abcdef","status":{status},"error_code":null}}"#)
        };
        for (word, status) in [
            ("\"queued\"", MessageStatus::Queued),
            ("\"scheduled\"", MessageStatus::Scheduled),
            ("\"teleporting\"", MessageStatus::Accepted),
            ("null", MessageStatus::Accepted),
            ("17", MessageStatus::Accepted),
        ] {
            let SendOutcome::Accepted { status: read, .. } = outcome(Resource::Message, &answer(201, &body(word)))
            else {
                panic!("{word}")
            };
            assert_eq!(read, status, "{word}");
        }
    }

    #[test]
    fn codes_are_read_as_numbers_and_as_text() {
        assert_eq!(error_code(br#"{"code":21211,"message":"x"}"#), Some(21211));
        assert_eq!(error_code(br#"{"code":"21211"}"#), Some(21211));
        for unreadable in ["", "<html>", "[]", r#"{"code":null}"#, r#"{"code":-1}"#, r#"{"code":4294967296}"#, "{}"] {
            assert_eq!(error_code(unreadable.as_bytes()), None, "{unreadable}");
        }
    }

    proptest! {
        /// The promise behind "never lost": only an answer that proves it may say that nothing was sent.
        #[test]
        fn only_a_refusal_or_a_429_says_that_nothing_was_sent(status in 200u16..600, body in "\\PC{0,60}") {
            match outcome(Resource::Message, &answer(status, &body)) {
                SendOutcome::Accepted { .. } | SendOutcome::NotBegun { .. } => {
                    prop_assert!(false, "no sid in {body}, and a call was made");
                }
                SendOutcome::NotExecuted { retry_after, .. } => {
                    prop_assert_eq!(status, 429);
                    prop_assert_eq!(retry_after, Some(Duration::from_secs(7)));
                }
                SendOutcome::Refused(_) => prop_assert!((300..500).contains(&status)),
                SendOutcome::Unknown { .. } => prop_assert!(status < 300 || status == 408 || status >= 500),
            }
        }
    }
}
