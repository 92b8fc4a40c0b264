//! Phone calls: a call rings, says what it is about without saying whom, and only the key 1 takes the case.

use crisis_relay::domain::message::text_sha256;
use crisis_relay::secret::Secret;
use crisis_relay::service::report::report;
use crisis_relay::simulator::{AnsweredBy, CallStatus, Fault, FaultRule, SimCall, SimMessage};
use crisis_relay::twilio::signature::{self, SIGNATURE_HEADER};
use serde_json::{Value, json};

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::{ms, s};
use crate::common::{Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, answer, contact_entry};

/// The phone that is called.
const PHONE: &str = "+919800000067";
/// A colleague's.
const COLLEAGUE: &str = "+919800000037";

/// The counsellor is called, and after three minutes a colleague.
fn called() -> Setting {
    let file = contact_entry("colleague", "counsellor", "voice_to", COLLEAGUE)
        + r#"
        [policy]
        rounds = 1
        repeat_every = "10m"
        [[policy.steps]]
        contacts = ["counsellor"]
        channels = ["voice", "whatsapp"]
        [[policy.steps]]
        after = "3m"
        contacts = ["colleague"]
        channels = ["voice"]
        "#;
    Setting::default().with("COUNSELLOR_VOICE_TO", PHONE).with_file(&file)
}

/// A student who agrees to everything, and a case of theirs.
async fn case(world: &mut World) -> String {
    let path = "/api/v1/messaging/preferences/student-1";
    let said = json!({ "whatsapp": true, "sms": true, "voice": true, "source": "story" });
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&said)).await.expect(200);
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    reference
}

/// The only call to a phone so far that the story did not know of.
#[track_caller]
fn rings(world: &World, phone: &str) -> SimCall {
    match world.sim().expect_call(phone) {
        Ok(call) => call,
        Err(told) => panic!("{told}"),
    }
}

/// A call as it is now.
fn now(world: &World, call: &SimCall) -> SimCall {
    world.sim().calls().into_iter().find(|known| known.sid == call.sid).unwrap()
}

/// A human picks up, and hears what is said first.
async fn picks_up(world: &mut World, call: &SimCall) -> SimCall {
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    world.work().await;
    now(world, call)
}

/// Whoever has picked up presses a key; gives what is said then.
async fn presses(world: &mut World, call: &SimCall, key: char) -> String {
    let before = now(world, call).said.len();
    let codes = world.sim().press(&call.sid, key).await.unwrap();
    assert_eq!(codes.first(), Some(&200), "{codes:?}");
    world.work().await;
    now(world, call).said[before..].join(" ")
}

async fn state(world: &World, reference: &str) -> Value {
    world.alert(reference).await["state"].clone()
}

#[tokio::test]
async fn a_call_rings_and_only_the_key_1_takes_the_case() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let call = picks_up(&mut world, &call).await;
    assert_eq!(call.status, CallStatus::InProgress);
    assert_eq!(state(&world, &reference).await, "escalating", "an answered call takes nothing");
    let spelled = reference.chars().map(String::from).collect::<Vec<_>>().join(", ");
    assert!(call.said[0].contains(&spelled) && call.said[0].contains("URGENT"), "{:?}", call.said);

    let said = presses(&mut world, &call, '1').await;
    assert!(said.starts_with("The case is yours."), "{said}");
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["detail"]["via"]), (&json!("acknowledged"), &json!("keypress")), "{alert}");
    assert_eq!(alert["detail"]["by"]["id"], "counsellor");
    assert_eq!(now(&world, &call).status, CallStatus::Completed, "it hangs up");
    world.pass_in_steps(s(5 * 60), s(10)).await;
    assert_eq!(world.sim().calls_to(COLLEAGUE).len(), 0, "nobody further is called");
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 0);
    world.holds_its_promises().await;
}

