//! Rows: how values of the domain are written and read. Compares and swaps; knows no rule.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::de::DeserializeOwned;

use super::sql;
use crate::domain::alert::{Alert, StateName};
use crate::domain::audit::{AuditEntry, AuditHash, AuditHead, AuditStream};
use crate::domain::consent::ConsentRecord;
use crate::domain::event::EventDetails;
use crate::domain::ids::{AddressKey, AlertId, EventId, IdempotencyKey, OrganisationId, PersonKey, SubjectKey};
use crate::domain::roster::Roster;
use crate::domain::sealed::Sealed;
use crate::ports::{
    AlertCommit, AuditStretch, Committed, ConsentCommit, IdempotencyRecord, ListCursor, RosterCommit, StoreStats,
    WrappedDataKey,
};

type Result<T> = rusqlite::Result<T>;

/// A limit as SQLite counts.
pub(super) fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    // The fixed word is all that is told: a value from a row must not reach a log.
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}

/// A count as SQLite keeps it. One that does not fit is refused: a number that was bent would pass for another.
pub(super) fn count(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| rusqlite::Error::ToSqlConversionFailure("number too large".into()))
}

/// Reads a column as a count.
fn counted(row: &Row<'_>, column: usize) -> Result<u64> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| unreadable(column, "negative"))
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

pub(super) fn exists<P: Params>(connection: &Connection, sql: &str, values: P) -> Result<bool> {
    connection.prepare_cached(sql)?.exists(values)
}

// -- alerts -----------------------------------------------------------------------------------------------------------

pub(super) fn alert(connection: &Connection, id: AlertId) -> Result<Option<Alert>> {
    connection.prepare_cached(sql::ALERT)?.query_row([id.0.as_bytes()], json_column).optional()
}

pub(super) fn open_alert(
    connection: &Connection,
    organisation: &OrganisationId,
    subject: SubjectKey,
) -> Result<Option<Alert>> {
    connection
        .prepare_cached(sql::OPEN_ALERT)?
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
    let sql = sql::list(state);
    let (opened_at, id) =
        after.map_or((i64::MAX, [0; 16]), |cursor| (cursor.opened_at.as_microsecond(), *cursor.id.0.as_bytes()));
    let values = params![organisation.as_str(), opened_at, id, bound(limit), state.map(StateName::as_str)];
    all(connection, sql, values, json_column)
}

pub(super) fn commit_alert(connection: &Connection, commit: &AlertCommit, body: &str) -> Result<Committed> {
    if let Some(refusal) = refusal(connection, commit)? {
        return Ok(refusal);
    }
    match commit.from_version {
        None => insert_alert(connection, &commit.alert, body)?,
        Some(version) => update_alert(connection, &commit.alert, version, body)?,
    }
    write_addresses(connection, commit)?;
    insert_audit(connection, &commit.audit)?;
    let id = commit.alert.id.0.as_bytes();
    for provider_id in &commit.provider_ids {
        connection
            .prepare_cached("INSERT OR IGNORE INTO provider_messages (provider_id, alert) VALUES (?1, ?2)")?
            .execute(params![provider_id.as_str(), id])?;
    }
    for address in &commit.last_case_of {
        insert_last_case(connection, &commit.alert.organisation, *address, commit.alert.id)?;
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
    if let Some(version) = commit.consent_version
        && consent_version(connection, &alert.organisation, alert.subject)? != version
    {
        return Ok(Some(Committed::ConsentChanged));
    }
    match commit.from_version {
        Some(version) => {
            let sql = "SELECT version FROM alerts WHERE id = ?1";
            let stored: Option<i64> =
                connection.prepare_cached(sql)?.query_row([alert.id.0.as_bytes()], |row| row.get(0)).optional()?;
            let unchanged = stored.is_some() && stored == i64::try_from(version).ok();
            Ok((!unchanged).then_some(Committed::VersionConflict))
        }
        None => {
            if exists(connection, "SELECT 1 FROM alerts WHERE id = ?1", [alert.id.0.as_bytes()])? {
                return Ok(Some(Committed::VersionConflict));
            }
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

pub(super) fn insert_alert(connection: &Connection, alert: &Alert, body: &str) -> Result<()> {
    let sql = "INSERT INTO alerts (id, organisation, reference, subject, kind, state, open, version, opened_at, \
               next_action_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    connection.prepare_cached(sql)?.execute(params![
        alert.id.0.as_bytes(),
        alert.organisation.as_str(),
        alert.reference.as_str(),
        alert.subject.as_bytes(),
        alert.kind.as_str(),
        alert.state.name().as_str(),
        alert.is_open(),
        count(alert.version)?,
        alert.opened_at.as_microsecond(),
        alert.next_action_at().map(Timestamp::as_microsecond),
        body,
    ])?;
    Ok(())
}

fn update_alert(connection: &Connection, alert: &Alert, from_version: u64, body: &str) -> Result<()> {
    let sql = "UPDATE alerts SET state = ?2, open = ?3, version = ?4, next_action_at = ?5, body = ?6 \
               WHERE id = ?1 AND version = ?7";
    let changed = connection.prepare_cached(sql)?.execute(params![
        alert.id.0.as_bytes(),
        alert.state.name().as_str(),
        alert.is_open(),
        count(alert.version)?,
        alert.next_action_at().map(Timestamp::as_microsecond),
        body,
        count(from_version)?,
    ])?;
    // The version was compared in this very transaction, so it is one row; were it none, nothing may be answered.
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

fn write_addresses(connection: &Connection, commit: &AlertCommit) -> Result<()> {
    let alert = &commit.alert;
    let id = alert.id.0.as_bytes();
    if alert.state.hears_phones() {
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

pub(super) fn insert_event_details(connection: &Connection, alert: AlertId, details: &EventDetails) -> Result<()> {
    let sql = "INSERT INTO event_details (alert, event, received_at, message, metadata, reply) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let reply = details.reply.as_ref().map(serde_json::to_string).transpose();
    let reply = reply.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection.prepare_cached(sql)?.execute(params![
        alert.0.as_bytes(),
        details.event.0.as_bytes(),
        details.received_at.as_microsecond(),
        details.message.as_ref().map(|sealed| &sealed.0),
        details.metadata.as_ref().map(|sealed| &sealed.0),
        reply,
    ])?;
    Ok(())
}

pub(super) fn insert_last_case(
    connection: &Connection,
    organisation: &OrganisationId,
    address: AddressKey,
    alert: AlertId,
) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO last_cases (organisation, address, alert) VALUES (?1, ?2, ?3)";
    let values = params![organisation.as_str(), address.as_bytes(), alert.0.as_bytes()];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The columns of [`details_of`].
pub(super) const EVENT_DETAILS: &str = "event, received_at, message, metadata, reply";

/// Reads [`EVENT_DETAILS`], which begin at a column.
pub(super) fn details_of(row: &Row<'_>, first: usize) -> Result<EventDetails> {
    let event: [u8; 16] = row.get(first)?;
    let reply = row.get::<_, Option<String>>(first + 4)?;
    let reply = reply.map(|text| serde_json::from_str(&text)).transpose();
    Ok(EventDetails {
        event: EventId(uuid::Uuid::from_bytes(event)),
        received_at: timestamp(row.get(first + 1)?, first + 1)?,
        reply: reply.map_err(|_| unreadable(first + 4, "JSON not in the expected form"))?,
        message: row.get::<_, Option<String>>(first + 2)?.map(Sealed),
        metadata: row.get::<_, Option<String>>(first + 3)?.map(Sealed),
    })
}

pub(super) fn event_details(connection: &Connection, alert: AlertId) -> Result<Vec<EventDetails>> {
    let sql = format!("SELECT {EVENT_DETAILS} FROM event_details WHERE alert = ?1 ORDER BY received_at, event");
    all(connection, &sql, [alert.0.as_bytes()], |row| details_of(row, 0))
}

// -- audit ------------------------------------------------------------------------------------------------------------

pub(super) fn insert_audit(connection: &Connection, entries: &[AuditEntry]) -> Result<()> {
    let sql = "INSERT INTO audit (stream, seq, at, entry, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut insert = connection.prepare_cached(sql)?;
    for entry in entries {
        insert.execute(params![
            entry.stream.to_string(),
            count(entry.seq)?,
            entry.at.as_microsecond(),
            entry.canonical,
            entry.hash.as_bytes(),
        ])?;
    }
    Ok(())
}

pub(super) fn audit_head(connection: &Connection, stream: &str) -> Result<AuditHead> {
    let head = connection
        .prepare_cached(sql::AUDIT_HEAD)?
        .query_row([stream], |row| Ok(AuditHead { seq: counted(row, 0)?, hash: AuditHash::from_bytes(row.get(1)?) }))
        .optional()?;
    Ok(head.unwrap_or(AuditHead::EMPTY))
}

pub(super) fn audit_entries(
    connection: &Connection,
    stream: &AuditStream,
    after: u64,
    limit: usize,
) -> Result<Vec<AuditEntry>> {
    let values = params![stream.to_string(), i64::try_from(after).unwrap_or(i64::MAX), bound(limit)];
    all(connection, sql::AUDIT_ENTRIES, values, |row| {
        Ok(AuditEntry {
            stream: stream.clone(),
            seq: counted(row, 0)?,
            at: timestamp(row.get(1)?, 1)?,
            canonical: row.get(2)?,
            hash: AuditHash::from_bytes(row.get(3)?),
        })
    })
}

/// Along the table's own order: by the chains' names, then by the entries' numbers.
pub(super) fn audit_walk(connection: &Connection, from: &(String, i64), limit: usize) -> Result<AuditStretch> {
    let (name, seq) = from;
    let entries = all(connection, sql::AUDIT_WALK, params![name, seq, bound(limit)], |row| {
        let stream: AuditStream = parsed(row, 0)?;
        // The next stretch begins behind the name as it is written here.
        if row.get_ref(0)?.as_str().ok() != Some(stream.to_string().as_str()) {
            return Err(unreadable(0, "not in the expected form"));
        }
        Ok(AuditEntry {
            stream,
            seq: counted(row, 1)?,
            at: timestamp(row.get(2)?, 2)?,
            canonical: row.get(3)?,
            hash: AuditHash::from_bytes(row.get(4)?),
        })
    })?;
    let last = entries.last().filter(|_| entries.len() == limit);
    let next = last.map(|last| format!("{} {}", last.seq, last.stream));
    Ok(AuditStretch { entries, next })
}

/// Where a stretch begins that [`audit_walk`] has named.
pub(super) fn walk_place(from: &str) -> Option<(String, i64)> {
    let (seq, name) = from.split_once(' ')?;
    Some((name.to_owned(), seq.parse().ok()?))
}

// -- figures ----------------------------------------------------------------------------------------------------------

pub(super) fn stats(connection: &Connection) -> Result<StoreStats> {
    let found: Vec<(String, u64)> = all(connection, sql::OPEN_BY_STATE, [], |row| Ok((row.get(0)?, counted(row, 1)?)))?;
    let open = StateName::ALL
        .into_iter()
        .filter_map(|state| found.iter().find(|(name, _)| name == state.as_str()).map(|(_, count)| (state, *count)))
        .collect();
    let next: Option<i64> = connection.prepare_cached(sql::NEXT_DUE)?.query_row([], |row| row.get(0))?;
    Ok(StoreStats { open, next_due_at: next.map(|at| timestamp(at, 0)).transpose()? })
}

// -- consent, keys, answers -------------------------------------------------------------------------------------------

pub(super) fn consent(
    connection: &Connection,
    organisation: &OrganisationId,
    subject: SubjectKey,
) -> Result<Option<ConsentRecord>> {
    connection
        .prepare_cached(sql::CONSENT)?
        .query_row(params![organisation.as_str(), subject.as_bytes()], json_column)
        .optional()
}

/// The version of what a student has said; 0 where there is nothing.
fn consent_version(connection: &Connection, organisation: &OrganisationId, subject: SubjectKey) -> Result<u64> {
    let version = connection
        .prepare_cached(sql::CONSENT_VERSION)?
        .query_row(params![organisation.as_str(), subject.as_bytes()], |row| counted(row, 0))
        .optional()?;
    Ok(version.unwrap_or(0))
}

pub(super) fn commit_consent(connection: &Connection, commit: &ConsentCommit, body: &str) -> Result<bool> {
    let record = &commit.record;
    let version = count(record.version)?;
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

pub(super) fn roster(connection: &Connection, organisation: &OrganisationId) -> Result<Option<Roster>> {
    connection.prepare_cached(sql::ROSTER)?.query_row([organisation.as_str()], json_column).optional()
}

pub(super) fn commit_roster(connection: &Connection, commit: &RosterCommit, body: &str) -> Result<bool> {
    let roster = &commit.roster;
    let version = count(roster.version)?;
    let sql = "INSERT INTO rosters (organisation, version, body) SELECT ?1, ?2, ?3 WHERE ?2 = 1 OR \
               EXISTS (SELECT 1 FROM rosters WHERE organisation = ?1 AND version = ?2 - 1) \
               ON CONFLICT (organisation) DO UPDATE SET version = excluded.version, body = excluded.body \
               WHERE rosters.version = excluded.version - 1";
    let values = params![roster.organisation.as_str(), version, body];
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
    connection
        .prepare_cached(sql::DATA_KEY)?
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
    connection
        .prepare_cached(sql::ANSWER)?
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

pub(super) fn fact(connection: &Connection, name: &str) -> Result<Option<String>> {
    let mut find = connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
    find.query_row([name], |row| row.get(0)).optional()
}

pub(super) fn keep_fact(connection: &Connection, name: &str, value: &str) -> Result<String> {
    connection.prepare_cached("INSERT OR IGNORE INTO facts (name, value) VALUES (?1, ?2)")?.execute([name, value])?;
    connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?.query_row([name], |row| row.get(0))
}
