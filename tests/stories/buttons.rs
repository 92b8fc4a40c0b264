//! Buttons under a WhatsApp message: a tap does what a reply does, and is known by the message that it stands under, also
//! where WhatsApp hides the number and tells nothing of that message.

use std::sync::Arc;

use crisis_relay::domain::message::{Purpose, TemplateSet};
use crisis_relay::simulator::{AnsweredBy, ContentTemplate, Inbound, Quote, SimMessage};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Gate};
use crate::common::stage::s;
use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, contact_entry};

const LEAD: &str = "+919800000037";
/// Somebody who hides their number.
const HIDDEN: &str = "whatsapp:IN.1234567890";
/// A phone that is called.
const PHONE: &str = "+919800000067";

const TAKE: &str = "I take it";
const PASS: &str = "Pass it on";
const ON_IT: &str = "I am on it";

/// The approved templates: purpose, language, the setting of its id, the id.
const APPROVED: [(Purpose, &str, &str, &str); 3] = [
    (Purpose::CounsellorAlert, "en", "TWILIO_CONTENT_SID_EN", "HX00000000000000000000000000000001"),
    (Purpose::CounsellorAlert, "hi", "TWILIO_CONTENT_SID_HI", "HX00000000000000000000000000000002"),
    (Purpose::OutcomeReminder, "en", "TWILIO_CONTENT_SID_EN_OUTCOME_REMINDER", "HX00000000000000000000000000000003"),
];

/// A world in which the templates are approved that the program prints.
async fn started(mut setting: Setting) -> World {
    for (.., variable, sid) in APPROVED {
        setting = setting.with(variable, sid);
    }
    let world = setting.start().await;
    let set = TemplateSet::builtin();
    for (purpose, language, _, sid) in APPROVED {
        let definition = set.content_definition(purpose, &language.parse().unwrap());
        let definition = serde_json::from_value(definition).unwrap();
        world.sim().put_content(ContentTemplate { sid: sid.to_owned(), definition });
    }
    world
}

