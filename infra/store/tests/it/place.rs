//! A directory to keep a store in.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use engine::Engine;
use store::{SharedStore, contract::Place, embedded::Embedded};

/// A temporary directory with an embedded store.
pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        Engine::open(self.path()).unwrap()
    }
}

#[async_trait]
impl Place for Directory {
    async fn open(&mut self) -> SharedStore {
        Embedded::open(self.engine()).unwrap()
    }
}
