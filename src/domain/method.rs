//! Numbers of people, and how they are proven: a code that is sent there must come back. The same for everybody whose number
//! is kept: those whom a college sets up, and the emergency contacts of a student.
//!
//! ```text
//! Unverified ── right code ──> Verified ── STOP, or Twilio says so ──> OptedOut
//!     ^                            │ ^                                    │
//!     └── another number ──────────┘ └────────── START ───────────────────┘
//! ```
//!
//! A code lasts ten minutes and may be tried three times. A number gets five an hour, a minute apart: whoever may send codes
//! must not be able to make a phone ring all night, nor to guess.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::contact::{Channel, ContactMethod, Language};
use super::delivery::later;
use super::ids::{AddressKey, CodeHash, CodeSeed, OrganisationId};
use super::sealed::Sealed;

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

/// Whether a method may be used for alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Standing {
    /// Nobody has proved that it reaches the person.
    Unverified,
    /// A code that was sent there came back.
    Verified {
        /// When.
        at: Timestamp,
    },
    /// The phone takes nothing from us any more.
    OptedOut {
        /// Since when.
        since: Timestamp,
        /// When it was verified, if it was: START makes it so again.
        verified_at: Option<Timestamp>,
    },
}

impl Standing {
    /// The standing's name, as in the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Verified { .. } => "verified",
            Self::OptedOut { .. } => "opted_out",
        }
    }

    /// Whether alerts may be sent there.
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// One number on one channel, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// The channel.
    pub channel: Channel,
    /// The number, sealed under the data key of whoever it is kept with.
    pub address: Sealed,
    /// The number's keyed hash.
    pub address_key: AddressKey,
    /// How it stands.
    pub standing: Standing,
    /// The code that was sent and has not come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<PendingCode>,
}

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

/// What a call that brings a code is made with, so that what it is to say is found once somebody answers. It holds no code, and nothing
/// of whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpokenCode {
    /// Whose code it is: says who calls.
    pub organisation: OrganisationId,
    /// In which language it is said.
    pub language: Language,
    /// What the code is reckoned from.
    pub seed: CodeSeed,
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

/// What a code that somebody said comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It is the one: the method is verified.
    Right,
    /// It is not; so many more may be tried.
    Wrong(u32),
}

impl Method {
    /// The method as alerts know it.
    pub fn usable(&self) -> Option<ContactMethod> {
        let (channel, address, address_key) = (self.channel, &self.address, self.address_key);
        self.standing.is_usable().then(|| ContactMethod { channel, address: address.clone(), address_key })
    }

    /// Whether it is this number.
    pub fn is_at(&self, channel: Channel, address: AddressKey) -> bool {
        (self.channel, self.address_key) == (channel, address)
    }

    /// A code is about to be sent there; says until when it counts.
    pub(super) fn expect_code(&mut self, hash: CodeHash, now: Timestamp) -> Timestamp {
        self.code.insert(PendingCode { hash, sent_at: now, tries_left: CODE_TRIES }).until()
    }

    /// A code was not sent after all; says whether it was the one that is waited for.
    pub(super) fn forget_code(&mut self, hash: CodeHash) -> bool {
        self.code.take_if(|code| code.hash == hash).is_some()
    }

    /// Somebody says which code has come. `None`: none is waited for.
    pub(super) fn confirm(&mut self, said: CodeHash, now: Timestamp) -> Option<Said> {
        let code = self.code.as_mut().filter(|code| code.counts_at(now))?;
        if bool::from(code.hash.as_bytes().ct_eq(said.as_bytes())) {
            self.code = None;
            self.standing = Standing::Verified { at: now };
            return Some(Said::Right);
        }
        code.tries_left = code.tries_left.saturating_sub(1);
        let tries_left = code.tries_left;
        if tries_left == 0 {
            self.code = None;
        }
        Some(Said::Wrong(tries_left))
    }

    /// The phone takes nothing from us any more. Returns whether that is new.
    pub(super) fn opt_out(&mut self, since: Timestamp) -> bool {
        let verified_at = match self.standing {
            Standing::Unverified => None,
            Standing::Verified { at } => Some(at),
            Standing::OptedOut { .. } => return false,
        };
        self.standing = Standing::OptedOut { since, verified_at };
        self.code = None;
        true
    }

