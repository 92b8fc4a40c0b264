//! The keyring: seals what is personal, and makes the keyed hashes by which the service knows people.
//!
//! Three layers of keys, each made from the one above or wrapped by it:
//!
//! ```text
//! master key (current | former)       out of the database: a file of mode 0600, or the environment
//!   └─ wraps ─> data key of a person  in the database, wrapped; destroying the row erases the person
//!                 └─ seals ─> text    in the database, sealed, bound to person and field
//! index key                           made from one master key, and stays when master keys are rotated
//!   └─ HKDF ─> one HMAC key per purpose ─> keyed hashes (student, contact, number, …)
//! ```
//!
//! - Sealing and wrapping: XChaCha20-Poly1305. Its nonce of 24 bytes is long enough to be drawn at random for as many
//!   texts as will ever be written (draft-irtf-cfrg-xchacha, section 2.1).
//! - Bound into each seal as associated data: the form's version, the organisation, the person, the key's id, and what
//!   the text is. A row moved to another person, organisation or column does not open.
//! - Hashes: HMAC-SHA-256 under a key of the purpose, made by HKDF-SHA-256 (RFC 5869).
//!
//! What it does not do: it stores nothing and caches nothing (an erased person's key would live on in a cache), and it
//! does not hide a text's length.

mod master;
mod seal;

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use master::{MasterKeyError, MasterKeys};

use crate::domain::ids::{OrganisationId, PersonKey};
use crate::domain::sealed::Sealed;
use crate::ports::{DataKey, Entropy, HashPurpose, Keyring, KeyringError, SealedField, WrappedDataKey, random};
use seal::{Associated, Form};

/// Length of every key, in bytes.
const KEY_BYTES: usize = 32;

/// A secret of 32 bytes, zeroed when dropped.
type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// Makes a key out of another (HKDF-SHA-256); `label` keeps the results apart.
fn derive(from: &Secret, label: &str) -> Secret {
    let mut key = Secret::default();
    #[expect(clippy::expect_used, reason = "HKDF-SHA-256 yields up to 8160 bytes; 32 are asked for")]
    Hkdf::<Sha256>::new(Some(b"crisis-relay"), from.as_slice())
        .expand(label.as_bytes(), key.as_mut_slice())
        .expect("32 bytes are within HKDF's reach");
    key
}

/// A keyring whose master keys are held by this process.
pub struct LocalKeyring {
    masters: MasterKeys,
    entropy: Arc<dyn Entropy>,
}

impl LocalKeyring {
    /// A keyring over these master keys. `entropy` must be fit for keys ([`crate::clock::SystemEntropy`]).
    pub fn new(masters: MasterKeys, entropy: Arc<dyn Entropy>) -> Self {
        Self { masters, entropy }
    }

    /// The master keys' ids, and the index key's.
    pub fn masters(&self) -> &MasterKeys {
        &self.masters
    }

    /// Wraps a stored data key anew under the current master key; `None` if that is what wraps it already. Sealed texts
    /// stay as they are. Once no row is left under a former master key, that key may be taken out of the keyring.
    ///
    /// # Errors
    /// As [`Keyring::open_data_key`].
    pub fn rewrap(&self, wrapped: &WrappedDataKey) -> Result<Option<WrappedDataKey>, KeyringError> {
        let (master_id, _) = seal::split(&wrapped.wrapped, Form::Wrapped)?;
        let key = self.unwrap_key(wrapped)?;
        if master_id == self.masters.current().id() {
            return Ok(None);
        }
        let form = self.wrap_key(&wrapped.organisation, wrapped.person, &wrapped.key_id, &key);
        Ok(Some(WrappedDataKey { wrapped: form, ..wrapped.clone() }))
    }

    fn wrap_key(&self, organisation: &OrganisationId, person: PersonKey, key_id: &str, key: &Secret) -> String {
        let master = self.masters.current();
        let associated = Associated::wrapped(master.id(), organisation, &person, key_id);
        seal::close(master.wrapping_key(), master.id(), &associated, key.as_slice(), self.entropy.as_ref())
    }

