//! TwiML, as far as a call needs it: read strictly, since Twilio reads it strictly (error 12100 ends a call).

/// One thing to do in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    Say(String),
    Gather { action: Option<String>, timeout_s: u32, prompt: Vec<Verb> },
    Pause,
    Redirect(String),
    Hangup,
}

/// How long a gather waits that does not say so, in seconds.
const GATHER_TIMEOUT_S: u32 = 5;
/// The most verbs that are read.
const VERBS_MAX: usize = 200;

/// The verbs of a document; `None` if it is none, or holds a verb that is not known here.
pub(super) fn read(xml: &str) -> Option<Vec<Verb>> {
    let mut reader = Reader { rest: xml.trim_start(), left: VERBS_MAX };
    if let Some(rest) = reader.rest.strip_prefix("<?xml") {
        reader.rest = rest.split_once("?>")?.1.trim_start();
    }
    let Tag { name: "Response", closed, .. } = reader.open()? else { return None };
    let verbs = if closed { Vec::new() } else { reader.verbs("Response")? };
    reader.rest.trim().is_empty().then_some(verbs)
}

struct Reader<'a> {
    rest: &'a str,
    left: usize,
}

struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, String)>,
    closed: bool,
}

impl Tag<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }
}

impl<'a> Reader<'a> {
    /// Everything up to the end of the element `within`.
    fn verbs(&mut self, within: &str) -> Option<Vec<Verb>> {
        let mut verbs = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix("</") {
                let (name, rest) = rest.split_once('>')?;
                self.rest = rest;
                return (name == within).then_some(verbs);
            }
            self.left = self.left.checked_sub(1)?;
            let verb = self.verb()?;
            verbs.push(verb);
        }
    }

    fn verb(&mut self) -> Option<Verb> {
        let tag = self.open()?;
        Some(match tag.name {
            "Say" => Verb::Say(self.text(&tag)?),
            "Redirect" => Verb::Redirect(self.text(&tag)?),
            "Pause" if tag.closed => Verb::Pause,
            "Hangup" if tag.closed => Verb::Hangup,
            "Gather" => Verb::Gather {
                action: tag.get("action").map(str::to_owned),
                timeout_s: tag.get("timeout").map_or(Some(GATHER_TIMEOUT_S), |text| text.parse().ok())?,
                prompt: if tag.closed { Vec::new() } else { self.verbs("Gather")? },
            },
            _ => return None,
        })
    }

    /// The text of an element without elements in it.
    fn text(&mut self, tag: &Tag<'_>) -> Option<String> {
        if tag.closed {
            return Some(String::new());
        }
        let (text, rest) = self.rest.split_once('<')?;
        self.rest = rest.strip_prefix('/')?.strip_prefix(tag.name)?.strip_prefix('>')?;
        unescaped(text)
    }

    fn open(&mut self) -> Option<Tag<'a>> {
        let (inside, rest) = self.rest.strip_prefix('<')?.split_once('>')?;
        self.rest = rest;
        let (inside, closed) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
        let (name, mut rest) = inside.split_once(' ').unwrap_or((inside, ""));
        let mut attributes = Vec::new();
        while !rest.trim().is_empty() {
            let (key, quoted) = rest.trim_start().split_once("=\"")?;
            let (value, further) = quoted.split_once('"')?;
            attributes.push((key, unescaped(value)?));
            rest = further;
        }
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then_some(Tag { name, attributes, closed })
    }
}

/// Text without entities; `None` where a character stands bare that must be escaped.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        plain.push_str(before);
        let (name, after) = entity.split_once(';')?;
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_is_read_verb_by_verb() {
        let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Gather input=\"dtmf\" timeout=\"8\" \
                   action=\"https://h/k?a=1&amp;b=2\"><Say language=\"en-IN\">Press 1 &lt;now&gt;</Say></Gather>\
                   <Pause length=\"1\"/> <Say>Bye</Say><Hangup/></Response>";
        let prompt = vec![Verb::Say("Press 1 <now>".to_owned())];
        let action = Some("https://h/k?a=1&b=2".to_owned());
        let gather = Verb::Gather { action, timeout_s: 8, prompt };
        assert_eq!(read(xml).unwrap(), [gather, Verb::Pause, Verb::Say("Bye".to_owned()), Verb::Hangup]);
        assert_eq!(read("<Response/>"), Some(Vec::new()));
    }

    #[test]
    fn what_twilio_would_refuse_is_refused() {
        for xml in [
            "",
            "<html></html>",
            "<Response>",
            "<Response><Say>a & b</Say></Response>",
            "<Response><Say>a<b/></Say></Response>",
            "<Response><Sing/></Response>",
            "<Response></Response>more",
            "<Response><Gather></Response></Gather>",
        ] {
            assert_eq!(read(xml), None, "{xml}");
        }
    }

    proptest! {
        #[test]
        fn no_document_is_too_strange_to_be_read(xml in "[<>/A-Za-z =\"&;#x0-9?]{0,120}") {
            let _ = read(&xml);
        }

        #[test]
        fn what_the_service_writes_is_read_as_it_was_meant(text in "\\PC{0,40}") {
            let verb = crate::twilio::twiml::Verb::Say { language: "en".into(), voice: "v".into(), text: text.clone() };
            prop_assert_eq!(read(&crate::twilio::twiml::document(&[verb])), Some(vec![Verb::Say(text)]));
        }
    }
}
