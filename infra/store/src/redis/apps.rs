//! Tenants and their keys.

use async_trait::async_trait;
use deadpool_redis::redis::{Value, cmd};
use model::{App, AppId, Key, KeyId, record::Record as _};

use super::{
    Redis,
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::{Apps, Error};

#[async_trait]
impl Apps for Redis {
    async fn create_app(&self, app: App) -> Result<bool, Error> {
        let mut create = Call::new(Step::CreateApp);
        create.key(self.keys.apps()).arg(app.id.as_str()).arg(app.encode());
        take::value(self.write_one(create.cmd(), Repeat::Never).await?)
    }

    async fn replace_app(&self, before: &App, after: App) -> Result<bool, Error> {
        let mut get = cmd("HGET");
        get.arg(self.keys.apps()).arg(before.id.as_str());
        let kept = take::value(self.ask_one(get).await?)?;
        let Some(kept) = take::unchanged(kept, before, "an app")? else { return Ok(false) };
        let mut replace = Call::new(Step::ReplaceApp);
        replace.key(self.keys.apps()).arg(before.id.as_str()).arg(kept).arg(after.encode());
        take::value(self.write_one(replace.cmd(), Repeat::Never).await?)
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, Error> {
        let mut get = cmd("HGET");
        get.arg(self.keys.apps()).arg(id.as_str());
        take::maybe(self.ask_one(get).await?, "an app")
    }

    async fn apps(&self) -> Result<Vec<App>, Error> {
        let mut get = cmd("HVALS");
        get.arg(self.keys.apps());
        let found: Vec<Vec<u8>> = take::value(self.ask_one(get).await?)?;
        found.iter().map(|app| take::record(app, "an app")).collect()
    }

    async fn put_key(&self, key: Key) -> Result<(), Error> {
        let mut put = Call::new(Step::PutKey);
        put.key(self.keys.apps()).key(self.keys.keys()).key(self.keys.keys_of(&key.app));
        put.arg(key.app.as_str()).arg(key.id.to_string()).arg(key.encode());
        self.write_one(put.cmd(), Repeat::Once).await.map(drop)
    }

    async fn key(&self, id: &KeyId) -> Result<Option<Key>, Error> {
        let mut get = cmd("HGET");
        get.arg(self.keys.keys()).arg(id.to_string());
        key(self.ask_one(get).await?)
    }

    async fn keys(&self, app: &AppId) -> Result<Vec<Key>, Error> {
        let mut list = cmd("SMEMBERS");
        list.arg(self.keys.keys_of(app));
        let ids: Vec<String> = take::value(self.ask_one(list).await?)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("HMGET");
        get.arg(self.keys.keys()).arg(ids);
        let found: Vec<Value> = take::value(self.ask_one(get).await?)?;
        // One that was removed in between is not there any more.
        found.into_iter().filter_map(|answer| key(answer).transpose()).collect()
    }

    async fn remove_key(&self, id: &KeyId) -> Result<bool, Error> {
        let mut remove = Call::new(Step::RemoveKey);
        remove.key(self.keys.keys()).arg(id.to_string());
        take::value(self.write_one(remove.cmd(), Repeat::Never).await?)
    }
}

/// A key as it is kept: behind the name of its app and a line break, so that scripts know whose it is.
fn key(answer: Value) -> Result<Option<Key>, Error> {
    let Some(kept) = take::value::<Option<Vec<u8>>>(answer)? else { return Ok(None) };
    let at = kept.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    take::record(&kept[at..], "a key").map(Some)
}
