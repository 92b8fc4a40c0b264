//! The description of the API: complete, valid, served, and the committed copy is the served one.

use std::path::Path;

use serde_json::Value;

use crate::common::World;

fn generated() -> String {
    let mut text = crisis_relay::http::openapi().to_pretty_json().unwrap();
    text.push('\n');
    text
}

#[test]
fn the_committed_description_is_the_one_that_the_code_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, generated()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated(), "docs/openapi.json is out of date: run UPDATE_DOCS=1 cargo test --test stories");
}
