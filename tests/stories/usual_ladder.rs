//! Without rungs of its own a college climbs the usual ladder: who is told, over what, and at which second.

use std::time::Duration;

use crisis_relay::app;
use crisis_relay::config::{Config, ConfigFile, Sources};
use crisis_relay::domain::roster::Roster;
use crisis_relay::simulator::{Fault, FaultRule};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::stage::s;
use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, START, Setting, World, contact_entry};

/// Further phones of the counsellor.
const TEXTS: &str = "+919800000027";
const CALLS: &str = "+919800000067";
const SECOND: &str = "+919800000037";
const THIRD: &str = "+919800000077";
const LEAD: &str = "+919800000047";
const MANAGER: &str = "+919800000057";

const SECOND_ENTRY: (&str, &str, &str) = ("second", "counsellor", SECOND);
const THIRD_ENTRY: (&str, &str, &str) = ("third", "counsellor", THIRD);
const LEAD_ENTRY: (&str, &str, &str) = ("lead", "lead", LEAD);
const MANAGER_ENTRY: (&str, &str, &str) = ("manager", "duty_manager", MANAGER);

/// A counsellor with three phones, and these people, who have WhatsApp.
fn college(people: &[(&str, &str, &str)]) -> Setting {
    let entries: String =
        people.iter().map(|(id, role, number)| contact_entry(id, role, "whatsapp_to", number)).collect();
    Setting::default().with("COUNSELLOR_SMS_TO", TEXTS).with("COUNSELLOR_VOICE_TO", CALLS).with_file(&entries)
}

async fn case(world: &mut World) -> String {
    let event = json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat", "emergency_override":
        { "by": "Dr Rao", "reason": "life is at risk" } });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.work().await;
    reference
}

/// What went out, in the words of whoever gets it: when, in seconds since `begun`, to whom, and over what.
fn told(world: &World, begun: jiff::Timestamp) -> Vec<String> {
    let phones = [
        ("counsellor", COUNSELLOR, "whatsapp"),
        ("counsellor", TEXTS, "sms"),
        ("second", SECOND, "whatsapp"),
        ("third", THIRD, "whatsapp"),
        ("lead", LEAD, "whatsapp"),
        ("manager", MANAGER, "whatsapp"),
    ];
    let messages = phones.into_iter().flat_map(|(id, phone, channel)| {
        let theirs = world.sim().messages_to(phone).into_iter();
        theirs.map(move |message| (message.created_at, format!("{id} {channel}")))
    });
    let calls = world.sim().calls_to(CALLS).into_iter().map(|call| (call.created_at, "counsellor voice".to_owned()));
    let mut all: Vec<_> = messages.chain(calls).collect();
    all.retain(|(at, _)| *at >= begun);
    all.sort();
    all.into_iter().map(|(at, what)| format!("{} {what}", at.duration_since(begun).as_secs())).collect()
}

async fn climbed(setting: Setting, seconds: u64) -> (World, Vec<String>) {
    let mut world = setting.start().await;
    let begun = world.now();
    case(&mut world).await;
    world.pass_in_steps(Duration::from_secs(seconds), s(10)).await;
    let told = told(&world, begun);
    (world, told)
}

#[tokio::test]
async fn with_all_five_places_taken_each_is_told_at_the_second_that_was_promised() {
    let people = [SECOND_ENTRY, THIRD_ENTRY, LEAD_ENTRY, MANAGER_ENTRY];
    let (world, told) = climbed(college(&people), 1_500).await;
    let promised = [
        "0 counsellor whatsapp",
        "30 counsellor sms",
        "90 counsellor voice",
        "180 second whatsapp",
        "360 counsellor whatsapp",
        "360 lead whatsapp",
        "360 second whatsapp",
        "360 third whatsapp",
        "390 counsellor sms",
        "420 counsellor voice",
        "600 manager whatsapp",
        // From here on the last responder, and with each turn one of the rungs again.
        "900 counsellor whatsapp",
        "900 manager whatsapp",
        "930 counsellor sms",
        "1200 counsellor voice",
        "1200 manager whatsapp",
        "1500 manager whatsapp",
        "1500 second whatsapp",
    ];
    assert_eq!(told, promised);
    let exhausted = world.metric("crisis_relay_alarms_total{kind=\"ladder_exhausted\"}").await.unwrap();
    assert!(exhausted >= 1.0, "the operator hears of it");
    world.assert_audit_verifies().await;
}

