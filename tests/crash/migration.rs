//! Kills in the midst of a migration: files of the first version, taken over by a process that is killed while it does
//! so, again and again, until one is left in peace.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::{SeededEntropy, SystemClock};
use crisis_relay::domain::alert::AlertState;
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::simulator::{Simulator, SimulatorConfig};
use crisis_relay::store::sqlite::LATEST_SCHEMA;
use rusqlite::Connection;
use serde_json::json;

use crate::load::{BACKEND_KEY, PHONE};
use crate::plan::Dice;
use crate::process::{Relay, command};
use crate::snapshot::{self, FILE, Snapshot};

/// How long a start may take, on a machine with much to do.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a process may take to touch the file.
const TOUCH_WITHIN: Duration = Duration::from_secs(60);
/// How long the first message may take.
const MESSAGE_WITHIN: Duration = Duration::from_secs(60);

/// What became of the kills.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Struck {
    /// The file was still of the first version.
    pub(crate) before: u32,
    /// It was of the newest.
    pub(crate) after: u32,
}

/// A file of the first version in a folder of its own, in rollback mode, as that version's first start began with.
fn old_file() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let raw = Connection::open(folder.path().join(FILE)).unwrap();
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/fixtures/sqlite_v1.sql");
    raw.execute_batch(&std::fs::read_to_string(sql).unwrap()).unwrap();
    folder
}

fn settings(twilio: &Simulator) -> Vec<(&'static str, String)> {
    let account = SimulatorConfig::default();
    vec![
        ("DATABASE_PATH", FILE.to_owned()),
        ("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", "master.key".to_owned()),
        // Whose cases the old files hold.
        ("ORGANISATION_ID", "north".to_owned()),
        ("COUNSELLOR_WHATSAPP_TO", PHONE.to_owned()),
        ("TWILIO_ACCOUNT_SID", account.account_sid),
        ("TWILIO_AUTH_TOKEN", account.auth_token.expose().to_owned()),
        ("TWILIO_WHATSAPP_FROM", "+14155238886".to_owned()),
        ("TWILIO_API_BASE_URL", twilio.url()),
        // Nobody is there: receipts are polled.
        ("TWILIO_WEBHOOK_BASE_URL", "http://127.0.0.1:9".to_owned()),
        ("API_KEY_SERVICE_SHA256", ApiKeyHash::of(BACKEND_KEY).to_string()),
    ]
}

/// Takes one old file over, through `kills` kills; says at which versions they struck.
pub(crate) async fn take_over(seed: u64, kills: u64) -> Struck {
    let mut dice = Dice::new(seed);
    let clock = Arc::new(SystemClock);
    let entropy = Arc::new(SeededEntropy::new(seed));
    let twilio = Simulator::start(SimulatorConfig::default(), clock, entropy).await.unwrap();
    let settings = settings(&twilio);
    let mut folder = old_file();
    // An alert in each state: see the file.
    let old = Snapshot::read(folder.path());
    assert_eq!((old.version, old.alerts.len()), (1, 4), "the old file is what it was");
    let mut struck = Struck::default();
    let mut version = 1;
    // How long after the first touch of the file the kill strikes at the latest: sought from kill to kill, so that it
    // strikes about the migration's commit however fast the machine is.
    let mut latest_us = 20_000;
    for kill in 1..=kills {
        if usize::try_from(version).unwrap() == LATEST_SCHEMA {
            // That one is done: the next one begins with an old file again.
            folder = old_file();
            version = 1;
        }
        let relay = Relay::begin(folder.path(), &settings);
        await_touch(folder.path(), &relay).await;
        std::thread::sleep(Duration::from_micros(dice.next() % latest_us));
        relay.kill();
        let copy = snapshot::copy(folder.path());
        let found = Snapshot::read(copy.path());
        let when = format!("seed {seed}, after kill {kill}");
        assert_holds(&when, &old, &found);
        assert!(found.version >= version, "{when}: the file went back from version {version} to {}", found.version);
        version = found.version;
        match usize::try_from(version).unwrap() {
            LATEST_SCHEMA => {
                struck.after += 1;
                latest_us = (latest_us * 2 / 3).max(50);
            }
            _ => {
                struck.before += 1;
                latest_us = (latest_us * 3 / 2).min(50_000);
            }
        }
    }
    goes_on(seed, folder.path(), &old, &settings, &twilio).await;
    struck
}

/// Waits until the process has the file open, which it says by the lock beside it.
async fn await_touch(folder: &Path, relay: &Relay) {
    let lock = folder.join(format!("{FILE}.lock"));
    let touched = async {
        while !lock.exists() {
            // Finer than the runtime's own timer.
            std::thread::sleep(Duration::from_micros(50));
            tokio::task::yield_now().await;
        }
        // It stays from one process to the next: the next one is known by the file that it holds.
        std::fs::remove_file(&lock).unwrap();
    };
    if tokio::time::timeout(TOUCH_WITHIN, touched).await.is_err() {
        panic!("the service did not open its database:\n{}", relay.last_words());
    }
}

/// Nothing of the old file is lost. Cases that wait may have been seen to; the others are as they were.
fn assert_holds(when: &str, old: &Snapshot, found: &Snapshot) {
    assert!(found.faults.is_empty(), "{when}:\n{}", found.faults.join("\n"));
    for (id, before) in &old.alerts {
        let Some(now) = found.alerts.get(id) else { panic!("{when}: the alert {id} is lost") };
        let holds = match before.state {
            AlertState::Resolved { .. } | AlertState::Withheld { .. } => now.state == before.state,
            AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => now.is_open(),
        };
        assert!(
            holds && now.version >= before.version,
            "{when}: the alert {id} was {:?}, and is {now:?}",
            before.state
        );
    }
    assert!(found.entries >= old.entries, "{when}: audit entries are lost");
}

/// Left in peace, a process takes the file over, works with it, and its audit verifies.
async fn goes_on(seed: u64, folder: &Path, old: &Snapshot, settings: &[(&'static str, String)], twilio: &Simulator) {
    let relay = Relay::begin(folder, settings);
    let mut address = relay.address();
    let listening = async { *address.wait_for(Option::is_some).await.unwrap() };
    let address = tokio::time::timeout(START_WITHIN, listening).await;
    let Ok(Some(address)) = address else { panic!("seed {seed}: it does not start:\n{}", relay.last_words()) };
    let body = json!({
        "user_id": "student-1", "crisis_score": 0.93, "source": "chat",
        "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let posting = client.post(format!("http://{address}/api/v1/crisis/events")).bearer_auth(BACKEND_KEY).json(&body);
    let answer: serde_json::Value = posting.send().await.unwrap().json().await.unwrap();
    let reference = answer["reference"].as_str().unwrap_or_else(|| panic!("seed {seed}: {answer}"));
    let told = twilio.handle().await_message(PHONE, MESSAGE_WITHIN, |message| message.body.contains(reference)).await;
    told.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    let status = relay.ended(START_WITHIN).await;
    assert!(status.success(), "seed {seed}: asked to end, it ended with {status}");
    let found = Snapshot::read(folder);
    assert_eq!(usize::try_from(found.version).unwrap(), LATEST_SCHEMA, "seed {seed}");
    assert_holds(&format!("seed {seed}, at the end"), old, &found);
    assert_eq!(found.alerts.len(), old.alerts.len() + 1, "seed {seed}: the cases of before, and one more");
    let verified = command(&["audit", "verify"], folder, settings).output().unwrap();
    assert!(verified.status.success(), "seed {seed}: {verified:?}");
}
