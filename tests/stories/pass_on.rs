//! Who was told and cannot help passes the case on: the next person is told at once.

use crisis_relay::simulator::{Fault, FaultRule};
use serde_json::json;

use crate::common::stage::{s, says};
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

/// Where a second counsellor is reached.
const SECOND: &str = "+919800000047";
/// Where their lead is.
const LEAD: &str = "+919800000067";

/// All three counsellors at once, their lead ten minutes later, all of them again, and a manager at the end.
fn one_rung_for_many() -> Setting {
    let people = contact_entry("colleague", "counsellor", "whatsapp_to", COLLEAGUE)
        + &contact_entry("second", "counsellor", "whatsapp_to", SECOND)
        + &contact_entry("lead", "lead", "whatsapp_to", LEAD)
        + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let policy = r#"
        [policy]
        rounds = 2
        repeat_every = "10m"
        last_responder = "manager"
        [[policy.steps]]
        roles = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "10m"
        roles = ["counsellor", "lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(people + policy))
}

fn asked(world: &World, reference: &str) -> [usize; 5] {
    [COUNSELLOR, COLLEAGUE, SECOND, LEAD, MANAGER].map(|phone| {
        let messages = world.sim().messages_to(phone);
        let asks = |body: &str| body.contains(reference) && body.contains("a case needs you");
        messages.iter().filter(|message| asks(&message.body)).count()
    })
}

#[tokio::test]
async fn a_rung_is_left_once_all_who_were_told_have_passed_and_none_of_them_is_told_by_the_next() {
    let mut world = one_rung_for_many().start().await;
    let reference = case(&mut world).await;
    let passed = format!("Ref {reference} is passed on. The next person is being told.");
    for phone in [COUNSELLOR, COLLEAGUE] {
        assert_eq!(says(&mut world, phone, "2").await, passed);
        assert_eq!(asked(&world, &reference), [1, 1, 1, 0, 0], "somebody who was told may take it still");
    }
    assert_eq!(says(&mut world, SECOND, "2").await, passed);
    assert_eq!(asked(&world, &reference), [1, 1, 1, 1, 0], "nobody is left on that rung");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_passes_a_case_on_again_and_again_moves_it_once() {
    let mut world = ladder().start().await;
    let reference = case(&mut world).await;
    for _ in 0..5 {
        let said = says(&mut world, COUNSELLOR, &format!("2 {reference}")).await;
        assert_eq!(said, format!("Ref {reference} is passed on. The next person is being told."));
    }
    assert_eq!(counts(&world, &reference), [1, 1, 0], "the colleague has their time");
    world.pass_in_steps(s(9 * 60), s(30)).await;
    assert_eq!(counts(&world, &reference), [1, 1, 0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn those_who_have_not_passed_a_case_on_keep_the_time_of_their_rung() {
    let mut world = one_rung_for_many().start().await;
    let reference = case(&mut world).await;
    says(&mut world, COUNSELLOR, "2").await;
    world.pass_in_steps(s(9 * 60 + 30), s(30)).await;
    assert_eq!(asked(&world, &reference), [1, 1, 1, 0, 0]);
    world.pass_in_steps(s(30), s(30)).await;
    assert_eq!(asked(&world, &reference), [2, 2, 2, 1, 0], "its time has come: everybody whom the next rung names");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_cannot_be_reached_is_not_waited_for_when_the_others_of_their_rung_pass() {
    let refused = |phone| FaultRule::always(Fault::Refused { code: 63024, http_status: 400 }).to(phone);
    let mut world = one_rung_for_many().start_with(refused(SECOND)).await;
    let reference = case(&mut world).await;
    says(&mut world, COUNSELLOR, "2").await;
    assert_eq!(asked(&world, &reference), [1, 1, 0, 0, 0]);
    says(&mut world, COLLEAGUE, "2").await;
    assert_eq!(asked(&world, &reference), [1, 1, 0, 1, 0]);
    world.holds_its_promises().await;
}
