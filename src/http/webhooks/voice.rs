//! Calls: Twilio asks what to say, hands over the key that was pressed, and tells how the call goes.
//!
//! Which case a call is about, or which code it brings, stands in the address that Twilio was given, and that its signature covers.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::{WebhookProblems, authentic, observe, require_account, unreadable};
use crate::domain::ids::AttemptRef;
use crate::domain::message::{CodeSpeech, Speaker, Speech};
use crate::domain::provider::MessageStatus;
use crate::domain::reply::Answer;
use crate::http::manners::ClientIp;
use crate::http::problem::{Problem, ProblemCode};
use crate::http::state::AppState;
use crate::service::calls::{Call, Key, Said};
use crate::service::receipts::Recorded;
use crate::twilio::callback::{CallEvent, CallHook, call_url, code_url, spoken_code_of};
use crate::twilio::twiml::{self, Verb};

/// How often the message is said where no key is pressed; how often a code is.
const TIMES: usize = 3;
/// How long a key is waited for after each time, in seconds.
const KEY_WAIT_S: u32 = 6;
/// Before a machine is spoken to: it may still be beeping.
const MACHINE_PAUSE_S: u32 = 1;

/// For how long nothing is said after a code, in seconds.
const WRITING_S: u32 = 3;

/// What is posted to each of the four, and what a handler needs of the request.
type Posted = (State<AppState>, OriginalUri, Option<Extension<ClientIp>>, HeaderMap, Bytes);

/// Says what somebody who answers is to hear: the message and the keys, to a machine the message alone. A case that is
/// taken or closed meanwhile is told as that. That somebody answered acknowledges nothing.
#[utoipa::path(post, path = "/webhooks/twilio/voice/answer", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    params(("alert" = Option<String>, Query, description = "the alert's id, from the call's URL"),
        ("delivery" = Option<u32>, Query, description = "the delivery's number"),
        ("attempt" = Option<u32>, Query, description = "the attempt's number")),
    responses((status = 200, description = "TwiML: what is said", content_type = "text/xml"), WebhookProblems))]
pub(super) async fn answer(posted: Posted) -> Result<Response, Problem> {
    let (state, begun, event, _) = read(posted)?;
    let said = match (call(&event), &event.receipt) {
        (Some(call), receipt) => {
            let status = receipt.as_ref().map_or(MessageStatus::InProgress, |receipt| receipt.status);
            let service = Arc::clone(&state.service);
            // In a task of its own: Twilio hanging up must not stop a booking half-way.
            let booking = async move { service.call_answered(&call, status).await };
            tokio::spawn(booking).await.map_err(|_| Problem::new(ProblemCode::Internal))??
        }
        (None, _) => Said::Nothing,
    };
    Ok(spoken(&state, &event, "voice_answer", begun, &said))
}

/// Does what the pressed key asks for: 1 takes the case, 2 hands it on. What came of it is said after the commit; another key
/// changes nothing, and the message is said again.
#[utoipa::path(post, path = "/webhooks/twilio/voice/key", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    params(("alert" = Option<String>, Query, description = "the alert's id, from the call's URL"),
        ("delivery" = Option<u32>, Query, description = "the delivery's number"),
        ("attempt" = Option<u32>, Query, description = "the attempt's number")),
    responses((status = 200, description = "TwiML: what is said", content_type = "text/xml"), WebhookProblems))]
pub(super) async fn key(posted: Posted) -> Result<Response, Problem> {
    let (state, begun, event, _) = read(posted)?;
    let said = match call(&event) {
        Some(call) => {
            let key = event.digits.as_deref().map_or(Key::Other, Key::parse);
            let service = Arc::clone(&state.service);
            let booking = async move { service.key_pressed(&call, key).await };
            tokio::spawn(booking).await.map_err(|_| Problem::new(ProblemCode::Internal))??
        }
        None => Said::Nothing,
    };
    Ok(spoken(&state, &event, "voice_key", begun, &said))
}

/// Says a code by which a number is proven: first who calls and which key to press, and the code only once it was pressed, so that
/// no machine records it.
#[utoipa::path(post, path = "/webhooks/twilio/voice/code", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    params(("organisation" = Option<String>, Query, description = "the college, from the call's URL"),
        ("language" = Option<String>, Query, description = "the language in which it is said"),
        ("seed" = Option<String>, Query, description = "what the code is reckoned from")),
    responses((status = 200, description = "TwiML: what is said", content_type = "text/xml"), WebhookProblems))]
pub(super) async fn code(posted: Posted) -> Result<Response, Problem> {
    let (state, begun, event, query) = read(posted)?;
    let asked = spoken_code_of(&query);
    let speech = asked.as_ref().and_then(|code| Some((state.service.code_speech(code)?, code)));
    let verbs = match speech {
        Some((speech, code)) => {
            let is_pressed = event.digits.as_deref().map(Key::parse) == Some(Key::Take);
            let here = code_url(&state.webhooks.public_base, code);
            if is_pressed { code_said(&speech) } else { code_prompt(&speech, here) }
        }
        None => {
            unmatched(&state);
            vec![Verb::Hangup]
        }
    };
    observe(&state, "voice_code", begun);
    Ok(twiml_answer(&verbs))
}

