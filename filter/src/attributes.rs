//! What devices may write of an app's attributes: not those of its backend, and no value of another type.

use std::collections::BTreeMap;

use audience::attribute::{inferred, kept};
use model::{AppId, Attribute, Env, Owner, Profile};
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

    /// Puts down what a report changed as it is kept, and puts back what the device must not change; returns how many
    /// attributes that were. Takes note of attributes that are new.
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
            if was == is {
                continue;
            }
            let may_be = match is {
                Some(json) => self.taken(store, &name, json).await?,
                None if self.is_of_backend(&name) => None,
                None => continue,
            };
            refused += u64::from(may_be.is_none());
            match may_be.or_else(|| was.cloned()) {
                Some(json) => after.attributes.insert(name, json),
                None => after.attributes.remove(&name),
            };
        }
        Ok(refused)
    }

    fn is_of_backend(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|attribute| attribute.owner == Some(Owner::Server))
    }

    /// A value as it is kept, if the device may write it.
    async fn taken(&mut self, store: &dyn Store, name: &str, json: &str) -> Result<Option<String>, store::Error> {
        let Some(given) = inferred(json) else { return Ok(None) };
        let kind = match self.known.get(name) {
            Some(attribute) => attribute.kind,
            None if self.known.len() >= ATTRIBUTES_MAX => return Ok(None),
            None => {
                let first = Attribute { kind: given, owner: None, declared: false };
                let put = |there: Option<Attribute>| if there.is_some() { None } else { Some(first) };
                let is = shelves::change(store, (&self.app, self.env), name, put).await?.unwrap_or(first);
                self.known.insert(name.to_owned(), is);
                is.kind
            }
        };
        Ok(kept(json, kind).filter(|_| !self.is_of_backend(name)))
    }
}
