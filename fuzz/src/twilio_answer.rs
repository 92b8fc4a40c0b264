//! Twilio's answers: whatever comes back, it is never taken for more than it proves, and nothing of it is told on.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::clock::ManualClock;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::ids::{AlertId, AttemptNo, AttemptRef, DeliveryNo, ProviderId};
use crisis_relay::domain::provider::SendOutcome;
use crisis_relay::ports::{LookUpError, MessageContent, MessageRequest, TwilioClient as _};
use crisis_relay::secret::Secret;
use crisis_relay::twilio::rest::{Credentials, RestClient, RestConfig, UsedTemplate};
use jiff::Timestamp;
use serde_json::Value;

use super::loopback::{Answer, Loopback, PATIENCE};
use super::{edge, parted, repeats};

/// The message that is asked about.
const SID: &str = "SM0123456789abcdef0123456789abcdef";
/// The most pages of a list that are followed.
const PAGES_MAX: usize = 20;
/// The most messages that are asked for.
const LIMIT: usize = 50;
/// The longest `Retry-After` that can be told: ten digits.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(9_999_999_999);
/// Refusals for haste by number, whatever their status: too many requests, too many channel messages.
const HASTE: [u64; 2] = [20429, 63017];
/// After these nobody knows whether a message was made: Twilio failed, or its own provider did not answer it.
const NOBODY_KNOWS: [u64; 3] = [20500, 20503, 30410];
/// The account's token, which no fault may show.
const AUTH_TOKEN: &str = "auth-token-of-the-account";

/// Input: a line with a status, lines with headers, an empty line, the body.
pub fn run(data: &[u8]) {
    let (head, body) = parted(data, b"");
    let Some(answer) = Answer::read(head, body) else { return };
    ACCOUNT.with(|account| account.check(&answer));
}

thread_local! {
    static ACCOUNT: Account = Account::new();
}

struct Account {
    server: Loopback,
    client: RestClient,
    since: Timestamp,
}

impl Account {
    fn new() -> Self {
        edge::keep_logs();
        let server = Loopback::start();
        let sid = "AC00000000000000000000000000000000";
        let mut config = RestConfig::new(sid, Credentials::AuthToken(Secret::new(AUTH_TOKEN)));
        config.base_url = server.url.parse().expect("a URL");
        config.content_base_url = config.base_url.clone();
        (config.connect_timeout, config.request_timeout) = (PATIENCE / 2, PATIENCE);
        config.whatsapp_from = "+14155238886".parse().ok();
        config.sms_from = "+14155238887".parse().ok();
        let since: Timestamp = edge::NOW.parse().expect("a constant");
        let client = RestClient::new(config, Arc::new(ManualClock::new(since))).expect("the settings are good");
        Self { server, client, since }
    }

    fn check(&self, answer: &Answer) {
        edge::logged();
        self.check_created(answer);
        self.check_fetched(answer);
        self.check_listed(answer);
        self.check_faults(answer);
        let log = edge::logged();
        assert!(log.contains("hyper"), "what the client is built from is not listened to: {log}");
        // Twilio's own name for a call is logged, if it has the form of one.
        let named = answer.header("twilio-request-id").map(|id| format!("twilio_request_id=\"{id}\""));
        let unnamed = named.map_or_else(|| log.clone(), |named| log.replace(&named, ""));
        assert!(!repeats(&unnamed), "a log line repeats an answer: {log}");
        assert!(!log.contains(AUTH_TOKEN), "a log line tells too much: {log}");
    }

