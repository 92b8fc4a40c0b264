//! Planted bugs: the simulation finds each, within a number of schedules that was measured and has room to spare.

use crate::plant::Plant;
use crate::schedule::run;
use crate::watch::rule;

/// Runs schedules until one of these rules is broken.
#[track_caller]
fn finds(plant: Plant, rules: &[&str], within: u64) {
    let mut broken = Vec::new();
    for seed in 0..within {
        let Some(violation) = run(seed, plant).violation else { continue };
        if rules.contains(&violation.rule) {
            return;
        }
        broken.push((seed, violation.rule));
    }
    panic!("{plant:?} was not found in {within} schedules; found instead: {broken:?}");
}

#[test]
fn an_ignored_lease_is_found() {
    finds(Plant::LeaseIgnored, &[rule::LEASE], 100);
}

#[test]
fn a_message_that_is_settled_before_it_is_sent_is_found() {
    finds(Plant::SettledBeforeSent, &[rule::TRUTH], 20);
}

#[test]
fn a_receipt_whose_rank_is_dropped_is_found() {
    finds(Plant::RankDropped, &[rule::MONOTONE], 20);
}

#[test]
fn a_forgotten_retry_is_found() {
    finds(Plant::RetryForgotten, &[rule::TOLD, rule::ON_TIME], 20);
}

#[test]
fn an_ignored_withdrawal_is_found() {
    finds(Plant::WithdrawalIgnored, &[rule::CONSENT], 20);
}

#[test]
fn a_withdrawal_that_an_event_overtakes_is_found() {
    finds(Plant::WordNotLookedAtAgain, &[rule::CONSENT, rule::WITHDRAWN], 300);
}

#[test]
fn an_alert_that_is_answered_before_it_is_stored_is_found() {
    finds(Plant::AnsweredBeforeStored, &[rule::KEPT, rule::GROUND], 20);
}

#[test]
fn a_commit_in_doubt_that_counts_as_made_is_found() {
    finds(Plant::UnknownTakenForDone, &[rule::KEPT, rule::GROUND, rule::LEASE], 50);
}

#[test]
fn a_forgotten_acknowledgement_is_found() {
    finds(Plant::AcknowledgementForgotten, &[rule::TAKEN], 60);
}

#[test]
fn a_message_that_is_sent_again_without_a_question_is_found() {
    finds(Plant::SentAgainUnasked, &[rule::ASKED], 20);
}
