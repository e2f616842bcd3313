//! What others tell a worker. It looks here once a turn and takes everything at once; whoever puts something in wakes it.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use model::AppId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::table::Seat;
use crate::{connection::Entrant, errand::Done};

/// Everything that was put in since the last look. Bounded by what there is: of a connection one call, one errand of a
/// kind, and as many wakes as its socket was waited for.
#[derive(Default)]
pub(crate) struct Mail {
    /// Connections to be served from now on.
    pub(super) entrants: Vec<Entrant>,
    /// What connections have sent for is here.
    pub(super) done: Vec<Done>,
    /// Connections that were rung, handed something, or told to go.
    pub(super) called: Vec<Seat>,
    /// Connections whose sockets can be read or written.
    pub(super) ready: Vec<Seat>,
    /// Apps whose timelines have grown.
    pub(super) grown: Vec<AppId>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        let sockets = self.ready.is_empty() && self.entrants.is_empty();
        sockets && self.called.is_empty() && self.done.is_empty() && self.grown.is_empty()
    }
}

#[derive(Default)]
struct State {
    mail: Mail,
    /// Whether the worker has been woken and has not looked since.
    woken: bool,
}

/// A worker's mailbox.
#[derive(Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    wake: Notify,
}

impl Mailbox {
    /// Hands over a connection.
    pub(crate) fn enter(&self, entrant: Entrant) {
        self.put(|mail| mail.entrants.push(entrant));
    }

    /// Brings back what a connection has sent for.
    pub(crate) fn done(&self, done: Done) {
        self.put(|mail| mail.done.push(done));
    }

    /// Calls the worker to the connection in this seat: it was told something.
    pub(crate) fn call(&self, seat: Seat) {
        self.put(|mail| mail.called.push(seat));
    }

    /// Says that an app's timeline has grown.
    pub(crate) fn grown(&self, app: &AppId) {
        self.put(|mail| {
            if !mail.grown.contains(app) {
                mail.grown.push(app.clone());
            }
        });
    }

    /// What the socket of the connection in this seat wakes.
    pub(super) fn waker(self: &Arc<Self>, seat: Seat) -> Waker {
        Arc::new(Socket { mailbox: self.clone(), seat }).into()
    }

    /// Swaps everything that was put in against the empty `mail`; false when there was nothing.
    pub(super) fn take(&self, mail: &mut Mail) -> bool {
        let mut state = self.state.lock();
        state.woken = false;
        std::mem::swap(&mut state.mail, mail);
        !mail.is_empty()
    }

    /// Returns when something was put in since the last look.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }

    fn put(&self, put: impl FnOnce(&mut Mail)) {
        let mut state = self.state.lock();
        put(&mut state.mail);
        let woken = std::mem::replace(&mut state.woken, true);
        drop(state);
        if !woken {
            self.wake.notify_one();
        }
    }
}

/// Wakes a worker for a socket.
struct Socket {
    mailbox: Arc<Mailbox>,
    seat: Seat,
}

impl Wake for Socket {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.put(|mail| mail.ready.push(self.seat));
    }
}
