//! A network between a broker and its server that can be cut, or swallow everything.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Everything passes.
    Open,
    /// Connections stand, and nothing passes.
    Silent,
    /// Connections are closed at once.
    Cut,
}

/// A network to one server, for as long as it lives.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    network: watch::Sender<Network>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, state) = watch::channel(Network::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, state));
        Self { address, network, _tasks: tasks }
    }

    pub(super) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn accept(listener: TcpListener, server: String, state: watch::Receiver<Network>) {
    let mut passing = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (server, mut state) = (server.clone(), state.clone());
        passing.spawn(async move {
            let cut = state.clone();
            let pass = async move {
                state.wait_for(|network| *network != Network::Silent).await.unwrap();
                let server = TcpStream::connect(server).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::join!(pass(from_client, to_server, state.clone()), pass(from_server, to_client, state));
            };
            tokio::select! {
                () = pass => {}
                () = is_cut(cut) => {}
            }
        });
    }
}

async fn is_cut(mut state: watch::Receiver<Network>) {
    // The test is over when it fails.
    let _ = state.wait_for(|network| *network == Network::Cut).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Network>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else {
            return;
        };
        if state.wait_for(|network| *network == Network::Open).await.is_err()
            || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}
