//! The rules between keys, and what production demands. A rule is silent where one of its keys has a fault already.

use std::collections::BTreeSet;

use url::{Host, Url};

use super::reader::Reader;
use super::settings::{Config, Contact, JwtKey};
use super::values::{Mode, StoreKind};
use crate::domain::contact::{Channel, Language, PhoneNumber};
use crate::domain::message::{Purpose, TemplateSet, Texts};
use crate::ports::Fault;

/// Twilio's shared WhatsApp sandbox. Members have to join it, and drop out after three days.
///
/// Source: Twilio's page on the sandbox for WhatsApp.
const SANDBOX_SENDER: &str = "+14155238886";

/// How many messages a second Twilio takes from one WhatsApp sender, and how many where Twilio has raised that.
///
/// Source: Twilio's pages on WhatsApp: key concepts, best practices and FAQs.
const WHATSAPP_PER_SECOND: u32 = 80;
const WHATSAPP_PER_SECOND_RAISED: u32 = 400;

/// Notes every broken rule in `r`; returns what is legal and still worth a warning.
pub(super) fn check(config: &Config, r: &mut Reader<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    http(config, r);
    decision(config, r);
    timing(config, r);
    credentials(config, r, &mut notes);
    senders(config, r, &mut notes);
    further_senders(config, r);
    numbers(config, r);
    pace(config, r, &mut notes);
    addresses(config, r, &mut notes);
    templates(config, r, &mut notes);
    counsellor(config, r, &mut notes);
    desk(config, r);
    ops(config, r, &mut notes);
    storage(config, r);
    callers(config, r, &mut notes);
    jwt(config, r);
    notes
}

fn production(config: &Config) -> bool {
    match config.mode {
        Mode::Production => true,
        Mode::Development => false,
    }
}

/// `first` must not be greater than `second`; the fault is told of `first`.
fn ordered<T: PartialOrd>(r: &mut Reader<'_>, (first, a): (&str, T), (second, b): (&str, T)) {
    if a > b && !r.any_faulty(&[first, second]) {
        r.fault(first, format!("must not be greater than {second}"), format!("lower it, or raise {second}"));
    }
}

/// Emergency contacts are asked to call the desk: without its number there is nothing to tell them.
fn desk(config: &Config, r: &mut Reader<'_>) {
    if config.policy.emergency_contact_after.is_some() && config.desk.phone.is_none() && !r.any_faulty(&["desk.phone"])
    {
        let rule = "must be given: policy.emergency_contact_after has emergency contacts told";
        r.fault("desk.phone", rule, "give the number that relatives are to call, or leave that out");
    }
}

fn http(config: &Config, r: &mut Reader<'_>) {
    let http = &config.http;
    ordered(r, ("http.header_timeout", http.header_timeout), ("http.request_timeout", http.request_timeout));
    // Else every stop leaves sends behind of which nobody knows the outcome.
    ordered(r, ("twilio.request_timeout", config.twilio.request_timeout), ("http.shutdown_grace", http.shutdown_grace));
}

fn decision(config: &Config, r: &mut Reader<'_>) {
    let decision = &config.decision;
    ordered(r, ("decision.threshold", decision.threshold), ("decision.band_high", decision.band_high));
    ordered(r, ("decision.band_high", decision.band_high), ("decision.band_critical", decision.band_critical));
}

