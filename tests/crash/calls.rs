//! Phone calls while the service is killed: whoever heard that the case is theirs has it, whatever was killed when; and nobody
//! is left uncalled.
//!
//! Everybody is told by phone alone. Phones are picked up or not, by people who press 1, or 2, or nothing, by machines; answers
//! of create calls and callbacks get lost. After each kill the database must know of every key whose answer somebody heard. In
//! the end, when everybody presses 1, every case is taken by a key, and no attempt was called twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::{SeededEntropy, SystemClock};
use crisis_relay::domain::alert::{AckVia, AlertState};
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::ids::AlertId;
use crisis_relay::domain::message::Purpose;
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::simulator::{CallbackMode, Fault, FaultRule, SimCall, Simulator, SimulatorConfig};
use serde_json::json;

use crate::front::Front;
use crate::load::BACKEND_KEY;
use crate::plan::Dice;
use crate::process::Relay;
use crate::snapshot::{self, FILE, Snapshot};
use crate::verdict::attempt_of;

const STUDENTS: usize = 60;
const KILLS: usize = 15;
const REST_WITHIN: Duration = Duration::from_secs(120);

/// Two people, over the phone alone.
const LADDER: &str = r#"
[counsellor]
whatsapp_to = "+919800000017"
voice_to = "+919800000017"
[[contacts]]
id = "colleague"
role = "counsellor"
voice_to = "+919800000037"
[policy]
rounds = 50
repeat_every = "10s"
[[policy.steps]]
contacts = ["counsellor"]
channels = ["voice"]
[[policy.steps]]
after = "1s"
contacts = ["colleague"]
channels = ["voice"]
"#;

fn faults(seed: u64) -> Vec<FaultRule> {
    let often = |p: f64, n: u64, fault: Fault| FaultRule::with_probability(p, seed ^ (n << 40), fault);
    vec![
        often(0.30, 1, Fault::PhonePresses { key: '1' }),
        often(0.15, 2, Fault::PhonePresses { key: '2' }),
        often(0.20, 3, Fault::PhoneBusy),
        often(0.30, 4, Fault::PhoneVoicemail),
        often(0.50, 5, Fault::PhoneListens),
        often(0.50, 6, Fault::PhonePresses { key: '9' }),
        FaultRule::always(Fault::PhoneBusy),
        often(0.10, 7, Fault::CallbacksLost),
        often(0.10, 8, Fault::CallbacksRepeated { times: 1 }),
        often(0.10, 9, Fault::CallbacksReordered),
        often(0.06, 10, Fault::DropAfterAccepting),
        often(0.04, 11, Fault::DropBeforeAccepting),
        often(0.03, 12, Fault::AcceptThenTimeOut),
    ]
}

