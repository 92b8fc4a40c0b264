//! What cannot be seen from outside: how SQLite goes about each statement, what the connections are set to, and how the
//! writer and the readers behave when SQLite refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::ports::transfer::Kind;

fn settings(folder: &TempDir) -> SqliteSettings {
    let path = folder.path().join("relay.db");
    SqliteSettings {
        path,
        readers: 2,
        group_commit_max: 8,
        write_queue_max: 100,
        busy_timeout: Duration::from_millis(200),
    }
}

fn open() -> (TempDir, Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&settings(&folder)).unwrap();
    (folder, Arc::new(store))
}

/// How SQLite means to go about a statement: one line a step.
fn plan(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let parameters = explain.parameter_count();
    let values = vec![rusqlite::types::Value::Null; parameters];
    explain.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?.collect()
}

#[tokio::test]
async fn no_statement_walks_through_a_table_that_grows() {
    let (_folder, store) = open();
    let searches = [
        (sql::ALERT, "id=?"),
        (sql::OPEN_ALERT, "INDEX alerts_open_subject (organisation=? AND subject=?"),
        (sql::ALERT_BY_REFERENCE, "INDEX alerts_reference (organisation=? AND reference=?"),
        (sql::ALERT_OF_MESSAGE, "PRIMARY KEY (provider_id=?"),
        (sql::CASES_OF, "INDEX alert_addresses_by_address (organisation=? AND address=?"),
        (sql::DUE_ALERTS, "INDEX alerts_due (next_action_at<?"),
        (sql::list(None), "INDEX alerts_newest (organisation=? AND (opened_at,id)<(?,?)"),
        (
            sql::list(Some(StateName::Escalating)),
            "INDEX alerts_open_state (organisation=? AND state=? AND (opened_at,id)<(?,?)",
        ),
        (sql::list(Some(StateName::Resolved)), "INDEX alerts_newest (organisation=? AND (opened_at,id)<(?,?)"),
        (sql::AUDIT_HEAD, "PRIMARY KEY (stream=?"),
        (sql::AUDIT_ENTRIES, "PRIMARY KEY (stream=? AND seq>?"),
        (sql::AUDIT_WALK, "PRIMARY KEY ((stream,seq)>(?,?)"),
        (sql::CONSENT, "PRIMARY KEY (organisation=? AND subject=?"),
        (sql::ROSTER, "PRIMARY KEY (organisation=?"),
        (sql::CONSENT_VERSION, "PRIMARY KEY (organisation=? AND subject=?"),
        (sql::DATA_KEY, "PRIMARY KEY (organisation=? AND person=?"),
        (sql::ANSWER, "PRIMARY KEY (key=?"),
        (sql::LAST_CASE, "PRIMARY KEY (organisation=? AND address=?"),
        (sql::FORGET_ANSWERS, "INDEX answers_age (created_at<?"),
        (sql::NEXT_DUE, "INDEX alerts_due"),
        (sql::UNFINISHED_ALERTS, "INDEX alerts_unfinished (id<?"),
    ];
    let pages = [
        (Kind::Fact, "PRIMARY KEY (name>?"),
        (Kind::DataKey, "PRIMARY KEY ((organisation,person)>(?,?)"),
        (Kind::Consent, "PRIMARY KEY ((organisation,subject)>(?,?)"),
        (Kind::Roster, "PRIMARY KEY (organisation>?"),
        (Kind::Audit, "PRIMARY KEY ((stream,seq)>(?,?)"),
        (Kind::Event, "PRIMARY KEY ((alert,event)>(?,?)"),
        (Kind::Message, "PRIMARY KEY (provider_id>?"),
        (Kind::LastCase, "PRIMARY KEY ((organisation,address)>(?,?)"),
        (Kind::Answer, "PRIMARY KEY (key>?"),
        (Kind::Alert, "(id>?"),
    ];
    assert!(pages.map(|(kind, _)| kind) == Kind::ALL, "a kind of what is copied has no plan");
    let pages = pages.map(|(kind, search)| (transfer::every(kind), search));

    for (statement, search) in searches.into_iter().chain(pages) {
        let steps = store.readers.read(move |connection| plan(connection, statement)).await.unwrap();
        let tidy: Vec<String> = steps.iter().map(|step| step.replace("COVERING ", "")).collect();
        assert!(tidy.iter().any(|step| step.contains(search)), "{statement}: {steps:?}");
        assert!(!tidy.iter().any(|step| step.starts_with("SCAN")), "{statement}: {steps:?}");
        assert!(!tidy.iter().any(|step| step.contains("TEMP B-TREE")), "{statement} sorts: {steps:?}");
    }
    // This one goes through all that is open, which is little, and must not go through what is closed.
    for (statement, index) in [(sql::OPEN_BY_STATE, "alerts_open_state")] {
        let steps = store.readers.read(move |connection| plan(connection, statement)).await.unwrap();
        let on_its_index = |step: &&String| step.contains("alerts") && step.contains(index);
        assert_eq!(steps.iter().filter(on_its_index).count(), 1, "{statement}: {steps:?}");
        assert!(!steps.iter().any(|step| step == "SCAN alerts"), "{statement}: {steps:?}");
    }
}

