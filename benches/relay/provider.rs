//! The provider's side: a simulator that notes when each request came, before it reads it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

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
pub struct Arrivals {
    seen: Mutex<Vec<(Instant, Vec<u8>)>>,
}

impl Arrivals {
    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub fn last(&self) -> Option<Instant> {
        self.seen.lock().last().map(|(at, _)| *at)
    }

    pub fn clear(&self) {
        self.seen.lock().clear();
    }

    /// The moments at which requests came that bear a word, oldest first.
    pub fn by_word(&self) -> HashMap<String, Vec<Instant>> {
        let mut words: HashMap<String, Vec<Instant>> = HashMap::new();
        for (at, body) in self.seen.lock().iter() {
            for (name, value) in form_urlencoded::parse(body) {
                if name == "StatusCallback" {
                    continue;
                }
                for word in value.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
                    if word.len() >= WORD_MIN {
                        words.entry(word.to_owned()).or_default().push(*at);
                    }
                }
            }
        }
        words
    }
}

/// A provider that listens, on threads of its own.
pub struct Provider {
    pub arrivals: Arc<Arrivals>,
    pub address: SocketAddr,
    pub handle: SimulatorHandle,
    _runtime: Runtime,
}

impl Provider {
    pub fn start(settings: SimulatorConfig) -> std::io::Result<Self> {
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
