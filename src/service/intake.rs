//! Intake: an event is decided on and made durable in one commit, before it is answered.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::consent::consent_version;
use super::people::subject_key;
use super::{Along, Organisation, Service, ServiceError, TRIES};
use crate::domain::alert::{Alert, Decision, Input, Kind, NewAlert, Transition};
use crate::domain::consent::{Ground, ground_for};
use crate::domain::event::{EventDetails, Label, Score, Source, Trigger};
use crate::domain::ids::{AlertId, EventId, IdempotencyKey, Reference, SubjectKey};
use crate::ports::{
    Committed, DataKey, HashPurpose, IdempotencyRecord, IntakeContext, SealedField, WrappedDataKey, random,
};

/// An event as the edge parsed it. Its words are personal: there is no `Debug`.
pub struct NewEvent {
    /// The student, as the backend names them.
    pub user_id: String,
    /// Where it comes from.
    pub source: Source,
    /// The score; a case raised by a person has none.
    pub score: Option<Score>,
    /// What was written.
    pub message: Option<String>,
    /// When it happened; if not given, now.
    pub occurred_at: Option<Timestamp>,
    /// Which model gave the score.
    pub model_version: Option<Label>,
    /// The decision that life is at stake.
    pub emergency_override: Option<Statement>,
    /// Further data, as JSON text.
    pub metadata: Option<String>,
}

/// A named person's decision that somebody must be told, as it was handed in. Personal: no `Debug`.
#[derive(Serialize)]
pub struct Statement {
    /// Who decided.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// An idempotency key, with the body it came with.
pub struct IdempotencyInput<'a> {
    /// The key as given.
    pub key: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// The answer to an event. Nothing personal stands in it, so it may be kept and replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EventAnswer {
    /// The event's id.
    #[schema(value_type = String, format = "uuid")]
    pub event_id: EventId,
    /// What was decided.
    pub decision: Decision,
    /// The alert that the event opened or joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub alert_id: Option<AlertId>,
    /// The code that people read out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "K7Q4TX3M")]
    pub reference: Option<Reference>,
    /// Whether people are told again because of a merged event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paged_again: Option<bool>,
    /// Where the alert's state is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_url: Option<String>,
}

/// An answer, and whether it was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The JSON.
    pub json: String,
    /// Given before, for the same key and body.
    pub replayed: bool,
}

/// Every event is answered so: taken, and what becomes of it is told by the decision.
const ACCEPTED: u16 = 202;

/// What stays the same when intake has to start again.
struct Intake<'a> {
    caller: &'a Caller,
    organisation: &'a Organisation,
    event: &'a NewEvent,
    subject: SubjectKey,
    event_id: EventId,
    now: Timestamp,
    idempotency: Option<(IdempotencyKey, [u8; 32])>,
}

/// What an event's words are sealed under.
struct EventKey {
    key: Arc<dyn DataKey>,
    /// The key as it is to be stored, if this event made it.
    new: Option<WrappedDataKey>,
    /// Whether what is sealed can ever be opened.
    is_kept: bool,
}

impl Service {
    /// Takes an event. When this returns `Ok`, whatever follows from it is durable.
    pub async fn accept(
        &self,
        caller: &Caller,
        event: &NewEvent,
        idempotency: Option<IdempotencyInput<'_>>,
    ) -> Result<Answered, ServiceError> {
        let organisation = self.organisation(&caller.organisation)?;
        let now = self.clock.now();
        let intake = Intake {
            caller,
            organisation,
            event,
            subject: subject_key(self.keyring.as_ref(), &organisation.id, &event.user_id),
            event_id: EventId::new(now, random(self.entropy.as_ref())),
            now,
            idempotency: idempotency.map(|given| self.hash_idempotency(caller, &given)),
        };
        let mut turn = None;
        for _ in 0..TRIES {
            if let Some(answered) = self.try_accept(&intake).await? {
                return Ok(answered);
            }
            if turn.is_none() {
                turn = Some(self.turns.take(intake.subject).await);
            }
        }
        Err(ServiceError::Busy)
    }

