//! Who would be told, when, over what, and who would not, and why: a ladder climbed on paper.
//!
//! It is climbed as if Twilio took every message, nothing ever told that one arrived, and nobody answered: so each further
//! channel comes in its time, and each rung after the one before it. That this is what an alert does is a property of the
//! domain's tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{Called, Policy, Stage, Target};
use crate::domain::consent::Ground;
use crate::domain::contact::{Channel, Contact, ContactRole, Directory};
use crate::domain::delivery::later;
use crate::domain::ids::{ContactId, ScheduleId};

/// How many rungs are shown at the most; then the last responder's.
pub const STAGES_MAX: usize = 64;

/// A channel, and when it is used.
pub type Over = (Channel, Timestamp);
/// A channel, and why it is not used.
pub type NotOver = (Channel, WhyNot);

/// One stage of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShown {
    /// Which.
    pub stage: Stage,
    /// When it begins.
    pub at: Timestamp,
    /// Who is told.
    pub told: Vec<Told>,
    /// Who is named and not told.
    pub not_told: Vec<NotTold>,
    /// Nobody is on call: the next one begins at once.
    pub is_vacant: bool,
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Who.
    pub contact: ContactId,
    /// Why they are told.
    pub role: ContactRole,
    /// They are not named: they stand in for somebody who cannot be told.
    pub stands_in: bool,
    /// Over what, and when; each but the first only if nothing has told that the one before it arrived.
    pub over: Vec<Over>,
    /// What they are not told over, and why.
    pub not_over: Vec<NotOver>,
}

/// Somebody who is named and not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTold {
    /// A contact who cannot be told anything.
    Missing(ContactId, WhyMissing),
    /// A contact, over each of the channels.
    Unreachable(ContactId, Vec<NotOver>),
    /// Nobody of this role can be told.
    NobodyOf(ContactRole),
    /// Nobody is on call.
    NobodyOnCall(ScheduleId),
}

/// Why somebody who is named cannot be told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyMissing {
    /// Nobody has this id.
    NotSetUp,
    /// They are not active.
    Inactive,
    /// They have no number.
    NoNumber,
    /// None of their numbers is verified.
    Unverified,
    /// None of their numbers is verified, and a phone of theirs takes nothing from us.
    OptedOut,
}

/// Somebody who is set up and cannot be told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleContact {
    /// Why they would be told.
    pub role: ContactRole,
    /// Why they cannot be.
    pub why: WhyMissing,
}

/// Everybody who is set up and cannot be told anything.
pub type Idle = BTreeMap<ContactId, IdleContact>;

/// Why a channel is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// The person has no number on it, or none that is verified.
    NoNumber,
    /// The student's consent does not cover it.
    NotCovered,
}

/// What a ladder is climbed with.
#[derive(Debug, Clone, Copy)]
pub struct Climber<'a> {
    /// The people, and who of them is on call.
    pub directory: &'a Directory,
    /// Who is set up and cannot be told anything, and why.
    pub idle: &'a Idle,
    /// Why sending is allowed.
    pub ground: &'a Ground,
    /// How soon the next stage comes where nobody could be told.
    pub retry_when_all_failed: Duration,
}

