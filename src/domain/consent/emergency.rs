//! The emergency contacts of a student: people whom the student has named, who belong to nobody's ladder. Each has numbers
//! that must be proven like any other, and a word of its own on whether they may be told: the channels' consent says nothing
//! of them, and theirs says nothing of counsellors.
//!
//! They are a part of the student's [`ConsentRecord`], so that whatever rests on what the student said is committed with the
//! version of it that was read. Names and numbers are sealed under the student's data key: to destroy that erases them, too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ChannelConsent, ConsentRecord};
use crate::domain::audit::{Actor, AuditEntry, AuditStream};
use crate::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Language};
use crate::domain::event::Label;
use crate::domain::ids::{AddressKey, CodeHash, ContactId, OrganisationId, SubjectKey};
use crate::domain::method::{self, FieldFault, Method, MethodDetails, Said, SentCode, Standing, wait_for_code};
use crate::domain::roster::{CodeTaken, Outcome, Rejection, SettingsDeed};
use crate::domain::sealed::Sealed;

/// How many emergency contacts a student may have.
pub const EMERGENCY_CONTACTS_MAX: usize = 3;
/// How many codes go out in an hour on behalf of one student.
const STUDENT_CODES_MAX: usize = 15;

/// Somebody whom a student has named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmergencyContact {
    /// The id, drawn; never given to anybody else.
    pub id: ContactId,
    /// Counts the changes that people made, from 1.
    pub version: u64,
    /// What they are called, sealed under the student's data key.
    pub name: Sealed,
    /// The language they are told in.
    pub language: Language,
    /// Their numbers, in the order in which they are tried; one a channel.
    pub methods: Vec<Method>,
    /// The student's latest word on whether they may be told; none is no yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<ChannelConsent>,
}

impl EmergencyContact {
    /// The method of a channel.
    pub fn method(&self, channel: Channel) -> Option<&Method> {
        self.methods.iter().find(|method| method.channel == channel)
    }

    /// The methods that may be used, in their order.
    pub fn usable(&self) -> impl Iterator<Item = ContactMethod> {
        self.methods.iter().filter_map(Method::usable)
    }

    /// Whether this number is theirs, and may be used.
    pub fn is_reached_at(&self, channel: Channel, address: AddressKey) -> bool {
        self.methods.iter().any(|method| method.is_at(channel, address) && method.standing.is_usable())
    }

    /// Takes up what the college knows of phones: one that takes nothing takes nothing from any student either. `opted_out_since`
    /// says since when.
    pub fn heed_opt_outs(&mut self, opted_out_since: impl Fn(Channel, AddressKey) -> Option<Timestamp>) {
        for method in &mut self.methods {
            if let Some(since) = opted_out_since(method.channel, method.address_key) {
                method.opt_out(since);
            }
        }
    }

    /// Whether the student has agreed that they are told.
    pub fn is_granted(&self) -> bool {
        self.consent.as_ref().is_some_and(|word| word.granted)
    }

    /// The student's word as a ground; `version` is that of the record that was read.
    pub fn ground(&self, version: u64) -> Option<DisclosureGround> {
        let word = self.consent.as_ref().filter(|word| word.granted)?;
        Some(DisclosureGround::ContactConsent {
            version,
            granted_at: word.at,
            notice_version: word.notice_version.clone(),
        })
    }

    /// The person as alerts know people: with the methods that may be used.
    pub(in crate::domain) fn as_contact(&self, organisation: &OrganisationId, subject: SubjectKey) -> Contact {
        Contact {
            id: self.id.clone(),
            organisation: organisation.clone(),
            person: subject.into(),
            role: ContactRole::EmergencyContact,
            language: self.language.clone(),
            methods: self.usable().collect(),
        }
    }
}

/// Why an emergency contact is told. The alert's own ground does not cover it, and it covers nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DisclosureGround {
    /// The student agreed beforehand that this person is told.
    ContactConsent {
        /// Version of the consent record that was read.
        version: u64,
        /// When it was said.
        granted_at: Timestamp,
        /// Which notice the student had read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notice_version: Option<Label>,
    },
    /// A named human decided it.
    Decision {
        /// Who decided, by name, and why: sealed under the student's data key.
        #[serde(alias = "reason")]
        statement: Sealed,
        /// Who wrote it down. A machine's key may speak for somebody: then the statement alone names them.
        by: Actor,
        /// When.
        at: Timestamp,
    },
}

impl DisclosureGround {
    /// The ground's kind, as in the API and in the audit.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ContactConsent { .. } => "contact_consent",
            Self::Decision { .. } => "decision",
        }
    }

    /// Whether it is a human's decision.
    pub const fn is_decision(&self) -> bool {
        matches!(self, Self::Decision { .. })
    }
}

