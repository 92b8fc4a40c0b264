//! What is stored today must be read by every later version, for as long as alerts are kept.
//!
//! `golden/alerts.json` has an alert in every state, with a delivery in every state and an attempt with every result.
//! `golden/story.txt` is the audit of one story. If a test here fails, the stored form has changed: alerts that are
//! open during an update would be lost. Read the old form too (a default, an alias, a migration), and only then write
//! the new one with `PROPERTIES_REGENERATE=1 cargo test --test properties stored_form`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{
    AckVia, Alert, AlertState, Asked, EmergencyClock, FollowUp, Input, Kind, Outcome, Reached, Taken, WithheldReason,
};
use crisis_relay::domain::audit::{Actor, AuditHead};
use crisis_relay::domain::consent::{ChannelConsent, ConsentRecord, DisclosureGround, EmergencyContact};
use crisis_relay::domain::contact::{Channel, ContactRole};
use crisis_relay::domain::delivery::{
    Attempt, AttemptResult, Delivery, DeliveryState, Disclosed, FailureReason, Lease,
};
use crisis_relay::domain::event::Source;
use crisis_relay::domain::ids::{AddressKey, AttemptNo, CodeHash, DeliveryNo, PersonKey, SubjectKey};
use crisis_relay::domain::message::Purpose;
use crisis_relay::domain::method::{Method, PendingCode, SentCode, Standing};
use crisis_relay::domain::policy::{Policy, Stage, Step, Target};
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, ProviderFault, Receipt, SendOutcome, UnknownCause};

use crate::driver::Driver;
use crate::found::college;
use crate::steps::{CLASSES, STATUSES, provider_id};
use crate::world::{Granted, at, contact_id, new_alert, person, score, sealed, start_plus, trigger};

const CHANGED: &str = "the stored form has changed; what to do stands at the top of tests/properties/stored_form.rs";

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/properties/golden", name].iter().collect()
}

/// The committed text; it is written anew where the environment asks for that.
fn committed(name: &str, now: &str) -> String {
    if std::env::var_os("PROPERTIES_REGENERATE").is_some() {
        std::fs::write(golden(name), now).unwrap();
    }
    std::fs::read_to_string(golden(name)).unwrap()
}

#[test]
fn alerts_are_stored_in_the_form_that_earlier_versions_stored_them_in() {
    let alerts = alerts();
    let now = serde_json::to_string_pretty(&alerts).unwrap() + "\n";
    let stored = committed("alerts.json", &now);
    assert_eq!(now, stored, "{CHANGED}");
    let read: Vec<Alert> = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, alerts, "{CHANGED}");
}

#[test]
fn an_audit_is_written_in_the_form_that_earlier_versions_wrote_it_in() {
    let chain = story();
    let now: String = chain.iter().map(|entry| format!("{} {}\n", entry.hash, entry.canonical)).collect();
    assert_eq!(now, committed("story.txt", &now), "{CHANGED}");
}

/// One who has said nothing of emergency contacts, as before there were any, and one who has named somebody.
#[test]
fn what_students_said_is_stored_in_the_form_that_earlier_versions_stored_it_in() {
    let source = || "app_settings".parse().unwrap();
    let word = |granted| ChannelConsent { granted, at: start_plus(1), source: source(), notice_version: None };
    let plain = ConsentRecord {
        channels: [(Channel::Sms, word(false))].into(),
        version: 3,
        ..ConsentRecord::empty("mitra".parse().unwrap(), SubjectKey::from_bytes([9; 32]))
    };
    let address_key = AddressKey::from_bytes([2; 32]);
    let method = |channel, standing, code| Method { channel, address: sealed("address"), address_key, standing, code };
    let code = PendingCode { hash: CodeHash::from_bytes([4; 32]), sent_at: start_plus(2), tries_left: 2 };
    let named = EmergencyContact {
        id: "e-k7q4tx3m".parse().unwrap(),
        version: 2,
        name: sealed("name"),
        language: "hi".parse().unwrap(),
        methods: vec![
            method(Channel::Sms, Standing::Verified { at: start_plus(3) }, None),
            method(Channel::Whatsapp, Standing::Unverified, Some(code)),
            method(Channel::Voice, Standing::OptedOut { since: start_plus(4), verified_at: None }, None),
        ],
        consent: Some(word(true)),
    };
    let with = ConsentRecord {
        emergency_contacts: vec![named.clone(), EmergencyContact { consent: None, methods: Vec::new(), ..named }],
        codes_sent: vec![SentCode { at: start_plus(2), channel: Channel::Whatsapp, address: address_key }],
        ..plain.clone()
    };
    let records = [plain, with];
    let now = serde_json::to_string_pretty(&records).unwrap() + "\n";
    let stored = committed("consents.json", &now);
    assert_eq!(now, stored, "{CHANGED}");
    assert_eq!(serde_json::from_str::<[ConsentRecord; 2]>(&stored).unwrap(), records, "{CHANGED}");
    assert!(!serde_json::to_string(&records[0]).unwrap().contains("emergency"), "what is not there is not stored");
}

