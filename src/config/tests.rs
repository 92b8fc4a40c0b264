//! The promises of the configuration as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use proptest::prelude::*;

use super::layers::{Layers, flatten};
use super::names::{CONFIG_VARIABLE, GENERIC_PREFIX, NAMED, variable_of};
use super::reader::Reader;
use super::*;

const ENV_EXAMPLE: &str = include_str!("../../.env.example");

fn no_file(_: &str) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

pub(super) fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load_map(Some(file), environment)
}

fn load_map(file: Option<&str>, environment: BTreeMap<String, String>) -> Result<Config, ConfigFaults> {
    let file = file.map(|text| ConfigFile { name: "relay.toml".to_owned(), text: text.to_owned() });
    Config::load(&Sources { file, environment, read_file: &no_file })
}

/// The keys that have a fault, each once.
pub(super) fn faulty(result: Result<Config, ConfigFaults>) -> BTreeSet<String> {
    result.err().into_iter().flatten().map(|fault| fault.key).collect()
}

pub(super) fn keys(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const SID: &str = "0123456789abcdef0123456789abcdef";
const HASH_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const HASH_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// Everything that production asks for.
fn production() -> BTreeMap<String, String> {
    [
        ("CRISIS_RELAY_MODE", "production".to_owned()),
        ("TWILIO_ACCOUNT_SID", format!("AC{SID}")),
        ("TWILIO_AUTH_TOKEN", SID.to_owned()),
        ("TWILIO_WHATSAPP_FROM", "whatsapp:+4915112345678".to_owned()),
        ("TWILIO_WEBHOOK_BASE_URL", "https://relay.example.org/".to_owned()),
        ("TWILIO_CONTENT_SID_EN", format!("HX{SID}")),
        ("COUNSELLOR_WHATSAPP_TO", "+919876543210".to_owned()),
        ("MASTER_KEY", KEY.to_owned()),
        ("API_KEY_SERVICE_SHA256", HASH_A.to_owned()),
        ("OPS_SLACK_URL", "https://hooks.example.org/of-the-operator".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Production with some variables changed; an empty one is taken away.
pub(super) fn production_with(changes: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let mut environment = production();
    environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    load_map(None, environment)
}

/// The same, with a file.
fn production_file(file: &str, changes: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let mut environment = production();
    environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    load_map(Some(file), environment)
}

// --- the documentation agrees with the code -----------------------------------------------------------------------

fn documented() -> BTreeMap<String, toml::Value> {
    flatten(DEFAULT_TOML.parse().unwrap()).into_iter().collect()
}

/// Each key of `default.toml` with the comment that stands above it.
fn comments() -> BTreeMap<String, String> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), BTreeMap::new());
    for line in DEFAULT_TOML.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
            comment.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.insert(format!("{section}{key}"), std::mem::take(&mut comment));
        } else {
            comment.clear();
        }
    }
    found
}

#[test]
fn every_documented_key_is_read_and_every_key_that_is_read_is_documented() {
    let config = load("", &[]).unwrap();
    let read: Vec<_> = config.lines.iter().map(|line| line.key.clone()).collect();
    let once: BTreeSet<_> = read.iter().cloned().collect();
    assert_eq!(once.len(), read.len(), "a key is read twice");
    assert_eq!(once, documented().into_keys().collect());
}

#[test]
fn every_key_has_a_comment_with_its_variable_and_its_range() {
    let comments = comments();
    assert_eq!(comments.keys().cloned().collect::<BTreeSet<_>>(), documented().into_keys().collect());
    for (key, comment) in &comments {
        assert!(!comment.trim().is_empty(), "{key} has no comment");
    }
    for named in NAMED {
        let comment = &comments[named.key];
        assert!(comment.contains(&format!("Environment: {}.", named.variable)), "{}", named.key);
        assert_eq!(comment.contains("[secret]"), named.secret, "{}", named.key);
    }
    let layers =
        Layers::gather(&Sources { file: None, environment: BTreeMap::new(), read_file: &no_file }, &mut Vec::new());
    let mut reader = Reader::new(&layers, Vec::new());
    sections::read(&mut reader);
    assert!(reader.ranges.len() > 50);
    for (key, range) in &reader.ranges {
        assert!(comments[key].contains(&format!("Range: {range}.")), "{key}: {range}");
    }
    assert_eq!(comments.values().filter(|comment| comment.contains("Range: ")).count(), reader.ranges.len());
}

/// The variables of `.env.example`, with and without a `#` before them.
fn example_variables() -> BTreeSet<String> {
    ENV_EXAMPLE
        .lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'))
        .collect()
}

