//! Moves suspects to the retry queue, a batch at a time, while everything else goes on: an ack never waits for a
//! publish. While RabbitMQ takes no publish (an alarm may last for hours), suspects are tried where they are.

use std::{collections::VecDeque, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{
    chunk::Load,
    hands::{Hands, Message},
    publisher::{self, Publisher},
};
use crate::Error;

/// How long suspects wait when moving has failed: RabbitMQ is blocked or gone.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of suspects.
pub(super) type Moved = Vec<(Message, Result<(), Error>)>;

pub(super) struct Mover {
    retry: Publisher,
    moving: Option<BoxFuture<'static, Moved>>,
    /// Moving has failed: until then suspects wait, and hold up nobody.
    stalled: Option<Instant>,
}

impl Mover {
    pub(super) fn new(retry: Publisher) -> Self {
        Self { retry, moving: None, stalled: None }
    }

    /// Whether suspects are under way, so that others have to wait for them.
    pub(super) fn is_busy(&self, hands: &Hands) -> bool {
        self.stalled.is_none() && (self.moving.is_some() || hands.has_moves())
    }

    /// Whether suspects are under way.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Whether nothing is under way or will soon be.
    pub(super) fn is_done(&self, hands: &Hands) -> bool {
        self.moving.is_none() && (self.stalled.is_some() || !hands.has_moves())
    }

    /// When there is something to do again, if it is known.
    pub(super) fn stalled(&self) -> Option<Instant> {
        self.stalled
    }

    /// Begins to publish what waits to be moved, in order, or has it tried in place.
    pub(super) fn start(&mut self, hands: &mut Hands) {
        self.stalled.take_if(|until| *until <= Instant::now());
        if self.stalled.is_some() {
            return hands.try_in_place();
        }
        if self.moving.is_some() || !hands.has_moves() {
            return;
        }
        self.moving = Some(publish(self.retry.clone(), hands.take_moves()).boxed());
    }

    /// Waits for what is under way; for ever when nothing is.
    pub(super) async fn moved(&mut self) -> Moved {
        match &mut self.moving {
            Some(moving) => moving.await,
            None => std::future::pending().await,
        }
    }

    /// Notes what became of what was under way, and why the first of it could not be moved.
    pub(super) fn finish(&mut self, moved: Moved, hands: &mut Hands) -> Option<Error> {
        self.moving = None;
        let (mut left, mut why) = (VecDeque::new(), None);
        for (message, outcome) in moved {
            match outcome {
                Ok(()) => hands.moved(&message),
                Err(error) => {
                    why.get_or_insert(error);
                    left.push_back(message);
                }
            }
        }
        if why.is_some() {
            self.stalled = Some(Instant::now() + PAUSE);
        }
        hands.not_moved(left);
        why
    }
}

async fn publish(retry: Publisher, messages: VecDeque<Message>) -> Moved {
    let mut outcomes = Vec::with_capacity(messages.len());
    for message in &messages {
        let load = Load { attempts: message.tag.attempt, at: message.at, parts: vec![message.body.clone()] };
        outcomes.push(retry.submit(load).await);
    }
    let mut moved = Vec::with_capacity(messages.len());
    for (message, outcome) in messages.into_iter().zip(outcomes) {
        moved.push((message, publisher::outcome(outcome).await));
    }
    moved
}
