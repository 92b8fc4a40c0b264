//! What a call asks Twilio for besides the two numbers.

use form_urlencoded::Serializer;
use url::Url;

use super::config::RestConfig;
use crate::domain::ids::AttemptRef;
use crate::twilio::callback::{CallHook, call_url};

/// The longest call, in seconds: the message three times, with time to press a key.
const TIME_LIMIT_S: &str = "300";

/// Every step of a call is told, not only its end.
const EVENTS: [&str; 4] = ["initiated", "ringing", "answered", "completed"];

/// Appends where Twilio asks what to say, where it tells how the call goes, and how it rings.
///
/// A machine is waited out until its tone (`DetectMessageEnd`), so that what it records is whole; a human hears the
/// message as soon as they are known for one. The phone rings for less time than most voicemails take to answer.
///
/// Source: Twilio's OpenAPI description of `POST Calls.json`, and its pages on call progress events and answering machine
/// detection.
pub(super) fn append(form: &mut Serializer<'_, String>, config: &RestConfig, base: &Url, attempt: &AttemptRef) {
    form.append_pair("Url", &call_url(base, CallHook::Answer, attempt));
    form.append_pair("Method", "POST");
    form.append_pair("StatusCallback", &call_url(base, CallHook::Status, attempt));
    form.append_pair("StatusCallbackMethod", "POST");
    for event in EVENTS {
        form.append_pair("StatusCallbackEvent", event);
    }
    form.append_pair("MachineDetection", "DetectMessageEnd");
    form.append_pair("Timeout", &config.ring_timeout.as_secs().to_string());
    form.append_pair("TimeLimit", TIME_LIMIT_S);
}
