//! `…/Calls.json`: what Twilio checks before it makes a call, and what it says of calls afterwards.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::answer::{ApiError, json_response, rfc_2822};
use super::call::{AnsweredBy, Call, CallCourse, CallStatus};
use super::create::{Form, bad, is_address, is_callback};
use super::message::WHATSAPP;
use super::world::{World, count};

/// The longest inline document, in characters.
const TWIML_MAX: usize = 4000;
/// How long a phone rings that is not told so, and at most.
const RING_DEFAULT_S: u64 = 60;
const RING_MAX_S: u64 = 600;
/// Twilio's pages.
const PAGE_SIZE_MAX: usize = 1000;
const PAGE_SIZE_DEFAULT: usize = 50;

/// `POST …/Calls.json`
pub(super) fn create(world: &Arc<World>, form: &Form<'_>, hidden: bool) -> Result<Response<Body>, ApiError> {
    let call = checked(world, form, hidden)?;
    count(&world.counters.created);
    world.changed();
    let resource = resource(world, &call);
    world.live(&call);
    Ok(json_response(201, &resource))
}

fn checked(world: &World, form: &Form<'_>, hidden: bool) -> Result<Arc<Call>, ApiError> {
    let to = form.filled("To").ok_or_else(|| bad(21201, "No 'To' number specified"))?;
    if to.starts_with(WHATSAPP) || !is_address(to) {
        return Err(bad(21211, "The phone number you are attempting to call is not valid."));
    }
    let from = form.filled("From").ok_or_else(|| bad(21213, "Caller phone number required"))?;
    if from.starts_with(WHATSAPP) || !world.config.senders.iter().any(|known| known == from) {
        return Err(bad(21210, "The source phone number provided is not yet verified for your account."));
    }
    let (url, twiml) = (form.filled("Url"), form.filled("Twiml"));
    if url.is_none() && twiml.is_none() {
        return Err(bad(21205, "Url parameter is required."));
    }
    if url.is_some_and(|url| !is_callback(url)) {
        return Err(bad(21205, "Url is not a valid URL."));
    }
    let fallback_url = form.filled("FallbackUrl");
    if fallback_url.is_some_and(|url| !is_callback(url)) {
        return Err(bad(21205, "FallbackUrl is not a valid URL."));
    }
    if twiml.is_some_and(|twiml| twiml.chars().count() > TWIML_MAX) {
        return Err(bad(20001, "Twiml is longer than 4000 characters."));
    }
    let status_callback = form.filled("StatusCallback");
    if status_callback.is_some_and(|url| !is_callback(url)) {
        return Err(bad(21609, "The 'StatusCallback' URL is not a valid URL."));
    }
    let rings_for_s = form.filled("Timeout").map_or(Some(RING_DEFAULT_S), |text| text.parse().ok());
    let rings_for_s = rings_for_s.filter(|seconds| (1..=RING_MAX_S).contains(seconds));
    let rings_for_s = rings_for_s.ok_or_else(|| bad(20001, "Timeout must be a number of seconds from 1 to 600."))?;
    let (habit, error_code, twist) = world.faults.call_outcome(to);
    let asked = form.all("StatusCallbackEvent");
    let events = if asked.is_empty() { vec!["completed".to_owned()] } else { asked };
    let (now, sid) = (world.clock.now(), world.sid("CA"));
    Ok(world.calls.lock().insert(|seq| Call {
        seq,
        sid,
        to: to.to_owned(),
        from: from.to_owned(),
        url: url.map(str::to_owned),
        fallback_url: fallback_url.map(str::to_owned),
        twiml: twiml.filter(|_| url.is_none()).map(str::to_owned),
        status_callback: status_callback.map(str::to_owned),
        events,
        rings_for: Duration::from_secs(rings_for_s),
        detects_machines: form.filled("MachineDetection").is_some(),
        created_at: now,
        habit,
        error_code,
        twist,
        hidden,
        course: Mutex::new(CallCourse {
            status: CallStatus::Queued,
            answered_by: None,
            said: Vec::new(),
            keys: String::new(),
            waiting: None,
            rest: Vec::new(),
            updated_at: now,
            answered_at: None,
            mark: 0,
            sequence: 0,
            expected: false,
            held: None,
        }),
        turn: tokio::sync::Mutex::default(),
        changed: Notify::new(),
    }))
}

fn find(world: &World, sid: &str) -> Result<Arc<Call>, ApiError> {
    let missing = || ApiError::not_found(&format!("/2010-04-01/Accounts/{}/Calls/{sid}", world.config.account_sid));
    world.calls.lock().get(sid).ok_or_else(missing)
}

/// `GET …/Calls/{CA}.json`
pub(super) fn fetch(world: &World, sid: &str) -> Result<Response<Body>, ApiError> {
    Ok(json_response(200, &resource(world, &*find(world, sid)?)))
}

