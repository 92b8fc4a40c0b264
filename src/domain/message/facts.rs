//! What a message is made of: facts that give nothing away, each parsed before it gets here.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::matter;
use crate::domain::contact::PhoneNumber;
use crate::domain::ids::{InvalidId, Reference};

/// How soon somebody must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UrgencyBand {
    /// Above the alert threshold.
    Elevated,
    /// At or above [`BandThresholds::high`].
    High,
    /// At or above [`BandThresholds::critical`].
    Critical,
}

impl UrgencyBand {
    /// Every band there is, the mildest first.
    pub const ALL: [Self; 3] = [Self::Elevated, Self::High, Self::Critical];

    /// The band's name, as in template files and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elevated => "elevated",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The band of a score. What is no number counts as critical: a fault upstream must not make an alert look mild.
    pub fn of(score: f64, thresholds: BandThresholds) -> Self {
        if score < thresholds.high {
            Self::Elevated
        } else if score < thresholds.critical {
            Self::High
        } else {
            Self::Critical
        }
    }
}

/// From which score a band begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BandThresholds {
    high: f64,
    critical: f64,
}

impl BandThresholds {
    /// Thresholds with `0 <= high <= critical <= 1`.
    ///
    /// # Errors
    /// [`InvalidId`] with that rule.
    pub fn new(high: f64, critical: f64) -> Result<Self, InvalidId> {
        if 0.0 <= high && high <= critical && critical <= 1.0 {
            Ok(Self { high, critical })
        } else {
            Err(InvalidId { rule: "must be 0 <= high <= critical <= 1" })
        }
    }

    /// The score from which an alert is `High`.
    pub const fn high(self) -> f64 {
        self.high
    }

    /// The score from which an alert is `Critical`.
    pub const fn critical(self) -> f64 {
        self.critical
    }
}

impl Default for BandThresholds {
    /// 0.90 and 0.95.
    fn default() -> Self {
        Self { high: 0.90, critical: 0.95 }
    }
}

/// The organisation's short name as messages show it: 1 to 20 characters of ASCII, so that it never turns a text into
/// UCS-2.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SenderName(String);

impl SenderName {
    /// The most characters a name may have.
    pub const MAX: usize = 20;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SenderName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let name = text.trim();
        let fits = (1..=Self::MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'&'))
            && name.bytes().any(|b| b.is_ascii_alphanumeric())
            && !name.contains("  ");
        if !fits {
            return Err(InvalidId { rule: "must be 1 to 20 letters, digits, single spaces, '-' or '&' (ASCII)" });
        }
        refuse_telling(name)?;
        Ok(Self(name.to_owned()))
    }
}
impl TryFrom<String> for SenderName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<SenderName> for String {
    fn from(name: SenderName) -> String {
        name.0
    }
}
impl fmt::Display for SenderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom an emergency contact is asked to call: the college's own desk, whose people verify who is calling and tell the rest
/// by voice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desk {
    /// What it is called in messages.
    pub name: SenderName,
    /// Its number.
    pub phone: PhoneNumber,
}

/// Where the dashboard shows an alert, without the reference: `https://relay.example.org/a`. A message's link is this, a
/// slash and the reference; nothing else can get into it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkBase(String);

impl LinkBase {
    /// The most characters a base may have: with the reference, a link has at most 64.
    pub const MAX: usize = 55;

    /// The link to one alert. Behind it a login must stand, and a GET must change nothing: link previews fetch it.
    pub fn link(&self, reference: Reference) -> String {
        format!("{}/{reference}", self.0)
    }

