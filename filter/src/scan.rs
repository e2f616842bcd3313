//! Answers expressions by looking at every device of the app: right, and as slow as the app is large.
//!
//! The cost is one read of the whole registry for each expression, whatever it selects; an index takes this place
//! behind the same trait, and is tested against the same [`holds`].

use async_trait::async_trait;
use audience::{Expr, Facts, Invalid, Select, SelectError, holds};
use model::{AppId, Env, Ordinals, Timestamp};
use prometheus_client::metrics::histogram::Histogram;
use store::{PAGE_MAX, SharedStore};
use tokio::{task, time::Instant};

pub(crate) struct Scan {
    pub(crate) store: SharedStore,
    pub(crate) seconds: Histogram,
}

#[async_trait]
impl Select for Scan {
    async fn select(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        let expr: Expr = expression.parse()?;
        let started = Instant::now();
        let mut selected = Ordinals::new();
        let mut after = None;
        loop {
            let page = self.store.list(app, env, after, PAGE_MAX).await.map_err(unavailable)?;
            let Some(last) = page.last() else { break };
            after = Some(last.ordinal);
            let satisfying = page.iter().filter(|device| holds(&expr, &Facts { device, now }));
            selected.extend(satisfying.map(|device| device.ordinal));
            task::yield_now().await;
        }
        self.seconds.observe(started.elapsed().as_secs_f64());
        Ok(selected)
    }

    fn check(&self, _app: &AppId, expression: &str) -> Result<(), Invalid> {
        expression.parse::<Expr>().map(drop)
    }
}

/// Whatever ails the store, the expression is not to blame: an empty audience would be a wrong answer.
fn unavailable(error: store::Error) -> SelectError {
    SelectError::Unavailable(error.to_string())
}
