//! The first look at a body: is it JSON, not too deep, and is every key of every object there once?
//!
//! Serde lets the last of two equal keys win, or the first, as the type happens to be made; another reader of the same
//! bytes (a proxy, an audit) may choose otherwise. So such a body is refused before anybody chooses. The scan builds
//! no tree: it keeps the keys of the objects that are open, and a set only for objects with many keys.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of arrays and objects that is read.
pub(super) const DEPTH_MAX: usize = 32;

/// Under such a key `serde_json` keeps what is its own: it would read the text there in the object's place, and nobody
/// would have looked through that text.
pub(super) const RESERVED: &str = "$serde_json::private::RawValue";

/// From this many keys in one object on, they are looked up in a set: below, walking a short list is quicker.
const KEYS_WALKED_MAX: usize = 16;

/// Why a body is refused at first sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScanFault {
    /// Not JSON.
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// The path of a key that an object has twice.
    Duplicate(String),
    /// A key that is the reader's own: [`RESERVED`].
    Reserved,
}

/// Looks through `text` once.
pub(super) fn scan(text: &str) -> Result<(), ScanFault> {
    let mut state = State { open_keys: Vec::new(), found: None };
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Element { state: &mut state, depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, state.found) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(Found::TooDeep)) => Err(ScanFault::TooDeep),
        (Err(_), Some(Found::Reserved)) => Err(ScanFault::Reserved),
        (Err(_), Some(Found::Duplicate(steps))) => Err(ScanFault::Duplicate(spell(&steps))),
        (Err(error), None) => Err(ScanFault::Syntax { line: error.line(), column: error.column() }),
    }
}

struct State<'de> {
    /// The keys of all objects that are open just now, innermost last.
    open_keys: Vec<Cow<'de, str>>,
    found: Option<Found>,
}

/// What made the scan stop. Serde's error has no room for it.
enum Found {
    TooDeep,
    Reserved,
    /// The way to the key, innermost step first.
    Duplicate(Vec<Step>),
}

enum Step {
    Key(String),
    Index(usize),
}

fn spell(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps.iter().rev() {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

impl State<'_> {
    /// Adds a step to the way out, while the error passes through.
    fn passing(&mut self, step: impl FnOnce(&Self) -> Step) {
        let Some(Found::Duplicate(mut steps)) = self.found.take_if(|found| matches!(found, Found::Duplicate(_))) else {
            return;
        };
        steps.push(step(self));
        self.found = Some(Found::Duplicate(steps));
    }
}

/// One value at `depth`.
struct Element<'s, 'de> {
    state: &'s mut State<'de>,
    depth: usize,
}

impl<'de> Element<'_, 'de> {
    fn enter<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth == DEPTH_MAX {
            self.state.found = Some(Found::TooDeep);
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Element<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let mut index = 0;
        loop {
            match items.next_element_seed(Element { state: self.state, depth }) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.state.passing(|_| Step::Index(index));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let first = self.state.open_keys.len();
        let mut many = HashSet::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if key == RESERVED {
                self.state.found = Some(Found::Reserved);
                return Err(A::Error::custom("reserved key"));
            }
            let at = self.state.open_keys.len();
            if !is_new(&self.state.open_keys[first..], &mut many, key.clone()) {
                self.state.found = Some(Found::Duplicate(vec![Step::Key(key.into_owned())]));
                return Err(A::Error::custom("duplicate key"));
            }
            self.state.open_keys.push(key);
            if let Err(error) = entries.next_value_seed(Element { state: self.state, depth }) {
                self.state.passing(|state| Step::Key(state.open_keys[at].clone().into_owned()));
                return Err(error);
            }
        }
        self.state.open_keys.truncate(first);
        Ok(())
    }
}

/// Whether `key` is not among `siblings`. `many` mirrors them once they are many.
fn is_new<'de>(siblings: &[Cow<'de, str>], many: &mut HashSet<Cow<'de, str>>, key: Cow<'de, str>) -> bool {
    if siblings.len() < KEYS_WALKED_MAX {
        return !siblings.contains(&key);
    }
    if many.is_empty() {
        many.extend(siblings.iter().cloned());
    }
    many.insert(key)
}

/// A key, borrowed from the body unless it is written with escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn duplicate(path: &str) -> Result<(), ScanFault> {
        Err(ScanFault::Duplicate(path.to_owned()))
    }

    #[test]
    fn a_duplicate_key_is_found_wherever_it_is() {
        assert_eq!(scan(r#"{"a":1,"a":1}"#), duplicate("a"));
        assert_eq!(scan(r#"{"a":{"b":[0,{"c":1,"d":{},"c":2}]}}"#), duplicate("a.b[1].c"));
        assert_eq!(scan(r#"[[{"x":1,"x":2}]]"#), duplicate("[0][0].x"));
        assert_eq!(scan(r#"{"a":1,"\u0061":2}"#), duplicate("a"), "an escaped spelling is the same key");
    }

    #[test]
    fn equal_keys_of_different_objects_are_no_duplicates() {
        assert_eq!(scan(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#), Ok(()));
    }

    #[test]
    fn depth_is_bounded_before_anything_is_built() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(scan(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(scan(&nested(DEPTH_MAX + 1)), Err(ScanFault::TooDeep));
        assert_eq!(scan(&r#"{"a":"#.repeat(60_000)), Err(ScanFault::TooDeep));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for text in
            ["", "{", "nul", r#"{"a":NaN}"#, r#"{"a":1,}"#, "{} {}", r#"{"a":1e999}"#, "'a'", r#"{a:1}"#, "[-Infinity]"]
        {
            assert!(matches!(scan(text), Err(ScanFault::Syntax { .. })), "{text}");
        }
        assert_eq!(scan("{\n \"a\": ?}"), Err(ScanFault::Syntax { line: 2, column: 7 }));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a-c\"\u{e9}]{0,2}", inner, 0..6)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_passes(value in json()) {
            prop_assert_eq!(scan(&value.to_string()), Ok(()));
        }

        #[test]
        fn one_repeated_key_among_many_is_found(count in 1usize..200, again in any::<prop::sample::Index>()) {
            let again = again.index(count);
            let entries = (0..count).chain([again]).map(|n| format!(r#""k{n}":{n}"#)).collect::<Vec<_>>();
            prop_assert_eq!(scan(&format!("{{{}}}", entries.join(","))), duplicate(&format!("k{again}")));
            prop_assert_eq!(scan(&format!("{{{}}}", entries[..count].join(","))), Ok(()));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,64}") {
            let _ = scan(&text);
        }
    }
}
