//! What the store in Redis promises, on the server that `TEST_REDIS_URL` names. Without it these tests say that they
//! are skipped; with `TEST_REQUIRE_SERVERS=1` they fail instead.

mod changes;
mod faults;
mod measure;
mod place;
mod private;
mod proxy;
mod swept;

mod contract {
    //! The promises of every store, kept by Redis.

    use super::place::Server;

    store::contract_suite!(match Server::new() {
        Some(server) => server,
        None => return,
    });
}

mod cluster {
    //! The promises of every store, kept by a Redis Cluster of several nodes: the one that `TEST_REDIS_CLUSTER_URL` names.

    use super::place::Server;

    store::contract_suite!(match Server::of_cluster() {
        Some(server) => server,
        None => return,
    });
}
