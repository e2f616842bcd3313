//! The contract on a temporary directory, and what only this implementation promises.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use engine::Engine;
use model::SystemClock;

use super::{Embedded, Limits};
use crate::{
    SharedBroker,
    contract::{End, Fixture},
};

/// A broker in a directory of its own.
pub(super) struct Place {
    dir: tempfile::TempDir,
    broker: Option<Arc<Embedded>>,
}

const LIMITS: Limits = Limits { messages_max: 5_000, bytes_max: 64 * 1024 * 1024 };

async fn start() -> Place {
    Place { dir: tempfile::tempdir().unwrap(), broker: None }
}

impl Place {
    /// Opens the engine, once the one before has let go of its directory.
    async fn engine(&self) -> Arc<Engine> {
        for _ in 0..1_000 {
            match Engine::open(self.dir.path()) {
                Err(engine::Error::Locked(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => return opened.unwrap(),
            }
        }
        panic!("the engine before this one is still there")
    }
}

#[async_trait]
impl Fixture for Place {
    async fn open(&mut self) -> SharedBroker {
        let broker = Embedded::open(self.engine().await, Arc::new(SystemClock), LIMITS).unwrap();
        self.broker = Some(Arc::clone(&broker));
        broker
    }

    async fn end(&mut self, how: End) {
        let broker = self.broker.take().unwrap();
        assert_eq!(Arc::strong_count(&broker), 1, "somebody still has a handle of the broker");
        if how == End::Closed {
            broker.close().await.unwrap();
        }
    }

    fn messages_max(&self) -> u64 {
        LIMITS.messages_max
    }
}

crate::contract_suite!(start);
