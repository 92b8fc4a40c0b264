//! What a seed says: how the service is set up, what goes wrong at Twilio, who needs help, and when the service is
//! killed. Equal seeds give equal plans; what the machine makes of them differs from run to run.

use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::ports::random;
use crisis_relay::simulator::{Fault, FaultRule, Scope};

/// Chance, out of a seed.
#[derive(Clone)]
pub(crate) struct Dice(SeededEntropy);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// Dice of their own for the `number`-th thing of a kind: what one draws moves no other's.
    fn of(seed: u64, kind: u64, number: u64) -> Self {
        let mut dice = Self::new(seed ^ (kind << 56));
        let mut dice = Self::new(dice.next() ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.next();
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        u64::from_le_bytes(random::<8>(&self.0))
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Up to so many milliseconds, in steps of a tenth.
    pub(crate) fn pause(&mut self, millis_max: u64) -> Duration {
        Duration::from_micros(100 * self.between(0, 10 * millis_max))
    }

    fn percent(&mut self) -> u64 {
        self.between(0, 99)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        let place = self.between(0, all.len() as u64 - 1);
        all[usize::try_from(place).unwrap()]
    }
}

/// Why somebody may be told of a student, if anybody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowed {
    ByOverride,
    ByConsent,
    No,
}

/// What becomes of a case, once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    LeftAlone,
    /// The counsellor replies to the message.
    TakenByReply,
    /// The counsellor takes it over the API, whether a message has come or not.
    TakenByApi,
    /// An outcome is given over the API.
    Resolved,
}

/// One student, and what their backend does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Student {
    pub(crate) number: u64,
    pub(crate) allowed: Allowed,
    pub(crate) below_threshold: bool,
    /// Whether the backend gives an `Idempotency-Key`.
    pub(crate) keyed: bool,
    /// Whether the backend posts the same once more, when the service has been killed in between.
    pub(crate) again: bool,
    pub(crate) course: Course,
}

impl Student {
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut dice = Dice::of(seed, 1, number);
        let allowed = match dice.percent() {
            0..65 => Allowed::ByOverride,
            65..92 => Allowed::ByConsent,
            _ => Allowed::No,
        };
        let course = match dice.percent() {
            0..55 => Course::LeftAlone,
            55..75 => Course::TakenByReply,
            75..85 => Course::TakenByApi,
            _ => Course::Resolved,
        };
        // A case without a ground cannot be taken, only closed.
        let course = if allowed == Allowed::No { Course::LeftAlone } else { course };
        let below_threshold = dice.percent() < 3;
        let keyed = dice.percent() < 60;
        // Without a key, a further event of a student whose case is closed would rightly open another one.
        let again = dice.percent() < 30 && (keyed || course != Course::Resolved);
        Self { number, allowed, below_threshold, keyed, again, course }
    }
}

/// The moment of a kill, counted from the start of the process that is killed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// So long after the process was begun, whatever it is at.
    Starting(Duration),
    /// So many events have been answered.
    Answered(u64),
    /// So many create calls have come in at Twilio.
    Created(u64),
    /// So many look-ups and polls have.
    LookedUp(u64),
    /// So many callbacks have been posted.
    Told(u64),
    /// So many replies have.
    Replied(u64),
    /// So long after it was asked to end, in the midst of the load.
    Stopping(Duration),
}

/// One life of the service, which ends by a kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) moment: Moment,
    /// Between the moment and the kill.
    pub(crate) then: Duration,
    /// How many look-ups and polls fail, from the life's beginning on.
    pub(crate) failing_look_ups: u32,
    /// How many calls of any kind Twilio drops without an answer, from the life's beginning on.
    pub(crate) dropped_calls: u32,
}

impl Life {
    /// `share`: how many students come in a life.
    fn of(seed: u64, number: u64, share: u64) -> Self {
        let mut dice = Dice::of(seed, 2, number);
        let moment = match dice.percent() {
            0..18 => Moment::Starting(dice.pause(400)),
            18..45 => Moment::Answered(dice.between(1, 2 * share)),
            45..65 => Moment::Created(dice.between(1, 2 * share)),
            65..75 => Moment::LookedUp(dice.between(1, 12)),
            75..87 => Moment::Told(dice.between(1, 2 * share)),
            87..94 => Moment::Replied(dice.between(1, 1 + share / 12)),
            _ => Moment::Stopping(dice.pause(150)),
        };
        let failing_look_ups = if dice.percent() < 25 { u32::try_from(dice.between(1, 30)).unwrap() } else { 0 };
        let dropped_calls = if dice.percent() < 12 { u32::try_from(dice.between(1, 40)).unwrap() } else { 0 };
        Self { moment, then: dice.pause(25), failing_look_ups, dropped_calls }
    }
}

