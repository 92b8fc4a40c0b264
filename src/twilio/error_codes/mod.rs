//! What Twilio's error codes ask for: the one table that answers and callbacks share.
//!
//! A code is only ever turned into an [`ErrorClass`] here. Twilio warns that codes may change per cause, so every code
//! that is not in the table has a safe default: at the create call [`ErrorClass::Config`] (somebody must look, and the
//! next channel goes meanwhile), with a 5xx [`ErrorClass::Ambiguous`], in a callback [`ErrorClass::Switch`].
//!
//! Source: Twilio's error dictionary (`https://www.twilio.com/docs/api/errors`), read in November 2026.

mod table;

use std::fmt::Write as _;

use crate::domain::provider::{ErrorClass, FaultMark, ProviderFault};

pub use table::TABLE;

/// When Twilio says a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In the answer to the create call.
    Sync,
    /// Later, in a status callback or a look-up.
    Async,
    /// Either.
    Both,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    /// Twilio's number.
    pub code: u32,
    /// When Twilio says it.
    pub phase: Phase,
    /// What it asks for.
    pub class: ErrorClass,
    /// The shortest and the longest pause in seconds; only a `Delay` has one.
    pub delay_s: Option<(u32, u32)>,
    /// What is done about it beside what the class asks for.
    pub mark: Option<FaultMark>,
    /// What it means, in a sentence for the college's administrator.
    pub meaning: &'static str,
    /// What to do about it, in a sentence for the same reader.
    pub remedy: &'static str,
}

/// The row of this code.
pub fn lookup(code: u32) -> Option<&'static ErrorCode> {
    TABLE.binary_search_by_key(&code, |row| row.code).ok().map(|at| &TABLE[at])
}

/// What a code says beside what its class asks for.
pub fn mark_of(code: u32) -> Option<FaultMark> {
    lookup(code)?.mark
}

/// What an HTTP answer other than 2xx to a create call asks for.
///
/// The status comes first where it says whether the call was executed: a 429 was not, and after a 5xx or a 408 nobody
/// knows. Otherwise the code decides, and an unknown one counts as [`ErrorClass::Config`].
pub fn classify_sync(http_status: u16, code: Option<u32>) -> ProviderFault {
    let row = code.and_then(lookup);
    let class = match (http_status, row) {
        (429, _) => ErrorClass::Retry,
        (408 | 500.., _) => ErrorClass::Ambiguous,
        (_, Some(row)) => row.class,
        (_, None) => ErrorClass::Config,
    };
    fault(code, class, row)
}

/// What a failure told by a callback or a look-up asks for; an unknown or missing code counts as
/// [`ErrorClass::Switch`].
pub fn classify_async(code: Option<u32>) -> ProviderFault {
    let row = code.and_then(lookup);
    fault(code, row.map_or(ErrorClass::Switch, |row| row.class), row)
}

fn fault(code: Option<u32>, class: ErrorClass, row: Option<&ErrorCode>) -> ProviderFault {
    let delay_s = row.filter(|row| row.class == class).and_then(|row| row.delay_s);
    ProviderFault { code, class, delay_s }
}

/// A code put into words for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Twilio's number.
    pub code: u32,
    /// What it asks for; `None` for a code that is not in the table.
    pub class: Option<ErrorClass>,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// What the service does by itself.
    pub service: &'static str,
    /// Twilio's own page about it.
    pub page: String,
}

/// Puts a code into words. Codes that are not in the table get an honest default.
pub fn explain(code: u32) -> Explanation {
    let page = format!("https://www.twilio.com/docs/api/errors/{code}");
    match lookup(code) {
        Some(row) => Explanation {
            code,
            class: Some(row.class),
            meaning: row.meaning,
            remedy: row.remedy,
            service: class_words(row.class).does,
            page,
        },
        None => Explanation {
            code,
            class: None,
            meaning: "Twilio names a code that this version does not know.",
            remedy: "Read Twilio's page about it; if it comes again, report it so that it can be added.",
            service: "The next channel goes at once. If the create call was refused, the operator is told as well.",
            page,
        },
    }
}

/// A class in words.
struct ClassWords {
    title: &'static str,
    does: &'static str,
}

