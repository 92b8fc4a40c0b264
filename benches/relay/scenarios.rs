//! What is measured. Each scenario has a service and a database of its own, unless it says otherwise.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use crisis_relay::simulator::{CallbackMode, Fault, FaultRule, SimulatorConfig};

use super::Failure;
use super::load::{Form, Pace, Shot, Target, fire};
use super::provider::{Provider, words_of};
use super::service::{ACCOUNT_SID, AUTH_TOKEN, SERVICE_KEY, Service, Usage};
use super::statistics::Times;

/// What the student wrote, in every event.
pub(crate) const WORDS: &str = "I cannot go on like this";
/// Connections of a burst.
const CONNECTIONS: usize = 256;
/// A rate is held if everything is answered and handed over, and the slowest hundredth within this.
const HELD_P99: Duration = Duration::from_secs(1);
/// A generator that is later with its own requests does not hold the rate either.
const LAG_P99: Duration = Duration::from_millis(100);
/// How long the last requests may take to come before they count as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A run of events at one rate.
pub(crate) struct Run {
    pub(crate) sent: usize,
    pub(crate) accepted: usize,
    pub(crate) arrived: usize,
    /// Requests that came more than once.
    pub(crate) twice: usize,
    /// From the request to its whole answer.
    pub(crate) accept: Times,
    /// From the request to the arrival of the provider's.
    pub(crate) provider: Times,
    /// How late the generator was with its own requests.
    pub(crate) lag: Times,
    /// From the first request to the last arrival.
    pub(crate) all: Duration,
    /// Of the service: processor time and commits, per accepted event.
    pub(crate) cpu: Duration,
    pub(crate) commits: f64,
    pub(crate) after: Usage,
    /// The references of the accepted events.
    pub(crate) references: Vec<String>,
}

impl Run {
    pub(crate) fn lost(&self) -> usize {
        self.accepted - self.arrived
    }

    fn is_held(&self) -> bool {
        let on_time = self.lag.percentile(0.99) <= LAG_P99;
        on_time && self.accepted == self.sent && self.lost() == 0 && self.provider.percentile(0.99) <= HELD_P99
    }
}

/// A service, its provider, and how many events were posted before.
pub(crate) struct Stage {
    provider: Provider,
    service: Service,
    run: String,
    posted: usize,
}

/// How the provider behaves: without receipts, or with those of a delivered message.
pub(crate) fn without_receipts() -> SimulatorConfig {
    SimulatorConfig { callbacks: CallbackMode::Manual, ..SimulatorConfig::default() }
}

pub(crate) fn with_receipts() -> SimulatorConfig {
    SimulatorConfig {
        callbacks: CallbackMode::default(),
        callback_concurrency: 256,
        keep_messages: 1_000_000,
        ..SimulatorConfig::default()
    }
}

impl Stage {
    pub(crate) fn set(folder: &Path, settings: SimulatorConfig) -> io::Result<Self> {
        let provider = Provider::start(settings)?;
        let service = Service::start(folder, provider.address)?;
        let mut stage = Self { provider, service, run: next_run(), posted: 0 };
        // Connections, statements and memory of the first moment are not what is measured.
        stage.post(Pace::PerSecond(200.0), 200);
        Ok(stage)
    }

    fn next(&mut self, count: usize) -> usize {
        self.posted += count;
        self.posted - count
    }

    fn target(&self, from: usize) -> Target {
        events(self.service.address, self.run.clone(), from)
    }

    /// Posts events of as many students, and waits until all have come to the provider.
    pub(crate) fn post(&mut self, pace: Pace, count: usize) -> Run {
        let from = self.next(count);
        self.provider.arrivals.clear();
        let (before, commits) = (self.service.usage(), self.service.commits());
        let begun = Instant::now();
        let shots = fire(self.target(from), pace, count);
        self.provider.arrivals.wait_for(accepted(&shots).count(), PATIENCE);
        let (after, commits_after) = (self.service.usage(), self.service.commits());
        let last = self.provider.arrivals.last().unwrap_or(begun);
        let seen = self.provider.arrivals.by_word();
        let came: Vec<(&Shot, &Vec<Instant>)> =
            accepted(&shots).filter_map(|shot| Some((shot, seen.get(&reference(shot)?)?))).collect();
        let share = accepted(&shots).count().max(1);
        Run {
            sent: count,
            accepted: accepted(&shots).count(),
            arrived: came.len(),
            twice: came.iter().map(|(_, times)| times.len() - 1).sum(),
            accept: accepted(&shots).map(|shot| shot.answered - shot.sent).collect(),
            provider: came.iter().map(|(shot, times)| times[0].saturating_duration_since(shot.sent)).collect(),
            lag: shots.iter().map(|shot| shot.sent.saturating_duration_since(shot.due)).collect(),
            all: last.saturating_duration_since(shots.iter().map(|shot| shot.sent).min().unwrap_or(begun)),
            cpu: (after.cpu.saturating_sub(before.cpu)) / u32::try_from(share).unwrap_or(1),
            commits: commits_after.saturating_sub(commits) as f64 / share as f64,
            after,
            references: accepted(&shots).filter_map(reference).collect(),
        }
    }

