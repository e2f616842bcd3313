//! What the tests do with a Redis of their own.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use deadpool_redis::redis::{Client, Connection, cmd};
use store::contract::private::{Private, free_port};

/// A replica has caught up by then.
const FOLLOWS_MAX: Duration = Duration::from_secs(30);

/// One with these settings, where there is a server for tests.
pub(crate) fn start(settings: &[&str]) -> Private {
    Private::start(settings).unwrap()
}

/// A replica of another, which has everything that this one has.
pub(crate) fn replica_of(primary: &Private) -> Private {
    let port = primary.port().to_string();
    let replica = start(&["--replicaof", "127.0.0.1", &port]);
    follows(primary);
    replica
}

/// A cluster of one node, and its replica, which has everything that the node has.
pub(crate) fn cluster() -> (Private, Private) {
    let [(node, bus), (replica, _)] = [(); 2].map(|()| {
        let bus = free_port();
        (start(&["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]), bus)
    });
    let (mut to_node, mut to_replica) = (plain(&node), plain(&replica));
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec(&mut to_node).unwrap();
    cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(node.port()).arg(bus).exec(&mut to_replica).unwrap();
    let id: String = cmd("CLUSTER").arg("MYID").query(&mut to_node).unwrap();
    eventually("they do not meet", || cmd("CLUSTER").arg("REPLICATE").arg(&id).exec(&mut to_replica).is_ok());
    let mut state = || cmd("CLUSTER").arg("INFO").query::<String>(&mut to_node).unwrap();
    eventually("the cluster is not up", || state().contains("cluster_state:ok"));
    follows(&node);
    (node, replica)
}

/// Waits until a replica has everything.
fn follows(primary: &Private) {
    let mut plain = plain(primary);
    eventually("the replica does not follow", || {
        cmd("INCR").arg("written").exec(&mut plain).unwrap();
        cmd("WAIT").arg(1).arg(100).query::<u32>(&mut plain).unwrap() == 1
    });
}

fn eventually(otherwise: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + FOLLOWS_MAX;
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        sleep(Duration::from_millis(20));
    }
}

/// A plain connection to it.
pub(crate) fn plain(server: &Private) -> Connection {
    Client::open(server.url()).unwrap().get_connection().unwrap()
}
