//! The main job: a score becomes a message on the counsellor's phone.

use serde_json::json;

use crate::common::{COUNSELLOR, COUNSELLOR_KEY, World};

#[tokio::test]
async fn a_score_of_a_student_who_agreed_reaches_the_counsellors_phone() {
    let mut world = World::new().await;
    let answer = world.escalated("student-1").await;
    world.work().await;

    let reference = answer.text_at("/reference");
    let message = world.sim().expect_message(COUNSELLOR, |message| message.body.contains(&reference)).unwrap();
    assert!(message.body.contains("0.93"), "the counsellor sees the score: {}", message.body);
    assert!(message.body.contains("14:05 IST"), "the counsellor sees the local time: {}", message.body);

    assert_eq!(world.receipts().await, vec![204], "Twilio's receipt is taken");
    assert_eq!(world.receipts().await, vec![204]);
    let alert = world.alert(&reference).await;
    assert_eq!(alert["deliveries"][0]["state"], "delivered", "{alert}");
    assert_eq!(alert["state"], "escalating", "delivered is not acknowledged: {alert}");

    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn a_reply_of_1_takes_the_case_and_is_confirmed_after_the_commit() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    let reply = world.sim().reply(COUNSELLOR, "1").await.unwrap();
    assert!(reply.answers.iter().any(|text| text.contains(&reference)), "confirmed: {reply:?}");
    let alert = world.alert(&reference).await;
    assert_eq!(alert["state"], "acknowledged", "{alert}");
    assert_eq!(alert["detail"]["by"]["kind"], "contact", "{alert}");
}

#[tokio::test]
async fn without_consent_nobody_is_told_until_a_person_overrides() {
    let mut world = World::new().await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.97, "source": "voice" });
    let answer = world.event(&event).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "withheld_no_consent");
    world.work().await;
    world.sim().assert_no_unexpected();

    let path = format!("/api/v1/crisis/alerts/{}/escalate", answer.text_at("/reference"));
    let body = json!({ "emergency_override": { "by": "Dr. Rao", "reason": "life at risk" } });
    world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
    world.work().await;
    let reference = answer.text_at("/reference");
    world.sim().expect_message(COUNSELLOR, |message| message.body.contains(&reference)).unwrap();
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_crash_between_the_commit_and_the_send_loses_nothing() {
    let world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    // The service dies before its worker has done anything.
    let mut world = world.crash().await;
    world.work().await;
    world.pass_in_steps(std::time::Duration::from_secs(60), std::time::Duration::from_secs(1)).await;
    world.sim().expect_message(COUNSELLOR, |message| message.body.contains(&reference)).unwrap();
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn a_database_refuses_to_be_opened_with_another_master_key() {
    let world = World::new().await;
    world.escalated("student-1").await;
    std::fs::remove_file(world.folder.path().join("master.key")).unwrap();
    // A new key is made, under which every student would be a stranger: the start must say so.
    let refused = world.try_restart().await;
    let text = refused.expect_err("the service started with a key that finds nobody");
    assert!(text.contains("keyring.master_key"), "the fault names the key's setting: {text}");
}

#[tokio::test]
async fn an_open_case_whose_contact_is_no_longer_set_up_tells_somebody_who_is() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.sim().expect_message(COUNSELLOR, |message| message.body.contains(&reference)).unwrap();
    // The ladder that the case runs on names a person whom nobody knows any more.
    world.reconfigure("CRISIS_RELAY__COUNSELLOR__CONTACT_ID", "somebody-else");
    let mut world = world.crash().await;
    world.pass_in_steps(std::time::Duration::from_secs(310), std::time::Duration::from_secs(5)).await;
    let told = world.sim().expect_message(COUNSELLOR, |message| message.body.contains(&reference));
    told.expect("the case falls silent when its contact is renamed");
    world.assert_nothing_is_silent().await;
}
