//! Processes of their own, to be killed, starved and kept waiting: this binary again, asked for one ignored test.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crisis_relay::ports::{Committed, Store, StoreError};
use crisis_relay::store::sqlite::SqliteStore;

use super::settings;
use crate::builders::{College, at, data_key, person};
use crate::suite::laden;

const FILE: &str = "CONFORMANCE_FILE";
const FROM: &str = "CONFORMANCE_FROM";

fn given_file() -> PathBuf {
    PathBuf::from(std::env::var_os(FILE).unwrap())
}

/// What a child has to say: one line each, told from the test runner's own by a sign.
fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n> {words}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// This binary, to run one test of this file on a database. `through` is a command that runs the one that follows it.
pub(crate) fn command(through: &[&str], test: &str, file: &Path, from: u32) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = match through {
        [] => Command::new(&this),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&this);
            command
        }
    };
    command
        .args(["--exact", &format!("sqlite::child::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .env(FROM, from.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The lines that a child says, until it says no more.
pub(crate) fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned))
}

fn from() -> u32 {
    std::env::var(FROM).unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn holds_the_file_until_its_input_ends() {
    let _store = SqliteStore::open(&settings(given_file())).unwrap();
    say("open");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by another test, in a process of its own, which it kills"]
async fn writes_until_it_is_killed() {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&settings(given_file())).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8_u32 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let college = College::new("north");
            for number in (from() + lane..from() + 80_000).step_by(8) {
                let opening = laden(&college, college.open(number, at(0)), number);
                assert_eq!(store.commit_alert(opening).await.unwrap(), Committed::Committed);
                say(&number.to_string());
            }
        });
    }
    tasks.join_all().await;
}

/// Writes until the store refuses, and says of each alert what it was told: `committed`, `refused` or `unknown`.
async fn fill(store: &Arc<dyn Store>) -> Vec<(u32, &'static str)> {
    let college = College::new("north");
    let mut told = Vec::new();
    let mut refusals = 0;
    for number in from()..from() + 2000 {
        let mut opening = laden(&college, college.open(number, at(0)), number);
        let mut key = data_key(&college.organisation, person(number), number);
        key.wrapped = "x".repeat(20_000);
        opening.data_key = Some(key);
        let word = match store.commit_alert(opening).await {
            Ok(Committed::Committed) => "committed",
            Err(StoreError::Unavailable { .. }) => "refused",
            Err(StoreError::Unknown { .. }) => "unknown",
            other => panic!("{number}: {other:?}"),
        };
        say(&format!("{number} {word}"));
        told.push((number, word));
        refusals += u32::from(word != "committed");
        if refusals == 3 {
            return told;
        }
    }
    panic!("the disk did not fill up");
}

#[tokio::test]
#[ignore = "run by another test, with a limit on the size of files"]
async fn writes_until_files_may_not_grow() {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&settings(given_file())).unwrap());
    let told = fill(&store).await;
    // What was there before can still be read.
    let college = College::new("north");
    for (number, word) in told {
        let stored = store.alert(college.open(number, at(0)).alert.id).await.unwrap();
        assert_eq!(stored.is_some(), word == "committed", "{number} {word}");
    }
    say("ended");
}

#[tokio::test]
#[ignore = "run by another test, on a small file system of its own"]
async fn writes_until_the_disk_is_full_and_on_when_it_is_not() {
    let file = given_file();
    let ballast = file.with_extension("ballast");
    std::fs::write(&ballast, vec![1; 4_600_000]).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&settings(&file)).unwrap());
    let college = College::new("north");
    let told = fill(&store).await;
    assert!(matches!(
        store.probe(at(0)).await,
        Err(StoreError::Unavailable { .. } | StoreError::Unknown { .. }) | Ok(())
    ));

    std::fs::remove_file(ballast).unwrap();
    for number in 0..5 {
        let opening = laden(&college, college.open(5000 + number, at(0)), 5000 + number);
        assert_eq!(store.commit_alert(opening).await.unwrap(), Committed::Committed, "there is space again");
    }
    for round in 0..2 {
        let store = match round {
            0 => Arc::clone(&store),
            _ => {
                store.close().await;
                Arc::new(SqliteStore::open(&settings(&file)).unwrap())
            }
        };
        for (number, word) in &told {
            let stored = store.alert(college.open(*number, at(0)).alert.id).await.unwrap();
            assert_eq!(stored.is_some(), *word == "committed", "{number} {word}");
        }
        assert!(store.alert(college.open(5004, at(0)).alert.id).await.unwrap().is_some());
    }
    say("ended");
}
