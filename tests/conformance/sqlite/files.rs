//! The file: whose it is, who may read it, and what is refused at the door.

use std::path::Path;
use std::sync::Arc;

use crisis_relay::ports::Store;
use crisis_relay::store::sqlite::{LATEST_SCHEMA, OpenError, SqliteStore};
use rusqlite::Connection;

use super::{SqlitePlace, child, dump, schema, settings};
use crate::builders::{College, at};
use crate::suite::commit;

fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(&settings(path))
}

/// The error, in the words that a person reads.
fn refusal(result: Result<SqliteStore, OpenError>) -> (OpenError, String) {
    let error = result.err().unwrap();
    let words = error.to_string();
    (error, words)
}

#[tokio::test]
async fn a_file_belongs_to_one_store_at_a_time() {
    let place = SqlitePlace::fresh();
    let first: Arc<dyn Store> = place.store();

    assert!(matches!(open(&place.file()), Err(OpenError::InUse)));
    commit(&first, College::new("north").open(1, at(0))).await;
    drop(first);
    let second = open(&place.file()).unwrap();
    second.close().await;
    let third = open(&place.file()).unwrap();
    drop(second);
    assert!(matches!(open(&place.file()), Err(OpenError::InUse)), "the old handle's end frees nothing of the new one");
    drop(third);
}

#[test]
fn a_file_belongs_to_one_process_at_a_time() {
    let place = SqlitePlace::fresh();
    let mut other = child::command(&[], "holds_the_file_until_its_input_ends", &place.file(), 0).spawn().unwrap();
    let mut lines = child::said(&mut other);
    assert_eq!(lines.next().as_deref(), Some("open"));

    let (error, words) = refusal(open(&place.file()));
    assert!(matches!(error, OpenError::InUse), "{words}");
    assert!(SqliteStore::open_to_read(&settings(place.file())).is_ok(), "it may be read meanwhile");

    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    open(&place.file()).unwrap();
}

/// Opens what must be refused, both ways, and sees that not a byte and not a permission was changed.
fn refused_untouched(path: &Path) -> [(OpenError, String); 2] {
    let before = (std::fs::read(path).unwrap(), std::fs::metadata(path).unwrap().permissions());
    let refusals = [refusal(open(path)), refusal(SqliteStore::open_to_read(&settings(path)))];
    let after = (std::fs::read(path).unwrap(), std::fs::metadata(path).unwrap().permissions());
    assert!(before == after, "what is not ours is left as it was found");
    refusals
}

#[test]
fn the_file_of_something_else_is_refused_and_left_alone() {
    let place = SqlitePlace::fresh();
    Connection::open(place.file()).unwrap().execute_batch("CREATE TABLE invoices (id INTEGER)").unwrap();
    for (error, words) in refused_untouched(&place.file()) {
        assert!(matches!(error, OpenError::ForeignFile), "{words}");
    }
    for content in [&b"name,number\nArun,42\n"[..], &[0xEE; 8192]] {
        let place = SqlitePlace::fresh();
        std::fs::write(place.file(), content).unwrap();
        for (error, words) in refused_untouched(&place.file()) {
            assert!(matches!(error, OpenError::ForeignFile), "{words}");
        }
    }
}

#[tokio::test]
async fn the_file_of_a_newer_build_is_refused_and_left_alone() {
    let place = SqlitePlace::fresh();
    place.store().close().await;
    let newer = i64::try_from(LATEST_SCHEMA).unwrap() + 1;
    place.raw().pragma_update(None, "user_version", newer).unwrap();

    for (error, words) in refused_untouched(&place.file()) {
        let OpenError::TooNew { found, known } = error else { panic!("{words}") };
        assert_eq!((found, known), (LATEST_SCHEMA + 1, LATEST_SCHEMA));
        assert!(words.contains("newer build"), "{words}");
    }
}

#[test]
fn reading_a_file_that_is_not_there_makes_none() {
    let place = SqlitePlace::fresh();
    let (_, words) = refusal(SqliteStore::open_to_read(&settings(place.file())));
    assert!(words.contains("open"), "{words}");
    assert!(!place.file().exists());

    std::fs::write(place.file(), []).unwrap();
    let (error, words) = refusal(SqliteStore::open_to_read(&settings(place.file())));
    assert!(matches!(error, OpenError::NotMigrated { found: 0, .. }), "{words}");
}

