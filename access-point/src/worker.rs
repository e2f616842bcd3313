//! Serves connections: a worker a core, each with a flat table of them. A connection is a record, not a task: its
//! worker comes when its socket wakes, when it is told something, and when its time is up. All that in turns: a few
//! who were called, a few sockets, a stretch of the table for a broadcast, and then others get the core. So a
//! broadcast to everybody never stands before a unicast for longer than a turn.

mod mailbox;
mod table;
mod turn;

use std::{collections::VecDeque, num::NonZero, sync::Arc, thread::available_parallelism, time::Duration};

use model::{AppId, Ordinal};
use store::CursorWrite;
use tokio::{
    task::{JoinSet, unconstrained, yield_now},
    time::{Instant, sleep_until},
};

use mailbox::Mail;
pub(crate) use mailbox::Mailbox;
pub(crate) use table::Seat;
use table::Table;
pub(crate) use turn::{Held, Turn};

use crate::{Site, close::Close, connection::Connection, errand::Done};

/// Workers at most: more cores than this have better things to do.
const WORKERS_MAX: usize = 16;

/// How long a turn goes on with one kind of thing when there is more of it: then what was begun is brought to its end, and
/// it is another's turn. A unicast waits for several turns on its way, so they are short while there are unicasts; alone, a
/// broadcast gains from longer ones.
const STRETCH: Duration = Duration::from_micros(100);
const STRETCH_ALONE: Duration = Duration::from_micros(300);

/// While a unicast was written so lately there may be more.
const BESIDE_UNICASTS: Duration = Duration::from_secs(1);

/// For so long a broadcast leaves the core to unicasts between two stretches: one core then serves some thousand devices a
/// second, and has most of its time left.
const GENTLE_PAUSE: Duration = Duration::from_millis(1);

/// Records of a table that a broadcast goes past in a turn, of which most may not be for it.
const PASSED_MAX: usize = 1_024;

/// How often the worker looks whose time is up, and hands over cursors: fine beside every deadline of a connection.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A worker that looks later than this was not busy, it stood still: its process was stopped, or moved to another machine.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// The mailboxes of all workers.
pub(crate) struct Workers(Vec<Arc<Mailbox>>);

impl Workers {
    /// One a core.
    pub(crate) fn new() -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX);
        Self((0..cores).map(|_| Arc::default()).collect())
    }

    /// Starts the workers; they end with `tasks`.
    pub(crate) fn start(&self, site: &Arc<Site>, tasks: &mut JoinSet<()>) {
        for mailbox in &self.0 {
            // A turn is bounded by itself, and the runtime's own bound would only interrupt it.
            tasks.spawn(unconstrained(Worker::new(site.clone(), mailbox.clone()).run()));
        }
    }

    /// The mailbox of a device's worker.
    pub(crate) fn of(&self, device: Ordinal) -> &Arc<Mailbox> {
        &self.0[device.0 as usize % self.0.len()]
    }

    /// An app's timeline has grown: every session of the app goes on in it.
    pub(crate) fn grown(&self, app: &AppId) {
        self.0.iter().for_each(|mailbox| mailbox.grown(app));
    }
}

/// A broadcast's way through the table. It ends where it began, and begins anew where it is when there is more to send:
/// who was passed last goes on first.
struct Walk {
    app: AppId,
    at: usize,
    left: usize,
    /// Where the table ended when that was counted.
    end: usize,
}

impl Walk {
    fn new(app: AppId, end: usize) -> Self {
        Self { app, at: 0, left: end, end }
    }

    /// There is more to send.
    fn begin_anew(&mut self, end: usize) {
        (self.left, self.end) = (end, end);
    }

    /// The table ends here by now: what it has grown by lies between here and those that were passed first.
    fn grow(&mut self, end: usize) {
        self.left += end.saturating_sub(self.end);
        self.end = self.end.max(end);
    }

    /// The next place; `None` at the end of the way.
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = (at + 1) % self.end;
        Some(at)
    }
}

struct Worker {
    mailbox: Arc<Mailbox>,
    mail: Mail,
    table: Table<Connection>,
    /// When a connection's time is up, by seat.
    due: Vec<Instant>,
    called: VecDeque<Seat>,
    ready: VecDeque<Seat>,
    walks: VecDeque<Walk>,
    /// When broadcasts go on.
    walk_at: Instant,
    /// Whose cursor has moved.
    moved: Vec<Seat>,
    look_at: Instant,
    turn: Turn,
}