#[test]
fn the_example_environment_and_the_code_name_the_same_variables() {
    let of_the_code: BTreeSet<String> = NAMED
        .iter()
        .flat_map(|named| {
            let by_file = named.secret.then(|| format!("{}_FILE", named.variable));
            [Some(named.variable.to_owned()), by_file].into_iter().flatten()
        })
        .chain([CONFIG_VARIABLE.to_owned()])
        .collect();
    let (generic, named): (BTreeSet<_>, BTreeSet<_>) =
        example_variables().into_iter().partition(|name| name.starts_with(GENERIC_PREFIX));
    assert_eq!(named, of_the_code);
    let known: BTreeSet<_> = documented().into_keys().map(|key| variable_of(&key)).collect();
    assert!(!generic.is_empty() && generic.is_subset(&known), "{generic:?}");
}

#[test]
fn the_example_environment_works_as_it_is() {
    let environment = dotenvy::Iter::new(ENV_EXAMPLE.as_bytes()).collect::<Result<BTreeMap<_, _>, _>>().unwrap();
    assert_eq!(load_map(None, environment).unwrap().mode, Mode::Development);
}

/// The `ENV` of the container image.
fn image_variables() -> Vec<(&'static str, &'static str)> {
    let text = include_str!("../../Dockerfile");
    let env = text.split("\nENV ").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    env.split_whitespace().filter_map(|word| word.split_once('=')).collect()
}

#[test]
fn the_images_variables_are_read_and_open_it_to_the_outside() {
    let variables = image_variables();
    let config = production_with(&variables).unwrap();
    assert_eq!(config.http.bind.to_string(), "0.0.0.0:8080");
    assert!(config.store.path.starts_with("/data") && config.keyring.development_key_path.starts_with("/data"));
    for (variable, _) in variables {
        assert!(config.summary().contains(&format!("# environment {variable}\n")), "{variable}");
    }
}

#[test]
fn every_key_has_a_variable_that_sets_it_and_no_two_share_one() {
    let variables: BTreeSet<_> = documented().into_keys().map(|key| variable_of(&key)).collect();
    assert_eq!(variables.len(), documented().len());
    for named in NAMED {
        assert!(documented().contains_key(named.key), "{}", named.key);
    }
}

// --- layers ------------------------------------------------------------------------------------------------------

#[test]
fn a_development_machine_starts_with_nothing_set() {
    let config = load_map(None, BTreeMap::new()).unwrap();
    assert_eq!(config.mode, Mode::Development);
    assert!(config.twilio.credentials.is_none());
    assert_eq!(config.http.bind, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.delivery.lease.as_secs(), 30);
    assert_eq!(config.twilio.api_base_url.as_str(), "https://api.twilio.com/");
    assert!(config.notes().iter().any(|note| note.contains("to no phone")), "{:?}", config.notes());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let file = "[delivery]\nlease = '40s'\nattempts_max = 7\n[templates.content_sids]\nta = 'HX0123456789abcdef0123456789abcdef'";
    let config = load(file, &[("CRISIS_RELAY__DELIVERY__LEASE", "50s"), ("CRISIS_THRESHOLD", "0.7")]).unwrap();
    assert_eq!(config.delivery.lease.as_secs(), 50);
    assert_eq!(config.delivery.attempts_max, 7);
    assert_eq!(config.decision.threshold, 0.7);
    assert_eq!(config.delivery.look_ups_max, 3);
    assert_eq!(config.templates.content_sids.len(), 1);
    let summary = config.summary();
    for line in [
        "lease = \"50s\"  # environment CRISIS_RELAY__DELIVERY__LEASE",
        "attempts_max = 7  # file relay.toml",
        "look_ups_max = 3  # default",
    ] {
        assert!(summary.contains(line), "{line} in {summary}");
    }
}

#[test]
fn what_a_later_step_would_refuse_is_told_with_all_other_faults() {
    for name in ["", "A name of twenty-1 let", "Zwölf", "a  b", "{name}"] {
        assert_eq!(
            faulty(load(&format!("[organisation]\nname = '{name}'"), &[])),
            keys(&["organisation.name"]),
            "{name}"
        );
    }
    let same = "[twilio]\nconnect_timeout = '5s'\nrequest_timeout = '5s'";
    assert_eq!(faulty(load(same, &[])), keys(&["twilio.connect_timeout"]));
}

#[test]
fn an_empty_variable_leaves_the_layer_below_and_an_empty_text_in_a_file_takes_the_value_away() {
    let config = load("[counsellor]\nwhatsapp_to = '+919876543210'", &[("COUNSELLOR_WHATSAPP_TO", " ")]).unwrap();
    assert!(config.counsellor.whatsapp_to.is_some());
    assert_eq!(faulty(load("[organisation]\nname = ''", &[])), keys(&["organisation.name"]));
}

#[test]
fn one_key_set_by_two_variables_is_a_fault() {
    let both = [("CRISIS_RELAY__TWILIO__SMS_FROM", "+15005550006"), ("TWILIO_SMS_FROM", "+15005550006")];
    assert_eq!(faulty(load("", &both)), keys(&["twilio.sms_from"]));
}

