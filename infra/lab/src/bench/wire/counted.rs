//! A socket that counts what goes through it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Payload of a full segment, in bytes.
const SEGMENT_MAX_BYTES: u64 = 1_448;
/// Headers of a segment: IPv4 20, TCP 20 and 12 for its timestamps.
pub(super) const HEADER_BYTES: f64 = 52.0;

/// What went through a socket, each way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    up_bytes: u64,
    down_bytes: u64,
    /// Segments of both ways, as far as can be told from reads and writes.
    segments: u64,
}

/// The same for each of many exchanges.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Each {
    /// From the device, as TCP payload.
    pub up_bytes: f64,
    /// To the device, as TCP payload.
    pub down_bytes: f64,
    /// With headers, both ways: an estimate.
    pub with_headers_bytes: f64,
}

impl Traffic {
    /// With one segment more for each exchange, which acks its last.
    pub(super) fn with_bare_acks(self, exchanges: u32) -> Self {
        Self { segments: self.segments + u64::from(exchanges), ..self }
    }

    /// For each of `count`.
    pub(super) fn each(self, count: u32) -> Each {
        let each = |bytes: u64| bytes as f64 / f64::from(count);
        let with_headers_bytes = each(self.up_bytes + self.down_bytes) + each(self.segments) * HEADER_BYTES;
        Each { up_bytes: each(self.up_bytes), down_bytes: each(self.down_bytes), with_headers_bytes }
    }
}

/// Counts while a socket is in somebody's hands.
#[derive(Debug, Default)]
pub(super) struct Tally {
    up: AtomicU64,
    down: AtomicU64,
    segments: AtomicU64,
}

impl Tally {
    /// What was counted since the last time.
    pub(super) fn take(&self) -> Traffic {
        let take = |count: &AtomicU64| count.swap(0, Relaxed);
        Traffic { up_bytes: take(&self.up), down_bytes: take(&self.down), segments: take(&self.segments) }
    }

    fn count(&self, way: &AtomicU64, bytes: usize) {
        let bytes = bytes as u64;
        way.fetch_add(bytes, Relaxed);
        self.segments.fetch_add(bytes.div_ceil(SEGMENT_MAX_BYTES), Relaxed);
    }
}

/// A device's socket.
pub(super) struct Counted {
    stream: TcpStream,
    tally: Arc<Tally>,
}

impl Counted {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<Tally>) {
        let tally = Arc::<Tally>::default();
        (Self { stream, tally: tally.clone() }, tally)
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buf))?;
        self.tally.count(&self.tally.down, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.tally.count(&self.tally.up, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_takes_several_segments_and_each_has_a_header() {
        let tally = Tally::default();
        tally.count(&tally.down, 2_000);
        tally.count(&tally.up, 4);
        let each = tally.take().with_bare_acks(1).each(1);
        assert_eq!((each.up_bytes, each.down_bytes), (4.0, 2_000.0));
        assert_eq!(each.with_headers_bytes, 2_004.0 + 4.0 * HEADER_BYTES);
        assert_eq!(tally.take().each(1).with_headers_bytes, 0.0);
    }
}
