//! What the people, schedules and policies that are set up come to, without a running service: for `check`.

use std::sync::Arc;

use jiff::Timestamp;

use super::composer::OrganisationComposer;
use super::{Provider, StartError, configured_contacts, default_ladder, fault, texts};
use crate::config::{Config, Unapproved, unapproved};
use crate::domain::contact::{Contact, ContactMethod, Directory};
use crate::domain::ids::{AddressKey, PersonKey};
use crate::domain::readiness::Obstacle;
use crate::domain::roster::{Roster, RosterPolicy};
use crate::domain::sealed::Sealed;
use crate::ports::Fault;
use crate::service::people::ConfiguredContact;

/// What stands against the policies in use, and what somebody should look at.
#[derive(Debug, Default)]
pub struct RotaFindings {
    /// What must not be so.
    pub faults: Vec<Fault>,
    /// What is worth a look.
    pub notes: Vec<String>,
}

/// Looks at a roster as the service would use it from `now` on.
///
/// # Errors
/// The texts or the ladder of the configuration are at fault.
pub fn rota_findings(
    config: &Config,
    provider: &Provider,
    roster: &Roster,
    now: Timestamp,
) -> Result<RotaFindings, StartError> {
    const REMEDY: &str = "Change the policy, or the contact: see docs/ladder.md.";
    let texts = texts(config)?;
    let bands = OrganisationComposer::new(config, Arc::clone(&texts))?.bands();
    let people = configured_contacts(config, provider).iter().map(|contact| outline(config, contact)).collect();
    let configured = Directory::new(people);
    let ladders = roster.ladders(&default_ladder(config)?, &configured, bands);
    let mut found = RotaFindings::default();
    for known in roster.policies.iter().filter(|known| known.is_active()) {
        let policy = &known.policy;
        for finding in roster.findings(policy, true, &configured, now).faults {
            found.faults.push(fault(&format!("policy {}, {}", policy.id, finding.field), finding.what.rule(), REMEDY));
        }
    }
    let tells_outside = |known: &&RosterPolicy| known.is_active() && known.policy.emergency_contact_after.is_some();
    for known in roster.policies.iter().filter(tells_outside).filter(|_| config.desk.phone.is_none()) {
        let subject = format!("policy {}, emergency_contact_after_seconds", known.policy.id);
        let rule = "has emergency contacts told, and there is no desk that they could be asked to call";
        found.faults.push(fault(&subject, rule, "Set CARE_DESK_PHONE: see docs/contacts.md."));
    }
    let told = unapproved(config, &texts);
    for obstacle in roster.readiness(&configured, &ladders, &texts, now).obstacles {
        match obstacle {
            Obstacle::StepUnreachable { policy, step } => {
                let subject = format!("policy {policy}, steps[{step}]");
                found.faults.push(fault(&subject, "reaches nobody", REMEDY));
            }
            Obstacle::LastResponderUnreachable { policy } => {
                found.faults.push(fault(&format!("policy {policy}, last_responder"), "reaches nobody", REMEDY));
            }
            Obstacle::Gap { schedule, from, until } => {
                found.notes.push(format!("schedule {schedule}: nobody is on call from {from} until {until}"));
            }
            Obstacle::OnCallUnreachable { schedule, contact, from } => {
                found.notes.push(format!("schedule {schedule}: {contact} is on call from {from} and cannot be told"));
            }
            Obstacle::ContactOnNoLadder { contact } => {
                let what = "no rung and no last responder comes to them; they are only told in somebody's place";
                found.notes.push(format!("contact {contact}: {what}"));
            }
            Obstacle::TemplateMissing { contact, purpose, language } => {
                let missing = Unapproved { purpose, language };
                match contact {
                    // The configuration's own findings say it once, for everybody.
                    _ if told.contains(&missing) => {}
                    Some(contact) => found.notes.push(format!("contact {contact}: {}", missing.note())),
                    None => found.notes.push(missing.note()),
                }
            }
            // `check` says of every number of the roster how it stands.
            Obstacle::MethodUnverified { .. } | Obstacle::MethodOptedOut { .. } => {}
            Obstacle::MethodRefused { contact, channel, code } => {
                let channel = channel.as_str();
                found.notes.push(format!("contact {contact}: Twilio calls the number for {channel} bad (code {code})"));
            }
        }
    }
    for person in roster.directory(&configured).people() {
        if let Some(used) = texts.stands_in(&person.language) {
            let wanted = &person.language;
            found.notes.push(format!("contact {}: there is no text in {wanted}; they are told in {used}", person.id));
        }
    }
    Ok(found)
}

/// A person of the configuration, as far as it is looked at whether they can be told.
fn outline(config: &Config, contact: &ConfiguredContact) -> Contact {
    let method = |channel| ContactMethod {
        channel,
        address: Sealed(String::new()),
        address_key: AddressKey::from_bytes([0; 32]),
    };
    Contact {
        id: contact.id.clone(),
        organisation: config.organisation.id.clone(),
        person: PersonKey::from_bytes([0; 32]),
        role: contact.role,
        language: contact.language.clone(),
        methods: contact.methods.iter().map(|(channel, _)| method(*channel)).collect(),
    }
}
