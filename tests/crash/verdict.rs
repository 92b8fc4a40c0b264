//! What came of it all: who was told, and whether each second message was right.
//!
//! Twilio takes no idempotency key, so a message whose call was cut off is looked up, and sent again only where that does
//! not find it. A second message of one delivery is right only where the attempt before it
//! - was in flight at a kill: begun and not booked, as the database that the kill left behind says; or
//! - is kept out of Twilio's lists, though it was accepted; or
//! - could not be looked up, each time because Twilio failed to answer.
//!
//! Nothing else may make one, and no attempt may ever be called twice.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::process::Command;

use crisis_relay::domain::alert::AlertState;
use crisis_relay::domain::delivery::AttemptResult;
use crisis_relay::domain::ids::{AlertId, AttemptNo, AttemptRef, DeliveryNo};
use crisis_relay::simulator::{SimMessage, Simulator, SimulatorConfig};
use jiff::Timestamp;

use crate::ledger::Ledger;
use crate::load::PHONE;
use crate::plan::Plan;
use crate::snapshot::Snapshot;
use crate::world::Span;

/// What the verdict is made from.
pub(crate) struct Sources<'a> {
    /// The database, at the end.
    pub(crate) disk: Snapshot,
    /// `audit verify`, to be run on it.
    pub(crate) verified: Command,
    pub(crate) twilio: &'a Simulator,
    pub(crate) ledger: &'a Ledger,
    /// What was in flight at any kill.
    pub(crate) in_flight: &'a HashSet<AttemptRef>,
    pub(crate) spans: &'a [Span],
    pub(crate) failing_look_ups: u64,
    pub(crate) plan: &'a Plan,
}

/// Why second messages were sent.
#[derive(Debug, Default)]
struct Second {
    in_flight: u64,
    hidden: u64,
    not_looked_up: u64,
    /// None of these: wrong.
    wrong: Vec<String>,
}

impl Second {
    fn count(&self) -> u64 {
        self.in_flight + self.hidden + self.not_looked_up
    }
}

/// What was found, to be printed and judged.
pub(crate) struct Evidence {
    seed: u64,
    kills: usize,
    events: u64,
    replays: u64,
    cases: usize,
    messages: usize,
    entries: u64,
    in_flight: usize,
    second: Second,
    /// From a start to the moment when the last case of before was at Twilio, for each start that had any.
    catching_up: Vec<f64>,
    wrong: Vec<String>,
}

impl Evidence {
    pub(crate) async fn gather(mut from: Sources<'_>) -> Self {
        let messages = from.twilio.handle().messages();
        let listed = listed(from.twilio).await;
        let mut wrong = Vec::new();
        wrong.extend(verify_audit(&mut from.verified));
        wrong.extend(cases_that_nobody_posted(&from));
        wrong.extend(cases_that_nobody_was_told(&from, &messages));
        wrong.extend(messages_without_right(&from, &messages));
        wrong.extend(attempts_called_twice(&from));
        let second = second_messages(&from, &messages, &listed);
        wrong.extend(second.wrong.iter().cloned());
        let look_ups_each = u64::from(from.plan.look_ups_max);
        if second.not_looked_up * look_ups_each > from.failing_look_ups {
            wrong.push(format!(
                "{} second messages for want of a look-up, but only {} look-ups failed",
                second.not_looked_up, from.failing_look_ups
            ));
        }
        Self {
            seed: from.plan.seed,
            kills: from.plan.lives.len(),
            events: from.ledger.count(),
            replays: from.ledger.replays(),
            cases: from.disk.alerts.len(),
            messages: messages.len(),
            entries: from.disk.entries,
            in_flight: from.in_flight.len(),
            second,
            catching_up: catching_up(&from, &messages),
            wrong,
        }
    }

