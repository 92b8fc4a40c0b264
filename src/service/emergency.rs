//! The emergency contacts of a student: kept with what the student has said, proven like any number, and told by a named
//! human's decision or where a policy says so.
//!
//! Whatever is planned or sent to one of them is committed with the version of the student's record that was read, as what
//! rests on consent is; and right before the call to the provider the record is looked at once more. Where it cannot be
//! read then, nothing is sent: unlike the team, nobody outside it is told on a doubt.

use std::sync::Arc;

use super::caller::{Caller, Deadline};
use super::consent::Judged;
use super::contacts::{PersonName, check_numbers, new_id};
use super::intake::{IdempotencyInput, Statement, seal_stated};
use super::people::{ensure_data_key, subject_key};
use super::reading::AlertName;
use super::{Along, Changed, Service, ServiceError, TRIES};
use crate::domain::alert::{self, Alert, Disclosures, Input, Kind};
use crate::domain::audit::Actor;
use crate::domain::consent::{
    ConsentRecord, DisclosureGround, EmergencyChange, EmergencyContact, EmergencyDetails, EmergencySituation,
    EmergencyTransition, Word,
};
use crate::domain::contact::{Channel, Language, PhoneNumber};
use crate::domain::delivery::Delivery;
use crate::domain::ids::{AddressKey, ContactId, OrganisationId, SubjectKey};
use crate::domain::message::Purpose;
use crate::domain::roster::Rejection;
use crate::ports::{ConsentCommit, HashPurpose, IdempotencyRecord, SealedField, StoreError, random};

/// The status of the answer to a decision.
const OK: u16 = 200;

/// All about an emergency contact, as somebody sets it.
#[derive(Debug, Clone)]
pub struct EmergencyInput {
    /// What they are called; `None`: as before.
    pub name: Option<PersonName>,
    /// In which language they are told.
    pub language: Language,
    /// Channels and numbers, in the order in which they are tried; without a number: the one that is there.
    pub methods: Vec<(Channel, Option<PhoneNumber>)>,
    /// The student's word; `None`: as before.
    pub consent: Option<Word>,
}

/// An emergency contact, opened for somebody who may see it.
pub struct OpenedEmergencyContact {
    /// As they are kept.
    pub contact: EmergencyContact,
    /// What they are called; `None` where the seal does not open.
    pub name: Option<PersonName>,
    /// Their numbers, in the order of their methods; `None` where the seal does not open.
    pub numbers: Vec<Option<PhoneNumber>>,
}

impl Service {
    /// The emergency contacts of a student.
    pub async fn emergency_contacts(
        &self,
        caller: &Caller,
        user_id: &str,
    ) -> Result<Vec<OpenedEmergencyContact>, ServiceError> {
        let Some(record) = self.consent(caller, user_id).await? else { return Ok(Vec::new()) };
        self.opened_emergency(&record).await
    }

    /// One of them.
    pub async fn emergency_contact(
        &self,
        caller: &Caller,
        user_id: &str,
        id: &ContactId,
    ) -> Result<OpenedEmergencyContact, ServiceError> {
        let record = self.consent(caller, user_id).await?.ok_or(ServiceError::NotFound)?;
        self.opened_emergency_of(&record, id).await
    }

    /// Adds one.
    pub async fn add_emergency_contact(
        &self,
        caller: &Caller,
        user_id: &str,
        input: EmergencyInput,
    ) -> Result<OpenedEmergencyContact, ServiceError> {
        let organisation = &self.organisation(&caller.organisation)?.id;
        check_numbers(&input.methods).await?;
        let subject = subject_key(self.keyring.as_ref(), organisation, user_id);
        let (store, keyring, now) = (self.store.as_ref(), self.keyring.as_ref(), self.clock.now());
        let key = ensure_data_key(store, keyring, now, organisation, subject.into()).await?;
        let id = new_id('e', random(self.entropy.as_ref()));
        let details = EmergencyDetails {
            name: input.name.as_ref().map(|PersonName(name)| key.seal(SealedField::ContactName, name)),
            language: input.language,
            methods: self.method_details(organisation, key.as_ref(), &input.methods),
            consent: input.consent,
        };
        let change = EmergencyChange::Add { id: id.clone(), details };
        let changed = self.change_emergency_as(caller, subject, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, "an emergency contact was added");
        self.opened_emergency_of(&changed.record, &id).await
    }

