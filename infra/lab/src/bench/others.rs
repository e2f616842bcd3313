//! Those who should not notice what happens to a herd: unicasts to them are measured without it, and then with it.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::Latency;

/// By how much their p99 may rise.
const P99_RATIO_MAX: f64 = 2.0;

/// How large a herd is that something happens to, and how others are measured.
#[derive(Clone, Debug)]
pub struct UnrestOptions {
    /// Devices that it happens to.
    pub devices: u32,
    /// Devices that should not notice, among which measured unicasts go round.
    pub probes: u32,
    /// Unicasts a second.
    pub per_s: u32,
    /// How long they are measured at a time.
    pub lasting: Duration,
    /// The command that runs [`generate`](super::generate) in a process of its own. It stands for devices with processors of
    /// their own, so it should have a lower priority than the server.
    pub generator: Vec<String>,
}

/// What others noticed.
#[derive(Clone, Debug, Serialize)]
pub struct Others {
    /// Unicasts to them when it does not happen.
    pub without: Latency,
    /// The same while it happened.
    pub with: Latency,
}

impl Others {
    /// By how much it raised their p99.
    pub fn p99_ratio(&self) -> f64 {
        self.with.quantile(0.99).as_secs_f64() / self.without.quantile(0.99).as_secs_f64().max(1e-9)
    }

    /// Whether that was little enough.
    pub fn are_well(&self) -> bool {
        self.p99_ratio() <= P99_RATIO_MAX
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  others     {}, without it", self.without)?;
        writeln!(f, "             {}, with it", self.with)?;
        write!(f, "  p99 ratio  {:.2}, of at most {P99_RATIO_MAX}", self.p99_ratio())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(p99_ms: u64) -> Latency {
        let mut latency = Latency::default();
        (0..98).for_each(|_| latency.record(Duration::from_millis(1)));
        (0..2).for_each(|_| latency.record(Duration::from_millis(p99_ms)));
        latency
    }

    #[test]
    fn others_are_well_as_long_as_their_p99_has_not_doubled() {
        let others = |with| Others { without: latency(10), with: latency(with) };
        assert!(others(19).are_well());
        assert!(!others(21).are_well());
    }
}
