//! What is wrong with a configuration, told so that a person can mend it.

use std::fmt;

use crate::ports::Fault;

/// One fault. Names the key, the rule and the remedy; never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The dotted key, as in `config/default.toml`; or the name of a file or variable that is at fault as a whole.
    pub key: String,
    /// The environment variable that sets this key.
    pub variable: Option<String>,
    /// Where the faulty value came from (`file NAME`, `environment NAME`); `None` where it is missing.
    pub origin: Option<String>,
    /// The rule that was broken.
    pub rule: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match (&self.variable, &self.origin) {
            (_, Some(origin)) => write!(f, " [{origin}]")?,
            (Some(variable), None) => write!(f, " [{variable}]")?,
            (None, None) => {}
        }
        let end = if self.remedy.ends_with('?') { "" } else { "." };
        write!(f, ": {}. To mend: {}{end}", self.rule, self.remedy)
    }
}

impl From<ConfigFault> for Fault {
    fn from(fault: ConfigFault) -> Self {
        let subject = match fault.variable {
            Some(variable) => format!("{} ({variable})", fault.key),
            None => fault.key,
        };
        Self { subject, problem: fault.rule, remedy: fault.remedy }
    }
}

/// Everything that is wrong, at once. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(pub(super) Vec<ConfigFault>);

impl ConfigFaults {
    /// Each fault.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigFault> {
        self.0.iter()
    }
}

impl IntoIterator for ConfigFaults {
    type Item = ConfigFault;
    type IntoIter = std::vec::IntoIter<ConfigFault>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "fault" } else { "faults" };
        write!(f, "the configuration has {} {noun}:", self.0.len())?;
        for fault in &self.0 {
            write!(f, "\n- {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
