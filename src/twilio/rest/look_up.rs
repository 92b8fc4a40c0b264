//! How far messages got: one by its id, or the latest to a number. Asked when a create call's answer was lost.

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::Deserialize;
use url::Url;

use super::super::callback::receipt;
use super::super::sid::{call_sid, is_message_sid};
use super::answer::{MessageJson, Resource, code_of, looked_up};
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
    let resource = match id.as_str() {
        sid if is_message_sid(sid) => Resource::Message,
        sid if call_sid(sid).is_some() => Resource::Call,
        _ => return Err(LookUpError::NotFound),
    };
    let url = client.account_url(&format!("/{}/{id}.json", resource.path()));
    let answer = client.http.get(url, ANSWER_MAX).await;
    let answer = looked_up(answer)?;
    tracing::debug!(
        message_sid = %id,
        http_status = answer.status,
        twilio_request_id = answer.request_id.as_deref(),
        "message fetched",
    );
    let message: MessageJson = serde_json::from_slice(answer.bytes()).map_err(|_| UNAVAILABLE)?;
    // An answer about another message, or with a word that is new at Twilio, settles nothing.
    read_receipt(resource, &message).filter(|receipt| receipt.provider_id == *id).ok_or(UNAVAILABLE)
}

pub(super) async fn list(
    client: &RestClient,
    channel: Channel,
    to: &PhoneNumber,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<ListedMessage>, LookUpError> {
    let resource = Resource::of(channel);
    let mut found = Vec::new();
    let mut next = (limit > 0).then(|| first_page(client, channel, to, limit));
    // Twilio's times are whole seconds, so a message made within the second of `since` must still count.
    let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
    for _ in 0..PAGES_MAX {
        let Some(url) = next else { return Ok(found) };
        let page = read_page(client, resource, url).await?;
        let mut past_the_end = false;
        for message in page.messages {
            match (created_at(&message), resource) {
                (Some(created_at), _) if created_at < since => past_the_end = true,
                (Some(created_at), _) => found.extend(listed(resource, &message, created_at)),
                // A call that waits for its turn may have no date yet: it has only just been made.
                (None, Resource::Call) => found.extend(listed(resource, &message, since)),
                (None, Resource::Message) => {}
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

/// The list's first page. Not filtered by `DateSent` or `StartTime`: what waits to be sent or dialled has none yet.
fn first_page(client: &RestClient, channel: Channel, to: &PhoneNumber, limit: usize) -> Url {
    let mut url = client.account_url(&format!("/{}.json", Resource::of(channel).path()));
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
struct PageJson {
    messages: Option<Vec<MessageJson>>,
    calls: Option<Vec<MessageJson>>,
    #[serde(default)]
    next_page_uri: Option<String>,
}

struct Page {
    messages: Vec<MessageJson>,
    next_page_uri: Option<String>,
}

async fn read_page(client: &RestClient, resource: Resource, url: Url) -> Result<Page, LookUpError> {
    let answer = looked_up(client.http.get(url, PAGE_BYTES_MAX).await).map_err(|error| match error {
        // A list that is not there means that the account is not.
        LookUpError::NotFound => LookUpError::Refused { code: Some(20404) },
        LookUpError::Unavailable { .. } | LookUpError::Refused { .. } => error,
    })?;
    tracing::debug!(http_status = answer.status, twilio_request_id = answer.request_id.as_deref(), "messages listed",);
    let page: PageJson = serde_json::from_slice(answer.bytes()).map_err(|_| UNAVAILABLE)?;
    let messages = match resource {
        Resource::Message => page.messages,
        Resource::Call => page.calls,
    };
    // An answer that is no list must not pass for an empty one.
    Ok(Page { messages: messages.ok_or(UNAVAILABLE)?, next_page_uri: page.next_page_uri })
}

fn created_at(message: &MessageJson) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(message.date_created.as_str()?).ok()
}

/// The message or call, unless it is none that we have asked Twilio for (an inbound one; the words that were said back to a
/// reply, which name cases, too, and tell nobody of any) or Twilio's words are new.
fn listed(resource: Resource, message: &MessageJson, created_at: Timestamp) -> Option<ListedMessage> {
    if message.direction.as_str() != Some("outbound-api") {
        return None;
    }
    let body = message.body.as_str().unwrap_or("").to_owned();
    Some(ListedMessage { receipt: read_receipt(resource, message)?, created_at, body })
}

fn read_receipt(resource: Resource, message: &MessageJson) -> Option<Receipt> {
    let (id, status) = (message.provider_id(resource)?, message.message_status(resource)?);
    Some(receipt(id, status, code_of(&message.error_code)))
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
