//! One life of one instance of the service: the real service and the real worker, over the schedule's ports.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::alarm::Alarms;
use crisis_relay::clock::SeededEntropy;
use crisis_relay::domain::message::BandThresholds;
use crisis_relay::metrics::Metrics;
use crisis_relay::ports::{Clock, Entropy, Store, TwilioClient};
use crisis_relay::service::codes::{CodeTexts, WhatsappCode};
use crisis_relay::service::dispatch::Dispatch;
use crisis_relay::service::{Organisation, Service, Settings};
use crisis_relay::twilio::breaker::{Breaker, BreakerLimits};
use crisis_relay::twilio::error_codes;
use crisis_relay::twilio::pace::Pace;
use crisis_relay::worker::{Courier, Paces, Worker, WorkerSettings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::college::{self, LEASE, Setup, Texts};
use crate::disk::Disk;
use crate::hub::{Hub, Process, ProcessClock};
use crate::memory::Memory;
use crate::plant::Plant;
use crate::twilio::{CALL_TIMEOUT, Exchange, Line};
use crate::watch::Watch;

/// A stop is given as long as it takes: how long that is in machine time must not matter. (A stop that takes too long is
/// a death, which the schedule has, too.)
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// What an instance is started in.
pub(crate) struct Ground {
    pub(crate) hub: Arc<Hub>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) memory: Memory,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) setup: Setup,
    pub(crate) plant: Plant,
}

/// See the module's doc.
pub(crate) struct Instance {
    pub(crate) process: Process,
    pub(crate) service: Arc<Service>,
    dispatch: Dispatch,
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Instance {
    pub(crate) async fn start(ground: &Ground, process: Process) -> Self {
        let Ground { hub, watch, memory, exchange, setup, plant } = ground;
        hub.note(format_args!("{process} starts"));
        let entropy = SeededEntropy::new(hub.chance.seed());
        let keyring = college::keyring(entropy.clone());
        let clock: Arc<dyn Clock> = Arc::new(ProcessClock { hub: Arc::clone(hub), process });
        let directory = college::enrolled(&memory.open(setup.exclusive), keyring.as_ref(), clock.now()).await;
        let (hub, watch, memory) = (Arc::clone(hub), Arc::clone(watch), memory.clone());
        let store = memory.open(setup.exclusive);
        let store: Arc<dyn Store> =
            Arc::new(Disk { hub, watch, memory, store: Arc::new(store), process, plant: *plant });
        let (dispatch, jobs) = Dispatch::new(setup.places);
        let organisation = Organisation {
            id: college::organisation(),
            directory,
            senders: Vec::new(),
            codes: CodeTexts { sender: "north".to_owned(), whatsapp: WhatsappCode::Missing, calls: false },
            ladder: college::ladder(setup),
            bands: BandThresholds::default(),
            threshold: college::threshold(),
            texts: Arc::new(college::texts()),
            composer: Arc::new(Texts { templates: setup.templates }),
        };
        let settings = Settings {
            instance: process.to_string(),
            lease: LEASE,
            rules: college::rules(),
            phone_per_minute: 10,
            marks: error_codes::mark_of,
        };
        let (entropy, metrics) = (Arc::new(entropy), Arc::new(Metrics::new()));
        let counted = Arc::clone(&metrics);
        let alarms = Alarms::silent(Arc::clone(&metrics), Arc::clone(&clock), Arc::clone(&entropy) as Arc<dyn Entropy>);
        let organisations = vec![organisation];
        let service = Service::new(
            store,
            keyring,
            Arc::clone(&clock),
            entropy,
            organisations,
            settings,
            dispatch.clone(),
            metrics,
            alarms,
        );
        let service = Arc::new(service);
        let pace = || Pace::new(setup.per_second, 1);
        let line: Arc<dyn TwilioClient> = Arc::new(Line { exchange: Arc::clone(exchange), process });
        let courier = Arc::new(Courier::new(
            Arc::clone(&line),
            Arc::clone(&clock),
            counted,
            Paces::new(pace(), pace(), pace()),
            Breaker::new(BreakerLimits::default()),
            16,
        ));
        let worker = Worker::new(
            Arc::clone(&service),
            line,
            clock,
            dispatch.clone(),
            WorkerSettings {
                poll: setup.poll,
                due_batch: setup.due_batch,
                call_timeout: CALL_TIMEOUT,
                keep_answers: Duration::from_secs(24 * 3600),
                withheld_after: Duration::from_secs(300),
            },
            courier,
        );
        let stop = CancellationToken::new();
        let work = tokio::spawn(Arc::new(worker).run(jobs, stop.clone(), GRACE));
        Self { process, service, dispatch, stop, work }
    }

    /// Asks for the end, as a signal does.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether its worker has ended. It must not end by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.work.is_finished()
    }

    pub(crate) fn in_hand(&self) -> usize {
        self.dispatch.in_hand()
    }
}
