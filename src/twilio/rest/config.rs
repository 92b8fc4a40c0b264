//! The client's settings, and everything that can be wrong with their shape.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use url::{Host, Url};

use super::super::sid::is_sid;
use crate::domain::contact::PhoneNumber;
use crate::domain::ids::InvalidId;
use crate::ports::Fault;
use crate::secret::Secret;

/// How the service proves to Twilio who it is (HTTP Basic).
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The account's own token. It also signs webhooks.
    AuthToken(Secret),
    /// An API key, which can be withdrawn by itself. It cannot check webhook signatures.
    ApiKey {
        /// `SK` and 32 hexadecimal digits.
        sid: String,
        /// The key's secret.
        secret: Secret,
    },
}

/// Who a text message comes from. `Debug` shows the end of a number only.
#[derive(Clone, PartialEq, Eq)]
pub enum SmsSender {
    /// A number of the account; people can answer.
    Number(PhoneNumber),
    /// A short code (3 to 6 digits), or a name of at most 11 characters that nobody can answer.
    Name(String),
}

impl SmsSender {
    /// The sender as Twilio wants it.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Number(number) => number.expose(),
            Self::Name(name) => name,
        }
    }
}

impl FromStr for SmsSender {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let code = (3..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let name = (1..=11).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b" -_+&".contains(&b))
            && text.bytes().any(|b| b.is_ascii_alphabetic());
        if code || name {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(InvalidId { rule: "must be a number in E.164 form, a short code, or a name of at most 11 characters" })
        }
    }
}

impl fmt::Debug for SmsSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => write!(f, "Name({name})"),
        }
    }
}

/// What a [`super::RestClient`] is built from. [`RestConfig::faults`] says what is wrong with it.
#[derive(Debug, Clone)]
pub struct RestConfig {
    /// Where the REST API is: `https://api.twilio.com`, an address made with [`api_host`], or a simulator.
    pub base_url: Url,
    /// Where the Content API is, which knows the templates: `https://content.twilio.com`.
    pub content_base_url: Url,
    /// `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// Token or key.
    pub credentials: Credentials,
    /// The WhatsApp sender; the sandbox's is `+14155238886`.
    pub whatsapp_from: Option<PhoneNumber>,
    /// The sender of text messages where there is no messaging service.
    pub sms_from: Option<SmsSender>,
    /// Who calls: a number of the account that has voice, or one that is verified for it.
    pub voice_from: Option<PhoneNumber>,
    /// How long a phone rings, in whole seconds.
    pub ring_timeout: Duration,
    /// `MG` and 32 hexadecimal digits: the service that chooses the sender of text messages.
    pub messaging_service_sid: Option<String>,
    /// The service's public base URL; without it Twilio is not asked for status callbacks.
    pub status_callback_base: Option<Url>,
    /// The longest wait for a connection. Shorter than `request_timeout`.
    pub connect_timeout: Duration,
    /// The longest wait for a whole call, body included; and for a free place among `max_concurrency`.
    pub request_timeout: Duration,
    /// How many calls may be under way at once (Twilio limits the account's concurrency and does not say to what).
    pub max_concurrency: usize,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
    /// How many idle connections are kept.
    pub pool_max_idle: usize,
}

