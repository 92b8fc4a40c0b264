//! What the binary's other commands say: about settings, about the audit, and where either is broken.

use rusqlite::Connection;

use super::canaries::{self, Exhibit, Surface};
use crate::relay::Setting;

/// Everything that a command writes, and its exit status.
struct Told {
    status: Option<i32>,
    stdout: Exhibit,
    stderr: Exhibit,
}

/// Runs a command whose standard output may show what that `surface` may.
fn run(setting: &Setting, what: &str, words: &[&str], surface: Surface) -> Told {
    let output = setting.command(words).output().unwrap();
    assert!(!output.stdout.is_empty() || !output.stderr.is_empty(), "{what} says nothing");
    Told {
        status: output.status.code(),
        stdout: Exhibit::new(surface, format!("{what}, standard output"), &output.stdout),
        stderr: Exhibit::new(Surface::Commands, format!("{what}, standard error"), &output.stderr),
    }
}

impl Told {
    fn expect(self, status: i32) -> [Exhibit; 2] {
        let Self { status: found, stdout, stderr } = self;
        assert_eq!(found, Some(status), "{stdout}\n{stderr}");
        [stdout, stderr]
    }
}

/// Settings that cannot be read, and what is said of those that can.
pub(crate) fn of_the_settings(setting: &Setting) -> Vec<Exhibit> {
    let mut exhibits = Vec::new();
    let check = run(setting, "check", &["check"], Surface::Commands);
    exhibits.extend([check.stdout, check.stderr]);
    for name in [
        "TWILIO_AUTH_TOKEN",
        "TWILIO_ACCOUNT_SID",
        "MASTER_KEY",
        "FORMER_MASTER_KEYS",
        "JWT_SECRET",
        "COUNSELLOR_WHATSAPP_TO",
        "COUNSELLOR_SMS_TO",
        "TWILIO_WHATSAPP_FROM",
        "API_KEY_SERVICE_SHA256",
    ] {
        // Too long, with a space and a line break: fit for none of them.
        let wrong = setting.clone().with(name, &canaries::in_full(canaries::wrong_setting()));
        for word in ["check", "serve"] {
            // A setting that has no rule to break is a start like any other, and is not waited for.
            if name != "TWILIO_AUTH_TOKEN" {
                let what = format!("{word} with a wrong {name}");
                exhibits.extend(run(&wrong, &what, &[word], Surface::Commands).expect(2));
            }
        }
    }
    exhibits.extend(of_broken_files(setting));
    exhibits
}

/// Files of settings that cannot be read, with a secret on the line that is at fault.
fn of_broken_files(setting: &Setting) -> Vec<Exhibit> {
    let folder = tempfile::tempdir().unwrap();
    let secret = canaries::wrong_setting();
    let mut exhibits = Vec::new();
    for (number, text) in [
        format!("[twilio]\nauth_token = \"{secret}"),
        format!("[twilio]\nauth_token = {secret}\n"),
        format!("[twilio]\nauth_token = [\"{secret}\"]\n"),
        format!("[twilio]\nauth_token = \"{secret}\"\nauth_token = \"{secret}\"\n"),
        format!("[auth]\njwt_secret = {{ is = \"{secret}\" }}\n"),
        format!("[keyring]\nmaster_key = \"{secret}\"\n"),
        format!("[counsellor]\nwhatsapp_to = \"{secret}\"\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("{number}.toml"));
        std::fs::write(&path, &text).unwrap();
        let of_file =
            setting.clone().without("TWILIO_AUTH_TOKEN").without("MASTER_KEY").without("COUNSELLOR_WHATSAPP_TO");
        let words = ["--config", path.to_str().unwrap(), "check"];
        exhibits.extend(run(&of_file, &format!("check of the file {text:?}"), &words, Surface::Commands).expect(2));
    }
    let dot_env = setting.folder().join(".env");
    std::fs::write(&dot_env, format!("TWILIO_AUTH_TOKEN={secret} and more\n")).unwrap();
    exhibits.extend(run(setting, "check of a broken .env", &["check"], Surface::Commands).expect(2));
    std::fs::remove_file(dot_env).unwrap();
    exhibits
}

/// The audit, verified and read; without the keys and with wrong ones; and damaged.
pub(crate) fn of_the_audit(setting: &Setting, reference: &str) -> Vec<Exhibit> {
    let report: &[&str] = &["audit", "report", reference];
    let verify: &[&str] = &["audit", "verify"];
    let mut exhibits = Vec::new();
    exhibits.extend(run(setting, "audit verify", verify, Surface::Commands).expect(0));
    exhibits.extend(run(setting, "audit report", report, Surface::Report).expect(0));
    let unknown = ["audit", "report", "00000000"];
    exhibits.extend(run(setting, "a report of no case", &unknown, Surface::Commands).expect(1));
    let wrong = data_encoding::BASE64.encode(&[7; 32]);
    for (what, key) in [("without keys", ""), ("with the wrong keys", &wrong)] {
        let without = setting.clone().with("MASTER_KEY", key);
        exhibits.extend(run(&without, &format!("audit report {what}"), report, Surface::SealedReport).expect(0));
    }
    let damaged = setting.clone().with("DATABASE_PATH", "damaged.db");
    let path = setting.folder().join("damaged.db");
    std::fs::copy(setting.database(), &path).unwrap();
    let connection = Connection::open(&path).unwrap();
    exhibits.extend(run(&damaged, "audit verify of a copy", verify, Surface::Commands).expect(0));
    let altered = connection.execute("DELETE FROM audit WHERE seq = 2", []).unwrap();
    assert!(altered > 0, "nothing was damaged");
    let told = run(&damaged, "audit verify of what is damaged", verify, Surface::Commands).expect(1);
    exhibits.extend(told.map(|exhibit| exhibit.on(Surface::Damage)));
    exhibits.extend(run(&damaged, "audit report of what is damaged", report, Surface::Report).expect(0));
    exhibits
}

/// The commands that read the settings and show something of their own.
pub(crate) fn of_the_tools(setting: &Setting) -> Vec<Exhibit> {
    [&["check"] as &[&str], &["template", "en"], &["openapi"]]
        .into_iter()
        .flat_map(|words| {
            let told = run(setting, &words.join(" "), words, Surface::Commands);
            [told.stdout, told.stderr]
        })
        .collect()
}
