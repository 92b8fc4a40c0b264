//! Codes that prove a number, and phones that take nothing from us.
//!
//! A code lasts ten minutes and may be tried three times. A number gets five an hour, a minute apart, and a college as many as
//! it takes to set up everybody: whoever may send codes must not be able to make a phone ring all night, nor to guess.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::{Changing, Method, OptOutBy, Outcome, Rejection, SettingsDeed, Standing};
use crate::domain::contact::Channel;
use crate::domain::delivery::later;
use crate::domain::ids::{AddressKey, CodeHash, ContactId, ProviderId};

/// How long a code counts.
pub const CODE_LASTS: Duration = Duration::from_secs(10 * 60);
/// How often a code may be tried.
pub const CODE_TRIES: u32 = 3;
/// How long between two codes to one number.
const APART: Duration = Duration::from_secs(60);
/// What the limits look back on.
const LOOKED_BACK: Duration = Duration::from_secs(60 * 60);
/// How many codes one number gets in that time.
const NUMBER_MAX: usize = 5;
/// How many a college sends in that time.
const COLLEGE_MAX: usize = 120;

/// A code that was sent and has not come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCode {
    /// Its keyed hash.
    pub hash: CodeHash,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// How many more may be tried.
    pub tries_left: u32,
}

impl PendingCode {
    /// Until when it counts.
    pub fn until(&self) -> Timestamp {
        later(self.sent_at, CODE_LASTS)
    }

    /// A clock that was set is as far off in both directions: one that was set back must not make a code last.
    fn counts_at(&self, now: Timestamp) -> bool {
        now.duration_since(self.sent_at).unsigned_abs() < CODE_LASTS
    }
}

/// That a code was sent, for the limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCode {
    /// When.
    pub at: Timestamp,
    /// Over which channel.
    pub channel: Channel,
    /// To which number.
    pub address: AddressKey,
}

/// What was sent as a code, and what the provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeTaken {
    /// The provider's id of the message; `None`: it did not answer, so that the code may come or not.
    pub provider_id: Option<ProviderId>,
    /// The approved template that was sent; its text is at the provider.
    pub content_sid: Option<String>,
    /// SHA-256 of the text that was sent, with zeros in the place of the code: of the text as it went out the code could be
    /// found by trying a million.
    pub text_sha256: Option<String>,
}

impl Changing<'_, '_> {
    /// What came of sending a code, also where the contact is gone meanwhile: it was sent.
    pub(super) fn code_taken(
        &mut self,
        contact: &ContactId,
        channel: Channel,
        address: AddressKey,
        taken: &CodeTaken,
    ) -> Outcome {
        let (content_sid, text_sha256) = (taken.content_sid.as_deref(), taken.text_sha256.as_deref());
        self.record(&match &taken.provider_id {
            Some(provider_id) => {
                SettingsDeed::CodeAccepted { contact, channel, address, provider_id, content_sid, text_sha256 }
            }
            None => SettingsDeed::CodeUnknown { contact, channel, address, content_sid, text_sha256 },
        });
        Outcome::Done
    }

    pub(super) fn send_code(&mut self, id: &ContactId, channel: Channel, hash: CodeHash) -> Result<Outcome, Rejection> {
        let contact = &self.roster.contacts[self.place(id)?];
        let method = contact.method(channel).ok_or(Rejection::NoSuchMethod)?;
        if !contact.active {
            return Err(Rejection::Inactive);
        }
        match method.standing {
            Standing::Unverified => {}
            Standing::Verified { .. } => return Err(Rejection::AlreadyVerified),
            // Whoever said STOP is sent nothing, a code included.
            Standing::OptedOut { .. } => return Err(Rejection::OptedOut),
        }
        let address = method.address_key;
        self.refuse_too_soon(address)?;
        let code = PendingCode { hash, sent_at: self.cx.now, tries_left: CODE_TRIES };
        self.record(&SettingsDeed::CodeSent { contact: id, channel, address, until: code.until() });
        self.roster.codes_sent.push(SentCode { at: self.cx.now, channel, address });
        self.method_mut(id, channel)?.code = Some(code);
        Ok(Outcome::Done)
    }

