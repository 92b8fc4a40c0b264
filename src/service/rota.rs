//! Policies and schedules: shown, changed, explained, and looked at ahead.

use std::time::Duration;

use jiff::Timestamp;

use super::caller::Caller;
use super::people::subject_key;
use super::{Organisation, Service, ServiceError};
use crate::alarm::board::About;
use crate::alarm::kind::Kind;
use crate::domain::consent::{ConsentRecord, Ground, ground_for};
use crate::domain::contact::Channel;
use crate::domain::event::Score;
use crate::domain::ids::{ContactId, PolicyId, ScheduleId};
use crate::domain::message::UrgencyBand;
use crate::domain::policy::check::OUTLOOK;
use crate::domain::policy::explain::{Climber, StageShown};
use crate::domain::policy::{Ladders, Policy};
use crate::domain::readiness::{Obstacle, Readiness};
use crate::domain::roster::{Change, Findings, Rejection, Roster, RosterPolicy};
use crate::domain::schedule::Schedule;
use crate::domain::sealed::Sealed;

/// How far off a gap may be for the operator to hear of it: time enough to ask somebody, and no rota that is still being made.
const SOON: Duration = Duration::from_secs(86_400);

/// What a college has set up, as it is stored, with what the configuration adds.
pub struct Rota<'a> {
    organisation: &'a Organisation,
    /// What is stored.
    pub roster: Roster,
    /// Which policy a case takes.
    pub ladders: Ladders,
    default: Policy,
    now: Timestamp,
}

impl Rota<'_> {
    /// The configuration's ladder, for everybody who is set up.
    pub const fn configured(&self) -> &Policy {
        &self.default
    }

    /// A policy by its id: of the roster, or the configuration's.
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        let own = self.roster.policy(id).map(|known| known.policy.as_ref());
        own.or_else(|| Some(self.configured()).filter(|policy| policy.id == *id))
    }

    /// The bands whose cases take a policy.
    pub fn bands_of(&self, policy: &Policy) -> Vec<UrgencyBand> {
        UrgencyBand::ALL.into_iter().filter(|band| self.ladders.of(*band).id == policy.id).collect()
    }

    /// What is not in order with a policy.
    pub fn findings(&self, policy: &Policy) -> Findings {
        let is_active = !self.bands_of(policy).is_empty();
        self.roster.findings(policy, is_active, &self.organisation.directory, self.now)
    }

    /// Whether somebody would be there, now and in the next two weeks.
    pub fn readiness(&self) -> Readiness {
        let organisation = self.organisation;
        self.roster.readiness(&organisation.directory, &self.ladders, &organisation.texts, self.now)
    }

    /// When this was looked at.
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

/// What is to be explained.
pub struct Question<'a> {
    /// The student.
    pub user_id: &'a str,
    /// The score; `None`: a person raises the case.
    pub score: Option<Score>,
    /// When.
    pub at: Option<Timestamp>,
    /// As if somebody had decided that life is at stake.
    pub overridden: bool,
}

/// What a case would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// The score is below the threshold: nothing would be opened.
    BelowThreshold,
    /// Neither consent nor an override: nobody would be told.
    Withheld,
    /// Somebody would be told, on this ground.
    Told(Ground, Vec<StageShown>),
}

/// A policy, explained.
pub struct Explanation {
    /// The policy.
    pub policy: Policy,
    /// When the case would be opened.
    pub at: Timestamp,
    /// Its band.
    pub band: UrgencyBand,
    /// Whether a case would be opened, and take this policy.
    pub is_taken: bool,
    /// What it would come to.
    pub course: Course,
    /// Which emergency contacts would be told besides; `None`: the policy tells none by itself.
    pub outside: Option<Outside>,
}

/// The emergency contacts of a case that nobody takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// When they would be told.
    pub at: Timestamp,
    /// Who, and over which channels in turn.
    pub told: Vec<(ContactId, Vec<Channel>)>,
    /// Who would not: the student has not agreed, or no number of theirs is proven.
    pub not_told: Vec<ContactId>,
}

