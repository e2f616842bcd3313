//! Asks filter nodes on behalf of a process that has no index.

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use audience::{Expr, Invalid, Select, SelectError};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header::AUTHORIZATION};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use model::{AppId, Clock, Env, Ordinals, Timestamp, record::Record as _};
use prometheus_client::{
    metrics::{
        counter::Counter,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use store::SharedStore;
use tokio::time::{self, Instant};
use tracing::warn;

use super::{ANSWER_MAX_BYTES, ANSWER_TIMEOUT, Answer, Ask, IDLE_ASKING, Question, invalid, whom::Whom};

/// A node in the same network that has not taken the connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections kept to a node: as many as it answers at a time.
const IDLE_CONNECTIONS: usize = 64;

/// Answers expressions by asking the filter nodes that run. See [`Select`] for what is promised: nothing here is
/// remembered, so an answer is as of its question like that of a filter in this process.
pub struct Remote {
    client: Client<HttpConnector, Full<Bytes>>,
    whom: Whom,
    /// What is shown to them.
    bearer: Option<String>,
    seconds: Histogram,
    failures: Counter,
}

impl Remote {
    /// Asks the filter nodes that `store` names, and shows them `secret`; metrics go to `registry`.
    pub fn new(store: SharedStore, clock: Arc<dyn Clock>, secret: Option<&str>, registry: &mut Registry) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_ASKING)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let (seconds, failures) = (Histogram::new(exponential_buckets(0.001, 4.0, 9)), Counter::default());
        let help = "Time to have a filter node answer";
        registry.register("fanfare_filter_ask_seconds", help, seconds.clone());
        let help = "Filter nodes that were asked and gave no answer";
        registry.register("fanfare_filter_ask_failures", help, failures.clone());
        let bearer = secret.map(|secret| format!("Bearer {secret}"));
        Self { client, whom: Whom::new(store, clock), bearer, seconds, failures }
    }

    /// The answer of the first node that gives one. That it cannot tell now is an answer too: others would only begin to
    /// make the same index.
    async fn ask(&self, app: &AppId, env: Env, now: Timestamp, ask: Ask) -> Result<Answer, SelectError> {
        let (begun, mut why) = (Instant::now(), "no filter node runs".to_owned());
        let question = Bytes::from(Question { app: app.clone(), env, now, ask }.encode());
        for peer in self.whom.of(app).await {
            let exchange = self.exchange(&peer.address, question.clone());
            let failed = match time::timeout_at(begun + ANSWER_TIMEOUT, exchange).await {
                Ok(Ok(Answer::Unavailable(why))) => return Err(SelectError::Unavailable(why)),
                Ok(Ok(Answer::Invalid { column, reason, code })) => return Err(invalid(column, reason, &code)),
                Ok(Ok(answer)) => {
                    self.seconds.observe(begun.elapsed().as_secs_f64());
                    return Ok(answer);
                }
                Ok(Err(failed)) => failed,
                Err(_) => format!("no answer within {ANSWER_TIMEOUT:?}"),
            };
            self.failures.inc();
            self.whom.suspect(&peer);
            why = format!("the filter node at {}: {failed}", peer.address);
            warn!(app.id = %app, why, "a filter node gives no answer");
            if begun.elapsed() >= ANSWER_TIMEOUT {
                break;
            }
        }
        Err(SelectError::Unavailable(why))
    }

    async fn exchange(&self, address: &str, question: Bytes) -> Result<Answer, String> {
        let mut request = Request::builder().method(Method::POST).uri(format!("http://{address}/select"));
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.body(Full::new(question)).map_err(|error| error.to_string())?;
        // The cause says more than the outer error, which is only "client error".
        let answered = self.client.request(request).await;
        let response =
            answered.map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err("it has another filter.secret".into()),
            status => return Err(format!("it answers {status}")),
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Answer::decode(&body).map_err(|error| error.to_string())
    }
}

/// What is wrong with a text is found here, with its place.
fn well_formed(expression: &str) -> Result<(), Invalid> {
    expression.parse::<Expr>().map(drop)
}

fn another() -> SelectError {
    SelectError::Unavailable("a filter node answered another question".into())
}

#[async_trait]
impl Select for Remote {
    async fn select(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        well_formed(expression)?;
        match self.ask(app, env, now, Ask::Select(expression.to_owned())).await? {
            Answer::Selected(selected) => Ok(selected),
            _ => Err(another()),
        }
    }

    async fn count(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<u64, SelectError> {
        well_formed(expression)?;
        match self.ask(app, env, now, Ask::Count(expression.to_owned())).await? {
            Answer::Counted(count) => Ok(count),
            _ => Err(another()),
        }
    }

    async fn counts(
        &self,
        app: &AppId,
        env: Env,
        expressions: &[String],
        among: &Ordinals,
        now: Timestamp,
    ) -> Result<Vec<u64>, SelectError> {
        expressions.iter().try_for_each(|expression| well_formed(expression))?;
        let ask = Ask::Counts { expressions: expressions.to_vec(), among: among.clone() };
        match self.ask(app, env, now, ask).await? {
            Answer::Counts(counts) if counts.len() == expressions.len() => Ok(counts),
            _ => Err(another()),
        }
    }

    async fn tags(
        &self,
        app: &AppId,
        env: Env,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, SelectError> {
        let ask = Ask::Tags { after: after.map(str::to_owned), limit };
        match self.ask(app, env, Timestamp::default(), ask).await? {
            Answer::Tagged(tags) => Ok(tags),
            _ => Err(another()),
        }
    }

    fn check(&self, _app: &AppId, expression: &str) -> Result<(), Invalid> {
        well_formed(expression)
    }
}
