//! The distributed store, on Google's own emulator: the suite, and what is Firestore's own.

mod own;
mod proxy;

use std::sync::Arc;

use crisis_relay::clock::SystemEntropy;
use crisis_relay::domain::ids::AlertId;
use crisis_relay::ports::Store;
use crisis_relay::store::firestore::indexes::COLLECTIONS;
use crisis_relay::store::firestore::{FirestoreSettings, FirestoreStore};
use serde_json::{Value, json};

use crate::emulator::{emulator, project, settings};
use crate::suite::{Place, conformance};

conformance!(FirestorePlace);

/// A project of its own in the emulator.
pub(crate) struct FirestorePlace {
    host: &'static str,
    project: String,
}

impl FirestorePlace {
    /// A fresh one; `None` where there is no emulator.
    pub(crate) fn fresh() -> Option<Self> {
        Some(Self { host: emulator()?, project: project() })
    }

    pub(crate) fn settings(&self) -> FirestoreSettings {
        self.settings_by(self.host)
    }

    /// The same database, by another way to it.
    pub(crate) fn settings_by(&self, host: &str) -> FirestoreSettings {
        settings(host, &self.project)
    }

    pub(crate) async fn store(&self) -> Arc<FirestoreStore> {
        Arc::new(FirestoreStore::open(&self.settings(), Arc::new(SystemEntropy)).await.unwrap())
    }

    fn documents(&self) -> String {
        format!("projects/{}/databases/(default)/documents", self.project)
    }

    /// Asks the emulator behind the store's back, over its HTTP side.
    async fn post(&self, method: &str, body: Value) -> Value {
        let url = format!("http://{}/v1/{}:{method}", self.host, self.documents());
        let asked = reqwest::Client::new().post(url).bearer_auth("owner").json(&body).send().await.unwrap();
        asked.error_for_status().unwrap().json().await.unwrap()
    }

    /// Every document of a collection.
    pub(crate) async fn all_of(&self, collection: &str) -> Vec<Value> {
        let query = json!({"structuredQuery": {"from": [{"collectionId": collection}]}});
        let found = self.post("runQuery", query).await;
        let found = found.as_array().unwrap().iter().filter_map(|answer| answer.get("document").cloned());
        found.collect()
    }

    /// Puts a document under another name, as if by hand.
    pub(crate) async fn rename(&self, document: &Value, name: &str) {
        let moved = json!({"writes": [
            {"update": {"name": name, "fields": document["fields"]}},
            {"delete": document["name"]},
        ]});
        self.post("commit", moved).await;
    }

    /// An alert's document, by the id with its random half first.
    pub(crate) fn alert_name(&self, id: AlertId) -> String {
        let digits = id.0.simple().to_string();
        format!("{}/crisis_alerts/{}{}", self.documents(), &digits[16..], &digits[..16])
    }
}

impl Place for FirestorePlace {
    fn is_there() -> bool {
        emulator().is_some()
    }

    async fn new() -> Self {
        Self::fresh().unwrap()
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.store().await
    }

    async fn dump(&self) -> String {
        let mut lines = Vec::new();
        for collection in COLLECTIONS {
            lines.extend(self.all_of(collection).await.iter().map(|document| format!("{document}\n")));
        }
        lines.sort();
        lines.concat()
    }

    async fn spoil_alert(&self, id: AlertId) {
        let spoilt = json!({"writes": [{
            "update": {"name": self.alert_name(id), "fields": {"body": {"stringValue": "{\"identity\":\"spoilt"}}},
            "updateMask": {"fieldPaths": ["body"]},
            "currentDocument": {"exists": true},
        }]});
        self.post("commit", spoilt).await;
    }
}
