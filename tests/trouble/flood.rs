//! Clients that take what they can get and give nothing: they connect, dawdle, and come again when they are cut off.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a slow client does with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Opens it and says nothing.
    Silent,
    /// Sends a request's head, one byte at a time.
    ByteByByte,
    /// Sends the head of a webhook's call at once, and its body one byte at a time.
    SlowBody,
}

const MANNERS: [Manner; 3] = [Manner::Silent, Manner::ByteByByte, Manner::SlowBody];

/// Many slow clients at once; gone when dropped.
pub(crate) struct Flood {
    clients: JoinSet<()>,
    cut_off: Arc<AtomicUsize>,
    connected: Arc<AtomicUsize>,
}

impl Flood {
    /// This many clients; each comes again whenever its connection ends.
    pub(crate) fn begin(address: SocketAddr, count: usize) -> Self {
        let mut clients = JoinSet::new();
        let (cut_off, connected) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        for number in 0..count {
            let manner = MANNERS[number % MANNERS.len()];
            let (cut_off, connected) = (Arc::clone(&cut_off), Arc::clone(&connected));
            clients.spawn(async move {
                loop {
                    // Refused, or nothing left to connect with: again in a moment.
                    if let Ok(stream) = TcpStream::connect(address).await {
                        connected.fetch_add(1, Ordering::Relaxed);
                        dawdle(stream, manner).await;
                        cut_off.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Self { clients, cut_off, connected }
    }

    /// How many connections have ended so far.
    pub(crate) fn cut_off(&self) -> usize {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// How many connections were made so far; the kernel makes them, whether or not the service takes them.
    pub(crate) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// All hang up.
    pub(crate) async fn end(mut self) {
        self.clients.shutdown().await;
    }
}

/// Until the connection ends.
async fn dawdle(mut stream: TcpStream, manner: Manner) {
    const SLOW_HEAD: &[u8] =
        b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    const BODY_BEGUN: &[u8] = b"POST /webhooks/twilio/status HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    let (at_once, then): (&[u8], &[u8]) = match manner {
        Manner::Silent => (b"", b""),
        Manner::ByteByByte => (b"", SLOW_HEAD),
        Manner::SlowBody => (BODY_BEGUN, b"a=b&"),
    };
    if stream.write_all(at_once).await.is_err() {
        return;
    }
    let mut bytes = then.iter().cycle();
    let mut answer = [0; 512];
    loop {
        let pause = tokio::time::sleep(Duration::from_secs(1));
        tokio::select! {
            read = stream.read(&mut answer) => if !matches!(read, Ok(1..)) { return },
            () = pause => if let Some(byte) = bytes.next() && stream.write_all(&[*byte]).await.is_err() { return },
        }
    }
}

/// Raises this process's own limit of open files to what it is allowed, and gives it.
pub(crate) fn descriptors_allowed() -> usize {
    let limits = || {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        let mut words = line.split_whitespace().skip(3).map(|word| word.parse().unwrap_or(1 << 20));
        (words.next().unwrap(), words.next().unwrap())
    };
    let (_, hard): (usize, usize) = limits();
    // Where there is no such tool, the limit stays as it is.
    let _ = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), &format!("--nofile={hard}:{hard}")])
        .status();
    limits().0
}