fn timing(config: &Config, r: &mut Reader<'_>) {
    let (delivery, twilio, policy) = (&config.delivery, &config.twilio, &config.policy);
    if delivery.lease <= 2 * twilio.request_timeout && !r.any_faulty(&["delivery.lease", "twilio.request_timeout"]) {
        r.fault(
            "delivery.lease",
            "must be longer than twice twilio.request_timeout, or a second worker sends while the first still does",
            "raise it, or lower twilio.request_timeout",
        );
    }
    if twilio.connect_timeout >= twilio.request_timeout
        && !r.any_faulty(&["twilio.connect_timeout", "twilio.request_timeout"])
    {
        r.fault(
            "twilio.connect_timeout",
            "must be less than twilio.request_timeout, which includes it",
            "lower it, or raise twilio.request_timeout",
        );
    }
    ordered(
        r,
        ("twilio.breaker_open_first", twilio.breaker_open_first),
        ("twilio.breaker_open_max", twilio.breaker_open_max),
    );
    ordered(r, ("delivery.lease", delivery.lease), ("delivery.give_up_after", delivery.give_up_after));
    ordered(r, ("delivery.backoff_base", delivery.backoff_base), ("delivery.backoff_max", delivery.backoff_max));
    ordered(r, ("delivery.look_up_first", delivery.look_up_first), ("delivery.look_up_then", delivery.look_up_then));
    ordered(
        r,
        ("delivery.receipt_poll_first", delivery.receipt_poll_first),
        ("delivery.receipt_poll_max", delivery.receipt_poll_max),
    );
    ordered(
        r,
        ("policy.retry_when_all_failed", policy.retry_when_all_failed),
        ("policy.repeat_every", policy.repeat_every),
    );
    ordered(r, ("worker.poll", config.worker.poll), ("delivery.lease", delivery.lease));
    ordered(r, ("worker.due_batch", config.worker.due_batch), ("worker.queue_max", config.worker.queue_max));
}

const CREDENTIALS: [&str; 4] =
    ["twilio.account_sid", "twilio.auth_token", "twilio.api_key_sid", "twilio.api_key_secret"];

fn wants_twilio(config: &Config, r: &Reader<'_>) -> bool {
    production(config) || CREDENTIALS.iter().any(|key| r.is_set(key))
}

fn credentials(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    if !wants_twilio(config, r) {
        notes.push("Twilio's credentials are not set: messages go to the simulator, and to no phone".into());
        return;
    }
    let [account, token, key_sid, key_secret] = CREDENTIALS;
    if !r.is_set(account) {
        r.fault(account, "is missing", "copy it from the Twilio console's front page");
    }
    if !r.is_set(token) {
        let rule = if r.is_set(key_sid) || r.is_set(key_secret) {
            "is missing: with an API key it is still needed, to check the signatures of webhooks"
        } else {
            "is missing"
        };
        r.fault(token, rule, "copy the primary auth token from the Twilio console's front page");
    }
    for (here, missing) in [(key_sid, key_secret), (key_secret, key_sid)] {
        if r.is_set(here) && !r.is_set(missing) {
            r.fault(missing, format!("is missing, while {here} is set"), format!("set both or neither ({here})"));
        }
    }
}

fn senders(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    const FROM: &str = "twilio.whatsapp_from";
    if wants_twilio(config, r) && !r.is_set(FROM) {
        r.fault(FROM, "is missing", "set the WhatsApp sender's number, as the Twilio console shows it");
    }
    let Some(from) = &config.twilio.whatsapp_from else { return };
    if from.expose() == SANDBOX_SENDER {
        if production(config) {
            let rule = "is Twilio's sandbox: its members drop out after three days, and alerts with them";
            r.fault(FROM, rule, "set a WhatsApp sender of your own");
        } else {
            notes.push("twilio.whatsapp_from is Twilio's sandbox: each phone has to join it, for three days".into());
        }
    }
}

/// Nobody is told at the number that sends, and no number is two people's: whose reply would it be?
fn numbers(config: &Config, r: &mut Reader<'_>) {
    let mut seen = BTreeSet::new();
    for (owner, channel, number) in every_number(config) {
        let key = format!("{owner}.{}", field_of(channel));
        let sender = match channel {
            Channel::Whatsapp => &config.twilio.whatsapp_from,
            Channel::Sms => &config.twilio.sms_from,
            Channel::Voice => &config.twilio.voice_from,
        };
        if sender.as_ref() == Some(number) {
            r.fault(&key, "is the sender's own number", "set the number of the person to be told");
        }
        if !seen.insert((channel, number.expose())) {
            r.fault(&key, "is another person's number, too", "give each person a number of their own");
        }
    }
}

