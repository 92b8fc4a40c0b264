//! What many measured times say together.

use std::time::Duration;

/// Measured times, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl FromIterator<Duration> for Times {
    fn from_iter<T: IntoIterator<Item = Duration>>(times: T) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }
}

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that this share (0 to 1) of all does not exceed; zero where there is none.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(0.5)
    }

    /// `p50 / p99` in milliseconds.
    pub(crate) fn p50_p99(&self) -> String {
        format!("{} / {}", milliseconds(self.percentile(0.5)), milliseconds(self.percentile(0.99)))
    }
}

/// Milliseconds with as many digits as mean something.
pub(crate) fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// Mebibytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / f64::from(1 << 20))
}
