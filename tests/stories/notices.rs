//! What is said beside the ladder: that somebody has the case, that an outcome is missing, that a follow-up is due.

use crisis_relay::service::report::report;
use crisis_relay::simulator::{Fault, FaultRule};
use jiff::SignedDuration;
use serde_json::json;

use crate::common::stage::{s, says};
use crate::common::{ADMIN, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World, contact_entry};

const LEAD: &str = "+919800000037";
const MANAGER: &str = "+919800000057";

/// The counsellor; two minutes later the lead; then, again and again, the manager.
fn ladder() -> Setting {
    let people = contact_entry("lead", "lead", "whatsapp_to", LEAD)
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
        channels = ["whatsapp"]
        [[policy.steps]]
        after = "2m"
        contacts = ["lead"]
        channels = ["whatsapp"]
        "#;
    Setting::default().with_file(&(people + policy))
}

fn texts(world: &World, phone: &str) -> Vec<String> {
    world.sim().messages_to(phone).into_iter().map(|message| message.body).collect()
}

fn notices(world: &World, phone: &str, words: &str) -> usize {
    texts(world, phone).iter().filter(|text| text.contains(words)).count()
}

/// A case that the counsellor and the lead have been told of.
async fn told_two(world: &mut World) -> String {
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_in_steps(s(130), s(10)).await;
    assert_eq!((texts(world, LEAD).len(), texts(world, MANAGER).len()), (1, 0), "two were told");
    reference
}

// -- somebody has it --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_was_told_hears_once_and_by_role_who_has_the_case_and_nobody_else_does() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"));
    world.pass_in_steps(s(120), s(10)).await;
    let said = texts(&world, COUNSELLOR).pop().unwrap();
    let words = format!("the case with reference {reference} is in the hands of the lead now. Nothing more is needed");
    assert!(said.contains(&words), "{said}");
    assert_eq!(notices(&world, COUNSELLOR, "in the hands of"), 1);
    assert_eq!(notices(&world, LEAD, "in the hands of"), 0, "they know");
    assert_eq!(texts(&world, MANAGER).len(), 0, "they were never told");
    let alert = world.alert(&reference).await;
    let purposes: Vec<&str> =
        alert["deliveries"].as_array().unwrap().iter().map(|one| one["purpose"].as_str().unwrap()).collect();
    assert_eq!(purposes, ["counsellor_alert", "counsellor_alert", "taken_notice"]);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn where_a_case_is_taken_or_closed_at_the_dashboard_all_who_were_told_hear_so() {
    for deed in ["acknowledge", "resolve"] {
        let mut world = ladder().start().await;
        let reference = told_two(&mut world).await;
        let body = if deed == "resolve" { json!({ "outcome": "false_alarm" }) } else { json!({}) };
        let path = format!("/api/v1/crisis/alerts/{reference}/{deed}");
        world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
        world.work().await;
        world.pass_in_steps(s(60), s(10)).await;
        for phone in [COUNSELLOR, LEAD] {
            assert_eq!(notices(&world, phone, "in the hands of a colleague"), 1, "{deed}: {:?}", texts(&world, phone));
        }
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn what_arrives_late_is_no_reason_to_say_again_that_a_closed_case_is_taken_nor_to_tell_whoever_had_it() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"));
    world.pass_in_steps(s(60), s(10)).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    for _ in 0..4 {
        world.receipts().await;
        world.pass_in_steps(s(30), s(10)).await;
    }
    assert_eq!(notices(&world, COUNSELLOR, "in the hands of"), 1, "{:?}", texts(&world, COUNSELLOR));
    assert_eq!(notices(&world, LEAD, "in the hands of"), 0, "they had it: {:?}", texts(&world, LEAD));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn who_gave_a_case_back_to_the_ladder_hears_when_somebody_else_takes_it() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    assert!(says(&mut world, LEAD, "1").await.contains("is yours"));
    world.pass_in_steps(s(21 * 60), s(30)).await;
    assert_eq!(world.alert(&reference).await["state"], "escalating", "no outcome came");
    assert!(says(&mut world, COUNSELLOR, "1").await.contains("is yours"));
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(notices(&world, LEAD, "in the hands of"), 1, "{:?}", texts(&world, LEAD));
    world.holds_its_promises().await;
}

#[tokio::test]
async fn nobody_hears_that_a_case_is_taken_once_it_is_open_again() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    // Taken and handed on before the notice is out.
    let first = world.sim().reply(LEAD, "1").await.unwrap();
    assert!(first.answers.concat().contains("is yours"));
    let second = world.sim().reply(LEAD, &format!("2 {reference}")).await.unwrap();
    assert!(second.answers.concat().contains("is passed on"), "{second:?}");
    world.work().await;
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(notices(&world, COUNSELLOR, "in the hands of"), 0);
    assert_eq!(texts(&world, MANAGER).len(), 1, "the next person is told");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_word_that_was_taken_back_lets_no_notice_out() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    let no = json!({ "whatsapp": false, "source": "story" });
    let taken = world.sim().reply(LEAD, "1").await.unwrap();
    assert!(taken.answers.concat().contains("is yours"));
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&no)).await.expect(200);
    world.work().await;
    world.pass_in_steps(s(60), s(10)).await;
    assert_eq!(notices(&world, COUNSELLOR, "in the hands of"), 0, "{reference}");
    world.holds_its_promises().await;
}

