//! `fanfare bench scale`, `stalled`, `silent` and `storm`: what only many devices show. They are in generator processes, and
//! the checker judges what every one of them received.

use std::{
    env,
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use lab::{
    bench::{self, ScaleOptions, SilentOptions, UnrestOptions},
    fault::Server,
};

use super::{bare, ensure_shared, start, start_with, told};
use crate::config::Config;

/// Where devices are whose packets are dropped: nobody else on this machine uses it.
const DROPPED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 83, 0, 1));

#[derive(Args, Clone, Copy)]
pub(super) struct Scale {
    /// Devices.
    #[arg(long, default_value_t = 60_000)]
    devices: u32,
    /// Access points, among which they spread evenly.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    access_points: u8,
}

#[derive(Args, Clone, Copy)]
pub(super) struct Stalled {
    /// Devices that stop reading.
    #[arg(long, default_value_t = 5_000)]
    devices: u32,
    #[command(flatten)]
    others: Others,
}

#[derive(Args, Clone, Copy)]
pub(super) struct Silent {
    /// Devices that fall silent.
    #[arg(long, default_value_t = 3_000)]
    devices: u32,
    /// Their keep alive, in seconds.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(15..=300))]
    keep_alive: u16,
    /// Drop their packets with nftables, which takes root, instead of stopping their process.
    #[arg(long)]
    drop: bool,
}

#[derive(Args, Clone, Copy)]
pub(super) struct Storm {
    /// Devices that are cut off.
    #[arg(long, default_value_t = 15_000)]
    devices: u32,
    #[command(flatten)]
    others: Others,
}

/// Those who should not notice.
#[derive(Args, Clone, Copy)]
struct Others {
    /// Devices among which the unicasts go round.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    probes: u32,
    /// Unicasts a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// How long they are sent at a time: a device that acks nothing is closed after 20 s.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Others {
    /// They beside so many devices, whose generator leaves the processors to the server and to the measurement: the devices
    /// that it stands for have their own.
    fn beside(self, devices: u32) -> anyhow::Result<UnrestOptions> {
        let Self { probes, rate: per_s, seconds } = self;
        let modest = ["chrt", "--idle", "0"].map(String::from);
        let generator = modest.into_iter().chain(generator()?).collect();
        Ok(UnrestOptions { devices, probes, per_s, lasting: Duration::from_secs(seconds), generator })
    }
}

pub(super) async fn scale(size: Scale, config: Config) -> anyhow::Result<ExitCode> {
    if size.access_points > 1 {
        ensure_shared(&config)?;
    }
    let subject = start(config).await?;
    let pid = subject.target.pid.context("the server has ended")?;
    let (mut access_points, mut others) = (vec![(subject.target.mqtt, pid)], Vec::new());
    for number in 2..=size.access_points {
        let beside = subject.beside(number)?;
        let server = Server::start(&beside.launch, &subject.target.api).await?;
        access_points.push((beside.mqtt, server.pid().context("an access point has ended")?));
        others.push(server);
    }
    let each = size.devices as usize / access_points.len();
    let options = ScaleOptions { devices: size.devices, access_points, generator: generator()? };
    let report = bench::scale(&subject.target, &options, &told).await?;
    drop(others);
    let shown = shown(&report, report.holds());
    println!("{}", bare(each).await?);
    Ok(shown)
}

pub(super) async fn stalled(size: Stalled, config: Config) -> anyhow::Result<ExitCode> {
    let subject = start(config).await?;
    let report = bench::stalled(&subject.target, &size.others.beside(size.devices)?, &told).await?;
    Ok(shown(&report, report.holds()))
}

pub(super) async fn silent(Silent { devices, keep_alive, drop }: Silent, config: Config) -> anyhow::Result<ExitCode> {
    let subject = start(config).await?;
    let (keep_alive_s, metrics, dropped) = (keep_alive, subject.metrics, drop.then_some(DROPPED));
    let options = SilentOptions { devices, keep_alive_s, dropped, metrics, generator: generator()? };
    let report = bench::silent(&subject.target, &options, &told).await?;
    Ok(shown(&report, report.holds()))
}

pub(super) async fn storm(size: Storm, config: Config) -> anyhow::Result<ExitCode> {
    // How it lets devices in is what is looked at.
    let subject = start_with(config, &[]).await?;
    let report = bench::storm(&subject.target, &size.others.beside(size.devices)?, &told).await?;
    Ok(shown(&report, report.holds()))
}

/// The command that is a generator.
fn generator() -> anyhow::Result<Vec<String>> {
    let own = env::current_exe()?.display().to_string();
    Ok(vec![own, "bench".to_owned(), "generator".to_owned()])
}

fn shown(report: &impl Display, holds: bool) -> ExitCode {
    println!("{report}");
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
