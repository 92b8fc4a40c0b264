//! Numbers that are proven by a phone call: who calls is said at once, the code only after a key, and nobody but the phone has it.

use crisis_relay::domain::audit::AuditStream;
use crisis_relay::domain::message::text_sha256;
use crisis_relay::secret::Secret;
use crisis_relay::simulator::{AnsweredBy, CallStatus, Fault, FaultRule, SimCall};
use crisis_relay::twilio::callback::spoken_code_of;
use crisis_relay::twilio::signature::{self, SIGNATURE_HEADER};
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::common::stage::{event, ms, s};
use crate::common::{ADMIN, Answer, SERVICE, Setting, World, answer};
use crate::privacy::{heard, listen};

const CONTACTS: &str = "/api/v1/contacts";
const LANDLINE: &str = "+911123456789";
const PHONE: &str = "+919811223344";
const SID: &str = "0123456789abcdef0123456789abcdef";

fn person(language: &str, methods: &[(&str, &str)]) -> Value {
    let methods: Vec<Value> =
        methods.iter().map(|(channel, number)| json!({ "channel": channel, "number": number })).collect();
    json!({
        "name": "Asha Verma", "role": "lead", "language": language, "time_zone": "Asia/Kolkata", "active": true,
        "methods": methods,
    })
}

/// Adds a person; gives their path.
async fn added(world: &World, language: &str, methods: &[(&str, &str)]) -> String {
    let added = world.post(CONTACTS, ADMIN, &person(language, methods)).await.expect(201);
    format!("{CONTACTS}/{}", added.text_at("/id"))
}

/// A person with a landline, which is all that they have.
async fn with_landline(world: &World) -> String {
    added(world, "en", &[("voice", LANDLINE)]).await
}

async fn send_code(world: &World, path: &str, channel: &str) -> Answer {
    world.request(Method::POST, &format!("{path}/methods/{channel}/verification"), Some(ADMIN), None).await
}

async fn confirm(world: &World, path: &str, code: &str) -> Answer {
    let body = json!({ "code": code });
    world.post(&format!("{path}/methods/voice/verification/confirm"), ADMIN, &body).await
}

/// The call that rings.
#[track_caller]
fn rings(world: &World, phone: &str) -> SimCall {
    world.sim().expect_call(phone).unwrap_or_else(|told| panic!("{told}"))
}

fn now(world: &World, call: &SimCall) -> SimCall {
    world.sim().calls().into_iter().find(|known| known.sid == call.sid).unwrap()
}

/// Whoever is called picks up and presses 1; gives what they hear then.
async fn hears_code(world: &World, call: &SimCall) -> String {
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    let before = now(world, call).said.len();
    assert_eq!(world.sim().press(&call.sid, '1').await.unwrap().first(), Some(&200));
    now(world, call).said[before..].join(" ")
}

/// The code as it is spoken: `0, 1, 2, 3, 4, 5`.
fn spoken(code: &str) -> String {
    code.chars().map(String::from).collect::<Vec<_>>().join(", ")
}

/// The code in what was said.
fn code_in(said: &str) -> String {
    let start = said.find(", ").expect("digits that are said apart") - 1;
    let code: String = said[start..].chars().take(16).filter(char::is_ascii_digit).collect();
    assert_eq!(code.len(), 6, "six digits in {said}");
    code
}

/// Another code than this one.
fn not(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}

async fn standing(world: &World, path: &str) -> String {
    world.get(path, ADMIN).await.expect(200).text_at("/methods/0/standing")
}

async fn settings(world: &World) -> Vec<Value> {
    let stream = AuditStream::Settings("default".parse().unwrap());
    let entries = world.store().audit_entries(&stream, 0, 1000).await.unwrap();
    entries.iter().map(|entry| serde_json::from_str(&entry.canonical).unwrap()).collect()
}

async fn deeds(world: &World) -> Vec<String> {
    settings(world).await.iter().map(|entry| entry["deed"].as_str().unwrap().to_owned()).collect()
}

/// A ladder that calls this person, and has the counsellor at its end; and a student who has agreed.
async fn called_first(world: &World, path: &str) {
    let id = path.rsplit('/').next().unwrap();
    let step = json!({ "after_seconds": 0, "targets": [{ "contact": id }], "channels": ["voice"] });
    let policy = json!({
        "id": "landline", "steps": [step], "bands": ["elevated", "high", "critical"],
        "last_responder": { "contact": "counsellor" }, "last_responder_channels": ["whatsapp"],
    });
    world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    let said = json!({ "whatsapp": true, "sms": true, "voice": true, "source": "story" });
    world.request(Method::PUT, "/api/v1/messaging/preferences/student-1", Some(SERVICE), Some(&said)).await.expect(200);
}

