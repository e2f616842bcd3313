//! Bells inside one process: a bounded channel for each node and lane, at most once, never waiting.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use model::{Lane, NodeId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Bells, Ring};

/// Bells waiting for one listener: a fifth of a second at 20,000 a second, and a megabyte of common ones. Past it
/// they are dropped, since the sweep finds what they announced.
const WAITING_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct Belfry {
    listeners: Mutex<HashMap<(NodeId, Lane), mpsc::Sender<Bytes>>>,
    dropped: AtomicU64,
}

impl Belfry {
    pub(super) fn listen(&self, node: &NodeId, lane: Lane) -> Bells {
        let (ring, heard) = mpsc::channel(WAITING_MAX);
        let mut listeners = self.listeners.lock();
        listeners.retain(|_, listener| !listener.is_closed());
        listeners.insert((node.clone(), lane), ring);
        Bells(heard)
    }

    pub(super) fn ring(&self, lane: Lane, whom: &Ring, bell: &Bytes) {
        let listeners = self.listeners.lock();
        let chosen = |(node, at): &(NodeId, Lane)| {
            *at == lane
                && match whom {
                    Ring::One(one) => node == one,
                    Ring::All => true,
                }
        };
        for (_, listener) in listeners.iter().filter(|(place, _)| chosen(place)) {
            if let Err(mpsc::error::TrySendError::Full(_)) = listener.try_send(bell.clone()) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Every listener hears what is waiting, then that nothing follows.
    pub(super) fn close(&self) {
        self.listeners.lock().clear();
    }
}
