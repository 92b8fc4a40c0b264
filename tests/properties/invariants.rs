//! What holds after every change, whatever it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crisis_relay::domain::alert::{
    AckVia, Action, Alarm, Alert, AlertState, Asked, Decision, Input, Kind, Outcome, Rejection, Transition,
    WithheldReason,
};
use crisis_relay::domain::audit::{AuditEntry, AuditHead, verify_next};
use crisis_relay::domain::contact::{Channel, Directory};
use crisis_relay::domain::delivery::{Attempt, AttemptResult, Delivery, DeliveryState, Lease};
use crisis_relay::domain::event::Score;
use crisis_relay::domain::ids::{AttemptNo, DeliveryNo};
use crisis_relay::domain::message::{Composed, Purpose};
use crisis_relay::domain::policy::{Policy, Stage};
use crisis_relay::domain::provider::MessageStatus;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::driver::Begun;
use crate::world::{CANARY, World, contact_id, landing, named, patience, with_last};

type Checked = Result<(), TestCaseError>;

/// How many deliveries an alert keeps besides those that are pending.
const DELIVERIES_KEPT: usize = 32;

/// One change: what was, what happened, what it came to.
pub(crate) struct Seen<'a> {
    /// `None` for a new alert.
    pub(crate) before: Option<&'a Alert>,
    pub(crate) input: Option<&'a Input>,
    pub(crate) transition: &'a Transition,
    pub(crate) now: Timestamp,
    pub(crate) lease: Option<&'a Lease>,
    pub(crate) world: &'a World,
}

impl Seen<'_> {
    fn after(&self) -> &Alert {
        &self.transition.alert
    }

    fn recorded(&self, deed: &str) -> bool {
        let deed = format!(r#""deed":"{deed}""#);
        self.transition.audit.iter().any(|entry| entry.canonical.contains(&deed))
    }

    fn changes_policy(&self) -> bool {
        self.before.is_some_and(|before| before.policy.id != self.after().policy.id)
    }

    fn landing(&self, stage: Stage) -> Stage {
        landing(stage, &self.after().policy, &self.world.directory, self.now)
    }

    fn delivery_before(&self, no: DeliveryNo) -> Option<&Delivery> {
        self.before.and_then(|before| before.delivery(no))
    }
}

/// Holds one change to everything that must be so. `chain` is the audit before it; `begun` takes up new attempts.
pub(crate) fn check(
    seen: &Seen<'_>,
    chain: &[AuditEntry],
    begun: &mut BTreeMap<(DeliveryNo, AttemptNo), Begun>,
) -> Checked {
    version(seen)?;
    audit(seen)?;
    state(seen)?;
    ladder(seen)?;
    nobody_on_call(seen)?;
    policy(seen)?;
    decision(seen)?;
    times(seen)?;
    deliveries(seen)?;
    notices(seen)?;
    attempts(seen, chain, begun)?;
    hand_over(seen)?;
    spared(seen, chain)?;
    passed_on(seen)?;
    stored_form(seen.after())
}

