//! What others do: JSON in text frames of WebSocket, an ack that names the message, and a ping frame every half minute. As
//! short as such a protocol gets, so that it is not the comparison that wins.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    counted::Tally,
    line::{Line, PING, PONG, TEXT},
};
use crate::Error;

/// A server and its one client, both in this process, over a real socket. Counted at the client.
pub(super) struct Peer {
    server: Line,
    client: Line,
    number: u32,
}

impl Peer {
    pub(super) async fn start() -> Result<(Self, Arc<Tally>), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Line::accept(stream).await
        };
        let (server, opened) = tokio::join!(server, Line::open_websocket(address));
        let (mut client, tally) = opened?;
        let mut server = server?;
        let token = "x".repeat(180); // as long as a signed token
        let login = json!({ "op": "login", "app": "demo", "device": "wire-01234567", "token": token }).to_string();
        client.send(TEXT, login.as_bytes()).await?;
        heard(&mut server, TEXT).await?;
        server.send(TEXT, br#"{"op":"welcome"}"#).await?;
        heard(&mut client, TEXT).await?;
        Ok((Self { server, client, number: 0 }, tally))
    }

    /// A message and its ack.
    pub(super) async fn push(&mut self, body: &Value) -> Result<(), Error> {
        self.number += 1;
        let id = format!("msg_{:026}", self.number);
        let message =
            json!({ "op": "message", "id": id, "type": "default", "ts": "2026-11-21T08:30:00.123Z", "payload": body });
        self.server.send(TEXT, message.to_string().as_bytes()).await?;
        heard(&mut self.client, TEXT).await?;
        self.client.send(TEXT, json!({ "op": "ack", "id": id }).to_string().as_bytes()).await?;
        heard(&mut self.server, TEXT).await
    }

    /// A ping frame and its answer.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.client.send(PING, b"").await?;
        heard(&mut self.server, PING).await?;
        self.server.send(PONG, b"").await?;
        heard(&mut self.client, PONG).await
    }
}

async fn heard(line: &mut Line, wanted: u8) -> Result<(), Error> {
    let opcode = line.receive(&mut Vec::new()).await?;
    if opcode == wanted { Ok(()) } else { Err(Error::Corrupt(format!("a frame of opcode {opcode}"))) }
}
