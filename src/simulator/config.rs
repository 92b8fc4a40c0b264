//! What a simulator is told at its start.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::fault::FaultRule;
use crate::secret::Secret;

/// An API key: a second way to prove who calls. Twilio refuses standard keys on the account resource, and never signs
/// webhooks with them.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// `SK` and 32 hexadecimal digits.
    pub sid: String,
    /// Its secret.
    pub secret: Secret,
}

/// When messages move on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackMode {
    /// By themselves, by the simulator's clock: each status so long after the one before it has been told, so that a
    /// message's callbacks come in order unless a fault shuffles them.
    Automatic {
        /// From the create call to `sent`.
        sent_after: Duration,
        /// From `sent` to `delivered`.
        delivered_after: Duration,
        /// From `delivered` to `read` (WhatsApp only); `None`: the recipient does not share it.
        read_after: Option<Duration>,
    },
    /// Only when told: see `SimulatorHandle::step`.
    Manual,
}

impl Default for CallbackMode {
    fn default() -> Self {
        Self::Automatic {
            sent_after: Duration::from_millis(300),
            delivered_after: Duration::from_millis(700),
            read_after: None,
        }
    }
}

/// A message template of the Content API, approved and known from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentTemplate {
    /// `HX` and 32 hexadecimal digits.
    pub sid: String,
    /// What it would have been made from.
    pub definition: ContentDefinition,
}

/// The body of a call that makes a template (`POST /v1/Content`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContentDefinition {
    /// The template's name.
    #[serde(default)]
    pub friendly_name: String,
    /// Its language tag, as `en`.
    pub language: String,
    /// Samples of the values, by the name of the variable.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// By kind (`twilio/text`, `twilio/quick-reply`): the text, with `{{1}}`, `{{2}}` … where values go, and the buttons.
    pub types: BTreeMap<String, Value>,
}

/// How a simulator behaves. [`SimulatorConfig::default`] is a good start for tests: loopback, any free port.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Where it listens. Keep it on loopback or an inner network: whoever reaches it controls it.
    pub bind: SocketAddr,
    /// The one account there is: `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// The account's token: proves who calls, and signs the webhooks.
    pub auth_token: Secret,
    /// Further keys that prove who calls.
    pub api_keys: Vec<ApiKey>,
    /// The senders the account owns: `+E164` for SMS, `whatsapp:+E164` for WhatsApp.
    pub senders: Vec<String>,
    /// Messaging services (`MG` and 32 hexadecimal digits) that send from any of `senders`.
    pub messaging_services: Vec<String>,
    /// Templates known from the start; more can be made through the Content API.
    pub contents: Vec<ContentTemplate>,
    /// Where replies are posted; can be set later, once the service under test has its port.
    pub inbound_url: Option<String>,
    /// What goes wrong from the start.
    pub faults: Vec<FaultRule>,
    /// When messages move on.
    pub callbacks: CallbackMode,
    /// Whether WhatsApp's 24-hour window is kept: free text to a phone that has not written within it fails with
    /// 63016, as in life. Off by default: a demo would begin with a failure.
    pub whatsapp_window: bool,
    /// How many messages, and as many recorded requests, are remembered; the oldest is forgotten first.
    pub keep_messages: usize,
    /// How many webhooks may be under way at once.
    pub callback_concurrency: usize,
    /// How long a connection is held open by the faults that never answer.
    pub hold: Duration,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account_sid: "AC00000000000000000000000000000000".to_owned(),
            auth_token: Secret::from("simulator-auth-token"),
            api_keys: Vec::new(),
            senders: vec!["whatsapp:+14155238886".to_owned(), "+14155238886".to_owned()],
            messaging_services: Vec::new(),
            contents: Vec::new(),
            inbound_url: None,
            faults: Vec::new(),
            callbacks: CallbackMode::default(),
            whatsapp_window: false,
            keep_messages: 10_000,
            callback_concurrency: 64,
            hold: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let config = SimulatorConfig {
            auth_token: Secret::from("token-canary"),
            api_keys: vec![ApiKey { sid: "SK1".to_owned(), secret: Secret::from("secret-canary".to_owned()) }],
            ..SimulatorConfig::default()
        };
        assert!(!format!("{config:?}").contains("canary"));
    }
}
