//! What can be made to go wrong, how often, and for whom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call::Habit;
use super::message::{Fate, SimStatus, Twist, phone_of};

/// One way to misbehave. As JSON: `{"kind": "slow", "ms": 200}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// HTTP 429, code 20429: not executed.
    TooManyRequests {
        /// The `Retry-After` header, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u32>,
    },
    /// HTTP 500 (code 20500) or 503 (code 20503): the create call was not executed, though nobody can tell.
    ServerError {
        /// 500 or 503; any other 5xx is answered with code 20500.
        http_status: u16,
        /// The `Retry-After` header, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u32>,
    },
    /// The call is refused with this error code.
    Refused {
        /// Twilio's error code.
        code: u32,
        /// The HTTP status; 400 if not given.
        #[serde(default = "bad_request")]
        http_status: u16,
    },
    /// Accepted, and it fails on the way.
    FailsLater {
        /// Twilio's error code.
        code: u32,
        /// `failed` instead of `undelivered`.
        #[serde(default)]
        failed: bool,
    },
    /// The message is created, the answer never comes: the connection is held open, then dropped.
    AcceptThenTimeOut,
    /// The same, and lists do not show the message (its SID, known from a callback, still finds it).
    AcceptThenTimeOutHidden,
    /// Nothing is created, the answer never comes.
    TimeOutWithoutAccepting,
    /// The connection breaks before anything is created.
    DropBeforeAccepting,
    /// The connection breaks after the message was created.
    DropAfterAccepting,
    /// The message is created at once, the answer comes so much later.
    Slow {
        /// Milliseconds, by the simulator's clock.
        ms: u64,
    },
    /// HTTP 502 with an HTML page.
    HtmlBadGateway {
        /// Whether the message was created all the same.
        #[serde(default)]
        accepted: bool,
    },
    /// The message is created and answered with HTTP 201, without a body.
    EmptyAnswer,
    /// No callback of the message ever arrives.
    CallbacksLost,
    /// Each callback is posted more than once, with the same idempotency token.
    CallbacksRepeated {
        /// How many times more; at most [`REPEATS_MAX`].
        times: u32,
    },
    /// `sent` is told after the status that follows it.
    CallbacksReordered,
    /// `sent` is told before the create call is answered.
    CallbackEarly,
    /// Callbacks carry fields that no documentation names.
    CallbackExtraFields,
    /// The message stays `sent` for ever.
    NoReceipt,
    /// A phone that is called is engaged.
    PhoneBusy,
    /// Nobody picks a phone up that is called.
    PhoneNoAnswer,
    /// A machine answers a phone that is called, and records it.
    PhoneVoicemail,
    /// Somebody picks up a phone that is called, hears it all, and presses nothing.
    PhoneListens,
    /// Somebody picks up a phone that is called, and presses a key.
    PhonePresses {
        /// Which: one of `0` to `9`, `*` and `#`.
        key: char,
    },
    /// Every call of the API is dropped without an answer, until this is taken away. Callbacks go on.
    Outage,
}

/// The most that [`Fault::CallbacksRepeated`] repeats.
pub const REPEATS_MAX: u32 = 20;

fn bad_request() -> u16 {
    400
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frequency {
    /// The next so many matching calls.
    Next(u32),
    /// Every matching call.
    Always,
    /// Each matching call with this probability (`0.0..=1.0`); the same seed gives the same sequence.
    Probability {
        /// The probability.
        p: f64,
        /// Where the sequence starts.
        seed: u64,
    },
}

/// Which calls a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Create calls.
    #[default]
    Creates,
    /// Every other call of the API: fetches, lists, checks.
    Lookups,
    /// Every call of the API.
    Everything,
}

/// A fault, how often it strikes, and whom.
///
/// As JSON: the fault's own fields, one of `"next": n`, `"always": true`, `"probability": p` (with `"seed"`), and
/// optionally `"to"` and `"on"`; without a frequency it strikes once, an outage until it is taken away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// How often.
    pub frequency: Frequency,
    /// Only for this phone (with or without `whatsapp:`); `None`: for all.
    pub to: Option<String>,
    /// On which calls.
    pub on: Scope,
}

