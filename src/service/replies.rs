//! Replies from phones: whose they are, which case they mean, and what is said back.
//!
//! Twilio posts a reply again where it got no answer, and its signature bears no time: the same signed bytes may come
//! at any later moment. So the id that Twilio gave the message is the key of its answer. The answer is kept in the same
//! commit as the acknowledgement, or by itself where nothing was taken; whoever posts the reply again hears it again,
//! and nothing else happens. It is kept for as long as answers to `Idempotency-Key` are.
//!
//! A reply takes a case of its own phone and channel only. A quote says which case is meant; who replies is said by the
//! number, and by the quote alone only where WhatsApp hides the number.

use jiff::SignedDuration;

use super::people::address_key;
use super::{Along, Changed, Service, ServiceError, TRIES};
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::alert::{AckVia, Alert, AlertState, Input, Outcome, Rejection};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::delivery::Delivery;
use crate::domain::event::{EventDetails, ReplyOrigin};
use crate::domain::ids::{AddressKey, EventId, IdempotencyKey, OrganisationId, ProviderId, Reference};
use crate::domain::reply::{Answer, Command};
use crate::domain::roster::OptOutBy;
use crate::ports::{HashPurpose, IdempotencyRecord, SealedField, StoreError, random};
use crate::secret::Secret;

/// A reply from a phone, as far as the case needs it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Twilio's id of it: the same whenever it is posted again.
    pub message: ProviderId,
    /// How it came. A case is taken over the channel that it was told by: the sender of an SMS can be forged.
    pub channel: Channel,
    /// The number it came from; `None` where WhatsApp hides it.
    pub from: Option<PhoneNumber>,
    /// Our message that it answers, if WhatsApp says so.
    pub in_reply_to: Option<ProviderId>,
    /// What it asks for.
    pub command: Command,
    /// Its text: kept under the student's seal where it asks for nothing, and else not looked at.
    pub words: Secret,
}

/// Which case a reply means.
enum Meant {
    /// This one, which was told to the person who replies.
    Case(Box<Alert>, Actor),
    /// Cases wait for this phone, and it is not clear which is meant. The newest of them.
    Unclear(Option<(Box<Alert>, Actor)>),
    /// None waits; somebody has taken or closed the last that this phone was told of, which is this one.
    Past(Box<Alert>, Actor),
    /// None waits for this phone. Whether it is the phone of somebody who can be told.
    None { is_known: bool },
}

/// A phone, as a college knows it.
type Phone = (OrganisationId, AddressKey);

/// Who replies.
struct Sender {
    phones: Vec<Phone>,
    /// Our message to them that they quote.
    own_quote: Option<(Alert, Delivery)>,
    /// Whether they quote a message of ours that was not sent to them.
    quotes_another: bool,
}

/// What came of a reply that asks for a change.
enum ByReply {
    /// It is durable, and this is the answer that is kept with it.
    Answered(Answer),
    /// It does not fit the case's state.
    Rejected(Rejection),
}

/// For how long after its end words are still about a case.
const WORDS_BELONG_FOR: SignedDuration = SignedDuration::from_hours(24);
/// How many waiting cases of one phone are looked at to find out whether a reply that names none is clear.
const CASES_LOOKED_AT: usize = 1000;

/// The status of every answer to a reply.
const OK: u16 = 200;

impl Service {
    /// A reply from a phone. When this returns `Ok`, whatever it came to is durable, and so is the answer: a reply that
    /// comes again changes nothing and is answered alike.
    pub async fn record_reply(&self, reply: &Reply) -> Result<Answer, ServiceError> {
        let key = self.reply_key(&reply.message);
        if let Some(answer) = self.answer_given(key).await? {
            return Ok(answer);
        }
        if reply.command.is_silent() {
            match reply.command {
                Command::OptOut => self.opted_out(reply).await?,
                Command::OptIn => self.opted_in(reply).await?,
                Command::Take(_)
                | Command::PassOn(_)
                | Command::Done(..)
                | Command::DoneUnclear
                | Command::Keyword
                | Command::Other => {}
            }
            return self.keep_reply(key, Answer::Nothing).await;
        }
        let is_about_a_case = reply.command.is_about_a_case();
        let answer = match self.meant(reply).await? {
            Meant::None { is_known: true } if is_about_a_case => Answer::NoCase,
            Meant::None { .. } => Answer::Nothing,
            Meant::Unclear(_) if is_about_a_case => Answer::WhichOne,
            Meant::Unclear(Some((alert, actor))) => return self.keep_words(*alert, &actor, reply, key).await,
            Meant::Unclear(None) => Answer::Help,
            // Words of long ago are about something else.
            Meant::Case(alert, _) | Meant::Past(alert, _) if !is_about_a_case && self.is_long_past(&alert) => {
                Answer::Nothing
            }
            Meant::Case(alert, actor) | Meant::Past(alert, actor) => {
                return self.do_as_told(*alert, &actor, reply, key).await;
            }
        };
        self.keep_reply(key, answer).await
    }

