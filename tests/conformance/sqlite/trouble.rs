//! Trouble: locks, crashes, full disks and damaged files. Nothing that was promised is lost, nothing is half there, and
//! the store goes on when the trouble is over.

use std::collections::HashMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use crisis_relay::domain::audit::{AuditStream, verify_chain};
use crisis_relay::domain::ids::SubjectKey;
use crisis_relay::ports::{Committed, Store, StoreError};
use crisis_relay::store::sqlite::SqliteStore;

use super::{SqlitePlace, child, dump, settings};
use crate::builders::{College, at, idempotency_key, person, provider_id, subject};
use crate::suite::{commit, laden};

fn is_unavailable<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

#[tokio::test]
async fn a_lock_of_another_process_makes_writing_unavailable_and_nothing_else() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let other = place.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    for number in 2..4 {
        let refused = store.commit_alert(college.open(number, at(1))).await;
        assert!(is_unavailable(&refused), "{refused:?}");
    }
    assert!(is_unavailable(&store.probe(at(1)).await));
    assert_eq!(store.alert(opened.id).await.unwrap(), Some(opened), "reading goes on");

    other.execute_batch("ROLLBACK").unwrap();
    commit(&store, college.open(2, at(2))).await;
    store.probe(at(2)).await.unwrap();
}

/// Everything of these alerts is there, and their chains are whole.
async fn assert_whole(store: &Arc<dyn Store>, numbers: impl IntoIterator<Item = u32>) {
    let college = College::new("north");
    for number in numbers {
        let alert = store.alert(college.open(number, at(0)).alert.id).await.unwrap();
        let alert = alert.unwrap_or_else(|| panic!("{number} was promised"));
        let entries = store.audit_entries(&AuditStream::Alert(alert.id), 0, 100).await.unwrap();
        assert_eq!(verify_chain(&entries, Some(alert.audit_head)), Ok(alert.audit_head));
        assert_eq!(store.event_details(alert.id).await.unwrap().len(), 1);
        assert!(store.answer(idempotency_key(number)).await.unwrap().is_some());
        assert!(store.data_key(&college.organisation, person(number)).await.unwrap().is_some());
        assert!(store.alert_of_message(&provider_id(number)).await.unwrap().is_some());
    }
}

/// Every alert in the file came with all that belongs to it.
fn assert_sound(place: &SqlitePlace) {
    let raw = place.raw();
    let tell = |sql: &str| raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let alerts = tell("SELECT count(*) FROM alerts");
    for (table, of) in [("event_details", "event"), ("answers", "key"), ("data_keys", "person")] {
        assert_eq!(tell(&format!("SELECT count(DISTINCT {of}) FROM {table}")), alerts, "{table}");
    }
    assert_eq!(tell("SELECT count(DISTINCT alert) FROM provider_messages"), alerts);
    assert_eq!(tell("SELECT count(DISTINCT stream) FROM audit"), alerts);
    let check: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

/// Killed as `kill -9` does it, in the middle of commits. (What a power cut does is SQLite's own to prove; that it is
/// asked to flush at every commit is tested beside the store.)
#[tokio::test]
async fn whatever_was_promised_before_a_kill_is_there_after_it() {
    let place = SqlitePlace::fresh();
    for round in 0..3_u32 {
        let mut writer =
            child::command(&[], "writes_until_it_is_killed", &place.file(), round * 100_000).spawn().unwrap();
        let mut lines = child::said(&mut writer);
        let mut promised: Vec<String> = lines.by_ref().take(30).collect();
        writer.kill().unwrap();
        promised.extend(lines);
        writer.wait().unwrap();
        assert!(promised.len() >= 30, "{promised:?}");

        let store: Arc<dyn Store> = place.store();
        assert_whole(&store, promised.iter().map(|number| number.parse().unwrap())).await;
        assert_sound(&place);
        store.close().await;
    }
}

fn told(lines: &[String]) -> HashMap<u32, String> {
    let pairs = lines.iter().filter_map(|line| line.split_once(' '));
    pairs.map(|(number, word)| (number.parse().unwrap(), word.to_owned())).collect()
}

async fn assert_as_told(place: &SqlitePlace, told: &HashMap<u32, String>) {
    let store: Arc<dyn Store> = place.store();
    let of = |word: &str| told.iter().filter(|(_, told)| *told == word).map(|(number, _)| *number).collect::<Vec<_>>();
    assert!(!of("committed").is_empty() && of("committed").len() < told.len(), "{told:?}");
    assert_whole(&store, of("committed")).await;
    let college = College::new("north");
    for number in of("refused") {
        assert_eq!(store.alert(college.open(number, at(0)).alert.id).await.unwrap(), None, "{number} was refused");
    }
    assert_sound(place);
    commit(&store, laden(&college, college.open(9_999, at(0)), 9_999)).await;
}

/// An error of the file system in the middle of a commit: files may not grow beyond a limit, which writing meets with
/// EFBIG. That is an I/O error and not a full disk to SQLite, so the store must not claim to know what came of it.
#[cfg(unix)]
#[tokio::test]
async fn an_error_of_the_file_system_loses_nothing_that_was_promised() {
    let place = SqlitePlace::fresh();
    place.store().close().await;
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -S -f 1000; exec \"$@\"", "sh"];
    let mut writer = child::command(&limited, "writes_until_files_may_not_grow", &place.file(), 0).spawn().unwrap();
    let lines: Vec<String> = child::said(&mut writer).collect();
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.last().map(String::as_str), Some("ended"));

    assert_as_told(&place, &told(&lines)).await;
}

