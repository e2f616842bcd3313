//! The table of bytes.

use std::fmt;

use serde::Serialize;

use super::counted::Each;

/// One way to get messages, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// Until the device is connected.
    pub connect: Each,
    /// A small and a large push, with the ack.
    pub pushes: [Each; 2],
    /// A ping and its answer.
    pub ping: Each,
    /// How often that is, in seconds; more than one where it depends.
    pub pings_s: Vec<u32>,
}

impl Row {
    /// Bytes of an hour without messages for each period of pings, and with headers.
    pub fn idle_hours(&self) -> impl Iterator<Item = (u32, f64, f64)> {
        self.pings_s.iter().map(|secs| {
            let pings = 3_600.0 / f64::from(*secs);
            (*secs, pings * (self.ping.up_bytes + self.ping.down_bytes), pings * self.ping.with_headers_bytes)
        })
    }
}

/// What was counted.
#[derive(Clone, Debug, Serialize)]
pub struct WireReport {
    /// The bodies that were sent, in bytes.
    pub small_bytes: usize,
    /// See [`small_bytes`](Self::small_bytes).
    pub large_bytes: usize,
    /// What others do first.
    pub rows: Vec<Row>,
}

impl fmt::Display for WireReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { small_bytes, large_bytes, rows } = self;
        writeln!(
            f,
            "wire       bytes as TCP payload, both ways (with headers, estimated: 52 a segment, and one to ack the last)"
        )?;
        let [small, large] = [small_bytes, large_bytes].map(|bytes| format!("push {bytes} B + ack"));
        write!(f, "  {:<27}{:>16}{small:>20}{large:>20}{:>14}  an idle hour", "", "connect", "ping")?;
        for row in rows {
            let [small, large] = row.pushes.map(|push| shown(&push));
            write!(f, "\n  {:<27}{:>16}{small:>20}{large:>20}{:>14}", row.name, shown(&row.connect), shown(&row.ping))?;
            for (secs, bytes, with_headers) in row.idle_hours() {
                write!(f, "  {bytes:.0} ({with_headers:.0}) at {secs} s")?;
            }
        }
        Ok(())
    }
}

fn shown(each: &Each) -> String {
    format!("{:.0} ({:.0})", each.up_bytes + each.down_bytes, each.with_headers_bytes)
}
