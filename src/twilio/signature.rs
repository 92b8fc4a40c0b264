//! Twilio's webhook signature: proof that a request comes from Twilio and was not altered.
//!
//! `X-Twilio-Signature = base64(HMAC-SHA1(auth token, S))`, where `S` is the exact public URL (scheme, host, path and
//! raw query, no fragment), followed for a form by each field's name and value without separators: names in byte order,
//! a repeated name with its distinct values in byte order. A JSON body is not part of `S`; its SHA-256 stands in the
//! query as `bodySHA256` instead. Only the auth token signs, never an API key.
//!
//! Twilio is not steady about naming the port in `S`, so both forms of the URL are tried. The URL must be built from
//! configuration, never from a `Host` header.
//!
//! Source: "Webhooks security" in Twilio's documentation, and the request validator of its Python library (9.13.0).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::secret::Secret;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "X-Twilio-Signature";

/// The query parameter that carries a JSON body's hash.
const BODY_HASH: &str = "bodySHA256";

/// Why a webhook is not believed. Carries nothing of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no token to check with: a fault of our configuration.
    #[error("no auth token is configured to check the signature with")]
    NotConfigured,
    /// The header is missing or empty.
    #[error("the request carries no signature")]
    Missing,
    /// The body is not the one whose hash the URL names.
    #[error("the body does not match the hash in the URL")]
    BodyHash,
    /// The signature was made with another token, for another URL, or the form was altered.
    #[error("the signature does not fit the request")]
    Mismatch,
}

/// Signs a form post, or with no pairs a GET or a JSON post, as Twilio does. A fragment of `public_url` is left out.
pub fn sign<N: AsRef<str>, V: AsRef<str>>(auth_token: &Secret, public_url: &str, form_pairs: &[(N, V)]) -> String {
    mac(auth_token, without_fragment(public_url), &form_text(form_pairs))
}

/// The URL with the body's hash appended, as Twilio calls it for a JSON body; to be signed by [`sign`] with no pairs.
pub fn json_url(public_url: &str, body: &[u8]) -> String {
    let url = without_fragment(public_url);
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{BODY_HASH}={}", HEXLOWER.encode(&Sha256::digest(body)))
}

/// Checks a form post, or with no pairs a GET, against the header. Any of `auth_tokens` may have signed.
pub fn verify<N: AsRef<str>, V: AsRef<str>>(
    auth_tokens: &[Secret],
    public_url: &str,
    form_pairs: &[(N, V)],
    header: Option<&str>,
) -> Result<(), SignatureError> {
    let header = header.filter(|header| !header.is_empty()).ok_or(SignatureError::Missing)?;
    if auth_tokens.iter().all(|token| token.expose().is_empty()) {
        return Err(SignatureError::NotConfigured);
    }
    let text = form_text(form_pairs);
    let mut fits = Choice::from(0);
    for url in port_variants(without_fragment(public_url)) {
        // An empty token would let anybody sign.
        for token in auth_tokens.iter().filter(|token| !token.expose().is_empty()) {
            fits |= mac(token, &url, &text).as_bytes().ct_eq(header.as_bytes());
        }
    }
    if bool::from(fits) { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Checks a JSON post: the URL's `bodySHA256` (which must be there once) against `body`, and the URL against the header.
pub fn verify_json(
    auth_tokens: &[Secret],
    public_url: &str,
    body: &[u8],
    header: Option<&str>,
) -> Result<(), SignatureError> {
    verify::<&str, &str>(auth_tokens, public_url, &[], header)?;
    let query = without_fragment(public_url).split_once('?').map_or("", |(_, query)| query);
    let mut hashes = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == BODY_HASH);
    let named = match (hashes.next(), hashes.next()) {
        (Some((_, hash)), None) => hash,
        _ => return Err(SignatureError::BodyHash),
    };
    let found = HEXLOWER.encode(&Sha256::digest(body));
    if bool::from(found.as_bytes().ct_eq(named.as_bytes())) { Ok(()) } else { Err(SignatureError::BodyHash) }
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length (RFC 2104), so this cannot fail")]
fn mac(auth_token: &Secret, url: &str, form_text: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.expose().as_bytes()).expect("HMAC takes any key");
    mac.update(url.as_bytes());
    mac.update(form_text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Names in byte order, each followed by its value; a repeated name once for each distinct value, in byte order.
fn form_text<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
    let mut fields: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in pairs {
        fields.entry(name.as_ref()).or_default().insert(value.as_ref());
    }
    let mut text = String::new();
    for (name, values) in fields {
        for value in values {
            text.push_str(name);
            text.push_str(value);
        }
    }
    text
}

fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(before, _)| before)
}

