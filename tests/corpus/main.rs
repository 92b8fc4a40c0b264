//! Every committed input of the fuzzer, and the longest hostile shapes, through all that `fuzz/src` asserts of them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a target that cannot go on shall say where")]

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the fuzzer's programs use them from outside")]
mod targets;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use targets::{INPUT_MAX, TARGETS, Target};

/// Far longer than any input needs, and far shorter than what grows with the square of an input's length.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long this thread has worked. By the processor's count where the system tells it: on a busy machine a clock on the
/// wall says nothing about an input.
#[expect(clippy::disallowed_methods, reason = "how long the machine takes is what is asked here")]
fn worked(begun: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| Instant::now().duration_since(begun), Duration::from_nanos)
}

fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz/corpus", target].iter().collect()
}

/// Runs an input; a failure says which one it was.
#[expect(clippy::disallowed_methods, reason = "how long the machine takes is what is asked here")]
fn run(target: Target, input: &[u8], what: &str) {
    let begun = Instant::now();
    let before = worked(begun);
    // What is wrong has been told by then.
    assert!(std::panic::catch_unwind(|| target(input)).is_ok(), "the input that fails: {what}");
    let taken = worked(begun).saturating_sub(before);
    assert!(taken < PATIENCE, "{what} takes {taken:?}");
}

fn target(name: &str) -> Target {
    TARGETS.into_iter().find_map(|(known, target)| (known == name).then_some(target)).unwrap()
}

fn run_corpus(name: &str) {
    let target = target(name);
    let mut files: Vec<_> = std::fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{name} has hardly any inputs");
    for file in files {
        let input = std::fs::read(&file).unwrap();
        let shown = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&file).display().to_string();
        run(target, &input, &shown);
    }
}

fn run_long(name: &str) {
    let target = target(name);
    for (what, input) in long_inputs() {
        run(target, &input, &format!("{name}: {what}"));
    }
}

/// Beginnings that get an input past the first look, and a piece that is then repeated to the longest length there is.
const SHAPES: [(&str, &str); 24] = [
    ("", "{"),
    ("", "["),
    ("", "\""),
    ("", "\\"),
    ("", "\n"),
    ("", "# \n"),
    ("", "a=b\n"),
    ("", "a."),
    ("", "\u{e9} "),
    ("", "-"),
    ("", "1 "),
    ("{\"metadata\":", "{\"a\":"),
    ("{\"any\":{", "\"\":0,"),
    ("{\"text\":\"", "\\u0000"),
    ("{\"text\":1", "0"),
    ("{\"keys\":[", "{},"),
    ("status\nx\n", "a=b&"),
    ("incoming\nx\nBody=", "%F0%9F%98%80"),
    ("https://h/?", "a&"),
    ("200\n\n{\"messages\":[", "{},"),
    ("200\n\n", "["),
    ("x = '''", "}{"),
    ("---\n", "[a]\n"),
    ("GET /api/v1/crisis/alerts?", "a=%41&"),
];

/// One long input for each shape; and with keys that all differ, since a look-up among them must not walk.
fn long_inputs() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (beginning, piece) in SHAPES {
        let repeated = piece.repeat((INPUT_MAX - beginning.len()) / piece.len());
        all.push((
            format!("{beginning:?} and then {piece:?} again and again"),
            format!("{beginning}{repeated}").into(),
        ));
    }
    for (beginning, entry, end) in [
        ("{\"metadata\":{", "\"#\":0,", "\"\":0}}"),
        ("{\"any\":{", "\"#\":0,", "\"\":0}}"),
        ("{", "\"#\":0,", "\"\":0}"),
        ("https://h/\nx\n", "#=&", "z"),
        ("---\n", "k# = 1\n", ""),
        ("", "V#=1\n", "---\n"),
        ("", "[s#]\n", ""),
    ] {
        let mut text = beginning.to_owned();
        let room = INPUT_MAX - end.len() - 16;
        let mut number = 0;
        while text.len() < room {
            text.push_str(&entry.replace('#', &number.to_string()));
            number += 1;
        }
        all.push((format!("{beginning:?} and then {entry:?} with ever new numbers"), (text + end).into_bytes()));
    }
    all
}

#[test]
fn a_leak_in_anybodys_log_is_noticed() {
    targets::edge::keep_logs();
    for said in [targets::CANARY.to_uppercase(), data_encoding::BASE64.encode(targets::counsellor().as_bytes())] {
        tracing::trace!(target: "of_another_crate", said, "planted");
        assert!(targets::repeats(&targets::edge::logged()), "{said} is not noticed");
    }
    tracing::trace!(target: "of_another_crate", "innocent");
    let log = targets::edge::logged();
    assert!(log.contains("innocent") && !targets::repeats(&log), "{log}");
}

/// A folder of inputs is run, and the long ones with it. One test for each target: they run side by side.
macro_rules! targets {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn keeps_its_promises_for_every_committed_input() {
                super::run_corpus(stringify!($name));
            }

            #[test]
            fn is_not_slow_for_any_long_shape() {
                super::run_long(stringify!($name));
            }
        }
    )*

        #[test]
        fn every_target_is_run_and_has_a_program() {
            let names = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), names.as_slice());
            for name in names {
                let program = corpus(name).join("../../fuzz_targets").join(format!("{name}.rs"));
                let text = std::fs::read_to_string(program).unwrap();
                assert!(text.contains(&format!("crisis_relay_fuzz::{name}::run")), "{name} has no program of its own");
            }
        }
    };
}
targets! {
    config event json jwks master_keys request sealed signature stored template token twilio_answer webhook words
}
