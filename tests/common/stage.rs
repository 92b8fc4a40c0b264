//! What stories of trouble need of the world: a clock that knows who sleeps by it, a worker that runs by itself, a
//! second instance, a Twilio that goes away and comes back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use crisis_relay::app::App;
use crisis_relay::clock::{ManualClock, SeededEntropy};
use crisis_relay::domain::alert::Alert;
use crisis_relay::ports::{Clock, Store};
use crisis_relay::service::Service;
use crisis_relay::service::dispatch::Jobs;
use crisis_relay::simulator::{CallbackMode, FaultRule, SimMessage, Simulator, SimulatorConfig};
use crisis_relay::worker::Worker;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{COUNSELLOR, Setting, World, assemble};

/// How far the clock is moved for work that sleeps again and again, before a story calls it endless.
const RESTLESS: Duration = Duration::from_secs(600);
/// How long a story waits, by the machine's clock, for what must come without the clock being moved.
const PATIENCE: Duration = Duration::from_secs(5);

/// The world's clock as the service has it: it knows until when the service sleeps.
#[derive(Clone)]
pub struct ServiceClock {
    clock: ManualClock,
    alarms: Arc<watch::Sender<Vec<Timestamp>>>,
}

/// Takes an alarm off the list when its sleeper has woken, or is no more.
struct Alarm<'a>(&'a ServiceClock, Timestamp);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.alarms.send_modify(|alarms| {
            let place = alarms.iter().position(|at| *at == self.1);
            place.map(|place| alarms.swap_remove(place));
        });
    }
}

#[async_trait]
impl Clock for ServiceClock {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now().saturating_add(duration).unwrap();
        self.alarms.send_modify(|alarms| alarms.push(until));
        let _alarm = Alarm(self, until);
        self.clock.sleep(duration).await;
    }
}

impl ServiceClock {
    pub fn new(clock: &ManualClock) -> Self {
        Self { clock: clock.clone(), alarms: Arc::new(watch::Sender::new(Vec::new())) }
    }

    async fn next_alarm(&self) -> Timestamp {
        let mut alarms = self.alarms.subscribe();
        let alarms = alarms.wait_for(|alarms| !alarms.is_empty()).await.unwrap();
        alarms.iter().min().copied().unwrap()
    }

