//! What Twilio signs, with words in it that nobody expected; and credentials that nobody has.

use crisis_relay::secret::Secret;
use crisis_relay::simulator::SimulatorConfig;
use crisis_relay::twilio::signature::sign;
use reqwest::Method;

use super::canaries::{self as say, Surface};
use super::life::Life;
use crate::relay::{ADMIN, Relay};

const CALL: &str = "CA0123456789abcdef0123456789abcdef";
const SID: &str = "SM0123456789abcdef0123456789abcdef";

impl Life<'_> {
    /// Webhooks that are Twilio's, and say what they should not, or not as they should.
    pub(crate) async fn signed(&mut self, relay: &Relay) {
        let account = SimulatorConfig::default().account_sid;
        let (words, hidden) = (say::callback(), format!("whatsapp:{}", say::hidden()));
        let number = format!("whatsapp:{}", say::in_full(say::counsellor()));
        let stranger = format!("whatsapp:{}", say::in_full(say::stranger()));
        let long = format!("whatsapp:{}", say::hidden().repeat(20));
        let query = format!("?alert={0}&delivery={0}&{0}={0}", say::query());
        let incoming = |sid, account, from| {
            vec![
                ("MessageSid", sid),
                ("AccountSid", account),
                ("From", from),
                ("To", "whatsapp:+14155238886"),
                ("Body", words),
                ("ProfileName", say::profile()),
                ("WaId", say::stranger()),
                ("ButtonPayload", words),
                ("OriginalRepliedMessageSid", words),
            ]
        };
        let status = |sid, word, code| {
            vec![
                ("MessageSid", sid),
                ("AccountSid", account.as_str()),
                ("MessageStatus", word),
                ("ErrorCode", code),
                ("ErrorMessage", words),
                ("ChannelStatusMessage", words),
                ("To", number.as_str()),
                ("From", stranger.as_str()),
            ]
        };
        let called = say::in_full(say::further_calls());
        let call = |sid, word, to, digits| {
            vec![
                ("CallSid", sid),
                ("AccountSid", account.as_str()),
                ("CallStatus", word),
                ("AnsweredBy", word),
                ("To", to),
                ("From", stranger.as_str()),
                ("Digits", digits),
                ("CallerName", words),
            ]
        };
        for (path, form, expected) in [
            ("voice/answer", call(CALL, "in-progress", &called, ""), 200),
            ("voice/answer", call(CALL, words, words, words), 200),
            ("voice/key", call(CALL, "in-progress", &called, "1"), 200),
            ("voice/key", call(CALL, "in-progress", &called, words), 200),
            ("voice/code", call(CALL, "in-progress", &called, "1"), 200),
            ("voice/code", call(CALL, words, words, words), 200),
            ("voice/status", call(CALL, "completed", &called, ""), 204),
            ("voice/status", call(words, words, words, words), 400),
            ("incoming", incoming(SID, &account, &hidden), 200),
            ("incoming", incoming(SID, &account, &long), 400),
            ("incoming", incoming(words, &account, &stranger), 400),
            ("incoming", incoming(SID, words, &stranger), 400),
            ("incoming", vec![(words, words)], 400),
            ("status", status(SID, "failed", "63016"), 204),
            ("status", status(SID, words, words), 204),
            ("status", status(words, "failed", words), 400),
        ] {
            let path = format!("/webhooks/twilio/{path}{query}");
            let secret = Secret::new(say::in_full(say::auth_token()));
            let signature = sign(&secret, relay.base.join(&path).unwrap().as_str(), &form);
            let request = relay.request(Method::POST, &path, "").header("X-Twilio-Signature", signature);
            let answer = relay.send(request.form(&form)).await;
            assert_eq!(answer.status, expected, "{path} {form:?}: {answer:?}");
            self.hear(Surface::Answers, &path, &answer);
        }
    }

    /// Everything that is no credential, or shown in the wrong place.
    pub(crate) async fn credentials(&mut self, relay: &Relay) {
        let basic = data_encoding::BASE64.encode(format!("{0}:{0}", say::wrong_key()).as_bytes());
        let segment = |json: String| data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
        let head = segment(format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{}"}}"#, say::claim()));
        let claims = segment(format!(r#"{{"sub":"{}","role":"{}"}}"#, say::in_full(say::person()), say::claim()));
        let key = say::in_full(say::service_key());
        for (name, value) in [
            ("authorization", format!("Basic {basic}")),
            ("authorization", format!("{} {key}", say::wrong_key())),
            ("authorization", key.clone()),
            ("authorization", format!("Bearer {head}.{claims}.{}", segment(say::wrong_key().to_owned()))),
            ("authorization", format!("Bearer {head}.{}.", say::wrong_key())),
            ("x-api-key", say::wrong_key().to_owned()),
            ("x-api-key", format!("{key}{}", say::wrong_key())),
        ] {
            let request = relay.bare(Method::GET, "/api/v1/crisis/alerts").header(name, &value);
            let answer = relay.send(request).await;
            assert_eq!(answer.status, 401, "{name}: {value}: {answer:?}");
            self.hear(Surface::Answers, name, &answer);
        }
        let two = relay.request(Method::GET, "/api/v1/crisis/alerts", ADMIN).header("x-api-key", say::wrong_key());
        self.hear(Surface::Answers, "two credentials", &relay.send(two).await.expect(401));
    }
}
