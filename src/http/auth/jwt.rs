//! People's tokens: JWTs (RFC 7519), signed by an identity provider or, in development, with a shared secret.
//!
//! The algorithm is chosen by configuration, never by the token (RFC 8725, section 3.1): a token names one, and is
//! refused unless configuration allows it and the key at hand is of its kind. Times are checked here and not by the
//! library, because the library reads the machine's clock.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::jwks::{Jwks, JwksSettings};
use super::{AuthError, Principal, PrincipalKind, Role};
use crate::domain::ids::OrganisationId;
use crate::ports::Clock;

/// How far the identity provider's clock may be from ours, unless the settings say otherwise.
const LEEWAY: Duration = Duration::from_secs(60);

/// Shortest shared secret, in bytes: as long as the hash's output (RFC 7518, section 3.2).
const SHARED_SECRET_LENGTH_MIN: usize = 32;

/// Longest subject, in characters.
const SUBJECT_LENGTH_MAX: usize = 255;

/// How tokens are checked and read.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// What `iss` must be, to the letter.
    pub issuer: String,
    /// One of these must be among `aud`.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub keys: JwtKeySource,
    /// The claim with the roles: its name, or a path such as `realm_access.roles`. An array of words, or one text with
    /// spaces. Words that are no roles of people are passed over, `service` among them.
    pub roles_claim: String,
    /// The claim with the organisation: its name, or a path.
    pub organisation_claim: String,
    /// The organisation of tokens without that claim; `None`: such tokens are refused. For development: elsewhere a
    /// provider that serves others too would let them in.
    pub default_organisation: Option<OrganisationId>,
    /// How far the identity provider's clock may be from ours.
    pub leeway: Duration,
}

impl JwtSettings {
    /// Settings with the usual claims: `roles` and `org`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>, keys: JwtKeySource) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            keys,
            roles_claim: "roles".to_owned(),
            organisation_claim: "org".to_owned(),
            default_organisation: None,
            leeway: LEEWAY,
        }
    }
}

/// Where the keys that check tokens come from.
#[derive(Debug, Clone)]
pub enum JwtKeySource {
    /// HS256 with a secret that issuer and service share: for development.
    SharedSecret(SharedSecret),
    /// The identity provider's published keys.
    Jwks(JwksSettings),
}

/// A shared secret; wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct SharedSecret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(…)")
    }
}

/// Why tokens cannot be checked under the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJwtSettings {
    /// Any issuer's token would do.
    #[error("the issuer must be given")]
    NoIssuer,
    /// A token made for another service would do.
    #[error("an audience must be given")]
    NoAudience,
    /// A short secret can be guessed from one token.
    #[error("the shared secret must have at least {SHARED_SECRET_LENGTH_MIN} bytes")]
    ShortSecret,
    /// No token could ever pass.
    #[error("at least one algorithm must be allowed")]
    NoAlgorithm,
    /// Whoever sits on the way could put their own keys in.
    #[error("the JWKS address must be https, unless it is this machine's own")]
    InsecureJwks,
    /// The HTTP client could not be made.
    #[error("the HTTP client for the JWKS cannot be made")]
    HttpClient,
}

enum Keys {
    Shared(DecodingKey),
    Published(Jwks),
}

/// Checks tokens.
pub(super) struct JwtVerifier {
    issuer: String,
    audiences: Vec<String>,
    keys: Keys,
    roles_claim: String,
    organisation_claim: String,
    default_organisation: Option<OrganisationId>,
    leeway: Duration,
}

impl JwtVerifier {
    pub(super) fn new(settings: JwtSettings) -> Result<Self, InvalidJwtSettings> {
        if settings.issuer.is_empty() {
            return Err(InvalidJwtSettings::NoIssuer);
        }
        if settings.audiences.is_empty() || settings.audiences.iter().any(String::is_empty) {
            return Err(InvalidJwtSettings::NoAudience);
        }
        let keys = match settings.keys {
            JwtKeySource::SharedSecret(secret) if secret.0.len() < SHARED_SECRET_LENGTH_MIN => {
                return Err(InvalidJwtSettings::ShortSecret);
            }
            JwtKeySource::SharedSecret(secret) => Keys::Shared(DecodingKey::from_secret(&secret.0)),
            JwtKeySource::Jwks(jwks) => Keys::Published(Jwks::new(jwks)?),
        };
        Ok(Self {
            issuer: settings.issuer,
            audiences: settings.audiences,
            keys,
            roles_claim: settings.roles_claim,
            organisation_claim: settings.organisation_claim,
            default_organisation: settings.default_organisation,
            leeway: settings.leeway,
        })
    }