/// Whose it is in the configuration, the channel, and the number.
fn every_number(config: &Config) -> Vec<(String, Channel, &PhoneNumber)> {
    let counsellor = &config.counsellor;
    let first = [
        (Channel::Whatsapp, &counsellor.whatsapp_to),
        (Channel::Sms, &counsellor.sms_to),
        (Channel::Voice, &counsellor.voice_to),
    ];
    let mut all: Vec<_> = first
        .into_iter()
        .filter_map(|(channel, number)| Some(("counsellor".to_owned(), channel, number.as_ref()?)))
        .collect();
    for contact in &config.contacts {
        let theirs = contact.methods.iter();
        all.extend(theirs.map(|(channel, number)| (format!("contacts[{}]", contact.index), *channel, number)));
    }
    all
}

const fn field_of(channel: Channel) -> &'static str {
    match channel {
        Channel::Whatsapp => "whatsapp_to",
        Channel::Sms => "sms_to",
        Channel::Voice => "voice_to",
    }
}

/// Text messages and calls need a sender, too, where somebody is told by them.
fn further_senders(config: &Config, r: &mut Reader<'_>) {
    const SMS_FROM: &str = "twilio.sms_from";
    const VOICE_FROM: &str = "twilio.voice_from";
    let policy = &config.policy;
    let written = policy.steps.iter().flat_map(|step| &step.channels).chain(&policy.last_responder_channels).copied();
    // Without rungs everybody is told over all that they have.
    let everybody = every_number(config).into_iter().map(|(_, channel, _)| channel);
    let channels: BTreeSet<Channel> = if policy.steps.is_empty() { everybody.collect() } else { written.collect() };
    if !wants_twilio(config, r) {
        return;
    }
    let has = r.is_set(SMS_FROM) || r.is_set("twilio.messaging_service_sid");
    if channels.contains(&Channel::Sms) && !has {
        let rule = "is missing, and so is twilio.messaging_service_sid, while people are told by text message";
        r.fault(SMS_FROM, rule, "set one of the two, or leave sms out of the ladder");
    }
    if channels.contains(&Channel::Voice) && !r.is_set(VOICE_FROM) {
        let rule = "is missing, while people are called";
        r.fault(VOICE_FROM, rule, "set a number of the account that can call, or leave voice out of the ladder");
    }
    // Twilio asks us what a call says: without an address of ours, it would be silent.
    if channels.contains(&Channel::Voice) && !r.is_set("twilio.webhook_base_url") && !production(config) {
        let rule = "is missing, while people are called: Twilio asks this address what to say";
        r.fault("twilio.webhook_base_url", rule, "set it, or leave voice out of the ladder");
    }
}

fn addresses(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    let twilio = &config.twilio;
    let [base, region, edge] = ["twilio.api_base_url", "twilio.region", "twilio.edge"];
    if r.is_set(base) && (r.is_set(region) || r.is_set(edge)) {
        r.fault(base, "is set, and so is the region or the edge that it would be made of", "keep one of the two");
    } else if r.is_set(region) && !r.is_set(edge) {
        r.fault(edge, "is missing, while twilio.region is set", "set the region's edge, such as dublin for ie1");
    }
    if r.is_set(region) && !r.is_text(region, "us1") {
        notes.push("twilio.region is not us1: Twilio offers WhatsApp in us1 only".into());
    }
    for (key, url) in [
        (base, Some(&twilio.api_base_url)),
        ("twilio.webhook_base_url", twilio.webhook_base_url.as_ref()),
        ("templates.dashboard_url", config.templates.dashboard_url.as_ref()),
    ] {
        if production(config) && url.is_some_and(|url| url.scheme() != "https") {
            r.fault(key, "must be https in production", "put the service behind TLS and write https://");
        }
    }
    webhooks(config, r, notes);
}

fn webhooks(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    const KEY: &str = "twilio.webhook_base_url";
    if !r.is_set(KEY) {
        if production(config) {
            let rule = "is missing: without it neither receipts nor replies arrive, and nobody can acknowledge";
            r.fault(KEY, rule, "set the https address at which Twilio reaches this service");
        } else if wants_twilio(config, r) {
            notes.push("twilio.webhook_base_url is not set: receipts are polled, and replies do not arrive".into());
        }
    }
    let Some(url) = &config.twilio.webhook_base_url else { return };
    if url.host_str().is_some_and(|host| host.contains('_')) {
        r.fault(KEY, "has an underscore in its host, which Twilio refuses (error 21609)", "use a host without one");
    }
    if production(config) && !is_public(url) {
        r.fault(KEY, "names a host that Twilio cannot reach", "set the public name of this service");
    }
}

