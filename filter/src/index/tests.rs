//! The index beside [`holds`]: whatever devices there are, however they changed, both answer the same.

use std::collections::BTreeMap;

use audience::{Expr, Facts, holds};
use model::{Device, Env, Ordinal, Ordinals};
use proptest::{collection, prelude::*, sample};

use super::Index;
use generate::{NOW, device, expr};

#[path = "../../audience/tests/it/generate.rs"]
#[expect(dead_code, reason = "shared with the tests of the language, which use more of it")]
mod generate;

/// A change of what is known.
#[derive(Clone, Debug)]
enum Change {
    Put(Device),
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
        Change::Put(Device { ordinal, env, ..device })
    });
    prop_oneof![5 => put, 1 => ordinal().prop_map(Change::Remove)]
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
                self.devices.insert(device.ordinal, device);
            }
            Change::Remove(ordinal) => {
                self.index.remove(ordinal);
                self.devices.remove(&ordinal);
            }
        }
    }

    fn agree(&self, expr: &Expr) -> Result<(), TestCaseError> {
        for env in [Env::Live, Env::Test] {
            let satisfying =
                self.devices.values().filter(|device| device.env == env && holds(expr, &Facts { device, now: NOW }));
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
    }
}