#[tokio::test]
async fn the_operator_hears_that_everybody_was_told_in_vain_when_the_last_responder_is_told() {
    let mut world = college(&[SECOND_ENTRY, MANAGER_ENTRY]).start().await;
    case(&mut world).await;
    world.pass_in_steps(s(590), s(10)).await;
    let exhausted = "crisis_relay_alarms_total{kind=\"ladder_exhausted\"}";
    assert_eq!(world.metric(exhausted).await.unwrap_or_default(), 0.0);
    world.pass(s(10)).await;
    assert_eq!(world.metric(exhausted).await, Some(1.0));
}

#[tokio::test]
async fn a_place_that_nobody_has_moves_no_other_one() {
    let first_of = |told: &[String], who: &str| {
        let theirs = told.iter().find(|told| told.split(' ').nth(1) == Some(who)).cloned();
        theirs.unwrap_or_else(|| panic!("{who} was never told: {told:?}"))
    };
    let (_, told) = climbed(college(&[LEAD_ENTRY, MANAGER_ENTRY]), 700).await;
    assert_eq!(first_of(&told, "lead"), "360 lead whatsapp");
    assert_eq!(first_of(&told, "manager"), "600 manager whatsapp");
    let mute = Setting::default().with_file(
        &[LEAD_ENTRY, MANAGER_ENTRY].map(|(id, role, to)| contact_entry(id, role, "whatsapp_to", to)).concat(),
    );
    let (_, told) = climbed(mute, 700).await;
    let promised = ["0 counsellor whatsapp", "360 counsellor whatsapp", "360 lead whatsapp", "600 manager whatsapp"];
    assert_eq!(told, promised);
    let (_, told) = climbed(college(&[SECOND_ENTRY]), 610).await;
    let again = told.iter().filter(|told| told.ends_with("second whatsapp")).cloned().collect::<Vec<_>>();
    assert_eq!(again, ["180 second whatsapp", "360 second whatsapp", "600 second whatsapp"]);
}

async fn add(world: &mut World, name: &str, role: &str, number: &str) -> String {
    let method = json!({ "channel": "whatsapp", "number": number });
    let person = json!({ "name": name, "role": role, "language": "en", "time_zone": "Asia/Kolkata", "active": true,
        "methods": [method] });
    world.post("/api/v1/contacts", ADMIN, &person).await.expect(201).text_at("/id")
}

/// The code that came proves that the number is theirs.
async fn verify(world: &mut World, id: &str, number: &str) {
    let path = format!("/api/v1/contacts/{id}/methods/whatsapp/verification");
    world.request(Method::POST, &path, Some(ADMIN), None).await.expect(202);
    let sent = world.sim().messages_to(number).into_iter().next_back().unwrap().body;
    let code = sent.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 6).unwrap();
    world.post(&format!("{path}/confirm"), ADMIN, &json!({ "code": code })).await.expect(200);
}

async fn explained(world: &World, policy: &str) -> Value {
    let asked = json!({ "user_id": "student-9", "crisis_score": 0.93, "emergency_override": true });
    world.post(&format!("/api/v1/escalation-policies/{policy}/explain"), ADMIN, &asked).await.expect(200).json()
}