/// The counsellor; two minutes later the lead.
fn ladder() -> Setting {
    let policy = r#"
        [policy]
        acknowledged_action_within = "15m"
        check_in_within = "5m"
        repeat_every = "30m"
        resolve_by_reply = true
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "2m"
        contacts = ["lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(contact_entry("lead", "lead", "whatsapp_to", LEAD) + policy))
}

/// Both at once.
fn together() -> Setting {
    let policy = r#"
        [policy]
        repeat_every = "30m"
        [[policy.steps]]
        contacts = ["counsellor", "lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(contact_entry("lead", "lead", "whatsapp_to", LEAD) + policy))
}

async fn case(world: &mut World, student: &str) -> String {
    // Of two cases, one is the newer.
    world.pass(s(1)).await;
    let reference = world.told(student, 0.93).await;
    world.work().await;
    reference
}

fn last(world: &World, phone: &str) -> SimMessage {
    world.sim().messages_to(phone).pop().unwrap()
}

/// What comes back with a tap on a button of this message.
fn payload(message: &SimMessage, title: &str) -> String {
    message.buttons.iter().find(|button| button.title == title).unwrap().id.clone()
}

/// A tap on the last message that has this button.
async fn taps(world: &mut World, phone: &str, title: &str) -> String {
    let reply = world.sim().tap(phone, title).await.unwrap();
    world.work().await;
    reply.answers.concat()
}

/// A tap on a button of one message.
async fn taps_under(world: &mut World, phone: &str, title: &str, message: &SimMessage) -> String {
    let reply = world.sim().tap_under(phone, title, &message.sid).await.unwrap();
    world.work().await;
    reply.answers.concat()
}

/// A tap of which Twilio tells no message that it answers.
async fn taps_unquoted(world: &mut World, from: &str, title: &str, payload: &str) -> String {
    let tap = Inbound::new(from, title).tapped(title, payload).quoting(Quote::Nothing);
    let reply = world.sim().receive(&tap).await.unwrap();
    assert_eq!(reply.http_status, 200);
    world.work().await;
    reply.answers.concat()
}

async fn state(world: &World, reference: &str) -> String {
    world.alert(reference).await["state"].as_str().unwrap().to_owned()
}

async fn taker(world: &World, reference: &str) -> String {
    world.alert(reference).await["detail"]["by"]["id"].as_str().unwrap().to_owned()
}

// -- what a tap does --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tap_takes_the_case_and_a_second_one_says_that_its_owner_is_on_it() {
    let mut world = started(ladder()).await;
    let reference = case(&mut world, "student-1").await;
    let said = taps(&mut world, COUNSELLOR, TAKE).await;
    assert!(said.contains(&format!("Ref {reference} is yours")), "{said}");
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["detail"]["via"]), (&json!("acknowledged"), &json!("reply")), "{alert}");
    let said = taps(&mut world, COUNSELLOR, TAKE).await;
    assert!(said.contains(&format!("ref {reference} is still yours")), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_tap_passes_the_case_on_and_the_next_person_takes_it_by_a_tap() {
    let mut world = started(ladder()).await;
    let reference = case(&mut world, "student-1").await;
    let said = taps(&mut world, COUNSELLOR, PASS).await;
    assert!(said.contains(&format!("Ref {reference} is passed on")), "{said}");
    let said = taps(&mut world, LEAD, TAKE).await;
    assert!(said.contains(&format!("Ref {reference} is yours")), "{said}");
    assert_eq!(taker(&world, &reference).await, "lead");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn buttons_are_in_the_persons_language_and_mean_the_same() {
    let mut world = started(ladder().with("COUNSELLOR_LANGUAGE", "hi")).await;
    let reference = case(&mut world, "student-1").await;
    let titles: Vec<String> = last(&world, COUNSELLOR).buttons.into_iter().map(|button| button.title).collect();
    assert_eq!(titles, ["मामला लें", "आगे दें"]);
    assert!(taps(&mut world, COUNSELLOR, "मामला लें").await.contains(&format!("Ref {reference} is yours")));
}

#[tokio::test]
async fn whoever_is_reminded_answers_with_a_tap_also_where_they_took_the_case_in_a_call() {
    for (title, words, after) in [(ON_IT, "is still yours", "acknowledged"), (PASS, "is passed on", "escalating")] {
        let policy = r#"
            [policy]
            acknowledged_action_within = "15m"
            check_in_within = "5m"
            [[policy.steps]]
            contacts = ["counsellor"]
            channels = ["voice"]
            [[policy.steps]]
            after = "3m"
            contacts = ["lead"]
            channels = ["whatsapp"]
            "#;
        let file = contact_entry("lead", "lead", "whatsapp_to", LEAD) + policy;
        let mut world = started(Setting::default().with("COUNSELLOR_VOICE_TO", PHONE).with_file(&file)).await;
        let path = "/api/v1/messaging/preferences/student-1";
        let agreed = json!({ "whatsapp": true, "voice": true, "source": "story" });
        world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&agreed)).await.expect(200);
        let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
        let reference = world.event(&event).await.expect(202).text_at("/reference");
        world.work().await;
        let call = world.sim().expect_call(PHONE).unwrap();
        world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
        world.sim().press(&call.sid, '1').await.unwrap();
        world.work().await;
        assert_eq!(state(&world, &reference).await, "acknowledged");
        world.pass_in_steps(s(905), s(15)).await;
        let said = taps(&mut world, COUNSELLOR, title).await;
        assert!(said.to_lowercase().contains(&format!("ref {reference} {words}").to_lowercase()), "{title}: {said}");
        assert_eq!(state(&world, &reference).await, after, "{title}");
    }
}

#[tokio::test]
async fn a_tap_that_is_posted_twice_counts_once_and_hears_the_same() {
    let mut world = started(ladder()).await;
    let first = case(&mut world, "student-1").await;
    let message = last(&world, COUNSELLOR);
    let tap = Inbound::new(COUNSELLOR, TAKE)
        .tapped(TAKE, &payload(&message, TAKE))
        .with_sid("SM0123456789abcdef0123456789abcdef");
    let said = world.sim().receive(&tap).await.unwrap().answers.concat();
    assert!(said.contains(&format!("Ref {first} is yours")), "{said}");
    let second = case(&mut world, "student-2").await;
    assert_eq!(world.sim().receive(&tap).await.unwrap().answers.concat(), said);
    assert_eq!(state(&world, &second).await, "escalating");
    world.holds_its_promises().await;
}

