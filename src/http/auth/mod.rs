//! Who is asking: machines by API key, people by JWT.
//!
//! [`Authenticator`] turns a request's headers into a [`Principal`] or an [`AuthError`]; the extractor
//! [`Authenticated`] does so for a handler, and holds the caller to the limits of [`rate_limit`](super::rate_limit). What a
//! principal may do is the handler's question: [`Principal::require`].

mod api_key;
mod extract;
mod jwks;
mod jwt;

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};

use super::problem::{Problem, ProblemCode};
use crate::domain::ids::OrganisationId;
use crate::ports::Clock;

pub use self::api_key::{ApiKeyHash, ApiKeyRecord, ApiKeys, InvalidApiKeys, NewApiKey, generate};
pub use self::extract::Authenticated;
pub use self::jwks::{JwksAlgorithm, JwksSettings};
use self::jwt::JwtVerifier;
pub use self::jwt::{InvalidJwtSettings, JwtKeySource, JwtSettings, SharedSecret};

/// The header for an API key, beside `Authorization: Bearer`.
pub const API_KEY_HEADER: &str = "x-api-key";

/// Longest credential that is looked at, in bytes.
const CREDENTIAL_LENGTH_MAX: usize = 8 * 1024;

/// What a principal may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A backend that posts events.
    Service,
    /// A person who answers alerts.
    Counsellor,
    /// A person who keeps contacts, policies, consent and templates.
    Admin,
    /// A person who reads the audit.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Service, Self::Counsellor, Self::Admin, Self::Auditor];

    /// The role as configuration, tokens and answers spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Counsellor => "counsellor",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }

    /// The role of that word, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Whether a program or a person is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A program: an API key.
    Machine,
    /// A person: a token.
    Person,
}

/// Who is asking, beyond doubt.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// The API key's id, or the token's subject. Personal in the latter case.
    pub id: String,
    /// The college that the caller belongs to, and whose things alone it may touch.
    pub organisation: OrganisationId,
    /// Sorted, each once. May be empty: known, and allowed nothing.
    pub roles: Vec<Role>,
    /// Program or person.
    pub kind: PrincipalKind,
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("id", &format_args!("…"))
            .field("organisation", &self.organisation)
            .field("roles", &self.roles)
            .field("kind", &self.kind)
            .finish()
    }
}

impl Principal {
    /// Whether the principal has one of `roles`.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        self.roles.iter().any(|role| roles.contains(role))
    }

    /// Lets a principal pass that has one of `roles`.
    ///
    /// # Errors
    /// 403, naming the roles that would do.
    pub fn require(&self, roles: &[Role]) -> Result<(), Problem> {
        if self.has_any(roles) {
            return Ok(());
        }
        let words: Vec<_> = roles.iter().map(|role| role.word()).collect();
        Err(Problem::new(ProblemCode::Forbidden).with_detail(format!("needs one of the roles: {}", words.join(", "))))
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials.
    #[error("no credentials")]
    Missing,
    /// Several credentials, or a header that cannot be one.
    #[error("unreadable or ambiguous credentials")]
    Malformed,
    /// Unknown key, or a token that is not valid here. Which of its parts is wrong is nobody's business.
    #[error("invalid credentials")]
    Invalid,
    /// Right, and run out.
    #[error("expired credentials")]
    Expired,
    /// A valid token that belongs to no organisation.
    #[error("a token without a usable organisation")]
    NoOrganisation,
    /// The keys that tokens are checked with cannot be fetched.
    #[error("the identity provider's keys cannot be fetched")]
    KeysUnavailable,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::new(ProblemCode::Unauthenticated)
                .with_detail("give an API key or a token: Authorization: Bearer …, or X-Api-Key"),
            AuthError::Malformed => {
                Self::new(ProblemCode::Unauthenticated).with_detail("give exactly one API key or token")
            }
            AuthError::Invalid => Self::new(ProblemCode::Unauthenticated),
            AuthError::Expired => Self::new(ProblemCode::TokenExpired),
            AuthError::NoOrganisation => {
                Self::new(ProblemCode::Forbidden).with_detail("the token names no organisation that is usable here")
            }
            AuthError::KeysUnavailable => Self::new(ProblemCode::Unavailable)
                .with_detail("tokens cannot be checked just now")
                .with_retry_after(jwks::RETRY_AFTER_FAILURE),
        }
    }
}

/// What the caller shows.
enum Credential<'h> {
    /// From `X-Api-Key`: cannot be a token.
    ApiKey(&'h str),
    /// From `Authorization`: either.
    Bearer(&'h str),
}

/// Knows the API keys and how to check tokens.
pub struct Authenticator {
    api_keys: ApiKeys,
    jwt: Option<JwtVerifier>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("api_keys", &self.api_keys.len())
            .field("tokens", &self.jwt.is_some())
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// An authenticator that takes these keys and, if `jwt` is given, tokens.
    ///
    /// # Errors
    /// Settings under which tokens could not be checked safely.
    pub fn new(api_keys: ApiKeys, jwt: Option<JwtSettings>, clock: Arc<dyn Clock>) -> Result<Self, InvalidJwtSettings> {
        let jwt = jwt.map(JwtVerifier::new).transpose()?;
        Ok(Self { api_keys, jwt, clock })
    }

    /// Who sent these headers.
    ///
    /// May fetch the identity provider's keys, within their time-out.
    ///
    /// # Errors
    /// Why nobody is let in; see [`AuthError`].
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let (text, may_be_token) = match credential(headers)? {
            Credential::ApiKey(text) => (text, false),
            Credential::Bearer(text) => (text, true),
        };
        let now = self.clock.now();
        match (self.api_keys.find(text, now), &self.jwt) {
            (Err(AuthError::Invalid), Some(jwt)) if may_be_token && looks_like_jwt(text) => {
                jwt.verify(text, self.clock.as_ref()).await
            }
            (found, _) => found,
        }
    }
}

/// Three parts with dots between them; no API key that [`generate`] makes has a dot.
fn looks_like_jwt(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The one credential in `headers`. Two are refused: a proxy and this service might each choose another.
fn credential(headers: &HeaderMap) -> Result<Credential<'_>, AuthError> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let mut api_keys = headers.get_all(API_KEY_HEADER).iter();
    match (authorizations.next(), authorizations.next(), api_keys.next(), api_keys.next()) {
        (None, None, None, None) => Err(AuthError::Missing),
        (Some(value), None, None, None) => {
            let value = bounded(value)?;
            let (scheme, token) = value.split_once(' ').ok_or(AuthError::Malformed)?;
            let token = token.trim_matches(' ');
            if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
                return Err(AuthError::Malformed);
            }
            Ok(Credential::Bearer(token))
        }
        (None, None, Some(value), None) => bounded(value).map(Credential::ApiKey),
        _ => Err(AuthError::Malformed),
    }
}

fn bounded(value: &axum::http::HeaderValue) -> Result<&str, AuthError> {
    let text = value.to_str().map_err(|_| AuthError::Malformed)?;
    if text.len() <= CREDENTIAL_LENGTH_MAX { Ok(text) } else { Err(AuthError::Malformed) }
}

#[cfg(test)]
mod tests;
