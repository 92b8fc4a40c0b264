//! The typed configuration. Plain data, valid by construction; units, ranges and reasons of each key stand in
//! `config/default.toml`, under the same names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use url::Url;

use super::reader::Line;
use super::values::{ApiRole, KeyHash, LogFormat, MasterKey, Mode, Sid, StoreKind};
use crate::domain::contact::{Channel, ContactRole, Language, PhoneNumber};
use crate::domain::ids::{ContactId, OrganisationId};
use crate::domain::message::{Purpose, TemplateSet, Texts};
use crate::domain::policy::Target;
use crate::secret::Secret;

/// Everything the service is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// Development or production.
    pub mode: Mode,
    /// The listening side.
    pub http: Http,
    /// The college.
    pub organisation: Organisation,
    /// The person who is told first.
    pub counsellor: Counsellor,
    /// Further people.
    pub contacts: Vec<Contact>,
    /// Whom emergency contacts are asked to call.
    pub desk: Desk,
    /// What a score means.
    pub decision: Decision,
    /// How often, and how long, people are told.
    pub policy: Policy,
    /// How one message is brought home.
    pub delivery: Delivery,
    /// Exercises.
    pub drills: Drills,
    /// The provider.
    pub twilio: Twilio,
    /// Texts and approved templates.
    pub templates: Templates,
    /// The dispatch loop.
    pub worker: Worker,
    /// Whom the operator's alarms go to.
    pub ops: Ops,
    /// Where alerts are kept.
    pub store: Store,
    /// The keys that seal personal data.
    pub keyring: KeyringConfig,
    /// Who may call.
    pub auth: Auth,
    /// How often they may call.
    pub rate_limits: RateLimits,
    /// Repeated requests.
    pub idempotency: Idempotency,
    /// Log lines.
    pub log: Log,
    /// The Twilio that is none.
    pub simulator: Simulator,
    pub(super) lines: Vec<Line>,
    pub(super) notes: Vec<String>,
}

/// The listening side.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where the service listens: `http.bind`, with `http.port` applied.
    pub bind: SocketAddr,
    /// Longest body, in bytes.
    pub body_limit_bytes: usize,
    /// From the last header to the answer.
    pub request_timeout: Duration,
    /// From the connection to the last header.
    pub header_timeout: Duration,
    /// Connections at one time.
    pub max_connections: usize,
    /// From SIGTERM to the end.
    pub shutdown_grace: Duration,
    /// Proxies in front, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: usize,
}

/// The college.
#[derive(Debug, Clone)]
pub struct Organisation {
    /// Its id.
    pub id: OrganisationId,
    /// Short sender name, shown in messages.
    pub name: String,
    /// Its IANA time zone: times in messages are its local times.
    pub time_zone: TimeZone,
}

/// The person who is told first.
#[derive(Debug, Clone)]
pub struct Counsellor {
    /// The contact's id.
    pub contact_id: ContactId,
    /// The WhatsApp number; always there in production.
    pub whatsapp_to: Option<PhoneNumber>,
    /// The number for text messages.
    pub sms_to: Option<PhoneNumber>,
    /// The number that is called.
    pub voice_to: Option<PhoneNumber>,
    /// The language the person is told in.
    pub language: Language,
}

/// Whom emergency contacts are asked to call.
#[derive(Debug, Clone)]
pub struct Desk {
    /// What it is called in messages.
    pub name: String,
    /// Its number; `None`: no emergency contact is told.
    pub phone: Option<PhoneNumber>,
}

/// A person who can be told.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Their place in the list.
    pub index: usize,
    /// The contact's id.
    pub id: ContactId,
    /// Why they are told.
    pub role: ContactRole,
    /// The language they are told in.
    pub language: Language,
    /// Their numbers.
    pub methods: Vec<(Channel, PhoneNumber)>,
}

/// One rung of the ladder.
#[derive(Debug, Clone)]
pub struct Step {
    /// After the rung before it.
    pub after: Duration,
    /// Who is told: people of the configuration, each of whom has one of the channels, and roles.
    pub targets: Vec<Target>,
    /// Over which channels, in this order.
    pub channels: Vec<Channel>,
}

