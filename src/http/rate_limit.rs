//! How often a caller may ask: a token bucket per principal, per client address for failed logins, and per address for
//! webhooks whose signature does not hold.
//!
//! Memory is bounded: callers are hashed, under a key drawn at start, into a fixed number of buckets. Two callers in one
//! bucket share it, which with 65536 buckets is rare and can be neither aimed at nor kept up over a restart. Idle buckets
//! are dropped from time to time.
//!
//! Buckets are filled by governor's own monotonic clock, which does not leave this module: limits are about the pace of
//! the machine, not about the time that alerts live in.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use governor::clock::{Clock as PaceClock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

use super::auth::{Principal, PrincipalKind};
use super::problem::{Problem, ProblemCode, whole_seconds};

/// Number of buckets per limit.
const BUCKETS: u64 = 1 << 16;

/// Idle buckets are dropped every so many checks.
const SWEEP_INTERVAL: u32 = 1 << 14;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Requests per second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a rest.
    pub burst: NonZeroU32,
}

impl Limit {
    /// A limit; a zero counts as one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// All limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// For each API key.
    pub service: Limit,
    /// For each person.
    pub person: Limit,
    /// For each address that webhooks without a right signature come from.
    pub webhook: Limit,
    /// For wrong credentials from one address.
    pub failure: Limit,
}

impl Default for RateLimits {
    /// Roomy enough that nobody honest meets them: a campus in uproar posts through one key.
    fn default() -> Self {
        Self {
            service: Limit::new(500, 2_000),
            person: Limit::new(20, 60),
            webhook: Limit::new(500, 2_000),
            failure: Limit::new(1, 20),
        }
    }
}

/// Holds callers to their limits.
#[derive(Debug)]
pub struct RateLimiter<C: PaceClock = DefaultClock> {
    service: Buckets<C>,
    person: Buckets<C>,
    webhook: Buckets<C>,
    failure: Buckets<C>,
}

impl RateLimiter {
    /// A limiter whose buckets are all full.
    pub fn new(limits: RateLimits) -> Self {
        Self::with_clock(limits, &DefaultClock::default())
    }
}

impl<C: PaceClock + Clone> RateLimiter<C> {
    fn with_clock(limits: RateLimits, clock: &C) -> Self {
        let buckets = |limit| Buckets::new(limit, clock.clone());
        Self {
            service: buckets(limits.service),
            person: buckets(limits.person),
            webhook: buckets(limits.webhook),
            failure: buckets(limits.failure),
        }
    }

    /// Counts a request of a principal.
    ///
    /// # Errors
    /// 429 with `Retry-After` and the `RateLimit` headers.
    pub fn check_principal(&self, principal: &Principal) -> Result<(), Problem> {
        let buckets = match principal.kind {
            PrincipalKind::Machine => &self.service,
            PrincipalKind::Person => &self.person,
        };
        buckets.check(&(&principal.organisation, &principal.id))
    }

    /// Counts a webhook call whose signature does not hold, from an address. All callers without a known address share a bucket.
    ///
    /// # Errors
    /// As [`RateLimiter::check_principal`].
    pub fn check_webhook(&self, client: Option<IpAddr>) -> Result<(), Problem> {
        self.webhook.check(&client.map(network))
    }

    /// Counts a failed login from an address.
    ///
    /// # Errors
    /// As [`RateLimiter::check_principal`].
    pub fn check_failure(&self, client: Option<IpAddr>) -> Result<(), Problem> {
        self.failure.check(&client.map(network))
    }
}

/// Who an address stands for: one IPv4 address, or the /64 network that one IPv6 customer has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

struct Buckets<C: PaceClock> {
    limit: Limit,
    hasher: RandomState,
    governor: Governor<u64, DashMapStateStore<u64>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    checks: AtomicU32,
}