// -- which message ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn each_message_has_a_ticket_of_its_own_that_says_nothing() {
    let mut world = started(together()).await;
    let reference = case(&mut world, "student-1").await;
    let alert = world.stored(&reference).await;
    let mut proofs = Vec::new();
    for (phone, contact) in [(COUNSELLOR, "counsellor"), (LEAD, "lead")] {
        let delivery = alert.deliveries.iter().find(|delivery| delivery.contact.as_str() == contact).unwrap();
        let id = payload(&last(&world, phone), TAKE);
        let ticket = id.strip_prefix("1.").unwrap();
        let bytes = data_encoding::BASE32_NOPAD.decode(ticket.as_bytes()).unwrap();
        let (ids, proof) = bytes.split_at(20);
        let message = [alert.id.0.as_bytes().as_slice(), &delivery.no.0.to_be_bytes()].concat();
        assert_eq!(ids, message, "it names the message, and nothing else");
        assert_eq!(proof.len(), 16, "{id}");
        proofs.push(proof.to_vec());
    }
    assert_ne!(proofs[0], proofs[1], "each message has a proof of its own");
    for message in [last(&world, COUNSELLOR), last(&world, LEAD)] {
        assert!(!message.body.contains(&payload(&message, TAKE)[2..]), "nobody sees it");
        assert_eq!(message.error_code, None, "the template has a place for every value");
    }
}

