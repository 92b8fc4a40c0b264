//! The simulator's control from inside the process. The HTTP control has the same powers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::call::{AnsweredBy, Call, CallStatus, SimCall};
use super::callback::status_form;
use super::config::{CallbackMode, ContentTemplate};
use super::content::Content;
use super::fault::FaultRule;
use super::inbound::{Inbound, ReplyError, SimReply, last_to, receive};
use super::message::{Direction, Message, SimMessage, SimStatus, phone_of};
use super::world::{Stats, World, count};

/// A create call as it was received, whatever became of it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SimRequest {
    /// When.
    pub at: Timestamp,
    /// The form's fields, in the order in which they came.
    pub fields: Vec<(String, String)>,
}

impl SimRequest {
    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for SimRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("SimRequest").field("at", &self.at).field("fields", &names).finish()
    }
}

/// A call that asked for a list of messages: one page of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimListing {
    /// When it came.
    pub at: Timestamp,
    /// How long it took to answer, or not to.
    pub took: Duration,
    /// Whether a list was answered.
    pub answered: bool,
}

/// The simulator knows no such message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulator knows no message {0}")]
pub struct UnknownMessage(pub String);

/// Controls a simulator. Cheap to clone; all clones control the same one.
#[derive(Clone)]
pub struct SimulatorHandle {
    pub(super) world: Arc<World>,
}

impl fmt::Debug for SimulatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl SimulatorHandle {
    /// The messages made through the REST API, oldest first.
    pub fn messages(&self) -> Vec<SimMessage> {
        self.created(|_| true)
    }

    /// Of these, those to a phone (given with or without `whatsapp:`).
    pub fn messages_to(&self, number: &str) -> Vec<SimMessage> {
        let ring = self.world.ring.lock();
        let sent = ring.of_phone(phone_of(number)).filter(|message| message.direction == Direction::OutboundApi);
        sent.map(|message| message.snapshot()).collect()
    }

    /// Everything a phone shows, oldest first: messages, what its owner wrote, and the answers to that.
    pub fn conversation(&self, number: &str) -> Vec<SimMessage> {
        self.world.ring.lock().of_phone(phone_of(number)).map(|message| message.snapshot()).collect()
    }

    /// The last `limit` of everything that all phones show, oldest first.
    pub(super) fn everything(&self, limit: usize) -> Vec<SimMessage> {
        let ring = self.world.ring.lock();
        let skip = ring.len().saturating_sub(limit);
        ring.all().skip(skip).map(|message| message.snapshot()).collect()
    }

    /// Every create call received, oldest first, also those that were refused or never answered.
    pub fn requests(&self) -> Vec<SimRequest> {
        let raw = self.world.requests.lock().all();
        let read = |raw: super::store::RawRequest| SimRequest {
            at: raw.at,
            fields: form_urlencoded::parse(&raw.body).into_owned().collect(),
        };
        raw.into_iter().map(read).collect()
    }

    /// Every call that asked for a list of messages, in the order in which they ended.
    pub fn listings(&self) -> Vec<SimListing> {
        self.world.listings.lock().iter().copied().collect()
    }

    /// Makes something go wrong; `false` if there are too many rules already.
    pub fn push_fault(&self, rule: FaultRule) -> bool {
        self.world.faults.push(rule)
    }