/// Every class, in the order in which an administrator should read them.
const CLASSES: [ErrorClass; 7] = [
    ErrorClass::Config,
    ErrorClass::OptOut,
    ErrorClass::Template,
    ErrorClass::Switch,
    ErrorClass::Delay,
    ErrorClass::Retry,
    ErrorClass::Ambiguous,
];

const fn class_words(class: ErrorClass) -> ClassWords {
    match class {
        ErrorClass::Config => ClassWords {
            title: "Our own set-up is at fault",
            does: "The next channel goes at once and the operator is told, since every alert will meet the same fault.",
        },
        ErrorClass::OptOut => ClassWords {
            title: "The recipient has opted out",
            does: "The next channel goes at once and the operator is told, since this person cannot be reached here.",
        },
        ErrorClass::Template => ClassWords {
            title: "An approved template is needed",
            does: "The next channel goes at once and the operator is told, since outside the 24 hours every message \
                   of this kind will meet the same fault.",
        },
        ErrorClass::Switch => ClassWords {
            title: "This number or channel will not work",
            does: "The next channel goes at once, without waiting for the next step of the escalation.",
        },
        ErrorClass::Delay => ClassWords {
            title: "Refused for now",
            does: "One more try after a pause, then the next channel. The escalation goes on meanwhile.",
        },
        ErrorClass::Retry => ClassWords {
            title: "Too fast",
            does: "Nothing was sent. The message goes again soon, after the pause Twilio asks for or a random short one.",
        },
        ErrorClass::Ambiguous => ClassWords {
            title: "Nobody knows whether it was sent",
            does: "Said at once: the service looks the message up at Twilio, and if that does not settle it, it sends \
                   again, for a second message is better than none. Said later, of a message that Twilio had taken: the \
                   next channel goes at once.",
        },
    }
}

