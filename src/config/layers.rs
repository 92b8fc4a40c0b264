//! Default, file and environment become one map from dotted keys to values, each with its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use zeroize::Zeroizing;

use super::fault::ConfigFault;
use super::names::{CONFIG_VARIABLE, CONTENT_SID_PREFIX, CONTENT_SIDS, GENERIC_PREFIX, NAMED, meant, variable_of};
use super::sections::notice_and_language;
use super::{DEFAULT_TOML, Sources};
use crate::domain::contact::Language;

/// A value as a layer wrote it. Has no `Debug`: it may be a secret.
pub(super) enum Value {
    /// From TOML, with its type.
    Toml(toml::Value),
    /// From a variable or a secret's file: text, to be read as whatever the key asks for.
    Text(Zeroizing<String>),
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The compiled-in default.
    Default,
    /// The operator's file, by its name.
    File(String),
    /// A variable, by its name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
        }
    }
}

/// A value and its origin.
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The effective values. Every known key is in here, by its default at least.
pub(super) struct Layers {
    entries: BTreeMap<String, Entry>,
    /// Legal, and still worth a warning.
    pub(super) notes: Vec<String>,
}

impl Layers {
    /// Lays the three layers on top of each other; what cannot be placed becomes a fault.
    pub(super) fn gather(sources: &Sources<'_>, faults: &mut Vec<ConfigFault>) -> Self {
        let mut layers = Self { entries: BTreeMap::new(), notes: Vec::new() };
        // A test reads the compiled-in text; it is TOML.
        for (key, value) in flatten(DEFAULT_TOML.parse().unwrap_or_default()) {
            layers.entries.insert(key, Entry { value: Value::Toml(value), origin: Origin::Default });
        }
        let known: BTreeSet<String> = layers.entries.keys().cloned().collect();
        layers.add_file(sources, &known, faults);
        layers.add_environment(sources, &known, faults);
        layers.note_near_misses(sources);
        layers
    }

    /// The effective value of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The keys under `table`, without its name.
    pub(super) fn under(&self, table: &str) -> Vec<String> {
        self.entries.keys().filter_map(|key| key.strip_prefix(table)?.strip_prefix('.')).map(str::to_owned).collect()
    }

    fn add_file(&mut self, sources: &Sources<'_>, known: &BTreeSet<String>, faults: &mut Vec<ConfigFault>) {
        let Some(file) = &sources.file else { return };
        let origin = Origin::File(file.name.clone());
        let table = match file.text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Only the place: the parser's own text may quote the line, and the line may hold a secret.
                let at = error.span().map_or(file.text.len(), |span| span.start);
                faults.push(ConfigFault {
                    key: file.name.clone(),
                    variable: None,
                    origin: None,
                    rule: format!("is not valid TOML at {}", place(&file.text, at)),
                    remedy: "mend the line; text stands in quotes, a section's name in brackets, each key once".into(),
                });
                return;
            }
        };
        for (key, value) in flatten(table) {
            if is_known(&key, known) {
                self.entries.insert(key, Entry { value: Value::Toml(value), origin: origin.clone() });
            } else if !is_empty_section(&key, &value, known) {
                faults.push(unknown(&key, None, &origin, known));
            }
        }
    }

    fn add_environment(&mut self, sources: &Sources<'_>, known: &BTreeSet<String>, faults: &mut Vec<ConfigFault>) {
        let mut set_by: BTreeMap<String, String> = BTreeMap::new();
        for (variable, value) in &sources.environment {
            if value.trim().is_empty() {
                continue;
            }
            let Some((key, from_file)) = key_of(variable) else { continue };
            let origin = Origin::Environment(variable.clone());
            if !is_known(&key, known) {
                faults.push(unknown(&key, Some(variable), &origin, known));
                continue;
            }
            if let Some(other) = set_by.insert(key.clone(), variable.clone()) {
                faults.push(ConfigFault {
                    variable: None,
                    origin: None,
                    rule: format!("is set twice in the environment, by {other} and by {variable}"),
                    remedy: "keep one of the two".into(),
                    key,
                });
                continue;
            }
            let text =
                if from_file { read_secret(sources, &key, variable, value, faults) } else { Some(value.clone()) };
            if let Some(text) = text {
                self.entries.insert(key, Entry { value: Value::Text(Zeroizing::new(text)), origin });
            }
        }
    }

    /// A variable with a slip in its name changes nothing, silently: the worst kind of fault. It may still be somebody
    /// else's, so it is only noted.
    fn note_near_misses(&mut self, sources: &Sources<'_>) {
        // Short names (PORT, STORE) are near to too many words.
        let long = || NAMED.iter().map(|named| named.variable).filter(|variable| variable.len() >= 8);
        for variable in sources.environment.keys().filter(|variable| key_of(variable).is_none()) {
            if variable == CONFIG_VARIABLE {
                continue;
            }
            if let Some(near) = meant(variable, long()) {
                self.notes.push(format!("the variable {variable} is not read; {near} may have been meant"));
            }
        }
    }
}

