//! Reading: cases by id and reference, lists that lose nothing, messages with their errors in plain words, the audit, and
//! the trace that every look leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::audit::{Actor, AuditStream};
use crisis_relay::ports::{AlertCommit, Committed};
use crisis_relay::simulator::{Fault, FaultRule};
use crisis_relay::twilio::error_codes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::{ADMIN, AUDITOR, COUNSELLOR_KEY, Setting, World, token};

const LIST: &str = "/api/v1/crisis/alerts";

async fn withheld(world: &World, user_id: &str) -> String {
    let event = json!({ "user_id": user_id, "crisis_score": 0.9, "source": "chat" });
    world.event(&event).await.expect(202).text_at("/alert_id")
}

async fn page(world: &World, query: &str) -> Value {
    world.get(&format!("{LIST}?{query}"), COUNSELLOR_KEY).await.expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    page["alerts"].as_array().unwrap().iter().map(|alert| alert["id"].as_str().unwrap().to_owned()).collect()
}

/// Follows the cursors to the end.
async fn all(world: &World, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = page(world, &format!("{query}{cursor}")).await;
        found.extend(ids(&page));
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test]
async fn a_case_is_found_by_id_and_by_reference_however_it_is_typed() {
    let world = World::new().await;
    let opened = world.escalated("student-1").await;
    let (id, reference) = (opened.text_at("/alert_id"), opened.text_at("/reference"));
    let dashed = format!("{}-{}", &reference[..4], &reference[4..].to_lowercase());
    let spoken = reference.replace('0', "o").replace('1', "l");
    for name in [&id, &id.to_uppercase(), &reference, &reference.to_lowercase(), &dashed, &spoken] {
        assert_eq!(world.alert(name).await["id"], json!(id), "{name}");
    }
    assert_eq!(opened.text_at("/status_url"), format!("{LIST}/{id}"));
    world.get(&format!("{LIST}/ZZZZZZZZ"), COUNSELLOR_KEY).await.expect(404);
    world.get(&format!("{LIST}/01a1f818-3b20-7ce7-84b4-c755331d78d9"), COUNSELLOR_KEY).await.expect(404);
}