/// The whole table as Markdown, grouped by class: the generated part of `docs/troubleshooting.md`.
pub fn troubleshooting_markdown() -> String {
    let mut text = String::new();
    for class in CLASSES {
        let words = class_words(class);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "### {}\n\nWhat the service does by itself: {}\n", words.title, words.does);
        let _ = writeln!(text, "| Code | Said | What it means | What to do |\n|---|---|---|---|");
        for row in TABLE.iter().filter(|row| row.class == class) {
            let _ = writeln!(
                text,
                "| [{code}](https://www.twilio.com/docs/api/errors/{code}) | {said} | {meaning}{pause}{mark} | {remedy} |",
                code = row.code,
                said = match row.phase {
                    Phase::Sync => "at once",
                    Phase::Async => "later",
                    Phase::Both => "at once or later",
                },
                meaning = row.meaning,
                pause = pause_words(row.delay_s),
                mark = mark_words(row.mark),
                remedy = row.remedy,
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn pause_words(delay_s: Option<(u32, u32)>) -> String {
    delay_s.map_or_else(String::new, |(from, to)| format!(" (Pause: {} to {}.)", span_words(from), span_words(to)))
}

const fn mark_words(mark: Option<FaultMark>) -> &'static str {
    match mark {
        None => "",
        Some(FaultMark::BadNumber) => " (The number is named in the readiness, until a message arrives there.)",
        Some(FaultMark::Alarm) => " (The operator is told.)",
        Some(FaultMark::AlarmOnRepeats) => " (The operator is told where it comes again within a day.)",
    }
}

fn span_words(seconds: u32) -> String {
    match seconds {
        s if s >= 7200 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s >= 120 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const BEGIN: &str = "<!-- codes: begin (generated by the test `docs_troubleshooting_is_in_step`) -->\n";
    const END: &str = "<!-- codes: end -->";

    #[test]
    fn the_table_is_sorted_and_every_code_stands_once() {
        assert!(TABLE.is_sorted_by(|one, next| one.code < next.code));
        assert_eq!(TABLE.len(), 120);
        assert!(TABLE.iter().all(|row| lookup(row.code) == Some(row)));
        assert_eq!(lookup(1), None);
    }

    #[test]
    fn every_row_says_what_it_means_and_what_to_do() {
        for row in TABLE {
            for sentence in [row.meaning, row.remedy] {
                assert!(sentence.len() > 15 && sentence.ends_with('.'), "{}: {sentence}", row.code);
                assert!(!sentence.contains(['|', '\n']), "{} would break the document's table", row.code);
                assert!(!sentence.contains("  "), "{}: {sentence}", row.code);
            }
            assert_eq!(row.delay_s.is_some(), row.class == ErrorClass::Delay, "{}", row.code);
            assert!(row.delay_s.is_none_or(|(from, to)| 0 < from && from < to), "{}", row.code);
        }
    }

    #[test]
    fn the_codes_that_administrators_meet_most_are_explained() {
        for (code, class) in [
            (21211, ErrorClass::Switch),
            (21408, ErrorClass::Config),
            (21610, ErrorClass::OptOut),
            (63003, ErrorClass::Switch),
            (63016, ErrorClass::Template),
            (63018, ErrorClass::Delay),
            (20429, ErrorClass::Retry),
            (30410, ErrorClass::Ambiguous),
        ] {
            let said = explain(code);
            assert_eq!(said.class, Some(class), "{code}");
            assert!(said.page.ends_with(&format!("/{code}")));
        }
        assert_eq!(explain(99_999).class, None);
    }

    #[test]
    fn what_the_operator_must_hear_of_and_whose_number_is_bad_is_marked() {
        let marked = |mark| TABLE.iter().filter(|row| row.mark == Some(mark)).map(|row| row.code).collect::<Vec<_>>();
        assert_eq!(marked(FaultMark::Alarm), [14107, 21216, 63049]);
        assert_eq!(marked(FaultMark::AlarmOnRepeats), [30007]);
        assert_eq!(marked(FaultMark::BadNumber), [21211, 21214, 21217, 21614, 21635, 30005, 30006, 63003, 63024]);
        // What these classes ask for tells the operator by itself.
        let told =
            |row: &ErrorCode| matches!(row.class, ErrorClass::Config | ErrorClass::OptOut | ErrorClass::Template);
        assert!(TABLE.iter().all(|row| row.mark.is_none() || !told(row)));
        assert_eq!(mark_of(99_999), None);
    }

    #[test]
    fn the_http_status_decides_first_whether_a_call_was_executed() {
        assert_eq!(classify_sync(429, None).class, ErrorClass::Retry);
        assert_eq!(classify_sync(429, Some(21211)).class, ErrorClass::Retry);
        for status in [408, 500, 502, 503, 504, 599] {
            assert_eq!(classify_sync(status, Some(21211)).class, ErrorClass::Ambiguous, "{status}");
        }
        assert_eq!(classify_sync(400, Some(21211)).class, ErrorClass::Switch);
        assert_eq!(
            classify_sync(400, Some(21611)),
            ProviderFault { code: Some(21611), class: ErrorClass::Delay, delay_s: Some((300, 3600)) }
        );
        assert_eq!(classify_sync(503, Some(21611)).delay_s, None);
    }

    #[test]
    fn unknown_codes_have_safe_defaults() {
        let fault = |code, class| ProviderFault { code, class, delay_s: None };
        assert_eq!(classify_sync(400, Some(99_999)), fault(Some(99_999), ErrorClass::Config));
        assert_eq!(classify_sync(404, None), fault(None, ErrorClass::Config));
        assert_eq!(classify_sync(301, None), fault(None, ErrorClass::Config));
        assert_eq!(classify_async(Some(99_999)), fault(Some(99_999), ErrorClass::Switch));
        assert_eq!(classify_async(None), fault(None, ErrorClass::Switch));
    }

    proptest! {
        #[test]
        fn every_status_and_code_has_a_class(status in 300u16..700, code in prop::option::of(any::<u32>())) {
            let fault = classify_sync(status, code);
            prop_assert_eq!(fault.code, code);
            prop_assert_eq!(fault.class == ErrorClass::Ambiguous, status >= 500 || status == 408
                || code.and_then(lookup).is_some_and(|row| row.class == ErrorClass::Ambiguous) && status != 429);
            prop_assert_eq!(classify_async(code).code, code);
        }
    }

    /// To write the generated part anew: `UPDATE_DOCS=1 cargo test docs_troubleshooting`.
    #[test]
    fn docs_troubleshooting_is_in_step() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the begin marker");
        let (block, after) = rest.split_once(END).expect("the end marker");
        let wanted = format!("\n{}\n", troubleshooting_markdown());
        if block != wanted && std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
            return;
        }
        assert!(
            block == wanted,
            "docs/troubleshooting.md is out of step: UPDATE_DOCS=1 cargo test docs_troubleshooting"
        );
    }
}
