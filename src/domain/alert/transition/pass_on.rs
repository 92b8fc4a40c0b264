//! Handing on: who was told and cannot help says so, and nobody waits for the rung's time.

use std::sync::Arc;

use super::{Changing, Rejection};
use crate::domain::alert::{AlertState, Deed};
use crate::domain::audit::Actor;
use crate::domain::ids::ContactId;
use crate::domain::policy::{Called, Stage};

impl Changing<'_, '_> {
    pub(super) fn pass_on(&mut self) -> Result<(), Rejection> {
        self.refuse_outsider()?;
        let from = match &self.alert.state {
            AlertState::Escalating { stage, .. } => *stage,
            AlertState::Acknowledged { by, .. } if by == self.cx.actor => self.last_told(),
            AlertState::Acknowledged { .. } => return Err(Rejection::AlreadyAcknowledged),
            AlertState::Withheld { .. } => return Err(Rejection::IsWithheld),
            AlertState::Resolved { .. } => return Err(Rejection::AlreadyResolved),
        };
        let contact = match self.cx.actor {
            Actor::Contact { contact } => Some(contact.clone()),
            Actor::Person { .. } | Actor::Machine { .. } | Actor::Provider | Actor::Service => None,
        };
        let next = self.next_for_others(from, contact.as_ref()).ok_or(Rejection::NobodyElse)?;
        self.record(&Deed::PassedOn);
        if self.alert.ground.is_none() {
            // Taken on a word that has been taken back since: people who may decide otherwise see it.
            self.withhold();
            return Ok(());
        }
        self.hands_on = contact;
        self.enter(next);
        Ok(())
    }

    /// The rung that told somebody last: from there on it is handed on.
    fn last_told(&self) -> Stage {
        self.alert
            .deliveries
            .iter()
            .rfind(|delivery| delivery.purpose.is_alert())
            .map_or(Stage::FIRST, |delivery| delivery.stage)
    }

    /// The next stage that names somebody else who can be told.
    fn next_for_others(&self, from: Stage, contact: Option<&ContactId>) -> Option<Stage> {
        let policy = Arc::clone(&self.alert.policy);
        let is_for_others = |stage: &Stage| {
            let called = Called::new(stage.targets(&policy).0, self.cx.directory, self.cx.now);
            called.people.iter().any(|person| Some(&person.id) != contact)
        };
        let rungs = policy.steps.len().saturating_mul(policy.rounds as usize);
        let stages = std::iter::successors(Some(from.next(&policy)), |stage| Some(stage.next(&policy)));
        stages.take(rungs + 1).find(is_for_others)
    }
}
