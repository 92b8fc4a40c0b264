//! What is read back from the store: a value that is taken is written as it was read, and can be looked at.

use std::fmt::Debug;

use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::audit::{AuditEntry, AuditHead, verify_chain};
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::policy::Policy;
use crisis_relay::domain::reply::Answer;
use crisis_relay::domain::roster::Roster;
use crisis_relay::domain::schedule::{OnCall, Schedule};
use crisis_relay::service::intake::EventAnswer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Input: the JSON of a row.
pub fn run(data: &[u8]) {
    if let Some(alert) = comes_back::<Alert>(data) {
        let _ = alert.next_action_at();
        assert!(!format!("{alert:?}").contains(super::CANARY), "an alert shows what is sealed");
        let nothing: [AuditEntry; 0] = [];
        assert_eq!(verify_chain(&nothing, Some(alert.audit_head)).is_ok(), alert.audit_head == AuditHead::EMPTY);
    }
    comes_back::<ConsentRecord>(data);
    comes_back::<Policy>(data);
    comes_back::<Roster>(data);
    if let Some(schedule) = comes_back::<Schedule>(data) {
        on_call(&schedule);
    }
    comes_back::<Answer>(data);
    comes_back::<EventAnswer>(data);
    comes_back::<Vec<Alert>>(data);
}

/// Whatever a schedule says, its spans have neither hole nor overlap, and say who is on call.
fn on_call(schedule: &Schedule) {
    let from: jiff::Timestamp = "2026-10-20T00:00:00Z".parse().expect("a time");
    let spans = schedule.spans(from, from + std::time::Duration::from_secs(14 * 86_400));
    assert!(spans.windows(2).all(|pair| pair[0].until == pair[1].from && pair[0].people != pair[1].people));
    let same = |span: &OnCall| span.from < span.until && schedule.on_call(span.from) == span.people;
    assert!(spans.iter().all(same), "{spans:?}");
}

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_string(&read).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, read, "it comes back as another: {written}");
    assert_eq!(serde_json::to_string(&again).ok(), Some(written), "written differently each time");
    Some(read)
}
