//! Google's Firestore emulator: the one that runs already, or one that is started for this test binary.
//!
//! - `FIRESTORE_EMULATOR_HOST` names one that runs.
//! - Else one is started, where `java` and the emulator's jar are there: the jar named by `FIRESTORE_EMULATOR_JAR`, or
//!   the one of `gcloud components install cloud-firestore-emulator`.
//! - Else the tests are skipped, and this is said on stderr; with `CRISIS_RELAY_FIRESTORE_TESTS=required` they fail.
//!
//! Tests keep out of each other's way by a project id of their own. The emulator ends with the test binary, however that
//! ends: a shell waits on a pipe that only the test binary holds open.
//!
//! Every binary takes what it needs of this; what one leaves unused, another uses.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::ports::random;
use crisis_relay::store::firestore::FirestoreSettings;

const HOW: &str = "install it (gcloud components install cloud-firestore-emulator, and Java), or start one and name it in \
                   FIRESTORE_EMULATOR_HOST";

/// How long an answer may take on a machine that is busy with all the tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A project's database, by this way to the emulator.
pub(crate) fn settings(host: &str, project: &str) -> FirestoreSettings {
    FirestoreSettings {
        project_id: project.to_owned(),
        database_id: "(default)".to_owned(),
        emulator_host: Some(host.to_owned()),
        connect_timeout: PATIENCE,
        read_timeout: PATIENCE,
        commit_timeout: PATIENCE,
        answers_kept: Duration::from_secs(48 * 3600),
    }
}

/// The emulator's host and port; `None`: there is none, and the test is skipped.
pub(crate) fn emulator() -> Option<&'static str> {
    static FOUND: OnceLock<Result<Emulator, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = find();
        if let Err(why) = &found {
            // Past the test harness, which would keep it back where tests pass.
            let _ = writeln!(
                std::io::stderr(),
                "\nSKIPPED: every test of the Firestore store in this binary, for {why}.\nTo run them: {HOW}.\n"
            );
        }
        found
    });
    match found {
        Ok(emulator) => Some(&emulator.host),
        Err(why) => {
            let required = std::env::var("CRISIS_RELAY_FIRESTORE_TESTS").is_ok_and(|value| value == "required");
            assert!(!required, "the Firestore tests are required, but {why}: {HOW}");
            None
        }
    }
}

/// A project that no other test has, in this run or any other.
pub(crate) fn project() -> String {
    format!("test-{}", data_encoding::HEXLOWER.encode(&random::<8>(&SystemEntropy)))
}

struct Emulator {
    host: String,
    /// Holds the pipe open.
    _guard: Option<Child>,
}

fn find() -> Result<Emulator, String> {
    if let Some(host) = std::env::var("FIRESTORE_EMULATOR_HOST").ok().filter(|host| !host.trim().is_empty()) {
        return Ok(Emulator { host, _guard: None });
    }
    let jar = jar().ok_or("no emulator is installed")?;
    start(&jar)
}

fn jar() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("FIRESTORE_EMULATOR_JAR") {
        return Some(PathBuf::from(named)).filter(|jar| jar.exists());
    }
    let asked = Command::new("gcloud").args(["info", "--format=value(installation.sdk_root)"]).output().ok()?;
    let root = String::from_utf8(asked.stdout).ok()?;
    let jar = Path::new(root.trim()).join("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar");
    Some(jar).filter(|jar| jar.exists())
}

/// `sh` starts Java beside itself, waits until its standard input is closed, and then ends what it started.
const WATCH: &str = r#"java -Duser.language=en -cp "$1" com.google.cloud.datastore.emulator.firestore.CloudFirestore \
    --host=127.0.0.1 --port="$2" </dev/null >/dev/null 2>&1 &
emulator=$!
cat >/dev/null
kill "$emulator""#;

/// Java takes some seconds, and more on a machine that is busy.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

fn start(jar: &Path) -> Result<Emulator, String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.map_err(|error| format!("no port is free ({error})"))?;
    let mut guard = Command::new("sh")
        .args(["-c", WATCH, "sh"])
        .arg(jar)
        .arg(address.port().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no shell can be started ({error})"))?;
    let step = Duration::from_millis(100);
    for _ in 0..STARTS_WITHIN.as_millis() / step.as_millis() {
        if TcpStream::connect(address).is_ok() {
            return Ok(Emulator { host: address.to_string(), _guard: Some(guard) });
        }
        std::thread::sleep(step);
    }
    drop(guard.stdin.take());
    let _ = guard.wait();
    Err(format!("the emulator was started, and did not listen within {STARTS_WITHIN:?}"))
}
