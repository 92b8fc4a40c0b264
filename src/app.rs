//! The composition root: turns a configuration into a running service. The only room that names concrete adapters.

mod composer;
mod descriptors;
mod rota;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::composer::OrganisationComposer;
pub use self::rota::{RotaFindings, rota_findings};
use crate::alarm::board::Rules as BoardRules;
use crate::alarm::provider::ProviderRules;
use crate::alarm::render::{NamingKey, Source};
use crate::alarm::{AlarmSettings, Alarms, Phones, Target as AlarmTarget};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config, Mode, StoreKind};
use crate::domain::alert::Rules;
use crate::domain::contact::{Channel, ContactRole, Directory, PhoneNumber};
use crate::domain::delivery::DeliveryRules;
use crate::domain::event::Score;
use crate::domain::message::{TemplateSet, Texts};
use crate::domain::policy::{DefaultLadder, Policy, Step, Target};
use crate::domain::roster::CONFIGURED;
use crate::health::Health;
use crate::http::auth::{
    ApiKeyHash, ApiKeyRecord, ApiKeys, Authenticator, JwksSettings, JwtKeySource, JwtSettings, Role, SharedSecret,
};
use crate::http::manners::MannersSettings;
use crate::http::rate_limit::{Limit, RateLimiter, RateLimits};
use crate::http::state::{AppState, RequestLimits, WebhookTrust};
use crate::http::{ServeSettings, application, serve};
use crate::keyring::{LocalKeyring, MasterKeys};
use crate::metrics::Metrics;
use crate::ports::transfer::{COPYING, MOVED_TO, Transfer};
use crate::ports::{Clock, Entropy, Fault, HashPurpose, Keyring, Store, TwilioClient, random};
use crate::secret::Secret;
use crate::service::codes::{CodeTexts, WhatsappCode};
use crate::service::dispatch::{Dispatch, Jobs};
use crate::service::drills::DailyDrills;
use crate::service::people::{ConfiguredContact, address_key, enrol};
use crate::service::{Organisation, Service, ServiceError, Settings};
use crate::simulator::{CallbackMode, Simulator, SimulatorConfig};
use crate::store::firestore::{self, FirestoreSettings, FirestoreStore};
use crate::store::sqlite::{OpenError, SqliteSettings, SqliteStore};
use crate::twilio::breaker::{Breaker, BreakerLimits};
use crate::twilio::error_codes;
use crate::twilio::pace::Pace;
use crate::twilio::rest::{Credentials, RestClient, RestConfig, SmsSender};
use crate::watchman::{Heartbeat, WatchRules, Watchman};
use crate::worker::{Courier, Paces, Worker, WorkerSettings};

/// Whom the simulator's messages go to where no counsellor is configured: development only, and no real phone.
const SIMULATED_COUNSELLOR: &str = "+919876543210";

