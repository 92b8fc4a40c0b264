//! A server on this machine that answers whatever the input says: for what the service reads from others.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// How long a client waits: nothing is ever late here but for a machine that stands still, which says nothing.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The headers that say where an answer ends: the server's own business.
const FRAMING: [&str; 5] = ["content-length", "transfer-encoding", "connection", "upgrade", "content-encoding"];

/// An answer: its status, its headers and its body.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// From 200 to 599.
    pub status: u16,
    /// Names and values, as they go over the wire.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a status and headers, one in each line. What cannot stand in an HTTP answer is left out.
    pub fn read(head: &[u8], body: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.lines();
        let status = lines.next()?.trim().parse().ok().filter(|status| (200..600).contains(status))?;
        let headers = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
        let headers = headers.filter(|(name, value)| {
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            is_name
                && !FRAMING.contains(&name.to_ascii_lowercase().as_str())
                && !value.bytes().any(|byte| byte.is_ascii_control())
        });
        let headers = headers.take(20).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { status, headers, body: body.to_vec() })
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn wire(&self) -> Vec<u8> {
        // By these statuses alone a reader knows that there is no body (RFC 9112, 6.3).
        let bodiless = matches!(self.status, 204 | 304);
        let body: &[u8] = if bodiless { &[] } else { &self.body };
        let mut wire = format!("HTTP/1.1 {} Word\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !bodiless {
            wire.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(body);
        wire
    }
}

/// The server, and the runtime that it shares with its client: one thread, so that a run is the same each time.
pub struct Loopback {
    runtime: Runtime,
    local: LocalSet,
    answer: Rc<RefCell<Answer>>,
    asked: Rc<Cell<usize>>,
    /// Where it listens: `http://127.0.0.1:…`.
    pub url: String,
}

impl Loopback {
    /// Starts it.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = LocalSet::new();
        let (answer, asked) = (Rc::new(RefCell::new(Answer::default())), Rc::new(Cell::new(0)));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        local.spawn_local(listen(listener, Rc::clone(&answer), Rc::clone(&asked)));
        Self { runtime, local, answer, asked, url }
    }

    /// Lets `work` ask, and answers each question with `answer`. Also says how often it was asked.
    pub fn answering<T>(&self, answer: &Answer, work: impl Future<Output = T>) -> (T, usize) {
        self.answer.replace(answer.clone());
        self.asked.set(0);
        let done = self.local.block_on(&self.runtime, work);
        (done, self.asked.get())
    }
}

async fn listen(listener: TcpListener, answer: Rc<RefCell<Answer>>, asked: Rc<Cell<usize>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(serve(stream, Rc::clone(&answer), Rc::clone(&asked)));
    }
}

async fn serve(stream: TcpStream, answer: Rc<RefCell<Answer>>, asked: Rc<Cell<usize>>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some(length) = read_head(&mut stream).await {
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        asked.set(asked.get() + 1);
        let wire = answer.borrow().wire();
        if stream.write_all(&wire).await.is_err() {
            return;
        }
    }
}

/// Reads a request's head, and says how long its body is; `None` at the end.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            return Some(length);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}
