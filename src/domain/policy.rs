//! Escalation policies: who is told when, and what happens if nobody answers.

mod called;
pub mod check;
pub mod explain;
mod ladders;
mod usual;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::contact::{Channel, ContactRole, Directory};
use super::ids::{ContactId, PolicyId, ScheduleId};
pub use called::Called;
pub use ladders::Ladders;
pub use usual::DefaultLadder;

/// Who a step tells. A role and a schedule come to people when the step begins, not before: see [`Called`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// One person.
    Contact(ContactId),
    /// Everybody of a role.
    Role(ContactRole),
    /// Whoever is on call.
    Schedule(ScheduleId),
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long after the step before it. The first step begins with the alert, and with each round; its time is not
    /// used.
    #[serde(with = "millis")]
    pub after: Duration,
    /// Who is told.
    pub targets: Vec<Target>,
    /// Over which channels, in this order.
    pub channels: Vec<Channel>,
}

/// The ladder. An alert keeps the version that it runs on.
///
/// ```text
/// round 1: step 1 .. step n   round 2: step 1 .. step n   …   then the last responder, again and again,
/// until a human answers
/// ```
///
/// With [`further_rounds_with_last`](Self::further_rounds_with_last) the last responder's turn comes after the first round, and the
/// rungs of the further ones are told with them:
///
/// ```text
/// round 1: step 1 .. step n   last responder   last responder, step 1   last responder, step 2   …
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The policy's id.
    pub id: PolicyId,
    /// Counts its changes, from 1.
    pub version: u32,
    /// The rungs; never empty.
    pub steps: Vec<Step>,
    /// How often the whole ladder is climbed; at least once.
    pub rounds: u32,
    /// From the last step of a round to the first of the next.
    #[serde(with = "millis")]
    pub repeat_every: Duration,
    /// Who is told when every round was in vain.
    pub last_responder: Target,
    /// Over which channels, in this order.
    pub last_responder_channels: Vec<Channel>,
    /// How often the last responder is told again.
    #[serde(with = "millis")]
    pub last_responder_every: Duration,
    /// The last responder's turn comes after the first round. The rungs of the further rounds are told together with them,
    /// one at each turn, so that nobody is given up on whom the ladder tells several times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub further_rounds_with_last: bool,
    /// How long after it was planned a message may be without a receipt of its arrival before the same person is told
    /// over the next channel.
    #[serde(with = "millis", default = "fall_over_after")]
    pub fall_over_after: Duration,
    /// How soon after an acknowledgement an outcome or a check-in must follow, else whoever has taken the case is
    /// reminded.
    #[serde(with = "millis")]
    pub act_within: Duration,
    /// How soon after the reminder one must follow, else the case is escalated again.
    #[serde(with = "millis", default = "check_in_within")]
    pub check_in_within: Duration,
    /// Whether a reply from the phone of whoever has taken the case may close it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolve_by_reply: bool,
    /// How long after people began to be told the student's emergency contacts are told, too, if nobody has taken the case;
    /// `None`: never by itself.
    #[serde(with = "maybe_millis", default, skip_serializing_if = "Option::is_none")]
    pub emergency_contact_after: Option<Duration>,
    /// The respond-by time that a message names, counted from when it is planned.
    #[serde(with = "millis")]
    pub respond_within: Duration,
}

/// What alerts run on that were opened before there was a next channel: half a minute.
const fn fall_over_after() -> Duration {
    Duration::from_secs(30)
}

/// What alerts run on that were opened before there was a reminder: five minutes.
const fn check_in_within() -> Duration {
    Duration::from_secs(300)
}

impl Policy {
    /// SHA-256 of its stored form, in hexadecimal: tells one ladder from another.
    pub fn sha256(&self) -> String {
        // Plain values into memory: nothing of this can fail.
        let stored = serde_json::to_vec(self).unwrap_or_default();
        data_encoding::HEXLOWER.encode(&Sha256::digest(stored))
    }

    /// Every channel over which somebody on the ladder can be told, whenever: a ground is sought for these. A word for a
    /// channel that reaches nobody is no permission to tell anybody. For who is no longer set up, whoever is stands in.
    pub fn channels_that_reach(&self, directory: &Directory) -> Vec<Channel> {
        let rungs = self.steps.iter().flat_map(|step| step.targets.iter().map(|target| (target, &step.channels)));
        let mut reach: Vec<Channel> = rungs
            .chain([(&self.last_responder, &self.last_responder_channels)])
            .flat_map(|(target, channels)| target.reaches(directory, channels))
            .collect();
        if self.last_responder.ever(directory).is_empty() {
            reach.extend(directory.people().flat_map(|person| &person.methods).map(|method| method.channel));
        }
        reach.sort_unstable();
        reach.dedup();
        // Where nobody is set up at all, the alarm that nobody is told shall not look like missing consent.
        if reach.is_empty() { self.channels() } else { reach }
    }

