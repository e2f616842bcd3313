//! Answers other nodes: one kind of request, from whoever shows the secret.

use std::{convert::Infallible, sync::Arc, time::Duration};

use audience::Select;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{AUTHORIZATION, HeaderMap},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use model::{record::Record as _, sign};
use store::PAGE_MAX;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Answer, Ask, IDLE_ANSWERING, QUESTION_MAX_BYTES, Question, WORK_TIMEOUT};

/// Connections: those of a hundred nodes that ask ten things at a time. Others wait to be accepted.
const CONNECTIONS_MAX: usize = 1_000;
/// Questions that are read, worked on or answered at a time; beyond it the answer is: not now.
const QUESTIONS_MAX: usize = 64;
/// How long answers under way may take to get out after a shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// After a failed accept (no descriptors left, mostly) waiting is all that helps.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What answers.
struct Desk {
    select: Arc<dyn Select>,
    /// Of the secret; without one everybody who reaches the listener may ask.
    secret: Option<[u8; 32]>,
    places: Semaphore,
}

/// Answers until `shutdown`, then lets answers under way get out.
pub(crate) async fn serve(
    listener: TcpListener,
    select: Arc<dyn Select>,
    secret: Option<&str>,
    shutdown: CancellationToken,
) {
    let desk = Desk { select, secret: secret.map(sign::digest), places: Semaphore::new(QUESTIONS_MAX) };
    let (desk, connections) = (Arc::new(desk), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let graceful = GracefulShutdown::new();
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE_ANSWERING);
    loop {
        let accepted = async {
            let place = connections.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream: TcpStream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection of another node");
                time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let desk = desk.clone();
        let service = service_fn(move |request| answer(desk.clone(), request));
        let connection = graceful.watch(server.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "the connection of another node broke");
            }
            drop(place);
        });
    }
    drop(listener);
    if time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        warn!("other nodes were cut off: they did not take their answers in time");
    }
}

async fn answer(desk: Arc<Desk>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let work = time::timeout(WORK_TIMEOUT, desk.answer(request)).await;
    let answered = work.unwrap_or_else(|_| Ok(Answer::Unavailable(format!("not answered within {WORK_TIMEOUT:?}"))));
    let mut response = Response::default();
    match answered {
        Ok(answer) => *response.body_mut() = Full::new(answer.encode().into()),
        Err(status) => *response.status_mut() = status,
    }
    Ok(response)
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, StatusCode> {
        if !self.knows(request.headers()) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        if request.method() != Method::POST || request.uri().path() != "/select" {
            return Err(StatusCode::NOT_FOUND);
        }
        if request.body().size_hint().lower() > QUESTION_MAX_BYTES as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Ok(Answer::Unavailable(format!("{QUESTIONS_MAX} questions are being answered")));
        };
        let body = Limited::new(request.into_body(), QUESTION_MAX_BYTES).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
        })?;
        let question = Question::decode(&body.to_bytes()).map_err(|error| {
            warn!(%error, "another node asks what cannot be read: is it of another version?");
            StatusCode::BAD_REQUEST
        })?;
        Ok(self.look_up(question).await)
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else { return true };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        shown.is_some_and(|shown| sign::matches(shown, secret))
    }

    async fn look_up(&self, question: Question) -> Answer {
        let Question { app, env, now, ask } = question;
        let found = match ask {
            Ask::Select(expression) => self.select.select(&app, env, &expression, now).await.map(Answer::Selected),
            Ask::Count(expression) => self.select.count(&app, env, &expression, now).await.map(Answer::Counted),
            Ask::Tags { after, limit } => {
                self.select.tags(&app, env, after.as_deref(), limit.min(PAGE_MAX)).await.map(Answer::Tagged)
            }
            Ask::Counts { expressions, among } => {
                self.select.counts(&app, env, &expressions, &among, now).await.map(Answer::Counts)
            }
        };
        found.unwrap_or_else(Answer::from)
    }
}
