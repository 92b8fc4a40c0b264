//! What can happen to an alert, at random. A step names attempts by their place, and finds them when it happens.

use std::time::Duration;

use crisis_relay::domain::alert::{AckVia, Alert, Input, Kind, Outcome};
use crisis_relay::domain::consent::Ground;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::delivery::AttemptResult;
use crisis_relay::domain::event::Score;
use crisis_relay::domain::ids::{AttemptNo, DeliveryNo, ProviderId};
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;

use crate::driver::Driver;
use crate::world::{Granted, any_score, granted, sealed, trigger};

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// How the clock moves before it.
    pub(crate) clock: Clock,
    /// Whether whoever does it may claim what is due.
    pub(crate) lease: bool,
    pub(crate) jitter: f64,
    pub(crate) what: What,
}

/// How the clock moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    Stands,
    Ahead(Duration),
    /// To when the alert must be looked at next.
    ToNextAction,
    /// Somebody sets it back. Only ever before a wake, as after a restart.
    Back(Duration),
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Join { score: Option<Score>, granted: Granted },
    Override { granted: Granted },
    Judge { granted: Granted },
    Wake { restarted: bool },
    Settle { which: Which, came: Came },
    Receive { which: Which, status: MessageStatus, fault: Option<ProviderFault>, strange: bool },
    NotFound { which: Which, answered: bool },
    Acknowledge { via: AckVia },
    CheckIn,
    Write,
    PassOn,
    Resolve { rightly: bool, noted: bool },
}

/// Which attempt.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// The newest attempt of a delivery whose end is open.
    Current(Index),
    /// Any attempt that the alert knows.
    Known(Index),
    /// One that never was.
    Missing(u32, u32),
}

/// What came of a call.
#[derive(Debug, Clone)]
pub(crate) enum Came {
    Accepted(MessageStatus),
    NotExecuted(Option<Duration>, Option<ProviderFault>),
    NotBegun(Duration),
    Refused(ProviderFault),
    Unknown(UnknownCause, Option<Duration>),
}

impl Step {
    pub(crate) fn happen(&self, driver: &mut Driver<'_>) -> Result<(), TestCaseError> {
        match self.clock {
            Clock::Stands => {}
            Clock::Ahead(by) => driver.now += by,
            Clock::Back(by) => driver.now -= SignedDuration::try_from(by).unwrap(),
            Clock::ToNextAction => driver.go_to_next_action(),
        }
        driver.jitter = self.jitter;
        let Some(input) = self.what.input(driver) else { return Ok(()) };
        driver.step(&input, self.lease).map(|_| ())
    }
}

impl What {
    /// The input that this is now; `None` if there is nothing that it could happen to.
    pub(crate) fn input(&self, driver: &Driver<'_>) -> Option<Input> {
        let now = driver.now;
        Some(match self {
            Self::Join { score, granted } => {
                Input::Joined { trigger: trigger(now, *score), ground: granted.ground(now) }
            }
            Self::Override { granted } => Input::Overridden { ground: granted.ground(now)? },
            Self::Judge { granted } => Input::ConsentJudged {
                ground: granted.ground(now).filter(|ground| matches!(ground, Ground::Consent { .. })),
            },
            Self::Wake { restarted } => Input::Wake { sole_owner_restarted: *restarted },
            Self::Settle { which, came } => {
                let (delivery, attempt) = which.find(&driver.alert)?;
                Input::Settled { delivery, attempt, outcome: came.outcome(delivery, attempt) }
            }
            Self::Receive { which, status, fault, strange } => {
                let (delivery, attempt) = which.find(&driver.alert)?;
                let provider_id = provider_id(delivery, attempt, *strange);
                let fault = fault.filter(|_| status.is_failure());
                let receipt = Receipt { provider_id, status: *status, fault };
                // The same words come by callback or by look-up; half of the deliveries get the latter.
                if delivery.0 % 2 == 0 {
                    Input::Found { delivery, attempt, receipt }
                } else {
                    Input::Received { delivery, attempt, receipt }
                }
            }
            Self::NotFound { which, answered } => {
                let (delivery, attempt) = which.find(&driver.alert)?;
                Input::NotFound { delivery, attempt, answered: *answered }
            }
            Self::Acknowledge { via } => Input::Acknowledge { via: *via },
            Self::CheckIn => Input::CheckIn,
            Self::Write => Input::Replied { channel: Channel::Sms, told_again: None },
            Self::PassOn => Input::PassOn,
            Self::Resolve { rightly, noted } => {
                let drill = matches!(driver.alert.kind, Kind::Drill);
                let outcome = if drill == *rightly { Outcome::Drill } else { Outcome::SafeInPerson };
                let follow_up_at = noted.then(|| now + SignedDuration::from_hours(48));
                Input::Resolve { outcome, note: noted.then(|| sealed("note")), follow_up_at }
            }
        })
    }
}

