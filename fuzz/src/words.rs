//! The small texts: numbers, ids, codes, labels, links, replies. What is read is written as it was read, and a refusal
//! repeats nothing.

use std::fmt::Display;
use std::str::FromStr;

use crisis_relay::domain::audit::{AuditHash, AuditStream};
use crisis_relay::domain::contact::{Language, PhoneNumber};
use crisis_relay::domain::event::Label;
use crisis_relay::domain::ids::{
    AddressKey, AlertId, ContactId, IdempotencyKey, InvalidId, OrganisationId, PolicyId, ProviderId, Reference,
    ScheduleId,
};
use crisis_relay::domain::message::{LinkBase, SenderName, segments};
use crisis_relay::domain::provider::MessageStatus;
use crisis_relay::domain::reply::Command;
use crisis_relay::domain::schedule::{LocalTime, WeekTime, Zone};
use crisis_relay::http::auth::{ApiKeyHash, Role};
use crisis_relay::service::reading::AlertName;
use crisis_relay::twilio::callback::{attempt_of, status_callback_url};
use crisis_relay::twilio::rest::SmsSender;

/// Input: the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    comes_back::<AlertId>(text);
    comes_back::<OrganisationId>(text);
    comes_back::<ContactId>(text);
    comes_back::<Reference>(text);
    comes_back::<AddressKey>(text);
    comes_back::<IdempotencyKey>(text);
    comes_back::<ProviderId>(text);
    comes_back::<Language>(text);
    comes_back::<SenderName>(text);
    comes_back::<ApiKeyHash>(text);
    comes_back::<AuditHash>(text);
    comes_back::<AuditStream>(text);
    comes_back::<PolicyId>(text);
    comes_back::<ScheduleId>(text);
    comes_back::<WeekTime>(text);
    comes_back::<LocalTime>(text);
    comes_back::<Zone>(text);
    if let Ok(label) = text.parse::<Label>() {
        assert_eq!(label.as_str(), text);
    }
    phone_number(text);
    link(text);
    reply(text);
    callback(text);
    let count = segments::count(text);
    assert_eq!(count.segments == 0, text.is_empty());
    assert!(count.units >= count.segments.saturating_sub(1) * (count.encoding.units_per_part() - 1), "{count:?}");
    if let Some(role) = Role::from_word(text) {
        assert_eq!(role.word(), text);
    }
    if let Some(status) = MessageStatus::parse(text) {
        assert_eq!(MessageStatus::parse(status.word()), Some(status));
    }
    let _ = text.parse::<SmsSender>().map(|sender| format!("{sender:?}"));
}

/// What is read is written so that it is read again as the same.
fn comes_back<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            assert!(written.parse::<T>().is_ok_and(|again| again == value), "{written:?} is another than {text:?}");
        }
        Err(error) => {
            let told = error.to_string();
            assert!(!super::repeats(&told), "a refusal repeats what was given: {told}");
        }
    }
}

/// A number is shown by its end only, and kept as it was dialled.
fn phone_number(text: &str) {
    match text.parse::<PhoneNumber>() {
        Ok(number) => {
            let whole = number.expose();
            assert!(text.contains(whole), "{whole} was not given");
            assert!((3..=16).contains(&whole.len()) && whole.starts_with('+'), "{whole}");
            for shown in [format!("{number}"), format!("{number:?}")] {
                let digits = shown.chars().filter(char::is_ascii_digit).count();
                assert!(digits <= 2, "more than a number's end is shown: {shown}");
            }
            assert_eq!(format!("whatsapp:{whole}").parse::<PhoneNumber>(), Ok(number.clone()));
        }
        Err(InvalidId { rule }) => assert!(rule.starts_with("must "), "{rule}"),
    }
}

fn link(text: &str) {
    let Ok(base) = text.parse::<LinkBase>() else { return };
    let link = base.link("K7Q4TX3M".parse().expect("a reference"));
    assert!(link.len() <= 64 && link.ends_with("/K7Q4TX3M"), "{link}");
    let url = url::Url::parse(&link).unwrap_or_else(|error| panic!("{link}: {error}"));
    assert!(url.query().is_none() && url.fragment().is_none() && url.username().is_empty(), "{link}");
    assert_eq!(base.as_str().parse::<LinkBase>().as_ref(), Ok(&base), "{link}");
}

/// A reply takes a case or does not, however it is spaced; and an alert's name is an id or a code.
fn reply(text: &str) {
    let command = Command::parse(text);
    assert_eq!(Command::parse(&format!(" {text} \n")), command, "spaces around it make another reply of {text:?}");
    assert!(!(command.is_about_a_case() && command.is_silent()));
    if let Some(reference) = command.reference() {
        assert_eq!(text.split_whitespace().count(), 2, "{reference} in {text:?}");
    }
    if let Ok(name) = text.parse::<AlertName>() {
        let written = match name {
            AlertName::Id(id) => id.to_string(),
            AlertName::Reference(reference) => reference.to_string(),
        };
        assert_eq!(written.parse(), Ok(name));
    }
}

/// A callback's URL names the attempt that it is for.
fn callback(query: &str) {
    let Some(attempt) = attempt_of(query) else { return };
    let base = "https://relay.example.org/base/".parse().expect("a URL");
    let url: url::Url = status_callback_url(&base, &attempt).parse().expect("a URL of ours");
    assert_eq!(url.query().and_then(attempt_of), Some(attempt), "{url}");
}
