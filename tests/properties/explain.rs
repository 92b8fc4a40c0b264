//! What is said of a ladder beforehand is what an alert on it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crisis_relay::domain::alert::{Action, AlertState, Input, Transition};
use crisis_relay::domain::consent::Ground;
use crisis_relay::domain::contact::{Channel, Contact, ContactMethod, Directory};
use crisis_relay::domain::ids::{AddressKey, ContactId};
use crisis_relay::domain::policy::explain::{Climber, NotTold, StageShown, WhyMissing, WhyNot};
use crisis_relay::domain::policy::{Policy, Stage, Step, Target};
use crisis_relay::domain::provider::{MessageStatus, SendOutcome};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::cases;
use crate::driver::Driver;
use crate::steps::provider_id;
use crate::world::{CONSENTS, Granted, START, World, any_score, at, world};

/// The same world, but every message can be written, and nobody shares a number.
fn writable(world: World) -> World {
    let written = |channel: &Channel| *channel != Channel::Voice;
    let policy = |policy: &Policy| {
        let mut policy = policy.clone();
        policy.steps.iter_mut().for_each(|step| step.channels.retain(written));
        policy.last_responder_channels.retain(written);
        Arc::new(policy)
    };
    let mut number = 0;
    let mut own = |method: &ContactMethod| {
        number += 1;
        ContactMethod { address_key: AddressKey::from_bytes([number; 32]), ..method.clone() }
    };
    let people = world.directory.people().map(|person| Contact {
        methods: person.methods.iter().filter(|method| written(&method.channel)).map(&mut own).collect(),
        ..person.clone()
    });
    let directory = Directory::new(people.collect()).with_schedules(world.directory.schedules().to_vec());
    World { policy: policy(&world.policy), critical: world.critical.as_deref().map(policy), directory, ..world }
}

/// Twilio takes every message, and says nothing more of it.
fn accept(driver: &mut Driver<'_>, transition: &Transition) -> Result<(), TestCaseError> {
    for action in &transition.actions {
        if let Action::Send { delivery, attempt, .. } = action {
            let outcome = SendOutcome::Accepted {
                provider_id: provider_id(*delivery, *attempt, false),
                status: MessageStatus::Sent,
            };
            driver.step(&Input::Settled { delivery: *delivery, attempt: *attempt, outcome }, false)?;
        }
    }
    Ok(())
}

