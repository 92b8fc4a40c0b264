//! What humans decide: acknowledge, resolve, override.

use super::caller::Caller;
use super::intake::{EmergencyOverride, seal_override};
use super::{Service, ServiceError};
use crate::domain::alert::{AckVia, Alert, AlertState, Input, Outcome, Rejection, Transition};
use crate::domain::audit::Actor;
use crate::domain::consent::Ground;
use crate::domain::contact::PhoneNumber;
use crate::domain::ids::{AddressKey, ProviderId, Reference};
use crate::ports::SealedField;

/// A reply from a phone, as far as the case needs it. Its text never gets here: only what it was recognised as.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The number it came from, if the person shows one.
    pub from: Option<PhoneNumber>,
    /// Our message that it answers, if WhatsApp says so.
    pub in_reply_to: Option<ProviderId>,
    /// The reference in the text, if there was one.
    pub reference: Option<Reference>,
    /// Whether it says that the person takes the case.
    pub takes_it: bool,
}

/// What is said back to a reply. Only ever said after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyAnswer {
    /// Taken: the case is theirs.
    Taken(Reference),
    /// Somebody else took it before.
    TakenBefore(Reference),
    /// It is closed.
    Closed(Reference),
    /// More than one case waits: they must say which.
    WhichOne,
    /// Not understood, but a case waits.
    Help,
    /// No case waits for this phone: nothing is said.
    Nothing,
}

impl Service {
    /// A human takes the case.
    pub async fn acknowledge(&self, caller: &Caller, alert: Alert) -> Result<Transition, ServiceError> {
        let actor = self.actor_for(caller, &alert).await?;
        self.acknowledge_as(alert, actor, AckVia::Api).await
    }

    async fn acknowledge_as(&self, alert: Alert, actor: Actor, via: AckVia) -> Result<Transition, ServiceError> {
        let changed = self.change(alert, Input::Acknowledge { via }, &actor).await?;
        let transition = changed.ok_or(ServiceError::Busy)?;
        let alert = &transition.alert;
        self.metrics.reached_human(super::receipts::seconds_since_told(alert));
        tracing::info!(alert = %alert.id, ?via, "alert acknowledged");
        Ok(transition)
    }

    /// A human closes the case. That somebody could not be reached is an administrator's decision.
    pub async fn resolve(
        &self,
        caller: &Caller,
        alert: Alert,
        outcome: Outcome,
        note: Option<&str>,
    ) -> Result<Transition, ServiceError> {
        if matches!(outcome, Outcome::UnableToReach) && caller.role != "admin" {
            return Err(ServiceError::Forbidden("only an admin may close a case as unable_to_reach"));
        }
        let actor = self.actor_for(caller, &alert).await?;
        let note = match note {
            Some(text) => {
                let key = self.person_data_key(&alert.organisation, alert.subject.into()).await?;
                Some(key.seal(SealedField::Note, text))
            }
            None => None,
        };
        let changed = self.change(alert, Input::Resolve { outcome, note }, &actor).await?;
        let transition = changed.ok_or(ServiceError::Busy)?;
        tracing::info!(alert = %transition.alert.id, ?outcome, "alert resolved");
        Ok(transition)
    }

    /// A human decides that a withheld case must be told.
    pub async fn override_withheld(
        &self,
        caller: &Caller,
        alert: Alert,
        stated: &EmergencyOverride,
    ) -> Result<Transition, ServiceError> {
        let key = self.person_data_key(&alert.organisation, alert.subject.into()).await?;
        let actor = caller.actor(self.keyring.as_ref(), Some(key.as_ref()));
        let statement = seal_override(stated, key.as_ref());
        let ground = Ground::EmergencyOverride { statement, authorised_by: actor.clone(), at: self.clock.now() };
        let changed = self.change(alert, Input::Overridden { ground }, &actor).await?;
        let transition = changed.ok_or(ServiceError::Busy)?;
        tracing::info!(alert = %transition.alert.id, "withheld alert escalated by override");
        Ok(transition)
    }

