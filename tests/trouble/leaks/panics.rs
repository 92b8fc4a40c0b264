//! Panics that quote what they were given: in a handler, in a webhook, and in the worker. The service runs in a process of
//! its own, as the binary does, but with parts that break where the words that they are given ask for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use crisis_relay::app::{self, Adapters, App};
use crisis_relay::cli::logging;
use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::config;
use crisis_relay::domain::contact::{Channel, PhoneNumber};
use crisis_relay::domain::ids::{OrganisationId, PersonKey, ProviderId};
use crisis_relay::domain::provider::{Receipt, SendOutcome};
use crisis_relay::domain::sealed::Sealed;
use crisis_relay::http::{ServeSettings, serve};
use crisis_relay::ports::{
    DataKey, Fault, HashPurpose, Keyring, KeyringError, ListedMessage, LookUpError, MessageRequest, SealedField,
    TwilioClient, WrappedDataKey,
};
use crisis_relay::simulator::{Inbound, Quote};
use crisis_relay::store::sqlite::SqliteStore;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::canaries::{self as say, Surface};
use super::life::{self, Life};
use super::{calls, canaries, files, log_of, talkative_twilio};
use crate::middleman::Middleman;
use crate::relay::until;

/// Words that make a part break.
const BREAKS_HASH: &str = "breaks-the-hash";
const BREAKS_SEAL: &str = "breaks-the-seal";
const BREAKS_OPENING: &str = "breaks-the-opening";

/// Set for the service below, and for nobody else.
const IS_PLAYED: &str = "LEAKS_OF_BRITTLE_PARTS";

/// The first time that something is done.
#[derive(Clone, Default)]
struct Once(Arc<AtomicBool>);

impl Once {
    fn is_now(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

struct BrittleKeyring {
    inner: Arc<dyn Keyring>,
    /// The only numbers that can be hashed: those of the configuration.
    known: Vec<PhoneNumber>,
    opened_number: Once,
}

struct BrittleKey {
    inner: Arc<dyn DataKey>,
    opened_number: Once,
}

impl BrittleKeyring {
    fn brittle(&self, inner: Arc<dyn DataKey>) -> Arc<dyn DataKey> {
        Arc::new(BrittleKey { inner, opened_number: self.opened_number.clone() })
    }
}

impl Keyring for BrittleKeyring {
    fn index_id(&self) -> &str {
        self.inner.index_id()
    }

    fn hash(&self, purpose: HashPurpose, parts: &[&[u8]]) -> [u8; 32] {
        let quoted: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(part)).collect();
        if purpose == HashPurpose::Subject && quoted.iter().any(|part| part.contains(BREAKS_HASH)) {
            panic!("no hash of the student {quoted:?}");
        }
        let is_known = |part: &str| self.known.iter().any(|number| number.expose() == part);
        if purpose == HashPurpose::Address && !quoted.iter().any(|part| is_known(part)) {
            panic!("no hash of the number {quoted:?}");
        }
        self.inner.hash(purpose, parts)
    }

    fn new_data_key(
        &self,
        organisation: &OrganisationId,
        person: PersonKey,
        now: Timestamp,
    ) -> (WrappedDataKey, Arc<dyn DataKey>) {
        let (wrapped, key) = self.inner.new_data_key(organisation, person, now);
        (wrapped, self.brittle(key))
    }

    fn open_data_key(&self, wrapped: &WrappedDataKey) -> Result<Arc<dyn DataKey>, KeyringError> {
        self.inner.open_data_key(wrapped).map(|key| self.brittle(key))
    }
}

impl DataKey for BrittleKey {
    fn seal(&self, field: SealedField, text: &str) -> Sealed {
        assert!(!text.contains(BREAKS_SEAL), "no seal for {field:?}: {text}");
        self.inner.seal(field, text)
    }

    fn open(&self, field: SealedField, sealed: &Sealed) -> Result<String, KeyringError> {
        let text = self.inner.open(field, sealed)?;
        if field == SealedField::Address && self.opened_number.is_now() {
            std::panic::panic_any(format!("the number {text} should not be open"));
        }
        assert!(!text.contains(BREAKS_OPENING), "{field:?} should not be open: {text:?}");
        Ok(text)
    }
}

struct BrittleTwilio {
    inner: Arc<dyn TwilioClient>,
    created: Once,
    listed: Once,
}

#[async_trait]
impl TwilioClient for BrittleTwilio {
    async fn create_message(&self, request: &MessageRequest) -> SendOutcome {
        if self.created.is_now() {
            assert_eq!(request.to.expose(), "nobody", "a call to");
        }
        self.inner.create_message(request).await
    }

    async fn fetch_message(&self, id: &ProviderId) -> Result<Receipt, LookUpError> {
        self.inner.fetch_message(id).await
    }

