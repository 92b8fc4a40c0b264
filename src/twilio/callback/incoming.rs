//! A message that somebody sent to us: a counsellor's reply or the tap on a button.

use std::fmt;

use super::{CallbackError, Form, message_sid, retry_token};
use crate::domain::contact::{Channel, PhoneNumber};
use crate::domain::ids::ProviderId;

/// The most characters of a text that are kept: WhatsApp's own limit. The rest is cut off, so that no reply is lost.
const TEXT_MAX: usize = 4096;
/// The longest id of a hidden user, in bytes (Twilio's are up to about 140).
const HIDDEN_MAX: usize = 200;

/// A WhatsApp user who hides the number behind a user name, an SMS short code, or a sender with a name: whatever
/// Twilio calls a party by that is no phone number. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HiddenUserId(String);

impl HiddenUserId {
    /// The id itself, without the `whatsapp:` before it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HiddenUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HiddenUserId(…)")
    }
}

/// One end of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Party {
    /// A phone number.
    Number(PhoneNumber),
    /// Somebody without a visible number.
    Hidden(HiddenUserId),
}

impl Party {
    /// Reads `From` or `To`: the channel, and who.
    fn read(address: &str, field: &'static str) -> Result<(Channel, Self), CallbackError> {
        let (channel, who) = match address.strip_prefix("whatsapp:") {
            Some(who) => (Channel::Whatsapp, who),
            None => (Channel::Sms, address),
        };
        let party = match who.parse() {
            Ok(number) => Self::Number(number),
            Err(_) => Self::Hidden(hidden(who).ok_or(CallbackError::Malformed(field))?),
        };
        Ok((channel, party))
    }
}

fn hidden(text: &str) -> Option<HiddenUserId> {
    let fits = (1..=HIDDEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| HiddenUserId(text.to_owned()))
}

/// A message that somebody sent to us. `Debug` leaves out who, and every word of theirs.
///
/// Whom a reply belongs to: by [`Self::original_replied_message_sid`] or a secret in [`Self::button_payload`] first,
/// since both survive a hidden number; by [`Self::from`] only after that.
#[derive(Clone, PartialEq, Eq)]
pub struct IncomingMessage {
    /// Twilio's id of this message.
    pub message_sid: ProviderId,
    /// Whose sender it came to: to be compared with the configured account.
    pub account_sid: String,
    /// WhatsApp or SMS.
    pub channel: Channel,
    /// Who sent it.
    pub from: Party,
    /// Our sender.
    pub to: Party,
    /// The text, or the title of the button; may be empty. At most 4096 characters.
    pub body: String,
    /// The number behind a WhatsApp account, where Twilio says it.
    pub wa_id: Option<PhoneNumber>,
    /// The message of ours that this one answers.
    pub original_replied_message_sid: Option<ProviderId>,
    /// The id of the button that was tapped. At most 4096 characters.
    pub button_payload: Option<String>,
    /// The WhatsApp user's own id, beside the number.
    pub external_user_id: Option<HiddenUserId>,
    /// The same on every repetition of one callback.
    pub retry_token: Option<String>,
}

impl IncomingMessage {
    /// Reads an incoming message whose signature holds. `token` is the header
    /// [`super::RETRY_TOKEN_HEADER`]. What is optional and unreadable counts as absent.
    pub fn read(form: &Form, token: Option<&str>) -> Result<Self, CallbackError> {
        let (channel, from) = Party::read(form.need("From")?, "From")?;
        let (_, to) = Party::read(form.need("To")?, "To")?;
        let external = form.get("ExternalUserId").map(|id| id.strip_prefix("whatsapp:").unwrap_or(id));
        Ok(Self {
            message_sid: form.message_sid()?,
            account_sid: form.account_sid()?,
            channel,
            from,
            to,
            body: cut(form.get("Body").unwrap_or("")),
            wa_id: form.get("WaId").and_then(|digits| format!("+{digits}").parse().ok()),
            original_replied_message_sid: form.get("OriginalRepliedMessageSid").and_then(message_sid),
            button_payload: form.get("ButtonPayload").map(cut),
            external_user_id: external.and_then(hidden),
            retry_token: retry_token(token),
        })
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

impl fmt::Debug for IncomingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingMessage")
            .field("message_sid", &self.message_sid)
            .field("channel", &self.channel)
            .field("original_replied_message_sid", &self.original_replied_message_sid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SM: &str = "SM11111111111111111111111111111111";
    const MM: &str = "MM22222222222222222222222222222222";
    const AC: &str = "AC00000000000000000000000000000000";

    fn form(fields: &[(&str, &str)]) -> Form {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("MessageSid", SM), ("AccountSid", AC)])
            .extend_pairs(fields)
            .finish();
        Form::parse(body.as_bytes()).unwrap()
    }

