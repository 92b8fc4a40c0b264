//! The roster: what a college has set up beside its configuration, as one aggregate. It is changed as a whole, so that what
//! names a person is always held against the people that are there.
//!
//! ```text
//! contact   added ──> changed, any number of times ──> removed      (nobody was ever told there)
//!                                              └─────> deactivated  (somebody may have been: the audit names them)
//! ```
//!
//! How a number is proven stands in [`super::method`]. That a phone takes nothing from us is the phone's own word: it outlives
//! the contact who had the number. A number that is taken out while it is opted out is kept as that ([`OptedOutNumber`]), and
//! whoever gets it next gets it opted out. So is one that was only ever an emergency contact's of a student.
//!
//! Only a verified method of an active contact is used for alerts. Every change is [`Roster::on`]: a pure function of the
//! roster, a [`Change`] and the [`Situation`], which gives a [`Transition`]. The store commits the roster and its audit
//! entries (chain `settings/<organisation>`) at once, guarded by the version.

mod codes;
mod contacts;
mod deed;
mod policies;
mod schedules;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use codes::CodeTaken;
pub use contacts::ContactDetails;
pub use deed::{OptOutBy, SettingsDeed};
pub use policies::{CONFIGURED, Findings, POLICIES_MAX, RosterPolicy};
pub use schedules::SCHEDULES_MAX;

use super::audit::{Actor, AuditEntry, AuditHead, AuditStream};
use super::contact::{Channel, Contact, ContactMethod, ContactRole, Directory, Language};
use super::ids::{AddressKey, CodeHash, ContactId, OrganisationId, PersonKey, PolicyId, ScheduleId};
pub use super::method::{
    CODE_LASTS, CODE_TRIES, FieldFault, Method, MethodDetails, Number, PendingCode, SentCode, Standing,
};
use super::schedule::{Schedule, Zone};
use super::sealed::Sealed;

/// How many contacts may be active. An alert carries the newest message to each phone that it told.
pub const ACTIVE_MAX: usize = 64;
/// How many contacts are kept, those who have left included: their names belong to the audit.
pub const KEPT_MAX: usize = 200;

/// How many numbers of one channel are kept that nobody has and that take nothing from us; beyond that the oldest goes.
pub const OPTED_OUT_MAX: usize = 1_000;

/// How many numbers are kept that the provider calls bad: one for every channel of everybody who is active, and some.
pub const REFUSED_MAX: usize = 256;

/// A person of the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterContact {
    /// The id; never given to anybody else.
    pub id: ContactId,
    /// Counts the changes that people made, from 1.
    pub version: u64,
    /// Whose data key seals name and numbers.
    pub person: PersonKey,
    /// What they are called, sealed.
    pub name: Sealed,
    /// Why they are told.
    pub role: ContactRole,
    /// The language they are told in.
    pub language: Language,
    /// Where they live.
    pub time_zone: Zone,
    /// Their numbers, in the order in which they are tried; one a channel.
    pub methods: Vec<Method>,
    /// Whether they are told anything at all.
    pub active: bool,
    /// Whether one of their methods was ever verified: then they may have been told, and the audit names them.
    pub was_verified: bool,
}

impl RosterContact {
    /// The method of a channel.
    pub fn method(&self, channel: Channel) -> Option<&Method> {
        self.methods.iter().find(|method| method.channel == channel)
    }

    /// The person as alerts know them: with the methods that may be used. `None`: they cannot be told anything.
    pub fn reachable(&self, organisation: &OrganisationId) -> Option<Contact> {
        let methods: Vec<ContactMethod> = self.methods.iter().filter_map(Method::usable).collect();
        (self.active && !methods.is_empty()).then(|| Contact {
            id: self.id.clone(),
            organisation: organisation.clone(),
            person: self.person,
            role: self.role,
            language: self.language.clone(),
            methods,
        })
    }
}

/// A number that takes nothing from us, and that nobody has just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptedOutNumber {
    /// On which channel.
    pub channel: Channel,
    /// The number's keyed hash.
    pub address: AddressKey,
    /// Since when.
    pub since: Timestamp,
}

/// A number that the provider calls bad for its channel, of whomever can be told there. It is tried all the same: a wrong word
/// of the provider's must not keep anybody from being told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedNumber {
    /// On which channel.
    pub channel: Channel,
    /// The number's keyed hash.
    pub address: AddressKey,
    /// The provider's code.
    pub code: u32,
    /// Since when.
    pub since: Timestamp,
}

