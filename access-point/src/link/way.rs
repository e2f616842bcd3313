//! Where the bytes of a link go: to a transport of its own, or through the link of another app.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll},
};

use tokio::{
    io::{Interest, ReadBuf, Ready},
    time::Instant,
};

use crate::{bind::Far, transport::Transport};

/// A way to the device; what its parts promise is told at [`Transport`].
#[derive(Debug)]
pub(super) enum Way {
    Own(Transport),
    Shared(Far),
}

impl Way {
    /// A session is handed over with its way shared already: nobody waits for that to be ready.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Own(transport) => transport.ready(interest).await,
            Self::Shared(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Own(transport) => transport.try_read(bytes),
            Self::Shared(far) => far.try_read(bytes),
        }
    }

    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Own(transport) => transport.poll_read(context, bytes),
            Self::Shared(far) => far.poll_read(context, bytes),
        }
    }

    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Own(transport) => transport.poll_write_ready(context),
            Self::Shared(far) => far.poll_write_ready(context),
        }
    }

    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Own(transport) => transport.try_write(bytes),
            Self::Shared(far) => far.try_write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Own(transport) => transport.try_write_vectored(slices),
            Self::Shared(far) => far.try_write_vectored(slices),
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Own(transport) => transport.flush(),
            Self::Shared(_) => Ok(false),
        }
    }

    /// The transport, if it has one of its own.
    pub(super) fn own(&self) -> Option<&Transport> {
        match self {
            Self::Own(transport) => Some(transport),
            Self::Shared(_) => None,
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.own().is_some_and(Transport::has_unsent)
    }

    pub(super) fn has_read(&self) -> bool {
        self.own().is_some_and(Transport::has_read)
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.own().and_then(Transport::wake_at)
    }
}