    async fn do_as_told(
        &self,
        alert: Alert,
        actor: &Actor,
        reply: &Reply,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let answer = match reply.command {
            Command::Take(_) => return self.take(alert, actor, AckVia::Reply, key).await,
            Command::PassOn(_) => return self.pass_on(alert, actor, key).await,
            Command::Done(outcome, _) => return self.done_by_reply(alert, actor, outcome, key).await,
            Command::DoneUnclear if alert.policy.resolve_by_reply => Answer::WhichOutcome,
            Command::DoneUnclear => Answer::CloseOnDashboard(alert.reference),
            Command::Other => return self.keep_words(alert, actor, reply, key).await,
            Command::OptOut | Command::OptIn | Command::Keyword => Answer::Nothing,
        };
        self.keep_reply(key, answer).await
    }

    fn is_long_past(&self, alert: &Alert) -> bool {
        match alert.state {
            AlertState::Resolved { at, .. } => self.clock.now().duration_since(at) > WORDS_BELONG_FOR,
            AlertState::Withheld { .. } | AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => false,
        }
    }

    /// Whoever was told takes the case, however they say so. The answer is kept under `key`, in the same commit.
    pub(super) async fn take(
        &self,
        alert: Alert,
        actor: &Actor,
        via: AckVia,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let taken = Answer::Taken(reference);
        let along = Along { idempotency: Some(self.reply_record(key, taken)), ..Along::default() };
        let answer = match self.change_along(alert, Input::Acknowledge { via }, actor, &along).await {
            Ok(Changed::Made(transition)) => {
                self.acknowledged(&transition, via);
                return Ok(taken);
            }
            Ok(Changed::AnsweredBefore) => return self.answer_of_another(key).await,
            Ok(Changed::Nothing | Changed::ConsentOutdated | Changed::NoPlace) => return Err(ServiceError::Busy),
            // The person may say it twice: then it must not sound as if somebody else had the case.
            Err(ServiceError::Rejected(Rejection::AlreadyAcknowledged)) => {
                let alert = self.load(id).await?;
                if is_taken_by(&alert, actor) {
                    return self.check_in_by_reply(alert, actor, key).await;
                }
                Answer::TakenBefore(reference)
            }
            Err(ServiceError::Rejected(_)) => Answer::Closed(reference),
            Err(error) => return Err(error),
        };
        self.keep_reply(key, answer).await
    }

    /// Who has the case says `1` again: they are on it.
    async fn check_in_by_reply(
        &self,
        alert: Alert,
        actor: &Actor,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let reference = alert.reference;
        let id = alert.id;
        match self.by_reply(alert, Input::CheckIn, actor, key, Answer::CheckedIn(reference), None).await? {
            ByReply::Answered(answer) => {
                tracing::info!(alert = %id, "checked in by a reply");
                Ok(answer)
            }
            // It was handed on or closed meanwhile.
            ByReply::Rejected(Rejection::AlreadyAcknowledged) => {
                self.keep_reply(key, Answer::TakenBefore(reference)).await
            }
            ByReply::Rejected(Rejection::AlreadyResolved) => self.keep_reply(key, Answer::Closed(reference)).await,
            ByReply::Rejected(_) => Err(ServiceError::Busy),
        }
    }

    /// Who has taken a case closes it.
    async fn done_by_reply(
        &self,
        alert: Alert,
        actor: &Actor,
        outcome: Outcome,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let answer = match &alert.state {
            AlertState::Resolved { .. } => Answer::Closed(reference),
            AlertState::Acknowledged { by, .. } if by != actor => Answer::TakenBefore(reference),
            AlertState::Acknowledged { .. } if alert.policy.resolve_by_reply => {
                let closing = Input::Resolve { outcome, note: None, follow_up_at: None };
                match self.by_reply(alert, closing, actor, key, Answer::Done(reference), None).await? {
                    ByReply::Answered(answer) => {
                        tracing::info!(alert = %id, ?outcome, "alert resolved by a reply");
                        return Ok(answer);
                    }
                    ByReply::Rejected(Rejection::AlreadyResolved) => Answer::Closed(reference),
                    ByReply::Rejected(_) => Answer::WhichOutcome,
                }
            }
            AlertState::Acknowledged { .. } => Answer::CloseOnDashboard(reference),
            AlertState::Escalating { .. } | AlertState::Withheld { .. } => Answer::TakeFirst(reference),
        };
        self.keep_reply(key, answer).await
    }

