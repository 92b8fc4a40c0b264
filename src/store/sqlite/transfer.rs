//! Everything that the file holds, out and in.
//!
//! A page begins after the key of the last row before it, by the index that the rows are ordered by: the last page costs
//! as much as the first.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::types::{ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{Connection, Result, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::{SqliteStore, rows};
use crate::domain::audit::{AuditEntry, AuditHash};
use crate::domain::ids::{AddressKey, AlertId, IdempotencyKey, OrganisationId, PersonKey};
use crate::ports::transfer::{Kind, Page, Piece, Transfer};
use crate::ports::{IdempotencyRecord, StoreError, WrappedDataKey};

/// All rows of a kind, in the order of their key, after another key: `?1` is how many, the key's columns follow.
pub(super) const fn every(kind: Kind) -> &'static str {
    match kind {
        Kind::Fact => {
            "SELECT name, value FROM facts WHERE name > ?2 AND name NOT IN ('copying', 'moved_to') \
             ORDER BY name LIMIT ?1"
        }
        Kind::DataKey => {
            "SELECT organisation, person, key_id, wrapped, created_at FROM data_keys \
             WHERE (organisation, person) > (?2, ?3) ORDER BY organisation, person LIMIT ?1"
        }
        Kind::Consent => {
            "SELECT body, organisation, subject FROM consents \
             WHERE (organisation, subject) > (?2, ?3) ORDER BY organisation, subject LIMIT ?1"
        }
        Kind::Roster => "SELECT body, organisation FROM rosters WHERE organisation > ?2 ORDER BY organisation LIMIT ?1",
        Kind::Audit => {
            "SELECT stream, seq, at, entry, hash FROM audit \
             WHERE (stream, seq) > (?2, ?3) ORDER BY stream, seq LIMIT ?1"
        }
        Kind::Event => {
            "SELECT alert, event, received_at, message, metadata, reply FROM event_details \
             WHERE (alert, event) > (?2, ?3) ORDER BY alert, event LIMIT ?1"
        }
        Kind::Message => {
            "SELECT alert, provider_id FROM provider_messages WHERE provider_id > ?2 ORDER BY provider_id LIMIT ?1"
        }
        Kind::LastCase => {
            "SELECT organisation, address, alert FROM last_cases \
             WHERE (organisation, address) > (?2, ?3) ORDER BY organisation, address LIMIT ?1"
        }
        Kind::Answer => {
            "SELECT key, body, status, answer, created_at FROM answers WHERE key > ?2 ORDER BY key LIMIT ?1"
        }
        Kind::Alert => "SELECT body, id FROM alerts WHERE id > ?2 ORDER BY id LIMIT ?1",
    }
}

/// A value of a key's column. By the columns and not by what is read out of a body: a page must get on whatever that says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum KeyPart {
    Text(String),
    Bytes(Vec<u8>),
    Number(i64),
}

impl KeyPart {
    const TEXT: Self = Self::Text(String::new());
    const BYTES: Self = Self::Bytes(Vec::new());

    fn of(row: &Row<'_>, column: usize) -> Result<Self> {
        Ok(match row.get_ref(column)? {
            ValueRef::Text(_) => Self::Text(row.get(column)?),
            ValueRef::Blob(bytes) => Self::Bytes(bytes.to_vec()),
            ValueRef::Integer(number) => Self::Number(number),
            found @ (ValueRef::Null | ValueRef::Real(_)) => {
                return Err(rusqlite::Error::FromSqlConversionFailure(column, found.data_type(), "no key".into()));
            }
        })
    }
}

impl ToSql for KeyPart {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
            Self::Number(number) => number.to_sql(),
        }
    }
}

/// What comes before every key of a kind, and the columns of [`every`] that the key stands in.
fn keys(kind: Kind) -> (Vec<KeyPart>, &'static [usize]) {
    match kind {
        Kind::Fact => (vec![KeyPart::TEXT], &[0]),
        Kind::DataKey => (vec![KeyPart::TEXT, KeyPart::BYTES], &[0, 1]),
        Kind::Consent => (vec![KeyPart::TEXT, KeyPart::BYTES], &[1, 2]),
        Kind::Roster => (vec![KeyPart::TEXT], &[1]),
        Kind::Audit => (vec![KeyPart::TEXT, KeyPart::Number(0)], &[0, 1]),
        Kind::Event => (vec![KeyPart::BYTES, KeyPart::BYTES], &[0, 1]),
        Kind::Message => (vec![KeyPart::TEXT], &[1]),
        Kind::LastCase => (vec![KeyPart::TEXT, KeyPart::BYTES], &[0, 1]),
        Kind::Answer => (vec![KeyPart::BYTES], &[0]),
        Kind::Alert => (vec![KeyPart::BYTES], &[1]),
    }
}

