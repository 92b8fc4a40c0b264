//! `POST …/Messages.json`: what Twilio checks before it takes a message, and the message it makes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;

use super::answer::{ApiError, json_response, message_resource};
use super::message::{Course, Direction, Fate, Message, SimButton, SimStatus, Twist, WHATSAPP, phone_of};
use super::world::{World, count};

/// A form, in the order in which it came.
pub(super) struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Self {
        Self(form_urlencoded::parse(body).collect())
    }

    /// The first value of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Every value of that name.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.to_string()).collect()
    }

    /// The first value of that name, unless it is empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// What is in a valid create call.
struct Draft<'a> {
    to: &'a str,
    from: Option<&'a str>,
    messaging_service_sid: Option<&'a str>,
    body: String,
    content_sid: Option<&'a str>,
    buttons: Vec<SimButton>,
    status_callback: Option<&'a str>,
    send_at: Option<Timestamp>,
    /// An error code that the channel will give, known already.
    doomed: Option<u32>,
}

/// The longest text, in characters.
const BODY_MAX: usize = 1600;
/// The longest callback URL, in characters.
const CALLBACK_MAX: usize = 4000;

pub(super) fn bad(code: u32, message: impl Into<String>) -> ApiError {
    ApiError::new(400, code, message)
}

/// Checks a create call, makes the message and answers with it.
pub(super) async fn create(world: &Arc<World>, form: &Form<'_>, hidden: bool) -> Result<Response<Body>, ApiError> {
    let draft = draft(world, form)?;
    let message = insert(world, draft, hidden);
    // What Twilio answers is what it knew when it took the message, even if the phone is faster.
    let resource = message_resource(&world.config.account_sid, &message);
    let initial = message.course.lock().status;
    if message.twist.early {
        tell_early(world, &message).await;
    } else {
        world.schedule(&message, initial);
    }
    Ok(json_response(201, &resource))
}

/// Tells `sent` now. In a task of its own: a caller that gives up meanwhile must not strand the message.
async fn tell_early(world: &Arc<World>, message: &Arc<Message>) {
    let (world, message) = (Arc::clone(world), Arc::clone(message));
    let told = tokio::spawn(async move {
        if let Some((status, _)) = world.step(&message).await {
            world.schedule(&message, status);
        }
    });
    // It neither panics nor is it aborted; were it to, the answer would still be due.
    let _ = told.await;
}

fn insert(world: &World, draft: Draft<'_>, hidden: bool) -> Arc<Message> {
    let now = world.clock.now();
    let (fate, twist) = world.faults.outcome(draft.to);
    let fate = match draft.doomed {
        Some(code) if fate == Fate::Arrives => Fate::Fails { status: SimStatus::Undelivered, code },
        Some(_) | None => fate,
    };
    let status = match (draft.send_at, draft.from) {
        (Some(_), _) => SimStatus::Scheduled,
        (None, None) => SimStatus::Accepted,
        (None, Some(_)) => SimStatus::Queued,
    };
    let sid = world.sid("SM");
    let message = world.ring.lock().insert(|seq| Message {
        seq,
        sid,
        direction: Direction::OutboundApi,
        phone: phone_of(draft.to).to_owned(),
        to: draft.to.to_owned(),
        messaging_service_sid: draft.messaging_service_sid.map(str::to_owned),
        content_sid: draft.content_sid.map(str::to_owned),
        buttons: draft.buttons,
        status_callback: draft.status_callback.map(str::to_owned),
        replied_to: None,
        created_at: now,
        send_at: draft.send_at,
        fate,
        twist,
        hidden,
        course: Mutex::new(Course {
            status,
            from: draft.from.map(str::to_owned),
            body: draft.body,
            updated_at: now,
            sent_at: None,
            error_code: None,
            expected: false,
            held: None,
        }),
    });
    count(&world.counters.created);
    world.changed();
    message
}

/// A message that did not come through the REST API: an inbound one, or a TwiML answer.
pub(super) fn conversation(
    world: &World,
    direction: Direction,
    from: &str,
    to: &str,
    body: &str,
    replied_to: Option<String>,
    sid: Option<String>,
) -> Arc<Message> {
    let now = world.clock.now();
    let (phone, status) = match direction {
        Direction::Inbound => (from, SimStatus::Received),
        Direction::OutboundApi | Direction::OutboundReply => (to, SimStatus::Delivered),
    };
    let sid = sid.unwrap_or_else(|| world.sid("SM"));
    let message = world.ring.lock().insert(|seq| Message {
        seq,
        sid,
        direction,
        phone: phone_of(phone).to_owned(),
        to: to.to_owned(),
        messaging_service_sid: None,
        content_sid: None,
        buttons: Vec::new(),
        status_callback: None,
        replied_to,
        created_at: now,
        send_at: None,
        fate: Fate::Arrives,
        twist: Twist::default(),
        hidden: false,
        course: Mutex::new(Course {
            status,
            from: Some(from.to_owned()),
            body: body.to_owned(),
            updated_at: now,
            sent_at: Some(now),
            error_code: None,
            expected: true,
            held: None,
        }),
    });
    world.changed();
    message
}

