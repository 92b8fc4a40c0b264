//! What came of it all: who was told, and whether each second message was right.
//!
//! Twilio takes no idempotency key, so a message whose call was cut off is looked up, and sent again only where that does
//! not find it. A second message of one delivery is right only if the first one
//! - is kept out of Twilio's lists, though it was accepted; or
//! - was in flight at a kill (begun and not booked, as the database that the kill left behind says), and came to Twilio
//!   only after that: what was there at the kill can be found by the next process; or
//! - was looked up as often as it should be, and Twilio never answered: between the two messages it left as many lists
//!   unanswered, or kills cut them off.
//!
//! Nothing else may make one, and no attempt may ever be called twice. (In a larger world, where a phone gets more messages
//! than one look-up reads, one might lie too far down to be found. This one stays below that.)

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use crisis_relay::domain::alert::AlertState;
use crisis_relay::domain::delivery::AttemptResult;
use crisis_relay::domain::ids::{AlertId, AttemptNo, AttemptRef, DeliveryNo};
use crisis_relay::simulator::{Direction, SimListing, SimMessage, Simulator, SimulatorConfig};
use jiff::Timestamp;

use crate::ledger::Ledger;
use crate::load::PHONE;
use crate::plan::Plan;
use crate::snapshot::Snapshot;
use crate::world::{Folder, Span};

/// What the verdict is made from.
pub(crate) struct Sources<'a> {
    /// The database, at the end.
    pub(crate) disk: Snapshot,
    /// `audit verify`, to be run on it.
    pub(crate) verified: Command,
    pub(crate) twilio: &'a Simulator,
    pub(crate) ledger: &'a Ledger,
    /// What was in flight at a kill, and the first such kill.
    pub(crate) in_flight: &'a HashMap<AttemptRef, Timestamp>,
    pub(crate) spans: &'a [Span],
    pub(crate) plan: &'a Plan,
    pub(crate) folder: Folder,
}

/// How many of a phone's messages one look-up reads.
const READ_BY_A_LOOK_UP: usize = 10_000;
/// A list that took so long may have come too late: half of what the service waits for it.
const LATE: Duration = Duration::from_secs(1);

/// Why second messages were sent.
#[derive(Debug, Default)]
struct Second {
    hidden: u64,
    after_the_kill: u64,
    never_answered: u64,
    /// None of these: wrong.
    wrong: Vec<String>,
}

impl Second {
    fn count(&self) -> u64 {
        self.hidden + self.after_the_kill + self.never_answered
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
    /// From the last start to the moment when the last case of before was at Twilio, in seconds.
    caught_up: Option<f64>,
    wrong: Vec<String>,
    /// Kept until the verdict.
    _folder: Folder,
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
            caught_up: caught_up(&from, &messages),
            wrong,
            _folder: from.folder,
        }
    }

    /// Fails unless everything holds.
    #[track_caller]
    pub(crate) fn judge(&self) {
        assert!(self.wrong.is_empty(), "{self}\n{} things do not hold:\n{}", self.wrong.len(), self.wrong.join("\n"));
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kills, events, replays, cases, messages, entries, in_flight, second, .. } = self;
        write!(
            f,
            "seed {seed}: {kills} kills; {events} events answered ({replays} replayed), {cases} cases, {messages} messages, \
             {entries} audit entries; {in_flight} calls in flight at kills; {} second messages ({} hidden, {} came after the \
             kill, {} looked up in vain)",
            second.count(),
            second.hidden,
            second.after_the_kill,
            second.never_answered,
        )?;
        if let Some(seconds) = self.caught_up {
            write!(f, "; the last case of before was at Twilio {seconds:.2} s after the last start")?;
        }
        Ok(())
    }
}

impl Sources<'_> {
    /// How many look-ups of this time can have been in vain: those that Twilio did not answer, or not soon enough, and one
    /// for each kill.
    fn look_ups_in_vain(&self, listings: &[SimListing], between: Range<Timestamp>) -> usize {
        let in_vain = |listing: &&SimListing| !listing.answered || listing.took >= LATE;
        let unanswered = listings.iter().filter(|listing| between.contains(&listing.at)).filter(in_vain).count();
        unanswered + self.spans.iter().filter_map(|span| span.killed).filter(|kill| between.contains(kill)).count()
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
        let delivery = alert.delivery(of.delivery);
        let begun = delivery.and_then(|delivery| delivery.attempt(of.attempt)).map(|attempt| attempt.begun_at);
        // What tells others that it is taken can only follow.
        let asks = delivery.is_some_and(|delivery| delivery.purpose.is_alert());
        let ended = match &alert.state {
            AlertState::Withheld { since, .. } => Some(*since),
            AlertState::Acknowledged { at, .. } | AlertState::Resolved { at, .. } => Some(*at),
            AlertState::Escalating { .. } => None,
        };
        match (begun, ended) {
            (None, _) => wrong.push(format!("a message of {of:?}, which was never begun")),
            (Some(begun), Some(ended)) if asks && begun > ended => {
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
    // What a list of the phone's messages shows: also what was said in answer to replies.
    let mut on_the_phone = from.twilio.handle().conversation(PHONE);
    on_the_phone.retain(|message| message.direction != Direction::Inbound);
    let listings = from.twilio.handle().listings();
    let mut second = Second::default();
    if on_the_phone.len() > READ_BY_A_LOOK_UP {
        second.wrong.push(format!("this world is too large for its verdict: {} messages", on_the_phone.len()));
    }
    for ((alert, delivery), sent) in deliveries {
        for pair in sent.windows(2) {
            let [(attempt, message), (_, next)] = pair else { continue };
            let of = AttemptRef { alert, delivery, attempt: *attempt };
            let recorded = from.disk.alerts.get(&alert).and_then(|alert| alert.delivery(delivery));
            let result = recorded.and_then(|delivery| delivery.attempt(*attempt)).map(|attempt| attempt.result);
            let in_vain = from.look_ups_in_vain(&listings, message.created_at..next.created_at);
            let came_later = from.in_flight.get(&of).is_some_and(|killed| message.created_at > *killed);
            match result {
                _ if !listed.contains(&message.sid) => second.hidden += 1,
                Some(AttemptResult::NotFound | AttemptResult::Unresolved) if came_later => second.after_the_kill += 1,
                Some(AttemptResult::Unresolved) if in_vain >= from.plan.look_ups_max as usize => {
                    second.never_answered += 1;
                }
                _ => second.wrong.push(format!(
                    "{of:?} ({result:?}; in flight at the kill of {:?}) was sent at {}, and again at {}; {in_vain} lists \
                     in between were not answered or cut off by a kill",
                    from.in_flight.get(&of),
                    message.created_at,
                    next.created_at
                )),
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

/// How long after the last start every case that had been promised before, and was not at Twilio yet, was there.
fn caught_up(from: &Sources<'_>, messages: &[SimMessage]) -> Option<f64> {
    let mut first: BTreeMap<AlertId, Timestamp> = BTreeMap::new();
    for message in messages {
        if let Some(of) = attempt_of(message.status_callback.as_deref()) {
            first.entry(of.alert).or_insert(message.created_at);
        }
    }
    let [.., before, last] = from.spans else { return None };
    let killed = before.killed?;
    let cases = from.ledger.promises();
    let waiting = cases.iter().filter(|case| case.tells && case.at <= killed);
    let arrived = waiting.filter_map(|case| first.get(&case.alert).copied()).filter(|at| *at > killed);
    arrived.max().map(|at| at.duration_since(last.begun).as_secs_f64().max(0.0))
}