    fn unwrap_key(&self, wrapped: &WrappedDataKey) -> Result<Secret, KeyringError> {
        if !seal::is_key_id(&wrapped.key_id, Form::Sealed) {
            return Err(KeyringError::Malformed);
        }
        let (master_id, payload) = seal::split(&wrapped.wrapped, Form::Wrapped)?;
        let master = self.masters.by_id(master_id).ok_or(KeyringError::UnknownKey)?;
        let associated = Associated::wrapped(master.id(), &wrapped.organisation, &wrapped.person, &wrapped.key_id);
        let opened = seal::open(master.wrapping_key(), &associated, payload)?;
        let mut key = Secret::default();
        if opened.len() != key.len() {
            return Err(KeyringError::Malformed);
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }

    fn data_key(&self, organisation: &OrganisationId, person: PersonKey, key_id: &str, key: Secret) -> LocalDataKey {
        LocalDataKey {
            organisation: organisation.clone(),
            person,
            key_id: key_id.to_owned(),
            key,
            entropy: Arc::clone(&self.entropy),
        }
    }
}

impl Keyring for LocalKeyring {
    fn index_id(&self) -> &str {
        self.masters.index_id()
    }

    fn hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        let key = derive(self.masters.index_key(), hash_label(purpose));
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104)")]
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_slice()).expect("HMAC takes any key");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn new_data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
        now: Timestamp,
    ) -> (WrappedDataKey, Arc<dyn DataKey>) {
        let key = Secret::new(random(self.entropy.as_ref()));
        let key_id = data_encoding::HEXLOWER.encode(&random::<8>(self.entropy.as_ref()));
        let wrapped = WrappedDataKey {
            organisation: organisation.clone(),
            person,
            wrapped: self.wrap_key(organisation, person, &key_id, &key),
            key_id,
            created_at: now,
        };
        let open = self.data_key(organisation, person, &wrapped.key_id, key);
        (wrapped, Arc::new(open))
    }

    fn open_data_key(&self, wrapped: &WrappedDataKey) -> Result<Arc<dyn DataKey>, KeyringError> {
        let key = self.unwrap_key(wrapped)?;
        Ok(Arc::new(self.data_key(&wrapped.organisation, wrapped.person, &wrapped.key_id, key)))
    }
}

impl fmt::Debug for LocalKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKeyring").field("masters", &self.masters).finish_non_exhaustive()
    }
}

/// Never change one of these: everything stored under the purpose would be lost from sight.
const fn hash_label(purpose: HashPurpose) -> &'static str {
    match purpose {
        HashPurpose::Subject => "v1/hash/subject",
        HashPurpose::Contact => "v1/hash/contact",
        HashPurpose::Address => "v1/hash/address",
        HashPurpose::Idempotency => "v1/hash/idempotency",
        HashPurpose::Code => "v1/hash/code",
        HashPurpose::CodeSeed => "v1/hash/code_seed",
        HashPurpose::Alarm => "v1/hash/alarm",
        HashPurpose::Principal => "v1/hash/principal",
        HashPurpose::Ticket => "v1/hash/ticket",
    }
}

/// Never change one of these: what was sealed as that field would no longer open.
const fn field_label(field: SealedField) -> &'static str {
    match field {
        SealedField::UserId => "user_id",
        SealedField::Message => "message",
        SealedField::Metadata => "metadata",
        SealedField::Address => "address",
        SealedField::Override => "override",
        SealedField::Principal => "principal",
        SealedField::Note => "note",
        SealedField::ContactName => "contact_name",
        SealedField::Disclosure => "disclosure",
    }
}

struct LocalDataKey {
    organisation: OrganisationId,
    person: PersonKey,
    key_id: String,
    key: Secret,
    entropy: Arc<dyn Entropy>,
}

impl LocalDataKey {
    fn associated(&self, field: SealedField) -> Associated {
        Associated::sealed(&self.key_id, &self.organisation, &self.person, field_label(field))
    }
}

impl DataKey for LocalDataKey {
    fn seal(&self, field: SealedField, text: &str) -> Sealed {
        let associated = self.associated(field);
        Sealed(seal::close(&self.key, &self.key_id, &associated, text.as_bytes(), self.entropy.as_ref()))
    }

    fn open(&self, field: SealedField, sealed: &Sealed) -> Result<String, KeyringError> {
        let (key_id, payload) = seal::split(&sealed.0, Form::Sealed)?;
        if key_id != self.key_id {
            return Err(KeyringError::UnknownKey);
        }
        let mut opened = seal::open(&self.key, &self.associated(field), payload)?;
        // Only texts are ever sealed, and the seal held: other bytes mean that another writer had the key.
        String::from_utf8(std::mem::take(&mut *opened)).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            KeyringError::Broken
        })
    }
}

impl fmt::Debug for LocalDataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalDataKey(…)")
    }
}

#[cfg(test)]
mod tests;
