//! Rungs for roles and for whoever is on call, and ladders by urgency: each rule as the shortest story that shows it.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{Action, Alarm, AlertState, Input, Transition};
use crisis_relay::domain::contact::{Channel, ContactRole, Directory};
use crisis_relay::domain::ids::{ContactId, DeliveryNo};
use crisis_relay::domain::policy::{Policy, Stage, Target};
use crisis_relay::domain::provider::{MessageStatus, SendOutcome};
use crisis_relay::domain::schedule::{Schedule, Shift};

use crate::driver::Driver;
use crate::found::college;
use crate::steps::provider_id;
use crate::world::{Granted, World, at, contact_id, everybody, score, trigger};

fn nights(shifts: &[(&str, &str, u8)]) -> Schedule {
    let shift = |(from, until, number): &(&str, &str, u8)| Shift {
        from: from.parse().unwrap(),
        until: until.parse().unwrap(),
        people: vec![contact_id(*number)],
    };
    Schedule {
        id: "nights".parse().unwrap(),
        version: 1,
        time_zone: "Europe/Berlin".parse().unwrap(),
        shifts: shifts.iter().map(shift).collect(),
        overrides: Vec::new(),
        absences: Vec::new(),
    }
}

fn on_call() -> Target {
    Target::Schedule("nights".parse().unwrap())
}

/// The college, whose rungs tell these, with this schedule.
fn with(rungs: &[Target], schedule: Schedule) -> World {
    let world = college();
    let mut policy = (*world.policy).clone();
    let step = policy.steps[0].clone();
    policy.steps = rungs
        .iter()
        .map(|target| {
            let mut step = step.clone();
            step.targets = vec![target.clone()];
            step
        })
        .collect();
    World { policy: Arc::new(policy), directory: everybody().with_schedules(vec![schedule]), ..world }
}

/// Twilio takes what was sent, and says nothing more of it.
fn accept(driver: &mut Driver<'_>, transition: &Transition) {
    for action in &transition.actions {
        if let Action::Send { delivery, attempt, .. } = action {
            let (delivery, attempt) = (*delivery, *attempt);
            let provider_id = provider_id(delivery, attempt, false);
            let outcome = SendOutcome::Accepted { provider_id, status: MessageStatus::Sent };
            driver.step(&Input::Settled { delivery, attempt, outcome }, false).unwrap();
        }
    }
}

fn told<'d>(driver: &'d Driver<'_>) -> Vec<&'d str> {
    driver.alert.deliveries.iter().map(|delivery| delivery.contact.as_str()).collect()
}

fn stage(driver: &Driver<'_>) -> Option<Stage> {
    match driver.alert.state {
        AlertState::Escalating { stage, .. } => Some(stage),
        AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => None,
    }
}

fn opened(world: &World, value: f64) -> (Driver<'_>, Transition) {
    Driver::open(world, Some(score(value)), Granted::Override, true).unwrap()
}

fn joined(driver: &mut Driver<'_>, value: f64, granted: Granted) -> Transition {
    let input = Input::Joined { trigger: trigger(driver.now, Some(score(value))), ground: granted.ground(driver.now) };
    driver.step(&input, true).unwrap().unwrap()
}

/// The alert opens on Friday at eleven in Berlin, and the hand-over is two minutes after the second rung begins.
#[test]
fn whoever_is_on_call_when_a_rung_begins_is_told() {
    let schedule = nights(&[("friday 08:00", "friday 11:12", 3), ("friday 11:12", "friday 18:00", 1)]);
    let world = with(&[Target::Contact(contact_id(0)), on_call()], schedule);
    let (mut driver, _) = opened(&world, 0.85);
    while !matches!(stage(&driver), Some(Stage::LastResponder { .. })) {
        driver.go_to_next_action();
        driver.wake().unwrap();
    }
    let begun: Vec<(&ContactId, Stage)> = driver.begun.values().map(|begun| (&begun.contact, begun.stage)).collect();
    let first = Stage::Step { round: 0, step: 1 };
    assert!(begun.contains(&(&contact_id(3), first)) && !begun.contains(&(&contact_id(1), first)), "{begun:?}");
    let second = Stage::Step { round: 1, step: 1 };
    assert!(begun.contains(&(&contact_id(1), second)) && !begun.contains(&(&contact_id(3), second)), "{begun:?}");
}

