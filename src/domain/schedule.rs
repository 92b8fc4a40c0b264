//! Schedules: who is on call when.
//!
//! A schedule has *shifts* that come again every week, by the clock on the wall of its time zone; *overrides*, each of which
//! replaces whoever the shifts name for one dated span; and *absences*, each of which takes one person out for one.
//!
//! Local times become instants by one rule, for every begin and every end: **a time is reached when the clock shows it, or
//! goes past it, for the first time.** So a hand-over happens once, whatever the clock does:
//!
//! - A time that the clock jumps over (02:30, where 02:00 is followed by 03:00) is reached at the jump.
//! - A time that the clock shows twice (02:30, where 03:00 is followed by 02:00) is reached the first time.
//!
//! An earlier local time is never reached later than a later one, so that no shift ends before it begins; and who hands over
//! at a time and who takes over at it do so at the same instant, so that nobody's hour is lost or doubled. A shift is as
//! long as the clock on the wall says: one from 22:00 to 06:00 has seven or nine hours in the night of a change.
//!
//! This says who is on call, not who can be reached: that the people exist, and have a number, is looked at elsewhere.

mod local;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ContactId, ScheduleId};
pub use local::{LocalTime, WeekTime, Zone};

/// How many shifts a schedule may have.
pub const SHIFTS_MAX: usize = 64;
/// How many overrides, and how many absences, a schedule may have.
pub const DATED_MAX: usize = 64;
/// How many people a shift or an override may name.
pub const ON_CALL_MAX: usize = 8;
/// How far ahead of an instant is looked: for longer than any two weeks that begin at a change of the clock.
pub const AHEAD_MAX: Duration = Duration::from_secs(62 * 86_400);

/// Who is on call in one part of every week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// When it begins.
    pub from: WeekTime,
    /// When it ends: the next time that the week shows this; a whole week later where it is the same as `from`.
    pub until: WeekTime,
    /// Everybody who is on call in it.
    pub people: Vec<ContactId>,
}

/// Who is on call in one span, instead of whoever the shifts name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// When it begins.
    pub from: LocalTime,
    /// When it ends.
    pub until: LocalTime,
    /// Everybody who is on call in it.
    pub people: Vec<ContactId>,
}

/// A span in which a person is not on call, whoever put them there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Who.
    pub person: ContactId,
    /// When it begins.
    pub from: LocalTime,
    /// When it ends.
    pub until: LocalTime,
}

/// Who is on call when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// Counts its changes, from 1.
    pub version: u32,
    /// Whose clock its times are read off.
    pub time_zone: Zone,
    /// What comes again every week. Where two overlap, the people of both are on call.
    pub shifts: Vec<Shift>,
    /// What replaces it. Where two overlap, the people of both are on call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Who is away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absences: Vec<Absence>,
}

/// A span over which the same people are on call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnCall {
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after it.
    pub until: Timestamp,
    /// Everybody who is on call, in the order of their ids; nobody: a gap.
    pub people: Vec<ContactId>,
}

impl OnCall {
    /// Whether nobody is on call.
    pub fn is_gap(&self) -> bool {
        self.people.is_empty()
    }
}

impl Schedule {
    /// Who is on call at an instant, in the order of their ids.
    pub fn on_call(&self, at: Timestamp) -> Vec<ContactId> {
        let just_after = at.saturating_add(Duration::from_nanos(1)).unwrap_or(at);
        Resolved::of(self, at, just_after).people_at(at)
    }

    /// The next instant at which others are on call than at `at`, as far as [`AHEAD_MAX`] reaches.
    pub fn next_change_after(&self, at: Timestamp) -> Option<Timestamp> {
        let ahead = at.saturating_add(AHEAD_MAX).unwrap_or(at);
        match self.spans(at, ahead).as_slice() {
            [first, _, ..] => Some(first.until),
            [] | [_] => None,
        }
    }

