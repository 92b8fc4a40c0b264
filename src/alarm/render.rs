//! Notices in the words of each target. Nothing personal is in them: an alarm's name and meaning, how long and how often,
//! and a case's reference at the most.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::board::{About, Ending, Key, News, Notice};
use crate::secret::Secret;

/// Who tells.
#[derive(Debug, Clone)]
pub struct Source {
    /// What this installation is called.
    pub name: String,
    /// This process.
    pub instance: String,
    /// The college.
    pub organisation: String,
    /// Names what alarms are about.
    pub naming: NamingKey,
}

/// The key under which whatever an alarm is about is named towards others: the same for all instances, and after a restart.
/// `Debug` says nothing.
#[derive(Clone)]
pub struct NamingKey([u8; 32]);

impl NamingKey {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A keyed digest, of which 16 hexadecimal digits are enough to tell alarms apart.
    fn digest(&self, text: &str) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(text.as_bytes());
        data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes()[..8])
    }
}

impl std::fmt::Debug for NamingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NamingKey(…)")
    }
}

/// What a condition is about, as far as it is shown.
fn about(key: &Key) -> String {
    match &key.about {
        About::Case(_, reference) => format!("case {reference}"),
        About::Channel(channel) => channel.as_str().to_owned(),
        About::Code(Some(code)) => format!("code {code}"),
        About::Many => "many".to_owned(),
        // The log names them.
        About::Service | About::Contact(_) | About::Code(None) | About::Named(_) => String::new(),
    }
}

/// `90 s`, `12 min`, `3 h`.
fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = Duration::try_from(to.duration_since(from)).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// One notice in one line.
pub(super) fn line(notice: &Notice) -> String {
    let (kind, times) = (notice.key.kind, notice.times);
    let about = about(&notice.key);
    let about = if about.is_empty() { about } else { format!(" ({about})") };
    let lasted = span(notice.began_at, notice.at);
    match notice.news {
        News::Began => format!("ALARM {}{about}: {}", kind.name(), kind.summary()),
        News::GoesOn => format!("STILL {}{about}, for {lasted}, seen {times} times: {}", kind.name(), kind.summary()),
        News::Ended(Ending::Over) => format!("OVER {}{about}, after {lasted}", kind.name()),
        News::Ended(Ending::NotSeen) => format!("OVER {}{about}: not seen any more", kind.name()),
    }
}

