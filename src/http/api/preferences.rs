//! Consent: what a student has said about each channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::events::refuse_if_any;
use super::{check_user_id, to_its_end};
use crate::domain::consent::ConsentRecord;
use crate::domain::contact::Channel;
use crate::domain::event::Label;
use crate::http::auth::{Authenticated, Role};
use crate::http::json::{StrictJson, StrictPath, Validate};
use crate::http::problem::{BodyProblems, CommonProblems, FieldError, Problem};
use crate::http::state::{AppState, WaitedFor, caller};
use crate::service::consent::ConsentChange;

/// Who may record consent: the app that the student speaks to, and administrators.
pub(super) const RECORDERS: &[Role] = &[Role::Service, Role::Admin];
/// Who may see it.
pub(super) const READERS: &[Role] = &[Role::Service, Role::Counsellor, Role::Admin, Role::Auditor];

/// What a student says now. Channels that are left out keep their latest word.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PreferencesRequest {
    /// Whether a counsellor may be told over WhatsApp.
    whatsapp: Option<bool>,
    /// Whether a counsellor may be told by text message.
    sms: Option<bool>,
    /// Whether a counsellor may be told by phone call.
    voice: Option<bool>,
    /// Where it was said: 1 to 64 of `A-Z a-z 0-9 . _ : / + -`.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9._:/+-]{1,64}$", example = "app_settings")]
    source: Label,
    /// Which notice the student had read.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._:/+-]{1,64}$", example = "notice-2026-01")]
    notice_version: Option<Label>,
}

impl PreferencesRequest {
    fn channels(&self) -> Vec<(Channel, bool)> {
        [(Channel::Whatsapp, self.whatsapp), (Channel::Sms, self.sms), (Channel::Voice, self.voice)]
            .into_iter()
            .filter_map(|(channel, granted)| Some((channel, granted?)))
            .collect()
    }
}

impl Validate for PreferencesRequest {
    fn validate(&self) -> Vec<FieldError> {
        if self.channels().is_empty() {
            return vec![FieldError::new("whatsapp", "must be given, or sms, or voice: something must be said")];
        }
        Vec::new()
    }
}

/// The latest word on one channel.
#[derive(Serialize, utoipa::ToSchema)]
struct ChannelPreference {
    /// Whether a counsellor may be told over it.
    granted: bool,
    /// When that was said.
    #[schema(value_type = String, format = "date-time")]
    at: Timestamp,
    /// Where.
    #[schema(value_type = String)]
    source: Label,
    /// Which notice the student had read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    notice_version: Option<Label>,
}

/// All that a student has said.
#[derive(Serialize, utoipa::ToSchema)]
struct Preferences {
    /// Counts the changes; 0 if nothing was ever said, which is not a yes.
    version: u64,
    /// The channels that were spoken about.
    channels: BTreeMap<Channel, ChannelPreference>,
}

impl From<ConsentRecord> for Preferences {
    fn from(record: ConsentRecord) -> Self {
        let view = |consent: crate::domain::consent::ChannelConsent| ChannelPreference {
            granted: consent.granted,
            at: consent.at,
            source: consent.source,
            notice_version: consent.notice_version,
        };
        let channels = record.channels.into_iter().map(|(channel, consent)| (channel, view(consent))).collect();
        Self { version: record.version, channels }
    }
}

/// Records what a student says, with time and source.
#[utoipa::path(put, path = "/api/v1/messaging/preferences/{user_id}", tag = "consent", request_body = PreferencesRequest,
    params(("user_id" = String, Path, description = "the student, as the backend names them")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "recorded", body = Preferences), CommonProblems, BodyProblems))]
async fn put_preferences(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    WaitedFor(deadline): WaitedFor,
    StrictPath(user_id): StrictPath<String>,
    StrictJson { value, .. }: StrictJson<PreferencesRequest>,
) -> Result<Json<Preferences>, Problem> {
    let caller = caller(principal, RECORDERS)?.until(deadline);
    check_path_user_id(&user_id)?;
    let change =
        ConsentChange { channels: value.channels(), source: value.source, notice_version: value.notice_version };
    let service = Arc::clone(&state.service);
    let recording = async move { service.record_consent(&caller, &user_id, &change).await };
    let record = to_its_end(recording).await?;
    Ok(Json(record.into()))
}

/// Shows what a student has said.
#[utoipa::path(get, path = "/api/v1/messaging/preferences/{user_id}", tag = "consent",
    params(("user_id" = String, Path, description = "the student, as the backend names them")),
    security(("api_key" = []), ("bearer" = [])),
    responses((status = 200, description = "what was said; version 0 if nothing ever was", body = Preferences), CommonProblems))]
async fn get_preferences(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    StrictPath(user_id): StrictPath<String>,
) -> Result<Json<Preferences>, Problem> {
    let caller = caller(principal, READERS)?;
    check_path_user_id(&user_id)?;
    let record = state.service.consent(&caller, &user_id).await?;
    Ok(Json(record.map_or(Preferences { version: 0, channels: BTreeMap::new() }, Preferences::from)))
}

pub(super) fn check_path_user_id(user_id: &str) -> Result<(), Problem> {
    let mut errors = Vec::new();
    check_user_id(&mut errors, user_id);
    refuse_if_any(errors)
}

/// The routes of this room.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_preferences, put_preferences))
}
