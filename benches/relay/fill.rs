//! A database that already holds many alerts: opened, told, delivered and resolved by the service itself, in this process
//! and without HTTP, so that every row and every hash is what the service would have written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use crisis_relay::app::{self, Adapters, App};
use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::config::{Config, Sources};
use crisis_relay::domain::alert::Outcome;
use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::event::{Score, Source};
use crisis_relay::domain::ids::{AlertId, ProviderId};
use crisis_relay::domain::provider::{MessageStatus, Receipt, SendOutcome};
use crisis_relay::ports::{Fault, ListedMessage, LookUpError, MessageRequest, Store, TwilioClient};
use crisis_relay::service::Service;
use crisis_relay::service::caller::Caller;
use crisis_relay::service::intake::{IdempotencyInput, NewEvent, Statement};
use crisis_relay::store::sqlite::SqliteStore;

use super::service::{database, settings};

/// How many alerts are taken through all of it in one go, and by how many tasks.
const IN_ONE_GO: usize = 5_000;
const AT_ONCE: usize = 256;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A provider that accepts everything at once.
struct Accepts(AtomicUsize);

#[async_trait]
impl TwilioClient for Accepts {
    async fn create_message(&self, _: &MessageRequest) -> SendOutcome {
        // Spread over the whole range, as Twilio's are.
        let no =
            (self.0.fetch_add(1, Ordering::Relaxed) as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        match message_id(no) {
            Ok(provider_id) => SendOutcome::Accepted { provider_id, status: MessageStatus::Queued },
            Err(_) => SendOutcome::NotExecuted { retry_after: None, fault: None },
        }
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

fn message_id(no: u128) -> Result<ProviderId, Failure> {
    Ok(format!("SM{no:032x}").parse()?)
}

/// Puts `count` resolved alerts into the database of `folder`.
pub(crate) fn fill(folder: &Path, count: usize) -> Result<(), Failure> {
    with_app(folder, |app| open_and_finish(app, count))
}

/// Finishes whatever is open in the database of `folder`.
pub(crate) fn finish_open(folder: &Path) -> Result<(), Failure> {
    with_app(folder, |app| async move {
        let App { service, worker, mut jobs, .. } = app;
        worker.recover().await;
        worker.drain(&mut jobs).await;
        let mut after = None;
        loop {
            let page = service.store().unfinished_alerts(after, IN_ONE_GO).await?;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            let service = Arc::clone(&service);
            for_each(page, move |id| finish(Arc::clone(&service), id)).await?;
        }
        match service.store().unfinished_alerts(None, 1).await?.first() {
            None => Ok(()),
            Some(id) => Err(format!("{id} is not finished").into()),
        }
    })
}

/// How many alerts the database of `folder` holds; `None` if there is none.
pub(crate) fn count(folder: &Path) -> Result<Option<usize>, Failure> {
    let file = database(folder);
    if !file.exists() {
        return Ok(None);
    }
    let connection = rusqlite::Connection::open(file)?;
    let count: u32 = connection.query_row("SELECT count(*) FROM alerts", [], |row| row.get(0))?;
    Ok(Some(usize::try_from(count)?))
}

/// Does `work` with the service's parts on the database of `folder`, with a provider that accepts all.
fn with_app<W, F>(folder: &Path, work: W) -> Result<(), Failure>
where
    W: FnOnce(App) -> F,
    F: Future<Output = Result<(), Failure>>,
{
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
            twilio: Arc::new(Accepts(AtomicUsize::new(0))),
            clock: Arc::new(SystemClock),
            entropy,
        };
        work(app::assemble(&config, &provider, adapters).await?).await?;
        store.close().await;
        Ok(())
    })
}

async fn open_and_finish(app: App, count: usize) -> Result<(), Failure> {
    let App { service, worker, mut jobs, .. } = app;
    for from in (0..count).step_by(IN_ONE_GO) {
        let numbers = from..count.min(from + IN_ONE_GO);
        let opened = for_each(numbers.collect(), {
            let service = Arc::clone(&service);
            move |no| open(Arc::clone(&service), no)
        });
        let opened = opened.await?;
        worker.drain(&mut jobs).await;
        let service = Arc::clone(&service);
        for_each(opened, move |id| finish(Arc::clone(&service), id)).await?;
    }
    Ok(())
}

/// Does `work` for every one of `items`, on several tasks.
async fn for_each<I, O, W, F>(items: Vec<I>, work: W) -> Result<Vec<O>, Failure>
where
    I: Send + 'static,
    O: Send + 'static,
    W: Fn(I) -> F + Send + Sync + 'static,
    F: Future<Output = Result<O, Failure>> + Send + 'static,
{
    let done = futures::stream::iter(items)
        .map(|item| {
            let task = tokio::spawn(work(item));
            async move { task.await? }
        })
        .buffer_unordered(AT_ONCE);
    done.try_collect().await
}

async fn open(service: Arc<Service>, no: usize) -> Result<AlertId, Failure> {
    let answered = service
        .accept(&caller()?, &event(no), Some(IdempotencyInput { key: &format!("earlier-{no}"), body: b"{}" }))
        .await?;
    let answer: serde_json::Value = serde_json::from_str(&answered.json)?;
    Ok(answer["alert_id"].as_str().ok_or("no alert was opened")?.parse()?)
}

/// The message is delivered, and a person closes the case.
async fn finish(service: Arc<Service>, id: AlertId) -> Result<(), Failure> {
    let alert = service.store().alert(id).await?.ok_or("no such alert")?;
    for delivery in &alert.deliveries {
        for attempt in &delivery.attempts {
            // Of a call whose outcome nobody has learnt, a receipt is the first that is heard.
            let provider_id = match &attempt.provider_id {
                Some(known) => known.clone(),
                None => message_id(id.0.as_u128().wrapping_add(attempt.no.0.into()))?,
            };
            let receipt = Receipt { provider_id, status: MessageStatus::Delivered, fault: None };
            service.record_receipt(Some(alert.attempt_ref(delivery.no, attempt.no)), &receipt).await?;
        }
    }
    let alert = service.store().alert(id).await?.ok_or("no such alert")?;
    if alert.is_open() {
        service.resolve(&caller()?, alert, Outcome::SafeByPhone, None, None).await?;
    }
    Ok(())
}

fn caller() -> Result<Caller, Failure> {
    let organisation = "default".parse().map_err(|_| "the organisation's name")?;
    Ok(Caller { organisation, id: "service-1".to_owned(), role: "admin", is_person: false, deadline: None })
}

fn event(no: usize) -> NewEvent {
    NewEvent {
        user_id: format!("earlier-{no}"),
        source: Source::Chat,
        score: Score::new(0.93),
        message: Some(super::scenarios::WORDS.to_owned()),
        occurred_at: None,
        model_version: None,
        emergency_override: Some(Statement { by: "Duty doctor".to_owned(), reason: "life at risk".to_owned() }),
        metadata: None,
    }
}