// -- keys -------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_key_2_calls_the_next_person_at_once() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    let said = presses(&mut world, &call, '2').await;
    assert!(said.starts_with("The case is passed on."), "{said}");
    let next = rings(&world, COLLEAGUE);
    assert_eq!(state(&world, &reference).await, "escalating");
    picks_up(&mut world, &next).await;
    assert!(presses(&mut world, &next, '1').await.starts_with("The case is yours."));
    assert_eq!(world.alert(&reference).await["detail"]["by"]["id"], "colleague");
    // Who passed it on has heard it in a call, and reads who has it now.
    let notice = |message: &SimMessage| message.body.contains("is in the hands of");
    world.sim().expect_message(COUNSELLOR, notice).unwrap();
    world.sim().assert_no_unexpected();
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_is_the_only_one_hears_so_and_can_still_take_it() {
    let mut world = Setting::default()
        .with("COUNSELLOR_VOICE_TO", PHONE)
        .with_file("[policy]\n[[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['voice']")
        .start()
        .await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    let said = presses(&mut world, &call, '2').await;
    assert!(said.contains("You are the only one.") && said.contains("Press 1"), "{said}");
    assert_eq!(world.alarms("nobody_to_pass_to").await, 1.0);
    assert!(presses(&mut world, &call, '1').await.starts_with("The case is yours."));
    assert_eq!(state(&world, &reference).await, "acknowledged");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn another_key_changes_nothing_and_the_message_is_said_once_more() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let before = picks_up(&mut world, &call).await.said;
    for key in ['9', '0', '*', '#'] {
        assert_eq!(presses(&mut world, &call, key).await, before[0], "{key}");
        assert_eq!(state(&world, &reference).await, "escalating");
    }
    assert!(presses(&mut world, &call, '1').await.starts_with("The case is yours."));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_picks_up_while_nobody_says_anything_has_not_been_told() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    // The service was away when Twilio asked what to say. What comes later tells only that a human had picked up.
    for status in ["in-progress", "completed"] {
        posted(&world, &call, "status", &[("CallStatus", status)]).await.expect(204);
        world.work().await;
    }
    let delivery = world.last_delivery(&reference).await;
    assert_ne!(delivery["attempts"][0]["status"], "answered", "{delivery}");
    world.pass_in_steps(s(60), s(10)).await;
    assert_ne!(world.sim().messages_to(COUNSELLOR).len(), 0, "they are told over their next channel");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_presses_nothing_hears_it_three_times_and_the_ladder_goes_on() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    for _ in 0..3 {
        world.sim().stay_silent(&call.sid).await.unwrap();
        world.work().await;
    }
    let over = now(&world, &call);
    assert_eq!((over.status, over.said.len()), (CallStatus::Completed, 4));
    assert!(over.said[0] == over.said[1] && over.said[1] == over.said[2], "{:?}", over.said);
    assert!(over.said[3].starts_with("No key was pressed."), "{:?}", over.said);
    let delivery = world.last_delivery(&reference).await;
    assert_eq!((&delivery["state"], &delivery["attempts"][0]["status"]), (&json!("answered"), &json!("answered")));
    world.pass_in_steps(s(170), s(10)).await;
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 0, "a human has heard it");
    world.pass_in_steps(s(10), s(10)).await;
    rings(&world, COLLEAGUE);
    world.holds_its_promises().await;
}

