//! Replies from phones: what they ask for, and what is said back. Only commands are recognised; other words are not
//! read any further.

use serde::{Deserialize, Serialize};

use super::ids::Reference;

/// What a reply asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `1`, `ack`, `yes`, with a reference or without: the person takes the case.
    Take(Option<Reference>),
    /// STOP and its kin: Twilio answers it, and from now on blocks our messages to this phone (error 21610). Nothing is
    /// to be said back.
    ///
    /// Source: Twilio's documentation of its default and advanced opt-out keywords.
    OptOut,
    /// Another word that Twilio itself answers (START, HELP and their kin): nothing is to be said back.
    Keyword,
    /// Anything else.
    Other,
}

const TAKES: [&str; 3] = ["1", "ack", "yes"];
const OPT_OUTS: [&str; 8] = ["stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"];
const KEYWORDS: [&str; 4] = ["start", "unstop", "help", "info"];

impl Command {
    /// Reads a reply's text.
    pub fn parse(text: &str) -> Self {
        // Long texts are no commands; nobody needs to look at them.
        let mut words = text.split_whitespace().take(4);
        let (first, second, third) = (words.next(), words.next(), words.next());
        let clean = |word: &str| word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '-').to_ascii_lowercase();
        let Some(first) = first.map(clean) else { return Self::Other };
        let takes = TAKES.contains(&first.as_str());
        match (second.map(clean), third) {
            (None, _) if takes => Self::Take(None),
            (Some(reference), None) if takes => reference.parse().map_or(Self::Other, |code| Self::Take(Some(code))),
            (None, _) if OPT_OUTS.contains(&first.as_str()) => Self::OptOut,
            (None, _) if KEYWORDS.contains(&first.as_str()) => Self::Keyword,
            (None | Some(_), _) => Self::Other,
        }
    }

    /// The reference it names.
    pub fn reference(self) -> Option<Reference> {
        match self {
            Self::Take(reference) => reference,
            Self::OptOut | Self::Keyword | Self::Other => None,
        }
    }

    /// Whether it takes a case.
    pub fn takes_it(self) -> bool {
        matches!(self, Self::Take(_))
    }

    /// Whether nothing may be said back, whatever it came to.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::OptOut | Self::Keyword)
    }
}

/// What is said back to a reply. Only ever said after the commit. It is kept, so that a reply that is posted again hears
/// the same; nothing personal stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", content = "reference", rename_all = "snake_case")]
pub enum Answer {
    /// Taken: the case is theirs.
    Taken(Reference),
    /// Somebody else took it before.
    TakenBefore(Reference),
    /// It is closed.
    Closed(Reference),
    /// Cases wait, and it is not clear which is meant: they must say.
    WhichOne,
    /// Not understood, but a case waits.
    Help,
    /// No case waits for this phone, or the provider itself answers: nothing is said.
    Nothing,
}

/// The words of an answer: harmless ones, with a reference at the most. `None`: nothing is said.
pub fn text(answer: Answer) -> Option<String> {
    match answer {
        Answer::Taken(reference) => {
            Some(format!("Ref {reference} is yours. Please close it on the dashboard when it is done."))
        }
        Answer::TakenBefore(reference) => {
            Some(format!("Ref {reference} was taken already. Nothing is needed from you."))
        }
        Answer::Closed(reference) => Some(format!("Ref {reference} is closed. Nothing is needed from you.")),
        Answer::WhichOne => Some("Several cases wait. Reply 1 and the reference, such as: 1 K7Q4TX3M".to_owned()),
        Answer::Help => Some("Reply 1 to take the case, or 1 and its reference if several wait.".to_owned()),
        Answer::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_case_is_recognised_as_people_type_it() {
        for text in ["1", " 1 ", "1.", "ACK", "Yes!", "yes"] {
            assert_eq!(Command::parse(text), Command::Take(None), "{text:?}");
        }
        let reference = "K7Q4TX3M".parse().unwrap();
        for text in ["1 K7Q4TX3M", "ack k7q4tx3m", "1 k7q4-tx3m.", "yes K7Q4TX3M"] {
            assert_eq!(Command::parse(text), Command::Take(Some(reference)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_command_takes_nothing() {
        for text in ["", "10", "1 please call", "yes I am busy now", "no", "11", "1 1", "take it", "۱"] {
            assert_eq!(Command::parse(text), Command::Other, "{text:?}");
        }
    }

    #[test]
    fn words_that_the_provider_answers_are_left_to_it() {
        for text in ["STOP", "stop.", "Help", "UNSUBSCRIBE"] {
            assert!(Command::parse(text).is_silent(), "{text:?}");
        }
        assert_eq!((Command::parse("Stop!"), Command::parse("START")), (Command::OptOut, Command::Keyword));
    }
}
