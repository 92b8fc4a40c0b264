//! What every test of the wire needs: a client for a fake, the form as it was sent, servers that misbehave.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::ManualClock;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::ids::{AlertId, AttemptNo, AttemptRef, DeliveryNo};
use crisis_relay::ports::{MessageContent, MessageRequest};
use crisis_relay::secret::Secret;
use crisis_relay::twilio::rest::{Credentials, RestClient, RestConfig};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;
use wiremock::{Request, ResponseTemplate};

pub(crate) const AC: &str = "AC0123456789abcdef0123456789abcdef";
pub(crate) const SM: &str = "SM0123456789abcdef0123456789abcdef";
pub(crate) const MG: &str = "MG0123456789abcdef0123456789abcdef";
pub(crate) const HX: &str = "HX0123456789abcdef0123456789abcdef";
pub(crate) const SK: &str = "SK0123456789abcdef0123456789abcdef";
pub(crate) const ALERT: &str = "0197c4de-7a00-7000-8000-0123456789ab";
/// A recipient's number that must turn up nowhere but in a request.
pub(crate) const NUMBER: &str = "+4915112345678";
/// A text that must turn up nowhere but in a request.
pub(crate) const TEXT: &str = "URGENT canary & ü: reply 1";
pub(crate) const MESSAGES: &str = "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages.json";
/// What the fake's clock says.
pub(crate) const NOW: &str = "2026-11-20T10:00:00Z";

/// Settings for a fake at `base`: an auth token, the WhatsApp sandbox and a number for text messages.
pub(crate) fn config(base: &str) -> RestConfig {
    let mut config = RestConfig::new(AC, Credentials::AuthToken(Secret::new("token-canary")));
    config.base_url = base.parse().unwrap();
    config.content_base_url = base.parse().unwrap();
    config.whatsapp_from = Some("+14155238886".parse().unwrap());
    config.sms_from = Some("+14155550123".parse().unwrap());
    config.status_callback_base = Some("https://relay.example.org".parse().unwrap());
    config
}

pub(crate) fn client(config: RestConfig) -> RestClient {
    RestClient::new(config, Arc::new(ManualClock::new(NOW.parse().unwrap()))).unwrap()
}

pub(crate) fn attempt() -> AttemptRef {
    let alert = AlertId(Uuid::parse_str(ALERT).unwrap());
    AttemptRef { alert, delivery: DeliveryNo(2), attempt: AttemptNo(3) }
}

pub(crate) fn message(channel: Channel) -> MessageRequest {
    let content = MessageContent::Body(TEXT.to_owned());
    MessageRequest { attempt: Some(attempt()), channel, to: NUMBER.parse().unwrap(), content }
}

/// Twilio's answer to a create call, shortened.
pub(crate) fn created() -> ResponseTemplate {
    ResponseTemplate::new(201).set_body_raw(
        format!(r#"{{"sid":"{SM}","status":"queued","to":"{NUMBER}","error_code":null}}"#),
        "application/json",
    )
}

/// The fields of a form post, decoded, in the order in which they were sent.
pub(crate) fn form(request: &Request) -> Vec<(String, String)> {
    form_urlencoded::parse(&request.body).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Everything that is logged, at any level, by anybody, while the guard lives.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// How a raw server treats the one request that it reads.
#[derive(Clone, Copy)]
pub(crate) enum Mischief {
    /// Closes the connection without an answer.
    HangUp,
    /// Says nothing for ever.
    Silence,
    /// Sends this much of an answer and then nothing more.
    Stall(&'static str),
    /// Sends this much of an answer and closes.
    CutOff(&'static str),
}

/// A server that misbehaves; counts the requests that it read. Ends with the test's runtime.
pub(crate) async fn mischief(how: Mischief) -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(Mutex::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            read_request(&mut stream).await;
            *counter.lock() += 1;
            match how {
                Mischief::HangUp => drop(stream),
                Mischief::Silence => kept.push(stream),
                Mischief::Stall(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                    kept.push(stream);
                }
                Mischief::CutOff(text) => {
                    let _ = stream.write_all(text.as_bytes()).await;
                }
            }
        }
    });
    (base, count)
}

/// Reads until the form's last field has come (or, for a GET, the end of the head).
async fn read_request(stream: &mut TcpStream) {
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read);
        let whole = match text.split_once("\r\n\r\n") {
            Some((_, body)) => text.starts_with("GET") || body.contains("StatusCallback="),
            None => false,
        };
        if whole {
            return;
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => read.extend_from_slice(&chunk[..length]),
        }
    }
}

/// A base URL where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Settings that give up soon.
pub(crate) fn hasty(base: &str) -> RestConfig {
    let mut config = config(base);
    config.connect_timeout = Duration::from_millis(200);
    config.request_timeout = Duration::from_millis(400);
    config
}
