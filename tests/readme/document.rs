//! Documents: their marked blocks, and whether an output is what they show.
//!
//! A block marked ```` ```sh demo ```` is run. If the next block is marked `json` or `text` and only white space stands
//! between them, it is what must be printed: `…` in it stands for anything, and white space does not count, so that a
//! document may break an answer into readable lines.

use std::path::Path;

/// A block to be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where its first line stands, from 1.
    pub(crate) line: usize,
    /// What is run.
    pub(crate) script: String,
    /// What it must print, if the document says so.
    pub(crate) answer: Option<String>,
}

/// A document of the project.
pub(crate) fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a document that are marked to be run.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut may_answer = false;
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            may_answer &= line.trim().is_empty();
            continue;
        };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        match info {
            "sh demo" => found.push(Block { line: at + 2, script: body, answer: None }),
            "json" | "text" if may_answer => {
                if let Some(asked) = found.last_mut() {
                    asked.answer = Some(body);
                }
            }
            _ => {}
        }
        may_answer = info == "sh demo";
    }
    found
}

/// The first block with this mark.
pub(crate) fn fenced(text: &str, info: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("\n```{info}\n"))?;
    Some(rest.split_once("\n```\n")?.0.to_owned())
}

/// Where `printed` leaves what `shown` says; `None` if it says the same.
pub(crate) fn differs(shown: &str, printed: &str) -> Option<String> {
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let (shown, printed) = (bare(shown), bare(printed));
    let parts: Vec<&str> = shown.split('…').collect();
    let mut rest = printed.as_str();
    for (no, part) in parts.iter().enumerate() {
        let (first, last) = (no == 0, no + 1 == parts.len());
        let found = match (first, last) {
            (true, true) => (rest == *part).then_some(0),
            (true, false) => rest.starts_with(part).then_some(0),
            (false, true) => rest.ends_with(part).then(|| rest.len() - part.len()),
            (false, false) => rest.find(part),
        };
        match found {
            Some(at) => rest = &rest[at + part.len()..],
            None => return Some(format!("{part}\nis not in\n{rest}")),
        }
    }
    None
}

#[test]
fn an_answer_that_is_not_as_shown_is_found() {
    assert_eq!(differs(r#"{"a": "…"} 202"#, r#"{"a":"x y"} 202"#), None);
    assert_eq!(differs("… 200", "{} 200"), None);
    for (shown, printed) in [
        (r#"{"a": "…"} 202"#, r#"{"a":"x"} 200"#),
        (r#"{"a": 1}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a": 1, …}"#, r#"{"b":1}"#),
        ("", "something"),
        ("something…", ""),
    ] {
        assert!(differs(shown, printed).is_some(), "{shown} is not {printed}");
    }
}

#[test]
fn only_marked_blocks_are_run_and_only_the_next_block_answers() {
    let text = "```sh\nno\n```\n\n```sh demo\nyes\n```\n\n```json\n{}\n```\n\n```json\nelse\n```\n```sh demo\nlast\n```\nwords\n```text\nno\n```\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].script.as_str(), found[0].answer.as_deref()), (6, "yes", Some("{}")));
    assert_eq!((found[1].script.as_str(), found[1].answer.as_deref()), ("last", None));
}
