//! The text that a one-time code is sent in, and what a call says that brings one. Neither tells anything of what the service
//! is for.
//!
//! A call says the code only once a key was pressed. So no voicemail ever has it, which others may listen to; whoever picks up
//! can have pen and paper at hand; and the number is proven for what a call is for: a human answers there, and a key that they press
//! arrives here, as the one must by which they take a case.

use super::body::{Body, Variable};
use super::matter;
use super::voice::{SPEECH_MAX, Speaker, Speaking, names_key, spelled};
use super::walk::{Faults, Section};
use crate::domain::contact::Language;

/// The text, in the language if there is one in it, else in English.
pub fn code_text(language: &Language, sender: &str, code: &str, minutes: u64) -> String {
    match language.as_str() {
        "hi" => format!("{sender}: आपका कोड {code} है। यह {minutes} मिनट तक मान्य है। इसे किसी और को न बताएँ।"),
        _ => format!("{sender}: your code is {code}. It counts for {minutes} minutes. Tell it to nobody else."),
    }
}

/// Everything that a call says which brings a code.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeSpeech {
    /// Who speaks.
    pub speaker: Speaker,
    /// What whoever or whatever answers hears: who calls, and which key to press.
    pub prompt: String,
    /// What is said once it is pressed: the code, its digits apart.
    pub code: String,
    /// What is said where nobody presses it.
    pub no_key: String,
}

impl CodeSpeech {
    /// All that somebody hears who presses the key, once: what the audit proves.
    pub fn whole(&self) -> String {
        format!("{} {}", self.prompt, self.code)
    }
}

/// One language's words for such a call.
#[derive(Debug, Clone)]
pub(super) struct CodeWords {
    prompt: Body,
    code: String,
    rest: String,
    no_key: String,
}

/// As many as a sender's name has at most.
const WIDEST_SENDER: &str = "WWWWWWWWWWWWWWWWWWWW";
/// As many as a code has.
const WIDEST_CODE: &str = "000000";

impl CodeWords {
    /// Reads `voice.code`.
    pub(super) fn read(mut section: Section, faults: &mut Faults) -> Option<Self> {
        let prompt = read_prompt(&mut section, faults);
        let [code, rest, no_key] = ["code", "rest", "no_key"].map(|name| section.phrase(name, faults));
        let (prompt_key, code_key) = (section.key("prompt"), section.key("code"));
        section.finish(faults);
        let words = Self { prompt: prompt?, code: code?, rest: rest?, no_key: no_key? };
        for (key, said) in [(prompt_key, words.prompt_of(WIDEST_SENDER)), (code_key, words.said(WIDEST_CODE))] {
            let length = said.chars().count();
            if length > SPEECH_MAX {
                faults.add(&key, format!("can take {length} characters with what follows; a call says {SPEECH_MAX}"));
            }
        }
        Some(words)
    }

    fn prompt_of(&self, sender: &str) -> String {
        // The sender is all that it may say.
        self.prompt.render(|_| sender)
    }

    fn said(&self, code: &str) -> String {
        format!("{} {}. {}", self.code, spelled(code), self.rest)
    }
}

fn read_prompt(section: &mut Section, faults: &mut Faults) -> Option<Body> {
    let key = section.key("prompt");
    let text = section.text("prompt", faults)?;
    let body = match Body::parse(&text) {
        Ok(body) => body,
        Err(broken) => {
            broken.into_iter().for_each(|rule| faults.add(&key, rule));
            return None;
        }
    };
    if body.variables().any(|variable| variable != Variable::Sender) || !body.uses(Variable::Sender) {
        faults.add(&key, "must say the {sender}, and no other variable: whoever hears it may be anybody");
    }
    let fixed = body.fixed();
    if !names_key(&fixed, "1") {
        faults.add(&key, "must say that the key 1 is to be pressed");
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        faults.add(&key, "must be words, without line breaks or outer spaces");
    }
    if let Some(word) = matter::named_in(&fixed) {
        faults.add(&key, format!("must not name the matter (`{word}`): whoever hears it may be anybody"));
    }
    Some(body)
}

