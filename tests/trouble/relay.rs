//! The binary as a child process, with a Twilio simulator in the test's own process, which outlives it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::simulator::{
    CallbackMode, Fault, FaultRule, SimMessage, Simulator, SimulatorConfig, SimulatorHandle,
};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use url::Url;

use crate::front::Front;

/// The phone of the configured counsellor.
pub(crate) const COUNSELLOR: &str = "+919800000017";
/// API keys by role.
pub(crate) const SERVICE: &str = "trouble-service-key-01";
pub(crate) const COUNSELLOR_KEY: &str = "trouble-counsellor-key";
pub(crate) const ADMIN: &str = "trouble-admin-key-0001";
pub(crate) const AUDITOR: &str = "trouble-auditor-key-01";
/// How long anything may take on a machine that does other things besides.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A Twilio that outlives the service.
pub(crate) async fn twilio() -> Simulator {
    let after = Duration::from_millis(20);
    twilio_with(CallbackMode::Automatic { sent_after: after, delivered_after: after, read_after: None }).await
}

/// The same, which calls back like this.
pub(crate) async fn twilio_with(callbacks: CallbackMode) -> Simulator {
    let config = SimulatorConfig { callbacks, ..SimulatorConfig::default() };
    Simulator::start(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap()
}

/// A service with a case whose message waits for its next try: Twilio was too busy for its first one.
pub(crate) async fn waiting(simulator: &Simulator, retry_after_s: u32) -> (Relay, String) {
    let sim = simulator.handle();
    sim.push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(retry_after_s) }));
    let relay = Setting::new(&simulator.url()).start(&sim).await;
    let reference = relay.escalated("student-1").await;
    until("the first call was refused", async || sim.stats().create_calls == 1).await;
    (relay, reference)
}

/// Waits, by the machine's clock, until `holds` does.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}

/// How long it is since.
pub(crate) fn timer() -> impl Fn() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the child's time is the machine's")]
    let begun = std::time::Instant::now();
    move || begun.elapsed()
}

/// An answer of the service.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected status: {self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The reference of the case that an event opened or joined.
    pub(crate) fn reference(&self) -> String {
        self.json()["reference"].as_str().unwrap_or_else(|| panic!("no reference: {self:?}")).to_owned()
    }

    /// Refused for the moment: a problem document that says when to come back, and nothing of what is wrong inside.
    #[track_caller]
    pub(crate) fn come_back(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert!(self.headers.contains_key("retry-after"), "{self:?}");
        for word in ["sqlite", "SQLite", "database", "disk", ".db"] {
            assert!(!self.text.contains(word), "{word} is nobody's business: {self:?}");
        }
    }
}

/// How a service is started.
#[derive(Clone)]
pub(crate) struct Setting {
    environment: BTreeMap<String, String>,
    /// A command that runs the one that follows it.
    through: Vec<String>,
    folder: Arc<TempDir>,
    front: Option<Arc<Front>>,
}

impl Setting {
    /// A service that calls this Twilio.
    pub(crate) fn new(twilio: &str) -> Self {
        let account = SimulatorConfig::default();
        let mut environment: BTreeMap<String, String> = [
            ("HTTP_BIND", "127.0.0.1:0"),
            ("TWILIO_ACCOUNT_SID", &account.account_sid),
            ("TWILIO_AUTH_TOKEN", account.auth_token.expose()),
            ("TWILIO_WHATSAPP_FROM", "+14155238886"),
            ("TWILIO_API_BASE_URL", twilio),
            ("COUNSELLOR_WHATSAPP_TO", COUNSELLOR),
            ("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "1000"),
            ("CRISIS_RELAY__STORE__BUSY_TIMEOUT", "200ms"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let keys = [("SERVICE", SERVICE), ("COUNSELLOR", COUNSELLOR_KEY), ("ADMIN", ADMIN), ("AUDITOR", AUDITOR)];
        for (role, key) in keys {
            environment.insert(format!("API_KEY_{role}_SHA256"), ApiKeyHash::of(key).to_string());
        }
        Self { environment, through: Vec::new(), folder: Arc::new(tempfile::tempdir().unwrap()), front: None }
    }

    /// Under an address that is known before it listens, as a service that makes calls must be.
    pub(crate) async fn with_front(self) -> Self {
        let front = Arc::new(Front::start().await);
        Self { front: Some(front.clone()), ..self }.with("TWILIO_WEBHOOK_BASE_URL", front.url())
    }

    /// Sets an environment variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves an environment variable to its default.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Starts it through a shell script, whose `"$@"` is the service.
    pub(crate) fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder().join("data/crisis-relay.db")
    }

    /// The binary, with these words, in this setting; `through` nothing.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crisis-relay"));
        self.dress(command.args(words));
        command
    }

    fn dress(&self, command: &mut Command) {
        command.current_dir(self.folder()).env_clear().envs(&self.environment).stdin(Stdio::null());
    }

    /// The same, `through` what it is to be run through.
    pub(crate) fn wrapped(&self, words: &[&str]) -> Command {
        match self.through.as_slice() {
            [] => self.command(words),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(env!("CARGO_BIN_EXE_crisis-relay")).args(words);
                self.dress(&mut command);
                command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
                command
            }
        }
    }

