//! Requests from operations: credentials, path, query, headers and body, each good, nearly good or wild.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

use crate::CANARY;
use crate::common::{ADMIN, AUDITOR, COUNSELLOR_KEY, SERVICE, token};
use crate::schema::{any_json, good, spoilt};

/// A request, as it is sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Whether a webhook is signed as Twilio would.
    pub(crate) signed: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} (signed: {})", self.method, self.target, self.signed)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

type Headers = Vec<(&'static str, Vec<u8>)>;

/// Requests to one operation. `names` are the cases that there are.
pub(crate) fn requests(method: &str, path: &str, operation: &Value, names: &[String]) -> BoxedStrategy<Request> {
    let hook = path.starts_with("/webhooks/");
    let body = match operation.pointer("/requestBody/content/application~1json/schema") {
        Some(schema) => json_body(schema),
        None if hook => form_body(path),
        None => no_body(),
    };
    let headers = (credentials(), idempotency_key(), if_match(operation), odd_headers());
    let method = prop_oneof![
        20 => Just(method.to_owned()),
        1 => prop::sample::select(vec!["HEAD", "OPTIONS", "PATCH", "DELETE", "GET", "POST", "TRACE", "CANARY7791"])
            .prop_map(str::to_owned),
    ];
    let signed = prop::bool::weighted(0.8);
    (method, target(path, operation, names), headers, body, signed)
        .prop_map(|(method, target, (credentials, key, version, odd), (kind, body), signed)| {
            let headers = [credentials, key, version, odd, kind].concat();
            Request { method, target, headers, body, signed }
        })
        .boxed()
}

fn bearer(text: impl AsRef<str>) -> Headers {
    vec![("authorization", format!("Bearer {}", text.as_ref()).into_bytes())]
}

/// Every role by key and by token, nobody, somebody else, and what cannot be a credential.
fn credentials() -> impl Strategy<Value = Headers> {
    let keys = vec![SERVICE, SERVICE, COUNSELLOR_KEY, ADMIN, ADMIN, ADMIN, AUDITOR];
    let key = prop::sample::select(keys.clone());
    prop_oneof![
        16 => key.clone().prop_map(bearer),
        4 => key.prop_map(|key| vec![("x-api-key", key.as_bytes().to_vec())]),
        4 => prop::sample::select(vec!["counsellor", "admin", "auditor", "service", "king"])
            .prop_map(|role| bearer(token("person", role))),
        1 => Just(Vec::new()),
        1 => Just(bearer(CANARY)),
        1 => Just(bearer(format!("{SERVICE}{CANARY}"))),
        1 => Just(bearer(format!("{}x", token("person", "admin")))),
        1 => Just([bearer(SERVICE), bearer(ADMIN)].concat()),
        1 => vec(any::<u8>(), 0..40).prop_map(|bytes| vec![("authorization", header_value(&bytes))]),
        1 => Just(vec![("authorization", b"Basic Y2FuYXJ5Nzc5MQ==".to_vec())]),
    ]
}

/// Bytes as a header can carry them.
fn header_value(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte >= 0x20 && *byte != 0x7f).collect()
}

fn idempotency_key() -> impl Strategy<Value = Headers> {
    let one = |value: Vec<u8>| vec![("idempotency-key", value)];
    prop_oneof![
        8 => Just(Vec::new()),
        4 => "[!-~]{1,60}".prop_map(move |key| one(key.into_bytes())),
        2 => prop::sample::select(vec!["a", "b"]).prop_map(move |key| one(key.as_bytes().to_vec())),
        1 => Just(one(b"k".repeat(256))),
        1 => vec(any::<u8>(), 0..8).prop_map(move |bytes| one(header_value(&bytes))),
        1 => Just([one(b"a".to_vec()), one(b"b".to_vec())].concat()),
    ]
}

