//! Log lines: JSON for machines, readable lines for a terminal; and what is said of a panic.
//!
//! Nothing here may stop the service. Lines go to a thread of their own through a bounded queue: where standard error is
//! full, closed, or read by nobody, lines are lost and counted, and alerts go on.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Config, LogFormat};

/// Lines that may wait for standard error; further ones are lost.
const LINES_WAITING_MAX: usize = 4_096;

/// How long lines are gathered before they are written together, and how many bytes at the most.
const GATHER_FOR: Duration = Duration::from_millis(2);
const LINES_AT_ONCE_BYTES: usize = 64 * 1024;

/// How long the end waits for the last lines, should nobody read them.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// How often, and after which pauses, the end asks for a place behind the last lines.
const LAST_PLACE_TRIES: u32 = 50;
const LAST_PLACE_PAUSE: Duration = Duration::from_millis(10);

/// Sends the process's log lines to standard error, as the configuration says, until the result is dropped.
pub fn init(config: &Config) -> LastLines {
    let json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    init_with(json, &config.log.filter)
}

/// The same, in the given form. A filter that cannot be read was refused with the configuration.
pub(super) fn init_with(json: bool, filter: &str) -> LastLines {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let (lines, last_lines) = start(io::stderr(), LINES_WAITING_MAX);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        // The library would report a line that cannot be written by a macro that panics where it cannot write either.
        .log_internal_errors(false);
    // A second call (in tests) leaves the first in force.
    let _ = if json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    tell_panics(|place| tracing::error!(place, "panic"));
    last_lines
}

/// Until there is a log: a line about a panic, without its words. Settings are read before there is one, and with them
/// every secret; other commands never have one, and open what is sealed.
pub(super) fn tell_early_panics() {
    tell_panics(|place| super::say_error(&format!("crisis-relay panicked at {place}")));
}

/// The place only: a panic's words may quote what somebody sent.
fn tell_panics(tell: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        tell(&panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string));
    }));
}

enum Order {
    Write(Vec<u8>),
    /// Answer when everything before this is written.
    Tell(SyncSender<()>),
}

/// Takes lines, and waits for nobody.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Write for Lines {
    /// One call is one line: the formatter hands each over whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Order::Write(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Dropped at the end, it waits a moment for the last lines.
#[derive(Clone)]
pub struct LastLines(SyncSender<Order>);

impl Drop for LastLines {
    fn drop(&mut self) {
        let (told, written) = sync_channel(1);
        let mut order = Order::Tell(told);
        for _ in 0..LAST_PLACE_TRIES {
            match self.0.try_send(order) {
                Ok(()) => {
                    let _ = written.recv_timeout(LAST_LINES_WITHIN);
                    return;
                }
                // Full: of the last burst, or because nobody reads.
                Err(TrySendError::Full(back)) => order = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            std::thread::sleep(LAST_PLACE_PAUSE);
        }
    }
}

/// Starts the thread that writes to `target`. Without a thread all lines are lost, and counted in vain.
fn start(target: impl Write + Send + 'static, waiting_max: usize) -> (Lines, LastLines) {
    let (queue, orders) = sync_channel(waiting_max);
    let lines = Lines { queue: queue.clone(), lost: Arc::default() };
    let lost = Arc::clone(&lines.lost);
    let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(target, &orders, &lost));
    (lines, LastLines(queue))
}

/// Lines that come within a moment are written in one go: each write, and each time the thread has to be woken for one,
/// costs the machine more than the line itself.
fn write_all(mut target: impl Write, orders: &Receiver<Order>, lost: &AtomicU64) {
    let mut lines = Vec::new();
    while let Ok(first) = orders.recv() {
        let (mut order, mut count, mut asked) = (Some(first), 0, None);
        while let Some(next) = order.take() {
            match next {
                Order::Write(line) => {
                    lines.extend_from_slice(&line);
                    count += 1;
                }
                Order::Tell(whom) => asked = Some(whom),
            }
            if asked.is_none() && lines.len() < LINES_AT_ONCE_BYTES {
                order = orders.try_recv().ok();
            }
        }
        if count > 0 {
            write_group(&mut target, &lines, count, lost);
            lines.clear();
        }
        match asked {
            Some(whom) => {
                let _ = target.flush();
                let _ = whom.send(());
            }
            None => std::thread::sleep(GATHER_FOR),
        }
    }
}

