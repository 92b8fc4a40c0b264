//! People: added, changed, removed.

use super::{
    ACTIVE_MAX, Changing, FieldFault, KEPT_MAX, Method, MethodDetails, OptedOutNumber, Outcome, Rejection,
    RosterContact, SettingsDeed, Standing,
};
use crate::domain::contact::{Channel, ContactRole, Language};
use crate::domain::ids::{AddressKey, ContactId, PersonKey};
use crate::domain::method;
use crate::domain::schedule::Zone;
use crate::domain::sealed::Sealed;

/// All about a person, as somebody sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactDetails {
    /// What they are called, sealed; `None`: as before.
    pub name: Option<Sealed>,
    /// Why they are told.
    pub role: ContactRole,
    /// In which language.
    pub language: Language,
    /// Where they live.
    pub time_zone: Zone,
    /// Their methods, in the order in which they are tried.
    pub methods: Vec<MethodDetails>,
    /// Whether they are told anything.
    pub active: bool,
}

impl Changing<'_, '_> {
    pub(super) fn add_contact(
        &mut self,
        id: ContactId,
        person: PersonKey,
        details: ContactDetails,
    ) -> Result<Outcome, Rejection> {
        if self.roster.contact(&id).is_some() || self.cx.configured.contact(&id).is_some() {
            return Err(Rejection::IdTaken);
        }
        if self.roster.contacts.len() >= KEPT_MAX {
            return Err(Rejection::TooMany("there are 200 contacts, those who have left included: no more are kept"));
        }
        let name = details.name.ok_or_else(|| fault("name", "must be given"))?;
        if details.active {
            self.refuse_too_many_active()?;
        }
        let methods = self.methods(&id, &[], details.methods)?;
        self.record(&SettingsDeed::ContactAdded {
            contact: &id,
            role: details.role,
            language: &details.language,
            time_zone: &details.time_zone,
            active: details.active,
        });
        self.record_methods(&id, &[], &methods);
        self.roster.contacts.push(RosterContact {
            id,
            version: 1,
            person,
            name,
            role: details.role,
            language: details.language,
            time_zone: details.time_zone,
            methods,
            active: details.active,
            was_verified: false,
        });
        Ok(Outcome::Done)
    }

    pub(super) fn replace_contact(
        &mut self,
        id: &ContactId,
        from_version: u64,
        details: ContactDetails,
    ) -> Result<Outcome, Rejection> {
        let place = self.place_at(id, from_version)?;
        let before = self.roster.contacts[place].clone();
        if details.active && !before.active {
            self.refuse_too_many_active()?;
        }
        let methods = self.methods(id, &before.methods, details.methods)?;
        let changed = SettingsDeed::ContactChanged {
            contact: id,
            renamed: details.name.is_some(),
            role: (details.role != before.role).then_some(details.role),
            language: (details.language != before.language).then_some(&details.language),
            time_zone: (details.time_zone != before.time_zone).then_some(&details.time_zone),
            active: (details.active != before.active).then_some(details.active),
            order: (method::order(&methods) != method::order(&before.methods)).then(|| method::order(&methods)),
        };
        if says_anything(&changed) {
            self.record(&changed);
        }
        self.record_methods(id, &before.methods, &methods);
        if self.audit.is_empty() {
            return Ok(Outcome::Done);
        }
        self.roster.contacts[place] = RosterContact {
            version: before.version + 1,
            name: details.name.unwrap_or(before.name),
            role: details.role,
            language: details.language,
            time_zone: details.time_zone,
            methods,
            active: details.active,
            ..before
        };
        Ok(Outcome::Done)
    }

    /// Who may have been told something stays, without numbers and not active: the audit names them, and somebody may have to
    /// find out who that was. So does whom a schedule names. Their numbers are free for others.
    pub(super) fn remove_contact(&mut self, id: &ContactId, from_version: u64) -> Result<Outcome, Rejection> {
        let place = self.place_at(id, from_version)?;
        let before = self.roster.contacts[place].clone();
        if !before.was_verified && !self.roster.is_referred_to(id) {
            self.record_methods(id, &before.methods, &[]);
            self.record(&SettingsDeed::ContactRemoved { contact: id });
            self.roster.contacts.remove(place);
            return Ok(Outcome::Removed);
        }
        let details = ContactDetails {
            name: None,
            role: before.role,
            language: before.language,
            time_zone: before.time_zone,
            methods: Vec::new(),
            active: false,
        };
        self.replace_contact(id, from_version, details)?;
        Ok(Outcome::Deactivated)
    }

    pub(super) fn reveal_contact(&mut self, id: &ContactId) -> Result<Outcome, Rejection> {
        self.place(id)?;
        self.record(&SettingsDeed::ContactRevealed { contact: id });
        Ok(Outcome::Done)
    }