/// The version that something is changed from, where that has to be said.
fn if_match(operation: &Value) -> BoxedStrategy<Headers> {
    let mut parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    if !parameters.any(|parameter| parameter["name"] == "If-Match") {
        return Just(Vec::new()).boxed();
    }
    let tag = |value: &str| vec![("if-match", value.as_bytes().to_vec())];
    prop_oneof![
        16 => (1u8..4).prop_map(move |version| tag(&format!("\"{version}\""))),
        2 => Just(Vec::new()),
        2 => prop::sample::select(vec!["*", "1", "\"\"", "W/\"1\"", "\"canary7791\"", "\"99999999999\""]).prop_map(tag),
        1 => Just([tag("\"1\""), tag("\"1\"")].concat()),
    ]
    .boxed()
}

fn odd_headers() -> impl Strategy<Value = Headers> {
    let values = vec![
        ("x-request-id", CANARY.as_bytes().to_vec()),
        ("x-request-id", b"0197c4de-7a00-7cc3-98c4-dc0c0c07398f".to_vec()),
        ("x-forwarded-for", CANARY.as_bytes().to_vec()),
        ("accept", b"text/canary7791".to_vec()),
        ("host", b"canary7791.example".to_vec()),
        ("content-length", b"99999999999".to_vec()),
        ("expect", b"100-continue".to_vec()),
        ("if-none-match", b"\"canary7791\"".to_vec()),
        ("range", b"bytes=0-1".to_vec()),
        ("x-http-method-override", b"DELETE".to_vec()),
        ("cookie", "canary7791=\u{e9}".as_bytes().to_vec()),
        ("x-twilio-signature", CANARY.as_bytes().to_vec()),
    ];
    vec(prop::sample::select(values), 0..2)
}

/// The path with its parameters, and a query.
fn target(path: &str, operation: &Value, names: &[String]) -> BoxedStrategy<String> {
    let mut target = Just(String::new()).boxed();
    for part in path.split('/').skip(1) {
        let part = match part {
            "{id}" if path.contains("/escalation-policies/") => id(&words(&["night", "day", "default"])),
            "{id}" if path.contains("/schedules/") => id(&words(&["nights"])),
            "{id}" if path.contains("/emergency-contacts/") => id(&of_students(names).1),
            "{user_id}" if path.contains("/emergency-contacts/{id}") => {
                let named = prop::sample::select(of_students(names).0);
                prop_oneof![8 => named, 1 => user_id()].boxed()
            }
            "{id}" => {
                // Contacts' ids begin so, and no alert's does.
                let of_contacts = path.starts_with("/api/v1/contacts/");
                let fits = |name: &&String| name.starts_with("c-") == of_contacts && !name.contains('/');
                id(&names.iter().filter(fits).cloned().collect::<Vec<_>>())
            }
            "{user_id}" => user_id(),
            "{channel}" => prop_oneof![
                6 => Just("sms".to_owned()),
                2 => Just("whatsapp".to_owned()),
                1 => Just("voice".to_owned()),
                1 => wild_part(),
            ]
            .boxed(),
            fixed => Just(fixed.to_owned()).boxed(),
        };
        target = (target, part).prop_map(|(before, part)| format!("{before}/{part}")).boxed();
    }
    (target, query(operation)).prop_map(|(path, query)| path + &query).boxed()
}

/// Students who have named somebody, and whom: each by a name of the world that is `student/contact`.
fn of_students(names: &[String]) -> (Vec<String>, Vec<String>) {
    let pairs = names.iter().filter_map(|name| name.split_once('/'));
    pairs.map(|(student, contact)| (student.to_owned(), contact.to_owned())).unzip()
}

fn id(names: &[String]) -> BoxedStrategy<String> {
    prop_oneof![
        12 => prop::sample::select(names.to_vec()),
        2 => Just("0197c4de-7a00-7000-8000-0123456789ab".to_owned()),
        2 => Just("ZZZZZZZZ".to_owned()),
        1 => Just(CANARY.to_owned()),
        2 => wild_part(),
    ]
    .boxed()
}

