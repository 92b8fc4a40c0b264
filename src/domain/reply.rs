//! Replies from phones: what they ask for, and what is said back. Only commands are recognised; other words are not
//! read any further.

use serde::{Deserialize, Serialize};

use super::alert::Outcome;
use super::ids::{AlertId, DeliveryNo, Reference};

/// What a reply asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `1`, `ack`, `yes`, with a reference or without: the person takes the case.
    Take(Option<Reference>),
    /// `2`, `pass`, likewise: the person hands the case on to the next.
    PassOn(Option<Reference>),
    /// `done` and a word for how it ended, with a reference or without: the person closes the case that they have taken.
    Done(Outcome, Option<Reference>),
    /// `done` alone, or with a word that is no outcome which a reply may give.
    DoneUnclear,
    /// STOP and its kin: Twilio answers it, and from now on blocks our messages to this phone (error 21610). Nothing is
    /// to be said back.
    ///
    /// Source: Twilio's documentation of its default and advanced opt-out keywords.
    OptOut,
    /// START and its kin: Twilio answers it, and lets our messages through to this phone again. Nothing is to be said back.
    OptIn,
    /// Another word that Twilio itself answers (HELP and its kin): nothing is to be said back.
    Keyword,
    /// Anything else.
    Other,
}

const TAKES: [&str; 3] = ["1", "ack", "yes"];
const PASSES: [&str; 2] = ["2", "pass"];
const DONE: &str = "done";
/// The outcomes that a reply may give, by the words for them. `unable_to_reach` and `deceased` are not among them: these
/// are entered by hand, by people who are signed in.
const OUTCOMES: [(&str, Outcome); 9] = [
    ("safe", Outcome::SafeByPhone),
    ("phone", Outcome::SafeByPhone),
    ("person", Outcome::SafeInPerson),
    ("plan", Outcome::SafetyPlan),
    ("handed", Outcome::HandedOver),
    ("family", Outcome::FamilyInformed),
    ("false", Outcome::FalseAlarm),
    ("duplicate", Outcome::Duplicate),
    ("drill", Outcome::Drill),
];
const OPT_OUTS: [&str; 8] = ["stop", "stopall", "unsubscribe", "cancel", "end", "quit", "revoke", "optout"];
const OPT_INS: [&str; 2] = ["start", "unstop"];
const KEYWORDS: [&str; 2] = ["help", "info"];

impl Command {
    /// Reads a reply's text.
    pub fn parse(text: &str) -> Self {
        // Long texts are no commands; nobody needs to look at them.
        let mut words = text.split_whitespace().take(4);
        let (first, second, third, fourth) = (words.next(), words.next(), words.next(), words.next());
        let clean = |word: &str| word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '-').to_ascii_lowercase();
        let Some(first) = first.map(clean) else { return Self::Other };
        let about_a_case: Option<fn(Option<Reference>) -> Self> = match first.as_str() {
            word if TAKES.contains(&word) => Some(Self::Take),
            word if PASSES.contains(&word) => Some(Self::PassOn),
            DONE => return Self::done(second.map(clean), third.map(clean), fourth.is_some()),
            _ => None,
        };
        match (second.map(clean), third, about_a_case) {
            (None, _, Some(command)) => command(None),
            (Some(reference), None, Some(command)) => reference.parse().map_or(Self::Other, |code| command(Some(code))),
            (None, ..) if OPT_OUTS.contains(&first.as_str()) => Self::OptOut,
            (None, ..) if OPT_INS.contains(&first.as_str()) => Self::OptIn,
            (None, ..) if KEYWORDS.contains(&first.as_str()) => Self::Keyword,
            (None | Some(_), ..) => Self::Other,
        }
    }

    /// `done safe K7Q4TX3M`: in this order, as people are told to write it.
    fn done(word: Option<String>, reference: Option<String>, more: bool) -> Self {
        let Some(word) = word else { return Self::DoneUnclear };
        let outcome = OUTCOMES.iter().find(|(known, _)| *known == word).map(|(_, outcome)| *outcome);
        let reference = match reference.map(|code| code.parse()) {
            None => Some(None),
            Some(Ok(code)) => Some(Some(code)),
            Some(Err(_)) => None,
        };
        match (outcome, reference, more) {
            (Some(outcome), Some(reference), false) => Self::Done(outcome, reference),
            // "done with the dishes" is no command, and "done nothing" may be one.
            (None, Some(None), false) => Self::DoneUnclear,
            _ => Self::Other,
        }
    }

    /// The reference it names.
    pub fn reference(self) -> Option<Reference> {
        match self {
            Self::Take(reference) | Self::PassOn(reference) | Self::Done(_, reference) => reference,
            Self::DoneUnclear | Self::OptOut | Self::OptIn | Self::Keyword | Self::Other => None,
        }
    }

    /// Whether it is about a case: takes it, hands it on, or closes it.
    pub fn is_about_a_case(self) -> bool {
        matches!(self, Self::Take(_) | Self::PassOn(_) | Self::Done(..) | Self::DoneUnclear)
    }

    /// Whether nothing may be said back, whatever it came to.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::OptOut | Self::OptIn | Self::Keyword)
    }
}