/// Receives how a call goes. Late, repeated and reordered words change nothing and are answered alike.
#[utoipa::path(post, path = "/webhooks/twilio/voice/status", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    params(("alert" = Option<String>, Query, description = "the alert's id, from the call's URL"),
        ("delivery" = Option<u32>, Query, description = "the delivery's number"),
        ("attempt" = Option<u32>, Query, description = "the attempt's number")),
    responses((status = 204, description = "booked, or nothing new"), WebhookProblems))]
pub(super) async fn call_status(posted: Posted) -> Result<StatusCode, Problem> {
    let (state, begun, event, _) = read(posted)?;
    // Only what asks us what to say shows that somebody who picked up was told anything.
    if let Some(receipt) = event.progress {
        let service = Arc::clone(&state.service);
        let booking = async move { service.record_receipt(event.attempt, &receipt).await };
        let recorded = tokio::spawn(booking).await.map_err(|_| Problem::new(ProblemCode::Internal))??;
        if recorded == Recorded::Unmatched {
            unmatched(&state);
        }
    }
    observe(&state, "voice_status", begun);
    Ok(StatusCode::NO_CONTENT)
}

/// Checks the signature and the account, and reads what was posted; the URL's raw query besides.
fn read(posted: Posted) -> Result<(AppState, jiff::Timestamp, CallEvent, String), Problem> {
    let (State(state), OriginalUri(uri), client, headers, body) = posted;
    let begun = state.service.now();
    let uri: Uri = uri;
    let signed = authentic(&state, client, &uri, &headers, &body)?;
    let event = CallEvent::read(&signed.form, &signed.query).map_err(unreadable)?;
    require_account(&state, &event.account_sid)?;
    Ok((state, begun, event, signed.query))
}

fn call(event: &CallEvent) -> Option<Call> {
    Some(Call { attempt: event.attempt?, id: event.call.clone(), to: event.to.clone()? })
}

fn unmatched(state: &AppState) {
    state.service.metrics().webhook_refused("unmatched");
    tracing::warn!("a call belongs to no attempt that is known here");
}

fn spoken(state: &AppState, event: &CallEvent, hook: &'static str, begun: jiff::Timestamp, said: &Said) -> Response {
    if *said == Said::Nothing {
        unmatched(state);
    }
    observe(state, hook, begun);
    let verbs = match event.attempt {
        Some(attempt) => verbs(said, &key_url(state, &attempt)),
        None => vec![Verb::Hangup],
    };
    twiml_answer(&verbs)
}

fn twiml_answer(verbs: &[Verb]) -> Response {
    ([(header::CONTENT_TYPE, twiml::CONTENT_TYPE)], twiml::document(verbs)).into_response()
}

fn key_url(state: &AppState, attempt: &AttemptRef) -> String {
    call_url(&state.webhooks.public_base, CallHook::Key, attempt)
}

fn verbs(said: &Said, key_url: &str) -> Vec<Verb> {
    match said {
        Said::Prompt(speech) => prompt(speech, key_url),
        Said::Voicemail(speech) => {
            vec![Verb::Pause { seconds: MACHINE_PAUSE_S }, say(&speech.speaker, &speech.voicemail), Verb::Hangup]
        }
        Said::Told(speech) => {
            vec![Verb::Pause { seconds: MACHINE_PAUSE_S }, say(&speech.speaker, &speech.prompt), Verb::Hangup]
        }
        Said::Answer(speech, said) => {
            let told = speech.answer(said);
            // Where there was no answer, or nobody else to pass it to, they can take it still.
            let goes_on = matches!(said.answer, Answer::NobodyElse(_)) || told.is_none();
            let rest = if goes_on { prompt(speech, key_url) } else { vec![Verb::Hangup] };
            told.map(|text| say(&speech.speaker, text)).into_iter().chain(rest).collect()
        }
        Said::Nothing => vec![Verb::Hangup],
    }
}

/// The message a few times, each with time for a key.
fn prompt(speech: &Speech, key_url: &str) -> Vec<Verb> {
    let gather = Verb::Gather {
        action: key_url.to_owned(),
        timeout_s: KEY_WAIT_S,
        prompt: vec![say(&speech.speaker, &speech.prompt)],
    };
    let mut verbs = vec![gather; TIMES];
    verbs.extend([say(&speech.speaker, speech.no_key()), Verb::Hangup]);
    verbs
}

/// Who calls, a few times, each with time for the key.
fn code_prompt(speech: &CodeSpeech, here: String) -> Vec<Verb> {
    let prompt = vec![say(&speech.speaker, &speech.prompt)];
    let gather = Verb::Gather { action: here, timeout_s: KEY_WAIT_S, prompt };
    let mut verbs = vec![gather; TIMES];
    verbs.extend([say(&speech.speaker, &speech.no_key), Verb::Hangup]);
    verbs
}

/// The code, a few times, each with time to write it down.
fn code_said(speech: &CodeSpeech) -> Vec<Verb> {
    let once = [say(&speech.speaker, &speech.code), Verb::Pause { seconds: WRITING_S }];
    vec![once; TIMES].into_iter().flatten().chain([Verb::Hangup]).collect()
}

fn say(speaker: &Speaker, text: &str) -> Verb {
    Verb::Say { language: speaker.language.clone(), voice: speaker.voice.clone(), text: text.to_owned() }
}
