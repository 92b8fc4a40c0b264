//! Handing on: who was told and cannot help says so, and nobody waits for the rung's time.

use std::sync::Arc;

use super::{Changing, Rejection};
use crate::domain::alert::{AlertState, Asked, Deed};
use crate::domain::audit::Actor;
use crate::domain::delivery::{Delivery, DeliveryState};
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
        if let Some(contact) = &contact
            && !self.is_last_to_pass(contact)
        {
            self.record(&Deed::PassedOn);
            self.note_that_they_passed(contact);
            return Ok(());
        }
        // Who of the rung has passed is not told by the next one, unless there is nobody else.
        let alone: Vec<ContactId> = contact.into_iter().collect();
        let all: Vec<ContactId> = self.those_who_passed().chain(alone.iter().cloned()).collect();
        let next = [all, alone].into_iter().find_map(|they| Some((self.next_for_others(from, &they)?, they)));
        let ((left_out, next), hands_on) = next.ok_or(Rejection::NobodyElse)?;
        self.record(&Deed::PassedOn);
        if self.alert.ground.is_none() {
            // Taken on a word that has been taken back since: people who may decide otherwise see it.
            self.withhold();
            return Ok(());
        }
        self.hands_on = hands_on;
        self.enter_past(&left_out, next);
        Ok(())
    }

    /// Whether nobody waits for this rung's time once this person has passed. Who is not told on it, or has passed before,
    /// takes nothing from those who are.
    fn is_last_to_pass(&self, contact: &ContactId) -> bool {
        let AlertState::Escalating { stage, asked, .. } = &self.alert.state else { return true };
        let may_answer = |other: &Asked| {
            let is_told = |delivery: &Delivery| {
                let is_theirs = delivery.stage == *stage && delivery.contact == other.contact;
                let in_vain = matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
                is_theirs && delivery.purpose.is_alert() && !in_vain
            };
            !other.passed && self.alert.deliveries.iter().any(is_told)
        };
        let (own, others): (Vec<&Asked>, Vec<&Asked>) = asked.iter().partition(|asked| asked.contact == *contact);
        let waits_for_them = asked.is_empty() || own.iter().any(|own| !own.passed);
        waits_for_them && !others.into_iter().any(may_answer)
    }

    fn note_that_they_passed(&mut self, contact: &ContactId) {
        if let AlertState::Escalating { asked, .. } = &mut self.alert.state {
            let theirs = asked.iter_mut().filter(|asked| asked.contact == *contact);
            theirs.for_each(|asked| asked.passed = true);
        }
    }

    fn those_who_passed(&self) -> impl Iterator<Item = ContactId> {
        let asked = match &self.alert.state {
            AlertState::Escalating { asked, .. } => asked.as_slice(),
            AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => &[],
        };
        asked.iter().filter(|asked| asked.passed).map(|asked| asked.contact.clone())
    }

    /// The rung that told somebody last: from there on it is handed on.
    fn last_told(&self) -> Stage {
        self.alert
            .deliveries
            .iter()
            .rfind(|delivery| delivery.purpose.is_alert())
            .map_or(Stage::FIRST, |delivery| delivery.stage)
    }

    /// The next stage that names somebody else who can be told, and those before it that are left out.
    fn next_for_others(&self, from: Stage, they: &[ContactId]) -> Option<(Vec<Stage>, Stage)> {
        let policy = Arc::clone(&self.alert.policy);
        let is_for_others = |stage: &Stage| {
            let called = Called::new(stage.targets(&policy).0, self.cx.directory, self.cx.now).people;
            let late = self.late_comers(*stage).into_iter().map(|(contact, _)| contact);
            called.into_iter().chain(late).any(|person| !they.contains(&person.id))
        };
        let rungs = policy.steps.len().saturating_mul(policy.rounds as usize);
        let stages = std::iter::successors(Some(from.next(&policy)), |stage| Some(stage.next(&policy)));
        let mut left_out = Vec::new();
        for stage in stages.take(rungs + 1) {
            if is_for_others(&stage) {
                return Some((left_out, stage));
            }
            left_out.push(stage);
        }
        None
    }
}
