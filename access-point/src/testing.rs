//! The site of an access point that does not run, on the embedded back ends: for tests of its parts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use engine::Engine;
use model::{
    App, AppId, Class, Clock as _, Env, Lane, Limits, Message, MessageId, Priority, SystemClock, TraceParent,
    UplinkRules,
};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::{AccessPoint, Config, Deps, Site};

/// A site, and where its back ends keep what they know.
pub(crate) fn site() -> (Arc<Site>, TempDir) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(SystemClock));
    let engine = Engine::open(dir.path()).unwrap();
    let limits = broker::embedded::Limits::default();
    let broker = broker::embedded::Embedded::open(engine.clone(), clock.clone(), limits).unwrap();
    let deps = Deps { broker, store: store::embedded::Embedded::open(engine).unwrap(), clock };
    let config = Config { sweep: Duration::from_millis(100), ..Config::new("ap-1".parse().unwrap()) };
    (AccessPoint::new(config, deps, &mut Registry::default()).site, dir)
}

/// An app.
pub(crate) fn app(id: &str) -> App {
    App {
        id: id.parse().unwrap(),
        created_at: SystemClock.now(),
        device_secret: "secret".into(),
        limits: Limits::default(),
        uplink: UplinkRules::default(),
    }
}

/// A broadcast of an app.
pub(crate) fn broadcast(app: &AppId) -> Message {
    let now = SystemClock.now();
    Message {
        id: MessageId::new(now, 1),
        app: app.clone(),
        env: Env::Live,
        lane: Lane::Broadcast,
        kind: "order".into(),
        class: Class::Message,
        payload: "{}".into(),
        content_type: "application/json".into(),
        created_at: now,
        expires_at: now + Duration::from_hours(1),
        due_at: None,
        priority: Priority::Normal,
        collapse_key: None,
        metadata: BTreeMap::new(),
        trace: TraceParent::start(1, 2),
    }
}
