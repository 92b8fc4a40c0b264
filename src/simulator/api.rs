//! The REST API: who calls, what is asked, what goes wrong on purpose, and the headers that Twilio puts on its answers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Response};
use jiff::Timestamp;

use super::answer::{ApiError, set_header, text_response};
use super::auth::Caller;
use super::fault::Answer;
use super::handle::SimListing;
use super::store::RawRequest;
use super::wire::Cut;
use super::world::{World, count};
use super::{call_api, content, create, lookup};

/// The largest body that is read.
const BODY_MAX: usize = 64 * 1024;

/// What comes of a call.
enum Outcome {
    Answer(Response<Body>),
    /// No answer: the connection breaks.
    Broken,
}

impl Outcome {
    /// Whether it tells what was asked for.
    fn tells(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.status().is_success() && answer.body().size_hint().exact() != Some(0),
            Self::Broken => false,
        }
    }
}

impl From<Result<Response<Body>, ApiError>> for Outcome {
    fn from(result: Result<Response<Body>, ApiError>) -> Self {
        Self::Answer(result.unwrap_or_else(ApiError::into_response))
    }
}

/// Counts a call as under way for as long as it lives.
struct InFlight<'a> {
    world: &'a World,
    now: usize,
}

impl<'a> InFlight<'a> {
    fn enter(world: &'a World) -> Self {
        let now = world.counters.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        world.counters.concurrency_max.fetch_max(now, Ordering::Relaxed);
        Self { world, now }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.world.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call for a list, until it has ended: by an answer, without one, or because the caller went away.
struct Listing<'a> {
    world: &'a World,
    at: Timestamp,
    answered: bool,
}

impl<'a> Listing<'a> {
    fn of(world: &'a World, parts: &Parts, at: Timestamp) -> Option<Self> {
        let path = parts.uri.path();
        let lists = parts.method == Method::GET && (path.ends_with("/Messages.json") || path.ends_with("/Calls.json"));
        lists.then(|| Self { world, at, answered: false })
    }
}

impl Drop for Listing<'_> {
    fn drop(&mut self) {
        let took = Duration::try_from(self.world.clock.now().duration_since(self.at)).unwrap_or_default();
        self.world.listed(SimListing { at: self.at, took, answered: self.answered });
    }
}

/// Answers every path that is not the simulator's own.
pub(super) async fn serve(State(world): State<Arc<World>>, request: Request) -> Response<Body> {
    let cut = request.extensions().get::<ConnectInfo<Cut>>().map(|ConnectInfo(cut)| cut.clone());
    let in_flight = InFlight::enter(&world);
    let started = world.clock.now();
    let (parts, body) = request.into_parts();
    let mut listing = Listing::of(&world, &parts, started);
    let outcome = match axum::body::to_bytes(body, BODY_MAX).await {
        _ if world.faults.outage() => Outcome::Broken,
        Ok(body) => dispatch(&world, &parts, body).await,
        Err(_) => Outcome::Answer(ApiError::new(413, 20413, "Request entity too large").into_response()),
    };
    let took = Duration::try_from(world.clock.now().duration_since(started)).unwrap_or_default();
    if let Some(listing) = &mut listing {
        listing.answered = outcome.tells();
    }
    match outcome {
        Outcome::Answer(mut response) => {
            set_header(&mut response, "twilio-request-id", &world.sid("RQ"));
            set_header(&mut response, "twilio-concurrent-requests", &in_flight.now.to_string());
            set_header(&mut response, "twilio-request-duration", &format!("{:.3}", took.as_secs_f64()));
            set_header(&mut response, "x-home-region", "us1");
            response
        }
        Outcome::Broken => broken(cut),
    }
}

/// Breaks the connection; where it is not at hand (the router is embedded in another server), the body breaks instead.
fn broken(cut: Option<Cut>) -> Response<Body> {
    match cut {
        Some(cut) => {
            cut.make();
            Response::default()
        }
        None => {
            let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Response::new(Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(error) })))
        }
    }
}