/// Each stage in words: who is told, and who is not and why.
fn stages(explained: &Value) -> Vec<String> {
    let stages = explained["stages"].as_array().unwrap().iter();
    let words = stages.map(|stage| {
        let told = stage["told"].as_array().unwrap().iter().map(|told| told["contact"].as_str().unwrap().to_owned());
        let not = stage["not_told"].as_array().unwrap().iter().map(|not| {
            let who = not["contact"].as_str().or(not["role"].as_str()).or(not["schedule"].as_str()).unwrap();
            format!("not {who} ({})", not["why"].as_str().unwrap())
        });
        told.chain(not).collect::<Vec<_>>().join(", ")
    });
    words.collect()
}

#[tokio::test]
async fn whoever_is_set_up_over_the_api_has_their_place_once_their_number_is_verified() {
    let mut world = Setting::default().start().await;
    assert_eq!(stages(&explained(&world, "default").await).last().unwrap(), "counsellor");
    let lead = add(&mut world, "Lata", "lead", LEAD).await;
    let second = add(&mut world, "Bela", "counsellor", SECOND).await;
    let manager = add(&mut world, "Meera", "duty_manager", MANAGER).await;
    verify(&mut world, &second, SECOND).await;
    verify(&mut world, &manager, MANAGER).await;
    let waits = format!("counsellor, {second}, not {lead} (unverified), not lead (nobody_of_role)");
    assert_eq!(stages(&explained(&world, "default").await), ["counsellor", &second, &waits, &manager]);
    verify(&mut world, &lead, LEAD).await;
    let all = format!("{lead}, counsellor, {second}");
    assert_eq!(stages(&explained(&world, "default").await), ["counsellor", &second, &all, &manager]);
    let readiness = world.get("/api/v1/readiness", COUNSELLOR_KEY).await.expect(200).json();
    assert_eq!(readiness["obstacles"], json!([]));
    world.pass(s(1)).await;
    let begun = world.now();
    case(&mut world).await;
    world.pass_in_steps(s(610), s(10)).await;
    let promised = [
        "0 counsellor whatsapp",
        "180 second whatsapp",
        "360 counsellor whatsapp",
        "360 lead whatsapp",
        "360 second whatsapp",
        "600 manager whatsapp",
    ];
    assert_eq!(told(&world, begun), promised);
}

#[tokio::test]
async fn whoever_takes_a_role_while_a_case_climbs_is_told_on_its_rung_though_the_case_keeps_its_ladder() {
    let mut world = college(&[LEAD_ENTRY]).start().await;
    let begun = world.now();
    case(&mut world).await;
    world.pass_in_steps(s(120), s(10)).await;
    let third = add(&mut world, "Chetan", "counsellor", THIRD).await;
    verify(&mut world, &third, THIRD).await;
    world.pass_in_steps(s(250), s(10)).await;
    assert!(told(&world, begun).contains(&"360 third whatsapp".to_owned()), "{:?}", told(&world, begun));
}

#[tokio::test]
async fn whoever_no_ladder_in_use_tells_is_an_obstacle() {
    let rung = "[[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp']\n\
        [[policy.steps]]\nafter = '3m'\nroles = ['lead']\nchannels = ['whatsapp']\n";
    let mut world = Setting::default().with_file(rung).start().await;
    let obstacles = async |world: &World| {
        world.get("/api/v1/readiness", COUNSELLOR_KEY).await.expect(200).json()["obstacles"].clone()
    };
    // Nobody has the role yet: the start does not fail, for over the API somebody may.
    assert_eq!(obstacles(&world).await, json!([{ "kind": "step_unreachable", "policy": "default", "step": 2 }]));
    let lead = add(&mut world, "Lata", "lead", LEAD).await;
    verify(&mut world, &lead, LEAD).await;
    assert_eq!(obstacles(&world).await, json!([]));
    let second = add(&mut world, "Bela", "counsellor", SECOND).await;
    verify(&mut world, &second, SECOND).await;
    assert_eq!(obstacles(&world).await, json!([{ "kind": "contact_on_no_ladder", "contact": second }]));
    world.pass(s(61)).await;
    assert_eq!(world.metric("crisis_relay_readiness_obstacles{kind=\"contact_on_no_ladder\"}").await, Some(1.0));
    let begun = world.now();
    case(&mut world).await;
    world.pass_in_steps(s(200), s(10)).await;
    assert_eq!(told(&world, begun), ["0 counsellor whatsapp", "180 lead whatsapp"]);
}