impl FaultRule {
    /// Strikes the next create call.
    pub fn once(fault: Fault) -> Self {
        Self::next(1, fault)
    }
    /// Strikes the next `n` create calls.
    pub fn next(n: u32, fault: Fault) -> Self {
        Self { fault, frequency: Frequency::Next(n), to: None, on: Scope::Creates }
    }
    /// Strikes every create call.
    pub fn always(fault: Fault) -> Self {
        Self { fault, frequency: Frequency::Always, to: None, on: Scope::Creates }
    }
    /// Strikes create calls by chance, reproducibly.
    pub fn with_probability(p: f64, seed: u64, fault: Fault) -> Self {
        Self { fault, frequency: Frequency::Probability { p, seed }, to: None, on: Scope::Creates }
    }
    /// Only for this phone.
    pub fn to(mut self, phone: &str) -> Self {
        self.to = Some(phone.to_owned());
        self
    }
    /// On these calls.
    pub fn on(mut self, scope: Scope) -> Self {
        self.on = scope;
        self
    }
}

/// Why a text is not a fault rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFault {
    /// The fault itself cannot be read.
    #[error("no such fault: {0}")]
    Fault(String),
    /// More than one frequency, or one that makes no sense.
    #[error("give one of next (a number), always (true) or probability (0 to 1, with an optional seed)")]
    Frequency,
    /// An HTTP status that is no error.
    #[error("http_status must be between 400 and 599")]
    HttpStatus,
    /// `to` or `on` cannot be read.
    #[error("to must be a text, on one of creates, lookups, everything")]
    Filter,
}

impl TryFrom<Map<String, Value>> for FaultRule {
    type Error = InvalidFault;
    fn try_from(mut map: Map<String, Value>) -> Result<Self, InvalidFault> {
        let (next, always) = (map.remove("next"), map.remove("always"));
        let (probability, seed) = (map.remove("probability"), map.remove("seed"));
        let outage = map.get("kind").is_some_and(|kind| kind == "outage");
        let frequency = match (next, always, probability) {
            (None, None, None) if outage => Frequency::Always,
            (None, None, None) => Frequency::Next(1),
            (Some(n), None, None) => {
                let n = n.as_u64().and_then(|n| u32::try_from(n).ok());
                Frequency::Next(n.ok_or(InvalidFault::Frequency)?)
            }
            (None, Some(Value::Bool(true)), None) => Frequency::Always,
            (None, None, Some(p)) => {
                let p = p.as_f64().filter(|p| (0.0..=1.0).contains(p)).ok_or(InvalidFault::Frequency)?;
                let seed = seed.map_or(Some(0), |seed| seed.as_u64()).ok_or(InvalidFault::Frequency)?;
                Frequency::Probability { p, seed }
            }
            _ => return Err(InvalidFault::Frequency),
        };
        let to = match map.remove("to") {
            None | Some(Value::Null) => None,
            Some(Value::String(to)) => Some(to),
            Some(_) => return Err(InvalidFault::Filter),
        };
        let on = match map.remove("on") {
            None => Scope::default(),
            Some(on) => serde_json::from_value(on).map_err(|_| InvalidFault::Filter)?,
        };
        let fault =
            serde_json::from_value(Value::Object(map)).map_err(|error| InvalidFault::Fault(error.to_string()))?;
        if let Fault::ServerError { http_status, .. } | Fault::Refused { http_status, .. } = fault
            && !(400..=599).contains(&http_status)
        {
            return Err(InvalidFault::HttpStatus);
        }
        Ok(Self { fault, frequency, to, on })
    }
}

impl From<FaultRule> for Map<String, Value> {
    fn from(rule: FaultRule) -> Self {
        let mut map = match serde_json::to_value(&rule.fault) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        match rule.frequency {
            Frequency::Next(n) => map.insert("next".to_owned(), n.into()),
            Frequency::Always => map.insert("always".to_owned(), true.into()),
            Frequency::Probability { p, seed } => {
                map.insert("seed".to_owned(), seed.into());
                map.insert("probability".to_owned(), p.into())
            }
        };
        if let Some(to) = rule.to {
            map.insert("to".to_owned(), to.into());
        }
        if let Ok(on) = serde_json::to_value(rule.on) {
            map.insert("on".to_owned(), on);
        }
        map
    }
}

/// How one call is answered, if not properly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Refuse { http_status: u16, code: u32, retry_after_s: Option<u32> },
    Hold { accepted: bool, hidden: bool },
    Drop { accepted: bool },
    Html { accepted: bool },
    Empty,
    Late(Duration),
}

