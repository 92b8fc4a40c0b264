//! Replies from phones: whose they are, which case they mean, and what is said back.
//!
//! Twilio posts a reply again where it got no answer, and its signature bears no time: the same signed bytes may come
//! at any later moment. So the id that Twilio gave the message is the key of its answer. The answer is kept in the same
//! commit as the acknowledgement, or by itself where nothing was taken; whoever posts the reply again hears it again,
//! and nothing else happens. It is kept for as long as answers to `Idempotency-Key` are.
//!
//! A reply is about a case that its own phone was told of, over that channel. A button's ticket, a quote or a reference says
//! which; without any it must be clear (`meant_by`), else the phone is asked. Who replies is said by the number, and by the
//! ticket or quote alone only where WhatsApp hides the number: whoever has that number now, not whoever had it when it was
//! told. An answer that lets somebody go names the live cases that wait for the same phone still.

use jiff::SignedDuration;

use super::people::address_key;
use super::{Along, Changed, Service, ServiceError, TRIES};
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::alert::{self, AckVia, Alert, AlertState, Facts, Input, Outcome, Rejection, TakenBy, ToldAgain};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::delivery::{Delivery, Disclosed};
use crate::domain::event::{EventDetails, ReplyOrigin};
use crate::domain::ids::{
    AddressKey, AlertId, ContactId, EventId, IdempotencyKey, OrganisationId, ProviderId, Reference,
};
use crate::domain::message::{Composed, Purpose};
use crate::domain::reply::{self, Answer, Command, Note, Said};
use crate::domain::roster::OptOutBy;
use crate::domain::tap::Ticket;
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
    /// Our message under which the button stands that was tapped, if its id says so.
    pub ticket: Option<Ticket>,
    /// What it asks for.
    pub command: Command,
    /// Its text: kept under the student's seal where it asks for nothing, and else not looked at.
    pub words: Secret,
}

/// Which case a reply means.
enum Meant {
    /// This one.
    Case(Box<Case>),
    /// Cases are open for this phone, and it is not clear which is meant. Their references, the newest first.
    Unclear(Vec<Reference>),
    /// Whoever replies is an emergency contact, who was asked to call the desk about this one.
    Outside(Box<Alert>, Actor),
    /// None is open for this phone. Whether it is the phone of somebody who can be told.
    None { is_known: bool },
    /// WhatsApp hides the number, and neither a ticket nor a quote says whose it is.
    Hidden,
}

/// A case that a phone was told of.
struct Case {
    alert: Alert,
    /// Who has the phone now; where nobody has, who had it when it was told.
    actor: Actor,
    /// Whether somebody has it now.
    is_theirs: bool,
    /// Whether the phone waits for a drill, too, which it might be thought to mean.
    beside_drill: bool,
    /// The other live cases that wait for the phone, newest first, as far as they have been looked for.
    others: Vec<Reference>,
    /// The phone, as each college knows it.
    phones: Vec<Phone>,
}

impl Case {
    fn is_live(&self) -> bool {
        matches!(self.alert.kind, alert::Kind::Live)
    }

    fn is_held(&self) -> bool {
        is_taken_by(&self.alert, &self.actor)
    }

    /// Whether whoever has it was asked for a sign, and has not given one.
    fn awaits_sign(&self) -> bool {
        matches!(self.alert.state, AlertState::Acknowledged { reminded_at: Some(_), .. }) && self.is_held()
    }
}

/// A phone, as a college knows it.
pub(super) type Phone = (OrganisationId, AddressKey);

/// Who replies.
struct Sender {
    phones: Vec<Phone>,
    /// The case of a message of ours to them that they tapped or quote.
    own_quote: Option<Alert>,
    /// Whether they tapped or quote a message of ours that was not sent to them.
    quotes_another: bool,
}

impl Sender {
    /// Whether nobody can say who it is.
    fn is_hidden(&self, reply: &Reply) -> bool {
        reply.channel == Channel::Whatsapp && self.phones.is_empty()
    }
}

/// Under which key an answer is kept, and what is said beside it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) key: IdempotencyKey,
    pub(super) note: Option<Note>,
    /// The other live cases that wait for the phone.
    pub(super) others: Vec<Reference>,
    /// Where those are looked for, once it is known that the answer lets somebody go.
    pub(super) phones: Option<(Vec<Phone>, Channel)>,
}

impl Kept {
    /// An answer to a phone of which nothing else is known.
    pub(super) const fn alone(key: IdempotencyKey, note: Option<Note>) -> Self {
        Self { key, note, others: Vec::new(), phones: None }
    }

    pub(super) fn said(&self, answer: Answer) -> Said {
        Said::about(answer, self.note, &self.others)
    }
}

