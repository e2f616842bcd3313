//! Between a link and the session of an app that shares it: bytes of MQTT both ways, whole packets at a time towards the
//! link. It takes the place of a socket on the session's side.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use model::Position;
use mqtt::wire;
use parking_lot::Mutex;
use tokio::io::ReadBuf;

use crate::transport::pour;

/// Bytes that wait for the session, beyond which the link is not read. What one read brings may go beyond.
const UP_MAX_BYTES: usize = 32 * 1024;

/// Bytes that wait for the link; the session writes no more until they are taken. One packet may go beyond.
const DOWN_MAX_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
struct State {
    up: Vec<u8>,
    down: Vec<u8>,
    /// The link takes nothing any more.
    is_cut: bool,
    /// Woken when there is something to read, or room to write.
    session: Option<Waker>,
    news: News,
}

/// What has become of the session, told once.
#[derive(Debug, Default)]
pub(super) struct News {
    /// It is open, and its streams go up to here.
    pub(super) opened: Option<Position>,
    /// It is over, or never began, and why.
    pub(super) over: Option<&'static str>,
}

impl State {
    fn wake(&mut self) {
        self.session.take().into_iter().for_each(Waker::wake);
    }
}

/// The link's side.
#[derive(Debug)]
pub(super) struct Pipe(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Serves the link.
    link: Waker,
}

/// The session's side.
#[derive(Debug)]
pub(crate) struct Far(Arc<Shared>);

/// Both sides; the link is served when `link` is woken.
pub(super) fn pipe(link: Waker) -> (Pipe, Far) {
    let shared = Arc::new(Shared { state: Mutex::default(), link });
    (Pipe(shared.clone()), Far(shared))
}

impl Pipe {
    /// Gives the session a packet of the device.
    pub(super) fn send(&self, packet: &[u8]) {
        let mut state = self.0.state.lock();
        state.up.extend_from_slice(packet);
        state.wake();
    }

    /// Whether more may be read for the session; the link is served when that is so again.
    pub(super) fn has_room(&self) -> bool {
        self.0.state.lock().up.len() < UP_MAX_BYTES
    }

    /// Takes the whole packets that the session has written, and what has become of it.
    pub(super) fn take(&self) -> Result<(Vec<u8>, News), wire::Error> {
        let mut state = self.0.state.lock();
        let mut whole = 0;
        while let Some(len) = wire::frame_len(&state.down[whole..], usize::MAX)?
            && whole + len <= state.down.len()
        {
            whole += len;
        }
        let rest = state.down.split_off(whole);
        let packets = std::mem::replace(&mut state.down, rest);
        let news = std::mem::take(&mut state.news);
        state.wake();
        Ok((packets, news))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_cut = true;
        state.wake();
    }
}

impl Far {
    /// Says that the session is open.
    pub(super) fn open(&self, latest: Position) {
        self.0.state.lock().news.opened = Some(latest);
        self.0.link.wake_by_ref();
    }

    /// Says why the session is over; the first reason counts.
    pub(crate) fn over(&self, why: &'static str) {
        self.0.state.lock().news.over.get_or_insert(why);
        self.0.link.wake_by_ref();
    }

    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        match state.up.is_empty() {
            true if state.is_cut => Ok(0),
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(pour(&mut state.up, bytes)),
        }
    }

    pub(crate) fn poll_read(&self, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.try_read(bytes.initialize_unfilled()) {
            Ok(read) => {
                bytes.advance(read);
                // What was full has room again.
                self.0.link.wake_by_ref();
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait(context, |state| !state.up.is_empty()).map(Ok)
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    pub(crate) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.wait(context, |state| state.down.len() < DOWN_MAX_BYTES)
    }

    /// Looks and registers in one step: what comes in between wakes.
    fn wait(&self, context: &mut Context<'_>, comes: impl Fn(&State) -> bool) -> Poll<()> {
        let mut state = self.0.state.lock();
        if state.is_cut || comes(&state) {
            return Poll::Ready(());
        }
        state.session = Some(context.waker().clone());
        Poll::Pending
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.is_cut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.down.len() >= DOWN_MAX_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in slices {
            state.down.extend_from_slice(slice);
            taken += slice.len();
        }
        drop(state);
        self.0.link.wake_by_ref();
        Ok(taken)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.over("lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 2] = [0xC0, 0];

    #[test]
    fn packets_come_whole_and_the_end_behind_them() {
        let (near, far) = pipe(Waker::noop().clone());
        assert_eq!(far.try_write_vectored(&[IoSlice::new(&[0xD0])]).unwrap(), 1);
        assert!(near.take().unwrap().0.is_empty());
        far.try_write_vectored(&[IoSlice::new(&[0]), IoSlice::new(&PING)]).unwrap();
        far.over("taken_over");
        drop(far);
        let (packets, news) = near.take().unwrap();
        assert_eq!((&packets[..], news.over), (&[0xD0, 0, 0xC0, 0][..], Some("taken_over")));
    }

    #[test]
    fn each_side_stops_when_the_other_does_not_take() {
        let (near, far) = pipe(Waker::noop().clone());
        let sent = (0..UP_MAX_BYTES).take_while(|_| near.has_room()).inspect(|_| near.send(&PING)).count();
        assert_eq!(sent, UP_MAX_BYTES / PING.len());
        far.try_write_vectored(&[IoSlice::new(&[0; DOWN_MAX_BYTES])]).unwrap();
        assert!(far.try_write_vectored(&[IoSlice::new(&PING)]).is_err());
        let mut context = Context::from_waker(Waker::noop());
        assert!(far.poll_write_ready(&mut context).is_pending());
        near.take().unwrap();
        assert!(far.poll_write_ready(&mut context).is_ready());
        drop(near);
        let mut bytes = [0; 4];
        assert_eq!(far.try_read(&mut bytes).unwrap(), 4, "what was sent before the end is read");
        assert!(far.try_write_vectored(&[IoSlice::new(&PING)]).is_err());
    }
}
