//! Where products push: the HTTP API.
//!
//! Ingest checks who asks and what for, puts messages on the broker, and answers 202 once the broker and the store
//! have both said that they keep it. It does not decide who gets a message (the dispatcher does) and keeps nothing
//! itself.

mod admin;
mod api;
mod attributes;
mod audiences;
mod auth;
mod by_type;
mod callback;
mod cancel;
mod caps;
mod command;
mod devices;
mod drain;
mod edition;
mod fields;
mod filter;
mod gate;
mod groups;
mod health;
mod import;
mod limit;
mod listen;
mod messages;
mod metrics;
mod nodes;
mod once;
mod openapi;
mod passage;
mod places;
mod preview;
mod problem;
mod query;
mod quiet;
mod receipts;
mod send;
mod suppressions;
mod tags;
mod tokens;
mod uplink;
mod upload;
mod view;

use std::sync::Arc;

use audience::Select;
use axum::Router;
use broker::SharedBroker;
use model::Clock;
use prometheus_client::registry::Registry;
use store::SharedStore;
use thiserror::Error;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api, auth::Keys, callback::Fetched, limit::Budgets, listen::Reception, metrics::Metrics, nodes::Nodes,
    once::Running, places::Places, uplink::kept::Kept,
};
pub use crate::{openapi::document, passage::Passage};

/// What can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Open connections; beyond it new ones wait to be accepted.
    pub connections_max: usize,
    /// Requests under way; beyond it requests are answered 503. No app has more of them than it leaves free.
    pub requests_max: usize,
    /// Largest body of a request but a batch, in bytes.
    pub body_max_bytes: usize,
    /// Largest payload of a message, in bytes.
    pub payload_max_bytes: usize,
    /// Over how many queues unicasts spread, the same on every node: see [`model::Shard::of_device`].
    pub unicast_shards: u8,
    /// Where products may be asked for the members of groups.
    pub callbacks: Callbacks,
}

/// Where products may be asked for the members of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// Hosts that may be asked, by name; one that begins with a dot stands for all under it. Empty: any.
    pub hosts: Vec<String>,
    /// Whether addresses of private networks and of this machine may be asked, and plain HTTP be spoken.
    pub allow_private: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            requests_max: 1_024,
            body_max_bytes: 64 * 1024,
            payload_max_bytes: 4 * 1024,
            unicast_shards: 1,
            callbacks: Callbacks::default(),
        }
    }
}

/// What ingest stands on.
pub struct Deps {
    /// Where messages go.
    pub broker: SharedBroker,
    /// Where everything else is kept.
    pub store: SharedStore,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who knows which devices a filter means; without it filters are refused.
    pub select: Option<Arc<dyn Select>>,
    /// Routes of others on the same listener (`/metrics`, say); they are named and logged, and need no key.
    pub others: Router,
    /// Who takes in devices that come by HTTP; without it there is nothing for them here.
    pub devices: Option<Passage>,
}

/// Why ingest stopped before it was told to.
#[derive(Debug, Error)]
pub enum Error {
    /// What the broker or the store keeps cannot be trusted: stop and restore.
    #[error("ingest stopped: {0}")]
    Corrupt(String),
}

/// The tier that products push to.
pub struct Ingest {
    api: Arc<Api>,
    others: Router,
    devices: Option<Passage>,
}

impl Ingest {
    /// Puts the tier together; its metrics join `registry`.
    pub fn new(config: Config, deps: Deps, registry: &mut Registry) -> Self {
        let api = Api {
            places: Places::new(config.requests_max),
            fetched: Fetched::new(config.callbacks.clone(), config.requests_max),
            config,
            broker: deps.broker,
            store: deps.store,
            clock: deps.clock,
            select: deps.select,
            keys: Keys::new(),
            budgets: Budgets::new(),
            nodes: Nodes::new(),
            running: Running::default(),
            pings: Semaphore::new(nodes::PINGS_MAX),
            waiting: Semaphore::new(command::WAITING_MAX),
            followers: Places::new(uplink::stream::STREAMS_MAX),
            kept: Kept::default(),
            stopping: CancellationToken::new(),
            metrics: Metrics::new(registry),
        };
        Self { api: Arc::new(api), others: deps.others, devices: deps.devices }
    }

    /// Serves until `shutdown`, then lets the requests under way end. Meanwhile moves what devices send up from the
    /// broker into the store.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a back end must not be used any more.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = shutdown.child_token();
        let reception = Reception { router: api::router(&self.api, self.others), devices: self.devices };
        let serving = listen::serve(listener, reception, self.api.config.connections_max, stop.clone());
        let moving = async {
            let moved = uplink::keep_all(&self.api, &stop).await;
            stop.cancel();
            moved
        };
        let stopping = async {
            stop.cancelled().await;
            self.api.stopping.cancel();
        };
        let ((), moved, (), ()) = tokio::join!(serving, moving, nodes::keep_fresh(&self.api, &stop), stopping);
        moved
    }
}
