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
        Self { set, content_sids, needs_approval }
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

    /// The language of which an approved template is missing before somebody can be told of a case over WhatsApp at any time;
    /// `None`: nothing is missing.
    pub fn unapproved(&self, wanted: &Language) -> Option<&Language> {
        let Written { language, content_sid } = self.written(wanted, Purpose::CounsellorAlert);
        (self.needs_approval && content_sid.is_none()).then_some(language)
    }

    /// The same of a person as alerts know them: whoever has no WhatsApp lacks nothing.
    pub fn unapproved_for(&self, contact: &Contact) -> Option<&Language> {
        let over_whatsapp = contact.methods.iter().any(|method| method.channel == Channel::Whatsapp);
        if over_whatsapp { self.unapproved(&contact.language) } else { None }
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
        assert_eq!(texts.unapproved(&french), None);
        assert_eq!(texts.stands_in(&french).map(Language::as_str), Some("en"));
        assert_eq!(texts.stands_in(&"hi".parse().unwrap()), None);
        assert_eq!(texts.unapproved(&"hi".parse().unwrap()).map(Language::as_str), Some("hi"));
        assert_eq!(texts.written(&french, Purpose::TakenNotice).content_sid, None, "each purpose has its own");
        let drifted = Texts::new(TemplateSet::builtin(), sids("fr"), true);
        assert_eq!(drifted.unapproved(&french).map(Language::as_str), Some("en"), "no message is written in French");
        let simulated = Texts::new(TemplateSet::builtin(), BTreeMap::new(), false);
        assert_eq!(simulated.unapproved(&french), None, "a simulator takes everything");
    }
}