impl Which {
    fn find(&self, alert: &Alert) -> Option<(DeliveryNo, AttemptNo)> {
        let (index, pending_only) = match self {
            Self::Current(index) => (index, true),
            Self::Known(index) => (index, false),
            Self::Missing(delivery, attempt) => {
                // The last delivery may have such an attempt after all; of one that came to no call nobody can speak.
                let (no, attempt) = (DeliveryNo(alert.deliveries_planned + delivery), AttemptNo(*attempt));
                let known = alert.delivery(no).and_then(|delivery| delivery.attempt(attempt));
                let called = known.is_none_or(|attempt| attempt.result != AttemptResult::NotBegun);
                return called.then_some((no, attempt));
            }
        };
        let known: Vec<(DeliveryNo, AttemptNo)> = alert
            .deliveries
            .iter()
            .filter(|delivery| !pending_only || delivery.next_action_at().is_some())
            .flat_map(|delivery| {
                let newest = delivery.attempts.last().map(|attempt| attempt.no);
                // Of a call that was never begun nobody can say anything.
                let called = delivery.attempts.iter().filter(|attempt| attempt.result != AttemptResult::NotBegun);
                let attempts = called.map(|attempt| attempt.no);
                attempts.filter(move |no| !pending_only || Some(*no) == newest).map(|no| (delivery.no, no))
            })
            .collect();
        (!known.is_empty()).then(|| known[index.index(known.len())])
    }
}

impl Came {
    fn outcome(&self, delivery: DeliveryNo, attempt: AttemptNo) -> SendOutcome {
        match self {
            Self::Accepted(status) => {
                SendOutcome::Accepted { provider_id: provider_id(delivery, attempt, false), status: *status }
            }
            Self::NotExecuted(retry_after, fault) => {
                SendOutcome::NotExecuted { retry_after: *retry_after, fault: *fault }
            }
            Self::NotBegun(wait) => SendOutcome::NotBegun { wait: *wait },
            Self::Refused(fault) => SendOutcome::Refused(*fault),
            Self::Unknown(cause, retry_after) => SendOutcome::Unknown { cause: *cause, retry_after: *retry_after },
        }
    }
}

/// Twilio's id of an attempt's message; a strange one is of no message of ours.
pub(crate) fn provider_id(delivery: DeliveryNo, attempt: AttemptNo, strange: bool) -> ProviderId {
    format!("SM{:016x}{:015x}{}", delivery.0, attempt.0, u8::from(strange)).parse().unwrap()
}

// -- at random --------------------------------------------------------------------------------------------------------

/// Of messages and of calls; those that are no failure come first.
pub(crate) const STATUSES: [MessageStatus; 18] = [
    MessageStatus::Scheduled,
    MessageStatus::Accepted,
    MessageStatus::Queued,
    MessageStatus::Sending,
    MessageStatus::Sent,
    MessageStatus::Delivered,
    MessageStatus::Read,
    MessageStatus::Initiated,
    MessageStatus::Ringing,
    MessageStatus::InProgress,
    MessageStatus::Answered,
    MessageStatus::Undelivered,
    MessageStatus::Failed,
    MessageStatus::Canceled,
    MessageStatus::Busy,
    MessageStatus::NoAnswer,
    MessageStatus::Completed,
    MessageStatus::Machine,
];