// -- nobody answers ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_cannot_be_reached_by_phone_is_told_over_the_next_channel_at_once() {
    for (fault, status) in [
        (Fault::PhoneBusy, "busy"),
        (Fault::PhoneNoAnswer, "no_answer"),
        (Fault::PhoneVoicemail, "machine"),
        (Fault::FailsLater { code: 30004, failed: true }, "failed"),
    ] {
        let mut world = called().start_with(FaultRule::once(fault.clone()).to(PHONE)).await;
        let reference = case(&mut world).await;
        for _ in 0..4 {
            world.receipts().await;
        }
        let alert = world.alert(&reference).await;
        let attempt = &alert["deliveries"][0]["attempts"][0];
        assert_eq!(
            (&alert["deliveries"][0]["state"], &attempt["status"]),
            (&json!("failed"), &json!(status)),
            "{alert}"
        );
        assert_eq!(alert["state"], "escalating", "{fault:?}");
        assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 1, "{fault:?}");
        assert_eq!(world.sim().calls_to(PHONE).len(), 1);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_voicemail_gets_the_harmless_text_without_keys_and_never_counts() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    world.sim().pick_up(&call.sid, AnsweredBy::MachineEndBeep).await.unwrap();
    world.work().await;
    let call = now(&world, &call);
    assert_eq!((call.status, call.said.len()), (CallStatus::Completed, 1));
    let (left, fixed) = (&call.said[0], "Please look at your messages");
    assert!(left.contains("URGENT") && left.contains(fixed) && !left.contains("Press"), "{left}");
    assert_eq!(state(&world, &reference).await, "escalating");
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn of_whom_nobody_knows_whether_they_are_human_counts_only_with_a_key() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    world.sim().pick_up(&call.sid, AnsweredBy::Unknown).await.unwrap();
    world.work().await;
    assert!(now(&world, &call).said[0].contains("Press 1"), "it may be a human");
    world.sim().hang_up(&call.sid).await.unwrap();
    world.work().await;
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 1, "nobody knows that anybody heard it");

    let mut world = called().start().await;
    let second = case(&mut world).await;
    let call = rings(&world, PHONE);
    world.sim().pick_up(&call.sid, AnsweredBy::Unknown).await.unwrap();
    presses(&mut world, &call, '1').await;
    assert_eq!(state(&world, &second).await, "acknowledged");
    let delivery = world.last_delivery(&second).await;
    assert_eq!(delivery["state"], "answered", "machines press no keys: {delivery}");
    let _ = reference;
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_that_rings_still_is_not_waited_for_longer_than_any_message() {
    let mut world = called().start().await;
    case(&mut world).await;
    world.receipts().await;
    world.receipts().await;
    world.pass_in_steps(s(29), s(1)).await;
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 0);
    world.pass(s(1)).await;
    assert_eq!(world.sim().messages_to(COUNSELLOR).len(), 1);
    world.holds_its_promises().await;
}

// -- too late ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_answers_after_the_case_was_taken_or_closed_hears_that_and_nothing_else() {
    let acts =
        [("acknowledge", json!({}), "taken already"), ("resolve", json!({ "outcome": "false_alarm" }), "is closed")];
    for (act, body, said) in acts {
        let mut world = called().start().await;
        let reference = case(&mut world).await;
        let call = rings(&world, PHONE);
        let path = format!("/api/v1/crisis/alerts/{reference}/{act}");
        world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
        let call = picks_up(&mut world, &call).await;
        assert_eq!((call.status, call.said.len()), (CallStatus::Completed, 1));
        assert!(call.said[0].contains(said), "{:?}", call.said);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_key_that_is_pressed_too_late_gets_a_clear_answer() {
    for (act, body) in [("acknowledge", json!({})), ("resolve", json!({ "outcome": "safe_by_phone" }))] {
        for key in ['1', '2'] {
            let mut world = called().start().await;
            let reference = case(&mut world).await;
            let call = rings(&world, PHONE);
            picks_up(&mut world, &call).await;
            let path = format!("/api/v1/crisis/alerts/{reference}/{act}");
            world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
            let said = presses(&mut world, &call, key).await;
            assert!(said.contains(if act == "resolve" { "is closed" } else { "taken already" }), "{act} {key}: {said}");
            assert_eq!(now(&world, &call).status, CallStatus::Completed);
            assert_eq!(world.sim().calls_to(COLLEAGUE).len(), 0);
            world.holds_its_promises().await;
        }
    }
}

#[tokio::test]
async fn a_machine_hears_nothing_of_a_case_that_is_taken() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    world.post(&format!("/api/v1/crisis/alerts/{reference}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.sim().pick_up(&call.sid, AnsweredBy::MachineEndBeep).await.unwrap();
    assert!(now(&world, &call).said.is_empty());
}

#[tokio::test]
async fn a_word_that_is_taken_back_while_it_rings_ends_what_the_call_says() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let no = json!({ "whatsapp": false, "sms": false, "voice": false, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&no)).await.expect(200);
    world.work().await;
    assert_eq!(state(&world, &reference).await, "withheld");
    let call = picks_up(&mut world, &call).await;
    assert_eq!(call.said.len(), 1);
    assert!(call.said[0].contains("Nothing is needed from you"), "{:?}", call.said);
    world.holds_its_promises().await;
}

// -- permission -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn nobody_is_called_on_a_word_that_does_not_cover_calls_but_on_an_override() {
    let mut world = called().start().await;
    let path = "/api/v1/messaging/preferences/student-1";
    let said = json!({ "whatsapp": true, "voice": false, "source": "story" });
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&said)).await.expect(200);
    let mut event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" });
    world.event(&event).await.expect(202);
    world.work().await;
    world.pass_in_steps(s(20 * 60), s(30)).await;
    assert_eq!(world.sim().calls().len(), 0, "called against the student's word");
    assert_ne!(world.sim().messages_to(COUNSELLOR).len(), 0);

    event["user_id"] = json!("student-2");
    event["emergency_override"] = json!({ "by": "Dr. A. Rao", "reason": "life is at risk" });
    world.event(&event).await.expect(202);
    world.work().await;
    rings(&world, PHONE);
    world.holds_its_promises().await;
}

