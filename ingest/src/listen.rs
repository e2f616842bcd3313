//! Accepts connections and gives each its time: a head that does not come, a connection nobody uses and a client that
//! does not read are closed. Knows nothing of what is asked.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{
    body::Incoming,
    server::conn::http1::{self, Parts},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::passage::{self, Passage, Passed};

/// A request's head must be there this long after its first byte, and the first one's this long after the connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection with no request on it is kept this long; a client that does not read its answer as well.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than body, key check and deadline together take: what is still running then will not end.
const SERVING_TIMEOUT: Duration = Duration::from_secs(40);
/// Room for a request's head, and for reading ahead.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// After a failed accept (no descriptors left, mostly) waiting is all that helps.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long requests under way may take to end after a shutdown began: longer than their deadline.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who answers requests.
#[derive(Clone)]
pub(crate) struct Reception {
    pub(crate) router: Router,
    /// Takes the connections on which devices ask, if anybody does.
    pub(crate) devices: Option<Passage>,
}

/// Serves connections, at most `connections_max` at a time (others wait to be accepted), until `shutdown`; then lets
/// the requests under way end.
pub(crate) async fn serve(
    listener: TcpListener,
    reception: Reception,
    connections_max: usize,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, reception.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut off: they did not end in time");
    }
}

/// Serves one connection until it ends, its time is up, a device asks on it, or a shutdown finds it idle.
async fn connection(stream: TcpStream, reception: Reception, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection is gone already");
        return;
    }
    let pace = Pace::new();
    let service = service_fn(|request: hyper::Request<Incoming>| answer(reception.clone(), pace.clone(), request));
    let io = TokioIo::new(Paced { stream, pace: pace.clone() });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(READ_BUFFER_BYTES);
    let mut served = builder.serve_connection(io, service);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                let Err(error) = ended else { return };
                match (Passed::of(&error), &reception.devices) {
                    (Some(Passed(request)), Some(devices)) => {
                        let Parts { io, read_buf, .. } = served.into_parts();
                        passage::pass(devices, io.into_inner().stream, [request.as_slice(), &read_buf].concat());
                    }
                    _ => tracing::debug!(%error, "connection broke"),
                }
                return;
            }
            () = pace.lapse() => return,
            () = shutdown.cancelled(), if !draining => {
                if pace.phase() == Phase::Head {
                    return;
                }
                draining = true;
                Pin::new(&mut served).graceful_shutdown();
            }
        }
    }
}

async fn answer(reception: Reception, pace: Pace, request: hyper::Request<Incoming>) -> Result<Response, Passed> {
    pace.enter(Phase::Serving);
    let mut request: Request = request.map(Body::new);
    if reception.devices.is_some() && passage::is_of_devices(request.uri().path()) {
        return Err(passage::written(request).await);
    }
    request.extensions_mut().insert(pace.clone());
    let response = reception.router.oneshot(request).await;
    pace.enter(Phase::Idle);
    Ok(response.unwrap_or_else(|never| match never {}))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request has not arrived, or a later one has begun to.
    Head,
    Serving,
    Idle,
}

impl Phase {
    fn timeout(self) -> Duration {
        match self {
            Self::Head => HEAD_TIMEOUT,
            Self::Serving => SERVING_TIMEOUT,
            Self::Idle => IDLE_TIMEOUT,
        }
    }
}

/// What a connection is doing, and until when it may.
#[derive(Clone)]
pub(crate) struct Pace(Arc<(Mutex<(Phase, Instant)>, Notify)>);

impl Pace {
    fn new() -> Self {
        Self(Arc::new((Mutex::new((Phase::Head, Instant::now() + HEAD_TIMEOUT)), Notify::new())))
    }

    fn enter(&self, phase: Phase) {
        *self.0.0.lock() = (phase, Instant::now() + phase.timeout());
    }

    fn phase(&self) -> Phase {
        self.0.0.lock().0
    }

    /// More of a long upload came: it has its whole time again.
    pub(crate) fn go_on(&self) {
        self.enter(Phase::Serving);
    }

    /// Bytes came in: on an idle connection a head has begun, and less time is left than before.
    fn heard(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
            self.0.1.notify_one();
        }
    }

    /// Ends when the time for what the connection is doing is up.
    async fn lapse(&self) {
        loop {
            let until = self.0.0.lock().1;
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.0.1.notified() => {}
            }
        }
    }
}

/// A socket that tells its pace when bytes come in.
struct Paced {
    stream: TcpStream,
    pace: Pace,
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pace.heard();
        }
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pace: &Pace) -> u64 {
        (pace.0.0.lock().1 - Instant::now()).as_secs_f64().round() as u64
    }

    #[test]
    fn each_phase_has_its_time_and_the_first_byte_of_a_head_shortens_an_idle_one() {
        let pace = Pace::new();
        pace.heard();
        assert_eq!((pace.phase(), left(&pace)), (Phase::Head, 10));
        pace.enter(Phase::Serving);
        pace.heard();
        assert_eq!((pace.phase(), left(&pace)), (Phase::Serving, 40));
        pace.enter(Phase::Idle);
        assert_eq!(left(&pace), 60);
        pace.heard();
        assert_eq!((pace.phase(), left(&pace)), (Phase::Head, 10));
    }
}