    /// Who is on call from one instant to another: spans without hole or overlap, each with others than the one before it;
    /// those in which nobody is on call are among them. What lies more than [`AHEAD_MAX`] after `from` is left out.
    pub fn spans(&self, from: Timestamp, until: Timestamp) -> Vec<OnCall> {
        let until = until.min(from.saturating_add(AHEAD_MAX).unwrap_or(until));
        if until <= from {
            return Vec::new();
        }
        let resolved = Resolved::of(self, from, until);
        let mut cuts = resolved.cuts(from, until);
        cuts.push(until);
        let mut spans: Vec<OnCall> = Vec::new();
        let mut begin = from;
        for end in cuts {
            let people = resolved.people_at(begin);
            match spans.last_mut() {
                Some(last) if last.people == people => last.until = end,
                Some(_) | None => spans.push(OnCall { from: begin, until: end, people }),
            }
            begin = end;
        }
        spans
    }

    /// When nobody is on call, from one instant to another; bounded like [`Self::spans`].
    pub fn gaps(&self, from: Timestamp, until: Timestamp) -> Vec<OnCall> {
        let mut spans = self.spans(from, until);
        spans.retain(OnCall::is_gap);
        spans
    }

    /// Everybody whom it names anywhere.
    pub fn names(&self) -> BTreeSet<&ContactId> {
        let on_shifts = self.shifts.iter().flat_map(|shift| &shift.people);
        let instead = self.overrides.iter().flat_map(|instead| &instead.people);
        let away = self.absences.iter().map(|absence| &absence.person);
        on_shifts.chain(instead).chain(away).collect()
    }
}

/// People for a stretch of time.
struct Stretch<'s> {
    from: Timestamp,
    until: Timestamp,
    people: &'s [ContactId],
}

impl Stretch<'_> {
    fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// What of a schedule touches a window of time, as instants.
struct Resolved<'s> {
    shifts: Vec<Stretch<'s>>,
    overrides: Vec<Stretch<'s>>,
    absences: Vec<Stretch<'s>>,
}

impl<'s> Resolved<'s> {
    fn of(schedule: &'s Schedule, from: Timestamp, until: Timestamp) -> Self {
        let zone = &schedule.time_zone;
        let touches =
            |stretch: &Stretch<'_>| stretch.from < stretch.until && stretch.from < until && from < stretch.until;
        let dated = |begin: LocalTime, end: LocalTime, people: &'s [ContactId]| Stretch {
            from: zone.reached_at(begin.0),
            until: zone.reached_at(end.0),
            people,
        };
        let weeks = zone.weeks(from, until);
        let shifts = weeks.flat_map(|monday| {
            schedule.shifts.iter().map(move |shift| {
                let (begin, end) = (shift.from.in_week(monday), shift.until.after(shift.from).in_week(monday));
                Stretch { from: zone.reached_at(begin), until: zone.reached_at(end), people: &shift.people }
            })
        });
        let overrides = schedule.overrides.iter().map(|instead| dated(instead.from, instead.until, &instead.people));
        let absences =
            schedule.absences.iter().map(|away| dated(away.from, away.until, std::slice::from_ref(&away.person)));
        Self {
            shifts: shifts.filter(touches).collect(),
            overrides: overrides.filter(touches).collect(),
            absences: absences.filter(touches).collect(),
        }
    }

    fn people_at(&self, at: Timestamp) -> Vec<ContactId> {
        let covering = |stretches: &'_ [Stretch<'s>]| -> Option<BTreeSet<&'s ContactId>> {
            let mut covering = stretches.iter().filter(|stretch| stretch.covers(at)).peekable();
            covering.peek()?;
            Some(covering.flat_map(|stretch| stretch.people).collect())
        };
        let mut people = covering(&self.overrides).or_else(|| covering(&self.shifts)).unwrap_or_default();
        for away in covering(&self.absences).unwrap_or_default() {
            people.remove(away);
        }
        people.into_iter().cloned().collect()
    }

    /// Every instant between the two, both left out, at which somebody may come or go.
    fn cuts(&self, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let all = self.shifts.iter().chain(&self.overrides).chain(&self.absences);
        let cuts: BTreeSet<Timestamp> =
            all.flat_map(|stretch| [stretch.from, stretch.until]).filter(|at| from < *at && *at < until).collect();
        cuts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
