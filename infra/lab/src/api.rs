//! Fanfare's REST API as a product backend uses it. It retries only where the caller says so.

mod devices;
mod exchange;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::Method;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use model::{AppId, DeviceId, Funnel, GroupId, MessageId, Stage, Status, UserId, sign::DeviceToken};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::sleep;

pub use devices::Import;

use crate::{Audience, Error, answers::Answers};

/// Connections kept open between requests: as many as the most workers of a load.
const IDLE_CONNECTIONS: usize = 256;
/// Pause before the same request is sent again, doubled each time up to the longest.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is registered about a device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Profile {
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Its labels.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Send {
    /// The sender's own name for it: the idempotency key.
    pub key: String,
    /// Whom it is for.
    pub to: Audience,
    /// Its body.
    pub payload: Value,
    /// How long it may take to arrive, in seconds.
    pub ttl_s: u64,
}

impl Send {
    /// A message whose payload names itself, so that whoever receives it knows which it was.
    pub fn named(key: impl Into<String>, to: Audience, ttl_s: u64) -> Self {
        let key = key.into();
        Self { payload: json!({ "msg": key }), key, to, ttl_s }
    }

    /// The sender's name in a payload that [`named`](Self::named) made.
    pub fn name_in(payload: &[u8]) -> Option<&str> {
        #[derive(Deserialize)]
        struct Named<'a> {
            msg: &'a str,
        }
        serde_json::from_slice::<Named<'_>>(payload).ok().map(|named| named.msg)
    }
}

/// The answer to a send.
#[derive(Clone, Debug, Deserialize)]
pub struct Accepted {
    /// The platform's name for the message.
    pub id: MessageId,
    /// What is doubtful about the request, as the API says it.
    #[serde(default)]
    pub warnings: Vec<Value>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Report {
    /// As a whole.
    pub status: Status,
    /// By device, in numbers.
    pub stats: Funnel,
}

/// A device's credential for the wire.
#[derive(Clone, Debug)]
pub struct Token {
    /// The MQTT password.
    pub token: String,
    /// The app it is for: the MQTT username.
    pub app: AppId,
}

/// A client of one app; cheap to clone, and clones share their connections.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, Infallible>>,
    bases: Arc<[String]>,
    turn: Arc<AtomicUsize>,
    key: String,
    /// Where answers are noted, if anywhere.
    answers: Option<Arc<Answers>>,
}

impl Api {
    /// A client for the server at `base` (`http://host:port`) that shows `key`.
    pub fn new(base: &str, key: &str) -> Self {
        Self::among(&[base], key)
    }

    /// A client that takes the servers at `bases` in turn, one a request: a retry goes to another than the try before.
    pub fn among(bases: &[&str], key: &str) -> Self {
        Self::of(bases.iter().map(|base| base.trim_end_matches('/').to_owned()).collect(), key.to_owned())
    }

    fn of(bases: Arc<[String]>, key: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self { client, bases, turn: Arc::default(), key, answers: None }
    }

    /// The same client with connections of its own, for another runtime.
    pub fn apart(&self) -> Self {
        Self::of(self.bases.clone(), self.key.clone())
    }

    /// Where the servers are, and the key that is shown.
    pub(crate) fn credentials(&self) -> (&[String], &str) {
        (&self.bases, &self.key)
    }

    /// The same client, whose answers are noted.
    pub(crate) fn noting(&self, answers: Arc<Answers>) -> Self {
        Self { answers: Some(answers), ..self.clone() }
    }

    /// Empty, which is no address, when there is no server at all.
    fn next_base(&self) -> &str {
        let turn = self.turn.fetch_add(1, Relaxed).checked_rem(self.bases.len());
        turn.and_then(|turn| self.bases.get(turn)).map_or("", String::as_str)
    }

    /// Registers a device, or gives it another profile.
    ///
    /// # Errors
    /// As every call: [`Error::Unavailable`], or [`Error::Rejected`] for a request that is not well.
    pub async fn register(&self, device: &DeviceId, profile: &Profile) -> Result<(), Error> {
        self.call(Method::PUT, &format!("/v1/devices/{device}"), Some(&json!(profile)), None).await.map(drop)
    }

    /// Takes a device out of the registry.
    ///
    /// # Errors
    /// As every call.
    pub async fn unregister(&self, device: &DeviceId) -> Result<(), Error> {
        self.call(Method::DELETE, &format!("/v1/devices/{device}"), None, None).await.map(drop)
    }

    /// Mints a device token that lasts `ttl_s` seconds.
    ///
    /// # Errors
    /// As every call; [`Error::Corrupt`] when the token does not name its app.
    pub async fn token(&self, device: &DeviceId, ttl_s: u64) -> Result<Token, Error> {
        #[derive(Deserialize)]
        struct Minted {
            token: String,
        }
        let path = format!("/v1/devices/{device}/tokens");
        let Minted { token } = parse(&self.call(Method::POST, &path, Some(&json!({ "ttl_s": ttl_s })), None).await?)?;
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
        let DeviceToken { app, .. } = parse(&claims)?;
        Ok(Token { token, app })
    }

    /// Sends a message, once.
    ///
    /// # Errors
    /// As every call. After [`Error::Unavailable`] the message may have been accepted all the same.
    pub async fn send(&self, send: &Send) -> Result<Accepted, Error> {
        self.send_under(Some(&send.key), send).await
    }

