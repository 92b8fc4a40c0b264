//! Codes that prove that a number reaches the person: drawn, kept as a keyed hash, sent, and confirmed.
//!
//! A code is durable before it is sent, so that whatever reaches the phone can be confirmed; and the call to the provider is
//! no part of the change.
//!
//! A code is reckoned from a random seed with a key of the service. A phone call that brings one is made with the seed, and whoever
//! answers it has the code reckoned once more when they press a key, by whichever instance is asked: so the code itself lies
//! nowhere, neither here nor in what the provider is sent beforehand.

use std::time::Duration;

use super::caller::Caller;
use super::contacts::OpenedContact;
use super::emergency::OpenedEmergencyContact;
use super::people::subject_key;
use super::{Organisation, Service, ServiceError};
use crate::domain::consent::{ConsentRecord, EmergencyChange, EmergencySituation};
use crate::domain::contact::{Channel, Language, PhoneNumber};
use crate::domain::ids::{
    AddressKey, CodeHash, CodeSeed, ContactId, IdempotencyKey, OrganisationId, ProviderId, SubjectKey,
};
use crate::domain::message::{CodeSpeech, code_text, text_sha256};
use crate::domain::method::{CODE_LASTS, Method, SpokenCode};
use crate::domain::provider::{ErrorClass, ProviderFault};
use crate::domain::roster::{Change, CodeTaken, OptOutBy, Outcome, Rejection};
use crate::ports::{
    DataKey, HashPurpose, IdempotencyRecord, KeyringError, MessageContent, MessageRequest, SealedField, random,
};

/// How codes are sent over WhatsApp, which takes free text for a day after the person has written only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhatsappCode {
    /// As free text: where no real phone is reached.
    FreeText,
    /// By an approved template, whose first variable is the code.
    Template(String),
    /// Not at all: there is no template.
    Missing,
}

/// How a college sends codes.
#[derive(Debug, Clone)]
pub struct CodeTexts {
    /// What the college is called in messages.
    pub sender: String,
    /// Over WhatsApp.
    pub whatsapp: WhatsappCode,
    /// Whether there is a number that calls.
    pub calls: bool,
}

/// A code that is durable, and about to be sent.
pub struct CodeToSend {
    /// What is to be sent.
    pub request: MessageRequest,
    /// Until when it counts.
    pub until: jiff::Timestamp,
    organisation: OrganisationId,
    whose: Whose,
    contact: ContactId,
    channel: Channel,
    address: AddressKey,
    hash: CodeHash,
    /// What stands in the audit of what was sent.
    written: (Option<String>, Option<String>),
}

/// Where the number is kept that a code is to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// In the roster.
    Roster,
    /// With a student, whose emergency contact it is.
    Student(SubjectKey),
}

/// What came of a code that somebody said.
pub enum Confirmed<T> {
    /// It is the one: the method is verified.
    Right(Box<T>),
    /// It is not; so many more may be tried.
    Wrong {
        /// How many.
        tries_left: u32,
    },
}

