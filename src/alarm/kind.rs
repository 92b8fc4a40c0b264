//! What the operator can be told of: a closed list, with what each means.

use std::time::Duration;

/// How loudly it is told, in PagerDuty's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look in working hours. Phones are not told.
    Warning,
    /// The service cannot do a part of its job alone.
    Error,
    /// Somebody may be waiting for help in vain.
    Critical,
}

impl Severity {
    /// The word that PagerDuty knows it by.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// How long a condition lasts once it has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// Until somebody says that it is over: whoever raises it looks again and again. It may come and go, so it counts as
    /// over only when it has stayed away for a moment ([`super::board::Rules::settle_for`]).
    UntilOver,
    /// Until its case is taken or closed, or this long after it was seen last: another instance may be the one that sees
    /// the case taken.
    UntilSettled(Duration),
    /// This long after it was seen last: nothing tells that it is over.
    WhileSeen(Duration),
}

const HOUR: Duration = Duration::from_secs(3_600);

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $severity:ident, $component:literal, $lasting:expr, $summary:literal;)*) => {
        /// What the operator is told of. `docs/operations.md` says of each what to do, and how it recovers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $variant),* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, as in logs, metric labels and notices.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// How loudly it is told.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }

            /// The part of the service that it is about.
            pub const fn component(self) -> &'static str {
                match self { $(Self::$variant => $component),* }
            }

            /// How long it lasts.
            pub const fn lasting(self) -> Lasting {
                match self { $(Self::$variant => $lasting),* }
            }

            /// What it means, in words that may be read by anybody.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $summary),* }
            }
        }
    };
}

kinds! {
    /// Every round was in vain.
    LadderExhausted = "ladder_exhausted", Critical, "ladder", Lasting::UntilSettled(Duration::from_secs(3 * 3_600)),
        "every round was in vain: the last responder is told again and again, and nobody answers";
    /// A stage had nobody to tell.
    NobodyToTell = "nobody_to_tell", Critical, "ladder", Lasting::UntilSettled(HOUR),
        "there is nobody to tell: no number, or no channel that is allowed";
    /// A stage is for whoever is on call, and nobody is.
    NobodyOnCall = "nobody_on_call", Critical, "ladder", Lasting::UntilSettled(HOUR),
        "a rung is for whoever is on call, and nobody is: the next one began at once";
    /// Within a day somebody would be missing.
    OnCallGap = "on_call_gap", Error, "schedules", Lasting::UntilOver,
        "within a day nobody is on call for a while, or somebody who cannot be told: the readiness of the API says when";
    /// A ladder in use does not reach whom it must.
    LadderUnreachable = "ladder_unreachable", Critical, "ladder", Lasting::UntilOver,
        "a rung or the last responder of a ladder in use reaches nobody: the readiness of the API says which";
    /// Somebody handed a case on, and nobody else is there.
    NobodyToPassTo = "nobody_to_pass_to", Critical, "ladder", Lasting::UntilSettled(HOUR),
        "somebody passed a case on, and the ladder names nobody else";
    /// Taken, and nothing came of it.
    Reopened = "reopened", Error, "ladder", Lasting::UntilSettled(HOUR),
        "a case was taken, nothing followed in time, and it is open again";
    /// Nobody answered a drill.
    DrillUnanswered = "drill_unanswered", Error, "ladder", Lasting::WhileSeen(HOUR),
        "a drill climbed the whole ladder, and nobody answered: a real case would have fared alike";
    /// A drill that was to start by itself did not.
    DrillNotStarted = "drill_not_started", Error, "ladder", Lasting::WhileSeen(HOUR),
        "a drill was to start by itself, and did not within an hour: another was running, or it failed";
    /// Somebody was to look after a student again.
    FollowUpUntold = "follow_up_untold", Error, "ladder", Lasting::WhileSeen(HOUR),
        "a follow-up of a closed case is due, and nobody could be reminded of it";
    /// An emergency contact was to be told, and cannot be.
    EmergencyContactUntold = "emergency_contact_untold", Error, "contacts", Lasting::UntilSettled(HOUR),
        "an emergency contact was to be told, and no number of theirs works: a person must call";
    /// An open case lost the ground that it rests on.
    ConsentWithdrawn = "consent_withdrawn", Error, "ground", Lasting::UntilSettled(HOUR),
        "an open case may not be told of any more: a person must decide";
    /// Attempts or time for a message were used up.
    DeliveryExhausted = "delivery_exhausted", Error, "provider", Lasting::UntilSettled(HOUR),
        "a message could not be handed over: attempts or time were used up";
    /// No text could be made.
    NotComposable = "not_composable", Critical, "templates", Lasting::UntilSettled(HOUR),
        "no text could be made for a message";
    /// Twilio refused for a reason that only a person can mend.
    ProviderRefused = "provider_refused", Critical, "provider", Lasting::WhileSeen(HOUR),
        "the provider refuses: sender, template, credentials or another part of the set-up";
    /// Calls to the provider fail, one after the other.
    ProviderFailing = "provider_failing", Critical, "provider", Lasting::UntilOver,
        "calls to the provider fail, one after the other";
    /// Too many messages come to nothing.
    FailureShare = "failure_share", Error, "provider", Lasting::UntilOver,
        "too many messages of the last minutes were not taken, or failed on the way";
    /// The circuit breaker holds calls back.
    BreakerOpen = "breaker_open", Error, "provider", Lasting::UntilOver,
        "the provider is away: calls are held back, and tried again and again";
    /// Nothing is heard of messages.
    ReceiptsMissing = "receipts_missing", Error, "webhooks", Lasting::UntilOver,
        "of too many messages no receipt came: replies may not come either";
    /// Due work is not taken up.
    WorkLate = "work_late", Critical, "worker", Lasting::UntilOver,
        "work that is due is not taken up";
    /// The worker makes no rounds.
    WorkerStuck = "worker_stuck", Critical, "worker", Lasting::UntilOver,
        "the worker makes no rounds: nothing that is due is done";
    /// The store does not answer.
    StoreFailing = "store_failing", Critical, "store", Lasting::UntilOver,
        "the store does not answer: nothing new is taken, and nothing is sent";
    /// A withheld case waits for a decision.
    WithheldWaits = "withheld_waits", Error, "ground", Lasting::UntilOver,
        "a case is withheld, and nobody has decided on it yet";
    /// A phone has opted out.
    ContactOptedOut = "contact_opted_out", Error, "contacts", Lasting::WhileSeen(HOUR),
        "a person on the ladder has opted out: the provider blocks what is sent to them";
    /// A data key does not open.
    SealedDataUnreadable = "sealed_data_unreadable", Error, "keyring", Lasting::WhileSeen(HOUR),
        "a stored key does not open: words were lost";
    /// Not a fault: somebody tries whether notices arrive.
    Test = "test", Warning, "test", Lasting::WhileSeen(HOUR),
        "TEST: this is no alarm, somebody tries whether notices arrive";
}

impl Kind {
    /// Whether it is about one case, and over with it.
    pub const fn is_of_a_case(self) -> bool {
        match self.lasting() {
            Lasting::UntilSettled(_) => true,
            Lasting::UntilOver | Lasting::WhileSeen(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_alarm_has_a_name_of_its_own_that_fits_a_metric_label() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for name in names {
            assert!(name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        }
    }
}
