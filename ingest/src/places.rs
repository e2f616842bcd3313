//! Places, so many for all apps together, of which no app takes more than it leaves free.
//!
//! So an app alone comes to half of them, and apps that take whatever they can to as many each as stay free: what one
//! product holds up, or a hundred do, is their own loss, and nobody has to say how many apps there are.

use std::{collections::HashMap, sync::Arc};

use model::AppId;
use parking_lot::Mutex;

/// So many places.
#[derive(Clone)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    free: usize,
    /// Those that hold any.
    by_app: HashMap<AppId, usize>,
}

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { free: count, by_app: HashMap::new() })))
    }

    /// A place for whoever it is, while one is free.
    pub(crate) fn enter(&self) -> Option<Place> {
        let mut taken = self.0.lock();
        taken.free = taken.free.checked_sub(1)?;
        Some(Place { places: self.clone(), app: None })
    }
}

/// A place, until it is dropped.
pub(crate) struct Place {
    places: Places,
    /// Whose it is, once that is known.
    app: Option<AppId>,
}

impl Place {
    /// Says whose it is. It is gone when that app holds more than are free already.
    pub(crate) fn held_by(mut self, app: &AppId) -> Option<Self> {
        if !self.places.0.lock().give(app) {
            return None;
        }
        self.app = Some(app.clone());
        Some(self)
    }
}

impl Taken {
    fn give(&mut self, app: &AppId) -> bool {
        let held = self.by_app.get(app).copied().unwrap_or_default();
        let may = held <= self.free;
        if may {
            self.by_app.insert(app.clone(), held + 1);
        }
        may
    }

    fn take_back(&mut self, app: &AppId) {
        if let Some(held) = self.by_app.get_mut(app) {
            *held -= 1;
            if *held == 0 {
                self.by_app.remove(app);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        taken.free += 1;
        if let Some(app) = &self.app {
            taken.take_back(app);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes places for an app for as long as it gets any.
    fn all_for(places: &Places, app: &str) -> Vec<Place> {
        let app = app.parse().unwrap();
        std::iter::from_fn(|| places.enter()?.held_by(&app)).collect()
    }

    #[test]
    fn an_app_takes_no_more_than_it_leaves_free() {
        for (count, alone) in [(1, 1), (2, 1), (7, 4), (8, 4), (1_024, 512)] {
            assert_eq!(all_for(&Places::new(count), "demo").len(), alone, "of {count}");
        }
    }

    #[test]
    fn however_many_are_greedy_there_is_one_for_whoever_has_none() {
        let places = Places::new(100);
        let mut held = Vec::new();
        // In turns, so that each takes what the others leave.
        for turn in 0..1_000 {
            let app = format!("app-{}", turn % 20).parse().unwrap();
            held.extend(places.enter().and_then(|place| place.held_by(&app)));
        }
        assert!(!all_for(&places, "newcomer").is_empty(), "{} are held", held.len());
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let places = Places::new(8);
        drop(all_for(&places, "demo"));
        let taken = places.0.lock();
        assert_eq!((taken.free, taken.by_app.len()), (8, 0));
    }
}
