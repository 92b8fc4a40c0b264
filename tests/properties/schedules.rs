//! Who is on call: at each instant what the clock on the wall says, and over any time without hole or overlap.

use std::collections::BTreeSet;
use std::time::Duration;

use crisis_relay::domain::ids::ContactId;
use crisis_relay::domain::schedule::{AHEAD_MAX, Absence, LocalTime, Override, Schedule, Shift, WeekTime, Zone};
use jiff::civil::{DateTime, Weekday};
use jiff::{Span, Timestamp, ToSpan as _};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::cases;

/// Zones with a whole hour of daylight saving, with half an hour, without any; one far in the east, and one that changes its
/// clock at midnight.
const ZONES: [&str; 7] = [
    "Asia/Kolkata",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Havana",
    "UTC",
];
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn person() -> impl Strategy<Value = ContactId> {
    (0u8..5).prop_map(|number| format!("person-{number}").parse().unwrap())
}

/// Most of them near a change of the clock: those are in the small hours of Sundays.
fn week_time() -> impl Strategy<Value = WeekTime> {
    let any = (0usize..7, 0u32..24, 0u32..60);
    let small_hours = (Just(6usize), 0u32..5, select(vec![0u32, 1, 15, 29, 30, 31, 45, 59]));
    prop_oneof![any, small_hours]
        .prop_map(|(day, hour, minute)| format!("{} {hour:02}:{minute:02}", DAYS[day]).parse().unwrap())
}

/// Two hours and a half on either side of a change of the clock in each of the zones that have any, and anything else.
fn instant() -> impl Strategy<Value = Timestamp> {
    let changes = select(vec![
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2026-04-04T14:00:00Z",
        "2026-09-26T14:00:00Z",
        "2026-03-08T05:00:00Z",
        "2026-11-01T05:00:00Z",
    ]);
    let near = (changes, -9_000i64..9_000)
        .prop_map(|(change, seconds)| change.parse::<Timestamp>().unwrap() + Span::new().seconds(seconds));
    let any = (1_770_000_000i64..1_830_000_000).prop_map(|second| Timestamp::from_second(second).unwrap());
    prop_oneof![3 => near, 2 => any]
}

/// A span of local time that begins near an instant.
fn dated(near: Timestamp) -> impl Strategy<Value = (LocalTime, LocalTime)> {
    let near = near.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    ((-2_000i64..2_000), (1i64..3_000)).prop_map(move |(begin, length)| {
        let local = |minutes: i64| {
            let datetime = near.checked_add(minutes.minutes()).unwrap();
            format!("{}T{:02}:{:02}", datetime.date(), datetime.hour(), datetime.minute()).parse().unwrap()
        };
        (local(begin), local(begin + length))
    })
}

fn schedule() -> impl Strategy<Value = (Schedule, Timestamp)> {
    instant().prop_flat_map(|near| {
        let shift = (week_time(), week_time(), vec(person(), 1..4));
        let shift = shift.prop_map(|(from, until, people)| Shift { from, until, people });
        let instead = (dated(near), vec(person(), 1..3));
        let instead = instead.prop_map(|((from, until), people)| Override { from, until, people });
        let away = (dated(near), person());
        let away = away.prop_map(|((from, until), person)| Absence { person, from, until });
        (select(&ZONES[..]), vec(shift, 0..8), vec(instead, 0..3), vec(away, 0..4), Just(near)).prop_map(
            |(zone, shifts, overrides, absences, near)| {
                let (id, time_zone) = ("rota".parse().unwrap(), zone.parse().unwrap());
                (Schedule { id, version: 1, time_zone, shifts, overrides, absences }, near)
            },
        )
    })
}

/// The furthest that the clock on the wall has shown by now: it may have been set back since.
fn furthest(zone: &Zone, at: Timestamp) -> DateTime {
    let zone = zone.as_time_zone();
    let since = at - Duration::from_secs(2 * 86_400);
    let just_before = zone.preceding(at + Duration::from_nanos(1)).take_while(|change| change.timestamp() > since);
    let shown = just_before.map(|change| zone.to_datetime(change.timestamp() - Duration::from_nanos(1)));
    shown.chain([zone.to_datetime(at)]).max().unwrap()
}

fn minute_of_week(local: DateTime) -> (i8, i8, i8) {
    (local.weekday().to_monday_zero_offset(), local.hour(), local.minute())
}

