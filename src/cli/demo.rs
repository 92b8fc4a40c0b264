//! `demo`: the whole path on this machine, through the real HTTP API, told line by line as it happens.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::{asked_to_end, block_on, logging, say, say_error};
use crate::app::{self, Running};
use crate::clock::SystemEntropy;
use crate::config::{Config, Sources};
use crate::domain::ids::AlertId;
use crate::domain::message::Purpose;
use crate::http::auth::ApiKeyHash;
use crate::ports::random;
use crate::service::caller::Caller;
use crate::simulator::{ContentTemplate, SimMessage, SimulatorHandle};

/// Keys of the demo: they open nothing but a demo on this machine, and stand in the README's curl lines. Keys of less than
/// 16 characters are never looked up.
const KEYS: [(&str, &str, &str); 4] = [
    ("service", "API_KEY_SERVICE_SHA256", "demo-service-key"),
    ("counsellor", "API_KEY_COUNSELLOR_SHA256", "demo-counsellor-key"),
    ("admin", "API_KEY_ADMIN_SHA256", "demo-administrator-key"),
    ("auditor", "API_KEY_AUDITOR_SHA256", "demo-auditor-key"),
];

/// The approved templates that the demo's simulator knows: those with buttons.
const CONTENT_SIDS: [(Purpose, &str, &str, &str); 4] = [
    (Purpose::CounsellorAlert, "en", "TWILIO_CONTENT_SID_EN", "HX00000000000000000000000000000001"),
    (Purpose::CounsellorAlert, "hi", "TWILIO_CONTENT_SID_HI", "HX00000000000000000000000000000002"),
    (Purpose::OutcomeReminder, "en", "TWILIO_CONTENT_SID_EN_OUTCOME_REMINDER", "HX00000000000000000000000000000003"),
    (Purpose::OutcomeReminder, "hi", "TWILIO_CONTENT_SID_HI_OUTCOME_REMINDER", "HX00000000000000000000000000000004"),
];

/// How often the display looks for news.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How the demo is run.
#[derive(clap::Args)]
pub(super) struct DemoArgs {
    /// The service's port; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The simulator's port, API and phone page alike; 0 takes a free one.
    #[arg(long, default_value_t = 8090, value_name = "PORT")]
    simulator_port: u16,
    /// The folder of the database and the demo's master key; made if it is not there.
    #[arg(long, default_value = "data", value_name = "DIR")]
    data: PathBuf,
    /// The language that the counsellor is told in: en or hi.
    #[arg(long, default_value = "en")]
    language: String,
    /// End after the sample event has been delivered, instead of staying up.
    #[arg(long)]
    once: bool,
}

pub(super) fn demo(args: &DemoArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(faults) => {
            say_error(&format!("The demo's configuration cannot be used:\n{faults}"));
            return ExitCode::from(2);
        }
    };
    // The display tells the story; the log only speaks up when something is wrong.
    let _last_lines = logging::init_with(false, "error");
    block_on(async {
        match app::start(&config).await {
            Ok(running) => {
                let shown = show(&running, &config, args.once).await;
                running.stop().await;
                shown
            }
            Err(error) => {
                say_error(&format!("The demo cannot start:\n{error}"));
                say_error("If another program has the port, try --port 8081 --simulator-port 8091.");
                ExitCode::from(2)
            }
        }
    })
}

/// The demo's configuration: fixed, whatever the process's environment says, so that it never meets a real account. Its
/// files have the names that development has by default: the audit's commands then find them.
fn configuration(args: &DemoArgs) -> Result<Config, crate::config::ConfigFaults> {
    let data = args.data.display();
    let mut environment = BTreeMap::from([
        ("CRISIS_RELAY_MODE".to_owned(), "development".to_owned()),
        ("HTTP_BIND".to_owned(), format!("127.0.0.1:{}", args.port)),
        ("CRISIS_RELAY__SIMULATOR__BIND".to_owned(), format!("127.0.0.1:{}", args.simulator_port)),
        ("DATABASE_PATH".to_owned(), format!("{data}/crisis-relay.db")),
        ("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH".to_owned(), format!("{data}/development-master.key")),
        ("COUNSELLOR_LANGUAGE".to_owned(), args.language.clone()),
    ]);
    for (_, variable, key) in KEYS {
        environment.insert(variable.to_owned(), ApiKeyHash::of(key).to_string());
    }
    for (.., variable, sid) in CONTENT_SIDS {
        environment.insert(variable.to_owned(), sid.to_owned());
    }
    Config::load(&Sources { file: None, environment, read_file: &|path| std::fs::read_to_string(path) })
}

