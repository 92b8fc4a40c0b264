//! The watch: sees every commit, every call and every answer, knows the truth about the provider, and says what must not
//! be. It takes no decision of the service's; it only compares.

use std::collections::BTreeMap;
use std::sync::Arc;

use crisis_relay::domain::alert::{Alert, AlertState};
use crisis_relay::domain::audit::{AuditEntry, AuditStream, verify_next};
use crisis_relay::domain::consent::{ConsentRecord, Ground};
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::delivery::{Attempt, AttemptResult, Delivery, DeliveryState, FailureReason};
use crisis_relay::domain::ids::{AlertId, AttemptNo, AttemptRef, DeliveryNo, ProviderId};
use crisis_relay::domain::message::Purpose;
use crisis_relay::domain::provider::{MessageStatus, SendOutcome, UnknownCause};
use crisis_relay::ports::MessageRequest;
use crisis_relay::service::intake::EventAnswer;
use parking_lot::Mutex;
use serde_json::Value;

use crate::college::rules;
use crate::hub::{Hub, Process};
use crate::memory::Memory;
use crate::twilio::{CALL_TIMEOUT, named, of_an_alert};

/// What must hold, in words: a failure shows them, and the tests of planted bugs name them.
pub(crate) mod rule {
    pub(crate) const GROUND: &str = "nothing is called that has no recorded ground";
    pub(crate) const ONE_CALL: &str = "an attempt is called once";
    pub(crate) const LEASE: &str = "what is leased is nobody else's, for as long as the lease lasts";
    pub(crate) const SETTLED: &str = "no attempt after it was settled";
    pub(crate) const TRUTH: &str = "what is booked as accepted is at the provider";
    pub(crate) const MONOTONE: &str = "receipts only go forward";
    pub(crate) const BOUNDED: &str = "the phone gets one message a delivery, and one more for each that nobody knew of";
    pub(crate) const ASKED: &str = "what nobody knows of is asked for before it is sent again";
    pub(crate) const TAKEN: &str =
        "of a case that was taken nobody is asked any more, unless it is reopened or passed on";
    pub(crate) const WAKE_UP: &str = "an open alert has a wake-up";
    pub(crate) const GIVEN_UP: &str = "nothing is given up that is wanted and can be tried";
    pub(crate) const CHAIN: &str = "chains verify";
    pub(crate) const VERSION: &str = "the version counts the changes";
    pub(crate) const CONSENT: &str = "nothing is begun on consent that was taken back";
    pub(crate) const WITHDRAWN: &str = "once a withdrawal is confirmed, no open alert rests on it";
    pub(crate) const KEPT: &str = "what was answered is stored";
    pub(crate) const SAME_ANSWER: &str = "the same key gets the same answer";
    pub(crate) const TOLD: &str = "when faults have stopped, every case that waits is told";
    pub(crate) const AT_REST: &str = "when faults have stopped, nothing stays in hand";
    pub(crate) const ON_TIME: &str = "when faults have stopped, what is due is taken up";
    pub(crate) const ANSWERED: &str = "when faults have stopped, requests are answered";
    pub(crate) const COMES_TO_REST: &str = "a schedule comes to rest";
    pub(crate) const NO_PANIC: &str = "nothing panics";
    pub(crate) const NO_CONTRADICTION: &str = "the store is never asked to contradict itself";
}

type Key = (AlertId, DeliveryNo, AttemptNo);

/// How often an attempt is asked for whose maker died with it.
const LOST_LOOK_UPS: u32 = 2;

/// The truth about an attempt.
#[derive(Debug, Clone, Default)]
struct Truth {
    called: bool,
    message: Option<ProviderId>,
    /// Nobody knew what came of it, or it came to nothing: then a further message is in order.
    excused: bool,
    /// How often the clock had been set when it was claimed.
    jumps: usize,
    /// Whoever made it died with it.
    lost: bool,
    /// How many look-ups of it were begun, as the store has it.
    look_ups: u32,
}

#[derive(Default)]
struct State {
    attempts: BTreeMap<Key, Truth>,
    messages: BTreeMap<ProviderId, AlertId>,
    answers: BTreeMap<String, String>,
    accepted: Vec<EventAnswer>,
}

/// See the module's doc.
pub(crate) struct Watch {
    hub: Arc<Hub>,
    memory: Memory,
    state: Mutex<State>,
}

