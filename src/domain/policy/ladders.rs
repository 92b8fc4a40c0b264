//! Which ladder a case takes, by how grave it is.

use std::sync::Arc;

use super::Policy;
use crate::domain::event::Score;
use crate::domain::message::{BandThresholds, UrgencyBand};

/// One policy for each band of urgency. Two bands may share one.
#[derive(Debug, Clone)]
pub struct Ladders {
    thresholds: BandThresholds,
    elevated: Arc<Policy>,
    high: Arc<Policy>,
    critical: Arc<Policy>,
}

impl Ladders {
    /// The same policy for every band.
    pub fn one(policy: &Arc<Policy>, thresholds: BandThresholds) -> Self {
        Self::by_band(thresholds, |_| Arc::clone(policy))
    }

    /// The policies that `of` names.
    pub fn by_band(thresholds: BandThresholds, of: impl Fn(UrgencyBand) -> Arc<Policy>) -> Self {
        let [elevated, high, critical] = UrgencyBand::ALL.map(of);
        Self { thresholds, elevated, high, critical }
    }

    /// Every policy that a case may take, each once.
    pub fn in_use(&self) -> Vec<&Policy> {
        let mut policies: Vec<&Policy> = Vec::new();
        for band in UrgencyBand::ALL {
            let policy = self.of(band);
            if !policies.iter().any(|known| known.id == policy.id) {
                policies.push(policy);
            }
        }
        policies
    }

    /// The band that a severity belongs to. A case that a person raised is in the gravest.
    pub fn band(&self, severity: Score) -> UrgencyBand {
        UrgencyBand::of(severity.value(), self.thresholds)
    }

    /// The policy of a band.
    pub const fn of(&self, band: UrgencyBand) -> &Arc<Policy> {
        match band {
            UrgencyBand::Elevated => &self.elevated,
            UrgencyBand::High => &self.high,
            UrgencyBand::Critical => &self.critical,
        }
    }

    /// The mildest score that opens a case of a band; `None`: as grave as one that a person raised, which is what the gravest
    /// band is tried with, and any that no score above the threshold is in.
    pub fn drilled(&self, band: UrgencyBand, threshold: Score) -> Option<Score> {
        let begins = match band {
            UrgencyBand::Elevated => 0.0,
            UrgencyBand::High => self.thresholds.high(),
            UrgencyBand::Critical => return None,
        };
        Score::new(begins.max(threshold.value())).filter(|score| self.band(*score) == band)
    }

    /// The policy that a case of this severity is opened on.
    pub fn opening(&self, severity: Score) -> &Arc<Policy> {
        self.of(self.band(severity))
    }

    /// The policy that a case goes on with, from `standing` on, when its severity rises from one to another: that of the
    /// graver band, if it has one of its own. A case that stays in its band keeps the policy as it was opened on, however
    /// that has been changed since.
    pub fn after_rise(&self, standing: &Arc<Policy>, from: Score, to: Score) -> Arc<Policy> {
        let graver = self.of(self.band(to));
        let moves = self.band(to) > self.band(from) && graver.id != standing.id;
        Arc::clone(if moves { graver } else { standing })
    }
}
