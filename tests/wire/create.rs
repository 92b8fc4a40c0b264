//! The create call, field by field.

use std::sync::Arc;

use base64::Engine as _;
use crisis_relay::clock::ManualClock;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, SendOutcome};
use crisis_relay::ports::{MessageContent, MessageRequest, TwilioClient as _};
use crisis_relay::secret::Secret;
use crisis_relay::twilio::callback::attempt_of;
use crisis_relay::twilio::rest::{Credentials, RestClient, RestConfig, RestError};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request};

use crate::support::*;

const CALLBACK: &str = "https://relay.example.org/webhooks/twilio/status\
    ?alert=0197c4de-7a00-7000-8000-0123456789ab&delivery=2&attempt=3#rc=5&rp=all&ct=2000&rt=5000&tt=15000";

/// Sends one message to a fake that accepts it, and gives back the one request that came.
async fn sent(change: impl FnOnce(&mut RestConfig), channel: Channel, content: Option<MessageContent>) -> Request {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(MESSAGES)).respond_with(created()).expect(1).mount(&server).await;
    let mut config = config(&server.uri());
    change(&mut config);
    let mut message = message(channel);
    if let Some(content) = content {
        message.content = content;
    }
    let outcome = client(config).create_message(&message).await;
    let accepted = SendOutcome::Accepted { provider_id: SM.parse().unwrap(), status: MessageStatus::Queued };
    assert_eq!(outcome, accepted);
    let mut requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn a_text_message_has_exactly_these_headers_and_fields_in_this_order() {
    let request = sent(|_| {}, Channel::Sms, None).await;
    assert_eq!((request.method.as_str(), request.url.path(), request.url.query()), ("POST", MESSAGES, None));
    assert_eq!(request.headers["authorization"], basic(AC, "token-canary").as_str());
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers["accept"], "application/json");
    assert!(request.headers["user-agent"].to_str().unwrap().starts_with("crisis-relay/"));
    let wanted = [("To", NUMBER), ("From", "+14155550123"), ("Body", TEXT), ("StatusCallback", CALLBACK)];
    assert_eq!(form(&request), pairs(&wanted));
}

#[tokio::test]
async fn a_message_that_belongs_to_no_alert_asks_for_no_callback() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(MESSAGES)).respond_with(created()).expect(1).mount(&server).await;
    let message = MessageRequest { attempt: None, ..message(Channel::Sms) };
    let outcome = client(config(&server.uri())).create_message(&message).await;
    assert!(matches!(outcome, SendOutcome::Accepted { .. }), "{outcome:?}");
    let request = server.received_requests().await.unwrap().remove(0);
    assert_eq!(form(&request), pairs(&[("To", NUMBER), ("From", "+14155550123"), ("Body", TEXT)]));
}

#[tokio::test]
async fn the_form_is_encoded_byte_by_byte_as_twilio_decodes_it() {
    let request = sent(|config| config.status_callback_base = None, Channel::Whatsapp, None).await;
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "To=whatsapp%3A%2B4915112345678&From=whatsapp%3A%2B14155238886&Body=URGENT+canary+%26+%C3%BC%3A+reply+1",
    );
}

#[tokio::test]
async fn a_sandbox_message_is_a_body_between_two_whatsapp_addresses() {
    let request = sent(|_| {}, Channel::Whatsapp, None).await;
    let wanted = [
        ("To", "whatsapp:+4915112345678"),
        ("From", "whatsapp:+14155238886"),
        ("Body", TEXT),
        ("StatusCallback", CALLBACK),
    ];
    assert_eq!(form(&request), pairs(&wanted));
}

