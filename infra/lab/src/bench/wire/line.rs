//! A counted way to a server: TCP, TLS on it, or the frames of WebSocket on that.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    WireTarget,
    counted::{Counted, Tally},
};
use crate::Error;

/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest frame or head that is read.
const READ_MAX_BYTES: usize = 256 * 1_024;

/// Opcodes of WebSocket.
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// How a device reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Tcp,
    Tls,
    WebSocket,
}

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One end of a connection.
pub(super) struct Line {
    stream: Box<dyn Duplex>,
    framed: bool,
    /// A client's frames are masked.
    is_client: bool,
}

impl Line {
    /// Connects to the server, as a client of MQTT.
    pub(super) async fn open(target: &WireTarget, via: Via) -> Result<(Self, Arc<Tally>), Error> {
        if let (Via::Tls, Some((address, authority))) = (via, &target.tls) {
            let (stream, tally) = dial(*address).await?;
            let name = ServerName::try_from("localhost").map_err(|error| Error::Corrupt(error.to_string()))?;
            let stream = TlsConnector::from(Arc::new(trusting(authority)?)).connect(name, stream).await?;
            return Ok((Self { stream: Box::new(stream), framed: false, is_client: true }, tally));
        }
        let (stream, tally) = dial(target.mqtt).await?;
        let mut line = Self { stream: Box::new(stream), framed: false, is_client: true };
        if via == Via::WebSocket {
            line.upgrade("/mqtt", Some("mqtt")).await?;
        }
        Ok((line, tally))
    }

    /// Connects to somebody who speaks WebSocket at `/`.
    pub(super) async fn open_websocket(address: SocketAddr) -> Result<(Self, Arc<Tally>), Error> {
        let (stream, tally) = dial(address).await?;
        let mut line = Self { stream: Box::new(stream), framed: false, is_client: true };
        line.upgrade("/", None).await?;
        Ok((line, tally))
    }

    /// The other end of that: answers an upgrade.
    pub(super) async fn accept(stream: TcpStream) -> Result<Self, Error> {
        let mut line = Self { stream: Box::new(stream), framed: false, is_client: false };
        line.head().await?;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        line.stream.write_all(answer.as_bytes()).await?;
        line.framed = true;
        Ok(line)
    }

    /// As short as an upgrade of a browser gets; its key is the one of the RFC.
    async fn upgrade(&mut self, path: &str, protocol: Option<&str>) -> Result<(), Error> {
        let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: push.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        let head = self.head().await?;
        self.framed = true;
        if head.starts_with(b"HTTP/1.1 101") { Ok(()) } else { Err(Error::Corrupt("no upgrade".to_owned())) }
    }

    /// Reads up to the empty line, byte by byte: a frame may follow at once.
    async fn head(&mut self) -> Result<Vec<u8>, Error> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < READ_MAX_BYTES {
            head.push(self.stream.read_u8().await?);
        }
        Ok(head)
    }

    /// Sends bytes, in one frame where there are frames.
    pub(super) async fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Error> {
        let bytes = if self.framed { self.frame(opcode, payload) } else { payload.to_vec() };
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    fn frame(&self, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let masked = u8::from(self.is_client) << 7;
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(len @ ..=125), _) => frame.push(masked | len),
            (_, Ok(len)) => {
                frame.push(masked | 126);
                frame.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                frame.push(masked | 127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        if !self.is_client {
            frame.extend_from_slice(payload);
            return frame;
        }
        let mask: [u8; 4] = rand::random();
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Appends what comes next: some bytes, or a frame, whose opcode is given back.
    pub(super) async fn receive(&mut self, into: &mut Vec<u8>) -> Result<u8, Error> {
        let late = |_| Error::unavailable("wire", format!("nothing came within {PATIENCE:?}"));
        if self.framed {
            return timeout(PATIENCE, self.receive_frame(into)).await.map_err(late)?;
        }
        match timeout(PATIENCE, self.stream.read_buf(into)).await.map_err(late)?? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(BINARY),
        }
    }

    async fn receive_frame(&mut self, into: &mut Vec<u8>) -> Result<u8, Error> {
        let mut header = [0; 2];
        self.stream.read_exact(&mut header).await?;
        let len = match header[1] & 0x7F {
            126 => usize::from(self.stream.read_u16().await?),
            127 => usize::try_from(self.stream.read_u64().await?).unwrap_or(usize::MAX),
            len => usize::from(len),
        };
        if len > READ_MAX_BYTES {
            return Err(Error::Corrupt(format!("a frame of {len} bytes")));
        }
        let mut mask = [0; 4];
        if header[1] & 0x80 != 0 {
            self.stream.read_exact(&mut mask).await?;
        }
        let start = into.len();
        into.resize(start + len, 0);
        self.stream.read_exact(&mut into[start..]).await?;
        into[start..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(header[0] & 0x0F)
    }
}

async fn dial(address: SocketAddr) -> Result<(tokio::io::BufReader<Counted>, Arc<Tally>), Error> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| Error::unavailable("wire", format!("no connection to {address}")))??;
    stream.set_nodelay(true)?;
    let (counted, tally) = Counted::new(stream);
    // Small reads come out of a buffer: the socket is read, and counted, as the segments come.
    Ok((tokio::io::BufReader::new(counted), tally))
}

fn trusting(authority: &Path) -> Result<ClientConfig, Error> {
    let broken = |error: String| Error::Corrupt(error);
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(authority).map_err(|error| broken(error.to_string()))?;
    roots.add(authority).map_err(|error| broken(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| broken(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
