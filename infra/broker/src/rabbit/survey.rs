//! Looks at one queue from outside: how many AMQP messages wait in it.

use std::{sync::Arc, time::Duration};

use lapin::Channel;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{
    link::{Link, PATIENCE, Session, Site},
    room::Room,
    topology::count,
};
use crate::{Depth, Error};

/// How long a look may take, with the connection it waits for: less than whoever wants to publish waits for all of it.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How long a look that failed stands for those of others: whoever waited for it hears what came of it, and whoever
/// comes next does not wait as long for the same.
const FAILED: Duration = Duration::from_millis(100);

/// Looks at one queue. Its channel is its own, so that a queue that does not answer holds up no other.
pub(super) struct Survey {
    queue: model::Queue,
    site: Arc<Site>,
    link: Link,
    room: Arc<Room>,
    line: Mutex<Line>,
}

/// What one looks by. One looks at a time, for all who wait meanwhile.
#[derive(Default)]
struct Line {
    open: Option<(Arc<Session>, Channel)>,
    /// When the last look failed, and why, if it did.
    failed: Option<(Instant, Error)>,
}

impl Survey {
    pub(super) fn new(queue: model::Queue, site: Arc<Site>, link: Link, room: Arc<Room>) -> Self {
        Self { queue, site, link, room, line: Mutex::default() }
    }

    /// That so many AMQP messages more may be published.
    ///
    /// # Errors
    /// [`Error::Full`], or [`Error::Unavailable`] when that cannot be told.
    pub(super) async fn room_for(&self, chunks: u64) -> Result<(), Error> {
        if let Some(known) = self.room.has_for(chunks, Instant::now()) {
            return known;
        }
        let mut line = self.line.lock().await;
        // Whoever looked meanwhile has found it out for others too.
        if let Some(known) = self.room.has_for(chunks, Instant::now()) {
            return known;
        }
        self.look(&mut line).await?;
        self.room.has_now(chunks)
    }

    /// What waits, as far as it can be told from outside: who else holds how many cannot, nor the age of what waits
    /// while others take from the queue.
    pub(super) async fn depth(&self) -> Result<Depth, Error> {
        let waiting = self.look(&mut *self.line.lock().await).await?;
        let suspects = self.count(&mut *self.line.lock().await, &self.site.names.retry(self.queue)).await?.0;
        let ready = self.room.messages_in(waiting) + suspects;
        Ok(Depth { ready, unacked: 0, oldest_age: self.room.stuck() })
    }

    async fn look(&self, line: &mut Line) -> Result<u64, Error> {
        let (waiting, consumers) = self.count(line, &self.site.names.queue(self.queue)).await?;
        self.room.looked(waiting, consumers, Instant::now());
        Ok(waiting)
    }

    async fn count(&self, line: &mut Line, name: &str) -> Result<(u64, u64), Error> {
        if let Some((at, why)) = &line.failed
            && at.elapsed() < FAILED
        {
            return Err(why.clone());
        }
        let counted = timeout(LOOK_MAX, self.ask(&mut line.open, name)).await;
        let counted = counted.unwrap_or_else(|_| Err(Error::Unavailable("RabbitMQ does not answer".into())));
        line.failed = counted.as_ref().err().map(|why| (Instant::now(), why.clone()));
        if counted.is_err()
            && let Some(session) = self.link.session()
        {
            // Whoever asked may be gone before that is found out.
            tokio::spawn(async move { session.doubt().await });
        }
        counted
    }

    async fn ask(&self, open: &mut Option<(Arc<Session>, Channel)>, name: &str) -> Result<(u64, u64), Error> {
        let session = self.link.session_within(PATIENCE).await?;
        let channel = match open.take() {
            Some((of, channel)) if Arc::ptr_eq(&of, &session) && channel.status().connected() => channel,
            _ => session.channel().await.inspect_err(|_| session.give_up())?,
        };
        let counted = count(&channel, name).await?;
        *open = Some((session, channel));
        Ok(counted)
    }
}
