//! Calls: what is asked of Twilio field by field, and what its answers mean.

use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::ids::ProviderId;
use crisis_relay::domain::method::SpokenCode;
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, SendOutcome, UnknownCause};
use crisis_relay::ports::{ListedMessage, LookUpError, MessageContent, MessageRequest, TwilioClient as _};
use crisis_relay::twilio::rest::RestConfig;
use jiff::Timestamp;
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::*;

const CALLS: &str = "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Calls.json";
const CA: &str = "CA0123456789abcdef0123456789abcdef";
const FROM: &str = "+14155550199";
const SEED: &str = "00112233445566778899aabbccddeeff";

fn with_voice(base: &str) -> RestConfig {
    let mut config = config(base);
    config.voice_from = Some(FROM.parse().unwrap());
    config
}

fn a_call() -> MessageRequest {
    MessageRequest { content: MessageContent::Call, ..message(Channel::Voice) }
}

fn a_code() -> MessageRequest {
    let code = SpokenCode {
        organisation: "north_1".parse().unwrap(),
        language: "hi".parse().unwrap(),
        seed: SEED.parse().unwrap(),
    };
    MessageRequest { attempt: None, content: MessageContent::CodeCall(code), ..message(Channel::Voice) }
}

fn about(hook: &str) -> String {
    format!(
        "https://relay.example.org/webhooks/twilio/voice/{hook}?alert={ALERT}&delivery=2&attempt=3#rc=5&rp=all&ct=2000&rt=5000&tt=15000"
    )
}

async fn outcome(answer: ResponseTemplate) -> SendOutcome {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(CALLS)).respond_with(answer).expect(1).mount(&server).await;
    client(with_voice(&server.uri())).create_message(&a_call()).await
}

#[tokio::test]
async fn a_call_has_exactly_these_fields_in_this_order_and_no_text() {
    let server = MockServer::start().await;
    let made = ResponseTemplate::new(201).set_body_json(json!({"sid": CA, "status": "queued", "date_created": null}));
    Mock::given(method("POST")).and(path(CALLS)).respond_with(made).expect(1).mount(&server).await;
    let outcome = client(with_voice(&server.uri())).create_message(&a_call()).await;
    let accepted = SendOutcome::Accepted { provider_id: CA.parse().unwrap(), status: MessageStatus::Queued };
    assert_eq!(outcome, accepted);
    let request = server.received_requests().await.unwrap().remove(0);
    let (answer, status) = (about("answer"), about("status"));
    let wanted = [
        ("To", NUMBER),
        ("From", FROM),
        ("Url", &answer),
        ("Method", "POST"),
        ("FallbackUrl", &answer),
        ("FallbackMethod", "POST"),
        ("StatusCallback", &status),
        ("StatusCallbackMethod", "POST"),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
        ("MachineDetection", "DetectMessageEnd"),
        ("Timeout", "25"),
        ("TimeLimit", "300"),
    ];
    let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(form(&request), wanted);
}

#[tokio::test]
async fn a_call_that_brings_a_code_has_exactly_these_fields_and_neither_code_nor_words() {
    let server = MockServer::start().await;
    let made = ResponseTemplate::new(201).set_body_json(json!({"sid": CA, "status": "queued", "date_created": null}));
    Mock::given(method("POST")).and(path(CALLS)).respond_with(made).expect(1).mount(&server).await;
    let outcome = client(with_voice(&server.uri())).create_message(&a_code()).await;
    let accepted = SendOutcome::Accepted { provider_id: CA.parse().unwrap(), status: MessageStatus::Queued };
    assert_eq!(outcome, accepted);
    let request = server.received_requests().await.unwrap().remove(0);
    let asked = format!(
        "https://relay.example.org/webhooks/twilio/voice/code?organisation=north_1&language=hi&seed={SEED}#rc=5&rp=all&ct=2000&rt=5000&tt=15000"
    );
    let wanted = [
        ("To", NUMBER),
        ("From", FROM),
        ("Url", asked.as_str()),
        ("Method", "POST"),
        ("FallbackUrl", asked.as_str()),
        ("FallbackMethod", "POST"),
        ("Timeout", "25"),
        ("TimeLimit", "180"),
    ];
    let wanted: Vec<_> = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(form(&request), wanted);
}

