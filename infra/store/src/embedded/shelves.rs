//! Small records by name: those that are listed, and notes with a time to go.

use async_trait::async_trait;
use model::{Timestamp, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Embedded,
    key::{self, Text},
    table::{Draft, Read as _, Span},
};
use crate::{Error, Shelves, shelves::Place};

/// A record as it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    record: Vec<u8>,
    /// When a note goes.
    until: Option<Timestamp>,
}

impl Record for Kept {
    const VERSION: u8 = 1;
}

/// How often a shelf was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Edition(u64);

impl Record for Edition {
    const VERSION: u8 = 1;
}

fn shelved(place: Place<'_>, name: &str) -> Result<key::Shelved, Error> {
    let name = Text::new(name, "the name of a record")?;
    Ok(key::Shelved { app: place.app.clone(), env: place.env, shelf: place.shelf as u8, name })
}

fn noted(place: Place<'_>, name: &str) -> Result<key::Note, Error> {
    let key::Shelved { app, env, shelf, name } = shelved(place, name)?;
    Ok(key::Note { app, env, shelf, name })
}

fn keep(draft: &mut Draft<'_, '_>, key: key::Note, record: Vec<u8>, until: Timestamp) {
    draft.put(&key, &Kept { record, until: Some(until) });
    let key::Note { app, env, shelf, name } = key;
    draft.schedule(&key::NoteDue { at: until, app, env, shelf, name });
}

fn edition_of(place: Place<'_>) -> key::ShelfEdition {
    key::ShelfEdition { app: place.app.clone(), env: place.env, shelf: place.shelf as u8 }
}

#[async_trait]
impl Shelves for Embedded {
    async fn put_record(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        edition: Option<u64>,
    ) -> Result<bool, Error> {
        let (key, counter) = (shelved(place, name)?, edition_of(place));
        self.write(move |draft| {
            let Edition(now) = draft.get(&counter)?.unwrap_or_default();
            if edition.is_some_and(|seen| seen != now) {
                return Ok(false);
            }
            draft.put(&key, &Kept { record, until: None });
            draft.put(&counter, &Edition(now + 1));
            Ok(true)
        })
        .await
    }

    async fn note(&self, place: Place<'_>, name: &str, record: Vec<u8>, until: Timestamp) -> Result<(), Error> {
        let key = noted(place, name)?;
        self.write(move |draft| {
            keep(draft, key, record, until);
            Ok(())
        })
        .await
    }

    async fn note_once(
        &self,
        place: Place<'_>,
        name: &str,
        record: Vec<u8>,
        until: Timestamp,
    ) -> Result<Vec<u8>, Error> {
        let key = noted(place, name)?;
        self.write(move |draft| {
            if let Some(kept) = draft.get(&key)? {
                return Ok(kept.record);
            }
            keep(draft, key, record.clone(), until);
            Ok(record)
        })
        .await
    }

    async fn records(&self, place: Place<'_>, names: &[String]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let view = self.view();
        let find = |name: &String| {
            let key = shelved(place, name)?;
            if let Some(kept) = view.get(&key)? {
                return Ok(Some(kept.record));
            }
            let key::Shelved { app, env, shelf, name } = key;
            Ok(view.get(&key::Note { app, env, shelf, name })?.map(|kept| kept.record))
        };
        names.iter().map(find).collect()
    }

    async fn list_records(
        &self,
        place: Place<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let all = Span::<key::Shelved>::of(&[place.app, &place.env, &(place.shelf as u8)]);
        let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
        // Keys order by the length of names first; a shelf is small enough to be put in order here.
        for row in self.view().scan(all) {
            let (key, kept) = row?;
            rows.push((key.name.into_string(), kept.record));
        }
        rows.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        rows.retain(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        rows.truncate(limit);
        Ok(rows)
    }

    async fn remove_record(&self, place: Place<'_>, name: &str) -> Result<bool, Error> {
        let (key, counter) = (shelved(place, name)?, edition_of(place));
        self.write(move |draft| {
            let there = draft.has(&key)?;
            if there {
                let Edition(now) = draft.get(&counter)?.unwrap_or_default();
                draft.remove(&key);
                draft.put(&counter, &Edition(now + 1));
            }
            Ok(there)
        })
        .await
    }

    async fn edition(&self, place: Place<'_>) -> Result<u64, Error> {
        Ok(self.view().get(&edition_of(place))?.unwrap_or_default().0)
    }
}

/// A note's time is over, unless it was put again since.
pub(super) fn forget(draft: &mut Draft<'_, '_>, due: &key::NoteDue) -> Result<usize, Error> {
    let key = key::Note { app: due.app.clone(), env: due.env, shelf: due.shelf, name: due.name.clone() };
    if draft.get(&key)?.is_some_and(|kept| kept.until.is_some_and(|until| until <= due.at)) {
        draft.remove(&key);
    }
    Ok(0)
}
