//! Bells inside one process: a bounded channel for each node and lane, at most once, never waiting.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use model::{Lane, NodeId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Bells, Gaps, Ring};

/// Bells waiting for one listener: a fifth of a second at 20,000 a second, and a megabyte of common ones. Past it
/// they are dropped, since the sweep finds what they announced.
const WAITING_MAX: usize = 4_096;

/// Whom to ring at.
struct Listener {
    bells: mpsc::Sender<Bytes>,
    gaps: Gaps,
}

#[derive(Default)]
pub(super) struct Belfry {
    listeners: Mutex<HashMap<(NodeId, Lane), Listener>>,
    dropped: AtomicU64,
}

impl Belfry {
    pub(super) fn listen(&self, node: &NodeId, lane: Lane) -> Bells {
        let ((ring, bells), gaps) = (mpsc::channel(WAITING_MAX), Gaps::default());
        let mut listeners = self.listeners.lock();
        listeners.retain(|_, listener| !listener.bells.is_closed());
        listeners.insert((node.clone(), lane), Listener { bells: ring, gaps: gaps.clone() });
        gaps.tell();
        Bells { bells, gaps }
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
            if let Err(mpsc::error::TrySendError::Full(_)) = listener.bells.try_send(bell.clone()) {
                listener.gaps.tell();
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
