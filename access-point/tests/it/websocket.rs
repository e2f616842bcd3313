//! WebSocket: frames however they are cut, what no client should send, and requests that are none.

use std::time::Duration;

use mqtt::{Packet, Reason, Version, wire};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    bench::{Bench, config},
    client::connect,
    via::{UPGRADE, frame, next_frame, upgrade},
};

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(packet, Version::V5, &mut bytes).unwrap();
    bytes
}

fn hello(bench: &Bench) -> Vec<u8> {
    encoded(&Packet::Connect(Box::new(connect(bench, "dev", Version::V5))))
}

/// The packet in a frame.
async fn packet(socket: &mut TcpStream) -> Packet {
    let (first, payload) = timeout(Duration::from_secs(5), next_frame(socket)).await.unwrap().unwrap();
    assert_eq!(first, BINARY);
    wire::decode(&payload, Version::V5).unwrap()
}

/// An open session on WebSocket.
async fn open(bench: &Bench) -> TcpStream {
    let mut socket = TcpStream::connect(bench.address).await.unwrap();
    upgrade(&mut socket).await;
    socket.write_all(&frame(BINARY, &hello(bench))).await.unwrap();
    assert!(matches!(packet(&mut socket).await, Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
    socket
}

#[tokio::test]
async fn a_client_need_not_wait_for_the_answer_to_its_request() {
    let bench = Bench::start(config()).await;
    let mut socket = TcpStream::connect(bench.address).await.unwrap();
    let ping = frame(BINARY, &encoded(&Packet::PingReq));
    socket.write_all(&[UPGRADE.as_bytes(), &frame(BINARY, &hello(&bench)), &ping].concat()).await.unwrap();
    let mut answer = vec![0; 4];
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    let (mut heard, pong) = (Vec::new(), encoded(&Packet::PingResp));
    while !heard.ends_with(&pong) {
        heard.extend(timeout(Duration::from_secs(5), next_frame(&mut socket)).await.unwrap().unwrap().1);
    }
    let connack = wire::decode(&heard[..heard.len() - pong.len()], Version::V5).unwrap();
    assert!(matches!(connack, Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
}

#[tokio::test]
async fn a_packet_may_come_a_byte_a_frame_and_in_fragments_with_pings_between() {
    let bench = Bench::start(config()).await;
    let mut socket = TcpStream::connect(bench.address).await.unwrap();
    upgrade(&mut socket).await;
    let hello = hello(&bench);
    let (head, body) = hello.split_at(20);
    let bytes: Vec<u8> = head.iter().flat_map(|byte| frame(BINARY, &[*byte])).collect();
    socket.write_all(&bytes).await.unwrap();
    socket.write_all(&frame(0x02, &body[..5])).await.unwrap();
    socket.write_all(&frame(PING, b"still there?")).await.unwrap();
    assert_eq!(next_frame(&mut socket).await.unwrap(), (PONG, b"still there?".to_vec()));
    socket.write_all(&frame(0x00, &body[5..9])).await.unwrap();
    socket.write_all(&frame(0x80, &body[9..])).await.unwrap();
    assert!(matches!(packet(&mut socket).await, Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS));
}

#[tokio::test]
async fn what_breaks_the_rules_is_told_why_and_closed() {
    let bench = Bench::start(config()).await;
    let huge = [&[BINARY, 0xFF][..], &(2_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (frame(0x81, b"text"), 1003_u16),
        (b"\x82\x02ab".to_vec(), 1002),
        (huge, 1009),
        (frame(0xC2, b"deflated"), 1002),
    ] {
        let mut socket = open(&bench).await;
        socket.write_all(&bytes).await.unwrap();
        assert!(matches!(packet(&mut socket).await, Packet::Disconnect(last) if last.reason == Reason::PROTOCOL_ERROR));
        assert_eq!(next_frame(&mut socket).await.unwrap(), (CLOSE, code.to_be_bytes().to_vec()));
        assert_eq!(next_frame(&mut socket).await, None);
    }
}

#[tokio::test]
async fn a_close_is_answered_and_ends_the_session() {
    let bench = Bench::start(config()).await;
    let mut socket = open(&bench).await;
    socket.write_all(&frame(CLOSE, &1001_u16.to_be_bytes())).await.unwrap();
    assert_eq!(next_frame(&mut socket).await.unwrap(), (CLOSE, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(next_frame(&mut socket).await, None);
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_in_part_and_holds_nothing_up() {
    let bench = Bench::start(config()).await;
    let mut socket = open(&bench).await;
    let flood: Vec<u8> = (0..2_000).flat_map(|_| frame(PING, &[7; 125])).collect();
    let (mut reads, mut writes) = socket.split();
    let (written, heard) = tokio::join!(
        async {
            writes.write_all(&flood).await.unwrap();
            writes.write_all(&frame(BINARY, &encoded(&Packet::PingReq))).await.unwrap();
        },
        timeout(Duration::from_secs(10), async {
            while let Some((first, payload)) = next_frame(&mut reads).await {
                if first == BINARY {
                    return wire::decode(&payload, Version::V5).unwrap();
                }
                assert_eq!((first, payload.len()), (PONG, 125));
            }
            panic!("closed")
        })
    );
    assert_eq!((written, heard.unwrap()), ((), Packet::PingResp));
}

#[tokio::test]
async fn other_requests_are_answered_and_closed() {
    let bench = Bench::start(config()).await;
    let endless = format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(9_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
        ("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 426 "),
        ("NONSENSE\r\n\r\n", "HTTP/1.1 400 "),
        (&endless, ""),
    ] {
        let mut socket = TcpStream::connect(bench.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(3), socket.read_to_end(&mut answer)).await.expect("it stays open");
        assert!(answer.starts_with(status.as_bytes()), "{request}: {}", String::from_utf8_lossy(&answer));
    }
}
