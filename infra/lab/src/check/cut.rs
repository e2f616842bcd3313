//! Whether a message may have fallen off the end of a full inbox, which the contract allows and counts.

use super::{deliveries::Deliveries, roll::Roll, sends::Outcome, sends::Sends, sends::Sent};
use crate::Audience;

/// Entries that an inbox holds, by the contract.
const INBOX_HOLDS: usize = 200;
/// Entries that the device has and whose acks the platform may not have: two windows of them. Fewer than the rest
/// cannot have filled an inbox, so a device that is online and keeps up is never excused.
const UNDER_WAY: usize = 64;

/// Whether so many messages for the same inbox came behind this one while the device did not receive them that its
/// oldest entries may have been cut off.
pub(super) fn may_be_cut(
    device: u32,
    message: usize,
    roll: &Roll<'_>,
    sends: &Sends<'_>,
    deliveries: &Deliveries<'_>,
) -> bool {
    let Some(sent) = sends.get(message).filter(|sent| is_for_inboxes(sent)) else { return false };
    let mut steps = Vec::new();
    for (other, behind) in sends.iter() {
        let follows = other != message && behind.answered > sent.invoked && behind.outcome != Outcome::Fail;
        if follows && is_for_inboxes(behind) && roll.may_have(device, behind, usize::MAX) {
            steps.push((behind.invoked, true));
            steps.extend(deliveries.first_at(other, device).map(|at| (at, false)));
        }
    }
    steps.sort_unstable();
    let mut waiting = 0_usize;
    steps.into_iter().any(|(_, comes)| {
        waiting = if comes { waiting + 1 } else { waiting - 1 };
        waiting >= INBOX_HOLDS - UNDER_WAY
    })
}

fn is_for_inboxes(sent: &Sent<'_>) -> bool {
    matches!(sent.audience, Audience::Devices(_) | Audience::Users(_))
}