/// The student's word on one of them, as somebody records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Whether they may be told.
    pub granted: bool,
    /// Where it was said.
    pub source: Label,
    /// Which notice the student had read.
    pub notice_version: Option<Label>,
}

/// All about one of them, as somebody sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmergencyDetails {
    /// What they are called, sealed; `None`: as before.
    pub name: Option<Sealed>,
    /// In which language they are told.
    pub language: Language,
    /// Their methods, in the order in which they are tried.
    pub methods: Vec<MethodDetails>,
    /// The student's word; `None`: as before.
    pub consent: Option<Word>,
}

/// What is to change.
#[derive(Debug, Clone)]
pub enum EmergencyChange {
    /// A further person.
    Add {
        /// Their id, drawn for them.
        id: ContactId,
        /// All about them.
        details: EmergencyDetails,
    },
    /// All about one, anew.
    Replace {
        /// Who.
        id: ContactId,
        /// The version that the change was made from.
        from_version: u64,
        /// All about them.
        details: EmergencyDetails,
    },
    /// One goes, with name and numbers.
    Remove {
        /// Who.
        id: ContactId,
        /// The version that was looked at.
        from_version: u64,
    },
    /// A code is about to be sent.
    SendCode {
        /// To whom.
        id: ContactId,
        /// Over which of their methods.
        channel: Channel,
        /// The code's keyed hash.
        hash: CodeHash,
    },
    /// The provider has a code, or may have it.
    CodeTaken {
        /// To whom.
        id: ContactId,
        /// Over which of their methods.
        channel: Channel,
        /// To which number.
        address: AddressKey,
        /// What was sent, and what the provider said.
        taken: CodeTaken,
    },
    /// The provider has refused to send a code.
    CodeNotSent {
        /// To whom.
        id: ContactId,
        /// Over which of their methods.
        channel: Channel,
        /// The code's keyed hash.
        hash: CodeHash,
        /// The provider's error code.
        fault: Option<u32>,
    },
    /// Somebody says which code has come.
    ConfirmCode {
        /// To whom.
        id: ContactId,
        /// Over which of their methods.
        channel: Channel,
        /// The keyed hash of what they say.
        hash: CodeHash,
    },
}

/// What a change depends on besides the record and the change itself.
#[derive(Debug, Clone, Copy)]
pub struct EmergencySituation<'a> {
    /// The time.
    pub now: Timestamp,
    /// Who or what acts.
    pub actor: &'a Actor,
    /// The numbers that we send from: nobody is told there.
    pub senders: &'a [(Channel, AddressKey)],
}

/// A change, ready to be committed.
#[derive(Debug, Clone)]
pub struct EmergencyTransition {
    /// The record after the change.
    pub record: ConsentRecord,
    /// The audit entries that tell of it; none: there was nothing to change.
    pub audit: Vec<AuditEntry>,
    /// What it came to.
    pub outcome: Outcome,
}

/// What the chain `consent/<subject>` says of them, besides what it says of their numbers ([`SettingsDeed`]).
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "they are the audit's words, beside those of the channels' consent")]
enum EmergencyDeed<'a> {
    EmergencyContactAdded {
        contact: &'a ContactId,
        language: &'a Language,
    },
    /// What stayed as it was is left out.
    EmergencyContactChanged {
        contact: &'a ContactId,
        renamed: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<&'a Language>,
        #[serde(skip_serializing_if = "Option::is_none")]
        order: Option<Vec<Channel>>,
    },
    EmergencyContactRemoved {
        contact: &'a ContactId,
    },
    EmergencyConsentRecorded {
        contact: &'a ContactId,
        granted: bool,
        source: &'a Label,
        #[serde(skip_serializing_if = "Option::is_none")]
        notice_version: Option<&'a Label>,
    },
}

impl ConsentRecord {
    /// The emergency contact with this id.
    pub fn emergency_contact(&self, id: &ContactId) -> Option<&EmergencyContact> {
        self.emergency_contacts.iter().find(|contact| contact.id == *id)
    }

