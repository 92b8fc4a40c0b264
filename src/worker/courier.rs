//! The courier: hands messages to Twilio, each in its lane.
//!
//! Whatever is sent by a sender shares its pace, and whatever calls Twilio shares the places among the calls. Live alerts go
//! first: they may book turns ahead, take the last place, and are the first to call again after Twilio was away. All else
//! takes only what is free just now and leaves room behind it; where nothing is, it is held back and told for how long, and
//! comes again by itself. A message that Twilio already has is never overtaken: at one text message a second, a live alert
//! may find that second taken.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::alarm::Phones;
use crate::domain::contact::Channel;
use crate::domain::provider::SendOutcome;
use crate::metrics::Metrics;
use crate::ports::{Clock, MessageRequest, TwilioClient};
use crate::twilio::breaker::{Admission, Breaker, BreakerState};
use crate::twilio::pace::Pace;

/// What a message is for, as far as its place in the queue goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A live alert: ahead of everything.
    Crisis,
    /// A drill.
    Drill,
    /// What people are told who need not act: that a case is taken, a reminder.
    Notice,
    /// A verification code.
    Code,
    /// A notice to the operator.
    Ops,
}

impl Lane {
    /// Its name, as in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crisis => "crisis",
            Self::Drill => "drill",
            Self::Notice => "notice",
            Self::Code => "code",
            Self::Ops => "ops",
        }
    }
}

/// How long what found no place among the calls is held back.
const NO_PLACE_PAUSE: Duration = Duration::from_millis(500);
/// How long after Twilio was away a live alert has to be the first to try again.
const LEFT_TO_CRISIS: Duration = Duration::from_secs(30);

/// Hands messages to Twilio.
pub struct Courier {
    twilio: Arc<dyn TwilioClient>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    paces: Paces,
    /// Places among the calls that send. They are taken before the last look at the case, which nothing may follow that waits.
    places: Semaphore,
    /// How many of them are left to live alerts.
    left_to_crisis: usize,
    breaker: Mutex<Breaker>,
}

/// How fast each sender may send.
pub struct Paces {
    whatsapp: Mutex<Pace>,
    sms: Mutex<Pace>,
    voice: Mutex<Pace>,
}

impl Paces {
    /// The paces of the three senders.
    pub fn new(whatsapp: Pace, sms: Pace, voice: Pace) -> Self {
        Self { whatsapp: Mutex::new(whatsapp), sms: Mutex::new(sms), voice: Mutex::new(voice) }
    }

    fn of(&self, channel: Channel) -> &Mutex<Pace> {
        match channel {
            Channel::Whatsapp => &self.whatsapp,
            Channel::Sms => &self.sms,
            Channel::Voice => &self.voice,
        }
    }
}

impl Courier {
    /// A courier that makes so many calls at once.
    pub fn new(
        twilio: Arc<dyn TwilioClient>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        paces: Paces,
        breaker: Breaker,
        calls_at_once: usize,
    ) -> Self {
        let places = calls_at_once.clamp(1, Semaphore::MAX_PERMITS);
        // With a single place there is none to leave.
        let left_to_crisis = (places / 4).max(usize::from(places > 1));
        let (places, breaker) = (Semaphore::new(places), Mutex::new(breaker));
        Self { twilio, clock, metrics, paces, places, left_to_crisis, breaker }
    }

    /// The turn of a message at its sender: how long to wait for it.
    ///
    /// # Errors
    /// How long the wait would be: longer than `patience`, or in a lane that never waits.
    pub(super) fn turn(
        &self,
        lane: Lane,
        channel: Channel,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let mut pace = self.paces.of(channel).lock();
        match lane {
            Lane::Crisis => pace.reserve_within(now, patience),
            Lane::Drill | Lane::Notice | Lane::Code | Lane::Ops => pace.take_spare(now).map(|()| Duration::ZERO),
        }
        .inspect_err(|_| self.metrics.held_back(lane.name()))
    }

