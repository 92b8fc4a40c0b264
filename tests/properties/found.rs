//! What once went wrong, each as the shortest story that shows it.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{AckVia, Alarm, AlertState, Input, Kind, Outcome, Rules, Transition};
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::delivery::{Delivery, DeliveryRules, DeliveryState};
use crisis_relay::domain::ids::{AttemptNo, DeliveryNo};
use crisis_relay::domain::message::Purpose;
use crisis_relay::domain::policy::{Policy, Stage, Step, Target};
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};
use jiff::SignedDuration;

use crate::driver::Driver;
use crate::steps::provider_id;
use crate::world::{Granted, World, contact_id, everybody, score, start_plus, trigger};

const MINUTE: Duration = Duration::from_secs(60);

/// Two people are told by turns, five minutes apart, over WhatsApp and else by text message.
pub(crate) fn college() -> World {
    let channels = vec![Channel::Whatsapp, Channel::Sms];
    let step = |number| Step {
        after: 5 * MINUTE,
        targets: vec![Target::Contact(contact_id(number))],
        channels: channels.clone(),
    };
    let policy = Policy {
        id: "college".parse().unwrap(),
        version: 1,
        steps: vec![step(0), step(1)],
        rounds: 2,
        repeat_every: 5 * MINUTE,
        last_responder: Target::Contact(contact_id(2)),
        last_responder_channels: channels.clone(),
        last_responder_every: 5 * MINUTE,
        further_rounds_with_last: false,
        fall_over_after: MINUTE / 2,
        act_within: 15 * MINUTE,
        check_in_within: 5 * MINUTE,
        resolve_by_reply: false,
        emergency_contact_after: None,
        respond_within: 5 * MINUTE,
    };
    let delivery = DeliveryRules {
        attempts_max: 6,
        give_up_after: 5 * MINUTE,
        backoff_base: Duration::from_millis(500),
        backoff_max: Duration::from_secs(30),
        retry_after_max: MINUTE,
        look_up_first: Duration::from_secs(2),
        look_up_then: Duration::from_secs(5),
        look_up_lost: Duration::from_secs(1),
        look_ups_max: 3,
        receipt_poll_first: MINUTE,
        receipt_poll_max: 15 * MINUTE,
        receipt_polls_max: 8,
    };
    let rules = Rules { repage_rise: 0.1, retry_when_all_failed: Duration::from_secs(30), delivery };
    World {
        policy: Arc::new(policy),
        critical: None,
        rules,
        directory: everybody(),
        lease: Duration::from_secs(30),
        kind: Kind::Live,
        approved: true,
    }
}

fn opened(world: &World, value: f64, granted: Granted) -> Driver<'_> {
    Driver::open(world, Some(score(value)), granted, true).unwrap().0
}

fn happens(driver: &mut Driver<'_>, input: &Input) -> Transition {
    driver.step(input, false).unwrap().unwrap()
}

fn comes(driver: &mut Driver<'_>, (delivery, attempt): (u32, u32), outcome: SendOutcome) -> Transition {
    let (delivery, attempt) = (DeliveryNo(delivery), AttemptNo(attempt));
    happens(driver, &Input::Settled { delivery, attempt, outcome })
}

fn told(driver: &mut Driver<'_>, (delivery, attempt): (u32, u32), status: MessageStatus) -> Transition {
    let (delivery, attempt) = (DeliveryNo(delivery), AttemptNo(attempt));
    let receipt = Receipt { provider_id: provider_id(delivery, attempt, false), status, fault: None };
    happens(driver, &Input::Received { delivery, attempt, receipt })
}

/// An event of the same student; without a score, a person raised it.
fn joins(driver: &mut Driver<'_>, value: Option<f64>, granted: Granted) -> Transition {
    let input = Input::Joined { trigger: trigger(driver.now, value.map(score)), ground: granted.ground(driver.now) };
    happens(driver, &input)
}

fn accepted(delivery: u32, attempt: u32) -> SendOutcome {
    let provider_id = provider_id(DeliveryNo(delivery), AttemptNo(attempt), false);
    SendOutcome::Accepted { provider_id, status: MessageStatus::Queued }
}

fn busy() -> SendOutcome {
    SendOutcome::NotExecuted { retry_after: None, fault: None }
}

fn timed_out() -> SendOutcome {
    SendOutcome::Unknown { cause: UnknownCause::TimeOut, retry_after: None }
}

fn refused(class: ErrorClass) -> SendOutcome {
    SendOutcome::Refused(ProviderFault { code: Some(63_003), class, delay_s: None })
}

fn delivery<'d>(driver: &'d Driver<'_>, no: u32) -> &'d Delivery {
    driver.alert.delivery(DeliveryNo(no)).unwrap()
}

fn wakes_at(driver: &mut Driver<'_>, seconds: i64) -> Transition {
    driver.now = start_plus(seconds);
    driver.wake().unwrap()
}

