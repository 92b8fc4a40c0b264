//! The control over HTTP, below `/_simulator/`, and the phone page.
//!
//! It asks for no credentials: whoever reaches it controls the simulator. Keep it on loopback. Pages of other sites are
//! kept out by what their browsers say of themselves (`Sec-Fetch-Site`).
//!
//! ```text
//! GET    /messages?phone=+49…&limit=500   what phones show, oldest first, with `calls`, `revision` and `manual`
//! POST   /call                            {"sid": "CA…", "do": "answer"}; see `Doing` for what else, "press" with a "key"
//! GET    /faults                          the rules in force
//! POST   /faults                          {"kind": "slow", "ms": 200, "next": 3, "to": "+49…", "on": "creates"}, or a list
//! DELETE /faults                          mends everything
//! POST   /callbacks/step                  {"sid": "SM…"}, or nothing for all: {"codes": [204]}
//! POST   /callbacks/send                  {"sid": "SM…", "status": "read", "error_code": null}
//! POST   /reply                           {"from": "+49…", "text": "ACK"}; "quote": null or a SID; "tap": a button's title,
//!                                         under the message that "quote" names or the last that has it
//! PUT    /inbound-url                     {"url": "http://…"}: where replies go
//! GET    /stats                           counters
//! POST   /reset                           forgets messages, requests, faults and counts
//! GET    /stream                          server-sent events: the revision, whenever it has changed
//! ```

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Json, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::call::{AnsweredBy, SimCall};
use super::fault::FaultRule;
use super::handle::SimulatorHandle;
use super::inbound::{Inbound, Quote, ReplyError, SimReply};
use super::message::{SimMessage, SimStatus};
use super::world::Stats;

/// The largest body that is read.
const BODY_MAX: usize = 16 * 1024;
/// The most messages in one answer.
const MESSAGES_MAX: usize = 2_000;
/// How often, at most, a watcher is told of changes.
const STREAM_PAUSE: Duration = Duration::from_millis(150);

const PAGE: &str = include_str!("phone.html");

/// What the phone page may do: run and show what is written in it, and talk to its own origin. Nothing else.
static PAGE_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let inside = PAGE.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        let digest = Sha256::digest(inside.map_or("", |(inside, _)| inside).as_bytes());
        format!("'sha256-{}'", STANDARD.encode(digest))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
});

/// The simulator's own paths.
pub(super) fn router() -> Router<SimulatorHandle> {
    let control = Router::new()
        .route("/messages", get(messages))
        .route("/faults", get(faults).post(push_faults).delete(clear_faults))
        .route("/callbacks/step", post(step))
        .route("/callbacks/send", post(send))
        .route("/reply", post(reply))
        .route("/call", post(call))
        .route("/inbound-url", put(inbound_url))
        .route("/stats", get(stats))
        .route("/reset", post(reset))
        .route("/stream", get(stream));
    Router::new()
        .route("/", get(page))
        .route("/phone", get(page))
        .nest("/_simulator", control)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn(own_pages_only))
}

async fn own_pages_only(request: Request, next: Next) -> Response {
    let foreign =
        |headers: &HeaderMap| headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    // A link to the page itself may be followed from anywhere.
    if foreign(request.headers()) && request.uri().path().starts_with("/_simulator") {
        return refuse(StatusCode::FORBIDDEN, "only the simulator's own page may do this");
    }
    next.run(request).await
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"error": why}))).into_response()
}

async fn page() -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, PAGE_POLICY.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(PAGE)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessagesQuery {
    phone: Option<String>,
    #[serde(default = "few")]
    limit: usize,
}

fn few() -> usize {
    500
}

#[derive(Serialize)]
struct Messages {
    revision: u64,
    manual: bool,
    messages: Vec<SimMessage>,
    calls: Vec<SimCall>,
}

async fn messages(State(handle): State<SimulatorHandle>, Query(query): Query<MessagesQuery>) -> Json<Messages> {
    let limit = query.limit.min(MESSAGES_MAX);
    let revision = *handle.changes().borrow();
    let (messages, mut calls) = match query.phone {
        Some(phone) => {
            let mut all = handle.conversation(&phone);
            (all.split_off(all.len().saturating_sub(limit)), handle.calls_to(&phone))
        }
        None => (handle.everything(limit), handle.calls()),
    };
    let calls = calls.split_off(calls.len().saturating_sub(limit));
    Json(Messages { revision, manual: handle.manual(), messages, calls })
}

/// What somebody does with a phone that is called.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Doing {
    /// Picks it up.
    Answer,
    /// Lets the voicemail pick it up.
    Voicemail,
    /// Lets it ring until it stops.
    Ignore,
    /// Hangs up, or turns it down.
    HangUp,
    /// Presses a key.
    Press,
    /// Presses none while one is waited for.
    StaySilent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoWithCall {
    sid: String,
    #[serde(rename = "do")]
    doing: Doing,
    key: Option<char>,
}

