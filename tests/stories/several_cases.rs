//! One phone, several cases: whose a reply is, which case it means, and that a drill stands in nobody's way.

use crisis_relay::simulator::{Fault, FaultRule, Inbound, Quote};
use serde_json::{Value, json};

use crate::common::stage::s;
use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, Setting, World, contact_entry};

const LEAD: &str = "+919800000037";

/// The counsellor and the lead, at once.
fn two_people() -> Setting {
    let people = contact_entry("lead", "lead", "whatsapp_to", LEAD);
    let policy = r#"
        [policy]
        acknowledged_action_within = "15m"
        check_in_within = "5m"
        repeat_every = "30m"
        [[policy.steps]]
        contacts = ["counsellor", "lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(people + policy))
}

async fn case(world: &mut World, student: &str) -> String {
    // Of two cases, one is the newer.
    world.pass(s(1)).await;
    let reference = world.told(student, 0.93).await;
    world.work().await;
    reference
}

async fn drill(world: &mut World) -> String {
    let answer = world.post("/api/v1/crisis/drills", ADMIN, &json!({ "score": 0.93 })).await.expect(201);
    world.work().await;
    answer.text_at("/reference")
}

/// A reply that quotes nothing, as every text message.
async fn writes(world: &mut World, phone: &str, text: &str) -> String {
    let reply = world.sim().receive(&Inbound::new(phone, text).quoting(Quote::Nothing)).await.unwrap();
    world.work().await;
    reply.answers.concat()
}

async fn state(world: &World, reference: &str) -> String {
    world.alert(reference).await["state"].as_str().unwrap().to_owned()
}

async fn replies(world: &World, reference: &str) -> Value {
    world.alert(reference).await["replies"].clone()
}

#[tokio::test]
async fn who_was_reminded_of_one_case_while_another_waits_is_asked_which_one() {
    let mut world = two_people().start().await;
    let held = case(&mut world, "student-1").await;
    assert!(writes(&mut world, LEAD, "1").await.contains("is yours"));
    world.pass_in_steps(s(905), s(15)).await;
    assert!(world.sim().messages_to(LEAD).last().unwrap().body.contains("if you are still on it"));
    let waiting = case(&mut world, "student-2").await;
    let said = writes(&mut world, LEAD, "1").await;
    assert!(said.contains(&format!("Refs {waiting} and {held} are open for you")), "{said}");
    assert_eq!(state(&world, &waiting).await, "escalating", "nobody has meant it");
    let said = writes(&mut world, LEAD, &format!("1 {held}")).await;
    assert!(said.contains(&format!("ref {held} is still yours")), "{said}");
    // They have given the sign that they were asked for: what waits is meant.
    let said = writes(&mut world, LEAD, "1").await;
    assert!(said.contains(&format!("Ref {waiting} is yours")), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn words_and_a_hand_over_are_about_the_case_that_one_has_not_about_one_that_others_took() {
    let mut world = two_people().start().await;
    let held = case(&mut world, "student-1").await;
    assert!(writes(&mut world, LEAD, "1").await.contains("is yours"));
    let other = case(&mut world, "student-2").await;
    assert!(writes(&mut world, COUNSELLOR, &format!("1 {other}")).await.contains("is yours"));
    let rehearsed = drill(&mut world).await;
    assert!(writes(&mut world, COUNSELLOR, &format!("1 {rehearsed}")).await.starts_with("DRILL:"));
    let said = writes(&mut world, LEAD, "she does not answer, I need an ambulance").await;
    assert!(said.contains(&format!("noted for the team, with ref {held}.")), "{said}");
    assert_eq!((replies(&world, &held).await, replies(&world, &other).await), (json!(1), json!(0)));
    let said = writes(&mut world, LEAD, "1").await;
    assert!(said.contains(&format!("ref {held} is still yours")), "{said}");
    let said = writes(&mut world, LEAD, "2").await;
    assert!(said.contains(&format!("Ref {held} is passed on")), "{said}");
    assert_eq!(state(&world, &held).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn words_that_may_be_about_either_of_two_students_are_kept_with_neither() {
    let mut world = two_people().start().await;
    let held = case(&mut world, "student-1").await;
    assert!(writes(&mut world, LEAD, "1").await.contains("is yours"));
    let waiting = case(&mut world, "student-2").await;
    let said = writes(&mut world, LEAD, "her mother is with her").await;
    assert!(said.contains(&format!("Refs {waiting} and {held} are open for you. Your words are not kept")), "{said}");
    assert_eq!((replies(&world, &held).await, replies(&world, &waiting).await), (json!(0), json!(0)));
    let said = writes(&mut world, LEAD, &format!("{held} her mother is with her")).await;
    assert!(said.contains(&format!("noted for the team, with ref {held}.")), "{said}");
    assert_eq!((replies(&world, &held).await, replies(&world, &waiting).await), (json!(1), json!(0)));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_wrong_tap_on_a_closed_case_does_not_send_anybody_back_to_sleep() {
    let mut world = two_people().start().await;
    let closed = case(&mut world, "student-1").await;
    let old = world.sim().messages_to(COUNSELLOR).last().unwrap().sid.clone();
    let path = format!("/api/v1/crisis/alerts/{closed}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "false_alarm" })).await.expect(200);
    let waiting = case(&mut world, "student-2").await;
    for text in ["1", "2"] {
        let reply = Inbound::new(COUNSELLOR, text).quoting(Quote::Sid(old.clone()));
        let said = world.sim().receive(&reply).await.unwrap().answers.concat();
        assert!(said.contains(&format!("Ref {waiting} is open for you")), "{text}: {said}");
        assert!(!said.contains("Nothing is needed"), "{text}: {said}");
    }
    assert_eq!(state(&world, &waiting).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_stands_in_the_way_of_no_live_case() {
    let mut world = two_people().start().await;
    let rehearsed = drill(&mut world).await;
    let live = case(&mut world, "student-1").await;
    let said = writes(&mut world, LEAD, "I am on my way").await;
    assert!(said.contains(&format!("with ref {live}, which waits still")), "{said}");
    let said = writes(&mut world, LEAD, "1").await;
    let words = format!(
        "Ref {live} is yours. Please close it on the dashboard when it is done. This is a real case, not the drill."
    );
    assert!(said.contains(&words), "{said}");
    assert_eq!(
        (state(&world, &live).await, state(&world, &rehearsed).await),
        ("acknowledged".into(), "escalating".into())
    );
    // Whoever has the live case does not answer the drill by the way.
    let said = writes(&mut world, LEAD, "1").await;
    assert!(said.contains(&format!("ref {live} is still yours")), "{said}");
    let said = writes(&mut world, LEAD, &format!("1 {rehearsed}")).await;
    assert!(said.contains(&format!("DRILL: your answer to ref {rehearsed} is noted")), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_drill_that_nobody_answers_is_no_alarm_of_a_case_that_nobody_answers() {
    let mut world = two_people().with("policy.rounds", "1").start().await;
    let rehearsed = drill(&mut world).await;
    world.goes_wrong(FaultRule::always(Fault::CallbacksLost));
    world.pass_in_steps(s(3 * 3600), s(60)).await;
    assert_eq!(state(&world, &rehearsed).await, "resolved");
    assert_eq!(world.alarms("drill_unanswered").await, 1.0);
    for kind in ["ladder_exhausted", "nobody_to_tell", "nobody_on_call"] {
        assert_eq!(world.alarms(kind).await, 0.0, "{kind}");
    }
    world.holds_its_promises().await;
}
