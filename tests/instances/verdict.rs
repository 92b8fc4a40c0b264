//! What must hold at the end, whatever befell the instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crisis_relay::domain::alert::AlertState;

use crate::college::{College, is_settled};
use crate::relay::{COUNSELLOR, PATIENCE, Relay, text, timer, until};

/// How often is looked at what goes through all alerts: each look costs the emulator, and so everybody else, time.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until each of these cases is on the phone and booked; then checks that nothing was lost, that there is no case
/// that nobody was told of, that none falls silent, and that every chain verifies at `witness`. Gives the references of
/// those that are on the phone twice, once for each message too many.
pub(crate) async fn all_is_well(college: &College, witness: &Relay, references: &[String]) -> Vec<String> {
    all_told(college, references, PATIENCE).await;
    until("every message is booked", async || {
        tokio::time::sleep(LOOK_EVERY).await;
        college.alerts().await.iter().all(is_settled)
    })
    .await;

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
    verifies(witness, alerts.len());
    let told = messages_of(college, references);
    let too_many = |(reference, count): (&str, usize)| std::iter::repeat_n(reference.to_owned(), count - 1);
    told.into_iter().flat_map(too_many).collect()
}

/// `audit verify` proves every chain, and so many alerts. Says how long it took.
fn verifies(witness: &Relay, alerts: usize) {
    let since = timer();
    let output = witness.setting.command(&["audit", "verify"]).output().unwrap();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "audit verify after {:.1?}: {said}{complained}", since());
    assert!(said.contains(&format!("of {alerts} alerts")), "audit verify did not prove {alerts} alerts: {said}");
    crate::college::say(&format!("audit verify took {:.1?}: {}", since(), said.trim_end()));
}

/// Waits until the phone has got a message of each of these cases.
pub(crate) async fn all_told(college: &College, references: &[String], within: Duration) {
    let silent = || -> Vec<&str> {
        let told = messages_of(college, references);
        references.iter().map(String::as_str).filter(|reference| !told.contains_key(reference)).collect()
    };
    let told = tokio::time::timeout(within, async {
        while !silent().is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    assert!(told.await.is_ok(), "accepted, and not on the phone within {within:?}: {:?}", silent());
}

/// How many messages of each case are on the phone, of those that have any.
fn messages_of<'a>(college: &College, references: &'a [String]) -> BTreeMap<&'a str, usize> {
    let known: BTreeSet<&str> = references.iter().map(String::as_str).collect();
    let mut told = BTreeMap::new();
    for message in college.twilio().messages_to(COUNSELLOR) {
        let mut words = message.body.split(|letter: char| !letter.is_ascii_alphanumeric());
        if let Some(reference) = words.find_map(|word| known.get(word)) {
            *told.entry(*reference).or_default() += 1;
        }
    }
    told
}
