//! What the logs say, and what they must not.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;

use crate::sandbox::{DEVICE_SECRET, Sandbox};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_is_one_line_and_no_line_holds_a_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // One thread runs everything here, so its subscriber hears everything.
    let _guard = tracing::subscriber::set_default(subscriber);
    let sandbox = Sandbox::start().await;
    sandbox.ask("GET", "/v1/messages", &sandbox.key, &[], "").await;
    // Another test may have come to the same line of code in the moment this subscriber was made, and have it noted that
    // nobody listens there.
    tracing::callsite::rebuild_interest_cache();
    lines.0.lock().clear();
    sandbox.add_devices(1).await;
    let minted = sandbox.post("/v1/devices/dev-1/tokens", "{}").await;
    let body = r#"{"to":{"devices":["dev-1"]},"payload":"a-private-matter"}"#;
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let sent = sandbox.ask("POST", "/v1/messages", &sandbox.key, &[trace], body).await;
    let wrong = format!("{}x", sandbox.key);
    sandbox.ask("GET", "/v1/messages", &wrong, &[], "").await.assert_problem(401, "unauthenticated");
    let log = String::from_utf8(lines.0.lock().clone()).unwrap();
    let ours: Vec<_> = log.lines().filter(|line| line.contains("request answered")).collect();
    assert_eq!(ours.len(), 4, "{ours:#?}");
    for part in ["status=202", "app=\"demo\"", sent.text("id"), "trace.id=\"4bf92f3577b34da6a3ce929d0e0e4736\""] {
        assert!(ours[2].contains(part), "{part} is not in {}", ours[2]);
    }
    assert!(ours[3].contains("code=\"unauthenticated\""), "{}", ours[3]);
    let secret = sandbox.key.splitn(4, '_').last().unwrap();
    for secret in [secret, DEVICE_SECRET, minted.text("token"), "a-private-matter"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