    fn check_created(&self, answer: &Answer) {
        let request = MessageRequest {
            attempt: Some(AttemptRef {
                alert: AlertId::new(self.since, [7; 10]),
                delivery: DeliveryNo(1),
                attempt: AttemptNo(1),
            }),
            channel: Channel::Whatsapp,
            to: super::counsellor().parse().expect("a number"),
            content: MessageContent::Body("Ref K7Q4TX3M".to_owned()),
        };
        let (outcome, asked) = self.server.answering(answer, self.client.create_message(&request));
        assert_eq!(asked, 1, "a message is created once for each call");
        let success = (200..300).contains(&answer.status);
        match outcome {
            SendOutcome::Accepted { provider_id, .. } => {
                assert!(success, "{} was taken for a yes", answer.status);
                assert_eq!(sid_in(&answer.body).as_ref(), Some(&provider_id), "a message that nobody made");
            }
            SendOutcome::NotExecuted { retry_after, .. } => {
                let refused = (300..500).contains(&answer.status) && answer.status != 408;
                let for_haste = answer.status == 429 || code_in(&answer.body).is_some_and(|code| HASTE.contains(&code));
                assert!(refused && for_haste, "only a refusal for haste says that nothing was sent: {}", answer.status);
                assert!(retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX), "{retry_after:?}");
            }
            SendOutcome::Unknown { retry_after, .. } => {
                let by_code = code_in(&answer.body).is_some_and(|code| NOBODY_KNOWS.contains(&code));
                assert!(success || answer.status == 408 || answer.status >= 500 || by_code, "{}", answer.status);
                assert!(retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX), "{retry_after:?}");
            }
            SendOutcome::Refused(_) => assert!((300..500).contains(&answer.status), "{}", answer.status),
            SendOutcome::NotBegun { .. } => panic!("a call was made"),
        }
    }

    fn check_fetched(&self, answer: &Answer) {
        let id: ProviderId = SID.parse().expect("a SID");
        let (receipt, _) = self.server.answering(answer, self.client.fetch_message(&id));
        match receipt {
            Ok(receipt) => {
                assert!((200..300).contains(&answer.status));
                assert_eq!(receipt.provider_id, id, "the receipt of another message");
                assert!(receipt.status.is_failure() || receipt.fault.is_none(), "{receipt:?}");
            }
            Err(error) => check_look_up(answer, &error),
        }
    }

    fn check_listed(&self, answer: &Answer) {
        let to = super::counsellor().parse().expect("a number");
        let listing = self.client.list_messages(Channel::Sms, &to, self.since, LIMIT);
        let (listed, asked) = self.server.answering(answer, listing);
        assert!((1..=PAGES_MAX).contains(&asked), "{asked} pages were asked for");
        match listed {
            Ok(messages) => {
                assert!((200..300).contains(&answer.status) && messages.len() <= LIMIT);
                assert!(messages.iter().all(|message| message.created_at >= self.since), "older than asked for");
                assert!(!repeats(&format!("{messages:?}")), "the words of a message are shown");
            }
            Err(error) => check_look_up(answer, &error),
        }
    }

    fn check_faults(&self, answer: &Answer) {
        let used = [UsedTemplate { content_sid: format!("HX{}", "0".repeat(32)), values: Some(9) }];
        let ask = async { (self.client.check().await, self.client.check_templates(&used).await) };
        let ((account, templates), _) = self.server.answering(answer, ask);
        let told = format!("{account:?}{templates:?}");
        assert!(!repeats(&told) && !told.contains(AUTH_TOKEN), "a fault tells too much: {told}");
        let success = (200..300).contains(&answer.status);
        assert!(success || (!account.is_empty() && !templates.is_empty()), "{} was taken for a yes", answer.status);
    }
}

fn check_look_up(answer: &Answer, error: &LookUpError) {
    match error {
        LookUpError::NotFound => assert_eq!(answer.status, 404, "only a 404 says that there is none"),
        LookUpError::Unavailable { retry_after } => {
            assert!(retry_after.is_none_or(|wait| wait <= RETRY_AFTER_MAX), "{retry_after:?}");
        }
        LookUpError::Refused { .. } => assert!((300..500).contains(&answer.status), "{}", answer.status),
    }
}

/// The SID in a body, found by another reader. What is no UTF-8 in a field that nobody reads does not unmake a message.
/// The number that a refusal names: an integer, or its digits.
fn code_in(body: &[u8]) -> Option<u64> {
    let body: Value = serde_json::from_str(&String::from_utf8_lossy(body)).ok()?;
    let code = body.get("code")?;
    code.as_u64().or_else(|| code.as_str()?.parse().ok())
}

fn sid_in(body: &[u8]) -> Option<ProviderId> {
    let body: Value = serde_json::from_str(&String::from_utf8_lossy(body)).ok()?;
    body.get("sid")?.as_str()?.parse().ok()
}
