//! The configuration: three layers in, one typed [`Config`] out, or every fault at once.
//!
//! - **Default**: `config/default.toml`, compiled in. It is also the documentation: each key with its unit, range and
//!   reason stands there, and tests hold it to the code.
//! - **File**: a TOML file with any of these keys.
//! - **Environment**: the names that people know (`TWILIO_AUTH_TOKEN`, listed in `.env.example`), and for every other
//!   key `CRISIS_RELAY__SECTION__KEY`. A secret may also come from a file named by `NAME_FILE`.
//!
//! An empty value means "not set" in each layer; an empty environment variable leaves the layer below as it is.
//!
//! [`Config::load`] is pure: text and variables are arguments. [`from_process`] gathers them from the real process.
//! Nothing in here shows a value in a fault, and no secret and no phone number anywhere: a fault names the key, the
//! rule and the remedy; `Debug` and [`Config::summary`] are masked.
//!
//! What this module does not do: it opens no database, asks no network, and changes no process environment.
//!
//! | room | what |
//! |---|---|
//! | `settings` | the typed result |
//! | `names` | which environment variable sets which key |
//! | `layers` | default, file and environment become one map; unknown keys |
//! | `reader` | typed reads with ranges; notes each fault and each value's origin |
//! | `sections` | every key is read here, section by section |
//! | `ladder` | people and rungs, which are lists of tables |
//! | `checks` | the rules between keys |
//! | `fault` | what is reported |
//! | `process` | the real environment and files |

mod checks;
mod fault;
mod ladder;
mod layers;
mod names;
mod process;
mod reader;
mod sections;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

pub(crate) use checks::{Gravity, Unapproved, unapproved};
pub use fault::{ConfigFault, ConfigFaults};
pub use process::from_process;
pub(crate) use reader::Rule;
pub(crate) use sections::{DATABASE_ID, DEFAULT_DATABASE, PROJECT_ID, database_id, project_id};
pub use settings::*;
pub use values::{ApiRole, KeyHash, LogFormat, MasterKey, Mode, Sid, StoreKind};

use layers::Layers;
use reader::{Line, Reader};

/// The commented defaults: every key, with unit, range and reason.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// A configuration file's text, with the name that faults and the summary call it by.
#[derive(Clone)]
pub struct ConfigFile {
    /// The path as the operator wrote it.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// Where a configuration comes from. Has no `Debug`: the texts hold secrets.
pub struct Sources<'a> {
    /// The operator's file, if there is one.
    pub file: Option<ConfigFile>,
    /// The environment's variables. Those that are none of ours are ignored.
    pub environment: BTreeMap<String, String>,
    /// Reads the file that a `NAME_FILE` variable names.
    pub read_file: &'a dyn Fn(&str) -> io::Result<String>,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// Every fault there is, in the order of `config/default.toml`'s sections, rules between keys last.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let layers = Layers::gather(sources, &mut faults);
        let mut reader = Reader::new(&layers, faults);
        let mut config = sections::read(&mut reader);
        let notes = checks::check(&config, &mut reader);
        let (faults, lines) = reader.finish();
        if !faults.is_empty() {
            return Err(ConfigFaults(faults));
        }
        config.lines = lines;
        config.notes = layers.notes.iter().cloned().chain(notes).collect();
        Ok(config)
    }

    /// The effective configuration for a human: each key, its value (secrets and numbers masked), and where it came
    /// from: `default`, `file NAME` or `environment NAME`.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for Line { key, shown, origin } in &self.lines {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                section = of;
                // Writing to a String cannot fail.
                let _ = writeln!(text, "[{section}]");
            }
            let _ = writeln!(text, "{name} = {shown}  # {origin}");
        }
        text
    }

    /// What is legal and still worth a warning at the start: near misses in variable names, a development set-up's
    /// gaps. Never holds a value.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
