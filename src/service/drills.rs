//! Drills: cases that exercise everything and are about nobody.
//!
//! A drill runs the whole path, ladder, channels, receipts and answers included, in a lane behind live alerts. Its kind,
//! its ground and its texts say what it is, and neither can turn into the other: it stands on [`Ground::Drill`], which no
//! live case can have, and belongs to a subject that no student can be: the same for every drill of a college, so that one
//! runs at a time, as one case of a student does. It ends when somebody takes it, or, unlike a live one, when every round was
//! in vain.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::caller::{Caller, Deadline};
use super::people::subject_key;
use super::{Along, Organisation, Service, ServiceError, TRIES};
use crate::domain::alert::{Alert, Kind, NewAlert};
use crate::domain::audit::Actor;
use crate::domain::consent::Ground;
use crate::domain::event::{Score, Source, Trigger};
use crate::domain::ids::{AlertId, EventId, IdempotencyKey, OrganisationId, Reference};
use crate::domain::message::UrgencyBand;
use crate::ports::{Committed, HashPurpose, IdempotencyRecord, ListCursor, SealedField, random};

/// How many alerts are looked through for drills, the newest first.
const LOOKED_THROUGH: usize = 1000;
const PAGE: usize = 200;
/// A daily drill that was missed by more than this is left out: nobody expects it at another hour.
const LATE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
const CREATED: u16 = 201;
/// Whom every drill is about. No user id can begin like this: a NUL is refused in those.
const NOBODY: &str = "\0drill";

/// When drills start every day.
#[derive(Debug, Clone)]
pub struct DailyDrills {
    /// The times on the wall, in the order of the day.
    pub at: Vec<Time>,
    /// Where that wall is.
    pub time_zone: TimeZone,
}

/// One drill that is to be started by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The day.
    pub day: Date,
    /// The time on the wall.
    pub at: Time,
    /// Which of the day's it is, from 0.
    pub nth: usize,
}

impl DailyDrills {
    /// The drill that is to be under way at `now`; of several the latest.
    pub fn due_at(&self, now: Timestamp) -> Option<Planned> {
        let today = now.to_zoned(self.time_zone.clone()).date();
        // One of last night may still be started after midnight.
        let days = today.yesterday().ok().into_iter().chain([today]);
        let planned =
            days.flat_map(|day| self.at.iter().enumerate().map(move |(nth, at)| Planned { day, at: *at, nth }));
        let mut due = planned.filter_map(|planned| {
            let start = self.start_of(planned)?;
            let late = now.duration_since(start);
            (!late.is_negative() && late <= LATE_MAX).then_some((start, planned))
        });
        let first = due.next()?;
        Some(due.fold(first, |latest, one| if one.0 > latest.0 { one } else { latest }).1)
    }

    /// Whether the hour in which it may start has passed.
    pub fn is_over(&self, planned: Planned, now: Timestamp) -> bool {
        self.start_of(planned).is_none_or(|start| now.duration_since(start) > LATE_MAX)
    }

    fn start_of(&self, planned: Planned) -> Option<Timestamp> {
        Some(planned.day.to_datetime(planned.at).to_zoned(self.time_zone.clone()).ok()?.timestamp())
    }
}

impl Planned {
    /// How grave it is: the bands take turns from day to day and from time to time, so that each time of a day has had
    /// every ladder after three days.
    pub fn band(&self) -> UrgencyBand {
        let days = self.day.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24;
        let turn = days.unsigned_abs().wrapping_add(self.nth as u64) % UrgencyBand::ALL.len() as u64;
        UrgencyBand::ALL[turn as usize]
    }
}

/// A drill that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStarted {
    /// The alert's id.
    pub id: AlertId,
    /// Its code.
    pub reference: Reference,
}

