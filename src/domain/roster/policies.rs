//! Escalation policies of the roster, and what they are held against.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Changing, FieldFault, Method, Outcome, Rejection, Roster, RosterContact, SettingsDeed, Standing};
use crate::domain::contact::Directory;
use crate::domain::ids::{ContactId, PolicyId};
use crate::domain::message::{BandThresholds, Texts, UrgencyBand};
use crate::domain::policy::check::{Finding, Staff, check};
use crate::domain::policy::explain::{Idle, IdleContact, WhyMissing};
use crate::domain::policy::{DefaultLadder, Ladders, Policy};
use crate::domain::readiness::{IdleMethod, Obstacle, Readiness};

/// How many policies there may be.
pub const POLICIES_MAX: usize = 16;
/// The id of the configuration's ladder, which no other policy has.
pub const CONFIGURED: &str = "default";

/// A policy of the roster, and the bands that it is active for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterPolicy {
    /// The ladder; its version counts the changes that people made.
    pub policy: Arc<Policy>,
    /// Which cases take it: none, and it is a draft. No two policies have one band.
    #[serde(default)]
    pub bands: Vec<UrgencyBand>,
}

impl RosterPolicy {
    /// Whether cases take it.
    pub fn is_active(&self) -> bool {
        !self.bands.is_empty()
    }
}

impl Roster {
    /// The policy with this id.
    pub fn policy(&self, id: &PolicyId) -> Option<&RosterPolicy> {
        self.policies.iter().find(|policy| policy.policy.id == *id)
    }

    /// The configuration's ladder, for everybody who is set up.
    pub fn default_ladder(&self, ladder: &DefaultLadder, configured: &Directory) -> Policy {
        ladder.for_people(&self.directory(configured), &self.idle())
    }

    /// Which policy a case takes: that of its band, and the configuration's where a band has none.
    pub fn ladders(&self, ladder: &DefaultLadder, configured: &Directory, thresholds: BandThresholds) -> Ladders {
        let default = Arc::new(self.default_ladder(ladder, configured));
        Ladders::by_band(thresholds, |band| {
            let of_band = self.policies.iter().find(|policy| policy.bands.contains(&band));
            Arc::clone(of_band.map_or(&default, |policy| &policy.policy))
        })
    }

    /// Everybody who is set up, whether they can be told or not.
    pub fn known(&self, configured: &Directory) -> BTreeSet<ContactId> {
        let own = self.contacts.iter().map(|contact| contact.id.clone());
        configured.people().map(|contact| contact.id.clone()).chain(own).collect()
    }

    /// Who is set up here and cannot be told anything, and why.
    pub fn idle(&self) -> Idle {
        let idle = |contact: &RosterContact| {
            let idle = IdleContact { role: contact.role, why: why_idle(contact)? };
            Some((contact.id.clone(), idle))
        };
        self.contacts.iter().filter_map(idle).collect()
    }

    /// What is not in order with a policy, held against everybody who is set up. What keeps people from being told is no fault
    /// of a draft: their numbers may be verified before it becomes active.
    pub fn findings(&self, policy: &Policy, is_active: bool, configured: &Directory, now: Timestamp) -> Findings {
        let (directory, idle) = (self.directory(configured), self.idle());
        let found = check(policy, &Staff { directory: &directory, idle: &idle, now });
        let is_fault = |finding: &Finding| finding.what.is_fault() && (is_active || !finding.what.is_of_reach());
        let (faults, warnings) = found.into_iter().partition(is_fault);
        Findings { faults, warnings }
    }

    /// Whether somebody would be there, from `now` on.
    pub fn readiness(&self, configured: &Directory, ladders: &Ladders, texts: &Texts, now: Timestamp) -> Readiness {
        let active = self.contacts.iter().filter(|contact| contact.active);
        let idle = active.flat_map(|contact| {
            contact.methods.iter().filter(|method| !method.standing.is_usable()).map(|method| IdleMethod {
                contact: contact.id.clone(),
                channel: method.channel,
                opted_out: matches!(method.standing, Standing::OptedOut { .. }),
            })
        });
        let directory = self.directory(configured);
        let mut readiness = Readiness::look(now, &directory, &ladders.in_use(), &idle.collect::<Vec<_>>(), texts);
        let refused = directory.people().flat_map(|person| {
            person.methods.iter().filter_map(|method| {
                let code = self.refused_code(method.channel, method.address_key)?;
                Some(Obstacle::MethodRefused { contact: person.id.clone(), channel: method.channel, code })
            })
        });
        readiness.obstacles.extend(refused);
        readiness
    }
}

