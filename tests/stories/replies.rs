//! Replies that must take nothing, or nothing more: posted again, from another phone, over another channel, to another
//! number.

use std::time::Duration;

use crisis_relay::secret::Secret;
use crisis_relay::simulator::{Inbound, Quote};
use crisis_relay::twilio::signature::{self, SIGNATURE_HEADER};
use serde_json::json;

use crate::common::gate::{Fate, Gate};
use crate::common::{ADMIN, Answer, COUNSELLOR, SERVICE, Setting, World, answer};

const ACCOUNT: &str = "AC00000000000000000000000000000000";
const SENDER: &str = "whatsapp:+14155238886";
const SID: &str = "SM0123456789abcdef0123456789abcdef";
const STRANGER: &str = "+919811111111";

/// One more case, whose message is on the phone.
async fn told(world: &mut World, student: &str) -> String {
    let reference = world.told(student, 0.93).await;
    world.work().await;
    world.expect_told(&reference);
    reference
}

async fn state(world: &World, reference: &str) -> String {
    world.alert(reference).await["state"].as_str().unwrap().to_owned()
}

/// A reply as Twilio posts and signs it.
pub(crate) async fn posted(world: &World, fields: &[(&str, &str)]) -> Answer {
    let url = format!("{}webhooks/twilio/incoming", world.base());
    let mut pairs = vec![("AccountSid", ACCOUNT), ("MessageSid", SID), ("To", SENDER)];
    pairs.retain(|(name, _)| fields.iter().all(|(given, _)| given != name));
    pairs.extend(fields);
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    let signature = signature::sign(&Secret::new("simulator-auth-token"), &url, &pairs);
    let request = world.client().post(url).header("Content-Type", "application/x-www-form-urlencoded");
    answer(request.header(SIGNATURE_HEADER, signature).body(body)).await
}

fn whatsapp(number: &str) -> String {
    format!("whatsapp:{number}")
}

// -- buttons ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_button_does_what_its_id_says_whatever_its_title_is() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let message = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let from = whatsapp(COUNSELLOR);
    let tap = |sid: &'static str, title: &'static str, id: &'static str| {
        let fields = [
            ("From", from.clone()),
            ("Body", title.to_owned()),
            ("ButtonText", title.to_owned()),
            ("ButtonPayload", id.to_owned()),
            ("OriginalRepliedMessageSid", message.clone()),
            ("MessageSid", sid.to_owned()),
        ];
        let world = &world;
        async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            posted(world, &fields).await.expect(200).text
        }
    };
    let said = tap("SM00000000000000000000000000000001", "मैं लेता हूँ", "something-else").await;
    assert!(said.contains("which waits still"), "an id that asks for nothing is words: {said}");
    let said = tap("SM00000000000000000000000000000002", "मैं लेता हूँ", "1").await;
    assert!(said.contains(&format!("Ref {reference} is yours")), "{said}");
    assert_eq!(state(&world, &reference).await, "acknowledged");
}

// -- withheld ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_case_that_is_withheld_meanwhile_is_not_called_closed() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let no = json!({ "whatsapp": false, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&no)).await.expect(200);
    world.work().await;
    assert_eq!(state(&world, &reference).await, "withheld");
    for text in ["1", "2", "done safe"] {
        let said = world.sim().reply(COUNSELLOR, text).await.unwrap().answers.concat();
        assert!(said.contains(&format!("Ref {reference} cannot be dealt with by a reply")), "{text}: {said}");
    }
    assert_eq!(state(&world, &reference).await, "withheld");
}

// -- many cases -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_reference_that_is_typed_takes_its_case_however_many_others_wait() {
    let world = World::new().await;
    let mut references = Vec::new();
    // More than are looked through for a reply that names none.
    for student in 0..1_001 {
        let body = json!({
            "user_id": format!("student-{student}"), "crisis_score": 0.93, "source": "chat",
            "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
        });
        references.push(world.event(&body).await.expect(202).text_at("/reference"));
        world.clock.advance(Duration::from_millis(1));
    }
    let oldest = &references[0];
    let (from, text) = (whatsapp(COUNSELLOR), format!("1 {oldest}"));
    let taken = posted(&world, &[("From", &from), ("Body", &text)]).await.expect(200);
    assert!(taken.text.contains(&format!("{oldest} is yours")), "{taken:?}");
    assert_eq!(state(&world, oldest).await, "acknowledged");
}

