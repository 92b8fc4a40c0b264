//! Whether Twilio would take our messages: asked before a crisis, not during one.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::super::sid::is_sid;
use super::answer::looked_up;
use super::config::{Credentials, SmsSender, fault};
use super::{ANSWER_MAX, RestClient, under};
use crate::ports::{Fault, LookUpError};

/// The most templates that are asked about.
const TEMPLATES_MAX: usize = 100;

/// Credentials, account and the sender of text messages.
pub(super) async fn account(client: &RestClient) -> Vec<Fault> {
    match &client.config.credentials {
        Credentials::AuthToken(_) => match account_status(client).await {
            Ok(faults) if faults.is_empty() => match sender(client).await {
                Ok(mut faults) => {
                    faults.extend(caller(client).await);
                    faults
                }
                // The token is proved already; an API without this list (a simulator) is not at fault.
                Err(LookUpError::NotFound) => Vec::new(),
                Err(error) => vec![unanswered("twilio.sms_from", error)],
            },
            Ok(faults) => faults,
            Err(error) => vec![unanswered("twilio.auth_token", error)],
        },
        // A key may not read the account's page; the list of numbers proves it as well.
        Credentials::ApiKey { .. } => match sender(client).await {
            Ok(mut faults) => {
                faults.extend(caller(client).await);
                faults
            }
            Err(error) => vec![unanswered("twilio.api_key_sid", error)],
        },
    }
}

/// Reads the account's page. It holds the auth token, so one word is taken from it and the rest is zeroed.
async fn account_status(client: &RestClient) -> Result<Vec<Fault>, LookUpError> {
    #[derive(Deserialize)]
    struct Account {
        #[serde(default)]
        status: Value,
    }
    let answer = looked_up(client.http.get(client.account_url(".json"), ANSWER_MAX).await)?;
    let account: Option<Account> = serde_json::from_slice(answer.bytes()).ok();
    let subject = "twilio.account_sid";
    Ok(match account.as_ref().and_then(|account| account.status.as_str()) {
        Some("active") => Vec::new(),
        Some("suspended") => vec![fault(
            subject,
            "the account is suspended: Twilio sends nothing",
            "Open the Twilio console and settle what it asks for, as a rule a payment.",
        )],
        Some("closed") => vec![fault(subject, "the account is closed", "Use an open account.")],
        _ => vec![fault(subject, "Twilio's answer about the account is not readable", ASK_AGAIN)],
    })
}

/// Asks for the number that calls: one of the account's with voice, or one that was verified for it.
async fn caller(client: &RestClient) -> Option<Fault> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Listed {
        incoming_phone_numbers: Vec<Value>,
        outgoing_caller_ids: Vec<Value>,
    }
    let number = client.config.voice_from.as_ref()?;
    let subject = "twilio.voice_from";
    for list in ["IncomingPhoneNumbers", "OutgoingCallerIds"] {
        let mut url = client.account_url(&format!("/{list}.json"));
        url.query_pairs_mut().append_pair("PhoneNumber", number.expose()).append_pair("PageSize", "1");
        let answer = match looked_up(client.http.get(url, ANSWER_MAX).await) {
            Ok(answer) => answer,
            Err(error) => return Some(unanswered(subject, error)),
        };
        let Ok(listed) = serde_json::from_slice::<Listed>(answer.bytes()) else {
            return Some(fault(subject, "Twilio's list of numbers is not readable", ASK_AGAIN));
        };
        if !listed.outgoing_caller_ids.is_empty() {
            return None;
        }
        if let Some(owned) = listed.incoming_phone_numbers.first() {
            let mute = owned["capabilities"]["voice"] == Value::Bool(false);
            let remedy = "Use a number that the Twilio console shows with the capability Voice.";
            return mute.then(|| fault(subject, "the number cannot call", remedy));
        }
    }
    let remedy =
        "Set it to one of the account's own numbers, or have it verified as a caller id in the Twilio console.";
    Some(fault(subject, "the account has no such number", remedy))
}

