//! The phone's side: a person writes, or taps a button; the service's TwiML answer comes back to the phone.

use std::sync::Arc;

use serde::Serialize;

use super::callback::InboundForm;
use super::create::conversation;
use super::message::{Direction, Message, WHATSAPP, phone_of};
use super::segments::segments;
use super::world::{WRITERS_MAX, World, count};

/// Which message an inbound one quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Quote {
    /// The last one that the phone got over WhatsApp.
    #[default]
    Last,
    /// None: the person just writes.
    Nothing,
    /// This one.
    Sid(String),
}

/// What a person writes. Over WhatsApp, unless the last message to the phone was an SMS or `from` says otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The phone, with or without `whatsapp:`.
    pub from: String,
    /// The text, as typed.
    pub text: String,
    /// The name that WhatsApp shows.
    pub profile_name: String,
    /// What it quotes (WhatsApp only).
    pub quote: Quote,
    /// The button that was tapped instead of typing: title and payload.
    pub button: Option<(String, String)>,
    /// The SID, to post the same message twice; `None`: a fresh one.
    pub sid: Option<String>,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("from", &super::message::mask(&self.from)).finish_non_exhaustive()
    }
}

impl Inbound {
    /// A text that quotes the last message.
    pub fn new(from: &str, text: &str) -> Self {
        Self {
            from: from.to_owned(),
            text: text.to_owned(),
            profile_name: "Simulated person".to_owned(),
            quote: Quote::default(),
            button: None,
            sid: None,
        }
    }
    /// Quotes this, or nothing.
    pub fn quoting(mut self, quote: Quote) -> Self {
        self.quote = quote;
        self
    }
    /// Comes from a tap.
    pub fn tapped(mut self, title: &str, payload: &str) -> Self {
        self.button = Some((title.to_owned(), payload.to_owned()));
        self
    }
    /// Bears this SID.
    pub fn with_sid(mut self, sid: &str) -> Self {
        self.sid = Some(sid.to_owned());
        self
    }
}

/// What came of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimReply {
    /// The inbound message's SID.
    pub sid: String,
    /// The webhook's HTTP status; 0 if there was no answer.
    pub http_status: u16,
    /// The texts of the TwiML answer's `<Message>` elements, as the phone now shows them.
    pub answers: Vec<String>,
}

/// Why nothing could be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Nobody said where replies go.
    #[error("no inbound URL is set")]
    NoInboundUrl,
    /// There is no such message on the phone.
    #[error("the phone has no such message or button")]
    NothingThere,
}

/// Posts an inbound message and puts the answer on the phone.
pub(super) async fn receive(world: &World, inbound: &Inbound) -> Result<SimReply, ReplyError> {
    let url = world.inbound_url.read().clone().ok_or(ReplyError::NoInboundUrl)?;
    let phone = phone_of(&inbound.from);
    let last = last_to(world, phone, |_| true);
    let whatsapp = inbound.from.starts_with(WHATSAPP) || last.as_ref().is_none_or(|last| last.is_whatsapp());
    let from = if whatsapp { format!("{WHATSAPP}{phone}") } else { phone.to_owned() };
    let last_from = last.filter(|last| last.is_whatsapp() == whatsapp).and_then(|last| last.course.lock().from.clone());
    let to = last_from.unwrap_or_else(|| world.sender_for(&from));
    let quoted = if whatsapp { quoted(world, phone, &inbound.quote)? } else { None };
    let sid = record(world, inbound, &from, &to, quoted.as_ref());
    if !whatsapp && let Some(answer) = keyword(world, phone, &inbound.text) {
        conversation(world, Direction::OutboundReply, &to, &from, answer, Some(sid.clone()), None);
    }

    let form = InboundForm {
        account_sid: &world.config.account_sid,
        sid: &sid,
        from: &from,
        to: &to,
        body: &inbound.text,
        profile_name: &inbound.profile_name,
        segments: segments(&inbound.text),
        quoted: quoted.as_deref().map(|message| (message.sid.as_str(), to.as_str())),
        button: inbound.button.as_ref().map(|(title, payload)| (title.as_str(), payload.as_str())),
    };
    let posted = world.postman.post(&url, &form.form(), &world.idempotency_token()).await;
    count(if posted.ok() { &world.counters.callbacks_sent } else { &world.counters.callbacks_failed });
    let answers = if posted.ok() { twiml_messages(&posted.body) } else { Vec::new() };
    for answer in &answers {
        conversation(world, Direction::OutboundReply, &to, &from, answer, Some(sid.clone()), None);
    }
    Ok(SimReply { sid, http_status: posted.status, answers })
}

