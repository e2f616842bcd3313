//! `fanfare listen`: a device at the shell that prints what arrives, and acks it.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use clap::Args;
use lab::{
    Api, Arrival, Fleet, Observer, Orders,
    api::Profile,
    device::{Identity, Line},
};
use model::DeviceId;
use mqtt::{Reason, Version};
use tokio::signal;

/// Life of the token that is minted for the occasion, in seconds.
const TOKEN_TTL_S: u64 = 86_400;

#[derive(Args)]
pub(crate) struct Options {
    /// The API key; it mints the device's token.
    #[arg(long, env = "FANFARE_KEY", hide_env_values = true)]
    key: String,
    /// Where products push to.
    #[arg(long, env = "FANFARE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Where devices connect to.
    #[arg(long, env = "FANFARE_MQTT", default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// The device to be; registered when it is not.
    #[arg(long)]
    device: DeviceId,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let api = Api::new(&options.url, &options.key);
    api.register(&options.device, &Profile::default()).await?;
    let token = api.token(&options.device, TOKEN_TTL_S).await?;
    let identity = Identity {
        number: 0,
        id: options.device,
        app: token.app,
        token: token.token,
        version: Version::V5,
        states_after: false,
    };
    let line = Line::to([options.mqtt], 60);
    let fleet = Fleet::new(vec![identity], line, Arc::new(Printer));
    fleet.order(0..1, Orders::ONLINE);
    signal::ctrl_c().await?;
    fleet.close().await;
    Ok(ExitCode::SUCCESS)
}

/// Prints messages to standard output, one a line, and all else to standard error.
struct Printer;

impl Observer for Printer {
    fn arrived(&self, arrival: &Arrival<'_>) {
        println!("{}", String::from_utf8_lossy(arrival.payload));
    }

    fn connected(&self, _: u32) {
        eprintln!("connected");
    }

    fn disconnected(&self, _: u32) {
        eprintln!("disconnected");
    }

    fn refused(&self, _: u32, reason: Reason) {
        eprintln!("refused: {reason:?}");
    }
}
