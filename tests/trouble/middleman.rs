//! Somebody on the wire between the service and its Twilio: remembers every byte that was sent to Twilio, and can make
//! answers drip, or echo what was sent. Each connection carries one call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// It goes through.
    Open,
    /// Create calls go through, and their answers come back a byte a second.
    CreatesDrip,
    /// Every answer comes back a byte a second.
    AllDrips,
    /// Twilio refuses create calls with this status, and quotes all that it was sent.
    Echoes(u16),
}

struct Shared {
    twilio: SocketAddr,
    wire: Mutex<Wire>,
    sent: Mutex<Vec<Vec<u8>>>,
    dripping: Mutex<(usize, usize)>,
}

/// The wire's keeper; it goes away when dropped.
pub(crate) struct Middleman {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Middleman {
    /// Stands before this Twilio.
    pub(crate) async fn before(twilio: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Mutex::new(Wire::Open);
        let shared = Arc::new(Shared { twilio, wire, sent: Mutex::default(), dripping: Mutex::default() });
        let mut tasks = JoinSet::new();
        let all = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&all);
                calls.spawn(async move {
                    // Whoever hangs up has his reasons.
                    let _ = shared.carry(stream).await;
                });
                while calls.try_join_next().is_some() {}
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What becomes of calls from now on.
    pub(crate) fn set(&self, wire: Wire) {
        *self.shared.wire.lock() = wire;
    }

    /// Every call as it was sent to Twilio: head and body.
    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.shared.sent.lock().clone()
    }

    /// The most answers that dripped at one time.
    pub(crate) fn dripping_max(&self) -> usize {
        self.shared.dripping.lock().1
    }
}

impl Shared {
    async fn carry(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let call = read_call(&mut stream).await?;
        let creates = call.starts_with(b"POST ");
        self.sent.lock().push(call.clone());
        let wire = *self.wire.lock();
        let answer = match wire {
            Wire::Echoes(status) if creates => echo(status, &call),
            Wire::Open | Wire::CreatesDrip | Wire::AllDrips | Wire::Echoes(_) => {
                let mut twilio = TcpStream::connect(self.twilio).await?;
                twilio.write_all(&closing(&call)).await?;
                let mut answer = Vec::new();
                twilio.read_to_end(&mut answer).await?;
                answer
            }
        };
        match wire {
            Wire::AllDrips => self.drip(&mut stream, &answer).await,
            Wire::CreatesDrip if creates => self.drip(&mut stream, &answer).await,
            Wire::Open | Wire::CreatesDrip | Wire::Echoes(_) => stream.write_all(&answer).await,
        }
    }

    async fn drip(&self, stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
        {
            let mut dripping = self.dripping.lock();
            dripping.0 += 1;
            dripping.1 = dripping.1.max(dripping.0);
        }
        let dripped = drip(stream, answer).await;
        self.dripping.lock().0 -= 1;
        dripped
    }
}

/// The head at once, so that the answer has begun; its body a byte a second.
async fn drip(stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let body = end_of_head(answer).unwrap_or(0);
    stream.write_all(&answer[..body]).await?;
    let mut unread = [0; 64];
    for byte in &answer[body..] {
        tokio::select! {
            // The service has hung up.
            _ = stream.read(&mut unread) => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        stream.write_all(&[*byte]).await?;
    }
    Ok(())
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|place| place + 4)
}

async fn read_call(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut call = Vec::new();
    loop {
        if let Some(body) = end_of_head(&call) {
            let head = String::from_utf8_lossy(&call[..body]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if call.len() >= body + length {
                return Ok(call);
            }
        }
        if stream.read_buf(&mut call).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The same call, the last on its connection.
fn closing(call: &[u8]) -> Vec<u8> {
    let line = call.windows(2).position(|window| window == b"\r\n").unwrap() + 2;
    [&call[..line], b"connection: close\r\n", &call[line..]].concat()
}

/// A refusal that quotes the call: in a header, in the message, and once more in the body's own form.
fn echo(status: u16, call: &[u8]) -> Vec<u8> {
    let call = String::from_utf8_lossy(call);
    let body = call.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let plain: Vec<String> =
        form_urlencoded::parse(body.as_bytes()).map(|(name, value)| format!("{name}={value}")).collect();
    let told = serde_json::json!({
        "code": 63007, "status": status,
        "message": format!("Not found: {} -- {call}", plain.join("; ")), "more_info": body,
    });
    let told = told.to_string();
    let length = told.len();
    format!(
        "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\nconnection: close\r\n\
         twilio-request-id: {body}\r\ncontent-length: {length}\r\n\r\n{told}"
    )
    .into_bytes()
}