impl Watch {
    pub(crate) fn new(hub: &Arc<Hub>, memory: &Memory) -> Arc<Self> {
        Arc::new(Self { hub: Arc::clone(hub), memory: memory.clone(), state: Mutex::default() })
    }

    // -- calls -------------------------------------------------------------------------------------------------------

    /// A process calls the provider.
    pub(crate) fn called(&self, process: Process, request: &MessageRequest) {
        let attempt = &of_an_alert(request);
        let jumped = {
            let mut state = self.state.lock();
            let truth = state.attempts.entry(key(attempt)).or_default();
            self.hub.require(!truth.called, rule::ONE_CALL, || named(attempt));
            truth.called = true;
            truth.jumps != self.hub.jumps()
        };
        let alert = self.memory.alert(attempt.alert);
        let delivery = alert.as_ref().and_then(|alert| alert.delivery(attempt.delivery));
        let Some(delivery) = delivery.filter(|delivery| delivery.attempt(attempt.attempt).is_some()) else {
            return self.hub.violated(rule::GROUND, format_args!("{} is not stored", named(attempt)));
        };
        let recorded = ground_recorded(&self.memory.chain(&AuditStream::Alert(attempt.alert)), attempt);
        self.hub.require(recorded, rule::GROUND, || format!("{} is not in the audit", named(attempt)));
        if jumped {
            return;
        }
        let now = self.hub.wall();
        let holds = matches!(&delivery.state, DeliveryState::Sending { attempt: held, lease }
            if *held == attempt.attempt && lease.owner == process.to_string()
                && lease.until.duration_since(now) >= CALL_TIMEOUT.try_into().expect("short"));
        self.hub.require(holds, rule::LEASE, || {
            format!("{process} calls for {}, which is {:?} at {now}", named(attempt), delivery.state)
        });
    }

    /// The provider has made a message.
    pub(crate) fn made(&self, attempt: &AttemptRef, id: &ProviderId) {
        let mut state = self.state.lock();
        state.messages.insert(id.clone(), attempt.alert);
        state.attempts.entry(key(attempt)).or_default().message = Some(id.clone());
        let of_it = |key: &Key| (key.0, key.1) == (attempt.alert, attempt.delivery);
        let made = state.attempts.iter().filter(|(key, truth)| of_it(key) && truth.message.is_some());
        let made: Vec<bool> = made.map(|(_, truth)| truth.excused).collect();
        let unknown = made.iter().filter(|excused| **excused).count();
        if made.len() > 1 {
            self.hub.see("a further message");
        }
        self.hub.require(made.len() <= 1 + unknown, rule::BOUNDED, || {
            format!("{} messages for {}, of which {unknown} were in doubt", made.len(), named(attempt))
        });
    }

    /// A call was answered, and its caller lives.
    pub(crate) fn answered(&self, attempt: &AttemptRef, outcome: &SendOutcome) {
        if let SendOutcome::Unknown { .. } = outcome {
            self.state.lock().attempts.entry(key(attempt)).or_default().excused = true;
        }
    }

    // -- answers -----------------------------------------------------------------------------------------------------

    /// An event was answered.
    pub(crate) fn event_answered(&self, key: Option<&str>, json: &str) {
        if let Some(key) = key {
            let first = self.state.lock().answers.entry(key.to_owned()).or_insert_with(|| json.to_owned()).clone();
            self.hub.require(first == json, rule::SAME_ANSWER, || format!("{key}: {first} and then {json}"));
        }
        let Ok(answer) = serde_json::from_str::<EventAnswer>(json) else {
            return self.hub.violated(rule::KEPT, format_args!("unreadable: {json}"));
        };
        let Some(alert) = answer.alert_id else { return };
        let event = answer.event_id.to_string();
        let chain = self.memory.chain(&AuditStream::Alert(alert));
        let told = chain.iter().any(|entry| entry.canonical.contains(&event));
        self.hub.require(told && self.memory.alert(alert).is_some(), rule::KEPT, || json.to_owned());
        self.state.lock().accepted.push(answer);
    }

    /// A change was answered: its entries are stored.
    pub(crate) fn change_answered(&self, stream: &AuditStream, entries: &[AuditEntry]) {
        let chain = self.memory.chain(stream);
        let stored = |entry: &AuditEntry| chain.iter().any(|stored| stored.hash == entry.hash);
        self.hub.require(entries.iter().all(stored), rule::KEPT, || format!("{stream} lacks what was answered"));
    }