impl Worker {
    fn new(site: Arc<Site>, mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            mail: Mail::default(),
            table: Table::default(),
            due: Vec::new(),
            called: VecDeque::new(),
            ready: VecDeque::new(),
            walks: VecDeque::new(),
            walk_at: Instant::now(),
            moved: Vec::new(),
            look_at: Instant::now() + LOOK_EVERY,
            turn: Turn::new(site),
        }
    }

    async fn run(mut self) {
        loop {
            if self.turn() {
                yield_now().await;
            } else if self.table.len() == 0 {
                self.mailbox.filled().await;
            } else {
                tokio::select! {
                    () = self.mailbox.filled() => {}
                    () = sleep_until(self.wake_at()) => {}
                }
            }
        }
    }

    /// Does a little of everything there is to do; true when there is more.
    fn turn(&mut self) -> bool {
        self.turn.begin();
        self.be_patient();
        self.open_mail();
        let stretch = if self.is_beside_unicasts() { STRETCH } else { STRETCH_ALONE };
        let begun = Instant::now();
        while begun.elapsed() < stretch
            && let Some(seat) = self.called.pop_front()
        {
            self.serve(seat, Connection::called);
        }
        let begun = Instant::now();
        while begun.elapsed() < stretch
            && let Some(seat) = self.ready.pop_front()
        {
            self.serve(seat, Connection::ready);
        }
        if self.turn.instant >= self.walk_at {
            self.walk(stretch);
        }
        if self.turn.instant >= self.look_at {
            self.look();
        }
        self.turn.end();
        let walks = !self.walks.is_empty() && self.turn.instant >= self.walk_at;
        walks || !self.called.is_empty() || !self.ready.is_empty()
    }

    /// Whoever is waited for gets as long again as this worker stood still, up to what an ack may take: what devices have
    /// sent meanwhile is yet to be read, or to be sent again by their systems.
    fn be_patient(&mut self) {
        let late = self.turn.instant.saturating_duration_since(self.look_at);
        // While the table is empty nobody looks.
        if late >= STOOD_STILL && self.table.len() > 0 {
            self.turn.patient_until = self.turn.instant + late.min(self.turn.site.config.ack_timeout);
        }
    }

    fn is_beside_unicasts(&self) -> bool {
        self.turn.unicast_at.is_some_and(|at| self.turn.instant < at + BESIDE_UNICASTS)
    }

    /// When there is something to do even if nothing happens.
    fn wake_at(&self) -> Instant {
        if self.walks.is_empty() { self.look_at } else { self.look_at.min(self.walk_at) }
    }

    fn open_mail(&mut self) {
        let mut mail = std::mem::take(&mut self.mail);
        self.mailbox.take(&mut mail);
        for entrant in mail.entrants.drain(..) {
            let (table, mailbox) = (&mut self.table, &self.mailbox);
            let mut early = Vec::new();
            let seat = table.seat(|seat| {
                let (connection, packets) = Connection::new(entrant, seat, mailbox.waker(seat));
                early = packets;
                connection
            });
            self.due.resize(self.table.end(), self.turn.instant);
            self.serve(seat, |connection, turn| connection.begin(early, turn));
        }
        for Done { seat, outcome } in mail.done.drain(..) {
            self.serve(seat, |connection, turn| connection.conclude(outcome, turn));
        }
        self.called.extend(mail.called.drain(..));
        for seat in mail.ready.drain(..) {
            self.table.get_mut(seat).into_iter().for_each(Connection::woken);
            self.ready.push_back(seat);
        }
        for app in mail.grown.drain(..) {
            self.grown(app);
        }
        self.mail = mail;
    }

    fn grown(&mut self, app: AppId) {
        let end = self.table.end();
        match self.walks.iter_mut().find(|walk| walk.app == app) {
            Some(walk) => walk.begin_anew(end),
            None => self.walks.push_back(Walk::new(app, end)),
        }
    }

    /// Goes a stretch of the table for one app, and then it is another's turn.
    fn walk(&mut self, stretch: Duration) {
        let Some(mut walk) = self.walks.pop_front() else { return };
        let (mut passed, begun) = (0, Instant::now());
        walk.grow(self.table.end());
        while passed < PASSED_MAX
            && begun.elapsed() < stretch
            && let Some(at) = walk.next()
        {
            passed += 1;
            let of_app = self.table.at(at).filter(|(_, connection)| connection.peer.app == walk.app);
            if let Some(seat) = of_app.and_then(|(seat, connection)| connection.grown().then_some(seat)) {
                self.serve(seat, Connection::follow);
            }
        }
        if self.is_beside_unicasts() {
            self.walk_at = self.turn.instant + GENTLE_PAUSE;
        }
        if walk.left > 0 {
            self.walks.push_back(walk);
        }
    }

    /// Serves a connection, and sees what follows from it.
    fn serve(&mut self, seat: Seat, serve: impl FnOnce(&mut Connection, &mut Turn) -> Result<(), Close>) {
        let Some(connection) = self.table.get_mut(seat) else { return };
        match serve(connection, &mut self.turn) {
            Ok(()) => {
                self.due[seat.number()] = connection.wake_at(&self.turn);
                if connection.has_moved() {
                    self.moved.push(seat);
                }
            }
            Err(close) => self.end(seat, close),
        }
    }

    /// Sees whose time is up, and hands over the cursors that have moved.
    fn look(&mut self) {
        self.look_at = self.turn.instant + LOOK_EVERY;
        for number in 0..self.due.len() {
            let is_due = self.due[number] <= self.turn.instant;
            if let Some((seat, _)) = self.table.at(number).filter(|_| is_due) {
                self.serve(seat, Connection::check);
            }
        }
        // The receipts that these cursors cover go first.
        self.turn.end();
        let mut writes: Vec<CursorWrite> = Vec::with_capacity(self.moved.len());
        for seat in self.moved.drain(..) {
            writes.extend(self.table.get_mut(seat).and_then(Connection::take_cursor));
        }
        self.turn.site.outbox.keep(writes);
    }

    fn end(&mut self, seat: Seat, close: Close) {
        let Some(mut connection) = self.table.take(seat) else { return };
        connection.hear_out(&close, &mut self.turn);
        self.turn.end();
        connection.end(&close, &mut self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_begins_anew_passes_everybody_though_the_table_grows() {
        let mut walk = Walk::new("demo".parse().unwrap(), 10);
        assert_eq!((0..4).map_while(|_| walk.next()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        walk.begin_anew(10);
        walk.grow(12);
        let passed: Vec<_> = std::iter::from_fn(|| walk.next()).collect();
        assert_eq!(passed, [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3]);
    }

    #[test]
    fn a_walk_through_an_empty_table_is_over() {
        assert_eq!(Walk::new("demo".parse().unwrap(), 0).next(), None);
    }
}
