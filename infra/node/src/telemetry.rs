//! Logs: one event a line on standard error, readable alone, with fields that are named alike everywhere. And how much a
//! process has under way, whatever its tiers.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
};

use anyhow::Context as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};
use tokio::runtime::Handle;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging; once per process.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.filter).with_context(|| format!("log.filter = {:?}", log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Pretty => builder.with_ansi(stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Counts the tasks of a runtime when somebody looks: a pile of them is what goes wrong before memory does.
#[derive(Debug)]
pub(crate) struct Tasks(pub(crate) Handle);

impl Collector for Tasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let tasks = ConstGauge::new(i64::try_from(self.0.metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        let help = "Tasks of this process that are not over";
        tasks.encode(encoder.encode_descriptor("fanfare_tasks", help, None, tasks.metric_type())?)
    }
}
