//! The schema's versions: files of every version that was ever released are taken over as they are, and a start that
//! was killed in the middle of a migration does no harm.
//!
//! `fixtures/sqlite_v<n>.sql` is a whole file of version `n` as SQL text: the same few cases each time. It is written
//! once, when the version is new (see the ignored test below), and never again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crisis_relay::domain::alert::{Kind, StateName};
use crisis_relay::domain::audit::{AuditStream, verify_chain};
use crisis_relay::domain::contact::Channel;
use crisis_relay::ports::Store;
use crisis_relay::store::sqlite::{LATEST_SCHEMA, SqliteStore};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::{SqlitePlace, dump, names, schema, settings};
use crate::builders::{
    College, address, answer, at, data_key, idempotency_key, organisation, person, provider_id, reference, subject,
};
use crate::suite::{commit, laden};

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The migrations' texts, in order.
fn steps() -> Vec<String> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(in_project("migrations/sqlite")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

fn fixture(version: usize) -> String {
    let path = in_project(&format!("tests/conformance/fixtures/sqlite_v{version}.sql"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of an old version.
fn place_of(version: usize) -> SqlitePlace {
    let place = SqlitePlace::fresh();
    place.raw().execute_batch(&fixture(version)).unwrap();
    place
}

#[test]
fn every_migration_is_known_to_the_build() {
    assert_eq!(steps().len(), LATEST_SCHEMA);
}

#[test]
fn a_released_migration_still_leads_where_it_led() {
    for version in 1..=LATEST_SCHEMA {
        let place = SqlitePlace::fresh();
        let raw = place.raw();
        for step in &steps()[..version] {
            raw.execute_batch(step).unwrap();
        }
        let old = place_of(version);
        assert_eq!(schema(&raw), schema(&old.raw()), "version {version}: a step that was released is never changed");
    }
}

#[tokio::test]
async fn a_file_of_every_released_version_is_taken_over() {
    for version in 1..=LATEST_SCHEMA {
        let place = place_of(version);
        let store: Arc<dyn Store> = place.store();
        assert_cases(&store, version).await;
        assert_goes_on(&store).await;
        store.close().await;

        let fresh = SqlitePlace::fresh();
        fresh.store().close().await;
        assert_eq!(
            schema(&place.raw()),
            schema(&fresh.raw()),
            "from version {version}: the same schema as a new file's"
        );
        let found: i64 = place.raw().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(found).unwrap(), LATEST_SCHEMA);
    }
}

/// What every fixture holds: an escalating alert whose message Twilio has, one that was acknowledged, one resolved, one
/// withheld; what a student said; a key and an answer; and from version 4 on what the college has set up.
async fn assert_cases(store: &Arc<dyn Store>, version: usize) {
    let north = organisation("north");
    let states =
        [(1, StateName::Escalating), (2, StateName::Acknowledged), (3, StateName::Resolved), (4, StateName::Withheld)];
    for (number, state) in states {
        let alert = store.alert_by_reference(&north, reference(number)).await.unwrap();
        let alert = alert.unwrap_or_else(|| panic!("version {version}: alert {number} is lost"));
        assert_eq!((alert.state.name(), alert.subject, alert.kind), (state, subject(number), Kind::Live));
        assert_eq!(store.alert(alert.id).await.unwrap(), Some(alert.clone()));
        let entries = store.audit_entries(&AuditStream::Alert(alert.id), 0, 100).await.unwrap();
        assert_eq!(verify_chain(&entries, Some(alert.audit_head)), Ok(alert.audit_head), "version {version}");
        let details = store.event_details(alert.id).await.unwrap();
        let message = details.first().and_then(|details| details.message.as_ref()).map(|sealed| sealed.0.clone());
        assert_eq!(message, Some(format!("v1.key.message-{number}")));
        assert_eq!(details.first().map(|details| details.metadata.is_some()), Some(number % 2 == 0));
        let known = store.answer(idempotency_key(number)).await.unwrap();
        assert_eq!(known.map(|known| known.answer), Some(answer(number, at(0)).answer));
        let key = store.data_key(&north, person(number)).await.unwrap();
        assert_eq!(key.map(|key| key.wrapped), Some(data_key(&north, person(number), number).wrapped));
    }
    let told = store.alert_of_message(&provider_id(100)).await.unwrap().map(|alert| alert.reference);
    assert_eq!(told, Some(reference(1)));
    let telling = store.cases_of(&north, address(1), 10).await.unwrap();
    assert_eq!(telling.iter().map(|alert| alert.reference).collect::<Vec<_>>(), [reference(1)]);
    // The resolved one was closed with a message in hand, whose outcome is still to be learnt.
    assert_eq!(store.due_alerts(at(1_000_000), 10).await.unwrap().len(), 3);
    let consent = store.consent(&north, subject(1)).await.unwrap().unwrap();
    assert_eq!((consent.version, consent.channels[&Channel::Whatsapp].granted), (2, false));
    assert_eq!(store.audit_head(&AuditStream::Consent(subject(1))).await.unwrap(), consent.audit_head);
    let roster = store.roster(&north).await.unwrap();
    assert_eq!(roster.is_some(), version >= 4, "rosters came with version 4");
    if let Some(roster) = roster {
        assert_eq!((roster.version, roster.contacts.len()), (1, 1));
        assert_eq!(store.audit_head(&AuditStream::Settings(north)).await.unwrap(), roster.audit_head);
    }
}

/// The cases of an old file take their course.
async fn assert_goes_on(store: &Arc<dyn Store>) {
    let college = College::new("north");
    let old = store.alert_by_reference(&college.organisation, reference(1)).await.unwrap().unwrap();
    let taken = commit(store, college.acknowledge(&old, at(60))).await;
    commit(store, college.resolve(&taken, at(120))).await;
    commit(store, laden(&college, college.open_for(10, subject(1), at(180)), 10)).await;
    let entries = store.audit_entries(&AuditStream::Alert(old.id), 0, 100).await.unwrap();
    assert!(verify_chain(&entries, None).is_ok());
}

/// Where a migration may be cut off: after the first of its statements, before the last, and at some between.
fn halves(step: &str) -> Vec<String> {
    let statements: Vec<&str> = step.split_inclusive(';').collect();
    let ends = (1..statements.len()).step_by(5).chain([statements.len().saturating_sub(2)]);
    ends.map(|end| statements[..end].concat()).collect()
}

#[tokio::test]
async fn a_migration_that_was_killed_in_the_middle_is_made_at_the_next_start() {
    let fresh = SqlitePlace::fresh();
    fresh.store().close().await;
    for (done, step) in steps().iter().enumerate() {
        for half in halves(step) {
            let place = if done == 0 { SqlitePlace::fresh() } else { place_of(done) };
            let crashed = SqlitePlace::fresh();
            let raw = place.raw();
            raw.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
            // Pages go to the log before the commit, as they do in a migration of a large file.
            raw.execute_batch("PRAGMA cache_size = 1; BEGIN IMMEDIATE").unwrap();
            raw.execute_batch(&half).unwrap();
            // What lies on the disk at this moment is what a kill would leave.
            for name in ["relay.db", "relay.db-wal"] {
                std::fs::copy(place.folder().join(name), crashed.folder().join(name)).unwrap();
            }
            drop(raw);

            for place in [&place, &crashed] {
                let store: Arc<dyn Store> = place.store();
                if done > 0 {
                    assert_cases(&store, done).await;
                }
                commit(&store, College::new("south").open(1, at(0))).await;
                store.close().await;
                assert_eq!(schema(&place.raw()), schema(&fresh.raw()));
            }
        }
    }
}

/// Writes `fixtures/sqlite_v<n>.sql` for the version that this build writes, unless it is there:
/// `cargo test --test conformance -- --ignored writes_the_fixture`.
#[tokio::test]
#[ignore = "is run once for each new version of the schema"]
async fn writes_the_fixture_of_the_newest_version() {
    let path = in_project(&format!("tests/conformance/fixtures/sqlite_v{LATEST_SCHEMA}.sql"));
    if path.exists() {
        return;
    }
    let place = SqlitePlace::fresh();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&settings(place.file())).unwrap());
    let college = College::new("north");
    let first = commit(&store, laden(&college, college.open(1, at(1)), 1)).await;
    commit(&store, college.accept_first_message(&first, provider_id(100), at(2))).await;
    let second = commit(&store, laden(&college, college.open(2, at(3)), 2)).await;
    commit(&store, college.acknowledge(&second, at(4))).await;
    let third = commit(&store, laden(&college, college.open(3, at(5)), 3)).await;
    commit(&store, college.resolve(&third, at(6))).await;
    commit(&store, laden(&college, college.withhold(4, at(7)), 4)).await;
    let said = college.consent(subject(1), None, at(0));
    assert!(store.commit_consent(said.clone()).await.unwrap());
    assert!(store.commit_consent(college.consent(subject(1), Some(&said.record), at(8))).await.unwrap());
    assert!(store.commit_roster(college.roster(None, 1, at(8))).await.unwrap());
    store.probe(at(9)).await.unwrap();
    store.close().await;
    std::fs::write(path, as_sql(&place.raw())).unwrap();
}

/// A whole database as SQL text.
fn as_sql(raw: &Connection) -> String {
    let number = |pragma: &str| raw.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).unwrap();
    let mut text = format!("-- A file of version {} of the schema. Never changed.\n", number("user_version"));
    writeln!(text, "PRAGMA application_id = {};", number("application_id")).unwrap();
    writeln!(text, "PRAGMA user_version = {};", number("user_version")).unwrap();
    for sql in names(raw, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name") {
        writeln!(text, "{sql};").unwrap();
    }
    for table in names(raw, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
        let mut select = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> = (0..columns).map(|column| literal(&row.get(column).unwrap())).collect();
            writeln!(text, "INSERT INTO {table} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    text
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => format!("x'{}'", data_encoding::HEXLOWER.encode(bytes)),
    }
}

#[test]
fn a_file_as_text_is_the_file() {
    let place = place_of(LATEST_SCHEMA);
    let again = SqlitePlace::fresh();
    again.raw().execute_batch(&as_sql(&place.raw())).unwrap();
    assert_eq!(dump(&again.raw()), dump(&place.raw()));
    assert_eq!(schema(&again.raw()), schema(&place.raw()));
}