/// Faster than Twilio takes them, messages wait in its queue for hours. A simulator beside the service is as fast as it
/// can be.
fn pace(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    const KEY: &str = "twilio.whatsapp_per_second";
    let pace = config.twilio.whatsapp_per_second;
    let slow_enough = pace <= WHATSAPP_PER_SECOND;
    if slow_enough || r.any_faulty(&[KEY]) || !wants_twilio(config, r) || !is_public(&config.twilio.api_base_url) {
        return;
    }
    if pace > WHATSAPP_PER_SECOND_RAISED {
        let rule = format!(
            "must not be above {WHATSAPP_PER_SECOND_RAISED}: one sender of Twilio's brings out {WHATSAPP_PER_SECOND} a \
             second, or up to {WHATSAPP_PER_SECOND_RAISED} where Twilio has raised that"
        );
        r.fault(KEY, rule, format!("set {WHATSAPP_PER_SECOND}, or what Twilio has agreed to"));
    } else {
        notes.push(format!("{KEY} is above {WHATSAPP_PER_SECOND}: Twilio must have raised the sender's limit"));
    }
}

/// Whether the host may be reached from the internet, as far as its spelling tells.
fn is_public(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            name.contains('.') && ![".local", ".localhost", ".internal"].iter().any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(ip)) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()),
        Some(Host::Ipv6(ip)) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
        None => false,
    }
}

/// Why an approved template is asked for, and what helps.
const UNAPPROVED: [&str; 2] = [
    "is missing: outside the 24 hours after a person's last message WhatsApp takes only approved templates",
    "have the template approved, and set its HX… id",
];

/// An approved template that is missing, though somebody of the configuration is told over WhatsApp in that language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unapproved {
    /// What is said.
    pub(crate) purpose: Purpose,
    /// The language that is used.
    pub(crate) language: Language,
}

/// Every approved template that is missing.
pub(crate) fn unapproved(config: &Config, texts: &Texts) -> BTreeSet<Unapproved> {
    let over_whatsapp = |contact: &&Contact| contact.methods.iter().any(|(channel, _)| *channel == Channel::Whatsapp);
    let further = config.contacts.iter().filter(over_whatsapp).map(|contact| &contact.language);
    let missing = further.chain([&config.counsellor.language]).flat_map(|wanted| texts.all_unapproved(wanted));
    missing.map(|(purpose, language)| Unapproved { purpose, language: language.clone() }).collect()
}

impl Unapproved {
    /// The key that it is to be set as.
    pub(crate) fn key(&self) -> String {
        let Self { purpose, language } = self;
        let of = if purpose.is_alert() { String::new() } else { format!("_{}", purpose.as_str()) };
        format!("templates.content_sids.{language}{of}")
    }

    /// The fault that it is where it is one.
    pub(crate) fn fault(&self) -> Fault {
        let [problem, remedy] = UNAPPROVED;
        Fault { subject: self.key(), problem: problem.to_owned(), remedy: remedy.to_owned() }
    }

    /// What is worth a warning of it.
    pub(crate) fn note(&self) -> String {
        let instead = match self.purpose {
            Purpose::CounsellorAlert => "",
            Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder => {
                "; whoever the ladder tells by text message as well gets one instead"
            }
            Purpose::EmergencyContact => ", and relatives have sent none",
        };
        let why = "WhatsApp takes free text only for 24 hours after a person's message";
        format!("{} is not set: {why}{instead}", self.key())
    }

    /// Whether it is a fault in production, and whether the start is refused for it.
    pub(crate) const fn gravity(&self) -> Gravity {
        match self.purpose {
            Purpose::CounsellorAlert => Gravity::RefusesStart,
            // Nobody whom it is for has ever written, so that over WhatsApp it never arrives. But an approval takes days, and
            // whoever upgrades meanwhile must not be left without alerts for a message that comes after them.
            Purpose::EmergencyContact => Gravity::Fault,
            // It goes by text message instead, and the case goes on without it.
            Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder => Gravity::Note,
        }
    }
}