async fn show(running: &Running, config: &Config, once: bool) -> ExitCode {
    let Some(simulator) = &running.simulator else { return ExitCode::FAILURE };
    let handle = simulator.handle();
    if let Err(error) = register_templates(config, &handle) {
        say_error(&error);
        return ExitCode::FAILURE;
    }
    greet(&running.url, &simulator.url());
    let mut display = Display::new(running, config, handle);
    display.skip_what_was_there().await;
    let student = format!("student-{}", data_encoding::HEXLOWER.encode(&random::<3>(&SystemEntropy)));
    if let Err(error) = post_sample(&running.url, &student).await {
        say_error(&format!("The sample event could not be posted: {error}"));
        return ExitCode::FAILURE;
    }
    let ending = asked_to_end();
    tokio::pin!(ending);
    loop {
        display.look().await;
        if once && display.delivered {
            return ExitCode::SUCCESS;
        }
        tokio::select! {
            () = &mut ending => {
                say("\nStopped. The database stays in the data folder; run the demo again and go on.");
                return ExitCode::SUCCESS;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Makes the templates known to the simulator, as an administrator does at Twilio.
fn register_templates(config: &Config, simulator: &SimulatorHandle) -> Result<(), String> {
    let templates = app::load_templates(config).map_err(|error| error.to_string())?;
    for (purpose, known, _, sid) in CONTENT_SIDS {
        let Some((language, _)) = templates.languages().find(|(language, _)| language.as_str() == known) else {
            continue;
        };
        let definition = serde_json::from_value(templates.content_definition(purpose, language));
        let definition = definition.map_err(|error| format!("A template is none that Twilio takes: {error}"))?;
        simulator.put_content(ContentTemplate { sid: sid.to_owned(), definition });
    }
    Ok(())
}

fn greet(url: &Url, simulator: &str) {
    let url = url.as_str().trim_end_matches('/');
    say(&format!("\ncrisis-relay demo: nothing here reaches a real phone.\n\n  API             {url}"));
    say(&format!("  API docs        {url}/docs"));
    say(&format!("  phones          {simulator}   (open it in a browser: it shows the message, and takes a reply)"));
    for (role, _, key) in KEYS {
        say(&format!("  {:<15} Authorization: Bearer {key}", format!("{role} key")));
    }
    say(
        "\nTimes are UTC; messages show the college's local time. README.md has curl lines to go on with. Ctrl-C ends it.\n",
    );
}

/// The sample: a student who has agreed, and a score far above the threshold.
async fn post_sample(url: &Url, student: &str) -> Result<(), reqwest::Error> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let base = url.as_str().trim_end_matches('/');
    let key = KEYS[0].2;
    say(&format!("PUT  /api/v1/messaging/preferences/{student}   the student agrees that a counsellor may be told"));
    client
        .put(format!("{base}/api/v1/messaging/preferences/{student}"))
        .bearer_auth(key)
        .json(&json!({ "whatsapp": true, "source": "demo" }))
        .send()
        .await?
        .error_for_status()?;
    say("POST /api/v1/crisis/events   score 0.93 from chat");
    // Shown as it came: parsed and written again, its fields would change places.
    let answer = client
        .post(format!("{base}/api/v1/crisis/events"))
        .bearer_auth(key)
        .json(&json!({
            "user_id": student,
            "crisis_score": 0.93,
            "source": "chat",
            "message": "This sentence is sealed at rest and reaches no phone.",
            "model_version": "demo-1",
        }))
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    say(&format!("202  {answer}\n"));
    Ok(())
}

/// Tells what is new: audit entries of every alert, and messages on every phone.
struct Display<'a> {
    running: &'a Running,
    simulator: SimulatorHandle,
    caller: Caller,
    told: HashMap<AlertId, u64>,
    /// The messages that were shown, by SID.
    phones: HashSet<String>,
    delivered: bool,
    waiting_told: bool,
}

impl<'a> Display<'a> {
    fn new(running: &'a Running, config: &Config, simulator: SimulatorHandle) -> Self {
        let caller = Caller {
            organisation: config.organisation.id.clone(),
            id: "demo".to_owned(),
            role: "admin",
            is_person: false,
            deadline: None,
        };
        Self {
            running,
            simulator,
            caller,
            told: HashMap::new(),
            phones: HashSet::new(),
            delivered: false,
            waiting_told: false,
        }
    }

    async fn skip_what_was_there(&mut self) {
        if let Ok(alerts) = self.running.service.list(&self.caller, None, None, 200).await {
            self.told = alerts.iter().map(|alert| (alert.id, alert.audit_head.seq)).collect();
        }
    }

    async fn look(&mut self) {
        // The phones first: whatever they show by now, the audit tells of, so that its line comes before the message.
        let messages = self.simulator.messages();
        let service = Arc::clone(&self.running.service);
        let Ok(alerts) = service.list(&self.caller, None, None, 200).await else { return };
        for alert in alerts.iter().rev() {
            let after = self.told.get(&alert.id).copied().unwrap_or(0);
            if alert.audit_head.seq == after {
                continue;
            }
            let Ok(entries) = service.timeline(alert, after, 200).await else { return };
            for entry in &entries {
                let said: Value = serde_json::from_str(&entry.canonical).unwrap_or_default();
                self.tell(alert.reference.as_str(), &said);
            }
            self.told.insert(alert.id, entries.last().map_or(after, |last| last.seq));
        }
        for message in &messages {
            self.tell_phone(message);
        }
    }

    fn tell(&mut self, reference: &str, said: &Value) {
        let at = |path: &str| said.pointer(path).and_then(Value::as_str).unwrap_or("-");
        let time = at("/at").get(11..23).unwrap_or("-").to_owned();
        let receipt = at("/what") == "receipt";
        if at("/what") == "accepted"
            && let Some(message) = self.simulator.messages().iter().find(|message| message.sid == at("/provider_id"))
        {
            self.tell_phone(message);
        }
        if let Some(line) = in_words(said) {
            say(&format!("{time}  {reference}  {line}"));
        }
        let arrived = receipt && matches!(at("/status"), "delivered" | "read");
        if arrived && !self.waiting_told {
            self.waiting_told = true;
            self.delivered = true;
            say(&format!(
                "{:>12}  {reference}  waiting for somebody to acknowledge: tap a button or reply 1 on the phone page",
                ""
            ));
        }
    }

    fn tell_phone(&mut self, message: &SimMessage) {
        if self.phones.insert(message.sid.clone()) {
            bubble(message);
        }
    }
}

/// The message as it is on the phone.
fn bubble(message: &SimMessage) {
    let ending = message.phone.get(message.phone.len().saturating_sub(2)..).unwrap_or("");
    say(&format!("              .-- on the phone …{ending} ------------------------------------------"));
    for line in wrapped(&message.body, 58) {
        say(&format!("              |  {line}"));
    }
    say("              '---------------------------------------------------------------");
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// An audit entry in plain words; `None` for those that say nothing to a newcomer.
fn in_words(said: &Value) -> Option<String> {
    let at = |path: &str| said.pointer(path).and_then(Value::as_str).unwrap_or("-");
    let number = |path: &str| said.pointer(path).map_or_else(|| "-".to_owned(), ToString::to_string);
    Some(match (at("/deed"), at("/what")) {
        ("opened", _) => format!(
            "accepted: {} event, score {}, decision {}",
            at("/trigger/source"),
            number("/trigger/score"),
            at("/decision")
        ),
        ("event_joined", _) => format!("joined by a further event, decision {}", at("/decision")),
        ("ground_recorded", _) => match at("/ground/kind") {
            "consent" => format!("ground: consent of {}, for {}", at("/ground/granted_at"), number("/ground/channels")),
            _ => "ground: emergency override (who and why are sealed)".to_owned(),
        },
        ("withheld", _) => "withheld: no consent, nobody is told; a counsellor may override it".to_owned(),
        ("delivery", "attempt_begun") => {
            format!("message {} to {} over {}", number("/delivery"), at("/contact"), at("/channel"))
        }
        ("delivery", "accepted") => format!("Twilio has it: {} ({})", at("/status"), at("/provider_id")),
        ("delivery", "receipt") => format!("receipt: {}", at("/status")),
        ("delivery", "retry_planned") => "not executed: it will be tried again".to_owned(),
        ("delivery", "outcome_unknown") => "outcome unknown: Twilio is asked before anything is sent again".to_owned(),
        ("delivery", "failed") => format!("message {} failed: {}", number("/delivery"), at("/reason")),
        ("delivery", "fell_over") => format!("message {} goes over {} instead", number("/next"), at("/channel")),
        ("acknowledged", _) => format!("acknowledged via {}: a human has taken the case", at("/via")),
        ("nobody_on_call", _) => "nobody is on call: the next rung begins at once".to_owned(),
        ("policy_changed", _) => format!("graver: it goes on by the ladder {}", at("/policy")),
        ("passed_on", _) => "handed on: the next rung begins at once".to_owned(),
        ("reopened", _) => "opened again: somebody is told once more".to_owned(),
        ("resolved", _) => format!("resolved: {}", at("/outcome")),
        _ => return None,
    })
}
