//! TwiML: what Twilio is to say or send, as XML. Text and addresses are escaped by construction: nothing else writes any.
//!
//! Source: Twilio's pages on TwiML (`<Say>`, `<Gather>`, `<Pause>`, `<Hangup>`, `<Message>`).

use std::fmt::Write as _;

/// The content type of a TwiML answer.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Sends a message back.
    Message(String),
    /// Says something.
    Say {
        /// The language, as Twilio names it.
        language: String,
        /// The voice, as Twilio names it.
        voice: String,
        /// What.
        text: String,
    },
    /// Says something, and waits for one key; goes on if none is pressed.
    Gather {
        /// Where the key is posted to.
        action: String,
        /// How long it waits after all was said, in seconds.
        timeout_s: u32,
        /// What is said meanwhile.
        prompt: Vec<Verb>,
    },
    /// Says nothing.
    Pause {
        /// For how many seconds.
        seconds: u32,
    },
    /// Ends the call.
    Hangup,
}

/// A whole document.
pub fn document(verbs: &[Verb]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>");
    verbs.iter().for_each(|verb| verb.write(&mut xml));
    xml.push_str("</Response>");
    xml
}

impl Verb {
    // Writing to a String cannot fail.
    fn write(&self, xml: &mut String) {
        match self {
            Self::Message(text) => {
                let _ = write!(xml, "<Message>{}</Message>", escaped(text));
            }
            Self::Say { language, voice, text } => {
                let (language, voice, text) = (escaped(language), escaped(voice), escaped(text));
                let _ = write!(xml, "<Say language=\"{language}\" voice=\"{voice}\">{text}</Say>");
            }
            Self::Gather { action, timeout_s, prompt } => {
                let action = escaped(action);
                let _ = write!(
                    xml,
                    "<Gather input=\"dtmf\" numDigits=\"1\" timeout=\"{timeout_s}\" action=\"{action}\" method=\"POST\">"
                );
                prompt.iter().for_each(|verb| verb.write(xml));
                xml.push_str("</Gather>");
            }
            Self::Pause { seconds } => {
                let _ = write!(xml, "<Pause length=\"{seconds}\"/>");
            }
            Self::Hangup => xml.push_str("<Hangup/>"),
        }
    }
}

/// Text as it may stand in an element or an attribute. What XML cannot carry at all is left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for symbol in text.chars() {
        match symbol {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\t' | '\n' | '\r' => safe.push(' '),
            '\u{fffe}' | '\u{ffff}' => {}
            symbol if symbol.is_control() => {}
            symbol => safe.push(symbol),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_says_its_verbs_in_their_order() {
        let say = |text: &str| Verb::Say { language: "en-IN".into(), voice: "Polly.Aditi".into(), text: text.into() };
        let gather =
            Verb::Gather { action: "https://h/k?a=1&b=2#rc=5".into(), timeout_s: 8, prompt: vec![say("Press 1")] };
        let wanted = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>\
            <Gather input=\"dtmf\" numDigits=\"1\" timeout=\"8\" action=\"https://h/k?a=1&amp;b=2#rc=5\" method=\"POST\">\
            <Say language=\"en-IN\" voice=\"Polly.Aditi\">Press 1</Say></Gather>\
            <Pause length=\"1\"/><Say language=\"en-IN\" voice=\"Polly.Aditi\">Bye</Say><Hangup/></Response>";
        assert_eq!(document(&[gather, Verb::Pause { seconds: 1 }, say("Bye"), Verb::Hangup]), wanted);
    }

    proptest! {
        #[test]
        fn no_text_gets_out_of_its_place(text in "\\PC{0,40}|[<>&\"'/a-zA-Z \u{0}-\u{1f}]{0,40}") {
            let said = document(&[Verb::Message(text)]);
            let inside = said.split_once("<Message>").unwrap().1.strip_suffix("</Message></Response>").unwrap();
            prop_assert!(!inside.contains(['<', '>', '"', '\'']), "{inside}");
            prop_assert!(!inside.chars().any(char::is_control));
            for (at, _) in inside.match_indices('&') {
                let entity = &inside[at..];
                prop_assert!(["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"].iter().any(|known| entity.starts_with(known)));
            }
        }
    }
}
