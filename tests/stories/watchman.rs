//! The watchman: the heartbeat goes out only while work is really being done, and what keeps it from being done is told.

use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule};
use serde_json::json;
use wiremock::ResponseTemplate;

use crate::alarms::Sink;
use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::stage::s;
use crate::common::{ADMIN, COUNSELLOR_KEY, SERVICE, Setting, World};

fn setting(slack: &Sink) -> Setting {
    Setting::default()
        .with("OPS_SLACK_URL", &slack.url())
        .with("CRISIS_RELAY__OPS__TIMEOUT", "3s")
        .with("CRISIS_RELAY__OPS__SETTLE_FOR", "20s")
        // Receipts come in few of these stories: that is for others to tell.
        .with("CRISIS_RELAY__OPS__SILENT_IN_A_ROW", "1000")
}

fn with_heartbeat(watchdog: &Sink) -> Setting {
    Setting::default().with("OPS_HEARTBEAT_URL", &watchdog.url()).with("CRISIS_RELAY__OPS__TIMEOUT", "3s")
}

impl World {
    /// Time passes as in life: work is done, the watchman looks, and the operator is told.
    async fn pass_watched(&mut self, by: Duration) {
        for _ in 0..by.as_secs() / 5 {
            self.pass(s(5)).await;
            self.look().await;
            self.tell_operator().await;
        }
    }

    /// The same, and nobody does any work.
    async fn pass_idle(&mut self, by: Duration) {
        for _ in 0..by.as_secs() / 5 {
            self.clock.advance(s(5));
            self.look().await;
            self.tell_operator().await;
        }
    }
}

/// The alarms that were told, in the words of their lines: `ALARM work_late`.
async fn told(slack: &Sink) -> Vec<String> {
    let words = |line: String| {
        let mut words = line.split([' ', ':', ',']);
        format!("{} {}", words.next().unwrap(), words.next().unwrap())
    };
    slack.lines().await.into_iter().map(words).collect()
}

#[tokio::test]
async fn the_heartbeat_goes_out_every_minute_while_work_is_done_and_stops_when_the_worker_does() {
    let watchdog = Sink::answering(200).await;
    let mut world = with_heartbeat(&watchdog).start().await;
    world.look().await;
    assert_eq!(watchdog.beats().await, 0, "nobody has worked yet");
    world.pass_watched(s(300)).await;
    assert_eq!(watchdog.beats().await, 5);

    // Rounds stay away: what was seen last counts for a moment, and no longer.
    world.pass_idle(s(30)).await;
    watchdog.beats().await;
    world.pass_idle(s(300)).await;
    assert_eq!(watchdog.beats().await, 0);
    assert_eq!(world.alarms("worker_stuck").await, 1.0);
    world.pass_watched(s(60)).await;
    assert_eq!(watchdog.beats().await, 1);
}

#[tokio::test]
async fn the_heartbeat_stops_while_the_store_fails_or_hangs_and_the_operator_is_told() {
    let (watchdog, slack) = (Sink::answering(200).await, Sink::answering(200).await);
    let gate = Gate::new();
    let mut world = setting(&slack).with("OPS_HEARTBEAT_URL", &watchdog.url()).with_gate(&gate).start().await;
    world.pass_watched(s(60)).await;
    assert_eq!(watchdog.beats().await, 1);

    gate.strike_named("probe", Fate::Fail(StoreFault::Unavailable));
    world.pass_watched(s(180)).await;
    assert_eq!(watchdog.beats().await, 0);
    assert_eq!(told(&slack).await, ["ALARM store_failing"]);
    gate.open();
    world.pass_watched(s(60)).await;
    assert_eq!(watchdog.beats().await, 1);
    assert_eq!(told(&slack).await, ["OVER store_failing"]);

    // It hangs, for as long as the machine's clock needs to find that out.
    gate.strike_named("probe", Fate::Wait(std::sync::Arc::new(tokio::sync::Semaphore::new(0))));
    world.pass_idle(s(10)).await;
    assert_eq!(watchdog.beats().await, 0);
    assert_eq!(told(&slack).await, ["ALARM store_failing"]);
}

