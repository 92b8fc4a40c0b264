//! What the entries of the chain `settings/<organisation>` say. Pseudonymous: ids, roles, channels, hashes of numbers.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::contact::{Channel, ContactRole, Language};
use crate::domain::ids::{AddressKey, ContactId, PolicyId, ProviderId, ScheduleId};
use crate::domain::message::UrgencyBand;
use crate::domain::policy::Policy;
use crate::domain::schedule::{Schedule, Zone};

/// How it is known that a phone takes nothing from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum OptOutBy {
    /// The person replied STOP.
    Reply,
    /// The provider refused a message on account of it.
    Provider {
        /// The provider's error code.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
    },
}

/// One change of what a college has set up. The order of the fields is part of the canonical text.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum SettingsDeed<'a> {
    /// A person was added.
    ContactAdded {
        /// Who.
        contact: &'a ContactId,
        /// Why they are told.
        role: ContactRole,
        /// In which language.
        language: &'a Language,
        /// Where they live.
        time_zone: &'a Zone,
        /// Whether they are told anything.
        active: bool,
    },
    /// What is known of a person was changed; what stayed as it was is left out.
    ContactChanged {
        /// Who.
        contact: &'a ContactId,
        /// Whether they are called otherwise.
        renamed: bool,
        /// Why they are told.
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<ContactRole>,
        /// In which language.
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<&'a Language>,
        /// Where they live.
        #[serde(skip_serializing_if = "Option::is_none")]
        time_zone: Option<&'a Zone>,
        /// Whether they are told anything.
        #[serde(skip_serializing_if = "Option::is_none")]
        active: Option<bool>,
        /// Their channels, in the order in which they are tried.
        #[serde(skip_serializing_if = "Option::is_none")]
        order: Option<Vec<Channel>>,
    },
    /// A person who was never told anything is no longer there.
    ContactRemoved {
        /// Who.
        contact: &'a ContactId,
    },
    /// Somebody looked at a person's numbers.
    ContactRevealed {
        /// Whose.
        contact: &'a ContactId,
    },
    /// A person has a further number, or another one; it is not verified.
    MethodSet {
        /// Whose.
        contact: &'a ContactId,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// Whether its phone takes nothing from us: it said so when somebody had it before.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        opted_out: bool,
    },
    /// A person does not have a number any more.
    MethodRemoved {
        /// Whose.
        contact: &'a ContactId,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
    },
    /// A code is about to be sent. Written before the call.
    CodeSent {
        /// To whom.
        contact: &'a ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// Until when it counts.
        until: Timestamp,
    },
    /// The provider has it.
    CodeAccepted {
        /// To whom.
        contact: &'a ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// The provider's id of the message.
        provider_id: &'a ProviderId,
        /// The approved template that was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_sid: Option<&'a str>,
        /// SHA-256 of the text with zeros in the place of the code.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_sha256: Option<&'a str>,
    },
    /// The provider did not answer: it may come, or not.
    CodeUnknown {
        /// To whom.
        contact: &'a ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// The approved template that was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_sid: Option<&'a str>,
        /// SHA-256 of the text with zeros in the place of the code.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_sha256: Option<&'a str>,
    },
    /// The provider has refused to send it.
    CodeNotSent {
        /// To whom.
        contact: &'a ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// The provider's error code.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u32>,
    },
    /// Somebody said a code that was not the one.
    CodeWrong {
        /// To whom it was sent.
        contact: &'a ContactId,
        /// Over which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// How many more may be tried.
        tries_left: u32,
    },
    /// The code came back: the number reaches the person.
    MethodVerified {
        /// Whose.
        contact: &'a ContactId,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
    },
    /// The phone takes nothing from us any more.
    MethodOptedOut {
        /// Whose; left out: nobody's of the roster.
        #[serde(skip_serializing_if = "Option::is_none")]
        contact: Option<&'a ContactId>,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// How that is known.
        #[serde(flatten)]
        by: OptOutBy,
    },
    /// A policy was added or changed. It stands here as a whole, so that every version can be read again.
    PolicySaved {
        /// The policy.
        policy: &'a Policy,
        /// The bands that it is active for.
        bands: &'a [UrgencyBand],
    },
    /// A policy is no longer there.
    PolicyRemoved {
        /// Which.
        policy: &'a PolicyId,
        /// Its last version.
        version: u32,
    },
    /// A schedule was added or changed. It stands here as a whole.
    ScheduleSaved {
        /// The schedule.
        schedule: &'a Schedule,
    },
    /// A schedule is no longer there.
    ScheduleRemoved {
        /// Which.
        schedule: &'a ScheduleId,
        /// Its last version.
        version: u32,
    },
    /// The phone takes our messages again.
    MethodOptedIn {
        /// Whose; not there where nobody has the number just now.
        #[serde(skip_serializing_if = "Option::is_none")]
        contact: Option<&'a ContactId>,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
    },
    /// The provider calls a number bad. It is used all the same.
    NumberRefused {
        /// Whose.
        contact: &'a ContactId,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
        /// The provider's code.
        code: u32,
    },
    /// A message has arrived at a number that the provider had called bad.
    NumberReached {
        /// Whose.
        contact: &'a ContactId,
        /// On which channel.
        channel: Channel,
        /// The number's keyed hash.
        address: AddressKey,
    },
}