// -- posted again -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_reply_that_is_posted_again_after_a_new_case_opened_takes_nothing_and_hears_the_same() {
    let mut world = World::new().await;
    let first = told(&mut world, "student-1").await;
    let from = whatsapp(COUNSELLOR);
    let fields = [("From", from.as_str()), ("Body", "1")];
    let taken = posted(&world, &fields).await.expect(200);
    assert!(taken.text.contains(&format!("{first} is yours")), "{taken:?}");

    let second = told(&mut world, "student-2").await;
    let kept = world.kept().await;
    let again = posted(&world, &fields).await.expect(200);
    assert_eq!(again.text, taken.text, "the first answer");
    assert_eq!(world.kept().await, kept);
    assert_eq!(state(&world, &second).await, "escalating", "nobody has seen it");
    // A reply of its own takes it.
    let own = [("From", from.as_str()), ("Body", "1"), ("MessageSid", "SM1123456789abcdef0123456789abcdef")];
    assert!(posted(&world, &own).await.expect(200).text.contains(&format!("{second} is yours")));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_reply_that_took_nothing_takes_nothing_when_it_is_posted_again() {
    let mut world = World::new().await;
    let from = whatsapp(COUNSELLOR);
    let fields = [("From", from.as_str()), ("Body", "1")];
    let before = posted(&world, &fields).await.expect(200);
    let reference = told(&mut world, "student-1").await;
    let again = posted(&world, &fields).await.expect(200);
    assert_eq!(again.text, before.text);
    assert!(again.text.contains("No case waits for you"), "{again:?}");
    assert_eq!(state(&world, &reference).await, "escalating");
}

#[tokio::test]
async fn the_same_reply_posted_at_the_same_time_takes_one_case_and_both_hear_so() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let reference = told(&mut world, "student-1").await;
    let from = whatsapp(COUNSELLOR);
    let fields = [("From", from.as_str()), ("Body", "yes")];
    // Both have looked for an answer, and found none, before either goes on.
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = std::sync::Arc::clone(&permits);
    gate.set(move |call| match call.name {
        "cases_of" => Fate::Wait(std::sync::Arc::clone(&held)),
        _ => Fate::Pass,
    });
    let both_wait = world
        .until("both have looked", async |_| gate.calls().iter().filter(|call| call.name == "cases_of").count() == 2);
    let go = async {
        both_wait.await;
        permits.add_permits(2);
    };
    let (one, other, ()) = tokio::join!(posted(&world, &fields), posted(&world, &fields), go);
    gate.open();
    for said in [&one, &other] {
        assert!(said.text.contains(&format!("{reference} is yours")), "{said:?}");
    }
    assert_eq!(world.query("SELECT count(*) FROM answers"), 1);
    let chain = world.get(&format!("/api/v1/crisis/alerts/{reference}/audit"), ADMIN).await.expect(200);
    assert_eq!(chain.text.matches("acknowledged").count(), 1, "{chain:?}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_crash_between_the_commit_and_the_answer_to_a_reply_is_made_good_by_the_next_post() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let first = told(&mut world, "student-1").await;
    let from = whatsapp(COUNSELLOR);
    let fields = [("From", from.as_str()), ("Body", "1")];
    gate.strike_named("commit_alert", Fate::StopAfter);
    assert!(gate.unless_stopped(posted(&world, &fields)).await.is_none(), "nobody was answered");
    gate.open();
    let mut world = world.crash().await;
    let second = told(&mut world, "student-2").await;
    let said = posted(&world, &fields).await.expect(200);
    assert!(said.text.contains(&format!("{first} is yours")), "{said:?}");
    assert_eq!(
        (state(&world, &first).await, state(&world, &second).await),
        ("acknowledged".into(), "escalating".into())
    );
    world.holds_its_promises().await;
}

// -- whose it is ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_quote_takes_nothing_for_a_number_that_the_message_was_not_sent_to() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    for text in ["1", "yes", &format!("1 {reference}")] {
        let reply = Inbound::new(STRANGER, text).quoting(Quote::Sid(quoted.clone()));
        let reply = world.sim().receive(&reply).await.unwrap();
        assert_eq!((reply.http_status, reply.answers.len()), (200, 0), "{text}: {reply:?}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
}

#[tokio::test]
async fn a_hidden_user_whose_number_whatsapp_tells_is_held_to_that_number() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let mut fields = vec![
        ("From", "whatsapp:IN.1234567890"),
        ("Body", "1"),
        ("OriginalRepliedMessageSid", quoted.as_str()),
        ("WaId", STRANGER.trim_start_matches('+')),
    ];
    assert!(!posted(&world, &fields).await.expect(200).text.contains("<Message>"));
    assert_eq!(state(&world, &reference).await, "escalating");
    fields[3].1 = COUNSELLOR.trim_start_matches('+');
    fields.push(("MessageSid", "SM1123456789abcdef0123456789abcdef"));
    assert!(posted(&world, &fields).await.expect(200).text.contains(&format!("{reference} is yours")));
}

#[tokio::test]
async fn a_visible_number_counts_for_more_than_what_is_said_of_the_account() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let wa_id = COUNSELLOR.trim_start_matches('+');
    let from = whatsapp(STRANGER);
    posted(&world, &[("From", from.as_str()), ("Body", "1"), ("WaId", wa_id)]).await.expect(200);
    assert_eq!(state(&world, &reference).await, "escalating");
}