impl<C: PaceClock> std::fmt::Debug for Buckets<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<C: PaceClock + Clone> Buckets<C> {
    fn new(limit: Limit, clock: C) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        Self {
            limit,
            hasher: RandomState::new(),
            governor: Governor::dashmap_with_clock(quota, clock.clone()),
            clock,
            checks: AtomicU32::new(1),
        }
    }

    fn check(&self, caller: &impl Hash) -> Result<(), Problem> {
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_INTERVAL) {
            self.governor.retain_recent();
        }
        let bucket = self.hasher.hash_one(caller) % BUCKETS;
        self.governor.check_key(&bucket).map_err(|not_until| self.refuse(not_until.wait_time_from(self.clock.now())))
    }

    /// 429. The headers are those of the IETF draft on rate limit headers, in the form that clients know best.
    fn refuse(&self, wait: Duration) -> Problem {
        Problem::new(ProblemCode::RateLimited)
            .with_retry_after(wait)
            .with_header(HeaderName::from_static("ratelimit-limit"), HeaderValue::from(self.limit.burst.get()))
            .with_header(HeaderName::from_static("ratelimit-remaining"), HeaderValue::from(0))
            .with_header(HeaderName::from_static("ratelimit-reset"), HeaderValue::from(whole_seconds(wait)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header;
    use axum::response::IntoResponse;
    use governor::clock::FakeRelativeClock;

    use crate::http::auth::Role;

    fn principal(id: &str, kind: PrincipalKind) -> Principal {
        Principal { id: id.into(), organisation: "north".parse().unwrap(), roles: vec![Role::Service], kind }
    }

    fn limiter(clock: &FakeRelativeClock) -> RateLimiter<FakeRelativeClock> {
        let limits = RateLimits {
            service: Limit::new(2, 3),
            person: Limit::new(1, 1),
            webhook: Limit::new(1, 1),
            failure: Limit::new(1, 2),
        };
        RateLimiter::with_clock(limits, clock)
    }

    #[test]
    fn a_burst_passes_then_the_pace_holds() {
        let clock = FakeRelativeClock::default();
        let limiter = limiter(&clock);
        let machine = principal("a", PrincipalKind::Machine);
        for _ in 0..3 {
            assert_eq!(limiter.check_principal(&machine), Ok(()));
        }
        let problem = limiter.check_principal(&machine).unwrap_err();
        assert_eq!(problem.code(), ProblemCode::RateLimited);
        let response = problem.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()["ratelimit-limit"], "3");
        assert_eq!(response.headers()["ratelimit-remaining"], "0");
        assert_eq!(response.headers()["ratelimit-reset"], "1");
        clock.advance(Duration::from_millis(500));
        assert_eq!(limiter.check_principal(&machine), Ok(()));
        assert!(limiter.check_principal(&machine).is_err());
    }

    #[test]
    fn one_callers_haste_is_not_anothers() {
        let limiter = limiter(&FakeRelativeClock::default());
        // Two of these fall into one bucket once in thousands of runs; ten cannot all do so.
        let people: Vec<_> = (0..10).map(|n| principal(&n.to_string(), PrincipalKind::Person)).collect();
        let passed = people.iter().filter(|person| limiter.check_principal(person).is_ok()).count();
        assert!(passed >= 8, "{passed}");
        assert!(people.iter().all(|person| limiter.check_principal(person).is_err()));
        assert!(limiter.check_principal(&principal("0", PrincipalKind::Machine)).is_ok());
    }

    #[test]
    fn one_ipv6_customer_is_one_caller() {
        let limiter = limiter(&FakeRelativeClock::default());
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert!(limiter.check_webhook(address("2001:db8::1")).is_ok());
        assert!(limiter.check_webhook(address("2001:db8::ffff")).is_err());
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn failures_without_an_address_are_limited_too() {
        let limiter = limiter(&FakeRelativeClock::default());
        assert!(limiter.check_failure(None).is_ok());
        assert!(limiter.check_failure(None).is_ok());
        assert!(limiter.check_failure(None).is_err());
    }

    #[test]
    fn memory_is_bounded_and_idle_callers_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let buckets = Buckets::new(Limit::new(1, 1), clock.clone());
        for caller in 0..2 * BUCKETS {
            let _ = buckets.check(&caller);
        }
        assert!(buckets.governor.len() as u64 <= BUCKETS);
        clock.advance(Duration::from_secs(60));
        for _ in 0..SWEEP_INTERVAL {
            let _ = buckets.check(&0);
        }
        assert!(buckets.governor.len() <= 2, "{}", buckets.governor.len());
    }
}