/// What a missing template is in production. In development it is never more than a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// Alerts do not arrive.
    RefusesStart,
    /// `check` fails, and the start warns.
    Fault,
    /// It is worth a warning.
    Note,
}

/// Texts of a directory are held against the templates where they are read, by the same rule.
fn templates(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    if config.templates.dir.is_some() || !wants_twilio(config, r) {
        return;
    }
    let texts = config.texts(TemplateSet::builtin(), true);
    let [rule, remedy] = UNAPPROVED;
    // What refuses no start is told where the texts are, by the same rule.
    for missing in unapproved(config, &texts).iter().filter(|missing| missing.gravity() == Gravity::RefusesStart) {
        let key = missing.key();
        if r.any_faulty(&[&key, "counsellor.language"]) {
            continue;
        }
        if production(config) {
            r.fault(&key, rule, remedy);
        } else {
            notes.push(missing.note());
        }
    }
}

fn counsellor(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    const TO: &str = "counsellor.whatsapp_to";
    if r.is_set(TO) {
        return;
    }
    if production(config) {
        r.fault(TO, "is missing: nobody would be told", "set the number of the person to be told first");
    } else {
        notes.push("counsellor.whatsapp_to is not set: there is nobody to be told".into());
    }
}

/// Notices name the installation and its cases' references, and the addresses are secrets: nobody on the way may read them.
fn ops(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    let ops = &config.ops;
    let is_plain = |url: &str| !url.starts_with("https://");
    let slack = ops.slack_url.as_ref().is_some_and(|url| is_plain(url.expose()));
    let heartbeat = ops.heartbeat_url.as_ref().is_some_and(|url| is_plain(url.expose()));
    let pagerduty = is_plain(ops.pagerduty_url.as_str());
    for (key, plain) in [("ops.slack_url", slack), ("ops.pagerduty_url", pagerduty), ("ops.heartbeat_url", heartbeat)] {
        if production(config) && plain {
            r.fault(key, "must be https in production", "write https://");
        }
    }
    let template = ops.whatsapp_content_sid.is_some() || r.any_faulty(&["ops.whatsapp_content_sid"]);
    if production(config) && !ops.whatsapp_to.is_empty() && !template {
        let rule =
            "is missing, while ops.whatsapp_to is set: outside the 24 hours WhatsApp takes only approved templates";
        r.fault("ops.whatsapp_content_sid", rule, "have the template approved, and set its HX… id");
    }
    let sender = r.is_set("twilio.sms_from") || r.is_set("twilio.messaging_service_sid");
    if wants_twilio(config, r) && !ops.sms_to.is_empty() && !sender {
        let rule = "is set, while neither twilio.sms_from nor twilio.messaging_service_sid is";
        r.fault("ops.sms_to", rule, "set one of the two, or leave out ops.sms_to");
    }
    let twilio = &config.twilio;
    for (key, sender, phones) in
        [("ops.sms_to", &twilio.sms_from, &ops.sms_to), ("ops.whatsapp_to", &twilio.whatsapp_from, &ops.whatsapp_to)]
    {
        if sender.as_ref().is_some_and(|sender| phones.contains(sender)) {
            r.fault(key, "hold the sender's own number", "set the numbers of those to be told");
        }
    }
    if production(config) && ops.slack_url.is_none() && ops.pagerduty_key.is_none() {
        notes.push("nobody is told of alarms while Twilio is away: set ops.slack_url or ops.pagerduty_key, or have the log watched".into());
    }
}

fn storage(config: &Config, r: &mut Reader<'_>) {
    match config.store.kind {
        StoreKind::Sqlite => one_instance(config, r),
        StoreKind::Firestore => firestore(config, r),
    }
    let keyring = &config.keyring;
    if production(config) && !r.is_set("keyring.master_key") {
        let remedy = "make one with: head -c 32 /dev/urandom | base64; keep a copy where the database is not";
        r.fault("keyring.master_key", "is missing", remedy);
    }
    let mut seen = BTreeSet::new();
    let mut all = keyring.master_key.iter().chain(&keyring.former_master_keys);
    if !all.all(|key| seen.insert(key.expose())) {
        r.fault("keyring.former_master_keys", "holds a key twice, or the present one", "name each former key once");
    }
}

