//! The disclosure report: one page that a compliance officer can read. Why was this disclosed, to whom, on what ground?
//!
//! It is told from the audit chain alone, which it proves first; what is sealed is opened with the student's data key,
//! if that still exists.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use crate::domain::alert::Alert;
use crate::domain::audit::{AuditEntry, AuditStream, ChainFault, verify_chain};
use crate::domain::ids::{OrganisationId, Reference};
use crate::domain::sealed::Sealed;
use crate::ports::{DataKey, Keyring, SealedField, Store, StoreError};

/// How many entries are read at once.
const PAGE: usize = 500;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No such alert.
    #[error("there is no alert with this reference")]
    NotFound,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the report of one alert.
///
/// # Errors
/// There is no such alert, or the store cannot be read.
pub async fn report(
    store: &dyn Store,
    keyring: Option<&dyn Keyring>,
    organisation: &OrganisationId,
    reference: Reference,
) -> Result<String, ReportError> {
    let alert = store.alert_by_reference(organisation, reference).await?.ok_or(ReportError::NotFound)?;
    let chain = entries(store, &AuditStream::Alert(alert.id)).await?;
    let accesses = entries(store, &AuditStream::Access(alert.id)).await?;
    let proof = verify_chain(&chain, Some(alert.audit_head)).map(|_| ());
    let access_proof = verify_chain(&accesses, None).map(|_| ());
    let wrapped = store.data_key(organisation, alert.subject.into()).await?;
    let key = wrapped.zip(keyring).and_then(|(wrapped, keyring)| keyring.open_data_key(&wrapped).ok());
    let page = Page { alert: &alert, key, text: String::new() };
    Ok(page.write(&chain, &accesses, &proof, &access_proof))
}

async fn entries(store: &dyn Store, stream: &AuditStream) -> Result<Vec<AuditEntry>, StoreError> {
    let mut all: Vec<AuditEntry> = Vec::new();
    loop {
        let page = store.audit_entries(stream, all.last().map_or(0, |entry| entry.seq), PAGE).await?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

struct Page<'a> {
    alert: &'a Alert,
    key: Option<Arc<dyn DataKey>>,
    text: String,
}

/// A text at a path of an entry, or a dash.
fn at<'a>(entry: &'a Value, path: &str) -> &'a str {
    entry.pointer(path).and_then(Value::as_str).unwrap_or("-")
}