    /// How many of these references stand in no message that the provider made, once it makes no more.
    pub(crate) fn untold(&self, references: &[String]) -> usize {
        self.provider.arrivals.wait_for(usize::MAX, PATIENCE * 4);
        let told: HashSet<String> = self
            .provider
            .handle
            .messages()
            .iter()
            .flat_map(|message| words_of(&message.body).collect::<Vec<_>>())
            .collect();
        references.iter().filter(|reference| !told.contains(*reference)).count()
    }

    pub(crate) fn at(&mut self, rate: f64, seconds: f64) -> Run {
        self.post(Pace::PerSecond(rate), (rate * seconds) as usize)
    }

    pub(crate) fn burst(&mut self, count: usize) -> Run {
        self.post(Pace::AtOnce { connections: CONNECTIONS }, count)
    }

    /// Posts receipts, signed as Twilio signs, for the messages of the last run: `sent`, then `delivered`, as fast as the
    /// connections take them. Gives how many a second, and the times of the answers.
    pub(crate) fn receipts(&mut self) -> (f64, Times) {
        let urls = self.provider.arrivals.fields("StatusCallback");
        let sids: Vec<(String, String)> = self
            .provider
            .handle
            .messages()
            .into_iter()
            .filter_map(|message| Some((message.status_callback?, message.sid)))
            .collect();
        let known: std::collections::HashMap<String, String> = sids.into_iter().collect();
        let calls: Vec<(String, String)> =
            urls.into_iter().filter_map(|url| Some((url.clone(), known.get(&url)?.clone()))).collect();
        let mut answered = Vec::new();
        let begun = Instant::now();
        for status in ["sent", "delivered"] {
            let calls = calls.clone();
            let count = calls.len();
            let target = Target {
                address: self.service.address,
                headers: vec![("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())],
                request: Box::new(move |no| receipt(&calls[no].0, &calls[no].1, status)),
            };
            let shots = fire(target, Pace::AtOnce { connections: 64 }, count);
            answered.extend(shots.into_iter().filter(|shot| shot.status == 204));
        }
        let rate = answered.len() as f64 / begun.elapsed().as_secs_f64();
        (rate, answered.iter().map(|shot| shot.answered - shot.sent).collect())
    }

    /// A service at rest.
    pub(crate) fn usage(&self) -> Usage {
        self.service.usage()
    }

    /// Makes a tenth of all calls go wrong, in the ways that an operator sees.
    pub(crate) fn trouble(&self) {
        // Calls that hang are few: each holds one of the 64 places (`twilio.max_concurrency`) for ten seconds.
        let faults = [
            (0.04, Fault::TooManyRequests { retry_after_s: Some(1) }),
            (0.03, Fault::ServerError { http_status: 503, retry_after_s: None }),
            (0.005, Fault::AcceptThenTimeOut),
            (0.015, Fault::DropAfterAccepting),
            (0.01, Fault::CallbacksLost),
        ];
        for (seed, (probability, fault)) in (1..).zip(faults) {
            self.provider.handle.push_fault(FaultRule::with_probability(probability, seed, fault));
        }
    }
}

/// The highest of rising rates that is held for `seconds`, with its run. `stage` gives each rate a service of its own.
pub(crate) fn highest_held(
    mut stage: impl FnMut(f64, f64) -> Result<Run, Failure>,
    seconds: f64,
    tell: &dyn Fn(&str),
) -> Result<Option<(f64, Run)>, Failure> {
    let mut best = None;
    let mut rate = 2000.0;
    loop {
        let run = stage(rate, seconds)?;
        tell(&format!("  {rate:.0}/s for {seconds} s: {}", if run.is_held() { "held" } else { "not held" }));
        if !run.is_held() {
            return Ok(best);
        }
        best = Some((rate, run));
        rate += 500.0;
    }
}

pub(crate) fn accepted(shots: &[Shot]) -> impl Iterator<Item = &Shot> {
    shots.iter().filter(|shot| shot.status == 202)
}

/// The word of the answer that stands in the message, too.
pub(crate) fn reference(shot: &Shot) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(&shot.answer).ok()?;
    answer["reference"].as_str().map(str::to_owned)
}

/// A name for each run, so that no student of one is a student of another, nor of an earlier process's on the same database.
pub(crate) fn next_run() -> String {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let begun = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    format!("{begun:x}-{}", RUNS.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn events(address: SocketAddr, run: String, from: usize) -> Target {
    Target {
        address,
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), format!("Bearer {SERVICE_KEY}")),
        ],
        request: Box::new(move |no| {
            let no = from + no;
            let body = format!(
                r#"{{"user_id":"student-{run}-{no}","crisis_score":0.93,"source":"chat","message":"{WORDS}","emergency_override":{{"by":"Duty doctor","reason":"life at risk"}}}}"#
            );
            let key = format!("event-{run}-{no}");
            Form { path: "/api/v1/crisis/events".to_owned(), headers: vec![("idempotency-key".to_owned(), key)], body }
        }),
    }
}

