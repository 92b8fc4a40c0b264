//! Everything that the file holds, out and in.
//!
//! Nobody else writes the file meanwhile (the lock file), so a page begins at a number of rows, in the order of the key.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::types::Type;
use rusqlite::{Connection, Result, Row, params};

use super::{SqliteStore, rows};
use crate::domain::audit::{AuditEntry, AuditHash};
use crate::domain::event::EventDetails;
use crate::domain::ids::{AddressKey, AlertId, EventId, IdempotencyKey, OrganisationId, PersonKey};
use crate::domain::sealed::Sealed;
use crate::ports::transfer::{Kind, Page, Piece, Transfer};
use crate::ports::{IdempotencyRecord, StoreError, WrappedDataKey};

const fn every(kind: Kind) -> &'static str {
    match kind {
        Kind::Fact => {
            "SELECT name, value FROM facts WHERE name NOT IN ('copying', 'moved_to') \
             ORDER BY name LIMIT ?1 OFFSET ?2"
        }
        Kind::DataKey => {
            "SELECT organisation, person, key_id, wrapped, created_at FROM data_keys \
             ORDER BY organisation, person LIMIT ?1 OFFSET ?2"
        }
        Kind::Consent => "SELECT body FROM consents ORDER BY organisation, subject LIMIT ?1 OFFSET ?2",
        Kind::Audit => "SELECT stream, seq, at, entry, hash FROM audit ORDER BY stream, seq LIMIT ?1 OFFSET ?2",
        Kind::Event => {
            "SELECT alert, event, received_at, message, metadata FROM event_details \
             ORDER BY alert, event LIMIT ?1 OFFSET ?2"
        }
        Kind::Message => "SELECT alert, provider_id FROM provider_messages ORDER BY provider_id LIMIT ?1 OFFSET ?2",
        Kind::Answer => "SELECT key, body, status, answer, created_at FROM answers ORDER BY key LIMIT ?1 OFFSET ?2",
        Kind::Alert => "SELECT body FROM alerts ORDER BY id LIMIT ?1 OFFSET ?2",
    }
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
        Kind::Audit => Piece::Audit(AuditEntry {
            stream: rows::parsed(row, 0)?,
            seq: u64::try_from(row.get::<_, i64>(1)?)
                .map_err(|_| rusqlite::Error::FromSqlConversionFailure(1, Type::Integer, "negative".into()))?,
            at: rows::timestamp(row.get(2)?, 2)?,
            canonical: row.get(3)?,
            hash: AuditHash::from_bytes(row.get(4)?),
        }),
        Kind::Event => Piece::Event(
            AlertId(uuid(row, 0)?),
            EventDetails {
                event: EventId(uuid(row, 1)?),
                received_at: rows::timestamp(row.get(2)?, 2)?,
                message: row.get::<_, Option<String>>(3)?.map(Sealed),
                metadata: row.get::<_, Option<String>>(4)?.map(Sealed),
            },
        ),
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
        Piece::Answer(record) => {
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

#[async_trait]
impl Transfer for SqliteStore {
    async fn export(&self, kind: Kind, from: Option<String>, limit: usize) -> std::result::Result<Page, StoreError> {
        let begin: usize = from.and_then(|from| from.parse().ok()).unwrap_or(0);
        let read = move |connection: &Connection| {
            let values = [rows::bound(limit), rows::bound(begin)];
            rows::all(connection, every(kind), values, |row| piece(connection, kind, row))
        };
        let pieces = self.readers.read(read).await?;
        let next = (pieces.len() == limit).then(|| (begin + limit).to_string());
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
