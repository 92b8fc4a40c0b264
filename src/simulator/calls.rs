//! The life of a call: it is set up, rings, is picked up or not, and says what TwiML asks for; and who tells of it.
//!
//! In automatic mode a task of its own brings a call through its times; in manual mode nothing happens until somebody acts.
//! Speech takes no time here.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::answer::rfc_2822;
use super::call::{AnsweredBy, Call, CallStatus, Habit, Waiting};
use super::callback::Form;
use super::config::CallbackMode;
use super::twiml::{self, Verb};
use super::world::{World, count};

/// The most documents that one call asks for: a document that leads back to itself ends here.
const DOCUMENTS_MAX: usize = 20;
/// Twilio's errors: a document could not be had; it is none that can be read.
const NOT_RETRIEVED: &str = "11200";
const UNREADABLE: &str = "12100";
/// A call in which nothing is to be said any more.
const HANGS_UP_AFTER: Duration = Duration::from_secs(1);

impl World {
    /// Brings a fresh call on its way, in automatic mode.
    pub(super) fn live(self: &Arc<Self>, call: &Arc<Call>) {
        let CallbackMode::Automatic { sent_after, delivered_after, .. } = self.config.callbacks else { return };
        let (world, call) = (Arc::clone(self), Arc::clone(call));
        tokio::spawn(async move {
            let stop = world.stop.clone();
            let life = async {
                loop {
                    let mark = call.course.lock().mark;
                    let Some(wait) = patience(&call, sent_after, delivered_after) else { return };
                    let over = tokio::select! {
                        () = world.clock.sleep(wait) => true,
                        () = call.changed.notified() => false,
                    };
                    if over && call.course.lock().mark == mark {
                        world.step_call(&call, true).await;
                    }
                }
            };
            stop.run_until_cancelled(life).await;
        });
    }

    /// Moves a call on by one step: as its habit says; where it has none, only if its `time_is_over` or nobody is needed for
    /// it. Gives the HTTP statuses of the webhooks posted, 0 for no answer.
    pub(super) async fn step_call(&self, call: &Arc<Call>, time_is_over: bool) -> Vec<u16> {
        let (status, waits) = {
            let course = call.course.lock();
            (course.status, course.waiting.is_some())
        };
        match (status, call.habit) {
            (CallStatus::Queued, _) => self.move_call(call, CallStatus::Initiated, None).await,
            (CallStatus::Initiated, Some(Habit::Fails)) => self.move_call(call, CallStatus::Failed, None).await,
            (CallStatus::Initiated, _) => self.move_call(call, CallStatus::Ringing, None).await,
            (CallStatus::Ringing, Some(Habit::Busy)) => self.move_call(call, CallStatus::Busy, None).await,
            (CallStatus::Ringing, Some(Habit::NoAnswer)) => self.move_call(call, CallStatus::NoAnswer, None).await,
            (CallStatus::Ringing, Some(Habit::Voicemail)) => self.pick_up(call, AnsweredBy::MachineEndBeep).await,
            (CallStatus::Ringing, Some(Habit::Listens | Habit::Presses(_))) => {
                self.pick_up(call, AnsweredBy::Human).await
            }
            (CallStatus::Ringing, Some(Habit::Fails) | None) if time_is_over => {
                self.move_call(call, CallStatus::NoAnswer, None).await
            }
            (CallStatus::InProgress, Some(Habit::Presses(key))) if waits => self.press(call, key).await,
            (CallStatus::InProgress, Some(Habit::Listens)) => self.stay_silent(call).await,
            (CallStatus::InProgress, _) if time_is_over => self.stay_silent(call).await,
            (CallStatus::Ringing | CallStatus::InProgress, _)
            | (
                CallStatus::Completed
                | CallStatus::Busy
                | CallStatus::NoAnswer
                | CallStatus::Failed
                | CallStatus::Canceled,
                _,
            ) => Vec::new(),
        }
    }

    /// Somebody or something picks up, while it rings.
    pub(super) async fn pick_up(&self, call: &Arc<Call>, by: AnsweredBy) -> Vec<u16> {
        let _turn = call.turn.lock().await;
        if call.course.lock().status != CallStatus::Ringing {
            return Vec::new();
        }
        let mut codes = self.moved(call, CallStatus::InProgress, Some(by)).await;
        let verbs = match &call.url {
            Some(url) => {
                let form = self.call_form(call, CallStatus::InProgress, None);
                self.ask(call, url, &form, &mut codes).await
            }
            None => call.twiml.as_deref().and_then(twiml::read),
        };
        codes.extend(self.play(call, verbs).await);
        codes
    }

    /// The person presses a key while one is waited for.
    pub(super) async fn press(&self, call: &Arc<Call>, key: char) -> Vec<u16> {
        let _turn = call.turn.lock().await;
        let waiting = {
            let mut course = call.course.lock();
            let waiting = course.waiting.take();
            if waiting.is_some() {
                course.keys.push(key);
                course.mark += 1;
            }
            waiting
        };
        let Some(Waiting { action: Some(action), .. }) = waiting else { return Vec::new() };
        let (form, mut codes) = (self.call_form(call, CallStatus::InProgress, Some(key)), Vec::new());
        let verbs = self.ask(call, &action, &form, &mut codes).await;
        codes.extend(self.play(call, verbs).await);
        codes
    }