/// How many of them are no failure.
pub(crate) const NO_FAILURES: usize = 11;

pub(crate) const CLASSES: [ErrorClass; 7] = [
    ErrorClass::Retry,
    ErrorClass::Ambiguous,
    ErrorClass::Delay,
    ErrorClass::Switch,
    ErrorClass::OptOut,
    ErrorClass::Template,
    ErrorClass::Config,
];

pub(crate) fn fault() -> impl Strategy<Value = ProviderFault> {
    let delay = prop::option::of((1u32..120, 0u32..7200).prop_map(|(shortest, more)| (shortest, shortest + more)));
    (prop::option::of(20_000u32..64_000), select(CLASSES.to_vec()), delay)
        .prop_map(|(code, class, delay_s)| ProviderFault { code, class, delay_s })
}

fn pause() -> impl Strategy<Value = Option<Duration>> {
    prop::option::of((0u64..100_000).prop_map(Duration::from_secs))
}

pub(crate) fn came() -> impl Strategy<Value = Came> {
    let causes = vec![
        UnknownCause::TimeOut,
        UnknownCause::ConnectionLost,
        UnknownCause::ServerError,
        UnknownCause::UnreadableAnswer,
    ];
    prop_oneof![
        4 => select(STATUSES.to_vec()).prop_map(Came::Accepted),
        3 => (pause(), prop::option::of(fault())).prop_map(|(pause, fault)| Came::NotExecuted(pause, fault)),
        2 => (0u64..100_000).prop_map(|ms| Came::NotBegun(Duration::from_millis(ms))),
        3 => fault().prop_map(Came::Refused),
        3 => (select(causes), pause()).prop_map(|(cause, pause)| Came::Unknown(cause, pause)),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        8 => any::<Index>().prop_map(Which::Current),
        3 => any::<Index>().prop_map(Which::Known),
        1 => (0u32..3, 0u32..3).prop_map(|(delivery, attempt)| Which::Missing(delivery, attempt)),
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        12 => prop::bool::weighted(0.1).prop_map(|restarted| What::Wake { restarted }),
        8 => (which(), came()).prop_map(|(which, came)| What::Settle { which, came }),
        8 => (which(), select(STATUSES.to_vec()), prop::option::of(fault()), prop::bool::weighted(0.05))
            .prop_map(|(which, status, fault, strange)| What::Receive { which, status, fault, strange }),
        4 => (which(), any::<bool>()).prop_map(|(which, answered)| What::NotFound { which, answered }),
        4 => (any_score(), granted()).prop_map(|(score, granted)| What::Join { score, granted }),
        2 => granted().prop_map(|granted| What::Override { granted }),
        1 => granted().prop_map(|granted| What::Judge { granted }),
        1 => select(vec![AckVia::Api, AckVia::Reply, AckVia::Keypress]).prop_map(|via| What::Acknowledge { via }),
        1 => select(vec![What::CheckIn, What::Write]),
        1 => Just(What::PassOn),
        1 => (prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(rightly, noted)| What::Resolve { rightly, noted }),
    ]
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        2 => Just(Clock::Stands),
        4 => (0u64..30_000).prop_map(|ms| Clock::Ahead(Duration::from_millis(ms))),
        1 => (0u64..7200).prop_map(|s| Clock::Ahead(Duration::from_secs(s))),
        6 => Just(Clock::ToNextAction),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let back = (1u64..=3600).prop_map(|s| Clock::Back(Duration::from_secs(s)));
    let set_back = (back, 0.0..1.0f64, any::<bool>()).prop_map(|(clock, jitter, restarted)| Step {
        clock,
        lease: true,
        jitter,
        what: What::Wake { restarted },
    });
    let any = (clock(), prop::bool::weighted(0.8), 0.0..1.0f64, what()).prop_map(|(clock, lease, jitter, what)| Step {
        clock,
        lease,
        jitter,
        what,
    });
    prop_oneof![1 => set_back, 30 => any]
}
