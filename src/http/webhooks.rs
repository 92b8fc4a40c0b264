//! Twilio's webhooks: receipts, replies and calls. Signed, or refused; booked, then answered.
//!
//! An error of the store is answered 503, so that Twilio repeats the call (the callback URL asks it to); and where it
//! does not, receipts are polled.

mod voice;

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::manners::ClientIp;
use super::problem::{Problem, ProblemCode};
use super::state::{AppState, WebhookTrust};
use crate::domain::contact::Channel;
use crate::domain::reply::Command;
use crate::domain::tap::Tap;
use crate::service::receipts::Recorded;
use crate::service::replies::Reply;
use crate::twilio::callback::{
    CallbackError, Form, IncomingMessage, Party, RETRY_TOKEN_HEADER, StatusCallback, StatusEvent,
};
use crate::twilio::signature::{self, SIGNATURE_HEADER};
use crate::twilio::twiml::{self, Verb};

/// A webhook's request, whose signature holds.
struct Signed {
    form: Form,
    query: String,
    token: Option<String>,
}

/// Receives a delivery receipt: a form (or a flat JSON object of the same fields), signed by Twilio.
///
/// Late, repeated and reordered receipts change nothing and are answered alike.
#[utoipa::path(post, path = "/webhooks/twilio/status", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    params(("alert" = Option<String>, Query, description = "the alert's id, from the callback URL"),
        ("delivery" = Option<u32>, Query, description = "the delivery's number"),
        ("attempt" = Option<u32>, Query, description = "the attempt's number")),
    responses((status = 204, description = "booked, or nothing new"), WebhookProblems))]
async fn status(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    client: Option<Extension<ClientIp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let begun = state.service.now();
    let signed = authentic(&state, client, &uri, &headers, &body)?;
    let event = StatusCallback::read(&signed.form, &signed.query, signed.token.as_deref()).map_err(unreadable)?;
    if let StatusEvent::Receipt(callback) = event {
        require_account(&state, &callback.account_sid)?;
        // In a task of its own: Twilio hanging up must not stop a booking half-way.
        let service = Arc::clone(&state.service);
        let booking = async move { service.record_receipt(callback.attempt, &callback.receipt).await };
        let recorded = tokio::spawn(booking).await.map_err(|_| Problem::new(ProblemCode::Internal))??;
        if recorded == Recorded::Unmatched {
            state.service.metrics().webhook_refused("unmatched");
            tracing::warn!("a receipt belongs to no attempt that is known here");
        }
    }
    observe(&state, "status", begun);
    Ok(StatusCode::NO_CONTENT)
}

/// Receives a reply from a phone. `1`, `ack` or `yes`, with the reference if several cases wait, takes the case; it is
/// confirmed back only after the commit.
#[utoipa::path(post, path = "/webhooks/twilio/incoming", tag = "webhooks",
    request_body(content = String, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "TwiML: what is said back, if anything", content_type = "text/xml"), WebhookProblems))]
async fn incoming(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    client: Option<Extension<ClientIp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let begun = state.service.now();
    let signed = authentic(&state, client, &uri, &headers, &body)?;
    let message = IncomingMessage::read(&signed.form, signed.token.as_deref()).map_err(unreadable)?;
    require_account(&state, &message.account_sid)?;
    require_sender(&state, message.channel, &message.to)?;
    // A button's title is in the words of a language; what it asks for is its id.
    let tap = message.button_payload.as_deref().map(Tap::read);
    let command = match tap.map(|tap| tap.command) {
        None | Some(Command::Other) => Command::parse(&message.body),
        Some(command) => command,
    };
    let from = match (message.from, message.channel) {
        (Party::Number(number), _) => Some(number),
        (Party::Hidden(_), Channel::Whatsapp) => message.wa_id,
        (Party::Hidden(_), Channel::Sms | Channel::Voice) => None,
    };
    let reply = Reply {
        message: message.message_sid,
        channel: message.channel,
        from,
        in_reply_to: message.original_replied_message_sid,
        ticket: tap.and_then(|tap| tap.ticket),
        command,
        words: message.body.into(),
    };
    let service = Arc::clone(&state.service);
    let booking = async move { service.record_reply(&reply).await };
    let answer = tokio::spawn(booking).await.map_err(|_| Problem::new(ProblemCode::Internal))??;
    observe(&state, "incoming", begun);
    let said: Vec<Verb> = state.service.said_back(&answer).await?.map(Verb::Message).into_iter().collect();
    Ok(([(header::CONTENT_TYPE, twiml::CONTENT_TYPE)], twiml::document(&said)).into_response())
}

