//! Who is not reached over one channel is told over the next, and who does not answer is followed by the next person.

use std::time::Duration;

use crisis_relay::service::report::report;
use crisis_relay::simulator::{Fault, FaultRule, SimMessage};
use serde_json::{Value, json};

use crate::common::stage::{ms, s};
use crate::common::{AUDITOR, COUNSELLOR, SERVICE, Setting, World, contact_entry};

/// Where the counsellor gets text messages.
const TEXTS: &str = "+919800000027";
/// A colleague of theirs, who has WhatsApp only.
const COLLEAGUE: &str = "+919800000037";
/// Whoever leads them, who has text messages only.
const LEAD: &str = "+919800000047";
/// The duty manager.
const MANAGER: &str = "+919800000057";

fn two_channels() -> Setting {
    Setting::default().with("COUNSELLOR_SMS_TO", TEXTS)
}

/// A student who says this of the channels, and a case of theirs.
async fn case(world: &mut World, said: &Value) -> String {
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(said)).await.expect(200);
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    reference
}

fn both() -> Value {
    json!({ "whatsapp": true, "sms": true, "source": "story" })
}

fn told(world: &World, phone: &str, reference: &str) -> Vec<SimMessage> {
    let mut messages = world.sim().messages_to(phone);
    messages.retain(|message| message.body.contains(reference));
    messages
}

/// What the audit says of the deliveries, in its order.
async fn deeds(world: &World, reference: &str) -> Vec<Value> {
    let path = format!("/api/v1/crisis/alerts/{reference}/audit");
    let audit = world.get(&path, AUDITOR).await.expect(200).json();
    let entries = audit["entries"].as_array().unwrap().iter();
    let said = entries.map(|entry| serde_json::from_str(entry["canonical"].as_str().unwrap()).unwrap());
    said.filter(|entry: &Value| entry["deed"] == "delivery").collect()
}

