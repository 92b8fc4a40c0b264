//! A text with places for variables, and the closed list of those.

use std::fmt;

/// What a text may say beyond its fixed words. There is no variable for a person, a person's number, or anybody's own words, and
/// adding one would be a decision about privacy, not about wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// The alert's code, which people read out; says nothing.
    Reference,
    /// The score with two decimals (cut off, not rounded), or that a person set it.
    Score,
    /// The urgency band's word; in a drill the drill's marker instead.
    Urgency,
    /// When the alert was raised, in the organisation's time zone: `14:05 IST`.
    Time,
    /// Until when somebody must have taken it; written as `Time`.
    RespondBy,
    /// What to do, by urgency band; in a drill the drill's own.
    Action,
    /// Where to see the alert after logging in, or a word for that place where no link is configured.
    Link,
    /// The organisation's short name.
    Sender,
    /// The drill's marker, or the word for a live alert: for texts that say it in a place of its own.
    Drill,
    /// Who has the case, by role; in the notice that it is taken, and nowhere else.
    Taker,
    /// What the college's desk is called; in what an emergency contact is told, and nowhere else.
    Desk,
    /// The desk's number, likewise: the college's own, which may be known to everybody.
    DeskPhone,
}

impl Variable {
    /// Every variable there is.
    pub const ALL: [Self; 12] = [
        Self::Reference,
        Self::Score,
        Self::Urgency,
        Self::Time,
        Self::RespondBy,
        Self::Action,
        Self::Link,
        Self::Sender,
        Self::Drill,
        Self::Taker,
        Self::Desk,
        Self::DeskPhone,
    ];

    /// The name between braces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Score => "score",
            Self::Urgency => "urgency",
            Self::Time => "time",
            Self::RespondBy => "respond_by",
            Self::Action => "action",
            Self::Link => "link",
            Self::Sender => "sender",
            Self::Drill => "drill",
            Self::Taker => "taker",
            Self::Desk => "desk",
            Self::DeskPhone => "desk_phone",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.as_str() == name)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Variable(Variable),
}

/// A parsed text: fixed words and variables in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    parts: Vec<Part>,
}

impl Body {
    /// Reads a text with `{name}` in it.
    ///
    /// # Errors
    /// Every rule that is broken. Braces have no other use, so that none is ever shown by mistake.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut parts, mut faults, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (fixed, braced) = rest.split_at(at);
            push_text(&mut parts, fixed);
            rest = match braced.strip_prefix('{').map(|inside| inside.split_once('}')) {
                None => {
                    faults.push("has a closing brace that nothing opens".to_owned());
                    &braced[1..]
                }
                Some(Some((name, after))) if !name.contains('{') => {
                    match Variable::named(name) {
                        Some(variable) => parts.push(Part::Variable(variable)),
                        None => faults.push(format!("has the unknown variable {{{name}}}; {}", known())),
                    }
                    after
                }
                Some(_) => {
                    faults.push("has an opening brace that nothing closes".to_owned());
                    &braced[1..]
                }
            };
        }
        push_text(&mut parts, rest);
        if faults.is_empty() { Ok(Self { parts }) } else { Err(faults) }
    }

    /// The text with each variable replaced.
    pub(super) fn render<T: AsRef<str>>(&self, value: impl Fn(Variable) -> T) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Variable(variable) => text.push_str(value(*variable).as_ref()),
            }
        }
        text
    }

    /// The variables, in the order in which they stand.
    pub(super) fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(variable) => Some(*variable),
        })
    }

    pub(super) fn uses(&self, variable: Variable) -> bool {
        self.variables().any(|used| used == variable)
    }

    /// The fixed words alone, with a gap where a variable stands.
    pub(super) fn fixed(&self) -> String {
        self.render(|_| "\u{fffc}")
    }

    pub(super) fn starts_or_ends_with_variable(&self) -> bool {
        let mut said = self.parts.iter().filter(|part| !is_blank(part));
        let is_variable = |part: Option<&Part>| matches!(part, Some(Part::Variable(_)));
        is_variable(said.next()) || is_variable(said.next_back())
    }

    pub(super) fn has_adjacent_variables(&self) -> bool {
        let said: Vec<&Part> = self.parts.iter().filter(|part| !is_blank(part)).collect();
        said.windows(2).any(|pair| matches!(pair, [Part::Variable(_), Part::Variable(_)]))
    }

    /// Whether the variable is set off by white space or an end on both sides wherever it stands.
    pub(super) fn sets_apart(&self, variable: Variable) -> bool {
        self.parts.iter().enumerate().filter(|(_, part)| **part == Part::Variable(variable)).all(|(at, _)| {
            let before = at.checked_sub(1).and_then(|before| self.parts.get(before));
            let after = self.parts.get(at + 1);
            before.is_none_or(|part| matches!(part, Part::Text(text) if text.ends_with(char::is_whitespace)))
                && after.is_none_or(|part| matches!(part, Part::Text(text) if text.starts_with(char::is_whitespace)))
        })
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn is_blank(part: &Part) -> bool {
    matches!(part, Part::Text(text) if text.trim().is_empty())
}

fn known() -> String {
    format!("known are {}", Variable::ALL.map(Variable::as_str).join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(text: &str) -> Body {
        Body::parse(text).unwrap()
    }

    #[test]
    fn every_variable_is_found_by_its_name_and_no_other_word_is() {
        for variable in Variable::ALL {
            assert_eq!(Variable::named(variable.as_str()), Some(variable));
        }
        for name in ["", "user_id", "message", "metadata", "name", "phone", "Reference", " link"] {
            assert_eq!(Variable::named(name), None);
        }
    }

    #[test]
    fn every_broken_brace_and_unknown_name_is_told_at_once() {
        let faults = Body::parse("a } {user_id} {metadata} {link {reference}").unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        for text in ["{", "}", "{}", "{{reference}}", "{reference", "reference}", "{ link }", "{1}"] {
            assert!(Body::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_at_either_end_or_next_to_another_is_seen() {
        assert!(body("{link} x").starts_or_ends_with_variable());
        assert!(body("x {link} ").starts_or_ends_with_variable());
        assert!(body("{link}").starts_or_ends_with_variable());
        assert!(!body("x {link} y").starts_or_ends_with_variable());
        assert!(body("x {link}{time} y").has_adjacent_variables());
        assert!(body("x {link} \n{time} y").has_adjacent_variables());
        assert!(!body("x {link}, {time} y").has_adjacent_variables());
    }

    #[test]
    fn a_link_that_touches_a_word_or_a_stop_is_seen() {
        assert!(body("x {link} y {link}").sets_apart(Variable::Link));
        for text in ["x{link} y", "x {link}. y", "x {link}{time}"] {
            assert!(!body(text).sets_apart(Variable::Link), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_braces_stays_as_it_is(text in "[^{}]*") {
            prop_assert_eq!(body(&text).render(|_| ""), text);
        }

        #[test]
        fn parsing_never_panics_and_rendering_gives_the_names_back(text in ".*|([a-z ]|[{}]|\\{link\\}){0,20}") {
            if let Ok(body) = Body::parse(&text) {
                prop_assert_eq!(body.render(|variable| format!("{{{variable}}}")), text);
            }
        }
    }
}
