//! Learns how seldom each device need be heard: a phone that pings less sleeps more, and a NAT that forgets its link after
//! five minutes needs a ping before. Longer steps by step while pings come through, and back to the last good one when the
//! device comes again though its link looked alive. By kind of network, since each has NATs of its own; what is learned is
//! kept here, for as long as there is room, and learned again where it is not.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{AppId, DeviceId};
use mqtt::login::Network;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The first keep alive, in seconds: below what nearly every mobile network bears.
const START_S: u16 = 270;

/// How much longer the next one is, in seconds.
const STEP_S: u16 = 60;

/// The longest one, in seconds: below the ten minutes after which many NATs forget.
const MOST_S: u16 = 590;

/// Pings that must come through before a longer one is tried.
const GOOD_CYCLES: u8 = 3;

/// A ping that comes after this part of the keep alive, in tenths, shows that the link has borne it.
const CYCLE_TENTHS: u32 = 7;

/// Devices that are remembered in each of two halves; when one is full, the older half is forgotten.
const HALF_MAX: usize = 50_000;

/// Whose link, and over what.
type Key = (AppId, DeviceId, Network);

/// What is known of a device on a kind of network.
#[derive(Clone, Copy, Debug)]
struct Learned {
    /// Told to its next session.
    next_s: u16,
    /// The longest that has been borne.
    good_s: u16,
    /// The next one is final.
    held: bool,
    /// Told to its present session, and how often that was borne.
    told_s: u16,
    cycles: u8,
    /// The present session, and when its device was last heard to ping, if it is there.
    session: u64,
    heard_at: Option<Instant>,
}

impl Learned {
    const fn new() -> Self {
        Self { next_s: START_S, good_s: START_S, held: false, told_s: START_S, cycles: 0, session: 0, heard_at: None }
    }

    fn connected(&mut self, now: Instant) {
        // There is a session that looks alive, yet the device is here: its link has died in silence.
        let silent_for = self.heard_at.map_or(Duration::ZERO, |heard_at| now.saturating_duration_since(heard_at));
        if silent_for >= seconds(self.good_s) {
            (self.next_s, self.held) = (self.good_s, true);
        }
        (self.told_s, self.cycles) = (self.next_s, 0);
        self.session += 1;
        self.heard_at = Some(now);
    }

    fn pinged(&mut self, now: Instant) {
        let Some(heard_at) = self.heard_at.replace(now) else { return };
        if now.saturating_duration_since(heard_at) < seconds(self.told_s) * CYCLE_TENTHS / 10 {
            return;
        }
        self.cycles = self.cycles.saturating_add(1);
        if self.cycles >= GOOD_CYCLES {
            self.good_s = self.good_s.max(self.told_s);
            if !self.held {
                self.next_s = (self.told_s + STEP_S).min(MOST_S);
            }
        }
    }
}

const fn seconds(secs: u16) -> Duration {
    Duration::from_secs(secs as u64)
}

#[derive(Debug, Default)]
struct Halves {
    recent: HashMap<Key, Learned>,
    older: HashMap<Key, Learned>,
}

impl Halves {
    fn entry(&mut self, key: &Key) -> &mut Learned {
        if self.recent.len() >= HALF_MAX && !self.recent.contains_key(key) {
            self.older = std::mem::take(&mut self.recent);
        }
        let before = self.older.remove(key);
        self.recent.entry(key.clone()).or_insert_with(|| before.unwrap_or(Learned::new()))
    }
}

/// What was learned.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats(Mutex<Halves>);

/// A session whose device leaves its keep alive to us.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    of: Arc<Heartbeats>,
    key: Key,
    session: u64,
    /// How often the device is to be heard, in seconds.
    pub(crate) told_s: u16,
}

impl Heartbeats {
    /// A device has connected over this kind of network.
    pub(crate) fn connected(self: &Arc<Self>, app: AppId, device: DeviceId, net: Network, now: Instant) -> Heartbeat {
        let key = (app, device, net);
        let (session, told_s) = {
            let mut halves = self.0.lock();
            let learned = halves.entry(&key);
            learned.connected(now);
            (learned.session, learned.told_s)
        };
        Heartbeat { of: self.clone(), key, session, told_s }
    }
}

impl Heartbeat {
    /// The device has pinged.
    pub(crate) fn pinged(&self, now: Instant) {
        let mut halves = self.of.0.lock();
        let learned = halves.entry(&self.key);
        if learned.session == self.session {
            learned.pinged(now);
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let mut halves = self.of.0.lock();
        let learned = halves.entry(&self.key);
        if learned.session == self.session {
            learned.heard_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(beats: &Arc<Heartbeats>, device: &str, now: Instant) -> Heartbeat {
        beats.connected("demo".parse().unwrap(), device.parse().unwrap(), Network::FourG, now)
    }

    /// Connects, pings as told so many times, and goes; says what was told, and when it went.
    fn session(beats: &Arc<Heartbeats>, pings: u32, from: Instant) -> (u16, Instant) {
        let beat = connect(beats, "dev-1", from);
        let mut now = from;
        for _ in 0..pings {
            now += seconds(beat.told_s).mul_f32(0.8);
            beat.pinged(now);
        }
        (beat.told_s, now)
    }

    #[test]
    fn keep_alives_grow_step_by_step_while_pings_come_through() {
        let (beats, mut now) = (Arc::default(), Instant::now());
        let mut told = Vec::new();
        for _ in 0..8 {
            let (told_s, left) = session(&beats, 3, now);
            told.push(told_s);
            now = left;
        }
        assert_eq!(told, [270, 330, 390, 450, 510, 570, 590, 590]);
        let (told_s, _) = session(&beats, 0, now);
        assert_eq!(told_s, 590);
        assert_eq!(connect(&beats, "dev-2", now).told_s, 270);
    }

    #[test]
    fn two_pings_and_pings_that_come_early_show_nothing() {
        let (beats, now) = (Arc::default(), Instant::now());
        let (_, now) = session(&beats, 2, now);
        let beat = connect(&beats, "dev-1", now);
        assert_eq!(beat.told_s, 270);
        (1..20).for_each(|n| beat.pinged(now + Duration::from_secs(n)));
        drop(beat);
        assert_eq!(session(&beats, 0, now).0, 270);
    }

    #[test]
    fn a_link_that_died_in_silence_leads_back_to_what_was_borne_for_good() {
        let (beats, now) = (Arc::default(), Instant::now());
        let (_, now) = session(&beats, 3, now);
        let dead = connect(&beats, "dev-1", now);
        assert_eq!(dead.told_s, 330);
        let now = now + Duration::from_secs(335);
        let again = connect(&beats, "dev-1", now);
        assert_eq!(again.told_s, 270);
        drop(dead);
        let mut later = now;
        for _ in 0..9 {
            later += Duration::from_secs(220);
            again.pinged(later);
        }
        drop(again);
        assert_eq!(session(&beats, 0, later).0, 270);
    }

    #[test]
    fn whoever_comes_again_soon_has_only_changed_networks() {
        let (beats, now) = (Arc::default(), Instant::now());
        let (_, now) = session(&beats, 3, now);
        let _before = connect(&beats, "dev-1", now);
        assert_eq!(connect(&beats, "dev-1", now + Duration::from_secs(100)).told_s, 330);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (beats, now): (Arc<Heartbeats>, _) = (Arc::default(), Instant::now());
        for n in 0..HALF_MAX * 2 + 10 {
            drop(connect(&beats, &format!("dev-{n}"), now));
        }
        let halves = beats.0.lock();
        assert!(halves.recent.len() + halves.older.len() <= HALF_MAX * 2);
    }
}
