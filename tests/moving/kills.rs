//! A copy is killed in its midst; the service starts on neither half; the same call finishes it, and all is there.

use std::path::PathBuf;

use crate::emulator::{emulator, project};
use crate::gate::Gate;
use crate::hold::{Moment, is_held};
use crate::installation::{
    Copying, Installation, audit_verifies, by_emulator, copies, counts, everything, is_marked, is_not_served, on_file,
    on_firestore, place,
};
use crate::relay::Setting;

const UNFINISHED: &str = "holds a copy that was not finished";
const MOVED: &str = "was moved to";

/// The moments' seed; what fails says it.
fn seed() -> u64 {
    let Ok(text) = std::env::var("MOVING_SEED") else { return 1 };
    text.parse().unwrap_or_else(|_| panic!("MOVING_SEED must be a whole number, not {text:?}"))
}

/// Kills a copy into a file at each of these moments, and finishes it. `from` makes the source of the moment with this
/// number, and says which file bears the mark of a source that was given up, if a file does.
async fn into_files(
    here: &Installation,
    setting: &Setting,
    moments: &[Moment],
    from: impl Fn(usize) -> (String, Option<PathBuf>),
) {
    let expected = everything(&here.setting.database());
    let all = counts(&here.setting.database());
    for (number, moment) in moments.iter().copied().enumerate() {
        let when = format!("{moment:?} (MOVING_SEED={})", seed());
        let (source, source_file) = from(number);
        let file = here.empty(&format!("moved-{number}.db"));
        let held = match (&source_file, moment) {
            (Some(source_file), Moment::BeforeTheSourceIsMarked) => source_file.clone(),
            _ => file.clone(),
        };
        moment.hold(&held);
        let copying = Copying::begin(setting, &source, &place(&file));
        copying.killed_once(&when, || is_held(moment, &held, &file, &all)).await;

        Moment::let_go(&held);
        let holds = counts(&file);
        assert!(moment.is_reached(&holds, &all), "{when}: it holds {holds:?} of {all:?}");
        let served = on_file(&here.setting, &file);
        if moment == Moment::BeforeTheMark {
            assert!(!is_marked(&file, "copying"), "{when}: nothing was begun");
        } else {
            is_not_served(&served, &when, UNFINISHED);
        }
        if let Some(source_file) = &source_file {
            let is_given_up = moment == Moment::BeforeTheMarkIsTakenAway;
            assert_eq!(is_marked(source_file, "moved_to"), is_given_up, "{when}: the source's mark");
            if is_given_up {
                is_not_served(&on_file(&here.setting, source_file), &when, MOVED);
            }
        }
        copies(setting, &when, &source, &place(&file), &[]);
        assert!(!is_marked(&file, "copying"), "{when}: finished, and still marked");
        assert!(everything(&file) == expected, "{when}: what was finished is not what was begun");
        audit_verifies(&served, &when);
        if let Some(source_file) = &source_file {
            is_not_served(&on_file(&here.setting, source_file), &when, MOVED);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_file_to_file_killed_anywhere_the_same_call_finishes_it() {
    let here = Installation::with(110).await;
    let all = counts(&here.setting.database());
    let mut moments = Moment::drawn(seed(), 5, &all);
    moments.extend([
        Moment::BeforeTheMark,
        Moment::Row { table: 0, row: 1 },
        Moment::BeforeTheSourceIsMarked,
        Moment::BeforeTheMarkIsTakenAway,
    ]);
    let source = |number| {
        let file = here.source(&format!("source-{number}.db"));
        (place(&file), Some(file))
    };
    into_files(&here, &here.setting, &moments, source).await;
}

/// Students of an installation on the emulator, which takes the longer for a chain the more there are.
const FEW: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_firestore_to_a_file_killed_anywhere_the_same_call_finishes_it() {
    let Some(host) = emulator() else { return };
    let here = Installation::with(FEW).await;
    let setting = by_emulator(&here.setting, host);
    let projects = [project(), project()].map(|project| format!("firestore:{project}"));
    for project in &projects {
        copies(&setting, "beforehand", &place(&here.setting.database()), project, &["--keep-source"]);
    }
    let mut moments = Moment::drawn(seed(), 1, &counts(&here.setting.database()));
    moments.push(Moment::BeforeTheMarkIsTakenAway);
    into_files(&here, &setting, &moments, |number| (projects[number].clone(), None)).await;
    for project in &projects {
        let project = project.strip_prefix("firestore:").unwrap();
        is_not_served(&on_firestore(&here.setting, host, project), "afterwards", MOVED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_file_to_firestore_killed_anywhere_the_same_call_finishes_it() {
    let Some(host) = emulator() else { return };
    let here = Installation::with(FEW).await;
    let expected = everything(&here.setting.database());
    let setting = by_emulator(&here.setting, host);
    // Once without a kill, to see how much there is to be passed.
    let open = Gate::before(host, u64::MAX).await;
    let by_gate = by_emulator(&here.setting, &open.host());
    copies(
        &by_gate,
        "beforehand",
        &place(&here.setting.database()),
        &format!("firestore:{}", project()),
        &["--keep-source"],
    );
    let bytes = open.passed();

    for (number, percent) in percents().into_iter().enumerate() {
        let when = format!("after {percent} % of {bytes} bytes (MOVING_SEED={})", seed());
        let (source, project) = (here.source(&format!("source-{number}.db")), project());
        let to = format!("firestore:{project}");
        let gate = Gate::before(host, bytes * percent / 100).await;
        let copying = Copying::begin(&by_emulator(&here.setting, &gate.host()), &place(&source), &to);
        copying.killed_once(&when, || gate.is_shut()).await;

        let served = on_firestore(&here.setting, host, &project);
        is_not_served(&served, &when, UNFINISHED);
        assert!(!is_marked(&source, "moved_to"), "{when}: the source is given up");
        copies(&setting, &when, &place(&source), &to, &[]);
        audit_verifies(&served, &when);
        is_not_served(&on_file(&here.setting, &source), &when, MOVED);
        assert!(
            brought_back(&here, &setting, &to, &when) == expected,
            "{when}: what was finished is not what was begun"
        );
    }
}

/// Where a copy to Firestore is cut: once in each third of what there is to write, from the first pages to the proof.
fn percents() -> Vec<u64> {
    let drawn = |third: u64| seed().wrapping_mul(7).wrapping_add(third * 11) % 28 + third * 29 + 10;
    (0..3).map(drawn).collect()
}

/// All that is on Firestore, as a file holds it.
fn brought_back(here: &Installation, setting: &Setting, from: &str, when: &str) -> Vec<String> {
    let file = here.file(&format!("back-{}.db", from.replace([':', '/'], "-")));
    copies(setting, when, from, &place(&file), &["--keep-source"]);
    everything(&file)
}
