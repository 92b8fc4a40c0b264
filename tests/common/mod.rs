//! A whole world for a story: the service over real HTTP, the Twilio simulator over real HTTP, a database in a folder of
//! its own, and a clock that stands still until the story moves it. Nothing in here sleeps.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "each test binary uses a part of it; a test that cannot go on shall say where"
)]

#[macro_use]
mod delegated;

pub mod described;
pub mod gate;
pub mod stage;
pub mod turnstile;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::alarm::Alarms;
use crisis_relay::app::{self, Adapters, App, Provider, SimulatorAccess, StartError};
use crisis_relay::clock::{ManualClock, SeededEntropy, SystemEntropy};
use crisis_relay::config::{Config, ConfigFile, Sources};
use crisis_relay::domain::audit::AuditStream;
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::http::{ServeSettings, serve};
use crisis_relay::ports::{Clock, Store};
use crisis_relay::service::Service;
use crisis_relay::service::dispatch::Jobs;
use crisis_relay::simulator::{CallbackMode, SimMessage, Simulator, SimulatorConfig, SimulatorHandle};
use crisis_relay::store::sqlite::{OpenError, SqliteStore};
use crisis_relay::watchman::Watchman;
use crisis_relay::worker::Worker;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::stage::ServiceClock;

/// When every story begins.
pub const START: &str = "2026-11-20T08:35:00Z";
/// The phone of the configured counsellor.
pub const COUNSELLOR: &str = "+919800000017";

/// API keys by role.
pub const SERVICE: &str = "story-service-key-0001";
pub const COUNSELLOR_KEY: &str = "story-counsellor-key-1";
pub const ADMIN: &str = "story-admin-key-000001";
pub const AUDITOR: &str = "story-auditor-key-0001";

/// The secret that people's tokens are signed with, where a story has people.
pub const JWT_SECRET: &str = "a secret for stories, of 32 bytes and more";

/// A person's token: valid for an hour from the story's beginning.
pub fn token(subject: &str, role: &str) -> String {
    let start = START.parse::<Timestamp>().unwrap().as_second();
    signed(&json!({
        "iss": "crisis-relay", "aud": "crisis-relay", "sub": subject, "role": role, "iat": start, "exp": start + 3600,
    }))
}

/// A token with these claims, signed as a story's identity provider does.
pub fn signed(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), claims, &key).unwrap()
}

/// A configuration file's entry for one more API key.
pub fn key_entry(id: &str, role: &str, key: &str, further: &str) -> String {
    let sha256 = ApiKeyHash::of(key);
    format!("[[auth.api_keys]]\nid = \"{id}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n{further}\n")
}

/// A configuration file's entry for one more person: `field` is `whatsapp_to` or `sms_to`.
pub fn contact_entry(id: &str, role: &str, field: &str, number: &str) -> String {
    format!("[[contacts]]\nid = \"{id}\"\nrole = \"{role}\"\n{field} = \"{number}\"\n")
}

type WrapStore = Box<dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync>;

/// How a world is made.
pub struct Setting {
    environment: BTreeMap<String, String>,
    file: Option<String>,
    wrap_store: WrapStore,
    recovers: bool,
    in_life: bool,
}

