//! The promises of [`Store`], each a function over a [`Place`] where a store can be opened.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod life;
pub(crate) mod lists;
pub(crate) mod people;
pub(crate) mod races;

use std::future::Future;
use std::sync::Arc;

use crisis_relay::domain::ids::AlertId;
use crisis_relay::ports::{AlertCommit, Committed, Store};
use tokio::task::JoinSet;

use crate::builders::{College, answer, data_key, details, person, provider_id};

/// Where a store lives.
pub(crate) trait Place: Sized + Send + Sync + 'static {
    /// Whether there is such a place on this machine. Where there is none, whoever answers this has said so, aloud.
    fn is_there() -> bool {
        true
    }
    /// An empty place of its own.
    async fn new() -> Self;
    /// Opens the store here. Opened again, it finds what was stored before.
    async fn open(&self) -> Arc<dyn Store>;
    /// All that is stored, in a fixed order, read behind the store's back.
    async fn dump(&self) -> String;
    /// Makes the stored form of an alert unreadable, behind the store's back.
    async fn spoil_alert(&self, id: AlertId);
}

/// Holds a store to every promise: one test each.
macro_rules! conformance {
    ($place:ty) => {
        $crate::suite::promises! { $place:
            alerts::a_committed_alert_is_read_back_as_it_was,
            alerts::every_number_and_time_of_an_alert_keeps_every_bit,
            alerts::a_change_needs_the_version_it_was_made_from,
            alerts::an_id_is_inserted_once,
            alerts::a_student_has_one_open_alert,
            alerts::a_late_change_of_a_closed_alert_leaves_the_next_one_alone,
            alerts::a_reference_is_taken_within_its_organisation_only,
            alerts::a_used_idempotency_key_is_told_before_anything_else,
            alerts::a_data_key_is_given_once,
            alerts::what_rests_on_consent_needs_the_version_that_was_read,
            alerts::every_refusal_leaves_everything_as_it_was,
            alerts::a_commit_that_contradicts_the_audit_changes_nothing,
            alerts::a_message_is_found_by_its_provider_id,
            alerts::details_of_events_are_read_oldest_first,
            alerts::the_alerts_that_told_a_number_follow_their_state,
            alerts::an_unreadable_alert_does_not_hide_the_others,
            audit::a_chain_is_read_in_pages_and_verifies,
            audit::an_entry_is_appended_only_to_the_end,
            audit::a_walk_meets_every_entry_once_chain_after_chain,
            audit::a_walk_misses_and_repeats_nothing_while_others_append,
            life::what_was_committed_survives_a_drop_without_close,
            life::nobody_writes_any_more_after_a_drop,
            life::what_was_committed_survives_a_close,
            life::a_closed_store_answers_unavailable,
            life::work_around_a_close_is_done_or_refused_but_never_in_doubt,
            life::a_caller_that_goes_away_harms_nobody,
            life::a_probe_reads_and_writes,
            lists::listing_pages_have_no_gaps_and_no_repeats_while_others_insert,
            lists::every_state_is_listed_and_no_other,
            lists::alerts_of_one_instant_are_listed_one_by_one,
            lists::what_is_due_comes_longest_due_first,
            lists::what_is_due_follows_changes,
            lists::unfinished_alerts_are_paged_the_latest_first,
            lists::figures_tell_what_is_open_and_when_work_is_due,
            people::consent_is_changed_only_from_the_version_before,
            people::a_roster_is_changed_only_from_the_version_before,
            people::data_keys_are_kept_by_person_and_organisation,
            people::the_first_answer_to_a_key_stands,
            people::a_fact_stays_as_it_was_first_kept,
            people::answers_are_forgotten_by_age_and_in_portions,
            people::a_decision_is_told_all_about_its_student_and_nothing_of_others,
            races::one_of_many_changes_wins_each_version,
            races::many_inserts_at_once_open_one_alert,
            races::an_idempotency_key_is_used_once_among_many,
            races::a_person_gets_one_data_key_among_many,
            races::a_reference_is_given_once_among_many,
            races::consent_is_changed_once_among_many,
            races::a_roster_is_changed_once_among_many,
            races::a_change_of_consent_and_what_rests_on_it_come_one_after_the_other,
            races::an_audit_number_is_given_once_among_many,
        }
    };
}

macro_rules! promises {
    ($place:ty: $($topic:ident::$promise:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if <$place as $crate::suite::Place>::is_there() {
                    $crate::suite::$topic::$promise::<$place>().await;
                }
            }
        )*
    };
}
pub(crate) use {conformance, promises};

/// Commits what must be committed.
pub(crate) async fn commit(store: &Arc<dyn Store>, commit: AlertCommit) -> crisis_relay::domain::alert::Alert {
    let alert = commit.alert.clone();
    assert_eq!(store.commit_alert(commit).await.unwrap(), Committed::Committed);
    alert
}

/// A commit with all that may come along; `number` must be its own.
pub(crate) fn laden(college: &College, mut commit: AlertCommit, number: u32) -> AlertCommit {
    commit.event = Some(details(number, commit.alert.updated_at));
    commit.idempotency = Some(answer(number, commit.alert.updated_at));
    commit.data_key = Some(data_key(&college.organisation, person(number), number));
    commit.provider_ids.push(provider_id(number));
    commit
}

/// Runs all at once, and gives what each came to, with its number.
pub(crate) async fn at_once<T, F>(tasks: impl IntoIterator<Item = F>) -> Vec<(usize, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut set = JoinSet::new();
    for (number, task) in tasks.into_iter().enumerate() {
        set.spawn(async move { (number, task.await) });
    }
    let mut results = set.join_all().await;
    results.sort_by_key(|(number, _)| *number);
    results
}

/// The one that satisfies `wins`; every other must equal `lost`.
pub(crate) fn only_winner<T: PartialEq + std::fmt::Debug>(results: &[(usize, T)], won: &T, lost: &T) -> usize {
    let winners: Vec<usize> = results.iter().filter(|(_, result)| result == won).map(|(number, _)| *number).collect();
    assert_eq!(winners.len(), 1, "exactly one wins: {results:?}");
    assert!(results.iter().all(|(_, result)| result == won || result == lost), "the others lose: {results:?}");
    winners[0]
}
