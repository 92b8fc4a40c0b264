use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn people(names: &[&str]) -> Vec<ContactId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn shift(from: &str, until: &str, names: &[&str]) -> Shift {
    Shift { from: from.parse().unwrap(), until: until.parse().unwrap(), people: people(names) }
}

fn schedule(zone: &str, shifts: Vec<Shift>) -> Schedule {
    let (id, time_zone) = ("nights".parse().unwrap(), zone.parse().unwrap());
    Schedule { id, version: 1, time_zone, shifts, overrides: Vec::new(), absences: Vec::new() }
}

fn replaced(from: &str, until: &str, names: &[&str]) -> Override {
    Override { from: from.parse().unwrap(), until: until.parse().unwrap(), people: people(names) }
}

fn away(person: &str, from: &str, until: &str) -> Absence {
    Absence { person: person.parse().unwrap(), from: from.parse().unwrap(), until: until.parse().unwrap() }
}

/// Every night and every day of the week, by two people.
fn day_and_night(zone: &str) -> Schedule {
    let days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let shifts = (0..7).flat_map(|day| {
        let (today, tomorrow) = (days[day], days[(day + 1) % 7]);
        let (morning, evening) = (format!("{today} 06:00"), format!("{today} 22:00"));
        [shift(&morning, &evening, &["day"]), shift(&evening, &format!("{tomorrow} 06:00"), &["night"])]
    });
    schedule(zone, shifts.collect())
}

/// The first span, as times and names.
fn shown(span: &OnCall) -> String {
    let names: Vec<&str> = span.people.iter().map(ContactId::as_str).collect();
    format!("{} {} {}", span.from, span.until, names.join("+"))
}

#[test]
fn a_shift_ends_at_its_time_and_the_next_one_begins_at_it() {
    let schedule = schedule(
        "Asia/Kolkata",
        vec![
            shift("monday 09:00", "monday 17:00", &["anita", "bela"]),
            shift("monday 17:00", "tuesday 09:00", &["chetan"]),
        ],
    );
    for (time, names) in [
        ("2026-11-23T03:29:59Z", &[][..]),
        ("2026-11-23T03:30:00Z", &["anita", "bela"]),
        ("2026-11-23T11:29:59.999999999Z", &["anita", "bela"]),
        ("2026-11-23T11:30:00Z", &["chetan"]),
        ("2026-11-24T03:29:59Z", &["chetan"]),
        ("2026-11-24T03:30:00Z", &[]),
    ] {
        assert_eq!(schedule.on_call(at(time)), people(names), "{time}");
    }
    assert_eq!(schedule.next_change_after(at("2026-11-23T04:00:00Z")), Some(at("2026-11-23T11:30:00Z")));
    assert_eq!(schedule.next_change_after(at("2026-11-24T03:30:00Z")), Some(at("2026-11-30T03:30:00Z")));
}

#[test]
fn a_shift_may_cross_the_weeks_end_or_last_a_week() {
    let weekend = schedule("Europe/Berlin", vec![shift("friday 18:00", "monday 08:00", &["weekend"])]);
    assert_eq!(weekend.on_call(at("2026-11-23T06:59:59Z")), people(&["weekend"]));
    assert_eq!(weekend.on_call(at("2026-11-23T07:00:00Z")), people(&[]));
    assert_eq!(weekend.on_call(at("2026-11-27T17:00:00Z")), people(&["weekend"]));
    let always = schedule("Europe/Berlin", vec![shift("wednesday 12:00", "wednesday 12:00", &["always"])]);
    let from = at("2026-10-01T00:00:00Z");
    assert_eq!(always.next_change_after(from), None);
    assert_eq!(always.gaps(from, from + Duration::from_secs(60 * 86_400)), []);
}

#[test]
fn in_the_night_of_a_change_a_shift_is_as_long_as_the_clock_on_the_wall_says() {
    let hours = |zone: &str, noon_before: &str| {
        let schedule = day_and_night(zone);
        let begin = schedule.next_change_after(at(noon_before)).unwrap();
        let end = schedule.next_change_after(begin).unwrap();
        (schedule.on_call(begin) == people(&["night"]), end.duration_since(begin).as_secs_f64() / 3600.0)
    };
    for (zone, noon_before, length) in [
        ("Asia/Kolkata", "2026-03-28T06:30:00Z", 8.0),
        ("Europe/Berlin", "2026-03-28T11:00:00Z", 7.0),
        ("Europe/Berlin", "2026-10-24T10:00:00Z", 9.0),
        ("America/New_York", "2026-03-07T17:00:00Z", 7.0),
        ("America/New_York", "2026-10-31T16:00:00Z", 9.0),
        // Half an hour.
        ("Australia/Lord_Howe", "2026-04-04T01:00:00Z", 8.5),
        ("Australia/Lord_Howe", "2026-10-03T01:30:00Z", 7.5),
    ] {
        assert_eq!(hours(zone, noon_before), (true, length), "{zone} after {noon_before}");
    }
}