/// What a score means, and what an event may carry.
#[derive(Debug, Clone)]
pub struct Decision {
    /// A score of at least this is a crisis.
    pub threshold: f64,
    /// An open alert is paged again when the score rises by at least this.
    pub repage_rise: f64,
    /// Scores from here on are called high.
    pub band_high: f64,
    /// Scores from here on are called critical.
    pub band_critical: f64,
    /// How far `occurred_at` may lie in the future.
    pub occurred_at_future_max: Duration,
    /// How far `occurred_at` may lie in the past.
    pub occurred_at_past_max: Duration,
    /// Longest message, in characters.
    pub message_chars_max: usize,
    /// Longest metadata, in bytes of JSON.
    pub metadata_bytes_max: usize,
    /// Most metadata fields.
    pub metadata_keys_max: usize,
}

/// Who is told, how often, and how long.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The rungs; none: everybody has the usual place.
    pub steps: Vec<Step>,
    /// Who is told when every round was in vain; `None`: whoever has the most to decide, of those who are set up.
    pub last_responder: Option<ContactId>,
    /// Over which channels they have a number in the configuration, in this order.
    pub last_responder_channels: Vec<Channel>,
    /// From one channel to the next, where a message has not arrived.
    pub fall_over_after: Duration,
    /// Between two rounds.
    pub repeat_every: Duration,
    /// Rounds before the last responder.
    pub rounds: u32,
    /// Between two messages of the last responder's stage, without end.
    pub last_responder_every: Duration,
    /// After a round in which every delivery failed.
    pub retry_when_all_failed: Duration,
    /// From an acknowledgement to an action.
    pub acknowledged_action_within: Duration,
    /// From the reminder that an outcome is missing to a further escalation.
    pub check_in_within: Duration,
    /// Whether a reply may close a case.
    pub resolve_by_reply: bool,
    /// From when people began to be told to when emergency contacts are, too; `None`: never by itself.
    pub emergency_contact_after: Option<Duration>,
    /// From an alert to an acknowledgement: what the message asks for and the metric measures.
    pub respond_within: Duration,
}

/// Exercises.
#[derive(Debug, Clone)]
pub struct Drills {
    /// When one starts every day, by the organisation's clock, in the order of the day; none: by hand only.
    pub daily_at: Vec<jiff::civil::Time>,
}

/// How one message is brought home.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// How long a claimed delivery belongs to one worker.
    pub lease: Duration,
    /// Most create calls for one delivery.
    pub attempts_max: u32,
    /// A delivery not handed over by then has failed.
    pub give_up_after: Duration,
    /// First pause after a call that was not executed.
    pub backoff_base: Duration,
    /// Longest such pause.
    pub backoff_max: Duration,
    /// Most that a `Retry-After` is believed.
    pub retry_after_max: Duration,
    /// From an unknown outcome to the first look-up.
    pub look_up_first: Duration,
    /// Between further look-ups.
    pub look_up_then: Duration,
    /// Where a process died with its calls: from the first look-up, made at once, to the second and last.
    pub look_up_lost: Duration,
    /// Look-ups before a second message is preferred to none.
    pub look_ups_max: u32,
    /// From handing over to the first question for a missing receipt.
    pub receipt_poll_first: Duration,
    /// Longest pause between such questions.
    pub receipt_poll_max: Duration,
    /// Such questions for one message.
    pub receipt_polls_max: u32,
    /// So many messages a minute are enough for a phone.
    pub phone_per_minute: u32,
}

/// The provider.
#[derive(Debug, Clone)]
pub struct Twilio {
    /// The account; `None` (development only): the simulator is used.
    pub credentials: Option<TwilioCredentials>,
    /// Sender of WhatsApp messages.
    pub whatsapp_from: Option<PhoneNumber>,
    /// Sender of text messages.
    pub sms_from: Option<PhoneNumber>,
    /// Who calls.
    pub voice_from: Option<PhoneNumber>,
    /// Messaging service (`MG…`) that chooses the sender of text messages.
    pub messaging_service_sid: Option<Sid>,
    /// Approved WhatsApp template (`HX…`) for one-time codes.
    pub verification_content_sid: Option<Sid>,
    /// Base of the REST API: `api_base_url`, or made of edge and region. No slash at the end of the path.
    pub api_base_url: Url,
    /// Public base URL of this service, as Twilio calls it; always there in production.
    pub webhook_base_url: Option<Url>,
    /// WhatsApp messages a second and sender: not above 400 where Twilio itself is called.
    pub whatsapp_per_second: u32,
    /// Text messages a second and sender.
    pub sms_per_second: u32,
    /// Calls a second and account.
    pub calls_per_second: u32,
    /// How long a phone rings, in whole seconds.
    pub ring_timeout: Duration,
    /// Messages handed to Twilio at one time, and as many questions.
    pub max_concurrency: usize,
    /// For connecting.
    pub connect_timeout: Duration,
    /// For a whole call, connecting included.
    pub request_timeout: Duration,
    /// Failures in a row that open the breaker.
    pub breaker_failures: u32,
    /// How long it stays open the first time.
    pub breaker_open_first: Duration,
    /// How long it stays open at most.
    pub breaker_open_max: Duration,
}