/// What came of a reply that asks for a change.
enum ByReply {
    /// It is durable, and this is the answer that is kept with it.
    Answered(Said),
    /// It does not fit the case's state.
    Rejected(Rejection),
    /// The student has spoken since.
    Outdated,
}

/// What is committed beside what a reply asks for.
#[derive(Default)]
struct Beside {
    /// Its words.
    event: Option<EventDetails>,
    /// The version of the student's record that the answer rests on, if it does.
    consent_version: Option<u64>,
}

/// What is said to words: that they are kept, or, where they cannot be, something else.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    kept: Answer,
    lost: Answer,
    told_again: Option<(ToldAgain, u64)>,
}

impl Answers {
    fn to_team(alert: &Alert) -> Self {
        let reference = alert.reference;
        let (kept, lost) = match alert.state {
            AlertState::Escalating { .. } => (Answer::KeptAndWaits(reference), Answer::Help),
            AlertState::Acknowledged { .. } | AlertState::Withheld { .. } => (Answer::Kept(reference), Answer::Nothing),
            AlertState::Resolved { .. } => (Answer::KeptAfterEnd(reference), Answer::Closed(reference)),
        };
        Self { kept, lost, told_again: None }
    }

    /// Their words are kept, and nobody hears anything.
    pub(super) const fn silent() -> Self {
        Self { kept: Answer::Nothing, lost: Answer::Nothing, told_again: None }
    }

    /// An emergency contact hears once more whom to call; where that cannot be recorded, nothing. `version` is that of the
    /// student's record that was read.
    fn call_the_desk(alert: AlertId, told_again: ToldAgain, version: u64) -> Self {
        let (delivery, text_sha256) = (told_again.delivery, told_again.disclosed.text_sha256.clone());
        let kept = Answer::CallTheDesk { alert, delivery, text_sha256 };
        Self { kept, lost: Answer::Nothing, told_again: Some((told_again, version)) }
    }
}

/// For how long after its end words are still about a case.
const WORDS_BELONG_FOR: SignedDuration = SignedDuration::from_hours(24);
/// How many open cases of one phone are looked at to find out whether a reply that names none is clear.
const CASES_LOOKED_AT: usize = 1000;

/// The status of every answer to a reply.
const OK: u16 = 200;

impl Service {
    /// A reply from a phone. When this returns `Ok`, whatever it came to is durable, and so is the answer: a reply that
    /// comes again changes nothing and is answered alike.
    pub async fn record_reply(&self, reply: &Reply) -> Result<Said, ServiceError> {
        let key = self.reply_key(&reply.message);
        if let Some(said) = self.answer_given(key).await? {
            return Ok(said);
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
            let is_in_vain =
                matches!(reply.command, Command::OptOut | Command::OptIn) && self.sender(reply).await?.is_hidden(reply);
            let said = if is_in_vain { Answer::WhoStops } else { Answer::Nothing };
            return self.keep_reply(key, said.into()).await;
        }
        let is_about_a_case = reply.command.is_about_a_case();
        let said = match self.meant(reply).await? {
            Meant::Outside(alert, _) if self.is_long_past(&alert) => Said::from(Answer::Nothing),
            // Whatever they write takes, hands on and closes nothing.
            Meant::Outside(alert, actor) => {
                let answers = self.told_again(&alert, &actor, reply.channel).await?;
                let words = (reply.channel, reply.words.expose());
                return self.keep_words(*alert, &actor, words, Kept::alone(key, None), answers).await;
            }
            Meant::Hidden => {
                tracing::warn!("a reply from a hidden number tells no message that it answers: nothing was done");
                // Other words are not answered: whoever it is may be a machine, too.
                if is_about_a_case { Answer::WhoIsIt } else { Answer::Nothing }.into()
            }
            Meant::None { is_known: true } if is_about_a_case => Said::from(Answer::NoCase),
            Meant::None { .. } => Said::from(Answer::Nothing),
            Meant::Unclear(references) if is_about_a_case => Said::from(Answer::WhichOf(references)),
            Meant::Unclear(references) => Said::from(Answer::WhoseWords(references)),
            Meant::Case(case) => {
                let note = match case.alert.kind {
                    alert::Kind::Drill => Some(Note::Drill),
                    alert::Kind::Live => case.beside_drill.then_some(Note::NotTheDrill),
                };
                let others = case.others.clone();
                let under = Kept { key, note, others, phones: Some((case.phones.clone(), reply.channel)) };
                return self.answer_about(*case, reply, under).await;
            }
        };
        self.keep_reply(key, said).await
    }