    /// Whoever said STOP from this phone says START from it: it is the same phone as then. Returns whether that is new.
    pub(super) fn opt_in(&mut self) -> bool {
        self.standing = match self.standing {
            Standing::Unverified | Standing::Verified { .. } => return false,
            Standing::OptedOut { verified_at: Some(at), .. } => Standing::Verified { at },
            Standing::OptedOut { verified_at: None, .. } => Standing::Unverified,
        };
        true
    }
}

/// How long a further code to this number must wait, of `most` an hour from whoever sends them; zero: it need not. Codes of
/// longer ago are forgotten.
pub(super) fn wait_for_code(sent: &mut Vec<SentCode>, now: Timestamp, address: AddressKey, most: usize) -> Duration {
    let ago = |code: &SentCode| now.duration_since(code.at).unsigned_abs();
    sent.retain(|code| ago(code) < LOOKED_BACK);
    // The longest ago comes first. A code of before the clock was set back counts as long as one of before that time.
    let wait = |since: &SentCode, span: Duration| span.saturating_sub(ago(since));
    // It is one phone that rings, whichever channel makes it.
    let same: Vec<&SentCode> = sent.iter().filter(|code| code.address == address).collect();
    let apart = same.last().map(|last| wait(last, APART));
    let of_number = same.len().checked_sub(NUMBER_MAX).and_then(|first| same.get(first));
    let of_all = sent.len().checked_sub(most).and_then(|first| sent.get(first));
    let of_both = of_number.copied().into_iter().chain(of_all).map(|first| wait(first, LOOKED_BACK));
    apart.into_iter().chain(of_both).max().unwrap_or_default()
}

/// A number, ready to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// Sealed under the data key of whoever it is kept with.
    pub address: Sealed,
    /// Its keyed hash.
    pub address_key: AddressKey,
}

/// A method as somebody sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodDetails {
    /// The channel.
    pub channel: Channel,
    /// The number; `None`: the one that is there.
    pub number: Option<Number>,
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// Where: a path such as `methods[0].number`.
    pub field: String,
    /// The rule, fit to be shown. Never the value.
    pub rule: &'static str,
}

/// The methods of a person as they shall be: what has the same number stands as it did. `stands_against` says what stands
/// against a further number, `standing_of` how one stands that is new to the person.
pub(super) fn replaced(
    before: &[Method],
    wanted: Vec<MethodDetails>,
    stands_against: impl Fn(Channel, AddressKey) -> Option<&'static str>,
    standing_of: impl Fn(Channel, AddressKey) -> Standing,
) -> Result<Vec<Method>, Vec<FieldFault>> {
    let (mut methods, mut faults, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    let fault = |index: usize, field: &str, rule| FieldFault { field: format!("methods[{index}].{field}"), rule };
    for (index, MethodDetails { channel, number }) in wanted.into_iter().enumerate() {
        if !seen.insert(channel) {
            faults.push(fault(index, "channel", "must be given once: a person has one number a channel"));
            continue;
        }
        let known = before.iter().find(|method| method.channel == channel);
        match (number, known) {
            (None, Some(known)) => methods.push(known.clone()),
            (None, None) => faults.push(fault(index, "number", "must be given")),
            (Some(number), Some(known)) if number.address_key == known.address_key => methods.push(known.clone()),
            (Some(number), _) => match stands_against(channel, number.address_key) {
                Some(rule) => faults.push(fault(index, "number", rule)),
                None => methods.push(Method {
                    channel,
                    address: number.address,
                    address_key: number.address_key,
                    standing: standing_of(channel, number.address_key),
                    code: None,
                }),
            },
        }
    }
    if faults.is_empty() { Ok(methods) } else { Err(faults) }
}

/// The methods whose numbers are in the first of these lists and not in the second.
pub(super) fn only_in<'a>(these: &'a [Method], those: &'a [Method]) -> impl Iterator<Item = &'a Method> {
    let is_new = |method: &&Method| !those.iter().any(|other| other.is_at(method.channel, method.address_key));
    these.iter().filter(is_new)
}

/// The channels, in the order in which they are tried.
pub(super) fn order(methods: &[Method]) -> Vec<Channel> {
    methods.iter().map(|method| method.channel).collect()
}
