//! A message in the simulator's world: what was asked for, how far it got, and what fate was drawn for it.

use std::fmt;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::callback::Form;

/// A message's status, in Twilio's words.
///
/// Source: Twilio's OpenAPI description, `message.enum.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimStatus {
    /// Waits for its send time.
    Scheduled,
    /// Taken by a messaging service, which has not chosen a sender yet.
    Accepted,
    /// Waits for the sender's turn.
    Queued,
    /// On its way to the carrier.
    Sending,
    /// The carrier has it.
    Sent,
    /// On the phone.
    Delivered,
    /// Seen.
    Read,
    /// The carrier gave up.
    Undelivered,
    /// Twilio gave up.
    Failed,
    /// Withdrawn before it was sent.
    Canceled,
    /// Came in from a phone.
    Received,
}

impl SimStatus {
    /// Twilio's word for it.
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
            Self::Received => "received",
        }
    }

    /// Whether it is over: Twilio lets such a message be redacted and deleted.
    pub const fn is_complete(self) -> bool {
        match self {
            Self::Scheduled | Self::Accepted | Self::Queued | Self::Sending | Self::Sent => false,
            Self::Delivered | Self::Read | Self::Undelivered | Self::Failed | Self::Canceled | Self::Received => true,
        }
    }

    /// How far along it is, so that a callback told by hand out of order does not set the resource back.
    const fn rank(self) -> u8 {
        match self {
            Self::Scheduled => 0,
            Self::Accepted => 1,
            Self::Queued => 2,
            Self::Sending => 3,
            Self::Sent => 4,
            Self::Undelivered | Self::Failed | Self::Canceled => 5,
            Self::Delivered => 6,
            Self::Read | Self::Received => 7,
        }
    }
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Created through the REST API.
    OutboundApi,
    /// Said in the TwiML answer to an inbound message.
    OutboundReply,
    /// Written on a phone.
    Inbound,
}

impl Direction {
    /// Twilio's word for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::OutboundApi => "outbound-api",
            Self::OutboundReply => "outbound-reply",
            Self::Inbound => "inbound",
        }
    }
}

/// How a message will end, settled when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives.
    Arrives,
    /// It stays `sent` for ever.
    StaysSent,
    /// The carrier (`undelivered`) or Twilio (`failed`) gives up, with this error code.
    Fails { status: SimStatus, code: u32 },
}

/// How a message's callbacks misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Twist {
    /// None is ever posted.
    pub lost: bool,
    /// Each is posted so many times more.
    pub repeated: u32,
    /// `sent` is told after the status that follows it.
    pub reordered: bool,
    /// `sent` is told before the create call is answered.
    pub early: bool,
    /// Fields that no documentation names come along.
    pub extra_fields: bool,
}

/// What changes as a message goes on.
pub(super) struct Course {
    pub status: SimStatus,
    /// `None` until a messaging service has chosen.
    pub from: Option<String>,
    pub body: String,
    pub updated_at: Timestamp,
    pub sent_at: Option<Timestamp>,
    pub error_code: Option<u32>,
    pub expected: bool,
    /// The callback of `sent`, held back until the next one has gone out.
    pub held: Option<Form>,
}

/// A message as the simulator keeps it.
pub(super) struct Message {
    pub seq: u64,
    pub sid: String,
    pub direction: Direction,
    /// The phone's number without a channel prefix: what the index and the phone page go by.
    pub phone: String,
    pub to: String,
    pub messaging_service_sid: Option<String>,
    pub content_sid: Option<String>,
    pub buttons: Vec<SimButton>,
    pub status_callback: Option<String>,
    pub replied_to: Option<String>,
    pub created_at: Timestamp,
    /// When a scheduled message is due.
    pub send_at: Option<Timestamp>,
    pub fate: Fate,
    pub twist: Twist,
    /// Kept out of lists (but found by its SID).
    pub hidden: bool,
    pub course: Mutex<Course>,
}

impl Message {
    /// Whether it goes over WhatsApp.
    pub(super) fn is_whatsapp(&self) -> bool {
        self.to.starts_with(WHATSAPP)
    }

    /// Moves to the next status of its way, if there is one. `reads`: whether recipients share that they have read.
    pub(super) fn advance(&self, now: Timestamp, reads: bool, sender: impl FnOnce() -> String) -> Option<SimStatus> {
        let mut course = self.course.lock();
        let next = match course.status {
            SimStatus::Scheduled | SimStatus::Accepted | SimStatus::Queued | SimStatus::Sending => match self.fate {
                Fate::Fails { status: SimStatus::Failed, .. } => SimStatus::Failed,
                Fate::Fails { .. } | Fate::Arrives | Fate::StaysSent => SimStatus::Sent,
            },
            SimStatus::Sent => match self.fate {
                Fate::Arrives => SimStatus::Delivered,
                Fate::StaysSent => return None,
                Fate::Fails { status, .. } => status,
            },
            SimStatus::Delivered if reads && self.is_whatsapp() && self.direction == Direction::OutboundApi => {
                SimStatus::Read
            }
            SimStatus::Delivered
            | SimStatus::Read
            | SimStatus::Undelivered
            | SimStatus::Failed
            | SimStatus::Canceled
            | SimStatus::Received => return None,
        };
        course.from.get_or_insert_with(sender);
        let code = match self.fate {
            Fate::Fails { status, code } if status == next => Some(code),
            Fate::Fails { .. } | Fate::Arrives | Fate::StaysSent => None,
        };
        course.set(next, code, now);
        Some(next)
    }

