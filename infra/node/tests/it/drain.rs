//! Devices move from one access point to another while messages go on: nothing is lost, no application sees anything twice.

use std::time::Duration;

use lab::fault::{Drain, drain};

use crate::sandbox::{On, Sandbox};

const DEVICES: u32 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_moves_every_device_and_loses_nothing() {
    devices_move(1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_devices_moves_to_a_cooler_access_point_and_stays_there() {
    devices_move(0.5).await;
}

async fn devices_move(target_fraction: f64) {
    let Some(sandbox) = Sandbox::on(On::Servers) else { return };
    let _server = sandbox.start().await;
    let (launch, elsewhere) = sandbox.beside("fanfare-2");
    let scenario = Drain {
        api: sandbox.api(),
        from: ("fanfare-1".parse().unwrap(), sandbox.mqtt),
        to: (launch, "fanfare-2".parse().unwrap(), elsewhere),
        devices: DEVICES,
        rate_per_s: 100,
        target_fraction,
        patience: Duration::from_secs(60),
        history: Some(sandbox.dir.path().join("history.jsonl")),
    };
    let report = drain(&scenario).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}\nhistory: {}", sandbox.dir.keep().join("history.jsonl").display());
    assert!(report.told.unacked > 0, "there was nothing to hand over: {report}");
    assert!(report.verdict.ok > 100, "too little was sent meanwhile: {report}");
    assert!(report.took < Duration::from_secs(20), "{report}");
}