/// Each reason that is given is so. `passed_over` are the rungs that nobody was on when their turn came last.
fn reasons_hold(
    shown: &StageShown,
    passed_over: &BTreeSet<u32>,
    policy: &Policy,
    directory: &Directory,
    ground: &Ground,
) -> Result<(), TestCaseError> {
    let (targets, channels) = shown.stage.targets(policy);
    let has = |id: &ContactId, channel| {
        directory.contact(id).is_some_and(|person| person.methods.iter().any(|method| method.channel == channel))
    };
    let holds = |id: &ContactId, not_over: &[(Channel, WhyNot)]| {
        not_over.iter().all(|(channel, why)| match why {
            WhyNot::NoNumber => !has(id, *channel),
            WhyNot::NotCovered => has(id, *channel) && !ground.allows(*channel),
        })
    };
    let named = crate::world::named(shown.stage, policy, directory, shown.at);
    let is_last = matches!(shown.stage, Stage::LastResponder { .. });
    let late_rungs = || policy.steps.iter().zip(0..).filter(|(_, rung)| is_last && passed_over.contains(rung));
    let mut somebody_is_missing = false;
    for not in &shown.not_told {
        let so = match not {
            NotTold::Missing(id, why) => {
                somebody_is_missing = true;
                directory.contact(id).is_none() && *why == WhyMissing::NotSetUp
            }
            NotTold::Unreachable(id, not_over) => {
                let says_of = |channels: &[Channel]| {
                    channels.iter().all(|channel| not_over.iter().any(|(not, _)| not == channel))
                };
                // Who has come on call for a rung that was passed over is told with the last responder, over that rung's channels.
                let is_late = |(step, _): (&Step, u32)| {
                    let called = step.targets.iter().flat_map(|target| target.people(directory, shown.at));
                    called.into_iter().any(|person| person.id == *id) && says_of(&step.channels)
                };
                let each = says_of(channels) || late_rungs().any(is_late);
                each && directory.contact(id).is_some() && holds(id, not_over)
            }
            NotTold::NobodyOf(role) => !directory.people().any(|person| person.role == *role),
            NotTold::NobodyOnCall(id) => {
                targets.contains(&Target::Schedule(id.clone()))
                    && Target::Schedule(id.clone()).people(directory, shown.at).is_empty()
            }
        };
        prop_assert!(so, "{:?} is not so: {:?}", not, shown);
    }
    for told in &shown.told {
        prop_assert!(told.over.iter().all(|(channel, _)| has(&told.contact, *channel) && ground.allows(*channel)));
        prop_assert!(holds(&told.contact, &told.not_over), "{:?}", told);
        // Who has come on call since their rung was passed over is told with the last responder.
        let is_late = || {
            let called = late_rungs().flat_map(|(step, _)| &step.targets);
            let mut called = called.flat_map(|target| target.people(directory, shown.at));
            called.any(|person| person.id == told.contact)
        };
        let so =
            if told.stands_in { somebody_is_missing || is_last } else { named.contains(&told.contact) || is_late() };
        prop_assert!(so, "{:?} stands in for nobody: {:?}", told, shown);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn a_ladder_that_is_climbed_on_paper_is_climbed_so_by_an_alert(
        world in world().prop_map(writable),
        score in any_score(),
        granted in prop_oneof![Just(Granted::Override), proptest::sample::select(&CONSENTS[..]).prop_map(Granted::Consent)],
    ) {
        let (mut driver, opened) = Driver::open(&world, score, granted, true)?;
        let ground = granted.ground(at(START)).unwrap();
        let climber = Climber {
            directory: &world.directory,
            idle: &BTreeMap::new(),
            ground: &ground,
            retry_when_all_failed: world.rules.retry_when_all_failed,
        };
        let shown = driver.alert.policy.climb(at(START), &climber);
        let last = shown.last().unwrap().at;
        accept(&mut driver, &opened)?;
        let mut stages: Vec<(Stage, Timestamp)> = Vec::new();
        let note = |driver: &Driver<'_>, stages: &mut Vec<(Stage, Timestamp)>| {
            if let AlertState::Escalating { stage, .. } = driver.alert.state
                && stages.last().is_none_or(|(last, _)| *last != stage)
            {
                stages.push((stage, driver.now));
            }
        };
        note(&driver, &mut stages);
        while !matches!(stages.last(), Some((Stage::LastResponder { .. }, _))) {
            driver.go_to_next_action();
            let woken = driver.wake()?;
            accept(&mut driver, &woken)?;
            note(&driver, &mut stages);
        }
        let foretold: Vec<(Stage, Timestamp)> = shown
            .iter()
            .filter(|shown| !shown.is_vacant || matches!(shown.stage, Stage::LastResponder { .. }))
            .map(|shown| (shown.stage, shown.at))
            .collect();
        // A stage that told nobody and was followed at once is over before anybody can look.
        let told_nobody = |stage: &Stage| shown.iter().any(|shown| shown.stage == *stage && shown.told.is_empty());
        let is_seen = |place: usize| {
            let (stage, at) = foretold[place];
            !told_nobody(&stage) || foretold.get(place + 1).is_none_or(|(_, next)| *next != at)
        };
        let seen: Vec<_> = (0..foretold.len()).filter(|place| is_seen(*place)).map(|place| foretold[place]).collect();
        prop_assert_eq!(&seen, &stages);
        let all = shown.iter().flat_map(|shown| &shown.told).flat_map(|told| {
            told.over.iter().map(|(channel, at)| (told.contact.clone(), *channel, *at))
        });
        let foretold: BTreeSet<(ContactId, Channel, Timestamp)> = all.filter(|(.., at)| *at <= last).collect();
        let begun = driver.begun.values().map(|begun| (begun.contact.clone(), begun.channel, begun.at));
        prop_assert_eq!(foretold, begun.filter(|(.., at)| *at <= last).collect::<BTreeSet<_>>());
        // Nobody is left out without a reason.
        let mut passed_over = BTreeSet::new();
        for shown in &shown {
            let named = crate::world::named(shown.stage, &driver.alert.policy, &world.directory, shown.at);
            let told = shown.told.iter().map(|told| &told.contact);
            let not_told = shown.not_told.iter().filter_map(|not| match not {
                NotTold::Missing(id, _) | NotTold::Unreachable(id, _) => Some(id),
                NotTold::NobodyOf(_) | NotTold::NobodyOnCall(_) => None,
            });
            let spoken_of: BTreeSet<&ContactId> = told.chain(not_told).collect();
            prop_assert!(named.iter().all(|id| spoken_of.contains(id)), "{:?} of {:?}", named, shown);
            reasons_hold(shown, &passed_over, &driver.alert.policy, &world.directory, &ground)?;
            if let Some(rung) = shown.stage.rung() {
                if shown.is_vacant {
                    passed_over.insert(rung);
                } else {
                    passed_over.remove(&rung);
                }
            }
        }
    }
}