fn user_id() -> BoxedStrategy<String> {
    prop_oneof![
        8 => "[a-z0-9-]{1,12}",
        2 => "\\PC{1,10}".prop_map(|text| escaped(text.as_bytes())),
        1 => Just(CANARY.to_owned()),
        1 => Just("a".repeat(129)),
        3 => wild_part(),
    ]
    .boxed()
}

/// Any bytes, as a path can carry them.
fn wild_part() -> BoxedStrategy<String> {
    prop_oneof![
        vec(any::<u8>(), 1..12).prop_map(|bytes| escaped(&bytes)),
        any::<String>().prop_map(|text| escaped(text.as_bytes())),
        prop::sample::select(vec![".", "..", "%", "%2", "%zz", "%2e%2e%2f", "%00", "a%2Fb", ";x=1", "*", "a+b", "%ff"])
            .prop_map(str::to_owned),
        Just("x".repeat(5_000)),
    ]
    .boxed()
}

fn escaped(bytes: &[u8]) -> String {
    form_urlencoded::byte_serialize(bytes).collect::<String>().replace('+', "%20")
}

/// A query of what is described, sometimes with what is not.
fn query(operation: &Value) -> BoxedStrategy<String> {
    let mut pairs = Just(Vec::new()).boxed();
    let described = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let described: Vec<&Value> = described.filter(|parameter| parameter["in"] == "query").collect();
    let reads_a_query = !described.is_empty();
    for parameter in described {
        let name = parameter["name"].as_str().unwrap().to_owned();
        let plain = |value: Value| match &value {
            Value::String(text) => escaped(text.as_bytes()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                escaped(value.to_string().as_bytes())
            }
        };
        let value = prop_oneof![
            3 => good(&parameter["schema"], &name).prop_map(plain),
            1 => any_json().prop_map(plain),
            1 => wild_part(),
            1 => prop::sample::select(vec!["", "0", "-1", "201", "18446744073709551616", "1e3", "%31", "twilio"])
                .prop_map(str::to_owned),
            1 => Just("1795163700000000.0197c4de-7a00-7000-8000-0123456789ab".to_owned()),
        ];
        pairs = (pairs, option::weighted(0.3, value))
            .prop_map(move |(mut pairs, value)| {
                pairs.extend(value.map(|value| format!("{name}={value}")));
                pairs
            })
            .boxed();
    }
    // Where no query is read, any is refused: most requests have none, or little else would be found.
    let none = if reads_a_query { 8 } else { 60 };
    let more = prop_oneof![
        none => Just(Vec::new()),
        1 => Just(vec![format!("unheard_of={CANARY}")]),
        1 => Just(vec!["limit=1".to_owned(), "limit=2".to_owned()]),
        1 => wild_part().prop_map(|part| vec![part]),
        1 => Just((0..40).map(|number| format!("a{number}=1")).collect()),
    ];
    (pairs, more)
        .prop_map(|(pairs, more)| match [pairs, more].concat() {
            none if none.is_empty() => String::new(),
            all => format!("?{}", all.join("&")),
        })
        .boxed()
}

fn no_body() -> BoxedStrategy<(Headers, Vec<u8>)> {
    let some = any_json().prop_map(|value| (media("application/json"), value.to_string().into_bytes()));
    prop_oneof![6 => Just((Vec::new(), Vec::new())), 1 => some].boxed()
}

fn media(kind: &str) -> Headers {
    vec![("content-type", kind.as_bytes().to_vec())]
}

