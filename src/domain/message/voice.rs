//! What a call says: the text of a message, spoken; the keys there are; and what is said once one is pressed.

use super::body::Variable;
use super::code::CodeWords;
use super::template::{ChannelText, Draft};
use super::values::{Actions, Values, Words};
use super::walk::{Faults, Section};
use super::{ComposeError, Purpose};
use crate::domain::contact::Channel;
use crate::domain::reply::{Answer, Note, Said};

/// The most characters that a call says at a time, which takes about a minute.
pub(super) const SPEECH_MAX: usize = 700;

/// Who speaks, as Twilio's `<Say>` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// `en-IN`
    pub language: String,
    /// `Polly.Aditi`
    pub voice: String,
}

/// What is said in a call once a key was pressed, or none was. Fixed words: the person has just heard which case it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Phrases {
    taken: String,
    taken_before: String,
    closed: String,
    passed_on: String,
    nobody_else: String,
    drill_answered: String,
    no_key: String,
}

/// What every call of one language has in common.
#[derive(Debug, Clone)]
pub(super) struct Speaking {
    pub(super) speaker: Speaker,
    phrases: Phrases,
    /// What a call says that brings a code.
    pub(super) code: CodeWords,
}

/// One language's words for calls.
#[derive(Debug, Clone)]
pub(super) struct VoiceText {
    pub(super) speaking: Speaking,
    /// What the message says.
    pub(super) text: ChannelText,
    /// Which keys there are: follows the message where a human hears it.
    keys: String,
    /// Follows it where a machine records it.
    voicemail: String,
}

/// Everything that one call may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// Who speaks.
    pub speaker: Speaker,
    /// What a human hears: the message and the keys. Its hash stands in the audit.
    pub prompt: String,
    /// What a machine records: the message, and no key.
    pub voicemail: String,
    phrases: Phrases,
}

impl Speech {
    /// What is said where nobody has pressed a key.
    pub fn no_key(&self) -> &str {
        &self.phrases.no_key
    }

    /// What is said after a key. `None`: the key means nothing, and the person hears the message again.
    pub fn answer(&self, said: &Said) -> Option<&str> {
        match &said.answer {
            Answer::Taken(_) | Answer::Closed(_) if said.note == Some(Note::Drill) => {
                Some(&self.phrases.drill_answered)
            }
            Answer::Taken(_) | Answer::CheckedIn(_) => Some(&self.phrases.taken),
            Answer::TakenBefore(_) => Some(&self.phrases.taken_before),
            Answer::PassedOn(_) => Some(&self.phrases.passed_on),
            Answer::NobodyElse(_) => Some(&self.phrases.nobody_else),
            // Of a withheld case the phone is to hear no more than of a closed one.
            Answer::Closed(_) | Answer::Withheld(_) | Answer::Done(_) | Answer::NoCase | Answer::Nothing => {
                Some(&self.phrases.closed)
            }
            // No key comes to one of these but `Help`: they answer words.
            Answer::Help
            | Answer::WhichOf(_)
            | Answer::WhoseWords(_)
            | Answer::NotSetUp(_)
            | Answer::WhoIsIt
            | Answer::WhoStops
            | Answer::TakeFirst(_)
            | Answer::CloseOnDashboard(_)
            | Answer::WhichOutcome
            | Answer::KeptAndWaits(_)
            | Answer::CallTheDesk { .. }
            | Answer::Kept(_)
            | Answer::KeptAfterEnd(_) => None,
        }
    }
}

/// A code, character by character: `K, 7, Q, 4, T, X, 3, M`.
pub(super) fn spelled(reference: &str) -> String {
    let symbols: Vec<String> = reference.chars().map(String::from).collect();
    symbols.join(", ")
}

impl VoiceText {
    pub(super) fn speech(&self, values: &Values) -> Result<Speech, ComposeError> {
        let message = self.text.render(values)?;
        Ok(Speech {
            speaker: self.speaking.speaker.clone(),
            prompt: format!("{message} {}", self.keys),
            voicemail: format!("{message} {}", self.voicemail),
            phrases: self.speaking.phrases.clone(),
        })
    }
}