#[tokio::test]
async fn of_three_who_answer_in_the_same_instant_one_has_the_case_and_each_hears_clearly() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    world.pass_in_steps(s(130), s(10)).await;
    assert_eq!(texts(&world, MANAGER).len(), 1, "all three were told");
    let sim = world.sim();
    let (one, two, three) = tokio::join!(sim.reply(COUNSELLOR, "1"), sim.reply(LEAD, "1"), sim.reply(MANAGER, "1"));
    let said = [one, two, three].map(|reply| reply.unwrap().answers.concat());
    let yours = format!("Ref {reference} is yours. Please close it on the dashboard when it is done.");
    let taken = format!("Ref {reference} was taken already. Nothing is needed from you.");
    assert_eq!(said.iter().filter(|said| **said == yours).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| **said == taken).count(), 2, "{said:?}");
    world.work().await;
    let owner = ["counsellor", "lead", "manager"][said.iter().position(|said| *said == yours).unwrap()];
    assert_eq!(world.alert(&reference).await["detail"]["by"]["id"], owner);
    world.holds_its_promises().await;
}

// -- an outcome is missing --------------------------------------------------------------------------------------------

#[tokio::test]
async fn who_has_a_case_is_reminded_of_the_outcome_and_only_then_others_are_told_again() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    says(&mut world, LEAD, "1").await;
    world.pass_in_steps(s(14 * 60), s(30)).await;
    assert_eq!(notices(&world, LEAD, "no outcome is noted"), 0);
    world.pass_in_steps(s(2 * 60), s(30)).await;
    assert_eq!(notices(&world, LEAD, "no outcome is noted"), 1, "{:?}", texts(&world, LEAD));
    assert_eq!(world.alert(&reference).await["state"], "acknowledged", "it is theirs still");
    let alerts = notices(&world, COUNSELLOR, "a case needs you");
    world.pass_in_steps(s(5 * 60), s(30)).await;
    assert_eq!(world.alert(&reference).await["state"], "escalating");
    assert_eq!(notices(&world, COUNSELLOR, "a case needs you"), alerts + 1);
    assert_eq!(world.alarms("reopened").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_sign_from_whoever_has_the_case_begins_the_time_anew_by_reply_and_at_the_dashboard() {
    for by_reply in [true, false] {
        let mut world = ladder().start().await;
        let reference = told_two(&mut world).await;
        says(&mut world, LEAD, "1").await;
        world.pass_in_steps(s(16 * 60), s(30)).await;
        assert_eq!(notices(&world, LEAD, "no outcome is noted"), 1);
        if by_reply {
            let said = says(&mut world, LEAD, "1").await;
            assert!(said.contains(&format!("Noted: ref {reference} is still yours")), "{said}");
        } else {
            let path = format!("/api/v1/crisis/alerts/{reference}/check-in");
            let answer = world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
            assert!(answer.json()["detail"].get("reminded_at").is_none(), "{answer:?}");
        }
        world.pass_in_steps(s(14 * 60), s(30)).await;
        assert_eq!(world.alert(&reference).await["state"], "acknowledged");
        world.pass_in_steps(s(2 * 60), s(30)).await;
        assert_eq!(notices(&world, LEAD, "no outcome is noted"), 2, "and then they are reminded again");
        world.holds_its_promises().await;
    }
}

#[tokio::test]
async fn only_a_case_that_is_taken_can_be_checked_in_to() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/check-in");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(409);
    world.post(&path, SERVICE, &json!({})).await.expect(403);
    says(&mut world, LEAD, "1").await;
    // Another's reply is no sign from whoever has it.
    let said = says(&mut world, COUNSELLOR, "1").await;
    assert!(said.contains("was taken already"), "{said}");
    let close = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&close, COUNSELLOR_KEY, &json!({ "outcome": "safe_by_phone" })).await.expect(200);
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(409);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn the_report_tells_of_reminders_signs_and_words() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    says(&mut world, COUNSELLOR, "on the bus").await;
    says(&mut world, LEAD, "1").await;
    world.pass_in_steps(s(16 * 60), s(30)).await;
    says(&mut world, LEAD, "1").await;
    let organisation = world.stored(&reference).await.organisation;
    let told = report(world.store().as_ref(), None, &organisation, reference.parse().unwrap()).await.unwrap();
    for line in
        ["contact counsellor wrote words that ask for nothing", "whoever has it is reminded", "contact lead is on it"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("bus"), "{told}");
}

