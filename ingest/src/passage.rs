//! Devices on the HTTP port: a connection on which one asks for WebSocket or for events is handed on, with what it asked,
//! to whoever serves devices. Knows nothing of what is then spoken.

use std::{error::Error as _, fmt::Write as _, net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, Version, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use thiserror::Error;
use tokio::net::TcpStream;

/// Takes a connection over: the socket, the other end of it, and what came from there, from the first byte of the
/// request on.
pub type Passage = Arc<dyn Fn(TcpStream, SocketAddr, Vec<u8>) + Send + Sync>;

/// Where devices ask for WebSocket, and for events; what they post is below.
const WEBSOCKET: &str = "/mqtt";
const EVENTS: &str = "/v1/stream";

/// The largest body that is read for a device: what it may send up, with room to spare. A larger one is announced as it
/// was and left out, for its length alone will be refused.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// How a body travels, which changes on the way.
const OF_THE_BODY: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];

/// A device has asked this. No error: there is no other way to have hyper give a socket back.
#[derive(Debug, Error)]
#[error("handed on to whoever serves devices")]
pub(crate) struct Passed(pub(crate) Vec<u8>);

impl Passed {
    /// What a device has asked, if that is why a connection ended here.
    pub(crate) fn of(error: &hyper::Error) -> Option<&Self> {
        error.source()?.downcast_ref()
    }
}

/// Whether a path is one of those that devices ask for.
pub(crate) fn is_of_devices(path: &str) -> bool {
    path == WEBSOCKET || path.strip_prefix(EVENTS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A request as it came, but for how its body travels.
pub(crate) async fn written(request: Request) -> Passed {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let minor = u8::from(parts.version == Version::HTTP_11);
    let (length, body) = collected(&parts.headers, body).await;
    let mut head = format!("{} {target} HTTP/1.{minor}\r\n", parts.method);
    if let Some(length) = length {
        let _ = write!(head, "Content-Length: {length}\r\n"); // a String takes everything
    }
    let mut bytes = head.into_bytes();
    for (name, value) in parts.headers.iter().filter(|(name, _)| !OF_THE_BODY.contains(name)) {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend([b"\r\n", &*body].concat());
    Passed(bytes)
}

/// A body and its length; of a larger one the length alone.
async fn collected(headers: &HeaderMap, body: Body) -> (Option<usize>, Bytes) {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > BODY_MAX_BYTES) {
        return (announced, Bytes::new());
    }
    let Ok(body) = Limited::new(body, BODY_MAX_BYTES).collect().await else {
        return (Some(BODY_MAX_BYTES + 1), Bytes::new());
    };
    let body = body.to_bytes();
    ((!body.is_empty()).then_some(body.len()), body)
}

/// Hands a connection on.
pub(crate) fn pass(passage: &Passage, socket: TcpStream, read: Vec<u8>) {
    match socket.peer_addr() {
        Ok(from) => passage(socket, from, read),
        Err(error) => tracing::debug!(%error, "a device is gone already"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_ask_for_what_the_contract_names() {
        for (path, is) in [
            ("/mqtt", true),
            ("/v1/stream", true),
            ("/v1/stream/up/gps", true),
            ("/mqttx", false),
            ("/mqtt/", false),
            ("/v1/streams", false),
            ("/v1/messages", false),
        ] {
            assert_eq!(is_of_devices(path), is, "{path}");
        }
    }

    #[tokio::test]
    async fn a_request_is_handed_on_as_it_was_but_for_how_its_body_travels() {
        let asked =
            Request::post("/v1/stream/ack?token=a.b").header("host", "x").header("transfer-encoding", "chunked");
        let Passed(bytes) = written(asked.body(Body::from("{}")).unwrap()).await;
        let expected = "POST /v1/stream/ack?token=a.b HTTP/1.1\r\nContent-Length: 2\r\nhost: x\r\n\r\n{}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        let upgrade = Request::get("/mqtt").version(Version::HTTP_10).header("Upgrade", "websocket");
        let Passed(bytes) = written(upgrade.body(Body::empty()).unwrap()).await;
        assert_eq!(String::from_utf8(bytes).unwrap(), "GET /mqtt HTTP/1.0\r\nupgrade: websocket\r\n\r\n");
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_left_out_and_its_length_told() {
        let body = || Body::from(vec![b'x'; BODY_MAX_BYTES + 1]);
        let length = "Content-Length: 65537\r\n";
        for asked in
            [Request::post("/v1/stream/ack"), Request::post("/v1/stream/ack").header("content-length", "65537")]
        {
            let Passed(bytes) = written(asked.body(body()).unwrap()).await;
            assert_eq!(String::from_utf8(bytes).unwrap(), format!("POST /v1/stream/ack HTTP/1.1\r\n{length}\r\n"));
        }
    }
}
