//! People whom a college sets up: who may see and change them, whose numbers are used, and how a number is proven.

use crisis_relay::domain::audit::AuditStream;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::ids::ContactId;
use crisis_relay::domain::message::text_sha256;
use crisis_relay::domain::reply::Command;
use crisis_relay::service::replies::Reply;
use crisis_relay::simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::{event, s};
use crate::common::{
    ADMIN, AUDITOR, Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, answer, contact_entry,
};

const CONTACTS: &str = "/api/v1/contacts";
const NAME: &str = "Asha Canary-Verma";
const PHONE: &str = "+919811223344";
const OTHER: &str = "+919811223355";
const LANDLINE: &str = "+911123456789";

fn person(number: &str) -> Value {
    json!({
        "name": NAME, "role": "lead", "language": "en", "time_zone": "Asia/Kolkata", "active": true,
        "methods": [{ "channel": "sms", "number": number }],
    })
}

/// Adds a person; gives their path.
async fn added(world: &World, body: &Value) -> String {
    let added = world.post(CONTACTS, ADMIN, body).await.expect(201);
    assert_eq!(added.headers["etag"], "\"1\"");
    format!("{CONTACTS}/{}", added.text_at("/id"))
}

async fn change(world: &World, method: Method, path: &str, version: &str, body: Option<&Value>) -> Answer {
    let request = world.client().request(method, world.base().join(path).unwrap()).bearer_auth(ADMIN);
    let request = request.header("If-Match", version);
    answer(body.into_iter().fold(request, |request, body| request.json(body))).await
}

async fn send_code(world: &World, path: &str, channel: &str) -> Answer {
    world.request(Method::POST, &format!("{path}/methods/{channel}/verification"), Some(ADMIN), None).await
}

async fn confirm(world: &World, path: &str, channel: &str, code: &str) -> Answer {
    let body = json!({ "code": code });
    world.post(&format!("{path}/methods/{channel}/verification/confirm"), ADMIN, &body).await
}

/// The code in the newest message on a phone.
fn code_on(world: &World, phone: &str) -> String {
    let messages = world.sim().messages_to(phone);
    let newest = &messages.last().expect("a message came").body;
    let code = newest.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6);
    code.unwrap_or_else(|| panic!("no code in {newest}")).to_owned()
}

/// A text message from the phone, as the edge hands it over.
fn over_sms(command: Command) -> Reply {
    Reply {
        message: "SM00000000000000000000000000000001".parse().unwrap(),
        channel: Channel::Sms,
        from: Some(PHONE.parse().unwrap()),
        in_reply_to: None,
        ticket: None,
        command,
        words: String::new().into(),
    }
}

/// Another code than this one.
fn not(code: &str) -> String {
    let number: u32 = code.parse().unwrap();
    format!("{:06}", (number + 1) % 1_000_000)
}

/// A person with one proven number.
async fn proven(world: &World, number: &str) -> String {
    let path = added(world, &person(number)).await;
    send_code(world, &path, "sms").await.expect(202);
    confirm(world, &path, "sms", &code_on(world, number)).await.expect(200);
    path
}

fn id_of(path: &str) -> ContactId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

/// Whether alerts may be sent to somebody over this channel, as the service knows it now.
fn reachable(world: &World, path: &str, channel: Channel) -> bool {
    let live = world.service().live(&"default".parse().unwrap()).unwrap();
    live.directory
        .contact(&id_of(path))
        .is_some_and(|known| known.methods.iter().any(|method| method.channel == channel))
}

async fn deeds(world: &World) -> Vec<String> {
    let stream = AuditStream::Settings("default".parse().unwrap());
    let entries = world.store().audit_entries(&stream, 0, 1000).await.unwrap();
    let deed = |text: &str| serde_json::from_str::<Value>(text).unwrap()["deed"].as_str().unwrap().to_owned();
    entries.iter().map(|entry| deed(&entry.canonical)).collect()
}