    async fn answer_about(&self, case: Case, reply: &Reply, under: Kept) -> Result<Said, ServiceError> {
        let Case { alert, actor, is_theirs, .. } = case;
        let asks = reply.command.is_about_a_case();
        let answer = match reply.command {
            // Words of long ago are about something else.
            Command::Other if self.is_long_past(&alert) => Answer::Nothing,
            Command::Other => {
                let answers = Answers::to_team(&alert);
                return self.keep_words(alert, &actor, (reply.channel, reply.words.expose()), under, answers).await;
            }
            // The phone may be lost, or its owner gone: the case goes on to others.
            _ if asks && !is_theirs && alert.state.hears_phones() => {
                tracing::warn!(alert = %alert.id, "a reply from a number that nobody has any more was not heeded");
                Answer::NotSetUp(alert.reference)
            }
            _ if asks && matches!(alert.state, AlertState::Withheld { .. }) => Answer::Withheld(alert.reference),
            Command::Take(_) => return self.take(alert, &actor, AckVia::Reply, under).await,
            Command::PassOn(_) => return self.pass_on(alert, &actor, under).await,
            Command::Done(outcome, _) => return self.done_by_reply(alert, &actor, outcome, under).await,
            Command::DoneUnclear if !alert.state.hears_phones() => Answer::Closed(alert.reference),
            Command::DoneUnclear if alert.policy.resolve_by_reply => Answer::WhichOutcome,
            Command::DoneUnclear => Answer::CloseOnDashboard(alert.reference),
            Command::OptOut | Command::OptIn | Command::Keyword => Answer::Nothing,
        };
        self.keep_reply(under.key, under.said(answer)).await
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
        under: Kept,
    ) -> Result<Said, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let taken = under.said(Answer::Taken(reference));
        let along = Along { idempotency: Some(self.reply_record(under.key, &taken)), ..Along::default() };
        let answer = match self.change_along(alert, Input::Acknowledge { via }, actor, &along).await {
            Ok(Changed::Made(transition)) => {
                self.acknowledged(&transition, via);
                return Ok(taken);
            }
            Ok(Changed::AnsweredBefore) => return self.answer_of_another(under.key).await,
            Ok(Changed::Nothing | Changed::ConsentOutdated | Changed::NoPlace) => return Err(ServiceError::Busy),
            // The person may say it twice: then it must not sound as if somebody else had the case.
            Err(ServiceError::Rejected(Rejection::AlreadyAcknowledged)) => {
                let alert = self.load(id).await?;
                if is_taken_by(&alert, actor) {
                    return self.check_in_by_reply(alert, actor, under).await;
                }
                Answer::TakenBefore(reference)
            }
            Err(ServiceError::Rejected(Rejection::IsWithheld)) => Answer::Withheld(reference),
            Err(ServiceError::Rejected(_)) => Answer::Closed(reference),
            Err(error) => return Err(error),
        };
        self.too_late(id, answer, under).await
    }

    /// Who has the case says `1` again: they are on it.
    async fn check_in_by_reply(&self, alert: Alert, actor: &Actor, under: Kept) -> Result<Said, ServiceError> {
        let reference = alert.reference;
        let id = alert.id;
        match self
            .by_reply(alert, Input::CheckIn, actor, &under, Answer::CheckedIn(reference), Beside::default())
            .await?
        {
            ByReply::Answered(said) => {
                tracing::info!(alert = %id, "checked in by a reply");
                Ok(said)
            }
            // It was handed on or closed meanwhile.
            ByReply::Rejected(Rejection::AlreadyAcknowledged) => {
                self.too_late(id, Answer::TakenBefore(reference), under).await
            }
            ByReply::Rejected(Rejection::AlreadyResolved) => self.too_late(id, Answer::Closed(reference), under).await,
            ByReply::Rejected(_) | ByReply::Outdated => Err(ServiceError::Busy),
        }
    }

    /// Who has taken a case closes it.
    async fn done_by_reply(
        &self,
        alert: Alert,
        actor: &Actor,
        outcome: Outcome,
        under: Kept,
    ) -> Result<Said, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let answer = match &alert.state {
            AlertState::Resolved { .. } => Answer::Closed(reference),
            AlertState::Acknowledged { by, .. } if by != actor => Answer::TakenBefore(reference),
            AlertState::Acknowledged { .. } if alert.policy.resolve_by_reply => {
                let closing = Input::Resolve { outcome, note: None, follow_up_at: None };
                match self.by_reply(alert, closing, actor, &under, Answer::Done(reference), Beside::default()).await? {
                    ByReply::Answered(said) => {
                        tracing::info!(alert = %id, ?outcome, "alert resolved by a reply");
                        return Ok(said);
                    }
                    ByReply::Rejected(Rejection::AlreadyResolved) => Answer::Closed(reference),
                    ByReply::Rejected(_) | ByReply::Outdated => Answer::WhichOutcome,
                }
            }
            AlertState::Acknowledged { .. } => Answer::CloseOnDashboard(reference),
            AlertState::Escalating { .. } | AlertState::Withheld { .. } => Answer::TakeFirst(reference),
        };
        self.keep_reply(under.key, under.said(answer)).await
    }

    /// Words that ask for nothing are kept beside the case, under the student's seal: whoever works on it should see them.
    pub(super) async fn keep_words(
        &self,
        alert: Alert,
        actor: &Actor,
        (channel, words): (Channel, &str),
        under: Kept,
        answers: Answers,
    ) -> Result<Said, ServiceError> {
        let id = alert.id;
        let data_key = self.person_data_key_if_any(&alert.organisation, alert.subject.into()).await?;
        let (Some(data_key), Actor::Contact { contact }) = (data_key, actor) else {
            self.words_were_lost(id).await;
            return self.keep_reply(under.key, under.said(answers.lost)).await;
        };
        let now = self.clock.now();
        let details = EventDetails {
            event: EventId::new(now, random(self.entropy.as_ref())),
            received_at: now,
            reply: Some(ReplyOrigin { contact: contact.clone(), channel }),
            message: Some(data_key.seal(SealedField::Message, words)),
            metadata: None,
        };
        let (told_again, version) = answers.told_again.unzip();
        let outside = told_again.is_some();
        let input = Input::Replied { channel, told_again };
        let beside = Beside { event: Some(details), consent_version: version };
        match self.by_reply(alert, input, actor, &under, answers.kept, beside).await? {
            ByReply::Answered(said) => {
                tracing::info!(alert = %id, "words of a reply are kept");
                Ok(said)
            }
            // The case or the student's word is another one since: the words are kept, and nothing is said.
            ByReply::Outdated | ByReply::Rejected(Rejection::NoSuchEmergencyContact) if outside => {
                let alert = self.load(id).await?;
                Box::pin(self.keep_words(alert, actor, (channel, words), under, Answers::silent())).await
            }
            ByReply::Outdated => Err(ServiceError::Busy),
            // A machine may be answering us: it is not talked to for ever.
            ByReply::Rejected(_) => self.keep_reply(under.key, Answer::Nothing.into()).await,
        }
    }

    /// Commits what a reply asks for, and the answer with it.
    async fn by_reply(
        &self,
        alert: Alert,
        input: Input,
        actor: &Actor,
        under: &Kept,
        answer: Answer,
        beside: Beside,
    ) -> Result<ByReply, ServiceError> {
        let said = under.said(answer);
        let Beside { event, consent_version } = beside;
        let idempotency = Some(self.reply_record(under.key, &said));
        let along = Along { idempotency, event, consent_version, ..Along::default() };
        match self.change_along(alert, input, actor, &along).await {
            Ok(Changed::Made(_)) => Ok(ByReply::Answered(said)),
            Ok(Changed::AnsweredBefore) => Ok(ByReply::Answered(self.answer_of_another(under.key).await?)),
            Ok(Changed::ConsentOutdated) => Ok(ByReply::Outdated),
            Ok(Changed::Nothing | Changed::NoPlace) => Err(ServiceError::Busy),
            Err(ServiceError::Rejected(rejection)) => Ok(ByReply::Rejected(rejection)),
            Err(error) => Err(error),
        }
    }

    /// The next person is told at once, on the ground as it stands now. The answer is kept as in [`Self::take`].
    pub(super) async fn pass_on(&self, alert: Alert, actor: &Actor, under: Kept) -> Result<Said, ServiceError> {
        let (id, reference) = (alert.id, alert.reference);
        let passed = under.said(Answer::PassedOn(reference));
        let mut alert = alert;
        for _ in 0..TRIES {
            let judged = self.judge(alert).await?;
            let idempotency = Some(self.reply_record(under.key, &passed));
            let along = Along { idempotency, consent_version: judged.consent_version, ..Along::default() };
            let answer = match self.change_along(judged.alert, Input::PassOn, actor, &along).await {
                Ok(Changed::Made(_)) => {
                    tracing::info!(alert = %id, "passed on");
                    return Ok(passed);
                }
                Ok(Changed::AnsweredBefore) => return self.answer_of_another(under.key).await,
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
                Err(ServiceError::Rejected(Rejection::IsWithheld)) => Answer::Withheld(reference),
                Err(ServiceError::Rejected(_)) => Answer::Closed(reference),
                Err(error) => return Err(error),
            };
            return self.keep_reply(under.key, under.said(answer)).await;
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
        if sender.is_hidden(reply) {
            tracing::warn!("STOP from a hidden number that answers no message of ours: nobody knows whose phone it is");
        }
        for (organisation, address) in &sender.phones {
            let known =
                self.live(organisation)?.directory.contact_at(reply.channel, *address).map(|known| known.id.clone());
            self.opt_out(organisation, reply.channel, *address, OptOutBy::Reply).await?;
            // Somebody whom students may have named. Over WhatsApp nobody but we keeps such a list, and no number is forged; text
            // messages Twilio itself stops, so that there those count who were told of a case, or sent a code lately.
            let is_outside = reply.channel == Channel::Whatsapp
                || self.told_outside(organisation, *address, reply.channel).await?.is_some()
                || self.was_sent_a_code(organisation, *address).await?;
            if is_outside {
                self.opt_out_outside(organisation, reply.channel, *address, OptOutBy::Reply).await?;
            }
            // Where another instance has set them up a moment ago, they are known since the roster was changed.
            let live = self.live(organisation)?;
            let of_roster = live.roster.contact_at(reply.channel, *address).filter(|contact| contact.active);
            let Some(contact) = known.or_else(|| of_roster.map(|contact| contact.id.clone())) else { continue };
            let phone = [(organisation.clone(), *address)];
            let mut open = self.open_for(&phone, reply.channel).await?;
            open.retain(|case| waits(&case.alert));
            let alerts: Vec<String> = open.iter().map(|case| case.alert.id.to_string()).collect();
            let kind = Kind::ContactOptedOut;
            tracing::error!(contact = %contact, alerts = ?alerts, alarm = kind.name(), "operator alarm");
            self.alarms.raise_unlogged(kind, About::Contact(contact));
        }
        Ok(())
    }

    // -- which case -------------------------------------------------------------------------------------------------

    /// The case of the message that was tapped or quoted first, unless the text names another; then number and reference;
    /// then the number alone, if it is clear. A code that was typed counts for more than a message that was quoted, if that
    /// case was told to the same phone.
    async fn meant(&self, reply: &Reply) -> Result<Meant, ServiceError> {
        let sender = self.sender(reply).await?;
        if sender.is_hidden(reply) {
            return Ok(Meant::Hidden);
        }
        let Sender { phones, own_quote, quotes_another } = sender;
        let typed = reply.command.reference();
        if let Some(alert) = &own_quote
            && typed.is_none_or(|typed| typed == alert.reference)
            && let Some(case) = self.told_to(alert, &phones, reply.channel).await?
        {
            return self.quoted_case(case, reply, &phones).await;
        }
        if let Some(outside) = own_quote.as_ref().and_then(|alert| outside_of(alert, &phones, reply.channel)) {
            return Ok(outside);
        }
        if let Some(typed) = typed {
            if let Some(case) = self.named(typed, &phones, reply.channel).await? {
                return self.beside(case, reply.command, &phones, reply.channel).await;
            }
            if let Some(outside) = self.outside(&phones, reply.channel).await? {
                return Ok(outside);
            }
            return Ok(match own_quote.filter(waits) {
                Some(alert) => Meant::Unclear(vec![alert.reference]),
                None => Meant::None { is_known: self.knows(&phones, reply.channel) },
            });
        }
        let open = self.open_for(&phones, reply.channel).await?;
        if reply.command == Command::Other
            && let Some(typed) = reply::leading_reference(reply.words.expose())
            && open.iter().any(|case| case.alert.reference == typed)
        {
            let named = open.into_iter().find(|case| case.alert.reference == typed);
            return Ok(named.map_or(Meant::None { is_known: true }, |case| Meant::Case(Box::new(case))));
        }
        let fits = meant_by(reply.command, &open);
        // Where they point at a message that was not sent to them, it is not clear, however few there are.
        if fits.len() > 1 || (quotes_another && !fits.is_empty()) {
            return Ok(Meant::Unclear(fits.iter().map(|case| case.alert.reference).collect()));
        }
        match fits.first().map(|case| (case.alert.id, case.is_live())) {
            Some((id, is_live)) => {
                let beside_drill = is_live && open.iter().any(|case| !case.is_live() && waits(&case.alert));
                let others = waiting_beside(id, &open);
                let case = open.into_iter().find(|case| case.alert.id == id);
                Ok(case.map_or(Meant::None { is_known: true }, |case| {
                    Meant::Case(Box::new(Case { beside_drill, others, ..case }))
                }))
            }
            None => {
                let past = self.past(&phones, reply.channel).await?;
                let outside = match past {
                    Meant::None { .. } => self.outside(&phones, reply.channel).await?,
                    Meant::Case(_) | Meant::Unclear(_) | Meant::Outside(..) | Meant::Hidden => None,
                };
                Ok(outside.unwrap_or(past))
            }
        }
    }

    /// The last case of which this phone was told as an emergency contact's.
    async fn outside(&self, phones: &[Phone], channel: Channel) -> Result<Option<Meant>, ServiceError> {
        for (organisation, address) in phones {
            if let Some((alert, delivery)) = self.told_outside(organisation, *address, channel).await?
                && delivery.is_out()
            {
                return Ok(Some(Meant::Outside(Box::new(alert), recipient(&delivery))));
            }
        }
        Ok(None)
    }

    /// What an emergency contact who was told hears in answer: the same once more, in their language, unless the student's
    /// word, which is asked again, stands against it.
    async fn told_again(&self, alert: &Alert, actor: &Actor, channel: Channel) -> Result<Answers, ServiceError> {
        let Actor::Contact { contact } = actor else { return Ok(Answers::silent()) };
        let told = |delivery: &&Delivery| {
            let is_theirs = delivery.contact == *contact && delivery.channel == channel;
            is_theirs && delivery.purpose == Purpose::EmergencyContact && delivery.is_out()
        };
        let Some(delivery) = alert.deliveries.iter().rfind(told) else { return Ok(Answers::silent()) };
        // As for the message itself: a decision stands until the case is closed, the policy's word until somebody has it.
        if !alert.wants(delivery) {
            return Ok(Answers::silent());
        }
        let known = self.disclosures(alert).await?;
        let message = known.may_disclose(delivery).ok().map(|_| self.in_answer(alert, delivery)).transpose()?.flatten();
        Ok(message.map_or(Answers::silent(), |message| {
            let told_again = ToldAgain { delivery: delivery.no, disclosed: Disclosed::of(&message) };
            Answers::call_the_desk(alert.id, told_again, known.version)
        }))
    }

    /// What an emergency contact was told, as it is said in answer to a reply: free text, over WhatsApp, too.
    fn in_answer(&self, alert: &Alert, delivery: &Delivery) -> Result<Option<Composed>, ServiceError> {
        let composer = &self.organisation(&alert.organisation)?.composer;
        let facts = Facts { channel: Channel::Sms, ..alert.facts(delivery, TakenBy::Dashboard) };
        Ok(composer.compose(&facts).filter(|_| composer.has_desk()))
    }

    /// The words that an answer is said in. What goes to somebody outside the team is looked at again whenever it is said: the
    /// same reply may be posted again long after the student has taken their word back.
    pub async fn said_back(&self, said: &Said) -> Result<Option<String>, ServiceError> {
        let Answer::CallTheDesk { alert, delivery, text_sha256 } = &said.answer else { return Ok(reply::text(said)) };
        let alert = self.load(*alert).await?;
        let Some(delivery) = alert.delivery(*delivery).filter(|delivery| alert.wants(delivery)) else {
            return Ok(None);
        };
        if !self.may_still_disclose(&alert, delivery).await {
            return Ok(None);
        }
        let message = self.in_answer(&alert, delivery)?.filter(|message| message.text_sha256 == *text_sha256);
        Ok(message.map(|message| message.text))
    }

    /// The case of a message that was tapped. A wrong tap must not send anybody back to sleep while another case waits.
    async fn quoted_case(&self, case: Case, reply: &Reply, phones: &[Phone]) -> Result<Meant, ServiceError> {
        if reply.command.is_about_a_case() && !waits(&case.alert) && !case.is_held() {
            let open = self.open_for(phones, reply.channel).await?;
            // Who taps once too often while they are on another case, which asks nothing of them, hears what became of this one.
            let is_asked = |other: &Case| match reply.command {
                Command::Take(_) | Command::PassOn(_) => waits(&other.alert) || other.awaits_sign(),
                Command::Done(..) | Command::DoneUnclear => true,
                Command::Other | Command::OptOut | Command::OptIn | Command::Keyword => false,
            };
            let others = meant_by(reply.command, &open).into_iter();
            let others = others.filter(|other| other.alert.id != case.alert.id && is_asked(other));
            let others: Vec<Reference> = others.map(|other| other.alert.reference).collect();
            if !others.is_empty() {
                return Ok(Meant::Unclear(others));
            }
        }
        self.beside(case, reply.command, phones, reply.channel).await
    }

    /// A case that is meant, with the others that wait for the phone if the answer is one that lets its owner go. Whoever
    /// takes a live case goes to work: nothing else is read on that way.
    async fn beside(
        &self,
        case: Case,
        command: Command,
        phones: &[Phone],
        channel: Channel,
    ) -> Result<Meant, ServiceError> {
        let lets_go = match command {
            Command::Take(_) => !case.is_live() || !(waits(&case.alert) || case.is_held()),
            Command::PassOn(_) | Command::Done(..) | Command::DoneUnclear => true,
            Command::Other | Command::OptOut | Command::OptIn | Command::Keyword => false,
        };
        let others = match lets_go {
            true => waiting_beside(case.alert.id, &self.open_for(phones, channel).await?),
            false => Vec::new(),
        };
        Ok(Meant::Case(Box::new(Case { others, ..case })))
    }

    /// Somebody was faster: now it matters what else waits for the phone.
    async fn too_late(&self, id: AlertId, answer: Answer, under: Kept) -> Result<Said, ServiceError> {
        let others = match &under.phones {
            Some((phones, channel)) => waiting_beside(id, &self.open_for(phones, *channel).await?),
            None => Vec::new(),
        };
        let under = Kept { others, ..under };
        self.keep_reply(under.key, under.said(answer)).await
    }

    /// The last case that this phone was told of and that somebody took or closed.
    async fn past(&self, phones: &[Phone], channel: Channel) -> Result<Meant, ServiceError> {
        for (organisation, address) in phones {
            let Some(alert) = self.store.last_case_of(organisation, *address).await? else { continue };
            if let Some(case) = self.told_to(&alert, phones, channel).await? {
                return Ok(Meant::Case(Box::new(case)));
            }
        }
        Ok(Meant::None { is_known: self.knows(phones, channel) })
    }

    /// The case of this reference, whatever has become of it, if one of these phones was told of it.
    async fn named(
        &self,
        reference: Reference,
        phones: &[Phone],
        channel: Channel,
    ) -> Result<Option<Case>, ServiceError> {
        for (organisation, _) in phones {
            let Some(alert) = self.store.alert_by_reference(organisation, reference).await? else { continue };
            if let Some(case) = self.told_to(&alert, phones, channel).await? {
                return Ok(Some(case));
            }
        }
        Ok(None)
    }

    /// The open cases that one of these phones was told of over this channel, newest first.
    async fn open_for(&self, phones: &[Phone], channel: Channel) -> Result<Vec<Case>, ServiceError> {
        let mut cases = Vec::new();
        for (organisation, address) in phones {
            for alert in self.store.cases_of(organisation, *address, CASES_LOOKED_AT).await? {
                cases.extend(self.told_to(&alert, phones, channel).await?);
            }
        }
        Ok(cases)
    }

    /// A case, if one of these phones was told of it over this channel, or asked about it, with whoever has that phone.
    async fn told_to(&self, alert: &Alert, phones: &[Phone], channel: Channel) -> Result<Option<Case>, ServiceError> {
        let told = |delivery: &&Delivery| {
            let is_phone = |(organisation, address): &Phone| {
                *organisation == alert.organisation && *address == delivery.address_key
            };
            // Who took it in a call is asked for a sign in writing, and answers so.
            let asks = delivery.purpose.is_alert() || (delivery.purpose.is_answered() && delivery.is_out());
            delivery.channel == channel && asks && phones.iter().any(is_phone)
        };
        let Some(delivery) = alert.deliveries.iter().rev().find(told) else { return Ok(None) };
        let owner = self.owner(&alert.organisation, channel, delivery.address_key).await?;
        let is_theirs = owner.is_some();
        let actor = owner.map_or_else(|| recipient(delivery), |contact| Actor::Contact { contact });
        let (alert, phones) = (alert.clone(), phones.to_vec());
        Ok(Some(Case { alert, actor, is_theirs, beside_drill: false, others: Vec::new(), phones }))
    }

    /// Who has this number now, verified or opted out, if they are active.
    async fn owner(
        &self,
        organisation: &OrganisationId,
        channel: Channel,
        address: AddressKey,
    ) -> Result<Option<ContactId>, ServiceError> {
        if let Some(known) = self.live(organisation)?.owner_of(channel, address) {
            return Ok(Some(known));
        }
        // Another instance may have changed it a moment ago.
        if !self.store.is_exclusive() {
            self.read_roster_again(organisation).await?;
        }
        Ok(self.live(organisation)?.owner_of(channel, address))
    }

    /// Whether somebody who can be told has this phone.
    fn knows(&self, phones: &[Phone], channel: Channel) -> bool {
        phones.iter().any(|(organisation, address)| {
            self.live(organisation).is_ok_and(|live| live.directory.contact_at(channel, *address).is_some())
        })
    }

    async fn sender(&self, reply: &Reply) -> Result<Sender, ServiceError> {
        // Of a ticket we know that it is ours. A button of an older template has none, and tells the message all the same.
        let tapped = match reply.ticket {
            Some(ticket) => self.ticketed(ticket).await?,
            None => None,
        };
        let quoted = match tapped {
            Some(tapped) => Some(tapped),
            None => self.quoted(reply).await?,
        };
        let is_quoted = quoted.is_some();
        let own_quote = quoted.filter(|(alert, delivery)| self.is_theirs(reply, alert, delivery));
        let phones = match (&reply.from, &own_quote) {
            (Some(number), _) => self.phones(number),
            (None, Some((alert, delivery))) => vec![(alert.organisation.clone(), delivery.address_key)],
            (None, None) => Vec::new(),
        };
        let quotes_another = is_quoted && own_quote.is_none();
        Ok(Sender { phones, quotes_another, own_quote: own_quote.map(|(alert, _)| alert) })
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
            // Only WhatsApp hides numbers, and only there a ticket or a quote is the provider's word.
            None => reply.channel == Channel::Whatsapp,
        };
        same_phone && delivery.channel == reply.channel
    }

    fn phones(&self, number: &PhoneNumber) -> Vec<Phone> {
        let known = |id: &OrganisationId| (id.clone(), address_key(self.keyring.as_ref(), id, number));
        self.organisations.iter().map(|organisation| known(&organisation.id)).collect()
    }

    // -- answers that are kept --------------------------------------------------------------------------------------

    fn reply_key(&self, message: &ProviderId) -> IdempotencyKey {
        let parts = [b"incoming".as_slice(), message.as_str().as_bytes()];
        IdempotencyKey::from_bytes(self.keyring.hash(HashPurpose::Idempotency, &parts))
    }

    fn reply_record(&self, key: IdempotencyKey, said: &Said) -> IdempotencyRecord {
        IdempotencyRecord {
            key,
            // Twilio's id names one message for ever: there is no other body to tell it from.
            body: *key.as_bytes(),
            status: OK,
            answer: serde_json::to_string(said).unwrap_or_default(),
            created_at: self.clock.now(),
        }
    }

    pub(super) async fn answer_given(&self, key: IdempotencyKey) -> Result<Option<Said>, ServiceError> {
        let Some(record) = self.store.answer(key).await? else { return Ok(None) };
        let unreadable = |_| StoreError::Corrupt { what: "the kept answer to a reply".to_owned() };
        Ok(Some(serde_json::from_str(&record.answer).map_err(unreadable)?))
    }

    /// Keeps the answer of a reply that took nothing.
    async fn keep_reply(&self, key: IdempotencyKey, said: Said) -> Result<Said, ServiceError> {
        if self.store.keep_answer(self.reply_record(key, &said)).await? {
            return Ok(said);
        }
        self.answer_of_another(key).await
    }

    /// The same reply is being answered by somebody else: what they say holds.
    async fn answer_of_another(&self, key: IdempotencyKey) -> Result<Said, ServiceError> {
        self.answer_given(key).await?.ok_or(ServiceError::Busy)
    }
}

