//! Who was told and cannot help passes the case on: the next person is told at once.

use serde_json::json;

use crate::common::stage::s;
use crate::common::{COUNSELLOR, SERVICE, Setting, World, contact_entry};

const COLLEAGUE: &str = "+919800000037";
const MANAGER: &str = "+919800000057";

/// A counsellor, a colleague ten minutes later, and a manager at the end.
fn ladder() -> Setting {
    let people = contact_entry("colleague", "counsellor", "whatsapp_to", COLLEAGUE)
        + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let policy = r#"
        [policy]
        rounds = 1
        repeat_every = "10m"
        last_responder = "manager"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "10m"
        roles = ["counsellor"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(people + policy))
}

fn counts(world: &World, reference: &str) -> [usize; 3] {
    [COUNSELLOR, COLLEAGUE, MANAGER].map(|phone| {
        let messages = world.sim().messages_to(phone);
        let asks = |body: &str| body.contains(reference) && body.contains("a case needs you");
        messages.iter().filter(|message| asks(&message.body)).count()
    })
}

async fn says(world: &mut World, phone: &str, text: &str) -> String {
    let reply = world.sim().reply(phone, text).await.unwrap();
    world.work().await;
    reply.answers.concat()
}

async fn case(world: &mut World) -> String {
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    reference
}

#[tokio::test]
async fn the_next_person_is_told_at_once_and_whoever_passed_it_on_is_not_told_again() {
    let mut world = ladder().start().await;
    let reference = case(&mut world).await;
    world.pass(s(20)).await;
    let said = says(&mut world, COUNSELLOR, "2").await;
    assert_eq!(said, format!("Ref {reference} is passed on. The next person is being told."));
    assert_eq!(counts(&world, &reference), [1, 1, 0]);
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    // And so on, to the end of the ladder.
    says(&mut world, COLLEAGUE, "pass").await;
    assert_eq!(counts(&world, &reference), [1, 1, 1]);
    assert!(says(&mut world, MANAGER, "1").await.contains("is yours"));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_next_rung_has_its_whole_time_after_a_case_was_passed_on() {
    let mut world = ladder().start().await;
    let reference = case(&mut world).await;
    world.pass(s(9 * 60)).await;
    says(&mut world, COUNSELLOR, "2").await;
    world.pass_in_steps(s(9 * 60), s(30)).await;
    assert_eq!(counts(&world, &reference), [1, 1, 0]);
    world.pass_in_steps(s(60), s(30)).await;
    assert_eq!(counts(&world, &reference), [1, 1, 1]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_there_is_nobody_else_the_person_hears_so_and_the_operator_too() {
    let mut world = World::new().await;
    let reference = case(&mut world).await;
    let said = says(&mut world, COUNSELLOR, "2").await;
    assert_eq!(said, format!("Ref {reference} cannot be passed on: you are the only one. Reply 1 to take it."));
    assert_eq!(world.alarms("nobody_to_pass_to").await, 1.0);
    world.pass_in_steps(s(5 * 60), s(30)).await;
    assert_eq!(world.on_the_phone(&reference).len(), 2, "the ladder goes on as ever");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_has_taken_a_case_can_hand_it_on_and_nobody_else_can() {
    let mut world = ladder().start().await;
    let reference = case(&mut world).await;
    says(&mut world, COUNSELLOR, "2").await;
    assert!(says(&mut world, COLLEAGUE, "1").await.contains("is yours"));
    let said = says(&mut world, COUNSELLOR, &format!("2 {reference}")).await;
    assert_eq!(said, format!("Ref {reference} was taken already. Nothing is needed from you."));
    assert_eq!(world.alert(&reference).await["state"], "acknowledged");
    let said = says(&mut world, COLLEAGUE, &format!("2 {reference}")).await;
    assert_eq!(said, format!("Ref {reference} is passed on. The next person is being told."));
    assert_eq!(counts(&world, &reference), [1, 1, 1]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_word_that_was_taken_back_lets_nobody_further_be_told() {
    let mut world = ladder().start().await;
    let reference = case(&mut world).await;
    let path = "/api/v1/messaging/preferences/student-1";
    let no = json!({ "whatsapp": false, "source": "story" });
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&no)).await.expect(200);
    says(&mut world, COUNSELLOR, &format!("2 {reference}")).await;
    world.pass_in_steps(s(20 * 60), s(60)).await;
    assert_eq!(counts(&world, &reference), [1, 0, 0]);
    assert_eq!(world.alert(&reference).await["state"], "withheld");
    world.holds_its_promises().await;
}