#[tokio::test]
async fn a_number_is_used_once_its_code_came_back_and_the_audit_tells_it_all() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    let shown = world.get(&path, COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!((&shown["methods"][0]["standing"], &shown["reachable"]), (&json!("unverified"), &json!(false)));
    assert!(!reachable(&world, &path, Channel::Sms), "nobody has proved it");

    let sent = send_code(&world, &path, "sms").await.expect(202);
    assert_eq!(sent.text_at("/sending"), "accepted");
    let code = code_on(&world, PHONE);
    let wrong = confirm(&world, &path, "sms", &not(&code)).await.expect(422);
    assert_eq!(wrong.text_at("/errors/0/field"), "code");
    assert!(wrong.text_at("/errors/0/rule").contains("2 more times") && !wrong.text.contains(&code), "{wrong:?}");
    let confirmed = confirm(&world, &path, "sms", &code).await.expect(200).json();
    assert_eq!((&confirmed["methods"][0]["standing"], &confirmed["reachable"]), (&json!("verified"), &json!(true)));
    assert!(reachable(&world, &path, Channel::Sms));
    assert_eq!(confirm(&world, &path, "sms", &code).await.expect(409).text_at("/code"), "conflict", "it counts once");

    let told = ["contact_added", "method_set", "code_sent", "code_accepted", "code_wrong", "method_verified"];
    assert_eq!(deeds(&world).await, told);
    let message = &world.sim().messages_to(PHONE)[0];
    let stream = AuditStream::Settings("default".parse().unwrap());
    let accepted = world.store().audit_entries(&stream, 3, 1).await.unwrap()[0].canonical.clone();
    let accepted: Value = serde_json::from_str(&accepted).unwrap();
    assert_eq!(accepted["provider_id"], message.sid.as_str());
    assert_eq!(
        accepted["text_sha256"],
        text_sha256(&message.body.replace(&code, "000000")),
        "what was said, but the code"
    );
    assert!(world.sim().messages_to(PHONE)[0].body.contains("10 minutes"));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn names_numbers_and_codes_are_nowhere_in_the_clear() {
    let world = World::new().await;
    let path = proven(&world, PHONE).await;
    let code = code_on(&world, PHONE);
    world.request(Method::POST, &format!("{path}/reveal"), Some(ADMIN), None).await.expect(200);
    for key in [ADMIN, COUNSELLOR_KEY] {
        let listed = world.get(CONTACTS, key).await.expect(200);
        assert!(listed.text.contains(NAME) && listed.text.contains("…44") && !listed.text.contains(&PHONE[3..]));
        assert!(!listed.text.contains(&COUNSELLOR[3..]), "nor a number of the configuration");
    }
    let pseudonymous = world.get(CONTACTS, AUDITOR).await.expect(200);
    assert!(!pseudonymous.text.contains(NAME) && !pseudonymous.text.contains('…'), "{pseudonymous:?}");
    let wal = world.folder.path().join("relay.db-wal");
    for file in [world.database(), wal] {
        let bytes = std::fs::read(&file).unwrap_or_default();
        for never in [NAME, &PHONE[3..], "Canary", &format!("\"{code}\""), &format!(":{code}")] {
            let found = bytes.windows(never.len()).any(|window| window == never.as_bytes());
            assert!(!found, "{never} stands in {}", file.display());
        }
    }
}

#[tokio::test]
async fn whole_numbers_are_shown_to_an_admin_only_and_the_look_is_recorded_first() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    let reveal = format!("{path}/reveal");
    for key in [COUNSELLOR_KEY, AUDITOR] {
        world.request(Method::POST, &reveal, Some(key), None).await.expect(403);
    }
    assert_eq!(deeds(&world).await.len(), 2);
    let shown = world.request(Method::POST, &reveal, Some(ADMIN), None).await.expect(200);
    assert_eq!(shown.text_at("/methods/0/number"), PHONE);
    assert_eq!(deeds(&world).await.last().unwrap(), "contact_revealed");
    assert_eq!(shown.headers["etag"], "\"1\"", "a look changes nothing of the person");
}

#[tokio::test]
async fn a_person_who_is_refused_leaves_nothing_behind() {
    let world = World::new().await;
    added(&world, &person(PHONE)).await;
    let keys = || -> i64 {
        let file = rusqlite::Connection::open(world.database()).unwrap();
        file.query_row("SELECT count(*) FROM data_keys", [], |row| row.get(0)).unwrap()
    };
    let before = (keys(), deeds(&world).await);
    for number in [PHONE, LANDLINE] {
        world.post(CONTACTS, ADMIN, &person(number)).await.expect(422);
    }
    assert_eq!((keys(), deeds(&world).await), before);
}

#[tokio::test]
async fn of_two_admins_who_change_the_same_version_one_is_told_to_read_again() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    let renamed = json!({ "name": "Another", "role": "lead", "language": "en", "time_zone": "UTC", "active": true, "methods": [{ "channel": "sms" }] });
    let first = change(&world, Method::PUT, &path, "\"1\"", Some(&renamed)).await.expect(200);
    assert_eq!(
        (first.headers["etag"].to_str().unwrap(), first.json()["methods"][0]["number"].as_str()),
        ("\"2\"", Some("…44"))
    );
    let second = change(&world, Method::PUT, &path, "\"1\"", Some(&person(PHONE))).await.expect(409);
    assert_eq!(second.text_at("/code"), "conflict");
    let without = world.request(Method::PUT, &path, Some(ADMIN), Some(&renamed)).await.expect(422);
    assert_eq!(without.text_at("/code"), "missing_field");
    for malformed in ["2", "W/\"2\"", "*", "\"2\", \"3\"", "\"-2\""] {
        change(&world, Method::PUT, &path, malformed, Some(&renamed)).await.expect(422);
    }
    let same = change(&world, Method::PUT, &path, "\"2\"", Some(&renamed)).await.expect(200);
    assert_eq!(same.headers["etag"], "\"2\"", "nothing was changed");
    assert_eq!(deeds(&world).await.iter().filter(|deed| *deed == "contact_changed").count(), 1);
}

