//! What is moved, and where to.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use crisis_relay::simulator::Simulator;
use reqwest::Method;
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;

use crate::relay::{COUNSELLOR_KEY, PATIENCE, Relay, SERVICE, Setting, text, twilio};

/// What a file holds of an installation, in the order in which it is copied.
pub(crate) const TABLES: [&str; 8] =
    ["facts", "data_keys", "consents", "audit", "event_details", "provider_messages", "answers", "alerts"];

/// The facts of copying itself, for a statement.
pub(crate) const MARKS: &str = "('copying', 'moved_to')";

/// A file, past every store.
pub(crate) fn open(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

/// How many rows each of the [`TABLES`] has, marks aside.
pub(crate) fn counts(file: &Path) -> Vec<u64> {
    let connection = open(file);
    let count = |table: &str| {
        let but = if table == "facts" { format!("WHERE name NOT IN {MARKS}") } else { String::new() };
        let rows: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {table} {but}"), [], |row| row.get(0)).unwrap();
        u64::try_from(rows).unwrap()
    };
    TABLES.map(count).to_vec()
}

/// Whether a file bears a mark.
pub(crate) fn is_marked(file: &Path, mark: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM facts WHERE name = ?1)";
    open(file).query_row(sql, [mark], |row| row.get(0)).unwrap()
}

/// Everything that an installation is, marks aside: a line a row, in order.
pub(crate) fn everything(file: &Path) -> Vec<String> {
    let connection = open(file);
    let mut lines = Vec::new();
    for table in TABLES.into_iter().chain(["alert_addresses"]) {
        let mut select = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let row =
            |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect::<Result<Vec<Value>, _>>();
        for values in select.query_map([], row).unwrap() {
            let line = format!("{table} {:?}", values.unwrap());
            if !line.contains("Text(\"copying\")") && !line.contains("Text(\"moved_to\")") {
                lines.push(line);
            }
        }
    }
    lines.sort();
    lines
}

/// An installation on a file, of which everything was told that was to be told.
pub(crate) struct Installation {
    pub(crate) setting: Setting,
    _twilio: Simulator,
}

impl Installation {
    /// So many students in a crisis; and one more each whose case was taken, closed, looked at, or may be told to nobody.
    pub(crate) async fn with(students: usize) -> Self {
        let simulator = twilio().await;
        let sim = simulator.handle();
        let mut relay = Setting::new(&simulator.url()).start(&sim).await;
        let names: Vec<String> = (0..students).map(|number| format!("student-{number}")).collect();
        let mut references = futures::future::join_all(names.iter().map(|name| relay.escalated(name))).await;
        let deeds = ["acknowledge", "resolve", "reveal"];
        for deed in deeds {
            references.push(relay.escalated(deed).await);
        }
        relay.event("withheld").await.expect(202);
        relay.all_told(&sim, &references).await;
        for (deed, reference) in deeds.into_iter().zip(&references[students..]) {
            deal_with(&relay, reference, deed).await;
        }
        relay.stop();
        Self { setting: relay.setting.clone(), _twilio: simulator }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.setting.folder().join("data").join(name)
    }

    /// A source of its own, for a test that changes it.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        open(&self.setting.database()).execute("VACUUM INTO ?1", [file.to_str().unwrap()]).unwrap();
        file
    }

    /// An empty file with all that a file needs.
    pub(crate) fn empty(&self, name: &str) -> PathBuf {
        let file = self.file(name);
        let migrated = on_file(&self.setting, &file).command(&["migrate"]).output().unwrap();
        assert!(migrated.status.success(), "migrate: {}", said(&migrated));
        file
    }
}

async fn deal_with(relay: &Relay, reference: &str, deed: &str) {
    let body = match deed {
        "resolve" => json!({ "outcome": "safe_by_phone" }),
        _ => json!({}),
    };
    let path = format!("/api/v1/crisis/alerts/{reference}/{deed}");
    relay.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
}

/// A further event of a student, which was not posted before.
pub(crate) async fn further_event(relay: &Relay, user_id: &str, key: &str) -> serde_json::Value {
    let body = json!({ "user_id": user_id, "crisis_score": 0.93, "source": "chat" });
    let request = relay.request(Method::POST, "/api/v1/crisis/events", SERVICE).json(&body);
    relay.send(request.header("Idempotency-Key", key)).await.expect(202).json()
}

