//! The load: requests sent at their times, whatever has become of those before them.
//!
//! The generator is open: it never waits for an answer before it sends the next request, so a service that stalls is seen
//! by every request that falls into the stall. A thread of its own keeps the times; each request goes out on a
//! connection that is idle, or on a new one.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;

/// How requests are made: the `n`th one's headers and body.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) request: Box<dyn Fn(usize) -> Form + Send>,
}

/// What differs from one request to the next.
pub(crate) struct Form {
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Evenly spread, so many a second.
    PerSecond(f64),
    /// As fast as so many connections take them.
    AtOnce { connections: usize },
}

/// What became of one request.
pub(crate) struct Shot {
    /// Which one it is.
    pub(crate) no: usize,
    /// When it should have gone out.
    pub(crate) due: Instant,
    /// When it was ready to go; a wait for a connection counts from here on.
    pub(crate) sent: Instant,
    /// When the whole answer was there.
    pub(crate) answered: Instant,
    /// The status; 0 where there was no answer.
    pub(crate) status: u16,
    /// The answer's body.
    pub(crate) answer: Bytes,
}

/// Sends `count` requests and waits for all answers. Runs on a thread of its own until then.
pub(crate) fn fire(target: Target, pace: Pace, count: usize) -> Vec<Shot> {
    let thread = std::thread::spawn(move || {
        #[expect(clippy::expect_used, reason = "without a runtime there is nothing to measure")]
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, all(target, pace, count))
    });
    thread.join().unwrap_or_default()
}

async fn all(target: Target, pace: Pace, count: usize) -> Vec<Shot> {
    let gun = Rc::new(Gun { target, idle: RefCell::default(), places: Semaphore::new(CONNECTIONS_MAX) });
    let shots = Rc::new(RefCell::new(Vec::with_capacity(count)));
    match pace {
        Pace::PerSecond(rate) => {
            let (times, mut due) = mpsc::unbounded_channel();
            std::thread::spawn(move || keep_time(rate, count, &times));
            let mut under_way = tokio::task::JoinSet::new();
            let mut no = 0;
            while let Some(at) = due.recv().await {
                let (gun, shots) = (Rc::clone(&gun), Rc::clone(&shots));
                under_way.spawn_local(async move {
                    let shot = gun.shoot(no, at).await;
                    shots.borrow_mut().push(shot);
                });
                no += 1;
                while under_way.try_join_next().is_some() {}
            }
            while under_way.join_next().await.is_some() {}
        }
        Pace::AtOnce { connections } => {
            let next = Rc::new(RefCell::new(0..count));
            let one = |_| {
                let (gun, shots, next) = (Rc::clone(&gun), Rc::clone(&shots), Rc::clone(&next));
                async move {
                    loop {
                        let Some(no) = next.borrow_mut().next() else { return };
                        let shot = gun.shoot(no, Instant::now()).await;
                        shots.borrow_mut().push(shot);
                    }
                }
            };
            futures::future::join_all((0..connections).map(one)).await;
        }
    }
    Rc::try_unwrap(shots).map(RefCell::into_inner).unwrap_or_default()
}

/// Sends the times, each when it has come.
fn keep_time(rate: f64, count: usize, times: &mpsc::UnboundedSender<Instant>) {
    let start = Instant::now() + Duration::from_millis(20);
    for no in 0..count {
        let due = start + Duration::from_secs_f64(no as f64 / rate);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        if times.send(due).is_err() {
            return;
        }
    }
}

/// Most connections. A request that finds none waits, and its time runs meanwhile.
const CONNECTIONS_MAX: usize = 1024;
/// A request without an answer by then counts as not answered.
const PATIENCE: Duration = Duration::from_secs(20);

struct Gun {
    target: Target,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    places: Semaphore,
}

impl Gun {
    async fn shoot(&self, no: usize, due: Instant) -> Shot {
        let Form { path, headers, body } = (self.target.request)(no);
        let mut request = Request::builder().method(Method::POST).uri(path);
        request = request.header("host", self.target.address.to_string());
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let sent = Instant::now();
        let answered = match request.body(Full::new(Bytes::from(body))) {
            Ok(request) => tokio::time::timeout(PATIENCE, self.send(request)).await.ok().flatten(),
            Err(_) => None,
        };
        let (status, answer) = answered.unwrap_or((0, Bytes::new()));
        Shot { no, due, sent, answered: Instant::now(), status, answer }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Option<(u16, Bytes)> {
        let _place = self.places.acquire().await.ok()?;
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let answer = response.into_body().collect().await.ok()?.to_bytes();
        if connection.ready().await.is_ok() {
            self.idle.borrow_mut().push(connection);
        }
        Some((status, answer))
    }

    async fn connection(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            match idle {
                Some(connection) if connection.is_ready() => return Some(connection),
                Some(_) => {}
                None => break,
            }
        }
        let stream = TcpStream::connect(self.target.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::task::spawn_local(async move { Ok::<_, Infallible>(driver.await.is_ok()) });
        Some(connection)
    }
}