    /// The rules in force; those that struck as often as they should are gone.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.world.faults.list()
    }

    /// Makes everything go right again. What is under way stays as it was drawn.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Moves a message to its next status, posts the callback and waits for its answer. Gives the HTTP statuses of the
    /// webhooks posted, 0 for no answer; none at the end of its way, or where nothing is to be told.
    pub async fn step(&self, sid: &str) -> Result<Vec<u16>, UnknownMessage> {
        let message = self.find(sid)?;
        Ok(self.world.step(&message).await.map(|(_, codes)| codes).unwrap_or_default())
    }

    /// Moves every message and call by one status, the oldest first; calls only as far as nobody has to act. Gives the HTTP statuses as [`SimulatorHandle::step`] does;
    /// none once all have arrived at their end.
    pub async fn step_all(&self) -> Vec<u16> {
        let created = |message: &&Arc<Message>| message.direction == Direction::OutboundApi;
        let all: Vec<_> = self.world.ring.lock().all().filter(created).cloned().collect();
        let mut codes = Vec::new();
        for message in all {
            codes.extend(self.world.step(&message).await.map(|(_, codes)| codes).unwrap_or_default());
        }
        let calls: Vec<_> = self.world.calls.lock().all().cloned().collect();
        for call in calls {
            codes.extend(self.world.step_call(&call, false).await);
        }
        codes
    }

    /// Posts a status callback, whatever the message's real status: any status, in any order, as often as told. The
    /// resource follows only forward. Gives the HTTP status, 0 for no answer; `None` without a callback URL.
    pub async fn send_callback(
        &self,
        sid: &str,
        status: SimStatus,
        error_code: Option<u32>,
    ) -> Result<Option<u16>, UnknownMessage> {
        let message = self.find(sid)?;
        let now = self.world.clock.now();
        {
            let sender = self.world.sender_for(&message.to);
            let mut course = message.course.lock();
            course.from.get_or_insert(sender);
            course.set(status, error_code, now);
        }
        self.world.changed();
        let Some(url) = &message.status_callback else { return Ok(None) };
        let form = status_form(&self.world.config.account_sid, &message, status, error_code, now);
        let posted = self.world.postman.post(url, &form, &self.world.idempotency_token()).await;
        let counters = &self.world.counters;
        count(if posted.ok() { &counters.callbacks_sent } else { &counters.callbacks_failed });
        Ok(Some(posted.status))
    }

    /// The calls made through the REST API, oldest first.
    pub fn calls(&self) -> Vec<SimCall> {
        self.world.calls.lock().all().map(|call| call.snapshot()).collect()
    }

    /// Of these, those to a phone.
    pub fn calls_to(&self, number: &str) -> Vec<SimCall> {
        let phone = phone_of(number);
        self.world.calls.lock().all().filter(|call| call.to == phone).map(|call| call.snapshot()).collect()
    }

    /// A phone that rings or was called is picked up.
    pub async fn pick_up(&self, sid: &str, by: AnsweredBy) -> Result<Vec<u16>, UnknownMessage> {
        let call = self.find_call(sid)?;
        while matches!(call.course.lock().status, CallStatus::Queued | CallStatus::Initiated) {
            self.world.step_call(&call, false).await;
        }
        Ok(self.world.pick_up(&call, by).await)
    }

    /// Whoever has picked up presses a key. Nothing happens unless one is waited for.
    pub async fn press(&self, sid: &str, key: char) -> Result<Vec<u16>, UnknownMessage> {
        Ok(self.world.press(&self.find_call(sid)?, key).await)
    }

    /// Whoever has picked up lets the time for a key go by, once.
    pub async fn stay_silent(&self, sid: &str) -> Result<Vec<u16>, UnknownMessage> {
        Ok(self.world.stay_silent(&self.find_call(sid)?).await)
    }

    /// Whoever has picked up hangs up; a phone that rings is turned down.
    pub async fn hang_up(&self, sid: &str) -> Result<Vec<u16>, UnknownMessage> {
        Ok(self.world.hang_up(&self.find_call(sid)?).await)
    }

    /// Nobody picks up in time.
    pub async fn ring_out(&self, sid: &str) -> Result<Vec<u16>, UnknownMessage> {
        Ok(self.world.move_call(&self.find_call(sid)?, CallStatus::NoAnswer, None).await)
    }

    /// Posts a status callback of a call, whatever its real status. Gives the HTTP status, 0 for no answer; `None` without
    /// a callback URL.
    pub async fn send_call_callback(&self, sid: &str, status: CallStatus) -> Result<Option<u16>, UnknownMessage> {
        let call = self.find_call(sid)?;
        let Some(url) = &call.status_callback else { return Ok(None) };
        let form = self.world.status_form_of_call(&call, status);
        Ok(self.world.post(url, &form, 0).await.first().copied())
    }

    fn find_call(&self, sid: &str) -> Result<Arc<Call>, UnknownMessage> {
        self.world.calls.lock().get(sid).ok_or_else(|| UnknownMessage(sid.to_owned()))
    }

    /// The oldest call to `to` that nobody has expected yet; marks it as expected. The error says what is there instead.
    pub fn expect_call(&self, to: &str) -> Result<SimCall, String> {
        let calls = self.world.calls.lock();
        let theirs = || calls.all().filter(|call| call.to == phone_of(to));
        let found = theirs().find(|call| !std::mem::replace(&mut call.course.lock().expected, true));
        let there: Vec<String> = theirs().map(|call| describe_call(&call.snapshot())).collect();
        found.map(|call| call.snapshot()).ok_or_else(|| format!("no further call to {to}:\n{}", there.join("\n")))
    }

    /// Where replies are posted from now on.
    pub fn set_inbound_url(&self, url: &str) {
        *self.world.inbound_url.write() = Some(url.to_owned());
    }

    /// The person with this phone answers the last message with `text`.
    pub async fn reply(&self, from_phone: &str, text: &str) -> Result<SimReply, ReplyError> {
        self.receive(&Inbound::new(from_phone, text)).await
    }

    /// The person with this phone taps a button of the last message that has one of this title.
    pub async fn tap(&self, from_phone: &str, title: &str) -> Result<SimReply, ReplyError> {
        let has = |message: &Message| message.buttons.iter().any(|button| button.title == title);
        let message = last_to(&self.world, phone_of(from_phone), has).ok_or(ReplyError::NothingThere)?;
        self.tap_under(from_phone, title, &message.sid).await
    }

    /// The same under one message, which may be an old one.
    pub async fn tap_under(&self, from_phone: &str, title: &str, sid: &str) -> Result<SimReply, ReplyError> {
        let there = |message: &Message| message.sid == sid && message.phone == phone_of(from_phone);
        let message = last_to(&self.world, phone_of(from_phone), there).ok_or(ReplyError::NothingThere)?;
        let button = message.buttons.iter().find(|button| button.title == title).ok_or(ReplyError::NothingThere)?;
        let quote = super::Quote::Sid(message.sid.clone());
        self.receive(&Inbound::new(from_phone, title).tapped(title, &button.id).quoting(quote)).await
    }

    /// A person writes; all particulars are the caller's.
    pub async fn receive(&self, inbound: &Inbound) -> Result<SimReply, ReplyError> {
        receive(&self.world, inbound).await
    }

    /// Adds a message template, or replaces the one with its SID.
    pub fn put_content(&self, template: ContentTemplate) {
        let content = Content::of(template.sid, template.definition, self.world.clock.now());
        let mut contents = self.world.contents.write();
        contents.retain(|known| known.sid != content.sid);
        contents.push(content);
    }

    /// What WhatsApp says of a template (`approved`, `pending`, `rejected`, `paused` …); `false` if there is none.
    pub fn set_approval(&self, content_sid: &str, status: &str) -> bool {
        let mut contents = self.world.contents.write();
        let content = contents.iter_mut().find(|content| content.sid == content_sid);
        content.map(|content| status.clone_into(&mut content.approval)).is_some()
    }

    /// The oldest message to `to` that nobody has expected yet and that fits; marks it as expected. The error says what
    /// is there instead.
    pub fn expect_message(&self, to: &str, fits: impl Fn(&SimMessage) -> bool) -> Result<SimMessage, String> {
        let phone = phone_of(to);
        let ring = self.world.ring.lock();
        for message in ring.of_phone(phone).filter(|message| message.direction == Direction::OutboundApi) {
            let snapshot = message.snapshot();
            if !snapshot.expected && fits(&snapshot) {
                message.course.lock().expected = true;
                return Ok(SimMessage { expected: true, ..snapshot });
            }
        }
        let there: Vec<String> = ring.of_phone(phone).map(|message| describe(&message.snapshot())).collect();
        Err(format!("no such message to {to}; this phone has {}:\n{}", there.len(), there.join("\n")))
    }

    /// As [`SimulatorHandle::expect_message`], and waits for it so long (by the machine's clock).
    pub async fn await_message(
        &self,
        to: &str,
        within: Duration,
        fits: impl Fn(&SimMessage) -> bool,
    ) -> Result<SimMessage, String> {
        let mut changes = self.changes();
        let found = tokio::time::timeout(within, async {
            loop {
                changes.mark_unchanged();
                if let Ok(message) = self.expect_message(to, &fits) {
                    return Some(message);
                }
                changes.changed().await.ok()?;
            }
        });
        match found.await {
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(_) => self.expect_message(to, fits),
        }
    }

    /// The messages made through the REST API that nobody has expected.
    pub fn unexpected(&self) -> Vec<SimMessage> {
        self.created(|message| !message.course.lock().expected)
    }

    /// For the end of a test: everything that was sent was asked for.
    ///
    /// # Panics
    /// If something came that no [`SimulatorHandle::expect_message`] named; the text says what, and to whom.
    #[track_caller]
    pub fn assert_no_unexpected(&self) {
        let calls = self.calls().into_iter().filter(|call| !call.expected);
        let calls: Vec<String> = calls.map(|call| describe_call(&call)).collect();
        let unexpected: Vec<String> = self.unexpected().iter().map(describe).chain(calls).collect();
        assert!(
            unexpected.is_empty(),
            "{} message(s) or call(s) came that nobody expected:\n{}",
            unexpected.len(),
            unexpected.join("\n")
        );
    }

    /// What has been counted.
    pub fn stats(&self) -> Stats {
        self.world.stats()
    }

    /// A number that goes up whenever something changes, to wait on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.world.revision.subscribe()
    }

    /// Forgets messages, requests, faults and counts; keeps templates and the inbound URL.
    pub fn reset(&self) {
        self.world.reset();
    }

    /// Ends what runs in the background and lets go of every connection that is held.
    pub fn stop(&self) {
        self.world.stop.cancel();
    }

    /// Whether messages move on only when told.
    pub(super) fn manual(&self) -> bool {
        self.world.config.callbacks == CallbackMode::Manual
    }

    fn created(&self, fits: impl Fn(&Message) -> bool) -> Vec<SimMessage> {
        let ring = self.world.ring.lock();
        let chosen = ring.all().filter(|message| message.direction == Direction::OutboundApi && fits(message));
        chosen.map(|message| message.snapshot()).collect()
    }

    fn find(&self, sid: &str) -> Result<Arc<Message>, UnknownMessage> {
        self.world.ring.lock().get(sid).ok_or_else(|| UnknownMessage(sid.to_owned()))
    }
}

fn describe_call(call: &SimCall) -> String {
    let (sid, to, status, said) = (&call.sid, &call.phone, call.status.word(), &call.said);
    format!("  - call {sid} to {to}, {status}: {said:?}")
}

/// One line for a person who reads a failed test: simulated numbers and texts are shown.
fn describe(message: &SimMessage) -> String {
    let expected = if message.expected { "" } else { " (not expected)" };
    let (to, status, body) = (&message.to, message.status.word(), &message.body);
    format!("  - {} {} to {to}, {status}{expected}: {body:?}", message.direction.word(), message.sid)
}
