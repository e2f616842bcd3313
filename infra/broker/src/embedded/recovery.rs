//! Opening a queue: what the ledger says, compared with what is there.

use std::sync::Arc;

use super::{
    key::{self, Ledger, Spaces},
    queue::{Queue, Shared},
    state::State,
    supply::Supply,
};
use crate::Error;

/// Opens every queue, in the state the last process left it.
pub(super) fn open(shared: &Arc<Shared>) -> Result<Vec<Arc<Queue>>, Error> {
    nothing_left_behind(&shared.spaces)?;
    let open = |name| Ok(Queue::new(name, Arc::clone(shared), recover(name, &shared.spaces)?));
    model::Queue::all().map(open).collect()
}

/// Messages of a queue that this build does not have would wait for ever without anybody knowing.
fn nothing_left_behind(spaces: &Spaces) -> Result<(), Error> {
    for entry in spaces.queues.prefix([]) {
        let (name, ledger) = entry?;
        let known = model::Queue::all().any(|queue| key::queue(queue)[..] == name[..]);
        let messages = Ledger::decode(&ledger)?.messages;
        if !known && messages > 0 {
            return Err(Error::Corrupt(format!(
                "{messages} messages are in queue {name:?}, which does not exist here"
            )));
        }
    }
    Ok(())
}

/// Messages up to the mark may have been handed out and become suspects; those after it were not, and are there
/// without a gap. Acks that were not durable make suspects too.
fn recover(name: model::Queue, spaces: &Spaces) -> Result<State, Error> {
    let ledger = spaces.queues.get(key::queue(name))?;
    let ledger = ledger.map_or(Ok(Ledger::default()), |value| Ledger::decode(&value))?;
    let untouched = ledger.mark + 1;
    let last = spaces.messages.range(key::message(name, untouched)..=key::message(name, u64::MAX)).next_back();
    let next = last.transpose()?.map_or(Ok(untouched), |(key, _)| key::seq(&key).map(|last| last + 1))?;
    let mut supply = Supply::new(ledger.mark, next);
    let mut found = next - untouched;
    for entry in spaces.messages.range(key::message(name, ledger.head)..key::message(name, untouched)) {
        let (key, _) = entry?;
        let attempts = spaces.attempts.get(&key)?.map(|value| key::decode_attempts(&value)).transpose()?;
        supply.suspect(key::seq(&key)?, attempts.unwrap_or(1).saturating_add(1));
        found += 1;
    }
    if found != ledger.messages {
        let expected = ledger.messages;
        return Err(Error::Corrupt(format!("queue {name} has {found} messages where {expected} should be")));
    }
    Ok(State::new(ledger, supply, next))
}