fn waits(alert: &Alert) -> bool {
    matches!(alert.state, AlertState::Escalating { .. })
}

/// The live cases that wait for a phone besides this one, of what is open for it.
fn waiting_beside(id: AlertId, open: &[Case]) -> Vec<Reference> {
    let others = open.iter().filter(|case| case.alert.id != id && case.is_live() && waits(&case.alert));
    others.map(|case| case.alert.reference).collect()
}

/// A case whose message is quoted, if it was one to an emergency contact's phone.
fn outside_of(alert: &Alert, phones: &[Phone], channel: Channel) -> Option<Meant> {
    let is_it = |delivery: &&Delivery| {
        let is_phone = |(_, address): &Phone| *address == delivery.address_key;
        let is_told = delivery.purpose == Purpose::EmergencyContact && delivery.is_out();
        is_told && delivery.channel == channel && phones.iter().any(is_phone)
    };
    let delivery = alert.deliveries.iter().rfind(is_it)?;
    Some(Meant::Outside(Box::new(alert.clone()), recipient(delivery)))
}

/// What a reply without a reference may mean, of what is open for its phone; newest first. One: it is clear.
///
/// A drill stands back where a live case is open. Who was asked for a sign of a case that they have may mean that one or
/// another that waits; who was not means the one that waits. Only who has a case can say how it ended. Words may be about
/// anything.
fn meant_by(command: Command, open: &[Case]) -> Vec<&Case> {
    let concerns = |case: &&Case| waits(&case.alert) || case.is_held();
    let live = open.iter().filter(concerns).any(Case::is_live);
    let those = |fits: &dyn Fn(&Case) -> bool| -> Vec<&Case> {
        open.iter().filter(concerns).filter(|case| case.is_live() == live && fits(case)).collect()
    };
    let first = |preferred: Vec<_>, other: &dyn Fn(&Case) -> bool| {
        if preferred.is_empty() { those(other) } else { preferred }
    };
    match command {
        Command::Take(_) | Command::PassOn(_) => {
            first(those(&|case| waits(&case.alert) || case.awaits_sign()), &Case::is_held)
        }
        Command::Done(..) | Command::DoneUnclear => first(those(&Case::is_held), &|case| waits(&case.alert)),
        Command::Other | Command::OptOut | Command::OptIn | Command::Keyword => those(&|_| true),
    }
}

pub(super) fn is_taken_by(alert: &Alert, actor: &Actor) -> bool {
    matches!(&alert.state, AlertState::Acknowledged { by, .. } if by == actor)
}

pub(super) fn recipient(delivery: &Delivery) -> Actor {
    Actor::Contact { contact: delivery.contact.clone() }
}