/// What may be left out is left out where there is nothing, and read as nothing.
#[test]
fn an_alert_is_read_although_what_may_be_absent_is() {
    for mut alert in alerts() {
        let mut json = serde_json::to_value(&alert).unwrap();
        // Nobody kept who was told on a stage, which rungs were vacant, who had a case before it was closed, or what a
        // message followed.
        for absent in ["asked", "vacant", "taken"] {
            json["state"].as_object_mut().unwrap().remove(absent);
        }
        for delivery in json["deliveries"].as_array_mut().unwrap() {
            for absent in ["follows", "in_turn"] {
                delivery.as_object_mut().unwrap().remove(absent);
            }
            // Nor when a message arrived, apart from its last status.
            for attempt in delivery["attempts"].as_array_mut().unwrap() {
                attempt.as_object_mut().unwrap().remove("arrived_at");
            }
        }
        match &mut alert.state {
            AlertState::Escalating { asked, vacant, .. } => (*asked, *vacant) = (Vec::new(), Vec::new()),
            AlertState::Resolved { taken, .. } => *taken = None,
            AlertState::Withheld { .. } | AlertState::Acknowledged { .. } => {}
        }
        for delivery in &mut alert.deliveries {
            (delivery.follows, delivery.in_turn) = (None, Vec::new());
            delivery.attempts.iter_mut().for_each(|attempt| attempt.arrived_at = None);
        }
        alert.reached = None;
        for absent in ["paged_severity", "ground", "reached"] {
            json.as_object_mut().unwrap().remove(absent);
        }
        // Ladders had no next channel once.
        json["policy"].as_object_mut().unwrap().remove("fall_over_after");
        // And the last responder's turn came after all rounds: that is not written.
        assert!(json["policy"].get("further_rounds_with_last").is_none());
        let joined = Policy { further_rounds_with_last: true, ..(*alert.policy).clone() };
        assert_eq!(serde_json::to_value(&joined).unwrap()["further_rounds_with_last"], true);
        let read: Alert = serde_json::from_value(json).unwrap();
        assert!(!read.policy.further_rounds_with_last);
        assert_eq!(read.policy.fall_over_after, Duration::from_secs(30));
        assert_eq!(read, Alert { paged_severity: None, ground: None, policy: Arc::clone(&read.policy), ..alert });
    }
}

/// An alert in each state, or more. A new state has no arm here, and stops the compiler until it has an example.
fn alerts() -> Vec<Alert> {
    let states = [
        AlertState::Withheld { why: WithheldReason::NoConsent, since: start_plus(1) },
        AlertState::Escalating {
            stage: Stage::LastResponder { times: 7 },
            next_step_at: start_plus(2),
            asked: vec![
                Asked { contact: contact_id(0), passed: true },
                Asked { contact: contact_id(1), passed: false },
            ],
            vacant: vec![1],
        },
        AlertState::Acknowledged {
            by: Actor::Contact { contact: contact_id(1) },
            via: AckVia::Reply,
            at: start_plus(3),
            action_due_at: start_plus(4),
            reminded_at: Some(start_plus(4)),
        },
        AlertState::Resolved {
            by: person(),
            outcome: Outcome::SafeInPerson,
            at: start_plus(5),
            follow_up: Some(FollowUp { is_told: true, ..FollowUp::due(start_plus(7)) }),
            taken: Some(Taken { by: Actor::Contact { contact: contact_id(1) }, via: AckVia::Reply, at: start_plus(3) }),
        },
        AlertState::Acknowledged {
            by: Actor::Contact { contact: contact_id(2) },
            via: AckVia::Keypress,
            at: start_plus(3),
            action_due_at: start_plus(4),
            reminded_at: None,
        },
    ];
    let examples = states.into_iter().map(|state| {
        let example = alert();
        match state {
            AlertState::Withheld { .. } => Alert { state, ..example },
            AlertState::Escalating { .. } => Alert {
                state,
                ground: Granted::Override.ground(start_plus(0)),
                paged_severity: Some(score(0.91)),
                deliveries: deliveries(),
                reached: Some(Reached {
                    since: start_plus(1),
                    provider_at: Some(start_plus(9)),
                    phone_at: Some(start_plus(10)),
                }),
                emergency: Some(EmergencyClock::Told { at: start_plus(6) }),
                ..example
            },
            AlertState::Acknowledged { .. } => Alert {
                state,
                kind: Kind::Drill,
                ground: Granted::Consent(&Channel::ALL).ground(start_plus(0)),
                paged_severity: Some(score(1.0)),
                trigger: trigger(start_plus(6), None),
                ..example
            },
            AlertState::Resolved { .. } => Alert { state, ..example },
        }
    });
    examples.collect()
}