// -- afterwards -------------------------------------------------------------------------------------------------------

async fn closed_with_follow_up(world: &mut World, after: SignedDuration) -> String {
    let reference = told_two(world).await;
    says(world, LEAD, "1").await;
    let follow_up_at = world.now() + after;
    let body = json!({ "outcome": "safety_plan", "follow_up_at": follow_up_at });
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    let answer = world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
    assert_eq!(answer.json()["detail"]["follow_up_at"], json!(follow_up_at), "{answer:?}");
    reference
}

#[tokio::test]
async fn a_follow_up_that_was_planned_at_closing_is_called_to_mind_once() {
    let mut world = ladder().start().await;
    let reference = closed_with_follow_up(&mut world, SignedDuration::from_hours(48)).await;
    world.pass(s(47 * 3600)).await;
    let reminded = |world: &World| [COUNSELLOR, LEAD, MANAGER].map(|phone| notices(world, phone, "a follow-up is due"));
    assert_eq!(reminded(&world), [0, 0, 0]);
    world.pass(s(2 * 3600)).await;
    world.pass_in_steps(s(3600), s(600)).await;
    assert_eq!(reminded(&world), [0, 1, 0], "whoever was told last");
    assert_eq!(world.alert(&reference).await["state"], "resolved");
    world.holds_its_promises().await;
}

/// What was accepted comes to nothing, and Twilio says so.
async fn told_of_failures(world: &mut World) {
    world.receipts().await;
    world.receipts().await;
    world.pass_in_steps(s(60), s(10)).await;
}

