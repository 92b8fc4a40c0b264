//! Template files: what is taken can be sent in every case, and what is not is told by key and rule.

use crisis_relay::domain::contact::{Channel, Language};
use crisis_relay::domain::message::{MessageFacts, Purpose, TemplateSet, UrgencyBand, segments};
use jiff::tz::TimeZone;

/// English, in case that the input is in another language.
const ENGLISH: &str = include_str!("../../config/templates/en.toml");

/// Time zones with a name, without one, and far out.
const ZONES: [&str; 4] = ["Asia/Kolkata", "America/Sao_Paulo", "Pacific/Chatham", "Etc/GMT+12"];

/// Input: the file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let alone = TemplateSet::parse(&[("input", text)]);
    let beside = TemplateSet::parse(&[("input", text), ("en.toml", ENGLISH)]);
    for faults in [&alone, &beside].into_iter().filter_map(|read| read.as_ref().err()) {
        assert!(!faults.is_empty(), "refused, and nobody knows why");
        for fault in faults {
            assert!(fault.file == "input" || fault.key == "language", "the fault of another file: {fault}");
            assert!(!fault.key.is_empty() && !fault.rule.is_empty(), "{fault}");
        }
    }
    for set in [alone, beside].into_iter().flatten() {
        send_everything(&set);
    }
}

fn send_everything(set: &TemplateSet) {
    let languages: Vec<Language> = set.languages().map(|(language, _)| language.clone()).collect();
    for language in &languages {
        for purpose in [Purpose::CounsellorAlert].into_iter().chain(Purpose::NOTICES) {
            let definition = set.content_definition(purpose, language);
            let buttons = &definition["types"]["twilio/quick-reply"];
            let shape = if buttons.is_object() { buttons } else { &definition["types"]["twilio/text"] };
            assert!(shape["body"].is_string(), "{definition}");
            assert!(purpose.is_answered() || buttons.is_null(), "nothing is to be answered: {definition}");
            for action in shape["actions"].as_array().into_iter().flatten() {
                let title = action["title"].as_str().unwrap_or_default();
                assert!((1..=20).contains(&title.encode_utf16().count()) && !title.contains('{'), "{definition}");
                assert!(action["id"].as_str().is_some_and(|id| id.len() < 10), "{definition}");
            }
        }
        for facts in facts() {
            send(set, language, &facts);
        }
    }
}

fn send(set: &TemplateSet, language: &Language, facts: &MessageFacts) {
    for (channel, most) in [(Channel::Whatsapp, 1024), (Channel::Sms, 1600)] {
        let composed = set.compose(channel, language, facts, None);
        let composed = composed.unwrap_or_else(|error| panic!("a text that was taken cannot be sent: {error}"));
        let text = &composed.text;
        assert!(text.encode_utf16().count() <= most, "{} is too long: {text}", channel.as_str());
        assert!(text.contains(facts.reference.as_str()), "the code is missing: {text}");
        assert_eq!(text.contains("DRILL"), facts.drill, "{text}");
        assert_eq!(composed.text_sha256, crisis_relay::domain::message::text_sha256(text));
        if channel == Channel::Sms {
            let bound = set.sms_segments_bound(language);
            assert!(segments::count(text).segments <= bound, "more than {bound} parts: {text}");
        }
        for value in &composed.variables {
            assert!(!value.trim().is_empty() && !value.chars().any(char::is_control), "{value:?}");
        }
    }
}

/// The corners of what an alert can be.
fn facts() -> impl Iterator<Item = MessageFacts> {
    let at = |time: &str| time.parse().expect("a time");
    let zones = ZONES.map(|name| TimeZone::get(name).expect("a time zone"));
    let kinds = UrgencyBand::ALL.into_iter().flat_map(|band| [(band, false), (band, true)]);
    kinds.enumerate().flat_map(move |(place, (band, drill))| {
        let zone = zones[place % zones.len()].clone();
        [None, Some(0.0), Some(0.999_999), Some(1.0)].into_iter().map(move |score| MessageFacts {
            reference: "ZZZZZZZZ".parse().expect("a reference"),
            score,
            band,
            raised_at: at("2026-11-20T23:59:59Z"),
            respond_by: at("2026-11-21T00:04:59Z"),
            time_zone: zone.clone(),
            link: score.is_some().then(|| "https://relay.example.org/a".parse().expect("a link")),
            sender: "W".repeat(20).parse().expect("a sender"),
            drill,
        })
    })
}
