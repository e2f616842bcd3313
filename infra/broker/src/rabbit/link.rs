//! A connection that comes back: dialled again at the next node whenever it ends or is given up, with everything of
//! ours declared before anybody uses it. What was in flight on the old one is for its users to see to.
//!
//! The client's own recovery is not used: it keeps to one node, and retries for ever what the node refuses.

use std::{
    net::{Shutdown, TcpStream},
    ops::Deref,
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event, tcp::AMQPUriTcpExt, uri::AMQPUri};
use model::queue::Names;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, interval, sleep, timeout},
};

use super::{config::Config, topology};
use crate::Error;

/// How long a node may take to answer one request. Declaring a queue on three nodes is the slowest.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a node may take from the first packet to an open connection.
const DIAL: Duration = Duration::from_secs(5);

/// How often a connection is looked at whose end nobody has told.
const LOOK: Duration = Duration::from_secs(1);

/// How long a request waits for a connection: a node that restarts is noticed by nobody, one that is down is told soon.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// A connection that lasted so long has earned the shortest pause.
const STEADY: Duration = Duration::from_secs(10);

/// Pauses between dials: the first, and the longest. Each is half as long again, and shortened by chance so that many
/// do not dial at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How long the node may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// What all connections of one broker share.
pub(super) struct Site {
    pub(super) config: Config,
    pub(super) names: Names,
}

/// Waits for a node's answer.
///
/// # Errors
/// [`Error::Unavailable`] when it is an error, or does not come.
pub(super) async fn answer<T>(request: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(unavailable),
        Err(_) => Err(Error::Unavailable("RabbitMQ does not answer".into())),
    }
}

pub(super) fn unavailable(error: lapin::Error) -> Error {
    Error::Unavailable(error.to_string())
}

/// A channel to consume on, closed as soon as nobody needs it any more: also while it is asked for something. A consumer
/// that the broker makes when nobody waits for it any more would be handed messages that nobody ever sees.
pub(super) struct Taking(Channel);

impl Deref for Taking {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        // In a broker that shuts down the connection goes with it.
        if let (true, Ok(runtime)) = (self.0.status().connected(), Handle::try_current()) {
            let channel = self.0.clone();
            // When it cannot be closed the connection is over, and the channel with it.
            drop(runtime.spawn(async move { channel.close(200, "bye".into()).await }));
        }
    }
}

/// One open connection, with everything of ours declared.
pub(super) struct Session {
    connection: Connection,
    /// Its socket once more: closing a connection in good order takes a peer that reads.
    socket: Socket,
    given_up: Notify,
}

impl Session {
    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        answer(self.connection.create_channel()).await
    }

    /// Opens a channel to consume on.
    pub(super) async fn taking(&self) -> Result<Taking, Error> {
        self.channel().await.map(Taking)
    }

    /// Whether the node refuses to take messages, because of its memory or disk.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Ends the connection: something on it went wrong, and the next node may do better.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Ends the connection unless it still answers: something on it went wrong, which may be one queue's trouble only.
    pub(super) async fn doubt(&self) {
        if self.channel().await.is_err() {
            self.give_up();
        }
    }

    /// Waits until the connection has ended or is given up.
    async fn over(&self, role: &str) {
        let mut events = self.connection.events_listener();
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => tracing::warn!(role, reason, "RabbitMQ is blocked"),
                    Some(Event::ConnectionUnblocked) => tracing::info!(role, "RabbitMQ is not blocked any more"),
                    Some(Event::Error(error)) => return tracing::warn!(role, %error, "RabbitMQ is lost"),
                    Some(_) => {}
                    None => return,
                },
                () = self.given_up.notified() => return tracing::warn!(role, "RabbitMQ is given up"),
                _ = look.tick() => if !self.connection.status().connected() {
                    return tracing::warn!(role, "RabbitMQ is gone");
                },
            }
        }
    }

    /// Says goodbye, so that the node gives back what is out at once.
    async fn close(&self) {
        if timeout(GOODBYE, self.connection.close(200, "bye".into())).await.is_err() {
            self.socket.cut();
        }
    }
}