    /// Asks what is to be done; where nothing that can be done comes back, asks at the call's other address, once, and says there
    /// what went wrong. Neither the key nor who picked up is said there: no page of Twilio's promises it.
    async fn ask(&self, call: &Call, url: &str, form: &Form, codes: &mut Vec<u16>) -> Option<Vec<Verb>> {
        let error = match self.ask_at(url, form, codes).await {
            Ok(verbs) => return Some(verbs),
            Err(error) => error,
        };
        let fallback = call.fallback_url.as_ref()?;
        let mut form = self.call_form(call, CallStatus::InProgress, None);
        form.retain(|(name, _)| *name != "AnsweredBy");
        form.push(("ErrorCode", error.to_owned()));
        form.push(("ErrorUrl", url.split('#').next().unwrap_or(url).to_owned()));
        self.ask_at(fallback, &form, codes).await.ok()
    }

    async fn ask_at(&self, url: &str, form: &Form, codes: &mut Vec<u16>) -> Result<Vec<Verb>, &'static str> {
        let posted = self.postman.post(url, form, &self.idempotency_token()).await;
        count(if posted.ok() { &self.counters.callbacks_sent } else { &self.counters.callbacks_failed });
        codes.push(posted.status);
        if posted.ok() { twiml::read(&posted.body).ok_or(UNREADABLE) } else { Err(NOT_RETRIEVED) }
    }

    /// Nobody presses anything until the gather's time is over.
    pub(super) async fn stay_silent(&self, call: &Arc<Call>) -> Vec<u16> {
        let _turn = call.turn.lock().await;
        call.course.lock().waiting = None;
        self.go_on(call).await
    }

    /// The person hangs up, or turns the call down.
    pub(super) async fn hang_up(&self, call: &Arc<Call>) -> Vec<u16> {
        let status = call.course.lock().status;
        match status {
            CallStatus::InProgress => self.move_call(call, CallStatus::Completed, None).await,
            CallStatus::Ringing => self.move_call(call, CallStatus::Busy, None).await,
            CallStatus::Queued
            | CallStatus::Initiated
            | CallStatus::Completed
            | CallStatus::Busy
            | CallStatus::NoAnswer
            | CallStatus::Failed
            | CallStatus::Canceled => Vec::new(),
        }
    }

    /// Moves a call to a status, unless it is over; tells of it.
    pub(super) async fn move_call(&self, call: &Arc<Call>, to: CallStatus, by: Option<AnsweredBy>) -> Vec<u16> {
        let _turn = call.turn.lock().await;
        self.moved(call, to, by).await
    }

    async fn moved(&self, call: &Call, to: CallStatus, by: Option<AnsweredBy>) -> Vec<u16> {
        {
            let mut course = call.course.lock();
            if course.status.is_over() {
                return Vec::new();
            }
            course.status = to;
            course.updated_at = self.clock.now();
            course.mark += 1;
            if to == CallStatus::InProgress {
                course.answered_at = Some(course.updated_at);
                course.answered_by = by.filter(|_| call.detects_machines);
            }
            if to.is_over() {
                course.waiting = None;
                course.rest.clear();
            }
        }
        call.changed.notify_one();
        self.changed();
        self.tell_call(call, to).await
    }

    /// Does what a document says, from its beginning; `None`: there is none that can be read.
    async fn play(&self, call: &Call, verbs: Option<Vec<Verb>>) -> Vec<u16> {
        match verbs {
            Some(verbs) => {
                call.course.lock().rest = verbs.into_iter().rev().collect();
                self.go_on(call).await
            }
            // Twilio says that an application error has occurred, and hangs up.
            None => self.moved(call, CallStatus::Completed, None).await,
        }
    }

    /// Goes on with what is left, until a key is waited for or the call ends.
    async fn go_on(&self, call: &Call) -> Vec<u16> {
        for _ in 0..DOCUMENTS_MAX {
            let Some(url) = self.say(call) else {
                if call.course.lock().waiting.is_some() {
                    return Vec::new();
                }
                return self.moved(call, CallStatus::Completed, None).await;
            };
            let form = self.call_form(call, CallStatus::InProgress, None);
            let Some(verbs) = self.ask(call, &url, &form, &mut Vec::new()).await else { break };
            call.course.lock().rest = verbs.into_iter().rev().collect();
        }
        self.moved(call, CallStatus::Completed, None).await
    }

    /// Says what is to be said, up to the next gather, redirection or end. Gives where to go on, if elsewhere.
    fn say(&self, call: &Call) -> Option<String> {
        let mut course = call.course.lock();
        course.mark += 1;
        course.updated_at = self.clock.now();
        let machine = course.answered_by == Some(AnsweredBy::MachineEndBeep);
        while let Some(verb) = course.rest.pop() {
            match verb {
                Verb::Say(text) => course.said.push(text),
                Verb::Pause => {}
                Verb::Redirect(url) => return Some(url),
                Verb::Hangup => {
                    course.rest.clear();
                    break;
                }
                Verb::Gather { action, timeout_s, prompt } => {
                    for verb in prompt {
                        if let Verb::Say(text) = verb {
                            course.said.push(text);
                        }
                    }
                    if !machine {
                        let timeout = Duration::from_secs(u64::from(timeout_s));
                        course.waiting = Some(Waiting { action, timeout });
                        break;
                    }
                }
            }
        }
        drop(course);
        call.changed.notify_one();
        self.changed();
        None
    }

    /// Posts the callback of a status, if it was asked for, with the call's twist.
    async fn tell_call(&self, call: &Call, status: CallStatus) -> Vec<u16> {
        let asked = |event: &str| call.events.iter().any(|asked| asked == event);
        let Some(url) = &call.status_callback else { return Vec::new() };
        if !status.event().is_some_and(asked) {
            return Vec::new();
        }
        if call.twist.lost {
            count(&self.counters.callbacks_lost);
            return Vec::new();
        }
        let form = self.status_form_of_call(call, status);
        let held = {
            let mut course = call.course.lock();
            if call.twist.reordered && status == CallStatus::Ringing {
                course.held = Some(form);
                return Vec::new();
            }
            course.held.take()
        };
        let mut codes = self.post(url, &form, call.twist.repeated).await;
        if let Some(held) = held {
            codes.extend(self.post(url, &held, call.twist.repeated).await);
        }
        codes
    }

    /// The form of a status callback.
    pub(super) fn status_form_of_call(&self, call: &Call, status: CallStatus) -> Form {
        let mut form = self.call_form(call, status, None);
        let now = self.clock.now();
        let (sequence, answered_at) = {
            let mut course = call.course.lock();
            course.sequence += 1;
            (course.sequence - 1, course.answered_at)
        };
        form.push(("Timestamp", rfc_2822(now)));
        form.push(("CallbackSource", "call-progress-events".to_owned()));
        form.push(("SequenceNumber", sequence.to_string()));
        if status.is_over() {
            let seconds = answered_at.map_or(0, |at| seconds_between(at, now));
            form.push(("CallDuration", seconds.to_string()));
            form.push(("Duration", seconds.div_ceil(60).to_string()));
            form.push(("SipResponseCode", sip_code(status).to_owned()));
        }
        if call.twist.extra_fields {
            form.push(("FutureField", "a field that no page names".to_owned()));
        }
        form
    }

    /// What every webhook about a call says.
    fn call_form(&self, call: &Call, status: CallStatus, key: Option<char>) -> Form {
        let mut form: Form = vec![
            ("AccountSid", self.config.account_sid.clone()),
            ("ApiVersion", "2010-04-01".to_owned()),
            ("CallSid", call.sid.clone()),
            ("CallStatus", status.word().to_owned()),
            ("Called", call.to.clone()),
            ("Caller", call.from.clone()),
            ("Direction", "outbound-api".to_owned()),
            ("From", call.from.clone()),
            ("To", call.to.clone()),
        ];
        if let Some(by) = call.course.lock().answered_by {
            form.push(("AnsweredBy", by.word().to_owned()));
        }
        if let Some(key) = key {
            form.push(("Digits", key.to_string()));
            form.push(("msg", "Gather End".to_owned()));
        }
        if let (CallStatus::Failed, Some(code)) = (status, call.error_code) {
            form.push(("ErrorCode", code.to_string()));
        }
        form
    }
}