/// The reference that words begin with. Any word of eight letters may look like one.
pub fn leading_reference(text: &str) -> Option<Reference> {
    text.split_whitespace().next()?.trim_matches(|c: char| c.is_ascii_punctuation()).parse().ok()
}

/// What is said back to a reply. Only ever said after the commit. It is kept, so that a reply that is posted again hears
/// the same; nothing personal stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
    /// What must be said beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// Live cases that wait for the same phone still, newest first, where the answer alone would let its owner go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Reference>,
}

impl Said {
    /// An answer and what must be said beside it: `waiting` are the other live cases that wait for the phone.
    pub fn about(answer: Answer, note: Option<Note>, waiting: &[Reference]) -> Self {
        let others = if answer.lets_go(note) { waiting.to_vec() } else { Vec::new() };
        Self { answer, note, others }
    }
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        Self { answer, note: None, others: Vec::new() }
    }
}

/// What must be said beside an answer, so that a drill and a live case are not taken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// It is about a drill.
    Drill,
    /// It is about a live case, while a drill waits for the same phone.
    NotTheDrill,
}

/// What a reply came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "said", content = "reference", rename_all = "snake_case")]
pub enum Answer {
    /// Taken: the case is theirs.
    Taken(Reference),
    /// Handed on: the next person is being told.
    PassedOn(Reference),
    /// The ladder names nobody else.
    NobodyElse(Reference),
    /// Noted that they are on it.
    CheckedIn(Reference),
    /// Somebody else took it before.
    TakenBefore(Reference),
    /// Closed, as they said.
    Done(Reference),
    /// Only who has taken a case may close it by a reply.
    TakeFirst(Reference),
    /// Cases are not closed by a reply here, or not so.
    CloseOnDashboard(Reference),
    /// How it ended must be one of the known words.
    WhichOutcome,
    /// Their words are kept for the team, and the case waits still.
    KeptAndWaits(Reference),
    /// Their words are kept for the team.
    Kept(Reference),
    /// Their words are kept, and the case is closed: nobody may look there.
    KeptAfterEnd(Reference),
    /// It is closed.
    Closed(Reference),
    /// Nobody may be told of it any more, unless a person decides otherwise.
    Withheld(Reference),
    /// These are open, newest first, and it is not clear which is meant: they must say.
    WhichOf(Vec<Reference>),
    /// These are open, newest first, and it is not clear which their words are about: nothing was kept.
    WhoseWords(Vec<Reference>),
    /// The case goes on: the number is nobody's any more.
    NotSetUp(Reference),
    /// They hide their number, and nothing says which of our messages they answer: nothing was done.
    WhoIsIt,
    /// The same, and what they want is to be sent nothing any more.
    WhoStops,
    /// Not understood, but a case waits.
    Help,
    /// No case waits for this person.
    NoCase,
    /// They were told as an emergency contact: whom to call is said again. Not the words are kept, but what they are made of,
    /// so that the student's word is asked whenever they are said.
    CallTheDesk {
        /// The case.
        alert: AlertId,
        /// The message that told them.
        delivery: DeliveryNo,
        /// SHA-256 of the words that are recorded: others are not said.
        text_sha256: String,
    },
    /// Nobody that is known here, or the provider itself answers: nothing is said.
    Nothing,
}

