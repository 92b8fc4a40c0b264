//! What goes wrong in a schedule, and how often. Each schedule has a few kinds of trouble, some of them heavy, instead of
//! a little of everything: that finds more.

use std::time::Duration;

use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::provider::{ErrorClass, MessageStatus, ProviderFault};

use crate::chance::Chance;
use crate::hub::Hub;

/// The provider's part, as probabilities.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    pub(crate) busy: f64,
    pub(crate) connection_refused: f64,
    pub(crate) refused: f64,
    pub(crate) server_error: f64,
    pub(crate) time_out: f64,
    pub(crate) answer_lost: f64,
    pub(crate) unreadable: f64,
    pub(crate) slow: f64,
    /// New messages are not listed at once.
    pub(crate) list_lags: f64,
    pub(crate) questions_fail: f64,
    /// Messages that do not arrive.
    pub(crate) undelivered: f64,
    /// Messages of which two contradictory ends are told.
    pub(crate) contradictory: f64,
    pub(crate) receipts_lost: f64,
    pub(crate) receipts_repeated: f64,
    pub(crate) receipts_late: f64,
    /// Receipts whose URL lacks the attempt.
    pub(crate) receipts_unnamed: f64,
}

/// Trouble of the store and of the processes, as probabilities for each call of the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    pub(crate) fail: f64,
    pub(crate) lost: f64,
    pub(crate) pass_unknown: f64,
    pub(crate) die: f64,
    /// That time passes though calls wait: how slow the store is.
    pub(crate) slow: f64,
}

fn intensity(chance: &Chance) -> f64 {
    chance.weighted(&[(6.0, 0.0), (2.0, 0.05), (1.5, 0.2), (0.5, 0.6)])
}

impl Weather {
    pub(crate) fn draw(chance: &Chance) -> Self {
        Self {
            busy: intensity(chance),
            connection_refused: intensity(chance),
            refused: intensity(chance) / 2.0,
            server_error: intensity(chance),
            time_out: intensity(chance),
            answer_lost: intensity(chance),
            unreadable: intensity(chance) / 2.0,
            slow: intensity(chance),
            list_lags: intensity(chance),
            questions_fail: intensity(chance),
            undelivered: intensity(chance),
            contradictory: intensity(chance),
            receipts_lost: intensity(chance),
            receipts_repeated: intensity(chance),
            receipts_late: intensity(chance),
            receipts_unnamed: intensity(chance),
        }
    }

    /// Everything works.
    pub(crate) fn fair() -> Self {
        Self::default()
    }

    /// For how long a new message is not listed.
    pub(crate) fn lag(&self, chance: &Chance) -> Duration {
        chance.span(Duration::from_millis(500), Duration::from_secs(40))
    }

    /// What becomes of a message, and when.
    pub(crate) fn life(
        &self,
        channel: Channel,
        chance: &Chance,
    ) -> Vec<(Duration, MessageStatus, Option<ProviderFault>)> {
        if channel == Channel::Voice {
            return self.call(chance);
        }
        let soon = |most| chance.span(Duration::from_millis(1), Duration::from_millis(most));
        let mut at = soon(800);
        let mut life = vec![(at, MessageStatus::Sending, None)];
        let mut then = |at: &mut Duration, after, status, fault| {
            *at += after;
            life.push((*at, status, fault));
        };
        let failure = *chance.one_of(&[MessageStatus::Undelivered, MessageStatus::Failed, MessageStatus::Canceled]);
        let fault = chance.happens(0.7).then(|| refusal(chance));
        if chance.happens(self.undelivered) {
            then(&mut at, soon(20_000), failure, fault);
            return life;
        }
        then(&mut at, soon(1_500), MessageStatus::Sent, None);
        let contradictory = chance.happens(self.contradictory);
        if contradictory && chance.happens(0.5) {
            then(&mut at, soon(5_000), failure, fault);
        }
        then(&mut at, soon(3_000), MessageStatus::Delivered, None);
        if contradictory && chance.happens(0.5) {
            then(&mut at, soon(5_000), failure, fault);
        } else if chance.happens(0.3) {
            then(&mut at, soon(60_000), MessageStatus::Read, None);
        }
        life
    }

    /// What becomes of a call, and when: it rings, and is engaged, not answered, or answered by a human or a machine.
    fn call(&self, chance: &Chance) -> Vec<(Duration, MessageStatus, Option<ProviderFault>)> {
        let soon = |most| chance.span(Duration::from_millis(1), Duration::from_millis(most));
        let mut at = soon(800);
        let mut life = vec![(at, MessageStatus::Initiated, None)];
        let mut then = |after, status| {
            at += after;
            life.push((at, status, None));
        };
        then(soon(2_000), MessageStatus::Ringing);
        if chance.happens(self.undelivered) {
            let ends = [MessageStatus::Busy, MessageStatus::NoAnswer, MessageStatus::Failed, MessageStatus::Canceled];
            then(soon(25_000), *chance.one_of(&ends));
            return life;
        }
        then(soon(20_000), MessageStatus::InProgress);
        let end = chance.weighted(&[
            (0.7, MessageStatus::Answered),
            (0.2, MessageStatus::Machine),
            (0.1, MessageStatus::Completed),
        ]);
        then(soon(5_000), end);
        if chance.happens(self.contradictory) {
            then(soon(5_000), MessageStatus::Completed);
        }
        life
    }

    /// After which times a status is posted: not at all, once, or twice.
    pub(crate) fn callbacks(&self, hub: &Hub) -> Vec<Duration> {
        let chance = &hub.chance;
        if chance.happens(self.receipts_lost) {
            hub.see("receipt lost");
            return Vec::new();
        }
        let times = if chance.happens(self.receipts_repeated) { 2 } else { 1 };
        let after = |_| {
            let longest = if chance.happens(self.receipts_late) { 60_000 } else { 200 };
            chance.span(Duration::from_millis(1), Duration::from_millis(longest))
        };
        (0..times).map(after).collect()
    }
}

impl Trouble {
    pub(crate) fn draw(chance: &Chance) -> Self {
        let rarely = |share: f64| intensity(chance) * share;
        Self {
            fail: rarely(0.3),
            lost: rarely(0.15),
            pass_unknown: rarely(0.15),
            die: rarely(0.03),
            slow: 0.01 + rarely(0.3),
        }
    }
}

/// A reason why the provider or a carrier refuses.
pub(crate) fn refusal(chance: &Chance) -> ProviderFault {
    let delay = chance.happens(0.5).then_some((1, 60));
    *chance.one_of(&[
        ProviderFault { code: Some(21211), class: ErrorClass::Switch, delay_s: None },
        ProviderFault { code: Some(63016), class: ErrorClass::Template, delay_s: None },
        ProviderFault { code: Some(21610), class: ErrorClass::OptOut, delay_s: None },
        ProviderFault { code: Some(20003), class: ErrorClass::Config, delay_s: None },
        ProviderFault { code: Some(63018), class: ErrorClass::Delay, delay_s: delay },
        ProviderFault { code: Some(20500), class: ErrorClass::Ambiguous, delay_s: None },
        ProviderFault { code: Some(14107), class: ErrorClass::Retry, delay_s: None },
    ])
}