    pub(super) fn hash_idempotency(&self, caller: &Caller, given: &IdempotencyInput<'_>) -> (IdempotencyKey, [u8; 32]) {
        let organisation = caller.organisation.as_str().as_bytes();
        let parts = [organisation, caller.id.as_bytes(), given.key.as_bytes()];
        let key = self.keyring.hash(HashPurpose::Idempotency, &parts);
        let body = self.keyring.hash(HashPurpose::Idempotency, &[given.body]);
        (IdempotencyKey::from_bytes(key), body)
    }

    /// One load, one decision, one commit; `None` if somebody was faster.
    async fn try_accept(&self, intake: &Intake<'_>) -> Result<Option<Answered>, ServiceError> {
        let key = intake.idempotency.map(|(key, _)| key);
        let known = self.store.intake_context(&intake.organisation.id, intake.subject, key).await?;
        if let Some(record) = known.idempotency {
            return replay(record, intake).map(Some);
        }
        if intake.event.score.is_some_and(|score| score < intake.organisation.threshold) {
            return self.accept_below_threshold(intake).await;
        }
        let EventKey { key: data_key, new: new_data_key, is_kept } = self.key_for(intake, known.data_key.as_ref());
        let place = self.dispatch.place();
        let lease = place.as_ref().map(|_| self.lease(intake.now));
        let actor = intake.caller.actor(self.keyring.as_ref(), is_kept.then_some(data_key.as_ref()));
        self.refresh_rosters().await;
        let live = self.live(&intake.organisation.id)?;
        let situation = self.situation(intake.organisation, &live, intake.now, &actor, lease.as_ref());
        let consent_version = consent_version(known.consent.as_ref());
        let transition = self.decide(intake, known, &data_key, &actor, &situation)?;
        let answer = answer(intake.event_id, &transition);
        let json = serde_json::to_string(&answer).unwrap_or_default();
        let along = Along {
            event: if is_kept { seal_details(intake, data_key.as_ref()) } else { None },
            idempotency: intake.record(&json),
            data_key: new_data_key,
            // An override stands whatever the student says. A refusal for want of consent rests on their word, too: one
            // that was given meanwhile opens the way at once.
            consent_version: (!is_overridden(&transition.alert)).then_some(consent_version),
            emergency: None,
            may_wait: false,
            // An event that was accepted late is better than none.
            deadline: None,
        };
        match self.commit(&transition, along).await? {
            Committed::Committed => {}
            Committed::VersionConflict
            | Committed::SubjectHasOpenAlert
            | Committed::ReferenceTaken
            | Committed::IdempotencyKeyUsed
            | Committed::DataKeyExists
            | Committed::ConsentChanged => return Ok(None),
        }
        let alert = transition.alert.id;
        self.metrics.event(answer.decision.as_str());
        self.committed(transition, place);
        if !is_kept {
            self.words_were_lost(alert).await;
        }
        tracing::info!(event = %intake.event_id, %alert, decision = answer.decision.as_str(), "event accepted");
        Ok(Some(Answered { status: ACCEPTED, json, replayed: false }))
    }

    /// A key that stands and does not open (a former master key is missing) must not keep a crisis from people: the
    /// event is taken without its words, and whoever sent it knows whose it is by the alert's reference.
    fn key_for(&self, intake: &Intake<'_>, known: Option<&WrappedDataKey>) -> EventKey {
        let (organisation, person) = (&intake.organisation.id, intake.subject.into());
        let Some(wrapped) = known else {
            let (wrapped, key) = self.keyring.new_data_key(organisation, person, intake.now);
            return EventKey { key, new: Some(wrapped), is_kept: true };
        };
        match self.keyring.open_data_key(wrapped) {
            Ok(key) => EventKey { key, new: None, is_kept: true },
            Err(_) => EventKey { key: self.key_to_throw_away(organisation, person), new: None, is_kept: false },
        }
    }