/// Whether the alert must refuse an input, and why.
pub(crate) fn rejection(alert: &Alert, input: &Input, people: &Directory, now: Timestamp) -> Option<Rejection> {
    let resolved = matches!(alert.state, AlertState::Resolved { .. }).then_some(Rejection::AlreadyResolved);
    match input {
        Input::Joined { .. } => resolved,
        Input::Wake { .. } | Input::ConsentJudged { .. } => None,
        Input::Overridden { .. } => match alert.state {
            AlertState::Withheld { .. } => None,
            AlertState::Escalating { .. } | AlertState::Acknowledged { .. } => Some(Rejection::NotWithheld),
            AlertState::Resolved { .. } => resolved,
        },
        Input::Settled { delivery, attempt, .. }
        | Input::Received { delivery, attempt, .. }
        | Input::Found { delivery, attempt, .. }
        | Input::NotFound { delivery, attempt, .. } => {
            let known = alert.delivery(*delivery).is_some_and(|delivery| delivery.attempt(*attempt).is_some());
            (!known).then_some(Rejection::NoSuchDelivery)
        }
        Input::Acknowledge { .. } => match alert.state {
            AlertState::Escalating { .. } => None,
            AlertState::Withheld { .. } => Some(Rejection::IsWithheld),
            AlertState::Acknowledged { .. } => Some(Rejection::AlreadyAcknowledged),
            AlertState::Resolved { .. } => resolved,
        },
        Input::PassOn => match alert.state {
            AlertState::Withheld { .. } => Some(Rejection::IsWithheld),
            AlertState::Acknowledged { via: AckVia::Api, .. } => Some(Rejection::AlreadyAcknowledged),
            AlertState::Acknowledged { via: AckVia::Reply | AckVia::Keypress, .. } => {
                let told = alert.deliveries.iter().rfind(|delivery| is_alert(delivery));
                nobody_else(alert, told.map_or(Stage::FIRST, |delivery| delivery.stage), people, now)
            }
            AlertState::Resolved { .. } => resolved,
            AlertState::Escalating { stage, .. } => {
                if waits_for_others(alert) {
                    None
                } else {
                    nobody_else(alert, stage, people, now)
                }
            }
        },
        Input::CheckIn => match alert.state {
            AlertState::Acknowledged { .. } => None,
            AlertState::Withheld { .. } | AlertState::Escalating { .. } => Some(Rejection::NotAcknowledged),
            AlertState::Resolved { .. } => resolved,
        },
        // Nobody's emergency contacts are read here: see `emergency`.
        Input::Inform { .. } => resolved.or(Some(match alert.kind {
            Kind::Drill => Rejection::DrillStaysInside,
            Kind::Live => Rejection::NoSuchEmergencyContact,
        })),
        Input::Replied { .. } => (alert.replies >= 100).then_some(Rejection::RepliesFull),
        Input::Resolve { outcome, .. } => {
            let fits = matches!(outcome, Outcome::Drill) == matches!(alert.kind, Kind::Drill);
            resolved.or_else(|| (!fits).then_some(Rejection::WrongOutcome))
        }
    }
}

/// Whether it moves nothing that the one person who hands cases on does so: they are not told on the stage, or have passed
/// it on before, or somebody else who is told on it may still answer.
fn waits_for_others(alert: &Alert) -> bool {
    let AlertState::Escalating { stage, ref asked, .. } = alert.state else { return false };
    let own = asked.iter().find(|asked| asked.contact == contact_id(0));
    let answers = |other: &Asked| {
        alert.deliveries.iter().any(|delivery| {
            let ended = matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
            is_alert(delivery) && delivery.contact == other.contact && delivery.stage == stage && !ended
        })
    };
    let others = asked.iter().filter(|other| other.contact != contact_id(0) && !other.passed);
    !asked.is_empty() && (own.is_none_or(|own| own.passed) || others.into_iter().any(answers))
}

/// Whether the ladder names somebody besides the one person who hands cases on.
fn nobody_else(alert: &Alert, from: Stage, people: &Directory, now: Timestamp) -> Option<Rejection> {
    let (mut stage, mut found) = (from, false);
    for _ in 0..=alert.policy.steps.len() * alert.policy.rounds as usize {
        stage = stage.next(&alert.policy);
        let mut named = named(stage, &alert.policy, people, now);
        let vacant: &[u32] = if let AlertState::Escalating { vacant, .. } = &alert.state { vacant } else { &[] };
        let rungs = with_last(stage, &alert.policy, vacant).into_iter();
        named.extend(rungs.flat_map(|rung| crate::world::named(rung, &alert.policy, people, now)));
        found |= named.iter().any(|id| *id != contact_id(0) && people.contact(id).is_some());
    }
    (!found).then_some(Rejection::NobodyElse)
}

fn is_alert(delivery: &Delivery) -> bool {
    delivery.purpose == Purpose::CounsellorAlert
}

/// The version counts the changes, and nothing else.
fn version(seen: &Seen<'_>) -> Checked {
    let (after, transition) = (seen.after(), seen.transition);
    prop_assert_eq!(transition.from_version, seen.before.map(|before| before.version));
    let Some(before) = seen.before else {
        prop_assert_eq!(after.version, 1);
        return Ok(());
    };
    let told = Alert { version: before.version, updated_at: before.updated_at, ..after.clone() };
    let changed = told != *before;
    prop_assert_eq!(after.version, before.version + u64::from(changed), "changed: {}", changed);
    prop_assert_eq!(transition.is_empty(), !changed);
    if changed {
        prop_assert_eq!(after.updated_at, seen.now);
    } else {
        prop_assert_eq!(after, before);
        prop_assert!(transition.audit.is_empty() && transition.actions.is_empty(), "to commit, without a change");
        prop_assert!(transition.alarms.is_empty() && transition.provider_ids.is_empty());
    }
    Ok(())
}

