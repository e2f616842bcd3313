//! Small records by name: a string each, their names in a sorted set. Notes go by the server's own clock.

use async_trait::async_trait;
use deadpool_redis::redis::{Value, cmd};
use model::Timestamp;

use super::{
    Redis,
    key::Key,
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::{Error, Shelves, shelves::Place};

#[async_trait]
impl Shelves for Redis {
    async fn put_record(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        edition: Option<u64>,
    ) -> Result<bool, Error> {
        let repeat = if edition.is_some() { Repeat::Never } else { Repeat::Once };
        let mut put = Call::new(Step::PutRecord);
        put.key(self.record(place, name)).key(self.names_on(place)).key(self.edition_of(place));
        put.arg(named(name)?).arg(record).arg(edition.map(|seen| seen.to_string()).unwrap_or_default());
        take::value(self.write_one(put.cmd(), repeat).await?)
    }

    async fn note(&self, place: Place<'_>, name: &str, record: Vec<u8>, until: Timestamp) -> Result<(), Error> {
        named(name)?;
        let mut set = cmd("SET");
        set.arg(self.record(place, name)).arg(record).arg("PXAT").arg(until.as_millis());
        self.write_one(set, Repeat::Once).await.map(drop)
    }

    async fn note_once(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        until: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        named(name)?;
        let mut set = cmd("SET");
        set.arg(self.record(place, name)).arg(&record).arg("NX").arg("GET").arg("PXAT").arg(until.as_millis());
        let before: Option<Vec<u8>> = take::value(self.write_one(set, Repeat::Once).await?)?;
        Ok(before.unwrap_or(record))
    }

    async fn records(&self, place: Place<'_>, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut get = cmd("MGET");
        names.iter().for_each(|name| _ = get.arg(self.record(place, name)));
        take::value(self.ask_one(get).await?)
    }

    async fn list_records(
        &self,
        place: Place<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |name| format!("({name}"));
        let mut list = cmd("ZRANGEBYLEX");
        list.arg(self.names_on(place)).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        let names: Vec<String> = take::value(self.ask_one(list).await?)?;
        let found = self.records(place, &names).await?;
        // One that was removed between the two reads is not listed.
        Ok(names.into_iter().zip(found).filter_map(|(name, record)| Some((name, record?))).collect())
    }

    async fn remove_record(&self, place: Place<'_>, name: &str) -> Result<bool, Error> {
        let mut remove = Call::new(Step::RemoveRecord);
        remove.key(self.record(place, name)).key(self.names_on(place)).key(self.edition_of(place)).arg(named(name)?);
        take::value::<Value>(self.write_one(remove.cmd(), Repeat::Never).await?).and_then(take::value)
    }

    async fn edition(&self, place: Place<'_>) -> Result<u64, Error> {
        let mut get = cmd("GET");
        get.arg(self.edition_of(place));
        Ok(take::value::<Option<u64>>(self.ask_one(get).await?)?.unwrap_or_default())
    }
}

impl Redis {
    fn record(&self, place: Place<'_>, name: &str) -> Key {
        self.of(place.app).record(place.env, place.shelf, name)
    }

    fn names_on(&self, place: Place<'_>) -> Key {
        self.of(place.app).record_names(place.env, place.shelf)
    }

    fn edition_of(&self, place: Place<'_>) -> Key {
        self.of(place.app).edition(place.env, place.shelf)
    }
}

/// Takes what the other back end takes.
fn named(name: &str) -> Result<&str, Error> {
    match name.len() {
        1..=255 => Ok(name),
        _ => Err(Error::Rejected("the name of a record takes at most 255 bytes".into())),
    }
}