#[test]
fn while_nobody_is_on_call_the_next_rung_begins_at_once_and_the_operator_hears_of_it() {
    let world = with(&[on_call(), Target::Contact(contact_id(1))], nights(&[("saturday 08:00", "saturday 18:00", 3)]));
    let (driver, opened) = opened(&world, 0.85);
    assert_eq!((told(&driver), stage(&driver)), (vec!["contact-1"], Some(Stage::Step { round: 0, step: 1 })));
    assert_eq!(opened.alarms, [Alarm::NobodyOnCall]);
    assert!(driver.chain.iter().any(|entry| entry.canonical.contains(r#""deed":"nobody_on_call""#)));
}

#[test]
fn where_every_rung_is_for_whoever_is_on_call_and_nobody_is_the_last_responder_is_told_at_once() {
    // A role that nobody has, and a schedule that is not there any more, are vacant as well.
    let (lead, gone) = (Target::Role(ContactRole::Lead), Target::Schedule("gone".parse().unwrap()));
    let world = with(&[on_call(), lead, gone], nights(&[]));
    let (driver, opened) = opened(&world, 0.85);
    assert_eq!((told(&driver), stage(&driver)), (vec!["contact-2"], Some(Stage::LastResponder { times: 1 })));
    assert_eq!(opened.alarms, [Alarm::NobodyOnCall, Alarm::LadderExhausted]);
}

#[test]
fn where_the_last_responder_is_whoever_is_on_call_and_nobody_is_somebody_is_told_all_the_same() {
    let mut world = with(&[on_call()], nights(&[]));
    world.policy = Arc::new(Policy { last_responder: on_call(), ..(*world.policy).clone() });
    let (driver, opened) = opened(&world, 0.85);
    assert_eq!((told(&driver), stage(&driver)), (vec!["contact-0"], Some(Stage::LastResponder { times: 1 })));
    assert_eq!(opened.alarms, [Alarm::NobodyOnCall, Alarm::LadderExhausted]);
}

/// Friday at eleven in Berlin, two minutes before the shift begins.
#[test]
fn who_comes_on_call_after_every_rung_was_found_vacant_is_told_with_the_last_responder_over_what_their_rung_says() {
    let mut world =
        with(&[on_call()], nights(&[("friday 11:02", "friday 11:12", 3), ("friday 11:12", "friday 18:00", 1)]));
    Arc::make_mut(&mut world.policy).last_responder_channels = vec![Channel::Whatsapp];
    let (mut driver, _) = opened(&world, 0.85);
    assert_eq!((told(&driver), stage(&driver)), (vec!["contact-2"], Some(Stage::LastResponder { times: 1 })));
    while stage(&driver) != Some(Stage::LastResponder { times: 4 }) {
        driver.go_to_next_action();
        let woken = driver.wake().unwrap();
        accept(&mut driver, &woken);
    }
    let begun = driver.begun.values().map(|begun| (begun.contact.as_str(), begun.channel, begun.stage));
    let of = |person: &'static str| -> Vec<_> {
        begun.clone().filter(|(told, ..)| *told == person).map(|(_, over, stage)| (over, stage)).collect()
    };
    let turn = |times| Stage::LastResponder { times };
    assert_eq!(
        of("contact-3"),
        [Channel::Whatsapp, Channel::Sms]
            .map(|over| (over, turn(2)))
            .into_iter()
            .chain([Channel::Whatsapp, Channel::Sms].map(|over| (over, turn(3))))
            .collect::<Vec<_>>()
    );
    assert_eq!(of("contact-1"), [(Channel::Whatsapp, turn(4))], "whoever has the shift after them");
    assert!(of("contact-2").iter().all(|(over, _)| *over == Channel::Whatsapp));
}

#[test]
fn a_rung_that_somebody_was_told_on_after_all_has_had_its_turn() {
    let rungs = [on_call(), Target::Contact(contact_id(0))];
    let world = with(&rungs, nights(&[("friday 11:02", "friday 18:00", 3)]));
    let (mut driver, _) = opened(&world, 0.85);
    assert_eq!(stage(&driver), Some(Stage::Step { round: 0, step: 1 }));
    while stage(&driver) != Some(Stage::LastResponder { times: 2 }) {
        driver.go_to_next_action();
        driver.wake().unwrap();
    }
    let begun = driver.begun.values().filter(|begun| begun.contact == contact_id(3));
    let stages: std::collections::BTreeSet<Stage> = begun.map(|begun| begun.stage).collect();
    assert_eq!(stages.into_iter().collect::<Vec<_>>(), [Stage::Step { round: 1, step: 0 }]);
}

#[test]
fn a_person_whom_several_targets_of_a_rung_come_to_is_told_once() {
    let mut world = with(&[on_call()], nights(&[("friday 08:00", "friday 18:00", 3)]));
    let mut policy = (*world.policy).clone();
    let everybody = Target::Role(ContactRole::Counsellor);
    policy.steps[0].targets =
        vec![Target::Contact(contact_id(3)), on_call(), everybody, Target::Contact(contact_id(3))];
    world.policy = Arc::new(policy);
    let (driver, _) = opened(&world, 0.85);
    assert_eq!(told(&driver), ["contact-3", "contact-0", "contact-1", "contact-2", "contact-4"]);
}

#[test]
fn who_hands_on_is_passed_over_also_where_they_are_on_call_for_the_next_rung() {
    let rungs = [Target::Contact(contact_id(0)), on_call(), Target::Contact(contact_id(1))];
    let world = with(&rungs, nights(&[("friday 08:00", "friday 18:00", 0)]));
    let (mut driver, _) = opened(&world, 0.85);
    driver.step(&Input::PassOn, true).unwrap().unwrap();
    assert_eq!(
        (told(&driver), stage(&driver)),
        (vec!["contact-0", "contact-1"], Some(Stage::Step { round: 0, step: 2 }))
    );
}

fn with_two_ladders() -> World {
    let world = with(&[Target::Contact(contact_id(0)), Target::Contact(contact_id(1))], nights(&[]));
    let mut critical = Policy { id: "critical".parse().unwrap(), ..(*world.policy).clone() };
    critical.steps[0].targets = vec![Target::Contact(contact_id(3))];
    World { critical: Some(Arc::new(critical)), ..world }
}

#[test]
fn a_case_takes_the_ladder_of_its_band_and_one_raised_by_hand_that_of_the_gravest() {
    let world = with_two_ladders();
    for (value, person) in
        [(Some(0.85), "contact-0"), (Some(0.94), "contact-0"), (Some(0.95), "contact-3"), (None, "contact-3")]
    {
        let (driver, _) = Driver::open(&world, value.map(score), Granted::Override, true).unwrap();
        assert_eq!(told(&driver), [person], "{value:?}");
    }
}

#[test]
fn a_case_that_rises_into_a_band_with_a_ladder_of_its_own_goes_on_by_that_from_its_first_rung() {
    let world = with_two_ladders();
    let (mut driver, _) = opened(&world, 0.94);
    // By less than people are told again for otherwise.
    let risen = joined(&mut driver, 0.95, Granted::Override);
    assert!(risen.paged);
    assert_eq!((driver.alert.policy.id.as_str(), stage(&driver)), ("critical", Some(Stage::FIRST)));
    assert_eq!(told(&driver), ["contact-0", "contact-3"]);
    // And does not fall back.
    joined(&mut driver, 0.5, Granted::Override);
    assert_eq!(driver.alert.policy.id.as_str(), "critical");
}

#[test]
fn a_withheld_case_that_rises_is_released_on_the_ladder_of_the_graver_band() {
    let world = with_two_ladders();
    let (mut driver, _) = Driver::open(&world, Some(score(0.9)), Granted::Nothing, true).unwrap();
    assert!(!joined(&mut driver, 0.97, Granted::Nothing).paged);
    assert_eq!(driver.alert.policy.id.as_str(), "critical");
    joined(&mut driver, 0.5, Granted::Override);
    assert_eq!(told(&driver), ["contact-3"]);
}

/// What one ladder began does not go on by another's channels.
#[test]
fn a_message_of_the_ladder_that_was_left_is_not_followed_by_its_next_channel() {
    let world = with_two_ladders();
    let (mut driver, _) = opened(&world, 0.85);
    joined(&mut driver, 0.97, Granted::Override);
    driver.now += Duration::from_secs(60);
    driver.wake().unwrap();
    let to_first = driver.alert.deliveries.iter().filter(|delivery| delivery.contact == contact_id(0)).count();
    assert_eq!(to_first, 1);
    assert!(driver.alert.delivery(DeliveryNo(1)).is_some_and(|delivery| delivery.fall_over_at.is_none()));
}

#[test]
fn a_ground_is_sought_for_every_channel_that_a_role_or_a_shift_may_ever_be_told_over() {
    let world = with(&[on_call()], nights(&[("saturday 08:00", "saturday 18:00", 3)]));
    // Nobody is on call on that Friday; on Saturday somebody is.
    assert_eq!(world.directory.schedules()[0].on_call(at("2026-11-20T10:00:00Z")), []);
    let mut people: Vec<_> = world.directory.people().cloned().collect();
    for (number, channel) in [(2, Channel::Whatsapp), (3, Channel::Sms)] {
        people[number].methods.retain(|method| method.channel == channel);
    }
    let directory = Directory::new(people).with_schedules(world.directory.schedules().to_vec());
    assert_eq!(world.policy.channels_that_reach(&directory), [Channel::Whatsapp, Channel::Sms]);
    assert_eq!(world.policy.channels_that_reach(&directory.with_schedules(Vec::new())), [Channel::Whatsapp]);
}
