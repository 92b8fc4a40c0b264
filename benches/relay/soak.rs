//! The soak: a load for minutes, faults all the while, and a look at the memory again and again.

use std::error::Error;
use std::path::Path;

use crisis_relay::simulator::SimulatorConfig;

use super::scenarios::{Stage, with_receipts, without_receipts};
use super::statistics::megabytes;

#[derive(clap::Args)]
pub(crate) struct SoakOptions {
    /// How long.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Events a second.
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// Without faults, and without receipts.
    #[arg(long)]
    calm: bool,
}

/// How long one stretch lasts, in seconds.
const STRETCH: f64 = 15.0;

pub(crate) fn soak(options: &SoakOptions, folder: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let calm = || SimulatorConfig { keep_messages: 1_000_000, ..without_receipts() };
    let mut stage = Stage::set(folder, if options.calm { calm() } else { with_receipts() })?;
    if !options.calm {
        stage.trouble();
    }
    println!("| minute | sent | accepted | memory | event to provider p50 / p99 |\n|---|---|---|---|---|");
    let stretches = (options.minutes * 60.0 / STRETCH).ceil() as usize;
    let (mut sent, mut references) = (0, Vec::new());
    for stretch in 1..=stretches {
        let run = stage.at(options.rate, STRETCH);
        sent += run.sent;
        references.extend_from_slice(&run.references);
        let minute = stretch as f64 * STRETCH / 60.0;
        println!(
            "| {minute:.2} | {} | {} | {} | {} |",
            run.sent,
            run.accepted,
            megabytes(run.after.rss),
            run.provider.p50_p99()
        );
    }
    let untold = stage.untold(&references);
    println!("\n{sent} sent, {} accepted; of {untold} of them the provider has made no message.", references.len());
    Ok(())
}
