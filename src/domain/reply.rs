//! Replies from phones: what they ask for, and what is said back. Only commands are recognised; other words are not
//! read any further.

use serde::{Deserialize, Serialize};

use super::ids::Reference;

/// What a reply asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `1`, `ack`, `yes`, with a reference or without: the person takes the case.
    Take(Option<Reference>),
    /// `2`, `pass`, likewise: the person hands the case on to the next.
    PassOn(Option<Reference>),
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
const PASSES: [&str; 2] = ["2", "pass"];
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
        let about_a_case: Option<fn(Option<Reference>) -> Self> = match first.as_str() {
            word if TAKES.contains(&word) => Some(Self::Take),
            word if PASSES.contains(&word) => Some(Self::PassOn),
            _ => None,
        };
        match (second.map(clean), third, about_a_case) {
            (None, _, Some(command)) => command(None),
            (Some(reference), None, Some(command)) => reference.parse().map_or(Self::Other, |code| command(Some(code))),
            (None, ..) if OPT_OUTS.contains(&first.as_str()) => Self::OptOut,
            (None, ..) if KEYWORDS.contains(&first.as_str()) => Self::Keyword,
            (None | Some(_), ..) => Self::Other,
        }
    }

    /// The reference it names.
    pub fn reference(self) -> Option<Reference> {
        match self {
            Self::Take(reference) | Self::PassOn(reference) => reference,
            Self::OptOut | Self::Keyword | Self::Other => None,
        }
    }

    /// Whether it is about a case: takes it, or hands it on.
    pub fn is_about_a_case(self) -> bool {
        matches!(self, Self::Take(_) | Self::PassOn(_))
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
    /// Handed on: the next person is being told.
    PassedOn(Reference),
    /// The ladder names nobody else.
    NobodyElse(Reference),
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
        Answer::PassedOn(reference) => Some(format!("Ref {reference} is passed on. The next person is being told.")),
        Answer::NobodyElse(reference) => {
            Some(format!("Ref {reference} cannot be passed on: you are the only one. Reply 1 to take it."))
        }
        Answer::TakenBefore(reference) => {
            Some(format!("Ref {reference} was taken already. Nothing is needed from you."))
        }
        Answer::Closed(reference) => Some(format!("Ref {reference} is closed. Nothing is needed from you.")),
        Answer::WhichOne => Some("Several cases wait. Reply 1 and the reference, such as: 1 K7Q4TX3M".to_owned()),
        Answer::Help => {
            Some("Reply 1 to take the case or 2 to pass it on, and its reference if several wait.".to_owned())
        }
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
    fn what_hands_a_case_on_is_recognised() {
        for text in ["2", "2.", "Pass", "pass!"] {
            assert_eq!(Command::parse(text), Command::PassOn(None), "{text:?}");
        }
        let reference = "K7Q4TX3M".parse().unwrap();
        assert_eq!(Command::parse("2 k7q4tx3m"), Command::PassOn(Some(reference)));
        for text in ["22", "2 people called", "pass me the file", "2 2"] {
            assert_eq!(Command::parse(text), Command::Other, "{text:?}");
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