fn settings(twilio: &Simulator, front: &Front) -> Vec<(&'static str, String)> {
    let account = SimulatorConfig::default();
    [
        ("CRISIS_RELAY_CONFIG", "ladder.toml".to_owned()),
        ("DATABASE_PATH", FILE.to_owned()),
        ("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", "master.key".to_owned()),
        ("TWILIO_ACCOUNT_SID", account.account_sid),
        ("TWILIO_AUTH_TOKEN", account.auth_token.expose().to_owned()),
        ("TWILIO_WHATSAPP_FROM", "+14155238886".to_owned()),
        ("TWILIO_VOICE_FROM", "+14155238886".to_owned()),
        ("TWILIO_API_BASE_URL", twilio.url()),
        ("TWILIO_WEBHOOK_BASE_URL", front.url().to_owned()),
        ("API_KEY_SERVICE_SHA256", ApiKeyHash::of(BACKEND_KEY).to_string()),
        ("CRISIS_RELAY__TWILIO__CALLS_PER_SECOND", "200".to_owned()),
        ("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s".to_owned()),
        ("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "1s".to_owned()),
        ("CRISIS_RELAY__DELIVERY__LEASE", "10s".to_owned()),
        ("CRISIS_RELAY__DELIVERY__LOOK_UP_FIRST", "300ms".to_owned()),
        ("CRISIS_RELAY__DELIVERY__LOOK_UP_THEN", "500ms".to_owned()),
        ("CRISIS_RELAY__DELIVERY__RECEIPT_POLL_FIRST", "2s".to_owned()),
        ("CRISIS_RELAY__POLICY__RETRY_WHEN_ALL_FAILED", "1s".to_owned()),
        ("CRISIS_RELAY__WORKER__POLL", "50ms".to_owned()),
    ]
    .into()
}

/// Posts an event until it is answered; gives the case.
async fn posted(client: reqwest::Client, url: String, number: usize) -> AlertId {
    let body = json!({
        "user_id": format!("student-{number}"), "crisis_score": 0.93, "source": "chat",
        "emergency_override": { "by": "Dr. A. Rao", "reason": "life is at risk" },
    });
    loop {
        let request = client.post(format!("{url}/api/v1/crisis/events")).bearer_auth(BACKEND_KEY).json(&body);
        if let Ok(answer) = request.header("Idempotency-Key", format!("event-{number}")).send().await
            && answer.status() == 202
            && let Ok(told) = answer.json::<serde_json::Value>().await
        {
            return told["alert_id"].as_str().unwrap().parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

fn case_of(call: &SimCall) -> AlertId {
    attempt_of(call.url.as_deref()).unwrap().alert
}

fn heard(call: &SimCall, words: &str) -> bool {
    call.said.iter().any(|said| said.contains(words))
}

/// What must hold of a database: everything that somebody heard is on it.
fn hold(when: &str, found: &Snapshot, calls: &[SimCall]) {
    let mut broken = found.faults.clone();
    for call in calls {
        let Some(alert) = found.alerts.get(&case_of(call)) else {
            broken.push(format!("a call of the case {}, which is not there", case_of(call)));
            continue;
        };
        let by_key = matches!(alert.state, AlertState::Acknowledged { via: AckVia::Keypress, .. });
        if heard(call, "The case is yours") && !by_key {
            broken.push(format!("{} was told to be somebody's, and is {:?}", alert.id, alert.state));
        }
    }
    assert!(broken.is_empty(), "{when}, {} things do not hold:\n{}", broken.len(), broken.join("\n"));
}

/// One world of calls, killed again and again.
pub(crate) async fn live_through(seed: u64) -> String {
    let mut dice = Dice::new(seed);
    let callbacks = CallbackMode::Automatic {
        sent_after: Duration::from_millis(10),
        delivered_after: Duration::from_millis(30),
        read_after: None,
    };
    let hold_open = Duration::from_millis(2_300);
    let config = SimulatorConfig { callbacks, faults: faults(seed), hold: hold_open, ..SimulatorConfig::default() };
    let twilio = Simulator::start(config, Arc::new(SystemClock), Arc::new(SeededEntropy::new(seed))).await.unwrap();
    let (front, folder) = (Front::start().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("ladder.toml"), LADDER).unwrap();
    let settings = settings(&twilio, &front);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let url = front.url().to_owned();
    let posting = tokio::spawn(async move {
        let mut cases = Vec::new();
        for number in 0..STUDENTS {
            cases.push(posted(client.clone(), url.clone(), number).await);
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        cases
    });
    for kill in 1..=KILLS {
        let relay = Relay::begin(folder.path(), &settings);
        front.lead_to(relay.address());
        tokio::time::sleep(Duration::from_millis(100) + dice.pause(700)).await;
        // What was heard by now was committed before.
        let calls = twilio.handle().calls();
        relay.kill();
        front.lead_nowhere();
        let copy = snapshot::copy(folder.path());
        hold(&format!("after kill {kill}"), &Snapshot::read(copy.path()), &calls);
    }
    let relay = Relay::begin(folder.path(), &settings);
    front.lead_to(relay.address());
    let cases: BTreeSet<AlertId> = posting.await.unwrap().into_iter().collect();
    twilio.handle().clear_faults();
    assert!(twilio.handle().push_fault(FaultRule::always(Fault::PhonePresses { key: '1' })));
    let until = tokio::time::Instant::now() + REST_WITHIN;
    loop {
        let calls = twilio.handle().calls();
        let taken: BTreeSet<AlertId> =
            calls.iter().filter(|call| heard(call, "The case is yours")).map(case_of).collect();
        if cases.is_subset(&taken) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "{} of {} were taken:\n{}",
            taken.len(),
            cases.len(),
            relay.last_words()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ended = relay.ended(Duration::from_secs(40)).await;
    assert!(ended.success(), "asked to end, it ended with {ended}");
    judge(&twilio, &Snapshot::read(folder.path()), &cases)
}

fn judge(twilio: &Simulator, disk: &Snapshot, cases: &BTreeSet<AlertId>) -> String {
    let calls = twilio.handle().calls();
    hold("at the end", disk, &calls);
    assert_eq!(disk.alerts.keys().copied().collect::<BTreeSet<_>>(), *cases, "a case for each student, and no other");
    let mut seen = HashSet::new();
    for request in twilio.handle().requests() {
        // Questions and written messages name none.
        let Some(attempt) = attempt_of(request.get("Url")) else { continue };
        assert!(seen.insert(attempt), "{attempt:?} was called twice");
    }
    for alert in disk.alerts.values() {
        let AlertState::Acknowledged { via: AckVia::Keypress, at, .. } = alert.state else {
            panic!("{} was not taken by a key: {:?}", alert.id, alert.state);
        };
        // Who was told before hears afterwards that it is taken, in writing; nobody is called.
        let calls = alert.deliveries.iter().filter(|delivery| delivery.channel == Channel::Voice);
        let begun = calls.flat_map(|delivery| &delivery.attempts).map(|attempt| attempt.begun_at);
        assert!(begun.max().is_some_and(|last| last <= at), "{} was called after it was taken", alert.id);
        let written = alert.deliveries.iter().filter(|delivery| delivery.channel != Channel::Voice);
        for delivery in written {
            assert_eq!(delivery.purpose, Purpose::TakenNotice, "{} asked somebody in writing: {delivery:?}", alert.id);
        }
    }
    let pressed = calls.iter().filter(|call| !call.keys.is_empty()).count();
    format!(
        "{} cases, {KILLS} kills, {} calls, {pressed} with a key, {} audit entries",
        cases.len(),
        calls.len(),
        disk.entries
    )
}
