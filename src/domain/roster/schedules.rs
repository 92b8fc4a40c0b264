//! Schedules of the roster.

use std::collections::BTreeSet;

use super::{Changing, FieldFault, Outcome, Rejection, Roster, SettingsDeed};
use crate::domain::ids::{ContactId, ScheduleId};
use crate::domain::policy::Target;
use crate::domain::schedule::{DATED_MAX, LocalTime, ON_CALL_MAX, SHIFTS_MAX, Schedule};

/// How many schedules there may be.
pub const SCHEDULES_MAX: usize = 16;
/// How many bytes a roster may have with its schedules and policies: one document of a store takes 1 MiB, and contacts come
/// besides.
const ROSTER_BYTES_MAX: usize = 600_000;

impl Roster {
    /// The schedule with this id.
    pub fn schedule(&self, id: &ScheduleId) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| schedule.id == *id)
    }

    fn is_named(&self, id: &ScheduleId) -> bool {
        let is_it = |target: &Target| matches!(target, Target::Schedule(named) if named == id);
        self.policies.iter().any(|policy| {
            let policy = &policy.policy;
            policy.steps.iter().flat_map(|step| &step.targets).chain([&policy.last_responder]).any(is_it)
        })
    }
}

impl Changing<'_, '_> {
    /// Adds a schedule, where none was changed, or replaces the one that was.
    pub(super) fn save_schedule(&mut self, from_version: Option<u32>, wanted: Schedule) -> Result<Outcome, Rejection> {
        let place = self.roster.schedules.iter().position(|known| known.id == wanted.id);
        let before = place.map(|place| self.roster.schedules[place].clone());
        let known = before.as_ref().map(|before| before.version);
        let version = self.next_version(known, from_version, Rejection::NoSuchSchedule)?;
        if before.is_none() && self.roster.schedules.len() >= SCHEDULES_MAX {
            return Err(Rejection::TooMany("there are 16 schedules: no more are kept"));
        }
        let faults = faults(&wanted, &self.roster.known(self.cx.configured));
        if !faults.is_empty() {
            return Err(Rejection::Invalid(faults));
        }
        if before.as_ref().is_some_and(|before| *before == Schedule { version: before.version, ..wanted.clone() }) {
            return Ok(Outcome::Done);
        }
        let (saved, earlier) = (Schedule { version, ..wanted }, self.roster.clone());
        self.record(&SettingsDeed::ScheduleSaved { schedule: &saved });
        match place {
            Some(place) => self.roster.schedules[place] = saved,
            None => self.roster.schedules.push(saved),
        }
        let rule = "must name somebody whom each policy in use that names the schedule can tell";
        let refusal = Rejection::Invalid(vec![FieldFault { field: "shifts".to_owned(), rule }]);
        self.refuse_new_faults(&earlier, refusal)?;
        self.refuse_too_large()?;
        Ok(Outcome::Done)
    }

    /// Takes a schedule away that no policy names.
    pub(super) fn remove_schedule(&mut self, id: &ScheduleId, from_version: u32) -> Result<Outcome, Rejection> {
        let known = self.roster.schedules.iter().position(|known| known.id == *id);
        let place = known.ok_or(Rejection::NoSuchSchedule)?;
        if self.roster.schedules[place].version != from_version {
            return Err(Rejection::Outdated);
        }
        if self.roster.is_named(id) {
            return Err(Rejection::StillNeeded("an escalation policy names this schedule: change that first"));
        }
        self.record(&SettingsDeed::ScheduleRemoved { schedule: id, version: from_version });
        self.roster.schedules.remove(place);
        self.version_goes(from_version);
        Ok(Outcome::Removed)
    }

    pub(super) fn refuse_too_large(&self) -> Result<(), Rejection> {
        // Plain values into memory: nothing of this can fail.
        let bytes = serde_json::to_vec(&self.roster).map_or(0, |json| json.len());
        if bytes <= ROSTER_BYTES_MAX {
            return Ok(());
        }
        Err(Rejection::TooMany("schedules and policies are too large together: take out what is past or not needed"))
    }
}

/// Everything that breaks a rule.
fn faults(schedule: &Schedule, known: &BTreeSet<ContactId>) -> Vec<FieldFault> {
    let mut found = Vec::new();
    let mut note = |is_so: bool, field: String, rule: &'static str| {
        if is_so {
            found.push(FieldFault { field, rule });
        }
    };
    let counts = [
        ("shifts", schedule.shifts.len(), SHIFTS_MAX),
        ("overrides", schedule.overrides.len(), DATED_MAX),
        ("absences", schedule.absences.len(), DATED_MAX),
    ];
    for (field, count, most) in counts {
        note(count > most, field.to_owned(), "must be at most 64");
    }
    let on_shifts = schedule.shifts.iter().map(|shift| &shift.people).enumerate();
    let instead = schedule.overrides.iter().map(|instead| &instead.people).enumerate();
    let named = on_shifts.map(|(place, people)| ("shifts", place, people));
    for (list, place, people) in named.chain(instead.map(|(place, people)| ("overrides", place, people))) {
        let at = format!("{list}[{place}].people");
        note(!(1..=ON_CALL_MAX).contains(&people.len()), at.clone(), "must name 1 to 8 contacts");
        for (place, person) in people.iter().enumerate() {
            note(!known.contains(person), format!("{at}[{place}]"), "must be a contact who is set up");
            note(people[..place].contains(person), format!("{at}[{place}]"), "must be named once");
        }
    }
    for (place, away) in schedule.absences.iter().enumerate() {
        note(!known.contains(&away.person), format!("absences[{place}].person"), "must be a contact who is set up");
    }
    let spans = schedule
        .overrides
        .iter()
        .enumerate()
        .map(|(place, instead)| ("overrides", place, (instead.from, instead.until)));
    let away = schedule.absences.iter().enumerate().map(|(place, away)| ("absences", place, (away.from, away.until)));
    for (list, place, (from, until)) in spans.chain(away) {
        let is_backwards = |(from, until): (LocalTime, LocalTime)| until <= from;
        note(is_backwards((from, until)), format!("{list}[{place}].until"), "must be after from");
    }
    found
}