/// Why the service cannot start. Every fault that could be found, together.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The set-up is at fault.
    #[error("{}", listed(.0))]
    Faults(Vec<Fault>),
    /// The database cannot be used.
    #[error("store.path: {0}")]
    Store(#[from] OpenError),
    /// Firestore cannot be used.
    #[error("store.firestore: {0}")]
    Firestore(#[from] firestore::OpenError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The stored contacts cannot be read or written.
    #[error("the store fails at start: {0}")]
    Service(#[from] crate::service::ServiceError),
}

fn listed(faults: &[Fault]) -> String {
    let line = |fault: &Fault| format!("{}: {}\n    {}", fault.subject, fault.problem, fault.remedy);
    faults.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn fault(subject: &str, problem: impl ToString, remedy: &str) -> Fault {
    Fault { subject: subject.to_owned(), problem: problem.to_string(), remedy: remedy.to_owned() }
}

/// The provider that the service talks to: the real one, or a simulator.
#[derive(Debug, Clone)]
pub struct Provider {
    /// How it is called.
    pub rest: RestConfig,
    /// What its webhooks are checked against.
    pub trust: WebhookTrust,
    /// Whether it is a simulator, whose messages reach no phone.
    pub simulated: bool,
}

/// The adapters that a service is assembled from.
pub struct Adapters {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// The master keys.
    pub keyring: Arc<dyn Keyring>,
    /// The provider's client.
    pub twilio: Arc<dyn TwilioClient>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// A service, assembled and not yet running.
pub struct App {
    /// The use cases.
    pub service: Arc<Service>,
    /// The worker, to be run or drained.
    pub worker: Arc<Worker>,
    /// What the worker takes its jobs from.
    pub jobs: Jobs,
    /// The HTTP application.
    pub router: Router,
    /// The store, to be closed at the end.
    pub store: Arc<dyn Store>,
    /// Knows how much is in hand.
    pub dispatch: Dispatch,
    /// What the operator must hear of.
    pub alarms: Arc<Alarms>,
    /// Looks whether work is being done.
    pub watchman: Arc<Watchman>,
}

/// Reads the master keys, or in development makes one.
///
/// # Errors
/// Keys that contradict each other, or a file that cannot be used.
pub fn open_keyring(config: &Config, entropy: Arc<dyn Entropy>) -> Result<LocalKeyring, StartError> {
    let settings = &config.keyring;
    let masters = match &settings.master_key {
        Some(current) => MasterKeys::from_text(&keyring_text(current, &settings.former_master_keys)),
        None => development_keys(&settings.development_key_path, entropy.as_ref()),
    };
    let masters = masters.map_err(|error| {
        StartError::Faults(vec![fault("keyring.master_key", error, "Give the key that the database was begun with.")])
    })?;
    Ok(LocalKeyring::new(masters, entropy))
}

/// The keyring's own form: with former keys, the one listed last was the first of all, and keyed hashes stay with it.
fn keyring_text(current: &config::MasterKey, former: &[config::MasterKey]) -> String {
    let base64 = |key: &config::MasterKey| data_encoding::BASE64.encode(key.expose());
    let Some(first) = former.last() else { return base64(current) };
    let former: String = former.iter().map(|key| format!("former:{}\n", base64(key))).collect();
    format!("current:{}\n{former}index:{}\n", base64(current), base64(first))
}

fn development_keys(path: &Path, entropy: &dyn Entropy) -> Result<MasterKeys, crate::keyring::MasterKeyError> {
    if path.exists() {
        return MasterKeys::from_file(path);
    }
    if let Some(folder) = path.parent() {
        // If it cannot be made, making the file says why.
        let _ = std::fs::create_dir_all(folder);
    }
    MasterKeys::create_file(path, entropy)
}

/// How the store's file is used.
pub fn sqlite_settings(config: &Config) -> SqliteSettings {
    SqliteSettings {
        path: config.store.path.clone(),
        readers: config.store.readers,
        group_commit_max: config.store.group_commit_max,
        write_queue_max: config.store.write_queue_max,
        busy_timeout: config.store.busy_timeout,
    }
}

/// Which Firestore database is used, and how.
pub fn firestore_settings(config: &Config) -> FirestoreSettings {
    let store = &config.store.firestore;
    FirestoreSettings {
        // The configuration sees to it that it is there where it is used.
        project_id: store.project_id.clone().unwrap_or_default(),
        database_id: store.database_id.clone(),
        emulator_host: store.emulator_host.clone(),
        connect_timeout: store.connect_timeout,
        read_timeout: store.read_timeout,
        commit_timeout: store.commit_timeout,
        answers_kept: config.idempotency.keep,
    }
}

/// How long a command that reads everything waits for an answer at the least: nobody's alert waits for it, and it asks for pages
/// that a busy database, or the emulator, is long about.
const READ_TIMEOUT_OF_COMMANDS: Duration = Duration::from_secs(60);

/// The same for commands that read, and for the one that copies.
pub fn firestore_settings_to_read(config: &Config) -> FirestoreSettings {
    let settings = firestore_settings(config);
    FirestoreSettings { read_timeout: settings.read_timeout.max(READ_TIMEOUT_OF_COMMANDS), ..settings }
}

/// The configured store, to work on.
///
/// # Errors
/// It cannot be opened; or it was moved elsewhere, or is an unfinished copy.
pub async fn open_store(config: &Config, entropy: Arc<dyn Entropy>) -> Result<Arc<dyn Store>, StartError> {
    Ok(match config.store.kind {
        StoreKind::Sqlite => {
            let store = SqliteStore::open(&sqlite_settings(config))?;
            refuse_moved(&store).await?;
            Arc::new(store)
        }
        StoreKind::Firestore => {
            let store = FirestoreStore::open(&firestore_settings(config), entropy).await?;
            refuse_moved(&store).await?;
            Arc::new(store)
        }
    })
}

async fn refuse_moved(store: &dyn Transfer) -> Result<(), StartError> {
    let faults = moved_faults(store).await.map_err(ServiceError::from)?;
    if faults.is_empty() { Ok(()) } else { Err(StartError::Faults(faults)) }
}

/// Why a store must not be served: one that was moved has a second life elsewhere, and one that is not wholly copied lacks
/// alerts.
///
/// # Errors
/// The store cannot be read.
pub async fn moved_faults(store: &dyn Transfer) -> Result<Vec<Fault>, crate::ports::StoreError> {
    let mut faults = Vec::new();
    if store.read_mark(COPYING).await?.is_some() {
        let problem = "holds a copy that was not finished";
        let remedy = "Run crisis-relay copy again as before; it goes on. If its source was served since, take an empty \
                      destination instead.";
        faults.push(fault("store", problem, remedy));
    }
    if let Some(elsewhere) = store.read_mark(MOVED_TO).await? {
        let problem = format!("was moved to {elsewhere}: served here as well, everybody would be told twice");
        let remedy = "Name that store in the settings, as docs/moving.md says.";
        faults.push(fault("store", problem, remedy));
    }
    Ok(faults)
}

/// The configured store, to read what others may be working on.
///
/// # Errors
/// It cannot be opened; or it was begun with another organisation, of which this configuration would see nothing, and
/// which would pass for an empty one.
pub async fn open_store_to_read(config: &Config, entropy: Arc<dyn Entropy>) -> Result<Arc<dyn Store>, StartError> {
    Ok(match config.store.kind {
        StoreKind::Sqlite => {
            let store = SqliteStore::open_to_read(&sqlite_settings(config))?;
            refuse_other_organisation(config, async |name| store.fact(name).await).await?;
            Arc::new(store)
        }
        StoreKind::Firestore => {
            let store = FirestoreStore::open(&firestore_settings_to_read(config), entropy).await?;
            refuse_other_organisation(config, async |name| store.fact(name).await).await?;
            Arc::new(store)
        }
    })
}

async fn refuse_other_organisation(
    config: &Config,
    fact: impl AsyncFn(&'static str) -> Result<Option<String>, crate::ports::StoreError>,
) -> Result<(), StartError> {
    let faults = origin_faults(config, fact, None).await.map_err(ServiceError::from)?;
    if faults.is_empty() { Ok(()) } else { Err(StartError::Faults(faults)) }
}

/// What the configured store is called, for a person.
pub fn store_name(config: &Config) -> String {
    match config.store.kind {
        StoreKind::Sqlite => config.store.path.display().to_string(),
        StoreKind::Firestore => {
            let FirestoreSettings { project_id, database_id, emulator_host, .. } = firestore_settings(config);
            let emulator = emulator_host.map(|host| format!(" in the emulator at {host}")).unwrap_or_default();
            format!("Firestore database {database_id} of project {project_id}{emulator}")
        }
    }
}

/// The texts: the built-in ones, or those of a directory.
///
/// # Errors
/// Every fault of every file.
pub fn load_templates(config: &Config) -> Result<TemplateSet, StartError> {
    let Some(folder) = &config.templates.dir else { return Ok(TemplateSet::builtin()) };
    let unreadable = |error: std::io::Error| {
        StartError::Faults(vec![fault("templates.dir", error, "Name a directory with one TOML file a language.")])
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push((path.display().to_string(), std::fs::read_to_string(&path).map_err(unreadable)?));
        }
    }
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    TemplateSet::parse(&borrowed).map_err(|faults| {
        let tell =
            |found: &crate::domain::message::TemplateFault| fault("templates.dir", found, "See docs/templates.md.");
        StartError::Faults(faults.iter().map(tell).collect())
    })
}

/// The texts, with the approved templates that go with them.
///
/// # Errors
/// Every fault of every file; or else, in production, every language that lacks its approved template.
pub fn texts(config: &Config) -> Result<Arc<Texts>, StartError> {
    let reaches_phones = config.twilio.credentials.is_some();
    let texts = config.texts(load_templates(config)?, reaches_phones);
    let faults: Vec<Fault> = match config.mode {
        Mode::Production => config::unapproved(config, &texts)
            .into_iter()
            .filter(|missing| missing.gravity() == config::Gravity::RefusesStart)
            .map(|missing| missing.fault())
            .collect(),
        Mode::Development => Vec::new(),
    };
    if faults.is_empty() { Ok(Arc::new(texts)) } else { Err(StartError::Faults(faults)) }
}

/// What a look at everything that goes into a message has found.
#[derive(Debug, Default)]
pub struct TextFindings {
    /// The languages that there are texts for.
    pub languages: String,
    /// Approved templates without which the service starts, and does not do all of its job.
    pub faults: Vec<Fault>,
    /// Approved templates without which something goes another way.
    pub notes: Vec<String>,
}

/// Checks everything that goes into a message.
///
/// # Errors
/// Every fault for which the start is refused: of the texts, or else of the values that go into them.
pub fn check_texts(config: &Config) -> Result<TextFindings, StartError> {
    let texts = texts(config)?;
    let languages: Vec<String> = texts.set().languages().map(|(language, _)| language.to_string()).collect();
    let mut found = TextFindings { languages: languages.join(", "), faults: Vec::new(), notes: Vec::new() };
    for missing in config::unapproved(config, &texts) {
        match (missing.gravity(), config.mode) {
            // Told with the configuration, which does not read a directory.
            (config::Gravity::RefusesStart, _) if config.templates.dir.is_none() => {}
            (config::Gravity::Fault, Mode::Production) => found.faults.push(missing.fault()),
            (config::Gravity::Fault, Mode::Development)
            | (config::Gravity::Note | config::Gravity::RefusesStart, _) => found.notes.push(missing.note()),
        }
    }
    OrganisationComposer::new(config, texts)?;
    Ok(found)
}

/// The provider of a configuration; `simulator` is the address of one that runs here, if one does.
pub fn provider(config: &Config, simulator: Option<&SimulatorAccess>) -> Provider {
    let twilio = &config.twilio;
    let own_address = || local_url(config.http.bind);
    let public_base = twilio.webhook_base_url.clone().unwrap_or_else(own_address);
    let (account_sid, auth_token, credentials, base_url) = match (&twilio.credentials, simulator) {
        (Some(real), _) => {
            let credentials = match &real.api_key {
                Some(key) => Credentials::ApiKey { sid: key.sid.as_str().to_owned(), secret: key.secret.clone() },
                None => Credentials::AuthToken(real.auth_token.clone()),
            };
            (real.account_sid.as_str().to_owned(), real.auth_token.clone(), credentials, twilio.api_base_url.clone())
        }
        (None, simulator) => {
            let defaults = SimulatorConfig::default();
            let token = simulator.map_or_else(|| defaults.auth_token.clone(), |access| access.auth_token.clone());
            let sid = simulator.map_or_else(|| defaults.account_sid.clone(), |access| access.account_sid.clone());
            let url = simulator.map_or_else(|| local_url(config.simulator.bind), |access| access.url.clone());
            (sid, token.clone(), Credentials::AuthToken(token), url)
        }
    };
    let simulated = twilio.credentials.is_none();
    let mut rest = RestConfig::new(account_sid.clone(), credentials);
    if simulated {
        rest.content_base_url = base_url.clone();
    }
    rest.base_url = base_url;
    rest.whatsapp_from = twilio.whatsapp_from.clone().or_else(|| simulated.then(sandbox_sender).flatten());
    rest.messaging_service_sid = twilio.messaging_service_sid.as_ref().map(|sid| sid.as_str().to_owned());
    let unset = simulated && rest.messaging_service_sid.is_none();
    let sms_from = twilio.sms_from.clone().or_else(|| unset.then(sandbox_sender).flatten());
    rest.sms_from = sms_from.map(SmsSender::Number);
    rest.voice_from = twilio.voice_from.clone().or_else(|| simulated.then(sandbox_sender).flatten());
    rest.ring_timeout = twilio.ring_timeout;
    rest.status_callback_base = Some(public_base.clone());
    rest.connect_timeout = twilio.connect_timeout;
    rest.request_timeout = twilio.request_timeout;
    rest.max_concurrency = twilio.max_concurrency;
    rest.pool_max_idle = twilio.max_concurrency;
    let trust = WebhookTrust { account_sid, auth_tokens: vec![auth_token], public_base, senders: senders(&rest) };
    Provider { rest, trust, simulated }
}

/// The numbers that replies come to; none where they are not all known, as when a messaging service chooses the sender.
fn senders(rest: &RestConfig) -> Vec<(Channel, PhoneNumber)> {
    let sms = match &rest.sms_from {
        _ if rest.messaging_service_sid.is_some() => return Vec::new(),
        Some(SmsSender::Name(_)) => return Vec::new(),
        Some(SmsSender::Number(number)) => Some((Channel::Sms, number.clone())),
        None => None,
    };
    let whatsapp = rest.whatsapp_from.clone().map(|number| (Channel::Whatsapp, number));
    whatsapp.into_iter().chain(sms).collect()
}

/// Twilio's WhatsApp sandbox number, which the simulator owns too, and sends text messages and calls from.
fn sandbox_sender() -> Option<PhoneNumber> {
    "+14155238886".parse().ok()
}

/// The address at which this machine reaches a service that listens on `bind`.
pub fn local_url(bind: std::net::SocketAddr) -> Url {
    let host = if bind.ip().is_unspecified() { "127.0.0.1".to_owned() } else { url_host(bind.ip()) };
    #[expect(clippy::expect_used, reason = "an address and a port make a URL")]
    Url::parse(&format!("http://{host}:{}", bind.port())).expect("an address and a port make a URL")
}

fn url_host(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// How a simulator that runs here is reached.
#[derive(Debug, Clone)]
pub struct SimulatorAccess {
    /// Its address.
    pub url: Url,
    /// Its account.
    pub account_sid: String,
    /// The account's token.
    pub auth_token: Secret,
}

/// Assembles a service.
///
/// # Errors
/// What stands against it, as far as it can be found without asking the network.
pub async fn assemble(config: &Config, provider: &Provider, adapters: Adapters) -> Result<App, StartError> {
    let Adapters { store, keyring, twilio, clock, entropy } = adapters;
    require_origin(config, store.as_ref(), keyring.as_ref()).await?;
    let organisation = organisation(config, provider, store.as_ref(), keyring.as_ref(), clock.as_ref()).await?;
    let authenticator = authenticator(config, Arc::clone(&clock))?;
    let metrics = Arc::new(Metrics::new());
    let (dispatch, jobs) = Dispatch::new(places(config, provider.rest.longest_call()));
    let settings = Settings {
        instance: data_encoding::HEXLOWER.encode(&random::<8>(entropy.as_ref())),
        lease: config.delivery.lease,
        rules: rules(config),
        phone_per_minute: config.delivery.phone_per_minute,
        marks: error_codes::mark_of,
    };
    let courier = Arc::new(Courier::new(
        Arc::clone(&twilio),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        paces(config),
        Breaker::new(breaker_limits(config)),
        provider.rest.max_concurrency,
    ));
    let watched = Arc::clone(&metrics);
    let naming = keyring.hash(HashPurpose::Alarm, &[config.organisation.id.as_str().as_bytes()]);
    let source = source(config, &settings.instance, NamingKey::from_bytes(naming));
    let alarms = alarms(config, source, &metrics, &clock, &entropy, &courier)?;
    let service = Arc::new(Service::new(
        Arc::clone(&store),
        keyring,
        Arc::clone(&clock),
        Arc::clone(&entropy),
        vec![organisation],
        settings,
        dispatch.clone(),
        metrics,
        Arc::clone(&alarms),
    ));
    service.load_rosters().await?;
    let worker = Worker::new(
        Arc::clone(&service),
        twilio,
        Arc::clone(&clock),
        dispatch.clone(),
        WorkerSettings {
            poll: config.worker.poll,
            due_batch: config.worker.due_batch,
            call_timeout: provider.rest.longest_call(),
            keep_answers: config.idempotency.keep,
            withheld_after: config.ops.withheld_after,
        },
        courier,
    );
    let (at, time_zone) = (config.drills.daily_at.clone(), config.organisation.time_zone.clone());
    let worker = Arc::new(worker.with_daily_drills(DailyDrills { at, time_zone }));
    let health = Health::new(Arc::clone(&store), Arc::clone(&worker), Arc::clone(&clock), config.worker.poll);
    let health = Arc::new(health);
    let watchman = Arc::new(Watchman::new(
        Arc::clone(&alarms),
        Arc::clone(&worker),
        Arc::clone(&health),
        Arc::clone(&clock),
        watched,
        WatchRules { late_after: config.ops.work_late_after },
        heartbeat(config)?,
    ));
    let state = AppState {
        service: Arc::clone(&service),
        authenticator: Arc::new(authenticator),
        limiter: Arc::new(RateLimiter::new(rate_limits(config))),
        limits: Arc::new(request_limits(config)),
        webhooks: Arc::new(provider.trust.clone()),
        health,
        worker: Arc::clone(&worker),
        watchman: Arc::clone(&watchman),
        alarms: Arc::clone(&alarms),
    };
    let manners = MannersSettings {
        request_timeout: config.http.request_timeout,
        body_length_max: config.http.body_limit_bytes,
        trusted_proxies: config.http.trusted_proxies,
    };
    let router = application(state, &manners, clock, entropy);
    Ok(App { service, worker, jobs, router, store, dispatch, alarms, watchman })
}

/// The operator's targets by themselves, without a service: to try whether notices arrive.
///
/// # Errors
/// A client cannot be made.
pub fn alarms_to_try(config: &Config, provider: &Provider) -> Result<Arc<Alarms>, StartError> {
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let (metrics, twilio) = (Arc::new(Metrics::new()), Arc::new(rest_client(provider, Arc::clone(&clock))?));
    let breaker = Breaker::new(breaker_limits(config));
    let calls = provider.rest.max_concurrency;
    let courier = Courier::new(twilio, Arc::clone(&clock), Arc::clone(&metrics), paces(config), breaker, calls);
    // A test is about nobody.
    let source = source(config, "check", NamingKey::from_bytes(random(entropy.as_ref())));
    alarms(config, source, &metrics, &clock, &entropy, &Arc::new(courier))
}

/// Who tells of alarms.
fn source(config: &Config, instance: &str, naming: NamingKey) -> Source {
    Source {
        name: config.ops.name.clone(),
        instance: instance.to_owned(),
        organisation: config.organisation.id.to_string(),
        naming,
    }
}

/// Whom alarms go to.
fn alarms(
    config: &Config,
    source: Source,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    courier: &Arc<Courier>,
) -> Result<Arc<Alarms>, StartError> {
    let ops = &config.ops;
    let slack = ops.slack_url.clone().map(AlarmTarget::Slack);
    let url = ops.pagerduty_url.to_string();
    let pagerduty = ops.pagerduty_key.clone().map(|routing_key| AlarmTarget::PagerDuty { url, routing_key });
    let settings = AlarmSettings {
        source,
        targets: slack.into_iter().chain(pagerduty).chain(phones(ops)).collect(),
        rules: BoardRules {
            repeat_every: ops.repeat_every,
            settle_for: ops.settle_for,
            conditions_max: ALARMS_KEPT_APART,
        },
        provider: ProviderRules {
            failures_in_a_row: ops.failures_in_a_row,
            window: ops.share_window,
            failure_share: ops.failure_share,
            receipts_missing_share: ops.receipts_missing_share,
            silent_in_a_row: ops.silent_in_a_row,
            share_of_at_least: ops.share_of_at_least,
        },
        timeout: ops.timeout,
    };
    let phones = Arc::clone(courier) as Arc<dyn Phones>;
    let made = Alarms::new(settings, phones, Arc::clone(metrics), Arc::clone(clock), Arc::clone(entropy));
    made.map(Arc::new).map_err(|_| no_client())
}

/// The library's own words could name an address that is a secret.
fn no_client() -> StartError {
    StartError::Faults(vec![fault(
        "ops",
        "the HTTP client cannot be made",
        "See what this machine lacks: certificates.",
    )])
}

fn heartbeat(config: &Config) -> Result<Option<Heartbeat>, StartError> {
    let ops = &config.ops;
    let Some(url) = ops.heartbeat_url.clone() else { return Ok(None) };
    let heartbeat = Heartbeat::new(url, ops.timeout, ops.heartbeat_every).map_err(|_| no_client())?;
    Ok(Some(heartbeat))
}

/// The phones that are told of alarms.
fn phones(ops: &config::Ops) -> impl Iterator<Item = AlarmTarget> {
    let template = ops.whatsapp_content_sid.as_ref().map(|sid| sid.as_str().to_owned());
    let over = |channel, numbers: &[PhoneNumber], template: Option<String>| {
        let every = ops.phone_every;
        let phone =
            move |number: PhoneNumber| AlarmTarget::Phone { channel, number, template: template.clone(), every };
        numbers.iter().cloned().map(phone).collect::<Vec<_>>()
    };
    over(Channel::Sms, &ops.sms_to, None).into_iter().chain(over(Channel::Whatsapp, &ops.whatsapp_to, template))
}

/// How many alarms are kept apart at the most; further ones are told of together.
const ALARMS_KEPT_APART: usize = 1_000;

/// What a database keeps of the set-up that it was begun with.
struct Origin {
    /// The fact's name in the store.
    name: &'static str,
    /// What it is in this set-up.
    present: String,
    /// What is wrong if the database has another one.
    otherwise: Fault,
}

/// Under another index key every student would be a stranger: consent would be missed, and open alerts not joined.
fn index_origin(keyring: &dyn Keyring) -> Origin {
    let otherwise = fault(
        "keyring.master_key",
        "is not the key that this database was begun with: no student in it would be recognised",
        "Give the key that the database was begun with. After a change of keys it must be the last one listed in \
         FORMER_MASTER_KEYS.",
    );
    Origin { name: "index_key_id", present: keyring.index_id().to_owned(), otherwise }
}

/// Under another organisation the open alerts would be nobody's, and silent.
fn organisation_origin(config: &Config) -> Origin {
    let otherwise = fault(
        "organisation.id",
        "is not the organisation that this database was begun with: its alerts would be nobody's",
        "Give the id that the database was begun with, or begin another database.",
    );
    Origin { name: "organisation_id", present: config.organisation.id.to_string(), otherwise }
}

/// Refuses a database that was begun with another set-up; a new one keeps this.
async fn require_origin(config: &Config, store: &dyn Store, keyring: &dyn Keyring) -> Result<(), StartError> {
    let mut faults = Vec::new();
    for Origin { name, present, otherwise } in [index_origin(keyring), organisation_origin(config)] {
        if store.keep_fact(name, &present).await.map_err(ServiceError::from)? != present {
            faults.push(otherwise);
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(StartError::Faults(faults)) }
}

/// What of this set-up is not what the database was begun with; `fact` reads what it keeps. Nothing is written; what the
/// database does not keep yet is no fault.
///
/// # Errors
/// The store cannot be read.
pub async fn origin_faults(
    config: &Config,
    fact: impl AsyncFn(&'static str) -> Result<Option<String>, crate::ports::StoreError>,
    keyring: Option<&dyn Keyring>,
) -> Result<Vec<Fault>, crate::ports::StoreError> {
    let mut faults = Vec::new();
    for Origin { name, present, otherwise } in
        keyring.map(index_origin).into_iter().chain([organisation_origin(config)])
    {
        if fact(name).await?.is_some_and(|kept| kept != present) {
            faults.push(otherwise);
        }
    }
    Ok(faults)
}

/// How many deliveries may be in hand: no more than the sender's pace brings out within half of what a lease leaves
/// beside the longest call, so that none waits in here until a call could outlast its lease.
fn places(config: &Config, longest_call: Duration) -> usize {
    let patience = config.delivery.lease.saturating_sub(longest_call).as_secs_f64() / 2.0;
    let within_lease = share(config, config.twilio.whatsapp_per_second) * patience;
    // Small and positive: the cast cannot go wrong.
    config.worker.queue_max.min(within_lease as usize).max(1)
}

async fn organisation(
    config: &Config,
    provider: &Provider,
    store: &dyn Store,
    keyring: &dyn Keyring,
    clock: &dyn Clock,
) -> Result<Organisation, StartError> {
    let texts = texts(config)?;
    let composer = OrganisationComposer::new(config, Arc::clone(&texts))?;
    let id = config.organisation.id.clone();
    let mut contacts = Vec::new();
    for configured in configured_contacts(config, provider) {
        if let Some(language) = texts.stands_in(&configured.language) {
            let wanted = &configured.language;
            tracing::warn!(contact = %configured.id, %wanted, used = %language, "there is no text in a person's language");
        }
        contacts.push(enrol(store, keyring, clock.now(), &id, &configured).await?);
    }
    let text_number = match &provider.rest.sms_from {
        Some(SmsSender::Number(number)) => Some(number.clone()),
        Some(SmsSender::Name(_)) | None => None,
    };
    let numbers = [(Channel::Whatsapp, &provider.rest.whatsapp_from), (Channel::Sms, &text_number)];
    let numbers = numbers.into_iter().filter_map(|(channel, number)| Some((channel, number.as_ref()?)));
    let senders = numbers.map(|(channel, number)| (channel, address_key(keyring, &id, number))).collect();
    let threshold = Score::new(config.decision.threshold).ok_or_else(|| {
        StartError::Faults(vec![fault("decision.threshold", "is out of range", "Give a number from 0 to 1.")])
    })?;
    Ok(Organisation {
        id,
        directory: Directory::new(contacts),
        senders,
        codes: code_texts(config, provider),
        ladder: default_ladder(config)?,
        bands: composer.bands(),
        threshold,
        texts,
        composer: Arc::new(composer),
    })
}

/// How codes are sent. The simulator takes free text at any time.
fn code_texts(config: &Config, provider: &Provider) -> CodeTexts {
    let whatsapp = match &config.twilio.verification_content_sid {
        Some(sid) => WhatsappCode::Template(sid.as_str().to_owned()),
        None if provider.simulated => WhatsappCode::FreeText,
        None => WhatsappCode::Missing,
    };
    CodeTexts { sender: config.organisation.name.clone(), whatsapp, calls: provider.rest.voice_from.is_some() }
}

/// The people of the configuration, the counsellor first.
fn configured_contacts(config: &Config, provider: &Provider) -> Vec<ConfiguredContact> {
    let counsellor = &config.counsellor;
    let number = counsellor.whatsapp_to.clone();
    let number = number.or_else(|| if provider.simulated { SIMULATED_COUNSELLOR.parse().ok() } else { None });
    let (sms, voice) = (counsellor.sms_to.clone(), counsellor.voice_to.clone());
    let methods = [(Channel::Whatsapp, number), (Channel::Sms, sms), (Channel::Voice, voice)];
    let first = ConfiguredContact {
        id: counsellor.contact_id.clone(),
        role: ContactRole::Counsellor,
        language: counsellor.language.clone(),
        methods: methods.into_iter().filter_map(|(channel, number)| Some((channel, number?))).collect(),
    };
    let further = config.contacts.iter().map(|contact| ConfiguredContact {
        id: contact.id.clone(),
        role: contact.role,
        language: contact.language.clone(),
        methods: contact.methods.clone(),
    });
    std::iter::once(first).chain(further).collect()
}

/// The ladder of the configuration, before it is known who is set up over the API.
fn default_ladder(config: &Config) -> Result<DefaultLadder, StartError> {
    let policy = &config.policy;
    let first = &config.counsellor.contact_id;
    let id = CONFIGURED.parse().map_err(|error| StartError::Faults(vec![fault("policy", error, "")]))?;
    let figures = Policy {
        id,
        version: 1,
        steps: policy.steps.iter().map(step).collect(),
        rounds: policy.rounds,
        repeat_every: policy.repeat_every,
        last_responder: Target::Contact(policy.last_responder.as_ref().unwrap_or(first).clone()),
        last_responder_channels: policy.last_responder_channels.clone(),
        fall_over_after: policy.fall_over_after,
        last_responder_every: policy.last_responder_every,
        further_rounds_with_last: false,
        act_within: policy.acknowledged_action_within,
        check_in_within: policy.check_in_within,
        resolve_by_reply: policy.resolve_by_reply,
        emergency_contact_after: policy.emergency_contact_after,
        respond_within: policy.respond_within,
    };
    Ok(DefaultLadder::new(figures, first.clone(), policy.last_responder.is_some()))
}

fn step(step: &crate::config::Step) -> Step {
    Step { after: step.after, targets: step.targets.clone(), channels: step.channels.clone() }
}

fn rules(config: &Config) -> Rules {
    let delivery = &config.delivery;
    Rules {
        repage_rise: config.decision.repage_rise,
        retry_when_all_failed: config.policy.retry_when_all_failed,
        delivery: DeliveryRules {
            attempts_max: delivery.attempts_max,
            give_up_after: delivery.give_up_after,
            backoff_base: delivery.backoff_base,
            backoff_max: delivery.backoff_max,
            retry_after_max: delivery.retry_after_max,
            look_up_first: delivery.look_up_first,
            look_up_then: delivery.look_up_then,
            look_ups_max: delivery.look_ups_max,
            look_up_lost: delivery.look_up_lost,
            receipt_poll_first: delivery.receipt_poll_first,
            receipt_poll_max: delivery.receipt_poll_max,
            receipt_polls_max: delivery.receipt_polls_max,
        },
    }
}

/// What one instance may send of a sender's pace. It may be less than one a second: else many instances together would
/// go beyond what the sender is allowed.
fn share(config: &Config, per_second: u32) -> f64 {
    f64::from(per_second) / f64::from(config.worker.instances.max(1))
}

fn paces(config: &Config) -> Paces {
    // A tenth of a second's worth may go at once: Twilio measures by the second, and a crisis should not wait for a
    // place that is free.
    let pace = |per_second: u32| {
        let share = share(config, per_second);
        // Small and positive: the cast cannot go wrong.
        Pace::new(share, ((share / 10.0) as u32).max(1))
    };
    let twilio = &config.twilio;
    Paces::new(pace(twilio.whatsapp_per_second), pace(twilio.sms_per_second), pace(twilio.calls_per_second))
}

fn breaker_limits(config: &Config) -> BreakerLimits {
    BreakerLimits {
        failures_to_open: config.twilio.breaker_failures,
        open_min: config.twilio.breaker_open_first,
        open_max: config.twilio.breaker_open_max,
        probe_patience: config.twilio.request_timeout.saturating_mul(2),
    }
}

fn rate_limits(config: &Config) -> RateLimits {
    let limits = &config.rate_limits;
    let limit = |per_second: u32| Limit::new(per_second, per_second.saturating_mul(2));
    RateLimits {
        service: limit(limits.service_per_second),
        person: limit(limits.person_per_second),
        webhook: limit(limits.webhook_per_second),
        failure: Limit::new((limits.failed_auth_per_minute / 60).max(1), limits.failed_auth_per_minute),
    }
}

fn request_limits(config: &Config) -> RequestLimits {
    let decision = &config.decision;
    RequestLimits {
        message_chars_max: decision.message_chars_max,
        metadata_bytes_max: decision.metadata_bytes_max,
        metadata_keys_max: decision.metadata_keys_max,
        occurred_at_future_max: decision.occurred_at_future_max,
        occurred_at_past_max: decision.occurred_at_past_max,
    }
}

fn authenticator(config: &Config, clock: Arc<dyn Clock>) -> Result<Authenticator, StartError> {
    let at_fault = |key: &str, error: &dyn std::fmt::Display| {
        StartError::Faults(vec![fault(key, error, "See config/default.toml, section [auth].")])
    };
    let record = |key: &config::ApiKey| ApiKeyRecord {
        id: key.id.clone(),
        organisation: key.organisation.clone(),
        role: match key.role {
            config::ApiRole::Service => Role::Service,
            config::ApiRole::Counsellor => Role::Counsellor,
            config::ApiRole::Admin => Role::Admin,
            config::ApiRole::Auditor => Role::Auditor,
        },
        hash: ApiKeyHash::from_bytes(*key.sha256.as_bytes()),
        expires_at: key.expires_at,
    };
    let keys = ApiKeys::new(config.auth.api_keys.iter().map(record).collect())
        .map_err(|error| at_fault("auth.api_keys", &error))?;
    let jwt = config.auth.jwt.as_ref().map(|jwt| jwt_settings(jwt, config));
    Authenticator::new(keys, jwt, clock).map_err(|error| at_fault("auth.jwt", &error))
}

fn jwt_settings(jwt: &config::Jwt, config: &Config) -> JwtSettings {
    let keys = match &jwt.key {
        config::JwtKey::Jwks(url) => {
            let mut settings = JwksSettings::new(url.clone());
            settings.age_max = jwt.jwks_refresh;
            JwtKeySource::Jwks(settings)
        }
        config::JwtKey::Secret(secret) => {
            JwtKeySource::SharedSecret(SharedSecret(secret.expose().as_bytes().to_vec().into()))
        }
    };
    // Issuer and audience must be given with a JWKS; a development secret may go without, and then both are our name.
    let or_own = |given: &Option<String>| given.clone().unwrap_or_else(|| "crisis-relay".to_owned());
    let mut settings = JwtSettings::new(or_own(&jwt.issuer), or_own(&jwt.audience), keys);
    settings.roles_claim.clone_from(&jwt.role_claim);
    settings.organisation_claim.clone_from(&jwt.organisation_claim);
    settings.leeway = jwt.leeway;
    settings.default_organisation = match config.mode {
        Mode::Development => Some(config.organisation.id.clone()),
        Mode::Production => None,
    };
    settings
}

/// Starts the simulator that stands in for Twilio in development.
///
/// # Errors
/// Its address cannot be listened on.
pub async fn start_simulator(config: &Config, service_url: &Url) -> Result<(Simulator, SimulatorAccess), StartError> {
    let incoming = format!("{}/webhooks/twilio/incoming", service_url.as_str().trim_end_matches('/'));
    let settings = SimulatorConfig {
        bind: config.simulator.bind,
        callbacks: CallbackMode::Automatic {
            sent_after: config.simulator.sent_after,
            delivered_after: config.simulator.delivered_after,
            read_after: Some(config.simulator.read_after).filter(|after| !after.is_zero()),
        },
        inbound_url: Some(incoming),
        ..SimulatorConfig::default()
    };
    let access = |url: Url| SimulatorAccess {
        url,
        account_sid: settings.account_sid.clone(),
        auth_token: settings.auth_token.clone(),
    };
    let simulator = Simulator::start(settings.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy))
        .await
        .map_err(|source| StartError::Listen { key: "simulator.bind", address: settings.bind, source })?;
    let url = local_url(simulator.address());
    Ok((simulator, access(url)))
}

/// A service that runs until its token is cancelled.
pub struct Running {
    /// Where it listens.
    pub url: Url,
    /// The use cases, for the demo's display.
    pub service: Arc<Service>,
    /// The simulator, where one stands in for Twilio.
    pub simulator: Option<Simulator>,
    shutdown: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

/// Starts a service with the real clock, the configured store, and Twilio or its simulator.
///
/// # Errors
/// Everything that stands against it.
pub async fn start(config: &Config) -> Result<Running, StartError> {
    let listener = crate::http::listen(config.http.bind).map_err(|source| StartError::Listen {
        key: "http.bind",
        address: config.http.bind,
        source,
    })?;
    let address = listener.local_addr().unwrap_or(config.http.bind);
    let mut config = config.clone();
    config.http.bind = address;
    let url = local_url(address);
    let (simulator, access) = match config.twilio.credentials {
        Some(_) => (None, None),
        None => {
            let (simulator, access) = start_simulator(&config, &url).await?;
            (Some(simulator), Some(access))
        }
    };
    let provider = provider(&config, access.as_ref());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let keyring = Arc::new(open_keyring(&config, Arc::clone(&entropy))?);
    let store = open_store(&config, Arc::clone(&entropy)).await?;
    let twilio = Arc::new(rest_client(&provider, Arc::clone(&clock))?);
    let adapters = Adapters { store, keyring, twilio, clock, entropy };
    let app = assemble(&config, &provider, adapters).await?;
    announce(&config, &provider, &url);
    let shutdown = CancellationToken::new();
    let service = Arc::clone(&app.service);
    let work = tokio::spawn(work(app, listener, serve_settings(&config), shutdown.clone()));
    Ok(Running { url, service, simulator, shutdown, work })
}

/// The client of a provider.
///
/// # Errors
/// Every fault of its set-up.
pub fn rest_client(provider: &Provider, clock: Arc<dyn Clock>) -> Result<RestClient, StartError> {
    RestClient::new(provider.rest.clone(), clock).map_err(|error| match error {
        crate::twilio::rest::RestError::Config(faults) => StartError::Faults(faults),
        crate::twilio::rest::RestError::Http(error) => {
            StartError::Faults(vec![fault("twilio", error, "The HTTP client cannot be made on this machine.")])
        }
    })
}

fn announce(config: &Config, provider: &Provider, url: &Url) {
    for note in config.notes() {
        tracing::warn!("{note}");
    }
    // What refuses the start was told before.
    let TextFindings { faults, notes, .. } = check_texts(config).unwrap_or_default();
    for Fault { subject, problem, remedy } in faults {
        tracing::warn!("{subject} {problem}. {remedy}");
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    if provider.simulated {
        tracing::warn!(
            simulator = %provider.rest.base_url,
            "NO TWILIO CREDENTIALS: messages go to the built-in simulator and reach no phone"
        );
    }
    if config.mode == Mode::Development {
        tracing::warn!("development mode: not for real cases");
    }
    tracing::info!(%url, version = env!("CARGO_PKG_VERSION"), "listening");
}

fn serve_settings(config: &Config) -> ServeSettings {
    ServeSettings {
        connections_max: descriptors::connections_max(config),
        header_read_timeout: config.http.header_timeout,
        shutdown_grace: config.http.shutdown_grace,
        ..ServeSettings::default()
    }
}

/// Serves and works until the end is asked for: first no more requests, then no more work, then the store; all within
/// one grace, of which requests get half, so that sends have time left.
async fn work(app: App, listener: TcpListener, settings: ServeSettings, shutdown: CancellationToken) {
    let App { worker, jobs, router, store, dispatch, alarms, watchman, .. } = app;
    let grace = settings.shutdown_grace;
    let settings = ServeSettings { shutdown_grace: grace / 2, ..settings };
    let (stop_worker, stop_alarms) = (CancellationToken::new(), CancellationToken::new());
    let working = tokio::spawn(worker.run(jobs, stop_worker.clone(), grace));
    let telling = tokio::spawn(alarms.run(stop_alarms.clone()));
    let watching = tokio::spawn(watchman.run(shutdown.clone()));
    let in_order = async {
        let ended = serve(listener, router, &settings, shutdown.clone()).await;
        stop_worker.cancel();
        if working.await.is_err() {
            tracing::error!("the worker ended by a panic");
        }
        if watching.await.is_err() {
            tracing::error!("the watchman ended by a panic");
        }
        stop_alarms.cancel();
        if telling.await.is_err() {
            tracing::error!("telling the operator ended by a panic");
        }
        store.close().await;
        ended
    };
    match within_grace(&shutdown, grace, in_order).await {
        Some(ended) => tracing::info!(?ended, in_hand = dispatch.in_hand(), "stopped"),
        None => tracing::warn!(
            in_hand = dispatch.in_hand(),
            "stopped with work in hand, the grace being over: the next start takes it up"
        ),
    }
}

/// What `work` comes to, unless it takes longer than `grace` from when the end was asked for.
async fn within_grace<T>(shutdown: &CancellationToken, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deadline => None,
    }
}

impl Running {
    /// Asks for the end, and waits for it.
    pub async fn stop(self) {
        self.shutdown.cancel();
        if self.work.await.is_err() {
            tracing::error!("the service ended by a panic");
        }
        if let Some(simulator) = self.simulator
            && let Err(error) = simulator.shutdown().await
        {
            tracing::warn!(%error, "the simulator did not stop cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_that_was_asked_for_comes_within_its_grace_and_no_work_is_cut_short_before() {
        let shutdown = CancellationToken::new();
        let brief = Duration::from_millis(20);
        // Nobody asked: however long it takes, the grace does not run.
        let longer = tokio::time::sleep(5 * brief);
        assert_eq!(within_grace(&shutdown, brief, longer).await, Some(()));
        shutdown.cancel();
        assert_eq!(within_grace(&shutdown, brief, std::future::pending::<()>()).await, None);
        assert_eq!(within_grace(&shutdown, Duration::ZERO, async { 1 }).await, Some(1));
    }
}