impl Answer {
    /// Whether the message is made all the same.
    pub(super) fn accepts(self) -> bool {
        match self {
            Self::Refuse { .. } => false,
            Self::Hold { accepted, .. } | Self::Drop { accepted } | Self::Html { accepted } => accepted,
            Self::Empty | Self::Late(_) => true,
        }
    }
}

/// What a fault touches: at most one of the first two strikes a call; of the third, all that apply.
enum Touches {
    TheAnswer(Answer),
    TheFate(Fate),
    ThePhone(Habit),
    TheCallbacks,
    Everything,
}

impl Fault {
    fn touches(&self) -> Touches {
        let refuse =
            |http_status, code, retry_after_s| Touches::TheAnswer(Answer::Refuse { http_status, code, retry_after_s });
        match *self {
            Self::TooManyRequests { retry_after_s } => refuse(429, 20429, retry_after_s),
            Self::ServerError { http_status: 503, retry_after_s } => refuse(503, 20503, retry_after_s),
            Self::ServerError { http_status, retry_after_s } => refuse(http_status, 20500, retry_after_s),
            Self::Refused { code, http_status } => refuse(http_status, code, None),
            Self::FailsLater { code, failed } => Touches::TheFate(Fate::Fails {
                status: if failed { SimStatus::Failed } else { SimStatus::Undelivered },
                code,
            }),
            Self::AcceptThenTimeOut => Touches::TheAnswer(Answer::Hold { accepted: true, hidden: false }),
            Self::AcceptThenTimeOutHidden => Touches::TheAnswer(Answer::Hold { accepted: true, hidden: true }),
            Self::TimeOutWithoutAccepting => Touches::TheAnswer(Answer::Hold { accepted: false, hidden: false }),
            Self::DropBeforeAccepting => Touches::TheAnswer(Answer::Drop { accepted: false }),
            Self::DropAfterAccepting => Touches::TheAnswer(Answer::Drop { accepted: true }),
            Self::Slow { ms } => Touches::TheAnswer(Answer::Late(Duration::from_millis(ms))),
            Self::HtmlBadGateway { accepted } => Touches::TheAnswer(Answer::Html { accepted }),
            Self::EmptyAnswer => Touches::TheAnswer(Answer::Empty),
            Self::NoReceipt => Touches::TheFate(Fate::StaysSent),
            Self::PhoneBusy => Touches::ThePhone(Habit::Busy),
            Self::PhoneNoAnswer => Touches::ThePhone(Habit::NoAnswer),
            Self::PhoneVoicemail => Touches::ThePhone(Habit::Voicemail),
            Self::PhoneListens => Touches::ThePhone(Habit::Listens),
            Self::PhonePresses { key } => Touches::ThePhone(Habit::Presses(key)),
            Self::CallbacksLost
            | Self::CallbacksRepeated { .. }
            | Self::CallbacksReordered
            | Self::CallbackEarly
            | Self::CallbackExtraFields => Touches::TheCallbacks,
            Self::Outage => Touches::Everything,
        }
    }

    fn twist(&self, twist: &mut Twist) {
        match *self {
            Self::CallbacksLost => twist.lost = true,
            Self::CallbacksRepeated { times } => twist.repeated = times.min(REPEATS_MAX),
            Self::CallbacksReordered => twist.reordered = true,
            Self::CallbackEarly => twist.early = true,
            Self::CallbackExtraFields => twist.extra_fields = true,
            Self::TooManyRequests { .. }
            | Self::ServerError { .. }
            | Self::Refused { .. }
            | Self::FailsLater { .. }
            | Self::AcceptThenTimeOut
            | Self::AcceptThenTimeOutHidden
            | Self::TimeOutWithoutAccepting
            | Self::DropBeforeAccepting
            | Self::DropAfterAccepting
            | Self::Slow { .. }
            | Self::HtmlBadGateway { .. }
            | Self::EmptyAnswer
            | Self::NoReceipt
            | Self::PhoneBusy
            | Self::PhoneNoAnswer
            | Self::PhoneVoicemail
            | Self::PhoneListens
            | Self::PhonePresses { .. }
            | Self::Outage => {}
        }
    }
}

/// The rules in force, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct FaultBook {
    rules: Mutex<Vec<FaultRule>>,
    /// Whether there is any rule: a healthy simulator pays one load per call.
    any: AtomicBool,
}

/// How many rules are kept; further ones are refused.
pub const RULES_MAX: usize = 256;