    /// Sets all about one anew. Another number is unverified; a word that is taken back counts at once.
    pub async fn replace_emergency_contact(
        &self,
        caller: &Caller,
        user_id: &str,
        id: &ContactId,
        from_version: u64,
        input: EmergencyInput,
    ) -> Result<OpenedEmergencyContact, ServiceError> {
        let organisation = &self.organisation(&caller.organisation)?.id;
        check_numbers(&input.methods).await?;
        let subject = subject_key(self.keyring.as_ref(), organisation, user_id);
        let known = self.emergency_contact(caller, user_id, id).await?;
        let key = self.person_data_key(organisation, subject.into()).await?;
        // Sealed twice a name looks like two: whether it is another one is said here.
        let renamed = input.name.as_ref().filter(|name| known.name.as_ref() != Some(name));
        let details = EmergencyDetails {
            name: renamed.map(|PersonName(name)| key.seal(SealedField::ContactName, name)),
            language: input.language,
            methods: self.method_details(organisation, key.as_ref(), &input.methods),
            consent: input.consent,
        };
        let change = EmergencyChange::Replace { id: id.clone(), from_version, details };
        let changed = self.change_emergency_as(caller, subject, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, "an emergency contact was changed");
        self.opened_emergency_of(&changed.record, id).await
    }

    /// Removes one, with name and numbers.
    pub async fn remove_emergency_contact(
        &self,
        caller: &Caller,
        user_id: &str,
        id: &ContactId,
        from_version: u64,
    ) -> Result<(), ServiceError> {
        let organisation = &self.organisation(&caller.organisation)?.id;
        let subject = subject_key(self.keyring.as_ref(), organisation, user_id);
        let change = EmergencyChange::Remove { id: id.clone(), from_version };
        self.change_emergency_as(caller, subject, |_| Ok(change.clone())).await?;
        tracing::info!(contact = %id, "an emergency contact was removed");
        Ok(())
    }

    pub(super) async fn change_emergency_as(
        &self,
        caller: &Caller,
        subject: SubjectKey,
        make: impl Fn(&ConsentRecord) -> Result<EmergencyChange, Rejection>,
    ) -> Result<EmergencyTransition, ServiceError> {
        let actor = caller.actor(self.keyring.as_ref(), None);
        self.change_emergency(&caller.organisation, subject, &actor, caller.deadline, make).await
    }

