//! A notice that does not arrive over WhatsApp is said by text message, to the same person, and once.

use crisis_relay::domain::message::{Purpose, TemplateSet};
use crisis_relay::simulator::{ContentTemplate, Fault, FaultRule, SimMessage, SimStatus};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::common::stage::{s, says};
use crate::common::{ADMIN, AUDITOR, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, contact_entry};

const COUNSELLOR_TEXTS: &str = "+919800000027";
const LEAD: &str = "+919800000037";
const LEAD_TEXTS: &str = "+919800000047";
/// Has WhatsApp alone.
const MANAGER: &str = "+919800000057";

const TAKEN: &str = "in the hands of";
const OUTCOME: &str = "no outcome is noted";
const FOLLOW_UP: &str = "a follow-up is due";

const SID: &str = "0123456789abcdef0123456789abcdef";

/// The counsellor; two minutes later the lead; then, again and again, the manager. All are told over WhatsApp; the first two
/// have text messages besides, which the ladder knows.
fn ladder() -> Setting {
    let people = contact_entry("lead", "lead", "whatsapp_to", LEAD)
        + &format!("sms_to = \"{LEAD_TEXTS}\"\n")
        + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let policy = r#"
        [policy]
        rounds = 1
        repeat_every = "2m"
        last_responder = "manager"
        acknowledged_action_within = "15m"
        check_in_within = "5m"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["whatsapp", "sms"]
        [[policy.steps]]
        after = "2m"
        contacts = ["lead"]
        channels = ["whatsapp", "sms"]
        "#;
    Setting::default().with("COUNSELLOR_SMS_TO", COUNSELLOR_TEXTS).with_file(&(people + policy))
}

fn said(world: &World, phone: &str, words: &str) -> Vec<SimMessage> {
    let mut messages = world.sim().messages_to(phone);
    messages.retain(|message| message.body.contains(words));
    messages
}

fn count(world: &World, words: &str) -> [usize; 5] {
    [COUNSELLOR, COUNSELLOR_TEXTS, LEAD, LEAD_TEXTS, MANAGER].map(|phone| said(world, phone, words).len())
}

async fn allows(world: &World, sms: bool) {
    let word = json!({ "whatsapp": true, "sms": sms, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&word)).await.expect(200);
}

/// A case that the counsellor and the lead have been told of, over WhatsApp, and whose phones have it.
async fn told_two(world: &mut World) -> String {
    allows(world, true).await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    receipts(world).await;
    world.pass_in_steps(s(130), s(10)).await;
    receipts(world).await;
    assert_eq!(count(world, &reference), [1, 0, 1, 0, 0], "two were told");
    reference
}

/// What is under way comes to its end, and Twilio says so.
async fn receipts(world: &mut World) {
    for _ in 0..3 {
        world.receipts().await;
        world.work().await;
    }
}

async fn close(world: &World, reference: &str, follow_up_in: Option<SignedDuration>) {
    let mut body = json!({ "outcome": "safety_plan" });
    if let Some(after) = follow_up_in {
        body["follow_up_at"] = json!(world.now() + after);
    }
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
}

/// WhatsApp takes free text from nobody but those who wrote lately: Twilio says so when it is under way.
fn no_free_text(world: &World, phone: &str) {
    world.goes_wrong(FaultRule::always(Fault::FailsLater { code: 63016, failed: false }).to(phone));
}

async fn refused(world: &World) -> f64 {
    world.alarms("provider_refused").await
}

async fn fell_over(world: &World, reference: &str) -> Vec<Value> {
    let path = format!("/api/v1/crisis/alerts/{reference}/audit");
    let audit = world.get(&path, AUDITOR).await.expect(200).json();
    let entries = audit["entries"].as_array().unwrap().iter();
    let said = entries.map(|entry| serde_json::from_str(entry["canonical"].as_str().unwrap()).unwrap());
    said.filter(|entry: &Value| entry["what"] == "fell_over").collect()
}

