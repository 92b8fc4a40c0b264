//! The strict reader of JSON bodies against another reader: it takes what fits and means one thing only, and says of
//! the rest which field breaks which rule, without a value.

use std::collections::BTreeMap;
use std::fmt;

use axum::response::IntoResponse as _;
use crisis_relay::http::json::{Validate, parse};
use crisis_relay::http::problem::ProblemCode;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::repeats;

/// A type with one of each kind of field that bodies have.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    text: String,
    number: Option<f64>,
    small: Option<u8>,
    whole: Option<i64>,
    flag: Option<bool>,
    word: Option<Word>,
    inner: Option<Inner>,
    list: Option<Vec<Inner>>,
    pair: Option<(u16, String)>,
    map: Option<BTreeMap<String, u32>>,
    any: Option<serde_json::Map<String, Value>>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    One,
    Other,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    by: String,
}

impl Validate for Shape {}

/// Input: the body.
pub fn run(data: &[u8]) {
    match parse::<Shape>(data) {
        Ok(read) => {
            let other: Shape = serde_json::from_slice(data).expect("another reader takes it, too");
            assert_eq!(read, other, "two readers disagree");
            let keys: Keys = serde_json::from_slice(data).expect("it is JSON");
            let value: Value = serde_json::from_slice(data).expect("it is JSON");
            assert_eq!(keys.0, distinct(&value), "a key that comes twice was taken");
        }
        Err(problem) => {
            let (code, errors) = (problem.code(), problem.errors().len());
            assert!(problem.status().is_client_error(), "the caller is at fault, not {code:?}");
            let no_json = serde_json::from_slice::<Value>(data).is_err();
            // What is found first is told: a key may come twice, or be the reader's own, before the JSON breaks off.
            let found_first = [ProblemCode::DuplicateField, ProblemCode::UnknownField].contains(&code);
            assert!(!no_json || found_first || code == ProblemCode::MalformedJson, "no JSON is called {code:?}");
            assert!(code == ProblemCode::MalformedJson || errors == 1, "no field is named");
            for error in problem.errors() {
                assert!(!repeats(error.rule()), "a rule repeats a value: {error:?}");
                assert!(error.rule().len() <= 256 && error.field().len() <= 64, "too long: {error:?}");
            }
            drop(problem.into_response());
        }
    }
}

/// How many keys there are in all objects, each as often as it comes.
struct Keys(usize);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = usize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_u64<E>(self, _: u64) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_i64<E>(self, _: i64) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_f64<E>(self, _: f64) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_str<E>(self, _: &str) -> Result<usize, E> {
                Ok(0)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
                let mut all = 0;
                while let Some(Keys(keys)) = items.next_element()? {
                    all += keys;
                }
                Ok(all)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<usize, A::Error> {
                let mut all = 0;
                while let Some((_, Keys(keys))) = entries.next_entry::<String, Keys>()? {
                    all += 1 + keys;
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(Counting).map(Self)
    }
}

/// How many keys there are in all objects, each once.
fn distinct(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(items) => items.iter().map(distinct).sum(),
        Value::Object(object) => object.len() + object.values().map(distinct).sum::<usize>(),
    }
}