impl Answer {
    /// Whether whoever hears it may take it that nothing more is wanted of them.
    fn lets_go(&self, note: Option<Note>) -> bool {
        match self {
            Self::PassedOn(_) | Self::TakenBefore(_) | Self::Done(_) | Self::Closed(_) => true,
            Self::Taken(_) => note == Some(Note::Drill),
            Self::NobodyElse(_)
            | Self::CheckedIn(_)
            | Self::TakeFirst(_)
            | Self::CloseOnDashboard(_)
            | Self::WhichOutcome
            | Self::KeptAndWaits(_)
            | Self::Kept(_)
            | Self::KeptAfterEnd(_)
            | Self::Withheld(_)
            | Self::WhichOf(_)
            | Self::WhoseWords(_)
            | Self::NotSetUp(_)
            | Self::WhoIsIt
            | Self::WhoStops
            | Self::Help
            | Self::NoCase
            | Self::CallTheDesk { .. }
            | Self::Nothing => false,
        }
    }
}

/// The words of an answer: harmless ones, with references at the most. `None`: nothing is said.
pub fn text(said: &Said) -> Option<String> {
    let words = match (&said.answer, said.note) {
        (Answer::Taken(reference), Some(Note::Drill)) => {
            format!("your answer to ref {reference} is noted. Nothing more is needed from you.")
        }
        (answer, _) => answer_text(answer)?,
    };
    let words = match still_waiting(&said.others, said.note) {
        // It must not be read as far as there and no further.
        Some(waiting) => {
            let alone = words.strip_suffix(" Nothing is needed from you.");
            let alone = alone.or_else(|| words.strip_suffix(" Nothing more is needed from you."));
            format!("{} {waiting}", alone.unwrap_or(&words))
        }
        None => words,
    };
    Some(match said.note {
        Some(Note::Drill) => format!("DRILL: {words}"),
        Some(Note::NotTheDrill) => format!("{words} This is a real case, not the drill."),
        None => words,
    })
}

/// That others wait still, and how to take one.
fn still_waiting(others: &[Reference], note: Option<Note>) -> Option<String> {
    let first = others.first()?;
    let is_one = others.len() == 1;
    let wait = if is_one { "waits" } else { "wait" };
    let real = match note {
        Some(Note::Drill) if is_one => ", a real case,",
        Some(Note::Drill) => ", real cases,",
        Some(Note::NotTheDrill) | None => "",
    };
    Some(format!("{}{real} {wait} for you still: reply 1 {first} to take it.", named(others)?))
}