fn why_idle(contact: &RosterContact) -> Option<WhyMissing> {
    let opted_out = |method: &Method| matches!(method.standing, Standing::OptedOut { .. });
    if !contact.active {
        return Some(WhyMissing::Inactive);
    }
    if contact.methods.iter().any(|method| method.standing.is_usable()) {
        return None;
    }
    Some(match contact.methods.as_slice() {
        [] => WhyMissing::NoNumber,
        methods if methods.iter().any(opted_out) => WhyMissing::OptedOut,
        _ => WhyMissing::Unverified,
    })
}

/// What is not in order with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// What must not be so.
    pub faults: Vec<Finding>,
    /// What somebody should look at.
    pub warnings: Vec<Finding>,
}

impl Changing<'_, '_> {
    /// Adds a policy, where none was changed, or replaces the one that was. It takes its bands from whichever had them.
    pub(super) fn save_policy(
        &mut self,
        from_version: Option<u32>,
        wanted: RosterPolicy,
    ) -> Result<Outcome, Rejection> {
        let id = wanted.policy.id.clone();
        let place = self.roster.policies.iter().position(|known| known.policy.id == id);
        let before = place.map(|place| self.roster.policies[place].clone());
        let known = before.as_ref().map(|before| before.policy.version);
        let version = self.next_version(known, from_version, Rejection::NoSuchPolicy)?;
        if before.is_none() && id.as_str() == CONFIGURED {
            return Err(Rejection::IdTaken);
        }
        if before.is_none() && self.roster.policies.len() >= POLICIES_MAX {
            return Err(Rejection::TooMany("there are 16 escalation policies: no more are kept"));
        }
        let Findings { faults, .. } =
            self.roster.findings(&wanted.policy, wanted.is_active(), self.cx.configured, self.cx.now);
        if !faults.is_empty() {
            let fault = |finding: Finding| FieldFault { field: finding.field, rule: finding.what.rule() };
            return Err(Rejection::Invalid(faults.into_iter().map(fault).collect()));
        }
        let mut bands = wanted.bands;
        bands.sort_unstable();
        bands.dedup();
        let of_version = |version| Arc::new(Policy { version, ..(*wanted.policy).clone() });
        let is_same =
            |before: &RosterPolicy| before.bands == bands && before.policy == of_version(before.policy.version);
        if before.as_ref().is_some_and(is_same) {
            return Ok(Outcome::Done);
        }
        let saved = RosterPolicy { policy: of_version(version), bands };
        self.take_bands(&saved);
        self.record(&SettingsDeed::PolicySaved { policy: &saved.policy, bands: &saved.bands });
        match place {
            Some(place) => self.roster.policies[place] = saved,
            None => self.roster.policies.push(saved),
        }
        self.refuse_too_large()?;
        Ok(Outcome::Done)
    }

    fn take_bands(&mut self, saved: &RosterPolicy) {
        for place in 0..self.roster.policies.len() {
            let mut other = self.roster.policies[place].clone();
            let is_other = other.policy.id != saved.policy.id;
            if !is_other || !other.bands.iter().any(|band| saved.bands.contains(band)) {
                continue;
            }
            other.bands.retain(|band| !saved.bands.contains(band));
            let version = other.policy.version.saturating_add(1);
            other.policy = Arc::new(Policy { version, ..(*other.policy).clone() });
            self.record(&SettingsDeed::PolicySaved { policy: &other.policy, bands: &other.bands });
            self.roster.policies[place] = other;
        }
    }

    /// Takes a policy away. Cases that run on it keep it; its bands go to the configuration's ladder.
    pub(super) fn remove_policy(&mut self, id: &PolicyId, from_version: u32) -> Result<Outcome, Rejection> {
        let known = self.roster.policies.iter().position(|known| known.policy.id == *id);
        let place = known.ok_or(Rejection::NoSuchPolicy)?;
        if self.roster.policies[place].policy.version != from_version {
            return Err(Rejection::Outdated);
        }
        self.record(&SettingsDeed::PolicyRemoved { policy: id, version: from_version });
        self.roster.policies.remove(place);
        self.version_goes(from_version);
        Ok(Outcome::Removed)
    }

    /// Refuses what takes away somebody, or a schedule, that an active policy cannot do without.
    pub(super) fn refuse_new_faults(&self, before: &Roster, refusal: Rejection) -> Result<(), Rejection> {
        let faults = |roster: &Roster| -> BTreeSet<(PolicyId, String, &'static str)> {
            let active = roster.policies.iter().filter(|policy| policy.is_active());
            let of_policy = |policy: &RosterPolicy| {
                let found = roster.findings(&policy.policy, true, self.cx.configured, self.cx.now).faults;
                let id = policy.policy.id.clone();
                found.into_iter().map(move |finding| (id.clone(), finding.field, finding.what.rule()))
            };
            active.flat_map(of_policy).collect()
        };
        if faults(&self.roster).is_subset(&faults(before)) { Ok(()) } else { Err(refusal) }
    }
}
