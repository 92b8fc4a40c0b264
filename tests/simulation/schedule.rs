//! One schedule: a storm in which anything may happen, then a calm in which everything must come right.
//!
//! At each step everything runs until nobody can go on by themselves; then the seed chooses one thing: a call of the store
//! goes on (well, badly, or as the last deed of its process), somebody does something, a process dies, stops or starts,
//! the clock is set, or time passes to when something is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{Alert, AlertState};
use crisis_relay::domain::delivery::DeliveryState;
use crisis_relay::domain::provider::MessageStatus;
use crisis_relay::service::verification::verify_all;
use jiff::SignedDuration;

use crate::college::{self, Setup};
use crate::hub::{Fate, Hub, Idle, Process, Violation, Waiting};
use crate::instance::{Ground, Instance};
use crate::memory::Memory;
use crate::people::{Deed, People};
use crate::plant::Plant;
use crate::twilio::Exchange;
use crate::watch::{Watch, rule};
use crate::weather::{Trouble, Weather};

/// How long it may take after the last fault until everybody who waits is told: the longest pause, some rounds of the
/// ladder, and what a clock that was set back costs.
const CALM: Duration = Duration::from_secs(12 * 60);
/// After that long without a fault nothing may be late any more, and by how much it may be.
const CALM_SETTLES: Duration = Duration::from_secs(120);
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// Far more than any schedule needs: whoever gets there turns in circles.
const STEPS: usize = 30_000;

/// What came of a schedule.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: String,
    pub(crate) tail: String,
    pub(crate) seen: BTreeMap<String, usize>,
}

/// Runs the schedule of a seed, in a runtime of its own.
pub(crate) fn run(seed: u64, plant: Plant) -> Report {
    let idle = Arc::new(Idle::default());
    let parks = Arc::clone(&idle);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .on_thread_park(move || parks.parks())
        .build()
        .expect("a runtime on this thread");
    let hub = Hub::new(seed, idle);
    runtime.block_on(async {
        let mut schedule = Schedule::new(&hub, plant);
        schedule.storm().await;
        schedule.calm().await;
        schedule.end().await;
    });
    Report { seed, violation: hub.violation(), trace: hub.trace(), tail: hub.tail(), seen: hub.seen() }
}

/// Where an instance runs, or will run again.
#[derive(Default)]
struct Place {
    instance: Option<Instance>,
    starts_at: Duration,
}

struct Schedule {
    hub: Arc<Hub>,
    ground: Ground,
    trouble: Trouble,
    people: People,
    places: Vec<Place>,
    processes: u32,
    /// The store is away until then.
    store_back: Duration,
    next_deed: Duration,
    /// How often people do something.
    pauses: Duration,
    calm_since: Option<Duration>,
}

impl Schedule {
    fn new(hub: &Arc<Hub>, plant: Plant) -> Self {
        let memory = Memory::default();
        let watch = Watch::new(hub, &memory);
        let setup = Setup::draw(&hub.chance);
        let weather = Weather::draw(&hub.chance);
        let trouble = Trouble::draw(&hub.chance);
        hub.note(format_args!("{setup:?}"));
        hub.note(format_args!("{weather:?}"));
        hub.note(format_args!("{trouble:?}"));
        let exchange = Exchange::new(hub, &watch, weather);
        let places = (0..if setup.exclusive { 1 } else { 2 }).map(|_| Place::default()).collect();
        let pauses = *hub.chance.one_of(&[Duration::from_millis(300), Duration::from_secs(3), Duration::from_secs(25)]);
        Self {
            hub: Arc::clone(hub),
            ground: Ground { hub: Arc::clone(hub), watch, memory, exchange, setup, plant },
            trouble,
            people: People::default(),
            places,
            processes: 0,
            store_back: Duration::ZERO,
            next_deed: Duration::ZERO,
            pauses,
            calm_since: None,
        }
    }

    // -- the storm ---------------------------------------------------------------------------------------------------