/// The new entries continue the chain, and end where the alert says. None says a thing twice.
fn audit(seen: &Seen<'_>) -> Checked {
    let mut head = seen.before.map_or(AuditHead::EMPTY, |before| before.audit_head);
    for entry in &seen.transition.audit {
        let next = verify_next(head, entry);
        prop_assert!(next.is_ok(), "{:?}: {}", next, entry.canonical);
        head = next.unwrap();
        let Fields(fields) = serde_json::from_str(&entry.canonical).unwrap();
        let names: BTreeSet<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(names.len(), fields.len(), "a key is there twice: {}", entry.canonical);
        prop_assert!(!entry.canonical.contains(&format!("address-{CANARY}")), "a number: {}", entry.canonical);
    }
    prop_assert_eq!(head, seen.after().audit_head);
    Ok(())
}

fn state(seen: &Seen<'_>) -> Checked {
    let alert = seen.after();
    let is_due = |delivery: &&Delivery| matches!(delivery.state, DeliveryState::Due { .. });
    let due = alert.deliveries.iter().filter(is_due).any(is_alert);
    // What is said beside the ladder is said as long as it is true.
    let notices = alert.deliveries.iter().filter(is_due).map(|delivery| delivery.purpose);
    for notice in notices.filter(|purpose| *purpose != Purpose::CounsellorAlert) {
        let is_true = match alert.state {
            AlertState::Withheld { .. } | AlertState::Escalating { .. } => false,
            AlertState::Acknowledged { .. } => notice != Purpose::FollowUpReminder,
            AlertState::Resolved { .. } => notice != Purpose::OutcomeReminder,
        };
        prop_assert!(is_true, "{:?} is to be sent, and the case is {:?}", notice, alert.state);
    }
    match alert.state {
        AlertState::Withheld { why: WithheldReason::NoConsent, .. } => {
            prop_assert!(alert.deliveries.is_empty(), "a delivery, and no permission");
            prop_assert!(alert.ground.is_none() && alert.paged_severity.is_none());
            prop_assert_eq!(alert.next_action_at(), None);
        }
        AlertState::Withheld { why: WithheldReason::ConsentWithdrawn, .. } => {
            prop_assert!(alert.ground.is_none(), "withheld, and yet there is a ground");
            prop_assert!(!due, "a message is planned although consent was withdrawn");
        }
        AlertState::Escalating { .. } => {
            prop_assert!(alert.ground.is_some() && alert.next_action_at().is_some());
        }
        AlertState::Acknowledged { .. } => {
            prop_assert!(alert.next_action_at().is_some());
            prop_assert!(!due, "a message is planned although somebody has taken the case");
        }
        AlertState::Resolved { .. } => prop_assert!(!due, "a message is planned although the case is closed"),
    }
    prop_assert!(alert.paged_severity <= Some(alert.severity));
    if let Some(before) = seen.before {
        prop_assert!(before.severity <= alert.severity && before.paged_severity <= alert.paged_severity);
        prop_assert!(before.is_open() || !alert.is_open(), "a closed case was opened again");
        prop_assert_eq!((alert.id, alert.reference, alert.kind), (before.id, before.reference, before.kind));
        prop_assert_eq!(alert.opened_at, before.opened_at);
        let narrowed = before.ground.as_ref().is_some_and(|ground| ground.kind() == "emergency_override");
        prop_assert!(!narrowed || alert.ground == before.ground, "an override was replaced");
    }
    Ok(())
}

