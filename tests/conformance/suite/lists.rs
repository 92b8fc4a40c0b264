//! Lists: stable pages, the right order, the right bounds.

use std::sync::Arc;

use crisis_relay::domain::alert::{Alert, Input, StateName};
use crisis_relay::domain::ids::{AlertId, OrganisationId};
use crisis_relay::ports::{ListCursor, Store, StoreStats};
use jiff::Timestamp;

use super::{Place, commit};
use crate::builders::{College, at, at_micros};

fn cursor(last: &Alert) -> ListCursor {
    ListCursor { opened_at: last.opened_at, id: last.id }
}

fn newest_first(alerts: &mut [Alert]) {
    alerts.sort_by_key(|alert| std::cmp::Reverse((alert.opened_at, alert.id)));
}

async fn listed(
    store: &Arc<dyn Store>,
    organisation: &OrganisationId,
    state: Option<StateName>,
    page: usize,
) -> Vec<Alert> {
    let mut all: Vec<Alert> = Vec::new();
    loop {
        let found = store.list_alerts(organisation, state, all.last().map(cursor), page).await.unwrap();
        assert!(found.len() <= page);
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

/// Ten alerts, of every state, three of an instant.
async fn mixed(store: &Arc<dyn Store>, college: &College, from: u32) -> Vec<Alert> {
    let mut all = Vec::new();
    for number in from..from + 24 {
        let now = at(i64::from(number / 3));
        let opened = match number % 4 {
            0 => commit(store, college.withhold(number, now)).await,
            _ => commit(store, college.open(number, now)).await,
        };
        all.push(match number % 4 {
            2 => commit(store, college.acknowledge(&opened, at(100))).await,
            3 => commit(store, college.resolve(&opened, at(100))).await,
            _ => opened,
        });
    }
    all
}

pub(crate) async fn listing_pages_have_no_gaps_and_no_repeats_while_others_insert<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let mut there = mixed(&store, &north, 0).await;
    mixed(&store, &south, 200).await;
    newest_first(&mut there);

    let mut seen: Vec<Alert> = Vec::new();
    for page in 0.. {
        let found = store.list_alerts(&north.organisation, None, seen.last().map(cursor), 5).await.unwrap();
        if found.is_empty() {
            break;
        }
        seen.extend(found);
        // Meanwhile somebody opens a case, and somebody closes one that was seen.
        commit(&store, north.open(1000 + page, at(1000))).await;
        if let Some(open) = there.iter_mut().find(|alert| alert.state.name() == StateName::Escalating) {
            let was_seen = seen.iter().any(|alert| alert.id == open.id);
            *open = commit(&store, north.resolve(open, at(1000))).await;
            if was_seen {
                seen.iter_mut().filter(|alert| alert.id == open.id).for_each(|alert| *alert = open.clone());
            }
        }
    }

    assert_eq!(seen, there);
    assert_eq!(store.list_alerts(&north.organisation, None, None, 0).await.unwrap(), []);
}

pub(crate) async fn every_state_is_listed_and_no_other<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    let mut there = mixed(&store, &north, 0).await;
    mixed(&store, &south, 200).await;
    newest_first(&mut there);

    for state in StateName::ALL {
        let expected: Vec<Alert> = there.iter().filter(|alert| alert.state.name() == state).cloned().collect();
        assert_eq!(expected.len(), 6);
        for page in [1, 2, 5, 100] {
            let found = listed(&store, &north.organisation, Some(state), page).await;
            assert_eq!(found, expected, "{state:?} by {page}");
        }
    }
    assert_eq!(listed(&store, &north.organisation, None, 7).await, there);
    let nowhere = College::new("nowhere").organisation;
    assert_eq!(listed(&store, &nowhere, None, 7).await, []);
}

pub(crate) async fn alerts_of_one_instant_are_listed_one_by_one<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let mut there = Vec::new();
    for number in 0..9 {
        // Finer than a microsecond, so that a store that keeps less must not stumble over it.
        let now = Timestamp::from_nanosecond(at(0).as_nanosecond() + i128::from(number)).unwrap();
        there.push(commit(&store, college.open(number, now)).await.id);
    }

    for page in [1, 2, 4] {
        let mut found: Vec<AlertId> =
            listed(&store, &college.organisation, None, page).await.iter().map(|alert| alert.id).collect();
        found.sort_unstable();
        assert_eq!(found, there, "by {page}");
    }
}

