//! The listening socket: HTTP/1.1 with bounds on who may hold it, and an end in good order.
//!
//! A client that sends its head slowly, or keeps a connection open without asking anything, is cut off after the header
//! read time-out; one that sends its body slowly runs into the request time-out of [`manners`](super::manners). When all
//! connections are taken, those that have waited longest for their clients are closed for new ones (`places`), and only
//! where every one is being worked on do new ones wait. TLS and HTTP/2 are the business of the proxy in front.

mod places;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use self::places::{Place, Places};

/// How many connections the system may hold ready to be accepted; it may allow fewer (Linux: `net.core.somaxconn`). One
/// for which there is no room is not refused: its client knocks again after seconds.
const ACCEPT_QUEUE: u32 = 4_096;

/// Pause after the system could not hand over a connection (mostly: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often, at most, a shortage is told of: it may last, and come and go, many times a second.
const SHORTAGE_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Most bytes of a request's head.
const HEAD_LENGTH_MAX: usize = 32 * 1024;

/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// Bounds for the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeSettings {
    /// Most connections at a time.
    pub connections_max: usize,
    /// How long a client may take for a request's head, counted from when the connection is ready for one.
    pub header_read_timeout: Duration,
    /// How long a client may leave an answer unread before it is cut off: counted from the last byte that it took.
    pub write_timeout: Duration,
    /// How long requests may go on once the end is asked for.
    pub shutdown_grace: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            header_read_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// This many connections were cut off at the deadline.
    CutOff(usize),
}

/// Listens at `address`, with room for a crowd.
///
/// # Errors
/// The address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As the standard library does: after a restart the address is free at once. Elsewhere it would let two listen.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_QUEUE)
}