/// Where a stage has begun, a further one of its round begins at once only if everything of the one before has failed.
fn goes_on(seen: &Seen<'_>, from: Stage, to: Stage) -> Checked {
    let (alert, mut stage) = (seen.after(), from);
    while stage != to {
        let theirs = |delivery: &&Delivery| is_alert(delivery) && delivery.stage == stage;
        let newest = |delivery: &&Delivery| {
            let same = |later: &Delivery| (&later.contact, later.channel) == (&delivery.contact, delivery.channel);
            !alert.deliveries.iter().filter(theirs).any(|later| later.no > delivery.no && same(later))
        };
        // Whoever passes cases on may have done so.
        let may_answer = alert.deliveries.iter().filter(theirs).filter(newest).find(|delivery| {
            let ended = matches!(delivery.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
            !ended && delivery.contact != contact_id(0)
        });
        prop_assert!(may_answer.is_none(), "{:?} was left while {:?} was to be hoped for", stage, may_answer);
        let next = seen.landing(stage.next(&alert.policy));
        prop_assert!(next.is_in_round_of(&stage), "{:?} follows {:?} without a pause", next, stage);
        stage = next;
    }
    Ok(())
}

/// The ladder is climbed by time, rung by rung, or where nothing of a rung is to be hoped for; and nothing puts the next one off.
fn ladder(seen: &Seen<'_>) -> Checked {
    let before = seen.before.map(|before| &before.state);
    let AlertState::Escalating { stage, next_step_at, .. } = seen.after().state else { return Ok(()) };
    let woken = matches!(seen.input, Some(Input::Wake { .. }));
    match before {
        // Handed on by whoever had taken it.
        Some(AlertState::Acknowledged { .. }) if matches!(seen.input, Some(Input::PassOn)) => {}
        // The same place on another ladder, whose rungs before it were in vain, is another one: see below.
        Some(AlertState::Escalating { stage: was, next_step_at: due, .. })
            if *was == stage && !seen.changes_policy() =>
        {
            prop_assert!(next_step_at <= *due, "the next step was put off, from {} to {}", due, next_step_at);
        }
        // Handed on: further up, or round again.
        Some(AlertState::Escalating { .. }) if matches!(seen.input, Some(Input::PassOn)) => {}
        // Told again: whoever was on call may have gone since, or it goes on by the ladder of a graver band.
        Some(AlertState::Escalating { stage: was, .. }) if matches!(seen.input, Some(Input::Joined { .. })) => {
            let again = if seen.changes_policy() { Stage::FIRST } else { *was };
            // Or it narrows the ground, and nothing of the rung is left.
            goes_on(seen, if seen.transition.paged { seen.landing(again) } else { *was }, stage)?;
        }
        Some(AlertState::Escalating { stage: was, next_step_at: due, .. }) => {
            let in_time = woken && *due <= seen.now;
            goes_on(seen, if in_time { seen.landing(was.next(&seen.after().policy)) } else { *was }, stage)?;
        }
        None | Some(AlertState::Withheld { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. }) => {
            goes_on(seen, seen.landing(Stage::FIRST), stage)?;
        }
    }
    Ok(())
}

/// A stage for whoever is on call never waits where nobody is, and the operator hears of it.
fn nobody_on_call(seen: &Seen<'_>) -> Checked {
    let alarms = seen.transition.alarms.iter().filter(|alarm| **alarm == Alarm::NobodyOnCall).count();
    prop_assert_eq!(alarms, usize::from(seen.recorded("nobody_on_call")), "{:?}", seen.transition.alarms);
    if let AlertState::Escalating { stage: stage @ Stage::Step { .. }, .. } = seen.after().state
        && seen.recorded("stage_begun")
    {
        prop_assert_eq!(seen.landing(stage), stage, "it waits for nobody");
    }
    Ok(())
}

/// An alert keeps its ladder, unless it rises into a band that has another.
fn policy(seen: &Seen<'_>) -> Checked {
    let Some(before) = seen.before else { return Ok(()) };
    let is_critical = |alert: &Alert| alert.severity.value() >= 0.95;
    let rises = !is_critical(before) && is_critical(seen.after());
    let own = seen.world.critical.as_ref().filter(|critical| rises && critical.id != before.policy.id);
    let expected: &Policy = own.map_or(&before.policy, |critical| critical);
    prop_assert_eq!(&*seen.after().policy, expected);
    prop_assert!(!seen.changes_policy() || seen.recorded("policy_changed"), "not in the audit");
    Ok(())
}

/// What an event comes to, and whether people are told again.
fn decision(seen: &Seen<'_>) -> Checked {
    let (Some(before), Some(Input::Joined { trigger, ground })) = (seen.before, seen.input) else {
        let paged = seen.transition.paged;
        prop_assert!(!paged, "told again, and there was no event");
        return Ok(());
    };
    let risen = |told: Score| trigger.severity().value() - told.value() + 1e-9 >= seen.world.rules.repage_rise;
    let graver = seen.changes_policy() || trigger.score.is_none() || before.paged_severity.is_none_or(risen);
    // An event comes with what consent allows now: if that is nothing any more, a ground of consent ends with it.
    let override_stands = before.ground.as_ref().is_some_and(|ground| ground.kind() == "emergency_override");
    let permitted = override_stands || ground.is_some();
    let (decision, paged) = match before.state {
        AlertState::Withheld { .. } | AlertState::Escalating { .. } if !permitted => {
            (Decision::WithheldNoConsent, false)
        }
        AlertState::Withheld { .. } => (Decision::Escalated, true),
        AlertState::Escalating { .. } | AlertState::Acknowledged { .. } | AlertState::Resolved { .. } => {
            (Decision::Merged, permitted && graver)
        }
    };
    prop_assert_eq!((seen.transition.decision, seen.transition.paged), (Some(decision), paged));
    prop_assert_eq!(seen.after().events, before.events + 1);
    Ok(())
}

/// Nothing that is due is left lying, and nothing waits for longer than the rules say, whatever the clock does.
fn times(seen: &Seen<'_>) -> Checked {
    let (alert, now) = (seen.after(), seen.now);
    let Some(Input::Wake { sole_owner_restarted }) = seen.input else { return Ok(()) };
    if let (
        Some(patience),
        AlertState::Escalating { next_step_at: at, .. } | AlertState::Acknowledged { action_due_at: at, .. },
    ) = (patience(&alert.state, &alert.policy), &alert.state)
    {
        prop_assert!(*at <= now + patience, "{:?} is further than {:?} from {}", alert.state, patience, now);
    }
    let Some(lease) = seen.lease else { return Ok(()) };
    prop_assert!(alert.next_action_at().is_none_or(|at| at > now), "due, and not done: {:#?}", alert);
    let rules = &seen.world.rules.delivery;
    let pause = rules.backoff_max.max(rules.retry_after_max).max(rules.give_up_after);
    let question = rules.look_up_first.max(rules.look_up_then).max(rules.retry_after_max).max(seen.world.lease);
    for delivery in &alert.deliveries {
        let next_channel = now + alert.policy.fall_over_after;
        prop_assert!(
            delivery.fall_over_at.is_none_or(|at| at <= next_channel),
            "the next channel is too far from {}",
            now
        );
        let longest = match &delivery.state {
            DeliveryState::Due { .. } => pause,
            DeliveryState::Sending { lease: held, .. } => {
                prop_assert!(!sole_owner_restarted || held.owner == lease.owner, "a lease of an earlier start");
                seen.world.lease * 2
            }
            DeliveryState::Unknown { .. } => question,
            DeliveryState::Accepted { .. } => rules.receipt_poll_max,
            DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. } => continue,
        };
        let at = delivery.state_due_at();
        prop_assert!(at.is_none_or(|at| at <= now + longest), "{:?} is too far from {}", delivery.state, now);
    }
    Ok(())
}

