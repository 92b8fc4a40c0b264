//! What a message says: texts from template files, filled from a closed list of harmless variables.
//!
//! Phones are read by others and lock screens show previews, so a text never says who, and never names the matter. That
//! holds by construction: [`MessageFacts`] has no field for a name, a user id, a number or anybody's own words, and
//! [`Variable`] has no name for one.
//!
//! Every rule that a text must obey is checked when the files are read, for the widest values it can ever get, and all
//! faults are told at once. After that, composing cannot fail for a reason that lies in a template: a night in which an
//! alert must go out is no time to find a brace missing.
//!
//! - `approved`: the language that is used, and the WhatsApp template that was approved for it.
//! - `body`: a text with places for variables.
//! - `buttons`: what can be tapped under one on WhatsApp.
//! - `facts`: what variables are filled from, and how it is written.
//! - `template`: one language's file, read (`walk`), checked against every rule, and filled (`values`).
//! - `segments`: what a text costs as an SMS.
//! - `voice`: what a call says.
//! - `matter`: words that must not be on a lock screen.
//!
//! Template files, rules and costs for administrators: `docs/templates.md`.

mod approved;
mod body;
mod buttons;
mod code;
mod facts;
mod matter;
pub mod segments;
mod template;
mod values;
mod voice;
mod walk;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

pub use approved::{Texts, Written};
pub use body::Variable;
pub use code::{CodeSpeech, code_text};
pub use facts::{BandThresholds, Desk, LinkBase, MessageFacts, SenderName, UrgencyBand};
pub use segments::SegmentCount;
pub use voice::{Speaker, Speech};
pub use walk::TemplateFault;

use crate::domain::alert::TakenBy;
use crate::domain::contact::{Channel, Language};
use crate::domain::ids::Reference;
use template::{ChannelText, LanguageFile};
use values::Values;

/// The language that stands in for those without a file. It must be there.
const FALLBACK: &str = "en";

/// What stands for a message's ticket before those who approve a template. It is none: where Twilio fills it in, for want of
/// another, a button asks for what stands before it.
const TICKET_SAMPLE: &str = "SAMPLE";

/// What a drill's marker contains in every language, and a live alert never.
const DRILL: &str = "DRILL";

/// What a text is for. Each purpose has its own section in a template file; its name is in every audit entry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Tells a counsellor, a lead or a duty manager of an alert, and asks them to take it.
    #[default]
    CounsellorAlert,
    /// Tells those who were told before that somebody else has the case.
    TakenNotice,
    /// Asks whoever has taken the case for an outcome, or a sign that they are on it.
    OutcomeReminder,
    /// Reminds of what was to follow after a case was closed.
    FollowUpReminder,
    /// Asks an emergency contact of the student to call the desk. A disclosure, with a ground of its own.
    EmergencyContact,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 5] = [
        Self::CounsellorAlert,
        Self::TakenNotice,
        Self::OutcomeReminder,
        Self::FollowUpReminder,
        Self::EmergencyContact,
    ];

    /// The notices: what asks nobody to take a case. The ladder does not know of them.
    pub const NOTICES: [Self; 3] = [Self::TakenNotice, Self::OutcomeReminder, Self::FollowUpReminder];

    /// The section's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CounsellorAlert => "counsellor_alert",
            Self::TakenNotice => "taken_notice",
            Self::OutcomeReminder => "outcome_reminder",
            Self::FollowUpReminder => "follow_up_reminder",
            Self::EmergencyContact => "emergency_contact",
        }
    }

    /// The purpose of this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == word)
    }

    /// Whether somebody waits for what comes of it: of a live case it goes ahead of everything else, and no pace of a phone
    /// holds it back.
    pub const fn is_urgent(&self) -> bool {
        matches!(self, Self::CounsellorAlert | Self::EmergencyContact)
    }

    /// Whether it asks somebody to take the case, and belongs to the ladder.
    pub const fn is_alert(&self) -> bool {
        matches!(self, Self::CounsellorAlert)
    }

    /// Whether it is for the team, and not for somebody whom the student has named.
    pub const fn is_for_team(&self) -> bool {
        self.is_alert() || self.is_notice()
    }

    /// Whether a reply to it does something: the case that it tells of waits for an answer, or whoever has it is asked for a
    /// sign. What only tells has nothing to tap.
    pub const fn is_answered(&self) -> bool {
        match self {
            Self::CounsellorAlert | Self::OutcomeReminder => true,
            Self::TakenNotice | Self::FollowUpReminder | Self::EmergencyContact => false,
        }
    }

    /// Whether it is a notice to the team.
    pub const fn is_notice(&self) -> bool {
        matches!(self, Self::TakenNotice | Self::OutcomeReminder | Self::FollowUpReminder)
    }
}