/// What a college has set up beside its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The college.
    pub organisation: OrganisationId,
    /// Counts the changes, from 1; 0: nothing was ever set up, and nothing is stored.
    pub version: u64,
    /// The people, in the order in which they were added.
    #[serde(default)]
    pub contacts: Vec<RosterContact>,
    /// Who is on call when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    /// Who is told when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<RosterPolicy>,
    /// Numbers that take nothing from us, and that nobody has just now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opted_out: Vec<OptedOutNumber>,
    /// Numbers that the provider calls bad, until a message arrives there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedNumber>,
    /// The highest version that a policy or schedule had which is no longer there: what is added begins above it, so that a
    /// version that somebody read is never another one's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed_at: u32,
    /// The codes of the last hour, for the limits.
    #[serde(default)]
    pub codes_sent: Vec<SentCode>,
    /// The head of the audit chain `settings/<organisation>`.
    pub audit_head: AuditHead,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(version: &u32) -> bool {
    *version == 0
}

/// What a change depends on besides the roster and the change itself.
pub struct Situation<'a> {
    /// The time.
    pub now: Timestamp,
    /// Who or what acts.
    pub actor: &'a Actor,
    /// The people of the configuration: nobody else has their ids or numbers.
    pub configured: &'a Directory,
    /// The numbers that we send from: nobody is told there.
    pub senders: &'a [(Channel, AddressKey)],
}

/// What is to change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A further person.
    AddContact {
        /// Their id, drawn for them.
        id: ContactId,
        /// Whose data key seals name and numbers.
        person: PersonKey,
        /// All about them.
        details: ContactDetails,
    },
    /// All about a person, anew.
    ReplaceContact {
        /// Who.
        id: ContactId,
        /// The version that the change was made from.
        from_version: u64,
        /// All about them.
        details: ContactDetails,
    },
    /// A person goes.
    RemoveContact {
        /// Who.
        id: ContactId,
        /// The version that was looked at.
        from_version: u64,
    },
    /// Somebody is about to see a person's numbers.
    RevealContact {
        /// Whose.
        id: ContactId,
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
    /// The provider has a code, or may have it.
    CodeTaken {
        /// To whom.
        id: ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number that it went to: the contact may have another one by now, or be gone.
        address: AddressKey,
        /// What was sent, and what came back.
        taken: CodeTaken,
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
    /// A further policy, or all of one anew.
    SavePolicy {
        /// The version that the change was made from; `None`: there is none yet.
        from_version: Option<u32>,
        /// The policy; its version is not looked at.
        policy: RosterPolicy,
    },
    /// A policy goes.
    RemovePolicy {
        /// Which.
        id: PolicyId,
        /// The version that was looked at.
        from_version: u32,
    },
    /// A further schedule, or all of one anew.
    SaveSchedule {
        /// The version that the change was made from; `None`: there is none yet.
        from_version: Option<u32>,
        /// The schedule; its version is not looked at.
        schedule: Schedule,
    },
    /// A schedule goes.
    RemoveSchedule {
        /// Which.
        id: ScheduleId,
        /// The version that was looked at.
        from_version: u32,
    },
    /// A phone takes nothing from us any more.
    OptOut {
        /// The channel.
        channel: Channel,
        /// The number.
        address: AddressKey,
        /// How that is known.
        by: OptOutBy,
    },
    /// A phone takes our messages again.
    OptIn {
        /// The channel.
        channel: Channel,
        /// The number.
        address: AddressKey,
    },
    /// The provider calls a number bad.
    NumberRefused {
        /// Whose.
        contact: ContactId,
        /// The channel.
        channel: Channel,
        /// The number.
        address: AddressKey,
        /// The provider's code.
        code: u32,
    },
    /// A message has arrived at a number.
    NumberReached {
        /// Whose.
        contact: ContactId,
        /// The channel.
        channel: Channel,
        /// The number.
        address: AddressKey,
    },
}

/// What a change came to, where that is not clear from the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, or there was nothing to change.
    Done,
    /// The person is gone from the roster.
    Removed,
    /// The person is kept, without numbers, for the audit names them.
    Deactivated,
    /// The code was right.
    Confirmed,
    /// It was not; so many more may be tried.
    WrongCode {
        /// How many.
        tries_left: u32,
    },
}