fn deliveries(seen: &Seen<'_>) -> Checked {
    let alert = seen.after();
    // By the newest to their phone people take the case, and emergency contacts are known: these stay, as does what is
    // under way.
    let phone = |delivery: &Delivery| (delivery.address_key, delivery.channel, delivery.purpose);
    let asking: BTreeMap<_, _> = alert
        .deliveries
        .iter()
        .filter(|delivery| !delivery.purpose.is_notice())
        .map(|delivery| (phone(delivery), delivery.no))
        .collect();
    let needed = |delivery: &&Delivery| delivery.is_pending() || asking.values().any(|no| *no == delivery.no);
    let needed = alert.deliveries.iter().filter(needed).count();
    prop_assert!(
        alert.deliveries.len() <= DELIVERIES_KEPT.max(needed),
        "{} deliveries, of which {} are needed",
        alert.deliveries.len(),
        needed
    );
    prop_assert!(alert.deliveries.windows(2).all(|pair| pair[0].no < pair[1].no));
    prop_assert!(alert.deliveries.iter().all(|delivery| delivery.no.0 <= alert.deliveries_planned));
    let mut due = BTreeSet::new();
    for delivery in &alert.deliveries {
        // One that was tried before may wait beside one with graver news.
        if matches!(delivery.state, DeliveryState::Due { .. }) && delivery.attempts.is_empty() {
            let fresh = due.insert((delivery.address_key, delivery.channel, delivery.purpose));
            prop_assert!(fresh, "two new messages wait for the same phone: {:#?}", alert.deliveries);
        }
    }
    let Some(before) = seen.before else { return Ok(()) };
    prop_assert!(before.deliveries_planned <= alert.deliveries_planned);
    for delivery in before.deliveries.iter().filter(|delivery| delivery.is_pending()) {
        // One that comes to its end makes room in the same change.
        let ended = seen.transition.settled.iter().any(|(no, _)| *no == delivery.no);
        prop_assert!(alert.delivery(delivery.no).is_some() || ended, "a pending delivery was dropped: {:?}", delivery);
    }
    for delivery in &alert.deliveries {
        let Some(earlier) = before.delivery(delivery.no) else {
            prop_assert!(delivery.no.0 > before.deliveries_planned, "a delivery came out of nowhere");
            continue;
        };
        if let (DeliveryState::Accepted { status: was, .. }, DeliveryState::Accepted { status: is, .. }) =
            (&earlier.state, &delivery.state)
        {
            prop_assert!(was.rank() <= is.rank(), "{:?} after {:?}", is, was);
        }
        let ended = matches!(earlier.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
        prop_assert!(!ended || !delivery.is_pending(), "begun again after {:?}", earlier.state);
    }
    Ok(())
}

/// A notice goes in writing, over each channel of its recipient once, and over a further one only where it came to nothing.
fn notices(seen: &Seen<'_>) -> Checked {
    let alert = seen.after();
    let is_new = |delivery: &&Delivery| seen.before.is_none_or(|before| delivery.no.0 > before.deliveries_planned);
    for notice in alert.deliveries.iter().filter(is_new).filter(|delivery| delivery.purpose.is_notice()) {
        prop_assert!(notice.channel != Channel::Voice, "said by a call");
        let tried: BTreeSet<Channel> = notice.in_turn.iter().copied().chain([notice.channel]).collect();
        prop_assert_eq!(tried.len(), notice.in_turn.len() + 1, "over the same channel again: {:?}", notice);
        let known = seen.world.directory.contact(&notice.contact);
        let has_text = known.is_some_and(|known| known.methods.iter().any(|method| method.channel == Channel::Sms));
        // What the ladder does not use may have no sender; a stand-in was told over all that they have.
        let was_texted =
            |told: &Delivery| is_alert(told) && told.channel == Channel::Sms && told.contact == notice.contact;
        let is_used = alert.policy.channels_that_reach(&seen.world.directory).contains(&Channel::Sms)
            || alert.deliveries.iter().any(was_texted);
        let may_text = is_used && alert.ground.as_ref().is_some_and(|ground| ground.allows(Channel::Sms));
        // Nobody is told that a case is taken on a phone of whoever has it.
        let is_preferred = notice.purpose != Purpose::TakenNotice && !tried.contains(&Channel::Sms);
        prop_assert!(
            notice.channel != Channel::Whatsapp || seen.world.approved || !(has_text && may_text && is_preferred),
            "over WhatsApp, which takes it for a while only: {:?}",
            notice
        );
        let Some(before) = notice.follows else { continue };
        prop_assert!(seen.recorded("delivery") && !notice.in_turn.is_empty());
        // Both may have been dropped since in the same change.
        let Some(before) = alert.delivery(before) else { continue };
        prop_assert_eq!((before.purpose, &before.contact), (notice.purpose, &notice.contact));
        prop_assert_eq!(notice.in_turn.last(), Some(&before.channel));
        let ended = matches!(before.state, DeliveryState::Failed { .. } | DeliveryState::Cancelled { .. });
        prop_assert!(ended, "said over another channel although it may arrive: {:?}", before);
    }
    Ok(())
}

fn attempts(seen: &Seen<'_>, chain: &[AuditEntry], begun: &mut BTreeMap<(DeliveryNo, AttemptNo), Begun>) -> Checked {
    let mut recorded = recorded_begun(&seen.transition.audit);
    let rules = &seen.world.rules.delivery;
    for delivery in &seen.after().deliveries {
        let known = seen.delivery_before(delivery.no).map_or(&[][..], |before| &before.attempts[..]);
        let called = |attempt: &&Attempt| attempt.result != AttemptResult::NotBegun;
        let calls = delivery.attempts.iter().filter(called).count();
        prop_assert!(calls <= rules.attempts_max as usize, "{} calls", calls);
        prop_assert!(delivery.attempts.len() <= calls + 1, "attempts that came to no call pile up");
        // One that came to no call may make room for the next such one; any other stays.
        let stays = |was: &&Attempt| delivery.attempts.iter().any(|is| is.no == was.no);
        prop_assert!(known.iter().filter(called).all(|was| stays(&was)), "an attempt was taken away");
        let known: Vec<Attempt> = known.iter().filter(stays).cloned().collect();
        for (was, is) in known.iter().zip(&delivery.attempts) {
            prop_assert_eq!((was.no, was.begun_at, &was.disclosed), (is.no, is.begun_at, &is.disclosed));
            prop_assert!(was.provider_id.is_none() || was.provider_id == is.provider_id, "one attempt, two messages");
            prop_assert!(was.status.map(|was| was.rank()) <= is.status.map(|is| is.rank()), "{:?} {:?}", was, is);
        }
        let fresh = &delivery.attempts[known.len()..];
        prop_assert!(fresh.len() <= 1, "two attempts at once");
        let Some(attempt) = fresh.first() else { continue };
        let key = (delivery.no, attempt.no);
        prop_assert!(seen.after().wants(delivery), "begun although nobody wants it any more: {:?}", seen.after().state);
        let earlier = &delivery.attempts[..known.len()];
        prop_assert!(earlier.iter().all(|earlier| earlier.result != AttemptResult::Pending), "two calls at once");
        let arrived = earlier.iter().filter_map(|earlier| earlier.status).any(MessageStatus::has_arrived);
        prop_assert!(!arrived, "sent again although it has arrived");
        prop_assert_eq!(recorded.remove(&key), Some(attempt.disclosed.text_sha256.clone()), "not in the audit");
        prop_assert!(ground_recorded(chain, &seen.transition.audit, key), "begun before a ground was recorded");
        let contact = delivery.contact.clone();
        let told = Begun { stage: delivery.stage, contact, channel: delivery.channel, at: seen.now };
        prop_assert_eq!(begun.insert(key, told), None, "begun twice");
    }
    prop_assert!(recorded.is_empty(), "in the audit, and never begun: {:?}", recorded);
    Ok(())
}

/// What comes of one delivery cancels another only where that is its own next channel, planned since the case was last open
/// again.
fn spared(seen: &Seen<'_>, chain: &[AuditEntry]) -> Checked {
    if seen.lease.is_some() {
        // What is claimed in the same change may be cancelled for reasons of its own.
        return Ok(());
    }
    let (
        Some(before),
        Some(Input::Settled { delivery, .. } | Input::Received { delivery, .. } | Input::Found { delivery, .. }),
    ) = (seen.before, seen.input)
    else {
        return Ok(());
    };
    let said = chain.iter().map(|entry| serde_json::from_str::<Value>(&entry.canonical).unwrap());
    let said: Vec<Value> = said.collect();
    // What an emergency contact is told does not begin anew with the ladder.
    let climbs = before.delivery(*delivery).is_some_and(is_alert);
    let open_since = said.iter().rposition(|entry| climbs && entry["deed"] == "reopened").unwrap_or(0);
    let mut line = vec![u64::from(delivery.0)];
    for entry in said[open_since..].iter().filter(|entry| entry["what"] == "fell_over") {
        if line.contains(&entry["delivery"].as_u64().unwrap()) {
            line.push(entry["next"].as_u64().unwrap());
        }
    }
    for other in before.deliveries.iter().filter(|other| other.no != *delivery) {
        let is_cancelled =
            |now: &Delivery| matches!(now.state, DeliveryState::Cancelled { .. }) && now.state != other.state;
        if seen.after().delivery(other.no).is_some_and(is_cancelled) {
            let purpose = before.delivery(*delivery).map(|delivery| delivery.purpose);
            prop_assert_eq!(purpose, Some(other.purpose), "what is for something else was taken back: {:?}", other);
            prop_assert!(line.contains(&u64::from(other.no.0)), "{:?} has nothing to do with {:?}", other, delivery);
        }
    }
    Ok(())
}

/// However often a case is passed on, nobody who is told of it loses their time.
fn passed_on(seen: &Seen<'_>) -> Checked {
    let (Some(before), Some(Input::PassOn)) = (seen.before, seen.input) else { return Ok(()) };
    prop_assert!(seen.recorded("passed_on"));
    if let (AlertState::Escalating { stage: was, next_step_at: due, .. }, true) =
        (&before.state, waits_for_others(before))
    {
        let AlertState::Escalating { stage, next_step_at, .. } = &seen.after().state else {
            return Err(TestCaseError::fail("it is not open any more"));
        };
        prop_assert_eq!(was, stage);
        // With a lease, what was due may have come to nothing in the same change.
        prop_assert!(next_step_at == due || (seen.lease.is_some() && next_step_at < due));
        prop_assert!(!seen.recorded("stage_begun"));
    }
    Ok(())
}

/// Everything handed to the worker was committed under its lease, and stands on the ground.
fn hand_over(seen: &Seen<'_>) -> Checked {
    let alert = seen.after();
    prop_assert!(seen.lease.is_some() || seen.transition.actions.is_empty(), "claimed without a lease");
    for (no, attempt, message) in sends(seen.transition) {
        let delivery = alert.delivery(no).unwrap();
        let in_hand = DeliveryState::Sending { attempt, lease: seen.lease.unwrap().clone() };
        prop_assert_eq!(&delivery.state, &in_hand);
        prop_assert!(alert.ground.as_ref().is_some_and(|ground| ground.allows(delivery.channel)), "no ground");
        prop_assert_eq!(&delivery.attempt(attempt).unwrap().disclosed.text_sha256, &message.text_sha256);
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(message.text.as_bytes()));
        prop_assert_eq!(&message.text_sha256, &sha256);
        let shown = format!("{message:?}");
        prop_assert!(!shown.contains(CANARY), "{}", shown);
    }
    for action in &seen.transition.actions {
        match action {
            Action::Send { .. } => {}
            Action::LookUp { delivery, attempt } => {
                let state = &alert.delivery(*delivery).unwrap().state;
                let asked = matches!(state, DeliveryState::Unknown { attempt: unknown, .. } if unknown == attempt);
                prop_assert!(asked, "{:?}", state);
            }
            Action::Poll { delivery, attempt, provider_id } => {
                let delivery = alert.delivery(*delivery).unwrap();
                prop_assert_eq!(delivery.attempt(*attempt).unwrap().provider_id.as_ref(), Some(provider_id));
            }
        }
    }
    Ok(())
}