/// A message, ready to be sent, with what the audit records of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The template's name: the purpose, such as `counsellor_alert`.
    pub template: String,
    /// The version of the language's template file.
    pub version: u32,
    /// The language of the text: the one asked for, or English in its stead.
    pub language: Language,
    /// What the phone shows, or says to a human: of a call with the keys there are.
    pub text: String,
    /// The approved WhatsApp template to send, if one was given and the channel is WhatsApp; otherwise the text itself
    /// is sent.
    pub content_sid: Option<String>,
    /// The values of `{{1}}`, `{{2}}` … for `ContentVariables`; empty for SMS and calls.
    pub variables: Vec<String>,
    /// Whether the approved template has buttons: then one more value follows those, which stands in the buttons' ids and
    /// names this very message. Whoever sends it puts it there.
    pub has_buttons: bool,
    /// SHA-256 of `text` in UTF-8, 64 hexadecimal digits: proves in the audit what was disclosed.
    pub text_sha256: String,
    /// What the text takes as an SMS. (WhatsApp bills by message.)
    pub segments: SegmentCount,
}

/// Why there is no message. Carries no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The score is not a number in `0..=1`.
    #[error("the score is not a number from 0 to 1")]
    Score,
    /// A notice is said over no call.
    #[error("there is no text for the channel {}", channel.as_str())]
    NoTemplate {
        /// The channel.
        channel: Channel,
    },
    /// Not `HX` and 32 hexadecimal digits.
    #[error("the content sid is not HX and 32 hexadecimal digits")]
    ContentSid,
    /// A value is empty, has a line break, a tab or another control character, or more than four spaces in a row
    /// (Twilio's error 63013).
    #[error("the value of {{{variable}}} is empty or has characters that a message cannot carry")]
    Value {
        /// Whose value.
        variable: Variable,
    },
    /// Longer than a message may be (WhatsApp: 1024 characters, Twilio's error 63021; SMS: 1600).
    #[error("the text is longer than the channel carries")]
    TooLong,
    /// A drill that does not say so, or a live alert that says it is one.
    #[error("a drill must be marked as one, and a live alert must not")]
    DrillMark,
}

/// Every language's texts, read and checked.
#[derive(Debug, Clone)]
pub struct TemplateSet {
    languages: BTreeMap<Language, LanguageFile>,
}

/// SHA-256 of an exact text, in hexadecimal: how a text is proved, and recognised, without being kept.
pub fn text_sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