#[tokio::test]
async fn a_landline_hears_its_code_is_proven_and_rings_when_somebody_is_needed() {
    let mut world = World::new().await;
    let path = with_landline(&world).await;
    let sent = send_code(&world, &path, "voice").await.expect(202);
    assert_eq!(sent.text_at("/sending"), "accepted");
    let call = rings(&world, LANDLINE);
    assert_eq!(world.sim().messages_to(LANDLINE).len(), 0, "a landline takes no message");

    let said = hears_code(&world, &call).await;
    let code = code_in(&said);
    assert_eq!(said.matches(&spoken(&code)).count(), 3, "the whole is said three times: {said}");
    let call = now(&world, &call);
    assert_eq!(call.status, CallStatus::Completed, "then it hangs up");
    let prompt = &call.said[0];
    assert!(prompt.contains("Press 1") && prompt.contains("code"), "{prompt}");
    for telling in ["student", "crisis", "counsel", "case", "urgent"] {
        assert!(!call.said.concat().to_lowercase().contains(telling), "{telling}: {:?}", call.said);
    }

    let wrong = confirm(&world, &path, &not(&code)).await.expect(422);
    assert!(wrong.text_at("/errors/0/rule").contains("2 more times") && !wrong.text.contains(&code), "{wrong:?}");
    let shown = confirm(&world, &path, &code).await.expect(200).json();
    assert_eq!((&shown["methods"][0]["standing"], &shown["reachable"]), (&json!("verified"), &json!(true)));
    let told = ["contact_added", "method_set", "code_sent", "code_accepted", "code_wrong", "method_verified"];
    assert_eq!(deeds(&world).await, told);
    let accepted = settings(&world).await.remove(3);
    assert_eq!((&accepted["provider_id"], &accepted["channel"]), (&json!(call.sid), &json!("voice")));
    let whole = format!("{prompt} {}", call.said[1].replace(&spoken(&code), &spoken("000000")));
    assert_eq!(accepted["text_sha256"], text_sha256(&whole), "what was said, but the code");

    world.pass(s(60)).await;
    called_first(&world, &path).await;
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.work().await;
    let alert_call = rings(&world, LANDLINE);
    world.sim().pick_up(&alert_call.sid, AnsweredBy::Human).await.unwrap();
    world.sim().press(&alert_call.sid, '1').await.unwrap();
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["detail"]["via"]), (&json!("acknowledged"), &json!("keypress")), "{alert}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_voicemail_hears_who_calls_and_never_the_code() {
    let world = World::new().await;
    let path = with_landline(&world).await;
    send_code(&world, &path, "voice").await.expect(202);
    let call = rings(&world, LANDLINE);
    world.sim().pick_up(&call.sid, AnsweredBy::MachineEndBeep).await.unwrap();
    for _ in 0..3 {
        world.sim().stay_silent(&call.sid).await.unwrap();
    }
    let call = now(&world, &call);
    assert_eq!((call.status, call.said.len()), (CallStatus::Completed, 4), "{:?}", call.said);
    assert!(call.said[..3].iter().all(|said| said.contains("Press 1")), "{:?}", call.said);
    assert!(call.said[3].contains("No key was pressed"), "{:?}", call.said);
    assert!(!call.said.concat().contains("Your code"), "{:?}", call.said);
    assert_eq!(standing(&world, &path).await, "unverified");
}

#[tokio::test]
async fn another_key_says_who_calls_once_more_and_the_right_one_says_the_code_then() {
    let world = World::new().await;
    let path = with_landline(&world).await;
    send_code(&world, &path, "voice").await.expect(202);
    let call = rings(&world, LANDLINE);
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    for key in ['2', '9', '*', '#'] {
        world.sim().press(&call.sid, key).await.unwrap();
        let said = now(&world, &call).said;
        assert!(said.iter().all(|line| line == &said[0]), "{key}: {said:?}");
    }
    world.sim().press(&call.sid, '1').await.unwrap();
    let code = code_in(now(&world, &call).said.last().unwrap());
    confirm(&world, &path, &code).await.expect(200);
}

#[tokio::test]
async fn a_code_is_said_in_the_persons_language() {
    let world = World::new().await;
    let path = added(&world, "hi", &[("voice", LANDLINE)]).await;
    send_code(&world, &path, "voice").await.expect(202);
    let call = rings(&world, LANDLINE);
    let said = hears_code(&world, &call).await;
    assert!(now(&world, &call).said[0].contains("1 दबाएँ") && said.starts_with("आपका कोड है"), "{said}");
    confirm(&world, &path, &code_in(&said)).await.expect(200);
}

