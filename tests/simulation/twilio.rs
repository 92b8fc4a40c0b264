//! The provider of a schedule: takes messages, and misbehaves as the schedule's weather has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::ids::{AttemptRef, ProviderId};
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use crisis_relay::ports::{Fault, ListedMessage, LookUpError, MessageContent, MessageRequest, TwilioClient};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::hub::{Hub, Process};
use crate::watch::Watch;
use crate::weather::Weather;

/// How long a call takes at the longest.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of a create call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Answered,
    /// Answered, but only just in time.
    Slow,
    Busy,
    ConnectionRefused,
    Refused,
    /// A 5xx; the message may have been made.
    ServerError {
        made: bool,
    },
    /// No answer in time; the message was never made, was made, or is made when nobody waits any more.
    TimeOut {
        made: bool,
        late: bool,
    },
    /// The message was made, and the connection broke.
    AnswerLost,
    Unreadable,
}

/// A message, as the provider has it.
pub(crate) struct Message {
    id: ProviderId,
    pub(crate) attempt: AttemptRef,
    pub(crate) channel: Channel,
    pub(crate) to: String,
    pub(crate) body: String,
    made_at: Timestamp,
    pub(crate) made: Duration,
    listed_from: Duration,
    pub(crate) status: MessageStatus,
    fault: Option<ProviderFault>,
}

impl Message {
    pub(crate) fn id(&self) -> ProviderId {
        self.id.clone()
    }

    fn receipt(&self) -> Receipt {
        Receipt { provider_id: self.id.clone(), status: self.status, fault: self.fault }
    }
}

/// A callback to be posted.
#[derive(Debug, Clone)]
pub(crate) struct Callback {
    /// `None`: its URL does not say which attempt it is about.
    pub(crate) attempt: Option<AttemptRef>,
    pub(crate) receipt: Receipt,
    /// How often it was posted in vain.
    pub(crate) tries: u32,
}

/// What the provider will do.
enum Event {
    Make { id: ProviderId, request: Box<MessageRequest>, process: Process },
    Move { message: usize, status: MessageStatus, fault: Option<ProviderFault> },
    Post(Callback),
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    events: BTreeMap<(Duration, u64), Event>,
    numbered: u64,
    calls: u64,
    down_until: Duration,
}

/// See the module's doc.
pub(crate) struct Exchange {
    hub: Arc<Hub>,
    watch: Arc<Watch>,
    weather: Mutex<Weather>,
    state: Mutex<State>,
}

impl Exchange {
    pub(crate) fn new(hub: &Arc<Hub>, watch: &Arc<Watch>, weather: Weather) -> Arc<Self> {
        let (hub, watch) = (Arc::clone(hub), Arc::clone(watch));
        Arc::new(Self { hub, watch, weather: Mutex::new(weather), state: Mutex::default() })
    }

    /// From now on everything works.
    pub(crate) fn clear_up(&self) {
        *self.weather.lock() = Weather::fair();
        self.state.lock().down_until = Duration::ZERO;
    }

    /// Nobody is there for so long.
    pub(crate) fn goes_down(&self, until: Duration) {
        self.state.lock().down_until = until;
    }

    /// When the provider does something next.
    pub(crate) fn next_event(&self) -> Option<Duration> {
        self.state.lock().events.keys().next().map(|(at, _)| *at)
    }

    /// Looks at the messages there are.
    pub(crate) fn with_messages<T>(&self, look: impl FnOnce(&[Message]) -> T) -> T {
        look(&self.state.lock().messages)
    }

    fn plan(&self, after: Duration, event: Event) {
        let at = self.hub.elapsed() + after;
        let mut state = self.state.lock();
        state.numbered += 1;
        let place = (at, state.numbered);
        state.events.insert(place, event);
    }

    /// Posts a callback again after a while.
    pub(crate) fn post_again(&self, mut callback: Callback) {
        callback.tries += 1;
        self.plan(Duration::from_secs(15), Event::Post(callback));
    }

    /// Does what is due, and gives the callbacks to be posted.
    pub(crate) fn act(&self) -> Vec<Callback> {
        let now = self.hub.elapsed();
        let mut callbacks = Vec::new();
        loop {
            let event = {
                let mut state = self.state.lock();
                let first = state.events.first_entry().filter(|first| first.key().0 <= now);
                first.map(|first| first.remove())
            };
            match event {
                None => return callbacks,
                Some(Event::Make { id, request, process }) => self.make(id, &request, process),
                Some(Event::Move { message, status, fault }) => self.moves(message, status, fault),
                Some(Event::Post(callback)) => callbacks.push(callback),
            }
        }
    }