#[tokio::test]
async fn a_number_that_cannot_be_or_is_anothers_is_refused_with_its_field() {
    let further = contact_entry("manager", "duty_manager", "sms_to", OTHER);
    let world = Setting::default().with_file(&further).start().await;
    let path = added(&world, &person(PHONE)).await;
    for (channel, number, rule) in [
        ("sms", LANDLINE, "landline"),
        ("whatsapp", LANDLINE, "landline"),
        ("voice", "+9198112", "numbering plan"),
        ("sms", "0981122336", "E.164"),
        ("sms", "whatsapp:+919811223366", "E.164"),
        ("sms", PHONE, "another person's"),
        ("sms", OTHER, "another person's"),
        ("whatsapp", COUNSELLOR, "another person's"),
        ("whatsapp", "+14155238886", "sent from"),
    ] {
        let mut body = person(number);
        body["methods"][0]["channel"] = json!(channel);
        let refused = world.post(CONTACTS, ADMIN, &body).await.expect(422);
        assert_eq!(refused.text_at("/errors/0/field"), "methods[0].number", "{channel} {number}: {refused:?}");
        assert!(refused.text_at("/errors/0/rule").contains(rule), "{channel} {number}: {refused:?}");
        assert!(!refused.text.contains(&number[3..]), "the number is repeated: {refused:?}");
    }
    let twice = json!([{ "channel": "sms", "number": OTHER }, { "channel": "sms", "number": "+919811223377" }]);
    let mut body = person(PHONE);
    body["methods"] = twice;
    world.post(CONTACTS, ADMIN, &body).await.expect(422);
    // A landline may be called, and one number may be one person's on two channels.
    let voice = json!({ "name": "x", "role": "lead", "language": "en", "time_zone": "UTC", "active": true, "methods": [{ "channel": "voice", "number": LANDLINE }] });
    added(&world, &voice).await;
    let mut both = person(PHONE);
    both["methods"] = json!([{ "channel": "sms" }, { "channel": "whatsapp", "number": PHONE }]);
    change(&world, Method::PUT, &path, "\"1\"", Some(&both)).await.expect(200);
}

#[tokio::test]
async fn another_number_is_unproven_and_who_was_proven_is_kept_when_they_go() {
    let world = World::new().await;
    let path = proven(&world, PHONE).await;
    change(&world, Method::PUT, &path, "\"1\"", Some(&person(PHONE))).await.expect(200);
    assert!(reachable(&world, &path, Channel::Sms), "the same number stays proven");
    let moved = change(&world, Method::PUT, &path, "\"1\"", Some(&person(OTHER))).await.expect(200);
    assert_eq!(moved.text_at("/methods/0/standing"), "unverified");
    assert!(!reachable(&world, &path, Channel::Sms));

    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(409);
    let kept = change(&world, Method::DELETE, &path, "\"2\"", None).await.expect(200).json();
    assert_eq!((&kept["active"], &kept["methods"], &kept["name"]), (&json!(false), &json!([]), &json!(NAME)));
    let never_proven = added(&world, &person(OTHER)).await;
    change(&world, Method::DELETE, &never_proven, "\"1\"", None).await.expect(204);
    world.get(&never_proven, ADMIN).await.expect(404);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_code_may_be_tried_three_times_within_ten_minutes_and_asked_for_once_a_minute() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    send_code(&world, &path, "sms").await.expect(202);
    let again = send_code(&world, &path, "sms").await.expect(429);
    assert_eq!(again.headers["retry-after"], "60");
    assert_eq!(world.sim().messages_to(PHONE).len(), 1);
    let code = code_on(&world, PHONE);
    for left in ["2 more times", "once more", "send another"] {
        let wrong = confirm(&world, &path, "sms", &not(&code)).await.expect(422);
        assert!(wrong.text_at("/errors/0/rule").contains(left), "{wrong:?}");
    }
    confirm(&world, &path, "sms", &code).await.expect(409);

    world.clock.advance(s(60));
    send_code(&world, &path, "sms").await.expect(202);
    world.clock.advance(s(600));
    confirm(&world, &path, "sms", &code_on(&world, PHONE)).await.expect(409);
    for malformed in ["12345", "1234567", "12345x", "١٢٣٤٥٦"] {
        confirm(&world, &path, "sms", malformed).await.expect(422);
    }
    for (path, status) in [(format!("{CONTACTS}/c-nobody"), 404), (path.clone(), 404)] {
        send_code(&world, &path, "whatsapp").await.expect(status);
    }
    send_code(&world, &path, "pigeon").await.expect(422);
}

#[tokio::test]
async fn a_phone_with_two_channels_gets_no_more_codes_than_one() {
    let world = World::new().await;
    let mut both = person(PHONE);
    both["methods"] = json!([{ "channel": "sms", "number": PHONE }, { "channel": "whatsapp", "number": PHONE }]);
    let path = added(&world, &both).await;
    send_code(&world, &path, "sms").await.expect(202);
    assert_eq!(send_code(&world, &path, "whatsapp").await.expect(429).headers["retry-after"], "60");
    for channel in ["whatsapp", "sms", "whatsapp", "sms"] {
        world.clock.advance(s(60));
        send_code(&world, &path, channel).await.expect(202);
    }
    world.clock.advance(s(60));
    send_code(&world, &path, "whatsapp").await.expect(429);
    assert_eq!(world.sim().messages_to(PHONE).len(), 5, "five an hour");
}

