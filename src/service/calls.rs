//! Calls: what is said once somebody answers, and what a key that they press comes to.
//!
//! That a call was answered acknowledges nothing, nor does its end: only the key 1 does. A call is about one attempt, which
//! the signed address that Twilio posts to names; so there is no question which case is meant, or who presses the key: whoever
//! has the phone that was called.
//!
//! Twilio posts a key again where it got no answer, and the same signed bytes may come at any later moment. So the call's id
//! and the key together are the key of the answer, which is kept as the one to a reply is: in the same commit.

use super::people::address_key;
use super::replies::{Answers, Kept, is_taken_by, recipient};
use super::{Service, ServiceError};
use crate::domain::alert::{AckVia, Alert, AlertState, Kind, TakenBy};
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::delivery::{Attempt, Delivery};
use crate::domain::ids::{AttemptRef, IdempotencyKey, ProviderId};
use crate::domain::message::{Purpose, Speech};
use crate::domain::provider::{MessageStatus, Receipt};
use crate::domain::reply::{self, Answer, Note};
use crate::ports::HashPurpose;

/// A call, as Twilio speaks of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The attempt that it was made for.
    pub attempt: AttemptRef,
    /// Twilio's id of it.
    pub id: ProviderId,
    /// The phone that was called.
    pub to: PhoneNumber,
}

/// A key of a phone, as far as a call knows any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `1`: takes the case.
    Take,
    /// `2`: hands it on.
    PassOn,
    /// Any other.
    Other,
}

impl Key {
    /// Reads what was pressed.
    pub fn parse(digits: &str) -> Self {
        match digits {
            "1" => Self::Take,
            "2" => Self::PassOn,
            _ => Self::Other,
        }
    }

    const fn name(self) -> &'static [u8] {
        match self {
            Self::Take => b"1",
            Self::PassOn => b"2",
            Self::Other => b"other",
        }
    }
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The message, and which keys there are.
    Prompt(Speech),
    /// An answer, then the call ends; after some answers the message is said again.
    Answer(Speech, reply::Said),
    /// The message, to a machine.
    Voicemail(Speech),
    /// The message, to an emergency contact: there is no key, and a machine records the same.
    Told(Speech),
    /// Nothing: the call is none of ours, or nobody is to hear of the case any more.
    Nothing,
}

/// The case and the message that a call is about.
struct About {
    alert: Alert,
    delivery: Delivery,
}

impl Service {
    /// Somebody or something has answered. Books who, and says what they are to hear.
    pub async fn call_answered(&self, call: &Call, status: MessageStatus) -> Result<Said, ServiceError> {
        let Some(About { alert, delivery }) = self.about(call).await? else { return Ok(Said::Nothing) };
        self.note_answered(call, status).await;
        let Some(speech) = self.speech(&alert, &delivery)? else { return Ok(Said::Nothing) };
        if delivery.purpose == Purpose::EmergencyContact {
            return Ok(if self.may_tell_outside(&alert, &delivery).await { Said::Told(speech) } else { Said::Nothing });
        }
        let by_machine = status == MessageStatus::Machine;
        let said = |answer| reply::Said::about(answer, note(&alert), &[]);
        Ok(match &alert.state {
            AlertState::Escalating { .. } if by_machine => Said::Voicemail(speech),
            AlertState::Escalating { .. } => Said::Prompt(speech),
            AlertState::Acknowledged { .. } | AlertState::Resolved { .. } | AlertState::Withheld { .. }
                if by_machine =>
            {
                Said::Nothing
            }
            AlertState::Acknowledged { .. } if is_taken_by(&alert, &recipient(&delivery)) => {
                Said::Answer(speech, said(Answer::Taken(alert.reference)))
            }
            AlertState::Acknowledged { .. } => Said::Answer(speech, said(Answer::TakenBefore(alert.reference))),
            AlertState::Resolved { .. } | AlertState::Withheld { .. } => {
                Said::Answer(speech, said(Answer::Closed(alert.reference)))
            }
        })
    }