fn alert() -> Alert {
    let world = college();
    let new = new_alert(&world, start_plus(0), Some(score(0.123_456_789_012_345_67)), Granted::Nothing);
    Alert {
        id: new.id,
        reference: new.reference,
        organisation: new.organisation,
        subject: new.subject,
        kind: new.kind,
        version: 42,
        opened_at: start_plus(0),
        updated_at: at("2026-11-20T10:00:07.123456789Z"),
        identity: new.identity,
        severity: score(0.93),
        paged_severity: None,
        trigger: new.trigger,
        events: 3,
        ground: None,
        policy: Arc::new(policy()),
        state: AlertState::Withheld { why: WithheldReason::NoConsent, since: start_plus(0) },
        deliveries: Vec::new(),
        deliveries_planned: 33,
        reached: None,
        emergency: None,
        replies: 2,
        outside_replies: 2,
        climb_from: 1,
        audit_head: AuditHead::EMPTY,
    }
}

fn policy() -> Policy {
    let step = Step {
        after: Duration::from_millis(1500),
        targets: vec![
            Target::Contact(contact_id(0)),
            Target::Contact(contact_id(1)),
            Target::Role(ContactRole::Lead),
            Target::Schedule("nights".parse().unwrap()),
        ],
        channels: vec![Channel::Whatsapp, Channel::Sms, Channel::Voice],
    };
    Policy { steps: vec![step], ..(*college().policy).clone() }
}

/// A delivery in each state, and among them an attempt with each result, each status and each class of fault.
fn deliveries() -> Vec<Delivery> {
    let attempt = AttemptNo(1);
    let lease = Lease { owner: "instance-1".to_owned(), until: start_plus(30) };
    let failed = |reason, class| DeliveryState::Failed { reason, fault: fault(class), at: start_plus(12) };
    let mut states = vec![
        DeliveryState::Due { at: start_plus(10) },
        DeliveryState::Sending { attempt, lease },
        DeliveryState::Unknown { attempt, since: start_plus(10), look_ups: 2, next_look_up_at: start_plus(15) },
        DeliveryState::Failed { reason: FailureReason::NotComposable, fault: None, at: start_plus(11) },
        DeliveryState::Failed { reason: FailureReason::NotReached, fault: None, at: start_plus(12) },
        DeliveryState::Cancelled { at: start_plus(13) },
    ];
    states.extend(CLASSES.map(|class| failed(FailureReason::Refused, class)));
    states.push(failed(FailureReason::Exhausted, ErrorClass::Retry));
    states.extend(STATUSES.map(|status| {
        let poll_at = (!status.has_arrived()).then(|| start_plus(60));
        DeliveryState::Accepted { attempt, status, polls: 1, poll_at }
    }));
    let results = results();
    let numbered = (1..).zip(states);
    numbered.map(|(no, state)| delivery(no, state, results[no as usize % results.len()])).collect()
}

/// Every result that an attempt can have.
fn results() -> Vec<AttemptResult> {
    let causes = [
        UnknownCause::TimeOut,
        UnknownCause::ConnectionLost,
        UnknownCause::ServerError,
        UnknownCause::UnreadableAnswer,
        UnknownCause::LeaseExpired,
        UnknownCause::OwnerDied,
    ];
    let others = [
        AttemptResult::Pending,
        AttemptResult::Accepted,
        AttemptResult::NotExecuted,
        AttemptResult::Refused,
        AttemptResult::NotFound,
        AttemptResult::Unresolved,
    ];
    causes.map(AttemptResult::Unknown).into_iter().chain(others).collect()
}

fn fault(class: ErrorClass) -> Option<ProviderFault> {
    let delay_s = matches!(class, ErrorClass::Delay).then_some((30, 300));
    Some(ProviderFault { code: Some(63_016), class, delay_s })
}

