//! People change while they are told: numbers are changed, taken away, opted out, and somebody leaves. Whatever else happens,
//! no message goes to a number that is not its recipient's when it is claimed, and the case does not fall silent.

use crisis_relay::domain::alert::AlertState;
use crisis_relay::domain::contact::{Contact, ContactMethod, Directory};
use crisis_relay::domain::ids::AddressKey;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::driver::Driver;
use crate::steps::step;
use crate::world::{Granted, World, any_score, granted, world};

/// What becomes of a number.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stays,
    Changes(u8),
    Goes,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Stays), 2 => (100u8..110).prop_map(Fate::Changes), 3 => Just(Fate::Goes)]
}

/// The same people, with other numbers; who has none is not there, as in the service.
fn changed(directory: &Directory, fates: &[Fate]) -> Directory {
    let mut fates = fates.iter().cycle();
    let mut number = |method: &ContactMethod| match fates.next().copied().unwrap_or(Fate::Stays) {
        Fate::Stays => Some(method.clone()),
        Fate::Changes(to) => Some(ContactMethod { address_key: AddressKey::from_bytes([to; 32]), ..method.clone() }),
        Fate::Goes => None,
    };
    let people = directory.people().filter_map(|person| {
        let methods: Vec<ContactMethod> = person.methods.iter().filter_map(&mut number).collect();
        (!methods.is_empty()).then(|| Contact { methods, ..person.clone() })
    });
    Directory::new(people.collect()).with_schedules(directory.schedules().to_vec())
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn nothing_goes_to_a_number_that_is_not_its_recipients_any_more(
        world in world(),
        score in any_score(),
        granted in granted(),
        fates in vec(vec(fate(), 1..12), 1..4),
        steps in vec((any::<prop::sample::Index>(), step()), 1..40),
    ) {
        let with = |directory: Directory| World { directory, ..world.clone() };
        let worlds: Vec<World> =
            std::iter::once(world.clone()).chain(fates.iter().map(|fates| with(changed(&world.directory, fates)))).collect();
        let granted = if matches!(granted, Granted::Nothing) { Granted::Override } else { granted };
        let (mut driver, _) = Driver::open(&worlds[0], score, granted, false)?;
        for (which, step) in &steps {
            driver.world = which.get(&worlds);
            driver.last_sent.clear();
            step.happen(&mut driver)?;
            let (alert, directory) = (&driver.alert, &driver.world.directory);
            for delivery in driver.last_sent.iter().filter_map(|no| alert.delivery(*no)) {
                let reaches = directory.reaches(&delivery.contact, delivery.channel, delivery.address_key);
                prop_assert!(reaches, "message {} goes to a number that is gone", delivery.no);
            }
            let waits = matches!(alert.state, AlertState::Escalating { .. } | AlertState::Acknowledged { .. });
            prop_assert!(!waits || alert.next_action_at().is_some(), "the case is silent");
        }
    }
}