/// A disk that is really full. When some space is free again, it is enough for the log and for all that the log may
/// bring into the file at just that moment.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_got_over() {
    on_a_small_disk("8m", "writes_until_the_disk_is_full_and_on_when_it_is_not");
}

/// Runs a child on a small file system in memory, mounted in a name space of the child's own. Where the machine does not
/// let a user do that, nothing is tested here; what SQLite does without space is then tested beside the store only, by a
/// limit of SQLite's own.
#[cfg(target_os = "linux")]
#[expect(clippy::print_stderr, reason = "whoever reads the test's output shall know that nothing was tested")]
fn on_a_small_disk(size: &str, test: &str) {
    let place = SqlitePlace::fresh();
    let folder = place.folder().to_str().unwrap().to_owned();
    let script = format!("mount -t tmpfs -o size={size} none \"$0\" && exec \"$@\"");
    let small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, folder.as_str()];
    if !can_mount(&small[..4], place.folder()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let mut writer = child::command(&small, test, &place.file(), 0).spawn().unwrap();
    let lines: Vec<String> = child::said(&mut writer).collect();
    let output = writer.wait_with_output().unwrap();

    assert!(output.status.success(), "{lines:?} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.last().map(String::as_str), Some("ended"));
    assert!(lines.iter().any(|line| line.ends_with("refused")), "a full disk is known to be one: {lines:?}");
}

#[cfg(target_os = "linux")]
fn can_mount(unshare: &[&str], folder: &Path) -> bool {
    let tried = std::process::Command::new(unshare[0])
        .args(&unshare[1..])
        .args(["mount", "-t", "tmpfs", "none"])
        .arg(folder)
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_damaged_page_is_told_as_damage_and_leaves_the_rest_readable() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let consent = college.consent(subject(1), None, at(0));
    assert!(store.commit_consent(consent.clone()).await.unwrap());
    let root: u64 = place
        .raw()
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'alerts'", [], |row| row.get::<_, i64>(0))
        .map(|page| page.try_into().unwrap())
        .unwrap();
    let page_size: u64 = place.raw().query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).unwrap().into();
    store.close().await;
    let mut file = std::fs::File::options().write(true).open(place.file()).unwrap();
    file.seek(SeekFrom::Start((root - 1) * page_size)).unwrap();
    file.write_all(&vec![0xEE; page_size.try_into().unwrap()]).unwrap();
    drop(file);

    let store: Arc<dyn Store> = place.store();

    let read = store.alert(opened.id).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    let changed = store.commit_alert(college.acknowledge(&opened, at(1))).await;
    assert!(matches!(changed, Err(StoreError::Corrupt { .. })), "{changed:?}");
    let found = store.consent(&college.organisation, subject(1)).await.unwrap();
    assert_eq!(found, Some(consent.record), "what is not damaged is read");
    let entries = store.audit_entries(&AuditStream::Alert(opened.id), 0, 100).await.unwrap();
    assert_eq!(entries.len() as u64, opened.audit_head.seq, "nothing of the refused change is in the audit");
}

