//! What the instances share: a database, a Twilio, a master key, and the address that Twilio knows.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::audit::AuditStream;
use crisis_relay::domain::delivery::DeliveryState;
use crisis_relay::domain::ids::{AlertId, OrganisationId};
use crisis_relay::ports::{ListCursor, Store as _, random};
use crisis_relay::simulator::{CallbackMode, Simulator, SimulatorConfig, SimulatorHandle};
use crisis_relay::store::firestore::FirestoreStore;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::emulator::{emulator, project, settings};
use crate::front::Front;
use crate::relay::{Relay, Setting, on_the_phone, until};

/// How long a claimed message belongs to its instance, here.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// Says something whether the test fails or not: the runner keeps only what the print macros say.
pub(crate) fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "instances: {words}");
}

/// One proof at a time: each has several processes of its own, which must get to compute within their leases.
static TURN: Mutex<()> = Mutex::const_new(());

/// Several instances' common world.
pub(crate) struct College {
    host: &'static str,
    project: String,
    master_key: String,
    twilio: Simulator,
    front: Front,
    store: FirestoreStore,
    _turn: MutexGuard<'static, ()>,
}

/// A phone that tells Twilio at once that it has a message.
pub(crate) fn prompt_receipts() -> CallbackMode {
    let after = Duration::from_millis(20);
    CallbackMode::Automatic { sent_after: after, delivered_after: after, read_after: None }
}

impl College {
    /// A fresh one; `None` where there is no emulator.
    pub(crate) async fn fresh(callbacks: CallbackMode) -> Option<Self> {
        let turn = TURN.lock().await;
        let (host, project) = (emulator()?, project());
        let config = SimulatorConfig { callbacks, keep_messages: 1_000_000, ..SimulatorConfig::default() };
        let twilio = Simulator::start(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
        let store = FirestoreStore::open(&settings(host, &project), Arc::new(SystemEntropy)).await.unwrap();
        let master_key = data_encoding::BASE64.encode(&random::<32>(&SystemEntropy));
        Some(Self { host, project, master_key, twilio, front: Front::start().await, store, _turn: turn })
    }

    pub(crate) fn host(&self) -> &'static str {
        self.host
    }

    pub(crate) fn twilio(&self) -> SimulatorHandle {
        self.twilio.handle()
    }

    /// How an instance of it is started.
    pub(crate) fn setting(&self) -> Setting {
        Setting::new(&self.twilio.url())
            .with("STORE", "firestore")
            .with("FIRESTORE_PROJECT_ID", &self.project)
            .with("FIRESTORE_EMULATOR_HOST", self.host)
            .with("MASTER_KEY", &self.master_key)
            .with("TWILIO_WEBHOOK_BASE_URL", self.front.url())
            .with("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "1s")
            .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s")
            .with("CRISIS_RELAY__DELIVERY__LEASE", &format!("{}ms", LEASE.as_millis()))
            .with("CRISIS_RELAY__DELIVERY__LOOK_UP_FIRST", "200ms")
            .with("CRISIS_RELAY__DELIVERY__LOOK_UP_THEN", "500ms")
    }

    /// Starts an instance.
    pub(crate) async fn start(&self, setting: Setting) -> Relay {
        setting.start(&self.twilio()).await
    }

    /// Twilio's callbacks go to this instance from now on, whichever has sent the message.
    pub(crate) fn callbacks_go_to(&self, relay: &Relay) {
        let address: SocketAddr = relay.base.socket_addrs(|| None).unwrap()[0];
        let (_, behind) = watch::channel(Some(address));
        self.front.lead_to(behind);
    }

    /// Every alert, as it is stored now.
    pub(crate) async fn alerts(&self) -> Vec<Alert> {
        const PAGE: usize = 1000;
        let organisation: OrganisationId = "default".parse().unwrap();
        let mut alerts: Vec<Alert> = Vec::new();
        loop {
            let after = alerts.last().map(|alert| ListCursor { opened_at: alert.opened_at, id: alert.id });
            let page = self.store.list_alerts(&organisation, None, after, PAGE).await.unwrap();
            let is_last = page.len() < PAGE;
            alerts.extend(page);
            if is_last {
                return alerts;
            }
        }
    }

    /// What an alert's audit says of its messages: the entries that have `what`.
    pub(crate) async fn told_by_audit(&self, alert: AlertId, what: &str) -> Vec<Value> {
        let entries = self.store.audit_entries(&AuditStream::Alert(alert), 0, 1000).await.unwrap();
        let parsed = entries.iter().map(|entry| serde_json::from_str::<Value>(&entry.canonical).unwrap());
        parsed.filter(|entry| find(entry, "what").is_some_and(|found| found == what)).collect()
    }

    /// The name by which an instance claims messages: read off the audit of an alert that it took. The alert's reference
    /// comes with it.
    pub(crate) async fn name_of(&self, relay: &Relay, student: &str) -> (String, String) {
        let reference = relay.escalated(student).await;
        until("its first message is on the phone", async || !on_the_phone(&self.twilio(), &reference).is_empty()).await;
        let alerts = self.alerts().await;
        let alert = alerts.iter().find(|alert| alert.reference.as_str() == reference).unwrap();
        let begun = self.told_by_audit(alert.id, "attempt_begun").await;
        let holder = find(&begun[0], "holder").and_then(Value::as_str).unwrap();
        (holder.to_owned(), reference)
    }
}

/// The first value of this name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(name).or_else(|| fields.values().find_map(|inner| find(inner, name))),
        Value::Array(items) => items.iter().find_map(|inner| find(inner, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Whether a message of the alert is in the hand of `owner`.
pub(crate) fn is_in_hand_of(alert: &Alert, owner: &str) -> bool {
    alert.deliveries.iter().any(|delivery| match &delivery.state {
        DeliveryState::Sending { lease, .. } => lease.owner == owner,
        DeliveryState::Due { .. }
        | DeliveryState::Unknown { .. }
        | DeliveryState::Accepted { .. }
        | DeliveryState::Failed { .. }
        | DeliveryState::Cancelled { .. } => false,
    })
}

/// The cases that these students' events open at one instance: all at once, and all accepted.
pub(crate) async fn accepted_by(relay: &Relay, students: &[String]) -> Vec<String> {
    futures::future::join_all(students.iter().map(|student| relay.escalated(student))).await
}

/// Students of this name.
pub(crate) fn students(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// Whether Twilio has every message of the alert, and it is booked.
pub(crate) fn is_settled(alert: &Alert) -> bool {
    alert.deliveries.iter().all(|delivery| matches!(delivery.state, DeliveryState::Accepted { .. }))
}
