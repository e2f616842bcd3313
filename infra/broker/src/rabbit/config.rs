//! How a RabbitMQ is reached and what is asked of it.

use std::{fmt, sync::Arc, time::Duration};

use lapin::uri::{AMQPScheme, AMQPUri};
use model::Clock;
use thiserror::Error;

use crate::Limits;

/// Seconds between signs of life, when the URL does not say: a silent peer is given up after twice as long.
const HEARTBEAT_SECS: u16 = 10;

/// Why a broker's URL is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("broker URL {place}: {reason}")]
pub struct InvalidUrl {
    /// Which of the list, from 1. The URL itself may hold a password.
    place: usize,
    reason: String,
}

/// How a RabbitMQ is reached and what is asked of it.
#[derive(Clone)]
pub struct Config {
    /// The nodes of the cluster. Each connection tries them in turn.
    pub(super) urls: Vec<AMQPUri>,
    /// What every name of an exchange or queue begins with, so that deployments can share a virtual host. Empty by
    /// default.
    pub namespace: String,
    /// How much a queue may hold, as its arguments; what exists keeps what it was declared with, and policies can
    /// lower it at any time. `None` leaves limits to policies alone. `messages_max` counts AMQP messages, of which each
    /// holds up to 64 when much is published at once; `bytes_max` counts bytes in either case.
    pub limits: Option<Limits>,
    /// On how many nodes of the cluster each queue is: 1 or 3.
    pub replicas: u8,
    /// How long a publish waits for its confirm before it fails and another node is tried.
    pub confirm_timeout: Duration,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Config {
    /// A configuration for the nodes of `urls`, a list separated by commas: `amqp://user:password@host:port/vhost`.
    ///
    /// # Errors
    /// [`InvalidUrl`] when there is none, or one is not of this form. TLS (`amqps`) is not built in.
    pub fn new(urls: &str, clock: Arc<dyn Clock>) -> Result<Self, InvalidUrl> {
        let parse = |(at, url): (usize, &str)| {
            parse(url.trim()).map_err(|reason| InvalidUrl { place: at + 1, reason: reason.to_string() })
        };
        Ok(Self {
            urls: urls.split(',').enumerate().map(parse).collect::<Result<_, _>>()?,
            namespace: String::new(),
            limits: Some(Limits::default()),
            replicas: 1,
            confirm_timeout: Duration::from_secs(3),
            clock,
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.urls.iter().map(|url| format!("{}:{}", url.authority.host, url.authority.port));
        f.debug_struct("Config")
            .field("nodes", &nodes.collect::<Vec<_>>())
            .field("namespace", &self.namespace)
            .field("limits", &self.limits)
            .field("replicas", &self.replicas)
            .field("confirm_timeout", &self.confirm_timeout)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.parse()?;
    if uri.scheme != AMQPScheme::AMQP {
        return Err("only amqp:// is built in".into());
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use model::SystemClock;

    use super::*;

    #[test]
    fn urls_are_a_list_and_never_shown_with_their_passwords() {
        let config = Config::new("amqp://a:secret@one, amqp://a:secret@two:5673/%2f", Arc::new(SystemClock)).unwrap();
        let nodes: Vec<_> = config.urls.iter().map(|url| (url.authority.host.as_str(), url.query.heartbeat)).collect();
        assert_eq!(nodes, [("one", Some(10)), ("two", Some(10))]);
        assert!(!format!("{config:?}").contains("secret"));
        for wrong in ["", "redis://one", "amqps://one", "amqp://one,"] {
            assert!(Config::new(wrong, Arc::new(SystemClock)).is_err(), "{wrong}");
        }
    }
}
