//! The service under test: the release binary, on a database of its own, and what the system says of its process.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// The key of the callers that post events.
pub const SERVICE_KEY: &str = "benchmark-service-key-0123456789";
/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running service.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
}

/// What the system says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Memory that is resident now, in bytes.
    pub rss: u64,
    /// The most that was ever resident, in bytes.
    pub rss_peak: u64,
}

impl Service {
    /// Starts the binary and returns at once: nothing is known of its state.
    pub fn spawn(folder: &Path, provider: SocketAddr, further: &[(&str, String)]) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(SERVICE_KEY));
        let log = File::options().create(true).append(true).open(folder.join("service.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_crisis-relay"));
        command
            .arg("serve")
            .current_dir(folder)
            .env_clear()
            .env("CRISIS_RELAY_MODE", "development")
            .env("CRISIS_RELAY__HTTP__BIND", address.to_string())
            .env("CRISIS_RELAY__STORE__PATH", database(folder))
            .env("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", folder.join("master.key"))
            .env("API_KEY_SERVICE_SHA256", hash)
            .env("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000000")
            .env("TWILIO_AUTH_TOKEN", "simulator-auth-token")
            .env("TWILIO_WHATSAPP_FROM", "+14155238886")
            .env("TWILIO_WEBHOOK_BASE_URL", format!("http://{address}"))
            .env("COUNSELLOR_WHATSAPP_TO", "+919876543210")
            .env("CRISIS_RELAY__TWILIO__API_BASE_URL", format!("http://{provider}"))
            .env("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "100000")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Ok(threads) = std::env::var("TOKIO_WORKER_THREADS") {
            command.env("TOKIO_WORKER_THREADS", threads);
        }
        for (name, value) in further {
            command.env(name, value);
        }
        Ok(Self { child: command.spawn()?, address })
    }

    /// Starts the binary and waits until it answers.
    pub fn start(folder: &Path, provider: SocketAddr, further: &[(&str, String)]) -> io::Result<Self> {
        let mut service = Self::spawn(folder, provider, further)?;
        let begun = Instant::now();
        while !service.is_ready() {
            if service.child.try_wait()?.is_some() || begun.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(folder.join("service.log")).unwrap_or_default();
                return Err(io::Error::other(format!("the service does not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(service)
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return false };
        let request = format!("GET /livez HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && io::Read::read_to_string(&mut stream, &mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }

    /// Ends it without warning.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where the database of a folder is.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("crisis-relay.db")
}

/// Reads `/proc`; zero where there is none.
pub fn usage(process: u32) -> Usage {
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
