//! Local times, and when they are reached.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::domain::ids::InvalidId;

/// The zones that the program brings: two instances, or one after a move, must not differ on when a shift begins.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

const MINUTES_OF_DAY: u16 = 24 * 60;
const MINUTES_OF_WEEK: u16 = 7 * MINUTES_OF_DAY;

/// A time zone of the IANA database, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

impl Zone {
    /// Its name, like `Asia/Kolkata`.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The zone itself, to show times in it.
    pub const fn as_time_zone(&self) -> &TimeZone {
        &self.0
    }

    /// When the clock shows `local`, or goes past it, for the first time.
    pub fn reached_at(&self, local: DateTime) -> Timestamp {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => instant(local, offset),
            AmbiguousOffset::Fold { before, .. } => instant(local, before),
            AmbiguousOffset::Gap { before, after } => {
                // By the offset of after the jump it is still before it, and by the other one it is not.
                let (earlier, latest) = (instant(local, after), instant(local, before));
                self.0.following(earlier).next().map_or(latest, |jump| jump.timestamp().min(latest))
            }
        }
    }

    /// The Mondays of every week in which something may begin that touches a window of time, if it lasts a week at the most.
    pub(super) fn weeks(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = Date> {
        let monday = |at: Timestamp, weeks: i64| {
            let date = self.0.to_datetime(at).date();
            let since = i64::from(date.weekday().to_monday_zero_offset());
            date.saturating_sub(Span::new().days(since)).saturating_add(Span::new().weeks(weeks))
        };
        // A week more at the end: the clock may be set back into the week before.
        let (first, last) = (monday(from, -1), monday(until, 1));
        first.series(Span::new().weeks(1)).take_while(move |monday| *monday <= last)
    }
}

/// Clamped to what a timestamp can say, which no clock that is set reaches.
fn instant(local: DateTime, offset: Offset) -> Timestamp {
    let clamped = if local.year() < 0 { Timestamp::MIN } else { Timestamp::MAX };
    offset.to_timestamp(local).unwrap_or(clamped)
}

impl FromStr for Zone {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be the name of an IANA time zone, such as Asia/Kolkata" };
        let known = |zone: &TimeZone| zone.iana_name().is_some() && !zone.is_unknown();
        ZONES.get(text).ok().filter(known).map(Self).ok_or(RULE)
    }
}
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The days by their names, Monday first.
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// A day of the week and a local time, such as `monday 22:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WeekTime {
    /// Minutes after Monday's beginning; beyond one week for the end of what begins in it.
    minutes: u16,
}

impl WeekTime {
    /// The minute of this day and time; seconds are left out.
    pub fn new(day: Weekday, time: Time) -> Self {
        let days = u16::from(day.to_monday_zero_offset().unsigned_abs());
        let minutes = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        Self { minutes: days * MINUTES_OF_DAY + minutes }
    }

    /// The next of these after `begin`, at the latest a week after it.
    pub(super) const fn after(self, begin: Self) -> Self {
        if self.minutes > begin.minutes { self } else { Self { minutes: self.minutes + MINUTES_OF_WEEK } }
    }

    /// The one that counts from this Monday.
    pub(super) fn in_week(self, monday: Date) -> DateTime {
        let (days, minutes) = (self.minutes / MINUTES_OF_DAY, self.minutes % MINUTES_OF_DAY);
        let date = monday.saturating_add(Span::new().days(days));
        // Both are within a day: the casts cannot go wrong.
        date.at((minutes / 60) as i8, (minutes % 60) as i8, 0, 0)
    }
}

impl fmt::Display for WeekTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, minutes) = (self.minutes / MINUTES_OF_DAY, self.minutes % MINUTES_OF_DAY);
        write!(f, "{} {:02}:{:02}", DAYS[usize::from(day) % DAYS.len()], minutes / 60, minutes % 60)
    }
}
impl FromStr for WeekTime {
    type Err = InvalidId;
    /// Reads `monday 22:00`.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be a day of the week and a time, such as monday 22:00" };
        let (day, time) = text.split_once(' ').ok_or(RULE)?;
        let day = DAYS.iter().position(|name| *name == day).ok_or(RULE)?;
        let day = i8::try_from(day).ok().and_then(|day| Weekday::from_monday_zero_offset(day).ok()).ok_or(RULE)?;
        Ok(Self::new(day, hour_and_minute(time).ok_or(RULE)?))
    }
}

/// Reads `22:00`, and no other form.
fn hour_and_minute(text: &str) -> Option<Time> {
    let number = |digits: &str| -> Option<i8> {
        let fits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if fits { digits.parse().ok() } else { None }
    };
    let (hour, minute) = text.split_once(':')?;
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

/// A date and a local time to the minute, such as `2026-12-24T18:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalTime(pub(super) DateTime);

impl LocalTime {
    /// The date and time, without a zone.
    pub const fn as_datetime(&self) -> DateTime {
        self.0
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{:02}:{:02}", self.0.date(), self.0.hour(), self.0.minute())
    }
}
impl FromStr for LocalTime {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId =
            InvalidId { rule: "must be a date from 2000 to 2199 and a local time, such as 2026-12-24T18:00" };
        let (date, time) = text.split_once('T').ok_or(RULE)?;
        let fits = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let date: Date = if fits { date.parse().map_err(|_| RULE)? } else { return Err(RULE) };
        let time = hour_and_minute(time).ok_or(RULE)?;
        if (2000..2200).contains(&date.year()) { Ok(Self(date.to_datetime(time))) } else { Err(RULE) }
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}
text_form!(Zone);
text_form!(WeekTime);
text_form!(LocalTime);
