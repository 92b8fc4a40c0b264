//! Nothing leaks: something recognisable is said in every field that a person can fill, through a life with faults, a
//! kill and an end; then everything that the service has said or kept is looked through, in every way of writing it.
//! Where what may be seen is a table: see [`canaries`].

mod canaries;
mod life;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use crisis_relay::clock::{SystemClock, SystemEntropy};
use crisis_relay::simulator::{Simulator, SimulatorConfig};

use self::canaries::{ALL, Exhibit, Forms, Surface};
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

/// Fails unless each canary is where it belongs, and nowhere else.
fn look_through(exhibits: &[Exhibit]) {
    let mut faults = Vec::new();
    for canary in ALL {
        let forms = Forms::of(canary.mark);
        for exhibit in exhibits.iter().filter(|exhibit| !canary.belongs.contains(&exhibit.surface)) {
            if let Some(around) = exhibit.holds(&forms) {
                faults.push(format!("{} leaks: {:?}, {}: …{around:?}…", canary.what, exhibit.surface, exhibit.name));
            }
        }
        for surface in canary.belongs {
            let mut there = exhibits.iter().filter(|exhibit| exhibit.surface == *surface);
            if !there.any(|exhibit| exhibit.holds(&forms).is_some()) {
                faults.push(format!("{} is not where it belongs: {surface:?}", canary.what));
            }
        }
    }
    let count = faults.len();
    faults.truncate(40);
    assert!(faults.is_empty(), "{count} faults:\n{}", faults.join("\n"));
}

async fn talkative_twilio() -> Simulator {
    let config = SimulatorConfig { auth_token: life::auth_token().into(), ..SimulatorConfig::default() };
    Simulator::start(config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap()
}

fn log_of(relay: &Relay, name: &str) -> Exhibit {
    Exhibit::new(Surface::Log, name, relay.log().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_person_said_or_owns_gets_out_through_faults_a_kill_and_an_end() {
    let simulator = talkative_twilio().await;
    let sim = simulator.handle();
    let wire = Middleman::before(simulator.address()).await;
    let setting = life::setting(&wire.url());
    let mut life = Life { sim: &sim, wire: &wire, exhibits: Vec::new() };
    life.settings(&setting);

    let mut relay = setting.clone().with("LOG_FORMAT", "json").start(&sim).await;
    let reference = life.beginning(&relay).await;
    life.consent(&relay).await;
    life.mistakes(&relay, &reference).await;
    life.locked_out(&relay).await;
    relay.kill();
    for told in
        ["DEBUG", "event accepted", "attempt made", "operator alarm", "the store failed a request", "was not found"]
    {
        assert!(relay.logged(told) > 0, "the log is not listened to, or not talkative: {told}");
    }
    life.exhibits.push(log_of(&relay, "log until the kill"));
    life.exhibits.extend(files(&setting, "after the kill"));

    wire.set(Wire::Open);
    let mut relay = setting.clone().with("LOG_FORMAT", "text").start(&sim).await;
    until("the next life goes on where the last one ended", async || relay.logged("attempt made") > 0).await;
    until("the phone has been told", async || !sim.messages_to(&life::counsellor()).is_empty()).await;
    life.replies().await;
    life.end(&relay, &reference).await;
    let half = life.hang_up_at_the_end(&relay).await;
    relay.signal("-TERM");
    tokio::time::sleep(life::AFTERMATH).await;
    drop(half);
    assert!(relay.ended().success(), "{}", relay.log());
    for told in ["attempt made", "alert resolved", "answered", "stopping"] {
        assert!(relay.logged(told) > 0, "the log is not listened to, or not talkative: {told}");
    }
    life.exhibits.push(log_of(&relay, "log until the end"));
    life.exhibits.extend(files(&setting, "after the end"));
    relay.audit_verifies();

    life.exhibits.extend(calls(&wire));
    look_through(&life.exhibits);
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
