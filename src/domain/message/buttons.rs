//! What can be tapped under a WhatsApp text instead of writing: the quick-reply buttons of its approved template.
//!
//! A button's title is in the words of a language. What a tap asks for is its id, which nobody sees: what a reply would say,
//! and behind it a place for the message's own ticket (`domain::tap`).

use serde_json::{Value, json};

use super::walk::{Faults, Section};

/// The most characters of a title: WhatsApp's limit for a button in a conversation. (In an approved template there may be 25.)
const TITLE_MAX: usize = 20;

/// The buttons under one text: both of them, or none.
#[derive(Debug, Clone)]
pub(super) struct Buttons {
    take: String,
    pass: String,
}

impl Buttons {
    pub(super) fn read(mut section: Section, faults: &mut Faults) -> Option<Self> {
        let keys = ["take", "pass"].map(|name| section.key(name));
        let [take, pass] = ["take", "pass"].map(|name| section.phrase(name, faults));
        section.finish(faults);
        let titles = [take?, pass?];
        for (key, title) in keys.iter().zip(&titles) {
            check(key, title, faults);
        }
        let [take, pass] = titles;
        if take == pass {
            faults.add(&keys[1], "must not be the other button's title: nobody could tell them apart");
        }
        Some(Self { take, pass })
    }

    /// The `actions` of `twilio/quick-reply`. `place` is the number of the variable that the ticket is filled into.
    ///
    /// Source: Twilio, Content API, common components: an id takes variables, and has at most 128 characters in an approved
    /// template; a title takes none.
    pub(super) fn actions(&self, place: usize) -> Value {
        let action = |title: &str, command: &str| json!({"title": title, "id": format!("{command}.{{{{{place}}}}}")});
        json!([action(&self.take, "1"), action(&self.pass, "2")])
    }
}

/// What WhatsApp refuses in the title of a button: formatting, emoji, and more than fits.
fn check(key: &str, title: &str, faults: &mut Faults) {
    // Counted in 16-bit units, as the more careful reading of "characters".
    let length = title.encode_utf16().count();
    if length > TITLE_MAX {
        faults.add(key, format!("has {length} characters; a button has room for {TITLE_MAX} (WhatsApp)"));
    }
    let is_emoji = |symbol: char| matches!(symbol, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    if title.contains(['*', '_', '~', '`']) || title.contains(is_emoji) {
        faults.add(key, "must be words alone, without formatting and emoji (WhatsApp)");
    }
}
