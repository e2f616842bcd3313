//! An address whose packets vanish without a word, as on a link that is gone: nobody closes, and nobody acks. By nftables,
//! which takes root.

use std::net::IpAddr;

use tokio::process::Command;

use crate::Error;

/// Packets from and to an address are dropped for as long as this lives.
#[derive(Debug)]
pub struct Blackhole {
    table: String,
}

impl Blackhole {
    /// From now on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when `nft` is not there, or not allowed to.
    pub async fn of(address: IpAddr) -> Result<Self, Error> {
        let hole = Self { table: format!("fanfare-{:08x}", rand::random::<u32>()) };
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let drops = ["saddr", "daddr"].map(|side| format!("{family} {side} {address} drop\n")).concat();
        let rules =
            format!("table inet {} {{\nchain out {{\ntype filter hook output priority 0;\n{drops}}}\n}}\n", hole.table);
        let output = Command::new("nft").arg(rules).output().await?;
        if output.status.success() {
            return Ok(hole);
        }
        Err(Error::unavailable("nft", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Blackhole {
    /// Waits for it, which takes milliseconds: a hole that stays would swallow what comes after.
    fn drop(&mut self) {
        let delete = std::process::Command::new("nft").args(["delete", "table", "inet", &self.table]).output();
        if !delete.is_ok_and(|output| output.status.success()) {
            tracing::error!(table = self.table, "a blackhole stays behind: `nft delete table inet` with its name");
        }
    }
}