impl Policy {
    /// Climbs the ladder on paper, from `at` on, up to the last responder's first turn.
    pub fn climb(&self, at: Timestamp, with: &Climber<'_>) -> Vec<StageShown> {
        let (mut stage, mut at, mut passed_over) = (Stage::FIRST, at, 0);
        // Rungs that came to nobody, and have not begun since.
        let mut vacant: BTreeSet<u32> = BTreeSet::new();
        let mut shown = Vec::new();
        loop {
            let is_last = matches!(stage, Stage::LastResponder { .. });
            let mut view = self.show(stage, at, with);
            if is_last {
                self.add_late_comers(&mut view, &vacant, with);
                if view.told.is_empty() {
                    self.add_stand_in(&mut view.told, at, with);
                }
            }
            let (is_vacant, told_nobody) = (view.is_vacant && !is_last, view.told.is_empty());
            shown.push(view);
            if is_last {
                return shown;
            }
            passed_over = if is_vacant { passed_over + 1 } else { 0 };
            match stage.rung() {
                Some(rung) if is_vacant => vacant.insert(rung),
                Some(rung) => vacant.remove(&rung),
                None => false,
            };
            let patience = stage.patience(self);
            at = match (is_vacant, told_nobody) {
                (true, _) => at,
                (false, true) if !goes_out_at(&shown, at) && self.leads_to_untried(stage, at, &shown, with) => at,
                (false, true) if !goes_out_at(&shown, at) => later(at, patience.min(with.retry_when_all_failed)),
                (false, _) => later(at, patience),
            };
            let is_all_vacant = passed_over >= self.steps.len().max(1);
            stage = if is_all_vacant || shown.len() >= STAGES_MAX {
                Stage::LastResponder { times: 1 }
            } else {
                stage.next(self)
            };
        }
    }

    /// Whether the stage that comes next in this round, those that nobody is on left aside, names somebody who was not tried
    /// over everything that it has for them: then nobody waits for its time.
    fn leads_to_untried(&self, stage: Stage, at: Timestamp, shown: &[StageShown], with: &Climber<'_>) -> bool {
        let is_vacant = |next: &Stage| Called::new(next.targets(self).0, with.directory, at).is_vacant();
        let mut following = std::iter::successors(Some(stage.next(self)), |next| Some(next.next(self)));
        let of_round = following.by_ref().take_while(|next| next.is_in_round_of(&stage));
        let Some(next) = of_round.into_iter().find(|next| !is_vacant(next)) else { return false };
        let of_round = shown.iter().filter(|shown| shown.stage.is_in_round_of(&stage));
        let tried: BTreeSet<(&ContactId, Channel)> = of_round
            .flat_map(|shown| &shown.told)
            .flat_map(|told| told.over.iter().map(|(channel, over_at)| (&told.contact, *channel, *over_at)))
            .filter(|(.., over_at)| *over_at <= at)
            .map(|(contact, channel, _)| (contact, channel))
            .collect();
        let (targets, channels) = next.targets(self);
        Called::new(targets, with.directory, at).people.into_iter().any(|person| {
            let (over, _) = self.over(person, channels, at, with.ground);
            over.iter().any(|(channel, _)| !tried.contains(&(&person.id, *channel)))
        })
    }

    fn show(&self, stage: Stage, at: Timestamp, with: &Climber<'_>) -> StageShown {
        let (targets, channels) = stage.targets(self);
        let called = Called::new(targets, with.directory, at);
        let (mut told, mut not_told) = (Vec::new(), Vec::new());
        for person in &called.people {
            let (over, not_over) = self.over(person, channels, at, with.ground);
            if over.is_empty() {
                not_told.push(NotTold::Unreachable(person.id.clone(), not_over));
            } else {
                told.push(Told { contact: person.id.clone(), role: person.role, stands_in: false, over, not_over });
            }
        }
        for _ in &called.missing {
            self.add_stand_in(&mut told, at, with);
        }
        let mut seen = BTreeSet::new();
        let missing = targets.iter().flat_map(|target| missing(target, with, at));
        not_told.extend(missing.filter(|(id, _)| seen.insert(id.clone())).map(|(id, why)| NotTold::Missing(id, why)));
        not_told.extend(targets.iter().filter_map(|target| vacancy(target, with.directory, at)));
        StageShown { stage, at, told, not_told, is_vacant: called.is_vacant() }
    }