fn write_group(target: &mut impl Write, lines: &[u8], count: u64, lost: &AtomicU64) {
    let missing = lost.swap(0, Ordering::Relaxed);
    let told = missing == 0 || writeln!(target, "{{\"level\":\"WARN\",\"lines_lost\":{missing}}}").is_ok();
    if !told {
        lost.fetch_add(missing, Ordering::Relaxed);
    }
    if target.write_all(lines).is_err() {
        lost.fetch_add(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// A target that fails as long as it is told to, and blocks while its lock is held.
    #[derive(Clone, Default)]
    struct Target(Arc<Mutex<(bool, Vec<u8>)>>);

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut target = self.0.lock();
            if target.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            target.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().1.clone()).unwrap()
        }
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let target = Target::default();
        let (mut lines, last_lines) = start(target.clone(), 1000);
        for number in 0..50 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        drop(last_lines);
        assert!(target.text().ends_with("49\n"), "{}", target.text());
    }

    #[test]
    fn lines_that_nobody_reads_are_lost_and_told_of() {
        let target = Target::default();
        let (mut lines, last_lines) = start(target.clone(), 2);
        let unread = target.0.lock();
        // More than the queue and the thread's hand hold: were they waited for, this would not end.
        for _ in 0..10 {
            lines.write_all(b"line\n").unwrap();
        }
        drop(unread);
        let mut last_lines = Some(last_lines);
        while !target.text().contains("lines_lost") {
            lines.write_all(b"further\n").unwrap();
            std::thread::yield_now();
        }
        last_lines.take();
    }

    #[test]
    fn a_target_that_fails_and_recovers_gets_further_lines() {
        let target = Target::default();
        target.0.lock().0 = true;
        let (mut lines, last_lines) = start(target.clone(), 100);
        lines.write_all(b"first\n").unwrap();
        while lines.lost.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        target.0.lock().0 = false;
        lines.write_all(b"second\n").unwrap();
        drop(last_lines);
        assert_eq!(target.text(), "{\"level\":\"WARN\",\"lines_lost\":1}\nsecond\n");
    }

    /// What a panic may quote.
    const SAID: &str = "zq-said-in-confidence";

    /// What a test of this name says in a process of its own, for there is one log and one panic hook in a process.
    fn told_by(name: &str) -> String {
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("cli::logging::tests::{name}"), "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let told = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        assert!(ended.status.success(), "{told}");
        told
    }

    #[test]
    fn a_panic_before_there_is_a_log_is_told_by_its_place_and_never_by_its_words() {
        let told = told_by("an_early_panic");
        assert!(told.contains("crisis-relay panicked at src/cli/logging.rs:"), "{told}");
        assert!(!told.contains(SAID), "{told}");
    }

    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn an_early_panic() {
        tell_early_panics();
        assert!(std::panic::catch_unwind(|| panic!("{SAID}")).is_err());
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_never_by_its_words() {
        let told = told_by("panics_of_every_kind");
        let lines: Vec<&str> = told.lines().filter(|line| line.contains(r#""message":"panic""#)).collect();
        assert_eq!(lines.len(), 4, "each is told of: {told}");
        assert!(lines.iter().all(|line| line.contains(r#""place":"src/cli/logging.rs:"#)), "{lines:#?}");
        assert!(!told.contains(SAID), "{told}");
    }

    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn panics_of_every_kind() {
        let last_lines = init_with(true, "trace");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let of_a_task = runtime.block_on(async { tokio::spawn(async { panic!("{SAID}") }).await });
        let of_blocking = runtime.block_on(runtime.spawn_blocking(|| {
            let unreadable: u8 = SAID.parse().expect(SAID);
            unreadable
        }));
        let of_a_thread = std::thread::spawn(|| std::panic::panic_any(SAID.to_owned())).join();
        let caught = std::panic::catch_unwind(|| assert_eq!(SAID, "something else"));
        assert!(of_a_task.is_err() && of_blocking.is_err() && of_a_thread.is_err() && caught.is_err());
        drop(last_lines);
    }
}
