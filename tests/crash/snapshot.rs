//! What a kill has left on the disk, read from a copy by SQL and by the domain's own types, past the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crisis_relay::domain::alert::{Alert, AlertState};
use crisis_relay::domain::audit::{AuditEntry, AuditHash, AuditHead, AuditStream, verify_chain};
use crisis_relay::domain::delivery::DeliveryState;
use crisis_relay::domain::ids::{AlertId, AttemptRef};
use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

/// The name of the database in its folder.
pub(crate) const FILE: &str = "relay.db";

/// Copies the database of a process that is dead: the file and its log. What the log's index holds is made anew.
pub(crate) fn copy(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [FILE.to_owned(), format!("{FILE}-wal"), format!("{FILE}-journal")] {
        match std::fs::copy(folder.join(&name), copy.path().join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{name} cannot be copied: {error}"),
            Ok(_) | Err(_) => {}
        }
    }
    copy
}

/// What was found.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// 0: the process died before there was anything.
    pub(crate) version: u64,
    pub(crate) alerts: BTreeMap<AlertId, Alert>,
    pub(crate) entries: u64,
    /// What does not hold.
    pub(crate) faults: Vec<String>,
}

impl Snapshot {
    /// Reads and checks a database that nobody has open.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut found = Self::default();
        if !folder.join(FILE).exists() {
            return found;
        }
        let raw = Connection::open(folder.join(FILE)).unwrap();
        let whole: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        if whole != "ok" {
            found.faults.push(format!("SQLite finds the file damaged: {whole}"));
        }
        let version: i64 = raw.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        found.version = version.try_into().unwrap();
        if found.version > 0 {
            found.read_alerts(&raw);
            found.read_chains(&raw);
        }
        found
    }

    fn read_alerts(&mut self, raw: &Connection) {
        let mut select = raw.prepare("SELECT body, state, open, next_action_at FROM alerts").unwrap();
        let mut rows = select.query([]).unwrap();
        let mut subjects = BTreeSet::new();
        while let Some(row) = rows.next().unwrap() {
            let body: String = row.get(0).unwrap();
            let alert: Alert = serde_json::from_str(&body).unwrap();
            let beside: (String, bool, Option<i64>) = (row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap());
            let next = alert.next_action_at();
            let inside = (alert.state.name().as_str().to_owned(), alert.is_open(), next.map(Timestamp::as_microsecond));
            if beside != inside {
                self.faults.push(format!("alert {}: {beside:?} stands beside {inside:?}", alert.id));
            }
            if waits_for_somebody(&alert) && next.is_none() {
                self.faults.push(format!("alert {} is open, and has no next action: {:?}", alert.id, alert.state));
            }
            if alert.is_open() && !subjects.insert(alert.subject.to_string()) {
                self.faults.push(format!("alert {}: its student has another open one", alert.id));
            }
            self.alerts.insert(alert.id, alert);
        }
    }

    fn read_chains(&mut self, raw: &Connection) {
        let sql = "SELECT stream, seq, at, entry, hash FROM audit ORDER BY stream, seq";
        let mut chains: BTreeMap<String, Vec<AuditEntry>> = BTreeMap::new();
        let mut select = raw.prepare(sql).unwrap();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let stream: String = row.get(0).unwrap();
            let entry = AuditEntry {
                stream: stream.parse().unwrap(),
                seq: row.get::<_, i64>(1).unwrap().try_into().unwrap(),
                at: Timestamp::from_microsecond(row.get(2).unwrap()).unwrap(),
                canonical: row.get(3).unwrap(),
                hash: AuditHash::from_bytes(row.get(4).unwrap()),
            };
            self.entries += 1;
            chains.entry(stream).or_default().push(entry);
        }
        let mut heads: BTreeMap<String, AuditHead> = consent_heads(raw);
        heads.extend(self.alerts.values().map(|alert| (AuditStream::Alert(alert.id).to_string(), alert.audit_head)));
        for (stream, chain) in &chains {
            if let Err(fault) = verify_chain(chain, heads.remove(stream)) {
                self.faults.push(format!("the chain {stream} does not verify: {fault}"));
            }
        }
        let without: Vec<String> = heads.into_keys().collect();
        if !without.is_empty() {
            self.faults.push(format!("these have no chain: {without:?}"));
        }
    }

    /// The attempts that were begun and not booked: what was in flight.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = AttemptRef> {
        self.alerts.values().flat_map(|alert| {
            alert.deliveries.iter().filter_map(|delivery| match &delivery.state {
                DeliveryState::Sending { attempt, .. } | DeliveryState::Unknown { attempt, .. } => {
                    Some(alert.attempt_ref(delivery.no, *attempt))
                }
                DeliveryState::Due { .. }
                | DeliveryState::Accepted { .. }
                | DeliveryState::Failed { .. }
                | DeliveryState::Cancelled { .. } => None,
            })
        })
    }
}

/// Whether an alert may not fall silent.
fn waits_for_somebody(alert: &Alert) -> bool {
    match alert.state {
        AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => true,
        // Withheld: nobody may be told, so nothing can be due.
        AlertState::Withheld { .. } | AlertState::Resolved { .. } => false,
    }
}

/// What each consent remembers of its chain.
fn consent_heads(raw: &Connection) -> BTreeMap<String, AuditHead> {
    let mut select = raw.prepare("SELECT body FROM consents").unwrap();
    let bodies: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let records = bodies.iter().map(|body| {
        let record: crisis_relay::domain::consent::ConsentRecord = serde_json::from_str(body).unwrap();
        (AuditStream::Consent(record.subject).to_string(), record.audit_head)
    });
    records.collect()
}
