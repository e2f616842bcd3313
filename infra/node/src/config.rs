//! Settings: the built-in reference file, the operator's file, the environment; later ones win.
//! The only place that reads flags, files and the environment for the tiers.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use config::{Environment, File, FileFormat};
use model::{NodeId, SystemClock};
use serde::Deserialize;

/// What of the grace is left when devices were moved away: for the last of them, and for what they have told.
const LAST_WORDS: Duration = Duration::from_secs(7);

/// Every setting with its default and what it means.
pub(crate) const REFERENCE: &str = include_str!("../fanfare.toml");

/// As long as 128 random bits in Base64.
const FILTER_SECRET_MIN_BYTES: usize = 22;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    shutdown_grace_s: u64,
    pub(crate) log: Log,
    pub(crate) metrics: Metrics,
    pub(crate) ingest: Ingest,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) access_point: AccessPoint,
    pub(crate) filter: Filter,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Broker {
    /// RabbitMQ; absent: embedded.
    pub(crate) url: Option<String>,
    namespace: String,
    replicas: u8,
    confirm_timeout_ms: u64,
    queue_messages_max: u64,
    queue_bytes_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// Redis; absent: embedded.
    pub(crate) url: Option<String>,
    routes_url: Option<String>,
    prefix: String,
    replicas: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: SocketAddr,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ingest {
    pub(crate) listen: SocketAddr,
    pub(crate) connections_max: usize,
    pub(crate) requests_max: usize,
    pub(crate) body_max_bytes: usize,
    pub(crate) payload_max_bytes: usize,
    pub(crate) callback_hosts: Vec<String>,
    pub(crate) callback_allow_private: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dispatcher {
    pub(crate) prefetch: usize,
    pub(crate) attempts_max: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessPoint {
    pub(crate) listen: SocketAddr,
    /// The same under TLS; absent: not.
    pub(crate) tls_listen: Option<SocketAddr>,
    tls_certificate: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    proxies: Vec<access_point::Network>,
    /// Host and port as devices reach it; absent: `listen`.
    pub(crate) advertise: Option<String>,
    /// The same under TLS; absent: `tls_listen`.
    pub(crate) tls_advertise: Option<String>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: usize,
    connects_per_s: Option<u32>,
    pub(crate) keep_alive_s: u16,
    pub(crate) keep_alive_min_s: u16,
    pub(crate) keep_alive_max_s: u16,
    pub(crate) ack_timeout_s: u64,
    pub(crate) auto_register: bool,
    pub(crate) sweep_s: u64,
    pub(crate) drain_wait_s: u64,
    pub(crate) drain_per_s: NonZeroU32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    pub(crate) listen: SocketAddr,
    /// Host and port as other nodes reach it; absent: `listen`.
    pub(crate) advertise: Option<String>,
    /// What nodes show each other.
    pub(crate) secret: Option<String>,
    memory_max_bytes: usize,
}

impl Config {
    /// Reads and checks the settings.
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut sources = config::Config::builder().add_source(File::from_str(REFERENCE, FileFormat::Toml));
        if let Some(file) = file {
            ensure!(file.is_file(), "there is no configuration file {}", file.display());
            sources = sources.add_source(File::from(file).format(FileFormat::Toml));
        }
        let environment = Environment::with_prefix("FANFARE").prefix_separator("__").separator("__").try_parsing(true);
        let environment = environment.list_separator(",").with_list_parse_key("access_point.proxies");
        let environment = environment.with_list_parse_key("ingest.callback_hosts");
        let config: Self = sources
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .context("the configuration cannot be used; `fanfare config` prints the reference")?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_s)
    }

    pub(crate) fn ingest(&self) -> ingest::Config {
        let Ingest { connections_max, requests_max, body_max_bytes, payload_max_bytes, .. } = self.ingest;
        let unicast_shards = self.broker.replicas;
        let callbacks = ingest::Callbacks {
            hosts: self.ingest.callback_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allow_private: self.ingest.callback_allow_private,
        };
        ingest::Config { connections_max, requests_max, body_max_bytes, payload_max_bytes, unicast_shards, callbacks }
    }

    pub(crate) fn dispatcher(&self) -> dispatcher::Config {
        let Dispatcher { prefetch, attempts_max } = self.dispatcher;
        dispatcher::Config { prefetch, attempts_max }
    }

    pub(crate) fn access_point(&self) -> access_point::Config {
        let settings = &self.access_point;
        let defaults = access_point::Config::new(self.node.clone());
        access_point::Config {
            connections_max: settings.connections_max,
            connections_per_address_max: NonZeroUsize::new(settings.connections_per_address_max),
            connects_per_s: settings.connects_per_s.map_or(defaults.connects_per_s, NonZeroU32::new),
            keep_alive: access_point::KeepAlive {
                default_s: settings.keep_alive_s,
                min_s: settings.keep_alive_min_s,
                max_s: settings.keep_alive_max_s,
            },
            ack_timeout: Duration::from_secs(settings.ack_timeout_s),
            auto_register: settings.auto_register,
            unicast_shards: self.broker.replicas,
            sweep: Duration::from_secs(settings.sweep_s),
            drain: access_point::Drain {
                wait: Duration::from_secs(settings.drain_wait_s),
                per_s: settings.drain_per_s,
                within: self.shutdown_grace().saturating_sub(Duration::from_secs(settings.drain_wait_s) + LAST_WORDS),
            },
            proxies: settings.proxies.clone(),
            ..defaults
        }
    }

    /// Where devices come in under TLS, and the files that say who the server is, if that is wanted.
    pub(crate) fn tls(&self) -> Option<(SocketAddr, access_point::TlsFiles)> {
        let AccessPoint { tls_listen, tls_certificate, tls_key, .. } = &self.access_point;
        let files = access_point::TlsFiles { certificate: tls_certificate.clone()?, key: tls_key.clone()? };
        tls_listen.map(|listen| (listen, files))
    }

    /// How much a queue may hold.
    pub(crate) fn queue_limits(&self) -> broker::Limits {
        broker::Limits { messages_max: self.broker.queue_messages_max, bytes_max: self.broker.queue_bytes_max }
    }

    /// The broker on RabbitMQ, if that is what is wanted.
    pub(crate) fn rabbit(&self) -> anyhow::Result<Option<broker::rabbit::Config>> {
        let Some(urls) = &self.broker.url else { return Ok(None) };
        let mut config = broker::rabbit::Config::new(urls, Arc::new(SystemClock)).context("broker.url")?;
        config.namespace = self.broker.namespace.clone();
        config.limits = Some(self.queue_limits());
        config.replicas = self.broker.replicas;
        config.confirm_timeout = Duration::from_millis(self.broker.confirm_timeout_ms);
        Ok(Some(config))
    }

    /// The store in Redis, if that is what is wanted.
    pub(crate) fn redis(&self) -> Option<store::redis::Config> {
        let url = self.store.url.as_ref()?;
        Some(store::redis::Config {
            routes_url: self.store.routes_url.clone(),
            prefix: self.store.prefix.clone(),
            replicas: self.store.replicas,
            ..store::redis::Config::new(url)
        })
    }

    pub(crate) fn filter(&self) -> filter::Config {
        filter::Config {
            node: self.node.clone(),
            snapshots: self.data_dir.join("filter"),
            memory_max_bytes: self.filter.memory_max_bytes,
        }
    }

    pub(crate) fn stats(&self) -> stats::Config {
        stats::Config { node: self.node.clone() }
    }

    /// Refuses values that parse but cannot work.
    fn check(&self) -> anyhow::Result<()> {
        let ap = &self.access_point;
        ensure!(
            ap.keep_alive_min_s <= ap.keep_alive_s && ap.keep_alive_s <= ap.keep_alive_max_s,
            "access_point: keep_alive_min_s <= keep_alive_s <= keep_alive_max_s must hold"
        );
        for (name, value) in [
            ("ingest.connections_max", self.ingest.connections_max),
            ("ingest.requests_max", self.ingest.requests_max),
            ("ingest.body_max_bytes", self.ingest.body_max_bytes),
            ("dispatcher.prefetch", self.dispatcher.prefetch),
            ("access_point.connections_max", ap.connections_max),
        ] {
            ensure!(value > 0, "{name} must be greater than 0");
        }
        ensure!(self.dispatcher.attempts_max > 0, "dispatcher.attempts_max must be greater than 0");
        ensure!(
            ap.ack_timeout_s > 0 && ap.sweep_s > 0,
            "access_point: ack_timeout_s and sweep_s must be greater than 0"
        );
        ensure!(
            [ap.tls_certificate.is_some(), ap.tls_key.is_some()] == [ap.tls_listen.is_some(); 2]
                && (ap.tls_listen.is_some() || ap.tls_advertise.is_none()),
            "access_point: tls_listen, tls_certificate and tls_key belong together, and tls_advertise is for what listens there"
        );
        for (listen, address, advertise, is_said) in [
            ("access_point.listen", Some(ap.listen), "access_point.advertise", ap.advertise.is_some()),
            ("access_point.tls_listen", ap.tls_listen, "access_point.tls_advertise", ap.tls_advertise.is_some()),
            ("filter.listen", Some(self.filter.listen), "filter.advertise", self.filter.advertise.is_some()),
        ] {
            ensure!(
                is_said || address.is_none_or(|address| !address.ip().is_unspecified()),
                "{listen} is every address: say in {advertise} at which one it is reached"
            );
        }
        ensure!(
            self.ingest.payload_max_bytes <= self.ingest.body_max_bytes,
            "ingest.payload_max_bytes must not exceed ingest.body_max_bytes"
        );
        ensure!(
            self.broker.namespace.is_empty() || self.broker.namespace.ends_with('.'),
            "broker.namespace must end with a dot: by it the policies of RabbitMQ know the queues"
        );
        ensure!([1, 3].contains(&self.broker.replicas), "broker.replicas must be 1 or 3");
        ensure!(self.broker.confirm_timeout_ms > 0, "broker.confirm_timeout_ms must be greater than 0");
        ensure!(
            self.store.routes_url.is_none() || self.store.url.is_some(),
            "store.routes_url is for routes beside a store in Redis: set store.url too"
        );
        ensure!(
            self.store.replicas == 0 || self.store.url.is_some(),
            "store.replicas are replicas of Redis: set store.url too"
        );
        ensure!(
            self.filter.listen.ip().is_loopback() || self.filter.secret.is_some(),
            "filter.listen can be reached from other machines: set filter.secret, the same on every node"
        );
        let short = self.filter.secret.as_ref().is_some_and(|secret| secret.len() < FILTER_SECRET_MIN_BYTES);
        ensure!(
            !short,
            "filter.secret must have at least {FILTER_SECRET_MIN_BYTES} characters: `openssl rand -hex 16`"
        );
        self.rabbit().map(drop)
    }

    /// The listeners that people outside this machine can reach.
    pub(crate) fn public_listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let all = [
            ("ingest.listen", Some(self.ingest.listen)),
            ("access_point.listen", Some(self.access_point.listen)),
            ("access_point.tls_listen", self.access_point.tls_listen),
        ];
        let bound = all.into_iter().filter_map(|(name, address)| Some((name, address?)));
        bound.filter(|(_, address)| !address.ip().is_loopback()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fanfare.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file))
    }

    #[test]
    fn the_reference_is_a_whole_configuration() {
        let config = Config::load(None).unwrap();
        assert_eq!(config.ingest.listen.port(), 8080);
        assert!(config.public_listeners().is_empty());
    }

    #[test]
    fn what_differs_is_enough_and_what_is_wrong_is_named() {
        assert_eq!(load("[ingest]\nlisten = \"0.0.0.0:9\"").unwrap().public_listeners().len(), 1);
        for (text, named) in [
            ("[ingest]\nlisten = \"nowhere\"", "listen"),
            ("[ingest]\nlistne = \"127.0.0.1:1\"", "listne"),
            ("node = \"a b\"", "node id"),
            ("[dispatcher]\nprefetch = 0", "dispatcher.prefetch"),
            ("[access_point]\nkeep_alive_s = 5", "keep_alive_min_s"),
            ("[access_point]\ntls_listen = \"127.0.0.1:8883\"", "tls_certificate"),
            ("[access_point]\ntls_certificate = \"a\"\ntls_key = \"b\"", "tls_listen"),
            ("[access_point]\ntls_advertise = \"push-1.example.com:443\"", "tls_listen"),
            ("[access_point]\nlisten = \"0.0.0.0:1883\"", "access_point.advertise"),
            ("[access_point]\nlisten = \"[::]:1883\"", "access_point.advertise"),
            (
                "[access_point]\ntls_listen = \"0.0.0.0:1\"\ntls_certificate = \"a\"\ntls_key = \"b\"",
                "access_point.tls_advertise",
            ),
            ("[access_point]\nproxies = [\"10.0.0.0/33\"]", "10.0.0.0/33"),
            ("[broker]\nurl = \"amqps://localhost\"", "broker.url"),
            ("[broker]\nreplicas = 2", "broker.replicas"),
            ("[broker]\nnamespace = \"blue\"", "with a dot"),
            ("[store]\nreplicas = 1", "store.url"),
            ("[filter]\nlisten = \"10.0.0.1:1\"", "filter.secret"),
            ("[filter]\nlisten = \"0.0.0.0:1\"\nsecret = \"0123456789012345678901\"", "filter.advertise"),
            ("[filter]\nsecret = \"guess me\"", "at least 22"),
            ("[store]\nroutes_url = \"redis://localhost\"", "store.url"),
        ] {
            let error = format!("{:#}", load(text).expect_err(text));
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
