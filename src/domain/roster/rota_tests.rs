//! Policies and schedules of the roster.

use std::sync::Arc;

use super::tests::{id, on, verified};
use super::*;
use crate::domain::audit::verify_chain;
use crate::domain::event::Score;
use crate::domain::message::{BandThresholds, UrgencyBand};
use crate::domain::policy::{DefaultLadder, Policy, Step, Target};
use crate::domain::schedule::{Absence, Override, Shift};

fn policy(name: &str, target: Target) -> Policy {
    let channels = vec![Channel::Sms];
    Policy {
        id: name.parse().unwrap(),
        version: 1,
        steps: vec![Step { after: Duration::ZERO, targets: vec![target], channels: channels.clone() }],
        rounds: 2,
        repeat_every: Duration::from_secs(300),
        last_responder: Target::Contact(id()),
        last_responder_channels: channels,
        last_responder_every: Duration::from_secs(300),
        further_rounds_with_last: false,
        fall_over_after: Duration::from_secs(30),
        act_within: Duration::from_secs(900),
        check_in_within: Duration::from_secs(300),
        resolve_by_reply: false,
        emergency_contact_after: None,
        respond_within: Duration::from_secs(300),
    }
}

fn save(name: &str, target: Target, bands: &[UrgencyBand], from_version: Option<u32>) -> Change {
    let policy = RosterPolicy { policy: Arc::new(policy(name, target)), bands: bands.to_vec() };
    Change::SavePolicy { from_version, policy }
}

fn contact() -> Target {
    Target::Contact(id())
}

fn schedule(name: &str, person: &str) -> Schedule {
    let people = vec![person.parse().unwrap()];
    Schedule {
        id: name.parse().unwrap(),
        version: 7,
        time_zone: "Asia/Kolkata".parse().unwrap(),
        shifts: vec![Shift { from: "monday 08:00".parse().unwrap(), until: "monday 08:00".parse().unwrap(), people }],
        overrides: Vec::new(),
        absences: Vec::new(),
    }
}

fn add_schedule(schedule: Schedule) -> Change {
    Change::SaveSchedule { from_version: None, schedule }
}

fn configured() -> DefaultLadder {
    DefaultLadder::new(policy(CONFIGURED, contact()), id(), true)
}

fn taken(roster: &Roster, severity: f64) -> String {
    let ladders = roster.ladders(&configured(), &Directory::default(), BandThresholds::default());
    ladders.opening(Score::new(severity).unwrap()).id.as_str().to_owned()
}

fn faults(made: Result<Transition, Rejection>) -> Vec<(String, &'static str)> {
    let rejection = made.unwrap_err();
    let Rejection::Invalid(faults) = rejection else { panic!("{rejection}") };
    faults.into_iter().map(|fault| (fault.field, fault.rule)).collect()
}

#[test]
fn a_case_takes_the_policy_of_its_band_and_the_configurations_where_there_is_none() {
    use UrgencyBand::{Critical, Elevated, High};
    let drafted = on(verified(), 9, save("night", contact(), &[], None)).unwrap().roster;
    assert_eq!(taken(&drafted, 1.0), CONFIGURED);
    let active = on(drafted, 9, save("night", contact(), &[High, Critical], Some(1))).unwrap().roster;
    assert_eq!([0.8, 0.9, 1.0].map(|severity| taken(&active, severity)), [CONFIGURED, "night", "night"]);
    // A band is taken from whichever had it, and that is told.
    let second = on(active, 9, save("grave", contact(), &[Critical, Elevated], None)).unwrap();
    assert_eq!([0.8, 0.9, 1.0].map(|severity| taken(&second.roster, severity)), ["grave", "night", "grave"]);
    let versions: Vec<(u32, usize)> =
        second.roster.policies.iter().map(|known| (known.policy.version, known.bands.len())).collect();
    assert_eq!((versions, second.audit.len()), (vec![(3, 1), (1, 2)], 2));
    let gone = Change::RemovePolicy { id: "grave".parse().unwrap(), from_version: 1 };
    assert_eq!(taken(&on(second.roster, 9, gone).unwrap().roster, 1.0), CONFIGURED);
}