    fn make(&self, id: ProviderId, request: &MessageRequest, process: Process) {
        // Who died while writing the request may not have written all of it.
        if self.hub.is_dead(process) && self.hub.chance.happens(0.5) {
            return;
        }
        let weather = self.weather.lock().clone();
        let chance = &self.hub.chance;
        let body = match &request.content {
            MessageContent::Body(text) => text.clone(),
            MessageContent::Template { variables, .. } => format!("Put together of: {}", variables.join(", ")),
            MessageContent::Call | MessageContent::CodeCall(_) => String::new(),
        };
        let lag = if chance.happens(weather.list_lags) { weather.lag(chance) } else { Duration::ZERO };
        let attempt = of_an_alert(request);
        let message = Message {
            id: id.clone(),
            attempt,
            channel: request.channel,
            to: request.to.expose().to_owned(),
            body,
            made_at: self.hub.true_time(),
            made: self.hub.elapsed(),
            listed_from: self.hub.elapsed() + lag,
            status: MessageStatus::Queued,
            fault: None,
        };
        self.hub.note(format_args!("provider makes {} for {}", short(&id), named(&message.attempt)));
        self.watch.made(&message.attempt, &id);
        let place = {
            let mut state = self.state.lock();
            state.messages.push(message);
            state.messages.len() - 1
        };
        for (after, status, fault) in weather.life(request.channel, chance) {
            self.plan(after, Event::Move { message: place, status, fault });
        }
    }

    fn moves(&self, place: usize, status: MessageStatus, fault: Option<ProviderFault>) {
        let callback = {
            let mut state = self.state.lock();
            let message = &mut state.messages[place];
            (message.status, message.fault) = (status, fault);
            Callback { attempt: Some(message.attempt), receipt: message.receipt(), tries: 0 }
        };
        let weather = self.weather.lock().clone();
        for after in weather.callbacks(&self.hub) {
            let attempt = callback.attempt.filter(|_| !self.hub.chance.happens(weather.receipts_unnamed));
            self.plan(after, Event::Post(Callback { attempt, ..callback.clone() }));
        }
    }

    fn draw(&self) -> Call {
        let weather = self.weather.lock().clone();
        if self.is_down() {
            return if self.hub.chance.happens(0.5) {
                Call::ConnectionRefused
            } else {
                Call::TimeOut { made: false, late: false }
            };
        }
        let chance = &self.hub.chance;
        let made = chance.happens(0.5);
        let late = chance.happens(0.3);
        let choices = [
            (weather.busy, Call::Busy),
            (weather.connection_refused, Call::ConnectionRefused),
            (weather.refused, Call::Refused),
            (weather.server_error, Call::ServerError { made }),
            (weather.time_out, Call::TimeOut { made, late }),
            (weather.answer_lost, Call::AnswerLost),
            (weather.unreadable, Call::Unreadable),
            (weather.slow, Call::Slow),
        ];
        for (probability, call) in choices {
            if chance.happens(probability) {
                return call;
            }
        }
        Call::Answered
    }

    fn is_down(&self) -> bool {
        self.hub.elapsed() < self.state.lock().down_until
    }

    /// Whether a question goes unanswered, and why.
    fn question_fails(&self) -> Option<LookUpError> {
        let chance = &self.hub.chance;
        if !self.is_down() && !chance.happens(self.weather.lock().questions_fail) {
            return None;
        }
        let retry_after = chance.happens(0.3).then(|| chance.span(Duration::ZERO, Duration::from_secs(300)));
        Some(if chance.happens(0.2) {
            LookUpError::Refused { code: Some(20003) }
        } else {
            LookUpError::Unavailable { retry_after }
        })
    }
}

/// A process's line to the provider.
pub(crate) struct Line {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) process: Process,
}

impl Line {
    async fn takes(&self, duration: Duration) {
        self.exchange.hub.sleep(self.process, duration).await;
    }

    fn new_id(&self, channel: Channel) -> ProviderId {
        let kind = if channel == Channel::Voice { "CA" } else { "SM" };
        let mut state = self.exchange.state.lock();
        state.calls += 1;
        format!("{kind}{:032x}", state.calls).parse().expect("an id of the provider's")
    }
}

