//! What the provider (Twilio) can say about a message, in the service's own words.
//!
//! The adapter turns HTTP answers and callbacks into these types; the state machines only ever see them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::ProviderId;

/// What a Twilio error code asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Not executed: try again soon, full jitter.
    Retry,
    /// Nobody knows whether it was executed: look it up before a resend. Said later, of a message that was taken: the next
    /// channel goes at once.
    Ambiguous,
    /// Refused for now: one more try after a pause, then the next channel.
    Delay,
    /// This number or channel will not work: the next channel goes at once.
    Switch,
    /// The recipient has opted out of this sender: the next channel, and the operator is told.
    OptOut,
    /// Needs an approved template instead of free text: the next channel, and the operator is told.
    Template,
    /// Our account, sender, template or request is at fault: the next channel, and the operator is told.
    Config,
}

/// What a Twilio error code says beside what its class asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultMark {
    /// The number is bad for this channel: whoever keeps it should look.
    BadNumber,
    /// Something of ours is behind it: the operator is told.
    Alarm,
    /// It may be chance once: the operator is told where it comes again.
    AlarmOnRepeats,
}

/// A fault that Twilio named: at the create call, or later in a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFault {
    /// Twilio's error code; `None` where the answer carried none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    /// What the code asks for.
    pub class: ErrorClass,
    /// How long a `Delay` should wait: the shortest and the longest pause, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<(u32, u32)>,
}

/// What became of one create call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Twilio has it.
    Accepted {
        /// Twilio's id of the message.
        provider_id: ProviderId,
        /// The initial status (`queued`, `accepted`, …).
        status: MessageStatus,
    },
    /// Surely not executed (429, connection refused before anything was written): may be sent again.
    NotExecuted {
        /// What Twilio asked for in `Retry-After`, unclamped.
        retry_after: Option<Duration>,
        /// The fault, where Twilio named one.
        fault: Option<ProviderFault>,
    },
    /// The call was not even begun: the sender's pace or the circuit breaker held it back. It uses up no attempt.
    NotBegun {
        /// How long it was told to wait.
        wait: Duration,
    },
    /// Refused for good or for a while, by the fault's class.
    Refused(ProviderFault),
    /// Time-out, connection lost after the request was written, 5xx: may or may not have been executed.
    Unknown {
        /// Which of these it was, for the log and the audit: a fixed word, never provider text.
        cause: UnknownCause,
        /// What Twilio asked for in `Retry-After` (a 503 may carry it), unclamped.
        retry_after: Option<Duration>,
    },
}

/// Why nobody knows what became of a create call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCause {
    /// No answer in time.
    TimeOut,
    /// The connection broke after the request may have been written.
    ConnectionLost,
    /// HTTP 5xx.
    ServerError,
    /// An answer that could not be read.
    UnreadableAnswer,
    /// The sender died, or was too slow: its lease ran out.
    LeaseExpired,
    /// The process that made it died, and another one has taken the store over.
    OwnerDied,
}

/// Twilio's status of a message or a call. Ordered by how far along the way it is; see [`MessageStatus::rank`].
///
/// Source: Twilio's OpenAPI description, `message.enum.status` and `call_enum_status`; for calls also its pages on call
/// progress events and answering machine detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Waits for its send time.
    Scheduled,
    /// Taken by a messaging service.
    Accepted,
    /// Waits for the sender's turn.
    Queued,
    /// On its way to the carrier.
    Sending,
    /// The carrier has it. May be the last status ever.
    Sent,
    /// On the phone.
    Delivered,
    /// Seen, if the recipient shares that.
    Read,
    /// The carrier gave up.
    Undelivered,
    /// Twilio gave up.
    Failed,
    /// Withdrawn before sending.
    Canceled,
    /// A call is being set up.
    Initiated,
    /// The phone rings.
    Ringing,
    /// Somebody or something has picked up, and nobody knows which.
    InProgress,
    /// The line was engaged.
    Busy,
    /// Nobody picked up.
    NoAnswer,
    /// The call is over, and nobody knows that a human heard it.
    Completed,
    /// A machine has picked up: it may have recorded the call, and told nobody.
    Machine,
    /// A human has picked up: they have heard it, and that is all.
    Answered,
}

