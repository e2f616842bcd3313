//! The store in Redis: one server, a master found by Sentinels, or a cluster; routes may lie in another, volatile one.
//!
//! Every atomic step is a script on the keys of one app, so no call takes a lock and none leaves half a change. Calls
//! share one connection and its round trips. What Redis does not promise by itself is asked for: durability is checked
//! at the start, replicas are waited for, time out is an answer, and what was lost is noticed.

mod apps;
mod changes;
mod check;
mod cursors;
mod devices;
mod fence;
mod gather;
mod groups;
mod inbox;
mod key;
mod link;
mod log;
mod losses;
mod messages;
mod nodes;
mod receipts;
mod retention;
mod routes;
mod script;
mod shelves;
mod take;
mod target;
mod timeline;
mod uplinks;

use std::{collections::HashSet, sync::Arc, time::Duration};

use deadpool_redis::redis::{Cmd, Value, cmd};
use model::{AppId, Timestamp};
use parking_lot::Mutex;

use crate::Error;
use fence::Fence;
use gather::{Gather, Pace};
use key::{AppKeys, Keys};
use link::{Done, Limits, Link, Repeat};
use target::Target;

pub use losses::Lost;

/// Longest time to wait for an answer: a caller has failed, with all its retries, within a second.
const RESPONSE_MAX: Duration = Duration::from_millis(500);

/// How much longer than promised Redis keeps what is large and has a time: only a belt, for when nobody sweeps.
const BELT: Duration = Duration::from_hours(24);

/// What to do when the server is not set up to keep what it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Refuse a server without a log or one that evicts; an `appendfsync` other than `always` is a warning.
    #[default]
    Checked,
    /// Take any server: for tests, and for who may not ask it (`CONFIG` is forbidden).
    Trusted,
}

/// Where the store is and how it is used.
#[derive(Clone, Debug)]
pub struct Config {
    /// The durable server: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/master[/db]` or
    /// `redis+cluster://host:port,host:port`.
    pub url: String,
    /// A volatile server for routes; the durable one when there is none.
    pub routes_url: Option<String>,
    /// What every key begins with: stores of different prefixes do not see each other.
    pub prefix: String,
    /// Until a connection must stand.
    pub connect_timeout: Duration,
    /// Until the server must answer; at most 500 ms are taken.
    pub response_timeout: Duration,
    /// Replicas that must have a write before it counts as durable; in a cluster, those of its node.
    pub replicas: u32,
    /// How far a caller's clock may be from the server's for an append; any distance when there is none.
    pub skew_max: Option<Duration>,
    /// Whether the server's settings are checked.
    pub durability: Durability,
}

impl Config {
    /// The usual settings for the server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            routes_url: None,
            prefix: "ff".into(),
            connect_timeout: Duration::from_millis(500),
            response_timeout: RESPONSE_MAX,
            replicas: 0,
            skew_max: Some(Duration::from_millis(250)),
            durability: Durability::default(),
        }
    }
}

/// A store in Redis.
pub struct Redis {
    durable: Arc<Link>,
    /// For what counts when replicas have it: the same, but in a cluster that waits for them.
    settled: Arc<Link>,
    volatile: Arc<Link>,
    fence: Option<Fence>,
    accept: Gather,
    devices: Gather,
    inbox_after: Gather,
    keys: Keys,
    skew_max: Option<Duration>,
    /// Apps that this process has put on the list of those with something due; as many as there are apps.
    seen: Mutex<HashSet<AppId>>,
    /// What this process has counted in the canary.
    canary: losses::Canary,
    warnings: Vec<String>,
}

