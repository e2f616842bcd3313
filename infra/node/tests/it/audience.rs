//! G1, G3 and G7 of a filtered send in an app most of whose devices are away. `fanfare bench audience` is the same with
//! a million devices.

use lab::bench::{AudienceOptions, audience};

use crate::sandbox::{On, Sandbox};

/// A hundredth of these is meant.
const REGISTERED: u32 = 20_000;
/// Connected when the message is sent, half of the meant ones among them.
const ONLINE: u32 = 600;

async fn exactly_the_audience(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let server = sandbox.start().await;
    let (mqtt, metrics) = (vec![sandbox.mqtt], vec![sandbox.metrics]);
    let options = AudienceOptions { registered: REGISTERED, online: ONLINE, mqtt, metrics };
    let report = audience(&sandbox.api(), &options, &|_, _, _| ()).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "{report}");
    assert_eq!((report.funnel.targeted, report.reached), (200, (100, 50)));
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundredth_of_many_devices_is_reached_by_one_entry_now_and_later() {
    exactly_the_audience(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundredth_of_many_devices_is_reached_by_one_entry_now_and_later_on_rabbitmq_and_redis() {
    exactly_the_audience(On::Servers).await;
}