    /// Changes the emergency contacts. A pure function, as [`super::super::roster::Roster::on`] is.
    ///
    /// # Errors
    /// The change does not fit what is there.
    pub fn on(self, change: EmergencyChange, cx: &EmergencySituation<'_>) -> Result<EmergencyTransition, Rejection> {
        let mut changing = Changing { record: self, audit: Vec::new(), cx };
        let outcome = match change {
            EmergencyChange::Add { id, details } => changing.add(id, details)?,
            EmergencyChange::Replace { id, from_version, details } => changing.replace(&id, from_version, details)?,
            EmergencyChange::Remove { id, from_version } => changing.remove(&id, from_version)?,
            EmergencyChange::SendCode { id, channel, hash } => changing.send_code(&id, channel, hash)?,
            EmergencyChange::CodeTaken { id, channel, address, taken } => {
                changing.record(&taken.deed(&id, channel, address));
                Outcome::Done
            }
            EmergencyChange::CodeNotSent { id, channel, hash, fault } => {
                changing.code_not_sent(&id, channel, hash, fault)?
            }
            EmergencyChange::ConfirmCode { id, channel, hash } => changing.confirm_code(&id, channel, hash)?,
        };
        let Changing { mut record, audit, .. } = changing;
        record.version += u64::from(!audit.is_empty());
        Ok(EmergencyTransition { record, audit, outcome })
    }
}

/// A record in the middle of a change. Whatever changes it records a deed.
struct Changing<'a, 'b> {
    record: ConsentRecord,
    audit: Vec<AuditEntry>,
    cx: &'a EmergencySituation<'b>,
}

impl Changing<'_, '_> {
    fn record(&mut self, deed: &impl Serialize) {
        let stream = AuditStream::Consent(self.record.subject);
        self.audit.push(self.record.audit_head.append(stream, self.cx.now, self.cx.actor, deed));
    }

    fn place(&self, id: &ContactId) -> Result<usize, Rejection> {
        let place = self.record.emergency_contacts.iter().position(|contact| contact.id == *id);
        place.ok_or(Rejection::NoSuchContact)
    }

    fn place_at(&self, id: &ContactId, version: u64) -> Result<usize, Rejection> {
        let place = self.place(id)?;
        let is_it = self.record.emergency_contacts[place].version == version;
        if is_it { Ok(place) } else { Err(Rejection::Outdated) }
    }

    fn add(&mut self, id: ContactId, details: EmergencyDetails) -> Result<Outcome, Rejection> {
        if self.place(&id).is_ok() {
            return Err(Rejection::IdTaken);
        }
        if self.record.emergency_contacts.len() >= EMERGENCY_CONTACTS_MAX {
            return Err(Rejection::TooMany("there are 3 emergency contacts: no more are kept"));
        }
        let missing = || Rejection::Invalid(vec![FieldFault { field: "name".to_owned(), rule: "must be given" }]);
        let name = details.name.ok_or_else(missing)?;
        let methods = self.methods(&id, &[], details.methods)?;
        self.record(&EmergencyDeed::EmergencyContactAdded { contact: &id, language: &details.language });
        self.record_methods(&id, &[], &methods);
        let consent = details.consent.map(|word| self.said(&id, word));
        let language = details.language;
        self.record.emergency_contacts.push(EmergencyContact { id, version: 1, name, language, methods, consent });
        Ok(Outcome::Done)
    }

    fn replace(&mut self, id: &ContactId, from_version: u64, details: EmergencyDetails) -> Result<Outcome, Rejection> {
        let place = self.place_at(id, from_version)?;
        let before = self.record.emergency_contacts[place].clone();
        let methods = self.methods(id, &before.methods, details.methods)?;
        let language = (details.language != before.language).then_some(&details.language);
        let order = (method::order(&methods) != method::order(&before.methods)).then(|| method::order(&methods));
        let renamed = details.name.is_some();
        if renamed || language.is_some() || order.is_some() {
            self.record(&EmergencyDeed::EmergencyContactChanged { contact: id, renamed, language, order });
        }
        self.record_methods(id, &before.methods, &methods);
        let says_the_same = |word: &Word| {
            before.consent.as_ref().is_some_and(|known| {
                (known.granted, &known.source, &known.notice_version)
                    == (word.granted, &word.source, &word.notice_version)
            })
        };
        let word = details.consent.filter(|word| !says_the_same(word));
        let consent = word.map(|word| self.said(id, word)).or(before.consent);
        if self.audit.is_empty() {
            return Ok(Outcome::Done);
        }
        self.record.emergency_contacts[place] = EmergencyContact {
            id: before.id,
            version: before.version + 1,
            name: details.name.unwrap_or(before.name),
            language: details.language,
            methods,
            consent,
        };
        Ok(Outcome::Done)
    }

    fn remove(&mut self, id: &ContactId, from_version: u64) -> Result<Outcome, Rejection> {
        let place = self.place_at(id, from_version)?;
        let methods = self.record.emergency_contacts[place].methods.clone();
        self.record_methods(id, &methods, &[]);
        self.record(&EmergencyDeed::EmergencyContactRemoved { contact: id });
        self.record.emergency_contacts.remove(place);
        Ok(Outcome::Removed)
    }