    fn number(text: &str) -> Party {
        Party::Number(text.parse().unwrap())
    }

    #[test]
    fn a_tapped_button_names_the_message_it_answers() {
        let read = IncomingMessage::read(
            &form(&[
                ("From", "whatsapp:+4915112345678"),
                ("To", "whatsapp:+14155238886"),
                ("Body", "Übernehmen"),
                ("WaId", "4915112345678"),
                ("ButtonPayload", "ack:9f1c"),
                ("OriginalRepliedMessageSid", MM),
                ("ExternalUserId", "whatsapp:DE.ab12"),
                ("ProfileName", "Jürgen"),
            ]),
            Some("tok"),
        )
        .unwrap();
        assert_eq!(read.channel, Channel::Whatsapp);
        assert_eq!((read.from, read.to), (number("+4915112345678"), number("+14155238886")));
        assert_eq!(read.body, "Übernehmen");
        assert_eq!(read.wa_id, "+4915112345678".parse().ok());
        assert_eq!(read.original_replied_message_sid.unwrap().as_str(), MM);
        assert_eq!(read.button_payload.as_deref(), Some("ack:9f1c"));
        assert_eq!(read.external_user_id.unwrap().expose(), "DE.ab12");
        assert_eq!((read.message_sid.as_str(), read.account_sid.as_str()), (SM, AC));
        assert_eq!(read.retry_token.as_deref(), Some("tok"));
    }

    #[test]
    fn a_hidden_number_still_brings_its_reply() {
        let read = IncomingMessage::read(
            &form(&[("From", "whatsapp:IN.13491208655302741918"), ("To", "whatsapp:+14155238886"), ("Body", "1")]),
            None,
        )
        .unwrap();
        let Party::Hidden(id) = &read.from else { panic!("hidden") };
        assert_eq!(id.expose(), "IN.13491208655302741918");
        assert_eq!((read.channel, read.body.as_str(), read.wa_id), (Channel::Whatsapp, "1", None));
    }

    #[test]
    fn an_sms_reply_without_text_is_a_message_too() {
        let read =
            IncomingMessage::read(&form(&[("From", "+919876543210"), ("To", "56789"), ("Body", "")]), None).unwrap();
        assert_eq!((read.channel, read.from, read.body.as_str()), (Channel::Sms, number("+919876543210"), ""));
        assert!(matches!(read.to, Party::Hidden(_)));
    }

    #[test]
    fn a_text_is_cut_and_never_refused_for_its_length() {
        let long = "ü".repeat(TEXT_MAX + 1);
        let read =
            IncomingMessage::read(&form(&[("From", "+919876543210"), ("To", "+14155238886"), ("Body", &long)]), None);
        assert_eq!(read.unwrap().body.chars().count(), TEXT_MAX);
    }

    #[test]
    fn unreadable_parties_are_refused_and_unreadable_extras_ignored() {
        let to = ("To", "+14155238886");
        assert_eq!(IncomingMessage::read(&form(&[to]), None), Err(CallbackError::Missing("From")));
        let long = "9".repeat(HIDDEN_MAX + 1);
        for from in ["whatsapp:", "a\nb", long.as_str()] {
            let read = IncomingMessage::read(&form(&[("From", from), to]), None);
            assert_eq!(read, Err(CallbackError::Malformed("From")), "{from}");
        }
        let odd = [
            ("From", "+919876543210"),
            to,
            ("WaId", "x"),
            ("OriginalRepliedMessageSid", "x"),
            ("ExternalUserId", "\n"),
        ];
        let read = IncomingMessage::read(&form(&odd), None).unwrap();
        assert_eq!((read.wa_id, read.original_replied_message_sid, read.external_user_id), (None, None, None));
    }

    #[test]
    fn debug_shows_neither_who_nor_what() {
        let read = IncomingMessage::read(
            &form(&[
                ("From", "whatsapp:IN.SECRETUSER"),
                ("To", "whatsapp:+14155238886"),
                ("Body", "SECRETBODY"),
                ("WaId", "4915112345678"),
                ("ButtonPayload", "SECRETPAYLOAD"),
                ("ExternalUserId", "whatsapp:IN.SECRETUSER"),
            ]),
            None,
        )
        .unwrap();
        let shown = format!("{read:?} {:?} {:?} {:?}", read.from, read.to, read.external_user_id);
        assert!(!shown.contains("SECRET") && !shown.contains("4155238886") && !shown.contains("4915"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_form_makes_it_panic(fields in prop::collection::vec(("From|To|Body|WaId|[A-Z]{1,3}", "\\PC{0,30}"), 0..8)) {
            let pairs: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            if let Ok(read) = IncomingMessage::read(&form(&pairs), None) {
                prop_assert!(read.body.chars().count() <= TEXT_MAX);
            }
        }
    }
}
