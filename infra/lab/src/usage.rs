//! What a process has used, as Linux counts it.

use std::{fs, io, path::PathBuf, time::Duration};

use crate::Error;

/// The unit of `/proc/<pid>/stat` on every Linux: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);
/// Where `utime` stands behind the closing parenthesis of the command's name; `stime` is next.
const UTIME_FIELD: usize = 11;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

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

/// The process of this machine that listens on a TCP port, among those that this user may look at.
pub fn listener_on(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().flat_map(|table| table.lines()).find_map(|line| parse_listener(line, port))?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.map(|descriptor| fs::read_link(descriptor.path())).any(|link| link.is_ok_and(|link| link == socket))
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).find(holds)
}

/// The inode of the socket in this line of `/proc/net/tcp`, if it listens on the port.
fn parse_listener(line: &str, port: u16) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (fields.get(1)?.rsplit_once(':')?.1, fields.get(3)?);
    (u16::from_str_radix(local, 16) == Ok(port) && *state == LISTEN).then_some(*fields.get(9)?)
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

    #[test]
    fn who_listens_is_found_by_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listener_on(port), Some(std::process::id()));
        drop(listener);
        assert_eq!(listener_on(port), None);
    }
}
