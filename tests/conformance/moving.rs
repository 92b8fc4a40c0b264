//! Moving from one store into another: all arrives as it was, and what was cut off is finished or refused.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use crisis_relay::domain::audit::{Actor, AuditHead, AuditStream};
use crisis_relay::ports::Store;
use crisis_relay::ports::transfer::{COPYING, Kind, MOVED_TO, Transfer};
use crisis_relay::service::moving::{Move, MoveError, move_all};

use crate::builders::{College, at, provider_id, subject};
use crate::firestore::FirestorePlace;
use crate::sqlite::SqlitePlace;
use crate::suite::{Place, laden};

/// Small pages, so that everything comes in several.
fn to(destination: &str, keep_source: bool) -> Move {
    Move { destination: destination.to_owned(), keep_source, page: 2 }
}

/// Something of everything that is kept: open, withheld, taken and closed alerts, with all that comes along.
async fn fill(store: &dyn Store) {
    let college = College::new("north");
    store.keep_fact("index_key_id", "k1").await.unwrap();
    store.keep_fact("organisation_id", "north").await.unwrap();
    for number in 1..=3 {
        let said = college.consent(subject(number), None, at(0));
        assert!(store.commit_consent(said.clone()).await.unwrap());
        assert!(store.commit_consent(college.consent(subject(number), Some(&said.record), at(1))).await.unwrap());
    }
    for number in 1..=7 {
        let opened = if number == 7 { college.withhold(7, at(2)) } else { college.open(number, at(2)) };
        let commit = laden(&college, opened, number);
        let alert = commit.alert.clone();
        store.commit_alert(commit).await.unwrap();
        let changed = match number {
            1 => college.acknowledge(&alert, at(3)),
            2 => college.resolve(&alert, at(3)),
            3 => college.accept_first_message(&alert, provider_id(100), at(3)),
            _ => continue,
        };
        store.commit_alert(changed).await.unwrap();
        let mut head = AuditHead::EMPTY;
        for _ in 0..3 {
            let entry =
                head.append(AuditStream::Access(alert.id), at(4), &Actor::Service, &serde_json::json!({"looked": 1}));
            assert!(store.append_audit(entry).await.unwrap());
        }
    }
}

/// What both sides say of what they keep.
async fn all_of(store: &dyn Transfer) -> Vec<[u8; 32]> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let mut place = None;
        loop {
            let page = store.export(kind, place, 3).await.unwrap();
            all.extend(page.pieces.iter().map(|piece| piece.digest()));
            place = page.next;
            if place.is_none() {
                break;
            }
        }
    }
    all.sort_unstable();
    all
}

/// Goes on with `work` for so many polls, and then drops it, as a kill would. `None`: it was cut off.
async fn for_polls<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = work.as_mut().poll(context);
        if left == 0 && polled.is_pending() {
            return Poll::Ready(None);
        }
        polled.map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_again_everything_is_as_it_was() {
    let (first, last) = (SqlitePlace::fresh(), SqlitePlace::fresh());
    let Some(between) = FirestorePlace::fresh() else { return };
    let source = first.store();
    fill(source.as_ref()).await;
    let before = first.dump().await;
    let there = between.store().await;
    let moved = move_all(source.as_ref(), there.as_ref(), &to("firestore:there", true)).await.unwrap();
    let count = |kind| moved.counts.iter().find(|(found, _)| *found == kind).unwrap().1;
    assert_eq!((count(Kind::Alert), count(Kind::Fact), count(Kind::Message)), (7, 2, 8));
    assert!(moved.audit.faults.is_empty() && moved.audit.alerts == 7, "{:?}", moved.audit);
    assert_eq!(first.dump().await, before, "the source was to be left as it was");

    let back = last.store();
    move_all(there.as_ref(), back.as_ref(), &to("sqlite:back", false)).await.unwrap();
    assert_eq!(last.dump().await, before, "something is not as it was");
    assert_eq!(there.read_mark(MOVED_TO).await.unwrap().as_deref(), Some("sqlite:back"));
    assert_eq!(back.read_mark(COPYING).await.unwrap(), None, "the copy is done, and still marked");

    let mut expected = source.due_alerts(at(1_000_000), 100).await.unwrap();
    let mut found = there.due_alerts(at(1_000_000), 100).await.unwrap();
    expected.sort_unstable_by_key(|id| id.0);
    found.sort_unstable_by_key(|id| id.0);
    assert_eq!(found, expected, "not the same is due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_cut_off_anywhere_is_finished_by_the_next() {
    let source_place = SqlitePlace::fresh();
    let source = source_place.store();
    fill(source.as_ref()).await;
    let everything = all_of(source.as_ref()).await;
    let (mut polls, mut cuts_in_pages) = (1, 0);
    loop {
        let place = SqlitePlace::fresh();
        let there = place.store();
        let how = to("sqlite:there", true);
        let whole = for_polls(polls, move_all(source.as_ref(), there.as_ref(), &how)).await.is_some();
        let marked = there.read_mark(COPYING).await.unwrap().is_some();
        let holds = all_of(there.as_ref()).await;
        assert!(whole || marked || holds.is_empty() || holds == everything, "after {polls} polls it passes for whole");
        cuts_in_pages += usize::from(marked && !holds.is_empty() && holds != everything);
        if whole {
            break;
        }
        if marked || holds.is_empty() {
            move_all(source.as_ref(), there.as_ref(), &how).await.unwrap_or_else(|error| panic!("{polls}: {error}"));
        }
        assert_eq!(all_of(there.as_ref()).await, everything, "cut off after {polls} polls");
        assert_eq!(there.read_mark(COPYING).await.unwrap(), None);
        polls += 1;
    }
    assert!(cuts_in_pages > 5, "only {cuts_in_pages} cuts fell between the pages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_empty_or_has_another_history_is_refused() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, filled, begun] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    filled.keep_fact("organisation_id", "north").await.unwrap();
    let how = to("sqlite:there", false);
    let refused = move_all(source.as_ref(), filled.as_ref(), &how).await;
    assert!(matches!(refused, Err(MoveError::NotEmpty(Kind::Fact))), "{refused:?}");
    begun.mark(COPYING, Some("another state".to_owned())).await.unwrap();
    let refused = move_all(source.as_ref(), begun.as_ref(), &how).await;
    assert!(matches!(refused, Err(MoveError::OtherCopy)), "{refused:?}");
    let refused = move_all(begun.as_ref(), filled.as_ref(), &how).await;
    assert!(matches!(refused, Err(MoveError::SourceUnfinished)), "{refused:?}");
    source.mark(MOVED_TO, Some("sqlite:elsewhere".to_owned())).await.unwrap();
    let refused = move_all(source.as_ref(), filled.as_ref(), &how).await;
    assert!(matches!(refused, Err(MoveError::MovedBefore(_))), "{refused:?}");
    assert_eq!(filled.read_mark(COPYING).await.unwrap(), None, "a refusal left its mark");
}