#[async_trait]
impl TwilioClient for Line {
    async fn create_message(&self, request: &MessageRequest) -> SendOutcome {
        let (exchange, hub) = (&self.exchange, &self.exchange.hub);
        exchange.watch.called(self.process, request);
        let call = exchange.draw();
        hub.note(format_args!("{} calls for {}: {call:?}", self.process, named(&of_an_alert(request))));
        if call != Call::Answered {
            hub.see(format!("call {call:?}"));
        }
        let id = self.new_id(request.channel);
        let (soon, then) = (
            hub.chance.span(Duration::from_millis(10), Duration::from_millis(900)),
            hub.chance.span(Duration::from_millis(1), Duration::from_millis(500)),
        );
        let make = |after| {
            let (id, request, process) = (id.clone(), Box::new(request.clone()), self.process);
            exchange.plan(after, Event::Make { id, request, process });
        };
        let unknown = |cause| SendOutcome::Unknown { cause, retry_after: None };
        let accepted = || SendOutcome::Accepted { provider_id: id.clone(), status: MessageStatus::Queued };
        let outcome = match call {
            Call::Answered => {
                make(soon);
                self.takes(soon + then).await;
                accepted()
            }
            Call::Slow => {
                make(soon);
                self.takes(hub.chance.span(CALL_TIMEOUT / 2, CALL_TIMEOUT - Duration::from_millis(1))).await;
                accepted()
            }
            Call::Busy => {
                self.takes(soon).await;
                let fault = Some(ProviderFault { code: Some(20429), class: ErrorClass::Retry, delay_s: None });
                let longest = Duration::from_secs(300);
                let retry_after = hub.chance.happens(0.6).then(|| hub.chance.span(Duration::ZERO, longest));
                SendOutcome::NotExecuted { retry_after, fault }
            }
            Call::ConnectionRefused => {
                self.takes(Duration::from_millis(2)).await;
                SendOutcome::NotExecuted { retry_after: None, fault: None }
            }
            Call::Refused => {
                self.takes(soon).await;
                SendOutcome::Refused(crate::weather::refusal(&hub.chance))
            }
            Call::ServerError { made } => {
                if made {
                    make(soon);
                }
                self.takes(soon + then).await;
                unknown(UnknownCause::ServerError)
            }
            Call::TimeOut { made, late } => {
                if made {
                    make(if late { CALL_TIMEOUT + soon * 30 } else { soon });
                }
                self.takes(CALL_TIMEOUT).await;
                unknown(UnknownCause::TimeOut)
            }
            Call::AnswerLost => {
                make(soon);
                self.takes(soon + then).await;
                unknown(UnknownCause::ConnectionLost)
            }
            Call::Unreadable => {
                make(soon);
                self.takes(soon + then).await;
                unknown(UnknownCause::UnreadableAnswer)
            }
        };
        exchange.watch.answered(&of_an_alert(request), &outcome);
        outcome
    }

    async fn fetch_message(&self, id: &ProviderId) -> Result<Receipt, LookUpError> {
        self.takes(self.exchange.hub.chance.span(Duration::from_millis(5), Duration::from_millis(300))).await;
        if let Some(error) = self.exchange.question_fails() {
            return Err(error);
        }
        let now = self.exchange.hub.elapsed();
        let found = self.exchange.with_messages(|messages| {
            messages.iter().find(|message| message.id == *id && message.listed_from <= now).map(Message::receipt)
        });
        self.exchange.hub.note(format_args!("{} polls {}: {:?}", self.process, short(id), status(found.as_ref())));
        found.ok_or(LookUpError::NotFound)
    }

    async fn list_messages(
        &self,
        channel: Channel,
        to: &PhoneNumber,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ListedMessage>, LookUpError> {
        self.takes(self.exchange.hub.chance.span(Duration::from_millis(5), Duration::from_secs(2))).await;
        if let Some(error) = self.exchange.question_fails() {
            return Err(error);
        }
        let now = self.exchange.hub.elapsed();
        let listed = |message: &Message| ListedMessage {
            receipt: message.receipt(),
            // To the second, as the provider tells it.
            created_at: Timestamp::new(message.made_at.as_second(), 0).expect("a time of this century"),
            body: message.body.clone(),
        };
        let fits =
            |message: &&Message| message.channel == channel && message.to == to.expose() && message.listed_from <= now;
        let found: Vec<ListedMessage> = self.exchange.with_messages(|messages| {
            let all = messages.iter().rev().filter(fits).map(listed);
            all.filter(|listed| listed.created_at >= since).take(limit).collect()
        });
        self.exchange.hub.note(format_args!("{} is told of {} messages", self.process, found.len()));
        Ok(found)
    }

    async fn check(&self) -> Vec<Fault> {
        Vec::new()
    }
}

fn status(receipt: Option<&Receipt>) -> Option<MessageStatus> {
    receipt.map(|receipt| receipt.status)
}

/// The end of an id: the rest is noughts.
pub(crate) fn short(id: &ProviderId) -> &str {
    &id.as_str()[28..]
}

/// The attempt that a message is of: a schedule has no others.
pub(crate) fn of_an_alert(request: &MessageRequest) -> AttemptRef {
    request.attempt.expect("every message of a schedule is of an alert")
}

/// An attempt, as the trace names it.
pub(crate) fn named(attempt: &AttemptRef) -> String {
    let alert = attempt.alert.to_string();
    format!("{}/{}/{}", &alert[30..], attempt.delivery, attempt.attempt)
}