impl Outside {
    /// Whom a policy tells of a case that was opened at `at`, on the word that the student has given.
    fn of(policy: &Policy, at: Timestamp, consent: Option<&ConsentRecord>) -> Option<Self> {
        let at = at.saturating_add(policy.emergency_contact_after?).unwrap_or(Timestamp::MAX);
        let (mut told, mut not_told) = (Vec::new(), Vec::new());
        for contact in consent.map_or(&[][..], |record| &record.emergency_contacts) {
            let channels: Vec<Channel> = contact.usable().map(|method| method.channel).collect();
            if contact.is_granted() && !channels.is_empty() {
                told.push((contact.id.clone(), channels));
            } else {
                not_told.push(contact.id.clone());
            }
        }
        Some(Self { at, told, not_told })
    }
}

impl Service {
    /// What the caller's college has set up.
    pub async fn rota(&self, caller: &Caller) -> Result<Rota<'_>, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let roster = self.stored_roster(&organisation.id).await?;
        let ladders = organisation.ladders_of(&roster);
        let default = roster.default_ladder(&organisation.ladder, &organisation.directory);
        Ok(Rota { organisation, roster, ladders, default, now: self.clock.now() })
    }

    /// The counts and times of the configuration's ladder, of the caller's college.
    ///
    /// # Errors
    /// The organisation is not set up here.
    pub fn configured_figures(&self, caller: &Caller) -> Result<&Policy, ServiceError> {
        Ok(self.organisation(&caller.organisation)?.ladder.figures())
    }

    /// Adds a policy, or replaces the version that was looked at.
    pub async fn save_policy(
        &self,
        caller: &Caller,
        from_version: Option<u32>,
        policy: RosterPolicy,
    ) -> Result<(), ServiceError> {
        self.change_rota(caller, || Change::SavePolicy { from_version, policy: policy.clone() }).await
    }

    /// Takes a policy away.
    pub async fn remove_policy(&self, caller: &Caller, id: &PolicyId, from_version: u32) -> Result<(), ServiceError> {
        self.change_rota(caller, || Change::RemovePolicy { id: id.clone(), from_version }).await
    }

    /// Adds a schedule, or replaces the version that was looked at.
    pub async fn save_schedule(
        &self,
        caller: &Caller,
        from_version: Option<u32>,
        schedule: Schedule,
    ) -> Result<(), ServiceError> {
        self.change_rota(caller, || Change::SaveSchedule { from_version, schedule: schedule.clone() }).await
    }

    /// Takes a schedule away.
    pub async fn remove_schedule(
        &self,
        caller: &Caller,
        id: &ScheduleId,
        from_version: u32,
    ) -> Result<(), ServiceError> {
        self.change_rota(caller, || Change::RemoveSchedule { id: id.clone(), from_version }).await
    }

    async fn change_rota(&self, caller: &Caller, change: impl Fn() -> Change) -> Result<(), ServiceError> {
        let actor = caller.actor(self.keyring.as_ref(), None);
        let make = |_: &Roster| Ok::<_, Rejection>(change());
        self.change_roster(&caller.organisation, &actor, caller.deadline, make).await?;
        Ok(())
    }

    /// Says what a case would come to on a policy: nothing is sent, and nothing changes. The student's consent is read, as
    /// whoever asks may read it.
    pub async fn explain(
        &self,
        caller: &Caller,
        id: &PolicyId,
        question: &Question<'_>,
    ) -> Result<Explanation, ServiceError> {
        let rota = self.rota(caller).await?;
        let organisation = rota.organisation;
        let policy = rota.policy(id).ok_or(ServiceError::Roster(Rejection::NoSuchPolicy))?.clone();
        let at = question.at.unwrap_or(rota.now);
        let severity = question.score.unwrap_or(Score::HIGHEST);
        let band = rota.ladders.band(severity);
        let is_taken = rota.ladders.of(band).id == policy.id;
        let subject = subject_key(self.keyring.as_ref(), &organisation.id, question.user_id);
        let consent = self.store.consent(&organisation.id, subject).await?;
        let directory = rota.roster.directory(&organisation.directory);
        // It stands for no decision that was taken, and is kept nowhere.
        let stated = question.overridden.then(|| Ground::EmergencyOverride {
            statement: Sealed(String::new()),
            authorised_by: caller.actor(self.keyring.as_ref(), None),
            at,
        });
        let ground = ground_for(consent.as_ref(), stated, &policy.channels_that_reach(&directory));
        let course = match ground {
            _ if question.score.is_some_and(|score| score < organisation.threshold) => Course::BelowThreshold,
            None => Course::Withheld,
            Some(ground) => {
                let retry_when_all_failed = self.settings.rules.retry_when_all_failed;
                let idle = rota.roster.idle();
                let climber = Climber { directory: &directory, idle: &idle, ground: &ground, retry_when_all_failed };
                let stages = policy.climb(at, &climber);
                Course::Told(ground, stages)
            }
        };
        let outside = match &course {
            Course::Told(..) => Outside::of(&policy, at, consent.as_ref()),
            Course::BelowThreshold | Course::Withheld => None,
        };
        // Where no case would be opened, none takes a policy.
        let is_taken = is_taken && course != Course::BelowThreshold;
        Ok(Explanation { policy, at, band, is_taken, course, outside })
    }

    /// Looks ahead with what this process knows, for figures and alarms: what a person can mend in advance must not be found
    /// by a case.
    pub(crate) fn look_ahead(&self) {
        let now = self.clock.now();
        let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
        let (mut next_gap, mut gap_soon, mut unreachable) = (OUTLOOK.as_secs_f64(), false, false);
        let mut counts = [0; Obstacle::KINDS.len()];
        for (organisation, live) in
            self.organisations.iter().filter_map(|known| Some((known, self.live(&known.id).ok()?)))
        {
            let readiness = live.roster.readiness(&organisation.directory, &live.ladders, &organisation.texts, now);
            let gap = readiness.next_gap().map(|at| at.duration_since(now).as_secs_f64().max(0.0));
            next_gap = gap.unwrap_or(next_gap).min(next_gap);
            for (count, kind) in counts.iter_mut().zip(Obstacle::KINDS) {
                *count += readiness.count(kind);
            }
            for obstacle in &readiness.obstacles {
                match obstacle {
                    Obstacle::Gap { from, .. } | Obstacle::OnCallUnreachable { from, .. } => gap_soon |= *from <= soon,
                    Obstacle::StepUnreachable { .. } | Obstacle::LastResponderUnreachable { .. } => unreachable = true,
                    // Others are told: that is for whoever keeps the people, and wakes nobody.
                    Obstacle::ContactOnNoLadder { .. }
                    | Obstacle::MethodUnverified { .. }
                    | Obstacle::MethodOptedOut { .. }
                    | Obstacle::MethodRefused { .. }
                    | Obstacle::TemplateMissing { .. } => {}
                }
            }
        }
        self.metrics.set_next_gap(next_gap);
        for (count, kind) in counts.into_iter().zip(Obstacle::KINDS) {
            self.metrics.set_obstacles(kind, count);
        }
        self.alarms.set(Kind::OnCallGap, About::Service, gap_soon);
        self.alarms.set(Kind::LadderUnreachable, About::Service, unreachable);
    }

    /// Whether somebody would be there, now and in the next two weeks.
    pub async fn readiness(&self, caller: &Caller) -> Result<(Timestamp, Readiness), ServiceError> {
        let rota = self.rota(caller).await?;
        let readiness = rota.readiness();
        Ok((rota.now, readiness))
    }
}