#[tokio::test]
async fn the_check_names_a_role_that_nobody_has_and_whom_no_ladder_tells() {
    let file = "[[policy.steps]]\nroles = ['lead']\nchannels = ['whatsapp']\n".to_owned()
        + &contact_entry("manager", "duty_manager", "whatsapp_to", MANAGER);
    let environment = std::collections::BTreeMap::from([("COUNSELLOR_WHATSAPP_TO".to_owned(), COUNSELLOR.to_owned())]);
    let file = Some(ConfigFile { name: "check.toml".to_owned(), text: file });
    let sources = Sources { file, environment, read_file: &|path| std::fs::read_to_string(path) };
    let config = Config::load(&sources).unwrap();
    let (provider, nobody) = (app::provider(&config, None), Roster::empty("default".parse().unwrap()));
    let found = app::rota_findings(&config, &provider, &nobody, START.parse().unwrap()).unwrap();
    let subjects: Vec<String> = found.faults.into_iter().map(|fault| fault.subject).collect();
    assert_eq!(subjects, ["policy default, steps[0]"]);
    let what = "no rung and no last responder comes to them; they are only told in somebody's place";
    assert_eq!(found.notes, [format!("contact counsellor: {what}")]);
}

/// The check of the configuration says that a template is missing, once: what is found about people does not say it again.
#[test]
fn a_template_that_is_missing_is_not_said_again_of_each_person() {
    let environment = [
        ("COUNSELLOR_WHATSAPP_TO", COUNSELLOR),
        ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
        ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("TWILIO_WHATSAPP_FROM", "+919800000000"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let text = contact_entry("lead", "lead", "whatsapp_to", LEAD);
    let file = Some(ConfigFile { name: "check.toml".to_owned(), text });
    let sources = Sources { file, environment, read_file: &|path| std::fs::read_to_string(path) };
    let config = Config::load(&sources).unwrap();
    let missing = |notes: &[String]| notes.iter().filter(|note| note.contains("content_sids.en is not set")).count();
    assert_eq!(missing(config.notes()) + missing(&app::check_texts(&config).unwrap().notes), 1);
    let (provider, nobody) = (app::provider(&config, None), Roster::empty("default".parse().unwrap()));
    let found = app::rota_findings(&config, &provider, &nobody, START.parse().unwrap()).unwrap();
    assert_eq!(missing(&found.notes), 0, "{:?}", found.notes);
}

#[tokio::test]
async fn who_is_not_verified_is_spoken_of_behind_a_role_and_a_schedule_too() {
    let mut world = college(&[LEAD_ENTRY]).start().await;
    let second = add(&mut world, "Bela", "counsellor", SECOND).await;
    let shifts = json!([{ "from": "monday 08:00", "until": "monday 08:00", "people": ["counsellor", second] }]);
    let desk = json!({ "id": "desk", "time_zone": "Asia/Kolkata", "shifts": shifts });
    world.post("/api/v1/schedules", ADMIN, &desk).await.expect(201);
    let step = |target: Value| json!({ "after_seconds": 60, "targets": [target], "channels": ["whatsapp"] });
    let steps = [step(json!({ "role": "counsellor" })), step(json!({ "schedule": "desk" }))];
    let night = json!({ "id": "night", "steps": steps, "bands": [], "rounds": 1,
        "last_responder": { "contact": "lead" }, "last_responder_channels": ["whatsapp"] });
    let saved = world.post("/api/v1/escalation-policies", ADMIN, &night).await.expect(201).json();
    let warned = |place: usize| {
        json!({ "field": format!("steps[{place}].targets[0]"),
        "rule": "comes to people who cannot be told over any of the channels" })
    };
    assert_eq!(saved["warnings"], json!([warned(0), warned(1)]));
    let spoken_of = format!("counsellor, not {second} (unverified)");
    assert_eq!(stages(&explained(&world, "night").await), [&spoken_of, &spoken_of, "lead"]);
}

#[tokio::test]
async fn a_phone_that_refuses_messages_rings_at_once() {
    let opted_out = |phone| FaultRule::always(Fault::Refused { code: 21610, http_status: 400 }).to(phone);
    let mut world = college(&[SECOND_ENTRY]).start_with(opted_out(COUNSELLOR)).await;
    world.sim().push_fault(opted_out(TEXTS));
    let begun = world.now();
    case(&mut world).await;
    assert_eq!(told(&world, begun), ["0 counsellor voice"], "WhatsApp and texts are refused");
    // The phone is let ring: it was no failure of the call.
    world.pass_in_steps(s(80), s(10)).await;
    assert_eq!(told(&world, begun), ["0 counsellor voice"]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_case_that_is_open_again_goes_on_at_once_like_a_new_one() {
    let opted_out = |phone| FaultRule::always(Fault::Refused { code: 21610, http_status: 400 }).to(phone);
    let mut world = college(&[SECOND_ENTRY]).start_with(opted_out(COUNSELLOR)).await;
    world.sim().push_fault(opted_out(TEXTS));
    let begun = world.now();
    let reference = case(&mut world).await;
    world.post(&format!("/api/v1/crisis/alerts/{reference}/acknowledge"), COUNSELLOR_KEY, &json!({})).await.expect(200);
    world.pass_in_steps(s(905), s(5)).await;
    let told = told(&world, begun);
    assert_eq!(
        told,
        ["0 counsellor voice", "900 counsellor voice"],
        "what was tried before it was taken counts no more"
    );
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_everything_fails_each_person_is_tried_at_once_and_then_there_is_a_pause() {
    let refused = FaultRule::always(Fault::Refused { code: 21610, http_status: 400 });
    let mut world = college(&[SECOND_ENTRY, LEAD_ENTRY, MANAGER_ENTRY]).start_with(refused).await;
    let reference = case(&mut world).await;
    let tried = async |world: &World| {
        let alert = world.alert(&reference).await;
        alert["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|delivery| delivery["contact"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let at_once = tried(&world).await;
    for person in ["counsellor", "second", "lead", "manager"] {
        assert!(at_once.iter().any(|tried| tried == person), "{person} is not waited for: {at_once:?}");
    }
    assert_eq!(world.alert(&reference).await["detail"]["last_responder"], true);
    world.pass(s(29)).await;
    assert_eq!(tried(&world).await.len(), at_once.len(), "all was in vain: no loop");
    world.pass(s(1)).await;
    assert!(tried(&world).await.len() > at_once.len());
    world.assert_nothing_is_silent().await;
}

#[tokio::test]
async fn the_configurations_ladder_is_shown_for_whoever_is_set_up() {
    let world = college(&[LEAD_ENTRY]).start().await;
    let shown = world.request(Method::GET, "/api/v1/escalation-policies/default", Some(ADMIN), None).await;
    let shown = shown.expect(200).json();
    let after: Vec<i64> =
        shown["steps"].as_array().unwrap().iter().map(|step| step["after_seconds"].as_i64().unwrap()).collect();
    assert_eq!((after, &shown["repeat_every_seconds"]), (vec![0, 90, 270], &json!(240)));
    assert_eq!(shown["last_responder"], json!({ "role": "lead" }));
    assert_eq!((&shown["warnings"], &shown["further_rounds_with_last_responder"]), (&json!([]), &json!(true)));
}
