//! Crisis events: a score posted by a backend, or a case raised by a person.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::contact::Channel;
use super::ids::{ContactId, EventId, InvalidId};
use super::sealed::Sealed;

/// A crisis score: a finite number in `0.0..=1.0`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Score(f64);

impl Score {
    /// The highest score. A case that a person raised ranks as high as this.
    pub const HIGHEST: Self = Self(1.0);

    /// A score, if the number is finite and in range.
    pub fn new(value: f64) -> Option<Self> {
        // `-0.0` is taken as `0.0`, so that equal scores have one form.
        (value.is_finite() && (0.0..=1.0).contains(&value)).then_some(Self(value + 0.0))
    }

    /// The number.
    pub const fn value(self) -> f64 {
        self.0
    }
}

impl Eq for Score {}
impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl TryFrom<f64> for Score {
    type Error = InvalidId;
    fn try_from(value: f64) -> Result<Self, InvalidId> {
        Self::new(value).ok_or(InvalidId { rule: "must be a finite number from 0 to 1" })
    }
}
impl From<Score> for f64 {
    fn from(score: Score) -> f64 {
        score.0
    }
}
impl fmt::Display for Score {
    /// Two decimals, rounded down: 0.996 must not be read as 1.00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The small addend keeps 0.29 from being shown as 0.28, which its binary form lies just below.
        let hundredths = (self.0 * 100.0 + 1e-9).floor();
        write!(f, "{:.2}", hundredths / 100.0)
    }
}

/// Where a crisis event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A text conversation.
    Chat,
    /// A voice call.
    Voice,
    /// A mood diary.
    Mood,
    /// A person raised it.
    Manual,
}

impl Source {
    /// The source's name, as in the API and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Voice => "voice",
            Self::Mood => "mood",
            Self::Manual => "manual",
        }
    }
}

/// A technical label such as a model version or a consent source: 1 to 64 of `A-Z a-z 0-9 . _ : / + -`.
///
/// It stands in the clear in the audit, so free text has no place in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Label {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/+-".contains(&b));
        if fits {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidId { rule: "must be 1 to 64 of the characters A-Z a-z 0-9 . _ : / + -" })
        }
    }
}
impl TryFrom<String> for Label {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0.to_string()
    }
}

/// What set an alert going, or joined it: everything about an event that is not personal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The event.
    pub event: EventId,
    /// Where it comes from.
    pub source: Source,
    /// The score; a case raised by a person has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// The threshold that the score was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Score>,
    /// Which model gave the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_version: Option<Label>,
    /// When it happened, by the backend's clock.
    pub occurred_at: Timestamp,
    /// When it was accepted, by ours.
    pub received_at: Timestamp,
}

impl Trigger {
    /// How grave it is: the score, or the highest where a person raised the case.
    pub fn severity(&self) -> Score {
        self.score.unwrap_or(Score::HIGHEST)
    }
}

/// Who wrote a reply, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyOrigin {
    /// Who.
    pub contact: ContactId,
    /// Over which channel.
    pub channel: Channel,
}

/// What a backend or a person wrote along with an event, or what somebody who was told replied, sealed. Kept beside the
/// alert, never inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDetails {
    /// The event; of a reply, an id of its own.
    pub event: EventId,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Whose reply it is; `None` for what came with an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<ReplyOrigin>,
    /// The message, sealed under the student's data key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Sealed>,
    /// The metadata as JSON text, sealed likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Sealed>,
}