/// Why a change does not fit. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such contact.
    #[error("no such contact")]
    NoSuchContact,
    /// The contact has no such method.
    #[error("the contact has no such method")]
    NoSuchMethod,
    /// There is no such policy.
    #[error("no such escalation policy")]
    NoSuchPolicy,
    /// There is no such schedule.
    #[error("no such schedule")]
    NoSuchSchedule,
    /// What is in use cannot do without it.
    #[error("{0}")]
    StillNeeded(&'static str),
    /// Somebody has changed it meanwhile.
    #[error("it was changed meanwhile")]
    Outdated,
    /// The id is taken.
    #[error("the id is taken")]
    IdTaken,
    /// Fields break rules.
    #[error("{} fields break a rule", .0.len())]
    Invalid(Vec<FieldFault>),
    /// There are enough already.
    #[error("{0}")]
    TooMany(&'static str),
    /// It is verified.
    #[error("the method is verified")]
    AlreadyVerified,
    /// The phone takes nothing from us.
    #[error("the phone takes nothing until it says START")]
    OptedOut,
    /// A contact who is not active is sent nothing.
    #[error("the contact is not active")]
    Inactive,
    /// Another code may be sent after this.
    #[error("too many codes were sent")]
    TooSoon(Duration),
    /// No code is waited for.
    #[error("no code waits to be confirmed")]
    NoCode,
}

/// A change, ready to be committed.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The roster after the change.
    pub roster: Roster,
    /// The audit entries that tell of it; none: there was nothing to change.
    pub audit: Vec<AuditEntry>,
    /// What it came to.
    pub outcome: Outcome,
}

impl Roster {
    /// Nothing is set up.
    pub const fn empty(organisation: OrganisationId) -> Self {
        Self {
            organisation,
            version: 0,
            contacts: Vec::new(),
            schedules: Vec::new(),
            policies: Vec::new(),
            opted_out: Vec::new(),
            refused: Vec::new(),
            removed_at: 0,
            codes_sent: Vec::new(),
            audit_head: AuditHead::EMPTY,
        }
    }

    /// The person with this id.
    pub fn contact(&self, id: &ContactId) -> Option<&RosterContact> {
        self.contacts.iter().find(|contact| contact.id == *id)
    }

    /// The person who has this number on this channel.
    pub fn contact_at(&self, channel: Channel, address: AddressKey) -> Option<&RosterContact> {
        self.contacts.iter().find(|contact| contact.methods.iter().any(|method| method.is_at(channel, address)))
    }

    /// Whether a number takes nothing from us that nobody has just now.
    pub fn is_opted_out(&self, channel: Channel, address: AddressKey) -> bool {
        self.opted_out.iter().any(|known| (known.channel, known.address) == (channel, address))
    }

    /// With which code the provider calls a number bad, if it does.
    pub fn refused_code(&self, channel: Channel, address: AddressKey) -> Option<u32> {
        let known = self.refused.iter().find(|known| (known.channel, known.address) == (channel, address));
        known.map(|known| known.code)
    }

    /// Since when a phone takes nothing from us, whoever has it; `None`: nobody knows that it does not.
    pub fn opted_out_since(&self, channel: Channel, address: AddressKey) -> Option<Timestamp> {
        let methods = self.contacts.iter().flat_map(|contact| &contact.methods);
        let of_somebody =
            methods.filter(|method| method.is_at(channel, address)).find_map(|method| match method.standing {
                Standing::OptedOut { since, .. } => Some(since),
                Standing::Unverified | Standing::Verified { .. } => None,
            });
        let mut numbers = self.opted_out.iter().filter(|known| (known.channel, known.address) == (channel, address));
        of_somebody.or_else(|| numbers.next().map(|known| known.since))
    }

    /// Whether a schedule or a policy names this person.
    pub fn is_referred_to(&self, id: &ContactId) -> bool {
        let on_schedule = self.schedules.iter().any(|schedule| schedule.names().contains(id));
        on_schedule || self.policies.iter().any(|policy| policy.policy.names(id))
    }

    /// Everybody who can be told: the people of the configuration, and those of the roster who are active, with the
    /// methods that are verified; and who is on call when.
    pub fn directory(&self, configured: &Directory) -> Directory {
        let own = self.contacts.iter().filter_map(|contact| contact.reachable(&self.organisation));
        Directory::new(configured.people().cloned().chain(own).collect()).with_schedules(self.schedules.clone())
    }

