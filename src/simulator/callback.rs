//! Webhooks: what a status callback says, and how it is posted.
//!
//! A callback is a signed form post. The fragment of its URL carries Twilio's connection overrides: `rc` (retries),
//! `rp` (on what), `ct`, `rt` and `tt` (connect, read and total time). By default one retry is made, only when no
//! connection could be opened, and everything is over within 15 seconds.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use tokio::sync::Semaphore;

use super::config::SimulatorConfig;
use super::message::{Message, SimStatus, WHATSAPP, phone_of};
use super::sign::signature;

/// A form, in the order in which it is posted.
pub(super) type Form = Vec<(&'static str, String)>;

/// The install that stands for the one WhatsApp sender.
const CHANNEL_INSTALL_SID: &str = "XE00000000000000000000000000000000";

/// The form of a status callback.
pub(super) fn status_form(
    account_sid: &str,
    message: &Message,
    status: SimStatus,
    error_code: Option<u32>,
    now: Timestamp,
) -> Form {
    let from = message.course.lock().from.clone().unwrap_or_default();
    let word = status.word().to_owned();
    let mut form: Form = vec![
        ("AccountSid", account_sid.to_owned()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("From", from),
        ("MessageSid", message.sid.clone()),
        ("MessageStatus", word.clone()),
        ("SmsSid", message.sid.clone()),
        ("SmsStatus", word),
        ("To", message.to.clone()),
    ];
    if let Some(service) = &message.messaging_service_sid {
        form.push(("MessagingServiceSid", service.clone()));
    }
    if let Some(code) = error_code {
        form.push(("ErrorCode", code.to_string()));
    }
    if message.is_whatsapp() {
        add_whatsapp(&mut form, message, status, error_code);
    } else if matches!(status, SimStatus::Delivered | SimStatus::Undelivered) {
        form.push(("RawDlrDoneDate", now.strftime("%y%m%d%H%M").to_string()));
    }
    if message.twist.extra_fields {
        form.push(("FutureField", "a field that no page names".to_owned()));
        form.push(("ZzBilling", "{\"units\":1}".to_owned()));
    }
    form
}

fn add_whatsapp(form: &mut Form, message: &Message, status: SimStatus, error_code: Option<u32>) {
    form.push(("ChannelPrefix", "whatsapp".to_owned()));
    form.push(("ChannelInstallSid", CHANNEL_INSTALL_SID.to_owned()));
    form.push(("ChannelToAddress", mask_tail(phone_of(&message.to))));
    form.push(("StructuredMessage", message.content_sid.is_some().to_string()));
    if matches!(status, SimStatus::Delivered | SimStatus::Read | SimStatus::Undelivered) {
        form.push(("EventType", status.word().to_uppercase()));
    }
    if error_code.is_some() {
        form.push(("ChannelStatusMessage", "Channel provider did not deliver the message".to_owned()));
    }
}

/// `+4915112345678` becomes `+491511234XXXX`.
fn mask_tail(number: &str) -> String {
    let shown = number.chars().count().saturating_sub(4);
    number.chars().enumerate().map(|(at, c)| if at < shown { c } else { 'X' }).collect()
}

/// The fields of an inbound message.
pub(super) struct InboundForm<'a> {
    pub account_sid: &'a str,
    pub sid: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub body: &'a str,
    pub profile_name: &'a str,
    pub segments: usize,
    /// The message that it quotes, and who sent that.
    pub quoted: Option<(&'a str, &'a str)>,
    /// The title and the payload of the button that was tapped.
    pub button: Option<(&'a str, &'a str)>,
}

impl InboundForm<'_> {
    pub(super) fn form(&self) -> Form {
        let mut form: Form = vec![
            ("SmsMessageSid", self.sid.to_owned()),
            ("NumMedia", "0".to_owned()),
            ("SmsSid", self.sid.to_owned()),
            ("SmsStatus", "received".to_owned()),
            ("Body", self.body.to_owned()),
            ("To", self.to.to_owned()),
            ("NumSegments", self.segments.to_string()),
            ("MessageSid", self.sid.to_owned()),
            ("AccountSid", self.account_sid.to_owned()),
            ("From", self.from.to_owned()),
            ("ApiVersion", "2010-04-01".to_owned()),
        ];
        if self.from.starts_with(WHATSAPP) {
            form.push(("ProfileName", self.profile_name.to_owned()));
            form.push(("WaId", phone_of(self.from).trim_start_matches('+').to_owned()));
            form.push(("MessageType", if self.button.is_some() { "button" } else { "text" }.to_owned()));
            form.push(("ReferralNumMedia", "0".to_owned()));
            form.push(("ChannelMetadata", self.channel_metadata()));
        }
        if let Some((sid, sender)) = self.quoted {
            form.push(("OriginalRepliedMessageSid", sid.to_owned()));
            form.push(("OriginalRepliedMessageSender", sender.to_owned()));
        }
        if let Some((title, payload)) = self.button {
            form.push(("ButtonText", title.to_owned()));
            form.push(("ButtonPayload", payload.to_owned()));
        }
        form
    }

    fn channel_metadata(&self) -> String {
        let context = serde_json::json!({
            "ProfileName": self.profile_name,
            "WaId": phone_of(self.from).trim_start_matches('+'),
        });
        serde_json::json!({"type": "whatsapp", "data": {"context": context}}).to_string()
    }
}