pub(crate) async fn what_is_due_comes_longest_due_first<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    // Opened in one order, due in another: the lease of the first message ends when the case says.
    let mut due: Vec<(Timestamp, AlertId)> = Vec::new();
    for (number, opened_at) in [(1, 50), (2, 10), (3, 40), (4, 20), (5, 30)] {
        let alert = commit(&store, college.open(number, at(opened_at))).await;
        due.push((alert.next_action_at().unwrap(), alert.id));
    }
    commit(&store, college.withhold(6, at(0))).await;
    due.sort_unstable();
    let ids: Vec<AlertId> = due.iter().map(|(_, id)| *id).collect();

    assert_eq!(store.due_alerts(at(1_000_000), 10).await.unwrap(), ids);
    assert_eq!(store.due_alerts(at(1_000_000), 3).await.unwrap(), ids[..3]);
    assert_eq!(store.due_alerts(at(1_000_000), 0).await.unwrap(), []);
    for (place, (when, _)) in due.iter().enumerate() {
        let just_before = Timestamp::from_microsecond(when.as_microsecond() - 1).unwrap();
        assert_eq!(store.due_alerts(*when, 10).await.unwrap(), ids[..=place], "at the very time");
        assert_eq!(store.due_alerts(just_before, 10).await.unwrap(), ids[..place], "and not before");
    }
}

pub(crate) async fn what_is_due_follows_changes<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let opened = commit(&store, college.open(1, at(0))).await;
    let step = opened.next_action_at().unwrap();
    assert_eq!(store.due_alerts(step, 10).await.unwrap(), [opened.id]);

    let next = commit(&store, college.change(&opened, Input::Wake { sole_owner_restarted: false }, step)).await;
    assert!(next.next_action_at() > Some(step));
    assert_eq!(store.due_alerts(step, 10).await.unwrap(), []);
    assert_eq!(store.due_alerts(next.next_action_at().unwrap(), 10).await.unwrap(), [next.id]);

    let told = commit(&store, college.withhold(2, at(0))).await;
    assert_eq!(store.due_alerts(at(1_000_000), 10).await.unwrap(), [next.id], "withheld: nothing is due");
    commit(&store, college.resolve(&told, at(5))).await;
    assert_eq!(store.unfinished_alerts(None, 10).await.unwrap(), [next.id]);
}

pub(crate) async fn unfinished_alerts_are_paged_the_latest_first<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let college = College::new("north");
    let there = mixed(&store, &college, 0).await;
    let mut expected: Vec<AlertId> =
        there.iter().filter(|alert| alert.next_action_at().is_some()).map(|alert| alert.id).collect();
    expected.sort_unstable();
    expected.reverse();
    assert!(expected.len() >= 12);

    for page in [1, 5, 100] {
        let mut found: Vec<AlertId> = Vec::new();
        loop {
            let ids = store.unfinished_alerts(found.last().copied(), page).await.unwrap();
            assert!(ids.len() <= page);
            if ids.is_empty() {
                break;
            }
            found.extend(ids);
        }
        assert_eq!(found, expected, "by {page}");
    }
}

pub(crate) async fn figures_tell_what_is_open_and_when_work_is_due<P: Place>() {
    let place = P::new().await;
    let store = place.open().await;
    let (north, south) = (College::new("north"), College::new("south"));
    assert_eq!(store.stats().await.unwrap(), StoreStats::default());

    let there = [mixed(&store, &north, 0).await, mixed(&store, &south, 200).await].concat();

    let found = store.stats().await.unwrap();
    let open = [StateName::Withheld, StateName::Escalating, StateName::Acknowledged].map(|state| (state, 12));
    assert_eq!(found.open, open);
    assert_eq!(found.next_due_at, there.iter().filter_map(Alert::next_action_at).min());

    for alert in there.iter().filter(|alert| alert.is_open()) {
        commit(&store, if alert.organisation == north.organisation { &north } else { &south }.resolve(alert, at(200)))
            .await;
    }
    assert_eq!(store.stats().await.unwrap().open, []);
    let fresh = commit(&store, north.open(500, at_micros(300_000_007))).await;
    let found = store.stats().await.unwrap();
    assert_eq!(found.open, [(StateName::Escalating, 1)]);
    assert!(found.next_due_at.is_some() && found.next_due_at <= fresh.next_action_at());
}
