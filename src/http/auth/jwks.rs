//! An identity provider's published keys (JWKS, RFC 7517), fetched when needed and kept.
//!
//! - Keys are fetched on first use, when they are older than their maximum age, and when a token names a key that is
//!   not among them (the provider has rotated) — but for that reason at most once a minute, or strangers could make this
//!   service hammer the provider by inventing key ids.
//! - One request fetches; others that can do without go on with the keys at hand.
//! - When the provider cannot be reached the old keys stay in use: people must be able to take an alert while the
//!   identity provider is down. The next try is due after five seconds.
//! - Only keys for signatures are kept, of at most 64, and no answer above 256 KiB is read.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::redirect;
use tokio::sync::{Mutex, MutexGuard};
use url::{Host, Url};

use super::AuthError;
use super::jwt::InvalidJwtSettings;
use crate::ports::Clock;

/// Shortest time between two fetches for the sake of an unknown key id.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// How long a failed fetch is let rest.
pub(super) const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes.
const BODY_LENGTH_MAX: usize = 256 * 1024;

/// Most keys that are kept.
const KEYS_MAX: usize = 64;

/// The algorithms that published keys may be used with. `none` and the symmetric ones are not among them: a public key
/// must never be taken for a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwksAlgorithm {
    /// RSA with PKCS #1 v1.5 padding: Firebase, Google, most OpenID providers.
    Rs256,
    /// RSA with PSS padding.
    Ps256,
    /// ECDSA on P-256.
    Es256,
}

impl From<JwksAlgorithm> for Algorithm {
    fn from(algorithm: JwksAlgorithm) -> Self {
        match algorithm {
            JwksAlgorithm::Rs256 => Self::RS256,
            JwksAlgorithm::Ps256 => Self::PS256,
            JwksAlgorithm::Es256 => Self::ES256,
        }
    }
}

/// Where keys are published, and how they are used.
#[derive(Debug, Clone)]
pub struct JwksSettings {
    /// The address of the key set: `https`, or `http` on this machine.
    pub url: Url,
    /// What tokens may be signed with.
    pub algorithms: Vec<JwksAlgorithm>,
    /// Age from which keys are fetched anew.
    pub age_max: Duration,
    /// How long one fetch may take, from connecting to the last byte.
    pub fetch_timeout: Duration,
}

impl JwksSettings {
    /// Settings for any of the algorithms, keys kept for ten minutes, three seconds for a fetch.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            algorithms: vec![JwksAlgorithm::Rs256, JwksAlgorithm::Ps256, JwksAlgorithm::Es256],
            age_max: Duration::from_secs(600),
            fetch_timeout: Duration::from_secs(3),
        }
    }
}

/// One key, and what it may be used with.
struct PublishedKey {
    kid: Option<String>,
    algorithms: Vec<JwksAlgorithm>,
    key: Arc<DecodingKey>,
}

/// What one fetch brought.
struct KeySet {
    keys: Vec<PublishedKey>,
    fetched_at: Timestamp,
}

/// The last try to fetch.
#[derive(Clone, Copy)]
struct Attempt {
    at: Timestamp,
    succeeded: bool,
}

/// The cache of one provider's keys.
pub(super) struct Jwks {
    settings: JwksSettings,
    client: reqwest::Client,
    current: ArcSwapOption<KeySet>,
    /// Held while fetching.
    last_attempt: Mutex<Option<Attempt>>,
}

impl Jwks {
    pub(super) fn new(settings: JwksSettings) -> Result<Self, InvalidJwtSettings> {
        if settings.algorithms.is_empty() {
            return Err(InvalidJwtSettings::NoAlgorithm);
        }
        if settings.url.scheme() != "https" && !is_loopback(&settings.url) {
            return Err(InvalidJwtSettings::InsecureJwks);
        }
        let client = reqwest::Client::builder()
            .timeout(settings.fetch_timeout)
            // A redirect could lead to where the rule about https does not hold.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|_| InvalidJwtSettings::HttpClient)?;
        Ok(Self { settings, client, current: ArcSwapOption::empty(), last_attempt: Mutex::new(None) })
    }

    /// The algorithm a token asks for, if configuration allows it.
    pub(super) fn allowed(&self, algorithm: Algorithm) -> Option<JwksAlgorithm> {
        self.settings.algorithms.iter().copied().find(|allowed| Algorithm::from(*allowed) == algorithm)
    }