impl Redis {
    /// Connects to the store.
    ///
    /// # Errors
    /// Unavailable when no server answers; rejected when a URL is not one, or when the server would not keep what it
    /// is told (see [`Durability`]).
    pub async fn connect(config: Config) -> Result<Arc<Self>, Error> {
        if config.prefix.contains(['{', '}']) {
            return Err(Error::Rejected(
                "the prefix of a store has no braces: they choose the slots of a cluster".into(),
            ));
        }
        let limits = Limits { connect: config.connect_timeout, response: config.response_timeout.min(RESPONSE_MAX) };
        let link = |url: &str| Ok::<_, Error>(Arc::new(Link::new(Target::parse(url, limits)?, limits)));
        let durable = link(&config.url)?;
        let volatile = match &config.routes_url {
            Some(url) => link(url)?,
            None => Arc::clone(&durable),
        };
        let warnings = match config.durability {
            Durability::Checked => check::durability(&durable, config.replicas).await?,
            Durability::Trusted => durable.ask(vec![cmd("PING")], Repeat::Once).await.map(|_| Vec::new())?,
        };
        let keys = Keys::new(&config.prefix);
        let (settled, fence) = match (config.replicas, Target::parse(&config.url, limits)?) {
            (0, _) => (Arc::clone(&durable), None),
            (replicas, target @ Target::Cluster(_)) => (Arc::new(Link::settling(target, limits, replicas)), None),
            (replicas, target) => {
                let fence = Fence::new(Link::new(target, limits), keys.fence(), replicas);
                (Arc::clone(&durable), Some(fence))
            }
        };
        let gather = |link: &Arc<Link>, pace| Gather::new(Arc::clone(link), pace);
        Ok(Arc::new(Self {
            accept: gather(&settled, Pace::Roomy),
            devices: gather(&durable, Pace::Swift),
            inbox_after: gather(&settled, Pace::Swift),
            durable,
            settled,
            volatile,
            fence,
            keys,
            skew_max: config.skew_max,
            seen: Mutex::default(),
            canary: losses::Canary::default(),
            warnings,
        }))
    }

    /// What is weaker about the server than it should be, for the log; nothing usually.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn of(&self, app: &AppId) -> AppKeys {
        self.keys.of(app)
    }

    /// Reads; or writes what may be written twice.
    async fn ask(&self, cmds: Vec<Cmd>) -> Result<Vec<Value>, Error> {
        self.durable.ask(cmds, Repeat::Once).await
    }

    async fn ask_one(&self, cmd: Cmd) -> Result<Value, Error> {
        take::only(self.ask(vec![cmd]).await?)
    }

    /// Reads what decides about the way of messages: only when replicas have it, so not from a server that was replaced.
    async fn ask_settled(&self, cmd: Cmd) -> Result<Value, Error> {
        take::only(self.write(vec![cmd], Repeat::Once).await?)
    }

    /// The same where mostly nothing is: on that nobody relies, and replicas are not asked.
    async fn find_settled(&self, cmd: Cmd) -> Result<Option<Value>, Error> {
        let done = self.settled.carry_out(vec![cmd], Repeat::Once).await?;
        match done.answers.as_slice() {
            [Value::Nil] => Ok(None),
            [Value::Array(found)] if found.is_empty() => Ok(None),
            _ => self.fenced(done).await.and_then(take::only).map(Some),
        }
    }

    /// Writes something that is to be durable when this returns.
    async fn write(&self, cmds: Vec<Cmd>, repeat: Repeat) -> Result<Vec<Value>, Error> {
        self.fenced(self.settled.carry_out(cmds, repeat).await?).await
    }

    /// Returns the answers when what was done is durable; also when what was read is. An entry that only a primary has
    /// which is about to be replaced is appended again, under another number: nobody may have seen it.
    async fn fenced(&self, done: Done) -> Result<Vec<Value>, Error> {
        if let Some(fence) = &self.fence
            && !done.answers.is_empty()
        {
            fence.pass(&done.by).await?;
        }
        Ok(done.answers)
    }

    async fn write_one(&self, cmd: Cmd, repeat: Repeat) -> Result<Value, Error> {
        take::only(self.write(vec![cmd], repeat).await?)
    }

    /// Puts an app on the list of those under whose tag something may be due, before anything is written there.
    async fn see(&self, app: &AppId) -> Result<(), Error> {
        if self.seen.lock().contains(app) {
            return Ok(());
        }
        let mut add = cmd("SADD");
        add.arg(self.keys.seen()).arg(app.as_str());
        self.ask_one(add).await?;
        self.seen.lock().insert(app.clone());
        Ok(())
    }

    /// What appends say of time: the caller's clock, the least number it gives, and how far it may be off.
    fn time(&self, now: Timestamp) -> [String; 3] {
        let skew = self.skew_max.map_or_else(|| "-1".to_owned(), |skew| skew.as_millis().to_string());
        [now.as_millis().to_string(), model::Seq::ZERO.next(now).0.to_string(), skew]
    }
}