/// Asks for the sender of text messages among the account's numbers; without one, for any number, to prove a key.
async fn sender(client: &RestClient) -> Result<Vec<Fault>, LookUpError> {
    #[derive(Deserialize)]
    struct Numbers {
        incoming_phone_numbers: Vec<Number>,
    }
    #[derive(Deserialize)]
    struct Number {
        #[serde(default)]
        capabilities: Value,
    }
    let number = match &client.config.sms_from {
        Some(SmsSender::Number(number)) => Some(number),
        // Short codes and names stand in other lists.
        Some(SmsSender::Name(_)) | None => None,
    };
    let mut url = client.account_url("/IncomingPhoneNumbers.json");
    if let Some(number) = number {
        url.query_pairs_mut().append_pair("PhoneNumber", number.expose());
    }
    url.query_pairs_mut().append_pair("PageSize", "1");
    let answer = looked_up(client.http.get(url, ANSWER_MAX).await)?;
    if number.is_none() {
        return Ok(Vec::new());
    }
    let subject = "twilio.sms_from";
    Ok(match serde_json::from_slice::<Numbers>(answer.bytes()) {
        Ok(numbers) => match numbers.incoming_phone_numbers.first() {
            None => vec![fault(
                subject,
                "the account has no such number",
                "Set it to one of the account's own numbers, as the Twilio console shows them.",
            )],
            Some(number) if number.capabilities["sms"] == Value::Bool(false) => vec![fault(
                subject,
                "the number cannot send text messages",
                "Use a number that the Twilio console shows with the capability SMS.",
            )],
            Some(_) => Vec::new(),
        },
        Err(_) => vec![fault(subject, "Twilio's list of numbers is not readable", ASK_AGAIN)],
    })
}

const ASK_AGAIN: &str = "Ask again; if it lasts, check that the base address is Twilio's.";

/// A question that was not answered, in words.
fn unanswered(subject: &str, error: LookUpError) -> Fault {
    match error {
        LookUpError::Unavailable { .. } => fault(
            "twilio.base_url",
            "Twilio cannot be reached, is busy or answers with errors",
            "Check the network's way out (DNS, firewall, proxy) and Twilio's status page, then ask again.",
        ),
        LookUpError::NotFound => fault(
            "twilio.account_sid",
            "Twilio does not know the account",
            "Check the account SID, the region and the base address.",
        ),
        LookUpError::Refused { code } => {
            let problem = match code {
                Some(code) => format!("Twilio refuses the credentials (code {code})"),
                None => "Twilio refuses the credentials".to_owned(),
            };
            fault(subject, &problem, "Copy them anew from the Twilio console; both must be of one account and region.")
        }
    }
}

/// A template that messages are sent by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedTemplate {
    /// `HX` and 32 hexadecimal digits.
    pub content_sid: String,
    /// How many values a message fills in, numbered from 1; `None` where that is not known.
    pub values: Option<usize>,
}

/// The approval of every template, and whether it has a place for each value.
pub(super) async fn templates(client: &RestClient, used: &[UsedTemplate]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if used.len() > TEMPLATES_MAX {
        faults.push(fault(
            "templates",
            "there are more than 100, and only the first 100 were asked about",
            "Remove the templates that are no longer used.",
        ));
    }
    for UsedTemplate { content_sid, values } in used.iter().take(TEMPLATES_MAX) {
        if is_sid("HX", content_sid) {
            faults.extend(match (template(client, content_sid).await, *values) {
                (Some(fault), _) => Some(fault),
                (None, Some(values)) => places(client, content_sid, values).await,
                (None, None) => None,
            });
        } else {
            faults.push(fault(
                "a template's content SID",
                "it is not HX and 32 hexadecimal digits",
                "Copy it from the Twilio console's Content template builder.",
            ));
        }
    }
    faults
}

