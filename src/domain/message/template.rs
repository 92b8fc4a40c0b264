//! One language's file: read, checked against every rule, and filled.

use std::collections::BTreeMap;

use super::body::{Body, Variable};
use super::buttons::Buttons;
use super::values::{Actions, Values, Words, is_sendable};
use super::voice::{SPEECH_MAX, Speaking, UNSPOKEN, VoiceDraft, VoiceText, read_speaking};
use super::walk::{Faults, Section, TemplateFault};
use super::{ComposeError, DRILL, Purpose, matter, segments};
use crate::domain::contact::{Channel, Language};

/// The most bytes that a file may have.
const FILE_MAX: usize = 64 * 1024;
/// The most characters of a rendered WhatsApp text (Twilio's error 63021).
const WHATSAPP_MAX: usize = 1024;
/// The most characters of an SMS that Twilio takes.
const SMS_MAX: usize = 1600;
/// The most parts that a file may allow an SMS: more arrive late and in pieces.
const SEGMENTS_MAX: u32 = 6;

/// One language's texts.
#[derive(Debug, Clone)]
pub(super) struct LanguageFile {
    pub(super) language: Language,
    pub(super) version: u32,
    pub(super) words: Words,
    pub(super) actions: Actions,
    pub(super) whatsapp: ChannelText,
    pub(super) sms: ChannelText,
    /// One text each, for every channel that carries words.
    pub(super) notices: BTreeMap<Purpose, ChannelText>,
    pub(super) voice: VoiceText,
    /// What emergency contacts are told.
    pub(super) emergency: EmergencyTexts,
}

/// What emergency contacts are told: one text for WhatsApp and SMS, and one that is spoken.
#[derive(Debug, Clone)]
pub(super) struct EmergencyTexts {
    pub(super) written: ChannelText,
    pub(super) spoken: ChannelText,
}

/// All that may be said to an emergency contact.
const FOR_EMERGENCY_CONTACTS: [Variable; 4] =
    [Variable::Sender, Variable::Reference, Variable::Desk, Variable::DeskPhone];

/// One channel's text of one purpose.
#[derive(Debug, Clone)]
pub(super) struct ChannelText {
    channel: Channel,
    pub(super) body: Body,
    /// What `{{1}}`, `{{2}}` … stand for; empty for SMS and calls.
    pub(super) variables: Vec<Variable>,
    /// What can be tapped under it on WhatsApp instead of writing; `None` where there is nothing to answer, or the file has
    /// none.
    pub(super) buttons: Option<Buttons>,
    /// The most parts it can take as an SMS.
    pub(super) segments_bound: u32,
}

