//! What people and backends do in a schedule: each request is a task of its own at one instance, as over HTTP, and its
//! answer is held against what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{Outcome, Transition};
use crisis_relay::domain::audit::AuditStream;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::event::{Score, Source};
use crisis_relay::domain::ids::AlertId;
use crisis_relay::domain::reply::{Answer, Command};
use crisis_relay::service::ServiceError;
use crisis_relay::service::calls::{Call, Key, Said};
use crisis_relay::service::consent::ConsentChange;
use crisis_relay::service::intake::{IdempotencyInput, NewEvent, Statement};
use crisis_relay::service::reading::AlertName;
use crisis_relay::service::replies::Reply;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::college::{caller, phone};
use crate::instance::{Ground, Instance};
use crate::twilio::{Callback, named};
use crate::watch::rule;

/// How long a backend waits for an answer before it posts again.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the provider posts a callback that is not answered.
const CALLBACK_TRIES: u32 = 3;

/// An event that a backend has to post; one with a key is posted until it is answered.
#[derive(Debug, Clone)]
struct Post {
    student: usize,
    score: Option<f64>,
    overridden: bool,
    keyed: bool,
    next_try: Duration,
    answered: bool,
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct People {
    posts: Arc<Mutex<BTreeMap<u64, Post>>>,
    replies: Arc<Mutex<Vec<Reply>>>,
    keys: Vec<(Call, Key)>,
    numbered: u64,
    tasks: Vec<JoinHandle<()>>,
}

fn word<T>(result: &Result<T, ServiceError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(ServiceError::Store(_)) => "the store fails",
        Err(ServiceError::Busy) => "busy",
        Err(ServiceError::TooLate) => "too late",
        Err(ServiceError::Rejected(_)) => "rejected",
        Err(ServiceError::NotFound) => "not found",
        Err(ServiceError::IdempotencyKeyReused) => "key reused",
        Err(
            ServiceError::Roster(_)
            | ServiceError::CannotVerify(_)
            | ServiceError::NoDesk
            | ServiceError::WhichEmergencyContact
            | ServiceError::DrillRuns(_)
            | ServiceError::Forbidden(_)
            | ServiceError::UnknownOrganisation
            | ServiceError::CannotSeal(_)
            | ServiceError::Sealed(_),
        ) => "refused",
    }
}

impl People {
    /// Whether somebody's task ended by a panic.
    pub(crate) fn somebody_panicked(&mut self) -> bool {
        let (ended, going): (Vec<_>, Vec<_>) = self.tasks.drain(..).partition(JoinHandle::is_finished);
        self.tasks = going;
        use futures::FutureExt as _;
        ended.into_iter().any(|task| matches!(task.now_or_never(), Some(Err(error)) if error.is_panic()))
    }

