//! How requests travel: with the key, to one server after the other, and again where asking twice is asking once.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Method, Request, header, http::request::Builder};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Api;
use crate::{Error, answers::Answer};

/// Longest wait for an answer; the platform answers or refuses within 8 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server says when its store does not answer in time: ask again.
const BUSY: &str = "store_unavailable";

/// Pause before it is asked again, and for how long it is.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 4 * 1_024 * 1_024;

impl Api {
    /// One request with a body of JSON, or none.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Bytes, Error> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let twice_is_once = [Method::GET, Method::PUT].contains(&method) || idempotency_key.is_some();
        let begun = Instant::now();
        loop {
            match self.exchange(method.clone(), path, body.clone(), idempotency_key).await {
                Err(Error::Unavailable(problem))
                    if twice_is_once && problem.code == BUSY && begun.elapsed() < BUSY_PATIENCE =>
                {
                    sleep(BUSY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// One request; the body of a 2xx answer.
    pub(super) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        idempotency_key: Option<&str>,
    ) -> Result<Bytes, Error> {
        let mut request = self.request(method, path);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let (asked_at, mut heard) = (Instant::now(), None);
        let exchange = self.answer(request, Full::new(body).boxed_unsync(), &mut heard);
        let late = |_| Error::unavailable("no_answer", format!("none within {ANSWER_TIMEOUT:?}"));
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(late);
        if let Some(answers) = &self.answers {
            let (status, retry_after) = (heard.map(|(status, _)| status), heard.is_some_and(|(_, later)| later));
            answers.note(Answer { asked_at, took: asked_at.elapsed(), status, retry_after });
        }
        outcome?
    }

    pub(super) fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.next_base()))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
    }

    /// The body of a 2xx answer; `heard` says what came with any answer.
    pub(super) async fn answer(
        &self,
        request: Builder,
        body: UnsyncBoxBody<Bytes, Infallible>,
        heard: &mut Option<(u16, bool)>,
    ) -> Result<Bytes, Error> {
        let request = request.body(body).map_err(|error| Error::Corrupt(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(no_answer)?;
        let status = answer.status();
        let retry_after = answer.headers().contains_key(header::RETRY_AFTER);
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| Error::unavailable("no_answer", error))?.to_bytes();
        *heard = Some((status.as_u16(), retry_after));
        if status.is_success() { Ok(body) } else { Err(Error::of_answer(status.as_u16(), &body)) }
    }
}

/// The cause says more than the outer error, which is only "client error".
fn no_answer(error: hyper_util::client::legacy::Error) -> Error {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    Error::unavailable("no_answer", cause.unwrap_or_else(|| error.to_string()))
}
