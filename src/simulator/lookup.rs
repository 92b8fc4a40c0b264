//! Everything of the 2010 API that does not create a message: fetch, list, redact, cancel, delete, and the checks of
//! account, numbers and balance.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{ApiError, json_response, message_resource, rfc_2822, text_response};
use super::auth::Caller;
use super::create::Form;
use super::message::{Message, SimStatus, WHATSAPP, phone_of};
use super::world::World;

/// Twilio's largest page.
const PAGE_SIZE_MAX: usize = 1000;
const PAGE_SIZE_DEFAULT: usize = 50;

/// `GET …/Accounts/{AC}.json`. Shows the token, as Twilio does, and is closed to API keys.
pub(super) fn account(world: &World, caller: Caller) -> Result<Response<Body>, ApiError> {
    match caller {
        Caller::Key => Err(ApiError::of_code(401, 20003)),
        Caller::Account => {
            let sid = &world.config.account_sid;
            let born = rfc_2822(Timestamp::UNIX_EPOCH);
            let base = format!("/2010-04-01/Accounts/{sid}");
            let account = json!({
                "auth_token": world.config.auth_token.expose(),
                "date_created": born,
                "date_updated": born,
                "friendly_name": "Simulated account",
                "owner_account_sid": sid,
                "sid": sid,
                "status": "active",
                "subresource_uris": {
                    "messages": format!("{base}/Messages.json"),
                    "incoming_phone_numbers": format!("{base}/IncomingPhoneNumbers.json"),
                    "balance": format!("{base}/Balance.json"),
                },
                "type": "Full",
                "uri": format!("{base}.json"),
            });
            Ok(json_response(200, &account))
        }
    }
}

/// `GET …/Balance.json`
pub(super) fn balance(world: &World) -> Response<Body> {
    json_response(200, &json!({"account_sid": world.config.account_sid, "balance": "100.00", "currency": "USD"}))
}

/// `GET …/IncomingPhoneNumbers.json`: the senders for SMS, optionally one of them.
pub(super) fn numbers(world: &World, query: &str) -> Response<Body> {
    let query = Form::parse(query.as_bytes());
    let sid = &world.config.account_sid;
    let born = rfc_2822(Timestamp::UNIX_EPOCH);
    let wanted = |number: &&String| query.get("PhoneNumber").is_none_or(|wanted| number.contains(wanted));
    let numbers: Vec<_> = (world.config.senders.iter())
        .enumerate()
        .filter(|(_, number)| !number.starts_with(WHATSAPP) && wanted(number))
        .map(|(at, number)| {
            let number_sid = format!("PN{at:032x}");
            json!({
                "account_sid": sid, "sid": number_sid, "phone_number": number, "friendly_name": number,
                "capabilities": {"sms": true, "mms": true, "voice": true, "fax": false},
                "date_created": born, "date_updated": born, "api_version": "2010-04-01", "beta": false,
                "origin": "twilio", "status": "in-use", "address_requirements": "none",
                "uri": format!("/2010-04-01/Accounts/{sid}/IncomingPhoneNumbers/{number_sid}.json"),
            })
        })
        .collect();
    let uri = format!("/2010-04-01/Accounts/{sid}/IncomingPhoneNumbers.json?PageSize=50&Page=0");
    json_response(
        200,
        &json!({
            "end": numbers.len().saturating_sub(1), "first_page_uri": uri, "incoming_phone_numbers": numbers,
            "next_page_uri": null, "page": 0, "page_size": 50, "previous_page_uri": null, "start": 0, "uri": uri,
        }),
    )
}

fn find(world: &World, sid: &str) -> Result<Arc<Message>, ApiError> {
    let missing = || ApiError::not_found(&format!("/2010-04-01/Accounts/{}/Messages/{sid}", world.config.account_sid));
    world.ring.lock().get(sid).ok_or_else(missing)
}

/// `GET …/Messages/{SM}.json`
pub(super) fn fetch(world: &World, sid: &str) -> Result<Response<Body>, ApiError> {
    Ok(json_response(200, &message_resource(&world.config.account_sid, &*find(world, sid)?)))
}

