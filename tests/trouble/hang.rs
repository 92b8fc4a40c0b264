//! A disk that hangs: reads, writes or both do not come back until it is told to go on.

use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crisis_relay::simulator::{Fault, FaultRule, SimulatorHandle};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::relay::{Answer, COUNSELLOR_KEY, Relay, SERVICE, Setting, timer, twilio, until};

/// The service's time-out for requests in here, and what an answer by that time-out may take on a busy machine.
const REQUEST_TIMEOUT: &str = "3s";
const ANSWERED_WITHIN: Duration = Duration::from_secs(12);
/// What needs no disk is answered in a moment, however many others wait for it.
const AT_ONCE: Duration = Duration::from_secs(3);
/// The grace of an end, and what it may take beyond it.
const GRACE: &str = "2s";
const ENDED_WITHIN: Duration = Duration::from_secs(15);

/// The disk of a service that was started with it.
struct Disk {
    reads: PathBuf,
    writes: PathBuf,
    runtime: PathBuf,
}

impl Disk {
    /// A service on a disk that can be made to hang.
    fn under(setting: Setting) -> (Setting, Self) {
        let folder = setting.folder().to_owned();
        let (source, library) = (folder.join("hang.c"), folder.join("hang.so"));
        std::fs::write(&source, include_str!("hang.c")).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
        let built = built.unwrap_or_else(|error| panic!("cc is needed, as it is to build the service: {error}"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let disk = Self {
            reads: folder.join("reads-hang"),
            writes: folder.join("writes-hang"),
            runtime: folder.join("runtime-hangs"),
        };
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        let setting = setting
            .with("LD_PRELOAD", &text(&library))
            .with("HANG_READS", &text(&disk.reads))
            .with("HANG_WRITES", &text(&disk.writes))
            .with("HANG_RUNTIME", &text(&disk.runtime))
            .with("CRISIS_RELAY__HTTP__REQUEST_TIMEOUT", REQUEST_TIMEOUT)
            .with("CRISIS_RELAY__HTTP__HEADER_TIMEOUT", REQUEST_TIMEOUT)
            .with("CRISIS_RELAY__HTTP__SHUTDOWN_GRACE", GRACE)
            .with("CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT", "2s")
            .with("CRISIS_RELAY__TWILIO__CONNECT_TIMEOUT", "1s");
        (setting, disk)
    }

    fn hangs(&self) {
        self.writes_hang();
        File::create(&self.reads).unwrap();
    }

    fn writes_hang(&self) {
        File::create(&self.writes).unwrap();
    }

    /// Worse than any disk: whichever thread of the runtime waits for something to do hangs.
    fn runtime_hangs(&self) {
        File::create(&self.runtime).unwrap();
    }

    fn goes_on(&self) {
        for flag in [&self.reads, &self.writes, &self.runtime] {
            // Not all need be there.
            let _ = std::fs::remove_file(flag);
        }
    }
}

/// What hangs is let go, before its folder is gone.
impl Drop for Disk {
    fn drop(&mut self) {
        self.goes_on();
    }
}

fn student(number: usize) -> String {
    format!("student-{number}")
}

/// Cases that were told, and two more whose first call was put off for some seconds: they are to be sent later.
async fn cases(relay: &Relay, sim: &SimulatorHandle) -> Vec<String> {
    let mut references = Vec::new();
    for number in 0..8 {
        references.push(relay.escalated(&student(number)).await);
    }
    relay.all_told(sim, &references).await;
    sim.push_fault(FaultRule::next(2, Fault::TooManyRequests { retry_after_s: Some(3) }));
    let calls = sim.stats().create_calls;
    for number in 8..10 {
        references.push(relay.escalated(&student(number)).await);
    }
    until("both were put off", async || sim.stats().create_calls >= calls + 2).await;
    references
}

/// Asks for everything at once: events, cases by those who look, consent both ways.
async fn everything(relay: &Relay, references: &[String]) -> Vec<(&'static str, Answer, Duration)> {
    let mut asked = Vec::new();
    for (number, reference) in references.iter().enumerate() {
        let student = student(number);
        let preferences = format!("/api/v1/messaging/preferences/{student}");
        let event = json!({ "user_id": student, "crisis_score": 0.97, "source": "chat" });
        let post = relay.request(Method::POST, "/api/v1/crisis/events", SERVICE).json(&event);
        asked.push(("event", post.header("Idempotency-Key", format!("while-it-hangs-{number}"))));
        let case = format!("/api/v1/crisis/alerts/{reference}");
        asked.push(("case", relay.request(Method::GET, &case, COUNSELLOR_KEY)));
        asked.push(("consent", relay.request(Method::GET, &preferences, SERVICE)));
        let body = json!({ "whatsapp": true, "source": "trouble" });
        asked.push(("consent given", relay.request(Method::PUT, &preferences, SERVICE).json(&body)));
    }
    let answers = asked.into_iter().map(|(what, request)| async move {
        let since = timer();
        (what, relay.send(request).await, since())
    });
    join_all(answers).await
}

/// It says that it lives, at once, for as long as `work` takes.
async fn lives_during<T>(relay: &Relay, work: impl Future<Output = T>) -> T {
    let asked = Cell::new(0_u32);
    let asking = async {
        loop {
            let since = timer();
            relay.get("/livez", "").await.expect(200);
            assert!(since() < AT_ONCE, "/livez took {:?}, asked {} times: {}", since(), asked.get(), relay.log());
            asked.set(asked.get() + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = asking => unreachable!("it asks without end"),
    };
    assert!(asked.get() > 0, "it was never asked whether it lives");
    done
}

/// Answered in time, all of it; what has to be written, or cannot be read, is refused for the moment.
fn all_answered(answers: &[(&'static str, Answer, Duration)], reads_hang: bool) {
    for (what, answer, took) in answers {
        assert!(*took < ANSWERED_WITHIN, "{what} took {took:?}: {answer:?}");
        if ["event", "consent given"].contains(what) || answer.status != 200 {
            answer.come_back();
        }
    }
    // Who looks at a case is recorded, which writes; who looks at consent is not.
    let refused = answers.iter().any(|(asked, answer, _)| *asked == "consent" && answer.status == 503);
    assert_eq!(refused, reads_hang, "reads hang if they are told to: {answers:#?}");
}

async fn is_got_over(hang: impl Fn(&Disk), reads_hang: bool) {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (setting, disk) = Disk::under(Setting::new(&simulator.url()));
    let mut relay = setting.start(&sim).await;
    let references = cases(&relay, &sim).await;

    hang(&disk);
    // Twice: the first reads that hang are not known to hang before.
    for _ in 0..2 {
        all_answered(&lives_during(&relay, everything(&relay, &references)).await, reads_hang);
    }
    let (ready, checks) = lives_during(&relay, relay.readiness()).await;
    assert!(!ready && checks["store"] == "failing", "{checks}");
    until("the log names it", async || relay.logged("does not come back from a probe") > 0).await;

    disk.goes_on();
    relay.until_ready().await;
    for (what, answer, _) in everything(&relay, &references).await {
        let expected = if what == "event" { 202 } else { 200 };
        assert_eq!(answer.status, expected, "{what} after it: {answer:?}");
    }
    let told = relay.all_told(&sim, &references).await;
    // What was told before is not told again; what was to be called while it hung may have been under way.
    assert!(told[..8].iter().all(|count| *count == 1) && told[8..].iter().all(|count| *count <= 2), "{told:?}");
    relay.audit_verifies();
    relay.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_holds_up_nothing_else_and_all_goes_on_when_it_comes_back() {
    is_got_over(Disk::hangs, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_whose_writes_hang_is_still_read_and_all_goes_on_when_it_comes_back() {
    is_got_over(Disk::writes_hang, false).await;
}

/// Asks it to end while something hangs. Gives the exit status.
async fn ended_by_signal(relay: &mut Relay) -> Option<i32> {
    let since = timer();
    relay.signal("-TERM");
    until("it ends", async || relay.has_ended()).await;
    assert!(since() < ENDED_WITHIN, "the end took {:?}: {}", since(), relay.log());
    relay.ended().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_disk_hangs_ends_when_it_is_asked_to_and_the_next_one_sends_what_was_accepted() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (setting, disk) = Disk::under(Setting::new(&simulator.url()));
    let mut relay = setting.start(&sim).await;
    let references = cases(&relay, &sim).await;
    disk.hangs();
    all_answered(&everything(&relay, &references).await, true);
    let status = ended_by_signal(&mut relay).await;
    assert!(relay.logged("stopping: finishing what is in hand") == 1, "{}", relay.log());
    assert!(relay.logged("stopped with work in hand, the grace being over") == 1, "{status:?}: {}", relay.log());

    disk.goes_on();
    let mut relay = relay.setting.clone().start(&sim).await;
    let told = relay.all_told(&sim, &references).await;
    assert!(told[..8].iter().all(|count| *count == 1) && told[8..].iter().all(|count| *count <= 2), "{told:?}");
    relay.audit_verifies();
    relay.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_every_thread_is_caught_is_cut_off_after_the_grace_and_says_so() {
    let simulator = twilio().await;
    let sim = simulator.handle();
    let (setting, disk) = Disk::under(Setting::new(&simulator.url()));
    let mut relay = setting.start(&sim).await;
    let reference = relay.escalated("student-1").await;
    relay.all_told(&sim, std::slice::from_ref(&reference)).await;
    disk.runtime_hangs();
    let alive = relay.request(Method::GET, "/livez", "").timeout(Duration::from_millis(500));
    until("no thread answers any more", async || relay.try_send(alive.try_clone().unwrap()).await.is_err()).await;
    assert_eq!(ended_by_signal(&mut relay).await, Some(1), "{}", relay.log());
    assert!(relay.logged("the end does not come by itself") == 1, "{}", relay.log());

    disk.goes_on();
    let mut relay = relay.setting.clone().start(&sim).await;
    assert_eq!(relay.all_told(&sim, &[reference]).await, [1]);
    relay.audit_verifies();
    relay.stop();
}
