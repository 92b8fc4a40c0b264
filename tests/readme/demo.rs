//! `crisis-relay demo` on free ports, in a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tempfile::TempDir;

use crate::document::Block;

const BINARY: &str = env!("CARGO_BIN_EXE_crisis-relay");
/// The last thing that happens to the demo's own message; from then on nothing moves by itself.
const SETTLED: &str = "receipt: read";
/// Far longer than a demo takes to settle: about 3 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// What stands between two blocks' outputs.
const MARK: &str = "=== end of block ===";

/// A running demo; it ends when it is dropped.
pub(crate) struct Demo {
    process: Child,
    folder: TempDir,
    printed: Vec<String>,
    /// Read on, so that the demo never waits for a full pipe.
    _rest: Receiver<String>,
}

impl Demo {
    /// Starts one, and waits until its own message has been read.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(BINARY)
            .args(["demo", "--port", "0", "--simulator-port", "0"])
            .current_dir(&folder)
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut printed: Vec<String> = Vec::new();
        while printed.last().is_none_or(|line| !line.ends_with(SETTLED)) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => printed.push(line),
                Err(_) => {
                    let _ = process.kill();
                    panic!("the demo did not get as far as {SETTLED:?}:\n{}", printed.join("\n"));
                }
            }
        }
        Self { process, folder, printed, _rest: lines }
    }

    /// What it has printed, with the ports that the documents use.
    pub(crate) fn greeting(&self) -> String {
        let (api, simulator) = self.addresses();
        self.printed.join("\n").replace(&api, "127.0.0.1:8080").replace(&simulator, "127.0.0.1:8090")
    }

    /// Host and port of the API and of the simulator.
    fn addresses(&self) -> (String, String) {
        let address = |name: &str| {
            let line = self.printed.iter().find(|line| line.trim_start().starts_with(name)).expect(name);
            let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect(name);
            url.trim_start_matches("http://").to_owned()
        };
        (address("API "), address("phones"))
    }

    /// Runs the blocks in one shell, one after the other; says what each of them printed.
    pub(crate) fn run(&self, blocks: &[Block]) -> Vec<String> {
        let (api, simulator) = self.addresses();
        let mut script = String::new();
        for block in blocks {
            script.push_str(&block.script);
            script.push_str(&format!("\nprintf '%s\\n' '{MARK}'\n"));
        }
        let script = script
            .replace("127.0.0.1:8080", &api)
            .replace("127.0.0.1:8090", &simulator)
            .replace("cargo run --release -- ", &format!("'{BINARY}' "));
        // Nothing of this machine's settings: a proxy or a Twilio account would make it another walk.
        let output = Command::new("bash")
            .args(["-u", "-c", &script])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .expect("bash is needed");
        let printed = String::from_utf8(output.stdout).unwrap();
        let parts: Vec<String> = printed.split(&format!("{MARK}\n")).map(str::to_owned).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(parts.len(), blocks.len() + 1, "the shell stopped early:\n{said}\n{printed}");
        assert_eq!(said, "", "the blocks print no errors");
        parts
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
