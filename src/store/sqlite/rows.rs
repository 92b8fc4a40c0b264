//! Rows: how values of the domain are written and read. Compares and swaps; knows no rule.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::alert::{Alert, AlertState, StateName};
use crate::domain::audit::{AuditEntry, AuditHash, AuditHead, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::event::EventDetails;
use crate::domain::ids::{AlertId, EventId, IdempotencyKey, OrganisationId, PersonKey, SubjectKey};
use crate::domain::sealed::Sealed;
use crate::ports::{AlertCommit, Committed, ConsentCommit, IdempotencyRecord, ListCursor, StoreError, WrappedDataKey};

type Result<T> = rusqlite::Result<T>;

pub(super) fn to_json<T: Serialize>(value: &T) -> std::result::Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what: "a value cannot be written".to_owned() })
}

/// A limit as SQLite counts.
pub(super) fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    // The fixed word is all that is told: a value from a row must not reach a log.
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}

pub(super) fn timestamp(micros: i64, column: usize) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| unreadable(column, "time out of range"))
}

pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> Result<T> {
    row.get_ref(column)?
        .as_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| unreadable(column, "not in the expected form"))
}

/// Reads the first column as an alert's id.
pub(super) fn alert_id(row: &Row<'_>) -> Result<AlertId> {
    row.get::<_, [u8; 16]>(0).map(|bytes| AlertId(uuid::Uuid::from_bytes(bytes)))
}

/// Reads the first column as JSON.
pub(super) fn json_column<T: DeserializeOwned>(row: &Row<'_>) -> Result<T> {
    let text = row.get_ref(0)?.as_str().map_err(|_| unreadable(0, "not a text"))?;
    serde_json::from_str(text).map_err(|_| unreadable(0, "JSON not in the expected form"))
}

pub(super) fn all<T, P: Params>(
    connection: &Connection,
    sql: &str,
    values: P,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(values, read)?.collect()
}

fn exists<P: Params>(connection: &Connection, sql: &str, values: P) -> Result<bool> {
    connection.prepare_cached(sql)?.exists(values)
}

// -- alerts -----------------------------------------------------------------------------------------------------------

pub(super) fn alert(connection: &Connection, id: AlertId) -> Result<Option<Alert>> {
    connection
        .prepare_cached("SELECT body FROM alerts WHERE id = ?1")?
        .query_row([id.0.as_bytes()], json_column)
        .optional()
}

pub(super) fn open_alert(
    connection: &Connection,
    organisation: &OrganisationId,
    subject: SubjectKey,
) -> Result<Option<Alert>> {
    connection
        .prepare_cached("SELECT body FROM alerts WHERE organisation = ?1 AND subject = ?2 AND open = 1")?
        .query_row(params![organisation.as_str(), subject.as_bytes()], json_column)
        .optional()
}

pub(super) fn list(
    connection: &Connection,
    organisation: &OrganisationId,
    state: Option<StateName>,
    after: Option<ListCursor>,
    limit: usize,
) -> Result<Vec<Alert>> {
    // Open states are few and have an index of their own; resolved alerts are found by age.
    let filter = match state {
        None => "?5 IS NULL",
        Some(StateName::Resolved) => "open = 0 AND state = ?5",
        Some(StateName::Withheld | StateName::Escalating | StateName::Acknowledged) => "open = 1 AND state = ?5",
    };
    let sql = format!(
        "SELECT body FROM alerts WHERE organisation = ?1 AND {filter} AND (opened_at, id) < (?2, ?3) \
         ORDER BY opened_at DESC, id DESC LIMIT ?4"
    );
    let (opened_at, id) =
        after.map_or((i64::MAX, [0; 16]), |cursor| (cursor.opened_at.as_microsecond(), *cursor.id.0.as_bytes()));
    let values = params![organisation.as_str(), opened_at, id, bound(limit), state.map(StateName::as_str)];
    all(connection, &sql, values, json_column)
}

pub(super) fn commit_alert(connection: &Connection, commit: &AlertCommit, body: &str) -> Result<Committed> {
    if let Some(refusal) = refusal(connection, commit)? {
        return Ok(refusal);
    }
    match commit.from_version {
        None => insert_alert(connection, &commit.alert, body)?,
        Some(_) => update_alert(connection, &commit.alert, body)?,
    }
    write_addresses(connection, commit)?;
    insert_audit(connection, &commit.audit)?;
    let id = commit.alert.id.0.as_bytes();
    for provider_id in &commit.provider_ids {
        connection
            .prepare_cached("INSERT OR IGNORE INTO provider_messages (provider_id, alert) VALUES (?1, ?2)")?
            .execute(params![provider_id.as_str(), id])?;
    }
    if let Some(details) = &commit.event {
        insert_event_details(connection, commit.alert.id, details)?;
    }
    if let Some(record) = &commit.idempotency {
        insert_answer(connection, record)?;
    }
    if let Some(key) = &commit.data_key {
        insert_data_key(connection, key)?;
    }
    Ok(Committed::Committed)
}

