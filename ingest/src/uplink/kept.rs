//! Wakes whoever is told what devices send up as it comes: those of an app when something of that app was kept here.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::{AppId, Env, Uplink};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Whose uplinks somebody waits for; as many at most as there are streams.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<(AppId, Env), Arc<Notify>>>);

impl Kept {
    /// What wakes those who wait for uplinks of these devices, for as long as somebody has it.
    pub(super) fn of(&self, whose: &(AppId, Env)) -> Arc<Notify> {
        let mut followed = self.0.lock();
        followed.retain(|_, kept| Arc::strong_count(kept) > 1);
        Arc::clone(followed.entry(whose.clone()).or_default())
    }

    /// Wakes whoever waits for one of these.
    pub(super) fn wake(&self, uplinks: &[Uplink]) {
        let whose: HashSet<(&AppId, Env)> = uplinks.iter().map(|uplink| (&uplink.app, uplink.env)).collect();
        let followed = self.0.lock();
        let concerned = followed.iter().filter(|((app, env), _)| whose.contains(&(app, *env)));
        concerned.for_each(|(_, kept)| kept.notify_waiters());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use model::{Timestamp, TraceParent, UplinkId};

    use super::*;

    fn uplink((app, env): (AppId, Env)) -> Uplink {
        let received_at = Timestamp::from_millis(1_800_000_000_000);
        Uplink {
            id: UplinkId::new(received_at, 7),
            app,
            env,
            device: "dev-1".parse().unwrap(),
            user: None,
            kind: "gps".into(),
            answers: None,
            reply: None,
            content_type: None,
            payload: "1".into(),
            received_at,
            trace: TraceParent::start(7, 9),
        }
    }

    #[test]
    fn only_those_who_follow_the_app_are_woken() {
        let kept = Kept::default();
        let whose = [("demo", Env::Test), ("demo", Env::Live), ("other", Env::Test)];
        let whose = whose.map(|(app, env)| (app.parse::<AppId>().unwrap(), env));
        let wakers = whose.clone().map(|whose| kept.of(&whose));
        let mut waiting: Vec<_> = wakers.iter().map(|waker| Box::pin(waker.notified())).collect();
        waiting.iter_mut().for_each(|waiting| _ = waiting.as_mut().enable());
        kept.wake(&[uplink(whose[0].clone())]);
        let woken: Vec<bool> = waiting.into_iter().map(|waiting| waiting.now_or_never().is_some()).collect();
        assert_eq!(woken, [true, false, false]);
        drop(wakers);
        drop(kept.of(&whose[1]));
        assert_eq!(kept.0.lock().len(), 1, "nobody waits for the others any more");
    }
}
