//! One world: a database, a Twilio that outlives every process, users who know of nothing, and one process after the
//! other. All but the last are killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::{SeededEntropy, SystemClock};
use crisis_relay::domain::ids::AttemptRef;
use crisis_relay::http::auth::ApiKeyHash;
use crisis_relay::ports::Clock as _;
use crisis_relay::simulator::{CallbackMode, Fault, FaultRule, Scope, Simulator, SimulatorConfig, Stats};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::front::Front;
use crate::ledger::{Ledger, Page};
use crate::load::{BACKEND_KEY, COUNSELLOR_KEY, Load, NO_MORE, PHONE};
use crate::plan::{Life, Moment, Plan, Student};
use crate::process::Relay;
use crate::snapshot::{self, FILE, Snapshot};
use crate::verdict::Evidence;

/// How long a kill waits for its moment; some never come.
const MOMENT_WITHIN: Duration = Duration::from_secs(4);
/// How long a start may take, on a machine with much to do.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long the last process has to see to everything.
const REST_WITHIN: Duration = Duration::from_secs(120);
/// How long it has to end when asked to.
const END_WITHIN: Duration = Duration::from_secs(40);
/// Requests that backends make at once.
const LINES: usize = 24;

/// When a process was begun, and when it was killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) begun: Timestamp,
    pub(crate) killed: Option<Timestamp>,
}

/// The database's folder. It stays where it is if the test fails, to be looked at.
pub(crate) struct Folder(TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            println!("the database is left in {}", self.0.path().display());
        }
    }
}

/// The world.
pub(crate) struct World {
    plan: Plan,
    folder: Folder,
    twilio: Simulator,
    front: Front,
    load: Arc<Load>,
    users: JoinSet<()>,
    kills: watch::Sender<u64>,
    spans: Vec<Span>,
    /// What was in flight at a kill, and the first such kill.
    in_flight: HashMap<AttemptRef, Timestamp>,
    checking: Option<tokio::task::JoinHandle<(Timestamp, Snapshot)>>,
}

impl World {
    pub(crate) async fn new(plan: Plan) -> Self {
        let config = SimulatorConfig {
            callbacks: CallbackMode::Automatic {
                sent_after: Duration::from_millis(15),
                delivered_after: Duration::from_millis(40),
                read_after: None,
            },
            faults: plan.faults.clone(),
            keep_messages: 1_000_000,
            hold: plan.hold,
            ..SimulatorConfig::default()
        };
        let entropy = Arc::new(SeededEntropy::new(plan.seed));
        let twilio = Simulator::start(config, Arc::new(SystemClock), entropy).await.unwrap();
        let front = Front::start().await;
        twilio.handle().set_inbound_url(&format!("{}/webhooks/twilio/incoming", front.url()));
        let (kills, seen) = watch::channel(0);
        let load = Arc::new(Load {
            url: front.url().parse().unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            twilio: twilio.handle(),
            ledger: Arc::new(Ledger::default()),
            gate: Semaphore::new(0),
            lines: Semaphore::new(LINES),
            kills: seen,
            phone: watch::Sender::default(),
        });
        let mut users = JoinSet::new();
        for number in 0..plan.students {
            users.spawn(Arc::clone(&load).attend(Student::of(plan.seed, number)));
        }
        tokio::spawn(Arc::clone(&load).watch_phone());
        Self {
            plan,
            folder: Folder(tempfile::tempdir().unwrap()),
            twilio,
            front,
            load,
            kills,
            users,
            spans: Vec::new(),
            in_flight: HashMap::new(),
            checking: None,
        }
    }