impl RestConfig {
    /// The defaults for an account: Twilio's own addresses, no sender, no callbacks, 2 s to connect, 10 s in all, 16
    /// calls at once.
    ///
    /// # Panics
    /// Never: the addresses are constants.
    #[expect(clippy::expect_used, reason = "constants, parsed by every test that builds a client")]
    pub fn new(account_sid: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            base_url: Url::parse("https://api.twilio.com").expect("a constant"),
            content_base_url: Url::parse("https://content.twilio.com").expect("a constant"),
            account_sid: account_sid.into(),
            credentials,
            whatsapp_from: None,
            sms_from: None,
            voice_from: None,
            ring_timeout: Duration::from_secs(25),
            messaging_service_sid: None,
            status_callback_base: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            max_concurrency: 16,
            pool_idle_timeout: Duration::from_secs(90),
            pool_max_idle: 16,
        }
    }

    /// Everything that is wrong with the settings' shape, without asking anybody. Empty if a client can be built.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = self.identity_faults();
        faults.extend(address_fault("twilio.base_url", &self.base_url));
        faults.extend(address_fault("twilio.content_base_url", &self.content_base_url));
        if let Some(base) = &self.status_callback_base {
            faults.extend(address_fault("twilio.status_callback_base", base));
            faults.extend(self.callback_fault(base));
        }
        if self.whatsapp_from.is_none() && self.sms_from.is_none() && self.messaging_service_sid.is_none() {
            faults.push(fault(
                "twilio.whatsapp_from",
                "no sender is set",
                "Set a WhatsApp sender, an SMS sender or a messaging service.",
            ));
        }
        if self.max_concurrency == 0 {
            faults.push(fault("twilio.max_concurrency", "no call would ever be made", "Set it to 1 or more."));
        }
        if self.connect_timeout.is_zero() || self.connect_timeout >= self.request_timeout {
            faults.push(fault(
                "twilio.connect_timeout",
                "it must be longer than nothing and shorter than the request's time-out",
                "Keep the defaults of 2 and 10 seconds.",
            ));
        }
        faults
    }

    fn identity_faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let console = "Copy it from the Twilio console.";
        if !is_sid("AC", &self.account_sid) {
            faults.push(fault("twilio.account_sid", "it is not AC and 32 hexadecimal digits", console));
        }
        if self.messaging_service_sid.as_ref().is_some_and(|sid| !is_sid("MG", sid)) {
            faults.push(fault("twilio.messaging_service_sid", "it is not MG and 32 hexadecimal digits", console));
        }
        let (subject, secret) = match &self.credentials {
            Credentials::AuthToken(token) => ("twilio.auth_token", token),
            Credentials::ApiKey { sid, secret } => {
                if !is_sid("SK", sid) {
                    faults.push(fault("twilio.api_key_sid", "it is not SK and 32 hexadecimal digits", console));
                }
                ("twilio.api_key_secret", secret)
            }
        };
        let secret = secret.expose();
        if secret.is_empty() || secret.chars().any(|c| c.is_whitespace() || c.is_control()) {
            faults.push(fault(subject, "it is empty or holds a space or line break", console));
        }
        faults
    }

    /// What Twilio would not call back: error 21609, or a callback in the clear.
    fn callback_fault(&self, base: &Url) -> Option<Fault> {
        let subject = "twilio.status_callback_base";
        if base.host_str().is_some_and(|host| host.contains('_')) {
            return Some(fault(subject, "Twilio refuses host names with an underscore", "Use another host name."));
        }
        let clear = base.scheme() == "http" && self.base_url.scheme() == "https";
        clear.then(|| fault(subject, "receipts would travel unencrypted", "Use the service's https address."))
    }

    /// The longest that one call can take: the wait for a free place, and the call. A claim must outlast it.
    pub const fn longest_call(&self) -> Duration {
        self.request_timeout.saturating_mul(2)
    }

    /// Whether every call goes over TLS.
    pub(super) fn https_only(&self) -> bool {
        self.base_url.scheme() == "https" && self.content_base_url.scheme() == "https"
    }

    /// Whether the API is on this machine: then no proxy may stand between.
    pub(super) fn is_local(&self) -> bool {
        match self.base_url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

pub(super) fn fault(subject: &str, problem: &str, remedy: &str) -> Fault {
    Fault { subject: subject.to_owned(), problem: problem.to_owned(), remedy: remedy.to_owned() }
}

fn address_fault(subject: &str, url: &Url) -> Option<Fault> {
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.host().is_some();
    let fits = bare && matches!(url.scheme(), "http" | "https");
    (!fits).then(|| {
        fault(
            subject,
            "it is not a plain http or https address",
            "Give scheme, host and path only: no user name, query or fragment.",
        )
    })
}

/// Why there is no host for an edge and region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    /// Not small letters, digits and dashes.
    #[error("an edge or region is made of small letters, digits and dashes, such as dublin or ie1")]
    Malformed,
    /// A region alone: Twilio stopped the hosts without an edge in April 2026, and the region's edge is not known here.
    #[error("this region needs an edge, such as dublin for ie1")]
    EdgeNeeded,
}

