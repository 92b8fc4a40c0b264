//! Google's standard credentials (Application Default Credentials), for the administration APIs.

use std::time::Duration;

use async_trait::async_trait;
use firestore::gcloud_sdk::GoogleAuthHeaders;
use reqwest::header::HeaderMap;

use super::{AdminError, Credentials};

/// What a token must be good for: both APIs take it.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// For a token: off Google's machines the metadata server is asked in vain, and that must end.
const TOKEN_WITHIN: Duration = Duration::from_secs(20);

/// What `GOOGLE_APPLICATION_CREDENTIALS` names, what gcloud has written, or the machine's own account.
pub struct GoogleCredentials(GoogleAuthHeaders);

impl GoogleCredentials {
    /// Finds them. No token is asked for yet.
    ///
    /// # Errors
    /// [`AdminError::NoCredentials`].
    pub async fn find() -> Result<Self, AdminError> {
        let found = GoogleAuthHeaders::from_adc_with_scopes(vec![SCOPE.to_owned()]).await;
        found.map(Self).map_err(|error| AdminError::NoCredentials(error.to_string()))
    }
}

#[async_trait]
impl Credentials for GoogleCredentials {
    async fn headers(&self) -> Result<HeaderMap, AdminError> {
        match tokio::time::timeout(TOKEN_WITHIN, self.0.headers()).await {
            Ok(Ok(headers)) => Ok(headers.as_ref().clone()),
            Ok(Err(error)) => Err(AdminError::NoCredentials(error.to_string())),
            Err(_elapsed) => Err(AdminError::NoCredentials("no token came in time".to_owned())),
        }
    }
}