    /// A place among the calls, if one is free for this lane just now.
    pub(super) fn free_place(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        let left = match lane {
            Lane::Crisis => 0,
            Lane::Drill | Lane::Notice | Lane::Code | Lane::Ops => self.left_to_crisis,
        };
        (self.places.available_permits() > left).then(|| self.places.try_acquire().ok()).flatten()
    }

    /// A place among the calls, as soon as one is free.
    pub(super) async fn next_place(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.places.acquire().await.ok()
    }

    /// Whether Twilio may be called as it looks now, or for how long it may not. To be asked before a turn is taken, which
    /// a message that is held back would use up.
    pub(super) fn looks_open(&self, lane: Lane, now: Timestamp) -> Result<(), Duration> {
        let mut breaker = self.breaker.lock();
        let waits = breaker.waits(now).map(|until| span(now, until));
        match left_to_crisis(lane, breaker.state(), now).or(waits) {
            Some(wait) => Err(wait),
            None => Ok(()),
        }
    }

    /// Whether Twilio may be called, or for how long it may not. Whoever is let go must call, and at once: it may be the
    /// one call that all others wait for.
    pub(super) fn admits(&self, lane: Lane, now: Timestamp) -> Result<(), Duration> {
        let mut breaker = self.breaker.lock();
        if let Some(wait) = left_to_crisis(lane, breaker.state(), now) {
            return Err(wait);
        }
        match breaker.allow(now) {
            Admission::Go | Admission::Probe => Ok(()),
            Admission::Wait(until) => Err(span(now, until)),
        }
    }

    /// Calls Twilio, and tells the breaker how it went.
    pub(super) async fn call(&self, request: &MessageRequest) -> SendOutcome {
        let outcome = self.twilio.create_message(request).await;
        self.note_health(&outcome);
        outcome
    }

    /// Sends a message that is no live alert's: at once, or not at all, and then says for how long it is held back.
    pub async fn send(&self, lane: Lane, request: &MessageRequest) -> SendOutcome {
        let now = self.clock.now();
        let Some(place) = self.free_place(lane) else {
            self.metrics.held_back(lane.name());
            return SendOutcome::NotBegun { wait: NO_PLACE_PAUSE };
        };
        let turn = || self.turn(lane, request.channel, now, Duration::ZERO);
        if let Err(wait) = self.looks_open(lane, now).and_then(|()| turn()).and_then(|_| self.admits(lane, now)) {
            return SendOutcome::NotBegun { wait };
        }
        let outcome = self.call(request).await;
        drop(place);
        outcome
    }
}

/// For how long the probe is left to live alerts, as far as there are any.
fn left_to_crisis(lane: Lane, breaker: BreakerState, now: Timestamp) -> Option<Duration> {
    match (lane, breaker) {
        (Lane::Drill | Lane::Notice | Lane::Code | Lane::Ops, BreakerState::Open { until }) => {
            Some(span(now, until) + LEFT_TO_CRISIS).filter(|_| now < until + LEFT_TO_CRISIS)
        }
        (Lane::Crisis, _) | (_, BreakerState::Closed | BreakerState::HalfOpen) => None,
    }
}

fn span(now: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(now)).unwrap_or_default()
}

impl Courier {
    /// The circuit breaker's state. Once its time is over, an open one counts as half open: it would let a call go, though
    /// nobody may have had reason to make one.
    pub fn breaker(&self) -> BreakerState {
        match self.breaker.lock().state() {
            BreakerState::Open { until } if until <= self.clock.now() => BreakerState::HalfOpen,
            state @ (BreakerState::Closed | BreakerState::Open { .. } | BreakerState::HalfOpen) => state,
        }
    }

