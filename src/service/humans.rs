//! What humans decide: acknowledge, resolve, override.

use jiff::Timestamp;

use super::caller::Caller;
use super::intake::{Statement, seal_stated};
use super::{Along, Changed, Service, ServiceError};
use crate::domain::alert::{AckVia, Alert, AlertState, Input, Kind, Outcome, Transition};
use crate::domain::audit::Actor;
use crate::domain::consent::Ground;
use crate::domain::contact::Channel;
use crate::domain::policy::{Policy, Stage};
use crate::ports::SealedField;

impl Service {
    /// A human takes the case.
    pub async fn acknowledge(&self, caller: &Caller, alert: Alert) -> Result<Transition, ServiceError> {
        let actor = self.actor_for(caller, &alert).await?;
        let transition = self.decided_by(caller, alert, Input::Acknowledge { via: AckVia::Api }, &actor).await?;
        self.acknowledged(&transition, AckVia::Api);
        Ok(transition)
    }

    /// What follows the commit of an acknowledgement.
    pub(super) fn acknowledged(&self, transition: &Transition, via: AckVia) {
        let alert = &transition.alert;
        // A drill tells of drills.
        if matches!(alert.kind, Kind::Live) {
            let (channel, stage) = way_of(alert, via);
            let since = super::receipts::seconds_since_told(alert);
            self.metrics.reached_human(channel, stage, rungs_until(stage, &alert.policy), since);
        }
        tracing::info!(alert = %alert.id, ?via, "alert acknowledged");
    }

    /// A human closes the case. That somebody could not be reached is an administrator's decision.
    pub async fn resolve(
        &self,
        caller: &Caller,
        alert: Alert,
        outcome: Outcome,
        note: Option<&str>,
        follow_up_at: Option<Timestamp>,
    ) -> Result<Transition, ServiceError> {
        if matches!(outcome, Outcome::UnableToReach) && caller.role != "admin" {
            return Err(ServiceError::Forbidden("only an admin may close a case as unable_to_reach"));
        }
        let actor = self.actor_for(caller, &alert).await?;
        let note = match note {
            Some(text) => {
                let key = self.person_data_key_if_any(&alert.organisation, alert.subject.into()).await?;
                Some(key.ok_or(ServiceError::CannotSeal("note"))?.seal(SealedField::Note, text))
            }
            None => None,
        };
        let transition = self.decided_by(caller, alert, Input::Resolve { outcome, note, follow_up_at }, &actor).await?;
        tracing::info!(alert = %transition.alert.id, ?outcome, "alert resolved");
        Ok(transition)
    }

    /// Somebody of the team says that the case is being worked on: the second clock begins anew.
    pub async fn check_in(&self, caller: &Caller, alert: Alert) -> Result<Transition, ServiceError> {
        let actor = self.actor_for(caller, &alert).await?;
        let transition = self.decided_by(caller, alert, Input::CheckIn, &actor).await?;
        tracing::info!(alert = %transition.alert.id, "checked in");
        Ok(transition)
    }

    /// A human decides that a withheld case must be told.
    pub async fn override_withheld(
        &self,
        caller: &Caller,
        alert: Alert,
        stated: &Statement,
    ) -> Result<Transition, ServiceError> {
        let person = alert.subject.into();
        let key = self.person_data_key_if_any(&alert.organisation, person).await?;
        let actor = caller.actor(self.keyring.as_ref(), key.as_deref());
        // A life is at stake: people are told even where nobody can keep the reason.
        let is_kept = key.is_some();
        let key = key.unwrap_or_else(|| self.key_to_throw_away(&alert.organisation, person));
        let statement = seal_stated(SealedField::Override, stated, key.as_ref());
        let ground = Ground::EmergencyOverride { statement, authorised_by: actor.clone(), at: self.clock.now() };
        let transition = self.decided_by(caller, alert, Input::Overridden { ground }, &actor).await?;
        tracing::info!(alert = %transition.alert.id, "withheld alert escalated by override");
        if !is_kept {
            self.words_were_lost(transition.alert.id).await;
        }
        Ok(transition)
    }

    /// Commits what a human decides, as long as they wait for it: a decision that hung on the way must not meet a case that
    /// has got graver since.
    async fn decided_by(
        &self,
        caller: &Caller,
        alert: Alert,
        input: Input,
        actor: &Actor,
    ) -> Result<Transition, ServiceError> {
        let along = Along { deadline: caller.deadline, ..Along::default() };
        match self.change_along(alert, input, actor, &along).await? {
            Changed::Made(transition) => Ok(*transition),
            Changed::Nothing | Changed::AnsweredBefore | Changed::ConsentOutdated | Changed::NoPlace => {
                Err(ServiceError::Busy)
            }
        }
    }

    /// The caller as this alert's audit names them: by name only under the student's seal, if there is one.
    pub(crate) async fn actor_for(&self, caller: &Caller, alert: &Alert) -> Result<Actor, ServiceError> {
        if !caller.is_person {
            return Ok(caller.actor(self.keyring.as_ref(), None));
        }
        // Whether a name can be sealed must not decide whether a case can be read, taken or closed.
        let key = self.person_data_key_if_any(&alert.organisation, alert.subject.into()).await?;
        Ok(caller.actor(self.keyring.as_ref(), key.as_deref()))
    }
}

/// How a case was taken, as far as figures go: over which channel, where a phone answered, and on which rung somebody was told
/// last.
fn way_of(alert: &Alert, via: AckVia) -> (Option<Channel>, Stage) {
    let stage = alert.deliveries.last().map_or(Stage::FIRST, |delivery| delivery.stage);
    let by = match &alert.state {
        AlertState::Acknowledged { by: Actor::Contact { contact }, .. } => Some(contact),
        AlertState::Acknowledged { .. }
        | AlertState::Escalating { .. }
        | AlertState::Withheld { .. }
        | AlertState::Resolved { .. } => None,
    };
    let theirs = alert.deliveries.iter().rev().find(|delivery| Some(&delivery.contact) == by);
    let channel = match via {
        AckVia::Api => None,
        AckVia::Reply => theirs.map(|delivery| delivery.channel),
        AckVia::Keypress => Some(Channel::Voice),
    };
    (channel, stage)
}

/// How many rungs were used when this one was.
fn rungs_until(stage: Stage, policy: &Policy) -> u64 {
    let rungs = policy.steps.len() as u64;
    match stage {
        Stage::Step { round, step } => u64::from(round) * rungs + u64::from(step) + 1,
        Stage::LastResponder { times } => u64::from(policy.rounds_before_last()) * rungs + u64::from(times),
    }
}
