//! Requests made from the API's own description: good ones, nearly good ones and wild ones, to every operation.
//!
//! Whatever is sent, no answer is the service's fault (5xx), each is one that the description allows (status, media type,
//! schema, problem code, headers), and none repeats a value that was sent.
//!
//! - `schema`: values from schemas, good and spoilt. `request`: requests from operations. `world`: the service that is
//!   asked, and what is held of each answer.
//!
//! Each operation gets the same requests in each run. `GENERATED_SEED=7 cargo test --test generated` makes others, and
//! `PROPERTIES_TIMES=50` fifty times as many. A failure prints the smallest request that shows it, and the seed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

#[path = "../common/mod.rs"]
mod common;
mod request;
mod schema;
mod world;

use std::collections::BTreeMap;

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::common::described;
use crate::world::Asked;

/// Stands in every value that is sent, where there is room for it.
const CANARY: &str = "canary7791";

/// How many requests each operation gets, times `PROPERTIES_TIMES`.
const CASES: u32 = 250;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Sends generated requests to one operation, and says how often each status was answered.
fn send_to(method: &str, path: &str) -> BTreeMap<u16, u32> {
    let seed = number_from("GENERATED_SEED", 1);
    let times = u32::try_from(number_from("PROPERTIES_TIMES", 1)).unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: CASES.saturating_mul(times), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let asked = Asked::begin();
    let (_, _, operation) = described::operations()
        .into_iter()
        .find(|(known, template, _)| known == method && template == path)
        .unwrap_or_else(|| panic!("{method} {path} is not described"));
    let ran = runner.run(&request::requests(method, path, operation, &asked.names), |request| asked.ask(&request));
    match ran {
        Ok(()) => asked.statuses(),
        Err(TestError::Fail(why, request)) => {
            panic!("GENERATED_SEED={seed} {method} {path}: {why}\nthe smallest request: {request:#?}")
        }
        Err(TestError::Abort(why)) => panic!("GENERATED_SEED={seed} {method} {path}: {why}"),
    }
}