/// How the service proves to Twilio who it is.
#[derive(Debug, Clone)]
pub struct TwilioCredentials {
    /// `AC…`
    pub account_sid: Sid,
    /// Checks webhook signatures, always; signs in where there is no API key.
    pub auth_token: Secret,
    /// Signs in, where there is one.
    pub api_key: Option<TwilioApiKey>,
}

/// A Twilio API key.
#[derive(Debug, Clone)]
pub struct TwilioApiKey {
    /// `SK…`
    pub sid: Sid,
    /// Its secret.
    pub secret: Secret,
}

/// Texts and approved templates.
#[derive(Debug, Clone)]
pub struct Templates {
    /// A directory of texts that replace the built-in ones.
    pub dir: Option<PathBuf>,
    /// The approved WhatsApp template (`HX…`) of each language.
    pub content_sids: BTreeMap<Language, Sid>,
    /// The approved WhatsApp template of each notice in each language.
    pub notice_sids: BTreeMap<(Purpose, Language), Sid>,
    /// Base of the links in messages; without one, messages carry no link.
    pub dashboard_url: Option<Url>,
}

impl Config {
    /// The texts with the approved templates that go with them. `needs_approval`: messages reach real phones.
    pub fn texts(&self, set: TemplateSet, needs_approval: bool) -> Texts {
        let text = |sid: &Sid| sid.as_str().to_owned();
        let alerts = self.templates.content_sids.iter();
        let alerts = alerts.map(|(language, sid)| ((Purpose::CounsellorAlert, language.clone()), text(sid)));
        let notices = self.templates.notice_sids.iter().map(|(key, sid)| (key.clone(), text(sid)));
        Texts::new(set, alerts.chain(notices).collect(), needs_approval).with_desk(self.desk.phone.is_some())
    }
}

/// The dispatch loop.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Between two looks for due alerts: the guarantee behind the wake-up signal.
    pub poll: Duration,
    /// How many instances run beside each other: each takes its share of the senders' paces.
    pub instances: u32,
    /// Most alerts in hand.
    pub queue_max: usize,
    /// Most alerts taken by one look.
    pub due_batch: usize,
}

/// Whom the operator's alarms go to, and when.
#[derive(Debug, Clone)]
pub struct Ops {
    /// What this installation is called in notices.
    pub name: String,
    /// A webhook in Slack's form.
    pub slack_url: Option<Secret>,
    /// The key of a PagerDuty integration.
    pub pagerduty_key: Option<Secret>,
    /// Where PagerDuty's Events API is.
    pub pagerduty_url: Url,
    /// Phones that are told by text message.
    pub sms_to: Vec<PhoneNumber>,
    /// Phones that are told over WhatsApp.
    pub whatsapp_to: Vec<PhoneNumber>,
    /// The approved template of what they are told; always there in production where they are.
    pub whatsapp_content_sid: Option<Sid>,
    /// From one text to a phone to the next.
    pub phone_every: Duration,
    /// From telling of a condition to telling of it again, while it goes on.
    pub repeat_every: Duration,
    /// How long what comes and goes must stay away to be over.
    pub settle_for: Duration,
    /// How long one request to a target may take.
    pub timeout: Duration,
    /// A watchdog that calls somebody when nothing comes.
    pub heartbeat_url: Option<Secret>,
    /// From one heartbeat to the next.
    pub heartbeat_every: Duration,
    /// Due work that is later than this raises an alarm, and stops the heartbeat.
    pub work_late_after: Duration,
    /// A withheld case that waits for longer raises an alarm.
    pub withheld_after: Duration,
    /// So many calls to Twilio that fail in a row raise an alarm.
    pub failures_in_a_row: u32,
    /// This share of messages in vain raises an alarm.
    pub failure_share: f64,
    /// This share of messages without a receipt raises an alarm.
    pub receipts_missing_share: f64,
    /// So many messages in a row without a receipt raise an alarm.
    pub silent_in_a_row: u32,
    /// How far back shares are reckoned.
    pub share_window: Duration,
    /// Of fewer messages no share is reckoned.
    pub share_of_at_least: u32,
}

