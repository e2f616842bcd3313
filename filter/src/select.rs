//! Answers expressions in this process, from the indexes.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use audience::{BuiltIn, Expr, Field, Invalid, Select, SelectError};
use model::{AppId, Env, Ordinals, Timestamp};
use prometheus_client::metrics::histogram::Histogram;
use store::SharedStore;
use tokio::{task, time::Instant};

use crate::{Part, indexes::Indexes};

/// Parts of an index that are asked before other tasks get their turn: less than a millisecond.
const PARTS_A_TURN: usize = 16;

/// Fields whose values change when a node ends.
const WHO_RUNS: [Field; 2] = [Field::BuiltIn(BuiltIn::Online), Field::BuiltIn(BuiltIn::LastSeen)];

pub(crate) struct FromIndexes {
    pub(crate) store: SharedStore,
    pub(crate) indexes: Arc<Indexes>,
    pub(crate) seconds: Histogram,
}

impl FromIndexes {
    /// Asks every part of the app's index, as of now.
    async fn ask(
        &self,
        app: &AppId,
        expression: &str,
        now: Timestamp,
        mut ask: impl FnMut(&Part, &Expr),
    ) -> Result<(), SelectError> {
        let expr: Expr = expression.parse()?;
        let started = Instant::now();
        let index = self.indexes.caught_up(app).await?;
        if expr.fields().into_iter().any(|field| WHO_RUNS.contains(field)) {
            // One that is missing would have nobody online, and a message lost: then there is no answer.
            let runs = self.store.runs(now).await.map_err(|error| SelectError::Unavailable(error.to_string()))?;
            index.set_running(&runs);
        }
        for parts in index.parts().chunks(PARTS_A_TURN) {
            parts.iter().for_each(|part| ask(part, &expr));
            task::yield_now().await;
        }
        self.seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }
}

#[async_trait]
impl Select for FromIndexes {
    async fn select(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        let mut selected = Ordinals::new();
        self.ask(app, expression, now, |part, expr| part.select(env, expr, now, &mut selected)).await?;
        Ok(selected)
    }

    async fn count(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<u64, SelectError> {
        let mut count = 0;
        self.ask(app, expression, now, |part, expr| count += part.count(env, expr, now)).await?;
        Ok(count)
    }

    async fn tags(
        &self,
        app: &AppId,
        env: Env,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, SelectError> {
        let index = self.indexes.caught_up(app).await?;
        let mut counts = BTreeMap::<String, u64>::new();
        for parts in index.parts().chunks(PARTS_A_TURN) {
            parts.iter().for_each(|part| part.tags(env, after, limit, &mut counts));
            task::yield_now().await;
        }
        Ok(counts.into_iter().take(limit).collect())
    }

    fn check(&self, _app: &AppId, expression: &str) -> Result<(), Invalid> {
        expression.parse::<Expr>().map(drop)
    }
}