impl FaultBook {
    /// A book that begins with these rules (the first [`RULES_MAX`] of them).
    pub(super) fn new(rules: &[FaultRule]) -> Self {
        let book = Self::default();
        for rule in rules {
            book.push(rule.clone());
        }
        book
    }

    /// Adds a rule; `false` if there are too many.
    pub(super) fn push(&self, rule: FaultRule) -> bool {
        let mut rules = self.rules.lock();
        if rules.len() >= RULES_MAX {
            return false;
        }
        rules.push(rule);
        self.any.store(true, Ordering::Release);
        true
    }

    pub(super) fn clear(&self) {
        let mut rules = self.rules.lock();
        rules.clear();
        self.any.store(false, Ordering::Release);
    }

    pub(super) fn list(&self) -> Vec<FaultRule> {
        self.rules.lock().clone()
    }

    /// Whether everything is down.
    pub(super) fn outage(&self) -> bool {
        self.draw(|rule| match rule.fault.touches() {
            Touches::Everything => Some(()),
            Touches::TheAnswer(_) | Touches::TheFate(_) | Touches::ThePhone(_) | Touches::TheCallbacks => None,
        })
        .is_some()
    }

    /// How this call is to be answered, if not properly.
    pub(super) fn answer(&self, create: bool, to: Option<&str>) -> Option<Answer> {
        self.draw(|rule| match rule.fault.touches() {
            Touches::TheAnswer(answer) if rule.covers(create, to) => Some(answer),
            Touches::TheAnswer(_)
            | Touches::TheFate(_)
            | Touches::ThePhone(_)
            | Touches::TheCallbacks
            | Touches::Everything => None,
        })
    }

    /// What becomes of a call that is made now, with the code if it cannot be put through, and how its callbacks misbehave.
    /// A fault that makes messages fail on their way makes a call fail as well.
    pub(super) fn call_outcome(&self, to: &str) -> (Option<Habit>, Option<u32>, Twist) {
        let habit = self.draw(|rule| match rule.fault.touches() {
            Touches::ThePhone(habit) if rule.covers(true, Some(to)) => Some(habit),
            Touches::ThePhone(_)
            | Touches::TheFate(_)
            | Touches::TheAnswer(_)
            | Touches::TheCallbacks
            | Touches::Everything => None,
        });
        match self.outcome(to) {
            (Fate::Fails { code, .. }, twist) => (Some(Habit::Fails), Some(code), twist),
            (Fate::StaysSent, twist) => (habit, None, Twist { lost: true, ..twist }),
            (Fate::Arrives, twist) => (habit, None, twist),
        }
    }

    /// What becomes of a message that is created now, and how its callbacks misbehave.
    pub(super) fn outcome(&self, to: &str) -> (Fate, Twist) {
        let fate = self.draw(|rule| match rule.fault.touches() {
            Touches::TheFate(fate) if rule.covers(true, Some(to)) => Some(fate),
            Touches::TheFate(_)
            | Touches::TheAnswer(_)
            | Touches::ThePhone(_)
            | Touches::TheCallbacks
            | Touches::Everything => None,
        });
        let mut twist = Twist::default();
        let _: Option<()> = self.draw_from(|rule, strikes| {
            if matches!(rule.fault.touches(), Touches::TheCallbacks) && rule.covers(true, Some(to)) && strikes(rule) {
                rule.fault.twist(&mut twist);
            }
            None
        });
        (fate.unwrap_or(Fate::Arrives), twist)
    }

    /// The first rule that `pick` picks and that strikes.
    fn draw<T>(&self, mut pick: impl FnMut(&FaultRule) -> Option<T>) -> Option<T> {
        self.draw_from(|rule, strikes| pick(rule).filter(|_| strikes(rule)))
    }

    fn draw_from<T>(
        &self,
        mut visit: impl FnMut(&mut FaultRule, fn(&mut FaultRule) -> bool) -> Option<T>,
    ) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut rules = self.rules.lock();
        let drawn = rules.iter_mut().find_map(|rule| visit(rule, FaultRule::strikes));
        rules.retain(|rule| rule.frequency != Frequency::Next(0));
        self.any.store(!rules.is_empty(), Ordering::Release);
        drawn
    }
}

impl FaultRule {
    fn covers(&self, create: bool, to: Option<&str>) -> bool {
        let scope = match self.on {
            Scope::Creates => create,
            Scope::Lookups => !create,
            Scope::Everything => true,
        };
        scope && self.to.as_deref().is_none_or(|wanted| to.is_some_and(|to| phone_of(wanted) == phone_of(to)))
    }

