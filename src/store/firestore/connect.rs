//! How the connection is made.

use std::time::Duration;

use firestore::gcloud_sdk::google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag,
};
use firestore::gcloud_sdk::google_cloud_auth::errors::CredentialsError;
use firestore::gcloud_sdk::{HeaderMap, tonic};
use firestore::{FirestoreDb, FirestoreDbOptions};

use super::{FirestoreSettings, OpenError};

/// The pause between two attempts to connect.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Connects, and tries again for as long as the settings say: at a start, the network or the emulator may come up a little
/// later than this process.
pub(super) async fn connect(settings: &FirestoreSettings) -> Result<FirestoreDb, OpenError> {
    let mut last = None;
    let connected = async {
        let mut pause = PAUSE_FIRST;
        loop {
            match attempt(settings).await {
                Ok(db) => return db,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    let connected = tokio::time::timeout(settings.connect_timeout, connected).await;
    connected.map_err(|_elapsed| OpenError::Connect {
        within: settings.connect_timeout,
        source: last.map(|error| error.to_string()).unwrap_or_else(|| "no answer".to_owned()),
    })
}

async fn attempt(settings: &FirestoreSettings) -> Result<FirestoreDb, firestore::errors::FirestoreError> {
    let mut options = FirestoreDbOptions::new(settings.project_id.clone());
    options.database_id.clone_from(&settings.database_id);
    match &settings.emulator_host {
        // Named outright: the crate would ask the process's environment, and a test has several emulators' addresses.
        Some(host) => {
            options.firebase_api_url = Some(format!("http://{host}"));
            FirestoreDb::with_options_auth(options, Credentials::from(Owner(EntityTag::new()))).await
        }
        None => FirestoreDb::with_options(options).await,
    }
}

/// What the emulator takes for an owner, whom no security rule holds up.
#[derive(Debug)]
struct Owner(EntityTag);

impl CredentialsProvider for Owner {
    async fn headers(
        &self,
        extensions: tonic::codegen::http::Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        if extensions.get::<EntityTag>() == Some(&self.0) {
            return Ok(CacheableResource::NotModified);
        }
        let bearer = tonic::codegen::http::HeaderValue::from_static("Bearer owner");
        let data = HeaderMap::from_iter([(tonic::codegen::http::header::AUTHORIZATION, bearer)]);
        Ok(CacheableResource::New { entity_tag: self.0.clone(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}