    /// Loads a student's record, changes it and commits, until nobody was faster. An unknown outcome is read off the audit
    /// chain, as for the roster.
    async fn change_emergency(
        &self,
        organisation: &OrganisationId,
        subject: SubjectKey,
        actor: &Actor,
        deadline: Option<Deadline>,
        make: impl Fn(&ConsentRecord) -> Result<EmergencyChange, Rejection>,
    ) -> Result<EmergencyTransition, ServiceError> {
        let organisation = self.organisation(organisation)?;
        let mut in_doubt: Option<EmergencyTransition> = None;
        for _ in 0..TRIES {
            let known = self.store.consent(&organisation.id, subject).await?;
            if let Some(transition) = in_doubt.take()
                && let Some(newest) = transition.audit.last()
                && self.is_stored(newest).await?
            {
                return Ok(transition);
            }
            let record = known.unwrap_or_else(|| ConsentRecord::empty(organisation.id.clone(), subject));
            let change = make(&record).map_err(ServiceError::Roster)?;
            let situation = EmergencySituation { now: self.clock.now(), actor, senders: &organisation.senders };
            let transition = record.on(change, &situation).map_err(ServiceError::Roster)?;
            if transition.audit.is_empty() {
                return Ok(transition);
            }
            self.in_time(deadline)?;
            let commit = ConsentCommit { record: transition.record.clone(), audit: transition.audit.clone() };
            match self.store.commit_consent(commit).await {
                Ok(true) => return Ok(transition),
                Ok(false) => {}
                Err(StoreError::Unknown { .. }) => in_doubt = Some(transition),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ServiceError::Busy)
    }

    async fn opened_emergency(&self, record: &ConsentRecord) -> Result<Vec<OpenedEmergencyContact>, ServiceError> {
        // What does not open is left out: the rest must be shown all the same.
        let key = self.person_data_key_if_any(&record.organisation, record.subject.into()).await?;
        let live = self.live(&record.organisation)?;
        let open = |contact: &EmergencyContact| {
            let mut contact = contact.clone();
            contact.heed_opt_outs(|channel, address| live.roster.opted_out_since(channel, address));
            let open = |field, sealed| key.as_ref().and_then(|key| key.open(field, sealed).ok());
            let number = |sealed| open(SealedField::Address, sealed).and_then(|number| number.parse().ok());
            OpenedEmergencyContact {
                name: open(SealedField::ContactName, &contact.name).map(PersonName),
                numbers: contact.methods.iter().map(|method| number(&method.address)).collect(),
                contact,
            }
        };
        Ok(record.emergency_contacts.iter().map(open).collect())
    }

    pub(super) async fn opened_emergency_of(
        &self,
        record: &ConsentRecord,
        id: &ContactId,
    ) -> Result<OpenedEmergencyContact, ServiceError> {
        let all = self.opened_emergency(record).await?;
        all.into_iter().find(|opened| opened.contact.id == *id).ok_or(ServiceError::NotFound)
    }

    // -- telling them -----------------------------------------------------------------------------------------------

    /// A named human decides that an emergency contact is told. Asked for again while that is on its way, or under the same
    /// key, it changes nothing.
    pub async fn inform_emergency_contact(
        &self,
        caller: &Caller,
        name: AlertName,
        contact: Option<&ContactId>,
        stated: &Statement,
        idempotency: Option<IdempotencyInput<'_>>,
    ) -> Result<Alert, ServiceError> {
        let mut alert = self.find(caller, name).await?;
        let id = alert.id;
        // The case stands in the address, not in the body: under the same key another case is another request.
        let key = idempotency.map(|given| self.hash_idempotency(caller, &given)).map(|(key, body)| {
            let parts = [b"inform-emergency-contact".as_slice(), id.0.as_bytes(), &body];
            (key, self.keyring.hash(HashPurpose::Idempotency, &parts))
        });
        if let Some((key, body)) = key
            && let Some(record) = self.store.answer(key).await?
        {
            return if record.body == body { Ok(alert) } else { Err(ServiceError::IdempotencyKeyReused) };
        }
        if !self.organisation(&alert.organisation)?.composer.has_desk() {
            return Err(ServiceError::NoDesk);
        }
        let actor = self.actor_for(caller, &alert).await?;
        let seal = self.person_data_key_if_any(&alert.organisation, alert.subject.into()).await?;
        let seal = seal.ok_or(ServiceError::CannotSeal("reason"))?;
        let statement = seal_stated(SealedField::Disclosure, stated, seal.as_ref());
        let ground = DisclosureGround::Decision { statement, by: actor.clone(), at: self.clock.now() };
        let record = key.map(|(key, body)| {
            let answer = serde_json::json!({ "alert": id }).to_string();
            IdempotencyRecord { key, body, status: OK, answer, created_at: self.clock.now() }
        });
        for _ in 0..TRIES {
            let judged: Judged = self.judge(alert).await?;
            let known = self.disclosures(&judged.alert).await?;
            if judged.consent_version.is_some_and(|version| version != known.version) {
                alert = self.load(id).await?;
                continue;
            }
            let contact = meant(&judged.alert, &known, contact)?;
            let along = Along {
                idempotency: record.clone(),
                consent_version: Some(known.version),
                emergency: Some(Arc::new(known)),
                deadline: caller.deadline,
                ..Along::default()
            };
            let input = Input::Inform { contact: contact.clone(), ground: ground.clone() };
            match self.change_along(judged.alert, input, &actor, &along).await? {
                Changed::Made(transition) => {
                    tracing::info!(alert = %id, %contact, "an emergency contact is told by decision");
                    return Ok(transition.alert);
                }
                Changed::Nothing => {
                    // It is on its way. Said again after it has come, this is still the same request.
                    if let Some(record) = record {
                        self.store.keep_answer(record).await?;
                    }
                    return self.load(id).await;
                }
                Changed::AnsweredBefore => {
                    let given = match key {
                        Some((key, body)) => self.store.answer(key).await?.is_some_and(|known| known.body == body),
                        None => true,
                    };
                    return if given { self.load(id).await } else { Err(ServiceError::IdempotencyKeyReused) };
                }
                Changed::ConsentOutdated => alert = self.load(id).await?,
                Changed::NoPlace => return Err(ServiceError::Busy),
            }
        }
        Err(ServiceError::Busy)
    }

    /// The emergency contacts of an alert's student, as they are now.
    pub(super) async fn disclosures(&self, alert: &Alert) -> Result<Disclosures, ServiceError> {
        let has_desk = self.organisation(&alert.organisation)?.composer.has_desk();
        let record = self.store.consent(&alert.organisation, alert.subject).await?;
        let (mut contacts, version) =
            record.map(|record| (record.emergency_contacts, record.version)).unwrap_or_default();
        // What another instance has heard a moment ago may be missing here: then the provider refuses it.
        let live = self.live(&alert.organisation)?;
        for contact in &mut contacts {
            contact.heed_opt_outs(|channel, address| live.roster.opted_out_since(channel, address));
        }
        Ok(Disclosures { contacts, version, has_desk })
    }

    /// The last look before the call to an emergency contact. Where the record cannot be read, nothing is sent.
    pub async fn may_still_disclose(&self, alert: &Alert, delivery: &Delivery) -> bool {
        match self.disclosures(alert).await {
            Ok(known) => known.may_disclose(delivery).is_ok(),
            Err(_) => false,
        }
    }

    /// The case that a phone was told of last as an emergency contact's, over this channel.
    pub(super) async fn told_outside(
        &self,
        organisation: &OrganisationId,
        address: AddressKey,
        channel: Channel,
    ) -> Result<Option<(Alert, Delivery)>, ServiceError> {
        let Some(alert) = self.store.last_case_of(organisation, address).await? else { return Ok(None) };
        let is_it = |delivery: &&Delivery| {
            delivery.purpose == Purpose::EmergencyContact
                && (delivery.channel, delivery.address_key) == (channel, address)
        };
        let delivery = alert.deliveries.iter().rfind(is_it).cloned();
        Ok(delivery.map(|delivery| (alert, delivery)))
    }
}

/// Who is meant: where there is one only, they need not be named.
fn meant(alert: &Alert, known: &Disclosures, named: Option<&ContactId>) -> Result<ContactId, ServiceError> {
    if !alert.is_open() {
        return Err(ServiceError::Rejected(alert::Rejection::AlreadyResolved));
    }
    if matches!(alert.kind, Kind::Drill) {
        return Err(ServiceError::Rejected(alert::Rejection::DrillStaysInside));
    }
    match (named, known.contacts.as_slice()) {
        (Some(named), _) => Ok(named.clone()),
        (None, [one]) => Ok(one.id.clone()),
        (None, []) => Err(ServiceError::Rejected(alert::Rejection::NoSuchEmergencyContact)),
        (None, _) => Err(ServiceError::WhichEmergencyContact),
    }
}
