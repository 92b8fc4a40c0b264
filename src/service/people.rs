//! People's data keys, and the contacts that come from the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Service, ServiceError};
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Language, PhoneNumber};
use crate::domain::delivery::Delivery;
use crate::domain::ids::{AddressKey, AlertId, ContactId, OrganisationId, PersonKey, SubjectKey};
use crate::domain::message::Purpose;
use crate::ports::{DataKey, HashPurpose, Keyring, KeyringError, SealedField, Store};

/// How many contacts' keys are kept open at the most.
const KEPT: usize = 1024;

/// Open data keys of contacts: a burst goes to few phones, and opening a key for each message would be waste.
#[derive(Default)]
pub(crate) struct DataKeys {
    open: Mutex<HashMap<PersonKey, Arc<dyn DataKey>>>,
}

/// A contact as the configuration gives it.
#[derive(Debug, Clone)]
pub struct ConfiguredContact {
    /// The contact's id.
    pub id: ContactId,
    /// Why they are told.
    pub role: ContactRole,
    /// Their language.
    pub language: Language,
    /// Their numbers, in the order in which they are tried.
    pub methods: Vec<(Channel, PhoneNumber)>,
}

/// The keyed hash of a number.
pub fn address_key(keyring: &dyn Keyring, organisation: &OrganisationId, number: &PhoneNumber) -> AddressKey {
    let parts = [organisation.as_str().as_bytes(), number.expose().as_bytes()];
    AddressKey::from_bytes(keyring.hash(HashPurpose::Address, &parts))
}

/// The keyed hash of a student.
pub fn subject_key(keyring: &dyn Keyring, organisation: &OrganisationId, user_id: &str) -> SubjectKey {
    let parts = [organisation.as_str().as_bytes(), user_id.as_bytes()];
    SubjectKey::from_bytes(keyring.hash(HashPurpose::Subject, &parts))
}

/// A person's data key, which is made if there is none.
pub(crate) async fn ensure_data_key(
    store: &dyn Store,
    keyring: &dyn Keyring,
    now: jiff::Timestamp,
    organisation: &OrganisationId,
    person: PersonKey,
) -> Result<Arc<dyn DataKey>, ServiceError> {
    loop {
        if let Some(wrapped) = store.data_key(organisation, person).await? {
            return Ok(keyring.open_data_key(&wrapped)?);
        }
        let (wrapped, key) = keyring.new_data_key(organisation, person, now);
        if store.insert_data_key(wrapped).await? {
            return Ok(key);
        }
    }
}

/// Seals a configured contact under a data key of their own, which is made on the first start.
pub async fn enrol(
    store: &dyn Store,
    keyring: &dyn Keyring,
    now: jiff::Timestamp,
    organisation: &OrganisationId,
    configured: &ConfiguredContact,
) -> Result<Contact, ServiceError> {
    let parts = [organisation.as_str().as_bytes(), configured.id.as_str().as_bytes()];
    let person = PersonKey::from_bytes(keyring.hash(HashPurpose::Contact, &parts));
    let key = ensure_data_key(store, keyring, now, organisation, person).await?;
    let methods = configured
        .methods
        .iter()
        .map(|(channel, number)| ContactMethod {
            channel: *channel,
            address: key.seal(SealedField::Address, number.expose()),
            address_key: address_key(keyring, organisation, number),
        })
        .collect();
    Ok(Contact {
        id: configured.id.clone(),
        organisation: organisation.clone(),
        person,
        role: configured.role,
        language: configured.language.clone(),
        methods,
    })
}

impl Service {
    /// The open data key of a person, if they have one.
    pub(crate) async fn person_data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Arc<dyn DataKey>, ServiceError> {
        let wrapped = self.store.data_key(organisation, person).await?.ok_or(KeyringError::UnknownKey)?;
        Ok(self.keyring.open_data_key(&wrapped)?)
    }

    /// The same; `None` where there is none, or it does not open: a person's data was erased, or a former master key
    /// is not at hand. What needs no seal must go on without.
    pub(crate) async fn person_data_key_if_any(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Option<Arc<dyn DataKey>>, ServiceError> {
        match self.person_data_key(organisation, person).await {
            Ok(key) => Ok(Some(key)),
            Err(ServiceError::Sealed(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A key that is kept nowhere: what is sealed under it is lost, and takes the place of what cannot be sealed.
    pub(crate) fn key_to_throw_away(&self, organisation: &OrganisationId, person: PersonKey) -> Arc<dyn DataKey> {
        self.keyring.new_data_key(organisation, person, self.clock.now()).1
    }

    /// An alarm for the operator: a student's data key does not open, and words were lost on account of it.
    pub(crate) fn alarm_unreadable(&self, alert: AlertId) {
        let kind = Kind::SealedDataUnreadable;
        tracing::error!(%alert, alarm = kind.name(), "operator alarm");
        self.alarms.raise_unlogged(kind, About::Service);
    }

    /// A contact's open data key, which is kept open.
    pub(crate) async fn kept_data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
    ) -> Result<Arc<dyn DataKey>, ServiceError> {
        if let Some(key) = self.data_keys.open.lock().get(&person) {
            return Ok(Arc::clone(key));
        }
        let key = self.person_data_key(organisation, person).await?;
        let mut open = self.data_keys.open.lock();
        if open.len() >= KEPT {
            open.clear();
        }
        open.insert(person, Arc::clone(&key));
        Ok(key)
    }

    /// The number that a delivery goes to.
    pub async fn address_of(
        &self,
        organisation: &OrganisationId,
        delivery: &Delivery,
    ) -> Result<PhoneNumber, ServiceError> {
        let key = match delivery.purpose {
            // It is the student's, which is not kept open: once it is destroyed, nobody is told any more.
            Purpose::EmergencyContact => self.person_data_key(organisation, delivery.person).await?,
            Purpose::CounsellorAlert | Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder => {
                self.kept_data_key(organisation, delivery.person).await?
            }
        };
        let number = key.open(SealedField::Address, &delivery.address)?;
        number.parse().map_err(|_| ServiceError::Sealed(KeyringError::Malformed))
    }
}
