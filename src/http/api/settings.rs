//! What was ever set up: the audit of contacts, schedules and policies.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::alerts::{AUDITING, AuditPage, AuditQuery};
use crate::domain::audit::AuditStream;
use crate::http::auth::Authenticated;
use crate::http::json::StrictQuery;
use crate::http::problem::{CommonProblems, Problem, QueryProblems};
use crate::http::state::{AppState, caller};

/// Reads the audit chain of what the college has set up: every version of its policies and schedules as a whole, and what
/// was done with its contacts. It holds ids and hashes, and nothing personal.
#[utoipa::path(get, path = "/api/v1/settings/audit", tag = "schedules", params(AuditQuery),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "a page of the chain", body = AuditPage), CommonProblems, QueryProblems))]
async fn get_settings_audit(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictQuery(query): StrictQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let caller = caller(principal, AUDITING)?;
    let (after, limit) = query.page();
    let entries = state.service.settings_audit(&caller, after, limit + 1).await?;
    let verified = state.service.prove_settings(&caller).await?.is_ok();
    let stream = AuditStream::Settings(caller.organisation.clone());
    Ok(Json(AuditPage::of(&stream, verified, entries, limit)))
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_settings_audit))
}
