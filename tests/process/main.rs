//! The real binary, where its surroundings fail it.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A service of its own, in a folder of its own; ended when dropped.
struct Relay {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A command in `folder`, whose environment is empty but for what it needs to run beside others.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crisis-relay"));
    command.arg(name).current_dir(folder).env_clear();
    command.env("HTTP_BIND", "127.0.0.1:0").env("CRISIS_RELAY__SIMULATOR__BIND", "127.0.0.1:0");
    command
}

impl Relay {
    fn start(stderr: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = command("serve", folder.path())
            .env("HTTP_BIND", format!("127.0.0.1:{port}"))
            // Every request leaves lines: more than a pipe holds is soon together.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, port, folder }
    }

    /// Asks `/livez` once.
    fn is_alive(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    fn wait_for_life(&mut self) {
        for _ in 0..600 {
            if self.is_alive() {
                return;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not answer");
    }

    /// Enough requests to fill a pipe (64 KiB) with their lines, several times.
    fn goes_on(mut self) {
        self.wait_for_life();
        for number in 0..400 {
            assert!(self.is_alive(), "request {number} was not answered");
        }
        assert_eq!(self.child.try_wait().unwrap(), None, "it ended");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_under_the_log_does_not_end_the_service() {
    Relay::start(File::options().write(true).open("/dev/full").unwrap()).goes_on();
}

#[test]
fn a_log_that_nobody_takes_any_more_does_not_end_the_service() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Relay::start(writer).goes_on();
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_the_service() {
    let (reader, writer) = std::io::pipe().unwrap();
    Relay::start(writer).goes_on();
    drop(reader);
}

#[test]
fn a_database_of_another_organisation_or_key_is_refused_and_check_says_so_without_touching_it() {
    let mut relay = Relay::start(Stdio::null());
    relay.wait_for_life();
    relay.child.kill().unwrap();
    relay.child.wait().unwrap();
    let other_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    for (variable, value, key) in
        [("ORGANISATION_ID", "elsewhere", "organisation.id"), ("MASTER_KEY", other_key, "keyring.master_key")]
    {
        for (name, status) in [("check", 1), ("serve", 2), ("check", 1)] {
            let ended = command(name, relay.folder.path()).env(variable, value).output().unwrap();
            let said = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
            assert_eq!(ended.status.code(), Some(status), "{name} with {variable}: {said}");
            let told = format!("{key}: is not the");
            assert!(said.contains(&told) && said.contains("that this database was begun with"), "{name}: {said}");
        }
    }
    // No alert of its own is in there, so every one of them would be proven: of none.
    let verify = || {
        let mut verify = command("audit", relay.folder.path());
        verify.arg("verify");
        verify
    };
    let ended = verify().env("ORGANISATION_ID", "elsewhere").output().unwrap();
    let said = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
    assert_eq!(ended.status.code(), Some(2), "audit verify: {said}");
    assert!(said.contains("organisation.id: is not the organisation that this database was begun with"), "{said}");
    assert_eq!(verify().output().unwrap().status.code(), Some(0), "the database's own organisation");
    let unchanged = command("check", relay.folder.path()).output().unwrap();
    assert_eq!(unchanged.status.code(), Some(0), "{unchanged:?}");
}

#[test]
fn an_end_that_is_asked_for_while_the_service_starts_comes_though_the_start_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("master.key");
    // Whoever opens it waits for somebody who writes to it: nobody ever does.
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    let port = free_port();
    let mut child = command("serve", folder.path())
        .env("HTTP_BIND", format!("127.0.0.1:{port}"))
        .env("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", &key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It listens before it reads its key.
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    let begun = (0..600).any(|_| {
        listens() || {
            std::thread::sleep(Duration::from_millis(50));
            false
        }
    });
    assert!(begun, "it does not begin");
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ended = (0..600).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{said}");
    assert!(said.contains("asked to end while starting"), "{said}");
}

/// What `migrate` says with this environment, and how it ends.
fn migrate(folder: &Path, environment: &[(&str, &str)]) -> (String, Option<i32>) {
    let ended = command("migrate", folder).envs(environment.iter().copied()).output().unwrap();
    let told = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
    (told, ended.status.code())
}

#[test]
fn migrate_brings_a_file_up_to_date_and_a_second_run_finds_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (told, status) = migrate(folder.path(), &[]);
    assert!(status == Some(0) && told.contains("went from schema version 0 to "), "{status:?}: {told}");
    let (told, status) = migrate(folder.path(), &[]);
    assert!(status == Some(0) && told.contains("nothing to do"), "{status:?}: {told}");
}

#[test]
fn migrate_leaves_a_file_alone_that_a_service_is_using() {
    let mut relay = Relay::start(Stdio::null());
    relay.wait_for_life();
    let (told, status) = migrate(relay.folder.path(), &[]);
    assert!(status == Some(1) && told.contains("another process is using this database"), "{status:?}: {told}");
    assert!(relay.is_alive(), "the service goes on");
}

const FIRESTORE: [(&str, &str); 2] = [("STORE", "firestore"), ("FIRESTORE_PROJECT_ID", "college-1")];

#[test]
fn migrate_says_that_an_emulator_needs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there, and nobody is asked.
    let emulator = [("FIRESTORE_EMULATOR_HOST", "127.0.0.1:9")];
    let (told, status) = migrate(folder.path(), &[FIRESTORE.as_slice(), &emulator].concat());
    assert!(status == Some(0) && told.contains("needs no indexes"), "{status:?}: {told}");
}

#[test]
fn migrate_without_googles_credentials_says_how_to_get_them() {
    let folder = tempfile::tempdir().unwrap();
    // A file that is none: off Google's machines the search would go on to a metadata server, in vain and for long.
    let key = folder.path().join("key.json");
    std::fs::write(&key, "{}").unwrap();
    let credentials = [("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())];
    let (told, status) = migrate(folder.path(), &[FIRESTORE.as_slice(), &credentials].concat());
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("gcloud auth application-default login"), "{told}");
}
