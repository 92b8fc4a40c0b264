//! The HTTP edge: what every request and every answer has in common, whatever it is about.
//!
//! | module | holds |
//! |---|---|
//! | [`problem`] | RFC 9457 problem documents: the one shape of every error answer |
//! | [`json`] | strict extractors for bodies, queries and paths |
//! | [`auth`] | who is asking: API keys and JWTs |
//! | [`rate_limit`] | how often they may |
//! | `queries` | refuses queries where none is read |
//! | [`manners`] | request ids, spans, time-outs, caught panics, security headers, fallbacks |
//! | [`serve`](mod@serve) | the listening socket: bounded connections, slow clients, graceful end |
//! | [`docs`] | the API's documentation page |
//!
//! | [`state`], [`api`], [`health`], [`tasks`], [`webhooks`] | the routes themselves, thin: parse, ask the service, answer |
//!
//! Apart from the last row, nothing in here knows what an alert is.

pub mod api;
pub mod auth;
pub mod docs;
pub mod etag;
pub mod health;
pub mod json;
pub mod manners;
pub mod problem;
mod queries;
pub mod rate_limit;
pub mod serve;
pub mod state;
pub mod tasks;
pub mod webhooks;

pub use serve::{ServeSettings, listen, serve};

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::manners::{MannersSettings, with_manners};
use self::state::AppState;
use crate::ports::{Clock, Entropy};

/// The description of the API; the paths are added by the routes themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "crisis-relay",
        description = "Crisis-alert escalation: a score becomes a message on a counsellor's phone, and nothing is lost on the way.",
        license(name = "MIT", identifier = "MIT"),
    ),
    components(schemas(problem::ProblemDocument)),
    modifiers(&SecuritySchemes),
    tags(
        (name = "crisis", description = "Scores from backends, and cases that people raise"),
        (name = "alerts", description = "The cases: look, take, close, override, audit"),
        (name = "drills", description = "Exercises: start one, and see how it went"),
        (name = "contacts", description = "The people that a college sets up, and the proof of their numbers"),
        (name = "consent", description = "What students have said"),
        (name = "policies", description = "Who is told when, and what would come of a case"),
        (name = "schedules", description = "Who is on call when, and whether somebody would be there"),
        (name = "webhooks", description = "Called by Twilio, signed"),
        (name = "operations", description = "Health, figures, and work by call"),
    ),
)]
struct ApiDescription;

struct SecuritySchemes;

impl utoipa::Modify for SecuritySchemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = api.components.get_or_insert_default();
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key")));
        components.add_security_scheme("api_key", key);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(ApiDescription::openapi())
        .merge(api::routes())
        .merge(webhooks::routes())
        .merge(health::routes())
        .merge(tasks::routes())
}

/// The OpenAPI description, as served at `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The whole application.
pub fn application(
    state: AppState,
    settings: &MannersSettings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Router {
    let (router, api) = routes().split_for_parts();
    let queries = queries::Unread::of(&api);
    let router = router.route_layer(from_fn(move |request: Request, next: Next| {
        queries::refuse_unread(queries.clone(), request, next)
    }));
    let router = router.with_state(state).merge(docs::router(api));
    with_manners(router, settings, clock, entropy)
}
