//! The stream of changes is bounded, and says of what it let go that it is gone.

use deadpool_redis::redis::{Connection, cmd};
use model::{DeviceId, Env, Ordinal};
use store::{CHANGES_MAX, ChangeId, Changes as _, Devices as _, Registration};

use super::place::Server;
use crate::make::{NOW, app};

/// Written at once by one script, which others wait for.
const A_SCRIPT: usize = 1 << 12;
/// The most that an approximate trim leaves beyond the bound: some nodes of a stream, of a hundred entries each. It takes
/// ten thousand at once at most, which is more than are ever there beyond it.
const BEYOND_MAX: usize = 1_000;

/// The changes of the only app here.
fn stream(server: &Server, connection: &mut Connection) -> Vec<u8> {
    let pattern = format!("{}{{*K", server.config().prefix);
    let found: (u64, Vec<Vec<u8>>) = cmd("SCAN")
        .arg(0)
        .arg("MATCH")
        .arg(pattern)
        .arg("COUNT")
        .arg(1 << 24)
        .arg("TYPE")
        .arg("stream")
        .query(connection)
        .unwrap();
    found.1.into_iter().next().unwrap()
}

#[tokio::test]
async fn more_changes_than_are_kept_push_the_oldest_out_and_whoever_was_there_is_told() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let device = |name: &str| Registration { id: name.parse::<DeviceId>().unwrap(), env: Env::Live, profile: None };
    store.register(&app(), vec![device("first")], NOW).await.unwrap();
    let first = store.change_head(&app()).await.unwrap();
    let mut plain = server.plain();
    let stream = stream(&server, &mut plain);
    let more = "for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'd', '0') end";
    let mut len = 1;
    while len < CHANGES_MAX + 2 * BEYOND_MAX {
        cmd("EVAL").arg(more).arg(1).arg(&stream).arg(A_SCRIPT).exec(&mut plain).unwrap();
        len += A_SCRIPT;
    }
    let before = store.change_head(&app()).await.unwrap();
    assert!(store.changes_after(&app(), first, 1).await.unwrap().is_some());

    store.register(&app(), vec![device("second")], NOW).await.unwrap();
    let kept: usize = cmd("XLEN").arg(&stream).query(&mut plain).unwrap();
    assert!((CHANGES_MAX..CHANGES_MAX + BEYOND_MAX).contains(&kept), "{kept} of {len}");
    for forgotten in [ChangeId::default(), first] {
        assert_eq!(store.changes_after(&app(), forgotten, 9).await.unwrap(), None);
    }
    let head = store.change_head(&app()).await.unwrap();
    assert_eq!(store.changes_after(&app(), before, 9).await.unwrap(), Some(vec![(head, Ordinal(1))]));
}
