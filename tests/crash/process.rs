//! The real binary, to be killed.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many of the last log lines are kept, for whoever reads of a failure.
const LINES_KEPT: usize = 60;

/// A command of the binary in `folder`; its environment is `settings` and nothing else.
pub(crate) fn command(name: &[&str], folder: &Path, settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crisis-relay"));
    command.args(name).current_dir(folder).env_clear().stdin(Stdio::null());
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command
}

/// What the process has said.
#[derive(Default)]
struct Log {
    last: Mutex<VecDeque<String>>,
    panics: Mutex<Vec<String>>,
}

impl Log {
    fn take(&self, line: String) {
        if line.contains("\"message\":\"panic\"") {
            self.panics.lock().push(line.clone());
        }
        let mut last = self.last.lock();
        if last.len() == LINES_KEPT {
            last.pop_front();
        }
        last.push_back(line);
    }
}

/// The service, as a process; killed when it is dropped.
pub(crate) struct Relay {
    child: Child,
    address: watch::Receiver<Option<SocketAddr>>,
    log: Arc<Log>,
}

impl Relay {
    /// Begins a process, and does not wait for it.
    pub(crate) fn begin(folder: &Path, settings: &[(&'static str, String)]) -> Self {
        let mut child = command(&["serve"], folder, settings)
            .env("HTTP_BIND", "127.0.0.1:0")
            .env("LOG_FORMAT", "json")
            // Where it listens, and what goes wrong.
            .env("RUST_LOG", "error,crisis_relay::app=info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (told, address) = watch::channel(None);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = listening_at(&line) {
                    told.send_replace(Some(address));
                }
                kept.take(line);
            }
        });
        Self { child, address, log }
    }

    /// Where it listens, once it does.
    pub(crate) fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.clone()
    }

    /// The last that it said.
    pub(crate) fn last_words(&self) -> String {
        self.log.last.lock().iter().map(|line| format!("    {line}\n")).collect()
    }

    /// SIGKILL: nothing of it runs any more when this returns. Fails if it has ended by itself, or panicked on the way.
    pub(crate) fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the service ended by itself ({status}):\n{}", self.last_words());
        }
        self.end();
    }

    /// The same, for a process that was asked to end and may have been faster.
    pub(crate) fn kill_if_there(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let panics = self.log.panics.lock();
        assert!(panics.is_empty(), "the service panicked: {panics:?}");
    }

    /// SIGTERM.
    pub(crate) fn ask_to_end(&self) {
        let pid = self.child.id().to_string();
        // The shell's own `kill`: no program of that name need be there.
        let asked = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap();
        assert!(asked.success(), "the service cannot be asked to end");
    }

    /// Asks it to end, and waits so long for it.
    pub(crate) async fn ended(mut self, within: Duration) -> ExitStatus {
        self.ask_to_end();
        let ended = async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let ended = tokio::time::timeout(within, ended).await;
        let panics = self.log.panics.lock();
        assert!(panics.is_empty(), "the service panicked: {panics:?}");
        ended.unwrap_or_else(|_| panic!("asked to end, it went on:\n{}", self.last_words()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the line that says that the service listens.
fn listening_at(line: &str) -> Option<SocketAddr> {
    if !line.contains("\"message\":\"listening\"") {
        return None;
    }
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let url: url::Url = line["url"].as_str()?.parse().ok()?;
    url.socket_addrs(|| None).ok()?.first().copied()
}
