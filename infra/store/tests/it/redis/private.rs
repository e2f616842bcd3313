//! What the tests do with a Redis of their own.

use std::time::{Duration, Instant};

use deadpool_redis::redis::{Client, Connection, cmd};
use store::contract::private::Private;

/// A replica has caught up by then.
const FOLLOWS_MAX: Duration = Duration::from_secs(30);

/// One with these settings, where there is a server for tests.
pub(crate) fn start(settings: &[&str]) -> Private {
    Private::start(settings).expect("there is a Redis, and no redis-server")
}

/// A replica of another, which has everything that this one has.
pub(crate) fn replica_of(primary: &Private) -> Private {
    let port = primary.port().to_string();
    let replica = start(&["--replicaof", "127.0.0.1", &port]);
    let (mut plain, deadline) = (plain(primary), Instant::now() + FOLLOWS_MAX);
    let mut follows = || {
        cmd("INCR").arg("written").exec(&mut plain).unwrap();
        cmd("WAIT").arg(1).arg(100).query::<u32>(&mut plain).unwrap() == 1
    };
    while !follows() {
        assert!(Instant::now() < deadline, "the replica does not follow");
    }
    replica
}

/// A plain connection to it.
pub(crate) fn plain(server: &Private) -> Connection {
    Client::open(server.url()).unwrap().get_connection().unwrap()
}