#[tokio::test]
async fn a_message_that_is_refused_is_followed_by_a_text_message_at_once() {
    let mut world = two_channels().start_with(FaultRule::once(Fault::Refused { code: 63024, http_status: 400 })).await;
    let reference = case(&mut world, &both()).await;
    assert_eq!(told(&world, COUNSELLOR, &reference).len(), 0);
    let texts = told(&world, TEXTS, &reference);
    assert_eq!(texts.len(), 1, "nobody waits for the next step");
    assert_eq!((texts[0].to.as_str(), texts[0].content_sid.as_ref()), (TEXTS, None), "a plain text message");
    let fell_over: Vec<Value> =
        deeds(&world, &reference).await.into_iter().filter(|deed| deed["what"] == "fell_over").collect();
    assert_eq!(fell_over.len(), 1);
    assert_eq!(
        (&fell_over[0]["delivery"], &fell_over[0]["next"], &fell_over[0]["channel"]),
        (&json!(1), &json!(2), &json!("sms"))
    );
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_report_tells_of_both_channels_and_why_there_were_two() {
    let mut world = two_channels().start_with(FaultRule::once(Fault::Refused { code: 63024, http_status: 400 })).await;
    let reference = case(&mut world, &both()).await;
    let organisation = "default".parse().unwrap();
    let report = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    for told in [
        "counsellor (counsellor), whatsapp",
        "failed: refused, error 63024",
        "the next channel's turn: sms, planned as message 2",
        "counsellor (counsellor), sms",
    ] {
        assert!(report.contains(told), "it does not say {told}: {report}");
    }
}

#[tokio::test]
async fn a_message_that_fails_on_its_way_is_followed_by_a_text_message_at_once() {
    let fault = Fault::FailsLater { code: 63003, failed: false };
    let mut world = two_channels().start_with(FaultRule::once(fault)).await;
    let reference = case(&mut world, &both()).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 0, "nothing is known of it yet");
    world.receipts().await;
    world.receipts().await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_without_a_receipt_is_followed_by_a_text_message_after_half_a_minute_and_only_one() {
    let mut world = two_channels().start_with(FaultRule::always(Fault::NoReceipt)).await;
    let reference = case(&mut world, &both()).await;
    world.pass(s(30) - ms(1)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 0, "its time is not over");
    world.pass(ms(1)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 1);
    world.pass_in_steps(s(4 * 60), s(10)).await;
    assert_eq!((told(&world, COUNSELLOR, &reference).len(), told(&world, TEXTS, &reference).len()), (1, 1));
    // The next round begins with the first channel again.
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!((told(&world, COUNSELLOR, &reference).len(), told(&world, TEXTS, &reference).len()), (2, 2));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_that_has_arrived_is_followed_by_none() {
    let mut world = two_channels().start().await;
    let reference = case(&mut world, &both()).await;
    // Sent is not delivered.
    world.receipts().await;
    world.receipts().await;
    world.pass_in_steps(s(4 * 60), s(10)).await;
    assert_eq!((told(&world, COUNSELLOR, &reference).len(), told(&world, TEXTS, &reference).len()), (1, 0));
    let alert = world.alert(&reference).await;
    assert_eq!(alert["deliveries"][0]["state"], "delivered", "{alert}");
}

#[tokio::test]
async fn a_message_of_which_nobody_knows_is_not_waited_for_either() {
    let mut world = two_channels().start_with(FaultRule::next(1, Fault::TimeOutWithoutAccepting)).await;
    world.goes_wrong(FaultRule::always(Fault::ServerError { http_status: 503, retry_after_s: None }).to(COUNSELLOR));
    let reference = case(&mut world, &both()).await;
    world.pass_in_steps(s(30), s(5)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_the_student_did_not_agree_to_is_not_fallen_back_on() {
    let refused = FaultRule::always(Fault::Refused { code: 63024, http_status: 400 }).to(COUNSELLOR);
    let mut world = two_channels().start_with(refused).await;
    let reference = case(&mut world, &json!({ "whatsapp": true, "sms": false, "source": "story" })).await;
    world.pass_in_steps(s(20 * 60), s(10)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 0, "told over what the student refused");
    assert!(world.alert(&reference).await["next_action_at"].is_string(), "the case goes on");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_case_that_is_taken_meanwhile_is_told_no_further() {
    let mut world = two_channels().start_with(FaultRule::next(1, Fault::NoReceipt)).await;
    let reference = case(&mut world, &both()).await;
    world.pass(s(29)).await;
    world.taken_by_reply(&reference).await;
    world.pass_in_steps(s(5 * 60), s(1)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_text_message_is_answered_and_takes_the_case() {
    let mut world =
        two_channels().start_with(FaultRule::next(1, Fault::Refused { code: 63024, http_status: 400 })).await;
    let reference = case(&mut world, &both()).await;
    let reply = world.sim().reply(TEXTS, "1").await.unwrap();
    assert!(reply.answers.iter().any(|text| text.contains(&reference)), "confirmed: {reply:?}");
    let alert = world.alert(&reference).await;
    assert_eq!(alert["state"], "acknowledged");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn over_which_channel_a_person_is_told_next_outlives_a_crash() {
    let mut world = two_channels().start_with(FaultRule::always(Fault::NoReceipt)).await;
    let reference = case(&mut world, &both()).await;
    world.pass(s(20)).await;
    let mut world = world.crash().await;
    world.pass(s(10)).await;
    assert_eq!(told(&world, TEXTS, &reference).len(), 1);
    world.holds_its_promises().await;
}

/// Three people and the one at the end, told one after the other.
fn ladder() -> Setting {
    let people = contact_entry("colleague", "counsellor", "whatsapp_to", COLLEAGUE)
        + &contact_entry("lead", "lead", "sms_to", LEAD)
        + "language = \"hi\"\n"
        + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let policy = r#"
        [policy]
        rounds = 1
        repeat_every = "4m"
        last_responder = "manager"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp", "sms"]
        [[policy.steps]]
        after = "3m"
        roles = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "3m"
        contacts = ["lead"]
        channels = ["whatsapp", "sms"]
        "#;
    two_channels().with_file(&(people + policy))
}

/// How often each was told of a case: the counsellor over both channels, the colleague, the lead, the manager.
fn counts(world: &World, reference: &str) -> [usize; 5] {
    [COUNSELLOR, TEXTS, COLLEAGUE, LEAD, MANAGER].map(|phone| {
        let messages = told(world, phone, reference);
        messages.iter().filter(|message| !message.body.contains("in the hands of")).count()
    })
}

#[tokio::test]
async fn people_are_told_one_after_the_other_until_the_last_responder_who_is_told_again_and_again() {
    let mut world = ladder().start().await;
    let reference = case(&mut world, &both()).await;
    let minutes = async |world: &mut World, minutes: u64| {
        for _ in 0..minutes * 6 {
            world.sim().step_all().await;
            world.pass(Duration::from_secs(10)).await;
        }
        counts(world, &reference)
    };
    assert_eq!(minutes(&mut world, 2).await, [1, 0, 0, 0, 0], "the first one has three minutes");
    assert_eq!(minutes(&mut world, 1).await, [2, 0, 1, 0, 0], "all counsellors");
    assert_eq!(minutes(&mut world, 3).await, [2, 0, 1, 1, 0], "who leads them, by text message alone");
    assert_eq!(minutes(&mut world, 4).await, [2, 0, 1, 1, 1], "the last responder");
    assert_eq!(minutes(&mut world, 10).await, [2, 0, 1, 1, 3], "again every five minutes");
    let text = &told(&world, LEAD, &reference)[0].body;
    assert!(!text.is_ascii(), "in the lead's language: {text}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn whoever_was_told_may_take_it_and_then_nobody_further_is_told() {
    let mut world = ladder().start().await;
    let reference = case(&mut world, &both()).await;
    world.receipts().await;
    world.receipts().await;
    world.pass_in_steps(s(3 * 60), s(10)).await;
    let reply = world.sim().reply(COLLEAGUE, "1").await.unwrap();
    assert!(reply.answers.iter().any(|text| text.contains(&reference)), "confirmed: {reply:?}");
    let alert = world.alert(&reference).await;
    assert_eq!(
        (&alert["state"], &alert["detail"]["by"]["id"]),
        (&json!("acknowledged"), &json!("colleague")),
        "{alert}"
    );
    let before = counts(&world, &reference);
    world.pass_in_steps(s(10 * 60), s(10)).await;
    assert_eq!(counts(&world, &reference), before, "told although it is taken");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_everything_fails_every_person_of_the_ladder_is_tried_and_the_last_responder_over_and_over() {
    let refused = FaultRule::always(Fault::Refused { code: 63024, http_status: 400 });
    let mut world = ladder().start_with(refused).await;
    let reference = case(&mut world, &both()).await;
    world.pass_in_steps(s(12 * 60), s(10)).await;
    let tried: std::collections::BTreeSet<String> = world
        .sim()
        .requests()
        .iter()
        .filter_map(|request| Some(request.get("To")?.trim_start_matches("whatsapp:").to_owned()))
        .collect();
    for phone in [COUNSELLOR, TEXTS, COLLEAGUE, LEAD, MANAGER] {
        assert!(tried.contains(phone), "{phone} was never tried: {tried:?}");
    }
    assert_eq!(world.alert(&reference).await["detail"]["last_responder"], true);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_was_told_long_ago_can_still_take_the_case_however_often_others_were_told_since() {
    let mut world = ladder().start().await;
    let reference = case(&mut world, &both()).await;
    // Hours of the last responder, message after message.
    for _ in 0..6 * 60 {
        world.sim().step_all().await;
        world.pass(Duration::from_secs(60)).await;
    }
    let reply = world.sim().reply(COLLEAGUE, &format!("1 {reference}")).await.unwrap();
    assert!(reply.answers.iter().any(|text| text.contains("is yours")), "they were met with silence: {reply:?}");
    assert_eq!(world.alert(&reference).await["detail"]["by"]["id"], "colleague");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn consent_to_a_channel_that_reaches_nobody_is_no_permission_and_people_see_it() {
    let mut world = Setting::default().start().await;
    let path = "/api/v1/messaging/preferences/student-1";
    let said = json!({ "sms": true, "source": "story" });
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&said)).await.expect(200);
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let answer = world.event(&event).await.expect(202);
    assert_eq!(answer.text_at("/decision"), "withheld_no_consent", "called escalated, and nobody can be told");
    world.work().await;
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn where_the_last_responder_cannot_be_told_somebody_who_can_is() {
    let file = contact_entry("manager", "duty_manager", "sms_to", MANAGER)
        + "[policy]\nrounds = 1\nlast_responder = \"manager\"\n";
    let mut world = Setting::default().with_file(&file).start().await;
    let reference = case(&mut world, &json!({ "whatsapp": true, "source": "story" })).await;
    world.pass_in_steps(s(26 * 60), s(30)).await;
    let told = told(&world, COUNSELLOR, &reference).len();
    assert_eq!(told, 6, "every five minutes, without end");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_was_never_tried_is_not_doubled_by_a_text_message() {
    // One call goes wrong, and for a minute the circuit breaker holds back all others, over whatever channel.
    let mut world = two_channels()
        .with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "1")
        .with("CRISIS_RELAY__TWILIO__BREAKER_OPEN_FIRST", "1m")
        .with("CRISIS_RELAY__TWILIO__BREAKER_OPEN_MAX", "1m")
        .start_with(FaultRule::once(Fault::DropBeforeAccepting))
        .await;
    world.told("student-0", 0.93).await;
    world.work().await;
    let reference = case(&mut world, &both()).await;
    world.pass_in_steps(s(50), s(5)).await;
    assert_eq!(told(&world, COUNSELLOR, &reference).len(), 0, "it is held back");
    let alert = world.alert(&reference).await;
    assert_eq!(alert["deliveries"].as_array().map(Vec::len), Some(1), "over SMS it would wait as well: {alert}");
    for _ in 0..30 {
        world.pass(s(1)).await;
        world.sim().step_all().await;
    }
    assert_eq!((told(&world, COUNSELLOR, &reference).len(), told(&world, TEXTS, &reference).len()), (1, 0));
    world.holds_its_promises().await;
}

/// The counsellor; a minute later the lead; and at the end the manager, who can only be called, to which no student agrees.
/// The colleague is on no rung.
fn nobody_at_the_end() -> Setting {
    let people = contact_entry("colleague", "counsellor", "whatsapp_to", COLLEAGUE)
        + &contact_entry("lead", "lead", "sms_to", LEAD)
        + &contact_entry("manager", "duty_manager", "voice_to", MANAGER);
    let policy = r#"
        [policy]
        rounds = 1
        repeat_every = "1m"
        last_responder = "manager"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "1m"
        contacts = ["lead"]
        channels = ["sms"]
        "#;
    two_channels().with_file(&(people + policy))
}

#[tokio::test]
async fn who_stands_in_is_told_over_all_that_they_have_and_after_them_somebody_else_is() {
    let mut world = nobody_at_the_end().start_with(FaultRule::always(Fault::NoReceipt)).await;
    let reference = case(&mut world, &both()).await;
    world.pass_in_steps(s(2 * 60), s(10)).await;
    assert_eq!(counts(&world, &reference), [2, 0, 0, 1, 0], "the counsellor stands in");
    world.pass_in_steps(s(30), s(10)).await;
    assert_eq!(counts(&world, &reference), [2, 1, 0, 1, 0], "over what the manager has not, too");
    world.pass_in_steps(s(4 * 60), s(10)).await;
    assert_eq!(counts(&world, &reference), [2, 1, 0, 1, 0]);
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(counts(&world, &reference), [2, 1, 1, 1, 0], "whoever stood in has not answered");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_cannot_be_reached_does_not_stand_in_again_while_others_can() {
    let refused = |phone: &str| FaultRule::always(Fault::Refused { code: 63024, http_status: 400 }).to(phone);
    let mut world = nobody_at_the_end().start_with(refused(COUNSELLOR)).await;
    world.goes_wrong(refused(TEXTS));
    let reference = case(&mut world, &both()).await;
    world.pass_in_steps(s(3 * 60), s(10)).await;
    assert_eq!(counts(&world, &reference), [0, 0, 1, 1, 0], "whoever can be reached");
    let tried = |world: &World| {
        let requests = world.sim().requests();
        let is_to = |to: &str| [COUNSELLOR, TEXTS].iter().any(|phone| to.ends_with(phone));
        requests.iter().filter(|request| request.get("To").is_some_and(is_to)).count()
    };
    let before = tried(&world);
    world.pass_in_steps(s(20 * 60), s(10)).await;
    assert_eq!(counts(&world, &reference), [0, 0, 3, 3, 0], "by turns");
    assert_eq!(tried(&world), before, "a dead phone is not tried for ever");
    world.holds_its_promises().await;
}
