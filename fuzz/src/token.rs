//! Credentials: nobody is let in who does not show a known key, or a token that was signed with the secret.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use crisis_relay::clock::ManualClock;
use crisis_relay::http::auth::{
    ApiKeyHash, ApiKeyRecord, ApiKeys, AuthError, Authenticator, JwtKeySource, JwtSettings, Principal, PrincipalKind,
    Role, SharedSecret,
};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::{edge, first_line, parted};

/// Who must have made a token, and for whom.
pub const ISSUER: &str = "https://issuer.example";
/// See [`ISSUER`].
pub const AUDIENCE: &str = "crisis-relay";

/// Input: lines with headers, an empty line, a line with a token's head and a line with its claims. The headers are
/// shown as they are; head and claims are signed with the right secret.
pub fn run(data: &[u8]) {
    CHECKER.with(|checker| {
        let (headers, token) = parted(data, b"");
        if let Some(headers) = header_map(headers) {
            checker.check_shown(&headers);
        }
        let (head, claims) = first_line(token);
        checker.check_signed(head, first_line(claims).0);
    });
}

thread_local! {
    static CHECKER: Checker = Checker::new();
}

struct Checker {
    runtime: Runtime,
    authenticator: Authenticator,
    now: i64,
}

impl Checker {
    fn new() -> Self {
        let record = ApiKeyRecord {
            id: "chat".to_owned(),
            organisation: "north".parse().expect("an organisation"),
            role: Role::Service,
            hash: ApiKeyHash::of(edge::SERVICE),
            expires_at: None,
        };
        let secret = SharedSecret(Zeroizing::new(edge::JWT_SECRET.as_bytes().to_vec()));
        let jwt = JwtSettings::new(ISSUER, AUDIENCE, JwtKeySource::SharedSecret(secret));
        let keys = ApiKeys::new(vec![record]).expect("one key");
        let now: jiff::Timestamp = edge::NOW.parse().expect("a constant");
        let clock = Arc::new(ManualClock::new(now));
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            authenticator: Authenticator::new(keys, Some(jwt), clock).expect("the settings are good"),
            now: now.as_second(),
        }
    }

    fn ask(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let answer = self.runtime.block_on(self.authenticator.authenticate(headers));
        if let Ok(principal) = &answer {
            assert!(!principal.id.is_empty() && principal.id.chars().count() <= 255, "{principal:?}");
            assert!(!principal.id.contains(char::is_control), "{principal:?}");
            let machine = principal.kind == PrincipalKind::Machine;
            assert_eq!(principal.roles.contains(&Role::Service), machine, "a person acts as a machine: {principal:?}");
        }
        answer
    }

    fn check_shown(&self, headers: &HeaderMap) {
        let Ok(principal) = self.ask(headers) else { return };
        let shown: Vec<&str> = ["authorization", "x-api-key"]
            .into_iter()
            .flat_map(|name| headers.get_all(name))
            .map(|value| value.to_str().expect("whoever is let in has shown text"))
            .collect();
        let [shown] = shown[..] else { panic!("let in with {} credentials", shown.len()) };
        let text = shown.rsplit(' ').find(|part| !part.is_empty()).expect("a credential");
        match principal.kind {
            PrincipalKind::Machine => assert_eq!(text, edge::SERVICE, "a key that nobody was given"),
            PrincipalKind::Person => assert!(is_signed(text), "a token that nobody signed: {text}"),
        }
    }

    fn check_signed(&self, head: &[u8], claims: &[u8]) {
        let signed = format!("{}.{}", BASE64URL_NOPAD.encode(head), BASE64URL_NOPAD.encode(claims));
        let signature = BASE64URL_NOPAD.encode(&mac(&signed).finalize().into_bytes());
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {signed}.{signature}");
        headers.insert("authorization", bearer.parse().expect("base64 fits a header"));
        if self.ask(&headers).is_err() {
            return;
        }
        let head: Value = serde_json::from_slice(head).expect("a token's head is JSON");
        assert_eq!(head["alg"], "HS256", "the token chose the algorithm: {head}");
        assert!(head.get("crit").is_none_or(Value::is_null), "an extension was not understood: {head}");
        let claims: Value = serde_json::from_slice(claims).expect("claims are JSON");
        let named = |name: &str, value: &str| match &claims[name] {
            Value::String(one) => one == value,
            Value::Array(all) => all.iter().any(|one| one == value),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        };
        assert!(named("iss", ISSUER) && named("aud", AUDIENCE), "made by or for somebody else: {claims}");
        let expires = claims["exp"].as_f64().expect("a token ends");
        assert!(expires + 60.0 > self.now as f64, "it has run out: {claims}");
    }
}

/// Reads lines as headers; `None` where one is none.
fn header_map(lines: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(headers)
}

fn mac(signed: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(edge::JWT_SECRET.as_bytes()).expect("HMAC takes any key");
    mac.update(signed.as_bytes());
    mac
}

/// Whether the text is a token that holds under the secret, found out by other means than the service's.
fn is_signed(token: &str) -> bool {
    let Some((signed, signature)) = token.rsplit_once('.') else { return false };
    BASE64URL_NOPAD.decode(signature.as_bytes()).is_ok_and(|bytes| mac(signed).verify_slice(&bytes).is_ok())
}