impl VoiceText {
    /// A message that asks for no key.
    pub(super) fn speech_without_keys(&self, text: &ChannelText, values: &Values) -> Result<Speech, ComposeError> {
        let message = text.render(values)?;
        let Speaking { speaker, phrases, code: _ } = self.speaking.clone();
        Ok(Speech { speaker, voicemail: message.clone(), prompt: message, phrases })
    }
}

/// What a file says of calls, before it is known what its text will be filled with.
pub(super) struct VoiceDraft {
    key: String,
    text: Option<Draft>,
    keys: Option<String>,
    voicemail: Option<String>,
}

impl VoiceDraft {
    /// Reads `counsellor_alert.voice`.
    pub(super) fn read(mut section: Section, faults: &mut Faults) -> Self {
        let keys = section.phrase("keys", faults);
        if let Some(said) = &keys
            && !["1", "2"].iter().all(|key| names_key(said, key))
        {
            faults.add(&section.key("keys"), "must say what the keys 1 and 2 do");
        }
        let voicemail = section.phrase("voicemail", faults);
        let key = section.key("body");
        let text = Draft::read(section, Channel::Voice, Purpose::CounsellorAlert, faults);
        Self { key, text, keys, voicemail }
    }

    /// Checks all that a call may say with the widest values there can be.
    pub(super) fn check(
        self,
        words: &Words,
        actions: &Actions,
        speaking: Option<Speaking>,
        faults: &mut Faults,
    ) -> Option<VoiceText> {
        let text = self.text?.check(words, actions, faults);
        let voice = VoiceText { speaking: speaking?, text: text?, keys: self.keys?, voicemail: self.voicemail? };
        let speeches = Values::widest(words, actions).into_iter().filter_map(|values| voice.speech(&values).ok());
        let longest = speeches.flat_map(|speech| [speech.prompt, speech.voicemail]).map(|text| text.chars().count());
        if let Some(longest) = longest.max().filter(|longest| *longest > SPEECH_MAX) {
            faults.add(&self.key, format!("can take {longest} characters with what follows; a call says {SPEECH_MAX}"));
        }
        Some(voice)
    }
}

/// Whether somebody who hears this hears of the key.
pub(super) fn names_key(said: &str, key: &str) -> bool {
    said.split(|symbol: char| !symbol.is_alphanumeric()).any(|word| word == key)
}

/// Reads `voice`: who speaks, what is said after a key, and what a call says that brings a code.
pub(super) fn read_speaking(mut section: Section, faults: &mut Faults) -> Option<Speaking> {
    let language = name_at_twilio(&mut section, "language", "en-IN", faults);
    let voice = name_at_twilio(&mut section, "voice", "Polly.Aditi", faults);
    let [taken, taken_before, closed, passed_on, nobody_else, drill_answered, no_key] =
        ["taken", "taken_before", "closed", "passed_on", "nobody_else", "drill_answered", "no_key"]
            .map(|name| section.phrase(name, faults));
    let code = section.section("code", faults).and_then(|section| CodeWords::read(section, faults));
    section.finish(faults);
    let phrases = Phrases {
        taken: taken?,
        taken_before: taken_before?,
        closed: closed?,
        passed_on: passed_on?,
        nobody_else: nobody_else?,
        drill_answered: drill_answered?,
        no_key: no_key?,
    };
    Some(Speaking { speaker: Speaker { language: language?, voice: voice? }, phrases, code: code? })
}

/// A language or a voice, as Twilio names it.
fn name_at_twilio(section: &mut Section, key: &str, example: &str, faults: &mut Faults) -> Option<String> {
    let name = section.text(key, faults)?;
    let fits = (2..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if fits {
        Some(name)
    } else {
        faults.none(&section.key(key), format!("must be a name of Twilio's, such as {example}"))
    }
}

/// What no call says: nobody can tap what is spoken.
pub(super) const UNSPOKEN: [Variable; 1] = [Variable::Link];