// -- each notice ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn that_a_case_is_taken_goes_by_text_message_where_whatsapp_refuses_it_and_the_operator_hears_of_it() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    no_free_text(&world, COUNSELLOR);
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"));
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 0]);
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [1, 1, 0, 0, 0], "at once");
    assert_eq!(refused(&world).await, 1.0);
    let over = fell_over(&world, &reference).await;
    assert_eq!(over.len(), 1, "{over:?}");
    assert_eq!(over[0]["channel"], "sms");
    world.pass_in_steps(s(14 * 60), s(30)).await;
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [1, 1, 0, 0, 0], "and once");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_notice_that_is_refused_at_once_goes_by_text_message_at_once() {
    let mut world = ladder().start().await;
    told_two(&mut world).await;
    world.goes_wrong(FaultRule::always(Fault::Refused { code: 63016, http_status: 400 }).to(COUNSELLOR));
    says(&mut world, LEAD, "1").await;
    assert_eq!(count(&world, TAKEN), [0, 1, 0, 0, 0]);
    assert_eq!(refused(&world).await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_reminder_of_an_outcome_goes_by_text_message_where_whatsapp_refuses_it() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    says(&mut world, LEAD, "1").await;
    no_free_text(&world, LEAD);
    world.pass_in_steps(s(15 * 60 + 30), s(30)).await;
    receipts(&mut world).await;
    assert_eq!(count(&world, OUTCOME), [0, 0, 1, 1, 0]);
    assert_eq!(refused(&world).await, 1.0);
    // It is answered as any: the time begins anew, and the case stays theirs.
    let said = says(&mut world, LEAD_TEXTS, &format!("1 {reference}")).await;
    assert!(said.contains("is still yours"), "{said}");
    world.pass_in_steps(s(14 * 60), s(30)).await;
    assert_eq!(world.alert(&reference).await["state"], "acknowledged");
    assert_eq!(count(&world, OUTCOME), [0, 0, 1, 1, 0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_follow_up_goes_by_text_message_to_the_same_person_before_anybody_else_is_reminded() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    says(&mut world, LEAD, "1").await;
    close(&world, &reference, Some(SignedDuration::from_hours(48))).await;
    world.pass(s(48 * 3600 - 60)).await;
    no_free_text(&world, LEAD);
    world.pass_in_steps(s(120), s(30)).await;
    receipts(&mut world).await;
    assert_eq!(count(&world, FOLLOW_UP), [0, 0, 1, 1, 0]);
    assert_eq!((refused(&world).await, world.alarms("follow_up_untold").await), (1.0, 0.0));
    world.pass_in_steps(s(2 * 3600), s(600)).await;
    assert_eq!(count(&world, FOLLOW_UP), [0, 0, 1, 1, 0], "nobody else needs to be");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_follow_up_that_reaches_one_person_over_nothing_goes_to_the_next_over_all_that_they_have() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    says(&mut world, LEAD, "1").await;
    close(&world, &reference, Some(SignedDuration::from_hours(48))).await;
    world.pass(s(48 * 3600 - 60)).await;
    for phone in [LEAD, COUNSELLOR] {
        no_free_text(&world, phone);
    }
    world.goes_wrong(FaultRule::always(Fault::FailsLater { code: 30005, failed: false }).to(LEAD_TEXTS));
    world.pass_in_steps(s(120), s(30)).await;
    for _ in 0..3 {
        receipts(&mut world).await;
        world.pass_in_steps(s(30), s(10)).await;
    }
    assert_eq!(count(&world, FOLLOW_UP), [1, 1, 1, 1, 0]);
    assert_eq!(world.alarms("follow_up_untold").await, 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn whoever_has_whatsapp_alone_is_not_told_and_the_operator_hears_why() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    world.pass_in_steps(s(130), s(10)).await;
    receipts(&mut world).await;
    assert_eq!(count(&world, &reference), [1, 0, 1, 0, 1], "all three were told");
    no_free_text(&world, MANAGER);
    says(&mut world, LEAD, "1").await;
    receipts(&mut world).await;
    world.pass_in_steps(s(10 * 60), s(30)).await;
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 1]);
    assert_eq!(refused(&world).await, 1.0);
    assert!(fell_over(&world, &reference).await.is_empty());
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_phone_that_takes_nothing_is_no_fault_of_the_set_up() {
    let mut world = ladder().start().await;
    told_two(&mut world).await;
    // Not a user of WhatsApp.
    world.goes_wrong(FaultRule::always(Fault::FailsLater { code: 63024, failed: true }).to(COUNSELLOR));
    says(&mut world, LEAD, "1").await;
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [1, 1, 0, 0, 0]);
    assert_eq!(refused(&world).await, 0.0);
}

// -- no more than is needed -------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_notice_that_arrives_after_all_takes_its_text_message_back_while_that_waits() {
    // The counsellor's phone is one for both channels, and takes two messages a minute that can wait.
    let one_phone = ladder().with("COUNSELLOR_SMS_TO", COUNSELLOR);
    let mut world = one_phone.with("CRISIS_RELAY__DELIVERY__PHONE_PER_MINUTE", "2").start().await;
    let reference = told_two(&mut world).await;
    no_free_text(&world, COUNSELLOR);
    says(&mut world, LEAD, "1").await;
    let notice = said(&world, COUNSELLOR, TAKEN).pop().unwrap();
    world.sim().clear_faults();
    world.told("student-2", 0.93).await;
    world.work().await;
    world.receipts().await;
    world.receipts().await;
    world.work().await;
    let waits = world.last_delivery(&reference).await;
    assert_eq!((&waits["channel"], &waits["state"]), (&json!("sms"), &json!("due")), "{waits}");
    world.sim().send_callback(&notice.sid, SimStatus::Delivered, None).await.unwrap();
    world.pass_in_steps(s(300), s(10)).await;
    assert_eq!(world.last_delivery(&reference).await["state"], "cancelled");
    assert_eq!(said(&world, COUNSELLOR, TAKEN).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_text_message_that_is_out_is_not_followed_by_another_when_its_notice_arrives_after_all() {
    let mut world = ladder().start().await;
    told_two(&mut world).await;
    no_free_text(&world, COUNSELLOR);
    says(&mut world, LEAD, "1").await;
    receipts(&mut world).await;
    let notice = said(&world, COUNSELLOR, TAKEN).pop().unwrap();
    world.sim().send_callback(&notice.sid, SimStatus::Delivered, None).await.unwrap();
    world.work().await;
    world.pass_in_steps(s(5 * 60), s(10)).await;
    assert_eq!(count(&world, TAKEN), [1, 1, 0, 0, 0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_is_not_true_any_more_when_it_fails_is_said_over_no_other_channel() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    no_free_text(&world, COUNSELLOR);
    says(&mut world, LEAD, "1").await;
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 0]);
    let answer = says(&mut world, LEAD, &format!("2 {reference}")).await;
    assert!(answer.contains("is passed on"), "{answer}");
    receipts(&mut world).await;
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 0], "the case is open again");
    // Nor once somebody else has it: that is a notice of its own.
    world.sim().clear_faults();
    says(&mut world, MANAGER, "1").await;
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [2, 0, 1, 0, 0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_reminder_that_was_answered_meanwhile_is_not_said_again() {
    let mut world = ladder().start().await;
    told_two(&mut world).await;
    says(&mut world, LEAD, "1").await;
    no_free_text(&world, LEAD);
    world.pass_in_steps(s(15 * 60 + 30), s(30)).await;
    assert_eq!(count(&world, OUTCOME), [0, 0, 1, 0, 0]);
    assert!(says(&mut world, LEAD, "1").await.contains("is still yours"));
    receipts(&mut world).await;
    world.pass_in_steps(s(10 * 60), s(30)).await;
    assert_eq!(count(&world, OUTCOME), [0, 0, 1, 0, 0]);
    assert_eq!(refused(&world).await, 1.0, "the operator hears of it all the same");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_the_student_does_not_allow_is_no_second_channel() {
    let mut world = ladder().start().await;
    told_two(&mut world).await;
    allows(&world, false).await;
    no_free_text(&world, COUNSELLOR);
    says(&mut world, LEAD, "1").await;
    receipts(&mut world).await;
    world.pass_in_steps(s(5 * 60), s(10)).await;
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 0]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_notice_goes_over_no_channel_that_the_ladder_does_not_use() {
    let lead = contact_entry("lead", "lead", "whatsapp_to", LEAD) + &format!("sms_to = \"{LEAD_TEXTS}\"\n");
    let lead = lead + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let policy = "[policy]\nlast_responder = \"manager\"\n[[policy.steps]]\ncontacts = [\"counsellor\", \"lead\"]\n\
        channels = [\"whatsapp\"]\n";
    let mut world = Setting::default().with_file(&(lead + policy)).start().await;
    let stated = json!({ "by": "Dr. A. Rao", "reason": "life is at risk" });
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat", "emergency_override": stated });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    receipts(&mut world).await;
    // An override covers every channel; what nobody has set up to send over is none of them.
    let unreached = Fault::FailsLater { code: 63016, failed: false };
    world.sim().push_fault(FaultRule::always(unreached).to(LEAD));
    world.post(&format!("/api/v1/crisis/alerts/{reference}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.work().await;
    receipts(&mut world).await;
    world.pass_in_steps(s(120), s(10)).await;
    assert!(world.sim().messages_to(LEAD_TEXTS).is_empty());
    world.holds_its_promises().await;
}

// -- as in life -------------------------------------------------------------------------------------------------------

/// The approved templates of these, which the simulator knows.
async fn in_life(approved: &[&str]) -> World {
    let sid = |nth: usize| format!("HX{nth:032}");
    let named = approved.iter().enumerate();
    let setting = named.clone().fold(ladder().in_life(), |setting, (nth, name)| setting.with(name, &sid(nth)));
    let world = setting.start().await;
    for (nth, name) in named {
        let purpose = if name.ends_with("_TAKEN_NOTICE") { Purpose::TakenNotice } else { Purpose::CounsellorAlert };
        let definition = TemplateSet::builtin().content_definition(purpose, &"en".parse().unwrap());
        let definition = serde_json::from_value(definition).unwrap();
        world.sim().put_content(ContentTemplate { sid: sid(nth), definition });
        assert!(world.sim().set_approval(&sid(nth), "approved"));
    }
    world
}

/// The alert's template alone, as it was enough to be set up.
const ALERT_ALONE: &[&str] = &["TWILIO_CONTENT_SID_EN"];

async fn told_one(world: &mut World) -> String {
    allows(world, true).await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    receipts(world).await;
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 1);
    reference
}

#[tokio::test]
async fn where_no_notice_has_an_approved_template_each_goes_by_text_message_and_nothing_is_refused() {
    let mut world = in_life(ALERT_ALONE).await;
    let reference = told_one(&mut world).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.work().await;
    close(&world, &reference, Some(SignedDuration::from_hours(48))).await;
    world.pass(s(48 * 3600 + 60)).await;
    world.work().await;
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [0, 1, 0, 0, 0]);
    assert_eq!(count(&world, FOLLOW_UP), [0, 1, 0, 0, 0]);
    assert_eq!(refused(&world).await, 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_notice_with_an_approved_template_goes_over_whatsapp() {
    let mut world = in_life(&["TWILIO_CONTENT_SID_EN", "TWILIO_CONTENT_SID_EN_TAKEN_NOTICE"]).await;
    let reference = told_one(&mut world).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.work().await;
    receipts(&mut world).await;
    let told = world.sim().messages_to(COUNSELLOR).pop().unwrap();
    assert_eq!(told.content_sid, Some(format!("HX{:032}", 1)), "{told:?}");
    assert_eq!(count(&world, TAKEN), [1, 0, 0, 0, 0], "no text message");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn whoever_has_whatsapp_alone_gets_a_notice_without_a_template_in_words_as_long_as_they_wrote_lately() {
    let mut world = in_life(ALERT_ALONE).await;
    let reference = told_one(&mut world).await;
    world.pass_in_steps(s(250), s(10)).await;
    receipts(&mut world).await;
    assert_eq!(world.sim().messages_to(MANAGER).len(), 1);
    says(&mut world, MANAGER, "on the bus").await;
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"));
    receipts(&mut world).await;
    assert_eq!(count(&world, TAKEN), [0, 1, 0, 0, 1], "{reference}");
    assert_eq!(refused(&world).await, 0.0);
    world.holds_its_promises().await;
}

// -- beforehand -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_look_ahead_names_every_purpose_that_has_no_approved_template() {
    let missing = |obstacles: &Value| {
        let obstacles = obstacles.as_array().unwrap().iter();
        let missing = obstacles.filter(|obstacle| obstacle["kind"] == "template_missing");
        missing.map(|missing| (missing["purpose"].clone(), missing["language"].clone())).collect::<Vec<_>>()
    };
    for (desk, of_the_desk) in [("", None), ("+911123456789", Some("emergency_contact"))] {
        let world = ladder().in_life().with("TWILIO_CONTENT_SID_EN", &format!("HX{SID}")).with("CARE_DESK_PHONE", desk);
        let world = world.start().await;
        let ahead = world.get("/api/v1/readiness", ADMIN).await.expect(200).json();
        let notices = ["taken_notice", "outcome_reminder", "follow_up_reminder"];
        let expected: Vec<_> =
            notices.into_iter().chain(of_the_desk).map(|purpose| (json!(purpose), json!("en"))).collect();
        assert_eq!(missing(&ahead["obstacles"]), expected, "each once, however many are told in that language");
    }
}