impl ChannelText {
    /// Fills the text, and checks what came out.
    pub(super) fn render(&self, values: &Values) -> Result<String, ComposeError> {
        if let Some(variable) = self.body.variables().find(|variable| !is_sendable(values.get(*variable))) {
            return Err(ComposeError::Value { variable });
        }
        let text = match self.channel {
            Channel::Whatsapp | Channel::Sms => self.body.render(|variable| values.get(variable)),
            Channel::Voice => self.body.render(|variable| values.spoken(variable)),
        };
        // Counted in 16-bit units, as the more careful reading of "characters".
        let most = match self.channel {
            Channel::Whatsapp => WHATSAPP_MAX,
            Channel::Sms => SMS_MAX,
            Channel::Voice => SPEECH_MAX,
        };
        if text.encode_utf16().count() > most {
            return Err(ComposeError::TooLong);
        }
        let marked = if values.drill { text.contains(DRILL) } else { !text.to_uppercase().contains(DRILL) };
        if marked { Ok(text) } else { Err(ComposeError::DrillMark) }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading a file

impl LanguageFile {
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Vec<TemplateFault>> {
        let mut faults = Faults { file: file.to_owned(), found: Vec::new() };
        let read = Self::read(text, &mut faults);
        match read {
            Some(read) if faults.found.is_empty() => Ok(read),
            _ => Err(faults.found),
        }
    }

    /// Reads on after a fault, to find the others; `None` only after at least one.
    fn read(text: &str, faults: &mut Faults) -> Option<Self> {
        if text.len() > FILE_MAX {
            faults.add("(file)", format!("is larger than {FILE_MAX} bytes"));
            return None;
        }
        let entries = match text.parse::<toml::Table>() {
            Ok(entries) => entries,
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
                let line = before.matches('\n').count() + 1;
                faults.add(&format!("(line {line})"), error.message().trim());
                return None;
            }
        };
        let mut root = Section::root(entries);
        let language = root.text("language", faults).and_then(|tag| match tag.parse::<Language>() {
            Ok(language) => Some(language),
            Err(error) => faults.none("language", error.rule),
        });
        let version = root.number("version", 1, u32::MAX, faults);
        let words = root.section("words", faults).map(|section| Words::read(section, faults));
        let speaking = root.section("voice", faults).and_then(|section| read_speaking(section, faults));
        let purpose = root.section(Purpose::CounsellorAlert.as_str(), faults);
        let notices = Purpose::NOTICES.map(|purpose| {
            let section = root.section(purpose.as_str(), faults);
            section.and_then(|section| Some((purpose, Draft::read(section, Channel::Whatsapp, purpose, faults)?)))
        });
        let emergency = root.section(Purpose::EmergencyContact.as_str(), faults);
        let emergency = emergency.and_then(|section| read_emergency(section, faults));
        root.finish(faults);
        let words = words.flatten();
        let PurposeTexts { actions, whatsapp, sms, voice } = read_purpose(purpose?, words.as_ref(), speaking, faults)?;
        let words = words?;
        let check = |(purpose, draft): (Purpose, Draft), faults: &mut Faults| {
            Some((purpose, draft.check(&words, &actions, faults)?))
        };
        let notices = notices.into_iter().flatten().filter_map(|notice| check(notice, faults)).collect();
        let (written, spoken) = emergency?;
        let written = written.check(&words, &actions, faults);
        let emergency = EmergencyTexts { spoken: spoken.check(&words, &actions, faults)?, written: written? };
        let (language, version, whatsapp, sms, voice) = (language?, version?, whatsapp?, sms?, voice?);
        Some(Self { language, version, words, actions, whatsapp, sms, notices, voice, emergency })
    }
}

/// Reads `emergency_contact`: the written text, and the one that is spoken.
fn read_emergency(mut section: Section, faults: &mut Faults) -> Option<(Draft, Draft)> {
    let spoken = section.section(Channel::Voice.as_str(), faults);
    let spoken = spoken.and_then(|section| Draft::read(section, Channel::Voice, Purpose::EmergencyContact, faults));
    let written = Draft::read(section, Channel::Whatsapp, Purpose::EmergencyContact, faults);
    Some((written?, spoken?))
}

struct PurposeTexts {
    actions: Actions,
    whatsapp: Option<ChannelText>,
    sms: Option<ChannelText>,
    voice: Option<VoiceText>,
}

fn read_purpose(
    mut section: Section,
    words: Option<&Words>,
    speaking: Option<Speaking>,
    faults: &mut Faults,
) -> Option<PurposeTexts> {
    let actions = section.section("action", faults).map(|section| Actions::read(section, faults));
    let drafts = [Channel::Whatsapp, Channel::Sms].map(|channel| {
        let section = section.section(channel.as_str(), faults);
        section.and_then(|section| Draft::read(section, channel, Purpose::CounsellorAlert, faults))
    });
    let spoken = section.section(Channel::Voice.as_str(), faults).map(|section| VoiceDraft::read(section, faults));
    section.finish(faults);
    // Without all words and actions, what a text can become is not known.
    let (words, actions) = (words?, actions??);
    let [whatsapp, sms] = drafts.map(|draft| draft.and_then(|draft| draft.check(words, &actions, faults)));
    let voice = spoken.and_then(|draft| draft.check(words, &actions, speaking, faults));
    Some(PurposeTexts { actions, whatsapp, sms, voice })
}

/// A channel's text, before it is known what the words are that it will be filled with.
pub(super) struct Draft {
    key: String,
    channel: Channel,
    purpose: Purpose,
    body: Body,
    variables: Vec<Variable>,
    buttons: Option<Buttons>,
    segments_max: Option<u32>,
}

impl Draft {
    pub(super) fn read(mut section: Section, channel: Channel, purpose: Purpose, faults: &mut Faults) -> Option<Self> {
        let key = section.key("body");
        let body = section.text("body", faults).and_then(|text| match Body::parse(&text) {
            Ok(body) => Some(body),
            Err(broken) => {
                broken.into_iter().for_each(|rule| faults.add(&key, rule));
                None
            }
        });
        let (mut listed, mut segments_max) = (None, None);
        if channel == Channel::Whatsapp {
            listed = section.list("variables", faults);
        }
        // What is no alert has one text for all channels that are written.
        if channel == Channel::Sms || (channel == Channel::Whatsapp && !purpose.is_alert()) {
            segments_max = section.number("segments_max", 1, SEGMENTS_MAX, faults);
        }
        let listed_key = section.key("variables");
        let mut buttons = None;
        if channel == Channel::Whatsapp && purpose.is_answered() {
            let drawn = section.section_if_any("buttons", faults);
            buttons = drawn.and_then(|section| Buttons::read(section, faults));
        }
        section.finish(faults);
        let body = body?;
        check_wording(&key, &body, channel, purpose, faults);
        let variables = match channel {
            Channel::Whatsapp => check_listed(&listed_key, &listed?, &body, faults)?,
            Channel::Sms | Channel::Voice => Vec::new(),
        };
        if purpose != Purpose::TakenNotice && body.uses(Variable::Taker) {
            faults.add(&key, "must not say the {taker}: only the notice that a case is taken knows of one");
        }
        Some(Self { key, channel, purpose, body, variables, buttons, segments_max })
    }

