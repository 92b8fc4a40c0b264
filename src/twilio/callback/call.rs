//! What Twilio posts about a call: how it goes, that somebody has answered, and which key was pressed.

use url::Url;

use super::{CONNECTION_OVERRIDES, CallbackError, Form, attempt_of, attempt_query, queried, receipt};
use crate::domain::contact::PhoneNumber;
use crate::domain::ids::{AttemptRef, ProviderId};
use crate::domain::method::SpokenCode;
use crate::domain::provider::{MessageStatus, Receipt};
use crate::twilio::sid::call_sid;

/// Which of our addresses Twilio posts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallHook {
    /// Somebody has answered: what is to be said?
    Answer,
    /// A key was pressed.
    Key,
    /// The call has got further.
    Status,
}

/// Where Twilio asks what a call says that brings a code, below the public base URL: once somebody answers, and again with the key
/// that they pressed.
const CODE_PATH: &str = "/webhooks/twilio/voice/code";

impl CallHook {
    /// Where it is, below the public base URL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Answer => "/webhooks/twilio/voice/answer",
            Self::Key => "/webhooks/twilio/voice/key",
            Self::Status => "/webhooks/twilio/voice/status",
        }
    }
}

/// The URL that Twilio is asked to post to about an attempt's call, below `base` (the service's public base URL). It carries
/// the attempt, so that whatever comes finds it even if the answer to the create call was lost; nothing personal.
pub fn call_url(base: &Url, hook: CallHook, attempt: &AttemptRef) -> String {
    hook_url(base, hook.path(), &attempt_query(attempt))
}

/// The URL that Twilio is asked to post to in a call that brings a code. It says what the code is reckoned from, with a key that
/// stays here; and nothing personal.
pub fn code_url(base: &Url, code: &SpokenCode) -> String {
    let SpokenCode { organisation, language, seed } = code;
    hook_url(base, CODE_PATH, &format!("organisation={organisation}&language={language}&seed={seed}"))
}

fn hook_url(base: &Url, path: &str, query: &str) -> String {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(Some(query));
    url.set_fragment(Some(CONNECTION_OVERRIDES));
    url.into()
}

/// The code that such a URL's raw query is about; `None` where it is about none.
pub fn spoken_code_of(raw_query: &str) -> Option<SpokenCode> {
    Some(SpokenCode {
        organisation: queried(raw_query, "organisation")?.parse().ok()?,
        language: queried(raw_query, "language")?.parse().ok()?,
        seed: queried(raw_query, "seed")?.parse().ok()?,
    })
}

/// What Twilio posted about a call. `Debug` shows the end of a number only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvent {
    /// The attempt, from the URL's query; `None` for a call that was made without it.
    pub attempt: Option<AttemptRef>,
    /// Twilio's id of the call.
    pub call: ProviderId,
    /// How far it got; `None` for a status word that is new at Twilio.
    pub receipt: Option<Receipt>,
    /// The same, but for who picked up: whoever did has not been told anything yet, as far as this says.
    pub progress: Option<Receipt>,
    /// The phone that was called.
    pub to: Option<PhoneNumber>,
    /// The keys that were pressed, where any were: at most four characters.
    pub digits: Option<String>,
    /// Whose call it is: to be compared with the configured account.
    pub account_sid: String,
}

impl CallEvent {
    /// Reads what Twilio posted about a call, if its signature holds. `raw_query` is the URL's.
    ///
    /// # Errors
    /// A field without which it means nothing is missing or malformed.
    pub fn read(form: &Form, raw_query: &str) -> Result<Self, CallbackError> {
        let call = call_sid(form.need("CallSid")?).ok_or(CallbackError::Malformed("CallSid"))?;
        let (word, by) = (form.need("CallStatus")?, form.get("AnsweredBy"));
        let status = MessageStatus::of_call(word, by);
        let progress = MessageStatus::of_call(word, by.filter(|by| *by != "human"));
        let code = form.get("ErrorCode").and_then(|code| code.parse().ok());
        Ok(Self {
            attempt: attempt_of(raw_query),
            receipt: status.map(|status| receipt(call.clone(), status, code)),
            progress: progress.map(|status| receipt(call.clone(), status, code)),
            call,
            to: form.get("To").and_then(|to| to.parse().ok()),
            digits: form.get("Digits").map(|digits| digits.chars().take(4).collect()),
            account_sid: form.account_sid()?,
        })
    }
}
