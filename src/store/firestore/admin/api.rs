//! Google's two administration APIs over HTTP: Firestore's for indexes and fields, Firebase's for security rules.
//!
//! REST and not gRPC: a handful of calls at set-up, which a test can answer with a plain HTTP server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::wanted::{IndexField, QueryScope};
use crate::ports::Clock;

/// For a whole call. Google's own clients wait a minute for these.
const CALL_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Tries of one call where Google says that it is busy, and the pause before the first repetition; it doubles.
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Most pages of one list: far more indexes than a database may have.
const PAGES_MAX: usize = 50;

/// Why the database's set-up cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is nobody to be.
    #[error("there are no Google credentials that can be used: {0}")]
    NoCredentials(String),
    /// Credentials that do not suffice.
    #[error("these credentials may not {what}: {message}")]
    Denied {
        /// What was asked for.
        what: &'static str,
        /// Google's words.
        message: String,
    },
    /// The project, or the database in it, is not there.
    #[error("there is no such project or database: {0}")]
    NotFound(String),
    /// Google says no.
    #[error("Google refuses to {what} ({status}): {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: StatusCode,
        /// Google's words.
        message: String,
    },
    /// No answer.
    #[error("Google cannot be reached to {what}: {source}")]
    Unreachable {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// An answer that is none.
    #[error("Google's answer to the wish to {what} cannot be read: {detail}")]
    Garbled {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl AdminError {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoCredentials(_) => {
                "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS."
            }
            Self::Denied { .. } => {
                "Use credentials with roles/datastore.indexAdmin and roles/firebaserules.admin (docs/deploy.md). The \
                 service's own account has neither, and shall not."
            }
            Self::NotFound(_) => {
                "Look at FIRESTORE_PROJECT_ID and the database's id; the database is made as docs/deploy.md says."
            }
            Self::Refused { .. } | Self::Garbled { .. } => "See docs/deploy.md.",
            Self::Unreachable { .. } => "Look at the network, and run it again.",
        }
    }
}

/// The headers that show Google who calls.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Fresh ones.
    ///
    /// # Errors
    /// [`AdminError::NoCredentials`].
    async fn headers(&self) -> Result<HeaderMap, AdminError>;
}

/// Where the APIs are.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// Firestore's.
    pub firestore: Url,
    /// Firebase's, for rules.
    pub rules: Url,
}

impl Endpoints {
    /// Google's own.
    #[expect(clippy::expect_used, reason = "two addresses that are written here")]
    pub fn google() -> Self {
        let url = |text| Url::parse(text).expect("an address");
        Self {
            firestore: url("https://firestore.googleapis.com/"),
            rules: url("https://firebaserules.googleapis.com/"),
        }
    }
}

/// Calls one API. Busy answers are waited out; everything else is the caller's.
pub(super) struct Api {
    client: reqwest::Client,
    credentials: Arc<dyn Credentials>,
    clock: Arc<dyn Clock>,
}

impl Api {
    pub(super) fn new(credentials: Arc<dyn Credentials>, clock: Arc<dyn Clock>) -> Result<Self, AdminError> {
        let client = reqwest::Client::builder()
            .timeout(CALL_WITHIN)
            .connect_timeout(CONNECT_WITHIN)
            .build()
            .map_err(|source| AdminError::Unreachable { what: "make calls", source })?;
        Ok(Self { client, credentials, clock })
    }

    /// One call. `Ok(None)`: it is not there (404).
    pub(super) async fn call(
        &self,
        what: &'static str,
        method: Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Option<Value>, AdminError> {
        let mut pause = PAUSE_FIRST;
        for _ in 1..TRIES_MAX {
            match self.try_once(what, method.clone(), url, body).await {
                Err(AdminError::Refused { status, .. }) if is_busy(status) => self.clock.sleep(pause).await,
                other => return other,
            }
            pause *= 2;
        }
        self.try_once(what, method, url, body).await
    }

    async fn try_once(
        &self,
        what: &'static str,
        method: Method,
        url: &Url,
        body: Option<&Value>,
    ) -> Result<Option<Value>, AdminError> {
        let mut request = self.client.request(method, url.clone()).headers(self.credentials.headers().await?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |source: reqwest::Error| AdminError::Unreachable { what, source: source.without_url() };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| AdminError::Garbled { what, detail: error.to_string() });
        }
        let message = google_words(&text);
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(AdminError::Denied { what, message }),
            _ => Err(AdminError::Refused { what, status, message }),
        }
    }

    /// All pages of a list: what stands under `key` in each.
    pub(super) async fn list(&self, what: &'static str, url: &Url, key: &str) -> Result<Vec<Value>, AdminError> {
        let mut found = Vec::new();
        let mut page = url.clone();
        for _ in 0..PAGES_MAX {
            let answer = self.call(what, Method::GET, &page, None).await?;
            let mut answer = answer.ok_or_else(|| AdminError::NotFound(url.path().to_owned()))?;
            if let Some(Value::Array(members)) = answer.get_mut(key).map(Value::take) {
                found.extend(members);
            }
            match answer.get("nextPageToken").and_then(Value::as_str).filter(|token| !token.is_empty()) {
                None => return Ok(found),
                Some(token) => {
                    page = url.clone();
                    page.query_pairs_mut().append_pair("pageToken", token);
                }
            }
        }
        Err(AdminError::Garbled { what, detail: "the list does not end".to_owned() })
    }
}

/// Google's advice is to wait: too many changes at once, or a passing fault.
fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE)
}

/// What an error's body says, bounded: it may be a proxy's page.
fn google_words(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let message = parsed.as_ref().and_then(|body| body.pointer("/error/message")).and_then(Value::as_str);
    message.unwrap_or(text).chars().take(500).collect()
}

/// What stands where; Google adds to these words from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Progress {
    /// An index that serves.
    Ready,
    /// A policy that is at work.
    Active,
    /// Not yet.
    Creating,
    /// It failed, as when a document has too many entries.
    NeedsRepair,
    /// A word that this build does not know.
    #[serde(other)]
    Unspecified,
}

/// An index as Google lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredIndex {
    /// `projects/…/collectionGroups/C/indexes/I`; absent within a field's configuration.
    #[serde(default)]
    pub(super) name: String,
    pub(super) query_scope: QueryScope,
    #[serde(default)]
    pub(super) fields: Vec<IndexField>,
    pub(super) state: Option<Progress>,
}

/// A field that differs from the defaults, as Google lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredField {
    pub(super) name: String,
    #[serde(default)]
    pub(super) index_config: StoredIndexConfig,
    pub(super) ttl_config: Option<StoredTtl>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredIndexConfig {
    #[serde(default)]
    pub(super) indexes: Vec<StoredIndex>,
    /// The collection's, or the database's, settings hold.
    #[serde(default)]
    pub(super) uses_ancestor_config: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct StoredTtl {
    pub(super) state: Option<Progress>,
}

/// Reads the members of a list, leaving out what is of a kind that we never make.
pub(super) fn readable<T: serde::de::DeserializeOwned>(members: Vec<Value>) -> Vec<T> {
    members.into_iter().filter_map(|member| serde_json::from_value(member).ok()).collect()
}