    /// Fails unless everything holds.
    #[track_caller]
    pub(crate) fn judge(&self) {
        let bound = self.in_flight as u64;
        assert!(self.second.in_flight <= bound, "more second messages after kills than calls in flight: {self}");
        assert!(self.wrong.is_empty(), "{self}\n{} things do not hold:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kills, events, replays, cases, messages, entries, in_flight, second, .. } = self;
        write!(
            f,
            "seed {seed}: {kills} kills; {events} events answered ({replays} replayed), {cases} cases, {messages} messages, \
             {entries} audit entries; {in_flight} calls in flight at kills; {} second messages ({} of those calls, {} hidden, {} \
             not to be looked up)",
            second.count(),
            second.in_flight,
            second.hidden,
            second.not_looked_up,
        )?;
        let mut times = self.catching_up.clone();
        times.sort_by(f64::total_cmp);
        if let (Some(median), Some(last)) = (times.get(times.len() / 2), times.last()) {
            write!(
                f,
                "; from a start to the last case of before at Twilio: {median:.2} s (median), {last:.2} s (longest)"
            )?;
        }
        Ok(())
    }
}

/// The attempt that a callback's URL names.
pub(crate) fn attempt_of(status_callback: Option<&str>) -> Option<AttemptRef> {
    let url: url::Url = status_callback?.parse().ok()?;
    crisis_relay::twilio::callback::attempt_of(url.query()?)
}

fn verify_audit(command: &mut Command) -> Option<String> {
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    (!ended.status.success() || !said.contains("every one verifies")).then(|| format!("audit verify: {said}"))
}

/// As many cases as students whose backend was told of one: nothing twice, and nothing that nobody asked for.
fn cases_that_nobody_posted(from: &Sources<'_>) -> Vec<String> {
    let known: HashSet<AlertId> = from.ledger.promises().iter().map(|promise| promise.alert).collect();
    let strangers = from.disk.alerts.keys().filter(|id| !known.contains(id));
    strangers.map(|id| format!("alert {id} is nobody's: its student has another")).collect()
}

fn cases_that_nobody_was_told(from: &Sources<'_>, messages: &[SimMessage]) -> Vec<String> {
    let told = |reference: &str| messages.iter().any(|message| message.body.contains(reference));
    let cases = from.ledger.promises();
    let silent = cases.iter().filter(|case| case.tells && !from.ledger.is_dealt_with(case.alert));
    silent.filter(|case| !told(&case.reference)).map(|case| format!("nobody was told of {case:?}")).collect()
}

/// Messages of cases that nobody may be told of, or that somebody had taken before the attempt was begun.
fn messages_without_right(from: &Sources<'_>, messages: &[SimMessage]) -> Vec<String> {
    let mut wrong = Vec::new();
    for message in messages {
        let Some(of) = attempt_of(message.status_callback.as_deref()) else {
            wrong.push(format!("the message {} names no attempt", message.sid));
            continue;
        };
        let Some(alert) = from.disk.alerts.get(&of.alert) else {
            wrong.push(format!("a message of the alert {}, which is not there", of.alert));
            continue;
        };
        let begun = alert.delivery(of.delivery).and_then(|delivery| delivery.attempt(of.attempt)).map(|a| a.begun_at);
        let ended = match &alert.state {
            AlertState::Withheld { since, .. } => Some(*since),
            AlertState::Acknowledged { at, .. } | AlertState::Resolved { at, .. } => Some(*at),
            AlertState::Escalating { .. } => None,
        };
        match (begun, ended) {
            (None, _) => wrong.push(format!("a message of {of:?}, which was never begun")),
            (Some(begun), Some(ended)) if begun > ended => {
                wrong.push(format!("{of:?} was begun at {begun}, but the case is {:?}", alert.state));
            }
            (Some(_), _) => {}
        }
        if !message.body.contains(alert.reference.as_str()) {
            wrong.push(format!("the message {} does not bear its case's reference", message.sid));
        }
    }
    wrong
}

fn attempts_called_twice(from: &Sources<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    let requests = from.twilio.handle().requests();
    let attempts = requests.iter().filter_map(|request| attempt_of(request.get("StatusCallback")));
    attempts.filter(|attempt| !seen.insert(*attempt)).map(|attempt| format!("{attempt:?} was called twice")).collect()
}

fn second_messages(from: &Sources<'_>, messages: &[SimMessage], listed: &HashSet<String>) -> Second {
    let mut deliveries: BTreeMap<(AlertId, DeliveryNo), Vec<(AttemptNo, &SimMessage)>> = BTreeMap::new();
    for message in messages {
        if let Some(of) = attempt_of(message.status_callback.as_deref()) {
            deliveries.entry((of.alert, of.delivery)).or_default().push((of.attempt, message));
        }
    }
    let mut second = Second::default();
    for ((alert, delivery), sent) in deliveries {
        // Each but the last was followed by another.
        for (attempt, message) in &sent[..sent.len() - 1] {
            let of = AttemptRef { alert, delivery, attempt: *attempt };
            let result =
                from.disk.alerts[&alert].delivery(delivery).and_then(|d| d.attempt(*attempt)).map(|a| a.result);
            if !listed.contains(&message.sid) {
                second.hidden += 1;
            } else if from.in_flight.contains(&of) {
                second.in_flight += 1;
            } else if result == Some(AttemptResult::Unresolved) {
                second.not_looked_up += 1;
            } else {
                let all: Vec<_> = sent.iter().map(|(no, message)| format!("{no} at {}", message.created_at)).collect();
                second.wrong.push(format!("{of:?} ({result:?}) was sent, and then again: attempts {}", all.join(", ")));
            }
        }
    }
    second
}

/// The messages that Twilio's list shows.
async fn listed(twilio: &Simulator) -> HashSet<String> {
    let account = SimulatorConfig::default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut path = format!(
        "/2010-04-01/Accounts/{}/Messages.json?PageSize=1000&To=whatsapp:%2B{}",
        account.account_sid,
        &PHONE[1..]
    );
    let mut found = HashSet::new();
    twilio.handle().clear_faults();
    loop {
        let request = client.get(format!("{}{path}", twilio.url()));
        let request = request.basic_auth(&account.account_sid, Some(account.auth_token.expose()));
        let page: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let messages = page["messages"].as_array().unwrap();
        found.extend(messages.iter().map(|message| message["sid"].as_str().unwrap().to_owned()));
        match page["next_page_uri"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return found,
        }
    }
}

/// For each start after a kill: how long until every case that had been promised before, and was not at Twilio yet, was
/// there. Where the next kill came sooner, it is not known.
fn catching_up(from: &Sources<'_>, messages: &[SimMessage]) -> Vec<f64> {
    let mut first: BTreeMap<AlertId, Timestamp> = BTreeMap::new();
    for message in messages {
        if let Some(of) = attempt_of(message.status_callback.as_deref()) {
            first.entry(of.alert).or_insert(message.created_at);
        }
    }
    let cases = from.ledger.promises();
    let mut times = Vec::new();
    for (before, after) in from.spans.iter().zip(from.spans.iter().skip(1)) {
        let Some(killed) = before.killed else { continue };
        let waiting = cases.iter().filter(|case| case.tells && case.at <= killed);
        let arrived = waiting.filter_map(|case| first.get(&case.alert).copied()).filter(|at| *at > killed);
        if let Some(last) = arrived.max()
            && after.killed.is_none_or(|next| last <= next)
        {
            times.push(last.duration_since(after.begun).as_secs_f64().max(0.0));
        }
    }
    times
}