impl TemplateSet {
    /// Reads template files: each a name for the faults, and its TOML text.
    ///
    /// # Errors
    /// All faults of all files at once, and whether a language is there twice or English not at all.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Vec<TemplateFault>> {
        let (mut languages, mut faults) = (BTreeMap::<Language, LanguageFile>::new(), Vec::new());
        for (name, text) in files {
            match LanguageFile::parse(name, text) {
                Err(found) => faults.extend(found),
                Ok(file) if languages.contains_key(&file.language) => {
                    faults.push(TemplateFault::new(name, "language", "is in another file already"));
                }
                Ok(file) => {
                    languages.insert(file.language.clone(), file);
                }
            }
        }
        if faults.is_empty() && !languages.keys().any(|language| language.as_str() == FALLBACK) {
            faults.push(TemplateFault::new(
                "(all files)",
                "language",
                "`en` must be among them: it stands in for others",
            ));
        }
        if faults.is_empty() { Ok(Self { languages }) } else { Err(faults) }
    }

    /// The texts that come with the program: English and Hindi.
    pub fn builtin() -> Self {
        #[expect(clippy::expect_used, reason = "the files are compiled in, and tests read them")]
        Self::parse(&[
            ("config/templates/en.toml", include_str!("../../config/templates/en.toml")),
            ("config/templates/hi.toml", include_str!("../../config/templates/hi.toml")),
        ])
        .expect("the built-in templates obey the rules")
    }

    /// The languages there are texts in, and the versions of their files.
    pub fn languages(&self) -> impl Iterator<Item = (&Language, u32)> {
        self.languages.iter().map(|(language, file)| (language, file.version))
    }

    /// The language that a message to somebody who is told in `wanted` is written in. An approved WhatsApp template must
    /// be chosen for this language, not for the one wanted.
    pub fn language_for(&self, wanted: &Language) -> &Language {
        &self.file_for(wanted).language
    }

    /// Writes the counsellor's message.
    ///
    /// `content_sid` names the approved WhatsApp template that was made from this text; what the phone shows is then put
    /// together by the provider. It has no meaning for SMS and calls, and is left out there.
    ///
    /// # Errors
    /// [`ComposeError::Score`] and [`ComposeError::ContentSid`] for what the caller gave. The others cannot come from a set that was read without
    /// faults; they stand guard over what leaves the house.
    pub fn compose(
        &self,
        channel: Channel,
        language: &Language,
        facts: &MessageFacts,
        content_sid: Option<&str>,
    ) -> Result<Composed, ComposeError> {
        let file = self.file_for(language);
        let values = Values::of(facts, &file.words, &file.actions)?;
        Self::fill(Purpose::CounsellorAlert, file, channel, &values, content_sid)
    }

    /// Writes a notice, which knows besides who has the case.
    ///
    /// # Errors
    /// As [`TemplateSet::compose`]; nothing is said by a call.
    pub fn compose_notice(
        &self,
        purpose: Purpose,
        channel: Channel,
        language: &Language,
        facts: &MessageFacts,
        taken_by: TakenBy,
        content_sid: Option<&str>,
    ) -> Result<Composed, ComposeError> {
        let file = self.file_for(language);
        let taker = file.words.taker(taken_by).to_owned();
        let values = Values { taker, ..Values::of(facts, &file.words, &file.actions)? };
        Self::fill(purpose, file, channel, &values, content_sid)
    }

    /// Writes what an emergency contact is told: whom to call, with which code, and nothing else.
    ///
    /// # Errors
    /// As [`TemplateSet::compose`].
    pub fn compose_emergency(
        &self,
        channel: Channel,
        language: &Language,
        reference: Reference,
        sender: &SenderName,
        desk: &Desk,
        content_sid: Option<&str>,
    ) -> Result<Composed, ComposeError> {
        let file = self.file_for(language);
        let values = Values::of_desk(reference, sender, desk, &file.words, &file.actions);
        Self::fill(Purpose::EmergencyContact, file, channel, &values, content_sid)
    }

    /// What a call to an emergency contact says, to a human and to a machine alike. There is no key.
    ///
    /// # Errors
    /// As [`TemplateSet::compose`].
    pub fn emergency_speech(
        &self,
        language: &Language,
        reference: Reference,
        sender: &SenderName,
        desk: &Desk,
    ) -> Result<Speech, ComposeError> {
        let file = self.file_for(language);
        let values = Values::of_desk(reference, sender, desk, &file.words, &file.actions);
        file.voice.speech_without_keys(&file.emergency.spoken, &values)
    }

    fn fill(
        purpose: Purpose,
        file: &LanguageFile,
        channel: Channel,
        values: &Values,
        content_sid: Option<&str>,
    ) -> Result<Composed, ComposeError> {
        let text_of = |text: &ChannelText| Ok((text.render(values)?, text.variables.clone(), text.buttons.is_some()));
        let plain = |text: String| (text, Vec::new(), false);
        let notice = || file.notices.get(&purpose).ok_or(ComposeError::NoTemplate { channel });
        let (text, variables, has_buttons) = match (purpose, channel) {
            (Purpose::CounsellorAlert, Channel::Whatsapp) => text_of(&file.whatsapp)?,
            (Purpose::CounsellorAlert, Channel::Sms) => text_of(&file.sms)?,
            (Purpose::CounsellorAlert, Channel::Voice) => plain(file.voice.speech(values)?.prompt),
            (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder, Channel::Whatsapp) => {
                text_of(notice()?)?
            }
            (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder, Channel::Sms) => {
                plain(notice()?.render(values)?)
            }
            (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder, Channel::Voice) => {
                return Err(ComposeError::NoTemplate { channel });
            }
            (Purpose::EmergencyContact, Channel::Whatsapp) => text_of(&file.emergency.written)?,
            (Purpose::EmergencyContact, Channel::Sms) => plain(file.emergency.written.render(values)?),
            (Purpose::EmergencyContact, Channel::Voice) => plain(file.emergency.spoken.render(values)?),
        };
        let content_sid = match channel {
            Channel::Whatsapp => content_sid.map(checked_sid).transpose()?,
            Channel::Sms | Channel::Voice => None,
        };
        Ok(Composed {
            template: purpose.as_str().to_owned(),
            version: file.version,
            language: file.language.clone(),
            has_buttons: has_buttons && content_sid.is_some(),
            content_sid,
            variables: variables.iter().map(|variable| values.get(*variable).to_owned()).collect(),
            text_sha256: text_sha256(&text),
            segments: segments::count(&text),
            text,
        })
    }

    /// Everything that a call about these facts may say.
    ///
    /// # Errors
    /// As [`TemplateSet::compose`].
    pub fn speech(&self, language: &Language, facts: &MessageFacts) -> Result<Speech, ComposeError> {
        let file = self.file_for(language);
        file.voice.speech(&Values::of(facts, &file.words, &file.actions)?)
    }

    /// What a call says that brings a code from `sender`.
    pub fn code_speech(&self, language: &Language, sender: &str, code: &str) -> CodeSpeech {
        self.file_for(language).voice.speaking.code_speech(sender, code)
    }

    /// The most parts that an SMS in this language can take.
    pub fn sms_segments_bound(&self, language: &Language) -> u32 {
        self.file_for(language).sms.segments_bound
    }

    /// The body of a request to Twilio's Content API (`POST https://content.twilio.com/v1/Content`) that makes the
    /// WhatsApp text a template, with numbered places and a sample for each; with buttons, where the file has them for it.
    /// There is no plain text beside those: the template goes to no channel but WhatsApp, which shows buttons.
    ///
    /// Source of the shapes: Twilio, Content API, `twilio/text` and `twilio/quick-reply`.
    pub fn content_definition(&self, purpose: Purpose, language: &Language) -> serde_json::Value {
        let file = self.file_for(language);
        // `parse` refuses a file in which a purpose has no text.
        let template = match purpose {
            Purpose::EmergencyContact => &file.emergency.written,
            Purpose::CounsellorAlert | Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder => {
                file.notices.get(&purpose).unwrap_or(&file.whatsapp)
            }
        };
        let samples = Values::sample(&file.words, &file.actions);
        let numbered = |variable| match template.variables.iter().position(|listed| *listed == variable) {
            Some(place) => format!("{{{{{}}}}}", place + 1),
            None => samples.get(variable).to_owned(),
        };
        let mut variables: serde_json::Map<String, serde_json::Value> = template
            .variables
            .iter()
            .enumerate()
            .map(|(place, variable)| ((place + 1).to_string(), samples.get(*variable).into()))
            .collect();
        let name = format!("{}_{}_v{}", purpose.as_str(), file.language, file.version);
        let body = template.body.render(numbered);
        let (friendly_name, types) = match &template.buttons {
            None => (name, json!({ "twilio/text": { "body": body } })),
            Some(buttons) => {
                let place = variables.len() + 1;
                variables.insert(place.to_string(), TICKET_SAMPLE.into());
                let actions = buttons.actions(place);
                // A name of its own: WhatsApp never takes one twice, and the text may be registered without buttons.
                (format!("{name}_buttons"), json!({ "twilio/quick-reply": { "body": body, "actions": actions } }))
            }
        };
        json!({
            "friendly_name": friendly_name,
            "language": file.language.as_str(),
            "variables": variables,
            "types": types,
        })
    }

    /// How many values a message fills into the template that is made from this text; `None`: there is no such text.
    pub fn values_of(&self, purpose: Purpose, language: &Language) -> Option<usize> {
        self.languages.contains_key(language).then(|| {
            let definition = self.content_definition(purpose, language);
            definition["variables"].as_object().map_or(0, serde_json::Map::len)
        })
    }

    fn file_for(&self, wanted: &Language) -> &LanguageFile {
        let fallback =
            || self.languages.iter().find(|(language, _)| language.as_str() == FALLBACK).map(|(_, file)| file);
        #[expect(clippy::expect_used, reason = "parse refuses a set without the fallback")]
        self.languages.get(wanted).or_else(fallback).expect("the fallback language is there")
    }
}

fn checked_sid(sid: &str) -> Result<String, ComposeError> {
    let digits = sid.strip_prefix("HX").ok_or(ComposeError::ContentSid)?;
    if digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(sid.to_owned())
    } else {
        Err(ComposeError::ContentSid)
    }
}

#[cfg(test)]
mod tests;