#[tokio::test]
async fn a_chain_whose_beginning_was_cut_off_is_still_walked_along() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let stream = AuditStream::Alert(opened.id);

    assert_eq!(place.raw().execute("DELETE FROM audit WHERE seq = 1", []).unwrap(), 1);

    let met = store.audit_walk(None, 10).await.unwrap().entries;
    let entries = store.audit_entries(&stream, 0, 100).await.unwrap();
    assert_eq!(met, entries);
    assert!(verify_chain(&entries, None).is_err());
}

#[tokio::test]
async fn rows_that_make_no_sense_are_told_as_damage_without_their_values() {
    let college = College::new("north");
    for spoil in [
        "UPDATE audit SET stream = 'spoilt' WHERE seq = 2",
        "UPDATE audit SET seq = -seq",
        "UPDATE audit SET hash = x'00'",
        "UPDATE audit SET at = 9223372036854775807",
        "UPDATE consents SET body = '\"spoilt\"'",
        "UPDATE consents SET body = '{\"spoilt'",
        "UPDATE data_keys SET created_at = -9223372036854775808",
        "UPDATE answers SET status = -1",
        "UPDATE answers SET body = x'5b01'",
        "UPDATE event_details SET received_at = 9223372036854775807",
        "UPDATE alerts SET id = x'00', next_action_at = 0",
    ] {
        let place = SqlitePlace::fresh();
        let store: Arc<dyn Store> = place.store();
        let opened = commit(&store, laden(&college, college.open(1, at(0)), 1)).await;
        assert!(store.commit_consent(college.consent(subject(1), None, at(0))).await.unwrap());
        place.raw().execute_batch(spoil).unwrap();
        let before = dump(&place.raw());

        let errors = errors(&store, &college, &AuditStream::Alert(opened.id), subject(1)).await;

        assert!(!errors.is_empty(), "{spoil} goes unnoticed");
        for error in errors {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{spoil}: {error}");
            assert!(!error.to_string().contains("spoilt") && !error.to_string().contains("9223"), "{spoil}: {error}");
        }
        assert_eq!(dump(&place.raw()), before);
    }
}

/// What reading everything of the first alert says is wrong.
async fn errors(
    store: &Arc<dyn Store>,
    college: &College,
    stream: &AuditStream,
    student: SubjectKey,
) -> Vec<StoreError> {
    let organisation = &college.organisation;
    let id = college.open(1, at(0)).alert.id;
    [
        store.audit_walk(None, 10).await.err(),
        store.audit_head(stream).await.err(),
        store.audit_entries(stream, 0, 10).await.err(),
        store.consent(organisation, student).await.err(),
        store.data_key(organisation, person(1)).await.err(),
        store.answer(idempotency_key(1)).await.err(),
        store.event_details(id).await.err(),
        store.due_alerts(at(1_000_000), 10).await.err(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test]
async fn a_process_that_only_reads_is_no_trouble_to_the_one_that_writes() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let log = place.folder().join("relay.db-wal");
    let length = std::fs::metadata(&log).unwrap().len();
    assert!(length > 0);

    let reading = SqliteStore::open_to_read(&settings(place.file())).unwrap();
    assert!(store.is_exclusive() && !reading.is_exclusive());
    assert_eq!(reading.alert(opened.id).await.unwrap(), Some(opened));
    let refused = reading.commit_alert(college.open(2, at(0))).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    let seen = commit(&store, college.open(3, at(0))).await;
    assert_eq!(reading.alert(seen.id).await.unwrap(), Some(seen), "it sees what is committed meanwhile");
    reading.close().await;

    let after = std::fs::metadata(&log).unwrap().len();
    assert!(after >= length, "the log is the writer's to tidy: {after}");
    assert_eq!(store.commit_alert(college.open(4, at(0))).await.unwrap(), Committed::Committed);
}