fn delivery(no: u32, state: DeliveryState, result: AttemptResult) -> Delivery {
    let (no, attempt) = (DeliveryNo(no), AttemptNo(1));
    let accepted = matches!(result, AttemptResult::Accepted);
    let status = STATUSES[no.0 as usize % STATUSES.len()];
    let disclosed = Disclosed {
        template: "counsellor_alert".to_owned(),
        template_version: 1,
        language: "en".parse().unwrap(),
        text_sha256: "ab".repeat(32),
    };
    let roles = [ContactRole::Counsellor, ContactRole::Lead, ContactRole::DutyManager, ContactRole::EmergencyContact];
    Delivery {
        no,
        stage: Stage::Step { round: 1, step: 0 },
        purpose: match no.0 {
            3 => Purpose::TakenNotice,
            5 | 6 => Purpose::EmergencyContact,
            _ => Purpose::CounsellorAlert,
        },
        contact: contact_id(0),
        person: PersonKey::from_bytes([1; 32]),
        role: roles[no.0 as usize % roles.len()],
        language: "hi".parse().unwrap(),
        channel: Channel::ALL[no.0 as usize % Channel::ALL.len()],
        address: sealed("address"),
        address_key: AddressKey::from_bytes([2; 32]),
        disclosure: disclosure(no.0),
        score: (no.0 % 2 == 0).then(|| score(0.9)),
        planned_at: start_plus(8),
        fall_over_at: no.0.is_multiple_of(2).then(|| start_plus(90)),
        follows: (no.0 % 4 == 3).then(|| DeliveryNo(no.0 - 1)),
        in_turn: if no.0 % 5 == 4 { vec![Channel::Sms, Channel::Voice] } else { Vec::new() },
        paused_once: no.0 % 3 == 0,
        attempts: vec![Attempt {
            no: attempt,
            begun_at: start_plus(9),
            disclosed,
            result,
            provider_id: accepted.then(|| provider_id(no, attempt, false)),
            status: accepted.then_some(status),
            status_at: accepted.then(|| start_plus(10)),
            arrived_at: accepted.then(|| start_plus(10)),
            fault: if accepted { None } else { fault(ErrorClass::Delay) },
        }],
        state,
    }
}

/// Either ground of a message to an emergency contact.
fn disclosure(no: u32) -> Option<DisclosureGround> {
    match no {
        5 => Some(DisclosureGround::ContactConsent {
            version: 7,
            granted_at: start_plus(1),
            notice_version: Some("notice-2026-01".parse().unwrap()),
        }),
        6 => Some(DisclosureGround::Decision {
            statement: sealed("statement"),
            by: Actor::Machine { key: "counsellor-1".to_owned() },
            at: start_plus(2),
        }),
        _ => None,
    }
}

#[test]
fn every_source_of_events_is_stored_under_its_name() {
    for source in [Source::Chat, Source::Voice, Source::Mood, Source::Manual] {
        assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
    }
}

/// Withheld, overridden, tried, looked for, refused, taken, reopened and closed.
fn story() -> Vec<crisis_relay::domain::audit::AuditEntry> {
    let world = college();
    let (mut driver, _) = Driver::open(&world, Some(score(0.85)), Granted::Nothing, true).unwrap();
    let mut happens = |seconds: i64, input: Input| {
        driver.now = start_plus(seconds);
        driver.step(&input, true).unwrap().unwrap();
    };
    let wake = || Input::Wake { sole_owner_restarted: false };
    let (delivery, attempt) = (DeliveryNo(1), AttemptNo(1));
    let settled = |delivery, attempt, outcome| Input::Settled { delivery, attempt, outcome };
    let receipt = |status, fault| Receipt { provider_id: provider_id(delivery, AttemptNo(2), false), status, fault };
    let received = |status, fault| Input::Received { delivery, attempt: AttemptNo(2), receipt: receipt(status, fault) };
    happens(1, Input::Joined { trigger: trigger(start_plus(1), Some(score(0.9))), ground: None });
    happens(2, Input::Overridden { ground: Granted::Override.ground(start_plus(2)).unwrap() });
    happens(3, settled(delivery, attempt, SendOutcome::Unknown { cause: UnknownCause::TimeOut, retry_after: None }));
    for seconds in [5, 11, 17] {
        happens(seconds, wake());
        happens(seconds, Input::NotFound { delivery, attempt, answered: true });
    }
    let busy = SendOutcome::NotExecuted { retry_after: Some(Duration::from_secs(5)), fault: fault(ErrorClass::Retry) };
    let accepted = SendOutcome::Accepted {
        provider_id: provider_id(delivery, AttemptNo(2), false),
        status: MessageStatus::Queued,
    };
    happens(18, settled(delivery, AttemptNo(2), accepted));
    happens(19, received(MessageStatus::Sent, None));
    happens(20, received(MessageStatus::Undelivered, fault(ErrorClass::Switch)));
    happens(50, wake());
    happens(51, settled(DeliveryNo(2), attempt, busy));
    happens(52, Input::Acknowledge { via: AckVia::Api });
    happens(952, wake());
    happens(
        960,
        Input::Resolve {
            outcome: Outcome::SafetyPlan,
            note: Some(sealed("note")),
            follow_up_at: Some(start_plus(990)),
        },
    );
    driver.chain
}
