//! The signature that Twilio puts on its webhooks. This is the signing side, written on its own: it shares nothing with
//! the service's checking side, so that a mistake in one shows in the other.
//!
//! Source: Twilio, "Webhooks security": base64 of HMAC-SHA-1 under the auth token over the URL (without its fragment)
//! and, for a form, each name followed by its value, sorted by name; a repeated name comes once with
//! each of its distinct values, sorted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// The value of `X-Twilio-Signature`.
pub(super) fn signature(auth_token: &str, url: &str, fields: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let mut sorted: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()) else {
        // HMAC takes keys of every length (RFC 2104, section 2).
        return String::new();
    };
    mac.update(url.split('#').next().unwrap_or(url).as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::signature;

    /// The expected values were computed with the validator of Twilio's Python library 9.13.0.
    #[test]
    fn webhooks_are_signed_as_twilio_signs_them() {
        let call = [
            ("To", "+18005551212"),
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
        ];
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(signature("12345", url, &call), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        assert_eq!(signature("12345", &format!("{url}#rc=5&rp=all"), &call), "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    }

    #[test]
    fn repeated_names_give_their_distinct_values_in_byte_order() {
        let fields = [("MediaUrl", "b"), ("MediaUrl", "a"), ("MediaUrl", "a"), ("A", "1"), ("a", "2"), ("_", "3")];
        assert_eq!(signature("12345", "https://alerts.example.org/twilio/x", &fields), "YPCdsjiWJx638BGkBtrGMqe2h8c=");
    }

    #[test]
    fn values_are_signed_untrimmed_and_in_unicode() {
        let fields = [
            ("MessageSid", "SM11111111111111111111111111111111"),
            ("From", "whatsapp:+4915112345678"),
            ("To", "whatsapp:+14155238886"),
            ("Body", "  ACK f\u{fc}r 7+1 😀\n "),
            ("ProfileName", "J\u{fc}rgen 😀"),
            ("WaId", "4915112345678"),
            ("NumMedia", "0"),
            ("ButtonText", "\u{dc}bernehmen"),
            ("ButtonPayload", "ack:9f1c"),
            ("OriginalRepliedMessageSid", "MM22222222222222222222222222222222"),
        ];
        let url = "https://alerts.example.org/twilio/inbound";
        assert_eq!(signature("12345", url, &fields), "b4l2ecIiV0DC3QketDVcMRUzWdU=");
    }
}