/// Checks the signature over the public URL and the body, and reads the fields.
///
/// Only what does not prove to be Twilio's counts against the limit: somebody who floods from the same address (behind a
/// proxy all have one) must not keep receipts and replies out.
fn authentic(
    state: &AppState,
    client: Option<Extension<ClientIp>>,
    uri: &axum::http::Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Signed, Problem> {
    let refuse = |problem: Problem| match state.limiter.check_webhook(client.map(|client| client.0.0)) {
        Ok(()) => problem,
        Err(too_often) => too_often,
    };
    let trust: &WebhookTrust = &state.webhooks;
    let path_and_query = uri.path_and_query().map_or("", |text| text.as_str());
    let url = trust.public_url(path_and_query);
    let given = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"));
    let (form, verified) = if json {
        let verified = signature::verify_json(&trust.auth_tokens, &url, body, given);
        (None, verified)
    } else {
        let form = match Form::parse(body) {
            Ok(form) => form,
            Err(error) => return Err(refuse(unreadable(error))),
        };
        let verified = signature::verify(&trust.auth_tokens, &url, form.pairs(), given);
        (Some(form), verified)
    };
    if let Err(error) = verified {
        state.service.metrics().webhook_refused("signature");
        tracing::warn!(%error, "a webhook without a right signature was refused");
        return Err(refuse(Problem::new(ProblemCode::BadSignature)));
    }
    let form = match form {
        Some(form) => form,
        None => Form::parse_json(body).map_err(unreadable)?,
    };
    let token = headers.get(RETRY_TOKEN_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Signed { form, query: uri.query().unwrap_or_default().to_owned(), token })
}

fn require_account(state: &AppState, account_sid: &str) -> Result<(), Problem> {
    if account_sid == state.webhooks.account_sid {
        return Ok(());
    }
    state.service.metrics().webhook_refused("account");
    Err(Problem::new(ProblemCode::Forbidden).with_detail("the callback is of another account"))
}

/// What came to a number that is not ours is no reply to us: on one account there may be other services.
fn require_sender(state: &AppState, channel: Channel, to: &Party) -> Result<(), Problem> {
    if state.webhooks.is_sender(channel, to) {
        return Ok(());
    }
    state.service.metrics().webhook_refused("sender");
    Err(Problem::new(ProblemCode::Forbidden).with_detail("the message is to another sender"))
}

fn unreadable(error: CallbackError) -> Problem {
    let code =
        if let CallbackError::TooLong = error { ProblemCode::BodyTooLarge } else { ProblemCode::MalformedRequest };
    Problem::new(code).with_detail(error.to_string())
}

fn observe(state: &AppState, hook: &'static str, begun: jiff::Timestamp) {
    let seconds = state.service.now().duration_since(begun).as_secs_f64().max(0.0);
    state.service.metrics().webhook(hook, seconds);
}

/// What a webhook may be answered with besides success.
struct WebhookProblems;

impl utoipa::IntoResponses for WebhookProblems {
    fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        super::problem::documented(&[
            ProblemCode::MalformedRequest,
            ProblemCode::BadSignature,
            ProblemCode::Forbidden,
            ProblemCode::BodyTooLarge,
            ProblemCode::RateLimited,
            ProblemCode::Internal,
            ProblemCode::TimeOut,
            ProblemCode::Unavailable,
        ])
    }
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(incoming))
        .routes(routes!(voice::answer))
        .routes(routes!(voice::key))
        .routes(routes!(voice::code))
        .routes(routes!(voice::call_status))
}