async fn dispatch(world: &Arc<World>, parts: &Parts, body: Bytes) -> Outcome {
    let path = parts.uri.path();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let create =
        parts.method == Method::POST && matches!(segments[..], [_, "Accounts", _, "Messages.json" | "Calls.json"]);
    if create {
        count(&world.counters.create_calls);
        // A copy: the body itself is a piece of the connection's buffer, and would keep the whole of it alive.
        world.requests.lock().push(RawRequest { at: world.clock.now(), body: Bytes::copy_from_slice(&body) });
        world.changed();
    } else {
        count(&world.counters.lookups);
    }
    let Some(caller) = world.credentials.check(&parts.headers) else {
        return Outcome::Answer(ApiError::of_code(401, 20003).into_response());
    };
    let rest = match segments[..] {
        ["2010-04-01", "Accounts", ref rest @ ..] => rest,
        ["v1", "Content", ref rest @ ..] => {
            let answer = async { content::answer(world, &parts.method, rest, &body) };
            return with_fault(world, world.faults.answer(false, None), answer).await;
        }
        _ => return Outcome::Answer(ApiError::not_found(path).into_response()),
    };
    let (account, rest) = match rest {
        [file] => (file.strip_suffix(".json").unwrap_or_default(), [].as_slice()),
        [account, rest @ ..] => (*account, rest),
        [] => ("", [].as_slice()),
    };
    if account != world.config.account_sid {
        return Outcome::Answer(ApiError::not_found(path).into_response());
    }
    if create {
        let form = create::Form::parse(&body);
        let fault = world.faults.answer(true, form.get("To"));
        let hidden = matches!(fault, Some(Answer::Hold { hidden: true, .. }));
        if matches!(rest, ["Calls.json"]) {
            return with_fault(world, fault, async { call_api::create(world, &form, hidden) }).await;
        }
        return with_fault(world, fault, create::create(world, &form, hidden)).await;
    }
    if let ("POST", ["Calls", file]) = (parts.method.as_str(), rest)
        && let Some(sid) = file.strip_suffix(".json")
    {
        let form = create::Form::parse(&body);
        return with_fault(world, world.faults.answer(false, None), call_api::update(world, sid, &form)).await;
    }
    let answer = async { lookups(world, parts, caller, rest, &body) };
    with_fault(world, world.faults.answer(false, None), answer).await
}

fn lookups(
    world: &World,
    parts: &Parts,
    caller: Caller,
    rest: &[&str],
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let message = |file: &str| file.strip_suffix(".json").map(str::to_owned).ok_or_else(|| ApiError::not_found(path));
    match (parts.method.as_str(), rest) {
        ("GET", []) => lookup::account(world, caller),
        ("GET", ["Messages.json"]) => lookup::list(world, query),
        ("GET", ["Messages", file]) => lookup::fetch(world, &message(file)?),
        ("POST", ["Messages", file]) => lookup::update(world, &message(file)?, &create::Form::parse(body)),
        ("DELETE", ["Messages", file]) => lookup::delete(world, &message(file)?),
        ("GET", ["Calls.json"]) => call_api::list(world, query),
        ("GET", ["Calls", file]) => call_api::fetch(world, &message(file)?),
        ("GET", ["IncomingPhoneNumbers.json"]) => Ok(lookup::numbers(world, query)),
        ("GET", ["Balance.json"]) => Ok(lookup::balance(world)),
        (
            _,
            []
            | ["Messages.json" | "Calls.json" | "IncomingPhoneNumbers.json" | "Balance.json"]
            | ["Messages" | "Calls", _],
        ) => Err(ApiError::new(405, 20004, "Method not allowed")),
        _ => Err(ApiError::not_found(path)),
    }
}

/// Gives the proper answer, or what the fault makes of it.
async fn with_fault(
    world: &World,
    fault: Option<Answer>,
    proper: impl Future<Output = Result<Response<Body>, ApiError>>,
) -> Outcome {
    let Some(fault) = fault else { return proper.await.into() };
    let answer = if fault.accepts() {
        match proper.await {
            Ok(answer) => answer,
            Err(refused) => return Outcome::Answer(refused.into_response()),
        }
    } else {
        Response::default()
    };
    match fault {
        Answer::Refuse { http_status, code, retry_after_s } => {
            Outcome::Answer(ApiError { retry_after_s, ..ApiError::of_code(http_status, code) }.into_response())
        }
        Answer::Hold { .. } => {
            wait(world, world.config.hold).await;
            Outcome::Broken
        }
        Answer::Drop { .. } => Outcome::Broken,
        Answer::Html { .. } => {
            let page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>";
            Outcome::Answer(text_response(502, "text/html", page))
        }
        Answer::Empty => Outcome::Answer(text_response(answer.status().as_u16(), "application/json", Body::empty())),
        Answer::Late(late) => {
            wait(world, late).await;
            Outcome::Answer(answer)
        }
    }
}

/// Waits by the clock, but not beyond the simulator's end.
async fn wait(world: &World, how_long: Duration) {
    tokio::select! {
        () = world.clock.sleep(how_long) => {}
        () = world.stop.cancelled() => {}
    }
}
