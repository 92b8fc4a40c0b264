//! The store on Firestore, several instances at a time, on Google's emulator.
//!
//! The emulator keeps everything in the memory of one Java process on the same machine: latencies say what the service and
//! its calls cost, not what Google's servers would add. What is counted holds there as well: calls, and documents read,
//! written and deleted.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;

use super::load::{Pace, Shot, fire};
use super::provider::Provider;
use super::scenarios::{PATIENCE, accepted, events, next_run, reference, without_receipts};
use super::service::Service;
use super::statistics::Times;
use super::{Failure, tell};

#[derive(Args)]
pub(crate) struct FirestoreOptions {
    /// How many instances share the work, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4], value_name = "N")]
    instances: Vec<usize>,
    /// How long each rate is held, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    seconds: f64,
    /// Events of a burst.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    burst: usize,
}

/// Rates at which latencies are measured, in events a second over all instances.
const RATES: [f64; 2] = [20.0, 100.0];
/// Connections of a burst, over all instances.
const CONNECTIONS: usize = 64;
/// What Firestore counts, as the service's metrics name it.
const KINDS: [&str; 4] = ["call", "read", "write", "delete"];

pub(crate) fn firestore(options: &FirestoreOptions, folder: &Path) -> Result<(), Failure> {
    let emulator = std::env::var("FIRESTORE_EMULATOR_HOST").map_err(|_| {
        "FIRESTORE_EMULATOR_HOST is not set: start `gcloud emulators firestore start --host-port=127.0.0.1:8082` and name it"
    })?;
    println!(
        "| instances | events | accept p50 / p99 | event to provider p50 / p99 | per alert: calls, commits | documents read, \
         written, deleted | not at the provider | twice |\n|---|---|---|---|---|---|---|---|"
    );
    for count in &options.instances {
        let mut several = Several::start(*count, &emulator, folder)?;
        for rate in RATES {
            tell(&format!("{count} instances, {rate}/s"));
            let events = (rate * options.seconds) as usize;
            let pace = Pace::PerSecond(rate / *count as f64);
            println!("{}", several.post(pace, events).row(*count, &format!("{rate:.0}/s")));
        }
        tell(&format!("{count} instances, burst"));
        let run = several.post(Pace::AtOnce { connections: CONNECTIONS.div_ceil(*count) }, options.burst);
        let a_second = run.came.iter().map(|(_, times)| times.len()).sum::<usize>() as f64 / run.all.as_secs_f64();
        println!("{}", run.row(*count, &format!("burst of {}: {a_second:.0}/s", options.burst)));
    }
    Ok(())
}

/// Instances of one installation.
struct Several {
    provider: Provider,
    services: Vec<Service>,
    run: String,
    posted: usize,
}

/// What a load came to.
struct Run {
    sent: usize,
    shots: Vec<Shot>,
    came: Vec<(Duration, Vec<Instant>)>,
    all: Duration,
    commits: f64,
    asked: [f64; KINDS.len()],
}

impl Several {
    fn start(count: usize, emulator: &str, folder: &Path) -> Result<Self, Failure> {
        let provider = Provider::start(without_receipts())?;
        let run = next_run();
        let project = format!("benchmark-{run}");
        let settings =
            [("STORE", "firestore"), ("FIRESTORE_PROJECT_ID", project.as_str()), ("FIRESTORE_EMULATOR_HOST", emulator)];
        let services = (0..count).map(|_| Service::start_with(folder, provider.address, &settings));
        let services = services.collect::<std::io::Result<_>>()?;
        let mut several = Self { provider, services, run, posted: 0 };
        // Connections and memory of the first moment are not what is measured; nor is the emulator's Java before it is warm.
        several.post(Pace::PerSecond(50.0), 500);
        Ok(several)
    }

    fn commits(&self) -> u64 {
        self.services.iter().map(Service::commits).sum()
    }

    fn asked(&self) -> [u64; KINDS.len()] {
        KINDS.map(|kind| {
            let name = format!("crisis_relay_store_operations_total{{kind=\"{kind}\"}}");
            self.services.iter().map(|service| service.counted(&name)).sum()
        })
    }

    /// Posts events, evenly over the instances, each as fast as `pace` says, and waits until all are at the provider.
    fn post(&mut self, pace: Pace, count: usize) -> Run {
        let each = count / self.services.len();
        self.provider.arrivals.clear();
        let (commits, asked) = (self.commits(), self.asked());
        let loads: Vec<_> = self
            .services
            .iter()
            .enumerate()
            .map(|(no, service)| {
                let target = events(service.address, self.run.clone(), self.posted + no * each);
                std::thread::spawn(move || fire(target, pace, each))
            })
            .collect();
        let shots: Vec<Shot> = loads.into_iter().flat_map(|load| load.join().unwrap_or_default()).collect();
        self.posted += each * self.services.len();
        self.provider.arrivals.wait_for(accepted(&shots).count(), PATIENCE);
        let seen = self.provider.arrivals.by_word();
        let came: Vec<(Duration, Vec<Instant>)> = accepted(&shots)
            .filter_map(|shot| {
                let times = seen.get(&reference(shot)?)?.clone();
                Some((times.first()?.saturating_duration_since(shot.sent), times))
            })
            .collect();
        let begun = shots.iter().map(|shot| shot.sent).min();
        let ended = came.iter().flat_map(|(_, times)| times).max().copied();
        // What came of the last calls is booked a moment after they were made.
        std::thread::sleep(Duration::from_millis(500));
        let share = accepted(&shots).count().max(1) as f64;
        let (commits_after, asked_after) = (self.commits(), self.asked());
        Run {
            sent: each * self.services.len(),
            came,
            all: begun.zip(ended).map(|(begun, ended)| ended.saturating_duration_since(begun)).unwrap_or_default(),
            commits: commits_after.saturating_sub(commits) as f64 / share,
            asked: std::array::from_fn(|at| asked_after[at].saturating_sub(asked[at]) as f64 / share),
            shots,
        }
    }
}

impl Run {
    fn row(&self, instances: usize, load: &str) -> String {
        let accept: Times = accepted(&self.shots).map(|shot| shot.answered - shot.sent).collect();
        let provider: Times = self.came.iter().map(|(took, _)| *took).collect();
        let [calls, reads, writes, deletes] = self.asked;
        let twice: usize = self.came.iter().map(|(_, times)| times.len() - 1).sum();
        format!(
            "| {instances} | {load} | {} | {} | {calls:.1}, {:.1} | {reads:.1}, {writes:.1}, {deletes:.1} | {} | {twice} |",
            accept.p50_p99(),
            provider.p50_p99(),
            self.commits,
            self.sent - self.came.len(),
        )
    }
}
