//! Consent, and the ground on which a send is allowed.

mod emergency;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use emergency::{
    DisclosureGround, EMERGENCY_CONTACTS_MAX, EmergencyChange, EmergencyContact, EmergencyDetails, EmergencySituation,
    EmergencyTransition, Word,
};

use super::audit::{Actor, AuditHead};
use super::contact::Channel;
use super::event::Label;
use super::ids::{OrganisationId, SubjectKey};
use super::method::SentCode;
use super::sealed::Sealed;

/// What a student said: about one channel, or about one of their emergency contacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelConsent {
    /// Whether the service may tell the student's counsellor over this channel, or this emergency contact.
    pub granted: bool,
    /// When it was said.
    pub at: Timestamp,
    /// Where it was said (`app_settings`, `onboarding`, …).
    pub source: Label,
    /// Which notice the student had read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_version: Option<Label>,
}

/// All that a student has said. No record means that nothing was ever said, which is not a yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentRecord {
    /// The college.
    pub organisation: OrganisationId,
    /// The student.
    pub subject: SubjectKey,
    /// Counts the changes, from 1.
    pub version: u64,
    /// The latest word on each channel.
    pub channels: BTreeMap<Channel, ChannelConsent>,
    /// Whom the student has named, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emergency_contacts: Vec<EmergencyContact>,
    /// The codes of the last hour that were sent to them, for the limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes_sent: Vec<SentCode>,
    /// The head of the audit chain `consent/<subject>`.
    pub audit_head: AuditHead,
}

impl ConsentRecord {
    /// Nothing was ever said, and nothing is stored.
    pub const fn empty(organisation: OrganisationId, subject: SubjectKey) -> Self {
        Self {
            organisation,
            subject,
            version: 0,
            channels: BTreeMap::new(),
            emergency_contacts: Vec::new(),
            codes_sent: Vec::new(),
            audit_head: AuditHead::EMPTY,
        }
    }

    /// The channels that are granted now.
    pub fn granted(&self) -> impl Iterator<Item = (Channel, &ChannelConsent)> {
        self.channels.iter().filter(|(_, consent)| consent.granted).map(|(channel, consent)| (*channel, consent))
    }
}

/// Why a send is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ground {
    /// The student agreed beforehand.
    Consent {
        /// Version of the consent record that was read.
        version: u64,
        /// When the newest of these channels was granted.
        granted_at: Timestamp,
        /// The channels it covers, and no other.
        channels: Vec<Channel>,
    },
    /// Somebody decided that life is at stake. Covers every channel.
    EmergencyOverride {
        /// Who decided, and why, in their words: sealed under the student's data key.
        statement: Sealed,
        /// Who handed the decision in.
        authorised_by: Actor,
        /// When it was handed in.
        at: Timestamp,
    },
    /// Nobody is told of anybody: it is a drill, and a drill alone stands on this. Covers every channel.
    Drill {
        /// Who or what started it.
        started_by: Actor,
        /// When.
        at: Timestamp,
    },
}

impl Ground {
    /// Whether this ground covers a send over `channel`.
    pub fn allows(&self, channel: Channel) -> bool {
        match self {
            Self::Consent { channels, .. } => channels.contains(&channel),
            Self::EmergencyOverride { .. } | Self::Drill { .. } => true,
        }
    }

    /// The channels that the student's own word covers; none where it rests on none.
    pub fn consented(&self) -> &[Channel] {
        match self {
            Self::Consent { channels, .. } => channels,
            Self::EmergencyOverride { .. } | Self::Drill { .. } => &[],
        }
    }

    /// The ground's kind, as in the API and in the audit.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Consent { .. } => "consent",
            Self::EmergencyOverride { .. } => "emergency_override",
            Self::Drill { .. } => "drill",
        }
    }
}

/// The ground on which the `needed` channels may be used, if there is one.
///
/// Consent that covers all of them is preferred, because it is the student's own word; then an override, which covers
/// everything; then consent that covers some of them.
pub fn ground_for(
    consent: Option<&ConsentRecord>,
    emergency_override: Option<Ground>,
    needed: &[Channel],
) -> Option<Ground> {
    let covered: Vec<(Channel, Timestamp)> = consent
        .into_iter()
        .flat_map(ConsentRecord::granted)
        .filter(|(channel, _)| needed.contains(channel))
        .map(|(channel, consent)| (channel, consent.at))
        .collect();
    let covers_all =
        !needed.is_empty() && needed.iter().all(|channel| covered.iter().any(|(known, _)| known == channel));
    if emergency_override.is_some() && !covers_all {
        return emergency_override;
    }
    let granted_at = covered.iter().map(|(_, at)| *at).max()?;
    let version = consent?.version;
    Some(Ground::Consent { version, granted_at, channels: covered.into_iter().map(|(channel, _)| channel).collect() })
}
