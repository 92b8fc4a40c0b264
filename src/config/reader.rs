//! Typed reads. A read never stops at a fault: it notes it and hands out a stand-in, so that all faults are found at
//! once. A configuration built from a stand-in is never returned, because its fault is there.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

use super::fault::ConfigFault;
use super::layers::{Entry, Layers, Origin, Value};
use super::names::{FILE_ONLY, variable_of};
use crate::secret::Secret;

/// One line of the summary: a key, its value as it may be shown, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) shown: String,
    pub(super) origin: String,
}

/// What a value must be, and what to do if it is not.
pub(crate) struct Rule {
    pub(crate) rule: &'static str,
    pub(crate) remedy: &'static str,
}

/// Reads keys, and remembers what it met.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    faults: Vec<ConfigFault>,
    faulty: BTreeSet<String>,
    lines: Vec<Line>,
    /// Each range as the documentation must state it.
    #[cfg(test)]
    pub(super) ranges: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a Layers, faults: Vec<ConfigFault>) -> Self {
        let faulty = faults.iter().map(|fault| fault.key.clone()).collect();
        Self {
            layers,
            faults,
            faulty,
            lines: Vec::new(),
            #[cfg(test)]
            ranges: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Vec<ConfigFault>, Vec<Line>) {
        (self.faults, self.lines)
    }

    /// Notes a fault of `key`.
    pub(super) fn fault(&mut self, key: &str, rule: impl Into<String>, remedy: impl Into<String>) {
        // An element, `auth.api_keys[0].role`, came from where its list came from.
        let listed = key.split('[').next().unwrap_or(key);
        let chosen = self.layers.get(listed).filter(|entry| is_set(entry) && entry.origin != Origin::Default);
        self.faulty.insert(key.to_owned());
        self.faults.push(ConfigFault {
            key: key.to_owned(),
            variable: (listed != FILE_ONLY).then(|| variable_of(listed)),
            origin: chosen.map(|entry| entry.origin.to_string()),
            rule: rule.into(),
            remedy: remedy.into(),
        });
    }

    /// Whether any of `keys` has a fault already, so that a rule between them says nothing new.
    pub(super) fn any_faulty(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.faulty.contains(*key))
    }

    /// Whether a key that begins so has a fault already.
    pub(super) fn any_faulty_under(&self, beginning: &str) -> bool {
        self.faulty.iter().any(|key| key.starts_with(beginning))
    }

    /// Whether `key` has a value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.layers.get(key).is_some_and(is_set)
    }

    /// Whether `key` has its default still.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.layers.get(key).is_none_or(|entry| entry.origin == Origin::Default)
    }

    /// Whether the value of `key` is this text.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        self.layers.get(key).and_then(|entry| text_of(&entry.value)).is_some_and(|value| value.trim() == text)
    }

    /// The keys under `table`.
    pub(super) fn under(&self, table: &str) -> Vec<String> {
        self.layers.under(table)
    }

    pub(super) fn show(&mut self, key: &str, shown: impl Into<String>) {
        let origin = self.layers.get(key).map_or_else(|| "default".to_owned(), |entry| entry.origin.to_string());
        self.lines.push(Line { key: key.to_owned(), shown: shown.into(), origin });
    }

    /// The value, if there is one; its absence is shown.
    fn value(&mut self, key: &str) -> Option<&'a Value> {
        let set = self.layers.get(key).filter(|entry| is_set(entry));
        if set.is_none() {
            self.show(key, "(not set)");
        }
        set.map(|entry| &entry.value)
    }

    /// The value as text. A fault if it is of another type.
    fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.value(key)?;
        let text = text_of(value);
        if text.is_none() {
            self.fault(key, "must be text", "write the value in quotes");
        }
        text.map(str::trim)
    }

    /// A value that may be missing.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        rule: &Rule,
        parse: impl Fn(&str) -> Option<T>,
        shown: impl Fn(&T) -> String,
    ) -> Option<T> {
        let text = self.text(key)?;
        let parsed = parse(text);
        match &parsed {
            Some(value) => self.show(key, shown(value)),
            None => self.fault(key, rule.rule, rule.remedy),
        }
        parsed
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        rule: &Rule,
        parse: impl Fn(&str) -> Option<T>,
        shown: impl Fn(&T) -> String,
        stand_in: T,
    ) -> T {
        if !self.is_set(key) {
            self.fault(key, "must not be empty", rule.remedy);
            return stand_in;
        }
        self.optional(key, rule, parse, shown).unwrap_or(stand_in)
    }

    /// Whether a key is set to a truth value of TOML's own.
    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        match &self.layers.get(key)?.value {
            Value::Toml(value) => value.as_bool(),
            Value::Text(_) => None,
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Display>(
        &mut self,
        key: &str,
        words: &[&str],
        parse: impl Fn(&str) -> Option<T>,
        stand_in: T,
    ) -> T {
        let rule = format!("must be one of: {}", words.join(", "));
        match self.text(key) {
            Some(text) => match parse(text) {
                Some(value) => {
                    self.show(key, format!("\"{value}\""));
                    value
                }
                None => {
                    self.fault(key, rule, "choose one of these words, in small letters");
                    stand_in
                }
            },
            None => {
                if !self.any_faulty(&[key]) {
                    self.fault(key, "must not be empty", rule.replace("must be", "choose"));
                }
                stand_in
            }
        }
    }

    /// A whole number.
    pub(super) fn whole<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        let read = |value: &Value| match value {
            Value::Toml(value) => value.as_integer(),
            Value::Text(text) => text.trim().parse().ok(),
        };
        let told = format!("{} to {}", range.start(), range.end());
        self.ranged(
            key,
            "a whole number",
            told,
            range,
            |value| T::try_from(read(value)?).ok(),
            |value| value.to_string(),
        )
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str, range: RangeInclusive<f64>) -> f64 {
        // A whole TOML number is a number too. Integers this large lie outside every range, so the cast loses nothing.
        let read = |value: &Value| match value {
            Value::Toml(value) => value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)),
            Value::Text(text) => text.trim().parse().ok(),
        };
        let told = format!("{} to {}", range.start(), range.end());
        self.ranged(key, "a number", told, range, read, |value| value.to_string())
    }

    /// A span of time, with its unit: `500ms`, `10s`, `5m`, `48h`, `30d`.
    pub(super) fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        let told = format!("{} to {}", show_duration(*range.start()), show_duration(*range.end()));
        self.ranged(
            key,
            "a whole number and a unit (ms, s, m, h, d), such as 30s",
            told,
            range,
            |value| parse_duration(text_of(value)?.trim()),
            |value| format!("\"{}\"", show_duration(*value)),
        )
    }

    /// Hands out `value` in the place of the default of `key`, and shows it.
    pub(super) fn duration_instead(&mut self, key: &str, range: RangeInclusive<Duration>, value: Duration) -> Duration {
        #[cfg(test)]
        self.ranges
            .push((key.to_owned(), format!("{} to {}", show_duration(*range.start()), show_duration(*range.end()))));
        let value = value.clamp(*range.start(), *range.end());
        self.show(key, format!("\"{}\"", show_duration(value)));
        value
    }

    fn ranged<T: Copy + PartialOrd>(
        &mut self,
        key: &str,
        what: &str,
        told: String,
        range: RangeInclusive<T>,
        read: impl Fn(&Value) -> Option<T>,
        shown: impl Fn(&T) -> String,
    ) -> T {
        #[cfg(test)]
        self.ranges.push((key.to_owned(), told.clone()));
        let stand_in = *range.start();
        if !self.is_set(key) {
            self.fault(key, "must not be empty", format!("choose {what} from {told}"));
            return stand_in;
        }
        match self.value(key).and_then(read) {
            Some(value) if range.contains(&value) => {
                self.show(key, shown(&value));
                value
            }
            Some(_) => {
                self.fault(key, format!("must be from {told}"), "choose a value in this range");
                stand_in
            }
            None => {
                self.fault(key, format!("must be {what}"), format!("choose a value from {told}"));
                stand_in
            }
        }
    }

    /// A secret. Trimmed; an example's placeholder is a fault.
    pub(super) fn secret(&mut self, key: &str, rule: &Rule, fits: impl Fn(&str) -> bool) -> Option<Secret> {
        let text = self.text(key)?;
        if is_placeholder(text) {
            self.fault(key, "still holds a placeholder", "put the real value there");
            return None;
        }
        if !fits(text) {
            self.fault(key, rule.rule, rule.remedy);
            return None;
        }
        self.show(key, "(set, not shown)");
        Some(Secret::new(text.to_owned()))
    }

    /// Several texts: an array in TOML, separated by commas in a variable. Their number is shown, not they.
    pub(super) fn list(&mut self, key: &str) -> Vec<Zeroizing<String>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let list = match value {
            Value::Text(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Zeroizing::new(item.to_owned()))
                    .collect::<Vec<_>>(),
            ),
            Value::Toml(value) => value.as_array().and_then(|items| {
                items.iter().map(|item| item.as_str().map(|text| Zeroizing::new(text.trim().to_owned()))).collect()
            }),
        };
        match list {
            Some(list) => {
                self.show(key, format!("({} of them, not shown)", list.len()));
                list
            }
            None => {
                self.fault(key, "must be a list of texts", "write [\"one\", \"two\"]");
                Vec::new()
            }
        }
    }

    /// Values of which there may be several: one text or an array in TOML, separated by commas in a variable.
    pub(super) fn several<T>(
        &mut self,
        key: &str,
        rule: &Rule,
        parse: impl Fn(&str) -> Option<T>,
        shown: impl Fn(&T) -> String,
    ) -> Vec<T> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let texts = match (text_of(value), value) {
            (Some(text), _) => Some(text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect()),
            (None, Value::Toml(value)) => {
                value.as_array().and_then(|items| items.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>())
            }
            (None, Value::Text(_)) => None,
        };
        let parsed = texts.and_then(|texts| texts.into_iter().map(parse).collect::<Option<Vec<T>>>());
        match &parsed {
            Some(values) => {
                self.show(key, format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")));
            }
            None => self.fault(key, rule.rule, rule.remedy),
        }
        parsed.unwrap_or_default()
    }

    /// A list of tables: only a file can hold one.
    pub(super) fn tables(&mut self, key: &str) -> Vec<&'a toml::Table> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let tables = match value {
            Value::Text(_) => None,
            Value::Toml(value) => {
                value.as_array().and_then(|items| items.iter().map(toml::Value::as_table).collect::<Option<Vec<_>>>())
            }
        };
        match tables {
            Some(tables) => {
                self.show(key, format!("({} of them, not shown)", tables.len()));
                tables
            }
            None => {
                self.fault(key, "must be a list of tables, in a file", format!("write [[{key}]] and its fields"));
                Vec::new()
            }
        }
    }

    /// An HTTP address that may be missing, without a slash at its end.
    pub(super) fn url(&mut self, key: &str) -> Option<Url> {
        let text = self.text(key)?;
        match parse_url(text) {
            Ok(url) => {
                self.show(key, format!("\"{url}\""));
                Some(url)
            }
            Err(rule) => {
                self.fault(key, rule, "write it like https://relay.example.org/path");
                None
            }
        }
    }
}

fn is_set(entry: &Entry) -> bool {
    match &entry.value {
        Value::Text(text) => !text.trim().is_empty(),
        Value::Toml(value) => value.as_str().is_none_or(|text| !text.trim().is_empty()),
    }
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text.as_str()),
        Value::Toml(value) => value.as_str(),
    }
}

/// Whether a text is what an example wrote in a secret's place.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("your") || text.starts_with('<') || text.contains("changeme") || text.contains("xxxx")
}

fn parse_url(text: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text).map_err(|_| "must be an absolute URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must be an http or https URL with a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path: no query and no fragment");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A span of time from a whole number and a unit.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
}

/// The shortest text that [`parse_duration`] reads back, for whole milliseconds.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, size): &&(&str, u64)| millis >= *size && millis.is_multiple_of(*size);
    let (unit, size) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
    format!("{}{unit}", millis / size)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_shown_is_read_back_the_same(millis in 0u64..=10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_the_duration_parser_panic(text in "\\PC*") {
            let _ = parse_duration(&text);
        }
    }

    #[test]
    fn a_duration_without_a_unit_or_with_a_fraction_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5s", "5 minutes", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("5 m"), Some(Duration::from_secs(300)));
    }
}
