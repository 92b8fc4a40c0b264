//! The people that a college sets up. Names and numbers are sealed under each person's own data key, and leave it only for
//! somebody who may see them.

use std::sync::Arc;

use super::caller::Caller;
use super::people::address_key;
use super::{Service, ServiceError};
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::alert::{self, Alert};
use crate::domain::audit::Actor;
use crate::domain::contact::{Channel, Contact, ContactRole, Language, PhoneNumber};
use crate::domain::delivery::{Delivery, Settled};
use crate::domain::ids::{AddressKey, ContactId, DeliveryNo, OrganisationId, PersonKey, Reference};
use crate::domain::message::{Purpose, Texts};
use crate::domain::phone;
use crate::domain::provider::{ErrorClass, FaultMark};
use crate::domain::roster::{
    Change, ContactDetails, FieldFault, MethodDetails, Number, OptOutBy, Outcome, Rejection, Roster, RosterContact,
};
use crate::domain::schedule::Zone;
use crate::domain::sealed::Sealed;
use crate::ports::{DataKey, HashPurpose, KeyringError, SealedField, random};

/// All about a person, as somebody sets it.
#[derive(Debug, Clone)]
pub struct ContactInput {
    /// What they are called; `None`: as before.
    pub name: Option<PersonName>,
    /// Why they are told.
    pub role: ContactRole,
    /// In which language.
    pub language: Language,
    /// Where they live.
    pub time_zone: Zone,
    /// Channels and numbers, in the order in which they are tried; without a number: the one that is there.
    pub methods: Vec<(Channel, Option<PhoneNumber>)>,
    /// Whether they are told anything.
    pub active: bool,
}

/// What a person is called. `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonName(pub String);

impl std::fmt::Debug for PersonName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonName(…)")
    }
}

/// A person of the roster, opened for somebody who may see it.
pub struct OpenedContact {
    /// As they are kept.
    pub contact: RosterContact,
    /// What they are called; `None` where the seal does not open.
    pub name: Option<PersonName>,
    /// Their numbers, in the order of their methods; `None` where the seal does not open.
    pub numbers: Vec<Option<PhoneNumber>>,
    /// What somebody should look at.
    pub warnings: Vec<ContactWarning>,
}

/// What somebody should look at, though a person may be told all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactWarning {
    /// There is no text in their language: another stands in.
    NoText,
    /// They have WhatsApp, and the language that is used has no approved template.
    NoTemplate,
}

impl ContactWarning {
    fn of(texts: &Texts, language: &Language, mut channels: impl Iterator<Item = Channel>) -> Vec<Self> {
        let over_whatsapp = channels.any(|channel| channel == Channel::Whatsapp);
        let no_text = texts.stands_in(language).map(|_| Self::NoText);
        let no_template =
            texts.unapproved(language, Purpose::CounsellorAlert).filter(|_| over_whatsapp).map(|_| Self::NoTemplate);
        no_text.into_iter().chain(no_template).collect()
    }
}

/// What became of somebody who was to be removed.
pub enum Removal {
    /// They are gone.
    Gone,
    /// They are kept, without numbers and not active.
    Kept(Box<OpenedContact>),
}

