//! How the connection is made.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use firestore::gcloud_sdk::google::firestore::v1::firestore_client::FirestoreClient;
use firestore::gcloud_sdk::google_cloud_auth::credentials::{
    CacheableResource, Credentials, CredentialsProvider, EntityTag,
};
use firestore::gcloud_sdk::google_cloud_auth::errors::CredentialsError;
use firestore::gcloud_sdk::{GoogleAuthMiddleware, HeaderMap, tonic};
use firestore::{FirestoreDb, FirestoreDbOptions};
use tokio::runtime::Handle;
use tokio::sync::watch;

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
        why: last.map_or_else(|| "no answer".to_owned(), |error| error.to_string()),
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

/// How long one attempt to make a second connection may take.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);

/// How long a call waits for that, before it tries what is there.
const RENEWED_SOON: Duration = Duration::from_secs(1);

/// The connection, which is made anew where it seems to be stuck: where the other end is gone without a word, the crate's
/// own keep-alive finds out only after a minute or two, and until then every call would run into its time-out.
pub(super) struct Connection {
    db: ArcSwap<FirestoreDb>,
    settings: FirestoreSettings,
    threads: Handle,
    renewing: watch::Sender<bool>,
}

impl Connection {
    pub(super) fn new(db: FirestoreDb, settings: FirestoreSettings, threads: Handle) -> Arc<Self> {
        let db = ArcSwap::from_pointee(db);
        Arc::new(Self { db, settings, threads, renewing: watch::Sender::new(false) })
    }

    /// For one call. While the connection is made anew, it is waited for that, but not for long.
    pub(super) async fn api(&self) -> FirestoreClient<GoogleAuthMiddleware> {
        let _ = tokio::time::timeout(RENEWED_SOON, self.renewing.subscribe().wait_for(|renewing| !renewing)).await;
        self.db.load().client().get()
    }

    /// A call had no answer in time: later ones go out on a new connection, as soon as there is one.
    pub(super) fn renew(self: &Arc<Self>) {
        if self.renewing.send_replace(true) {
            return;
        }
        let connection = Arc::clone(self);
        self.threads.spawn(async move {
            if let Ok(Ok(db)) = tokio::time::timeout(RENEWED_WITHIN, attempt(&connection.settings)).await {
                connection.db.store(Arc::new(db));
            }
            connection.renewing.send_replace(false);
        });
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
