//! From an audience to the devices whose streams a message goes to.

use audience::{Frozen, SelectError, freeze};
use model::{Aim, Audience, Cap, Envelope, Exclusion, Message, Ordinal, Ordinals, Priority, Timestamp};
use store::{Entry, exclusions, messages::KEPT, shelves};
use tokio::sync::OnceCell;

use crate::{Deps, blocked::Blocked};

/// Longest list of devices that goes to inboxes one by one; longer ones, and sets of any size, go to the timeline,
/// where their cost does not grow with their length.
const INBOXES_MAX: u64 = 1_000;

/// Where a message goes.
pub(crate) enum Place {
    /// To the inboxes of these devices.
    Inbox(Ordinals),
    /// To the timeline of its app, for these devices.
    Timeline(Ordinals),
}

/// Why a message has no place.
pub(crate) enum Unresolved {
    /// Ask again.
    NotNow(String),
    /// It will never have one, for this reason.
    Never(String),
}

impl From<store::Error> for Unresolved {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Rejected(reason) => Self::Never(reason),
            error => Self::NotNow(error.to_string()),
        }
    }
}

impl From<SelectError> for Unresolved {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Invalid(reason) => Self::Never(reason.to_string()),
            SelectError::Unavailable(reason) => Self::NotNow(reason),
        }
    }
}

/// A message, and its entry once somebody has asked for it: most are resolved without.
struct Known<'a> {
    deps: &'a Deps,
    message: &'a Message,
    entry: OnceCell<Option<Entry>>,
}

impl Known<'_> {
    async fn entry(&self) -> Result<Option<&Entry>, store::Error> {
        let read = || self.deps.store.entry(&self.message.app, self.message.id);
        Ok(self.entry.get_or_try_init(read).await?.as_ref())
    }
}

/// Finds out who gets the message, as of now: this is where an audience freezes. What the sender excludes, who is
/// suppressed, who opted out and who is to be left in peace is taken out last, and noted with the reason. Nobody gets what
/// has expired.
pub(crate) async fn resolve(deps: &Deps, blocked: &Blocked, envelope: &Envelope) -> Result<Place, Unresolved> {
    let Envelope { message, audience, terms } = envelope;
    let now = deps.clock.now();
    if message.expires_at <= now {
        return Ok(Place::Inbox(Ordinals::new()));
    }
    let (to_inboxes, whom) = match meant(deps, message, audience).await? {
        Place::Inbox(whom) => (true, whom),
        Place::Timeline(whom) => (false, whom),
    };
    let mut frozen = freeze(&*deps.select, (&message.app, message.env), whom, terms, now).await?;
    let suppressed = blocked.suppressed(deps, message, now).await?;
    frozen.take_out(Exclusion::Suppressions, &suppressed);
    let known = Known { deps, message, entry: OnceCell::new() };
    // What a device has asked for, is ordered to do, or is told by another is no bother.
    let is_counted = message.class.is_message() && leave_in_peace(&known, blocked, &mut frozen, now).await?;
    note(&known, envelope, &frozen, is_counted).await?;
    Ok(if to_inboxes { Place::Inbox(frozen.targets) } else { Place::Timeline(frozen.targets.compact()) })
}

/// Takes out who wants no messages of the type, not now, or not so many; says whether these are counted.
async fn leave_in_peace(
    known: &Known<'_>,
    blocked: &Blocked,
    frozen: &mut Frozen,
    now: Timestamp,
) -> Result<bool, Unresolved> {
    let &Known { deps, message, .. } = known;
    let rules = blocked.rules(deps, message).await?;
    frozen.take_out(Exclusion::OptOuts, &rules.opted_out);
    // What cannot wait is sent as urgent.
    if let Some(hours) = rules.quiet.as_ref().filter(|_| message.priority != Priority::High) {
        let resting = blocked.resting(deps, message, hours, now).await?;
        frozen.take_out(Exclusion::QuietHours, &resting.among(&frozen.targets));
    }
    let Some(cap) = rules.cap else { return Ok(false) };
    let capped = count(known, cap, &frozen.targets, now).await?;
    frozen.take_out(Exclusion::FrequencyCap, &capped);
    Ok(true)
}

/// Counts a message for these devices; who does not get it. One that comes again is known by the note of what was decided,
/// however many were counted since; one that is cancelled counts for nothing.
async fn count(known: &Known<'_>, cap: Cap, devices: &Ordinals, now: Timestamp) -> Result<Ordinals, Unresolved> {
    let &Known { deps, message, .. } = known;
    let noted: Option<Aim> = shelves::find(&*deps.store, &message.app, message.env, &message.id.to_string()).await?;
    if let Some(Aim { excluded, .. }) = noted {
        let capped = excluded.into_iter().find(|(why, _)| *why == Exclusion::FrequencyCap);
        return Ok(capped.map(|(_, devices)| devices).unwrap_or_default());
    }
    if known.entry().await?.is_some_and(|entry| entry.cancelled_at.is_some()) {
        return Ok(Ordinals::new());
    }
    Ok(exclusions::count(&*deps.store, message, cap, devices, now).await?)
}

/// Notes what decided, unless nothing was asked or counted, and nobody taken out. A message that comes again after it was
/// appended keeps the note that goes with its audience.
async fn note(known: &Known<'_>, envelope: &Envelope, frozen: &Frozen, is_counted: bool) -> Result<(), Unresolved> {
    let Envelope { message, audience, terms } = envelope;
    let asked = match audience {
        Audience::Filter(expression) => Some(expression.clone()),
        Audience::Group(id) => Some(format!("group(\"{id}\")")),
        _ => None,
    };
    let wanted = match (asked, terms.only.clone()) {
        (Some(asked), Some(only)) => Some(format!("({asked}) && ({only})")),
        (asked, only) => asked.or(only),
    };
    if wanted.is_none() && frozen.excluded.is_empty() && !is_counted {
        return Ok(());
    }
    if known.entry().await?.is_some_and(|entry| entry.dispatched_at.is_some()) {
        return Ok(());
    }
    let aim = Aim { wanted, excluded: frozen.excluded.clone(), at: known.deps.clock.now() };
    let until = (message.created_at + KEPT).max(message.expires_at);
    Ok(shelves::note(&*known.deps.store, (&message.app, message.env), &message.id.to_string(), &aim, until).await?)
}

/// Who is meant, and where it would go.
async fn meant(deps: &Deps, message: &Message, audience: &Audience) -> Result<Place, Unresolved> {
    let app = &message.app;
    match audience {
        Audience::One(device) => Ok(Place::Inbox(one(*device))),
        Audience::Devices(devices) if devices.len() <= INBOXES_MAX => Ok(Place::Inbox(devices.clone())),
        Audience::Devices(devices) => Ok(Place::Timeline(devices.clone().compact())),
        Audience::Group(id) => {
            let gone = || Unresolved::Never(format!("group {id} was deleted before the message was dispatched"));
            let mut members = deps.store.members(app, *id).await?.ok_or_else(gone)?;
            members &= &deps.store.registered(app, message.env).await?;
            Ok(Place::Timeline(members.compact()))
        }
        Audience::Filter(expression) => {
            let selected = deps.select.select(app, message.env, expression, deps.clock.now()).await?;
            Ok(Place::Timeline(selected.compact()))
        }
        Audience::All { below } => {
            let registered = deps.store.registered(app, message.env).await?;
            Ok(Place::Timeline(registered.below(*below).compact()))
        }
    }
}

fn one(device: Ordinal) -> Ordinals {
    std::iter::once(device).collect()
}
