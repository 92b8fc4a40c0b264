//! The Content API: message templates.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::{ApiError, json_response, text_response};
use super::config::ContentDefinition;
use super::message::SimButton;
use super::world::World;

/// The most templates that are kept.
const CONTENTS_MAX: usize = 1_000;
const QUICK_REPLY: &str = "twilio/quick-reply";
/// The most buttons of a template, and characters of a title and of an id.
///
/// Source: Twilio, Content API, `twilio/quick-reply` and common components.
const BUTTONS_MAX: usize = 10;
const TITLE_MAX: usize = 25;
const ID_MAX: usize = 128;

/// A template.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub sid: String,
    pub friendly_name: String,
    pub language: String,
    /// Samples of the values, by the name of the variable.
    pub variables: BTreeMap<String, String>,
    /// By kind (`twilio/text`, `twilio/quick-reply`), as it was posted.
    pub types: BTreeMap<String, Value>,
    pub created_at: Timestamp,
    /// What WhatsApp says of it.
    pub approval: String,
}

impl Content {
    pub(super) fn of(sid: String, definition: ContentDefinition, now: Timestamp) -> Self {
        let ContentDefinition { friendly_name, language, variables, types } = definition;
        Self { sid, friendly_name, language, variables, types, created_at: now, approval: "approved".to_owned() }
    }

    /// The text with its values, and the buttons. A button's id has values, too; its title has none in an approved template.
    pub(super) fn render(&self, values: &BTreeMap<String, String>) -> (String, Vec<SimButton>) {
        let filled = |template: &str| fill(template, |name| values.get(name).or_else(|| self.variables.get(name)));
        // Of several kinds the richest that WhatsApp shows.
        let quick_reply = self.types.get(QUICK_REPLY);
        let shape =
            quick_reply.or_else(|| self.types.values().find(|shape| shape.get("body").is_some_and(Value::is_string)));
        let template = shape.and_then(|shape| shape["body"].as_str()).unwrap_or_default();
        let text = |action: &Value, name| action.get(name).and_then(Value::as_str).map(str::to_owned);
        let button =
            |action: &Value| Some(SimButton { title: text(action, "title")?, id: filled(&text(action, "id")?) });
        let actions = shape.and_then(|shape| shape.get("actions")).and_then(Value::as_array);
        let buttons = actions.map(|all| all.iter().filter_map(button).collect()).unwrap_or_default();
        (filled(template), buttons)
    }

    /// Whether a message gives a value that the template has no place for. What is not given is a sample instead.
    pub(super) fn lacks_a_place(&self, values: &BTreeMap<String, String>) -> bool {
        values.keys().any(|name| !self.variables.contains_key(name))
    }

    fn resource(&self, account_sid: &str) -> Value {
        let url = format!("https://content.twilio.com/v1/Content/{}", self.sid);
        json!({
            "sid": self.sid,
            "account_sid": account_sid,
            "friendly_name": self.friendly_name,
            "language": self.language,
            "variables": self.variables,
            "types": self.types,
            "date_created": iso_8601(self.created_at),
            "date_updated": iso_8601(self.created_at),
            "url": url,
            "links": {
                "approval_create": format!("{url}/ApprovalRequests/whatsapp"),
                "approval_fetch": format!("{url}/ApprovalRequests"),
            },
        })
    }

    fn approval(&self) -> Value {
        json!({
            "type": "whatsapp",
            "name": self.friendly_name,
            "category": "UTILITY",
            "content_type": self.types.keys().next(),
            "status": self.approval,
            "rejection_reason": "",
            "allow_category_change": true,
        })
    }
}

/// Puts values where `{{name}}` stands; what has none stays as it is.
fn fill<'a>(template: &str, value: impl Fn(&str) -> Option<&'a String>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let Some(length) = rest[start..].find("}}") else { break };
        let whole = &rest[start..start + length + 2];
        filled.push_str(&rest[..start]);
        filled.push_str(value(whole[2..length].trim()).map_or(whole, String::as_str));
        rest = &rest[start + length + 2..];
    }
    filled.push_str(rest);
    filled
}

