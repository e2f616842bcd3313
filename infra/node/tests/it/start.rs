//! A process that starts before its servers do.

use std::{fs, net::SocketAddr, time::Duration};

use lab::fault::{Launch, Server, steady_address};
use tokio::{io::copy_bidirectional, net, time};

use crate::sandbox::{On, Sandbox};

/// How often the log is read for the words that are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Lets whoever comes to `door` through to `server`.
async fn relay(door: SocketAddr, server: String) {
    let listener = net::TcpListener::bind(door).await.unwrap();
    while let Ok((mut client, _)) = listener.accept().await {
        let server = server.clone();
        tokio::spawn(async move {
            let mut server = net::TcpStream::connect(server).await.unwrap();
            // Either side may end as it likes.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_waits_for_a_redis_that_starts_after_it() {
    let Some(sandbox) = Sandbox::on(On::Servers) else { return };
    let door = steady_address().unwrap();
    let mut environment = sandbox.environment();
    let (_, url) = environment.iter_mut().find(|(name, _)| name == "FANFARE__STORE__URL").unwrap();
    let behind = url.strip_prefix("redis://").unwrap();
    let (server, database) = behind.split_once('/').unwrap_or((behind, ""));
    let server = server.to_owned();
    *url = format!("redis://{door}/{database}");
    let launch = Launch { environment, ..sandbox.launch() };

    let api = sandbox.api();
    let starting = tokio::spawn(async move { Server::start(&launch, &api).await });
    while !fs::read_to_string(sandbox.log()).unwrap_or_default().contains("cannot start yet") {
        assert!(!starting.is_finished(), "it did not wait");
        time::sleep(LOOK_EVERY).await;
    }
    tokio::spawn(relay(door, server));
    starting.await.unwrap().unwrap().kill().await.unwrap();
}
