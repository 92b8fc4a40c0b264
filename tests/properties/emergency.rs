//! Emergency contacts of the student, whatever happens to the case, and whatever the student says meanwhile.
//!
//! - Nobody outside the team is told without a ground of their own, which stands in the audit before the call, and which the
//!   student's word still allows at that moment; nor in a drill, after the case is closed, or on the policy's account once
//!   somebody has taken it.
//! - An open case always has a next action, and a wake that knows whom the student has named leaves nothing due.
//! - They are never a part of the ladder: without them the case stands on the same stage at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{Alert, AlertState, Disclosures, Input, Kind, Situation, Transition};
use crisis_relay::domain::audit::Actor;
use crisis_relay::domain::consent::{ChannelConsent, DisclosureGround, EmergencyContact};
use crisis_relay::domain::contact::{Channel, ContactRole};
use crisis_relay::domain::event::Score;
use crisis_relay::domain::ids::{AddressKey, ContactId};
use crisis_relay::domain::message::Purpose;
use crisis_relay::domain::method::{Method, Standing};
use crisis_relay::domain::policy::Policy;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestCaseError;
use serde_json::Value;

use crate::cases;
use crate::driver::{Driver, actor_of, lease_of, situation};
use crate::steps::{Clock, Step, step};
use crate::world::{Granted, World, any_score, granted, sealed, start_plus, world};

/// What happens.
#[derive(Debug, Clone)]
enum Happening {
    /// Something that happens to any case.
    Usual(Step),
    /// The student says who they name now, where those are reached, and whether they may be told.
    Says(Vec<EmergencyContact>),
    /// A human decides.
    Decides(u8),
}

fn outsider(number: u8) -> ContactId {
    format!("e-{number}").parse().unwrap()
}

fn named(number: u8) -> impl Strategy<Value = EmergencyContact> {
    let standing = prop_oneof![
        4 => Just(Standing::Verified { at: start_plus(0) }),
        1 => Just(Standing::Unverified),
        1 => Just(Standing::OptedOut { since: start_plus(0), verified_at: None }),
    ];
    let method = move |channel| {
        (standing.clone(), 0u8..3).prop_map(move |(standing, which)| Method {
            channel,
            address: sealed("address"),
            address_key: AddressKey::from_bytes([200 + number * 3 + which; 32]),
            standing,
            code: None,
        })
    };
    let methods = subsequence(Channel::ALL.to_vec(), 0..=3).prop_shuffle();
    let methods = methods.prop_flat_map(move |channels| channels.into_iter().map(method.clone()).collect::<Vec<_>>());
    (methods, prop::option::weighted(0.9, prop::bool::weighted(0.8))).prop_map(move |(methods, granted)| {
        let word = |granted| ChannelConsent {
            granted,
            at: start_plus(0),
            source: "app_settings".parse().unwrap(),
            notice_version: None,
        };
        EmergencyContact {
            id: outsider(number),
            version: 1,
            name: sealed("name"),
            language: "en".parse().unwrap(),
            methods,
            consent: granted.map(word),
        }
    })
}

fn said() -> impl Strategy<Value = Vec<EmergencyContact>> {
    subsequence(vec![0u8, 1, 2], 0..=3).prop_flat_map(|numbers| numbers.into_iter().map(named).collect::<Vec<_>>())
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        12 => step().prop_map(Happening::Usual),
        2 => said().prop_map(Happening::Says),
        2 => (0u8..3).prop_map(Happening::Decides),
    ]
}

/// A policy may wait for a minute, or for longer than the ladder takes.
fn with_outsiders(world: World, after: Option<u64>) -> World {
    let after = after.map(Duration::from_secs);
    let told = |policy: &Arc<Policy>| Arc::new(Policy { emergency_contact_after: after, ..(**policy).clone() });
    World { policy: told(&world.policy), critical: world.critical.as_ref().map(told), ..world }
}

fn worlds() -> impl Strategy<Value = World> {
    let after = prop::option::weighted(0.8, select(vec![60u64, 300, 1800, 86_400]));
    (world(), after).prop_map(|(world, after)| with_outsiders(world, after))
}