#[test]
fn a_platforms_port_alone_opens_every_address_and_a_chosen_address_is_kept() {
    let bind = |variables: &[(&str, &str)]| load("", variables).unwrap().http.bind.to_string();
    assert_eq!(bind(&[("PORT", "9000")]), "0.0.0.0:9000");
    assert_eq!(bind(&[("PORT", "9000"), ("HTTP_BIND", "127.0.0.1:1")]), "127.0.0.1:9000");
    assert_eq!(bind(&[("HTTP_BIND", "[::]:1")]), "[::]:1");
}

#[test]
fn an_edge_makes_the_api_host_and_a_base_url_replaces_it() {
    let url = |variables: &[(&str, &str)]| load("", variables).unwrap().twilio.api_base_url.to_string();
    assert_eq!(url(&[("TWILIO_EDGE", "dublin"), ("TWILIO_REGION", "ie1")]), "https://api.dublin.ie1.twilio.com/");
    assert_eq!(url(&[("TWILIO_EDGE", "dublin")]), "https://api.dublin.us1.twilio.com/");
    assert_eq!(url(&[("TWILIO_API_BASE_URL", "http://127.0.0.1:8090/x/")]), "http://127.0.0.1:8090/x");
    assert_eq!(faulty(load("", &[("TWILIO_REGION", "ie1")])), keys(&["twilio.edge"]));
    let both = [("TWILIO_EDGE", "dublin"), ("TWILIO_API_BASE_URL", "https://api.twilio.com")];
    assert_eq!(faulty(load("", &both)), keys(&["twilio.api_base_url"]));
}

// --- faults ------------------------------------------------------------------------------------------------------

