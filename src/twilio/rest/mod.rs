//! Twilio's REST API over HTTP: the one [`TwilioClient`] of production.
//!
//! One call is one HTTP request: no retry, no redirect, no cache. Twilio has no idempotency key for messages and calls, so a
//! second request could be a second message; whether to ask again is decided where the alert's state is known.
//!
//! Who and what a message is for stays inside this module: logs carry the attempt's ids, the HTTP status, Twilio's
//! request id and error code, and nothing else.
//!
//! - `call`: what a call asks for · `config`: the settings and their shape · `http`: one bounded request · `answer`: what an answer means
//! - `look_up`: how far messages got · `check`: whether credentials, senders and templates are usable
//!
//! Source: Twilio's OpenAPI description of API 2010-04-01 (2.6.7) and its documentation, read in November 2026.

mod answer;
mod call;
mod check;
mod config;
mod http;
mod look_up;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serializer as _;
use url::Url;

use self::answer::Resource;
use self::http::{Answer, Http, Transport};
use super::callback::status_callback_url;
use super::error_codes::classify_sync;
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::ids::ProviderId;
use crate::domain::provider::{ProviderFault, Receipt, SendOutcome};
use crate::ports::{Clock, Fault, ListedMessage, LookUpError, MessageContent, MessageRequest, TwilioClient};

pub use check::UsedTemplate;
pub use config::{Credentials, InvalidHost, RestConfig, SmsSender, api_host};

/// The longest answer that is read, in bytes; a message is about 1 to 3 KB.
const ANSWER_MAX: usize = 64 * 1024;

/// Why no client could be built.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The settings are malformed: everything that is wrong with them.
    #[error("the Twilio settings are malformed ({} faults)", .0.len())]
    Config(Vec<Fault>),
    /// The HTTP library cannot start, for example without root certificates.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

/// Twilio over HTTP. Shared by all workers; one connection pool. `Debug` shows the settings without secret or number.
pub struct RestClient {
    config: RestConfig,
    http: Http,
}

impl fmt::Debug for RestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestClient").field("config", &self.config).finish_non_exhaustive()
    }
}

impl RestClient {
    /// A client for these settings; refuses malformed ones. Connects to nothing yet. `clock` is asked for the time when
    /// Twilio names one in `Retry-After`.
    pub fn new(config: RestConfig, clock: Arc<dyn Clock>) -> Result<Self, RestError> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(RestError::Config(faults));
        }
        let http = Http::new(&config, clock).map_err(RestError::Http)?;
        Ok(Self { config, http })
    }

    /// `{base}/2010-04-01/Accounts/{AC}{rest}`. Every part is of a checked shape, so nothing needs escaping.
    fn account_url(&self, rest: &str) -> Url {
        under(&self.config.base_url, &format!("/2010-04-01/Accounts/{}{rest}", self.config.account_sid))
    }

    /// The sender of a channel as form fields; `None` if the channel has none.
    fn sender(&self, channel: Channel) -> Option<(&'static str, String)> {
        match channel {
            Channel::Whatsapp => {
                let from = self.config.whatsapp_from.as_ref()?;
                Some(("From", format!("whatsapp:{}", from.expose())))
            }
            Channel::Sms => match (&self.config.messaging_service_sid, &self.config.sms_from) {
                (Some(service), _) => Some(("MessagingServiceSid", service.clone())),
                (None, Some(from)) => Some(("From", from.address().to_owned())),
                (None, None) => None,
            },
            Channel::Voice => Some(("From", self.config.voice_from.as_ref()?.expose().to_owned())),
        }
    }

    /// The create call's form, fields in the order of Twilio's own examples.
    fn form(&self, request: &MessageRequest) -> Result<String, ProviderFault> {
        let unusable = || classify_sync(400, None);
        let sender = self.sender(request.channel).ok_or_else(unusable)?;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("To", &address(request.channel, &request.to));
        form.append_pair(sender.0, &sender.1);
        match (request.channel, &request.content) {
            (Channel::Whatsapp | Channel::Sms, MessageContent::Body(body)) => {
                form.append_pair("Body", body);
            }
            (Channel::Whatsapp | Channel::Sms, MessageContent::Template { content_sid, variables }) => {
                form.append_pair("ContentSid", content_sid);
                if !variables.is_empty() {
                    form.append_pair("ContentVariables", &numbered(variables));
                }
            }
            // Without an address of ours, and something that it is about, there is nothing that a call could say.
            (Channel::Voice, MessageContent::Call) => {
                let base = self.config.status_callback_base.as_ref().ok_or_else(unusable)?;
                let attempt = request.attempt.as_ref().ok_or_else(unusable)?;
                call::append(&mut form, &self.config, base, attempt);
                return Ok(form.finish());
            }
            (Channel::Voice, MessageContent::CodeCall(code)) => {
                let base = self.config.status_callback_base.as_ref().ok_or_else(unusable)?;
                call::append_code(&mut form, &self.config, base, code);
                return Ok(form.finish());
            }
            (Channel::Voice, MessageContent::Body(_) | MessageContent::Template { .. })
            | (Channel::Whatsapp | Channel::Sms, MessageContent::Call | MessageContent::CodeCall(_)) => {
                return Err(unusable());
            }
        }
        if let (Some(base), Some(attempt)) = (&self.config.status_callback_base, &request.attempt) {
            form.append_pair("StatusCallback", &status_callback_url(base, attempt));
        }
        Ok(form.finish())
    }
}