/// A receipt in Twilio's form, with Twilio's signature: HMAC-SHA1 over the URL and the sorted fields.
fn receipt(url: &str, sid: &str, status: &str) -> Form {
    let fields = [
        ("AccountSid", ACCOUNT_SID),
        ("ApiVersion", "2010-04-01"),
        ("From", "whatsapp:+14155238886"),
        ("MessageSid", sid),
        ("MessageStatus", status),
        ("SmsSid", sid),
        ("SmsStatus", status),
        ("To", "whatsapp:+919876543210"),
    ];
    // What follows the hash sign is for Twilio alone, and signed with neither.
    let url = url.split('#').next().unwrap_or(url);
    let signed: String = fields.iter().fold(url.to_owned(), |text, (name, value)| text + name + value);
    let signature = match Hmac::<Sha1>::new_from_slice(AUTH_TOKEN.as_bytes()) {
        Ok(mut mac) => {
            mac.update(signed.as_bytes());
            BASE64.encode(&mac.finalize().into_bytes())
        }
        Err(_) => String::new(),
    };
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    Form {
        path: format!("/{path}"),
        headers: vec![("x-twilio-signature".to_owned(), signature)],
        body: form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish(),
    }
}

/// From the start of the process to the first event that is accepted.
pub(crate) fn start(folder: &Path) -> io::Result<Duration> {
    let provider = Provider::start(without_receipts())?;
    let begun = Instant::now();
    let service = Service::spawn(folder, provider.address)?;
    let run = next_run();
    loop {
        let shots = fire(events(service.address, run.clone(), 0), Pace::AtOnce { connections: 1 }, 1);
        if accepted(&shots).next().is_some() {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other("the service does not start"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A kill in the middle of a burst, and the restart.
pub(crate) struct Killed {
    pub(crate) accepted: usize,
    /// Accepted, and not at the provider when the process died.
    pub(crate) remaining: usize,
    /// From the restart of the process until the last of those was there.
    pub(crate) recovered: Duration,
    pub(crate) lost: usize,
    pub(crate) twice: usize,
}

/// Kills the service in a burst of `count`, once a share of it (0 to 1) has come to the provider.
pub(crate) fn kill(folder: &Path, count: usize, share: f64) -> io::Result<Killed> {
    let provider = Provider::start(without_receipts())?;
    let mut service = Service::start(folder, provider.address)?;
    let target = events(service.address, next_run(), 0);
    let firing = std::thread::spawn(move || fire(target, Pace::AtOnce { connections: CONNECTIONS }, count));
    while (provider.arrivals.count() as f64) < share * count as f64 {
        std::thread::sleep(Duration::from_micros(200));
    }
    service.kill()?;
    // What was accepted is known once every request has its answer, or its connection has broken.
    let shots = firing.join().unwrap_or_default();
    let before: HashSet<String> = provider.arrivals.by_word().into_keys().collect();
    let references: Vec<String> = accepted(&shots).filter_map(reference).collect();
    let remaining: HashSet<&String> = references.iter().filter(|reference| !before.contains(*reference)).collect();

    let restarted = Instant::now();
    let _service = Service::start(folder, provider.address)?;
    let mut quiet_since = (provider.arrivals.count(), Instant::now());
    while quiet_since.1.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
        if provider.arrivals.count() != quiet_since.0 {
            quiet_since = (provider.arrivals.count(), Instant::now());
        }
    }
    let seen = provider.arrivals.by_word();
    let last = remaining.iter().filter_map(|reference| seen.get(*reference)?.first()).max();
    Ok(Killed {
        accepted: references.len(),
        remaining: remaining.len(),
        recovered: last.map(|at| at.saturating_duration_since(restarted)).unwrap_or_default(),
        lost: references.iter().filter(|reference| !seen.contains_key(*reference)).count(),
        twice: references.iter().filter_map(|reference| seen.get(reference)).map(|times| times.len() - 1).sum(),
    })
}