#[test]
fn a_message_whose_ground_was_replaced_does_not_wait_for_ever() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Consent(&[Channel::Whatsapp]));
    comes(&mut driver, (1, 1), busy());
    joins(&mut driver, Some(0.81), Granted::Consent(&[Channel::Sms]));
    let woken = wakes_at(&mut driver, 1);
    assert!(matches!(delivery(&driver, 1).state, DeliveryState::Cancelled { .. }));
    // Nobody has been told, so the next person is, at once.
    assert_eq!(woken.actions.len(), 1);
    assert_eq!(delivery(&driver, 2).channel, Channel::Sms);
}

#[test]
fn who_is_paged_again_and_again_does_not_keep_the_next_person_from_being_told() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Override);
    for minute in 1..=4 {
        driver.now = start_plus(60 * minute);
        assert!(joins(&mut driver, None, Granted::Nothing).paged);
    }
    wakes_at(&mut driver, 300);
    let AlertState::Escalating { stage, .. } = driver.alert.state else { panic!("{:?}", driver.alert.state) };
    assert_eq!(stage, Stage::Step { round: 0, step: 1 });
}

#[test]
fn that_a_person_raised_the_case_is_news_while_a_milder_message_is_on_its_way() {
    let world = college();
    let mut driver = opened(&world, 0.6, Granted::Override);
    joins(&mut driver, None, Granted::Nothing);
    assert_eq!(driver.alert.deliveries.len(), 2);
    assert_eq!(delivery(&driver, 2).score, None);
    // A milder score after it is none.
    joins(&mut driver, Some(0.9), Granted::Nothing);
    assert_eq!(driver.alert.deliveries.len(), 2);
}

#[test]
fn news_that_waits_for_a_phone_is_brought_up_to_date_and_not_planned_twice() {
    let world = college();
    let mut driver = opened(&world, 0.5, Granted::Override);
    joins(&mut driver, Some(0.7), Granted::Nothing);
    joins(&mut driver, Some(0.9), Granted::Nothing);
    assert_eq!(driver.alert.deliveries.len(), 2);
    assert_eq!(delivery(&driver, 2).score, Some(score(0.9)));
}

/// The college, with WhatsApp alone: what fails there is followed by nothing of the same rung.
fn one_channel() -> World {
    let mut world = college();
    let policy = Arc::make_mut(&mut world.policy);
    policy.steps.iter_mut().for_each(|step| step.channels.truncate(1));
    policy.last_responder_channels.truncate(1);
    world
}

#[test]
fn a_message_that_fails_after_a_reopening_is_followed_as_soon_as_any_other() {
    let world = one_channel();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), accepted(1, 1));
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Api });
    assert_eq!(wakes_at(&mut driver, 900).alarms, [Alarm::Reopened]);
    // The second one told that it was taken.
    comes(&mut driver, (3, 1), refused(ErrorClass::Switch));
    assert_eq!(delivery(&driver, 4).contact, contact_id(1), "the next rung begins at once");
    assert_eq!(wakes_at(&mut driver, 900).actions.len(), 1);
    // Once they were tried, too, the whole round was in vain, and there is a pause.
    comes(&mut driver, (4, 1), refused(ErrorClass::Switch));
    assert_eq!(driver.alert.next_action_at(), Some(start_plus(930)));
}

#[test]
fn what_is_not_needed_any_more_is_followed_by_no_further_channel() {
    let mut world = college();
    let policy = Arc::make_mut(&mut world.policy);
    policy.steps.iter_mut().for_each(|step| step.channels = Channel::ALL.to_vec());
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), accepted(1, 1));
    wakes_at(&mut driver, 30);
    // The text message waits for its turn when the first one arrives.
    comes(&mut driver, (2, 1), SendOutcome::NotBegun { wait: MINUTE });
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    let state = &delivery(&driver, 2).state;
    assert!(matches!(state, DeliveryState::Cancelled { .. }), "{state:?}");
    assert_eq!(driver.alert.deliveries_planned, 2, "called, though the first message has arrived");
}

#[test]
fn a_message_that_arrives_late_takes_the_next_channel_from_no_newer_round() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), accepted(1, 1));
    wakes_at(&mut driver, 30);
    comes(&mut driver, (2, 1), accepted(2, 1));
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Api });
    assert_eq!(wakes_at(&mut driver, 930).alarms, [Alarm::Reopened]);
    let again = driver.alert.deliveries_planned;
    comes(&mut driver, (again, 1), accepted(again, 1));
    wakes_at(&mut driver, 960);
    let text = driver.alert.deliveries_planned;
    assert_eq!((text, delivery(&driver, text).channel), (again + 1, Channel::Sms));
    // The text message of the new round waits for its turn when the message of the old one arrives.
    comes(&mut driver, (text, 1), SendOutcome::NotBegun { wait: MINUTE });
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    assert!(matches!(delivery(&driver, text).state, DeliveryState::Due { .. }), "{:?}", delivery(&driver, text).state);
    // Its own message is another thing.
    told(&mut driver, (again, 1), MessageStatus::Delivered);
    assert!(matches!(delivery(&driver, text).state, DeliveryState::Cancelled { .. }));
}

