//! The store in this process, on the embedded engine.
//!
//! Every change is one step on the engine's committer, made through a draft that takes effect wholly or not at all, so
//! calls need no locks. Reads go to a view of what is durable and are short enough to run where they are called. Only
//! routes and nodes live in memory: they are told again.

mod apps;
mod bounds;
mod changes;
mod cursors;
mod devices;
mod groups;
mod inbox;
mod key;
mod messages;
mod nodes;
mod receipts;
mod retention;
mod routes;
mod shelves;
mod table;
mod timeline;
mod uplinks;

use std::sync::Arc;

use engine::Engine;

use crate::Error;
use nodes::Leases;
use routes::Sessions;
use table::{Draft, Tables, View};

/// Records changed in one step of those that need not change together, about a quarter of a millisecond: all others who
/// write, as whoever has a unicast to append, wait for the step.
const TOGETHER_MAX: usize = 32;

/// A store in the database of this process.
pub struct Embedded {
    engine: Arc<Engine>,
    tables: Arc<Tables>,
    sessions: Sessions,
    leases: Leases,
}

impl Embedded {
    /// Opens the store that `engine` keeps, an empty one when there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(engine: Arc<Engine>) -> Result<Arc<Self>, Error> {
        let tables = Arc::new(Tables::open(&engine)?);
        Ok(Arc::new(Self { engine, tables, sessions: Sessions::default(), leases: Leases::default() }))
    }

    /// What is durable now.
    fn view(&self) -> View<'_> {
        View::new(&self.engine, &self.tables)
    }

    /// Runs `step` in the next group; what it drafted takes effect unless it fails.
    async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Draft<'_, '_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let tables = self.tables.clone();
        self.engine
            .write(move |tx| {
                let mut draft = Draft::new(tx, &tables);
                let done = step(&mut draft)?;
                draft.apply();
                Ok(done)
            })
            .await?
    }

    /// Runs `step` for a few of `all` after the other, and gives what came of each. When one of these steps fails those
    /// before it stand: for changes that can be made twice.
    async fn write_few_at_a_time<I: Send + 'static, T: Send + 'static>(
        &self,
        all: Vec<I>,
        step: impl Fn(&mut Draft<'_, '_>, Vec<I>) -> Result<Vec<T>, Error> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let (mut all, mut done) = (all.into_iter(), Vec::new());
        while all.len() > 0 {
            let (few, step) = (all.by_ref().take(TOGETHER_MAX).collect(), step.clone());
            done.extend(self.write(move |draft| step(draft, few)).await?);
        }
        Ok(done)
    }
}
