//! A disk that is full, read-only or damaged.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crisis_relay::simulator::{Fault, FaultRule, SimulatorHandle};

use super::relay::{Relay, Setting, on_the_phone, text, twilio, until, waiting};

/// A file that may not grow is an error to the service, not its end.
const LIMITABLE: [&str; 4] = ["sh", "-c", "trap '' XFSZ && exec \"$@\"", "sh"];
/// A name space of its own, to mount in.
const OWN_MOUNTS: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];
const SMALL_DISK: &str = "mount -t tmpfs -o size=16m none \"$DATA\" && exec \"$@\"";
const READ_ONLY_DISK: &str = "mount --bind \"$DATA\" \"$DATA\" && mount -o remount,bind,ro \"$DATA\" && exec \"$@\"";

/// Students who have agreed: enough to fill whatever room is left.
const STUDENTS: usize = 60;

/// Takes room away and gives it back.
trait Room {
    fn take(&self, relay: &Relay);
    fn give_back(&self, relay: &Relay);
}

/// Events are taken until there is no room, refused while there is none, and taken again; nothing of it is lost. `enter`
/// is a command that runs another where the service's disk can be seen.
async fn is_got_over(relay: &mut Relay, sim: &SimulatorHandle, room: &dyn Room, enter: &[&str]) {
    for number in 0..STUDENTS {
        relay.consents(&format!("student-{number}")).await;
    }
    // One waits for its next try while there is no room.
    sim.push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(2) }));
    let mut references = vec![relay.event("student-0").await.expect(202).reference()];
    until("the first call was refused", async || sim.stats().create_calls == 1).await;

    room.take(relay);
    let mut refused = Vec::new();
    for number in 1..STUDENTS {
        let student = format!("student-{number}");
        let answer = relay.event(&student).await;
        if answer.status == 202 {
            references.push(answer.reference());
        } else {
            answer.come_back();
            refused.push(student);
        }
    }
    assert!(!refused.is_empty(), "there was room enough for {STUDENTS} events");
    until("it calls itself not ready", async || {
        let (ready, checks) = relay.readiness().await;
        !ready && checks["store"] == "failing"
    })
    .await;
    until("the log names it", async || relay.logged("SQLite code") > 0).await;
    until("the worker has met it", async || relay.logged("cannot be worked on just now") > 0).await;

    room.give_back(relay);
    relay.until_ready().await;
    for student in &refused {
        references.push(relay.event(student).await.expect(202).reference());
    }
    relay.all_told(sim, &references).await;
    for reference in &references {
        // A second one only where what came of the first could not be booked for the length of a lease.
        assert!(on_the_phone(sim, reference).len() <= 2, "{reference}");
    }
    // By its whole path: entering elsewhere leaves the folder.
    let setting = relay.setting.clone().with("DATABASE_PATH", relay.setting.database().to_str().unwrap());
    let verify = setting.through(enter).wrapped(&["audit", "verify"]).output().unwrap();
    assert!(verify.status.success(), "{}{}", text(&verify.stdout), text(&verify.stderr));
    relay.stop();
}

/// A limit on the length of files: to the service, an error of the file system in the middle of a write.
struct FilesMayNotGrow;

impl FilesMayNotGrow {
    fn limit(relay: &Relay, soft: &str) {
        let pid = relay.pid().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={soft}:")]).status();
        assert!(set.is_ok_and(|status| status.success()), "prlimit (of util-linux) is needed for this test");
    }
}

impl Room for FilesMayNotGrow {
    fn take(&self, relay: &Relay) {
        let log = relay.setting.folder().join("data/crisis-relay.db-wal");
        Self::limit(relay, &std::fs::metadata(log).unwrap().len().to_string());
    }

