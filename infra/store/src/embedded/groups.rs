//! Static groups of devices: the group and, beside it, its members as one set.

use async_trait::async_trait;
use model::{AppId, Group, GroupId, Ordinals};

use super::{
    Embedded, key,
    table::{Read as _, Set, Span},
};
use crate::{Error, Groups};

#[async_trait]
impl Groups for Embedded {
    async fn put_group(&self, app: &AppId, group: Group) -> Result<(), Error> {
        let app = app.clone();
        self.write(move |draft| {
            let members = key::Members { app: app.clone(), group: group.id };
            if !draft.has(&members)? {
                draft.put(&members, &Set::default());
            }
            draft.put(&key::Group { app, group: group.id }, &group);
            Ok(())
        })
        .await
    }

    async fn replace_group(&self, app: &AppId, before: &Group, after: Group) -> Result<bool, Error> {
        let (key, before) = (key::Group { app: app.clone(), group: before.id }, before.clone());
        self.write(move |draft| {
            let stays = draft.get(&key)?.is_some_and(|group| group == before);
            if stays {
                draft.put(&key, &after);
            }
            Ok(stays)
        })
        .await
    }

    async fn group(&self, app: &AppId, id: GroupId) -> Result<Option<Group>, Error> {
        self.view().get(&key::Group { app: app.clone(), group: id })
    }

    async fn groups(&self, app: &AppId, after: Option<GroupId>, limit: usize) -> Result<Vec<Group>, Error> {
        let all = Span::of(&[app]);
        let span = match after {
            Some(group) => all.after(&key::Group { app: app.clone(), group }),
            None => all,
        };
        self.view().scan(span).take(limit).map(|row| Ok(row?.1)).collect()
    }

    async fn remove_group(&self, app: &AppId, id: GroupId) -> Result<bool, Error> {
        let app = app.clone();
        self.write(move |draft| {
            let key = key::Group { app: app.clone(), group: id };
            let there = draft.has(&key)?;
            if there {
                draft.remove(&key);
                draft.remove(&key::Members { app, group: id });
            }
            Ok(there)
        })
        .await
    }

    async fn change_members(
        &self,
        app: &AppId,
        id: GroupId,
        add: Ordinals,
        remove: Ordinals,
    ) -> Result<Option<u64>, Error> {
        let key = key::Members { app: app.clone(), group: id };
        self.write(move |draft| {
            let Some(Set(mut members)) = draft.get(&key)? else { return Ok(None) };
            members |= &add;
            members -= &remove;
            let count = members.len();
            draft.put(&key, &Set(members.compact()));
            Ok(Some(count))
        })
        .await
    }

    async fn members(&self, app: &AppId, id: GroupId) -> Result<Option<Ordinals>, Error> {
        let members = self.view().get(&key::Members { app: app.clone(), group: id })?;
        Ok(members.map(|Set(members)| members))
    }
}
