//! The real process: its variables, `.env`, the configuration file. Thin; everything that decides is in `load`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::fault::{ConfigFault, ConfigFaults};
use super::names::CONFIG_VARIABLE;
use super::values::Mode;
use super::{Config, ConfigFile, Sources};

/// Read where no file is named, if it is there.
const FILE: &str = "config/crisis-relay.toml";

/// Variables for a developer's machine; the real environment wins over them.
const DOT_ENV: &str = ".env";

/// The variables that set the mode.
const MODE_VARIABLES: [&str; 2] = ["CRISIS_RELAY_MODE", "CRISIS_RELAY__MODE"];

/// Longest file that is taken for a secret or a configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Loads the configuration of this process.
///
/// `path` is what `--config` named; else `CRISIS_RELAY_CONFIG` counts; else `config/crisis-relay.toml`, if it is there.
/// Variables come from `.env` in the working directory and from the process, which wins; from the process alone where it
/// says that this is production. Nothing is changed in the process's environment.
///
/// # Errors
/// Every fault of [`Config::load`], and files or variables that cannot be read.
pub fn from_process(path: Option<&Path>) -> Result<Config, ConfigFaults> {
    load_from(path, std::env::vars_os(), Path::new("."))
}

fn load_from(
    path: Option<&Path>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    folder: &Path,
) -> Result<Config, ConfigFaults> {
    let mut faults = Vec::new();
    let variables: BTreeMap<String, String> = readable(variables).collect();
    let mut environment = BTreeMap::new();
    if !says_production(&variables) {
        environment = dot_env(&folder.join(DOT_ENV), &mut faults);
    }
    environment.extend(variables);
    let file = config_file(path, &environment, folder, &mut faults);
    let read_file = |path: &str| read_bounded(&folder.join(path));
    let loaded = Config::load(&Sources { file, environment, read_file: &read_file });
    match loaded {
        Ok(config) if faults.is_empty() => Ok(config),
        Ok(_) => Err(ConfigFaults(faults)),
        Err(more) => Err(ConfigFaults(faults.into_iter().chain(more).collect())),
    }
}

/// Where this is production, a file that somebody left in the working directory must not set anything.
fn says_production(variables: &BTreeMap<String, String>) -> bool {
    let words = MODE_VARIABLES.iter().filter_map(|name| variables.get(*name));
    words.filter_map(|word| Mode::from_word(word.trim())).any(|mode| match mode {
        Mode::Production => true,
        Mode::Development => false,
    })
}