/// Slack's incoming webhooks, and whatever takes their form: one text.
///
/// Source: Slack's pages on incoming webhooks and on formatting (`&`, `<` and `>` are escaped).
pub(super) fn slack(source: &Source, notices: &[Notice]) -> Value {
    let mut text = format!("crisis-relay {} (instance {})", source.name, source.instance);
    for notice in notices {
        text.push_str("\n• ");
        text.push_str(&line(notice));
    }
    json!({ "text": text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;") })
}

/// An event of PagerDuty's Events API, version 2. The key that binds an end to its beginning is the same whichever instance
/// tells, and after a restart.
///
/// Source: PagerDuty's OpenAPI description of the Events API V2.
pub(super) fn pagerduty(source: &Source, routing_key: &Secret, notice: &Notice) -> Value {
    let dedup_key = dedup_key(source, &notice.key);
    if let News::Ended(_) = notice.news {
        return json!({ "routing_key": routing_key.expose(), "event_action": "resolve", "dedup_key": dedup_key });
    }
    let kind = notice.key.kind;
    json!({
        "routing_key": routing_key.expose(),
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "crisis-relay",
        "payload": {
            "summary": line(notice),
            "source": source.name,
            "severity": kind.severity().word(),
            "timestamp": notice.at.to_string(),
            "component": kind.component(),
            "group": source.organisation,
            "class": kind.name(),
            "custom_details": {
                "about": about(&notice.key),
                "began_at": notice.began_at.to_string(),
                "times": notice.times,
                "instance": source.instance,
            },
        },
    })
}

/// Names a condition towards PagerDuty. What it is about is in it as a keyed digest: ids of people do not leave the house, and
/// a plain digest would be found again in a list of everybody's.
fn dedup_key(source: &Source, key: &Key) -> String {
    let about = match &key.about {
        About::Service => String::new(),
        About::Case(id, _) => id.to_string(),
        About::Contact(contact) => format!("contact/{contact}"),
        About::Channel(channel) => channel.as_str().to_owned(),
        About::Code(code) => format!("code/{}", code.unwrap_or(0)),
        About::Named(name) => format!("named/{name}"),
        About::Many => "many".to_owned(),
    };
    format!("crisis-relay/{}/{}/{}", source.organisation, key.kind.name(), source.naming.digest(&about))
}

/// How long the list of a phone's text gets at the most, in characters.
const PHONE_LIST_MAX: usize = 240;

/// What a phone of the operator's is shown. It may lie on a table.
pub(super) fn phone(source: &Source, list: &str) -> String {
    format!("Ops notice of {}: {list}. Please look at the service.", source.name)
}

/// What stands in a phone's text: names, counts, references.
pub(super) fn phone_list(source: &Source, notices: &[Notice]) -> String {
    let mut list = String::new();
    for (place, notice) in notices.iter().enumerate() {
        let word = match notice.news {
            News::Began => "",
            News::GoesOn => "still ",
            News::Ended(_) => "over: ",
        };
        let times = if notice.times > 1 { format!(" x{}", notice.times) } else { String::new() };
        let reference = match &notice.key.about {
            About::Case(_, reference) => format!(" {reference}"),
            About::Service | About::Contact(_) | About::Channel(_) | About::Code(_) | About::Named(_) | About::Many => {
                String::new()
            }
        };
        let part = format!("{word}{}{reference}{times}; ", notice.key.kind.name());
        if list.len() + part.len() > PHONE_LIST_MAX {
            list.push_str(&format!("{} more; ", notices.len() - place));
            break;
        }
        list.push_str(&part);
    }
    let instance = source.instance.get(..6).unwrap_or(&source.instance);
    format!("{}, instance {instance}", list.trim_end_matches("; "))
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::super::kind::Kind;
    use super::*;
    use crate::domain::ids::{AlertId, Reference};

    fn source() -> Source {
        let naming = NamingKey::from_bytes([7; 32]);
        Source { name: "north".into(), instance: "0123456789abcdef".into(), organisation: "default".into(), naming }
    }

    fn notice(kind: Kind, about: About, news: News) -> Notice {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        Notice { key: Key { kind, about }, news, at: at(600), began_at: at(0), times: 3 }
    }

    fn case() -> About {
        About::Case(AlertId::new(Timestamp::UNIX_EPOCH, [7; 10]), Reference::new([7; 5]))
    }

    #[test]
    fn slack_is_told_line_by_line_and_its_signs_are_escaped() {
        let notices = [
            notice(Kind::LadderExhausted, case(), News::Began),
            notice(Kind::ProviderRefused, About::Code(Some(63016)), News::GoesOn),
            notice(Kind::ProviderRefused, About::Code(None), News::Ended(Ending::Over)),
        ];
        let source = Source { name: "a<b>&c".into(), ..source() };
        let text = slack(&source, &notices)["text"].as_str().unwrap().to_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].contains("a&lt;b&gt;&amp;c"), "{text}");
        assert!(lines[1].starts_with("• ALARM ladder_exhausted (case "), "{text}");
        assert!(lines[2].starts_with("• STILL provider_refused (code 63016), for 10 min, seen 3 times: "), "{text}");
        assert_eq!(lines[3], "• OVER provider_refused, after 10 min");
    }

    #[test]
    fn pagerduty_is_told_of_the_end_under_the_key_of_the_beginning() {
        let key = Secret::from("0123456789abcdef0123456789abcdef");
        let began = pagerduty(&source(), &key, &notice(Kind::LadderExhausted, case(), News::Began));
        let ended = pagerduty(&source(), &key, &notice(Kind::LadderExhausted, case(), News::Ended(Ending::Over)));
        assert_eq!((&began["event_action"], &ended["event_action"]), (&json!("trigger"), &json!("resolve")));
        assert_eq!(began["dedup_key"], ended["dedup_key"]);
        assert!(began["dedup_key"].as_str().unwrap().len() <= 255);
        for field in ["summary", "source", "severity", "component", "class", "group", "timestamp"] {
            assert!(began["payload"][field].is_string(), "{field}: {began}");
        }
        assert_eq!(began["payload"]["severity"], "critical");
        let other = notice(Kind::LadderExhausted, About::Many, News::Began);
        assert_ne!(pagerduty(&source(), &key, &other)["dedup_key"], began["dedup_key"]);
    }

    #[test]
    fn who_or_what_an_alarm_names_by_an_id_is_in_no_notice() {
        let about = [About::Contact("ravi-kumar".parse().unwrap()), About::Named("ravi-kumar".into())];
        for about in about {
            for news in [News::Began, News::GoesOn, News::Ended(Ending::NotSeen)] {
                let notice = notice(Kind::ContactOptedOut, about.clone(), news);
                let told = [
                    slack(&source(), std::slice::from_ref(&notice)).to_string(),
                    pagerduty(&source(), &Secret::from("k"), &notice).to_string(),
                    phone_list(&source(), std::slice::from_ref(&notice)),
                ];
                assert!(told.iter().all(|text| !text.contains("ravi")), "{told:?}");
                // Whoever has a list of the staff reckons the digests of everybody on it.
                for plain in ["ravi-kumar", "contact/ravi-kumar", "named/ravi-kumar"] {
                    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(plain.as_bytes()));
                    assert!(told.iter().all(|text| !text.contains(&digest[..8])), "{plain}: {told:?}");
                }
            }
        }
    }

    #[test]
    fn another_installation_names_the_same_person_otherwise_and_the_same_one_alike_after_a_restart() {
        let notice = notice(Kind::ContactOptedOut, About::Contact("ravi-kumar".parse().unwrap()), News::Began);
        let named = |key: u8| {
            let source = Source { naming: NamingKey::from_bytes([key; 32]), instance: key.to_string(), ..source() };
            pagerduty(&source, &Secret::from("k"), &notice)["dedup_key"].clone()
        };
        let restarted = Source { instance: "another".into(), ..source() };
        assert_eq!(pagerduty(&restarted, &Secret::from("k"), &notice)["dedup_key"], named(7));
        assert_ne!(named(8), named(7));
        assert!(!format!("{:?}", source()).contains("7, 7"));
    }

    #[test]
    fn a_phone_shows_what_anybody_may_read_and_not_too_much() {
        let every = Kind::ALL.iter().map(|kind| notice(*kind, case(), News::GoesOn));
        let every: Vec<Notice> = every.cycle().take(100).collect();
        let text = phone(&source(), &phone_list(&source(), &every));
        assert!(text.len() <= 360 && text.contains(" more, instance 012345. "), "{text}");
        for kind in Kind::ALL {
            let text = phone_list(&source(), &[notice(*kind, case(), News::Began)]).to_lowercase();
            for telling in ["crisis", "suicid", "counsel", "student", "health", "patient"] {
                assert!(!text.contains(telling), "{text}");
            }
        }
    }
}