fn shown(entry: &Value, path: &str) -> String {
    match entry.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

impl Page<'_> {
    fn line(&mut self, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{text}");
    }

    fn write(
        mut self,
        chain: &[AuditEntry],
        accesses: &[AuditEntry],
        proof: &Result<(), ChainFault>,
        access_proof: &Result<(), ChainFault>,
    ) -> String {
        let said: Vec<Value> =
            chain.iter().map(|entry| serde_json::from_str(&entry.canonical).unwrap_or_default()).collect();
        let deed = |name: &'static str| said.iter().filter(move |entry| at(entry, "/deed") == name);
        let alert = self.alert;
        self.line(&format!("DISCLOSURE REPORT            reference {}   alert {}", alert.reference, alert.id));
        self.line(&format!(
            "organisation {}   kind {}   state now: {}",
            alert.organisation,
            alert.kind.as_str(),
            alert.state.name().as_str()
        ));
        self.proof("audit chain", chain.len(), proof);
        self.line("\nWHY IT BEGAN");
        for entry in deed("opened").chain(deed("event_joined")) {
            self.trigger(entry);
        }
        self.line("\nON WHAT GROUND");
        for entry in deed("ground_recorded") {
            self.ground(entry);
        }
        if deed("ground_recorded").next().is_none() {
            self.line("  none: nothing may be disclosed on the case's own account");
        }
        self.line("\nWHAT WAS DISCLOSED, TO WHOM");
        self.disclosures(&said);
        self.line("\nWHAT FOLLOWED");
        for entry in said.iter().filter(|entry| {
            matches!(
                at(entry, "/deed"),
                "acknowledged"
                    | "checked_in"
                    | "emergency_contact_decided"
                    | "emergency_contact_untold"
                    | "emergency_contacts_due"
                    | "follow_up_due"
                    | "nobody_on_call"
                    | "passed_on"
                    | "policy_changed"
                    | "reminded"
                    | "reopened"
                    | "reply_kept"
                    | "resolved"
                    | "withheld"
            )
        }) {
            self.outcome(entry);
        }
        self.line(&format!("  as of {}: {}", alert.updated_at, alert.state.name().as_str()));
        self.line("\nWHO LOOKED");
        self.proof("access chain", accesses.len(), access_proof);
        for entry in accesses {
            let entry: Value = serde_json::from_str(&entry.canonical).unwrap_or_default();
            let who = self.actor(&entry, "/actor");
            self.line(&format!("  {}  {}  {who}", at(&entry, "/at"), at(&entry, "/deed")));
        }
        self.text
    }

    fn proof(&mut self, what: &str, entries: usize, proof: &Result<(), ChainFault>) {
        match proof {
            Ok(()) => self.line(&format!("{what}: {entries} entries, verified")),
            Err(fault) => self.line(&format!("{what}: NOT VERIFIED: {fault}")),
        }
    }

    fn trigger(&mut self, entry: &Value) {
        let who = self.actor(entry, "/actor");
        let line = format!(
            "  {}  {} from {}: score {}, threshold {}, model {}; decided: {}; by {who}",
            at(entry, "/at"),
            at(entry, "/deed").replace('_', " "),
            at(entry, "/trigger/source"),
            shown(entry, "/trigger/score"),
            shown(entry, "/trigger/threshold"),
            at(entry, "/trigger/model_version"),
            at(entry, "/decision"),
        );
        self.line(&line);
    }

    fn ground(&mut self, entry: &Value) {
        let when = at(entry, "/at");
        match at(entry, "/ground/kind") {
            "consent" => {
                let channels = shown(entry, "/ground/channels");
                let (version, granted) = (shown(entry, "/ground/version"), at(entry, "/ground/granted_at"));
                self.line(&format!("  {when}  consent, record version {version}, granted {granted}, for {channels}"));
            }
            _ => {
                let who = self.actor(entry, "/ground/authorised_by");
                self.line(&format!("  {when}  emergency override, handed in by {who}"));
                self.stated(SealedField::Override, at(entry, "/ground/statement"));
            }
        }
    }

    /// Who has decided, and why, in the words that were handed in.
    fn stated(&mut self, field: SealedField, sealed: &str) {
        let statement = self.open(field, sealed);
        let stated: Value = statement.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        self.line(&format!("      decided by: {}", self.unsealed(&stated, "/by")));
        self.line(&format!("      because:    {}", self.unsealed(&stated, "/reason")));
    }

    fn unsealed(&self, stated: &Value, path: &str) -> String {
        match (stated.pointer(path).and_then(Value::as_str), &self.key) {
            (Some(text), _) => text.to_owned(),
            (None, Some(_)) => "(the seal does not open)".to_owned(),
            (None, None) => "(sealed: the data key is not at hand, or was destroyed)".to_owned(),
        }
    }

    fn open(&self, field: SealedField, sealed: &str) -> Option<String> {
        self.key.as_ref()?.open(field, &Sealed(sealed.to_owned())).ok()
    }

    fn disclosures(&mut self, said: &[Value]) {
        let about = |entry: &&Value, what: &str| at(entry, "/deed") == "delivery" && at(entry, "/what") == what;
        let begun: Vec<&Value> = said.iter().filter(|entry| about(entry, "attempt_begun")).collect();
        if begun.is_empty() {
            return self.line("  nothing, to nobody");
        }
        for entry in &begun {
            let entry = *entry;
            let address = at(entry, "/address").get(..12).unwrap_or("-");
            self.line(&format!(
                "  {}  message {} attempt {}: to {} ({}), {}, number's hash {address}…, on the ground of {}",
                at(entry, "/at"),
                shown(entry, "/delivery"),
                shown(entry, "/attempt"),
                at(entry, "/contact"),
                at(entry, "/role"),
                at(entry, "/channel"),
                at(entry, "/ground"),
            ));
            self.line(&format!(
                "      text: template {} version {} in {}, SHA-256 {}",
                at(entry, "/disclosed/template"),
                shown(entry, "/disclosed/template_version"),
                at(entry, "/disclosed/language"),
                at(entry, "/disclosed/text_sha256"),
            ));
            self.disclosure(entry);
            if entry.get("past_phone_pace") == Some(&Value::Bool(true)) {
                self.line("      this phone had had enough messages for a minute: sent all the same");
            }
            let of_delivery = |other: &&Value| other.get("delivery") == entry.get("delivery");
            let is_last = begun.iter().rfind(|other| of_delivery(other)).is_some_and(|last| std::ptr::eq(*last, entry));
            // What names no attempt is the end of the delivery.
            let same = |other: &&Value| {
                let attempt = other.get("attempt");
                of_delivery(other) && (attempt == entry.get("attempt") || (attempt.is_none() && is_last))
            };
            let answers: Vec<String> = said
                .iter()
                .filter(|other| at(other, "/deed") == "delivery" && at(other, "/what") != "attempt_begun")
                .filter(same)
                .map(answer)
                .collect();
            for answer in answers {
                self.line(&format!("      {answer}"));
            }
        }
    }

    /// The ground that an emergency contact is told on, which is not the case's.
    fn disclosure(&mut self, entry: &Value) {
        let when = |path: &str| at(entry, path).to_owned();
        match at(entry, "/disclosure/kind") {
            "contact_consent" => {
                let (version, notice) = (shown(entry, "/disclosure/version"), when("/disclosure/notice_version"));
                let granted = when("/disclosure/granted_at");
                self.line(&format!(
                    "      disclosed to an emergency contact on the student's consent to it: record version {version}, granted {granted}, notice {notice}"
                ));
            }
            "decision" => {
                let statement = at(entry, "/disclosure/statement");
                let (who, at) = (self.actor(entry, "/disclosure/by"), when("/disclosure/at"));
                self.line(&format!(
                    "      disclosed to an emergency contact on a decision, handed in by {who} at {at}"
                ));
                self.stated(SealedField::Disclosure, statement);
            }
            _ => {}
        }
    }

    fn outcome(&mut self, entry: &Value) {
        let who = self.actor(entry, "/actor");
        let what = match at(entry, "/deed") {
            "passed_on" => format!("handed on by {who}"),
            "acknowledged" => format!("acknowledged by {who}, via {}", at(entry, "/via")),
            "resolved" => format!("resolved by {who}: {}", at(entry, "/outcome")),
            "withheld" => format!("withheld: {}", at(entry, "/why")),
            "checked_in" => format!("{who} is on it"),
            "reminded" => format!("whoever has it is reminded; escalated again from {}", at(entry, "/action_due_at")),
            "reply_kept" if entry.get("told_again").is_some() => format!(
                "{who} wrote words, which are kept, sealed, and heard again whom to call (message {}; template {} version {} in {}, SHA-256 {})",
                shown(entry, "/told_again/delivery"),
                at(entry, "/told_again/disclosed/template"),
                shown(entry, "/told_again/disclosed/template_version"),
                at(entry, "/told_again/disclosed/language"),
                at(entry, "/told_again/disclosed/text_sha256"),
            ),
            "reply_kept" => format!("{who} wrote words that ask for nothing; they are kept, sealed"),
            "follow_up_due" => "a follow-up is due".to_owned(),
            "emergency_contact_decided" => {
                format!("a decision that the emergency contact {} is told, handed in by {who}", at(entry, "/contact"))
            }
            "emergency_contacts_due" => format!(
                "nobody had answered for as long as the policy waits: of {} emergency contacts with consent, {} messages are planned",
                shown(entry, "/granted"),
                shown(entry, "/deliveries"),
            ),
            "emergency_contact_untold" => {
                format!("the emergency contact {} could not be told", at(entry, "/contact"))
            }
            "nobody_on_call" => {
                "a rung is for whoever is on call, and nobody was: the next one began at once".to_owned()
            }
            "policy_changed" => format!("graver: it went on by the ladder {}", at(entry, "/policy")),
            other => format!("{other} by {who}"),
        };
        self.line(&format!("  {}  {what}", at(entry, "/at")));
        if at(entry, "/deed") == "emergency_contact_decided" {
            self.stated(SealedField::Disclosure, at(entry, "/ground/statement"));
        }
        if let Some(note) = entry.get("note").and_then(Value::as_str) {
            let note = self.open(SealedField::Note, note).unwrap_or_else(|| "(sealed)".to_owned());
            self.line(&format!("      note: {note}"));
        }
    }

    fn actor(&self, entry: &Value, path: &str) -> String {
        let part = |name: &str| at(entry, &format!("{path}/{name}")).to_owned();
        match part("kind").as_str() {
            "machine" => format!("machine {}", part("key")),
            "contact" => format!("contact {}", part("contact")),
            "person" => {
                let sealed = part("name");
                let name = self.open(SealedField::Principal, &sealed);
                let principal = part("principal");
                let hash = principal.get(..12).unwrap_or("-");
                format!("{} {} (person {hash}…)", part("role"), name.unwrap_or_else(|| "(name sealed)".to_owned()))
            }
            "provider" => "Twilio".to_owned(),
            _ => "the service".to_owned(),
        }
    }
}

/// What came of an attempt, in one line.
fn answer(entry: &Value) -> String {
    let when = at(entry, "/at");
    let code = shown(entry, "/fault/code");
    match at(entry, "/what") {
        "accepted" => format!("{when}  Twilio has it: {}", at(entry, "/provider_id")),
        "receipt" if code == "-" => format!("{when}  {}", at(entry, "/status")),
        "receipt" => format!("{when}  {}, error {code}", at(entry, "/status")),
        "retry_planned" => format!("{when}  not executed (error {code}); tried again from {}", at(entry, "/due_at")),
        "deferred" => format!("{when}  held back by our own pace or circuit breaker; nothing was sent"),
        "fell_over" => {
            format!(
                "{when}  the next channel's turn: {}, planned as message {}",
                at(entry, "/channel"),
                shown(entry, "/next")
            )
        }
        "cancelled" => format!("{when}  no longer wanted before it was handed to Twilio, as far as is known; not sent"),
        "outcome_unknown" => format!("{when}  outcome unknown; Twilio is asked"),
        "failed" => format!("{when}  failed: {}, error {code}", at(entry, "/reason")),
        other => format!("{when}  {other}"),
    }
}
