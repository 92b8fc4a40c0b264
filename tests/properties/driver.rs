//! Lets things happen to one alert, as the service would, and holds every change to the invariants.

use std::collections::BTreeMap;

use crisis_relay::domain::alert::{AckVia, Alert, Input, Rejection, Situation, Transition};
use crisis_relay::domain::audit::{Actor, AuditEntry};
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::delivery::Lease;
use crisis_relay::domain::event::Score;
use crisis_relay::domain::ids::{AttemptNo, ContactId, DeliveryNo};
use crisis_relay::domain::policy::{Ladders, Stage};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::invariants::{self, Seen};
use crate::world::{Granted, START, World, at, new_alert, person};

/// An attempt that was begun: who was told, at which stage of the ladder, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) stage: Stage,
    pub(crate) contact: ContactId,
    pub(crate) channel: Channel,
    pub(crate) at: Timestamp,
}

/// One alert, the time, and all that was ever recorded of it.
pub(crate) struct Driver<'w> {
    pub(crate) world: &'w World,
    pub(crate) alert: Alert,
    pub(crate) now: Timestamp,
    /// Handed to every change.
    pub(crate) jitter: f64,
    /// The whole audit.
    pub(crate) chain: Vec<AuditEntry>,
    /// Every attempt ever begun, also of deliveries that the alert has dropped since.
    pub(crate) begun: BTreeMap<(DeliveryNo, AttemptNo), Begun>,
    /// What the last change gave to send.
    pub(crate) last_sent: Vec<DeliveryNo>,
    /// Every text ever sent.
    pub(crate) texts: Vec<String>,
    /// How often the service was started anew; each start has leases of its own.
    starts: u32,
}

impl<'w> Driver<'w> {
    /// Opens an alert. With `lease`, its first messages are claimed at once.
    pub(crate) fn open(
        world: &'w World,
        score: Option<Score>,
        granted: Granted,
        lease: bool,
    ) -> Result<(Self, Transition), TestCaseError> {
        let now = at(START);
        let lease = lease.then(|| lease_of(world, 0, now));
        let actor = Actor::Machine { key: "backend".to_owned() };
        let ladders = world.ladders();
        let cx = situation(world, &ladders, now, 0.5, &actor, lease.as_ref());
        let transition = Alert::open(new_alert(world, now, score, granted), &cx);
        let mut driver = Self {
            world,
            alert: transition.alert.clone(),
            now,
            jitter: 0.5,
            chain: Vec::new(),
            begun: BTreeMap::new(),
            texts: Vec::new(),
            last_sent: Vec::new(),
            starts: 0,
        };
        let seen = Seen { before: None, input: None, transition: &transition, now, lease: lease.as_ref(), world };
        driver.take_over(&seen)?;
        Ok((driver, transition))
    }

    /// Lets `input` happen now; `None` if the alert refuses it. What it refuses is known beforehand.
    pub(crate) fn step(&mut self, input: &Input, lease: bool) -> Result<Option<Transition>, TestCaseError> {
        if let Input::Wake { sole_owner_restarted: true } = input {
            self.starts += 1;
        }
        let lease = lease.then(|| lease_of(self.world, self.starts, self.now));
        let actor = actor_of(input);
        let ladders = self.world.ladders();
        let cx = situation(self.world, &ladders, self.now, self.jitter, &actor, lease.as_ref());
        let expected = invariants::rejection(&self.alert, input, &self.world.directory, self.now);
        match (self.alert.clone().on(input.clone(), &cx), expected) {
            (Err(rejection), expected) => {
                prop_assert_eq!(Some(rejection), expected, "{:?}", input);
                Ok(None)
            }
            (Ok(_), Some(expected)) => Err(TestCaseError::fail(format!("{input:?} was taken, and not: {expected}"))),
            (Ok(transition), None) => {
                let again = self.alert.clone().on(input.clone(), &cx).map(|again| again.alert);
                prop_assert_eq!(again.as_ref(), Ok::<_, &Rejection>(&transition.alert), "not a pure function");
                let before = self.alert.clone();
                let seen = Seen {
                    before: Some(&before),
                    input: Some(input),
                    transition: &transition,
                    now: self.now,
                    lease: lease.as_ref(),
                    world: self.world,
                };
                self.take_over(&seen)?;
                Ok(Some(transition))
            }
        }
    }

    /// Time has passed.
    pub(crate) fn wake(&mut self) -> Result<Transition, TestCaseError> {
        let woken = self.step(&Input::Wake { sole_owner_restarted: false }, true)?;
        woken.ok_or_else(|| TestCaseError::fail("a wake was refused"))
    }

    /// Moves the clock to when the alert must be looked at next, never back.
    pub(crate) fn go_to_next_action(&mut self) {
        self.now = self.alert.next_action_at().map_or(self.now, |at| at.max(self.now));
    }

    fn take_over(&mut self, seen: &Seen<'_>) -> Result<(), TestCaseError> {
        invariants::check(seen, &self.chain, &mut self.begun)?;
        self.alert = seen.transition.alert.clone();
        self.chain.extend(seen.transition.audit.iter().cloned());
        self.last_sent = invariants::sends(seen.transition).map(|(delivery, ..)| delivery).collect();
        self.texts.extend(invariants::sends(seen.transition).map(|(_, _, message)| message.text.clone()));
        Ok(())
    }
}

pub(crate) fn lease_of(world: &World, start: u32, now: Timestamp) -> Lease {
    Lease { owner: format!("instance-{start}"), until: now + world.lease }
}

pub(crate) fn situation<'a>(
    world: &'a World,
    ladders: &'a Ladders,
    now: Timestamp,
    jitter: f64,
    actor: &'a Actor,
    lease: Option<&'a Lease>,
) -> Situation<'a> {
    let (rules, directory) = (&world.rules, &world.directory);
    let (composer, phones) = (world.composer(), &());
    Situation { now, jitter, actor, rules, directory, ladders, composer, emergency: None, phones, lease }
}

pub(crate) fn actor_of(input: &Input) -> Actor {
    match input {
        Input::Joined { .. } => Actor::Machine { key: "backend".to_owned() },
        Input::Wake { .. } | Input::NotFound { .. } | Input::ConsentJudged { .. } => Actor::Service,
        Input::Settled { .. } | Input::Received { .. } | Input::Found { .. } => Actor::Provider,
        Input::Overridden { .. }
        | Input::Acknowledge { via: AckVia::Api }
        | Input::Resolve { .. }
        | Input::Inform { .. }
        | Input::CheckIn => person(),
        Input::Acknowledge { via: AckVia::Reply | AckVia::Keypress } | Input::PassOn | Input::Replied { .. } => {
            Actor::Contact { contact: crate::world::contact_id(0) }
        }
    }
}
