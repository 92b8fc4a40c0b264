//! A student's data key is gone (erased), or does not open (a former master key is missing). People go on without what
//! was sealed; and no crisis is refused for it.

use crisis_relay::domain::audit::AuditStream;
use serde_json::{Value, json};

use crate::common::{ADMIN, COUNSELLOR_KEY, Setting, World, token};

const STUDENT: &str = "student-1";
/// A wrapped key that no master key opens.
const UNOPENABLE: &str = "UPDATE data_keys SET wrapped = 'v1.00000000.AAAA'";
const GONE: &str = "DELETE FROM data_keys";

async fn told() -> (World, String) {
    let mut world = Setting::default().with_people().start().await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.expect_told(&reference);
    (world, reference)
}

/// Changes the key of this case's student in the file.
async fn strike(world: &World, reference: &str, sql: &str) {
    let subject = world.stored(reference).await.subject;
    let connection = rusqlite::Connection::open(world.database()).unwrap();
    let changed = connection.execute(&format!("{sql} WHERE person = ?1"), [subject.as_bytes().as_slice()]).unwrap();
    assert_eq!(changed, 1);
}

fn path(reference: &str, verb: &str) -> String {
    format!("/api/v1/crisis/alerts/{reference}{verb}")
}

#[tokio::test]
async fn without_the_students_key_people_read_take_and_close_the_case() {
    for sql in [GONE, UNOPENABLE] {
        let (world, reference) = told().await;
        strike(&world, &reference, sql).await;
        let ada = token("ada@college.example", "counsellor");
        world.get(&path(&reference, ""), &ada).await.expect(200);
        world.get(&path(&reference, "/audit"), &token("eve@college.example", "auditor")).await.expect(200);
        let taken = world.post(&path(&reference, "/acknowledge"), &ada, &json!({})).await.expect(200).json();
        assert_eq!(taken["detail"]["by"]["kind"], "person", "{taken}");

        let with_note = json!({ "outcome": "safe_by_phone", "note": "She is at home" });
        let refused = world.post(&path(&reference, "/resolve"), &ada, &with_note).await.expect(409);
        assert_eq!((refused.text_at("/code"), refused.text_at("/errors/0/field")), ("conflict".into(), "note".into()));
        assert_eq!(world.alert(&reference).await["state"], "acknowledged");
        world.post(&path(&reference, "/resolve"), &ada, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_a_conflict_and_the_look_is_recorded() {
    for sql in [GONE, UNOPENABLE] {
        let (world, reference) = told().await;
        strike(&world, &reference, sql).await;
        let ada = token("ada@college.example", "counsellor");
        let refused = world.post(&path(&reference, "/reveal"), &ada, &json!({})).await.expect(409);
        assert_eq!(refused.text_at("/detail"), "the sealed data of this case cannot be opened");
        assert_eq!(deeds(&world, &reference).await, ["identity_revealed"]);
    }
}

async fn deeds(world: &World, reference: &str) -> Vec<String> {
    let stream = AuditStream::Access(world.stored(reference).await.id);
    let entries = world.store().audit_entries(&stream, 0, 100).await.unwrap();
    let deed = |entry: &crisis_relay::domain::audit::AuditEntry| {
        serde_json::from_str::<Value>(&entry.canonical).unwrap()["deed"].as_str().unwrap().to_owned()
    };
    entries.iter().map(deed).collect()
}

#[tokio::test]
async fn an_erased_students_next_crisis_gets_a_new_key_and_loses_nothing() {
    let (mut world, first) = told().await;
    world.post(&path(&first, "/resolve"), ADMIN, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    strike(&world, &first, GONE).await;
    let second = world.told(STUDENT, 0.95).await;
    world.work().await;
    world.expect_told(&second);
    let revealed = world.post(&path(&second, "/reveal"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    assert_eq!(revealed.text_at("/user_id"), STUDENT);
    world.post(&path(&first, "/reveal"), COUNSELLOR_KEY, &json!({})).await.expect(409);
    assert_eq!(world.alarms("sealed_data_unreadable").await, 0.0);
}

#[tokio::test]
async fn a_crisis_is_told_though_the_students_key_does_not_open_and_the_operator_is_alarmed() {
    let (mut world, first) = told().await;
    world.post(&path(&first, "/resolve"), ADMIN, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    strike(&world, &first, UNOPENABLE).await;
    let event = json!({ "user_id": STUDENT, "crisis_score": 0.97, "source": "chat", "message": "lost words" });
    let answer = world.event_with_key(&event, "key-1").await.expect(202);
    assert_eq!(answer.text_at("/decision"), "escalated");
    let second = answer.text_at("/reference");
    world.work().await;
    world.expect_told(&second);
    assert_eq!(world.alarms("sealed_data_unreadable").await, 1.0);
    assert_eq!(deeds(&world, &second).await, ["words_lost"]);
    assert_eq!(world.query("SELECT count(*) FROM event_details"), 0, "what could never be opened is not kept");
    world.post(&path(&second, "/reveal"), COUNSELLOR_KEY, &json!({})).await.expect(409);
    // The same event again is the same answer, and no second alarm.
    assert_eq!(world.event_with_key(&event, "key-1").await.expect(202).text, answer.text);
    assert_eq!(world.alarms("sealed_data_unreadable").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_withheld_case_is_escalated_though_the_reason_cannot_be_sealed() {
    for sql in [GONE, UNOPENABLE] {
        let mut world = Setting::default().with_people().start().await;
        let event = json!({ "user_id": STUDENT, "crisis_score": 0.97, "source": "voice" });
        let reference = world.event(&event).await.expect(202).text_at("/reference");
        strike(&world, &reference, sql).await;
        let stated = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
        let admin = token("ada@college.example", "admin");
        world.post(&path(&reference, "/escalate"), &admin, &stated).await.expect(200);
        world.work().await;
        world.expect_told(&reference);
        assert_eq!(world.alarms("sealed_data_unreadable").await, 1.0);
        assert_eq!(deeds(&world, &reference).await, ["words_lost"]);
        world.holds_its_promises().await;
    }
}