#[tokio::test]
async fn a_call_that_twilio_refuses_brings_no_code_and_one_that_did_not_begin_can_be_asked_for_later() {
    for (fault, status, told) in [
        (Fault::Refused { code: 21214, http_status: 400 }, 409, "21214"),
        (Fault::Refused { code: 21215, http_status: 400 }, 409, "21215"),
        (Fault::TooManyRequests { retry_after_s: Some(1) }, 503, "no code was sent"),
    ] {
        let world = World::new().await;
        let path = with_landline(&world).await;
        world.goes_wrong(FaultRule::once(fault));
        let refused = send_code(&world, &path, "voice").await.expect(status);
        assert!(refused.text_at("/detail").contains(told), "{refused:?}");
        assert_eq!(deeds(&world).await[2..], ["code_sent", "code_not_sent"]);
        confirm(&world, &path, "000000").await.expect(409);
        assert_eq!(world.sim().calls_to(LANDLINE).len(), 0);
        world.clock.advance(s(60));
        send_code(&world, &path, "voice").await.expect(202);
        let call = rings(&world, LANDLINE);
        confirm(&world, &path, &code_in(&hears_code(&world, &call).await)).await.expect(200);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_call_whose_making_is_in_doubt_brings_a_code_that_counts_if_it_rang() {
    let world = World::new().await;
    let path = with_landline(&world).await;
    world.goes_wrong(FaultRule::once(Fault::DropAfterAccepting));
    assert_eq!(send_code(&world, &path, "voice").await.expect(202).text_at("/sending"), "unknown");
    assert_eq!(deeds(&world).await[2..], ["code_sent", "code_unknown"]);
    let call = rings(&world, LANDLINE);
    confirm(&world, &path, &code_in(&hears_code(&world, &call).await)).await.expect(200);
}

#[tokio::test]
async fn a_phone_that_opted_out_of_calls_is_not_called_with_a_code() {
    let world = World::new().await;
    let path = with_landline(&world).await;
    world.goes_wrong(FaultRule::once(Fault::Refused { code: 21610, http_status: 400 }));
    send_code(&world, &path, "voice").await.expect(409);
    assert_eq!(standing(&world, &path).await, "opted_out");
    world.clock.advance(s(60));
    assert_eq!(send_code(&world, &path, "voice").await.expect(409).text_at("/code"), "opted_out");
    assert_eq!(world.sim().calls_to(LANDLINE).len(), 0);
}

#[tokio::test]
async fn it_is_one_phone_that_rings_whichever_channel_makes_it() {
    let world = World::new().await;
    let path = added(&world, "en", &[("voice", PHONE), ("sms", PHONE), ("whatsapp", PHONE)]).await;
    for (sent, after) in [("voice", "sms"), ("sms", "voice"), ("whatsapp", "voice"), ("voice", "whatsapp")] {
        send_code(&world, &path, sent).await.expect(202);
        assert_eq!(send_code(&world, &path, after).await.expect(429).headers["retry-after"], "60", "{sent}, {after}");
        world.clock.advance(s(60));
    }
    send_code(&world, &path, "voice").await.expect(202);
    world.clock.advance(s(60));
    send_code(&world, &path, "voice").await.expect(429);
    assert_eq!(world.sim().calls_to(PHONE).len() + world.sim().messages_to(PHONE).len(), 5, "five an hour");
}

/// Whether it stands there as a word of its own. (In a hash of 64 digits six of them may be any.)
fn stands_in(bytes: &[u8], word: &str) -> bool {
    let is_apart = |place: Option<usize>| place.and_then(|at| bytes.get(at)).is_none_or(|b| !b.is_ascii_alphanumeric());
    let mut places = bytes.windows(word.len()).enumerate().filter(|(_, window)| *window == word.as_bytes());
    places.any(|(at, _)| is_apart(at.checked_sub(1)) && is_apart(Some(at + word.len())))
}

#[tokio::test]
async fn the_code_is_in_no_log_no_row_no_audit_and_in_nothing_that_twilio_is_sent_beforehand() {
    listen();
    let world = World::new().await;
    let path = with_landline(&world).await;
    let mut answers = vec![send_code(&world, &path, "voice").await.expect(202)];
    let call = rings(&world, LANDLINE);
    let code = code_in(&hears_code(&world, &call).await);
    answers.push(confirm(&world, &path, &not(&code)).await.expect(422));
    answers.push(confirm(&world, &path, &code).await.expect(200));
    answers.push(world.get("/api/v1/settings/audit", ADMIN).await.expect(200));
    answers.push(world.request(Method::GET, "/metrics", None, None).await.expect(200));
    let log = heard();
    assert!(log.contains("a code is sent") && log.contains("a method was verified"), "it is listened to: {log}");
    let mut found: Vec<(String, Vec<u8>)> = vec![("the log".to_owned(), log.into_bytes())];
    found.extend(answers.into_iter().map(|answer| ("an answer".to_owned(), answer.text.into_bytes())));
    for request in world.sim().requests() {
        found.extend(request.fields.into_iter().map(|(name, value)| (name, value.into_bytes())));
    }
    let files = std::fs::read_dir(world.folder.path()).unwrap().map(|file| file.unwrap().path());
    found.extend(files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())));
    assert!(found.len() > 10);
    for (place, bytes) in found {
        for form in [code.clone(), spoken(&code), spoken(&code).replace(',', "")] {
            assert!(!stands_in(&bytes, &form), "{form} stands in {place}");
        }
    }
}