impl Service {
    /// Starts a drill of this gravity; without a score as one that a person raised.
    pub async fn start_drill(&self, caller: &Caller, score: Option<Score>) -> Result<DrillStarted, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let actor = caller.actor(self.keyring.as_ref(), None);
        let started = self.drill(organisation, &actor, score, None, caller.deadline).await?;
        started.ok_or(ServiceError::Busy)
    }

    /// Starts a planned drill in every organisation, unless it was started. However many instances try, one does. `false`:
    /// somewhere another is still running, and it is to be tried again.
    ///
    /// # Errors
    /// The first one; the other organisations have theirs all the same.
    pub(crate) async fn start_planned_drills(&self, planned: Planned) -> Result<bool, ServiceError> {
        let (mut all, mut failed) = (true, None);
        for organisation in &self.organisations {
            match self.start_planned_drill(organisation, planned).await {
                Ok(_) => {}
                // One that was started by hand: after it, this one is started, unless its hour is over.
                Err(ServiceError::DrillRuns(_)) => all = false,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(all), Err)
    }

    async fn start_planned_drill(&self, organisation: &Organisation, planned: Planned) -> Result<(), ServiceError> {
        let key = self.key_of(organisation, planned);
        if self.store.answer(key).await?.is_some() {
            return Ok(());
        }
        let score = self.live(&organisation.id)?.ladders.drilled(planned.band(), organisation.threshold);
        self.drill(organisation, &Actor::Service, score, Some(key), None).await.map(|_| ())
    }

    /// Whether a planned drill was started in every organisation, by whichever instance.
    pub(crate) async fn are_drills_started(&self, planned: Planned) -> Result<bool, ServiceError> {
        for organisation in &self.organisations {
            if self.store.answer(self.key_of(organisation, planned)).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn key_of(&self, organisation: &Organisation, planned: Planned) -> IdempotencyKey {
        let (day, at) = (planned.day.to_string(), planned.at.to_string());
        let parts = [b"daily-drill".as_slice(), organisation.id.as_str().as_bytes(), day.as_bytes(), at.as_bytes()];
        IdempotencyKey::from_bytes(self.keyring.hash(HashPurpose::Idempotency, &parts))
    }

    /// `None`: it was started before, under the same key.
    async fn drill(
        &self,
        organisation: &Organisation,
        actor: &Actor,
        score: Option<Score>,
        key: Option<IdempotencyKey>,
        deadline: Option<Deadline>,
    ) -> Result<Option<DrillStarted>, ServiceError> {
        self.refresh_rosters().await;
        let live = self.live(&organisation.id)?;
        let subject = subject_key(self.keyring.as_ref(), &organisation.id, NOBODY);
        for _ in 0..TRIES {
            let now = self.clock.now();
            let known = self.store.intake_context(&organisation.id, subject, key).await?;
            if known.idempotency.is_some() {
                return Ok(None);
            }
            if let Some(running) = known.open_alert {
                return Err(ServiceError::DrillRuns(running.reference));
            }
            let id = AlertId::new(now, random(self.entropy.as_ref()));
            let reference = Reference::new(random(self.entropy.as_ref()));
            let (wrapped, data_key) = match known.data_key {
                Some(wrapped) => match self.keyring.open_data_key(&wrapped) {
                    Ok(key) => (None, key),
                    // What is sealed of a drill is worth nothing: the drill is.
                    Err(_) => (None, self.key_to_throw_away(&organisation.id, subject.into())),
                },
                None => {
                    let (wrapped, key) = self.keyring.new_data_key(&organisation.id, subject.into(), now);
                    (Some(wrapped), key)
                }
            };
            let trigger = Trigger {
                event: EventId::new(now, random(self.entropy.as_ref())),
                source: Source::Manual,
                score,
                threshold: None,
                model_version: None,
                occurred_at: now,
                received_at: now,
            };
            let place = self.dispatch.place();
            let lease = place.as_ref().map(|_| self.lease(now));
            let situation = self.situation(organisation, &live, now, actor, lease.as_ref());
            let new = NewAlert {
                id,
                reference,
                organisation: organisation.id.clone(),
                subject,
                kind: Kind::Drill,
                identity: data_key.seal(SealedField::UserId, "drill"),
                ground: Some(Ground::Drill { started_by: actor.clone(), at: now }),
                policy: Arc::clone(situation.ladders.opening(trigger.severity())),
                trigger,
            };
            let transition = Alert::open(new, &situation);
            let started = DrillStarted { id, reference };
            let idempotency = key.map(|key| IdempotencyRecord {
                key,
                body: *key.as_bytes(),
                status: CREATED,
                answer: serde_json::to_string(&started).unwrap_or_default(),
                created_at: now,
            });
            let along = Along { idempotency, data_key: wrapped, deadline, ..Along::default() };
            match self.commit(&transition, along).await? {
                Committed::Committed => {
                    self.committed(transition, place);
                    tracing::info!(alert = %id, "a drill was started");
                    return Ok(Some(started));
                }
                Committed::IdempotencyKeyUsed => return Ok(None),
                Committed::VersionConflict
                | Committed::SubjectHasOpenAlert
                | Committed::ReferenceTaken
                | Committed::DataKeyExists
                | Committed::ConsentChanged => {}
            }
        }
        Err(ServiceError::Busy)
    }

    /// The drills among the newest thousand alerts, newest first.
    pub async fn drills(&self, organisation: &OrganisationId, limit: usize) -> Result<Vec<Alert>, ServiceError> {
        let organisation = &self.organisation(organisation)?.id;
        let (mut drills, mut after, mut seen) = (Vec::new(), None, 0);
        while seen < LOOKED_THROUGH && drills.len() < limit {
            let page = self.store.list_alerts(organisation, None, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(ListCursor { opened_at: last.opened_at, id: last.id });
            seen += page.len();
            let ended = page.len() < PAGE;
            drills.extend(page.into_iter().filter(|alert| matches!(alert.kind, Kind::Drill)));
            if ended {
                break;
            }
        }
        drills.truncate(limit);
        Ok(drills)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due_at(at: &[&str], zone: &str, now: &str) -> Option<String> {
        let at = at.iter().map(|at| at.parse().unwrap()).collect();
        let daily = DailyDrills { at, time_zone: TimeZone::get(zone).unwrap() };
        daily.due_at(now.parse().unwrap()).map(|planned| format!("{} {}", planned.day, planned.nth))
    }

    #[test]
    fn a_daily_drill_is_due_by_the_clock_on_the_wall_for_an_hour() {
        let kolkata = |now| due_at(&["03:00"], "Asia/Kolkata", now);
        assert_eq!(kolkata("2026-11-19T21:29:59Z"), None);
        assert_eq!(kolkata("2026-11-19T21:30:00Z").as_deref(), Some("2026-11-20 0"));
        assert_eq!(kolkata("2026-11-19T22:30:00Z").as_deref(), Some("2026-11-20 0"));
        assert_eq!(kolkata("2026-11-19T22:30:01Z"), None);
    }

    #[test]
    fn of_several_times_each_has_its_hour_also_over_midnight() {
        let utc = |now| due_at(&["10:00", "11:00", "23:30"], "UTC", now);
        assert_eq!(utc("2026-11-20T10:59:59Z").as_deref(), Some("2026-11-20 0"));
        assert_eq!(utc("2026-11-20T11:00:00Z").as_deref(), Some("2026-11-20 1"), "the later one");
        assert_eq!(utc("2026-11-20T23:30:00Z").as_deref(), Some("2026-11-20 2"));
        assert_eq!(utc("2026-11-21T00:20:00Z").as_deref(), Some("2026-11-20 2"));
        assert_eq!(utc("2026-11-21T00:31:00Z"), None);
    }

    #[test]
    fn a_time_that_a_day_leaves_out_is_that_much_later() {
        // Berlin, 29 March 2026: 02:00 to 03:00 are left out.
        assert_eq!(due_at(&["02:30"], "Europe/Berlin", "2026-03-29T01:30:00Z").as_deref(), Some("2026-03-29 0"));
        assert_eq!(due_at(&["02:30"], "Europe/Berlin", "2026-03-29T01:29:00Z"), None);
    }

    #[test]
    fn every_time_of_a_day_has_every_band_within_three_days_whatever_how_many_there_are() {
        for nth in 0..4 {
            let days = (20..23).map(|day| Date::constant(2026, 11, day));
            let mut bands: Vec<_> = days.map(|day| Planned { day, at: Time::midnight(), nth }.band()).collect();
            bands.sort_unstable();
            assert_eq!(bands, UrgencyBand::ALL, "the {nth}th of a day");
        }
        let first = Planned { day: Date::constant(2026, 11, 20), at: Time::midnight(), nth: 0 };
        assert_ne!(first.band(), Planned { nth: 1, ..first }.band());
    }
}