    /// Checks the text with the widest values there can be.
    pub(super) fn check(self, words: &Words, actions: &Actions, faults: &mut Faults) -> Option<ChannelText> {
        // A call says which keys there are in a sentence of its own.
        let says_how = self.purpose.is_alert() && self.channel != Channel::Voice;
        if says_how && !self.body.fixed().contains(&words.acknowledge) {
            faults.add(&self.key, "must contain words.acknowledge, word for word");
        }
        let text = ChannelText {
            channel: self.channel,
            body: self.body,
            variables: self.variables,
            buttons: self.buttons,
            segments_bound: 0,
        };
        let mut bound = 0;
        let mut broken: Vec<ComposeError> = Vec::new();
        // No drill reaches an emergency contact.
        let can_be = |values: &Values| self.purpose != Purpose::EmergencyContact || !values.drill;
        for values in Values::widest(words, actions).into_iter().filter(can_be) {
            match text.render(&values) {
                Ok(rendered) => bound = bound.max(segments::upper_bound(&rendered).segments),
                Err(error) if broken.contains(&error) => {}
                Err(error) => {
                    faults.add(&self.key, format!("when filled: {error}"));
                    broken.push(error);
                }
            }
        }
        if let Some(most) = self.segments_max
            && bound > most
        {
            faults.add(&self.key, format!("can take {bound} parts as an SMS; segments_max is {most}"));
        }
        Some(ChannelText { segments_bound: bound, ..text })
    }
}

/// The rules on a text that need no values.
fn check_wording(key: &str, body: &Body, channel: Channel, purpose: Purpose, faults: &mut Faults) {
    let fixed = body.fixed();
    if purpose == Purpose::EmergencyContact {
        check_for_emergency_contacts(key, body, faults);
    } else {
        check_for_team(key, body, faults);
    }
    if !body.uses(Variable::Reference) {
        faults.add(key, "must say the {reference}");
    }
    if let Some(word) = matter::named_in(&fixed) {
        faults.add(key, format!("must not name the matter (`{word}`): lock screens are read by others"));
    }
    if !body.sets_apart(Variable::Link) {
        faults.add(key, "must set {link} off by spaces, or phones take the neighbour for a part of it");
    }
    if fixed.chars().any(|symbol| symbol.is_control() && !(symbol == '\n' && channel == Channel::Sms)) {
        faults.add(key, "must not contain line breaks, tabs or other control characters");
    }
    if channel == Channel::Voice
        && let Some(variable) = UNSPOKEN.into_iter().find(|variable| body.uses(*variable))
    {
        faults.add(key, format!("must not say the {{{variable}}}: nobody can tap what is spoken"));
    }
    if channel != Channel::Whatsapp {
        return;
    }
    if body.starts_or_ends_with_variable() {
        faults.add(key, "must not start or end with a variable (WhatsApp)");
    }
    if body.has_adjacent_variables() {
        faults.add(key, "must have words between any two variables (WhatsApp)");
    }
}

fn check_for_team(key: &str, body: &Body, faults: &mut Faults) {
    if !body.uses(Variable::Urgency) && !body.uses(Variable::Drill) {
        faults.add(key, "must say the {urgency} or the {drill} marker: a drill must be known as one");
    }
    if body.uses(Variable::Desk) || body.uses(Variable::DeskPhone) {
        faults.add(key, "must not say the {desk} or its number: only emergency contacts are asked to call there");
    }
}

/// They are asked to call the desk, and told nothing that somebody who reads their phone could make anything of.
fn check_for_emergency_contacts(key: &str, body: &Body, faults: &mut Faults) {
    if !body.uses(Variable::DeskPhone) {
        faults.add(key, "must say the {desk_phone}: that is all that is asked");
    }
    if let Some(other) = body.variables().find(|variable| !FOR_EMERGENCY_CONTACTS.contains(variable)) {
        faults
            .add(key, format!("must not say the {{{other}}}: an emergency contact is told no more than whom to call"));
    }
}

/// The list is what the registered template was numbered by: a text that was reordered must not silently renumber it.
fn check_listed(key: &str, listed: &[String], body: &Body, faults: &mut Faults) -> Option<Vec<Variable>> {
    let used: Vec<Variable> = body.variables().collect();
    if (1..used.len()).any(|at| used[..at].contains(&used[at])) {
        return faults.none(key, "the body must use no variable twice (WhatsApp)");
    }
    if used.iter().map(|variable| variable.as_str()).eq(listed.iter().map(String::as_str)) {
        Some(used)
    } else {
        let names = used.iter().map(|variable| variable.as_str()).collect::<Vec<_>>().join(", ");
        faults.none(key, format!("must be the body's variables in their order: {names}"))
    }
}