/// `DELETE …/Messages/{SM}.json`
pub(super) fn delete(world: &World, sid: &str) -> Result<Response<Body>, ApiError> {
    let message = find(world, sid)?;
    if !message.course.lock().status.is_complete() {
        return Err(incomplete());
    }
    world.ring.lock().remove(sid);
    world.changed();
    Ok(text_response(204, "application/json", Body::empty()))
}

fn incomplete() -> ApiError {
    ApiError::new(409, 20009, "Unable to change the record. Delivery of the message is not complete.")
}

/// `POST …/Messages/{SM}.json`: `Body=` redacts, `Status=canceled` withdraws a scheduled message.
pub(super) fn update(world: &World, sid: &str, form: &Form<'_>) -> Result<Response<Body>, ApiError> {
    let message = find(world, sid)?;
    {
        let mut course = message.course.lock();
        match (form.get("Body"), form.get("Status")) {
            (Some(_), Some(_)) => return Err(ApiError::new(400, 30400, "Body and Status cannot be changed together")),
            (Some(""), None) if course.status.is_complete() => course.body.clear(),
            (Some(""), None) => return Err(incomplete()),
            (None, Some("canceled")) if course.status == SimStatus::Scheduled => {
                course.set(SimStatus::Canceled, None, world.clock.now());
            }
            (None, Some("canceled")) => {
                return Err(ApiError::new(409, 30409, "This message cannot be canceled"));
            }
            (Some(_), None) => return Err(ApiError::new(400, 20001, "Body can only be made empty")),
            (None, Some(_)) => return Err(ApiError::new(400, 20001, "Status can only become canceled")),
            (None, None) => {}
        }
    }
    world.changed();
    Ok(json_response(200, &message_resource(&world.config.account_sid, &message)))
}

#[derive(Serialize)]
struct MessagePage {
    end: usize,
    first_page_uri: String,
    next_page_uri: Option<String>,
    page: usize,
    page_size: usize,
    previous_page_uri: Option<String>,
    messages: Vec<Box<RawValue>>,
    start: usize,
    uri: String,
}

/// What a list is narrowed to.
#[derive(Debug, Default)]
struct Filter<'a> {
    to: Option<&'a str>,
    from: Option<&'a str>,
    /// `date_sent` not before this, and before that.
    sent: Option<(Timestamp, Timestamp)>,
}

impl Filter<'_> {
    fn fits(&self, message: &Message) -> bool {
        if message.hidden || self.to.is_some_and(|to| to != message.to) {
            return false;
        }
        if self.from.is_none() && self.sent.is_none() {
            return true;
        }
        let course = message.course.lock();
        self.from.is_none_or(|from| course.from.as_deref() == Some(from))
            && self.sent.is_none_or(|(first, end)| course.sent_at.is_some_and(|sent| first <= sent && sent < end))
    }
}

/// `GET …/Messages.json`: newest first, in pages.
pub(super) fn list(world: &World, query: &str) -> Result<Response<Body>, ApiError> {
    let query = Form::parse(query.as_bytes());
    let filter =
        Filter { to: query.get("To"), from: query.get("From"), sent: sent_range(&query).map_err(|()| bad_date())? };
    let page_size = number(&query, "PageSize").unwrap_or(PAGE_SIZE_DEFAULT).clamp(1, PAGE_SIZE_MAX);
    let page = number(&query, "Page").unwrap_or(0);
    let before = match query.get("PageToken") {
        Some(token) => read_token(token).ok_or_else(|| ApiError::new(400, 20001, "Invalid page token"))?,
        None => u64::MAX,
    };
    let skip = if before == u64::MAX { page.saturating_mul(page_size) } else { 0 };
    let found = select(world, &filter, before, skip, page_size + 1);
    let next = (found.len() > page_size).then(|| found[page_size - 1].seq);
    let resources: Vec<_> =
        found.iter().take(page_size).map(|message| message_resource(&world.config.account_sid, message)).collect();
    let uri = |page: usize, token: Option<u64>| page_uri(world, &query, page_size, page, token);
    let start = page.saturating_mul(page_size);
    Ok(json_response(
        200,
        &MessagePage {
            end: start + resources.len().saturating_sub(1),
            first_page_uri: uri(0, None),
            next_page_uri: next.map(|seq| uri(page + 1, Some(seq))),
            page,
            page_size,
            previous_page_uri: page.checked_sub(1).map(|previous| uri(previous, None)),
            messages: resources,
            start,
            uri: uri(page, None),
        },
    ))
}