    /// Words that ask for nothing are kept beside the case, under the student's seal: whoever works on it should see them.
    async fn keep_words(
        &self,
        alert: Alert,
        actor: &Actor,
        reply: &Reply,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let (id, reference, channel) = (alert.id, alert.reference, reply.channel);
        let help = waits(&alert);
        let data_key = self.person_data_key_if_any(&alert.organisation, alert.subject.into()).await?;
        let (Some(data_key), Actor::Contact { contact }) = (data_key, actor) else {
            self.words_were_lost(id).await;
            return self.keep_reply(key, if help { Answer::Help } else { Answer::Nothing }).await;
        };
        let now = self.clock.now();
        let details = EventDetails {
            event: EventId::new(now, random(self.entropy.as_ref())),
            received_at: now,
            reply: Some(ReplyOrigin { contact: contact.clone(), channel }),
            message: Some(data_key.seal(SealedField::Message, reply.words.expose())),
            metadata: None,
        };
        let kept = if help { Answer::KeptAndHelp } else { Answer::Kept(reference) };
        match self.by_reply(alert, Input::Replied { channel }, actor, key, kept, Some(details)).await? {
            ByReply::Answered(answer) => {
                tracing::info!(alert = %id, "words of a reply are kept");
                Ok(answer)
            }
            // A machine may be answering us: it is not talked to for ever.
            ByReply::Rejected(_) => self.keep_reply(key, Answer::Nothing).await,
        }
    }

    /// Commits what a reply asks for, and the answer with it.
    async fn by_reply(
        &self,
        alert: Alert,
        input: Input,
        actor: &Actor,
        key: IdempotencyKey,
        answer: Answer,
        event: Option<EventDetails>,
    ) -> Result<ByReply, ServiceError> {
        let along = Along { idempotency: Some(self.reply_record(key, answer)), event, ..Along::default() };
        match self.change_along(alert, input, actor, &along).await {
            Ok(Changed::Made(_)) => Ok(ByReply::Answered(answer)),
            Ok(Changed::AnsweredBefore) => Ok(ByReply::Answered(self.answer_of_another(key).await?)),
            Ok(Changed::Nothing | Changed::ConsentOutdated | Changed::NoPlace) => Err(ServiceError::Busy),
            Err(ServiceError::Rejected(rejection)) => Ok(ByReply::Rejected(rejection)),
            Err(error) => Err(error),
        }
    }

