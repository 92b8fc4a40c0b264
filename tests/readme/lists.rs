//! What the documents list is what there is: links, paths, metrics, codes, alarms, dependencies, commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use crisis_relay::alarm::kind::Kind;
use crisis_relay::config::DEFAULT_TOML;
use crisis_relay::domain::contact::Channel;
use crisis_relay::domain::policy::Stage;
use crisis_relay::http::problem::ProblemCode;
use crisis_relay::metrics::Metrics;

use crate::document::read;

const DOCUMENTS: [&str; 16] = [
    "README.md",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "docs/api.md",
    "docs/deploy.md",
    "docs/firestore.md",
    "docs/ladder.md",
    "docs/moving.md",
    "docs/webhooks.md",
    "docs/operations.md",
    "docs/privacy.md",
    "docs/schedules.md",
    "docs/templates.md",
    "docs/troubleshooting.md",
    "migrations/firestore/README.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The parts of `text` between `open` and `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.trim().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for name in DOCUMENTS {
        let text = read(name);
        for target in between(&text, "](", ")").filter(|target| !target.starts_with("http")) {
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let path: PathBuf =
                if file.is_empty() { root().join(name) } else { root().join(name).parent().unwrap().join(file) };
            assert!(path.exists(), "{name} links to {target}");
            if !part.is_empty() {
                let linked = std::fs::read_to_string(&path).unwrap();
                let known =
                    linked.lines().any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == part);
                assert!(known, "{name} links to {target}");
            }
        }
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let roots = ["src/", "docs/", "config/", "tests/", "migrations/", "deploy/", ".ci/", "benches/", "fuzz/"];
    for name in DOCUMENTS {
        let text = read(name);
        for path in between(&text, "`", "`").filter(|path| roots.iter().any(|root| path.starts_with(root))) {
            // A file that an operator makes.
            let exists = path == "config/crisis-relay.toml" || root().join(path.trim_end_matches("/**")).exists();
            assert!(exists, "{name} names {path}");
        }
    }
}

#[test]
fn every_setting_that_is_named_exists() {
    let defaults: toml::Table = DEFAULT_TOML.parse().unwrap();
    let sections: Vec<&String> = defaults.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name).collect();
    for name in DOCUMENTS {
        let text = read(name);
        for key in between(&text, "`", "`") {
            let Some((section, rest)) = key.split_once('.') else { continue };
            let plain = rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.');
            if !plain || !sections.iter().any(|known| *known == section) || rest == "rs" {
                continue;
            }
            let found = rest.split('.').try_fold(&defaults[section], |value, part| value.get(part));
            assert!(found.is_some(), "{name} names the setting {key}");
        }
    }
}

#[test]
fn every_metric_is_explained() {
    let metrics = Metrics::new();
    metrics.event("escalated");
    metrics.attempt("accepted");
    metrics.receipt("sent");
    metrics.alarm("reopened");
    metrics.set_alarms_open("reopened", 1);
    metrics.held_back("ops");
    metrics.set_obstacles("gap", 1);
    metrics.heartbeat("taken");
    metrics.reached_provider((Channel::Sms, Stage::FIRST), 1.0);
    metrics.reached_phone((Channel::Sms, Stage::FIRST), 1.0);
    metrics.case_reached_provider((Channel::Sms, Stage::FIRST), 1.0);
    metrics.case_reached_phone((Channel::Sms, Stage::FIRST), 1.0);
    metrics.reached_human(None, Stage::FIRST, 1, 1.0);
    metrics.notices("slack", "told", 1);
    metrics.webhook("status", 0.001);
    metrics.webhook_refused("signature");
    metrics.set_open_alerts("escalating", 1);
    let text = read("docs/operations.md");
    let mut seen = 0;
    for family in metrics.encode().lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let name = family.split_whitespace().next().unwrap().trim_start_matches("crisis_relay_");
        assert!(text.contains(&format!("| `{name}")), "docs/operations.md does not explain {name}");
        seen += 1;
    }
    assert!(seen > 10, "the metrics were listed");
}

#[test]
fn every_alarm_is_explained() {
    let text = read("docs/operations.md");
    for kind in Kind::ALL {
        assert!(
            text.contains(&format!("| `{}` |", kind.name())),
            "docs/operations.md does not explain {}",
            kind.name()
        );
    }
}

#[test]
fn every_problem_code_is_explained() {
    let text = read("docs/api.md");
    for code in ProblemCode::ALL {
        let row = format!("| `{}` | {} |", code.word(), code.status().as_u16());
        assert!(text.contains(&row), "docs/api.md does not explain {row}");
    }
}

#[test]
fn every_path_of_the_api_is_walked() {
    let text = read("docs/api.md");
    for path in crisis_relay::http::openapi().paths.paths.keys() {
        assert!(text.contains(path.as_str()), "docs/api.md does not name {path}");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let text = read("ARCHITECTURE.md");
    for table in ["dependencies", "dev-dependencies"] {
        for name in manifest[table].as_table().unwrap().keys() {
            assert!(text.contains(&format!("`{name}`")), "ARCHITECTURE.md gives no reason for {name}");
        }
    }
}

#[test]
fn every_command_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_crisis-relay")).arg("--help").env_clear().output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split_once("Commands:").unwrap().1.split_once("Options:").unwrap().0;
    let text = read("docs/operations.md");
    let mut seen = 0;
    for line in commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let command = line.split_whitespace().next().unwrap();
        assert!(
            command == "help" || text.contains(&format!("`{command}")),
            "docs/operations.md does not name {command}"
        );
        seen += 1;
    }
    assert!(seen > 8, "the commands were listed:\n{help}");
}
