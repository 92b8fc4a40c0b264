//! Looking messages up: one by its id, and the latest to a number.

use std::time::Duration;

use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::ids::ProviderId;
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, Receipt};
use crisis_relay::ports::{ListedMessage, LookUpError, TwilioClient as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::*;

const ONE: &str =
    "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages/SM0123456789abcdef0123456789abcdef.json";

async fn fetched(answer: ResponseTemplate) -> Result<Receipt, LookUpError> {
    let server = MockServer::start().await;
    Mock::given(method("GET")).and(path(ONE)).respond_with(answer).expect(1).mount(&server).await;
    client(config(&server.uri())).fetch_message(&SM.parse().unwrap()).await
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

#[tokio::test]
async fn a_fetched_message_says_how_far_it_got_and_why_it_failed() {
    let receipt = fetched(ok(json!({"sid": SM, "status": "delivered", "error_code": null}))).await.unwrap();
    assert_eq!((receipt.provider_id.as_str(), receipt.status, receipt.fault), (SM, MessageStatus::Delivered, None));
    let receipt = fetched(ok(json!({"sid": SM, "status": "undelivered", "error_code": 30034}))).await.unwrap();
    assert_eq!(receipt.status, MessageStatus::Undelivered);
    assert_eq!(receipt.fault.map(|fault| (fault.code, fault.class)), Some((Some(30034), ErrorClass::Config)));
}

#[tokio::test]
async fn a_fetch_that_settles_nothing_is_told_apart_by_what_to_do_next() {
    let unavailable = LookUpError::Unavailable { retry_after: None };
    for body in
        [json!({}), json!([]), json!({"sid": SM, "status": "teleported"}), json!({"sid": "SM1", "status": "sent"})]
    {
        assert_eq!(fetched(ok(body.clone())).await, Err(unavailable), "{body}");
    }
    let other = json!({"sid": "SMffffffffffffffffffffffffffffffff", "status": "sent"});
    assert_eq!(fetched(ok(other)).await, Err(unavailable), "another message's answer");
    let busy = LookUpError::Unavailable { retry_after: Some(Duration::from_secs(3)) };
    for status in [429, 500, 503] {
        assert_eq!(fetched(ResponseTemplate::new(status).insert_header("Retry-After", "3")).await, Err(busy));
    }
    assert_eq!(fetched(ResponseTemplate::new(404)).await, Err(LookUpError::NotFound));
    let refused = ResponseTemplate::new(401).set_body_json(json!({"code": 20003}));
    assert_eq!(fetched(refused).await, Err(LookUpError::Refused { code: Some(20003) }));
    let redirect = ResponseTemplate::new(302).insert_header("Location", "https://evil.example");
    assert_eq!(fetched(redirect).await, Err(LookUpError::Refused { code: None }));
    let gone = client(hasty(&nobody().await)).fetch_message(&SM.parse().unwrap()).await;
    assert_eq!(gone, Err(unavailable));
}

#[tokio::test]
async fn an_id_that_is_no_message_is_not_asked_for() {
    let server = MockServer::start().await;
    let template: ProviderId = HX.parse().unwrap();
    assert_eq!(client(config(&server.uri())).fetch_message(&template).await, Err(LookUpError::NotFound));
    assert_eq!(server.received_requests().await.unwrap().len(), 0);
}

/// A message of the list, made `second` seconds after ten o'clock.
fn entry(number: u8, second: i64) -> Value {
    let created = ten() + Duration::from_secs(u64::try_from(second.max(0)).unwrap())
        - Duration::from_secs(u64::try_from((-second).max(0)).unwrap());
    let date = jiff::fmt::rfc2822::to_string(&created.to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
    json!({"sid": sid(number), "status": "sent", "date_created": date, "date_sent": null, "direction": "outbound-api",
        "body": format!("text {number}")})
}

fn ten() -> Timestamp {
    NOW.parse().unwrap()
}

fn sid(number: u8) -> String {
    format!("SM{number:032x}")
}

fn page(messages: &[Value], next: Option<&str>) -> ResponseTemplate {
    ok(json!({"messages": messages, "next_page_uri": next, "page_size": 50}))
}

async fn list(server: &MockServer, since: &str, limit: usize) -> Result<Vec<ListedMessage>, LookUpError> {
    let to: PhoneNumber = NUMBER.parse().unwrap();
    client(config(&server.uri())).list_messages(Channel::Whatsapp, &to, since.parse().unwrap(), limit).await
}

fn bodies(listed: &[ListedMessage]) -> Vec<&str> {
    listed.iter().map(|message| message.body.as_str()).collect()
}

#[tokio::test]
async fn a_list_asks_by_both_numbers_and_never_by_the_date_sent() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(MESSAGES))
        .respond_with(page(&[entry(2, 5), entry(1, 0)], None))
        .mount(&server)
        .await;
    let listed = list(&server, NOW, 50).await.unwrap();
    assert_eq!(bodies(&listed), ["text 2", "text 1"]);
    assert_eq!(listed[0].created_at, ten() + Duration::from_secs(5));
    assert_eq!(
        (listed[0].receipt.provider_id.as_str(), listed[0].receipt.status),
        (sid(2).as_str(), MessageStatus::Sent)
    );
    let requests = server.received_requests().await.unwrap();
    let query: Vec<_> = requests[0].url.query_pairs().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    let wanted = [("To", "whatsapp:+4915112345678"), ("From", "whatsapp:+14155238886"), ("PageSize", "50")];
    assert_eq!(query, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
}

#[tokio::test]
async fn with_a_messaging_service_any_sender_will_do() {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(page(&[], None)).mount(&server).await;
    let mut config = config(&server.uri());
    config.messaging_service_sid = Some(MG.to_owned());
    let listed = client(config).list_messages(Channel::Sms, &NUMBER.parse().unwrap(), ten(), 5000).await;
    assert_eq!(listed, Ok(Vec::new()));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.query(), Some("To=%2B4915112345678&PageSize=1000"));
}

#[tokio::test]
async fn pages_are_followed_as_they_are_named_until_one_is_too_old() {
    let server = MockServer::start().await;
    let (second, third) = (format!("{MESSAGES}?Page=1&PageToken=PASM%2Fx"), format!("{MESSAGES}?Page=2&PageToken=y"));
    for (number, next, messages) in
        [("1", Some(third.as_str()), [entry(3, 0), entry(2, -1)]), ("2", None, [entry(1, -2), entry(0, -3)])]
    {
        Mock::given(query_param("Page", number))
            .respond_with(page(&messages, next))
            .with_priority(1)
            .mount(&server)
            .await;
    }
    Mock::given(method("GET")).respond_with(page(&[entry(5, 9), entry(4, 8)], Some(&second))).mount(&server).await;

    assert_eq!(bodies(&list(&server, "2026-11-20T09:59:00Z", 50).await.unwrap()).len(), 6);
    let requests = server.received_requests().await.unwrap();
    let followed: Vec<_> = requests[1..].iter().map(|request| request.url.query().unwrap()).collect();
    assert_eq!(followed, ["Page=1&PageToken=PASM%2Fx", "Page=2&PageToken=y"], "opaque, to the byte");
    for request in &requests {
        assert!(request.headers.contains_key("authorization"));
    }

    server.reset().await;
    Mock::given(method("GET"))
        .respond_with(page(&[entry(5, 9), entry(2, -1)], Some(&second)))
        .expect(1)
        .mount(&server)
        .await;
    // Within the second of `since`, a message without fractions of a second is not older.
    assert_eq!(bodies(&list(&server, "2026-11-20T10:00:09.9Z", 50).await.unwrap()), ["text 5"]);
}

#[tokio::test]
async fn a_list_ends_at_its_limit() {
    let server = MockServer::start().await;
    let next = format!("{MESSAGES}?Page=1");
    Mock::given(method("GET")).respond_with(page(&[entry(3, 3), entry(2, 2)], Some(&next))).mount(&server).await;
    assert_eq!(list(&server, NOW, 3).await.unwrap().len(), 3);
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
    assert_eq!(list(&server, NOW, 0).await, Ok(Vec::new()));
    assert_eq!(server.received_requests().await.unwrap().len(), 2, "nothing is asked for nothing");
}

#[tokio::test]
async fn a_next_page_at_another_host_is_refused_and_gets_no_credentials() {
    let (server, foreign) = (MockServer::start().await, MockServer::start().await);
    Mock::given(method("GET")).respond_with(page(&[], None)).mount(&foreign).await;
    let next = format!("{}{MESSAGES}?Page=1", foreign.uri());
    Mock::given(method("GET")).respond_with(page(&[entry(1, 1)], Some(&next))).mount(&server).await;
    assert_eq!(list(&server, NOW, 50).await, Err(LookUpError::Unavailable { retry_after: None }));
    assert_eq!(foreign.received_requests().await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_list_that_leads_in_a_circle_ends_and_is_no_answer() {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(page(&[], Some(MESSAGES))).mount(&server).await;
    assert_eq!(list(&server, NOW, 50).await, Err(LookUpError::Unavailable { retry_after: None }));
    assert_eq!(server.received_requests().await.unwrap().len(), 20);
}

/// The words that are said back to a reply name the cases that are open: taken for an alert's message, they would be all that
/// anybody heard of it.
#[tokio::test]
async fn what_was_not_asked_for_by_the_api_is_none_of_ours() {
    let server = MockServer::start().await;
    let in_direction = |number: u8, direction: &str| {
        let mut message = entry(number, 1);
        message["direction"] = json!(direction);
        message
    };
    let others = ["inbound", "outbound-reply", "outbound-call"];
    let mut all: Vec<Value> = (2..).zip(others).map(|(number, direction)| in_direction(number, direction)).collect();
    all.push(entry(1, 1));
    Mock::given(method("GET")).respond_with(page(&all, None)).mount(&server).await;
    assert_eq!(bodies(&list(&server, NOW, 50).await.unwrap()), ["text 1"]);
}

#[tokio::test]
async fn what_cannot_be_read_in_a_list_is_left_out_and_a_broken_list_is_no_answer() {
    let server = MockServer::start().await;
    let odd =
        json!({"sid": sid(9), "status": "received", "date_created": "Fri, 20 Nov 2026 10:00:00 +0000", "body": "in"});
    let undated =
        json!({"sid": sid(8), "status": "sent", "date_created": null, "direction": "outbound-api", "body": "undated"});
    Mock::given(method("GET")).respond_with(page(&[odd, undated, entry(1, 1)], None)).mount(&server).await;
    assert_eq!(bodies(&list(&server, NOW, 50).await.unwrap()), ["text 1"]);

    for (answer, error) in [
        (ok(json!({"no": "messages"})), LookUpError::Unavailable { retry_after: None }),
        (ResponseTemplate::new(200).set_body_string("<html>"), LookUpError::Unavailable { retry_after: None }),
        (ResponseTemplate::new(500), LookUpError::Unavailable { retry_after: None }),
        (ResponseTemplate::new(404), LookUpError::Refused { code: Some(20404) }),
        (ResponseTemplate::new(403).set_body_json(json!({"code": 70051})), LookUpError::Refused { code: Some(70051) }),
    ] {
        server.reset().await;
        Mock::given(method("GET")).respond_with(answer).mount(&server).await;
        assert_eq!(list(&server, NOW, 50).await, Err(error));
    }
}