    /// A key was pressed. When this returns `Ok`, whatever it came to is durable, and so is the answer: a key that comes
    /// again changes nothing and is answered alike.
    pub async fn key_pressed(&self, call: &Call, key: Key) -> Result<Said, ServiceError> {
        let Some(About { alert, delivery }) = self.about(call).await? else { return Ok(Said::Nothing) };
        let Some(speech) = self.speech(&alert, &delivery)? else { return Ok(Said::Nothing) };
        let kept = Kept::alone(self.keypress_key(&call.id, key), note(&alert));
        if delivery.purpose == Purpose::EmergencyContact {
            return self.key_pressed_outside(alert, &delivery, key, kept, speech).await;
        }
        let answer = match (self.answer_given(kept.key).await?, key) {
            (Some(answer), _) => answer,
            (None, Key::Other) => kept.said(Answer::Help),
            (None, Key::Take) => self.take(alert, &recipient(&delivery), AckVia::Keypress, kept).await?,
            (None, Key::PassOn) => self.pass_on(alert, &recipient(&delivery), kept).await?,
        };
        // Machines press no keys. Only now: the case is worth more than how far its call got.
        self.note_answered(call, MessageStatus::Answered).await;
        Ok(Said::Answer(speech, answer))
    }

    /// Whether an emergency contact who picks up is told: not once the case is closed or, on the policy's account, taken; nor
    /// where the student has taken their word back since it was dialled.
    async fn may_tell_outside(&self, alert: &Alert, delivery: &Delivery) -> bool {
        alert.wants(delivery) && self.may_still_disclose(alert, delivery).await
    }

    /// An emergency contact is asked for no key. One that comes all the same is kept as their words are, and changes nothing.
    async fn key_pressed_outside(
        &self,
        alert: Alert,
        delivery: &Delivery,
        key: Key,
        under: Kept,
        speech: Speech,
    ) -> Result<Said, ServiceError> {
        let is_wanted = self.may_tell_outside(&alert, delivery).await;
        if self.answer_given(under.key).await?.is_none() {
            let words = format!("(key {})", String::from_utf8_lossy(key.name()));
            // What they hear is what the call was made to say: its attempt is the record of it.
            let answers = Answers::silent();
            self.keep_words(alert, &recipient(delivery), (Channel::Voice, &words), under, answers).await?;
        }
        Ok(if is_wanted { Said::Told(speech) } else { Said::Nothing })
    }

    /// What a call is about, if it is ours: made for this attempt, and to the phone of its recipient.
    async fn about(&self, call: &Call) -> Result<Option<About>, ServiceError> {
        let Some(alert) = self.store.alert(call.attempt.alert).await? else { return Ok(None) };
        let Some(delivery) = alert.delivery(call.attempt.delivery) else { return Ok(None) };
        let phone = address_key(self.keyring.as_ref(), &alert.organisation, &call.to);
        let no_other = |attempt: &Attempt| attempt.provider_id.as_ref().is_none_or(|known| *known == call.id);
        let is_ours = delivery.channel == Channel::Voice
            && delivery.address_key == phone
            && delivery.attempt(call.attempt.attempt).is_some_and(no_other);
        let delivery = delivery.clone();
        Ok(is_ours.then_some(About { alert, delivery }))
    }

    fn speech(&self, alert: &Alert, delivery: &Delivery) -> Result<Option<Speech>, ServiceError> {
        Ok(self.organisation(&alert.organisation)?.composer.speech(&alert.facts(delivery, TakenBy::Dashboard)))
    }

    /// Books who answered. Nobody is left without an answer because this could not be booked: the call's end tells it again.
    async fn note_answered(&self, call: &Call, status: MessageStatus) {
        let receipt = Receipt { provider_id: call.id.clone(), status, fault: None };
        if let Err(error) = self.record_receipt(Some(call.attempt), &receipt).await {
            tracing::warn!(alert = %call.attempt.alert, %error, "who answered a call could not be booked");
        }
    }

    fn keypress_key(&self, call: &ProviderId, key: Key) -> IdempotencyKey {
        let parts = [b"keypress".as_slice(), call.as_str().as_bytes(), key.name()];
        IdempotencyKey::from_bytes(self.keyring.hash(HashPurpose::Idempotency, &parts))
    }
}

fn note(alert: &Alert) -> Option<Note> {
    match alert.kind {
        Kind::Drill => Some(Note::Drill),
        Kind::Live => None,
    }
}