/// The connection overrides in a webhook URL's fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Overrides {
    connect: Duration,
    read: Duration,
    total: Duration,
    retries: u32,
    retry_on: Vec<Trouble>,
}

/// Why a webhook call did not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Connect,
    Read,
    Refused,
    Broken,
}

impl Overrides {
    /// Reads `…#rc=5&rp=all&ct=2000`; what is out of range or unknown falls back to the default.
    pub(super) fn of(url: &str) -> Self {
        let mut overrides = Self {
            connect: Duration::from_millis(5_000),
            read: Duration::from_millis(15_000),
            total: Duration::from_millis(15_000),
            retries: 1,
            retry_on: vec![Trouble::Connect],
        };
        let Some((_, fragment)) = url.split_once('#') else { return overrides };
        for (name, value) in form_urlencoded::parse(fragment.as_bytes()) {
            let number = |range: std::ops::RangeInclusive<u32>| value.parse().ok().filter(|n| range.contains(n));
            let millis = |range| number(range).map(|ms| Duration::from_millis(u64::from(ms)));
            match &*name {
                "ct" => overrides.connect = millis(100..=10_000).unwrap_or(overrides.connect),
                "rt" => overrides.read = millis(100..=15_000).unwrap_or(overrides.read),
                "tt" => overrides.total = millis(100..=15_000).unwrap_or(overrides.total),
                "rc" => overrides.retries = number(0..=5).unwrap_or(overrides.retries),
                "rp" => overrides.retry_on = value.split(',').flat_map(Trouble::named).copied().collect(),
                _ => {}
            }
        }
        overrides
    }
}

impl Trouble {
    fn named(word: &str) -> &'static [Self] {
        match word {
            "ct" => &[Self::Connect],
            "rt" => &[Self::Read],
            "4xx" => &[Self::Refused],
            "5xx" => &[Self::Broken],
            "all" => &[Self::Connect, Self::Read, Self::Refused, Self::Broken],
            _ => &[],
        }
    }
}

/// What came of one webhook.
#[derive(Debug)]
pub(super) struct Posted {
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    pub body: String,
}

impl Posted {
    pub(super) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The longest webhook answer that is read.
const ANSWER_MAX: usize = 64 * 1024;
/// How many clients (one per connect time-out) are kept; further ones share the default.
const CLIENTS_MAX: usize = 8;

/// Posts webhooks: a pooled client, and no more at once than configured.
#[derive(Debug)]
pub(super) struct Postman {
    auth_token: crate::secret::Secret,
    clients: Mutex<HashMap<Duration, Client>>,
    default: Client,
    slots: Semaphore,
}

impl Postman {
    pub(super) fn new(config: &SimulatorConfig) -> reqwest::Result<Self> {
        Ok(Self {
            auth_token: config.auth_token.clone(),
            clients: Mutex::default(),
            default: client(Duration::from_millis(5_000))?,
            slots: Semaphore::new(config.callback_concurrency.max(1)),
        })
    }

