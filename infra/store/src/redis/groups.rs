//! Static groups of devices: the group and, beside it, its members as one set with a version.

use async_trait::async_trait;
use deadpool_redis::redis::{Value, cmd};
use model::{AppId, Group, GroupId, Ordinals, record::Record as _};

use super::{
    Redis,
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::{Error, Groups};

/// Attempts to change a set that others change at the same time; each time somebody else succeeded.
const ATTEMPTS: usize = 8;

/// Bytes of the version before the members.
const VERSION_BYTES: usize = 8;

#[async_trait]
impl Groups for Redis {
    async fn put_group(&self, app: &AppId, group: Group) -> Result<(), Error> {
        let (of, mut put) = (self.of(app), Call::new(Step::PutGroup));
        put.key(of.group(group.id)).key(of.members(group.id)).key(of.groups());
        put.arg(&group.id.to_bytes()[..]).arg(group.encode()).arg(versioned(0, &Ordinals::new()));
        self.write_one(put.cmd(), Repeat::Once).await.map(drop)
    }

    async fn replace_group(&self, app: &AppId, before: &Group, after: Group) -> Result<bool, Error> {
        let of = self.of(app);
        let mut get = cmd("GET");
        get.arg(of.group(before.id));
        let kept = take::value(self.ask_one(get).await?)?;
        let Some(kept) = take::unchanged(kept, before, "a group")? else { return Ok(false) };
        let mut replace = Call::new(Step::ReplaceGroup);
        replace.key(of.group(before.id)).arg(kept).arg(after.encode());
        take::value(self.write_one(replace.cmd(), Repeat::Never).await?)
    }

    async fn group(&self, app: &AppId, id: GroupId) -> Result<Option<Group>, Error> {
        let mut get = cmd("GET");
        get.arg(self.of(app).group(id));
        take::maybe(self.ask_one(get).await?, "a group")
    }

    async fn groups(&self, app: &AppId, after: Option<GroupId>, limit: usize) -> Result<Vec<Group>, Error> {
        let of = self.of(app);
        let from = after.map_or_else(|| b"-".to_vec(), |id| [b"(".as_slice(), &id.to_bytes()].concat());
        let mut list = cmd("ZRANGEBYLEX");
        list.arg(of.groups()).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        let ids: Vec<Vec<u8>> = take::value(self.ask_one(list).await?)?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        for id in ids {
            let id = id.try_into().map_err(|_| take::corrupt("groups", &"not an id"))?;
            get.arg(of.group(GroupId::from_bytes(id)));
        }
        let found: Vec<Value> = take::value(self.ask_one(get).await?)?;
        found.into_iter().filter_map(|answer| take::maybe(answer, "a group").transpose()).collect()
    }

    async fn remove_group(&self, app: &AppId, id: GroupId) -> Result<bool, Error> {
        let (of, mut remove) = (self.of(app), Call::new(Step::RemoveGroup));
        remove.key(of.group(id)).key(of.members(id)).key(of.groups()).arg(&id.to_bytes()[..]);
        take::value(self.write_one(remove.cmd(), Repeat::Never).await?)
    }

    async fn change_members(
        &self,
        app: &AppId,
        id: GroupId,
        add: Ordinals,
        remove: Ordinals,
    ) -> Result<Option<u64>, Error> {
        for _ in 0..ATTEMPTS {
            let Some((version, mut members)) = self.versioned_members(app, id).await? else { return Ok(None) };
            members |= &add;
            members -= &remove;
            let count = members.len();
            let mut swap = Call::new(Step::Swap);
            swap.key(self.of(app).members(id)).arg(&version.to_be_bytes()[..]).arg(versioned(version + 1, &members));
            match take::value(self.write_one(swap.cmd(), Repeat::Once).await?)? {
                1 => return Ok(Some(count)),
                0 => {}
                _ => return Ok(None),
            }
        }
        Err(Error::Unavailable("too many change this group at once".into()))
    }

    async fn members(&self, app: &AppId, id: GroupId) -> Result<Option<Ordinals>, Error> {
        Ok(self.versioned_members(app, id).await?.map(|(_, members)| members))
    }
}

impl Redis {
    async fn versioned_members(&self, app: &AppId, id: GroupId) -> Result<Option<(u64, Ordinals)>, Error> {
        let mut get = cmd("GET");
        get.arg(self.of(app).members(id));
        let Some(kept) = take::value::<Option<Vec<u8>>>(self.ask_settled(get).await?)? else { return Ok(None) };
        let read = || {
            let (version, members) = kept.split_first_chunk::<VERSION_BYTES>()?;
            Some((u64::from_be_bytes(*version), Ordinals::from_bytes(members)?))
        };
        read().map(Some).ok_or_else(|| take::corrupt("members of a group", &"not a set"))
    }
}

fn versioned(version: u64, members: &Ordinals) -> Vec<u8> {
    [version.to_be_bytes().to_vec(), members.clone().compact().to_bytes()].concat()
}
