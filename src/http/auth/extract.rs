//! The extractor that handlers use.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::{AuthError, Authenticator, Principal};
use crate::http::manners::ClientIp;
use crate::http::problem::Problem;
use crate::http::rate_limit::RateLimiter;

/// The caller, known and within its limits.
///
/// Refuses with the problem of [`AuthError`], or 429 when the principal asks too often. Failed tries count against the
/// client's address; above the limit they too are answered 429. A right credential is never refused for its
/// neighbours' wrong ones: many clients may share one address, and an alert must not be lost because one of them guesses.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Principal);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    Arc<Authenticator>: FromRef<S>,
    Arc<RateLimiter>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let limiter = Arc::<RateLimiter>::from_ref(state);
        match Arc::<Authenticator>::from_ref(state).authenticate(&parts.headers).await {
            Ok(principal) => {
                limiter.check_principal(&principal)?;
                Ok(Self(principal))
            }
            Err(error) => {
                if counts_as_try(error) {
                    limiter.check_failure(parts.extensions.get::<ClientIp>().map(|ip| ip.0))?;
                }
                Err(error.into())
            }
        }
    }
}

/// Whether somebody may be guessing. Who shows nothing, or was right once, is not.
fn counts_as_try(error: AuthError) -> bool {
    match error {
        AuthError::Malformed | AuthError::Invalid => true,
        AuthError::Missing | AuthError::Expired | AuthError::NoOrganisation | AuthError::KeysUnavailable => false,
    }
}
