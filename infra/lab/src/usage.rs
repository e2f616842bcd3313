//! What a process has used, as Linux counts it.

use std::{fs, io, time::Duration};

use crate::Error;

/// The unit of `/proc/<pid>/stat` on every Linux: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);
/// Where `utime` stands behind the closing parenthesis of the command's name; `stime` is next.
const UTIME_FIELD: usize = 11;

/// What a process has used up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, to a hundredth of a second.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Reads it for a live process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no such process.
    pub fn of(pid: u32) -> Result<Self, Error> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let usage = parse_cpu(&stat).zip(parse_rss(&status)).map(|(cpu, rss_bytes)| Self { cpu, rss_bytes });
        Ok(usage.ok_or_else(|| io::Error::other("/proc is not as proc(5) says"))?)
    }
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?; // the name may hold anything, even spaces
    let mut ticks = fields.split_whitespace().skip(UTIME_FIELD).take(2).map(str::parse::<u32>);
    Some(TICK * (ticks.next()?.ok()? + ticks.next()?.ok()?))
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_user_and_system_time_whatever_the_process_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 1 0 100 0 0";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu("42 (a) S"), None);
    }

    #[test]
    fn memory_is_what_is_resident() {
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 * 1_024 * 1_024));
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(Usage::of(std::process::id()).unwrap().rss_bytes > 0);
    }
}
