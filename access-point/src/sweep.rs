//! Compares, every half minute and when bells may have been missed, how far sessions are with the heads of their streams, and
//! what is kept of timelines with the store. So a bell that was lost, or rung at a stale route, costs time and never a
//! message.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use model::{AppId, Ordinal, Stream};
use tokio::time::{self, Instant};
use tracing::warn;

use crate::{Site, bell, registry::Handle};

/// Inboxes whose heads are asked for at once.
const HEADS_MAX: usize = 500;

/// Apps that are swept at once, so that those whose part of the store is slow or away do not keep the others waiting.
const APPS_MAX: usize = 64;

/// Part of the period by which it varies, so that access points do not sweep in step.
const JITTER: f64 = 0.1;

/// Between two sweeps at least, also while bells are missed all the time: each asks for the heads of all sessions.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The period after a sweep that failed: what it would have found has been late for long enough.
const RETRY: Duration = Duration::from_secs(2);

/// Sweeps for ever.
pub(crate) async fn run(site: Arc<Site>) {
    let (mut period, mut swept_at) = (site.config.sweep, Instant::now());
    loop {
        let pause = period.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER));
        if time::timeout(pause, site.unheard.notified()).await.is_ok() {
            time::sleep_until(swept_at + PAUSE_MIN.min(site.config.sweep)).await;
        }
        (period, swept_at) = (site.config.sweep, Instant::now());
        site.timelines.let_go(swept_at.into_std());
        site.registry.let_go(|app| site.timelines.get(app).is_some());
        let apps = stream::iter(site.registry.apps());
        let mut sweeps = apps.map(|app| is_swept(&site, app)).buffer_unordered(APPS_MAX);
        while let Some(swept) = sweeps.next().await {
            if !swept {
                period = period.min(RETRY);
            }
        }
        site.swept.notify_one();
    }
}

async fn is_swept(site: &Site, app: AppId) -> bool {
    let swept = sweep(site, &app).await;
    if let Err(error) = &swept {
        site.metrics.store_failures.inc();
        warn!(%app, %error, "cannot sweep; trying again soon");
    }
    swept.is_ok()
}

async fn sweep(site: &Site, app: &AppId) -> Result<(), store::Error> {
    let sessions = site.registry.sessions(app);
    // Also of an app whose devices have gone lately: the next that comes is shown what is kept.
    if let Some(timeline) = site.timelines.get(app) {
        let head = site.deps.store.timeline_head(app).await?;
        bell::grown(site, app, head).await;
        if sessions.iter().any(|session| session.mark(Stream::Timeline) < head) {
            site.workers.grown(app);
        }
        timeline.look_again().await?;
    }
    for some in sessions.chunks(HEADS_MAX) {
        inboxes(site, app, some).await?;
    }
    Ok(())
}

async fn inboxes(site: &Site, app: &AppId, sessions: &[Arc<Handle>]) -> Result<(), store::Error> {
    let devices: Vec<Ordinal> = sessions.iter().map(|session| session.ordinal).collect();
    let heads = site.deps.store.inbox_heads(app, &devices).await?;
    for (session, head) in sessions.iter().zip(heads) {
        if session.mark(Stream::Inbox) < head {
            session.note_inbox_head(head);
            session.ring(Stream::Inbox);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use model::Epoch;
    use store::TimelineAppend;

    use super::*;
    use crate::{testing, timeline::Timeline};

    /// An app with a session.
    async fn app(site: &Site, name: &str) -> Arc<Timeline> {
        let app: AppId = name.parse().unwrap();
        site.deps.store.create_app(testing::app(name)).await.unwrap();
        site.registry.enter(&Arc::new(Handle::new(app.clone(), Ordinal(7), Epoch(1), 0, Arc::default())));
        site.timelines.open(&app, site.deps.clock.now()).await.unwrap()
    }

    #[tokio::test]
    async fn an_app_is_swept_while_others_wait_for_the_store() {
        let (site, _dir) = testing::site();
        let mut others = Vec::new();
        for n in 0..20 {
            others.push(app(&site, &format!("slow-{n}")).await);
        }
        let _read = join_all(others.iter().map(|timeline| timeline.is_read())).await;
        let timeline = app(&site, "demo").await;
        let before = timeline.head();
        let message = Arc::new(testing::broadcast(&"demo".parse().unwrap()));
        let append = TimelineAppend { message, audience: [Ordinal(7)].into_iter().collect() };
        site.deps.store.append_timeline(vec![append], site.deps.clock.now()).await.unwrap();
        let sweeping = tokio::spawn(run(site.clone()));
        let swept = async {
            while timeline.head() == before {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(Duration::from_secs(5), swept).await.unwrap();
        sweeping.abort();
    }
}
