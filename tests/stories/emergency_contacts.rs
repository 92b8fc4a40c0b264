//! The emergency contacts of a student: proven and kept like a secret, told by a human's decision or the policy's, on a
//! ground of their own, and never a part of the ladder.

use crisis_relay::domain::audit::AuditStream;
use crisis_relay::domain::message::text_sha256;
use crisis_relay::service::report::report;
use crisis_relay::simulator::{AnsweredBy, Fault, FaultRule, Inbound, Quote};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::stage::s;
use crate::common::{ADMIN, AUDITOR, Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, answer};

const STUDENT: &str = "student-1";
const NAME: &str = "Mother Canary-Verma";
const PHONE: &str = "+919811223344";
const OTHER: &str = "+919811223355";
const THIRD: &str = "+919811223366";
const DESK: &str = "+911123456789";
const WHO: &str = "N. Iyer, counsellor";
const REASON: &str = "The hostel warden found the room empty";

fn with_desk() -> Setting {
    // Text messages are sent one a second as a rule; here nobody waits for that.
    Setting::default().with("CARE_DESK_PHONE", DESK).with("CRISIS_RELAY__TWILIO__SMS_PER_SECOND", "100")
}

/// The policy tells emergency contacts after ten minutes.
fn with_policy() -> Setting {
    with_desk().with("CRISIS_RELAY__POLICY__EMERGENCY_CONTACT_AFTER", "10m")
}

fn contacts_of(student: &str) -> String {
    format!("/api/v1/messaging/preferences/{student}/emergency-contacts")
}

fn person(methods: &[(&str, &str)], granted: Option<bool>) -> Value {
    let methods: Vec<Value> =
        methods.iter().map(|(channel, number)| json!({ "channel": channel, "number": number })).collect();
    let mut person = json!({ "name": NAME, "language": "en", "methods": methods });
    if let Some(granted) = granted {
        person["consent"] = json!({ "granted": granted, "source": "onboarding", "notice_version": "notice-7" });
    }
    person
}

async fn added(world: &World, student: &str, body: &Value) -> String {
    let added = world.post(&contacts_of(student), SERVICE, body).await.expect(201);
    assert_eq!(added.headers["etag"], "\"1\"");
    format!("{}/{}", contacts_of(student), added.text_at("/id"))
}

async fn change(world: &World, method: Method, path: &str, version: &str, body: Option<&Value>) -> Answer {
    let request = world.client().request(method, world.base().join(path).unwrap()).bearer_auth(SERVICE);
    let request = request.header("If-Match", version);
    answer(body.into_iter().fold(request, |request, body| request.json(body))).await
}

fn code_on(world: &World, phone: &str) -> String {
    let messages = world.sim().messages_to(phone);
    let newest = &messages.last().expect("a message came").body;
    newest.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6).expect("a code").to_owned()
}

async fn verify(world: &World, path: &str, channel: &str, phone: &str) {
    let verification = format!("{path}/methods/{channel}/verification");
    world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(202);
    let code = json!({ "code": code_on(world, phone) });
    world.post(&format!("{verification}/confirm"), SERVICE, &code).await.expect(200);
}

/// An emergency contact whose numbers are proven.
async fn proven(world: &World, student: &str, methods: &[(&str, &str)], granted: Option<bool>) -> String {
    let path = added(world, student, &person(methods, granted)).await;
    for (channel, number) in methods.iter().filter(|(channel, _)| *channel != "voice") {
        verify(world, &path, channel, number).await;
    }
    path
}

fn id_of(path: &str) -> String {
    path.rsplit('/').next().unwrap().to_owned()
}

/// What was sent to a phone that is no code.
fn asked(world: &World, phone: &str) -> Vec<String> {
    let texts = world.sim().messages_to(phone).into_iter().map(|message| message.body);
    texts.filter(|text| !text.contains("your code is")).collect()
}

