//! From HTTP/1.1 to WebSocket: which requests may, and the answer. It knows no socket, so whoever serves HTTP can use it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Where devices ask for it.
pub(crate) const PATH: &str = "/mqtt";

/// The subprotocol that must be among those offered (MQTT 5, 6).
const SUBPROTOCOL: &str = "mqtt";

/// What RFC 6455 has appended to the client's key.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key of 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Room for what is asked, in headers: browsers send 15 to 25.
const HEADERS_MAX: usize = 64;

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// More of the head must come.
    Unfinished,
    /// Say this; then frames follow, the first of them perhaps behind so many bytes of the request.
    Upgrade(String, usize),
    /// Say this, and close.
    Refuse(String),
    /// It is for somebody else.
    Elsewhere,
}

/// Reads the head of a request.
pub(crate) fn answer(bytes: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Answer::Unfinished,
        Err(_) => return refuse("400 Bad Request", ""),
    };
    let path = request.path.and_then(|target| target.split('?').next());
    if path != Some(PATH) {
        return Answer::Elsewhere;
    }
    let has = |name, token| lists(&request, name, token);
    if request.method != Some("GET") || request.version != Some(1) || !has("upgrade", "websocket") {
        return refuse("426 Upgrade Required", "Upgrade: websocket\r\n");
    }
    if !has("sec-websocket-version", "13") {
        return refuse("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n");
    }
    let key = values(&request, "sec-websocket-key").next().filter(|key| key.len() == KEY_CHARS);
    match key {
        Some(key) if has("connection", "upgrade") && has("sec-websocket-protocol", SUBPROTOCOL) => {
            Answer::Upgrade(switching(key), head_bytes)
        }
        _ => refuse("400 Bad Request", ""),
    }
}

fn values<'a>(request: &'a httparse::Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.filter_map(|header| std::str::from_utf8(header.value).ok())
}

fn lists(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    values(request, name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The answer to a good request with this key.
pub(crate) fn switching(key: &str) -> String {
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{MAGIC}").as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
}

fn refuse(status: &str, headers: &str) -> Answer {
    Answer::Refuse(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                        Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";

    #[test]
    fn a_good_request_is_answered_as_the_rfc_says_and_what_follows_is_left() {
        let Answer::Upgrade(answer, head_bytes) = answer(&[GOOD.as_bytes(), b"frames"].concat()) else {
            panic!("refused");
        };
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        assert_eq!(head_bytes, GOOD.len());
        for end in 0..GOOD.len() {
            assert_eq!(super::answer(&GOOD.as_bytes()[..end]), Answer::Unfinished);
        }
    }

    #[test]
    fn other_requests_are_refused_with_what_is_wrong() {
        for other in ["GET /", "GET /mqttx"] {
            assert_eq!(answer(GOOD.replacen("GET /mqtt", other, 1).as_bytes()), Answer::Elsewhere);
        }
        for (from, to, status) in [
            ("GET", "POST", "426"),
            ("HTTP/1.1", "HTTP/1.0", "426"),
            ("Upgrade: WebSocket", "Upgrade: h2c", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("keep-alive, Upgrade", "keep-alive", "400"),
            ("mqttv3.1, mqtt", "mqttv3.1", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
            ("Host: a", "Host a", "400"),
        ] {
            let Answer::Refuse(answer) = answer(GOOD.replacen(from, to, 1).as_bytes()) else {
                panic!("{to} was not refused");
            };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer}");
        }
    }
}