fn answer_text(answer: &Answer) -> Option<String> {
    const HELP: &str = "Reply 1 to take the case or 2 to pass it on, and its reference if several wait.";
    let text = match answer {
        Answer::Taken(reference) => {
            format!("Ref {reference} is yours. Please close it on the dashboard when it is done.")
        }
        Answer::PassedOn(reference) => format!("Ref {reference} is passed on. The next person is being told."),
        Answer::NobodyElse(reference) => {
            format!("Ref {reference} cannot be passed on: you are the only one. Reply 1 to take it.")
        }
        Answer::TakenBefore(reference) => format!("Ref {reference} was taken already. Nothing is needed from you."),
        Answer::CheckedIn(reference) => {
            format!("Noted: ref {reference} is still yours. Please close it on the dashboard when it is done.")
        }
        Answer::Done(reference) => format!("Ref {reference} is closed. Thank you."),
        Answer::TakeFirst(reference) => format!("Ref {reference} is not yours yet. Reply 1 to take it."),
        Answer::CloseOnDashboard(reference) => format!("Please close ref {reference} on the dashboard."),
        Answer::WhichOutcome => {
            let mut words: Vec<&str> = OUTCOMES.iter().map(|(word, _)| *word).collect();
            words.dedup();
            format!("How did it end? Reply done and one of these words: {}.", words.join(", "))
        }
        Answer::KeptAndWaits(reference) => {
            format!("Your words are noted for the team, with ref {reference}, which waits still. {HELP}")
        }
        Answer::Kept(reference) => format!("Your words are noted for the team, with ref {reference}."),
        Answer::KeptAfterEnd(reference) => format!(
            "Ref {reference} is closed. Your words are noted with it, but may be read late: if it is urgent, call a colleague."
        ),
        Answer::NoCase => "No case waits for you. Nothing is needed from you.".to_owned(),
        Answer::Closed(reference) => format!("Ref {reference} is closed. Nothing is needed from you."),
        Answer::Withheld(reference) => {
            format!("Ref {reference} cannot be dealt with by a reply just now. Please look at the dashboard.")
        }
        Answer::WhichOf(references) => {
            format!("{} Reply with the reference, such as: 1 {}", open_cases(references)?, references.first()?)
        }
        Answer::WhoseWords(references) => format!(
            "{} Your words are not kept: send them again with the reference in front, such as: {} and your words",
            open_cases(references)?,
            references.first()?
        ),
        Answer::NotSetUp(reference) => {
            format!(
                "This number is not set up any more, and ref {reference} goes on without it. Please use the dashboard."
            )
        }
        Answer::WhoIsIt => {
            "Nothing was done: your number is hidden, so it is not clear which message you answer. Please \
                            reply to the message itself, or use the dashboard."
                .to_owned()
        }
        Answer::WhoStops => {
            "Nothing was done: your number is hidden, so it is not clear who you are. Please reply to one of our messages \
                             itself with the same word."
                .to_owned()
        }
        Answer::Help => HELP.to_owned(),
        // The words are the college's own: see the service.
        Answer::CallTheDesk { .. } | Answer::Nothing => return None,
    };
    Some(text)
}

/// How many open cases an answer names.
const NAMED: usize = 5;

fn open_cases(references: &[Reference]) -> Option<String> {
    let are = if references.len() == 1 { "is" } else { "are" };
    Some(format!("{} {are} open for you.", named(references)?))
}

/// `Ref A`, `Refs A, B and C`, `Refs A, B, C, D and E and others`.
fn named(references: &[Reference]) -> Option<String> {
    let (last, before) = references.get(..NAMED.min(references.len()))?.split_last()?;
    let more = if references.len() > NAMED { " and others" } else { "" };
    Some(match before {
        [] => format!("Ref {last}"),
        before => {
            let before: Vec<String> = before.iter().map(Reference::to_string).collect();
            format!("Refs {} and {last}{more}", before.join(", "))
        }
    })
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
    fn what_closes_a_case_is_recognised() {
        let reference = "K7Q4TX3M".parse().unwrap();
        assert_eq!(Command::parse("Done safe"), Command::Done(Outcome::SafeByPhone, None));
        assert_eq!(Command::parse("done person k7q4tx3m."), Command::Done(Outcome::SafeInPerson, Some(reference)));
        for text in ["done", "Done!", "done nothing", "done unable", "done deceased"] {
            assert_eq!(Command::parse(text), Command::DoneUnclear, "{text:?}");
        }
        for text in ["done with it", "done safe and sound", "done safe K7Q4TX3M now", "safe", "I am done"] {
            assert_eq!(Command::parse(text), Command::Other, "{text:?}");
        }
        for (word, outcome) in OUTCOMES {
            assert_eq!(Command::parse(&format!("done {word}")), Command::Done(outcome, None));
            assert!(text(&Answer::WhichOutcome.into()).unwrap().contains(word), "{word} is told to nobody");
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
        assert_eq!((Command::parse("Stop!"), Command::parse("START")), (Command::OptOut, Command::OptIn));
    }
}