/// All that a seed says.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) students: u64,
    pub(crate) lives: Vec<Life>,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) faults: Vec<FaultRule>,
    /// How often the service looks a message up before it sends another.
    pub(crate) look_ups_max: u32,
    /// How long Twilio holds a connection whose call it never answers.
    pub(crate) hold: Duration,
}

impl Plan {
    pub(crate) fn of(seed: u64, students: u64, kills: u64) -> Self {
        let share = (students / kills).max(1);
        let mut dice = Dice::of(seed, 3, 0);
        let look_ups_max = u32::try_from(dice.between(2, 3)).unwrap();
        Self {
            seed,
            students,
            lives: (0..kills).map(|number| Life::of(seed, number, share)).collect(),
            settings: settings(&mut dice, look_ups_max),
            look_ups_max,
            faults: faults(&mut Dice::of(seed, 4, 0)),
            hold: Duration::from_millis(2_300),
        }
    }

    /// How many students come in each life.
    pub(crate) fn share(&self) -> usize {
        usize::try_from(self.students.div_ceil(self.lives.len() as u64)).unwrap()
    }
}

/// The same promises hold however the service is set up.
fn settings(dice: &mut Dice, look_ups_max: u32) -> Vec<(&'static str, String)> {
    vec![
        ("CRISIS_RELAY__WORKER__QUEUE_MAX", dice.pick(&["48", "300", "10000"]).to_owned()),
        ("CRISIS_RELAY__WORKER__DUE_BATCH", dice.pick(&["8", "48"]).to_owned()),
        ("CRISIS_RELAY__WORKER__POLL", dice.pick(&["50ms", "200ms"]).to_owned()),
        ("CRISIS_RELAY__STORE__GROUP_COMMIT_MAX", dice.pick(&["1", "16", "256"]).to_owned()),
        ("CRISIS_RELAY__STORE__READERS", dice.pick(&["1", "4"]).to_owned()),
        ("CRISIS_RELAY__DELIVERY__LOOK_UPS_MAX", look_ups_max.to_string()),
        // What would take minutes in life takes seconds here.
        ("CRISIS_RELAY__DELIVERY__LOOK_UP_FIRST", "300ms".to_owned()),
        ("CRISIS_RELAY__DELIVERY__LOOK_UP_THEN", "500ms".to_owned()),
        ("CRISIS_RELAY__DELIVERY__RECEIPT_POLL_FIRST", "2s".to_owned()),
        ("CRISIS_RELAY__DELIVERY__LEASE", "10s".to_owned()),
        ("CRISIS_RELAY__POLICY__RETRY_WHEN_ALL_FAILED", "1s".to_owned()),
        ("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s".to_owned()),
        ("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "1s".to_owned()),
        ("CRISIS_RELAY__TWILIO__BREAKER_OPEN_FIRST", "100ms".to_owned()),
        ("CRISIS_RELAY__TWILIO__BREAKER_OPEN_MAX", "400ms".to_owned()),
        ("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "1000".to_owned()),
    ]
}

/// Twilio on a bad day, all day long. None of these hides a message but the one that says so.
fn faults(dice: &mut Dice) -> Vec<FaultRule> {
    let creates = [
        (0.03, Fault::TooManyRequests { retry_after_s: None }),
        (0.02, Fault::ServerError { http_status: 503, retry_after_s: None }),
        (0.006, Fault::AcceptThenTimeOut),
        (0.004, Fault::AcceptThenTimeOutHidden),
        (0.004, Fault::TimeOutWithoutAccepting),
        (0.02, Fault::DropBeforeAccepting),
        (0.02, Fault::DropAfterAccepting),
        (0.01, Fault::HtmlBadGateway { accepted: true }),
        (0.01, Fault::EmptyAnswer),
        (0.10, Fault::Slow { ms: dice.between(20, 400) }),
        (0.05, Fault::CallbacksLost),
        (0.05, Fault::CallbacksRepeated { times: 2 }),
        (0.05, Fault::CallbacksReordered),
        (0.10, Fault::CallbackEarly),
        (0.03, Fault::NoReceipt),
    ];
    let mut rules = Vec::new();
    for (chance, fault) in creates {
        // Each is left out now and then, so that none hides behind another.
        if dice.percent() < 75 {
            rules.push(FaultRule::with_probability(chance, dice.next(), fault));
        }
    }
    let slow = Fault::Slow { ms: dice.between(20, 200) };
    rules.push(FaultRule::with_probability(0.2, dice.next(), slow).on(Scope::Lookups));
    rules
}