#[test]
fn each_version_of_a_policy_stands_in_the_audit_as_a_whole() {
    let mut roster = verified();
    let mut entries = Vec::new();
    for (change, seconds) in [
        (save("night", contact(), &[], None), 9),
        (save("night", contact(), &[], Some(1)), 10),
        (save("night", Target::Role(ContactRole::Counsellor), &[], Some(1)), 11),
    ] {
        let made = on(roster, seconds, change).unwrap();
        entries.extend(made.audit);
        roster = made.roster;
    }
    // The second changed nothing.
    assert_eq!((entries.len(), roster.policies[0].policy.version), (2, 2));
    assert!(verify_chain(&entries, Some(roster.audit_head)).is_err(), "the chain begins with the contact");
    for (entry, target, version) in
        [(&entries[0], r#"{"contact":"c-1"}"#, 1), (&entries[1], r#"{"role":"counsellor"}"#, 2)]
    {
        let said: serde_json::Value = serde_json::from_str(&entry.canonical).unwrap();
        let read: Policy = serde_json::from_value(said["policy"].clone()).unwrap();
        assert_eq!(
            (read.version, serde_json::to_string(&read.steps[0].targets[0]).unwrap().as_str()),
            (version, target)
        );
    }
}

#[test]
fn what_somebody_else_has_changed_or_taken_is_refused() {
    let roster = on(verified(), 9, save("night", contact(), &[], None)).unwrap().roster;
    let roster = on(roster, 9, add_schedule(schedule("nights", "c-1"))).unwrap().roster;
    assert_eq!(roster.schedules[0].version, 1);
    let refused = |change| on(roster.clone(), 9, change).unwrap_err();
    assert_eq!(refused(save("night", contact(), &[], None)), Rejection::IdTaken);
    assert_eq!(refused(save(CONFIGURED, contact(), &[], None)), Rejection::IdTaken);
    assert_eq!(refused(save("night", contact(), &[], Some(2))), Rejection::Outdated);
    assert_eq!(refused(save("day", contact(), &[], Some(1))), Rejection::NoSuchPolicy);
    assert_eq!(refused(add_schedule(schedule("nights", "c-1"))), Rejection::IdTaken);
    let replace = |name, from_version| Change::SaveSchedule { from_version, schedule: schedule(name, "c-1") };
    assert_eq!(refused(replace("nights", Some(2))), Rejection::Outdated);
    assert_eq!(refused(replace("days", Some(1))), Rejection::NoSuchSchedule);
    assert!(on(roster.clone(), 9, replace("nights", Some(1))).unwrap().audit.is_empty(), "the same again");
    let remove = |name: &str, from_version| Change::RemoveSchedule { id: name.parse().unwrap(), from_version };
    assert_eq!(refused(remove("days", 1)), Rejection::NoSuchSchedule);
    assert_eq!(refused(remove("nights", 2)), Rejection::Outdated);
    assert!(on(roster, 9, remove("nights", 1)).unwrap().roster.schedules.is_empty());
}

#[test]
fn a_draft_may_name_people_whose_numbers_are_not_verified_yet_and_a_policy_in_use_may_not() {
    let unverified = super::tests::one_person();
    let drafted = on(unverified, 9, save("night", contact(), &[], None)).unwrap().roster;
    let found = drafted.findings(&drafted.policies[0].policy, false, &Directory::default(), super::tests::later_by(9));
    assert_eq!((found.faults.len(), found.warnings.len()), (0, 2));
    let rule = "must be an active contact with a verified number on one of the channels";
    let activated = on(drafted, 9, save("night", contact(), &[UrgencyBand::High], Some(1)));
    assert_eq!(faults(activated), [("steps[0].targets[0]".to_owned(), rule), ("last_responder".to_owned(), rule)]);
}

#[test]
fn nobody_is_let_go_whom_a_policy_in_use_cannot_do_without() {
    let remove = || Change::RemoveContact { id: id(), from_version: 1 };
    let drafted = on(verified(), 9, save("night", contact(), &[], None)).unwrap().roster;
    assert_eq!(on(drafted.clone(), 9, remove()).unwrap().outcome, Outcome::Deactivated);
    let active = on(drafted, 9, save("night", contact(), &[UrgencyBand::High], Some(1))).unwrap().roster;
    assert!(matches!(on(active.clone(), 9, remove()), Err(Rejection::StillNeeded(_))));
    // Another number is another matter: it may be the only one that they have left.
    let change = Change::ReplaceContact { id: id(), from_version: 1, details: super::tests::details(8, true) };
    assert!(on(active, 9, change).is_ok());
}

#[test]
fn a_schedule_that_a_policy_names_stays_and_goes_on_reaching_somebody() {
    let with_schedule = on(verified(), 9, add_schedule(schedule("nights", "c-1"))).unwrap().roster;
    let on_call = Target::Schedule("nights".parse().unwrap());
    let active = on(with_schedule, 9, save("night", on_call, &[UrgencyBand::High], None)).unwrap().roster;
    let remove = Change::RemoveSchedule { id: "nights".parse().unwrap(), from_version: 1 };
    assert!(matches!(on(active.clone(), 9, remove), Err(Rejection::StillNeeded(_))));
    let nobody = Schedule { shifts: Vec::new(), ..schedule("nights", "c-1") };
    let emptied = on(active, 9, Change::SaveSchedule { from_version: Some(1), schedule: nobody });
    assert_eq!(faults(emptied)[0].0, "shifts");
}

#[test]
fn each_fault_of_a_schedule_is_told_by_its_place() {
    type Case = (fn(&mut Schedule), &'static str);
    let cases: [Case; 9] = [
        (|schedule| schedule.shifts = vec![schedule.shifts[0].clone(); 65], "shifts"),
        (|schedule| schedule.shifts[0].people.clear(), "shifts[0].people"),
        (|schedule| schedule.shifts[0].people = vec![id(); 2], "shifts[0].people[1]"),
        (|schedule| schedule.shifts[0].people = vec!["nobody".parse().unwrap()], "shifts[0].people[0]"),
        (|schedule| schedule.overrides = vec![instead("2026-12-24T10:00", "2026-12-24T10:00")], "overrides[0].until"),
        (
            |schedule| {
                schedule.overrides =
                    vec![Override { people: Vec::new(), ..instead("2026-12-24T10:00", "2026-12-25T10:00") }];
            },
            "overrides[0].people",
        ),
        (|schedule| schedule.absences = vec![away("c-1", "2026-12-24T09:00")], "absences[0].until"),
        (|schedule| schedule.absences = vec![away("nobody", "2026-12-24T11:00")], "absences[0].person"),
        (|schedule| schedule.absences = vec![away("c-1", "2026-12-24T11:00"); 65], "absences"),
    ];
    for (change, field) in cases {
        let mut wanted = schedule("nights", "c-1");
        change(&mut wanted);
        let found: Vec<String> =
            faults(on(verified(), 9, add_schedule(wanted))).into_iter().map(|(at, _)| at).collect();
        assert_eq!(found, [field]);
    }
}

fn instead(from: &str, until: &str) -> Override {
    Override { from: from.parse().unwrap(), until: until.parse().unwrap(), people: vec![id()] }
}

fn away(person: &str, until: &str) -> Absence {
    let from = "2026-12-24T10:00".parse().unwrap();
    Absence { person: person.parse().unwrap(), from, until: until.parse().unwrap() }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut roster = verified();
    for place in 0..POLICIES_MAX {
        roster = on(roster, 9, save(&format!("policy-{place}"), contact(), &[], None)).unwrap().roster;
    }
    assert!(matches!(on(roster, 9, save("one-more", contact(), &[], None)), Err(Rejection::TooMany(_))));
    let mut roster = verified();
    for place in 0..SCHEDULES_MAX {
        roster = on(roster, 9, add_schedule(schedule(&format!("schedule-{place}"), "c-1"))).unwrap().roster;
    }
    assert!(matches!(on(roster, 9, add_schedule(schedule("one-more", "c-1"))), Err(Rejection::TooMany(_))));
}
