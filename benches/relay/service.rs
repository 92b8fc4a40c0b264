//! The service under test: the release binary, on a database of its own, and what the system says of its process.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// The key of the callers that post events.
pub(crate) const SERVICE_KEY: &str = "benchmark-service-key-0123456789";
/// The simulator's account.
pub(crate) const ACCOUNT_SID: &str = "AC00000000000000000000000000000000";
pub(crate) const AUTH_TOKEN: &str = "simulator-auth-token";

/// How much of the log is kept, in bytes.
const LOG_KEPT: usize = 16 * 1024;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub(crate) struct Service {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    pub(crate) address: SocketAddr,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system.
    pub(crate) cpu: Duration,
    /// Memory that is resident now, in bytes.
    pub(crate) rss: u64,
    /// The most that was ever resident, in bytes.
    pub(crate) rss_peak: u64,
}

impl Service {
    /// Starts the binary and returns at once: nothing is known of its state.
    pub(crate) fn spawn(folder: &Path, provider: SocketAddr) -> io::Result<Self> {
        Self::spawn_with(folder, provider, &[])
    }

    fn spawn_with(folder: &Path, provider: SocketAddr, further: &[(&str, &str)]) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut child = Command::new(env!("CARGO_BIN_EXE_crisis-relay"))
            .arg("serve")
            .current_dir(folder)
            .env_clear()
            .envs(settings(folder, address, provider))
            .envs(further.iter().copied())
            .envs(std::env::vars().filter(|(name, _)| name == "TOKIO_WORKER_THREADS"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(lines) = child.stderr.take() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || collect(lines, &log));
        }
        Ok(Self { child, address, log })
    }

    /// Starts the binary and waits until it answers.
    pub(crate) fn start(folder: &Path, provider: SocketAddr) -> io::Result<Self> {
        Self::start_with(folder, provider, &[])
    }

    /// The same, with further variables.
    pub(crate) fn start_with(folder: &Path, provider: SocketAddr, further: &[(&str, &str)]) -> io::Result<Self> {
        let mut service = Self::spawn_with(folder, provider, further)?;
        let begun = Instant::now();
        while !service.is_ready() {
            if service.child.try_wait()?.is_some() || begun.elapsed() > START_PATIENCE {
                let log = service.log.lock();
                let log = String::from_utf8_lossy(&log);
                return Err(io::Error::other(format!("the service does not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(service)
    }

    fn is_ready(&self) -> bool {
        get(self.address, "/livez").is_some()
    }

    /// How many commits its store has made.
    pub(crate) fn commits(&self) -> u64 {
        self.counted("crisis_relay_store_commits_total")
    }

    /// What `/metrics` says of a counter, by its name with labels.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let metrics = get(self.address, "/metrics").unwrap_or_default();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn usage(&self) -> Usage {
        usage(self.child.id())
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Takes the log as a collector does, and keeps its beginning: what is said of a start that fails.
fn collect(mut lines: impl io::Read, log: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = lines.read(&mut buffer) {
        let mut log = log.lock();
        let room = LOG_KEPT.saturating_sub(log.len()).min(read);
        log.extend_from_slice(&buffer[..room]);
    }
}

/// Asks once, on a connection of its own; `None` unless the answer is 200.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// The service's environment: its defaults, but for addresses, keys, and the sender's pace, which the account decides.
pub(crate) fn settings(folder: &Path, address: SocketAddr, provider: SocketAddr) -> Vec<(&'static str, String)> {
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(SERVICE_KEY));
    vec![
        ("CRISIS_RELAY_MODE", "development".to_owned()),
        ("CRISIS_RELAY__HTTP__BIND", address.to_string()),
        ("CRISIS_RELAY__STORE__PATH", database(folder).display().to_string()),
        ("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", folder.join("master.key").display().to_string()),
        ("API_KEY_SERVICE_SHA256", hash),
        ("TWILIO_ACCOUNT_SID", ACCOUNT_SID.to_owned()),
        ("TWILIO_AUTH_TOKEN", AUTH_TOKEN.to_owned()),
        ("TWILIO_WHATSAPP_FROM", "+14155238886".to_owned()),
        ("TWILIO_WEBHOOK_BASE_URL", format!("http://{address}")),
        ("COUNSELLOR_WHATSAPP_TO", "+919876543210".to_owned()),
        ("CRISIS_RELAY__TWILIO__API_BASE_URL", format!("http://{provider}")),
        ("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "100000".to_owned()),
        // Nobody answers, and where receipts are left out none comes: what the service does about that after a minute is
        // not what is measured.
        ("CRISIS_RELAY__POLICY__REPEAT_EVERY", "1h".to_owned()),
        ("CRISIS_RELAY__DELIVERY__RECEIPT_POLL_FIRST", "1h".to_owned()),
        ("CRISIS_RELAY__DELIVERY__RECEIPT_POLL_MAX", "4h".to_owned()),
    ]
}

/// Where the database of a folder is.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("crisis-relay.db")
}

/// Reads `/proc`; zero where there is none.
pub(crate) fn usage(process: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15 of proc(5), user and system time, in hundredths of a second on Linux.
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Usage {
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 10),
        rss: kilobytes("VmRSS:"),
        rss_peak: kilobytes("VmHWM:"),
    }
}

/// How many bytes the database of a folder has.
pub(crate) fn size_of(folder: &Path) -> u64 {
    fs::metadata(database(folder)).map_or(0, |found| found.len())
}
