//! `check`: proves a configuration, and says all that is wrong with it at once.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::migrate::{FirestoreTarget, setup_faults};
use super::{block_on, say, say_error};
use crate::app::{self, Provider, StartError, TextFindings};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config, Sid, StoreKind};
use crate::domain::contact::{Channel, Language, PhoneNumber};
use crate::domain::message::Purpose;
use crate::domain::phone;
use crate::domain::roster::Roster;
use crate::keyring::LocalKeyring;
use crate::ports::transfer::Transfer;
use crate::ports::{Clock as _, Fault, Keyring, Store as _, StoreError, TwilioClient as _};
use crate::store::firestore::FirestoreStore;
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::twilio::rest::UsedTemplate;

/// The values of a notice to the operator: the installation's name, and the list.
const OPS_VALUES: usize = 2;

/// What was found, part by part.
#[derive(Default)]
struct Findings {
    faults: Vec<Fault>,
    unproven: usize,
}

impl Findings {
    fn fine(&self, part: &str, what: &str) {
        say(&format!("  ok        {part}: {what}"));
    }

    fn unproven(&mut self, part: &str, what: &str) {
        self.unproven += 1;
        say(&format!("  unproven  {part}: {what}"));
    }

    fn faults(&mut self, part: &str, faults: Vec<Fault>) {
        say(&format!("  FAULT     {part}"));
        for fault in &faults {
            say(&format!("            {}: {}", fault.subject, fault.problem));
            say(&format!("            -> {}", fault.remedy));
        }
        self.faults.extend(faults);
    }
}

/// What is checked beside what always is.
#[derive(clap::Args)]
pub(super) struct CheckArgs {
    /// Send a notice marked TEST to every target of alarms: webhook, PagerDuty, phones.
    #[arg(long)]
    notify_ops: bool,
}

pub(super) fn check(file: Option<&Path>, args: &CheckArgs) -> ExitCode {
    let config = match config::from_process(file) {
        Ok(config) => config,
        Err(faults) => {
            say_error(&faults.to_string());
            return ExitCode::from(2);
        }
    };
    say(&config.summary());
    let mut findings = Findings::default();
    findings.fine("configuration", "every setting is readable and they fit each other");
    for note in config.notes() {
        say(&format!("  note      {note}"));
    }
    block_on(async {
        templates(&config, &mut findings);
        let keyring = keyring(&config, &mut findings);
        store(&config, keyring.as_ref(), &mut findings).await;
        let provider = app::provider(&config, None);
        numbers(&config, &mut findings);
        twilio(&config, &provider, &mut findings).await;
        webhooks(&config, &provider, &mut findings).await;
        operator(&config, &provider, args.notify_ops, &mut findings).await;
        conclude(&findings)
    })
}

fn conclude(findings: &Findings) -> ExitCode {
    if findings.faults.is_empty() {
        let left = if findings.unproven == 0 { String::new() } else { format!(", {} unproven", findings.unproven) };
        say(&format!("\nNo faults{left}."));
        return ExitCode::SUCCESS;
    }
    say(&format!("\n{} fault(s): the service would not do its job like this.", findings.faults.len()));
    ExitCode::from(1)
}

fn start_faults(error: StartError, subject: &str) -> Vec<Fault> {
    if let StartError::Faults(faults) = error {
        return faults;
    }
    vec![Fault {
        subject: subject.to_owned(),
        problem: error.to_string(),
        remedy: "See docs/troubleshooting.md.".into(),
    }]
}

fn templates(config: &Config, findings: &mut Findings) {
    match app::check_texts(config) {
        Ok(TextFindings { languages, faults, notes }) => {
            findings.fine("templates", &format!("complete in {languages}"));
            if !faults.is_empty() {
                findings.faults("approved templates", faults);
            }
            for note in notes {
                say(&format!("  note      {note}"));
            }
        }
        Err(error) => findings.faults("templates", start_faults(error, "templates.dir")),
    }
}