#[tokio::test]
async fn a_template_goes_without_a_body_and_with_its_variables_as_json_text() {
    let variables = vec!["K7Q4TX3M".to_owned(), "14:05 \"IST\"".to_owned()];
    let content = MessageContent::Template { content_sid: HX.to_owned(), variables };
    let request = sent(|_| {}, Channel::Whatsapp, Some(content)).await;
    let wanted = [
        ("To", "whatsapp:+4915112345678"),
        ("From", "whatsapp:+14155238886"),
        ("ContentSid", HX),
        ("ContentVariables", r#"{"1":"K7Q4TX3M","2":"14:05 \"IST\""}"#),
        ("StatusCallback", CALLBACK),
    ];
    assert_eq!(form(&request), pairs(&wanted));
    let bare = MessageContent::Template { content_sid: HX.to_owned(), variables: Vec::new() };
    let request = sent(|_| {}, Channel::Whatsapp, Some(bare)).await;
    assert!(form(&request).iter().all(|(name, _)| name != "ContentVariables"));
}

#[tokio::test]
async fn a_messaging_service_chooses_the_sender_of_text_messages_but_not_of_whatsapp() {
    let service = |config: &mut RestConfig| config.messaging_service_sid = Some(MG.to_owned());
    let request = sent(service, Channel::Sms, None).await;
    let wanted = [("To", NUMBER), ("MessagingServiceSid", MG), ("Body", TEXT), ("StatusCallback", CALLBACK)];
    assert_eq!(form(&request), pairs(&wanted));
    let request = sent(service, Channel::Whatsapp, None).await;
    assert_eq!(form(&request)[1], ("From".to_owned(), "whatsapp:+14155238886".to_owned()));
}

#[tokio::test]
async fn an_api_key_signs_in_with_the_account_still_in_the_path() {
    let key = |config: &mut RestConfig| {
        config.credentials = Credentials::ApiKey { sid: SK.to_owned(), secret: Secret::new("key-canary") };
    };
    let request = sent(key, Channel::Sms, None).await;
    assert_eq!(request.headers["authorization"], basic(SK, "key-canary").as_str());
    assert_eq!(request.url.path(), MESSAGES);
}

#[tokio::test]
async fn the_callback_url_leads_back_to_the_attempt() {
    let request = sent(
        |config| config.status_callback_base = Some("https://relay.example.org/mitra/".parse().unwrap()),
        Channel::Sms,
        None,
    )
    .await;
    let callback = form(&request).pop().unwrap().1;
    assert!(callback.starts_with("https://relay.example.org/mitra/webhooks/twilio/status?"), "{callback}");
    let (before, fragment) = callback.split_once('#').unwrap();
    assert_eq!(fragment, "rc=5&rp=all&ct=2000&rt=5000&tt=15000");
    assert_eq!(attempt_of(before.split_once('?').unwrap().1), Some(attempt()));
}

#[tokio::test]
async fn a_channel_without_a_sender_is_our_own_fault_and_reaches_nobody() {
    let server = MockServer::start().await;
    let mut config = config(&server.uri());
    config.sms_from = None;
    let client = client(config);
    for channel in [Channel::Sms, Channel::Voice] {
        let SendOutcome::Refused(fault) = client.create_message(&message(channel)).await else { panic!("{channel:?}") };
        assert_eq!((fault.class, fault.code), (ErrorClass::Config, None));
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn the_defaults_build_a_client_for_twilio_itself() {
    let mut config = RestConfig::new(AC, Credentials::AuthToken(Secret::new("token")));
    config.whatsapp_from = Some("+14155238886".parse().unwrap());
    assert!(config.longest_call() > config.request_timeout);
    let shown = format!("{:?}", client(config));
    assert!(shown.contains("api.twilio.com") && !shown.contains("4155238886"), "{shown}");
}

#[tokio::test]
async fn malformed_settings_build_no_client() {
    let mut config = config("http://127.0.0.1:1");
    config.account_sid = "AC/../../elsewhere".to_owned();
    let clock = Arc::new(ManualClock::new(NOW.parse().unwrap()));
    let Err(RestError::Config(faults)) = RestClient::new(config, clock) else { panic!("built") };
    assert_eq!(faults[0].subject, "twilio.account_sid");
}