fn iso_8601(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Answers a call below `/v1/Content`.
pub(super) fn answer(world: &World, method: &Method, path: &[&str], body: &[u8]) -> Result<Response<Body>, ApiError> {
    match (method.as_str(), path) {
        ("POST", []) => create(world, body),
        ("GET", []) => Ok(list(world)),
        ("GET", [sid]) => found(world, sid, |content| json_response(200, &content.resource(&world.config.account_sid))),
        ("DELETE", [sid]) => {
            let mut contents = world.contents.write();
            let at = contents.iter().position(|content| content.sid == *sid);
            contents.remove(at.ok_or_else(|| missing(sid))?);
            Ok(text_response(204, "application/json", Body::empty()))
        }
        ("GET", [sid, "ApprovalRequests"]) => found(world, sid, |content| {
            let url = format!("https://content.twilio.com/v1/Content/{sid}/ApprovalRequests");
            let account = &world.config.account_sid;
            json_response(200, &json!({"sid": sid, "account_sid": account, "whatsapp": content.approval(), "url": url}))
        }),
        ("POST", [sid, "ApprovalRequests", "whatsapp"]) => {
            found(world, sid, |content| json_response(201, &content.approval()))
        }
        (_, [] | [_] | [_, "ApprovalRequests"] | [_, "ApprovalRequests", "whatsapp"]) => {
            Err(ApiError::new(405, 20004, "Method not allowed"))
        }
        _ => Err(ApiError::not_found(&format!("/v1/Content/{}", path.join("/")))),
    }
}

fn missing(sid: &str) -> ApiError {
    ApiError::not_found(&format!("/v1/Content/{sid}"))
}

fn found(
    world: &World,
    sid: &str,
    answer: impl FnOnce(&Content) -> Response<Body>,
) -> Result<Response<Body>, ApiError> {
    let contents = world.contents.read();
    contents.iter().find(|content| content.sid == sid).map(answer).ok_or_else(|| missing(sid))
}

fn create(world: &World, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let create: ContentDefinition =
        serde_json::from_slice(body).map_err(|_| ApiError::new(400, 20001, "Invalid content definition"))?;
    if create.types.is_empty() {
        return Err(ApiError::new(400, 20001, "At least one content type is required"));
    }
    if let Some(fault) = create.types.get(QUICK_REPLY).and_then(faulty_buttons) {
        return Err(ApiError::new(400, 20001, fault));
    }
    let content = Content::of(world.sid("HX"), create, world.clock.now());
    let resource = content.resource(&world.config.account_sid);
    let mut contents = world.contents.write();
    if contents.len() >= CONTENTS_MAX {
        return Err(ApiError::new(400, 20001, "Too many content templates"));
    }
    contents.push(content);
    Ok(json_response(201, &resource))
}

/// What is wrong with the buttons of a template.
fn faulty_buttons(shape: &Value) -> Option<&'static str> {
    let actions = shape.get("actions").and_then(Value::as_array)?;
    let length = |action: &Value, name| action.get(name).and_then(Value::as_str).map(|text| text.chars().count());
    let fits = |action: &Value, name, most| length(action, name).is_some_and(|length| (1..=most).contains(&length));
    if !(1..=BUTTONS_MAX).contains(&actions.len()) {
        return Some("A quick reply has from 1 to 10 buttons");
    }
    let faulty = |action: &Value| !fits(action, "title", TITLE_MAX) || !fits(action, "id", ID_MAX);
    actions.iter().any(faulty).then_some("A button has a title of at most 25 and an id of at most 128 characters")
}

fn list(world: &World) -> Response<Body> {
    let contents = world.contents.read();
    let all: Vec<Value> = contents.iter().rev().map(|c| c.resource(&world.config.account_sid)).collect();
    let url = "https://content.twilio.com/v1/Content?PageSize=50&Page=0";
    let meta = json!({
        "page": 0, "page_size": all.len(), "first_page_url": url, "previous_page_url": null, "url": url,
        "next_page_url": null, "key": "contents",
    });
    json_response(200, &json!({"contents": all, "meta": meta}))
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn values_are_put_where_the_template_names_them() {
        let (ada, one) = ("Ada {{2}}".to_owned(), "K7Q2".to_owned());
        let value = |name: &str| match name {
            "1" => Some(&ada),
            "2" => Some(&one),
            _ => None,
        };
        assert_eq!(fill("Hi {{1}}, {{ 2 }}! {{3}} {{", value), "Hi Ada {{2}}, K7Q2! {{3}} {{");
        assert_eq!(fill("}} plain {{1", value), "}} plain {{1");
    }
}