    /// The next person is told at once, on the ground as it stands now. The answer is kept as in [`Self::take`].
    pub(super) async fn pass_on(
        &self,
        alert: Alert,
        actor: &Actor,
        key: IdempotencyKey,
    ) -> Result<Answer, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let passed = Answer::PassedOn(reference);
        let mut alert = alert;
        for _ in 0..TRIES {
            let judged = self.judge(alert).await?;
            let idempotency = Some(self.reply_record(key, passed));
            let along = Along { idempotency, consent_version: judged.consent_version, ..Along::default() };
            let answer = match self.change_along(judged.alert, Input::PassOn, actor, &along).await {
                Ok(Changed::Made(_)) => {
                    tracing::info!(alert = %id, "passed on");
                    return Ok(passed);
                }
                Ok(Changed::AnsweredBefore) => return self.answer_of_another(key).await,
                Ok(Changed::Nothing | Changed::NoPlace) => return Err(ServiceError::Busy),
                // The student has spoken since.
                Ok(Changed::ConsentOutdated) => {
                    alert = self.load(id).await?;
                    continue;
                }
                Err(ServiceError::Rejected(Rejection::AlreadyAcknowledged)) => Answer::TakenBefore(reference),
                Err(ServiceError::Rejected(Rejection::NobodyElse)) => {
                    self.alarms.raise(Kind::NobodyToPassTo, About::Case(id, reference));
                    Answer::NobodyElse(reference)
                }
                Err(ServiceError::Rejected(_)) => Answer::Closed(reference),
                Err(error) => return Err(error),
            };
            return self.keep_reply(key, answer).await;
        }
        Err(ServiceError::Busy)
    }

    /// A phone takes our messages again.
    async fn opted_in(&self, reply: &Reply) -> Result<(), ServiceError> {
        for (organisation, address) in &self.sender(reply).await?.phones {
            self.opt_in(organisation, reply.channel, *address).await?;
        }
        Ok(())
    }

    /// A phone has opted out, and Twilio will block whatever is sent to it: an alarm for the operator if it is a contact's,
    /// and nothing is planned for it any more if it is of the roster.
    async fn opted_out(&self, reply: &Reply) -> Result<(), ServiceError> {
        let sender = self.sender(reply).await?;
        for (organisation, address) in &sender.phones {
            let live = self.live(organisation)?;
            self.opt_out(organisation, reply.channel, *address, OptOutBy::Reply).await?;
            let Some(contact) = live.directory.contact_at(reply.channel, *address) else { continue };
            let phone = [(organisation.clone(), *address)];
            let waiting = self.waiting(&phone, reply.channel, None).await?;
            let alerts: Vec<String> = waiting.iter().map(|(alert, _)| alert.id.to_string()).collect();
            let kind = Kind::ContactOptedOut;
            tracing::error!(contact = %contact.id, alerts = ?alerts, alarm = kind.name(), "operator alarm");
            self.alarms.raise_unlogged(kind, About::Contact(contact.id.clone()));
        }
        Ok(())
    }

    // -- which case -------------------------------------------------------------------------------------------------

    /// The quoted message's case first, unless the text names another; then number and reference; then the number
    /// alone, if one case waits. A code that was typed counts for more than a message that was tapped, if that case was
    /// told to the same phone.
    async fn meant(&self, reply: &Reply) -> Result<Meant, ServiceError> {
        let typed = reply.command.reference();
        let Sender { phones, own_quote, quotes_another } = self.sender(reply).await?;
        if let Some((alert, delivery)) = &own_quote
            && typed.is_none_or(|typed| typed == alert.reference)
        {
            return Ok(Meant::Case(Box::new(alert.clone()), recipient(delivery)));
        }
        let mut cases = self.waiting(&phones, reply.channel, typed).await?;
        let quoted_waits = own_quote.is_some_and(|(alert, _)| waits(&alert));
        if typed.is_none() && quotes_another && !cases.is_empty() {
            // They point at a message that was not sent to them: whatever they mean, it is not clear.
            return Ok(Meant::Unclear(newest(cases)));
        }
        if cases.len() > 1 {
            return Ok(Meant::Unclear(newest(cases)));
        }
        Ok(match cases.pop() {
            Some((alert, actor)) => Meant::Case(Box::new(alert), actor),
            None if quoted_waits => Meant::Unclear(None),
            None if typed.is_none() => self.past(&phones, reply.channel).await?,
            None => Meant::None { is_known: self.knows(&phones, reply.channel) },
        })
    }

    /// The last case that this phone was told of and that somebody took or closed.
    async fn past(&self, phones: &[Phone], channel: Channel) -> Result<Meant, ServiceError> {
        for (organisation, address) in phones {
            let Some(alert) = self.store.last_case_of(organisation, *address).await? else { continue };
            if let Some(actor) = told_by(&alert, *address, channel) {
                return Ok(Meant::Past(Box::new(alert), actor));
            }
        }
        Ok(Meant::None { is_known: self.knows(phones, channel) })
    }

    /// Whether somebody who can be told has this phone.
    fn knows(&self, phones: &[Phone], channel: Channel) -> bool {
        phones.iter().any(|(organisation, address)| {
            self.live(organisation).is_ok_and(|live| live.directory.contact_at(channel, *address).is_some())
        })
    }

    async fn sender(&self, reply: &Reply) -> Result<Sender, ServiceError> {
        let quoted = self.quoted(reply).await?;
        let is_quoted = quoted.is_some();
        let own_quote = quoted.filter(|(alert, delivery)| self.is_theirs(reply, alert, delivery));
        let phones = match (&reply.from, &own_quote) {
            (Some(number), _) => self.phones(number),
            (None, Some((alert, delivery))) => vec![(alert.organisation.clone(), delivery.address_key)],
            (None, None) => Vec::new(),
        };
        Ok(Sender { phones, quotes_another: is_quoted && own_quote.is_none(), own_quote })
    }

    /// The message of ours that a reply quotes.
    async fn quoted(&self, reply: &Reply) -> Result<Option<(Alert, Delivery)>, ServiceError> {
        let Some(message) = &reply.in_reply_to else { return Ok(None) };
        let Some(alert) = self.store.alert_of_message(message).await? else { return Ok(None) };
        let of_it = |delivery: &&Delivery| {
            delivery.attempts.iter().any(|attempt| attempt.provider_id.as_ref() == Some(message))
        };
        let delivery = alert.deliveries.iter().find(of_it).cloned();
        Ok(delivery.map(|delivery| (alert, delivery)))
    }

    /// Whether a message was sent to the phone that now replies, and over the same channel.
    fn is_theirs(&self, reply: &Reply, alert: &Alert, delivery: &Delivery) -> bool {
        let same_phone = match &reply.from {
            Some(number) => address_key(self.keyring.as_ref(), &alert.organisation, number) == delivery.address_key,
            // Only WhatsApp hides numbers, and only there a quote is the provider's word.
            None => reply.channel == Channel::Whatsapp,
        };
        same_phone && delivery.channel == reply.channel
    }

    fn phones(&self, number: &PhoneNumber) -> Vec<Phone> {
        let known = |id: &OrganisationId| (id.clone(), address_key(self.keyring.as_ref(), id, number));
        self.organisations.iter().map(|organisation| known(&organisation.id)).collect()
    }

    /// The cases that wait and were told to one of these phones over this channel, newest first; of one reference, where it
    /// is typed: that one is found however many others wait, and whatever has become of it.
    async fn waiting(
        &self,
        phones: &[Phone],
        channel: Channel,
        typed: Option<Reference>,
    ) -> Result<Vec<(Alert, Actor)>, ServiceError> {
        let mut cases = Vec::new();
        for (organisation, address) in phones {
            let alerts = match typed {
                Some(reference) => self.store.alert_by_reference(organisation, reference).await?.into_iter().collect(),
                None => self.store.escalating_alerts_of(organisation, *address, CASES_LOOKED_AT).await?,
            };
            for alert in alerts {
                if let Some(actor) = told_by(&alert, *address, channel) {
                    cases.push((alert, actor));
                }
            }
        }
        Ok(cases)
    }

    // -- answers that are kept --------------------------------------------------------------------------------------

    fn reply_key(&self, message: &ProviderId) -> IdempotencyKey {
        let parts = [b"incoming".as_slice(), message.as_str().as_bytes()];
        IdempotencyKey::from_bytes(self.keyring.hash(HashPurpose::Idempotency, &parts))
    }

    fn reply_record(&self, key: IdempotencyKey, answer: Answer) -> IdempotencyRecord {
        IdempotencyRecord {
            key,
            // Twilio's id names one message for ever: there is no other body to tell it from.
            body: *key.as_bytes(),
            status: OK,
            answer: serde_json::to_string(&answer).unwrap_or_default(),
            created_at: self.clock.now(),
        }
    }

    pub(super) async fn answer_given(&self, key: IdempotencyKey) -> Result<Option<Answer>, ServiceError> {
        let Some(record) = self.store.answer(key).await? else { return Ok(None) };
        let unreadable = |_| StoreError::Corrupt { what: "the kept answer to a reply".to_owned() };
        Ok(Some(serde_json::from_str(&record.answer).map_err(unreadable)?))
    }

    /// Keeps the answer of a reply that took nothing.
    async fn keep_reply(&self, key: IdempotencyKey, answer: Answer) -> Result<Answer, ServiceError> {
        if self.store.keep_answer(self.reply_record(key, answer)).await? {
            return Ok(answer);
        }
        self.answer_of_another(key).await
    }

    /// The same reply is being answered by somebody else: what they say holds.
    async fn answer_of_another(&self, key: IdempotencyKey) -> Result<Answer, ServiceError> {
        self.answer_given(key).await?.ok_or(ServiceError::Busy)
    }
}

fn waits(alert: &Alert) -> bool {
    matches!(alert.state, AlertState::Escalating { .. })
}

/// Whose phone this is, if the case was told to it over this channel.
fn told_by(alert: &Alert, address: AddressKey, channel: Channel) -> Option<Actor> {
    let told = |delivery: &&Delivery| delivery.address_key == address && delivery.channel == channel;
    alert.deliveries.iter().find(told).map(recipient)
}

/// Cases come newest first.
fn newest(cases: Vec<(Alert, Actor)>) -> Option<(Box<Alert>, Actor)> {
    cases.into_iter().next().map(|(alert, actor)| (Box::new(alert), actor))
}

pub(super) fn is_taken_by(alert: &Alert, actor: &Actor) -> bool {
    matches!(&alert.state, AlertState::Acknowledged { by, .. } if by == actor)
}

pub(super) fn recipient(delivery: &Delivery) -> Actor {
    Actor::Contact { contact: delivery.contact.clone() }
}
