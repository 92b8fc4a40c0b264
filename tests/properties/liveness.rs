//! Nothing ends in silence: whatever the provider does, and wherever an alert stands, somebody is told again, for as
//! long as nobody has taken the case.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crisis_relay::domain::alert::{Action, AlertState, Input, Transition};
use crisis_relay::domain::ids::{AttemptNo, ContactId, DeliveryNo};
use crisis_relay::domain::policy::Stage;
use crisis_relay::domain::provider::{MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use crate::cases;
use crate::driver::Driver;
use crate::steps::{NO_FAILURES, STATUSES, What, fault, provider_id, step};
use crate::world::{Granted, World, any_score, longest_patience, named, reachable_world, with_last};

/// How the provider behaves, for ever.
#[derive(Debug, Clone)]
enum Provider {
    /// Takes every message, and tells this of it when polled.
    Accepts(MessageStatus),
    /// Takes every message, and tells later that it did not arrive.
    AcceptsAndFails(ProviderFault),
    /// Takes every message, and tells later that the call reached nobody, which is no fault.
    ReachesNobody(MessageStatus),
    Refuses(ProviderFault),
    /// Answers no call, and knows no message.
    TimesOut,
    /// Cannot be asked either.
    Unreachable,
    /// 429, with this `Retry-After`.
    Busy(Option<Duration>),
    /// Whoever calls it dies, every time.
    Kills,
}

fn provider() -> impl Strategy<Value = Provider> {
    prop_oneof![
        select(STATUSES[..NO_FAILURES].to_vec()).prop_map(Provider::Accepts),
        fault().prop_map(Provider::AcceptsAndFails),
        select(STATUSES[NO_FAILURES..].to_vec()).prop_map(Provider::ReachesNobody),
        fault().prop_map(Provider::Refuses),
        Just(Provider::TimesOut),
        Just(Provider::Unreachable),
        prop::option::of((0u64..100_000).prop_map(Duration::from_secs)).prop_map(Provider::Busy),
        Just(Provider::Kills),
    ]
}

impl Provider {
    /// Answers what a transition gave to do.
    fn answer(&self, driver: &mut Driver<'_>, transition: &Transition) -> Result<(), TestCaseError> {
        for action in &transition.actions {
            let inputs = match action {
                Action::Send { delivery, attempt, .. } => self.sent(*delivery, *attempt),
                Action::LookUp { delivery, attempt } => self.looked_up(*delivery, *attempt),
                Action::Poll { delivery, attempt, .. } => self.polled(*delivery, *attempt),
            };
            for input in inputs {
                driver.step(&input, false)?;
            }
        }
        Ok(())
    }

    fn sent(&self, delivery: DeliveryNo, attempt: AttemptNo) -> Vec<Input> {
        let provider_id = provider_id(delivery, attempt, false);
        let accepted = SendOutcome::Accepted { provider_id: provider_id.clone(), status: MessageStatus::Queued };
        let outcome = match self {
            Self::Accepts(_) | Self::AcceptsAndFails(_) | Self::ReachesNobody(_) => accepted,
            Self::Refuses(fault) => SendOutcome::Refused(*fault),
            Self::TimesOut | Self::Unreachable => {
                SendOutcome::Unknown { cause: UnknownCause::TimeOut, retry_after: None }
            }
            Self::Busy(retry_after) => SendOutcome::NotExecuted { retry_after: *retry_after, fault: None },
            Self::Kills => return Vec::new(),
        };
        let mut inputs = vec![Input::Settled { delivery, attempt, outcome }];
        let (status, fault) = match self {
            Self::AcceptsAndFails(fault) => (MessageStatus::Undelivered, Some(*fault)),
            Self::ReachesNobody(status) => (*status, None),
            Self::Accepts(_) | Self::Refuses(_) | Self::TimesOut | Self::Unreachable | Self::Busy(_) | Self::Kills => {
                return inputs;
            }
        };
        let receipt = Receipt { provider_id, status, fault };
        inputs.push(Input::Received { delivery, attempt, receipt });
        inputs
    }

    fn looked_up(&self, delivery: DeliveryNo, attempt: AttemptNo) -> Vec<Input> {
        match self {
            Self::Kills => Vec::new(),
            Self::Unreachable => vec![Input::NotFound { delivery, attempt, answered: false }],
            Self::Accepts(_)
            | Self::AcceptsAndFails(_)
            | Self::ReachesNobody(_)
            | Self::Refuses(_)
            | Self::TimesOut
            | Self::Busy(_) => {
                vec![Input::NotFound { delivery, attempt, answered: true }]
            }
        }
    }

    fn polled(&self, delivery: DeliveryNo, attempt: AttemptNo) -> Vec<Input> {
        let Self::Accepts(status) = self else { return Vec::new() };
        let receipt = Receipt { provider_id: provider_id(delivery, attempt, false), status: *status, fault: None };
        vec![Input::Received { delivery, attempt, receipt }]
    }
}

/// An upper bound on the time between two messages: one delivery with everything that can hold it up, and a climb of
/// the whole ladder whose steps may name nobody.
fn longest_silence(world: &World) -> Duration {
    let rules = &world.rules.delivery;
    let rungs = world.policies().map(|policy| u32::try_from(policy.steps.len()).unwrap() * policy.rounds + 2).max();
    let patience = world.policies().map(longest_patience).max();
    let question = rules.look_up_first.max(rules.look_up_then).max(rules.retry_after_max).max(world.lease);
    let pause = rules.backoff_max.max(rules.retry_after_max).max(rules.give_up_after);
    patience.unwrap() * rungs.unwrap() + world.lease * 2 + question * (rules.look_ups_max + 1) + pause
}

/// Wakes the alert when it wants to be woken, until a new attempt is begun.
fn until_told_again(driver: &mut Driver<'_>, provider: &Provider) -> Result<(), TestCaseError> {
    let (told, since) = (driver.begun.len(), driver.now);
    let bound = longest_silence(driver.world);
    while driver.begun.len() == told {
        prop_assert!(driver.alert.next_action_at().is_some(), "silence: {:#?}", driver.alert);
        driver.go_to_next_action();
        prop_assert!(driver.now <= since + bound, "nobody was told since {}: {:#?}", since, driver.alert);
        let woken = driver.wake()?;
        prop_assert!(!woken.is_empty(), "woken for nothing: {:#?}", driver.alert);
        provider.answer(driver, &woken)?;
    }
    Ok(())
}

/// Whom a stage names when it begins, for who is on call changes later; over how many channels at the most; and whether it names
/// nobody, so that they stand in.
type Stages = BTreeMap<Stage, (BTreeSet<ContactId>, usize, bool)>;

/// Notes whom the stage names that has just begun.
fn begins(driver: &Driver<'_>, stages: &mut Stages) {
    let AlertState::Escalating { stage, vacant, .. } = &driver.alert.state else { return };
    let (policy, directory) = (&driver.alert.policy, &driver.world.directory);
    let mut called = named(*stage, policy, directory, driver.now);
    let (mut channels, mut stands_in) = (stage.targets(policy).1.len(), false);
    if let Stage::LastResponder { times } = stage {
        let rungs = with_last(*stage, policy, vacant).into_iter();
        for rung in rungs.filter(|rung| !rung.targets(policy).1.is_empty()) {
            called.extend(named(rung, policy, directory, driver.now));
            channels = channels.max(rung.targets(policy).1.len());
        }
        if called.is_empty() {
            // All who can be told stand in by turns, over all that they have.
            let people: Vec<_> = directory.people().filter(|person| !person.methods.is_empty()).collect();
            let person = people[(*times as usize - 1) % people.len()];
            called.insert(person.id.clone());
            (channels, stands_in) = (person.methods.len(), true);
        }
    }
    stages.entry(*stage).or_insert((called, channels, stands_in));
}

proptest! {
    #![proptest_config(cases(250))]

    #[test]
    fn from_wherever_it_stands_an_unanswered_alert_tells_somebody_again(
        world in reachable_world(),
        score in any_score(),
        steps in vec(step().prop_filter("it stays open", |step| !matches!(step.what, What::Resolve { .. })), 0..40),
        provider in provider(),
    ) {
        let (mut driver, _) = Driver::open(&world, score, Granted::Override, true)?;
        for step in &steps {
            step.happen(&mut driver)?;
        }
        driver.wake()?;
        while matches!(driver.alert.state, AlertState::Acknowledged { .. }) {
            driver.go_to_next_action();
            let woken = driver.wake()?;
            provider.answer(&mut driver, &woken)?;
        }
        for _ in 0..12 {
            until_told_again(&mut driver, &provider)?;
        }
    }

    #[test]
    fn a_provider_that_takes_every_message_gets_one_for_each_person_of_each_stage(
        world in reachable_world(),
        score in any_score(),
        status in select(STATUSES[..NO_FAILURES].to_vec()),
        wakes in 1usize..60,
    ) {
        let provider = Provider::Accepts(status);
        let (mut driver, opened) = Driver::open(&world, score, Granted::Override, true)?;
        provider.answer(&mut driver, &opened)?;
        let mut stages = Stages::new();
        begins(&driver, &mut stages);
        for _ in 0..wakes {
            driver.go_to_next_action();
            let woken = driver.wake()?;
            provider.answer(&mut driver, &woken)?;
            begins(&driver, &mut stages);
        }
        for (stage, (wanted, channels, _)) in stages {
            let mut told: BTreeMap<&ContactId, u32> = BTreeMap::new();
            for begun in driver.begun.values().filter(|begun| begun.stage == stage) {
                *told.entry(&begun.contact).or_default() += 1;
            }
            prop_assert_eq!(told.keys().map(|id| (*id).clone()).collect::<BTreeSet<_>>(), wanted, "{:?}", stage);
            // Receipts come late here, by polls alone: each further channel is tried meanwhile, once.
            let most = u32::try_from(channels).unwrap();
            prop_assert!(told.values().all(|times| *times <= most), "{:?}: {:?}", stage, told);
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn whatever_the_provider_does_each_person_of_the_ladder_is_tried(
        world in reachable_world(),
        score in any_score(),
        provider in provider(),
        wakes in 1usize..50,
    ) {
        let (mut driver, opened) = Driver::open(&world, score, Granted::Override, true)?;
        provider.answer(&mut driver, &opened)?;
        let mut stages = Stages::new();
        begins(&driver, &mut stages);
        for _ in 0..wakes {
            driver.go_to_next_action();
            let woken = driver.wake()?;
            begins(&driver, &mut stages);
            provider.answer(&mut driver, &woken)?;
            begins(&driver, &mut stages);
        }
        // Where all of a rung failed in the end, the next one has begun, and what it says is to be taken in hand.
        driver.wake()?;
        // Where a message to the person is in hand still, the stage joins it: so not every stage has one of its own.
        let tried: BTreeSet<&ContactId> = driver.begun.values().map(|begun| &begun.contact).collect();
        // Who stands in for nobody is drawn by turns from those whose phones have not failed, and that somebody is told is said above.
        for (stage, (wanted, ..)) in stages.into_iter().filter(|(_, (.., stands_in))| !stands_in) {
            prop_assert!(wanted.iter().all(|person| tried.contains(person)), "{:?}: {:?} of {:?}", stage, tried, wanted);
        }
    }
}
