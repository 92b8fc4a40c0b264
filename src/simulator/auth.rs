//! Who calls: HTTP Basic with the account's token or with an API key.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use super::config::SimulatorConfig;

/// What a caller proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// The account's own token.
    Account,
    /// An API key: refused on the account resource.
    Key,
}

/// The credentials that are good, as they appear in the header.
pub(super) struct Credentials(Vec<(String, Caller)>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.0.len())
    }
}

impl Credentials {
    pub(super) fn new(config: &SimulatorConfig) -> Self {
        let basic = |user: &str, password: &str| STANDARD.encode(format!("{user}:{password}"));
        let mut all = vec![(basic(&config.account_sid, config.auth_token.expose()), Caller::Account)];
        all.extend(config.api_keys.iter().map(|key| (basic(&key.sid, key.secret.expose()), Caller::Key)));
        Self(all)
    }

    /// Who calls; `None` if nobody that is known.
    pub(super) fn check(&self, headers: &HeaderMap) -> Option<Caller> {
        let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let good = |known: &str| bool::from(known.as_bytes().ct_eq(given.trim().as_bytes()));
        self.0.iter().find(|(known, _)| good(known)).map(|(_, caller)| *caller)
    }
}