#[tokio::test]
async fn what_is_committed_is_flushed_to_the_disk() {
    let (_folder, store) = open();

    let (journal, synchronous) = store
        .writer
        .write(|connection| {
            let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
            Ok((journal, synchronous))
        })
        .await
        .unwrap();

    // 2 is FULL: the write-ahead log is flushed at every commit.
    assert_eq!((journal.as_str(), synchronous), ("wal", 2));
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let (_folder, store) = open();
    let error = store.readers.read(|connection| connection.execute("DELETE FROM audit", [])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

/// Jobs that are handed over while a group waits for the file come into the next groups together.
#[tokio::test]
async fn a_job_whose_sql_fails_does_not_harm_its_neighbours() {
    let (folder, store) = open();
    let other = Connection::open(settings(&folder).path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let put = |id: i64, sql: &'static str| {
        let store = Arc::clone(&store);
        async move { store.writer.write(move |connection| connection.execute(sql, [id])).await }
    };
    let sql = "INSERT INTO answers (key, body, status, answer, created_at) VALUES (?1, x'', 0, '', ?1)";
    let good = "INSERT INTO answers (key, body, status, answer, created_at) VALUES (CAST(?1 AS BLOB), x'', 0, '', ?1)";
    let jobs = futures::future::join_all((0..20).map(|id| put(id, if id % 7 == 3 { sql } else { good })));

    let (results, ()) = futures::join!(jobs, async { other.execute_batch("COMMIT").unwrap() });

    for (id, result) in results.into_iter().enumerate() {
        match id % 7 == 3 {
            true => assert!(matches!(result, Err(StoreError::Corrupt { .. })), "{id}: {result:?}"),
            false => assert_eq!(result.unwrap(), 1),
        }
    }
    let kept: i64 = other.query_row("SELECT count(*) FROM answers", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 17);
}

#[tokio::test]
async fn a_job_that_panics_harms_neither_its_neighbours_nor_the_writer() {
    let (folder, store) = open();
    let other = Connection::open(settings(&folder).path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let sql = "INSERT INTO probe (id, at) VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET at = at + 1";
    let jobs = futures::future::join_all((0..20).map(|number| {
        store.writer.write(move |connection| {
            connection.execute(sql, [])?;
            assert!(number % 7 != 3, "on purpose");
            Ok(())
        })
    }));

    let (results, ()) = futures::join!(jobs, async { other.execute_batch("COMMIT").unwrap() });

    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.is_ok(), number % 7 != 3, "{number}: {result:?}");
    }
    let done: i64 = other.query_row("SELECT at FROM probe", [], |row| row.get(0)).unwrap();
    assert_eq!(done, 16, "seventeen did it, each once");
    store.close().await;
}

#[tokio::test]
async fn a_locked_file_is_waited_for_once_by_a_whole_group() {
    let (folder, store) = open();
    let other = Connection::open(settings(&folder).path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let now = Timestamp::from_second(1_790_000_000).unwrap();

    // 64 jobs are eight groups and the first: were each job to wait alone, they would wait for 13 seconds.
    let probes = futures::future::join_all((0..64).map(|_| store.probe(now)));
    let results =
        tokio::time::timeout(Duration::from_secs(8), probes).await.expect("a wait for each group at the most");

    assert!(results.iter().all(|result| matches!(result, Err(StoreError::Unavailable { .. }))), "{results:?}");
    other.execute_batch("COMMIT").unwrap();
    store.probe(now).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_gone_or_another_takes_no_commit_until_it_is_back() {
    let (folder, store) = open();
    let (path, aside) = (settings(&folder).path, folder.path().join("aside.db"));
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let refused = async |when: &str| {
        let probed = store.probe(now).await;
        assert!(matches!(probed, Err(StoreError::Unavailable { .. })), "{when}: {probed:?}");
        let kept = store.keep_fact("test", "x").await;
        assert!(matches!(kept, Err(StoreError::Unavailable { .. })), "{when}: {kept:?}");
    };
    store.probe(now).await.unwrap();

    std::fs::rename(&path, &aside).unwrap();
    refused("moved").await;
    std::fs::write(&path, b"").unwrap();
    refused("replaced").await;

    std::fs::rename(&aside, &path).unwrap();
    store.probe(now).await.unwrap();
    assert_eq!(store.keep_fact("test", "y").await.unwrap(), "y", "nothing was written in between");
}

/// Without pause between the commits the log never finds the moment at which SQLite would begin it anew by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_stays_short_under_a_load_that_never_pauses() {
    const WRITTEN: u64 = 320 * 1024 * 1024;
    const ONE: usize = 200_000;
    let (folder, store) = open();
    let written = Arc::new(AtomicU64::new(0));
    let number = Arc::new(AtomicU64::new(0));
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let organisation: OrganisationId = "north".parse().unwrap();
    let work = (0..8).map(|task| {
        let (store, written, number) = (Arc::clone(&store), Arc::clone(&written), Arc::clone(&number));
        let organisation = organisation.clone();
        tokio::spawn(async move {
            while written.fetch_add(ONE as u64, Ordering::Relaxed) < WRITTEN {
                let mut person = [0; 32];
                person[..8].copy_from_slice(&number.fetch_add(1, Ordering::Relaxed).to_be_bytes());
                let person = PersonKey::from_bytes(person);
                if task % 4 == 0 {
                    store.data_key(&organisation, person).await.unwrap();
                }
                let key = WrappedDataKey {
                    organisation: organisation.clone(),
                    person,
                    key_id: "0".repeat(16),
                    wrapped: "x".repeat(ONE),
                    created_at: now,
                };
                assert!(store.insert_data_key(key).await.unwrap());
            }
        })
    });
    for task in work.collect::<Vec<_>>() {
        task.await.unwrap();
    }

    let log = std::fs::metadata(super::beside(&settings(&folder).path, "-wal")).unwrap().len();
    assert!(log < 100 * 1024 * 1024, "the log has {log} bytes after {WRITTEN} were written");
}

/// A full disk, as far as SQLite itself can tell of one: `max_page_count` lets no page be added. The error is the
/// same (SQLITE_FULL); that the file system gives it, also in the middle of a COMMIT, is another test's matter.
#[tokio::test]
async fn without_space_nothing_is_half_written_and_with_space_all_goes_on() {
    let (_folder, store) = open();
    let key = |number: u8| WrappedDataKey {
        organisation: "north".parse().unwrap(),
        person: PersonKey::from_bytes([number; 32]),
        key_id: "0".repeat(16),
        wrapped: "x".repeat(100_000),
        created_at: Timestamp::from_second(1_790_000_000).unwrap(),
    };
    assert!(store.insert_data_key(key(0)).await.unwrap());
    let limit = |pages: i64| {
        store.writer.write(move |connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0))
        })
    };
    let pages = limit(1).await.unwrap();

    for _ in 0..3 {
        // Two at once, so that a group fails and each is tried alone.
        let (first, second) = futures::join!(store.insert_data_key(key(1)), store.insert_data_key(key(2)));
        for result in [first, second] {
            assert!(matches!(result, Err(StoreError::Unavailable { .. })), "{result:?}");
        }
        assert_eq!(store.data_key(&key(1).organisation, key(1).person).await.unwrap(), None);
    }
    limit(pages + 1000).await.unwrap();

    assert!(store.insert_data_key(key(1)).await.unwrap());
    assert_eq!(store.data_key(&key(1).organisation, key(1).person).await.unwrap(), Some(key(1)));
    let sound: String = store
        .readers
        .read(|connection| connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
        .await
        .unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn a_reader_that_panics_takes_no_connection_with_it() {
    let (_folder, store) = open();
    for _ in 0..5 {
        let broken = store.readers.read::<(), _>(|_| panic!("on purpose")).await;
        assert!(matches!(broken, Err(StoreError::Unavailable { .. })));
    }
    // More reads at once than there are connections.
    let reads = futures::future::join_all((0..8).map(|_| store.stats())).await;
    assert!(reads.into_iter().all(|read| read.is_ok()));
}

#[tokio::test]
async fn readers_that_wait_for_a_place_when_the_store_closes_are_answered() {
    let (_folder, store) = open();
    let reads: Vec<_> = (0..10).map(|_| store.stats().boxed()).collect();
    let (reads, ()) = futures::join!(futures::future::join_all(reads), store.close());
    assert!(reads.iter().all(|read| matches!(read, Ok(_) | Err(StoreError::Unavailable { .. }))), "{reads:?}");
}

#[test]
fn what_sqlite_says_of_an_error_never_repeats_a_value() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (secret TEXT UNIQUE CHECK (secret <> 'x')) STRICT").unwrap();
    connection.execute("INSERT INTO t VALUES ('+4915112345678')", []).unwrap();
    let errors = [
        connection.execute("INSERT INTO t VALUES ('+4915112345678')", []).unwrap_err(),
        connection.execute("INSERT INTO t VALUES (x'2b3439')", []).unwrap_err(),
        connection.execute("SELECT '+4915112345678' FROM nowhere", []).unwrap_err(),
        connection.query_row("SELECT secret FROM t", [], |row| row.get::<_, i64>(0)).unwrap_err(),
        connection.query_row("SELECT secret FROM t", [], |row| rows::parsed::<AlertId>(row, 0)).err().unwrap(),
        connection.query_row("SELECT secret FROM t", [], rows::json_column::<Alert>).err().unwrap(),
    ];
    for error in errors {
        let texts = [store_error(&error).to_string(), OpenError::Sqlite(error).to_string()];
        assert!(!texts.iter().any(|text| text.contains("49") || text.contains("secret")), "{texts:?}");
    }
}