    /// How often the ladder is climbed before the last responder's turn comes.
    pub const fn rounds_before_last(&self) -> u32 {
        if self.further_rounds_with_last { 1 } else { self.rounds }
    }

    /// Whether it names this person.
    pub fn names(&self, id: &ContactId) -> bool {
        let targets = self.steps.iter().flat_map(|step| &step.targets).chain([&self.last_responder]);
        targets.into_iter().any(|target| matches!(target, Target::Contact(named) if named == id))
    }

    /// Every channel that the policy may use.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> =
            self.steps.iter().flat_map(|step| &step.channels).chain(&self.last_responder_channels).copied().collect();
        channels.sort_unstable();
        channels.dedup();
        channels
    }
}

/// Where on the ladder an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Stage {
    /// On a rung; both count from 0.
    Step {
        /// The round.
        round: u32,
        /// The rung.
        step: u32,
    },
    /// Every round was in vain.
    LastResponder {
        /// How often the last responder was told, from 1.
        times: u32,
    },
}

impl Stage {
    /// The bottom of the ladder.
    pub const FIRST: Self = Self::Step { round: 0, step: 0 };

    /// Who this stage tells, over which channels.
    pub fn targets<'a>(&self, policy: &'a Policy) -> (&'a [Target], &'a [Channel]) {
        let last = (std::slice::from_ref(&policy.last_responder), policy.last_responder_channels.as_slice());
        match self {
            Self::Step { step, .. } => policy
                .steps
                .get(*step as usize)
                .map_or(last, |step| (step.targets.as_slice(), step.channels.as_slice())),
            Self::LastResponder { .. } => last,
        }
    }

    /// Which rung it is, from 0.
    pub const fn rung(&self) -> Option<u32> {
        match self {
            Self::Step { step, .. } => Some(*step),
            Self::LastResponder { .. } => None,
        }
    }

    /// The rung that this turn of the last responder's tells again, from 0; `None`: nobody but the last responder is told.
    pub fn told_again(&self, policy: &Policy) -> Option<u32> {
        match *self {
            Self::LastResponder { times } if policy.further_rounds_with_last => {
                let (turns, rungs) = (times.checked_sub(2)?, u32::try_from(policy.steps.len()).ok()?);
                (turns / rungs.max(1) < policy.rounds.saturating_sub(1)).then(|| turns % rungs.max(1))
            }
            Self::LastResponder { .. } | Self::Step { .. } => None,
        }
    }

    /// Whether this stage comes in the same round as `rung`; the last responder's first turn is the end of the round before it.
    pub const fn is_in_round_of(&self, rung: &Self) -> bool {
        match (*self, *rung) {
            (Self::Step { round, .. }, Self::Step { round: of, .. }) => round == of,
            (Self::LastResponder { times: 1 }, Self::Step { .. }) => true,
            (Self::LastResponder { .. }, Self::Step { .. } | Self::LastResponder { .. })
            | (Self::Step { .. }, Self::LastResponder { .. }) => false,
        }
    }

    /// How long this stage waits for an answer before the next one.
    pub fn patience(&self, policy: &Policy) -> Duration {
        match self {
            Self::Step { step, .. } => {
                policy.steps.get(*step as usize + 1).map_or(policy.repeat_every, |next| next.after)
            }
            Self::LastResponder { .. } => policy.last_responder_every,
        }
    }

    /// The stage after this one. There always is one: an open alert never ends in silence.
    pub fn next(&self, policy: &Policy) -> Self {
        match *self {
            Self::Step { round, step } if (step as usize + 1) < policy.steps.len() => {
                Self::Step { round, step: step + 1 }
            }
            Self::Step { round, .. } if round < policy.rounds_before_last().saturating_sub(1) => {
                Self::Step { round: round + 1, step: 0 }
            }
            Self::Step { .. } => Self::LastResponder { times: 1 },
            Self::LastResponder { times } => Self::LastResponder { times: times.saturating_add(1) },
        }
    }
}

/// The same as [`millis`], of what may be left out.
pub(crate) mod maybe_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