    async fn storm(&mut self) {
        let deeds = self.ground.setup.students + 8 + self.hub.chance.below(25);
        let mut done = 0;
        while done < deeds && self.goes_on().await {
            if self.hub.elapsed() >= self.next_deed && self.somebody().is_some() {
                let pauses = self.pauses;
                self.next_deed += self.hub.chance.span(Duration::ZERO, pauses * 2);
                self.deed(done);
                done += 1;
            } else {
                self.move_on();
            }
        }
    }

    /// The beginning of a step: whether there is a next one.
    async fn goes_on(&mut self) -> bool {
        self.hub.next_step();
        self.hub.idle().await;
        self.hub.require(self.hub.step() < STEPS, rule::COMES_TO_REST, || format!("{STEPS} steps"));
        self.hub.require(!self.people.somebody_panicked(), rule::NO_PANIC, || "a request".to_owned());
        self.see_to_instances().await;
        self.hub.idle().await;
        self.hub.violation().is_none()
    }

    /// Buries the dead, and starts whoever is to start.
    async fn see_to_instances(&mut self) {
        for place in 0..self.places.len() {
            if let Some(instance) = &self.places[place].instance {
                let (dead, ended) = (self.hub.is_dead(instance.process), instance.has_ended());
                self.hub.require(dead || !ended || instance.is_stopping(), rule::NO_PANIC, || "a worker".to_owned());
                if ended && !dead {
                    self.hub.see("stopped in order");
                    self.hub.die(instance.process);
                }
                if dead || ended {
                    let pause = self.hub.chance.span(Duration::ZERO, Duration::from_secs(45));
                    let starts_at = self.hub.elapsed() + pause;
                    self.places[place] = Place { instance: None, starts_at };
                }
            }
            if self.places[place].instance.is_none() && self.places[place].starts_at <= self.hub.elapsed() {
                self.processes += 1;
                let instance = Instance::start(&self.ground, Process(self.processes)).await;
                self.places[place].instance = Some(instance);
            }
        }
    }

    /// An instance that takes requests.
    fn somebody(&self) -> Option<&Instance> {
        let serves = |instance: &&Instance| !instance.is_stopping() && !self.hub.is_dead(instance.process);
        let there: Vec<&Instance> =
            self.places.iter().filter_map(|place| place.instance.as_ref()).filter(serves).collect();
        if there.is_empty() { None } else { Some(*self.hub.chance.one_of(&there)) }
    }

    /// Somebody does something, or something happens to the world.
    fn deed(&mut self, done: usize) {
        #[derive(Clone, Copy)]
        enum What {
            Event,
            Consent,
            Decision(Deed),
            Reply,
            Death,
            Stop,
            ClockForth,
            ClockBack,
            ClockRight,
            StoreAway,
            ProviderAway,
        }
        let hub = Arc::clone(&self.hub);
        let what = hub.chance.weighted(&[
            (6.0, What::Event),
            (2.0, What::Consent),
            (1.0, What::Decision(Deed::Acknowledge)),
            (0.6, What::Decision(Deed::Resolve)),
            (0.8, What::Decision(Deed::Override)),
            (2.0, What::Reply),
            (0.8, What::Death),
            (0.3, What::Stop),
            (0.2, What::ClockForth),
            (0.3, What::ClockBack),
            (0.1, What::ClockRight),
            (0.4, What::StoreAway),
            (0.4, What::ProviderAway),
        ]);
        let Some(place) = self.somebody().map(|instance| instance.process) else { return };
        let is_it = |instance: &&Instance| instance.process == place;
        let Some(at) = self.places.iter().filter_map(|place| place.instance.as_ref()).find(is_it) else { return };
        let (ground, people) = (&self.ground, &mut self.people);
        let far =
            || hub.chance.span(Duration::from_secs(1), Duration::from_secs(*hub.chance.one_of(&[20, 600, 10_000])));
        let away = || hub.elapsed() + hub.chance.span(Duration::from_secs(1), Duration::from_secs(60));
        match what {
            // Most students have agreed before anything happens.
            _ if done < ground.setup.students => {
                people.consent(ground, at, Some(hub.chance.happens(0.8)));
            }
            What::Event => people.event(ground, at),
            What::Consent => {
                let student = people.consent(ground, at, None);
                // What is said just when an event comes in is what is easily overlooked.
                if hub.chance.happens(0.4) {
                    people.event_of(ground, at, student);
                }
            }
            What::Decision(deed) => people.decision(ground, at, deed),
            What::Reply => people.reply(ground, at),
            What::Death => {
                hub.see("death between calls");
                hub.die(at.process);
            }
            What::Stop => {
                hub.note(format_args!("{} is asked to stop", at.process));
                at.stop();
            }
            What::ClockForth => self.set_clock(SignedDuration::try_from(far()).unwrap_or_default()),
            What::ClockBack => self.set_clock(-SignedDuration::try_from(far()).unwrap_or_default()),
            What::ClockRight => self.set_clock(hub.true_time().duration_since(hub.wall())),
            What::StoreAway => {
                self.store_back = away();
                hub.note(format_args!("the store is away until {:?}", self.store_back));
                hub.see("store away");
            }
            What::ProviderAway => {
                let until = away();
                hub.note(format_args!("the provider is away until {until:?}"));
                hub.see("provider away");
                ground.exchange.goes_down(until);
            }
        }
    }

