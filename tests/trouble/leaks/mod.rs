//! Nothing leaks: something recognisable is said in every field that a person can fill, through a life with faults, a
//! kill and an end; then everything that the service has said or kept is looked through, in every way of writing it.
//! Where what may be seen is a table: see [`canaries`].

mod byways;
mod callbacks;
mod canaries;
mod commands;
mod life;
mod panics;
mod planted;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::simulator::{Simulator, SimulatorConfig};

use self::canaries::{Exhibit, Surface};
use self::life::Life;
use crate::middleman::{Middleman, Wire};
use crate::relay::{Relay, Setting, twilio, until};

/// What Twilio was sent, told apart by who may be named in it.
fn calls(wire: &Middleman) -> Vec<Exhibit> {
    let mut exhibits = Vec::new();
    for (number, call) in wire.sent().into_iter().enumerate() {
        let call = String::from_utf8(call).unwrap();
        let (head, body) = call.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let line = lines.next().unwrap();
        let (path, query) = line.split_once('?').unwrap_or((line, ""));
        let query = query.trim_end_matches(" HTTP/1.1");
        let mut rest = path.to_owned();
        for line in lines {
            let is_authorization = line.to_ascii_lowercase().starts_with("authorization:");
            let surface = if is_authorization { Surface::TwilioAuthorization } else { Surface::Twilio };
            exhibits.push(Exhibit::new(surface, format!("call {number}"), line.as_bytes()));
        }
        for (name, value) in form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body.as_bytes())) {
            match name.as_ref() {
                "To" => exhibits.push(Exhibit::new(Surface::TwilioTo, format!("call {number}"), value.as_bytes())),
                _ => rest.extend(["\n", &name, "=", &value]),
            }
        }
        exhibits.push(Exhibit::new(Surface::Twilio, format!("call {number}"), rest.as_bytes()));
    }
    exhibits
}

/// Every file in the service's folder, by its name.
fn files(setting: &Setting, when: &str) -> Vec<Exhibit> {
    let known = ["", "-wal", "-shm", ".lock"].map(|suffix| format!("crisis-relay.db{suffix}"));
    let mut exhibits = Vec::new();
    let mut folders = vec![setting.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(known.contains(&name), "{when}: a file that nobody asked for: {}", path.display());
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert!(name.ends_with(".lock") || mode == 0o600, "{name} has the mode {mode:o}");
            exhibits.push(Exhibit::new(Surface::Files, format!("{name} {when}"), &std::fs::read(&path).unwrap()));
        }
    }
    exhibits
}

async fn talkative_twilio() -> Simulator {
    let mut config =
        SimulatorConfig { auth_token: canaries::in_full(canaries::auth_token()).into(), ..SimulatorConfig::default() };
    // Else no text message would ever come to a phone.
    config.senders.push("+14155550143".to_owned());
    Simulator::start(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap()
}

/// All that it wrote in its life, which is over.
fn log_of(relay: &Relay, name: &str) -> [Exhibit; 2] {
    let (stdout, stderr) = relay.wrote();
    // Of lines that were lost nothing could be said.
    assert_eq!(relay.logged("\"lines_lost\""), 0, "the log is not whole {name}");
    [("standard output", stdout), ("standard error", stderr)]
        .map(|(stream, bytes)| Exhibit::new(Surface::Log, format!("{stream} {name}"), &bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_said_or_owns_gets_out_through_faults_a_kill_and_an_end() {
    let simulator = talkative_twilio().await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let setting = life::setting(&wire.url()).await;
    let mut life = Life { sim: &sim, wire: &wire, exhibits: Vec::new(), sent: Vec::new() };
    life.exhibits.extend(commands::of_the_settings(&setting));

    let mut relay = setting.clone().with("LOG_FORMAT", "json").start(&sim).await;
    let reference = life.beginning(&relay).await;
    life.consent(&relay).await;
    life.people(&relay).await;
    life.below_the_threshold(&relay).await;
    life.withdrawals(&relay).await;
    life.pages(&relay).await;
    life.mistakes(&relay, &reference).await;
    life.credentials(&relay).await;
    life.signed(&relay).await;
    life.locked_out(&relay).await;
    life.operations(&relay).await;
    relay.kill();
    for told in [
        "DEBUG",
        "event accepted",
        "attempt made",
        "operator alarm",
        "the operator cannot be told just now",
        "the store failed a request",
        "was not found",
    ] {
        assert!(relay.logged(told) > 0, "the log is not listened to, or not talkative: {told}");
    }
    life.exhibits.extend(log_of(&relay, "until the kill"));
    life.exhibits.extend(files(&setting, "after the kill"));

    wire.set(Wire::Open);
    let mut relay = setting.clone().with("LOG_FORMAT", "text").start(&sim).await;
    until("the next life goes on where the last one ended", async || relay.logged("attempt made") > 0).await;
    until("the phone has been told", async || !sim.messages_to(&canaries::in_full(canaries::counsellor())).is_empty())
        .await;
    life.replies(&relay).await;
    life.relatives(&relay, &reference).await;
    life.end(&relay, &reference).await;
    let half = life.hang_up_at_the_end(&relay).await;
    relay.signal("-TERM");
    tokio::time::sleep(life::AFTERMATH).await;
    drop(half);
    assert!(relay.ended().success(), "{}", relay.log());
    for told in ["attempt made", "alert resolved", "answered", "stopping"] {
        assert!(relay.logged(told) > 0, "the log is not listened to, or not talkative: {told}");
    }
    life.exhibits.extend(log_of(&relay, "until the end"));
    life.exhibits.extend(files(&setting, "after the end"));
    life.exhibits.extend(commands::of_the_audit(&setting, &reference));
    life.exhibits.extend(commands::of_the_tools(&setting));

    life.exhibits.extend(calls(&wire));
    life.leaks_nothing_and_keeps_all(&setting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_service_makes_for_itself_is_for_nobody_elses_eyes() {
    let simulator = twilio().await;
    let relay = Setting::new(&simulator.url()).start(&simulator.handle()).await;
    let key = relay.setting.folder().join("data/development-master.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&key).unwrap();
    assert!(text.trim().len() > 40 && !relay.log().contains(text.trim()));
}
