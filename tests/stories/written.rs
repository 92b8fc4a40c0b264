//! Replies that take nothing: words are kept for the team under the student's seal, what comes too late is answered
//! clearly, and `done` closes a case where that is allowed.

use serde_json::json;

use super::replies::posted;
use crate::common::stage::{s, says};
use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, Setting, World, contact_entry};

const LEAD: &str = "+919800000037";
const STRANGER: &str = "+919811111111";
const WORDS: &str = "I am on the bus, ask zwitschernder Kanari";

fn two_people() -> Setting {
    let people = contact_entry("lead", "lead", "whatsapp_to", LEAD);
    let policy = "[[policy.steps]]\ncontacts = ['counsellor', 'lead']\nchannels = ['whatsapp']\n";
    Setting::default().with_file(&(people + policy))
}

async fn case(world: &mut World) -> String {
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    reference
}

async fn revealed(world: &World, reference: &str) -> serde_json::Value {
    let path = format!("/api/v1/crisis/alerts/{reference}/reveal");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200).json()
}

async fn close(world: &World, reference: &str) {
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
}

#[tokio::test]
async fn words_are_kept_for_the_team_and_stand_in_no_other_place() {
    let mut world = two_people().start().await;
    let reference = case(&mut world).await;
    let said = says(&mut world, LEAD, WORDS).await;
    assert!(
        said.starts_with(&format!(
            "Your words are noted for the team, with ref {reference}, which waits still. Reply 1"
        )),
        "{said}"
    );
    assert_eq!(world.alert(&reference).await["replies"], 1);
    assert_eq!(world.alert(&reference).await["state"], "escalating", "they take nothing");
    let opened = revealed(&world, &reference).await;
    let reply = opened["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&reply["message"], &reply["reply"]["contact"]), (&json!(WORDS), &json!("lead")), "{opened}");
    let chain = world.get(&format!("/api/v1/crisis/alerts/{reference}/audit"), ADMIN).await;
    assert!(!chain.text.contains("Kanari"), "{chain:?}");
    assert_eq!(world.query("SELECT count(*) FROM event_details WHERE message LIKE '%Kanari%'"), 0, "they are sealed");
    assert_eq!(world.query("SELECT count(*) FROM alerts WHERE body LIKE '%Kanari%'"), 0);
    assert_eq!(world.query("SELECT count(*) FROM answers WHERE answer LIKE '%Kanari%'"), 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn words_after_the_end_are_kept_too_but_not_those_of_days_later() {
    let mut world = two_people().start().await;
    let reference = case(&mut world).await;
    close(&world, &reference).await;
    world.work().await;
    let said = says(&mut world, LEAD, WORDS).await;
    assert!(said.starts_with(&format!("Ref {reference} is closed. Your words are noted with it")), "{said}");
    assert!(said.ends_with("if it is urgent, call a colleague."), "{said}");
    world.pass(s(25 * 3600)).await;
    assert_eq!(says(&mut world, LEAD, "happy birthday").await, "");
    assert_eq!(world.alert(&reference).await["replies"], 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_machine_that_answers_every_message_is_not_talked_to_for_ever() {
    let mut world = two_people().start().await;
    let reference = case(&mut world).await;
    for _ in 0..100 {
        assert_ne!(world.sim().reply(LEAD, "I am out of office").await.unwrap().answers.concat(), "");
    }
    assert_eq!(world.sim().reply(LEAD, "I am out of office").await.unwrap().answers.concat(), "");
    assert_eq!(world.alert(&reference).await["replies"], 100);
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"), "a command counts as ever");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_comes_too_late_is_answered_clearly_without_quote_or_reference() {
    let mut world = two_people().start().await;
    let reference = case(&mut world).await;
    assert!(says(&mut world, COUNSELLOR, "1").await.contains("is yours"));
    let mut number = 0;
    let mut plainly = async |phone: &str, text: &str| {
        number += 1;
        let (from, sid) = (format!("whatsapp:{phone}"), format!("SM{number:032x}"));
        posted(&world, &[("From", &from), ("Body", text), ("MessageSid", &sid)]).await.expect(200).text
    };
    let taken = format!("Ref {reference} was taken already. Nothing is needed from you.");
    for text in ["1", "2"] {
        let said = plainly(LEAD, text).await;
        assert!(said.contains(&taken), "{text}: {said}");
    }
    let said = plainly(COUNSELLOR, "1").await;
    assert!(said.contains(&format!("Noted: ref {reference} is still yours")), "{said}");
    close(&world, &reference).await;
    let closed = format!("Ref {reference} is closed. Nothing is needed from you.");
    for phone in [COUNSELLOR, LEAD] {
        for text in ["1", "2"] {
            let said = plainly(phone, text).await;
            assert!(said.contains(&closed), "{text}: {said}");
        }
        let said = plainly(phone, "1 K7Q4TX3M").await;
        assert!(said.contains("No case waits for you. Nothing is needed from you."), "{said}");
    }
    let said = plainly(STRANGER, "1").await;
    assert!(!said.contains("<Message>"), "who is not known here hears nothing: {said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_is_known_and_was_never_told_of_anything_hears_that_no_case_waits() {
    let mut world = two_people().start().await;
    assert_eq!(says(&mut world, LEAD, "1").await, "No case waits for you. Nothing is needed from you.");
    assert_eq!(says(&mut world, LEAD, "hello").await, "", "a machine may be answering");
}

#[tokio::test]
async fn done_closes_a_case_for_whoever_has_it_where_the_policy_allows_it() {
    let mut world = two_people().with("CRISIS_RELAY__POLICY__RESOLVE_BY_REPLY", "yes").start().await;
    let reference = case(&mut world).await;
    let said = says(&mut world, LEAD, "done safe").await;
    assert_eq!(said, format!("Ref {reference} is not yours yet. Reply 1 to take it."));
    says(&mut world, LEAD, "1").await;
    let said = says(&mut world, COUNSELLOR, "done safe").await;
    assert_eq!(said, format!("Ref {reference} was taken already. Nothing is needed from you."));
    for unclear in ["done", "done unable", "done drill"] {
        let said = says(&mut world, LEAD, unclear).await;
        assert!(said.starts_with("How did it end? Reply done and one of these words: safe,"), "{unclear}: {said}");
    }
    assert_eq!(world.alert(&reference).await["state"], "acknowledged");
    assert_eq!(says(&mut world, LEAD, "done plan").await, format!("Ref {reference} is closed. Thank you."));
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["detail"]["outcome"]), (&json!("resolved"), &json!("safety_plan")));
    assert_eq!(alert["detail"]["by"]["id"], "lead");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn done_closes_nothing_where_the_policy_does_not_allow_it() {
    let mut world = two_people().start().await;
    let reference = case(&mut world).await;
    says(&mut world, LEAD, "1").await;
    for text in ["done safe", "done"] {
        assert_eq!(says(&mut world, LEAD, text).await, format!("Please close ref {reference} on the dashboard."));
    }
    assert_eq!(world.alert(&reference).await["state"], "acknowledged");
    world.holds_its_promises().await;
}
