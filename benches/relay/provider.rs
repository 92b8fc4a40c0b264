//! The provider's side: a simulator that notes when each request came, before it reads it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::simulator::{SimulatorConfig, SimulatorHandle, router};

/// Longest request that is read.
const BODY_MAX: usize = 64 * 1024;
/// Shorter words say nothing of which request they came from.
const WORD_MIN: usize = 8;

/// When requests came, by every word that stands in them.
#[derive(Default)]
pub(crate) struct Arrivals {
    seen: Mutex<Vec<(Instant, Vec<u8>)>>,
}

impl Arrivals {
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        self.seen.lock().last().map(|(at, _)| *at)
    }

    pub(crate) fn clear(&self) {
        self.seen.lock().clear();
    }

    /// Waits until so many requests have come, at most `patience` long after the last of them.
    pub(crate) fn wait_for(&self, count: usize, patience: Duration) {
        let (mut seen, mut since) = (self.count(), Instant::now());
        while seen < count && since.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.count();
            if now > seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    /// The moments at which requests came that bear a word, oldest first.
    pub(crate) fn by_word(&self) -> HashMap<String, Vec<Instant>> {
        let mut words: HashMap<String, Vec<Instant>> = HashMap::new();
        for (at, body) in self.seen.lock().iter() {
            let found: HashSet<String> = form_urlencoded::parse(body)
                // The callback's URL names the alert, which the text does as well.
                .filter(|(name, _)| name != "StatusCallback")
                .flat_map(|(name, value)| words_of(&name).chain(words_of(&value)).collect::<Vec<_>>())
                .collect();
            for word in found {
                words.entry(word).or_default().push(*at);
            }
        }
        words
    }

    /// The value of a field in each request that has it.
    pub(crate) fn fields(&self, field: &str) -> Vec<String> {
        let seen = self.seen.lock();
        let found = seen.iter().filter_map(|(_, body)| form_urlencoded::parse(body).find(|(name, _)| name == field));
        found.map(|(_, value)| value.into_owned()).collect()
    }
}

/// A body that is no form comes as one long name.
pub(crate) fn words_of(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() >= WORD_MIN).map(str::to_owned)
}

/// A provider that listens, on threads of its own.
pub(crate) struct Provider {
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) address: SocketAddr,
    pub(crate) handle: SimulatorHandle,
    _runtime: Runtime,
}

impl Provider {
    pub(crate) fn start(settings: SimulatorConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let arrivals = Arc::new(Arrivals::default());
        let bind = settings.bind;
        let noting = Arc::clone(&arrivals);
        let (handle, address) = runtime.block_on(async move {
            let handle = SimulatorHandle::new(settings, Arc::new(SystemClock), Arc::new(SystemEntropy))?;
            let app = router(handle.clone()).layer(from_fn_with_state(noting, note));
            let listener = TcpListener::bind(bind).await?;
            let address = listener.local_addr()?;
            tokio::spawn(async move { axum::serve(listener, app).await });
            Ok::<_, std::io::Error>((handle, address))
        })?;
        Ok(Self { arrivals, address, handle, _runtime: runtime })
    }
}

async fn note(State(arrivals): State<Arc<Arrivals>>, request: Request, next: Next) -> Response {
    let at = Instant::now();
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    if head.method == axum::http::Method::POST && !head.uri.path().starts_with("/_simulator") {
        arrivals.seen.lock().push((at, body.to_vec()));
    }
    next.run(Request::from_parts(head, Body::from(body))).await
}
