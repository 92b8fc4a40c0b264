//! Random walks: whatever happens to an alert, in whatever order, every change keeps the invariants.

use crisis_relay::domain::audit::verify_chain;
use crisis_relay::domain::delivery::Delivery;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::driver::Driver;
use crate::steps::{What, step};
use crate::world::{any_score, granted, world};

proptest! {
    #![proptest_config(cases(250))]

    #[test]
    fn every_change_of_every_alert_keeps_the_invariants(
        world in world(),
        score in any_score(),
        granted in granted(),
        lease in any::<bool>(),
        steps in vec(step(), 1..90),
    ) {
        let (mut driver, _) = Driver::open(&world, score, granted, lease)?;
        for step in &steps {
            step.happen(&mut driver)?;
        }
        prop_assert_eq!(verify_chain(&driver.chain, Some(driver.alert.audit_head)), Ok(driver.alert.audit_head));
        let begun = driver.chain.iter().filter(|entry| entry.canonical.contains(r#""what":"attempt_begun""#)).count();
        prop_assert_eq!(begun, driver.begun.len(), "every attempt stands in the audit once");
    }
}

proptest! {
    #![proptest_config(cases(6))]

    /// The alert is loaded and stored at every change: nothing in it may grow for as long as nobody answers.
    #[test]
    fn an_alert_that_nobody_answers_does_not_grow(
        world in world(),
        granted in granted(),
        steps in vec(step().prop_filter("it stays open", |step| !matches!(step.what, What::Resolve { .. })), 40),
    ) {
        let (mut driver, _) = Driver::open(&world, None, granted, true)?;
        for step in steps.iter().cycle().take(1500) {
            step.happen(&mut driver)?;
        }
        let pending = driver.alert.deliveries.iter().filter(|delivery| Delivery::is_pending(delivery)).count();
        prop_assert!(driver.alert.deliveries.len() <= 32 + pending);
    }
}