/// One test for each operation: they run side by side. The last names every operation that is described.
macro_rules! operations {
    ($($name:ident: $method:literal $path:literal -> $($status:literal)*;)*) => {
        $(
            #[test]
            fn $name() {
                let answered = send_to($method, $path);
                // Without each of these, the requests would be too good or too bad to find anything.
                for status in [$($status),*] {
                    assert!(answered.contains_key(&status), "{status} was never answered: {answered:?}");
                }
            }
        )*

        #[test]
        fn every_operation_is_asked() {
            let mut asked = vec![$(($method.to_owned(), $path.to_owned())),*];
            let mut all: Vec<_> = described::operations().into_iter().map(|(method, path, _)| (method, path)).collect();
            asked.sort();
            all.sort();
            assert_eq!(asked, all);
        }
    };
}
operations! {
    events: "POST" "/api/v1/crisis/events" -> 202 400 401 403 415 422;
    escalate: "POST" "/api/v1/crisis/escalate" -> 202 400 401 403 415 422;
    list_alerts: "GET" "/api/v1/crisis/alerts" -> 200 400 401 403 422;
    get_alert: "GET" "/api/v1/crisis/alerts/{id}" -> 200 400 401 403 404 422;
    acknowledge: "POST" "/api/v1/crisis/alerts/{id}/acknowledge" -> 200 401 403 404 409 422;
    start_drill: "POST" "/api/v1/crisis/drills" -> 201 401 403 409 422;
    list_drills: "GET" "/api/v1/crisis/drills" -> 200 401 403;
    get_drill: "GET" "/api/v1/crisis/drills/{id}" -> 401 403 404 422;
    check_in: "POST" "/api/v1/crisis/alerts/{id}/check-in" -> 200 401 403 404 409 422;
    resolve: "POST" "/api/v1/crisis/alerts/{id}/resolve" -> 200 400 401 403 404 409 415 422;
    escalate_alert: "POST" "/api/v1/crisis/alerts/{id}/escalate" -> 200 400 401 403 404 409 415 422;
    reveal: "POST" "/api/v1/crisis/alerts/{id}/reveal" -> 200 401 403 404 422;
    get_audit: "GET" "/api/v1/crisis/alerts/{id}/audit" -> 200 400 401 403 404 422;
    list_contacts: "GET" "/api/v1/contacts" -> 200 401 403;
    add_contact: "POST" "/api/v1/contacts" -> 201 400 401 403 415 422;
    get_contact: "GET" "/api/v1/contacts/{id}" -> 200 401 403 404 422;
    put_contact: "PUT" "/api/v1/contacts/{id}" -> 400 401 403 404 415 422;
    delete_contact: "DELETE" "/api/v1/contacts/{id}" -> 401 403 404 422;
    reveal_contact: "POST" "/api/v1/contacts/{id}/reveal" -> 200 401 403 404 422;
    send_code: "POST" "/api/v1/contacts/{id}/methods/{channel}/verification" -> 202 401 403 404 422;
    confirm_code: "POST" "/api/v1/contacts/{id}/methods/{channel}/verification/confirm" -> 400 401 403 404 415 422;
    put_preferences: "PUT" "/api/v1/messaging/preferences/{user_id}" -> 200 400 401 403 415 422;
    get_preferences: "GET" "/api/v1/messaging/preferences/{user_id}" -> 200 400 401 422;
    list_emergency_contacts: "GET" "/api/v1/messaging/preferences/{user_id}/emergency-contacts" -> 200 400 401 422;
    add_emergency_contact: "POST" "/api/v1/messaging/preferences/{user_id}/emergency-contacts" -> 201 400 401 403 415 422;
    get_emergency_contact: "GET" "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}" -> 200 401 404 422;
    put_emergency_contact: "PUT" "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}" -> 400 401 403 404 415 422;
    delete_emergency_contact: "DELETE" "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}" -> 401 403 404 422;
    send_emergency_code: "POST" "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification" -> 401 403 404 422;
    confirm_emergency_code: "POST" "/api/v1/messaging/preferences/{user_id}/emergency-contacts/{id}/methods/{channel}/verification/confirm" -> 400 401 403 404 415 422;
    inform_emergency_contact: "POST" "/api/v1/crisis/alerts/{id}/inform-emergency-contact" -> 400 401 403 404 409 415 422;
    list_policies: "GET" "/api/v1/escalation-policies" -> 200 401 403;
    post_policy: "POST" "/api/v1/escalation-policies" -> 400 401 403 415 422;
    get_policy: "GET" "/api/v1/escalation-policies/{id}" -> 200 401 403 404 422;
    put_policy: "PUT" "/api/v1/escalation-policies/{id}" -> 400 401 403 415 422;
    delete_policy: "DELETE" "/api/v1/escalation-policies/{id}" -> 204 401 403 404 409 422;
    explain_policy: "POST" "/api/v1/escalation-policies/{id}/explain" -> 200 400 401 403 404 415 422;
    list_schedules: "GET" "/api/v1/schedules" -> 200 401 403;
    post_schedule: "POST" "/api/v1/schedules" -> 400 401 403 415 422;
    get_schedule: "GET" "/api/v1/schedules/{id}" -> 200 401 403 404 422;
    put_schedule: "PUT" "/api/v1/schedules/{id}" -> 200 400 401 403 404 409 415 422;
    delete_schedule: "DELETE" "/api/v1/schedules/{id}" -> 204 401 403 404 409 422;
    readiness: "GET" "/api/v1/readiness" -> 200 401 403;
    settings_audit: "GET" "/api/v1/settings/audit" -> 200 400 401 403 422;
    livez: "GET" "/livez" -> 200;
    readyz: "GET" "/readyz" -> 200 400 422;
    metrics: "GET" "/metrics" -> 200;
    webhook_status: "POST" "/webhooks/twilio/status" -> 204 400 403;
    run_due: "POST" "/api/v1/tasks/run-due" -> 200 401 403;
    webhook_incoming: "POST" "/webhooks/twilio/incoming" -> 200 400 403;
    call_answer: "POST" "/webhooks/twilio/voice/answer" -> 200 400 403;
    call_key: "POST" "/webhooks/twilio/voice/key" -> 200 400 403;
    call_code: "POST" "/webhooks/twilio/voice/code" -> 200 400 403;
    call_status: "POST" "/webhooks/twilio/voice/status" -> 204 400 403;
}
