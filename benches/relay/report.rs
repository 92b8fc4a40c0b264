//! The report: tables in Markdown, and a picture of the distributions.

use std::fmt::Write as _;
use std::time::Duration;

use super::plot;
use super::scenarios::{Killed, Run};
use super::service::Usage;
use super::statistics::{Times, megabytes, milliseconds};

/// What was measured so far.
pub(crate) struct Report {
    rates: Vec<(String, Run)>,
    single: Vec<(&'static str, String)>,
    idle: Option<u64>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { rates: Vec::new(), single: Vec::new(), idle: None }
    }

    pub(crate) fn filled(&mut self, count: usize, took: Duration, bytes: u64) {
        let text = format!("{count} alerts in {:.0} s, {}", took.as_secs_f64(), megabytes(bytes));
        self.single.push(("stored beforehand", text));
    }

    pub(crate) fn found(&mut self, count: usize, bytes: u64) {
        self.single.push(("stored beforehand", format!("{count} alerts, {}", megabytes(bytes))));
    }

    pub(crate) fn starts(&mut self, starts: &Times) {
        let text = format!(
            "median {}, longest {} of {}",
            milliseconds(starts.median()),
            milliseconds(starts.percentile(1.0)),
            starts.count()
        );
        self.single.push(("start to the first accepted event", text));
    }

    /// Memory of a service at rest; the most of all that were looked at counts.
    pub(crate) fn idle(&mut self, usage: Usage) {
        self.idle = Some(self.idle.unwrap_or(0).max(usage.rss));
    }

    pub(crate) fn rate(&mut self, rate: f64, with: &str, run: Run) {
        self.rates.push((format!("{rate:.0}/s{with}"), run));
    }

    pub(crate) fn bursts(&mut self, bursts: Vec<(Usage, Run)>) {
        let times: Times = bursts.iter().map(|(_, run)| run.all).collect();
        let lost: usize = bursts.iter().map(|(_, run)| run.sent - run.arrived).sum();
        let text = format!(
            "median {:.2} s, longest {:.2} s of {}; {lost} did not get there",
            times.median().as_secs_f64(),
            times.percentile(1.0).as_secs_f64(),
            times.count()
        );
        self.single.push(("burst of 10,000: until the last is at the provider", text));
        let cpu: Times = bursts.iter().map(|(_, run)| run.cpu).collect();
        let commits = bursts.iter().map(|(_, run)| run.commits).fold(0.0, f64::max);
        let text = format!("{} of processor time, {commits:.2} commits", milliseconds(cpu.median()));
        self.single.push(("in the burst, per alert", text));
        let after = bursts.iter().map(|(_, run)| run.after.rss).max().unwrap_or(0);
        let peak = bursts.iter().map(|(_, run)| run.after.rss_peak).max().unwrap_or(0);
        let idle = self.idle.map_or_else(String::new, |idle| format!("{} idle, ", megabytes(idle)));
        let text = format!("{idle}{} after a burst, {} at its peak", megabytes(after), megabytes(peak));
        self.single.push(("memory", text));
    }

    pub(crate) fn receipts(&mut self, a_second: f64, answers: &Times) {
        let text = format!("{a_second:.0}/s over 64 connections, p50 / p99 {}", answers.p50_p99());
        self.single.push(("receipts: signed webhooks answered", text));
    }

    pub(crate) fn held(&mut self, seconds: f64, best: Option<(f64, Run)>) {
        let text = match best {
            Some((rate, run)) => format!(
                "{rate:.0}/s for {seconds:.0} s; accept {}, event to provider {}, the generator's own lag {}; {} of processor \
                 time an alert",
                run.accept.p50_p99(),
                run.provider.p50_p99(),
                run.lag.p50_p99(),
                milliseconds(run.cpu)
            ),
            None => "not even 2,000/s".to_owned(),
        };
        self.single.push(("highest rate held", text));
    }

    pub(crate) fn killed(&mut self, killed: &[Killed]) {
        let recovered: Times = killed.iter().map(|killed| killed.recovered).collect();
        let text = format!(
            "{} accepted, {} of them not yet sent, {} lost, {} twice; the last was at the provider {:.2} s after the \
             restart in the median, {:.2} s at the most ({} kills)",
            killed.iter().map(|killed| killed.accepted).sum::<usize>(),
            killed.iter().map(|killed| killed.remaining).sum::<usize>(),
            killed.iter().map(|killed| killed.lost).sum::<usize>(),
            killed.iter().map(|killed| killed.twice).sum::<usize>(),
            recovered.median().as_secs_f64(),
            recovered.percentile(1.0).as_secs_f64(),
            killed.len()
        );
        self.single.push(("SIGKILL in a burst of 2,000", text));
    }

    /// The tables, and the picture.
    pub(crate) fn finish(&self) -> (String, String) {
        let mut text = String::from(
            "| events | accept p50 / p99 | event to provider p50 / p99 | slowest | CPU per alert | commits per alert | \
             generator's own lag p50 / p99 | not at the provider | twice |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for (name, run) in &self.rates {
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {:.2} | {} | {} | {} |",
                run.accept.p50_p99(),
                run.provider.p50_p99(),
                milliseconds(run.provider.percentile(1.0)),
                milliseconds(run.cpu),
                run.commits,
                run.lag.p50_p99(),
                run.sent - run.arrived,
                run.twice
            );
        }
        text.push_str("\n| | |\n|---|---|\n");
        for (name, value) in &self.single {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        let lines: Vec<(String, &Times)> =
            self.rates.iter().map(|(name, run)| (format!("event to provider, {name}"), &run.provider)).collect();
        (text, plot::svg("From the event's POST to the provider's request", &lines))
    }
}