    fn set_clock(&self, by: SignedDuration) {
        self.hub.note(format_args!("the clock is set by {by:?}"));
        self.hub.see(if by.is_negative() { "clock set back" } else { "clock set forth" });
        self.hub.set_clock(by);
    }

    /// One call goes on; or time passes, if none waits, or the store is slow.
    fn move_on(&mut self) {
        let waiting = self.hub.waiting();
        let slow = self.calm_since.is_none() && self.hub.chance.happens(self.trouble.slow);
        if waiting > 0 && !slow {
            let fate = |waiting: &Waiting| self.fate(waiting);
            self.hub.grant(self.hub.chance.below(waiting), fate);
            return;
        }
        let mut next: Vec<Duration> =
            self.places.iter().filter(|place| place.instance.is_none()).map(|place| place.starts_at).collect();
        next.extend(self.hub.next_wake());
        next.extend(self.ground.exchange.next_event());
        next.extend(self.people.next_try());
        if self.calm_since.is_none() {
            next.push(self.next_deed);
        }
        let now = self.hub.elapsed();
        let soon = now + self.hub.chance.span(Duration::from_millis(1), Duration::from_secs(3));
        let latest = if waiting > 0 { soon } else { now + Duration::from_secs(600) };
        let to = next.into_iter().filter(|at| *at > now).min().map_or(latest, |at| at.min(latest));
        self.hub.pass(to);
        self.post();
    }

    /// What the provider and the backends post, now that time has passed.
    fn post(&mut self) {
        let callbacks = self.ground.exchange.act();
        let Some(process) = self.somebody().map(|instance| instance.process) else {
            return callbacks.into_iter().for_each(|callback| self.ground.exchange.post_again(callback));
        };
        let is_it = |instance: &&Instance| instance.process == process;
        let Some(at) = self.places.iter().filter_map(|place| place.instance.as_ref()).find(is_it) else { return };
        for callback in callbacks {
            self.people.callback(&self.ground, at, callback);
        }
        self.people.post_again(&self.ground, at);
    }

    fn fate(&self, waiting: &Waiting) -> Fate {
        let (chance, trouble) = (&self.hub.chance, &self.trouble);
        if self.calm_since.is_some() {
            return Fate::Pass;
        }
        if self.hub.elapsed() < self.store_back {
            return Fate::Fail;
        }
        let draws = [
            (trouble.fail, Fate::Fail, true),
            (trouble.lost, Fate::Lost, waiting.writes),
            (trouble.pass_unknown, Fate::PassUnknown, waiting.writes),
            (trouble.die, Fate::DieBefore, true),
            (trouble.die, Fate::DieAfter, waiting.writes),
        ];
        let drawn = draws.into_iter().find(|(probability, _, fits)| *fits && chance.happens(*probability));
        drawn.map_or(Fate::Pass, |(_, fate, _)| fate)
    }