/// Who is on call by the clock on the wall alone, with no span worked out.
fn by_the_wall(schedule: &Schedule, at: Timestamp) -> Vec<ContactId> {
    let now = furthest(&schedule.time_zone, at);
    let parsed = |time: &WeekTime| {
        let text = time.to_string();
        let (day, time) = text.split_once(' ').unwrap();
        let day = DAYS.iter().position(|name| *name == day).unwrap();
        let day = Weekday::from_monday_zero_offset(i8::try_from(day).unwrap()).unwrap();
        (day.to_monday_zero_offset(), time[..2].parse::<i8>().unwrap(), time[3..].parse::<i8>().unwrap())
    };
    let on_shift = |shift: &&Shift| {
        let (from, until, now) = (parsed(&shift.from), parsed(&shift.until), minute_of_week(now));
        if from < until { from <= now && now < until } else { from <= now || now < until }
    };
    let within = |from: LocalTime, until: LocalTime| from.as_datetime() <= now && now < until.as_datetime();
    let instead: Vec<_> = schedule.overrides.iter().filter(|instead| within(instead.from, instead.until)).collect();
    let mut people: BTreeSet<ContactId> = if instead.is_empty() {
        schedule.shifts.iter().filter(on_shift).flat_map(|shift| shift.people.clone()).collect()
    } else {
        instead.into_iter().flat_map(|instead| instead.people.clone()).collect()
    };
    for away in schedule.absences.iter().filter(|away| within(away.from, away.until)) {
        people.remove(&away.person);
    }
    people.into_iter().collect()
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn whoever_the_clock_on_the_wall_names_is_on_call(
        (schedule, near) in schedule(),
        offsets in vec(-20_000i64..20_000, 1..40),
    ) {
        for offset in offsets {
            let at = near + Span::new().seconds(offset);
            prop_assert_eq!(schedule.on_call(at), by_the_wall(&schedule, at), "at {}", at);
        }
    }

    #[test]
    fn spans_and_gaps_tile_the_time_and_say_what_on_call_says(
        (schedule, near) in schedule(),
        length in 1u64..(20 * 86_400),
        probes in vec(0.0f64..1.0, 1..8),
    ) {
        let until = near + Duration::from_secs(length);
        let spans = schedule.spans(near, until);
        prop_assert_eq!(spans.first().map(|span| span.from), Some(near));
        prop_assert_eq!(spans.last().map(|span| span.until), Some(until));
        for pair in spans.windows(2) {
            prop_assert_eq!(pair[0].until, pair[1].from, "a hole or an overlap");
            prop_assert_ne!(&pair[0].people, &pair[1].people, "a hand-over to the same people");
        }
        for span in &spans {
            prop_assert!(span.from < span.until);
            let nanos = span.until.duration_since(span.from).as_nanos() - 1;
            let last = span.until - Duration::from_nanos(1);
            let inner = probes.iter().map(|share| span.from + jiff::SignedDuration::from_nanos((nanos as f64 * share) as i64));
            for at in [span.from, last].into_iter().chain(inner.map(|at| at.min(last))) {
                prop_assert_eq!(&schedule.on_call(at), &span.people, "at {}", at);
            }
            // Each hand-over is the next one as seen from anywhere before it.
            if span.until < until {
                prop_assert_eq!(schedule.next_change_after(span.from), Some(span.until));
                prop_assert_eq!(schedule.next_change_after(last), Some(span.until));
            }
        }
        let gaps: Vec<_> = spans.iter().filter(|span| span.people.is_empty()).cloned().collect();
        prop_assert_eq!(schedule.gaps(near, until), gaps);
    }

    #[test]
    fn nothing_changes_before_the_next_change((schedule, near) in schedule(), probes in vec(0.0f64..1.0, 8)) {
        let now = schedule.on_call(near);
        let next = schedule.next_change_after(near);
        if let Some(next) = next {
            prop_assert!(near < next && next < near + AHEAD_MAX);
            prop_assert_ne!(&schedule.on_call(next), &now);
        }
        let quiet = next.unwrap_or(near + AHEAD_MAX).duration_since(near).as_secs_f64();
        for share in probes {
            let at = near + jiff::SignedDuration::from_nanos((quiet * share * 1e9) as i64);
            prop_assert_eq!(&schedule.on_call(at), &now, "at {}", at);
        }
    }

    /// The rule of hand-overs, by itself: the first instant at which the clock shows the time, or has gone past it.
    #[test]
    fn a_local_time_is_reached_when_the_clock_first_shows_it(zone in select(&ZONES[..]), near in instant()) {
        let zone: Zone = zone.parse().unwrap();
        let clock = |at: Timestamp| zone.as_time_zone().to_datetime(at);
        let local = near.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let reached = zone.reached_at(local);
        prop_assert!(clock(reached) >= local);
        for minutes in 0..=360u64 {
            let before = reached - Duration::from_nanos(1) - Duration::from_secs(60 * minutes);
            prop_assert!(clock(before) < local, "shown at {} already", before);
        }
    }
}
