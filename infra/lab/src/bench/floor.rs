//! The bare floor of the machine: a small packet to each of many loopback sockets, and a four-byte answer from each.
//! No protocol, no store, no sessions; what the platform costs beyond it is the platform's own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    process::Command,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::FloorReport;
use crate::{Error, Usage};

/// A packet: about as long as a small message of MQTT.
const PACKET: [u8; 100] = [b'x'; 100];
/// An answer: as long as a PUBACK.
const ANSWER: [u8; 4] = [b'y'; 4];
/// Sockets that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// Sockets written to before the answers that have come are read.
const CHUNK: usize = 128;
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the sink connects from on loopback: ports of other addresses linger after a bench of many devices.
const SINK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);
/// Descriptors beside the sockets.
const OTHER_DESCRIPTORS: u64 = 500;

/// What to measure.
#[derive(Clone, Debug)]
pub struct FloorOptions {
    /// Sockets.
    pub sockets: usize,
    /// Packets to each.
    pub rounds: u32,
    /// The command that runs [`sink`] in a process of its own; the address and the number of sockets are appended.
    pub sink: Vec<String>,
}

/// Measures the floor, on one thread besides the sink's process.
///
/// # Errors
/// [`Error::Unavailable`] when the sink does not start or does not answer in time.
pub async fn floor(options: FloorOptions) -> Result<FloorReport, Error> {
    let FloorOptions { sockets, rounds, sink } = options;
    drop(rlimit::increase_nofile_limit(sockets as u64 + OTHER_DESCRIPTORS)); // too few show as a refused socket
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(BACKLOG)?;
    let Some((program, arguments)) = sink.split_first() else {
        return Err(Error::Corrupt("no command for the sink".to_owned()));
    };
    let _sink = Command::new(program)
        .args(arguments)
        .args([listener.local_addr()?.to_string(), sockets.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let work = async {
        let streams = accept(&listener, sockets).await?;
        let before = Usage::of(std::process::id())?;
        let begun = Instant::now();
        let mut times = Vec::new();
        for _ in 0..rounds {
            let round = Instant::now();
            write_to_all(&streams).await?;
            times.push(round.elapsed());
        }
        let took = begun.elapsed();
        times.sort();
        let cpu = Usage::of(std::process::id())?.cpu.saturating_sub(before.cpu);
        let round = times.get(times.len() / 2).copied().unwrap_or_default();
        Ok(FloorReport { sockets, rounds, round, took, cpu })
    };
    let late = |_| Error::unavailable("floor", format!("not done within {PATIENCE:?}"));
    timeout(PATIENCE, work).await.map_err(late)?
}

async fn accept(listener: &TcpListener, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    Ok(streams)
}

/// One round: writes in chunks, reads what has come in between, and then waits for the rest.
async fn write_to_all(streams: &[TcpStream]) -> io::Result<()> {
    let mut answered = 0;
    for (n, chunk) in streams.chunks(CHUNK).enumerate() {
        for stream in chunk {
            stream.writable().await?;
            stream.try_write(&PACKET)?;
        }
        tokio::task::yield_now().await;
        let behind = &streams[..n * CHUNK];
        while answered < behind.len() && has_answer(&behind[answered])? {
            answered += 1;
        }
    }
    for stream in &streams[answered..] {
        while !has_answer(stream)? {
            stream.readable().await?;
        }
    }
    Ok(())
}

fn has_answer(stream: &TcpStream) -> io::Result<bool> {
    let mut answer = ANSWER;
    match stream.try_read(&mut answer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The other side: opens `sockets` sockets to `server` and answers every packet until the server hangs up.
///
/// # Errors
/// [`Error::Unavailable`] when a socket cannot be opened.
pub async fn sink(server: SocketAddr, sockets: usize) -> Result<(), Error> {
    drop(rlimit::increase_nofile_limit(sockets as u64 + OTHER_DESCRIPTORS)); // too few show as a failed connect
    let mut tasks = JoinSet::new();
    for _ in 0..sockets {
        let socket = TcpSocket::new_v4()?;
        if server.ip() == Ipv4Addr::LOCALHOST {
            socket.bind((SINK, 0).into())?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        tasks.spawn(answer(stream));
    }
    tasks.join_all().await;
    Ok(())
}

/// Until the other side hangs up, which is how it says that it is done.
async fn answer(stream: TcpStream) {
    while stream.readable().await.is_ok() {
        let mut packet = PACKET;
        match stream.try_read(&mut packet) {
            Ok(0) => return,
            Ok(_) => drop(stream.try_write(&ANSWER)), // four bytes always fit an idle socket
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
