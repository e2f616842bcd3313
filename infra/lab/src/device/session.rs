//! What a device does from one CONNECT to the end of that connection.

use std::{collections::VecDeque, io, net::SocketAddr, pin::pin, time::Duration};

use model::Position;
use mqtt::{
    Packet, Reason, Version,
    packet::{ConnAck, Connect, Disconnect, PubAck, Publish},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{Device, End, Faults, Orders, arrival::Arrival, arrival::Message, direction, link::Link};

/// How long a server may take to accept the socket, and then to answer CONNECT: in a storm devices stand in line.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Late acks under way at most; beyond it the oldest goes out early.
const LATE_ACKS_MAX: usize = 256;
/// A moment that never comes in a run.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// When a session has to do something unasked.
struct Timers {
    /// CONNACK must be here, or (once it is) the next PINGREQ is due.
    next: Instant,
    /// The connection is cut.
    cut: Instant,
    /// PUBACKs that are held back.
    late: VecDeque<(Instant, u16)>,
}

impl Timers {
    fn due(&self) -> Instant {
        let late = self.late.front().map_or(self.cut, |(at, _)| *at);
        self.next.min(self.cut).min(late)
    }
}

/// One connection and how far it has come.
struct Session {
    link: Link,
    timers: Timers,
    faults: Faults,
    storm: u32,
    /// Between two PINGREQs; `None` until CONNACK and when there is no keep alive.
    ping_every: Option<Duration>,
    open: bool,
    /// What the device had received when it connected.
    stated: Position,
    pong_missing: bool,
    /// The server said why it closes, or why it does not open.
    refused: Option<Reason>,
}

impl Device {
    /// Connects, and stays connected for as long as `orders` want it and the server lasts.
    pub(super) async fn session(&mut self, orders: &mut watch::Receiver<Orders>) -> End {
        let mut permit = self.connecting.clone().acquire_owned().await.ok(); // until CONNACK
        let Ok(Ok(stream)) = timeout(OPEN_TIMEOUT, self.open_socket()).await else { return End::Refused };
        let ordered @ Orders { online: true, .. } = *orders.borrow_and_update() else { return End::Own };
        let mut session = Session::new(stream, self.identity.version, ordered);
        session.stated = self.received.position();
        self.links += 1;
        let started = session.link.push(&Packet::Connect(Box::new(self.connect()))).and_then(|()| session.link.flush());
        let mut end = started.map_or(Some(End::Lost), |()| None);
        let mut sleep = pin!(sleep_until(session.timers.due()));
        while end.is_none() {
            if session.open {
                permit = None;
            }
            if sleep.deadline() != session.timers.due() {
                sleep.as_mut().reset(session.timers.due());
            }
            end = tokio::select! {
                changed = orders.changed() => session.ordered(changed.is_ok().then(|| *orders.borrow_and_update())),
                ready = session.link.stream.readable(), if !(session.open && session.faults.deaf) => {
                    ended(ready.and_then(|()| self.read(&mut session)))
                }
                ready = session.link.stream.writable(), if session.link.has_unsent() => {
                    ended(ready.and_then(|()| session.link.flush()))
                }
                () = &mut sleep => session.tick(),
            };
        }
        drop(permit);
        let end = self.ended(&session, end.unwrap_or(End::Lost));
        self.lingering = (end == End::Cut && session.faults.lingers).then_some(session.link.stream);
        end
    }

    fn ended(&self, session: &Session, end: End) -> End {
        if let Some(reason) = session.refused {
            self.observer.refused(self.identity.number, reason);
        }
        if session.open {
            self.observer.disconnected(self.identity.number);
            return if session.refused.is_some() { End::Refused } else { end };
        }
        if matches!(end, End::Own | End::Cut) { end } else { End::Refused }
    }

    async fn open_socket(&mut self) -> io::Result<TcpStream> {
        let server = self.next_server().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.line.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.line.source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// `None` when the line has no server.
    fn next_server(&mut self) -> Option<SocketAddr> {
        let server = self.turn.checked_rem(self.line.servers.len())?;
        self.turn = server + 1;
        self.line.servers.get(server).copied()
    }

    fn connect(&self) -> Connect {
        let after = self.identity.states_after.then(|| self.received.position().to_string());
        let mut connect = Connect::new(self.identity.version, self.identity.id.as_str());
        connect.keep_alive_s = self.line.keep_alive_s;
        connect.password = Some(self.identity.token.clone().into_bytes());
        let app = &self.identity.app;
        connect.username = Some(match (&after, self.identity.version) {
            (Some(after), Version::V311) => format!("{app}?after={after}"),
            _ => app.to_string(),
        });
        if let (Some(after), Version::V5) = (after, self.identity.version) {
            connect.user_properties.push(("after".to_owned(), after));
        }
        connect
    }

    /// Handles what has come and sends the answers in one write.
    fn read(&mut self, session: &mut Session) -> io::Result<()> {
        let mut packets = Vec::new();
        let read = session.link.read(|packet| packets.push(packet));
        for packet in packets {
            match packet {
                Packet::ConnAck(ack) => self.answered(session, &ack),
                Packet::Publish(publish) => self.published(session, &publish)?,
                Packet::PingResp => session.pong_missing = false,
                // Sent elsewhere, or away for a moment: nothing is wrong with the device.
                Packet::Disconnect(told) if told.reason == Reason::USE_ANOTHER_SERVER => {
                    direction::of_disconnect(&told).into_iter().for_each(|server| self.go_to(server));
                }
                Packet::Disconnect(told) => session.refused = Some(told.reason),
                other => self.observer.strange(self.identity.number, &format!("a server sends {other:?}")),
            }
        }
        session.link.flush()?;
        read
    }

    fn answered(&self, session: &mut Session, ack: &ConnAck) {
        if ack.reason != Reason::SUCCESS {
            session.refused = Some(ack.reason);
            return;
        }
        session.open = true;
        let keep_alive_s = ack.server_keep_alive_s.unwrap_or(self.line.keep_alive_s);
        session.ping_every = (keep_alive_s > 0).then(|| Duration::from_secs(keep_alive_s.into()).mul_f32(0.8));
        session.timers.next = Instant::now() + session.ping_every.unwrap_or(NEVER);
        self.observer.connected(self.identity.number);
        if self.identity.states_after {
            self.observer.stated(self.identity.number, &self.identity.id, session.stated);
        }
    }

    /// The client rule: the application sees what is new, and everything is acked.
    fn published(&mut self, session: &mut Session, publish: &Publish) -> io::Result<()> {
        if publish.qos == 0 {
            direction::of_control(publish).into_iter().for_each(|server| self.go_to(server));
            return Ok(());
        }
        let Some(message) = Message::of(publish, self.identity.version) else {
            self.observer.strange(self.identity.number, &format!("not a message: {publish:?}"));
            return Ok(());
        };
        let app = self.received.is_new(message.id, message.place);
        let acked = self.acks_next(&session.faults);
        self.observer.arrived(&Arrival {
            number: self.identity.number,
            device: &self.identity.id,
            link: self.links,
            id: message.id,
            place: message.place,
            payload: message.payload,
            dup: publish.dup,
            app,
            acked,
        });
        if acked { session.ack(publish.packet_id) } else { Ok(()) }
    }
}

impl Session {
    fn new(stream: TcpStream, version: Version, Orders { faults, storm, .. }: Orders) -> Self {
        let now = Instant::now();
        let cut = cut_at(now, &faults);
        let timers = Timers { next: now + OPEN_TIMEOUT, cut, late: VecDeque::new() };
        let link = Link::new(stream, version);
        let stated = Position::default();
        Self { link, timers, faults, storm, ping_every: None, open: false, stated, pong_missing: false, refused: None }
    }

    fn ordered(&mut self, orders: Option<Orders>) -> Option<End> {
        match orders {
            Some(orders) if orders.online && orders.storm != self.storm => Some(End::Cut),
            Some(orders) if orders.online => {
                if orders.faults != self.faults {
                    self.faults = orders.faults;
                    self.timers.cut = cut_at(Instant::now(), &self.faults);
                }
                None
            }
            _ => {
                let said = self.link.push(&Packet::Disconnect(Disconnect::default()));
                drop(said.and_then(|()| self.link.flush())); // the connection closes either way
                Some(End::Own)
            }
        }
    }

    fn ack(&mut self, packet_id: u16) -> io::Result<()> {
        let Some(late) = self.faults.ack_late else { return self.link.push(&puback(packet_id)) };
        self.timers.late.push_back((Instant::now() + late, packet_id));
        if self.timers.late.len() > LATE_ACKS_MAX { self.ack_oldest() } else { Ok(()) }
    }

    fn ack_oldest(&mut self) -> io::Result<()> {
        let Some((_, packet_id)) = self.timers.late.pop_front() else { return Ok(()) };
        self.link.push(&puback(packet_id))?;
        self.link.flush()
    }

    /// Does what is due; says how the connection ends, if it does.
    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        if now >= self.timers.cut {
            return Some(End::Cut);
        }
        if self.timers.late.front().is_some_and(|(at, _)| *at <= now) {
            return ended(self.ack_oldest());
        }
        if now < self.timers.next {
            return None;
        }
        let Some(every) = self.ping_every.filter(|_| !self.pong_missing || self.faults.deaf) else {
            return Some(End::Lost); // neither CONNACK nor PINGRESP came in time
        };
        self.pong_missing = true;
        self.timers.next = now + every;
        ended(self.link.push(&Packet::PingReq).and_then(|()| self.link.flush()))
    }
}

fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(PubAck { packet_id, reason: Reason::SUCCESS })
}

fn ended(result: io::Result<()>) -> Option<End> {
    result.err().map(|_| End::Lost)
}

/// A random moment, uniform around the average that is wanted.
fn cut_at(now: Instant, faults: &Faults) -> Instant {
    now + faults.cut_after.map_or(NEVER, |mean| mean.mul_f32(rand::random_range(0.0..2.0)))
}