async fn call(
    State(handle): State<SimulatorHandle>,
    Json(DoWithCall { sid, doing, key }): Json<DoWithCall>,
) -> Response {
    let done = match doing {
        Doing::Answer => handle.pick_up(&sid, AnsweredBy::Human).await,
        Doing::Voicemail => handle.pick_up(&sid, AnsweredBy::MachineEndBeep).await,
        Doing::Ignore => handle.ring_out(&sid).await,
        Doing::HangUp => handle.hang_up(&sid).await,
        Doing::Press => handle.press(&sid, key.unwrap_or('1')).await,
        Doing::StaySilent => handle.stay_silent(&sid).await,
    };
    match done {
        Ok(codes) => Json(json!({"codes": codes})).into_response(),
        Err(unknown) => refuse(StatusCode::NOT_FOUND, &unknown.to_string()),
    }
}

async fn faults(State(handle): State<SimulatorHandle>) -> Json<Vec<FaultRule>> {
    Json(handle.faults())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Many(Vec<Value>),
    One(Value),
}

/// Takes one rule or a list of them; all or none.
async fn push_faults(State(handle): State<SimulatorHandle>, Json(rules): Json<Rules>) -> Response {
    let rules = match rules {
        Rules::Many(rules) => rules,
        Rules::One(rule) => vec![rule],
    };
    let read: Result<Vec<FaultRule>, _> = rules.into_iter().map(serde_json::from_value).collect();
    match read {
        Err(error) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        Ok(rules) if rules.len() + handle.faults().len() > super::RULES_MAX => {
            refuse(StatusCode::CONFLICT, "there are too many rules already")
        }
        Ok(rules) => {
            for rule in rules {
                handle.push_fault(rule);
            }
            (StatusCode::CREATED, Json(handle.faults())).into_response()
        }
    }
}

async fn clear_faults(State(handle): State<SimulatorHandle>) -> StatusCode {
    handle.clear_faults();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Step {
    sid: Option<String>,
}

async fn step(State(handle): State<SimulatorHandle>, body: Option<Json<Step>>) -> Response {
    let Json(Step { sid }) = body.unwrap_or_default();
    let codes = match sid {
        None => handle.step_all().await,
        Some(sid) => match handle.step(&sid).await {
            Ok(codes) => codes,
            Err(unknown) => return refuse(StatusCode::NOT_FOUND, &unknown.to_string()),
        },
    };
    Json(json!({"codes": codes})).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    sid: String,
    status: SimStatus,
    error_code: Option<u32>,
}

async fn send(State(handle): State<SimulatorHandle>, Json(send): Json<Send>) -> Response {
    match handle.send_callback(&send.sid, send.status, send.error_code).await {
        Ok(code) => Json(json!({"codes": code.into_iter().collect::<Vec<_>>()})).into_response(),
        Err(unknown) => refuse(StatusCode::NOT_FOUND, &unknown.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    from: String,
    #[serde(default)]
    text: String,
    /// The title of a button to tap, instead of a text.
    tap: Option<String>,
    /// The message that it quotes; the last one if not given, none if `null`.
    #[serde(default = "last")]
    quote: Option<String>,
    sid: Option<String>,
}

/// A word that no SID is, for a field that was left out.
const LAST: &str = "last";

fn last() -> Option<String> {
    Some(LAST.to_owned())
}

async fn reply(State(handle): State<SimulatorHandle>, Json(reply): Json<Reply>) -> Response {
    let replied: Result<SimReply, ReplyError> = match reply.tap {
        Some(title) => match reply.quote {
            Some(sid) if sid != LAST => handle.tap_under(&reply.from, &title, &sid).await,
            Some(_) | None => handle.tap(&reply.from, &title).await,
        },
        None => {
            let quote = match reply.quote {
                None => Quote::Nothing,
                Some(word) if word == LAST => Quote::Last,
                Some(sid) => Quote::Sid(sid),
            };
            let mut inbound = Inbound::new(&reply.from, &reply.text).quoting(quote);
            inbound.sid = reply.sid;
            handle.receive(&inbound).await
        }
    };
    match replied {
        Ok(reply) => Json(reply).into_response(),
        Err(error @ ReplyError::NoInboundUrl) => refuse(StatusCode::CONFLICT, &error.to_string()),
        Err(error @ ReplyError::NothingThere) => refuse(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundUrl {
    url: String,
}

async fn inbound_url(State(handle): State<SimulatorHandle>, Json(InboundUrl { url }): Json<InboundUrl>) -> StatusCode {
    handle.set_inbound_url(&url);
    StatusCode::NO_CONTENT
}

async fn stats(State(handle): State<SimulatorHandle>) -> Json<Stats> {
    Json(handle.stats())
}

async fn reset(State(handle): State<SimulatorHandle>) -> StatusCode {
    handle.reset();
    StatusCode::NO_CONTENT
}

/// Server-sent events: the revision, whenever it has changed, until the simulator stops.
async fn stream(State(handle): State<SimulatorHandle>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stop = handle.world.stop.clone();
    let mut changes = handle.changes();
    changes.mark_changed();
    let events = futures::stream::unfold((changes, stop), |(mut changes, stop)| async {
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = stop.cancelled() => return None,
        }
        tokio::time::sleep(STREAM_PAUSE).await;
        let revision = *changes.borrow_and_update();
        Some((Ok(Event::default().data(revision.to_string())), (changes, stop)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