    fn place_at(&self, id: &ContactId, version: u64) -> Result<usize, Rejection> {
        let place = self.place(id)?;
        if self.roster.contacts[place].version == version { Ok(place) } else { Err(Rejection::Outdated) }
    }

    fn refuse_too_many_active(&self) -> Result<(), Rejection> {
        let active = self.roster.contacts.iter().filter(|contact| contact.active).count();
        if active < ACTIVE_MAX {
            return Ok(());
        }
        Err(Rejection::TooMany("there are 64 active contacts: no more can be told"))
    }

    /// The methods of a person as they shall be: what has the same number stands as it did.
    fn methods(&self, id: &ContactId, before: &[Method], wanted: Vec<MethodDetails>) -> Result<Vec<Method>, Rejection> {
        let stands_against = |channel, address| self.number_fault(id, channel, address);
        let standing_of = |channel, address| self.standing_of_new(channel, address);
        method::replaced(before, wanted, stands_against, standing_of).map_err(Rejection::Invalid)
    }

    /// Nobody has proved a number that is new to a person; and a phone that takes nothing from us does not, whoever has it.
    fn standing_of_new(&self, channel: Channel, address: AddressKey) -> Standing {
        let of_it = |known: &&OptedOutNumber| (known.channel, known.address) == (channel, address);
        match self.roster.opted_out.iter().find(of_it) {
            Some(known) => Standing::OptedOut { since: known.since, verified_at: None },
            None => Standing::Unverified,
        }
    }

    /// What stands against a number: nobody is told at the number that sends, and no number is two people's, for whose reply
    /// would it be?
    fn number_fault(&self, id: &ContactId, channel: Channel, address: AddressKey) -> Option<&'static str> {
        if self.cx.senders.contains(&(channel, address)) {
            return Some("must not be the number that messages are sent from");
        }
        let is_it = |method: &Method| method.is_at(channel, address);
        let others = self.roster.contacts.iter().filter(|contact| contact.id != *id);
        let taken = others.flat_map(|contact| &contact.methods).any(is_it)
            || self.cx.configured.contact_at(channel, address).is_some();
        taken.then_some("must not be another person's number")
    }

    /// Records which numbers a person has not any more, and which they have now. A phone's opt-out goes with the number.
    fn record_methods(&mut self, contact: &ContactId, before: &[Method], now: &[Method]) {
        for method in method::only_in(before, now) {
            let (channel, address) = (method.channel, method.address_key);
            self.record(&SettingsDeed::MethodRemoved { contact, channel, address });
            self.forget_refusal(channel, address);
            if let Standing::OptedOut { since, .. } = method.standing {
                self.roster.opted_out.push(OptedOutNumber { channel, address, since });
            }
        }
        self.drop_oldest_opted_out();
        for method in method::only_in(now, before) {
            let (channel, address) = (method.channel, method.address_key);
            self.record(&SettingsDeed::MethodSet {
                contact,
                channel,
                address,
                opted_out: matches!(method.standing, Standing::OptedOut { .. }),
            });
            self.roster.opted_out.retain(|known| (known.channel, known.address) != (channel, address));
        }
    }
}

fn fault(field: &str, rule: &'static str) -> Rejection {
    Rejection::Invalid(vec![FieldFault { field: field.to_owned(), rule }])
}

fn says_anything(deed: &SettingsDeed<'_>) -> bool {
    match deed {
        SettingsDeed::ContactChanged { renamed, role, language, time_zone, active, order, contact: _ } => {
            *renamed
                || role.is_some()
                || language.is_some()
                || time_zone.is_some()
                || active.is_some()
                || order.is_some()
        }
        SettingsDeed::ContactAdded { .. }
        | SettingsDeed::ContactRemoved { .. }
        | SettingsDeed::ContactRevealed { .. }
        | SettingsDeed::MethodSet { .. }
        | SettingsDeed::MethodRemoved { .. }
        | SettingsDeed::PolicySaved { .. }
        | SettingsDeed::PolicyRemoved { .. }
        | SettingsDeed::ScheduleSaved { .. }
        | SettingsDeed::ScheduleRemoved { .. }
        | SettingsDeed::CodeSent { .. }
        | SettingsDeed::CodeAccepted { .. }
        | SettingsDeed::CodeUnknown { .. }
        | SettingsDeed::CodeNotSent { .. }
        | SettingsDeed::CodeWrong { .. }
        | SettingsDeed::MethodVerified { .. }
        | SettingsDeed::MethodOptedOut { .. }
        | SettingsDeed::MethodOptedIn { .. }
        | SettingsDeed::NumberRefused { .. }
        | SettingsDeed::NumberReached { .. } => true,
    }
}