    /// Posts a signed form, with the retries that the URL's fragment asks for.
    pub(super) async fn post(&self, url: &str, form: &[(&'static str, String)], idempotency_token: &str) -> Posted {
        let overrides = Overrides::of(url);
        let client = self.client(overrides.connect);
        let bare = url.split('#').next().unwrap_or(url);
        let signature = signature(self.auth_token.expose(), bare, form);
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let _slot = self.slots.acquire().await;
        let all = async {
            let mut left = overrides.retries;
            loop {
                let request = client
                    .post(bare)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8")
                    .header(ACCEPT, "*/*")
                    .header("X-Twilio-Signature", &signature)
                    .header("I-Twilio-Idempotency-Token", idempotency_token)
                    .body(body.clone());
                let (posted, trouble) = once(request, overrides.read).await;
                match trouble {
                    Some(trouble) if left > 0 && overrides.retry_on.contains(&trouble) => left -= 1,
                    Some(_) | None => return posted,
                }
            }
        };
        tokio::time::timeout(overrides.total, all).await.unwrap_or(Posted { status: 0, body: String::new() })
    }

    fn client(&self, connect: Duration) -> Client {
        if connect == Duration::from_millis(5_000) {
            return self.default.clone();
        }
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&connect) {
            return client.clone();
        }
        if clients.len() >= CLIENTS_MAX {
            return self.default.clone();
        }
        match client(connect) {
            Ok(fresh) => clients.entry(connect).or_insert(fresh).clone(),
            Err(_) => self.default.clone(),
        }
    }
}

fn client(connect: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .connect_timeout(connect)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent("TwilioProxy/1.1")
        .build()
}

/// One call. `read` bounds the wait for the answer's head, and again for its body.
async fn once(request: reqwest::RequestBuilder, read: Duration) -> (Posted, Option<Trouble>) {
    let nothing = Posted { status: 0, body: String::new() };
    let mut response = match tokio::time::timeout(read, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if error.is_connect() => return (nothing, Some(Trouble::Connect)),
        Ok(Err(_)) | Err(_) => return (nothing, Some(Trouble::Read)),
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match tokio::time::timeout(read, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() <= ANSWER_MAX => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => break,
            Ok(Ok(Some(_)) | Err(_)) | Err(_) => return (nothing, Some(Trouble::Read)),
        }
    }
    let trouble = match status {
        400..500 => Some(Trouble::Refused),
        500.. => Some(Trouble::Broken),
        _ => None,
    };
    (Posted { status, body: String::from_utf8_lossy(&body).into_owned() }, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_overrides_are_read_from_the_fragment_and_clamped_to_what_twilio_allows() {
        let plain = Overrides::of("https://relay.example/status?attempt=1");
        assert_eq!((plain.retries, plain.retry_on.as_slice()), (1, &[Trouble::Connect][..]));
        assert_eq!(plain.total, Duration::from_secs(15));
        let told = Overrides::of("https://relay.example/status#rc=5&rp=5xx,rt&ct=2000&rt=300&tt=99999&e=dublin");
        assert_eq!((told.retries, told.connect, told.read), (5, Duration::from_secs(2), Duration::from_millis(300)));
        assert_eq!(told.retry_on, [Trouble::Broken, Trouble::Read]);
        assert_eq!(told.total, Duration::from_secs(15), "out of range: the default");
        assert_eq!(Overrides::of("https://relay.example/#rp=all").retry_on.len(), 4);
    }

    #[test]
    fn the_channel_address_is_masked() {
        assert_eq!(mask_tail("+4915112345678"), "+491511234XXXX");
        assert_eq!(mask_tail("+1"), "XX");
    }
}