/// The numbers of the configuration that there cannot be, as far as the numbering plans tell: a new range may be missing there,
/// so that it is no fault.
fn numbers(config: &Config, findings: &mut Findings) {
    let (ops, counsellor) = (&config.ops, &config.counsellor);
    let of_ops = |key: &'static str, channel, numbers: &[PhoneNumber]| {
        let each =
            numbers.iter().enumerate().map(move |(at, number)| (format!("{key}[{at}]"), channel, number.clone()));
        each.collect::<Vec<_>>()
    };
    let all = of_ops("ops.sms_to", Channel::Sms, &ops.sms_to);
    let all = all.into_iter().chain(of_ops("ops.whatsapp_to", Channel::Whatsapp, &ops.whatsapp_to));
    let first = [
        ("counsellor.whatsapp_to", Channel::Whatsapp, &counsellor.whatsapp_to),
        ("counsellor.sms_to", Channel::Sms, &counsellor.sms_to),
        ("counsellor.voice_to", Channel::Voice, &counsellor.voice_to),
    ];
    let first = first.into_iter().filter_map(|(key, channel, number)| Some((key.to_owned(), channel, number.clone()?)));
    let further = config.contacts.iter().flat_map(|contact| {
        let methods = contact.methods.iter();
        methods.map(|(channel, number)| {
            (format!("contact {}, {}", contact.id, channel.as_str()), *channel, number.clone())
        })
    });
    for (key, channel, number) in all.chain(first).chain(further) {
        if let Some(rule) = phone::fault_of(channel, &number) {
            findings.unproven("numbers", &format!("{key} {rule}"));
        }
    }
}

fn keyring(config: &Config, findings: &mut Findings) -> Option<LocalKeyring> {
    if config.keyring.master_key.is_none() && !config.keyring.development_key_path.exists() {
        let path = config.keyring.development_key_path.display();
        findings.unproven("keyring", &format!("development: a key will be made in {path} at the first start"));
        return None;
    }
    match app::open_keyring(config, Arc::new(SystemEntropy)) {
        Ok(keyring) => {
            findings.fine("keyring", &format!("master key {}", keyring.masters().current_id()));
            Some(keyring)
        }
        Err(error) => {
            findings.faults("keyring", start_faults(error, "keyring.master_key"));
            None
        }
    }
}

async fn store(config: &Config, keyring: Option<&LocalKeyring>, findings: &mut Findings) {
    match config.store.kind {
        StoreKind::Sqlite => sqlite(config, keyring, findings).await,
        StoreKind::Firestore => {
            firestore(config, keyring, findings).await;
            set_up(&FirestoreTarget::of(config), findings).await;
        }
    }
}

/// A database that others may be working on is only read.
async fn firestore(config: &Config, keyring: Option<&LocalKeyring>, findings: &mut Findings) {
    let name = app::store_name(config);
    let fault = |error: &dyn std::fmt::Display| Fault {
        subject: "store.firestore".to_owned(),
        problem: error.to_string(),
        remedy: "See docs/firestore.md: the database, the credentials, and what they must be allowed to do.".to_owned(),
    };
    let store = match FirestoreStore::open(&app::firestore_settings_to_read(config), Arc::new(SystemEntropy)).await {
        Ok(store) => store,
        Err(error) => return findings.faults("store", vec![fault(&error)]),
    };
    let history = history_faults(config, &store, async |name| store.fact(name).await, keyring).await;
    let roster = store.roster(&config.organisation.id).await;
    store.close().await;
    contacts(&roster, findings);
    match history {
        Ok(faults) if faults.is_empty() => findings.fine("store", &format!("{name} can be read")),
        Ok(faults) => findings.faults("store", faults),
        Err(error) => return findings.faults("store", vec![fault(&error)]),
    }
    match roster {
        Ok(roster) => rota(config, roster, findings),
        Err(error) => findings.faults("people and policies", vec![fault(&error)]),
    }
}

/// Whether the policies in use reach somebody, held against everybody who is set up.
fn rota(config: &Config, roster: Option<Roster>, findings: &mut Findings) {
    const PART: &str = "people and policies";
    let roster = roster.unwrap_or_else(|| Roster::empty(config.organisation.id.clone()));
    let found = match app::rota_findings(config, &app::provider(config, None), &roster, SystemClock.now()) {
        Ok(found) => found,
        // It has been told already.
        Err(_) => return findings.unproven(PART, "the configuration is at fault"),
    };
    if found.faults.is_empty() {
        let counts = (roster.contacts.len(), roster.schedules.len(), roster.policies.len());
        let what = "contacts, schedules and policies are kept, and each ladder in use reaches somebody";
        findings.fine(PART, &format!("{}, {} and {} {what}", counts.0, counts.1, counts.2));
    } else {
        findings.faults(PART, found.faults);
    }
    for note in found.notes {
        say(&format!("  note      {note}"));
    }
}

