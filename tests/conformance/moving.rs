//! Moving from one store into another: all arrives as it was, and what was cut off is finished or refused.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crisis_relay::clock::ManualClock;
use crisis_relay::domain::audit::{Actor, AuditHead, AuditStream};
use crisis_relay::ports::transfer::{COPYING, Kind, MOVED_TO, Transfer};
use crisis_relay::ports::{Clock as _, IdempotencyRecord, Store, StoreError};
use crisis_relay::service::moving::{Move, MoveError, Moved, move_all};
use crisis_relay::store::sqlite::SqliteStore;
use futures::FutureExt as _;

use crate::builders::{College, answer, at, provider_id, subject};
use crate::firestore::FirestorePlace;
use crate::on_the_way::{OnTheWay, Step, Watch};
use crate::sqlite::SqlitePlace;
use crate::suite::{Place, laden};

/// When things are copied, unless a test says otherwise.
fn clock() -> ManualClock {
    ManualClock::new(at(1_000))
}

/// Small pages, so that everything comes in several.
fn to(destination: &str, keep_source: bool) -> Move {
    let answers_kept = Duration::from_secs(48 * 3600);
    Move { destination: destination.to_owned(), keep_source, page: 2, answers_kept }
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
    let first = college.roster(None, 1, at(0));
    assert!(store.commit_roster(first.clone()).await.unwrap());
    assert!(store.commit_roster(college.roster(Some(&first.roster), 2, at(1))).await.unwrap());
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

/// The hashes of all of one kind, in the order in which pages of this size give them.
async fn pieces(store: &dyn Transfer, kind: Kind, limit: usize) -> Vec<[u8; 32]> {
    let (mut all, mut place) = (Vec::new(), None);
    loop {
        let page = store.export(kind, place, limit).await.unwrap();
        assert!(page.pieces.len() <= limit, "{} {} in a page of {limit}", page.pieces.len(), kind.name());
        all.extend(page.pieces.iter().map(|piece| piece.digest()));
        place = page.next;
        if place.is_none() {
            return all;
        }
    }
}

/// What both sides say of what they keep.
async fn all_of(store: &dyn Transfer) -> Vec<[u8; 32]> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        all.extend(pieces(store, kind, 3).await);
    }
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_and_back_again_everything_is_as_it_was() {
    let (first, last) = (SqlitePlace::fresh(), SqlitePlace::fresh());
    let Some(between) = FirestorePlace::fresh() else { return };
    let source = first.store();
    fill(source.as_ref()).await;
    let before = first.dump().await;
    let there = between.store().await;
    let moved = move_all(source.as_ref(), there.as_ref(), &to("firestore:there", true), &clock()).await.unwrap();
    let count = |kind| moved.counts.iter().find(|(found, _)| *found == kind).unwrap().1;
    assert_eq!((count(Kind::Alert), count(Kind::Fact), count(Kind::Message), count(Kind::Roster)), (7, 2, 8, 1));
    assert!(moved.audit.faults.is_empty() && moved.audit.alerts == 7, "{:?}", moved.audit);
    assert_eq!(first.dump().await, before, "the source was to be left as it was");

    let back = last.store();
    move_all(there.as_ref(), back.as_ref(), &to("sqlite:back", false), &clock()).await.unwrap();
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
async fn a_copy_that_was_cut_off_before_any_of_its_writes_is_finished_by_the_next() {
    let source_place = SqlitePlace::fresh();
    let source = source_place.store();
    fill(source.as_ref()).await;
    let everything = all_of(source.as_ref()).await;
    let how = Move { page: 5, ..to("sqlite:there", false) };
    let mut cuts_in_pages = 0;
    for writes in 0.. {
        let place = SqlitePlace::fresh();
        let there = place.store();
        let watch = only(writes);
        let (on_from, on_to) = (OnTheWay::new(source.clone(), &watch), OnTheWay::new(there.clone(), &watch));
        let ended = move_all(&on_from, &on_to, &how, &clock()).await;
        let begun = there.read_mark(COPYING).await.unwrap().is_some();
        let moved = source.read_mark(MOVED_TO).await.unwrap().is_some();
        let holds = all_of(there.as_ref()).await;
        match ended {
            Ok(_) => {
                assert!(
                    moved && !begun && holds == everything,
                    "{writes} writes: it ended, and not all is as it should be"
                );
                // Killed after its last write, it has come about, and nobody has heard of it.
                let again = move_all(source.as_ref(), there.as_ref(), &how, &clock()).await;
                assert!(matches!(again, Err(MoveError::AlreadyMoved)), "it was finished, and it is said: {again:?}");
                break;
            }
            Err(MoveError::Store(StoreError::Unavailable { .. })) => {}
            Err(error) => panic!("{writes} writes: {error}"),
        }
        assert!(begun || (writes == 0 && holds.is_empty()), "after {writes} writes it passes for whole");
        assert!(!moved || holds == everything, "after {writes} writes the source is given up, and not all is there");
        cuts_in_pages += usize::from(!holds.is_empty() && holds != everything);
        let finished = move_all(source.as_ref(), there.as_ref(), &how, &clock()).await;
        assert!(finished.is_ok(), "after {writes} writes: {finished:?}");
        assert_eq!(all_of(there.as_ref()).await, everything, "cut off after {writes} writes");
        assert_eq!(there.read_mark(COPYING).await.unwrap(), None, "after {writes} writes it is still marked");
        source.mark(MOVED_TO, None).await.unwrap();
    }
    assert!(cuts_in_pages > 8, "only {cuts_in_pages} cuts fell between the pages");
}

/// So many writes come about, on whichever side, and none after them: as if the copy had been killed there.
fn only(writes: usize) -> Watch {
    let left = AtomicUsize::new(writes);
    Arc::new(move |step, _| {
        let comes_about = match step {
            Step::Read | Step::Proof => true,
            Step::Pieces | Step::Alerts | Step::Mark => {
                left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
            }
        };
        let cut = || StoreError::Unavailable { what: "the copy is cut off here".to_owned() };
        ready(if comes_about { Ok(()) } else { Err(cut()) }).boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_give_everything_once() {
    let place = SqlitePlace::fresh();
    let file = place.store();
    fill(file.as_ref()).await;
    let mut stores: Vec<(&str, Arc<dyn Transfer>)> = vec![("SQLite", file.clone())];
    let other = FirestorePlace::fresh();
    if let Some(other) = &other {
        let there = other.store().await;
        move_all(file.as_ref(), there.as_ref(), &to("firestore:there", true), &clock()).await.unwrap();
        stores.push(("Firestore", there));
    }
    for (name, store) in stores {
        for kind in Kind::ALL {
            let whole = pieces(store.as_ref(), kind, 1_000).await;
            assert!(!whole.is_empty(), "{name}: nothing to look at of {}", kind.name());
            for limit in 1..=whole.len() + 1 {
                let paged = pieces(store.as_ref(), kind, limit).await;
                assert_eq!(paged, whole, "{name}: {} in pages of {limit}", kind.name());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_begins_after_the_last_piece_before_it_whatever_is_gone_by_then() {
    let place = SqlitePlace::fresh();
    let store = place.store();
    for number in 0..6 {
        store.keep_answer(answer(number, at(number.into()))).await.unwrap();
    }
    let whole = pieces(store.as_ref(), Kind::Answer, 100).await;
    let first = store.export(Kind::Answer, None, 3).await.unwrap();
    assert_eq!(store.forget_answers(at(3), 100).await.unwrap(), 3, "the first page is forgotten");
    let second = store.export(Kind::Answer, first.next, 3).await.unwrap();
    let second: Vec<_> = second.pieces.iter().map(|piece| piece.digest()).collect();
    assert_eq!(second, whole[3..], "what was forgotten before it has moved the next page");
}

/// How long answers are kept, where they pass their time in a test.
const KEPT: Duration = Duration::from_secs(3600);

/// A fresh store to copy into.
enum Way {
    Sqlite(SqlitePlace),
    Firestore(FirestorePlace),
}

impl Way {
    /// Every one that there is here.
    fn all() -> impl Iterator<Item = Self> {
        [Self::Sqlite(SqlitePlace::fresh())].into_iter().chain(FirestorePlace::fresh().map(Self::Firestore))
    }

    async fn store(&self) -> Arc<dyn Transfer> {
        match self {
            Self::Sqlite(place) => place.store(),
            Self::Firestore(place) => place.store().await,
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Firestore(_) => "Firestore",
        })
    }
}

/// Gives so many answers, numbered from 1000 on, each `every` seconds after the one before, and the first at [`at`] 0.
async fn give_answers(store: &dyn Store, count: u32, every: u32) {
    for number in 0..count {
        store.keep_answer(answer(1_000 + number, at((number * every).into()))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_pass_their_time_while_they_are_copied_are_not_missed_on_either_side() {
    for way in Way::all() {
        let source_place = SqlitePlace::fresh();
        let source = source_place.store();
        fill(source.as_ref()).await;
        give_answers(source.as_ref(), 80, 60).await;
        let there = way.store().await;
        // An hour after the ninth: eight are past their time, and with every minute one more.
        let clock = ManualClock::new(at(8 * 60 + 3600));
        let watch = ageing(&clock);
        let (on_from, on_to) = (OnTheWay::new(source.clone(), &watch), OnTheWay::new(there.clone(), &watch));
        let how = Move { answers_kept: KEPT, page: 5, ..to("there", false) };
        let moved = move_all(&on_from, &on_to, &how, &clock).await;
        moved.unwrap_or_else(|error| panic!("to {way}: {error}"));
        let passed = u32::try_from((clock.now().as_second() - at(3600).as_second()) / 60).unwrap() + 1;
        assert!((20..70).contains(&passed), "to {way}: {passed} answers are past their time: the test shows nothing");
        for number in passed..80 {
            let expected = answer(1_000 + number, at(i64::from(number) * 60));
            assert_eq!(there.answer(expected.key).await.unwrap(), Some(expected), "to {way}: answer {number}");
        }
    }
}

/// Time goes on with each page that is read, and what is past its time is deleted at once, as Firestore may do at any moment.
fn ageing(clock: &ManualClock) -> Watch {
    let clock = clock.clone();
    Arc::new(move |step, store| {
        if step == Step::Read {
            clock.advance(Duration::from_secs(15));
        }
        let now = clock.now();
        async move {
            store.forget_answers(now.saturating_sub(KEPT).unwrap(), 1_000).await?;
            Ok(())
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_though_answers_have_passed_their_time_since_it_was_cut_off() {
    for way in Way::all() {
        let source_place = SqlitePlace::fresh();
        let source = source_place.store();
        fill(source.as_ref()).await;
        give_answers(source.as_ref(), 12, 300).await;
        let (before, first) = (answer(999, at(-1)), answer(1_000, at(0)));
        assert!(source.keep_answer(before.clone()).await.unwrap());
        let there = way.store().await;
        let clock = ManualClock::new(at(3600));
        let how = Move { answers_kept: KEPT, ..to("there", false) };
        let watch = until_alerts_come();
        let cut = move_all(source.as_ref(), &OnTheWay::new(there.clone(), &watch), &how, &clock).await;
        assert!(matches!(cut, Err(MoveError::Store(_))), "to {way}: it was to be cut off, and came to {cut:?}");
        assert!(there.answer(first.key).await.unwrap().is_some(), "to {way}: cut off before the answers were copied");
        assert_eq!(there.answer(before.key).await.unwrap(), None, "to {way}: an answer past its time was copied");

        clock.advance(Duration::from_secs(1_800));
        let past = clock.now().saturating_sub(KEPT).unwrap();
        // The six that were given in the first half hour, the one before them, and what `fill` has given.
        assert_eq!(source.forget_answers(past, 100).await.unwrap(), 6 + 1 + 7);
        // The key of one that was forgotten is used anew.
        let anew = IdempotencyRecord { answer: "{\"anew\":true}".to_owned(), created_at: clock.now(), ..first };
        assert!(source.keep_answer(anew.clone()).await.unwrap());
        move_all(source.as_ref(), there.as_ref(), &how, &clock)
            .await
            .unwrap_or_else(|error| panic!("to {way}: {error}"));
        assert_eq!(there.answer(anew.key).await.unwrap(), Some(anew), "to {way}: a key that was used anew");
    }
}

/// All is written but alerts, which come last.
fn until_alerts_come() -> Watch {
    Arc::new(|step, _| {
        let cut = || StoreError::Unavailable { what: "the copy is cut off here".to_owned() };
        ready(if step == Step::Alerts { Err(cut()) } else { Ok(()) }).boxed()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_empty_or_has_another_history_is_refused() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, filled, begun] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    filled.keep_fact("organisation_id", "north").await.unwrap();
    let how = to("sqlite:there", false);
    let refused = move_all(source.as_ref(), filled.as_ref(), &how, &clock()).await;
    assert!(matches!(refused, Err(MoveError::NotEmpty(Kind::Fact))), "{refused:?}");
    begun.mark(COPYING, Some("another state".to_owned())).await.unwrap();
    let refused = move_all(source.as_ref(), begun.as_ref(), &how, &clock()).await;
    assert!(matches!(refused, Err(MoveError::OtherCopy)), "{refused:?}");
    let refused = move_all(begun.as_ref(), filled.as_ref(), &how, &clock()).await;
    assert!(matches!(refused, Err(MoveError::SourceUnfinished)), "{refused:?}");
    source.mark(MOVED_TO, Some("sqlite:elsewhere".to_owned())).await.unwrap();
    let refused = move_all(source.as_ref(), filled.as_ref(), &how, &clock()).await;
    assert!(matches!(refused, Err(MoveError::MovedBefore(_))), "{refused:?}");
    assert_eq!(filled.read_mark(COPYING).await.unwrap(), None, "a refusal left its mark");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_somebody_changes_after_its_pages_were_read_is_not_given_up() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, there] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    // All alerts are in one page: it has been read when it is written.
    let how = Move { page: 100, ..to("sqlite:there", false) };
    let watch = an_alert_opens(&source, Step::Alerts);
    let ended = move_all(source.as_ref(), &OnTheWay::new(there.clone(), &watch), &how, &clock()).await;
    is_not_given_up(ended, source.as_ref(), there.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_somebody_changes_during_the_long_proof_of_the_audit_is_not_given_up() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, there] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    let watch = an_alert_opens(&source, Step::Proof);
    let ended = move_all(source.as_ref(), &OnTheWay::new(there.clone(), &watch), &to("there", false), &clock()).await;
    is_not_given_up(ended, source.as_ref(), there.as_ref()).await;
}

/// An instance that was forgotten takes an alert when the destination is asked for this.
fn an_alert_opens(source: &Arc<SqliteStore>, when: Step) -> Watch {
    let source = source.clone();
    Arc::new(move |step, _| {
        let store = source.clone();
        async move {
            if step == when {
                store.commit_alert(College::new("north").open(8, at(5))).await?;
            }
            Ok(())
        }
        .boxed()
    })
}

async fn is_not_given_up(ended: Result<Moved, MoveError>, source: &dyn Transfer, there: &dyn Transfer) {
    assert!(matches!(ended, Err(MoveError::SourceChanged)), "an alert stayed behind, and it came to {ended:?}");
    assert_eq!(
        source.read_mark(MOVED_TO).await.unwrap(),
        None,
        "the source is given up, with an alert that is not there"
    );
    assert!(there.read_mark(COPYING).await.unwrap().is_some(), "what lacks an alert passes for whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_gone_since_is_copied_anew() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, gone, anew] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    let how = to("sqlite:there", false);
    move_all(source.as_ref(), gone.as_ref(), &how, &clock()).await.unwrap();
    // Whoever were told to serve this one would serve nothing.
    move_all(source.as_ref(), anew.as_ref(), &how, &clock()).await.unwrap();
    assert_eq!(all_of(anew.as_ref()).await, all_of(gone.as_ref()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_own_audit_does_not_hold_is_told_of_before_anything_is_copied() {
    let places = [SqlitePlace::fresh(), SqlitePlace::fresh()];
    let [source, there] = places.each_ref().map(SqlitePlace::store);
    fill(source.as_ref()).await;
    let alert = source.list_alerts(&"north".parse().unwrap(), None, None, 1).await.unwrap().remove(0);
    let mut head = alert.audit_head;
    let forged = head.append(AuditStream::Alert(alert.id), at(5), &Actor::Service, &serde_json::json!({"looked": 1}));
    assert!(source.append_audit(forged).await.unwrap());
    let refused = move_all(source.as_ref(), there.as_ref(), &to("sqlite:there", false), &clock()).await;
    let Err(MoveError::SourceAudit(found)) = &refused else { panic!("{refused:?}") };
    assert_eq!(found.faults.len(), 1);
    assert_eq!(there.read_mark(COPYING).await.unwrap(), None, "it was begun");
    assert!(all_of(there.as_ref()).await.is_empty(), "something was copied");
}
