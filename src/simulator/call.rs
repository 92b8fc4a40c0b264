//! A call in the simulator's world: what was asked for, how far it got, and what was said in it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::callback::Form;
use super::message::{Twist, mask};
use super::twiml::Verb;

/// A call's status, in Twilio's words. `Initiated` is told by callbacks only.
///
/// Source: Twilio's OpenAPI description, `call_enum_status`, and its page on call progress events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallStatus {
    /// Waits for its turn.
    Queued,
    /// Is being set up.
    Initiated,
    /// The phone rings.
    Ringing,
    /// Somebody or something has picked up.
    InProgress,
    /// It was answered, and is over.
    Completed,
    /// The line was engaged, or the person turned it down.
    Busy,
    /// Nobody picked up.
    NoAnswer,
    /// It could not be put through.
    Failed,
    /// It was called off before anybody picked up.
    Canceled,
}

impl CallStatus {
    /// Twilio's word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether it is over.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress => false,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled => true,
        }
    }

    /// The name under which a callback of it is asked for.
    pub(super) const fn event(self) -> Option<&'static str> {
        match self {
            Self::Queued => None,
            Self::Initiated => Some("initiated"),
            Self::Ringing => Some("ringing"),
            Self::InProgress => Some("answered"),
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Failed | Self::Canceled => Some("completed"),
        }
    }
}

/// Who picked up, as machine detection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// A human.
    Human,
    /// A machine, which has ended its greeting with a tone.
    MachineEndBeep,
    /// Nobody knows.
    Unknown,
}

impl AnsweredBy {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::MachineEndBeep => "machine_end_beep",
            Self::Unknown => "unknown",
        }
    }
}

/// What happens to a call without anybody's doing; else it rings until somebody acts, or its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Busy,
    NoAnswer,
    Voicemail,
    /// Somebody picks up, hears it all, and presses nothing.
    Listens,
    /// Somebody picks up, and presses this.
    Presses(char),
    /// It cannot be put through.
    Fails,
}

/// A gather that waits for a key.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub action: Option<String>,
    pub timeout: Duration,
}

/// What changes as a call goes on.
pub(super) struct CallCourse {
    pub status: CallStatus,
    pub answered_by: Option<AnsweredBy>,
    /// What was said, in its order.
    pub said: Vec<String>,
    /// What was pressed.
    pub keys: String,
    pub waiting: Option<Waiting>,
    /// What is to be done after that, the next at the end.
    pub rest: Vec<Verb>,
    pub updated_at: Timestamp,
    pub answered_at: Option<Timestamp>,
    /// Goes up with every change: a time-out that was meant for another moment does nothing.
    pub mark: u64,
    /// The number of the next callback.
    pub sequence: u32,
    pub expected: bool,
    /// The callback of `ringing`, held back until the next one has gone out.
    pub held: Option<Form>,
}

/// A call as the simulator keeps it.
pub(super) struct Call {
    pub seq: u64,
    pub sid: String,
    pub to: String,
    pub from: String,
    pub url: Option<String>,
    /// What is asked where another address does not say what is to be done.
    pub fallback_url: Option<String>,
    /// What is said where no URL is to be asked.
    pub twiml: Option<String>,
    pub status_callback: Option<String>,
    pub events: Vec<String>,
    pub rings_for: Duration,
    pub detects_machines: bool,
    pub created_at: Timestamp,
    pub habit: Option<Habit>,
    pub error_code: Option<u32>,
    pub twist: Twist,
    /// Kept out of lists (but found by its SID).
    pub hidden: bool,
    pub course: Mutex<CallCourse>,
    /// One thing at a time happens to a call.
    pub turn: tokio::sync::Mutex<()>,
    pub changed: Notify,
}

impl Call {
    /// The snapshot that leaves the simulator.
    pub(super) fn snapshot(&self) -> SimCall {
        let course = self.course.lock();
        SimCall {
            sid: self.sid.clone(),
            phone: self.to.clone(),
            from: self.from.clone(),
            status: course.status,
            answered_by: course.answered_by,
            said: course.said.clone(),
            keys: course.keys.clone(),
            waits_for_a_key: course.waiting.is_some(),
            url: self.url.clone(),
            status_callback: self.status_callback.clone(),
            created_at: self.created_at,
            updated_at: course.updated_at,
            expected: course.expected,
        }
    }
}

/// A call as tests and the phone page see it: a copy, taken at one moment.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SimCall {
    /// `CA` and 32 hexadecimal digits.
    pub sid: String,
    /// The phone.
    pub phone: String,
    /// Who calls.
    pub from: String,
    /// How far it got.
    pub status: CallStatus,
    /// Who picked up, where machine detection was asked for.
    pub answered_by: Option<AnsweredBy>,
    /// What was said, each sentence as TwiML gives it.
    pub said: Vec<String>,
    /// What was pressed.
    pub keys: String,
    /// Whether a key is waited for.
    pub waits_for_a_key: bool,
    /// Where Twilio asks what to say.
    pub url: Option<String>,
    /// Where its callbacks go.
    pub status_callback: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Whether a test has said that it expects this call.
    pub expected: bool,
}

impl fmt::Debug for SimCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCall")
            .field("sid", &self.sid)
            .field("phone", &mask(&self.phone))
            .field("status", &self.status)
            .field("answered_by", &self.answered_by)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// The last calls, by age and by SID.
pub(super) struct Calls {
    keep: usize,
    next_seq: u64,
    by_seq: BTreeMap<u64, Arc<Call>>,
    by_sid: HashMap<String, Arc<Call>>,
}

impl Calls {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep: keep.max(1), next_seq: 1, by_seq: BTreeMap::new(), by_sid: HashMap::new() }
    }

    /// Keeps a call, made with the number it gets; forgets the oldest if there are too many.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Call) -> Arc<Call> {
        let seq = self.next_seq;
        self.next_seq += 1;
        let call = Arc::new(make(seq));
        self.by_seq.insert(seq, Arc::clone(&call));
        self.by_sid.insert(call.sid.clone(), Arc::clone(&call));
        if self.by_seq.len() > self.keep
            && let Some((_, oldest)) = self.by_seq.pop_first()
        {
            self.by_sid.remove(&oldest.sid);
        }
        call
    }

    pub(super) fn get(&self, sid: &str) -> Option<Arc<Call>> {
        self.by_sid.get(sid).cloned()
    }

    /// All calls, oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Call>> {
        self.by_seq.values()
    }

    pub(super) fn clear(&mut self) {
        self.by_seq.clear();
        self.by_sid.clear();
    }
}