/// Indexes, TTL policies and rules: without its index a query fails, and with it whatever rests on it.
async fn set_up(target: &FirestoreTarget, findings: &mut Findings) {
    const PART: &str = "indexes, TTL, rules";
    if target.emulator.is_some() {
        return findings.unproven(PART, "an emulator needs none and enforces none: production is stricter");
    }
    let looked = async { target.admin().await?.survey().await };
    let survey = match looked.await {
        Ok(survey) => survey,
        Err(error) => return findings.unproven(PART, &format!("{error}. {}", error.remedy())),
    };
    if let Some(error) = &survey.rules_unseen {
        findings.unproven(PART, &format!("{error}. The service's own account may not see them; who deploys may"));
    }
    let faults = setup_faults(&survey);
    if !faults.is_empty() {
        return findings.faults(PART, faults);
    }
    findings.fine(PART, &format!("{} pieces are in place", survey.pieces.len()));
}

async fn sqlite(config: &Config, keyring: Option<&LocalKeyring>, findings: &mut Findings) {
    let path = config.store.path.display().to_string();
    let settings = app::sqlite_settings(config);
    if !config.store.path.exists() {
        findings.unproven("store", &format!("{path} does not exist yet: the first start makes it"));
        // Whom the configuration alone would tell can be seen all the same.
        return rota(config, None, findings);
    }
    let (opened, fine) = match SqliteStore::open(&settings) {
        Err(OpenError::InUse) => (SqliteStore::open_to_read(&settings), "is migrated; a running service has it"),
        opened => (opened, "is migrated, and can be read and written"),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => return findings.faults("store", vec![store_fault(&error)]),
    };
    let probed = if store.is_exclusive() { store.probe(SystemClock.now()).await } else { Ok(()) };
    let history = match probed {
        Ok(()) => history_faults(config, &store, async |name| store.fact(name).await, keyring).await,
        Err(error) => Err(error),
    };
    let roster = store.roster(&config.organisation.id).await;
    store.close().await;
    contacts(&roster, findings);
    match history {
        Ok(faults) if faults.is_empty() => findings.fine("store", &format!("{path} {fine}")),
        Ok(faults) => findings.faults("store", faults),
        Err(error) => return findings.faults("store", vec![store_fault(&error)]),
    }
    match roster {
        Ok(roster) => rota(config, roster, findings),
        Err(error) => findings.faults("people and policies", vec![store_fault(&error)]),
    }
}