#[tokio::test]
async fn a_tap_means_its_own_message_where_several_cases_wait_and_no_message_is_told() {
    let mut world = started(ladder()).await;
    let first = case(&mut world, "student-1").await;
    let older = last(&world, COUNSELLOR);
    let second = case(&mut world, "student-2").await;
    let said = taps_unquoted(&mut world, COUNSELLOR, TAKE, &payload(&older, TAKE)).await;
    assert!(said.contains(&format!("Ref {first} is yours")), "{said}");
    assert_eq!(state(&world, &second).await, "escalating");
    // A template that was approved before its buttons had tickets: then the phone must say which.
    let third = case(&mut world, "student-3").await;
    let said = taps_unquoted(&mut world, COUNSELLOR, TAKE, "1").await;
    assert!(said.contains(&format!("Refs {third} and {second} are open for you")), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_tap_of_somebody_who_hides_their_number_is_known_by_its_ticket_alone() {
    for (title, words, after) in [(TAKE, "is yours", "acknowledged"), (PASS, "is passed on", "escalating")] {
        let mut world = started(together()).await;
        let reference = case(&mut world, "student-1").await;
        let ticket = payload(&last(&world, LEAD), title);
        if title == PASS {
            // Of two who were told together the other has passed before.
            assert!(taps(&mut world, COUNSELLOR, PASS).await.contains("is passed on"));
        }
        let said = taps_unquoted(&mut world, HIDDEN, title, &ticket).await;
        assert!(said.contains(&format!("Ref {reference} {words}")), "{said}");
        assert_eq!(state(&world, &reference).await, after);
        if title == TAKE {
            assert_eq!(taker(&world, &reference).await, "lead", "whose message it was");
        }
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_ticket_is_no_pass_for_another_phone() {
    let mut world = started(together()).await;
    let reference = case(&mut world, "student-1").await;
    let ticket = payload(&last(&world, COUNSELLOR), TAKE);
    // Theirs is another message of the same case: they are asked, and nothing is done in the counsellor's name.
    let said = taps_unquoted(&mut world, LEAD, TAKE, &ticket).await;
    assert!(said.contains(&format!("Ref {reference} is open for you")), "{said}");
    let said = taps_unquoted(&mut world, "+919811111111", TAKE, &ticket).await;
    assert_eq!(said, "", "a stranger hears nothing");
    assert_eq!(state(&world, &reference).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_ticket_that_we_did_not_make_takes_nothing() {
    let mut world = started(together()).await;
    let reference = case(&mut world, "student-1").await;
    let (own, other) = (payload(&last(&world, COUNSELLOR), TAKE), payload(&last(&world, LEAD), TAKE));
    let changed = |at: usize| {
        let letter = if own.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{letter}{}", &own[..at], &own[at + 1..])
    };
    // The ids of one message with the proof of another, and every kind of damage.
    let crossed = format!("{}{}", &own[..34], &other[34..]);
    let forged = [crossed, changed(5), changed(30), changed(40), changed(55), own[..59].to_owned(), format!("{own}A")];
    for payload in forged.iter().map(String::as_str).chain(["1.SAMPLE", "1.", "1", "ack"]) {
        let said = taps_unquoted(&mut world, HIDDEN, TAKE, payload).await;
        assert!(said.starts_with("Nothing was done: your number is hidden"), "{payload}: {said}");
        assert!(!said.contains(&reference), "{payload}: {said}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_hides_their_number_and_answers_no_message_of_ours_hears_so_and_takes_nothing() {
    let mut world = started(together()).await;
    let reference = case(&mut world, "student-1").await;
    for text in ["1", "2", "done safe", &format!("1 {reference}")] {
        let reply = Inbound::new(HIDDEN, text).quoting(Quote::Nothing);
        let said = world.sim().receive(&reply).await.unwrap().answers.concat();
        assert!(said.starts_with("Nothing was done: your number is hidden"), "{text}: {said}");
    }
    let stop = Inbound::new(HIDDEN, "STOP").quoting(Quote::Nothing);
    let said = world.sim().receive(&stop).await.unwrap().answers.concat();
    assert!(said.contains("it is not clear who you are"), "nobody knows whom to send nothing any more: {said}");
    for text in ["hello", "👍"] {
        let reply = Inbound::new(HIDDEN, text).quoting(Quote::Nothing);
        assert_eq!(world.sim().receive(&reply).await.unwrap().answers.concat(), "", "{text}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
    // Where WhatsApp tells the message, as before.
    let quoted = Quote::Sid(last(&world, LEAD).sid);
    let tap = Inbound::new(HIDDEN, TAKE).tapped(TAKE, "1").quoting(quoted);
    assert!(world.sim().receive(&tap).await.unwrap().answers.concat().contains(&format!("Ref {reference} is yours")));
    assert_eq!(taker(&world, &reference).await, "lead");
    world.holds_its_promises().await;
}

// -- taps that come late ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_tap_on_an_old_message_hears_what_became_of_its_case() {
    let mut world = started(ladder()).await;
    let reference = case(&mut world, "student-1").await;
    let old = last(&world, COUNSELLOR);
    world.pass_in_steps(s(130), s(10)).await;
    assert!(taps(&mut world, LEAD, TAKE).await.contains("is yours"));
    for title in [TAKE, PASS] {
        let said = taps_under(&mut world, COUNSELLOR, title, &old).await;
        assert_eq!(said, format!("Ref {reference} was taken already. Nothing is needed from you."), "{title}");
    }
    // Handed on by whoever had it: it waits again, and whoever was told before may still take it.
    assert!(taps(&mut world, LEAD, PASS).await.contains("is passed on"));
    let said = taps_under(&mut world, COUNSELLOR, TAKE, &old).await;
    assert!(said.contains(&format!("Ref {reference} is yours")), "{said}");
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    for title in [TAKE, PASS] {
        let said = taps_under(&mut world, COUNSELLOR, title, &old).await;
        assert_eq!(said, format!("Ref {reference} is closed. Nothing is needed from you."), "{title}");
    }
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_tap_on_an_old_message_sends_nobody_back_to_sleep_while_another_case_waits() {
    let mut world = started(together()).await;
    let (taken, closed) = (case(&mut world, "student-1").await, case(&mut world, "student-2").await);
    let messages = world.sim().messages_to(COUNSELLOR);
    let of_the_lead = world.sim().messages_to(LEAD)[0].clone();
    assert!(taps_under(&mut world, LEAD, TAKE, &of_the_lead).await.contains(&format!("Ref {taken} is yours")));
    let path = format!("/api/v1/crisis/alerts/{closed}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "false_alarm" })).await.expect(200);
    let waiting = case(&mut world, "student-3").await;
    for (no, old) in [&messages[0], &messages[1]].into_iter().enumerate() {
        for title in [TAKE, PASS] {
            let said = taps_under(&mut world, COUNSELLOR, title, old).await;
            assert!(said.contains(&format!("Ref {waiting} is open for you")), "{no} {title}: {said}");
            assert!(!said.contains("Nothing"), "{no} {title}: {said}");
        }
    }
    // The same of a reference that is typed.
    let reply = Inbound::new(COUNSELLOR, &format!("1 {taken}")).quoting(Quote::Nothing);
    let said = world.sim().receive(&reply).await.unwrap().answers.concat();
    let words =
        format!("Ref {taken} was taken already. Ref {waiting} waits for you still: reply 1 {waiting} to take it.");
    assert_eq!(said, words);
    assert_eq!(state(&world, &waiting).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_is_too_late_by_an_instant_hears_of_the_other_case_that_waits() {
    let gate = Gate::new();
    let mut world = started(together().with_gate(&gate)).await;
    let first = case(&mut world, "student-1").await;
    let (of_the_counsellor, of_the_lead) = (last(&world, COUNSELLOR), last(&world, LEAD));
    let second = case(&mut world, "student-2").await;
    let permits = Arc::new(Semaphore::new(0));
    gate.strike_first("commit_alert", Fate::Wait(Arc::clone(&permits)));
    let sim = world.sim();
    let slow = sim.tap_under(COUNSELLOR, TAKE, &of_the_counsellor.sid);
    let fast = async {
        world.until("the first is about to commit", async |_| gate.count("commit_alert") == 1).await;
        let said = sim.tap_under(LEAD, TAKE, &of_the_lead.sid).await.unwrap().answers.concat();
        permits.add_permits(1);
        said
    };
    let (slow, fast) = tokio::join!(slow, fast);
    assert!(fast.contains(&format!("Ref {first} is yours")), "{fast}");
    let words =
        format!("Ref {first} was taken already. Ref {second} waits for you still: reply 1 {second} to take it.");
    assert_eq!(slow.unwrap().answers.concat(), words);
    gate.open();
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_passes_one_case_on_or_closes_it_hears_of_the_other_that_waits() {
    let mut world = started(ladder()).await;
    let first = case(&mut world, "student-1").await;
    let message = last(&world, COUNSELLOR);
    let second = case(&mut world, "student-2").await;
    let said = taps_under(&mut world, COUNSELLOR, PASS, &message).await;
    let words = format!("Ref {second} waits for you still: reply 1 {second} to take it.");
    assert_eq!(said, format!("Ref {first} is passed on. The next person is being told. {words}"));
    // Whoever takes one goes to work, and is not told of the others by the way: those have messages of their own.
    let said = taps_under(&mut world, COUNSELLOR, TAKE, &message).await;
    assert_eq!(said, format!("Ref {first} is yours. Please close it on the dashboard when it is done."));
    let done = world.sim().reply(COUNSELLOR, &format!("done safe {first}")).await.unwrap().answers.concat();
    assert_eq!(done, format!("Ref {first} is closed. Thank you. {words}"));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_tap_on_a_drill_is_about_the_drill_and_names_the_real_case_that_waits() {
    let mut world = started(together()).await;
    world.post("/api/v1/crisis/drills", ADMIN, &json!({ "score": 0.93 })).await.expect(201);
    world.work().await;
    let drill = last(&world, LEAD);
    let rehearsed = drill.body.split("reference is ").nth(1).unwrap()[..8].to_owned();
    let live = case(&mut world, "student-1").await;
    let said = taps_under(&mut world, LEAD, TAKE, &drill).await;
    let waits = format!("Ref {live}, a real case, waits for you still: reply 1 {live} to take it.");
    assert_eq!(said, format!("DRILL: your answer to ref {rehearsed} is noted. {waits}"));
    assert_eq!((state(&world, &rehearsed).await, state(&world, &live).await), ("resolved".into(), "escalating".into()));
    // Over and tapped again: what waits is asked about.
    let said = taps_under(&mut world, LEAD, TAKE, &drill).await;
    assert!(said.contains(&format!("Ref {live} is open for you")) && !said.contains("Nothing"), "{said}");
    assert!(taps(&mut world, LEAD, TAKE).await.contains(&format!("Ref {live} is yours")));
    let said = taps_under(&mut world, LEAD, TAKE, &drill).await;
    assert!(said.starts_with("DRILL: ") && said.contains(&rehearsed), "{said}");
    world.holds_its_promises().await;
}