/// What stands against a commit. Everything is checked before anything is written.
fn refusal(connection: &Connection, commit: &AlertCommit) -> Result<Option<Committed>> {
    let alert = &commit.alert;
    if let Some(record) = &commit.idempotency
        && exists(connection, "SELECT 1 FROM answers WHERE key = ?1", [record.key.as_bytes()])?
    {
        return Ok(Some(Committed::IdempotencyKeyUsed));
    }
    if let Some(key) = &commit.data_key {
        let sql = "SELECT 1 FROM data_keys WHERE organisation = ?1 AND person = ?2";
        if exists(connection, sql, params![key.organisation.as_str(), key.person.as_bytes()])? {
            return Ok(Some(Committed::DataKeyExists));
        }
    }
    let organisation = alert.organisation.as_str();
    match commit.from_version {
        Some(version) => {
            let sql = "SELECT version FROM alerts WHERE id = ?1";
            let stored: Option<i64> =
                connection.prepare_cached(sql)?.query_row([alert.id.0.as_bytes()], |row| row.get(0)).optional()?;
            Ok((stored != i64::try_from(version).ok()).then_some(Committed::VersionConflict))
        }
        None => {
            let sql = "SELECT 1 FROM alerts WHERE organisation = ?1 AND subject = ?2 AND open = 1";
            if exists(connection, sql, params![organisation, alert.subject.as_bytes()])? {
                return Ok(Some(Committed::SubjectHasOpenAlert));
            }
            let sql = "SELECT 1 FROM alerts WHERE organisation = ?1 AND reference = ?2";
            if exists(connection, sql, params![organisation, alert.reference.as_str()])? {
                return Ok(Some(Committed::ReferenceTaken));
            }
            Ok(None)
        }
    }
}

fn insert_alert(connection: &Connection, alert: &Alert, body: &str) -> Result<()> {
    let sql = "INSERT INTO alerts (id, organisation, reference, subject, kind, state, open, version, opened_at, \
               next_action_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let kind = match alert.kind {
        crate::domain::alert::Kind::Live => "live",
        crate::domain::alert::Kind::Drill => "drill",
    };
    connection.prepare_cached(sql)?.execute(params![
        alert.id.0.as_bytes(),
        alert.organisation.as_str(),
        alert.reference.as_str(),
        alert.subject.as_bytes(),
        kind,
        alert.state.name().as_str(),
        alert.is_open(),
        i64::try_from(alert.version).unwrap_or(i64::MAX),
        alert.opened_at.as_microsecond(),
        alert.next_action_at().map(Timestamp::as_microsecond),
        body,
    ])?;
    Ok(())
}

fn update_alert(connection: &Connection, alert: &Alert, body: &str) -> Result<()> {
    let sql = "UPDATE alerts SET state = ?2, open = ?3, version = ?4, next_action_at = ?5, body = ?6 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        alert.id.0.as_bytes(),
        alert.state.name().as_str(),
        alert.is_open(),
        i64::try_from(alert.version).unwrap_or(i64::MAX),
        alert.next_action_at().map(Timestamp::as_microsecond),
        body,
    ])?;
    Ok(())
}

fn write_addresses(connection: &Connection, commit: &AlertCommit) -> Result<()> {
    let alert = &commit.alert;
    let id = alert.id.0.as_bytes();
    if matches!(alert.state, AlertState::Escalating { .. }) {
        let sql = "INSERT OR IGNORE INTO alert_addresses (alert, address, organisation) VALUES (?1, ?2, ?3)";
        let mut insert = connection.prepare_cached(sql)?;
        let mut last = None;
        for delivery in &alert.deliveries {
            if last.replace(delivery.address_key) != Some(delivery.address_key) {
                insert.execute(params![id, delivery.address_key.as_bytes(), alert.organisation.as_str()])?;
            }
        }
    } else if commit.from_version.is_some() {
        connection.prepare_cached("DELETE FROM alert_addresses WHERE alert = ?1")?.execute([id])?;
    }
    Ok(())
}

fn insert_event_details(connection: &Connection, alert: AlertId, details: &EventDetails) -> Result<()> {
    let sql = "INSERT INTO event_details (alert, event, received_at, message, metadata) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute(params![
        alert.0.as_bytes(),
        details.event.0.as_bytes(),
        details.received_at.as_microsecond(),
        details.message.as_ref().map(|sealed| &sealed.0),
        details.metadata.as_ref().map(|sealed| &sealed.0),
    ])?;
    Ok(())
}

pub(super) fn event_details(connection: &Connection, alert: AlertId) -> Result<Vec<EventDetails>> {
    let sql = "SELECT event, received_at, message, metadata FROM event_details WHERE alert = ?1 ORDER BY event";
    all(connection, sql, [alert.0.as_bytes()], |row| {
        let event: [u8; 16] = row.get(0)?;
        Ok(EventDetails {
            event: EventId(uuid::Uuid::from_bytes(event)),
            received_at: timestamp(row.get(1)?, 1)?,
            message: row.get::<_, Option<String>>(2)?.map(Sealed),
            metadata: row.get::<_, Option<String>>(3)?.map(Sealed),
        })
    })
}

