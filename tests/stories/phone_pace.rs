//! A phone is not flooded by what can wait; a live alert is never held back on that account, and what would have been a limit is
//! recorded.

use crate::common::stage::s;
use serde_json::json;

use crate::common::{ADMIN, AUDITOR, COUNSELLOR, COUNSELLOR_KEY, World};

#[tokio::test]
async fn fifty_cases_in_a_minute_all_reach_their_counsellor_at_once_and_the_audit_says_that_it_was_a_flood() {
    let mut world = World::new().await;
    let mut references = Vec::new();
    for student in 0..50 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    for reference in &references {
        world.expect_on_the_phone(reference);
    }
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 50);
    assert_eq!(world.counted("crisis_relay_past_phone_pace_total").await, 40.0);
    let mut beyond = 0;
    for reference in &references {
        let path = format!("/api/v1/crisis/alerts/{reference}/audit");
        beyond += usize::from(world.get(&path, AUDITOR).await.expect(200).text.contains("past_phone_pace"));
    }
    assert_eq!(beyond, 40);
    world.holds_its_promises().await;

    // A minute later the phone has room again.
    world.pass(s(61)).await;
    let later = world.told("student-late", 0.93).await;
    world.work().await;
    world.expect_on_the_phone(&later);
    assert_eq!(world.counted("crisis_relay_past_phone_pace_total").await, 40.0);
}

/// How many entries the audit of all these cases has.
async fn entries(world: &World, references: &[String]) -> usize {
    let mut all = 0;
    for reference in references {
        let page = world.get(&format!("/api/v1/crisis/alerts/{reference}/audit?limit=200"), AUDITOR).await.expect(200);
        all += page.json()["entries"].as_array().unwrap().len();
    }
    all
}

/// When the notices that a case is taken came to the counsellor's phone, in seconds of the clock.
fn noticed_at(world: &World) -> Vec<i64> {
    let messages = world.sim().messages_to(COUNSELLOR).into_iter();
    let notices = messages.filter(|message| message.body.contains("in the hands of a colleague"));
    notices.map(|message| message.created_at.as_second()).collect()
}

#[tokio::test]
async fn notices_to_a_full_phone_wait_for_its_minutes_then_go_and_leave_nothing_in_the_audit_while_they_wait() {
    let mut world = World::new().await;
    let mut references = Vec::new();
    for student in 0..30 {
        references.push(world.told(&format!("student-{student}"), 0.93).await);
    }
    world.work().await;
    for reference in &references {
        let resolved = json!({ "outcome": "duplicate" });
        world.post(&format!("/api/v1/crisis/alerts/{reference}/resolve"), COUNSELLOR_KEY, &resolved).await.expect(200);
    }
    world.work().await;
    let before = entries(&world, &references).await;
    world.pass_in_steps(s(50), s(10)).await;
    assert!(noticed_at(&world).is_empty(), "thirty alerts have filled the phone's minute");
    assert_eq!(entries(&world, &references).await, before, "who waits for a turn tells the audit nothing");
    assert!(world.counted("crisis_relay_held_back_total{lane=\"notice\"}").await >= 30.0);

    world.pass_in_steps(s(300), s(10)).await;
    let at = noticed_at(&world);
    assert_eq!(at.len(), 30, "each case's notice comes");
    let most = at.iter().map(|from| at.iter().filter(|at| (0..60).contains(&(**at - from))).count()).max();
    assert!(most <= Some(10), "{most:?} in one minute");
    world.receipts().await;
    let after = entries(&world, &references).await;
    world.pass_in_steps(s(300), s(10)).await;
    assert_eq!(entries(&world, &references).await, after, "then there is nothing more to tell");
    assert_eq!(world.counted("crisis_relay_past_phone_pace_total").await, 20.0, "live alerts alone are told past it");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_to_a_full_phone_waits_for_its_minute_and_goes() {
    let mut world = World::new().await;
    for student in 0..10 {
        world.told(&format!("student-{student}"), 0.93).await;
    }
    world.work().await;
    world.post("/api/v1/crisis/drills", ADMIN, &json!({})).await.expect(201);
    world.work().await;
    let drills = |world: &World| {
        let messages = world.sim().messages_to(COUNSELLOR).into_iter();
        messages.filter(|message| message.body.contains("DRILL")).count()
    };
    assert_eq!(drills(&world), 0, "ten live alerts have filled the phone's minute");
    world.pass_in_steps(s(70), s(10)).await;
    assert_eq!(drills(&world), 1);
    world.holds_its_promises().await;
}