/// The URL as it stands, and with its port removed or (where it has none) the scheme's own port added.
///
/// Works on the text: a URL parser would normalise what Twilio signed as it was.
fn port_variants(url: &str) -> Vec<String> {
    let mut variants = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return variants };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host_start = authority.rfind('@').map_or(0, |at| at + 1);
    let host = &authority[host_start..];
    // A colon within the brackets of an IPv6 address is not a port's.
    let port = host.rfind(':').filter(|colon| host.rfind(']').is_none_or(|bracket| bracket < *colon));
    match (port, scheme) {
        (Some(colon), _) => variants.push(format!("{scheme}://{}{tail}", &authority[..host_start + colon])),
        (None, "https") => variants.push(format!("{scheme}://{authority}:443{tail}")),
        (None, "http") => variants.push(format!("{scheme}://{authority}:80{tail}")),
        (None, _) => {}
    }
    variants
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Secret {
        Secret::new("12345")
    }

    fn tokens() -> Vec<Secret> {
        vec![Secret::new("another token"), token()]
    }

    const NONE: &[(&str, &str)] = &[];

    #[track_caller]
    fn holds(url: &str, pairs: &[(&str, &str)], signature: &str) {
        assert_eq!(sign(&token(), url, pairs), signature);
        assert_eq!(verify(&tokens(), url, pairs, Some(signature)), Ok(()));
        assert_eq!(verify(&[Secret::new("12346")], url, pairs, Some(signature)), Err(SignatureError::Mismatch));
    }

    #[test]
    fn vector_1_a_plain_form_keeps_the_query_in_the_url() {
        holds(
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            &[
                ("CallSid", "CA1234567890ABCDE"),
                ("Caller", "+14158675309"),
                ("Digits", "1234"),
                ("From", "+14158675309"),
                ("To", "+18005551212"),
            ],
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        );
    }

    const STATUS: &[(&str, &str)] = &[
        ("SmsSid", "SM0123456789abcdef0123456789abcdef"),
        ("SmsStatus", "undelivered"),
        ("MessageStatus", "undelivered"),
        ("ChannelToAddress", "+4915112XXXX"),
        ("To", "whatsapp:+4915112345678"),
        ("ChannelPrefix", "whatsapp"),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
        ("AccountSid", "AC00000000000000000000000000000000"),
        ("StructuredMessage", "true"),
        ("From", "whatsapp:+14155238886"),
        ("ApiVersion", "2010-04-01"),
        ("ChannelInstallSid", "XE00000000000000000000000000000000"),
        ("ErrorCode", "63016"),
        ("ChannelStatusMessage", ""),
    ];

    #[test]
    fn vector_2_a_status_callback_keeps_its_encoded_query_and_drops_the_fragment() {
        let url = "https://alerts.example.org/twilio/status?alert=9f1c%2Fa&n=1";
        holds(url, STATUS, "uiINvBzMNjoLRuul3mR9aygv5OM=");
        holds(&format!("{url}#rc=5&rp=all"), STATUS, "uiINvBzMNjoLRuul3mR9aygv5OM=");
    }

    #[test]
    fn vector_3_unicode_spaces_and_newlines_are_signed_as_they_are() {
        holds(
            "https://alerts.example.org/twilio/inbound",
            &[
                ("MessageSid", "SM11111111111111111111111111111111"),
                ("From", "whatsapp:+4915112345678"),
                ("To", "whatsapp:+14155238886"),
                ("Body", "  ACK für 7+1 😀\n "),
                ("ProfileName", "Jürgen 😀"),
                ("WaId", "4915112345678"),
                ("NumMedia", "0"),
                ("ButtonText", "Übernehmen"),
                ("ButtonPayload", "ack:9f1c"),
                ("OriginalRepliedMessageSid", "MM22222222222222222222222222222222"),
            ],
            "b4l2ecIiV0DC3QketDVcMRUzWdU=",
        );
    }

    #[test]
    fn vector_4_repeated_names_count_with_their_distinct_sorted_values() {
        let pairs = [("MediaUrl", "b"), ("MediaUrl", "a"), ("MediaUrl", "a"), ("A", "1"), ("a", "2"), ("_", "3")];
        holds("https://alerts.example.org/twilio/x", &pairs, "YPCdsjiWJx638BGkBtrGMqe2h8c=");
    }

    const DELIVERED: &[(&str, &str)] = &[("MessageSid", "SM1"), ("MessageStatus", "delivered")];

    #[test]
    fn vector_5_the_port_may_be_named_or_not() {
        let url = "https://alerts.example.org:8443/twilio/status";
        holds(url, DELIVERED, "XxCvMOA4V6E9e5iBCd+XMm0FLy8=");
        assert_eq!(verify(&tokens(), url, DELIVERED, Some("V3ZKI6O5VPeAVmO3eQC4ggsAn9U=")), Ok(()));
        let plain = "https://alerts.example.org/twilio/status";
        assert_eq!(verify(&tokens(), plain, DELIVERED, Some("JP6t9WyQcIiOPkxaJNLBq86UYf4=")), Ok(()));
        // A port of its own that the URL does not name is another address.
        assert_eq!(
            verify(&tokens(), plain, DELIVERED, Some("XxCvMOA4V6E9e5iBCd+XMm0FLy8=")),
            Err(SignatureError::Mismatch)
        );
    }

    const JSON: &[u8] = "{\"type\":\"com.twilio.messaging.message.delivered\",\"n\":1,\"t\":\"ü\"}".as_bytes();
    const JSON_URL: &str = "https://alerts.example.org/twilio/json?bodySHA256=626b0f88d9bf47c3e9d88225e87d819b7f83f951182c69e71f3975ae535881f0";
    const JSON_SIGNATURE: &str = "hq+DfwlRYrNEh7lRbDjousVmobY=";

    #[test]
    fn vector_6_a_json_body_is_bound_by_its_hash() {
        assert_eq!(json_url("https://alerts.example.org/twilio/json", JSON), JSON_URL);
        holds(JSON_URL, NONE, JSON_SIGNATURE);
        assert_eq!(verify_json(&tokens(), JSON_URL, JSON, Some(JSON_SIGNATURE)), Ok(()));
        assert_eq!(verify_json(&tokens(), JSON_URL, b"{}", Some(JSON_SIGNATURE)), Err(SignatureError::BodyHash));
        assert_eq!(verify_json(&tokens(), JSON_URL, JSON, Some("hq")), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_json_body_without_a_hash_or_with_two_is_not_believed() {
        let bare = "https://alerts.example.org/j";
        let twice = json_url(&json_url(bare, JSON), b"{}");
        for url in [bare, twice.as_str()] {
            let signature = sign(&token(), url, NONE);
            assert_eq!(verify_json(&tokens(), url, JSON, Some(&signature)), Err(SignatureError::BodyHash));
        }
    }

    #[test]
    fn a_get_is_signed_by_its_url_alone() {
        // Reckoned with Python's hmac.
        holds("https://alerts.example.org/voice?attempt=1", NONE, "3yRu/xd+8m3KBla/wO/3PvPPmiw=");
    }

    #[test]
    fn a_missing_signature_or_token_is_told_apart_from_a_wrong_one() {
        let url = "https://alerts.example.org/x";
        assert_eq!(verify(&tokens(), url, NONE, None), Err(SignatureError::Missing));
        assert_eq!(verify(&tokens(), url, NONE, Some("")), Err(SignatureError::Missing));
        assert_eq!(verify(&[], url, NONE, Some("x")), Err(SignatureError::NotConfigured));
        let forged = sign(&Secret::new(""), url, NONE);
        assert_eq!(verify(&[Secret::new("")], url, NONE, Some(&forged)), Err(SignatureError::NotConfigured));
        assert_eq!(verify(&[Secret::new(""), token()], url, NONE, Some(&forged)), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_signature_is_compared_letter_by_letter() {
        let url = "https://alerts.example.org/x";
        let right = sign(&token(), url, NONE);
        for wrong in [right.to_ascii_lowercase(), format!("{right} "), right[..27].to_owned()] {
            assert_eq!(verify(&tokens(), url, NONE, Some(&wrong)), Err(SignatureError::Mismatch), "{wrong}");
        }
    }

    #[test]
    fn ports_are_found_beside_userinfo_and_ipv6() {
        let variants = |url| port_variants(url)[1..].to_vec();
        assert_eq!(variants("https://u:p@h:8443/a:1"), ["https://u:p@h/a:1"]);
        assert_eq!(variants("http://[::1]/a"), ["http://[::1]:80/a"]);
        assert_eq!(variants("http://[::1]:99?q=:1"), ["http://[::1]?q=:1"]);
        assert_eq!(variants("https://h?a=b@c:1"), ["https://h:443?a=b@c:1"]);
        assert!(variants("no url").is_empty() && variants("ftp://h/").is_empty());
    }

    fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec(("[A-Za-z]{1,8}", "\\PC{0,12}"), 1..8)
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_in_any_order_and_any_change_breaks_it(
            pairs in pairs(),
            path in "[a-z]{1,8}",
            at in any::<prop::sample::Index>(),
        ) {
            let url = format!("https://alerts.example.org/{path}?attempt=1");
            let signature = sign(&token(), &url, &pairs);
            let mut turned = pairs.clone();
            turned.reverse();
            prop_assert_eq!(verify(&tokens(), &url, &turned, Some(&signature)), Ok(()));

            let mut altered = pairs.clone();
            let at = at.index(altered.len());
            altered[at].1.push('x');
            prop_assert_eq!(verify(&tokens(), &url, &altered, Some(&signature)), Err(SignatureError::Mismatch));
            let mut added = pairs.clone();
            added.push(("zzzzzzzzz".into(), String::new()));
            prop_assert_eq!(verify(&tokens(), &url, &added, Some(&signature)), Err(SignatureError::Mismatch));
            let elsewhere = format!("{url}0");
            prop_assert_eq!(verify(&tokens(), &elsewhere, &pairs, Some(&signature)), Err(SignatureError::Mismatch));
        }

        #[test]
        fn no_url_however_odd_makes_it_panic(url in "\\PC{0,40}", header in "\\PC{0,40}") {
            prop_assert!(verify(&tokens(), &url, NONE, Some(&header)).is_err());
        }
    }
}