    // -- the calm ----------------------------------------------------------------------------------------------------

    /// No more faults, and nobody does anything more: all that is open must come right by itself.
    async fn calm(&mut self) {
        let since = self.hub.elapsed();
        self.hub.note(format_args!("calm"));
        self.calm_since = Some(since);
        self.ground.exchange.clear_up();
        for place in &mut self.places {
            place.starts_at = place.starts_at.min(since + Duration::from_secs(1));
        }
        while self.goes_on().await {
            if self.hub.waiting() == 0 {
                let lacks = self.lacks(since);
                let Some((rule, what)) = lacks else { return };
                if self.hub.elapsed() > since + CALM {
                    return self.hub.violated(rule, what);
                }
                if self.hub.elapsed() > since + CALM_SETTLES {
                    self.nothing_is_late();
                }
            }
            self.move_on();
        }
    }

    /// What is still missing.
    fn lacks(&self, since: Duration) -> Option<(&'static str, String)> {
        for (alert, _) in self.ground.memory.alerts() {
            let in_hand =
                |state: &DeliveryState| matches!(state, DeliveryState::Sending { .. } | DeliveryState::Unknown { .. });
            if alert.deliveries.iter().any(|delivery| in_hand(&delivery.state)) {
                return Some((rule::AT_REST, shown(&alert)));
            }
            let waits = matches!(alert.state, AlertState::Escalating { .. });
            if waits && !self.is_told(&alert, since) {
                return Some((rule::TOLD, shown(&alert)));
            }
        }
        let instances: Vec<&Instance> = self.places.iter().filter_map(|place| place.instance.as_ref()).collect();
        if let Some(instance) = instances.iter().find(|instance| instance.in_hand() > 0) {
            return Some((rule::AT_REST, format!("{} holds {} places", instance.process, instance.in_hand())));
        }
        if !self.people.all_answered() {
            return Some((rule::ANSWERED, "an event with a key".to_owned()));
        }
        (instances.len() < self.places.len()).then(|| (rule::AT_REST, "not all have started".to_owned()))
    }

    /// Whether a phone has got a message of this case since then, and the service knows it.
    fn is_told(&self, alert: &Alert, since: Duration) -> bool {
        let arrived = self.ground.exchange.with_messages(|messages| {
            let fits = |message: &&crate::twilio::Message| {
                message.attempt.alert == alert.id && message.made >= since && message.status.has_arrived()
            };
            messages.iter().filter(fits).map(|message| message.attempt).collect::<Vec<_>>()
        });
        arrived.iter().any(|attempt| {
            let record = alert.delivery(attempt.delivery).and_then(|delivery| delivery.attempt(attempt.attempt));
            record.and_then(|record| record.status).is_some_and(MessageStatus::has_arrived)
        })
    }

    fn nothing_is_late(&self) {
        let now = self.hub.wall();
        for (alert, indexed) in self.ground.memory.alerts() {
            let due = alert.next_action_at();
            let late = due.is_some_and(|due| now.duration_since(due) > LATE);
            self.hub.require(!late, rule::ON_TIME, || {
                format!("due {due:?}, indexed {indexed:?}, now {now}: {}", shown(&alert))
            });
        }
    }

    /// What must hold of all that is stored.
    async fn end(&self) {
        self.ground.watch.everything_is_kept();
        let store = self.ground.memory.open(true);
        match verify_all(&store, &[college::organisation()]).await {
            Ok(found) => {
                self.hub.require(found.faults.is_empty(), rule::CHAIN, || format!("{:?}", found.faults));
            }
            Err(error) => self.hub.violated(rule::CHAIN, error),
        }
        self.hub.note(format_args!("end"));
    }
}

/// An alert in a few lines.
fn shown(alert: &Alert) -> String {
    let deliveries = alert.deliveries.iter().map(|delivery| {
        format!("\n  {} to {} over {:?}: {:?}", delivery.no, delivery.contact, delivery.channel, delivery.state)
    });
    format!("{} v{} {:?}{}", &alert.id.to_string()[30..], alert.version, alert.state, deliveries.collect::<String>())
}
