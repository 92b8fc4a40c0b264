//! Walks a template file key by key and gathers what is wrong with it.
//!
//! By hand and not through serde, which would stop at the first fault: whoever mends a text should see all of them.

use super::matter;
use super::values::is_sendable;

/// The most characters of a word or an action: India's operators allow 30 for a variable (DLT rules).
const WORD_MAX: usize = 30;

/// One thing that is wrong with a template file, for the person who writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {key}: {rule}")]
pub struct TemplateFault {
    /// The file, by the name it was given under.
    pub file: String,
    /// The key, with the sections around it: `counsellor_alert.sms.body`.
    pub key: String,
    /// What is wrong with it.
    pub rule: String,
}

impl TemplateFault {
    pub(super) fn new(file: &str, key: &str, rule: impl Into<String>) -> Self {
        Self { file: file.to_owned(), key: key.to_owned(), rule: rule.into() }
    }
}

pub(super) struct Faults {
    pub(super) file: String,
    pub(super) found: Vec<TemplateFault>,
}

impl Faults {
    pub(super) fn add(&mut self, key: &str, rule: impl Into<String>) {
        self.found.push(TemplateFault::new(&self.file, key, rule));
    }

    pub(super) fn none<T>(&mut self, key: &str, rule: impl Into<String>) -> Option<T> {
        self.add(key, rule);
        None
    }
}

/// A section of the file; what is read is taken out of it, and what is left at the end is unknown.
pub(super) struct Section {
    path: String,
    entries: toml::Table,
}

impl Section {
    pub(super) fn root(entries: toml::Table) -> Self {
        Self { path: String::new(), entries }
    }

    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &str, faults: &mut Faults) -> Option<toml::Value> {
        let value = self.entries.remove(name);
        if value.is_none() {
            faults.add(&self.key(name), "is missing");
        }
        value
    }

    pub(super) fn text(&mut self, name: &str, faults: &mut Faults) -> Option<String> {
        match self.take(name, faults)?.try_into::<String>() {
            Ok(text) => Some(text),
            Err(_) => faults.none(&self.key(name), "must be a text"),
        }
    }

    /// A text without variables that stands for itself.
    pub(super) fn phrase(&mut self, name: &str, faults: &mut Faults) -> Option<String> {
        let text = self.text(name, faults)?;
        let key = self.key(name);
        if !is_sendable(&text) || text.trim() != text || text.contains(['{', '}']) {
            faults.add(&key, "must be words, without braces, line breaks, outer spaces or long gaps");
        }
        if let Some(word) = matter::named_in(&text) {
            faults.add(&key, format!("must not name the matter (`{word}`): lock screens are read by others"));
        }
        Some(text)
    }

    /// A phrase that becomes a variable's value.
    pub(super) fn word(&mut self, name: &str, faults: &mut Faults) -> Option<String> {
        let text = self.phrase(name, faults)?;
        let length = text.chars().count();
        if length > WORD_MAX {
            faults.add(&self.key(name), format!("has {length} characters; a value may have {WORD_MAX}"));
        }
        Some(text)
    }

    pub(super) fn number(&mut self, name: &str, least: u32, most: u32, faults: &mut Faults) -> Option<u32> {
        match self.take(name, faults)?.try_into::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            Ok(_) | Err(_) => faults.none(&self.key(name), format!("must be a whole number from {least} to {most}")),
        }
    }

    pub(super) fn list(&mut self, name: &str, faults: &mut Faults) -> Option<Vec<String>> {
        match self.take(name, faults)?.try_into::<Vec<String>>() {
            Ok(list) => Some(list),
            Err(_) => faults.none(&self.key(name), "must be a list of texts"),
        }
    }

    pub(super) fn section(&mut self, name: &str, faults: &mut Faults) -> Option<Section> {
        let path = self.key(name);
        match self.take(name, faults)?.try_into::<toml::Table>() {
            Ok(entries) => Some(Section { path, entries }),
            Err(_) => faults.none(&path, "must be a section"),
        }
    }

    /// A section that may be left out.
    pub(super) fn section_if_any(&mut self, name: &str, faults: &mut Faults) -> Option<Section> {
        if self.entries.contains_key(name) { self.section(name, faults) } else { None }
    }

    pub(super) fn finish(self, faults: &mut Faults) {
        for name in self.entries.keys() {
            faults.add(&self.key(name), "is not a known key");
        }
    }
}