impl Service {
    /// Draws a code for a method, and keeps it: it is to be sent next.
    pub async fn begin_verification(
        &self,
        caller: &Caller,
        contact: &ContactId,
        channel: Channel,
    ) -> Result<CodeToSend, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        self.require_way(channel, &organisation.codes)?;
        let seed = self.draw_seed();
        let (id, code) = (&organisation.id, self.code_of(&seed));
        let hash_for = |address| self.code_hash(id, contact, channel, address, &code);
        let changed = self
            .change_as(caller, |roster| {
                let known = roster.contact(contact).ok_or(Rejection::NoSuchContact)?;
                let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
                Ok(Change::SendCode { id: contact.clone(), channel, hash: hash_for(method.address_key) })
            })
            .await?;
        let known = changed.roster.contact(contact).ok_or(ServiceError::NotFound)?;
        let method = known.method(channel).ok_or(ServiceError::NotFound)?;
        let key = self.kept_data_key(id, known.person).await?;
        self.code_to_send(organisation, Whose::Roster, (contact, &known.language), method, key.as_ref(), seed)
    }

    /// The same, for an emergency contact of a student.
    pub async fn begin_emergency_verification(
        &self,
        caller: &Caller,
        user_id: &str,
        contact: &ContactId,
        channel: Channel,
    ) -> Result<CodeToSend, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        self.require_way(channel, &organisation.codes)?;
        let (id, seed) = (&organisation.id, self.draw_seed());
        let code = self.code_of(&seed);
        let subject = subject_key(self.keyring.as_ref(), id, user_id);
        let live = self.live(id)?;
        let make = |record: &ConsentRecord| {
            let known = record.emergency_contact(contact).ok_or(Rejection::NoSuchContact)?;
            let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
            if live.roster.opted_out_since(channel, method.address_key).is_some() {
                return Err(Rejection::OptedOut);
            }
            let hash = self.code_hash(id, contact, channel, method.address_key, &code);
            Ok(EmergencyChange::SendCode { id: contact.clone(), channel, hash })
        };
        let address = self.would_send_code(caller, subject, (contact, channel), make).await?;
        self.take_code_place(id, address).await?;
        let changed = self.change_emergency_as(caller, subject, make).await?;
        let known = changed.record.emergency_contact(contact).ok_or(ServiceError::NotFound)?;
        let method = known.method(channel).ok_or(ServiceError::NotFound)?;
        let key = self.person_data_key(id, subject.into()).await?;
        let whose = Whose::Student(subject);
        self.code_to_send(organisation, whose, (contact, &known.language), method, key.as_ref(), seed)
    }

    /// Whether a student's own limits let a code be sent, before anything is changed; says to which number.
    async fn would_send_code(
        &self,
        caller: &Caller,
        subject: SubjectKey,
        (contact, channel): (&ContactId, Channel),
        make: impl Fn(&ConsentRecord) -> Result<EmergencyChange, Rejection>,
    ) -> Result<AddressKey, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let known = self.store.consent(&organisation.id, subject).await?;
        let record = known.unwrap_or_else(|| ConsentRecord::empty(organisation.id.clone(), subject));
        let actor = caller.actor(self.keyring.as_ref(), None);
        let situation = EmergencySituation { now: self.clock.now(), actor: &actor, senders: &organisation.senders };
        let change = make(&record).map_err(ServiceError::Roster)?;
        let would = record.on(change, &situation).map_err(ServiceError::Roster)?;
        let method = would.record.emergency_contact(contact).and_then(|known| known.method(channel));
        method.map(|method| method.address_key).ok_or(ServiceError::NotFound)
    }

    /// Takes one of the places that a phone has for codes on behalf of students, whoever they are: five in an hour of the
    /// clock, one in a minute. A student's own limits know nothing of what another's record sends to the same phone.
    ///
    /// A place is taken by whoever keeps its key first, so that several instances share them.
    async fn take_code_place(&self, organisation: &OrganisationId, address: AddressKey) -> Result<(), ServiceError> {
        let now = self.clock.now().as_second();
        let (minute, hour) = (now.div_euclid(MINUTE), now.div_euclid(HOUR));
        if !self.keep_mark(organisation, address, &[b"minute", &minute.to_be_bytes()]).await? {
            return Err(ServiceError::Roster(Rejection::TooSoon(rest(now, MINUTE))));
        }
        for place in 0..PLACES_AN_HOUR {
            if self.keep_mark(organisation, address, &[b"hour", &hour.to_be_bytes(), &[place]]).await? {
                // Whoever says STOP to a code is known by it, for as long as answers are kept.
                self.keep_mark(organisation, address, &[b"day", &day_of(now).to_be_bytes()]).await?;
                return Ok(());
            }
        }
        Err(ServiceError::Roster(Rejection::TooSoon(rest(now, HOUR))))
    }

    /// Whether a code went to this phone on behalf of a student, today or in the two days before.
    pub(super) async fn was_sent_a_code(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
    ) -> Result<bool, ServiceError> {
        let today = day_of(self.clock.now().as_second());
        for day in [today, today - 1, today - 2] {
            let mark = self.mark_key(organisation, address, &[b"day", &day.to_be_bytes()]);
            if self.store.answer(mark).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a code may have gone to this phone on behalf of a student, over whatever channel, within [`CODES_LOOKED_AT`] minutes
    /// from `since` on.
    pub(super) async fn may_have_been_sent_a_code(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        since: jiff::Timestamp,
    ) -> Result<bool, ServiceError> {
        let first = since.as_second().div_euclid(MINUTE);
        for minute in first..first + CODES_LOOKED_AT {
            let key = self.mark_key(organisation, address, &[b"minute", &minute.to_be_bytes()]);
            if self.store.answer(key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says whether nobody had left this mark before.
    async fn keep_mark(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        mark: &[&[u8]],
    ) -> Result<bool, ServiceError> {
        let key = self.mark_key(organisation, address, mark);
        let (body, answer, created_at) = (*key.as_bytes(), String::new(), self.clock.now());
        Ok(self.store.keep_answer(IdempotencyRecord { key, body, status: 0, answer, created_at }).await?)
    }

    fn mark_key(&self, organisation: &OrganisationId, address: AddressKey, mark: &[&[u8]]) -> IdempotencyKey {
        let whose = [b"code".as_slice(), organisation.as_str().as_bytes(), address.as_bytes()];
        let parts: Vec<&[u8]> = whose.iter().chain(mark).copied().collect();
        IdempotencyKey::from_bytes(self.keyring.hash(HashPurpose::Idempotency, &parts))
    }

    fn draw_seed(&self) -> CodeSeed {
        CodeSeed::from_bytes(random(self.entropy.as_ref()))
    }

    /// The digits that a seed stands for. The remainder favours no code: a million is next to nothing against 2^64.
    fn code_of(&self, seed: &CodeSeed) -> String {
        let hash = self.keyring.hash(HashPurpose::CodeSeed, &[seed.as_bytes()]);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        format!("{:06}", u64::from_le_bytes([a, b, c, d, e, f, g, h]) % 1_000_000)
    }

    /// What a call says that brings a code. `None`: it is about no college that is known here.
    pub fn code_speech(&self, code: &SpokenCode) -> Option<CodeSpeech> {
        let organisation = self.organisation(&code.organisation).ok()?;
        Some(speech(organisation, &code.language, &self.code_of(&code.seed)))
    }

    fn code_to_send(
        &self,
        organisation: &Organisation,
        whose: Whose,
        (contact, language): (&ContactId, &Language),
        method: &Method,
        key: &dyn DataKey,
        seed: CodeSeed,
    ) -> Result<CodeToSend, ServiceError> {
        let (channel, address) = (method.channel, method.address_key);
        let code = self.code_of(&seed);
        let hash = self.code_hash(&organisation.id, contact, channel, address, &code);
        let number = key.open(SealedField::Address, &method.address)?;
        let to: PhoneNumber = number.parse().map_err(|_| ServiceError::Sealed(KeyringError::Malformed))?;
        let content = content(organisation, channel, language, &code, seed);
        let written = match &content {
            MessageContent::Template { content_sid, .. } => (Some(content_sid.clone()), None),
            MessageContent::Body(_) => (None, Some(text_sha256(&written_text(organisation, language, NO_CODE)))),
            MessageContent::CodeCall(_) => (None, Some(text_sha256(&speech(organisation, language, NO_CODE).whole()))),
            // It is about a case, and no code.
            MessageContent::Call => (None, None),
        };
        let until = method.code.as_ref().map_or_else(|| self.clock.now(), |code| code.until());
        tracing::info!(contact = %contact, channel = channel.as_str(), "a code is sent");
        let request = MessageRequest { attempt: None, channel, to, content };
        let (organisation, contact) = (organisation.id.clone(), contact.clone());
        Ok(CodeToSend { request, until, organisation, whose, contact, channel, address, hash, written })
    }

    /// The provider has a code (`provider_id`), or may have it: the audit says so. Nothing depends on that, so that whoever asked
    /// hears that it was sent also where it cannot be written down.
    pub async fn code_was_taken(&self, caller: &Caller, sent: &CodeToSend, provider_id: Option<&ProviderId>) {
        let (content_sid, text_sha256) = sent.written.clone();
        let taken = CodeTaken { provider_id: provider_id.cloned(), content_sid, text_sha256 };
        let CodeToSend { contact, channel, address, .. } = sent;
        let (caller, id, channel, address) = (caller.clone().until(None), contact.clone(), *channel, *address);
        let written = match sent.whose {
            Whose::Roster => {
                let change = Change::CodeTaken { id, channel, address, taken };
                self.change_as(&caller, |_| Ok(change.clone())).await.map(|_| ())
            }
            Whose::Student(subject) => {
                let change = EmergencyChange::CodeTaken { id, channel, address, taken };
                self.change_emergency_as(&caller, subject, |_| Ok(change.clone())).await.map(|_| ())
            }
        };
        if let Err(error) = written {
            tracing::error!(contact = %contact, channel = channel.as_str(), %error, "that a code was sent is not in the audit");
        }
    }

    /// The provider did not take a code, for certain: it counts no more, and the audit says so. Where the recipient has opted
    /// out, the roster says that, too.
    pub async fn code_was_refused(
        &self,
        caller: &Caller,
        sent: &CodeToSend,
        fault: Option<&ProviderFault>,
    ) -> Result<(), ServiceError> {
        let CodeToSend { contact, channel, hash, address, .. } = sent;
        let (channel, hash, address, id) = (*channel, *hash, *address, contact.clone());
        let code = fault.and_then(|fault| fault.code);
        let opts_out = fault.is_some_and(|fault| fault.class == ErrorClass::OptOut);
        let by = OptOutBy::Provider { code };
        // Whoever asked may not wait any longer; that it was refused is booked all the same.
        let caller = caller.clone().until(None);
        match sent.whose {
            Whose::Roster => {
                let change = Change::CodeNotSent { id, channel, hash, fault: code };
                self.change_as(&caller, |_| Ok(change.clone())).await?;
                if opts_out {
                    self.opt_out(&sent.organisation, channel, address, by).await?;
                }
            }
            Whose::Student(subject) => {
                let change = EmergencyChange::CodeNotSent { id, channel, hash, fault: code };
                self.change_emergency_as(&caller, subject, |_| Ok(change.clone())).await?;
                if opts_out {
                    self.opt_out_outside(&sent.organisation, channel, address, by).await?;
                }
            }
        }
        Ok(())
    }

    /// Somebody says which code has come to an emergency contact.
    pub async fn confirm_emergency_verification(
        &self,
        caller: &Caller,
        user_id: &str,
        contact: &ContactId,
        channel: Channel,
        code: &str,
    ) -> Result<Confirmed<OpenedEmergencyContact>, ServiceError> {
        let id = &self.organisation(&caller.organisation)?.id;
        let subject = subject_key(self.keyring.as_ref(), id, user_id);
        let changed = self
            .change_emergency_as(caller, subject, |record| {
                let known = record.emergency_contact(contact).ok_or(Rejection::NoSuchContact)?;
                let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
                let hash = self.code_hash(id, contact, channel, method.address_key, code);
                Ok(EmergencyChange::ConfirmCode { id: contact.clone(), channel, hash })
            })
            .await?;
        match changed.outcome {
            Outcome::WrongCode { tries_left } => Ok(Confirmed::Wrong { tries_left }),
            Outcome::Confirmed | Outcome::Done | Outcome::Removed | Outcome::Deactivated => {
                tracing::info!(contact = %contact, channel = channel.as_str(), "a method was verified");
                Ok(Confirmed::Right(Box::new(self.opened_emergency_of(&changed.record, contact).await?)))
            }
        }
    }

    /// Somebody says which code has come.
    pub async fn confirm_verification(
        &self,
        caller: &Caller,
        contact: &ContactId,
        channel: Channel,
        code: &str,
    ) -> Result<Confirmed<OpenedContact>, ServiceError> {
        let id = &self.organisation(&caller.organisation)?.id;
        let changed = self
            .change_as(caller, |roster| {
                let known = roster.contact(contact).ok_or(Rejection::NoSuchContact)?;
                let method = known.method(channel).ok_or(Rejection::NoSuchMethod)?;
                let hash = self.code_hash(id, contact, channel, method.address_key, code);
                Ok(Change::ConfirmCode { id: contact.clone(), channel, hash })
            })
            .await?;
        match changed.outcome {
            Outcome::WrongCode { tries_left } => Ok(Confirmed::Wrong { tries_left }),
            Outcome::Confirmed | Outcome::Done | Outcome::Removed | Outcome::Deactivated => {
                tracing::info!(contact = %contact, channel = channel.as_str(), "a method was verified");
                Ok(Confirmed::Right(Box::new(self.opened_of(changed.roster, contact).await?)))
            }
        }
    }

    fn require_way(&self, channel: Channel, texts: &CodeTexts) -> Result<(), ServiceError> {
        match (channel, &texts.whatsapp) {
            (Channel::Voice, _) if !texts.calls => {
                Err(ServiceError::CannotVerify("there is no number that calls: set TWILIO_VOICE_FROM"))
            }
            (Channel::Whatsapp, WhatsappCode::Missing) => Err(ServiceError::CannotVerify(
                "WhatsApp takes no code without an approved template: set TWILIO_VERIFICATION_CONTENT_SID",
            )),
            (Channel::Whatsapp | Channel::Sms | Channel::Voice, _) => Ok(()),
        }
    }

    fn code_hash(
        &self,
        organisation: &OrganisationId,
        contact: &ContactId,
        channel: Channel,
        address: AddressKey,
        code: &str,
    ) -> CodeHash {
        let parts: [&[u8]; 5] = [
            organisation.as_str().as_bytes(),
            contact.as_str().as_bytes(),
            channel.as_str().as_bytes(),
            address.as_bytes(),
            code.as_bytes(),
        ];
        CodeHash::from_bytes(self.keyring.hash(HashPurpose::Code, &parts))
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// For how many minutes a code is looked for that may have made a phone ring.
const CODES_LOOKED_AT: i64 = 5;
/// How many codes a phone gets in an hour on behalf of students.
const PLACES_AN_HOUR: u8 = 5;

const fn day_of(second: i64) -> i64 {
    second.div_euclid(24 * HOUR)
}

/// What is left of a span of the clock, from this second on.
fn rest(now: i64, span: i64) -> Duration {
    Duration::from_secs((span - now.rem_euclid(span)).unsigned_abs())
}

/// What stands in the place of a code in what the audit proves of its message.
const NO_CODE: &str = "000000";

fn content(
    organisation: &Organisation,
    channel: Channel,
    language: &Language,
    code: &str,
    seed: CodeSeed,
) -> MessageContent {
    match (channel, &organisation.codes.whatsapp) {
        (Channel::Whatsapp, WhatsappCode::Template(content_sid)) => {
            MessageContent::Template { content_sid: content_sid.clone(), variables: vec![code.to_owned()] }
        }
        (Channel::Whatsapp, WhatsappCode::FreeText | WhatsappCode::Missing) | (Channel::Sms, _) => {
            MessageContent::Body(written_text(organisation, language, code))
        }
        (Channel::Voice, _) => MessageContent::CodeCall(SpokenCode {
            organisation: organisation.id.clone(),
            language: language.clone(),
            seed,
        }),
    }
}

fn written_text(organisation: &Organisation, language: &Language, code: &str) -> String {
    code_text(language, &organisation.codes.sender, code, CODE_LASTS.as_secs() / 60)
}

fn speech(organisation: &Organisation, language: &Language, code: &str) -> CodeSpeech {
    organisation.texts.set().code_speech(language, &organisation.codes.sender, code)
}