    fn decide(
        &self,
        intake: &Intake<'_>,
        known: IntakeContext,
        data_key: &Arc<dyn DataKey>,
        actor: &crate::domain::audit::Actor,
        situation: &crate::domain::alert::Situation<'_>,
    ) -> Result<Transition, ServiceError> {
        let event = intake.event;
        let organisation = intake.organisation;
        let stated = event.emergency_override.as_ref().map(|stated| Ground::EmergencyOverride {
            statement: seal_stated(SealedField::Override, stated, data_key.as_ref()),
            authorised_by: actor.clone(),
            at: intake.now,
        });
        let trigger = Trigger {
            event: intake.event_id,
            source: event.source,
            score: event.score,
            threshold: event.score.map(|_| organisation.threshold),
            model_version: event.model_version.clone(),
            occurred_at: event.occurred_at.unwrap_or(intake.now),
            received_at: intake.now,
        };
        if let Some(alert) = known.open_alert {
            let policy = alert.policy_after(trigger.severity(), situation.ladders);
            let mut needed = policy.channels_that_reach(situation.directory);
            // A number that is being changed, or another ladder, takes back no word: as where the word itself is judged.
            needed.extend(alert.ground.iter().flat_map(Ground::consented));
            let ground = ground_for(known.consent.as_ref(), stated, &needed);
            return Ok(alert.on(Input::Joined { trigger, ground }, situation)?);
        }
        let policy = situation.ladders.opening(trigger.severity());
        let needed = policy.channels_that_reach(situation.directory);
        let ground = ground_for(known.consent.as_ref(), stated, &needed);
        let new = NewAlert {
            id: AlertId::new(intake.now, random(self.entropy.as_ref())),
            reference: Reference::new(random(self.entropy.as_ref())),
            organisation: organisation.id.clone(),
            subject: intake.subject,
            kind: Kind::Live,
            identity: data_key.seal(SealedField::UserId, &event.user_id),
            trigger,
            ground,
            policy: Arc::clone(policy),
        };
        Ok(Alert::open(new, situation))
    }

    async fn accept_below_threshold(&self, intake: &Intake<'_>) -> Result<Option<Answered>, ServiceError> {
        let answer = EventAnswer {
            event_id: intake.event_id,
            decision: Decision::BelowThreshold,
            alert_id: None,
            reference: None,
            paged_again: None,
            status_url: None,
        };
        let json = serde_json::to_string(&answer).unwrap_or_default();
        if let Some(record) = intake.record(&json)
            && !self.store.keep_answer(record).await?
        {
            return Ok(None);
        }
        self.metrics.event(Decision::BelowThreshold.as_str());
        Ok(Some(Answered { status: ACCEPTED, json, replayed: false }))
    }
}

impl Intake<'_> {
    fn record(&self, json: &str) -> Option<IdempotencyRecord> {
        let (key, body) = self.idempotency?;
        Some(IdempotencyRecord { key, body, status: ACCEPTED, answer: json.to_owned(), created_at: self.now })
    }
}

fn replay(record: IdempotencyRecord, intake: &Intake<'_>) -> Result<Answered, ServiceError> {
    if intake.idempotency.is_none_or(|(_, body)| body != record.body) {
        return Err(ServiceError::IdempotencyKeyReused);
    }
    Ok(Answered { status: record.status, json: record.answer, replayed: true })
}

fn answer(event_id: EventId, transition: &Transition) -> EventAnswer {
    let decision = transition.decision.unwrap_or(Decision::Merged);
    let alert = &transition.alert;
    EventAnswer {
        event_id,
        decision,
        alert_id: Some(alert.id),
        reference: Some(alert.reference),
        paged_again: matches!(decision, Decision::Merged).then_some(transition.paged),
        status_url: Some(format!("/api/v1/crisis/alerts/{}", alert.id)),
    }
}

fn is_overridden(alert: &Alert) -> bool {
    matches!(alert.ground, Some(Ground::EmergencyOverride { .. }))
}

/// Both parts of a named person's decision under one seal, as JSON text.
pub(crate) fn seal_stated(
    field: SealedField,
    stated: &Statement,
    data_key: &dyn DataKey,
) -> crate::domain::sealed::Sealed {
    data_key.seal(field, &serde_json::to_string(stated).unwrap_or_default())
}

fn seal_details(intake: &Intake<'_>, data_key: &dyn DataKey) -> Option<EventDetails> {
    let event = intake.event;
    let message = event.message.as_ref().map(|text| data_key.seal(SealedField::Message, text));
    let metadata = event.metadata.as_ref().map(|text| data_key.seal(SealedField::Metadata, text));
    if message.is_none() && metadata.is_none() {
        return None;
    }
    Some(EventDetails { event: intake.event_id, received_at: intake.now, reply: None, message, metadata })
}