mod migration {
    use super::*;
    use crate::store::sqlite::migrate::{LATEST, migrate, version};

    #[test]
    fn each_version_is_reached_from_each_before_it() {
        for from in 0..=LATEST {
            for target in from..=LATEST {
                let mut connection = Connection::open_in_memory().unwrap();
                migrate(&mut connection, from).unwrap();
                assert_eq!(migrate(&mut connection, target).unwrap(), from);
                assert_eq!(version(&connection).unwrap(), target);
            }
        }
    }

    #[test]
    fn a_version_that_nobody_gave_is_refused() {
        for (application, version_found) in [(APPLICATION, 0), (APPLICATION, -1), (0, 1), (7, 0)] {
            let connection = Connection::open_in_memory().unwrap();
            connection.pragma_update(None, "application_id", application).unwrap();
            connection.pragma_update(None, "user_version", version_found).unwrap();
            assert!(matches!(version(&connection), Err(OpenError::ForeignFile)), "{application} {version_found}");
        }
    }

    const APPLICATION: i64 = 0x4352_4C59;
}

#[tokio::test]
async fn a_place_is_waited_for_as_long_as_it_may_take_and_no_longer() {
    let places = Arc::new(Semaphore::new(1));
    let patience = Duration::from_secs(60);
    let held = place_among(&places, patience).await.unwrap();
    let in_vain = place_among(&places, Duration::from_millis(10)).await;
    assert!(matches!(in_vain, Err(StoreError::Unavailable { .. })), "{in_vain:?}");
    let (place, ()) = futures::join!(place_among(&places, patience), async { drop(held) });
    assert!(place.is_ok());
    places.close();
    let closed = place_among(&places, patience).await;
    assert!(matches!(closed, Err(StoreError::Unavailable { .. })), "{closed:?}");
}