#[test]
fn a_time_that_the_clock_jumps_over_is_reached_at_the_jump() {
    // 02:00 is followed by 03:00 at 01:00 UTC.
    let schedule = schedule(
        "Europe/Berlin",
        vec![
            shift("saturday 20:00", "sunday 02:30", &["early"]),
            shift("sunday 02:30", "sunday 08:00", &["late"]),
            // Wholly within the hour that is not.
            shift("sunday 02:10", "sunday 02:50", &["never"]),
        ],
    );
    let spans = schedule.spans(at("2026-03-28T19:00:00Z"), at("2026-03-29T06:00:00Z"));
    let expected =
        ["2026-03-28T19:00:00Z 2026-03-29T01:00:00Z early", "2026-03-29T01:00:00Z 2026-03-29T06:00:00Z late"];
    assert_eq!(spans.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[test]
fn a_time_that_the_clock_shows_twice_is_reached_the_first_time() {
    // 03:00 is followed by 02:00 at 01:00 UTC.
    let schedule = schedule(
        "Europe/Berlin",
        vec![shift("saturday 20:00", "sunday 02:30", &["early"]), shift("sunday 02:30", "sunday 03:00", &["late"])],
    );
    let spans = schedule.spans(at("2026-10-24T18:00:00Z"), at("2026-10-25T03:00:00Z"));
    let expected = [
        "2026-10-24T18:00:00Z 2026-10-25T00:30:00Z early",
        "2026-10-25T00:30:00Z 2026-10-25T02:00:00Z late",
        "2026-10-25T02:00:00Z 2026-10-25T03:00:00Z ",
    ];
    assert_eq!(spans.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[test]
fn an_override_replaces_and_an_absence_takes_out() {
    let mut schedule = day_and_night("Asia/Kolkata");
    schedule.overrides = vec![replaced("2026-12-24T18:00", "2026-12-25T10:00", &["deputy", "night"])];
    schedule.absences = vec![away("night", "2026-12-25T00:00", "2026-12-26T02:00")];
    let spans = schedule.spans(at("2026-12-24T06:30:00Z"), at("2026-12-25T22:30:00Z"));
    let expected = [
        "2026-12-24T06:30:00Z 2026-12-24T12:30:00Z day",
        "2026-12-24T12:30:00Z 2026-12-24T18:30:00Z deputy+night",
        "2026-12-24T18:30:00Z 2026-12-25T04:30:00Z deputy",
        "2026-12-25T04:30:00Z 2026-12-25T16:30:00Z day",
        // Nobody: the night's person is away until two.
        "2026-12-25T16:30:00Z 2026-12-25T20:30:00Z ",
        "2026-12-25T20:30:00Z 2026-12-25T22:30:00Z night",
    ];
    assert_eq!(spans.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(schedule.gaps(at("2026-12-24T06:30:00Z"), at("2026-12-27T00:00:00Z")).len(), 1);
    let named: Vec<&str> = schedule.names().into_iter().map(ContactId::as_str).collect();
    assert_eq!(named, ["day", "deputy", "night"]);
}

#[test]
fn a_schedule_without_shifts_is_one_gap() {
    let schedule = schedule("UTC", Vec::new());
    let (from, until) = (at("2026-11-23T00:00:00Z"), at("2026-12-07T00:00:00Z"));
    assert_eq!(schedule.spans(from, until), [OnCall { from, until, people: Vec::new() }]);
    assert_eq!(schedule.next_change_after(from), None);
    assert_eq!(schedule.spans(until, from), []);
}

#[test]
fn however_far_is_asked_the_answer_is_bounded() {
    let schedule = day_and_night("Europe/Berlin");
    let from = at("2026-11-23T00:00:00Z");
    let spans = schedule.spans(from, Timestamp::MAX);
    assert_eq!(spans.last().map(|span| span.until), Some(from + AHEAD_MAX));
    // Where time itself ends, nothing breaks.
    for edge in [Timestamp::MIN, Timestamp::MAX] {
        let _ = (schedule.on_call(edge), schedule.next_change_after(edge), schedule.spans(edge, Timestamp::MAX));
    }
}

#[test]
fn it_reads_as_people_write_it_and_nothing_else() {
    let text = r#"{"id":"nights","version":3,"time_zone":"Asia/Kolkata",
        "shifts":[{"from":"sunday 22:00","until":"monday 06:00","people":["anita"]}],
        "overrides":[{"from":"2026-12-24T18:00","until":"2026-12-25T10:00","people":["bela"]}],
        "absences":[{"person":"anita","from":"2026-12-01T00:00","until":"2026-12-02T00:00"}]}"#;
    let read: Schedule = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
    assert_eq!((read.shifts[0].from.to_string(), read.time_zone.name()), ("sunday 22:00".to_owned(), "Asia/Kolkata"));
    for text in
        ["", "monday", "monday 24:00", "monday 9:00", "Monday 09:00", "monday  09:00", "monday 09:60", "moon 09:00"]
    {
        assert!(text.parse::<WeekTime>().is_err(), "{text:?}");
    }
    for text in [
        "",
        "2026-12-24",
        "2026-12-24T18:00:00",
        "2026-12-24T18:00Z",
        "2026-02-30T18:00",
        "1999-12-31T00:00",
        "2200-01-01T00:00",
        "2026-12-24 18:00",
        "+002026-12-24T18:00",
        "20261224T18:00",
    ] {
        assert!(text.parse::<LocalTime>().is_err(), "{text:?}");
    }
    for text in ["", "IST", "Asia/Nowhere", "+05:30", "IST-5:30", "Etc/Unknown", "../etc/passwd"] {
        assert!(text.parse::<Zone>().is_err(), "{text:?}");
    }
}