    fn refuse_too_soon(&mut self, address: AddressKey) -> Result<(), Rejection> {
        let now = self.cx.now;
        let ago = |code: &SentCode| now.duration_since(code.at).unsigned_abs();
        self.roster.codes_sent.retain(|code| ago(code) < LOOKED_BACK);
        let sent = &self.roster.codes_sent;
        // The longest ago comes first. A code of before the clock was set back counts as long as one of before that time.
        let wait = |since: &SentCode, span: Duration| span.saturating_sub(ago(since));
        // It is one phone that rings, whichever channel makes it.
        let same: Vec<&SentCode> = sent.iter().filter(|code| code.address == address).collect();
        let apart = same.last().map(|last| wait(last, APART));
        let of_number = same.len().checked_sub(NUMBER_MAX).and_then(|first| same.get(first));
        let of_college = sent.len().checked_sub(COLLEGE_MAX).and_then(|first| sent.get(first));
        let of_both = of_number.copied().into_iter().chain(of_college).map(|first| wait(first, LOOKED_BACK));
        match apart.into_iter().chain(of_both).max() {
            Some(wait) if !wait.is_zero() => Err(Rejection::TooSoon(wait)),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn code_not_sent(
        &mut self,
        id: &ContactId,
        channel: Channel,
        hash: CodeHash,
        code: Option<u32>,
    ) -> Result<Outcome, Rejection> {
        let method = self.method_mut(id, channel)?;
        // Another may have been sent since.
        if method.code.take_if(|code| code.hash == hash).is_some() {
            let address = method.address_key;
            self.record(&SettingsDeed::CodeNotSent { contact: id, channel, address, code });
        }
        Ok(Outcome::Done)
    }

    pub(super) fn confirm_code(
        &mut self,
        id: &ContactId,
        channel: Channel,
        said: CodeHash,
    ) -> Result<Outcome, Rejection> {
        let now = self.cx.now;
        if !self.roster.contacts[self.place(id)?].active {
            return Err(Rejection::Inactive);
        }
        let method = self.method_mut(id, channel)?;
        let address = method.address_key;
        let code = method.code.as_mut().filter(|code| code.counts_at(now)).ok_or(Rejection::NoCode)?;
        if bool::from(code.hash.as_bytes().ct_eq(said.as_bytes())) {
            method.code = None;
            method.standing = Standing::Verified { at: now };
            let place = self.place(id)?;
            self.roster.contacts[place].was_verified = true;
            self.record(&SettingsDeed::MethodVerified { contact: id, channel, address });
            return Ok(Outcome::Confirmed);
        }
        code.tries_left = code.tries_left.saturating_sub(1);
        let tries_left = code.tries_left;
        if tries_left == 0 {
            method.code = None;
        }
        self.record(&SettingsDeed::CodeWrong { contact: id, channel, address, tries_left });
        Ok(Outcome::WrongCode { tries_left })
    }

    pub(super) fn opt_out(&mut self, channel: Channel, address: AddressKey, by: OptOutBy) -> Outcome {
        let since = self.cx.now;
        let Some((id, method)) = self.method_at(channel, address) else { return Outcome::Done };
        let verified_at = match method.standing {
            Standing::Unverified => None,
            Standing::Verified { at } => Some(at),
            Standing::OptedOut { .. } => return Outcome::Done,
        };
        method.standing = Standing::OptedOut { since, verified_at };
        method.code = None;
        self.record(&SettingsDeed::MethodOptedOut { contact: &id, channel, address, by });
        Outcome::Done
    }

    /// Whoever said STOP from this phone says START from it: it is the same phone as then.
    pub(super) fn opt_in(&mut self, channel: Channel, address: AddressKey) -> Outcome {
        let Some((id, method)) = self.method_at(channel, address) else {
            if self.roster.is_opted_out(channel, address) {
                self.roster.opted_out.retain(|known| (known.channel, known.address) != (channel, address));
                self.record(&SettingsDeed::MethodOptedIn { contact: None, channel, address });
            }
            return Outcome::Done;
        };
        method.standing = match method.standing {
            Standing::Unverified | Standing::Verified { .. } => return Outcome::Done,
            Standing::OptedOut { verified_at: Some(at), .. } => Standing::Verified { at },
            Standing::OptedOut { verified_at: None, .. } => Standing::Unverified,
        };
        self.record(&SettingsDeed::MethodOptedIn { contact: Some(&id), channel, address });
        Outcome::Done
    }

    fn method_mut(&mut self, id: &ContactId, channel: Channel) -> Result<&mut Method, Rejection> {
        let place = self.place(id)?;
        let mut methods = self.roster.contacts[place].methods.iter_mut();
        methods.find(|method| method.channel == channel).ok_or(Rejection::NoSuchMethod)
    }

    fn method_at(&mut self, channel: Channel, address: AddressKey) -> Option<(ContactId, &mut Method)> {
        self.roster.contacts.iter_mut().find_map(|contact| {
            let is_it = |method: &&mut Method| (method.channel, method.address_key) == (channel, address);
            contact.methods.iter_mut().find(is_it).map(|method| (contact.id.clone(), method))
        })
    }
}