#[tokio::test]
async fn the_heartbeat_stops_when_work_gets_old_and_the_operator_hears_of_it_and_of_its_end() {
    let (watchdog, slack) = (Sink::answering(200).await, Sink::answering(200).await);
    let setting = setting(&slack)
        .with("OPS_HEARTBEAT_URL", &watchdog.url())
        .with("CRISIS_RELAY__WORKER__QUEUE_MAX", "1")
        .with("CRISIS_RELAY__WORKER__DUE_BATCH", "1");
    let mut world = setting.start().await;
    world.escalated("student-1").await;
    // The only place is taken, and stays so: this one waits for the poll.
    world.escalated("student-2").await;
    for _ in 0..20 {
        world.clock.advance(s(5));
        world.worker().round().await;
        world.look().await;
        world.tell_operator().await;
    }
    assert_eq!(watchdog.beats().await, 1, "the first minute's");
    assert_eq!(told(&slack).await, ["ALARM work_late"]);
    world.pass_watched(s(120)).await;
    assert!(watchdog.beats().await >= 1);
    assert_eq!(told(&slack).await, ["OVER work_late"]);
}

#[tokio::test]
async fn a_watchdog_that_does_not_answer_holds_up_nothing_and_is_tried_at_the_next_look() {
    let watchdog = Sink::answering(200).await;
    watchdog.answers(ResponseTemplate::new(200).set_delay(s(60))).await;
    let mut world = with_heartbeat(&watchdog).with("CRISIS_RELAY__OPS__TIMEOUT", "1s").start().await;
    let reference = world.told("student-1", 0.93).await;
    world.pass_watched(s(15)).await;
    world.expect_on_the_phone(&reference);
    assert_eq!(watchdog.beats().await, 3);
    watchdog.answers(ResponseTemplate::new(200)).await;
    world.pass_watched(s(60)).await;
    assert_eq!(watchdog.beats().await, 1);
    assert_eq!(world.metric("crisis_relay_heartbeats_total{outcome=\"taken\"}").await, Some(1.0));
}

#[tokio::test]
async fn where_a_scheduler_calls_for_work_its_call_lets_the_heartbeat_out_and_tells_the_operator() {
    let (watchdog, slack) = (Sink::answering(200).await, Sink::answering(200).await);
    let mut world = setting(&slack).with("OPS_HEARTBEAT_URL", &watchdog.url()).start().await;
    world.goes_wrong(FaultRule::always(Fault::Refused { http_status: 400, code: 21212 }));
    world.told("student-1", 0.93).await;
    world.work().await;
    world.post("/api/v1/tasks/run-due", SERVICE, &json!({})).await.expect(200);
    assert_eq!(watchdog.beats().await, 1);
    assert_eq!(told(&slack).await, ["ALARM provider_refused"]);
}

#[tokio::test]
async fn a_provider_that_fails_again_and_again_is_told_and_its_recovery_too() {
    let slack = Sink::answering(200).await;
    let mut world = setting(&slack).with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "30s").start().await;
    world.goes_wrong(FaultRule::always(Fault::Outage));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_watched(s(240)).await;
    let alarms = told(&slack).await;
    for alarm in ["ALARM provider_failing", "ALARM breaker_open", "ALARM failure_share"] {
        assert_eq!(alarms.iter().filter(|told| *told == alarm).count(), 1, "{alarm}: {alarms:?}");
    }
    world.sim().clear_faults();
    // As long as failures are reckoned into the share.
    world.pass_watched(s(900)).await;
    assert!(!world.on_the_phone(&reference).is_empty());
    let alarms = told(&slack).await;
    for over in ["OVER provider_failing", "OVER breaker_open", "OVER failure_share"] {
        assert_eq!(alarms.iter().filter(|told| *told == over).count(), 1, "{over}: {alarms:?}");
    }
}

#[tokio::test]
async fn messages_of_which_nothing_is_heard_are_told_and_receipts_that_come_again_end_it() {
    let slack = Sink::answering(200).await;
    let setting = setting(&slack)
        .with("CRISIS_RELAY__OPS__SHARE_OF_AT_LEAST", "4")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "1h");
    let mut world = setting.start().await;
    for student in 0..6 {
        world.told(&format!("student-{student}"), 0.93).await;
    }
    world.work().await;
    // No callback comes.
    world.pass_watched(s(90)).await;
    assert_eq!(told(&slack).await, ["ALARM receipts_missing"]);
    world.pass_watched(s(600)).await;
    for student in 10..16 {
        world.told(&format!("student-{student}"), 0.93).await;
    }
    world.work().await;
    world.receipts().await;
    world.pass_watched(s(90)).await;
    assert_eq!(told(&slack).await, ["OVER receipts_missing"]);
}