    /// The base as text, without a closing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkBase {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId {
            rule: "must be an https address of at most 55 characters (ASCII), without user, query or fragment",
        };
        let base = text.trim().trim_end_matches('/');
        let url = url::Url::parse(base).map_err(|_| RULE)?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        // The characters themselves leave no room for a user, a query, a fragment, or what GSM-7 lacks.
        let fits = base.len() <= Self::MAX
            && base.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/' | b':'))
            && url.has_host()
            && (url.scheme() == "https" || (url.scheme() == "http" && local));
        if !fits {
            return Err(RULE);
        }
        refuse_telling(base)?;
        Ok(Self(base.to_owned()))
    }
}
impl TryFrom<String> for LinkBase {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<LinkBase> for String {
    fn from(base: LinkBase) -> String {
        base.0
    }
}

/// A name or an address is on the lock screen as the text is.
fn refuse_telling(text: &str) -> Result<(), InvalidId> {
    if matter::named_in(text).is_some() {
        return Err(InvalidId { rule: "must not name the matter: phones are read by others" });
    }
    if text.to_ascii_lowercase().contains("drill") {
        return Err(InvalidId { rule: "must not contain `drill`: a live alert would look like a drill" });
    }
    Ok(())
}

/// All that a message is made of. There is no room for a student's id, for anybody's own words, or for a number.
#[derive(Debug, Clone)]
pub struct MessageFacts {
    /// The alert's code.
    pub reference: Reference,
    /// The score in `0.0..=1.0`; `None` if a person raised the alert.
    pub score: Option<f64>,
    /// How soon somebody must act; for an alert that a person raised, the caller's choice.
    pub band: UrgencyBand,
    /// When the alert was raised.
    pub raised_at: Timestamp,
    /// Until when somebody must have taken it.
    pub respond_by: Timestamp,
    /// The organisation's time zone.
    pub time_zone: TimeZone,
    /// Where the dashboard is, if links are configured.
    pub link: Option<LinkBase>,
    /// The organisation's short name.
    pub sender: SenderName,
    /// Whether this is a drill.
    pub drill: bool,
}

/// `14:05 IST`. At most [`TIME_WIDEST`] long, and within GSM-7.
pub(super) fn time_text(at: Timestamp, zone: &TimeZone) -> String {
    let local = zone.to_datetime(at);
    let info = zone.to_offset_info(at);
    let name = info.abbreviation();
    let short = (1..=6).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b));
    let name = if short { name.to_owned() } else { offset_text(info.offset().seconds()) };
    format!("{:02}:{:02} {name}", local.hour(), local.minute())
}

fn offset_text(seconds: i32) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// As wide as [`time_text`] gets.
pub(super) const TIME_WIDEST: &str = "00:00 WWWWWW";

