//! What a restart begins with.

use std::fs;

use filter::{Index, snapshot};
use model::{Device, Env, Ordinal, Profile, Timestamp};
use store::ChangeId;

use crate::bench::Bench;

fn tagged(tag: &str) -> Profile {
    Profile { tags: [tag.to_owned()].into(), ..Profile::default() }
}

/// An index of one device that no store has.
fn of_another(device: &Device) -> Index {
    let index = Index::default();
    index.put(&Device { profile: tagged("another"), ..device.clone() });
    index
}

#[tokio::test]
async fn an_index_is_kept_on_disk_and_what_came_later_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.register(&bench.app, Env::Live, &["one".to_owned(), "two".to_owned()], Some(tagged("vip"))).await;
    assert_eq!(bench.count("tag(\"vip\")").await, Ok(2));
    let following = bench.follow();
    bench.snapshotted().await;
    following.stop().await;
    bench.register(&bench.app, Env::Live, &["three".to_owned()], Some(tagged("vip"))).await;
    bench.register(&bench.app, Env::Live, &["one".to_owned()], Some(tagged("staff"))).await;
    drop(bench);
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.selected("tag(\"vip\")").await.unwrap(), ["two", "three"]);
    assert_eq!(bench.selected("tag(\"staff\")").await.unwrap(), ["one"]);
}

#[tokio::test]
async fn a_snapshot_is_taken_for_what_it_contains_as_long_as_the_store_knows_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (first, snapshots) = (bench.device("one").await, dir.path().join("filter"));
    let head = bench.store.change_head(&bench.app).await.unwrap();
    snapshot::write(&snapshots, &bench.app, &of_another(&first), head).unwrap();
    bench.device("two").await;
    assert_eq!(bench.count("tag(\"another\")").await, Ok(1));
    assert_eq!(bench.count("missing(attr.x)").await, Ok(2));
    drop(bench);
    let bench = Bench::open(dir.path()).await;
    snapshot::write(&snapshots, &bench.app, &of_another(&first), ChangeId(head.0 + 7)).unwrap();
    assert_eq!(bench.count("tag(\"another\")").await, Ok(0));
    assert_eq!(bench.count("missing(attr.x)").await, Ok(2));
}

#[tokio::test]
async fn a_damaged_snapshot_is_left_for_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let head = bench.store.change_head(&bench.app).await.unwrap();
    let (snapshots, place) = (dir.path().join("filter"), bench.snapshot());
    snapshot::write(&snapshots, &bench.app, &of_another(&device), head).unwrap();
    let whole = fs::read(&place).unwrap();
    drop(bench);
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let middle = whole.len() / 2;
    let damaged = [with(15, 99), whole[..middle].to_vec(), Vec::new(), with(middle, whole[middle] ^ 1), with(17, 0xff)];
    for bytes in damaged {
        fs::write(&place, bytes).unwrap();
        let bench = Bench::open(dir.path()).await;
        assert!(snapshot::read(&snapshots, &bench.app).is_err());
        assert_eq!(bench.count("tag(\"another\")").await, Ok(0));
        assert_eq!(bench.count("missing(attr.x)").await, Ok(1));
    }
}

#[test]
fn a_snapshot_of_another_app_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device {
        id: "one".parse().unwrap(),
        ordinal: Ordinal(0),
        env: Env::Live,
        generation: 0,
        first_seen: Timestamp::default(),
        profile: Profile::default(),
    };
    let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
    snapshot::write(dir.path(), &one, &of_another(&device), ChangeId(1)).unwrap();
    fs::copy(dir.path().join("one.index"), dir.path().join("other.index")).unwrap();
    assert!(snapshot::read(dir.path(), &other).is_err());
    assert!(snapshot::read(dir.path(), &one).unwrap().is_some());
}