#[tokio::test]
async fn opening_again_migrates_nothing() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    commit(&store, College::new("north").open(1, at(0))).await;
    store.close().await;
    let picture = |place: &SqlitePlace| {
        let raw = place.raw();
        let number = |pragma: &str| raw.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).unwrap();
        (number("schema_version"), number("user_version"), number("application_id"), schema(&raw), dump(&raw))
    };
    let before = picture(&place);
    assert_eq!((before.1, before.2), (i64::try_from(LATEST_SCHEMA).unwrap(), 0x4352_4C59));

    place.store().close().await;

    assert!(picture(&place) == before);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_may_read_the_file_or_its_logs() {
    use std::os::unix::fs::PermissionsExt;
    let place = SqlitePlace::fresh();
    place.store().close().await;
    std::fs::set_permissions(place.file(), std::fs::Permissions::from_mode(0o644)).unwrap();

    let store: Arc<dyn Store> = place.store();
    commit(&store, College::new("north").open(1, at(0))).await;

    for name in ["relay.db", "relay.db-wal", "relay.db-shm"] {
        let mode = std::fs::metadata(place.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_in_use_has_a_write_ahead_log_and_a_closed_one_is_one_file() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    commit(&store, College::new("north").open(1, at(0))).await;
    assert!(place.folder().join("relay.db-wal").exists());
    let journal: String = place.raw().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");

    store.close().await;

    assert!(!place.folder().join("relay.db-wal").exists(), "it can be copied as it is");
}

#[test]
fn the_folder_is_made_and_what_cannot_be_one_is_named() {
    let place = SqlitePlace::fresh();
    let deep = place.folder().join("a/b/relay.db");
    drop(open(&deep).unwrap());
    assert!(deep.exists());

    std::fs::write(place.folder().join("file"), "x").unwrap();
    let (error, words) = refusal(open(&place.folder().join("file/relay.db")));
    assert!(matches!(error, OpenError::Folder(_)), "{words}");
    let (_, words) = refusal(open(&place.folder().join("a")));
    assert!(words.contains("SQLite"), "a folder is no file: {words}");
}

/// Permissions do not hold the superuser back: run as such, this test says so and ends.
#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_written_is_refused_in_clear_words() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let place = SqlitePlace::fresh();
    place.store().close().await;
    mode(&place.file(), 0o400);
    if std::fs::File::options().append(true).open(place.file()).is_ok() {
        eprintln!("skipped: permissions mean nothing to this user");
        return;
    }

    let (error, words) = refusal(open(&place.file()));
    assert!(matches!(error, OpenError::ReadOnly) && words.contains("read-only"), "{words}");
    let before = std::fs::metadata(place.file()).unwrap().permissions().mode();
    assert_eq!(before & 0o777, 0o400, "who made it so will have had a reason");
    mode(&place.file(), 0o600);

    std::fs::remove_file(place.folder().join("relay.db.lock")).unwrap();
    mode(place.folder(), 0o500);
    let (error, words) = refusal(open(&place.file()));
    mode(place.folder(), 0o700);
    assert!(matches!(error, OpenError::Folder(_)) && words.contains("folder"), "{words}");

    mode(place.folder(), 0o500);
    let (_, words) = refusal(open(&place.folder().join("new.db")));
    mode(place.folder(), 0o700);
    assert!(words.contains("folder"), "{words}");
    open(&place.file()).unwrap();
}

#[tokio::test]
async fn a_case_that_was_closed_is_not_in_the_way_of_looking_up_replies() {
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = place.store();
    let college = College::new("north");
    for number in 0..3 {
        let opened = commit(&store, college.open(number, at(0))).await;
        let taken = commit(&store, college.acknowledge(&opened, at(1))).await;
        commit(&store, college.resolve(&taken, at(2))).await;
    }
    commit(&store, college.open(3, at(0))).await;

    let rows: i64 = place.raw().query_row("SELECT count(*) FROM alert_addresses", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1, "a number's rows would grow with every case it was ever told of");
}