/// `0.93`: cut off and not rounded, so that a score just below a band's threshold does not read as if it had reached it.
pub(super) fn score_text(score: f64) -> Option<String> {
    if !(0.0..=1.0).contains(&score) {
        return None;
    }
    // Cut in the shortest decimal form: multiplying by 100 would turn 0.29 into 28.999….
    let shortest = score.abs().to_string();
    let (whole, decimals) = shortest.split_once('.').unwrap_or((&shortest, ""));
    Some(format!("{whole}.{:0<2}", decimals.get(..2).unwrap_or(decimals)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::segments::{Encoding, encoding};
    use super::*;

    #[test]
    fn a_band_begins_at_its_threshold() {
        let thresholds = BandThresholds::default();
        for (score, band) in [
            (0.0, UrgencyBand::Elevated),
            (0.899, UrgencyBand::Elevated),
            (0.9, UrgencyBand::High),
            (0.949, UrgencyBand::High),
            (0.95, UrgencyBand::Critical),
            (1.0, UrgencyBand::Critical),
            (f64::NAN, UrgencyBand::Critical),
        ] {
            assert_eq!(UrgencyBand::of(score, thresholds), band, "{score}");
        }
        for (high, critical) in [(-0.1, 0.5), (0.9, 0.8), (0.9, 1.1), (f64::NAN, 0.9), (0.9, f64::NAN)] {
            assert!(BandThresholds::new(high, critical).is_err(), "{high} {critical}");
        }
        assert_eq!(BandThresholds::new(0.9, 0.95), Ok(thresholds));
    }

    #[test]
    fn a_sender_is_short_plain_and_does_not_name_the_matter() {
        for name in ["MITRA", "St-Xavier & Co", " A ", "12345678901234567890"] {
            assert!(name.parse::<SenderName>().is_ok(), "{name}");
        }
        for name in [
            "",
            " ",
            "-",
            "123456789012345678901",
            "मित्र",
            "a  b",
            "a{b",
            "a.b",
            "a\nb",
            "Crisis Cell",
            "Student Care",
            "Drill Team",
        ] {
            assert!(name.parse::<SenderName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_link_has_no_room_for_anything_but_the_reference() {
        let base: LinkBase = "https://relay.example.org/a/".parse().unwrap();
        assert_eq!(base.link("K7Q4TX3M".parse().unwrap()), "https://relay.example.org/a/K7Q4TX3M");
        assert!("http://localhost:8080".parse::<LinkBase>().is_ok());
        let long = format!("https://{}.example.org", "a".repeat(40));
        for text in [
            "",
            "relay.example.org",
            "http://relay.example.org",
            "ftp://relay.example.org",
            "https://",
            "https://user@relay.example.org",
            "https://relay.example.org/?user=",
            "https://relay.example.org/#",
            "https://relay.example.org/a b",
            "https://relay.example.org/~a",
            "https://counselling.example.org",
            "https://drill.example.org",
            long.as_str(),
        ] {
            assert!(text.parse::<LinkBase>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_score_is_cut_and_never_rounded_up() {
        for (score, text) in [
            (0.0, "0.00"),
            (-0.0, "0.00"),
            (0.29, "0.29"),
            (0.9, "0.90"),
            (0.949, "0.94"),
            (0.99999, "0.99"),
            (1e-9, "0.00"),
            (1.0, "1.00"),
        ] {
            assert_eq!(score_text(score).as_deref(), Some(text));
        }
        for score in [-0.01, 1.01, f64::NAN, f64::INFINITY] {
            assert_eq!(score_text(score), None);
        }
    }

    #[test]
    fn times_are_the_organisations_own_with_their_zone() {
        let at: Timestamp = "2026-11-03T08:35:59Z".parse().unwrap();
        let zone = |posix: &str| TimeZone::posix(posix).unwrap();
        assert_eq!(time_text(at, &zone("IST-5:30")), "14:05 IST");
        assert_eq!(time_text(at, &zone("CET-1CEST,M3.5.0,M10.5.0/3")), "09:35 CET");
        assert_eq!(time_text(at, &zone("<+0545>-5:45")), "14:20 +0545");
        assert_eq!(time_text(at, &zone("VERYLONG3:30")), "05:05 -03:30");
        assert_eq!(time_text(at, &TimeZone::UTC), "08:35 UTC");
    }

    proptest! {
        #[test]
        fn a_score_always_reads_as_no_more_than_it_is(score in 0.0..=1.0f64) {
            let text = score_text(score).unwrap();
            let read: f64 = text.parse().unwrap();
            prop_assert_eq!(text.len(), 4);
            prop_assert!(read <= score && score < read + 0.010_000_000_1);
        }

        #[test]
        fn a_time_is_never_wider_than_the_widest(second in -9_999_999_999i64..99_999_999_999, offset in -90_000..90_000) {
            let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(offset).unwrap());
            let text = time_text(Timestamp::from_second(second).unwrap(), &zone);
            prop_assert!(text.len() <= TIME_WIDEST.len(), "{}", text);
            prop_assert_eq!(encoding(&text), Encoding::Gsm7);
        }

        #[test]
        fn whatever_is_accepted_stays_within_its_bounds(text in "\\PC{0,30}|[a-zA-Z0-9 &-]{0,30}", path in "\\PC{0,40}") {
            if let Ok(sender) = text.parse::<SenderName>() {
                prop_assert!((1..=SenderName::MAX).contains(&sender.as_str().len()));
                prop_assert_eq!(encoding(sender.as_str()), Encoding::Gsm7);
            }
            if let Ok(base) = format!("https://a.example/{path}").parse::<LinkBase>() {
                let link = base.link(Reference::new([0; 5]));
                prop_assert!(link.len() <= 64);
                prop_assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./:".contains(&b)));
            }
        }
    }
}
