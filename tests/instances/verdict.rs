//! What must hold at the end, whatever befell the instances.

use std::collections::BTreeSet;

use crisis_relay::domain::alert::AlertState;

use crate::college::{College, is_settled};
use crate::relay::{Relay, on_the_phone, until};

/// Waits until each of these cases is on the phone and booked; then checks that nothing was lost, that there is no case
/// that nobody was told of, that none falls silent, and that every chain verifies at `witness`. Gives the references of
/// those that are on the phone twice, once for each message too many.
pub(crate) async fn all_is_well(college: &College, witness: &Relay, references: &[String]) -> Vec<String> {
    let sim = college.twilio();
    witness.all_told(&sim, references).await;
    until("every message is booked", async || college.alerts().await.iter().all(is_settled)).await;

    let alerts = college.alerts().await;
    let known: BTreeSet<&str> = references.iter().map(String::as_str).collect();
    let stored: BTreeSet<&str> = alerts.iter().map(|alert| alert.reference.as_str()).collect();
    assert_eq!(known.len(), references.len(), "two students have one reference");
    assert_eq!(stored, known, "the cases that are stored are not those that were accepted");
    assert_eq!(alerts.len(), references.len(), "a student has two cases");
    for alert in &alerts {
        assert!(matches!(alert.state, AlertState::Escalating { .. }), "nobody has touched it: {:?}", alert.state);
        assert!(alert.next_action_at().is_some(), "alert {} is open, and has no next action", alert.id);
    }
    witness.audit_verifies();
    twice(college, references)
}

fn twice(college: &College, references: &[String]) -> Vec<String> {
    let sim = college.twilio();
    let too_many = |reference: &String| {
        let count = on_the_phone(&sim, reference).len();
        std::iter::repeat_n(reference.clone(), count - 1)
    };
    references.iter().flat_map(too_many).collect()
}
