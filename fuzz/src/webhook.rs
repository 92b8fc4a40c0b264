//! What is posted to the webhooks: believed if Twilio signed it, and then read or refused by field.

use axum::body::Body;
use axum::http::{HeaderValue, Request, Uri};
use crisis_relay::secret::Secret;
use crisis_relay::simulator::SimulatorConfig;
use crisis_relay::twilio::callback::Form;
use crisis_relay::twilio::signature;

use super::edge::{self, Answer, PUBLIC_BASE};
use super::first_line;

/// Input: a line with the path and query below the webhooks (`status?alert=…`, `incoming`, `voice/key?alert=…`), a line with a signature
/// that somebody made up, the body. A body that begins as a JSON object is posted as one.
pub fn run(data: &[u8]) {
    let (target, rest) = first_line(data);
    let (made_up, body) = first_line(rest);
    let Ok(target) = std::str::from_utf8(target) else { return };
    let Ok(uri) = format!("/webhooks/twilio/{target}").parse::<Uri>() else { return };
    let Ok(made_up) = HeaderValue::from_bytes(made_up) else { return };
    let known = |path: &&str| uri.path().strip_prefix("/webhooks/twilio/") == Some(path);
    if !["status", "incoming", "voice/answer", "voice/key", "voice/code", "voice/status"].iter().any(known) {
        return;
    }
    let json = body.trim_ascii_start().starts_with(b"{");
    let forged = post(&uri, made_up, json, body);
    assert!(matches!(forged.status, 400 | 403 | 413), "a forged callback is answered {}", forged.status);
    let Some((uri, signature)) = signed(uri, json, body) else { return };
    let answer = post(&uri, HeaderValue::try_from(signature).expect("base64 fits a header"), json, body);
    assert!(!answer.body.contains("bad_signature"), "what Twilio signed is not believed: {target:?}");
    assert!(matches!(answer.status, 200 | 204 | 400 | 403), "{} {}", answer.status, answer.body);
    if answer.status == 200 {
        assert!(answer.body.starts_with("<?xml") && answer.body.ends_with("</Response>"), "{}", answer.body);
        assert!(!super::repeats(&answer.body), "the answer repeats a value: {}", answer.body);
    }
}

fn post(uri: &Uri, signature: HeaderValue, json: bool, body: &[u8]) -> Answer {
    let kind = if json { "application/json" } else { "application/x-www-form-urlencoded" };
    let request = Request::post(uri.clone())
        .header("content-type", kind)
        .header(signature::SIGNATURE_HEADER, signature)
        .body(Body::from(body.to_vec()))
        .expect("a request");
    edge::ask(request)
}

/// The request's target and signature as Twilio makes them; `None` for what Twilio cannot have posted.
fn signed(uri: Uri, json: bool, body: &[u8]) -> Option<(Uri, String)> {
    let token = Secret::new(token());
    if !json {
        let form = Form::parse(body).ok()?;
        let signature = signature::sign(&token, &format!("{PUBLIC_BASE}{uri}"), form.pairs());
        return Some((uri, signature));
    }
    // A JSON body's hash stands in the URL, once.
    if uri.query().is_some_and(|query| query.contains("SHA256") || query.contains('%')) {
        return None;
    }
    let named: Uri = signature::json_url(&uri.to_string(), body).parse().ok()?;
    let signature = signature::sign::<&str, &str>(&token, &format!("{PUBLIC_BASE}{named}"), &[]);
    Some((named, signature))
}

/// The auth token of an account that is simulated.
fn token() -> String {
    SimulatorConfig::default().auth_token.expose().to_owned()
}
