//! The documents are held to the service: their curl lines are run as printed, and what they list is what there is.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on shall say where")]

mod demo;
mod document;
mod lists;

use crate::demo::Demo;
use crate::document::{Block, blocks, differs};

/// Runs a document's blocks against a demo of its own, and compares what they print with what the document says.
fn holds(name: &str) {
    let text = document::read(name);
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "{name}: no block is marked as ```sh demo");
    let demo = Demo::start();
    let printed = demo.run(&blocks);
    for (Block { line, script, answer }, printed) in blocks.iter().zip(&printed) {
        let Some(answer) = answer else { continue };
        if let Some(place) = differs(answer, printed) {
            panic!("{name}:{line}: it says\n{answer}\nbut\n{script}\nprints\n{printed}\nfrom here on:\n{place}");
        }
    }
}

#[test]
fn what_the_readme_shows_is_what_happens() {
    holds("README.md");
}

#[test]
fn what_the_api_walk_shows_is_what_happens() {
    holds("docs/api.md");
}

#[test]
fn what_the_webhooks_page_shows_is_what_happens() {
    holds("docs/webhooks.md");
}

#[test]
fn what_the_ladder_page_shows_is_what_happens() {
    holds("docs/ladder.md");
}

#[test]
fn what_the_schedules_page_shows_is_what_happens() {
    holds("docs/schedules.md");
}

#[test]
fn what_the_page_for_a_college_shows_is_what_happens() {
    holds("docs/college.md");
}

#[test]
fn what_the_privacy_page_shows_is_what_happens() {
    holds("docs/privacy.md");
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let readme = document::read("README.md");
    let shown = document::fenced(&readme, "text demo-output").expect("the README shows the demo's output");
    let demo = Demo::start();
    assert_eq!(differs(&shown, &demo.greeting()), None, "the demo prints:\n{}", demo.greeting());
}