/// The REST API's host: `api.twilio.com`, or `api.<edge>.<region>.twilio.com`. An edge alone means region `us1`; of a
/// region alone the edge is known for `us1`, `ie1` and `au1`.
///
/// Source: "Using the Twilio REST API in a non-US region" in Twilio's documentation. WhatsApp is in `us1` only.
pub fn api_host(edge: Option<&str>, region: Option<&str>) -> Result<String, InvalidHost> {
    let label = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if ![edge, region].into_iter().flatten().all(label) {
        return Err(InvalidHost::Malformed);
    }
    let (edge, region) = match (edge, region) {
        (None, None) => return Ok("api.twilio.com".to_owned()),
        (Some(edge), region) => (edge, region.unwrap_or("us1")),
        (None, Some(region @ "us1")) => ("ashburn", region),
        (None, Some(region @ "ie1")) => ("dublin", region),
        (None, Some(region @ "au1")) => ("sydney", region),
        (None, Some(_)) => return Err(InvalidHost::EdgeNeeded),
    };
    Ok(format!("api.{edge}.{region}.twilio.com"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RestConfig {
        let mut config =
            RestConfig::new("AC00000000000000000000000000000000", Credentials::AuthToken(Secret::new("tokenhunter2")));
        config.whatsapp_from = "+14155238886".parse().ok();
        config
    }

    fn subjects(config: &RestConfig) -> Vec<String> {
        config.faults().into_iter().map(|fault| fault.subject).collect()
    }

    #[test]
    fn the_defaults_with_a_sender_have_no_fault() {
        assert_eq!(config().faults(), []);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let mut config = config();
        config.account_sid = "AC../../x".into();
        config.credentials = Credentials::ApiKey { sid: "AC1".into(), secret: Secret::new("a b") };
        config.messaging_service_sid = Some("SM1".into());
        config.base_url = "https://user:pw@api.twilio.com".parse().unwrap();
        config.content_base_url = "ftp://content.twilio.com".parse().unwrap();
        config.status_callback_base = Some("https://my_host.example.org/?a=1".parse().unwrap());
        config.max_concurrency = 0;
        config.connect_timeout = config.request_timeout;
        let found = subjects(&config);
        for subject in [
            "account_sid",
            "messaging_service_sid",
            "api_key_sid",
            "api_key_secret",
            "base_url",
            "content_base_url",
            "status_callback_base",
            "max_concurrency",
            "connect_timeout",
        ] {
            assert!(found.contains(&format!("twilio.{subject}")), "{subject} in {found:?}");
        }
    }

    #[test]
    fn a_client_without_any_sender_or_with_an_empty_token_is_at_fault() {
        let mut config = config();
        config.whatsapp_from = None;
        config.credentials = Credentials::AuthToken(Secret::new(""));
        assert_eq!(subjects(&config), ["twilio.auth_token", "twilio.whatsapp_from"]);
        config.credentials = Credentials::AuthToken(Secret::new("token\n"));
        config.messaging_service_sid = Some("MG00000000000000000000000000000000".into());
        assert_eq!(subjects(&config), ["twilio.auth_token"]);
    }

    #[test]
    fn receipts_from_twilio_itself_never_travel_in_the_clear() {
        let mut config = config();
        config.status_callback_base = Some("http://relay.example.org".parse().unwrap());
        assert_eq!(subjects(&config), ["twilio.status_callback_base"]);
        config.base_url = "http://127.0.0.1:9000/".parse().unwrap();
        assert!(config.is_local() && !config.https_only());
        assert_eq!(config.faults(), []);
    }

    #[test]
    fn hosts_follow_edge_and_region() {
        let host = |edge, region| api_host(edge, region);
        assert_eq!(host(None, None).unwrap(), "api.twilio.com");
        assert_eq!(host(Some("dublin"), Some("ie1")).unwrap(), "api.dublin.ie1.twilio.com");
        assert_eq!(host(Some("singapore"), None).unwrap(), "api.singapore.us1.twilio.com");
        assert_eq!(host(None, Some("ie1")).unwrap(), "api.dublin.ie1.twilio.com");
        assert_eq!(host(None, Some("jp1")), Err(InvalidHost::EdgeNeeded));
        assert_eq!(host(Some("evil.example/"), None), Err(InvalidHost::Malformed));
    }

    #[test]
    fn a_text_sender_is_a_number_a_short_code_or_a_name() {
        assert!(matches!("+14155238886".parse(), Ok(SmsSender::Number(_))));
        for name in ["56789", "MITRA", "Mitra-Care1"] {
            assert_eq!(name.parse::<SmsSender>().unwrap().address(), name);
        }
        for wrong in ["", "1234567", "MITRA counselling", "mitra\n"] {
            assert!(wrong.parse::<SmsSender>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn debug_of_the_settings_shows_no_secret_and_no_number() {
        let mut config = config();
        config.sms_from = "+14155550123".parse().ok();
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hunter2") && !shown.contains("415555") && !shown.contains("415523"), "{shown}");
    }
}