#[tokio::test]
async fn a_list_shows_each_state_and_only_that_state() {
    let mut world = World::new().await;
    let withheld = withheld(&world, "student-1").await;
    let escalating = world.escalated("student-2").await.text_at("/alert_id");
    let acknowledged = world.escalated("student-3").await.text_at("/alert_id");
    let resolved = world.escalated("student-4").await.text_at("/alert_id");
    world.post(&format!("{LIST}/{acknowledged}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.post(&format!("{LIST}/{resolved}/resolve"), ADMIN, &json!({ "outcome": "duplicate" })).await.expect(200);
    world.work().await;
    let states = [
        ("withheld", &withheld),
        ("escalating", &escalating),
        ("acknowledged", &acknowledged),
        ("resolved", &resolved),
    ];
    for (state, id) in states {
        assert_eq!(ids(&page(&world, &format!("state={state}")).await), std::slice::from_ref(id), "{state}");
    }
    assert_eq!(ids(&page(&world, "").await).len(), 4);
}

#[tokio::test]
async fn paging_gives_every_case_once_and_in_order_while_new_ones_arrive() {
    let mut world = World::new().await;
    let mut before = Vec::new();
    for n in 0..120 {
        before.push(withheld(&world, &format!("student-{n}")).await);
        // Some share their instant: then the id decides.
        if n % 7 == 0 {
            world.pass(Duration::from_millis(10)).await;
        }
    }
    let expected: BTreeSet<String> = before.iter().cloned().collect();
    for limit in [7, 50, 200] {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = page(&world, &format!("limit={limit}{cursor}")).await;
            let ids = ids(&page);
            assert!(ids.len() <= limit);
            found.extend(ids);
            world.pass(Duration::from_millis(10)).await;
            withheld(&world, &format!("late-{limit}-{}", found.len())).await;
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let distinct: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(distinct.len(), found.len(), "no case twice");
        assert!(expected.is_subset(&distinct), "no case missing with pages of {limit}");
    }
    let mut opened: Vec<jiff::Timestamp> = Vec::new();
    for id in all(&world, "limit=31&state=withheld").await {
        let alert = world.store().alert(id.parse().unwrap()).await.unwrap().unwrap();
        opened.push(alert.opened_at);
    }
    assert!(opened.is_sorted_by(|a, b| a >= b), "newest first");
}

#[tokio::test]
async fn the_bounds_of_a_page_are_kept() {
    let world = World::new().await;
    for n in 0..3 {
        withheld(&world, &format!("student-{n}")).await;
    }
    assert_eq!(ids(&page(&world, "limit=1").await).len(), 1);
    assert_eq!(page(&world, "limit=3").await.get("next_cursor"), None, "exactly full is the end");
    assert_eq!(ids(&page(&world, "limit=200").await).len(), 3);
    for limit in ["0", "201", "-1", "1.5", "ten", "", "99999999999999999999"] {
        for path in [LIST.to_owned(), format!("{LIST}/ZZZZZZZZ/audit")] {
            let refused = world.get(&format!("{path}?limit={limit}"), ADMIN).await.expect(422);
            assert_eq!(refused.text_at("/errors/0/field"), "limit", "{limit}");
        }
    }
}

#[tokio::test]
async fn a_failed_message_tells_twilios_error_in_plain_words() {
    for (fault, code) in [
        (Fault::Refused { code: 21211, http_status: 400 }, 21211),
        (Fault::FailsLater { code: 63024, failed: false }, 63024),
    ] {
        let mut world = World::new().await;
        world.sim().push_fault(FaultRule::once(fault));
        let reference = world.escalated("student-1").await.text_at("/reference");
        world.work().await;
        world.receipts().await;
        world.receipts().await;
        let alert = world.alert(&reference).await;
        let delivery = &alert["deliveries"][0];
        let known = error_codes::explain(code);
        assert_eq!(
            (&delivery["state"], &delivery["failure"]["reason"]),
            (&json!("failed"), &json!("refused")),
            "{delivery}"
        );
        for error in [&delivery["failure"]["error"], &delivery["attempts"][0]["error"]] {
            assert_eq!(error["code"], code, "{delivery}");
            assert_eq!(error["meaning"], known.meaning.to_string());
            assert_eq!(error["remedy"], known.remedy.to_string());
        }
        // Nothing is under way any more: the next round does not wait for its time.
        world.pass(Duration::from_secs(30)).await;
        let alert = world.alert(&reference).await;
        assert_eq!(alert["deliveries"][1]["attempts"][0]["result"], "accepted", "{alert}");
    }
}

#[tokio::test]
async fn an_attempt_shows_what_was_told_by_its_hash_and_never_the_words() {
    use sha2::Digest as _;
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    let body = world.expect_told(&reference).body;
    let alert = world.alert(&reference).await;
    let hash = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body.as_bytes()));
    assert_eq!(alert["deliveries"][0]["attempts"][0]["text_sha256"], hash);
    assert!(!alert.to_string().contains(&body));
}

#[tokio::test]
async fn the_audit_is_read_page_by_page_and_proven_as_a_whole() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.pass_in_steps(Duration::from_secs(1800), Duration::from_secs(60)).await;
    let mut after = 0;
    let mut seqs = Vec::new();
    loop {
        let page =
            world.get(&format!("{LIST}/{reference}/audit?limit=7&after={after}"), AUDITOR).await.expect(200).json();
        assert_eq!(page["verified"], true);
        for entry in page["entries"].as_array().unwrap() {
            let canonical: Value = serde_json::from_str(entry["canonical"].as_str().unwrap()).unwrap();
            assert_eq!((&canonical["seq"], &canonical["stream"]), (&entry["seq"], &page["stream"]));
            seqs.push(entry["seq"].as_u64().unwrap());
        }
        match page.get("next_after").and_then(Value::as_u64) {
            Some(next) => after = next,
            None => break,
        }
    }
    assert!(seqs.len() > 20, "{seqs:?}");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_alters_the_database_is_found_out() {
    let tamperings = [
        "UPDATE audit SET entry = replace(entry, 'consent', 'emergency_override') WHERE stream LIKE 'alert/%' AND seq = 2",
        "UPDATE audit SET hash = zeroblob(32) WHERE stream LIKE 'alert/%' AND seq = 1",
        "DELETE FROM audit WHERE stream LIKE 'alert/%' AND seq = 2",
        "DELETE FROM audit WHERE stream LIKE 'alert/%' AND seq = (SELECT max(seq) FROM audit WHERE stream LIKE 'alert/%')",
        "DELETE FROM audit WHERE stream LIKE 'alert/%'",
    ];
    for tampering in tamperings {
        let mut world = World::new().await;
        let reference = world.escalated("student-1").await.text_at("/reference");
        world.work().await;
        let path = format!("{LIST}/{reference}/audit");
        assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], true);
        let changed = rusqlite::Connection::open(world.database()).unwrap().execute(tampering, []).unwrap();
        assert!(changed > 0, "{tampering}");
        let read = world.get(&path, AUDITOR).await.expect(200).json();
        assert_eq!(read["verified"], false, "{tampering}");
    }
}