#[tokio::test]
async fn a_follow_up_whose_reminder_fails_goes_to_somebody_else() {
    let mut world = ladder().start().await;
    closed_with_follow_up(&mut world, SignedDuration::from_hours(48)).await;
    world.goes_wrong(FaultRule::once(Fault::FailsLater { code: 63024, failed: true }));
    world.pass(s(49 * 3600)).await;
    told_of_failures(&mut world).await;
    let reminded = [COUNSELLOR, LEAD, MANAGER].map(|phone| notices(&world, phone, "a follow-up is due"));
    assert_eq!(reminded.iter().sum::<usize>(), 2, "the first did not get it: {reminded:?}");
    assert_eq!(world.alarms("follow_up_untold").await, 0.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_follow_up_that_reaches_nobody_alarms_the_operator_and_is_tried_again() {
    let mut world = ladder().start().await;
    closed_with_follow_up(&mut world, SignedDuration::from_hours(48)).await;
    world.goes_wrong(FaultRule::always(Fault::FailsLater { code: 63024, failed: true }));
    world.pass(s(48 * 3600 + 60)).await;
    for _ in 0..3 {
        told_of_failures(&mut world).await;
    }
    assert_eq!(world.alarms("follow_up_untold").await, 1.0);
    world.sim().clear_faults();
    world.pass_in_steps(s(3700), s(60)).await;
    told_of_failures(&mut world).await;
    let reminded = [COUNSELLOR, LEAD, MANAGER].map(|phone| notices(&world, phone, "a follow-up is due"));
    assert_eq!(reminded.iter().sum::<usize>(), 4, "three in vain, and then one: {reminded:?}");
    assert_eq!(world.alarms("follow_up_untold").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn of_many_people_each_is_reminded_once_until_one_can_be() {
    // As many as the configuration takes: in two rounds more than the messages that a case keeps.
    let people: String = (0..15)
        .map(|n| contact_entry(&format!("person-{n}"), "lead", "whatsapp_to", &format!("+9198000010{n:02}")))
        .collect();
    let policy = "[[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp']\n";
    let mut world = Setting::default().with_file(&(people + policy)).start().await;
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    let body = json!({ "outcome": "safety_plan", "follow_up_at": world.now() + SignedDuration::from_hours(48) });
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &body).await.expect(200);
    world.goes_wrong(FaultRule::always(Fault::Refused { code: 63016, http_status: 400 }));
    world.pass(s(48 * 3600 + 60)).await;
    let asked = |world: &World| {
        let sent = world.sim().requests().into_iter().filter(|one| one.get("To").is_some());
        sent.filter_map(|one| one.get("Body").map(str::to_owned))
            .filter(|body| body.contains("a follow-up is due"))
            .count()
    };
    for round in 1..=4 {
        world.pass_in_steps(s(300), s(5)).await;
        assert_eq!((asked(&world), world.alarms("follow_up_untold").await), (16 * round, round as f64));
        world.pass(s(3400)).await;
    }
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_follow_up_that_nobody_may_be_told_of_alarms_the_operator() {
    let mut world = ladder().start().await;
    closed_with_follow_up(&mut world, SignedDuration::from_hours(48)).await;
    let no = json!({ "whatsapp": false, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(reqwest::Method::PUT, path, Some(SERVICE), Some(&no)).await.expect(200);
    world.pass(s(49 * 3600)).await;
    world.pass_in_steps(s(600), s(60)).await;
    assert_eq!(notices(&world, LEAD, "a follow-up is due"), 0);
    assert_eq!(world.alarms("follow_up_untold").await, 1.0);
    world.holds_its_promises().await;
}

#[tokio::test]
async fn a_follow_up_lies_ahead_and_not_too_far() {
    let mut world = ladder().start().await;
    let reference = told_two(&mut world).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    for at in [world.now() - SignedDuration::from_secs(1), world.now() + SignedDuration::from_hours(91 * 24)] {
        let body = json!({ "outcome": "safety_plan", "follow_up_at": at });
        let answer = world.post(&path, ADMIN, &body).await.expect(422);
        assert!(answer.text.contains("follow_up_at"), "{answer:?}");
    }
    assert_eq!(world.alert(&reference).await["state"], "escalating", "nothing was changed");
}