#[test]
fn a_message_that_arrives_late_takes_no_notice_back() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), accepted(1, 1));
    wakes_at(&mut driver, 30);
    comes(&mut driver, (2, 1), accepted(2, 1));
    told(&mut driver, (2, 1), MessageStatus::Delivered);
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Api });
    assert_eq!((delivery(&driver, 3).purpose, delivery(&driver, 3).channel), (Purpose::TakenNotice, Channel::Sms));
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    assert!(matches!(delivery(&driver, 3).state, DeliveryState::Due { .. }), "{:?}", delivery(&driver, 3).state);
}

/// A case that the first two have been told of over WhatsApp, and whose phones have it, taken at the dashboard: messages 3
/// and 4 say so.
fn taken(world: &World) -> Driver<'_> {
    let mut driver = opened(world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), accepted(1, 1));
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    wakes_at(&mut driver, 300);
    comes(&mut driver, (2, 1), accepted(2, 1));
    told(&mut driver, (2, 1), MessageStatus::Delivered);
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Api });
    driver.wake().unwrap();
    for no in [3, 4] {
        assert_eq!(
            (delivery(&driver, no).purpose, delivery(&driver, no).channel),
            (Purpose::TakenNotice, Channel::Whatsapp)
        );
        comes(&mut driver, (no, 1), accepted(no, 1));
    }
    driver
}

fn fails(driver: &mut Driver<'_>, (delivery, attempt): (u32, u32), class: ErrorClass) -> Transition {
    let (delivery, attempt) = (DeliveryNo(delivery), AttemptNo(attempt));
    let fault = Some(ProviderFault { code: Some(63_016), class, delay_s: None });
    let receipt =
        Receipt { provider_id: provider_id(delivery, attempt, false), status: MessageStatus::Undelivered, fault };
    happens(driver, &Input::Received { delivery, attempt, receipt })
}

#[test]
fn a_notice_that_arrives_after_all_takes_back_the_one_that_follows_it_and_no_other() {
    let world = college();
    let mut driver = taken(&world);
    for no in [3, 4] {
        let came = fails(&mut driver, (no, 1), ErrorClass::Template);
        assert_eq!(came.alarms, [Alarm::ProviderRefused { class: ErrorClass::Template, code: Some(63_016) }]);
    }
    let texts = [5, 6].map(|no| (delivery(&driver, no).channel, delivery(&driver, no).follows));
    assert_eq!(texts, [3, 4].map(|no| (Channel::Sms, Some(DeliveryNo(no)))));
    told(&mut driver, (4, 1), MessageStatus::Delivered);
    assert_eq!([5, 6].map(|no| delivery(&driver, no).state.name()), ["due", "cancelled"]);
}

#[test]
fn two_people_with_one_phone_hear_a_notice_there_once_and_neithers_first_message_takes_it_back() {
    let mut world = college();
    let mut people: Vec<_> = world.directory.people().cloned().collect();
    let shared = people[0].methods.iter().find(|method| method.channel == Channel::Sms).unwrap().clone();
    let second = people[1].methods.iter_mut().find(|method| method.channel == Channel::Sms).unwrap();
    *second = shared;
    world.directory = crisis_relay::domain::contact::Directory::new(people);
    // While the first waits, and where it is out.
    for is_out in [false, true] {
        let mut driver = taken(&world);
        fails(&mut driver, (3, 1), ErrorClass::Template);
        if is_out {
            driver.wake().unwrap();
            comes(&mut driver, (5, 1), accepted(5, 1));
        }
        fails(&mut driver, (4, 1), ErrorClass::Template);
        assert_eq!(driver.alert.deliveries_planned, 5, "it hears it once");
        told(&mut driver, (3, 1), MessageStatus::Delivered);
        assert_eq!(delivery(&driver, 5).state.name(), if is_out { "accepted" } else { "due" });
    }
}

#[test]
fn what_a_notice_says_is_said_over_no_other_channel_once_it_is_not_true_for_its_recipient() {
    let world = college();
    // Somebody else has it since.
    let mut driver = taken(&world);
    wakes_at(&mut driver, 300 + 15 * 60);
    assert!(matches!(driver.alert.state, AlertState::Escalating { .. }));
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Reply });
    let planned = driver.alert.deliveries_planned;
    fails(&mut driver, (3, 1), ErrorClass::Switch);
    fails(&mut driver, (4, 1), ErrorClass::Switch);
    assert_eq!(driver.alert.deliveries_planned, planned, "both were of an earlier time");
}

