//! The address under which the world knows the service, whichever process it is just now: as a load balancer does, it
//! passes connections on, keeps new ones waiting for a moment while nobody is there, and drops those whose process died.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a connection waits for a process.
const PATIENCE: Duration = Duration::from_secs(2);

type Behind = watch::Receiver<Option<SocketAddr>>;

/// The public address.
pub(crate) struct Front {
    url: String,
    behind: watch::Sender<Option<Behind>>,
    passing: tokio::task::JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (behind, seen) = watch::channel(None);
        let passing = tokio::spawn(async move {
            loop {
                // Out of descriptors for a moment: whoever connects tries again.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(pass(stream, seen.clone()));
            }
        });
        Self { url, behind, passing }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on this process is behind it.
    pub(crate) fn lead_to(&self, process: Behind) {
        self.behind.send_replace(Some(process));
    }

    /// Nobody is behind it.
    pub(crate) fn lead_nowhere(&self) {
        self.behind.send_replace(None);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass(mut client: TcpStream, mut behind: watch::Receiver<Option<Behind>>) {
    let connected = async {
        loop {
            let process = behind.wait_for(Option::is_some).await.ok()?.clone();
            let mut process = process?;
            // A process that dies, before it listens or after, is followed by another.
            let address = process.wait_for(Option::is_some).await.ok().and_then(|address| *address);
            if let Some(address) = address
                && let Ok(server) = TcpStream::connect(address).await
            {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let Ok(Some(mut server)) = tokio::time::timeout(PATIENCE, connected).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