async fn template(client: &RestClient, sid: &str) -> Option<Fault> {
    #[derive(Deserialize)]
    struct Approvals {
        #[serde(default)]
        whatsapp: Value,
    }
    let subject = format!("template {sid}");
    let url = under(&client.config.content_base_url, &format!("/v1/Content/{sid}/ApprovalRequests"));
    let answer = match looked_up(client.http.get(url, ANSWER_MAX).await) {
        Ok(answer) => answer,
        Err(LookUpError::NotFound) => {
            return Some(fault(&subject, "the account has no such template", "Create it, or correct its content SID."));
        }
        Err(error) => return Some(unanswered(&subject, error)),
    };
    let Ok(approvals) = serde_json::from_slice::<Approvals>(answer.bytes()) else {
        return Some(fault(&subject, "Twilio's answer about it is not readable", ASK_AGAIN));
    };
    let whatsapp = approvals.whatsapp;
    judge(&subject, whatsapp["status"].as_str(), whatsapp["category"].as_str())
}

/// Whether a template has a place for each value that messages fill in, and no other: else Twilio may refuse every one of
/// them (63028).
async fn places(client: &RestClient, sid: &str, values: usize) -> Option<Fault> {
    #[derive(Deserialize)]
    struct Content {
        types: Value,
    }
    let subject = format!("template {sid}");
    let url = under(&client.config.content_base_url, &format!("/v1/Content/{sid}"));
    let answer = match looked_up(client.http.get(url, ANSWER_MAX).await) {
        Ok(answer) => answer,
        Err(error) => return Some(unanswered(&subject, error)),
    };
    let Ok(content) = serde_json::from_slice::<Content>(answer.bytes()) else {
        return Some(fault(&subject, "Twilio's answer about it is not readable", ASK_AGAIN));
    };
    let (found, wanted) = (places_in(&content.types.to_string()), (1..=values).map(|no| no.to_string()).collect());
    if found == wanted {
        return None;
    }
    let problem = format!("it has {} places, and messages fill in {values} numbered values", found.len());
    let remedy = "Register the text that crisis-relay template prints, with its buttons or without: docs/templates.md.";
    Some(fault(&subject, &problem, remedy))
}

/// The names that stand in `{{…}}`, each once.
fn places_in(text: &str) -> BTreeSet<String> {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
    inside.map(|(name, _)| name.trim().to_owned()).collect()
}

/// What a template's approval status and category mean for sending it in a crisis.
fn judge(subject: &str, status: Option<&str>, category: Option<&str>) -> Option<Fault> {
    let replace = "Open it in the Twilio console's Content template builder and replace it by one that is approved.";
    let (problem, remedy) = match (status, category) {
        (Some("approved"), Some(category)) if category.eq_ignore_ascii_case("marketing") => (
            "it is approved as marketing, which WhatsApp may hold back and never delivers to the USA",
            "Have it approved in the category Utility.",
        ),
        (Some("approved"), _) => return None,
        (Some("received" | "pending"), _) => {
            ("WhatsApp has not approved it yet", "Wait for the approval, then ask again.")
        }
        (Some("unsubmitted") | None, _) => (
            "it was never handed to WhatsApp for approval",
            "Submit it in the Twilio console's Content template builder, in the category Utility.",
        ),
        (Some("rejected"), _) => ("WhatsApp has rejected it", replace),
        (Some("paused"), _) => ("WhatsApp has paused it, since recipients complained", replace),
        (Some("disabled"), _) => ("WhatsApp has disabled it", replace),
        (Some(_), _) => ("it is not approved", replace),
    };
    Some(fault(subject, problem, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_counts_once_wherever_it_stands() {
        let text =
            r#"{"twilio/quick-reply":{"body":"a {{1}} b {{ 2 }} c","actions":[{"id":"1.{{3}}"},{"id":"2.{{3}}"}]}}"#;
        assert_eq!(places_in(text).into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(places_in("{{1} }} {{").len(), 1);
        assert!(places_in("a }} b").is_empty());
    }

    #[test]
    fn only_an_approved_template_that_is_no_marketing_passes() {
        assert_eq!(judge("t", Some("approved"), Some("UTILITY")), None);
        assert_eq!(judge("t", Some("approved"), None), None);
        for status in ["received", "pending", "unsubmitted", "rejected", "paused", "disabled", "novel", ""] {
            assert!(judge("t", Some(status), Some("UTILITY")).is_some(), "{status}");
        }
        assert!(judge("t", None, None).is_some());
        assert!(judge("t", Some("approved"), Some("MARKETING")).is_some());
    }
}