/// `POST …/Calls/{CA}.json`: `Status=completed` ends a call, `canceled` one that nobody has picked up.
pub(super) async fn update(world: &World, sid: &str, form: &Form<'_>) -> Result<Response<Body>, ApiError> {
    let call = find(world, sid)?;
    let status = call.course.lock().status;
    let to = match (form.get("Status"), status) {
        (Some("completed" | "canceled"), status) if status.is_over() => {
            return Err(bad(21220, "Call is not in-progress. Cannot redirect."));
        }
        (Some("canceled"), CallStatus::InProgress) => return Ok(json_response(200, &resource(world, &call))),
        (Some("canceled"), _) => CallStatus::Canceled,
        (Some("completed"), CallStatus::InProgress) => CallStatus::Completed,
        (Some("completed"), _) => CallStatus::Canceled,
        (_, _) => return Err(bad(20001, "Status must be completed or canceled.")),
    };
    world.move_call(&call, to, None).await;
    Ok(json_response(200, &resource(world, &call)))
}

/// `GET …/Calls.json`: newest first, in pages.
pub(super) fn list(world: &World, query: &str) -> Result<Response<Body>, ApiError> {
    let query = Form::parse(query.as_bytes());
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let page_size = number("PageSize").unwrap_or(PAGE_SIZE_DEFAULT).clamp(1, PAGE_SIZE_MAX);
    let page = number("Page").unwrap_or(0);
    let before = match query.get("PageToken") {
        Some(token) => token.strip_prefix("PACA").and_then(|digits| u64::from_str_radix(digits, 16).ok()),
        None => Some(u64::MAX),
    };
    let before = before.ok_or_else(|| bad(20001, "Invalid page token"))?;
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let fits = |call: &&Arc<Call>| {
        !call.hidden
            && call.seq < before
            && is("To", &call.to)
            && is("From", &call.from)
            && is("Status", call.course.lock().status.word())
    };
    let found: Vec<Arc<Call>> = world.calls.lock().all().rev().filter(fits).take(page_size + 1).cloned().collect();
    let resources: Vec<Value> = found.iter().take(page_size).map(|call| resource(world, call)).collect();
    let next = found.get(page_size).and_then(|_| found.get(page_size - 1)).map(|last| last.seq);
    let uri = |page: usize, token: Option<u64>| {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for name in ["To", "From", "Status"] {
            if let Some(value) = query.get(name) {
                pairs.append_pair(name, value);
            }
        }
        pairs.append_pair("PageSize", &page_size.to_string()).append_pair("Page", &page.to_string());
        let mut uri = format!("/2010-04-01/Accounts/{}/Calls.json?{}", world.config.account_sid, pairs.finish());
        if let Some(seq) = token {
            // Writing to a String cannot fail.
            let _ = write!(uri, "&PageToken=PACA{seq:032x}");
        }
        uri
    };
    Ok(json_response(
        200,
        &json!({
            "calls": resources, "first_page_uri": uri(0, None), "next_page_uri": next.map(|seq| uri(page + 1, Some(seq))),
            "page": page, "page_size": page_size, "previous_page_uri": null, "start": page * page_size,
            "end": (page * page_size + found.len().min(page_size)).saturating_sub(1), "uri": uri(page, None),
        }),
    ))
}

/// The call resource, as a create, a fetch and a list give it. A call that waits for its turn has no dates yet.
///
/// Source: Twilio's OpenAPI description, `api.v2010.account.call`.
fn resource(world: &World, call: &Call) -> Value {
    let course = call.course.lock();
    let account = &world.config.account_sid;
    let begun = (course.status != CallStatus::Queued).then(|| rfc_2822(call.created_at));
    let ended = course.status.is_over().then(|| rfc_2822(course.updated_at));
    let status = if course.status == CallStatus::Initiated { CallStatus::Queued } else { course.status };
    let duration = course.answered_at.filter(|_| course.status.is_over());
    let duration = duration.map(|at| course.updated_at.duration_since(at).as_secs().to_string());
    let answered_by = course.answered_by.and_then(|by| match by {
        AnsweredBy::Human => Some("human"),
        AnsweredBy::MachineEndBeep => Some("machine"),
        AnsweredBy::Unknown => None,
    });
    let base = format!("/2010-04-01/Accounts/{account}/Calls/{}", call.sid);
    json!({
        "account_sid": account, "annotation": null, "answered_by": answered_by, "api_version": "2010-04-01",
        "caller_name": null, "date_created": begun, "date_updated": begun.as_ref().map(|_| rfc_2822(course.updated_at)),
        "direction": "outbound-api", "duration": duration, "end_time": ended, "forwarded_from": null,
        "from": call.from, "from_formatted": call.from, "group_sid": null, "parent_call_sid": null,
        "phone_number_sid": null, "price": null, "price_unit": "USD", "queue_time": "0", "sid": call.sid,
        "start_time": begun, "status": status.word(), "subresource_uris": {"events": format!("{base}/Events.json")},
        "to": call.to, "to_formatted": call.to, "trunk_sid": null, "uri": format!("{base}.json"),
    })
}