/// Where alerts are kept.
#[derive(Debug, Clone)]
pub struct Store {
    /// The engine.
    pub kind: StoreKind,
    /// The database file.
    pub path: PathBuf,
    /// Connections that read.
    pub readers: usize,
    /// Most commits that share one fsync.
    pub group_commit_max: usize,
    /// Most commits that wait for the writer; further ones wait for a place.
    pub write_queue_max: usize,
    /// How long a connection waits for a lock of another process.
    pub busy_timeout: Duration,
    /// Google Cloud Firestore, where `kind` says so.
    pub firestore: Firestore,
}

/// Google Cloud Firestore.
#[derive(Debug, Clone)]
pub struct Firestore {
    /// The Google Cloud project; always there where this engine is used.
    pub project_id: Option<String>,
    /// The database within it.
    pub database_id: String,
    /// Host and port of an emulator: development only.
    pub emulator_host: Option<String>,
    /// How long a start tries to connect.
    pub connect_timeout: Duration,
    /// For a read, its repetitions included.
    pub read_timeout: Duration,
    /// For a change, with all that is looked at and tried again.
    pub commit_timeout: Duration,
}

/// The keys that seal personal data.
#[derive(Debug, Clone)]
pub struct KeyringConfig {
    /// The key that wraps new data keys; always there in production.
    pub master_key: Option<MasterKey>,
    /// Keys that still open what they once wrapped.
    pub former_master_keys: Vec<MasterKey>,
    /// Development without a master key: the file that keeps one of its own making.
    pub development_key_path: PathBuf,
}

/// Who may call.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Keys of machines and scripts.
    pub api_keys: Vec<ApiKey>,
    /// Tokens of people.
    pub jwt: Option<Jwt>,
}

/// One API key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Names the key in logs and in the audit, never the key itself.
    pub id: String,
    /// The college that it is good for.
    pub organisation: OrganisationId,
    /// What its holder may do.
    pub role: ApiRole,
    /// SHA-256 of the key's UTF-8 text.
    pub sha256: KeyHash,
    /// From then on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// How tokens are checked.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Where the keys come from.
    pub key: JwtKey,
    /// The `iss` that a token must bear.
    pub issuer: Option<String>,
    /// The `aud` that a token must bear.
    pub audience: Option<String>,
    /// The claim that holds the role.
    pub role_claim: String,
    /// The claim that holds the organisation.
    pub organisation_claim: String,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
    /// How long fetched keys are good.
    pub jwks_refresh: Duration,
}

/// Where a token's keys come from.
#[derive(Debug, Clone)]
pub enum JwtKey {
    /// A provider's published keys.
    Jwks(Url),
    /// A shared secret (HS256): development only.
    Secret(Secret),
}

/// How often callers may call.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// Requests a second of one service key.
    pub service_per_second: u32,
    /// Requests a second of one person.
    pub person_per_second: u32,
    /// Webhook requests a second without a right signature, of one client address.
    pub webhook_per_second: u32,
    /// Refused credentials a minute of one client address.
    pub failed_auth_per_minute: u32,
}

/// Repeated requests.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// How long a key is remembered.
    pub keep: Duration,
}

/// Log lines.
#[derive(Debug, Clone)]
pub struct Log {
    /// How they are written.
    pub format: LogFormat,
    /// Which are written, in `tracing`'s filter language.
    pub filter: String,
}

/// The Twilio that is none.
#[derive(Debug, Clone)]
pub struct Simulator {
    /// Where it listens.
    pub bind: SocketAddr,
    /// From a create call to the callback `sent`.
    pub sent_after: Duration,
    /// From `sent` to `delivered`.
    pub delivered_after: Duration,
    /// From `delivered` to `read`.
    pub read_after: Duration,
}
