//! The check before a crisis: every fault is named with its remedy, and the account's page leaves no trace.

use crisis_relay::ports::{Fault, TwilioClient as _};
use crisis_relay::secret::Secret;
use crisis_relay::twilio::rest::{Credentials, RestConfig, UsedTemplate};
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::*;

const ACCOUNT: &str = "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef.json";
const NUMBERS: &str = "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/IncomingPhoneNumbers.json";

async fn answer(server: &MockServer, at: &str, status: u16, body: Value) {
    let answer = ResponseTemplate::new(status).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(server).await;
}

fn owned(sms: bool) -> Value {
    json!({"incoming_phone_numbers": [{"phone_number": "+14155550123", "capabilities": {"sms": sms}}]})
}

fn with_key(config: &mut RestConfig) {
    config.credentials = Credentials::ApiKey { sid: SK.to_owned(), secret: Secret::new("key") };
}

#[track_caller]
fn assert_fault(faults: &[Fault], subject: &str, problem: &str) {
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].subject, subject);
    assert!(faults[0].problem.contains(problem), "{faults:?}");
    assert!(faults[0].remedy.ends_with('.') && faults[0].remedy.len() > 15);
}

#[tokio::test]
async fn a_good_token_with_its_own_number_has_no_fault() {
    let server = MockServer::start().await;
    answer(&server, ACCOUNT, 200, json!({"status": "active", "auth_token": "token-canary", "type": "Full"})).await;
    Mock::given(query_param("PhoneNumber", "+14155550123"))
        .and(path(NUMBERS))
        .respond_with(ResponseTemplate::new(200).set_body_json(owned(true)))
        .expect(1)
        .mount(&server)
        .await;
    assert_eq!(client(config(&server.uri())).check().await, []);
}

#[tokio::test]
async fn the_auth_token_in_the_accounts_page_is_never_logged() {
    let log = Log::default();
    let _guard = log.start();
    let server = MockServer::start().await;
    answer(&server, ACCOUNT, 200, json!({"status": "suspended", "auth_token": "page-canary"})).await;
    let faults = client(config(&server.uri())).check().await;
    assert_fault(&faults, "twilio.account_sid", "suspended");
    assert!(!log.text().contains("canary"), "{}", log.text());
}

#[tokio::test]
async fn a_refused_token_a_closed_account_and_a_silent_twilio_are_told_apart() {
    for (status, body, subject, problem) in [
        (401, json!({"code": 20003}), "twilio.auth_token", "code 20003"),
        (404, json!({"code": 20404}), "twilio.account_sid", "does not know"),
        (503, json!({}), "twilio.base_url", "cannot be reached"),
        (200, json!({"status": "closed"}), "twilio.account_sid", "closed"),
        (200, json!({}), "twilio.account_sid", "not readable"),
    ] {
        let server = MockServer::start().await;
        answer(&server, ACCOUNT, status, body).await;
        assert_fault(&client(config(&server.uri())).check().await, subject, problem);
    }
    let gone = client(hasty(&nobody().await)).check().await;
    assert_fault(&gone, "twilio.base_url", "cannot be reached");
}

#[tokio::test]
async fn an_api_key_is_proved_by_the_list_of_numbers_and_never_asks_for_the_account() {
    let server = MockServer::start().await;
    answer(&server, NUMBERS, 200, owned(true)).await;
    let mut config = config(&server.uri());
    with_key(&mut config);
    assert_eq!(client(config.clone()).check().await, []);
    config.sms_from = None;
    assert_eq!(client(config).check().await, []);
    let requests = server.received_requests().await.unwrap();
    let queries: Vec<_> = requests.iter().map(|request| request.url.query().unwrap()).collect();
    assert_eq!(queries, ["PhoneNumber=%2B14155550123&PageSize=1", "PageSize=1"]);
}

#[tokio::test]
async fn a_refused_key_and_a_number_that_is_not_ours_are_faults() {
    for (status, body, subject, problem) in [
        (401, json!({"code": 20003}), "twilio.api_key_sid", "refuses the credentials"),
        (200, json!({"incoming_phone_numbers": []}), "twilio.sms_from", "no such number"),
        (200, owned(false), "twilio.sms_from", "cannot send text messages"),
        (200, json!([]), "twilio.sms_from", "not readable"),
    ] {
        let server = MockServer::start().await;
        answer(&server, NUMBERS, status, body).await;
        let mut config = config(&server.uri());
        with_key(&mut config);
        assert_fault(&client(config).check().await, subject, problem);
    }
}