// -- posted by whom ---------------------------------------------------------------------------------------------------

const ACCOUNT: &str = "AC00000000000000000000000000000000";

/// A key as Twilio posts and signs it, with these fields instead of its own.
async fn posted(world: &World, call: &SimCall, hook: &str, fields: &[(&str, &str)]) -> Answer {
    let query = call.url.as_deref().unwrap().split_once('?').unwrap().1;
    let url = format!("{}webhooks/twilio/voice/{hook}?{}", world.base(), query.split('#').next().unwrap());
    let mut pairs = vec![
        ("AccountSid", ACCOUNT),
        ("CallSid", call.sid.as_str()),
        ("CallStatus", "in-progress"),
        ("AnsweredBy", "human"),
        ("To", PHONE),
        ("From", "+14155238886"),
    ];
    pairs.retain(|(name, _)| fields.iter().all(|(given, _)| given != name));
    pairs.extend(fields);
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    let signature = signature::sign(&Secret::new("simulator-auth-token"), &url, &pairs);
    let request = world.client().post(url).header("Content-Type", "application/x-www-form-urlencoded");
    answer(request.header(SIGNATURE_HEADER, signature).body(body)).await
}

#[tokio::test]
async fn a_key_that_is_posted_again_changes_nothing_and_the_same_is_said() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    let first = posted(&world, &call, "key", &[("Digits", "2")]).await.expect(200);
    assert!(first.text.contains("is passed on"), "{first:?}");
    world.work().await;
    rings(&world, COLLEAGUE);
    let kept = world.kept().await;
    let again = posted(&world, &call, "key", &[("Digits", "2")]).await.expect(200);
    assert_eq!(again.text, first.text);
    world.work().await;
    assert_eq!(world.kept().await, kept, "posted again, it passes nothing on");

    posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200);
    assert_eq!(state(&world, &reference).await, "acknowledged");
    // Long after the case is closed, and another waits for the same phone.
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    let next = json!({
        "user_id": "student-2", "crisis_score": 0.93, "source": "chat",
        "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
    });
    let next = world.event(&next).await.expect(202).text_at("/reference");
    let again = posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200);
    assert!(again.text.contains("The case is yours."), "{again:?}");
    assert_eq!(state(&world, &next).await, "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_that_is_not_the_attempts_own_takes_nothing_and_is_told_nothing() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let other = "CA0123456789abcdef0123456789abcdef";
    for fields in [
        &[("Digits", "1"), ("To", COLLEAGUE)][..],
        &[("Digits", "1"), ("CallSid", other)],
        &[("Digits", "1"), ("To", "client:somebody")],
    ] {
        for hook in ["key", "answer"] {
            let told = posted(&world, &call, hook, fields).await.expect(200);
            assert!(!told.text.contains("<Say"), "{hook} {fields:?}: {told:?}");
        }
    }
    let elsewhere = SimCall {
        url: Some("https://h/?alert=0197c4de-7a00-7000-8000-0123456789ab&delivery=1&attempt=1".into()),
        ..call.clone()
    };
    let nowhere = SimCall { url: Some("https://h/?x=1".into()), ..call.clone() };
    for call in [elsewhere, nowhere] {
        let told = posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200);
        assert!(!told.text.contains("<Say"), "{told:?}");
    }
    posted(&world, &call, "key", &[("Digits", "1"), ("AccountSid", "AC11111111111111111111111111111111")])
        .await
        .expect(403);
    assert_eq!(state(&world, &reference).await, "escalating");
    let forged = world.client().post(format!("{}webhooks/twilio/voice/key", world.base())).body("Digits=1");
    answer(forged.header(SIGNATURE_HEADER, "AAAA")).await.expect(403);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn three_people_who_take_a_case_at_one_instant_give_one_owner_and_two_clear_answers() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    // The colleague's phone rings as well, and the WhatsApp message of a graver event is on the first one's.
    presses(&mut world, &call, '2').await;
    let second = rings(&world, COLLEAGUE);
    picks_up(&mut world, &second).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    let nothing = json!({});
    let (one, two, three) = tokio::join!(
        posted(&world, &call, "key", &[("Digits", "1")]),
        posted(&world, &second, "key", &[("Digits", "1"), ("To", COLLEAGUE)]),
        world.post(&path, COUNSELLOR_KEY, &nothing),
    );
    let mine = [&one, &two].iter().filter(|answer| answer.text.contains("is yours")).count();
    let late = [&one, &two].iter().filter(|answer| answer.text.contains("taken already")).count();
    assert_eq!((mine + late, mine + usize::from(three.status == 200)), (2, 1), "{one:?} {two:?} {three:?}");
    world.holds_its_promises().await;
}

