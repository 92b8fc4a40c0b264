//! Holds every answer against the API's description: a story cannot provoke an answer that the description does not
//! allow.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::Answer;

/// The description, as the code gives it.
pub fn description() -> &'static Value {
    static DESCRIPTION: OnceLock<Value> = OnceLock::new();
    DESCRIPTION.get_or_init(|| serde_json::to_value(crisis_relay::http::openapi()).unwrap())
}

/// Every operation of the description: method in capitals, path template, and the operation itself.
pub fn operations() -> Vec<(String, String, &'static Value)> {
    let mut all = Vec::new();
    for (path, item) in description()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    all
}

/// Fails the story if an answer is not one that the description allows.
#[track_caller]
pub fn check(method: &str, path: &str, answer: &Answer) {
    if let Err(fault) = verdict(method, path, answer) {
        panic!("{fault}: {method} {path}: {answer:?}");
    }
}

/// What about an answer the description does not allow.
pub fn verdict(method: &str, path: &str, answer: &Answer) -> Result<(), String> {
    if path.starts_with("/docs") || path == "/openapi.json" {
        return Ok(());
    }
    let method_described = if method == "HEAD" { "GET" } else { method };
    let operation =
        operations().into_iter().find(|(known, template, _)| known == method_described && fits(template, path));
    let given = answer.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let essence = given.as_deref().map(|kind| kind.split(';').next().unwrap().trim());
    let Some((_, _, operation)) = operation else {
        if !matches!(answer.status, 404 | 405) || essence != Some("application/problem+json") {
            return Err("not described, and answered".to_owned());
        }
        let problem = description().pointer("/components/schemas/Problem").unwrap();
        return if method == "HEAD" { Ok(()) } else { fit(problem, &answer.json()) };
    };
    let described = operation.pointer(&format!("/responses/{}", answer.status));
    let described = described.ok_or("the status is not described")?;
    for name in described.get("headers").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        if !answer.headers.contains_key(name.as_str()) {
            return Err(format!("the header {name} is described, and is not there"));
        }
    }
    let Some(contents) = described.get("content").and_then(Value::as_object) else {
        return match essence {
            None | Some("text/plain") => Ok(()),
            Some(_) => Err("no content is described".to_owned()),
        };
    };
    let content = essence.and_then(|essence| contents.get(essence)).ok_or("the content type is not described")?;
    if method == "HEAD" || !essence.is_some_and(|essence| essence.ends_with("json")) {
        return Ok(());
    }
    let json = answer.json();
    content.get("schema").map_or(Ok(()), |schema| fit(schema, &json))?;
    match json.get("code").and_then(Value::as_str).filter(|_| essence == Some("application/problem+json")) {
        Some(code) if !described["description"].as_str().unwrap().split(", ").any(|word| word == code) => {
            Err(format!("the code {code} is not among the described ones"))
        }
        Some(_) | None => Ok(()),
    }
}

fn fit(schema: &Value, value: &Value) -> Result<(), String> {
    let faults = faults(schema, value);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
}

/// Whether a path is one of a template's. An empty parameter is one, but not at the end.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let fits = |(part, given): (&&str, &&str)| part == given || part.starts_with('{');
    template.len() == path.len()
        && template.iter().zip(&path).all(fits)
        && (template.last() == path.last() || path.last().is_some_and(|given| !given.is_empty()))
}

/// What of a value its schema does not allow. Knows as much of JSON Schema as the description uses; fields that are not
/// described count as faults, too.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, value, "", &mut found);
    if let (Some(known), Some(object)) = (fields(schema, value), value.as_object()) {
        found.extend(object.keys().filter(|name| !known.contains(name)).map(|name| format!("{name} is not described")));
    }
    found
}

fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => description().pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("dangling {name}")),
        None => schema,
    }
}

/// The fields that a schema knows for this value; `None` if any will do.
fn fields(schema: &Value, value: &Value) -> Option<Vec<String>> {
    let schema = resolve(schema);
    if schema.get("additionalProperties").is_some() {
        return None;
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        return parts.iter().map(|part| fields(part, value)).collect::<Option<Vec<_>>>().map(|all| all.concat());
    }
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        return variants.iter().find(|variant| faults(variant, value).is_empty()).and_then(|fit| fields(fit, value));
    }
    schema.get("properties").and_then(Value::as_object).map(|known| known.keys().cloned().collect())
}

fn walk(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let schema = resolve(schema);
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        walk(part, value, at, found);
    }
    if let Some(variants) = schema.get("oneOf").and_then(Value::as_array)
        && !variants.iter().any(|variant| faults(variant, value).is_empty())
    {
        found.push(format!("{at}: fits none of the variants: {value}"));
    }
    if let Some(kind) = schema.get("type")
        && !kind_fits(kind, value)
    {
        found.push(format!("{at}: is not {kind}: {value}"));
        return;
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        found.push(format!("{at}: is none of {words:?}: {value}"));
    }
    if let Some(object) = value.as_object() {
        walk_object(schema, object, at, found);
    }
    if let (Some(schema), Some(items)) = (schema.get("items"), value.as_array()) {
        for (index, item) in items.iter().enumerate() {
            found.extend(faults(schema, item).into_iter().map(|fault| format!("{at}[{index}]{fault}")));
        }
    }
}

fn walk_object(schema: &Value, object: &Map<String, Value>, at: &str, found: &mut Vec<String>) {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            found.push(format!("{at}.{name} is missing"));
        }
    }
    let known = schema.get("properties").and_then(Value::as_object);
    for (name, value) in object {
        let schema = known.and_then(|known| known.get(name)).or_else(|| schema.get("additionalProperties"));
        if let Some(schema) = schema.filter(|schema| schema.is_object()) {
            found.extend(faults(schema, value).into_iter().map(|fault| format!("{at}.{name}: {fault}")));
        }
    }
}

fn kind_fits(kind: &Value, value: &Value) -> bool {
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the description uses a type that is not known here: {other}"),
    };
    match kind {
        Value::String(kind) => fits(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(fits),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => panic!("a type is no text: {kind}"),
    }
}