/// The key that `variable` sets, and whether by naming a file; `None` if the variable is not ours.
fn key_of(variable: &str) -> Option<(String, bool)> {
    if let Some(path) = variable.strip_prefix(GENERIC_PREFIX) {
        return Some((path.to_ascii_lowercase().replace("__", "."), false));
    }
    if let Some(named) = NAMED.iter().find(|named| named.variable == variable) {
        return Some((named.key.to_owned(), false));
    }
    let of_file = variable.strip_suffix("_FILE");
    if let Some(named) = NAMED.iter().find(|named| named.secret && Some(named.variable) == of_file) {
        return Some((named.key.to_owned(), true));
    }
    let language = variable.strip_prefix(CONTENT_SID_PREFIX)?.to_ascii_lowercase();
    Some((format!("{CONTENT_SIDS}.{language}"), false))
}

fn read_secret(
    sources: &Sources<'_>,
    key: &str,
    variable: &str,
    path: &str,
    faults: &mut Vec<ConfigFault>,
) -> Option<String> {
    match (sources.read_file)(path) {
        // An editor ends the file with a line break that is no part of the secret.
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => {
            faults.push(ConfigFault {
                key: key.to_owned(),
                variable: Some(variable.to_owned()),
                origin: Some(Origin::Environment(variable.to_owned()).to_string()),
                rule: format!("names a file that cannot be read ({})", error.kind()),
                remedy: "name a file of UTF-8 text that this process may read".into(),
            });
            None
        }
    }
}

fn is_known(key: &str, known: &BTreeSet<String>) -> bool {
    let language = key.strip_prefix(CONTENT_SIDS).and_then(|rest| rest.strip_prefix('.'));
    let is_one = |tag: &str| tag.parse::<Language>().is_ok() || notice_and_language(tag).is_some();
    known.contains(key) || language.is_some_and(is_one)
}

/// `[http]` with nothing under it says nothing, and is no fault.
fn is_empty_section(key: &str, value: &toml::Value, known: &BTreeSet<String>) -> bool {
    value.is_table() && sections(known).contains(key)
}

/// Every table's name that is on the way to a known key.
fn sections(known: &BTreeSet<String>) -> BTreeSet<&str> {
    known.iter().flat_map(|key| key.match_indices('.').map(|(at, _)| &key[..at])).collect()
}

fn unknown(key: &str, variable: Option<&str>, origin: &Origin, known: &BTreeSet<String>) -> ConfigFault {
    let remedy = match meant(key, known.iter().map(String::as_str)) {
        Some(near) if variable.is_some() => format!("did you mean {}?", variable_of(near)),
        Some(near) => format!("did you mean {near}?"),
        None if sections(known).contains(key) => "it is a section: set the keys in it".into(),
        None => match known.iter().find(|other| leaf(other) == leaf(key)) {
            Some(other) => format!("did you mean {other}?"),
            None => "remove it; config/default.toml lists every key".into(),
        },
    };
    let shown = presentable(key, known);
    ConfigFault {
        // A variable's name repeats the key, so it is shown under the same condition.
        origin: shown.as_ref().map(|_| origin.to_string()),
        key: shown.unwrap_or_else(|| "(a key that is not shown)".to_owned()),
        variable: None,
        rule: "is not a key of the configuration".into(),
        remedy,
    }
}

fn leaf(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// An unknown key may be a value that slipped into the wrong place, so only what looks like a key is shown.
fn presentable(key: &str, known: &BTreeSet<String>) -> Option<String> {
    let like_a_key = |part: &str| {
        (1..=30).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-')
    };
    let is_ours = |part: &str| known.iter().any(|known| known.split('.').any(|ours| ours == part));
    key.split('.').all(|part| like_a_key(part) || is_ours(part)).then(|| key.to_owned())
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Tables become dotted keys; arrays stay whole; an empty table stays, so that it can be looked at.
pub(super) fn flatten(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut leaves = Vec::new();
    for (key, value) in table {
        if let Some(inner) = value.as_table().filter(|inner| !inner.is_empty()) {
            let inner = flatten(inner.clone());
            leaves.extend(inner.into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
        } else {
            leaves.push((key, value));
        }
    }
    leaves
}