/// The variables that are text. Others cannot be ours; where a name of ours holds bytes, the text with replacement
/// characters breaks that key's own rule.
fn readable(variables: impl IntoIterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (String, String)> {
    variables.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

fn config_file(
    path: Option<&Path>,
    environment: &BTreeMap<String, String>,
    folder: &Path,
    faults: &mut Vec<ConfigFault>,
) -> Option<ConfigFile> {
    let by_variable = environment.get(CONFIG_VARIABLE).map(String::as_str).filter(|path| !path.trim().is_empty());
    let named = path.or(by_variable.map(Path::new));
    let path = named.unwrap_or(Path::new(FILE));
    match read_bounded(&folder.join(path)) {
        Ok(text) => Some(ConfigFile { name: path.display().to_string(), text }),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            faults.push(unreadable(path, &error));
            None
        }
    }
}

fn dot_env(path: &Path, faults: &mut Vec<ConfigFault>) -> BTreeMap<String, String> {
    let text = match read_bounded(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            faults.push(unreadable(path, &error));
            return BTreeMap::new();
        }
    };
    let lines: Result<BTreeMap<_, _>, _> = dotenvy::Iter::new(text.as_bytes()).collect();
    // The error quotes the line, and the line may hold a secret.
    lines.unwrap_or_else(|_| {
        faults.push(ConfigFault {
            key: path.display().to_string(),
            variable: None,
            origin: None,
            rule: "has a line that is not NAME=value".into(),
            remedy: "put values with spaces or special signs in single quotes".into(),
        });
        BTreeMap::new()
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigFault {
    ConfigFault {
        key: path.display().to_string(),
        variable: None,
        origin: None,
        rule: format!("cannot be read ({})", error.kind()),
        remedy: "name a file of UTF-8 text, of at most 1 MiB, that this process may read".into(),
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn an_empty_folder_and_environment_give_the_defaults() {
        let config = load_from(None, [], folder(&[]).path()).unwrap();
        assert_eq!(config.organisation.name, "Care desk");
    }

    #[test]
    fn the_environment_wins_over_dot_env_which_wins_over_the_file() {
        let folder = folder(&[
            (FILE, "[organisation]\nid = 'file'\nname = 'From file'\ntime_zone = 'Europe/Berlin'"),
            (DOT_ENV, "ORGANISATION_ID=dot\nORGANISATION_NAME='From dot env'\n"),
        ]);
        let config = load_from(None, variables(&[("ORGANISATION_ID", "real")]), folder.path()).unwrap();
        assert_eq!(config.organisation.id.as_str(), "real");
        assert_eq!(config.organisation.name, "From dot env");
        assert_eq!(config.organisation.time_zone.iana_name(), Some("Europe/Berlin"));
    }

    #[test]
    fn in_production_no_dot_env_is_read() {
        let folder = folder(&[(DOT_ENV, "ORGANISATION_ID=dot\nnot a line")]);
        for name in MODE_VARIABLES {
            let faults = load_from(None, variables(&[(name, "production")]), folder.path()).unwrap_err().to_string();
            assert!(!faults.contains(DOT_ENV), "{faults}");
            assert!(faults.contains("twilio.account_sid"), "it is production: {faults}");
            let faults = load_from(None, variables(&[(name, "development")]), folder.path()).unwrap_err().to_string();
            assert!(faults.contains(DOT_ENV), "{faults}");
        }
    }

    #[test]
    fn a_named_file_counts_by_argument_first_then_by_variable_and_must_be_there() {
        let folder = folder(&[
            ("a.toml", "organisation.id = 'argument'"),
            ("b.toml", "organisation.id = 'variable'"),
            (FILE, "organisation.id = 'usual'"),
        ]);
        let by_variable = variables(&[(CONFIG_VARIABLE, "b.toml")]);
        let id = |path, variables| load_from(path, variables, folder.path()).unwrap().organisation.id.to_string();
        assert_eq!(id(Some(Path::new("a.toml")), by_variable.clone()), "argument");
        assert_eq!(id(None, by_variable), "variable");
        assert_eq!(id(None, vec![]), "usual");
        let faults = load_from(Some(Path::new("none.toml")), [], folder.path()).unwrap_err();
        assert!(faults.to_string().contains("none.toml: cannot be read"), "{faults}");
    }

    #[test]
    fn a_secret_comes_from_the_file_that_its_variable_names() {
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        let folder = folder(&[("key", &format!("{key}\n"))]);
        let config = load_from(None, variables(&[("MASTER_KEY_FILE", "key")]), folder.path()).unwrap();
        assert_eq!(config.keyring.master_key.unwrap().expose(), b"01234567890123456789012345678901");
        let faults = load_from(None, variables(&[("MASTER_KEY_FILE", "none")]), folder.path()).unwrap_err();
        assert!(faults.to_string().contains("keyring.master_key [environment MASTER_KEY_FILE]"), "{faults}");
    }

    #[test]
    fn a_broken_dot_env_is_told_without_its_line_and_beside_other_faults() {
        let folder = folder(&[(DOT_ENV, "TWILIO_AUTH_TOKEN='canary\n"), (FILE, "mode = 'test'")]);
        let faults = load_from(None, [], folder.path()).unwrap_err();
        assert_eq!(faults.iter().count(), 2, "{faults}");
        assert!(!format!("{faults} {faults:?}").contains("canary"), "{faults}");
    }
}