    pub(super) async fn verify(&self, token: &str, clock: &dyn Clock) -> Result<Principal, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        if header.crit.is_some() {
            // It asks for extensions to be understood, and none is (RFC 7515, section 4.1.11).
            return Err(AuthError::Invalid);
        }
        let claims = match &self.keys {
            Keys::Shared(key) => self.decode(token, key, Algorithm::HS256)?,
            Keys::Published(jwks) => {
                // Only an allowed algorithm is worth asking the identity provider for.
                let allowed = jwks.allowed(header.alg).ok_or(AuthError::Invalid)?;
                let key = jwks.key(header.kid.as_deref(), allowed, clock).await?;
                self.decode(token, &key, allowed.into())?
            }
        };
        check_times(&claims, clock.now(), self.leeway)?;
        self.principal(&claims)
    }

    /// Checks signature, issuer, audience, and that the claims that must be there are.
    fn decode(&self, token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Map<String, Value>, AuthError> {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(std::slice::from_ref(&self.issuer));
        validation.set_audience(&self.audiences);
        validation.required_spec_claims =
            ["exp", "iss", "aud", "sub"].map(str::to_owned).into_iter().collect::<HashSet<_>>();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let decoded = jsonwebtoken::decode(token, key, &validation);
        decoded.map(|token| token.claims).map_err(|_| AuthError::Invalid)
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, AuthError> {
        let id = claims.get("sub").and_then(Value::as_str).ok_or(AuthError::Invalid)?;
        if id.is_empty() || id.chars().count() > SUBJECT_LENGTH_MAX || id.contains(char::is_control) {
            return Err(AuthError::Invalid);
        }
        let organisation = match lookup(claims, &self.organisation_claim) {
            Some(value) => value.as_str().and_then(|text| text.parse().ok()),
            None => self.default_organisation.clone(),
        };
        let roles = lookup(claims, &self.roles_claim).map(roles_in).unwrap_or_default();
        let organisation = organisation.ok_or(AuthError::NoOrganisation)?;
        Ok(Principal { id: id.to_owned(), organisation, roles, kind: PrincipalKind::Person })
    }
}

/// `exp`, `nbf` and `iat` against the clock, each with the leeway. All in seconds since 1970, maybe with a fraction.
fn check_times(claims: &Map<String, Value>, now: Timestamp, leeway: Duration) -> Result<(), AuthError> {
    let now = now.as_millisecond() as f64 / 1_000.0;
    let leeway = leeway.as_secs_f64();
    let time = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(AuthError::Invalid),
    };
    let expires = time("exp")?.ok_or(AuthError::Invalid)?;
    if now >= expires + leeway {
        return Err(AuthError::Expired);
    }
    for begins in [time("nbf")?, time("iat")?].into_iter().flatten() {
        if begins > now + leeway {
            return Err(AuthError::Invalid);
        }
    }
    Ok(())
}

/// The claim of that very name (names may have dots: `https://example.org/roles`), or the one at the end of the path.
fn lookup<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value).filter(|value| !value.is_null());
    }
    let mut steps = path.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step)).filter(|value| !value.is_null())
}

fn roles_in(value: &Value) -> Vec<Role> {
    let words: Vec<&str> = match value {
        Value::String(text) => text.split([' ', ',']).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    // Machines show API keys: a token's subject is a person, and as a service's name it would stand in the audit in clear.
    let of_people = |role: &Role| match role {
        Role::Service => false,
        Role::Counsellor | Role::Admin | Role::Auditor => true,
    };
    let mut roles: Vec<Role> = words.into_iter().filter_map(Role::from_word).filter(of_people).collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}