impl Default for Setting {
    fn default() -> Self {
        let mut environment = BTreeMap::from(
            [
                ("CRISIS_RELAY_MODE", "development"),
                ("HTTP_BIND", "127.0.0.1:0"),
                ("COUNSELLOR_WHATSAPP_TO", COUNSELLOR),
                // Real time passes only in network calls; stories that let one time out should not take long.
                ("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "200ms"),
                ("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "500ms"),
                ("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "1000"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        for (role, key) in
            [("SERVICE", SERVICE), ("COUNSELLOR", COUNSELLOR_KEY), ("ADMIN", ADMIN), ("AUDITOR", AUDITOR)]
        {
            environment.insert(format!("API_KEY_{role}_SHA256"), ApiKeyHash::of(key).to_string());
        }
        Self { environment, file: None, wrap_store: Box::new(|store| store), recovers: true, in_life: false }
    }
}

impl Setting {
    /// Sets an environment variable of the service's configuration.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// People sign in with tokens; see [`token`].
    pub fn with_people(self) -> Self {
        self.with("JWT_SECRET", JWT_SECRET)
    }

    /// Gives the configuration a file: TOML.
    pub fn with_file(mut self, text: &str) -> Self {
        self.file = Some(text.to_owned());
        self
    }

    /// Puts something between the service and its store: to fail, to stop, to count.
    pub fn with_store(mut self, wrap: impl Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync + 'static) -> Self {
        self.wrap_store = Box::new(wrap);
        self
    }

    /// Twilio is called as in life: with an account, so that the service takes its messages to reach phones; and WhatsApp takes
    /// free text only from whoever was written to within 24 hours.
    pub fn in_life(mut self) -> Self {
        self.in_life = true;
        let SimulatorConfig { account_sid, auth_token, .. } = SimulatorConfig::default();
        let sender = "+14155238886";
        for (name, value) in [
            ("TWILIO_ACCOUNT_SID", account_sid.as_str()),
            ("TWILIO_AUTH_TOKEN", auth_token.expose()),
            ("TWILIO_WHATSAPP_FROM", sender),
            ("TWILIO_SMS_FROM", sender),
        ] {
            self = self.with(name, value);
        }
        self
    }

    /// Leaves the recovery at a start to the story.
    pub fn without_recovery(mut self) -> Self {
        self.recovers = false;
        self
    }

    /// Makes the world.
    pub async fn start(self) -> World {
        let clock = ManualClock::new(START.parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let (callbacks, whatsapp_window) = (CallbackMode::Manual, self.in_life);
        let simulator = SimulatorConfig { callbacks, whatsapp_window, ..SimulatorConfig::default() };
        let access_of = |url: &str| SimulatorAccess {
            url: url.parse().unwrap(),
            account_sid: simulator.account_sid.clone(),
            auth_token: simulator.auth_token.clone(),
        };
        let bind = SimulatorConfig { bind: "127.0.0.1:0".parse().unwrap(), ..simulator.clone() };
        let simulator = Simulator::start(bind, Arc::new(clock.clone()), Arc::new(SeededEntropy::new(7))).await.unwrap();
        let access = access_of(&simulator.url());
        let running = Running::start(&self, &clock, folder.path(), &access, &simulator.handle()).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        World { setting: self, clock, folder, simulator, access, client, running }
    }
}

/// The service's part of a world: what dies in a crash.
struct Running {
    base: Url,
    service: Arc<Service>,
    /// The application, for requests that no HTTP client would make.
    router: axum::Router,
    worker: Arc<Worker>,
    alarms: Arc<Alarms>,
    watchman: Arc<Watchman>,
    /// `None` while the worker runs by itself.
    jobs: Option<Jobs>,
    store: Arc<dyn Store>,
    clock: ServiceClock,
    config: Config,
    provider: Provider,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(
        setting: &Setting,
        clock: &ManualClock,
        folder: &Path,
        access: &SimulatorAccess,
        simulator: &SimulatorHandle,
    ) -> Result<Self, StartError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        simulator.set_inbound_url(&format!("{base}webhooks/twilio/incoming"));
        let mut environment = setting.environment.clone();
        environment.insert("DATABASE_PATH".into(), folder.join("relay.db").display().to_string());
        let key = folder.join("master.key").display().to_string();
        environment.insert("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH".into(), key);
        if setting.in_life {
            environment.insert("TWILIO_API_BASE_URL".into(), access.url.to_string());
        }
        let file = setting.file.clone().map(|text| ConfigFile { name: "story.toml".to_owned(), text });
        let sources = Sources { file, environment, read_file: &|path| std::fs::read_to_string(path) };
        let mut config = Config::load(&sources).unwrap_or_else(|faults| panic!("the story's configuration: {faults}"));
        config.http.bind = listener.local_addr().unwrap();
        let provider = app::provider(&config, Some(access));
        let clock = ServiceClock::new(clock);
        let sqlite = open_once_free(&config).await;
        let store = (setting.wrap_store)(Arc::new(sqlite));
        let App { service, worker, jobs, router, alarms, watchman, .. } =
            assemble(&config, &provider, &clock, &store).await?;
        if setting.recovers {
            worker.recover().await;
        }
        let shutdown = CancellationToken::new();
        let settings = ServeSettings { shutdown_grace: Duration::ZERO, ..ServeSettings::default() };
        let token = shutdown.clone();
        let served = router.clone();
        let serving = tokio::spawn(async move {
            serve(listener, served, &settings, token).await;
        });
        let jobs = Some(jobs);
        Ok(Self {
            base,
            service,
            router,
            worker,
            alarms,
            watchman,
            jobs,
            store,
            clock,
            config,
            provider,
            shutdown,
            serving,
        })
    }

    /// Ends without finishing anything: no draining, no closing. What is not durable is gone.
    async fn die(self) {
        self.shutdown.cancel();
        let _ = self.serving.await;
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Puts a service together over a store.
async fn assemble(
    config: &Config,
    provider: &Provider,
    clock: &ServiceClock,
    store: &Arc<dyn Store>,
) -> Result<App, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    // Keys must differ between worlds, so they are drawn as in life.
    let entropy = Arc::new(SystemEntropy);
    let adapters = Adapters {
        store: Arc::clone(store),
        keyring: Arc::new(app::open_keyring(config, entropy.clone()).unwrap()),
        twilio: Arc::new(app::rest_client(provider, Arc::clone(&clock)).unwrap()),
        clock,
        entropy,
    };
    app::assemble(config, provider, adapters).await
}

/// Opens the database. What a service that died a moment ago had handed to its writer may still be on the way to the
/// disk, and the file is not free before.
async fn open_once_free(config: &Config) -> SqliteStore {
    for _ in 0..1_000 {
        match SqliteStore::open(&app::sqlite_settings(config)) {
            Err(OpenError::InUse) => tokio::time::sleep(Duration::from_millis(2)).await,
            opened => return opened.expect("the story's database opens"),
        }
    }
    panic!("a service that died holds its database still");
}

/// A service, a Twilio, a database and a clock.
pub struct World {
    setting: Setting,
    pub clock: ManualClock,
    pub folder: TempDir,
    pub simulator: Simulator,
    access: SimulatorAccess,
    client: reqwest::Client,
    running: Running,
}

/// What is kept; see [`World::kept`].
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    pub stats: String,
    pub chains: Vec<(String, String)>,
    pub alerts: Vec<(String, u64)>,
    pub answers: i64,
    pub messages: usize,
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The answer as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A text in the JSON, by pointer.
    pub fn text_at(&self, pointer: &str) -> String {
        let json = self.json();
        let text = json.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        text.unwrap_or_else(|| panic!("no text at {pointer}: {json}"))
    }

    /// Fails the story unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected status: {self:?}");
        self
    }
}

impl World {
    /// A world as it usually is.
    pub async fn new() -> Self {
        Setting::default().start().await
    }

    pub fn sim(&self) -> SimulatorHandle {
        self.simulator.handle()
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.running.store)
    }

    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.running.service)
    }

    /// The application itself, past any HTTP client and server.
    pub fn router(&self) -> axum::Router {
        self.running.router.clone()
    }

    pub fn worker(&self) -> Arc<Worker> {
        Arc::clone(&self.running.worker)
    }

    pub fn base(&self) -> &Url {
        &self.running.base
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("relay.db")
    }

    /// The service dies where it stands, and starts anew on the same database and the same Twilio.
    pub async fn crash(self) -> Self {
        let Self { setting, clock, folder, simulator, access, client, running } = self;
        running.die().await;
        let running = Running::start(&setting, &clock, folder.path(), &access, &simulator.handle()).await.unwrap();
        Self { setting, clock, folder, simulator, access, client, running }
    }

    /// Sets a variable of the configuration, for the next start.
    pub fn reconfigure(&mut self, name: &str, value: &str) {
        self.setting.environment.insert(name.to_owned(), value.to_owned());
    }

    /// The service ends, and is started anew; says why if it does not start.
    pub async fn try_restart(self) -> Result<Self, String> {
        let Self { setting, clock, folder, simulator, access, client, running } = self;
        running.die().await;
        match Running::start(&setting, &clock, folder.path(), &access, &simulator.handle()).await {
            Ok(running) => Ok(Self { setting, clock, folder, simulator, access, client, running }),
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn alarms_of(&self) -> Arc<Alarms> {
        Arc::clone(&self.running.alarms)
    }

    /// The watchman looks once.
    pub async fn look(&self) {
        self.running.watchman.look().await;
    }

    /// What the operator is to be told, is told, as far as their targets take it now.
    pub async fn tell_operator(&self) {
        self.running.alarms.tick();
        self.running.alarms.flush().await;
    }

    /// Does all that is there to do now. Where work in hand sleeps for a moment (its turn at the sender's pace, a store
    /// that fails), the clock is moved on to the end of that moment.
    pub async fn work(&mut self) {
        let Running { worker, jobs, clock, .. } = &mut self.running;
        let jobs = jobs.as_mut().expect("the worker does not run by itself");
        clock.moving_on(worker.drain(jobs)).await;
    }

    /// Moves the clock, and does what has become due.
    pub async fn pass(&mut self, by: Duration) {
        self.clock.advance(by);
        self.work().await;
    }

    /// Moves the clock step by step, and does at each what has become due: as time passes in life.
    pub async fn pass_in_steps(&mut self, by: Duration, step: Duration) {
        let mut left = by;
        while !left.is_zero() {
            let now = step.min(left);
            self.pass(now).await;
            left -= now;
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Every message moves on by one status, and its callback is posted.
    pub async fn receipts(&mut self) -> Vec<u16> {
        let statuses = self.sim().step_all().await;
        self.work().await;
        statuses
    }

    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.client.request(method, self.running.base.join(path).unwrap());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    pub async fn get(&self, path: &str, key: &str) -> Answer {
        self.request(reqwest::Method::GET, path, Some(key), None).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.request(reqwest::Method::POST, path, Some(key), Some(body)).await
    }

    /// Posts an event as a backend does.
    pub async fn event(&self, body: &Value) -> Answer {
        self.post("/api/v1/crisis/events", SERVICE, body).await
    }

    /// Posts an event with an idempotency key.
    pub async fn event_with_key(&self, body: &Value, key: &str) -> Answer {
        let url = self.running.base.join("/api/v1/crisis/events").unwrap();
        answer(self.client.post(url).bearer_auth(SERVICE).header("Idempotency-Key", key).json(body)).await
    }

    /// The student agrees that a counsellor may be told over WhatsApp.
    pub async fn consents(&self, user_id: &str) {
        let mut url = self.running.base.join("/api/v1/messaging/preferences").unwrap();
        url.path_segments_mut().unwrap().push(user_id);
        let body = json!({ "whatsapp": true, "source": "story" });
        self.request(reqwest::Method::PUT, url.path(), Some(SERVICE), Some(&body)).await.expect(200);
    }

    /// A student who has agreed, and a score of 0.93: escalated, and not yet worked on.
    pub async fn escalated(&self, user_id: &str) -> Answer {
        self.consents(user_id).await;
        let answer =
            self.event(&json!({ "user_id": user_id, "crisis_score": 0.93, "source": "chat" })).await.expect(202);
        assert_eq!(answer.text_at("/decision"), "escalated");
        answer
    }

    /// An alert as the API shows it.
    pub async fn alert(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/crisis/alerts/{id}"), COUNSELLOR_KEY).await.expect(200).json()
    }

    /// Everything that is kept, in short: equal before and after what must change nothing.
    pub async fn kept(&self) -> Kept {
        let store = self.store();
        let stats = store.stats().await.unwrap();
        let mut chains = Vec::new();
        for stream in self.chains().await {
            let head = store.audit_head(&stream).await.unwrap();
            chains.push((stream.to_string(), head.hash.to_string()));
        }
        let alerts = store.list_alerts(&"default".parse().unwrap(), None, None, 10_000).await.unwrap();
        let alerts = alerts.into_iter().map(|alert| (alert.id.to_string(), alert.version)).collect();
        let answers = self.query("SELECT count(*) FROM answers");
        Kept { stats: format!("{stats:?}"), chains, alerts, answers, messages: self.sim().requests().len() }
    }

    /// Every chain of the audit.
    pub async fn chains(&self) -> Vec<AuditStream> {
        let stretch = self.store().audit_walk(None, 100_000).await.unwrap();
        assert!(stretch.next.is_none(), "a story has few entries");
        let mut chains: Vec<AuditStream> = stretch.entries.into_iter().map(|entry| entry.stream).collect();
        chains.dedup();
        chains
    }

    /// A number out of the database, past the store.
    pub fn query(&self, sql: &str) -> i64 {
        let connection = rusqlite::Connection::open(self.database()).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// What `/metrics` says under this name (with its labels, as in the text); `None` if nothing.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.request(reqwest::Method::GET, "/metrics", None, None).await.expect(200).text;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The phone of the counsellor got one message about this case, and it is this one.
    #[track_caller]
    pub fn expect_told(&self, reference: &str) -> SimMessage {
        self.sim().expect_message(COUNSELLOR, |message| message.body.contains(reference)).unwrap()
    }

    /// Fails the story if a chain of the audit does not verify.
    pub async fn assert_audit_verifies(&self) {
        let organisations = ["default".parse().unwrap()];
        let store = self.store();
        let found = crisis_relay::service::verification::verify_all(store.as_ref(), &organisations).await.unwrap();
        assert!(found.faults.is_empty(), "the audit does not verify: {:?}", found.faults);
    }

    /// Fails the story if an open alert has nothing due.
    pub async fn assert_nothing_is_silent(&self) {
        use crisis_relay::domain::alert::AlertState;
        let store = self.store();
        let alerts = store.list_alerts(&"default".parse().unwrap(), None, None, 10_000).await.unwrap();
        for alert in alerts {
            let waits = matches!(alert.state, AlertState::Escalating { .. } | AlertState::Acknowledged { .. });
            assert!(
                !waits || alert.next_action_at().is_some(),
                "alert {} ends in silence: {:?}",
                alert.id,
                alert.state
            );
        }
    }
}

/// Sends a request, reads the whole answer, and holds it against the API's description.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("the story's request can be made");
    let (method, path) = (request.method().to_string(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("the service answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("the answer can be read");
    let answer = Answer { status, headers, text };
    described::check(&method, &path, &answer);
    answer
}