    /// Runs `serve` where it cannot start, and gives what it said.
    pub(crate) fn fails_to_start(&self) -> Output {
        let mut child = self.wrapped(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for _ in 0..600 {
            if child.try_wait().unwrap().is_some() {
                return child.wait_with_output().unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().unwrap();
        panic!("it did start: {:?}", child.wait_with_output());
    }

    /// Starts it, and waits until it listens.
    pub(crate) async fn start(self, twilio: &SimulatorHandle) -> Relay {
        let mut child = self.wrapped(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let listeners = vec![stdout.follow(child.stdout.take().unwrap()), stderr.follow(child.stderr.take().unwrap())];
        // Every request comes over a connection of its own: one that is kept would not meet what new ones meet.
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
        let base = "http://127.0.0.1/".parse().unwrap();
        let mut relay = Relay { setting: self, child, base, client, stdout, stderr, listeners };
        until("it listens", async || relay.told_address().is_some() || relay.has_ended()).await;
        relay.base = relay.told_address().unwrap_or_else(|| panic!("it does not start: {}", relay.log()));
        if let Some(front) = &relay.setting.front {
            let address = relay.base.socket_addrs(|| None).unwrap()[0];
            front.lead_to(watch::channel(Some(address)).1);
            relay.base = front.url().parse().unwrap();
        }
        twilio.set_inbound_url(relay.base.join("webhooks/twilio/incoming").unwrap().as_str());
        relay
    }
}

/// A service that runs; killed when dropped.
pub(crate) struct Relay {
    pub(crate) setting: Setting,
    pub(crate) base: Url,
    client: reqwest::Client,
    child: Child,
    stdout: Stream,
    stderr: Stream,
    listeners: Vec<JoinHandle<()>>,
}

/// All that was written to a stream, line by line, each with its end: to the last byte, whatever it may be.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<Vec<u8>>>>);

impl Stream {
    fn follow(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let heard = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).unwrap() > 0 {
                heard.lock().push(std::mem::take(&mut line));
            }
        })
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().concat()
    }

    fn lines_with(&self, words: &str) -> usize {
        self.0.lock().iter().filter(|line| String::from_utf8_lossy(line).contains(words)).count()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Relay {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its log.
    pub(crate) fn log(&self) -> String {
        text(&self.stderr.bytes())
    }

    /// Every byte that it wrote to standard output and to standard error.
    pub(crate) fn wrote(&self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes(), self.stderr.bytes())
    }

    /// How many log lines hold these words.
    pub(crate) fn logged(&self, words: &str) -> usize {
        self.stderr.lines_with(words)
    }

    fn told_address(&self) -> Option<Url> {
        const ADDRESS: &str = "http://127.0.0.1:";
        let log = self.log();
        let line = log.lines().find(|line| line.contains("listening") && line.contains(ADDRESS))?;
        let (_, port) = line.split_once(ADDRESS)?;
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        format!("{ADDRESS}{port}/").parse().ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).map_or(true, |stat| stat.contains(") Z "))
    }

    fn proc_number(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
    }

    /// Its memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.proc_number("VmRSS")
    }

    /// How long it has computed.
    pub(crate) fn computed(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // Linux counts a hundred to the second for everybody who asks.
        Duration::from_millis(ticks * 10)
    }

    /// How many file descriptors it holds.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {signal}");
    }

    /// Waits for its end, and for its last line.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        for listener in self.listeners.drain(..) {
            listener.join().unwrap();
        }
        status
    }

    /// Asks it to end, and sees that it does so in order.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        let status = self.ended();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.ended();
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer ({error}): {}", self.log()))
    }

    pub(crate) async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }

    /// A request without any credentials.
    pub(crate) fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.base.join(path).unwrap())
    }

    /// A request with a key.
    pub(crate) fn request(&self, method: Method, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.bare(method, path).bearer_auth(key)
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.send(self.request(Method::GET, path, key)).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, key).json(body)).await
    }

    /// The student agrees that a counsellor may be told over WhatsApp.
    pub(crate) async fn consents(&self, user_id: &str) {
        let path = format!("/api/v1/messaging/preferences/{user_id}");
        let body = json!({ "whatsapp": true, "source": "trouble" });
        self.send(self.request(Method::PUT, &path, SERVICE).json(&body)).await.expect(200);
    }

    /// An event of a student, under a key made of the student's id: repeated, it is the same event.
    pub(crate) async fn event(&self, user_id: &str) -> Answer {
        let body = json!({ "user_id": user_id, "crisis_score": 0.93, "source": "chat" });
        let request = self.request(Method::POST, "/api/v1/crisis/events", SERVICE).json(&body);
        self.send(request.header("Idempotency-Key", format!("key-{user_id}"))).await
    }

    /// A student who has agreed, and an event that was taken. Gives the case's reference.
    pub(crate) async fn escalated(&self, user_id: &str) -> String {
        self.consents(user_id).await;
        self.event(user_id).await.expect(202).reference()
    }

    /// Whether it calls itself ready, and what it says of its parts.
    pub(crate) async fn readiness(&self) -> (bool, Value) {
        let answer = self.get("/readyz", "").await;
        (answer.status == 200, answer.json()["checks"].clone())
    }

    pub(crate) async fn until_ready(&self) {
        until("it is ready again, without a hand", async || self.readiness().await.0).await;
    }

    /// Waits until the phone has got a message of each of these cases, and gives how many each got.
    pub(crate) async fn all_told(&self, twilio: &SimulatorHandle, references: &[String]) -> Vec<usize> {
        let of = |reference: &String| on_the_phone(twilio, reference).len();
        until("every accepted event is on the phone", async || references.iter().all(|reference| of(reference) > 0))
            .await;
        references.iter().map(of).collect()
    }

    /// Fails unless `audit verify` proves every chain.
    #[track_caller]
    pub(crate) fn audit_verifies(&self) {
        let output = self.setting.command(&["audit", "verify"]).output().unwrap();
        assert!(output.status.success(), "audit verify: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

/// What the counsellor's phone shows of a case.
pub(crate) fn on_the_phone(twilio: &SimulatorHandle, reference: &str) -> Vec<SimMessage> {
    let mut messages = twilio.messages_to(COUNSELLOR);
    messages.retain(|message| message.body.contains(reference));
    messages
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