    /// Tells the breaker how a call went. A refusal is an answer: Twilio is there.
    fn note_health(&self, outcome: &SendOutcome) {
        let answered = match outcome {
            SendOutcome::Accepted { .. } | SendOutcome::Refused(_) => true,
            SendOutcome::NotExecuted { fault, .. } => fault.is_some(),
            SendOutcome::Unknown { .. } | SendOutcome::NotBegun { .. } => false,
        };
        let mut breaker = self.breaker.lock();
        if answered {
            breaker.on_success();
        } else {
            breaker.on_failure(self.clock.now());
        }
        self.metrics.set_breaker_open(matches!(breaker.state(), BreakerState::Open { .. }));
    }
}

#[async_trait]
impl Phones for Courier {
    async fn text(&self, request: &MessageRequest) -> SendOutcome {
        self.send(Lane::Ops, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::ids::ProviderId;
    use crate::domain::provider::{MessageStatus, Receipt, UnknownCause};
    use crate::ports::{Fault, ListedMessage, LookUpError, MessageContent};
    use crate::twilio::breaker::BreakerLimits;

    /// A Twilio that takes everything, or is away.
    struct Line(Mutex<bool>);

    #[async_trait]
    impl TwilioClient for Line {
        async fn create_message(&self, _: &MessageRequest) -> SendOutcome {
            if *self.0.lock() {
                let provider_id: ProviderId = "SM0123456789abcdef0123456789abcdef".parse().unwrap();
                SendOutcome::Accepted { provider_id, status: MessageStatus::Queued }
            } else {
                SendOutcome::Unknown { cause: UnknownCause::TimeOut, retry_after: None }
            }
        }
        async fn fetch_message(&self, _: &ProviderId) -> Result<Receipt, LookUpError> {
            Err(LookUpError::NotFound)
        }
        async fn list_messages(
            &self,
            _: Channel,
            _: &crate::domain::contact::PhoneNumber,
            _: Timestamp,
            _: usize,
        ) -> Result<Vec<ListedMessage>, LookUpError> {
            Ok(Vec::new())
        }
        async fn check(&self) -> Vec<Fault> {
            Vec::new()
        }
    }

    const LESSER: [Lane; 4] = [Lane::Drill, Lane::Notice, Lane::Code, Lane::Ops];

    fn courier(per_second: f64, burst: u32, places: usize) -> (Courier, ManualClock, Arc<Line>) {
        let (clock, line) = (ManualClock::new(Timestamp::UNIX_EPOCH), Arc::new(Line(Mutex::new(true))));
        let pace = || Pace::new(per_second, burst);
        let paces = Paces::new(pace(), pace(), pace());
        let breaker = Breaker::new(BreakerLimits { failures_to_open: 2, ..BreakerLimits::default() });
        let (twilio, time) = (Arc::clone(&line) as Arc<dyn TwilioClient>, Arc::new(clock.clone()));
        (Courier::new(twilio, time, Arc::new(Metrics::new()), paces, breaker, places), clock, line)
    }

    fn request() -> MessageRequest {
        MessageRequest {
            attempt: None,
            channel: Channel::Sms,
            to: "+919876543210".parse().unwrap(),
            content: MessageContent::Body("text".to_owned()),
        }
    }

    fn is_sent(outcome: &SendOutcome) -> bool {
        matches!(outcome, SendOutcome::Accepted { .. })
    }

    #[tokio::test]
    async fn while_live_alerts_wait_for_their_turn_nothing_else_gets_one() {
        let (courier, clock, _) = courier(1.0, 1, 8);
        let now = clock.now();
        let patience = Duration::from_secs(60);
        for second in 0..5 {
            assert_eq!(courier.turn(Lane::Crisis, Channel::Sms, now, patience), Ok(Duration::from_secs(second)));
        }
        for lane in LESSER {
            let wait = Duration::from_secs(5);
            assert_eq!(courier.send(lane, &request()).await, SendOutcome::NotBegun { wait }, "{lane:?}");
        }
        // And whatever they ask for in vain takes nothing from a live alert.
        assert_eq!(courier.turn(Lane::Crisis, Channel::Sms, now, patience), Ok(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(6));
        assert!(is_sent(&courier.send(Lane::Ops, &request()).await));
    }

    #[tokio::test]
    async fn what_is_no_live_alert_leaves_a_turn_behind_it() {
        let (courier, clock, _) = courier(10.0, 4, 8);
        let mut sent = 0;
        while is_sent(&courier.send(Lane::Code, &request()).await) {
            sent += 1;
        }
        assert_eq!(sent, 3);
        assert_eq!(courier.turn(Lane::Crisis, Channel::Sms, clock.now(), Duration::ZERO), Ok(Duration::ZERO));
    }

    /// Twilio was away, and comes back; the time that is left to live alerts is over.
    async fn after_an_outage(courier: &Courier, clock: &ManualClock, line: &Line) {
        *line.0.lock() = false;
        for _ in 0..2 {
            let outcome = courier.call(&request()).await;
            assert!(!is_sent(&outcome));
        }
        *line.0.lock() = true;
        clock.advance(Duration::from_secs(2) + LEFT_TO_CRISIS);
    }

    #[tokio::test]
    async fn a_message_that_gets_no_turn_leaves_the_first_call_after_an_outage_to_a_live_alert() {
        let (courier, clock, line) = courier(1.0, 2, 8);
        after_an_outage(&courier, &clock, &line).await;
        // All that is left at this sender is booked.
        let patience = Duration::from_secs(60);
        for _ in 0..5 {
            courier.turn(Lane::Crisis, Channel::Sms, clock.now(), patience).unwrap();
        }
        for lane in LESSER {
            assert!(!is_sent(&courier.send(lane, &request()).await), "{lane:?}");
        }
        assert_eq!(courier.admits(Lane::Crisis, clock.now()), Ok(()), "it waits for a call that was never made");
    }

    #[tokio::test]
    async fn what_is_held_back_while_twilio_is_away_takes_no_turn_from_a_live_alert() {
        let (courier, clock, line) = courier(0.001, 3, 8);
        *line.0.lock() = false;
        for _ in 0..2 {
            courier.call(&request()).await;
        }
        for lane in LESSER {
            assert!(!is_sent(&courier.send(lane, &request()).await), "{lane:?}");
            assert!(courier.looks_open(lane, clock.now()).is_err());
        }
        assert!(courier.looks_open(Lane::Crisis, clock.now()).is_err());
        for _ in 0..3 {
            assert_eq!(courier.turn(Lane::Crisis, Channel::Sms, clock.now(), Duration::ZERO), Ok(Duration::ZERO));
        }
    }

    #[tokio::test]
    async fn the_last_places_among_the_calls_are_left_to_live_alerts() {
        let (courier, _, _) = courier(1_000.0, 100, 8);
        let held: Vec<_> = std::iter::from_fn(|| courier.free_place(Lane::Drill)).collect();
        assert_eq!(held.len(), 6);
        let wait = NO_PLACE_PAUSE;
        assert_eq!(courier.send(Lane::Ops, &request()).await, SendOutcome::NotBegun { wait });
        assert!(courier.free_place(Lane::Crisis).is_some());
    }

    #[tokio::test]
    async fn after_twilio_was_away_a_live_alert_is_the_first_to_try_and_without_one_somebody_is() {
        let (courier, clock, line) = courier(1_000.0, 100, 8);
        *line.0.lock() = false;
        for _ in 0..2 {
            courier.send(Lane::Ops, &request()).await;
        }
        assert!(matches!(courier.breaker(), BreakerState::Open { .. }));
        *line.0.lock() = true;
        clock.advance(Duration::from_secs(2));
        for lane in LESSER {
            assert!(!is_sent(&courier.send(lane, &request()).await), "{lane:?}");
        }
        assert_eq!(courier.admits(Lane::Crisis, clock.now()), Ok(()));
        // That alert's call never came back.
        clock.advance(Duration::from_secs(120));
        let mut tries = 0;
        while !is_sent(&courier.send(Lane::Ops, &request()).await) {
            clock.advance(LEFT_TO_CRISIS);
            tries += 1;
            assert!(tries < 5, "for ever");
        }
    }
}
