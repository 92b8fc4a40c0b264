//! Who calls: as far as decisions and the audit need it.

use std::fmt;

use crate::domain::audit::Actor;
use crate::domain::ids::{OrganisationId, PrincipalKey};
use crate::ports::{DataKey, HashPurpose, Keyring, SealedField};

/// An authenticated caller.
#[derive(Clone)]
pub struct Caller {
    /// The caller's organisation: nothing of another is ever shown or changed.
    pub organisation: OrganisationId,
    /// The API key's id, or the token's subject.
    pub id: String,
    /// The role the call was allowed by.
    pub role: &'static str,
    /// A machine's key, or a person's token.
    pub is_person: bool,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("organisation", &self.organisation)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// The caller as the audit names them: a machine by its key's id, a person by a keyed hash, and by name only under
    /// the student's seal.
    pub fn actor(&self, keyring: &dyn Keyring, seal: Option<&dyn DataKey>) -> Actor {
        if !self.is_person {
            return Actor::Machine { key: self.id.clone() };
        }
        let parts = [self.organisation.as_str().as_bytes(), self.id.as_bytes()];
        let principal = PrincipalKey::from_bytes(keyring.hash(HashPurpose::Principal, &parts));
        let name = seal.map(|key| key.seal(SealedField::Principal, &self.id));
        Actor::Person { principal, role: self.role.to_owned(), name }
    }
}