    async fn list_messages(
        &self,
        channel: Channel,
        to: &PhoneNumber,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ListedMessage>, LookUpError> {
        assert!(!self.listed.is_now(), "no list of what {} was sent", to.expose());
        self.inner.list_messages(channel, to, since, limit).await
    }

    async fn check(&self) -> Vec<Fault> {
        self.inner.check().await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the service of the test below, in a process of its own"]
async fn a_service_of_brittle_parts() {
    if std::env::var_os(IS_PLAYED).is_none() {
        return;
    }
    let mut config = config::from_process(None).unwrap_or_else(|faults| panic!("{faults}"));
    let _last_lines = logging::init(&config);
    let listener = tokio::net::TcpListener::bind(config.http.bind).await.unwrap();
    config.http.bind = listener.local_addr().unwrap();
    let provider = app::provider(&config, None);
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let keyring = BrittleKeyring {
        inner: Arc::new(app::open_keyring(&config, entropy.clone()).unwrap()),
        known: {
            let (counsellor, twilio) = (&config.counsellor, &config.twilio);
            let counsellor = [&counsellor.whatsapp_to, &counsellor.sms_to, &counsellor.voice_to];
            let senders = [&twilio.whatsapp_from, &twilio.sms_from, &twilio.voice_from];
            let others = config.contacts.iter().flat_map(|contact| &contact.methods).map(|(_, number)| number);
            counsellor.into_iter().chain(senders).flatten().chain(others).cloned().collect()
        },
        opened_number: Once::default(),
    };
    let twilio = BrittleTwilio {
        inner: Arc::new(app::rest_client(&provider, clock.clone()).unwrap()),
        created: Once::default(),
        listed: Once::default(),
    };
    let store = Arc::new(SqliteStore::open(&app::sqlite_settings(&config)).unwrap());
    let adapters = Adapters { store, keyring: Arc::new(keyring), twilio: Arc::new(twilio), clock, entropy };
    let App { worker, jobs, router, store, .. } = app::assemble(&config, &provider, adapters).await.unwrap();
    let end = CancellationToken::new();
    let settings = ServeSettings { shutdown_grace: config.http.shutdown_grace, ..ServeSettings::default() };
    let working = tokio::spawn(worker.run(jobs, end.clone(), config.http.shutdown_grace));
    let serving = tokio::spawn({
        let end = end.clone();
        async move { serve(listener, router, &settings, end).await }
    });
    let mut asked_to_end = signal(SignalKind::terminate()).unwrap();
    tracing::info!(url = %app::local_url(config.http.bind), "listening");
    asked_to_end.recv().await;
    end.cancel();
    serving.await.unwrap();
    working.await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_said_or_owns_gets_out_through_panics() {
    let simulator = talkative_twilio().await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let exe = std::env::current_exe().unwrap();
    let played = [exe.to_str().unwrap(), "--exact", PLAYED, "--ignored", "--nocapture"];
    let setting = life::setting(&wire.url())
        .await
        .with(IS_PLAYED, "1")
        .with("CRISIS_RELAY__DELIVERY__LEASE", "3s")
        .with("CRISIS_RELAY__WORKER__POLL", "100ms")
        .through(&played);
    let mut life = Life { sim: &sim, wire: &wire, exhibits: Vec::new(), sent: Vec::new() };
    let mut relay = setting.clone().start(&sim).await;

    // In handlers.
    let key = say::in_full(say::service_key());
    let mut bodies = [life::event(), life::event(), life::event()];
    bodies[0]["user_id"] = json!(format!("{}-{BREAKS_HASH}", say::student()));
    bodies[1]["message"] = json!(format!("{} {BREAKS_SEAL}", say::message()));
    bodies[2]["message"] = json!(format!("{} {BREAKS_OPENING}", say::message()));
    bodies[2]["emergency_override"] = life::stated();
    let [hashed, sealed, taken] = bodies;
    for body in [hashed, sealed] {
        life.ask(&relay, Method::POST, life::EVENTS, &key, Some(&body)).await.expect(500);
    }

    // In the worker, who reads a number, looks for a message, and sends one.
    let taken = life.ask(&relay, Method::POST, life::EVENTS, &key, Some(&taken)).await.expect(202);
    let phone = say::in_full(say::counsellor());
    until("the phone has been told, for all the panics", async || !sim.messages_to(&phone).is_empty()).await;

    // In a person's hands, and in a webhook's.
    let path = format!("/api/v1/crisis/alerts/{}/reveal", taken.reference());
    life.ask(&relay, Method::POST, &path, &life::token("admin", 3600), Some(&json!({}))).await.expect(500);
    let mut inbound = Inbound::new(&say::in_full(say::stranger()), &say::in_full(say::reply())).quoting(Quote::Nothing);
    inbound.profile_name = say::profile().to_owned();
    let answered = format!("{:?}", sim.receive(&inbound).await.map(|reply| reply.answers));
    life.exhibits.push(canaries::Exhibit::new(Surface::Answers, "a phone's answer", answered.as_bytes()));
    life.ask(&relay, Method::GET, "/metrics", "", None).await.expect(200);
    relay.stop();

    let log = relay.log();
    let places: BTreeSet<&str> = log
        .lines()
        .filter(|line| line.contains("panic"))
        .filter_map(|line| line.split_once("tests/trouble/leaks/panics.rs:").map(|(_, place)| place))
        .filter_map(|place| place.split(':').next())
        .collect();
    assert_eq!(places.len(), 7, "every part broke, and the log says where: {places:?}\n{log}");
    life.exhibits.extend(log_of(&relay, "of panics"));
    life.exhibits.extend(files(&setting, "after panics"));
    life.exhibits.extend(calls(&wire));
    life.leaks_nothing(&setting);
}

/// The full name of the service's test.
const PLAYED: &str = "leaks::panics::a_service_of_brittle_parts";