// -- audit ------------------------------------------------------------------------------------------------------------

pub(super) fn insert_audit(connection: &Connection, entries: &[AuditEntry]) -> Result<()> {
    let sql = "INSERT INTO audit (stream, seq, at, entry, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = connection.prepare_cached(sql)?;
    for entry in entries {
        insert.execute(params![
            entry.stream.to_string(),
            i64::try_from(entry.seq).unwrap_or(i64::MAX),
            entry.at.as_microsecond(),
            entry.canonical,
            entry.hash.as_bytes(),
        ])?;
    }
    Ok(())
}

pub(super) fn audit_head(connection: &Connection, stream: &str) -> Result<AuditHead> {
    let sql = "SELECT seq, hash FROM audit WHERE stream = ?1 ORDER BY seq DESC LIMIT 1";
    let head = connection
        .prepare_cached(sql)?
        .query_row([stream], |row| {
            let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
            Ok(AuditHead { seq, hash: AuditHash::from_bytes(row.get(1)?) })
        })
        .optional()?;
    Ok(head.unwrap_or(AuditHead::EMPTY))
}

pub(super) fn audit_entries(
    connection: &Connection,
    stream: &AuditStream,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT seq, at, entry, hash FROM audit WHERE stream = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let values = params![stream.to_string(), i64::try_from(after).unwrap_or(i64::MAX), bound(limit)];
    all(connection, sql, values, |row| {
        Ok(AuditEntry {
            stream: stream.clone(),
            seq: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0),
            at: timestamp(row.get(1)?, 1)?,
            canonical: row.get(2)?,
            hash: AuditHash::from_bytes(row.get(3)?),
        })
    })
}

// -- consent, keys, answers -------------------------------------------------------------------------------------------

pub(super) fn consent(
    connection: &Connection,
    organisation: &OrganisationId,
    subject: SubjectKey,
) -> Result<Option<ConsentRecord>> {
    connection
        .prepare_cached("SELECT body FROM consents WHERE organisation = ?1 AND subject = ?2")?
        .query_row(params![organisation.as_str(), subject.as_bytes()], json_column)
        .optional()
}

pub(super) fn commit_consent(connection: &Connection, commit: &ConsentCommit, body: &str) -> Result<bool> {
    let record = &commit.record;
    let version = i64::try_from(record.version).unwrap_or(i64::MAX);
    let sql = "INSERT INTO consents (organisation, subject, version, body) SELECT ?1, ?2, ?3, ?4 WHERE ?3 = 1 OR \
               EXISTS (SELECT 1 FROM consents WHERE organisation = ?1 AND subject = ?2 AND version = ?3 - 1) \
               ON CONFLICT (organisation, subject) DO UPDATE SET version = excluded.version, body = excluded.body \
               WHERE consents.version = excluded.version - 1";
    let values = params![record.organisation.as_str(), record.subject.as_bytes(), version, body];
    let saved = connection.prepare_cached(sql)?.execute(values)? == 1;
    if saved {
        insert_audit(connection, &commit.audit)?;
    }
    Ok(saved)
}

pub(super) fn data_key(
    connection: &Connection,
    organisation: &OrganisationId,
    person: PersonKey,
) -> Result<Option<WrappedDataKey>> {
    let sql = "SELECT key_id, wrapped, created_at FROM data_keys WHERE organisation = ?1 AND person = ?2";
    connection
        .prepare_cached(sql)?
        .query_row(params![organisation.as_str(), person.as_bytes()], |row| {
            Ok(WrappedDataKey {
                organisation: organisation.clone(),
                person,
                key_id: row.get(0)?,
                wrapped: row.get(1)?,
                created_at: timestamp(row.get(2)?, 2)?,
            })
        })
        .optional()
}

pub(super) fn insert_data_key(connection: &Connection, key: &WrappedDataKey) -> Result<bool> {
    let sql = "INSERT OR IGNORE INTO data_keys (organisation, person, key_id, wrapped, created_at) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        key.organisation.as_str(),
        key.person.as_bytes(),
        key.key_id,
        key.wrapped,
        key.created_at.as_microsecond()
    ];
    Ok(connection.prepare_cached(sql)?.execute(values)? == 1)
}

pub(super) fn answer(connection: &Connection, key: IdempotencyKey) -> Result<Option<IdempotencyRecord>> {
    let sql = "SELECT body, status, answer, created_at FROM answers WHERE key = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([key.as_bytes()], |row| {
            Ok(IdempotencyRecord {
                key,
                body: row.get(0)?,
                status: row.get(1)?,
                answer: row.get(2)?,
                created_at: timestamp(row.get(3)?, 3)?,
            })
        })
        .optional()
}

pub(super) fn insert_answer(connection: &Connection, record: &IdempotencyRecord) -> Result<bool> {
    let sql = "INSERT OR IGNORE INTO answers (key, body, status, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values =
        params![record.key.as_bytes(), record.body, record.status, record.answer, record.created_at.as_microsecond()];
    Ok(connection.prepare_cached(sql)?.execute(values)? == 1)
}
