//! Every key is read here, section by section, in the order of `config/default.toml`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use url::Url;

use super::ladder;
use super::names::{CONTENT_SIDS, meant};
use super::reader::{Reader, Rule, is_placeholder, parse_duration, show_duration};
use super::settings::*;
use super::values::{ApiRole, KeyHash, LogFormat, MasterKey, Mode, Sid, StoreKind};
use crate::domain::contact::{Language, PhoneNumber};
use crate::domain::ids::{ContactId, OrganisationId};
use crate::domain::message::{Purpose, SenderName};
use crate::secret::Secret;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}
const fn m(n: u64) -> Duration {
    s(60 * n)
}
const fn h(n: u64) -> Duration {
    m(60 * n)
}
const fn d(n: u64) -> Duration {
    h(24 * n)
}

/// Reads the whole configuration; the rules between keys come later.
pub(super) fn read(r: &mut Reader<'_>) -> Config {
    let mode = r.word("mode", Mode::WORDS, Mode::from_word, Mode::Development);
    let http = http(r);
    let organisation = organisation(r);
    let counsellor = counsellor(r);
    let contacts = ladder::contacts(r);
    Config {
        mode,
        http,
        decision: decision(r),
        policy: policy(r, &counsellor, &contacts),
        counsellor,
        contacts,
        desk: desk(r),
        delivery: delivery(r),
        drills: drills(r),
        twilio: twilio(r),
        templates: templates(r),
        worker: Worker {
            poll: poll(r),
            instances: r.whole("worker.instances", 1..=1_000),
            queue_max: r.whole("worker.queue_max", 1..=1_000_000),
            due_batch: r.whole("worker.due_batch", 1..=10_000),
        },
        ops: ops(r, &organisation.id),
        store: store(r),
        keyring: keyring(r),
        auth: auth(r, &organisation.id),
        organisation,
        rate_limits: RateLimits {
            service_per_second: r.whole("rate_limits.service_per_second", 1..=1_000_000),
            person_per_second: r.whole("rate_limits.person_per_second", 1..=10_000),
            webhook_per_second: r.whole("rate_limits.webhook_per_second", 100..=1_000_000),
            failed_auth_per_minute: r.whole("rate_limits.failed_auth_per_minute", 1..=10_000),
        },
        idempotency: Idempotency { keep: r.duration("idempotency.keep", h(1)..=d(30)) },
        log: log(r),
        simulator: Simulator {
            bind: address(r, "simulator.bind"),
            sent_after: r.duration("simulator.sent_after", ms(0)..=m(10)),
            delivered_after: r.duration("simulator.delivered_after", ms(0)..=m(10)),
            read_after: r.duration("simulator.read_after", ms(0)..=m(10)),
        },
        lines: Vec::new(),
        notes: Vec::new(),
    }
}

fn quoted(text: &impl ToString) -> String {
    format!("\"{}\"", text.to_string())
}

