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

/// How long a look may take: less than whoever wants to publish waits for all of it.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Looks at one queue. Its channel is its own, so that a queue that does not answer holds up no other.
pub(super) struct Survey {
    queue: model::Queue,
    site: Arc<Site>,
    link: Link,
    room: Arc<Room>,
    open: Mutex<Option<(Arc<Session>, Channel)>>,
}

impl Survey {
    pub(super) fn new(queue: model::Queue, site: Arc<Site>, link: Link, room: Arc<Room>) -> Self {
        Self { queue, site, link, room, open: Mutex::new(None) }
    }

    /// That so many AMQP messages more may be published.
    ///
    /// # Errors
    /// [`Error::Full`], or [`Error::Unavailable`] when that cannot be told.
    pub(super) async fn room_for(&self, chunks: u64) -> Result<(), Error> {
        if let Some(known) = self.room.has_for(chunks, Instant::now()) {
            return known;
        }
        self.look(&self.site.names.queue(self.queue)).await?;
        self.room.has_now(chunks)
    }

    /// What waits, as far as it can be told from outside: who else holds how many cannot, nor the age of what waits
    /// while others take from the queue.
    pub(super) async fn depth(&self) -> Result<Depth, Error> {
        let waiting = self.look(&self.site.names.queue(self.queue)).await?;
        let suspects = self.count(&self.site.names.retry(self.queue)).await?.0;
        let ready = self.room.messages_in(waiting) + suspects;
        Ok(Depth { ready, unacked: 0, oldest_age: self.room.stuck() })
    }

    async fn look(&self, name: &str) -> Result<u64, Error> {
        let (waiting, consumers) = self.count(name).await?;
        self.room.looked(waiting, consumers, Instant::now());
        Ok(waiting)
    }

    async fn count(&self, name: &str) -> Result<(u64, u64), Error> {
        let mut open = self.open.lock().await;
        let session = self.link.session_within(PATIENCE).await?;
        let channel = match open.take() {
            Some((of, channel)) if Arc::ptr_eq(&of, &session) && channel.status().connected() => channel,
            _ => session.channel().await.inspect_err(|_| session.give_up())?,
        };
        let counted = timeout(LOOK_MAX, count(&channel, name)).await;
        let counted = counted.unwrap_or_else(|_| Err(Error::Unavailable("RabbitMQ does not answer".into())));
        if counted.is_ok() {
            *open = Some((session, channel));
        } else {
            // Whoever asked may be gone before that is found out.
            tokio::spawn(async move { session.doubt().await });
        }
        counted
    }
}