#[test]
fn a_follow_up_goes_to_nobody_else_before_the_same_persons_other_channel_was_tried() {
    let world = college();
    let mut driver = taken(&world);
    let follow_up_at = Some(driver.now + SignedDuration::from_hours(48));
    happens(&mut driver, &Input::Resolve { outcome: Outcome::SafeInPerson, note: None, follow_up_at });
    driver.now += SignedDuration::from_hours(49);
    driver.wake().unwrap();
    let reminded = |driver: &Driver<'_>| {
        let reminders = driver.alert.deliveries.iter().filter(|one| one.purpose == Purpose::FollowUpReminder);
        reminders.map(|one| (one.contact.clone(), one.channel)).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for person in [1, 0, 2] {
        for channel in [Channel::Whatsapp, Channel::Sms] {
            expected.push((contact_id(person), channel));
            assert_eq!(reminded(&driver), expected);
            let no = driver.alert.deliveries_planned;
            comes(&mut driver, (no, 1), refused(ErrorClass::Switch));
            driver.wake().unwrap();
        }
    }
}

#[test]
fn messages_without_receipts_do_not_pile_up() {
    let mut world = college();
    world.rules.delivery.receipt_polls_max = 100;
    let mut driver = opened(&world, 0.8, Granted::Override);
    for no in 1..=60 {
        comes(&mut driver, (no, 1), accepted(no, 1));
        while driver.alert.deliveries_planned == no {
            driver.go_to_next_action();
            driver.wake().unwrap();
        }
    }
    assert_eq!(driver.alert.deliveries.len(), 32);
}

#[test]
fn look_ups_end_also_where_whoever_makes_them_dies_each_time() {
    let world = one_channel();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), timed_out());
    // Three look-ups, each of which is taken for lost when its lease ends.
    for (seconds, asked) in [(2, 1), (32, 1), (62, 1), (92, 1)] {
        assert_eq!(wakes_at(&mut driver, seconds).actions.len(), asked);
    }
    assert_eq!(delivery(&driver, 1).attempts.len(), 2);
}

#[test]
fn what_has_arrived_is_not_sent_again() {
    let world = college();
    for outcome in [busy(), refused(ErrorClass::Delay), refused(ErrorClass::Switch)] {
        let mut driver = opened(&world, 0.8, Granted::Override);
        comes(&mut driver, (1, 1), busy());
        wakes_at(&mut driver, 1);
        // The answer was wrong: the first call was executed.
        told(&mut driver, (1, 1), MessageStatus::Delivered);
        comes(&mut driver, (1, 2), outcome);
        let state = &delivery(&driver, 1).state;
        assert!(matches!(state, DeliveryState::Accepted { status: MessageStatus::Delivered, .. }), "{state:?}");
        assert_eq!(driver.alert.next_action_at(), Some(start_plus(300)));
    }
}

#[test]
fn a_message_that_was_read_stays_read_when_another_arrives() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), busy());
    wakes_at(&mut driver, 1);
    told(&mut driver, (1, 2), MessageStatus::Read);
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    assert_eq!(delivery(&driver, 1).state.name(), "read");
}

#[test]
fn a_cancelled_message_that_arrives_is_shown_as_arrived() {
    let world = college();
    let mut driver = opened(&world, 0.8, Granted::Override);
    comes(&mut driver, (1, 1), busy());
    happens(&mut driver, &Input::Acknowledge { via: AckVia::Reply });
    assert_eq!(delivery(&driver, 1).state.name(), "cancelled");
    told(&mut driver, (1, 1), MessageStatus::Delivered);
    assert_eq!(delivery(&driver, 1).state.name(), "delivered");
}

#[test]
fn a_clock_that_was_set_back_delays_nothing() {
    let world = college();
    let back = |driver: &mut Driver<'_>| {
        driver.now -= SignedDuration::from_hours(1);
        driver.wake().unwrap();
        driver.alert.next_action_at().unwrap().duration_since(driver.now)
    };
    let mut waiting = opened(&world, 0.8, Granted::Override);
    comes(&mut waiting, (1, 1), busy());
    assert!(back(&mut waiting) <= SignedDuration::from_mins(5), "a message waits for its next attempt");
    let mut in_hand = opened(&world, 0.8, Granted::Override);
    assert!(back(&mut in_hand) <= SignedDuration::from_mins(1), "a lease of somebody who may be dead");
    let mut taken = opened(&world, 0.8, Granted::Override);
    comes(&mut taken, (1, 1), refused(ErrorClass::Switch));
    happens(&mut taken, &Input::Acknowledge { via: AckVia::Reply });
    assert_eq!(back(&mut taken), SignedDuration::from_mins(15), "a case that is taken");
}