fn address(r: &mut Reader<'_>, key: &str) -> SocketAddr {
    const RULE: Rule =
        Rule { rule: "must be an IP address and a port", remedy: "write it like 127.0.0.1:8080 or [::]:8080" };
    r.required(key, &RULE, |text| text.parse().ok(), quoted, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn http(r: &mut Reader<'_>) -> Http {
    let chosen = !r.is_default("http.bind");
    let mut bind = address(r, "http.bind");
    let port: u16 = r.whole("http.port", 0..=65_535);
    if port != 0 {
        bind.set_port(port);
        if !chosen {
            // Who gives a port and nothing else is a platform that connects from outside.
            bind.set_ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
    }
    Http {
        bind,
        body_limit_bytes: r.whole("http.body_limit_bytes", 1_024..=10_485_760),
        request_timeout: r.duration("http.request_timeout", ms(100)..=m(5)),
        header_timeout: r.duration("http.header_timeout", ms(100)..=m(1)),
        max_connections: r.whole("http.max_connections", 1..=1_000_000),
        shutdown_grace: r.duration("http.shutdown_grace", s(1)..=m(10)),
        trusted_proxies: r.whole("http.trusted_proxies", 0..=16),
    }
}

fn organisation(r: &mut Reader<'_>) -> Organisation {
    const NAME: Rule = Rule {
        rule: "must be 1 to 20 letters, digits, single spaces, '-' or '&' (ASCII), without a word that tells of a crisis",
        remedy: "choose a short name that people at the college know",
    };
    const ZONE: Rule = Rule {
        rule: "must be the name of a time zone in the IANA database",
        remedy: "write it like Asia/Kolkata or Europe/Berlin",
    };
    Organisation {
        id: slug(r, "organisation.id"),
        name: r.required(
            "organisation.name",
            &NAME,
            |text| text.parse::<SenderName>().ok().map(String::from),
            quoted,
            String::new(),
        ),
        time_zone: r.required(
            "organisation.time_zone",
            &ZONE,
            |name| TimeZone::get(name).ok(),
            |zone| quoted(&zone.iana_name().unwrap_or("UTC")),
            TimeZone::UTC,
        ),
    }
}

/// An id of the domain, which may not be missing.
fn slug<T: FromStr + ToString>(r: &mut Reader<'_>, key: &str) -> T {
    const RULE: Rule =
        Rule { rule: "must be 1 to 64 letters, digits, '-' or '_'", remedy: "choose such an id and never change it" };
    r.required(key, &RULE, |text| text.parse().ok(), quoted, known_good("stand-in"))
}

/// Parses a text that stands in the code.
#[expect(clippy::expect_used, reason = "only constants come here, and every one of them is read in the tests")]
fn known_good<T: FromStr>(text: &'static str) -> T {
    text.parse().ok().expect("a constant of the right form")
}

fn phone(r: &mut Reader<'_>, key: &str) -> Option<PhoneNumber> {
    const RULE: Rule = Rule {
        rule: "must be a phone number in E.164 form",
        remedy: "write + and the country code, digits only, with or without whatsapp: before it",
    };
    r.optional(key, &RULE, |text| text.parse().ok(), |number: &PhoneNumber| format!("\"{number}\""))
}

fn counsellor(r: &mut Reader<'_>) -> Counsellor {
    const LANGUAGE: Rule =
        Rule { rule: "must be a language tag of two or three small letters", remedy: "write it like en or hi" };
    Counsellor {
        contact_id: slug::<ContactId>(r, "counsellor.contact_id"),
        whatsapp_to: phone(r, "counsellor.whatsapp_to"),
        sms_to: phone(r, "counsellor.sms_to"),
        voice_to: phone(r, "counsellor.voice_to"),
        language: r.required(
            "counsellor.language",
            &LANGUAGE,
            |text| text.parse().ok(),
            quoted,
            known_good::<Language>("en"),
        ),
    }
}

fn decision(r: &mut Reader<'_>) -> Decision {
    Decision {
        threshold: r.number("decision.threshold", 0.01..=1.0),
        repage_rise: r.number("decision.repage_rise", 0.01..=1.0),
        band_high: r.number("decision.band_high", 0.01..=1.0),
        band_critical: r.number("decision.band_critical", 0.01..=1.0),
        occurred_at_future_max: r.duration("decision.occurred_at_future_max", s(0)..=h(1)),
        occurred_at_past_max: r.duration("decision.occurred_at_past_max", m(1)..=d(30)),
        message_chars_max: r.whole("decision.message_chars_max", 100..=20_000),
        metadata_bytes_max: r.whole("decision.metadata_bytes_max", 0..=65_536),
        metadata_keys_max: r.whole("decision.metadata_keys_max", 0..=256),
    }
}

fn policy(r: &mut Reader<'_>, counsellor: &Counsellor, contacts: &[Contact]) -> Policy {
    let people = ladder::People::new(counsellor, contacts);
    let steps = ladder::steps(r, &people);
    let (last_responder, last_responder_channels) = ladder::last_responder(r, &people);
    Policy {
        steps,
        last_responder,
        last_responder_channels,
        fall_over_after: r.duration("policy.fall_over_after", s(5)..=m(10)),
        repeat_every: r.duration("policy.repeat_every", s(10)..=h(1)),
        rounds: r.whole("policy.rounds", 1..=100),
        last_responder_every: r.duration("policy.last_responder_every", s(10)..=h(1)),
        retry_when_all_failed: r.duration("policy.retry_when_all_failed", s(1)..=m(10)),
        acknowledged_action_within: r.duration("policy.acknowledged_action_within", m(1)..=d(1)),
        check_in_within: r.duration("policy.check_in_within", m(1)..=h(1)),
        resolve_by_reply: yes_or_no(r, "policy.resolve_by_reply"),
        emergency_contact_after: emergency_contact_after(r),
        respond_within: r.duration("policy.respond_within", m(1)..=h(1)),
    }
}

fn emergency_contact_after(r: &mut Reader<'_>) -> Option<Duration> {
    const RULE: Rule =
        Rule { rule: "must be a span of time from 1m to 1d", remedy: "write it like 20m, or leave it out" };
    let span = |text: &str| parse_duration(text).filter(|span| (m(1)..=d(1)).contains(span));
    r.optional("policy.emergency_contact_after", &RULE, span, |span| quoted(&show_duration(*span)))
}

fn desk(r: &mut Reader<'_>) -> Desk {
    const NAME: Rule = Rule {
        rule: "must be 1 to 20 letters, digits, single spaces, '-' or '&' (ASCII), without a word that tells of a crisis",
        remedy: "choose what a relative may read: it stands in messages",
    };
    let name = |text: &str| text.parse::<SenderName>().ok().map(String::from);
    Desk { name: r.required("desk.name", &NAME, name, quoted, String::new()), phone: phone(r, "desk.phone") }
}

/// A drill may wait for another for an hour, so no two may be due within one.
const DRILLS_APART: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

fn drills(r: &mut Reader<'_>) -> Drills {
    const KEY: &str = "drills.daily_at";
    const RULE: Rule =
        Rule { rule: "must be times of day", remedy: "write it like 10:30, or several like [\"10:30\", \"22:15\"]" };
    let time = |text: &str| text.parse::<jiff::civil::Time>().ok().filter(|_| text.len() == 5);
    let mut daily_at = r.several(KEY, &RULE, time, |time| format!("\"{}\"", time.strftime("%H:%M")));
    daily_at.sort_unstable();
    let gaps = daily_at.iter().zip(daily_at.iter().skip(1)).map(|(one, next)| next.duration_since(*one));
    // And from the last of a day to the first of the next.
    let night = daily_at.first().zip(daily_at.last()).filter(|_| daily_at.len() > 1);
    let night = night.map(|(first, last)| first.duration_since(*last) + jiff::SignedDuration::from_hours(24));
    if gaps.chain(night).any(|gap| gap < DRILLS_APART) {
        r.fault(KEY, "must be an hour apart from each other", "leave out one of two that are closer");
    }
    Drills { daily_at }
}

fn yes_or_no(r: &mut Reader<'_>, key: &str) -> bool {
    if let Some(truth) = r.truth(key) {
        r.show(key, truth.to_string());
        return truth;
    }
    let words = ["yes", "no"];
    let known = |word: &str| words.contains(&word).then(|| word.to_owned());
    r.word(key, &words, known, "no".to_owned()) == "yes"
}

fn delivery(r: &mut Reader<'_>) -> Delivery {
    Delivery {
        lease: r.duration("delivery.lease", s(2)..=m(10)),
        attempts_max: r.whole("delivery.attempts_max", 1..=50),
        give_up_after: r.duration("delivery.give_up_after", s(10)..=h(4)),
        backoff_base: r.duration("delivery.backoff_base", ms(10)..=m(1)),
        backoff_max: r.duration("delivery.backoff_max", ms(10)..=m(10)),
        retry_after_max: r.duration("delivery.retry_after_max", s(1)..=m(10)),
        look_up_first: r.duration("delivery.look_up_first", ms(100)..=m(1)),
        look_up_then: r.duration("delivery.look_up_then", ms(100)..=m(5)),
        look_up_lost: r.duration("delivery.look_up_lost", ms(100)..=m(1)),
        look_ups_max: r.whole("delivery.look_ups_max", 1..=20),
        receipt_poll_first: r.duration("delivery.receipt_poll_first", s(1)..=h(1)),
        receipt_poll_max: r.duration("delivery.receipt_poll_max", s(1)..=h(4)),
        receipt_polls_max: r.whole("delivery.receipt_polls_max", 1..=100),
        phone_per_minute: r.whole("delivery.phone_per_minute", 1..=1_000),
    }
}

fn sid(r: &mut Reader<'_>, key: &str, kind: &'static str) -> Option<Sid> {
    let rule = match kind {
        "AC" => Rule {
            rule: "must be AC and 32 hexadecimal digits",
            remedy: "copy it from the Twilio console's front page",
        },
        "SK" => {
            Rule { rule: "must be SK and 32 hexadecimal digits", remedy: "copy it from API keys in the Twilio console" }
        }
        "MG" => Rule {
            rule: "must be MG and 32 hexadecimal digits",
            remedy: "copy it from Messaging services in the Twilio console",
        },
        _ => Rule {
            rule: "must be HX and 32 hexadecimal digits",
            remedy: "copy it from the Content template builder in the Twilio console",
        },
    };
    r.optional(key, &rule, |text| Sid::parse(text, kind), quoted)
}

fn twilio(r: &mut Reader<'_>) -> Twilio {
    const TOKEN: Rule = Rule {
        rule: "must be 8 to 256 visible characters without spaces",
        remedy: "copy it from the Twilio console, whole and unquoted",
    };
    let is_token = |text: &str| (8..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let account_sid = sid(r, "twilio.account_sid", "AC");
    let auth_token = r.secret("twilio.auth_token", &TOKEN, is_token);
    let api_key_sid = sid(r, "twilio.api_key_sid", "SK");
    let api_key_secret = r.secret("twilio.api_key_secret", &TOKEN, is_token);
    let api_key = api_key_sid.zip(api_key_secret).map(|(sid, secret)| TwilioApiKey { sid, secret });
    let credentials = account_sid.zip(auth_token).map(|(account_sid, auth_token)| TwilioCredentials {
        account_sid,
        auth_token,
        api_key,
    });
    Twilio {
        credentials,
        whatsapp_from: phone(r, "twilio.whatsapp_from"),
        sms_from: phone(r, "twilio.sms_from"),
        voice_from: phone(r, "twilio.voice_from"),
        messaging_service_sid: sid(r, "twilio.messaging_service_sid", "MG"),
        verification_content_sid: sid(r, "twilio.verification_content_sid", "HX"),
        api_base_url: api_base_url(r),
        webhook_base_url: r.url("twilio.webhook_base_url"),
        whatsapp_per_second: r.whole("twilio.whatsapp_per_second", 1..=100_000),
        sms_per_second: r.whole("twilio.sms_per_second", 1..=100_000),
        calls_per_second: r.whole("twilio.calls_per_second", 1..=1_000),
        ring_timeout: r.duration("twilio.ring_timeout", s(10)..=m(1)),
        max_concurrency: r.whole("twilio.max_concurrency", 1..=1_000),
        connect_timeout: r.duration("twilio.connect_timeout", ms(100)..=m(1)),
        request_timeout: r.duration("twilio.request_timeout", ms(500)..=m(2)),
        breaker_failures: r.whole("twilio.breaker_failures", 1..=1_000),
        breaker_open_first: r.duration("twilio.breaker_open_first", ms(100)..=m(5)),
        breaker_open_max: r.duration("twilio.breaker_open_max", ms(100)..=m(10)),
    }
}

/// `api_base_url`, or `https://api.<edge>.<region>.twilio.com`, or the plain host.
///
/// Source: Twilio's page on the REST API outside the default Region; its libraries take `us1` for an edge alone.
fn api_base_url(r: &mut Reader<'_>) -> Url {
    const PLACE: Rule =
        Rule { rule: "must be a word of small letters and digits", remedy: "copy it from Twilio's list" };
    let is_label = |text: &str| {
        text.len() <= 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let place = |text: &str| is_label(text).then(|| text.to_owned());
    let region = r.optional("twilio.region", &PLACE, place, quoted);
    let edge = r.optional("twilio.edge", &PLACE, place, quoted);
    if let Some(url) = r.url("twilio.api_base_url") {
        return url;
    }
    let made = edge.map(|edge| format!("https://api.{edge}.{}.twilio.com", region.as_deref().unwrap_or("us1")));
    made.and_then(|text| Url::parse(&text).ok()).unwrap_or_else(|| known_good("https://api.twilio.com"))
}

fn templates(r: &mut Reader<'_>) -> Templates {
    let (mut content_sids, mut notice_sids) = (BTreeMap::new(), BTreeMap::new());
    for tag in r.under(CONTENT_SIDS) {
        let found = sid(r, &format!("{CONTENT_SIDS}.{tag}"), "HX");
        match notice_and_language(&tag) {
            Some(notice) => notice_sids.extend(found.map(|sid| (notice, sid))),
            None => content_sids.extend(tag.parse::<Language>().ok().zip(found)),
        }
    }
    let dashboard_url = r.url("templates.dashboard_url");
    Templates { dir: path(r, "templates.dir"), content_sids, notice_sids, dashboard_url }
}

/// Reads `en_taken_notice`.
pub(super) fn notice_and_language(tag: &str) -> Option<(Purpose, Language)> {
    let (language, purpose) = tag.split_once('_')?;
    let purpose = Purpose::from_word(purpose).filter(|purpose| !purpose.is_alert())?;
    Some((purpose, language.parse().ok()?))
}

fn path(r: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    const RULE: Rule = Rule { rule: "must be a path", remedy: "write it without NUL" };
    r.optional(key, &RULE, |text| (!text.contains('\0')).then(|| PathBuf::from(text)), |path| quoted(&path.display()))
}

fn required_path(r: &mut Reader<'_>, key: &str) -> PathBuf {
    const REMEDY: &str = "name a file on a disk that outlives the process";
    if !r.is_set(key) {
        r.fault(key, "must not be empty", REMEDY);
    }
    if r.is_text(key, ":memory:") {
        r.fault(key, "must be a file: memory forgets accepted alerts", REMEDY);
    }
    path(r, key).unwrap_or_default()
}

/// Each look is at least one read, and Firestore's are paid for: unless somebody has chosen, there are fewer there.
fn poll(r: &mut Reader<'_>) -> Duration {
    const KEY: &str = "worker.poll";
    let range = ms(50)..=s(10);
    if r.is_default(KEY) && r.is_text("store.kind", "firestore") {
        return r.duration_instead(KEY, range, FIRESTORE_POLL);
    }
    r.duration(KEY, range)
}

/// Between two looks for due alerts, where the store is Firestore and nothing else was chosen.
const FIRESTORE_POLL: Duration = s(2);

/// An address that is a secret, because whoever knows it can use it.
fn secret_url(r: &mut Reader<'_>, key: &str) -> Option<Secret> {
    const ADDRESS: Rule = Rule {
        rule: "must be an absolute http or https URL without a user name",
        remedy: "copy it whole from where it was made",
    };
    r.secret(key, &ADDRESS, |text| {
        let url = Url::parse(text);
        url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty())
    })
}

fn ops(r: &mut Reader<'_>, organisation: &OrganisationId) -> Ops {
    const NAME: Rule = Rule {
        rule: "must be 1 to 64 letters, digits, '-', '_' or '.'",
        remedy: "choose what whoever is called at night knows it by",
    };
    const KEY: Rule = Rule {
        rule: "must be 8 to 64 letters and digits",
        remedy: "copy the integration key of an Events API V2 integration from PagerDuty",
    };
    let name = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
    };
    let is_key = |text: &str| (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Ops {
        name: r.optional("ops.name", &NAME, name, quoted).unwrap_or_else(|| organisation.to_string()),
        slack_url: secret_url(r, "ops.slack_url"),
        pagerduty_key: r.secret("ops.pagerduty_key", &KEY, is_key),
        pagerduty_url: r.url("ops.pagerduty_url").unwrap_or_else(|| known_good(PAGERDUTY)),
        sms_to: phones(r, "ops.sms_to"),
        whatsapp_to: phones(r, "ops.whatsapp_to"),
        whatsapp_content_sid: sid(r, "ops.whatsapp_content_sid", "HX"),
        phone_every: r.duration("ops.phone_every", s(10)..=h(1)),
        repeat_every: r.duration("ops.repeat_every", m(1)..=d(1)),
        settle_for: r.duration("ops.settle_for", s(0)..=h(1)),
        timeout: r.duration("ops.timeout", ms(100)..=m(1)),
        heartbeat_url: secret_url(r, "ops.heartbeat_url"),
        heartbeat_every: r.duration("ops.heartbeat_every", s(10)..=d(1)),
        work_late_after: r.duration("ops.work_late_after", s(10)..=h(1)),
        withheld_after: r.duration("ops.withheld_after", m(1)..=d(1)),
        failures_in_a_row: r.whole("ops.failures_in_a_row", 1..=1_000),
        failure_share: r.number("ops.failure_share", 0.01..=1.0),
        receipts_missing_share: r.number("ops.receipts_missing_share", 0.01..=1.0),
        silent_in_a_row: r.whole("ops.silent_in_a_row", 1..=1_000),
        share_window: r.duration("ops.share_window", m(1)..=d(1)),
        share_of_at_least: r.whole("ops.share_of_at_least", 1..=100_000),
    }
}

/// How many phones of the operator's there may be over each channel.
const OPS_PHONES_MAX: usize = 8;

fn phones(r: &mut Reader<'_>, key: &str) -> Vec<PhoneNumber> {
    let texts = r.list(key);
    let numbers: Vec<PhoneNumber> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if numbers.len() != texts.len() {
        r.fault(key, "must each be a phone number in E.164 form", "write + and the country code, digits only");
    }
    if numbers.len() > OPS_PHONES_MAX {
        r.fault(
            key,
            format!("are too many: at the most {OPS_PHONES_MAX}"),
            "name who is on call, and use PagerDuty for more",
        );
    }
    numbers
}

/// Where PagerDuty's Events API is, unless the account is elsewhere.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

fn store(r: &mut Reader<'_>) -> Store {
    Store {
        kind: r.word("store.kind", StoreKind::WORDS, StoreKind::from_word, StoreKind::Sqlite),
        path: required_path(r, "store.path"),
        readers: r.whole("store.readers", 1..=64),
        group_commit_max: r.whole("store.group_commit_max", 1..=10_000),
        write_queue_max: r.whole("store.write_queue_max", 1..=1_000_000),
        busy_timeout: r.duration("store.busy_timeout", ms(100)..=m(1)),
        firestore: firestore(r),
    }
}

fn firestore(r: &mut Reader<'_>) -> Firestore {
    const EMULATOR: Rule =
        Rule { rule: "must be a host and a port, such as 127.0.0.1:8080", remedy: "take off anything before the host" };
    let quoted = |text: &String| format!("\"{text}\"");
    let default = DEFAULT_DATABASE.to_owned();
    Firestore {
        project_id: r.optional("store.firestore.project_id", &PROJECT_ID, project_id, quoted),
        database_id: r.required("store.firestore.database_id", &DATABASE_ID, database_id, quoted, default),
        emulator_host: r.optional("store.firestore.emulator_host", &EMULATOR, host_and_port, quoted),
        connect_timeout: r.duration("store.firestore.connect_timeout", s(1)..=m(5)),
        read_timeout: r.duration("store.firestore.read_timeout", ms(500)..=m(1)),
        commit_timeout: r.duration("store.firestore.commit_timeout", s(1)..=m(2)),
    }
}

/// What a project's first database is called.
pub(crate) const DEFAULT_DATABASE: &str = "(default)";

/// What a project's id must be, in the settings and on the command line.
pub(crate) const PROJECT_ID: Rule = Rule {
    rule: "must be a project's id: 6 to 30 lower-case letters, digits and hyphens, a letter first",
    remedy: "copy it from the Google Cloud console (not the project's name or number)",
};

/// What a database's id must be, likewise.
pub(crate) const DATABASE_ID: Rule = Rule {
    rule: "must be (default), or 4 to 63 lower-case letters, digits and hyphens, a letter first",
    remedy: "leave it as it is, or copy it from: gcloud firestore databases list",
};

pub(crate) fn project_id(text: &str) -> Option<String> {
    named(text, 6..=30)
}

pub(crate) fn database_id(text: &str) -> Option<String> {
    if text == DEFAULT_DATABASE { Some(text.to_owned()) } else { named(text, 4..=63) }
}

fn named(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    (begins && length.contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let fits = !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0);
    fits.then(|| text.to_owned())
}

fn keyring(r: &mut Reader<'_>) -> KeyringConfig {
    const RULE: Rule = Rule {
        rule: "must be base64 of 32 bytes that are not all zero",
        remedy: "make one with: head -c 32 /dev/urandom | base64",
    };
    let master_key = r
        .secret("keyring.master_key", &RULE, |text| MasterKey::from_str(text).is_ok())
        .and_then(|secret| secret.expose().parse().ok());
    let former = r.list("keyring.former_master_keys");
    let former_master_keys: Vec<_> = former.iter().filter_map(|text| text.parse().ok()).collect();
    if former_master_keys.len() != former.len() {
        r.fault("keyring.former_master_keys", "must each be base64 of 32 bytes", "copy each key as it once was set");
    }
    KeyringConfig {
        master_key,
        former_master_keys,
        development_key_path: required_path(r, "keyring.development_key_path"),
    }
}

fn auth(r: &mut Reader<'_>, organisation: &OrganisationId) -> Auth {
    let mut api_keys = Vec::new();
    for (role, key) in [
        (ApiRole::Service, "auth.api_key_sha256.service"),
        (ApiRole::Counsellor, "auth.api_key_sha256.counsellor"),
        (ApiRole::Admin, "auth.api_key_sha256.admin"),
        (ApiRole::Auditor, "auth.api_key_sha256.auditor"),
    ] {
        let texts = r.list(key);
        let hashes: Vec<KeyHash> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        if hashes.len() != texts.len() {
            r.fault(key, HASH.rule, HASH.remedy);
        }
        api_keys.extend(hashes.into_iter().enumerate().map(|(index, sha256)| ApiKey {
            id: format!("{role}-{}", index + 1),
            organisation: organisation.clone(),
            role,
            sha256,
            expires_at: None,
        }));
    }
    for (index, table) in r.tables("auth.api_keys").into_iter().enumerate() {
        api_keys.extend(api_key(r, &format!("auth.api_keys[{index}]"), table, organisation));
    }
    Auth { api_keys, jwt: jwt(r) }
}

const HASH: Rule = Rule {
    rule: "must be the SHA-256 of a key, in 64 hexadecimal digits (and not that of the empty text)",
    remedy: "make it with: printf %s \"$KEY\" | sha256sum",
};

/// One `[[auth.api_keys]]`.
fn api_key(r: &mut Reader<'_>, at: &str, table: &toml::Table, organisation: &OrganisationId) -> Option<ApiKey> {
    const FIELDS: [&str; 5] = ["id", "organisation", "role", "sha256", "expires_at"];
    for field in table.keys().filter(|field| !FIELDS.contains(&field.as_str())) {
        let remedy =
            meant(field, FIELDS).map_or_else(|| "remove it".to_owned(), |near| format!("did you mean {near}?"));
        r.fault(at, "has a field that is none of id, organisation, role, sha256, expires_at", remedy);
    }
    let text = |field: &str| table.get(field).and_then(toml::Value::as_str);
    let mut field = |name: &str, rule: &str, remedy: &str, fits: bool| {
        if !fits {
            r.fault(&format!("{at}.{name}"), rule, remedy);
        }
    };
    let id = text("id").filter(|id| id.parse::<ContactId>().is_ok());
    field("id", "must be 1 to 64 letters, digits, '-' or '_'", "name the key, as logs shall call it", id.is_some());
    let role = text("role").and_then(ApiRole::from_word);
    field("role", "must be service, counsellor, admin or auditor", "choose one of these words", role.is_some());
    let sha256 = text("sha256").and_then(|text| text.parse().ok());
    field("sha256", HASH.rule, HASH.remedy, sha256.is_some());
    let of = if table.contains_key("organisation") {
        text("organisation").and_then(|text| text.parse().ok())
    } else {
        Some(organisation.clone())
    };
    field("organisation", "must be the id of an organisation", "leave it out to mean organisation.id", of.is_some());
    let expires_at = table.get("expires_at").map(|value| {
        let written = value.as_datetime().map_or_else(|| value.as_str().unwrap_or("").to_owned(), ToString::to_string);
        written.parse::<Timestamp>().ok()
    });
    field(
        "expires_at",
        "must be a time with its offset",
        "write it like 2027-01-31T00:00:00Z",
        expires_at != Some(None),
    );
    Some(ApiKey {
        id: id?.to_owned(),
        organisation: of?,
        role: role?,
        sha256: sha256?,
        expires_at: expires_at.flatten(),
    })
}

fn jwt(r: &mut Reader<'_>) -> Option<Jwt> {
    const SECRET: Rule = Rule {
        // RFC 7518, section 3.2: a key of at least the hash's size.
        rule: "must be at least 32 bytes long",
        remedy: "make one with: head -c 32 /dev/urandom | base64",
    };
    const WORD: Rule = Rule {
        rule: "must be 1 to 256 visible characters without spaces",
        remedy: "copy it from the identity provider's settings",
    };
    let word = |text: &str| {
        let fits = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic()) && !is_placeholder(text);
        fits.then(|| text.to_owned())
    };
    let jwks_url = r.url("auth.jwt.jwks_url").map(JwtKey::Jwks);
    let secret = r.secret("auth.jwt.secret", &SECRET, |text| text.len() >= 32).map(JwtKey::Secret);
    let issuer = r.optional("auth.jwt.issuer", &WORD, word, quoted);
    let audience = r.optional("auth.jwt.audience", &WORD, word, quoted);
    let role_claim = r.required("auth.jwt.role_claim", &WORD, word, quoted, String::new());
    let organisation_claim = r.required("auth.jwt.organisation_claim", &WORD, word, quoted, String::new());
    let leeway = r.duration("auth.jwt.leeway", s(0)..=m(5));
    let jwks_refresh = r.duration("auth.jwt.jwks_refresh", m(1)..=d(1));
    let key = jwks_url.or(secret)?;
    Some(Jwt { key, issuer, audience, role_claim, organisation_claim, leeway, jwks_refresh })
}

fn log(r: &mut Reader<'_>) -> Log {
    const FILTER: Rule = Rule {
        rule: "must be a filter that tracing understands",
        remedy: "write it like info or warn,crisis_relay=debug",
    };
    Log {
        format: r.word("log.format", LogFormat::WORDS, LogFormat::from_word, LogFormat::Auto),
        filter: r.required(
            "log.filter",
            &FILTER,
            |text| tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned()),
            quoted,
            String::new(),
        ),
    }
}