/// Serves `router` until `shutdown` is cancelled, then lets open requests finish for as long as the grace lasts.
///
/// Requests carry their peer as `ConnectInfo<SocketAddr>`. A long-lived answer (an event stream) should end by itself on
/// the same token; otherwise it is cut off at the deadline.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &ServeSettings,
    shutdown: CancellationToken,
) -> Ended {
    let places = Places::new(settings.connections_max);
    let connections = TaskTracker::new();
    let deadline = CancellationToken::new();
    let protocol = protocol(settings);
    let mut shortage = Shortage::default();
    loop {
        let next = async {
            let (stream, peer) = accept(&listener, &mut shortage).await;
            let place = match places.take() {
                Some(place) => place,
                None => {
                    shortage.tell(Instant::now(), || {
                        tracing::warn!("every connection is taken: the one that asks nothing for longest is closed");
                    });
                    places.take_from_the_idlest().await
                }
            };
            (place, stream, peer)
        };
        let (place, stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(settings.write_timeout));
        let (router, protocol, shutdown) = (router.clone(), protocol.clone(), shutdown.clone());
        let deadline = deadline.clone();
        connections.spawn(async move {
            let connection = attend(stream, peer, router, protocol, shutdown, &place);
            deadline.run_until_cancelled(connection).await;
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(settings.shutdown_grace, connections.wait()).await.is_ok() {
        return Ended::Drained;
    }
    let left = connections.len();
    deadline.cancel();
    connections.wait().await;
    if left == 0 { Ended::Drained } else { Ended::CutOff(left) }
}

fn protocol(settings: &ServeSettings) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_LENGTH_MAX);
    protocol
}

/// Sees that one shortage does not fill the log.
#[derive(Default)]
struct Shortage {
    told_at: Option<Instant>,
}

impl Shortage {
    fn tell(&mut self, now: Instant, tell: impl FnOnce()) {
        if self.told_at.is_none_or(|at| now.duration_since(at) >= SHORTAGE_TOLD_EVERY) {
            self.told_at = Some(now);
            tell();
        }
    }
}

/// The next connection. Errors of single connections are not worth a word; other ones are, and pass by waiting.
async fn accept(listener: &TcpListener, shortage: &mut Shortage) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                shortage.tell(Instant::now(), || tracing::warn!(%error, "no connection can be accepted just now"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset]
        .contains(&error.kind())
}

/// Serves one connection to its end; after `shutdown`, to the end of the request that is open.
async fn attend(
    stream: TimeoutStream<TcpStream>,
    peer: SocketAddr,
    router: Router,
    protocol: http1::Builder,
    shutdown: CancellationToken,
    place: &Place,
) {
    // Answers are small and written at once: waiting to fill a segment only delays them.
    if let Err(error) = stream.get_ref().set_nodelay(true) {
        tracing::debug!(kind = ?error.kind(), "TCP_NODELAY could not be set");
    }
    let watch = place.watch();
    let service = service_fn(move |request: Request<Incoming>| {
        let watch = watch.clone();
        let mut request = request.map(|body| watch.request(body));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answered = router.clone().oneshot(request);
        async move { answered.await.map(|answer| answer.map(|body| watch.answer(body))) }
    });
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(Box::pin(stream)), service));
    place.begin();
    let ended = tokio::select! {
        biased;
        // First, so that what has come by now is read before its client is given up.
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = place.given_up() => {
            if !place.is_at_work() {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing, as a rule; hyper's text holds no part of the request.
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    struct Server {
        address: SocketAddr,
        shutdown: CancellationToken,
        ended: JoinHandle<Ended>,
    }

    async fn start(router: Router, settings: ServeSettings) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let ended = tokio::spawn(async move { serve(listener, router, &settings, token).await });
        Server { address, shutdown, ended }
    }

    /// Sends `text` and reads until the server hangs up.
    async fn exchange(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset after the answer is an end, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    const CLOSING: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    fn greeting() -> Router {
        Router::new().route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }))
    }

    #[tokio::test]
    async fn a_request_is_answered_and_knows_its_peer() {
        let server = start(greeting(), ServeSettings::default()).await;
        let answer = exchange(server.address, CLOSING).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("127.0.0.1"), "{answer}");
        server.shutdown.cancel();
        assert_eq!(server.ended.await.unwrap(), Ended::Drained);
    }

    #[tokio::test]
    async fn a_client_that_dawdles_over_its_head_is_cut_off() {
        let settings = ServeSettings { header_read_timeout: Duration::from_millis(50), ..ServeSettings::default() };
        let server = start(greeting(), settings).await;
        for beginning in ["", "GET / HTTP/1.1\r\nhost:"] {
            // Far above the setting, far below what hyper would wait by itself.
            let patience = Duration::from_secs(10);
            let answer = tokio::time::timeout(patience, exchange(server.address, beginning)).await.unwrap();
            assert!(!answer.contains("200 OK"), "{answer}");
        }
    }

    /// Waits for the server to close the connection, without reading from it.
    async fn closed_from_afar(stream: &mut TcpStream) {
        let patience = Duration::from_secs(10);
        let refused = async { while stream.write_all(CLOSING.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(patience, refused).await.expect("the connection is closed");
    }

    #[tokio::test]
    async fn a_client_that_never_reads_its_answers_loses_its_place() {
        let long = || async { "x".repeat(64 << 20) };
        let router = Router::new().route("/", get(long));
        let settings =
            ServeSettings { connections_max: 1, write_timeout: Duration::from_millis(100), ..ServeSettings::default() };
        let server = start(router, settings).await;
        let mut deaf = TcpStream::connect(server.address).await.unwrap();
        closed_from_afar(&mut deaf).await;
        // The only place is free again, and whoever reads is served to the last byte.
        let answer = tokio::time::timeout(Duration::from_secs(10), exchange(server.address, CLOSING)).await.unwrap();
        assert!(answer.len() > 64 << 20);
    }

    #[tokio::test]
    async fn a_connection_that_was_served_and_idles_is_ended() {
        let settings = ServeSettings { header_read_timeout: Duration::from_millis(50), ..ServeSettings::default() };
        let server = start(greeting(), settings).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), read_all(&mut idle)).await.unwrap();
        assert!(answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_beyond_bounds_is_refused() {
        let server = start(greeting(), ServeSettings::default()).await;
        let many = (0..200).map(|n| format!("h{n}: x\r\n")).collect::<String>();
        let long = format!("h: {}\r\n", "x".repeat(2 * HEAD_LENGTH_MAX));
        for extra in [many, long] {
            let answer = exchange(server.address, &CLOSING.replace("\r\n\r\n", &format!("\r\n{extra}\r\n"))).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_wait_while_all_are_worked_on() {
        let (router, reached, release) = gate();
        let settings = ServeSettings { connections_max: 1, ..ServeSettings::default() };
        let server = start(router, settings).await;
        let first = tokio::spawn(exchange(server.address, CLOSING));
        reached.notified().await;
        let mut second = tokio::spawn(exchange(server.address, CLOSING));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
        assert!(early.is_err(), "the second was served while the first held the only place");
        release.notify_one();
        assert!(first.await.unwrap().ends_with("done"), "who was being served is served to the end");
        release.notify_one();
        assert!(second.await.unwrap().ends_with("done"));
    }

    #[tokio::test]
    async fn whoever_asks_nothing_leaves_its_place_to_whoever_asks() {
        let settings = ServeSettings { connections_max: 1, ..ServeSettings::default() };
        let router = greeting().route("/body", axum::routing::post(|body: String| async move { body }));
        let server = start(router, settings).await;
        let head = "GET / HTTP/1.1\r\nhost:";
        let body = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nbegun";
        let served = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for beginning in ["", head, body, served] {
            let mut idle = TcpStream::connect(server.address).await.unwrap();
            idle.write_all(beginning.as_bytes()).await.unwrap();
            if beginning == served {
                idle.read_exact(&mut [0]).await.unwrap();
            }
            // Far below the time-outs of slow clients.
            let patience = Duration::from_secs(5);
            let answer = tokio::time::timeout(patience, exchange(server.address, CLOSING)).await;
            assert!(answer.expect("a place in time").contains("200 OK"), "behind {beginning:?}");
            tokio::time::timeout(patience, read_all(&mut idle)).await.expect("the idle one is closed");
        }
    }

    #[tokio::test]
    async fn a_listener_can_be_had_on_both_families_and_not_twice() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        assert_eq!(listen(taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // A machine without IPv6 cannot say more.
        if let Err(error) = listen("[::1]:0".parse().unwrap()) {
            assert_ne!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn a_shortage_is_told_of_once_in_a_while() {
        let (mut shortage, mut told) = (Shortage::default(), 0);
        let begin = Instant::now();
        for millis in 0..25_000 {
            shortage.tell(begin + Duration::from_millis(millis), || told += 1);
        }
        assert_eq!(told, 3);
    }

    /// A handler that tells when it is reached and waits to be let go.
    fn gate() -> (Router, Arc<Notify>, Arc<Notify>) {
        let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (reached_in, release_in) = (Arc::clone(&reached), Arc::clone(&release));
        let handler = move || async move {
            reached_in.notify_one();
            release_in.notified().await;
            "done"
        };
        (Router::new().route("/", get(handler)), reached, release)
    }

    #[tokio::test]
    async fn an_open_request_is_finished_before_the_end() {
        let (router, reached, release) = gate();
        let server = start(router, ServeSettings::default()).await;
        let answer = tokio::spawn(exchange(server.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
        reached.notified().await;
        server.shutdown.cancel();
        release.notify_one();
        assert!(answer.await.unwrap().ends_with("done"));
        assert_eq!(server.ended.await.unwrap(), Ended::Drained);
        assert!(TcpStream::connect(server.address).await.is_err(), "the socket is closed");
    }

    #[tokio::test]
    async fn the_end_does_not_wait_for_ever() {
        let (router, reached, _release) = gate();
        let settings = ServeSettings { shutdown_grace: Duration::from_millis(20), ..ServeSettings::default() };
        let server = start(router, settings).await;
        let answer = tokio::spawn(exchange(server.address, CLOSING));
        reached.notified().await;
        server.shutdown.cancel();
        assert_eq!(server.ended.await.unwrap(), Ended::CutOff(1));
        assert_eq!(answer.await.unwrap(), "");
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_end() {
        let server = start(greeting(), ServeSettings::default()).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut byte = [0];
        idle.read_exact(&mut byte).await.unwrap();
        server.shutdown.cancel();
        assert_eq!(server.ended.await.unwrap(), Ended::Drained);
    }
}
