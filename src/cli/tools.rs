//! Small commands: the simulator alone, keys, templates, the API's description, health.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{asked_to_end, block_on, logging, say, say_error};
use crate::app;
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config};
use crate::domain::message::Purpose;
use crate::http;
use crate::http::auth::generate;
use crate::simulator::{CallbackMode, Simulator, SimulatorConfig};

/// How the simulator is run.
#[derive(clap::Args)]
pub(super) struct SimulateArgs {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS:PORT")]
    bind: SocketAddr,
    /// The account that it plays; the built-in one if not given.
    #[arg(long, value_name = "AC…", env = "TWILIO_ACCOUNT_SID")]
    account_sid: Option<String>,
    /// The account's token [default: simulator-auth-token].
    #[arg(long, value_name = "TOKEN", env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    auth_token: Option<String>,
    /// Where replies from the phone page are posted.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/webhooks/twilio/incoming")]
    inbound_url: Url,
    /// Milliseconds from creation to `sent`.
    #[arg(long, default_value_t = 300, value_name = "MS")]
    sent_after: u64,
    /// Milliseconds from `sent` to `delivered`.
    #[arg(long, default_value_t = 700, value_name = "MS")]
    delivered_after: u64,
    /// How many messages and requests it remembers.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    keep: usize,
}

pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    let _last_lines = logging::init_with(false, "info");
    let defaults = SimulatorConfig::default();
    let settings = SimulatorConfig {
        bind: args.bind,
        account_sid: args.account_sid.clone().filter(|sid| !sid.is_empty()).unwrap_or(defaults.account_sid.clone()),
        auth_token: args
            .auth_token
            .clone()
            .filter(|text| !text.is_empty())
            .map_or(defaults.auth_token.clone(), Into::into),
        inbound_url: Some(args.inbound_url.to_string()),
        callbacks: CallbackMode::Automatic {
            sent_after: Duration::from_millis(args.sent_after),
            delivered_after: Duration::from_millis(args.delivered_after),
            read_after: None,
        },
        keep_messages: args.keep,
        ..defaults
    };
    block_on(async {
        let account = settings.account_sid.clone();
        match Simulator::start(settings, Arc::new(SystemClock), Arc::new(SystemEntropy)).await {
            Ok(simulator) => {
                say(&format!("Twilio simulator   {}  (phones: the same address in a browser)", simulator.url()));
                say(&format!("account            {account}"));
                say("Whoever reaches it controls it: keep it on this machine. Ctrl-C ends it.");
                asked_to_end().await;
                let _ = simulator.shutdown().await;
                ExitCode::SUCCESS
            }
            Err(error) => {
                say_error(&format!("The simulator cannot listen on {}: {error}", args.bind));
                ExitCode::FAILURE
            }
        }
    })
}

pub(super) fn api_key(id: &str) -> ExitCode {
    match generate(id, &SystemEntropy) {
        Ok(key) => {
            say(&format!("key     {}", key.plain.as_str()));
            say(&format!("sha256  {}", key.hash));
            say("\nGive the key to its holder: it is shown this once and stored nowhere.");
            say("Put the hash into the configuration, such as API_KEY_SERVICE_SHA256.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say_error(&format!("The id {}", error.rule));
            ExitCode::from(2)
        }
    }
}

pub(super) fn template(config: &Config, language: &str, purpose: Purpose) -> ExitCode {
    let templates = match app::load_templates(config) {
        Ok(templates) => templates,
        Err(error) => {
            say_error(&error.to_string());
            return ExitCode::from(2);
        }
    };
    match templates.languages().find(|(known, _)| known.as_str() == language) {
        Some((language, _)) => {
            let definition = templates.content_definition(purpose, language);
            say(&serde_json::to_string_pretty(&definition).unwrap_or_default());
            ExitCode::SUCCESS
        }
        None => {
            let known: Vec<&str> = templates.languages().map(|(language, _)| language.as_str()).collect();
            say_error(&format!("There is no template for that language; there are: {}", known.join(", ")));
            ExitCode::from(2)
        }
    }
}

pub(super) fn openapi() -> ExitCode {
    match http::openapi().to_pretty_json() {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say_error(&format!("The description cannot be written: {error}"));
            ExitCode::FAILURE
        }
    }
}

pub(super) fn health(url: Option<Url>, file: Option<&Path>) -> ExitCode {
    let url = match url {
        Some(url) => url,
        // A configuration with faults has no running service either.
        None => match config::from_process(file) {
            Ok(config) => app::local_url(config.http.bind),
            Err(_) => return ExitCode::FAILURE,
        },
    };
    block_on(async {
        let Ok(url) = url.join("/livez") else { return ExitCode::FAILURE };
        let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build();
        let answer = match client {
            Ok(client) => client.get(url).send().await,
            Err(_) => return ExitCode::FAILURE,
        };
        if answer.is_ok_and(|answer| answer.status().is_success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
