//! From an audience to the devices whose streams a message goes to.

use audience::SelectError;
use model::{Audience, Message, Ordinal, Ordinals};

use crate::Deps;

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

/// Finds out who is meant, as of now: this is where an audience freezes.
pub(crate) async fn resolve(deps: &Deps, message: &Message, audience: &Audience) -> Result<Place, Unresolved> {
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