    /// Changes a roster. A pure function: the same roster, change and situation give the same transition.
    ///
    /// # Errors
    /// The change does not fit what is there.
    pub fn on(self, change: Change, cx: &Situation<'_>) -> Result<Transition, Rejection> {
        let mut changing = Changing { roster: self, audit: Vec::new(), cx };
        let outcome = match change {
            Change::AddContact { id, person, details } => changing.add_contact(id, person, details)?,
            Change::ReplaceContact { id, from_version, details } => {
                let before = changing.roster.clone();
                let outcome = changing.replace_contact(&id, from_version, details)?;
                changing.refuse_to_lose(&id, &before)?;
                outcome
            }
            Change::RemoveContact { id, from_version } => {
                let before = changing.roster.clone();
                let outcome = changing.remove_contact(&id, from_version)?;
                changing.refuse_to_lose(&id, &before)?;
                outcome
            }
            Change::SavePolicy { from_version, policy } => changing.save_policy(from_version, policy)?,
            Change::RemovePolicy { id, from_version } => changing.remove_policy(&id, from_version)?,
            Change::SaveSchedule { from_version, schedule } => changing.save_schedule(from_version, schedule)?,
            Change::RemoveSchedule { id, from_version } => changing.remove_schedule(&id, from_version)?,
            Change::RevealContact { id } => changing.reveal_contact(&id)?,
            Change::SendCode { id, channel, hash } => changing.send_code(&id, channel, hash)?,
            Change::CodeNotSent { id, channel, hash, fault } => changing.code_not_sent(&id, channel, hash, fault)?,
            Change::CodeTaken { id, channel, address, taken } => changing.code_taken(&id, channel, address, &taken),
            Change::ConfirmCode { id, channel, hash } => changing.confirm_code(&id, channel, hash)?,
            Change::OptOut { channel, address, by } => changing.opt_out(channel, address, by),
            Change::OptIn { channel, address } => changing.opt_in(channel, address),
            Change::NumberRefused { contact, channel, address, code } => {
                changing.number_refused(&contact, channel, address, code)
            }
            Change::NumberReached { contact, channel, address } => changing.number_reached(&contact, channel, address),
        };
        let Changing { mut roster, audit, .. } = changing;
        if !audit.is_empty() {
            roster.version += 1;
        }
        Ok(Transition { roster, audit, outcome })
    }
}

/// A roster in the middle of a change. Whatever changes it records a deed.
struct Changing<'a, 'b> {
    roster: Roster,
    audit: Vec<AuditEntry>,
    cx: &'a Situation<'b>,
}

impl Changing<'_, '_> {
    fn record(&mut self, deed: &SettingsDeed<'_>) {
        let stream = AuditStream::Settings(self.roster.organisation.clone());
        self.audit.push(self.roster.audit_head.append(stream, self.cx.now, self.cx.actor, deed));
    }

    /// A policy in use must not lose whom it cannot do without. That a number has to be verified anew is another matter: it
    /// may be the person's only one, and is found by the look ahead.
    fn refuse_to_lose(&self, id: &ContactId, before: &Roster) -> Result<(), Rejection> {
        let as_it_was = |contact: &RosterContact| (contact.active, contact.role);
        if self.roster.contact(id).map(as_it_was) == before.contact(id).map(as_it_was) {
            return Ok(());
        }
        const WHY: &str = "an escalation policy in use cannot do without this contact: change that first";
        self.refuse_new_faults(before, Rejection::StillNeeded(WHY))
    }

    /// The version of something that people save with `If-Match`: a policy or a schedule.
    ///
    /// `before` is its version if it is there, `from` the one that was looked at. What was removed and is added again begins
    /// above every version that it had: whoever still holds one of these must not overwrite it.
    fn next_version(&self, before: Option<u32>, from: Option<u32>, missing: Rejection) -> Result<u32, Rejection> {
        match (before, from) {
            (None, None) => Ok(self.roster.removed_at.saturating_add(1)),
            (Some(_), None) => Err(Rejection::IdTaken),
            (None, Some(_)) => Err(missing),
            (Some(before), Some(from)) if before == from => Ok(from.saturating_add(1)),
            (Some(_), Some(_)) => Err(Rejection::Outdated),
        }
    }

    /// Something of this version goes.
    fn version_goes(&mut self, version: u32) {
        self.roster.removed_at = self.roster.removed_at.max(version);
    }

    fn place(&self, id: &ContactId) -> Result<usize, Rejection> {
        self.roster.contacts.iter().position(|contact| contact.id == *id).ok_or(Rejection::NoSuchContact)
    }
}

#[cfg(test)]
mod rota_tests;
#[cfg(test)]
mod tests;
