//! Who asks: API keys, checked against their digests. The app of a request comes from its key and from nowhere else.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{App, AppId, Clock, Env, Key, KeyId, Scope, sign, sign::ApiKey};
use moka::sync::Cache;
use store::SharedStore;

use crate::problem::{Code, Problem};

/// How long a key is believed without asking the store: a removed one works at most this long elsewhere.
const KEY_CACHED: Duration = Duration::from_secs(5);
/// Keys that are believed at a time: many times the products of one installation.
const KEYS_CACHED_MAX: u64 = 10_000;
/// Compared with when there is no such key, so that it takes as long as a wrong secret.
const NOBODY: [u8; 32] = [0; 32];

/// Who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    /// Whose key it is.
    pub(crate) app: Arc<App>,
    key: Arc<Key>,
}

impl Caller {
    /// The app.
    pub(crate) fn app(&self) -> &AppId {
        &self.app.id
    }

    /// Whose devices the key can reach.
    pub(crate) fn env(&self) -> Env {
        self.key.id.env
    }

    /// Passes when the key allows this.
    ///
    /// # Errors
    /// `forbidden`, with the scope that is missing.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.key.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, format!("this needs a key with the scope {}", scope.as_str())))
    }
}

/// The keys that were seen lately.
pub(crate) struct Keys {
    known: Cache<KeyId, Caller>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { known: Cache::builder().max_capacity(KEYS_CACHED_MAX).time_to_live(KEY_CACHED).build() }
    }

    /// Forgets a key that was removed here.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.known.invalidate(id);
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// `unauthenticated`, always in the same words; `store_unavailable`.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        store: &SharedStore,
        clock: &dyn Clock,
    ) -> Result<Caller, Problem> {
        let shown = shown(headers).ok_or_else(unauthenticated)?;
        let caller = match self.known.get(&shown.id) {
            Some(caller) => Some(caller),
            None => self.look_up(&shown.id, store).await?,
        };
        let digest = caller.as_ref().map_or(&NOBODY, |caller| &caller.key.digest);
        let genuine = sign::matches(&shown.secret, digest);
        let now = clock.now();
        let good = |caller: &Caller| genuine && caller.key.expires_at.is_none_or(|end| now < end);
        caller.filter(good).ok_or_else(unauthenticated)
    }

    /// Unknown ids are not remembered: strangers choose them.
    async fn look_up(&self, id: &KeyId, store: &SharedStore) -> Result<Option<Caller>, Problem> {
        let Some(key) = store.key(id).await? else { return Ok(None) };
        let Some(app) = store.app(&key.app).await? else { return Ok(None) };
        let caller = Caller { app: Arc::new(app), key: Arc::new(key) };
        self.known.insert(*id, caller.clone());
        Ok(Some(caller))
    }
}

fn unauthenticated() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        "send `Authorization: Bearer <key>`, or the key's two halves as user and password",
    )
}

/// The key in `Authorization`, as a bearer token or as user and password (`curl -u`).
fn shown(headers: &HeaderMap) -> Option<ApiKey> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return ApiKey::parse(value.trim());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some(ApiKey { id: id.parse().ok()?, secret: secret.to_owned() })
}
