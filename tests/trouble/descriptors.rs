//! File descriptors that run out, and connections that are wasted.

use std::net::SocketAddr;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule};

use super::flood::{Flood, descriptors_allowed};
use super::middleman::Middleman;
use super::relay::{Relay, Setting, timer, twilio, until};

/// The service with so many descriptors.
const LIMITED: [&str; 4] = ["sh", "-c", "ulimit -n \"$FILES\" && exec \"$@\"", "sh"];

fn address(relay: &Relay) -> SocketAddr {
    relay.base.socket_addrs(|| None).unwrap()[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn wasted_connections_do_not_keep_accepted_events_from_twilio() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    // Every call to Twilio needs a connection of its own, and a descriptor for it.
    let wire = Middleman::before(simulator.address()).await;
    let setting = Setting::new(&wire.url()).through(&LIMITED).with("FILES", "64");
    let mut relay = setting.start(&sim).await;
    // What waits for its next try is to be sent while nobody lets go of a connection.
    let busy = Fault::TooManyRequests { retry_after_s: Some(2) };
    sim.push_fault(FaultRule::next(3, busy));
    let mut references = Vec::new();
    for number in 0..3 {
        references.push(relay.escalated(&format!("student-{number}")).await);
    }
    until("all three were put off", async || sim.stats().create_calls == 3).await;

    let flood = Flood::begin(address(&relay), 200);
    let before = relay.computed();
    let told = relay.all_told(&sim, &references).await;
    assert_eq!(told, [1, 1, 1], "each once");
    until("connections are cut off", async || flood.cut_off() > 60).await;
    assert!(relay.logged("the limit of open files leaves room for fewer connections") == 1, "{}", relay.log());
    for words in ["every connection is taken", "no connection can be accepted"] {
        let warned = relay.logged(words);
        assert!(warned <= 10, "one shortage, {warned} times: {words}");
    }
    let computed = relay.computed() - before;
    assert!(computed < Duration::from_secs(20), "it spins: {computed:?}");

    flood.end().await;
    relay.until_ready().await;
    references.push(relay.escalated("student-after").await);
    relay.all_told(&sim, &references).await;
    relay.audit_verifies();
    relay.stop();
}

/// Connections that one honest request is to get past.
const SLOW_CLIENTS: usize = 10_000;
/// How long an honest client may have to wait for a place, and once more, for it calls twice: places come free when slow
/// heads have had their five seconds and slow bodies their ten.
const HONEST_WAITS_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_slow_clients_do_not_keep_an_honest_one_waiting() {
    // Some are left for the tests beside this one.
    let count = SLOW_CLIENTS.min(descriptors_allowed().saturating_sub(600));
    assert!(count >= 400, "too few descriptors for a flood: raise the limit (ulimit -n)");
    println!("{count} slow clients");
    let simulator = twilio().await;
    let sim = simulator.handle();
    // Fewer places than clients, however few this machine allows.
    let places = (count * 2 / 5).min(4_096).to_string();
    let setting = Setting::new(&simulator.url()).with("CRISIS_RELAY__HTTP__MAX_CONNECTIONS", &places);
    let mut relay = setting.start(&sim).await;
    let mut references = vec![relay.escalated("student-first").await];
    let rested = relay.resident_kib();

    let flood = Flood::begin(address(&relay), count);
    until("every place is taken", async || relay.logged("every connection is taken") > 0).await;
    until("most are connected", async || flood.connected() * 10 >= count * 7).await;
    for number in 0..5 {
        let student = format!("student-{number}");
        let since = timer();
        let honest = tokio::time::timeout(HONEST_WAITS_MAX, relay.escalated(&student)).await;
        println!("an honest client was answered after {:?}", since());
        references.push(honest.expect("an honest client is answered in time"));
    }
    let grown = relay.resident_kib().saturating_sub(rested);
    println!("{grown} KiB more, {} descriptors, {} cut off", relay.descriptors(), flood.cut_off());
    assert!(grown < 64 * count as u64, "{grown} KiB for {count} clients");
    relay.all_told(&sim, &references).await;
    until("slow ones are cut off", async || flood.cut_off() >= count / 10).await;

    flood.end().await;
    relay.until_ready().await;
    relay.audit_verifies();
    relay.stop();
}
