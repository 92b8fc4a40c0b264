//! Every way in which a create call can end other than well, and what must never be seen of it.

use std::time::Duration;

use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::provider::{ErrorClass, ProviderFault, SendOutcome, UnknownCause};
use crisis_relay::ports::{MessageContent, TwilioClient as _};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::*;

/// What becomes of a create call that is answered so; the fake insists on exactly one request.
async fn outcome(answer: ResponseTemplate) -> SendOutcome {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path(MESSAGES)).respond_with(answer).expect(1).mount(&server).await;
    let outcome = client(config(&server.uri())).create_message(&message(Channel::Sms)).await;
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "one call is one request");
    outcome
}

fn error(status: u16, code: u32) -> ResponseTemplate {
    let body = format!(r#"{{"code":{code},"message":"about {NUMBER}","more_info":"https://x","status":{status}}}"#);
    ResponseTemplate::new(status).set_body_raw(body, "application/json")
}

fn unknown(cause: UnknownCause) -> SendOutcome {
    SendOutcome::Unknown { cause, retry_after: None }
}

fn refused(code: Option<u32>, class: ErrorClass) -> SendOutcome {
    SendOutcome::Refused(ProviderFault { code, class, delay_s: None })
}

#[tokio::test]
async fn refusals_are_told_apart_by_their_code() {
    for (status, code, class) in [
        (400, 21211, ErrorClass::Switch),
        (400, 21610, ErrorClass::OptOut),
        (400, 63016, ErrorClass::Template),
        (400, 21408, ErrorClass::Config),
        (401, 20003, ErrorClass::Config),
        (403, 20403, ErrorClass::Config),
        (404, 20404, ErrorClass::Config),
        (400, 99_999, ErrorClass::Config),
    ] {
        assert_eq!(outcome(error(status, code)).await, refused(Some(code), class), "{code}");
    }
    let full = ProviderFault { code: Some(21611), class: ErrorClass::Delay, delay_s: Some((300, 3600)) };
    assert_eq!(outcome(error(400, 21611)).await, SendOutcome::Refused(full));
}

#[tokio::test]
async fn a_refusal_with_an_empty_or_html_body_counts_as_our_own_fault() {
    for body in ["", "<html><body>Forbidden</body></html>", "{\"code\":", "[]", "null"] {
        let answer = ResponseTemplate::new(403).set_body_raw(body, "text/html");
        assert_eq!(outcome(answer).await, refused(None, ErrorClass::Config), "{body}");
    }
}

#[tokio::test]
async fn too_fast_means_not_executed_with_or_without_a_code() {
    for (answer, code) in [(error(429, 20429), Some(20429)), (ResponseTemplate::new(429), None)] {
        let fault = Some(ProviderFault { code, class: ErrorClass::Retry, delay_s: None });
        assert_eq!(outcome(answer).await, SendOutcome::NotExecuted { retry_after: None, fault });
    }
    let SendOutcome::NotExecuted { .. } = outcome(error(400, 63017)).await else { panic!("the code says the same") };
}

#[tokio::test]
async fn server_errors_leave_the_outcome_open() {
    for status in [500, 502, 503, 504] {
        assert_eq!(outcome(ResponseTemplate::new(status)).await, unknown(UnknownCause::ServerError), "{status}");
    }
    assert_eq!(outcome(error(500, 20500)).await, unknown(UnknownCause::ServerError));
    assert_eq!(outcome(error(500, 21211)).await, unknown(UnknownCause::ServerError), "the status comes first");
    assert_eq!(outcome(ResponseTemplate::new(408)).await, unknown(UnknownCause::TimeOut));
}

#[tokio::test]
async fn retry_after_is_read_as_seconds_or_date_and_garbage_is_ignored() {
    for (header, wait) in [
        ("17", Some(17)),
        ("Fri, 20 Nov 2026 10:01:30 GMT", Some(90)),
        ("Fri, 20 Nov 2026 09:00:00 GMT", Some(0)),
        ("soon", None),
        ("-1", None),
        ("99999999999999999999", None),
    ] {
        let retry_after = wait.map(Duration::from_secs);
        let fault = Some(ProviderFault { code: Some(20429), class: ErrorClass::Retry, delay_s: None });
        let too_fast = outcome(error(429, 20429).insert_header("Retry-After", header)).await;
        assert_eq!(too_fast, SendOutcome::NotExecuted { retry_after, fault }, "{header}");
        let away = outcome(ResponseTemplate::new(503).insert_header("Retry-After", header)).await;
        assert_eq!(away, SendOutcome::Unknown { cause: UnknownCause::ServerError, retry_after }, "{header}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = MockServer::start().await;
    for status in [301, 302, 307, 308] {
        let answer = ResponseTemplate::new(status).insert_header("Location", elsewhere.uri());
        assert_eq!(outcome(answer).await, refused(None, ErrorClass::Config), "{status}");
    }
    assert_eq!(elsewhere.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_success_that_cannot_be_read_leaves_the_outcome_open() {
    for body in
        ["", "<html>", "{}", r#"{"sid":"SM1"}"#, r#"{"sid":"CA0123456789abcdef0123456789abcdef"}"#, r#"{"sid":7}"#]
    {
        let answer = ResponseTemplate::new(201).set_body_raw(body, "application/json");
        assert_eq!(outcome(answer).await, unknown(UnknownCause::UnreadableAnswer), "{body}");
    }
}

#[tokio::test]
async fn an_oversized_answer_is_not_read_to_its_end() {
    let padding = " ".repeat(64 * 1024);
    let body = format!(r#"{{"sid":"{SM}","status":"queued"{padding}}}"#);
    let answer = ResponseTemplate::new(201).set_body_raw(body, "application/json");
    assert_eq!(outcome(answer).await, unknown(UnknownCause::UnreadableAnswer));
    let answer = ResponseTemplate::new(400).set_body_raw(format!(r#"{{"code":21211{padding}}}"#), "application/json");
    assert_eq!(outcome(answer).await, refused(None, ErrorClass::Config));
}

/// What becomes of a create call to a server that misbehaves; it must have read exactly one request.
async fn misbehaving(how: Mischief) -> SendOutcome {
    let (base, count) = mischief(how).await;
    let outcome = client(hasty(&base)).create_message(&message(Channel::Sms)).await;
    assert_eq!(*count.lock(), 1, "one call is one request");
    outcome
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_outcome_open() {
    assert_eq!(misbehaving(Mischief::Silence).await, unknown(UnknownCause::TimeOut));
    let head = "HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{\"sid\":";
    assert_eq!(misbehaving(Mischief::Stall(head)).await, unknown(UnknownCause::TimeOut));
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Length: 500\r\n\r\n{\"code\":";
    assert_eq!(misbehaving(Mischief::Stall(head)).await, refused(None, ErrorClass::Config), "the status has come");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_the_outcome_open() {
    assert_eq!(misbehaving(Mischief::HangUp).await, unknown(UnknownCause::ConnectionLost));
    assert_eq!(misbehaving(Mischief::CutOff("HTTP/1.1 20")).await, unknown(UnknownCause::ConnectionLost));
    let head = "HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{\"sid\":";
    assert_eq!(misbehaving(Mischief::CutOff(head)).await, unknown(UnknownCause::ConnectionLost));
    assert_eq!(misbehaving(Mischief::CutOff("SMTP ready\r\n\r\n")).await, unknown(UnknownCause::ConnectionLost));
}

#[tokio::test]
async fn a_refused_connection_means_not_executed() {
    let base = nobody().await;
    let outcome = client(hasty(&base)).create_message(&message(Channel::Sms)).await;
    assert_eq!(outcome, SendOutcome::NotExecuted { retry_after: None, fault: None });
}

#[tokio::test]
async fn a_call_that_finds_no_free_place_in_time_was_not_executed() {
    let (base, count) = mischief(Mischief::Silence).await;
    let mut config = hasty(&base);
    config.max_concurrency = 1;
    let client = client(config);
    let message = message(Channel::Sms);
    // The one that holds the place gives up at the same time as those that wait for it: one of them may still get it,
    // but never two at once.
    let outcomes =
        tokio::join!(client.create_message(&message), client.create_message(&message), client.create_message(&message));
    let not_executed = SendOutcome::NotExecuted { retry_after: None, fault: None };
    assert_eq!(outcomes.0, unknown(UnknownCause::TimeOut));
    assert!(outcomes.1 == not_executed || outcomes.2 == not_executed, "{outcomes:?}");
    assert!(*count.lock() <= 2);
}

#[tokio::test]
async fn neither_number_nor_text_nor_secret_is_ever_logged_or_shown() {
    let log = Log::default();
    let _guard = log.start();
    let server = MockServer::start().await;
    let answer = error(400, 21211).insert_header("Twilio-Request-Id", "RQ0123abc");
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let listed = format!(
        r#"{{"messages":[{{"sid":"{SM}","status":"sent","direction":"outbound-api","body":"{TEXT}","date_created":"Fri, 20 Nov 2026 10:00:00 +0000"}}],
            "next_page_uri":"https://evil.example/?To={NUMBER}"}}"#
    );
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200).set_body_string(listed)).mount(&server).await;

    let mut shown = String::new();
    let client = client(config(&server.uri()));
    for channel in [Channel::Sms, Channel::Whatsapp] {
        let mut request = message(channel);
        shown += &format!("{request:?} {:?}", client.create_message(&request).await);
        request.content = MessageContent::Template { content_sid: HX.into(), variables: vec![TEXT.into()] };
        shown += &format!("{request:#?} {:?}", client.create_message(&request).await);
        let to = NUMBER.parse().unwrap();
        let since = NOW.parse().unwrap();
        shown += &format!("{:?}", client.list_messages(channel, &to, since, 1).await.unwrap());
        shown += &format!("{:?}", client.list_messages(channel, &to, since, 9).await);
    }
    shown += &format!("{client:?} {:?}", client.check().await);
    let (silent, _) = mischief(Mischief::HangUp).await;
    shown += &format!("{:?}", crate::support::client(hasty(&silent)).create_message(&message(Channel::Sms)).await);
    shown +=
        &format!("{:?}", crate::support::client(hasty(&nobody().await)).create_message(&message(Channel::Sms)).await);

    let text = log.text();
    for wanted in [ALERT, "RQ0123abc", "http_status=400", "code=21211", "transport=ConnectionLost", "transport=NotSent"]
    {
        assert!(text.contains(wanted), "{wanted} not in {text}");
    }
    for (place, text) in [("log", &text), ("debug", &shown)] {
        for secret in ["15112345678", "4155550123", "4155238886", "canary", "StatusCallback", "PhoneNumber="] {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
}
