//! A way to the emulator that lets so many bytes of calls pass, and then none. Answers pass always.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What is left of a gate's bytes; and how many have passed.
struct Bytes {
    left: u64,
    passed: u64,
    is_shut: bool,
}

impl Bytes {
    /// How many of these bytes may pass.
    fn admit(&mut self, length: usize) -> usize {
        let admitted = length.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= admitted as u64;
        self.passed += admitted as u64;
        self.is_shut |= admitted < length;
        admitted
    }
}

/// The gate.
pub(crate) struct Gate {
    address: SocketAddr,
    bytes: Arc<Mutex<Bytes>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// One that lets `left` bytes pass, over all connections.
    pub(crate) async fn before(target: &str, left: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(Mutex::new(Bytes { left, passed: 0, is_shut: false }));
        let accepting = tokio::spawn(accept(listener, target.to_owned(), Arc::clone(&bytes)));
        Self { address, bytes, accepting }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// How many bytes have passed.
    pub(crate) fn passed(&self) -> u64 {
        self.bytes.lock().passed
    }

    /// Whether something has been held up: nothing gets on any more.
    pub(crate) fn is_shut(&self) -> bool {
        self.bytes.lock().is_shut
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, bytes: Arc<Mutex<Bytes>>) {
    while let Ok((client, _)) = listener.accept().await {
        let (target, bytes) = (target.clone(), Arc::clone(&bytes));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&target).await else { return };
            let (from_client, to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            let answers = async move {
                let mut to_client = to_client;
                let _ = copy(&mut from_server, &mut to_client).await;
            };
            tokio::select! {
                () = calls(from_client, to_server, &bytes) => {}
                () = answers => {}
            }
        });
    }
}

/// Passes calls on, down to the very byte. What is held up afterwards waits until the caller is gone.
async fn calls(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: &Mutex<Bytes>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let admitted = bytes.lock().admit(length);
        if to.write_all(&buffer[..admitted]).await.is_err() {
            return;
        }
    }
}