fn draft<'a>(world: &World, form: &'a Form<'_>) -> Result<Draft<'a>, ApiError> {
    let to = form.filled("To").ok_or_else(|| bad(21604, "A 'To' phone number is required."))?;
    if !is_address(to) {
        return Err(bad(21211, format!("Invalid 'To' Phone Number: {}", hidden_tail(to))));
    }
    let (from, messaging_service_sid) = sender(world, form, to)?;
    if world.opted_out.lock().contains(to) {
        return Err(ApiError::of_code(400, 21610));
    }
    let status_callback = form.filled("StatusCallback");
    if let Some(url) = status_callback.filter(|url| !is_callback(url)) {
        let shown: String = url.chars().take(80).collect();
        return Err(bad(21609, format!("The 'StatusCallback' URL {shown} is not a valid URL.")));
    }
    let (body, buttons) = text(world, form)?;
    let content_sid = form.filled("ContentSid");
    if let Some(period) = form.filled("ValidityPeriod")
        && !period.parse().is_ok_and(|seconds: u32| (1..=36_000).contains(&seconds))
    {
        return Err(bad(20001, "ValidityPeriod must be a number of seconds between 1 and 36000."));
    }
    let doomed = doomed(world, form, to, content_sid.is_some());
    let send_at = send_at(world, form, messaging_service_sid)?;
    Ok(Draft { to, from, messaging_service_sid, body, content_sid, buttons, status_callback, send_at, doomed })
}