/// What is stored reads as it was; `Debug` shows nothing that is sealed.
fn stored_form(alert: &Alert) -> Checked {
    let json = serde_json::to_string(alert).unwrap();
    let read: Alert = serde_json::from_str(&json).unwrap();
    prop_assert_eq!(&read, alert);
    let shown = format!("{alert:?}");
    prop_assert!(!shown.contains(&format!("-{CANARY}")), "{}", shown);
    Ok(())
}

/// The messages to be sent.
pub(crate) fn sends(transition: &Transition) -> impl Iterator<Item = (DeliveryNo, AttemptNo, &Composed)> {
    transition.actions.iter().filter_map(|action| match action {
        Action::Send { delivery, attempt, message } => Some((*delivery, *attempt, message)),
        Action::LookUp { .. } | Action::Poll { .. } => None,
    })
}

/// The attempts that entries tell of, with the hash of what was disclosed.
fn recorded_begun(entries: &[AuditEntry]) -> BTreeMap<(DeliveryNo, AttemptNo), String> {
    let told = entries.iter().filter_map(|entry| {
        let said: Value = serde_json::from_str(&entry.canonical).unwrap();
        let number = |name: &str| u32::try_from(said[name].as_u64().unwrap()).unwrap();
        (said["what"] == "attempt_begun").then(|| {
            let key = (DeliveryNo(number("delivery")), AttemptNo(number("attempt")));
            (key, said["disclosed"]["text_sha256"].as_str().unwrap().to_owned())
        })
    });
    told.collect()
}

/// Whether a ground stands in the audit before the attempt does.
fn ground_recorded(chain: &[AuditEntry], new: &[AuditEntry], key: (DeliveryNo, AttemptNo)) -> bool {
    let is_ground = |entry: &AuditEntry| entry.canonical.contains(r#""deed":"ground_recorded""#);
    let before = new.iter().take_while(|entry| !recorded_begun(std::slice::from_ref(entry)).contains_key(&key));
    chain.iter().any(is_ground) || before.into_iter().any(is_ground)
}

/// The keys of a JSON object as they stand, also those that are there twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