/// What Twilio itself does with a keyword in a text message, before it passes the message on: it keeps a list of who has said
/// STOP, and answers. Over WhatsApp it leaves that to whoever is written to.
fn keyword(world: &World, phone: &str, text: &str) -> Option<&'static str> {
    const STOP: [&str; 8] = ["stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"];
    const START: [&str; 3] = ["start", "yes", "unstop"];
    let word = text.trim().to_lowercase();
    let mut opted_out = world.opted_out.lock();
    if STOP.contains(&word.as_str()) {
        let is_new = (opted_out.len() < WRITERS_MAX || opted_out.contains(phone)) && opted_out.insert(phone.to_owned());
        return is_new.then_some("You will get no more messages from this number. Reply START to get them again.");
    }
    let lifts = START.contains(&word.as_str()) && opted_out.remove(phone);
    lifts.then_some("You will get messages from this number again. Reply STOP to get no more.")
}

/// Puts the inbound message on the phone, unless it is there already and is only posted again.
fn record(world: &World, inbound: &Inbound, from: &str, to: &str, quoted: Option<&Arc<Message>>) -> String {
    count(&world.counters.replies);
    {
        let mut wrote = world.last_inbound.lock();
        if wrote.len() < WRITERS_MAX || wrote.contains_key(phone_of(from)) {
            wrote.insert(phone_of(from).to_owned(), world.clock.now());
        }
    }
    if let Some(sid) = inbound.sid.as_ref().filter(|sid| world.ring.lock().get(sid).is_some()) {
        return sid.clone();
    }
    let replied_to = quoted.map(|message| message.sid.clone());
    let sid = inbound.sid.clone();
    conversation(world, Direction::Inbound, from, to, &inbound.text, replied_to, sid).sid.clone()
}

/// The last message that the API sent to a phone and that fits.
pub(super) fn last_to(world: &World, phone: &str, fits: impl Fn(&Message) -> bool) -> Option<Arc<Message>> {
    let ring = world.ring.lock();
    ring.of_phone(phone).rev().find(|message| message.direction == Direction::OutboundApi && fits(message)).cloned()
}

fn quoted(world: &World, phone: &str, quote: &Quote) -> Result<Option<Arc<Message>>, ReplyError> {
    match quote {
        Quote::Last => Ok(last_to(world, phone, Message::is_whatsapp)),
        Quote::Nothing => Ok(None),
        Quote::Sid(sid) => world.ring.lock().get(sid).map(Some).ok_or(ReplyError::NothingThere),
    }
}

/// The texts of the `<Message>` elements of a TwiML document; a `<Body>` inside is what counts.
fn twiml_messages(xml: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut rest = xml;
    while let Some((inner, after)) = element(rest, "Message") {
        let body = element(inner, "Body").map_or(inner, |(body, _)| body);
        let text = unescape(body);
        if !text.trim().is_empty() {
            texts.push(text);
        }
        rest = after;
    }
    texts
}

/// The inside of the first such element, and what follows it.
fn element<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut from = 0;
    loop {
        let start = from + xml[from..].find(&format!("<{name}"))?;
        let tag = &xml[start + 1 + name.len()..];
        if !tag.starts_with(['>', ' ', '/', '\n', '\t', '\r']) {
            from = start + 1;
            continue;
        }
        let end_of_tag = tag.find('>')?;
        let after_tag = &tag[end_of_tag + 1..];
        if tag[..end_of_tag].ends_with('/') {
            return Some(("", after_tag));
        }
        let closing = format!("</{name}>");
        let end = after_tag.find(&closing)?;
        return Some((&after_tag[..end], &after_tag[end + closing.len()..]));
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let entity = rest.find(';').map(|end| &rest[1..end]);
        let Some((name, c)) = entity.and_then(|name| character(name).map(|c| (name, c))) else {
            plain.push('&');
            rest = &rest[1..];
            continue;
        };
        plain.push(c);
        rest = &rest[name.len() + 2..];
    }
    plain.push_str(rest);
    plain
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = entity.strip_prefix('#')?;
            let code = match digits.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_phone_shows_what_twiml_says() {
        let xml = "<?xml version=\"1.0\"?><Response><Messages/><Message to=\"x\">Taken &amp; noted, J&#252;rgen &#x1F600;\
                   </Message><Message/><Message><Body>Two &lt;3</Body><Media>u</Media></Message></Response>";
        assert_eq!(twiml_messages(xml), ["Taken & noted, Jürgen 😀", "Two <3"]);
        assert!(twiml_messages("<Response/>").is_empty());
        assert!(twiml_messages("").is_empty());
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange_to_be_read(xml in "[<>/MesagBody &;#x0-9]{0,80}") {
            let _ = twiml_messages(&xml);
        }

        #[test]
        fn escaped_text_comes_back(text in "[a-z<&>\"' äß;#]{1,40}") {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            prop_assert_eq!(unescape(&escaped), text);
        }
    }
}