/// `+E164`, `whatsapp:+E164`, or a WhatsApp user id such as `whatsapp:IN.4f7c`.
pub(super) fn is_address(address: &str) -> bool {
    let number = |text: &str| {
        text.strip_prefix('+').is_some_and(|digits| {
            (2..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0')
        })
    };
    let user_id = |text: &str| {
        text.split_once('.').is_some_and(|(country, id)| {
            country.len() == 2
                && country.bytes().all(|b| b.is_ascii_uppercase())
                && (1..=140).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    };
    match address.strip_prefix(WHATSAPP) {
        Some(whatsapp) => number(whatsapp) || user_id(whatsapp),
        None => number(address),
    }
}

/// Twilio repeats the number; the simulator's answers may end in a log, so it does not.
fn hidden_tail(address: &str) -> String {
    let shown: String = address.chars().take(4).collect();
    format!("{shown}XXXX")
}

fn sender<'a>(world: &World, form: &'a Form<'_>, to: &str) -> Result<(Option<&'a str>, Option<&'a str>), ApiError> {
    let (from, service) = (form.filled("From"), form.filled("MessagingServiceSid"));
    let Some(from) = from else {
        let service = service.ok_or_else(|| {
            bad(21603, "A 'From' phone number or a 'MessagingServiceSid' is required to send a message.")
        })?;
        if !world.config.messaging_services.iter().any(|known| known == service) {
            return Err(bad(21705, "The Messaging Service SID is invalid."));
        }
        if world.sender_for(to).is_empty() {
            return Err(bad(21703, "The Messaging Service has no sender for this destination."));
        }
        return Ok((None, Some(service)));
    };
    if from.starts_with(WHATSAPP) != to.starts_with(WHATSAPP) {
        return Err(bad(21910, "Invalid From and To pair. From and To should be of the same channel."));
    }
    if from == to {
        return Err(bad(21266, "'To' and 'From' number cannot be the same."));
    }
    if !world.config.senders.iter().any(|known| known == from) {
        return Err(if from.starts_with(WHATSAPP) {
            ApiError::of_code(400, 63007)
        } else {
            let shown = hidden_tail(from);
            bad(
                21606,
                format!("The 'From' phone number {shown} is not a valid message-capable number of this account."),
            )
        });
    }
    Ok((Some(from), service))
}

pub(super) fn is_callback(url: &str) -> bool {
    url.chars().count() <= CALLBACK_MAX
        && url::Url::parse(url).is_ok_and(|parsed| {
            matches!(parsed.scheme(), "http" | "https")
                && parsed.host_str().is_some_and(|host| !host.is_empty() && !host.contains('_'))
        })
}

/// The text and the buttons, of a template or of `Body`.
fn text(world: &World, form: &Form<'_>) -> Result<(String, Vec<SimButton>), ApiError> {
    let (body, variables) = (form.filled("Body"), form.filled("ContentVariables"));
    let Some(sid) = form.filled("ContentSid") else {
        if variables.is_some() {
            return Err(bad(21654, "The ContentSid parameter is required when ContentVariables is given."));
        }
        let missing = || bad(21619, "A text message body or media urls must be specified.");
        let body = body.or_else(|| form.filled("MediaUrl").map(|_| "")).ok_or_else(missing)?;
        if body.chars().count() > BODY_MAX {
            return Err(bad(21617, "The concatenated message body exceeds the 1600 character limit."));
        }
        return Ok((body.to_owned(), Vec::new()));
    };
    if body.is_some() {
        return Err(bad(20001, "Body must not be given together with ContentSid."));
    }
    let values = variables.map(read_variables).transpose()?.unwrap_or_default();
    let contents = world.contents.read();
    let content = contents.iter().find(|content| content.sid == sid);
    Ok(content.ok_or_else(|| bad(21655, "The ContentSid is invalid or does not exist."))?.render(&values))
}

fn read_variables(json: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let invalid = || bad(21656, "The ContentVariables parameter is invalid.");
    let values: BTreeMap<String, Value> = serde_json::from_str(json).map_err(|_| invalid())?;
    let value = |(name, value): (String, Value)| {
        let text = value.as_str().filter(|text| !text.is_empty()).ok_or_else(invalid)?;
        Ok((name, text.to_owned()))
    };
    values.into_iter().map(value).collect()
}

/// The error that the channel will give to what the API takes.
fn doomed(world: &World, form: &Form<'_>, to: &str, template: bool) -> Option<u32> {
    if !to.starts_with(WHATSAPP) {
        return None;
    }
    if template {
        let values = form.filled("ContentVariables").and_then(|json| read_variables(json).ok()).unwrap_or_default();
        let rejected = |value: &String| value.contains(['\n', '\t']) || value.contains("     ");
        let contents = world.contents.read();
        let content = contents.iter().find(|content| form.filled("ContentSid") == Some(&content.sid));
        let superfluous = content.is_some_and(|content| content.lacks_a_place(&values));
        return values.values().any(rejected).then_some(63013).or(superfluous.then_some(63028));
    }
    let open = world
        .last_inbound
        .lock()
        .get(phone_of(to))
        .is_some_and(|wrote| world.clock.now().duration_since(*wrote) < SignedDuration::from_hours(24));
    (world.config.whatsapp_window && !open).then_some(63016)
}

fn send_at(world: &World, form: &Form<'_>, service: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    if form.filled("ScheduleType") != Some("fixed") {
        return Ok(None);
    }
    let invalid = || bad(35115, "SendAt must be an ISO 8601 time between 5 minutes and 35 days from now.");
    if service.is_none() {
        return Err(bad(35118, "A MessagingServiceSid is required to schedule a message."));
    }
    let at: Timestamp = form.filled("SendAt").and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
    let ahead = Duration::try_from(at.duration_since(world.clock.now())).map_err(|_| invalid())?;
    let fits = (Duration::from_secs(5 * 60)..=Duration::from_secs(35 * 24 * 3600)).contains(&ahead);
    if fits { Ok(Some(at)) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_told_from_nonsense() {
        for good in ["+4915112345678", "whatsapp:+919876543210", "whatsapp:IN.4f7cAB"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", "+", "+0151", "4915112345678", "whatsapp:", "whatsapp:+", "IN.4f7c", "+1234567890123456", "+49 1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn callback_urls_are_checked() {
        assert!(is_callback("https://relay.example/status?attempt=1#rc=5"));
        assert!(is_callback("http://127.0.0.1:9/x"));
        assert!(!is_callback("https://my_host.example/"));
        assert!(!is_callback("ftp://relay.example/"));
        assert!(!is_callback("/relative"));
        assert!(!is_callback(&format!("https://relay.example/{}", "a".repeat(4000))));
    }

    proptest! {
        #[test]
        fn no_form_is_too_strange_to_be_read(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let form = Form::parse(&body);
            let _ = is_address(form.get("To").unwrap_or_default());
        }

        #[test]
        fn variables_are_read_only_if_every_one_is_a_filled_text(values in proptest::collection::btree_map("[a-z0-9]{1,4}", ".{0,8}", 0..5)) {
            let json = serde_json::to_string(&values).expect("JSON");
            let filled = values.values().all(|value| !value.is_empty());
            prop_assert_eq!(read_variables(&json).is_ok(), filled);
        }
    }
}
