//! A wire to a server that can be held or cut.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What is carried at once.
const CHUNK_BYTES: usize = 16 * 1_024;

/// A wire between clients of its address and a server.
pub(crate) struct Proxy {
    address: SocketAddr,
    server: Arc<Mutex<String>>,
    held: watch::Sender<bool>,
    wires: Arc<Mutex<Vec<AbortHandle>>>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// A wire to the server at `url`, `redis://host:port`.
    pub(crate) async fn new(url: &str) -> Self {
        let server = Arc::new(Mutex::new(host(url)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, hold) = watch::channel(false);
        let wires = Arc::new(Mutex::new(Vec::new()));
        let mut accepting = JoinSet::new();
        accepting.spawn({
            let (server, wires) = (Arc::clone(&server), Arc::clone(&wires));
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let wire = tokio::spawn(carry_both(client, server.lock().clone(), hold.clone()));
                    wires.lock().push(wire.abort_handle());
                }
            }
        });
        Self { address, server, held, wires, _accepting: accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Whoever connects from now on is led to another server; those who have stay where they are.
    pub(crate) fn lead_to(&self, url: &str) {
        *self.server.lock() = host(url);
    }

    /// Carries nothing until let go, like a server that is frozen: connections can still be made.
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(crate) fn let_go(&self) {
        self.held.send_replace(false);
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.wires.lock().drain(..).for_each(|wire| wire.abort());
    }
}

fn host(url: &str) -> String {
    url.trim_start_matches("redis://").trim_end_matches('/').to_owned()
}

async fn carry_both(client: TcpStream, server: String, hold: watch::Receiver<bool>) {
    let server = TcpStream::connect(server).await.unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = carry(from_client, to_server, hold.clone()) => {}
        () = carry(from_server, to_client, hold) => {}
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut hold: watch::Receiver<bool>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if hold.wait_for(|held| !held).await.is_err() || to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
