//! The audit's chains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crisis_relay::domain::audit::{Actor, AuditEntry, AuditHead, AuditStream, verify_chain};
use crisis_relay::ports::Store;
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

/// Every entry that a walk by stretches of this length meets; `between` is done after each stretch.
async fn walked_with(store: &Arc<dyn Store>, length: usize, between: impl AsyncFn()) -> Vec<AuditEntry> {
    let (mut met, mut from) = (Vec::new(), None);
    loop {
        let stretch = store.audit_walk(from.as_deref(), length).await.unwrap();
        assert!(stretch.entries.len() <= length);
        met.extend(stretch.entries);
        match stretch.next {
            Some(next) => from = Some(next),
            None => return met,
        }
        between().await;
    }
}

pub(crate) async fn walked(store: &Arc<dyn Store>, length: usize) -> Vec<AuditEntry> {
    walked_with(store, length, async || {}).await
}

/// The chains in the order in which they were met. Fails if one was left and come back to.
pub(crate) fn chains(met: &[AuditEntry]) -> Vec<AuditStream> {
    let mut chains: Vec<AuditStream> = Vec::new();
    for entry in met {
        if chains.last() != Some(&entry.stream) {
            assert!(!chains.contains(&entry.stream), "the walk came back to {}", entry.stream);
            chains.push(entry.stream.clone());
        }
    }
    chains
}

/// The chains of these students: each one's alert, consent, and who looked.
async fn all_kinds_of_chains(store: &Arc<dyn Store>, numbers: std::ops::Range<u32>) -> Vec<AuditStream> {
    let college = College::new("north");
    let mut streams = Vec::new();
    for number in numbers {
        let opened = commit(store, college.open(number, at(0))).await;
        commit(store, college.acknowledge(&opened, at(1))).await;
        assert!(store.commit_consent(college.consent(subject(number), None, at(0))).await.unwrap());
        let access = AuditStream::Access(opened.id);
        for entry in chain(&access, 3) {
            assert!(store.append_audit(entry).await.unwrap());
        }
        let other = College::new(&format!("north-{number}"));
        assert!(store.commit_roster(other.roster(None, number, at(0))).await.unwrap());
        let settings = AuditStream::Settings(other.organisation);
        streams.extend([AuditStream::Alert(opened.id), AuditStream::Consent(subject(number)), access, settings]);
    }
    streams
}

pub(crate) async fn a_walk_meets_every_entry_once_chain_after_chain<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    assert_eq!(walked(&store, 10).await, []);
    let mut expected = all_kinds_of_chains(&store, 0..9).await;
    expected.sort_by_key(ToString::to_string);
    let mut first: Option<Vec<AuditEntry>> = None;

    for length in [1, 4, 27, 1000] {
        let met = walked(&store, length).await;
        let mut streams = chains(&met);
        streams.sort_by_key(ToString::to_string);
        assert_eq!(streams, expected, "by {length}");
        for stream in &expected {
            let of_it: Vec<AuditEntry> = met.iter().filter(|entry| entry.stream == *stream).cloned().collect();
            assert_eq!(of_it, store.audit_entries(stream, 0, 100).await.unwrap(), "{stream}, by {length}");
        }
        assert_eq!(*first.get_or_insert_with(|| met.clone()), met, "another order by {length}");
    }
}

pub(crate) async fn a_walk_misses_and_repeats_nothing_while_others_append<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let there = all_kinds_of_chains(&store, 0..4).await;
    let before = walked(&store, 1000).await;
    let (stretches, access) = (AtomicU32::new(0), chain(&there[2], 40));

    let met = walked_with(&store, 3, async || {
        // Some get longer, wherever they lie, and others begin.
        let number = stretches.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = access.get(3 + number as usize) {
            assert!(store.append_audit(entry.clone()).await.unwrap());
        }
        if number < 5 {
            all_kinds_of_chains(&store, 100 + number..101 + number).await;
        }
    })
    .await;

    for stream in chains(&met) {
        let of_it: Vec<&AuditEntry> = met.iter().filter(|entry| entry.stream == stream).collect();
        verify_chain(of_it, None).unwrap_or_else(|fault| panic!("{stream}: {fault}"));
    }
    for entry in &before {
        assert!(met.contains(entry), "entry {} of {} was there all the time, and not met", entry.seq, entry.stream);
    }
}