// -- nobody knows whether it was made ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_settled_by_what_it_tells_itself() {
    let mut world = called().start_with(FaultRule::once(Fault::DropAfterAccepting).to(PHONE)).await;
    let reference = case(&mut world).await;
    world.expect_state(&reference, "unknown").await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    presses(&mut world, &call, '1').await;
    assert_eq!(state(&world, &reference).await, "acknowledged");
    world.pass_in_steps(s(10 * 60), s(10)).await;
    assert_eq!(world.sim().calls().len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_whose_answer_and_callbacks_were_lost_is_found_in_twilios_list() {
    let mut world = called().start_with(FaultRule::once(Fault::DropAfterAccepting).to(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::CallbacksLost).to(PHONE));
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    world.pass_in_steps(s(10), s(1)).await;
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(delivery["attempts"][0]["provider_id"], call.sid.as_str(), "{delivery}");
    world.pass_in_steps(s(10), s(1)).await;
    assert_eq!(world.sim().calls_to(PHONE).len(), 1, "called once");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_that_no_list_shows_is_made_once_more() {
    let mut world = called().start_with(FaultRule::once(Fault::AcceptThenTimeOutHidden).to(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::CallbacksLost).to(PHONE));
    case(&mut world).await;
    world.pass_in_steps(s(100), ms(500)).await;
    assert_eq!(world.sim().calls_to(PHONE).len(), 2, "a second call is better than none");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_that_may_be_another_cases_is_not_taken_for_this_ones() {
    let mut world = called().with("CRISIS_RELAY__TWILIO__CALLS_PER_SECOND", "100").start().await;
    // Of two cases the one call was made, and its answer lost; the other was never made.
    world.goes_wrong(FaultRule::once(Fault::DropAfterAccepting).to(PHONE));
    world.goes_wrong(FaultRule::once(Fault::TimeOutWithoutAccepting).to(PHONE));
    world.goes_wrong(FaultRule::once(Fault::CallbacksLost).to(PHONE));
    for student in ["student-1", "student-2"] {
        let event = json!({
            "user_id": student, "crisis_score": 0.93, "source": "chat",
            "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
        });
        world.event(&event).await.expect(202);
    }
    world.work().await;
    assert_eq!(world.sim().calls_to(PHONE).len(), 1);
    world.pass_in_steps(s(100), ms(500)).await;
    let calls = world.sim().calls_to(PHONE);
    let asked: std::collections::BTreeSet<&str> =
        calls.iter().map(|call| call.url.as_deref().unwrap().split('&').next().unwrap()).collect();
    assert_eq!(asked.len(), 2, "each case has a call of its own: {calls:?}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn how_a_call_went_is_asked_for_where_nothing_tells_it() {
    let mut world = called().start_with(FaultRule::once(Fault::CallbacksLost).to(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::PhoneNoAnswer).to(PHONE));
    let reference = case(&mut world).await;
    for _ in 0..4 {
        world.receipts().await;
    }
    world.expect_state(&reference, "accepted").await;
    world.pass_in_steps(s(60), s(5)).await;
    let alert = world.alert(&reference).await;
    assert_eq!(alert["deliveries"][0]["attempts"][0]["status"], "no_answer", "{alert}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_a_call_tells_twice_late_or_out_of_order_changes_nothing() {
    let mut world = called().start_with(FaultRule::once(Fault::CallbacksRepeated { times: 2 }).to(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::CallbacksReordered).to(PHONE));
    world.goes_wrong(FaultRule::once(Fault::CallbackExtraFields).to(PHONE));
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    world.sim().hang_up(&call.sid).await.unwrap();
    let before = world.last_delivery(&reference).await;
    assert_eq!(before["state"], "answered");
    for status in
        [CallStatus::Initiated, CallStatus::Ringing, CallStatus::NoAnswer, CallStatus::Failed, CallStatus::Busy]
    {
        assert_eq!(world.sim().send_call_callback(&call.sid, status).await.unwrap(), Some(204));
    }
    world.work().await;
    assert_eq!(world.last_delivery(&reference).await, before);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_twilio_refuses_does_what_its_class_says() {
    // Calls to the country are switched off: the operator is told, and the next channel goes.
    let refused = FaultRule::once(Fault::Refused { code: 21215, http_status: 400 }).to(PHONE);
    let mut world = called().start_with(refused).await;
    case(&mut world).await;
    assert_eq!((world.sim().calls().len(), world.sim().messages_to(COUNSELLOR).len()), (0, 1));
    assert_eq!(world.alarms("provider_refused").await, 1.0);

    let busy = FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(1) }).to(PHONE);
    let mut world = called().start_with(busy).await;
    case(&mut world).await;
    world.pass_in_steps(s(5), ms(500)).await;
    assert_eq!((world.sim().calls().len(), world.sim().messages_to(COUNSELLOR).len()), (1, 0), "once more, and soon");
}

#[tokio::test]
async fn calls_have_a_pace_of_their_own() {
    let mut world = called().start().await;
    for student in 0..3 {
        let event = json!({
            "user_id": format!("student-{student}"), "crisis_score": 0.93, "source": "chat",
            "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
        });
        world.event(&event).await.expect(202);
    }
    let begun = world.now();
    world.work().await;
    let calls = world.sim().calls_to(PHONE);
    assert_eq!(calls.len(), 3);
    let last = calls.iter().map(|call| call.created_at).max().unwrap();
    assert!(last.duration_since(begun) >= jiff::SignedDuration::from_secs(2), "one a second: {calls:?}");
}

// -- the service is away for a moment ---------------------------------------------------------------------------------

/// So often Twilio tries one address before it turns to the other.
const TRIES: usize = 6;

/// From now on the store cannot say which case a call is about, so many times.
fn away(gate: &Gate, times: usize) {
    let mut left = times;
    gate.set(move |call| {
        if call.name != "alert" || left == 0 {
            return Fate::Pass;
        }
        left -= 1;
        Fate::Fail(StoreFault::Unavailable)
    });
}

#[tokio::test]
async fn who_picks_up_while_the_service_is_away_hears_the_message_all_the_same() {
    let gate = Gate::new();
    let mut world = called().with_gate(&gate).start().await;
    // How the call goes is told as well; here it is not, so that only what is to be said is asked for.
    world.goes_wrong(FaultRule::always(Fault::CallbacksLost).to(PHONE));
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    away(&gate, TRIES);
    let codes = world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    assert_eq!(codes, [503, 200]);
    let call = now(&world, &call);
    assert_eq!(call.status, CallStatus::InProgress, "an error has occurred, and it hung up");
    assert!(call.said[0].contains("Press 1"), "{:?}", call.said);
    assert!(presses(&mut world, &call, '1').await.starts_with("The case is yours."));
    assert_eq!(state(&world, &reference).await, "acknowledged");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_key_that_is_pressed_while_the_service_is_away_is_asked_for_once_more() {
    let gate = Gate::new();
    let mut world = called().with_gate(&gate).start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let call = picks_up(&mut world, &call).await;
    away(&gate, TRIES);
    world.sim().press(&call.sid, '1').await.unwrap();
    let heard = now(&world, &call);
    assert_eq!(heard.status, CallStatus::InProgress, "it hung up on somebody who wants to take the case");
    assert_eq!(heard.said, [call.said[0].clone(), call.said[0].clone()], "the message and the keys once more");
    assert_eq!(state(&world, &reference).await, "escalating", "nothing was booked");
    assert!(presses(&mut world, &call, '1').await.starts_with("The case is yours."));
    assert_eq!(state(&world, &reference).await, "acknowledged");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_has_taken_the_case_with_a_key_whose_answer_was_lost_hears_that_it_is_theirs() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    let call = picks_up(&mut world, &call).await;
    posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200);
    assert_eq!(state(&world, &reference).await, "acknowledged");
    // Twilio has heard nothing of that, and turns to the other address, as it says there.
    let wrong = [("ErrorCode", "11200"), ("ErrorUrl", "https://relay.example.org/webhooks/twilio/voice/key")];
    let said = posted(&world, &call, "answer", &wrong).await.expect(200).text;
    assert!(said.contains("The case is yours.") && !said.contains("Press 1"), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_service_that_stays_away_ends_the_call_and_the_next_channel_goes() {
    let gate = Gate::new();
    let mut world = called().with_gate(&gate).start().await;
    // How the call goes is told as well; here it is not, so that only what is to be said is asked for.
    world.goes_wrong(FaultRule::always(Fault::CallbacksLost).to(PHONE));
    case(&mut world).await;
    let call = rings(&world, PHONE);
    away(&gate, 2 * TRIES);
    let codes = world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    assert_eq!(codes, [503, 503], "it was asked twice, six times each");
    let over = now(&world, &call);
    assert_eq!((over.status, over.said.len()), (CallStatus::Completed, 0));
    world.work().await;
    world.pass_in_steps(s(60), s(10)).await;
    assert_ne!(world.sim().messages_to(COUNSELLOR).len(), 0, "nobody was told anything by that call");
    world.holds_its_promises().await;
}

// -- what is said, and what is kept of it -----------------------------------------------------------------------------

#[tokio::test]
async fn a_call_speaks_the_persons_language_and_is_proved_in_the_audit() {
    let file = contact_entry("lead", "lead", "voice_to", COLLEAGUE)
        + "language = \"hi\"\n[policy]\n[[policy.steps]]\ncontacts = ['lead']\nchannels = ['voice']";
    let mut world = Setting::default().with_file(&file).start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, COLLEAGUE);
    let call = picks_up(&mut world, &call).await;
    assert!(call.said[0].contains("तत्काल") && call.said[0].contains("1 दबाएँ"), "{:?}", call.said);
    let delivery = world.last_delivery(&reference).await;
    assert_eq!(
        delivery["attempts"][0]["text_sha256"],
        text_sha256(&call.said[0]),
        "what was said is what was recorded"
    );
    assert!(presses(&mut world, &call, '1').await.contains("आपका है"));
    let organisation = "default".parse().unwrap();
    let report = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    for told in ["lead (lead), voice", "answered", "via keypress"] {
        assert!(report.contains(told), "it does not say {told}: {report}");
    }
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_was_committed_of_a_key_outlives_a_crash() {
    let mut world = called().start().await;
    let reference = case(&mut world).await;
    let call = rings(&world, PHONE);
    picks_up(&mut world, &call).await;
    let first = posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200);
    let mut world = world.crash().await;
    world.work().await;
    assert_eq!(posted(&world, &call, "key", &[("Digits", "1")]).await.expect(200).text, first.text);
    assert_eq!(state(&world, &reference).await, "acknowledged");
    assert_eq!(world.sim().calls_to(COLLEAGUE).len(), 0);
    world.holds_its_promises().await;
}