#[tokio::test]
async fn a_case_told_over_whatsapp_is_not_taken_by_an_sms() {
    // An SMS sender that is configured: the number that it comes to is ours.
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__SMS_FROM", "+14155238886").start().await;
    let reference = told(&mut world, "student-1").await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let named = format!("1 {reference}");
    let to = ("To", "+14155238886");
    for (no, fields) in [
        vec![("From", COUNSELLOR), to, ("Body", "1")],
        vec![("From", COUNSELLOR), to, ("Body", &named)],
        vec![("From", COUNSELLOR), to, ("Body", "1"), ("OriginalRepliedMessageSid", &quoted)],
        vec![("From", "56789"), to, ("Body", "1"), ("OriginalRepliedMessageSid", &quoted)],
    ]
    .into_iter()
    .enumerate()
    {
        let sid = format!("SM{no:032x}");
        let fields: Vec<_> = fields.into_iter().chain([("MessageSid", sid.as_str())]).collect();
        let said = posted(&world, &fields).await.expect(200);
        assert!(!said.text.contains("<Message>"), "{fields:?}: {said:?}");
        assert_eq!(state(&world, &reference).await, "escalating", "{fields:?}");
    }
}

#[tokio::test]
async fn a_typed_code_beats_a_quote_only_if_that_case_was_told_to_the_same_phone() {
    let mut world = World::new().await;
    let first = told(&mut world, "student-1").await;
    let quoted = world.sim().messages_to(COUNSELLOR)[0].sid.clone();
    let second = told(&mut world, "student-2").await;
    for from in [COUNSELLOR, "whatsapp:IN.1234567890"] {
        // A code of no case, or of one that this phone was not told of, is all one.
        let reply = Inbound::new(from, "1 ZZZZZZZZ").quoting(Quote::Sid(quoted.clone()));
        let reply = world.sim().receive(&reply).await.unwrap();
        assert!(reply.answers.concat().contains("Reply with the reference"), "{from}: {reply:?}");
    }
    assert_eq!((state(&world, &first).await, state(&world, &second).await), ("escalating".into(), "escalating".into()));
    // Hidden as they are, the quote says whose phone it is; the code, which of its cases.
    let reply = Inbound::new("whatsapp:IN.1234567890", &format!("1 {second}")).quoting(Quote::Sid(quoted));
    let reply = world.sim().receive(&reply).await.unwrap();
    assert!(reply.answers.concat().contains(&format!("{second} is yours")), "{reply:?}");
    assert_eq!(state(&world, &first).await, "escalating");
}

#[tokio::test]
async fn a_message_to_another_number_of_the_account_is_no_reply_to_us() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let from = whatsapp(COUNSELLOR);
    for to in ["whatsapp:+14155550199", "+14155550199", "whatsapp:IN.1234567890"] {
        let refused = posted(&world, &[("From", from.as_str()), ("To", to), ("Body", "1")]).await.expect(403);
        assert_eq!(refused.text_at("/code"), "forbidden", "{to}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
    assert_eq!(world.counted("crisis_relay_webhooks_refused_total{kind=\"sender\"}").await, 3.0);
    posted(&world, &[("From", from.as_str()), ("Body", "1")]).await.expect(200);
    assert_eq!(world.alert(&reference).await["state"], json!("acknowledged"));
}

#[tokio::test]
async fn where_a_messaging_service_chooses_the_sender_any_number_of_the_account_takes_replies() {
    let service = "MG00000000000000000000000000000000";
    let world = Setting::default().with("CRISIS_RELAY__TWILIO__MESSAGING_SERVICE_SID", service).start().await;
    let from = whatsapp(COUNSELLOR);
    posted(&world, &[("From", from.as_str()), ("To", "whatsapp:+14155550199"), ("Body", "1")]).await.expect(200);
}

// -- opted out --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_contact_who_opts_out_alarms_the_operator_and_hears_nothing() {
    let mut world = World::new().await;
    let reference = told(&mut world, "student-1").await;
    let from = whatsapp(COUNSELLOR);
    for (no, word) in ["STOP", "stop.", "Unsubscribe", "OPTOUT"].into_iter().enumerate() {
        let sid = format!("SM{no:032x}");
        let fields = [("From", from.as_str()), ("Body", word), ("MessageSid", sid.as_str())];
        // What is posted again alarms nobody again.
        for _ in 0..2 {
            let said = posted(&world, &fields).await.expect(200);
            assert!(!said.text.contains("<Message>"), "{said:?}");
        }
        assert_eq!(world.alarms("contact_opted_out").await, (no + 1) as f64, "{word}");
    }
    assert_eq!(state(&world, &reference).await, "escalating");
}

#[tokio::test]
async fn an_opt_out_alarms_while_no_case_waits_too_and_other_words_and_strangers_never_do() {
    let world = World::new().await;
    let from = whatsapp(COUNSELLOR);
    let stranger = whatsapp(STRANGER);
    for (no, (from, word)) in
        [(&stranger, "STOP"), (&from, "START"), (&from, "HELP"), (&from, "stop it")].into_iter().enumerate()
    {
        let sid = format!("SM{no:032x}");
        posted(&world, &[("From", from.as_str()), ("Body", word), ("MessageSid", &sid)]).await.expect(200);
        assert_eq!(world.alarms("contact_opted_out").await, 0.0, "{word}");
    }
    posted(&world, &[("From", from.as_str()), ("Body", "STOP")]).await.expect(200);
    assert_eq!(world.alarms("contact_opted_out").await, 1.0);
}
