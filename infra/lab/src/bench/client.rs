//! A client that costs little: one connection that stays open, a request written in one piece, and of an answer only the
//! status and the body. It is for loads whose clients share the machine with what they measure; it knows no redirects, no
//! chunks and no second try.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{Api, Error};

/// Longest wait for an answer; the platform answers or refuses within 8 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// An open connection.
pub(super) struct Client {
    stream: TcpStream,
    /// The lines of every request between its first and its length.
    lines: String,
    heard: BytesMut,
}

impl Client {
    /// Connects to the server of `api`, whose key it shows.
    ///
    /// # Errors
    /// When there is no such server.
    pub(super) async fn connect(api: &Api) -> Result<Self, Error> {
        let (bases, key) = api.credentials();
        let host = bases.first().and_then(|base| base.strip_prefix("http://")).unwrap_or_default();
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let lines = format!(
            "host: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: "
        );
        Ok(Self { stream, lines, heard: BytesMut::new() })
    }

    /// Posts a body of JSON; the body of a 2xx answer.
    ///
    /// # Errors
    /// Those of the answer, or when there is none.
    pub(super) async fn post(&mut self, path: &str, body: &str) -> Result<Bytes, Error> {
        let request = format!("POST {path} HTTP/1.1\r\n{}{}\r\n\r\n{body}", self.lines, body.len());
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.answer().await
        };
        let late = |_| Error::unavailable("no_answer", format!("none within {ANSWER_TIMEOUT:?}"));
        let (status, body) = timeout(ANSWER_TIMEOUT, exchange).await.map_err(late)??;
        if (200..300).contains(&status) { Ok(body) } else { Err(Error::of_answer(status, &body)) }
    }

    async fn answer(&mut self) -> Result<(u16, Bytes), Error> {
        loop {
            if let Some((status, head, body)) = parts(&self.heard)? {
                if self.heard.len() >= head + body {
                    self.heard.advance(head);
                    return Ok((status, self.heard.split_to(body).freeze()));
                }
                self.heard.reserve(head + body - self.heard.len());
            }
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return Err(Error::unavailable("no_answer", "the server hung up"));
            }
        }
    }
}

/// The status of an answer, and how long its head and its body are; nothing while its head is not whole.
fn parts(heard: &[u8]) -> Result<Option<(u16, usize, usize)>, Error> {
    let Some(end) = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&heard[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    match (status, length) {
        (Some(status), Some(length @ ..=ANSWER_MAX_BYTES)) => Ok(Some((status, end + 4, length))),
        _ => Err(Error::Corrupt(format!("not an answer that this client knows: {head}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_as_many_bytes_as_it_says() {
        let answer = b"HTTP/1.1 202 Accepted\r\nlocation: /x\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parts(answer).unwrap(), Some((202, answer.len() - 2, 2)));
        assert_eq!(parts(&answer[..answer.len() - 3]).unwrap(), None);
        assert!(parts(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