    /// What every process is told.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let account = SimulatorConfig::default();
        let mut settings = vec![
            ("DATABASE_PATH", FILE.to_owned()),
            ("CRISIS_RELAY__KEYRING__DEVELOPMENT_KEY_PATH", "master.key".to_owned()),
            ("COUNSELLOR_WHATSAPP_TO", PHONE.to_owned()),
            ("TWILIO_ACCOUNT_SID", account.account_sid),
            ("TWILIO_AUTH_TOKEN", account.auth_token.expose().to_owned()),
            ("TWILIO_WHATSAPP_FROM", "+14155238886".to_owned()),
            ("TWILIO_API_BASE_URL", self.twilio.url()),
            ("TWILIO_WEBHOOK_BASE_URL", self.front.url().to_owned()),
            ("API_KEY_SERVICE_SHA256", ApiKeyHash::of(BACKEND_KEY).to_string()),
            ("API_KEY_COUNSELLOR_SHA256", ApiKeyHash::of(COUNSELLOR_KEY).to_string()),
            ("CRISIS_RELAY__RATE_LIMITS__PERSON_PER_SECOND", "10000".to_owned()),
        ];
        settings.extend(self.plan.settings.iter().cloned());
        settings
    }

    /// Every life, to its kill; then one that is left in peace; then what came of it all.
    pub(crate) async fn run(mut self) -> Evidence {
        for life in self.plan.lives.clone() {
            self.live(life).await;
        }
        self.rest().await;
        self.evidence().await
    }

    fn begin(&mut self) -> Relay {
        let relay = Relay::begin(self.folder.0.path(), &self.settings());
        self.spans.push(Span { begun: SystemClock.now(), killed: None });
        self.front.lead_to(relay.address());
        relay
    }

    async fn live(&mut self, life: Life) {
        self.load.gate.add_permits(self.plan.share());
        self.spoil(life);
        let before = self.counts();
        let relay = self.begin();
        match life.moment {
            Moment::Starting(after) => {
                tokio::time::sleep(after + life.then).await;
                relay.kill();
            }
            Moment::Stopping(after) => {
                self.await_start(&relay).await;
                self.await_moment(Moment::Answered(10), before).await;
                relay.ask_to_end();
                tokio::time::sleep(after + life.then).await;
                relay.kill_if_there();
            }
            moment @ (Moment::Answered(_)
            | Moment::Created(_)
            | Moment::LookedUp(_)
            | Moment::Told(_)
            | Moment::Replied(_)) => {
                self.await_start(&relay).await;
                self.await_moment(moment, before).await;
                tokio::time::sleep(life.then).await;
                relay.kill();
            }
        }
        self.killed().await;
    }

    /// What goes wrong at Twilio in this life, on top of what always does.
    fn spoil(&self, life: Life) {
        let handle = self.twilio.handle();
        if life.failing_look_ups > 0 {
            let fault = Fault::ServerError { http_status: 503, retry_after_s: None };
            let rule = FaultRule::next(life.failing_look_ups, fault).on(Scope::Lookups);
            assert!(handle.push_fault(rule), "the simulator takes another rule");
        }
        if life.dropped_calls > 0 {
            assert!(handle.push_fault(FaultRule::next(life.dropped_calls, Fault::Outage)), "and one more");
        }
    }

    async fn await_start(&self, relay: &Relay) {
        let mut address = relay.address();
        let listens = address.wait_for(Option::is_some);
        match tokio::time::timeout(START_WITHIN, listens).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => panic!("the service did not start:\n{}", relay.last_words()),
        }
    }

    fn counts(&self) -> (Stats, u64) {
        (self.twilio.handle().stats(), self.load.ledger.count())
    }

    async fn await_moment(&mut self, moment: Moment, before: (Stats, u64)) {
        let until = tokio::time::Instant::now() + MOMENT_WITHIN;
        while !self.has_come(moment, before) && tokio::time::Instant::now() < until {
            self.users_are_well();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn has_come(&self, moment: Moment, (before, answered_before): (Stats, u64)) -> bool {
        let (now, answered) = self.counts();
        let told = |stats: Stats| stats.callbacks_sent + stats.callbacks_failed;
        match moment {
            Moment::Starting(_) | Moment::Stopping(_) => true,
            Moment::Answered(n) => answered >= answered_before + n,
            Moment::Created(n) => now.create_calls >= before.create_calls + n,
            Moment::LookedUp(n) => now.lookups >= before.lookups + n,
            Moment::Told(n) => told(now) >= told(before) + n,
            Moment::Replied(n) => now.replies >= before.replies + n,
        }
    }

    /// A user who failed ends the test at once.
    fn users_are_well(&mut self) {
        while let Some(ended) = self.users.try_join_next() {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// The process is dead: what it left must hold, before another one sees to it.
    async fn killed(&mut self) {
        self.front.lead_nowhere();
        if let Some(span) = self.spans.last_mut() {
            span.killed = Some(SystemClock.now());
        }
        self.tell_of_the_kill();
        let promised = self.load.ledger.page();
        let copy = snapshot::copy(self.folder.0.path());
        self.checked().await;
        let kill = self.spans.len();
        let killed = self.spans.last().and_then(|span| span.killed).unwrap_or_default();
        // Beside the next life, which must not wait for it.
        self.checking = Some(tokio::task::spawn_blocking(move || {
            let found = Snapshot::read(copy.path());
            hold(&format!("after kill {kill}"), &found, &promised);
            (killed, found)
        }));
        self.kills.send_modify(|kills| *kills += 1);
    }

    /// For whoever reads of a failure.
    fn tell_of_the_kill(&self) {
        let (stats, answered) = self.counts();
        let age = self.spans.last().and_then(|span| Some(span.killed?.duration_since(span.begun).as_secs_f64()));
        println!(
            "kill {} at the age of {:.3} s, {:?}; by then {answered} events answered, {} create calls, {} look-ups and \
             polls, {} callbacks, {} replies",
            self.spans.len(),
            age.unwrap_or_default(),
            self.plan.lives.get(self.spans.len() - 1),
            stats.create_calls,
            stats.lookups,
            stats.callbacks_sent + stats.callbacks_failed,
            stats.replies,
        );
    }

    async fn checked(&mut self) {
        if let Some(checking) = self.checking.take() {
            match checking.await {
                Ok((killed, found)) => {
                    for attempt in found.in_flight() {
                        self.in_flight.entry(attempt).or_insert(killed);
                    }
                }
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    /// A process that nobody kills: it sees to everything, and ends when asked to.
    async fn rest(&mut self) {
        self.load.gate.add_permits(usize::try_from(self.plan.students).unwrap());
        let relay = self.begin();
        self.await_start(&relay).await;
        self.kills.send_replace(NO_MORE);
        let until = tokio::time::Instant::now() + REST_WITHIN;
        loop {
            self.users_are_well();
            let waiting = self.untold();
            if self.users.is_empty() && waiting.is_empty() {
                break;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "{} users wait for an answer, and these cases for a message: {waiting:?}\n{}The service said:\n{}",
                self.users.len(),
                self.known_of(&waiting),
                relay.last_words()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.checked().await;
        let status = relay.ended(END_WITHIN).await;
        assert!(status.success(), "asked to end, it ended with {status}");
    }

    /// What the disk and Twilio have of cases that nobody has heard of.
    fn known_of(&self, waiting: &[String]) -> String {
        let disk = Snapshot::read(crate::snapshot::copy(self.folder.0.path()).path());
        let messages = self.load.twilio.conversation(PHONE);
        let of = |alert: &crisis_relay::domain::alert::Alert| {
            let reference = alert.reference.to_string();
            let told = messages.iter().filter(|message| message.body.contains(&reference)).map(|message| {
                format!("    {:?} {} {:?} {}\n", message.direction, message.sid, message.status_callback, message.body)
            });
            let told: String = told.collect();
            format!("On disk: {}\nAt Twilio:\n{told}", serde_json::to_string(alert).unwrap_or_default())
        };
        let is_waiting = |alert: &&crisis_relay::domain::alert::Alert| {
            waiting.iter().any(|case| case.contains(&alert.id.to_string()))
        };
        disk.alerts.values().filter(is_waiting).map(of).collect()
    }

    /// The cases that were promised to somebody, and of which nobody has heard.
    fn untold(&self) -> Vec<String> {
        let phone = self.load.phone.borrow();
        let ledger = &self.load.ledger;
        let silent = ledger
            .promises()
            .into_iter()
            .filter(|case| case.tells && !phone.contains_key(&case.alert) && !ledger.is_dealt_with(case.alert));
        silent.map(|case| format!("{} ({})", case.reference, case.alert)).collect()
    }

    async fn evidence(self) -> Evidence {
        let promised = self.load.ledger.page();
        let disk = Snapshot::read(self.folder.0.path());
        hold("at the end", &disk, &promised);
        let verified = crate::process::command(&["audit", "verify"], self.folder.0.path(), &self.settings());
        Evidence::gather(crate::verdict::Sources {
            disk,
            verified,
            twilio: &self.twilio,
            ledger: &self.load.ledger,
            in_flight: &self.in_flight,
            spans: &self.spans,
            plan: &self.plan,
            folder: self.folder,
        })
        .await
    }
}

/// What must hold of every database that a process leaves behind.
fn hold(when: &str, found: &Snapshot, promised: &Page) {
    let broken = [found.faults.clone(), promised.broken_promises(found)].concat();
    assert!(broken.is_empty(), "{when}, {} things do not hold:\n{}", broken.len(), broken.join("\n"));
}
