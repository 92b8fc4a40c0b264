//! The command line: what the binary does, in the words of `--help`.

mod audit;
mod check;
mod copy;
mod demo;
mod end;
pub mod logging;
mod migrate;
mod serve;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::domain::message::Purpose;

/// Crisis-alert escalation: a score becomes a message on a counsellor's phone, and nothing is lost on the way.
#[derive(Parser)]
#[command(name = "crisis-relay", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
First look:     crisis-relay demo
Settings:       config/default.toml says what each one means; .env.example lists the environment.
Documentation:  README.md, and /docs of a running service.")]
struct Cli {
    /// The configuration file [default: config/crisis-relay.toml, if it is there].
    #[arg(long, short, global = true, value_name = "FILE", env = "CRISIS_RELAY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or Ctrl-C.
    ///
    /// Settings come from the defaults, a file, and the environment with .env, each over the one before. In development and
    /// without Twilio credentials the built-in simulator stands in for Twilio; in production that is refused. Exit status
    /// 1: the end that was asked for did not come by itself, as where the disk hangs, and the process was cut off; 2: it
    /// could not start, and said why.
    Serve,
    /// Show the whole path on this machine, with nothing to set up.
    ///
    /// Starts the service and the Twilio simulator, posts a sample crisis event through the real HTTP API, and shows line
    /// by line what happens. Stays up for the README's curl lines and for the phone page, until Ctrl-C. Reads neither file
    /// nor environment: it cannot reach a real account.
    Demo(demo::DemoArgs),
    /// Prove a configuration: store, Twilio credentials and senders, webhook address, templates.
    ///
    /// Says everything that is wrong, with how to mend it, all at once. Sends no message, but for --notify-ops; may run beside
    /// the service. Exit status 1: something is at fault; 2: the settings cannot even be read.
    Check(check::CheckArgs),
    /// Bring the store to what this build needs.
    ///
    /// SQLite: the schema, as a start of the service does. Firestore: indexes, TTL policies and security rules, with the
    /// credentials of who deploys (`gcloud auth application-default login`); what is there is left as it is. Exit status
    /// 1: it could not be done; 3: all is asked for, and Google has not finished building.
    Migrate(migrate::MigrateArgs),
    /// Move an installation into another store, such as from a file to Firestore: everything, once, and proven.
    ///
    /// Stop the service first. Sends nothing and needs no keys. What was cut off is finished by the same call again; until
    /// then the service refuses to start on the destination. Exit status 1: refused, broken off, or something differs; 2: a
    /// store cannot be opened.
    Copy(copy::CopyArgs),
    /// Run the Twilio simulator alone.
    ///
    /// It speaks Twilio's HTTP API, shows messages on a phone page, and misbehaves on request. A service talks to it with
    /// TWILIO_API_BASE_URL and the account's SID and token. Whoever reaches it controls it: keep it on this machine.
    SimulateTwilio(tools::SimulateArgs),
    /// Verify and read the audit.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Make an API key: prints it once, with the hash that the configuration keeps.
    ApiKey {
        /// Who will hold it, such as chat-backend: 1 to 32 lower-case letters, digits or '-'. Stands in the key.
        id: String,
    },
    /// Print the body that registers a WhatsApp template at Twilio's Content API.
    Template {
        /// The language: en, hi, or another that has a template file.
        language: String,
        /// What it is for.
        #[arg(long, default_value = Purpose::CounsellorAlert.as_str(), value_parser = purposes())]
        purpose: Purpose,
    },
    /// Print the API's OpenAPI description, as JSON.
    Openapi,
    /// Ask a running service whether it is alive: for container health checks.
    ///
    /// Asks /livez and says nothing. Exit status 0: it is; 1: it is not.
    Health {
        /// The service's address [default: this machine, at the configured port].
        #[arg(long, value_name = "URL")]
        url: Option<url::Url>,
    },
}

/// Runs the command line.
pub fn run() -> ExitCode {
    logging::tell_early_panics();
    let cli = Cli::parse();
    let file = cli.config.as_deref();
    match cli.command {
        Command::Serve => with_config(file, serve::serve),
        Command::Demo(args) => demo::demo(&args),
        Command::Check(args) => check::check(file, &args),
        Command::Migrate(args) => with_config(file, |config| migrate::migrate(config, &args)),
        Command::Copy(args) => with_config(file, |config| copy::copy(config, &args)),
        Command::SimulateTwilio(args) => tools::simulate(&args),
        Command::Audit(command) => with_config(file, |config| audit::run(config, &command)),
        Command::ApiKey { id } => tools::api_key(&id),
        Command::Template { language, purpose } => {
            with_config(file, |config| tools::template(config, &language, purpose))
        }
        Command::Openapi => tools::openapi(),
        Command::Health { url } => tools::health(url, file),
    }
}

fn with_config(file: Option<&std::path::Path>, command: impl FnOnce(&Config) -> ExitCode) -> ExitCode {
    match config::from_process(file) {
        Ok(config) => command(&config),
        Err(faults) => {
            say_error(&format!("The configuration cannot be used:\n{faults}"));
            ExitCode::from(2)
        }
    }
}

/// A runtime with one thread a core, but for one: the store's writer has a thread of its own, which is as busy as they
/// are, and a thread that is woken only to find that there is no core for it delays the others. Two at the least, so that
/// one long piece of work, or a read that hangs, does not hold up everything.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // Tokio's own variable, for whoever knows better.
    let asked = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|threads| threads.parse::<usize>().ok());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = asked.unwrap_or(cores.saturating_sub(1)).max(2);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// How long the end waits for what the work has left behind, such as a write that hangs.
const LEFT_OVERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs `work` on a runtime.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match runtime() {
        Ok(runtime) => {
            let ended = runtime.block_on(work);
            // Without this a disk that hangs would hold the process up for ever.
            runtime.shutdown_timeout(LEFT_OVERS_WITHIN);
            ended
        }
        Err(error) => {
            say_error(&format!("The runtime cannot be started: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for the person at the terminal. A closed pipe is no reason to stop.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line about what went wrong.
fn say_error(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns when the process is asked to end: Ctrl-C, or SIGTERM.
async fn asked_to_end() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}

/// Reads a purpose by its name; help and errors list all of them.
fn purposes() -> impl TypedValueParser<Value = Purpose> {
    let words = PossibleValuesParser::new(Purpose::ALL.map(Purpose::as_str));
    words.try_map(|word| Purpose::from_word(&word).ok_or("there is no such purpose"))
}