/// A page of pieces, and the key of the last.
fn page(connection: &Connection, kind: Kind, after: &[KeyPart], limit: usize) -> Result<(Vec<Piece>, Vec<KeyPart>)> {
    let (_, columns) = keys(kind);
    let limit = rows::bound(limit);
    let values = std::iter::once(&limit as &dyn ToSql).chain(after.iter().map(|part| part as &dyn ToSql));
    let mut last = Vec::new();
    let pieces = rows::all(connection, every(kind), params_from_iter(values), |row| {
        last = columns.iter().map(|column| KeyPart::of(row, *column)).collect::<Result<_>>()?;
        piece(connection, kind, row)
    })?;
    Ok((pieces, last))
}

fn uuid(row: &Row<'_>, column: usize) -> Result<uuid::Uuid> {
    row.get::<_, [u8; 16]>(column).map(uuid::Uuid::from_bytes)
}

fn piece(connection: &Connection, kind: Kind, row: &Row<'_>) -> Result<Piece> {
    Ok(match kind {
        Kind::Fact => Piece::Fact(row.get(0)?, row.get(1)?),
        Kind::DataKey => Piece::DataKey(WrappedDataKey {
            organisation: rows::parsed::<OrganisationId>(row, 0)?,
            person: PersonKey::from_bytes(row.get(1)?),
            key_id: row.get(2)?,
            wrapped: row.get(3)?,
            created_at: rows::timestamp(row.get(4)?, 4)?,
        }),
        Kind::Consent => Piece::Consent(Box::new(rows::json_column(row)?), row.get(0)?),
        Kind::Roster => Piece::Roster(Box::new(rows::json_column(row)?), row.get(0)?),
        Kind::Audit => Piece::Audit(AuditEntry {
            stream: rows::parsed(row, 0)?,
            seq: u64::try_from(row.get::<_, i64>(1)?)
                .map_err(|_| rusqlite::Error::FromSqlConversionFailure(1, Type::Integer, "negative".into()))?,
            at: rows::timestamp(row.get(2)?, 2)?,
            canonical: row.get(3)?,
            hash: AuditHash::from_bytes(row.get(4)?),
        }),
        Kind::Event => Piece::Event(AlertId(uuid(row, 0)?), rows::details_of(row, 1)?),
        Kind::LastCase => {
            Piece::LastCase(rows::parsed(row, 0)?, AddressKey::from_bytes(row.get(1)?), AlertId(uuid(row, 2)?))
        }
        Kind::Message => Piece::Message(rows::parsed(row, 1)?, AlertId(uuid(row, 0)?)),
        Kind::Answer => Piece::Answer(IdempotencyRecord {
            key: IdempotencyKey::from_bytes(row.get(0)?),
            body: row.get(1)?,
            status: row.get(2)?,
            answer: row.get(3)?,
            created_at: rows::timestamp(row.get(4)?, 4)?,
        }),
        Kind::Alert => {
            let alert: Box<crate::domain::alert::Alert> = Box::new(rows::json_column(row)?);
            let told = told(connection, alert.id)?;
            Piece::Alert(alert, row.get(0)?, told)
        }
    })
}

fn told(connection: &Connection, alert: AlertId) -> Result<BTreeSet<AddressKey>> {
    let sql = "SELECT address FROM alert_addresses WHERE alert = ?1";
    let found = rows::all(connection, sql, [alert.0.as_bytes()], |row| row.get(0).map(AddressKey::from_bytes))?;
    Ok(found.into_iter().collect())
}