    /// The key for a token. Fetches if it must.
    pub(super) async fn key(
        &self,
        kid: Option<&str>,
        algorithm: JwksAlgorithm,
        clock: &dyn Clock,
    ) -> Result<Arc<DecodingKey>, AuthError> {
        let current = self.current.load_full();
        let at_hand = current.as_deref().and_then(|set| set.find(kid, algorithm));
        let is_fresh = current.as_deref().is_some_and(|set| !self.is_stale(set, clock.now()));
        match (at_hand, is_fresh) {
            (Some(key), true) => Ok(key),
            (Some(key), false) => {
                // Whoever comes first fetches; everybody else goes on with what there is.
                let Ok(last_attempt) = self.last_attempt.try_lock() else { return Ok(key) };
                self.refresh(last_attempt, clock).await;
                let renewed = self.current.load_full();
                // After a failed fetch this is the old set, with the key still in it.
                renewed.as_deref().and_then(|set| set.find(kid, algorithm)).ok_or(AuthError::Invalid)
            }
            (None, _) => {
                let last_attempt = self.last_attempt.lock().await;
                let reached = self.refresh(last_attempt, clock).await;
                let renewed = self.current.load_full();
                match renewed.as_deref().and_then(|set| set.find(kid, algorithm)) {
                    Some(key) => Ok(key),
                    // The key may be new, and the provider out of reach: that is not the caller's fault.
                    None if !reached => Err(AuthError::KeysUnavailable),
                    None => Err(AuthError::Invalid),
                }
            }
        }
    }

    fn is_stale(&self, set: &KeySet, now: Timestamp) -> bool {
        // A clock that was set back makes an age negative: then nothing is known about it.
        Duration::try_from(now.duration_since(set.fetched_at)).map_or(true, |age| age >= self.settings.age_max)
    }

    /// Fetches, unless that was tried a moment ago. Says whether the last fetch succeeded.
    async fn refresh(&self, mut last_attempt: MutexGuard<'_, Option<Attempt>>, clock: &dyn Clock) -> bool {
        let now = clock.now();
        if let Some(Attempt { at, succeeded }) = *last_attempt {
            let rest = if succeeded { REFRESH_INTERVAL_MIN.min(self.settings.age_max) } else { RETRY_AFTER_FAILURE };
            if Duration::try_from(now.duration_since(at)).is_ok_and(|since| since < rest) {
                return succeeded;
            }
        }
        // Counts as failed until it has succeeded: a caller that goes away drops the fetch half done.
        *last_attempt = Some(Attempt { at: now, succeeded: false });
        match self.fetch().await {
            Ok(keys) => {
                self.current.store(Some(Arc::new(KeySet { keys, fetched_at: now })));
                *last_attempt = Some(Attempt { at: now, succeeded: true });
                true
            }
            Err(reason) => {
                tracing::warn!(reason, "the identity provider's keys could not be fetched; older ones stay in use");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<PublishedKey>, &'static str> {
        let answer = self.client.get(self.settings.url.clone()).send().await;
        let mut answer = answer.map_err(|error| if error.is_timeout() { "too slow" } else { "not reachable" })?;
        if !answer.status().is_success() {
            return Err("an error status");
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| "the answer broke off")? {
            if body.len() + chunk.len() > BODY_LENGTH_MAX {
                return Err("the answer is too long");
            }
            body.extend_from_slice(&chunk);
        }
        parse(&body)
    }
}

impl KeySet {
    /// The key of that id; without an id, the only key that fits.
    fn find(&self, kid: Option<&str>, algorithm: JwksAlgorithm) -> Option<Arc<DecodingKey>> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        let found = match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only),
                _ => None,
            },
        };
        found.map(|found| Arc::clone(&found.key))
    }
}

fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

/// The usable keys of a key set. Kinds that are not known here are passed over, as RFC 7517, section 5 asks.
fn parse(body: &[u8]) -> Result<Vec<PublishedKey>, &'static str> {
    #[derive(serde::Deserialize)]
    struct Document {
        keys: Vec<serde_json::Value>,
    }
    let document: Document = serde_json::from_slice(body).map_err(|_| "not a key set")?;
    let keys: Vec<_> = document
        .keys
        .into_iter()
        .filter_map(|value| serde_json::from_value::<Jwk>(value).ok())
        .filter_map(|jwk| usable(&jwk))
        .take(KEYS_MAX)
        .collect();
    // An empty set would lock everybody out; a provider that publishes one is broken, not rotating.
    if keys.is_empty() { Err("no usable key") } else { Ok(keys) }
}

fn usable(jwk: &Jwk) -> Option<PublishedKey> {
    let for_signatures = match &jwk.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => true,
        Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => false,
    };
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let by_kind: &[JwksAlgorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[JwksAlgorithm::Rs256, JwksAlgorithm::Ps256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[JwksAlgorithm::Es256],
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKey(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::Other(_)
        | _ => &[],
    };
    let named = jwk.common.key_algorithm;
    let fits =
        |algorithm: &JwksAlgorithm| named.is_none_or(|name| name == KeyAlgorithm::from(Algorithm::from(*algorithm)));
    let algorithms: Vec<_> = by_kind.iter().copied().filter(fits).collect();
    if !for_signatures || !verifies || algorithms.is_empty() {
        return None;
    }
    let key = Arc::new(DecodingKey::from_jwk(jwk).ok()?);
    Some(PublishedKey { kid: jwk.common.key_id.clone(), algorithms, key })
}
