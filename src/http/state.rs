//! What handlers share.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use url::Url;

use super::auth::{Authenticator, Principal, PrincipalKind, Role};
use super::problem::Problem;
use super::rate_limit::RateLimiter;
use crate::alarm::Alarms;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::health::Health;
use crate::secret::Secret;
use crate::service::Service;
use crate::service::caller::{Caller, Deadline};
use crate::twilio::callback::Party;
use crate::watchman::Watchman;
use crate::worker::Worker;

/// Bounds on what a request may carry, from the configuration.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// Longest message, in characters.
    pub message_chars_max: usize,
    /// Longest metadata, in bytes of JSON.
    pub metadata_bytes_max: usize,
    /// Most metadata fields.
    pub metadata_keys_max: usize,
    /// How far `occurred_at` may lie in the future.
    pub occurred_at_future_max: Duration,
    /// How far `occurred_at` may lie in the past.
    pub occurred_at_past_max: Duration,
}

/// What webhooks are checked against.
#[derive(Debug, Clone)]
pub struct WebhookTrust {
    /// The account whose callbacks are taken.
    pub account_sid: String,
    /// The tokens that may have signed them; two while a token is being replaced.
    pub auth_tokens: Vec<Secret>,
    /// The service's public base URL: signatures are reckoned over it, never over a `Host` header.
    pub public_base: Url,
    /// Our senders, which replies come to. Empty where a messaging service chooses them: then replies to any number of
    /// the account are taken.
    pub senders: Vec<(Channel, PhoneNumber)>,
}

impl WebhookTrust {
    /// The public URL of a request, as Twilio signed it: the base, the path and the raw query.
    pub fn public_url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.public_base.as_str().trim_end_matches('/'))
    }

    /// Whether a message to this party is to one of our senders, as far as they are known.
    pub fn is_sender(&self, channel: Channel, to: &Party) -> bool {
        let ours = |(over, number): &(Channel, PhoneNumber)| {
            *over == channel && matches!(to, Party::Number(to) if to == number)
        };
        self.senders.is_empty() || self.senders.iter().any(ours)
    }
}

/// Shared by every handler; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub service: Arc<Service>,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// How often.
    pub limiter: Arc<RateLimiter>,
    /// What a request may carry.
    pub limits: Arc<RequestLimits>,
    /// What webhooks are checked against.
    pub webhooks: Arc<WebhookTrust>,
    /// Whether the service can do its work.
    pub health: Arc<Health>,
    /// Does what is due.
    pub worker: Arc<Worker>,
    /// Looks whether work is being done.
    pub watchman: Arc<Watchman>,
    /// What the operator must hear of.
    pub alarms: Arc<Alarms>,
}

impl FromRef<AppState> for Arc<Authenticator> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.authenticator)
    }
}

impl FromRef<AppState> for Arc<RateLimiter> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.limiter)
    }
}

/// Until when the request is waited for, as [`manners`](super::manners) bounds it. Handlers that change something on a
/// person's or a backend's word hand it on with the caller. Events do not: a late one is better than none.
#[derive(Debug, Clone, Copy)]
pub struct WaitedFor(pub Option<Deadline>);

impl<S: Sync> FromRequestParts<S> for WaitedFor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Deadline>().copied()))
    }
}

/// The caller, in the most privileged of `roles` that they have.
///
/// # Errors
/// 403, naming the roles that would do.
pub fn caller(principal: Principal, roles: &[Role]) -> Result<Caller, Problem> {
    principal.require(roles)?;
    let held = roles.iter().copied().filter(|role| principal.roles.contains(role));
    let role = held.max_by_key(|role| privilege(*role)).map_or("none", Role::word);
    Ok(Caller {
        organisation: principal.organisation,
        id: principal.id,
        role,
        is_person: matches!(principal.kind, PrincipalKind::Person),
        deadline: None,
    })
}

/// Who has several roles acts in the one that may do most, or would be refused what they are allowed.
fn privilege(role: Role) -> u8 {
    match role {
        Role::Service => 0,
        Role::Auditor => 1,
        Role::Counsellor => 2,
        Role::Admin => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_several_roles_acts_in_the_one_that_may_do_most() {
        let person = |roles: &[Role]| Principal {
            id: "ada".to_owned(),
            organisation: "north".parse().unwrap(),
            roles: roles.to_vec(),
            kind: PrincipalKind::Person,
        };
        let all = [Role::Counsellor, Role::Admin, Role::Auditor];
        let role = |held: &[Role], asked: &[Role]| caller(person(held), asked).map(|caller| caller.role).ok();
        assert_eq!(role(&[Role::Counsellor, Role::Admin], &[Role::Counsellor, Role::Admin]), Some("admin"));
        assert_eq!(role(&[Role::Counsellor, Role::Auditor], &all), Some("counsellor"));
        // Not beyond what was asked for.
        assert_eq!(role(&all, &[Role::Auditor]), Some("auditor"));
        assert_eq!(role(&[Role::Counsellor], &[Role::Admin]), None);
    }
}
