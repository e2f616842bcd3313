//! What a URL of Redis means: one server, the master that Sentinels know, or a cluster.

use deadpool_redis::redis::{
    Client, IntoConnectionInfo as _, RedisError,
    cluster::ClusterClient,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::link::Limits;
use crate::Error;

/// Where to connect to.
pub(super) enum Target {
    /// `redis://…` or `rediss://…`, `unix://…`.
    One(Box<Client>),
    /// `redis+sentinel://[user:password@]host:port,host:port/master[/db]`: each Sentinel by itself, so that whichever
    /// answers is enough. Asking changes what is known of it.
    Sentinel(Vec<Mutex<SentinelClient>>),
    /// `redis+cluster://[user:password@]host:port,host:port`.
    Cluster(Box<ClusterClient>),
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// Rejected when it is none of the above.
    pub(super) fn parse(url: &str, limits: Limits) -> Result<Self, Error> {
        let parsed = if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            sentinel(rest)
        } else if let Some(rest) = url.strip_prefix("redis+cluster://") {
            cluster(rest, limits).map(|client| Self::Cluster(Box::new(client)))
        } else {
            Client::open(url).map(|client| Self::One(Box::new(client)))
        };
        // The URL may carry a password: it is not repeated.
        parsed.map_err(|error| Error::Rejected(format!("not a URL of Redis: {error}")))
    }
}

/// Retries inside follow a moved slot. They also repeat what was under way on a connection that was lost: in a cluster
/// even a call that is to be done once may be answered as if it had been done before. The deadline of a call is kept above.
fn cluster(rest: &str, limits: Limits) -> Result<ClusterClient, RedisError> {
    let builder = ClusterClient::builder(each(rest).1).retries(2).max_retry_wait(64);
    // It first waits for each of the nodes named here, then for each that these name, and is to be done by then.
    builder.connection_timeout(limits.connect / 3).response_timeout(limits.response).build()
}

/// The part before the hosts, with its `@`, and a plain URL for each of them.
fn each(hosts: &str) -> (&str, Vec<String>) {
    let (login, hosts) = hosts.split_at(hosts.rfind('@').map_or(0, |at| at + 1));
    (login, hosts.split(',').map(|host| format!("redis://{login}{host}")).collect())
}

fn sentinel(rest: &str) -> Result<Target, RedisError> {
    let (login, hosts) = rest.split_at(rest.rfind('@').map_or(0, |at| at + 1));
    let (hosts, service) = hosts.split_once('/').unwrap_or((hosts, ""));
    let (master, db) = service.split_once('/').unwrap_or((service, "0"));
    let node = format!("redis://{login}{}/{db}", hosts.split(',').next().unwrap_or_default()).into_connection_info()?;
    let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(node.redis_settings().clone());
    let client =
        |url| SentinelClient::build(vec![url], master, Some(node.clone()), SentinelServerType::Master).map(Mutex::new);
    each(hosts).1.into_iter().map(client).collect::<Result<_, _>>().map(Target::Sentinel)
}