async fn inform(world: &World, reference: &str, body: &Value) -> Answer {
    world.post(&format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact"), COUNSELLOR_KEY, body).await
}

async fn informed(world: &mut World, reference: &str) -> Value {
    let alert = inform(world, reference, &json!({ "by": WHO, "reason": REASON })).await.expect(200).json();
    world.work().await;
    alert
}

async fn deeds(world: &World, reference: &str) -> Vec<Value> {
    let alert = world.alert(reference).await;
    let stream = AuditStream::Alert(alert["id"].as_str().unwrap().parse().unwrap());
    let entries = world.store().audit_entries(&stream, 0, 1000).await.unwrap();
    entries.iter().map(|entry| serde_json::from_str(&entry.canonical).unwrap()).collect()
}

async fn deeds_of(world: &World, reference: &str, deed: &str) -> Vec<Value> {
    deeds(world, reference).await.into_iter().filter(|entry| entry["deed"] == deed || entry["what"] == deed).collect()
}

/// The messages to emergency contacts, as the API shows them.
async fn disclosures(world: &World, reference: &str) -> Vec<Value> {
    let alert = world.alert(reference).await;
    let all = alert["deliveries"].as_array().unwrap().clone();
    all.into_iter().filter(|delivery| delivery["purpose"] == "emergency_contact").collect()
}

async fn resolve(world: &World, reference: &str) {
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
}

async fn acknowledge(world: &World, reference: &str) {
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.request(Method::POST, &path, Some(COUNSELLOR_KEY), None).await.expect(200);
}

// -- a human decides ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_humans_decision_has_one_person_told_whom_to_call_and_the_audit_names_the_disclosure() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let text =
        format!("Message from Care desk: please call the care desk at {DESK} and give them the reference {reference}.");
    assert_eq!(asked(&world, PHONE), std::slice::from_ref(&text));

    let told = disclosures(&world, &reference).await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["contact"], &told[0]["role"], &told[0]["ground"], &told[0]["channel"]),
        (&json!(id_of(&path)), &json!("emergency_contact"), &json!("decision"), &json!("sms"))
    );
    let decided = deeds_of(&world, &reference, "emergency_contact_decided").await;
    assert_eq!(decided.len(), 1);
    let all = deeds_of(&world, &reference, "attempt_begun").await;
    let begun = all.iter().find(|entry| entry["role"] == "emergency_contact").unwrap();
    assert_eq!(
        (&begun["contact"], &begun["ground"], &begun["disclosure"]["kind"]),
        (&json!(id_of(&path)), &json!("decision"), &json!("decision"))
    );
    assert_eq!(begun["disclosure"]["by"]["kind"], "machine", "who handed it in");
    let disclosed = &begun["disclosed"];
    assert_eq!((&disclosed["template"], &disclosed["language"]), (&json!("emergency_contact"), &json!("en")));
    assert_eq!(disclosed["text_sha256"], text_sha256(&text));
    assert_eq!(begun["address"].as_str().unwrap().len(), 64, "a hash, and no number");
    let said = serde_json::to_string(&deeds(&world, &reference).await).unwrap();
    assert!(!["warden", WHO].iter().any(|words| said.contains(words)), "who decided and why are sealed");

    let organisation = "default".parse().unwrap();
    let page = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    for says in [
        "(emergency_contact), sms",
        "disclosed to an emergency contact on a decision, handed in by",
        "on the ground of decision",
    ] {
        assert!(page.contains(says), "it does not say {says}: {page}");
    }
    let timeline = world.alert(&reference).await["timeline"].clone();
    let shown = timeline.as_array().unwrap().iter().find(|entry| entry["role"] == "emergency_contact").unwrap().clone();
    assert_eq!((&shown["what"], &shown["ground"]), (&json!("delivery.attempt_begun"), &json!("decision")));
    // The ladder goes on as if nothing had been.
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    world.pass_in_steps(s(301), s(10)).await;
    assert!(world.sim().messages_to(COUNSELLOR).len() >= 2, "the counsellor is told again");
    assert_eq!(asked(&world, PHONE).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_must_not_be_is_refused_with_its_own_word_and_changes_nothing() {
    let mut world = with_desk().start().await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    let reason = json!({ "by": WHO, "reason": REASON });
    let code = |refused: Answer| refused.expect(409).text_at("/code");
    assert_eq!(code(inform(&world, &reference, &reason).await), "emergency_contact_unknown", "nobody is named");
    let path = added(&world, STUDENT, &person(&[("sms", PHONE)], Some(true))).await;
    assert_eq!(code(inform(&world, &reference, &reason).await), "emergency_contact_unverified");
    let other = json!({ "by": WHO, "reason": REASON, "contact": "e-nobody" });
    assert_eq!(code(inform(&world, &reference, &other).await), "emergency_contact_unknown");
    verify(&world, &path, "sms", PHONE).await;
    added(&world, STUDENT, &person(&[("sms", OTHER)], None)).await;
    let which = inform(&world, &reference, &reason).await.expect(422);
    assert_eq!(
        (which.text_at("/code").as_str(), which.text_at("/errors/0/field").as_str()),
        ("missing_field", "contact")
    );
    let named = |reason: &str| json!({ "by": WHO, "reason": reason });
    let unnamed = [json!({ "reason": REASON }), json!({ "by": " ", "reason": REASON })];
    let bodies = [json!({}), named(""), named(" "), named(&"x".repeat(4001))];
    for body in bodies.into_iter().chain(unnamed) {
        inform(&world, &reference, &body).await.expect(422);
    }
    let drill = world.post("/api/v1/crisis/drills", ADMIN, &json!({})).await.expect(201).text_at("/reference");
    assert_eq!(
        code(inform(&world, &drill, &json!({ "by": WHO, "reason": REASON, "contact": id_of(&path) })).await),
        "drill_stays_inside"
    );
    resolve(&world, &reference).await;
    let named = json!({ "by": WHO, "reason": REASON, "contact": id_of(&path) });
    assert_eq!(code(inform(&world, &reference, &named).await), "conflict");
    inform(&world, "0000000Z", &named).await.expect(404);
    for (key, status) in [(SERVICE, 403), (AUDITOR, 403)] {
        let url = format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact");
        world.post(&url, key, &named).await.expect(status);
    }
    world.work().await;
    assert!(asked(&world, PHONE).is_empty());
    world.holds_its_promises().await;
}

#[tokio::test]
async fn without_a_desk_to_call_nobody_is_told() {
    let world = Setting::default().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    let refused = inform(&world, &reference, &json!({ "by": WHO, "reason": REASON })).await.expect(409);
    assert_eq!(refused.text_at("/code"), "desk_missing");
}

#[tokio::test]
async fn asked_for_twice_while_it_is_on_its_way_it_is_sent_once() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    informed(&mut world, &reference).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    assert_eq!(deeds_of(&world, &reference, "emergency_contact_decided").await.len(), 1);
    // It has arrived: whoever decides so again may have them asked again, and a repeated request may not.
    world.receipts().await;
    world.receipts().await;
    let url = world.base().join(&format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact")).unwrap();
    for (reason, status) in [(REASON, 200), (REASON, 200), ("Another reason", 422)] {
        let request = world.client().post(url.clone()).bearer_auth(COUNSELLOR_KEY).header("Idempotency-Key", "once");
        answer(request.json(&json!({ "by": WHO, "reason": reason }))).await.expect(status);
        world.work().await;
    }
    assert_eq!(asked(&world, PHONE).len(), 2);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn under_the_key_of_another_case_nothing_is_said_to_be_done() {
    let mut world = with_desk().start().await;
    let mut references = Vec::new();
    for (student, phone) in [(STUDENT, PHONE), ("student-2", OTHER)] {
        proven(&world, student, &[("sms", phone)], None).await;
        world.pass(s(5)).await;
        references.push(world.told(student, 0.93).await);
        world.work().await;
    }
    for (reference, status) in references.iter().zip([200, 422]) {
        let url = format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact");
        let request = world.client().post(world.base().join(&url).unwrap()).bearer_auth(COUNSELLOR_KEY);
        let request = request.header("Idempotency-Key", "form").json(&json!({ "by": WHO, "reason": REASON }));
        answer(request).await.expect(status);
        world.work().await;
    }
    assert_eq!((asked(&world, PHONE).len(), asked(&world, OTHER).len()), (1, 0));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_repeated_request_that_met_one_on_its_way_sends_none_later() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let url = world.base().join(&format!("/api/v1/crisis/alerts/{reference}/inform-emergency-contact")).unwrap();
    for _ in 0..2 {
        let request = world.client().post(url.clone()).bearer_auth(COUNSELLOR_KEY).header("Idempotency-Key", "second");
        answer(request.json(&json!({ "by": WHO, "reason": REASON }))).await.expect(200);
        world.receipts().await;
        world.receipts().await;
    }
    assert_eq!(asked(&world, PHONE).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_picks_up_after_the_student_has_taken_their_word_back_hears_nothing() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("voice", PHONE), ("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let call = world.sim().expect_call(PHONE).unwrap();
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(204);
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    world.work().await;
    assert!(world.sim().calls_to(PHONE)[0].said.is_empty());
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_withheld_case_may_be_decided_on_too_and_its_counsellors_are_not_told() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let event = json!({ "user_id": STUDENT, "crisis_score": 0.93, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    informed(&mut world, &reference).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    assert_eq!(world.alert(&reference).await["state"], "withheld");
    world.pass_in_steps(s(1200), s(30)).await;
    assert!(world.sim().messages_to(COUNSELLOR).is_empty(), "it covers nobody else");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_next_number_has_its_turn_where_one_fails_or_tells_of_no_arrival() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE), ("whatsapp", OTHER)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.sim().push_fault(FaultRule::once(Fault::Refused { code: 30006, http_status: 400 }).to(PHONE));
    informed(&mut world, &reference).await;
    assert_eq!((asked(&world, PHONE).len(), asked(&world, OTHER).len()), (0, 1), "at once");
    assert_eq!(deeds_of(&world, &reference, "fell_over").await.len(), 1);
    resolve(&world, &reference).await;

    let second = world.told(STUDENT, 0.94).await;
    world.work().await;
    informed(&mut world, &second).await;
    assert_eq!((asked(&world, PHONE).len(), asked(&world, OTHER).len()), (1, 1));
    world.pass_in_steps(s(31), s(5)).await;
    assert_eq!((asked(&world, PHONE).len(), asked(&world, OTHER).len()), (1, 2), "nothing told that it arrived");
    assert_eq!(world.alarms("emergency_contact_untold").await, 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_no_number_works_a_human_hears_of_it_and_the_ladder_does_not() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    let before = world.alert(&reference).await["detail"].clone();
    world.sim().push_fault(FaultRule::always(Fault::Refused { code: 30006, http_status: 400 }).to(PHONE));
    informed(&mut world, &reference).await;
    assert_eq!(world.alarms("emergency_contact_untold").await, 1.0);
    assert_eq!(deeds_of(&world, &reference, "emergency_contact_untold").await.len(), 1);
    assert_eq!(world.alert(&reference).await["detail"], before, "the ladder is touched");
    assert_eq!(world.alarms("provider_refused").await, 0.0);
    world.pass_in_steps(s(120), s(10)).await;
    assert_eq!(deeds_of(&world, &reference, "emergency_contact_untold").await.len(), 1, "it is told once");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_decision_outlives_the_acknowledgement_and_ends_with_the_case() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE), ("whatsapp", OTHER)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    acknowledge(&world, &reference).await;
    world.pass_in_steps(s(35), s(5)).await;
    assert_eq!(asked(&world, OTHER).len(), 1, "the next number's turn comes all the same");
    // Whoever has taken it may decide so, too.
    let second = world.told("student-2", 0.93).await;
    world.work().await;
    proven(&world, "student-2", &[("sms", THIRD)], None).await;
    acknowledge(&world, &second).await;
    informed(&mut world, &second).await;
    assert_eq!(asked(&world, THIRD).len(), 1);
    // Nothing follows once it is closed.
    let third = world.told("student-3", 0.93).await;
    world.work().await;
    proven(&world, "student-3", &[("sms", "+919811223377"), ("whatsapp", "+919811223388")], None).await;
    informed(&mut world, &third).await;
    resolve(&world, &third).await;
    world.pass_in_steps(s(300), s(10)).await;
    assert_eq!(asked(&world, "+919811223388").len(), 0);
    world.holds_its_promises().await;
}

// -- the policy -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_policy_tells_those_the_student_has_agreed_to_once_nobody_has_answered_for_so_long() {
    let mut world = with_policy().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    proven(&world, STUDENT, &[("sms", OTHER)], Some(false)).await;
    proven(&world, STUDENT, &[("sms", THIRD)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.pass_in_steps(s(590), s(10)).await;
    assert!(asked(&world, PHONE).is_empty());
    world.pass_in_steps(s(20), s(10)).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    assert!(asked(&world, OTHER).is_empty() && asked(&world, THIRD).is_empty(), "no word, and a no");
    let due = deeds_of(&world, &reference, "emergency_contacts_due").await;
    assert_eq!((&due[0]["granted"], &due[0]["deliveries"]), (&json!(1), &json!(1)));
    let all = deeds_of(&world, &reference, "attempt_begun").await;
    let begun = all.iter().find(|entry| entry["role"] == "emergency_contact").unwrap();
    let ground = &begun["disclosure"];
    assert_eq!(
        (&ground["kind"], &ground["notice_version"]),
        (&json!("contact_consent"), &json!("notice-7")),
        "{begun}"
    );
    assert!(ground["version"].as_u64().unwrap() > 0 && ground["granted_at"].is_string(), "{begun}");
    world.pass_in_steps(s(3600), s(60)).await;
    assert_eq!(asked(&world, PHONE).len(), 1, "once");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_has_taken_the_case_in_time_keeps_the_policy_from_telling_anybody() {
    let mut world = with_policy().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.pass_in_steps(s(300), s(10)).await;
    acknowledge(&world, &reference).await;
    world.pass_in_steps(s(840), s(20)).await;
    assert!(asked(&world, PHONE).is_empty());
    // Nothing came of it, and it is open again: the time begins anew.
    world.pass_in_steps(s(90), s(10)).await;
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    world.pass_in_steps(s(540), s(20)).await;
    assert!(asked(&world, PHONE).is_empty());
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn an_acknowledgement_cancels_the_policys_message_that_waits_and_a_decision_makes_it_its_own() {
    let mut world = with_policy().start().await;
    proven(&world, STUDENT, &[("sms", PHONE), ("whatsapp", OTHER)], Some(true)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.pass_in_steps(s(605), s(5)).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    acknowledge(&world, &reference).await;
    world.pass_in_steps(s(120), s(10)).await;
    assert!(asked(&world, OTHER).is_empty(), "the next number is not tried any more");

    let second = world.told("student-2", 0.93).await;
    proven(&world, "student-2", &[("sms", THIRD), ("whatsapp", "+919811223377")], Some(true)).await;
    world.pass_in_steps(s(605), s(5)).await;
    assert_eq!(asked(&world, THIRD).len(), 1);
    informed(&mut world, &second).await;
    assert_eq!(asked(&world, THIRD).len(), 1, "it is on its way");
    acknowledge(&world, &second).await;
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(asked(&world, "+919811223377").len(), 1, "and goes on as the human's");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn without_the_setting_and_in_drills_nobody_is_told_however_long_it_takes() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    world.told(STUDENT, 0.93).await;
    world.pass_in_steps(s(7200), s(60)).await;
    assert!(asked(&world, PHONE).is_empty());

    let mut world = with_policy().start().await;
    world.post("/api/v1/crisis/drills", ADMIN, &json!({})).await.expect(201);
    world.pass_in_steps(s(7200), s(60)).await;
    let messages = world.sim().messages();
    assert!(!messages.is_empty() && messages.iter().all(|message| !message.body.contains("please call the")));
}

// -- looked at again before the call --------------------------------------------------------------------------------

/// The policy's message is due, and its call was refused for a moment: what is done meanwhile counts.
async fn held_back() -> (World, String, String) {
    let mut world = with_policy().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.pass_in_steps(s(590), s(10)).await;
    world.sim().push_fault(FaultRule::next(1, Fault::TooManyRequests { retry_after_s: Some(20) }).to(PHONE));
    world.pass_in_steps(s(12), s(2)).await;
    assert!(asked(&world, PHONE).is_empty());
    assert_eq!(disclosures(&world, &reference).await.len(), 1, "it is planned, and waits");
    (world, path, reference)
}

#[tokio::test]
async fn what_the_student_says_before_the_call_counts_and_is_audited() {
    type Deed = fn(&Value) -> Option<Value>;
    let cases: [(&str, Deed); 3] = [
        ("consent_gone", |_| Some(person(&[("sms", PHONE)], Some(false)))),
        ("number_gone", |_| Some(person(&[("sms", OTHER)], Some(true)))),
        ("contact_gone", |_| None),
    ];
    for (why, body) in cases {
        let (mut world, path, reference) = held_back().await;
        match body(&json!(null)) {
            Some(body) => change(&world, Method::PUT, &path, "\"1\"", Some(&body)).await.expect(200),
            None => change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(204),
        };
        world.pass_in_steps(s(120), s(5)).await;
        assert!(asked(&world, PHONE).is_empty() && asked(&world, OTHER).is_empty(), "{why}: sent all the same");
        let cancelled = deeds_of(&world, &reference, "cancelled").await;
        assert!(cancelled.iter().any(|entry| entry["reason"] == why), "{why}: {cancelled:?}");
        let alarms = world.alarms("emergency_contact_untold").await;
        assert_eq!(alarms, if why == "number_gone" { 1.0 } else { 0.0 }, "{why}");
        let said = world.sim().reply(PHONE, "Who sent me a code?").await.unwrap();
        assert!(said.answers.is_empty(), "{why}: who was told nothing hears nothing: {said:?}");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_message_that_no_text_can_be_made_for_any_more_is_told_to_the_operator() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(30) }));
    informed(&mut world, &reference).await;
    assert_eq!(asked(&world, PHONE), [] as [&str; 0]);
    // The desk that it names is taken out of the settings before it is tried again.
    world.reconfigure("CARE_DESK_PHONE", "");
    let mut world = world.crash().await;
    assert_eq!(world.alarms("not_composable").await, 0.0);
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(world.alarms("not_composable").await, 1.0);
    assert_eq!(asked(&world, PHONE), [] as [&str; 0]);
    let failed = deeds_of(&world, &reference, "failed").await;
    assert!(failed.iter().any(|entry| entry["reason"] == "not_composable"), "{failed:?}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_stop_from_the_number_marks_it_and_nothing_is_sent_there_any_more() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let said = world.sim().reply(PHONE, "STOP").await.unwrap();
    assert!(said.answers.is_empty(), "Twilio answers it");
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!((&shown["methods"][0]["standing"], &shown["reachable"]), (&json!("opted_out"), &json!(false)));
    let refused = inform(&world, &reference, &json!({ "by": WHO, "reason": REASON })).await.expect(409);
    assert_eq!(refused.text_at("/code"), "emergency_contact_unverified");
    world.sim().reply(PHONE, "START").await.unwrap();
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(shown["methods"][0]["standing"], "verified");
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_number_that_the_provider_blocks_counts_as_opted_out() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.sim().push_fault(FaultRule::once(Fault::Refused { code: 21610, http_status: 400 }).to(PHONE));
    informed(&mut world, &reference).await;
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(shown["methods"][0]["standing"], "opted_out");
    assert_eq!(world.alarms("emergency_contact_untold").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_stop_counts_for_every_student_who_names_the_phone_now_or_later() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    world.pass(s(61)).await;
    let sibling = proven(&world, "student-2", &[("sms", PHONE), ("whatsapp", OTHER)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    world.sim().reply(PHONE, "STOP").await.unwrap();
    let standing = async |world: &World, path: &str| {
        let shown = world.get(path, COUNSELLOR_KEY).await.expect(200).json();
        shown["methods"][0]["standing"].as_str().unwrap().to_owned()
    };
    assert_eq!(standing(&world, &sibling).await, "opted_out", "the same phone, named by another student");
    let of_sibling = world.told("student-2", 0.93).await;
    world.work().await;
    informed(&mut world, &of_sibling).await;
    assert_eq!((asked(&world, PHONE).len(), asked(&world, OTHER).len()), (1, 1), "their other number is tried at once");
    // Taken out and named again, it is the same phone.
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(204);
    let again = added(&world, STUDENT, &person(&[("sms", PHONE)], None)).await;
    assert_eq!(standing(&world, &again).await, "opted_out");
    world.pass(s(61)).await;
    let verification = format!("{again}/methods/sms/verification");
    let refused = world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(409);
    assert_eq!(refused.text_at("/code"), "opted_out");
    world.sim().reply(PHONE, "START").await.unwrap();
    assert_eq!(standing(&world, &sibling).await, "verified");
    verify(&world, &again, "sms", PHONE).await;
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_stop_in_answer_to_a_code_is_heeded() {
    let mut world = with_desk().start().await;
    let path = added(&world, STUDENT, &person(&[("sms", PHONE)], Some(true))).await;
    let verification = format!("{path}/methods/sms/verification");
    world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(202);
    assert!(world.sim().reply(PHONE, "STOP").await.unwrap().answers.is_empty(), "Twilio answers it");
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(shown["methods"][0]["standing"], "opted_out");
    world.pass(s(61)).await;
    let refused = world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(409);
    assert_eq!(refused.text_at("/code"), "opted_out");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_phone_that_many_students_name_gets_five_codes_an_hour_of_all_of_them() {
    let mut world = with_desk().start().await;
    let ask = async |world: &World, student: &str| {
        let path = added(world, student, &person(&[("sms", PHONE)], None)).await;
        world.request(Method::POST, &format!("{path}/methods/sms/verification"), Some(SERVICE), None).await
    };
    ask(&world, "student-0").await.expect(202);
    let too_soon = ask(&world, "student-1").await.expect(429);
    assert_eq!(too_soon.headers["retry-after"], "60", "a minute of the clock has just begun");
    for student in 2..6 {
        world.pass(s(60)).await;
        ask(&world, &format!("student-{student}")).await.expect(202);
    }
    world.pass(s(60)).await;
    let too_many = ask(&world, "student-6").await.expect(429);
    let wait: u64 = too_many.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((60..3600).contains(&wait), "{wait} s");
    assert_eq!(world.sim().messages_to(PHONE).len(), 5);
    world.pass(s(wait)).await;
    ask(&world, "student-7").await.expect(202);
    world.holds_its_promises().await;
}

// -- what comes back ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn whatever_they_reply_is_kept_for_the_team_answered_with_the_desk_and_decides_nothing() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let texts = ["1", "2", "done safe", &format!("1 {reference}"), "What has happened to her?"];
    for text in texts {
        let said = world.sim().reply(PHONE, text).await.unwrap();
        let answer = said.answers.concat();
        assert!(answer.contains(&format!("please call the care desk at {DESK}")), "{text}: {answer}");
        assert!(!answer.contains("case") && !answer.contains("Reply"), "{text}: {answer}");
    }
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["replies"]), (&json!("escalating"), &json!(texts.len())));
    let reveal = format!("/api/v1/crisis/alerts/{reference}/reveal");
    let revealed = world.request(Method::POST, &reveal, Some(COUNSELLOR_KEY), None).await.expect(200).json();
    let events = revealed["events"].as_array().unwrap();
    let words = events.iter().find(|event| event["message"] == texts[4]).unwrap();
    assert_eq!(words["reply"]["contact"], id_of(&path));
    // Also once somebody has it: a person's decision stands until the case is closed. Then nobody outside hears anything more.
    acknowledge(&world, &reference).await;
    assert!(world.sim().reply(PHONE, "done safe").await.unwrap().answers.concat().contains(DESK));
    resolve(&world, &reference).await;
    assert!(world.sim().reply(PHONE, "yes").await.unwrap().answers.is_empty(), "the ground has ended");
    assert_eq!(world.alert(&reference).await["detail"]["outcome"], "safe_by_phone");
    // Posted again, a reply is kept once.
    let again = Inbound::new(PHONE, "Hello?").with_sid("SM00000000000000000000000000000077");
    for _ in 0..2 {
        world.sim().receive(&again).await.unwrap();
    }
    assert_eq!(world.alert(&reference).await["replies"], texts.len() + 3);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_they_hear_again_is_recorded_with_its_ground_and_is_in_their_own_language() {
    let mut world = with_desk().start().await;
    let mut reader = person(&[("sms", PHONE)], None);
    reader["language"] = json!("hi");
    let path = added(&world, STUDENT, &reader).await;
    verify(&world, &path, "sms", PHONE).await;
    let other = proven(&world, STUDENT, &[("sms", OTHER)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    for contact in [&path, &other] {
        let decision = json!({ "by": WHO, "reason": REASON, "contact": id_of(contact) });
        inform(&world, &reference, &decision).await.expect(200);
        world.work().await;
    }
    let told = asked(&world, PHONE).pop().unwrap();
    assert_ne!(told, asked(&world, OTHER).concat());
    let answer = world.sim().reply(PHONE, "Who is this?").await.unwrap().answers.concat();
    assert_eq!(answer, told, "in the language that they were told in, though another was told after them");
    let kept = deeds_of(&world, &reference, "reply_kept").await;
    let again = &kept[0]["told_again"];
    assert_eq!(again["disclosed"]["text_sha256"], text_sha256(&answer), "{kept:?}");
    assert_eq!((&again["disclosed"]["language"], &again["disclosure"]["kind"]), (&json!("hi"), &json!("decision")));
    let organisation = "default".parse().unwrap();
    let page = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    assert!(page.contains(&format!("heard again whom to call (message {}", again["delivery"])), "{page}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_reply_that_is_posted_again_after_the_student_has_taken_their_word_back_discloses_nothing() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let words = Inbound::new(PHONE, "Who is this?").with_sid("SM00000000000000000000000000000078");
    assert!(world.sim().receive(&words).await.unwrap().answers.concat().contains(DESK));
    assert!(world.sim().receive(&words).await.unwrap().answers.concat().contains(DESK), "Twilio asks again at once");
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(204);
    let again = world.sim().receive(&words).await.unwrap();
    assert_eq!((again.http_status, again.answers), (200, Vec::<String>::new()));
    assert_eq!(deeds_of(&world, &reference, "reply_kept").await.len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn what_the_policy_let_them_hear_they_hear_again_only_until_somebody_has_the_case() {
    let mut world = with_policy().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    world.pass_in_steps(s(620), s(10)).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    assert!(world.sim().reply(PHONE, "What is it?").await.unwrap().answers.concat().contains(DESK));
    acknowledge(&world, &reference).await;
    assert!(world.sim().reply(PHONE, "Hello?").await.unwrap().answers.is_empty());
    assert_eq!(world.alert(&reference).await["replies"], 2, "the words are kept all the same");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_stop_over_whatsapp_counts_however_long_ago_they_were_sent_anything() {
    let mut world = with_desk().start().await;
    let path = proven(&world, STUDENT, &[("whatsapp", PHONE)], Some(true)).await;
    world.pass(s(10 * 24 * 3600)).await;
    world.sim().receive(&Inbound::new(&format!("whatsapp:{PHONE}"), "STOP")).await.unwrap();
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(shown["methods"][0]["standing"], "opted_out");
    let hidden = Inbound::new("whatsapp:IN.1234567890", "STOP").quoting(Quote::Nothing);
    let said = world.sim().receive(&hidden).await.unwrap().answers.concat();
    assert!(said.contains("it is not clear who you are"), "{said}");
    world.work().await;
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_machine_that_answers_outside_is_not_talked_to_for_ever_and_takes_no_place_of_the_teams() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let mut answered = 0;
    for _ in 0..25 {
        answered += world.sim().reply(PHONE, "I am driving just now").await.unwrap().answers.len();
    }
    assert_eq!(answered, 20);
    assert_eq!(deeds_of(&world, &reference, "reply_kept").await.len(), 20);
    let words = world.sim().reply(COUNSELLOR, "I am at the hostel").await.unwrap().answers.concat();
    assert!(words.contains("noted for the team"), "{words}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_call_says_whom_to_call_asks_for_no_key_and_a_machine_hears_the_same() {
    let mut world = with_desk().start().await;
    // A number that a code has reached may be called as well.
    proven(&world, STUDENT, &[("voice", PHONE), ("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let call = world.sim().expect_call(PHONE).unwrap();
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    world.work().await;
    let said = world.sim().calls_to(PHONE)[0].said.concat();
    let digits = DESK[1..].chars().map(String::from).collect::<Vec<_>>().join(", ");
    let spelled = reference.chars().map(String::from).collect::<Vec<_>>().join(", ");
    assert!(said.contains(&digits) && said.contains(&spelled), "{said}");
    assert!(!said.contains("Press") && !said.contains("case "), "{said}");
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    world.pass_in_steps(s(40), s(5)).await;
    assert!(asked(&world, PHONE).is_empty(), "a human has heard it");
    resolve(&world, &reference).await;

    let second = world.told(STUDENT, 0.94).await;
    world.work().await;
    informed(&mut world, &second).await;
    let call = world.sim().expect_call(PHONE).unwrap();
    world.sim().pick_up(&call.sid, AnsweredBy::MachineEndBeep).await.unwrap();
    world.sim().hang_up(&call.sid).await.unwrap();
    world.work().await;
    assert_eq!(asked(&world, PHONE).len(), 1, "a machine is no human: the next channel has its turn");
    world.holds_its_promises().await;
}

/// A landline takes no message: the code is said in a call, and so is whom to call.
#[tokio::test]
async fn a_landline_is_proven_by_a_call_and_called_when_a_human_decides_so() {
    const LANDLINE: &str = "+911126543210";
    let mut world = with_desk().start().await;
    let path = added(&world, STUDENT, &person(&[("voice", LANDLINE), ("sms", PHONE)], None)).await;
    let verification = format!("{path}/methods/voice/verification");
    world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(202);
    let call = world.sim().expect_call(LANDLINE).unwrap();
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    world.sim().press(&call.sid, '1').await.unwrap();
    let said = world.sim().calls_to(LANDLINE).remove(0).said;
    assert!(said[0].contains("Press 1") && !said.concat().contains("student"), "{said:?}");
    let spoken = said[1].split_once("is ").unwrap().1.split_once('.').unwrap().0.replace(", ", "");
    let wrong = json!({ "code": format!("{:06}", (spoken.parse::<u32>().unwrap() + 1) % 1_000_000) });
    world.post(&format!("{verification}/confirm"), SERVICE, &wrong).await.expect(422);
    let shown = world.post(&format!("{verification}/confirm"), SERVICE, &json!({ "code": spoken })).await.expect(200);
    let shown = shown.json();
    assert_eq!(
        (&shown["methods"][0]["standing"], &shown["methods"][1]["standing"], &shown["reachable"]),
        (&json!("verified"), &json!("unverified"), &json!(true))
    );
    world.pass(s(60)).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    informed(&mut world, &reference).await;
    let call = world.sim().expect_call(LANDLINE).unwrap();
    world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
    let said = world.sim().calls_to(LANDLINE).remove(1).said.concat();
    assert!(said.contains("Please call the"), "{said}");
    world.holds_its_promises().await;
}

/// Nothing in Twilio's list says what a call was about, and one phone may be the contact of two students.
#[tokio::test]
async fn a_call_that_brought_a_code_on_behalf_of_another_student_is_not_taken_for_the_message() {
    let mut world = with_desk().with("CRISIS_RELAY__TWILIO__CALLS_PER_SECOND", "100").start().await;
    proven(&world, STUDENT, &[("voice", PHONE), ("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.pass(s(60)).await;
    let other = added(&world, "student-2", &person(&[("voice", PHONE)], None)).await;
    world.request(Method::POST, &format!("{other}/methods/voice/verification"), Some(SERVICE), None).await.expect(202);
    let call = world.sim().expect_call(PHONE).unwrap();
    world.goes_wrong(FaultRule::once(Fault::TimeOutWithoutAccepting).to(PHONE));
    informed(&mut world, &reference).await;
    world.pass_in_steps(s(100), s(1)).await;
    let adopted = world.store().alert_of_message(&call.sid.parse().unwrap()).await.unwrap();
    assert!(adopted.is_none(), "the case takes it for its own");
    assert!(world.sim().calls_to(PHONE).len() > 1, "the phone is called for the case");
    world.holds_its_promises().await;
}

/// A message does not come to where a call was answered.
#[tokio::test]
async fn a_code_that_was_said_in_a_call_proves_the_number_for_calls_alone_and_one_that_was_read_for_both() {
    for (proven_over, standings) in [("voice", ["verified", "unverified"]), ("sms", ["verified", "verified"])] {
        let world = with_desk().start().await;
        let path = added(&world, STUDENT, &person(&[("voice", PHONE), ("sms", PHONE)], None)).await;
        let verification = format!("{path}/methods/{proven_over}/verification");
        world.request(Method::POST, &verification, Some(SERVICE), None).await.expect(202);
        let code = match world.sim().expect_call(PHONE) {
            Ok(call) => {
                world.sim().pick_up(&call.sid, AnsweredBy::Human).await.unwrap();
                world.sim().press(&call.sid, '1').await.unwrap();
                let said = world.sim().calls_to(PHONE).remove(0).said.remove(1);
                said.split_once("is ").unwrap().1.split_once('.').unwrap().0.replace(", ", "")
            }
            Err(_) => code_on(&world, PHONE),
        };
        let confirm = format!("{verification}/confirm");
        let shown = world.post(&confirm, SERVICE, &json!({ "code": code })).await.expect(200).json();
        let stand = [&shown["methods"][0]["standing"], &shown["methods"][1]["standing"]];
        assert_eq!(stand, standings, "{proven_over}");
    }
}

// -- kept, proven, shown --------------------------------------------------------------------------------------------

#[tokio::test]
async fn they_are_kept_with_the_students_word_masked_sealed_and_audited() {
    let world = with_desk().start().await;
    let path = added(&world, STUDENT, &person(&[("sms", PHONE), ("whatsapp", PHONE)], Some(true))).await;
    assert!(id_of(&path).starts_with("e-"));
    let listed = world.get(&contacts_of(STUDENT), COUNSELLOR_KEY).await.expect(200);
    assert!(listed.text.contains(NAME) && listed.text.contains("…44") && !listed.text.contains(&PHONE[3..]));
    let pseudonymous = world.get(&contacts_of(STUDENT), AUDITOR).await.expect(200);
    assert!(!pseudonymous.text.contains(NAME) && !pseudonymous.text.contains('…'), "{pseudonymous:?}");
    assert_eq!(world.get(&contacts_of("student-2"), ADMIN).await.expect(200).json()["emergency_contacts"], json!([]));
    world.get(&path.replace(STUDENT, "student-2"), ADMIN).await.expect(404);

    verify(&world, &path, "sms", PHONE).await;
    let shown = world.get(&path, ADMIN).await.expect(200).json();
    assert_eq!(
        (&shown["methods"][0]["standing"], &shown["methods"][1]["standing"], &shown["consent"]["granted"]),
        (&json!("verified"), &json!("unverified"), &json!(true))
    );
    // The channels' word is another one, and each stays as it is while the other is changed.
    world.consents(STUDENT).await;
    assert_eq!(world.get(&path, ADMIN).await.expect(200).json(), shown);
    let moved = person(&[("sms", OTHER)], None);
    change(&world, Method::PUT, &path, "\"2\"", Some(&moved)).await.expect(409);
    let moved = change(&world, Method::PUT, &path, "\"1\"", Some(&moved)).await.expect(200).json();
    assert_eq!(
        (&moved["methods"][0]["standing"], &moved["reachable"], &moved["consent"]["granted"], &moved["version"]),
        (&json!("unverified"), &json!(false), &json!(true), &json!(2))
    );
    let stream = AuditStream::Consent(subject_of(&world).await);
    let entries = world.store().audit_entries(&stream, 0, 100).await.unwrap();
    let told: Vec<String> = entries
        .iter()
        .map(|entry| serde_json::from_str::<Value>(&entry.canonical).unwrap()["deed"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        told,
        [
            "emergency_contact_added",
            "method_set",
            "method_set",
            "emergency_consent_recorded",
            "code_sent",
            "code_accepted",
            "method_verified",
            "consent_recorded",
            "emergency_contact_changed",
            "method_removed",
            "method_removed",
            "method_set",
        ]
    );
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(409);
    change(&world, Method::DELETE, &path, "\"2\"", None).await.expect(204);
    world.get(&path, ADMIN).await.expect(404);
    for file in [world.database(), world.folder.path().join("relay.db-wal")] {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for never in [NAME, &PHONE[3..], &OTHER[3..], "Canary"] {
            let found = bytes.windows(never.len()).any(|window| window == never.as_bytes());
            assert!(!found, "{never} stands in {}", file.display());
        }
    }
    world.holds_its_promises().await;
}

/// A student as the audit names them: by the one chain of what they said.
async fn subject_of(world: &World) -> crisis_relay::domain::ids::SubjectKey {
    let chains = world.chains().await;
    let consents = chains.into_iter().filter_map(|chain| match chain {
        AuditStream::Consent(subject) => Some(subject),
        AuditStream::Alert(_) | AuditStream::Access(_) | AuditStream::Settings(_) => None,
    });
    let all: Vec<_> = consents.collect();
    assert_eq!(all.len(), 1, "one student has said something");
    all[0]
}

#[tokio::test]
async fn a_number_that_cannot_be_or_is_anothers_is_refused_with_its_field_and_three_are_enough() {
    let world = with_desk().start().await;
    for (channel, number, rule) in [
        ("sms", "+911123456789", "landline"),
        ("voice", "+9198112", "numbering plan"),
        ("sms", "0981122336", "E.164"),
        ("whatsapp", "+14155238886", "sent from"),
    ] {
        let refused = world.post(&contacts_of(STUDENT), SERVICE, &person(&[(channel, number)], None)).await.expect(422);
        assert_eq!(refused.text_at("/errors/0/field"), "methods[0].number", "{channel} {number}: {refused:?}");
        assert!(refused.text_at("/errors/0/rule").contains(rule), "{channel} {number}: {refused:?}");
    }
    let nameless = json!({ "language": "en", "methods": [] });
    let refused = world.post(&contacts_of(STUDENT), SERVICE, &nameless).await.expect(422);
    assert_eq!(refused.text_at("/errors/0/field"), "name");
    let odd = json!({ "name": NAME, "language": "en", "methods": [], "consent": { "granted": true } });
    world.post(&contacts_of(STUDENT), SERVICE, &odd).await.expect(422);
    for number in [PHONE, OTHER, THIRD] {
        added(&world, STUDENT, &person(&[("sms", number)], None)).await;
    }
    let fourth = person(&[("sms", "+919811223377")], None);
    let refused = world.post(&contacts_of(STUDENT), SERVICE, &fourth).await.expect(409);
    assert!(refused.text.contains("3 emergency contacts"), "{refused:?}");
    // One phone may be the contact of two students.
    added(&world, "student-2", &person(&[("sms", PHONE)], None)).await;
    world.post(&contacts_of(STUDENT), COUNSELLOR_KEY, &fourth).await.expect(403);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_code_may_be_tried_three_times_within_ten_minutes_and_asked_for_once_a_minute() {
    let world = with_desk().start().await;
    let path = added(&world, STUDENT, &person(&[("sms", PHONE)], None)).await;
    let verification = format!("{path}/methods/sms/verification");
    let send = || world.request(Method::POST, &verification, Some(SERVICE), None);
    let confirm_path = format!("{verification}/confirm");
    let confirm = |code: String| {
        let (world, path) = (&world, &confirm_path);
        async move { world.post(path, SERVICE, &json!({ "code": code })).await }
    };
    confirm("000000".to_owned()).await.expect(409);
    send().await.expect(202);
    assert_eq!(send().await.expect(429).headers["retry-after"], "60");
    let code = code_on(&world, PHONE);
    let wrong = format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000);
    for left in ["2 more times", "once more", "send another"] {
        let refused = confirm(wrong.clone()).await.expect(422);
        assert!(refused.text_at("/errors/0/rule").contains(left), "{refused:?}");
    }
    confirm(code).await.expect(409);
    world.clock.advance(s(60));
    send().await.expect(202);
    world.clock.advance(s(600));
    confirm(code_on(&world, PHONE)).await.expect(409);
    for _ in 0..3 {
        world.clock.advance(s(60));
        send().await.expect(202);
    }
    world.clock.advance(s(60));
    send().await.expect(429);
    let others = format!("{path}/methods/whatsapp/verification");
    world.request(Method::POST, &others, Some(SERVICE), None).await.expect(404);
    world.holds_its_promises().await;
}

// -- a crash --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_crash_between_the_decision_and_the_call_loses_nothing_and_sends_once() {
    let mut world = with_desk().start().await;
    proven(&world, STUDENT, &[("sms", PHONE)], None).await;
    let reference = world.told(STUDENT, 0.93).await;
    world.work().await;
    inform(&world, &reference, &json!({ "by": WHO, "reason": REASON })).await.expect(200);
    let mut world = world.crash().await;
    world.pass_in_steps(s(60), s(1)).await;
    assert_eq!(asked(&world, PHONE).len(), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn an_explained_policy_says_which_emergency_contacts_would_be_told_and_when() {
    let world = with_policy().start().await;
    let path = proven(&world, STUDENT, &[("sms", PHONE)], Some(true)).await;
    let not = added(&world, STUDENT, &person(&[("sms", OTHER)], Some(true))).await;
    world.consents(STUDENT).await;
    let explain = "/api/v1/escalation-policies/default/explain";
    let told =
        world.post(explain, ADMIN, &json!({ "user_id": STUDENT, "crisis_score": 0.93 })).await.expect(200).json();
    let outside = &told["emergency_contacts"];
    assert_eq!(outside["told"], json!([{ "contact": id_of(&path), "channels": ["sms"] }]), "{told}");
    assert_eq!(outside["not_told"], json!([id_of(&not)]));
    assert_eq!(outside["at"], "2026-11-20T08:45:00Z");
    let shown = world.get("/api/v1/escalation-policies/default", ADMIN).await.expect(200).json();
    assert_eq!(shown["emergency_contact_after_seconds"], 600);
}
