//! Devices against a server of a few lines, which plays one scene a connection.

use std::time::Duration;

use model::{MessageId, Seq, Stream, Timestamp};
use mqtt::{
    Packet,
    packet::{ConnAck, Connect, PubAck, Publish},
    wire,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::received::Place;

const PATIENCE: Duration = Duration::from_secs(10);

/// What arrived: name, seq, DUP, whether the application got it, on which connection.
type Row = (String, String, bool, bool, u32);

#[derive(Default)]
struct Seen(Mutex<Vec<Row>>);

impl Observer for Seen {
    fn arrived(&self, arrival: &Arrival<'_>) {
        let name = crate::api::Send::name_in(arrival.payload).unwrap_or("?").to_owned();
        self.0.lock().push((name, arrival.place.to_string(), arrival.dup, arrival.app, arrival.link));
    }
}

/// The server's end of one connection.
pub(crate) struct Wire {
    stream: TcpStream,
    version: Version,
    bytes: Vec<u8>,
}

impl Wire {
    /// Takes a connection and answers its CONNECT.
    pub(crate) async fn accept(listener: &TcpListener) -> (Self, Connect) {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut wire = Self { stream, version: Version::V5, bytes: Vec::new() };
        let frame = wire.frame().await.unwrap();
        wire.version = wire::version_of_connect(&frame).unwrap();
        let Packet::Connect(connect) = wire::decode(&frame, wire.version).unwrap() else { panic!("CONNECT is first") };
        wire.send(&Packet::ConnAck(Box::<ConnAck>::default())).await;
        (wire, *connect)
    }

    async fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = wire::frame_len(&self.bytes, 1_000_000).unwrap()
                && len <= self.bytes.len()
            {
                return Some(self.bytes.drain(..len).collect());
            }
            if timeout(PATIENCE, self.stream.read_buf(&mut self.bytes)).await.unwrap().unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn packet(&mut self) -> Option<Packet> {
        Some(wire::decode(&self.frame().await?, self.version).unwrap())
    }

    async fn send(&mut self, packet: &Packet) {
        let mut out = Vec::new();
        wire::encode(packet, self.version, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    /// Sends message `n` of the inbox under packet id `n`.
    async fn publish(&mut self, n: u16, dup: bool) {
        let id = MessageId::new(Timestamp::from_millis(n.into()), 1).to_string();
        let seq = Place { stream: Stream::Inbox, seq: Seq(n.into()) }.to_string();
        let payload = format!("{{\"msg\":\"m{n}\"}}");
        let mut publish = match self.version {
            Version::V5 => Publish::new("push/demo/msg/default", payload),
            Version::V311 => {
                let envelope = format!("{{\"id\":\"{id}\",\"seq\":\"{seq}\",\"type\":\"x\",\"payload\":{payload}}}");
                Publish::new("push/demo/msg/default", envelope)
            }
        };
        publish.user_properties = vec![("id".into(), id), ("seq".into(), seq)];
        (publish.qos, publish.packet_id, publish.dup) = (1, n, dup);
        self.send(&Packet::Publish(Box::new(publish))).await;
    }

    async fn acked(&mut self) -> u16 {
        match self.packet().await {
            Some(Packet::PubAck(PubAck { packet_id, .. })) => packet_id,
            other => panic!("{other:?} instead of PUBACK"),
        }
    }
}

struct Scene {
    listener: TcpListener,
    seen: Arc<Seen>,
    orders: watch::Sender<Orders>,
}

async fn scene(version: Version, faults: Faults) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = Line::to([listener.local_addr().unwrap()], 60);
    let identity = Identity {
        number: 0,
        id: "dev-1".parse().unwrap(),
        app: "demo".parse().unwrap(),
        token: "secret".into(),
        version,
        states_after: true,
    };
    let seen = Arc::new(Seen::default());
    let device = Device::new(identity, line, seen.clone(), Arc::new(Semaphore::new(1)));
    let (orders, receiver) = watch::channel(Orders { faults, ..Orders::ONLINE });
    tokio::spawn(device.run(receiver));
    Scene { listener, seen, orders }
}

async fn a_device_resumes(version: Version) {
    let Scene { listener, seen, orders } = scene(version, Faults::default()).await;
    let (mut first, connect) = Wire::accept(&listener).await;
    assert_eq!((connect.client_id.as_str(), connect.password.as_deref()), ("dev-1", Some(&b"secret"[..])));
    first.publish(1, false).await;
    first.publish(2, false).await;
    assert_eq!((first.acked().await, first.acked().await), (1, 2));
    drop(first);
    let (mut second, connect) = Wire::accept(&listener).await;
    let login = mqtt::Login::of(&connect).unwrap();
    assert_eq!((login.app.as_str(), login.after.to_string().as_str()), ("demo", "i2.t0"));
    second.publish(2, true).await;
    second.publish(3, false).await;
    assert_eq!((second.acked().await, second.acked().await), (2, 3), "a duplicate is acked as well");
    orders.send(Orders::default()).unwrap();
    assert!(matches!(second.packet().await, Some(Packet::Disconnect(_))));
    let row = |name: &str, seq: &str, dup, app, link| (name.to_owned(), seq.to_owned(), dup, app, link);
    let expected = [
        row("m1", "i1", false, true, 1),
        row("m2", "i2", false, true, 1),
        row("m2", "i2", true, false, 2),
        row("m3", "i3", false, true, 2),
    ];
    assert_eq!(*seen.0.lock(), expected);
}

#[tokio::test]
async fn a_device_of_mqtt_5_resumes_and_shows_its_application_nothing_again() {
    a_device_resumes(Version::V5).await;
}

#[tokio::test]
async fn a_device_of_mqtt_311_resumes_and_shows_its_application_nothing_again() {
    a_device_resumes(Version::V311).await;
}

#[tokio::test]
async fn every_so_many_th_ack_is_lost() {
    let faults = Faults { lose_ack_every: NonZeroU32::new(3), ..Faults::default() };
    let Scene { listener, orders: _orders, .. } = scene(Version::V5, faults).await;
    let (mut wire, _) = Wire::accept(&listener).await;
    for n in 1..=7 {
        wire.publish(n, false).await;
    }
    let mut acked = Vec::new();
    for _ in 0..5 {
        acked.push(wire.acked().await);
    }
    assert_eq!(acked, [1, 2, 4, 5, 7]);
}

#[tokio::test]
async fn a_late_ack_comes_later_and_in_order() {
    let faults = Faults { ack_late: Some(Duration::from_millis(50)), ..Faults::default() };
    let Scene { listener, orders: _orders, .. } = scene(Version::V5, faults).await;
    let (mut wire, _) = Wire::accept(&listener).await;
    let sent = tokio::time::Instant::now();
    wire.publish(1, false).await;
    wire.publish(2, false).await;
    assert_eq!((wire.acked().await, wire.acked().await), (1, 2));
    assert!(sent.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_device_that_is_cut_comes_back_by_itself() {
    let faults = Faults { cut_after: Some(Duration::from_millis(20)), ..Faults::default() };
    let Scene { listener, orders: _orders, .. } = scene(Version::V5, faults).await;
    for _ in 0..3 {
        let (mut wire, _) = Wire::accept(&listener).await;
        assert_eq!(wire.packet().await, None);
    }
}

#[tokio::test]
async fn what_a_device_leaves_lingering_stays_open_until_it_leaves_the_next() {
    let restless = Faults { cut_after: Some(Duration::from_millis(500)), lingers: true, ..Faults::default() };
    let Scene { listener, orders, .. } = scene(Version::V5, restless).await;
    let (mut first, _) = Wire::accept(&listener).await;
    let (_second, _) = Wire::accept(&listener).await;
    orders.send(Orders::ONLINE).unwrap();
    let silence = timeout(Duration::from_millis(50), first.packet()).await;
    assert!(silence.is_err(), "nothing was said, and the connection stands");
    orders.send(Orders { faults: restless, ..Orders::ONLINE }).unwrap();
    let (_third, _) = Wire::accept(&listener).await;
    assert_eq!(first.packet().await, None);
}

#[tokio::test]
async fn a_deaf_device_reads_nothing_until_it_is_told_to() {
    let Scene { listener, seen, orders } = scene(Version::V5, Faults { deaf: true, ..Faults::default() }).await;
    let (mut wire, _) = Wire::accept(&listener).await;
    let flood = async {
        for n in 1..=u16::MAX {
            wire.publish(n, false).await;
        }
    };
    assert!(timeout(Duration::from_millis(500), flood).await.is_err(), "the socket's buffers end somewhere");
    let before = seen.0.lock().len();
    assert!(before < 100, "{before} came in the same segment as CONNACK at most");
    orders.send(Orders::ONLINE).unwrap();
    assert_eq!(wire.acked().await, 1);
}

#[tokio::test]
async fn a_packet_in_pieces_is_one_packet() {
    let Scene { listener, seen, orders: _orders } = scene(Version::V5, Faults::default()).await;
    let (mut wire, _) = Wire::accept(&listener).await;
    let mut publish = Publish::new("push/demo/msg/default", "{\"msg\":\"m\"}");
    let id = MessageId::new(Timestamp::from_millis(1), 1).to_string();
    publish.user_properties = vec![("id".into(), id), ("seq".into(), "t1".into())];
    (publish.qos, publish.packet_id) = (1, 9);
    let mut bytes = Vec::new();
    wire::encode(&Packet::Publish(Box::new(publish)), Version::V5, &mut bytes).unwrap();
    for byte in bytes {
        wire.stream.write_all(&[byte]).await.unwrap();
        wire.stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.acked().await, 9);
    assert_eq!(seen.0.lock().len(), 1);
}