    /// Sends a message without its idempotency key: the platform then need not ask who else has sent it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_unkeyed(&self, send: &Send) -> Result<Accepted, Error> {
        self.send_under(None, send).await
    }

    async fn send_under(&self, key: Option<&str>, send: &Send) -> Result<Accepted, Error> {
        let body = json!({ "to": send.to, "payload": send.payload, "ttl_s": send.ttl_s });
        parse(&self.call(Method::POST, "/v1/messages", Some(&body), key).await?)
    }

    /// Sends a message and, while the outcome is unknown, sends it again with the same key, `tries` times in all.
    ///
    /// # Errors
    /// As [`send`](Self::send), after the last try.
    pub async fn send_until_known(&self, send: &Send, tries: u32) -> Result<Accepted, Error> {
        until_known(tries, || self.send(send)).await
    }

    /// How far a message has come.
    ///
    /// # Errors
    /// As every call.
    pub async fn message(&self, id: MessageId) -> Result<Report, Error> {
        parse(&self.call(Method::GET, &format!("/v1/messages/{id}"), None, None).await?)
    }

    /// How far a message has come for one device.
    ///
    /// # Errors
    /// As every call; [`Error::Corrupt`] when the answer is about another device.
    pub async fn stage(&self, id: MessageId, device: &DeviceId) -> Result<Stage, Error> {
        #[derive(Deserialize)]
        struct Page {
            data: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            device_id: DeviceId,
            state: Stage,
        }
        let path = format!("/v1/messages/{id}/receipts/query");
        let query = json!({ "device_ids": [device] });
        let page: Page = parse(&self.call(Method::POST, &path, Some(&query), None).await?)?;
        let row = page.data.into_iter().find(|row| row.device_id == *device);
        row.map(|row| row.state).ok_or_else(|| Error::Corrupt(format!("no receipt of {device} in the answer")))
    }

    /// Calls a message back.
    ///
    /// # Errors
    /// As every call; [`Error::Rejected`] when it is over already.
    pub async fn cancel(&self, id: MessageId) -> Result<(), Error> {
        self.call(Method::POST, &format!("/v1/messages/{id}/cancel"), Some(&json!({})), None).await.map(drop)
    }

    /// Calls a message back and, while the outcome is unknown, tries again, `tries` times in all.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel), after the last try.
    pub async fn cancel_until_known(&self, id: MessageId, tries: u32) -> Result<(), Error> {
        until_known(tries, || self.cancel(id)).await
    }

    /// Makes an empty static group.
    ///
    /// # Errors
    /// As every call.
    pub async fn create_group(&self, name: &str) -> Result<GroupId, Error> {
        #[derive(Deserialize)]
        struct Created {
            id: GroupId,
        }
        let body = json!({ "name": name, "source": { "type": "static" } });
        let created: Created = parse(&self.call(Method::POST, "/v1/groups", Some(&body), None).await?)?;
        Ok(created.id)
    }

    /// Puts devices into a static group, 5,000 at most.
    ///
    /// # Errors
    /// As every call.
    pub async fn join(&self, group: GroupId, devices: &[DeviceId]) -> Result<(), Error> {
        let body = json!({ "add": devices });
        self.call(Method::POST, &format!("/v1/groups/{group}/members"), Some(&body), None).await.map(drop)
    }

    /// What is said on this path, as it is.
    ///
    /// # Errors
    /// As every call.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let body = self.call(Method::GET, path, None, None).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks for something that has no method of its own here, and gives the answer back as it is.
    ///
    /// # Errors
    /// As every call.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        parse(&self.call(Method::GET, path, None, None).await?)
    }

    /// Posts a body of the caller's own, once, and gives the answer back as it is.
    ///
    /// # Errors
    /// As every call.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        parse(&self.call(Method::POST, path, Some(body), None).await?)
    }

    /// Changes something that has no method of its own here, once, and gives the answer back as it is.
    ///
    /// # Errors
    /// As every call.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, Error> {
        parse(&self.call(Method::PATCH, path, Some(body), None).await?)
    }

    /// Posts a body that is JSON already, once, and gives the answer back as it is.
    ///
    /// # Errors
    /// As every call.
    pub async fn post_body(&self, path: &str, body: Bytes) -> Result<Bytes, Error> {
        self.exchange(Method::POST, path, body, None).await
    }

    /// Whether the server says that it can take work.
    pub async fn is_ready(&self) -> bool {
        self.call(Method::GET, "/readyz", None, None).await.is_ok()
    }
}

/// Acts again, after a growing random pause, while the outcome is unknown.
async fn until_known<T, F>(tries: u32, act: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (mut pause, longest) = RETRY_PAUSE;
    for _ in 1..tries {
        match act().await {
            Err(Error::Unavailable(problem)) => tracing::debug!(%problem, "tried again"),
            known => return known,
        }
        sleep(rand::random_range(pause / 2..=pause)).await;
        pause = (pause * 2).min(longest);
    }
    act().await
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let broken = |error| Error::Corrupt(format!("{error} in {}", String::from_utf8_lossy(body)));
    serde_json::from_slice(body).map_err(broken)
}

#[cfg(test)]
mod tests;