    /// The caller as this alert's audit names them: by name only under the student's seal.
    pub(crate) async fn actor_for(&self, caller: &Caller, alert: &Alert) -> Result<Actor, ServiceError> {
        if !caller.is_person {
            return Ok(caller.actor(self.keyring.as_ref(), None));
        }
        let key = self.person_data_key(&alert.organisation, alert.subject.into()).await?;
        Ok(caller.actor(self.keyring.as_ref(), Some(key.as_ref())))
    }

    /// A reply from a phone. It is bound to the person that the message was sent to: found by the replied message
    /// first (unless the text names another case), then by number and reference, then by number alone if only one case
    /// waits.
    pub async fn record_reply(&self, reply: &Reply) -> Result<ReplyAnswer, ServiceError> {
        let candidates = self.cases_for(reply).await?;
        let found = match candidates.as_slice() {
            [] => return Ok(ReplyAnswer::Nothing),
            waiting if !reply.takes_it => {
                let waits = waiting.iter().any(|(alert, _)| matches!(alert.state, AlertState::Escalating { .. }));
                return Ok(if waits { ReplyAnswer::Help } else { ReplyAnswer::Nothing });
            }
            [one] => one.clone(),
            _ => return Ok(ReplyAnswer::WhichOne),
        };
        let (alert, actor) = found;
        let (id, reference) = (alert.id, alert.reference);
        match self.acknowledge_as(alert, actor.clone(), AckVia::Reply).await {
            Ok(_) => Ok(ReplyAnswer::Taken(reference)),
            Err(ServiceError::Rejected(Rejection::AlreadyAcknowledged)) => {
                // The reply may come again: then it must not sound as if somebody else had the case.
                let theirs = is_taken_by(&self.load(id).await?, &actor);
                Ok(if theirs { ReplyAnswer::Taken(reference) } else { ReplyAnswer::TakenBefore(reference) })
            }
            Err(ServiceError::Rejected(_)) => Ok(ReplyAnswer::Closed(reference)),
            Err(error) => Err(error),
        }
    }

    async fn cases_for(&self, reply: &Reply) -> Result<Vec<(Alert, Actor)>, ServiceError> {
        if let Some(message) = &reply.in_reply_to
            && let Some(alert) = self.store.alert_of_message(message).await?
            // A code that was typed counts for more than a message that was tapped.
            && reply.reference.is_none_or(|typed| typed == alert.reference)
        {
            let sent_to = alert
                .deliveries
                .iter()
                .find(|delivery| delivery.attempts.iter().any(|attempt| attempt.provider_id.as_ref() == Some(message)));
            if let Some(delivery) = sent_to {
                let actor = Actor::Contact { contact: delivery.contact.clone() };
                return Ok(vec![(alert, actor)]);
            }
        }
        let Some(number) = &reply.from else { return Ok(Vec::new()) };
        let mut cases = Vec::new();
        for organisation in &self.organisations {
            let address = super::people::address_key(self.keyring.as_ref(), &organisation.id, number);
            for alert in self.store.escalating_alerts_of(&organisation.id, address, CASES_LOOKED_AT).await? {
                if let Some(actor) = recipient(&alert, address) {
                    cases.push((alert, actor));
                }
            }
        }
        if let Some(reference) = reply.reference {
            cases.retain(|(alert, _)| alert.reference == reference);
        }
        Ok(cases)
    }
}

/// How many waiting cases of one phone are looked at to find the one with the given reference.
const CASES_LOOKED_AT: usize = 1000;

fn is_taken_by(alert: &Alert, actor: &Actor) -> bool {
    matches!(&alert.state, AlertState::Acknowledged { by, .. } if by == actor)
}

fn recipient(alert: &Alert, address: AddressKey) -> Option<Actor> {
    let delivery = alert.deliveries.iter().find(|delivery| delivery.address_key == address)?;
    Some(Actor::Contact { contact: delivery.contact.clone() })
}