/// One case, and what its student says.
struct Case<'w> {
    driver: Driver<'w>,
    known: Disclosures,
    /// Whether the student's word is read where it is asked for; if not, nobody outside may be told anything.
    reads: bool,
    told: BTreeSet<ContactId>,
}

impl<'w> Case<'w> {
    fn open(
        world: &'w World,
        score: Option<Score>,
        granted: Granted,
        contacts: Vec<EmergencyContact>,
    ) -> Result<Self, TestCaseError> {
        let (driver, _) = Driver::open(world, score, granted, false)?;
        let known = Disclosures { contacts, version: 1, has_desk: true };
        Ok(Self { driver, known, reads: true, told: BTreeSet::new() })
    }

    fn happen(&mut self, what: &Happening) -> Result<(), TestCaseError> {
        match what {
            Happening::Says(contacts) => {
                self.known.contacts.clone_from(contacts);
                self.known.version += 1;
                Ok(())
            }
            Happening::Decides(number) => {
                let by = Actor::Machine { key: "counsellor".to_owned() };
                let ground = DisclosureGround::Decision { statement: sealed("statement"), by, at: self.driver.now };
                self.step(&Input::Inform { contact: outsider(*number), ground }, true)
            }
            Happening::Usual(Step { clock, lease, jitter, what }) => {
                match clock {
                    Clock::Stands => {}
                    Clock::Ahead(by) => self.driver.now += *by,
                    Clock::Back(by) => self.driver.now -= jiff::SignedDuration::try_from(*by).unwrap(),
                    Clock::ToNextAction => self.driver.go_to_next_action(),
                }
                self.driver.jitter = *jitter;
                match what.input(&self.driver) {
                    Some(input) => self.step(&input, *lease),
                    None => Ok(()),
                }
            }
        }
    }