/// What the entries of a long chain say.
#[derive(serde::Serialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
enum Deed {
    Looked { times: u64 },
}

/// A case whose chain is long: three of the pages that it is proven in, and a part of a fourth.
async fn long_chain(world: &World) -> String {
    let reference = world.escalated("student-1").await.text_at("/reference");
    let mut alert = world.stored(&reference).await;
    let (from, stream) = (alert.version, AuditStream::Alert(alert.id));
    let mut append =
        |times| alert.audit_head.append(stream.clone(), world.now(), &Actor::Service, &Deed::Looked { times });
    let audit = (0..1700).map(&mut append).collect();
    alert.version += 1;
    let commit = AlertCommit {
        alert,
        from_version: Some(from),
        audit,
        provider_ids: Vec::new(),
        last_case_of: Vec::new(),
        event: None,
        idempotency: None,
        data_key: None,
        consent_version: None,
        may_wait: false,
    };
    assert_eq!(world.store().commit_alert(commit).await.unwrap(), Committed::Committed);
    reference
}

#[tokio::test]
async fn a_long_chain_is_proven_across_its_pages_and_a_break_is_found_wherever_it_is() {
    let world = World::new().await;
    let reference = long_chain(&world).await;
    let path = format!("{LIST}/{reference}/audit?limit=1");
    assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], true);
    let database = rusqlite::Connection::open(world.database()).unwrap();
    let run = |sql: &str| database.execute_batch(sql).unwrap();
    for seq in [1, 499, 500, 501, 999, 1000, 1001, 1500, 1501, 1600] {
        let is_it = format!("WHERE stream LIKE 'alert/%' AND seq = {seq}");
        run(&format!("CREATE TEMP TABLE kept AS SELECT * FROM audit {is_it}"));
        for tampering in [
            format!("DELETE FROM audit {is_it}"),
            format!("UPDATE audit SET hash = zeroblob(32) {is_it}"),
            format!("UPDATE audit SET entry = replace(entry, 'service', 'provider') || ' ' {is_it}"),
        ] {
            run(&tampering);
            assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], false, "{tampering}");
            run(&format!("DELETE FROM audit {is_it}; INSERT INTO audit SELECT * FROM kept"));
            assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], true, "after {tampering}");
        }
        run("DROP TABLE kept");
    }
    // An entry that fits, but of which the case knows nothing.
    let mut head = world.stored(&reference).await.audit_head;
    let stream = AuditStream::Alert(world.stored(&reference).await.id);
    let smuggled = head.append(stream, world.now(), &Actor::Service, &Deed::Looked { times: 0 });
    assert!(world.store().append_audit(smuggled).await.unwrap());
    assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], false, "an entry more");
    // A chain that was cut off where a page ends.
    run("DELETE FROM audit WHERE stream LIKE 'alert/%' AND seq > 1500");
    assert_eq!(world.get(&path, AUDITOR).await.expect(200).json()["verified"], false, "1500 entries are left");
}

#[tokio::test]
async fn a_chain_that_grows_while_it_is_proven_is_proven_to_its_new_end() {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    let reference = long_chain(&world).await;
    // Between two pages, and once more after the last of them, the case goes on.
    for pages in [2, 4, 5] {
        let goes_on = Arc::new(Semaphore::new(0));
        let (held, mut seen) = (Arc::clone(&goes_on), 0);
        gate.set(move |call| {
            // The first reading is of the page that is shown.
            seen += usize::from(call.name == "audit_entries");
            let strikes = call.name == "audit_entries" && seen == pages;
            if strikes { Fate::PassAndWait(Arc::clone(&held)) } else { Fate::Pass }
        });
        let grows = async {
            world.until("a page is read", async |_| gate.count("audit_entries") == pages).await;
            let event = json!({ "user_id": "student-1", "crisis_score": 0.9, "source": "chat" });
            assert_eq!(world.event(&event).await.expect(202).text_at("/decision"), "merged");
            goes_on.add_permits(1);
        };
        let path = format!("{LIST}/{reference}/audit?limit=1");
        let (read, ()) = tokio::join!(world.get(&path, AUDITOR), grows);
        assert_eq!(read.expect(200).json()["verified"], true, "the case went on at reading {pages}");
    }
}

