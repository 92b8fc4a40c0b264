//! Nobody answers: the ladder goes on, at the policy's pace, without end and without a flood.

use std::time::Duration;

use crate::common::{COUNSELLOR, Setting, World};

const MINUTE: Duration = Duration::from_secs(60);

/// When the counsellor was told, in whole minutes since the story began.
fn minutes_told(world: &World) -> Vec<i64> {
    let start: jiff::Timestamp = crate::common::START.parse().unwrap();
    let sent = world.sim().messages_to(COUNSELLOR).into_iter();
    sent.map(|message| message.created_at.duration_since(start).as_secs() / 60).collect()
}

#[tokio::test]
async fn rounds_repeat_at_the_policys_times_and_then_the_last_responder_is_told_for_hours() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    for minute in 0..6 * 60 {
        let alert = world.alert(&reference).await;
        assert!(alert["next_action_at"].is_string(), "minute {minute}: an open case has a next action: {alert}");
        let last_responder = minute >= 15;
        assert_eq!(alert["detail"]["last_responder"], last_responder, "minute {minute}: {}", alert["detail"]);
        if !last_responder {
            assert_eq!(alert["detail"]["round"], 1 + minute / 5, "minute {minute}");
        }
        world.pass(MINUTE).await;
    }
    let told = minutes_told(&world);
    assert_eq!(told, (0..=72).map(|n| n * 5).collect::<Vec<_>>(), "every five minutes, once each");
    for _ in &told {
        world.expect_told(&reference);
    }
    world.sim().assert_no_unexpected();
    let exhausted = world.metric("crisis_relay_alarms_total{kind=\"ladder_exhausted\"}").await.unwrap();
    assert!(exhausted >= 1.0, "the operator hears of it");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn the_policys_own_times_and_number_of_rounds_are_kept() {
    let setting = Setting::default()
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "2m")
        .with("CRISIS_RELAY__POLICY__ROUNDS", "2")
        .with("CRISIS_RELAY__POLICY__LAST_RESPONDER_EVERY", "10m");
    let mut world = setting.start().await;
    world.escalated("student-1").await;
    world.work().await;
    world.pass_in_steps(40 * MINUTE, MINUTE / 2).await;
    assert_eq!(minutes_told(&world), [0, 2, 4, 14, 24, 34]);
}

#[tokio::test]
async fn a_clock_that_jumps_does_not_make_up_for_what_was_missed_with_a_flood() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.pass(Duration::from_secs(24 * 3600)).await;
    let told = world.sim().messages_to(COUNSELLOR).len();
    assert_eq!(told, 2, "the first, and one for the day that was slept through");
    assert!(world.alert(&reference).await["next_action_at"].is_string());
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn a_case_whose_messages_all_arrive_still_climbs_because_delivered_is_not_an_answer() {
    let mut world = World::new().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    for _ in 0..2 {
        world.receipts().await;
    }
    assert_eq!(world.alert(&reference).await["deliveries"][0]["attempts"][0]["status"], "delivered");
    world.pass_in_steps(20 * MINUTE, MINUTE).await;
    assert_eq!(minutes_told(&world), [0, 5, 10, 15, 20]);
}

#[tokio::test]
async fn many_open_cases_each_keep_their_own_pace() {
    let mut world = World::new().await;
    let mut references = Vec::new();
    for n in 0..10 {
        references.push(world.escalated(&format!("student-{n}")).await.text_at("/reference"));
        world.pass(Duration::from_secs(20)).await;
    }
    world.pass_in_steps(30 * MINUTE, Duration::from_secs(20)).await;
    for reference in references {
        let opened: jiff::Timestamp = world.alert(&reference).await["opened_at"].as_str().unwrap().parse().unwrap();
        let sent = world.sim().messages_to(COUNSELLOR).into_iter().filter(|message| message.body.contains(&reference));
        let after: Vec<i64> = sent.map(|message| message.created_at.duration_since(opened).as_secs()).collect();
        assert!(after.len() >= 6 && after.iter().zip(0..).all(|(at, n)| *at <= n * 300 + 20), "{reference}: {after:?}");
    }
    world.assert_nothing_is_silent().await;
}
