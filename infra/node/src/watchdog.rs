//! Tells systemd, when this process is its service, what it cannot see: that the listeners are bound, and that the
//! runtime still turns. Nothing here fails: without systemd there is nobody to tell.

use sd_notify::NotifyState;
use tokio::time;
use tracing::warn;

/// Says that the process is ready, and from now on as often as the unit's `WatchdogSec` asks for that it lives. When every
/// thread of the runtime is stuck that stops, and systemd starts the process anew.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
    // Half of what is allowed: one beat may come late.
    if let Some(every) = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|every| !every.is_zero()) {
        tokio::spawn(async move {
            let mut beats = time::interval(every);
            loop {
                beats.tick().await;
                tell(NotifyState::Watchdog);
            }
        });
    }
}

/// Says that the process was told to stop, and is finishing what it has in hand.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot tell systemd");
    }
}
