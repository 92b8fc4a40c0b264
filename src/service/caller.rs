//! Who calls: as far as decisions and the audit need it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::audit::Actor;
use crate::domain::ids::{OrganisationId, PrincipalKey};
use crate::ports::{DataKey, HashPurpose, Keyring, SealedField};

/// Until when what somebody asked for may be committed: no longer than they wait for the answer. Later, they have been told
/// that it is not known, and what they have said or seen done since must not be undone by it.
///
/// It is checked between the last look at the store and the commit. A commit that was handed to the store in time stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    asked_at: Timestamp,
    within: Duration,
}

impl Deadline {
    /// It was asked for at `asked_at`, and is waited for as long as `within`.
    pub fn new(asked_at: Timestamp, within: Duration) -> Self {
        Self { asked_at, within }
    }

    /// Whether it is too late at `now`. A clock that was set is as far off in both directions: one that was set back must
    /// not give another hour.
    pub fn has_passed(&self, now: Timestamp) -> bool {
        now.duration_since(self.asked_at).unsigned_abs() >= self.within
    }
}

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
    /// Until when what they ask for may be committed; `None`: nobody waits with a limit in time.
    pub deadline: Option<Deadline>,
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
    /// The same, who waits no longer than this.
    #[must_use]
    pub fn until(self, deadline: Option<Deadline>) -> Self {
        Self { deadline, ..self }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_with_the_time_that_is_waited_and_on_a_clock_that_was_set_either_way() {
        let asked_at: Timestamp = "2026-11-20T08:35:00Z".parse().unwrap();
        let deadline = Deadline::new(asked_at, Duration::from_secs(10));
        let passed = |millis: i64| deadline.has_passed(asked_at + jiff::SignedDuration::from_millis(millis));
        assert!(![0, 1, 9_999, -1, -9_999].into_iter().any(passed));
        assert!([10_000, 3_600_000, -10_000, -3_600_000].into_iter().all(passed));
    }
}
