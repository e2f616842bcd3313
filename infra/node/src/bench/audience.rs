//! `fanfare bench audience` and `fanfare bench import`: an app of a million devices. Several access points, each a process
//! of its own, need RabbitMQ and Redis.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::ensure;
use clap::Args;
use lab::{
    Usage,
    bench::{AudienceOptions, audience, device_row},
    fault::Server,
    import,
};

use super::{ensure_shared, start, told};
use crate::config::Config;

/// Between two lines that say how far it is, in devices.
const TELL_EVERY: usize = 100_000;

#[derive(Args, Clone, Copy)]
pub(super) struct Import {
    /// Devices, with two tags and two attributes each.
    #[arg(long, default_value_t = 1_000_000)]
    devices: u32,
}

#[derive(Args, Clone, Copy)]
pub(super) struct Crowd {
    /// Registered devices, of which a hundredth is meant.
    #[arg(long, default_value_t = 1_000_000)]
    registered: u32,
    /// Connected devices, half of the meant ones among them.
    #[arg(long, default_value_t = 15_000)]
    online: u32,
    /// Access points.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    access_points: u8,
}

/// Registers devices by one upload.
pub(super) async fn register(wanted: Import, config: Config) -> anyhow::Result<()> {
    let subject = start(config).await?;
    let told = AtomicUsize::new(0);
    let progress = |done: usize| {
        let steps = done / TELL_EVERY;
        if told.fetch_max(steps, Relaxed) < steps {
            eprintln!("its job tells of {done} devices");
        }
    };
    let row = |n| device_row("import", n);
    println!("{}", import(&subject.target.api, wanted.devices.into(), row, &progress).await?);
    if let Some(usage) = subject.target.pid.map(Usage::of).transpose()? {
        let each = usage.cpu.as_secs_f64() * 1e6 / f64::from(wanted.devices.max(1));
        println!("  server CPU {each:.1} us each; {:.0} MiB resident", usage.rss_bytes as f64 / f64::from(1 << 20));
    }
    Ok(())
}

/// Sends to a hundredth of the devices.
pub(super) async fn send(crowd: Crowd, config: Config) -> anyhow::Result<()> {
    if crowd.access_points > 1 {
        ensure_shared(&config)?;
    }
    let subject = start(config).await?;
    let (mut mqtt, mut metrics, mut others) = (vec![subject.target.mqtt], vec![subject.metrics], Vec::new());
    for number in 2..=crowd.access_points {
        let beside = subject.beside(number)?;
        others.push(Server::start(&beside.launch, &subject.target.api).await?);
        mqtt.push(beside.mqtt);
        metrics.push(beside.metrics);
    }
    let options = AudienceOptions { registered: crowd.registered, online: crowd.online, mqtt, metrics };
    let report = audience(&subject.target.api, &options, &told).await?;
    println!("{report}");
    ensure!(report.holds(), "a promise is broken");
    Ok(())
}