/// The sockets of a dial, to be cut when its connection is of no use.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn cut(&self) {
        if let Some(socket) = self.0.lock().take() {
            // It fails when the peer was faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A connection that comes back, for one role. It is first dialled when it is first asked for.
#[derive(Clone)]
pub(super) struct Link {
    sessions: watch::Receiver<Option<Arc<Session>>>,
    wished: Arc<Notify>,
}

impl Link {
    /// A link, and what keeps it up for as long as it runs.
    pub(super) fn new(site: Arc<Site>, role: &'static str) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, sessions) = watch::channel(None);
        let wished = Arc::new(Notify::new());
        let link = Self { sessions, wished: Arc::clone(&wished) };
        let keep_up = async move {
            wished.notified().await;
            keep_up(site, role, sender).await;
        };
        (link, keep_up)
    }

    fn wish(&self) -> watch::Receiver<Option<Arc<Session>>> {
        self.wished.notify_one();
        self.sessions.clone()
    }

    /// The connection there is.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.wish().borrow().clone()
    }

    /// The connection there is, or is within this time.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none.
    pub(super) async fn session_within(&self, patience: Duration) -> Result<Arc<Session>, Error> {
        let session = timeout(patience, self.next_session()).await.ok().flatten();
        session.ok_or_else(|| Error::Unavailable("RabbitMQ cannot be reached".into()))
    }

    /// Waits for a connection; `None` when there will be none any more.
    pub(super) async fn next_session(&self) -> Option<Arc<Session>> {
        let mut sessions = self.wish();
        sessions.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Waits until this connection is over.
    pub(super) async fn lost(&self, session: &Arc<Session>) {
        let mut sessions = self.wish();
        let other = |now: &Option<Arc<Session>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, session));
        // It fails when there will be no connection any more.
        let _ = sessions.wait_for(other).await;
    }

    /// Closes the connection there is, in good order.
    pub(super) async fn close(&self) {
        let session = self.sessions.borrow().clone();
        if let Some(session) = session {
            session.close().await;
        }
    }
}

async fn keep_up(site: Arc<Site>, role: &'static str, sessions: watch::Sender<Option<Arc<Session>>>) {
    // Connections begin at different nodes, so that these share the work.
    let mut node = rand::random_range(0..site.config.urls.len());
    let mut pause = PAUSE.0;
    loop {
        let url = &site.config.urls[node];
        let began = Instant::now();
        match dial(&site, url, role).await {
            Ok(session) => {
                let session = Arc::new(session);
                sessions.send_replace(Some(Arc::clone(&session)));
                session.over(role).await;
                sessions.send_replace(None);
                session.socket.cut();
            }
            Err(error) => {
                let (host, port) = (&url.authority.host, url.authority.port);
                tracing::warn!(role, host, port, %error, "RabbitMQ cannot be reached");
            }
        }
        if began.elapsed() > STEADY {
            pause = PAUSE.0;
        }
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = pause.mul_f64(1.5).min(PAUSE.1);
        node = (node + 1) % site.config.urls.len();
    }
}

/// Opens a connection and declares everything of ours.
async fn dial(site: &Site, url: &AMQPUri, role: &str) -> Result<Session, Error> {
    let socket = Socket::default();
    let dialled = timeout(DIAL, connect(url.clone(), socket.clone(), role)).await;
    let connection = dialled.map_err(|_| Error::Unavailable("RabbitMQ does not answer".into())).flatten();
    let session = Session { connection: connection.inspect_err(|_| socket.cut())?, socket, given_up: Notify::new() };
    match topology::declare(site, &session).await {
        Ok(()) => Ok(session),
        Err(error) => {
            session.socket.cut();
            Err(error)
        }
    }
}

async fn connect(url: AMQPUri, socket: Socket, role: &str) -> Result<Connection, Error> {
    let runtime = lapin::runtime::default_runtime().map_err(unavailable)?;
    let name = format!("fanfare {role}");
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connected = Connection::connector(
        url,
        runtime,
        async move |url, runtime| {
            let stream = url.connect_async(&runtime).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                plain.get_ref().set_nodelay(true)?;
                let again = plain.get_ref().as_fd().try_clone_to_owned()?;
                *socket.0.lock() = Some(TcpStream::from(again));
            }
            Ok(stream)
        },
        properties,
    );
    connected.await.map_err(unavailable)
}