#[tokio::test]
async fn a_college_with_a_message_a_day_learns_from_its_drills_that_callbacks_do_not_arrive() {
    let slack = Sink::answering(200).await;
    // As it comes, with one person to tell.
    let setting = Setting::default()
        .with("OPS_SLACK_URL", &slack.url())
        .with("CRISIS_RELAY__DRILLS__DAILY_AT", "14:06")
        .with("CRISIS_RELAY__ORGANISATION__TIME_ZONE", "Asia/Kolkata");
    let mut world = setting.start().await;
    let missing = |alarms: &[String]| alarms.iter().filter(|told| *told == "ALARM receipts_missing").count();
    let mut alarms = 0;
    for day in 1..=3 {
        // A drill is sent, nothing is heard of the message, and somebody answers at the dashboard.
        world.pass_watched(s(150)).await;
        let drills = world.get("/api/v1/crisis/drills", ADMIN).await.expect(200);
        let path = format!("/api/v1/crisis/alerts/{}/acknowledge", drills.text_at("/drills/0/reference"));
        world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
        let missed = missing(&told(&slack).await);
        assert!(day > 1 || missed == 0, "one message alone says little");
        alarms += missed;
        world.clock.advance(s(24 * 3_600 - 150));
    }
    assert_eq!(alarms, 1);
    // The callbacks arrive again: one receipt is enough.
    world.pass_watched(s(10)).await;
    world.receipts().await;
    world.pass_watched(s(70)).await;
    assert!(told(&slack).await.contains(&"OVER receipts_missing".to_owned()));
}

#[tokio::test]
async fn a_withheld_case_that_waits_for_a_decision_is_told_until_somebody_decides() {
    let slack = Sink::answering(200).await;
    let mut world = setting(&slack).start().await;
    let event = json!({ "user_id": "student-1", "crisis_score": 0.97, "source": "chat" });
    let reference = world.event(&event).await.expect(202).text_at("/reference");
    world.pass_watched(s(240)).await;
    assert_eq!(told(&slack).await, [] as [&str; 0]);
    world.pass_watched(s(120)).await;
    assert_eq!(told(&slack).await, ["ALARM withheld_waits"]);
    let outcome = json!({ "outcome": "false_alarm" });
    world.post(&format!("/api/v1/crisis/alerts/{reference}/resolve"), COUNSELLOR_KEY, &outcome).await.expect(200);
    world.pass_watched(s(60)).await;
    assert_eq!(told(&slack).await, ["OVER withheld_waits"]);
}

#[tokio::test]
async fn what_waits_for_a_decision_is_told_by_how_long_it_waits_itself() {
    let slack = Sink::answering(200).await;
    let mut world = setting(&slack).start().await;
    let withheld = async |world: &mut World, student: &str| {
        let event = json!({ "user_id": student, "crisis_score": 0.97, "source": "chat" });
        world.event(&event).await.expect(202).text_at("/reference")
    };
    // Every four minutes a case is decided, and there is always another.
    let mut reference = withheld(&mut world, "student-0").await;
    for student in 1..4 {
        world.pass_watched(s(200)).await;
        let next = withheld(&mut world, &format!("student-{student}")).await;
        world.pass_watched(s(40)).await;
        let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
        world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "false_alarm" })).await.expect(200);
        reference = next;
    }
    assert_eq!(told(&slack).await, [] as [&str; 0], "none of them waited for long");
    // The last one is forgotten; newer ones hide nothing of that.
    world.pass_watched(s(100)).await;
    withheld(&mut world, "student-9").await;
    world.pass_watched(s(180)).await;
    assert_eq!(told(&slack).await, ["ALARM withheld_waits"]);
    let path = format!("/api/v1/crisis/alerts/{reference}/resolve");
    world.post(&path, COUNSELLOR_KEY, &json!({ "outcome": "false_alarm" })).await.expect(200);
    world.pass_watched(s(60)).await;
    // The newer one has waited for four minutes by now.
    assert_eq!(told(&slack).await, ["OVER withheld_waits"]);
}

#[tokio::test]
async fn the_heartbeat_stops_while_a_case_waits_and_nothing_can_be_sent() {
    let watchdog = Sink::answering(200).await;
    let mut world = with_heartbeat(&watchdog).start().await;
    world.pass_watched(s(60)).await;
    assert_eq!(watchdog.beats().await, 1);
    world.goes_wrong(FaultRule::always(Fault::Outage));
    let reference = world.told("student-1", 0.93).await;
    world.work().await;
    world.pass_watched(s(4 * 60)).await;
    assert!(watchdog.beats().await >= 1, "a short outage passes by itself");
    world.pass_watched(s(10 * 60)).await;
    assert_eq!(watchdog.beats().await, 0, "nobody is told of anything");
    world.sim().clear_faults();
    world.pass_watched(s(5 * 60)).await;
    assert!(!world.on_the_phone(&reference).is_empty());
    assert!(watchdog.beats().await >= 2);
    world.holds_its_promises().await;
}
