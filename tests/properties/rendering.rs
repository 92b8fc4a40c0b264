//! Nothing personal is in a text, however an alert came about.

use crisis_relay::domain::alert::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::driver::Driver;
use crate::steps::step;
use crate::world::{CANARY, any_score, granted, world};

/// What must be on no lock screen.
const TELLING: [&str; 6] = ["suicid", "crisis", "student", "counsel", "संकट", "छात्र"];

proptest! {
    #![proptest_config(cases(100))]

    /// The canary is in the student's id, in the words of an override and of a note, in names, numbers and labels.
    #[test]
    fn a_text_says_the_code_and_nothing_about_anybody(
        world in world(),
        score in any_score(),
        granted in granted(),
        steps in vec(step(), 1..40),
    ) {
        let (mut driver, _) = Driver::open(&world, score, granted, true)?;
        for step in &steps {
            step.happen(&mut driver)?;
        }
        prop_assert_eq!(driver.texts.len(), driver.begun.len());
        for text in &driver.texts {
            prop_assert!(!text.to_lowercase().contains(CANARY), "{}", text);
            prop_assert!(!TELLING.iter().any(|word| text.to_lowercase().contains(word)), "{}", text);
            // A call spells it.
            prop_assert!(text.replace(", ", "").contains(driver.alert.reference.as_str()), "{}", text);
            prop_assert_eq!(text.contains("DRILL"), matches!(world.kind, Kind::Drill), "{}", text);
        }
    }
}
