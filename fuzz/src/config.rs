//! The configuration: no fault, no summary and no `Debug` shows a secret, and a fault says what to mend.

use std::collections::BTreeMap;

use crisis_relay::config::{Config, ConfigFile, Sources};

use super::{parted, repeats};

/// The variables that hold secrets.
const SECRETS: [&str; 5] =
    ["TWILIO_AUTH_TOKEN", "TWILIO_API_KEY_SECRET", "MASTER_KEY", "FORMER_MASTER_KEYS", "JWT_SECRET"];

/// From this length on, a secret is not in a text by chance.
const TELLING_LENGTH: usize = 16;

/// Input: lines `NAME=value` for the environment, a line `---`, the file. A `NAME_FILE` variable's file holds its own
/// path.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (variables, file) = parted(text.as_bytes(), b"---");
    let (variables, file) = (String::from_utf8_lossy(variables), String::from_utf8_lossy(file));
    let environment: BTreeMap<String, String> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        // Names are shown; only values are not.
        .filter(|(name, _)| !repeats(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let secrets = secrets(&environment, text);
    let shown = shown(&environment, &file);
    // Our own words may hold what somebody chose for a secret (`simulator.delivered_after` does). Then they hold it
    // whatever the secret is.
    for secret in secrets.iter().filter(|secret| shown.contains(secret.as_str())) {
        let other =
            environment.iter().map(|(name, value)| (name.clone(), value.replace(secret.as_str(), &unlike(secret))));
        assert!(self::shown(&other.collect(), &file).contains(secret.as_str()), "a secret is shown: {shown}");
    }
}

/// All that is said about a configuration, checked for what holds of it whatever its secrets are.
fn shown(environment: &BTreeMap<String, String>, file: &str) -> String {
    let read_file = |path: &str| Ok(path.to_owned());
    let file = Some(ConfigFile { name: "relay.toml".to_owned(), text: file.to_owned() });
    match Config::load(&Sources { file, environment: environment.clone(), read_file: &read_file }) {
        Ok(config) => format!("{}{config:?}{}", config.summary(), config.notes().join("\n")),
        Err(faults) => {
            let shown = format!("{faults}{faults:?}");
            assert!(!repeats(&shown), "a fault shows a value: {shown}");
            assert!(faults.iter().count() > 0, "refused, and nobody knows why");
            for fault in faults.iter() {
                assert!(!fault.key.is_empty() && !fault.rule.is_empty() && !fault.remedy.is_empty(), "{fault:?}");
            }
            shown
        }
    }
}

/// Another secret of the same shape: each letter and digit is the next one.
fn unlike(secret: &str) -> String {
    let next = |letter: char| match letter {
        'a'..='y' | 'A'..='Y' | '0'..='8' => char::from_u32(u32::from(letter) + 1).unwrap_or(letter),
        'z' => 'a',
        'Z' => 'A',
        '9' => '0',
        other => other,
    };
    secret.chars().map(next).collect()
}

/// Secrets of the environment that stand nowhere else in the input: what is a name, too, may be shown as one.
fn secrets(environment: &BTreeMap<String, String>, input: &str) -> Vec<String> {
    let secret = |name: &str| SECRETS.iter().any(|secret| name == *secret || name == format!("{secret}_FILE"));
    environment
        .iter()
        .filter(|(name, _)| secret(name))
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| value.len() >= TELLING_LENGTH && input.matches(value.as_str()).count() == 1)
        .collect()
}
