//! What a call asks Twilio for besides the two numbers.

use form_urlencoded::Serializer;
use url::Url;

use super::config::RestConfig;
use crate::domain::ids::AttemptRef;
use crate::domain::method::SpokenCode;
use crate::twilio::callback::{CallHook, call_url, code_url};

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
    append_asked(form, &call_url(base, CallHook::Answer, attempt));
    form.append_pair("StatusCallback", &call_url(base, CallHook::Status, attempt));
    form.append_pair("StatusCallbackMethod", "POST");
    for event in EVENTS {
        form.append_pair("StatusCallbackEvent", event);
    }
    form.append_pair("MachineDetection", "DetectMessageEnd");
    form.append_pair("Timeout", &config.ring_timeout.as_secs().to_string());
    form.append_pair("TimeLimit", TIME_LIMIT_S);
}

/// Appends where Twilio asks what to say. Where no answer comes, nor one to a key that was pressed, it would say that an error has occurred, and
/// hang up on somebody who was woken for this. So it is to ask once more, at the same address: by then we may be back, on another instance
/// perhaps; and what is said there goes by how the case stands, so that whoever has taken it with a key whose answer was lost hears so, and
/// everybody else hears the message and the keys.
fn append_asked(form: &mut Serializer<'_, String>, url: &str) {
    for (address, method) in [("Url", "Method"), ("FallbackUrl", "FallbackMethod")] {
        form.append_pair(address, url);
        form.append_pair(method, "POST");
    }
}

/// The longest call that brings a code, in seconds: who calls three times, with time to press the key, and the code three times.
const CODE_TIME_LIMIT_S: &str = "180";

/// Appends where Twilio asks what a call says that brings a code, and how it rings. What becomes of it is not told: nothing depends
/// on it but that the code comes back. Nor is it asked who answers, since a machine presses no key.
pub(super) fn append_code(form: &mut Serializer<'_, String>, config: &RestConfig, base: &Url, code: &SpokenCode) {
    append_asked(form, &code_url(base, code));
    form.append_pair("Timeout", &config.ring_timeout.as_secs().to_string());
    form.append_pair("TimeLimit", CODE_TIME_LIMIT_S);
}
