//! A database that already holds many alerts: opened and resolved by the service itself, in this process and without
//! HTTP, so that every row and every hash is what the service would have written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;

use crisis_relay::app::{self, Adapters, App};
use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::config::{Config, Sources};
use crisis_relay::domain::alert::Outcome;
use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::event::{Score, Source};
use crisis_relay::domain::ids::ProviderId;
use crisis_relay::domain::provider::{Receipt, SendOutcome};
use crisis_relay::ports::{Fault, ListedMessage, LookUpError, MessageRequest, Store, TwilioClient};
use crisis_relay::service::caller::Caller;
use crisis_relay::service::intake::{EmergencyOverride, NewEvent};
use crisis_relay::store::sqlite::SqliteStore;

use super::service::settings;

/// How many alerts are worked on at once.
const AT_ONCE: usize = 256;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Nobody is called: what is filled in is resolved before anything would be sent.
struct Nobody;

#[async_trait]
impl TwilioClient for Nobody {
    async fn create_message(&self, _: &MessageRequest) -> SendOutcome {
        SendOutcome::NotExecuted { retry_after: None, fault: None }
    }
    async fn fetch_message(&self, _: &ProviderId) -> Result<Receipt, LookUpError> {
        Err(LookUpError::NotFound)
    }
    async fn list_messages(
        &self,
        _: Channel,
        _: &PhoneNumber,
        _: Timestamp,
        _: usize,
    ) -> Result<Vec<ListedMessage>, LookUpError> {
        Ok(Vec::new())
    }
    async fn check(&self) -> Vec<Fault> {
        Vec::new()
    }
}

/// Puts `count` resolved alerts into the database of `folder`.
pub(crate) fn fill(folder: &Path, count: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let environment: BTreeMap<String, String> = settings(folder, "127.0.0.1:9".parse()?, "127.0.0.1:9".parse()?)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let config =
            Config::load(&Sources { file: None, environment, read_file: &|path| std::fs::read_to_string(path) })
                .map_err(|faults| faults.to_string())?;
        let entropy = Arc::new(SystemEntropy);
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&app::sqlite_settings(&config))?);
        let keyring = Arc::new(app::open_keyring(&config, Arc::clone(&entropy) as _)?);
        let provider = app::provider(&config, None);
        let adapters = Adapters {
            store: Arc::clone(&store),
            keyring,
            twilio: Arc::new(Nobody),
            clock: Arc::new(SystemClock),
            entropy,
        };
        let app = app::assemble(&config, &provider, adapters).await?;
        open_and_resolve(app, count).await?;
        store.close().await;
        Ok(())
    })
}

async fn open_and_resolve(app: App, count: usize) -> Result<(), Failure> {
    // Without a worker nothing is taken in hand: every delivery stays due until it is cancelled.
    let App { service, jobs, .. } = app;
    drop(jobs);
    let next = Arc::new(AtomicUsize::new(0));
    let work = (0..AT_ONCE).map(|_| {
        let (service, next) = (Arc::clone(&service), Arc::clone(&next));
        tokio::spawn(async move {
            let caller = Caller {
                organisation: "default".parse().map_err(|_| "the organisation's name")?,
                id: "service-1".to_owned(),
                role: "admin",
                is_person: false,
            };
            loop {
                let no = next.fetch_add(1, Ordering::Relaxed);
                if no >= count {
                    return Ok::<_, Failure>(());
                }
                let answered = service.accept(&caller, &event(no), None).await?;
                let answer: serde_json::Value = serde_json::from_str(&answered.json)?;
                let id = answer["alert_id"].as_str().ok_or("no alert")?.parse()?;
                let alert = service.store().alert(id).await?.ok_or("no such alert")?;
                service.resolve(&caller, alert, Outcome::SafeByPhone, None).await?;
            }
        })
    });
    for ended in futures::future::join_all(work).await {
        ended??;
    }
    Ok(())
}

fn event(no: usize) -> NewEvent {
    NewEvent {
        user_id: format!("earlier-{no}"),
        source: Source::Chat,
        score: Score::new(0.93),
        message: Some(super::scenarios::WORDS.to_owned()),
        occurred_at: None,
        model_version: None,
        emergency_override: Some(EmergencyOverride { by: "Duty doctor".to_owned(), reason: "life at risk".to_owned() }),
        metadata: None,
    }
}