fn select(world: &World, filter: &Filter<'_>, before: u64, skip: usize, take: usize) -> Vec<Arc<Message>> {
    let ring = world.ring.lock();
    let fits = |message: &&Arc<Message>| message.seq < before && filter.fits(message);
    match filter.to {
        // A phone's messages are at hand; those to a sender of ours came from all phones.
        Some(to) if !world.config.senders.iter().any(|sender| sender == to) => {
            ring.of_phone(phone_of(to)).rev().filter(fits).skip(skip).take(take).cloned().collect()
        }
        Some(_) | None => ring.all().rev().filter(fits).skip(skip).take(take).cloned().collect(),
    }
}

fn number(query: &Form<'_>, name: &str) -> Option<usize> {
    query.get(name)?.parse().ok()
}

/// A page token is opaque to callers: the number of the last message of the page before.
fn read_token(token: &str) -> Option<u64> {
    u64::from_str_radix(token.strip_prefix("PASM")?, 16).ok()
}

fn page_uri(world: &World, query: &Form<'_>, page_size: usize, page: usize, token: Option<u64>) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    for name in ["To", "From", "DateSent", "DateSent<", "DateSent>"] {
        if let Some(value) = query.get(name) {
            pairs.append_pair(name, value);
        }
    }
    pairs.append_pair("PageSize", &page_size.to_string()).append_pair("Page", &page.to_string());
    let mut uri = format!("/2010-04-01/Accounts/{}/Messages.json?{}", world.config.account_sid, pairs.finish());
    if let Some(seq) = token {
        // Writing to a String cannot fail.
        let _ = write!(uri, "&PageToken=PASM{seq:032x}");
    }
    uri
}

fn bad_date() -> ApiError {
    ApiError::new(400, 20001, "DateSent must be a date or a time in GMT")
}

/// The range that `DateSent`, `DateSent<` and `DateSent>` (all inclusive) leave.
fn sent_range(query: &Form<'_>) -> Result<Option<(Timestamp, Timestamp)>, ()> {
    let mut range = None;
    for (name, from_first, to_end) in [("DateSent", true, true), ("DateSent>", true, false), ("DateSent<", false, true)]
    {
        let Some(text) = query.get(name) else { continue };
        let (first, end) = moment(text).ok_or(())?;
        let (low, high) = range.get_or_insert((Timestamp::MIN, Timestamp::MAX));
        if from_first {
            *low = first.max(*low);
        }
        if to_end {
            *high = end.min(*high);
        }
    }
    Ok(range)
}

/// A date (the whole day, GMT) or a time (that second): its first instant, and the one after its last.
fn moment(text: &str) -> Option<(Timestamp, Timestamp)> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some((at, at.saturating_add(std::time::Duration::from_secs(1)).ok()?));
    }
    let date: Date = text.parse().ok()?;
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    Some((midnight(date)?, midnight(date.tomorrow().ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn dates_are_days_and_times_are_seconds() {
        let range = |query: &str| sent_range(&Form::parse(query.as_bytes()));
        let day = (at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"));
        assert_eq!(range("DateSent=2026-03-01"), Ok(Some(day)));
        assert_eq!(range("DateSent%3E=2026-03-01&DateSent%3C=2026-03-01"), Ok(Some(day)));
        assert_eq!(range("DateSent>=2026-03-01T10:00:00Z"), Ok(Some((at("2026-03-01T10:00:00Z"), Timestamp::MAX))));
        assert_eq!(range("To=x"), Ok(None));
        assert_eq!(range("DateSent=yesterday"), Err(()));
    }

    #[test]
    fn a_page_token_comes_back_as_the_message_it_stands_for() {
        assert_eq!(read_token(&format!("PASM{:032x}", 77)), Some(77));
        assert_eq!(read_token("PA77"), None);
    }
}
