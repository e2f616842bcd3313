//! `fanfare`: one executable; every tier is a subcommand, and without one all tiers run in this process.

mod admin;
mod backends;
mod bench;
mod config;
mod demo;
mod listen;
mod presence;
mod send;
mod telemetry;
mod watchdog;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use model::Tier;

use crate::config::Config;

/// glibc's allocator stops whoever frees next for 60 ms and more when the engine drops a table in memory.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Puts messages on every terminal of an audience, each once.
///
/// Without a subcommand, all tiers run in this process.
#[derive(Parser)]
#[command(name = "fanfare", version, max_term_width = 110)]
struct Cli {
    /// TOML file with the settings that differ from `fanfare config`.
    #[arg(long, global = true, env = "FANFARE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tier that products push to.
    Ingest,
    /// Run the tier that decides who gets a message.
    Dispatcher,
    /// Run the tier that devices connect to.
    AccessPoint,
    /// Run the tier that knows what devices report.
    Filter,
    /// Run the tier that knows what became of messages.
    Stats,
    /// Create and list apps, and make keys.
    #[command(subcommand)]
    App(admin::App),
    /// Print the configuration reference: every setting with its default.
    Config,
    /// Print the description of the HTTP API, as OpenAPI.
    Openapi,
    /// Check the configuration and say what it means.
    CheckConfig,
    /// Run everything on throw-away data with simulated devices, and show what happens.
    Demo(demo::Options),
    /// Send a message.
    Send(send::Options),
    /// Be a device: connect and print what arrives.
    Listen(listen::Options),
    /// Measure this build on this machine.
    Bench(bench::Options),
}

/// Exit code for a configuration that cannot be used: EX_CONFIG of sysexits.h.
const EXIT_CONFIG: u8 = 78;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("fanfare: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match run(cli.command, config).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fanfare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Option<Command>, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        None => wire::serve(&Tier::ALL, config).await,
        Some(Command::Ingest) => wire::serve(&[Tier::Ingest], config).await,
        Some(Command::Dispatcher) => wire::serve(&[Tier::Dispatcher], config).await,
        Some(Command::AccessPoint) => wire::serve(&[Tier::AccessPoint], config).await,
        Some(Command::Filter) => wire::serve(&[Tier::Filter], config).await,
        Some(Command::Stats) => wire::serve(&[Tier::Stats], config).await,
        Some(Command::App(command)) => admin::run(command, &config).await,
        Some(Command::Config) => {
            print!("{}", config::REFERENCE);
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Openapi) => {
            println!("{}", ingest::document());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::CheckConfig) => admin::check(&config).await,
        Some(Command::Demo(options)) => demo::run(options, config).await,
        Some(Command::Send(options)) => send::run(options).await,
        Some(Command::Listen(options)) => listen::run(options).await,
        Some(Command::Bench(options)) => bench::run(options, config).await,
    }
}
