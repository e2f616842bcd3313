//! Every key of the embedded store, in one place: what it is made of, what lies behind it, and in which keyspace.
//!
//! A key is its table's number followed by its fields. Numbers are big-endian, so keys order as their fields do; names
//! carry their length, so no name runs into what follows it. Numbers and layouts are on disk: they never change, a new
//! layout gets a new number.

use std::fmt::Debug;

use model::{
    App as AppRecord, AppId, Device as DeviceRecord, DeviceId, Env, Group as GroupRecord, GroupId, Key as KeyRecord,
    KeyId, Message, MessageId, Ordinal, Seq, Tally as TallyRecord, Timestamp, Uplink as UplinkRecord, UplinkId, UserId,
    record::Record,
};

use super::{
    bounds::Bounds,
    changes::Changed,
    cursors::Kept as KeptCursor,
    devices::{Count as CountRecord, Named},
    inbox::Pending,
    messages::Kept as KeptMessage,
    shelves::{Edition, Kept as KeptRecord},
    table::{Nothing, Set},
    timeline::Listed,
    uplinks::At,
};
use crate::{Error, Promise};

/// A keyspace: tables that live and die alike, so that compaction meets the same kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Space {
    /// Apps, keys, devices, groups: stay until they are removed.
    Registry,
    /// Entries, bodies, audiences, tallies: written once or now and then, gone after their time.
    Messages,
    /// Inboxes, timelines, cursors: change all the time.
    Streams,
    /// What devices sent up.
    Uplinks,
    /// What must go, by when.
    Due,
}

impl Space {
    pub(super) const ALL: [Self; 5] = [Self::Registry, Self::Messages, Self::Streams, Self::Uplinks, Self::Due];

    /// The keyspace's name on disk.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Registry => "store-registry",
            Self::Messages => "store-messages",
            Self::Streams => "store-streams",
            Self::Uplinks => "store-uplinks",
            Self::Due => "store-due",
        }
    }
}

/// A key of one table.
pub(super) trait Key: Debug + Sized {
    /// What lies behind it.
    type Value: Record;
    /// Where it lies.
    const SPACE: Space;
    /// Its table's number: the first byte.
    const NUMBER: u8;

    /// The bytes.
    fn encode(&self) -> Vec<u8>;

    /// Reads what [`encode`](Key::encode) wrote.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A key that says when what it names must go.
pub(super) trait Due: Key<Value = Nothing> {
    /// The first key of this moment.
    fn from(at: Timestamp) -> Vec<u8> {
        let mut bytes = vec![Self::NUMBER];
        at.write(&mut bytes);
        bytes
    }

    /// When.
    fn at(&self) -> Timestamp;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $number:literal $space:ident $name:ident { $($field:ident: $part:ty),+ } -> $value:ty;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub(super) struct $name {
                $(pub(super) $field: $part),+
            }

            impl Key for $name {
                type Value = $value;
                const SPACE: Space = Space::$space;
                const NUMBER: u8 = $number;

                fn encode(&self) -> Vec<u8> {
                    let mut bytes = vec![$number];
                    $(self.$field.write(&mut bytes);)+
                    bytes
                }

                fn decode(bytes: &[u8]) -> Option<Self> {
                    let mut rest = bytes.strip_prefix(&[$number])?;
                    let key = Self { $($field: <$part>::read(&mut rest)?),+ };
                    rest.is_empty().then_some(key)
                }
            }
        )+

        #[cfg(test)]
        const NUMBERS: &[u8] = &[$($number),+];
    };
}

