//! What is not served, what `check` says of it, and what is not copied.

use std::sync::Arc;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::ports::Store as _;
use crisis_relay::ports::transfer::{COPYING, MOVED_TO, Transfer};
use crisis_relay::store::firestore::FirestoreStore;

use crate::emulator::{emulator, project, settings};
use crate::installation::{
    Installation, copies, copy_refused, counts, is_marked, is_not_served, on_file, on_firestore, open, place, said,
};
use crate::relay::{Setting, twilio};

/// The two marks, and what is said of each: what is wrong, and how it is mended.
const MARKS: [(&str, &str, &str); 2] = [
    (COPYING, "holds a copy that was not finished", "Run crisis-relay copy again"),
    (MOVED_TO, "was moved to", "Name that store in the settings"),
];

/// `check` finds this fault in the store, and says how it is mended.
#[track_caller]
fn check_finds(setting: &Setting, fault: &str, remedy: &str) {
    let ended = setting.command(&["check"]).output().unwrap();
    let said = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("FAULT     store") && said.contains(fault) && said.contains(remedy), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_half_a_copy_or_was_moved_is_not_served_and_check_says_so() {
    let here = Installation::with(1).await;
    for (mark, fault, remedy) in MARKS {
        let file = here.source(&format!("{mark}.db"));
        open(&file).execute("INSERT INTO facts (name, value) VALUES (?1, 'firestore:north')", [mark]).unwrap();
        let (setting, before) = (on_file(&here.setting, &file), counts(&file));
        check_finds(&setting, fault, remedy);
        is_not_served(&setting, mark, fault);
        assert!(is_marked(&file, mark), "a start in vain took the mark away: {mark}");
        assert_eq!(counts(&file), before, "a start in vain wrote something: {mark}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_firestore_that_is_half_a_copy_or_was_moved_is_not_served_and_check_says_so() {
    let Some(host) = emulator() else { return };
    let simulator = twilio().await;
    for (mark, fault, remedy) in MARKS {
        let project = project();
        let store = FirestoreStore::open(&settings(host, &project), Arc::new(SystemEntropy)).await.unwrap();
        store.mark(mark, Some("sqlite:elsewhere.db".to_owned())).await.unwrap();
        let setting = on_firestore(&Setting::new(&simulator.url()), host, &project);
        check_finds(&setting, fault, remedy);
        is_not_served(&setting, mark, fault);
        assert!(store.read_mark(mark).await.unwrap().is_some(), "a start in vain took the mark away: {mark}");
        assert!(store.fact("organisation_id").await.unwrap().is_none(), "a start in vain wrote something: {mark}");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_service_holds_is_neither_copied_from_nor_to() {
    let simulator = twilio().await;
    let mut relay = Setting::new(&simulator.url()).start(&simulator.handle()).await;
    let (setting, held) = (relay.setting.clone(), relay.setting.database());
    relay.escalated("before").await;
    let other = setting.folder().join("data/other.db");
    let (status, told) = copy_refused(&setting, &place(&held), &place(&other));
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains(&place(&held)) && told.contains("another process is using this database"), "{told}");
    assert!(!other.exists(), "a copy that was refused has begun its destination");

    let further = Installation::with(1).await;
    let (status, told) = copy_refused(&setting, &place(&further.setting.database()), &place(&held));
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains(&place(&held)) && told.contains("another process is using this database"), "{told}");
    assert!(!is_marked(&held, COPYING), "a copy that was refused has marked what a service holds");

    // The service was not disturbed; and once it has ended it is copied.
    relay.escalated("meanwhile").await;
    relay.stop();
    copies(&setting, "once it has ended", &place(&held), &place(&other), &[]);
}

#[test]
fn a_project_or_database_that_cannot_be_is_refused_before_anything_is_opened() {
    let setting = Setting::new("http://127.0.0.1:9");
    for (to, field) in [("firestore:North", "project id"), ("firestore:north-1/one", "database id")] {
        let (status, told) = copy_refused(&setting, "sqlite:data/none.db", to);
        assert_eq!(status, Some(2), "{told}");
        assert!(told.contains("--to") && told.contains(&format!("the {field} must be")), "{told}");
    }
}