    /// A student was told that this is recorded: no open alert rests on what they have taken back.
    pub(crate) fn consent_answered(&self, said: &ConsentRecord) {
        let stored = self.memory.consent_of(&said.organisation, said.subject);
        let Some(stored) = stored.filter(|stored| stored.version >= said.version) else {
            return self.hub.violated(rule::KEPT, format_args!("version {} of a consent", said.version));
        };
        // If they have spoken again since, whoever takes that down sees to what rests on it.
        if stored.version > said.version {
            return;
        }
        for (alert, _) in self.memory.alerts() {
            let Some(Ground::Consent { channels, .. }) = &alert.ground else { continue };
            let rests = alert.subject == said.subject && alert.is_open();
            let granted = |channel: &Channel| stored.granted().any(|(granted, _)| granted == *channel);
            self.hub.require(!rests || channels.iter().all(granted), rule::WITHDRAWN, || {
                format!("{} rests on {:?}", &alert.id.to_string()[30..], alert.ground)
            });
        }
    }

    /// What was answered is stored still.
    pub(crate) fn everything_is_kept(&self) {
        for answer in &self.state.lock().accepted {
            let kept = answer.alert_id.is_some_and(|id| self.memory.alert(id).is_some());
            self.hub.require(kept, rule::KEPT, || format!("{answer:?}"));
        }
    }

    // -- commits -----------------------------------------------------------------------------------------------------

    /// An alert was changed in the store.
    pub(crate) fn committed(&self, process: Process, before: Option<&Alert>, after: &Alert, audit: &[AuditEntry]) {
        let version = before.map_or(0, |before| before.version);
        self.hub.require(after.version == version + 1, rule::VERSION, || format!("{version} → {}", after.version));
        self.chain(before, after, audit);
        let waits = matches!(after.state, AlertState::Escalating { .. } | AlertState::Acknowledged { .. });
        self.hub.require(!waits || after.next_action_at().is_some(), rule::WAKE_UP, || format!("{:?}", after.state));
        for delivery in &after.deliveries {
            let was = before.and_then(|before| before.delivery(delivery.no));
            self.attempts(process, was, delivery, after);
            self.lease(process, was, delivery, after);
            self.end(was, delivery, after);
        }
        self.hub.see(format!("alert {}", after.state.name().as_str()));
    }

    fn chain(&self, before: Option<&Alert>, after: &Alert, audit: &[AuditEntry]) {
        let mut head = before.map_or(crisis_relay::domain::audit::AuditHead::EMPTY, |before| before.audit_head);
        for entry in audit {
            match verify_next(head, entry) {
                Ok(next) => head = next,
                Err(fault) => return self.hub.violated(rule::CHAIN, fault),
            }
        }
        self.hub.require(head == after.audit_head, rule::CHAIN, || "the alert remembers another head".to_owned());
    }

    fn attempts(&self, process: Process, was: Option<&Delivery>, is: &Delivery, alert: &Alert) {
        for attempt in &is.attempts {
            let known = was.and_then(|was| was.attempt(attempt.no));
            match known {
                Some(known) => self.goes_forward(known, attempt, is, alert),
                None => self.begun(process, was, is, attempt, alert),
            }
            let mut state = self.state.lock();
            let truth = state.attempts.entry((alert.id, is.no, attempt.no)).or_default();
            let died = attempt.result == AttemptResult::Unknown(UnknownCause::OwnerDied);
            let expired = died || attempt.result == AttemptResult::Unknown(UnknownCause::LeaseExpired);
            truth.lost |= died;
            truth.excused |= expired || attempt.status.is_some_and(MessageStatus::is_failure);
            if known.is_none() {
                truth.jumps = self.hub.jumps();
            }
            if let DeliveryState::Unknown { attempt: unknown, look_ups, .. } = is.state
                && unknown == attempt.no
            {
                truth.look_ups = look_ups;
            }
            if expired && known.is_some_and(|known| known.result != attempt.result) {
                self.hub.see("a lease ran out");
            }
        }
    }

