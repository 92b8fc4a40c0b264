//! The statements that read, in one place, so that a test can ask SQLite how it goes about each of them: none that is
//! asked often may walk through a whole table.

use crate::domain::alert::StateName;

pub(super) const ALERT: &str = "SELECT body FROM alerts WHERE id = ?1";

pub(super) const OPEN_ALERT: &str = "SELECT body FROM alerts WHERE organisation = ?1 AND subject = ?2 AND open = 1";

pub(super) const ALERT_BY_REFERENCE: &str = "SELECT body FROM alerts WHERE organisation = ?1 AND reference = ?2";

pub(super) const ALERT_OF_MESSAGE: &str =
    "SELECT a.body FROM provider_messages m JOIN alerts a ON a.id = m.alert WHERE m.provider_id = ?1";

pub(super) const LAST_CASE: &str = "SELECT a.body FROM last_cases l JOIN alerts a ON a.id = l.alert \
    WHERE l.organisation = ?1 AND l.address = ?2";

pub(super) const CASES_OF: &str = "\
    SELECT a.body FROM alert_addresses d JOIN alerts a ON a.id = d.alert \
    WHERE d.organisation = ?1 AND d.address = ?2 AND a.state IN ('escalating', 'acknowledged') ORDER BY d.alert DESC LIMIT ?3";

pub(super) const DUE_ALERTS: &str = "SELECT id FROM alerts WHERE next_action_at <= ?1 ORDER BY next_action_at LIMIT ?2";

/// By the index that holds the unfinished ones alone: the one over all ids would lead through everything that is closed.
pub(super) const UNFINISHED_ALERTS: &str = "SELECT id FROM alerts INDEXED BY alerts_unfinished \
     WHERE next_action_at IS NOT NULL AND id < ?1 ORDER BY id DESC LIMIT ?2";

/// Open states are few and have an index of their own; resolved alerts are found by age.
pub(super) const fn list(state: Option<StateName>) -> &'static str {
    match state {
        None => {
            "SELECT body FROM alerts WHERE organisation = ?1 AND ?5 IS NULL AND (opened_at, id) < (?2, ?3) \
             ORDER BY opened_at DESC, id DESC LIMIT ?4"
        }
        Some(StateName::Resolved) => {
            "SELECT body FROM alerts WHERE organisation = ?1 AND open = 0 AND state = ?5 \
             AND (opened_at, id) < (?2, ?3) ORDER BY opened_at DESC, id DESC LIMIT ?4"
        }
        Some(StateName::Withheld | StateName::Escalating | StateName::Acknowledged) => {
            "SELECT body FROM alerts WHERE organisation = ?1 AND open = 1 AND state = ?5 \
             AND (opened_at, id) < (?2, ?3) ORDER BY opened_at DESC, id DESC LIMIT ?4"
        }
    }
}

pub(super) const AUDIT_HEAD: &str = "SELECT seq, hash FROM audit WHERE stream = ?1 ORDER BY seq DESC LIMIT 1";

pub(super) const AUDIT_ENTRIES: &str =
    "SELECT seq, at, entry, hash FROM audit WHERE stream = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";

pub(super) const AUDIT_WALK: &str = "SELECT stream, seq, at, entry, hash FROM audit WHERE (stream, seq) > (?1, ?2) \
     ORDER BY stream, seq LIMIT ?3";

pub(super) const CONSENT: &str = "SELECT body FROM consents WHERE organisation = ?1 AND subject = ?2";

pub(super) const CONSENT_VERSION: &str = "SELECT version FROM consents WHERE organisation = ?1 AND subject = ?2";

pub(super) const ROSTER: &str = "SELECT body FROM rosters WHERE organisation = ?1";

pub(super) const DATA_KEY: &str =
    "SELECT key_id, wrapped, created_at FROM data_keys WHERE organisation = ?1 AND person = ?2";

pub(super) const ANSWER: &str = "SELECT body, status, answer, created_at FROM answers WHERE key = ?1";

pub(super) const FORGET_ANSWERS: &str =
    "DELETE FROM answers WHERE key IN (SELECT key FROM answers WHERE created_at < ?1 LIMIT ?2)";

pub(super) const OPEN_BY_STATE: &str = "SELECT state, count(*) FROM alerts WHERE open = 1 GROUP BY state";

pub(super) const NEXT_DUE: &str = "SELECT min(next_action_at) FROM alerts WHERE next_action_at IS NOT NULL";
