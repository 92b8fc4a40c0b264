//! Log lines: JSON for machines, readable lines for a terminal; and what is said of a panic.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends the process's log lines to standard error, as the configuration says.
pub(super) fn init(config: &Config) {
    let json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    init_with(json, &config.log.filter);
}

/// The same, in the given form. A filter that cannot be read was refused with the configuration.
pub(super) fn init_with(json: bool, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (in tests) leaves the first in force.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.with_target(false).try_init() };
    std::panic::set_hook(Box::new(|panic| {
        // The place only: a panic's words may quote what somebody sent.
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(place, "panic");
    }));
}
