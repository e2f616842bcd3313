//! What devices may write of an app's attributes: not those of its backend, and no value of another type.

use std::collections::BTreeMap;

use audience::Value;
use model::{AppId, Attribute, AttributeType, Env, Owner, Profile};
use store::{Store, shelves};

/// Attributes that an environment of an app may have; more are not taken from devices.
const ATTRIBUTES_MAX: usize = 1_000;

/// The attributes of an environment of an app, as they were when a batch of reports was begun.
pub(crate) struct Catalogue {
    app: AppId,
    env: Env,
    known: BTreeMap<String, Attribute>,
}

impl Catalogue {
    pub(crate) async fn read(store: &dyn Store, app: &AppId, env: Env) -> Result<Self, store::Error> {
        let known = shelves::list(store, (app, env), None, ATTRIBUTES_MAX).await?.into_iter().collect();
        Ok(Self { app: app.clone(), env, known })
    }

    /// Puts back what a report changed and the device must not; returns how many attributes that were. Takes note of
    /// attributes that are new.
    pub(crate) async fn admit(
        &mut self,
        store: &dyn Store,
        before: &Profile,
        after: &mut Profile,
    ) -> Result<u64, store::Error> {
        let names: Vec<String> = before.attributes.keys().chain(after.attributes.keys()).cloned().collect();
        let mut refused = 0;
        for name in names {
            let (was, is) = (before.attributes.get(&name), after.attributes.get(&name));
            if was == is || self.may_write(store, &name, is.map(String::as_str)).await? {
                continue;
            }
            refused += 1;
            match was {
                Some(was) => after.attributes.insert(name, was.clone()),
                None => after.attributes.remove(&name),
            };
        }
        Ok(refused)
    }

    async fn may_write(&mut self, store: &dyn Store, name: &str, json: Option<&str>) -> Result<bool, store::Error> {
        let kind = json.and_then(kind);
        match (self.known.get(name), kind) {
            (Some(Attribute { owner: Some(Owner::Server), .. }), _) => Ok(false),
            (Some(attribute), Some(kind)) => Ok(attribute.kind == kind),
            (_, None) => Ok(true),
            (None, Some(_)) if self.known.len() >= ATTRIBUTES_MAX => Ok(false),
            (None, Some(kind)) => {
                let first = Attribute { kind, owner: None, declared: false };
                let put = |there: Option<Attribute>| if there.is_some() { None } else { Some(first) };
                let is = shelves::change(store, (&self.app, self.env), name, put).await?.unwrap_or(first);
                self.known.insert(name.to_owned(), is);
                Ok(is.kind == kind && is.owner != Some(Owner::Server))
            }
        }
    }
}

fn kind(json: &str) -> Option<AttributeType> {
    match Value::from_json(serde_json::from_str(json).ok()?)? {
        Value::Text(_) | Value::Version(_) | Value::Time(_) => Some(AttributeType::String),
        Value::Number(_) => Some(AttributeType::Number),
        Value::Bool(_) => Some(AttributeType::Bool),
        Value::List(_) => Some(AttributeType::StringList),
    }
}
