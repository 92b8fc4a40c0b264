//! Which language a message to somebody is written in, and which approved WhatsApp template goes with it: one answer for the
//! message itself, and for whoever looks beforehand whether there is one.

use std::collections::BTreeMap;

use super::{Purpose, TemplateSet};
use crate::domain::contact::{Channel, Contact, Language};

/// The texts of a college, and the approved templates that were made from them.
#[derive(Debug, Clone)]
pub struct Texts {
    set: TemplateSet,
    content_sids: BTreeMap<(Purpose, Language), String>,
    needs_approval: bool,
    has_desk: bool,
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written<'a> {
    /// The language of the text: the one that is wanted, or the one that stands in for it.
    pub language: &'a Language,
    /// The approved WhatsApp template (`HX…`) of that text, if there is one.
    pub content_sid: Option<&'a str>,
}

impl Texts {
    /// Texts with their templates. `needs_approval`: messages reach real phones, so that WhatsApp takes free text only for 24
    /// hours after a person's own message.
    pub const fn new(
        set: TemplateSet,
        content_sids: BTreeMap<(Purpose, Language), String>,
        needs_approval: bool,
    ) -> Self {
        Self { set, content_sids, needs_approval, has_desk: false }
    }

    /// The same, where there is a desk that students' emergency contacts can be asked to call: without one they are told nothing.
    pub const fn with_desk(mut self, has_desk: bool) -> Self {
        self.has_desk = has_desk;
        self
    }

    /// The texts.
    pub const fn set(&self) -> &TemplateSet {
        &self.set
    }

    /// How a message of this purpose to somebody who is told in `wanted` is written.
    pub fn written(&self, wanted: &Language, purpose: Purpose) -> Written<'_> {
        let language = self.set.language_for(wanted);
        let content_sid = self.content_sids.get(&(purpose, language.clone())).map(String::as_str);
        Written { language, content_sid }
    }

    /// The language that stands in for one that there are no texts in.
    pub fn stands_in(&self, wanted: &Language) -> Option<&Language> {
        Some(self.set.language_for(wanted)).filter(|language| *language != wanted)
    }

    /// The language of which an approved template is missing before somebody can be told this over WhatsApp at any time;
    /// `None`: nothing is missing.
    pub fn unapproved(&self, wanted: &Language, purpose: Purpose) -> Option<&Language> {
        let Written { language, content_sid } = self.written(wanted, purpose);
        (self.needs_approval && content_sid.is_none()).then_some(language)
    }

    /// Everything that is said where somebody of the team is told in `wanted`, and of which an approved template is missing. Their
    /// college's language is taken for the one of the students' emergency contacts, too.
    pub fn all_unapproved(&self, wanted: &Language) -> impl Iterator<Item = (Purpose, &Language)> {
        let outside = self.has_desk.then_some(Purpose::EmergencyContact);
        let said = [Purpose::CounsellorAlert].into_iter().chain(Purpose::NOTICES).chain(outside);
        let missing: Vec<_> = said.filter_map(|said| Some((said, self.unapproved(wanted, said)?))).collect();
        missing.into_iter()
    }

    /// The same of a person as alerts know them: whoever has no WhatsApp lacks nothing.
    pub fn unapproved_for(&self, contact: &Contact) -> impl Iterator<Item = (Purpose, &Language)> {
        let over_whatsapp = contact.methods.iter().any(|method| method.channel == Channel::Whatsapp);
        over_whatsapp.then(|| self.all_unapproved(&contact.language)).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_that_of_the_language_that_is_used_not_of_the_one_that_is_wanted() {
        let sids = |language: &str| {
            BTreeMap::from([((Purpose::CounsellorAlert, language.parse().unwrap()), format!("HX{language}"))])
        };
        let french: Language = "fr".parse().unwrap();
        let texts = Texts::new(TemplateSet::builtin(), sids("en"), true);
        let written = texts.written(&french, Purpose::CounsellorAlert);
        assert_eq!((written.language.as_str(), written.content_sid), ("en", Some("HXen")));
        assert_eq!(texts.unapproved(&french, Purpose::CounsellorAlert), None);
        assert_eq!(texts.stands_in(&french).map(Language::as_str), Some("en"));
        assert_eq!(texts.stands_in(&"hi".parse().unwrap()), None);
        let alert = Purpose::CounsellorAlert;
        assert_eq!(texts.unapproved(&"hi".parse().unwrap(), alert).map(Language::as_str), Some("hi"));
        assert_eq!(texts.written(&french, Purpose::TakenNotice).content_sid, None, "each purpose has its own");
        let drifted = Texts::new(TemplateSet::builtin(), sids("fr"), true);
        assert_eq!(
            drifted.unapproved(&french, alert).map(Language::as_str),
            Some("en"),
            "nothing is written in French"
        );
        let simulated = Texts::new(TemplateSet::builtin(), BTreeMap::new(), false).with_desk(true);
        assert_eq!(simulated.all_unapproved(&french).count(), 0, "a simulator takes everything");
    }

    #[test]
    fn each_purpose_needs_a_template_of_its_own_and_that_for_relatives_where_there_is_a_desk() {
        let (english, alert): (Language, _) = ("en".parse().unwrap(), Purpose::CounsellorAlert);
        let sids = |said: &[Purpose]| said.iter().map(|said| ((*said, english.clone()), "HX1".to_owned())).collect();
        let missing = |texts: &Texts| texts.all_unapproved(&english).map(|(said, _)| said).collect::<Vec<_>>();
        let texts = |said: &[Purpose]| Texts::new(TemplateSet::builtin(), sids(said), true);
        assert_eq!(missing(&texts(&[alert])), Purpose::NOTICES);
        assert_eq!(missing(&texts(&Purpose::NOTICES)), [alert]);
        let team = [&[alert], &Purpose::NOTICES[..]].concat();
        assert_eq!(missing(&texts(&team)), []);
        assert_eq!(missing(&texts(&team).with_desk(true)), [Purpose::EmergencyContact]);
    }
}