    fn give_back(&self, relay: &Relay) {
        Self::limit(relay, "unlimited");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_takes_no_more_is_told_and_got_over_without_a_hand() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let mut relay = Setting::new(&simulator.url()).through(&LIMITABLE).start(&sim).await;
    is_got_over(&mut relay, &sim, &FilesMayNotGrow, &[]).await;
}

/// A file that takes all room that is left.
struct Filler(PathBuf);

impl Room for Filler {
    fn take(&self, _: &Relay) {
        let mut file = File::create(&self.0).unwrap();
        for size in [64 * 1024, 512] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn give_back(&self, _: &Relay) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let tried = Command::new(OWN_MOUNTS[0])
        .args(&OWN_MOUNTS[1..])
        .args(["mount", "-t", "tmpfs", "none"])
        .arg(folder.path())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A service with mounts of its own, made by this script in `$DATA`, its data's folder.
fn mounting(setting: Setting, script: &str) -> Setting {
    let data = setting.folder().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let command: Vec<&str> = OWN_MOUNTS.into_iter().chain(["sh", "-c", script, "sh"]).collect();
    setting.with("DATA", data.to_str().unwrap()).through(&command)
}

/// An extra: a user must be allowed to mount. What happens without room is tested in any case, by the limit above.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_got_over_without_a_hand_where_one_can_be_mounted() {
    if !can_mount() {
        eprintln!("SKIPPED: no file system can be mounted here, so no disk was filled");
        return;
    }
    let simulator = twilio().await;
    let sim = simulator.handle();
    let mut relay = mounting(Setting::new(&simulator.url()), SMALL_DISK).start(&sim).await;
    let data = relay.setting.folder().join("data");
    let seen_from_here = Path::new(&format!("/proc/{}/root", relay.pid())).join(data.strip_prefix("/").unwrap());
    let filler = Filler(seen_from_here.join("filler"));
    let pid = relay.pid().to_string();
    let enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &pid];
    is_got_over(&mut relay, &sim, &filler, &enter).await;
}

/// An extra likewise. That a read-only file is refused is tested beside the store in any case.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_refused_at_the_start_with_its_reason_where_one_can_be_mounted() {
    if !can_mount() {
        eprintln!("SKIPPED: no file system can be mounted here, so none was read-only");
        return;
    }
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (mut relay, reference) = waiting(&simulator, 2).await;
    relay.kill();

    let output = mounting(relay.setting.clone(), READ_ONLY_DISK).fails_to_start();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("crisis-relay cannot start") && said.to_lowercase().contains("read-only"), "{said}");

    let mut relay = relay.setting.clone().start(&sim).await;
    assert_eq!(relay.all_told(&sim, &[reference]).await, [1], "once it can be written again");
    relay.audit_verifies();
    relay.stop();
}

/// The bytes of a page of the table of alerts, and where they are.
fn page_of_alerts(database: &Path) -> (u64, Vec<u8>) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    let root = number("SELECT rootpage FROM sqlite_master WHERE name = 'alerts'");
    let size = number("PRAGMA page_size");
    drop(connection);
    let mut page = vec![0; size as usize];
    let place = u64::from(root - 1) * u64::from(size);
    let mut file = File::open(database).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.read_exact(&mut page).unwrap();
    (place, page)
}

fn overwrite(database: &Path, place: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(database).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_told_and_what_it_held_goes_on_once_it_is_mended() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (mut relay, reference) = waiting(&simulator, 1).await;
    relay.stop();
    let database = relay.setting.database();
    let (place, page) = page_of_alerts(&database);
    overwrite(&database, place, &vec![0xEE; page.len()]);

    let mut relay = relay.setting.clone().start(&sim).await;
    relay.event("student-2").await.come_back();
    let answer = relay.get(&format!("/api/v1/crisis/alerts/{reference}"), super::relay::COUNSELLOR_KEY).await;
    answer.come_back();
    until("the log names the damage", async || relay.logged("malformed") > 0).await;
    until("it calls itself not ready", async || !relay.readiness().await.0).await;
    let audit = relay.setting.command(&["audit", "verify"]).output().unwrap();
    assert_ne!(audit.status.code(), Some(0), "the damage does not pass for a proof");
    relay.kill();

    overwrite(&database, place, &page);
    let mut relay = relay.setting.clone().start(&sim).await;
    assert_eq!(relay.all_told(&sim, &[reference]).await, [1]);
    relay.audit_verifies();
    relay.stop();
}