impl Receipt {
    /// What it shows by itself: of a call that a human has picked up not that they were told anything, only that it is over.
    /// Where they were, that is known before, and stands.
    #[must_use]
    pub fn unless_told(self) -> Self {
        if self.status == MessageStatus::Answered { Self { status: MessageStatus::Completed, ..self } } else { self }
    }
}

impl MessageStatus {
    /// Parses Twilio's word for a message; `None` for inbound and unknown ones, which change nothing here.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "scheduled" => Self::Scheduled,
            "accepted" => Self::Accepted,
            "queued" => Self::Queued,
            "sending" => Self::Sending,
            "sent" => Self::Sent,
            "delivered" | "partially_delivered" => Self::Delivered,
            "read" => Self::Read,
            "undelivered" => Self::Undelivered,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            _ => return None,
        })
    }

    /// Reads Twilio's words for a call: its status, and who picked up, where machine detection says it. `None` for words that
    /// are new at Twilio.
    ///
    /// Only `human` means a human. Whether a call of which nobody knows who answered it (`unknown`, or no word at all) was
    /// heard by anybody is not known either, so it has not arrived.
    pub fn of_call(word: &str, answered_by: Option<&str>) -> Option<Self> {
        let answered = |unknown| match answered_by {
            Some("human") => Self::Answered,
            Some(who) if who.starts_with("machine") || who == "fax" => Self::Machine,
            Some(_) | None => unknown,
        };
        Some(match word {
            "queued" => Self::Queued,
            "initiated" => Self::Initiated,
            "ringing" => Self::Ringing,
            "in-progress" | "answered" => answered(Self::InProgress),
            "completed" => answered(Self::Completed),
            "busy" => Self::Busy,
            "no-answer" => Self::NoAnswer,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            _ => return None,
        })
    }

    /// Place in the forward-only merge: a status of lower or equal rank changes nothing. No two have the same, so that the order
    /// in which they come makes no difference.
    ///
    /// Failures rank above `Sent` and below `Delivered`: a phone that has the message has it, whatever is said later or
    /// was said before. Likewise of calls: that a human has picked up stands against everything else, and that a machine
    /// has against everything but that.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Scheduled => 0,
            Self::Accepted => 1,
            Self::Queued => 2,
            Self::Sending => 3,
            Self::Initiated => 4,
            Self::Sent => 5,
            Self::Ringing => 6,
            Self::InProgress => 7,
            Self::Canceled => 8,
            Self::Undelivered => 9,
            Self::Completed => 10,
            Self::NoAnswer => 11,
            Self::Busy => 12,
            Self::Failed => 13,
            Self::Machine => 14,
            Self::Delivered => 15,
            Self::Answered => 16,
            Self::Read => 17,
        }
    }

    /// Whether the message will not reach the phone, or the call reached nobody.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Undelivered
            | Self::Failed
            | Self::Canceled
            | Self::Busy
            | Self::NoAnswer
            | Self::Completed
            | Self::Machine => true,
            Self::Scheduled
            | Self::Accepted
            | Self::Queued
            | Self::Sending
            | Self::Sent
            | Self::Delivered
            | Self::Read
            | Self::Initiated
            | Self::Ringing
            | Self::InProgress
            | Self::Answered => false,
        }
    }

    /// Whether a call was put through and reached no human. That is nobody's fault, and no code names one.
    pub const fn is_unreached(self) -> bool {
        matches!(self, Self::Busy | Self::NoAnswer | Self::Completed | Self::Machine)
    }

    /// Whether the phone has it, or a human heard it. That is not to say that anybody has taken the case.
    pub const fn has_arrived(self) -> bool {
        matches!(self, Self::Delivered | Self::Read | Self::Answered)
    }

    /// Twilio's word for it, with `_` for its `-`; of a call also ours for who picked up.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Undelivered => "undelivered",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in_progress",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Completed => "completed",
            Self::Machine => "machine",
            Self::Answered => "answered",
        }
    }
}

/// One thing that Twilio said about a message: in a callback, a look-up or a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Twilio's id of the message.
    pub provider_id: ProviderId,
    /// What it says.
    pub status: MessageStatus,
    /// The fault, with a failure; a call that reached nobody has none.
    pub fault: Option<ProviderFault>,
}