#[test]
fn all_faults_are_told_at_once_each_with_key_variable_and_remedy() {
    let file =
        "mode = 'test'\n[http]\nbnd = 'x'\nbody_limit_bytes = 'many'\n[delivery]\nlease = 30\nbackoff_base = '50s'";
    let variables = [
        ("CRISIS_THRESHOLD", "1.5"),
        ("ORGANISATION_TIME_ZONE", "Asia/Nowhere"),
        ("CRISIS_RELAY__WORKER__POL", "1s"),
        ("TWILIO_API_KEY_SID", "SK1"),
        ("STORE", "firestore"),
    ];
    let faults = load(file, &variables).unwrap_err();
    let found: BTreeSet<_> = faults.iter().map(|fault| fault.key.clone()).collect();
    let expected = [
        "mode",
        "http.bnd",
        "http.body_limit_bytes",
        "delivery.lease",
        "delivery.backoff_base",
        "decision.threshold",
        "organisation.time_zone",
        "worker.pol",
        "twilio.api_key_sid",
        "twilio.api_key_secret",
        "twilio.account_sid",
        "twilio.auth_token",
        "twilio.whatsapp_from",
        "store.firestore.project_id",
    ];
    assert_eq!(found, keys(&expected), "{faults}");
    for fault in faults.iter() {
        assert!(!fault.rule.is_empty() && !fault.remedy.is_empty(), "{fault}");
    }
    let text = faults.to_string();
    for part in [
        "the configuration has 14 faults",
        "did you mean http.bind?",
        "did you mean CRISIS_RELAY__WORKER__POLL?",
        "decision.threshold [environment CRISIS_THRESHOLD]: must be from 0.01 to 1",
        "delivery.lease [file relay.toml]: must be a whole number and a unit",
        "twilio.account_sid [TWILIO_ACCOUNT_SID]: is missing",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_value_of_the_wrong_type_or_out_of_range_is_a_fault_of_its_key() {
    for (key, value) in documented() {
        let (section, name) = key.rsplit_once('.').map_or(("", key.as_str()), |(section, name)| (section, name));
        let header = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        // A truth value is right for no key but one, and a million days are too long or too many for every range.
        for wrong in ["true", "[1]", "{ a = 1 }"] {
            if (wrong, key.as_str()) == ("true", "policy.resolve_by_reply") {
                continue;
            }
            let found = load(&format!("{header}{name} = {wrong}"), &[]).unwrap_err();
            let told = |fault: &ConfigFault| fault.key == key || fault.key == format!("{key}.a");
            assert!(found.iter().any(told), "{key} = {wrong}: {found}");
        }
        let too_much = if value.is_str() { "'1000000d'" } else { "10000000000" };
        if comments()[&key].contains("Range: ") {
            let found = load(&format!("{header}{name} = {too_much}"), &[]);
            assert!(faulty(found).contains(&key), "{key} = {too_much}");
        }
    }
}

#[test]
fn a_broken_file_is_told_by_line_and_column_without_its_text() {
    let faults = load("[twilio]\nauth_token = 'canary\n", &[]).unwrap_err();
    let text = format!("{faults} {faults:?}");
    assert!(text.contains("relay.toml: is not valid TOML at line 2, column"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_placeholder_is_not_taken_for_a_secret() {
    let variables = [("TWILIO_AUTH_TOKEN", "your_auth_token"), ("TWILIO_ACCOUNT_SID", "your_account_sid")];
    let found = faulty(load("", &variables));
    assert!(found.is_superset(&keys(&["twilio.auth_token", "twilio.account_sid"])), "{found:?}");
}

#[test]
fn a_slip_in_a_variables_name_is_noted_and_a_strangers_variable_is_not() {
    let config =
        load("", &[("ORGANIZATION_NAME", "x"), ("COUNSELOR_LANGUAGE", "x"), ("PATH", "x"), ("CRISIS_RELAY_PORT", "x")])
            .unwrap();
    let notes = config.notes().join("\n");
    assert!(notes.contains("ORGANIZATION_NAME is not read; ORGANISATION_NAME"), "{notes}");
    assert!(notes.contains("COUNSELOR_LANGUAGE is not read; COUNSELLOR_LANGUAGE"), "{notes}");
    assert_eq!(notes.matches("is not read").count(), 2, "{notes}");
}

// --- rules between keys ------------------------------------------------------------------------------------------

#[test]
fn the_operators_webhooks_are_secrets_over_https_and_their_absence_is_noted() {
    let config = production_with(&[("OPS_PAGERDUTY_KEY", SID)]).unwrap();
    let shown = format!("{} {config:?}", config.summary());
    assert!(!shown.contains("of-the-operator") && !shown.contains(SID), "{shown}");
    assert_eq!(config.ops.name, "default");
    let plain = "CRISIS_RELAY__OPS__PAGERDUTY_URL";
    assert_eq!(faulty(production_with(&[(plain, "http://pager.example.org")])), keys(&["ops.pagerduty_url"]));
    for url in ["http://hooks.example.org/x", "hooks.example.org", "https://user@hooks.example.org", "https://"] {
        let found = production_with(&[("OPS_SLACK_URL", url)]).unwrap_err();
        assert!(!found.to_string().contains("hooks"), "{found}");
        assert_eq!(faulty(Err(found)), keys(&["ops.slack_url"]), "{url}");
    }
    let config = production_with(&[("OPS_SLACK_URL", "")]).unwrap();
    assert!(config.notes().iter().any(|note| note.contains("nobody is told of alarms while")), "{:?}", config.notes());
}

#[test]
fn production_starts_with_everything_set_and_refuses_each_gap() {
    let config = production_with(&[]).unwrap();
    assert_eq!(config.mode, Mode::Production);
    assert_eq!(config.notes(), [] as [String; 0]);
    assert_eq!(config.twilio.webhook_base_url.unwrap().as_str(), "https://relay.example.org/");
    for (variable, key) in [
        ("TWILIO_ACCOUNT_SID", "twilio.account_sid"),
        ("TWILIO_AUTH_TOKEN", "twilio.auth_token"),
        ("TWILIO_WHATSAPP_FROM", "twilio.whatsapp_from"),
        ("TWILIO_WEBHOOK_BASE_URL", "twilio.webhook_base_url"),
        ("TWILIO_CONTENT_SID_EN", "templates.content_sids.en"),
        ("COUNSELLOR_WHATSAPP_TO", "counsellor.whatsapp_to"),
        ("MASTER_KEY", "keyring.master_key"),
        ("API_KEY_SERVICE_SHA256", "auth.api_keys"),
    ] {
        assert_eq!(faulty(production_with(&[(variable, "")])), keys(&[key]), "{variable}");
    }
}

#[test]
fn production_asks_for_the_template_of_the_language_that_is_used_and_for_no_other() {
    let hindi = "[[contacts]]\nid = 'asha'\nrole = 'lead'\nlanguage = 'hi'\nwhatsapp_to = '+919811223344'";
    let french = hindi.replace("'hi'", "'fr'");
    assert_eq!(faulty(production_file(hindi, &[])), keys(&["templates.content_sids.hi"]));
    production_file(&french, &[]).unwrap_or_else(|faults| panic!("they are told in English: {faults}"));
    let only_french = [("TWILIO_CONTENT_SID_EN", ""), ("COUNSELLOR_LANGUAGE", "fr")];
    assert_eq!(faulty(production_file(&french, &only_french)), keys(&["templates.content_sids.en"]));
}

#[test]
fn a_template_that_is_missing_is_as_grave_as_what_is_said_with_it() {
    let found = |further: &[(&str, &str)]| {
        let config = production_with(further).unwrap_or_else(|faults| panic!("it starts all the same: {faults}"));
        let found = crate::app::check_texts(&config).unwrap();
        let faults: Vec<String> = found.faults.into_iter().map(|fault| fault.subject).collect();
        (faults, found.notes)
    };
    let sid = format!("HX{SID}");
    let desk = ("CARE_DESK_PHONE", "+911123456789");
    let (faults, notes) = found(&[]);
    assert_eq!(faults, [] as [String; 0], "nobody outside is ever told");
    let told = notes.join("\n");
    for purpose in ["taken_notice", "outcome_reminder", "follow_up_reminder"] {
        assert_eq!(told.matches(&format!("templates.content_sids.en_{purpose} is not set")).count(), 1, "{told}");
    }
    assert_eq!(found(&[desk]).0, ["templates.content_sids.en_emergency_contact"]);
    let all = [
        desk,
        ("TWILIO_CONTENT_SID_EN_EMERGENCY_CONTACT", &sid),
        ("TWILIO_CONTENT_SID_EN_TAKEN_NOTICE", &sid),
        ("TWILIO_CONTENT_SID_EN_OUTCOME_REMINDER", &sid),
        ("TWILIO_CONTENT_SID_EN_FOLLOW_UP_REMINDER", &sid),
    ];
    assert_eq!(found(&all), (Vec::new(), Vec::new()));
}

#[test]
fn yes_or_no_may_be_said_as_toml_says_it() {
    let may =
        |value: &str| load(&format!("[policy]\nresolve_by_reply = {value}"), &[]).unwrap().policy.resolve_by_reply;
    assert_eq!([may("true"), may("false"), may("'yes'"), may("'no'")], [true, false, true, false]);
    assert_eq!(faulty(load("[policy]\nresolve_by_reply = 1", &[])), keys(&["policy.resolve_by_reply"]));
}

#[test]
fn production_with_nothing_set_tells_every_gap_at_once() {
    let expected = [
        "twilio.account_sid",
        "twilio.auth_token",
        "twilio.whatsapp_from",
        "twilio.webhook_base_url",
        "templates.content_sids.en",
        "counsellor.whatsapp_to",
        "keyring.master_key",
        "auth.api_keys",
    ];
    assert_eq!(faulty(load("", &[("CRISIS_RELAY_MODE", "production")])), keys(&expected));
}

#[test]
fn production_refuses_what_only_development_may_do() {
    let secret = "s".repeat(32);
    for (variable, value, key) in [
        ("TWILIO_WEBHOOK_BASE_URL", "http://relay.example.org", "twilio.webhook_base_url"),
        ("TWILIO_WEBHOOK_BASE_URL", "https://localhost", "twilio.webhook_base_url"),
        ("TWILIO_WEBHOOK_BASE_URL", "https://192.168.1.4", "twilio.webhook_base_url"),
        ("TWILIO_WEBHOOK_BASE_URL", "https://[::1]:443", "twilio.webhook_base_url"),
        ("TWILIO_API_BASE_URL", "http://simulator:8090", "twilio.api_base_url"),
        ("DASHBOARD_URL", "http://relay.example.org", "templates.dashboard_url"),
        ("TWILIO_WHATSAPP_FROM", "+14155238886", "twilio.whatsapp_from"),
        ("JWT_SECRET", &secret, "auth.jwt.secret"),
    ] {
        assert_eq!(faulty(production_with(&[(variable, value)])), keys(&[key]), "{variable}={value}");
        assert_eq!(faulty(load("", &[(variable, value)])), keys(&[]), "{variable}={value} in development");
    }
}

#[test]
fn no_pace_is_taken_that_twilio_does_not_allow_but_a_simulator_may_be_as_fast_as_it_can() {
    const PACE: &str = "CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND";
    const KEY: &str = "twilio.whatsapp_per_second";
    let warns = |config: &Config| config.notes.iter().any(|note| note.contains(KEY));
    for (pace, warned) in [("80", false), ("81", true), ("400", true)] {
        let config = production_with(&[(PACE, pace)]).unwrap();
        assert_eq!(warns(&config), warned, "{pace}");
    }
    for pace in ["401", "100000"] {
        assert_eq!(faulty(production_with(&[(PACE, pace)])), keys(&[KEY]), "{pace}");
        let local = production_with(&[(PACE, pace), ("TWILIO_API_BASE_URL", "https://127.0.0.1:8090")]).unwrap();
        assert!(!warns(&local), "{pace}");
        assert!(!warns(&load("", &[(PACE, pace)]).unwrap()), "{pace}: without credentials the simulator is used");
    }
    let account = format!("AC{SID}");
    let mut real = vec![("TWILIO_ACCOUNT_SID", account.as_str()), ("TWILIO_AUTH_TOKEN", SID), (PACE, "401")];
    real.push(("TWILIO_WHATSAPP_FROM", "+4915112345678"));
    assert_eq!(faulty(load("", &real)), keys(&[KEY]), "with credentials Twilio is called in development, too");
}

#[test]
fn several_instances_need_a_store_that_they_can_share() {
    const FIRESTORE: [(&str, &str); 2] = [("STORE", "firestore"), ("FIRESTORE_PROJECT_ID", "relay-north")];
    assert_eq!(load("", &[]).unwrap().worker.instances, 1);
    assert_eq!(faulty(load("", &[("INSTANCES", "2")])), keys(&["worker.instances"]));
    let shared = [&FIRESTORE[..], &[("INSTANCES", "4")]].concat();
    assert_eq!(load("", &shared).unwrap().worker.instances, 4);
    for beyond in ["0", "1001"] {
        let shared = [&FIRESTORE[..], &[("INSTANCES", beyond)]].concat();
        assert_eq!(faulty(load("", &shared)), keys(&["worker.instances"]), "{beyond}");
    }
}

#[test]
fn firestore_is_polled_less_often_unless_somebody_has_chosen() {
    const FIRESTORE: [(&str, &str); 2] = [("STORE", "firestore"), ("FIRESTORE_PROJECT_ID", "relay-north")];
    for (file, variables, millis) in
        [("", &[][..], 500), ("", &FIRESTORE[..], 2_000), ("worker.poll = '500ms'", &FIRESTORE[..], 500)]
    {
        let config = load(file, variables).unwrap();
        assert_eq!(config.worker.poll.as_millis(), millis, "{file} {variables:?}");
    }
    let summary = load("", &FIRESTORE).unwrap().summary();
    assert!(summary.contains("2s"), "the summary does not show the pause that counts: {summary}");
}

#[test]
fn a_database_in_memory_is_refused_in_every_mode() {
    let memory = [("DATABASE_PATH", ":memory:")];
    for found in [load("", &memory), production_with(&memory)] {
        let said = format!("{found:?}");
        assert!(said.contains("must be a file: memory forgets accepted alerts"), "{said}");
        assert_eq!(faulty(found), keys(&["store.path"]));
    }
}

#[test]
fn addresses_with_user_names_underscores_queries_or_other_schemes_are_refused_in_every_mode() {
    for value in [
        "https://user:canary@relay.example.org",
        "https://my_relay.example.org",
        "https://relay.example.org/?a=1",
        "https://relay.example.org/#a",
        "ftp://relay.example.org",
        "relay.example.org",
        "https://",
    ] {
        let found = load("", &[("TWILIO_WEBHOOK_BASE_URL", value)]);
        assert!(!format!("{found:?}").contains("canary"));
        assert_eq!(faulty(found), keys(&["twilio.webhook_base_url"]), "{value}");
    }
}

#[test]
fn an_api_key_does_not_replace_the_auth_token_and_comes_whole() {
    let sid = format!("SK{SID}");
    let faults =
        production_with(&[("TWILIO_AUTH_TOKEN", ""), ("TWILIO_API_KEY_SID", &sid), ("TWILIO_API_KEY_SECRET", SID)]);
    let text = faults.unwrap_err().to_string();
    assert!(text.contains("to check the signatures of webhooks"), "{text}");
    assert_eq!(faulty(production_with(&[("TWILIO_API_KEY_SID", &sid)])), keys(&["twilio.api_key_secret"]));
    assert_eq!(faulty(production_with(&[("TWILIO_API_KEY_SECRET", SID)])), keys(&["twilio.api_key_sid"]));
    let config = production_with(&[("TWILIO_API_KEY_SID", &sid), ("TWILIO_API_KEY_SECRET", SID)]).unwrap();
    assert!(config.twilio.credentials.unwrap().api_key.is_some());
}

#[test]
fn times_that_contradict_each_other_are_faults() {
    for (file, key) in [
        ("delivery.lease = '20s'", "delivery.lease"),
        ("delivery.give_up_after = '20s'", "delivery.lease"),
        ("delivery.backoff_base = '31s'", "delivery.backoff_base"),
        ("delivery.look_up_first = '6s'", "delivery.look_up_first"),
        ("delivery.receipt_poll_first = '16m'", "delivery.receipt_poll_first"),
        ("twilio.connect_timeout = '11s'", "twilio.connect_timeout"),
        ("twilio.breaker_open_first = '31s'", "twilio.breaker_open_first"),
        ("http.shutdown_grace = '9s'", "twilio.request_timeout"),
        ("http.header_timeout = '11s'", "http.header_timeout"),
        ("policy.retry_when_all_failed = '6m'", "policy.retry_when_all_failed"),
        ("worker.queue_max = 255", "worker.due_batch"),
        ("decision.band_high = 0.79", "decision.threshold"),
        ("decision.band_critical = 0.89", "decision.band_high"),
    ] {
        assert_eq!(faulty(load(file, &[])), keys(&[key]), "{file}");
    }
}

#[test]
fn nobody_can_be_told_from_their_own_number() {
    let found = production_with(&[("COUNSELLOR_WHATSAPP_TO", "whatsapp:+4915112345678")]);
    assert_eq!(faulty(found), keys(&["counsellor.whatsapp_to"]));
}

// --- callers -----------------------------------------------------------------------------------------------------

#[test]
fn api_keys_come_from_variables_and_from_the_file() {
    let file = format!(
        "[[auth.api_keys]]\nid = 'backend'\nrole = 'service'\nsha256 = '{HASH_A}'\norganisation = 'north'\n\
         expires_at = 2027-01-31T00:00:00Z"
    );
    let list = format!("{HASH_B}, {}", HASH_B.replace('b', "C"));
    let config = load(&file, &[("API_KEY_ADMIN_SHA256", &list)]).unwrap();
    let shown: Vec<_> = config
        .auth
        .api_keys
        .iter()
        .map(|key| {
            format!("{} {} {} {:?}", key.id, key.role, key.organisation, key.expires_at.map(|at| at.as_second()))
        })
        .collect();
    let expected =
        ["admin-1 admin default None", "admin-2 admin default None", "backend service north Some(1801353600)"];
    assert_eq!(shown, expected);
    assert_eq!(config.auth.api_keys[2].sha256.as_bytes(), &[0xaa; 32]);
}

#[test]
fn each_fault_of_an_api_key_is_told_by_its_place() {
    let file =
        "[[auth.api_keys]]\nid = 'a b'\nrole = 'root'\nsha256 = 'x'\norganisation = 3\nexpires_at = '2027'\nroll = 1";
    let expected = ["", ".id", ".role", ".sha256", ".organisation", ".expires_at"];
    let expected: BTreeSet<_> = expected.iter().map(|field| format!("auth.api_keys[0]{field}")).collect();
    assert_eq!(faulty(load(file, &[])), expected);
    // Told of its own fault, a key is not told to be missing as well.
    let found = production_with(&[("API_KEY_SERVICE_SHA256", "x")]);
    assert_eq!(faulty(found), keys(&["auth.api_key_sha256.service"]));
}

#[test]
fn one_hash_for_two_roles_and_the_hash_of_nothing_are_refused() {
    let same = [("API_KEY_ADMIN_SHA256", HASH_A), ("API_KEY_SERVICE_SHA256", HASH_A)];
    assert_eq!(faulty(load("", &same)), keys(&["auth.api_keys"]));
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let found = load("", &[("API_KEY_ADMIN_SHA256", nothing)]);
    assert_eq!(faulty(found), keys(&["auth.api_key_sha256.admin"]));
}

#[test]
fn tokens_of_a_provider_need_https_an_issuer_and_an_audience() {
    let url = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
    let found = production_with(&[("JWT_JWKS_URL", url)]);
    assert_eq!(faulty(found), keys(&["auth.jwt.issuer", "auth.jwt.audience"]));
    let whole = [("JWT_JWKS_URL", url), ("JWT_ISSUER", "https://securetoken.google.com/x"), ("JWT_AUDIENCE", "x")];
    let config = production_with(&whole).unwrap();
    assert!(matches!(config.auth.jwt.unwrap().key, JwtKey::Jwks(_)));
    let plain = url.replace("https", "http");
    let plain = [("JWT_JWKS_URL", plain.as_str()), ("JWT_ISSUER", "x"), ("JWT_AUDIENCE", "x")];
    assert_eq!(faulty(load("", &plain)), keys(&["auth.jwt.jwks_url"]));
    let secret = "s".repeat(32);
    let both = [whole[0], whole[1], whole[2], ("JWT_SECRET", secret.as_str())];
    assert_eq!(faulty(load("", &both)), keys(&["auth.jwt.secret"]));
    assert_eq!(faulty(load("", &[("JWT_SECRET", &secret[1..])])), keys(&["auth.jwt.secret"]));
}

#[test]
fn a_former_master_key_is_not_the_present_one() {
    let other = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=";
    let config = production_with(&[("FORMER_MASTER_KEYS", other)]).unwrap();
    assert_eq!(config.keyring.former_master_keys.len(), 1);
    assert_eq!(faulty(production_with(&[("FORMER_MASTER_KEYS", KEY)])), keys(&["keyring.former_master_keys"]));
    assert_eq!(faulty(production_with(&[("FORMER_MASTER_KEYS", "abc")])), keys(&["keyring.former_master_keys"]));
    for wrong in ["abc", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="] {
        assert_eq!(faulty(production_with(&[("MASTER_KEY", wrong)])), keys(&["keyring.master_key"]), "{wrong}");
    }
}

#[test]
fn drills_may_start_once_a_day_or_at_several_times_that_are_an_hour_apart() {
    let times = |file: &str, environment: &[(&str, &str)]| {
        let config = load(file, environment).map_err(|faults| faults.to_string())?;
        Ok::<_, String>(config.drills.daily_at.iter().map(|at| at.strftime("%H:%M").to_string()).collect::<Vec<_>>())
    };
    let in_file = |daily_at: &str| times(&format!("[drills]\ndaily_at = {daily_at}"), &[]);
    assert_eq!(times("", &[]), Ok(Vec::new()));
    assert_eq!(in_file(r#""10:30""#), Ok(vec!["10:30".to_owned()]));
    assert_eq!(in_file(r#"["22:15", "03:40", "10:30"]"#), Ok(["03:40", "10:30", "22:15"].map(str::to_owned).to_vec()));
    let variable = times("", &[("CRISIS_RELAY__DRILLS__DAILY_AT", "22:15, 03:40")]);
    assert_eq!(variable, Ok(["03:40", "22:15"].map(str::to_owned).to_vec()));
    for wrong in [
        r#""noon""#,
        "10",
        r#"["10:30", 11]"#,
        r#"["10:30", "11:29"]"#,
        r#"["23:30", "00:15"]"#,
        r#"["10:30", "10:30"]"#,
    ] {
        assert!(in_file(wrong).is_err_and(|faults| faults.contains("drills.daily_at")), "{wrong}");
    }
}

// --- nothing leaks -----------------------------------------------------------------------------------------------

/// Everything that anybody may print of a result.
fn printed(result: &Result<Config, ConfigFaults>) -> String {
    match result {
        Ok(config) => format!("{config:?} {:#?} {} {:?}", config, config.summary(), config.notes()),
        Err(faults) => format!("{faults} {faults:?}"),
    }
}

#[test]
fn no_secret_and_no_number_is_in_debug_or_summary() {
    let secret = "s3cr3tcanary".repeat(3);
    let config = production_with(&[
        ("TWILIO_AUTH_TOKEN", &secret),
        ("TWILIO_API_KEY_SID", &format!("SK{SID}")),
        ("TWILIO_API_KEY_SECRET", &secret),
        ("TWILIO_SMS_FROM", "+15005550006"),
        ("FORMER_MASTER_KEYS", "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="),
    ]);
    let text = printed(&config);
    for hidden in [
        "s3cr3tcanary",
        "9876543",
        "1511234",
        "5005550",
        SID,
        KEY,
        HASH_A,
        "0123456789012345",
        "YWJjZGVm",
        "abcdefghijk",
    ] {
        assert!(!text.contains(hidden), "{hidden}");
    }
    // The bytes of the key, as a derived Debug would print them.
    assert!(!text.contains("48, 49, 50"), "the master key's bytes");
    for shown in ["auth_token = (set, not shown)  # environment TWILIO_AUTH_TOKEN", "whatsapp_to = \"…10\""] {
        assert!(config.as_ref().unwrap().summary().contains(shown), "{shown}");
    }
}

/// A value that is wrong almost everywhere, and must not be seen anywhere.
fn canary() -> impl Strategy<Value = String> {
    ("[ -~]{0,12}", "[ -~]{0,12}").prop_map(|(before, after)| format!("{before}c4n4ry+4915112345678{after}"))
}

proptest! {
    #[test]
    fn no_fault_repeats_the_value_that_broke_the_rule(which in any::<prop::sample::Index>(), value in canary()) {
        let variables: Vec<_> = documented().into_keys().map(|key| variable_of(&key)).collect();
        let environment = BTreeMap::from([(which.get(&variables).clone(), value)]);
        if let Err(faults) = load_map(None, environment) {
            prop_assert!(!printed(&Err(faults)).contains("c4n4ry"));
        }
    }

    #[test]
    fn no_text_of_a_file_is_repeated_and_none_makes_the_loader_panic(
        before in "\\PC{0,20}",
        value in canary(),
        quote in prop::sample::select(vec!["", "'", "\"", "'''", "[", "[["]),
        section in prop::sample::select(vec!["", "[twilio]\n", "[auth]\n", "[[auth.api_keys]]\n", "[templates.content_sids]\n"]),
        key in prop::sample::select(vec!["auth_token = ", "sha256 = ", "en = ", "", "api_keys = ", "c4n4ry4 = "]),
    ) {
        let file = format!("{before}\n{section}{key}{quote}{value}{quote}\n");
        if let Err(faults) = load_map(Some(&file), BTreeMap::new()) {
            prop_assert!(!printed(&Err(faults)).contains("c4n4ry"), "{}", file);
        }
    }

    #[test]
    fn every_number_in_its_form_is_read_and_never_shown(digits in "[1-9][0-9]{7,14}", prefix in any::<bool>()) {
        let number = format!("{}+{digits}", if prefix { "whatsapp:" } else { "" });
        let config = load("", &[("COUNSELLOR_WHATSAPP_TO", number.as_str())]);
        prop_assert!(!printed(&config).contains(&digits));
        let whatsapp_to = config.unwrap().counsellor.whatsapp_to.unwrap();
        prop_assert_eq!(whatsapp_to.expose(), format!("+{digits}"));
    }

    #[test]
    fn a_threshold_is_taken_exactly_when_it_is_in_range(threshold in prop::num::f64::ANY) {
        let found = load("", &[("CRISIS_THRESHOLD", &threshold.to_string())]);
        // Above the band it contradicts band_high.
        prop_assert_eq!(found.is_ok(), (0.01..=0.9).contains(&threshold));
    }
}