tables! {
    /// A tenant.
    1 Registry App { app: AppId } -> AppRecord;
    /// An API key.
    2 Registry ApiKey { id: KeyId } -> KeyRecord;
    /// The API keys of an app.
    3 Registry KeyOfApp { app: AppId, id: KeyId } -> Nothing;

    /// A registered device, by name.
    10 Registry Device { app: AppId, device: DeviceId } -> DeviceRecord;
    /// The name behind an ordinal; stays when the device goes.
    11 Registry Name { app: AppId, device: Ordinal } -> Named;
    /// How many ordinals were given.
    12 Registry Count { app: AppId } -> CountRecord;
    /// The registered devices of an environment whose ordinals have these upper 16 bits.
    13 Registry Live { app: AppId, env: Env, block: u16 } -> Set;
    /// The registered devices of a user.
    14 Registry DevicesOf { app: AppId, env: Env, user: UserId } -> Set;
    /// Where the changes of an app's registry begin and end.
    15 Registry ChangeBounds { app: AppId } -> Bounds;
    /// A change of an app's registry.
    16 Registry Change { app: AppId, seq: Seq } -> Changed;

    /// A static group.
    20 Registry Group { app: AppId, group: GroupId } -> GroupRecord;
    /// Its members.
    21 Registry Members { app: AppId, group: GroupId } -> Set;

    /// A record that is kept by name.
    22 Registry Shelved { app: AppId, env: Env, shelf: u8, name: Text } -> KeptRecord;
    /// How often a shelf was changed.
    23 Registry ShelfEdition { app: AppId, env: Env, shelf: u8 } -> Edition;

    /// What is kept of a message besides its body, from accept to the end of [`KEPT`](crate::messages::KEPT).
    30 Messages Entry { app: AppId, message: MessageId } -> KeptMessage;
    /// The message itself, from append to expiry: it outlives every entry of a stream that names it.
    31 Messages Body { app: AppId, message: MessageId } -> Message;
    /// Whom it is for, from append on.
    32 Messages Audience { app: AppId, message: MessageId } -> Set;
    /// What is known of its deliveries; `targeted` is left empty here, the audience says it.
    33 Messages Tally { app: AppId, message: MessageId } -> TallyRecord;
    /// An idempotency key.
    34 Messages Once { app: AppId, key: Text } -> Promise;

    /// A record that nobody lists, and that goes after its time.
    35 Messages Note { app: AppId, env: Env, shelf: u8, name: Text } -> KeptRecord;

    /// The stream of one device, whole: it is short, so one read and one write do for every change.
    40 Streams Inbox { app: AppId, device: Ordinal } -> Pending;
    /// How far a device has come.
    41 Streams Cursor { app: AppId, device: Ordinal } -> KeptCursor;
    /// Where an app's timeline begins and ends.
    42 Streams TimelineBounds { app: AppId } -> Bounds;
    /// An entry of a timeline.
    43 Streams Timeline { app: AppId, seq: Seq } -> Listed;

    /// Where the uplinks of an app and environment begin and end.
    50 Uplinks UplinkBounds { app: AppId, env: Env } -> Bounds;
    /// An uplink, in the order they were kept.
    51 Uplinks Uplink { app: AppId, env: Env, seq: Seq } -> UplinkRecord;
    /// Where an uplink stands.
    52 Uplinks UplinkById { app: AppId, env: Env, id: UplinkId } -> At;
    /// The uplinks of one type.
    53 Uplinks UplinkOfType { app: AppId, env: Env, kind: Text, seq: Seq } -> Nothing;

    /// A message that expires: its entries in streams and its body go.
    60 Due ExpiryDue { at: Timestamp, app: AppId, message: MessageId } -> Nothing;
    /// A message whose keeping time is over: what is left of it goes.
    61 Due EntryDue { at: Timestamp, app: AppId, message: MessageId } -> Nothing;
    /// An idempotency key that is forgotten.
    62 Due OnceDue { at: Timestamp, app: AppId, key: Text } -> Nothing;
    /// An uplink whose keeping time is over.
    63 Due UplinkDue { at: Timestamp, app: AppId, env: Env, seq: Seq } -> Nothing;
    /// A note whose time is over.
    64 Due NoteDue { at: Timestamp, app: AppId, env: Env, shelf: u8, name: Text } -> Nothing;
}

macro_rules! due {
    ($($name:ident),+) => {
        $(impl Due for $name {
            fn at(&self) -> Timestamp {
                self.at
            }
        })+
    };
}

due!(ExpiryDue, EntryDue, OnceDue, UplinkDue, NoteDue);

/// A text that callers choose, short enough for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(String);

impl Text {
    /// Takes at most 255 bytes: what one byte of length can say.
    pub(super) fn new(text: &str, what: &str) -> Result<Self, Error> {
        match u8::try_from(text.len()) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(Error::Rejected(format!("{what} takes at most {} bytes", u8::MAX))),
        }
    }

    /// The text.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// A field of a key.
pub(super) trait Part {
    /// Writes it so that bytes order as values do.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Reads it off the front.
    fn read(bytes: &mut &[u8]) -> Option<Self>
    where
        Self: Sized;
}

/// Length and bytes; names hold 64 of them at most, texts 255.
fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (&len, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(len.into())?;
    *bytes = rest;
    str::from_utf8(text).ok()
}

impl Part for Text {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_text(&self.0, bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        read_text(bytes).map(|text| Self(text.to_owned()))
    }
}

macro_rules! names {
    ($($name:ty),+) => {
        $(impl Part for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                write_text(self.as_str(), bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                read_text(bytes)?.parse().ok()
            }
        })+
    };
}

names!(AppId, DeviceId, UserId);

macro_rules! fixed {
    ($($name:ty: $width:literal, $write:expr, $read:expr;)+) => {
        $(impl Part for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                let write: fn(&Self) -> [u8; $width] = $write;
                bytes.extend_from_slice(&write(self));
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let read: fn([u8; $width]) -> Option<Self> = $read;
                let (fixed, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                read(*fixed)
            }
        })+
    };
}

fixed! {
    u8: 1, |n| [*n], |[byte]| Some(byte);
    u16: 2, |n| n.to_be_bytes(), |bytes| Some(u16::from_be_bytes(bytes));
    Ordinal: 4, |n| n.0.to_be_bytes(), |bytes| Some(Self(u32::from_be_bytes(bytes)));
    Seq: 8, |n| n.0.to_be_bytes(), |bytes| Some(Self(u64::from_be_bytes(bytes)));
    Timestamp: 8, |at| at.as_millis().to_be_bytes(), |bytes| Some(Self::from_millis(u64::from_be_bytes(bytes)));
    MessageId: 16, |id| id.to_bytes(), |bytes| Some(Self::from_bytes(bytes));
    GroupId: 16, |id| id.to_bytes(), |bytes| Some(Self::from_bytes(bytes));
    UplinkId: 16, |id| id.to_bytes(), |bytes| Some(Self::from_bytes(bytes));
    Env: 1, |env| [match env { Self::Live => 0, Self::Test => 1 }],
        |[byte]| match byte { 0 => Some(Self::Live), 1 => Some(Self::Test), _ => None };
    u128: 16, |n| n.to_be_bytes(), |bytes| Some(Self::from_be_bytes(bytes));
}

impl Part for KeyId {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.env.write(bytes);
        u128::from(self.ulid).write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (env, ulid) = (Env::read(bytes)?, u128::read(bytes)?);
        Some(Self { env, ulid: ulid.into() })
    }
}

#[cfg(test)]
mod tests;