impl Service {
    /// Everybody: the people of the configuration with their numbers, and those of the roster.
    pub async fn contacts(&self, caller: &Caller) -> Result<(Vec<ConfiguredPerson>, Vec<OpenedContact>), ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let roster = self.stored_roster(&organisation.id).await?;
        let mut configured = Vec::new();
        for contact in organisation.directory.people() {
            configured.push(self.opened_configured(contact).await?);
        }
        let mut opened = Vec::new();
        for contact in roster.contacts {
            opened.push(self.opened(&organisation.id, contact).await?);
        }
        Ok((configured, opened))
    }

    /// Whether a person is set up in the configuration.
    ///
    /// # Errors
    /// The organisation is not set up here.
    pub fn is_configured(&self, caller: &Caller, id: &ContactId) -> Result<bool, ServiceError> {
        Ok(self.organisation(&caller.organisation)?.directory.contact(id).is_some())
    }

    /// One person of the configuration, if they are of it.
    pub async fn configured_contact(
        &self,
        caller: &Caller,
        id: &ContactId,
    ) -> Result<Option<ConfiguredPerson>, ServiceError> {
        match self.organisation(&caller.organisation)?.directory.contact(id) {
            Some(contact) => Ok(Some(self.opened_configured(contact).await?)),
            None => Ok(None),
        }
    }

    /// One person of the roster.
    pub async fn contact(&self, caller: &Caller, id: &ContactId) -> Result<OpenedContact, ServiceError> {
        let roster = self.stored_roster(&self.organisation(&caller.organisation)?.id).await?;
        self.opened_of(roster, id).await
    }

    /// One person of the roster, to be shown with their numbers: the look is recorded first.
    pub async fn reveal_contact(&self, caller: &Caller, id: &ContactId) -> Result<OpenedContact, ServiceError> {
        let changed = self.change_as(caller, |_| Ok(Change::RevealContact { id: id.clone() })).await?;
        self.opened_of(changed.roster, id).await
    }

    /// Adds a person.
    pub async fn add_contact(&self, caller: &Caller, input: ContactInput) -> Result<OpenedContact, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?.id.clone();
        check_numbers(&input.methods).await?;
        let id = new_id('c', random(self.entropy.as_ref()));
        let person = self.person_of(&organisation, &id);
        let (wrapped, key) = self.keyring.new_data_key(&organisation, person, self.clock.now());
        let name = input.name.as_ref().map(|PersonName(name)| key.seal(SealedField::ContactName, name));
        let details = self.details(&organisation, key.as_ref(), name, &input);
        let change = Change::AddContact { id: id.clone(), person, details };
        // What is refused leaves nothing behind, its key neither.
        self.judge_change(caller, change.clone()).await?;
        if !self.store.insert_data_key(wrapped).await? {
            // Somebody had this id long ago.
            return Err(ServiceError::Busy);
        }
        let changed = self.change_as(caller, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, "a contact was added");
        self.opened_of(changed.roster, &id).await
    }

    /// Sets all about a person anew.
    pub async fn replace_contact(
        &self,
        caller: &Caller,
        id: &ContactId,
        from_version: u64,
        input: ContactInput,
    ) -> Result<OpenedContact, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?.id.clone();
        check_numbers(&input.methods).await?;
        let known = self.contact(caller, id).await?;
        let key = self.person_data_key(&organisation, known.contact.person).await?;
        // Sealed twice a name looks like two: whether it is another one is said here.
        let renamed = input.name.as_ref().filter(|name| known.name.as_ref() != Some(name));
        let name = renamed.map(|PersonName(name)| key.seal(SealedField::ContactName, name));
        let details = self.details(&organisation, key.as_ref(), name, &input);
        let change = Change::ReplaceContact { id: id.clone(), from_version, details };
        let changed = self.change_as(caller, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, "a contact was changed");
        self.opened_of(changed.roster, id).await
    }

    /// Removes a person, or keeps them without numbers where somebody may have to find out who that was.
    pub async fn remove_contact(
        &self,
        caller: &Caller,
        id: &ContactId,
        from_version: u64,
    ) -> Result<Removal, ServiceError> {
        let change = Change::RemoveContact { id: id.clone(), from_version };
        let changed = self.change_as(caller, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, outcome = ?changed.outcome, "a contact was removed");
        match changed.outcome {
            Outcome::Removed => Ok(Removal::Gone),
            Outcome::Deactivated | Outcome::Done | Outcome::Confirmed | Outcome::WrongCode { .. } => {
                Ok(Removal::Kept(Box::new(self.opened_of(changed.roster, id).await?)))
            }
        }
    }

    /// Whether a change fits what is stored, before anything is done for it.
    async fn judge_change(&self, caller: &Caller, change: Change) -> Result<(), ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let actor = caller.actor(self.keyring.as_ref(), None);
        let situation = self.roster_situation(organisation, &actor);
        let roster = self.stored_roster(&organisation.id).await?;
        roster.on(change, &situation).map_err(ServiceError::Roster)?;
        Ok(())
    }

    pub(crate) async fn change_as(
        &self,
        caller: &Caller,
        make: impl Fn(&Roster) -> Result<Change, Rejection>,
    ) -> Result<crate::domain::roster::Transition, ServiceError> {
        let actor = caller.actor(self.keyring.as_ref(), None);
        self.change_roster(&caller.organisation, &actor, caller.deadline, make).await
    }

    /// A phone takes nothing from us any more. Only what the roster has is changed: whose number the configuration has, the
    /// operator is told of by an alarm.
    pub(crate) async fn opt_out(
        &self,
        organisation: &OrganisationId,
        channel: Channel,
        address: AddressKey,
        by: OptOutBy,
    ) -> Result<(), ServiceError> {
        self.change_if_ours(organisation, channel, address, Change::OptOut { channel, address, by }).await
    }

    /// The phone of an emergency contact takes nothing from us any more, whichever student has named them, now or later.
    pub(super) async fn opt_out_outside(
        &self,
        organisation: &OrganisationId,
        channel: Channel,
        address: AddressKey,
        by: OptOutBy,
    ) -> Result<(), ServiceError> {
        // It is what somebody has done with their phone whom the roster does not know.
        let change = Change::OptOut { channel, address, by };
        self.change_roster(organisation, &Actor::Provider, None, |_| Ok(change.clone())).await?;
        Ok(())
    }

    /// A phone takes our messages again.
    pub(crate) async fn opt_in(
        &self,
        organisation: &OrganisationId,
        channel: Channel,
        address: AddressKey,
    ) -> Result<(), ServiceError> {
        self.change_if_ours(organisation, channel, address, Change::OptIn { channel, address }).await
    }

    async fn change_if_ours(
        &self,
        organisation: &OrganisationId,
        channel: Channel,
        address: AddressKey,
        change: Change,
    ) -> Result<(), ServiceError> {
        let actor = |roster: &Roster| match roster.contact_at(channel, address) {
            // Whether they replied, or the provider says so: it is what they have done with their phone.
            Some(contact) => Some(Actor::Contact { contact: contact.id.clone() }),
            None => roster.is_opted_out(channel, address).then_some(Actor::Provider),
        };
        // What another instance has set up a moment ago is not known here yet: it would answer that all is well, and nobody
        // would say it again.
        let known = match actor(&self.live(organisation)?.roster) {
            Some(actor) => Some(actor),
            None if self.store.is_exclusive() => None,
            None => actor(&self.stored_roster(organisation).await?),
        };
        let Some(actor) = known else { return Ok(()) };
        self.change_roster(organisation, &actor, None, |_| Ok(change.clone())).await?;
        Ok(())
    }

    /// Where the provider refuses messages because their recipient has opted out, the roster says so from then on. If it
    /// cannot be said now, the next refusal says it again.
    pub(crate) async fn note_opt_outs(&self, transition: &alert::Transition) {
        let alert = &transition.alert;
        for (no, settled) in &transition.settled {
            let Settled::Failed { class: Some(ErrorClass::OptOut), .. } = settled else { continue };
            let Some(delivery) = alert.delivery(*no) else { continue };
            let code = delivery.attempts.last().and_then(|attempt| attempt.fault).and_then(|fault| fault.code);
            let by = OptOutBy::Provider { code };
            let (channel, address) = (delivery.channel, delivery.address_key);
            let booked = match delivery.purpose {
                Purpose::EmergencyContact => self.opt_out_outside(&alert.organisation, channel, address, by).await,
                Purpose::CounsellorAlert
                | Purpose::TakenNotice
                | Purpose::OutcomeReminder
                | Purpose::FollowUpReminder => self.opt_out(&alert.organisation, channel, address, by).await,
            };
            if let Err(error) = booked {
                tracing::error!(alert = %alert.id, contact = %delivery.contact, %error, "an opt-out could not be booked");
            }
        }
    }

    /// What a fault's code says beside what its class asks for: the operator hears of what is behind it, and the roster of a
    /// bad number. If that cannot be booked now, the next message there says it again.
    pub(crate) async fn note_fault(&self, alert: &Alert, no: DeliveryNo, code: Option<u32>) {
        let Some((code, mark)) = code.and_then(|code| Some((code, (self.settings.marks)(code)?))) else { return };
        let is_told = match mark {
            FaultMark::BadNumber => false,
            FaultMark::Alarm => true,
            FaultMark::AlarmOnRepeats => self.alarms.comes_again(code),
        };
        if is_told {
            let kind = Kind::ProviderRefused;
            tracing::error!(alert = %alert.id, alarm = kind.name(), code, "operator alarm");
            return self.alarms.raise_unlogged(kind, About::Code(Some(code)));
        }
        let Some(delivery) = alert.delivery(no).filter(|_| mark == FaultMark::BadNumber) else { return };
        // A student's own people are no part of the team's readiness.
        if delivery.purpose == Purpose::EmergencyContact {
            return;
        }
        let (contact, channel, address) = (delivery.contact.clone(), delivery.channel, delivery.address_key);
        tracing::warn!(alert = %alert.id, %contact, channel = channel.as_str(), code, "the provider calls a number bad");
        let change = Change::NumberRefused { contact, channel, address, code };
        self.note_number(alert, change).await;
    }

    /// A message has arrived: whatever was said of its number is no longer so.
    pub(crate) async fn note_arrival(&self, alert: &Alert, no: DeliveryNo) {
        // As above: a student's own people are none of the team's.
        let is_of_team = |delivery: &&Delivery| delivery.has_arrived() && delivery.purpose.is_for_team();
        let Some(delivery) = alert.delivery(no).filter(is_of_team) else { return };
        let (contact, channel, address) = (delivery.contact.clone(), delivery.channel, delivery.address_key);
        let known = self.live(&alert.organisation);
        if known.is_ok_and(|live| live.roster.refused_code(channel, address).is_some()) {
            self.note_number(alert, Change::NumberReached { contact, channel, address }).await;
        }
    }

    async fn note_number(&self, alert: &Alert, change: Change) {
        let changed = self.change_roster(&alert.organisation, &Actor::Provider, None, |_| Ok(change.clone())).await;
        if let Err(error) = changed {
            tracing::error!(alert = %alert.id, %error, "what the provider says of a number could not be booked");
        }
    }

    fn person_of(&self, organisation: &OrganisationId, id: &ContactId) -> PersonKey {
        let parts = [organisation.as_str().as_bytes(), id.as_str().as_bytes()];
        PersonKey::from_bytes(self.keyring.hash(HashPurpose::Contact, &parts))
    }

    fn details(
        &self,
        organisation: &OrganisationId,
        key: &dyn DataKey,
        name: Option<Sealed>,
        input: &ContactInput,
    ) -> ContactDetails {
        ContactDetails {
            name,
            role: input.role,
            language: input.language.clone(),
            time_zone: input.time_zone.clone(),
            methods: self.method_details(organisation, key, &input.methods),
            active: input.active,
        }
    }

    /// Numbers, sealed as they are kept.
    pub(super) fn method_details(
        &self,
        organisation: &OrganisationId,
        key: &dyn DataKey,
        methods: &[(Channel, Option<PhoneNumber>)],
    ) -> Vec<MethodDetails> {
        let number = |number: &PhoneNumber| Number {
            address: key.seal(SealedField::Address, number.expose()),
            address_key: address_key(self.keyring.as_ref(), organisation, number),
        };
        let details = |(channel, of): &(Channel, Option<PhoneNumber>)| MethodDetails {
            channel: *channel,
            number: of.as_ref().map(number),
        };
        methods.iter().map(details).collect()
    }

    pub(crate) async fn opened_of(&self, roster: Roster, id: &ContactId) -> Result<OpenedContact, ServiceError> {
        let organisation = roster.organisation.clone();
        let contact = roster.contacts.into_iter().find(|contact| contact.id == *id);
        let contact = contact.ok_or(ServiceError::Roster(Rejection::NoSuchContact))?;
        self.opened(&organisation, contact).await
    }

    /// Opens what is sealed. What does not open is left out: the rest must be shown all the same.
    async fn opened(
        &self,
        organisation: &OrganisationId,
        contact: RosterContact,
    ) -> Result<OpenedContact, ServiceError> {
        let key = self.contact_key(organisation, contact.person).await?;
        let open = |field, sealed: &Sealed| key.as_ref().and_then(|key| key.open(field, sealed).ok());
        let name = open(SealedField::ContactName, &contact.name).map(PersonName);
        let number = |sealed: &Sealed| open(SealedField::Address, sealed).and_then(|number| number.parse().ok());
        let numbers = contact.methods.iter().map(|method| number(&method.address)).collect();
        let channels = contact.methods.iter().map(|method| method.channel);
        let warnings = ContactWarning::of(&self.organisation(organisation)?.texts, &contact.language, channels);
        Ok(OpenedContact { contact, name, numbers, warnings })
    }

    async fn opened_configured(&self, contact: &Contact) -> Result<ConfiguredPerson, ServiceError> {
        let key = self.contact_key(&contact.organisation, contact.person).await?;
        let open = |sealed: &Sealed| key.as_ref().and_then(|key| key.open(SealedField::Address, sealed).ok());
        let number = |sealed: &Sealed| open(sealed).and_then(|number| number.parse().ok());
        let numbers = contact.methods.iter().map(|method| number(&method.address)).collect();
        let channels = contact.methods.iter().map(|method| method.channel);
        let texts = &self.organisation(&contact.organisation)?.texts;
        let warnings = ContactWarning::of(texts, &contact.language, channels);
        Ok(ConfiguredPerson { contact: contact.clone(), numbers, warnings })
    }

    async fn contact_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<Arc<dyn DataKey>>, ServiceError> {
        match self.kept_data_key(organisation, person).await {
            Ok(key) => Ok(Some(key)),
            Err(ServiceError::Sealed(KeyringError::UnknownKey | KeyringError::Broken | KeyringError::Malformed)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A person of the configuration, with their numbers.
pub struct ConfiguredPerson {
    /// As alerts know them.
    pub contact: Contact,
    /// Their numbers, in the order of their methods; `None` where the seal does not open.
    pub numbers: Vec<Option<PhoneNumber>>,
    /// What somebody should look at.
    pub warnings: Vec<ContactWarning>,
}

/// An id that is drawn says nothing of the person, and is never drawn again for another.
pub(super) fn new_id(kind: char, bytes: [u8; 5]) -> ContactId {
    let code = Reference::new(bytes).as_str().to_ascii_lowercase();
    #[expect(clippy::expect_used, reason = "eleven letters and digits with a dash are an id")]
    format!("{kind}-{code}").parse().expect("an id")
}

/// Holds numbers against the numbering plans, on a thread that may take its time.
pub(super) async fn check_numbers(methods: &[(Channel, Option<PhoneNumber>)]) -> Result<(), ServiceError> {
    let methods = methods.to_vec();
    let checked = tokio::task::spawn_blocking(move || {
        let numbers =
            methods.iter().enumerate().filter_map(|(at, (channel, number))| Some((at, channel, number.as_ref()?)));
        numbers
            .filter_map(|(at, channel, number)| {
                let rule = phone::fault_of(*channel, number)?;
                Some(FieldFault { field: format!("methods[{at}].number"), rule })
            })
            .collect::<Vec<_>>()
    });
    match checked.await {
        Ok(faults) if faults.is_empty() => Ok(()),
        Ok(faults) => Err(ServiceError::Roster(Rejection::Invalid(faults))),
        // The library has met a number that it cannot take: it is none for us, either.
        Err(_) => {
            let rule = "must be a number that there can be, by its country's numbering plan";
            Err(ServiceError::Roster(Rejection::Invalid(vec![FieldFault { field: "methods".to_owned(), rule }])))
        }
    }
}