/// `base` with `path` after its own.
fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// A number as Twilio addresses it on a channel.
fn address(channel: Channel, number: &PhoneNumber) -> String {
    match channel {
        Channel::Whatsapp => format!("whatsapp:{}", number.expose()),
        Channel::Sms | Channel::Voice => number.expose().to_owned(),
    }
}

/// `{"1":"…","2":"…"}` in the order of the variables.
fn numbered(variables: &[String]) -> String {
    let mut json = Vec::new();
    let pairs = variables.iter().enumerate().map(|(index, value)| ((index + 1).to_string(), value));
    // Strings into memory: nothing of this can fail.
    let _ = serde_json::Serializer::new(&mut json).collect_map(pairs);
    String::from_utf8(json).unwrap_or_default()
}

#[async_trait]
impl TwilioClient for RestClient {
    async fn create_message(&self, request: &MessageRequest) -> SendOutcome {
        let form = match self.form(request) {
            Ok(form) => form,
            Err(fault) => return SendOutcome::Refused(fault),
        };
        let resource = Resource::of(request.channel);
        let url = self.account_url(&format!("/{}.json", resource.path()));
        let answer = self.http.post_form(url, form, ANSWER_MAX).await;
        let outcome = answer::outcome(resource, &answer);
        log_create(request, &answer, &outcome);
        outcome
    }

    async fn fetch_message(&self, id: &ProviderId) -> Result<Receipt, LookUpError> {
        look_up::fetch(self, id).await
    }

    async fn list_messages(
        &self,
        channel: Channel,
        to: &PhoneNumber,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<ListedMessage>, LookUpError> {
        look_up::list(self, channel, to, since, limit).await
    }

    async fn check(&self) -> Vec<Fault> {
        check::account(self).await
    }
}

impl RestClient {
    /// Asks Twilio whether each of these WhatsApp templates (`HX…`) may be sent; says everything that is wrong, with
    /// how to mend it. Only the first 100 are asked about; more are a fault of their own.
    pub async fn check_templates(&self, used: &[UsedTemplate]) -> Vec<Fault> {
        check::templates(self, used).await
    }
}

fn log_create(request: &MessageRequest, answer: &Result<Answer, Transport>, outcome: &SendOutcome) {
    let attempt = request.attempt.as_ref();
    let answered = answer.as_ref().ok();
    tracing::debug!(
        alert = attempt.map(|attempt| tracing::field::display(attempt.alert)),
        delivery = attempt.map(|attempt| tracing::field::display(attempt.delivery)),
        attempt = attempt.map(|attempt| tracing::field::display(attempt.attempt)),
        channel = request.channel.as_str(),
        http_status = answered.map(|answer| answer.status),
        twilio_request_id = answered.and_then(|answer| answer.request_id.as_deref()),
        code = code_of(outcome),
        transport = answer.as_ref().err().map(tracing::field::debug),
        "create call answered",
    );
}

fn code_of(outcome: &SendOutcome) -> Option<u32> {
    match outcome {
        SendOutcome::Refused(fault) => fault.code,
        SendOutcome::NotExecuted { retry_after: _, fault } => fault.and_then(|fault| fault.code),
        SendOutcome::Accepted { provider_id: _, status: _ }
        | SendOutcome::NotBegun { wait: _ }
        | SendOutcome::Unknown { cause: _, retry_after: _ } => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_base_url_may_have_a_path_of_its_own() {
        for base in ["http://localhost:1/twilio", "http://localhost:1/twilio/"] {
            assert_eq!(under(&base.parse().unwrap(), "/v1/x").as_str(), "http://localhost:1/twilio/v1/x");
        }
        assert_eq!(under(&"https://api.twilio.com".parse().unwrap(), "/v1").as_str(), "https://api.twilio.com/v1");
    }

    proptest! {
        #[test]
        fn template_variables_are_json_numbered_from_1(values in prop::collection::vec("\\PC{0,20}", 1..12)) {
            let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&numbered(&values)).unwrap();
            prop_assert_eq!(read.len(), values.len());
            for (index, value) in values.iter().enumerate() {
                prop_assert_eq!(read[&(index + 1).to_string()].as_str(), Some(value.as_str()));
            }
        }
    }
}
