//! A phone is not flooded by what can wait; a live alert is never held back on that account, and what would have been a limit is
//! recorded.

use crate::common::stage::s;
use crate::common::{AUDITOR, COUNSELLOR, World};

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
