//! What the operator sees: whether the service lives, whether it is ready and what is not, and its figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, Scope};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::common::gate::{Fate, Fault as StoreFault, Gate};
use crate::common::{Answer, COUNSELLOR, COUNSELLOR_KEY, SERVICE, Setting, World};

async fn get(world: &World, path: &str) -> Answer {
    world.request(Method::GET, path, None, None).await
}

async fn readiness(world: &World, query: &str) -> (u16, Value) {
    let answer = get(world, &format!("/readyz{query}")).await;
    (answer.status, answer.json()["checks"].clone())
}

fn checks(store: &str, worker: &str, twilio: &str) -> Value {
    json!({ "store": store, "worker": worker, "twilio": twilio })
}

#[tokio::test]
async fn it_lives_whatever_else_is_wrong() {
    let world = World::new().await;
    world.store().close().await;
    assert_eq!(get(&world, "/livez").await.expect(200).text, "alive\n");
}

#[tokio::test]
async fn it_is_ready_once_the_worker_has_made_a_round_and_not_when_it_stops_making_them() {
    let mut world = World::new().await;
    assert_eq!(readiness(&world, "").await, (503, checks("ok", "failing", "ok")));
    world.work().await;
    assert_eq!(readiness(&world, "").await, (200, checks("ok", "ok", "ok")));
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(readiness(&world, "").await, (503, checks("ok", "failing", "ok")));
    world.work().await;
    assert_eq!(readiness(&world, "").await, (200, checks("ok", "ok", "ok")));
}

#[tokio::test]
async fn a_store_that_fails_is_named() {
    let mut world = World::new().await;
    world.work().await;
    assert_eq!(readiness(&world, "").await.0, 200);
    world.store().close().await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(readiness(&world, "").await, (503, checks("failing", "ok", "ok")));
    assert_eq!(readiness(&world, "?exclude=twilio").await.0, 503, "only Twilio can be left out");
}

#[tokio::test]
async fn what_a_probe_of_long_ago_said_is_no_answer() {
    let gate = Gate::new();
    let mut world = Setting::default().with_gate(&gate).start().await;
    world.work().await;
    let held = Arc::new(Semaphore::new(0));
    gate.strike_first("probe", Fate::PassAndWait(Arc::clone(&held)));
    assert_eq!(readiness(&world, "").await, (503, checks("failing", "ok", "ok")), "while it hangs");
    held.add_permits(1);
    world.until("it has come back", async |_| Arc::strong_count(&held) == 1).await;
    gate.strike_named("probe", Fate::Fail(StoreFault::Unavailable));
    world.clock.advance(Duration::from_secs(3600));
    world.work().await;
    assert_eq!(readiness(&world, "").await, (503, checks("failing", "ok", "ok")), "the store fails now");
    gate.open();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(readiness(&world, "").await, (200, checks("ok", "ok", "ok")));
}

#[tokio::test]
async fn a_round_that_lies_in_the_future_is_no_fresh_one() {
    let mut world = World::new().await;
    world.work().await;
    world.clock.set(world.now() - Duration::from_secs(3600));
    assert_eq!(readiness(&world, "").await, (503, checks("ok", "failing", "ok")));
    world.work().await;
    assert_eq!(readiness(&world, "").await, (200, checks("ok", "ok", "ok")));
}

#[tokio::test]
async fn an_open_breaker_is_named_and_can_be_left_out_because_events_are_still_taken() {
    let mut world = Setting::default().with("CRISIS_RELAY__TWILIO__BREAKER_FAILURES", "1").start().await;
    world.sim().push_fault(FaultRule::always(Fault::Outage).on(Scope::Everything));
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    assert_eq!(readiness(&world, "").await, (503, checks("ok", "ok", "failing")));
    assert_eq!(readiness(&world, "?exclude=twilio").await, (200, checks("ok", "ok", "failing")));
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.metric("crisis_relay_provider_breaker_open").await, Some(1.0));
    world.pass(Duration::from_secs(5)).await;
    world.event(&json!({ "user_id": "student-2", "crisis_score": 0.9, "source": "chat" })).await.expect(202);

    world.sim().clear_faults();
    world.pass_in_steps(Duration::from_secs(90), Duration::from_secs(1)).await;
    assert_eq!(readiness(&world, "").await, (200, checks("ok", "ok", "ok")));
    assert_eq!(world.metric("crisis_relay_provider_breaker_open").await, Some(0.0));
    assert!(world.sim().messages_to(COUNSELLOR).iter().any(|message| message.body.contains(&reference)));
}