/// What the store's past says against serving it: a copy that was not finished, a move, or another set-up.
async fn history_faults(
    config: &Config,
    store: &dyn Transfer,
    fact: impl AsyncFn(&'static str) -> Result<Option<String>, StoreError>,
    keyring: Option<&LocalKeyring>,
) -> Result<Vec<Fault>, StoreError> {
    let mut faults = app::moved_faults(store).await?;
    let keyring = keyring.map(|keyring| keyring as &dyn Keyring);
    faults.extend(app::origin_faults(config, fact, keyring).await?);
    Ok(faults)
}

/// Who of the roster cannot be told, or not over everything that they have.
fn contacts(roster: &Result<Option<Roster>, StoreError>, findings: &mut Findings) {
    let roster = match roster {
        Ok(Some(roster)) => roster,
        Ok(None) => return findings.fine("contacts", "those of the configuration; the roster is empty"),
        // That the store cannot be read is told elsewhere.
        Err(_) => return,
    };
    let active: Vec<_> = roster.contacts.iter().filter(|contact| contact.active).collect();
    let unusable = active.iter().flat_map(|contact| {
        let unusable = contact.methods.iter().filter(|method| !method.standing.is_usable());
        unusable.map(|method| (&contact.id, method.channel.as_str(), method.standing.name().replace('_', " ")))
    });
    for (id, channel, standing) in unusable {
        findings.unproven("contacts", &format!("{id}: {channel} is {standing}, and not used for alerts"));
    }
    let nobody = active.iter().filter(|contact| contact.reachable(&roster.organisation).is_none());
    for contact in nobody {
        findings.unproven("contacts", &format!("{} is active, and cannot be told: no number is verified", contact.id));
    }
    let reachable = active.iter().filter(|contact| contact.reachable(&roster.organisation).is_some()).count();
    findings.fine("contacts", &format!("{reachable} of {} active people of the roster can be told", active.len()));
}

fn store_fault(error: &dyn std::fmt::Display) -> Fault {
    let remedy = "Give the service a folder of its own that it may write to, with space left on the disk.";
    Fault { subject: "store.path".to_owned(), problem: error.to_string(), remedy: remedy.to_owned() }
}

async fn twilio(config: &Config, provider: &Provider, findings: &mut Findings) {
    if provider.simulated {
        return findings.unproven("twilio", "no credentials: the simulator stands in, and messages reach no phone");
    }
    let client = match app::rest_client(provider, Arc::new(SystemClock)) {
        Ok(client) => client,
        Err(error) => return findings.faults("twilio", start_faults(error, "twilio")),
    };
    let mut faults = client.check().await;
    faults.extend(client.check_templates(&used_templates(config)).await);
    if faults.is_empty() {
        findings.fine("twilio", "credentials, senders and approved templates are usable");
    } else {
        findings.faults("twilio", faults);
    }
}

/// Every template that messages are sent by. Where the texts cannot be read, which is told elsewhere, nobody knows what is
/// filled in.
fn used_templates(config: &Config) -> Vec<UsedTemplate> {
    let set = app::load_templates(config).ok();
    let values = |purpose, language: &Language| set.as_ref().and_then(|set| set.values_of(purpose, language));
    let used = |sid: &Sid, values| UsedTemplate { content_sid: sid.as_str().to_owned(), values };
    let templates = &config.templates;
    let alerts = templates.content_sids.iter();
    let alerts = alerts.map(|(language, sid)| used(sid, values(Purpose::CounsellorAlert, language)));
    let notices = templates.notice_sids.iter();
    let notices = notices.map(|((purpose, language), sid)| used(sid, values(*purpose, language)));
    let ops = config.ops.whatsapp_content_sid.iter().map(|sid| used(sid, Some(OPS_VALUES)));
    alerts.chain(notices).chain(ops).collect()
}

/// Whether Twilio could reach the webhooks is for Twilio to say; that the address leads to this service can be seen.
async fn webhooks(config: &Config, provider: &Provider, findings: &mut Findings) {
    if provider.simulated && config.twilio.webhook_base_url.is_none() {
        return findings.fine("webhooks", "the simulator reaches the service on this machine");
    }
    let url = provider.trust.public_url("/livez");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build();
    let answer = match client {
        Ok(client) => client.get(&url).send().await,
        Err(error) => return findings.unproven("webhooks", &format!("no HTTP client: {error}")),
    };
    match answer {
        Ok(answer) if answer.status().is_success() => findings.fine("webhooks", &format!("{url} answers")),
        Ok(answer) => findings.faults("webhooks", vec![webhook_fault(&format!("{url} answers {}", answer.status()))]),
        Err(error) if error.is_connect() => {
            findings
                .unproven("webhooks", &format!("{url} does not answer from here; start the service and check again"));
        }
        Err(_) => findings.faults("webhooks", vec![webhook_fault(&format!("{url} cannot be fetched"))]),
    }
}

fn webhook_fault(problem: &str) -> Fault {
    Fault {
        subject: "twilio.webhook_base_url".to_owned(),
        problem: problem.to_owned(),
        remedy: "Give the public https address that leads to this service, path prefix included.".to_owned(),
    }
}

/// Whether alarms reach the operator: that is for a person to see, who finds the test where they look for alarms.
async fn operator(config: &Config, provider: &Provider, notify: bool, findings: &mut Findings) {
    const PART: &str = "operator";
    let ops = &config.ops;
    let phones = ops.sms_to.len() + ops.whatsapp_to.len();
    let targets = usize::from(ops.slack_url.is_some()) + usize::from(ops.pagerduty_key.is_some()) + phones;
    if targets == 0 {
        return findings.unproven(PART, "nobody is told of alarms: see docs/operations.md");
    }
    if !notify {
        return findings.unproven(PART, &format!("{targets} target(s) of alarms; --notify-ops sends each a test"));
    }
    if provider.simulated && phones > 0 {
        return findings.unproven(PART, "without Twilio's credentials a test would reach no phone");
    }
    let alarms = match app::alarms_to_try(config, provider) {
        Ok(alarms) => alarms,
        Err(error) => return findings.faults(PART, start_faults(error, "ops")),
    };
    for trial in alarms.try_targets().await {
        let Some((why, code)) = trial.fault else {
            findings.fine(PART, &format!("{} has taken a notice marked TEST: look whether it is there", trial.target));
            continue;
        };
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        findings.faults(
            PART,
            vec![Fault {
                subject: format!("ops ({})", trial.target),
                problem: format!("the test was not taken: {why}{code}"),
                remedy: "Look at the address, the key or the number in the section ops.".to_owned(),
            }],
        );
    }
}