#[tokio::test]
async fn what_cannot_be_a_call_is_refused_before_anything_is_sent() {
    let server = MockServer::start().await;
    let refused = |config: RestConfig, request: MessageRequest| async move {
        let outcome = client(config).create_message(&request).await;
        assert!(matches!(outcome, SendOutcome::Refused(fault) if fault.class == ErrorClass::Config), "{outcome:?}");
    };
    let mut mute = with_voice(&server.uri());
    mute.status_callback_base = None;
    for request in [a_call(), a_code()] {
        refused(config(&server.uri()), request.clone()).await;
        refused(mute.clone(), request.clone()).await;
        refused(with_voice(&server.uri()), MessageRequest { channel: Channel::Sms, ..request.clone() }).await;
        refused(with_voice(&server.uri()), MessageRequest { channel: Channel::Whatsapp, ..request }).await;
    }
    refused(with_voice(&server.uri()), MessageRequest { attempt: None, ..a_call() }).await;
    refused(with_voice(&server.uri()), message(Channel::Voice)).await;
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn what_became_of_a_create_call_is_told_apart() {
    let unknown = |cause| SendOutcome::Unknown { cause, retry_after: None };
    let made = |body: Value| ResponseTemplate::new(201).set_body_json(body);
    // A message's id is no call's: nobody knows what Twilio made.
    assert_eq!(outcome(made(json!({"sid": SM, "status": "queued"}))).await, unknown(UnknownCause::UnreadableAnswer));
    assert_eq!(outcome(ResponseTemplate::new(500)).await, unknown(UnknownCause::ServerError));
    for (status, code, class) in
        [(400, 21217, ErrorClass::Switch), (400, 21215, ErrorClass::Config), (400, 21210, ErrorClass::Config)]
    {
        let answer = ResponseTemplate::new(status).set_body_json(json!({"code": code, "status": status}));
        let SendOutcome::Refused(fault) = outcome(answer).await else { panic!("{code}") };
        assert_eq!((fault.code, fault.class), (Some(code), class));
    }
}

#[tokio::test]
async fn a_fetched_call_says_how_far_it_got_and_who_answered() {
    for (status, by, wanted) in [
        ("queued", Value::Null, MessageStatus::Queued),
        ("ringing", Value::Null, MessageStatus::Ringing),
        ("in-progress", Value::Null, MessageStatus::InProgress),
        ("in-progress", json!("human"), MessageStatus::Answered),
        ("completed", json!("human"), MessageStatus::Answered),
        ("completed", json!("machine"), MessageStatus::Machine),
        ("completed", Value::Null, MessageStatus::Completed),
        ("busy", Value::Null, MessageStatus::Busy),
        ("no-answer", Value::Null, MessageStatus::NoAnswer),
        ("canceled", Value::Null, MessageStatus::Canceled),
    ] {
        let server = MockServer::start().await;
        let body = json!({"sid": CA, "status": status, "answered_by": by});
        Mock::given(path(format!("{}/{CA}.json", CALLS.trim_end_matches(".json"))))
            .respond_with(ResponseTemplate::new(200).set_body_json(body))
            .expect(1)
            .mount(&server)
            .await;
        let receipt = client(with_voice(&server.uri())).fetch_message(&CA.parse().unwrap()).await.unwrap();
        assert_eq!((receipt.provider_id.as_str(), receipt.status), (CA, wanted), "{status} {by}");
        // That nobody was reached is nobody's fault; that Twilio called it off may be.
        assert_eq!(receipt.fault.is_some(), status == "canceled");
    }
}

fn entry(number: u8, date: Value, direction: &str) -> Value {
    let sid = format!("CA{number:032x}");
    json!({"sid": sid, "status": "ringing", "date_created": date, "direction": direction, "answered_by": null})
}

async fn listed(server: &MockServer) -> Result<Vec<ListedMessage>, LookUpError> {
    let to: PhoneNumber = NUMBER.parse().unwrap();
    let since: Timestamp = NOW.parse().unwrap();
    client(with_voice(&server.uri())).list_messages(Channel::Voice, &to, since, 50).await
}

#[tokio::test]
async fn a_list_asks_by_both_numbers_and_keeps_calls_of_ours_that_have_no_date_yet() {
    let server = MockServer::start().await;
    let page = json!({"next_page_uri": null, "calls": [
        entry(3, Value::Null, "outbound-api"),
        entry(2, json!("Fri, 20 Nov 2026 10:00:05 +0000"), "outbound-api"),
        entry(1, json!("Fri, 20 Nov 2026 10:00:04 +0000"), "inbound"),
        entry(0, json!("Fri, 20 Nov 2026 09:59:00 +0000"), "outbound-api"),
    ]});
    Mock::given(path(CALLS)).respond_with(ResponseTemplate::new(200).set_body_json(page)).mount(&server).await;
    let calls = listed(&server).await.unwrap();
    let ids: Vec<&ProviderId> = calls.iter().map(|call| &call.receipt.provider_id).collect();
    assert_eq!(ids.iter().map(|id| &id.as_str()[33..]).collect::<Vec<_>>(), ["3", "2"]);
    assert!(calls.iter().all(|call| call.body.is_empty()));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("To=%2B4915112345678&From=%2B14155550199&PageSize=50"));
}

#[tokio::test]
async fn an_answer_that_is_no_list_of_calls_is_no_empty_list() {
    for body in [json!({}), json!({"messages": []}), json!({"calls": null})] {
        let server = MockServer::start().await;
        Mock::given(path(CALLS)).respond_with(ResponseTemplate::new(200).set_body_json(&body)).mount(&server).await;
        assert_eq!(listed(&server).await, Err(LookUpError::Unavailable { retry_after: None }), "{body}");
    }
}
