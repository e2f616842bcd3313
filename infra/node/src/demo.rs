//! `fanfare demo`: everything in one process on throw-away data, with simulated devices.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lab::{
    Api,
    demo::{Demo, Stage, demo},
};
use model::{Env, Limits, SystemClock, Tier};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::{admin, backends, config::Config, telemetry, wire};

/// How long the last message may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Options {
    /// End after the funnel: exit code 0 when every promise was kept, 1 when not.
    #[arg(long)]
    once: bool,
    /// Simulated devices; three of ten are away at first.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=15_000))]
    devices: u32,
}

pub(crate) async fn run(options: Options, mut config: Config) -> anyhow::Result<ExitCode> {
    config.log.filter = "warn".into();
    (config.broker.url, config.store.url) = (None, None);
    telemetry::start(&config.log)?;
    wire::raise_descriptor_limit(&config);
    let data = tempfile::tempdir().context("cannot make a folder for the demo's data")?;
    config.data_dir = data.path().to_owned();
    for listen in [&mut config.ingest.listen, &mut config.access_point.listen, &mut config.metrics.listen] {
        *listen = free(*listen).await;
    }

    let backends = backends::open(&config).await?;
    let key = admin::create(&backends.store, &"demo".parse()?, Env::Live, false, Limits::default()).await?;
    let running = wire::start(&Tier::ALL, &config, &backends).await?;
    let (http, mqtt) = (config.ingest.listen, config.access_point.listen);
    println!("all tiers are running: products push to http://{http}, devices connect to mqtt://{mqtt}\n");

    let scenario = Demo {
        api: Api::new(&format!("http://{http}"), &key),
        mqtt,
        devices: options.devices,
        away: options.devices / 10 * 3,
        filtered: true,
        patience: PATIENCE,
    };
    let display = Display::default();
    let told = |stage, done, total| display.show(stage, done, total);
    let report = demo(&scenario, Arc::new(SystemClock), &told).await?;
    display.finish();
    println!("\n{report}\n");
    let kept = report.ok();
    println!("{}", if kept { "every promise was kept" } else { "A PROMISE WAS BROKEN" });

    if !options.once {
        invite(http, mqtt, config.metrics.listen, &key);
    }
    let stop = async {
        if !options.once {
            wire::told_to_stop().await;
        }
    };
    running.until(stop, config.shutdown_grace()).await?;
    backends.close().await;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The wanted address, or any port of the same host when somebody else has it.
async fn free(wanted: SocketAddr) -> SocketAddr {
    match TcpListener::bind(wanted).await {
        Ok(_) => wanted,
        Err(_) => match TcpListener::bind((wanted.ip(), 0)).await.and_then(|listener| listener.local_addr()) {
            Ok(free) => free,
            Err(_) => wanted,
        },
    }
}

fn invite(http: SocketAddr, mqtt: SocketAddr, metrics: SocketAddr, key: &str) {
    println!(
        r#"
Still serving; stop with Ctrl-C. Try, from another shell:

  curl http://{http}/v1/messages -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{"to":"all","payload":{{"title":"Hello"}}}}'

and be a device that gets it (or any MQTT client: see the README):

  target/release/fanfare listen --url http://{http} --mqtt {mqtt} --device me --key {key}

Metrics: http://{metrics}/metrics"#
    );
}

/// One progress bar at a time, for the stage that is on.
#[derive(Default)]
struct Display(Mutex<Option<(Stage, ProgressBar)>>);

impl Display {
    fn show(&self, stage: Stage, done: usize, total: usize) {
        let mut current = self.0.lock();
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, bar)) = current.take() {
                end(&bar);
            }
            *current = Some((stage, bar(stage)));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }

    fn finish(&self) {
        if let Some((_, bar)) = self.0.lock().take() {
            end(&bar);
        }
    }
}

/// Ends a stage's bar; where there is no terminal, its line is printed instead.
fn end(bar: &ProgressBar) {
    bar.finish();
    if bar.is_hidden() {
        println!("{:<28} {}/{}", bar.message(), bar.position(), bar.length().unwrap_or_default());
    }
}

fn bar(stage: Stage) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<28} {wide_bar} {pos}/{len} {elapsed}");
    let bar = ProgressBar::new(0).with_message(match stage {
        Stage::Registering => "registering devices",
        Stage::Connecting => "devices connecting",
        Stage::Sending => "sending in every lane",
        Stage::Delivering => "delivering to who is online",
        Stage::ComingBack => "the others come back",
        Stage::Settling => "funnels coming to rest",
        Stage::Judging => "judging the history",
    });
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