/// A file belongs to one process: further instances would not start, and this one would send too slowly.
fn one_instance(config: &Config, r: &mut Reader<'_>) {
    const KEY: &str = "worker.instances";
    if config.worker.instances > 1 && !r.any_faulty(&[KEY, "store.kind"]) {
        r.fault(KEY, "must be 1, while store.kind is sqlite", "leave it at 1, or keep the data in firestore");
    }
}

fn firestore(config: &Config, r: &mut Reader<'_>) {
    const PROJECT: &str = "store.firestore.project_id";
    const EMULATOR: &str = "store.firestore.emulator_host";
    if !r.is_set(PROJECT) {
        r.fault(PROJECT, "is missing, while store.kind is firestore", "set the Google Cloud project's id");
    }
    if production(config) && r.is_set(EMULATOR) {
        let rule = "is refused in production: the emulator forgets accepted alerts when it ends";
        r.fault(EMULATOR, rule, "leave it empty: then Google's service is used");
    }
    let store = &config.store.firestore;
    ordered(
        r,
        ("store.firestore.read_timeout", store.read_timeout),
        ("store.firestore.commit_timeout", store.commit_timeout),
    );
    // A change that its caller no longer waits for is still made.
    ordered(
        r,
        ("store.firestore.commit_timeout", store.commit_timeout),
        ("http.shutdown_grace", config.http.shutdown_grace),
    );
}

fn callers(config: &Config, r: &mut Reader<'_>, notes: &mut Vec<String>) {
    let keys = &config.auth.api_keys;
    let jwt_set = r.is_set("auth.jwt.jwks_url") || r.is_set("auth.jwt.secret");
    let faulty = r.any_faulty_under("auth.api_key");
    if keys.is_empty() && !jwt_set && !faulty {
        if production(config) {
            let remedy = "set API_KEY_SERVICE_SHA256 for the backend, and JWT_JWKS_URL or further keys for people";
            r.fault("auth.api_keys", "are missing, and so is JWT: nobody could call", remedy);
        } else {
            notes.push("neither an API key nor JWT is configured".into());
        }
    }
    let mut hashes = BTreeSet::new();
    let mut ids = BTreeSet::new();
    if !keys.iter().all(|key| hashes.insert(key.sha256.as_bytes())) {
        r.fault(
            "auth.api_keys",
            "hold one key's hash twice, so that its role is in doubt",
            "give each role its own key",
        );
    }
    if !keys.iter().all(|key| ids.insert(&key.id)) {
        r.fault(
            "auth.api_keys",
            "hold one id twice",
            "name each key once (service-1, admin-1 … are taken by the variables)",
        );
    }
}

fn jwt(config: &Config, r: &mut Reader<'_>) {
    let [url, secret] = ["auth.jwt.jwks_url", "auth.jwt.secret"];
    if r.is_set(url) && r.is_set(secret) {
        r.fault(secret, "is set, and so is auth.jwt.jwks_url", "keep the one that your identity provider uses");
    }
    if production(config) && r.is_set(secret) {
        let rule = "is refused in production: who can check such a token can also make one";
        r.fault(secret, rule, "set auth.jwt.jwks_url instead");
    }
    for key in ["auth.jwt.issuer", "auth.jwt.audience"] {
        if r.is_set(url) && !r.is_set(key) {
            let rule = "is missing, while auth.jwt.jwks_url is set: any token of that provider would do";
            r.fault(key, rule, "copy it from the identity provider's settings");
        }
    }
    if let Some(JwtKey::Jwks(address)) = config.auth.jwt.as_ref().map(|jwt| &jwt.key)
        && address.scheme() != "https"
        && (production(config) || is_public(address))
    {
        r.fault(url, "must be https: whoever alters the answer can sign in as anybody", "write https://");
    }
}
