//! Tenants and their keys.

use async_trait::async_trait;
use model::{App, AppId, Key, KeyId};

use super::{
    Embedded, key,
    table::{Nothing, Read as _, Span},
};
use crate::{Apps, Error};

#[async_trait]
impl Apps for Embedded {
    async fn create_app(&self, app: App) -> Result<bool, Error> {
        self.write(move |draft| {
            let key = key::App { app: app.id.clone() };
            let new = !draft.has(&key)?;
            if new {
                draft.put(&key, &app);
            }
            Ok(new)
        })
        .await
    }

    async fn replace_app(&self, before: &App, after: App) -> Result<bool, Error> {
        let before = before.clone();
        self.write(move |draft| {
            let key = key::App { app: before.id.clone() };
            let stays = draft.get(&key)?.is_some_and(|app| app == before);
            if stays {
                draft.put(&key, &after);
            }
            Ok(stays)
        })
        .await
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, Error> {
        self.view().get(&key::App { app: id.clone() })
    }

    async fn apps(&self) -> Result<Vec<App>, Error> {
        self.view().scan(Span::<key::App>::of(&[])).map(|row| Ok(row?.1)).collect()
    }

    async fn put_key(&self, put: Key) -> Result<(), Error> {
        self.write(move |draft| {
            if !draft.has(&key::App { app: put.app.clone() })? {
                return Err(Error::Rejected(format!("there is no app {}", put.app)));
            }
            let key = key::ApiKey { id: put.id };
            if let Some(before) = draft.get(&key)? {
                draft.remove(&key::KeyOfApp { app: before.app, id: put.id });
            }
            draft.put(&key::KeyOfApp { app: put.app.clone(), id: put.id }, &Nothing);
            draft.put(&key, &put);
            Ok(())
        })
        .await
    }

    async fn key(&self, id: &KeyId) -> Result<Option<Key>, Error> {
        self.view().get(&key::ApiKey { id: *id })
    }

    async fn keys(&self, app: &AppId) -> Result<Vec<Key>, Error> {
        let view = self.view();
        let of_app = view.scan(Span::<key::KeyOfApp>::of(&[app]));
        of_app.map(|row| view.expect(&key::ApiKey { id: row?.0.id })).collect()
    }

    async fn remove_key(&self, id: &KeyId) -> Result<bool, Error> {
        let id = *id;
        self.write(move |draft| {
            let Some(before) = draft.get(&key::ApiKey { id })? else { return Ok(false) };
            draft.remove(&key::ApiKey { id });
            draft.remove(&key::KeyOfApp { app: before.app, id });
            Ok(true)
        })
        .await
    }
}