#[tokio::test]
async fn a_reveal_of_very_many_events_opens_them_all_in_order() {
    let world = World::new().await;
    world.consents("student-1").await;
    let mut reference = String::new();
    for number in 0..150 {
        let event = json!({
            "user_id": "student-1", "crisis_score": 0.9, "source": "chat",
            "message": format!("word {number}"), "metadata": { "number": number },
        });
        reference = world.event(&event).await.expect(202).text_at("/reference");
        world.clock.advance(Duration::from_millis(1));
    }
    let revealed = world.post(&format!("{LIST}/{reference}/reveal"), ADMIN, &json!({})).await.expect(200);
    let revealed = revealed.json();
    let events = revealed["events"].as_array().unwrap();
    assert_eq!((events.len(), &revealed["user_id"]), (150, &json!("student-1")));
    for (number, event) in events.iter().enumerate() {
        assert_eq!(
            (&event["message"], &event["metadata"]["number"]),
            (&json!(format!("word {number}")), &json!(number))
        );
    }
}

#[tokio::test]
async fn every_look_at_a_case_is_recorded_before_it_is_answered() {
    let mut world = Setting::default().with_people().start().await;
    let opened = world.escalated("student-1").await;
    world.work().await;
    let reference = opened.text_at("/reference");
    let path = format!("{LIST}/{reference}");
    world.get(&path, COUNSELLOR_KEY).await.expect(200);
    world.get(&format!("{path}/audit"), AUDITOR).await.expect(200);
    world.post(&format!("{path}/reveal"), &token("ada@college.example", "counsellor"), &json!({})).await.expect(200);
    world.post(&format!("{path}/reveal"), AUDITOR, &json!({})).await.expect(403);

    let stream = AuditStream::Access(opened.text_at("/alert_id").parse().unwrap());
    let entries = world.store().audit_entries(&stream, 0, 100).await.unwrap();
    let looks: Vec<Value> = entries.iter().map(|entry| serde_json::from_str(&entry.canonical).unwrap()).collect();
    let deeds: Vec<&Value> = looks.iter().map(|look| &look["deed"]).collect();
    assert_eq!(deeds, ["alert_read", "audit_read", "identity_revealed"]);
    assert_eq!(looks[0]["actor"], json!({ "kind": "machine", "key": "counsellor-1" }));
    assert_eq!((&looks[2]["actor"]["kind"], &looks[2]["actor"]["role"]), (&json!("person"), &json!("counsellor")));
    assert!(!entries[2].canonical.contains("ada@"), "a person is named by a keyed hash and under seal only");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_reveal_opens_who_it_is_and_everything_that_was_written() {
    let world = World::new().await;
    world.consents("Anu/Zoë 1").await;
    let metadata = json!({ "session": "s-1", "nested": { "list": [1, 2.5, null, true], "text": "ज़रूरी" } });
    let first = json!({ "user_id": "Anu/Zoë 1", "crisis_score": 0.9, "source": "chat", "message": "one\n\"two\"", "metadata": metadata });
    let reference = world.event(&first).await.expect(202).text_at("/reference");
    let second = json!({ "user_id": "Anu/Zoë 1", "crisis_score": 0.91, "source": "voice", "message": "later" });
    world.event(&second).await.expect(202);
    let bare = json!({ "user_id": "Anu/Zoë 1", "crisis_score": 0.92, "source": "mood" });
    world.event(&bare).await.expect(202);
    let revealed = world.post(&format!("{LIST}/{reference}/reveal"), ADMIN, &json!({})).await.expect(200).json();
    assert_eq!(revealed["user_id"], "Anu/Zoë 1");
    let mut events = revealed["events"].as_array().unwrap().clone();
    events.sort_by_key(|event| event["message"].as_str().unwrap().len());
    assert_eq!(events.len(), 2, "an event without words has nothing to open: {revealed}");
    assert_eq!((&events[0]["message"], events[0].get("metadata")), (&json!("later"), None));
    assert_eq!((&events[1]["message"], &events[1]["metadata"]), (&json!("one\n\"two\""), &metadata));
}
