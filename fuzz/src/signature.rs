//! Twilio's signature: what was signed is believed, and nothing else is.

use crisis_relay::secret::Secret;
use crisis_relay::twilio::callback::Form;
use crisis_relay::twilio::signature::{SignatureError, json_url, sign, verify, verify_json};

use super::first_line;

/// Input: a line with a URL, a line with a signature that somebody made up, the body.
pub fn run(data: &[u8]) {
    let (url, rest) = first_line(data);
    let (made_up, body) = first_line(rest);
    let (Ok(url), Ok(made_up)) = (std::str::from_utf8(url), std::str::from_utf8(made_up)) else { return };
    let tokens = [Secret::new("the token of today"), Secret::new("the token of tomorrow")];
    check_json(url, made_up, body, &tokens);
    let Ok(form) = Form::parse(body) else { return };
    check_form(url, made_up, &form, &tokens);
    let rendered = form_urlencoded::Serializer::new(String::new()).extend_pairs(form.pairs()).finish();
    if let Ok(again) = Form::parse(rendered.as_bytes()) {
        assert_eq!(again.pairs(), form.pairs(), "a form comes back as another");
    }
}

fn check_form(url: &str, made_up: &str, form: &Form, tokens: &[Secret; 2]) {
    let pairs = form.pairs();
    let [today, tomorrow] = tokens;
    let refused = |tokens: &[Secret], url: &str, pairs: &[(String, String)], header: Option<&str>| {
        verify(tokens, url, pairs, header).expect_err("a forged signature is believed")
    };
    assert!(matches!(refused(tokens, url, pairs, Some(made_up)), SignatureError::Missing | SignatureError::Mismatch));
    assert_eq!(refused(tokens, url, pairs, None), SignatureError::Missing);
    let good = sign(today, url, pairs);
    assert_eq!(good.len(), 28, "a SHA-1 has 28 characters in base64: {good}");
    assert_eq!(verify(std::slice::from_ref(today), url, pairs, Some(&good)), Ok(()));
    assert_eq!(verify(&[tomorrow.clone(), today.clone()], url, pairs, Some(&good)), Ok(()));
    refused(std::slice::from_ref(tomorrow), url, pairs, Some(&good));
    assert_eq!(refused(&[Secret::new("")], url, pairs, Some(&good)), SignatureError::NotConfigured);
    let reversed: Vec<_> = pairs.iter().rev().cloned().collect();
    assert_eq!(sign(today, url, &reversed), good, "the order of the fields makes a difference");
    let mut altered = pairs.to_vec();
    altered.push(("Body".to_owned(), "one more".to_owned()));
    if !pairs.contains(altered.last().expect("one was put there")) {
        refused(tokens, url, &altered, Some(&good));
    }
    if !url.contains('#') {
        refused(tokens, &format!("{url}x"), pairs, Some(&good));
        assert_eq!(sign(today, &format!("{url}#rc=5"), pairs), good, "the fragment makes a difference");
    }
}

fn check_json(url: &str, made_up: &str, body: &[u8], tokens: &[Secret; 2]) {
    let nothing: [(&str, &str); 0] = [];
    assert!(verify_json(tokens, url, body, Some(made_up)).is_err(), "a forged signature is believed");
    if url.contains("bodySHA256") || url.contains('%') {
        return;
    }
    let named = json_url(url, body);
    let good = sign(&tokens[1], &named, &nothing);
    assert_eq!(verify_json(tokens, &named, body, Some(&good)), Ok(()), "{named}");
    let longer = [body, b" "].concat();
    assert_eq!(verify_json(tokens, &named, &longer, Some(&good)), Err(SignatureError::BodyHash));
    let unnamed = sign(&tokens[1], url, &nothing);
    assert_eq!(verify_json(tokens, url, body, Some(&unnamed)), Err(SignatureError::BodyHash), "{url}");
}