#[tokio::test]
async fn whichever_instance_is_asked_says_the_same_code() {
    let world = World::new().await;
    let other = world.further_instance().await;
    let path = with_landline(&world).await;
    send_code(&world, &path, "voice").await.expect(202);
    let call = rings(&world, LANDLINE);
    let url: Url = call.url.as_deref().unwrap().parse().unwrap();
    let asked = spoken_code_of(url.query().unwrap()).unwrap();
    let speech = other.service.code_speech(&asked).unwrap();
    assert!(hears_code(&world, &call).await.starts_with(&speech.code));
}

/// Posts as Twilio does about a code's call.
async fn posted(world: &World, query: &str, is_twilio: bool) -> Answer {
    let url = world.base().join(&format!("/webhooks/twilio/voice/code?{query}")).unwrap();
    let fields = [
        ("AccountSid", "AC00000000000000000000000000000000"),
        ("CallSid", "CA0123456789abcdef0123456789abcdef"),
        ("CallStatus", "in-progress"),
        ("To", LANDLINE),
        ("Digits", "1"),
    ];
    let token = Secret::new(if is_twilio { "simulator-auth-token" } else { "somebody-elses-token" });
    let signature = signature::sign(&token, url.as_str(), &fields);
    answer(world.client().post(url).header(SIGNATURE_HEADER, signature).form(&fields)).await
}

#[tokio::test]
async fn nobody_but_twilio_is_told_a_code_and_nothing_is_said_of_what_is_none() {
    let world = World::new().await;
    let right = format!("organisation=default&language=en&seed={SID}");
    posted(&world, &right, false).await.expect(403);
    assert!(posted(&world, &right, true).await.expect(200).text.contains("Your code is"));
    for query in [
        "",
        "organisation=default&language=en",
        "organisation=default&language=en&seed=0123",
        &format!("organisation=elsewhere&language=en&seed={SID}"),
        &format!("organisation=default&language=EN!&seed={SID}"),
    ] {
        let said = posted(&world, query, true).await.expect(200).text;
        assert!(said.ends_with("<Response><Hangup/></Response>"), "{query}: {said}");
    }
}

#[tokio::test]
async fn without_a_number_that_calls_a_code_by_call_is_refused_with_what_to_set() {
    let world = Setting::default()
        .with("TWILIO_ACCOUNT_SID", &format!("AC{SID}"))
        .with("TWILIO_AUTH_TOKEN", SID)
        .with("TWILIO_WHATSAPP_FROM", "+4915112345678")
        .with("TWILIO_WEBHOOK_BASE_URL", "https://relay.example.org")
        .with("TWILIO_CONTENT_SID_EN", &format!("HX{SID}"))
        .with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "80")
        .start()
        .await;
    let path = with_landline(&world).await;
    let refused = send_code(&world, &path, "voice").await.expect(409);
    assert!(refused.text_at("/detail").contains("TWILIO_VOICE_FROM"), "{refused:?}");
    assert_eq!(deeds(&world).await, ["contact_added", "method_set"], "no code was drawn");
}

/// Nothing in Twilio's list says what a call was about.
#[tokio::test]
async fn a_call_that_brought_a_code_is_not_taken_for_the_alerts() {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__CALLS_PER_SECOND", "100").start().await;
    let path = with_landline(&world).await;
    send_code(&world, &path, "voice").await.expect(202);
    let call = rings(&world, LANDLINE);
    confirm(&world, &path, &code_in(&hears_code(&world, &call).await)).await.expect(200);
    called_first(&world, &path).await;
    // Within seconds of that: the alert's own call is never made, and no answer says so.
    world.goes_wrong(FaultRule::once(Fault::TimeOutWithoutAccepting).to(LANDLINE));
    world.event(&event("student-1", 0.93)).await.expect(202);
    world.work().await;
    assert_eq!(world.sim().calls_to(LANDLINE).len(), 1);
    world.pass_in_steps(s(100), ms(500)).await;
    let adopted = world.store().alert_of_message(&call.sid.parse().unwrap()).await.unwrap();
    assert!(adopted.is_none(), "the case takes it for its own");
    let is_the_cases = |call: &SimCall| call.url.as_deref().unwrap().contains("/voice/answer");
    assert!(world.sim().calls_to(LANDLINE).iter().any(is_the_cases), "the phone is called for the case");
    world.holds_its_promises().await;
}
