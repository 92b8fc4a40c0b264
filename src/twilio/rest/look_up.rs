//! How far messages got: one by its id, or the latest to a number. Asked when a create call's answer was lost.

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::Deserialize;
use url::Url;

use super::super::callback::receipt;
use super::super::sid::is_message_sid;
use super::answer::{MessageJson, code_of, looked_up};
use super::{ANSWER_MAX, RestClient, address};
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::ids::ProviderId;
use crate::domain::provider::Receipt;
use crate::ports::{ListedMessage, LookUpError};

/// The most that Twilio puts on one page.
const PAGE_MAX: usize = 1000;
/// The longest page that is read, in bytes.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most pages that are followed: a list that leads in a circle ends here.
const PAGES_MAX: usize = 20;

const UNAVAILABLE: LookUpError = LookUpError::Unavailable { retry_after: None };

pub(super) async fn fetch(client: &RestClient, id: &ProviderId) -> Result<Receipt, LookUpError> {
    if !is_message_sid(id.as_str()) {
        return Err(LookUpError::NotFound);
    }
    let answer = client.http.get(client.account_url(&format!("/Messages/{id}.json")), ANSWER_MAX).await;
    let answer = looked_up(answer)?;
    tracing::debug!(
        message_sid = %id,
        http_status = answer.status,
        twilio_request_id = answer.request_id.as_deref(),
        "message fetched",
    );
    let message: MessageJson = serde_json::from_slice(answer.bytes()).map_err(|_| UNAVAILABLE)?;
    // An answer about another message, or with a word that is new at Twilio, settles nothing.
    read_receipt(&message).filter(|receipt| receipt.provider_id == *id).ok_or(UNAVAILABLE)
}

pub(super) async fn list(
    client: &RestClient,
    channel: Channel,
    to: &PhoneNumber,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<ListedMessage>, LookUpError> {
    let mut found = Vec::new();
    let mut next = (limit > 0).then(|| first_page(client, channel, to, limit));
    // Twilio's times are whole seconds, so a message made within the second of `since` must still count.
    let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
    for _ in 0..PAGES_MAX {
        let Some(url) = next else { return Ok(found) };
        let page = read_page(client, url).await?;
        let mut past_the_end = false;
        for message in page.messages {
            match created_at(&message) {
                Some(created_at) if created_at < since => past_the_end = true,
                Some(created_at) => found.extend(listed(&message, created_at)),
                None => {}
            }
        }
        if past_the_end || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        next = match page.next_page_uri {
            Some(uri) => Some(next_page(&client.config.base_url, &uri).ok_or(UNAVAILABLE)?),
            None => None,
        };
    }
    // Half a list must not pass for a whole one: "not there" would mean a second message.
    tracing::warn!("a list of messages has more pages than are followed");
    Err(UNAVAILABLE)
}

/// The list's first page. Not filtered by `DateSent`: a message that waits to be sent has none yet.
fn first_page(client: &RestClient, channel: Channel, to: &PhoneNumber, limit: usize) -> Url {
    let mut url = client.account_url("/Messages.json");
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("To", &address(channel, to));
        // With a messaging service Twilio chooses the sender, so any will do.
        if let Some(("From", from)) = client.sender(channel) {
            query.append_pair("From", &from);
        }
        query.append_pair("PageSize", &limit.min(PAGE_MAX).to_string());
    }
    url
}

/// The next page's address: whatever Twilio says, but nowhere else than at Twilio, since the credentials go with it.
fn next_page(base: &Url, uri: &str) -> Option<Url> {
    let url = base.join(uri).ok()?;
    let fits = url.origin() == base.origin() && url.username().is_empty() && url.password().is_none();
    if !fits {
        tracing::warn!("a list of messages leads to another host; not followed");
    }
    fits.then_some(url)
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<MessageJson>,
    #[serde(default)]
    next_page_uri: Option<String>,
}

async fn read_page(client: &RestClient, url: Url) -> Result<Page, LookUpError> {
    let answer = looked_up(client.http.get(url, PAGE_BYTES_MAX).await).map_err(|error| match error {
        // A list that is not there means that the account is not.
        LookUpError::NotFound => LookUpError::Refused { code: Some(20404) },
        LookUpError::Unavailable { .. } | LookUpError::Refused { .. } => error,
    })?;
    tracing::debug!(http_status = answer.status, twilio_request_id = answer.request_id.as_deref(), "messages listed",);
    serde_json::from_slice(answer.bytes()).map_err(|_| UNAVAILABLE)
}

fn created_at(message: &MessageJson) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(message.date_created.as_str()?).ok()
}

/// The message, unless it is none of ours (an inbound status) or Twilio's words are new.
fn listed(message: &MessageJson, created_at: Timestamp) -> Option<ListedMessage> {
    let body = message.body.as_str().unwrap_or("").to_owned();
    Some(ListedMessage { receipt: read_receipt(message)?, created_at, body })
}

fn read_receipt(message: &MessageJson) -> Option<Receipt> {
    Some(receipt(message.provider_id()?, message.message_status()?, code_of(&message.error_code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_followed_at_the_same_host_only() {
        let base: Url = "https://api.twilio.com/".parse().unwrap();
        let path = "/2010-04-01/Accounts/AC0/Messages.json?PageToken=PASM%2F0&Page=1";
        assert_eq!(next_page(&base, path).unwrap().as_str(), format!("https://api.twilio.com{path}"));
        for foreign in [
            "//evil.example/x",
            "https://evil.example/x",
            "http://api.twilio.com/x",
            "https://api.twilio.com:444/x",
            "https://user@api.twilio.com/x",
            "file:///x",
            "https://[",
        ] {
            assert_eq!(next_page(&base, foreign), None, "{foreign}");
        }
    }
}