    fn said(&mut self, contact: &ContactId, word: Word) -> ChannelConsent {
        let Word { granted, source, notice_version } = word;
        let deed = EmergencyDeed::EmergencyConsentRecorded {
            contact,
            granted,
            source: &source,
            notice_version: notice_version.as_ref(),
        };
        self.record(&deed);
        ChannelConsent { granted, at: self.cx.now, source, notice_version }
    }

    fn methods(&self, id: &ContactId, before: &[Method], wanted: Vec<MethodDetails>) -> Result<Vec<Method>, Rejection> {
        let stands_against = |channel, address| {
            if self.cx.senders.contains(&(channel, address)) {
                return Some("must not be the number that messages are sent from");
            }
            let others = self.record.emergency_contacts.iter().filter(|contact| contact.id != *id);
            let taken = others.flat_map(|contact| &contact.methods).any(|method| method.is_at(channel, address));
            taken.then_some("must not be another person's number")
        };
        method::replaced(before, wanted, stands_against, |_, _| Standing::Unverified).map_err(Rejection::Invalid)
    }

    fn record_methods(&mut self, contact: &ContactId, before: &[Method], now: &[Method]) {
        for &Method { channel, address_key: address, .. } in method::only_in(before, now) {
            self.record(&SettingsDeed::MethodRemoved { contact, channel, address });
        }
        for &Method { channel, address_key: address, .. } in method::only_in(now, before) {
            self.record(&SettingsDeed::MethodSet { contact, channel, address, opted_out: false });
        }
    }

    fn method_mut(&mut self, id: &ContactId, channel: Channel) -> Result<&mut Method, Rejection> {
        let place = self.place(id)?;
        let mut methods = self.record.emergency_contacts[place].methods.iter_mut();
        methods.find(|method| method.channel == channel).ok_or(Rejection::NoSuchMethod)
    }

    fn send_code(&mut self, id: &ContactId, channel: Channel, hash: CodeHash) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        let method = self.method_mut(id, channel)?;
        match method.standing {
            Standing::Unverified => {}
            Standing::Verified { .. } => return Err(Rejection::AlreadyVerified),
            // Whoever said STOP is sent nothing, a code included.
            Standing::OptedOut { .. } => return Err(Rejection::OptedOut),
        }
        let address = method.address_key;
        let wait = wait_for_code(&mut self.record.codes_sent, now, address, STUDENT_CODES_MAX);
        if !wait.is_zero() {
            return Err(Rejection::TooSoon(wait));
        }
        let until = self.method_mut(id, channel)?.expect_code(hash, now);
        self.record(&SettingsDeed::CodeSent { contact: id, channel, address, until });
        self.record.codes_sent.push(SentCode { at: now, channel, address });
        Ok(Outcome::Done)
    }

    fn code_not_sent(
        &mut self,
        id: &ContactId,
        channel: Channel,
        hash: CodeHash,
        code: Option<u32>,
    ) -> Result<Outcome, Rejection> {
        let method = self.method_mut(id, channel)?;
        // Another may have been sent since.
        if method.forget_code(hash) {
            let address = method.address_key;
            self.record(&SettingsDeed::CodeNotSent { contact: id, channel, address, code });
        }
        Ok(Outcome::Done)
    }

    fn confirm_code(&mut self, id: &ContactId, channel: Channel, said: CodeHash) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        let method = self.method_mut(id, channel)?;
        let address = method.address_key;
        match method.confirm(said, now).ok_or(Rejection::NoCode)? {
            Said::Right => {
                self.record(&SettingsDeed::MethodVerified { contact: id, channel, address });
                self.verify_calls_to(id, address);
                Ok(Outcome::Confirmed)
            }
            Said::Wrong(tries_left) => {
                self.record(&SettingsDeed::CodeWrong { contact: id, channel, address, tries_left });
                Ok(Outcome::WrongCode { tries_left })
            }
        }
    }

    /// A number that a code has reached is theirs for calls, too, so that nobody's phone need ring for it: it is the same phone. It is
    /// not so the other way round: a landline that was called takes no message.
    fn verify_calls_to(&mut self, id: &ContactId, address: AddressKey) {
        let now = self.cx.now;
        let Ok(calls) = self.method_mut(id, Channel::Voice) else { return };
        if calls.address_key == address && matches!(calls.standing, Standing::Unverified) {
            calls.standing = Standing::Verified { at: now };
            self.record(&SettingsDeed::MethodVerified { contact: id, channel: Channel::Voice, address });
        }
    }
}
