//! The index over a million generated devices: questions, and changes of what is known. `fanfare bench filter` measures ten
//! million, and SQLite beside them.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends")]

use criterion::{Criterion, criterion_group, criterion_main};
use filter::{Expr, Index};
use lab::bench::population::{NOW, QUESTIONS, device};
use model::Env;

/// So many that what is measured lies outside the caches.
const DEVICES: u32 = 1_000_000;

fn index(criterion: &mut Criterion) {
    let index = Index::default();
    (0..DEVICES).for_each(|ordinal| index.put(&device(ordinal, 0).unwrap()));
    for question in QUESTIONS {
        let expr: Expr = question.filter.parse().unwrap();
        let mut group = criterion.benchmark_group(question.name);
        group.bench_function("select", |bencher| bencher.iter(|| index.select(Env::Live, &expr, NOW)));
        group.bench_function("count", |bencher| bencher.iter(|| index.count(Env::Live, &expr, NOW)));
    }
    let mut round = 0_u32;
    criterion.bench_function("put a device that changed", |bencher| {
        let changed = || {
            round += 1;
            device(round.wrapping_mul(2_654_435_761) % DEVICES, round).unwrap()
        };
        bencher.iter_batched(changed, |device| index.put(&device), criterion::BatchSize::SmallInput);
    });
}

criterion_group!(benches, index);
criterion_main!(benches);