    /// Lets `work` go on to its end, and moves the clock on whenever somebody sleeps by it meanwhile.
    pub async fn moving_on<T>(&self, work: impl Future<Output = T>) -> T {
        let begun = self.now();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                at = self.next_alarm() => {
                    let moved = Duration::try_from(at.duration_since(begun)).unwrap_or_default();
                    assert!(moved < RESTLESS, "the work does not come to rest");
                    if at > self.now() {
                        self.clock.set(at);
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Returns once somebody sleeps beyond now: a worker that runs has nothing to do any more.
    pub async fn asleep(&self) {
        let mut alarms = self.alarms.subscribe();
        let sleeps = alarms.wait_for(|alarms| !alarms.is_empty() && alarms.iter().all(|at| *at > self.now()));
        let slept = tokio::time::timeout(PATIENCE, sleeps).await.map(|alarms| alarms.is_ok());
        assert_eq!(slept, Ok(true), "nobody went to sleep");
    }
}

/// A worker that runs by itself, as in production.
pub struct RunningWorker {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl RunningWorker {
    /// Asks for the end, as a signal does.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Asks for the end, and waits for it.
    pub async fn stopped(self) {
        self.stop();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("the worker ends");
        ended.expect("the worker ends in order");
    }
}

/// A further instance of the service on the same store.
pub struct Instance {
    pub service: Arc<Service>,
    pub worker: Arc<Worker>,
    pub jobs: Jobs,
    clock: ServiceClock,
}

/// Writes from a phone, and sees to whatever comes of it; says what came back.
pub async fn says(world: &mut World, phone: &str, text: &str) -> String {
    let reply = world.sim().reply(phone, text).await.unwrap();
    world.work().await;
    reply.answers.concat()
}

impl Instance {
    /// Does all that is there to do now.
    pub async fn work(&mut self) {
        self.clock.moving_on(self.worker.drain(&mut self.jobs)).await;
    }
}

impl Setting {
    /// A Twilio that fails so, from the start.
    pub async fn start_with(self, fault: FaultRule) -> World {
        let world = self.start().await;
        world.goes_wrong(fault);
        world
    }
}

impl World {
    /// A student who has agreed, and an event of this score. Gives the reference.
    pub async fn told(&self, user_id: &str, score: f64) -> String {
        self.consents(user_id).await;
        self.event(&event(user_id, score)).await.expect(202).text_at("/reference")
    }

    /// Makes Twilio misbehave.
    pub fn goes_wrong(&self, rule: FaultRule) {
        assert!(self.sim().push_fault(rule));
    }

    /// Lets the worker run by itself from now on; `grace` is what it has to finish in at the end.
    pub fn run_worker(&mut self, grace: Duration) -> RunningWorker {
        let jobs = self.running.jobs.take().expect("the worker does not run yet");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(self.worker().run(jobs, shutdown.clone(), grace));
        RunningWorker { shutdown, task }
    }

    /// Waits until a worker that runs has looked at everything that is due, and sleeps.
    pub async fn worker_asleep(&self) {
        self.running.clock.asleep().await;
    }

    /// Waits, by the machine's clock, until `holds` does.
    pub async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let wait = async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
    }

    /// A further instance on the same store, with leases, places, pace and breaker of its own.
    pub async fn further_instance(&self) -> Instance {
        self.further_instance_on(&self.running.store).await
    }

    /// The same, by another way to the store.
    pub async fn further_instance_on(&self, store: &Arc<dyn Store>) -> Instance {
        let clock = ServiceClock::new(&self.clock);
        let App { service, worker, jobs, .. } = assemble(&self.running.config, &self.running.provider, &clock, store)
            .await
            .expect("a second worker is put together");
        Instance { service, worker, jobs, clock }
    }

    /// Nobody listens any more where Twilio was: connections are refused.
    pub async fn twilio_goes_away(&mut self) {
        let elsewhere = SimulatorConfig { bind: "127.0.0.1:0".parse().unwrap(), ..SimulatorConfig::default() };
        let placeholder = Simulator::start(elsewhere, Arc::new(self.clock.clone()), Arc::new(SeededEntropy::new(0)));
        let gone = std::mem::replace(&mut self.simulator, placeholder.await.unwrap());
        gone.shutdown().await.unwrap();
    }

    /// Somebody listens there again: a Twilio that has forgotten everything.
    pub async fn twilio_comes_back(&mut self) {
        let bind = self.access.url.socket_addrs(|| None).unwrap()[0];
        let config = SimulatorConfig { bind, callbacks: CallbackMode::Manual, ..SimulatorConfig::default() };
        let back = Simulator::start(config, Arc::new(self.clock.clone()), Arc::new(SeededEntropy::new(9)));
        self.simulator = back.await.expect("the address is free again");
    }

    /// A case as it is stored.
    pub async fn stored(&self, reference: &str) -> Alert {
        let found = self.store().alert_by_reference(&"default".parse().unwrap(), reference.parse().unwrap()).await;
        found.unwrap().expect("the case is stored")
    }

    /// The last message of a case, as the API shows it.
    pub async fn last_delivery(&self, reference: &str) -> Value {
        let alert = self.alert(reference).await;
        alert["deliveries"].as_array().unwrap().last().expect("somebody is told").clone()
    }

    /// Fails the story unless the last message of a case is in this state.
    #[track_caller]
    pub fn expect_state(&self, reference: &str, state: &str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let delivery = self.last_delivery(reference).await;
            assert_eq!(delivery["state"], state, "at {at}: {delivery}");
        }
    }

    /// When the last message of a case is acted on next, counted from the story's begin.
    pub async fn next_action_after(&self, reference: &str) -> Duration {
        let delivery = self.last_delivery(reference).await;
        let at: Timestamp = delivery["next_action_at"].as_str().expect("something is due").parse().unwrap();
        Duration::try_from(at.duration_since(super::START.parse().unwrap())).unwrap()
    }

    /// How many create calls Twilio has seen.
    pub fn calls(&self) -> usize {
        self.sim().requests().len()
    }

    /// What the counsellor's phone shows of a case.
    pub fn on_the_phone(&self, reference: &str) -> Vec<SimMessage> {
        let mut messages = self.sim().messages_to(COUNSELLOR);
        messages.retain(|message| message.body.contains(reference));
        messages
    }

    /// The phone has got one more message of this case, which the story expects.
    #[track_caller]
    pub fn expect_on_the_phone(&self, reference: &str) -> SimMessage {
        match self.sim().expect_message(COUNSELLOR, |message| message.body.contains(reference)) {
            Ok(message) => message,
            Err(told) => panic!("{told}"),
        }
    }

    /// The phone has got so many messages of this case, and nothing that the story does not expect.
    #[track_caller]
    pub fn expect_only(&self, reference: &str, count: usize) {
        for _ in self.on_the_phone(reference).iter().filter(|message| !message.expected) {
            self.expect_on_the_phone(reference);
        }
        assert_eq!(self.on_the_phone(reference).len(), count, "messages of the case on the phone");
        self.sim().assert_no_unexpected();
    }

    /// What `/metrics` says of a name with its labels; nothing counts as 0.
    pub async fn counted(&self, name: &str) -> f64 {
        let text = self.request(reqwest::Method::GET, "/metrics", None, None).await.expect(200).text;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// How often the operator was alarmed of this.
    pub async fn alarms(&self, kind: &str) -> f64 {
        self.counted(&format!("crisis_relay_alarms_total{{kind=\"{kind}\"}}")).await
    }

    /// Whether the service calls itself ready, and what it says of its parts.
    pub async fn readiness(&self) -> (bool, Value) {
        let answer = self.request(reqwest::Method::GET, "/readyz", None, None).await;
        (answer.status == 200, answer.json()["checks"].clone())
    }

    /// The counsellor takes the case by replying on the phone.
    pub async fn taken_by_reply(&self, reference: &str) {
        let reply = self.sim().reply(COUNSELLOR, &format!("1 {reference}")).await.unwrap();
        assert!(reply.answers.iter().any(|text| text.contains(reference)), "confirmed: {reply:?}");
    }

    /// What must hold at the end of every story.
    pub async fn holds_its_promises(&self) {
        self.assert_audit_verifies().await;
        self.assert_nothing_is_silent().await;
    }
}

/// An event of a student who agreed, with this score.
pub fn event(user_id: &str, score: f64) -> Value {
    json!({ "user_id": user_id, "crisis_score": score, "source": "chat" })
}

/// Seconds.
pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
