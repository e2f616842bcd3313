//! The index beside [`holds`]: whatever devices there are, however they changed, both answer the same.

use std::collections::BTreeMap;

use audience::{Expr, Facts, holds};
use model::{Device, Env, Ordinal, Ordinals, Profile};
use proptest::{collection, prelude::*, sample};

use super::Index;
use generate::{NOW, device, expr, is_online, run};

#[path = "../../audience/tests/it/generate.rs"]
#[expect(dead_code, reason = "shared with the tests of the language, which use more of it")]
mod generate;

/// So many that each of a few profiles is had by more than are listed one by one.
const CROWD: u32 = 30_000;

/// A change of what is known.
#[derive(Clone, Debug)]
enum Change {
    Put(Box<Device>),
    Remove(Ordinal),
}

/// Ordinals that meet often, in two blocks and at their edges.
fn ordinal() -> impl Strategy<Value = Ordinal> {
    prop_oneof![0_u32..40, 65_530_u32..65_540].prop_map(Ordinal)
}

fn change() -> impl Strategy<Value = Change> {
    let env = sample::select(&[Env::Live, Env::Live, Env::Test][..]);
    let put = (device(), ordinal(), env).prop_map(|(mut device, ordinal, env)| {
        // A name stays with its ordinal.
        device.id = format!("dev-{}", ordinal.0).parse().unwrap();
        Change::Put(Box::new(Device { ordinal, env, ..device }))
    });
    prop_oneof![5 => put, 1 => ordinal().prop_map(Change::Remove)]
}

fn facts(device: &Device) -> Facts<'_> {
    Facts { device, now: NOW, online: is_online(device) }
}

/// The same devices, indexed and in plain sight.
#[derive(Default)]
struct Both {
    index: Index,
    devices: BTreeMap<Ordinal, Device>,
}

impl Both {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(device) => {
                self.index.put(&device);
                self.devices.insert(device.ordinal, *device);
            }
            Change::Remove(ordinal) => {
                self.index.remove(ordinal);
                self.devices.remove(&ordinal);
            }
        }
    }

    /// With the index as a snapshot brings it back.
    fn restored(self) -> Self {
        let index = Index::default();
        self.index.parts().iter().for_each(|part| index.push(&part.to_bytes()).unwrap());
        Self { index, ..self }
    }

    fn agree(&self, expr: &Expr) -> Result<(), TestCaseError> {
        self.index.set_running([&run()]);
        for env in [Env::Live, Env::Test] {
            let satisfying = self.devices.values().filter(|device| device.env == env && holds(expr, &facts(device)));
            let expected: Ordinals = satisfying.map(|device| device.ordinal).collect();
            prop_assert_eq!(&self.index.select(env, expr, NOW), &expected, "{}", expr);
            prop_assert_eq!(self.index.count(env, expr, NOW), expected.len());
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_index_answers_what_holds_for_each_device(
        changes in collection::vec(change(), 0..120),
        exprs in collection::vec(expr(), 1..6),
    ) {
        let mut both = Both::default();
        for (at, change) in changes.into_iter().enumerate() {
            both.apply(change);
            if at % 30 == 29 {
                both.agree(&exprs[0])?;
            }
        }
        for expr in &exprs {
            both.agree(expr)?;
        }
        let restored = both.restored();
        for expr in &exprs {
            restored.agree(expr)?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// As many as make bitmaps of lists and slices of numbers, then as few as make lists of them again.
    #[test]
    fn a_crowd_is_answered_for_as_a_few_are(
        devices in collection::vec(device(), 3..7),
        changes in collection::vec(change(), 0..20),
        exprs in collection::vec(expr(), 1..4),
    ) {
        let mut both = Both::default();
        let named = |ordinal: u32, device: &Device| {
            Device { id: format!("dev-{ordinal}").parse().unwrap(), ordinal: Ordinal(ordinal), ..device.clone() }
        };
        for (ordinal, device) in (0..CROWD).zip(devices.iter().cycle()) {
            both.apply(Change::Put(Box::new(named(ordinal, device))));
        }
        changes.into_iter().for_each(|change| both.apply(change));
        both.agree(&exprs[0])?;
        both = both.restored();
        exprs.iter().try_for_each(|expr| both.agree(expr))?;
        for ordinal in 100..CROWD - 100 {
            both.apply(Change::Remove(Ordinal(ordinal)));
        }
        exprs.iter().try_for_each(|expr| both.agree(expr))?;
    }
}

#[test]
fn what_nobody_has_any_more_takes_no_room() {
    let index = Index::default();
    let device = |round: u32| {
        let attributes = [("page".to_owned(), format!("\"/{round:0200}\""))].into();
        let profile = Profile { tags: [round.to_string()].into(), attributes, ..Profile::default() };
        let (env, first_seen) = (Env::Live, NOW);
        Device { id: "one".parse().unwrap(), ordinal: Ordinal(0), env, generation: 0, first_seen, profile }
    };
    index.put(&device(0));
    let few = index.bytes();
    (0..1_000).for_each(|round| index.put(&device(round)));
    assert!(index.bytes() < few + 1_000, "{few} and then {}", index.bytes());
}

#[test]
fn bytes_that_are_no_part_are_refused() {
    let index = Index::default();
    index.put(&Device {
        id: "one".parse().unwrap(),
        ordinal: Ordinal(0),
        env: Env::Live,
        generation: 0,
        first_seen: NOW,
        profile: Profile { tags: ["vip".to_owned()].into(), ..Profile::default() },
    });
    let whole = index.parts()[0].to_bytes();
    assert!(Index::default().push(&whole).is_some());
    for len in (0..whole.len()).step_by(97) {
        assert!(Index::default().push(&whole[..len]).is_none(), "cut to {len}");
    }
    assert!(Index::default().push(&[&whole[..], b"!"].concat()).is_none());
}