    /// Spends one turn of the frequency.
    fn strikes(&mut self) -> bool {
        match &mut self.frequency {
            Frequency::Always => true,
            Frequency::Next(0) => false,
            Frequency::Next(left) => {
                *left -= 1;
                true
            }
            Frequency::Probability { p, seed } => {
                // SplitMix64 (Steele, Lea, Flood 2014): the seed itself is the state, so a listed rule can be replayed.
                *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut word = *seed;
                word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                word ^= word >> 31;
                // 53 bits fit an f64 exactly.
                ((word >> 11) as f64 / (1u64 << 53) as f64) < *p
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(value: Value) -> Result<FaultRule, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn a_fault_strikes_as_often_as_told_and_then_is_gone() {
        let book = FaultBook::default();
        book.push(FaultRule::next(2, Fault::TooManyRequests { retry_after_s: Some(1) }));
        assert!(book.answer(true, None).is_some());
        assert!(book.answer(true, None).is_some());
        assert!(book.answer(true, None).is_none());
        assert!(book.list().is_empty());
    }

    #[test]
    fn a_fault_for_one_phone_leaves_the_others_alone() {
        let book = FaultBook::default();
        book.push(FaultRule::once(Fault::Refused { code: 21610, http_status: 400 }).to("whatsapp:+491"));
        assert!(book.answer(true, Some("whatsapp:+492")).is_none());
        assert!(book.answer(true, Some("+491")).is_some());
    }

    #[test]
    fn a_refused_call_spends_no_fault_of_the_way() {
        let book = FaultBook::default();
        book.push(FaultRule::once(Fault::FailsLater { code: 63016, failed: false }));
        book.push(FaultRule::once(Fault::TooManyRequests { retry_after_s: None }));
        assert!(book.answer(true, Some("+491")).is_some_and(|answer| !answer.accepts()));
        let fate = Fate::Fails { status: SimStatus::Undelivered, code: 63016 };
        assert_eq!(book.outcome("+491").0, fate);
        assert_eq!(book.outcome("+491").0, Fate::Arrives);
    }

    #[test]
    fn callback_faults_add_up() {
        let book = FaultBook::default();
        book.push(FaultRule::once(Fault::CallbacksRepeated { times: 1000 }));
        book.push(FaultRule::once(Fault::CallbacksReordered));
        let twist = book.outcome("+491").1;
        assert_eq!((twist.repeated, twist.reordered, twist.lost), (REPEATS_MAX, true, false));
        assert_eq!(book.outcome("+491").1, Twist::default());
    }

    #[test]
    fn chance_is_reproducible() {
        let run = |seed| {
            let book = FaultBook::default();
            book.push(FaultRule::with_probability(0.3, seed, Fault::EmptyAnswer));
            (0..1000).map(|_| book.answer(true, None).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let strikes = run(7).iter().filter(|struck| **struck).count();
        assert!((250..350).contains(&strikes), "{strikes}");
    }

    #[test]
    fn rules_are_read_from_json_and_come_back_the_same() {
        let read = rule(json!({"kind": "slow", "ms": 5, "probability": 0.5, "seed": 3, "to": "+1", "on": "lookups"}));
        let read = read.expect("a rule");
        assert_eq!(read.frequency, Frequency::Probability { p: 0.5, seed: 3 });
        let back = serde_json::to_value(&read).expect("JSON");
        assert_eq!(rule(back).expect("a rule"), read);
        assert_eq!(rule(json!({"kind": "empty_answer"})).expect("a rule").frequency, Frequency::Next(1));
        assert_eq!(rule(json!({"kind": "outage"})).expect("a rule").frequency, Frequency::Always);
    }

    #[test]
    fn nonsense_is_not_a_rule() {
        for nonsense in [
            json!({"kind": "unheard_of"}),
            json!({"kind": "slow"}),
            json!({"kind": "slow", "ms": 1, "typo": true}),
            json!({"kind": "refused", "code": 21211, "http_status": 200}),
            json!({"kind": "outage", "next": -1}),
            json!({"kind": "outage", "next": 1, "always": true}),
            json!({"kind": "outage", "probability": 2.0}),
            json!({"kind": "outage", "on": "sundays"}),
        ] {
            assert!(rule(nonsense.clone()).is_err(), "{nonsense}");
        }
    }
}