#[tokio::test]
async fn a_code_that_twilio_refuses_counts_no_more_and_a_recipient_who_opted_out_is_known() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::Refused { code: 21610, http_status: 400 }));
    let refused = send_code(&world, &path, "sms").await.expect(409);
    assert!(refused.text_at("/detail").contains("21610"), "{refused:?}");
    assert_eq!(world.get(&path, ADMIN).await.expect(200).text_at("/methods/0/standing"), "opted_out");
    assert_eq!(deeds(&world).await[2..], ["code_sent", "code_not_sent", "method_opted_out"]);

    // Whoever said STOP is asked for nothing before they said START from that phone.
    world.clock.advance(s(60));
    assert_eq!(send_code(&world, &path, "sms").await.expect(409).text_at("/code"), "opted_out");
    world.service().record_reply(&over_sms(Command::OptIn)).await.unwrap();
    assert_eq!(world.get(&path, ADMIN).await.expect(200).text_at("/methods/0/standing"), "unverified");
    send_code(&world, &path, "sms").await.expect(202);
    confirm(&world, &path, "sms", &code_on(&world, PHONE)).await.expect(200);
    assert!(reachable(&world, &path, Channel::Sms));
}

#[tokio::test]
async fn a_code_whose_sending_is_in_doubt_counts_if_it_came() {
    let world = World::new().await;
    let path = added(&world, &person(PHONE)).await;
    world.goes_wrong(FaultRule::once(Fault::DropAfterAccepting));
    assert_eq!(send_code(&world, &path, "sms").await.expect(202).text_at("/sending"), "unknown");
    assert_eq!(deeds(&world).await[2..], ["code_sent", "code_unknown"]);
    confirm(&world, &path, "sms", &code_on(&world, PHONE)).await.expect(200);
}

