//! The audit's chains.

use crisis_relay::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream, verify_chain};
use serde::Serialize;

use super::{Place, commit};
use crate::builders::{College, at, subject};

#[derive(Serialize)]
struct Looked {
    at_what: u64,
}

fn chain(stream: &AuditStream, length: u64) -> Vec<AuditEntry> {
    let mut head = AuditHead::EMPTY;
    (1..=length).map(|at_what| head.append(stream.clone(), at(0), &Actor::Service, &Looked { at_what })).collect()
}

pub(crate) async fn a_chain_is_read_in_pages_and_verifies<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (first, second) =
        (College::new("north").open(1, at(0)).alert.id, College::new("north").open(2, at(0)).alert.id);
    let stream = AuditStream::Access(first);
    assert_eq!(store.audit_head(&stream).await.unwrap(), AuditHead::EMPTY);
    assert_eq!(store.audit_entries(&stream, 0, 10).await.unwrap(), []);
    let written = chain(&stream, 11);
    // Neighbours by name, whose entries must not be mixed in.
    for entry in written
        .iter()
        .cloned()
        .chain(chain(&AuditStream::Access(second), 3))
        .chain(chain(&AuditStream::Alert(first), 3))
    {
        assert!(store.append_audit(entry).await.unwrap());
    }

    for page in [1, 4, 11, 100] {
        let mut read: Vec<AuditEntry> = Vec::new();
        loop {
            let after = read.last().map_or(0, |entry| entry.seq);
            let found = store.audit_entries(&stream, after, page).await.unwrap();
            assert!(found.len() <= page);
            if found.is_empty() {
                break;
            }
            read.extend(found);
        }
        assert_eq!(read, written, "by {page}");
        let head = store.audit_head(&stream).await.unwrap();
        assert_eq!(verify_chain(&read, Some(head)), Ok(head));
        assert_eq!(head.seq, 11);
    }
    assert_eq!(store.audit_entries(&stream, u64::MAX, 10).await.unwrap(), []);
    assert_eq!(store.audit_entries(&stream, 0, 0).await.unwrap(), []);
}

pub(crate) async fn an_entry_is_appended_only_to_the_end<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let stream = AuditStream::Access(College::new("north").open(1, at(0)).alert.id);
    let entries = chain(&stream, 4);
    assert!(!store.append_audit(entries[1].clone()).await.unwrap(), "the first is missing");
    assert!(store.append_audit(entries[0].clone()).await.unwrap());
    assert!(store.append_audit(entries[1].clone()).await.unwrap());
    let before = place.dump().await;

    for refused in [&entries[0], &entries[1], &entries[3]] {
        assert!(!store.append_audit(refused.clone()).await.unwrap());
        assert_eq!(place.dump().await, before);
    }
    assert!(store.append_audit(entries[2].clone()).await.unwrap());
}

pub(crate) async fn every_chain_is_listed_once_and_in_order<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    assert_eq!(store.audit_streams(None, 10).await.unwrap(), []);
    let mut expected = Vec::new();
    for number in 0..9 {
        let opened = commit(&store, college.open(number, at(0))).await;
        commit(&store, college.acknowledge(&opened, at(1))).await;
        assert!(store.commit_consent(college.consent(subject(number), None, at(0))).await.unwrap());
        let access = AuditStream::Access(opened.id);
        for entry in chain(&access, 3) {
            assert!(store.append_audit(entry).await.unwrap());
        }
        expected.extend([AuditStream::Alert(opened.id), AuditStream::Consent(subject(number)), access]);
    }
    expected.sort_by_key(ToString::to_string);

    for page in [1, 4, 27, 100] {
        let mut found: Vec<AuditStream> = Vec::new();
        loop {
            let after = found.last().map(ToString::to_string);
            let streams = store.audit_streams(after.as_deref(), page).await.unwrap();
            assert!(streams.len() <= page);
            if streams.is_empty() {
                break;
            }
            found.extend(streams);
        }
        assert_eq!(found, expected, "by {page}");
    }
    assert_eq!(store.audit_streams(None, 0).await.unwrap(), []);
}