    fn step(&mut self, input: &Input, lease: bool) -> Result<(), TestCaseError> {
        let Driver { world, now, .. } = self.driver;
        let lease = lease.then(|| lease_of(world, 0, now));
        let (actor, ladders) = (actor_of(input), world.ladders());
        let knows = self.reads && matches!(input, Input::Wake { .. } | Input::Inform { .. });
        let cx = Situation {
            emergency: knows.then_some(&self.known),
            ..situation(world, &ladders, now, self.driver.jitter, &actor, lease.as_ref())
        };
        let before = self.driver.alert.clone();
        let Ok(transition) = before.clone().on(input.clone(), &cx) else { return Ok(()) };
        let again = before.clone().on(input.clone(), &cx).map(|again| again.alert);
        prop_assert_eq!(again.as_ref().ok(), Some(&transition.alert), "not a pure function");
        self.check(&before, &transition, knows)?;
        let alert = &transition.alert;
        if knows && lease.is_some() && matches!(input, Input::Wake { .. }) {
            prop_assert!(alert.next_action_at().is_none_or(|at| at > now), "due, and not done: {:#?}", alert);
        }
        let stored = serde_json::to_string(alert).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Alert>(&stored).unwrap(), alert, "the stored form");
        self.driver.alert = transition.alert;
        Ok(())
    }

    fn check(&mut self, before: &Alert, transition: &Transition, knows: bool) -> Result<(), TestCaseError> {
        let alert = &transition.alert;
        let waits = matches!(alert.state, AlertState::Escalating { .. } | AlertState::Acknowledged { .. });
        prop_assert!(!waits || alert.next_action_at().is_some(), "it ends in silence");
        for entry in &transition.audit {
            let said: Value = serde_json::from_str(&entry.canonical).unwrap();
            if said["what"] != "attempt_begun" || said["role"] != "emergency_contact" {
                prop_assert!(said.get("disclosure").is_none(), "a disclosure to the team: {}", entry.canonical);
                continue;
            }
            prop_assert!(knows, "told by a change that had not read the student's word");
            prop_assert_eq!(alert.kind, Kind::Live, "told in a drill");
            prop_assert!(alert.is_open(), "told after the case was closed");
            let no = said["delivery"].as_u64().unwrap();
            let delivery = alert.deliveries.iter().find(|delivery| u64::from(delivery.no.0) == no).unwrap();
            prop_assert_eq!(
                (delivery.purpose, delivery.role),
                (Purpose::EmergencyContact, ContactRole::EmergencyContact)
            );
            let ground = delivery.disclosure.as_ref();
            prop_assert_eq!(&said["disclosure"], &serde_json::to_value(ground).unwrap(), "another ground in the audit");
            prop_assert_eq!(said["ground"].as_str(), ground.map(DisclosureGround::kind));
            let contact = self.known.contact(&delivery.contact);
            let Some(contact) = contact else { return Err(TestCaseError::fail("told somebody who is not named")) };
            prop_assert!(contact.is_reached_at(delivery.channel, delivery.address_key), "a number that is not proven");
            if !ground.is_some_and(DisclosureGround::is_decision) {
                prop_assert!(contact.is_granted(), "told on a word that was taken back");
                prop_assert!(matches!(alert.state, AlertState::Escalating { .. }), "{:?}", alert.state);
            }
            self.told.insert(contact.id.clone());
        }
        for delivery in &alert.deliveries {
            let is_outside = delivery.purpose == Purpose::EmergencyContact;
            prop_assert_eq!(is_outside, delivery.disclosure.is_some(), "{:?}", delivery);
        }
        // What is with somebody outside decides nothing.
        prop_assert!(before.is_open() || !alert.is_open());
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(250))]

    #[test]
    fn nobody_outside_the_team_is_told_without_a_ground_of_their_own_and_an_open_case_never_ends_in_silence(
        world in worlds(),
        score in any_score(),
        granted in granted(),
        contacts in said(),
        happenings in vec(happening(), 1..60),
    ) {
        let mut case = Case::open(&world, score, granted, contacts)?;
        for happening in &happenings {
            case.happen(happening)?;
        }
    }

    #[test]
    fn nobody_outside_the_team_is_told_where_the_students_word_is_not_read(
        world in worlds(),
        contacts in said(),
        happenings in vec(happening(), 1..40),
    ) {
        let mut case = Case::open(&world, None, Granted::Override, contacts)?;
        case.reads = false;
        for happening in &happenings {
            case.happen(happening)?;
        }
        prop_assert!(case.told.is_empty());
    }

    /// Time alone, and a Twilio that answers nothing: with whom the student has named and without, the ladder is climbed alike.
    #[test]
    fn they_are_no_part_of_the_ladder(
        world in world(),
        score in any_score(),
        contacts in said(),
        wakes in 1usize..40,
    ) {
        let with = with_outsiders(world, Some(60));
        let without = World {
            policy: Arc::new(Policy { emergency_contact_after: None, ..(*with.policy).clone() }),
            critical: with.critical.as_ref().map(|policy| {
                Arc::new(Policy { emergency_contact_after: None, ..(**policy).clone() })
            }),
            rules: with.rules.clone(),
            directory: with.directory.clone(),
            ..with
        };
        let mut case = Case::open(&with, score, Granted::Override, contacts)?;
        let mut other = Case::open(&without, score, Granted::Override, Vec::new())?;
        for _ in 0..wakes {
            let at = [&case, &other].into_iter().filter_map(|case| case.driver.alert.next_action_at()).min();
            let Some(at) = at else { break };
            for case in [&mut case, &mut other] {
                case.driver.now = at.max(case.driver.now);
                case.step(&Input::Wake { sole_owner_restarted: false }, true)?;
            }
            prop_assert_eq!(&case.driver.alert.state, &other.driver.alert.state);
        }
        let to_team = |case: &Case<'_>| {
            let deliveries = case.driver.alert.deliveries.iter();
            deliveries.filter(|delivery| delivery.purpose.is_alert()).count()
        };
        prop_assert!(to_team(&case) <= to_team(&other) || other.driver.alert.deliveries.len() >= 32);
    }
}