impl Speaking {
    /// What a call says that brings this code.
    pub(super) fn code_speech(&self, sender: &str, code: &str) -> CodeSpeech {
        let (speaker, words) = (self.speaker.clone(), &self.code);
        let (prompt, code, no_key) = (words.prompt_of(sender), words.said(code), words.no_key.clone());
        CodeSpeech { speaker, prompt, code, no_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{SenderName, TemplateSet};
    use crate::domain::method::CODE_LASTS;

    #[test]
    fn a_code_stands_in_a_text_that_says_what_it_is_and_fits_one_message() {
        for language in ["en", "hi", "ta"] {
            let text = code_text(&language.parse().unwrap(), "Care desk", "012345", 10);
            assert!(text.contains("012345") && text.contains("Care desk") && text.contains("10"), "{text}");
            assert!(!text.to_lowercase().contains("crisis") && !text.to_lowercase().contains("counsel"), "{text}");
            assert!(super::super::segments::count(&text).segments <= 2, "{text}");
        }
    }

    #[test]
    fn a_call_says_who_it_is_and_the_code_digit_by_digit_only_after_the_key() {
        let texts = TemplateSet::builtin();
        for (language, voice, says) in
            [("en", "en-IN", "Your code is"), ("hi", "hi-IN", "आपका कोड है"), ("ta", "en-IN", "Your")]
        {
            let speech = texts.code_speech(&language.parse().unwrap(), "Care desk", "012345");
            assert_eq!(speech.speaker.language, voice);
            assert!(speech.prompt.contains("Care desk") && names_key(&speech.prompt, "1"), "{}", speech.prompt);
            assert!(speech.code.starts_with(says) && speech.code.contains(" 0, 1, 2, 3, 4, 5. "), "{}", speech.code);
            let minutes = (CODE_LASTS.as_secs() / 60).to_string();
            assert!(speech.code.contains(&format!(" {minutes} ")), "how long it counts: {}", speech.code);
            for before in [&speech.prompt, &speech.no_key] {
                assert!(!before.contains('0') && !before.contains("2, 3"), "{before}");
            }
            for said in [&speech.prompt, &speech.code, &speech.no_key] {
                assert_eq!(matter::named_in(said), None, "{said}");
            }
            assert_eq!(speech.whole(), format!("{} {}", speech.prompt, speech.code));
        }
    }

    #[test]
    fn the_widest_sender_is_as_wide_as_one_may_be() {
        assert_eq!(WIDEST_SENDER.len(), SenderName::MAX);
        WIDEST_SENDER.parse::<SenderName>().unwrap();
    }

    fn faults(from: &str, to: &str) -> Vec<(String, String)> {
        let file = include_str!("../../../config/templates/en.toml");
        assert!(file.contains(from), "{from}");
        match TemplateSet::parse(&[("en.toml", &file.replace(from, to))]) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| (fault.key, fault.rule)).collect(),
        }
    }

    #[test]
    fn words_for_such_a_call_that_say_too_little_or_too_much_are_refused() {
        let long = "very ".repeat(200);
        for (from, to, key, rule) in [
            ("This is {sender}. This call brings", "This call brings", "prompt", "{sender}"),
            ("This is {sender}. This", "This is {sender}, {link}. This", "prompt", "no other variable"),
            ("This is {sender}. This", "This is {sender}, {code}. This", "prompt", "unknown variable"),
            ("Press 1 to hear it", "Press a key to hear it", "prompt", "key 1"),
            ("the code that was asked for", "the crisis code", "prompt", "crisis"),
            ("the code that was asked for", &format!("the {long}code"), "prompt", "700"),
            ("It counts for", "Your counsellor says it counts for", "rest", "counsel"),
            ("Your code is", "Your code\\nis", "code", "line breaks"),
            ("It counts for", &format!("It {long}counts for"), "code", "700"),
            ("rest = \"It", "other = \"It", "rest", "missing"),
        ] {
            let found = faults(from, to);
            let fits = |(at, what): &(String, String)| at == &format!("voice.code.{key}") && what.contains(rule);
            assert!(found.iter().any(fits), "{to}: {found:?}");
        }
        assert!(faults("[voice.code]", "[voice.other]").iter().any(|(key, _)| key == "voice.code"));
    }
}
