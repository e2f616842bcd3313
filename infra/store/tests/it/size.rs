//! What many devices cost.

use std::{fs, path::Path};

use engine::Engine;
use model::{Env, Ordinal};
use store::{Devices as _, PAGE_MAX, Registration, embedded::Embedded};

use crate::{
    child,
    make::{NOW, app, set},
    place::Directory,
};

const DEVICES: u32 = 200_000;

/// A device is its record, its name, its cursor, its bit: a few hundred bytes, written once and compacted once.
const DISK_BYTES_MAX: u64 = DEVICES as u64 * 2_000;

/// Memtables, caches and a page of registrations: what is on disk does not have to be in memory.
const MEMORY_KIB_MAX: u64 = 300 * 1_024;

#[test]
fn two_hundred_thousand_devices_take_bounded_memory_and_disk() {
    let place = Directory::new();
    let (mut child, mut told) = child::start("size::register_many", place.path());
    let memory_kib: u64 = told.next().expect("the child must live to tell").parse().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(memory_kib < MEMORY_KIB_MAX, "{memory_kib} KiB in memory");
    let disk_bytes = size_of(place.path());
    assert!(disk_bytes < DISK_BYTES_MAX, "{disk_bytes} bytes on disk");
    println!("{DEVICES} devices: {} MiB in memory, {} MiB on disk", memory_kib >> 10, disk_bytes >> 20);
}

fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[tokio::test]
#[ignore = "the process that is measured"]
async fn register_many() {
    let store = Embedded::open(Engine::open(&child::dir()).unwrap()).unwrap();
    for page in (0..DEVICES).collect::<Vec<_>>().chunks(PAGE_MAX) {
        let registration = |n: &u32| Registration {
            id: format!("a-device-with-a-long-name-{n}").parse().unwrap(),
            env: if n.is_multiple_of(2) { Env::Live } else { Env::Test },
            profile: None,
        };
        let devices = store.register(&app(), page.iter().map(registration).collect(), NOW).await.unwrap();
        assert!(devices.iter().all(|(_, new)| *new));
    }
    assert_eq!(store.registered(&app(), Env::Test).await.unwrap(), set((1..DEVICES).step_by(2)));
    let last = store.list(&app(), Env::Live, Some(Ordinal(DEVICES - 4)), PAGE_MAX).await.unwrap();
    assert_eq!(last.len(), 1);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    child::tell(format_args!("{}", peak.trim().trim_end_matches(" kB")));
}
