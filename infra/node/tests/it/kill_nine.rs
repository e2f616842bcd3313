//! G1, G2, G3, G5 and G7 under `kill -9` of everything.

use std::time::Duration;

use lab::fault::{Habit, KillNine, Scene, kill_nine};

use crate::sandbox::{On, Sandbox};

/// How often the process is killed, at random moments under load.
const KILLS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing_and_repeat_nothing() {
    kills(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_on_rabbitmq_and_redis_lose_nothing_and_repeat_nothing() {
    kills(On::Servers).await;
}

async fn kills(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let scenario = KillNine {
        launch: sandbox.launch(),
        scene: Scene {
            api: sandbox.api(),
            mqtt: vec![sandbox.mqtt],
            devices: 100,
            habit: Habit::Mixed,
            patience: Duration::from_secs(90),
            history: Some(sandbox.dir.path().join("history.jsonl")),
        },
        kills: KILLS,
    };
    let report = kill_nine(&scenario).await.unwrap();
    println!("{report}");
    let verdict = &report.verdict;
    assert!(verdict.holds(), "{report}\nhistory: {}", sandbox.dir.keep().join("history.jsonl").display());
    assert!(verdict.ok > 100, "too little was accepted to mean anything: {report}");
    assert_eq!(report.starts.len(), KILLS as usize + 1);
}
