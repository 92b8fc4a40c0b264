//! A way to the emulator that can be cut: before a call gets there, or before its answer comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// They pass.
    Open,
    /// Calls pass, and answers are lost.
    AnswersLost,
    /// Nothing passes, and nobody is told.
    Silent,
}

/// A proxy in front of the emulator.
pub(super) struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    /// Counts the times that all connections were closed.
    cut: watch::Sender<u32>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, cut) = (watch::Sender::new(Way::Open), watch::Sender::new(0));
        let accepting = tokio::spawn(accept(listener, target.to_owned(), way.clone(), cut.clone()));
        Self { address, way, cut, accepting }
    }

    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Closes every connection; new ones may be made.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }

    /// Closes every connection, and refuses new ones.
    pub(super) fn end(&self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: String, way: watch::Sender<Way>, cut: watch::Sender<u32>) {
    let (way, cut) = (Arc::new(way), Arc::new(cut));
    while let Ok((client, _)) = listener.accept().await {
        let (target, way, mut cut) = (target.clone(), Arc::clone(&way), cut.subscribe());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&target).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let calls = pass(from_client, to_server, way.subscribe(), |way| way != Way::Silent);
            let answers = pass(from_server, to_client, way.subscribe(), |way| way == Way::Open);
            tokio::select! {
                () = calls => {}
                () = answers => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// Passes bytes on, or loses them. What was lost leaves a connection that is of no use any more: it is to be cut.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: watch::Receiver<Way>,
    passes: impl Fn(Way) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if passes(*way.borrow()) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