#[tokio::test]
async fn templates_are_checked_one_by_one_and_every_fault_is_named() {
    let server = MockServer::start().await;
    let sid = |last: char| format!("HX0123456789abcdef0123456789abcde{last}");
    let approval = |sid: &str| format!("/v1/Content/{sid}/ApprovalRequests");
    let whatsapp = |status: &str, category: &str| json!({"whatsapp": {"status": status, "category": category}});
    answer(&server, &approval(&sid('0')), 200, whatsapp("approved", "UTILITY")).await;
    answer(&server, &approval(&sid('1')), 200, whatsapp("paused", "UTILITY")).await;
    answer(&server, &approval(&sid('2')), 200, whatsapp("approved", "MARKETING")).await;
    answer(&server, &approval(&sid('3')), 200, json!({})).await;
    answer(&server, &approval(&sid('5')), 401, json!({"code": 20003})).await;
    let sids: Vec<_> = "012345".chars().map(sid).chain(["../../secret".to_owned()]).collect();
    let faults = client(config(&server.uri())).check_templates(&used(&sids, None)).await;
    let problems: Vec<_> = faults.iter().map(|fault| fault.problem.as_str()).collect();
    assert_eq!(problems.len(), 6, "{problems:?}");
    for (problem, part) in problems.iter().zip(["paused", "marketing", "never handed", "no such", "20003", "not HX"]) {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    assert_eq!(faults[0].subject, format!("template {}", sid('1')));
    assert_eq!(server.received_requests().await.unwrap().len(), 6, "what is malformed is not asked about");
    let many = client(config(&server.uri())).check_templates(&used(&vec![sid('0'); 101], None)).await;
    assert_fault(&many, "templates", "more than 100");
}

fn used(sids: &[String], values: Option<usize>) -> Vec<UsedTemplate> {
    sids.iter().map(|sid| UsedTemplate { content_sid: sid.clone(), values }).collect()
}

#[tokio::test]
async fn a_template_that_has_no_place_for_each_value_is_a_fault() {
    let server = MockServer::start().await;
    let approved = json!({"whatsapp": {"status": "approved", "category": "UTILITY"}});
    answer(&server, &format!("/v1/Content/{HX}/ApprovalRequests"), 200, approved).await;
    let body = "a {{1}} b {{2}} c";
    let actions = json!([{"title": "A", "id": "1.{{3}}"}, {"title": "B", "id": "2.{{3}}"}]);
    for (types, values, problem) in [
        (json!({"twilio/quick-reply": {"body": body, "actions": actions}}), 3, None),
        (json!({"twilio/quick-reply": {"body": body, "actions": actions}}), 2, Some("has 3 places")),
        (json!({"twilio/text": {"body": body}}), 2, None),
        (json!({"twilio/text": {"body": body}}), 3, Some("fill in 3 numbered values")),
        (json!({"twilio/text": {"body": "a {{1}} b {{3}} c"}}), 2, Some("has 2 places")),
    ] {
        let content = answer_once(&server, &format!("/v1/Content/{HX}"), json!({"types": types})).await;
        let faults = client(config(&server.uri())).check_templates(&used(&[HX.to_owned()], Some(values))).await;
        match problem {
            None => assert_eq!(faults, [], "{types}"),
            Some(problem) => assert_fault(&faults, &format!("template {HX}"), problem),
        }
        drop(content);
    }
    let faults = client(config(&server.uri())).check_templates(&used(&[HX.to_owned()], Some(1))).await;
    assert_eq!(faults.len(), 1, "nothing answers any more: {faults:?}");
}

/// An answer that holds until it is dropped.
async fn answer_once(server: &MockServer, at: &str, body: Value) -> wiremock::MockGuard {
    let answer = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(answer).expect(1).mount_as_scoped(server).await
}

#[tokio::test]
async fn who_calls_is_a_number_of_the_accounts_with_voice_or_a_verified_one() {
    let caller_ids = NUMBERS.replace("IncomingPhoneNumbers", "OutgoingCallerIds");
    let voice = |able: bool| json!({"incoming_phone_numbers": [{"capabilities": {"sms": true, "voice": able}}]});
    let (none, nobody) = (json!({"incoming_phone_numbers": []}), json!({"outgoing_caller_ids": []}));
    let verified = json!({"outgoing_caller_ids": [{"phone_number": "+14155550199"}]});
    for (owned, ids, problem) in [
        (voice(true), &nobody, None),
        (voice(false), &nobody, Some("cannot call")),
        (none.clone(), &verified, None),
        (none, &nobody, Some("no such number")),
    ] {
        let server = MockServer::start().await;
        answer(&server, ACCOUNT, 200, json!({"status": "active"})).await;
        answer(&server, NUMBERS, 200, owned).await;
        answer(&server, &caller_ids, 200, ids.clone()).await;
        let mut config = config(&server.uri());
        config.sms_from = None;
        config.voice_from = Some("+14155550199".parse().unwrap());
        let faults = client(config).check().await;
        match problem {
            None => assert_eq!(faults, []),
            Some(problem) => assert_fault(&faults, "twilio.voice_from", problem),
        }
    }
}