fn json_body(schema: &Value) -> BoxedStrategy<(Headers, Vec<u8>)> {
    let body = prop_oneof![
        8 => good(schema, "").prop_map(|value| value.to_string().into_bytes()),
        6 => spoilt(schema).prop_map(|value| value.to_string().into_bytes()),
        1 => any_json().prop_map(|value| value.to_string().into_bytes()),
        2 => (good(schema, ""), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
            let mut bytes = value.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        1 => (good(schema, ""), any::<prop::sample::Index>()).prop_map(|(value, at)| {
            let text = value.to_string().into_bytes();
            text[..at.index(text.len())].to_vec()
        }),
        1 => good(schema, "").prop_map(|value| {
            let text = value.to_string();
            text.replacen('{', "{\"user_id\":1,\"user_id\":2,", 1).into_bytes()
        }),
        1 => vec(any::<u8>(), 0..60),
        1 => Just(format!("{{\"user_id\":\"{}\"}}", CANARY.repeat(7_000)).into_bytes()),
        1 => Just(format!("{}{CANARY}{}", "{\"metadata\":".repeat(40), "}".repeat(40)).into_bytes()),
    ];
    let kind = prop_oneof![
        20 => Just(media("application/json")),
        1 => Just(media("application/json; charset=UTF-8")),
        1 => Just(media("application/json; charset=utf-16")),
        1 => Just(media("text/canary7791")),
        1 => Just(Vec::new()),
        1 => Just([media("application/json"), media("application/json")].concat()),
        1 => Just([media("application/json"), vec![("content-encoding", b"gzip".to_vec())]].concat()),
    ];
    (kind, body).boxed()
}

/// What Twilio posts, and what it might some day.
fn form_body(path: &str) -> BoxedStrategy<(Headers, Vec<u8>)> {
    let account = crisis_relay::simulator::SimulatorConfig::default().account_sid;
    let sid = "SM0123456789abcdef0123456789abcdef";
    let call = "CA0123456789abcdef0123456789abcdef";
    let fixed: Vec<(&str, Vec<String>)> = if path.contains("/voice/") {
        vec![
            ("CallSid", words(&[call, call, call, sid, CANARY])),
            ("CallStatus", words(&["ringing", "in-progress", "completed", "busy", "no-answer", CANARY])),
            ("AnsweredBy", words(&["human", "machine_end_beep", "unknown", CANARY])),
            ("Digits", words(&["1", "2", "9", "12345", CANARY])),
            ("To", words(&["+919800000017", "+919800000017", CANARY])),
        ]
    } else if path.ends_with("status") {
        vec![("MessageStatus", words(&["sent", "delivered", "read", "failed", "undelivered", "queued", CANARY]))]
    } else {
        vec![
            ("From", words(&["whatsapp:+919800000017", "+919800000017", "whatsapp:IN.canary7791", ""])),
            ("To", words(&["whatsapp:+14155238886", "whatsapp:+14155238886", "whatsapp:+4915112345678", "x"])),
            ("Body", words(&["1", "yes", "STOP", "1 ZZZZZZZZ", CANARY, "</Message>", "\u{0}"])),
            ("WaId", words(&["919800000017", CANARY])),
        ]
    };
    let ids = vec![
        ("MessageSid", words(&[sid, sid, sid, "SM1", CANARY])),
        ("AccountSid", words(&[&account, &account, &account, "AC1", CANARY])),
        ("ErrorCode", words(&["", "0", "63016", "30008", "99999999999", CANARY])),
    ];
    let mut pairs = Just(Vec::new()).boxed();
    for (name, values) in ids.into_iter().chain(fixed) {
        pairs = (pairs, option::weighted(0.9, prop::sample::select(values)))
            .prop_map(move |(mut pairs, value): (Vec<(String, String)>, _)| {
                pairs.extend(value.map(|value| (name.to_owned(), value)));
                pairs
            })
            .boxed();
    }
    let more = vec((any::<String>(), any::<String>()), 0..2);
    let form = (pairs, more).prop_map(|(pairs, more)| {
        let all = pairs.into_iter().chain(more);
        form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish().into_bytes()
    });
    let body = prop_oneof![
        12 => form.prop_map(|form| (media("application/x-www-form-urlencoded"), form)),
        1 => vec(any::<u8>(), 0..60).prop_map(|bytes| (media("application/x-www-form-urlencoded"), bytes)),
        1 => any_json().prop_map(|value| (media("application/json"), value.to_string().into_bytes())),
        1 => Just((Vec::new(), b"a=b&".repeat(300))),
        1 => Just((Vec::new(), b"a".repeat(70_000))),
    ];
    body.boxed()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
