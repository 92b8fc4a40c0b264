//! The benchmark: the release binary, SQLite on disk, the simulator on the other side, and an open load between them.
//!
//!     cargo bench --bench relay                       everything; prints the report and draws the distributions
//!     cargo bench --bench relay -- --quick            a tenth of the time, for a first look
//!     cargo bench --bench relay -- --stored 1000000   the same on a database that holds so many alerts already
//!     cargo bench --bench relay -- --stored 1000000 --keep FOLDER   … and keeps it for the next run
//!     cargo bench --bench relay -- soak --minutes 5   300 events a second, a tenth of all calls going wrong
//!     cargo bench --bench relay -- firestore          the same load on Firestore's emulator, with 1, 2 and 4 instances
//!     cargo bench --bench relay -- load --help        the same load against any other service
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a terminal")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

mod fill;
mod firestore;
mod load;
mod other;
mod plot;
mod provider;
mod report;
mod scenarios;
mod service;
mod soak;
mod statistics;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use self::report::Report;
use self::scenarios::{Stage, highest_held, kill, start, with_receipts, without_receipts};
use self::statistics::Times;

#[derive(Parser)]
#[command(about = "Measures crisis-relay, or another service that turns a request into another one")]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// A tenth of the time: for a first look, not for figures.
    #[arg(long)]
    quick: bool,
    /// How many resolved alerts the database holds beforehand.
    #[arg(long, default_value_t = 0, value_name = "N")]
    stored: usize,
    /// Where that database is kept, and found again by the next run.
    #[arg(long, value_name = "FOLDER", requires = "stored")]
    keep: Option<PathBuf>,
    /// Where databases are made: the disk that is measured [default: the folder for temporary files].
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// Where the report and its picture are written.
    #[arg(long, default_value = "target/benchmark", value_name = "FOLDER")]
    output: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Holds a load with faults for a while, and watches the memory.
    Soak(soak::SoakOptions),
    /// Measures the Firestore store on the emulator that FIRESTORE_EMULATOR_HOST names, with several instances.
    Firestore(firestore::FirestoreOptions),
    /// Puts the load on another service.
    Load(other::LoadOptions),
}

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    match &options.what {
        None => all(&options),
        Some(What::Soak(soak)) => soak::soak(soak, &folder(&options)?),
        Some(What::Firestore(several)) => firestore::firestore(several, &folder(&options)?),
        Some(What::Load(load)) => other::load(load),
    }
}

/// A folder for one database.
enum Folder {
    /// Removed with what is in it.
    Passing(tempfile::TempDir),
    Kept(PathBuf),
}

impl std::ops::Deref for Folder {
    type Target = Path;
    fn deref(&self) -> &Path {
        match self {
            Self::Passing(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

fn folder(options: &Options) -> std::io::Result<Folder> {
    let made = match &options.disk {
        Some(disk) => tempfile::tempdir_in(disk),
        None => tempfile::tempdir(),
    };
    made.map(Folder::Passing)
}

/// The database that holds many alerts already: found, or filled now.
fn filled(options: &Options, report: &mut Report) -> Result<Option<Folder>, Failure> {
    if options.stored == 0 {
        return Ok(None);
    }
    let into = match &options.keep {
        Some(kept) => {
            fs::create_dir_all(kept)?;
            Folder::Kept(kept.clone())
        }
        None => folder(options)?,
    };
    if let Some(stored) = fill::count(&into)? {
        report.found(stored, service::size_of(&into));
    } else {
        tell(&format!("filling in {} alerts", options.stored));
        let begun = Instant::now();
        fill::fill(&into, options.stored)?;
        report.filled(options.stored, begun.elapsed(), service::size_of(&into));
    }
    // What the system happens to remember of the file would else decide: a service that runs has read its indexes.
    std::io::copy(&mut fs::File::open(service::database(&into))?, &mut std::io::sink())?;
    Ok(Some(into))
}

/// Where scenarios find their databases: an empty folder for each, or the one that was filled for all.
struct Places<'a> {
    options: &'a Options,
    filled: Option<Folder>,
}

enum Place<'a> {
    Own(Folder),
    Shared(&'a Path),
}

impl std::ops::Deref for Place<'_> {
    type Target = Path;
    fn deref(&self) -> &Path {
        match self {
            Self::Own(folder) => folder,
            Self::Shared(folder) => folder,
        }
    }
}

impl Places<'_> {
    /// A database of many gigabytes is not copied for each scenario: they follow each other in it, and what one has left
    /// open is finished before the next.
    fn next(&self) -> Result<Place<'_>, Failure> {
        match &self.filled {
            Some(filled) => {
                fill::finish_open(filled)?;
                Ok(Place::Shared(filled))
            }
            None => Ok(Place::Own(folder(self.options)?)),
        }
    }
}

fn tell(line: &str) {
    eprintln!("{line}");
}

fn all(options: &Options) -> Result<(), Failure> {
    let seconds = |full: f64| if options.quick { full / 10.0 } else { full };
    let times = |full: usize| if options.quick { full.div_ceil(5) } else { full };
    let mut report = Report::new();

    let places = Places { options, filled: filled(options, &mut report)? };

    tell("start");
    let place = places.next()?;
    start(&place)?;
    let starts = (0..times(10)).map(|_| start(&place)).collect::<Result<Times, _>>()?;
    report.starts(&starts);

    for (rate, for_seconds) in [(50.0, 20.0), (200.0, 20.0), (1000.0, 20.0)] {
        tell(&format!("{rate}/s"));
        let place = places.next()?;
        let mut stage = Stage::set(&place, without_receipts())?;
        std::thread::sleep(Duration::from_secs(1));
        report.idle(stage.usage());
        report.rate(rate, "", stage.at(rate, seconds(for_seconds)));
    }

    tell("1000/s with receipts");
    let place = places.next()?;
    let mut stage = Stage::set(&place, with_receipts())?;
    report.rate(1000.0, " with receipts", stage.at(1000.0, seconds(20.0)));
    drop(stage);

    tell("burst of 10,000");
    let mut bursts = Vec::new();
    for _ in 0..times(3) {
        let place = places.next()?;
        let mut stage = Stage::set(&place, without_receipts())?;
        let before = stage.usage();
        bursts.push((before, stage.burst(10_000)));
        if bursts.len() == 1 {
            tell("receipts");
            let (a_second, answers) = stage.receipts();
            report.receipts(a_second, &answers);
        }
    }
    report.bursts(bursts);

    tell("SIGKILL in a burst of 2,000");
    let mut killed = Vec::new();
    for round in 0..times(5) {
        let place = places.next()?;
        killed.push(kill(&place, 2_000, 0.2 + 0.1 * round as f64)?);
    }
    report.killed(&killed);

    tell("highest rate held");
    let one = |rate, for_seconds| Ok(Stage::set(&places.next()?, without_receipts())?.at(rate, for_seconds));
    report.held(seconds(30.0), highest_held(one, seconds(30.0), &tell)?);

    let (text, picture) = report.finish();
    println!("{text}");
    fs::create_dir_all(&options.output)?;
    fs::write(options.output.join("report.md"), text)?;
    fs::write(options.output.join("latency.svg"), picture)?;
    tell(&format!("written to {}", options.output.display()));
    Ok(())
}