/// Reads OpenMetrics text strictly: every sample belongs to a family that was announced, every value is a number, the end
/// is marked.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut families: Vec<(String, String)> = Vec::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            if kind == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                families.push((name.to_owned(), rest.to_owned()));
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let name = series.split('{').next().unwrap();
        let (family, kind) = families.last().expect("announced before");
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} is none of {family}");
        assert!(samples.insert(series.to_owned(), value.parse().expect(line)).is_none(), "{line} comes twice");
    }
    samples
}

#[tokio::test]
async fn the_figures_can_be_read_and_are_right_after_a_story() {
    let mut world = World::new().await;
    world.sim().push_fault(FaultRule::once(Fault::TooManyRequests { retry_after_s: Some(2) }));
    let told = world.escalated("student-1").await.text_at("/reference");
    world.event(&json!({ "user_id": "student-2", "crisis_score": 0.9, "source": "chat" })).await.expect(202);
    world.event(&json!({ "user_id": "student-3", "crisis_score": 0.1, "source": "chat" })).await.expect(202);
    world.event(&json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" })).await.expect(202);
    world.work().await;
    world.pass_in_steps(Duration::from_secs(4), Duration::from_secs(1)).await;
    world.expect_told(&told);
    assert_eq!(world.receipts().await, [204]);
    world.pass(Duration::from_secs(3)).await;
    assert_eq!(world.receipts().await, [204]);
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    world.pass(Duration::from_secs(5)).await;
    world.sim().assert_no_unexpected();

    let answer = get(&world, "/metrics").await.expect(200);
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let figures = parse(&answer.text);
    let expected = [
        ("events_total{decision=\"escalated\"}", 1.0),
        ("events_total{decision=\"withheld_no_consent\"}", 1.0),
        ("events_total{decision=\"below_threshold\"}", 1.0),
        ("events_total{decision=\"merged\"}", 1.0),
        ("attempts_total{class=\"accepted\"}", 1.0),
        ("attempts_total{class=\"not_executed\"}", 1.0),
        ("receipts_total{status=\"sent\"}", 1.0),
        ("receipts_total{status=\"delivered\"}", 1.0),
        ("open_alerts{state=\"acknowledged\"}", 1.0),
        ("open_alerts{state=\"withheld\"}", 1.0),
        ("open_alerts{state=\"escalating\"}", 0.0),
        ("time_to_acknowledged_seconds_count{channel=\"whatsapp\",step=\"1\"}", 1.0),
        ("time_to_acknowledged_seconds_sum{channel=\"whatsapp\",step=\"1\"}", 7.0),
        ("time_to_delivered_seconds_count{channel=\"whatsapp\",step=\"1\"}", 1.0),
        ("time_to_delivered_seconds_sum{channel=\"whatsapp\",step=\"1\"}", 7.0),
        ("time_to_provider_seconds_count{channel=\"whatsapp\",step=\"1\"}", 1.0),
        ("time_to_provider_seconds_sum{channel=\"whatsapp\",step=\"1\"}", 2.0),
        ("case_time_to_provider_seconds_sum{channel=\"whatsapp\",step=\"1\"}", 2.0),
        ("case_time_to_delivered_seconds_sum{channel=\"whatsapp\",step=\"1\"}", 7.0),
        ("steps_until_acknowledged_count", 1.0),
        ("steps_until_acknowledged_sum", 1.0),
        ("reopened_total", 0.0),
        ("webhook_duration_seconds_count{hook=\"status\"}", 2.0),
        ("webhook_duration_seconds_count{hook=\"incoming\"}", 1.0),
        ("oldest_due_seconds", 0.0),
        ("in_hand", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(figures.get(&format!("crisis_relay_{name}")), Some(&value), "{name}:\n{}", answer.text);
    }
}

#[tokio::test]
async fn a_receipt_that_goes_on_from_delivered_to_read_counts_one_arrival() {
    let mut world = World::new().await;
    world.escalated("student-1").await;
    world.work().await;
    for _ in 0..4 {
        world.receipts().await;
    }
    assert_eq!(world.metric("crisis_relay_receipts_total{status=\"read\"}").await, Some(1.0));
    assert_eq!(
        world.metric("crisis_relay_time_to_delivered_seconds_count{channel=\"whatsapp\",step=\"1\"}").await,
        Some(1.0)
    );
}

#[tokio::test]
async fn every_message_is_timed_by_channel_and_rung_from_its_own_turn_and_the_case_from_its_beginning() {
    let seconds = Duration::from_secs;
    let file = "[[contacts]]\nid = 'lead'\nrole = 'lead'\nwhatsapp_to = '+919800000018'\n\
        [[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp', 'sms']\n\
        [[policy.steps]]\nafter = '60s'\ncontacts = ['lead']\nchannels = ['whatsapp']";
    let mut world = Setting::default().with_file(file).with("COUNSELLOR_SMS_TO", "+919800000027").start().await;
    let agreed = json!({ "whatsapp": true, "sms": true, "source": "story" });
    let path = "/api/v1/messaging/preferences/student-1";
    world.request(Method::PUT, path, Some(SERVICE), Some(&agreed)).await.expect(200);
    world.event(&json!({ "user_id": "student-1", "crisis_score": 0.93, "source": "chat" })).await.expect(202);
    world.work().await;
    // Half a minute without a receipt: the text message has its turn. Both arrive five seconds later.
    world.pass(seconds(30)).await;
    world.pass(seconds(5)).await;
    for _ in 0..2 {
        world.receipts().await;
    }
    world.pass(seconds(25)).await;
    world.pass(seconds(2)).await;
    // The first two are read; the lead's is sent and delivered.
    for _ in 0..3 {
        world.receipts().await;
    }
    let answer = get(&world, "/metrics").await;
    let figures = parse(&answer.text);
    for (name, channel, step, sum) in [
        ("provider", "whatsapp", 1, 0.0),
        ("provider", "sms", 1, 0.0),
        ("provider", "whatsapp", 2, 0.0),
        ("delivered", "whatsapp", 1, 35.0),
        ("delivered", "sms", 1, 5.0),
        ("delivered", "whatsapp", 2, 2.0),
    ] {
        let of = |part: &str| {
            let way = format!("{{channel=\"{channel}\",step=\"{step}\"}}");
            figures.get(&format!("crisis_relay_time_to_{name}_seconds_{part}{way}")).copied()
        };
        assert_eq!((of("count"), of("sum")), (Some(1.0), Some(sum)), "{name} {channel} {step}:\n{}", answer.text);
    }
    let of_cases = |name: &str| -> f64 {
        let name = format!("crisis_relay_case_time_to_{name}");
        figures.iter().filter(|(series, _)| series.starts_with(&name)).map(|(_, value)| value).sum()
    };
    assert_eq!((of_cases("provider_seconds_count"), of_cases("provider_seconds_sum")), (1.0, 0.0));
    assert_eq!((of_cases("delivered_seconds_count"), of_cases("delivered_seconds_sum")), (1.0, 35.0));
}

#[tokio::test]
async fn a_case_of_more_messages_than_are_kept_is_as_slow_as_it_was() {
    let mut world = Setting::default()
        .with("CRISIS_RELAY__POLICY__ROUNDS", "1")
        .with("CRISIS_RELAY__POLICY__REPEAT_EVERY", "30s")
        .with("CRISIS_RELAY__POLICY__LAST_RESPONDER_EVERY", "30s")
        .start()
        .await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    for _ in 0..2 {
        world.receipts().await;
    }
    world.pass_in_steps(Duration::from_secs(1_800), Duration::from_secs(10)).await;
    let kept = world.alert(&reference).await["deliveries"].as_array().unwrap().clone();
    assert!(kept.len() == 32 && kept[0]["delivery"] != 1, "the first were dropped: {}", kept[0]);
    for _ in 0..2 {
        world.receipts().await;
    }
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    let answer = get(&world, "/metrics").await;
    let figures = parse(&answer.text);
    for (name, value) in [
        ("time_to_acknowledged_seconds_count{channel=\"api\",step=\"last\"}", Some(1.0)),
        ("time_to_acknowledged_seconds_sum{channel=\"api\",step=\"last\"}", Some(1_800.0)),
        // It arrived once for the first time, however often it did since.
        ("case_time_to_delivered_seconds_count{channel=\"whatsapp\",step=\"1\"}", Some(1.0)),
        ("case_time_to_delivered_seconds_count{channel=\"whatsapp\",step=\"last\"}", None),
    ] {
        assert_eq!(figures.get(&format!("crisis_relay_{name}")).copied(), value, "{name}:\n{}", answer.text);
    }
    let arrived = figures.get("crisis_relay_time_to_delivered_seconds_count{channel=\"whatsapp\",step=\"last\"}");
    assert!(arrived.is_some_and(|count| *count > 20.0), "{arrived:?}");
}

#[tokio::test]
async fn work_that_nobody_takes_up_shows_how_overdue_it_is() {
    let setting =
        Setting::default().with("CRISIS_RELAY__WORKER__QUEUE_MAX", "1").with("CRISIS_RELAY__WORKER__DUE_BATCH", "1");
    let mut world = setting.start().await;
    let first = world.escalated("student-1").await.text_at("/reference");
    // The only place is taken: this one is durable, and waits for the poll.
    let second = world.escalated("student-2").await.text_at("/reference");
    world.clock.advance(Duration::from_secs(20));
    world.worker().round().await;
    assert_eq!(world.metric("crisis_relay_oldest_due_seconds").await, Some(20.0));
    assert_eq!(world.metric("crisis_relay_in_hand").await, Some(1.0));
    world.work().await;
    world.pass_in_steps(Duration::from_secs(10), Duration::from_secs(5)).await;
    assert_eq!(world.metric("crisis_relay_oldest_due_seconds").await, Some(0.0));
    for reference in [first, second] {
        world.expect_told(&reference);
    }
    world.sim().assert_no_unexpected();
}

#[tokio::test]
async fn a_refused_webhook_is_counted_by_its_reason() {
    let world = World::new().await;
    world.post("/webhooks/twilio/status", "", &json!({ "MessageSid": "SM1" })).await.expect(403);
    assert_eq!(world.metric("crisis_relay_webhooks_refused_total{kind=\"signature\"}").await, Some(1.0));
}

#[tokio::test]
async fn a_case_taken_late_shows_on_which_rung_over_what_and_that_it_was_reopened() {
    let file = "[[contacts]]\nid = 'lead'\nrole = 'lead'\nwhatsapp_to = '+919800000018'\n\
        [[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp']\n\
        [[policy.steps]]\nafter = '60s'\ncontacts = ['lead']\nchannels = ['whatsapp']";
    let mut world = Setting::default().with_file(file).start().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.pass(Duration::from_secs(60)).await;
    let path = format!("/api/v1/crisis/alerts/{reference}/acknowledge");
    world.post(&path, COUNSELLOR_KEY, &json!({})).await.expect(200);
    // Nothing follows: it is told again, and taken on the first rung, by phone.
    world.pass_in_steps(Duration::from_secs(15 * 60), Duration::from_secs(30)).await;
    world.sim().reply(COUNSELLOR, "1").await.unwrap();
    let figures = parse(&get(&world, "/metrics").await.text);
    for (name, value) in [
        ("time_to_acknowledged_seconds_count{channel=\"api\",step=\"2\"}", 1.0),
        ("time_to_acknowledged_seconds_count{channel=\"whatsapp\",step=\"1\"}", 1.0),
        ("steps_until_acknowledged_sum", 3.0),
        ("reopened_total", 1.0),
    ] {
        assert_eq!(figures.get(&format!("crisis_relay_{name}")), Some(&value), "{name}");
    }
}
