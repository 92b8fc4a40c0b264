//! The one source of chance of a schedule: the same seed draws the same.

use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::ports::{jitter, random};

/// Draws by a seed.
pub(crate) struct Chance(SeededEntropy);

impl Chance {
    /// `stream` keeps draws for different purposes apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(SeededEntropy::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) ^ stream))
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(u64::from_le_bytes(random(&self.0)) % bound).unwrap_or_default()
    }

    /// Whether something happens that has this probability.
    pub(crate) fn happens(&self, probability: f64) -> bool {
        jitter(&self.0) < probability
    }

    /// One of these.
    pub(crate) fn one_of<'a, T>(&self, those: &'a [T]) -> &'a T {
        &those[self.below(those.len())]
    }

    /// One of these, by their weights.
    pub(crate) fn weighted<T: Copy>(&self, those: &[(f64, T)]) -> T {
        let all: f64 = those.iter().map(|(weight, _)| weight).sum();
        let mut left = jitter(&self.0) * all;
        for (weight, one) in those {
            if left < *weight {
                return *one;
            }
            left -= weight;
        }
        those[0].1
    }

    /// A time span, to the millisecond.
    pub(crate) fn span(&self, from: Duration, to: Duration) -> Duration {
        let millis = |span: Duration| usize::try_from(span.as_millis()).unwrap_or(usize::MAX);
        let more = self.below(millis(to.saturating_sub(from)) + 1);
        from + Duration::from_millis(u64::try_from(more).unwrap_or_default())
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn share(&self) -> f64 {
        jitter(&self.0)
    }

    /// A seed for something else.
    pub(crate) fn seed(&self) -> u64 {
        u64::from_le_bytes(random(&self.0))
    }
}