#[tokio::test]
async fn a_phone_that_says_stop_is_told_nothing_until_it_says_start() {
    let world = World::new().await;
    let path = proven(&world, PHONE).await;
    world.sim().reply(PHONE, "STOP").await.unwrap();
    assert!(!reachable(&world, &path, Channel::Sms));
    assert_eq!(world.get(&path, ADMIN).await.expect(200).text_at("/methods/0/standing"), "opted_out");
    assert!((world.alarms("contact_opted_out").await - 1.0).abs() < f64::EPSILON);
    world.sim().reply(PHONE, "start").await.unwrap();
    assert!(reachable(&world, &path, Channel::Sms), "it is the phone that was proven");
    assert_eq!(deeds(&world).await[5..], ["method_opted_out", "method_opted_in"]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_ladder_whose_last_responder_cannot_be_told_any_more_is_told_to_the_operator_until_they_can_be() {
    let mut world = Setting::default().with("CRISIS_RELAY__OPS__SETTLE_FOR", "20s").start().await;
    let path = proven(&world, PHONE).await;
    let step = json!({ "after_seconds": 0, "targets": [{ "contact": "counsellor" }], "channels": ["whatsapp"] });
    let policy = json!({ "id": "night", "steps": [step], "bands": ["elevated", "high", "critical"], "rounds": 2,
        "last_responder": { "contact": id_of(&path) }, "last_responder_channels": ["sms"] });
    world.post("/api/v1/escalation-policies", ADMIN, &policy).await.expect(201);
    let open = "crisis_relay_alarms_open{kind=\"ladder_unreachable\"}";
    world.pass(s(60)).await;
    assert_eq!((world.alarms("ladder_unreachable").await, world.counted(open).await), (0.0, 0.0));

    world.sim().reply(PHONE, "STOP").await.unwrap();
    for _ in 0..3 {
        world.pass(s(60)).await;
        world.tell_operator().await;
    }
    assert_eq!((world.alarms("ladder_unreachable").await, world.counted(open).await), (1.0, 1.0), "once");
    world.sim().reply(PHONE, "START").await.unwrap();
    for _ in 0..2 {
        world.pass(s(60)).await;
        world.tell_operator().await;
    }
    assert_eq!((world.alarms("ladder_unreachable").await, world.counted(open).await), (1.0, 0.0));
}

#[tokio::test]
async fn a_phone_that_said_stop_is_sent_no_code_whoever_gets_its_number() {
    let world = World::new().await;
    let path = proven(&world, PHONE).await;
    world.sim().reply(PHONE, "STOP").await.unwrap();
    let told = world.sim().messages_to(PHONE).len();
    world.clock.advance(s(60));

    // Taken out, and put in again.
    let version = |answer: &Answer| answer.headers["etag"].to_str().unwrap().to_owned();
    let mut without = person(PHONE);
    without["methods"] = json!([]);
    let now = version(&world.get(&path, ADMIN).await.expect(200));
    let taken_out = change(&world, Method::PUT, &path, &now, Some(&without)).await.expect(200);
    let again = change(&world, Method::PUT, &path, &version(&taken_out), Some(&person(PHONE))).await.expect(200);
    assert_eq!(again.text_at("/methods/0/standing"), "opted_out");
    assert_eq!(send_code(&world, &path, "sms").await.expect(409).text_at("/code"), "opted_out");

    // Given to somebody else.
    change(&world, Method::DELETE, &path, &version(&again), None).await.expect(200);
    let other = added(&world, &person(PHONE)).await;
    assert_eq!(send_code(&world, &other, "sms").await.expect(409).text_at("/code"), "opted_out");
    change(&world, Method::DELETE, &other, "\"1\"", None).await.expect(204);
    assert_eq!(world.sim().messages_to(PHONE).len(), told, "the phone was written to");

    // START counts also while nobody has the number.
    world.sim().reply(PHONE, "START").await.unwrap();
    assert_eq!(deeds(&world).await.last().unwrap(), "method_opted_in");
    let third = added(&world, &person(PHONE)).await;
    assert_eq!(world.get(&third, ADMIN).await.expect(200).text_at("/methods/0/standing"), "unverified");
    send_code(&world, &third, "sms").await.expect(202);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn another_instance_knows_a_change_within_seconds() {
    let gate = Gate::shared();
    let world = Setting::default().with_gate(&gate).start().await;
    let mut other = world.further_instance().await;
    let path = proven(&world, PHONE).await;
    let knows = |instance: &crate::common::stage::Instance| {
        let live = instance.service.live(&"default".parse().unwrap()).unwrap();
        live.directory.contact(&id_of(&path)).is_some()
    };
    other.work().await;
    assert!(!knows(&other), "it was read a moment ago");
    world.clock.advance(s(5));
    gate.strike_named("roster", Fate::Fail(StoreFault::Unavailable));
    other.work().await;
    assert!(!knows(&other), "it could not be read, and nothing stands still");
    gate.open();
    other.work().await;
    assert!(knows(&other));
}

#[tokio::test]
async fn an_opt_out_is_booked_by_an_instance_that_does_not_know_the_person_yet() {
    let gate = Gate::shared();
    let world = Setting::default().with_gate(&gate).start().await;
    let other = world.further_instance().await;
    let path = proven(&world, PHONE).await;
    let live = other.service.live(&"default".parse().unwrap()).unwrap();
    assert!(live.roster.contact(&id_of(&path)).is_none(), "it is as old as it may be");
    other.service.record_reply(&over_sms(Command::OptOut)).await.unwrap();
    assert_eq!(world.get(&path, ADMIN).await.expect(200).text_at("/methods/0/standing"), "opted_out");
    let told = other.service.metrics().encode();
    assert!(
        told.contains("crisis_relay_alarms_total{kind=\"contact_opted_out\"} 1"),
        "the operator hears of it: {told}"
    );
}

#[tokio::test]
async fn two_instances_that_change_the_roster_at_once_lose_nothing() {
    let gate = Gate::shared();
    let world = Setting::default().with_gate(&gate).start().await;
    let numbers = ["+919811220001", "+919811220002", "+919811220003", "+919811220004", "+919811220005"];
    let bodies: Vec<Value> = numbers.iter().map(|number| person(number)).collect();
    let all = futures::future::join_all(bodies.iter().map(|body| world.post(CONTACTS, ADMIN, body))).await;
    assert!(all.iter().all(|answer| answer.status == 201), "{all:?}");
    let rivals = [person(PHONE), person(PHONE)];
    let both = futures::future::join_all(rivals.iter().map(|body| world.post(CONTACTS, ADMIN, body))).await;
    let mut statuses: Vec<u16> = both.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 422], "one number is one person's");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_change_whose_outcome_nobody_knows_is_made_once() {
    for fate in [Fate::PassAndFail(StoreFault::Unknown), Fate::Fail(StoreFault::Unknown)] {
        let gate = Gate::shared();
        let world = Setting::default().with_gate(&gate).start().await;
        gate.strike_first("commit_roster", fate.clone());
        added(&world, &person(PHONE)).await;
        let commits = if matches!(fate, Fate::Fail(_)) { 2 } else { 1 };
        assert_eq!(gate.count("commit_roster"), commits, "{fate:?}: what is there is not made again");
        let listed = world.get(CONTACTS, ADMIN).await.expect(200).json();
        assert_eq!(listed["contacts"].as_array().unwrap().len(), 2, "the counsellor, and one more");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_change_that_took_effect_unseen_counts_as_soon_as_the_store_can_be_read() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    let path = proven(&world, PHONE).await;
    agreed(&world, "student-1").await;
    // The change is on disk; that it is cannot be read just then.
    let mut committed = false;
    gate.set(move |call| match call.name {
        "commit_roster" if !committed => {
            committed = true;
            Fate::PassAndFail(StoreFault::Unknown)
        }
        "roster" if committed => Fate::Fail(StoreFault::Unavailable),
        _ => Fate::Pass,
    });
    world.post("/api/v1/escalation-policies", ADMIN, &desk(&path)).await.expect(503);
    world.pass(s(10)).await;
    gate.open();
    world.pass(s(10)).await;
    assert_eq!(gate.count("roster"), 1, "once, and not at every step");
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.pass(s(1)).await;
    assert_eq!(alerts_on(&world, PHONE, &reference), 1, "the policy that was saved is not in force");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_roster_without_its_chain_or_a_chain_without_its_roster_is_found_out() {
    for tampering in ["DELETE FROM audit WHERE stream LIKE 'settings/%'", "DELETE FROM rosters"] {
        let world = World::new().await;
        added(&world, &person(PHONE)).await;
        rusqlite::Connection::open(world.database()).unwrap().execute(tampering, []).unwrap();
        let organisations = ["default".parse().unwrap()];
        let store = world.store();
        let found = crisis_relay::service::verification::verify_all(store.as_ref(), &organisations).await.unwrap();
        let streams: Vec<String> = found.faults.iter().map(|(stream, _)| stream.to_string()).collect();
        assert_eq!(streams, ["settings/default"], "{tampering}");
    }
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing_and_no_code_is_sent() {
    let gate = Gate::new();
    let world = Setting::default().with_gate(&gate).start().await;
    let path = added(&world, &person(PHONE)).await;
    gate.strike_named("commit_roster", Fate::Fail(StoreFault::Unavailable));
    send_code(&world, &path, "sms").await.expect(503);
    assert_eq!(world.calls(), 0, "what is not durable is not sent");
    gate.open();
    send_code(&world, &path, "sms").await.expect(202);
}

#[tokio::test]
async fn a_case_follows_its_counsellor_to_another_number() {
    let mut world = World::new().await;
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(20) }));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    assert!(world.sim().messages_to(COUNSELLOR).is_empty(), "it waits for its second attempt");
    world.reconfigure("COUNSELLOR_WHATSAPP_TO", OTHER);
    let mut world = world.try_restart().await.unwrap();
    world.pass(s(30)).await;
    assert!(world.sim().messages_to(COUNSELLOR).is_empty(), "nothing goes to a number that is not theirs any more");
    world.sim().expect_message(OTHER, |message| message.body.contains(&reference)).unwrap();
    let stream = AuditStream::Alert(world.stored(&reference).await.id);
    let entries = world.store().audit_entries(&stream, 0, 100).await.unwrap();
    assert!(entries.iter().any(|entry| entry.canonical.contains("\"reason\":\"number_gone\"")));
    world.holds_its_promises().await;
}

// -- cases under way --------------------------------------------------------------------------------------------------

/// A ladder of one rung: this person by text message, and the counsellor at last.
fn desk(path: &str) -> Value {
    let id = path.rsplit('/').next().unwrap();
    let step = json!({ "after_seconds": 0, "targets": [{ "contact": id }], "channels": ["sms"] });
    json!({
        "id": "desk", "steps": [step], "bands": ["elevated", "high", "critical"],
        "last_responder": { "contact": "counsellor" }, "last_responder_channels": ["whatsapp"],
    })
}

/// The student has agreed to both channels.
async fn agreed(world: &World, student: &str) {
    let said = json!({ "whatsapp": true, "sms": true, "source": "story" });
    let preferences = format!("/api/v1/messaging/preferences/{student}");
    world.request(Method::PUT, &preferences, Some(SERVICE), Some(&said)).await.expect(200);
}

/// That ladder, and a student who has agreed.
async fn told_by(world: &World, path: &str, student: &str) {
    world.post("/api/v1/escalation-policies", ADMIN, &desk(path)).await.expect(201);
    agreed(world, student).await;
}

/// No ladder names them any more; a case keeps the one that it runs on.
async fn let_go(world: &World) {
    change(world, Method::DELETE, "/api/v1/escalation-policies/desk", "\"1\"", None).await.expect(204);
}

/// A case whose one message waits for its second attempt, due in 20 s. Gives the case, and the person who is told.
async fn waiting(world: &mut World) -> (String, String) {
    let path = proven(world, PHONE).await;
    told_by(world, &path, "student-1").await;
    world.goes_wrong(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(20) }));
    let opened = world.event(&event("student-1", 0.93)).await.expect(202);
    let reference = opened.text_at("/reference");
    world.work().await;
    assert_eq!(alerts_on(world, PHONE, &reference), 0, "it waits");
    (reference, path)
}