    /// Whether every event that is posted until it is answered was answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.posts.lock().values().all(|post| post.answered || !post.keyed)
    }

    /// When a backend's patience ends next.
    pub(crate) fn next_try(&self) -> Option<Duration> {
        let posts = self.posts.lock();
        posts.values().filter(|post| post.keyed && !post.answered).map(|post| post.next_try).min()
    }

    /// Events of which no answer came are posted again.
    pub(crate) fn post_again(&mut self, ground: &Ground, at: &Instance) {
        let now = ground.hub.elapsed();
        let is_due = |post: &Post| post.keyed && !post.answered && post.next_try <= now;
        let due: Vec<u64> =
            self.posts.lock().iter().filter(|(_, post)| is_due(post)).map(|(number, _)| *number).collect();
        for number in due {
            self.post(ground, at, number);
        }
    }

    /// A new event; now and then one that was posted before.
    pub(crate) fn event(&mut self, ground: &Ground, at: &Instance) {
        let chance = &ground.hub.chance;
        let known = self.posts.lock().len();
        if known > 0 && chance.happens(0.15) {
            let number = self.posts.lock().iter().filter(|(_, post)| post.keyed).map(|(number, _)| *number).next_back();
            return number.into_iter().for_each(|number| self.post(ground, at, number));
        }
        self.event_of(ground, at, chance.below(ground.setup.students));
    }

    /// A new event of this student.
    pub(crate) fn event_of(&mut self, ground: &Ground, at: &Instance, student: usize) {
        let chance = &ground.hub.chance;
        self.numbered += 1;
        let score = if chance.happens(0.1) { None } else { Some(chance.share()) };
        let post = Post {
            student,
            score,
            overridden: chance.happens(0.25),
            keyed: chance.happens(0.75),
            next_try: Duration::ZERO,
            answered: false,
        };
        self.posts.lock().insert(self.numbered, post);
        self.post(ground, at, self.numbered);
    }

    fn post(&mut self, ground: &Ground, at: &Instance, number: u64) {
        let posts = Arc::clone(&self.posts);
        let post = {
            let mut posts = posts.lock();
            let Some(post) = posts.get_mut(&number) else { return };
            post.next_try = ground.hub.elapsed() + PATIENCE;
            post.clone()
        };
        let (hub, watch, service) = (Arc::clone(&ground.hub), Arc::clone(&ground.watch), Arc::clone(&at.service));
        hub.note(format_args!("event {number} of student-{} to {}", post.student, at.process));
        self.tasks.push(tokio::spawn(async move {
            let body = format!("{} {:?} {}", post.student, post.score, post.overridden);
            let key = format!("event-{number}");
            let event = NewEvent {
                user_id: student(post.student),
                source: if post.score.is_some() { Source::Chat } else { Source::Manual },
                score: post.score.and_then(Score::new),
                message: None,
                occurred_at: None,
                model_version: None,
                emergency_override: post.overridden.then(stated),
                metadata: None,
            };
            let key_given = post.keyed.then_some(IdempotencyInput { key: &key, body: body.as_bytes() });
            let result = service.accept(&caller("backend", "service"), &event, key_given).await;
            hub.note(format_args!("event {number}: {}", word(&result)));
            hub.see(format!("event {}", word(&result)));
            if let Ok(answered) = result {
                watch.event_answered(post.keyed.then_some(key.as_str()), &answered.json);
                if let Some(post) = posts.lock().get_mut(&number) {
                    post.answered = true;
                }
            }
        }));
    }

    /// A student agrees, or takes it back; says which.
    pub(crate) fn consent(&mut self, ground: &Ground, at: &Instance, granted: Option<bool>) -> usize {
        let chance = &ground.hub.chance;
        let student_no = chance.below(ground.setup.students);
        let whatsapp = granted.unwrap_or_else(|| chance.happens(0.5));
        let voice = whatsapp && chance.happens(0.6);
        let sms = whatsapp && chance.happens(0.6) || (granted.is_none() && chance.happens(0.2));
        let (hub, watch, service) = (Arc::clone(&ground.hub), Arc::clone(&ground.watch), Arc::clone(&at.service));
        hub.note(format_args!(
            "student-{student_no} says whatsapp {whatsapp}, sms {sms}, voice {voice} to {}",
            at.process
        ));
        self.tasks.push(tokio::spawn(async move {
            let change = ConsentChange {
                channels: vec![(Channel::Whatsapp, whatsapp), (Channel::Sms, sms), (Channel::Voice, voice)],
                source: "app_settings".parse().expect("a label"),
                notice_version: None,
            };
            let result = service.record_consent(&caller("backend", "service"), &student(student_no), &change).await;
            hub.note(format_args!("student-{student_no}: {}", word(&result)));
            hub.see(format!("consent {}", word(&result)));
            if let Ok(record) = result {
                watch.consent_answered(&record);
            }
        }));
        student_no
    }

    /// A counsellor at the dashboard does something about an alert.
    pub(crate) fn decision(&mut self, ground: &Ground, at: &Instance, deed: Deed) {
        let alerts = ground.memory.alerts();
        if alerts.is_empty() {
            return;
        }
        let id = ground.hub.chance.one_of(&alerts).0.id;
        let (hub, watch, service) = (Arc::clone(&ground.hub), Arc::clone(&ground.watch), Arc::clone(&at.service));
        hub.note(format_args!("{deed:?} {} at {}", &id.to_string()[30..], at.process));
        self.tasks.push(tokio::spawn(async move {
            let result = decide(&service, id, deed).await;
            hub.note(format_args!("{deed:?} {}: {}", &id.to_string()[30..], word(&result)));
            hub.see(format!("{deed:?} {}", word(&result)));
            if let Ok(transition) = result {
                watch.change_answered(&AuditStream::Alert(id), &transition.audit);
            }
        }));
    }

    /// Somebody replies from a phone, or presses a key in a call, perhaps late, perhaps for the second time.
    pub(crate) fn reply(&mut self, ground: &Ground, at: &Instance) {
        if let Some((call, key)) = self.drawn_key(ground) {
            return self.press(ground, at, call, key);
        }
        let Some(reply) = self.drawn_reply(ground) else { return };
        let (hub, service) = (Arc::clone(&ground.hub), Arc::clone(&at.service));
        hub.note(format_args!("reply {} to {}", crate::twilio::short(&reply.message), at.process));
        let memory = ground.memory.clone();
        self.tasks.push(tokio::spawn(async move {
            let result = service.record_reply(&reply).await;
            hub.note(format_args!("reply {}: {}", crate::twilio::short(&reply.message), word(&result)));
            let Ok(said) = result else { return };
            let answer = said.answer;
            hub.see(format!("reply {}", format!("{answer:?}").split('(').next().unwrap_or_default()));
            let Answer::Taken(reference) = answer else { return };
            let taken = memory.alerts().into_iter().any(|(alert, _)| {
                let said = memory.chain(&AuditStream::Alert(alert.id));
                alert.reference == reference
                    && said.iter().any(|entry| entry.canonical.contains(r#""deed":"acknowledged""#))
            });
            hub.require(taken, rule::KEPT, || format!("{reference} is not taken"));
        }));
    }

    /// A key is pressed, and its answer is said: then what it says is stored.
    fn press(&mut self, ground: &Ground, at: &Instance, call: Call, key: Key) {
        let (hub, service, memory) = (Arc::clone(&ground.hub), Arc::clone(&at.service), ground.memory.clone());
        hub.note(format_args!("{key:?} in the call {} to {}", crate::twilio::short(&call.id), at.process));
        self.tasks.push(tokio::spawn(async move {
            let result = service.key_pressed(&call, key).await;
            hub.note(format_args!("{key:?} in the call {}: {}", crate::twilio::short(&call.id), word(&result)));
            let Ok(Said::Answer(_, said)) = result else { return };
            let answer = said.answer;
            hub.see(format!("key {}", format!("{answer:?}").split('(').next().unwrap_or_default()));
            let Answer::Taken(_) = answer else { return };
            let said = memory.chain(&AuditStream::Alert(call.attempt.alert));
            let taken = said.iter().any(|entry| entry.canonical.contains(r#""deed":"acknowledged""#));
            hub.require(taken, rule::KEPT, || format!("{} is not taken", call.attempt.alert));
        }));
    }

    /// A key for one of the latest calls, or one that was pressed before.
    fn drawn_key(&mut self, ground: &Ground) -> Option<(Call, Key)> {
        let chance = &ground.hub.chance;
        if !self.keys.is_empty() && chance.happens(0.2) {
            return Some(chance.one_of(&self.keys).clone());
        }
        let call = ground.exchange.with_messages(|messages| {
            let recent = messages.len().checked_sub(1)? - chance.below(messages.len().min(4));
            let message = Some(&messages[recent]).filter(|message| message.channel == Channel::Voice)?;
            Some(Call { attempt: message.attempt, id: message.id(), to: phone(&message.to) })
        })?;
        let key = chance.weighted(&[(0.7, Key::Take), (0.15, Key::PassOn), (0.15, Key::Other)]);
        self.keys.push((call.clone(), key));
        Some((call, key))
    }

    fn drawn_reply(&mut self, ground: &Ground) -> Option<Reply> {
        let chance = &ground.hub.chance;
        let mut replies = self.replies.lock();
        if !replies.is_empty() && chance.happens(0.3) {
            return Some(chance.one_of(&replies).clone());
        }
        let (id, alert, channel, to) = ground.exchange.with_messages(|messages| {
            let recent = messages.len().checked_sub(1)? - chance.below(messages.len().min(4));
            let message = &messages[recent];
            Some((message.id(), message.attempt.alert, message.channel, message.to.clone()))
        })?;
        let quotes = chance.happens(0.4);
        let hidden = quotes && channel == Channel::Whatsapp && chance.happens(0.3);
        let reference = ground.memory.alert(alert).filter(|_| chance.happens(0.5)).map(|alert| alert.reference);
        self.numbered += 1;
        let reply = Reply {
            message: format!("MM{:032x}", self.numbered).parse().expect("an id of the provider's"),
            channel,
            from: (!hidden).then(|| phone(&to)),
            in_reply_to: quotes.then_some(id),
            ticket: None,
            command: chance.weighted(&[
                (0.7, Command::Take(reference)),
                (0.1, Command::PassOn(reference)),
                (0.1, Command::Done(Outcome::SafeByPhone, reference)),
                (0.1, Command::Other),
            ]),
            words: "words of a reply".into(),
        };
        replies.push(reply.clone());
        Some(reply)
    }

    /// The provider posts a callback; without an answer it is posted again, a few times.
    pub(crate) fn callback(&mut self, ground: &Ground, at: &Instance, callback: Callback) {
        let (hub, exchange, service) = (Arc::clone(&ground.hub), Arc::clone(&ground.exchange), Arc::clone(&at.service));
        self.tasks.push(tokio::spawn(async move {
            let result = service.record_receipt(callback.attempt, &callback.receipt).await;
            let about = callback.attempt.as_ref().map_or_else(|| "?".to_owned(), named);
            let status = callback.receipt.status.word();
            match &result {
                Ok(recorded) => {
                    hub.note(format_args!("receipt {status} for {about}: {recorded:?}"));
                    hub.see(format!("receipt {recorded:?}"));
                }
                Err(_) => {
                    hub.note(format_args!("receipt {status} for {about}: {}", word(&result)));
                    if callback.tries < CALLBACK_TRIES {
                        exchange.post_again(callback);
                    }
                }
            }
        }));
    }
}

/// What a counsellor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Acknowledge,
    Resolve,
    Override,
}

async fn decide(service: &crisis_relay::service::Service, id: AlertId, deed: Deed) -> Result<Transition, ServiceError> {
    let caller = caller("counsellor-1@example.org", "counsellor");
    let alert = service.find(&caller, AlertName::Id(id)).await?;
    match deed {
        Deed::Acknowledge => service.acknowledge(&caller, alert).await,
        Deed::Resolve => service.resolve(&caller, alert, Outcome::SafeByPhone, None, None).await,
        Deed::Override => service.override_withheld(&caller, alert, &stated()).await,
    }
}

fn student(number: usize) -> String {
    format!("student-{number}")
}

fn stated() -> Statement {
    Statement { by: "the doctor on call".to_owned(), reason: "life is at risk".to_owned() }
}