/// A store, as `copy` calls it.
pub(crate) fn place(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// The same service on another file.
pub(crate) fn on_file(setting: &Setting, file: &Path) -> Setting {
    setting.clone().with("DATABASE_PATH", file.to_str().unwrap())
}

/// The same service on Firestore.
pub(crate) fn on_firestore(setting: &Setting, host: &str, project: &str) -> Setting {
    by_emulator(setting, host).with("STORE", "firestore").with("FIRESTORE_PROJECT_ID", project)
}

/// What is asked of Firestore is asked of this emulator, with patience for a machine that does other things besides.
pub(crate) fn by_emulator(setting: &Setting, host: &str) -> Setting {
    setting
        .clone()
        .with("FIRESTORE_EMULATOR_HOST", host)
        .with("CRISIS_RELAY__STORE__FIRESTORE__READ_TIMEOUT", "20s")
        .with("CRISIS_RELAY__STORE__FIRESTORE__COMMIT_TIMEOUT", "20s")
}

pub(crate) fn said(output: &Output) -> String {
    text(&[output.stdout.as_slice(), output.stderr.as_slice()].concat())
}

/// What `copy` is called with.
fn words<'a>(from: &'a str, to: &'a str, further: &[&'a str]) -> Vec<&'a str> {
    [&["copy", "--from", from, "--to", to], further].concat()
}

/// A copy that is to come to its end, and to say so.
#[track_caller]
pub(crate) fn copies(setting: &Setting, when: &str, from: &str, to: &str, further: &[&str]) {
    let ended = setting.command(&words(from, to, further)).output().unwrap();
    assert!(
        ended.status.success() && text(&ended.stdout).contains("All is there."),
        "{when}: {from} to {to}: {} {}",
        ended.status,
        said(&ended)
    );
}

/// A copy that is to be refused; gives its status and what it said.
pub(crate) fn copy_refused(setting: &Setting, from: &str, to: &str) -> (Option<i32>, String) {
    let ended = setting.command(&words(from, to, &[])).output().unwrap();
    assert!(!ended.status.success(), "{from} to {to} was copied: {}", said(&ended));
    (ended.status.code(), said(&ended))
}

/// A service that is not to start on this, and is to say why; `when` is for whoever reads of a failure.
#[track_caller]
pub(crate) fn is_not_served(setting: &Setting, when: &str, why: &str) {
    let mut child = setting.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut looks = 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis();
    while child.try_wait().unwrap().is_none() && looks.next().is_some() {
        std::thread::sleep(LOOK_EVERY);
    }
    let did_start = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    let ended = child.wait_with_output().unwrap();
    let said = said(&ended);
    assert!(!did_start, "{when}: the service did start, instead of saying that the store {why}: {said}");
    assert_eq!(ended.status.code(), Some(2), "{when}: {said}");
    assert!(
        said.contains("crisis-relay cannot start") && said.contains(why),
        "{when}: it was to say that the store {why}: {said}"
    );
}

/// Between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Every chain of the audit is to verify.
#[track_caller]
pub(crate) fn audit_verifies(setting: &Setting, when: &str) {
    let ended = setting.command(&["audit", "verify"]).output().unwrap();
    assert!(ended.status.success(), "{when}: audit verify: {}", said(&ended));
}

/// A copy that runs; killed when dropped.
pub(crate) struct Copying {
    child: Option<Child>,
}

impl Copying {
    pub(crate) fn begin(setting: &Setting, from: &str, to: &str) -> Self {
        let mut command = setting.command(&words(from, to, &[]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child: Some(child) }
    }

    /// SIGKILL, once it is held up: nothing of it runs any more when this returns.
    pub(crate) async fn killed_once(mut self, when: &str, is_held: impl Fn() -> bool) {
        let held = async {
            while !is_held() {
                assert!(!self.has_ended(), "the copy ended, and was to be held up {when}: {}", self.said());
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, held).await.is_ok();
        assert!(!self.has_ended(), "the copy ended, and was to be held up {when}: {}", self.said());
        let last_words = self.said();
        assert!(in_time, "the copy was not held up {when}: {last_words}");
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    /// Ends it, and gives what it said.
    fn said(&mut self) -> String {
        let Some(mut child) = self.child.take() else { return String::new() };
        let _ = child.kill();
        said(&child.wait_with_output().unwrap())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.said();
    }
}