    /// Whoever the rungs that were vacant come to now is told with the last responder, unless they are told all the same.
    fn add_late_comers(&self, view: &mut StageShown, vacant: &BTreeSet<u32>, with: &Climber<'_>) {
        for step in vacant.iter().filter_map(|rung| self.steps.get(*rung as usize)) {
            for person in Called::new(&step.targets, with.directory, view.at).people {
                if view.told.iter().any(|told| told.contact == person.id) {
                    continue;
                }
                let (over, not_over) = self.over(person, &step.channels, view.at, with.ground);
                if over.is_empty() {
                    view.not_told.push(NotTold::Unreachable(person.id.clone(), not_over));
                } else {
                    let (contact, role) = (person.id.clone(), person.role);
                    view.told.push(Told { contact, role, stands_in: false, over, not_over });
                }
            }
        }
    }

    /// Over what a person is told, and when; and what they are not told over.
    fn over(
        &self,
        person: &Contact,
        channels: &[Channel],
        at: Timestamp,
        ground: &Ground,
    ) -> (Vec<Over>, Vec<NotOver>) {
        let (mut over, mut not_over, mut at) = (Vec::new(), Vec::new(), at);
        for channel in channels.iter().copied() {
            if !person.methods.iter().any(|method| method.channel == channel) {
                not_over.push((channel, WhyNot::NoNumber));
            } else if !ground.allows(channel) {
                not_over.push((channel, WhyNot::NotCovered));
            } else {
                over.push((channel, at));
                at = later(at, self.fall_over_after);
            }
        }
        (over, not_over)
    }

    /// Who stands in, unless they are told all the same.
    fn add_stand_in(&self, told: &mut Vec<Told>, at: Timestamp, with: &Climber<'_>) {
        let Some(stand_in) = self.stand_in(at, with) else { return };
        let same = |other: &Told| other.contact == stand_in.contact && other.over.first() == stand_in.over.first();
        if !told.iter().any(same) {
            told.push(stand_in);
        }
    }

    /// The first person who can be told over anything, over all that they have.
    fn stand_in(&self, at: Timestamp, with: &Climber<'_>) -> Option<Told> {
        with.directory.people().find_map(|person| {
            let theirs: Vec<Channel> = person.methods.iter().map(|method| method.channel).collect();
            let (over, not_over) = self.over(person, &theirs, at, with.ground);
            let (contact, role) = (person.id.clone(), person.role);
            (!over.is_empty()).then_some(Told { contact, role, stands_in: true, over, not_over })
        })
    }
}

/// Whether somebody of an earlier stage is told over their next channel at this very instant: then that is waited for.
fn goes_out_at(shown: &[StageShown], at: Timestamp) -> bool {
    shown.iter().flat_map(|stage| &stage.told).flat_map(|told| &told.over).any(|(_, over_at)| *over_at == at)
}

/// Whom a target names, and who cannot be told anything. Somebody who was set aside is not of their role any more.
fn missing(target: &Target, with: &Climber<'_>, at: Timestamp) -> Vec<(ContactId, WhyMissing)> {
    let named: Vec<ContactId> = match target {
        Target::Contact(id) => vec![id.clone()],
        Target::Role(role) => {
            let theirs = with.idle.iter().filter(|(_, idle)| idle.role == *role && idle.why != WhyMissing::Inactive);
            theirs.map(|(id, _)| id.clone()).collect()
        }
        Target::Schedule(id) => with.directory.schedule(id).map(|schedule| schedule.on_call(at)).unwrap_or_default(),
    };
    let absent = named.into_iter().filter(|id| with.directory.contact(id).is_none());
    absent.map(|id| (id.clone(), with.idle.get(&id).map_or(WhyMissing::NotSetUp, |idle| idle.why))).collect()
}

fn vacancy(target: &Target, directory: &Directory, at: Timestamp) -> Option<NotTold> {
    if !target.people(directory, at).is_empty() {
        return None;
    }
    match target {
        Target::Contact(_) => None,
        Target::Role(role) => Some(NotTold::NobodyOf(*role)),
        Target::Schedule(id) => Some(NotTold::NobodyOnCall(id.clone())),
    }
}
