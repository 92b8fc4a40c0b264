//! Values from schemas: such as fit, and such as nearly do.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::CANARY;
use crate::common::described;

/// Fields whose value is shown again, by design: technical labels, and nothing of a person.
pub(crate) const LABELS: [&str; 3] = ["source", "notice_version", "model_version"];

/// Fields whose value is a name: of what there is, and of what there is not.
const KNOWN: [(&str, &[&str]); 5] = [
    ("time_zone", &["Asia/Kolkata", "Europe/Berlin", "UTC", "Mars/Olympus"]),
    ("people", &["counsellor", "counsellor", "counsellor", "nobody"]),
    ("person", &["counsellor", "counsellor", "nobody"]),
    ("contact", &["counsellor", "counsellor", "nobody"]),
    ("schedule", &["nights", "days"]),
];

fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => described::description().pointer(name.trim_start_matches('#')).expect("no reference dangles"),
        None => schema,
    }
}

/// A value that a schema allows. `name` is the field's; fields that are labels get what a label may be.
pub(crate) fn good(schema: &Value, name: &str) -> BoxedStrategy<Value> {
    let schema = resolve(schema);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return prop::sample::select(words.clone()).boxed();
    }
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        let variants: Vec<_> = variants.iter().map(|variant| good(variant, name)).collect();
        return proptest::strategy::Union::new(variants).boxed();
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => panic!("a schema without a type: {schema}"),
    };
    proptest::strategy::Union::new(kinds.into_iter().map(|kind| of_kind(schema, kind, name))).boxed()
}

fn of_kind(schema: &Value, kind: &str, name: &str) -> BoxedStrategy<Value> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    match kind {
        "null" => Just(Value::Null).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            let (least, most) = (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
            prop_oneof![Just(least), Just(most), least..=most].prop_map(Value::from).boxed()
        }
        "number" => {
            prop_oneof![Just(0.0), Just(1.0), Just(-0.0), Just(5e-324), 0.0..=1.0].prop_map(Value::from).boxed()
        }
        "string" => text(schema, name).prop_map(Value::from).boxed(),
        "array" => {
            let most = bound("maxItems").map_or(3, |most| most as usize);
            vec(good(&schema["items"], name), 0..=most.min(3)).prop_map(Value::from).boxed()
        }
        "object" if schema.get("properties").is_none() => {
            btree_map("[a-z]{0,9}", any_json(), 0..4).prop_map(|map| json!(map)).boxed()
        }
        "object" => object(schema),
        other => panic!("the description has a type that is not known here: {other}"),
    }
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut whole = Just(Map::new()).boxed();
    for (name, inner) in schema["properties"].as_object().unwrap() {
        let value = good(inner, name);
        let value = match required.contains(&name.as_str()) {
            true => value.prop_map(Some).boxed(),
            // Without a name nobody can be added.
            false => option::weighted(if name == "name" { 0.9 } else { 0.4 }, value).boxed(),
        };
        let name = name.clone();
        whole = (whole, value)
            .prop_map(move |(mut object, value)| {
                object.extend(value.map(|value| (name.clone(), value)));
                object
            })
            .boxed();
    }
    whole.prop_map(Value::Object).boxed()
}

/// A text of the schema's form, with the canary where it may say anything.
fn text(schema: &Value, name: &str) -> BoxedStrategy<String> {
    if schema.get("format").and_then(Value::as_str) == Some("date-time") {
        return (0..3600u32).prop_map(|ago| format!("2026-11-20T07:{:02}:{:02}Z", ago / 60, ago % 60)).boxed();
    }
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return prop::sample::select(known.to_vec()).prop_map(str::to_owned).boxed();
    }
    if name == "number" {
        return prop_oneof![8 => "\\+91981[0-9]{7}", 1 => Just("+911123456789".to_owned()), 1 => Just("+4930".to_owned())]
            .boxed();
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str).filter(|_| !LABELS.contains(&name)) {
        return proptest::string::string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap().boxed();
    }
    if LABELS.contains(&name) {
        return "[A-Za-z0-9._:/+-]{1,64}".boxed();
    }
    let most = schema.get("maxLength").and_then(Value::as_u64).map_or(64, |most| most as usize);
    let fill = most - CANARY.len();
    let with_canary = prop_oneof![
        4 => Just(CANARY.to_owned()),
        1 => Just(format!("{CANARY}{}", "é".repeat(fill))),
        1 => "[\\PC&&[^\u{2028}\u{2029}]]{0,20}".prop_map(|text| format!("{CANARY}{text}")),
    ];
    with_canary.boxed()
}

/// Any JSON, with the canary in its texts and odd numbers in between.
pub(crate) fn any_json() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(u64::MAX)),
        any::<f64>().prop_map(Value::from),
        Just(json!(CANARY)),
        any::<String>().prop_map(|text| Value::from(format!("{CANARY}{text}"))),
        Just(json!("")),
        Just(json!({ "$serde_json::private::RawValue": format!("\"{CANARY}\"") })),
    ];
    let nested = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z_]{0,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    });
    nested.boxed()
}

/// A value that was good, with one thing that is wrong with it.
pub(crate) fn spoilt(schema: &Value) -> BoxedStrategy<Value> {
    (good(schema, ""), any::<prop::sample::Index>(), any_json(), 0..4u8)
        .prop_map(|(mut value, at, other, how)| {
            let mut places = Vec::new();
            pointers(&value, "", &mut places);
            let place = if places.is_empty() { String::new() } else { at.get(&places).clone() };
            spoil(&mut value, &place, other, how);
            value
        })
        .boxed()
}

fn spoil(value: &mut Value, place: &str, other: Value, how: u8) {
    let Some((parent, name)) = place.rsplit_once('/') else {
        *value = other;
        return;
    };
    let Some(object) = value.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    match how {
        0 => drop(object.remove(name)),
        1 => drop(object.insert("unheard_of".to_owned(), other)),
        _ => drop(object.insert(name.to_owned(), other)),
    }
}

fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    for (name, inner) in value.as_object().into_iter().flatten().filter(|(name, _)| !name.contains(['/', '~'])) {
        pointers(inner, &format!("{at}/{name}"), found);
        found.push(format!("{at}/{name}"));
    }
}