    /// The snapshot that leaves the simulator.
    pub(super) fn snapshot(&self) -> SimMessage {
        let course = self.course.lock();
        SimMessage {
            sid: self.sid.clone(),
            direction: self.direction,
            phone: self.phone.clone(),
            from: course.from.clone(),
            to: self.to.clone(),
            body: course.body.clone(),
            content_sid: self.content_sid.clone(),
            buttons: self.buttons.clone(),
            status: course.status,
            error_code: course.error_code,
            status_callback: self.status_callback.clone(),
            replied_to: self.replied_to.clone(),
            created_at: self.created_at,
            updated_at: course.updated_at,
            expected: course.expected,
        }
    }
}

impl Course {
    /// Sets a status, forward only, and what goes with it.
    pub(super) fn set(&mut self, status: SimStatus, error_code: Option<u32>, now: Timestamp) {
        if status.rank() < self.status.rank() {
            return;
        }
        self.status = status;
        self.updated_at = now;
        self.error_code = error_code;
        if self.sent_at.is_none() && status.rank() >= SimStatus::Sent.rank() && status != SimStatus::Canceled {
            self.sent_at = Some(now);
        }
    }
}

/// A quick-reply button under a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimButton {
    /// What stands on it; a tap says this as its text.
    pub title: String,
    /// What a tap carries as `ButtonPayload`.
    pub id: String,
}

/// A message as tests and the phone page see it: a copy, taken at one moment.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SimMessage {
    /// `SM` and 32 hexadecimal digits.
    pub sid: String,
    /// Which way it went.
    pub direction: Direction,
    /// The phone's number, without a channel prefix.
    pub phone: String,
    /// The sender; `None` until a messaging service has chosen one.
    pub from: Option<String>,
    /// The recipient, with its channel prefix.
    pub to: String,
    /// The text as the phone shows it: a template's with its values filled in.
    pub body: String,
    /// The template it was made from.
    pub content_sid: Option<String>,
    /// Its quick-reply buttons.
    pub buttons: Vec<SimButton>,
    /// How far it got.
    pub status: SimStatus,
    /// Why it failed.
    pub error_code: Option<u32>,
    /// Where its callbacks go, with the fragment.
    pub status_callback: Option<String>,
    /// Of an inbound message: the message it answers.
    pub replied_to: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Whether a test has said that it expects this message.
    pub expected: bool,
}

impl fmt::Debug for SimMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimMessage")
            .field("sid", &self.sid)
            .field("direction", &self.direction)
            .field("phone", &mask(&self.phone))
            .field("status", &self.status)
            .field("error_code", &self.error_code)
            .field("body_chars", &self.body.chars().count())
            .finish_non_exhaustive()
    }
}

/// The prefix of a WhatsApp address.
pub(super) const WHATSAPP: &str = "whatsapp:";

/// An address without its channel prefix.
pub(super) fn phone_of(address: &str) -> &str {
    address.strip_prefix(WHATSAPP).unwrap_or(address)
}

/// The last two digits of a number, for people who must tell numbers apart without reading them.
pub(super) fn mask(number: &str) -> String {
    let tail: String = number.chars().rev().take(2).collect();
    format!("…{}", tail.chars().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn message(fate: Fate, to: &str) -> Message {
        Message {
            seq: 1,
            sid: "SM00000000000000000000000000000001".to_owned(),
            direction: Direction::OutboundApi,
            phone: phone_of(to).to_owned(),
            to: to.to_owned(),
            messaging_service_sid: None,
            content_sid: None,
            buttons: Vec::new(),
            status_callback: None,
            replied_to: None,
            created_at: Timestamp::UNIX_EPOCH,
            send_at: None,
            fate,
            twist: Twist::default(),
            hidden: false,
            course: Mutex::new(Course {
                status: SimStatus::Queued,
                from: None,
                body: "a secret word".to_owned(),
                updated_at: Timestamp::UNIX_EPOCH,
                sent_at: None,
                error_code: None,
                expected: false,
                held: None,
            }),
        }
    }

    fn way(fate: Fate, to: &str, reads: bool) -> Vec<SimStatus> {
        let message = message(fate, to);
        std::iter::from_fn(|| message.advance(Timestamp::UNIX_EPOCH, reads, || "+1".to_owned())).collect()
    }

    #[test]
    fn each_fate_has_its_way() {
        use SimStatus::{Delivered, Failed, Read, Sent, Undelivered};
        let undelivered = Fate::Fails { status: Undelivered, code: 63016 };
        let failed = Fate::Fails { status: Failed, code: 30001 };
        assert_eq!(way(Fate::Arrives, "whatsapp:+491", true), [Sent, Delivered, Read]);
        assert_eq!(way(Fate::Arrives, "whatsapp:+491", false), [Sent, Delivered]);
        assert_eq!(way(Fate::Arrives, "+491", true), [Sent, Delivered]);
        assert_eq!(way(Fate::StaysSent, "+491", true), [Sent]);
        assert_eq!(way(undelivered, "+491", true), [Sent, Undelivered]);
        assert_eq!(way(failed, "+491", true), [Failed]);
    }

    #[test]
    fn a_late_status_does_not_set_the_resource_back() {
        let message = message(Fate::Arrives, "+491");
        let mut course = message.course.lock();
        course.set(SimStatus::Delivered, None, Timestamp::UNIX_EPOCH);
        course.set(SimStatus::Sent, None, Timestamp::UNIX_EPOCH);
        assert_eq!(course.status, SimStatus::Delivered);
    }

    #[test]
    fn debug_output_shows_neither_number_nor_text() {
        let text = format!("{:?}", message(Fate::Arrives, "whatsapp:+4915112345678").snapshot());
        assert!(!text.contains("4915112345") && !text.contains("secret"), "{text}");
    }
}