fn alerts_on(world: &World, phone: &str, reference: &str) -> usize {
    world.sim().messages_to(phone).iter().filter(|message| message.body.contains(reference)).count()
}

async fn cancelled_as_gone(world: &World, reference: &str) -> bool {
    let stream = AuditStream::Alert(world.stored(reference).await.id);
    let entries = world.store().audit_entries(&stream, 0, 200).await.unwrap();
    entries.iter().any(|entry| entry.canonical.contains("\"reason\":\"number_gone\""))
}

#[tokio::test]
async fn a_person_of_the_roster_is_told_and_takes_the_case_from_their_phone() {
    let mut world = World::new().await;
    let path = proven(&world, PHONE).await;
    told_by(&world, &path, "student-1").await;
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.pass(s(1)).await;
    assert_eq!(alerts_on(&world, PHONE, &reference), 1);
    let told = world.sim().messages_to(PHONE).last().unwrap().body.clone();
    assert!(!told.contains("Asha"), "no name is in a message: {told}");
    world.sim().reply(PHONE, &format!("1 {reference}")).await.unwrap();
    let alert = world.alert(&reference).await;
    assert_eq!((&alert["state"], &alert["detail"]["by"]["kind"]), (&json!("acknowledged"), &json!("contact")));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_message_that_waits_goes_to_the_new_number_only_once_that_is_proven_and_else_to_somebody_else() {
    for is_proven in [true, false] {
        let mut world = World::new().await;
        let (reference, path) = waiting(&mut world).await;
        change(&world, Method::PUT, &path, "\"1\"", Some(&person(OTHER))).await.expect(200);
        if is_proven {
            world.clock.advance(s(1));
            send_code(&world, &path, "sms").await.expect(202);
            confirm(&world, &path, "sms", &code_on(&world, OTHER)).await.expect(200);
        }
        world.pass_in_steps(s(40), s(1)).await;
        assert_eq!(alerts_on(&world, PHONE, &reference), 0, "the old number hears nothing");
        let expected = if is_proven { (1, 0) } else { (0, 1) };
        assert_eq!((alerts_on(&world, OTHER, &reference), alerts_on(&world, COUNSELLOR, &reference)), expected);
        assert!(cancelled_as_gone(&world, &reference).await);
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn who_opts_out_leaves_or_is_set_aside_while_a_message_waits_is_not_told_and_somebody_else_is() {
    for how in ["opts out", "leaves", "is set aside"] {
        let mut world = World::new().await;
        let (reference, path) = waiting(&mut world).await;
        let needed = change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(409);
        assert!(needed.text_at("/detail").contains("policy"), "{needed:?}");
        let_go(&world).await;
        match how {
            "opts out" => drop(world.sim().reply(PHONE, "STOP").await.unwrap()),
            "leaves" => drop(change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(200)),
            _ => {
                let mut aside = person(PHONE);
                aside["active"] = json!(false);
                change(&world, Method::PUT, &path, "\"1\"", Some(&aside)).await.expect(200);
            }
        }
        world.pass_in_steps(s(40), s(1)).await;
        assert_eq!(alerts_on(&world, PHONE, &reference), 0, "{how}");
        assert_eq!(alerts_on(&world, COUNSELLOR, &reference), 1, "{how}: somebody must hear of it");
        assert!(cancelled_as_gone(&world, &reference).await, "{how}");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn a_number_that_is_taken_away_between_claim_and_call_is_not_called() {
    let mut world = World::new().await;
    let path = proven(&world, PHONE).await;
    told_by(&world, &path, "student-1").await;
    // The event's commit claims the message; the worker has not begun yet.
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    let_go(&world).await;
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(200);
    world.pass_in_steps(s(5), s(1)).await;
    assert_eq!(alerts_on(&world, PHONE, &reference), 0);
    assert_eq!(alerts_on(&world, COUNSELLOR, &reference), 1);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_refusal_because_of_stop_opts_the_number_out_and_the_case_goes_on() {
    let mut world = World::new().await;
    let path = proven(&world, PHONE).await;
    told_by(&world, &path, "student-1").await;
    world.goes_wrong(FaultRule::always(Fault::Refused { code: 21610, http_status: 400 }).to(PHONE));
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.work().await;
    assert_eq!(world.get(&path, ADMIN).await.expect(200).text_at("/methods/0/standing"), "opted_out");
    assert!(!reachable(&world, &path, Channel::Sms));
    world.pass_in_steps(s(60), s(5)).await;
    assert!(alerts_on(&world, COUNSELLOR, &reference) >= 1, "the ladder goes on without them");
    assert_eq!(
        world.sim().requests().iter().filter(|request| request.get("To") == Some(PHONE)).count(),
        2,
        "the code, and one message"
    );
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_person_of_the_roster_is_answered_as_one_of_the_configuration_and_a_stranger_is_not() {
    let world = World::new().await;
    let path = proven(&world, PHONE).await;
    let said = world.sim().reply(PHONE, "1").await.unwrap();
    assert_eq!(said.answers, ["No case waits for you. Nothing is needed from you."]);
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(200);
    let said = world.sim().reply(PHONE, "1").await.unwrap();
    assert_eq!(said.answers, Vec::<String>::new(), "they are nobody here any more");
}

/// Two people of the roster are on the ladder, one after the other; the first has left their number to the second.
#[tokio::test]
async fn who_has_the_number_now_takes_the_case_and_is_not_told_to_stand_down() {
    let mut world = World::new().await;
    let first = proven(&world, PHONE).await;
    world.pass(s(5)).await;
    let second = proven(&world, OTHER).await;
    told_by(&world, &first, "student-1").await;
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.work().await;
    assert_eq!(alerts_on(&world, PHONE, &reference), 1);
    // They swap their phones, by way of a third number.
    change(&world, Method::PUT, &first, "\"1\"", Some(&person("+919811223366"))).await.expect(200);
    change(&world, Method::PUT, &second, "\"1\"", Some(&person(PHONE))).await.expect(200);
    world.pass(s(120)).await;
    send_code(&world, &second, "sms").await.expect(202);
    confirm(&world, &second, "sms", &code_on(&world, PHONE)).await.expect(200);
    let said = world.sim().reply(PHONE, &format!("1 {reference}")).await.unwrap();
    assert!(said.answers.concat().contains("is yours"), "{said:?}");
    world.work().await;
    world.pass_in_steps(s(60), s(10)).await;
    let detail = &world.alert(&reference).await["detail"];
    assert_eq!(detail["by"]["id"], json!(id_of(&second).to_string()), "{detail}");
    let stood_down = world.sim().messages_to(PHONE).iter().any(|message| message.body.contains("in the hands of"));
    assert!(!stood_down, "who has it is not told that somebody else has");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_number_that_was_taken_away_takes_no_case_and_the_case_goes_on() {
    let mut world = World::new().await;
    let path = proven(&world, PHONE).await;
    told_by(&world, &path, "student-1").await;
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.work().await;
    let_go(&world).await;
    change(&world, Method::DELETE, &path, "\"1\"", None).await.expect(200);
    for text in [format!("1 {reference}"), "1".to_owned(), format!("done safe {reference}")] {
        let said = world.sim().reply(PHONE, &text).await.unwrap().answers.concat();
        assert!(said.contains("is not set up any more"), "{text}: {said}");
    }
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    // Their words do no harm.
    let said = world.sim().reply(PHONE, "I lost this phone").await.unwrap().answers.concat();
    assert!(said.contains("noted for the team"), "{said}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_number_that_is_changed_takes_no_word_of_the_students_back() {
    let mut world = World::new().await;
    let path = proven(&world, PHONE).await;
    told_by(&world, &path, "student-1").await;
    let said = json!({ "whatsapp": false, "sms": true, "source": "story" });
    let preferences = "/api/v1/messaging/preferences/student-1";
    world.request(Method::PUT, preferences, Some(SERVICE), Some(&said)).await.expect(200);
    let reference = world.event(&event("student-1", 0.93)).await.expect(202).text_at("/reference");
    world.work().await;
    assert_eq!(alerts_on(&world, PHONE, &reference), 1);
    change(&world, Method::PUT, &path, "\"1\"", Some(&person(OTHER))).await.expect(200);
    world.pass_in_steps(s(2 * 3600), s(60)).await;
    let alert = world.alert(&reference).await;
    assert_eq!(alert["state"], "escalating", "the student has taken nothing back: {alert}");
    world.event(&event("student-1", 0.95)).await.expect(202);
    world.work().await;
    let alert = world.alert(&reference).await;
    assert_eq!(alert["state"], "escalating", "nor has a further event: {alert}");
    send_code(&world, &path, "sms").await.expect(202);
    confirm(&world, &path, "sms", &code_on(&world, OTHER)).await.expect(200);
    world.pass_in_steps(s(3600), s(60)).await;
    assert!(alerts_on(&world, OTHER, &reference) > 0, "the case has followed them");
    let stream = AuditStream::Alert(world.stored(&reference).await.id);
    let entries = world.store().audit_entries(&stream, 0, 1000).await.unwrap();
    assert!(!entries.iter().any(|entry| entry.canonical.contains("consent_withdrawn")));
    world.holds_its_promises().await;
}

const SID: &str = "0123456789abcdef0123456789abcdef";

/// Messages would reach real phones: nothing is sent in such a story.
fn with_credentials() -> Setting {
    Setting::default()
        .with("TWILIO_ACCOUNT_SID", &format!("AC{SID}"))
        .with("TWILIO_AUTH_TOKEN", SID)
        .with("TWILIO_WHATSAPP_FROM", "+4915112345678")
        .with("TWILIO_WEBHOOK_BASE_URL", "https://relay.example.org")
        .with("CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND", "80")
}

#[tokio::test]
async fn whoever_is_set_up_without_a_text_or_a_template_in_their_language_is_warned_of_at_once() {
    let world = with_credentials().with("TWILIO_CONTENT_SID_EN", &format!("HX{SID}")).start().await;
    for (language, channel, number, warned) in [
        ("en", "whatsapp", "+919811223301", &[] as &[&str]),
        ("hi", "sms", "+919811223302", &[]),
        ("hi", "whatsapp", "+919811223303", &["template"]),
        // They are told in English, of which there is one.
        ("fr", "whatsapp", "+919811223304", &["English"]),
    ] {
        let mut body = person(number);
        (body["language"], body["methods"][0]["channel"]) = (json!(language), json!(channel));
        let answer = world.post(CONTACTS, ADMIN, &body).await.expect(201);
        let path = format!("{CONTACTS}/{}", answer.text_at("/id"));
        let changed = change(&world, Method::PUT, &path, "\"1\"", Some(&body)).await.expect(200);
        for shown in [answer.json(), changed.json()] {
            let warnings = shown["warnings"].as_array().unwrap();
            assert_eq!(warnings.len(), warned.len(), "{language} over {channel}: {warnings:?}");
            for (warning, word) in warnings.iter().zip(warned) {
                assert_eq!(warning["field"], "language");
                assert!(warning["rule"].as_str().unwrap().contains(word), "{language}: {warning}");
            }
        }
    }
}

#[tokio::test]
async fn the_look_ahead_names_who_is_told_over_whatsapp_without_an_approved_template() {
    let notices = ["taken_notice", "outcome_reminder", "follow_up_reminder"];
    let real = || {
        let all = with_credentials().with("COUNSELLOR_LANGUAGE", "fr");
        let named = notices.iter().map(|notice| format!("TWILIO_CONTENT_SID_EN_{}", notice.to_ascii_uppercase()));
        named.fold(all, |setting, name| setting.with(&name, &format!("HX{SID}")))
    };
    let world = real().start().await;
    let ahead = world.get("/api/v1/readiness", ADMIN).await.expect(200).json();
    let missing = json!({ "kind": "template_missing", "contact": "counsellor", "channel": "whatsapp",
        "purpose": "counsellor_alert", "language": "en" });
    assert_eq!(ahead["obstacles"], json!([missing]), "they are told in English");
    let world = real().with("TWILIO_CONTENT_SID_EN", &format!("HX{SID}")).start().await;
    assert_eq!(world.get("/api/v1/readiness", ADMIN).await.expect(200).json()["obstacles"], json!([]));
}
