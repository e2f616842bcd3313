//! Every way to an access point: TCP, TLS, WebSocket on either. The other end of TLS is tokio-rustls; the other end of
//! WebSocket is written here, so that it can also do what no client would.

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc};

use access_point::{Certificates, Config, TlsFiles};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, duplex, split},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::bench::Bench;

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A way to the access point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Tcp,
    Tls,
    WebSocket,
    Wss,
}

impl Via {
    pub(crate) const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::WebSocket, Self::Wss];
}

/// Room between a client and its frames.
const PIPE_BYTES: usize = 64 * 1024;

/// A server that clients can trust.
pub(crate) struct Identity {
    pub(crate) dir: TempDir,
    pub(crate) certificates: Arc<Certificates>,
    /// What clients trust it with; they remember sessions.
    pub(crate) trust: Arc<ClientConfig>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certify(dir.path());
        let certificates = Certificates::load(files(dir.path())).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        Self { dir, certificates, trust: Arc::new(config.with_root_certificates(roots).with_no_client_auth()) }
    }

    pub(crate) async fn bench(&self, config: Config) -> Bench {
        Bench::start_as(config, self.certificates.clone()).await
    }

    pub(crate) async fn dial(&self, bench: &Bench, via: Via) -> Box<dyn Duplex> {
        match via {
            Via::Tcp => Box::new(TcpStream::connect(bench.address).await.unwrap()),
            Via::Tls => Box::new(self.secure(bench.tls.unwrap()).await),
            Via::WebSocket => Box::new(bytes_of(TcpStream::connect(bench.address).await.unwrap()).await),
            Via::Wss => Box::new(bytes_of(self.secure(bench.tls.unwrap()).await).await),
        }
    }

    pub(crate) async fn secure(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.trust.clone()).connect(name, socket).await.unwrap()
    }
}

/// Puts a certificate into a folder; another one when there is one.
pub(crate) fn certify(dir: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/certificate");
    assert!(Command::new(script).arg(dir).status().unwrap().success());
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") }
}

/// The request of a client that means it.
pub(crate) const UPGRADE: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A frame of a client.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xA5, 0x5A, 0xC3, 0x3C];
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The next frame of the server: its first byte and its payload; `None` when the connection is closed.
pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.ok()?;
    let len = match header[1] {
        126 => usize::from(stream.read_u16().await.ok()?),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.ok()?;
    Some((header[0], payload))
}

/// Asks for WebSocket, and reads the answer.
pub(crate) async fn upgrade(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

/// A stream of bytes on WebSocket.
async fn bytes_of(mut stream: impl Duplex + 'static) -> impl Duplex {
    assert!(upgrade(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let (near, far) = duplex(PIPE_BYTES);
    let ((reads, writes), (from_client, to_client)) = (split(stream), split(far));
    tokio::spawn(unframe(reads, to_client));
    tokio::spawn(enframe(from_client, writes));
    near
}

async fn unframe(mut reads: ReadHalf<impl Duplex>, mut to_client: WriteHalf<impl Duplex>) {
    while let Some((first, payload)) = next_frame(&mut reads).await {
        match first {
            0x82 => to_client.write_all(&payload).await.unwrap_or_default(),
            0x88 => break,
            other => panic!("a frame of kind {other:#x}"),
        }
    }
    let _ = to_client.shutdown().await;
}

async fn enframe(mut from_client: ReadHalf<impl Duplex>, mut writes: WriteHalf<impl Duplex>) {
    let mut bytes = vec![0; PIPE_BYTES];
    while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
        if writes.write_all(&frame(0x82, &bytes[..read])).await.is_err() || writes.flush().await.is_err() {
            return;
        }
    }
}