fn write(connection: &Connection, piece: &Piece) -> Result<()> {
    match piece {
        Piece::Fact(name, value) => {
            let sql = "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute([name, value])?;
        }
        Piece::DataKey(key) => {
            rows::insert_data_key(connection, key)?;
        }
        Piece::Consent(record, body) => {
            let sql = "INSERT OR REPLACE INTO consents (organisation, subject, version, body) VALUES (?1, ?2, ?3, ?4)";
            let values =
                params![record.organisation.as_str(), record.subject.as_bytes(), rows::count(record.version)?, body];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        Piece::Roster(roster, body) => {
            let sql = "INSERT OR REPLACE INTO rosters (organisation, version, body) VALUES (?1, ?2, ?3)";
            let values = params![roster.organisation.as_str(), rows::count(roster.version)?, body];
            connection.prepare_cached(sql)?.execute(values)?;
        }
        Piece::Audit(entry) => {
            // Never over what is there: a row of the audit is not changed, and the proof finds out what differs.
            let there = "SELECT 1 FROM audit WHERE stream = ?1 AND seq = ?2";
            let values = params![entry.stream.to_string(), rows::count(entry.seq)?];
            if !rows::exists(connection, there, values)? {
                rows::insert_audit(connection, std::slice::from_ref(entry))?;
            }
        }
        Piece::Event(alert, details) => {
            let sql = "DELETE FROM event_details WHERE alert = ?1 AND event = ?2";
            connection.prepare_cached(sql)?.execute(params![alert.0.as_bytes(), details.event.0.as_bytes()])?;
            rows::insert_event_details(connection, *alert, details)?;
        }
        Piece::Message(id, alert) => {
            let sql = "INSERT OR REPLACE INTO provider_messages (provider_id, alert) VALUES (?1, ?2)";
            connection.prepare_cached(sql)?.execute(params![id.as_str(), alert.0.as_bytes()])?;
        }
        Piece::LastCase(organisation, address, alert) => {
            rows::insert_last_case(connection, organisation, *address, *alert)?;
        }
        Piece::Answer(record) => {
            // A key that was forgotten may have been used anew since an earlier try of this copy.
            connection.prepare_cached("DELETE FROM answers WHERE key = ?1")?.execute([record.key.as_bytes()])?;
            rows::insert_answer(connection, record)?;
        }
        Piece::Alert(alert, body, told) => {
            let id = alert.id.0.as_bytes();
            connection.prepare_cached("DELETE FROM alerts WHERE id = ?1")?.execute([id])?;
            connection.prepare_cached("DELETE FROM alert_addresses WHERE alert = ?1")?.execute([id])?;
            rows::insert_alert(connection, alert, body)?;
            let sql = "INSERT INTO alert_addresses (alert, address, organisation) VALUES (?1, ?2, ?3)";
            for address in told {
                let values = params![id, address.as_bytes(), alert.organisation.as_str()];
                connection.prepare_cached(sql)?.execute(values)?;
            }
        }
    }
    Ok(())
}

fn no_place() -> StoreError {
    StoreError::Corrupt { what: "a page was asked for from a place that this store has not named".to_owned() }
}

#[async_trait]
impl Transfer for SqliteStore {
    async fn export(&self, kind: Kind, from: Option<String>, limit: usize) -> std::result::Result<Page, StoreError> {
        let after = match from {
            None => keys(kind).0,
            Some(from) => serde_json::from_str(&from).map_err(|_| no_place())?,
        };
        let (pieces, last) = self.readers.read(move |connection| page(connection, kind, &after, limit)).await?;
        let next =
            if pieces.len() == limit { Some(serde_json::to_string(&last).map_err(|_| no_place())?) } else { None };
        Ok(Page { pieces, next })
    }

    async fn import(&self, pieces: Vec<Piece>) -> std::result::Result<(), StoreError> {
        self.writer.write(move |connection| pieces.iter().try_for_each(|piece| write(connection, piece))).await
    }

    async fn read_mark(&self, name: &'static str) -> std::result::Result<Option<String>, StoreError> {
        self.fact(name).await
    }

    async fn mark(&self, name: &'static str, value: Option<String>) -> std::result::Result<(), StoreError> {
        self.writer
            .write(move |connection| match &value {
                Some(value) => write(connection, &Piece::Fact(name.to_owned(), value.clone())),
                None => connection.execute("DELETE FROM facts WHERE name = ?1", [name]).map(|_| ()),
            })
            .await
    }
}
