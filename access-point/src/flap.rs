//! Notices two terminals that use one device id: each takes the session from the other, comes back when it is told so,
//! and takes it again, for ever. Neither is refused, for one of them is right; both are answered later and later.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use model::{AppId, DeviceId, NodeId, node::ANSWER_DELAY_MAX};
use tokio::time::Instant;

/// Takeovers count for this long.
const WINDOW: Duration = Duration::from_secs(60);

/// From so many within the window on, from two places, it is a conflict: a phone that changes networks has fewer, or
/// comes from one.
const CONFLICT: usize = 3;

/// The first delay; each takeover more doubles it.
const DELAY_MIN: Duration = Duration::from_secs(1);

/// Takeovers of a device that are remembered: more would not delay it longer.
const KEPT_MAX: usize = 5;

/// Devices that are remembered in each of two halves; when one is full, the older half is forgotten: in a storm every device
/// may take over once, and few of them do it again.
const HALF_MAX: usize = 10_000;

type Key = (AppId, DeviceId);

/// Who took a session over, or from where it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// Somebody with this address.
    Address(IpAddr),
    /// Whoever is connected to that access point.
    Elsewhere(NodeId),
}

/// The takeovers of one device.
#[derive(Debug, Default)]
struct Flap {
    at: VecDeque<Instant>,
    /// Two different ones at most.
    parties: Vec<Party>,
}

impl Flap {
    fn forget(&mut self, now: Instant) {
        self.at.retain(|at| now < *at + WINDOW);
        if self.at.is_empty() {
            self.parties.clear();
        }
    }

    fn is_conflict(&self) -> bool {
        self.at.len() >= CONFLICT && self.parties.len() >= 2
    }
}

/// Devices whose sessions were taken over lately.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    recent: HashMap<Key, Flap>,
    older: HashMap<Key, Flap>,
}

impl Flaps {
    fn entry(&mut self, key: Key) -> &mut Flap {
        let before = self.older.remove(&key);
        if self.recent.len() >= HALF_MAX && !self.recent.contains_key(&key) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.entry(key).or_insert_with(|| before.unwrap_or_default())
    }

    /// A session of the device was taken over by somebody, or from somebody, of these. True when that makes it a conflict
    /// and it was none before.
    pub(crate) fn note(&mut self, app: &AppId, device: &DeviceId, parties: Vec<Party>, now: Instant) -> bool {
        let flap = self.entry((app.clone(), device.clone()));
        flap.forget(now);
        let before = flap.is_conflict();
        flap.at.push_back(now);
        if flap.at.len() > KEPT_MAX {
            flap.at.pop_front();
        }
        for party in parties {
            if flap.parties.len() < 2 && !flap.parties.contains(&party) {
                flap.parties.push(party);
            }
        }
        flap.is_conflict() && !before
    }

    /// How much later the device is answered.
    pub(crate) fn delay(&mut self, app: &AppId, device: &DeviceId, now: Instant) -> Duration {
        let key = (app.clone(), device.clone());
        let kept = self.recent.get_mut(&key).or_else(|| self.older.get_mut(&key));
        let Some(flap) = kept else { return Duration::ZERO };
        flap.forget(now);
        if !flap.is_conflict() {
            return Duration::ZERO;
        }
        let doublings = flap.at.len() - CONFLICT;
        (DELAY_MIN * (1 << doublings)).min(ANSWER_DELAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (AppId, DeviceId) {
        ("demo".parse().unwrap(), "dev-1".parse().unwrap())
    }

    fn address(last: u8) -> Vec<Party> {
        vec![Party::Address(IpAddr::from([10, 0, 0, last]))]
    }

    #[test]
    fn two_terminals_with_one_id_are_answered_later_and_later_until_one_gives_up() {
        let ((app, device), mut flaps, begun) = (ids(), Flaps::default(), Instant::now());
        let mut delays = Vec::new();
        let mut conflicts = 0;
        for n in 0..6_u8 {
            let now = begun + Duration::from_secs(n.into());
            conflicts += u8::from(flaps.note(&app, &device, address(n % 2), now));
            delays.push(flaps.delay(&app, &device, now).as_secs());
        }
        assert_eq!((delays, conflicts), (vec![0, 0, 1, 2, 4, 4], 1));
        let later = begun + Duration::from_secs(66);
        assert_eq!(flaps.delay(&app, &device, later), Duration::ZERO);
        assert_eq!(flaps.delay(&app, &"dev-2".parse().unwrap(), begun), Duration::ZERO);
    }

    #[test]
    fn one_terminal_that_comes_back_and_back_is_no_conflict() {
        let ((app, device), mut flaps, now) = (ids(), Flaps::default(), Instant::now());
        for _ in 0..9 {
            assert!(!flaps.note(&app, &device, address(1), now));
        }
        assert_eq!(flaps.delay(&app, &device, now), Duration::ZERO);
    }

    #[test]
    fn terminals_at_two_access_points_are_noticed_at_each() {
        let ((app, device), mut flaps, now) = (ids(), Flaps::default(), Instant::now());
        let parties = || [address(1), vec![Party::Elsewhere("ap-2".parse().unwrap())]].concat();
        assert!(!flaps.note(&app, &device, parties(), now));
        assert!(!flaps.note(&app, &device, parties(), now));
        assert!(flaps.note(&app, &device, parties(), now));
        assert_eq!(flaps.delay(&app, &device, now), DELAY_MIN);
    }

    #[test]
    fn a_storm_takes_no_more_room_and_hides_no_conflict() {
        let ((app, device), mut flaps, now) = (ids(), Flaps::default(), Instant::now());
        let mut others = (0..).map(|n: usize| format!("other-{n}").parse::<DeviceId>().unwrap());
        let mut storm = |flaps: &mut Flaps, count| {
            others.by_ref().take(count).for_each(|other| _ = flaps.note(&app, &other, address(1), now));
        };
        storm(&mut flaps, HALF_MAX * 2);
        let mut conflicts = 0;
        for n in 0..3 {
            conflicts += u8::from(flaps.note(&app, &device, address(n % 2), now));
            storm(&mut flaps, HALF_MAX - 1);
        }
        assert_eq!(conflicts, 1, "whoever comes again is moved to the newer half");
        assert_eq!(flaps.delay(&app, &device, now), DELAY_MIN);
        assert!(flaps.recent.len() + flaps.older.len() <= HALF_MAX * 2);
    }
}