    fn goes_forward(&self, was: &Attempt, is: &Attempt, delivery: &Delivery, alert: &Alert) {
        let of = || format!("{}: {was:?} → {is:?}", self.name(alert, delivery, is));
        let rank = |attempt: &Attempt| attempt.status.map(MessageStatus::rank);
        self.hub.require(rank(was) <= rank(is), rule::MONOTONE, of);
        self.hub.require(was.provider_id.is_none() || was.provider_id == is.provider_id, rule::MONOTONE, || {
            format!("another message: {}", of())
        });
        let Some(id) = &is.provider_id else { return };
        let there = self.state.lock().messages.get(id) == Some(&alert.id);
        self.hub.require(there, rule::TRUTH, of);
        if is.status != was.status {
            self.hub.see(format!("status {}", is.status.map_or("none", MessageStatus::word)));
        }
    }

    /// A new attempt: somebody will call.
    fn begun(&self, process: Process, was: Option<&Delivery>, is: &Delivery, new: &Attempt, alert: &Alert) {
        let name = self.name(alert, is, new);
        self.hub.require(alert.wants(is), rule::SETTLED, || format!("{name} although it is {:?}", alert.state));
        let open = match was.map(|was| &was.state) {
            None | Some(DeliveryState::Due { .. } | DeliveryState::Unknown { .. }) => true,
            Some(
                DeliveryState::Sending { .. }
                | DeliveryState::Accepted { .. }
                | DeliveryState::Failed { .. }
                | DeliveryState::Cancelled { .. },
            ) => false,
        };
        let arrived = is.attempts.iter().filter_map(|attempt| attempt.status).any(MessageStatus::has_arrived);
        self.hub
            .require(open && !arrived, rule::SETTLED, || format!("{name}, which was {:?}", was.map(|was| &was.state)));
        let allowed = alert.ground.as_ref().is_some_and(|ground| ground.allows(is.channel));
        self.hub.require(allowed, rule::GROUND, || format!("{name} on {:?}", alert.ground));
        let chain = self.memory.chain(&AuditStream::Alert(alert.id));
        let does =
            |deed: &str| chain.iter().rposition(|entry| entry.canonical.contains(&format!(r#""deed":"{deed}""#)));
        let again = does("reopened").max(does("passed_on"));
        let asks = is.purpose == Purpose::CounsellorAlert;
        self.hub.require(!asks || does("acknowledged") <= again, rule::TAKEN, || name.clone());
        self.consents(alert, is, &name);
        self.asked(alert, is, new, &name);
        let held = matches!(&is.state, DeliveryState::Sending { attempt, lease }
            if *attempt == new.no && lease.owner == process.to_string() && lease.until > alert.updated_at);
        let accepted = matches!(is.state, DeliveryState::Accepted { .. });
        self.hub.require(!accepted, rule::TRUTH, || format!("{name} is accepted, and nobody has called"));
        self.hub.require(held || accepted, rule::LEASE, || format!("{name}: {:?}", is.state));
    }

    /// Of the attempt before, if it ended in doubt, the provider was asked as often as the rules want.
    fn asked(&self, alert: &Alert, delivery: &Delivery, new: &Attempt, name: &str) {
        let Some(last) = delivery.attempts.iter().rev().find(|attempt| attempt.no < new.no) else { return };
        let in_doubt = match last.result {
            AttemptResult::Unknown(_) | AttemptResult::NotFound | AttemptResult::Unresolved => true,
            AttemptResult::Pending
            | AttemptResult::Accepted
            | AttemptResult::NotExecuted
            | AttemptResult::NotBegun
            | AttemptResult::Refused => false,
        };
        let (asked, lost) = self
            .state
            .lock()
            .attempts
            .get(&(alert.id, delivery.no, last.no))
            .map_or((0, false), |truth| (truth.look_ups, truth.lost));
        let enough = asked >= if lost { LOST_LOOK_UPS } else { rules().delivery.look_ups_max };
        self.hub.require(!in_doubt || enough, rule::ASKED, || format!("{name}: asked {asked} times"));
    }

    /// What the student has said by now, confirmed to them or not, allows the message.
    fn consents(&self, alert: &Alert, delivery: &Delivery, name: &str) {
        let Some(Ground::Consent { .. }) = &alert.ground else { return };
        let Some(record) = self.memory.consent_of(&alert.organisation, alert.subject) else {
            return self.hub.violated(rule::CONSENT, format_args!("{name}: none was ever given"));
        };
        let granted = record.granted().any(|(channel, _)| channel == delivery.channel);
        self.hub.require(granted, rule::CONSENT, || format!("{name}: taken back with version {}", record.version));
    }

    /// A lease ends by its time, or by its owner's death where the store is one process's own.
    fn lease(&self, process: Process, was: Option<&Delivery>, is: &Delivery, alert: &Alert) {
        let Some(DeliveryState::Sending { attempt, lease }) = was.map(|was| &was.state) else { return };
        let result = is.attempt(*attempt).map(|attempt| attempt.result);
        if !matches!(result, Some(AttemptResult::Unknown(UnknownCause::LeaseExpired | UnknownCause::OwnerDied))) {
            return;
        }
        // By the time that the decision went by: the clock may have been set since.
        let over = lease.until <= alert.updated_at;
        let died = (0..process.0).map(Process).find(|other| other.to_string() == lease.owner);
        let died = died.is_some_and(|owner| self.hub.is_dead(owner));
        self.hub.require(over || died, rule::LEASE, || {
            format!(
                "{process} takes {}/{} from {} before {}",
                &alert.id.to_string()[30..],
                is.no,
                lease.owner,
                lease.until
            )
        });
    }

    /// A delivery ends for a reason.
    fn end(&self, was: Option<&Delivery>, is: &Delivery, alert: &Alert) {
        if was.is_some_and(|was| was.state == is.state) {
            return;
        }
        self.hub.see(format!("delivery {}", is.state.name()));
        let now = alert.updated_at;
        let allowed = alert.ground.as_ref().is_some_and(|ground| ground.allows(is.channel));
        // What was planned over a further channel, and never tried, is spared once the first has arrived.
        let spares = |other: &Delivery| {
            (&other.contact, other.stage) == (&is.contact, is.stage) && other.no < is.no && other.has_arrived()
        };
        let called = |attempt: &Attempt| attempt.result != AttemptResult::NotBegun;
        let spared = !is.attempts.iter().any(called) && alert.deliveries.iter().any(spares);
        let reasonable = match &is.state {
            DeliveryState::Cancelled { .. } => {
                // What tells people that a case is taken is not wanted any more once it is open again.
                let notice = !is.purpose.is_alert();
                !matches!(alert.state, AlertState::Escalating { .. }) || !allowed || spared || notice
            }
            DeliveryState::Failed { reason: FailureReason::Exhausted, .. } => {
                let rules = rules().delivery;
                let used = is.attempts.iter().filter(|attempt| attempt.result != AttemptResult::NotBegun).count();
                let late = is.planned_at.saturating_add(rules.give_up_after).is_ok_and(|until| now > until);
                used >= rules.attempts_max as usize || late
            }
            DeliveryState::Failed { reason: FailureReason::NotComposable, .. } => false,
            DeliveryState::Failed { reason: FailureReason::NotReached, .. } => is.channel == Channel::Voice,
            DeliveryState::Failed { reason: FailureReason::Refused, .. }
            | DeliveryState::Due { .. }
            | DeliveryState::Sending { .. }
            | DeliveryState::Unknown { .. }
            | DeliveryState::Accepted { .. } => true,
        };
        self.hub.require(reasonable, rule::GIVEN_UP, || format!("{}: {:?}", is.no, is.state));
    }

    fn name(&self, alert: &Alert, delivery: &Delivery, attempt: &Attempt) -> String {
        named(&alert.attempt_ref(delivery.no, attempt.no))
    }
}

fn key(attempt: &AttemptRef) -> Key {
    (attempt.alert, attempt.delivery, attempt.attempt)
}

/// Whether an attempt stands in the audit, and a ground before it.
fn ground_recorded(chain: &[AuditEntry], attempt: &AttemptRef) -> bool {
    let begins = |entry: &AuditEntry| {
        let said = entry.canonical.contains("attempt_begun").then(|| serde_json::from_str(&entry.canonical).ok());
        let said: Value = said.flatten().unwrap_or_default();
        said["delivery"] == attempt.delivery.0 && said["attempt"] == attempt.attempt.0
    };
    let Some(place) = chain.iter().position(begins) else { return false };
    chain[..place].iter().any(|entry| entry.canonical.contains(r#""deed":"ground_recorded""#))
}
