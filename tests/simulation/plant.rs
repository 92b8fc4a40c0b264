//! Planted bugs: what a simulation that cannot find them is worth. Each is an adapter between the service and the store
//! that makes things happen as if the rule were not there; nothing in the service knows of it.

use crisis_relay::domain::alert::Alert;
use crisis_relay::domain::consent::ConsentRecord;
use crisis_relay::domain::delivery::{AttemptResult, DeliveryState};
use crisis_relay::domain::provider::MessageStatus;
use jiff::Timestamp;

/// Which bug is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// Whoever looks at an alert takes what others have in hand.
    LeaseIgnored,
    /// A message counts as accepted from the moment it is claimed.
    SettledBeforeSent,
    /// Whatever a receipt says is the newest.
    RankDropped,
    /// A message that is to be tried again has no wake-up.
    RetryForgotten,
    /// A student's no is read as the yes that was there before.
    WithdrawalIgnored,
    /// What was decided on a student's word is stored although they have said something else since.
    WordNotLookedAtAgain,
    /// A new alert is answered before it is stored, and now and then is not.
    AnsweredBeforeStored,
    /// A commit of which nobody knows counts as made.
    UnknownTakenForDone,
    /// A case that was taken goes on being told.
    AcknowledgementForgotten,
    /// A message that nobody knows of is sent again without a question.
    SentAgainUnasked,
}

impl Plant {
    /// An alert as it is loaded.
    pub(crate) fn loaded(self, mut alert: Alert) -> Alert {
        for delivery in &mut alert.deliveries {
            match &mut delivery.state {
                DeliveryState::Sending { lease, .. } if self == Self::LeaseIgnored => {
                    lease.until = Timestamp::UNIX_EPOCH;
                }
                DeliveryState::Accepted { status, .. } if self == Self::RankDropped => {
                    *status = MessageStatus::Scheduled;
                }
                DeliveryState::Unknown { look_ups, next_look_up_at, .. } if self == Self::SentAgainUnasked => {
                    (*look_ups, *next_look_up_at) = (u32::MAX, Timestamp::UNIX_EPOCH);
                }
                DeliveryState::Due { .. }
                | DeliveryState::Sending { .. }
                | DeliveryState::Unknown { .. }
                | DeliveryState::Accepted { .. }
                | DeliveryState::Failed { .. }
                | DeliveryState::Cancelled { .. } => {}
            }
            if self == Self::RankDropped {
                for attempt in &mut delivery.attempts {
                    attempt.status = attempt.status.map(|_| MessageStatus::Scheduled);
                }
            }
        }
        alert
    }

    /// An alert as it is stored.
    pub(crate) fn stored(self, mut alert: Alert, before: Option<&Alert>) -> Alert {
        if self == Self::AcknowledgementForgotten
            && let Some(before) = before
            && alert.state.name() == crisis_relay::domain::alert::StateName::Acknowledged
        {
            alert.state = before.state.clone();
        }
        for delivery in &mut alert.deliveries {
            if let DeliveryState::Sending { attempt, .. } = delivery.state
                && self == Self::SettledBeforeSent
                && let Some(record) = delivery.attempts.iter_mut().find(|record| record.no == attempt)
            {
                let status = MessageStatus::Queued;
                record.result = AttemptResult::Accepted;
                record.provider_id = format!("SM{:032x}", u128::MAX).parse().ok();
                record.status = Some(status);
                delivery.state = DeliveryState::Accepted { attempt, status, polls: 0, poll_at: None };
            }
        }
        alert
    }

    /// Whether the wake-up of what is stored is lost.
    pub(crate) fn forgets_when_due(self, alert: &Alert) -> bool {
        let is_retry = |state: &DeliveryState| matches!(state, DeliveryState::Due { .. });
        self == Self::RetryForgotten
            && alert.deliveries.iter().any(|delivery| is_retry(&delivery.state) && !delivery.attempts.is_empty())
    }

    /// What a student has said, as it is read.
    pub(crate) fn said(self, mut record: ConsentRecord) -> ConsentRecord {
        if self == Self::WithdrawalIgnored {
            record.channels.values_mut().for_each(|channel| channel.granted = true);
        }
        record
    }
}