/// How long a call stays as it is; `None` once it is over.
fn patience(call: &Call, sent_after: Duration, delivered_after: Duration) -> Option<Duration> {
    let course = call.course.lock();
    Some(match (course.status, &course.waiting, call.habit) {
        (CallStatus::Queued | CallStatus::Initiated, ..) => sent_after,
        (CallStatus::Ringing, _, Some(Habit::NoAnswer) | None) => call.rings_for,
        (CallStatus::Ringing, _, Some(_)) => delivered_after,
        (CallStatus::InProgress, Some(_), Some(Habit::Presses(_))) => delivered_after,
        (CallStatus::InProgress, Some(waiting), _) => waiting.timeout,
        (CallStatus::InProgress, None, _) => HANGS_UP_AFTER,
        (
            CallStatus::Completed | CallStatus::Busy | CallStatus::NoAnswer | CallStatus::Failed | CallStatus::Canceled,
            ..,
        ) => return None,
    })
}

fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    Duration::try_from(to.duration_since(from)).unwrap_or_default().as_secs()
}

/// What the telephone network said at the end.
const fn sip_code(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Busy => "486",
        CallStatus::NoAnswer | CallStatus::Canceled => "487",
        CallStatus::Failed => "404",
        CallStatus::Queued
        | CallStatus::Initiated
        | CallStatus::Ringing
        | CallStatus::InProgress
        | CallStatus::Completed => "200",
    }
}
